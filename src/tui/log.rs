//! The log pane: what this process logs, kept in memory (tui-logger) instead of disturbing the screen.

use crate::cli::run::filter;
use tracing_subscriber::Layer as _;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Lines kept.
const LINES: usize = 2000;

/// Sends the process's log to the pane. Where another subscriber is installed already, that one stays.
pub fn install() {
    let layer = tui_logger::TuiTracingSubscriberLayer.with_filter(filter("info"));
    let installed = tracing_subscriber::registry().with(layer).try_init();
    if installed.is_ok() && tui_logger::init_logger(tui_logger::LevelFilter::Trace).is_ok() {
        tui_logger::set_buffer_depth(LINES);
    }
}
