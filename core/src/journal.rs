//! The journal: one writer thread, group commit, and readers of what is committed.
//!
//! Journal before publish: an event has a number only once it is on disk, and nobody sees it earlier.
//! A failed commit closes the journal; it is never retried in place ([`JournalHandle::reopen`]).
//! The writer, the reader and what stands under them are the only code that knows SQL.

mod backup;
mod codec;
mod commit;
mod counters;
mod migrate;
mod open;
mod reader;
mod retention;
mod schema;
mod writer;

pub use backup::BackupError;
pub use codec::CodecError;
pub use commit::*;
pub use counters::Counters;
pub use open::OpenError;
pub use reader::{
    CheckpointRow, ExecutionFilter, FailedDeliveries, Lineage, ReadError, Reader, StoredEvent,
    StoredExecution, WorkflowRow,
};
pub use retention::Retention;

use jiff::Timestamp;
use std::collections::VecDeque;
use std::fmt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use tokio::sync::{oneshot, watch};
use uuid::Uuid;
use weir_model::event::ExecutionEvent;
use weir_model::id::{ExecutionSeq, Seq, SourceId, WorkflowId};

/// What an acknowledgement survives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Loss of power: every commit is synced.
    #[default]
    Power,
    /// The end of the process (kill -9), not of the machine.
    Process,
}

/// The clock the journal is given.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// How a journal is opened.
#[derive(Clone)]
pub struct JournalOptions {
    /// The data directory; the caller has created it (0700).
    pub dir: PathBuf,
    pub durability: Durability,
    /// Commits that may wait for the writer; more are answered [`JournalError::Busy`].
    pub queue_len: usize,
    pub retention: Retention,
    pub clock: Clock,
}

impl JournalOptions {
    /// The defaults in `dir`, with the given clock.
    pub fn new(dir: PathBuf, clock: Clock) -> JournalOptions {
        JournalOptions {
            dir,
            durability: Durability::default(),
            queue_len: 8192,
            retention: Retention::default(),
            clock,
        }
    }
}

impl fmt::Debug for JournalOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JournalOptions")
            .field("dir", &self.dir)
            .field("durability", &self.durability)
            .field("queue_len", &self.queue_len)
            .field("retention", &self.retention)
            .finish_non_exhaustive()
    }
}

/// Whether commits are taken.
#[derive(Clone, Debug, PartialEq)]
pub enum JournalState {
    Open,
    Closed { reason: String, since: Timestamp },
}

/// A commit was not taken; it is certain that nothing of it is stored.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum JournalError {
    #[error("the journal's queue is full")]
    Busy,
    #[error("the journal is closed: {reason}")]
    Closed { reason: String },
}

/// A commit was taken and not acknowledged.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CommitError {
    /// Nothing of it is stored: the committer's view is not what the store holds.
    #[error("rejected: {reason}")]
    Rejected { reason: String },
    /// It is not known whether it is stored: read the store when the journal is open again.
    #[error("the journal is closed: {reason}")]
    Closed { reason: String },
}

/// The answer to a commit, once it is durable.
#[derive(Debug)]
pub struct CommitFuture(oneshot::Receiver<Result<Committed, CommitError>>);

impl Future for CommitFuture {
    type Output = Result<Committed, CommitError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0)
            .poll(cx)
            .map(|answer| answer.unwrap_or_else(|_| Err(writer_gone())))
    }
}

fn writer_gone() -> CommitError {
    CommitError::Closed {
        reason: "its writer has stopped".to_owned(),
    }
}

/// Who is told what became of a commit.
enum Answer {
    Channel(oneshot::Sender<Result<Committed, CommitError>>),
    Call(Box<dyn FnOnce(Result<Committed, CommitError>) + Send>),
}

impl Answer {
    fn give(self, result: Result<Committed, CommitError>) {
        match self {
            // The committer may have given up waiting.
            Answer::Channel(channel) => drop(channel.send(result)),
            Answer::Call(call) => call(result),
        }
    }
}

/// A commit on its way to the writer. Boxed, so that a long empty queue is small.
struct Envelope {
    commit: Commit,
    /// The events of an append as they are stored: made by whoever commits, since the writer is what everybody waits for.
    encoded: Encoding,
    answer: Answer,
}

type Encoding = Result<Vec<codec::Encoded>, String>;

impl Envelope {
    fn new(commit: Commit, answer: Answer) -> Box<Envelope> {
        let encoded = match &commit {
            Commit::Append(append) => encode(append),
            _ => Ok(Vec::new()),
        };
        Box::new(Envelope {
            commit,
            encoded,
            answer,
        })
    }
}

fn encode(append: &Append) -> Encoding {
    let mut declared = append.declared.iter();
    let mut encoded = Vec::with_capacity(append.events.len());
    for (seq, event) in &append.events {
        let first = match event {
            ExecutionEvent::Declared { .. } => *declared
                .next()
                .ok_or_else(|| format!("execution {seq} declares steps without their place"))?,
            _ => 0,
        };
        encoded.push(codec::encode_execution(*seq, event, first).map_err(|e| e.to_string())?);
    }
    Ok(encoded)
}

enum Message {
    Commit(Box<Envelope>),
    /// Look at the orders.
    Wake,
}

/// What the writer is told beside commits; done between batches, in order.
enum Order {
    Reopen(oneshot::Sender<Result<(), String>>),
    Retention(Retention),
    /// Delete what retention allows now, without waiting for its time.
    Retain(oneshot::Sender<u64>),
    Inject(Fault),
    Stop,
}

/// What a test makes the next transaction do.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    Panic,
    Fail,
}

/// What the handles and the writer share.
struct Common {
    path: PathBuf,
    clock: Clock,
    origin: Uuid,
    queue: SyncSender<Message>,
    orders: Mutex<VecDeque<Order>>,
    stopping: AtomicBool,
    head: watch::Sender<Seq>,
    state: watch::Sender<JournalState>,
    counters: counters::Shared,
    retained_from: AtomicI64,
    next: NextIds,
    readers: reader::Pool,
}

/// The next number of each entity. Gaps are fine: a number that was given may never be stored.
#[derive(Debug, Default)]
struct NextIds {
    execution: AtomicI64,
    workflow: AtomicI64,
    source: AtomicI64,
    alert: AtomicI64,
    outbox: AtomicI64,
    request: AtomicI64,
}

/// An open journal and its writer thread. Dropping it stops the writer after what is queued.
pub struct Journal {
    handle: JournalHandle,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal")
            .field("path", &self.handle.common.path)
            .finish_non_exhaustive()
    }
}

impl Journal {
    /// Opens the store in `options.dir`, making it if there is none, and starts the writer. Blocks; seconds at worst.
    pub fn open(options: JournalOptions) -> Result<Journal, OpenError> {
        let (handle, thread) = writer::start(options)?;
        Ok(Journal {
            handle,
            thread: Some(thread),
        })
    }

    pub fn handle(&self) -> JournalHandle {
        self.handle.clone()
    }

    /// Makes durable what is queued, then closes the store.
    pub async fn shutdown(self) {
        self.handle.order(Order::Stop);
        let _ = tokio::task::spawn_blocking(move || drop(self)).await;
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.handle.order(Order::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the journal's writer panicked");
        }
    }
}

/// What everybody else holds: cheap to clone, never blocks unless its name says so.
#[derive(Clone)]
pub struct JournalHandle {
    common: Arc<Common>,
}

impl fmt::Debug for JournalHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JournalHandle")
            .field("path", &self.common.path)
            .finish_non_exhaustive()
    }
}

impl JournalHandle {
    pub fn next_execution_seq(&self) -> ExecutionSeq {
        ExecutionSeq(next(&self.common.next.execution))
    }

    pub fn next_workflow_id(&self) -> WorkflowId {
        WorkflowId(next(&self.common.next.workflow))
    }

    pub fn next_source_id(&self) -> SourceId {
        SourceId(next(&self.common.next.source))
    }

    pub fn next_alert_id(&self) -> i64 {
        next(&self.common.next.alert)
    }

    pub fn next_outbox_id(&self) -> i64 {
        next(&self.common.next.outbox)
    }

    pub fn next_request_id(&self) -> i64 {
        next(&self.common.next.request)
    }

    /// The highest number that an execution was given so far.
    pub fn last_execution_seq(&self) -> ExecutionSeq {
        ExecutionSeq(self.common.next.execution.load(Ordering::Relaxed) - 1)
    }

    /// Hands a commit to the writer. The future resolves once it is durable, in the order of the calls.
    pub fn try_commit(&self, commit: Commit) -> Result<CommitFuture, JournalError> {
        let (answer, answered) = oneshot::channel();
        match self.send(commit, Answer::Channel(answer)) {
            Ok(()) => Ok(CommitFuture(answered)),
            Err((error, _)) => Err(error),
        }
    }

    /// As [`Self::try_commit`], but `then` is called with the answer: on the writer's thread, so it must be short and
    /// never wait; on this one, with a rejection, when the commit was not taken. A writer that dies drops it uncalled.
    pub fn commit_then(
        &self,
        commit: Commit,
        then: impl FnOnce(Result<Committed, CommitError>) + Send + 'static,
    ) {
        if let Err((error, answer)) = self.send(commit, Answer::Call(Box::new(then))) {
            answer.give(Err(CommitError::Rejected {
                reason: error.to_string(),
            }));
        }
    }

    fn send(&self, commit: Commit, answer: Answer) -> Result<(), (JournalError, Answer)> {
        if let Err(error) = self.taken() {
            return Err((error, answer));
        }
        let envelope = Envelope::new(commit, answer);
        let counters = &self.common.counters;
        // Counted before it is sent: the writer counts down as it takes it.
        counters.queued.fetch_add(1, Ordering::Relaxed);
        let (error, message) = match self.common.queue.try_send(Message::Commit(envelope)) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Full(message)) => {
                counters.busy.fetch_add(1, Ordering::Relaxed);
                (JournalError::Busy, message)
            }
            Err(TrySendError::Disconnected(message)) => (closed("its writer has stopped"), message),
        };
        counters.queued.fetch_sub(1, Ordering::Relaxed);
        match message {
            Message::Commit(envelope) => Err((error, envelope.answer)),
            Message::Wake => Ok(()),
        }
    }

    /// Commits and waits, for the room in the queue too. For plain threads only: it blocks.
    pub fn commit_blocking(&self, commit: Commit) -> Result<Committed, CommitError> {
        self.taken().map_err(|error| CommitError::Closed {
            reason: error.to_string(),
        })?;
        let (answer, answered) = oneshot::channel();
        let answer = Answer::Channel(answer);
        let envelope = Envelope::new(commit, answer);
        self.common.counters.queued.fetch_add(1, Ordering::Relaxed);
        self.common
            .queue
            .send(Message::Commit(envelope))
            .map_err(|_| writer_gone())?;
        answered
            .blocking_recv()
            .unwrap_or_else(|_| Err(writer_gone()))
    }

    /// Whether weir is ending: nothing is taken any more.
    pub(crate) fn is_stopping(&self) -> bool {
        self.common.stopping.load(Ordering::Acquire)
    }

    fn taken(&self) -> Result<(), JournalError> {
        if self.is_stopping() {
            return Err(closed("weir is stopping"));
        }
        match &*self.common.state.borrow() {
            JournalState::Open => Ok(()),
            JournalState::Closed { reason, .. } => Err(closed(reason)),
        }
    }

    pub fn state(&self) -> JournalState {
        self.common.state.borrow().clone()
    }

    /// Follows the state: open, closed, open again.
    pub fn watch_state(&self) -> watch::Receiver<JournalState> {
        self.common.state.subscribe()
    }

    /// Number of the newest event that is durable.
    pub fn head(&self) -> Seq {
        *self.common.head.borrow()
    }

    /// Follows the head: the wake-up of every consumer.
    pub fn subscribe(&self) -> watch::Receiver<Seq> {
        self.common.head.subscribe()
    }

    /// Events below this may have been deleted by retention.
    pub fn retained_from(&self) -> Seq {
        Seq(self.common.retained_from.load(Ordering::Acquire))
    }

    /// Identity of this store: with it a number of an event is unique in the world.
    pub fn origin(&self) -> Uuid {
        self.common.origin
    }

    pub fn counters(&self) -> Counters {
        self.common.counters.snapshot()
    }

    pub fn path(&self) -> &Path {
        &self.common.path
    }

    /// Bytes on disk: the store with its write-ahead log.
    pub fn bytes(&self) -> u64 {
        let wal = self.common.path.with_extension("db-wal");
        [&self.common.path, &wal]
            .into_iter()
            .filter_map(|path| std::fs::metadata(path).ok())
            .map(|file| file.len())
            .sum()
    }

    /// A reader of what is committed, for use where blocking is allowed. It goes back to the pool when dropped.
    pub fn reader(&self) -> Result<Reader, ReadError> {
        reader::Reader::new(self.common.clone())
    }

    /// Opens a closed journal again, once the last acknowledged event was read back from the disk.
    pub async fn reopen(&self) -> Result<(), JournalError> {
        let (answer, answered) = oneshot::channel();
        self.order(Order::Reopen(answer));
        match answered.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(reason)) => Err(closed(&reason)),
            Err(_) => Err(closed("its writer has stopped")),
        }
    }

    /// Takes effect at the next slice.
    pub fn set_retention(&self, retention: Retention) {
        self.order(Order::Retention(retention));
    }

    /// Deletes what retention allows now. Returns how many executions were deleted.
    pub async fn retain_now(&self) -> u64 {
        let (answer, answered) = oneshot::channel();
        self.order(Order::Retain(answer));
        answered.await.unwrap_or(0)
    }

    /// Makes durable what is queued, then closes the store; further commits are refused.
    pub async fn shutdown(self) {
        self.order(Order::Stop);
        self.common.queue_closed().await;
    }

    /// Writes a verified copy of the store. Blocks.
    pub fn backup_blocking(&self, to: &Path) -> Result<(), BackupError> {
        let connection = open::connect_read_only(&self.common.path)?;
        backup::copy(&connection, to)
    }

    /// For tests: how a commit that fails is survived.
    #[doc(hidden)]
    pub fn inject(&self, fault: Fault) {
        self.order(Order::Inject(fault));
    }

    fn order(&self, order: Order) {
        if matches!(order, Order::Stop) {
            self.common.stopping.store(true, Ordering::Release);
        }
        self.common
            .orders
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_back(order);
        // A full queue wakes the writer anyway.
        let _ = self.common.queue.try_send(Message::Wake);
    }
}

impl Common {
    /// Waits until the writer is gone.
    async fn queue_closed(&self) {
        let mut state = self.state.subscribe();
        let gone = |state: &JournalState| matches!(state, JournalState::Closed { .. });
        let _ = state.wait_for(gone).await;
    }

    fn now(&self) -> Timestamp {
        (self.clock)()
    }
}

fn next(counter: &AtomicI64) -> i64 {
    counter.fetch_add(1, Ordering::Relaxed)
}

fn closed(reason: &str) -> JournalError {
    JournalError::Closed {
        reason: reason.to_owned(),
    }
}
