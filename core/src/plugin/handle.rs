//! Handles: how the rest of weir calls a plugin entry from any thread.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc, oneshot, watch};
use weir_model::alert::notification::Notification;
use weir_model::control::Submission;
use weir_model::logs::{Direction, LogPage};
use weir_model::observation::{FailureKind, JobRef, Page};
use weir_model::stream::{Endpoint, Frame, Reaction};

use super::Failure;
use super::egress::{Egress, EventBody, StreamConnection, StreamRequest};
use super::gauge::Gauge;
use super::host::HostInner;
use super::status::{CrashReport, PluginState, PluginStatus};

/// Calls that wait for one entry at a time; the next caller waits to be let in. The same for calls aside.
pub(super) const ORDERS_LEN_MAX: usize = 8;

/// Why a call has no result.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CallError {
    /// The guest said so: the far side, or the input.
    #[error("{message}")]
    Failed {
        message: String,
        kind: Option<FailureKind>,
        retry_after: Option<Duration>,
        /// Of control calls: something may have been changed at the far side before it failed.
        acted: bool,
    },
    /// A trap or a limit; the instance is gone, the next call gets a fresh one.
    #[error("the plugin crashed: {report}")]
    Crashed { report: Arc<CrashReport> },
    /// It waits before it is opened again.
    #[error("the plugin is not ready ({state}): {reason}")]
    NotReady {
        state: &'static str,
        reason: String,
        retry_in: Option<Duration>,
    },
    #[error("the plugin is parked: {reason}")]
    Parked { reason: String },
    #[error("the plugin is quarantined: {reason}")]
    Quarantined {
        reason: String,
        retry_in: Option<Duration>,
    },
    #[error("the plugin cannot run here: {reason}")]
    Incompatible { reason: String },
    #[error("the plugin was closed")]
    Closed,
}

impl CallError {
    /// What a call gets while the entry is in `state`.
    pub(super) fn of_state(state: &PluginState, retry_at: Option<Instant>) -> CallError {
        let retry_in = retry_at.map(|at| at.saturating_duration_since(Instant::now()));
        let reason = state.reason().unwrap_or_default().to_owned();
        match state {
            PluginState::Parked { .. } => CallError::Parked { reason },
            PluginState::Quarantined { .. } => CallError::Quarantined { reason, retry_in },
            PluginState::Incompatible { .. } => CallError::Incompatible { reason },
            PluginState::Draining | PluginState::Stopped => CallError::Closed,
            _ => CallError::NotReady {
                state: state.name(),
                reason,
                retry_in,
            },
        }
    }
}

impl CallError {
    /// What a call gets that the component does not export.
    pub(super) fn unsupported(interface: &str) -> CallError {
        CallError::Failed {
            message: format!("the plugin has no `{interface}`"),
            kind: Some(FailureKind::Unsupported),
            retry_after: None,
            acted: false,
        }
    }
}

impl From<Failure> for CallError {
    fn from(failure: Failure) -> CallError {
        CallError::Failed {
            message: failure.message,
            kind: failure.kind,
            retry_after: failure.retry_after,
            acted: false,
        }
    }
}

pub(super) type Reply<T> = oneshot::Sender<Result<T, CallError>>;

/// One call on the entry's own instance, waiting for its turn.
pub(super) enum Order {
    Poll {
        cursor: Option<String>,
        open: Vec<JobRef>,
        reply: Reply<Page>,
    },
    Deliver {
        notification: Box<Notification>,
        prior: Option<String>,
        reply: Reply<Option<String>>,
    },
    Check {
        reply: Reply<String>,
    },
    Endpoints {
        reply: Reply<Vec<Endpoint>>,
    },
    Frames {
        endpoint: String,
        frames: Vec<Frame>,
        reply: Reply<Reaction>,
    },
}

/// One call on an instance of its own: it never waits for a poll.
pub(super) enum AsideOrder {
    Cancel {
        job: JobRef,
        reply: Reply<()>,
    },
    Retry {
        key: String,
        job: JobRef,
        reply: Reply<Submission>,
    },
    Submit {
        key: String,
        content_type: String,
        body: Vec<u8>,
        reply: Reply<Submission>,
    },
    ReadLogs {
        job: JobRef,
        direction: Direction,
        cursor: Option<String>,
        reply: Reply<LogPage>,
    },
}

impl Order {
    pub(super) fn refuse(self, error: CallError) {
        // A caller that went away needs no answer.
        match self {
            Order::Poll { reply, .. } => drop(reply.send(Err(error))),
            Order::Deliver { reply, .. } => drop(reply.send(Err(error))),
            Order::Check { reply } => drop(reply.send(Err(error))),
            Order::Endpoints { reply } => drop(reply.send(Err(error))),
            Order::Frames { reply, .. } => drop(reply.send(Err(error))),
        }
    }

    pub(super) fn is_abandoned(&self) -> bool {
        match self {
            Order::Poll { reply, .. } => reply.is_closed(),
            Order::Deliver { reply, .. } => reply.is_closed(),
            Order::Check { reply } => reply.is_closed(),
            Order::Endpoints { reply } => reply.is_closed(),
            Order::Frames { reply, .. } => reply.is_closed(),
        }
    }
}

impl AsideOrder {
    pub(super) fn refuse(self, error: CallError) {
        match self {
            AsideOrder::Cancel { reply, .. } => drop(reply.send(Err(error))),
            AsideOrder::Retry { reply, .. } | AsideOrder::Submit { reply, .. } => {
                drop(reply.send(Err(error)));
            }
            AsideOrder::ReadLogs { reply, .. } => drop(reply.send(Err(error))),
        }
    }

    pub(super) fn is_abandoned(&self) -> bool {
        match self {
            AsideOrder::Cancel { reply, .. } => reply.is_closed(),
            AsideOrder::Retry { reply, .. } | AsideOrder::Submit { reply, .. } => reply.is_closed(),
            AsideOrder::ReadLogs { reply, .. } => reply.is_closed(),
        }
    }

    /// The interface that it needs.
    pub(super) fn interface(&self) -> &'static str {
        match self {
            AsideOrder::ReadLogs { .. } => "logs",
            _ => "control",
        }
    }
}

/// One opened entry. Clones are the same entry; when the last one is dropped, it stops at once.
#[derive(Clone)]
pub struct PluginHandle {
    pub(super) inner: Arc<HandleInner>,
}

pub(super) struct HandleInner {
    pub(super) orders: mpsc::Sender<Order>,
    pub(super) asides: mpsc::Sender<AsideOrder>,
    pub(super) closing: watch::Sender<bool>,
    pub(super) resume: Arc<Notify>,
    pub(super) status: watch::Receiver<PluginStatus>,
    pub(super) gauge: Arc<Gauge>,
    pub(super) egress: Arc<Egress>,
    /// The threads live as long as anybody may call.
    pub(super) _host: Arc<HostInner>,
}

impl PluginHandle {
    /// Asks a source for its next page. While the entry is still loading or opening, the call waits.
    pub async fn poll(&self, cursor: Option<String>, open: Vec<JobRef>) -> Result<Page, CallError> {
        self.call(|reply| Order::Poll {
            cursor,
            open,
            reply,
        })
        .await
    }

    /// Hands a receiver one message; the receipt belongs into the next call for the same key.
    pub async fn deliver(
        &self,
        notification: Notification,
        prior: Option<String>,
    ) -> Result<Option<String>, CallError> {
        self.call(|reply| Order::Deliver {
            notification: Box::new(notification),
            prior,
            reply,
        })
        .await
    }

    /// Reaches the far side and changes nothing.
    pub async fn check(&self) -> Result<String, CallError> {
        self.call(|reply| Order::Check { reply }).await
    }

    /// Opens a connection for a websocket, on the caller's thread and through this entry's allow-list: checked, resolved,
    /// pinned, TLS spoken, credential applied. The handshake over it is the caller's. See `StreamConnection`.
    pub async fn connect(&self, request: StreamRequest) -> Result<StreamConnection, Failure> {
        self.inner.egress.connect(request).await
    }

    /// Opens a stream of server-sent events through this entry's allow-list, with its credential. See `EventBody`.
    pub async fn open_events(&self, request: StreamRequest) -> Result<EventBody, Failure> {
        self.inner.egress.open_events(request).await
    }

    /// What a source wants connected. Asked anew whenever `status().generation` has changed.
    pub async fn endpoints(&self) -> Result<Vec<Endpoint>, CallError> {
        self.call(|reply| Order::Endpoints { reply }).await
    }

    /// Pushes frames of one connection in: at most 64, of 256 KiB together. They wait behind a poll under way, which
    /// goes by what frames told the same instance.
    pub async fn on_frames(
        &self,
        endpoint: String,
        frames: Vec<Frame>,
    ) -> Result<Reaction, CallError> {
        self.call(|reply| Order::Frames {
            endpoint,
            frames,
            reply,
        })
        .await
    }

    /// Asks the provider to end a job. `Ok` means asked: what became of it is what the next polls say.
    pub async fn cancel(&self, job: JobRef) -> Result<(), CallError> {
        self.aside(|reply| AsideOrder::Cancel { job, reply }).await
    }

    /// Asks the provider to run a job once more. `key`: the same for every attempt at the same retry.
    pub async fn retry(&self, key: String, job: JobRef) -> Result<Submission, CallError> {
        self.aside(|reply| AsideOrder::Retry { key, job, reply })
            .await
    }

    /// Hands the provider a new job, its body unchanged. `key`: the same for every attempt at the same job.
    pub async fn submit(
        &self,
        key: String,
        content_type: String,
        body: Vec<u8>,
    ) -> Result<Submission, CallError> {
        self.aside(|reply| AsideOrder::Submit {
            key,
            content_type,
            body,
            reply,
        })
        .await
    }

    /// A page of the provider's own log lines of one job.
    pub async fn read_logs(
        &self,
        job: JobRef,
        direction: Direction,
        cursor: Option<String>,
    ) -> Result<LogPage, CallError> {
        self.aside(|reply| AsideOrder::ReadLogs {
            job,
            direction,
            cursor,
            reply,
        })
        .await
    }

    /// How it is now, with what it used of its limits.
    pub fn status(&self) -> PluginStatus {
        let mut status = self.inner.status.borrow().clone();
        status.limits = self.inner.gauge.uses();
        status
    }

    /// Waits until it is ready, or until it is known why it is not.
    pub async fn ready(&self) -> Result<(), CallError> {
        let mut status = self.inner.status.clone();
        loop {
            {
                let status = status.borrow_and_update();
                match &status.state {
                    PluginState::Loading | PluginState::Linked | PluginState::Opening => {}
                    PluginState::Ready => return Ok(()),
                    state => return Err(CallError::of_state(state, status.retry_at)),
                }
            }
            if status.changed().await.is_err() {
                return Err(CallError::Closed);
            }
        }
    }

    /// Its status as it changes; `limits` are only in `status()`.
    pub fn subscribe(&self) -> watch::Receiver<PluginStatus> {
        self.inner.status.clone()
    }

    /// Forgives every strike and tries again now.
    pub fn resume(&self) {
        self.inner.resume.notify_one();
    }

    /// Lets the running call finish (its wall limit bounds it), refuses the waiting ones, and stops.
    pub async fn close(&self) {
        self.inner.closing.send_replace(true);
        let mut status = self.inner.status.clone();
        // An error means that the entry is gone already.
        let _ = status
            .wait_for(|status| status.state == PluginState::Stopped)
            .await;
    }

    async fn call<T>(&self, order: impl FnOnce(Reply<T>) -> Order) -> Result<T, CallError> {
        let (reply, answer) = oneshot::channel();
        self.inner
            .orders
            .send(order(reply))
            .await
            .map_err(|_| CallError::Closed)?;
        answer.await.unwrap_or(Err(CallError::Closed))
    }
    async fn aside<T>(&self, order: impl FnOnce(Reply<T>) -> AsideOrder) -> Result<T, CallError> {
        let (reply, answer) = oneshot::channel();
        self.inner
            .asides
            .send(order(reply))
            .await
            .map_err(|_| CallError::Closed)?;
        answer.await.unwrap_or(Err(CallError::Closed))
    }
}
