//! What a companion beside the provider reports: frames that the provider shows to other clients only.
//!
//! They take the way of a stream's frames, through the plugin, so that a job has one progress whoever tells it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use weir_model::stream::{Frame, StreamMessage};

use super::health::SharedStreams;
use super::link::Outbox;
use super::pump::Pump;
use super::queue::{FrameQueue, Pushed};
use super::{Context, StreamHost};
use crate::clock::Clock;
use crate::plugin::PluginHandle;
use crate::source::SourceActor;
use crate::supervise::Slot;

/// As the plugin is told whose frames they are.
const ENDPOINT: &str = "companion";

/// What people are shown of a source's companion.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CompanionHealth {
    pub last_report_at: Option<Timestamp>,
    pub reports: u64,
    pub frames: u64,
    /// Frames that the companion could not send, or the plugin was not told.
    pub dropped: u64,
}

/// Where the reports about one source go.
pub(crate) struct Companion {
    ctx: Arc<Context>,
    queue: Arc<FrameQueue>,
    counted: Mutex<CompanionHealth>,
    /// Drops what the plugin could not be told; it is no connection of the source's.
    refused: SharedStreams,
    _pump: tokio::task::JoinSet<()>,
}

impl StreamHost {
    /// Takes reports about a source. Nothing runs before the first one but a task that waits for it.
    pub(crate) fn reported(
        &self,
        source_name: &str,
        plugin: PluginHandle,
        source: Slot<SourceActor>,
        clock: Clock,
    ) -> Option<Companion> {
        let refused = SharedStreams::default();
        let ctx = Arc::new(Context {
            source_name: source_name.to_owned(),
            status: plugin.subscribe(),
            plugin,
            source,
            health: refused.clone(),
            clock,
            options: self.options.clone(),
        });
        let queue = Arc::new(FrameQueue::default());
        let pump = Pump {
            ctx: Arc::clone(&ctx),
            endpoint: ENDPOINT.to_owned(),
            queue: Arc::clone(&queue),
            outbox: Outbox::default(),
        };
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn_on(pump.run(), self.runtime.as_ref()?.handle());
        Some(Companion {
            ctx,
            queue,
            counted: Mutex::default(),
            refused,
            _pump: tasks,
        })
    }
}

impl Companion {
    /// Takes one report. `dropped`: what the companion could not send before it.
    pub(crate) fn take(&self, frames: Vec<String>, dropped: u64) {
        let mut lost = dropped;
        let count = frames.len() as u64;
        for frame in frames {
            let message = Frame::Message(StreamMessage::Text(frame));
            if self.queue.push(message) != Pushed::Taken {
                lost += 1;
            }
        }
        if lost > 0 {
            // A poll makes up for them.
            self.ctx.refresh(false);
        }
        let mut counted = self.counted();
        counted.last_report_at = Some(self.ctx.clock.now());
        counted.reports += 1;
        counted.frames += count;
        counted.dropped += lost;
    }

    pub(crate) fn health(&self) -> CompanionHealth {
        let refused = self.refused.health().map_or(0, |health| health.dropped);
        let counted = *self.counted();
        CompanionHealth {
            dropped: counted.dropped + refused,
            ..counted
        }
    }

    fn counted(&self) -> MutexGuard<'_, CompanionHealth> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
