//! What is wrong with a configuration: one finding, where it is, and what would be right.

use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    Warning,
    Error,
}

/// One finding in a configuration file. `Display` leaves the file name out; [`Diagnostic::render`] puts it in front.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    pub severity: Severity,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// `sources[1].poll_interval`; empty for the file as a whole.
    pub path: String,
    /// What is wrong, or what was expected.
    pub message: String,
    /// What stands there instead. Never a secret.
    pub found: Option<String>,
    /// What would be right.
    pub help: Option<String>,
}

impl Diagnostic {
    /// `monitor.ron:12:9: sources[0].pol_interval: unknown field; did you mean `poll_interval`?`
    pub fn render(&self, file: &str) -> String {
        format!("{file}:{self}")
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.line, self.column)?;
        if self.severity == Severity::Warning {
            f.write_str("warning: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        if let Some(found) = &self.found {
            write!(f, ", found {found}")?;
        }
        if let Some(help) = &self.help {
            write!(f, "; {help}")?;
        }
        Ok(())
    }
}

/// The candidate that `word` was most likely meant to be, if one is close enough to be worth naming.
pub fn suggest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = bounded(word).to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| {
            (
                strsim::jaro_winkler(&word, &candidate.to_lowercase()),
                candidate,
            )
        })
        .filter(|(likeness, _)| *likeness >= 0.8)
        // The first of equals wins, so that the order of declaration decides and not the float.
        .fold(None, |best: Option<(f64, &str)>, next| match best {
            Some(best) if best.0 >= next.0 => Some(best),
            _ => Some(next),
        })
        .map(|(_, candidate)| candidate)
}

/// `did you mean `x`?`, or nothing.
pub(super) fn did_you_mean<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    suggest(word, candidates).map(|candidate| format!("did you mean `{candidate}`?"))
}

/// Comparing costs the product of the lengths; no name of ours is longer than this.
fn bounded(word: &str) -> &str {
    match word.char_indices().nth(64) {
        Some((end, _)) => &word[..end],
        None => word,
    }
}

#[cfg(test)]
mod tests {
    use super::suggest;

    #[test]
    fn a_near_miss_is_recognised_and_a_stranger_is_not() {
        let fields = ["name", "plugin", "poll_interval", "lost_after"];
        assert_eq!(suggest("pol_interval", fields), Some("poll_interval"));
        assert_eq!(suggest("Plugin", fields), Some("plugin"));
        assert_eq!(suggest("interval", fields), None);
        assert_eq!(suggest("colour", fields), None);
        assert_eq!(suggest("", fields), None);
    }
}
