//! `weir plugin run`: one call of a plugin against its real far side, and again whenever its file changes.

use super::super::Context;
use super::super::exit::{CliError, Exit};
use super::workbench::{self, Subject};
use serde_json::{Value, json};
use weir_core::plugin::{PluginHandle, Role};
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
}

pub(super) async fn run(ctx: &mut Context, args: &Args) -> Result<Exit, CliError> {
    workbench::log_to_stderr("info");
    let host = workbench::host(ctx)?;
    let role = workbench::role(&host, &args.subject.file).await?;
    let handle = host.open(args.subject.spec(ctx, role)?);
    let mut status = handle.subscribe();
    let mut number = 0;
    loop {
        let generation = status.borrow_and_update().generation;
        number += 1;
        let done = once(ctx, &handle, role, number, usize::from(args.alerts)).await?;
        if !args.watch {
            handle.close().await;
            return Ok(if done { Exit::Ok } else { Exit::Failed });
        }
        ctx.printer.note(format_args!(
            "watching {}; stop with Ctrl-C",
            args.subject.file.display()
        ));
        let changed = status.wait_for(|status| status.generation != generation);
        tokio::select! {
            changed = changed => {
                changed.map_err(|_| CliError::failed("the plugin's host stopped"))?;
            }
            _ = tokio::signal::ctrl_c() => return Ok(Exit::Ok),
        }
    }
}

/// Whether the call succeeded; its result is printed either way.
async fn once(
    ctx: &mut Context,
    handle: &PluginHandle,
    role: Role,
    number: u32,
    alerts: usize,
) -> Result<bool, CliError> {
    if let Err(error) = handle.ready().await {
        ctx.printer.error(&error);
        return Ok(false);
    }
    let began = std::time::Instant::now();
    let result = match role {
        Role::Handler => {
            let message = format!("{number}-{}", uuid::Uuid::now_v7());
            let notification = workbench::sample(&message, AlertStatus::Firing, alerts);
            handle
                .deliver(notification, None)
                .await
                .map(|receipt| json!({ "delivered": true, "receipt": receipt }))
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
    ctx.printer
        .json(&result.unwrap_or_else(|error| workbench::error_json(&error)))?;
    let counters = status.counters;
    ctx.printer.note(format_args!(
        "took {took:.1?}, {:.0?} of CPU, {} requests, {:.1} MiB of memory",
        counters.cpu,
        counters.http_requests,
        counters.memory_high_water as f64 / 1048576.0
    ));
    Ok(good)
}

/// Every page until the round is over.
async fn round(handle: &PluginHandle) -> Result<Value, weir_core::plugin::CallError> {
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
