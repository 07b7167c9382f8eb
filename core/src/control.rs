//! The control actor: journals what is asked for, asks the provider, and watches what becomes of it.
//!
//! One for all sources. What is on disk is its whole state: it looks at the open requests and at what was observed of
//! their executions, and does what follows. So a crash at any moment costs nothing that was acknowledged.

mod ask;
mod perform;

pub use ask::ControlFailed;
pub use perform::{Begin, BeginError, Begun};

use crate::clock::Clock;
use crate::feed::Feed;
use crate::journal::{JournalHandle, ReadError, RequestRow, StoredExecution};
use crate::source::{Announce, ExpectToLeave, Look, SharedHealth, SourceActor, SourceHealth, bare};
use crate::supervise::{Guard, Panic, Slot};
use actix::fut::ActorFutureExt;
use actix::{Actor, AsyncContext, Context, Handler, ResponseActFuture, SpawnHandle, WrapFuture};
use jiff::{SignedDuration, Timestamp};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use weir_model::id::SourceId;
use weir_model::observation::JobState;
use weir_model::request::{
    Action, Cancelling, Creating, Next, RequestState, judge_cancel, judge_creation,
};

/// Requests that are not settled, over all sources; more are refused.
pub const OPEN_MAX: usize = 1000;
/// Calls under way at one time; further requests are refused, further cancels wait.
pub const IN_FLIGHT_MAX: usize = 32;
/// A commit is followed by a look at the open requests, but not faster than this.
const LOOK_GAP: Duration = Duration::from_millis(100);
/// How often is looked at least while something is open.
const LOOK_AT_LEAST: Duration = Duration::from_secs(5);
/// While a job that was submitted is not shown yet.
const LOOK_OFTEN: Duration = Duration::from_secs(1);
/// A submitted job that good polls do not show is recorded from its name alone after so many of them, or so long.
const POLLS_TO_ANNOUNCE: u64 = 2;
const ANNOUNCE_AFTER: SignedDuration = SignedDuration::from_secs(10);

/// A source as control sees it.
#[derive(Clone)]
pub struct Controlled {
    pub name: String,
    /// `control: true` in the configuration.
    pub allowed: bool,
    pub(crate) feed: Feed,
    pub(crate) slot: Slot<SourceActor>,
    pub(crate) health: SharedHealth,
}

/// Finds a source that runs.
pub type Find = Arc<dyn Fn(SourceId) -> Option<Controlled> + Send + Sync>;

/// An open request with what was observed about it.
struct Sighting {
    row: RequestRow,
    /// What it cancels or retries.
    execution: Option<StoredExecution>,
    /// What it made.
    made: Option<StoredExecution>,
}

/// What was done to have a new job shown; forgotten with the process.
struct Hunt {
    /// Good polls before the first look.
    polls: u64,
    looks: u32,
    announced_at: Option<Timestamp>,
}

pub struct ControlActor {
    journal: JournalHandle,
    clock: Clock,
    find: Find,
    /// Answers to calls of an earlier life are lost.
    born: Timestamp,
    in_flight: HashSet<i64>,
    hunts: HashMap<i64, Hunt>,
    looking: bool,
    look_again: bool,
    timer: Option<SpawnHandle>,
    _guard: Guard,
}

impl ControlActor {
    pub fn new(journal: JournalHandle, clock: Clock, find: Find, guard: Guard) -> ControlActor {
        ControlActor {
            born: clock.now(),
            journal,
            clock,
            find,
            in_flight: HashSet::new(),
            hunts: HashMap::new(),
            looking: false,
            look_again: false,
            timer: None,
            _guard: guard,
        }
    }

    /// Reads what is open; one look at a time.
    fn look(&mut self, ctx: &mut Context<Self>) {
        if std::mem::replace(&mut self.looking, true) {
            self.look_again = true;
            return;
        }
        let journal = self.journal.clone();
        let seen = tokio::task::spawn_blocking(move || sightings(&journal));
        let seen: ResponseActFuture<Self, _> = Box::pin(seen.into_actor(self));
        ctx.spawn(seen.map(|seen, actor, ctx| {
            actor.looking = false;
            match seen {
                Ok(Ok(seen)) => actor.reconcile(seen, ctx),
                Ok(Err(error)) => {
                    tracing::warn!(%error, "open control requests cannot be read");
                    actor.schedule(LOOK_AT_LEAST, ctx);
                }
                Err(_) => actor.schedule(LOOK_AT_LEAST, ctx),
            }
            if std::mem::take(&mut actor.look_again) {
                actor.look(ctx);
            }
        }));
    }

    fn reconcile(&mut self, seen: Vec<Sighting>, ctx: &mut Context<Self>) {
        let now = self.clock.now();
        let open: HashSet<i64> = seen.iter().map(|sighting| sighting.row.id).collect();
        self.hunts.retain(|id, _| open.contains(id));
        let mut wait: Option<Duration> = None;
        for sighting in seen {
            if self.in_flight.contains(&sighting.row.id) {
                continue;
            }
            let next = match sighting.row.action {
                Action::Cancel => self.reconcile_cancel(&sighting, now, ctx),
                Action::Retry | Action::Submit => self.reconcile_creation(&sighting, now, ctx),
            };
            wait = Some(wait.map_or(next, |wait| wait.min(next)));
        }
        if let Some(wait) = wait {
            self.schedule(wait, ctx);
        }
    }

    /// Does what follows for one cancel; returns how long nothing more follows by itself.
    fn reconcile_cancel(
        &mut self,
        sighting: &Sighting,
        now: Timestamp,
        ctx: &mut Context<Self>,
    ) -> Duration {
        let row = &sighting.row;
        let status = sighting.execution.as_ref().map(|e| e.record.status);
        let cancelling = Cancelling {
            attempts: row.attempts,
            asked: row.asked,
            asked_at: row.asked_at,
            not_before: row.not_before,
        };
        let source = (self.find)(row.source);
        if let (Some(source), Some(job), true) = (&source, &row.job, row.asked > 0) {
            source.slot.signal(ExpectToLeave(job.clone(), true));
        }
        match judge_cancel(cancelling, status, now) {
            Next::Wait(until) => {
                if row.asked > 0 && !self.hunts.contains_key(&row.id) {
                    self.hunt(row, source.as_ref());
                }
                left(now, until).min(LOOK_AT_LEAST)
            }
            Next::Settle(state, reason) => {
                if let (Some(source), Some(job)) = (&source, &row.job) {
                    source.slot.signal(ExpectToLeave(job.clone(), false));
                }
                self.settle(row.clone(), state, reason, ctx)
            }
            Next::Ask => match source {
                Some(source) if source.allowed => self.ask_to_cancel(row.clone(), source, ctx),
                Some(source) => {
                    let reason =
                        format!("`control: true` is not set for the source {}", source.name);
                    self.settle(row.clone(), RequestState::Refused, reason, ctx)
                }
                None => {
                    let reason = "its source is not in the configuration any more".to_owned();
                    self.settle(row.clone(), RequestState::Refused, reason, ctx)
                }
            },
        }
    }

    fn ask_to_cancel(
        &mut self,
        row: RequestRow,
        source: Controlled,
        ctx: &mut Context<Self>,
    ) -> Duration {
        if self.in_flight.len() < IN_FLIGHT_MAX {
            self.hunts.remove(&row.id);
            let id = row.id;
            let asking = perform::cancel(self.journal.clone(), self.clock.clone(), source, row);
            self.fly(id, asking, ctx);
        }
        LOOK_OFTEN
    }

    /// Does what follows for one submission or retry whose call is over.
    fn reconcile_creation(
        &mut self,
        sighting: &Sighting,
        now: Timestamp,
        ctx: &mut Context<Self>,
    ) -> Duration {
        let row = &sighting.row;
        let source = (self.find)(row.source);
        let health = source.as_ref().map(|source| health(&source.health));
        let since = row.asked_at.unwrap_or(row.updated_at).max(self.born);
        let creating = Creating {
            accepted: row.new_job.is_some(),
            since,
            found: sighting.made.is_some(),
            looked_at: health.as_ref().and_then(last_look),
        };
        match judge_creation(creating, now) {
            Next::Settle(state, reason) => {
                let mut row = row.clone();
                if let Some(made) = &sighting.made {
                    row.new_execution = Some(made.record.seq);
                    row.new_uuid = Some(made.record.uuid);
                    row.workflow = Some(made.workflow.id);
                }
                self.settle(row, state, reason, ctx)
            }
            Next::Wait(_) | Next::Ask => {
                self.hunt(row, source.as_ref());
                self.announce(sighting, source.as_ref(), since, now);
                LOOK_OFTEN
            }
        }
    }

    /// Has the source looked at out of turn, a few times.
    fn hunt(&mut self, row: &RequestRow, source: Option<&Controlled>) {
        let Some(source) = source else { return };
        let hunt = self.hunts.entry(row.id).or_insert_with(|| Hunt {
            polls: good_polls(&health(&source.health)),
            looks: 0,
            announced_at: None,
        });
        if hunt.looks < 5 {
            hunt.looks += 1;
            source.slot.signal(Look);
        }
    }

    /// A job that the provider took, and that polls do not show: recorded as it was named.
    fn announce(
        &mut self,
        sighting: &Sighting,
        source: Option<&Controlled>,
        since: Timestamp,
        now: Timestamp,
    ) {
        let (Some(job), Some(source)) = (&sighting.row.new_job, source) else {
            return;
        };
        let Some(hunt) = self.hunts.get_mut(&sighting.row.id) else {
            return;
        };
        let polled = good_polls(&health(&source.health)) >= hunt.polls + POLLS_TO_ANNOUNCE;
        let long = now.duration_since(hunt.announced_at.unwrap_or(since)) >= ANNOUNCE_AFTER;
        if long || (polled && hunt.announced_at.is_none()) {
            hunt.announced_at = Some(now);
            let mut view = bare(job, JobState::Pending);
            // A retry is a run of the workflow that its job was a run of.
            view.workflow = sighting.execution.as_ref().map(|e| e.workflow.key.clone());
            source.slot.signal(Announce(view));
        }
    }

    fn settle(
        &mut self,
        row: RequestRow,
        state: RequestState,
        reason: String,
        ctx: &mut Context<Self>,
    ) -> Duration {
        let id = row.id;
        let settling =
            perform::settle(self.journal.clone(), self.clock.clone(), row, state, reason);
        self.fly(id, settling, ctx);
        LOOK_AT_LEAST
    }

    /// Runs something about one request; nothing else is done about it meanwhile.
    fn fly(&mut self, id: i64, work: impl Future<Output = ()> + 'static, ctx: &mut Context<Self>) {
        self.in_flight.insert(id);
        ctx.spawn(work.into_actor(self).map(move |(), actor: &mut Self, ctx| {
            actor.in_flight.remove(&id);
            actor.look(ctx);
        }));
    }

    /// The next look: at the latest after `wait`, and soon when anything was committed.
    fn schedule(&mut self, wait: Duration, ctx: &mut Context<Self>) {
        if let Some(timer) = self.timer.take() {
            ctx.cancel_future(timer);
        }
        let (clock, mut head) = (self.clock.clone(), self.journal.subscribe());
        let due = async move {
            tokio::time::sleep(LOOK_GAP).await;
            tokio::select! {
                () = clock.sleep(wait) => {}
                _ = head.changed() => {}
            }
        };
        let due = due
            .into_actor(self)
            .map(|(), actor: &mut Self, ctx: &mut Context<Self>| {
                actor.timer = None;
                actor.look(ctx);
            });
        self.timer = Some(ctx.spawn(due));
    }
}

/// What is open, read from the store.
fn sightings(journal: &JournalHandle) -> Result<Vec<Sighting>, ReadError> {
    let reader = journal.reader()?;
    let mut seen = Vec::new();
    for row in reader.open_requests(0, OPEN_MAX)? {
        let execution = match row.execution {
            Some(seq) => reader.execution(seq)?,
            None => None,
        };
        let made = match row.action {
            Action::Cancel => None,
            Action::Retry | Action::Submit => reader.execution_made_by(&row)?,
        };
        seen.push(Sighting {
            row,
            execution,
            made,
        });
    }
    Ok(seen)
}

fn health(shared: &SharedHealth) -> SourceHealth {
    shared
        .read()
        .unwrap_or_else(PoisonError::into_inner)
        .clone()
}

fn good_polls(health: &SourceHealth) -> u64 {
    health.polls.saturating_sub(health.failures)
}

/// When the last good poll began, at the latest.
fn last_look(health: &SourceHealth) -> Option<Timestamp> {
    let took = SignedDuration::try_from(health.last_poll_duration?).ok()?;
    health.last_ok_at?.checked_sub(took).ok()
}

fn left(now: Timestamp, until: Timestamp) -> Duration {
    Duration::try_from(until.duration_since(now)).unwrap_or_default()
}

impl Actor for ControlActor {
    type Context = Context<ControlActor>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.look(ctx);
    }
}

impl Handler<Begin> for ControlActor {
    type Result = ();

    fn handle(&mut self, begin: Begin, ctx: &mut Self::Context) {
        if self.in_flight.len() >= IN_FLIGHT_MAX {
            return begin.refuse(BeginError::Busy);
        }
        let id = begin.row.id;
        let source = (self.find)(begin.row.source);
        let work = perform::begin(self.journal.clone(), self.clock.clone(), source, begin);
        self.fly(id, work, ctx);
    }
}

impl Handler<Panic> for ControlActor {
    type Result = ();

    fn handle(&mut self, _: Panic, _: &mut Self::Context) {
        panic!("asked to panic by a test");
    }
}
