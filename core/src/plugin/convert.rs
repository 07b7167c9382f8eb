//! Values across the border: what a guest returned becomes the model's, checked and bounded; what it is given becomes its.

use std::time::Duration;

use jiff::Timestamp;
use weir_model::alert::notification::{AlertStatus, Notification, NotifiedAlert, Severity};
use weir_model::observation::{
    Coverage, FailureKind, Job, JobProgress, JobRef, JobState, JobStep, Observation, Page,
    StepState,
};

use super::Failure;
use super::contract::bindings::exports::weir::plugin::{alerts, jobs, lifecycle};
use super::contract::bindings::weir::plugin::types;
use super::status::Manifest;
use super::text::{clip, printable};

pub(super) const OBSERVATIONS_MAX: usize = 5_000;
pub(super) const MESSAGE_BYTES_MAX: usize = 4 * 1024;
const STRING_BYTES_MAX: usize = 64 * 1024;
const DETAIL_BYTES_MAX: usize = 256 * 1024;
const CURSOR_BYTES_MAX: usize = 64 * 1024;
const RECEIPT_BYTES_MAX: usize = 4 * 1024;
const STEPS_MAX: usize = 5_000;
const LABELS_MAX: usize = 64;
const NAME_BYTES_MAX: usize = 256;
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// A page of which every observation keeps the rules; the others were left out.
#[derive(Debug)]
pub(super) struct CheckedPage {
    pub(super) page: Page,
    /// Why each of the others was left out: (the job's id as far as it can be shown, the rule).
    pub(super) dropped: Vec<(String, Invalid)>,
}

/// The rule that an observation broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Invalid {
    #[error("an id is empty")]
    EmptyId,
    #[error("a string has more than 64 KiB")]
    LongString,
    #[error("a number is negative, infinite or none at all")]
    Number,
    #[error("a time is out of range")]
    Time,
    #[error("more than 5000 steps")]
    Steps,
    #[error("more than 64 labels")]
    Labels,
    #[error("`detail` has more than 256 KiB")]
    LongDetail,
    #[error("`detail` is not a JSON object")]
    Detail,
}

/// Checks a page. An invalid observation is left out alone; a page over the bounds is refused whole.
pub(super) fn page(page: jobs::Page) -> Result<CheckedPage, Failure> {
    let unusable = |message: String| Failure::new(FailureKind::Transient, message);
    if page.observations.len() > OBSERVATIONS_MAX {
        return Err(unusable(format!(
            "the plugin returned {} observations in one page, {OBSERVATIONS_MAX} are allowed",
            page.observations.len()
        )));
    }
    if page
        .cursor
        .as_ref()
        .is_some_and(|cursor| cursor.len() > CURSOR_BYTES_MAX)
    {
        return Err(unusable(
            "the plugin returned a cursor of more than 64 KiB".into(),
        ));
    }
    let mut observations = Vec::with_capacity(page.observations.len());
    let mut dropped = Vec::new();
    for observed in page.observations {
        let id = printable(observed_id(&observed), NAME_BYTES_MAX);
        match observation(observed) {
            Ok(observation) => observations.push(observation),
            Err(invalid) => dropped.push((id, invalid)),
        }
    }
    let coverage = match page.coverage {
        jobs::Coverage::More => Coverage::More,
        jobs::Coverage::Partial => Coverage::Partial,
        // What was left out was mentioned after all: calling it missing would be a lie.
        jobs::Coverage::Complete if !dropped.is_empty() => Coverage::Partial,
        jobs::Coverage::Complete => Coverage::Complete,
    };
    let page = Page {
        observations,
        cursor: page.cursor,
        coverage,
    };
    Ok(CheckedPage { page, dropped })
}

fn observed_id(observation: &types::Observation) -> &str {
    match observation {
        types::Observation::Job(job) => &job.id,
        types::Observation::Progress(progress) => &progress.id,
        types::Observation::Gone(job_ref) => &job_ref.id,
    }
}

fn observation(observation: types::Observation) -> Result<Observation, Invalid> {
    Ok(match observation {
        types::Observation::Job(found) => Observation::Job(Box::new(job(found)?)),
        types::Observation::Progress(found) => Observation::Progress(JobProgress {
            id: id(found.id)?,
            run: optional(found.run)?,
            step: optional(found.step)?,
            done: number(found.done)?,
            total: found.total.map(number).transpose()?,
            note: optional(found.note)?,
        }),
        types::Observation::Gone(found) => Observation::Gone(JobRef {
            id: id(found.id)?,
            run: optional(found.run)?,
        }),
    })
}

fn job(job: types::Job) -> Result<Job, Invalid> {
    if job.steps.len() > STEPS_MAX {
        return Err(Invalid::Steps);
    }
    if job.labels.len() > LABELS_MAX {
        return Err(Invalid::Labels);
    }
    Ok(Job {
        id: id(job.id)?,
        run: optional(job.run)?,
        workflow: optional(job.workflow)?,
        state: job_state(job.state),
        name: optional(job.name)?,
        position: job.position,
        created: job.created.map(time).transpose()?,
        started: job.started.map(time).transpose()?,
        finished: job.finished.map(time).transpose()?,
        steps: job.steps.into_iter().map(step).collect::<Result<_, _>>()?,
        error: optional(job.error)?,
        labels: job
            .labels
            .into_iter()
            .map(|(name, value)| Ok((string(name)?, string(value)?)))
            .collect::<Result<_, _>>()?,
        detail: detail(job.detail)?,
    })
}

fn step(step: types::Step) -> Result<JobStep, Invalid> {
    Ok(JobStep {
        id: id(step.id)?,
        name: string(step.name)?,
        state: step_state(step.state),
        started: step.started.map(time).transpose()?,
        finished: step.finished.map(time).transpose()?,
        done: step.done.map(number).transpose()?,
        total: step.total.map(number).transpose()?,
        error: optional(step.error)?,
    })
}

fn id(id: String) -> Result<String, Invalid> {
    if id.is_empty() {
        Err(Invalid::EmptyId)
    } else {
        string(id)
    }
}

fn string(text: String) -> Result<String, Invalid> {
    if text.len() > STRING_BYTES_MAX {
        Err(Invalid::LongString)
    } else {
        Ok(text)
    }
}

fn optional(text: Option<String>) -> Result<Option<String>, Invalid> {
    text.map(string).transpose()
}

fn number(number: f64) -> Result<f64, Invalid> {
    if number.is_finite() && number >= 0.0 {
        Ok(number)
    } else {
        Err(Invalid::Number)
    }
}

fn time(milliseconds: u64) -> Result<Timestamp, Invalid> {
    i64::try_from(milliseconds)
        .ok()
        .and_then(|milliseconds| Timestamp::from_millisecond(milliseconds).ok())
        .ok_or(Invalid::Time)
}

fn detail(detail: String) -> Result<String, Invalid> {
    if detail.len() > DETAIL_BYTES_MAX {
        return Err(Invalid::LongDetail);
    }
    match serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&detail) {
        Ok(_) => Ok(detail),
        Err(_) => Err(Invalid::Detail),
    }
}

fn job_state(state: types::JobState) -> JobState {
    match state {
        types::JobState::Pending => JobState::Pending,
        types::JobState::Queued => JobState::Queued,
        types::JobState::Initializing => JobState::Initializing,
        types::JobState::Running => JobState::Running,
        types::JobState::Completing => JobState::Completing,
        types::JobState::Paused => JobState::Paused,
        types::JobState::Cancelling => JobState::Cancelling,
        types::JobState::Completed => JobState::Completed,
        types::JobState::Partial => JobState::Partial,
        types::JobState::Failed => JobState::Failed,
        types::JobState::Cancelled => JobState::Cancelled,
        types::JobState::Timeout => JobState::Timeout,
    }
}

fn step_state(state: types::StepState) -> StepState {
    match state {
        types::StepState::Pending => StepState::Pending,
        types::StepState::Running => StepState::Running,
        types::StepState::Completed => StepState::Completed,
        types::StepState::Failed => StepState::Failed,
        types::StepState::Skipped => StepState::Skipped,
        types::StepState::Cancelled => StepState::Cancelled,
    }
}

pub(super) fn failure(failure: types::Failure) -> Failure {
    Failure {
        message: printable(&failure.message, MESSAGE_BYTES_MAX),
        kind: failure.kind.map(|kind| match kind {
            types::FailureKind::Transient => FailureKind::Transient,
            types::FailureKind::Permanent => FailureKind::Permanent,
            types::FailureKind::Misconfigured => FailureKind::Misconfigured,
            types::FailureKind::NotFound => FailureKind::NotFound,
            types::FailureKind::Unsupported => FailureKind::Unsupported,
        }),
        retry_after: failure
            .retry_after_ms
            .map(|ms| Duration::from_millis(ms.into()).min(RETRY_AFTER_MAX)),
    }
}

pub(super) fn failure_to_guest(failure: Failure) -> types::Failure {
    types::Failure {
        message: failure.message,
        kind: failure.kind.map(|kind| match kind {
            FailureKind::Transient => types::FailureKind::Transient,
            FailureKind::Permanent => types::FailureKind::Permanent,
            FailureKind::Misconfigured => types::FailureKind::Misconfigured,
            FailureKind::NotFound => types::FailureKind::NotFound,
            FailureKind::Unsupported => types::FailureKind::Unsupported,
        }),
        retry_after_ms: failure
            .retry_after
            .map(|wait| u32::try_from(wait.as_millis()).unwrap_or(u32::MAX)),
    }
}

pub(super) fn manifest(manifest: lifecycle::Manifest) -> Manifest {
    Manifest {
        name: printable(&manifest.name, NAME_BYTES_MAX),
        version: printable(&manifest.version, NAME_BYTES_MAX),
        config_schema: manifest
            .config_schema
            .filter(|schema| schema.len() <= DETAIL_BYTES_MAX),
    }
}

/// A receipt too long to keep is left out: the message was delivered all the same.
pub(super) fn receipt(receipt: Option<String>) -> (Option<String>, bool) {
    let too_long = receipt
        .as_ref()
        .is_some_and(|receipt| receipt.len() > RECEIPT_BYTES_MAX);
    (receipt.filter(|_| !too_long), too_long)
}

pub(super) fn job_ref_to_guest(job_ref: &JobRef) -> types::JobRef {
    types::JobRef {
        id: job_ref.id.clone(),
        run: job_ref.run.clone(),
    }
}

pub(super) fn notification_to_guest(notification: &Notification) -> alerts::Notification {
    let bounded = |text: &str| clip(text, STRING_BYTES_MAX).to_owned();
    alerts::Notification {
        id: notification.id.clone(),
        key: notification.key.clone(),
        severity: severity_to_guest(notification.severity),
        title: bounded(&notification.title),
        text: bounded(&notification.text),
        test: notification.test,
        receiver: notification.receiver.clone(),
        status: status_to_guest(notification.status),
        group_labels: notification.group_labels.clone(),
        common_labels: notification.common_labels.clone(),
        common_annotations: notification.common_annotations.clone(),
        alerts: notification.alerts.iter().map(alert_to_guest).collect(),
        truncated: notification.truncated,
        external_url: notification.external_url.clone(),
    }
}

fn alert_to_guest(alert: &NotifiedAlert) -> alerts::Alert {
    alerts::Alert {
        fingerprint: alert.fingerprint.clone(),
        status: status_to_guest(alert.status),
        severity: severity_to_guest(alert.severity),
        title: alert.title.clone(),
        body: alert.body.clone(),
        labels: alert.labels.clone(),
        annotations: alert.annotations.clone(),
        since: time_to_guest(alert.since),
        ends: alert.ends.map(time_to_guest),
        count: alert.count,
        executions: alert.executions.clone(),
        url: alert.url.clone(),
    }
}

fn severity_to_guest(severity: Severity) -> alerts::Severity {
    match severity {
        Severity::Info => alerts::Severity::Info,
        Severity::Warning => alerts::Severity::Warning,
        Severity::Error => alerts::Severity::Error,
        Severity::Critical => alerts::Severity::Critical,
    }
}

fn status_to_guest(status: AlertStatus) -> alerts::Status {
    match status {
        AlertStatus::Firing => alerts::Status::Firing,
        AlertStatus::Resolved => alerts::Status::Resolved,
    }
}

fn time_to_guest(time: Timestamp) -> u64 {
    u64::try_from(time.as_millisecond()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn valid() -> types::Job {
        types::Job {
            id: "1".into(),
            run: None,
            workflow: None,
            state: types::JobState::Running,
            name: None,
            position: None,
            created: Some(1_700_000_000_000),
            started: None,
            finished: None,
            steps: vec![valid_step()],
            error: None,
            labels: vec![("gpu".into(), "a100".into())],
            detail: "{}".into(),
        }
    }

    fn valid_step() -> types::Step {
        types::Step {
            id: "3".into(),
            name: "KSampler".into(),
            state: types::StepState::Running,
            started: None,
            finished: None,
            done: Some(3.0),
            total: Some(20.0),
            error: None,
        }
    }

    fn progress(done: f64) -> types::Observation {
        types::Observation::Progress(types::Progress {
            id: "1".into(),
            run: None,
            step: None,
            done,
            total: None,
            note: None,
        })
    }

    fn check(observation: types::Observation, expected: Result<(), Invalid>) {
        assert_eq!(super::observation(observation).map(|_| ()), expected);
    }

    #[test]
    fn every_broken_rule_drops_the_observation() {
        let with = |change: fn(&mut types::Job)| {
            let mut job = valid();
            change(&mut job);
            types::Observation::Job(job)
        };
        check(with(|_| {}), Ok(()));
        check(with(|job| job.detail = " {\"a\": [1]} ".into()), Ok(()));
        check(with(|job| job.id.clear()), Err(Invalid::EmptyId));
        check(
            with(|job| job.name = Some("x".repeat(65_537))),
            Err(Invalid::LongString),
        );
        check(with(|job| job.error = Some("x".repeat(65_536))), Ok(()));
        check(with(|job| job.started = Some(u64::MAX)), Err(Invalid::Time));
        check(with(|job| job.finished = Some(1 << 60)), Err(Invalid::Time));
        check(
            with(|job| job.steps = vec![valid_step(); 5_001]),
            Err(Invalid::Steps),
        );
        check(
            with(|job| job.steps[0].done = Some(-1.0)),
            Err(Invalid::Number),
        );
        check(
            with(|job| job.steps[0].total = Some(f64::NAN)),
            Err(Invalid::Number),
        );
        check(
            with(|job| job.labels = vec![job.labels[0].clone(); 65]),
            Err(Invalid::Labels),
        );
        for detail in ["", "[]", "null", "{", "{} {}", "\"x\""] {
            let mut job = valid();
            job.detail = detail.into();
            check(types::Observation::Job(job), Err(Invalid::Detail));
        }
        let mut job = valid();
        job.detail = format!("{}1{}", "{\"a\":".repeat(100_000 / 5), "}".repeat(20_000));
        check(types::Observation::Job(job), Err(Invalid::Detail));
        check(
            with(|job| job.detail = format!("{{\"a\":\"{}\"}}", "x".repeat(262_144))),
            Err(Invalid::LongDetail),
        );
        check(progress(0.5), Ok(()));
        for number in [f64::INFINITY, f64::NEG_INFINITY, f64::NAN, -0.001] {
            check(progress(number), Err(Invalid::Number));
        }
    }

    #[test]
    fn an_invalid_observation_is_left_out_alone_and_the_round_no_longer_counts_as_complete() {
        let found = jobs::Page {
            observations: vec![
                progress(1.0),
                progress(-1.0),
                types::Observation::Job(valid()),
            ],
            cursor: Some("c".into()),
            coverage: jobs::Coverage::Complete,
        };
        let checked = page(found).unwrap();
        assert_eq!(checked.page.observations.len(), 2);
        assert_eq!(checked.page.coverage, Coverage::Partial);
        assert_eq!(checked.dropped, [("1".to_owned(), Invalid::Number)]);
    }

    #[test]
    fn a_page_over_the_bounds_is_a_failure_of_the_call() {
        let too_many = jobs::Page {
            observations: vec![progress(1.0); 5_001],
            cursor: None,
            coverage: jobs::Coverage::Partial,
        };
        assert!(
            page(too_many)
                .unwrap_err()
                .message
                .contains("5001 observations")
        );
        let long_cursor = jobs::Page {
            observations: vec![],
            cursor: Some("x".repeat(65_537)),
            coverage: jobs::Coverage::Partial,
        };
        assert!(page(long_cursor).unwrap_err().message.contains("cursor"));
    }

    #[test]
    fn a_receipt_too_long_to_keep_is_left_out() {
        assert_eq!(receipt(Some("x".repeat(4_097))), (None, true));
        assert_eq!(receipt(Some("x".into())), (Some("x".into()), false));
        assert_eq!(receipt(None), (None, false));
    }
}
