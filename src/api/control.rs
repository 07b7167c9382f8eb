//! `/api/executions/{id}/cancel`, `/retry` and `/control`, `/api/control/{id}`: what was asked of a provider.

use super::errors::Problem;
use super::params::{Params, uuid};
use super::submit::{concluded, key_of};
use super::views::{ControlView, Page, RequestView};
use super::{ApiState, View, auth, store};
use actix_web::web::{Data, Json, Path};
use actix_web::{HttpRequest, HttpResponse};
use weir_core::journal::{Reader, RequestRow, StoredExecution};
use weir_core::model::id::SourceId;

/// Answered once the request is on disk; what becomes of it is in the execution's `control`.
pub(super) async fn cancel(
    request: HttpRequest,
    state: Data<ApiState>,
    id: Path<String>,
) -> Result<HttpResponse, Problem> {
    auth::require(&request, &state)?;
    Params::of(&request, &[])?;
    let row = state.monitor.cancel(uuid(&id, "an execution")?).await?;
    let source = source_name(&state, row.source).await?;
    Ok(HttpResponse::Accepted().json(RequestView::new(&row, &source)))
}

/// Answered once the provider has.
pub(super) async fn retry(
    request: HttpRequest,
    state: Data<ApiState>,
    id: Path<String>,
) -> Result<HttpResponse, Problem> {
    auth::require(&request, &state)?;
    Params::of(&request, &[])?;
    let key = key_of(&request)?;
    let begun = state.monitor.retry(uuid(&id, "an execution")?, key).await?;
    concluded(&state, begun).await
}

/// One request, wherever it stands.
pub(super) async fn one(
    request: HttpRequest,
    state: Data<ApiState>,
    id: Path<String>,
) -> View<RequestView> {
    Params::of(&request, &[])?;
    let row = state
        .monitor
        .request(uuid(&id, "a control request")?)
        .await?;
    let source = source_name(&state, row.source).await?;
    Ok(Json(RequestView::new(&row, &source)))
}

/// Everything that was asked about an execution, newest first, and the request that made it.
pub(super) async fn of_execution(
    request: HttpRequest,
    state: Data<ApiState>,
    id: Path<String>,
) -> View<Page<RequestView>> {
    Params::of(&request, &[])?;
    let id = uuid(&id, "an execution")?;
    let view = store::read(&state, move |reader| {
        let execution = store::execution(reader, id)?;
        view(reader, &execution)
    });
    Ok(Json(Page::whole(view.await?.control)))
}

/// What control adds to an execution.
pub(super) fn view(reader: &Reader, execution: &StoredExecution) -> Result<ControlView, Problem> {
    let seq = execution.record.seq;
    let requests: Vec<RequestRow> = reader.requests_of(seq)?;
    let lineage = reader.lineage(seq)?;
    Ok(ControlView::new(lineage, &requests, &execution.source_name))
}

/// Also of a source that is not configured any more.
pub(super) async fn source_name(state: &Data<ApiState>, id: SourceId) -> Result<String, Problem> {
    let sources = state.monitor.sources();
    if let Some(source) = sources.into_iter().find(|source| source.id == id) {
        return Ok(source.name);
    }
    let stored = store::read(state, move |reader| Ok(reader.source(id)?)).await?;
    Ok(stored.map(|row| row.name).unwrap_or_default())
}
