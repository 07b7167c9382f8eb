//! One request at work: on disk first, then the provider is asked, then what it answered is on disk too.

use super::{ControlFailed, Controlled};
use crate::clock::Clock;
use crate::journal::{
    Commit, CommitError, ControlCommit, JournalError, JournalHandle, RequestAnswer, RequestRow,
};
use crate::source::Look;
use actix::Message;
use jiff::Timestamp;
use std::time::Duration;
use tokio::sync::oneshot;
use weir_model::control::Submission;
use weir_model::event::ControlEvent;
use weir_model::request::{ATTEMPTS_MAX, Action, RequestState, pause};

/// Bytes of a provider's answer that are kept for a key that comes again.
const ANSWER_KEPT_MAX: usize = 256 << 10;
/// Bytes of a reason.
const REASON_MAX: usize = 2000;
/// A full queue of the journal is waited for in steps of this.
const BUSY_PAUSE: Duration = Duration::from_millis(20);
const BUSY_TRIES: u32 = 250;
/// Who answers so gave up waiting, or stands between: the provider may have taken it (RFC 9110, 15.5.9, 15.6.3, 15.6.5).
const GATEWAY: [u16; 3] = [408, 502, 504];

/// Journal a request and act on it.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Begin {
    /// In the state `requested`.
    pub row: RequestRow,
    /// Of a submission.
    pub content_type: String,
    pub body: Vec<u8>,
    /// A cancel is answered once it is on disk; the others once the provider has answered.
    pub reply: oneshot::Sender<Result<Begun, BeginError>>,
}

impl Begin {
    pub(super) fn refuse(self, error: BeginError) {
        // Who asked may be gone.
        let _ = self.reply.send(Err(error));
    }
}

/// A request that was journaled.
#[derive(Clone, Debug)]
pub struct Begun {
    pub row: RequestRow,
    /// The provider's own answer, whole.
    pub answer: Option<Submission>,
}

/// Why nothing was asked.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum BeginError {
    #[error("too much is asked at once")]
    Busy,
    /// Another request stands in its place.
    #[error("{0}")]
    Taken(String),
    #[error("not recorded: {0}")]
    NotRecorded(String),
}

pub(super) async fn begin(
    journal: JournalHandle,
    clock: Clock,
    source: Option<Controlled>,
    begin: Begin,
) {
    let Begin {
        row,
        content_type,
        body,
        reply,
    } = begin;
    let requested = ControlEvent::Requested {
        request: row.uuid,
        source: row.source,
        action: row.action,
    };
    let commit = ControlCommit {
        row: row.clone(),
        is_new: true,
        events: vec![requested],
        recorded_at: row.created_at,
    };
    if let Err(error) = record(&journal, commit).await {
        let _ = reply.send(Err(error));
        return;
    }
    if row.action == Action::Cancel {
        let _ = reply.send(Ok(Begun { row, answer: None }));
        return;
    }
    let key = row.uuid.to_string();
    let answer = match (&source, row.action, row.job.clone()) {
        (None, ..) => Err(ControlFailed::NotAsked {
            message: "its source is not in the configuration any more".to_owned(),
            passing: false,
            retry_after: None,
        }),
        (Some(source), Action::Retry, Some(job)) => source.feed.retry(key, job).await,
        (Some(source), ..) => source.feed.submit(key, content_type, body).await,
    };
    let (row, event) = answered(row, &answer, clock.now());
    let commit = ControlCommit {
        row: row.clone(),
        is_new: false,
        events: vec![event],
        recorded_at: row.updated_at,
    };
    if let Err(error) = record(&journal, commit).await {
        // The request itself is on disk: once the journal is open again the job is looked for. Who submitted is told
        // what the provider said, for who is told nothing submits twice.
        tracing::error!(request = %row.uuid, %error, "the provider's answer was not recorded");
    }
    if let (Some(source), true) = (&source, row.new_job.is_some()) {
        source.slot.signal(Look);
    }
    let answer = answer.ok();
    let _ = reply.send(Ok(Begun { row, answer }));
}

/// The request after the provider's answer, and what is to be told of it.
fn answered(
    mut row: RequestRow,
    answer: &Result<Submission, ControlFailed>,
    now: Timestamp,
) -> (RequestRow, ControlEvent) {
    row.attempts = row.attempts.saturating_add(1);
    match answer {
        Ok(submission) => {
            let body = (submission.body.len() <= ANSWER_KEPT_MAX).then(|| submission.body.clone());
            row.answer = Some(RequestAnswer {
                status: submission.status,
                content_type: submission.content_type.clone(),
                body,
            });
            row.asked = row.asked.saturating_add(1);
            row.asked_at = Some(now);
            row.new_job.clone_from(&submission.job);
            if submission.job.is_some() {
                asked(row, None, now)
            } else if GATEWAY.contains(&submission.status) {
                let note = format!(
                    "answered {}, which does not say whether it was taken; looking for the job",
                    submission.status
                );
                asked(row, Some(note), now)
            } else {
                let reason = format!("the provider answered {}", submission.status);
                settled(row, RequestState::Refused, reason, now)
            }
        }
        Err(ControlFailed::Refused(reason)) => {
            settled(row, RequestState::Refused, reason.clone(), now)
        }
        Err(ControlFailed::NotAsked { message, .. }) => {
            settled(row, RequestState::Failed, message.clone(), now)
        }
        Err(ControlFailed::Unclear { message, .. }) => {
            row.asked_at = Some(now);
            let note = format!("its answer was lost ({message}); looking for the job");
            asked(row, Some(note), now)
        }
    }
}

/// Asks for a cancel. It may be asked again, so that a lost answer is no harm.
pub(super) async fn cancel(
    journal: JournalHandle,
    clock: Clock,
    source: Controlled,
    row: RequestRow,
) {
    let Some(job) = row.job.clone() else { return };
    let answer = source.feed.cancel(job).await;
    let now = clock.now();
    let (row, event) = cancel_answered(row, answer, now);
    let commit = ControlCommit {
        row,
        is_new: false,
        events: event.into_iter().collect(),
        recorded_at: now,
    };
    if let Err(error) = record(&journal, commit).await {
        tracing::warn!(%error, "the answer to a cancel was not recorded; it is asked again");
    }
}

fn cancel_answered(
    mut row: RequestRow,
    answer: Result<(), ControlFailed>,
    now: Timestamp,
) -> (RequestRow, Option<ControlEvent>) {
    row.attempts = row.attempts.saturating_add(1);
    row.updated_at = now;
    let (message, retry_after) = match answer {
        Ok(()) => {
            let first = row.asked == 0;
            row.asked = row.asked.saturating_add(1);
            row.asked_at = Some(now);
            row.not_before = None;
            row.reason = None;
            let (row, event) = asked(row, None, now);
            return (row, first.then_some(event));
        }
        Err(ControlFailed::Refused(reason)) => {
            let (row, event) = settled(row, RequestState::Refused, reason, now);
            return (row, Some(event));
        }
        // Once it was taken, a provider that no longer knows the job may have done what was asked.
        Err(ControlFailed::NotAsked {
            message,
            passing: false,
            ..
        }) if row.asked == 0 => {
            let (row, event) = settled(row, RequestState::Failed, message, now);
            return (row, Some(event));
        }
        Err(
            ControlFailed::NotAsked {
                message,
                retry_after,
                ..
            }
            | ControlFailed::Unclear {
                message,
                retry_after,
            },
        ) => (message, retry_after),
    };
    let failures = row.attempts.saturating_sub(row.asked);
    if row.asked == 0 && row.attempts >= ATTEMPTS_MAX {
        let reason = format!("tried {} times: {message}", row.attempts);
        let (row, event) = settled(row, RequestState::Failed, reason, now);
        return (row, Some(event));
    }
    row.reason = Some(clipped(message));
    row.not_before = now.checked_add(pause(failures, retry_after)).ok();
    (row, None)
}

pub(super) async fn settle(
    journal: JournalHandle,
    clock: Clock,
    row: RequestRow,
    state: RequestState,
    reason: String,
) {
    let now = clock.now();
    let (row, event) = settled(row, state, reason, now);
    let commit = ControlCommit {
        row,
        is_new: false,
        events: vec![event],
        recorded_at: now,
    };
    if let Err(error) = record(&journal, commit).await {
        tracing::warn!(%error, "the end of a control request was not recorded; it is judged again");
        // The journal may be closed for a while.
        clock.sleep(Duration::from_secs(1)).await;
    }
}

fn asked(mut row: RequestRow, note: Option<String>, now: Timestamp) -> (RequestRow, ControlEvent) {
    row.state = RequestState::Asked;
    row.updated_at = now;
    row.reason = note.clone().map(clipped);
    let event = ControlEvent::Asked {
        request: row.uuid,
        source: row.source,
        action: row.action,
        note: note.map(clipped),
    };
    (row, event)
}

fn settled(
    mut row: RequestRow,
    state: RequestState,
    reason: String,
    now: Timestamp,
) -> (RequestRow, ControlEvent) {
    let reason = clipped(reason);
    row.state = state;
    row.updated_at = now;
    row.not_before = None;
    row.reason = Some(reason.clone());
    let event = ControlEvent::Settled {
        request: row.uuid,
        source: row.source,
        action: row.action,
        state,
        reason,
    };
    (row, event)
}

fn clipped(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(REASON_MAX));
    text
}

/// Makes it durable; a full queue is waited for.
async fn record(journal: &JournalHandle, commit: ControlCommit) -> Result<(), BeginError> {
    let mut tries = 0;
    loop {
        match journal.try_commit(Commit::Control(Box::new(commit.clone()))) {
            Ok(committed) => {
                return match committed.await {
                    Ok(_) => Ok(()),
                    Err(CommitError::Rejected { reason }) => Err(BeginError::Taken(reason)),
                    Err(error) => Err(BeginError::NotRecorded(error.to_string())),
                };
            }
            Err(JournalError::Busy) if tries < BUSY_TRIES => {
                tries += 1;
                tokio::time::sleep(BUSY_PAUSE).await;
            }
            Err(error) => return Err(BeginError::NotRecorded(error.to_string())),
        }
    }
}
