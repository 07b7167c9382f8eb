//! `weir plugin run`: one call of a plugin against its real far side, and again whenever its file changes.

use super::super::Context;
use super::super::exit::{CliError, Exit};
use super::workbench::{self, FILE_POLL, Subject};
use serde_json::{Value, json};
use std::path::Path;
use std::time::SystemTime;
use tokio::sync::watch;
use weir_core::plugin::{CallError, PluginHandle, PluginStatus, Role};
use weir_model::alert::notification::AlertStatus;
use weir_model::observation::Coverage;

/// Pages of one round that are asked for.
const PAGES_MAX: usize = 100;

#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    subject: Subject,
    /// Go on, and do it again whenever the file changes
    #[arg(long)]
    watch: bool,
    /// Alerts in the sample notification
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    alerts: u16,
    /// A handler: the whole life of the alert, which fires, is updated and resolved
    #[arg(long)]
    life: bool,
}

pub(super) async fn run(ctx: &mut Context, args: &Args) -> Result<Exit, CliError> {
    workbench::there(&args.subject.file)?;
    workbench::log_to_stderr("info");
    let host = workbench::host(ctx)?;
    let role = workbench::role(&host, &args.subject.file).await?;
    let handle = host.open(args.subject.spec(ctx, role)?);
    let mut status = handle.subscribe();
    let mut number = 0;
    loop {
        number += 1;
        let done = once(ctx, &handle, role, number, args).await?;
        if !args.watch {
            handle.close().await;
            return Ok(if done { Exit::Ok } else { Exit::Failed });
        }
        // Which bytes these were is known only now that they have been loaded.
        let generation = status.borrow_and_update().generation;
        ctx.printer.note(format_args!(
            "{}: watching {}; stop with Ctrl-C",
            clock(ctx),
            args.subject.file.display()
        ));
        if !changed(ctx, args, &mut status, generation).await? {
            return Ok(Exit::Ok);
        }
    }
}

/// Waits for another generation, and says when there is a new file from which it is made. False: it was told to stop.
async fn changed(
    ctx: &mut Context,
    args: &Args,
    status: &mut watch::Receiver<PluginStatus>,
    generation: u64,
) -> Result<bool, CliError> {
    let file = &args.subject.file;
    let mut written = modified(file);
    let mut look = tokio::time::interval(FILE_POLL);
    loop {
        tokio::select! {
            changed = status.changed() => {
                changed.map_err(|_| CliError::failed("the plugin's host stopped"))?;
                // A file that is not taken into use is told of by the log.
                if status.borrow_and_update().generation != generation {
                    return Ok(true);
                }
            }
            _ = look.tick() => {
                let now = modified(file);
                if now != written {
                    written = now;
                    let said = format!("{}: the file has changed, compiling it", clock(ctx));
                    ctx.printer.note(said);
                }
            }
            _ = tokio::signal::ctrl_c() => return Ok(false),
        }
    }
}

fn modified(file: &Path) -> Option<SystemTime> {
    std::fs::metadata(file).ok()?.modified().ok()
}

/// The time of day.
fn clock(ctx: &Context) -> String {
    let now = jiff::Timestamp::now().to_zoned(ctx.zone());
    now.strftime("%H:%M:%S").to_string()
}

/// Whether the call succeeded; its result is printed either way.
async fn once(
    ctx: &mut Context,
    handle: &PluginHandle,
    role: Role,
    number: u32,
    args: &Args,
) -> Result<bool, CliError> {
    if let Err(error) = handle.ready().await {
        ctx.printer.error(&error);
        let crash = handle.status().last_crash;
        show_last_words(ctx, crash.map(|report| CallError::Crashed { report }));
        return Ok(false);
    }
    let before = handle.status().counters;
    let began = std::time::Instant::now();
    let result = match role {
        Role::Handler => {
            let message = format!("{number}-{}", uuid::Uuid::now_v7());
            deliver(handle, &message, args).await
        }
        Role::Source => round(handle).await,
    };
    let took = began.elapsed();
    let status = handle.status();
    let name = status.manifest.as_ref().map_or_else(
        || "?".to_owned(),
        |manifest| format!("{} {}", manifest.name, manifest.version),
    );
    let checked = match &status.last_check {
        Some(Ok(said)) => said.clone(),
        Some(Err(message)) => format!("check failed: {message}"),
        None => String::new(),
    };
    ctx.printer.note(format_args!("{name}: {checked}"));
    let good = result.is_ok();
    show_last_words(ctx, result.as_ref().err().cloned());
    ctx.printer
        .json(&result.unwrap_or_else(|error| workbench::error_json(&error)))?;
    let counters = status.counters;
    // Counters go on from call to call, and over the opening before the first.
    ctx.printer.note(format_args!(
        "took {took:.1?}, {:.0?} of CPU, {} requests; {:.1} MiB of memory at most so far",
        counters.cpu.saturating_sub(before.cpu),
        counters.http_requests.saturating_sub(before.http_requests),
        counters.memory_high_water as f64 / 1048576.0
    ));
    Ok(good)
}

/// One message, or the three that a life is made of; each is handed the receipt of the one before.
async fn deliver(handle: &PluginHandle, message: &str, args: &Args) -> Result<Value, CallError> {
    let alerts = usize::from(args.alerts);
    let life = [
        ("firing", AlertStatus::Firing),
        ("update", AlertStatus::Firing),
        ("resolved", AlertStatus::Resolved),
    ];
    let mut delivered = Vec::new();
    let mut prior = None;
    for (what, status) in life.into_iter().take(if args.life { 3 } else { 1 }) {
        let mut notification = workbench::sample(&format!("{message}-{what}"), status, alerts);
        // Another life than that of the call before.
        notification.key = format!("sample-{message}");
        let receipt = handle.deliver(notification, prior.clone()).await?;
        delivered.push(json!({ "message": what, "delivered": true, "receipt": receipt }));
        prior = receipt.or(prior);
    }
    Ok(match args.life {
        true => json!(delivered),
        false => json!({ "delivered": true, "receipt": prior }),
    })
}

fn show_last_words(ctx: &mut Context, error: Option<CallError>) {
    for line in error.iter().flat_map(workbench::last_words) {
        ctx.printer.note(line);
    }
}

/// Every page until the round is over.
async fn round(handle: &PluginHandle) -> Result<Value, CallError> {
    let mut pages = Vec::new();
    let mut cursor = None;
    for _ in 0..PAGES_MAX {
        let page = handle.poll(cursor.clone(), vec![]).await?;
        cursor = page.cursor.clone();
        pages.push(workbench::page_json(&page));
        if page.coverage != Coverage::More {
            break;
        }
    }
    Ok(json!({ "pages": pages }))
}
