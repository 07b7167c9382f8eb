//! `weir events`: what was recorded, once or as it happens.

use super::Context;
use super::exit::{CliError, Exit};
use super::human::{Local, one_line, scrub};
use super::printer::{Printer, Tone};
use crate::client::sse::Message;
use crate::client::view::{Event, Status};
use crate::client::{Client, ClientError};
use serde_json::Value;
use std::time::Duration;

/// Without `--since`: this many of the latest.
const LATEST: u64 = 50;
/// A stream that has an end is not silent for so long.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// The daemon sends a heartbeat more often than this; else the connection is dead.
const HEARTBEAT_MAX: Duration = Duration::from_secs(60);
const RECONNECT_MIN: Duration = Duration::from_millis(500);
const RECONNECT_MAX: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Go on as they happen; after a broken connection it resumes where it was
    #[arg(short, long)]
    follow: bool,
    /// Begin after this event number (0 = from the first there is)
    #[arg(long, value_name = "N")]
    since: Option<u64>,
    /// One JSON document per line
    #[arg(long)]
    json: bool,
}

pub async fn run(ctx: &mut Context, args: &Args) -> Result<Exit, CliError> {
    let (client, local) = ctx.daemon()?;
    let status: Status = client.get("status", &[]).await?;
    let head = status.journal.head;
    let since = args.since.unwrap_or(match args.follow {
        true => head,
        false => head.saturating_sub(LATEST),
    });
    let mut show = Show {
        printer: &mut ctx.printer,
        local,
        json: args.json,
    };
    if args.follow {
        follow(&client, since, &mut show).await?;
    } else if since < head {
        until(&client, since, head, &mut show).await?;
    }
    Ok(Exit::Ok)
}

/// The events from `since` up to the head as it was.
async fn until(
    client: &Client,
    since: u64,
    head: u64,
    show: &mut Show<'_>,
) -> Result<(), CliError> {
    let mut stream = client.events(None, Some(since), false).await?;
    loop {
        let next = tokio::time::timeout(SILENCE_MAX, stream.next()).await;
        let Some(message) = next.map_err(|_| CliError::failed("the stream fell silent"))?? else {
            return Ok(());
        };
        if message.data["seq"].as_u64().is_some_and(|seq| seq > head) {
            return Ok(());
        }
        show.message(&message)?;
    }
}

/// Everything from `since` on, over as many connections as it takes.
async fn follow(client: &Client, since: u64, show: &mut Show<'_>) -> Result<(), CliError> {
    let mut last: Option<String> = None;
    let mut pause = RECONNECT_MIN;
    let mut connected_once = false;
    loop {
        match client.events(last.as_deref(), Some(since), true).await {
            Ok(mut stream) => {
                connected_once = true;
                pause = RECONNECT_MIN;
                while let Ok(Ok(Some(message))) =
                    tokio::time::timeout(HEARTBEAT_MAX, stream.next()).await
                {
                    show.message(&message)?;
                    last = message.id.or(last);
                }
                show.printer.note("the stream broke off; connecting again");
            }
            Err(error @ (ClientError::NoDaemon { .. } | ClientError::Broken(_)))
                if connected_once =>
            {
                show.printer.note(&error);
            }
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RECONNECT_MAX);
    }
}

struct Show<'a> {
    printer: &'a mut Printer,
    local: Local,
    json: bool,
}

impl Show<'_> {
    fn message(&mut self, message: &Message) -> Result<(), CliError> {
        if message.kind == "gap" {
            self.printer.warning(format_args!(
                "gap: events in between are no longer there: {}",
                one_line(&message.data.to_string())
            ));
            return Ok(());
        }
        if message.is_heartbeat() || message.id.is_none() {
            return Ok(());
        }
        if self.json {
            self.printer.ndjson(&message.data)?;
        } else {
            let text = line(&message.data, &self.local, self.printer);
            self.printer.line(text)?;
        }
        Ok(())
    }
}

/// `10:00:03     41  execution.failed   portrait #12 (studio)  exit_code=1`
fn line(data: &Value, local: &Local, printer: &Printer) -> String {
    let mut data = data.clone();
    scrub(&mut data);
    let Ok(event) = serde_json::from_value::<Event>(data.clone()) else {
        return one_line(&data.to_string());
    };
    let time = local.time_or_dash(event.time);
    let kind = event.kind.as_str();
    let tone = Tone::of_status(kind.rsplit('.').next().unwrap_or_default());
    let kind = printer.paint(&format!("{kind:<22}"), tone);
    let mut rest = Vec::new();
    if let Some(name) = event.workflow.and_then(|workflow| workflow.name) {
        let execution = event.execution.unwrap_or_default();
        let number = execution.number.map(|number| format!(" #{number}"));
        let source = execution.source.map(|source| format!(" ({source})"));
        rest.push(format!(
            "{name}{}{}",
            number.unwrap_or_default(),
            source.unwrap_or_default()
        ));
    }
    rest.extend(event.step.and_then(|step| step.name));
    rest.push(pairs(&event.data));
    format!(
        "{time}  {:>6}  {kind} {}",
        event.seq,
        one_line(&rest.join("  "))
    )
    .trim_end()
    .to_owned()
}

/// What is simple in the event's own data.
fn pairs(data: &Value) -> String {
    let Value::Object(map) = data else {
        return String::new();
    };
    let pairs = map.iter().filter_map(|(key, value)| match value {
        Value::String(text) => Some(format!("{key}={text}")),
        Value::Number(number) => Some(format!("{key}={number}")),
        Value::Bool(true) => Some(key.clone()),
        _ => None,
    });
    pairs.collect::<Vec<_>>().join(" ")
}
