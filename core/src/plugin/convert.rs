//! Values across the border: what a guest returned becomes the model's, checked and bounded; what it is given becomes its.

mod control;
mod notice;
mod rules;
mod stream;
#[cfg(test)]
mod tests;

use std::time::Duration;

use weir_model::observation::{Coverage, FailureKind, JobRef, Observation, Page};

use super::Failure;
use super::contract::bindings::exports::weir::plugin::{jobs, lifecycle};
use super::contract::bindings::weir::plugin::types;
use super::gauge::{Gauge, Mark};
use super::status::Manifest;
use super::text::printable;

pub(super) use control::{direction_to_guest, log_page, submission};
pub(super) use notice::notification_to_guest;
pub(super) use rules::Invalid;
pub(super) use stream::{CheckedReaction, endpoints, frames_to_guest, reaction};

use rules::Rules;

pub(super) const MESSAGE_BYTES_MAX: usize = 4 * 1024;
const SCHEMA_BYTES_MAX: usize = 256 * 1024;
const NAME_BYTES_MAX: usize = 256;
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// A page of which every observation keeps the rules; the others were left out.
#[derive(Debug)]
pub(super) struct CheckedPage {
    pub(super) page: Page,
    /// Why each of the others was left out: (the job's id or the gauge's name as far as it can be shown, the rule).
    pub(super) dropped: Vec<(String, Invalid)>,
}

/// Checks a page. An invalid observation is left out alone; a page over the bounds is refused whole.
pub(super) fn page(page: jobs::Page, gauge: &Gauge) -> Result<CheckedPage, Failure> {
    let (observations, dropped) = observations(page.observations, gauge)?;
    let cursor = cursor(page.cursor, gauge)?;
    let coverage = match page.coverage {
        jobs::Coverage::More => Coverage::More,
        jobs::Coverage::Partial => Coverage::Partial,
        // What was left out was mentioned after all: calling it missing would be a lie.
        jobs::Coverage::Complete if dropped.iter().any(is_about_a_job) => Coverage::Partial,
        jobs::Coverage::Complete => Coverage::Complete,
    };
    let page = Page {
        observations,
        cursor,
        coverage,
    };
    Ok(CheckedPage { page, dropped })
}

fn is_about_a_job((_, invalid): &(String, Invalid)) -> bool {
    !matches!(invalid, Invalid::Gauge(_))
}

/// A result that cannot be used; the far side may send another one next time.
fn unusable(message: String) -> Failure {
    Failure::new(FailureKind::Transient, message)
}

fn cursor(cursor: Option<String>, gauge: &Gauge) -> Result<Option<String>, Failure> {
    let (len, max) = (
        cursor.as_ref().map_or(0, String::len),
        gauge.limits().cursor_bytes,
    );
    gauge.note_len(Mark::Cursor, len);
    if len > max {
        return Err(unusable(format!(
            "the plugin returned a cursor of {len} bytes, {max} are allowed"
        )));
    }
    Ok(cursor)
}

fn check_count(count: usize, what: &str, gauge: &Gauge) -> Result<(), Failure> {
    let max = gauge.limits().observations;
    gauge.note_len(Mark::Observations, count);
    if count > max {
        return Err(unusable(format!(
            "the plugin returned {count} {what} at once, {max} are allowed"
        )));
    }
    Ok(())
}

type Checked = (Vec<Observation>, Vec<(String, Invalid)>);

fn observations(found: Vec<types::Observation>, gauge: &Gauge) -> Result<Checked, Failure> {
    check_count(found.len(), "observations", gauge)?;
    let mut observations = Vec::with_capacity(found.len());
    let mut dropped = Vec::new();
    let rules = Rules(gauge);
    for observed in found {
        let id = printable(observed_id(&observed), NAME_BYTES_MAX);
        match rules.observation(observed) {
            Ok(observation) => observations.push(observation),
            Err(invalid) => dropped.push((id, invalid)),
        }
    }
    Ok((observations, dropped))
}

fn observed_id(observation: &types::Observation) -> &str {
    match observation {
        types::Observation::Job(job) => &job.id,
        types::Observation::Progress(progress) => &progress.id,
        types::Observation::Gone(job_ref) => &job_ref.id,
        types::Observation::Gauge(gauge) => &gauge.name,
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
            .filter(|schema| schema.len() <= SCHEMA_BYTES_MAX),
    }
}

/// A receipt too long to keep is left out: the message was delivered all the same.
pub(super) fn receipt(receipt: Option<String>, gauge: &Gauge) -> (Option<String>, bool) {
    let len = receipt.as_ref().map_or(0, String::len);
    gauge.note_len(Mark::Receipt, len);
    let too_long = len > gauge.limits().receipt_bytes;
    (receipt.filter(|_| !too_long), too_long)
}

fn job_ref(rules: &Rules<'_>, found: types::JobRef) -> Result<JobRef, Invalid> {
    Ok(JobRef {
        id: rules.id(found.id)?,
        run: rules.optional(found.run)?,
    })
}

pub(super) fn job_ref_to_guest(job_ref: &JobRef) -> types::JobRef {
    types::JobRef {
        id: job_ref.id.clone(),
        run: job_ref.run.clone(),
    }
}
