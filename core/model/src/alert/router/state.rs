//! What the router remembers between facts; serialised whole with its cursor.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{AlertRow, AlertState};
use crate::alert::mute::Mute;
use crate::alert::rule::{REPEAT_INTERVAL, Rule, When};
use crate::id::Seq;

/// Gaps between the notices of an event-like alert; the last one repeats.
const EVENT_GAPS: [Duration; 3] = [minutes(5), minutes(15), minutes(60)];
/// Good news is told at most this often, and then forgotten.
pub(super) const GOOD_NEWS_GAP: Duration = minutes(1);
/// A clock that is back by more than this has jumped.
const CLOCK_STEP_MAX: SignedDuration = SignedDuration::from_secs(60);

/// Everything a router is restored from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RouterState {
    /// The last event that was taken or skipped.
    pub(super) cursor: Option<Seq>,
    pub(super) now: Timestamp,
    /// By fingerprint.
    pub(super) alerts: BTreeMap<String, Live>,
    /// What holds now, by its key ([`Condition::key`]).
    pub(super) conditions: BTreeMap<String, Condition>,
    /// Unfinished jobs by source; none = 0.
    pub(super) unfinished: BTreeMap<String, u32>,
    /// By rule, then by source.
    pub(super) batches: BTreeMap<String, BTreeMap<String, Batch>>,
    pub(super) mutes: Vec<Mute>,
    /// The number of the newest life of an alert: no two have the same, however fast they follow each other.
    pub(super) newest_life: i64,
}

/// An alert that has not ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Live {
    pub(super) row: AlertRow,
    /// The condition it lasts with; none = event-like.
    pub(super) condition: Option<String>,
    /// Told as soon as it is over: completed, empty, blind.
    pub(super) passing: bool,
    /// Receivers that were sent a firing notice.
    pub(super) announced: BTreeSet<String>,
    /// Receivers from which a mute kept news, and how much of it; they are told when it ends.
    #[serde(default)]
    pub(super) withheld: BTreeMap<String, u32>,
    /// Firing notices so far.
    pub(super) notices: u32,
    pub(super) last_notice_at: Timestamp,
    /// Events since the last notice.
    pub(super) unsent: u32,
    /// Executions that turned out not to belong here (found again, corrected).
    pub(super) retracted: u32,
}

/// A state that holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Condition {
    pub(super) since: Timestamp,
    pub(super) kind: ConditionKind,
    /// Rules that have looked at it when their time had come.
    pub(super) decided: BTreeSet<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum ConditionKind {
    Stale {
        source: String,
        error: String,
    },
    Suspect {
        source: String,
        missing: u32,
        of: u32,
    },
    Over {
        resource: String,
        value: f64,
        limit: f64,
    },
    Trouble {
        subject: String,
        message: String,
    },
}

/// Jobs of one source that finished since it last had nothing to do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Batch {
    pub(super) completed: u32,
    pub(super) failed: u32,
    pub(super) lost: u32,
    pub(super) cancelled: u32,
    pub(super) since: Option<Timestamp>,
    /// When nothing was left to do.
    pub(super) empty_at: Option<Timestamp>,
}

/// What an alert waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Next {
    More,
    Repeat,
    Close,
}

impl RouterState {
    /// Moves the clock. A step back of more than a minute brings all that was noted later back with it, or alerts
    /// would be silent until the old time is reached again.
    pub(super) fn advance(&mut self, now: Timestamp, changed: &mut bool) -> Timestamp {
        if self.now.duration_since(now) > CLOCK_STEP_MAX {
            *changed = true;
            for live in self.alerts.values_mut() {
                live.last_notice_at = live.last_notice_at.min(now);
                live.row.last_at = live.row.last_at.min(now);
                live.row.started_at = live.row.started_at.min(now);
            }
            for condition in self.conditions.values_mut() {
                condition.since = condition.since.min(now);
            }
            for batch in self.batches.values_mut().flat_map(BTreeMap::values_mut) {
                batch.empty_at = batch.empty_at.map(|at| at.min(now));
                batch.since = batch.since.map(|at| at.min(now));
            }
            self.now = now;
        }
        self.now = self.now.max(now);
        self.now
    }

    /// Lets every rule look again at what holds, but for those that alert about it.
    pub(super) fn forget_decisions(&mut self) {
        for (key, condition) in &mut self.conditions {
            condition.decided.retain(|rule| {
                self.alerts
                    .values()
                    .any(|live| live.row.rule == *rule && live.condition.as_ref() == Some(key))
            });
        }
    }

    /// The group keys of the alerts that have not ended.
    pub fn group_keys(&self) -> impl Iterator<Item = &str> {
        self.alerts.values().map(|live| live.row.group_key.as_str())
    }

    pub(super) fn unfinished(&self, source: &str) -> u32 {
        self.unfinished.get(source).copied().unwrap_or(0)
    }
}

impl Live {
    pub(super) fn is_good_news(&self) -> bool {
        self.passing
    }

    /// When it needs the router; at once if its rule is gone.
    pub(super) fn due(&self, rule: Option<&Cow<'_, Rule>>) -> Option<Timestamp> {
        match rule {
            None => Some(self.row.started_at),
            Some(rule) => self.next(rule).map(|(at, _)| at),
        }
    }

    /// What it waits for, and until when.
    pub(super) fn next(&self, rule: &Rule) -> Option<(Timestamp, Next)> {
        if self.condition.is_some() {
            let repeat_interval = rule.repeat_interval.unwrap_or(REPEAT_INTERVAL);
            let repeats = self.row.state == AlertState::Firing;
            return repeats.then(|| (after(self.last_notice_at, repeat_interval), Next::Repeat));
        }
        if self.unsent > 0 {
            return Some((self.next_notice_at(rule), Next::More));
        }
        let quiet = if self.passing {
            GOOD_NEWS_GAP
        } else {
            rule.resolve_after
        };
        Some((after(self.row.last_at, quiet), Next::Close))
    }

    /// When the next event may be told.
    pub(super) fn next_notice_at(&self, rule: &Rule) -> Timestamp {
        let place = usize::try_from(self.notices.saturating_sub(1)).unwrap_or(usize::MAX);
        let gap = match rule.repeat_interval {
            Some(gap) => gap,
            None if self.passing => GOOD_NEWS_GAP,
            None => EVENT_GAPS[place.min(EVENT_GAPS.len() - 1)],
        };
        after(self.last_notice_at, gap)
    }
}

impl Condition {
    /// How long it must hold before this rule alerts; none = the rule is about something else.
    pub(super) fn delay(&self, rule: &Rule) -> Option<Duration> {
        match (&self.kind, rule.when) {
            (ConditionKind::Stale { .. }, When::SourceUnreachable { after }) => {
                Some(after.max(rule.pending_for))
            }
            // Not believing a provider is no outage that may pass: it is told at once.
            (ConditionKind::Suspect { .. }, When::SourceUnreachable { .. }) => {
                Some(rule.pending_for)
            }
            (ConditionKind::Over { .. }, When::ResourceOver) => Some(rule.pending_for),
            _ => None,
        }
    }
}

impl Batch {
    pub(super) fn finished(&self) -> u32 {
        [self.completed, self.failed, self.lost, self.cancelled]
            .into_iter()
            .fold(0, u32::saturating_add)
    }
}

/// `at + duration`, at most the end of time.
pub(super) fn after(at: Timestamp, duration: Duration) -> Timestamp {
    at.checked_add(duration).unwrap_or(Timestamp::MAX)
}

const fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(minutes * 60)
}
