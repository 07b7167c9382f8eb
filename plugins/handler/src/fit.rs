//! Text cut to what a service takes: whole lines, and how many are missing.

/// How a service counts and escapes characters.
#[derive(Clone, Copy)]
pub struct Style {
    /// Writes one character so that the service shows it and does nothing else with it.
    pub escape: fn(char, &mut String),
    /// What one character of the escaped text counts.
    pub units: fn(char) -> usize,
}

/// As it is.
pub fn plain(c: char, out: &mut String) {
    out.push(c);
}

/// `&`, `<` and `>` as entities: Slack's mrkdwn and Telegram's HTML.
pub fn entities(c: char, out: &mut String) {
    match c {
        '&' => out.push_str("&amp;"),
        '<' => out.push_str("&lt;"),
        '>' => out.push_str("&gt;"),
        c => out.push(c),
    }
}

impl Style {
    /// One line of at most `max` units, escaped, with an ellipsis where something was cut.
    pub fn line(&self, line: &str, max: usize) -> String {
        let (mut out, mut end, mut used) = (String::new(), 0, 0);
        // One unit is kept for the ellipsis.
        let room = max.saturating_sub(self.size("…"));
        for c in line.chars() {
            let start = out.len();
            (self.escape)(c, &mut out);
            used += self.size(&out[start..]);
            if used <= room {
                end = out.len();
            }
            if used > max {
                out.truncate(end);
                if max > 0 {
                    out.push('…');
                }
                return out;
            }
        }
        out
    }

    /// Lines up to `max` units, whole ones where one fits at all. `hidden` more are missing from the start;
    /// `more` writes what is said about those that are missing, already escaped.
    pub fn lines(
        &self,
        lines: &[String],
        max: usize,
        hidden: usize,
        more: impl Fn(usize) -> String,
    ) -> String {
        let escaped: Vec<String> = lines
            .iter()
            .map(|line| self.line(line, max.saturating_add(1)))
            .collect();
        let whole = escaped.join("\n");
        if hidden == 0 && self.size(&whole) <= max {
            return whole;
        }
        let note = more(hidden.saturating_add(lines.len()));
        let room = max.saturating_sub(self.size(&note) + 1);
        let (mut out, mut used, mut shown) = (String::new(), 0, 0);
        for line in &escaped {
            let size = self.size(line) + usize::from(shown > 0);
            if used + size > room {
                break;
            }
            if shown > 0 {
                out.push('\n');
            }
            out.push_str(line);
            used += size;
            shown += 1;
        }
        if shown == 0
            && let Some(first) = lines.first()
        {
            out = self.line(first, room);
            shown = 1;
        }
        let missing = hidden + lines.len() - shown;
        if missing > 0 {
            if !out.is_empty() {
                out.push('\n');
            }
            out.push_str(&more(missing));
        }
        out
    }

    /// What a text counts.
    pub fn size(&self, text: &str) -> usize {
        text.chars().map(self.units).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: Style = Style {
        escape: plain,
        units: char::len_utf8,
    };
    const HTML: Style = Style {
        escape: entities,
        units: char::len_utf16,
    };

    fn more(n: usize) -> String {
        format!("+{n} more")
    }

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn what_fits_is_left_alone() {
        assert_eq!(BYTES.lines(&lines("a\nb"), 3, 0, more), "a\nb");
        assert_eq!(BYTES.line("žlu", 5), "žlu");
        assert_eq!(HTML.line("a<b", 6), "a&lt;b");
    }

    #[test]
    fn a_cut_falls_between_characters_and_never_within_an_entity() {
        assert_eq!(BYTES.line("žluťoučký", 8), "žlu…");
        assert_eq!(HTML.line("a<b", 5), "a…");
        assert_eq!(HTML.line("😀😀😀", 5), "😀😀…");
        assert_eq!(HTML.line("abc", 0), "");
        for max in 0..40 {
            let cut = HTML.line("<&>a<&>b<&>", max);
            assert!(HTML.size(&cut) <= max, "{cut} {max}");
            let plain = cut
                .replace("&amp;", "")
                .replace("&lt;", "")
                .replace("&gt;", "");
            assert!(!plain.contains(['&', ';']), "{cut}");
        }
    }

    #[test]
    fn whole_lines_and_how_many_are_missing() {
        let text = lines("first\nsecond\nthird\nfourth");
        assert_eq!(BYTES.lines(&text, 22, 0, more), "first\nsecond\n+2 more");
        assert_eq!(
            BYTES.lines(&text, 100, 5, more),
            "first\nsecond\nthird\nfourth\n+5 more"
        );
        assert_eq!(
            BYTES.lines(&lines("abcdefghijklmnopqrst\nb"), 18, 0, more),
            "abcdefg…\n+1 more"
        );
        let long: Vec<String> = (0..500).map(|n| format!("line {n} <&> ž 😀")).collect();
        for max in [20, 100, 1000, 4096] {
            let fitted = HTML.lines(&long, max, 3, more);
            assert!(HTML.size(&fitted) <= max, "{max}: {fitted}");
            assert!(fitted.ends_with("more"), "{fitted}");
        }
    }
}
