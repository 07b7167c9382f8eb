//! A workflow: the machine that turns observations of its jobs into events, and events into state.

mod execution;
mod transition;

pub use execution::{Execution, ExecutionRecord, Live, Step};
pub use transition::{Move, transition};

use crate::event::{DeclaredStep, ExecutionEvent, Outcome};
use crate::id::{ExecutionSeq, RunKey, WorkflowId};
use crate::observation::{Job, JobProgress, JobStep};
use crate::status::{Status, StepStatus};
use jiff::Timestamp;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use uuid::Uuid;

/// A workflow with its executions that are not closed.
///
/// Invariant: state changes only through [`Workflow::apply`], so replaying the events gives the same machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Workflow {
    pub id: WorkflowId,
    /// Unique within its workspace.
    pub key: String,
    /// Number of the newest execution; the next one gets one more.
    pub last_number: i64,
    /// In the order of their numbers. A list: most workflows have one, and the newest comes last.
    #[expect(
        clippy::vec_box,
        reason = "a list makes room for four at once, and they are large"
    )]
    executions: Vec<Box<Execution>>,
    /// By the hash of their key, sorted: the keys themselves are in the executions, and long.
    by_key: Vec<(u64, ExecutionSeq)>,
}

/// Identity for an execution that is seen for the first time, given by whoever numbers them.
#[derive(Clone, Copy, Debug)]
pub struct NewExecution {
    pub seq: ExecutionSeq,
    pub uuid: Uuid,
}

/// How an observation was made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Contact {
    /// First contact with this source: what is final already is imported.
    pub first: bool,
    /// weir was not looking when it ended: its alert is marked late.
    pub late: bool,
}

pub type Events = Vec<(ExecutionSeq, ExecutionEvent)>;

impl Workflow {
    pub fn new(id: WorkflowId, key: String) -> Workflow {
        Workflow {
            id,
            key,
            last_number: 0,
            executions: Vec::new(),
            by_key: Vec::new(),
        }
    }

    /// Takes up an execution that the store knows, when it is rebuilt or when closed ones are looked at again.
    pub fn adopt(&mut self, execution: Execution) {
        self.last_number = self.last_number.max(execution.record.number);
        let place = (key_hash(&execution.record.key), execution.record.seq);
        if let Err(at) = self.by_key.binary_search(&place) {
            self.by_key.insert(at, place);
        }
        let execution = Box::new(execution);
        match self.place_of(execution.record.seq) {
            Ok(at) => self.executions[at] = execution,
            Err(at) => self.executions.insert(at, execution),
        }
    }

    /// Lets go of the closed executions: nothing is expected of them.
    pub fn forget_closed(&mut self) {
        let open = |e: &Execution| !e.record.status.is_closed();
        if self.executions.iter().all(|e| open(e)) {
            return;
        }
        let mut executions = std::mem::take(&mut self.executions);
        executions.retain(|e| open(e));
        self.executions = executions;
        let mut by_key = std::mem::take(&mut self.by_key);
        by_key.retain(|(_, seq)| self.place_of(*seq).is_ok());
        self.by_key = by_key;
    }

    /// Where it is in the list, or would be.
    fn place_of(&self, seq: ExecutionSeq) -> Result<usize, usize> {
        self.executions.binary_search_by_key(&seq, |e| e.record.seq)
    }

    pub fn execution(&self, seq: ExecutionSeq) -> Option<&Execution> {
        self.place_of(seq).ok().map(|at| &*self.executions[at])
    }

    fn execution_mut(&mut self, seq: ExecutionSeq) -> Option<&mut Execution> {
        self.place_of(seq).ok().map(|at| &mut *self.executions[at])
    }

    pub fn find(&self, key: &RunKey) -> Option<&Execution> {
        self.execution(self.seq_of(key)?)
    }

    fn seq_of(&self, key: &RunKey) -> Option<ExecutionSeq> {
        let hash = key_hash(key);
        let from = self.by_key.partition_point(|(known, _)| *known < hash);
        let mut same = self.by_key[from..]
            .iter()
            .take_while(|(known, _)| *known == hash);
        let is_it = |seq: &ExecutionSeq| self.execution(*seq).is_some_and(|e| e.record.key == *key);
        same.find(|(_, seq)| is_it(seq)).map(|(_, seq)| *seq)
    }

    pub fn executions(&self) -> impl Iterator<Item = &Execution> {
        self.executions.iter().map(Box::as_ref)
    }

    /// What an observed job means: the events that follow from it, none when nothing changed.
    pub fn observe(
        &self,
        key: &RunKey,
        job: &Job,
        contact: Contact,
        new: NewExecution,
        now: Timestamp,
    ) -> Events {
        let mut events = Vec::new();
        let to = Status::from(job.state);
        match self.find(key) {
            Some(known) => {
                let seq = known.record.seq;
                observe_known(known, job, to, contact, &mut |e| events.push((seq, e)));
            }
            None => {
                let number = self.last_number + 1;
                let mut push = |e| events.push((new.seq, e));
                push(created(key, job, to, contact, new, number, now));
                observe_steps(&[], job, &mut push);
                if to.is_final() {
                    push(finished(job, to, contact.late));
                } else if to != Status::Pending {
                    push(entered(to, job, 1));
                }
            }
        }
        events
    }

    /// The provider no longer knows it, on evidence that `reason` tells. Nothing for what is closed already.
    pub fn lose(&self, key: &RunKey, reason: &str) -> Events {
        match self.find(key) {
            Some(e) if !e.record.status.is_closed() && e.record.watched => {
                vec![(
                    e.record.seq,
                    ExecutionEvent::Lost {
                        reason: reason.to_owned(),
                    },
                )]
            }
            _ => Vec::new(),
        }
    }

    /// Its source was removed from, or put back into, the configuration.
    pub fn watch(&self, key: &RunKey, watched: bool) -> Events {
        match self.find(key) {
            Some(e) if !e.record.status.is_closed() && e.record.watched != watched => {
                let event = if watched {
                    ExecutionEvent::Watched
                } else {
                    ExecutionEvent::Unwatched
                };
                vec![(e.record.seq, event)]
            }
            _ => Vec::new(),
        }
    }

    /// Takes a progress report, which is no event. Returns the execution if a person would see a difference.
    pub fn report(&mut self, key: &RunKey, progress: &JobProgress) -> Option<&Execution> {
        let seq = self.seq_of(key)?;
        let execution = self.execution_mut(seq)?;
        execution.report(progress).then_some(&*execution)
    }

    /// Takes what a full view says beside events: fractions of steps and the place in the queue.
    pub fn report_view(&mut self, key: &RunKey, job: &Job) -> Option<&Execution> {
        let seq = self.seq_of(key)?;
        let execution = self.execution_mut(seq)?;
        let moved = execution.live.position != job.position;
        execution.live.position = job.position;
        let mut told = false;
        for step in &job.steps {
            let fraction = step
                .done
                .and_then(|done| execution::fraction(done, step.total));
            if let (Some(fraction), Some(index)) = (fraction, execution.step_index(&step.id)) {
                execution.set_fraction(index, fraction);
                told = true;
            }
        }
        let percent = if told {
            execution.percent_of_steps()
        } else {
            None
        };
        (execution.raise(percent) || moved).then_some(&*execution)
    }

    /// Changes the state by one event, recorded at `at`. An event about an execution that is not here changes nothing.
    pub fn apply(&mut self, seq: ExecutionSeq, event: &ExecutionEvent, at: Timestamp) {
        if let ExecutionEvent::Created { .. } = event {
            if let Some(execution) = created_execution(seq, event, at) {
                self.adopt(execution);
            }
            return;
        }
        if let Some(execution) = self.execution_mut(seq) {
            execution.apply(event, at);
        }
    }
}

fn key_hash(key: &RunKey) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

/// Events of a job that is known.
fn observe_known(
    known: &Execution,
    job: &Job,
    to: Status,
    contact: Contact,
    push: &mut dyn FnMut(ExecutionEvent),
) {
    let record = &known.record;
    let verdict = transition(record.status, to, record.corrected);
    let attempt = record.attempt;
    match verdict {
        // Steps of a closed execution stand, unless its verdict changes.
        Move::Ignore => return,
        Move::Stay if record.status.is_closed() => return,
        Move::Requeue => {
            push(entered(to, job, attempt));
            return;
        }
        Move::Find => push(ExecutionEvent::Found { status: to }),
        Move::Stay | Move::Enter | Move::Finish | Move::Correct => {}
    }
    if !record.watched {
        push(ExecutionEvent::Watched);
    }
    let restarted =
        to == Status::Running && record.status.is_waiting() && record.started_at.is_some();
    let steps: &[Step] = if restarted { &[] } else { &known.steps };
    match verdict {
        Move::Enter if restarted => push(entered(to, job, attempt + 1)),
        Move::Enter => push(entered(to, job, attempt)),
        _ => {}
    }
    if restarted {
        observe_steps_again(&known.steps, job, push);
    } else {
        observe_steps(steps, job, push);
    }
    match verdict {
        Move::Finish => push(finished(job, to, contact.late)),
        Move::Find if to.is_final() => push(finished(job, to, contact.late)),
        Move::Correct => push(ExecutionEvent::Corrected {
            from: record.status,
            to,
            outcome: outcome(job),
        }),
        _ => {}
    }
}

fn created(
    key: &RunKey,
    job: &Job,
    to: Status,
    contact: Contact,
    new: NewExecution,
    number: i64,
    now: Timestamp,
) -> ExecutionEvent {
    ExecutionEvent::Created {
        uuid: new.uuid,
        key: key.clone(),
        number,
        name: job.name.clone(),
        imported: contact.first && to.is_final(),
        created_at: job.created.or_else(|| to.is_waiting().then_some(now)),
        labels: job.labels.clone(),
        detail: (job.detail != "{}" && !job.detail.is_empty()).then(|| job.detail.clone()),
    }
}

/// The event of entering an open status.
fn entered(to: Status, job: &Job, attempt: u32) -> ExecutionEvent {
    match to {
        Status::Queued => ExecutionEvent::Queued,
        Status::Initializing => ExecutionEvent::Initializing,
        Status::Running => ExecutionEvent::Started {
            started_at: job.started,
            attempt,
        },
        Status::Completing => ExecutionEvent::Completing,
        Status::Paused => ExecutionEvent::Paused,
        Status::Cancelling => ExecutionEvent::Cancelling,
        _ => ExecutionEvent::Pending,
    }
}

fn outcome(job: &Job) -> Outcome {
    Outcome {
        started_at: job.started,
        completed_at: job.finished,
        error: job.error.clone(),
    }
}

fn finished(job: &Job, status: Status, late: bool) -> ExecutionEvent {
    ExecutionEvent::Finished {
        status,
        late,
        outcome: outcome(job),
    }
}

/// Declares the steps that are new and settles those whose state moved on. A step never goes back within an attempt.
fn observe_steps(known: &[Step], job: &Job, push: &mut dyn FnMut(ExecutionEvent)) {
    // Nearly every view lists the same steps in the same order: then no index is needed.
    let same = |(step, seen): (&Step, &JobStep)| *step.external_id == *seen.id;
    if known.len() == job.steps.len() && known.iter().zip(&job.steps).all(same) {
        for (at, (step, seen)) in (0u32..).zip(known.iter().zip(&job.steps)) {
            if let Some(event) = step_moved(at, step.status, seen) {
                push(event);
            }
        }
        return;
    }
    let index: HashMap<&str, u32> = known.iter().map(|s| &*s.external_id).zip(0u32..).collect();
    let mut fresh: Vec<&JobStep> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for step in &job.steps {
        if !index.contains_key(step.id.as_str()) && seen.insert(step.id.as_str()) {
            fresh.push(step);
        }
    }
    if !fresh.is_empty() {
        let steps = fresh.iter().map(|s| DeclaredStep {
            external_id: s.id.clone(),
            name: s.name.clone(),
        });
        push(ExecutionEvent::Declared {
            steps: steps.collect(),
        });
    }
    let first_fresh = u32::try_from(known.len()).unwrap_or(u32::MAX);
    let fresh_index: HashMap<&str, u32> = fresh
        .iter()
        .map(|s| s.id.as_str())
        .zip(first_fresh..)
        .collect();
    for step in &job.steps {
        let (at, was) = match index.get(step.id.as_str()) {
            Some(&at) => (
                at,
                usize::try_from(at)
                    .ok()
                    .and_then(|at| known.get(at))
                    .map(|s| s.status),
            ),
            None => (
                fresh_index.get(step.id.as_str()).copied().unwrap_or(0),
                None,
            ),
        };
        if let Some(event) = step_moved(at, was.unwrap_or(StepStatus::Pending), step) {
            push(event);
        }
    }
}

/// The steps of a new attempt: declared already, all pending again.
fn observe_steps_again(known: &[Step], job: &Job, push: &mut dyn FnMut(ExecutionEvent)) {
    let pending: Vec<Step> = known
        .iter()
        .map(|s| Step {
            status: StepStatus::Pending,
            ..s.clone()
        })
        .collect();
    observe_steps(&pending, job, push);
}

fn step_moved(step: u32, was: StepStatus, seen: &JobStep) -> Option<ExecutionEvent> {
    let to = StepStatus::from(seen.state);
    if was.is_final() || was == to {
        return None;
    }
    match to {
        StepStatus::Pending => None,
        StepStatus::Running => Some(ExecutionEvent::StepStarted {
            step,
            at: seen.started,
        }),
        status => Some(ExecutionEvent::StepFinished {
            step,
            status,
            started_at: seen.started,
            at: seen.finished,
            error: seen.error.clone(),
        }),
    }
}

fn created_execution(
    seq: ExecutionSeq,
    event: &ExecutionEvent,
    at: Timestamp,
) -> Option<Execution> {
    let ExecutionEvent::Created {
        uuid,
        key,
        number,
        name,
        imported,
        created_at,
        labels,
        detail,
    } = event
    else {
        return None;
    };
    Some(Execution {
        record: ExecutionRecord {
            seq,
            uuid: *uuid,
            key: key.clone(),
            number: *number,
            name: name.clone(),
            imported: *imported,
            status: Status::Pending,
            attempt: 1,
            corrected: false,
            watched: true,
            first_seen_at: at,
            created_at: *created_at,
            started_at: None,
            started_estimated: false,
            completed_at: None,
            error: None,
            labels: labels.clone(),
            detail: detail.clone(),
        },
        steps: Vec::new(),
        live: Live::default(),
    })
}

impl Execution {
    /// Changes the state by one event, recorded at `at`.
    fn apply(&mut self, event: &ExecutionEvent, at: Timestamp) {
        match event {
            ExecutionEvent::Created { .. } => {}
            ExecutionEvent::Pending => self.record.status = Status::Pending,
            ExecutionEvent::Queued => self.record.status = Status::Queued,
            ExecutionEvent::Initializing => self.record.status = Status::Initializing,
            ExecutionEvent::Completing => self.record.status = Status::Completing,
            ExecutionEvent::Paused => self.record.status = Status::Paused,
            ExecutionEvent::Cancelling => self.record.status = Status::Cancelling,
            ExecutionEvent::Started {
                started_at,
                attempt,
            } => self.start(*started_at, *attempt, at),
            ExecutionEvent::Finished {
                status, outcome, ..
            } => self.finish(*status, outcome, at),
            ExecutionEvent::Corrected { to, outcome, .. } => {
                self.record.corrected = true;
                self.finish(*to, outcome, at);
            }
            ExecutionEvent::Lost { reason } => {
                self.record.status = Status::Lost;
                self.record.error = Some(reason.clone());
            }
            ExecutionEvent::Found { status } => {
                self.record.error = None;
                if !status.is_closed() {
                    self.record.status = *status;
                }
            }
            ExecutionEvent::Declared { steps } => self.steps.extend(steps.iter().map(|s| Step {
                external_id: s.external_id.as_str().into(),
                name: s.name.as_str().into(),
                status: StepStatus::Pending,
                started_at: None,
                completed_at: None,
                error: None,
            })),
            ExecutionEvent::StepStarted { step, at } => {
                if let Some(step) = self.step_mut(*step) {
                    step.status = StepStatus::Running;
                    step.started_at = *at;
                }
            }
            ExecutionEvent::StepFinished {
                step,
                status,
                started_at,
                at,
                error,
            } => {
                if let Some(step) = self.step_mut(*step) {
                    step.status = *status;
                    step.started_at = started_at.or(step.started_at);
                    step.completed_at = *at;
                    step.error = error.as_deref().map(Into::into);
                }
            }
            ExecutionEvent::Unwatched => self.record.watched = false,
            ExecutionEvent::Watched => self.record.watched = true,
        }
    }

    fn step_mut(&mut self, step: u32) -> Option<&mut Step> {
        self.steps.get_mut(usize::try_from(step).ok()?)
    }

    fn start(&mut self, started_at: Option<Timestamp>, attempt: u32, at: Timestamp) {
        let record = &mut self.record;
        record.status = Status::Running;
        let again = attempt > record.attempt;
        if again {
            record.attempt = attempt;
            self.live = Live::default();
            for step in &mut self.steps {
                step.status = StepStatus::Pending;
                step.started_at = None;
                step.completed_at = None;
                step.error = None;
            }
        }
        if again || record.started_at.is_none() || started_at.is_some() {
            record.started_at = Some(started_at.unwrap_or(at));
            record.started_estimated = started_at.is_none();
        }
    }

    fn finish(&mut self, status: Status, outcome: &Outcome, at: Timestamp) {
        let record = &mut self.record;
        record.status = status;
        if outcome.started_at.is_some() {
            record.started_at = outcome.started_at;
            record.started_estimated = false;
        }
        record.completed_at = Some(outcome.completed_at.unwrap_or(at));
        record.error = outcome.error.clone();
        self.live.position = None;
        if status == Status::Completed {
            self.live.progress = Some(100.0);
        }
    }
}

#[cfg(test)]
mod tests;
