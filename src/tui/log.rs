//! The log pane: what this process logs, kept in memory (tui-logger) instead of disturbing the screen.

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

/// Lines kept.
const LINES: usize = 2000;

/// Sends the process's log to the pane. Where another subscriber is installed already, that one stays.
pub fn install() {
    let filter = EnvFilter::try_from_env("WEIR_LOG")
        .or_else(|_| EnvFilter::try_from_default_env())
        .unwrap_or_else(|_| EnvFilter::new("info"));
    let layer = tui_logger::TuiTracingSubscriberLayer.with_filter(filter);
    let installed = tracing_subscriber::registry().with(layer).try_init();
    if installed.is_ok() && tui_logger::init_logger(tui_logger::LevelFilter::Trace).is_ok() {
        tui_logger::set_buffer_depth(LINES);
    }
}
