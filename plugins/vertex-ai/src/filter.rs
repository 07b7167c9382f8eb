//! What a list is asked for: AIP-160 text for the provider, and the same question asked of each answer.
//!
//! Without a bound a project with 10 000 jobs would be listed whole in every round. So each list is asked for what
//! is not finished, however old, **or** was created since a time of ours: the newest time at which everything was
//! listed, less an overlap, and the configured age at first contact. A job that was created and ended between two
//! rounds is in that window; one that ended later is known as open by then, and is looked up when it leaves the list.
//! In AIP-160 OR binds tighter than AND, so that reads: (created lately OR not succeeded) AND (created lately OR not
//! failed) AND … Naming what is finished, not what is unfinished, keeps states in the list that a newer API adds.

use std::fmt::Write as _;

use crate::config::{Config, CreatedAfter};
use crate::kind::{Kind, State};
use crate::time;
use crate::wire::{Resource, StateField};

/// The filter of one list. `since`: created from this time on counts whatever its state.
pub fn text(config: &Config, kind: Kind, since: u64) -> String {
    let mut clauses = Vec::new();
    if let CreatedAfter::Time(time) = config.created_after {
        clauses.push(format!("create_time>=\"{}\"", time::format(time)));
    }
    let wanted: Vec<String> = config
        .states
        .iter()
        .filter_map(|state| kind.state_name(state))
        .map(|state| format!("state=\"{state}\""))
        .collect();
    push_any(&mut clauses, wanted);
    let is_asked = |state: &State| config.states.is_empty() || config.states.contains(state);
    for state in State::FINAL.iter().filter(|state| is_asked(state)) {
        if let Some(name) = kind.state_name(state) {
            let since = time::format(since);
            clauses.push(format!("(create_time>=\"{since}\" OR state!=\"{name}\")"));
        }
    }
    let names = config.display_names.iter().map(|name| {
        let operator = if name.is_exact() { '=' } else { ':' };
        format!("display_name{operator}{}", quoted(name.as_str()))
    });
    push_any(&mut clauses, names.collect());
    for (key, value) in &config.labels {
        clauses.push(match value {
            Some(value) => label(key, value),
            None => format!("labels.{key}:*"),
        });
    }
    clauses.join(" AND ")
}

/// Jobs that carry one label.
pub fn label(key: &str, value: &str) -> String {
    format!("labels.{key}={}", quoted(value))
}

fn push_any(clauses: &mut Vec<String>, mut any: Vec<String>) {
    match any.len() {
        0 => {}
        1 => clauses.append(&mut any),
        _ => clauses.push(format!("({})", any.join(" OR "))),
    }
}

pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        let _ = write!(out, "{c}");
    }
    out.push('"');
    out
}

/// Whether the operator wants this job, in case the provider returned more than it was asked for. The window is no
/// part of it: more of the past does no harm.
pub fn wants(config: &Config, kind: Kind, resource: &Resource) -> bool {
    let state = match &resource.state.0 {
        Some(StateField(state)) => state,
        None => &State::Unspecified,
    };
    let name = resource.display_name.0.as_deref().unwrap_or_default();
    let label = |key: &str| {
        let labels = resource.labels.0.as_ref()?;
        let found = labels.0.iter().find(|(name, _)| name == key)?;
        Some(found.1.as_str())
    };
    let is_young = match (config.created_after, resource.create_time.0) {
        (CreatedAfter::Time(after), Some(created)) => created.0 >= after,
        _ => true,
    };
    // A state that nobody knew when the configuration was written is not silently left out.
    let has_state = config.states.is_empty()
        || config.states.contains(state)
        || kind.state_name(state).is_none();
    let has_name = config.display_names.is_empty()
        || config.display_names.iter().any(|glob| glob.matches(name));
    let has_labels = config.labels.iter().all(|(key, value)| match value {
        Some(value) => label(key) == Some(value),
        None => label(key).is_some(),
    });
    is_young && has_state && has_name && has_labels
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(more: &str) -> Config {
        let json = format!(r#"{{"projects": ["p"], "locations": ["l1"]{more}}}"#);
        Config::parse(&json).unwrap()
    }

    const SINCE: u64 = 1_748_527_200_000;

    #[test]
    fn without_filters_only_the_window_is_asked_for() {
        assert_eq!(
            text(&config(""), Kind::Pipeline, SINCE),
            "(create_time>=\"2025-05-29T14:00:00Z\" OR state!=\"PIPELINE_STATE_SUCCEEDED\") \
             AND (create_time>=\"2025-05-29T14:00:00Z\" OR state!=\"PIPELINE_STATE_FAILED\") \
             AND (create_time>=\"2025-05-29T14:00:00Z\" OR state!=\"PIPELINE_STATE_CANCELLED\")"
        );
        assert!(text(&config(""), Kind::Custom, SINCE).contains("JOB_STATE_PARTIALLY_SUCCEEDED"));
    }

    #[test]
    fn every_filter_is_pushed_down() {
        let config = config(
            r#", "states": ["running", "JOB_STATE_FAILED"], "display_names": ["av-*", "a \"b\" \\"], "labels": {"env": "prod", "team": "*"}, "created_after": "2025-01-01T00:00:00Z""#,
        );
        assert_eq!(
            text(&config, Kind::Custom, SINCE),
            "create_time>=\"2025-01-01T00:00:00Z\" AND (state=\"JOB_STATE_RUNNING\" OR state=\"JOB_STATE_FAILED\") \
             AND (create_time>=\"2025-05-29T14:00:00Z\" OR state!=\"JOB_STATE_FAILED\") \
             AND (display_name:\"av-*\" OR display_name=\"a \\\"b\\\" \\\\\") AND labels.env=\"prod\" AND labels.team:*"
        );
    }

    #[test]
    fn an_answer_is_held_against_the_same_question() {
        let config = config(
            r#", "states": ["RUNNING"], "display_names": ["av-*"], "labels": {"env": "prod", "team": "*"}, "created_after": "2025-01-01T00:00:00Z""#,
        );
        let good = r#"{"displayName": "av-1", "state": "JOB_STATE_RUNNING", "labels": {"env": "prod", "team": "x"}, "createTime": "2025-01-02T00:00:00Z"}"#;
        let wants = |json: &str| wants(&config, Kind::Custom, &serde_json::from_str(json).unwrap());
        assert!(wants(good));
        assert!(wants(&good.replace("RUNNING", "REBORN")), "a new state");
        for (from, to) in [
            ("RUNNING", "QUEUED"),
            ("av-1", "x"),
            ("prod", "dev"),
            ("team", "crew"),
            ("2025", "2024"),
        ] {
            assert!(!wants(&good.replace(from, to)), "{to}");
        }
    }
}
