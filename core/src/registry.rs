//! The registry: finds, spawns and lets go of workflow actors. It alone holds their addresses.

use crate::clock::Clock;
use crate::journal::{JournalHandle, ReadError, Reader, StoredExecution};
use crate::live::Board;
use crate::supervise::{Guard, Panic, Slot};
use crate::workflow::{NotRecorded, Observe, ObserveAll, Seen, Stop, Stored, WorkflowActor, fresh};
use actix::{Actor, Addr, AtomicResponse, Context, Handler, Message, WrapFuture};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use weir_model::id::{ExecutionSeq, RunKey, WorkflowId};
use weir_model::workflow::{Execution, Live, Workflow};

/// Pages that may wait here; sources wait for room.
const MAILBOX: usize = 64;

/// One observation on its way to the workflow it belongs to.
#[derive(Debug)]
pub struct Routed {
    pub key: RunKey,
    /// Key of the workflow, for a run that nobody has seen yet.
    pub workflow: String,
    pub seen: Seen,
}

pub type Acks = Vec<oneshot::Receiver<Result<(), NotRecorded>>>;

/// Route one page of a source. Answered once every observation is delivered; each is acknowledged when durable.
///
/// Pages are resolved one after the other, so that no workflow or run is created twice.
#[derive(Message)]
#[rtype(result = "Result<Acks, NotRecorded>")]
pub struct Route(pub Vec<Routed>);

/// A workflow actor has nothing open and asks to be let go.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Passivate {
    pub id: WorkflowId,
    pub life: u64,
    pub handled: u64,
}

/// A workflow actor is gone, stopped or panicked.
#[derive(Message)]
#[rtype(result = "()")]
pub struct WorkflowGone {
    pub id: WorkflowId,
    pub life: u64,
    pub panicked: bool,
}

/// Make the actor of this workflow panic (tests).
#[derive(Message)]
#[rtype(result = "bool")]
pub struct PanicWorkflow(pub String);

/// How many workflow actors live.
#[derive(Message)]
#[rtype(result = "usize")]
pub struct CountWorkflows;

struct Entry {
    addr: Addr<WorkflowActor>,
    key: Arc<str>,
    life: u64,
    /// Messages sent to this life.
    sent: u64,
}

/// What every actor of the corridor is born with.
#[derive(Clone)]
pub struct Corridor {
    pub journal: JournalHandle,
    pub board: Board,
    pub clock: Clock,
    pub passivate_after: Duration,
}

pub struct Registry {
    corridor: Corridor,
    this: Slot<Registry>,
    live: HashMap<WorkflowId, Entry>,
    by_key: HashMap<Arc<str>, WorkflowId>,
    lives: u64,
    _guard: Guard,
}

/// What the store knows of a page.
#[derive(Default)]
struct Resolution {
    runs: HashMap<RunKey, (WorkflowId, Box<Execution>)>,
    /// Workflows without a living actor, by key.
    stored: HashMap<WorkflowId, Stored>,
    ids: HashMap<String, WorkflowId>,
}

impl Registry {
    pub fn new(corridor: Corridor, this: Slot<Registry>, guard: Guard) -> Registry {
        Registry {
            corridor,
            this,
            live: HashMap::new(),
            by_key: HashMap::new(),
            lives: 0,
            _guard: guard,
        }
    }

    /// Hands the page out, one message per workflow in the page's order.
    fn deliver(
        &mut self,
        page: Vec<Routed>,
        mut resolution: Resolution,
    ) -> (Acks, Vec<(WorkflowId, Vec<Observe>)>) {
        let mut acks = Vec::with_capacity(page.len());
        let mut batches: Vec<(WorkflowId, Vec<Observe>)> = Vec::new();
        let mut place: HashMap<WorkflowId, usize> = HashMap::new();
        for routed in page {
            let (id, known) = match resolution.runs.remove(&routed.key) {
                Some((id, known)) => (id, Some(known)),
                None => (self.workflow_id(&routed.workflow, &resolution), None),
            };
            if !self.live.contains_key(&id) {
                let stored = resolution
                    .stored
                    .remove(&id)
                    .unwrap_or_else(|| fresh(id, &routed.workflow));
                self.spawn(id, stored);
            }
            let (ack, acked) = oneshot::channel();
            acks.push(acked);
            let at = *place.entry(id).or_insert_with(|| {
                batches.push((id, Vec::new()));
                batches.len() - 1
            });
            batches[at].1.push(Observe {
                key: routed.key,
                seen: routed.seen,
                known,
                ack,
            });
        }
        (acks, batches)
    }

    fn workflow_id(&mut self, key: &str, resolution: &Resolution) -> WorkflowId {
        if let Some(id) = resolution.ids.get(key).or_else(|| self.by_key.get(key)) {
            return *id;
        }
        let id = self.corridor.journal.next_workflow_id();
        self.by_key.insert(key.into(), id);
        id
    }

    fn spawn(&mut self, id: WorkflowId, stored: Stored) {
        self.lives += 1;
        let key: Arc<str> = stored.machine.key.as_str().into();
        self.by_key.insert(key.clone(), id);
        let corridor = self.corridor.clone();
        let actor = WorkflowActor::new(
            stored,
            self.lives,
            corridor.journal,
            self.this.clone(),
            corridor.board,
            corridor.clock,
            corridor.passivate_after,
        );
        self.live.insert(
            id,
            Entry {
                addr: actor.start(),
                key,
                life: self.lives,
                sent: 0,
            },
        );
    }

    fn let_go(&mut self, id: WorkflowId, life: u64) -> Option<Addr<WorkflowActor>> {
        if self.live.get(&id)?.life != life {
            return None;
        }
        let entry = self.live.remove(&id)?;
        self.by_key.remove(&entry.key);
        Some(entry.addr)
    }
}

/// Looks a page up in the store, on a blocking thread. Returns the workflows it is about beside what was found.
fn resolve(
    reader: &Reader,
    page: &[Routed],
    known_keys: &HashSet<String>,
) -> Result<(Resolution, HashSet<WorkflowId>), ReadError> {
    let mut resolution = Resolution::default();
    let mut wanted: HashSet<WorkflowId> = HashSet::new();
    for routed in page {
        if let Some(stored) = reader.execution_by_key(&routed.key)? {
            let id = stored.workflow.id;
            resolution.runs.insert(
                routed.key.clone(),
                (id, Box::new(machine_execution(stored))),
            );
            wanted.insert(id);
        } else if !known_keys.contains(&routed.workflow)
            && !resolution.ids.contains_key(&routed.workflow)
            && let Some(row) = reader.workflow_by_key(&routed.workflow)?
        {
            resolution.ids.insert(routed.workflow.clone(), row.id);
            wanted.insert(row.id);
        }
    }
    Ok((resolution, wanted))
}

/// Workflows as the store has them, for those whose actor is not alive.
fn load(reader: &Reader, missing: &[WorkflowId]) -> Result<HashMap<WorkflowId, Stored>, ReadError> {
    let mut stored = HashMap::new();
    for id in missing {
        if let Some(row) = reader.workflow(*id)? {
            let mut machine = Workflow::new(*id, row.key);
            machine.last_number = row.last_number;
            let mut after = ExecutionSeq(0);
            loop {
                let page = reader.open_of_workflow(*id, after)?;
                let Some(last) = page.last() else { break };
                after = last.record.seq;
                page.into_iter()
                    .for_each(|stored| machine.adopt(machine_execution(stored)));
            }
            let (name, version) = (row.name, row.version);
            stored.insert(
                *id,
                Stored {
                    machine,
                    name,
                    version,
                },
            );
        }
    }
    Ok(stored)
}

/// Reads on a blocking thread.
async fn read<T: Send + 'static>(
    journal: JournalHandle,
    with: impl FnOnce(&Reader) -> Result<T, ReadError> + Send + 'static,
) -> Result<T, NotRecorded> {
    match tokio::task::spawn_blocking(move || with(&journal.reader()?)).await {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(error)) => Err(NotRecorded(error.to_string())),
        Err(_) => Err(NotRecorded("the lookup was cut off".into())),
    }
}

/// An execution as its machine holds it, with the progress that was last checkpointed.
fn machine_execution(stored: StoredExecution) -> Execution {
    let live = Live {
        progress: stored.progress.progress,
        note: stored.progress.note,
        position: stored.progress.position,
        fractions: Vec::new(),
    };
    Execution {
        record: stored.record,
        steps: stored.steps,
        live,
    }
}

impl Actor for Registry {
    type Context = Context<Registry>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
    }
}

impl Drop for Registry {
    /// Workflow actors without a registry would never be found again: they end, and are rebuilt on demand.
    fn drop(&mut self) {
        for entry in self.live.values() {
            entry.addr.do_send(Stop);
        }
    }
}

impl Handler<Route> for Registry {
    type Result = AtomicResponse<Self, Result<Acks, NotRecorded>>;

    fn handle(&mut self, Route(page): Route, _: &mut Self::Context) -> Self::Result {
        use actix::ActorFutureExt;
        let journal = self.corridor.journal.clone();
        let known_keys: HashSet<String> = page
            .iter()
            .filter(|r| {
                let id = self.by_key.get(&*r.workflow);
                id.is_some_and(|id| self.live.contains_key(id))
            })
            .map(|r| r.workflow.clone())
            .collect();
        let looked_up = read(journal.clone(), move |reader| {
            let (resolution, wanted) = resolve(reader, &page, &known_keys)?;
            Ok((page, resolution, wanted))
        });
        // Nothing else is handled meanwhile: who lives now lives when the page is delivered.
        let loaded = looked_up.into_actor(self).then(|found, registry, _| {
            let missing = found.as_ref().map_or(Vec::new(), |(_, _, wanted)| {
                let dead = |id: &&WorkflowId| !registry.live.contains_key(id);
                wanted.iter().filter(dead).copied().collect()
            });
            async move {
                let (page, mut resolution, _) = found?;
                if !missing.is_empty() {
                    resolution.stored = read(journal, move |reader| load(reader, &missing)).await?;
                }
                Ok((page, resolution))
            }
            .into_actor(registry)
        });
        AtomicResponse::new(Box::pin(loaded.then(|found, registry, _| {
            let delivery = found.map(|(page, resolution)| {
                let (acks, batches) = registry.deliver(page, resolution);
                let mut sends = Vec::new();
                for (id, batch) in batches {
                    if let Some(entry) = registry.live.get_mut(&id) {
                        entry.sent += 1;
                        sends.push(entry.addr.send(ObserveAll(batch)));
                    }
                }
                (acks, sends)
            });
            async move {
                let (acks, sends) = delivery?;
                // An actor that died meanwhile drops its acks: the source hears it there.
                futures::future::join_all(sends).await;
                Ok(acks)
            }
            .into_actor(registry)
        })))
    }
}

impl Handler<Passivate> for Registry {
    type Result = ();

    fn handle(&mut self, ask: Passivate, _: &mut Self::Context) {
        let quiet = self
            .live
            .get(&ask.id)
            .is_some_and(|e| e.life == ask.life && e.sent == ask.handled);
        // Nothing is on its way: only this registry sends, and everything it sent was handled.
        if quiet && let Some(addr) = self.let_go(ask.id, ask.life) {
            addr.do_send(Stop);
        }
    }
}

impl Handler<WorkflowGone> for Registry {
    type Result = ();

    fn handle(&mut self, gone: WorkflowGone, _: &mut Self::Context) {
        if gone.panicked {
            tracing::error!(workflow = %gone.id, "workflow actor panicked; the next observation rebuilds it");
        }
        self.let_go(gone.id, gone.life);
    }
}

impl Handler<PanicWorkflow> for Registry {
    type Result = bool;

    fn handle(&mut self, PanicWorkflow(key): PanicWorkflow, _: &mut Self::Context) -> bool {
        let entry = self.by_key.get(&*key).and_then(|id| self.live.get(id));
        entry.is_some_and(|entry| entry.addr.try_send(Panic).is_ok())
    }
}

impl Handler<CountWorkflows> for Registry {
    type Result = usize;

    fn handle(&mut self, _: CountWorkflows, _: &mut Self::Context) -> usize {
        self.live.len()
    }
}

impl Handler<Panic> for Registry {
    type Result = ();

    fn handle(&mut self, _: Panic, _: &mut Self::Context) {
        panic!("asked to panic by a test");
    }
}
