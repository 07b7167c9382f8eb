//! The page of one alert: what it is about, and who was told.

use super::{Frame, badge, cut, refusal};
use crate::api::views::AlertView;
use crate::api::{ApiState, alerts};
use actix_web::web::{Data, Path};
use actix_web::{HttpResponse, http::StatusCode};
use maud::{Markup, html};

/// `GET /alerts/{id}`.
pub(in crate::api) async fn alert(state: Data<ApiState>, id: Path<String>) -> HttpResponse {
    let alert = match alerts::find(&state, &id).await {
        Ok(alert) => alert,
        Err(problem) => return refusal(&state, &problem),
    };
    let frame = Frame::new(
        &state,
        format!("{} · weir", cut(&alert.title)),
        alert.status == "firing",
    );
    let content = html! {
        h1 { (cut(&alert.title)) " " (badge(alert.status)) }
        @if !alert.body.is_empty() { pre { (cut(&alert.body)) } }
        dl {
            dt { "Severity" } dd { (alert.severity) }
            dt { "Rule" } dd { (cut(&alert.rule)) }
            dt { "Since" } dd { (frame.time(alert.since)) }
            @if let Some(ends) = alert.ends { dt { "Until" } dd { (frame.time(ends)) } }
            dt { "Happened" } dd { (alert.count) @if alert.count == 1 { " time" } @else { " times" } }
            @if let Some(by) = &alert.acknowledged_by { dt { "Taken by" } dd { (cut(by)) " " (frame.optional_time(alert.acknowledged_at)) } }
            @for (label, value) in alert.labels.iter().filter(|(label, _)| !matches!(label.as_str(), "rule" | "severity")).take(20) {
                dt { (cut(label)) } dd { (cut(value.as_str().unwrap_or_default())) }
            }
        }
        @if !alert.executions.is_empty() {
            section {
                h2 { "Executions" }
                ul.plain { @for id in &alert.executions { li { a.id href={ "/executions/" (id) } { (id) } } } }
            }
        }
        (deliveries(&frame, &alert))
        footer { a href={ "/api/alerts/" (alert.id) } { "as JSON" } " · take it: " code { "weir alerts ack " (alert.id) } }
    };
    frame.render(StatusCode::OK, &content)
}

fn deliveries(frame: &Frame, alert: &AlertView) -> Markup {
    html! {
        section {
            h2 { "Deliveries" }
            @if alert.deliveries.is_empty() { p.dim { "Nobody was told." } }
            @else {
                table {
                    tr { th { "Receiver" } th { "State" } th.num { "Attempts" } th.num { "At" } }
                    @for delivery in &alert.deliveries {
                        tr {
                            td { (cut(&delivery.receiver)) @if let Some(answer) = &delivery.answer { span.sub { (cut(answer)) } } }
                            td { (badge(delivery.state)) }
                            td.num { (delivery.attempts) }
                            td.num { (frame.time(delivery.updated_at)) }
                        }
                    }
                }
            }
        }
    }
}
