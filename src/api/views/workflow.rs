//! Workflows and their figures as clients see them.

use super::{Seconds, Time};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;
use weir_core::journal::WorkflowRow;
use weir_model::metrics::{Aggregate, Histogram};

#[derive(Debug, Serialize)]
pub struct WorkflowView {
    pub id: i64,
    pub key: String,
    pub name: String,
    /// Every execution there ever was, imported ones included.
    pub executions: i64,
    pub running: u64,
    pub queued: u64,
    pub imported: u64,
    /// Without imported ones.
    pub counts: BTreeMap<&'static str, u64>,
    /// Completed among finished, 0 to 100.
    pub success_rate: Option<f64>,
    pub duration: DurationsView,
    pub queue_wait: DurationsView,
    pub last_execution_at: Option<Time>,
}

/// How long something took; none where nothing was measured.
#[derive(Debug, Serialize)]
pub struct DurationsView {
    pub count: u64,
    pub min: Option<Seconds>,
    pub max: Option<Seconds>,
    pub mean: Option<Seconds>,
    pub p50: Option<Seconds>,
    pub p95: Option<Seconds>,
    pub p99: Option<Seconds>,
}

impl WorkflowView {
    pub fn new(
        row: &WorkflowRow,
        figures: &Aggregate,
        last_execution_at: Option<Time>,
    ) -> WorkflowView {
        WorkflowView {
            id: row.id.0,
            key: row.key.clone(),
            name: row.name.clone(),
            executions: row.last_number,
            running: figures.running(),
            queued: figures.queued(),
            imported: figures.imported,
            counts: figures
                .counts()
                .map(|(status, count)| (status.as_str(), count))
                .collect(),
            success_rate: figures
                .success_rate()
                .map(|rate| (rate * 10_000.0).round() / 100.0),
            duration: DurationsView::new(&figures.duration),
            queue_wait: DurationsView::new(&figures.queue_wait),
            last_execution_at,
        }
    }
}

impl DurationsView {
    fn new(durations: &Histogram) -> DurationsView {
        let seconds = |duration: Option<Duration>| duration.map(Seconds::from);
        DurationsView {
            count: durations.count(),
            min: seconds(durations.min()),
            max: seconds(durations.max()),
            mean: seconds(durations.mean()),
            p50: seconds(durations.quantile(0.5)),
            p95: seconds(durations.quantile(0.95)),
            p99: seconds(durations.quantile(0.99)),
        }
    }
}
