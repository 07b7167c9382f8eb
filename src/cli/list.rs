//! `weir list`: executions, newest first.

use super::Context;
use super::exit::{CliError, Exit};
use super::human::{duration_or_dash, percent};
use super::printer::Tone;
use super::table::Table;
use crate::client::Client;
use crate::client::view::Execution;

/// More is a job for `--json` and the API's pages.
const LIMIT_MAX: u64 = 10_000;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only what is not over yet
    #[arg(long, conflicts_with = "status")]
    active: bool,
    /// Only these, with commas between: running, queued, completed, failed, cancelled, lost, …
    #[arg(long)]
    status: Option<String>,
    /// Only of this source
    #[arg(long)]
    source: Option<String>,
    /// Only of this workflow, by name or number
    #[arg(long)]
    workflow: Option<String>,
    /// How many at most
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=LIMIT_MAX))]
    limit: u64,
    /// One JSON document
    #[arg(long)]
    json: bool,
}

pub async fn run(ctx: &mut Context, args: &Args) -> Result<Exit, CliError> {
    let (client, local) = ctx.daemon()?;
    let mut query = Vec::new();
    query.extend(args.source.clone().map(|source| ("source", source)));
    if let Some(workflow) = &args.workflow {
        query.push(("workflow_id", workflow_id(&client, workflow).await?));
    }
    let open = args.active.then(|| "open".to_owned());
    query.extend(
        open.or(args.status.clone())
            .map(|status| ("status", status)),
    );
    let limit = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let items = client.items("api/executions", &query, limit).await?;
    if args.json {
        ctx.printer.json(&serde_json::json!({ "items": items }))?;
        return Ok(Exit::Ok);
    }
    let mut table = Table::new(&[
        "SEQ", "STATUS", "", "WORKFLOW", "SOURCE", "CREATED", "DURATION", "WAITED", "REMARK",
    ]);
    for item in items {
        let execution: Execution = client.view(item)?;
        let tone = Tone::of_status(&execution.status);
        let created = execution.created_at.or(execution.first_seen_at);
        table.row(vec![
            (execution.execution_seq.to_string(), Tone::Dim),
            (execution.status.clone(), tone),
            (progress(&execution), Tone::Plain),
            (execution.title(), Tone::Plain),
            (execution.source.clone().unwrap_or_default(), Tone::Plain),
            (local.time_or_dash(created), Tone::Plain),
            (duration_or_dash(execution.duration), Tone::Plain),
            (duration_or_dash(execution.queue_wait), Tone::Plain),
            (execution.remark(), Tone::Dim),
        ]);
    }
    if table.is_empty() {
        ctx.printer.note("no executions");
    } else {
        table.print(&mut ctx.printer)?;
    }
    Ok(Exit::Ok)
}

/// Progress is worth a column while something runs.
fn progress(execution: &Execution) -> String {
    if execution.is_active() && !execution.is_waiting() {
        percent(execution.progress, execution.estimated)
    } else {
        String::new()
    }
}

/// The number of a workflow that was named by number, name or key.
async fn workflow_id(client: &Client, workflow: &str) -> Result<String, CliError> {
    if workflow.parse::<u64>().is_ok() {
        return Ok(workflow.to_owned());
    }
    let items = client.items("api/workflows", &[], 1000).await?;
    let found = items.iter().find(|item| {
        ["name", "key"]
            .iter()
            .any(|field| item[*field].as_str() == Some(workflow))
    });
    match found {
        Some(item) => Ok(item["id"].to_string()),
        None => Err(CliError::new(
            Exit::NotFound,
            format!("the daemon knows no workflow `{workflow}`"),
        )),
    }
}
