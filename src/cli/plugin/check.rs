//! `weir plugin check`: whether a file fits, and whether it behaves when its far side does not.

mod credential;
mod far_side;
mod sample;

use super::super::Context;
use super::super::exit::{CliError, Exit};
use super::super::printer::{Printer, Tone};
use super::workbench;
use crate::paths::Paths;
use far_side::{FarSide, Mood};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use weir_core::plugin::{
    AllowRule, CallError, Examined, Limits, PluginHandle, PluginHost, PluginSpec, Role, WasmBytes,
};
use weir_model::alert::notification::AlertStatus;
use weir_model::config::CredentialKind;
use weir_model::observation::{Coverage, FailureKind, JobRef};

/// An answer in which most handlers find what they look for.
const ANSWER: &str = r#"{"ok":true,"status":"success","id":"1","ts":"1","message_id":1,"event_id":"$1","channel":"C1",
"result":{"message_id":1},"healthy":true,"health":"green","jobs":[],"workflow_runs":[],"total_count":0}"#;
/// The slow far side is slower than the limit of the slow check.
const SLOW: Duration = Duration::from_secs(5);
const SLOW_LIMIT: Duration = Duration::from_millis(400);

#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    /// The plugin: a component, or the core module that cargo makes
    file: PathBuf,
    /// Its `config` as JSON, or @FILE; its URLs are turned to a far side of weir's own [default: made from the schema]
    #[arg(long, value_name = "JSON", conflicts_with = "entry")]
    config: Option<String>,
    /// Take config and kinds of credentials of this source or receiver of the configuration; no secret of it is read
    #[arg(long, value_name = "NAME")]
    entry: Option<String>,
    /// The configuration that --entry is taken from [default: the one that `weir run` would use]
    #[arg(long, value_name = "FILE", requires = "entry")]
    from: Option<PathBuf>,
    /// What the far side answers with status 200, or @FILE
    #[arg(long, value_name = "TEXT")]
    answer: Option<String>,
}

pub(super) async fn run(ctx: &mut Context, args: &Args) -> Result<Exit, CliError> {
    workbench::there(&args.file)?;
    let host = workbench::host(ctx)?;
    let mut report = Report {
        printer: &mut ctx.printer,
        findings: 0,
    };
    let wasm = WasmBytes::File {
        path: args.file.clone(),
        sha256: None,
    };
    let examined = match host.examine(wasm, Limits::default().file_bytes).await {
        Ok(examined) => examined,
        Err(reason) => {
            report.bad("contract", &reason)?;
            return report.end(args);
        }
    };
    report.contract(&examined)?;
    let roles = [
        (examined.capabilities.alerts, Role::Handler),
        (examined.capabilities.jobs, Role::Source),
    ];
    if !roles.iter().any(|(there, _)| *there) {
        report.bad(
            "capabilities",
            "it exports neither `alerts` nor `jobs`: weir has no use for it",
        )?;
    }
    for (_, role) in roles.into_iter().filter(|(there, _)| *there) {
        let given = Given::of(args, &ctx.paths, role)?;
        Check::new(&host, args, role, given)?
            .run(&mut report)
            .await?;
    }
    report.end(args)
}

/// One line per thing that was looked at.
struct Report<'a> {
    printer: &'a mut Printer,
    findings: usize,
}

impl Report<'_> {
    fn line(&mut self, word: &str, tone: Tone, what: &str, said: &str) -> Result<(), CliError> {
        let word = self.printer.paint(&format!("{word:<5}"), tone);
        let said = super::super::human::fit(said, 300);
        Ok(self
            .printer
            .line(format_args!("{word} {what:<24} {said}"))?)
    }

    fn good(&mut self, what: &str, said: &str) -> Result<(), CliError> {
        self.line("ok", Tone::Good, what, said)
    }

    /// Worth a look, no reason to fail.
    fn note(&mut self, what: &str, said: &str) -> Result<(), CliError> {
        self.line("note", Tone::Warn, what, said)
    }

    fn bad(&mut self, what: &str, said: &str) -> Result<(), CliError> {
        self.findings += 1;
        self.line("FAIL", Tone::Bad, what, said)
    }

    /// With its last words, where it crashed.
    fn crashed(&mut self, what: &str, error: &CallError) -> Result<(), CliError> {
        self.bad(what, &error.to_string())?;
        for line in workbench::last_words(error) {
            self.printer.line(line)?;
        }
        Ok(())
    }

    fn contract(&mut self, examined: &Examined) -> Result<(), CliError> {
        let wasi = examined
            .imports
            .iter()
            .filter(|name| name.starts_with("wasi:"))
            .count();
        let ours: Vec<&str> = examined
            .imports
            .iter()
            .filter(|name| !name.starts_with("wasi:"))
            .map(String::as_str)
            .collect();
        let wasi = match wasi {
            0 => "no WASI".to_owned(),
            n => format!("{n} of WASI, with nothing behind them"),
        };
        self.good("imports", &format!("{}; {wasi}", ours.join(", ")))?;
        self.good(
            "capabilities",
            &format!("lifecycle, {}", examined.capabilities.names().join(", ")),
        )?;
        self.good(
            "file",
            &format!(
                "{:.1} KiB, sha256 {}",
                examined.file_bytes as f64 / 1024.0,
                examined.sha256
            ),
        )
    }

    fn end(self, args: &Args) -> Result<Exit, CliError> {
        let file = args.file.display();
        if self.findings == 0 {
            self.printer.note(format_args!("{file}: ok"));
            return Ok(Exit::Ok);
        }
        let findings = super::super::check::count(self.findings, "finding");
        self.printer.note(format_args!("{file}: {findings}"));
        Ok(Exit::Failed)
    }
}

/// What the command line gives the plugin.
struct Given {
    config: Option<Value>,
    /// By name.
    credentials: BTreeMap<String, CredentialKind>,
}

impl Given {
    fn of(args: &Args, paths: &Paths, role: Role) -> Result<Given, CliError> {
        let subject = workbench::Subject {
            file: args.file.clone(),
            config: args.config.clone(),
            entry: args.entry.clone(),
            from: args.from.clone(),
        };
        let Some((_, entry)) = subject.entry(paths, role)? else {
            return Ok(Given {
                config: subject.config()?,
                credentials: BTreeMap::new(),
            });
        };
        let kinds = entry.credentials.into_iter();
        Ok(Given {
            config: Some(entry.config),
            credentials: kinds.map(|(name, it)| (name, it.kind)).collect(),
        })
    }
}

/// One role of one file, against the built-in far side.
struct Check<'a> {
    host: &'a PluginHost,
    args: &'a Args,
    role: Role,
    given: Given,
    far: FarSide,
    answer: String,
}

impl<'a> Check<'a> {
    fn new(
        host: &'a PluginHost,
        args: &'a Args,
        role: Role,
        given: Given,
    ) -> Result<Check<'a>, CliError> {
        let answer = match args.answer.as_deref() {
            None if role == Role::Source => "[]".to_owned(),
            None => ANSWER.to_owned(),
            Some(given) => match given.strip_prefix('@') {
                None => given.to_owned(),
                Some(path) => std::fs::read_to_string(path)
                    .map_err(|error| CliError::usage(format!("{path}: {error}")))?,
            },
        };
        Ok(Check {
            far: FarSide::start(Mood::json(200, &answer))?,
            host,
            args,
            role,
            given,
            answer,
        })
    }

    async fn run(self, report: &mut Report<'_>) -> Result<(), CliError> {
        if let Some(config) = self.opens(report).await? {
            match self.role {
                Role::Handler => self.handler(report, &config).await?,
                Role::Source => self.source(report, &config).await?,
            }
        }
        self.far.stop().await;
        Ok(())
    }

    /// Describes and opens it; none where it does not get further than that.
    async fn opens(&self, report: &mut Report<'_>) -> Result<Option<Value>, CliError> {
        let Some(config) = self.describes(report).await? else {
            return Ok(None);
        };
        let opened = self.host.open(self.spec(config.clone(), self.far.origin()));
        if let Err(error) = opened.ready().await {
            let hint = match self.given.config {
                None => {
                    " (give it a config that works: --config JSON, or --entry NAME with its credentials)"
                }
                Some(_) => "",
            };
            let words = last_words(&opened);
            report.bad("open, check", &format!("{error}{hint}; {words}"))?;
            return Ok(None);
        }
        match opened.status().last_check {
            Some(Err(message)) => report.note("open, check", &message)?,
            Some(Ok(said)) => report.good("open, check", &said)?,
            None => report.good("open", "")?,
        }
        opened.close().await;
        Ok(Some(config))
    }

    /// Asks it who it is; the config that it is checked with.
    async fn describes(&self, report: &mut Report<'_>) -> Result<Option<Value>, CliError> {
        // Only `describe` counts here, which comes before any config.
        let described = self.host.open(self.spec(json!({}), self.far.origin()));
        let _ = described.ready().await;
        let Some(manifest) = described.status().manifest else {
            report.bad("describe", &last_words(&described))?;
            return Ok(None);
        };
        described.close().await;
        report.good(
            "describe",
            &format!("{} {}", manifest.name, manifest.version),
        )?;
        self.credentials(report)?;
        let parsed = manifest.config_schema.as_deref();
        let schema = match parsed.map(serde_json::from_str::<Value>).transpose() {
            Ok(schema) => schema,
            Err(error) => {
                report.bad("schema", &format!("it is no JSON: {error}"))?;
                None
            }
        };
        let config = self.config(schema.as_ref());
        let Some(schema) = schema else {
            report.note("schema", "none: nobody can see what `config` may hold")?;
            return Ok(Some(config));
        };
        let problems = sample::problems(&schema, &config);
        if problems.is_empty() {
            report.good("schema", &format!("config here: {config}"))?;
        }
        for problem in problems {
            report.bad("schema", &problem)?;
        }
        Ok(Some(config))
    }

    fn credentials(&self, report: &mut Report<'_>) -> Result<(), CliError> {
        let named = |(name, kind): (&String, &CredentialKind)| match kind {
            CredentialKind::Google(_) => format!("{name}: Google, with a token of this far side"),
            kind => format!("{name}: {}", credential::word(kind)),
        };
        let named: Vec<String> = self.given.credentials.iter().map(named).collect();
        if named.is_empty() {
            return Ok(());
        }
        let said = format!("{}; the secrets are made up", named.join(", "));
        report.good("credentials", &said)
    }

    /// The given one turned to the built-in far side, else one as the schema wants it.
    fn config(&self, schema: Option<&Value>) -> Value {
        let origin = self.far.origin();
        let config = match (&self.given.config, schema) {
            (Some(given), _) => given.clone(),
            (None, Some(schema)) => sample::of_schema(schema, origin).unwrap_or_else(|| json!({})),
            (None, None) => json!({ "url": format!("{origin}/check") }),
        };
        let config = match schema {
            Some(schema) => sample::with_addresses(&config, schema),
            None => config,
        };
        sample::turned(&config, origin)
    }

    fn spec(&self, config: Value, origin: &str) -> PluginSpec {
        let mut spec = workbench::spec(&self.args.file, self.role, config);
        let rules: Vec<AllowRule> = AllowRule::parse(origin).into_iter().collect();
        spec.allow = rules;
        // After a crash the next call finds it open again.
        spec.limits.backoff_base = Duration::from_millis(1);
        let mut kinds = self.given.credentials.clone();
        for name in sample::credentials(&spec.config) {
            kinds.entry(name).or_insert(CredentialKind::Bearer);
        }
        for (name, kind) in kinds {
            // Every kind takes its made-up secret.
            if let Ok(credential) = credential::made_up(&kind, origin, &self.far) {
                spec.credentials.insert(name, credential);
            }
        }
        spec
    }

    /// The far sides that every plugin must survive: name, mood, and the origin to turn to where it is another one.
    fn moods() -> Vec<(&'static str, Mood)> {
        let html = Mood {
            content_type: "text/html",
            ..Mood::json(200, "<!doctype html><title>Sign in</title>")
        };
        let limited = Mood {
            headers: vec![("retry-after", "7")],
            ..Mood::json(429, "{\"error\":\"slow down\"}")
        };
        vec![
            ("204", Mood::json(204, "")),
            ("401", Mood::json(401, "{\"error\":\"no\"}")),
            ("429", limited),
            ("500", Mood::json(500, "{\"error\":\"oops\"}")),
            ("200 with HTML", html),
        ]
    }

    /// Opens it toward a far side that answers well, and changes its mood only then.
    async fn opened(&self, config: &Value, origin: &str, slow: bool) -> PluginHandle {
        self.far.set(Mood::json(200, &self.answer));
        let mut spec = self.spec(sample::turned(config, origin), origin);
        if slow {
            spec.limits.http_total = SLOW_LIMIT;
        }
        let handle = self.host.open(spec);
        // What it is not ready for shows in the call.
        let _ = handle.ready().await;
        handle
    }

    async fn handler(&self, report: &mut Report<'_>, config: &Value) -> Result<(), CliError> {
        let handle = self.opened(config, self.far.origin(), false).await;
        let mut receipt = None;
        for (what, message, status, alerts) in [
            ("deliver, firing", "1", AlertStatus::Firing, 1),
            ("deliver, update", "2", AlertStatus::Firing, 2),
            ("deliver, resolved", "3", AlertStatus::Resolved, 2),
            ("deliver, 300 alerts", "4", AlertStatus::Firing, 300),
        ] {
            self.far.set(Mood::json(200, &self.answer));
            let notification = workbench::sample(message, status, alerts);
            match handle.deliver(notification, receipt.clone()).await {
                Ok(_) if self.far.requests() == 0 => {
                    report.bad(what, "says delivered, and nothing was sent")?;
                }
                Ok(new) => {
                    report.good(what, &said(new.as_ref()))?;
                    receipt = new.or(receipt);
                }
                Err(error @ CallError::Failed { .. }) => {
                    report.bad(
                        what,
                        &format!("{error} (the far side answered 200; see --answer)"),
                    )?;
                }
                Err(error) => report.crashed(what, &error)?,
            }
        }
        self.usage(report, &handle)?;
        for (name, mood) in Check::moods() {
            self.far.set(mood.clone());
            let result = handle
                .deliver(workbench::sample(name, AlertStatus::Firing, 1), None)
                .await;
            judge_delivery(report, name, &mood, result)?;
        }
        handle.close().await;
        for (name, slow) in [("refused", false), ("slow", true)] {
            let handle = self.far_away(config, slow).await?;
            let result = handle
                .deliver(workbench::sample(name, AlertStatus::Firing, 1), None)
                .await;
            judge_delivery(report, name, &Mood::json(599, ""), result)?;
            handle.close().await;
        }
        Ok(())
    }

    /// Toward nobody, or toward one who takes too long.
    async fn far_away(&self, config: &Value, slow: bool) -> Result<PluginHandle, CliError> {
        if !slow {
            return Ok(self.opened(config, &far_side::nobody()?, false).await);
        }
        let handle = self.opened(config, self.far.origin(), true).await;
        self.far.set(Mood {
            delay: SLOW,
            ..Mood::json(200, &self.answer)
        });
        Ok(handle)
    }

    async fn source(&self, report: &mut Report<'_>, config: &Value) -> Result<(), CliError> {
        let open: Vec<JobRef> = (0..3)
            .map(|n| JobRef {
                id: format!("job-{n}"),
                run: None,
            })
            .collect();
        let handle = self.opened(config, self.far.origin(), false).await;
        for (what, open) in [("poll, 200", vec![]), ("poll, 3 jobs open", open.clone())] {
            self.far.set(Mood::json(200, &self.answer));
            match handle.poll(None, open).await {
                Ok(page) => {
                    let jobs = page.observations.len();
                    report.good(what, &format!("{jobs} observations, {:?}", page.coverage))?;
                }
                Err(error @ CallError::Failed { .. }) => {
                    report.note(
                        what,
                        &format!("{error} (give it a list it knows: --answer)"),
                    )?;
                }
                Err(error) => report.crashed(what, &error)?,
            }
        }
        self.usage(report, &handle)?;
        for (name, mood) in Check::moods() {
            self.far.set(mood.clone());
            judge_poll(report, name, &mood, handle.poll(None, open.clone()).await)?;
        }
        handle.close().await;
        for (name, slow) in [("refused", false), ("slow", true)] {
            let handle = self.far_away(config, slow).await?;
            let result = handle.poll(None, open.clone()).await;
            judge_poll(report, name, &Mood::json(599, ""), result)?;
            handle.close().await;
        }
        Ok(())
    }

    /// What it used so far of what it may use.
    fn usage(&self, report: &mut Report<'_>, handle: &PluginHandle) -> Result<(), CliError> {
        let (counters, limits) = (handle.status().counters, Limits::default());
        let mib = |bytes: u64| bytes as f64 / 1048576.0;
        let said = format!(
            "memory {:.1} of {:.0} MiB; CPU {:.0?} for {} calls, {:?} are allowed for each; {} requests",
            mib(counters.memory_high_water),
            mib(limits.memory_bytes),
            counters.cpu,
            counters.calls,
            limits.cpu_call,
            counters.http_requests
        );
        if counters.memory_high_water > limits.memory_bytes / 4 * 3 {
            return report.note("limits", &format!("{said}: too close to the limit"));
        }
        report.good("limits", &said)
    }
}

fn said(receipt: Option<&String>) -> String {
    receipt.map_or_else(
        || "delivered, no receipt".to_owned(),
        |receipt| format!("delivered, receipt {receipt:?}"),
    )
}

fn last_words(handle: &PluginHandle) -> String {
    let status = handle.status();
    match (&status.last_crash, status.state.reason()) {
        (Some(crash), _) if crash.stderr.is_empty() => crash.to_string(),
        (Some(crash), _) => format!("{crash}; its last words: {}", crash.stderr),
        (None, reason) => reason.unwrap_or("it was not opened").to_owned(),
    }
}

/// Delivered may only be said of what was answered with a good status.
fn judge_delivery(
    report: &mut Report<'_>,
    name: &str,
    mood: &Mood,
    result: Result<Option<String>, CallError>,
) -> Result<(), CliError> {
    let what = format!("deliver, {name}");
    match result {
        Ok(_) if mood.status >= 300 => report.bad(&what, "says delivered, and it was not"),
        Ok(receipt) => report.good(&what, &said(receipt.as_ref())),
        Err(error) => judge_error(report, &what, mood, &error),
    }
}

/// A source that takes a bad answer for an empty list makes every job missing.
fn judge_poll(
    report: &mut Report<'_>,
    name: &str,
    mood: &Mood,
    result: Result<weir_model::observation::Page, CallError>,
) -> Result<(), CliError> {
    let what = format!("poll, {name}");
    match result {
        Ok(page) if page.coverage == Coverage::Complete && page.observations.is_empty() => report
            .bad(
                &what,
                "takes it for a complete, empty list: every job would be called missing",
            ),
        Ok(_) if mood.status >= 300 => report.bad(
            &what,
            "takes it for an answer: the source would look healthy",
        ),
        Ok(page) => report.good(
            &what,
            &format!(
                "{:?}, {} observations",
                page.coverage,
                page.observations.len()
            ),
        ),
        Err(error) => judge_error(report, &what, mood, &error),
    }
}

fn judge_error(
    report: &mut Report<'_>,
    what: &str,
    mood: &Mood,
    error: &CallError,
) -> Result<(), CliError> {
    let CallError::Failed {
        message,
        kind,
        retry_after,
        ..
    } = error
    else {
        return report.crashed(what, error);
    };
    let said = format!("{}: {message}", workbench::kind_word(*kind));
    let passing = matches!(kind, None | Some(FailureKind::Transient));
    match mood.status {
        429 if !passing => report.bad(what, &format!("{said} (it passes: say transient)")),
        429 if retry_after.is_none() => {
            report.note(what, &format!("{said} (the answer's Retry-After is lost)"))
        }
        500.. if !passing => report.bad(what, &format!("{said} (it passes: say transient)")),
        401 if *kind != Some(FailureKind::Misconfigured) => report.note(
            what,
            &format!("{said} (say misconfigured: only the operator can help)"),
        ),
        _ => report.good(what, &said),
    }
}
