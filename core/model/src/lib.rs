//! What is true about jobs.
//!
//! Pure: `now`, ids and facts come in, facts go out. No clock, no files, no threads, no sockets.

pub mod alert;
pub mod config;
pub mod control;
pub mod event;
pub mod id;
pub mod logs;
pub mod metrics;
pub mod observation;
pub mod request;
pub mod rollup;
pub mod source;
pub mod status;
pub mod stream;
pub mod threshold;
pub mod workflow;
