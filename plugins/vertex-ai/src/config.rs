//! The operator's configuration of one Vertex AI source.

use std::collections::BTreeMap;

use serde::Deserialize;
use weir_sdk::{Failure, config, failure, text};

use crate::kind::{Kind, State};
use crate::name::{Scope, is_location, is_project};
use crate::time;
use crate::workflow::{Glob, NamePattern};

pub const CONFIG_SCHEMA: &str = r#"{
  "type": "object", "additionalProperties": false, "required": ["projects", "locations"],
  "properties": {
    "projects": {"type": "array", "items": {"type": "string"}, "minItems": 1, "description": "Ids or numbers of projects"},
    "locations": {"type": "array", "items": {"type": "string"}, "minItems": 1, "description": "us-central1, europe-west4, ..."},
    "kinds": {"type": "array", "items": {"enum": ["custom_jobs", "pipeline_jobs", "batch_prediction_jobs"]}, "description": "Default: all three"},
    "states": {"type": "array", "items": {"type": "string"}, "description": "Only jobs in one of these states are taken up (RUNNING, FAILED, ...); those taken up are followed to their end"},
    "display_names": {"type": "array", "items": {"type": "string"}, "description": "Only jobs with one of these names; * stands for anything"},
    "labels": {"type": "object", "additionalProperties": {"type": "string"}, "description": "Only jobs with all of these labels; * as a value: any"},
    "created_after": {"type": "string", "default": "30d", "description": "A time (RFC 3339): older jobs are not watched. An age such as 30d: how far back finished jobs are imported at first contact"},
    "workflow": {"type": "array", "items": {"type": "string"}, "description": "Workflow from the display name: av-video-render-{id} gives av-video-render, {workflow}-{id} what stands before the last -"},
    "workflow_label": {"type": "string", "description": "Workflow from this label of a job, before any pattern"},
    "page_size": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100},
    "credential": {"type": "string", "default": "gcp", "description": "Name of a credential of this source; empty for none"},
    "base_url": {"type": "string", "description": "Default https://{location}-aiplatform.googleapis.com"},
    "logging_url": {"type": "string", "description": "Default https://logging.googleapis.com"}
  }
}"#;

const PROJECTS_MAX: usize = 20;
const LOCATIONS_MAX: usize = 60;
/// Lists of one round: each is a request at least.
const SCOPES_MAX: usize = 120;
const FILTERS_MAX: usize = 20;
const PATTERN_MAX: usize = 200;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConfig {
    projects: Vec<String>,
    locations: Vec<String>,
    kinds: Option<Vec<String>>,
    #[serde(default)]
    states: Vec<String>,
    #[serde(default)]
    display_names: Vec<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    created_after: Option<String>,
    #[serde(default)]
    workflow: OneOrMany,
    workflow_label: Option<String>,
    page_size: Option<u32>,
    credential: Option<String>,
    base_url: Option<String>,
    logging_url: Option<String>,
}

/// `"a"` or `["a", "b"]`.
#[derive(Debug, Clone, Default)]
struct OneOrMany(Vec<String>);

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<OneOrMany, D::Error> {
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(one) => Ok(OneOrMany(vec![one])),
            many @ serde_json::Value::Array(_) => serde_json::from_value(many)
                .map(OneOrMany)
                .map_err(serde::de::Error::custom),
            _ => Err(serde::de::Error::custom(
                "expected a string or a list of strings",
            )),
        }
    }
}

/// How far back the provider's past is of interest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreatedAfter {
    /// Nothing created before this time is watched.
    Time(u64),
    /// What finished is imported as far back as this; what is unfinished always counts.
    Age(u64),
}

/// A configuration that was checked.
#[derive(Debug, Clone)]
pub struct Config {
    pub projects: Vec<String>,
    pub locations: Vec<String>,
    pub kinds: Vec<Kind>,
    /// Empty = all.
    pub states: Vec<State>,
    /// Empty = all.
    pub display_names: Vec<Glob>,
    /// Value none: any.
    pub labels: Vec<(String, Option<String>)>,
    pub created_after: CreatedAfter,
    pub workflow: Vec<NamePattern>,
    pub workflow_label: Option<String>,
    pub page_size: u32,
    pub credential: Option<String>,
    base_url: Option<String>,
    pub logging_url: String,
}

impl Config {
    /// Parses the JSON that the host hands over; an error names the field.
    pub fn parse(json: &str) -> Result<Config, Failure> {
        let raw: RawConfig = config::parse(json)?;
        let kinds = kinds(raw.kinds.as_deref())?;
        check_list(
            "projects",
            &raw.projects,
            PROJECTS_MAX,
            is_project,
            "a project's id or number",
        )?;
        check_list(
            "locations",
            &raw.locations,
            LOCATIONS_MAX,
            is_location,
            "a location such as us-central1",
        )?;
        let scopes = raw.projects.len() * raw.locations.len() * kinds.len();
        if scopes > SCOPES_MAX {
            return Err(wrong(
                "locations",
                format!(
                    "{scopes} lists would be asked for in each round, {SCOPES_MAX} are allowed; use several sources"
                ),
            ));
        }
        let page_size = raw.page_size.unwrap_or(100);
        if !(1..=1000).contains(&page_size) {
            return Err(wrong(
                "page_size",
                format!("expected 1 to 1000, found {page_size}"),
            ));
        }
        let states = states(&raw.states)?;
        let has_any = |state: &State| kinds.iter().any(|kind| kind.state_name(state).is_some());
        if !states.is_empty() && !states.iter().any(has_any) {
            return Err(wrong(
                "states",
                "none of the watched kinds has any of these states",
            ));
        }
        Ok(Config {
            states,
            display_names: patterns("display_names", &raw.display_names, Glob::parse)?,
            labels: labels(raw.labels)?,
            created_after: created_after(raw.created_after.as_deref())?,
            workflow: patterns("workflow", &raw.workflow.0, NamePattern::parse)?,
            workflow_label: raw
                .workflow_label
                .map(|key| label_key("workflow_label", key))
                .transpose()?,
            page_size,
            credential: match raw.credential {
                None => Some("gcp".to_owned()),
                Some(name) => Some(name).filter(|name| !name.is_empty()),
            },
            base_url: raw.base_url.map(|url| base("base_url", &url)).transpose()?,
            logging_url: base(
                "logging_url",
                raw.logging_url
                    .as_deref()
                    .unwrap_or("https://logging.googleapis.com"),
            )?,
            projects: raw.projects,
            locations: raw.locations,
            kinds,
        })
    }

    /// Where a location is served, without a `/` at the end.
    pub fn base(&self, location: &str) -> String {
        match &self.base_url {
            Some(base) => base.replace("{location}", location),
            None if location == "global" => "https://aiplatform.googleapis.com".to_owned(),
            None => format!("https://{location}-aiplatform.googleapis.com"),
        }
    }

    /// Every list of a round. A kind that has none of the wanted states has no list.
    pub fn scopes(&self) -> Vec<Scope> {
        let mut scopes = Vec::new();
        for project in &self.projects {
            for location in &self.locations {
                for kind in self
                    .kinds
                    .iter()
                    .copied()
                    .filter(|kind| self.has_states(*kind))
                {
                    scopes.push(Scope {
                        project: project.clone(),
                        location: location.clone(),
                        kind,
                    });
                }
            }
        }
        scopes
    }

    /// Whether every job is known by the time it ends.
    pub fn sees_unfinished(&self) -> bool {
        let unfinished = [State::Queued, State::Pending, State::Running];
        self.states.is_empty() || unfinished.iter().all(|state| self.states.contains(state))
    }

    fn has_states(&self, kind: Kind) -> bool {
        self.states.is_empty()
            || self
                .states
                .iter()
                .any(|state| kind.state_name(state).is_some())
    }
}

fn wrong(field: &str, what: impl std::fmt::Display) -> Failure {
    failure::misconfigured(format!("config.{field}: {what}"))
}

fn check_list(
    field: &str,
    list: &[String],
    max: usize,
    is_good: impl Fn(&str) -> bool,
    what: &str,
) -> Result<(), Failure> {
    if list.is_empty() || list.len() > max {
        return Err(wrong(
            field,
            format!("expected 1 to {max} of them, found {}", list.len()),
        ));
    }
    for (index, item) in list.iter().enumerate() {
        let at = format!("{field}[{index}]");
        if !is_good(item) {
            return Err(wrong(
                &at,
                format!("expected {what}, found {:?}", text::line(item, 100)),
            ));
        }
        if list[..index].contains(item) {
            return Err(wrong(&at, format!("{item:?} stands there twice")));
        }
    }
    Ok(())
}

fn kinds(raw: Option<&[String]>) -> Result<Vec<Kind>, Failure> {
    let Some(raw) = raw else {
        return Ok(Kind::ALL.to_vec());
    };
    let mut kinds = Vec::new();
    for (index, word) in raw.iter().enumerate() {
        let kind = Kind::parse(word).ok_or_else(|| {
            let known = Kind::ALL.map(Kind::word).join(", ");
            wrong(
                &format!("kinds[{index}]"),
                format!("expected one of {known}, found {:?}", text::line(word, 100)),
            )
        })?;
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    if kinds.is_empty() {
        return Err(wrong(
            "kinds",
            "expected one at least; leave it out for all",
        ));
    }
    Ok(kinds)
}

fn states(raw: &[String]) -> Result<Vec<State>, Failure> {
    let mut states = Vec::new();
    for (index, word) in raw.iter().enumerate() {
        match State::of_name(word) {
            State::Unknown(word) => {
                return Err(wrong(
                    &format!("states[{index}]"),
                    format!(
                        "{word:?} is no state of Vertex AI (QUEUED, PENDING, RUNNING, SUCCEEDED, FAILED, ...)"
                    ),
                ));
            }
            state if states.contains(&state) => {}
            state => states.push(state),
        }
    }
    Ok(states)
}

fn patterns<T>(
    field: &str,
    raw: &[String],
    parse: impl Fn(&str) -> Result<T, &'static str>,
) -> Result<Vec<T>, Failure> {
    if raw.len() > FILTERS_MAX {
        return Err(wrong(
            field,
            format!(
                "expected at most {FILTERS_MAX} of them, found {}",
                raw.len()
            ),
        ));
    }
    let parsed = raw.iter().enumerate().map(|(index, pattern)| {
        let at = format!("{field}[{index}]");
        if pattern.is_empty()
            || pattern.len() > PATTERN_MAX
            || pattern.chars().any(char::is_control)
        {
            return Err(wrong(
                &at,
                format!("expected 1 to {PATTERN_MAX} printable characters"),
            ));
        }
        parse(pattern).map_err(|what| wrong(&at, what))
    });
    parsed.collect()
}

fn labels(raw: BTreeMap<String, String>) -> Result<Vec<(String, Option<String>)>, Failure> {
    if raw.len() > FILTERS_MAX {
        return Err(wrong(
            "labels",
            format!(
                "expected at most {FILTERS_MAX} of them, found {}",
                raw.len()
            ),
        ));
    }
    let mut labels = Vec::new();
    for (key, value) in raw {
        let key = label_key("labels", key)?;
        if value.len() > 256 || value.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(wrong(
                &format!("labels.{key}"),
                "expected a label's value or *",
            ));
        }
        labels.push((key, Some(value).filter(|value| value != "*")));
    }
    Ok(labels)
}

/// Google's keys: letters that have no upper case, digits, `_` and `-`.
fn label_key(field: &str, key: String) -> Result<String, Failure> {
    let is_good = |c: char| matches!(c, '_' | '-') || c.is_alphanumeric() && !c.is_uppercase();
    if key.is_empty() || key.len() > 256 || !key.chars().all(is_good) {
        return Err(wrong(
            field,
            format!("{:?} is no label's key", text::line(&key, 100)),
        ));
    }
    Ok(key)
}

fn created_after(raw: Option<&str>) -> Result<CreatedAfter, Failure> {
    let Some(raw) = raw else {
        return Ok(CreatedAfter::Age(30 * time::DAY));
    };
    let age = time::age(raw).map(CreatedAfter::Age);
    age.or_else(|| time::parse(raw).map(CreatedAfter::Time))
        .ok_or_else(|| wrong("created_after", format!("expected a time such as 2026-01-31T00:00:00Z or an age such as 30d, found {:?}", text::line(raw, 100))))
}

fn base(field: &str, url: &str) -> Result<String, Failure> {
    // A placeholder is no character of a host; one that could stand there is checked in its place.
    config::split_url(field, &url.replace("{location}", "us-central1"))?;
    Ok(url.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(more: &str) -> Result<Config, Failure> {
        Config::parse(&format!(
            r#"{{"projects": ["demo-project"], "locations": ["us-central1"]{more}}}"#
        ))
    }

    #[test]
    fn the_reference_configuration_has_useful_defaults() {
        let config = with("").unwrap();
        assert_eq!(config.kinds, Kind::ALL);
        assert_eq!(config.created_after, CreatedAfter::Age(30 * time::DAY));
        assert_eq!(config.credential.as_deref(), Some("gcp"));
        assert_eq!(config.page_size, 100);
        assert_eq!(config.scopes().len(), 3);
        assert_eq!(
            config.base("us-central1"),
            "https://us-central1-aiplatform.googleapis.com"
        );
        assert_eq!(config.base("global"), "https://aiplatform.googleapis.com");
        let fake =
            with(r#", "base_url": "http://127.0.0.1:9/{location}/", "credential": """#).unwrap();
        assert_eq!(fake.base("l1"), "http://127.0.0.1:9/l1");
        assert_eq!(fake.credential, None);
        let only =
            with(r#", "kinds": ["custom_jobs", "pipeline_jobs"], "states": ["expired"]"#).unwrap();
        assert_eq!(only.scopes().len(), 1, "no pipeline expires");
    }

    #[test]
    fn an_error_names_its_field() {
        for (more, expected) in [
            (
                r#", "kinds": ["custom_jobs", "models"]"#,
                "config.kinds[1]: expected one of custom_jobs",
            ),
            (
                r#", "kinds": ["pipeline_jobs"], "states": ["EXPIRED"]"#,
                "config.states: none of the watched kinds",
            ),
            (
                r#", "workflow_label": "A""#,
                "config.workflow_label: \"A\" is no label's key",
            ),
            (r#", "kinds": []"#, "config.kinds: expected one"),
            (
                r#", "states": ["RUNING"]"#,
                "config.states[0]: \"RUNING\" is no state",
            ),
            (
                r#", "created_after": "last week""#,
                "config.created_after: expected a time",
            ),
            (
                r#", "page_size": 0"#,
                "config.page_size: expected 1 to 1000",
            ),
            (r#", "page_size": "x""#, "config.page_size: invalid type"),
            (r#", "workflow": ["render"]"#, "config.workflow[0]: "),
            (r#", "workflow": 7"#, "config.workflow: expected a string"),
            (
                r#", "display_names": [""]"#,
                "config.display_names[0]: expected 1 to",
            ),
            (
                r#", "labels": {"Team": "x"}"#,
                "config.labels: \"Team\" is no label's key",
            ),
            (
                r#", "labels": {"team": "a b"}"#,
                "config.labels.team: expected",
            ),
            (
                r#", "base_url": "aiplatform.googleapis.com""#,
                "config.base_url: expected an absolute",
            ),
            (
                r#", "logging_url": "http://u:pw@h""#,
                "config.logging_url: no user name",
            ),
            (r#", "project": "x""#, "config.project: unknown field"),
        ] {
            let failure = with(more).unwrap_err();
            assert!(failure.message.starts_with(expected), "{}", failure.message);
            assert_eq!(failure.kind, Some(weir_sdk::FailureKind::Misconfigured));
        }
    }

    #[test]
    fn what_a_host_name_is_made_of_is_checked() {
        for (json, expected) in [
            (
                r#"{"projects": [], "locations": ["l1"]}"#,
                "config.projects: expected 1 to 20",
            ),
            (
                r#"{"projects": ["a b"], "locations": ["l1"]}"#,
                "config.projects[0]: expected a project",
            ),
            (
                r#"{"projects": ["a"], "locations": ["l1", "l1"]}"#,
                "config.locations[1]: \"l1\" stands there twice",
            ),
            (
                r#"{"projects": ["a"], "locations": ["evil.com/"]}"#,
                "config.locations[0]: expected a location",
            ),
            (
                r#"{"projects": ["a"]}"#,
                "config: missing field `locations`",
            ),
        ] {
            let failure = Config::parse(json).unwrap_err();
            assert!(failure.message.starts_with(expected), "{}", failure.message);
        }
    }
}
