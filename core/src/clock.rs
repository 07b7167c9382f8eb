//! The one reader of time, which a test can move.

use jiff::{SignedDuration, Timestamp};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Wall time plus an offset that only a test changes. Clones share it.
#[derive(Clone, Debug)]
pub struct Clock {
    offset_us: Arc<AtomicI64>,
    /// The part of the offset that counts as time that has passed.
    passed_us: Arc<AtomicI64>,
    moved: Arc<watch::Sender<u64>>,
}

impl Default for Clock {
    fn default() -> Clock {
        Clock {
            offset_us: Arc::default(),
            passed_us: Arc::default(),
            moved: Arc::new(watch::channel(0).0),
        }
    }
}

impl Clock {
    /// UTC, cut to the microsecond that the store keeps.
    pub fn now(&self) -> Timestamp {
        let now = Timestamp::now().as_microsecond();
        let now = now.saturating_add(self.offset_us.load(Ordering::Relaxed));
        Timestamp::from_microsecond(now).unwrap_or(Timestamp::MAX)
    }

    /// Moves time forward and wakes whoever waits for a deadline. IO keeps its real time-outs.
    pub fn advance(&self, by: Duration) {
        let by = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
        self.passed_us.fetch_add(by, Ordering::Relaxed);
        self.offset_us.fetch_add(by, Ordering::Relaxed);
        self.moved.send_modify(|n| *n += 1);
    }

    /// The wall clock is set to another time, in which nothing has passed.
    #[doc(hidden)]
    pub fn jump(&self, by: SignedDuration) {
        let by = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
        self.offset_us.fetch_add(by, Ordering::Relaxed);
        self.moved.send_modify(|n| *n += 1);
    }

    /// Returns when `duration` has passed, or the wall clock says so. One that is set back delays nobody.
    pub async fn sleep(&self, duration: Duration) {
        let mut moved = self.moved.subscribe();
        let begun = Instant::now();
        let passed_before = self.passed_us.load(Ordering::Relaxed);
        let wait = SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
        let deadline = self.now().checked_add(wait).unwrap_or(Timestamp::MAX);
        loop {
            let passed = self.passed_us.load(Ordering::Relaxed) - passed_before;
            let passed = Duration::from_micros(u64::try_from(passed).unwrap_or(0));
            let left = duration.saturating_sub(begun.elapsed().saturating_add(passed));
            let left_on_the_wall =
                Duration::try_from(deadline.duration_since(self.now())).unwrap_or_default();
            let left = left.min(left_on_the_wall);
            if left.is_zero() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(left) => {}
                _ = moved.changed() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn advancing_ends_a_sleep_at_once() {
        let clock = Clock::default();
        let sleeper = clock.clone();
        let slept = tokio::spawn(async move { sleeper.sleep(Duration::from_secs(3600)).await });
        tokio::task::yield_now().await;
        clock.advance(Duration::from_secs(3601));
        let done = tokio::time::timeout(Duration::from_secs(10), slept).await;
        assert!(done.is_ok());
    }

    #[tokio::test]
    async fn a_wall_clock_that_is_set_back_delays_nobody() {
        let clock = Clock::default();
        let sleeper = clock.clone();
        let slept = tokio::spawn(async move { sleeper.sleep(Duration::from_millis(50)).await });
        tokio::task::yield_now().await;
        clock.jump(SignedDuration::from_hours(-1));
        let done = tokio::time::timeout(Duration::from_secs(10), slept).await;
        assert!(done.is_ok());
    }
}
