//! `weir alerts`: what fires, who was told, and acknowledging it.

use super::Context;
use super::exit::{CliError, Exit};
use super::human::one_line;
use super::printer::Tone;
use super::table::Table;
use crate::client::Client;
use crate::client::view::Alert;
use serde_json::json;

/// Alerts shown at most.
const ALERTS_MAX: usize = 500;

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<AlertsCommand>,
    /// Resolved ones too
    #[arg(long)]
    all: bool,
    /// One JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum AlertsCommand {
    /// Acknowledge an alert: it is not repeated; one about jobs is closed by it
    Ack {
        /// Its id, or the beginning of it
        id: String,
        /// Who acknowledges
        #[arg(
            long,
            env = "USER",
            hide_env_values = true,
            default_value = "command line"
        )]
        by: String,
    },
}

pub async fn run(ctx: &mut Context, args: &Args) -> Result<Exit, CliError> {
    let (client, local) = ctx.daemon()?;
    if let Some(AlertsCommand::Ack { id, by }) = &args.command {
        return ack(ctx, &client, id, by).await;
    }
    let mut query = Vec::new();
    if !args.all {
        query.push(("status", "firing".to_owned()));
    }
    let items = client.items("api/alerts", &query, ALERTS_MAX).await?;
    if args.json {
        ctx.printer.json(&json!({ "items": items }))?;
        return Ok(Exit::Ok);
    }
    let mut table = Table::new(&[
        "ALERT", "SEVERITY", "STATUS", "SINCE", "COUNT", "TOLD", "TITLE",
    ]);
    let mut unnamed = false;
    for item in items {
        let alert: Alert = client.view(item)?;
        let label = |name: &str| alert.labels.get(name);
        unnamed |= alert.status == "firing"
            && label("workflow").is_some_and(|workflow| Some(workflow) == label("source"));
        let status = match &alert.acknowledged_by {
            Some(by) => format!("{}, ack by {by}", alert.status),
            None => alert.status.clone(),
        };
        table.row(vec![
            (alert.id.clone(), Tone::Dim),
            (alert.severity.clone(), Tone::of_status(&alert.severity)),
            (status, Tone::of_status(&alert.status)),
            (local.time_or_dash(alert.since), Tone::Plain),
            (alert.count.unwrap_or(1).to_string(), Tone::Plain),
            told(&alert),
            (alert.title.clone().unwrap_or_default(), Tone::Plain),
        ]);
    }
    if table.is_empty() {
        let word = if args.all {
            "no alerts"
        } else {
            "no alert is firing"
        };
        ctx.printer.note(word);
    } else {
        table.print(&mut ctx.printer)?;
        if unnamed {
            ctx.printer.note(
                "jobs without a workflow of their own are filed under their source: no later success closes such an alert, `weir alerts ack` does",
            );
        }
    }
    Ok(Exit::Ok)
}

/// `phone sent, ops failed`; the worst decides the colour.
fn told(alert: &Alert) -> (String, Tone) {
    let mut text = Vec::new();
    let mut tone = Tone::Dim;
    for delivery in &alert.deliveries {
        let word = format!("{} {}", delivery.receiver, delivery.state);
        if !text.contains(&word) {
            text.push(word);
        }
        match delivery.state.as_str() {
            "dead" => tone = Tone::Bad,
            "failed" if tone != Tone::Bad => tone = Tone::Warn,
            _ => {}
        }
    }
    if text.is_empty() {
        text.push("nobody".to_owned());
    }
    (text.join(", "), tone)
}

async fn ack(ctx: &mut Context, client: &Client, id: &str, by: &str) -> Result<Exit, CliError> {
    let id = alert_id(client, id).await?;
    client
        .post(&format!("api/alerts/{id}/ack"), &json!({ "by": by }))
        .await?;
    ctx.printer.note(format_args!("acknowledged {id}"));
    Ok(Exit::Ok)
}

/// The whole id of the one firing alert whose id begins so.
async fn alert_id(client: &Client, id: &str) -> Result<String, CliError> {
    if let Ok(id) = uuid::Uuid::parse_str(id) {
        return Ok(id.to_string());
    }
    // As a narrow terminal shows it.
    let id = id.trim_end_matches('…');
    let query = [("status", "firing".to_owned())];
    let items = client.items("api/alerts", &query, ALERTS_MAX).await?;
    let ids = items.iter().filter_map(|item| item["id"].as_str());
    let mut found = ids.filter(|known| !id.is_empty() && known.starts_with(id));
    match (found.next(), found.next()) {
        (Some(id), None) => Ok(one_line(id)),
        (Some(_), Some(_)) => Err(CliError::usage(format!(
            "more than one firing alert begins with `{}`",
            one_line(id)
        ))),
        (None, _) => Err(CliError::new(
            Exit::NotFound,
            format!("no firing alert begins with `{}`", one_line(id)),
        )),
    }
}
