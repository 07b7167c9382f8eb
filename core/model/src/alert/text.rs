//! Words of alerts: short plain texts, bounded, with nothing in them that a terminal would obey.

use std::fmt::Write as _;
use std::time::Duration;

/// Longest title, in characters.
pub const TITLE_LEN_MAX: usize = 200;
/// Longest error inside a text, in bytes.
pub const ERROR_LEN_MAX: usize = 1024;
/// Longest name inside a title, in characters: two of them and their words fit.
pub const NAME_LEN_MAX: usize = 80;

/// One line: control characters and bidirectional overrides escaped, white space as blanks, cut with `…`.
pub fn line(text: &str, len_max: usize) -> String {
    cut(&escaped(text.trim(), false), len_max)
}

/// A name as it stands in a title.
pub fn name(text: &str) -> String {
    line(text, NAME_LEN_MAX)
}

/// A provider's error: may have several lines, at most [`ERROR_LEN_MAX`] bytes.
pub fn error(text: &str) -> String {
    // Cut before escaping too: an error may be as long as a response.
    let head = floor(text.trim(), 4 * ERROR_LEN_MAX);
    let escaped = escaped(head, true);
    if escaped.len() <= ERROR_LEN_MAX && head.len() == text.trim().len() {
        return escaped;
    }
    format!("{}…", floor(&escaped, ERROR_LEN_MAX - '…'.len_utf8()))
}

/// `0.4 s`, `42 s`, `3 min 10 s`, `3 h 10 min`, `2 d 4 h`.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let pair = |big: u64, unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{big} {unit}"),
        _ => format!("{big} {unit} {small} {small_unit}"),
    };
    match seconds {
        0..10 if duration.subsec_millis() >= 100 => format!("{:.1} s", duration.as_secs_f64()),
        0..60 => format!("{seconds} s"),
        60..3600 => pair(seconds / 60, "min", seconds % 60, "s"),
        3600..86_400 => pair(seconds / 3600, "h", seconds % 3600 / 60, "min"),
        _ => pair(seconds / 86_400, "d", seconds % 86_400 / 3600, "h"),
    }
}

/// A percentage or count with at most one decimal: `87.3`, `85`.
pub fn number(value: f64) -> String {
    let rounded = (value * 10.0).round() / 10.0;
    if rounded.fract() == 0.0 {
        format!("{rounded:.0}")
    } else {
        format!("{rounded:.1}")
    }
}

/// The page of an execution under the configured base, which may end in a slash.
pub fn execution_url(public_url: &str, uuid: &uuid::Uuid) -> String {
    format!("{}/executions/{uuid}", public_url.trim_end_matches('/'))
}

/// The first `len_max` characters, the last of them `…` when some are missing.
pub fn cut(text: &str, len_max: usize) -> String {
    match text.char_indices().nth(len_max) {
        None => text.to_owned(),
        Some(_) => text
            .chars()
            .take(len_max.saturating_sub(1))
            .chain(['…'])
            .collect(),
    }
}

/// The longest head of at most `len_max` bytes that ends between characters.
fn floor(text: &str, len_max: usize) -> &str {
    &text[..text.floor_char_boundary(len_max)]
}

fn escaped(text: &str, keep_lines: bool) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' if keep_lines => clean.push('\n'),
            '\n' | '\t' => clean.push(' '),
            '\r' => {}
            c if c.is_control() || is_invisible(c) => {
                write!(clean, "{}", c.escape_unicode()).expect("a string takes any text");
            }
            c => clean.push(c),
        }
    }
    clean
}

/// Overrides of the writing direction and line separators: they make a text look like another.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_read_as_people_say_them() {
        let say = |seconds: f64| duration(Duration::from_secs_f64(seconds));
        assert_eq!(say(0.0), "0 s");
        assert_eq!(say(0.42), "0.4 s");
        assert_eq!(say(42.9), "42 s");
        assert_eq!(say(60.0), "1 min");
        assert_eq!(say(190.0), "3 min 10 s");
        assert_eq!(say(11_400.0), "3 h 10 min");
        assert_eq!(say(187_200.0), "2 d 4 h");
    }

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        assert_eq!(
            line(" a\x1b[31mb\nc\u{202e}d\t\r ", 100),
            "a\\u{1b}[31mb c\\u{202e}d"
        );
        assert_eq!(error("line 1\r\nline 2\0"), "line 1\nline 2\\u{0}");
    }

    #[test]
    fn a_cut_shows() {
        assert_eq!(cut("žluťoučký", 5), "žluť…");
        assert_eq!(cut("žluť", 4), "žluť");
        assert!(error(&"x".repeat(5000)).ends_with('…'));
    }

    #[test]
    fn a_link_has_one_slash() {
        let uuid = uuid::Uuid::nil();
        let expected = "https://weir.example.net/w/executions/00000000-0000-0000-0000-000000000000";
        assert_eq!(
            execution_url("https://weir.example.net/w/", &uuid),
            expected
        );
        assert_eq!(execution_url("https://weir.example.net/w", &uuid), expected);
    }

    proptest! {
        #[test]
        fn every_text_is_bounded_and_plain(text in "\\PC{0,40}|.{0,3000}", len_max in 1usize..300) {
            let line = line(&text, len_max);
            prop_assert!(line.chars().count() <= len_max);
            prop_assert!(!line.chars().any(|c| c.is_control() || is_invisible(c)));
            let error = error(&text);
            prop_assert!(error.len() <= ERROR_LEN_MAX);
            prop_assert!(!error.chars().any(|c| (c.is_control() && c != '\n') || is_invisible(c)));
        }
    }
}
