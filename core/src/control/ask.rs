//! Asking a provider: through a plugin or code of the embedding program, with one kind of failure for both.

use crate::feed::Feed;
use crate::plugin::CallError;
use std::time::Duration;
use weir_model::control::Submission;
use weir_model::observation::{FailureKind, JobRef};

/// A plugin has its own, shorter limits; this one is for code of the embedding program.
const CALL_MAX: Duration = Duration::from_secs(120);

/// Why the provider was not asked, or what it said instead of doing it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ControlFailed {
    /// Asking again cannot help.
    #[error("{0}")]
    Refused(String),
    /// Nothing has happened at the provider.
    #[error("{message}")]
    NotAsked {
        message: String,
        /// It may pass by itself.
        passing: bool,
        retry_after: Option<Duration>,
    },
    /// It may have happened: the answer did not arrive.
    #[error("{message}")]
    Unclear {
        message: String,
        retry_after: Option<Duration>,
    },
}

impl ControlFailed {
    pub fn unsupported(what: &str) -> ControlFailed {
        ControlFailed::Refused(format!("this source cannot {what}"))
    }

    pub fn refused(message: impl Into<String>) -> ControlFailed {
        ControlFailed::Refused(message.into())
    }

    pub fn unclear(message: impl Into<String>) -> ControlFailed {
        ControlFailed::Unclear {
            message: message.into(),
            retry_after: None,
        }
    }

    fn not_asked(message: String, passing: bool, retry_after: Option<Duration>) -> ControlFailed {
        ControlFailed::NotAsked {
            message,
            passing,
            retry_after,
        }
    }
}

impl From<CallError> for ControlFailed {
    fn from(error: CallError) -> ControlFailed {
        let message = error.to_string();
        match error {
            CallError::Failed {
                kind,
                retry_after,
                acted,
                ..
            } => of_failure(message, kind, retry_after, acted),
            CallError::Crashed { .. } | CallError::Closed => ControlFailed::unclear(message),
            CallError::NotReady { retry_in, .. } | CallError::Quarantined { retry_in, .. } => {
                ControlFailed::not_asked(message, true, retry_in)
            }
            CallError::Parked { .. } | CallError::Incompatible { .. } => {
                ControlFailed::not_asked(message, false, None)
            }
        }
    }
}

/// Where no request that could change anything left, nothing was asked; the host knows, whatever the message says. Who
/// says when to come back has not taken it either.
fn of_failure(
    message: String,
    kind: Option<FailureKind>,
    retry_after: Option<Duration>,
    acted: bool,
) -> ControlFailed {
    match kind {
        Some(FailureKind::Permanent | FailureKind::Unsupported) => ControlFailed::Refused(message),
        Some(FailureKind::NotFound | FailureKind::Misconfigured) => {
            ControlFailed::not_asked(message, false, retry_after)
        }
        Some(FailureKind::Transient) | None => {
            if !acted || retry_after.is_some() {
                ControlFailed::not_asked(message, true, retry_after)
            } else {
                ControlFailed::Unclear {
                    message,
                    retry_after,
                }
            }
        }
    }
}

async fn in_time<T>(
    call: impl Future<Output = Result<T, ControlFailed>>,
) -> Result<T, ControlFailed> {
    match tokio::time::timeout(CALL_MAX, call).await {
        Ok(answer) => answer,
        Err(_) => Err(ControlFailed::unclear("no answer in time")),
    }
}

impl Feed {
    pub(super) async fn cancel(&self, job: JobRef) -> Result<(), ControlFailed> {
        in_time(async {
            match self {
                Feed::InProcess(source) => source.cancel(job).await,
                Feed::Plugin(plugin) => Ok(plugin.cancel(job).await?),
            }
        })
        .await
    }

    pub(super) async fn retry(
        &self,
        key: String,
        job: JobRef,
    ) -> Result<Submission, ControlFailed> {
        in_time(async {
            match self {
                Feed::InProcess(source) => source.retry(key, job).await,
                Feed::Plugin(plugin) => Ok(plugin.retry(key, job).await?),
            }
        })
        .await
    }

    pub(super) async fn submit(
        &self,
        key: String,
        content_type: String,
        body: Vec<u8>,
    ) -> Result<Submission, ControlFailed> {
        in_time(async {
            match self {
                Feed::InProcess(source) => source.submit(key, content_type, body).await,
                Feed::Plugin(plugin) => Ok(plugin.submit(key, content_type, body).await?),
            }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_certainly_not_sent_counts_as_not_asked() {
        let of = |kind, retry_after, acted| of_failure("why".into(), kind, retry_after, acted);
        for kind in [None, Some(FailureKind::Transient)] {
            let failed = of(kind, None, false);
            assert!(
                matches!(failed, ControlFailed::NotAsked { passing: true, .. }),
                "{kind:?}"
            );
            assert!(
                matches!(of(kind, None, true), ControlFailed::Unclear { .. }),
                "{kind:?}"
            );
            let told_to_wait = of(kind, Some(Duration::from_secs(9)), true);
            assert!(
                matches!(told_to_wait, ControlFailed::NotAsked { passing: true, .. }),
                "{kind:?}"
            );
        }
        let no = of(Some(FailureKind::Unsupported), None, true);
        assert_eq!(no, ControlFailed::Refused("why".into()));
    }
}
