//! How the live view looks: header, executions with their bars, sources, alerts, log, keys.

mod bar;
mod panes;

use super::app::App;
use crate::cli::human::{Local, duration, fit, one_line};
use crate::cli::printer::Tone;
use crate::client::view::Execution;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Clear, List, ListItem, ListState, Paragraph, Wrap};

/// Columns of a progress bar, without its number.
const BAR_WIDTH: usize = 12;

pub fn draw(frame: &mut Frame<'_>, app: &mut App) {
    let area = frame.area();
    let lower = panes::height(app, area.height);
    let log = if app.log { area.height / 3 } else { 0 };
    let rows = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(3),
        Constraint::Length(log),
        Constraint::Length(lower),
        Constraint::Length(1),
        Constraint::Length(1),
    ]);
    let [head, main, log_area, lower_area, detail, keys] = rows.areas(area);
    header(frame, app, head);
    match app.single().cloned() {
        Some(execution) => steps(frame, app, main, &execution),
        None => executions(frame, app, main),
    }
    if app.log {
        panes::log(frame, app, log_area);
    }
    panes::lower(frame, app, lower_area);
    frame.render_widget(Paragraph::new(detail_line(app, detail.width)), detail);
    frame.render_widget(Paragraph::new(key_line(app)), keys);
    if app.help {
        help(frame, app, area);
    }
}

/// The style of a meaning; without colour only weight is left.
pub(super) fn style(app: &App, tone: Tone) -> Style {
    let plain = Style::new();
    let weight = match tone {
        Tone::Title | Tone::Bad => plain.add_modifier(Modifier::BOLD),
        Tone::Dim => plain.add_modifier(Modifier::DIM),
        _ => plain,
    };
    if !app.color {
        return weight;
    }
    match tone {
        Tone::Good => weight.fg(Color::Green),
        Tone::Busy => weight.fg(Color::Cyan),
        Tone::Warn => weight.fg(Color::Yellow),
        Tone::Bad => weight.fg(Color::Red),
        Tone::Plain | Tone::Title | Tone::Dim => weight,
    }
}

fn header(frame: &mut Frame<'_>, app: &App, area: Rect) {
    let contact = match (app.stale(), &app.snapshot) {
        (Some(age), _) => (
            format!("no contact for {}", duration(age.as_secs_f64())),
            Tone::Bad,
        ),
        (None, Some(_)) => ("live".to_owned(), Tone::Good),
        (None, None) => match &app.blind {
            Some(_) => ("no contact".to_owned(), Tone::Bad),
            None => ("connecting".to_owned(), Tone::Dim),
        },
    };
    let mut spans = vec![
        Span::styled(" weir ", style(app, Tone::Title)),
        Span::raw(format!("{}  ", app.url)),
        Span::styled(contact.0, style(app, contact.1)),
    ];
    if let Some(snapshot) = app.snapshot.as_ref().filter(|_| app.single().is_none()) {
        let status = &snapshot.status;
        spans.push(Span::raw(format!(
            "   {} running, {} queued",
            status.executions.running, status.executions.queued
        )));
        if status.alerts.firing > 0 {
            let text = format!("   {} firing", status.alerts.firing);
            spans.push(Span::styled(text, style(app, Tone::Bad)));
        }
        if !matches!(status.journal.state.as_str(), "" | "open" | "ok") {
            let text = format!("   journal {}", status.journal.state);
            spans.push(Span::styled(text, style(app, Tone::Bad)));
        }
    }
    frame.render_widget(Paragraph::new(Line::from(spans)), area);
}

fn executions(frame: &mut Frame<'_>, app: &mut App, area: Rect) {
    let title = if app.active_only {
        " executions, active only "
    } else {
        " executions "
    };
    let block = Block::new().borders(Borders::TOP).title(title);
    let inner = block.inner(area);
    frame.render_widget(block, area);
    app.page = usize::from(inner.height).max(1);
    let width = usize::from(inner.width);
    let items: Vec<ListItem<'_>> = app
        .rows()
        .map(|execution| ListItem::new(execution_line(app, execution, width)))
        .collect();
    if items.is_empty() {
        let text = match &app.blind {
            Some(reason) if app.snapshot.is_none() => reason.clone(),
            _ if app.snapshot.is_none() => "…".to_owned(),
            _ => "nothing was seen yet".to_owned(),
        };
        let paragraph = Paragraph::new(text).wrap(Wrap { trim: true });
        frame.render_widget(paragraph.style(style(app, Tone::Dim)), inner);
        return;
    }
    selectable(frame, app, inner, items);
}

fn selectable(frame: &mut Frame<'_>, app: &App, area: Rect, items: Vec<ListItem<'_>>) {
    let list = List::new(items).highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let mut state = ListState::default().with_selected(Some(app.selected));
    frame.render_stateful_widget(list, area, &mut state);
}

fn execution_line(app: &App, execution: &Execution, width: usize) -> Line<'static> {
    let tone = Tone::of_status(&execution.status);
    // What is left for names after the columns that have their width.
    let fixed = 11 + 10 + BAR_WIDTH + 8 + 11;
    let names = width.saturating_sub(fixed);
    let remark_width = if names > 44 { names - 32 } else { 0 };
    let title_width = names - remark_width;
    let mut spans = vec![
        Span::styled(column(&execution.status, 11), style(app, tone)),
        Span::raw(column(&execution.title(), title_width)),
        Span::styled(
            column(execution.source.as_deref().unwrap_or("-"), 10),
            style(app, Tone::Dim),
        ),
    ];
    spans.extend(bar::spans(app, execution, BAR_WIDTH));
    spans.push(Span::raw(format!("{:>10} ", took(app, execution))));
    spans.push(Span::styled(
        fit(&execution.remark(), remark_width),
        style(app, Tone::Dim),
    ));
    Line::from(spans)
}

/// The time it took or takes; while it runs, counted on from its start.
fn took(app: &App, execution: &Execution) -> String {
    if execution.is_waiting() {
        return String::new();
    }
    let counted = execution.started_at.filter(|_| execution.is_active());
    let counted = counted.map(|started| app.now.duration_since(started).as_secs_f64().max(0.0));
    counted
        .or(execution.duration)
        .map(duration)
        .unwrap_or_default()
}

/// One cell: the text, cut or filled, and a blank after it.
fn column(text: &str, width: usize) -> String {
    let mut cell = crate::cli::human::pad(text, width.saturating_sub(1));
    cell.push(' ');
    cell
}

/// One execution and its steps.
fn steps(frame: &mut Frame<'_>, app: &mut App, area: Rect, execution: &Execution) {
    let [top, rest] = Layout::vertical([Constraint::Length(2), Constraint::Min(1)]).areas(area);
    let width = usize::from(area.width);
    frame.render_widget(
        Paragraph::new(vec![Line::raw(""), execution_line(app, execution, width)]),
        top,
    );
    let block = Block::new().borders(Borders::TOP).title(" steps ");
    let inner = block.inner(rest);
    frame.render_widget(block, rest);
    app.page = usize::from(inner.height).max(1);
    let local = Local::new(app.zone.clone(), app.now);
    let name_width = width.saturating_sub(11 + BAR_WIDTH + 8 + 11 + 10);
    let items: Vec<ListItem<'_>> = execution
        .step_executions
        .iter()
        .map(|step| {
            let tone = Tone::of_status(&step.status);
            let text = match &step.error_message {
                Some(error) => format!("{}: {error}", step.title()),
                None => step.title(),
            };
            let mut spans = vec![
                Span::styled(column(&step.status, 11), style(app, tone)),
                Span::raw(column(&text, name_width)),
            ];
            spans.extend(bar::step_spans(app, step, BAR_WIDTH));
            let took = step.duration.map(duration).unwrap_or_default();
            let started = step.started_at.map(|at| local.time(at)).unwrap_or_default();
            spans.push(Span::raw(format!("{took:>10} {started:>9}")));
            ListItem::new(Line::from(spans))
        })
        .collect();
    selectable(frame, app, inner, items);
}

/// What is to be said about the selected row, on one line.
fn detail_line(app: &App, width: u16) -> Line<'static> {
    let width = usize::from(width).saturating_sub(1);
    if let Some(reason) = app.blind.as_ref().filter(|_| app.snapshot.is_some()) {
        let text = format!(" {}", fit(reason, width));
        return Line::styled(text, style(app, Tone::Bad));
    }
    if let Some(footer) = &app.footer {
        return Line::styled(format!(" {}", fit(footer, width)), style(app, Tone::Good));
    }
    let Some(execution) = app
        .rows()
        .nth(app.selected)
        .filter(|_| app.single().is_none())
    else {
        return Line::raw("");
    };
    let steps = match (execution.steps_done, execution.steps_total) {
        (Some(done), Some(total)) if total > 0 => format!(" · {done}/{total} steps"),
        _ => String::new(),
    };
    let wait = execution
        .queue_wait
        .map(|wait| format!(" · waited {}", duration(wait)));
    let text = format!(
        "#{}{steps}{} {}",
        execution.execution_seq,
        wait.unwrap_or_default(),
        one_line(&execution.remark())
    );
    Line::styled(format!(" {}", fit(&text, width)), style(app, Tone::Dim))
}

fn key_line(app: &App) -> Line<'static> {
    let active = if app.active_only { "a all" } else { "a active" };
    let log = if app.log { "l no log" } else { "l log" };
    let text = format!(" q quit  j/k select  {active}  {log}  ? help");
    Line::styled(text, style(app, Tone::Dim))
}

fn help(frame: &mut Frame<'_>, app: &App, area: Rect) {
    const KEYS: [(&str, &str); 7] = [
        ("q, esc, ctrl-c", "leave"),
        ("j/k, arrows", "select the next or previous row"),
        ("page up/down", "a page"),
        ("g/G", "first, last"),
        ("a", "active executions only, or all"),
        ("l", "show or hide the log"),
        ("?", "this help"),
    ];
    let width = 52.min(area.width);
    let height = (KEYS.len() as u16 + 2).min(area.height);
    let popup = Rect {
        x: (area.width - width) / 2,
        y: (area.height - height) / 2,
        width,
        height,
    };
    let lines: Vec<Line<'_>> = KEYS
        .iter()
        .map(|(key, what)| {
            Line::from(vec![
                Span::styled(format!(" {key:<16}"), style(app, Tone::Title)),
                Span::raw(*what),
            ])
        })
        .collect();
    frame.render_widget(Clear, popup);
    frame.render_widget(
        Paragraph::new(lines).block(Block::bordered().title(" keys ")),
        popup,
    );
}

#[cfg(test)]
mod tests;
