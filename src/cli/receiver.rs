//! `weir receiver`: who is told, and whether a message really arrives there.

use super::Context;
use super::exit::{CliError, Exit};
use super::human::one_line;
use super::printer::Tone;
use super::table::Table;
use crate::client::Act;
use crate::client::view::{Receiver, ReceiverTest};
use serde_json::json;

const RECEIVERS_MAX: usize = 1000;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: ReceiverCommand,
}

#[derive(Debug, clap::Subcommand)]
enum ReceiverCommand {
    /// List receivers and how they are
    List {
        /// One JSON document
        #[arg(long)]
        json: bool,
    },
    /// Send a marked test alert and say what came back
    Test {
        /// Its name in monitor.ron
        name: String,
        /// One JSON document
        #[arg(long)]
        json: bool,
    },
}

pub async fn run(ctx: &mut Context, args: &Args) -> Result<Exit, CliError> {
    match &args.command {
        ReceiverCommand::List { json } => list(ctx, *json).await,
        ReceiverCommand::Test { name, json } => test(ctx, name, *json).await,
    }
}

async fn list(ctx: &mut Context, json: bool) -> Result<Exit, CliError> {
    let (client, local) = ctx.daemon()?;
    let items = client.items("api/receivers", &[], RECEIVERS_MAX).await?;
    if json {
        ctx.printer.json(&json!({ "items": items }))?;
        return Ok(Exit::Ok);
    }
    let mut table = Table::new(&["RECEIVER", "HANDLER", "STATUS", "REMARK"]);
    for item in items {
        let receiver: Receiver = client.view(item)?;
        let state = receiver
            .plugin
            .as_ref()
            .and_then(|plugin| plugin["state"].as_str());
        // A plugin that is not ready yet, or crashed, says more than "ok".
        let status = match (receiver.status.as_str(), state) {
            ("ok", Some(state)) if state != "ready" && state != "calling" => state.to_owned(),
            (status, _) => status.to_owned(),
        };
        let remark = receiver.trouble(&local).unwrap_or_default();
        table.row(vec![
            (receiver.name.clone(), Tone::Plain),
            (receiver.handler.clone(), Tone::Dim),
            (status.clone(), Tone::of_status(&status)),
            (one_line(&remark), Tone::Dim),
        ]);
    }
    table.print(&mut ctx.printer)?;
    Ok(Exit::Ok)
}

async fn test(ctx: &mut Context, name: &str, json: bool) -> Result<Exit, CliError> {
    let allowed = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || matches!(name, "." | "..") || !name.chars().all(allowed) {
        return Err(CliError::usage(
            "a receiver is named as in monitor.ron; `weir receiver list` shows them",
        ));
    }
    let (client, _) = ctx.acting_daemon().await?;
    let path = format!("api/receivers/{name}/test");
    let answer = client.act(&path, Act::default()).await?;
    let test: ReceiverTest = client.view(answer.clone())?;
    let exit = if test.delivered {
        Exit::Ok
    } else {
        Exit::Failed
    };
    if json {
        ctx.printer.json(&answer)?;
        return Ok(exit);
    }
    let took = test
        .took
        .map(|took| format!(" ({took:.1} s)"))
        .unwrap_or_default();
    if test.delivered {
        ctx.printer
            .line(format_args!("{name}: {}{took}", test.answer))?;
        if let Some(receipt) = &test.receipt {
            ctx.printer.line(format_args!("  receipt: {receipt}"))?;
        }
    } else {
        let kind = test.failure.as_deref().unwrap_or("unknown");
        ctx.printer.line(format_args!(
            "{name}: not delivered, {kind}: {}{took}",
            test.answer
        ))?;
        if let Some(wait) = test.retry_after {
            ctx.printer
                .line(format_args!("  it asks to wait {wait:.0} s"))?;
        }
        if let Some(advice) = &test.advice {
            ctx.printer.line(format_args!("  {advice}"))?;
        }
    }
    Ok(exit)
}
