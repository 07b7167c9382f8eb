//! `weir demo`: a whole weir in a temporary directory, watching replayed ComfyUI servers.

use super::Context;
use super::exit::{CliError, Exit};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Without the live view; ends when everything has happened
    #[arg(long)]
    once: bool,
    /// One JSON summary at the end
    #[arg(long)]
    json: bool,
    /// So many recorded seconds per second
    #[arg(long, default_value_t = 1.0, value_parser = speed)]
    speed: f64,
}

fn speed(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(speed) if (0.1..=20.0).contains(&speed) => Ok(speed),
        _ => Err("a number from 0.1 to 20".to_owned()),
    }
}

pub async fn run(_ctx: &mut Context, _args: Args) -> Result<Exit, CliError> {
    Err(CliError::failed("the demo is not in this build yet"))
}
