//! Handles: how the rest of weir calls a plugin entry from any thread.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc, oneshot, watch};
use weir_model::alert::notification::Notification;
use weir_model::observation::{FailureKind, JobRef, Page};

use super::Failure;
use super::host::HostInner;
use super::status::{CrashReport, PluginState, PluginStatus};

/// Calls that wait for one entry at a time; the next caller waits to be let in.
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

impl From<Failure> for CallError {
    fn from(failure: Failure) -> CallError {
        CallError::Failed {
            message: failure.message,
            kind: failure.kind,
            retry_after: failure.retry_after,
        }
    }
}

pub(super) type Reply<T> = oneshot::Sender<Result<T, CallError>>;

/// One call, waiting for its turn.
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
}

impl Order {
    pub(super) fn refuse(self, error: CallError) {
        // A caller that went away needs no answer.
        match self {
            Order::Poll { reply, .. } => drop(reply.send(Err(error))),
            Order::Deliver { reply, .. } => drop(reply.send(Err(error))),
            Order::Check { reply } => drop(reply.send(Err(error))),
        }
    }

    pub(super) fn is_abandoned(&self) -> bool {
        match self {
            Order::Poll { reply, .. } => reply.is_closed(),
            Order::Deliver { reply, .. } => reply.is_closed(),
            Order::Check { reply } => reply.is_closed(),
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
    pub(super) closing: watch::Sender<bool>,
    pub(super) resume: Arc<Notify>,
    pub(super) status: watch::Receiver<PluginStatus>,
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

    pub fn status(&self) -> PluginStatus {
        self.inner.status.borrow().clone()
    }

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
}
