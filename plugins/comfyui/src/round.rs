//! One round of polling, and what its two ways have in common: following single prompts into the history.

use weir_sdk::Far;
use weir_sdk::bindings::weir::plugin::types::Job;

use crate::bindings::exports::weir::plugin::jobs::Coverage;
use crate::client::{Trouble, segment};
use crate::job::Key;
use crate::source::Context;
use crate::wire::{Entry, History};

pub mod jobs;
pub mod queue;

/// The host allows 32 requests a call; a round needs a few of them for its lists.
pub const LOOKUPS_MAX: usize = 16;
/// No look-up begins later in a poll than this: a slow server is followed over several polls, and the host allows 30 s
/// for one.
const LOOKUPS_UNTIL: u64 = 10_000;
/// How long "in neither queue nor history" is believed: a prompt does not come back, but a proxy can lie.
const GONE_FOR: u64 = 10 * 60 * 1000;
const GONE_MAX: usize = 5000;

/// What `/history/{id}` says about one run.
#[derive(Debug)]
pub enum Lookup {
    Found(Box<Entry>),
    /// Nothing, or another run under the same id.
    Absent,
    /// An answer that is too large or no JSON.
    Unreadable,
}

impl<F: Far> Context<'_, F> {
    /// Asks the history for one run; only a server that does not answer is an error.
    pub fn look_up(&self, key: &Key) -> Result<Lookup, Trouble> {
        let path = format!("/history/{}", segment(&key.id));
        match self.client.json::<History>(&path) {
            Ok(history) => Ok(history
                .0
                .into_iter()
                .map(|(_, entry)| entry)
                .find(|entry| Key::of_prompt(&entry.prompt) == *key)
                .map_or(Lookup::Absent, |entry| Lookup::Found(Box::new(entry)))),
            Err(trouble @ Trouble::NoAnswer(_)) => Err(trouble),
            Err(_) => Ok(Lookup::Unreadable),
        }
    }

    /// Whether this poll may look one more up.
    pub fn has_time(&self) -> bool {
        self.client.far.now().saturating_sub(self.now) < LOOKUPS_UNTIL
    }

    /// Looks up jobs that left the queue, at most `room` of them. Says whether every answer could be read.
    pub fn follow(
        &mut self,
        missing: Vec<Key>,
        room: usize,
        jobs: &mut Vec<Job>,
    ) -> Result<bool, Trouble> {
        let mut is_sure = true;
        for (count, key) in missing.into_iter().take(room).enumerate() {
            if count > 0 && !self.has_time() {
                return Ok(false);
            }
            match self.look_up(&key)? {
                Lookup::Found(entry) => {
                    jobs.push(self.views().finished(&entry));
                    self.cursor.see(&key);
                }
                Lookup::Absent => self.set_gone(key),
                Lookup::Unreadable => is_sure = false,
            }
        }
        Ok(is_sure)
    }

    pub fn is_gone(&self, key: &Key) -> bool {
        self.memory
            .gone
            .get(key)
            .is_some_and(|at| self.now.saturating_sub(*at) < GONE_FOR)
    }

    pub fn set_gone(&mut self, key: Key) {
        if self.memory.gone.len() >= GONE_MAX {
            self.memory.gone.clear();
        }
        self.memory.gone.insert(key, self.now);
    }

    /// What is remembered of jobs that the host no longer asks about is of no use.
    pub fn forget_gone(&mut self) {
        let open = &self.open;
        self.memory.gone.retain(|key, _| open.contains(key));
    }
}

/// `is_sure`: everything that was asked for could be read.
fn coverage(is_more: bool, is_sure: bool) -> Coverage {
    match (is_more, is_sure) {
        (true, _) => Coverage::More,
        (false, true) => Coverage::Complete,
        (false, false) => Coverage::Partial,
    }
}

/// Places in the queue: ComfyUI runs the smallest number first, then the smallest id.
pub fn by_place(a: (Option<f64>, &str), b: (Option<f64>, &str)) -> std::cmp::Ordering {
    let number = |number: Option<f64>| number.unwrap_or(f64::INFINITY);
    number(a.0)
        .total_cmp(&number(b.0))
        .then_with(|| a.1.cmp(b.1))
}
