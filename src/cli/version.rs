//! `weir version`: which weir this is, and what it carries.

use super::Context;
use super::exit::{CliError, Exit};
use crate::bundled::BUNDLED;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// For programs
    #[arg(long)]
    json: bool,
}

pub fn run(ctx: &mut Context, args: &Args) -> Result<Exit, CliError> {
    let plugins: Vec<&str> = BUNDLED.iter().map(|bundled| bundled.name).collect();
    if args.json {
        ctx.printer.json(&serde_json::json!({
            "version": env!("CARGO_PKG_VERSION"),
            "plugins": plugins,
        }))?;
    } else {
        ctx.printer
            .line(concat!("weir ", env!("CARGO_PKG_VERSION")))?;
        ctx.printer
            .line(format_args!("bundled plugins: {}", plugins.join(", ")))?;
    }
    Ok(Exit::Ok)
}
