//! `weir run`: the daemon.

use super::Context;
use super::exit::{CliError, Exit};
use std::net::SocketAddr;
use std::path::PathBuf;

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

pub async fn run(_ctx: &mut Context, _args: Args) -> Result<Exit, CliError> {
    Err(CliError::failed("the daemon is not in this build yet"))
}
