//! Queues that ran empty: one summary when a source has nothing left to do.
//!
//! A batch begins with a source's first job and ends when nothing was left for a while; jobs that come one by one
//! within that while are one batch.

use std::time::Duration;

use jiff::Timestamp;

use super::events::Occurrence;
use super::state::{Batch, after};
use super::{Decision, Router, words};
use crate::alert::fact::{Change, ExecutionFact, is_failure};
use crate::alert::notification::Severity;
use crate::alert::rule::{Rule, When};
use crate::status::Status;

/// How long a source may have nothing to do before its next job is a new batch.
const BATCH_GAP: Duration = Duration::from_secs(60);

impl Router {
    /// Counts what a source has left to do, and what came of it.
    pub(super) fn count(&mut self, now: Timestamp, fact: &ExecutionFact, out: &mut Vec<Decision>) {
        let left = self.state.unfinished(&fact.source);
        let left = match fact.change {
            Change::Created | Change::Watched => left.saturating_add(1),
            Change::Found(status) if !status.is_final() => left.saturating_add(1),
            Change::Finished(_) | Change::Lost | Change::Unwatched => left.saturating_sub(1),
            Change::Found(_) | Change::Corrected { .. } => left,
        };
        if left == 0 {
            self.state.unfinished.remove(&fact.source);
        } else {
            self.state.unfinished.insert(fact.source.clone(), left);
        }
        let watches = |rule: &&Rule| matches!(rule.when, When::QueueEmpty { .. });
        let names: Vec<String> = self
            .config
            .rules
            .iter()
            .filter(watches)
            .map(|rule| rule.name.clone())
            .collect();
        if names.is_empty() {
            return;
        }
        for name in names {
            let batches = self.state.batches.entry(name).or_default();
            batches
                .entry(fact.source.clone())
                .or_default()
                .count(now, fact.change, left);
        }
        self.changed = true;
        self.tick_batches(now, out);
    }

    /// Tells of queues that are empty, and forgets what was too little to tell of.
    pub(super) fn tick_batches(&mut self, now: Timestamp, out: &mut Vec<Decision>) {
        let mut empty: Vec<(Rule, String, Batch)> = Vec::new();
        let rules = &self.config.rules;
        self.state.batches.retain(|name, batches| {
            let Some((rule, min_jobs)) = queue_rule(rules, name) else {
                return false;
            };
            batches.retain(|source, batch| {
                let Some(empty_at) = batch.empty_at else {
                    return true;
                };
                if batch.finished() >= min_jobs && after(empty_at, rule.pending_for) <= now {
                    empty.push((rule.clone(), source.clone(), batch.clone()));
                    return false;
                }
                now < after(empty_at, rule.pending_for.max(BATCH_GAP))
            });
            !batches.is_empty()
        });
        for (rule, source, batch) in empty {
            let (title, body) = words::queue_empty(&source, &batch);
            let occurrence = Occurrence {
                identity: &[("source", &source)],
                severity: rule.severity.unwrap_or(Severity::Info),
                title,
                body,
                url: None,
                annotations: Vec::new(),
                execution: None,
                passing: true,
                condition: None,
            };
            self.happened(&rule, occurrence, now, out);
        }
    }

    pub(super) fn batches_due(&self) -> Option<Timestamp> {
        let due = self.state.batches.iter().flat_map(|(name, batches)| {
            let rule = queue_rule(&self.config.rules, name);
            batches.values().filter_map(move |batch| {
                let Some((rule, min_jobs)) = rule else {
                    return Some(Timestamp::MIN);
                };
                let enough = batch.finished() >= min_jobs;
                let wait = if enough {
                    rule.pending_for
                } else {
                    rule.pending_for.max(BATCH_GAP)
                };
                batch.empty_at.map(|at| after(at, wait))
            })
        });
        due.min()
    }
}

fn queue_rule<'a>(rules: &'a [Rule], name: &str) -> Option<(&'a Rule, u32)> {
    let rule = rules.iter().find(|rule| rule.name == name)?;
    match rule.when {
        When::QueueEmpty { min_jobs } => Some((rule, min_jobs.max(1))),
        _ => None,
    }
}

impl Batch {
    fn count(&mut self, now: Timestamp, change: Change, left: u32) {
        self.since.get_or_insert(now);
        match change {
            Change::Finished(status) => self.add(status, 1),
            Change::Found(status) if status.is_final() => {
                self.lost = self.lost.saturating_sub(1);
                self.add(status, 1);
            }
            Change::Found(_) => self.lost = self.lost.saturating_sub(1),
            Change::Lost => self.lost = self.lost.saturating_add(1),
            Change::Corrected { from, to } => {
                // A correction of a job that an earlier batch has told of is not this batch's.
                if self.has(from) {
                    self.add(from, -1);
                    self.add(to, 1);
                }
            }
            Change::Created | Change::Watched | Change::Unwatched => {}
        }
        // A queue that nobody looks at any more is not known to be empty.
        let ended = matches!(change, Change::Finished(_) | Change::Lost);
        self.empty_at = match left {
            0 if ended => Some(now),
            0 => self
                .empty_at
                .or_else(|| (self.finished() == 0).then_some(now)),
            _ => None,
        };
    }

    fn has(&self, status: Status) -> bool {
        match status {
            Status::Completed => self.completed > 0,
            Status::Cancelled => self.cancelled > 0,
            status => is_failure(status) && self.failed > 0,
        }
    }

    fn add(&mut self, status: Status, by: i32) {
        let counter = match status {
            Status::Completed => &mut self.completed,
            Status::Cancelled => &mut self.cancelled,
            _ => &mut self.failed,
        };
        *counter = counter.saturating_add_signed(by);
    }
}
