//! Observations: what a source saw of the provider's jobs, before weir believes any of it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Where a job is, in the provider's own words mapped onto ours (`job-state` of `wit/plugin.wit`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    Pending,
    Queued,
    Initializing,
    Running,
    Completing,
    Paused,
    Cancelling,
    Completed,
    Partial,
    Failed,
    Cancelled,
    Timeout,
}

/// Where a step is (`step-state` of `wit/plugin.wit`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    Pending,
    Running,
    Completed,
    Failed,
    Skipped,
    Cancelled,
}

/// One stage of a job: a ComfyUI node, a pipeline task, a training phase.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobStep {
    /// The provider's id of the step, unique within its job.
    pub id: String,
    pub name: String,
    pub state: StepState,
    pub started: Option<Timestamp>,
    pub finished: Option<Timestamp>,
    /// Units of work done, of `total`.
    pub done: Option<f64>,
    pub total: Option<f64>,
    pub error: Option<String>,
}

/// The full current view of one job. It replaces what weir knew, so duplicates and reordering are harmless.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// The provider's own id.
    pub id: String,
    /// Tells two runs under one id apart, where a provider allows that.
    pub run: Option<String>,
    /// Key of the workflow this job is a run of; none = the source's own name.
    pub workflow: Option<String>,
    pub state: JobState,
    pub name: Option<String>,
    /// Place in the provider's queue, 0 = next.
    pub position: Option<u32>,
    pub created: Option<Timestamp>,
    pub started: Option<Timestamp>,
    pub finished: Option<Timestamp>,
    pub steps: Vec<JobStep>,
    pub error: Option<String>,
    /// Low-cardinality facts: machine, gpu, region, model.
    pub labels: Vec<(String, String)>,
    /// A JSON object of whatever else is worth showing; `{}` for none.
    pub detail: String,
}

/// Progress alone: droppable, the last one per job and step is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobProgress {
    pub id: String,
    pub run: Option<String>,
    pub step: Option<String>,
    pub done: f64,
    pub total: Option<f64>,
    pub note: Option<String>,
}

/// One run of a job at one source.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct JobRef {
    pub id: String,
    pub run: Option<String>,
}

/// One thing a source saw.
#[derive(Clone, Debug, PartialEq)]
pub enum Observation {
    Job(Box<Job>),
    Progress(JobProgress),
    /// The provider no longer knows it.
    Gone(JobRef),
}

/// What one page of a poll says about the jobs it did not mention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coverage {
    /// Ask again at once: the round goes on.
    More,
    /// The round is over; jobs that it did not mention are as they were.
    Partial,
    /// The round is over and named every unfinished job.
    Complete,
}

/// What one poll returned.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    pub observations: Vec<Observation>,
    /// Stored once every observation of the page is durable.
    pub cursor: Option<String>,
    pub coverage: Coverage,
}

/// What the host shall do about a failed call, not what went wrong (`failure-kind` of `wit/plugin.wit`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// Try again with backoff.
    Transient,
    /// This input can never succeed.
    Permanent,
    /// Stop calling until configuration or credentials change.
    Misconfigured,
    /// No such job or alert on the far side.
    NotFound,
    Unsupported,
}
