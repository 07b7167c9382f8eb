//! Text that came from a guest, made safe to keep and to show.

/// At most `max` bytes of `text`, cut between characters.
pub(super) fn clip(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

/// `text` with control characters written as escapes, so that no terminal obeys them, and at most `max` bytes of it.
pub(super) fn printable(text: &str, max: usize) -> String {
    let mut out = String::with_capacity(text.len().min(max));
    for c in clip(text, max).chars() {
        if c.is_control() || is_bidi_control(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
        if out.len() >= max {
            break;
        }
    }
    out.truncate(out.floor_char_boundary(max));
    out
}

/// As `printable`, but lines stay lines.
pub(super) fn printable_lines(text: &str, max: usize) -> String {
    let lines: Vec<String> = clip(text, max)
        .lines()
        .map(|line| printable(line, max))
        .collect();
    lines.join("\n")
}

/// Characters that reorder the text around them: a log line must not read as another one.
fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped_and_cuts_fall_between_characters() {
        assert_eq!(printable("a\u{1b}[31mb\n", 100), "a\\u{1b}[31mb\\n");
        assert_eq!(printable("x\u{202e}y", 100), "x\\u{202e}y");
        assert_eq!(clip("aä", 2), "a");
        assert_eq!(printable("ääää", 5), "ää");
        assert_eq!(printable_lines("a\nb\tc", 100), "a\nb\\tc");
    }
}
