//! What people are shown of a source's streams; written by their connections.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use jiff::Timestamp;

/// Where a connection is. Ordered from the best to the worst, which stands for the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StreamState {
    Connected,
    Connecting,
    /// Lost or refused; tried again by itself.
    Waiting,
    /// Connected and read, but the plugin crashed over it: it is left alone for a while.
    Paused,
    /// weir or the far side does not allow it; tried again, seldom.
    Refused,
}

impl StreamState {
    pub fn as_str(self) -> &'static str {
        match self {
            StreamState::Connected => "connected",
            StreamState::Connecting => "connecting",
            StreamState::Waiting => "waiting",
            StreamState::Paused => "paused",
            StreamState::Refused => "refused",
        }
    }
}

/// One connection, or all of a source together.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamHealth {
    pub state: StreamState,
    /// Since when it is in this state.
    pub since: Timestamp,
    /// Connections after the first one.
    pub reconnects: u64,
    /// Frames that came, told to the plugin or not.
    pub frames: u64,
    pub bytes: u64,
    /// Frames that the plugin should have been told and was not.
    pub dropped: u64,
    /// Why the last connection, the last attempt or the last call of the plugin ended.
    pub last_error: Option<String>,
    /// The plugin is left alone.
    pub(super) paused: bool,
}

impl StreamHealth {
    pub(super) fn new(now: Timestamp) -> StreamHealth {
        StreamHealth {
            state: StreamState::Connecting,
            since: now,
            reconnects: 0,
            frames: 0,
            bytes: 0,
            dropped: 0,
            last_error: None,
            paused: false,
        }
    }

    /// As people are shown it.
    fn shown(&self) -> StreamHealth {
        let mut health = self.clone();
        if health.paused && health.state == StreamState::Connected {
            health.state = StreamState::Paused;
        }
        health
    }

    /// The worse state of both, everything else added up.
    fn with(mut self, other: &StreamHealth) -> StreamHealth {
        if other.state > self.state {
            self.state = other.state;
            self.since = other.since;
            self.last_error.clone_from(&other.last_error);
        }
        self.last_error = self.last_error.or_else(|| other.last_error.clone());
        self.reconnects += other.reconnects;
        self.frames += other.frames;
        self.bytes += other.bytes;
        self.dropped += other.dropped;
        self
    }
}

/// The streams of one source by endpoint. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct SharedStreams(Arc<RwLock<Streams>>);

#[derive(Debug, Default)]
struct Streams {
    by_endpoint: BTreeMap<String, StreamHealth>,
    /// What endpoints counted that are no longer there: no counter falls.
    before: Option<StreamHealth>,
    /// Why the source's endpoints are not known.
    unknown: Option<StreamHealth>,
}

impl SharedStreams {
    /// All connections as one; none for a source that has no streams.
    pub fn health(&self) -> Option<StreamHealth> {
        let streams = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let all = streams.unknown.iter().chain(streams.by_endpoint.values());
        let mut all = all.map(StreamHealth::shown);
        let first = all.next()?;
        let mut sum = all.fold(first, |sum, next| sum.with(&next));
        if let Some(before) = &streams.before {
            sum.reconnects += before.reconnects;
            sum.frames += before.frames;
            sum.bytes += before.bytes;
            sum.dropped += before.dropped;
        }
        Some(sum)
    }

    pub(super) fn change(
        &self,
        endpoint: &str,
        now: Timestamp,
        change: impl FnOnce(&mut StreamHealth),
    ) {
        let mut streams = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if !streams.by_endpoint.contains_key(endpoint) {
            let fresh = StreamHealth::new(now);
            streams.by_endpoint.insert(endpoint.to_owned(), fresh);
        }
        let Some(health) = streams.by_endpoint.get_mut(endpoint) else {
            return;
        };
        let was = (health.state, health.paused);
        change(health);
        if (health.state, health.paused) != was {
            health.since = now;
        }
    }

    pub(super) fn remove(&self, endpoint: &str) {
        let mut streams = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(gone) = streams.by_endpoint.remove(endpoint) {
            streams.before = Some(match streams.before.take() {
                Some(before) => before.with(&gone),
                None => gone,
            });
        }
    }

    /// The plugin does not say what to connect; none = it did.
    pub(super) fn unknown(&self, why: Option<String>, now: Timestamp) {
        let mut streams = self.0.write().unwrap_or_else(PoisonError::into_inner);
        streams.unknown = why.map(|error| StreamHealth {
            state: StreamState::Waiting,
            last_error: Some(error),
            ..StreamHealth::new(streams.unknown.as_ref().map_or(now, |known| known.since))
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    #[test]
    fn the_worst_connection_speaks_for_the_source_and_no_count_falls() {
        let streams = SharedStreams::default();
        assert_eq!(streams.health(), None);
        streams.change("a", at(1), |h| {
            h.state = StreamState::Connected;
            h.frames = 5;
        });
        streams.change("b", at(2), |h| {
            h.state = StreamState::Waiting;
            h.frames = 2;
            h.last_error = Some("refused".into());
        });
        let health = streams.health().expect("two endpoints");
        assert_eq!(
            (health.state, health.since, health.frames),
            (StreamState::Waiting, at(2), 7)
        );
        assert_eq!(health.last_error.as_deref(), Some("refused"));
        streams.remove("b");
        let health = streams.health().expect("one endpoint");
        assert_eq!((health.state, health.frames), (StreamState::Connected, 7));
        streams.unknown(Some("not ready".into()), at(3));
        let health = streams.health().expect("one endpoint");
        assert_eq!(health.last_error.as_deref(), Some("not ready"));
    }
}
