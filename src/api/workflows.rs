//! `/api/workflows`: how each kind of work fares.

use super::errors::{Problem, echo};
use super::params::Params;
use super::views::{Page, Time, WorkflowView};
use super::{ApiState, View, store};
use actix_web::HttpRequest;
use actix_web::web::{Data, Json, Path};
use weir_core::journal::{ExecutionFilter, Reader, WorkflowRow};
use weir_model::id::WorkflowId;

type Found = (WorkflowRow, Option<Time>);

/// In the order of their ids.
pub(super) async fn list(request: HttpRequest, state: Data<ApiState>) -> View<Page<WorkflowView>> {
    let params = Params::of(&request, &["cursor", "limit"])?;
    let (after, limit) = (WorkflowId(params.cursor()?.unwrap_or(0)), params.limit()?);
    let found = store::read(&state, move |reader| {
        let rows = reader.workflows(after, limit)?;
        let last = rows
            .last()
            .filter(|_| rows.len() == limit)
            .map(|row| row.id);
        let next = match last {
            Some(last) => reader.workflows(last, 1)?.first().map(|_| last),
            None => None,
        };
        let found = rows
            .into_iter()
            .map(|row| newest(reader, row))
            .collect::<Result<Vec<_>, _>>()?;
        Ok((found, next))
    });
    let (found, next) = found.await?;
    let items = found.iter().map(|found| view(&state, found)).collect();
    Ok(Json(Page {
        items,
        next_cursor: next.map(|id| id.to_string()),
    }))
}

pub(super) async fn one(
    request: HttpRequest,
    state: Data<ApiState>,
    id: Path<String>,
) -> View<WorkflowView> {
    Params::of(&request, &[])?;
    let unknown = Problem::not_found(format!("there is no workflow `{}` (an integer)", echo(&id)));
    let Ok(id) = id.parse().map(WorkflowId) else {
        return Err(unknown);
    };
    let found = store::read(&state, move |reader| match reader.workflow(id)? {
        Some(row) => newest(reader, row),
        None => Err(unknown),
    });
    Ok(Json(view(&state, &found.await?)))
}

/// When its newest execution was first seen.
fn newest(reader: &Reader, row: WorkflowRow) -> Result<Found, Problem> {
    let filter = ExecutionFilter {
        workflow: Some(row.id),
        limit: 1,
        ..ExecutionFilter::default()
    };
    let newest = reader.executions(&filter)?.pop();
    let at = newest.map(|newest| {
        Time(
            newest
                .record
                .created_at
                .unwrap_or(newest.record.first_seen_at),
        )
    });
    Ok((row, at))
}

fn view(state: &ApiState, (row, newest): &Found) -> WorkflowView {
    let metrics = state.monitor.metrics();
    let none = Default::default();
    let figures = metrics.workflow(row.id).unwrap_or(&none);
    WorkflowView::new(row, figures, *newest)
}
