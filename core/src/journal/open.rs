//! Opening the store: the lock, the checks, and errors that say what to do.

use super::backup::BackupError;
use super::migrate::{self, Migrated};
use super::schema::{FILE_NAME, MIGRATIONS};
use super::{Durability, JournalOptions};
use rusqlite::{Connection, ErrorCode, OpenFlags};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A store this small is checked in full; a larger one as far as the time allows.
const FULL_CHECK_BYTES: u64 = 8 << 20;
/// A start may take this long for the check; the rest of a large store is believed.
const CHECK_TIME_MAX: Duration = Duration::from_millis(600);
/// Prepared statements kept by each connection.
const STATEMENTS_MAX: usize = 96;
/// Kibibytes of pages kept by each reader.
const READER_CACHE_KIB: i64 = 512;

/// Why the journal cannot be opened, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("data directory {} is in use by {}; stop it, or set another data_dir", dir.display(), holder(*pid))]
    Locked { dir: PathBuf, pid: Option<u32> },
    #[error(
        "{} was written by weir {written_by} (schema {schema}), this is weir {this} (schema {newest}); run that version, or restore a backup",
        path.display()
    )]
    Newer {
        path: PathBuf,
        written_by: String,
        schema: i64,
        this: &'static str,
        newest: i64,
    },
    #[error("{} is not a store of weir; move it away, or set another data_dir", path.display())]
    Foreign { path: PathBuf },
    #[error(
        "the store {} is damaged ({detail}); restore a backup over it, or move it away and weir starts a new one",
        path.display()
    )]
    Corrupt { path: PathBuf, detail: String },
    #[error("{} cannot be written (permissions or a read-only disk)", path.display())]
    ReadOnly { path: PathBuf },
    #[error("no space left for {}", path.display())]
    NoSpace { path: PathBuf },
    #[error("{}: {source}", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{}: {source}", path.display())]
    Sql {
        path: PathBuf,
        #[source]
        source: rusqlite::Error,
    },
    #[error("no copy could be made before the migration ({}): {source}", path.display())]
    Backup {
        path: PathBuf,
        #[source]
        source: BackupError,
    },
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(
        || "another weir".to_owned(),
        |pid| format!("weir process {pid}"),
    )
}

impl OpenError {
    /// Sorts an error of SQLite by what a person can do about it.
    pub(super) fn of(path: &Path, source: rusqlite::Error) -> OpenError {
        let path = path.to_owned();
        match source.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => OpenError::Corrupt {
                path,
                detail: source.to_string(),
            },
            Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
                OpenError::ReadOnly { path }
            }
            Some(ErrorCode::DiskFull) => OpenError::NoSpace { path },
            _ => OpenError::Sql { path, source },
        }
    }

    fn io(path: &Path, source: std::io::Error) -> OpenError {
        let path = path.to_owned();
        match source.kind() {
            std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
                OpenError::ReadOnly { path }
            }
            std::io::ErrorKind::StorageFull => OpenError::NoSpace { path },
            _ => OpenError::Io { path, source },
        }
    }
}

/// The store of one daemon, locked and checked.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) connection: Connection,
    pub(super) path: PathBuf,
    /// Held as long as the journal lives.
    pub(super) lock: File,
}

pub(super) fn open(options: &JournalOptions) -> Result<Opened, OpenError> {
    let lock = lock(&options.dir)?;
    let path = options.dir.join(FILE_NAME);
    let created = create_file(&path)?;
    let mut connection = connect(&path, options.durability)?;
    if !created {
        check(&mut connection, &path)?;
    }
    match migrate::migrate(&mut connection, &path, MIGRATIONS)? {
        Migrated::Created => sync_dir(&options.dir)?,
        Migrated::Current => {}
        Migrated::From { version, backup } => {
            tracing::info!(version, backup = %backup.display(), "store migrated");
        }
    }
    // After the first tables: auto_vacuum cannot be set once the file is in WAL mode.
    set_wal(&connection, &path)?;
    Ok(Opened {
        connection,
        path,
        lock,
    })
}

/// One daemon per data directory. The lock falls with the process, however it ends.
fn lock(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join("weir.lock");
    let io = |source| OpenError::io(&path, source);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(io)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            let _ = (&mut file).take(32).read_to_string(&mut text);
            return Err(OpenError::Locked {
                dir: dir.to_owned(),
                pid: text.trim().parse().ok(),
            });
        }
        Err(TryLockError::Error(source)) => return Err(io(source)),
    }
    file.set_len(0).map_err(io)?;
    file.rewind().map_err(io)?;
    writeln!(file, "{}", std::process::id()).map_err(io)?;
    Ok(file)
}

/// Makes the file 0600 before SQLite does it with the umask. Its companions inherit the mode.
fn create_file(path: &Path) -> Result<bool, OpenError> {
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    match made {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
        Err(source) => Err(OpenError::io(path, source)),
    }
}

pub(super) fn connect(path: &Path, durability: Durability) -> Result<Connection, OpenError> {
    let sql = |source| OpenError::of(path, source);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(sql)?;
    let synchronous = match durability {
        Durability::Power => "FULL",
        Durability::Process => "NORMAL",
    };
    connection
        .pragma_update(None, "synchronous", synchronous)
        .map_err(sql)?;
    // Only a backup or another tool can hold the file besides us.
    connection
        .busy_timeout(Duration::from_secs(5))
        .map_err(sql)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    Ok(connection)
}

pub(super) fn set_wal(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let sql = |source| OpenError::of(path, source);
    let mode: String = connection
        .query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))
        .map_err(sql)?;
    if mode != "wal" {
        return Err(OpenError::ReadOnly {
            path: path.to_owned(),
        });
    }
    // After a burst the WAL shrinks to this at the next checkpoint.
    connection
        .pragma_update(None, "journal_size_limit", 64 << 20)
        .map_err(sql)
}

pub(super) fn connect_read_only(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    // There are several of these, and the kernel caches the same pages once for all.
    connection.pragma_update(None, "cache_size", -READER_CACHE_KIB)?;
    Ok(connection)
}

/// Is the file whole? Bounded in time, so that a large store does not delay the start.
fn check(connection: &mut Connection, path: &Path) -> Result<(), OpenError> {
    let sql = |source| OpenError::of(path, source);
    let bytes = std::fs::metadata(path).map_or(0, |m| m.len());
    let pragma = if bytes <= FULL_CHECK_BYTES {
        "PRAGMA integrity_check(3)"
    } else {
        "PRAGMA quick_check(3)"
    };
    let until = Instant::now() + CHECK_TIME_MAX;
    connection
        .progress_handler(10_000, Some(move || Instant::now() > until))
        .map_err(sql)?;
    let verdict = faults(connection, pragma);
    connection
        .progress_handler(0, None::<fn() -> bool>)
        .map_err(sql)?;
    match verdict {
        Ok(faults) if faults.is_empty() => Ok(()),
        Ok(faults) => Err(OpenError::Corrupt {
            path: path.to_owned(),
            detail: faults.join("; "),
        }),
        Err(e) if e.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {
            tracing::debug!(bytes, "store checked in part");
            Ok(())
        }
        Err(source) => Err(OpenError::of(path, source)),
    }
}

fn faults(connection: &Connection, pragma: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare(pragma)?;
    let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
    rows.filter(|row| row.as_deref() != Ok("ok")).collect()
}

/// A new file's name is durable only when its directory is.
fn sync_dir(dir: &Path) -> Result<(), OpenError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(|source| OpenError::io(dir, source))
}
