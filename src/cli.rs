//! The command line: what can be asked, and which command answers.

pub mod alerts;
pub mod cancel;
pub mod check;
pub mod companion;
pub mod config;
pub mod demo;
pub mod doctor;
pub mod events;
pub mod exit;
pub mod human;
pub mod init;
pub mod list;
pub mod logs;
pub mod mute;
pub mod plugin;
pub mod printer;
pub mod receiver;
pub mod retry;
pub mod run;
pub mod settings;
pub mod sources;
pub mod status;
pub mod submit;
pub mod table;
pub mod version;
pub mod watch;

use self::exit::{CliError, EXIT_CODES, Exit};
use self::human::Local;
use self::printer::{ColorChoice, Printer};
use crate::client::Client;
use crate::paths::Paths;
use crate::token;
use clap::{Parser, Subcommand};
use jiff::tz::TimeZone;
use std::path::PathBuf;
use url::Url;

/// Where a daemon is looked for when nobody says otherwise.
pub const DEFAULT_URL: &str = "http://127.0.0.1:8000";

/// Watches jobs that run elsewhere and tells the truth about them.
#[derive(Debug, Parser)]
#[command(name = "weir", version, after_help = EXIT_CODES, propagate_version = false, disable_help_subcommand = true)]
pub struct Cli {
    /// The daemon to ask [default: http://127.0.0.1:8000, or what the configuration listens on]
    #[arg(
        long,
        global = true,
        env = "WEIR_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    url: Option<Url>,
    /// The file with the daemon's token, for what acts [default: of a daemon on this machine, its own]
    #[arg(
        long,
        global = true,
        env = "WEIR_TOKEN_FILE",
        hide_env_values = true,
        value_name = "FILE"
    )]
    token_file: Option<PathBuf>,
    /// When to use colours
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    color: ColorChoice,
    /// Only say what went wrong
    #[arg(short, long, global = true)]
    quiet: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the daemon
    Run(run::Args),
    /// Check a configuration and say everything that is wrong with it
    Check(check::Args),
    /// Look at the configuration
    Config(config::Args),
    /// How the daemon is, or one execution with its steps
    Status(status::Args),
    /// Follow what runs, live
    Watch(watch::Args),
    /// List executions, newest first
    List(list::Args),
    /// List or follow events
    Events(events::Args),
    /// The provider's own log lines of one execution
    Logs(logs::Args),
    /// List alerts, or acknowledge one
    Alerts(alerts::Args),
    /// Keep a receiver, workflow or source quiet for a while
    Mute(mute::Args),
    /// End a mute early
    Unmute(mute::UnmuteArgs),
    /// Ask for executions to be cancelled
    Cancel(cancel::Args),
    /// Run the job of an execution once more
    Retry(retry::Args),
    /// Hand a job to a source
    Submit(submit::Args),
    /// List sources and how they are
    Sources(sources::Args),
    /// List receivers, or send one a test alert
    Receiver(receiver::Args),
    /// Look at plugins
    Plugin(plugin::Args),
    /// Put weir's node into a ComfyUI, for the progress of every client's jobs
    Companion(companion::Args),
    /// Write a configuration for your ComfyUI servers
    Init(init::Args),
    /// What is wrong here, in order
    Doctor(doctor::Args),
    /// Show the main job on a replayed ComfyUI, without any setup
    Demo(demo::Args),
    /// Print the version
    Version(version::Args),
}

/// What every command is given.
#[derive(Debug)]
pub struct Context {
    pub printer: Printer,
    pub paths: Paths,
    url: Option<Url>,
    token_file: Option<PathBuf>,
    color: ColorChoice,
}

impl Context {
    /// The daemon to ask for something that only who has its token may ask.
    async fn acting_daemon(&self) -> Result<(Client, Local), CliError> {
        let (client, local) = self.daemon()?;
        let file = match &self.token_file {
            Some(file) => file.clone(),
            None if client.is_loopback() => {
                let status: crate::client::view::Status = client.get("status", &[]).await?;
                token::path(status.data_dir.as_deref().unwrap_or_default().as_ref())
            }
            None => {
                return Err(CliError::usage(format!(
                    "{} is another machine: give a copy of its token with --token-file or WEIR_TOKEN_FILE",
                    client.url()
                )));
            }
        };
        match token::read(&file) {
            Ok(token) => Ok((client.with_token(token), local)),
            Err(error) => Err(CliError::new(
                Exit::NotAllowed,
                format!(
                    "cannot read the token {}: {}; another copy: --token-file or WEIR_TOKEN_FILE",
                    file.display(),
                    settings::plain(&error)
                ),
            )),
        }
    }

    /// The daemon to ask, and the zone to show its times in.
    fn daemon(&self) -> Result<(Client, Local), CliError> {
        let settings = settings::Quick::find(&self.paths);
        let url = match (&self.url, settings.listen) {
            (Some(url), _) => url.clone(),
            (None, Ok(Some(listen))) => settings::url_of(listen),
            (None, Ok(None)) => Url::parse(DEFAULT_URL).expect("it is a URL"),
            // Whoever listens at the default address may be somebody else's daemon.
            (None, Err(error)) => return Err(settings::no_address(&error)),
        };
        Ok((client_of(url)?, Local::current(settings.zone)))
    }

    /// The daemon that was named by its URL, else the one that listens there.
    fn daemon_of(&self, listen: std::net::SocketAddr) -> Result<Client, CliError> {
        let url = self.url.clone();
        client_of(url.unwrap_or_else(|| settings::url_of(listen)))
    }

    fn url(&self) -> Option<&Url> {
        self.url.as_ref()
    }

    /// The zone of the people here.
    pub fn zone(&self) -> TimeZone {
        settings::Quick::find(&self.paths).zone
    }
}

/// A client of the daemon at a URL that somebody wrote.
fn client_of(url: Url) -> Result<Client, CliError> {
    if !matches!(url.scheme(), "http" | "https") {
        return Err(CliError::usage(format!(
            "{url}: a daemon's URL begins with http:// or https://"
        )));
    }
    Ok(Client::new(url)?)
}

/// Runs the command and maps what came of it to an exit code.
pub async fn main(cli: Cli) -> Exit {
    let mut ctx = Context {
        printer: Printer::new(cli.color, cli.quiet),
        paths: Paths::of_user(),
        url: cli.url,
        token_file: cli.token_file,
        color: cli.color,
    };
    match dispatch(&mut ctx, cli.command).await {
        Ok(exit) => exit,
        Err(CliError::Pipe) => Exit::Ok,
        Err(error) => {
            ctx.printer.error(&error);
            error.exit()
        }
    }
}

/// The process has no threads to run anything on.
pub fn no_runtime(error: &std::io::Error) -> Exit {
    Printer::new(ColorChoice::Auto, false).error(format_args!("cannot start: {error}"));
    Exit::Failed
}

async fn dispatch(ctx: &mut Context, command: Command) -> Result<Exit, CliError> {
    match command {
        Command::Run(args) => run::run(ctx, args).await,
        Command::Check(args) => check::run(ctx, &args).await,
        Command::Config(args) => config::run(ctx, &args),
        Command::Status(args) => status::run(ctx, &args).await,
        Command::Watch(args) => watch::run(ctx, &args).await,
        Command::List(args) => list::run(ctx, &args).await,
        Command::Events(args) => events::run(ctx, &args).await,
        Command::Logs(args) => logs::run(ctx, &args).await,
        Command::Alerts(args) => alerts::run(ctx, &args).await,
        Command::Mute(args) => mute::run(ctx, &args).await,
        Command::Unmute(args) => mute::unmute(ctx, &args).await,
        Command::Cancel(args) => cancel::run(ctx, &args).await,
        Command::Retry(args) => retry::run(ctx, &args).await,
        Command::Submit(args) => submit::run(ctx, &args).await,
        Command::Sources(args) => sources::run(ctx, &args).await,
        Command::Receiver(args) => receiver::run(ctx, &args).await,
        Command::Plugin(args) => plugin::run(ctx, &args).await,
        Command::Companion(args) => companion::run(ctx, &args).await,
        Command::Init(args) => init::run(ctx, &args).await,
        Command::Doctor(args) => doctor::run(ctx, &args).await,
        Command::Demo(args) => demo::run(ctx, args).await,
        Command::Version(args) => version::run(ctx, &args),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_holds_together() {
        Cli::command().debug_assert();
    }
}
