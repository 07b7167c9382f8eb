//! A progress bar: as long as what is known, and never more than that.

use super::style;
use crate::cli::human::percent;
use crate::cli::printer::Tone;
use crate::client::view::{Execution, Step};
use crate::tui::app::App;
use ratatui::text::Span;

/// The bar of an execution and its number, together `width + 8` columns.
pub(super) fn spans(app: &App, execution: &Execution, width: usize) -> Vec<Span<'static>> {
    match execution.status.as_str() {
        "completed" => bar(app, Some(100.0), false, Tone::Good, width),
        _ if execution.is_waiting() => bar_or_blank(app, None, width),
        _ if execution.is_active() => bar(
            app,
            execution.progress,
            execution.estimated,
            Tone::Busy,
            width,
        ),
        _ => {
            let progress = execution.progress.filter(|progress| *progress > 0.0);
            bar_or_blank(app, progress, width)
        }
    }
}

pub(super) fn step_spans(app: &App, step: &Step, width: usize) -> Vec<Span<'static>> {
    match step.status.as_str() {
        "completed" => bar(app, Some(100.0), false, Tone::Good, width),
        "running" => bar(app, step.progress, false, Tone::Busy, width),
        _ => bar_or_blank(app, None, width),
    }
}

fn bar_or_blank(app: &App, progress: Option<f64>, width: usize) -> Vec<Span<'static>> {
    match progress {
        Some(_) => bar(app, progress, false, Tone::Warn, width),
        None => vec![Span::raw(" ".repeat(width + 8))],
    }
}

fn bar(
    app: &App,
    progress: Option<f64>,
    estimated: bool,
    tone: Tone,
    width: usize,
) -> Vec<Span<'static>> {
    let (full, empty) = match app.unicode {
        true => ("━", "─"),
        false => ("#", "-"),
    };
    let Some(value) = progress else {
        // Nothing is known: a track without a bar.
        return vec![
            Span::styled(empty.repeat(width), style(app, Tone::Dim)),
            Span::styled(format!("{:>7} ", "?"), style(app, Tone::Dim)),
        ];
    };
    let cells = (value.clamp(0.0, 100.0) / 100.0 * width as f64).floor() as usize;
    vec![
        Span::styled(full.repeat(cells), style(app, tone)),
        Span::styled(empty.repeat(width - cells), style(app, Tone::Dim)),
        Span::raw(format!("{:>7} ", percent(progress, estimated))),
    ]
}
