//! Forgetting: whole final executions below every cursor, in slices between batches.

use super::migrate::{meta_integer, set_meta};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use std::time::{Duration, Instant};
use weir_model::status::Status;

/// How long and how much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Final executions older than this are deleted; none keeps them.
    pub age: Option<Duration>,
    /// While the store is larger than this many bytes, its oldest final executions are deleted; none lets it grow.
    pub size: Option<u64>,
}

impl Default for Retention {
    fn default() -> Retention {
        Retention {
            age: Some(Duration::from_secs(30 * 86_400)),
            size: Some(2 << 30),
        }
    }
}

/// Between two passes over what may be deleted.
const PASS_INTERVAL: Duration = Duration::from_secs(60);
/// Between two slices of a pass: the writer's other work goes first.
const SLICE_INTERVAL: Duration = Duration::from_millis(20);
/// What one slice may take, its sync apart.
const SLICE_MAX: Duration = Duration::from_millis(5);

/// Free pages that are kept for what comes next.
const FREE_PAGES_MAX: i64 = 256;

/// What one slice did.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    pub(super) deleted: u64,
    /// The pass is over.
    pub(super) done: bool,
    /// Events below this may be gone now.
    pub(super) retained_from: Option<i64>,
}

impl Progress {
    pub(super) const DONE: Progress = Progress {
        deleted: 0,
        done: true,
        retained_from: None,
    };
}

/// Where the pass stands.
#[derive(Debug)]
pub(super) struct Retainer {
    retention: Retention,
    /// Executions up to this one were looked at in this pass.
    cursor: i64,
    in_pass: bool,
    next: Option<Timestamp>,
}

impl Retainer {
    pub(super) fn new(retention: Retention) -> Retainer {
        Retainer {
            retention,
            cursor: 0,
            in_pass: false,
            next: None,
        }
    }

    pub(super) fn set(&mut self, retention: Retention) {
        self.retention = retention;
        self.restart();
    }

    pub(super) fn restart(&mut self) {
        self.cursor = 0;
        self.in_pass = false;
        self.next = None;
    }

    /// How long the writer may sleep when nothing is queued.
    pub(super) fn pause(&self) -> Duration {
        if self.in_pass {
            SLICE_INTERVAL
        } else {
            PASS_INTERVAL
        }
    }

    /// A clock that was set back does not put it off for longer than a pass.
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        self.next.is_none_or(|next| {
            now >= next || next.duration_since(now).unsigned_abs() > PASS_INTERVAL
        })
    }

    /// Deletes for a few milliseconds, in a transaction of its own.
    /// `given`: the highest numbers that were given, kept so that they are never given again.
    pub(super) fn slice(
        &mut self,
        connection: &mut Connection,
        head: i64,
        given: &[(&str, i64)],
        now: Timestamp,
    ) -> rusqlite::Result<Progress> {
        if !self.in_pass {
            self.in_pass = true;
            self.cursor = 0;
        }
        let limits = Limits::read(connection, self.retention, head, now)?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut slice = Slice {
            connection: &transaction,
            limits,
            deleted: 0,
            last_seq: 0,
            changed: false,
        };
        let done = slice.executions(&mut self.cursor)? && slice.rest(now)?;
        let Slice {
            deleted,
            last_seq,
            changed,
            ..
        } = slice;
        if changed {
            for (key, number) in given {
                set_meta(&transaction, key, number)?;
            }
        }
        let retained_from = retained_from(&transaction, last_seq)?;
        transaction.commit()?;
        let shrunk = shrink(connection)?;
        let done = done && shrunk;
        self.in_pass = !done;
        let pause = if done { PASS_INTERVAL } else { SLICE_INTERVAL };
        self.next = now.checked_add(pause).ok();
        Ok(Progress {
            deleted,
            done,
            retained_from,
        })
    }
}

/// What a slice may delete.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Recorded before this: too old.
    before: i64,
    /// Bytes of content that are allowed.
    size: Option<u64>,
    too_large: bool,
    /// Every consumer has read up to here.
    read_by_all: i64,
}

impl Limits {
    fn read(
        connection: &Connection,
        retention: Retention,
        head: i64,
        now: Timestamp,
    ) -> rusqlite::Result<Limits> {
        let before = retention
            .age
            .and_then(|age| now.checked_sub(age).ok())
            .map_or(i64::MIN, Timestamp::as_microsecond);
        let slowest: Option<i64> =
            connection.query_row("SELECT min(cursor) FROM checkpoints", [], |row| row.get(0))?;
        Ok(Limits {
            before,
            size: retention.size,
            too_large: is_too_large(connection, retention.size)?,
            read_by_all: slowest.unwrap_or(head).min(head),
        })
    }
}

/// One slice at work.
struct Slice<'a> {
    connection: &'a Connection,
    limits: Limits,
    deleted: u64,
    /// The highest number of a deleted event.
    last_seq: i64,
    changed: bool,
}

/// An execution as far as retention looks at it.
struct Candidate {
    seq: i64,
    source: i64,
    status: u8,
    first_seen_at: i64,
    completed_at: Option<i64>,
}

impl Slice<'_> {
    /// Oldest first from the cursor on. Returns whether there is nothing left to look at.
    fn executions(&mut self, cursor: &mut i64) -> rusqlite::Result<bool> {
        let until = Instant::now() + SLICE_MAX;
        let mut looked = 0u32;
        while let Some(candidate) = self.candidate(*cursor)? {
            let too_large = self.limits.too_large;
            if candidate.first_seen_at >= self.limits.before && !too_large {
                return Ok(true);
            }
            *cursor = candidate.seq;
            let ended = candidate.completed_at.unwrap_or(candidate.first_seen_at);
            let too_old = ended.max(candidate.first_seen_at) < self.limits.before;
            let is_final = Status::from_code(candidate.status).is_some_and(Status::is_final);
            if is_final && (too_old || too_large) {
                self.delete(&candidate, ended)?;
            }
            looked += 1;
            if looked.is_multiple_of(16) && Instant::now() >= until {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn candidate(&self, after: i64) -> rusqlite::Result<Option<Candidate>> {
        self.connection
            .prepare_cached(
                "SELECT seq, source, status, first_seen_at, completed_at FROM executions
                 WHERE seq > ?1 ORDER BY seq LIMIT 1",
            )?
            .query_row([after], |row| {
                Ok(Candidate {
                    seq: row.get(0)?,
                    source: row.get(1)?,
                    status: row.get(2)?,
                    first_seen_at: row.get(3)?,
                    completed_at: row.get(4)?,
                })
            })
            .optional()
    }

    /// All of it or nothing: an execution whose newest event somebody has not read stays whole.
    fn delete(&mut self, candidate: &Candidate, ended: i64) -> rusqlite::Result<()> {
        let newest: Option<i64> = self
            .connection
            .prepare_cached("SELECT max(seq) FROM events WHERE execution = ?1")?
            .query_row([candidate.seq], |row| row.get(0))?;
        let newest = newest.unwrap_or(0);
        if newest > self.limits.read_by_all {
            return Ok(());
        }
        // So that the provider showing it again does not make it new.
        self.connection
            .prepare_cached(
                "UPDATE sources SET forgotten_before = max(ifnull(forgotten_before, ?2), ?2) WHERE id = ?1",
            )?
            .execute([candidate.source, ended])?;
        for sql in [
            "DELETE FROM events WHERE execution = ?1",
            "DELETE FROM steps WHERE execution = ?1",
            "DELETE FROM executions WHERE seq = ?1",
        ] {
            self.connection
                .prepare_cached(sql)?
                .execute([candidate.seq])?;
        }
        self.deleted += 1;
        self.last_seq = self.last_seq.max(newest);
        self.changed = true;
        if self.deleted.is_multiple_of(16) {
            self.limits.too_large = is_too_large(self.connection, self.limits.size)?;
        }
        Ok(())
    }

    /// What belongs to no execution, a bounded bite at a time. Returns whether nothing is left.
    fn rest(&mut self, now: Timestamp) -> rusqlite::Result<bool> {
        let before = self.limits.before;
        let newest: Option<i64> = self.connection.query_row(
            "SELECT max(seq) FROM (SELECT seq, at FROM events WHERE execution IS NULL AND seq <= ?2
             ORDER BY seq LIMIT 200) WHERE at < ?1",
            [before, self.limits.read_by_all],
            |row| row.get(0),
        )?;
        let mut left = false;
        if let Some(newest) = newest {
            let deleted = self
                .connection
                .prepare_cached("DELETE FROM events WHERE execution IS NULL AND seq <= ?1")?
                .execute([newest])?;
            self.last_seq = self.last_seq.max(newest);
            self.changed = true;
            left |= deleted >= 200;
        }
        for sql in [
            "DELETE FROM alerts WHERE id IN (SELECT id FROM alerts WHERE ends IS NOT NULL AND ends < ?1 ORDER BY id LIMIT 200)",
            "DELETE FROM outbox WHERE id IN (SELECT id FROM outbox WHERE state NOT IN (0, 2) AND updated_at < ?1 ORDER BY id LIMIT 200)",
            // A request is kept as long as an execution that it is about.
            "DELETE FROM control_requests WHERE id IN (SELECT id FROM control_requests WHERE state >= 2 AND updated_at < ?1
             AND NOT EXISTS (SELECT 1 FROM executions WHERE seq IN (execution, new_execution)) ORDER BY id LIMIT 200)",
        ] {
            let deleted = self.connection.prepare_cached(sql)?.execute([before])?;
            self.changed |= deleted > 0;
            left |= deleted >= 200;
        }
        self.samples(now.as_microsecond())?;
        Ok(!left)
    }

    /// Ten thousand buckets of each width are kept: 28 hours of 10 s, a week of minutes, a year of hours.
    fn samples(&self, now: i64) -> rusqlite::Result<()> {
        let mut series = self.connection.prepare_cached("SELECT id FROM series")?;
        let series = series.query_map([], |row| row.get(0))?;
        for series in series.collect::<rusqlite::Result<Vec<i64>>>()? {
            let mut width = 0;
            while let Some(next) = self.next_width(series, width)? {
                width = next;
                let oldest = now.saturating_sub(width.saturating_mul(10_000_000_000));
                self.connection
                    .prepare_cached(
                        "DELETE FROM samples WHERE series = ?1 AND width = ?2 AND at < ?3",
                    )?
                    .execute(params![series, width, oldest])?;
            }
        }
        Ok(())
    }

    /// One seek; a DISTINCT would read every sample there is.
    fn next_width(&self, series: i64, after: i64) -> rusqlite::Result<Option<i64>> {
        self.connection
            .prepare_cached("SELECT min(width) FROM samples WHERE series = ?1 AND width > ?2")?
            .query_row([series, after], |row| row.get(0))
    }
}

/// Streams know from where on the events are whole.
fn retained_from(connection: &Connection, last_seq: i64) -> rusqlite::Result<Option<i64>> {
    if last_seq == 0 {
        return Ok(None);
    }
    let known = meta_integer(connection, "retained_from")?.unwrap_or(1);
    let retained_from = known.max(last_seq + 1);
    set_meta(connection, "retained_from", &retained_from)?;
    Ok(Some(retained_from))
}

fn is_too_large(connection: &Connection, size: Option<u64>) -> rusqlite::Result<bool> {
    let Some(size) = size else { return Ok(false) };
    let pages = pragma(connection, "page_count")? - pragma(connection, "freelist_count")?;
    let bytes = pages.saturating_mul(pragma(connection, "page_size")?);
    Ok(u64::try_from(bytes).is_ok_and(|bytes| bytes > size))
}

fn pragma(connection: &Connection, name: &str) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, name, |row| row.get(0))
}

/// Gives some free pages back to the disk. Returns whether there were few.
fn shrink(connection: &Connection) -> rusqlite::Result<bool> {
    if pragma(connection, "freelist_count")? < FREE_PAGES_MAX {
        return Ok(true);
    }
    let mut statement = connection.prepare("PRAGMA incremental_vacuum(64)")?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    Ok(false)
}
