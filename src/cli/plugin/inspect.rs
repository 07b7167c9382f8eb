//! `weir plugin inspect`: everything there is to know about one plugin of the daemon.

use super::super::Context;
use super::super::exit::{CliError, Exit};
use super::super::human::{duration, one_line};
use super::super::printer::Tone;
use super::super::table::Table;
use super::address;
use serde_json::Value;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The source or receiver that uses it
    name: String,
    /// One JSON document
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(ctx: &mut Context, args: &Args) -> Result<Exit, CliError> {
    let (client, _) = ctx.daemon()?;
    let path = address(&args.name)?;
    if args.json {
        let answer = client.raw(&path, &[]).await?;
        ctx.printer.json(&answer)?;
        return Ok(Exit::Ok);
    }
    let plugin: Value = client.get(&path, &[]).await?;
    print(ctx, &plugin)?;
    Ok(Exit::Ok)
}

fn print(ctx: &mut Context, plugin: &Value) -> Result<(), CliError> {
    let printer = &mut ctx.printer;
    let state = shown(&plugin["state"]);
    let state = printer.paint(&state, Tone::of_status(&state));
    let version = match &plugin["version"] {
        Value::Null => String::new(),
        version => format!(" {}", shown(version)),
    };
    printer.line(format_args!(
        "{} {} with {}{version}: {state}",
        shown(&plugin["role"]),
        shown(&plugin["name"]),
        shown(&plugin["plugin"]),
    ))?;
    for (field, label) in [
        ("reason", "because"),
        ("retry_in", "tried again in"),
        ("reload_error", "not taken into use"),
        ("check", "check"),
        ("capabilities", "capabilities"),
        ("generation", "generation"),
        ("strikes", "strikes"),
    ] {
        if !plugin[field].is_null() {
            let value = match (field, plugin[field].as_f64()) {
                ("retry_in", Some(seconds)) => duration(seconds),
                _ => shown(&plugin[field]),
            };
            printer.line(format_args!("  {label:<20} {value}"))?;
        }
    }
    if let Value::Object(counters) = &plugin["counters"] {
        for (name, value) in counters {
            // The unit is part of the name, as in Prometheus, or known.
            let (label, unit) = match name.strip_suffix("_bytes") {
                Some(label) => (label, "bytes"),
                None if name == "cpu" => ("cpu", "seconds"),
                None => (name.as_str(), ""),
            };
            let value = match value.as_f64() {
                Some(number) => measure(number, unit),
                None => shown(value),
            };
            printer.line(format_args!("  {:<20} {value}", label.replace('_', " ")))?;
        }
    }
    limits(ctx, &plugin["limits"])?;
    crash(ctx, &plugin["last_crash"])
}

fn limits(ctx: &mut Context, limits: &Value) -> Result<(), CliError> {
    let mut table = Table::new(&["LIMIT", "ALLOWED", "USED AT MOST", ""]);
    for limit in limits.as_array().into_iter().flatten() {
        let (allowed, used) = (limit["limit"].as_f64(), limit["used"].as_f64());
        let unit = limit["unit"].as_str().unwrap_or_default();
        let measured =
            |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |v| measure(v, unit));
        let share = match (used, allowed) {
            (Some(used), Some(allowed)) if allowed > 0.0 => used / allowed,
            _ => 0.0,
        };
        let tone = if share >= 0.8 {
            Tone::Warn
        } else {
            Tone::Plain
        };
        table.row(vec![
            (shown(&limit["name"]), Tone::Plain),
            (measured(allowed), Tone::Plain),
            (measured(used), tone),
            (format!("{:.0}%", share * 100.0), Tone::Dim),
        ]);
    }
    if !table.is_empty() {
        table.print(&mut ctx.printer)?;
    }
    Ok(())
}

/// A quantity as people read it.
fn measure(value: f64, unit: &str) -> String {
    match unit {
        "bytes" if value >= 1024.0 * 1024.0 => format!("{:.1} MiB", value / 1024.0 / 1024.0),
        "bytes" if value >= 1024.0 => format!("{:.1} KiB", value / 1024.0),
        "bytes" => format!("{value:.0} B"),
        "seconds" if value >= 1.0 => format!("{value:.1} s"),
        "seconds" => format!("{:.1} ms", value * 1000.0),
        "percent" => format!("{value:.0} %"),
        _ => format!("{value:.0}"),
    }
}

/// The whole report: what an author needs to find the fault.
fn crash(ctx: &mut Context, crash: &Value) -> Result<(), CliError> {
    if crash.is_null() {
        return Ok(());
    }
    let printer = &mut ctx.printer;
    printer.line(format_args!(
        "last crash {}: {} in {}: {}",
        shown(&crash["at"]),
        shown(&crash["cause"]),
        shown(&crash["call"]),
        shown(&crash["message"]),
    ))?;
    let stderr = crash["stderr"].as_str().unwrap_or_default();
    for line in stderr.lines() {
        printer.line(format_args!("  | {}", one_line(line)))?;
    }
    Ok(())
}

/// A value on one line.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => one_line(text),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(shown).collect();
            items.join(", ")
        }
        value => value.to_string(),
    }
}
