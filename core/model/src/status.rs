//! Statuses of an execution and of a step, and how a provider's states map onto them.

use crate::observation::{JobState, StepState};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Status of one execution. Stored and sent as its snake case name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
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
    Timeout,
    Cancelled,
    /// Closed but not final: the provider forgot the job; showing it again reopens it.
    Lost,
}

impl Status {
    pub const ALL: [Status; 13] = [
        Status::Pending,
        Status::Queued,
        Status::Initializing,
        Status::Running,
        Status::Completing,
        Status::Paused,
        Status::Cancelling,
        Status::Completed,
        Status::Partial,
        Status::Failed,
        Status::Timeout,
        Status::Cancelled,
        Status::Lost,
    ];

    /// Final: never left again, but for one correction on the provider's evidence.
    pub fn is_final(self) -> bool {
        use Status::{Cancelled, Completed, Failed, Partial, Timeout};
        matches!(self, Completed | Partial | Failed | Timeout | Cancelled)
    }

    /// Closed: final or lost; nothing is expected to happen.
    pub fn is_closed(self) -> bool {
        self.is_final() || self == Status::Lost
    }

    /// Waiting at the provider, nothing was begun.
    pub fn is_waiting(self) -> bool {
        matches!(
            self,
            Status::Pending | Status::Queued | Status::Initializing
        )
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Status::Pending => "pending",
            Status::Queued => "queued",
            Status::Initializing => "initializing",
            Status::Running => "running",
            Status::Completing => "completing",
            Status::Paused => "paused",
            Status::Cancelling => "cancelling",
            Status::Completed => "completed",
            Status::Partial => "partial",
            Status::Failed => "failed",
            Status::Timeout => "timeout",
            Status::Cancelled => "cancelled",
            Status::Lost => "lost",
        }
    }

    pub fn parse(text: &str) -> Option<Status> {
        Status::ALL.into_iter().find(|s| s.as_str() == text)
    }

    /// The integer in the store: its place in [`Status::ALL`], which therefore only grows at its end.
    pub fn code(self) -> u8 {
        self as u8
    }

    pub fn from_code(code: u8) -> Option<Status> {
        Status::ALL.get(usize::from(code)).copied()
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl From<JobState> for Status {
    fn from(state: JobState) -> Status {
        match state {
            JobState::Pending => Status::Pending,
            JobState::Queued => Status::Queued,
            JobState::Initializing => Status::Initializing,
            JobState::Running => Status::Running,
            JobState::Completing => Status::Completing,
            JobState::Paused => Status::Paused,
            JobState::Cancelling => Status::Cancelling,
            JobState::Completed => Status::Completed,
            JobState::Partial => Status::Partial,
            JobState::Failed => Status::Failed,
            JobState::Cancelled => Status::Cancelled,
            JobState::Timeout => Status::Timeout,
        }
    }
}

/// Status of one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepStatus {
    Pending,
    Running,
    Completed,
    Failed,
    Skipped,
    Cancelled,
}

impl StepStatus {
    pub const ALL: [StepStatus; 6] = [
        StepStatus::Pending,
        StepStatus::Running,
        StepStatus::Completed,
        StepStatus::Failed,
        StepStatus::Skipped,
        StepStatus::Cancelled,
    ];

    pub fn is_final(self) -> bool {
        !matches!(self, StepStatus::Pending | StepStatus::Running)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            StepStatus::Pending => "pending",
            StepStatus::Running => "running",
            StepStatus::Completed => "completed",
            StepStatus::Failed => "failed",
            StepStatus::Skipped => "skipped",
            StepStatus::Cancelled => "cancelled",
        }
    }

    pub fn code(self) -> u8 {
        self as u8
    }

    pub fn from_code(code: u8) -> Option<StepStatus> {
        StepStatus::ALL.get(usize::from(code)).copied()
    }
}

impl fmt::Display for StepStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl From<StepState> for StepStatus {
    fn from(state: StepState) -> StepStatus {
        match state {
            StepState::Pending => StepStatus::Pending,
            StepState::Running => StepStatus::Running,
            StepState::Completed => StepStatus::Completed,
            StepState::Failed => StepStatus::Failed,
            StepState::Skipped => StepStatus::Skipped,
            StepState::Cancelled => StepStatus::Cancelled,
        }
    }
}
