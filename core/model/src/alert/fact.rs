//! Facts: what the router is told of the journal, with the names that people know.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::event::{SourceEvent, SystemEvent};
use crate::id::Seq;
use crate::status::Status;

/// One fact, in the order of the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fact {
    pub seq: Seq,
    /// When it was recorded.
    pub at: Timestamp,
    pub kind: FactKind,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FactKind {
    Execution(Box<ExecutionFact>),
    SourceStale {
        source: String,
        error: String,
    },
    SourceRecovered {
        source: String,
    },
    /// So many jobs vanished at once that it is not believed yet.
    SourceSuspect {
        source: String,
        missing: u32,
        of: u32,
    },
    SourceSuspicionCleared {
        source: String,
    },
    /// Taken out of the configuration.
    SourceRemoved {
        source: String,
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
    /// `subject` names what is in trouble, for example [`receiver_subject`].
    Trouble {
        subject: String,
        message: String,
    },
    TroubleCleared {
        subject: String,
    },
    /// weir saw nothing between these times.
    Blind {
        from: Timestamp,
        to: Timestamp,
        reason: String,
    },
}

impl FactKind {
    /// What an event of a source means to the router.
    pub fn of_source(source: &str, event: &SourceEvent) -> Option<FactKind> {
        let source = source.to_owned();
        Some(match event {
            SourceEvent::Stale { error } => FactKind::SourceStale {
                source,
                error: error.clone(),
            },
            SourceEvent::Recovered => FactKind::SourceRecovered { source },
            SourceEvent::Suspect { missing, of } => FactKind::SourceSuspect {
                source,
                missing: *missing,
                of: *of,
            },
            SourceEvent::SuspicionCleared => FactKind::SourceSuspicionCleared { source },
            SourceEvent::Removed => FactKind::SourceRemoved { source },
            SourceEvent::Returned => return None,
        })
    }

    /// What an event of weir itself or its host means to the router.
    pub fn of_system(event: &SystemEvent) -> Option<FactKind> {
        let configuration = || CONFIGURATION_SUBJECT.to_owned();
        Some(match event.clone() {
            SystemEvent::Trouble { subject, message } => FactKind::Trouble { subject, message },
            SystemEvent::TroubleCleared { subject } => FactKind::TroubleCleared { subject },
            SystemEvent::ResourceOver {
                resource,
                value,
                limit,
            } => FactKind::ResourceOver {
                resource,
                value,
                limit,
            },
            SystemEvent::ResourceRecovered {
                resource,
                value,
                limit,
            } => FactKind::ResourceRecovered {
                resource,
                value,
                limit,
            },
            SystemEvent::ReloadFailed { message } => FactKind::Trouble {
                subject: configuration(),
                message,
            },
            SystemEvent::Reloaded => FactKind::TroubleCleared {
                subject: configuration(),
            },
            SystemEvent::Blind { from, to, reason } => FactKind::Blind { from, to, reason },
            SystemEvent::Started { .. }
            | SystemEvent::Stopped
            | SystemEvent::Muted { .. }
            | SystemEvent::Unmuted { .. } => return None,
        })
    }
}

/// The subject of a reload that failed.
pub const CONFIGURATION_SUBJECT: &str = "configuration";

/// The subject of a receiver that takes nothing: it is parked, or its plugin is. The router does not tell that receiver
/// about it.
pub fn receiver_subject(receiver: &str) -> String {
    format!("receiver {receiver}")
}

/// What happened to one execution.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExecutionFact {
    pub uuid: Uuid,
    /// The key of its workflow. Where it is the source's name, the workflow is only a place to put jobs.
    pub workflow: String,
    pub workflow_name: Option<String>,
    pub source: String,
    pub imported: bool,
    /// It finished while weir was not watching.
    pub late: bool,
    pub change: Change,
    pub error: Option<String>,
    /// The name of the step that failed.
    pub step: Option<String>,
    pub duration: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// First seen (also of one that is final in the next fact).
    Created,
    Finished(Status),
    Lost,
    /// A lost one is shown again, in this status.
    Found(Status),
    Corrected {
        from: Status,
        to: Status,
    },
    /// Nobody looks any more.
    Unwatched,
    Watched,
}

/// Whether an execution that ended so needs somebody's attention.
pub(crate) fn is_failure(status: Status) -> bool {
    matches!(status, Status::Failed | Status::Timeout | Status::Partial)
}
