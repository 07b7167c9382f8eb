//! The metrics aggregator actor: counts the journal from its cursor and shows what it counted.

use crate::cursor::{CatchUp, follow};
use crate::journal::{Checkpoint, Commit, JournalHandle, ReadError, StoredEvent};
use crate::supervise::{Guard, Panic};
use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, WrapFuture};
use arc_swap::ArcSwap;
use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use weir_model::event::{Event, ExecutionEvent, Outcome};
use weir_model::id::{ExecutionSeq, Seq, SourceId, WorkflowId};
use weir_model::metrics::{Aggregate, MetricFact, Metrics};
use weir_model::status::Status;

/// The consumer's name in the store.
const NAME: &str = "metrics";
/// Events read at once.
const BATCH: usize = 1000;
/// Least time between two checkpoints; a large state waits longer, so that storing it stays a small part of the work.
const CHECKPOINT: Duration = Duration::from_secs(1);
const SHARE: u32 = 20;

/// What was counted up to a moment.
#[derive(Clone, Debug, Default)]
pub struct MetricsView {
    pub metrics: Metrics,
    /// Keys of the workflows that were counted.
    pub workflow_keys: BTreeMap<WorkflowId, String>,
    pub source_names: BTreeMap<SourceId, String>,
}

impl MetricsView {
    pub fn overall(&self) -> &Aggregate {
        &self.metrics.overall
    }

    pub fn workflow(&self, id: WorkflowId) -> Option<&Aggregate> {
        self.metrics.workflows.get(&id).map(Arc::as_ref)
    }
}

/// An execution that has not ended, as far as counting needs it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct OpenExecution {
    #[serde(rename = "w")]
    workflow: WorkflowId,
    #[serde(rename = "o")]
    source: SourceId,
    #[serde(rename = "s")]
    status: Status,
    #[serde(rename = "c")]
    created_at: Option<Timestamp>,
    #[serde(rename = "b")]
    started_at: Option<Timestamp>,
    #[serde(rename = "q")]
    waited: bool,
}

/// What is stored with the cursor, as it is read back.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct State {
    metrics: Metrics,
    /// Not closed, or lost: what may still change.
    open: Vec<(ExecutionSeq, OpenExecution)>,
    workflow_keys: Vec<(WorkflowId, String)>,
    source_names: Vec<(SourceId, String)>,
}

/// The same as it is written: nothing is copied for it.
#[derive(Serialize)]
struct StateRef<'a> {
    metrics: &'a Metrics,
    #[serde(serialize_with = "pairs")]
    open: &'a BTreeMap<ExecutionSeq, OpenExecution>,
    #[serde(serialize_with = "pairs")]
    workflow_keys: &'a BTreeMap<WorkflowId, String>,
    #[serde(serialize_with = "pairs")]
    source_names: &'a BTreeMap<SourceId, String>,
}

fn pairs<K: Serialize, V: Serialize, S: Serializer>(
    map: &&BTreeMap<K, V>,
    to: S,
) -> Result<S::Ok, S::Error> {
    to.collect_seq(map.iter())
}

pub struct MetricsAggregator {
    view: MetricsView,
    open: BTreeMap<ExecutionSeq, OpenExecution>,
    cursor: Seq,
    stored: Seq,
    next_checkpoint: Instant,
    blob_len: usize,
    next_publish: Instant,
    journal: JournalHandle,
    shown: Arc<ArcSwap<MetricsView>>,
    at: Arc<watch::Sender<Seq>>,
    busy: bool,
    again: bool,
    timer: bool,
    _guard: Guard,
}

impl MetricsAggregator {
    /// Goes on from what is stored; blocks for one short read.
    pub fn new(
        journal: JournalHandle,
        shown: Arc<ArcSwap<MetricsView>>,
        at: Arc<watch::Sender<Seq>>,
        guard: Guard,
    ) -> MetricsAggregator {
        let (cursor, state) = restore(&journal).unwrap_or_else(|error| {
            tracing::error!(%error, "the metrics cannot be read, counting begins with the present");
            (journal.head(), State::default())
        });
        let view = MetricsView {
            metrics: state.metrics,
            workflow_keys: state.workflow_keys.into_iter().collect(),
            source_names: state.source_names.into_iter().collect(),
        };
        shown.store(Arc::new(view.clone()));
        MetricsAggregator {
            view,
            open: state.open.into_iter().collect(),
            cursor,
            stored: cursor,
            next_checkpoint: Instant::now(),
            blob_len: 0,
            next_publish: Instant::now(),
            journal,
            shown,
            at,
            busy: false,
            again: false,
            timer: false,
            _guard: guard,
        }
    }

    fn catch_up(&mut self, ctx: &mut Context<Self>) {
        self.busy = true;
        self.again = false;
        let (journal, cursor) = (self.journal.clone(), self.cursor);
        let read = async move {
            let read =
                tokio::task::spawn_blocking(move || journal.reader()?.events_after(cursor, BATCH))
                    .await;
            read.unwrap_or(Err(ReadError::Busy))
        };
        ctx.spawn(
            read.into_actor(self)
                .map(|read, actor: &mut Self, ctx: &mut Context<Self>| {
                    actor.busy = false;
                    match read {
                        Ok(events) => actor.take(&events, ctx),
                        Err(error) => {
                            tracing::warn!(%error, "could not read the journal, trying again");
                            ctx.stop();
                        }
                    }
                }),
        );
    }

    fn take(&mut self, events: &[StoredEvent], ctx: &mut Context<Self>) {
        for event in events {
            self.count(event);
            self.cursor = event.row.seq;
        }
        let more = events.len() == BATCH;
        if Instant::now() >= self.next_checkpoint {
            self.checkpoint();
        }
        if more || self.again {
            ctx.notify(CatchUp);
        }
        if !more {
            self.publish(ctx);
        }
    }

    /// Shows what was counted. A view that is costly to copy is shown less often.
    fn publish(&mut self, ctx: &mut Context<Self>) {
        let begun = Instant::now();
        if begun < self.next_publish {
            self.wake_later(self.next_publish - begun, ctx);
            return;
        }
        self.shown.store(Arc::new(self.view.clone()));
        self.at.send_replace(self.cursor);
        self.next_publish = Instant::now() + begun.elapsed() * SHARE;
        if self.cursor > self.stored {
            self.wake_later(CHECKPOINT, ctx);
        }
    }

    fn wake_later(&mut self, wait: Duration, ctx: &mut Context<Self>) {
        if !std::mem::replace(&mut self.timer, true) {
            ctx.run_later(wait, |actor, ctx| {
                actor.timer = false;
                ctx.notify(CatchUp);
            });
        }
    }

    fn checkpoint(&mut self) {
        if self.cursor == self.stored {
            return;
        }
        let begun = Instant::now();
        let state = StateRef {
            metrics: &self.view.metrics,
            open: &self.open,
            workflow_keys: &self.view.workflow_keys,
            source_names: &self.view.source_names,
        };
        // About as large as the last one.
        let mut blob = Vec::with_capacity(self.blob_len + self.blob_len / 8);
        let blob = serde_json::to_writer(&mut blob, &state).ok().map(|()| blob);
        self.blob_len = blob.as_ref().map_or(0, Vec::len);
        let checkpoint = Checkpoint {
            name: NAME.to_owned(),
            cursor: self.cursor,
            blob,
        };
        // A checkpoint that is not stored costs a little reading after the next start.
        if self
            .journal
            .try_commit(Commit::Checkpoint(checkpoint))
            .is_ok()
        {
            self.stored = self.cursor;
        }
        self.next_checkpoint = Instant::now() + CHECKPOINT.max(begun.elapsed() * SHARE);
    }

    fn count(&mut self, stored: &StoredEvent) {
        let Event::Execution(seq, event) = &stored.row.event else {
            return;
        };
        let (Some(workflow), Some(source)) = (stored.row.workflow, stored.source) else {
            return;
        };
        if let ExecutionEvent::Created { created_at, .. } = event {
            if let Some(key) = &stored.workflow_key {
                self.view
                    .workflow_keys
                    .entry(workflow)
                    .or_insert_with(|| key.clone());
            }
            if let Some(name) = &stored.source_name {
                self.view
                    .source_names
                    .entry(source)
                    .or_insert_with(|| name.clone());
            }
            let open = OpenExecution {
                workflow,
                source,
                status: Status::Pending,
                created_at: *created_at,
                started_at: None,
                waited: false,
            };
            self.open.insert(*seq, open);
            self.observe(open, stored.imported, None, Status::Pending, (None, None));
            return;
        }
        let mut open = self.open.get(seq).copied().unwrap_or(OpenExecution {
            workflow,
            source,
            status: match event {
                ExecutionEvent::Corrected { from, .. } => *from,
                _ => Status::Pending,
            },
            created_at: None,
            started_at: None,
            waited: true,
        });
        let Some(to) = entered(event) else { return };
        let from = open.status;
        let duration = open.take(event, stored.row.at);
        let wait = open.wait();
        open.status = to;
        self.observe(open, stored.imported, Some(from), to, (duration, wait));
        if to.is_final() {
            self.open.remove(seq);
        } else {
            self.open.insert(*seq, open);
        }
    }

    fn observe(
        &mut self,
        open: OpenExecution,
        imported: bool,
        from: Option<Status>,
        to: Status,
        (duration, queue_wait): (Option<Duration>, Option<Duration>),
    ) {
        self.view.metrics.observe(&MetricFact {
            workflow: open.workflow,
            source: open.source,
            imported,
            from,
            to,
            duration,
            queue_wait,
        });
    }
}

impl OpenExecution {
    /// Takes the times an event tells. Returns from start to end where it ended.
    fn take(&mut self, event: &ExecutionEvent, at: Timestamp) -> Option<Duration> {
        match event {
            ExecutionEvent::Started { started_at, .. } => {
                self.started_at = started_at.or(self.started_at).or(Some(at));
                None
            }
            ExecutionEvent::Finished { outcome, .. }
            | ExecutionEvent::Corrected { outcome, .. } => {
                let Outcome {
                    started_at,
                    completed_at,
                    ..
                } = outcome;
                self.started_at = started_at.or(self.started_at);
                span(self.started_at?, completed_at.unwrap_or(at))
            }
            _ => None,
        }
    }

    /// From creation to start, once.
    fn wait(&mut self) -> Option<Duration> {
        if self.waited {
            return None;
        }
        let wait = span(self.created_at?, self.started_at?);
        self.waited = true;
        wait
    }
}

fn span(from: Timestamp, to: Timestamp) -> Option<Duration> {
    Some(Duration::try_from(to.duration_since(from)).unwrap_or_default())
}

/// The status an event leads to; none for events that change none.
fn entered(event: &ExecutionEvent) -> Option<Status> {
    Some(match event {
        ExecutionEvent::Pending => Status::Pending,
        ExecutionEvent::Queued => Status::Queued,
        ExecutionEvent::Initializing => Status::Initializing,
        ExecutionEvent::Started { .. } => Status::Running,
        ExecutionEvent::Completing => Status::Completing,
        ExecutionEvent::Paused => Status::Paused,
        ExecutionEvent::Cancelling => Status::Cancelling,
        ExecutionEvent::Finished { status, .. } => *status,
        ExecutionEvent::Lost { .. } => Status::Lost,
        ExecutionEvent::Found { status } if !status.is_closed() => *status,
        ExecutionEvent::Corrected { to, .. } => *to,
        _ => return None,
    })
}

fn restore(journal: &JournalHandle) -> Result<(Seq, State), ReadError> {
    let stored = journal.reader()?.checkpoint(NAME)?;
    let Some(row) = stored else {
        return Ok((Seq(0), State::default()));
    };
    let state = row
        .blob
        .and_then(|blob| serde_json::from_slice(&blob).ok())
        .unwrap_or_default();
    Ok((row.cursor, state))
}

impl Actor for MetricsAggregator {
    type Context = Context<MetricsAggregator>;

    fn started(&mut self, ctx: &mut Self::Context) {
        follow(self.journal.subscribe(), ctx);
    }

    fn stopping(&mut self, _: &mut Self::Context) -> actix::Running {
        self.checkpoint();
        actix::Running::Stop
    }
}

impl Handler<CatchUp> for MetricsAggregator {
    type Result = ();

    fn handle(&mut self, _: CatchUp, ctx: &mut Self::Context) {
        if self.busy {
            self.again = true;
        } else {
            self.catch_up(ctx);
        }
    }
}

impl Handler<Panic> for MetricsAggregator {
    type Result = ();

    fn handle(&mut self, _: Panic, _: &mut Self::Context) {
        panic!("asked to panic by a test");
    }
}
