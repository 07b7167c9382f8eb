//! A plugin on the workbench: one file, opened in a host of its own, for the author's commands.

use super::super::Context;
use super::super::exit::CliError;
use super::super::human::one_line;
use super::super::settings;
use crate::bundled;
use crate::paths::Paths;
use clap::Args;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;
use uuid::Uuid;
use weir_core::monitor::plugin_spec;
use weir_core::plugin::{
    AllowRule, CallError, HostOptions, Limits, PluginHost, PluginSpec, Role, WasmBytes,
};
use weir_model::alert::notification::{AlertStatus, Notification, NotifiedAlert, Severity};
use weir_model::config::PluginEntry;
use weir_model::config::ReceiverConfig;
use weir_model::observation::{Coverage, FailureKind, Observation, Page};

/// How often the file is looked at with `--watch`.
pub(super) const FILE_POLL: Duration = Duration::from_millis(300);

/// What is on the workbench.
#[derive(Clone, Debug, Args)]
pub(super) struct Subject {
    /// The plugin: a component, or the core module that cargo makes
    pub(super) file: PathBuf,
    /// Its `config` as JSON, or @FILE
    #[arg(long, value_name = "JSON", conflicts_with = "entry")]
    pub(super) config: Option<String>,
    /// Take config, credentials, allow and limits of this source or receiver of the configuration
    #[arg(long, value_name = "NAME")]
    pub(super) entry: Option<String>,
    /// The configuration that --entry is taken from [default: the one that `weir run` would use]
    #[arg(long, value_name = "FILE", requires = "entry")]
    pub(super) from: Option<PathBuf>,
}

impl Subject {
    /// The config of the command line, if there is one there.
    pub(super) fn config(&self) -> Result<Option<Value>, CliError> {
        let Some(given) = &self.config else {
            return Ok(None);
        };
        let text = match given.strip_prefix('@') {
            None => given.clone(),
            Some(path) => std::fs::read_to_string(path)
                .map_err(|error| CliError::usage(format!("{path}: {error}")))?,
        };
        let config: Value = serde_json::from_str(&text)
            .map_err(|error| CliError::usage(format!("--config is no JSON: {error}")))?;
        if config.is_object() {
            Ok(Some(config))
        } else {
            Err(CliError::usage(
                "--config: expected an object, {\"url\": \"...\"}",
            ))
        }
    }

    /// The source or receiver of the configuration that was named, if one was.
    pub(super) fn entry(
        &self,
        paths: &Paths,
        role: Role,
    ) -> Result<Option<(String, PluginEntry)>, CliError> {
        let Some(name) = &self.entry else {
            return Ok(None);
        };
        let loaded = settings::load(self.from.as_deref(), paths)
            .map_err(|error| CliError::usage(error.to_string()))?;
        let config = loaded.config;
        let source = config
            .sources
            .iter()
            .find(|source| source.name == *name)
            .map(|source| &source.entry)
            .filter(|_| role == Role::Source);
        let receiver = config
            .alerts
            .receivers
            .iter()
            .find(|receiver| receiver.name == *name)
            .and_then(ReceiverConfig::plugin)
            .filter(|_| role == Role::Handler);
        let entry = source.or(receiver).ok_or_else(|| {
            CliError::usage(format!(
                "{} has no {} `{name}`",
                loaded.path.display(),
                role_word(role)
            ))
        })?;
        Ok(Some((name.clone(), entry.clone())))
    }

    /// The file with everything that it is given.
    pub(super) fn spec(&self, ctx: &Context, role: Role) -> Result<PluginSpec, CliError> {
        let Some((name, entry)) = self.entry(&ctx.paths, role)? else {
            let config = self.config()?.unwrap_or_else(|| json!({}));
            return Ok(spec(&self.file, role, config));
        };
        let mut spec = plugin_spec(
            &name,
            &name,
            &entry,
            role,
            Uuid::nil(),
            &bundled::for_monitor(),
        )
        .map_err(|error| CliError::usage(error.to_string()))?;
        // The file of the command line is tried, whatever the entry names.
        spec.wasm = wasm(&self.file);
        Ok(spec)
    }
}

fn wasm(file: &Path) -> WasmBytes {
    WasmBytes::File {
        path: file.to_owned(),
        sha256: None,
    }
}

/// A plugin with this config and nothing else: it may reach the origins that the config names.
pub(super) fn spec(file: &Path, role: Role, config: Value) -> PluginSpec {
    PluginSpec {
        entry: "workbench".to_owned(),
        plugin: file.file_name().map_or_else(
            || file.display().to_string(),
            |name| name.to_string_lossy().into_owned(),
        ),
        role,
        uuid: Uuid::nil(),
        wasm: wasm(file),
        allow: AllowRule::from_config(&config),
        config,
        credentials: BTreeMap::new(),
        limits: Limits::default(),
    }
}

pub(in crate::cli) fn host(ctx: &Context) -> Result<PluginHost, CliError> {
    PluginHost::start(HostOptions {
        cache_dir: Some(ctx.paths.cache_dir()),
        threads: 1,
        file_poll: FILE_POLL,
        ..HostOptions::default()
    })
    .map_err(|error| CliError::failed(error.to_string()))
}

/// Whether there is a file at all, before anything is made of it.
pub(super) fn there(file: &Path) -> Result<(), CliError> {
    match std::fs::File::open(file) {
        Ok(_) => Ok(()),
        Err(error) => Err(CliError::usage(format!(
            "cannot read {}: {}",
            file.display(),
            settings::plain(&error)
        ))),
    }
}

/// What the plugin is: by its exports, which cannot lie.
pub(super) async fn role(host: &PluginHost, file: &Path) -> Result<Role, CliError> {
    let examined = host
        .examine(wasm(file), Limits::default().file_bytes)
        .await
        .map_err(CliError::failed)?;
    match (examined.capabilities.alerts, examined.capabilities.jobs) {
        (true, _) => Ok(Role::Handler),
        (_, true) => Ok(Role::Source),
        _ => Err(CliError::failed(
            "it exports neither `alerts` nor `jobs`: weir has no use for it",
        )),
    }
}

pub(super) fn role_word(role: Role) -> &'static str {
    match role {
        Role::Source => "source",
        Role::Handler => "receiver",
    }
}

/// The plugin's log lines and weir's own, to stderr.
pub(super) fn log_to_stderr(level: &str) {
    use tracing_subscriber::layer::SubscriberExt as _;
    use tracing_subscriber::util::SubscriberInitExt as _;
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(|| Unfolded(std::io::stderr()))
        .without_time()
        .with_target(false)
        .with_ansi(false);
    // A test may have a subscriber already.
    let _ = tracing_subscriber::registry()
        .with(super::super::run::filter(level))
        .with(layer)
        .try_init();
}

/// Writes the traceback in a log line, which a daemon's log has as one line, as the lines that it was.
struct Unfolded<W>(W);

impl<W: Write> Write for Unfolded<W> {
    /// A subscriber writes a whole line at once.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        // Two characters by now. Only a traceback indents what follows; a path such as C:\new stays.
        let text = match text.contains("\\n ") {
            true => text.trim_end().replace("\\n", "\n    | ") + "\n",
            false => text.into_owned(),
        };
        self.0.write_all(text.as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// The last words of a plugin that crashed, as lines that no terminal obeys.
pub(super) fn last_words(error: &CallError) -> Vec<String> {
    let CallError::Crashed { report } = error else {
        return Vec::new();
    };
    let lines = report.stderr.lines().map(one_indented);
    lines.collect()
}

/// The line with its indentation, which a traceback needs.
fn one_indented(line: &str) -> String {
    let indent = line.len() - line.trim_start_matches(' ').len();
    format!("    | {}{}", " ".repeat(indent.min(40)), one_line(line))
}

/// A notification as the router makes it, but for its number of alerts, and marked as a test. `message` tells one message of
/// the group from the next.
pub(super) fn sample(message: &str, status: AlertStatus, alerts: usize) -> Notification {
    let since: jiff::Timestamp = "2026-01-02T03:04:05Z".parse().expect("it is a time");
    let ends: jiff::Timestamp = "2026-01-02T03:34:05Z".parse().expect("it is a time");
    let resolved = status == AlertStatus::Resolved;
    let error = "<b>out of memory</b> & *more* — žluťoučký \"kůň\"";
    let url = format!("http://127.0.0.1:8000/executions/{}", Uuid::nil());
    let pair = |label: &str, value: &str| (label.to_owned(), value.to_owned());
    let labels = |n: usize| {
        vec![
            pair("rule", "failed"),
            pair("severity", "error"),
            pair("source", "studio"),
            pair("workflow", &format!("nightly-{n}")),
            pair("workspace", "default"),
        ]
    };
    let annotations = vec![pair("error", error), pair("step", "KSampler")];
    let alert = |n: usize| NotifiedAlert {
        fingerprint: format!("{n:016x}"),
        status,
        severity: Severity::Error,
        title: format!("nightly-{n} on studio failed"),
        body: format!("Error: {error}\nStep: KSampler\nRan for 3 min 10 s.\n{url}"),
        labels: labels(n),
        annotations: annotations.clone(),
        since,
        ends: resolved.then_some(ends),
        count: 3,
        executions: vec![Uuid::nil().to_string()],
        url: Some(url.clone()),
    };
    let alerts: Vec<NotifiedAlert> = (1..=alerts).map(alert).collect();
    let title = (alerts.first()).map_or_else(String::new, |alert| alert.title.clone());
    let lines: Vec<&str> = alerts.iter().map(|alert| alert.body.as_str()).collect();
    let (title, text) = match resolved {
        true => (
            format!("Resolved: {title}"),
            "After 30 min: a later run completed.".to_owned(),
        ),
        false => (title, lines.join("\n")),
    };
    let mut group_labels = labels(1);
    group_labels.retain(|(label, _)| label != "severity");
    Notification {
        id: format!("sample-{message}"),
        key: "sample".into(),
        severity: Severity::Error,
        title,
        text,
        test: true,
        receiver: "workbench".into(),
        status,
        group_labels,
        common_labels: labels(1),
        common_annotations: annotations.clone(),
        truncated: if alerts.len() > 100 { 12 } else { 0 },
        alerts,
        external_url: Some("http://127.0.0.1:8000/".into()),
    }
}

/// A page as JSON.
pub(super) fn page_json(page: &Page) -> Value {
    let observations: Vec<Value> = page
        .observations
        .iter()
        .map(|observation| match observation {
            Observation::Job(job) => json!({ "job": job }),
            Observation::Progress(progress) => json!({ "progress": progress }),
            Observation::Gone(job) => json!({ "gone": job }),
            Observation::Gauge(gauge) => json!({ "gauge": gauge }),
        })
        .collect();
    let coverage = match page.coverage {
        Coverage::More => "more",
        Coverage::Partial => "partial",
        Coverage::Complete => "complete",
    };
    json!({ "observations": observations, "cursor": page.cursor, "coverage": coverage })
}

/// A failed call as JSON: what a guest said, or what became of it.
pub(super) fn error_json(error: &CallError) -> Value {
    match error {
        CallError::Failed {
            message,
            kind,
            retry_after,
            ..
        } => json!({
            "failure": { "kind": kind, "message": message, "retry_after_ms": retry_after.map(|wait| wait.as_millis() as u64) }
        }),
        CallError::Crashed { report } => json!({
            "crash": { "cause": report.cause.to_string(), "call": report.call, "message": report.message, "stderr": report.stderr }
        }),
        other => json!({ "error": other.to_string() }),
    }
}

/// One word for what weir would do.
pub(super) fn kind_word(kind: Option<FailureKind>) -> &'static str {
    match kind {
        Some(FailureKind::Transient) => "transient",
        Some(FailureKind::Permanent) => "permanent",
        Some(FailureKind::Misconfigured) => "misconfigured",
        Some(FailureKind::NotFound) => "not-found",
        Some(FailureKind::Unsupported) => "unsupported",
        None => "no kind, so transient",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceback_in_a_log_line_is_shown_as_lines_and_a_path_stays_whole() {
        let mut out = Vec::new();
        let mut writer = Unfolded(&mut out);
        writer
            .write_all(b"WARN Traceback:\\n  File x\\nKeyError\n")
            .unwrap();
        writer.write_all(b"INFO C:\\new\n").unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(
            text,
            "WARN Traceback:\n    |   File x\n    | KeyError\nINFO C:\\new\n"
        );
    }
}
