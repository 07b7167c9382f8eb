//! Failures, by what the host shall do about them.

use crate::{Failure, FailureKind};

fn failure(kind: FailureKind, message: impl Into<String>) -> Failure {
    Failure {
        message: message.into(),
        kind: Some(kind),
        retry_after_ms: None,
    }
}

/// Try again with backoff.
pub fn transient(message: impl Into<String>) -> Failure {
    failure(FailureKind::Transient, message)
}

/// This input can never succeed.
pub fn permanent(message: impl Into<String>) -> Failure {
    failure(FailureKind::Permanent, message)
}

/// Stop calling until configuration or credentials change.
pub fn misconfigured(message: impl Into<String>) -> Failure {
    failure(FailureKind::Misconfigured, message)
}
