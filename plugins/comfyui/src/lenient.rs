//! Answers that Python wrote, made JSON where they are not.

pub use weir_sdk::lenient::{Entries, Items, Lenient};

/// Makes JSON of what Python writes in its place, in the same length: `NaN` and `Infinity` (a node's `IS_CHANGED`
/// leaves them in prompts) become 0, half a surrogate pair (file names that are no UTF-8) becomes U+FFFD.
/// Says whether anything was changed.
pub fn repair(body: &mut [u8]) -> bool {
    let mut changed = false;
    let mut at = 0;
    let mut in_string = false;
    while at < body.len() {
        match (in_string, body[at]) {
            (_, b'"') => in_string = !in_string,
            (true, b'\\') => {
                let (length, is_lone) = escape(&body[at..]);
                if is_lone {
                    body[at + 2..at + 6].copy_from_slice(b"fffd");
                    changed = true;
                }
                at += length;
                continue;
            }
            (false, b'N' | b'I') => {
                for word in [&b"NaN"[..], b"Infinity"] {
                    if body[at..].starts_with(word) {
                        // "-Infinity" becomes "-0", which is a number too.
                        body[at..at + word.len()].fill(b' ');
                        body[at] = b'0';
                        changed = true;
                    }
                }
            }
            _ => {}
        }
        at += 1;
    }
    changed
}

/// The length of the escape that `bytes` start with, and whether it is half a surrogate pair.
fn escape(bytes: &[u8]) -> (usize, bool) {
    let unit = |at: usize| {
        let digits = bytes
            .get(at..at + 6)
            .filter(|digits| digits.starts_with(b"\\u"))?;
        u16::from_str_radix(std::str::from_utf8(&digits[2..]).ok()?, 16).ok()
    };
    match (unit(0), unit(6)) {
        (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => (12, false),
        (Some(0xd800..=0xdfff), _) => (6, true),
        (Some(_), _) => (6, false),
        (None, _) => (2, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn python_json_is_repaired_in_place_and_strings_stay() {
        let mut body = br#"{"a": [NaN, -Infinity, Infinity], "b": "NaN \" \ud83d\ude00 \udce9 \ud83d", "c\\": NaN}"#.to_vec();
        assert!(repair(&mut body));
        let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(value["a"], serde_json::json!([0, -0.0, 0]));
        assert_eq!(value["b"], "NaN \" 😀 \u{fffd} \u{fffd}");
        assert_eq!(value["c\\"], 0);
        assert!(!repair(&mut body));
        for odd in ["", "\\", "\"\\", "\"\\u12", "N", "Inf"] {
            repair(&mut odd.as_bytes().to_vec());
        }
    }
}
