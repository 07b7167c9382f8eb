//! `weir demo`: a whole weir in a temporary directory, watching replayed ComfyUI servers.

mod hook;
mod outcome;

use self::hook::Hook;
use self::outcome::{Expected, Outcome};
use super::Context;
use super::exit::{CliError, Exit};
use super::run;
use super::settings;
use super::watch::Lines;
use crate::client::Client;
use crate::daemon::{self, Server};
use crate::replay::DemoWorld;
use crate::tui::feed::Feed;
use crate::tui::{self, Options};
use std::io::IsTerminal as _;
use std::path::Path;
use std::time::Duration;
use tokio::sync::watch;
use url::Url;
use weir_model::config::Config;

/// How often the demo looks at itself.
const LOOK: Duration = Duration::from_millis(500);
/// After the last recording: for the last polls, the patience before `lost`, and the deliveries.
const SETTLE_MAX: Duration = Duration::from_secs(45);
/// Compiling the plugins for the first time, on a slow machine.
const WARM_UP_MAX: Duration = Duration::from_secs(120);

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Without the live view; ends when everything has happened
    #[arg(long)]
    once: bool,
    /// One JSON summary at the end
    #[arg(long)]
    json: bool,
    /// So many recorded seconds per second
    #[arg(long, default_value_t = 1.0, value_parser = speed)]
    speed: f64,
    /// Keep its folder: configuration, journal and log [default: only where something went wrong]
    #[arg(long)]
    keep: bool,
}

/// Faster than this a busy machine does not see everything between two polls.
const SPEED_MAX: f64 = 3.0;

fn speed(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(speed) if (0.1..=SPEED_MAX).contains(&speed) => Ok(speed),
        _ => Err(format!("a number from 0.1 to {SPEED_MAX}")),
    }
}

/// Everything that runs.
struct Stage {
    world: DemoWorld,
    hook: Hook,
    server: Server,
    client: Client,
}

pub async fn run(ctx: &mut Context, args: Args) -> Result<Exit, CliError> {
    run::private_files();
    let terminal = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    let live = terminal && !args.once && !args.json;
    let folder = tempfile::Builder::new().prefix("weir-demo-").tempdir()?;
    let dir = folder.path().to_owned();
    ctx.printer
        .note("preparing the plugins (the first time takes some seconds)");
    warm_up(ctx, &dir).await?;
    if live {
        tui::log::install();
    } else {
        run::log_to_file(&dir.join("weir.log"))?;
    }
    let stage = set(ctx, &dir, args.speed).await?;
    let expected = Expected::of(&stage.world);
    let outcome = if live {
        show(ctx, &stage, &expected).await?
    } else {
        tell(ctx, &stage, &expected, args.json).await?
    };
    let url = stage.server.url();
    stage.world.stop().await;
    stage
        .server
        .stop()
        .await
        .map_err(|error| CliError::failed(error.to_string()))?;
    stage.hook.stop().await;
    // Who leaves the live view early has seen what they wanted.
    let fine = outcome.is_whole(&expected) || (live && !outcome.over);
    let kept = (args.keep || !fine).then(|| folder.keep());
    if args.json {
        let summary = outcome.to_json(&expected, kept.as_deref(), &url);
        ctx.printer.json(&summary)?;
    } else {
        outcome.print(&mut ctx.printer, &expected, kept.as_deref(), &url)?;
    }
    Ok(if fine { Exit::Ok } else { Exit::Failed })
}

/// Compiles the plugins into the cache, so that the first recorded second is not missed.
async fn warm_up(ctx: &Context, dir: &Path) -> Result<(), CliError> {
    // Nobody listens on the discard port: the source opens, looks once and finds nobody.
    let nobody = "http://127.0.0.1:9".to_owned();
    let text = config_text(&[("warm-up".to_owned(), nobody.clone())], &nobody);
    let config = parse(&text, &dir.join("warm-up"))?;
    let monitor = run::start(config, ctx.paths.cache_dir()).await?;
    let ready = async {
        let looked = || {
            let polled = monitor
                .sources()
                .iter()
                .all(|source| source.health.polls > 0);
            let receivers = monitor.receivers();
            let mut plugins = receivers
                .iter()
                .filter_map(|receiver| receiver.plugin.as_ref());
            polled && plugins.all(|plugin| plugin.manifest.is_some())
        };
        while !looked() {
            tokio::time::sleep(LOOK / 5).await;
        }
    };
    // Too slow is no reason to fail: then the first seconds are missed.
    let _ = tokio::time::timeout(WARM_UP_MAX, ready).await;
    monitor.shutdown().await;
    let _ = std::fs::remove_dir_all(dir.join("warm-up"));
    Ok(())
}

/// Starts the servers, the receiver and the daemon.
async fn set(ctx: &Context, dir: &Path, speed: f64) -> Result<Stage, CliError> {
    let failed = |error: &dyn std::fmt::Display| CliError::failed(error.to_string());
    let hook = Hook::start()?;
    let world = DemoWorld::start(speed)
        .await
        .map_err(|error| failed(&error))?;
    let text = config_text(&world.servers, hook.url());
    std::fs::write(dir.join(crate::paths::CONFIG_NAME), &text)?;
    let config = parse(&text, &dir.join("data"))?;
    let listener = daemon::bind(&config.http).map_err(|error| failed(&error))?;
    let monitor = run::start(config, ctx.paths.cache_dir()).await?;
    let server = daemon::serve_on(listener, monitor).map_err(|error| failed(&error))?;
    let url = Url::parse(&server.url()).map_err(|error| failed(&error))?;
    Ok(Stage {
        world,
        hook,
        client: Client::new(url)?,
        server,
    })
}

fn parse(text: &str, data_dir: &Path) -> Result<Config, CliError> {
    let (mut config, _) = settings::parse(text).map_err(|findings| {
        let findings: Vec<String> = findings.iter().map(ToString::to_string).collect();
        CliError::failed(format!("the demo's configuration: {}", findings.join("; ")))
    })?;
    config.data_dir = Some(data_dir.to_owned());
    Ok(config)
}

fn config_text(servers: &[(String, String)], hook: &str) -> String {
    let sources: String = servers
        .iter()
        .map(|(name, url)| {
            format!(
                "        (name: {name:?}, plugin: \"comfyui\", poll_interval: \"500ms\", lost_after: \"5s\", config: {{ \"url\": {url:?} }}),\n"
            )
        })
        .collect();
    include_str!("demo/template.ron")
        .replace("/*SOURCES*/\n", &sources)
        .replace("/*HOOK*/", hook)
}

/// A line per change, until everything has happened.
async fn tell(
    ctx: &mut Context,
    stage: &Stage,
    expected: &Expected,
    json: bool,
) -> Result<Outcome, CliError> {
    let zone = ctx.zone();
    let url = stage.server.url();
    ctx.printer
        .note(format_args!("weir answers at {url} while the demo runs"));
    let feed = Feed::new(stage.client.clone(), LOOK, None);
    let mut lines = Lines::new(zone.clone());
    let mut told = 0;
    let started = tokio::time::Instant::now();
    loop {
        let mut news = match feed.fetch().await {
            Ok(snapshot) => lines.changes(&snapshot, &ctx.printer),
            Err(error) => {
                ctx.printer.warning(&error);
                Vec::new()
            }
        };
        let arrived = stage.hook.arrived();
        let local = super::human::Local::current(zone.clone());
        for alert in arrived.iter().skip(told) {
            news.push(format!(
                "{}  ALERT ARRIVED  {}: {}",
                local.time(alert.at),
                alert.severity,
                alert.title
            ));
        }
        told = arrived.len();
        for line in news {
            match json {
                true => ctx.printer.note(line),
                false => ctx.printer.line(line)?,
            }
        }
        let outcome = look(stage).await?;
        if (outcome.over && outcome.is_whole(expected)) || late(stage, started) {
            return Ok(outcome);
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            // Leaving early is no reason to leave things running.
            _ = tokio::signal::ctrl_c() => return Ok(outcome),
        }
    }
}

fn late(stage: &Stage, started: tokio::time::Instant) -> bool {
    started.elapsed() > stage.world.duration() + SETTLE_MAX
}

/// The live view; the daemon goes on until the user leaves.
async fn show(ctx: &Context, stage: &Stage, expected: &Expected) -> Result<Outcome, CliError> {
    let (footer, until) = watch::channel(None);
    let options = Options {
        color: ctx.color.wanted(true),
        arrived: Some(stage.hook.list()),
        zone: ctx.zone(),
        until: Some(until),
    };
    let feed = Feed::new(stage.client.clone(), LOOK, None);
    let url = stage.server.url();
    let watching = async {
        let started = tokio::time::Instant::now();
        loop {
            tokio::time::sleep(LOOK).await;
            let Ok(outcome) = look(stage).await else {
                continue;
            };
            if outcome.over && outcome.is_whole(expected) {
                let text = format!("Everything happened. Open {url} in a browser; q leaves.");
                footer.send_replace(Some(text));
                break;
            }
            if late(stage, started) {
                let text = "Not everything happened as recorded; q leaves and says what.";
                footer.send_replace(Some(text.to_owned()));
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        shown = tui::run(feed, options) => shown?,
        () = watching => {}
    }
    look(stage).await
}

/// What has happened so far.
async fn look(stage: &Stage) -> Result<Outcome, CliError> {
    let over = stage.world.finished();
    Ok(Outcome::gather(&stage.client, &stage.hook, over).await?)
}
