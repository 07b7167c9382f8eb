//! The rules that every value of an observation keeps to, and what breaks them.

use jiff::Timestamp;
use weir_model::observation::{
    Gauge as ProviderGauge, GaugeError, Job, JobProgress, JobState, JobStep, Observation, StepState,
};

use super::super::contract::bindings::weir::plugin::types;
use super::super::gauge::{Gauge, Mark};
use super::job_ref;

const STEPS_MAX: usize = 5_000;
const LABELS_MAX: usize = 64;

/// The rule that an observation broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::plugin) enum Invalid {
    #[error("an id is empty")]
    EmptyId,
    #[error("a string has more than {0} bytes")]
    LongString(usize),
    #[error("a number is negative, infinite or none at all")]
    Number,
    #[error("a time is out of range")]
    Time,
    #[error("more than 5000 steps")]
    Steps,
    #[error("more than 64 labels")]
    Labels,
    #[error("`detail` has more than {0} bytes")]
    LongDetail(usize),
    #[error("`detail` is not a JSON object")]
    Detail,
    #[error("{0}")]
    Gauge(GaugeError),
}

/// What every value of an observation has to keep to.
pub(super) struct Rules<'a>(pub(super) &'a Gauge);

impl Rules<'_> {
    pub(super) fn observation(
        &self,
        observation: types::Observation,
    ) -> Result<Observation, Invalid> {
        Ok(match observation {
            types::Observation::Job(found) => Observation::Job(Box::new(self.job(found)?)),
            types::Observation::Progress(found) => Observation::Progress(JobProgress {
                id: self.id(found.id)?,
                run: self.optional(found.run)?,
                step: self.optional(found.step)?,
                done: number(found.done)?,
                total: found.total.map(number).transpose()?,
                note: self.optional(found.note)?,
            }),
            types::Observation::Gone(found) => Observation::Gone(job_ref(self, found)?),
            types::Observation::Gauge(found) => Observation::Gauge(
                ProviderGauge::new(found.name, found.labels, found.value)
                    .map_err(Invalid::Gauge)?,
            ),
        })
    }

    fn job(&self, job: types::Job) -> Result<Job, Invalid> {
        if job.steps.len() > STEPS_MAX {
            return Err(Invalid::Steps);
        }
        if job.labels.len() > LABELS_MAX {
            return Err(Invalid::Labels);
        }
        Ok(Job {
            id: self.id(job.id)?,
            run: self.optional(job.run)?,
            workflow: self.optional(job.workflow)?,
            state: job_state(job.state),
            name: self.optional(job.name)?,
            position: job.position,
            created: job.created.map(time).transpose()?,
            started: job.started.map(time).transpose()?,
            finished: job.finished.map(time).transpose()?,
            steps: job
                .steps
                .into_iter()
                .map(|found| self.step(found))
                .collect::<Result<_, _>>()?,
            error: self.optional(job.error)?,
            labels: job
                .labels
                .into_iter()
                .map(|(name, value)| Ok((self.string(name)?, self.string(value)?)))
                .collect::<Result<_, _>>()?,
            detail: self.detail(job.detail)?,
        })
    }

    fn step(&self, step: types::Step) -> Result<JobStep, Invalid> {
        Ok(JobStep {
            id: self.id(step.id)?,
            name: self.string(step.name)?,
            state: step_state(step.state),
            started: step.started.map(time).transpose()?,
            finished: step.finished.map(time).transpose()?,
            done: step.done.map(number).transpose()?,
            total: step.total.map(number).transpose()?,
            error: self.optional(step.error)?,
        })
    }

    pub(super) fn id(&self, id: String) -> Result<String, Invalid> {
        if id.is_empty() {
            Err(Invalid::EmptyId)
        } else {
            self.string(id)
        }
    }

    fn string(&self, text: String) -> Result<String, Invalid> {
        let max = self.0.limits().string_bytes;
        self.0.note_len(Mark::String, text.len());
        if text.len() > max {
            Err(Invalid::LongString(max))
        } else {
            Ok(text)
        }
    }

    pub(super) fn optional(&self, text: Option<String>) -> Result<Option<String>, Invalid> {
        text.map(|text| self.string(text)).transpose()
    }

    fn detail(&self, detail: String) -> Result<String, Invalid> {
        let max = self.0.limits().detail_bytes;
        self.0.note_len(Mark::Detail, detail.len());
        if detail.len() > max {
            return Err(Invalid::LongDetail(max));
        }
        match serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&detail) {
            Ok(_) => Ok(detail),
            Err(_) => Err(Invalid::Detail),
        }
    }
}

fn number(number: f64) -> Result<f64, Invalid> {
    if number.is_finite() && number >= 0.0 {
        Ok(number)
    } else {
        Err(Invalid::Number)
    }
}

pub(super) fn time(milliseconds: u64) -> Result<Timestamp, Invalid> {
    i64::try_from(milliseconds)
        .ok()
        .and_then(|milliseconds| Timestamp::from_millisecond(milliseconds).ok())
        .ok_or(Invalid::Time)
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
