//! The queue between a connection, which is always read, and a guest, which takes its time.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};
use weir_model::stream::Frame;

/// Frames that may wait. Policy when full: the newest are dropped and counted where they would have stood.
pub(super) const FRAMES_MAX: usize = 1024;
/// Bytes that may wait, since one frame may have megabytes; same policy.
pub(super) const BYTES_MAX: usize = 16 << 20;
/// Frames pushed in by one call.
pub(super) const BATCH_FRAMES_MAX: usize = 64;
/// Bytes pushed in by one call; a larger frame goes alone.
pub(super) const BATCH_BYTES_MAX: usize = 256 << 10;
/// How long the first frame of a batch waits for company.
pub(super) const BATCH_WAIT: Duration = Duration::from_millis(50);

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    Taken,
    /// The first one left out since the guest was last told: a poll has to make up for it.
    FirstDropped,
    Dropped,
}

/// Frames in the order of their arrival, with a mark where some are missing.
#[derive(Debug, Default)]
pub(super) struct FrameQueue {
    waiting: Mutex<Waiting>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    frames: VecDeque<Frame>,
    bytes: usize,
    /// When the oldest one came.
    since: Option<Instant>,
}

impl FrameQueue {
    /// Never waits.
    pub(super) fn push(&self, frame: Frame) -> Pushed {
        let pushed = self.lock().push(frame);
        self.filled.notify_one();
        pushed
    }

    /// Frames that came and will never be told: the guest refused them or was not there.
    pub(super) fn note_lost(&self, count: u32) {
        if count > 0 {
            self.lock().drop_here(count);
            self.filled.notify_one();
        }
    }

    /// Throws away what waits; returns how many messages that were, and how many of them nobody has counted yet.
    pub(super) fn clear(&self) -> (u32, u32) {
        let waiting = std::mem::take(&mut *self.lock());
        let lost = waiting.frames.iter().map(messages).sum();
        (lost, waiting.frames.iter().map(uncounted).sum())
    }

    /// The next frames for the guest: as many as one call takes, no later than [`BATCH_WAIT`] after the first one came.
    pub(super) async fn batch(&self) -> Vec<Frame> {
        loop {
            let filled = self.filled.notified();
            let due = self.lock().due();
            match due {
                Due::Now => return self.lock().take(),
                Due::At(at) => {
                    // Over time or filled up: looked at again.
                    let _ = timeout_at(at, filled).await;
                }
                Due::Never => filled.await,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Due {
    Now,
    At(Instant),
    Never,
}

impl Waiting {
    fn push(&mut self, frame: Frame) -> Pushed {
        let size = bytes(&frame);
        let full = self.frames.len() >= FRAMES_MAX || self.bytes + size > BYTES_MAX;
        if full && !self.frames.is_empty() {
            return self.drop_here(messages(&frame));
        }
        self.since.get_or_insert_with(Instant::now);
        self.bytes += size;
        self.frames.push_back(frame);
        Pushed::Taken
    }

    fn drop_here(&mut self, more: u32) -> Pushed {
        self.since.get_or_insert_with(Instant::now);
        if let Some(Frame::Dropped(count)) = self.frames.back_mut() {
            *count = count.saturating_add(more);
            return Pushed::Dropped;
        }
        self.frames.push_back(Frame::Dropped(more));
        Pushed::FirstDropped
    }

    fn due(&self) -> Due {
        match self.since {
            None => Due::Never,
            Some(_) if self.frames.len() >= BATCH_FRAMES_MAX => Due::Now,
            Some(_) if self.bytes >= BATCH_BYTES_MAX => Due::Now,
            Some(since) if since.elapsed() >= BATCH_WAIT => Due::Now,
            Some(since) => Due::At(since + BATCH_WAIT),
        }
    }

    fn take(&mut self) -> Vec<Frame> {
        let mut batch = Vec::new();
        let mut size = 0;
        while let Some(next) = self.frames.front() {
            let next_size = bytes(next);
            let over = batch.len() >= BATCH_FRAMES_MAX || size + next_size > BATCH_BYTES_MAX;
            if over && !batch.is_empty() {
                break;
            }
            size += next_size;
            batch.extend(self.frames.pop_front());
        }
        self.bytes -= size;
        // What is left has waited as long as what was taken.
        if self.frames.is_empty() {
            self.since = None;
        }
        batch
    }
}

fn bytes(frame: &Frame) -> usize {
    match frame {
        Frame::Message(message) => message.len(),
        Frame::Connected | Frame::Dropped(_) => 0,
    }
}

/// How many messages a frame stands for.
pub(super) fn messages(frame: &Frame) -> u32 {
    match frame {
        Frame::Message(_) => 1,
        Frame::Dropped(count) => *count,
        Frame::Connected => 0,
    }
}

/// How many messages of a frame were not counted as dropped yet.
pub(super) fn uncounted(frame: &Frame) -> u32 {
    match frame {
        Frame::Message(_) => 1,
        Frame::Dropped(_) | Frame::Connected => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_model::stream::StreamMessage;

    fn text(len: usize) -> Frame {
        Frame::Message(StreamMessage::Text("x".repeat(len)))
    }

    #[tokio::test]
    async fn a_batch_ends_at_64_frames_at_256_kib_or_after_50_ms() {
        let queue = FrameQueue::default();
        let begun = Instant::now();
        for _ in 0..100 {
            queue.push(text(1));
        }
        assert_eq!(queue.batch().await.len(), 64);
        assert_eq!(queue.batch().await.len(), 36);
        assert!(begun.elapsed() >= BATCH_WAIT);
        for _ in 0..5 {
            queue.push(text(100 << 10));
        }
        assert_eq!(queue.batch().await.len(), 2);
        assert_eq!(queue.batch().await.len(), 2);
        queue.push(text(1 << 20));
        assert_eq!(queue.batch().await.len(), 1);
        assert_eq!(queue.batch().await, [text(1 << 20)]);
    }

    #[tokio::test]
    async fn what_is_too_much_is_dropped_and_said_in_its_place() {
        let queue = FrameQueue::default();
        for _ in 0..FRAMES_MAX {
            assert_eq!(queue.push(text(1)), Pushed::Taken);
        }
        assert_eq!(queue.push(text(1)), Pushed::FirstDropped);
        assert_eq!(queue.push(text(1)), Pushed::Dropped);
        queue.batch().await;
        assert_eq!(queue.push(text(2)), Pushed::Taken);
        let mut told = Vec::new();
        for _ in 1..FRAMES_MAX / BATCH_FRAMES_MAX {
            told = queue.batch().await;
        }
        assert_eq!(told.len(), BATCH_FRAMES_MAX);
        assert_eq!(queue.batch().await, [Frame::Dropped(2), text(2)]);
    }

    #[tokio::test]
    async fn large_frames_are_bounded_by_their_bytes() {
        let queue = FrameQueue::default();
        let mut taken = 0;
        while queue.push(text(1 << 20)) == Pushed::Taken {
            taken += 1;
        }
        assert_eq!(taken, BYTES_MAX >> 20);
        assert_eq!(queue.clear(), (taken as u32 + 1, taken as u32));
        assert_eq!(queue.push(text(64 << 20)), Pushed::Taken);
    }

    #[tokio::test]
    async fn frames_lost_elsewhere_are_told_in_their_place() {
        let queue = FrameQueue::default();
        queue.note_lost(0);
        queue.note_lost(3);
        queue.push(Frame::Connected);
        assert_eq!(queue.batch().await, [Frame::Dropped(3), Frame::Connected]);
    }
}
