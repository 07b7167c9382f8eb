//! Samples of named series, rolled up into buckets of a minute and of an hour.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The width of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resolution {
    Minute,
    Hour,
}

impl Resolution {
    pub const ALL: [Resolution; 2] = [Resolution::Minute, Resolution::Hour];

    pub fn width_ms(self) -> i64 {
        match self {
            Resolution::Minute => 60_000,
            Resolution::Hour => 3_600_000,
        }
    }

    /// The beginning of the bucket that holds this time.
    pub fn start_ms(self, at_ms: i64) -> i64 {
        at_ms.saturating_sub(at_ms.rem_euclid(self.width_ms()))
    }
}

/// What became of the samples of one series in one span of time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bucket {
    pub series: String,
    pub resolution: Resolution,
    /// Epoch milliseconds, a multiple of the width.
    pub start_ms: i64,
    pub min: f64,
    pub max: f64,
    /// Kept instead of the mean so that two halves of a bucket add up.
    pub sum: f64,
    pub last: f64,
    /// When `last` was measured.
    pub last_ms: i64,
    pub count: u64,
}

impl Bucket {
    fn new(series: &str, resolution: Resolution, at_ms: i64, value: f64) -> Bucket {
        Bucket {
            series: series.to_owned(),
            resolution,
            start_ms: resolution.start_ms(at_ms),
            min: value,
            max: value,
            sum: value,
            last: value,
            last_ms: at_ms,
            count: 1,
        }
    }

    pub fn mean(&self) -> f64 {
        // A bucket is made of one sample at least.
        self.sum / self.count.max(1) as f64
    }

    pub fn end_ms(&self) -> i64 {
        self.start_ms.saturating_add(self.resolution.width_ms())
    }

    /// Adds the other half of the same bucket: a restart or a late sample splits one in two.
    pub fn merge(&mut self, other: &Bucket) {
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.sum += other.sum;
        self.count = self.count.saturating_add(other.count);
        if other.last_ms >= self.last_ms {
            self.last = other.last;
            self.last_ms = other.last_ms;
        }
    }
}

/// The open buckets of all series.
///
/// Invariant: `open` holds at most `buckets_max` buckets; what does not fit is dropped and counted.
#[derive(Debug)]
pub struct Rollup {
    buckets_max: usize,
    open: BTreeMap<(i64, Resolution, String), Bucket>,
    dropped: u64,
}

impl Rollup {
    /// Room for one open bucket of each width per series, and for as many late ones.
    pub fn new(series_max: usize) -> Rollup {
        Rollup {
            buckets_max: series_max.saturating_mul(2 * Resolution::ALL.len()),
            open: BTreeMap::new(),
            dropped: 0,
        }
    }

    /// A value that is not finite would spoil its bucket for good; it is dropped.
    pub fn add(&mut self, series: &str, at_ms: i64, value: f64) {
        if !value.is_finite() {
            self.dropped = self.dropped.saturating_add(1);
            return;
        }
        for resolution in Resolution::ALL {
            let sample = Bucket::new(series, resolution, at_ms, value);
            let key = (sample.start_ms, resolution, series.to_owned());
            let room = self.open.len() < self.buckets_max;
            match self.open.get_mut(&key) {
                Some(bucket) => bucket.merge(&sample),
                None if room => {
                    self.open.insert(key, sample);
                }
                None => self.dropped = self.dropped.saturating_add(1),
            }
        }
    }

    /// Takes out the buckets that ended by `now_ms`, oldest first.
    pub fn flush(&mut self, now_ms: i64) -> Vec<Bucket> {
        let (ended, open) = std::mem::take(&mut self.open)
            .into_iter()
            .partition(|(_, bucket)| bucket.end_ms() <= now_ms);
        self.open = open;
        let ended: BTreeMap<_, Bucket> = ended;
        ended.into_values().collect()
    }

    /// Takes everything out, finished or not, for an orderly stop.
    pub fn drain(&mut self) -> Vec<Bucket> {
        std::mem::take(&mut self.open).into_values().collect()
    }

    /// Samples that were not finite, or had no room in a bucket.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    #[test]
    fn a_minute_keeps_min_max_mean_last_and_count() {
        let mut rollup = Rollup::new(4);
        for (at_ms, value) in [(0, 4.0), (10_000, 1.0), (59_999, 7.0), (60_000, 100.0)] {
            rollup.add("cpu", at_ms, value);
        }
        assert!(rollup.flush(59_999).is_empty());
        let buckets = rollup.flush(60_000);
        assert_eq!(buckets.len(), 1);
        let bucket = &buckets[0];
        assert_eq!(bucket.resolution, Resolution::Minute);
        assert_eq!(
            (bucket.min, bucket.max, bucket.last, bucket.count),
            (1.0, 7.0, 7.0, 3)
        );
        assert_eq!(bucket.mean(), 4.0);
        assert!(rollup.flush(60_000).is_empty());
    }

    #[test]
    fn an_hour_holds_the_samples_of_its_minutes() {
        let mut rollup = Rollup::new(4);
        for minute in 0..90 {
            rollup.add("cpu", minute * 60_000, minute as f64);
        }
        let buckets = rollup.flush(90 * 60_000);
        let hours: Vec<&Bucket> = buckets
            .iter()
            .filter(|bucket| bucket.resolution == Resolution::Hour)
            .collect();
        assert_eq!(hours.len(), 1);
        assert_eq!(
            (hours[0].start_ms, hours[0].count, hours[0].last),
            (0, 60, 59.0)
        );
        assert!(
            rollup.dropped() > 0,
            "90 minutes do not fit into 16 buckets"
        );
        let mut rollup = Rollup::new(100);
        for minute in 0..90 {
            rollup.add("cpu", minute * 60_000, minute as f64);
        }
        assert_eq!(rollup.flush(90 * 60_000).len(), 91);
        assert_eq!(rollup.drain().len(), 1);
        assert_eq!(rollup.dropped(), 0);
    }

    #[test]
    fn series_do_not_mix_and_come_out_oldest_first() {
        let mut rollup = Rollup::new(4);
        rollup.add("b", 61_000, 2.0);
        rollup.add("a", 0, 1.0);
        rollup.add("b", 1000, 3.0);
        let order: Vec<(i64, String)> = rollup
            .flush(HOUR - 1)
            .into_iter()
            .map(|bucket| (bucket.start_ms, bucket.series))
            .collect();
        let expected = [(0, "a"), (0, "b"), (60_000, "b")];
        assert_eq!(
            order,
            expected.map(|(start_ms, series)| (start_ms, series.to_owned()))
        );
    }

    #[test]
    fn two_halves_of_a_bucket_add_up() {
        let mut whole = Rollup::new(1);
        let (mut first, mut second) = (Rollup::new(1), Rollup::new(1));
        for (index, value) in [5.0, 9.0, 1.0, 3.0].into_iter().enumerate() {
            let at_ms = index as i64 * 1000;
            whole.add("cpu", at_ms, value);
            if index < 2 { &mut first } else { &mut second }.add("cpu", at_ms, value);
        }
        let (first, second) = (first.drain(), second.drain());
        for (index, expected) in whole.drain().into_iter().enumerate() {
            let mut merged = second[index].clone();
            merged.merge(&first[index]);
            assert_eq!(merged, expected);
        }
    }

    #[test]
    fn what_is_no_number_or_has_no_room_is_dropped_and_counted() {
        let mut rollup = Rollup::new(1);
        rollup.add("cpu", 0, f64::NAN);
        rollup.add("cpu", 0, f64::INFINITY);
        assert_eq!(rollup.dropped(), 2);
        for hour in 0..10 {
            rollup.add("cpu", hour * HOUR, 1.0);
        }
        assert_eq!(rollup.drain().len(), 4);
        assert_eq!(rollup.dropped(), 2 + 16);
    }

    #[test]
    fn times_before_the_epoch_fall_into_the_right_bucket() {
        assert_eq!(Resolution::Minute.start_ms(-1), -60_000);
        assert_eq!(Resolution::Minute.start_ms(-60_000), -60_000);
        assert_eq!(Resolution::Hour.start_ms(HOUR + 1), HOUR);
    }
}
