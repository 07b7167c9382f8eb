//! The alert router actor: reads the journal from its cursor, drives the model's router, commits what it decides.

use crate::clock::Clock;
use crate::cursor::{CatchUp, follow};
use crate::journal::{
    AlertCommit, AlertRow, Checkpoint, Commit, JournalHandle, OutboxRow, OutboxState, OutboxUpdate,
    ReadError, Reader, StoredEvent,
};
use crate::monitor::ActError;
use crate::receiver::Bell;
use crate::supervise::{Guard, Panic};
use actix::{
    Actor, ActorContext, ActorFutureExt, AsyncContext, AtomicResponse, Context, Handler, Message,
    WrapFuture,
};
use arc_swap::ArcSwap;
use jiff::Timestamp;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{broadcast, watch};
use uuid::Uuid;
use weir_model::alert::fact::{Change, ExecutionFact, Fact, FactKind};
use weir_model::alert::mute::{Mute, MuteScope};
use weir_model::alert::notification::{AlertStatus, Notification, Severity};
use weir_model::alert::router::state::RouterState;
use weir_model::alert::router::{self, Decision, OutboxEntry, Router, RouterConfig};
use weir_model::event::{Event, ExecutionEvent};
use weir_model::id::Seq;
use weir_model::status::{Status, StepStatus};

/// The consumer's name in the store.
const NAME: &str = "alerts";
/// Events read at once.
const BATCH: usize = 500;
/// An idle cursor is stored this often, so that a restart has little to read.
const CHECKPOINT: Duration = Duration::from_secs(5);

/// Somebody has seen an alert.
#[derive(Message)]
#[rtype(result = "Result<(), ActError>")]
pub struct Acknowledge {
    pub fingerprint: String,
    pub by: String,
}

/// Keep quiet about something.
#[derive(Message)]
#[rtype(result = "Result<(), ActError>")]
pub struct SetMute(pub Mute);

/// End a mute.
#[derive(Message)]
#[rtype(result = "Result<(), ActError>")]
pub struct LiftMute(pub MuteScope);

/// Take a new configuration.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Reconfigure(pub Box<RouterConfig>);

pub struct AlertRouter {
    router: Router,
    /// Numbers of the alerts that have not ended, by group key.
    ids: HashMap<String, i64>,
    /// The last event that was read.
    cursor: Seq,
    journal: JournalHandle,
    clock: Clock,
    bell: Bell,
    notifications: broadcast::Sender<Arc<Notification>>,
    mutes: Arc<ArcSwap<Vec<Mute>>>,
    at: Arc<watch::Sender<Seq>>,
    stored_at: Timestamp,
    stored: Seq,
    busy: bool,
    again: bool,
    timer: Option<actix::SpawnHandle>,
    _guard: Guard,
}

impl AlertRouter {
    /// Goes on from what is stored; blocks for one short read.
    #[expect(
        clippy::too_many_arguments,
        reason = "an actor is born with everything it will ever need"
    )]
    pub(crate) fn new(
        config: RouterConfig,
        journal: JournalHandle,
        clock: Clock,
        bell: Bell,
        notifications: broadcast::Sender<Arc<Notification>>,
        mutes: Arc<ArcSwap<Vec<Mute>>>,
        at: Arc<watch::Sender<Seq>>,
        guard: Guard,
    ) -> AlertRouter {
        let Restored { router, ids, cursor } = restore(&journal, &config).unwrap_or_else(|error| {
            tracing::error!(%error, "the alert router's state cannot be read, it starts with the present");
            Restored { router: Router::new(config), ids: HashMap::new(), cursor: journal.head() }
        });
        mutes.store(Arc::new(router.mutes().to_vec()));
        AlertRouter {
            stored: cursor,
            cursor,
            stored_at: clock.now(),
            router,
            ids,
            journal,
            clock,
            bell,
            notifications,
            mutes,
            at,
            busy: false,
            again: false,
            timer: None,
            _guard: guard,
        }
    }

    fn catch_up(&mut self, ctx: &mut Context<Self>) {
        self.busy = true;
        self.again = false;
        let (journal, cursor) = (self.journal.clone(), self.cursor);
        let read = async move {
            let facts = tokio::task::spawn_blocking(move || facts_after(&journal, cursor)).await;
            facts.unwrap_or_else(|_| Err(ReadError::Busy))
        };
        ctx.spawn(
            read.into_actor(self)
                .then(|read, actor, _| actor.take(read))
                .map(|more, actor: &mut Self, ctx: &mut Context<Self>| {
                    actor.busy = false;
                    match more {
                        Ok(more) if more || actor.again => ctx.notify(CatchUp),
                        Ok(_) => actor.sleep(ctx),
                        Err(()) => ctx.stop(),
                    }
                }),
        );
    }

    /// Takes what was read and commits what follows. An error: the state is ahead of the store, start over from there.
    fn take(
        &mut self,
        read: Result<Facts, ReadError>,
    ) -> actix::ResponseActFuture<Self, Result<bool, ()>> {
        let facts = match read {
            Ok(facts) => facts,
            Err(error) => {
                tracing::warn!(%error, "could not read the journal, trying again");
                return Box::pin(actix::fut::ready(Err(())));
            }
        };
        let mut decisions = Vec::new();
        for fact in &facts.facts {
            decisions.extend(self.router.handle(fact));
        }
        self.cursor = facts.last;
        let more = facts.more;
        if !more {
            decisions.extend(self.router.tick(self.clock.now()));
        }
        let committed = self.commit(decisions, more);
        Box::pin(committed.into_actor(self).map(move |result, actor, _| match result {
            Ok(()) => {
                actor.at.send_replace(actor.cursor);
                Ok(more)
            }
            // Nothing is lost: they are decided again at the next start.
            Err(error) if actor.journal.is_stopping() => {
                tracing::debug!(%error, "the alert router's last decisions were not recorded");
                Err(())
            }
            Err(error) => {
                tracing::warn!(%error, "the alert router's decisions were not recorded, deciding again from the store");
                Err(())
            }
        }))
    }

    /// Events, alerts, messages, state and cursor in one transaction; nothing when nothing was decided.
    fn commit(
        &mut self,
        decisions: Vec<Decision>,
        more: bool,
    ) -> impl Future<Output = Result<(), ActError>> + use<> {
        let now = self.clock.now();
        let idle = decisions.is_empty();
        let due = more
            || now.duration_since(self.stored_at)
                >= jiff::SignedDuration::try_from(CHECKPOINT).unwrap_or_default();
        let skip = idle && (!due || self.cursor == self.stored);
        let commit = (!skip).then(|| self.transaction(decisions, now));
        let notices: Vec<Notification> = commit
            .iter()
            .flat_map(|(_, notices)| notices.clone())
            .collect();
        let sent = commit.map(|(commit, _)| self.journal.try_commit(Commit::Alerts(commit)));
        if sent.is_some() {
            self.stored = self.cursor;
            self.stored_at = now;
        }
        let (bell, listeners) = (self.bell.clone(), self.notifications.clone());
        async move {
            if let Some(sent) = sent {
                sent?.await?;
                if !notices.is_empty() {
                    bell.ring();
                }
                for notice in notices {
                    // Nobody may be listening.
                    let _ = listeners.send(Arc::new(notice));
                }
            }
            Ok(())
        }
    }

    fn transaction(
        &mut self,
        decisions: Vec<Decision>,
        now: Timestamp,
    ) -> (AlertCommit, Vec<Notification>) {
        let mut commit = AlertCommit {
            events: Vec::new(),
            system: Vec::new(),
            alerts: Vec::new(),
            outbox: Vec::new(),
            outbox_updates: Vec::new(),
            checkpoint: None,
            recorded_at: now,
        };
        let mut notices = Vec::new();
        for decision in decisions {
            match decision {
                Decision::Event { fingerprint, event } => commit.events.push((fingerprint, event)),
                Decision::System(event) => commit.system.push(event),
                Decision::Alert(row) => {
                    let row = self.alert_row(*row);
                    commit.alerts.retain(|known: &AlertRow| known.id != row.id);
                    commit.alerts.push(row);
                }
                Decision::Notify(entry) => {
                    commit.outbox.push(self.outbox_row(&entry, now));
                    if entry.suppressed.is_none() {
                        notices.push(entry.notification);
                    }
                }
            }
        }
        let blob = serde_json::to_vec(self.router.state()).ok();
        commit.checkpoint = Some(Checkpoint {
            name: NAME.to_owned(),
            cursor: self.cursor,
            blob,
        });
        (commit, notices)
    }

    fn alert_row(&mut self, row: router::AlertRow) -> AlertRow {
        let id = match self.ids.get(&row.group_key) {
            Some(id) => *id,
            None => {
                let id = self.journal.next_alert_id();
                self.ids.insert(row.group_key.clone(), id);
                id
            }
        };
        if row.ends_at.is_some() {
            self.ids.remove(&row.group_key);
        }
        AlertRow {
            id,
            uuid: Uuid::new_v5(&self.journal.origin(), row.group_key.as_bytes()),
            fingerprint: row.fingerprint,
            rule: row.rule,
            severity: row.severity,
            status: if row.ends_at.is_some() {
                AlertStatus::Resolved
            } else {
                AlertStatus::Firing
            },
            title: row.title,
            body: row.body,
            labels: row.labels,
            annotations: row.annotations,
            since: row.started_at,
            ends: row.ends_at,
            updated_at: self.clock.now(),
            count: i64::from(row.count),
            executions: row.executions,
            acknowledged_by: row.acknowledged_by,
            acknowledged_at: row.acknowledged_at,
            state: row.reason,
        }
    }

    fn outbox_row(&self, entry: &OutboxEntry, now: Timestamp) -> OutboxRow {
        let suppressed = entry.suppressed.clone();
        OutboxRow {
            id: self.journal.next_outbox_id(),
            alert: self.ids.get(&entry.notification.key).copied(),
            key: entry.notification.key.clone(),
            receiver: entry.receiver.clone(),
            payload: serde_json::to_string(&entry.notification).unwrap_or_default(),
            state: if suppressed.is_some() {
                OutboxState::Suppressed
            } else {
                OutboxState::Queued
            },
            attempts: 0,
            created_at: now,
            next_attempt_at: suppressed.is_none().then_some(now),
            updated_at: now,
            answer: suppressed.map(|by| format!("muted by {by}")),
            receipt: None,
        }
    }

    fn sleep(&mut self, ctx: &mut Context<Self>) {
        if let Some(timer) = self.timer.take() {
            ctx.cancel_future(timer);
        }
        let now = self.clock.now();
        let behind = self.cursor > self.stored;
        let due = self
            .router
            .next_wakeup()
            .map(|at| Duration::try_from(at.duration_since(now)).unwrap_or_default());
        let Some(wait) = due.into_iter().chain(behind.then_some(CHECKPOINT)).min() else {
            return;
        };
        let clock = self.clock.clone();
        // A wake-up that is due at once waits a moment, should a decision ever not change it.
        let slept = async move { clock.sleep(wait.max(Duration::from_millis(5))).await };
        self.timer = Some(ctx.spawn(slept.into_actor(self).map(
            |(), actor: &mut Self, ctx: &mut Context<Self>| {
                actor.timer = None;
                ctx.notify(CatchUp);
            },
        )));
    }

    fn decide(&mut self, decisions: Vec<Decision>) -> AtomicResponse<Self, Result<(), ActError>> {
        let committed = self.commit(decisions, true);
        AtomicResponse::new(Box::pin(committed.into_actor(self).map(
            |result, actor: &mut Self, ctx: &mut Context<Self>| {
                if result.is_err() {
                    ctx.stop();
                } else {
                    actor.mutes.store(Arc::new(actor.router.mutes().to_vec()));
                    ctx.notify(CatchUp);
                }
                result
            },
        )))
    }
}

/// A page of the journal as facts.
struct Facts {
    facts: Vec<Fact>,
    last: Seq,
    more: bool,
}

struct Restored {
    router: Router,
    ids: HashMap<String, i64>,
    cursor: Seq,
}

fn restore(journal: &JournalHandle, config: &RouterConfig) -> Result<Restored, ReadError> {
    let reader = journal.reader()?;
    let stored = reader.checkpoint(NAME)?;
    let cursor = stored.as_ref().map_or(Seq(0), |row| row.cursor);
    let blob = stored.and_then(|row| row.blob);
    let state: RouterState = blob
        .and_then(|blob| serde_json::from_slice(&blob).ok())
        .unwrap_or_default();
    let router = Router::restore(state, config.clone());
    let mut ids = HashMap::new();
    for row in router.open() {
        let uuid = Uuid::new_v5(&journal.origin(), row.group_key.as_bytes());
        if let Some(stored) = reader.alert_by_uuid(uuid)? {
            ids.insert(row.group_key.clone(), stored.id);
        }
    }
    Ok(Restored {
        router,
        ids,
        cursor,
    })
}

fn facts_after(journal: &JournalHandle, cursor: Seq) -> Result<Facts, ReadError> {
    let reader = journal.reader()?;
    let events = reader.events_after(cursor, BATCH)?;
    let more = events.len() == BATCH;
    let last = events.last().map_or(cursor, |e| e.row.seq);
    let mut facts = Vec::new();
    for event in &events {
        if let Some(kind) = fact_kind(&reader, event)? {
            facts.push(Fact {
                seq: event.row.seq,
                at: event.row.at,
                kind,
            });
        }
    }
    Ok(Facts { facts, last, more })
}

fn fact_kind(reader: &Reader, event: &StoredEvent) -> Result<Option<FactKind>, ReadError> {
    Ok(match &event.row.event {
        Event::Alert(..) | Event::Control(..) => None,
        Event::System(system) => FactKind::of_system(system),
        Event::Source(_, source) => event
            .source_name
            .as_deref()
            .and_then(|name| FactKind::of_source(name, source)),
        Event::Execution(seq, execution) => {
            let Some(change) = change_of(execution) else {
                return Ok(None);
            };
            let (mut error, mut step, mut duration, mut late) = (None, None, None, false);
            if let ExecutionEvent::Lost { reason } = execution {
                error = Some(reason.clone());
            }
            if let ExecutionEvent::Finished {
                outcome,
                late: was_late,
                ..
            } = execution
            {
                error.clone_from(&outcome.error);
                late = *was_late;
            }
            let told = matches!(change, Change::Finished(_) | Change::Corrected { .. });
            if told && let Some(stored) = reader.execution(*seq)? {
                duration = stored.record.duration();
                error = stored.record.error.clone().or(error);
                if change != Change::Finished(Status::Completed) {
                    step = stored
                        .steps
                        .iter()
                        .find(|s| s.status == StepStatus::Failed)
                        .map(|s| s.name.to_string());
                }
            }
            Some(FactKind::Execution(Box::new(ExecutionFact {
                uuid: event.execution_uuid.unwrap_or_default(),
                workflow: event.workflow_key.clone().unwrap_or_default(),
                workflow_name: event.workflow_name.clone(),
                source: event.source_name.clone().unwrap_or_default(),
                imported: event.imported,
                late,
                change,
                error,
                step,
                duration,
            })))
        }
    })
}

fn change_of(event: &ExecutionEvent) -> Option<Change> {
    Some(match event {
        ExecutionEvent::Created { .. } => Change::Created,
        ExecutionEvent::Finished { status, .. } => Change::Finished(*status),
        ExecutionEvent::Lost { .. } => Change::Lost,
        ExecutionEvent::Found { status } => Change::Found(*status),
        ExecutionEvent::Corrected { from, to, .. } => Change::Corrected {
            from: *from,
            to: *to,
        },
        ExecutionEvent::Unwatched => Change::Unwatched,
        ExecutionEvent::Watched => Change::Watched,
        _ => return None,
    })
}

/// Messages for receivers that are gone: to the route that now matches, else dead with the reason.
pub(crate) async fn reroute_orphans(
    journal: &JournalHandle,
    config: &RouterConfig,
    now: Timestamp,
) {
    let (handle, receivers, route) = (
        journal.clone(),
        config.receivers.clone(),
        config.route.clone(),
    );
    let looked =
        tokio::task::spawn_blocking(move || handle.reader()?.outbox_orphans(&receivers)).await;
    let Ok(Ok(orphans)) = looked else { return };
    for row in orphans {
        let labels = serde_json::from_str::<Notification>(&row.payload)
            .map(|n| n.common_labels)
            .unwrap_or_default();
        let target = route
            .targets(&labels)
            .into_iter()
            .next()
            .map(|t| t.receiver);
        let update = OutboxUpdate {
            id: row.id,
            state: if target.is_some() {
                OutboxState::Queued
            } else {
                OutboxState::Dead
            },
            attempts: row.attempts,
            next_attempt_at: target.is_some().then_some(now),
            updated_at: now,
            answer: Some(format!(
                "receiver {} was removed from the configuration",
                row.receiver
            )),
            receipt: None,
            receiver: target,
        };
        if let Ok(sent) = journal.try_commit(Commit::Outbox(update)) {
            let _ = sent.await;
        }
    }
}

/// The one message that cannot go through the outbox: the outbox is in the journal that is closed.
pub(crate) fn journal_closed(reason: &str, now: Timestamp) -> Notification {
    let title = "weir's journal is closed".to_owned();
    Notification {
        id: Uuid::now_v7().to_string(),
        key: format!("weir_trouble/journal/{}", now.as_second()),
        severity: Severity::Critical,
        text: format!(
            "{title}: {reason}. Nothing new is recorded or acknowledged until it can be read back from disk."
        ),
        title,
        test: false,
        receiver: String::new(),
        status: AlertStatus::Firing,
        group_labels: Vec::new(),
        common_labels: vec![
            ("rule".to_owned(), "weir_trouble".to_owned()),
            ("subject".to_owned(), "journal".to_owned()),
        ],
        common_annotations: Vec::new(),
        alerts: Vec::new(),
        truncated: 0,
        external_url: None,
    }
}

impl Actor for AlertRouter {
    type Context = Context<AlertRouter>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.at.send_replace(self.cursor);
        follow(self.journal.subscribe(), ctx);
    }
}

impl Handler<CatchUp> for AlertRouter {
    type Result = ();

    fn handle(&mut self, _: CatchUp, ctx: &mut Self::Context) {
        if self.busy {
            self.again = true;
        } else {
            self.catch_up(ctx);
        }
    }
}

impl Handler<Acknowledge> for AlertRouter {
    type Result = AtomicResponse<Self, Result<(), ActError>>;

    fn handle(&mut self, ack: Acknowledge, _: &mut Self::Context) -> Self::Result {
        match self
            .router
            .acknowledge(&ack.fingerprint, &ack.by, self.clock.now())
        {
            Ok(decisions) => self.decide(decisions),
            Err(unknown) => AtomicResponse::new(Box::pin(actix::fut::ready(Err(
                ActError::NotFound(unknown.to_string()),
            )))),
        }
    }
}

impl Handler<SetMute> for AlertRouter {
    type Result = AtomicResponse<Self, Result<(), ActError>>;

    fn handle(&mut self, SetMute(mute): SetMute, _: &mut Self::Context) -> Self::Result {
        let decisions = self.router.mute(mute, self.clock.now());
        self.decide(decisions)
    }
}

impl Handler<LiftMute> for AlertRouter {
    type Result = AtomicResponse<Self, Result<(), ActError>>;

    fn handle(&mut self, LiftMute(scope): LiftMute, _: &mut Self::Context) -> Self::Result {
        let decisions = self
            .router
            .unmute(&scope, self.clock.now())
            .unwrap_or_default();
        self.decide(decisions)
    }
}

impl Handler<Reconfigure> for AlertRouter {
    type Result = ();

    fn handle(&mut self, Reconfigure(config): Reconfigure, ctx: &mut Self::Context) {
        self.router.reconfigure(*config);
        ctx.notify(CatchUp);
    }
}

impl Handler<Panic> for AlertRouter {
    type Result = ();

    fn handle(&mut self, _: Panic, _: &mut Self::Context) {
        panic!("asked to panic by a test");
    }
}
