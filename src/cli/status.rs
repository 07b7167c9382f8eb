//! `weir status`: how the daemon is, or one execution with its steps.

use super::Context;
use super::exit::{CliError, Exit};
use super::human::{Local, bytes, duration, duration_or_dash, one_line, percent};
use super::printer::{Printer, Tone};
use super::table::Table;
use crate::client::Client;
use crate::client::view::{Execution, Status};
use serde_json::Value;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// An execution: its number (SEQ of `weir list`), id, or the provider's id
    id: Option<String>,
    /// One JSON document
    #[arg(long)]
    json: bool,
}

pub async fn run(ctx: &mut Context, args: &Args) -> Result<Exit, CliError> {
    let (client, local) = ctx.daemon()?;
    let value = match &args.id {
        Some(id) => execution(&client, id).await?,
        None => client.raw("status", &[]).await?,
    };
    if args.json {
        ctx.printer.json(&value)?;
    } else if args.id.is_some() {
        show_execution(&mut ctx.printer, &client.view(value)?, &local)?;
    } else {
        show_status(
            &mut ctx.printer,
            &client.view(value)?,
            &local,
            &client.url(),
        )?;
    }
    Ok(Exit::Ok)
}

/// The execution that is meant by an id, a number, or the provider's id (then the latest run of it).
pub async fn execution(client: &Client, id: &str) -> Result<Value, CliError> {
    let id = id.trim().trim_start_matches('#');
    if let Ok(id) = uuid::Uuid::parse_str(id) {
        match client.raw(&format!("api/executions/{id}"), &[]).await {
            Err(error) if error.is_not_found() => {}
            answer => return Ok(answer?),
        }
    }
    if let Ok(seq) = id.parse::<i64>() {
        // The cursor of a page is the number before which it begins.
        let query = [
            ("cursor", seq.saturating_add(1).to_string()),
            ("limit", "1".to_owned()),
        ];
        let page = client.raw("api/executions", &query).await?;
        let found = &page["items"][0];
        if let (Some(id), true) = (found["id"].as_str(), found["execution_seq"] == seq) {
            return Ok(client.raw(&format!("api/executions/{id}"), &[]).await?);
        }
    }
    let query = [("external_id", id.to_owned())];
    let found = client.items("api/executions", &query, 1).await?;
    match found.first().and_then(|item| item["id"].as_str()) {
        Some(id) => Ok(client.raw(&format!("api/executions/{id}"), &[]).await?),
        None => Err(CliError::new(
            Exit::NotFound,
            format!("the daemon knows no execution `{}`", one_line(id)),
        )),
    }
}

fn show_status(
    printer: &mut Printer,
    status: &Status,
    local: &Local,
    url: &str,
) -> Result<(), CliError> {
    let up = status.uptime.map(duration).unwrap_or_default();
    let title = printer.paint(&format!("weir {}", status.version), Tone::Title);
    printer.line(format_args!("{title}  up {up}  {url}"))?;
    let journal = &status.journal;
    let state = printer.paint(&journal.state, Tone::of_status(&journal.state));
    let reason = journal.reason.as_ref().map(|reason| format!(" ({reason})"));
    let size = journal.size_bytes.map(|size| format!(", {}", bytes(size)));
    printer.line(format_args!(
        "journal     {state}{}, {} events{}  {}",
        reason.unwrap_or_default(),
        journal.head,
        size.unwrap_or_default(),
        status.data_dir.as_deref().unwrap_or_default()
    ))?;
    printer.line(format_args!(
        "executions  {} running, {} queued{}",
        status.executions.running,
        status.executions.queued,
        closed(status)
    ))?;
    show_alerts(printer, status, local)?;
    if let Some(reload) = status.reload.as_ref().filter(|reload| !reload.ok) {
        let error = reload.error.as_deref().unwrap_or("the file is not valid");
        let word = printer.paint("reload failed", Tone::Bad);
        printer.line(format_args!(
            "{word} at {}: {error}; the last good configuration works on",
            local.time_or_dash(reload.at)
        ))?;
    }
    for warning in &status.warnings {
        // Each of them is a `weir_trouble` too, and called there what it is called here.
        let word = printer.paint("critical", Tone::Bad);
        let (subject, message) = (one_line(&warning.subject), one_line(&warning.message));
        printer.line(format_args!("{word}    {subject}: {message}"))?;
    }
    if !status.sources.is_empty() {
        printer.line("")?;
        super::sources::table(&status.sources, local).print(printer)?;
    }
    Ok(())
}

fn closed(status: &Status) -> String {
    let counts = status.executions.by_status.iter();
    let counts = counts
        .filter(|(name, count)| **count > 0 && !matches!(name.as_str(), "running" | "queued"));
    counts
        .map(|(name, count)| format!(", {count} {name}"))
        .collect()
}

fn show_alerts(printer: &mut Printer, status: &Status, local: &Local) -> Result<(), CliError> {
    let severities: Vec<String> = status
        .alerts
        .by_severity
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(severity, count)| format!("{count} {severity}"))
        .collect();
    let firing = match status.alerts.firing {
        0 => printer.paint("none firing", Tone::Good),
        count => printer.paint(&format!("{count} firing"), Tone::Bad),
    };
    let by = if severities.is_empty() {
        String::new()
    } else {
        format!(" ({})", severities.join(", "))
    };
    printer.line(format_args!("alerts      {firing}{by}"))?;
    for mute in &status.mutes {
        printer.line(format_args!(
            "muted       {} until {}{}",
            mute.what(),
            local.time_or_dash(mute.until),
            mute.comment
                .as_ref()
                .map(|comment| format!(": {comment}"))
                .unwrap_or_default()
        ))?;
    }
    Ok(())
}

fn show_execution(
    printer: &mut Printer,
    execution: &Execution,
    local: &Local,
) -> Result<(), CliError> {
    let status = printer.paint(&execution.status, Tone::of_status(&execution.status));
    let title = printer.paint(&one_line(&execution.title()), Tone::Title);
    let progress = match execution.is_active() {
        true => percent(execution.progress, execution.estimated),
        false => String::new(),
    };
    printer.line(format!("{title}  {status}  {progress}").trim_end())?;
    let time = |time: Option<jiff::Timestamp>| time.map(|time| local.exact(time));
    let seq = execution.execution_seq;
    let rows = [
        ("number", Some(format!("{seq}"))),
        ("id", Some(execution.id.clone())),
        ("source", execution.source.clone()),
        ("external id", execution.external_id.clone()),
        ("created", time(execution.created_at)),
        ("started", time(execution.started_at)),
        ("completed", time(execution.completed_at)),
        ("duration", execution.duration.map(duration)),
        ("queue wait", execution.queue_wait.map(duration)),
        ("no contact since", time(execution.stale_since)),
        ("note", execution.note.clone()),
        ("error", execution.error_message.clone()),
        ("retried from", execution.retried_from.clone()),
        ("retried as", execution.retried_as.clone()),
        ("cancel asked", time(execution.cancel_requested_at)),
        ("page", execution.url.clone()),
    ];
    for (name, value) in rows {
        if let Some(value) = value {
            printer.line(format_args!("  {name:<17} {}", one_line(&value)))?;
        }
    }
    for request in &execution.control {
        let told = one_line(&request.told());
        printer.line(format_args!("  {:<17} {told}", one_line(&request.action)))?;
    }
    if execution.imported {
        printer.line("  imported: it was already over when weir first saw the source")?;
    }
    if execution.step_executions.is_empty() {
        return Ok(());
    }
    printer.line("")?;
    let mut table = Table::new(&["STEP", "STATUS", "", "STARTED", "DURATION", "ERROR"]);
    for step in &execution.step_executions {
        table.row(vec![
            (step.title(), Tone::Plain),
            (step.status.clone(), Tone::of_status(&step.status)),
            (
                percent(step.progress.filter(|_| step.status == "running"), false),
                Tone::Plain,
            ),
            (local.time_or_dash(step.started_at), Tone::Plain),
            (duration_or_dash(step.duration), Tone::Plain),
            (step.error_message.clone().unwrap_or_default(), Tone::Bad),
        ]);
    }
    table.print(printer)?;
    Ok(())
}
