//! What alerts say.

use std::time::Duration;

use jiff::Timestamp;

use super::events::Kind;
use super::state::{Batch, ConditionKind};
use super::{AlertRow, AlertState, NoticeReason};
use crate::alert::fact::ExecutionFact;
use crate::alert::notification::Severity;
use crate::alert::text::{self, TITLE_LEN_MAX};
use crate::status::Status;

pub(super) fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Error => "error",
        Severity::Critical => "critical",
    }
}

/// Title and body about one execution.
pub(super) fn execution(fact: &ExecutionFact, kind: Kind, url: Option<&str>) -> (String, String) {
    let workflow = text::name(fact.workflow_name.as_deref().unwrap_or(&fact.workflow));
    let source = text::name(&fact.source);
    // A job without a workflow of its own is filed under its source: naming both would say it twice.
    let what = if workflow == source {
        format!("a job on {source}")
    } else {
        format!("{workflow} on {source}")
    };
    let duration = fact.duration.map(text::duration);
    let title = match (kind, &duration) {
        (Kind::Failed(Status::Timeout), _) => format!("{what} timed out"),
        (Kind::Failed(Status::Partial), _) => format!("{what} was only partly done"),
        (Kind::Failed(_), _) => format!("{what} failed"),
        (Kind::Lost, _) => format!("{what} was lost"),
        (Kind::Completed, Some(duration)) => format!("{what} completed in {duration}"),
        (Kind::Completed, None) => format!("{what} completed"),
    };
    let late = if fact.late { " (late)" } else { "" };
    let mut lines = Vec::new();
    match (kind, &fact.error) {
        (Kind::Completed, _) => {}
        (_, Some(error)) => lines.push(format!("Error: {}", text::error(error))),
        (Kind::Lost, None) => lines
            .push("The provider no longer knows this job; how it ended is not known.".to_owned()),
        (_, None) => lines.push("The provider gave no error message.".to_owned()),
    }
    if let Some(step) = fact.step.as_deref().filter(|_| kind != Kind::Completed) {
        lines.push(format!("Step: {}", text::name(step)));
    }
    if let Some(duration) = duration.filter(|_| kind != Kind::Completed) {
        lines.push(format!("Ran for {duration}."));
    }
    if fact.late {
        lines.push("Late: it ended while weir was not watching.".to_owned());
    }
    lines.extend(url.map(ToOwned::to_owned));
    (
        text::line(&format!("{title}{late}"), TITLE_LEN_MAX),
        lines.join("\n"),
    )
}

/// Title and body about something that holds; `unfinished` jobs of its source wait for it.
pub(super) fn condition(kind: &ConditionKind, unfinished: u32) -> (String, String) {
    let (title, body) = match kind {
        ConditionKind::Stale { source, error } => {
            let jobs = match unfinished {
                0 => String::new(),
                1 => "\nIts unfinished job keeps its last known status.".to_owned(),
                n => format!("\nIts {n} unfinished jobs keep their last known status."),
            };
            (
                format!("{source} is unreachable"),
                format!("Error: {}{jobs}", text::error(error)),
            )
        }
        ConditionKind::Suspect {
            source,
            missing,
            of,
        } => (
            format!("{source}: {missing} of {of} jobs vanished at once"),
            "Not believed yet: they keep their last known status until it shows again and again."
                .to_owned(),
        ),
        ConditionKind::Over {
            resource,
            value,
            limit,
        } => {
            let (value, limit) = (text::number(*value), text::number(*limit));
            (
                format!("{resource} at {value} %"),
                format!("The limit is {limit} %."),
            )
        }
        ConditionKind::Trouble { subject, message } => (
            format!("weir is in trouble: {subject}"),
            text::error(message),
        ),
    };
    (text::line(&title, TITLE_LEN_MAX), body)
}

pub(super) fn blind(from: Timestamp, to: Timestamp, reason: &str) -> (String, String) {
    let gap = Duration::try_from(to.duration_since(from)).unwrap_or_default();
    let title = format!("weir saw nothing for {}", text::duration(gap));
    (
        text::line(&title, TITLE_LEN_MAX),
        format!("From {from:.0} to {to:.0}: {}", text::error(reason)),
    )
}

/// `studio: queue empty: 41 ok, 2 failed, 3 h 10 min`.
pub(super) fn queue_empty(source: &str, batch: &Batch) -> (String, String) {
    let counts = [
        (batch.completed, "ok"),
        (batch.failed, "failed"),
        (batch.lost, "lost"),
        (batch.cancelled, "cancelled"),
    ];
    let told = counts
        .iter()
        .filter(|(count, word)| *count > 0 || *word == "ok");
    let mut summary: Vec<String> = told
        .map(|(count, word)| format!("{count} {word}"))
        .collect();
    if let (Some(since), Some(empty_at)) = (batch.since, batch.empty_at) {
        let took = Duration::try_from(empty_at.duration_since(since)).unwrap_or_default();
        summary.push(text::duration(took));
    }
    let title = format!(
        "{}: queue empty: {}",
        text::name(source),
        summary.join(", ")
    );
    (
        text::line(&title, TITLE_LEN_MAX),
        format!("{} jobs ended; nothing is left to do.", batch.finished()),
    )
}

/// Title and text of one notification about an alert. `unsent`: how often it happened since the one before.
pub(super) fn notice(
    row: &AlertRow,
    reason: NoticeReason,
    unsent: u32,
    now: Timestamp,
) -> (String, String) {
    let lasted =
        text::duration(Duration::try_from(now.duration_since(row.started_at)).unwrap_or_default());
    let lines = |extra: String| {
        if row.body.is_empty() {
            extra
        } else {
            format!("{}\n{extra}", row.body)
        }
    };
    let (title, body) = match reason {
        NoticeReason::More if unsent > 1 => (
            format!(
                "{} (+{} more)",
                text::cut(&row.title, TITLE_LEN_MAX - 20),
                unsent - 1
            ),
            lines(format!("{} times in {lasted}.", row.count)),
        ),
        NoticeReason::More => (
            row.title.clone(),
            lines(format!("{} times in {lasted}.", row.count)),
        ),
        NoticeReason::First if row.started_at < now => {
            (row.title.clone(), lines(format!("For {lasted} now.")))
        }
        NoticeReason::First => (row.title.clone(), row.body.clone()),
        NoticeReason::Repeat => (
            format!("Still: {}", row.title),
            lines(format!("For {lasted} now.")),
        ),
        NoticeReason::Resolved => {
            let mut reason = row.reason.as_deref().unwrap_or("over").to_owned();
            if let (AlertState::Acknowledged, Some(by)) = (row.state, &row.acknowledged_by) {
                reason = format!("{reason} by {by}");
            }
            (
                format!("Resolved: {}", row.title),
                format!("After {lasted}: {reason}."),
            )
        }
    };
    (text::cut(&title, TITLE_LEN_MAX), body)
}
