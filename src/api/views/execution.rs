//! Executions and their steps as clients see them, with live progress or an estimate of it.

use super::{Seconds, Time, elapsed, object};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;
use weir_core::journal::StoredExecution;
use weir_core::live::{Board, LiveProgress};
use weir_core::metrics::MetricsView;
use weir_core::monitor::MonitorHandle;
use weir_model::id::{SourceId, WorkflowId};
use weir_model::status::{Status, StepStatus};
use weir_model::workflow::Step;

/// An estimate never says that it is done.
const ESTIMATE_MAX: f64 = 99.0;

#[derive(Debug, Serialize)]
pub struct ExecutionView {
    pub id: Uuid,
    pub execution_seq: i64,
    pub imported: bool,
    pub workflow_id: i64,
    pub workflow_name: String,
    pub execution_number: i64,
    pub source: String,
    pub external_id: String,
    pub run: String,
    pub name: Option<String>,
    pub status: &'static str,
    pub stale_since: Option<Time>,
    pub suspect: bool,
    pub watched: bool,
    pub attempt: u32,
    pub corrected: bool,
    /// 0 to 100.
    pub progress: Option<f64>,
    /// The provider tells no progress of it: what is shown is a guess from this workflow's past, or nothing.
    pub estimated: bool,
    pub position: Option<u32>,
    pub note: Option<String>,
    pub first_seen_at: Time,
    pub created_at: Option<Time>,
    pub started_at: Option<Time>,
    /// `started_at` is when weir first saw it running; the provider tells no time.
    pub started_estimated: bool,
    pub completed_at: Option<Time>,
    pub duration: Option<Seconds>,
    pub queue_wait: Option<Seconds>,
    pub error_message: Option<String>,
    pub labels: Map<String, Value>,
    pub detail: Value,
    pub steps_total: usize,
    pub steps_done: usize,
    pub url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step_executions: Option<Vec<StepView>>,
}

#[derive(Debug, Serialize)]
pub struct StepView {
    pub step_id: String,
    pub index: usize,
    pub name: String,
    pub status: &'static str,
    pub progress: Option<f64>,
    pub started_at: Option<Time>,
    pub completed_at: Option<Time>,
    pub duration: Option<Seconds>,
    pub error_message: Option<String>,
}

/// What surrounds executions: taken once for a whole page of them.
pub struct Surroundings {
    now: Timestamp,
    board: Board,
    metrics: Arc<MetricsView>,
    suspect: HashSet<SourceId>,
    base_url: String,
}

impl Surroundings {
    pub fn new(monitor: &MonitorHandle, base_url: String) -> Surroundings {
        let suspect = monitor
            .sources()
            .into_iter()
            .filter(|source| source.health.suspect)
            .map(|source| source.id);
        Surroundings {
            now: monitor.clock().now(),
            board: monitor.board().clone(),
            metrics: monitor.metrics(),
            suspect: suspect.collect(),
            base_url,
        }
    }

    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// The median duration of a workflow's finished executions.
    fn median(&self, workflow: WorkflowId) -> Option<Duration> {
        self.metrics.workflow(workflow)?.duration.quantile(0.5)
    }

    /// An execution without its steps one by one.
    pub fn view(&self, stored: &StoredExecution) -> ExecutionView {
        let record = &stored.record;
        let status = record.status;
        let live = self.board.get(record.seq);
        let (progress, estimated) = self.progress(stored, live.as_ref());
        let open = !status.is_closed();
        let done =
            |step: &&Step| matches!(step.status, StepStatus::Completed | StepStatus::Skipped);
        ExecutionView {
            id: record.uuid,
            execution_seq: record.seq.0,
            imported: record.imported,
            workflow_id: stored.workflow.id.0,
            workflow_name: stored.workflow.name.clone(),
            execution_number: record.number,
            source: stored.source_name.clone(),
            external_id: record.key.external_id.clone(),
            run: record.key.run.clone(),
            name: record.name.clone(),
            status: status.as_str(),
            stale_since: stored.stale_since.filter(|_| open).map(Time),
            suspect: open && self.suspect.contains(&record.key.source),
            watched: record.watched,
            attempt: record.attempt,
            corrected: record.corrected,
            progress: progress.map(rounded),
            estimated,
            position: live
                .as_ref()
                .map_or(stored.progress.position, |live| live.position)
                .filter(|_| status.is_waiting()),
            note: live
                .as_ref()
                .map_or_else(|| stored.progress.note.clone(), |live| live.note.clone())
                .filter(|_| open),
            first_seen_at: record.first_seen_at.into(),
            created_at: record.created_at.map(Time),
            started_at: record.started_at.map(Time),
            started_estimated: record.started_estimated,
            completed_at: record.completed_at.map(Time),
            duration: self.duration(stored).map(Seconds::from),
            queue_wait: self.queue_wait(stored).map(Seconds::from),
            error_message: record.error.clone(),
            labels: object(&record.labels),
            detail: detail(record.detail.as_deref()),
            steps_total: stored.steps.len(),
            steps_done: stored.steps.iter().filter(done).count(),
            url: format!("{}/executions/{}", self.base_url, record.uuid),
            step_executions: None,
        }
    }

    /// An execution with its steps.
    pub fn view_whole(&self, stored: &StoredExecution) -> ExecutionView {
        let live = self.board.get(stored.record.seq);
        let fractions = live.map(|live| live.fractions).unwrap_or_default();
        let open = !stored.record.status.is_closed();
        let steps = stored.steps.iter().enumerate().map(|(index, step)| {
            let fraction = fractions
                .iter()
                .find(|(at, _)| usize::try_from(*at) == Ok(index))
                .map(|(_, f)| *f);
            let running = open && step.status == StepStatus::Running;
            let end = step.completed_at.or_else(|| running.then_some(self.now));
            StepView {
                step_id: step.external_id.to_string(),
                index,
                name: step.name.to_string(),
                status: step.status.as_str(),
                progress: match step.status {
                    StepStatus::Completed => Some(100.0),
                    StepStatus::Running => fraction.map(|fraction| rounded(fraction * 100.0)),
                    _ => None,
                },
                started_at: step.started_at.map(Time),
                completed_at: step.completed_at.map(Time),
                duration: step
                    .started_at
                    .zip(end)
                    .map(|(from, to)| elapsed(from, to).into()),
                error_message: step.error.as_deref().map(str::to_owned),
            }
        });
        let step_executions = Some(steps.collect());
        ExecutionView {
            step_executions,
            ..self.view(stored)
        }
    }

    fn progress(
        &self,
        stored: &StoredExecution,
        live: Option<&LiveProgress>,
    ) -> (Option<f64>, bool) {
        let record = &stored.record;
        if record.status == Status::Completed {
            return (Some(100.0), false);
        }
        let told = live
            .and_then(|live| live.percent)
            .or(stored.progress.progress);
        let begun = matches!(
            record.status,
            Status::Running | Status::Completing | Status::Cancelling
        );
        if told.is_some() || !begun {
            return (told, false);
        }
        let estimate = record.started_at.zip(self.median(stored.workflow.id));
        let estimate =
            estimate.map(|(started, median)| estimate_of(elapsed(started, self.now), median));
        (estimate, true)
    }

    /// What is closed has ended; what is begun goes on until now.
    fn duration(&self, stored: &StoredExecution) -> Option<Duration> {
        let record = &stored.record;
        if record.status.is_closed() {
            return record.duration();
        }
        record
            .started_at
            .filter(|_| !record.status.is_waiting())
            .map(|started| elapsed(started, self.now))
    }

    fn queue_wait(&self, stored: &StoredExecution) -> Option<Duration> {
        let record = &stored.record;
        if record.status.is_waiting() && record.started_at.is_none() {
            return record.created_at.map(|created| elapsed(created, self.now));
        }
        record.queue_wait()
    }
}

/// How far something probably is that takes `median` as a rule.
fn estimate_of(elapsed: Duration, median: Duration) -> f64 {
    if median.is_zero() {
        return ESTIMATE_MAX;
    }
    (100.0 * elapsed.as_secs_f64() / median.as_secs_f64()).min(ESTIMATE_MAX)
}

fn rounded(percent: f64) -> f64 {
    (percent * 10.0).round() / 10.0
}

fn detail(text: Option<&str>) -> Value {
    let parsed = text.and_then(|text| serde_json::from_str(text).ok());
    parsed
        .filter(Value::is_object)
        .unwrap_or_else(|| Value::Object(Map::new()))
}

/// One frame of live progress on the event stream.
#[derive(Clone, Debug, Serialize)]
pub struct ProgressFrame {
    pub execution: ProgressExecution,
    pub workflow_id: i64,
    pub source: String,
    pub progress: Option<f64>,
    pub position: Option<u32>,
    pub note: Option<String>,
    pub steps: Vec<ProgressStep>,
}

#[derive(Clone, Debug, Serialize)]
pub struct ProgressExecution {
    pub id: Uuid,
    pub execution_seq: i64,
}

#[derive(Clone, Debug, Serialize)]
pub struct ProgressStep {
    pub index: u32,
    pub progress: f64,
}

impl ProgressFrame {
    pub fn of(stored: &StoredExecution) -> ProgressFrame {
        ProgressFrame {
            execution: ProgressExecution {
                id: stored.record.uuid,
                execution_seq: stored.record.seq.0,
            },
            workflow_id: stored.workflow.id.0,
            source: stored.source_name.clone(),
            progress: None,
            position: None,
            note: None,
            steps: Vec::new(),
        }
    }

    pub fn with(&self, live: &LiveProgress) -> ProgressFrame {
        let steps = live.fractions.iter().map(|(index, f)| ProgressStep {
            index: *index,
            progress: rounded(f * 100.0),
        });
        ProgressFrame {
            progress: live.percent.map(rounded),
            position: live.position,
            note: live.note.clone(),
            steps: steps.collect(),
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_estimate_follows_the_median_and_never_says_done() {
        let seconds = Duration::from_secs;
        assert_eq!(estimate_of(seconds(5), seconds(20)), 25.0);
        assert_eq!(estimate_of(seconds(50), seconds(20)), 99.0);
        assert_eq!(estimate_of(seconds(1), Duration::ZERO), 99.0);
    }

    #[test]
    fn a_detail_is_an_object_whatever_is_stored() {
        assert_eq!(detail(Some("{\"a\":1}")), serde_json::json!({"a": 1}));
        assert_eq!(detail(Some("[1]")), serde_json::json!({}));
        assert_eq!(detail(Some("{")), serde_json::json!({}));
        assert_eq!(detail(None), serde_json::json!({}));
    }
}
