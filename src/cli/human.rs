//! Values as people read them: times in their zone, durations, sizes, and text that a terminal can be trusted with.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// Longer strings from the daemon are cut before anything else looks at them.
const TEXT_LEN_MAX: usize = 64 * 1024;

/// Replaces everything in the strings of `value` that a terminal would obey. Line breaks and tabs stay.
pub fn scrub(value: &mut Value) {
    match value {
        Value::String(text) if text.len() > TEXT_LEN_MAX || text.chars().any(unsafe_char) => {
            *text = text
                .chars()
                .take(TEXT_LEN_MAX)
                .map(|c| if unsafe_char(c) { '\u{fffd}' } else { c })
                .collect();
        }
        Value::Array(items) => items.iter_mut().for_each(scrub),
        Value::Object(map) => map.values_mut().for_each(scrub),
        _ => {}
    }
}

/// Controls, and the marks that turn the direction of what follows.
fn unsafe_char(c: char) -> bool {
    (c.is_control() && c != '\n' && c != '\t')
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The text on one line, safe for a terminal.
pub fn one_line(text: &str) -> String {
    let safe: String = text
        .chars()
        .take(TEXT_LEN_MAX)
        .map(|c| match c {
            '\n' | '\t' | '\r' => ' ',
            c if unsafe_char(c) => '\u{fffd}',
            c => c,
        })
        .collect();
    safe.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The text on one line and at most `width` columns wide; a cut ends in `…`.
pub fn fit(text: &str, width: usize) -> String {
    let line = one_line(text);
    if line.width() <= width {
        return line;
    }
    let mut used = 0;
    let mut out = String::new();
    for c in line.chars() {
        let columns = c.width().unwrap_or(0);
        if used + columns + 1 > width {
            break;
        }
        used += columns;
        out.push(c);
    }
    if width > 0 {
        out.push('…');
    }
    out
}

/// [`fit`], filled with blanks to exactly `width` columns.
pub fn pad(text: &str, width: usize) -> String {
    let mut out = fit(text, width);
    let used = out.width();
    out.extend(std::iter::repeat_n(' ', width.saturating_sub(used)));
    out
}

/// `0.8 s`, `12 s`, `3 min 5 s`, `2 h 5 min`, `3 d 4 h`.
pub fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "-".to_owned();
    }
    if seconds < 10.0 {
        return format!("{seconds:.1} s");
    }
    // Far beyond any real duration the number saturates, which is as good as any other.
    let whole = seconds as u64;
    let (days, hours, minutes) = (whole / 86_400, whole / 3600 % 24, whole / 60 % 60);
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{minutes} min {} s", whole % 60),
        3600..86_400 => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

pub fn duration_or_dash(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| "-".to_owned(), duration)
}

/// `812 B`, `12.3 MiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// `47 %`, `~47 %` where it is an estimate, nothing where it is unknown.
pub fn percent(progress: Option<f64>, estimated: bool) -> String {
    match progress {
        Some(percent) => {
            let sign = if estimated { "~" } else { "" };
            format!("{sign}{:.0} %", percent.clamp(0.0, 100.0).floor())
        }
        None => String::new(),
    }
}

/// Times in the zone of the reader.
#[derive(Clone, Debug)]
pub struct Local {
    zone: TimeZone,
    now: Timestamp,
}

impl Local {
    pub fn new(zone: TimeZone, now: Timestamp) -> Local {
        Local { zone, now }
    }

    /// With the clock as it is now.
    pub fn current(zone: TimeZone) -> Local {
        Local::new(zone, Timestamp::now())
    }

    pub fn zone(&self) -> &TimeZone {
        &self.zone
    }

    /// `10:00:03` today, `Nov 21 10:00` on another day of this year, else the whole date.
    pub fn time(&self, time: Timestamp) -> String {
        let local = time.to_zoned(self.zone.clone());
        let now = self.now.to_zoned(self.zone.clone());
        let format = if local.date() == now.date() {
            "%H:%M:%S"
        } else if local.year() == now.year() {
            "%b %d %H:%M"
        } else {
            "%Y-%m-%d %H:%M"
        };
        local.strftime(format).to_string()
    }

    pub fn time_or_dash(&self, time: Option<Timestamp>) -> String {
        time.map_or_else(|| "-".to_owned(), |time| self.time(time))
    }

    /// To the millisecond and with the zone, for a single thing looked at closely.
    pub fn exact(&self, time: Timestamp) -> String {
        let local = time.to_zoned(self.zone.clone());
        local.strftime("%Y-%m-%d %H:%M:%S%.3f %Z").to_string()
    }

    /// `12 s ago`, `in 3 min 5 s`.
    pub fn ago(&self, time: Timestamp) -> String {
        let seconds = self.now.duration_since(time).as_secs_f64();
        if seconds < 0.0 {
            format!("in {}", duration(-seconds))
        } else {
            format!("{} ago", duration(seconds))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_outside_cannot_move_the_cursor_or_turn_the_direction() {
        let mut value = serde_json::json!({ "a": ["x\u{1b}[2J\u{9b}\u{202e}y\nz"] });
        scrub(&mut value);
        assert_eq!(value["a"][0], "x\u{fffd}[2J\u{fffd}\u{fffd}y\nz");
        assert_eq!(one_line("a\r\n\tb\u{7}"), "a b\u{fffd}");
    }

    #[test]
    fn wide_text_is_cut_by_columns_and_not_by_characters() {
        assert_eq!(fit("日本語のワークフロー", 7), "日本語…");
        assert_eq!(pad("日本", 6), "日本  ");
        assert_eq!(fit("short", 5), "short");
        assert_eq!(fit("longer", 5), "long…");
        assert_eq!(fit("x", 0), "");
    }

    #[test]
    fn durations_and_sizes_have_two_units_at_most() {
        let texts = [0.04, 9.96, 12.0, 65.9, 3600.0, 90_061.0].map(duration);
        assert_eq!(
            texts,
            [
                "0.0 s",
                "10.0 s",
                "12 s",
                "1 min 5 s",
                "1 h 0 min",
                "1 d 1 h"
            ]
        );
        assert_eq!(duration(f64::NAN), "-");
        assert_eq!(
            [812, 1536, 12_900_000].map(bytes),
            ["812 B", "1.5 KiB", "12.3 MiB"]
        );
        assert_eq!(percent(Some(99.9), true), "~99 %");
    }

    #[test]
    fn a_time_of_today_has_no_date() {
        let local = Local::new(
            TimeZone::fixed(jiff::tz::offset(1)),
            "2026-11-22T10:00:00Z".parse().unwrap(),
        );
        let time = |text: &str| local.time(text.parse().unwrap());
        assert_eq!(time("2026-11-22T09:59:57Z"), "10:59:57");
        assert_eq!(time("2026-11-21T22:30:00Z"), "Nov 21 23:30");
        assert_eq!(time("2025-12-31T23:30:00Z"), "Jan 01 00:30");
        assert_eq!(time("2024-12-31T22:30:00Z"), "2024-12-31 23:30");
        assert_eq!(
            local.ago("2026-11-22T09:59:48Z".parse().unwrap()),
            "12 s ago"
        );
    }
}
