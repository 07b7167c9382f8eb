//! Verified copies of the store.

use rusqlite::Connection;
use rusqlite::backup::Backup;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Sql(#[from] rusqlite::Error),
    #[error("the copy is damaged: {0}")]
    Damaged(String),
}

/// Pages copied at a time; the writer may go on between them.
const PAGES_PER_STEP: i32 = 1024;

/// Copies the store to `to`, checks the copy and syncs it. What is at `to` is replaced only by a good copy.
pub(super) fn copy(from: &Connection, to: &Path) -> Result<(), BackupError> {
    let partial = to.with_extension("partial");
    let _ = std::fs::remove_file(&partial);
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&partial)?;
    let mut copy = Connection::open(&partial)?;
    Backup::new(from, &mut copy)?.run_to_completion(PAGES_PER_STEP, Duration::ZERO, None)?;
    // A copy is one file: without WAL it needs no companions.
    copy.pragma_update(None, "journal_mode", "DELETE")?;
    let verdict: String = copy.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict != "ok" {
        return Err(BackupError::Damaged(verdict));
    }
    copy.close().map_err(|(_, source)| source)?;
    File::open(&partial)?.sync_all()?;
    std::fs::rename(&partial, to)?;
    if let Some(dir) = to.parent() {
        File::open(dir)?.sync_all()?;
    }
    Ok(())
}
