//! Values with a meaning of their own: durations, sizes, percentages, names, paths, URLs.

use std::path::PathBuf;
use std::time::Duration;

use jiff::fmt::friendly::{Spacing, SpanPrinter};
use jiff::{SignedDuration, Span, SpanRelativeTo};
use url::Url;

use super::decode::{Decoder, Finding, describe};
use super::tree::{Kind, Node};

const NAME_LEN_MAX: usize = 64;
const DAY: Duration = Duration::from_secs(86_400);

impl Decoder<'_> {
    pub(super) fn count(&mut self, node: &Node, path: &str, min: u32, max: u32) -> Option<u32> {
        let value = match &node.kind {
            Kind::Integer(value) => u32::try_from(*value)
                .ok()
                .filter(|value| (min..=max).contains(value)),
            _ => None,
        };
        value.or_else(|| self.wrong(node, path, &format!("a whole number from {min} to {max}")))
    }

    /// 85, 85.5; a trailing `%` in a string is named in the help.
    pub(super) fn percent(&mut self, node: &Node, path: &str) -> Option<f64> {
        let value = match &node.kind {
            Kind::Integer(value) if (0..=100).contains(value) => Some(*value as f64),
            Kind::Float(value) if (0.0..=100.0).contains(value) => Some(*value),
            _ => None,
        };
        if value.is_none() {
            let mut finding =
                Finding::new("expected a percentage from 0 to 100").found(describe(node));
            if let Kind::Text(text) = &node.kind
                && let Ok(number) = text.trim().trim_end_matches('%').trim_end().parse::<f64>()
                && (0.0..=100.0).contains(&number)
            {
                finding = finding.help(format!("write {number}"));
            }
            self.error(node.offset, path, finding);
        }
        value
    }

    pub(super) fn duration(
        &mut self,
        node: &Node,
        path: &str,
        min: Duration,
        max: Duration,
    ) -> Option<Duration> {
        const EXPECTED: &str = "expected a duration such as \"2s\", \"500ms\" or \"1h30m\"";
        let text = match &node.kind {
            Kind::Text(text) => text,
            Kind::Integer(value) if *value >= 0 => {
                let finding = Finding::new(EXPECTED)
                    .found(describe(node))
                    .help(format!("write \"{value}s\""));
                self.error(node.offset, path, finding);
                return None;
            }
            _ => return self.wrong(node, path, &EXPECTED["expected ".len()..]),
        };
        let Some(duration) = parse_duration(text) else {
            let help = duration_help(text).map(str::to_owned);
            self.error(
                node.offset,
                path,
                Finding::new(EXPECTED)
                    .found(describe(node))
                    .maybe_help(help),
            );
            return None;
        };
        if duration < min || duration > max {
            let (bound, limit) = if duration < min {
                ("at least", min)
            } else {
                ("at most", max)
            };
            let finding = Finding::new(format!("expected {bound} {}", show_duration(limit)))
                .found(describe(node));
            self.error(node.offset, path, finding);
            return None;
        }
        Some(duration)
    }

    pub(super) fn size(&mut self, node: &Node, path: &str, min: u64, max: u64) -> Option<u64> {
        const EXPECTED: &str = "expected a size such as \"64MiB\" or \"2GiB\"";
        let Kind::Text(text) = &node.kind else {
            return self.wrong(node, path, &EXPECTED["expected ".len()..]);
        };
        // A number without a unit parses too, but nobody means two bytes by "2".
        let size = text
            .parse::<bytesize::ByteSize>()
            .ok()
            .filter(|_| text.ends_with(char::is_alphabetic));
        let Some(bytesize::ByteSize(size)) = size else {
            self.error(
                node.offset,
                path,
                Finding::new(EXPECTED).found(describe(node)),
            );
            return None;
        };
        if size < min || size > max {
            let (bound, limit) = if size < min {
                ("at least", min)
            } else {
                ("at most", max)
            };
            let finding = Finding::new(format!("expected {bound} {}", show_size(limit)))
                .found(describe(node));
            self.error(node.offset, path, finding);
            return None;
        }
        Some(size)
    }

    /// The name of a source, rule or receiver.
    pub(super) fn name(&mut self, node: &Node, path: &str) -> Option<String> {
        let text = self.text(node, path)?;
        let allowed = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
        if text.is_empty() || text.chars().count() > NAME_LEN_MAX || !text.chars().all(allowed) {
            let expected = format!(
                "expected a name: letters, digits, `-`, `_` and `.`, at most {NAME_LEN_MAX}"
            );
            self.error(
                node.offset,
                path,
                Finding::new(expected).found(describe(node)),
            );
            return None;
        }
        Some(text)
    }

    pub(super) fn path(&mut self, node: &Node, path: &str) -> Option<PathBuf> {
        let text = self.text(node, path)?;
        if text.is_empty() || text.contains('\0') {
            return self.wrong(node, path, "a path");
        }
        if text.starts_with('~') && text != "~" && !text.starts_with("~/") {
            let finding = Finding::new("`~` of another user is not expanded").found(describe(node));
            self.error(node.offset, path, finding.help("write the whole path"));
            return None;
        }
        Some(PathBuf::from(text))
    }

    /// An absolute http(s) URL without user and password. The value is not repeated: it may be a capability.
    pub(super) fn url(&mut self, node: &Node, path: &str) -> Option<Url> {
        const EXPECTED: &str = "expected a URL such as \"https://example.net/path\"";
        let text = self.text(node, path)?;
        let finding = match Url::parse(&text) {
            Ok(url) if !matches!(url.scheme(), "http" | "https") => {
                let help = if text.contains("://") {
                    "only http and https are possible"
                } else {
                    "begin with https:// or http://"
                };
                Finding::new(EXPECTED).help(help)
            }
            Ok(url) if !url.username().is_empty() || url.password().is_some() => {
                Finding::new("a URL may not hold a user or password")
                    .help("put them into `credentials`")
            }
            Ok(url) => return Some(url),
            Err(url::ParseError::RelativeUrlWithoutBase) => {
                Finding::new(EXPECTED).help("begin with https:// or http://")
            }
            Err(error) => Finding::new(EXPECTED).help(error.to_string()),
        };
        self.error(node.offset, path, finding);
        None
    }
}

/// "2s", "1h30m", "30d" (a day is 24 hours), "1 hour 30 minutes", "PT2S"; never negative.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    let span: Span = text.parse().ok()?;
    let duration: SignedDuration = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?;
    Duration::try_from(duration).ok()
}

/// The shortest text that [`parse_duration`] reads back to the same: `1h30m`, `30d`.
pub(super) fn show_duration(duration: Duration) -> String {
    let printer = SpanPrinter::new().spacing(Spacing::None);
    let days = duration.as_secs() / DAY.as_secs();
    let rest = duration - DAY * u32::try_from(days).unwrap_or(u32::MAX).min(36_500);
    let days = (duration - rest).as_secs() / DAY.as_secs();
    // Below two days hours are the plainer word.
    if days < 2 || !rest.as_secs().is_multiple_of(3600) {
        return printer.unsigned_duration_to_string(&duration);
    }
    if rest.is_zero() {
        format!("{days}d")
    } else {
        format!("{days}d{}", printer.unsigned_duration_to_string(&rest))
    }
}

/// The largest unit that says it exactly: `64MiB`, `1536KiB`, `1000B`.
pub(super) fn show_size(bytes: u64) -> String {
    let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match units
        .iter()
        .find(|(_, shift)| bytes >= 1 << shift && bytes.trailing_zeros() >= *shift)
    {
        Some((unit, shift)) => format!("{}{unit}", bytes >> shift),
        None => format!("{bytes}B"),
    }
}

fn duration_help(text: &str) -> Option<&'static str> {
    match text.parse::<Span>() {
        Ok(span) if span.is_negative() => Some("it may not be negative"),
        Ok(_) => Some("months and years have no fixed length"),
        Err(_) => Some("units are ms, s, m, h, d and w"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_are_written_as_they_are_read() {
        for text in [
            "500ms", "2s", "1h30m", "24h", "30d", "2d6h", "1m30s", "36h30m",
        ] {
            assert_eq!(show_duration(parse_duration(text).unwrap()), text);
        }
        assert_eq!(parse_duration("2"), None);
        assert_eq!(parse_duration("-2s"), None);
        assert_eq!(parse_duration("1month"), None);
        assert_eq!(parse_duration("1.5s"), Some(Duration::from_millis(1500)));
        assert_eq!(show_size(64 << 20), "64MiB");
        assert_eq!(show_size(1000), "1000B");
        assert_eq!(show_size(3 << 19), "1536KiB");
    }
}
