//! What people touch: the command line, the HTTP API and the demo.
pub mod api;
pub mod bundled;
pub mod cli;
pub mod client;
pub mod daemon;
pub mod gauges;
pub mod paths;
pub mod replay;
pub mod token;
pub mod tui;
