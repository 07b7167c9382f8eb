//! `/livez`, `/readyz` and `/metrics`: for supervisors and Prometheus.

use super::ApiState;
use super::errors::Problem;
use actix_web::HttpResponse;
use actix_web::web::Data;

/// The process answers.
pub(super) async fn livez() -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/plain; charset=utf-8")
        .body("ok\n")
}

/// What is reported will be recorded, and what is recorded is shown.
pub(super) async fn readyz(state: Data<ApiState>) -> Result<HttpResponse, Problem> {
    if *state.stopping.borrow() {
        return Err(Problem::unavailable("weir is stopping"));
    }
    state
        .monitor
        .status()
        .ready()
        .map_err(Problem::unavailable)?;
    Ok(HttpResponse::Ok()
        .content_type("text/plain; charset=utf-8")
        .body("ready\n"))
}

pub(super) async fn metrics(state: Data<ApiState>) -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/plain; version=0.0.4; charset=utf-8")
        .body(state.monitor.exposition())
}
