//! `/status`: the monitor about itself.

use super::params::Params;
use super::plugins;
use super::views::{StatusView, severity};
use super::{ApiState, View, alerts, store};
use actix_web::HttpRequest;
use actix_web::web::{Data, Json};

pub(super) async fn status(request: HttpRequest, state: Data<ApiState>) -> View<StatusView> {
    Params::of(&request, &[])?;
    let counted = store::read(&state, |reader| {
        Ok((reader.open_counts(None)?, alerts::firing(reader)?))
    });
    // The status is needed most when the store is in trouble.
    let (open, firing) = counted.await.unwrap_or_default();
    let mut view = StatusView::new(&state.monitor, state.base_url());
    view.plugins = plugins::views(&state);
    view.count_open(&open);
    for alert in &firing {
        view.alerts.firing += 1;
        *view
            .alerts
            .by_severity
            .entry(severity(alert.severity))
            .or_default() += 1;
    }
    Ok(Json(view))
}
