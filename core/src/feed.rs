//! A feed: where a source's observations come from, a plugin or code of the embedding program.

use crate::plugin::{CallError, PluginHandle};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use std::sync::Arc;
use std::time::Duration;
use weir_model::observation::{FailureKind, JobRef, Page};
use weir_model::stream::Reaction;

/// Jobs from inside the embedding program: what a plugin does, as a Rust trait.
pub trait JobSource: Send + Sync + 'static {
    /// The current view of the jobs. `open`: the unfinished ones that weir knows, at most 5 000.
    fn poll(
        &self,
        cursor: Option<String>,
        open: Vec<JobRef>,
    ) -> BoxFuture<'_, Result<Page, PollFailed>>;

    /// What happens between two polls, as it happens. By default there are only polls. Each reaction is taken before the
    /// next one is asked for; `send` has nowhere to go. The stream runs on a thread of weir's and must not block it.
    fn live(&self) -> Option<BoxStream<'static, Reaction>> {
        None
    }
}

/// A poll that gave no page. It never changes a status.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct PollFailed {
    pub message: String,
    /// Not before this long, where the far side or the plugin host says so.
    pub retry_after: Option<Duration>,
    /// Calling again cannot help until somebody changes the configuration.
    pub misconfigured: bool,
}

impl PollFailed {
    /// A failure that may pass.
    pub fn transient(message: impl Into<String>) -> PollFailed {
        PollFailed {
            message: message.into(),
            retry_after: None,
            misconfigured: false,
        }
    }
}

#[derive(Clone)]
pub(crate) enum Feed {
    Plugin(PluginHandle),
    InProcess(Arc<dyn JobSource>),
}

impl Feed {
    pub(crate) async fn poll(
        &self,
        cursor: Option<String>,
        open: Vec<JobRef>,
    ) -> Result<Page, PollFailed> {
        match self {
            Feed::InProcess(source) => source.poll(cursor, open).await,
            Feed::Plugin(plugin) => plugin.poll(cursor, open).await.map_err(from_call),
        }
    }

    /// What a source inside the program tells by itself; a plugin is told instead.
    pub(crate) fn live(&self) -> Option<BoxStream<'static, Reaction>> {
        match self {
            Feed::InProcess(source) => source.live(),
            Feed::Plugin(_) => None,
        }
    }
}

fn from_call(error: CallError) -> PollFailed {
    let message = error.to_string();
    let (retry_after, misconfigured) = match error {
        CallError::Failed {
            kind, retry_after, ..
        } => (retry_after, kind == Some(FailureKind::Misconfigured)),
        CallError::NotReady { retry_in, .. } => (retry_in, false),
        CallError::Parked { .. } | CallError::Incompatible { .. } => (None, true),
        _ => (None, false),
    };
    PollFailed {
        message,
        retry_after,
        misconfigured,
    }
}
