//! `/api/plugins`: the code that watches and tells, how it is, and the word to try it again.

use super::errors::{Problem, echo};
use super::params::Params;
use super::sources::{PAGING, page};
use super::views::{Page, PluginView};
use super::{ApiState, View, auth};
use actix_web::HttpRequest;
use actix_web::web::{Data, Json, Path};

pub(super) async fn list(request: HttpRequest, state: Data<ApiState>) -> View<Page<PluginView>> {
    let params = Params::of(&request, PAGING)?;
    page(&params, views(&state), |plugin| &plugin.name)
}

pub(super) async fn one(
    request: HttpRequest,
    state: Data<ApiState>,
    name: Path<String>,
) -> View<PluginView> {
    Params::of(&request, &[])?;
    find(&state, &name).map(Json)
}

/// Answers how it was; whether it comes back is what the next look says.
pub(super) async fn resume(
    request: HttpRequest,
    state: Data<ApiState>,
    name: Path<String>,
) -> View<PluginView> {
    auth::require(&request, &state)?;
    Params::of(&request, &[])?;
    let was = find(&state, &name)?;
    state.monitor.resume_plugin(&name);
    Ok(Json(was))
}

fn find(state: &ApiState, name: &str) -> Result<PluginView, Problem> {
    let mut views = views(state).into_iter();
    views.find(|plugin| plugin.name == name).ok_or_else(|| {
        Problem::not_found(format!(
            "no source and no receiver `{}` uses a plugin",
            echo(name)
        ))
    })
}

/// Sources first: of a source and a receiver with one name it is the source that is meant.
pub(super) fn views(state: &ApiState) -> Vec<PluginView> {
    state
        .monitor
        .plugins()
        .iter()
        .map(PluginView::new)
        .collect()
}
