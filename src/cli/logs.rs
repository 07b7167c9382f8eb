//! `weir logs`: the provider's own lines about one execution, once or as they come.

use super::Context;
use super::exit::{CliError, Exit};
use super::human::{Local, one_line, scrub};
use super::printer::{Printer, Tone};
use crate::client::Client;
use crate::client::view::{Execution, LogLine};
use serde_json::Value;
use std::time::Duration;

/// Lines of one answer.
const PAGE: usize = 500;
/// Without `--follow` or `--tail` no more than this is printed.
const LINES_MAX: usize = 100_000;
/// How often new lines are asked for.
const INTERVAL: Duration = Duration::from_secs(2);

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The execution: its number, id, or the provider's id
    id: String,
    /// Go on with new lines until the execution is over
    #[arg(short, long, conflicts_with = "tail")]
    follow: bool,
    /// Only the last N lines
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1000))]
    tail: Option<u64>,
    /// One JSON document per line
    #[arg(long)]
    json: bool,
}

pub async fn run(ctx: &mut Context, args: &Args) -> Result<Exit, CliError> {
    let (client, local) = ctx.daemon()?;
    let execution = super::status::execution(&client, &args.id).await?;
    let id = execution["id"].as_str().unwrap_or_default().to_owned();
    let mut reader = Reader {
        client,
        path: format!("api/executions/{id}/logs"),
        cursor: None,
    };
    let mut show = Show {
        printer: &mut ctx.printer,
        local,
        json: args.json,
    };
    if let Some(tail) = args.tail {
        let query = [
            ("direction", "backward".to_owned()),
            ("limit", tail.to_string()),
        ];
        let page = reader.client.raw(&reader.path, &query).await?;
        show.lines(page["items"].as_array())?;
        return Ok(Exit::Ok);
    }
    let mut printed = 0;
    loop {
        // Looked at before the lines are: what was written until its end is read then.
        let over = !args.follow || reader.is_over(&id).await?;
        loop {
            let page = reader.next().await?;
            let items = page["items"].as_array();
            printed += items.map_or(0, Vec::len);
            show.lines(items)?;
            if page["more"] != true {
                break;
            }
            if !args.follow && printed >= LINES_MAX {
                show.printer.warning(format_args!(
                    "there is more than {LINES_MAX} lines; --follow goes on, --tail shows the end"
                ));
                return Ok(Exit::Ok);
            }
        }
        if over {
            return Ok(Exit::Ok);
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Reads forward from where it was.
struct Reader {
    client: Client,
    path: String,
    cursor: Option<String>,
}

impl Reader {
    async fn next(&mut self) -> Result<Value, CliError> {
        let mut query = vec![("limit", PAGE.to_string())];
        query.extend(self.cursor.clone().map(|cursor| ("cursor", cursor)));
        let page = self.client.raw(&self.path, &query).await?;
        if let Some(next) = page["next_cursor"].as_str() {
            self.cursor = Some(next.to_owned());
        } else if page["more"] == true {
            return Err(CliError::failed("the log goes on, but nobody says where"));
        }
        Ok(page)
    }

    async fn is_over(&self, id: &str) -> Result<bool, CliError> {
        let path = format!("api/executions/{id}");
        let execution: Execution = self.client.get(&path, &[]).await?;
        Ok(!execution.is_active())
    }
}

struct Show<'a> {
    printer: &'a mut Printer,
    local: Local,
    json: bool,
}

impl Show<'_> {
    fn lines(&mut self, items: Option<&Vec<Value>>) -> Result<(), CliError> {
        for item in items.into_iter().flatten() {
            if self.json {
                self.printer.ndjson(item)?;
                continue;
            }
            let mut item = item.clone();
            scrub(&mut item);
            let line: LogLine = serde_json::from_value(item).unwrap_or_default();
            let text = self.text(&line);
            self.printer.line(text)?;
        }
        Ok(())
    }

    /// `10:00:03  worker-0  epoch 3 of 10`
    fn text(&self, line: &LogLine) -> String {
        let mut parts = Vec::new();
        parts.extend(line.time.map(|time| self.local.time(time)));
        if !line.origin.is_empty() {
            parts.push(self.printer.paint(&one_line(&line.origin), Tone::Dim));
        }
        // A far side's line breaks must not look like lines of ours.
        parts.push(one_line(line.text.trim_end()));
        parts.join("  ")
    }
}
