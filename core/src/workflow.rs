//! The workflow actor: one per workflow, drives its machine and journals what follows before anybody sees it.

use crate::clock::Clock;
use crate::journal::{
    Append, Commit, ExecutionChange, JournalHandle, NewWorkflow, ProgressRow, StepChange,
};
use crate::live::Board;
use crate::registry::{Passivate, Registry, WorkflowGone};
use crate::supervise::Slot;
use actix::{Actor, ActorContext, AsyncContext, Context, Handler, Message};
use jiff::Timestamp;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;
use weir_model::event::ExecutionEvent;
use weir_model::id::{ExecutionSeq, RunKey, WorkflowId};
use weir_model::observation::{Job, JobProgress};
use weir_model::workflow::{Contact, Events, Execution, NewExecution, Workflow};

/// Messages a workflow actor may have waiting; the registry, its only sender, waits for room.
pub const MAILBOX: usize = 64;
/// How often unsaved progress is written into the execution's row.
const CHECKPOINT: Duration = Duration::from_secs(10);

/// An observation was not taken; nothing of it is stored. The sender repeats it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not recorded: {0}")]
pub struct NotRecorded(pub String);

/// Answered once what was observed is on disk.
pub type Ack = oneshot::Sender<Result<(), NotRecorded>>;

/// What was observed of one run.
#[derive(Debug)]
pub enum Seen {
    Job(Box<Job>, Contact),
    Lost(String),
    Watch(bool),
    Progress(JobProgress),
}

/// Take one observation. `known`: the execution as the store has it, loaded before delivery.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Observe {
    pub key: RunKey,
    pub seen: Seen,
    pub known: Option<Box<Execution>>,
    pub ack: Ack,
}

/// Several observations of one workflow in one message; each is acknowledged by itself.
#[derive(Message)]
#[rtype(result = "()")]
pub struct ObserveAll(pub Vec<Observe>);

/// Self-message: write progress that no event carried.
#[derive(Message)]
#[rtype(result = "()")]
struct CheckpointProgress;

/// Self-message: nothing was asked for a while.
#[derive(Message)]
#[rtype(result = "()")]
struct ConsiderPassivation;

/// The journal refused an append: what this actor holds is not what is stored.
#[derive(Message)]
#[rtype(result = "()")]
struct NotAppended;

/// Stop: the registry has let go of this actor.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Stop;

/// A workflow as the store has it: what the actor is built from.
#[derive(Debug)]
pub struct Stored {
    pub machine: Workflow,
    pub name: String,
    /// 0 for a workflow that the store does not know yet.
    pub version: i64,
}

pub struct WorkflowActor {
    machine: Workflow,
    name: String,
    version: i64,
    journal: JournalHandle,
    registry: Slot<Registry>,
    board: Board,
    clock: Clock,
    /// Messages taken since birth: the registry compares it with what it sent.
    handled: u64,
    /// Appends that the journal has not answered.
    in_flight: Arc<AtomicUsize>,
    unsaved_progress: HashSet<ExecutionSeq>,
    checkpoint_due: bool,
    passivate_after: Duration,
    /// A look at whether it is idle is planned: a workflow with something open needs no timer.
    passivation_due: bool,
    /// Tells one life of this workflow's actor from the next.
    life: u64,
}

impl WorkflowActor {
    pub fn new(
        stored: Stored,
        life: u64,
        journal: JournalHandle,
        registry: Slot<Registry>,
        board: Board,
        clock: Clock,
        passivate_after: Duration,
    ) -> WorkflowActor {
        WorkflowActor {
            machine: stored.machine,
            name: stored.name,
            version: stored.version,
            journal,
            registry,
            board,
            clock,
            handled: 0,
            in_flight: Arc::default(),
            unsaved_progress: HashSet::new(),
            checkpoint_due: false,
            passivate_after,
            passivation_due: false,
            life,
        }
    }

    fn observe(&mut self, observe: Observe, ctx: &mut Context<WorkflowActor>) {
        let Observe {
            key,
            seen,
            known,
            ack,
        } = observe;
        if let Some(known) = known
            && self.machine.find(&key).is_none()
        {
            self.machine.adopt(*known);
        }
        let now = self.clock.now();
        let events = match &seen {
            Seen::Job(job, contact) => {
                // Made only for a run that is new: most observations are about known ones.
                let new = match self.machine.find(&key) {
                    Some(known) => NewExecution {
                        seq: known.record.seq,
                        uuid: known.record.uuid,
                    },
                    None => NewExecution {
                        seq: self.journal.next_execution_seq(),
                        uuid: uuid::Uuid::now_v7(),
                    },
                };
                self.machine.observe(&key, job, *contact, new, now)
            }
            Seen::Lost(reason) => self.machine.lose(&key, reason),
            Seen::Watch(on) => self.machine.watch(&key, *on),
            Seen::Progress(progress) => {
                if let Some(execution) = self.machine.report(&key, progress) {
                    self.board.show(execution);
                    let seq = execution.record.seq;
                    self.note_progress(seq, ctx);
                }
                Vec::new()
            }
        };
        if events.is_empty() {
            self.look(&key, &seen, ctx);
            // The sender may have given up waiting.
            let _ = ack.send(Ok(()));
        } else {
            self.record(events, now, ack, ctx);
            self.look(&key, &seen, ctx);
        }
        self.machine.forget_closed();
    }

    /// Takes from a view what is no event: fractions and the place in the queue.
    fn look(&mut self, key: &RunKey, seen: &Seen, ctx: &mut Context<WorkflowActor>) {
        if let Seen::Job(job, _) = seen
            && let Some(execution) = self.machine.report_view(key, job)
            && !execution.record.status.is_closed()
        {
            self.board.show(execution);
            let seq = execution.record.seq;
            self.note_progress(seq, ctx);
        }
    }

    fn note_progress(&mut self, seq: ExecutionSeq, ctx: &mut Context<WorkflowActor>) {
        self.unsaved_progress.insert(seq);
        if !self.checkpoint_due {
            self.checkpoint_due = true;
            ctx.notify_later(CheckpointProgress, CHECKPOINT);
        }
    }

    /// Applies the events and sends them to the journal; answers when they are on disk.
    ///
    /// The next observation may be taken before that: a later append names the version after this one, so that a
    /// rejected append takes its successors with it, and this actor is thrown away and rebuilt from the store.
    fn record(
        &mut self,
        events: Events,
        now: Timestamp,
        ack: Ack,
        ctx: &mut Context<WorkflowActor>,
    ) {
        let append = self.append(events, now);
        let closed = append.changed.iter();
        let closed = closed.filter(|change| change.status.is_closed());
        let closed: Vec<ExecutionSeq> = closed.map(|change| change.seq).collect();
        let board = self.board.clone();
        self.version += 1;
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        let (in_flight, actor) = (self.in_flight.clone(), ctx.address().downgrade());
        // Answered past this actor, which hears of failures alone: it would do no more than pass the answer on.
        self.journal
            .commit_then(Commit::Append(append), move |committed| {
                in_flight.fetch_sub(1, Ordering::Release);
                let failed = committed.is_err();
                if !failed {
                    // Until its end is on disk it is shown as it was.
                    closed.iter().for_each(|seq| board.clear(*seq));
                }
                // The sender may have given up waiting.
                let _ = ack.send(
                    committed
                        .map(|_| ())
                        .map_err(|e| NotRecorded(e.to_string())),
                );
                if failed && let Some(actor) = actor.upgrade() {
                    actor.do_send(NotAppended);
                }
            });
    }

    /// Applies the events, and gathers the rows that they change.
    fn append(&mut self, events: Events, now: Timestamp) -> Append {
        let mut rows = Rows::default();
        for (seq, event) in &events {
            if let (ExecutionEvent::Declared { .. }, Some(execution)) =
                (event, self.machine.execution(*seq))
            {
                let first = u32::try_from(execution.steps.len()).unwrap_or(u32::MAX);
                rows.declared.push(first);
            }
            self.machine.apply(*seq, event, now);
            if let Some(execution) = self.machine.execution(*seq) {
                rows.note(execution, event);
            }
        }
        let machine = &self.machine;
        let execution = |seq: ExecutionSeq| machine.execution(seq);
        let created = rows.created.iter().filter_map(|seq| execution(*seq));
        let changed = rows.changed.iter().filter_map(|seq| execution(*seq));
        let steps = rows.steps.iter().filter_map(|(seq, index)| {
            let step = execution(*seq)?.steps.get(usize::try_from(*index).ok()?)?;
            Some(StepChange::of(*seq, *index, step))
        });
        let unsaved = &mut self.unsaved_progress;
        let told = rows.created.iter().chain(&rows.changed);
        let told = told.filter(|seq| unsaved.remove(seq) || rows.begun_again.contains(seq));
        Append {
            workflow: machine.id,
            new: (self.version == 0).then(|| NewWorkflow {
                key: machine.key.clone(),
                name: self.name.clone(),
            }),
            expected_version: self.version,
            recorded_at: now,
            created: created.map(|e| e.record.clone()).collect(),
            changed: changed.map(|e| ExecutionChange::of(&e.record)).collect(),
            progress: told
                .filter_map(|seq| execution(*seq))
                .map(progress_row)
                .collect(),
            steps: steps.collect(),
            declared: rows.declared,
            last_number: machine.last_number,
            events,
        }
    }

    fn is_idle(&self) -> bool {
        self.machine.executions().next().is_none()
    }

    fn plan_passivation(&mut self, ctx: &mut Context<WorkflowActor>) {
        if self.is_idle() && !std::mem::replace(&mut self.passivation_due, true) {
            ctx.notify_later(ConsiderPassivation, self.passivate_after);
        }
    }

    fn save_progress(&mut self) {
        let rows: Vec<ProgressRow> = self
            .unsaved_progress
            .drain()
            .filter_map(|seq| Some(progress_row(self.machine.execution(seq)?)))
            .collect();
        if !rows.is_empty() {
            // Progress is droppable: when the journal is busy the next checkpoint carries it.
            drop(self.journal.try_commit(Commit::Progress(rows)));
        }
    }
}

fn progress_row(execution: &Execution) -> ProgressRow {
    ProgressRow {
        execution: execution.record.seq,
        progress: execution.live.progress,
        note: execution.live.note.clone(),
        position: execution.live.position,
        next_deadline: None,
    }
}

/// Which rows an append changes. Lists, not sets: nearly always an observation is about one run and few steps.
#[derive(Default)]
struct Rows {
    created: Vec<ExecutionSeq>,
    changed: Vec<ExecutionSeq>,
    /// A new attempt: progress starts over.
    begun_again: Vec<ExecutionSeq>,
    declared: Vec<u32>,
    steps: Vec<(ExecutionSeq, u32)>,
}

impl Rows {
    /// Takes an event that was applied to `execution`.
    fn note(&mut self, execution: &Execution, event: &ExecutionEvent) {
        let seq = execution.record.seq;
        match event {
            ExecutionEvent::Created { .. } => self.created.push(seq),
            ExecutionEvent::Declared { .. } => {}
            ExecutionEvent::StepStarted { step, .. }
            | ExecutionEvent::StepFinished { step, .. } => self.step(seq, *step),
            ExecutionEvent::Started { attempt, .. } if *attempt > 1 => {
                self.change(seq);
                self.begun_again.push(seq);
                for (index, _) in (0..).zip(&execution.steps) {
                    self.step(seq, index);
                }
            }
            _ => self.change(seq),
        }
    }

    fn change(&mut self, seq: ExecutionSeq) {
        if !self.created.contains(&seq) && !self.changed.contains(&seq) {
            self.changed.push(seq);
        }
    }

    fn step(&mut self, seq: ExecutionSeq, index: u32) {
        if !self.steps.contains(&(seq, index)) {
            self.steps.push((seq, index));
        }
    }
}

impl Actor for WorkflowActor {
    type Context = Context<WorkflowActor>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        self.plan_passivation(ctx);
    }
}

/// Told on stop and on panic alike: the next message finds a new actor, rebuilt from the store.
impl Drop for WorkflowActor {
    fn drop(&mut self) {
        for execution in self.machine.executions() {
            if self.unsaved_progress.contains(&execution.record.seq) {
                self.board.clear(execution.record.seq);
            }
        }
        self.registry.signal(WorkflowGone {
            id: self.machine.id,
            life: self.life,
            panicked: std::thread::panicking(),
        });
    }
}

impl Handler<ObserveAll> for WorkflowActor {
    type Result = ();

    fn handle(&mut self, all: ObserveAll, ctx: &mut Self::Context) {
        self.handled += 1;
        for observe in all.0 {
            self.observe(observe, ctx);
        }
        self.plan_passivation(ctx);
    }
}

impl Handler<CheckpointProgress> for WorkflowActor {
    type Result = ();

    fn handle(&mut self, _: CheckpointProgress, _: &mut Self::Context) {
        self.checkpoint_due = false;
        self.save_progress();
    }
}

impl Handler<ConsiderPassivation> for WorkflowActor {
    type Result = ();

    fn handle(&mut self, _: ConsiderPassivation, ctx: &mut Self::Context) {
        self.passivation_due = false;
        if !self.is_idle() {
            return;
        }
        if self.in_flight.load(Ordering::Acquire) == 0 {
            self.registry.signal(Passivate {
                id: self.machine.id,
                life: self.life,
                handled: self.handled,
            });
        }
        // Should the registry have sent something meanwhile, or a commit be under way: looked at again.
        self.plan_passivation(ctx);
    }
}

impl Handler<NotAppended> for WorkflowActor {
    type Result = ();

    fn handle(&mut self, _: NotAppended, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

impl Handler<Stop> for WorkflowActor {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        self.save_progress();
        ctx.stop();
    }
}

impl Handler<crate::supervise::Panic> for WorkflowActor {
    type Result = ();

    fn handle(&mut self, _: crate::supervise::Panic, _: &mut Self::Context) {
        panic!("asked to panic by a test");
    }
}

/// The identity of a workflow and where its actor's state comes from.
pub fn fresh(id: WorkflowId, key: &str) -> Stored {
    Stored {
        machine: Workflow::new(id, key.to_owned()),
        name: key.to_owned(),
        version: 0,
    }
}
