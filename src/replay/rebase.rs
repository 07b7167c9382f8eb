//! The shift of recorded epoch milliseconds, so that a replayed job seems to happen now.

/// The fields of ComfyUI's answers that hold epoch milliseconds.
const FIELDS: [&str; 4] = [
    "create_time",
    "timestamp",
    "execution_start_time",
    "execution_end_time",
];

/// Adds `shift_ms` to every epoch-ms field of a JSON text and changes nothing else.
///
/// It works on the text because parsing would lose the order of `/history`, which is part of its meaning. A quote
/// inside a JSON string is escaped, so `"create_time":` cannot occur within one.
pub(super) fn rebase(body: &str, shift_ms: i64) -> String {
    let mut out = String::with_capacity(body.len());
    let mut rest = body;
    while let Some(quote) = rest.find('"') {
        let (before, from_quote) = rest.split_at(quote);
        out.push_str(before);
        let Some(key_len) = string_len(from_quote) else {
            out.push_str(from_quote);
            return out;
        };
        let (key, after) = from_quote.split_at(key_len);
        out.push_str(key);
        rest = after;
        if !FIELDS.contains(&key.trim_matches('"')) {
            continue;
        }
        let digits_at = after.len() - after.trim_start_matches([':', ' ']).len();
        let digits_len = after[digits_at..]
            .bytes()
            .take_while(u8::is_ascii_digit)
            .count();
        // A fraction would not be an epoch-ms field of ComfyUI, and fewer digits are no time.
        let Ok(ms) = after[digits_at..digits_at + digits_len].parse::<i64>() else {
            continue;
        };
        if digits_at > 0 && digits_len >= 12 {
            out.push_str(&after[..digits_at]);
            out.push_str(&ms.saturating_add(shift_ms).to_string());
            rest = &after[digits_at + digits_len..];
        }
    }
    out.push_str(rest);
    out
}

/// The length of the JSON string at the beginning of `text`, quotes included.
fn string_len(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (index, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(index + 1),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_epoch_fields_are_shifted() {
        let body = r#"{"create_time": 1795337166881, "timestamp":1795337166883, "priority": 1795337166881, "timestamp": null}"#;
        let expected = r#"{"create_time": 1795337166981, "timestamp":1795337166983, "priority": 1795337166881, "timestamp": null}"#;
        assert_eq!(rebase(body, 100), expected);
    }

    #[test]
    fn a_field_name_inside_a_text_is_left_alone() {
        let body =
            r#"{"text": "\"create_time\": 1795337166881", "s": "timestamp", "n": 1795337166881}"#;
        assert_eq!(rebase(body, 5), body);
    }

    #[test]
    fn broken_json_is_passed_through() {
        let body = r#"{"create_time": 1795337166881, "x": "unclosed"#;
        assert_eq!(
            rebase(body, 1),
            r#"{"create_time": 1795337166882, "x": "unclosed"#
        );
    }
}
