//! An execution: our record of one run of a job, with its steps and its live progress.

use crate::id::{ExecutionSeq, RunKey};
use crate::observation::JobProgress;
use crate::status::{Status, StepStatus};
use jiff::Timestamp;
use uuid::Uuid;

/// What the store keeps of one execution, steps apart: the projection of its events.
#[derive(Clone, Debug, PartialEq)]
pub struct ExecutionRecord {
    pub seq: ExecutionSeq,
    pub uuid: Uuid,
    pub key: RunKey,
    /// Its number within its workflow, from 1.
    pub number: i64,
    pub name: Option<String>,
    /// Already final when its source was first seen: never alerted, not counted in rates.
    pub imported: bool,
    pub status: Status,
    /// From 1; a job that was begun and waits again starts its next attempt.
    pub attempt: u32,
    /// Its final verdict was corrected: it will not be corrected again.
    pub corrected: bool,
    /// Its source is configured. An unwatched execution is never called lost.
    pub watched: bool,
    pub first_seen_at: Timestamp,
    /// The provider's time, or ours when we saw it waiting; none where nobody knows.
    pub created_at: Option<Timestamp>,
    /// The provider's time, or ours when `started_estimated`.
    pub started_at: Option<Timestamp>,
    /// `started_at` is when we first saw it running.
    pub started_estimated: bool,
    /// The provider's time, or ours where it gives none.
    pub completed_at: Option<Timestamp>,
    pub error: Option<String>,
    pub labels: Vec<(String, String)>,
    /// A JSON object.
    pub detail: Option<String>,
}

impl ExecutionRecord {
    /// From start to end; never negative (provider clocks jump).
    pub fn duration(&self) -> Option<std::time::Duration> {
        span(self.started_at?, self.completed_at?)
    }

    /// From creation to start; never negative.
    pub fn queue_wait(&self) -> Option<std::time::Duration> {
        span(self.created_at?, self.started_at?)
    }
}

/// The time between two instants, zero when the second is earlier.
fn span(from: Timestamp, to: Timestamp) -> Option<std::time::Duration> {
    let span = to.duration_since(from);
    Some(std::time::Duration::try_from(span).unwrap_or_default())
}

/// One step of an execution.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    pub external_id: Box<str>,
    pub name: Box<str>,
    pub status: StepStatus,
    pub started_at: Option<Timestamp>,
    pub completed_at: Option<Timestamp>,
    pub error: Option<Box<str>>,
}

/// Progress that is never an event: lost with the process, restored by the next observation.
#[derive(Clone, Debug, Default)]
pub struct Live {
    /// 0 to 100, the highest of this attempt; none while the provider told nothing.
    pub progress: Option<f64>,
    /// Fraction done by step index, where it is neither 0 nor settled by the step's status.
    pub fractions: Vec<(u32, f64)>,
    pub note: Option<String>,
    /// Place in the provider's queue, 0 = next.
    pub position: Option<u32>,
}

/// One execution as its workflow's machine holds it.
#[derive(Clone, Debug)]
pub struct Execution {
    pub record: ExecutionRecord,
    pub steps: Vec<Step>,
    pub live: Live,
}

/// Two executions are equal when what is stored of them is: progress is ephemeral.
impl PartialEq for Execution {
    fn eq(&self, other: &Execution) -> bool {
        self.record == other.record && self.steps == other.steps
    }
}

impl Execution {
    pub fn step_index(&self, external_id: &str) -> Option<u32> {
        let index = self
            .steps
            .iter()
            .position(|s| &*s.external_id == external_id)?;
        u32::try_from(index).ok()
    }

    /// Takes a progress report; one without a total is its note alone. Returns whether anything a person sees has changed.
    pub fn report(&mut self, progress: &JobProgress) -> bool {
        if self.record.status.is_closed() {
            return false;
        }
        let Some(fraction) = fraction(progress.done, progress.total) else {
            let is_news = progress.note.is_some() && progress.note != self.live.note;
            if is_news {
                self.live.note.clone_from(&progress.note);
            }
            return is_news;
        };
        let whole = match progress.step.as_deref().map(|id| self.step_index(id)) {
            None => Some(fraction * 100.0),
            Some(None) => return false,
            Some(Some(step)) => {
                self.set_fraction(step, fraction);
                self.percent_of_steps()
            }
        };
        let note_changed = progress.note.is_some() && progress.note != self.live.note;
        if progress.note.is_some() {
            self.live.note.clone_from(&progress.note);
        }
        self.raise(whole) || note_changed
    }

    pub(crate) fn set_fraction(&mut self, step: u32, fraction: f64) {
        match self.live.fractions.iter_mut().find(|(s, _)| *s == step) {
            Some(entry) => entry.1 = entry.1.max(fraction),
            None => self.live.fractions.push((step, fraction)),
        }
    }

    /// Σ weight·fraction / Σ weight over the steps that weigh anything, in percent (design: skipped steps weigh nothing).
    pub(crate) fn percent_of_steps(&self) -> Option<f64> {
        let mut weight = 0.0;
        let mut done = 0.0;
        for (index, step) in self.steps.iter().enumerate() {
            let fraction = match step.status {
                StepStatus::Skipped => continue,
                StepStatus::Completed => 1.0,
                _ => self
                    .live
                    .fractions
                    .iter()
                    .find(|(s, _)| usize::try_from(*s) == Ok(index))
                    .map_or(0.0, |(_, f)| *f),
            };
            weight += 1.0;
            done += fraction;
        }
        (weight > 0.0).then(|| 100.0 * done / weight)
    }

    /// Keeps the running maximum, and 100 for success alone.
    pub(crate) fn raise(&mut self, percent: Option<f64>) -> bool {
        let Some(percent) = percent else { return false };
        let ceiling = if self.record.status == Status::Completed {
            100.0
        } else {
            99.0
        };
        let percent = percent.clamp(0.0, ceiling);
        if self.live.progress.is_none_or(|known| percent > known) {
            self.live.progress = Some(percent);
            return true;
        }
        false
    }
}

/// Done of total as 0..=1; none when it cannot be told.
pub(crate) fn fraction(done: f64, total: Option<f64>) -> Option<f64> {
    let total = total?;
    if !done.is_finite() || !total.is_finite() || total <= 0.0 {
        return None;
    }
    Some((done / total).clamp(0.0, 1.0))
}
