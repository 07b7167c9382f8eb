//! `weir check`: everything that is wrong with a configuration, and what a good one allows.

use super::Context;
use super::exit::{CliError, Exit};
use super::plugin::workbench;
use super::printer::{Printer, Tone};
use super::settings::{self, LoadError, Loaded};
use std::path::PathBuf;
use weir_core::plugin::WasmBytes;
use weir_model::config::{Config, EMAIL, Email, EmailTls, Handler, PluginEntry, PluginRef};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration [default: the one that `weir run` would use]
    file: Option<PathBuf>,
}

pub async fn run(ctx: &mut Context, args: &Args) -> Result<Exit, CliError> {
    let printer = &mut ctx.printer;
    let loaded = match settings::load(args.file.as_deref(), &ctx.paths) {
        Ok(loaded) => loaded,
        Err(LoadError::Invalid { path, findings }) => {
            let file = path.display().to_string();
            for finding in &findings {
                printer.line(finding.render(&file))?;
            }
            let errors = count(findings.len(), "finding");
            printer.note(format_args!("{file}: {errors}"));
            return Ok(Exit::Failed);
        }
        Err(error) => return Err(CliError::usage(error.to_string())),
    };
    let unfit = unfit(ctx, &loaded.config).await?;
    let printer = &mut ctx.printer;
    let file = loaded.path.display().to_string();
    for finding in &unfit {
        printer.line(format_args!("{file}: error: {finding}"))?;
    }
    if !unfit.is_empty() {
        printer.note(format_args!("{file}: {}", count(unfit.len(), "finding")));
        return Ok(Exit::Failed);
    }
    report(printer, &loaded)?;
    Ok(Exit::Ok)
}

/// What a good configuration names and this weir cannot use: a credential, or a plugin built for another contract. What is
/// not on this machine at all may be there on the daemon's.
async fn unfit(ctx: &Context, config: &Config) -> Result<Vec<String>, CliError> {
    let mut findings = settings::useless_credentials(config);
    let files = settings::plugin_files(config);
    if files.is_empty() {
        return Ok(findings);
    }
    let host = workbench::host(ctx)?;
    for (owner, role, wasm, file_bytes_max) in files {
        let path = match &wasm {
            WasmBytes::File { path, .. } => path.display().to_string(),
            WasmBytes::Bundled(_) => String::new(),
        };
        if let Err(reason) = host.fits(wasm, role, file_bytes_max).await {
            let reason = reason.strip_prefix(&format!("{path}: ")).unwrap_or(&reason);
            findings.push(format!("{owner}: {path}: {reason}"));
        }
    }
    Ok(findings)
}

fn report(printer: &mut Printer, loaded: &Loaded) -> Result<(), CliError> {
    let file = loaded.path.display().to_string();
    for warning in &loaded.warnings {
        printer.line(warning.render(&file))?;
    }
    for missing in settings::missing_secrets(&loaded.config) {
        printer.line(format_args!("{file}: warning: {missing}"))?;
    }
    for missing in settings::missing_plugins(&loaded.config) {
        printer.line(format_args!("{file}: warning: {missing}"))?;
    }
    let config = &loaded.config;
    let sources = count(config.sources.len(), "source");
    let rules = count(config.alerts.rules.len(), "rule");
    let receivers = count(config.alerts.receivers.len(), "receiver");
    let ok = printer.paint("ok", Tone::Good);
    printer.line(format_args!(
        "{file}: {ok}: {sources}, {rules}, {receivers}, listens on {}",
        config.http.listen
    ))?;
    reach(printer, config)
}

/// Who may connect where, and what weir may do there.
fn reach(printer: &mut Printer, config: &Config) -> Result<(), CliError> {
    for source in &config.sources {
        let may = if source.control {
            "watches and controls"
        } else {
            "watches only"
        };
        printer.line(format_args!(
            "  source   {:<12} {:<10} {may}; connects to {}",
            source.name,
            plugin(&source.entry),
            origins(&source.entry)
        ))?;
    }
    for receiver in &config.alerts.receivers {
        let (handler, reaches) = match &receiver.handler {
            Handler::Plugin(entry) => (plugin(entry), origins(entry)),
            Handler::Email(email) => (EMAIL.to_owned(), mail_server(email)),
        };
        printer.line(format_args!(
            "  receiver {:<12} {handler:<10} connects to {reaches}",
            receiver.name
        ))?;
    }
    let controlled: Vec<&str> = config
        .sources
        .iter()
        .filter(|source| source.control)
        .map(|source| source.name.as_str())
        .collect();
    if controlled.is_empty() {
        printer
            .line("  weir submits, cancels and retries nothing: no source has `control: true`")?;
    } else {
        printer.line(format_args!(
            "  weir may submit, cancel and retry at: {} (for who has its token)",
            controlled.join(", ")
        ))?;
    }
    Ok(())
}

fn plugin(entry: &PluginEntry) -> String {
    match &entry.plugin {
        PluginRef::Bundled(name) => name.clone(),
        PluginRef::File(path) => path.display().to_string(),
    }
}

fn mail_server(email: &Email) -> String {
    let how = match email.tls {
        EmailTls::StartTls => "STARTTLS required",
        EmailTls::Tls => "TLS",
        EmailTls::None => "unencrypted",
    };
    format!("{} ({how})", email.address())
}

fn origins(entry: &PluginEntry) -> String {
    let origins: Vec<String> = entry
        .origin_allow_list()
        .iter()
        .map(ToString::to_string)
        .collect();
    if origins.is_empty() {
        "nothing".to_owned()
    } else {
        origins.join(", ")
    }
}

/// `1 source`, `3 sources`.
pub fn count(n: usize, noun: &str) -> String {
    if n == 1 {
        format!("1 {noun}")
    } else {
        format!("{n} {noun}s")
    }
}
