//! `weir plugin`: what can be asked about plugins, one file per question.

mod check;
mod inspect;
mod list;
mod new;
mod resume;
mod run;
mod test;
pub(super) mod workbench;

use super::Context;
use super::exit::{CliError, Exit};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: PluginCommand,
}

#[derive(Debug, clap::Subcommand)]
enum PluginCommand {
    /// List the bundled plugins and those that the daemon runs
    List(list::Args),
    /// One plugin of the daemon: its state, its limits and what it used of them, its last crash
    Inspect(inspect::Args),
    /// Forgive a plugin its crashes, read its file again and try it now
    Resume(resume::Args),
    /// For authors: make a new plugin, in Rust, Python, JavaScript or C
    New(new::Args),
    /// For authors: does it fit, and does it behave when its far side does not
    Check(check::Args),
    /// For authors: call it once against its real far side, and again whenever its file changes
    Run(run::Args),
    /// For authors: play a recorded cassette to it without any network, or record one
    Test(test::Args),
}

pub async fn run(ctx: &mut Context, args: &Args) -> Result<Exit, CliError> {
    match &args.command {
        PluginCommand::List(args) => list::run(ctx, args).await,
        PluginCommand::Inspect(args) => inspect::run(ctx, args).await,
        PluginCommand::Resume(args) => resume::run(ctx, args).await,
        PluginCommand::New(args) => new::run(ctx, args),
        PluginCommand::Check(args) => check::run(ctx, args).await,
        PluginCommand::Run(args) => run::run(ctx, args).await,
        PluginCommand::Test(args) => test::run(ctx, args).await,
    }
}

/// The address of one plugin entry.
fn address(name: &str) -> Result<String, CliError> {
    let path = |name: &str| {
        let mut url = url::Url::parse("http://h/").ok()?;
        url.path_segments_mut()
            .ok()?
            .push("api")
            .push("plugins")
            .push(name);
        Some(url.path().trim_start_matches('/').to_owned())
    };
    match name {
        "" | "." | ".." => None,
        name => path(name),
    }
    .ok_or_else(|| {
        CliError::usage(
            "a plugin is named by the source or receiver that uses it; see `weir plugin list`",
        )
    })
}
