//! weir's own troubles: said once when they begin, once when they end, and journaled so that `weir_trouble` fires.

use crate::clock::Clock;
use crate::journal::{Commit, JournalHandle};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use weir_model::event::SystemEvent;

/// Troubles kept at once; what would be one more is logged only.
const ACTIVE_MAX: usize = 256;

/// Where every room reports what an operator must hear. Clones share it.
#[derive(Clone, Debug)]
pub struct Troubles {
    journal: JournalHandle,
    clock: Clock,
    active: Arc<Mutex<BTreeMap<String, String>>>,
}

impl Troubles {
    pub(crate) fn new(journal: JournalHandle, clock: Clock) -> Troubles {
        Troubles {
            journal,
            clock,
            active: Arc::default(),
        }
    }

    /// `subject` identifies the trouble (`receiver phone`), which is said once. False: it was known already.
    pub(crate) fn raise(&self, subject: &str, message: &str) -> bool {
        let mut active = self.active.lock().unwrap_or_else(PoisonError::into_inner);
        if active.contains_key(subject) || active.len() >= ACTIVE_MAX {
            return false;
        }
        active.insert(subject.to_owned(), message.to_owned());
        drop(active);
        tracing::error!(%subject, %message, "weir needs an operator");
        let event = SystemEvent::Trouble {
            subject: subject.to_owned(),
            message: message.to_owned(),
        };
        self.record(event, Some(subject));
        true
    }

    pub(crate) fn clear(&self, subject: &str) {
        let removed = self
            .active
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(subject);
        if removed.is_some() {
            tracing::info!(%subject, "trouble is over");
            self.record(
                SystemEvent::TroubleCleared {
                    subject: subject.to_owned(),
                },
                None,
            );
        }
    }

    pub(crate) fn is_active(&self, subject: &str) -> bool {
        let active = self.active.lock().unwrap_or_else(PoisonError::into_inner);
        active.contains_key(subject)
    }

    /// What is wrong now: (subject, message).
    pub fn active(&self) -> Vec<(String, String)> {
        let active = self.active.lock().unwrap_or_else(PoisonError::into_inner);
        active.iter().map(|(s, m)| (s.clone(), m.clone())).collect()
    }

    fn record(&self, event: SystemEvent, raised: Option<&str>) {
        let commit = Commit::system(vec![event], self.clock.now());
        if self.journal.try_commit(commit).is_err()
            && let Some(subject) = raised
        {
            // Said again when it happens again: the journal may be open by then.
            self.active
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(subject);
        }
    }
}
