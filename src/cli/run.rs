//! `weir run`: the daemon, from the configuration to the graceful stop.

use super::Context;
use super::check::count;
use super::exit::{CliError, Exit};
use super::settings::{self, LoadError, Loaded};
use crate::bundled;
use crate::daemon::{self, ServeError};
use crate::paths::Paths;
use rustix::fs::Mode;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use weir_core::monitor::{self, Monitor, MonitorHandle};
use weir_model::config::diagnostic::Severity;
use weir_model::config::{Config, Log, LogFormat, LogLevel};

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The configuration [default: ./monitor.ron, $XDG_CONFIG_HOME/weir/monitor.ron, /etc/weir/monitor.ron]
    #[arg(long, env = "WEIR_CONFIG", hide_env_values = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the journal lives [default: as configured, else $XDG_DATA_HOME/weir]
    #[arg(
        long,
        env = "WEIR_DATA_DIR",
        hide_env_values = true,
        value_name = "DIR"
    )]
    data_dir: Option<PathBuf>,
    /// Listen there instead of where the configuration says
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
}

pub async fn run(ctx: &mut Context, args: Args) -> Result<Exit, CliError> {
    private_files();
    let loaded = load(&args, &ctx.paths).map_err(|error| error.explain(&mut ctx.printer))?;
    let file = loaded.path.clone();
    for warning in &loaded.warnings {
        // Its severity is part of it.
        let said = warning.render(&file.display().to_string());
        ctx.printer.note(said);
    }
    let missing = settings::missing_secrets(&loaded.config);
    if !missing.is_empty() {
        let secrets = count(missing.len(), "secret");
        for missing in missing {
            let finding = missing.at(&loaded.text, Severity::Error);
            let said = finding.render(&file.display().to_string());
            ctx.printer.error(said);
        }
        return Err(CliError::usage(format!("{secrets} cannot be read")));
    }
    log_to_stderr(&loaded.config.log);
    let config = loaded.config;
    let sources = config.sources.len();
    // A port in use is known before anything is started.
    let listener = daemon::bind(&config.http).map_err(|error| refused(&error))?;
    let monitor = start(config, ctx.paths.cache_dir()).await?;
    let data_dir = monitor.data_dir().display().to_string();
    let server = daemon::serve_on(listener, monitor.clone()).map_err(|error| refused(&error))?;
    ctx.printer.note(format_args!(
        "weir {} listening on {}  ({}, data in {data_dir})",
        env!("CARGO_PKG_VERSION"),
        server.url(),
        count(sources, "source"),
    ));
    let paths = ctx.paths.clone();
    // The file that was found at the start, wherever the working directory is by now.
    let args = Args {
        config: Some(std::path::absolute(&file).unwrap_or(file)),
        ..args
    };
    server
        .run(move || reload(args.clone(), paths.clone(), monitor.clone()))
        .await
        .map_err(|error| refused(&error))?;
    ctx.printer
        .note("stopped; everything acknowledged is on disk");
    Ok(Exit::Ok)
}

/// What the daemon writes, others do not read.
pub fn private_files() {
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
}

/// Starts a monitor with the bundled plugins.
pub async fn start(config: Config, cache_dir: PathBuf) -> Result<MonitorHandle, CliError> {
    let data_dir = config.data_dir.clone().unwrap_or_default();
    let mut options = monitor::Config::new(config, data_dir);
    options.cache_dir = Some(cache_dir);
    options.bundled = bundled::for_monitor();
    Monitor::start(options)
        .await
        .map_err(|error| CliError::failed(error.to_string()))
}

/// The configuration with what the command line says instead.
fn load(args: &Args, paths: &Paths) -> Result<Loaded, LoadError> {
    let mut loaded = settings::load(args.config.as_deref(), paths)?;
    let config = &mut loaded.config;
    if let Some(listen) = args.listen {
        config.http.listen = listen;
    }
    let data_dir = args.data_dir.clone().or_else(|| config.data_dir.take());
    let data_dir = data_dir.unwrap_or_else(|| paths.data_dir());
    config.data_dir = Some(std::path::absolute(&data_dir).unwrap_or(data_dir));
    Ok(loaded)
}

/// Reads the file again; a bad one keeps the last good one, and that is said.
async fn reload(args: Args, paths: Paths, monitor: MonitorHandle) {
    let config = match load(&args, &paths) {
        Ok(loaded) => loaded.config,
        Err(error) => return monitor.reload_failed(told(&error)),
    };
    match monitor.reload(config).await {
        Ok(()) => tracing::info!("the configuration was read again and taken"),
        // The monitor has said it already.
        Err(error) => tracing::debug!(%error, "the configuration was refused"),
    }
}

/// The error with its first findings, as one message.
fn told(error: &LoadError) -> String {
    const FINDINGS_MAX: usize = 5;
    match error {
        LoadError::Invalid { path, findings } => {
            let file = path.display().to_string();
            let first = findings.iter().take(FINDINGS_MAX);
            let lines: Vec<String> = first.map(|finding| finding.render(&file)).collect();
            let more = findings.len().saturating_sub(FINDINGS_MAX);
            let more = if more > 0 {
                format!("; and {more} more")
            } else {
                String::new()
            };
            format!("{}{more}", lines.join("; "))
        }
        error => error.to_string(),
    }
}

fn refused(error: &ServeError) -> CliError {
    CliError::failed(error.to_string())
}

/// The log goes to stderr; `WEIR_LOG` and `RUST_LOG` are stronger than the configuration.
fn log_to_stderr(log: &Log) {
    let level = match log.level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    };
    let registry = tracing_subscriber::registry().with(filter(level));
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    // An embedding test may have a subscriber already.
    let _ = match log.format {
        LogFormat::Text => registry
            .with(layer.with_ansi(std::env::var_os("NO_COLOR").is_none() && is_terminal()))
            .try_init(),
        LogFormat::Json => registry.with(layer.json()).try_init(),
    };
}

/// Writes the log to a file, for a command that needs its terminal for itself.
pub fn log_to_file(path: &Path) -> std::io::Result<()> {
    let file = std::fs::File::create(path)?;
    let layer = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_writer(std::sync::Mutex::new(file));
    let _ = tracing_subscriber::registry()
        .with(filter("info"))
        .with(layer)
        .try_init();
    Ok(())
}

/// What the HTTP server says of its threads helps nobody; what the compiler of plugins says of each instruction is 50 MB a
/// second, in which a daemon at `trace` does not get to its first poll.
const HUSHED: &str = "actix_server=warn,cranelift_codegen=warn,cranelift_frontend=warn,wasmtime_internal_cranelift=warn";

/// `WEIR_LOG` and `RUST_LOG` are stronger than `level`.
pub fn filter(level: &str) -> EnvFilter {
    EnvFilter::try_from_env("WEIR_LOG")
        .or_else(|_| EnvFilter::try_from_default_env())
        .unwrap_or_else(|_| EnvFilter::new(format!("{level},{HUSHED}")))
}

fn is_terminal() -> bool {
    std::io::IsTerminal::is_terminal(&std::io::stderr())
}
