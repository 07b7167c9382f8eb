//! Times and lengths of time as Google's JSON spells them.

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;

pub const SECOND: u64 = 1000;
pub const MINUTE: u64 = 60 * SECOND;
pub const HOUR: u64 = 60 * MINUTE;
pub const DAY: u64 = 24 * HOUR;

/// RFC 3339 with 0 to 9 digits of a second, in milliseconds since the epoch. None for what is no time or before 1970.
pub fn parse(text: &str) -> Option<u64> {
    let timestamp: Timestamp = text.parse().ok()?;
    u64::try_from(timestamp.as_millisecond()).ok()
}

/// RFC 3339 in UTC, to the second, as filters take it.
pub fn format(milliseconds: u64) -> String {
    let seconds = i64::try_from(milliseconds / SECOND).unwrap_or(i64::MAX);
    Timestamp::from_second(seconds)
        .unwrap_or(Timestamp::MAX)
        .to_string()
}

/// The same, to the millisecond.
pub fn format_exactly(milliseconds: u64) -> String {
    let milliseconds = i64::try_from(milliseconds).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(milliseconds)
        .unwrap_or(Timestamp::MAX)
        .to_string()
}

/// `"3600s"`, `"7.500s"`, in milliseconds.
pub fn duration(text: &str) -> Option<u64> {
    let number = text.trim().strip_suffix('s')?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) {
        return None;
    }
    let whole: u64 = whole.parse().ok()?;
    let mut thousandths = 0;
    for place in 0..3 {
        let digit = fraction
            .as_bytes()
            .get(place)
            .map_or(0, |digit| digit - b'0');
        thousandths = thousandths * 10 + u64::from(digit);
    }
    // What is finer is rounded up: a wait must never end too early.
    let is_finer = fraction.bytes().skip(3).any(|digit| digit != b'0');
    whole
        .checked_mul(SECOND)?
        .checked_add(thousandths + u64::from(is_finer))
}

/// `30d`, `12h`, `45m`, `90s`, in milliseconds.
pub fn age(text: &str) -> Option<u64> {
    let text = text.trim();
    let unit = match text.bytes().last()? {
        b's' => SECOND,
        b'm' => MINUTE,
        b'h' => HOUR,
        b'd' => DAY,
        b'w' => 7 * DAY,
        _ => return None,
    };
    let number: u64 = text[..text.len() - 1].trim().parse().ok()?;
    number
        .checked_mul(unit)
        .filter(|age| *age <= 100 * 366 * DAY)
}

/// A header's date (`Sun, 06 Nov 1994 08:49:37 GMT`), in milliseconds since the epoch.
pub fn http_date(text: &str) -> Option<u64> {
    const PARSER: DateTimeParser = DateTimeParser::new();
    let timestamp = PARSER.parse_timestamp(text.trim()).ok()?;
    u64::try_from(timestamp.as_millisecond()).ok()
}

/// `Retry-After`: seconds or a date, in milliseconds from `now`.
pub fn retry_after(text: &str, now: u64) -> Option<u64> {
    match text.trim().parse::<u64>() {
        Ok(seconds) => seconds.checked_mul(SECOND),
        Err(_) => Some(http_date(text)?.saturating_sub(now)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_have_any_number_of_digits() {
        const BASE: u64 = 1_748_527_200_000;
        for (text, expected) in [
            ("2025-05-29T14:00:00Z", Some(BASE)),
            ("2025-05-29T14:00:00.500Z", Some(BASE + 500)),
            ("2025-05-29T14:00:00.123456Z", Some(BASE + 123)),
            ("2025-05-29T14:00:00.123456789Z", Some(BASE + 123)),
            ("2025-05-29T16:00:00+02:00", Some(BASE)),
            ("1969-12-31T23:59:59Z", None),
            ("yesterday", None),
            ("", None),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
        assert_eq!(format(BASE + 999), "2025-05-29T14:00:00Z");
    }

    #[test]
    fn durations_are_never_rounded_down() {
        for (text, expected) in [
            ("3600s", Some(3_600_000)),
            ("7.500s", Some(7_500)),
            ("0.0001s", Some(1)),
            ("1.5s", Some(1_500)),
            ("604800s", Some(604_800_000)),
            ("3600", None),
            ("-1s", None),
            ("s", None),
            ("1e3s", None),
            ("99999999999999999999s", None),
        ] {
            assert_eq!(duration(text), expected, "{text}");
        }
        assert_eq!(age("30d"), Some(30 * DAY));
        assert_eq!((age("1w"), age("12h")), (Some(7 * DAY), Some(12 * HOUR)));
        assert_eq!(
            (age("d"), age("30"), age("-1d"), age("99999999d")),
            (None, None, None, None)
        );
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        assert_eq!(now, 784_111_777_000);
        assert_eq!(retry_after("120", now), Some(120_000));
        assert_eq!(
            retry_after("Sun, 06 Nov 1994 08:49:47 GMT", now),
            Some(10_000)
        );
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:00:00 GMT", now), Some(0));
        assert_eq!(retry_after("soon", now), None);
    }
}
