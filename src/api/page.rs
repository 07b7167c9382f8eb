//! The pages for people: rendered here, without JavaScript, everything from outside escaped and cut to a length.

mod alert;
mod execution;
mod overview;
mod style;

pub(super) use alert::alert;
pub(super) use execution::execution;
pub(super) use overview::overview;

use super::ApiState;
use super::errors::Problem;
use super::views::{ExecutionView, Time};
use actix_web::{HttpResponse, http::StatusCode};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use maud::{DOCTYPE, Markup, PreEscaped, html};

/// Characters of one text.
const TEXT_LEN_MAX: usize = 400;

/// What a page needs beside its content.
struct Frame {
    title: String,
    refresh: bool,
    now: Timestamp,
    zone: TimeZone,
}

impl Frame {
    fn new(state: &ApiState, title: impl Into<String>, refresh: bool) -> Frame {
        let name = state.monitor.config().timezone.clone();
        let zone = name
            .and_then(|name| TimeZone::get(&name).ok())
            .unwrap_or_else(TimeZone::system);
        Frame {
            title: title.into(),
            refresh,
            now: state.monitor.clock().now(),
            zone,
        }
    }

    fn render(&self, status: StatusCode, content: &Markup) -> HttpResponse {
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    @if self.refresh { meta http-equiv="refresh" content="5"; }
                    title { (self.title) }
                    link rel="icon" href="data:,";
                    style { (PreEscaped(style::CSS)) }
                }
                body {
                    header {
                        a.home href="/" { "weir" }
                        span.now { (self.time(self.now.into())) }
                    }
                    main { (content) }
                }
            }
        };
        HttpResponse::build(status)
            .content_type("text/html; charset=utf-8")
            .body(page.into_string())
    }

    /// The time of day in the zone of the people, the day too when it is another one.
    fn time(&self, at: Time) -> Markup {
        let (zoned, now) = (
            at.0.to_zoned(self.zone.clone()),
            self.now.to_zoned(self.zone.clone()),
        );
        let format = if zoned.date() == now.date() {
            "%H:%M:%S"
        } else {
            "%Y-%m-%d %H:%M"
        };
        html! { time datetime=(at) title=(at) { (zoned.strftime(format)) } }
    }

    fn optional_time(&self, at: Option<Time>) -> Markup {
        html! { @match at { Some(at) => (self.time(at)), None => span.dim { "–" } } }
    }
}

/// Text of the outside, cut.
fn cut(text: &str) -> String {
    match text.char_indices().nth(TEXT_LEN_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// `850 ms`, `12.3 s`, `4 min 05 s`, `3 h 20 min`, `2 d 4 h`.
fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match seconds {
        s if s < 0.9995 => format!("{:.0} ms", s.max(0.0) * 1000.0),
        s if s < 59.95 => format!("{s:.1} s"),
        _ if whole < 3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ if whole < 86_400 => format!("{} h {:02} min", whole / 3600, whole / 60 % 60),
        _ => format!("{} d {} h", whole / 86_400, whole / 3600 % 24),
    }
}

fn badge(status: &str) -> Markup {
    html! { span class={ "badge " (status) } { (status) } }
}

fn bar(view: &ExecutionView) -> Markup {
    html! {
        @match view.progress {
            Some(percent) => {
                progress max="100" value=(percent) {}
                span.percent title=[view.estimated.then_some("estimated from this workflow's median duration")] {
                    @if view.estimated { "≈ " }
                    (format!("{percent:.0} %"))
                }
            }
            None => { progress max="100" {} span.percent.dim { "no progress told" } }
        }
    }
}

/// What an execution is called, with the way to its page.
fn name(view: &ExecutionView) -> Markup {
    html! {
        a href={ "/executions/" (view.id) } {
            (cut(&view.workflow_name)) " #" (view.execution_number)
        }
        @if let Some(name) = &view.name { span.sub { (cut(name)) } }
        span.sub { (cut(&view.source)) " · " span.id { (cut(&view.external_id)) } }
        @if view.stale_since.is_some() { span.sub.warn { "stale: contact is lost" } }
        @if view.suspect { span.sub.warn { "not seen, not believed to be gone yet" } }
        @if !view.watched { span.sub.warn { "unwatched: its source is not configured" } }
    }
}

fn refusal(state: &ApiState, problem: &Problem) -> HttpResponse {
    let frame = Frame::new(state, format!("{} · weir", problem.title()), false);
    let content = html! { h1 { (problem.title()) } p { (problem.detail()) } p { a href="/" { "To the overview" } } };
    frame.render(problem.status(), &content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_like_people_say_them() {
        let cases = [
            (0.0, "0 ms"),
            (0.85, "850 ms"),
            (0.9999, "1.0 s"),
            (12.34, "12.3 s"),
            (59.97, "1 min 00 s"),
            (245.0, "4 min 05 s"),
            (3599.7, "1 h 00 min"),
            (12_000.0, "3 h 20 min"),
            (187_200.0, "2 d 4 h"),
        ];
        for (seconds, text) in cases {
            assert_eq!(duration(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        assert_eq!(cut("short"), "short");
        let long = "ž".repeat(TEXT_LEN_MAX + 1);
        assert_eq!(cut(&long).chars().count(), TEXT_LEN_MAX + 1);
        assert!(cut(&long).ends_with('…'));
    }
}
