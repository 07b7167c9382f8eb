//! The panes below the executions: sources, alerts, log.

use super::style;
use crate::cli::human::{Local, fit, pad};
use crate::cli::printer::Tone;
use crate::client::view::Stream;
use crate::tui::app::App;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Paragraph};
use tui_logger::{TuiLoggerLevelOutput, TuiLoggerWidget};

/// Rows of the lower panes: what they have to say, but never more than a third of the screen.
pub(super) fn height(app: &App, screen: u16) -> u16 {
    if app.single().is_some() {
        return 0;
    }
    let Some(snapshot) = &app.snapshot else {
        return 0;
    };
    let alerts = match &app.arrived {
        Some(arrived) => arrived.lock().map_or(0, |arrived| arrived.len()).max(4),
        None => snapshot.alerts.len(),
    };
    let rows = snapshot.sources.len().max(alerts).max(1) + 1;
    u16::try_from(rows).unwrap_or(u16::MAX).min(screen / 3)
}

pub(super) fn lower(frame: &mut Frame<'_>, app: &App, area: Rect) {
    if area.height == 0 {
        return;
    }
    let [left, right] =
        Layout::horizontal([Constraint::Percentage(45), Constraint::Percentage(55)])
            .spacing(1)
            .areas(area);
    sources(frame, app, left);
    match &app.arrived {
        Some(_) => arrived(frame, app, right),
        None => alerts(frame, app, right),
    }
}

fn pane(frame: &mut Frame<'_>, area: Rect, title: &str, lines: Vec<Line<'static>>) {
    let block = Block::new()
        .borders(Borders::TOP)
        .title(format!(" {title} "));
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn sources(frame: &mut Frame<'_>, app: &App, area: Rect) {
    let local = Local::new(app.zone.clone(), app.now);
    let snapshot = app.snapshot.iter();
    let lines = snapshot
        .flat_map(|snapshot| &snapshot.sources)
        .map(|source| {
            let jobs = match (source.stale_since, source.open_jobs) {
                (Some(since), _) => {
                    let error = source.last_error.as_deref().unwrap_or_default();
                    format!("{} {error}", local.ago(since))
                }
                (None, Some(1)) => "1 open job".to_owned(),
                (None, Some(jobs)) => format!("{jobs} open jobs"),
                (None, None) => String::new(),
            };
            let trouble = source.stream.as_ref().and_then(Stream::trouble);
            let how = trouble.or_else(|| source.rung.clone());
            let parts = [Some(jobs), how];
            let parts: Vec<String> = parts
                .into_iter()
                .flatten()
                .filter(|p| !p.is_empty())
                .collect();
            let rest = parts.join(", ");
            let left = usize::from(area.width).saturating_sub(21);
            Line::from(vec![
                Span::raw(pad(&source.name, 11)),
                Span::raw(" "),
                Span::styled(
                    pad(&source.status, 8),
                    style(app, Tone::of_status(&source.status)),
                ),
                Span::raw(" "),
                Span::styled(fit(&rest, left), style(app, Tone::Dim)),
            ])
        });
    pane(frame, area, "sources", lines.collect());
}

fn alerts(frame: &mut Frame<'_>, app: &App, area: Rect) {
    let snapshot = app.snapshot.iter();
    let mut lines: Vec<Line<'static>> = snapshot
        .flat_map(|snapshot| &snapshot.alerts)
        .map(|alert| {
            let times = match alert.count {
                Some(count) if count > 1 => format!(" ({count} times)"),
                _ => String::new(),
            };
            let text = format!("{}{times}", alert.title.as_deref().unwrap_or_default());
            alert_line(app, area, &alert.severity, &text)
        })
        .collect();
    if lines.is_empty() {
        lines.push(Line::styled("none is firing", style(app, Tone::Dim)));
    }
    pane(frame, area, "alerts", lines);
}

fn arrived(frame: &mut Frame<'_>, app: &App, area: Rect) {
    let Some(list) = app.arrived.as_ref().and_then(|list| list.lock().ok()) else {
        return;
    };
    let rows = usize::from(area.height).saturating_sub(1);
    let mut lines: Vec<Line<'static>> = list
        .iter()
        .skip(list.len().saturating_sub(rows))
        .map(|arrived| alert_line(app, area, &arrived.severity, &arrived.title))
        .collect();
    if lines.is_empty() {
        lines.push(Line::styled("none yet", style(app, Tone::Dim)));
    }
    let title = format!("alerts that arrived: {}", list.len());
    pane(frame, area, &title, lines);
}

fn alert_line(app: &App, area: Rect, severity: &str, text: &str) -> Line<'static> {
    let left = usize::from(area.width).saturating_sub(9);
    Line::from(vec![
        Span::styled(pad(severity, 8), style(app, Tone::of_status(severity))),
        Span::raw(" "),
        Span::raw(fit(text, left)),
    ])
}

pub(super) fn log(frame: &mut Frame<'_>, app: &App, area: Rect) {
    let widget = TuiLoggerWidget::default()
        .block(Block::new().borders(Borders::TOP).title(" log "))
        .output_timestamp(Some("%H:%M:%S".to_owned()))
        .output_level(Some(TuiLoggerLevelOutput::Long))
        .output_target(false)
        .output_file(false)
        .output_line(false)
        .style_error(style(app, Tone::Bad))
        .style_warn(style(app, Tone::Warn))
        .style_debug(style(app, Tone::Dim));
    frame.render_widget(widget, area);
}
