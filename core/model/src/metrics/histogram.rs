//! A histogram of durations that can be merged, in bounded memory.
//!
//! Buckets are logarithmic: 16 to each doubling from 1 ms to 2³² ms (50 days), so a bucket is at most 4.43 % wide
//! (2^(1/16) − 1). Shorter durations share the first, longer ones the last. Minimum, maximum, sum and count are exact
//! (to the millisecond; the sum saturates).
//!
//! Quantiles are nearest rank: the k-th smallest with k = ⌈q·n⌉, as in Hyndman & Fan's definition 1. Within the
//! bucket of rank k the values are taken as evenly spread, so the answer is interpolated linearly between its bounds
//! (as Prometheus' `histogram_quantile` does), then clamped to [min, max]. Hence the error is below the width of one
//! bucket: 4.43 % of the true value, and never more than 1 ms below a millisecond.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Buckets to each doubling.
const PER_DOUBLING: f64 = 16.0;
/// Bucket of everything longer.
const LAST: u16 = 32 * 16;

/// Upper bounds of the histograms in `/metrics`, in seconds: 1 s to 24 h.
pub const EXPOSED_BOUNDS: [u32; 15] = [
    1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14_400, 43_200, 86_400,
];

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Histogram {
    count: u64,
    sum_ms: u64,
    min_ms: u64,
    max_ms: u64,
    /// Only those that are not empty, at most 513.
    #[serde(with = "super::by_id", skip_serializing_if = "BTreeMap::is_empty")]
    buckets: BTreeMap<u16, u64>,
    /// How many are at most as long as each of [`EXPOSED_BOUNDS`] and longer than the one before: exact, so that the
    /// counters of `/metrics` are no estimate.
    /// None until something was recorded: there are several histograms for every workflow.
    #[serde(skip_serializing_if = "Option::is_none")]
    exposed: Option<Box<[u64; EXPOSED_BOUNDS.len()]>>,
}

impl Histogram {
    pub fn record(&mut self, duration: Duration) {
        let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        self.min_ms = if self.count == 0 {
            ms
        } else {
            self.min_ms.min(ms)
        };
        self.max_ms = self.max_ms.max(ms);
        self.sum_ms = self.sum_ms.saturating_add(ms);
        self.count += 1;
        *self.buckets.entry(bucket(ms)).or_default() += 1;
        if let Some(place) = EXPOSED_BOUNDS
            .iter()
            .position(|bound| ms <= u64::from(*bound) * 1000)
        {
            self.exposed.get_or_insert_default()[place] += 1;
        }
    }

    pub fn merge(&mut self, other: &Histogram) {
        if other.count == 0 {
            return;
        }
        self.min_ms = if self.count == 0 {
            other.min_ms
        } else {
            self.min_ms.min(other.min_ms)
        };
        self.max_ms = self.max_ms.max(other.max_ms);
        self.sum_ms = self.sum_ms.saturating_add(other.sum_ms);
        self.count += other.count;
        for (bucket, count) in &other.buckets {
            *self.buckets.entry(*bucket).or_default() += count;
        }
        if let Some(theirs) = &other.exposed {
            let mine = self.exposed.get_or_insert_default();
            for (mine, theirs) in mine.iter_mut().zip(theirs.iter()) {
                *mine += theirs;
            }
        }
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    pub fn sum(&self) -> Duration {
        Duration::from_millis(self.sum_ms)
    }

    pub fn min(&self) -> Option<Duration> {
        (self.count > 0).then(|| Duration::from_millis(self.min_ms))
    }

    pub fn max(&self) -> Option<Duration> {
        (self.count > 0).then(|| Duration::from_millis(self.max_ms))
    }

    pub fn mean(&self) -> Option<Duration> {
        // Through f64, for a count may be beyond what a `Duration` divides by.
        #[expect(
            clippy::cast_precision_loss,
            reason = "a mean in milliseconds has digits to spare"
        )]
        (self.count > 0)
            .then(|| Duration::from_secs_f64(self.sum_ms as f64 / self.count as f64 / 1000.0))
    }

    /// The quantile `q` from 0 to 1; none of nothing.
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        if self.count == 0 {
            return None;
        }
        let rank = self.rank(q);
        let mut below = 0;
        for (bucket, count) in &self.buckets {
            if rank <= below + count {
                let (low, high) = bounds(*bucket);
                // The open end of the last bucket is what was really seen.
                let high = if *bucket == LAST {
                    self.max_ms_f64()
                } else {
                    high
                };
                #[expect(clippy::cast_precision_loss, reason = "a share of one bucket")]
                let share = (rank - below) as f64 / *count as f64;
                #[expect(
                    clippy::cast_precision_loss,
                    reason = "milliseconds of at most some weeks"
                )]
                let ms = (low + (high - low) * share)
                    .max(self.min_ms as f64)
                    .min(self.max_ms_f64());
                return Some(Duration::from_secs_f64((ms / 1000.0).min(1e15)));
            }
            below += count;
        }
        self.max()
    }

    /// For Prometheus: how many are at most as long as each of [`EXPOSED_BOUNDS`].
    pub fn cumulative(&self) -> [u64; EXPOSED_BOUNDS.len()] {
        let mut sum = 0;
        let counts = self.exposed.as_deref().copied().unwrap_or_default();
        counts.map(|count| {
            sum += count;
            sum
        })
    }

    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to 1..=count"
    )]
    fn rank(&self, q: f64) -> u64 {
        let q = if q.is_finite() {
            q.clamp(0.0, 1.0)
        } else {
            1.0
        };
        // 0.95 · 20 is 19.000000000000004 in floating point, and its rank is 19.
        let rank = (q * self.count as f64 - 1e-9).ceil();
        (rank as u64).clamp(1, self.count)
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "milliseconds of at most some weeks"
    )]
    fn max_ms_f64(&self) -> f64 {
        self.max_ms as f64
    }
}

/// Bucket 0 is [0, 1 ms], bucket b > 0 is (2^((b-1)/16), 2^(b/16)] ms, the last one has no end.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to 0..=LAST"
)]
fn bucket(ms: u64) -> u16 {
    if ms <= 1 {
        return 0;
    }
    let bucket = ((ms as f64).log2() * PER_DOUBLING - 1e-9).ceil();
    (bucket as u64).min(u64::from(LAST)) as u16
}

/// In milliseconds.
fn bounds(bucket: u16) -> (f64, f64) {
    match bucket {
        0 => (0.0, 1.0),
        bucket => {
            let bound = |b: f64| (b / PER_DOUBLING).exp2();
            (bound(f64::from(bucket) - 1.0), bound(f64::from(bucket)))
        }
    }
}
