//! `weir logs`: the provider's own lines about one execution, once or as they come.

use super::Context;
use super::exit::{CliError, Exit};
use super::human::{Local, one_line, scrub};
use super::printer::{Printer, Tone};
use crate::client::view::{Execution, LogLine};
use crate::client::{Client, ClientError};
use serde_json::Value;
use std::time::Duration;

/// Lines of one answer.
const PAGE: usize = 500;
/// Without `--follow` or `--tail` no more than this is printed.
const LINES_MAX: usize = 100_000;
/// Answers without a line, one after the other, that say there is more.
const EMPTY_MAX: usize = 100;
/// How often new lines are asked for.
const INTERVAL: Duration = Duration::from_secs(2);
/// With `--follow`: looks in vain, one after the other, before it is given up.
const FAILURES_MAX: u32 = 30;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The execution: its number, id, or the provider's id
    id: String,
    /// Go on with new lines until the execution is over
    #[arg(short, long, conflicts_with = "tail")]
    follow: bool,
    /// Only the last N lines
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    tail: Option<u16>,
    /// One JSON document per line
    #[arg(long)]
    json: bool,
}

pub async fn run(ctx: &mut Context, args: &Args) -> Result<Exit, CliError> {
    let (client, local) = ctx.daemon()?;
    let execution = super::status::execution(&client, &args.id).await?;
    let mut reader = Reader {
        client,
        id: execution["id"].as_str().unwrap_or_default().to_owned(),
        cursor: None,
        empty: 0,
    };
    let mut show = Show {
        printer: &mut ctx.printer,
        local,
        json: args.json,
    };
    match args.tail {
        Some(tail) => show.lines(&reader.tail(usize::from(tail)).await?)?,
        None if args.follow => follow(&mut reader, &mut show).await?,
        None => whole(&mut reader, &mut show).await?,
    }
    Ok(Exit::Ok)
}

async fn whole(reader: &mut Reader, show: &mut Show<'_>) -> Result<(), CliError> {
    let mut printed = 0;
    loop {
        let page = reader.next(FORWARD, PAGE).await?;
        printed += page.items.len();
        show.lines(&page.items)?;
        if !page.more {
            return Ok(());
        }
        if printed >= LINES_MAX {
            show.printer.warning(format_args!(
                "there is more than {LINES_MAX} lines; --follow goes on, --tail shows the end"
            ));
            return Ok(());
        }
    }
}

/// Goes on until the execution is over; a provider, or a daemon, that is gone for a while is waited for.
async fn follow(reader: &mut Reader, show: &mut Show<'_>) -> Result<(), CliError> {
    let mut failures = 0;
    loop {
        match catch_up(reader, show).await {
            Ok(true) => return Ok(()),
            Ok(false) => failures = 0,
            Err(error) if is_passing(&error) && failures < FAILURES_MAX => {
                if failures == 0 {
                    show.printer.warning(format_args!("{error}; trying again"));
                }
                failures += 1;
            }
            Err(error) => return Err(error),
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Shows what is new. True: nothing more will come.
async fn catch_up(reader: &mut Reader, show: &mut Show<'_>) -> Result<bool, CliError> {
    // Looked at before the lines are: what was written until its end is read then.
    let over = reader.is_over().await?;
    loop {
        let page = reader.next(FORWARD, PAGE).await?;
        show.lines(&page.items)?;
        if !page.more {
            return Ok(over);
        }
    }
}

fn is_passing(error: &CliError) -> bool {
    matches!(
        error,
        CliError::Client(
            ClientError::Refused {
                status: 502..=504,
                ..
            } | ClientError::NoDaemon { .. }
                | ClientError::Broken(_)
        )
    )
}

const FORWARD: &str = "forward";
const BACKWARD: &str = "backward";

/// Reads on from where it was, always in one direction.
struct Reader {
    client: Client,
    /// Of the execution.
    id: String,
    cursor: Option<String>,
    /// Answers in a row that had no line.
    empty: usize,
}

/// One answer: its lines in the order of time.
struct Lines {
    items: Vec<Value>,
    more: bool,
}

impl Reader {
    async fn next(&mut self, direction: &str, limit: usize) -> Result<Lines, CliError> {
        let mut query = vec![
            ("direction", direction.to_owned()),
            ("limit", limit.to_string()),
        ];
        query.extend(self.cursor.clone().map(|cursor| ("cursor", cursor)));
        let path = format!("api/executions/{}/logs", self.id);
        let mut page = match self.client.raw(&path, &query).await {
            // The execution is there; it is its log that is not.
            Err(error) if error.is_not_found() => return Err(CliError::failed(error.to_string())),
            page => page?,
        };
        let more = page["more"] == true;
        let items = match page["items"].take() {
            Value::Array(items) => items,
            _ => Vec::new(),
        };
        if let Some(next) = page["next_cursor"].as_str() {
            self.cursor = Some(next.to_owned());
        } else if more {
            return Err(CliError::failed("the log goes on, but nobody says where"));
        }
        self.empty = if items.is_empty() { self.empty + 1 } else { 0 };
        if more && self.empty > EMPTY_MAX {
            return Err(CliError::failed(
                "the log is said to go on, but nothing comes",
            ));
        }
        Ok(Lines { items, more })
    }

    /// The last lines; a provider's pages may be shorter than that.
    async fn tail(&mut self, count: usize) -> Result<Vec<Value>, CliError> {
        let mut pages = Vec::new();
        let mut missing = count;
        while missing > 0 {
            let page = self.next(BACKWARD, missing).await?;
            missing = missing.saturating_sub(page.items.len());
            pages.push(page.items);
            if !page.more {
                break;
            }
        }
        Ok(pages.into_iter().rev().flatten().collect())
    }

    async fn is_over(&self) -> Result<bool, CliError> {
        let path = format!("api/executions/{}", self.id);
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
    fn lines(&mut self, items: &[Value]) -> Result<(), CliError> {
        for item in items {
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
