//! The overview: sources, what runs, what waits, what failed, what is open, the host.

use super::{Frame, badge, bar, cut, duration, name};
use crate::api::errors::Problem;
use crate::api::views::{AlertView, ExecutionView, GaugeView, MuteView, SourceView, Surroundings};
use crate::api::{ApiState, alerts, resources, store};
use crate::gauges::{Shown, words};
use actix_web::web::Data;
use actix_web::{HttpResponse, http::StatusCode};
use maud::{Markup, html};
use weir_core::journal::{ExecutionFilter, Reader, StoredExecution};
use weir_model::status::Status;

/// Rows of each table.
const RUNNING_MAX: usize = 50;
const QUEUED_MAX: usize = 20;
/// Waiting ones among which the next are looked for: the newest.
const QUEUED_LOOK: usize = 100;
const CLOSED_MAX: usize = 10;
const ALERTS_MAX: usize = 20;
const SOURCES_MAX: usize = 50;
/// Lines of each source.
const GAUGES_MAX: usize = 8;

/// What the overview shows.
struct Overview {
    running: Vec<StoredExecution>,
    queued: Vec<StoredExecution>,
    failed: Vec<StoredExecution>,
    finished: Vec<StoredExecution>,
    open: Vec<(Status, u64)>,
    firing: usize,
    alerts: Vec<AlertView>,
}

fn look(reader: &Reader, base_url: &str) -> Result<Overview, Problem> {
    let newest = |statuses: &[Status], limit| {
        reader.executions(&ExecutionFilter {
            statuses: statuses.to_vec(),
            limit,
            ..ExecutionFilter::default()
        })
    };
    use Status::{
        Cancelled, Cancelling, Completed, Completing, Failed, Lost, Partial, Paused, Running,
        Timeout,
    };
    let mut running = newest(&[Running, Completing, Cancelling, Paused], RUNNING_MAX)?;
    store::with_steps(reader, &mut running)?;
    let mut firing = alerts::firing(reader)?;
    let count = firing.len();
    firing.truncate(ALERTS_MAX);
    Ok(Overview {
        running,
        queued: newest(
            &[Status::Pending, Status::Queued, Status::Initializing],
            QUEUED_LOOK,
        )?,
        failed: newest(&[Failed, Partial, Timeout, Lost], CLOSED_MAX)?,
        finished: newest(&[Completed, Cancelled], CLOSED_MAX)?,
        open: reader.open_counts(None)?,
        firing: count,
        alerts: store::alert_heads(&firing, base_url),
    })
}

/// What runs next comes first. The place in the queue is live, not stored with every change.
fn next_in_queue(mut queued: Vec<ExecutionView>) -> Vec<ExecutionView> {
    queued.sort_by_key(|waiting| (waiting.position.unwrap_or(u32::MAX), waiting.execution_seq));
    queued.truncate(QUEUED_MAX);
    queued
}

/// `GET /`.
pub(in crate::api) async fn overview(state: Data<ApiState>) -> HttpResponse {
    let frame = Frame::new(&state, "weir", true);
    let base_url = state.base_url();
    let looked = store::read(&state, move |reader| look(reader, &base_url)).await;
    let content = match &looked {
        Ok(overview) => overview_content(&state, &frame, overview),
        Err(problem) => {
            html! { (notices(&state)) (sources(&state, &frame)) p.error { (problem.detail()) } }
        }
    };
    frame.render(StatusCode::OK, &content)
}

fn overview_content(state: &ApiState, frame: &Frame, overview: &Overview) -> Markup {
    let around = Surroundings::new(&state.monitor, state.base_url());
    let views =
        |stored: &[StoredExecution]| stored.iter().map(|e| around.view(e)).collect::<Vec<_>>();
    let count = |waiting: bool| -> u64 {
        overview
            .open
            .iter()
            .filter(|(status, _)| status.is_waiting() == waiting)
            .map(|(_, count)| count)
            .sum()
    };
    html! {
        (notices(state))
        @if !overview.alerts.is_empty() { (open_alerts(frame, &overview.alerts, overview.firing)) }
        (sources(state, frame))
        (running(&views(&overview.running), count(false)))
        (queued(&next_in_queue(views(&overview.queued)), count(true)))
        (failures(frame, &views(&overview.failed)))
        (finished(frame, &views(&overview.finished)))
        (mutes(frame, &state.monitor.status().mutes.iter().map(MuteView::new).collect::<Vec<_>>()))
        (host(state))
        footer {
            "weir " (state.monitor.status().version) " · event " (state.monitor.journal().head())
            " · " a href="/status" { "status" } " · " a href="/metrics" { "metrics" }
            " · " a href="/api/executions" { "executions" } " · " a href="/api/alerts" { "alerts" }
        }
    }
}

/// What is wrong with weir itself.
fn notices(state: &ApiState) -> Markup {
    let status = state.monitor.status();
    html! {
        @if let Err(reason) = status.ready() { p.error { "Not ready: " (cut(&reason)) } }
        @for (subject, message) in status.troubles.iter().take(ALERTS_MAX) {
            p.error { b { (cut(subject)) } ": " (cut(message)) }
        }
        @if let Some(error) = &status.reload.error {
            p.error { "The last reload failed, the configuration before it goes on: " (cut(error)) }
        }
    }
}

fn open_alerts(frame: &Frame, alerts: &[AlertView], firing: usize) -> Markup {
    html! {
        section {
            h2 { "Open alerts " span.count { (firing) } }
            ul.alerts {
                @for alert in alerts {
                    li class=(alert.severity) {
                        a href={ "/alerts/" (alert.id) } { (cut(&alert.title)) }
                        span.sub {
                            (alert.severity) " · since " (frame.time(alert.since))
                            @if alert.count > 1 { " · " (alert.count) " times" }
                            @if let Some(by) = &alert.acknowledged_by { " · taken by " (cut(by)) }
                        }
                    }
                }
            }
        }
    }
}

fn sources(state: &ApiState, frame: &Frame) -> Markup {
    let sources = state.monitor.sources();
    html! {
        section {
            h2 { "Sources " span.count { (sources.len()) } }
            @if sources.is_empty() { p.dim { "None is configured: add one to monitor.ron." } }
            ul.sources {
                @for source in sources.iter().take(SOURCES_MAX).map(SourceView::new) {
                    li {
                        div.line { b { (cut(&source.name)) } (badge(source.status)) }
                        span.sub {
                            (cut(&source.plugin_name)) " · " (source.rung) " · " (source.open_jobs) " open"
                            @if let Some(at) = source.last_ok_at { " · seen " (frame.time(at)) }
                            @if let Some(took) = source.poll_duration { " · polled in " (duration(took.0)) }
                        }
                        @if let Some(since) = source.stale_since {
                            span.sub.warn { "no contact since " (frame.time(since)) "; statuses are as they were then" }
                        }
                        @if source.status != "ok" {
                            @if let Some(error) = &source.last_error { span.sub.bad { (cut(error)) } }
                        }
                        @if let Some(stream) = source.stream.as_ref().filter(|stream| stream.state != "connected") {
                            span.sub {
                                "stream " (stream.state) " since " (frame.time(stream.since))
                                @if let Some(error) = &stream.last_error { ": " (cut(error)) }
                            }
                        }
                        @for (what, value) in measured(&source).iter().take(GAUGES_MAX) {
                            span.sub { (cut(what)) ": " (cut(value)) }
                        }
                        @if let Some(notice) = &source.notice { span.sub { (cut(notice)) } }
                    }
                }
            }
        }
    }
}

fn measured(source: &SourceView) -> Vec<(String, String)> {
    let gauges: Vec<Shown<'_>> = source.gauges.iter().map(GaugeView::shown).collect();
    words(&gauges)
}

fn running(views: &[ExecutionView], count: u64) -> Markup {
    html! {
        section {
            h2 { "Running " span.count { (count) } }
            @if views.is_empty() { p.dim { "Nothing." } }
            @for view in views {
                article.stale[view.stale_since.is_some()] {
                    div.line { div { (name(view)) } @if view.status != "running" { (badge(view.status)) } }
                    div.bar { (bar(view)) }
                    span.sub {
                        @if let Some(elapsed) = view.duration { (duration(elapsed.0)) }
                        @if view.steps_total > 0 { " · " (view.steps_done) " of " (view.steps_total) " steps" }
                        @if view.attempt > 1 { " · attempt " (view.attempt) }
                        @if let Some(note) = &view.note { " · " (cut(note)) }
                    }
                }
            }
            (more(views.len(), count, "/api/executions?status=running"))
        }
    }
}

fn queued(views: &[ExecutionView], count: u64) -> Markup {
    html! {
        section {
            h2 { "Queued " span.count { (count) } }
            @if views.is_empty() { p.dim { "Nothing." } }
            @else {
                table {
                    tr { th { "Execution" } th.num { "Place" } th.num { "Waits" } }
                    @for view in views {
                        tr {
                            td { (name(view)) }
                            td.num { @if let Some(place) = view.position { (u64::from(place) + 1) } @else { "–" } }
                            td.num { @if let Some(wait) = view.queue_wait { (duration(wait.0)) } @else { "–" } }
                        }
                    }
                }
            }
            (more(views.len(), count, "/api/executions?status=pending,queued,initializing"))
        }
    }
}

fn more(shown: usize, count: u64, href: &str) -> Markup {
    let left = count.saturating_sub(u64::try_from(shown).unwrap_or(u64::MAX));
    html! { @if left > 0 { p { a href=(href) { (left) " more" } } } }
}

fn failures(frame: &Frame, views: &[ExecutionView]) -> Markup {
    html! {
        section {
            h2 { "Last failures" }
            @if views.is_empty() { p.dim { "None." } }
            @for view in views {
                article {
                    div.line { div { (name(view)) } (badge(view.status)) }
                    @if let Some(error) = &view.error_message { pre.bad { (cut(error)) } }
                    span.sub { (ended(frame, view)) }
                }
            }
        }
    }
}

/// When it ended and how long it took.
fn ended(frame: &Frame, view: &ExecutionView) -> Markup {
    html! {
        @match view.completed_at {
            Some(at) => (frame.time(at)),
            None => { "last seen " (frame.time(view.started_at.unwrap_or(view.first_seen_at))) }
        }
        @if let Some(took) = view.duration { " · took " (duration(took.0)) }
        @if view.imported { " · before weir watched" }
        @if view.corrected { " · corrected" }
    }
}

fn finished(frame: &Frame, views: &[ExecutionView]) -> Markup {
    html! {
        @if !views.is_empty() {
            section {
                h2 { "Last finished" }
                table {
                    tr { th { "Execution" } th { "Status" } th.num { "Took" } th.num.wide { "Ended" } }
                    @for view in views {
                        tr {
                            td { (name(view)) }
                            td { (badge(view.status)) }
                            td.num { @if let Some(took) = view.duration { (duration(took.0)) } @else { "–" } }
                            td.num.wide { (frame.optional_time(view.completed_at)) }
                        }
                    }
                }
            }
        }
    }
}

fn mutes(frame: &Frame, mutes: &[MuteView]) -> Markup {
    if mutes.is_empty() {
        return html! {};
    }
    html! {
        section {
            h2 { "Muted " span.count { (mutes.len()) } }
            ul.plain {
                @for mute in mutes.iter().take(ALERTS_MAX) {
                    li {
                        (cut(&mute.scope())) " until " (frame.time(mute.until)) " by " (cut(&mute.by))
                        @if let Some(comment) = &mute.comment { span.sub { (cut(comment)) } }
                    }
                }
            }
        }
    }
}

fn host(state: &ApiState) -> Markup {
    html! {
        @if let Some(line) = resources::line(state) {
            section { h2 { "This host" } p.host { @for (what, value) in line { span { (what) " " b { (value) } } " " } } }
        }
    }
}
