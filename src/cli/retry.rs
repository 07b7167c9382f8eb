//! `weir retry`: the job of an execution once more, with a new id.

use super::Context;
use super::exit::{CliError, Exit};
use super::submit::{self, Told};
use crate::client::Act;
use crate::client::view::Execution;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// An execution that is over: its number (SEQ of `weir list`), id, or the provider's id
    id: String,
    /// Follow the new one to its end
    #[arg(long)]
    wait: bool,
    /// Idempotency key: the same key makes one job, however often it is asked for (kept 24 h)
    #[arg(long)]
    key: Option<String>,
    /// One JSON document
    #[arg(long)]
    json: bool,
}

pub async fn run(ctx: &mut Context, args: &Args) -> Result<Exit, CliError> {
    let (client, local) = ctx.acting_daemon().await?;
    let value = super::status::execution(&client, &args.id).await?;
    let execution: Execution = client.view(value)?;
    let act = Act {
        key: args.key.clone(),
        ..Act::default()
    };
    let path = format!("api/executions/{}/retry", execution.id);
    let outcome = client.act(&path, act).await?;
    let told = Told {
        wait: args.wait,
        json: args.json,
    };
    submit::conclude(ctx, &client, local, outcome, told).await
}
