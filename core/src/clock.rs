//! The one reader of time, which a test can move.

use jiff::{SignedDuration, Timestamp};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// Wall time plus an offset that only [`Clock::advance`] changes. Clones share it.
#[derive(Clone, Debug)]
pub struct Clock {
    offset_us: Arc<AtomicI64>,
    moved: Arc<watch::Sender<u64>>,
}

impl Default for Clock {
    fn default() -> Clock {
        Clock {
            offset_us: Arc::default(),
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
        self.offset_us.fetch_add(by, Ordering::Relaxed);
        self.moved.send_modify(|n| *n += 1);
    }

    /// Returns at `deadline` by this clock, however it got there.
    pub async fn sleep_until(&self, deadline: Timestamp) {
        let mut moved = self.moved.subscribe();
        loop {
            let left = deadline.duration_since(self.now());
            if left <= SignedDuration::ZERO {
                return;
            }
            let left = Duration::try_from(left).unwrap_or_default();
            tokio::select! {
                () = tokio::time::sleep(left) => {}
                _ = moved.changed() => {}
            }
        }
    }

    pub async fn sleep(&self, duration: Duration) {
        let wait = SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
        let deadline = self.now().checked_add(wait).unwrap_or(Timestamp::MAX);
        self.sleep_until(deadline).await;
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
}
