//! The configuration shown to people and scripts: effective, defaults included, secrets and capability URLs masked.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Map, Value};
use url::Url;

use super::alerts::SEVERITIES;
use super::plugin::looks_secret;
use super::sections::LOG_LEVELS;
use super::values::{show_duration, show_size};
use super::{
    Alerts, Config, Credential, CredentialKind, Durability, Google, GoogleEndpoints, Handler,
    LogFormat, PluginEntry, PluginRef, Rate, Secret, SourceConfig,
};
use crate::alert::route::Route;
use crate::alert::rule::{REPEAT_INTERVAL, Rule, When};

/// What stands where something was taken out.
const MASK: &str = "***";

pub(super) fn json(config: &Config) -> Value {
    shown(config).into_json()
}

pub(super) fn ron(config: &Config) -> String {
    let mut text = String::new();
    shown(config).write(0, &mut text);
    text.push('\n');
    text
}

/// What both forms have in common.
pub(super) enum Shown {
    Fields(Vec<(&'static str, Shown)>),
    /// `Name(...)`
    Call(&'static str, Vec<(&'static str, Shown)>),
    /// A bare word.
    Word(&'static str),
    Map(Vec<(String, Shown)>),
    List(Vec<Shown>),
    Value(Value),
}

impl Shown {
    fn into_json(self) -> Value {
        let object = |fields: Vec<(&'static str, Self)>| -> Map<String, Value> {
            fields
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value.into_json()))
                .collect()
        };
        match self {
            Self::Fields(fields) => Value::Object(object(fields)),
            Self::Call(name, fields) => {
                let mut map = Map::new();
                map.insert("kind".to_owned(), name.into());
                map.extend(object(fields));
                Value::Object(map)
            }
            Self::Word(word) => word.into(),
            Self::Map(entries) => entries
                .into_iter()
                .map(|(key, value)| (key, value.into_json()))
                .collect(),
            Self::List(items) => items.into_iter().map(Self::into_json).collect(),
            Self::Value(value) => value,
        }
    }

    fn write(&self, depth: usize, out: &mut String) {
        match self {
            Self::Fields(fields) => write_fields(fields, depth, out),
            Self::Call(name, fields) => {
                out.push_str(name);
                if !fields.is_empty() {
                    write_fields(fields, depth, out);
                }
            }
            Self::Word(word) => out.push_str(word),
            Self::Map(entries) => write_block(
                ('{', '}'),
                entries,
                depth,
                out,
                |(key, value), depth, out| {
                    write_text(key, out);
                    out.push_str(": ");
                    value.write(depth, out);
                },
            ),
            Self::List(items) => write_block(('[', ']'), items, depth, out, Self::write),
            Self::Value(value) => write_value(value, depth, out),
        }
    }
}

fn write_fields(fields: &[(&'static str, Shown)], depth: usize, out: &mut String) {
    write_block(
        ('(', ')'),
        fields,
        depth,
        out,
        |(name, value), depth, out| {
            let _ = write!(out, "{name}: ");
            value.write(depth, out);
        },
    );
}

/// One item a line, indented; nothing between the brackets where there is nothing.
fn write_block<T>(
    brackets: (char, char),
    items: impl IntoIterator<Item = T>,
    depth: usize,
    out: &mut String,
    write: impl Fn(T, usize, &mut String),
) {
    out.push(brackets.0);
    let mut empty = true;
    for item in items {
        empty = false;
        out.push('\n');
        out.push_str(&"    ".repeat(depth + 1));
        write(item, depth + 1, out);
        out.push(',');
    }
    if !empty {
        out.push('\n');
        out.push_str(&"    ".repeat(depth));
    }
    out.push(brackets.1);
}

fn write_value(value: &Value, depth: usize, out: &mut String) {
    match value {
        Value::String(text) => write_text(text, out),
        Value::Array(items) => write_block(('[', ']'), items, depth, out, write_value),
        Value::Object(map) => {
            write_block(('{', '}'), map, depth, out, |(key, value), depth, out| {
                write_text(key, out);
                out.push_str(": ");
                write_value(value, depth, out);
            })
        }
        // Numbers and booleans are written alike; null cannot come out of the parser.
        other => {
            let _ = write!(out, "{other}");
        }
    }
}

fn write_text(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{{{:x}}}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

pub(super) fn text<T: ToString + ?Sized>(text: &T) -> Shown {
    Shown::Value(Value::String(text.to_string()))
}

pub(super) fn duration(duration: std::time::Duration) -> Shown {
    text(&show_duration(duration))
}

pub(super) fn size(bytes: u64) -> Shown {
    text(&show_size(bytes))
}

pub(super) fn plain(value: impl Into<Value>) -> Shown {
    Shown::Value(value.into())
}

/// A percentage without a needless `.0`.
fn percent(value: f64) -> Shown {
    if value.fract() == 0.0 {
        plain(value as i64)
    } else {
        plain(value)
    }
}

fn list<T>(items: &[T], show: impl Fn(&T) -> Shown) -> Shown {
    Shown::List(items.iter().map(show).collect())
}

/// Fields of which those without a value are left out.
fn given(fields: Vec<(&'static str, Option<Shown>)>) -> Vec<(&'static str, Shown)> {
    fields
        .into_iter()
        .filter_map(|(name, value)| value.map(|value| (name, value)))
        .collect()
}

fn shown(config: &Config) -> Shown {
    let Config {
        data_dir,
        timezone,
        durability,
        http,
        sources,
        resources,
        health,
        deadlines,
        alerts,
        retention,
        log,
    } = config;
    let durability = match durability {
        Durability::Power => "Power",
        Durability::Process => "Process",
    };
    Shown::Fields(given(vec![
        (
            "data_dir",
            data_dir.as_ref().map(|path| text(&path.display())),
        ),
        ("timezone", timezone.as_ref().map(text)),
        ("durability", Some(Shown::Word(durability))),
        (
            "http",
            Some(Shown::Fields(given(vec![
                ("listen", Some(text(&http.listen))),
                (
                    "public_url",
                    http.public_url.as_ref().map(|url| text(url.as_str())),
                ),
                ("allowed_hosts", Some(list(&http.allowed_hosts, text))),
            ]))),
        ),
        ("sources", Some(list(sources, source))),
        (
            "resources",
            Some(Shown::Fields(vec![
                ("interval", duration(resources.interval)),
                ("memory_percent", percent(resources.memory_percent)),
                ("cpu_percent", percent(resources.cpu_percent)),
                ("disk_percent", percent(resources.disk_percent)),
                ("processes", list(&resources.processes, text)),
            ])),
        ),
        (
            "health",
            (!health.is_empty()).then(|| list(health, health_check)),
        ),
        (
            "deadlines",
            (!deadlines.is_empty()).then(|| list(deadlines, deadline)),
        ),
        ("alerts", Some(alerts_shown(alerts))),
        (
            "retention",
            Some(Shown::Fields(vec![
                ("age", duration(retention.age)),
                ("size", size(retention.size_bytes)),
            ])),
        ),
        ("log", Some(log_shown(log))),
    ]))
}

fn log_shown(log: &super::Log) -> Shown {
    let format = match log.format {
        LogFormat::Text => "Text",
        LogFormat::Json => "Json",
    };
    Shown::Fields(vec![
        ("level", Shown::Word(name_of(&LOG_LEVELS, log.level))),
        ("format", Shown::Word(format)),
    ])
}

fn name_of<T: PartialEq>(names: &[(&'static str, T)], value: T) -> &'static str {
    names
        .iter()
        .find(|(_, it)| *it == value)
        .map_or("", |(name, _)| *name)
}

fn source(source: &SourceConfig) -> Shown {
    let mut fields = vec![("name", text(&source.name))];
    fields.extend(entry("plugin", &source.entry));
    fields.extend(given(vec![
        ("poll_interval", Some(duration(source.poll_interval))),
        ("control", Some(plain(source.control))),
        ("lost_after", Some(duration(source.lost_after))),
        (
            "forgotten_before",
            source.forgotten_before.as_ref().map(text),
        ),
        (
            "companion_token",
            source
                .companion_token
                .as_ref()
                .map(|token| Shown::Fields(vec![secret(token)])),
        ),
    ]));
    Shown::Fields(fields)
}

fn entry(field: &'static str, entry: &PluginEntry) -> Vec<(&'static str, Shown)> {
    let PluginEntry {
        plugin,
        sha256,
        config,
        allow: _,
        credentials,
        limits,
    } = entry;
    let plugin = match plugin {
        PluginRef::Bundled(name) => text(name),
        // A file in the folder of the configuration stays recognisable as a file.
        PluginRef::File(path) => text(&path.display()),
    };
    let hex = |digest: &[u8; 32]| {
        digest
            .iter()
            .fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
    };
    given(vec![
        (field, Some(plugin)),
        ("sha256", sha256.as_ref().map(|digest| text(&hex(digest)))),
        ("config", Some(Shown::Value(masked(config)))),
        // What is effective, wherever it comes from.
        ("allow", Some(list(&entry.origin_allow_list(), text))),
        (
            "credentials",
            (!credentials.is_empty()).then(|| {
                Shown::Map(
                    credentials
                        .iter()
                        .map(|(name, it)| (name.clone(), credential(it)))
                        .collect(),
                )
            }),
        ),
        ("limits", Some(limits.shown())),
    ])
}

pub(super) fn secret(secret: &Secret) -> (&'static str, Shown) {
    match secret {
        Secret::Env(variable) => ("env", text(variable)),
        Secret::File(path) => ("file", text(&path.display())),
    }
}

/// Where a secret is read from is no secret.
fn credential(credential: &Credential) -> Shown {
    let secret = credential.secret.as_ref().map(secret);
    let origins = &credential.origins;
    let origins = (!origins.is_empty()).then(|| ("origins", list(origins, text)));
    let (name, first, last) = match &credential.kind {
        CredentialKind::Bearer => ("Bearer", None, vec![]),
        CredentialKind::Basic { user } => ("Basic", Some(("user", text(user))), vec![]),
        CredentialKind::Header { name } => ("Header", Some(("name", text(name))), vec![]),
        CredentialKind::Url => ("Url", None, vec![]),
        CredentialKind::StandardWebhooks => ("StandardWebhooks", None, vec![]),
        CredentialKind::Secret => ("Secret", None, vec![]),
        CredentialKind::Google(options) => ("Google", None, google(options)),
    };
    let fields = first.into_iter().chain(secret).chain(origins).chain(last);
    Shown::Call(name, fields.collect())
}

fn google(google: &Google) -> Vec<(&'static str, Shown)> {
    let GoogleEndpoints {
        token,
        sts,
        iamcredentials,
        metadata,
    } = &google.endpoints;
    let url = |url: &Option<Url>| url.as_ref().map(|url| text(&masked_query(url.as_str())));
    let endpoints = given(vec![
        ("token", url(token)),
        ("sts", url(sts)),
        ("iamcredentials", url(iamcredentials)),
        ("metadata", url(metadata)),
    ]);
    given(vec![
        ("scopes", Some(list(&google.scopes, text))),
        ("self_signed", Some(plain(google.self_signed))),
        ("quota_project", google.quota_project.as_ref().map(text)),
        (
            "endpoints",
            (!endpoints.is_empty()).then_some(Shown::Fields(endpoints)),
        ),
    ])
}

/// Values under a key that names a secret, and what a URL carries behind its path.
fn masked(value: &Value) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| match value {
                Value::String(_) if looks_secret(key) => (key.clone(), MASK.into()),
                value => (key.clone(), masked(value)),
            })
            .collect(),
        Value::Array(items) => items.iter().map(masked).collect(),
        Value::String(text) if text.contains("://") => masked_query(text).into(),
        other => other.clone(),
    }
}

fn masked_query(text: &str) -> String {
    let (url, fragment) = text
        .split_once('#')
        .map_or((text, ""), |(url, _)| (url, MASK));
    match url.split_once('?') {
        None if fragment.is_empty() => url.to_owned(),
        None => format!("{url}#{MASK}"),
        Some((path, _)) => format!("{path}?{MASK}"),
    }
}

/// The path of a capability URL is the capability.
fn masked_path(url: &Url) -> String {
    format!("{}/{MASK}", url.origin().ascii_serialization())
}

fn health_check(check: &super::HealthCheck) -> Shown {
    Shown::Fields(vec![
        ("name", text(&check.name)),
        ("url", text(&masked_query(check.url.as_str()))),
        ("interval", duration(check.interval)),
    ])
}

fn deadline(deadline: &super::Deadline) -> Shown {
    Shown::Fields(given(vec![
        ("workflow", Some(text(&deadline.workflow))),
        ("start_by", deadline.start_by.as_ref().map(text)),
        ("max_run", deadline.max_run.map(duration)),
    ]))
}

fn alerts_shown(alerts: &Alerts) -> Shown {
    Shown::Fields(given(vec![
        ("rules", Some(list(&alerts.rules, rule))),
        (
            "receivers",
            Some(list(&alerts.receivers, |receiver| {
                let mut fields = vec![("name", text(&receiver.name))];
                fields.extend(match &receiver.handler {
                    Handler::Plugin(plugin) => entry("handler", plugin),
                    Handler::Email(email) => email.shown(),
                });
                fields.extend(receiver.rate.map(|rate| ("rate", rate_shown(rate))));
                Shown::Fields(fields)
            })),
        ),
        ("route", Some(route(&alerts.route, true))),
        ("fallback", alerts.fallback.as_ref().map(text)),
        (
            "deadman",
            alerts.deadman.as_ref().map(|deadman| {
                Shown::Fields(vec![
                    ("url", text(&masked_path(&deadman.url))),
                    ("interval", duration(deadman.interval)),
                ])
            }),
        ),
    ]))
}

fn rate_shown(rate: Rate) -> Shown {
    text(&format!("{}/{}", rate.count, show_duration(rate.per)))
}

fn rule(rule: &Rule) -> Shown {
    let parameters = match &rule.when {
        When::QueueEmpty { min_jobs } => vec![("min_jobs", plain(*min_jobs))],
        When::SourceUnreachable { after } => vec![("after", duration(*after))],
        When::ExecutionFailed
        | When::ExecutionLost
        | When::ExecutionCompleted
        | When::ResourceOver => Vec::new(),
    };
    let severity = rule.severity.or_else(|| rule.when.severity());
    let repeat_interval = rule
        .repeat_interval
        .or_else(|| rule.when.is_state().then_some(REPEAT_INTERVAL));
    Shown::Fields(given(vec![
        ("name", Some(text(&rule.name))),
        ("when", Some(Shown::Call(rule.when.name(), parameters))),
        (
            "severity",
            severity.map(|severity| Shown::Word(name_of(&SEVERITIES, severity))),
        ),
        // Where it has no effect, it is not shown either.
        (
            "for",
            rule.when.is_state().then(|| duration(rule.pending_for)),
        ),
        ("matchers", Some(list(&rule.matchers, text))),
        ("repeat_interval", repeat_interval.map(duration)),
        ("resolve_after", Some(duration(rule.resolve_after))),
        ("notify_resolved", Some(plain(rule.notify_resolved))),
        ("labels", Some(texts(&rule.labels))),
        ("annotations", Some(texts(&rule.annotations))),
    ]))
}

fn texts(map: &BTreeMap<String, String>) -> Shown {
    Shown::Map(
        map.iter()
            .map(|(key, value)| (key.clone(), text(value)))
            .collect(),
    )
}

fn route(route: &Route, is_root: bool) -> Shown {
    Shown::Fields(given(vec![
        ("receiver", Some(text(&route.receiver))),
        ("matchers", (!is_root).then(|| list(&route.matchers, text))),
        ("continue", (!is_root).then(|| plain(route.continues))),
        (
            "routes",
            (!route.routes.is_empty())
                .then(|| list(&route.routes, |child| self::route(child, false))),
        ),
    ]))
}
