//! `weir mute` and `weir unmute`: keeping a receiver, workflow or source quiet for a while.

use super::Context;
use super::exit::{CliError, Exit};
use super::human::one_line;
use super::printer::Tone;
use super::table::Table;
use crate::client::Client;
use crate::client::view::Mute;
use serde_json::{Map, Value, json};

const MUTES_MAX: usize = 1000;
/// Sources or receivers.
const NAMES_MAX: usize = 1000;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// List what is muted
    #[arg(long, conflicts_with_all = ["receiver", "workflow", "source", "for_"])]
    list: bool,
    /// Tell this receiver nothing
    #[arg(long, value_name = "NAME", group = "what")]
    receiver: Option<String>,
    /// Tell nobody about this workflow
    #[arg(long, value_name = "NAME", group = "what")]
    workflow: Option<String>,
    /// Tell nobody about this source
    #[arg(long, value_name = "NAME", group = "what")]
    source: Option<String>,
    /// For how long: 30m, 8h, 2d
    #[arg(
        long = "for",
        value_name = "DURATION",
        required_unless_present = "list",
        requires = "what"
    )]
    for_: Option<String>,
    /// Why
    #[arg(long)]
    comment: Option<String>,
    /// Who mutes
    #[arg(
        long,
        env = "USER",
        hide_env_values = true,
        default_value = "command line"
    )]
    by: String,
    /// One JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub struct UnmuteArgs {
    /// The mute's id in `weir mute --list`
    id: String,
}

pub async fn run(ctx: &mut Context, args: &Args) -> Result<Exit, CliError> {
    if args.list {
        return list(ctx, args.json).await;
    }
    let (client, local) = ctx.daemon()?;
    let mut body = Map::new();
    let fields = [
        ("receiver", &args.receiver),
        ("workflow", &args.workflow),
        ("source", &args.source),
        ("for", &args.for_),
        ("comment", &args.comment),
    ];
    for (name, value) in fields {
        if let Some(value) = value {
            body.insert(name.to_owned(), json!(value));
        }
    }
    body.insert("by".to_owned(), json!(args.by));
    let answer = client.post("api/mutes", &Value::Object(body)).await?;
    if args.json {
        ctx.printer.json(&answer)?;
        return Ok(Exit::Ok);
    }
    let mute: Mute = client.view(answer)?;
    for (what, name) in [("source", &args.source), ("receiver", &args.receiver)] {
        if let Some(name) = name
            && !is_known(&client, what, name).await?
        {
            let said = format!("no {what} {name} is known at present; it is muted all the same");
            ctx.printer.warning(one_line(&said));
        }
    }
    ctx.printer.note(format_args!(
        "muted {} until {}; end it early: weir unmute {}",
        mute.what(),
        local.time_or_dash(mute.until),
        id(&mute)
    ));
    Ok(Exit::Ok)
}

async fn is_known(client: &Client, what: &str, name: &str) -> Result<bool, CliError> {
    let items = client
        .items(&format!("api/{what}s"), &[], NAMES_MAX)
        .await?;
    Ok(items.iter().any(|item| item["name"] == name))
}

pub async fn unmute(ctx: &mut Context, args: &UnmuteArgs) -> Result<Exit, CliError> {
    let (client, _) = ctx.daemon()?;
    if args.id.is_empty()
        || !args
            .id
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '-')
    {
        return Err(CliError::usage(
            "a mute is named by its id in `weir mute --list`",
        ));
    }
    client.delete(&format!("api/mutes/{}", args.id)).await?;
    ctx.printer.note(format_args!("unmuted {}", args.id));
    Ok(Exit::Ok)
}

async fn list(ctx: &mut Context, json: bool) -> Result<Exit, CliError> {
    let (client, local) = ctx.daemon()?;
    let items = client.items("api/mutes", &[], MUTES_MAX).await?;
    if json {
        ctx.printer.json(&json!({ "items": items }))?;
        return Ok(Exit::Ok);
    }
    let mut table = Table::new(&["MUTE", "WHAT", "UNTIL", "BY", "COMMENT"]);
    for item in items {
        let mute: Mute = client.view(item)?;
        table.row(vec![
            (id(&mute), Tone::Dim),
            (mute.what(), Tone::Plain),
            (local.time_or_dash(mute.until), Tone::Plain),
            (mute.by.clone().unwrap_or_default(), Tone::Plain),
            (mute.comment.clone().unwrap_or_default(), Tone::Dim),
        ]);
    }
    if table.is_empty() {
        ctx.printer.note("nothing is muted");
    } else {
        table.print(&mut ctx.printer)?;
    }
    Ok(Exit::Ok)
}

fn id(mute: &Mute) -> String {
    mute.id
        .as_str()
        .map_or_else(|| mute.id.to_string(), str::to_owned)
}
