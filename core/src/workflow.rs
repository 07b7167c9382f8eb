//! The workflow actor: one per workflow, drives its machine and journals what follows before anybody sees it.

use crate::clock::Clock;
use crate::journal::{Append, Commit, JournalHandle, ProgressRow};
use crate::live::Board;
use crate::registry::{Passivate, Registry, WorkflowGone};
use crate::supervise::Slot;
use actix::{Actor, ActorContext, AsyncContext, Context, Handler, Message, WrapFuture};
use jiff::Timestamp;
use std::collections::HashSet;
use std::time::Duration;
use tokio::sync::oneshot;
use weir_model::event::ExecutionEvent;
use weir_model::id::{ExecutionSeq, RunKey, WorkflowId};
use weir_model::observation::{Job, JobProgress};
use weir_model::workflow::{Contact, Events, Execution, NewExecution, Step, Workflow};

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
    in_flight: usize,
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
            in_flight: 0,
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
        for (seq, event) in &events {
            self.machine.apply(*seq, event, now);
        }
        let append = self.append(events, now);
        for record in append.executions.iter().filter(|r| r.status.is_closed()) {
            self.board.clear(record.seq);
            self.unsaved_progress.remove(&record.seq);
        }
        self.version += 1;
        let committed = match self.journal.try_commit(Commit::Append(append)) {
            Ok(committed) => committed,
            Err(refused) => {
                let _ = ack.send(Err(NotRecorded(refused.to_string())));
                ctx.stop();
                return;
            }
        };
        self.in_flight += 1;
        let waiting = async move {
            let result = committed
                .await
                .map(|_| ())
                .map_err(|e| NotRecorded(e.to_string()));
            let failed = result.is_err();
            let _ = ack.send(result);
            failed
        };
        ctx.spawn(actix::fut::ActorFutureExt::map(
            waiting.into_actor(self),
            |failed, actor: &mut WorkflowActor, ctx: &mut Context<WorkflowActor>| {
                actor.in_flight -= 1;
                if failed {
                    ctx.stop();
                }
            },
        ));
    }

    fn append(&self, events: Events, now: Timestamp) -> Append {
        // Nearly always one: an observation is about one run.
        let mut executions: Vec<&Execution> = Vec::with_capacity(1);
        let mut steps: Vec<(ExecutionSeq, u32, Step)> = Vec::new();
        for (seq, event) in &events {
            let Some(execution) = self.machine.execution(*seq) else {
                continue;
            };
            if !executions.iter().any(|known| known.record.seq == *seq) {
                executions.push(execution);
            }
            for index in touched_steps(event, execution.steps.len()) {
                let step = usize::try_from(index)
                    .ok()
                    .and_then(|i| execution.steps.get(i));
                if let Some(step) = step
                    && !steps.iter().any(|(s, i, _)| s == seq && *i == index)
                {
                    steps.push((*seq, index, step.clone()));
                }
            }
        }
        Append {
            workflow: self.machine.id,
            key: self.machine.key.clone(),
            name: self.name.clone(),
            expected_version: self.version,
            events,
            recorded_at: now,
            progress: executions.iter().copied().map(progress_row).collect(),
            executions: executions.iter().map(|e| e.record.clone()).collect(),
            steps,
            last_number: self.machine.last_number,
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

/// Which step rows an event changes. A start of a new attempt resets them all.
fn touched_steps(event: &ExecutionEvent, count: usize) -> Vec<u32> {
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    match event {
        ExecutionEvent::StepStarted { step, .. } | ExecutionEvent::StepFinished { step, .. } => {
            vec![*step]
        }
        ExecutionEvent::Declared { steps } => {
            let fresh = u32::try_from(steps.len()).unwrap_or(u32::MAX);
            (count.saturating_sub(fresh)..count).collect()
        }
        ExecutionEvent::Started { attempt, .. } if *attempt > 1 => (0..count).collect(),
        _ => Vec::new(),
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
        if self.in_flight == 0 {
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
