//! `/api/sources` and `/api/receivers`: who is watched, and who is told.

use super::errors::{Problem, echo};
use super::params::Params;
use super::views::{Page, ReceiverView, SourceView, TestView};
use super::{ApiState, View, auth, store};
use actix_web::HttpRequest;
use actix_web::web::{Data, Json, Path};
use std::time::Instant;

pub(super) const PAGING: &[&str] = &["cursor", "limit"];

pub(super) async fn list(request: HttpRequest, state: Data<ApiState>) -> View<Page<SourceView>> {
    let params = Params::of(&request, PAGING)?;
    let views = state
        .monitor
        .sources()
        .iter()
        .map(SourceView::new)
        .collect();
    page(&params, views, |source| &source.name)
}

pub(super) async fn one(
    request: HttpRequest,
    state: Data<ApiState>,
    name: Path<String>,
) -> View<SourceView> {
    Params::of(&request, &[])?;
    let source = state
        .monitor
        .sources()
        .into_iter()
        .find(|source| source.name == *name);
    match source {
        Some(source) => Ok(Json(SourceView::new(&source))),
        None => Err(Problem::not_found(format!(
            "there is no source `{}`",
            echo(&name)
        ))),
    }
}

pub(super) async fn receivers(
    request: HttpRequest,
    state: Data<ApiState>,
) -> View<Page<ReceiverView>> {
    let params = Params::of(&request, PAGING)?;
    let failures = store::read(&state, |reader| Ok(reader.outbox_failures()?)).await?;
    let receivers = state.monitor.receivers();
    let mut views: Vec<ReceiverView> = receivers.iter().map(ReceiverView::new).collect();
    for failed in failures {
        let view = views.iter_mut().find(|view| view.name == failed.receiver);
        if let Some(view) = view {
            view.failed(failed);
        }
    }
    page(&params, views, |receiver| &receiver.name)
}

/// Sends a marked test alert; 200 says that it was tried, the body what came of it.
pub(super) async fn test_receiver(
    request: HttpRequest,
    state: Data<ApiState>,
    name: Path<String>,
) -> View<TestView> {
    auth::require(&request, &state)?;
    Params::of(&request, &[])?;
    let began = Instant::now();
    let tested = state.monitor.test_receiver(&name).await?;
    let config = state.monitor.config();
    let fallback = config.alerts.fallback.as_deref();
    Ok(Json(TestView::new(
        &name,
        tested,
        began.elapsed(),
        fallback,
    )))
}

/// A page of what is in memory, by name.
pub(super) fn page<T>(
    params: &Params,
    mut items: Vec<T>,
    name: fn(&T) -> &String,
) -> View<Page<T>> {
    let limit = params.limit()?;
    items.sort_by(|a, b| name(a).cmp(name(b)));
    if let Some(after) = params.text("cursor") {
        items.retain(|item| name(item).as_str() > after);
    }
    let more = items.len() > limit;
    items.truncate(limit);
    let next_cursor = items.last().filter(|_| more).map(|last| name(last).clone());
    Ok(Json(Page { items, next_cursor }))
}
