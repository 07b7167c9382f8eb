//! The monitor itself: sources in, journal in the middle, metrics and alerts out.
//!
//! Embed it with [`Monitor::start`]; the daemon `weir` is a wrapper around the same thing.

pub mod alert;
pub mod clock;
pub mod control;
mod cursor;
mod deadman;
mod email;
pub mod exposition;
pub mod feed;
pub mod journal;
pub mod live;
pub mod metrics;
pub mod monitor;
pub mod plugin;
pub mod receiver;
pub mod registry;
pub mod resource;
pub mod sampler;
pub mod source;
pub mod stream;
pub mod supervise;
mod tls;
pub mod trouble;
pub mod workflow;

pub use feed::{JobSource, PollFailed};
pub use monitor::{Config, Monitor, MonitorHandle};
pub use weir_model as model;
