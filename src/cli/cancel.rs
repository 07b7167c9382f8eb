//! `weir cancel`: asks for executions to be cancelled, and says what became of it.

use super::Context;
use super::exit::{CliError, Exit};
use super::human::one_line;
use super::printer::Tone;
use crate::client::view::{Execution, Request};
use crate::client::{Act, Client};
use serde_json::{Value, json};
use std::time::Duration;

/// How long a request may stay on its way to the provider before we stop looking.
const ASKED_PATIENCE: Duration = Duration::from_secs(5);
/// With `--wait`: longer than weir itself needs to give up.
const SETTLED_PATIENCE: Duration = Duration::from_secs(2 * 3600);
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Executions: their numbers (SEQ of `weir list`), ids, or the provider's ids
    #[arg(required = true)]
    ids: Vec<String>,
    /// Wait until it is seen what became of it
    #[arg(long)]
    wait: bool,
    /// One JSON document
    #[arg(long)]
    json: bool,
}

pub async fn run(ctx: &mut Context, args: &Args) -> Result<Exit, CliError> {
    let (client, _) = ctx.acting_daemon().await?;
    let mut exit = Exit::Ok;
    let mut items = Vec::new();
    for id in &args.ids {
        match cancel(&client, id, args.wait).await {
            Ok((title, value)) => {
                let request: Request = client.view(value.clone())?;
                if !args.json {
                    let state = ctx.printer.paint(&request.state, tone(&request.state));
                    let reason = request.reason.as_deref().map(one_line);
                    let reason = reason
                        .map(|reason| format!(": {reason}"))
                        .unwrap_or_default();
                    ctx.printer.line(format_args!("{title}  {state}{reason}"))?;
                }
                if is_vain(&request.state) {
                    exit = Exit::Failed;
                }
                items.push(value);
            }
            // One that cannot be cancelled does not keep the others from it.
            Err(error) if args.ids.len() > 1 && error.exit() != Exit::NoDaemon => {
                ctx.printer.error(format_args!("{}: {error}", one_line(id)));
                exit = error.exit();
            }
            Err(error) => return Err(error),
        }
    }
    if args.json {
        ctx.printer.json(&json!({ "items": items }))?;
    }
    Ok(exit)
}

async fn cancel(client: &Client, id: &str, wait: bool) -> Result<(String, Value), CliError> {
    let value = super::status::execution(client, id).await?;
    let execution: Execution = client.view(value)?;
    let path = format!("api/executions/{}/cancel", execution.id);
    let value = client.act(&path, Act::default()).await?;
    let value = if wait {
        followed(client, value, SETTLED_PATIENCE, |r| r.settled).await?
    } else {
        followed(client, value, ASKED_PATIENCE, |r| r.state != "requested").await?
    };
    Ok((one_line(&execution.title()), value))
}

/// The request once it is far enough, or as it stands when `patience` is over.
pub(super) async fn followed(
    client: &Client,
    mut value: Value,
    patience: Duration,
    far_enough: impl Fn(&Request) -> bool,
) -> Result<Value, CliError> {
    let begun = std::time::Instant::now();
    loop {
        let request: Request = client.view(value.clone())?;
        if far_enough(&request) || begun.elapsed() >= patience {
            return Ok(value);
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
        value = client
            .raw(&format!("api/control/{}", request.id), &[])
            .await?;
    }
}

pub(super) fn is_vain(state: &str) -> bool {
    matches!(state, "refused" | "failed" | "unverifiable")
}

pub(super) fn tone(state: &str) -> Tone {
    match state {
        "done" => Tone::Good,
        "requested" | "asked" => Tone::Busy,
        "unverifiable" => Tone::Warn,
        _ => Tone::Bad,
    }
}
