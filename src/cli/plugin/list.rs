//! `weir plugin list`: the plugins that this binary carries, and how those of the running daemon are.

use super::super::Context;
use super::super::exit::{CliError, Exit};
use super::super::printer::Tone;
use super::super::table::Table;
use crate::bundled::BUNDLED;
use crate::client::ClientError;
use crate::client::view::Plugin;
use serde_json::{Value, json};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// One JSON document
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(ctx: &mut Context, args: &Args) -> Result<Exit, CliError> {
    let (client, _) = ctx.daemon()?;
    // Without a daemon there are still the bundled ones.
    let running = match client.items("api/plugins", &[], 1000).await {
        Ok(items) => Some(items),
        Err(ClientError::NoDaemon { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let bundled: Vec<Value> = BUNDLED
        .iter()
        .map(|bundled| json!({ "name": bundled.name, "size_bytes": bundled.bytes.len() }))
        .collect();
    if args.json {
        ctx.printer
            .json(&json!({ "bundled": bundled, "running": running }))?;
        return Ok(Exit::Ok);
    }
    let mut table = Table::new(&[
        "PLUGIN",
        "USED BY",
        "ROLE",
        "STATE",
        "VERSION",
        "STRIKES",
        "LAST CRASH",
    ]);
    for item in running.iter().flatten() {
        let plugin: Plugin = client.view(item.clone())?;
        let crash = plugin.last_crash.as_ref().filter(|crash| !crash.is_null());
        let crash = crash.map(short_crash);
        table.row(vec![
            (plugin.plugin.clone().unwrap_or_default(), Tone::Plain),
            (plugin.name.clone(), Tone::Plain),
            (plugin.role.clone().unwrap_or_default(), Tone::Plain),
            (plugin.state.clone(), Tone::of_status(&plugin.state)),
            (plugin.version.clone().unwrap_or_default(), Tone::Dim),
            (plugin.strikes.unwrap_or(0).to_string(), Tone::Plain),
            (crash.unwrap_or_default(), Tone::Bad),
        ]);
    }
    for bundled in BUNDLED {
        let used = running.iter().flatten();
        if !used.clone().any(|item| item["plugin"] == bundled.name) {
            let cells = [bundled.name, "-", "", "bundled", "", "", ""];
            let cells = cells.map(|cell| (cell.to_owned(), Tone::Plain));
            table.row(cells.into());
        }
    }
    table.print(&mut ctx.printer)?;
    if running.is_none() {
        ctx.printer.note(format_args!(
            "no daemon answers at {}: only the bundled plugins are shown",
            client.url()
        ));
    }
    Ok(Exit::Ok)
}

/// The crash in a few words; the whole report is in `weir plugin inspect`.
fn short_crash(crash: &Value) -> String {
    let text = |field: &str| crash[field].as_str().unwrap_or("?").to_owned();
    format!("{} in {}", text("cause"), text("call"))
}
