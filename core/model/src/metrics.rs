//! Metrics: what became of executions and how long they took, per workflow and overall.
//!
//! Counted once, from the journal, and checkpointed with the cursor: never recomputed from rows that retention may
//! have deleted.

pub mod histogram;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::histogram::Histogram;
use crate::id::{SourceId, WorkflowId};
use crate::status::Status;

/// One change of one execution's status.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MetricFact {
    pub workflow: WorkflowId,
    pub source: SourceId,
    /// History that was there before weir: in no count, rate or duration.
    pub imported: bool,
    /// None = it was created.
    pub from: Option<Status>,
    pub to: Status,
    /// From start to end, where `to` is final and both are known.
    pub duration: Option<Duration>,
    /// From creation to start, given once: with the change by which it became known.
    pub queue_wait: Option<Duration>,
}

/// Counts and durations of one workflow, or of all.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Aggregate {
    /// Executions that are in this status now; only statuses that occurred. Imported ones are not among them.
    #[serde(with = "by_status")]
    now: BTreeMap<Status, u64>,
    /// Of every execution that finished, whatever its verdict.
    pub duration: Histogram,
    pub queue_wait: Histogram,
    pub imported: u64,
    /// Verdicts that were replaced.
    pub corrected: u64,
}

impl Aggregate {
    pub fn observe(&mut self, fact: &MetricFact) {
        if fact.imported {
            self.imported += u64::from(fact.from.is_none());
            return;
        }
        if let Some(from) = fact.from
            && let Some(count) = self.now.get_mut(&from)
        {
            *count = count.saturating_sub(1);
        }
        *self.now.entry(fact.to).or_default() += 1;
        let corrects = fact.from.is_some_and(Status::is_final);
        self.corrected += u64::from(corrects);
        // A corrected verdict changes how it ended, not how long it took: that was counted.
        if let Some(duration) = fact.duration.filter(|_| fact.to.is_final() && !corrects) {
            self.duration.record(duration);
        }
        if let Some(queue_wait) = fact.queue_wait {
            self.queue_wait.record(queue_wait);
        }
    }

    /// Executions in this status now, by their current verdict.
    pub fn count(&self, status: Status) -> u64 {
        self.now.get(&status).copied().unwrap_or(0)
    }

    /// Every status that has executions.
    pub fn counts(&self) -> impl Iterator<Item = (Status, u64)> {
        self.now
            .iter()
            .map(|(status, count)| (*status, *count))
            .filter(|(_, count)| *count > 0)
    }

    pub fn executions(&self) -> u64 {
        self.now.values().sum()
    }

    /// Every final verdict, cancelled included; lost is none.
    pub fn finished(&self) -> u64 {
        self.sum(Status::is_final)
    }

    /// Completed among finished, 0 to 1. None while nothing has finished.
    pub fn success_rate(&self) -> Option<f64> {
        let finished = self.finished();
        #[expect(
            clippy::cast_precision_loss,
            reason = "a rate of more than 2^53 executions may be a little off"
        )]
        let rate = self.count(Status::Completed) as f64 / finished as f64;
        (finished > 0).then_some(rate)
    }

    /// Begun and not closed.
    pub fn running(&self) -> u64 {
        self.sum(|status| !status.is_closed() && !status.is_waiting())
    }

    /// Waiting at the provider.
    pub fn queued(&self) -> u64 {
        self.sum(Status::is_waiting)
    }

    /// Adds what another one counted.
    pub fn merge(&mut self, other: &Aggregate) {
        for (status, count) in &other.now {
            *self.now.entry(*status).or_default() += count;
        }
        self.duration.merge(&other.duration);
        self.queue_wait.merge(&other.queue_wait);
        self.imported += other.imported;
        self.corrected += other.corrected;
    }

    fn sum(&self, is_counted: impl Fn(Status) -> bool) -> u64 {
        self.now
            .iter()
            .filter(|(status, _)| is_counted(**status))
            .map(|(_, count)| count)
            .sum()
    }
}

/// Everything counted: overall, per workflow, and what the counters of `/metrics` are made of.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Metrics {
    pub overall: Aggregate,
    /// Shared with the copy that is shown: only what was counted since is there twice.
    #[serde(with = "shared_by_id")]
    pub workflows: BTreeMap<WorkflowId, Arc<Aggregate>>,
    #[serde(with = "by_id")]
    pub sources: BTreeMap<SourceId, SourceCounts>,
    /// How often a status was reached. Invariant: these never fall, whatever is corrected or deleted.
    #[serde(with = "as_rows")]
    pub reached: BTreeMap<(WorkflowId, SourceId, Status), u64>,
}

/// What a source has to do now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceCounts {
    pub running: u64,
    pub queued: u64,
}

impl Metrics {
    pub fn observe(&mut self, fact: &MetricFact) {
        self.overall.observe(fact);
        let workflow = self.workflows.entry(fact.workflow).or_default();
        Arc::make_mut(workflow).observe(fact);
        if fact.imported {
            return;
        }
        let source = self.sources.entry(fact.source).or_default();
        if let Some(count) = fact.from.and_then(|from| source.slot(from)) {
            *count = count.saturating_sub(1);
        }
        if let Some(count) = source.slot(fact.to) {
            *count += 1;
        }
        if fact.to.is_closed() && fact.from != Some(fact.to) {
            let reached = self
                .reached
                .entry((fact.workflow, fact.source, fact.to))
                .or_default();
            *reached = reached.saturating_add(1);
        }
    }
}

impl SourceCounts {
    fn slot(&mut self, status: Status) -> Option<&mut u64> {
        match status {
            status if status.is_closed() => None,
            status if status.is_waiting() => Some(&mut self.queued),
            _ => Some(&mut self.running),
        }
    }
}

/// Maps by status as `{"completed": 41}`.
mod by_status {
    use super::{BTreeMap, Deserialize, Serialize, Status};

    pub(super) fn serialize<S: serde::Serializer>(
        map: &BTreeMap<Status, u64>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        map.iter()
            .map(|(status, count)| (status.as_str(), *count))
            .collect::<BTreeMap<_, _>>()
            .serialize(to)
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(
        from: D,
    ) -> Result<BTreeMap<Status, u64>, D::Error> {
        let map = BTreeMap::<String, u64>::deserialize(from)?;
        Ok(map
            .into_iter()
            .filter_map(|(status, count)| Some((Status::parse(&status)?, count)))
            .collect())
    }
}

/// Maps by an integer id as `[[7, {…}], …]`: JSON's own maps have text keys only.
mod by_id {
    use super::{BTreeMap, Deserialize, Serialize};

    pub(super) fn serialize<K, V, S>(map: &BTreeMap<K, V>, to: S) -> Result<S::Ok, S::Error>
    where
        K: Serialize,
        V: Serialize,
        S: serde::Serializer,
    {
        to.collect_seq(map.iter())
    }

    pub(super) fn deserialize<'de, K, V, D>(from: D) -> Result<BTreeMap<K, V>, D::Error>
    where
        K: Deserialize<'de> + Ord,
        V: Deserialize<'de>,
        D: serde::Deserializer<'de>,
    {
        Ok(Vec::<(K, V)>::deserialize(from)?.into_iter().collect())
    }
}

/// The same for values that are shared.
mod shared_by_id {
    use super::{Arc, BTreeMap, Deserialize, Serialize, by_id};

    pub(super) fn serialize<K, V, S>(map: &BTreeMap<K, Arc<V>>, to: S) -> Result<S::Ok, S::Error>
    where
        K: Serialize,
        V: Serialize,
        S: serde::Serializer,
    {
        to.collect_seq(map.iter().map(|(id, value)| (id, &**value)))
    }

    pub(super) fn deserialize<'de, K, V, D>(from: D) -> Result<BTreeMap<K, Arc<V>>, D::Error>
    where
        K: Deserialize<'de> + Ord,
        V: Deserialize<'de>,
        D: serde::Deserializer<'de>,
    {
        let map: BTreeMap<K, V> = by_id::deserialize(from)?;
        Ok(map
            .into_iter()
            .map(|(id, value)| (id, Arc::new(value)))
            .collect())
    }
}

use by_id as as_rows;

#[cfg(test)]
mod tests;
