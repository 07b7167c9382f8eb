//! Pushes frames into the guest, and carries its reaction to the source and to the far side.

use std::sync::Arc;

use tokio::time::Instant;
use weir_model::observation::Observation;
use weir_model::stream::{Reaction, StreamMessage};

use super::Context;
use super::link::Outbox;
use super::queue::{FrameQueue, messages, uncounted};
use crate::plugin::{CallError, PluginState};
use crate::source::{Refresh, SourceActor, StreamObserved};
use crate::supervise::Slot;

/// Messages that one reaction may send; the others are left out.
const SEND_MAX: usize = 16;
/// Bytes of one such message; a longer one is left out.
const SEND_BYTES_MAX: usize = 64 << 10;

/// Between one endpoint's queue and the guest: one call at a time.
pub(super) struct Pump {
    pub(super) ctx: Arc<Context>,
    pub(super) endpoint: String,
    pub(super) queue: Arc<FrameQueue>,
    pub(super) outbox: Outbox,
}

impl Pump {
    /// Runs until it is dropped.
    pub(super) async fn run(self) {
        let mut failures: u32 = 0;
        loop {
            let batch = self.queue.batch().await;
            let count: u32 = batch.iter().map(messages).sum();
            let newly: u32 = batch.iter().map(uncounted).sum();
            let endpoint = self.endpoint.clone();
            match self.ctx.plugin.on_frames(endpoint, batch).await {
                Ok(reaction) => {
                    failures = 0;
                    self.carry_out(reaction).await;
                }
                Err(error) => {
                    self.failed(&error, count, newly);
                    self.recover(&error, failures).await;
                    failures = failures.saturating_add(1);
                }
            }
        }
    }

    async fn carry_out(&self, reaction: Reaction) {
        self.send(reaction.send);
        tell(&self.ctx.source, reaction.observations, reaction.refresh).await;
    }

    fn send(&self, wanted: Vec<StreamMessage>) {
        let count = wanted.len();
        let fitting = wanted
            .into_iter()
            .take(SEND_MAX)
            .filter(|message| message.len() <= SEND_BYTES_MAX);
        let sent = fitting
            .filter(|message| self.outbox.send(message.clone()))
            .count();
        if sent < count {
            let left_out = count - sent;
            tracing::warn!(
                source = %self.ctx.source_name, endpoint = %super::shown(&self.endpoint), left_out,
                "messages of the plugin were not sent: at most {SEND_MAX} of {SEND_BYTES_MAX} bytes each, while connected"
            );
        }
    }

    /// The frames are lost to the guest: it is told so with the next ones, and a poll makes up for them.
    fn failed(&self, error: &CallError, lost: u32, newly: u32) {
        self.ctx.note(&self.endpoint, |health| {
            health.dropped += u64::from(newly);
            health.last_error = Some(super::shown(&error.to_string()));
        });
        self.queue.note_lost(lost);
    }

    /// A guest that cannot be called, or says no, is not asked 20 times a second, nor are its polls.
    async fn recover(&self, error: &CallError, failures: u32) {
        if matches!(error, CallError::Crashed { .. }) {
            return self.pause().await;
        }
        self.make_up().await;
        let options = &self.ctx.options;
        let wait = options.backoff_base.saturating_mul(1 << failures.min(16));
        tokio::time::sleep(wait.min(options.backoff_max)).await;
    }

    /// Asks for a poll as soon as there is a guest that can be polled.
    async fn make_up(&self) {
        let mut status = self.ctx.status.clone();
        let ready = status.wait_for(|status| status.state == PluginState::Ready);
        if ready.await.is_ok() {
            self.ctx.refresh(false);
        }
    }

    /// Leaves a guest that crashed alone. The connection is read on, for the far side's sake.
    async fn pause(&self) {
        let until = Instant::now() + self.ctx.options.pause;
        tracing::warn!(
            source = %self.ctx.source_name, endpoint = %super::shown(&self.endpoint), pause = ?self.ctx.options.pause,
            "the plugin crashed over frames of its stream; it is told none for a while, polling goes on"
        );
        self.ctx.note(&self.endpoint, |health| health.paused = true);
        self.make_up().await;
        tokio::time::sleep_until(until).await;
        let (lost, newly) = self.queue.clear();
        self.ctx.note(&self.endpoint, |health| {
            health.paused = false;
            health.dropped += u64::from(newly);
        });
        self.queue.note_lost(lost);
        self.ctx.refresh(false);
    }
}

/// Waits until what is not droppable is on disk.
pub(super) async fn tell(
    source: &Slot<SourceActor>,
    observations: Vec<Observation>,
    mut refresh: bool,
) {
    if !observations.is_empty() {
        let recorded = source.ask(StreamObserved(observations)).await;
        // What is not recorded is not remembered as seen: a poll tells it again.
        refresh |= !matches!(recorded, Some(Ok(())));
    }
    if refresh {
        source.signal(Refresh { connected: false });
    }
}
