//! What came of the demo, and whether it is all that had to happen.

use super::hook::Hook;
use crate::cli::exit::CliError;
use crate::cli::printer::{Printer, Tone};
use crate::cli::table::Table;
use crate::client::view::{Alert, Execution};
use crate::client::{Client, ClientError};
use crate::replay::DemoWorld;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The demo has a few dozen.
const EXECUTIONS_MAX: usize = 1000;
const ALERTS_MAX: usize = 500;

/// What the recordings hold.
#[derive(Debug)]
pub(super) struct Expected {
    executions: BTreeMap<String, u64>,
    /// Rules that must have been told about.
    rules: BTreeSet<String>,
}

impl Expected {
    pub(super) fn of(world: &DemoWorld) -> Expected {
        let mut executions = world.expected.clone();
        executions.retain(|_, count| *count > 0);
        let rules = ["failed", "lost"].into_iter();
        let rules = rules.filter(|rule| executions.contains_key(*rule));
        Expected {
            rules: rules.map(str::to_owned).collect(),
            executions,
        }
    }
}

#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) executions: BTreeMap<String, u64>,
    /// Rules of which an alert arrived.
    rules: BTreeSet<String>,
    alerts_delivered: usize,
    /// Alerts whose delivery is recorded as sent.
    alerts_sent: usize,
    alerts: usize,
    /// All recordings are played.
    pub(super) over: bool,
}

impl Outcome {
    pub(super) async fn gather(
        client: &Client,
        hook: &Hook,
        over: bool,
    ) -> Result<Outcome, ClientError> {
        let found: Vec<Execution> = client.list("api/executions", &[], EXECUTIONS_MAX).await?;
        let mut executions = BTreeMap::new();
        for execution in found {
            *executions.entry(execution.status).or_default() += 1;
        }
        let alerts: Vec<Alert> = client.list("api/alerts", &[], ALERTS_MAX).await?;
        let is_sent = |alert: &&Alert| alert.deliveries.iter().any(|d| d.state == "sent");
        let arrived = hook.arrived();
        Ok(Outcome {
            executions,
            rules: arrived.iter().map(|alert| alert.rule.clone()).collect(),
            alerts_delivered: arrived.len(),
            alerts_sent: alerts.iter().filter(is_sent).count(),
            alerts: alerts.len(),
            over,
        })
    }

    /// Whether everything happened, and nothing else.
    pub(super) fn is_whole(&self, expected: &Expected) -> bool {
        self.executions == expected.executions
            && self.rules.is_superset(&expected.rules)
            && self.alerts_sent == self.alerts
    }

    pub(super) fn to_json(&self, expected: &Expected, kept: Option<&Path>, url: &str) -> Value {
        json!({
            "ok": self.is_whole(expected),
            "executions": self.executions,
            "alerts": self.alerts,
            "alerts_delivered": self.alerts_delivered,
            "rules_delivered": self.rules,
            "expected": { "executions": expected.executions, "rules": expected.rules },
            "data_dir": kept.map(|dir| dir.display().to_string()),
            "url": url,
        })
    }

    pub(super) fn print(
        &self,
        printer: &mut Printer,
        expected: &Expected,
        kept: Option<&Path>,
        url: &str,
    ) -> Result<(), CliError> {
        printer.line("")?;
        let mut table = Table::new(&["STATUS", "EXECUTIONS", "RECORDED"]);
        let statuses: BTreeSet<&String> = self
            .executions
            .keys()
            .chain(expected.executions.keys())
            .collect();
        for status in statuses {
            let count = |counts: &BTreeMap<String, u64>| counts.get(status).copied().unwrap_or(0);
            let (found, wanted) = (count(&self.executions), count(&expected.executions));
            let tone = match found == wanted {
                true => Tone::of_status(status),
                false => Tone::Bad,
            };
            table.row(vec![
                (status.clone(), Tone::of_status(status)),
                (found.to_string(), tone),
                (wanted.to_string(), Tone::Dim),
            ]);
        }
        table.print(printer)?;
        printer.line("")?;
        let (alerts, arrived) = (self.alerts, self.alerts_delivered);
        printer.line(format_args!(
            "{alerts} alerts, {arrived} messages about them arrived at the demo's webhook"
        ))?;
        match kept {
            Some(dir) => printer.line(format_args!("data directory, kept: {}", dir.display()))?,
            None => printer.line("its folder is removed; --keep leaves it to be looked at")?,
        }
        printer.line(format_args!("the daemon was at {url}"))?;
        let verdict = match (self.is_whole(expected), self.over) {
            (true, _) => printer.paint("everything happened as recorded", Tone::Good),
            (false, true) => printer.paint("NOT everything happened as recorded", Tone::Bad),
            (false, false) => "left before the end".to_owned(),
        };
        printer.line(verdict)?;
        if self.over && !self.is_whole(expected) {
            printer.line(
                "a machine that is very busy may have missed something: try again, with --speed 1",
            )?;
        }
        printer.line("")?;
        printer.line("Try next:")?;
        for (command, what) in [
            (
                "weir init --comfyui http://127.0.0.1:8188",
                "write a configuration for your own server",
            ),
            ("weir run", "start the daemon with it"),
            ("weir watch", "follow what runs, as you saw it here"),
            ("weir alerts, weir list, weir events -f", "what it knows"),
        ] {
            printer.line(format_args!("  {command:<44} {what}"))?;
        }
        Ok(())
    }
}
