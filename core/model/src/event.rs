//! Events: facts in the past tense, journaled before anybody sees them.

use crate::alert::notification::Severity;
use crate::id::{ExecutionSeq, RunKey, SourceId};
use crate::request::{Action, RequestState};
use crate::status::Status;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What became of an execution (the payload of `execution.<status>` when it is closed).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The provider's own time; none where it gives none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A step as it is declared: its place in the list is its index.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeclaredStep {
    #[serde(rename = "i")]
    pub external_id: String,
    #[serde(rename = "n")]
    pub name: String,
}

/// What happened to one execution.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ExecutionEvent {
    /// First seen. `imported`: it was already final at the first contact with its source.
    Created {
        uuid: Uuid,
        key: RunKey,
        number: i64,
        name: Option<String>,
        imported: bool,
        created_at: Option<Timestamp>,
        labels: Vec<(String, String)>,
        detail: Option<String>,
    },
    /// A waiting or begun status was entered.
    Queued,
    Initializing,
    Started {
        started_at: Option<Timestamp>,
        attempt: u32,
    },
    Completing,
    Paused,
    Cancelling,
    Pending,
    /// A final status was entered.
    Finished {
        status: Status,
        late: bool,
        outcome: Outcome,
    },
    Lost {
        reason: String,
    },
    /// The provider shows a lost job again.
    Found {
        status: Status,
    },
    /// One final verdict replaced by another on the provider's evidence; happens once.
    Corrected {
        from: Status,
        to: Status,
        outcome: Outcome,
    },
    /// Its steps became known; later ones are appended.
    Declared {
        steps: Vec<DeclaredStep>,
    },
    StepStarted {
        step: u32,
        at: Option<Timestamp>,
    },
    StepFinished {
        step: u32,
        status: crate::status::StepStatus,
        started_at: Option<Timestamp>,
        at: Option<Timestamp>,
        error: Option<String>,
    },
    /// Its source was removed from the configuration: nobody looks any more.
    Unwatched,
    Watched,
}

/// What happened to a source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum SourceEvent {
    /// Contact was lost. Executions keep their status and are shown stale.
    Stale {
        error: String,
    },
    Recovered,
    /// So many jobs vanished at once that it is not believed yet.
    Suspect {
        missing: u32,
        of: u32,
    },
    SuspicionCleared,
    Removed,
    Returned,
}

/// What happened to an alert.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum AlertEvent {
    Fired { severity: Severity, title: String },
    Updated { count: u32, title: String },
    Resolved { reason: String },
    Acknowledged { by: String },
}

/// What happened to weir itself and its host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum SystemEvent {
    Started {
        version: String,
    },
    Stopped,
    /// weir saw nothing between these times (suspended, stopped, clock jumped).
    Blind {
        from: Timestamp,
        to: Timestamp,
        reason: String,
    },
    /// Something of weir's own needs an operator; `subject` identifies it.
    Trouble {
        subject: String,
        message: String,
    },
    TroubleCleared {
        subject: String,
    },
    ResourceOver {
        resource: String,
        value: f64,
        limit: f64,
    },
    ResourceRecovered {
        resource: String,
        value: f64,
        limit: f64,
    },
    Reloaded,
    ReloadFailed {
        message: String,
    },
    Muted {
        what: String,
        until: Timestamp,
    },
    Unmuted {
        what: String,
    },
}

/// What became of a control request. It never is a status: that is what the provider shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ControlEvent {
    /// On disk, before anybody is asked.
    Requested {
        request: Uuid,
        source: SourceId,
        action: Action,
    },
    /// The provider took it, or its answer was lost; `note` says which.
    Asked {
        request: Uuid,
        source: SourceId,
        action: Action,
        note: Option<String>,
    },
    Settled {
        request: Uuid,
        source: SourceId,
        action: Action,
        state: RequestState,
        reason: String,
    },
}

impl ControlEvent {
    pub fn source(&self) -> SourceId {
        match self {
            ControlEvent::Requested { source, .. }
            | ControlEvent::Asked { source, .. }
            | ControlEvent::Settled { source, .. } => *source,
        }
    }
}

/// One fact, and what it is about.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    Execution(ExecutionSeq, ExecutionEvent),
    Source(SourceId, SourceEvent),
    /// By fingerprint.
    Alert(String, AlertEvent),
    System(SystemEvent),
    /// With the execution that it is about: the old one of a retry, the new one of a submission once it is known.
    Control(Option<ExecutionSeq>, ControlEvent),
}

impl ExecutionEvent {
    /// The dotted name on every wire and in the store.
    pub fn kind(&self) -> &'static str {
        use crate::status::StepStatus;
        match self {
            ExecutionEvent::Created { .. } => "execution.created",
            ExecutionEvent::Queued => "execution.queued",
            ExecutionEvent::Initializing => "execution.initializing",
            ExecutionEvent::Started { .. } => "execution.started",
            ExecutionEvent::Completing => "execution.completing",
            ExecutionEvent::Paused => "execution.paused",
            ExecutionEvent::Cancelling => "execution.cancelling",
            ExecutionEvent::Pending => "execution.pending",
            ExecutionEvent::Finished { status, .. } => match status {
                Status::Completed => "execution.completed",
                Status::Partial => "execution.partial",
                Status::Failed => "execution.failed",
                Status::Timeout => "execution.timeout",
                _ => "execution.cancelled",
            },
            ExecutionEvent::Lost { .. } => "execution.lost",
            ExecutionEvent::Found { .. } => "execution.found",
            ExecutionEvent::Corrected { .. } => "execution.corrected",
            ExecutionEvent::Declared { .. } => "execution.declared",
            ExecutionEvent::StepStarted { .. } => "step.started",
            ExecutionEvent::StepFinished { status, .. } => match status {
                StepStatus::Completed => "step.completed",
                StepStatus::Failed => "step.failed",
                StepStatus::Skipped => "step.skipped",
                _ => "step.cancelled",
            },
            ExecutionEvent::Unwatched => "execution.unwatched",
            ExecutionEvent::Watched => "execution.watched",
        }
    }
}

impl Event {
    /// The dotted name on every wire and in the store.
    pub fn kind(&self) -> &'static str {
        match self {
            Event::Execution(_, event) => event.kind(),
            Event::Source(_, event) => match event {
                SourceEvent::Stale { .. } => "source.stale",
                SourceEvent::Recovered => "source.recovered",
                SourceEvent::Suspect { .. } => "source.suspect",
                SourceEvent::SuspicionCleared => "source.suspicion_cleared",
                SourceEvent::Removed => "source.removed",
                SourceEvent::Returned => "source.returned",
            },
            Event::Alert(_, event) => match event {
                AlertEvent::Fired { .. } => "alert.fired",
                AlertEvent::Updated { .. } => "alert.updated",
                AlertEvent::Resolved { .. } => "alert.resolved",
                AlertEvent::Acknowledged { .. } => "alert.acknowledged",
            },
            Event::System(event) => match event {
                SystemEvent::Started { .. } => "system.started",
                SystemEvent::Stopped => "system.stopped",
                SystemEvent::Blind { .. } => "system.blind",
                SystemEvent::Trouble { .. } => "system.trouble",
                SystemEvent::TroubleCleared { .. } => "system.trouble_cleared",
                SystemEvent::ResourceOver { .. } => "resource.over",
                SystemEvent::ResourceRecovered { .. } => "resource.recovered",
                SystemEvent::Reloaded => "config.reloaded",
                SystemEvent::ReloadFailed { .. } => "config.reload_failed",
                SystemEvent::Muted { .. } => "alert.muted",
                SystemEvent::Unmuted { .. } => "alert.unmuted",
            },
            Event::Control(_, event) => match event {
                ControlEvent::Requested { .. } => "control.requested",
                ControlEvent::Asked { .. } => "control.asked",
                ControlEvent::Settled { .. } => "control.settled",
            },
        }
    }
}
