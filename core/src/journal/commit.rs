//! What the writer is asked to make durable, and the rows it is asked to keep.

use jiff::Timestamp;
use weir_model::alert::notification::{AlertStatus, Severity};
use weir_model::event::{
    AlertEvent, ControlEvent, Event, ExecutionEvent, SourceEvent, SystemEvent,
};
use weir_model::id::{ExecutionSeq, Seq, SourceId, WorkflowId};
use weir_model::observation::JobRef;
use weir_model::request::{Action, RequestState};
use weir_model::status::{Status, StepStatus};
use weir_model::workflow::{ExecutionRecord, Step};

/// One unit of durability: all of it is on disk when it is answered, or none of it ever was.
#[derive(Clone, Debug)]
pub enum Commit {
    Append(Append),
    Source(SourceCommit),
    Alerts(AlertCommit),
    Outbox(OutboxUpdate),
    System(SystemCommit),
    Checkpoint(Checkpoint),
    Progress(Vec<ProgressRow>),
    Samples(Vec<SampleRow>),
    Control(Box<ControlCommit>),
}

impl Commit {
    /// System events, recorded at one time.
    pub fn system(events: Vec<SystemEvent>, recorded_at: Timestamp) -> Commit {
        Commit::System(SystemCommit {
            events,
            recorded_at,
        })
    }

    /// How many rows it will write, roughly: what batches are bounded by.
    pub(super) fn weight(&self) -> usize {
        match self {
            Commit::Append(append) => append.weight(),
            Commit::Source(source) => source.events.len(),
            Commit::Alerts(alerts) => alerts.events.len() + alerts.outbox.len(),
            Commit::System(system) => system.events.len(),
            Commit::Progress(rows) => rows.len(),
            Commit::Samples(rows) => rows.len(),
            Commit::Control(control) => control.events.len(),
            Commit::Outbox(_) | Commit::Checkpoint(_) => 0,
        }
        .saturating_add(1)
    }
}

/// Events of one workflow with the projections that follow from them.
#[derive(Clone, Debug)]
pub struct Append {
    pub workflow: WorkflowId,
    /// Names of the workflow, where this append creates its row.
    pub new: Option<NewWorkflow>,
    /// Version of the workflow the events were made from; 0 creates its row. Each append adds one.
    pub expected_version: i64,
    pub events: Vec<(ExecutionSeq, ExecutionEvent)>,
    pub recorded_at: Timestamp,
    /// Full rows of the executions that the events create, as all of the events leave them.
    pub created: Vec<ExecutionRecord>,
    /// What the events changed of executions that were there before.
    pub changed: Vec<ExecutionChange>,
    /// Index of the first step of each declaration, in the order of the events that declare.
    pub declared: Vec<u32>,
    /// What the events changed of steps, those declared here among them.
    pub steps: Vec<StepChange>,
    /// Live progress that is checkpointed with this transition.
    pub progress: Vec<ProgressRow>,
    pub last_number: i64,
}

impl Append {
    fn weight(&self) -> usize {
        let declared = |(_, event): &(_, ExecutionEvent)| match event {
            ExecutionEvent::Declared { steps } => steps.len(),
            _ => 0,
        };
        let declared: usize = self.events.iter().map(declared).sum();
        self.events.len() + self.steps.len() + declared
    }
}

/// The names a workflow is created with.
#[derive(Clone, Debug)]
pub struct NewWorkflow {
    pub key: String,
    pub name: String,
}

/// What may change of an execution after its creation.
#[derive(Clone, Debug)]
pub struct ExecutionChange {
    pub seq: ExecutionSeq,
    pub status: Status,
    pub attempt: u32,
    pub corrected: bool,
    pub watched: bool,
    pub started_estimated: bool,
    pub started_at: Option<Timestamp>,
    pub completed_at: Option<Timestamp>,
    pub error: Option<String>,
}

impl ExecutionChange {
    pub fn of(record: &ExecutionRecord) -> ExecutionChange {
        ExecutionChange {
            seq: record.seq,
            status: record.status,
            attempt: record.attempt,
            corrected: record.corrected,
            watched: record.watched,
            started_estimated: record.started_estimated,
            started_at: record.started_at,
            completed_at: record.completed_at,
            error: record.error.clone(),
        }
    }

    pub(super) fn onto(self, record: &mut ExecutionRecord) {
        record.status = self.status;
        record.attempt = self.attempt;
        record.corrected = self.corrected;
        record.watched = self.watched;
        record.started_estimated = self.started_estimated;
        record.started_at = self.started_at;
        record.completed_at = self.completed_at;
        record.error = self.error;
    }
}

/// What may change of a step after its declaration.
#[derive(Clone, Debug)]
pub struct StepChange {
    pub execution: ExecutionSeq,
    pub index: u32,
    pub status: StepStatus,
    pub started_at: Option<Timestamp>,
    pub completed_at: Option<Timestamp>,
    pub error: Option<Box<str>>,
}

impl StepChange {
    pub fn of(execution: ExecutionSeq, index: u32, step: &Step) -> StepChange {
        StepChange {
            execution,
            index,
            status: step.status,
            started_at: step.started_at,
            completed_at: step.completed_at,
            error: step.error.clone(),
        }
    }
}

/// A source's row with its cursor, and what happened to it.
#[derive(Clone, Debug)]
pub struct SourceCommit {
    /// The full new row; its source actor is the only one who writes it.
    pub row: SourceRow,
    /// Replaces the stored cursor; none keeps it.
    pub cursor: Option<String>,
    pub events: Vec<SourceEvent>,
    pub recorded_at: Timestamp,
}

/// What is known of a source.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceRow {
    pub id: SourceId,
    /// A source is its name.
    pub name: String,
    pub plugin: String,
    /// Grows with each change of its configuration.
    pub generation: i64,
    /// Hash of the configuration this generation began with.
    pub config_hash: Option<String>,
    pub created_at: Timestamp,
    /// None until the first contact was made: then what is final already is imported.
    pub first_contact_at: Option<Timestamp>,
    /// When the provider was last seen to answer (as of the last commit).
    pub contact_at: Option<Timestamp>,
    pub stale_since: Option<Timestamp>,
    pub stale_error: Option<String>,
    /// So many jobs vanished at once that it is not believed yet.
    pub suspect: bool,
    /// In the configuration.
    pub configured: bool,
    /// Jobs older than this are ignored: retention deleted them. Only ever raised.
    pub forgotten_before: Option<Timestamp>,
    /// As of the last commit; of an older generation until this one has seen everything.
    pub complete_round: Option<CompleteRound>,
}

/// A round that saw everything of a source.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CompleteRound {
    /// Of the configuration that made it.
    pub generation: i64,
    /// What had ended by then was told.
    pub begun_at: Timestamp,
}

/// What the alert router decided, in one transaction with its cursor.
#[derive(Clone, Debug)]
pub struct AlertCommit {
    /// By fingerprint.
    pub events: Vec<(String, AlertEvent)>,
    /// What the router says of weir itself (mutes), recorded after the others.
    pub system: Vec<SystemEvent>,
    /// Full new rows.
    pub alerts: Vec<AlertRow>,
    /// New messages.
    pub outbox: Vec<OutboxRow>,
    /// Changes to messages that are there (re-routed, given up).
    pub outbox_updates: Vec<OutboxUpdate>,
    pub checkpoint: Option<Checkpoint>,
    pub recorded_at: Timestamp,
}

/// One episode of an alert: from pending to resolved. Fired again later, it is a new row.
#[derive(Clone, Debug, PartialEq)]
pub struct AlertRow {
    /// Given by [`super::JournalHandle::next_alert_id`].
    pub id: i64,
    pub uuid: uuid::Uuid,
    pub fingerprint: String,
    pub rule: String,
    pub severity: Severity,
    pub status: AlertStatus,
    pub title: String,
    pub body: String,
    pub labels: Vec<(String, String)>,
    pub annotations: Vec<(String, String)>,
    pub since: Timestamp,
    pub ends: Option<Timestamp>,
    pub updated_at: Timestamp,
    pub count: i64,
    /// Executions it is about, newest first; bounded by the router.
    pub executions: Vec<uuid::Uuid>,
    pub acknowledged_by: Option<String>,
    pub acknowledged_at: Option<Timestamp>,
    /// What else the router has to remember of it (JSON).
    pub state: Option<String>,
}

/// Where a message to a receiver stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OutboxState {
    Queued,
    Sent,
    /// Not delivered, to be tried again at `next_attempt_at`.
    Failed,
    /// Given up.
    Dead,
    /// Muted: recorded, never sent.
    Suppressed,
}

impl OutboxState {
    pub const ALL: [OutboxState; 5] = [
        OutboxState::Queued,
        OutboxState::Sent,
        OutboxState::Failed,
        OutboxState::Dead,
        OutboxState::Suppressed,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            OutboxState::Queued => "queued",
            OutboxState::Sent => "sent",
            OutboxState::Failed => "failed",
            OutboxState::Dead => "dead",
            OutboxState::Suppressed => "suppressed",
        }
    }

    pub(super) fn code(self) -> u8 {
        self as u8
    }

    pub(super) fn from_code(code: u8) -> Option<OutboxState> {
        OutboxState::ALL.get(usize::from(code)).copied()
    }
}

/// A message to one receiver, with the ledger of its delivery.
#[derive(Clone, Debug, PartialEq)]
pub struct OutboxRow {
    /// Given by [`super::JournalHandle::next_outbox_id`].
    pub id: i64,
    pub alert: Option<i64>,
    /// The group's whole life at this receiver: what the previous receipt belongs to.
    pub key: String,
    pub receiver: String,
    /// The notification as JSON.
    pub payload: String,
    pub state: OutboxState,
    pub attempts: u32,
    pub created_at: Timestamp,
    pub next_attempt_at: Option<Timestamp>,
    pub updated_at: Timestamp,
    pub answer: Option<String>,
    pub receipt: Option<String>,
}

/// What became of an attempt to deliver.
#[derive(Clone, Debug, PartialEq)]
pub struct OutboxUpdate {
    pub id: i64,
    pub state: OutboxState,
    pub attempts: u32,
    pub next_attempt_at: Option<Timestamp>,
    pub updated_at: Timestamp,
    pub answer: Option<String>,
    /// Replaces the stored receipt; none keeps it.
    pub receipt: Option<String>,
    /// Another receiver takes it over; none keeps the one it has.
    pub receiver: Option<String>,
}

/// A control request as it stands now, and what happened to it.
#[derive(Clone, Debug)]
pub struct ControlCommit {
    /// The full new row.
    pub row: RequestRow,
    /// Refused when a request with the same key is there, or one that is open for the same execution.
    pub is_new: bool,
    pub events: Vec<ControlEvent>,
    pub recorded_at: Timestamp,
}

/// How long a key stands for its request.
pub const KEY_LIFE: jiff::SignedDuration = jiff::SignedDuration::from_hours(24);

/// What weir was asked to do at a provider, and where that stands.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestRow {
    /// Given by [`super::JournalHandle::next_request_id`].
    pub id: i64,
    pub uuid: uuid::Uuid,
    pub action: Action,
    pub state: RequestState,
    pub source: SourceId,
    pub workflow: Option<WorkflowId>,
    /// What is cancelled or retried.
    pub execution: Option<ExecutionSeq>,
    pub execution_uuid: Option<uuid::Uuid>,
    /// The provider's name of it.
    pub job: Option<JobRef>,
    /// What the client calls it; the same key gets the same answer.
    pub key: Option<String>,
    /// Hash of what was asked for: a key that comes back with something else is a mistake.
    pub digest: Option<Vec<u8>>,
    /// Executions up to this one were there before it.
    pub after_execution: ExecutionSeq,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// Calls, those that failed too.
    pub attempts: u32,
    /// Calls that the provider took.
    pub asked: u32,
    /// When the provider last took one, or when its answer was lost.
    pub asked_at: Option<Timestamp>,
    /// Not tried again before this.
    pub not_before: Option<Timestamp>,
    pub reason: Option<String>,
    /// The job that a retry or submission made.
    pub new_job: Option<JobRef>,
    pub new_execution: Option<ExecutionSeq>,
    pub new_uuid: Option<uuid::Uuid>,
    pub answer: Option<RequestAnswer>,
}

/// What the provider answered to a submission or retry.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestAnswer {
    pub status: u16,
    pub content_type: String,
    /// None where it was too large to be kept, or is too old.
    pub body: Option<Vec<u8>>,
}

/// Facts about weir itself.
#[derive(Clone, Debug)]
pub struct SystemCommit {
    pub events: Vec<SystemEvent>,
    pub recorded_at: Timestamp,
}

/// How far a named consumer has read, and what it made of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    pub name: String,
    /// The last event it has taken in.
    pub cursor: Seq,
    /// Replaces the stored one; none keeps it.
    pub blob: Option<Vec<u8>>,
}

/// Live progress and the next deadline of one execution: no event, no version.
#[derive(Clone, Debug, PartialEq)]
pub struct ProgressRow {
    pub execution: ExecutionSeq,
    /// 0 to 100.
    pub progress: Option<f64>,
    pub note: Option<String>,
    /// Place in the provider's queue, 0 = next.
    pub position: Option<u32>,
    pub next_deadline: Option<Timestamp>,
}

/// One bucket of a rolled up measurement.
#[derive(Clone, Debug, PartialEq)]
pub struct SampleRow {
    pub series: String,
    /// Width of the bucket in seconds.
    pub width_seconds: u32,
    /// Start of the bucket.
    pub at: Timestamp,
    pub min: f64,
    pub max: f64,
    pub mean: f64,
    pub count: u32,
}

/// What a commit was numbered. Without events `last_seq` is the head and `first_seq` one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    pub first_seq: Seq,
    pub last_seq: Seq,
}

/// An event with its number and its place.
#[derive(Clone, Debug, PartialEq)]
pub struct EventRow {
    pub seq: Seq,
    pub at: Timestamp,
    /// The dotted name.
    pub kind: &'static str,
    pub workflow: Option<WorkflowId>,
    pub execution: Option<ExecutionSeq>,
    pub step: Option<u32>,
    pub event: Event,
}
