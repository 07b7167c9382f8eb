//! What clients are shown: the only types that become JSON here. Model and store types never do.

mod alert;
mod control;
mod event;
mod execution;
mod plugin;
mod resource;
mod source;
mod status;
mod workflow;

pub use alert::*;
pub use control::*;
pub use event::*;
pub use execution::*;
pub use plugin::*;
pub use resource::*;
pub use source::*;
pub use status::*;
pub use workflow::*;

use jiff::Timestamp;
use serde::{Serialize, Serializer};
use std::fmt;
use std::time::Duration;

/// RFC 3339, UTC, milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub Timestamp);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}", self.0)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl From<Timestamp> for Time {
    fn from(at: Timestamp) -> Time {
        Time(at)
    }
}

/// A duration in seconds, to the microsecond.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Seconds(pub f64);

impl From<Duration> for Seconds {
    fn from(duration: Duration) -> Seconds {
        Seconds((duration.as_secs_f64() * 1e6).round() / 1e6)
    }
}

/// Time from `from` to `to`, never negative (provider clocks jump).
pub fn elapsed(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

/// One page of a list.
#[derive(Debug, Serialize)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Give it as `cursor` for the page after; none = this was the last.
    pub next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// A list that is short by nature and has no second page.
    pub fn whole(items: Vec<T>) -> Page<T> {
        Page {
            items,
            next_cursor: None,
        }
    }
}

/// A map with the order of `pairs`, as a JSON object.
pub fn object(pairs: &[(String, String)]) -> serde_json::Map<String, serde_json::Value> {
    pairs
        .iter()
        .map(|(key, value)| (key.clone(), value.clone().into()))
        .collect()
}
