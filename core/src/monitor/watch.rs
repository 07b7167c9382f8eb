//! What the monitor watches of itself: its plugins, its journal, its own blindness.

use super::runtime::{Shared, read};
use crate::journal::{Commit, JournalState};
use crate::plugin::{PluginHandle, PluginState};
use crate::receiver::DeliverUnrecorded;
use crate::source::Blinded;
use crate::supervise::Stopping;
use crate::trouble::Troubles;
use jiff::{SignedDuration, Timestamp};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use weir_model::alert::notification::Notification;
use weir_model::event::SystemEvent;

/// Between two attempts to open a closed journal again.
const REOPEN: Duration = Duration::from_secs(5);
/// How often the two clocks are compared.
const LOOK: Duration = Duration::from_secs(5);
/// A gap shorter than this is not worth a word.
const BLIND_MIN: Duration = Duration::from_secs(60);

/// Says when a plugin cannot run, and when it can again. `what` it belongs to: `source studio`. A receiver that is in
/// trouble under the same subject for a reason of its own stays so until it has delivered.
pub(super) async fn plugin(
    subject: String,
    what: String,
    plugin: PluginHandle,
    troubles: Troubles,
) {
    let mut status = plugin.subscribe();
    let mut said = false;
    loop {
        let (state, reload) = {
            let status = status.borrow_and_update();
            (status.state.clone(), status.reload.clone())
        };
        let reload_subject = format!("{subject} reload");
        if let Some(why) = reload.and_then(|report| report.error) {
            let message = format!(
                "the plugin of {what} has a new file that cannot be used, the old one goes on: {why}"
            );
            troubles.raise(&reload_subject, &message);
        } else {
            troubles.clear(&reload_subject);
        }
        match &state {
            PluginState::Parked { .. }
            | PluginState::Quarantined { .. }
            | PluginState::Incompatible { .. } => {
                let why = state.reason().unwrap_or_default();
                let message = format!("the plugin of {what} is {}: {why}", state.name());
                said |= troubles.raise(&subject, &message);
            }
            PluginState::Ready if std::mem::take(&mut said) => troubles.clear(&subject),
            PluginState::Stopped => {
                troubles.clear(&reload_subject);
                if said {
                    troubles.clear(&subject);
                }
                return;
            }
            _ => {}
        }
        if status.changed().await.is_err() {
            return;
        }
    }
}

/// Journals that weir saw nothing from `from` to `to`, once, if that was long enough to matter.
pub(super) fn tell_blind(shared: &Shared, from: Timestamp, to: Timestamp, reason: &str) {
    let gap = to.duration_since(from);
    if gap < SignedDuration::try_from(BLIND_MIN).unwrap_or_default() {
        return;
    }
    tracing::warn!(%from, %to, reason, "weir was blind");
    let event = SystemEvent::Blind {
        from,
        to,
        reason: reason.to_owned(),
    };
    drop(
        shared
            .journal
            .try_commit(Commit::system(vec![event], shared.clock.now())),
    );
}

/// Compares the wall clock with the monotonic one: they part when the machine slept or somebody set the clock.
/// Absence during such a gap is no evidence, so every source begins to count anew.
pub(super) async fn blindness(shared: Arc<Shared>, stopping: Stopping) {
    let mut seen = (SystemTime::now(), Instant::now());
    while !stopping.begun() {
        tokio::time::sleep(LOOK).await;
        let now = (SystemTime::now(), Instant::now());
        let expected = seen.0 + now.1.duration_since(seen.1);
        let ahead = now.0.duration_since(expected).unwrap_or_default();
        let back = expected.duration_since(now.0).unwrap_or_default();
        // A stall of the whole process shows as a tick that came late.
        let stalled = now.1.duration_since(seen.1).saturating_sub(LOOK);
        if ahead.max(back).max(stalled) >= BLIND_MIN {
            let to = shared.clock.now();
            let gap =
                SignedDuration::try_from(ahead.max(stalled).max(BLIND_MIN)).unwrap_or_default();
            let reason = if back >= BLIND_MIN {
                "the clock was set back"
            } else {
                "the machine was suspended, weir was stopped, or the clock was set"
            };
            tell_blind(&shared, to.checked_sub(gap).unwrap_or(to), to, reason);
            for source in read(&shared.sources).values() {
                source.slot.signal(Blinded);
            }
        }
        seen = now;
    }
}

/// A closed journal: tells every receiver past the outbox, and opens it again once its end was read back from disk.
pub(super) async fn journal(shared: Arc<Shared>, stopping: Stopping) {
    let mut state = shared.journal.watch_state();
    while !stopping.begun() {
        let now = state.borrow_and_update().clone();
        if let JournalState::Closed { reason, .. } = now {
            if stopping.begun() {
                return;
            }
            tracing::error!(%reason, "the journal is closed: intake is refused until it can be read back");
            let notice = crate::alert::journal_closed(&reason, shared.clock.now());
            for (name, receiver) in read(&shared.receivers) {
                let notice = Notification {
                    receiver: name,
                    ..notice.clone()
                };
                receiver.slot.signal(DeliverUnrecorded(Box::new(notice)));
            }
            while !stopping.begun() && shared.journal.reopen().await.is_err() {
                tokio::time::sleep(REOPEN).await;
            }
            if !stopping.begun() {
                shared.troubles.raise(
                    "journal",
                    &format!("the journal was closed and is open again: {reason}"),
                );
                shared.troubles.clear("journal");
            }
            continue;
        }
        if state.changed().await.is_err() {
            return;
        }
    }
}
