//! What people touch: the command line, the HTTP API and the demo.
pub mod bundled;
pub mod cli;
pub mod client;
pub mod paths;
pub mod replay;
pub mod tui;
