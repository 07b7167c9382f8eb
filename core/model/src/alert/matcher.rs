//! Matchers: amtool's `label=value`, `!=`, `=~`, `!~` over the labels of an alert.

use std::collections::BTreeMap;
use std::fmt;

use regex::{Regex, RegexBuilder};

/// One condition on one label. A label that is missing counts as empty, as in Alertmanager.
#[derive(Clone, Debug)]
pub struct Matcher {
    pub label: String,
    pub op: MatchOp,
    pub value: String,
    /// Present exactly for the two regex operators.
    regex: Option<Regex>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MatchOp {
    Equal,
    NotEqual,
    Regex,
    NotRegex,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MatcherError {
    #[error("no operator: write `label=value`, `label!=value`, `label=~regex` or `label!~regex`")]
    NoOperator,
    #[error("`{0}` is no label name: letters, digits and `_`, not starting with a digit")]
    BadLabel(String),
    #[error("a quote in the value is not closed, or stands in its middle")]
    BadQuotes,
    #[error("the regular expression does not parse: {0}")]
    BadRegex(String),
}

/// Where a matcher finds the value of a label.
pub trait Labels {
    fn label(&self, name: &str) -> Option<&str>;
}

impl Labels for BTreeMap<String, String> {
    fn label(&self, name: &str) -> Option<&str> {
        self.get(name).map(String::as_str)
    }
}

impl Labels for [(String, String)] {
    fn label(&self, name: &str) -> Option<&str> {
        self.iter()
            .find(|(label, _)| label == name)
            .map(|(_, value)| value.as_str())
    }
}

impl Labels for Vec<(String, String)> {
    fn label(&self, name: &str) -> Option<&str> {
        self.as_slice().label(name)
    }
}

impl Matcher {
    /// Parses `severity=~error|critical` or `source="studio"`. The regex is anchored at both ends.
    pub fn parse(text: &str) -> Result<Self, MatcherError> {
        let at = text.find(['=', '!']).ok_or(MatcherError::NoOperator)?;
        let (label, rest) = (text[..at].trim(), &text[at..]);
        let (op, value) = [
            ("=~", MatchOp::Regex),
            ("!~", MatchOp::NotRegex),
            ("!=", MatchOp::NotEqual),
            ("=", MatchOp::Equal),
        ]
        .into_iter()
        .find_map(|(sign, op)| rest.strip_prefix(sign).map(|value| (op, value)))
        .ok_or(MatcherError::NoOperator)?;
        if !is_label_name(label) {
            return Err(MatcherError::BadLabel(label.chars().take(64).collect()));
        }
        Self::new(label, op, &unquoted(value.trim())?)
    }

    /// Builds a matcher from its parts.
    pub fn new(label: &str, op: MatchOp, value: &str) -> Result<Self, MatcherError> {
        let regex = match op {
            MatchOp::Equal | MatchOp::NotEqual => None,
            MatchOp::Regex | MatchOp::NotRegex => Some(anchored(value)?),
        };
        Ok(Self {
            label: label.to_owned(),
            op,
            value: value.to_owned(),
            regex,
        })
    }

    pub fn matches<L: Labels + ?Sized>(&self, labels: &L) -> bool {
        self.matches_value(labels.label(&self.label).unwrap_or_default())
    }

    /// Whether a label of this value (empty: no such label) is matched.
    pub fn matches_value(&self, value: &str) -> bool {
        let regex_matches = self
            .regex
            .as_ref()
            .is_some_and(|regex| regex.is_match(value));
        match self.op {
            MatchOp::Equal => value == self.value,
            MatchOp::NotEqual => value != self.value,
            MatchOp::Regex => regex_matches,
            MatchOp::NotRegex => !regex_matches,
        }
    }
}

/// Whether all of them match; none at all match everything.
pub fn all_match<L: Labels + ?Sized>(matchers: &[Matcher], labels: &L) -> bool {
    matchers.iter().all(|matcher| matcher.matches(labels))
}

/// Letters, digits and `_`, not starting with a digit: what Prometheus and Alertmanager allow everywhere.
pub fn is_label_name(name: &str) -> bool {
    name.len() <= 64
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Self) -> bool {
        (&self.label, self.op, &self.value) == (&other.label, other.op, &other.value)
    }
}

impl Eq for Matcher {}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.op {
            MatchOp::Equal => "=",
            MatchOp::NotEqual => "!=",
            MatchOp::Regex => "=~",
            MatchOp::NotRegex => "!~",
        };
        write!(f, "{}{sign}\"", self.label)?;
        for c in self.value.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                '\n' => f.write_str("\\n")?,
                other => write!(f, "{other}")?,
            }
        }
        f.write_str("\"")
    }
}

fn anchored(pattern: &str) -> Result<Regex, MatcherError> {
    // The pattern alone first: `a)(b` would become valid inside our group.
    let compile = |text: &str| {
        RegexBuilder::new(text)
            .size_limit(1 << 20)
            .nest_limit(64)
            .build()
    };
    compile(pattern)
        .and_then(|_| compile(&format!("^(?:{pattern})$")))
        .map_err(|error| {
            let message = error.to_string();
            let last = message.lines().last().unwrap_or_default();
            MatcherError::BadRegex(
                last.trim_start_matches("error: ")
                    .chars()
                    .take(120)
                    .collect(),
            )
        })
}

fn unquoted(value: &str) -> Result<String, MatcherError> {
    let Some(inner) = value.strip_prefix('"') else {
        return if value.contains('"') {
            Err(MatcherError::BadQuotes)
        } else {
            Ok(value.to_owned())
        };
    };
    let mut text = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' if chars.as_str().is_empty() => return Ok(text),
            '"' => break,
            '\\' => match chars.next() {
                Some('n') => text.push('\n'),
                Some(escaped @ ('"' | '\\')) => text.push(escaped),
                // As in Alertmanager: an unknown escape stands for itself, so that regexes need no doubling.
                Some(other) => text.extend(['\\', other]),
                None => break,
            },
            other => text.push(other),
        }
    }
    Err(MatcherError::BadQuotes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels() -> BTreeMap<String, String> {
        [("severity", "error"), ("source", "studio")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into()
    }

    fn matches(text: &str) -> bool {
        Matcher::parse(text).unwrap().matches(&labels())
    }

    #[test]
    fn the_four_operators_mean_what_amtool_means() {
        assert!(matches("severity=error"));
        assert!(matches("severity = \"error\""));
        assert!(!matches("severity!=error"));
        assert!(matches("severity=~error|critical"));
        assert!(!matches("severity=~err"), "a regex is anchored");
        assert!(matches("severity!~err"));
        assert!(matches("workflow="), "a missing label is empty");
        assert!(matches("workflow!=nightly"));
        assert!(!matches("workflow=~.+"));
    }

    #[test]
    fn what_is_no_matcher_is_refused() {
        assert_eq!(Matcher::parse("severity"), Err(MatcherError::NoOperator));
        assert_eq!(
            Matcher::parse("severity!error"),
            Err(MatcherError::NoOperator)
        );
        assert_eq!(
            Matcher::parse("=x"),
            Err(MatcherError::BadLabel(String::new()))
        );
        assert_eq!(
            Matcher::parse("a b=x"),
            Err(MatcherError::BadLabel("a b".into()))
        );
        assert_eq!(Matcher::parse("a=\"x"), Err(MatcherError::BadQuotes));
        assert_eq!(Matcher::parse("a=\"x\"y"), Err(MatcherError::BadQuotes));
        assert!(matches!(
            Matcher::parse("a=~("),
            Err(MatcherError::BadRegex(_))
        ));
        assert!(matches!(
            Matcher::parse("a=~a)(b"),
            Err(MatcherError::BadRegex(_))
        ));
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused_and_what_is_parsed_is_written_back(text in ".{0,40}") {
            if let Ok(matcher) = Matcher::parse(&text) {
                prop_assert_eq!(Matcher::parse(&matcher.to_string()), Ok(matcher));
            }
        }

        #[test]
        fn any_value_survives_quoting(value in "[ -~\n]{0,20}") {
            let matcher = Matcher::new("source", MatchOp::Equal, &value).unwrap();
            let read = Matcher::parse(&matcher.to_string()).unwrap();
            prop_assert!(read.matches_value(&value));
        }
    }
}
