//! A round: every list once, then the tasks of running pipelines, then what left the lists.
//!
//! A round may take several calls, each with a bounded number of requests. Where it stands is in the cursor; which
//! jobs it mentioned is only in memory. A round that goes on in another instance (after a crash or a restart) or
//! after a failed call is finished as `partial`: nobody is called missing on half of the evidence.

pub mod list;
pub mod lookup;
pub mod tasks;

use std::collections::HashSet;
use std::ops::RangeInclusive;

use weir_sdk::bindings::weir::plugin::types::{Job, JobRef, Observation};
use weir_sdk::{Failure, FailureKind, Far, Level, text};

use crate::bindings::exports::weir::plugin::jobs::{Coverage, Page};
use crate::client::{Client, Trouble};
use crate::config::{Config, CreatedAfter};
use crate::cursor::{Cursor, Failed, Pause, Round};
use crate::name::{Name, Scope};
use crate::source::{Memory, RoundMemory, digest};
use crate::time::{DAY, HOUR, MINUTE, SECOND};

/// Jobs of one call; the host takes 5 000, and 500 ms of work.
const JOBS_MAX: usize = 500;
/// Calls of one round; the host takes 100.
const PAGES_MAX: u32 = 90;
/// An interrupted round that is older has nothing to go on with.
const ROUND_AGE_MAX: u64 = 10 * MINUTE;
/// A scope's window begins so long before the newest time at which everything was listed.
pub const OVERLAP: u64 = 15 * MINUTE;
/// A mark moves in steps, so that a quiet round leaves the cursor as it was.
const MARK_STEP: u64 = 5 * MINUTE;
/// The same trouble is logged again after this.
const LOG_EVERY: u64 = 10 * MINUTE;
const WHY_MAX: usize = 400;
const PAUSE_DEFAULT: u64 = 10 * SECOND;
const PAUSE_MAX: u64 = HOUR;
const LASTING_PAUSE: u64 = MINUTE;
const LASTING_PAUSE_MAX: u64 = 10 * MINUTE;

/// One call of a round.
pub struct Turn<'a, F> {
    pub client: Client<'a, F>,
    pub config: &'a Config,
    pub scopes: &'a [Scope],
    pub cursor: Cursor,
    pub memory: &'a mut Memory,
    pub open: &'a [JobRef],
    /// In the order in which they shall be told.
    pub jobs: Vec<Job>,
    /// Digests of ends that this page tells.
    pub told: Vec<u64>,
}

/// Whether a stage of the round is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Over,
    /// This call did what it may.
    Interrupted,
}

impl<F: Far> Turn<'_, F> {
    pub fn run(mut self) -> Result<Page, Failure> {
        self.take_pauses();
        let mut round = self.begin();
        let open: HashSet<u64> = self.open.iter().map(|open| digest(&open.id)).collect();
        round.pages += 1;
        let is_over = self.lists(&mut round, &open) == Stage::Over
            && self.tasks(&mut round) == Stage::Over
            && self.lookups(&mut round) == Stage::Over;
        if is_over {
            return self.finish(round);
        }
        if round.pages >= PAGES_MAX {
            // The host ends it here anyway; the next one goes on where this one stands.
            round.unsure = true;
            round.pages = 0;
            self.memory.round = None;
            self.cursor.contacted = true;
            self.cursor.round = Some(round);
            return Ok(self.page(Coverage::Partial));
        }
        self.cursor.round = Some(round);
        Ok(self.page(Coverage::More))
    }

    fn now(&self) -> u64 {
        self.client.far.now()
    }

    /// The round under way, or a new one.
    fn begin(&mut self) -> Round {
        let now = self.now();
        let known = self.cursor.round.take().filter(|round| {
            self.memory.abandoned != Some(round.started)
                && now.saturating_sub(round.started) < ROUND_AGE_MAX
                && round.started <= now
        });
        match known {
            Some(mut round) => {
                let is_ours = self.memory.round.as_ref();
                if is_ours.is_none_or(|memory| memory.started != round.started) {
                    round.unsure = true;
                    round.blind = true;
                    self.memory.round = Some(RoundMemory {
                        started: round.started,
                        ..RoundMemory::default()
                    });
                }
                round
            }
            None => {
                self.memory.round = Some(RoundMemory {
                    started: now,
                    ..RoundMemory::default()
                });
                Round {
                    started: now,
                    since: match self.config.created_after {
                        CreatedAfter::Age(age) => now.saturating_sub(age),
                        CreatedAfter::Time(time) => time,
                    },
                    ..Round::default()
                }
            }
        }
    }

    /// Every scope was asked: says what the round is worth.
    fn finish(mut self, mut round: Round) -> Result<Page, Failure> {
        let started = round.started;
        let failed = std::mem::take(&mut round.failed);
        self.memory.round = None;
        self.log(&failed);
        let is_all = !self.scopes.is_empty() && failed.len() >= self.scopes.len();
        if is_all {
            self.memory.abandoned = Some(started);
            return Err(self.failure(&failed));
        }
        self.memory.abandoned = None;
        for failed in &failed {
            let scope = &self.scopes[failed.scope];
            if !self.cursor.contacted {
                // The first round is over without it. What ended before would be told as news later: it stays unknown.
                self.cursor.marks.insert(scope.key(), started);
            }
            if failed.lasting && failed.asked {
                let why = &failed.message;
                self.pause(&scope.key(), why, None, LASTING_PAUSE..=LASTING_PAUSE_MAX);
                self.set_lasting(&scope.key());
            }
        }
        self.cursor.contacted = true;
        let coverage = if failed.is_empty() && !round.unsure {
            Coverage::Complete
        } else {
            Coverage::Partial
        };
        Ok(self.page(coverage))
    }

    fn page(mut self, coverage: Coverage) -> Page {
        if !self.told.is_empty() {
            self.cursor.told += 1;
        }
        let cursor = self.cursor.to_json();
        if let Some(cursor) = &cursor {
            self.memory.seen.tell(cursor.clone(), self.told);
        }
        Page {
            observations: self.jobs.into_iter().map(Observation::Job).collect(),
            cursor,
            coverage,
        }
    }

    /// No scope answered: the whole poll failed, and the host waits as long as the first of them asks for.
    fn failure(&self, failed: &[Failed]) -> Failure {
        let now = self.now();
        let wait = |failed: &Failed| {
            let scope = &self.scopes[failed.scope];
            Some(self.paused(scope)?.until.saturating_sub(now))
        };
        let waits = failed.iter().map(|failed| wait(failed).unwrap_or(0));
        let wait = waits.min().filter(|wait| *wait > 0);
        let mut messages: Vec<&str> = Vec::new();
        for failed in failed {
            if !messages.contains(&failed.message.as_str()) && messages.len() < 4 {
                messages.push(&failed.message);
            }
        }
        let kind = if failed.iter().all(|failed| failed.lasting) {
            FailureKind::Misconfigured
        } else {
            FailureKind::Transient
        };
        Failure {
            message: messages.join("; "),
            kind: Some(kind),
            retry_after_ms: wait.map(|wait| u32::try_from(wait).unwrap_or(u32::MAX)),
        }
    }

    /// Each trouble once, again when it changes, and now and then while it lasts.
    fn log(&mut self, failed: &[Failed]) {
        let now = self.now();
        let mut logged = std::mem::take(&mut self.memory.logged);
        for failed in failed {
            let key = self.scopes[failed.scope].key();
            let is_known = logged.get(&key).is_some_and(|(message, at)| {
                // A scope that rests has its first message, and until when.
                failed.message.starts_with(message) && now.saturating_sub(*at) < LOG_EVERY
            });
            if !is_known {
                let text = format!("not listed, its jobs stay as they were: {}", failed.message);
                self.client.far.log(Level::Warn, &text);
                logged.insert(key, (failed.message.clone(), now));
            }
        }
        logged.retain(|key, _| {
            let is_failing = failed.iter().any(|f| self.scopes[f.scope].key() == *key);
            if !is_failing {
                self.client
                    .far
                    .log(Level::Info, &format!("{key} is listed again"));
            }
            is_failing
        });
        self.memory.logged = logged;
    }

    /// A job that a list or a lookup showed.
    pub fn tell(&mut self, job: Job) {
        let digest = digest(&job.id);
        if let Some(round) = &mut self.memory.round {
            round.mentioned.insert(digest);
        }
        self.jobs.push(job);
    }

    pub fn is_mentioned(&self, id: &str) -> bool {
        let round = self.memory.round.as_ref();
        round.is_some_and(|round| round.mentioned.contains(&digest(id)))
    }

    /// What the operator calls the project of a name.
    pub fn project(&self, name: &Name) -> String {
        let known = self.cursor.numbers.get(&name.project);
        known.unwrap_or(&name.project).clone()
    }

    /// Whether one more job or request would be too much for this call.
    pub fn is_full(&self) -> bool {
        !self.client.has_room() || self.jobs.len() >= JOBS_MAX
    }

    /// Pauses live in the cursor and, since a failed poll stores none, in memory.
    fn take_pauses(&mut self) {
        let now = self.now();
        let is_recent = |pause: &Pause| now.saturating_sub(pause.until) < HOUR;
        self.memory.pauses.retain(|_, pause| is_recent(pause));
        self.cursor.pauses.retain(|_, pause| is_recent(pause));
        for (place, pause) in &self.memory.pauses {
            let known = self.cursor.pauses.entry(place.clone()).or_default();
            if pause.until > known.until {
                *known = pause.clone();
            }
        }
    }

    /// Why and until when a scope may not be asked.
    pub fn paused(&self, scope: &Scope) -> Option<&Pause> {
        let keys = [scope.place(), scope.key()];
        let pauses = keys.iter().filter_map(|key| self.cursor.pauses.get(key));
        let now = self.now();
        // A clock that was set back must not silence a scope for long.
        let is_on = |pause: &&Pause| pause.until > now && pause.until - now <= DAY;
        pauses.filter(is_on).max_by_key(|pause| pause.until)
    }

    /// Nobody asks before `wait` is over; without one, ever longer.
    fn pause(&mut self, key: &str, why: &str, wait: Option<u64>, range: RangeInclusive<u64>) {
        let now = self.now();
        let pause = self.cursor.pauses.entry(key.to_owned()).or_default();
        pause.count = pause.count.saturating_add(1);
        pause.why = text::line(why, WHY_MAX);
        let wait = wait.unwrap_or_else(|| {
            let factor = 1_u64 << (pause.count - 1).min(10);
            let doubled = range.start().saturating_mul(factor).min(*range.end());
            // Spread over half as much again, by what differs between instances and times: no two come back together.
            doubled + digest(&format!("{key}{now}")) % (doubled / 2).max(1)
        });
        pause.until = now.saturating_add(wait.min(DAY));
        self.memory.pauses.insert(key.to_owned(), pause.clone());
    }

    fn set_lasting(&mut self, key: &str) {
        for pauses in [&mut self.cursor.pauses, &mut self.memory.pauses] {
            if let Some(pause) = pauses.get_mut(key) {
                pause.lasting = true;
            }
        }
    }

    /// The far side spoke of a request rate: the whole place rests.
    pub fn heed(&mut self, scope: &Scope, trouble: &Trouble) {
        if let Some(wait) = trouble.rate_wait() {
            let why = format!("{}: {}", scope.place(), trouble.message());
            self.pause(&scope.place(), &why, wait, PAUSE_DEFAULT..=PAUSE_MAX);
        }
    }

    /// A scope answered in full: its refusals are forgotten, and its mark moves.
    pub fn listed(&mut self, scope: &Scope, round: &Round) {
        for key in [scope.place(), scope.key()] {
            self.cursor.pauses.remove(&key);
            self.memory.pauses.remove(&key);
        }
        let mark = self.client.at_provider(round.started);
        let known = self.cursor.marks.get(&scope.key()).copied();
        if known.is_none_or(|known| mark.abs_diff(known) >= MARK_STEP) {
            self.cursor.marks.insert(scope.key(), mark);
        }
    }
}
