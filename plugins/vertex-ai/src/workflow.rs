//! Patterns over display names: which jobs are wanted, and which workflow a name tells.

use weir_sdk::text;

/// A workflow's key stays readable.
const WORKFLOW_MAX: usize = 200;
/// Longer names than Google allows are cut before they are matched.
const NAME_MAX: usize = 512;

/// A name in which `*` stands for anything, nothing included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob(String);

impl Glob {
    pub fn parse(pattern: &str) -> Result<Glob, &'static str> {
        Ok(Glob(pattern.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn is_exact(&self) -> bool {
        !self.0.contains('*')
    }

    pub fn matches(&self, name: &str) -> bool {
        if self.is_exact() {
            return self.0 == name;
        }
        let parts: Vec<&str> = self.0.split('*').collect();
        let (first, last) = (parts[0], parts[parts.len() - 1]);
        if name.len() < first.len() + last.len()
            || !name.starts_with(first)
            || !name.ends_with(last)
        {
            return false;
        }
        let mut rest = &name[first.len()..name.len() - last.len()];
        for part in &parts[1..parts.len() - 1] {
            match rest.find(part) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        true
    }
}

/// `av-video-render-{id}` or `{workflow}-{id}`: text with at most one of each placeholder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamePattern(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Workflow,
    Id,
}

impl NamePattern {
    pub fn parse(pattern: &str) -> Result<NamePattern, &'static str> {
        let mut parts = Vec::new();
        let mut rest = pattern;
        while let Some(at) = rest.find('{') {
            if at > 0 {
                parts.push(Part::Text(rest[..at].to_owned()));
            }
            let (part, length) = if rest[at..].starts_with("{id}") {
                (Part::Id, 4)
            } else if rest[at..].starts_with("{workflow}") {
                (Part::Workflow, 10)
            } else {
                return Err("only {id} and {workflow} may stand in braces");
            };
            if parts.contains(&part) {
                return Err("a placeholder stands there twice");
            }
            if matches!(parts.last(), Some(Part::Id | Part::Workflow)) {
                return Err("some text must stand between two placeholders");
            }
            parts.push(part);
            rest = &rest[at + length..];
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        if !parts.contains(&Part::Id) {
            return Err("{id} must stand for what differs from job to job");
        }
        if parts.len() == 1 {
            return Err("some text or {workflow} must stand beside {id}");
        }
        Ok(NamePattern(parts))
    }

    /// The workflow that `name` tells: what {workflow} stands for, else the pattern's own text.
    pub fn workflow(&self, name: &str) -> Option<String> {
        let name = text::line(name, NAME_MAX);
        let mut found = None;
        if !fit(&self.0, &name, &mut found) {
            return None;
        }
        let workflow = match found {
            Some(found) => found,
            None => self.own_text(),
        };
        let workflow = text::line(workflow.trim_matches(is_separator), WORKFLOW_MAX);
        Some(workflow).filter(|workflow| !workflow.is_empty())
    }

    fn own_text(&self) -> String {
        let texts = self.0.iter().filter_map(|part| match part {
            Part::Text(text) => Some(text.trim_matches(is_separator)),
            Part::Workflow | Part::Id => None,
        });
        let texts: Vec<&str> = texts.filter(|text| !text.is_empty()).collect();
        texts.join("-")
    }
}

fn is_separator(c: char) -> bool {
    matches!(c, '-' | '_' | '.' | ':' | '/' | ' ')
}

/// Whether `parts` cover the whole of `name`. A placeholder stands for one character at least; the first takes as
/// much as it can. Two placeholders at most: the work is bounded by the square of the name.
fn fit(parts: &[Part], name: &str, workflow: &mut Option<String>) -> bool {
    match parts {
        [] => name.is_empty(),
        [Part::Text(text), rest @ ..] => name
            .strip_prefix(text.as_str())
            .is_some_and(|name| fit(rest, name, workflow)),
        [part, rest @ ..] => {
            let ends = name.char_indices().map(|(at, c)| at + c.len_utf8());
            let ends: Vec<usize> = ends.collect();
            ends.into_iter().rev().any(|end| {
                let is_fit = fit(rest, &name[end..], workflow);
                if is_fit && *part == Part::Workflow {
                    *workflow = Some(name[..end].to_owned());
                }
                is_fit
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, name, expected) in [
            ("av-*", "av-1", true),
            ("av-*", "av-", true),
            ("av-*", "xav-1", false),
            ("*", "", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("ab*ba", "aba", false),
            ("exact", "exact", true),
            ("exact", "exact-1", false),
            ("*レ*", "あレン", true),
        ] {
            assert_eq!(
                Glob::parse(pattern).unwrap().matches(name),
                expected,
                "{pattern} {name}"
            );
        }
    }

    #[test]
    fn a_name_tells_its_workflow() {
        for (pattern, name, expected) in [
            (
                "av-video-render-{id}",
                "av-video-render-q0000001",
                Some("av-video-render"),
            ),
            ("av-video-render-{id}", "av-video-render-", None),
            ("av-video-render-{id}", "train-multi", None),
            (
                "{workflow}-{id}",
                "av-video-render-q1",
                Some("av-video-render"),
            ),
            ("{workflow}-{id}", "nothing", None),
            ("{id}/{workflow}", "7/render", Some("render")),
            ("nightly_{id}_eu", "nightly_1_eu", Some("nightly-eu")),
            ("nightly_{id}_eu", "nightly_1_us", None),
            ("{workflow}:{id}", "レンダー:1", Some("レンダー")),
        ] {
            let pattern = NamePattern::parse(pattern).unwrap();
            assert_eq!(pattern.workflow(name).as_deref(), expected, "{name}");
        }
        let long = NamePattern::parse("{workflow}-{id}").unwrap();
        assert!(long.workflow(&"a-".repeat(100_000)).is_some());
    }

    #[test]
    fn a_pattern_that_tells_nothing_is_refused() {
        for pattern in [
            "render",
            "{id}",
            "{id}{workflow}",
            "{id}-{id}",
            "{name}-{id}",
            "a{",
        ] {
            assert!(NamePattern::parse(pattern).is_err(), "{pattern}");
        }
    }
}
