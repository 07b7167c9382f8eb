//! `weir sources`: what is watched, and how contact is.

use super::Context;
use super::exit::{CliError, Exit};
use super::human::Local;
use super::printer::Tone;
use super::table::Table;
use crate::client::view::{Gauge, Source, Stream};
use crate::gauges::{Shown, words};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// One JSON document
    #[arg(long)]
    json: bool,
}

pub async fn run(ctx: &mut Context, args: &Args) -> Result<Exit, CliError> {
    let (client, local) = ctx.daemon()?;
    let items = client.items("api/sources", &[], 1000).await?;
    if args.json {
        ctx.printer.json(&serde_json::json!({ "items": items }))?;
        return Ok(Exit::Ok);
    }
    let sources = items.into_iter().map(|item| client.view(item));
    let sources: Vec<Source> = sources.collect::<Result<_, _>>()?;
    if sources.is_empty() {
        ctx.printer.note("no sources are configured");
        return Ok(Exit::Ok);
    }
    table(&sources, &local).print(&mut ctx.printer)?;
    let measured = measured(&sources);
    if !measured.is_empty() {
        ctx.printer.line(String::new())?;
        measured.print(&mut ctx.printer)?;
    }
    Ok(Exit::Ok)
}

/// What sources told of their providers beside jobs.
pub fn measured(sources: &[Source]) -> Table {
    let mut table = Table::new(&["SOURCE", "MEASURED", "VALUE"]);
    for source in sources {
        let gauges: Vec<Shown<'_>> = source.gauges.iter().map(Gauge::shown).collect();
        for (what, value) in words(&gauges) {
            table.row(vec![
                (source.name.clone(), Tone::Plain),
                (what, Tone::Plain),
                (value, Tone::Plain),
            ]);
        }
    }
    table
}

pub fn table(sources: &[Source], local: &Local) -> Table {
    let mut table = Table::new(&[
        "SOURCE",
        "PLUGIN",
        "STATUS",
        "SEEN BY",
        "OPEN",
        "LAST CONTACT",
        "REMARK",
    ]);
    for source in sources {
        let open = source.open_jobs.map(|jobs| jobs.to_string());
        let contact = source.last_ok_at.map(|time| local.ago(time));
        let status = match source.stale_since {
            Some(since) => format!("{} since {}", source.status, local.time(since)),
            None => source.status.clone(),
        };
        let mut remark = Vec::new();
        remark.extend(source.control.then(|| "may be controlled".to_owned()));
        remark.extend(source.last_error.clone().filter(|_| source.status != "ok"));
        remark.extend(source.stream.as_ref().and_then(Stream::trouble));
        remark.extend(source.notice.clone());
        table.row(vec![
            (source.name.clone(), Tone::Plain),
            (source.plugin_name.clone().unwrap_or_default(), Tone::Dim),
            (status, Tone::of_status(&source.status)),
            (source.rung.clone().unwrap_or_default(), Tone::Plain),
            (open.unwrap_or_else(|| "-".to_owned()), Tone::Plain),
            (contact.unwrap_or_else(|| "never".to_owned()), Tone::Plain),
            (remark.join("; "), Tone::Dim),
        ]);
    }
    table
}
