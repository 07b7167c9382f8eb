//! One endpoint: connects it, reads it whatever the guest does, and connects it again.

use std::sync::Arc;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use weir_model::stream::{Endpoint, Frame, StreamMessage};

use super::connection::{self, Connection, Incoming, NotOpened, Outgoing, Resume};
use super::health::{StreamHealth, StreamState};
use super::queue::{FrameQueue, Pushed};
use super::{Context, StreamOptions};

/// Messages that may wait to be sent. Policy when full: dropped, and said in the log.
const OUTBOX_MAX: usize = 128;
/// From the first byte out to the end of the handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// A far side that does not take a message for this long is left.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// Between attempts where the operator, or the far side, does not allow the connection.
const REFUSED_WAIT: Duration = Duration::from_secs(300);
/// Frames read in one go before others of the thread have their turn.
const YIELD_EVERY: u32 = 128;

/// Where the guest's messages go: the outbox of the living connection, if there is one.
#[derive(Clone, Debug, Default)]
pub(super) struct Outbox(Arc<std::sync::Mutex<Option<mpsc::Sender<Outgoing>>>>);

impl Outbox {
    /// False: there is no connection, or it takes nothing more.
    pub(super) fn send(&self, message: StreamMessage) -> bool {
        let outbox = self.lock().clone();
        outbox.is_some_and(|outbox| outbox.try_send(Outgoing::Message(message)).is_ok())
    }

    fn set(&self, outbox: Option<mpsc::Sender<Outgoing>>) {
        *self.lock() = outbox;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<mpsc::Sender<Outgoing>>> {
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Keeps one endpoint connected.
pub(super) struct Link {
    pub(super) ctx: Arc<Context>,
    pub(super) endpoint: Endpoint,
    pub(super) queue: Arc<FrameQueue>,
    pub(super) outbox: Outbox,
    pub(super) resume: Arc<Resume>,
}

impl Link {
    /// Runs until it is dropped.
    pub(super) async fn run(self) {
        let mut attempt: u32 = 0;
        let mut connected_before = false;
        loop {
            self.state(StreamState::Connecting, None);
            let wait = match self.open().await {
                Ok(connection) => {
                    self.connected(std::mem::replace(&mut connected_before, true));
                    let begun = Instant::now();
                    let reason = self.converse(connection).await;
                    self.outbox.set(None);
                    // One that ends at once is no success: a far side in trouble is not stormed.
                    if begun.elapsed() >= self.options().healthy_after {
                        attempt = 0;
                    }
                    tracing::info!(source = %self.ctx.source_name, endpoint = %self.shown(), %reason, "stream lost");
                    self.state(StreamState::Waiting, Some(reason));
                    self.backoff(&mut attempt)
                }
                Err(NotOpened { message, refused }) => {
                    let state = if refused {
                        StreamState::Refused
                    } else {
                        StreamState::Waiting
                    };
                    tracing::debug!(source = %self.ctx.source_name, endpoint = %self.shown(), %message, "stream not opened");
                    self.state(state, Some(message));
                    if refused {
                        REFUSED_WAIT
                    } else {
                        self.backoff(&mut attempt)
                    }
                }
            };
            sleep(wait).await;
        }
    }

    async fn open(&self) -> Result<Connection, NotOpened> {
        let resume = Arc::clone(&self.resume);
        let silence = self.options().silence;
        let opening = connection::open(&self.ctx.plugin, &self.endpoint, resume, silence);
        timeout(CONNECT_TIMEOUT, opening).await.unwrap_or_else(|_| {
            let late = format!("no connection within {CONNECT_TIMEOUT:?}");
            Err(NotOpened::passing(late))
        })
    }

    fn connected(&self, before: bool) {
        tracing::info!(source = %self.ctx.source_name, endpoint = %self.shown(), "stream connected");
        self.note(|health| {
            health.state = StreamState::Connected;
            health.reconnects += u64::from(before);
        });
        self.queue.push(Frame::Connected);
        // What happened while nobody listened was not told.
        self.ctx.refresh(true);
    }

    /// Reads until the connection ends, and says why it did.
    async fn converse(&self, connection: Connection) -> String {
        let Connection {
            mut incoming,
            outgoing,
        } = connection;
        let (outbox, mut unsent) = mpsc::channel(OUTBOX_MAX);
        if outgoing.is_some() {
            for message in &self.endpoint.hello {
                // There is room: hello is bounded.
                let _ = outbox.try_send(Outgoing::Message(message.clone()));
            }
            self.outbox.set(Some(outbox.clone()));
        }
        let writing = async {
            let Some(mut sink) = outgoing else {
                return std::future::pending().await;
            };
            while let Some(next) = unsent.recv().await {
                match timeout(SEND_TIMEOUT, sink.send(next)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(reason)) => return reason,
                    Err(_) => return "the far side does not read what it is sent".to_owned(),
                }
            }
            std::future::pending().await
        };
        // Invariant: nothing in here waits for anything but the connection.
        let reading = async {
            let mut alive = Liveness::new(self.options());
            let mut read: u32 = 0;
            loop {
                tokio::select! {
                    biased;
                    next = incoming.next() => match next {
                        None => return "the far side closed the connection".to_owned(),
                        Some(Err(reason)) => return reason,
                        Some(Ok(next)) => {
                            alive.seen();
                            self.take(next);
                            read = read.wrapping_add(1);
                            if read.is_multiple_of(YIELD_EVERY) {
                                tokio::task::yield_now().await;
                            }
                        }
                    },
                    () = sleep_until(alive.due()) => {
                        if let Some(reason) = alive.silent() {
                            return reason;
                        }
                        // Full: the far side does not read, which ends the connection as well.
                        let _ = outbox.try_send(Outgoing::Ping);
                    }
                }
            }
        };
        tokio::select! {
            reason = reading => reason,
            reason = writing => reason,
        }
    }

    /// Never waits.
    fn take(&self, incoming: Incoming) {
        match incoming {
            Incoming::Alive => {}
            Incoming::Skipped(bytes) => self.note(|health| {
                health.frames += 1;
                health.bytes += bytes as u64;
            }),
            Incoming::Message(message) => {
                let bytes = message.len() as u64;
                let pushed = self.queue.push(Frame::Message(message));
                self.note(|health| {
                    health.frames += 1;
                    health.bytes += bytes;
                    health.dropped += u64::from(pushed != Pushed::Taken);
                });
                if pushed == Pushed::FirstDropped {
                    self.ctx.refresh(false);
                }
            }
        }
    }

    /// 1 s·2ⁿ up to a minute, with full jitter; never less than the far side asked for.
    fn backoff(&self, attempt: &mut u32) -> Duration {
        let options = self.options();
        let doubled = options.backoff_base.saturating_mul(1 << (*attempt).min(16));
        *attempt = attempt.saturating_add(1);
        let wait = doubled
            .min(options.backoff_max)
            .mul_f64(rand::random::<f64>());
        let asked = self.resume.retry().unwrap_or_default();
        wait.max(asked.min(options.backoff_max))
    }

    fn options(&self) -> &StreamOptions {
        &self.ctx.options
    }

    fn shown(&self) -> String {
        super::shown(&self.endpoint.id)
    }

    fn state(&self, state: StreamState, error: Option<String>) {
        self.note(|health| {
            health.state = state;
            if let Some(error) = error {
                health.last_error = Some(super::shown(&error));
            }
        });
    }

    fn note(&self, change: impl FnOnce(&mut StreamHealth)) {
        self.ctx.note(&self.endpoint.id, change);
    }
}

/// Tells a quiet connection from a dead one.
struct Liveness<'a> {
    options: &'a StreamOptions,
    last: Instant,
    pinged: bool,
}

impl Liveness<'_> {
    fn new(options: &StreamOptions) -> Liveness<'_> {
        Liveness {
            options,
            last: Instant::now(),
            pinged: false,
        }
    }

    fn seen(&mut self) {
        self.last = Instant::now();
        self.pinged = false;
    }

    fn due(&self) -> Instant {
        let silence = self.options.silence;
        self.last + if self.pinged { silence * 2 } else { silence }
    }

    /// Due: a ping is to be sent, or the reason why the connection is dead.
    fn silent(&mut self) -> Option<String> {
        if std::mem::replace(&mut self.pinged, true) {
            let quiet = self.last.elapsed();
            return Some(format!(
                "nothing came for {quiet:.0?}, not even an answer to a ping"
            ));
        }
        None
    }
}
