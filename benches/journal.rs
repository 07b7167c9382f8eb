//! The journal's figures: durable events per second against a bare SQLite loop, and bytes per step.
//!
//! `WEIR_BENCH_SCALE` (1 by default) scales the amount of work; both loops of a ratio run on the same disk.

#![expect(clippy::print_stdout, reason = "a bench prints its table")]
#![expect(clippy::unwrap_used, reason = "a bench that fails shall say where")]

use jiff::Timestamp;
use rusqlite::types::Value;
use rusqlite::{Connection, TransactionBehavior, params_from_iter};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{Seek, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use uuid::Uuid;
use weir_core::journal::{
    Append, Commit, CommitFuture, Durability, ExecutionFilter, Journal, JournalHandle,
    JournalOptions, Retention,
};
use weir_model::event::{DeclaredStep, ExecutionEvent, Outcome};
use weir_model::id::{ExecutionSeq, RunKey, SourceId};
use weir_model::status::{Status, StepStatus};
use weir_model::workflow::Workflow;

/// Executions at scale 1: a million events at ten steps each.
const EXECUTIONS: f64 = 42_000.0;
const WORKFLOWS: usize = 256;
/// Appends that wait for their acknowledgement, at two events each.
const IN_FLIGHT: usize = 2048;
/// Appends made ahead, so that making them is not measured.
const CHUNK: usize = 20_000;
/// Events in a transaction of the bare loop.
const BARE_BATCH: usize = 1000;
const START: i64 = 1_767_225_600_000_000;

fn main() {
    let scale: f64 = std::env::var("WEIR_BENCH_SCALE")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1.0);
    let executions = ((EXECUTIONS * scale) as usize).max(WORKFLOWS);
    let mut failed = false;
    println!("journal, {executions} executions of 10 steps over {WORKFLOWS} workflows");
    for durability in [Durability::Power, Durability::Process] {
        let ours = run_journal(durability, executions, 10);
        let bare = run_bare(durability, &ours.dir);
        let ratio = ours.per_second() / bare.per_second();
        println!(
            "  {durability:?}: journal {:>9.0} events/s   bare {:>9.0} events/s   ratio {ratio:.2}",
            ours.per_second(),
            bare.per_second()
        );
        println!(
            "    commit p50 {:?}, p99 {:?}; {:.0} events a transaction",
            ours.sync.0,
            ours.sync.1,
            ours.events as f64 / ours.batches as f64
        );
        failed |= durability == Durability::Power && ratio < 0.5 && scale >= 0.1;
        if durability == Durability::Power {
            print_bytes(&ours, 10, 400.0);
            print_open(&ours);
        }
    }
    let short = run_journal(Durability::Process, executions, 3);
    print_bytes(&short, 3, 600.0);
    let (p50, p99) = fdatasync();
    println!("  fdatasync of one page on this disk: p50 {p50:?}, p99 {p99:?}");
    if failed {
        println!("a figure is below its target");
        std::process::exit(1);
    }
}

/// What one run took and left.
struct Run {
    dir: TempDir,
    executions: usize,
    events: u64,
    batches: u64,
    took: Duration,
    sync: (Duration, Duration),
}

impl Run {
    fn per_second(&self) -> f64 {
        self.events as f64 / self.took.as_secs_f64()
    }
}

fn temporary() -> TempDir {
    // Beside the build, not in /tmp: that may be memory.
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn options(dir: &Path, durability: Durability) -> JournalOptions {
    JournalOptions {
        durability,
        retention: Retention {
            age: None,
            size: None,
        },
        ..JournalOptions::new(dir.to_owned(), Arc::new(Timestamp::now))
    }
}

fn run_journal(durability: Durability, executions: usize, steps: u32) -> Run {
    let dir = temporary();
    let journal = Journal::open(options(dir.path(), durability)).unwrap();
    let handle = journal.handle();
    let mut load = Load::new(&handle, executions, steps);
    let mut took = Duration::ZERO;
    loop {
        let chunk = load.chunk(&handle);
        if chunk.is_empty() {
            break;
        }
        let started = Instant::now();
        submit(&handle, chunk);
        took += started.elapsed();
    }
    let counters = handle.counters();
    let zero = Duration::ZERO;
    Run {
        dir,
        executions,
        events: counters.events,
        batches: counters.batches,
        took,
        sync: (
            counters.sync_p50.unwrap_or(zero),
            counters.sync_p99.unwrap_or(zero),
        ),
    }
}

/// Keeps `IN_FLIGHT` appends on their way and waits for all of them.
fn submit(handle: &JournalHandle, chunk: Vec<Append>) {
    let mut waiting: VecDeque<CommitFuture> = VecDeque::new();
    for append in chunk {
        if waiting.len() >= IN_FLIGHT {
            futures::executor::block_on(waiting.pop_front().unwrap()).unwrap();
        }
        waiting.push_back(handle.try_commit(Commit::Append(append)).unwrap());
    }
    for future in waiting {
        futures::executor::block_on(future).unwrap();
    }
}

/// The appends of workflow actors that watch their jobs: one for each observation that changed something.
struct Load {
    actors: Vec<Actor>,
    steps: u32,
    left: usize,
}

/// A workflow with the one execution that it is at.
struct Actor {
    workflow: Workflow,
    version: i64,
    seq: Option<ExecutionSeq>,
    step: u32,
}

impl Load {
    fn new(handle: &JournalHandle, executions: usize, steps: u32) -> Load {
        let actors = (0..WORKFLOWS)
            .map(|n| Actor {
                workflow: Workflow::new(handle.next_workflow_id(), format!("workflow {n}")),
                version: 0,
                seq: None,
                step: 0,
            })
            .collect();
        Load {
            actors,
            steps,
            left: executions,
        }
    }

    fn chunk(&mut self, handle: &JournalHandle) -> Vec<Append> {
        let mut chunk = Vec::with_capacity(CHUNK);
        while chunk.len() < CHUNK {
            let before = chunk.len();
            for actor in &mut self.actors {
                if actor.seq.is_none() && self.left == 0 {
                    continue;
                }
                if actor.seq.is_none() {
                    self.left -= 1;
                }
                chunk.push(actor.next(handle, self.steps));
            }
            if chunk.len() == before {
                break;
            }
        }
        chunk
    }
}

impl Actor {
    fn next(&mut self, handle: &JournalHandle, steps: u32) -> Append {
        let at = Timestamp::from_microsecond(START + self.version * 1_234_567).unwrap();
        let Some(seq) = self.seq else {
            let seq = handle.next_execution_seq();
            (self.seq, self.step) = (Some(seq), 0);
            return self.append(begin(seq, self.workflow.last_number + 1, steps, at), at);
        };
        let mut events = vec![(seq, finished_step(self.step, at))];
        self.step += 1;
        if self.step < steps {
            events.push((seq, started_step(self.step, at)));
        } else {
            let outcome = Outcome {
                completed_at: Some(at),
                ..Outcome::default()
            };
            let status = Status::Completed;
            events.push((
                seq,
                ExecutionEvent::Finished {
                    status,
                    late: false,
                    outcome,
                },
            ));
            self.seq = None;
        }
        self.append(events, at)
    }

    fn append(&mut self, events: Vec<(ExecutionSeq, ExecutionEvent)>, at: Timestamp) -> Append {
        let seq = events[0].0;
        let known = self.workflow.execution(seq).map(|e| e.steps.clone());
        for (seq, event) in &events {
            self.workflow.apply(*seq, event, at);
        }
        let execution = self.workflow.execution(seq).unwrap();
        let known = known.unwrap_or_default();
        let changed = |index: u32| known.get(index as usize) != execution.steps.get(index as usize);
        let append = Append {
            workflow: self.workflow.id,
            key: self.workflow.key.clone(),
            name: self.workflow.key.clone(),
            expected_version: self.version,
            recorded_at: at,
            executions: vec![execution.record.clone()],
            steps: (0u32..)
                .zip(&execution.steps)
                .filter(|(index, _)| changed(*index))
                .map(|(index, step)| (seq, index, step.clone()))
                .collect(),
            progress: Vec::new(),
            last_number: self.workflow.last_number,
            events,
        };
        self.workflow.forget_closed();
        self.version += 1;
        append
    }
}

fn begin(
    seq: ExecutionSeq,
    number: i64,
    steps: u32,
    at: Timestamp,
) -> Vec<(ExecutionSeq, ExecutionEvent)> {
    // As ComfyUI names things: the prompt's id is a random UUID, steps are numbers with class names.
    let created = ExecutionEvent::Created {
        uuid: Uuid::now_v7(),
        key: RunKey {
            source: SourceId(1),
            external_id: Uuid::new_v4().to_string(),
            run: format!("{number}/{}", START + seq.0),
        },
        number,
        name: None,
        imported: false,
        created_at: Some(at),
        labels: Vec::new(),
        detail: None,
    };
    let steps = (0..steps).map(|n| DeclaredStep {
        external_id: (n + 3).to_string(),
        name: "CLIPTextEncode".to_owned(),
    });
    let declared = ExecutionEvent::Declared {
        steps: steps.collect(),
    };
    let started = ExecutionEvent::Started {
        started_at: Some(at),
        attempt: 1,
    };
    [created, declared, started, started_step(0, at)]
        .into_iter()
        .map(|event| (seq, event))
        .collect()
}

fn started_step(step: u32, at: Timestamp) -> ExecutionEvent {
    ExecutionEvent::StepStarted { step, at: Some(at) }
}

fn finished_step(step: u32, at: Timestamp) -> ExecutionEvent {
    ExecutionEvent::StepFinished {
        step,
        status: StepStatus::Completed,
        started_at: Some(at),
        at: Some(at),
        error: None,
    }
}

/// One table's part of the bare loop.
struct Table {
    select: &'static str,
    insert: String,
}

/// Inserts the rows that `of` left behind into a store with the same indexes, a thousand events a transaction.
fn run_bare(durability: Durability, of: &TempDir) -> Run {
    let dir = temporary();
    drop(Journal::open(options(dir.path(), durability)).unwrap());
    let from = Connection::open(of.path().join("weir.db")).unwrap();
    let mut to = Connection::open(dir.path().join("weir.db")).unwrap();
    let synchronous = match durability {
        Durability::Power => "FULL",
        Durability::Process => "NORMAL",
    };
    to.pragma_update(None, "synchronous", synchronous).unwrap();
    let count = |table: &str| -> i64 {
        let sql = format!("SELECT count(*) FROM {table}");
        from.query_row(&sql, [], |row| row.get(0)).unwrap()
    };
    let events = count("events");
    let tables = [
        table(
            &from,
            "executions",
            "SELECT * FROM executions WHERE seq IN (SELECT execution FROM events WHERE seq >= ?1 AND seq < ?2 AND kind = 1)",
        ),
        table(
            &from,
            "steps",
            "SELECT * FROM steps WHERE execution IN (SELECT execution FROM events WHERE seq >= ?1 AND seq < ?2 AND kind = 1)",
        ),
        table(
            &from,
            "events",
            "SELECT * FROM events WHERE seq >= ?1 AND seq < ?2",
        ),
    ];
    let mut took = Duration::ZERO;
    let mut batches = 0;
    let mut first = 1;
    let step = i64::try_from(BARE_BATCH).unwrap();
    while first <= events {
        let rows = tables
            .each_ref()
            .map(|table| read(&from, table, first, first + step));
        let started = Instant::now();
        let transaction = to
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .unwrap();
        for (table, rows) in tables.iter().zip(&rows) {
            let mut insert = transaction.prepare_cached(&table.insert).unwrap();
            for row in rows {
                insert.execute(params_from_iter(row)).unwrap();
            }
        }
        transaction.commit().unwrap();
        took += started.elapsed();
        batches += 1;
        first += step;
    }
    Run {
        dir,
        executions: 0,
        events: events.unsigned_abs(),
        batches,
        took,
        sync: (Duration::ZERO, Duration::ZERO),
    }
}

fn table(from: &Connection, name: &str, select: &'static str) -> Table {
    let columns = from.prepare(select).unwrap().column_count();
    let marks = vec!["?"; columns].join(", ");
    Table {
        select,
        insert: format!("INSERT INTO {name} VALUES ({marks})"),
    }
}

fn read(from: &Connection, table: &Table, first: i64, end: i64) -> Vec<Vec<Value>> {
    let mut statement = from.prepare_cached(table.select).unwrap();
    let columns = statement.column_count();
    let rows = statement.query_map([first, end], |row| {
        (0..columns).map(|column| row.get(column)).collect()
    });
    rows.unwrap().collect::<Result<_, _>>().unwrap()
}

/// The file after everything was moved into it, per step.
fn print_bytes(run: &Run, steps: u32, target: f64) {
    let path = run.dir.path().join("weir.db");
    let connection = Connection::open(&path).unwrap();
    connection
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .unwrap();
    let texts = |sql: &str| -> i64 { connection.query_row(sql, [], |row| row.get(0)).unwrap() };
    let given = texts("SELECT ifnull(sum(length(external_id) + length(run)), 0) FROM executions")
        + texts("SELECT ifnull(sum(length(external_id) + length(name)), 0) FROM steps");
    let payloads = texts("SELECT ifnull(sum(length(payload)), 0) FROM events");
    let total = run.executions as f64 * f64::from(steps);
    let bytes = std::fs::metadata(&path).unwrap().len() as f64;
    println!(
        "  bytes a step at {steps} steps: {:.0} (target {target}); in it payloads {:.0} and the provider's own texts {:.0}",
        bytes / total,
        payloads as f64 / total,
        given as f64 / total
    );
}

/// What a start and a page of a list take with this store.
fn print_open(run: &Run) {
    let started = Instant::now();
    let journal = Journal::open(options(run.dir.path(), Durability::Power)).unwrap();
    let opened = started.elapsed();
    let reader = journal.handle().reader().unwrap();
    let list = |statuses: Vec<Status>| {
        let filter = ExecutionFilter {
            statuses,
            limit: 100,
            ..ExecutionFilter::default()
        };
        let started = Instant::now();
        reader.executions(&filter).unwrap();
        started.elapsed()
    };
    let (all, failed) = (list(Vec::new()), list(vec![Status::Failed]));
    println!(
        "  with {} events: open {opened:?}; newest 100 executions {all:?}, failed ones {failed:?}",
        run.events
    );
}

/// What the disk itself takes for one page.
fn fdatasync() -> (Duration, Duration) {
    let dir = temporary();
    let mut file = File::create(dir.path().join("page")).unwrap();
    let mut times: Vec<Duration> = (0..200)
        .map(|n: u8| {
            file.rewind().unwrap();
            file.write_all(&[n; 4096]).unwrap();
            let started = Instant::now();
            file.sync_data().unwrap();
            started.elapsed()
        })
        .collect();
    times.sort_unstable();
    (times[100], times[198])
}
