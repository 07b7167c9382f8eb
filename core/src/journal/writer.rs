//! The writer thread: takes what is queued, makes it durable in one transaction, then tells.

mod append;
mod control;
mod pending;
mod rows;

use super::migrate::meta_integer;
use super::open::{self, OpenError, Opened};
use super::retention::{Progress, Retainer};
use super::{
    Answer, Clock, Commit, CommitError, Committed, Common, Durability, Encoding, Envelope, Fault,
    JournalHandle, JournalOptions, JournalState, Message, NextIds, Order, counters, reader,
};
use jiff::Timestamp;
use pending::Pending;
use rusqlite::{Connection, TransactionBehavior};
use rustc_hash::FxBuildHasher;
use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;
use tokio::sync::watch;
use uuid::Uuid;
use weir_model::event::Event;
use weir_model::id::{ExecutionSeq, Seq, WorkflowId};

/// Keyed by our own integers: no stranger chooses them, so no keyed hash is needed.
type ById<K, V> = HashMap<K, V, FxBuildHasher>;

/// A batch ends with the commit that reaches one of these.
const BATCH_COMMITS_MAX: usize = 4096;
const BATCH_ROWS_MAX: usize = 16_384;
/// A commit larger than this is rejected: it would hold up everybody else.
const COMMIT_ROWS_MAX: usize = 200_000;
/// Versions of workflows, and owners of executions, remembered; beyond it they are read again.
const REMEMBERED_MAX: usize = 100_000;
/// Pages in the write-ahead log before they are moved into the store.
const CHECKPOINT_PAGES: i64 = 4000;
/// Kibibytes of pages kept by the writer.
const CACHE_KIB: i64 = 4000;

/// Opens the store and starts the thread.
pub(super) fn start(options: JournalOptions) -> Result<(JournalHandle, JoinHandle<()>), OpenError> {
    let Opened {
        connection,
        path,
        lock,
    } = open::open(&options)?;
    let known = Known::read(&connection).map_err(|source| OpenError::of(&path, source))?;
    tune(&connection).map_err(|source| OpenError::of(&path, source))?;
    let (queue, receiver) = sync_channel(options.queue_len.max(1));
    let common = Arc::new(Common {
        readers: reader::Pool::new(path.clone()),
        path,
        clock: options.clock.clone(),
        origin: known.origin,
        queue,
        orders: Mutex::new(VecDeque::new()),
        stopping: AtomicBool::new(false),
        head: watch::Sender::new(Seq(known.head)),
        state: watch::Sender::new(JournalState::Open),
        counters: counters::Shared::default(),
        retained_from: AtomicI64::new(known.retained_from),
        next: known.next,
    });
    let mut writer = Writer {
        common: common.clone(),
        receiver,
        connection: Some(connection),
        durability: options.durability,
        versions: ById::default(),
        owners: ById::default(),
        head: known.head,
        retainer: Retainer::new(options.retention),
        clock: options.clock,
        fault: None,
        _lock: lock,
    };
    let thread = std::thread::Builder::new()
        .name("weir-journal".to_owned())
        .spawn(move || writer.run())
        .map_err(|source| OpenError::Io {
            path: common.path.clone(),
            source,
        })?;
    Ok((JournalHandle { common }, thread))
}

fn tune(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)
}

/// What the store says about itself when it is opened.
struct Known {
    origin: Uuid,
    head: i64,
    retained_from: i64,
    next: NextIds,
}

impl Known {
    fn read(connection: &Connection) -> rusqlite::Result<Known> {
        let origin: [u8; 16] =
            connection.query_row("SELECT value FROM meta WHERE key = 'origin'", [], |row| {
                row.get(0)
            })?;
        // Numbers are never given twice, though retention deletes the rows that had them.
        let highest = |table: &str, id: &str| -> rusqlite::Result<i64> {
            let sql = format!("SELECT ifnull(max({id}), 0) FROM {table}");
            let stored: i64 = connection.query_row(&sql, [], |row| row.get(0))?;
            let floor = meta_integer(connection, &format!("floor_{table}"))?;
            Ok(stored.max(floor.unwrap_or(0)))
        };
        let next = |table: &str, id: &str| -> rusqlite::Result<AtomicI64> {
            Ok(AtomicI64::new(highest(table, id)? + 1))
        };
        Ok(Known {
            origin: Uuid::from_bytes(origin),
            head: highest("events", "seq")?,
            retained_from: meta_integer(connection, "retained_from")?.unwrap_or(1),
            next: NextIds {
                execution: next("executions", "seq")?,
                workflow: next("workflows", "id")?,
                source: next("sources", "id")?,
                alert: next("alerts", "id")?,
                outbox: next("outbox", "id")?,
                request: next("control_requests", "id")?,
            },
        })
    }
}

struct Writer {
    common: Arc<Common>,
    receiver: Receiver<Message>,
    /// None while the journal is closed.
    connection: Option<Connection>,
    durability: Durability,
    versions: ById<WorkflowId, i64>,
    owners: ById<ExecutionSeq, WorkflowId>,
    head: i64,
    retainer: Retainer,
    clock: Clock,
    /// Set by tests.
    fault: Option<Fault>,
    _lock: File,
}

/// What a transaction is doing: everything an append or another commit writes through.
struct Batch<'a> {
    connection: &'a Connection,
    versions: &'a mut ById<WorkflowId, i64>,
    owners: &'a mut ById<ExecutionSeq, WorkflowId>,
    pending: Pending,
    head: i64,
    now: Timestamp,
}

/// The verdict on one commit; an error of SQL is a verdict on the whole batch.
type Verdict = rusqlite::Result<Result<Committed, String>>;

/// What a transaction made durable.
struct Written {
    verdicts: Vec<Result<Committed, String>>,
    head: i64,
}

impl Writer {
    fn run(&mut self) {
        loop {
            match self.receiver.recv_timeout(self.retainer.pause()) {
                Ok(Message::Commit(envelope)) => {
                    let batch = self.gather(*envelope);
                    self.commit(batch);
                }
                Ok(Message::Wake) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if self.follow_orders() {
                break;
            }
            self.retain();
        }
        self.drain();
        self.connection = None;
        self.common.readers.clear();
        self.set_closed("weir has stopped");
    }

    /// The first commit and what else is queued, up to the size of a batch.
    fn gather(&self, first: Envelope) -> Vec<Envelope> {
        let mut rows = first.commit.weight();
        let mut batch = vec![first];
        while rows < BATCH_ROWS_MAX && batch.len() < BATCH_COMMITS_MAX {
            match self.receiver.try_recv() {
                Ok(Message::Commit(envelope)) => {
                    rows += envelope.commit.weight();
                    batch.push(*envelope);
                }
                Ok(Message::Wake) => {}
                Err(_) => break,
            }
        }
        let taken = u64::try_from(batch.len()).unwrap_or(0);
        let counters = &self.common.counters;
        counters.queued.fetch_sub(taken, Ordering::Relaxed);
        batch
    }

    /// Makes a batch durable, publishes it and answers everything in it.
    fn commit(&mut self, batch: Vec<Envelope>) {
        if self.connection.is_none() {
            let reason = match &*self.common.state.borrow() {
                JournalState::Closed { reason, .. } => reason.clone(),
                JournalState::Open => "no store".to_owned(),
            };
            return refuse_all(batch.into_iter().map(|e| e.answer), &reason);
        }
        let mut answers = Vec::with_capacity(batch.len());
        let write = AssertUnwindSafe(|| self.write(batch, &mut answers));
        let written = std::panic::catch_unwind(write);
        match written {
            Ok(Ok(written)) => {
                let verdicts = self.publish(written);
                for (answer, verdict) in answers.into_iter().zip(verdicts) {
                    let verdict = verdict.map_err(|reason| CommitError::Rejected { reason });
                    answer.give(verdict);
                }
            }
            Ok(Err(error)) => {
                let reason = format!("a commit failed: {error}");
                self.close(&reason);
                refuse_all(answers, &reason);
            }
            Err(_) => {
                let reason = "the writer panicked";
                self.close(reason);
                refuse_all(answers, reason);
            }
        }
    }

    /// One transaction. An error rolls all of it back.
    fn write(
        &mut self,
        envelopes: Vec<Envelope>,
        answers: &mut Vec<Answer>,
    ) -> rusqlite::Result<Written> {
        let fault = self.fault.take();
        let now = (self.clock)();
        let Some(connection) = self.connection.as_mut() else {
            return Err(rusqlite::Error::InvalidQuery);
        };
        if self.versions.len() > REMEMBERED_MAX {
            self.versions.clear();
        }
        if self.owners.len() > REMEMBERED_MAX {
            self.owners.clear();
        }
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut batch = Batch {
            connection: &transaction,
            versions: &mut self.versions,
            owners: &mut self.owners,
            pending: Pending::with_capacity(envelopes.iter().map(|e| e.commit.weight()).sum()),
            head: self.head,
            now,
        };
        let mut verdicts = Vec::with_capacity(envelopes.len());
        for envelope in envelopes {
            let Envelope {
                commit,
                encoded,
                answer,
            } = envelope;
            answers.push(answer);
            verdicts.push(batch.write(commit, encoded)?);
        }
        let Batch { head, pending, .. } = batch;
        pending.write(&transaction, self.head + 1)?;
        match fault {
            Some(Fault::Panic) => panic!("injected by a test"),
            Some(Fault::Fail) => return Err(rusqlite::Error::InvalidQuery),
            None => {}
        }
        let started = Instant::now();
        transaction.commit()?;
        self.common.counters.sync.record(started.elapsed());
        Ok(Written { verdicts, head })
    }

    /// Only now anybody sees it: numbers first, then the wake-up.
    fn publish(&mut self, written: Written) -> Vec<Result<Committed, String>> {
        let Written { verdicts, head } = written;
        let counters = &self.common.counters;
        let count = |counter: &std::sync::atomic::AtomicU64, by: usize| {
            counter.fetch_add(u64::try_from(by).unwrap_or(0), Ordering::Relaxed);
        };
        let rejected = verdicts.iter().filter(|v| v.is_err()).count();
        count(&counters.rejected, rejected);
        count(&counters.commits, verdicts.len() - rejected);
        count(&counters.batches, 1);
        counters.events.fetch_add(
            u64::try_from(head - self.head).unwrap_or(0),
            Ordering::Relaxed,
        );
        if head > self.head {
            self.head = head;
            self.common.head.send_replace(Seq(head));
        }
        verdicts
    }

    /// After a failure nothing is believed: the connection and what was remembered of it are thrown away.
    fn close(&mut self, reason: &str) {
        self.connection = None;
        self.versions.clear();
        self.owners.clear();
        self.common.readers.clear();
        tracing::error!(reason, "journal closed");
        self.set_closed(reason);
    }

    fn set_closed(&self, reason: &str) {
        self.common.state.send_replace(JournalState::Closed {
            reason: reason.to_owned(),
            since: self.common.now(),
        });
    }

    /// Returns whether it was told to stop.
    fn follow_orders(&mut self) -> bool {
        loop {
            let order = self
                .common
                .orders
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop_front();
            match order {
                None => return false,
                Some(Order::Stop) => return true,
                Some(Order::Reopen(answer)) => {
                    let _ = answer.send(self.reopen());
                }
                Some(Order::Retention(retention)) => self.retainer.set(retention),
                Some(Order::Retain(answer)) => {
                    let _ = answer.send(self.retain_all());
                }
                Some(Order::Inject(fault)) => self.fault = Some(fault),
            }
        }
    }

    /// What was queued before the stop is still made durable.
    fn drain(&mut self) {
        while let Ok(message) = self.receiver.try_recv() {
            if let Message::Commit(envelope) = message {
                let batch = self.gather(*envelope);
                self.commit(batch);
            }
        }
    }

    /// Opens again if what was acknowledged can be read from the disk, not from memory.
    fn reopen(&mut self) -> Result<(), String> {
        if self.connection.is_some() {
            return Ok(());
        }
        let (connection, head) = match self.read_back() {
            Ok(found) => found,
            Err(reason) => {
                self.set_closed(&reason);
                return Err(reason);
            }
        };
        self.connection = Some(connection);
        // Commits that were answered "closed" may have reached the disk: then they are published now.
        if head > self.head {
            self.head = head;
            self.common.head.send_replace(Seq(head));
        }
        self.common.state.send_replace(JournalState::Open);
        tracing::info!(head, "journal open again");
        Ok(())
    }

    fn read_back(&self) -> Result<(Connection, i64), String> {
        let path = &self.common.path;
        reader::forget_cached_pages(path)
            .map_err(|e| format!("the store cannot be synced: {e}"))?;
        let text = |e: OpenError| e.to_string();
        let connection = open::connect(path, self.durability).map_err(text)?;
        open::set_wal(&connection, path).map_err(text)?;
        let read = || -> rusqlite::Result<i64> {
            tune(&connection)?;
            // Moves everything into the store and syncs it.
            connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
            Known::read(&connection).map(|known| known.head)
        };
        let head = read().map_err(|e| format!("the store cannot be read back: {e}"))?;
        if head < self.head {
            return Err(format!(
                "acknowledged events {} to {} are not on the disk",
                head + 1,
                self.head
            ));
        }
        reader::read_back(&connection, Seq(head))
            .map_err(|e| format!("the last event cannot be read back: {e}"))?;
        Ok((connection, head))
    }

    /// One slice of retention, if it is time.
    fn retain(&mut self) {
        if self.retainer.is_due((self.clock)()) {
            self.retain_slice();
        }
    }

    fn retain_all(&mut self) -> u64 {
        let mut deleted = 0;
        self.retainer.restart();
        loop {
            let progress = self.retain_slice();
            deleted += progress.deleted;
            if progress.done {
                return deleted;
            }
        }
    }

    fn retain_slice(&mut self) -> Progress {
        let Some(connection) = self.connection.as_mut() else {
            return Progress::DONE;
        };
        let now = (self.clock)();
        let next = &self.common.next;
        let given = |counter: &AtomicI64| counter.load(Ordering::Relaxed) - 1;
        let given = [
            ("floor_events", self.head),
            ("floor_executions", given(&next.execution)),
            ("floor_alerts", given(&next.alert)),
            ("floor_outbox", given(&next.outbox)),
        ];
        match self.retainer.slice(connection, self.head, &given, now) {
            Ok(progress) => {
                if progress.deleted > 0 {
                    self.owners.clear();
                }
                let counters = &self.common.counters;
                counters
                    .deleted
                    .fetch_add(progress.deleted, Ordering::Relaxed);
                if let Some(from) = progress.retained_from {
                    self.common.retained_from.store(from, Ordering::Release);
                }
                progress
            }
            Err(error) => {
                self.close(&format!("retention failed: {error}"));
                Progress::DONE
            }
        }
    }
}

fn refuse_all(answers: impl IntoIterator<Item = Answer>, reason: &str) {
    for answer in answers {
        answer.give(Err(CommitError::Closed {
            reason: reason.to_owned(),
        }));
    }
}

impl Batch<'_> {
    fn write(&mut self, commit: Commit, encoded: Encoding) -> Verdict {
        if commit.weight() > COMMIT_ROWS_MAX {
            return Ok(Err(format!("more than {COMMIT_ROWS_MAX} rows at once")));
        }
        match commit {
            Commit::Append(append) => self.append(append, encoded),
            Commit::Source(source) => self.source(source),
            Commit::Alerts(alerts) => self.alerts(alerts),
            Commit::Outbox(update) => self.outbox_update(&update),
            Commit::System(system) => {
                let events = system.events.into_iter().map(Event::System);
                self.facts(events, system.recorded_at)
            }
            Commit::Checkpoint(checkpoint) => self.checkpoint(&checkpoint),
            Commit::Progress(rows) => self.progress(rows),
            Commit::Samples(rows) => self.samples(&rows),
            Commit::Control(control) => self.control(*control),
        }
    }

    /// What a commit without events is answered.
    fn nothing(&self) -> Committed {
        Committed {
            first_seq: Seq(self.head + 1),
            last_seq: Seq(self.head),
        }
    }
}
