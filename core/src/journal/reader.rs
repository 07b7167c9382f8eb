//! Readers of what is committed: pooled read-only connections, keyset pages, nothing without a bound.

mod control;
mod events;
mod executions;
mod rows;

pub use control::Lineage;
pub use events::StoredEvent;
pub use executions::{ExecutionFilter, StoredExecution, WorkflowRow};
pub use rows::{CheckpointRow, FailedDeliveries};

use super::codec::CodecError;
use super::{Common, open};
use rusqlite::Connection;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use weir_model::id::Seq;

/// Rows in one answer, whatever is asked for.
pub(super) const PAGE_MAX: usize = 1000;
/// Readers at one time; more are refused.
const READERS_MAX: usize = 64;
/// Connections kept open while nobody reads.
const IDLE_MAX: usize = 4;

/// Why something could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("too many readers at once")]
    Busy,
    #[error("the store cannot be read: {0}")]
    Sql(#[from] rusqlite::Error),
    #[error("event {seq}: {source}")]
    Event {
        seq: i64,
        #[source]
        source: CodecError,
    },
    #[error("{column} of {row} holds {value}, which means nothing")]
    Meaningless {
        row: i64,
        column: &'static str,
        value: String,
    },
}

pub(super) type Result<T> = std::result::Result<T, ReadError>;

/// Connections that nobody uses at the moment.
pub(super) struct Pool {
    path: PathBuf,
    idle: Mutex<Vec<(usize, Connection)>>,
    used: AtomicUsize,
    /// Grows when the connections of before must not be used any more.
    generation: AtomicUsize,
}

impl Pool {
    pub(super) fn new(path: PathBuf) -> Pool {
        Pool {
            path,
            idle: Mutex::new(Vec::new()),
            used: AtomicUsize::new(0),
            generation: AtomicUsize::new(0),
        }
    }

    /// Closes what is idle; what is in use is closed when it comes back.
    pub(super) fn clear(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}

/// One reader. Its answers are what was committed when each question was asked.
pub struct Reader {
    common: Arc<Common>,
    generation: usize,
    /// None only while it is dropped.
    connection: Option<Connection>,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").finish_non_exhaustive()
    }
}

impl Reader {
    pub(super) fn new(common: Arc<Common>) -> Result<Reader> {
        let pool = &common.readers;
        if pool.used.fetch_add(1, Ordering::AcqRel) >= READERS_MAX {
            pool.used.fetch_sub(1, Ordering::AcqRel);
            return Err(ReadError::Busy);
        }
        let idle = pool
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        let (generation, connection) = match idle {
            Some(idle) => idle,
            None => {
                let generation = pool.generation.load(Ordering::Acquire);
                match open::connect_read_only(&pool.path) {
                    Ok(connection) => (generation, connection),
                    Err(error) => {
                        pool.used.fetch_sub(1, Ordering::AcqRel);
                        return Err(error.into());
                    }
                }
            }
        };
        Ok(Reader {
            common,
            generation,
            connection: Some(connection),
        })
    }

    pub(super) fn connection(&self) -> &Connection {
        self.connection
            .as_ref()
            .expect("the connection is taken by drop alone")
    }

    /// Events below this may have been deleted by retention.
    pub fn retained_from(&self) -> Seq {
        Seq(self.common.retained_from.load(Ordering::Acquire))
    }

    pub fn origin(&self) -> uuid::Uuid {
        self.common.origin
    }

    pub fn head(&self) -> Seq {
        *self.common.head.borrow()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let pool = &self.common.readers;
        pool.used.fetch_sub(1, Ordering::AcqRel);
        let current = pool.generation.load(Ordering::Acquire) == self.generation;
        let mut idle = pool.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(connection) = self.connection.take()
            && current
            && idle.len() < IDLE_MAX
        {
            idle.push((self.generation, connection));
        }
    }
}

/// Syncs the files again and drops what the kernel remembers of them, so that the next read asks the disk.
pub(super) fn forget_cached_pages(path: &Path) -> std::io::Result<()> {
    for path in [path.to_owned(), path.with_extension("db-wal")] {
        match File::open(&path) {
            Ok(file) => {
                file.sync_all()?;
                rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Reads the newest event up to `head` from its row.
pub(super) fn read_back(connection: &Connection, head: Seq) -> Result<()> {
    events::after(connection, Seq(head.0 - 1), None, 1).map(|_| ())
}
