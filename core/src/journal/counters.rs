//! The writer's own measurements: cheap to take, read from anywhere.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Four buckets to each doubling, from 1 µs to over an hour.
const BUCKETS: usize = 128;

/// A histogram of durations with a relative error of at most a fifth.
#[derive(Debug)]
pub(super) struct Latency {
    buckets: [AtomicU64; BUCKETS],
}

impl Default for Latency {
    fn default() -> Latency {
        Latency {
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
        }
    }
}

impl Latency {
    pub(super) fn record(&self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros())
            .unwrap_or(u64::MAX)
            .max(1);
        let octave = micros.ilog2();
        let quarter = if octave >= 2 {
            (micros >> (octave - 2)) & 3
        } else {
            0
        };
        let bucket = (u64::from(octave) * 4 + quarter) as usize;
        if let Some(bucket) = self.buckets.get(bucket.min(BUCKETS - 1)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The upper bound of the bucket that holds the given share (0 to 1) of what was recorded.
    pub(super) fn quantile(&self, share: f64) -> Option<Duration> {
        let counts: Vec<u64> = self
            .buckets
            .iter()
            .map(|b| b.load(Ordering::Relaxed))
            .collect();
        let total: u64 = counts.iter().sum();
        let mut left = ((total as f64) * share).ceil().max(1.0) as u64;
        for (bucket, count) in (0u32..).zip(counts) {
            if count >= left {
                let (octave, quarter) = (bucket / 4, u64::from(bucket % 4));
                let upper = (4 + quarter + 1) << octave;
                return Some(Duration::from_micros(upper / 4));
            }
            left -= count;
        }
        None
    }
}

/// Written by the writer thread and the handles.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) commits: AtomicU64,
    pub(super) events: AtomicU64,
    pub(super) batches: AtomicU64,
    pub(super) busy: AtomicU64,
    pub(super) rejected: AtomicU64,
    pub(super) deleted: AtomicU64,
    pub(super) queued: AtomicU64,
    pub(super) sync: Latency,
}

/// A snapshot. Everything but the queue only grows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    pub commits: u64,
    pub events: u64,
    /// Transactions: one sync each.
    pub batches: u64,
    /// Commits refused because the queue was full.
    pub busy: u64,
    pub rejected: u64,
    /// Executions deleted by retention.
    pub deleted: u64,
    pub queue_len: u64,
    /// Time of the COMMIT statement, which contains the sync.
    pub sync_p50: Option<Duration>,
    pub sync_p99: Option<Duration>,
}

impl Shared {
    pub(super) fn snapshot(&self) -> Counters {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            commits: load(&self.commits),
            events: load(&self.events),
            batches: load(&self.batches),
            busy: load(&self.busy),
            rejected: load(&self.rejected),
            deleted: load(&self.deleted),
            queue_len: load(&self.queued),
            sync_p50: self.sync.quantile(0.5),
            sync_p99: self.sync.quantile(0.99),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_within_a_quarter_of_the_truth() {
        let latency = Latency::default();
        for micros in 1..=1000u64 {
            latency.record(Duration::from_micros(micros));
        }
        let p50 = latency.quantile(0.5).unwrap().as_micros();
        let p99 = latency.quantile(0.99).unwrap().as_micros();
        assert!((500..=625).contains(&p50), "{p50}");
        assert!((990..=1240).contains(&p99), "{p99}");
        assert_eq!(Latency::default().quantile(0.5), None);
    }
}
