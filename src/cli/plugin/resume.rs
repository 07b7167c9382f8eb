//! `weir plugin resume`: the operator's word that a plugin shall be tried again now.

use super::super::Context;
use super::super::exit::{CliError, Exit};
use super::address;
use crate::client::Act;
use crate::client::view::Plugin;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The source or receiver that uses it
    name: String,
    /// One JSON document
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(ctx: &mut Context, args: &Args) -> Result<Exit, CliError> {
    let path = format!("{}/resume", address(&args.name)?);
    let (client, _) = ctx.acting_daemon().await?;
    let answer = client.act(&path, Act::default()).await?;
    if args.json {
        ctx.printer.json(&answer)?;
        return Ok(Exit::Ok);
    }
    let plugin: Plugin = client.view(answer)?;
    ctx.printer.note(format_args!(
        "{} was {}; it is tried again now: weir plugin inspect {}",
        plugin.name, plugin.state, plugin.name
    ));
    Ok(Exit::Ok)
}
