//! Submissions and log pages across the border.

use weir_model::control::Submission;
use weir_model::logs::{Direction, LogLine, LogPage};

use super::super::Failure;
use super::super::contract::bindings::exports::weir::plugin::{control, logs};
use super::super::credential::Redactor;
use super::super::gauge::Gauge;
use super::super::text::clip;
use super::rules::{Rules, time};
use super::{NAME_BYTES_MAX, check_count, cursor, job_ref};

/// Checks a provider's answer. What it did is done, so a refusal here has no kind: nobody knows whether to ask again.
pub(in crate::plugin) fn submission(
    found: control::Submission,
    gauge: &Gauge,
) -> Result<Submission, Failure> {
    let refused = |what: String| Failure {
        message: format!("the plugin returned {what}"),
        kind: None,
        retry_after: None,
    };
    if !(200..=599).contains(&found.status) {
        return Err(refused(format!("the HTTP status {}", found.status)));
    }
    let max = gauge.limits().http_response_bytes;
    if found.body.len() as u64 > max {
        return Err(refused(format!(
            "an answer of {} bytes, {max} are allowed",
            found.body.len()
        )));
    }
    let carried = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
    if found.content_type.len() > NAME_BYTES_MAX || !found.content_type.bytes().all(carried) {
        return Err(refused("a content type that no header can carry".into()));
    }
    let job = found.job.map(|found| job_ref(&Rules(gauge), found));
    Ok(Submission {
        job: job
            .transpose()
            .map_err(|rule| refused(format!("a job whose reference cannot be used: {rule}")))?,
        status: found.status,
        content_type: found.content_type,
        body: found.body,
    })
}

/// Checks a page of log lines: too many are refused, a long one is cut, an impossible time is none.
pub(in crate::plugin) fn log_page(
    found: logs::LogPage,
    gauge: &Gauge,
    redactor: &Redactor,
) -> Result<LogPage, Failure> {
    check_count(found.lines.len(), "log lines", gauge)?;
    // Redacted before it is cut, or half a secret might stay.
    let bounded = |text: &str, max: usize| clip(&redactor.redact(text), max).to_owned();
    let line = |line: logs::Line| LogLine {
        at: line.at.and_then(|at| time(at).ok()),
        origin: bounded(&line.origin, NAME_BYTES_MAX),
        text: bounded(&line.text, gauge.limits().string_bytes),
    };
    Ok(LogPage {
        lines: found.lines.into_iter().map(line).collect(),
        cursor: cursor(found.cursor, gauge)?,
        more: found.more,
    })
}

pub(in crate::plugin) fn direction_to_guest(direction: Direction) -> logs::Direction {
    match direction {
        Direction::Forward => logs::Direction::Forward,
        Direction::Backward => logs::Direction::Backward,
    }
}
