//! `weir config show`: the configuration as it works, defaults included, secrets masked.

use super::Context;
use super::exit::{CliError, Exit};
use super::settings;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, clap::Subcommand)]
enum ConfigCommand {
    /// Print the effective configuration, defaults included, secrets masked
    Show {
        /// The configuration [default: the one that `weir run` would use]
        #[arg(long, env = "WEIR_CONFIG", hide_env_values = true, value_name = "FILE")]
        config: Option<PathBuf>,
        /// As JSON instead of RON
        #[arg(long)]
        json: bool,
    },
}

pub fn run(ctx: &mut Context, args: &Args) -> Result<Exit, CliError> {
    let ConfigCommand::Show { config, json } = &args.command;
    let printer = &mut ctx.printer;
    let loaded =
        settings::load(config.as_deref(), &ctx.paths).map_err(|error| error.explain(printer))?;
    let mut config = loaded.config;
    if config.data_dir.is_none() {
        config.data_dir = Some(ctx.paths.data_dir());
    }
    printer.note(format_args!("from {}", loaded.path.display()));
    if *json {
        printer.json(&config.to_json_redacted())?;
    } else {
        printer.line(config.to_ron_redacted().trim_end())?;
    }
    Ok(Exit::Ok)
}
