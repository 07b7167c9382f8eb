//! The source actor: polls one provider, routes what changed, and says when contact is lost.

mod control;
mod gauges;
mod live;

pub(crate) use control::bare;
pub use control::{Announce, ExpectToLeave, Look};
pub use gauges::{Gauges, ToldGauge};
pub use live::{Refresh, StreamObserved};

use crate::clock::Clock;
use crate::feed::{Feed, PollFailed};
use crate::journal::{Commit, CompleteRound, JournalHandle, SourceCommit, SourceRow};
use crate::registry::{Registry, Route, Routed};
use crate::supervise::{Guard, Panic, Slot};
use crate::workflow::{NotRecorded, Seen};
use actix::{
    Actor, ActorFutureExt, AsyncContext, Context, Handler, Message, ResponseActFuture,
    ResponseFuture, WrapFuture,
};
use jiff::{SignedDuration, Timestamp};
use live::Pace;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};
use weir_model::event::SourceEvent;
use weir_model::id::RunKey;
use weir_model::observation::{Job, JobRef, Observation, Page};
use weir_model::source::{LostJob, RoundEnd, Rounds};
use weir_model::workflow::Contact;

/// Unfinished jobs a poll is told about.
const OPEN_MAX: usize = 5_000;
/// Observations routed at once; a larger page goes in slices, so that one source cannot hold the registry for long.
const SLICE: usize = 500;
/// Consecutive failures after which a source is called stale.
const FAILURES_TO_STALE: u32 = 2;
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// A complete round is written down this often where nothing else is: what a crash forgets of it only is told late.
const COMPLETE_EVERY: SignedDuration = SignedDuration::from_mins(5);
/// A far side cannot silence a source for longer.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// How a source is polled.
#[derive(Clone, Debug)]
pub struct SourceOptions {
    pub name: String,
    pub poll_interval: Duration,
    pub lost_after: Duration,
    /// Jobs that ended before this are ignored unless they are known.
    pub forgotten_before: Option<Timestamp>,
    /// weir may submit, cancel and retry there.
    pub control: bool,
}

/// A source as the store has it.
#[derive(Clone, Debug)]
pub struct SourceState {
    pub row: SourceRow,
    pub cursor: Option<String>,
    /// The absence of a job that this generation has not seen yet is evidence.
    pub unseen_counts: bool,
    pub open: Vec<(JobRef, weir_model::status::Status)>,
}

/// What people are shown of a source beside its row; written by its actor.
#[derive(Clone, Debug, Default)]
pub struct SourceHealth {
    pub polls: u64,
    pub failures: u64,
    pub consecutive_failures: u32,
    pub last_poll_at: Option<Timestamp>,
    pub last_ok_at: Option<Timestamp>,
    pub last_poll_duration: Option<Duration>,
    pub last_error: Option<String>,
    pub stale_since: Option<Timestamp>,
    pub suspect: bool,
    pub open_jobs: usize,
    pub next_poll_at: Option<Timestamp>,
    /// What the source last told of its provider beside jobs.
    pub gauges: Gauges,
}

pub type SharedHealth = Arc<RwLock<SourceHealth>>;

/// Self-message: the next poll is due.
#[derive(Message)]
#[rtype(result = "()")]
pub struct PollSource;

/// Stop, and leave the poll that is going on. Answered when everything that is to be stored is on disk.
#[derive(Message)]
#[rtype(result = "()")]
pub struct StopSource;

/// weir itself did not look for a while: absence counts anew.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Blinded;

pub struct SourceActor {
    options: SourceOptions,
    state: SourceState,
    rounds: Rounds,
    /// As it is on disk.
    stored_round: Option<CompleteRound>,
    feed: Feed,
    journal: JournalHandle,
    registry: Slot<Registry>,
    clock: Clock,
    health: SharedHealth,
    failures: u32,
    /// The page that is under way belongs to the first round ever.
    first_round: bool,
    /// Ended before this while nobody looked: told as late.
    blind_until: Option<Timestamp>,
    busy: bool,
    timer: Option<actix::SpawnHandle>,
    /// Jobs that were submitted through weir and that no poll has shown yet.
    announced: Vec<Job>,
    pace: Pace,
    _guard: Guard,
}

/// How one poll went.
enum Polled {
    /// The round is over; everything it said is durable.
    Done,
    More,
    Failed(PollFailed),
    /// The provider answered, weir could not record it.
    NotRecorded(NotRecorded),
}

impl SourceActor {
    #[expect(
        clippy::too_many_arguments,
        reason = "an actor is born with everything it will ever need"
    )]
    pub(crate) fn new(
        options: SourceOptions,
        state: SourceState,
        feed: Feed,
        journal: JournalHandle,
        registry: Slot<Registry>,
        clock: Clock,
        health: SharedHealth,
        guard: Guard,
    ) -> SourceActor {
        let lost_after =
            SignedDuration::try_from(options.lost_after).unwrap_or(SignedDuration::MAX);
        let stored_round = state.row.complete_round;
        let before = stored_round.filter(|round| round.generation != state.row.generation);
        let rounds = Rounds::new(lost_after, state.unseen_counts, state.open.iter().cloned())
            .after_change(before.map(|round| round.begun_at));
        let first_round = state.row.first_contact_at.is_none();
        let blind_until = state.row.first_contact_at.is_some().then(|| clock.now());
        SourceActor {
            options,
            state,
            rounds,
            stored_round,
            feed,
            journal,
            registry,
            clock,
            health,
            failures: 0,
            first_round,
            blind_until,
            busy: false,
            timer: None,
            announced: Vec::new(),
            pace: Pace::default(),
            _guard: guard,
        }
    }

    fn cycle(&mut self) -> ResponseActFuture<Self, Polled> {
        self.busy = true;
        self.rounds.begin_poll(self.clock.now());
        let feed = self.feed.clone();
        let cursor = self.state.cursor.clone();
        let open = self.rounds.open(OPEN_MAX);
        let begun = Instant::now();
        self.pace.begun = Some(begun);
        let polled = async move { (feed.poll(cursor, open).await, begun.elapsed()) };
        Box::pin(polled.into_actor(self).then(|(result, took), actor, _| {
            actor.note_poll(took);
            let work: ResponseActFuture<Self, Polled> = match result {
                Err(failed) => actor.failed_with_announced(failed),
                Ok(page) => actor.take(page),
            };
            work
        }))
    }

    fn note_poll(&mut self, took: Duration) {
        let now = self.clock.now();
        self.health(|h| {
            h.polls += 1;
            h.last_poll_at = Some(now);
            h.last_poll_duration = Some(took);
        });
    }

    /// Routes a page, waits until all of it is durable, then stores its cursor.
    fn take(&mut self, mut page: Page) -> ResponseActFuture<Self, Polled> {
        self.join_announced(&mut page);
        self.keep_gauges(&page.observations);
        let routed = self.route(&page);
        let registry = self.registry.clone();
        let delivered = async move { deliver(&registry, routed).await };
        Box::pin(delivered.into_actor(self).then(move |result, actor, _| {
            let work: ResponseActFuture<Self, Polled> = match result {
                Err(error) => Box::pin(actix::fut::ready(Polled::NotRecorded(error))),
                Ok(()) => actor.conclude(page),
            };
            work
        }))
    }

    fn route(&self, page: &Page) -> Vec<Routed> {
        let changed = self.rounds.changed(&page.observations);
        changed.into_iter().filter_map(|o| self.routed(o)).collect()
    }

    fn routed(&self, observation: Observation) -> Option<Routed> {
        let key = |id: &str, run: &Option<String>| RunKey {
            source: self.state.row.id,
            external_id: id.to_owned(),
            run: run.clone().unwrap_or_default(),
        };
        match observation {
            Observation::Job(job) => {
                if self.is_forgotten(&job) {
                    return None;
                }
                let late = self
                    .blind_until
                    .zip(job.finished)
                    .is_some_and(|(until, end)| end < until);
                let first = self.first_round || self.rounds.is_history(&job);
                let contact = Contact {
                    first,
                    late: late && !first,
                };
                Some(Routed {
                    key: key(&job.id, &job.run),
                    workflow: job
                        .workflow
                        .clone()
                        .unwrap_or_else(|| self.options.name.clone()),
                    seen: Seen::Job(job, contact),
                })
            }
            Observation::Progress(progress) => Some(Routed {
                key: key(&progress.id, &progress.run),
                workflow: self.options.name.clone(),
                seen: Seen::Progress(progress),
            }),
            // Gone is judged at the end of the round, with the other missing ones.
            Observation::Gone(_) => None,
            // Kept beside the corridor: about no job, and no event.
            Observation::Gauge(_) => None,
        }
    }

    /// Nothing rises from the dead: what retention deleted is not recorded anew.
    fn is_forgotten(&self, job: &weir_model::observation::Job) -> bool {
        let watermark = self
            .state
            .row
            .forgotten_before
            .max(self.options.forgotten_before);
        let last = job.finished.or(job.started).or(job.created);
        watermark
            .zip(last)
            .is_some_and(|(watermark, last)| last < watermark)
    }

    /// Every observation is durable: judge the round and store the cursor with what follows.
    fn conclude(&mut self, page: Page) -> ResponseActFuture<Self, Polled> {
        let now = self.clock.now();
        self.rounds.succeeded(now);
        let more = self.rounds.acknowledge(&page, now);
        if more {
            self.state.cursor.clone_from(&page.cursor);
            let stored = self.store(Vec::new());
            return Box::pin(stored.into_actor(self).map(|result, _, _| match result {
                Ok(()) => Polled::More,
                Err(error) => Polled::NotRecorded(error),
            }));
        }
        let end = self.rounds.end_round(page.coverage, now);
        let lost: Vec<Routed> = end.lost.iter().map(|lost| self.lost(lost)).collect();
        let registry = self.registry.clone();
        let delivered = async move { deliver(&registry, lost).await };
        Box::pin(delivered.into_actor(self).then(move |result, actor, _| {
            let stored: ResponseActFuture<Self, Polled> = match result {
                Err(error) => Box::pin(actix::fut::ready(Polled::NotRecorded(error))),
                Ok(()) => {
                    let stored = actor.round_over(&page, &end);
                    Box::pin(stored.into_actor(actor).map(|result, _, _| match result {
                        Ok(()) => Polled::Done,
                        Err(error) => Polled::NotRecorded(error),
                    }))
                }
            };
            stored
        }))
    }

    fn lost(&self, lost: &LostJob) -> Routed {
        let job = &lost.job;
        let seen = if lost.cancelled {
            control::left_as_asked(job)
        } else {
            Seen::Lost(lost.reason.clone())
        };
        Routed {
            key: RunKey {
                source: self.state.row.id,
                external_id: job.id.clone(),
                run: job.run.clone().unwrap_or_default(),
            },
            workflow: self.options.name.clone(),
            seen,
        }
    }

    fn round_over(
        &mut self,
        page: &Page,
        end: &RoundEnd,
    ) -> impl Future<Output = Result<(), NotRecorded>> + use<> {
        for lost in &end.lost {
            self.rounds.forget(&lost.job);
        }
        let now = self.clock.now();
        let row = &mut self.state.row;
        let changed = self.state.cursor != page.cursor || row.first_contact_at.is_none();
        row.first_contact_at.get_or_insert(now);
        row.contact_at = Some(now);
        let complete = end.complete.map(|begun_at| CompleteRound {
            generation: row.generation,
            begun_at,
        });
        row.complete_round = complete.or(row.complete_round);
        self.state.cursor.clone_from(&page.cursor);
        let mut events = Vec::new();
        if row.stale_since.take().is_some() {
            row.stale_error = None;
            events.push(SourceEvent::Recovered);
        }
        if let Some((missing, of)) = end.suspect {
            row.suspect = true;
            events.push(SourceEvent::Suspect { missing, of });
        }
        if end.suspicion_cleared && std::mem::take(&mut row.suspect) {
            events.push(SourceEvent::SuspicionCleared);
        }
        let nothing = events.is_empty() && !changed && !self.round_is_due();
        let stored = (!nothing).then(|| self.store(events));
        if stored.is_some() {
            self.stored_round = self.state.row.complete_round;
        }
        async move {
            match stored {
                Some(stored) => stored.await,
                None => Ok(()),
            }
        }
    }

    /// Whether the newest complete round has to be written down for its own sake.
    fn round_is_due(&self) -> bool {
        match (self.stored_round, self.state.row.complete_round) {
            (Some(stored), Some(newest)) => {
                stored.generation != newest.generation
                    || newest.begun_at.duration_since(stored.begun_at) >= COMPLETE_EVERY
            }
            (stored, newest) => stored.is_none() && newest.is_some(),
        }
    }

    /// One transaction: the source's row with its cursor, and the events about it.
    fn store(
        &self,
        events: Vec<SourceEvent>,
    ) -> impl Future<Output = Result<(), NotRecorded>> + use<> {
        let commit = Commit::Source(SourceCommit {
            row: self.state.row.clone(),
            cursor: self.state.cursor.clone(),
            events,
            recorded_at: self.clock.now(),
        });
        let sent = self.journal.try_commit(commit);
        async move {
            let committed = sent.map_err(|e| NotRecorded(e.to_string()))?;
            committed
                .await
                .map(|_| ())
                .map_err(|e| NotRecorded(e.to_string()))
        }
    }

    fn health(&self, change: impl FnOnce(&mut SourceHealth)) {
        change(&mut self.health.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// What follows from a poll: the next one's time, and the event if contact was lost.
    fn settle(&mut self, polled: &Polled, ctx: &mut Context<Self>) {
        self.busy = false;
        self.pace.not_before = None;
        let now = self.clock.now();
        let wait = match polled {
            Polled::More => Duration::ZERO,
            Polled::Done => {
                self.first_round = false;
                self.blind_until = None;
                self.failures = 0;
                self.health(|h| {
                    h.consecutive_failures = 0;
                    h.last_ok_at = Some(now);
                    h.last_error = None;
                });
                match std::mem::take(&mut self.pace.again) {
                    true => self
                        .pace
                        .soonest(Instant::now())
                        .min(self.options.poll_interval),
                    false => self.options.poll_interval,
                }
            }
            Polled::NotRecorded(error) => {
                tracing::warn!(source = %self.options.name, %error, "observations were not recorded, reading the page again");
                self.rounds.failed_here();
                let wait = Duration::from_millis(500).max(self.options.poll_interval);
                self.pace.not_before = Some(Instant::now() + wait);
                wait
            }
            Polled::Failed(failed) => self.failed(failed, now, ctx),
        };
        let (open, stale, suspect) = (
            self.rounds.open_count(),
            self.state.row.stale_since,
            self.state.row.suspect,
        );
        self.health(|h| {
            h.open_jobs = open;
            h.stale_since = stale;
            if stale.is_some() {
                h.gauges.forget();
            }
            h.suspect = suspect;
        });
        self.schedule(wait, ctx);
    }

    fn failed(&mut self, failed: &PollFailed, now: Timestamp, ctx: &mut Context<Self>) -> Duration {
        self.failures = self.failures.saturating_add(1);
        self.pace.again = false;
        self.pace.not_before = failed
            .retry_after
            .map(|wait| Instant::now() + wait.min(RETRY_AFTER_MAX));
        self.rounds.failed(now);
        // What ends from now on, unseen, is told late.
        self.blind_until = Some(now);
        let (count, message) = (self.failures, failed.message.clone());
        self.health(|h| {
            h.failures += 1;
            h.consecutive_failures = count;
            h.last_error = Some(message);
        });
        if self.failures >= FAILURES_TO_STALE && self.state.row.stale_since.is_none() {
            let contact = self
                .health
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .last_ok_at
                .or(self.state.row.contact_at);
            let since = contact.unwrap_or(now);
            self.state.row.stale_since = Some(since);
            self.state.row.stale_error = Some(failed.message.clone());
            let what = match contact {
                Some(_) => "lost contact; statuses stay as they are",
                None => "never reached so far; is its address right?",
            };
            tracing::warn!(source = %self.options.name, error = %failed.message, "{what}");
            let stored = self.store(vec![SourceEvent::Stale {
                error: failed.message.clone(),
            }]);
            ctx.spawn(stored.into_actor(self).map(|result, actor: &mut Self, _| {
                if result.is_err() {
                    // Said again with the next failed poll.
                    actor.state.row.stale_since = None;
                }
            }));
        }
        self.backoff(failed)
    }

    /// Exponential from the poll interval, capped, with full jitter over its upper half; never before the far side allows.
    fn backoff(&self, failed: &PollFailed) -> Duration {
        let doubled = self
            .options
            .poll_interval
            .saturating_mul(1 << (self.failures.min(10)).saturating_sub(1));
        let cap = doubled.min(BACKOFF_MAX.max(self.options.poll_interval));
        let jittered = cap.mul_f64(0.5 + 0.5 * rand::random::<f64>());
        jittered.max(failed.retry_after.unwrap_or_default().min(RETRY_AFTER_MAX))
    }

    fn schedule(&mut self, wait: Duration, ctx: &mut Context<Self>) {
        if let Some(timer) = self.timer.take() {
            ctx.cancel_future(timer);
        }
        self.pace.due = Some(Instant::now() + wait);
        let next = self
            .clock
            .now()
            .checked_add(SignedDuration::try_from(wait).unwrap_or_default());
        self.health(|h| h.next_poll_at = next.ok());
        let clock = self.clock.clone();
        let due = async move { clock.sleep(wait).await };
        let timer = ctx.spawn(due.into_actor(self).map(
            |(), actor: &mut Self, ctx: &mut Context<Self>| {
                actor.timer = None;
                ctx.notify(PollSource);
            },
        ));
        self.timer = Some(timer);
    }
}

/// Sends observations to their workflows in slices and waits until every one is durable.
async fn deliver(registry: &Slot<Registry>, mut routed: Vec<Routed>) -> Result<(), NotRecorded> {
    while !routed.is_empty() {
        let rest = routed.split_off(routed.len().min(SLICE));
        let down = || NotRecorded("the registry is down".into());
        let acks = registry.ask(Route(routed)).await.ok_or_else(down)??;
        for ack in acks {
            ack.await
                .map_err(|_| NotRecorded("its workflow actor ended".into()))??;
        }
        routed = rest;
    }
    Ok(())
}

impl Actor for SourceActor {
    type Context = Context<SourceActor>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.notify(PollSource);
    }
}

impl Handler<PollSource> for SourceActor {
    type Result = ();

    fn handle(&mut self, _: PollSource, ctx: &mut Self::Context) {
        if self.busy {
            return;
        }
        let cycle = self.cycle();
        ctx.spawn(cycle.map(|polled, actor, ctx: &mut Context<Self>| actor.settle(&polled, ctx)));
    }
}

impl Handler<Blinded> for SourceActor {
    type Result = ();

    fn handle(&mut self, _: Blinded, _: &mut Self::Context) {
        self.rounds.blind();
        self.blind_until = Some(self.clock.now());
    }
}

impl Handler<StopSource> for SourceActor {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: StopSource, ctx: &mut Self::Context) -> Self::Result {
        use actix::ActorContext;
        ctx.stop();
        let untold = self.stored_round != self.state.row.complete_round;
        let stored = untold.then(|| self.store(Vec::new()));
        Box::pin(async move {
            // Where it cannot be written, an older one counts.
            if let Some(stored) = stored {
                drop(stored.await);
            }
        })
    }
}

impl Handler<Panic> for SourceActor {
    type Result = ();

    fn handle(&mut self, _: Panic, _: &mut Self::Context) {
        panic!("asked to panic by a test");
    }
}
