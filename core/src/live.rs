//! Live progress of running executions: kept in memory only, written by workflow actors, read by views.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::broadcast;
use weir_model::id::ExecutionSeq;
use weir_model::workflow::Execution;

/// Frames a slow reader may fall behind; older ones are dropped, the newest view is on the board.
const FRAMES: usize = 1024;

/// What is shown of a running execution beside its committed row.
#[derive(Clone, Debug, PartialEq)]
pub struct LiveProgress {
    pub seq: ExecutionSeq,
    /// 0 to 100; none while the provider told nothing.
    pub percent: Option<f64>,
    pub note: Option<String>,
    /// Place in the provider's queue, 0 = next.
    pub position: Option<u32>,
    /// (step index, fraction 0..=1) of steps in progress.
    pub fractions: Vec<(u32, f64)>,
}

/// The board of live progress, and the stream of its changes. Clones share it.
#[derive(Clone, Debug)]
pub struct Board {
    rows: Arc<RwLock<HashMap<ExecutionSeq, LiveProgress>>>,
    frames: broadcast::Sender<LiveProgress>,
}

impl Default for Board {
    fn default() -> Board {
        Board {
            rows: Arc::default(),
            frames: broadcast::channel(FRAMES).0,
        }
    }
}

impl Board {
    pub(crate) fn show(&self, execution: &Execution) {
        let row = LiveProgress {
            seq: execution.record.seq,
            percent: execution.live.progress,
            note: execution.live.note.clone(),
            position: execution.live.position,
            fractions: execution.live.fractions.clone(),
        };
        let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        rows.insert(row.seq, row.clone());
        drop(rows);
        // Nobody may be listening.
        let _ = self.frames.send(row);
    }

    pub(crate) fn clear(&self, seq: ExecutionSeq) {
        self.rows
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&seq);
    }

    pub fn get(&self, seq: ExecutionSeq) -> Option<LiveProgress> {
        self.rows
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&seq)
            .cloned()
    }

    pub fn subscribe(&self) -> broadcast::Receiver<LiveProgress> {
        self.frames.subscribe()
    }
}
