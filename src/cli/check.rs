//! `weir check`: everything that is wrong with a configuration, and what a good one allows.

use super::Context;
use super::exit::{CliError, Exit};
use super::human::one_line;
use super::plugin::workbench;
use super::printer::{Printer, Tone};
use super::settings::{self, LoadError, Loaded, Remark};
use std::path::PathBuf;
use weir_core::plugin::{PluginHost, PluginSpec, Unfit, WasmBytes};
use weir_model::config::diagnostic::{Diagnostic, Severity};
use weir_model::config::{
    Config, CredentialKind, EMAIL, Email, EmailTls, Handler, PluginEntry, PluginRef,
};

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
    let findings = findings(ctx, &loaded).await?;
    let printer = &mut ctx.printer;
    let file = loaded.path.display().to_string();
    for finding in &findings {
        printer.line(finding.render(&file))?;
    }
    let errors = findings.iter().filter(|f| f.severity == Severity::Error);
    match errors.count() {
        0 => report(printer, &loaded)?,
        errors => {
            let errors = count(errors, "finding");
            printer.note(format_args!("{file}: {errors}: weir run would not work so"));
            return Ok(Exit::Failed);
        }
    }
    Ok(Exit::Ok)
}

/// What the text alone does not tell, in order of place: what keeps `weir run` from starting, and what keeps a plugin from
/// its work. A plugin's file that is not on this machine may be there on the daemon's.
async fn findings(ctx: &Context, loaded: &Loaded) -> Result<Vec<Diagnostic>, CliError> {
    let config = &loaded.config;
    let mut remarks = settings::useless_credentials(config);
    for mut missing in settings::missing_secrets(config) {
        missing.message.push_str(": weir run would not start");
        remarks.push(missing);
    }
    let specs = settings::plugin_specs(config);
    if !specs.is_empty() {
        let host = workbench::host(ctx)?;
        for (remark, spec) in specs {
            remarks.extend(unfit(&host, remark, spec).await);
        }
    }
    let wrong = remarks
        .into_iter()
        .map(|r| r.at(&loaded.text, Severity::Error));
    let missing = settings::missing_plugins(config).into_iter();
    let missing = missing.map(|r| r.at(&loaded.text, Severity::Warning));
    let mut findings: Vec<_> = loaded
        .warnings
        .iter()
        .cloned()
        .chain(wrong)
        .chain(missing)
        .collect();
    findings.sort_by_key(|finding| (finding.line, finding.column));
    Ok(findings)
}

/// What a plugin itself says to its entry: one that was built for another contract, or does not take its configuration.
async fn unfit(host: &PluginHost, remark: Remark, spec: PluginSpec) -> Option<Remark> {
    let unfit = host.opens(&spec).await.err()?;
    let field = match &unfit {
        Unfit::File(_) => settings::plugin_field(spec.role),
        Unfit::Config(_) => "config",
    };
    let mut reason = unfit.to_string();
    if let WasmBytes::File { path, .. } = &spec.wasm
        && let Some(rest) = reason.strip_prefix(&format!("{}: ", path.display()))
    {
        reason = rest.to_owned();
    }
    Some(Remark {
        path: format!("{}.{field}", remark.path),
        message: one_line(&format!("{}: {reason}", remark.message)),
    })
}

fn report(printer: &mut Printer, loaded: &Loaded) -> Result<(), CliError> {
    let file = loaded.path.display().to_string();
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
        PluginRef::File(path) => settings::shown(path),
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
    let mut origins: Vec<String> = entry
        .origin_allow_list()
        .iter()
        .map(ToString::to_string)
        .collect();
    let secret = entry.credentials.iter();
    let secret = secret.filter(|(_, credential)| credential.kind == CredentialKind::Url);
    origins.extend(secret.map(|(name, _)| format!("the secret URL of `{name}`")));
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
