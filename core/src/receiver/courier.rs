//! What carries one message to where a receiver's messages go, and writes the ledger of it.

use super::{Bell, PROBE, RoundFailed, Target};
use crate::clock::Clock;
use crate::email::{Accepted, Refused};
use crate::journal::{AlertCommit, Commit, JournalHandle, OutboxRow, OutboxState, OutboxUpdate};
use crate::plugin::CallError;
use crate::trouble::Troubles;
use jiff::Timestamp;
use std::time::Duration;
use weir_model::alert::delivery::{Attempt, Delivery, DeliveryState, FailureKind, Verdict};
use weir_model::alert::fact::receiver_subject;
use weir_model::alert::notification::Notification;
use weir_model::observation;

/// Characters of an answer that the ledger keeps.
const ANSWER_LEN_MAX: usize = 512;
/// The annotation that says why a message comes from the fallback.
const FALLBACK_REASON: &str = "fallback_reason";

/// Carries one message: everything the actor needs outside of itself while it waits.
pub(super) struct Courier {
    pub(super) name: String,
    pub(super) target: Target,
    pub(super) fallback: Option<String>,
    pub(super) journal: JournalHandle,
    pub(super) troubles: Troubles,
    pub(super) bell: Bell,
    pub(super) clock: Clock,
}

/// What became of one message.
pub(super) struct Carried {
    /// When it is tried again.
    pub(super) next: Option<Timestamp>,
    pub(super) parked: bool,
}

/// How the far side took it.
pub(super) struct Answer {
    pub(super) attempt: Attempt,
    pub(super) text: String,
    pub(super) receipt: Option<String>,
}

impl Courier {
    /// Delivers and writes the ledger.
    pub(super) async fn carry(
        &self,
        row: OutboxRow,
        prior: Option<String>,
    ) -> Result<Carried, RoundFailed> {
        let answer = match serde_json::from_str::<Notification>(&row.payload) {
            Ok(notification) => {
                let now = self.clock.now();
                deliver(&self.target, notification, prior, now).await
            }
            Err(error) => Answer {
                attempt: Attempt::Failed {
                    kind: FailureKind::Permanent,
                    retry_after: None,
                },
                text: format!("the stored message cannot be read: {error}"),
                receipt: None,
            },
        };
        let now = self.clock.now();
        let mut delivery = Delivery {
            state: if row.state == OutboxState::Failed {
                DeliveryState::Failed
            } else {
                DeliveryState::Queued
            },
            attempts: row.attempts,
            queued_at: row.created_at,
            next_attempt_at: row.next_attempt_at,
        };
        let verdict = delivery.attempted(now, answer.attempt, rand::random());
        let (state, next) = match verdict {
            Verdict::Sent => (OutboxState::Sent, None),
            Verdict::Retry { at } => (OutboxState::Failed, Some(at)),
            Verdict::Park => (OutboxState::Failed, now.checked_add(PROBE).ok()),
            Verdict::Dead => (OutboxState::Dead, None),
        };
        self.tell(verdict, &answer.text);
        let update = OutboxUpdate {
            id: row.id,
            state,
            attempts: delivery.attempts,
            next_attempt_at: next,
            updated_at: now,
            answer: Some(bounded(&answer.text)),
            receipt: answer.receipt,
            receiver: None,
        };
        let commit = match (verdict, &self.fallback) {
            (Verdict::Dead, Some(fallback)) => {
                self.hand_over(&row, update, fallback, &answer.text, now)
            }
            _ => Commit::Outbox(update),
        };
        let sent = self
            .journal
            .try_commit(commit)
            .map_err(|e| RoundFailed::Ledger(e.to_string()))?;
        sent.await.map_err(|e| RoundFailed::Ledger(e.to_string()))?;
        if verdict == Verdict::Dead {
            self.bell.ring();
        }
        Ok(Carried {
            next,
            parked: verdict == Verdict::Park,
        })
    }

    fn tell(&self, verdict: Verdict, answer: &str) {
        let subject = receiver_subject(&self.name);
        match verdict {
            Verdict::Sent => self.troubles.clear(&subject),
            Verdict::Retry { .. } => {
                tracing::warn!(receiver = %self.name, answer = %bounded(answer), "not delivered, trying again later");
            }
            Verdict::Park => raise_parked(&self.troubles, &self.name, answer),
            Verdict::Dead => {
                tracing::error!(receiver = %self.name, answer = %bounded(answer), "notification given up");
            }
        }
    }

    /// One transaction: this message is dead, the fallback gets it with the reason.
    fn hand_over(
        &self,
        row: &OutboxRow,
        update: OutboxUpdate,
        fallback: &str,
        why: &str,
        now: Timestamp,
    ) -> Commit {
        let mut payload = row.payload.clone();
        if let Ok(mut notification) = serde_json::from_str::<Notification>(&row.payload) {
            let reason = format!("{} could not deliver this ({}).", self.name, bounded(why));
            notification.receiver = fallback.to_owned();
            notification.text = format!("{reason}\n{}", notification.text);
            // A handler that sends no text, such as `webhook`, shows annotations.
            let annotation = (FALLBACK_REASON.to_owned(), reason);
            for alert in &mut notification.alerts {
                alert.annotations.push(annotation.clone());
            }
            notification.common_annotations.push(annotation);
            payload = serde_json::to_string(&notification).unwrap_or(payload);
        }
        let taken_over = OutboxRow {
            id: self.journal.next_outbox_id(),
            alert: row.alert,
            key: row.key.clone(),
            receiver: fallback.to_owned(),
            payload,
            state: OutboxState::Queued,
            attempts: 0,
            created_at: now,
            next_attempt_at: Some(now),
            updated_at: now,
            answer: None,
            receipt: None,
        };
        Commit::Alerts(AlertCommit {
            events: Vec::new(),
            system: Vec::new(),
            alerts: Vec::new(),
            outbox: vec![taken_over],
            outbox_updates: vec![update],
            checkpoint: None,
            recorded_at: now,
        })
    }
}

/// Everybody else is told that this receiver cannot be.
pub(super) fn raise_parked(troubles: &Troubles, name: &str, answer: &str) {
    let answer = bounded(answer);
    troubles.raise(
        &receiver_subject(name),
        &format!("receiver {name} is parked until its configuration changes: {answer}"),
    );
}

pub(super) async fn deliver(
    target: &Target,
    notification: Notification,
    prior: Option<String>,
    now: Timestamp,
) -> Answer {
    match target {
        Target::Log => {
            tracing::info!(
                target: "weir::alert",
                severity = ?notification.severity,
                status = ?notification.status,
                title = %notification.title,
                text = %notification.text,
                "alert"
            );
            delivered("written to the log", None)
        }
        Target::Plugin(plugin) => match plugin.deliver(notification, prior).await {
            Ok(receipt) => delivered("delivered", receipt),
            Err(error) => {
                let text = error.to_string();
                let (kind, retry_after) = failure_of(&error);
                failed(kind, retry_after, text)
            }
        },
        Target::Email(mailer) => match mailer.deliver(&notification, prior.as_deref(), now).await {
            Ok(Accepted { answer, receipt }) => delivered(&answer, Some(receipt)),
            Err(Refused { kind, answer }) => failed(kind, None, answer),
        },
        Target::Unusable(reason) => failed(FailureKind::Misconfigured, None, reason.clone()),
    }
}

fn delivered(text: &str, receipt: Option<String>) -> Answer {
    Answer {
        attempt: Attempt::Delivered,
        text: text.to_owned(),
        receipt,
    }
}

fn failed(kind: FailureKind, retry_after: Option<Duration>, text: String) -> Answer {
    Answer {
        attempt: Attempt::Failed { kind, retry_after },
        text,
        receipt: None,
    }
}

fn failure_of(error: &CallError) -> (FailureKind, Option<Duration>) {
    match error {
        CallError::Failed {
            kind, retry_after, ..
        } => {
            let kind = match kind {
                Some(observation::FailureKind::Permanent) => FailureKind::Permanent,
                // A receiver has one address: nothing is there, and only the operator can mend that.
                Some(
                    observation::FailureKind::Misconfigured | observation::FailureKind::NotFound,
                ) => FailureKind::Misconfigured,
                _ => FailureKind::Transient,
            };
            (kind, *retry_after)
        }
        CallError::Crashed { .. } => (FailureKind::Crashed, None),
        CallError::Parked { .. } | CallError::Incompatible { .. } => {
            (FailureKind::Misconfigured, None)
        }
        CallError::NotReady { retry_in, .. } | CallError::Quarantined { retry_in, .. } => {
            (FailureKind::Transient, *retry_in)
        }
        CallError::Closed => (FailureKind::Transient, None),
    }
}

pub(super) fn bounded(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control() || *c == '\n')
        .take(ANSWER_LEN_MAX)
        .collect()
}
