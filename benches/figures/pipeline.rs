//! The pipeline: observations into workflow actors, out again once they are on disk, against a bare SQLite loop.

use crate::child::Usage;
use crate::table::Figure;
use crate::{Scale, bare, store};
use actix::{Actor, Addr};
use jiff::{SignedDuration, Timestamp};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use uuid::Uuid;
use weir_core::clock::Clock;
use weir_core::journal::{
    Commit, Durability, Journal, JournalHandle, JournalOptions, Retention, SourceCommit, SourceRow,
};
use weir_core::live::Board;
use weir_core::registry::Registry;
use weir_core::supervise::Slot;
use weir_core::workflow::{NotRecorded, Observe, ObserveAll, Seen, WorkflowActor, fresh};
use weir_model::id::{RunKey, SourceId};
use weir_model::observation::{Job, JobState, JobStep, StepState};
use weir_model::workflow::Contact;

const WORKFLOWS: usize = 256;
/// Observations on their way per workflow, at two events each: 8 192 events.
const IN_FLIGHT: usize = 16;
/// Executions of a workflow whose observations are made ahead, so that making them is not measured.
const AHEAD: usize = 12;
/// Turns of both loops.
const ROUNDS: usize = 5;
/// The source that every execution came from.
pub(crate) const SOURCE: &str = "studio";

/// What goes through the pipeline.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) executions: usize,
    pub(crate) steps: usize,
    pub(crate) durability: Durability,
}

/// What it took and left.
pub(crate) struct Run {
    pub(crate) path: PathBuf,
    pub(crate) executions: usize,
    pub(crate) events: u64,
    pub(crate) batches: u64,
    pub(crate) took: Duration,
    /// Time on any processor.
    pub(crate) cpu: Duration,
    pub(crate) commit: (Duration, Duration),
}

impl Run {
    pub(crate) fn per_second(&self) -> f64 {
        self.events as f64 / self.took.as_secs_f64()
    }

    fn processor_micros(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.events as f64
    }
}

pub(crate) fn figures(scale: Scale) -> Vec<Figure> {
    let mut figures = vec![
        against_bare(scale, Durability::Power),
        against_bare(scale, Durability::Process),
    ];
    let (p50, p99) = store::fdatasync();
    let name = "fdatasync of one page on this disk, p50";
    figures.push(Figure::beside(name, p50.as_secs_f64() * 1e3, "ms").note(format!("p99 {p99:?}")));
    figures
}

/// Both loops take turns on the same disk, so that what else runs there meets both; the middle ratio counts.
fn against_bare(scale: Scale, durability: Durability) -> Figure {
    let executions = scale.of(4 * AHEAD * WORKFLOWS, WORKFLOWS);
    let load = Load {
        executions,
        steps: 10,
        durability,
    };
    let round = |_| {
        let (ours, theirs) = (store::temporary(), store::temporary());
        let run = run(ours.path(), load);
        let bare = bare::run(&run, theirs.path(), durability);
        (run.per_second() / bare.per_second(), run, bare)
    };
    let mut rounds: Vec<(f64, Run, Run)> = (0..scale.of(ROUNDS, 1)).map(round).collect();
    rounds.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (ratio, run, bare) = &rounds[rounds.len() / 2];
    let note = format!(
        "{:.0} of {:.0} events/s, {:.1} of {:.1} µs of processor an event; {:.0} events a commit, p50 {:?}, p99 {:?}; \
         {} rounds from {:.2} to {:.2}",
        run.per_second(),
        bare.per_second(),
        run.processor_micros(),
        bare.processor_micros(),
        run.events as f64 / run.batches as f64,
        run.commit.0,
        run.commit.1,
        rounds.len(),
        rounds[0].0,
        rounds[rounds.len() - 1].0,
    );
    let name = format!("pipeline against bare SQLite, {durability:?}");
    let figure = match durability {
        Durability::Power => Figure::at_least(name, *ratio, "x", 0.5),
        Durability::Process => Figure::beside(name, *ratio, "x"),
    };
    figure.note(note)
}

/// Drives the load through workflow actors, with an actix system of its own as in the daemon.
pub(crate) fn run(dir: &Path, load: Load) -> Run {
    let options = JournalOptions {
        durability: load.durability,
        retention: Retention {
            age: None,
            size: None,
        },
        ..JournalOptions::new(dir.to_owned(), Arc::new(Timestamp::now))
    };
    let journal = Journal::open(options).unwrap();
    let handle = journal.handle();
    let source = store_source(&handle);
    let system = actix::System::new();
    let before = handle.counters();
    let (took, cpu) = system.block_on(async { drive(&handle, source, load).await });
    let counters = handle.counters();
    let path = handle.path().to_owned();
    drop(handle);
    drop(journal);
    Run {
        path,
        executions: load.executions,
        events: counters.events - before.events,
        batches: counters.batches - before.batches,
        took,
        cpu,
        commit: (
            counters.sync_p50.unwrap_or_default(),
            counters.sync_p99.unwrap_or_default(),
        ),
    }
}

fn store_source(handle: &JournalHandle) -> SourceId {
    let now = Timestamp::now();
    let row = SourceRow {
        id: handle.next_source_id(),
        name: SOURCE.to_owned(),
        plugin: "comfyui".to_owned(),
        generation: 1,
        config_hash: None,
        created_at: now,
        first_contact_at: Some(now),
        contact_at: Some(now),
        stale_since: None,
        stale_error: None,
        suspect: false,
        configured: true,
        forgotten_before: None,
        complete_round: None,
    };
    let id = row.id;
    let commit = SourceCommit {
        row,
        cursor: None,
        events: Vec::new(),
        recorded_at: now,
    };
    handle.commit_blocking(Commit::Source(commit)).unwrap();
    id
}

/// Returns the time, and that on any processor, without the making of observations.
async fn drive(handle: &JournalHandle, source: SourceId, load: Load) -> (Duration, Duration) {
    let registry: Slot<Registry> = Slot::empty("registry");
    let actors: Vec<Addr<WorkflowActor>> = (0..WORKFLOWS)
        .map(|n| {
            let stored = fresh(handle.next_workflow_id(), &format!("workflow {n}"));
            let (journal, idle) = (handle.clone(), Duration::from_secs(3600));
            let actor = WorkflowActor::new(
                stored,
                1,
                journal,
                registry.clone(),
                Board::default(),
                Clock::default(),
                idle,
            );
            actor.start()
        })
        .collect();
    let (mut took, mut cpu) = (Duration::ZERO, Duration::ZERO);
    let mut left = load.executions;
    while left > 0 {
        let now = left.min(WORKFLOWS * AHEAD);
        left -= now;
        let made: Vec<_> = (0..WORKFLOWS)
            .map(|n| {
                let share = now / WORKFLOWS + usize::from(n < now % WORKFLOWS);
                (0..share)
                    .flat_map(|_| watched(source, load.steps))
                    .collect::<Vec<_>>()
            })
            .collect();
        let (begun, used) = (Instant::now(), Usage::of_self().cpu);
        let driven = actors
            .iter()
            .zip(made)
            .map(|(actor, made)| actix::spawn(observe(actor.clone(), made)));
        for driven in driven.collect::<Vec<_>>() {
            driven.await.unwrap();
        }
        took += begun.elapsed();
        cpu += Usage::of_self().cpu - used;
    }
    (took, cpu)
}

type Made = (Observe, oneshot::Receiver<Result<(), NotRecorded>>);

/// One workflow's observations in order, so many of them at once unacknowledged.
async fn observe(actor: Addr<WorkflowActor>, made: Vec<Made>) {
    let mut waiting = VecDeque::with_capacity(IN_FLIGHT);
    for (observe, acked) in made {
        if waiting.len() >= IN_FLIGHT {
            acknowledged(waiting.pop_front()).await;
        }
        actor.try_send(ObserveAll(vec![observe])).unwrap();
        waiting.push_back(acked);
    }
    while !waiting.is_empty() {
        acknowledged(waiting.pop_front()).await;
    }
}

async fn acknowledged(ack: Option<oneshot::Receiver<Result<(), NotRecorded>>>) {
    ack.unwrap().await.unwrap().unwrap();
}

/// What a source sees of one execution from its first step to its end.
fn watched(source: SourceId, steps: usize) -> Vec<Made> {
    // As ComfyUI names things: the prompt's id is a random UUID, steps are numbers with class names.
    let created = Timestamp::now()
        .checked_sub(SignedDuration::from_hours(1))
        .unwrap();
    let key = RunKey {
        source,
        external_id: Uuid::new_v4().to_string(),
        run: format!("1/{}", created.as_millisecond()),
    };
    let seen = (0..=steps).map(|done| {
        let (ack, acked) = oneshot::channel();
        let seen = Seen::Job(
            Box::new(job(&key, created, steps, done)),
            Contact::default(),
        );
        (
            Observe {
                key: key.clone(),
                seen,
                known: None,
                ack,
            },
            acked,
        )
    });
    seen.collect()
}

/// A job of `steps` steps of which `done` are done and the next one runs.
fn job(key: &RunKey, created: Timestamp, steps: usize, done: usize) -> Job {
    let at = |step: usize| {
        created
            .checked_add(SignedDuration::from_millis(1_234 * step as i64))
            .unwrap()
    };
    let step = |n: usize| JobStep {
        id: (n + 3).to_string(),
        name: "CLIPTextEncode".to_owned(),
        state: match n {
            n if n < done => StepState::Completed,
            n if n == done => StepState::Running,
            _ => StepState::Pending,
        },
        started: (n <= done).then(|| at(n)),
        finished: (n < done).then(|| at(n + 1)),
        done: None,
        total: None,
        error: None,
    };
    let ended = done == steps;
    Job {
        id: key.external_id.clone(),
        run: Some(key.run.clone()),
        workflow: None,
        state: if ended {
            JobState::Completed
        } else {
            JobState::Running
        },
        name: None,
        position: None,
        created: Some(created),
        started: Some(created),
        finished: ended.then(|| at(steps)),
        steps: (0..steps).map(step).collect(),
        error: None,
        labels: Vec::new(),
        detail: "{}".to_owned(),
    }
}

/// A running job of ten steps, the first of them in progress.
pub(crate) fn running_job(id: &str, workflow: String) -> Job {
    let key = RunKey {
        source: SourceId(0),
        external_id: id.to_owned(),
        run: String::new(),
    };
    Job {
        run: None,
        workflow: Some(workflow),
        ..job(&key, Timestamp::now(), 10, 0)
    }
}
