//! Text from outside, made short and safe to show.

/// One line of at most `max` bytes: control and direction characters gone, runs of white space one blank.
pub fn line(text: &str, max: usize) -> String {
    let mut out = String::with_capacity(text.len().min(max + 4));
    let mut blank = false;
    for c in text.chars() {
        if c.is_whitespace() {
            blank = !out.is_empty();
            continue;
        }
        if is_hidden(c) {
            continue;
        }
        if blank {
            out.push(' ');
            blank = false;
        }
        out.push(c);
        if out.len() > max {
            break;
        }
    }
    cut(out, max)
}

/// `text` of at most `max` bytes, cut between characters, with an ellipsis where something was cut.
pub fn cut(mut text: String, max: usize) -> String {
    if text.len() <= max {
        return text;
    }
    let mut end = max.saturating_sub('…'.len_utf8());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text.push('…');
    text
}

/// Characters that a terminal or a page would act upon instead of showing them.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

/// A URL without `user:password@`.
pub fn without_userinfo(url: &str) -> String {
    let Some(start) = url.find("://").map(|at| at + 3) else {
        return url.to_owned();
    };
    let end = url[start..].find('/').map_or(url.len(), |at| start + at);
    match url[start..end].rfind('@') {
        Some(at) => format!("{}{}", &url[..start], &url[start + at + 1..]),
        None => url.to_owned(),
    }
}

/// Absolute paths of the host (`/srv/x`, `C:\x`, `\\server\x`, `~/x`, `file:///x`) replaced by `<path>`.
pub fn without_paths(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut before = None;
    while let Some(c) = rest.chars().next() {
        if starts_path(before, rest) {
            let end = path_end(before, rest);
            out.push_str("<path>");
            rest = &rest[end..];
            before = Some('>');
        } else {
            out.push(c);
            before = Some(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    out
}

fn starts_path(before: Option<char>, rest: &str) -> bool {
    if before.is_some_and(|c| {
        c.is_alphanumeric() || matches!(c, '/' | '\\' | '.' | '_' | '-' | '<' | '>')
    }) {
        return false;
    }
    let bytes = rest.as_bytes();
    let solid = |at: usize| {
        bytes.get(at).is_some_and(|b| {
            !b.is_ascii_whitespace() && !b.is_ascii_punctuation()
                || matches!(b, b'.' | b'_' | b'-' | b'~' | b'@')
        })
    };
    match bytes {
        [b'f' | b'F', ..] => rest
            .get(..8)
            .is_some_and(|head| head.eq_ignore_ascii_case("file:///")),
        [b'~', b'/', ..] => solid(2),
        // "http://host" has a letter and a colon before its slashes, "//host" alone is no path of this machine.
        [b'/', ..] => {
            before != Some(':') && solid(1)
                || before == Some(':') && solid(1) && bytes.get(1) != Some(&b'/')
        }
        [b'\\', b'\\', b'?' | b'.', b'\\', ..] => true,
        [b'\\', b'\\', ..] => solid(2),
        [drive, b':', b'\\' | b'/', ..] => drive.is_ascii_alphabetic(),
        _ => false,
    }
}

/// Where a path that starts at 0 ends: at the closing quote if it stands in quotes, else at white space,
/// but a next word that still holds a separator belongs to it (`C:\Users\Jane Doe\x`).
fn path_end(before: Option<char>, rest: &str) -> usize {
    if let Some(quote @ ('\'' | '"' | '`')) = before
        && let Some(end) = rest.find(quote)
    {
        return end;
    }
    let is_end = |c: char| {
        c.is_whitespace()
            || matches!(
                c,
                '\'' | '"' | '`' | '<' | '>' | '|' | ')' | ']' | '}' | ',' | ';'
            )
    };
    let mut end = rest.find(is_end).unwrap_or(rest.len());
    while let Some(next) = rest[end..].strip_prefix(' ') {
        let word = next.find(is_end).unwrap_or(next.len());
        let continues = next[..word].contains(['/', '\\'])
            && !next.starts_with(['/', '\\'])
            && !next[..word].contains("://");
        if !continues {
            break;
        }
        end += 1 + word;
    }
    let trimmed = rest[..end].trim_end_matches(['.', ':', '!', '?']);
    trimmed.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_holds_no_control_characters_and_is_short() {
        assert_eq!(line(" a\u{1b}[31m\r\n\tb\u{202e}c\u{0} ", 100), "a[31m bc");
        assert_eq!(line("žluťoučký", 8), "žlu…");
        assert_eq!(line(&"x".repeat(5000), 2048).len(), 2048);
        assert_eq!(line("", 5), "");
    }

    #[test]
    fn host_paths_are_replaced_and_other_slashes_stay() {
        for (text, expected) in [
            ("failed at step 2/4", "failed at step 2/4"),
            (
                "[Errno 2] No such file: '/srv/my models/a.png'",
                "[Errno 2] No such file: '<path>'",
            ),
            (
                "cannot open /srv/comfy/models/x.ckpt: denied",
                "cannot open <path>: denied",
            ),
            ("/a/b.", "<path>."),
            (r"C:\Users\Jane Doe\ComfyUI\x.png is gone", "<path> is gone"),
            (r"see D:/x/y, please", "see <path>, please"),
            (r"\\server\share\x", "<path>"),
            (r"'\\?\C:\x y' no", "'<path>' no"),
            ("file:///home/me/x y", "<path> y"),
            ("path=/etc/passwd;", "path=<path>;"),
            (
                "get https://example.com/a/b and either/or, n/a, 1 / 2",
                "get https://example.com/a/b and either/or, n/a, 1 / 2",
            ),
            ("~/secret/x", "<path>"),
            ("File:/root/x", "File:<path>"),
            ("(/home/john doe/x)", "(<path>)"),
            ("é/x /é", "é/x <path>"),
        ] {
            assert_eq!(without_paths(text), expected);
        }
    }
}
