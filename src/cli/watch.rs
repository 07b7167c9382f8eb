//! `weir watch`: what runs, live: on a terminal with progress bars, else a line per change.

mod lines;

use super::Context;
use super::exit::{CliError, Exit};
use super::human::Local;
use crate::client::Client;
use crate::tui::feed::{Feed, Snapshot};
use crate::tui::{self, Options};
pub use lines::Lines;
use std::io::IsTerminal as _;
use std::time::Duration;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// One execution only: its number, id, or the provider's id
    id: Option<String>,
    /// How often to look: 500ms, 2s
    #[arg(long, default_value = "1s", value_parser = interval)]
    interval: Duration,
}

/// `500ms`, `2s`, or a bare number of seconds.
fn interval(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.find(|c: char| c.is_ascii_alphabetic()) {
        Some(at) => text.split_at(at),
        None => (text, "s"),
    };
    let number: f64 = number
        .trim()
        .parse()
        .map_err(|_| "not a duration".to_owned())?;
    let seconds = match unit {
        "ms" => number / 1000.0,
        "s" => number,
        "m" => number * 60.0,
        _ => return Err(format!("unknown unit `{unit}`: ms, s or m")),
    };
    if !(0.1..=3600.0).contains(&seconds) {
        return Err("from 100ms to 60m".to_owned());
    }
    Ok(Duration::from_secs_f64(seconds))
}

pub async fn run(ctx: &mut Context, args: &Args) -> Result<Exit, CliError> {
    let (client, local) = ctx.daemon()?;
    let only = match &args.id {
        Some(id) => {
            let value = super::status::execution(&client, id).await?;
            value["id"].as_str().map(str::to_owned)
        }
        None => {
            // A daemon that is not there is said before the screen is taken.
            client.raw("status", &[]).await?;
            None
        }
    };
    let feed = Feed::new(client.clone(), args.interval, only);
    if std::io::stdout().is_terminal() && std::io::stdin().is_terminal() {
        tui::log::install();
        let options = Options {
            color: ctx.color.wanted(true),
            arrived: None,
            zone: local.zone().clone(),
            until: None,
        };
        tui::run(feed, options).await.map_err(CliError::from)?;
        return Ok(Exit::Ok);
    }
    follow(ctx, &client, feed, local).await
}

/// A line per change, until the reader goes or the execution that was asked for is over.
pub(super) async fn follow(
    ctx: &mut Context,
    client: &Client,
    feed: Feed,
    local: Local,
) -> Result<Exit, CliError> {
    let mut lines = Lines::new(local.zone().clone());
    let mut lost = false;
    loop {
        match feed.fetch().await {
            Ok(snapshot) => {
                if std::mem::take(&mut lost) {
                    ctx.printer
                        .note(format_args!("contact with {} again", client.url()));
                }
                for line in lines.changes(&snapshot, &ctx.printer) {
                    ctx.printer.line(line)?;
                }
                if feed.only().is_some() && over(&snapshot) {
                    return Ok(Exit::Ok);
                }
            }
            Err(error) if !lost => {
                lost = true;
                ctx.printer.warning(&error);
            }
            Err(_) => {}
        }
        tokio::time::sleep(feed.interval()).await;
    }
}

fn over(snapshot: &Snapshot) -> bool {
    snapshot
        .executions
        .iter()
        .all(|execution| !execution.is_active())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_written_as_in_the_configuration() {
        assert_eq!(interval("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(interval("2"), Ok(Duration::from_secs(2)));
        assert_eq!(interval("1m"), Ok(Duration::from_secs(60)));
        assert!(interval("1ms").is_err() && interval("2 days").is_err() && interval("").is_err());
    }
}
