//! What changed from one look to the next, as lines of text.

use crate::cli::human::{Local, duration, one_line, percent};
use crate::cli::printer::{Printer, Tone};
use crate::client::view::{Alert, Execution, Source};
use crate::tui::feed::Snapshot;
use jiff::tz::TimeZone;
use std::collections::HashMap;

/// Progress is told in steps of so many percent.
const PROGRESS_STEP: f64 = 25.0;

/// Remembers what was told.
#[derive(Debug)]
pub struct Lines {
    zone: TimeZone,
    executions: HashMap<String, (String, u8)>,
    sources: HashMap<String, String>,
    alerts: HashMap<String, (String, u64)>,
    first: bool,
}

impl Lines {
    pub fn new(zone: TimeZone) -> Lines {
        Lines {
            zone,
            executions: HashMap::new(),
            sources: HashMap::new(),
            alerts: HashMap::new(),
            first: true,
        }
    }

    /// The lines for what is new; at the first look, only what is going on.
    pub fn changes(&mut self, snapshot: &Snapshot, printer: &Printer) -> Vec<String> {
        let local = Local::new(self.zone.clone(), snapshot.at);
        let now = local.time(snapshot.at);
        let first = std::mem::take(&mut self.first);
        let mut lines = Vec::new();
        for source in &snapshot.sources {
            lines.extend(
                self.source(source, printer)
                    .map(|line| format!("{now}  {line}")),
            );
        }
        // The oldest first, as it happened.
        for execution in snapshot.executions.iter().rev() {
            let old = first && !execution.is_active() && snapshot.executions.len() > 1;
            let line = self.execution(execution, printer);
            lines.extend(line.filter(|_| !old).map(|line| format!("{now}  {line}")));
        }
        for alert in &snapshot.alerts {
            lines.extend(
                self.alert(alert, printer)
                    .map(|line| format!("{now}  {line}")),
            );
        }
        // Bounded: what is no longer shown is forgotten.
        let shown = &snapshot.executions;
        self.executions
            .retain(|id, _| shown.iter().any(|execution| execution.id == *id));
        self.alerts
            .retain(|id, _| snapshot.alerts.iter().any(|alert| alert.id == *id));
        lines
    }

    fn execution(&mut self, execution: &Execution, printer: &Printer) -> Option<String> {
        let reached = match execution.progress {
            Some(percent) if execution.status == "running" => (percent / PROGRESS_STEP) as u8,
            _ => 0,
        };
        let told = self
            .executions
            .insert(execution.id.clone(), (execution.status.clone(), reached));
        if told.is_some_and(|(status, step)| status == execution.status && step >= reached) {
            return None;
        }
        let status = printer.paint(
            &format!("{:<10}", execution.status),
            Tone::of_status(&execution.status),
        );
        let mut rest = Vec::new();
        match execution.is_active() {
            true => rest.push(percent(
                execution.progress.filter(|_| !execution.is_waiting()),
                execution.estimated,
            )),
            false => rest.extend(execution.duration.map(|d| format!("after {}", duration(d)))),
        }
        rest.push(execution.remark());
        rest.retain(|text| !text.is_empty());
        let source = execution.source.as_deref().unwrap_or("-");
        let text = format!(
            "{:<10} {status} {}  {}",
            one_line(source),
            one_line(&execution.title()),
            one_line(&rest.join("  "))
        );
        Some(text.trim_end().to_owned())
    }

    fn source(&mut self, source: &Source, printer: &Printer) -> Option<String> {
        let told = self
            .sources
            .insert(source.name.clone(), source.status.clone());
        if told.as_ref() == Some(&source.status) {
            return None;
        }
        let status = printer.paint(&source.status, Tone::of_status(&source.status));
        let error = match source.status.as_str() {
            "ok" | "starting" => "",
            _ => source.last_error.as_deref().unwrap_or_default(),
        };
        let text = format!(
            "{:<10} source is {status}  {}",
            one_line(&source.name),
            one_line(error)
        );
        Some(text.trim_end().to_owned())
    }

    fn alert(&mut self, alert: &Alert, printer: &Printer) -> Option<String> {
        let count = alert.count.unwrap_or(1);
        let told = self
            .alerts
            .insert(alert.id.clone(), (alert.status.clone(), count));
        if told.is_some_and(|(status, told)| status == alert.status && told >= count) {
            return None;
        }
        let word = printer.paint(
            &format!("{:<10}", alert.severity),
            Tone::of_status(&alert.severity),
        );
        let title = one_line(alert.title.as_deref().unwrap_or_default());
        let times = match count {
            0 | 1 => String::new(),
            count => format!(" ({count} times)"),
        };
        Some(format!(
            "{:<10} {word} {}: {title}{times}",
            "alert", alert.status
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(status: &str, progress: Option<f64>) -> Snapshot {
        let execution = Execution {
            id: "a".into(),
            workflow_name: Some("portrait".into()),
            execution_number: Some(3),
            source: Some("studio".into()),
            status: status.into(),
            progress,
            duration: Some(12.4),
            ..Execution::default()
        };
        Snapshot {
            at: "2026-11-22T10:00:00Z".parse().unwrap(),
            executions: vec![execution],
            ..Snapshot::default()
        }
    }

    #[test]
    fn a_line_is_told_once_and_progress_in_steps() {
        let printer = Printer::to(Box::new(std::io::sink()), Box::new(std::io::sink()));
        let mut lines = Lines::new(TimeZone::UTC);
        let mut told = Vec::new();
        for (status, progress) in [
            ("queued", None),
            ("queued", None),
            ("running", Some(3.0)),
            ("running", Some(20.0)),
            ("running", Some(51.0)),
            ("completed", Some(100.0)),
            ("completed", Some(100.0)),
        ] {
            told.extend(lines.changes(&look(status, progress), &printer));
        }
        assert_eq!(
            told,
            [
                "10:00:00  studio     queued     portrait #3",
                "10:00:00  studio     running    portrait #3  3 %",
                "10:00:00  studio     running    portrait #3  51 %",
                "10:00:00  studio     completed  portrait #3  after 12 s",
            ]
        );
    }
}
