//! The page of one execution: its facts, steps and events.

use super::{Frame, badge, bar, cut, duration, refusal};
use crate::api::params::uuid;
use crate::api::views::{ControlView, EventView, ExecutionView, Surroundings};
use crate::api::{ApiState, control, store};
use actix_web::web::{Data, Path};
use actix_web::{HttpResponse, http::StatusCode};
use maud::{Markup, html};
use weir_model::id::Seq;

/// Rows of each table.
const STEPS_MAX: usize = 500;
const EVENTS_MAX: usize = 200;

/// `GET /executions/{id}`.
pub(in crate::api) async fn execution(state: Data<ApiState>, id: Path<String>) -> HttpResponse {
    let id = match uuid(&id, "an execution") {
        Ok(id) => id,
        Err(problem) => return refusal(&state, &problem),
    };
    let read = store::read(&state, move |reader| {
        let execution = store::execution(reader, id)?;
        let events = reader.execution_events_after(execution.record.seq, Seq(0), EVENTS_MAX)?;
        let names = store::step_names(reader, &events)?;
        let control = control::view(reader, &execution)?;
        Ok((execution, events, names, control))
    });
    let (stored, events, names, control) = match read.await {
        Ok(read) => read,
        Err(problem) => return refusal(&state, &problem),
    };
    let around = Surroundings::new(&state.monitor, state.base_url());
    let view = ExecutionView {
        control: Some(control),
        ..around.view_whole(&stored)
    };
    let title = format!(
        "{} #{} · weir",
        cut(&view.workflow_name),
        view.execution_number
    );
    let frame = Frame::new(&state, title, !stored.record.status.is_closed());
    let origin = state.monitor.journal().origin();
    let events: Vec<_> = events
        .iter()
        .map(|event| EventView::new(event, origin, names.of(event)))
        .collect();
    let content = html! {
        h1 { (cut(&view.workflow_name)) " #" (view.execution_number) " " (badge(view.status)) }
        @if let Some(error) = &view.error_message { pre.bad { (cut(error)) } }
        @if !stored.record.status.is_closed() && !stored.record.status.is_waiting() { div.bar { (bar(&view)) } }
        (facts(&frame, &view))
        (steps(&view))
        section {
            h2 { "Events" }
            table.events {
                @for event in &events {
                    tr {
                        td.num { (frame.time(event.time)) }
                        td { (event.r#type) @if let Some(step) = event.step.as_ref().and_then(|s| s.name.as_ref()) { " " b { (cut(step)) } } }
                        td.num.dim { (event.seq) }
                    }
                }
            }
            @if events.len() >= EVENTS_MAX { p { a href={ "/api/executions/" (view.id) "/events" } { "All events" } } }
        }
        footer { a href={ "/api/executions/" (view.id) } { "as JSON" } }
    };
    frame.render(StatusCode::OK, &content)
}

fn facts(frame: &Frame, view: &ExecutionView) -> Markup {
    html! {
        dl {
            @if let Some(name) = &view.name { dt { "Name" } dd { (cut(name)) } }
            dt { "Source" } dd { (cut(&view.source)) }
            dt { "Provider's id" } dd.id { (cut(&view.external_id)) @if !view.run.is_empty() { " · run " (cut(&view.run)) } }
            dt { "Created" } dd { (frame.optional_time(view.created_at)) }
            dt { "Started" } dd { (frame.optional_time(view.started_at)) }
            dt { "Ended" } dd { (frame.optional_time(view.completed_at)) }
            @if let Some(wait) = view.queue_wait { dt { "Waited" } dd { (duration(wait.0)) } }
            @if let Some(took) = view.duration { dt { @if view.completed_at.is_some() { "Took" } @else { "Runs for" } } dd { (duration(took.0)) } }
            @if let Some(place) = view.position { dt { "Place in the queue" } dd { (u64::from(place) + 1) } }
            @if view.attempt > 1 { dt { "Attempt" } dd { (view.attempt) } }
            @if let Some(since) = view.stale_since { dt { "Stale" } dd.warn { "no contact since " (frame.time(since)) } }
            @if view.suspect { dt { "Suspect" } dd.warn { "not seen, not believed to be gone yet" } }
            @if let Some(control) = &view.control { (asked(control)) }
            @if view.imported { dt { "Imported" } dd { "it had ended before weir watched" } }
            @if view.corrected { dt { "Corrected" } dd { "the provider changed its verdict" } }
            @for (label, value) in view.labels.iter().take(20) {
                dt { (cut(label)) } dd { (cut(value.as_str().unwrap_or_default())) }
            }
        }
    }
}

/// What was asked of the provider, newest first, and where it stands in a line of retries.
fn asked(control: &ControlView) -> Markup {
    html! {
        @for (name, other) in [("Retry of", control.retried_from), ("Retried as", control.retried_as)] {
            @if let Some(id) = other { dt { (name) } dd.id { a href={ "/executions/" (id) } { (id) } } }
        }
        @for request in control.control.iter().take(10) {
            dt { "Asked: " (request.action) }
            dd { (request.state) @if let Some(reason) = &request.reason { ": " (cut(reason)) } }
        }
    }
}

fn steps(view: &ExecutionView) -> Markup {
    let steps = view.step_executions.as_deref().unwrap_or_default();
    html! {
        @if !steps.is_empty() {
            section {
                h2 { "Steps " span.count { (view.steps_done) " of " (view.steps_total) } }
                table {
                    @for step in steps.iter().take(STEPS_MAX) {
                        tr {
                            td {
                                (cut(&step.name)) span.sub.id { (cut(&step.step_id)) }
                                @if let Some(error) = &step.error_message { pre.bad { (cut(error)) } }
                                @if let (Some(percent), "running") = (step.progress, step.status) {
                                    div.bar { progress max="100" value=(percent) {} span.percent { (format!("{percent:.0} %")) } }
                                }
                            }
                            td { (badge(step.status)) }
                            td.num { @if let Some(took) = step.duration { (duration(took.0)) } }
                        }
                    }
                }
                @if steps.len() > STEPS_MAX { p.dim { (steps.len() - STEPS_MAX) " more" } }
            }
        }
    }
}
