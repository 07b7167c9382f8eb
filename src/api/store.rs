//! Questions to the journal, asked on a thread that may block, each bounded in rows and time.

use super::ApiState;
use super::errors::Problem;
use super::views::{AlertView, DeliveryView};
use actix_web::web;
use std::collections::{HashMap, HashSet};
use std::time::Duration;
use uuid::Uuid;
use weir_core::journal::{AlertRow, Reader, StoredEvent, StoredExecution};
use weir_model::id::ExecutionSeq;

/// After this the client is told to come back.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// Deliveries shown of one alert.
const DELIVERIES_MAX: usize = 50;

/// Runs `look` with a reader.
pub(super) async fn read<T, F>(state: &web::Data<ApiState>, look: F) -> Result<T, Problem>
where
    T: Send + 'static,
    F: FnOnce(&Reader) -> Result<T, Problem> + Send + 'static,
{
    let journal = state.monitor.journal().clone();
    let looked = web::block(move || look(&journal.reader()?));
    match tokio::time::timeout(READ_TIMEOUT, looked).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => {
            tracing::error!("a question to the journal panicked");
            Err(Problem::internal())
        }
        Err(_) => Err(Problem::unavailable("the journal takes too long to answer")),
    }
}

pub(super) fn execution(reader: &Reader, id: Uuid) -> Result<StoredExecution, Problem> {
    let found = reader.execution_by_uuid(id)?;
    found.ok_or_else(|| Problem::not_found(format!("there is no execution {id}")))
}

/// With their steps, in no order; those that are gone are left out.
pub(super) fn executions_by_seq(
    reader: &Reader,
    seqs: &[ExecutionSeq],
) -> Result<Vec<StoredExecution>, Problem> {
    let mut found = Vec::new();
    for seq in seqs {
        found.extend(reader.execution(*seq)?);
    }
    Ok(found)
}

/// Reads the steps that lists leave out.
pub(super) fn with_steps(
    reader: &Reader,
    executions: &mut [StoredExecution],
) -> Result<(), Problem> {
    for execution in executions {
        if let Some(whole) = reader.execution(execution.record.seq)? {
            *execution = whole;
        }
    }
    Ok(())
}

/// Names of the steps that events are about.
pub(super) struct StepNames(HashMap<(ExecutionSeq, u32), String>);

impl StepNames {
    pub(super) fn of(&self, event: &StoredEvent) -> Option<String> {
        self.0
            .get(&(event.row.execution?, event.row.step?))
            .cloned()
    }
}

pub(super) fn step_names(reader: &Reader, events: &[StoredEvent]) -> Result<StepNames, Problem> {
    let about = events.iter().filter(|event| event.row.step.is_some());
    let about: HashSet<ExecutionSeq> = about.filter_map(|event| event.row.execution).collect();
    let mut names = HashMap::new();
    for seq in about {
        let steps = reader
            .execution(seq)?
            .map(|execution| execution.steps)
            .unwrap_or_default();
        names.extend(
            (0u32..)
                .zip(steps)
                .map(|(index, step)| ((seq, index), step.name.to_string())),
        );
    }
    Ok(StepNames(names))
}

/// Alerts with their executions and deliveries.
pub(super) fn alert_views(
    reader: &Reader,
    rows: &[AlertRow],
    base_url: &str,
) -> Result<Vec<AlertView>, Problem> {
    let mut deliveries = deliveries(reader, rows)?;
    let view = |row: &AlertRow| {
        AlertView::new(
            row,
            deliveries.remove(&row.id).unwrap_or_default(),
            base_url,
        )
    };
    Ok(rows.iter().map(view).collect())
}

/// Alerts for a table: without what has to be looked for.
pub(super) fn alert_heads(rows: &[AlertRow], base_url: &str) -> Vec<AlertView> {
    rows.iter()
        .map(|row| AlertView::new(row, Vec::new(), base_url))
        .collect()
}

/// By alert, newest first.
fn deliveries(
    reader: &Reader,
    rows: &[AlertRow],
) -> Result<HashMap<i64, Vec<DeliveryView>>, Problem> {
    let of = |row: &AlertRow| {
        let messages = reader.outbox_of_alert(row.id)?;
        let views = messages.iter().take(DELIVERIES_MAX).map(DeliveryView::new);
        Ok((row.id, views.collect()))
    };
    rows.iter().map(of).collect()
}
