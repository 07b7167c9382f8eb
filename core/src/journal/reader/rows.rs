//! Rows other than executions: sources, alerts, the outbox, checkpoints and samples.

use super::{PAGE_MAX, ReadError, Reader, Result};
use crate::journal::{AlertRow, CompleteRound, OutboxRow, OutboxState, SampleRow, SourceRow};
use jiff::Timestamp;
use rusqlite::{OptionalExtension, Params, Row, params};
use serde::de::DeserializeOwned;
use uuid::Uuid;
use weir_model::alert::notification::{AlertStatus, Severity};
use weir_model::id::{DEFAULT_WORKSPACE, Seq, SourceId};

/// A consumer's checkpoint as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckpointRow {
    pub cursor: Seq,
    pub updated_at: Timestamp,
    pub blob: Option<Vec<u8>>,
}

/// What a receiver did not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedDeliveries {
    pub receiver: String,
    /// Messages that will not be tried again.
    pub given_up: u64,
    /// When the last one failed, and what the far side said.
    pub last_at: Timestamp,
    pub answer: Option<String>,
    /// When one was last delivered.
    pub sent_at: Option<Timestamp>,
}

const SOURCE: &str = "SELECT id, name, plugin, generation, config_hash, created_at, first_contact_at, contact_at, \
     stale_since, stale_error, suspect, configured, forgotten_before, complete_generation, complete_at FROM sources";
const ALERT: &str = "SELECT id, uuid, fingerprint, rule, severity, status, title, body, labels, annotations, since, \
     ends, updated_at, count, executions, acknowledged_by, acknowledged_at, state FROM alerts";
const OUTBOX: &str = "SELECT id, alert, key, receiver, payload, state, attempts, created_at, next_attempt_at, \
     updated_at, answer, receipt FROM outbox";

impl Reader {
    pub fn source(&self, id: SourceId) -> Result<Option<SourceRow>> {
        Ok(self
            .rows(&format!("{SOURCE} WHERE id = ?1"), [id.0], source)?
            .pop())
    }

    pub fn source_by_name(&self, name: &str) -> Result<Option<SourceRow>> {
        let sql = format!("{SOURCE} WHERE workspace_id = ?1 AND name = ?2");
        Ok(self
            .rows(&sql, params![DEFAULT_WORKSPACE, name], source)?
            .pop())
    }

    /// All sources, those no longer configured too, by name; at most 1000.
    pub fn sources(&self) -> Result<Vec<SourceRow>> {
        let sql = format!("{SOURCE} WHERE workspace_id = ?1 ORDER BY name LIMIT {PAGE_MAX}");
        self.rows(&sql, [DEFAULT_WORKSPACE], source)
    }

    /// What a source asked to be given back at its next poll.
    pub fn source_cursor(&self, id: SourceId) -> Result<Option<String>> {
        let sql = "SELECT cursor FROM source_cursors WHERE source_id = ?1";
        let mut statement = self.connection().prepare_cached(sql)?;
        let found = statement.query_row([id.0], |row| row.get(0)).optional()?;
        Ok(found.flatten())
    }

    pub fn alert(&self, id: i64) -> Result<Option<AlertRow>> {
        Ok(self
            .rows(&format!("{ALERT} WHERE id = ?1"), [id], alert)?
            .pop())
    }

    pub fn alert_by_uuid(&self, uuid: Uuid) -> Result<Option<AlertRow>> {
        let sql = format!("{ALERT} WHERE uuid = ?1");
        Ok(self.rows(&sql, [uuid.as_bytes().as_slice()], alert)?.pop())
    }

    /// Alerts that fire, oldest first, after `after`; at most 1000.
    pub fn firing_alerts(&self, after: i64) -> Result<Vec<AlertRow>> {
        let sql = format!("{ALERT} WHERE status = 0 AND id > ?1 ORDER BY id LIMIT {PAGE_MAX}");
        self.rows(&sql, [after], alert)
    }

    /// All alerts, newest first, before `before`; at most 100.
    pub fn alerts(&self, before: Option<i64>, limit: usize) -> Result<Vec<AlertRow>> {
        let sql = format!("{ALERT} WHERE id < ?1 ORDER BY id DESC LIMIT ?2");
        let limit = i64::try_from(limit.min(100)).unwrap_or(0);
        self.rows(&sql, [before.unwrap_or(i64::MAX), limit], alert)
    }

    /// An alert by its UUID or, the newest of it, by its fingerprint.
    pub fn find_alert(&self, name: &str) -> Result<Option<AlertRow>> {
        if let Ok(uuid) = Uuid::parse_str(name) {
            return self.alert_by_uuid(uuid);
        }
        let sql = format!("{ALERT} WHERE fingerprint = ?1 ORDER BY id DESC LIMIT 1");
        Ok(self.rows(&sql, [name], alert)?.pop())
    }

    /// Messages to be delivered to a receiver now, those that wait longest first; at most 1000. One about a group
    /// waits for the earlier ones about it: nobody is told of an end before its beginning.
    pub fn outbox_due(
        &self,
        receiver: &str,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<OutboxRow>> {
        let sql = format!(
            "{OUTBOX} WHERE state IN (0, 2) AND receiver = ?3
             AND (next_attempt_at IS NULL OR next_attempt_at <= ?1)
             AND NOT EXISTS (SELECT 1 FROM outbox AS earlier WHERE earlier.key = outbox.key
                AND earlier.receiver = outbox.receiver AND earlier.id < outbox.id AND earlier.state IN (0, 2))
             ORDER BY next_attempt_at, id LIMIT ?2"
        );
        self.rows(
            &sql,
            params![now.as_microsecond(), bounded(limit), receiver],
            outbox,
        )
    }

    /// Undelivered messages to receivers other than these; at most 1000.
    pub fn outbox_orphans(&self, receivers: &[String]) -> Result<Vec<OutboxRow>> {
        let sql = format!(
            "{OUTBOX} WHERE state IN (0, 2) AND receiver NOT IN (SELECT value FROM json_each(?1)) ORDER BY id LIMIT {PAGE_MAX}"
        );
        let receivers = serde_json::to_string(receivers).unwrap_or_default();
        self.rows(&sql, [receivers], outbox)
    }

    /// The messages about one alert, newest first; at most 100.
    pub fn outbox_of_alert(&self, alert: i64) -> Result<Vec<OutboxRow>> {
        self.rows(
            &format!("{OUTBOX} WHERE alert = ?1 ORDER BY id DESC LIMIT 100"),
            [alert],
            outbox,
        )
    }

    /// How many messages stand where: (receiver, state, count).
    pub fn outbox_counts(&self) -> Result<Vec<(String, OutboxState, u64)>> {
        let sql =
            "SELECT receiver, state, count(*) FROM outbox GROUP BY receiver, state LIMIT 1000";
        let rows: Vec<(String, u8, i64)> =
            self.rows(sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        let known = |(receiver, code, count)| {
            Some((
                receiver,
                OutboxState::from_code(code)?,
                u64::try_from(count).ok()?,
            ))
        };
        Ok(rows.into_iter().filter_map(known).collect())
    }

    /// Of each receiver that did not take everything: what failed there; at most 1000.
    pub fn outbox_failures(&self) -> Result<Vec<FailedDeliveries>> {
        // With `max`, SQLite takes the other columns from the row that has it.
        let sql = "SELECT receiver, sum(state = 3), max(updated_at), answer,
                (SELECT max(sent.updated_at) FROM outbox AS sent WHERE sent.receiver = outbox.receiver AND sent.state = 1)
            FROM outbox WHERE state IN (2, 3) GROUP BY receiver LIMIT 1000";
        self.rows(sql, [], |row| {
            let given_up: i64 = row.get(1)?;
            Ok(FailedDeliveries {
                receiver: row.get(0)?,
                given_up: u64::try_from(given_up).unwrap_or_default(),
                last_at: timestamp(row.get(2)?),
                answer: row.get(3)?,
                sent_at: optional_timestamp(row.get(4)?),
            })
        })
    }

    /// When the receiver's next message is due that is not due yet.
    pub fn outbox_next(&self, receiver: &str, now: Timestamp) -> Result<Option<Timestamp>> {
        let mut statement = self.connection().prepare_cached(
            "SELECT min(next_attempt_at) FROM outbox WHERE state IN (0, 2) AND receiver = ?2 AND next_attempt_at > ?1",
        )?;
        let next: Option<i64> =
            statement.query_row(params![now.as_microsecond(), receiver], |row| row.get(0))?;
        Ok(optional_timestamp(next))
    }

    pub fn outbox(&self, id: i64) -> Result<Option<OutboxRow>> {
        Ok(self
            .rows(&format!("{OUTBOX} WHERE id = ?1"), [id], outbox)?
            .pop())
    }

    /// The ledger of deliveries, newest first, before `before`; at most 1000.
    pub fn outbox_page(&self, before: Option<i64>, limit: usize) -> Result<Vec<OutboxRow>> {
        let sql = format!("{OUTBOX} WHERE id < ?1 ORDER BY id DESC LIMIT ?2");
        self.rows(&sql, [before.unwrap_or(i64::MAX), bounded(limit)], outbox)
    }

    /// The receipt of the last message with this key that was sent to the receiver.
    pub fn last_receipt(&self, receiver: &str, key: &str) -> Result<Option<String>> {
        let mut statement = self.connection().prepare_cached(
            "SELECT receipt FROM outbox WHERE key = ?1 AND receiver = ?2 AND state = 1 AND receipt IS NOT NULL
             ORDER BY id DESC LIMIT 1",
        )?;
        Ok(statement
            .query_row([key, receiver], |row| row.get(0))
            .optional()?)
    }

    pub fn checkpoint(&self, name: &str) -> Result<Option<CheckpointRow>> {
        let mut statement = self
            .connection()
            .prepare_cached("SELECT cursor, updated_at, blob FROM checkpoints WHERE name = ?1")?;
        let found = statement.query_row([name], |row| {
            Ok(CheckpointRow {
                cursor: Seq(row.get(0)?),
                updated_at: timestamp(row.get(1)?),
                blob: row.get(2)?,
            })
        });
        Ok(found.optional()?)
    }

    /// Every consumer's cursor.
    pub fn checkpoints(&self) -> Result<Vec<(String, Seq)>> {
        let sql = "SELECT name, cursor FROM checkpoints ORDER BY name LIMIT 1000";
        self.rows(sql, [], |row| Ok((row.get(0)?, Seq(row.get(1)?))))
    }

    /// Buckets of one series and width in `[from, to)`, oldest first; at most 1000.
    pub fn samples(
        &self,
        series: &str,
        width_seconds: u32,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<SampleRow>> {
        let sql = format!(
            "SELECT at, min, max, mean, count FROM samples
             WHERE series = (SELECT id FROM series WHERE workspace_id = ?1 AND name = ?2) AND width = ?3
             AND at >= ?4 AND at < ?5 ORDER BY at LIMIT {PAGE_MAX}"
        );
        let (from, to) = (from.as_microsecond(), to.as_microsecond());
        let values = params![DEFAULT_WORKSPACE, series, width_seconds, from, to];
        self.rows(&sql, values, |row| {
            Ok(SampleRow {
                series: series.to_owned(),
                width_seconds,
                at: timestamp(row.get(0)?),
                min: row.get(1)?,
                max: row.get(2)?,
                mean: row.get(3)?,
                count: row.get(4)?,
            })
        })
    }

    /// Names of all series; at most 1000.
    pub fn series(&self) -> Result<Vec<String>> {
        let sql = "SELECT name FROM series ORDER BY name LIMIT 1000";
        self.rows(sql, [], |row| Ok(row.get(0)?))
    }

    fn rows<T>(
        &self,
        sql: &str,
        values: impl Params,
        read: impl Fn(&Row<'_>) -> Result<T>,
    ) -> Result<Vec<T>> {
        let mut statement = self.connection().prepare_cached(sql)?;
        let mut rows = statement.query(values)?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push(read(row)?);
        }
        Ok(found)
    }
}

pub(super) fn bounded(limit: usize) -> i64 {
    i64::try_from(limit.min(PAGE_MAX)).unwrap_or(0)
}

fn complete_round(generation: Option<i64>, at: Option<i64>) -> Option<CompleteRound> {
    Some(CompleteRound {
        generation: generation?,
        begun_at: optional_timestamp(at)?,
    })
}

fn source(row: &Row<'_>) -> Result<SourceRow> {
    Ok(SourceRow {
        id: SourceId(row.get(0)?),
        name: row.get(1)?,
        plugin: row.get(2)?,
        generation: row.get(3)?,
        config_hash: row.get(4)?,
        created_at: timestamp(row.get(5)?),
        first_contact_at: optional_timestamp(row.get(6)?),
        contact_at: optional_timestamp(row.get(7)?),
        stale_since: optional_timestamp(row.get(8)?),
        stale_error: row.get(9)?,
        suspect: row.get(10)?,
        configured: row.get(11)?,
        forgotten_before: optional_timestamp(row.get(12)?),
        complete_round: complete_round(row.get(13)?, row.get(14)?),
    })
}

fn alert(row: &Row<'_>) -> Result<AlertRow> {
    let id: i64 = row.get(0)?;
    let meaningless = |column, code: u8| ReadError::Meaningless {
        row: id,
        column,
        value: code.to_string(),
    };
    let list = |at: usize, column| -> Result<Vec<(String, String)>> {
        from_json(
            id,
            column,
            Some(row.get_ref(at)?.as_str().map_err(rusqlite::Error::from)?),
        )
    };
    let executions: String = row.get(14)?;
    let executions: Vec<Uuid> = from_json(id, "executions", Some(&executions))?;
    let (severity, status): (u8, u8) = (row.get(4)?, row.get(5)?);
    Ok(AlertRow {
        id,
        uuid: Uuid::from_bytes(row.get(1)?),
        fingerprint: row.get(2)?,
        rule: row.get(3)?,
        severity: match severity {
            0 => Severity::Info,
            1 => Severity::Warning,
            2 => Severity::Error,
            3 => Severity::Critical,
            other => return Err(meaningless("severity", other)),
        },
        status: match status {
            0 => AlertStatus::Firing,
            1 => AlertStatus::Resolved,
            other => return Err(meaningless("status", other)),
        },
        title: row.get(6)?,
        body: row.get(7)?,
        labels: list(8, "labels")?,
        annotations: list(9, "annotations")?,
        since: timestamp(row.get(10)?),
        ends: optional_timestamp(row.get(11)?),
        updated_at: timestamp(row.get(12)?),
        count: row.get(13)?,
        executions,
        acknowledged_by: row.get(15)?,
        acknowledged_at: optional_timestamp(row.get(16)?),
        state: row.get(17)?,
    })
}

fn outbox(row: &Row<'_>) -> Result<OutboxRow> {
    let id: i64 = row.get(0)?;
    let code: u8 = row.get(5)?;
    Ok(OutboxRow {
        id,
        alert: row.get(1)?,
        key: row.get(2)?,
        receiver: row.get(3)?,
        payload: row.get(4)?,
        state: OutboxState::from_code(code).ok_or_else(|| ReadError::Meaningless {
            row: id,
            column: "state",
            value: code.to_string(),
        })?,
        attempts: row.get(6)?,
        created_at: timestamp(row.get(7)?),
        next_attempt_at: optional_timestamp(row.get(8)?),
        updated_at: timestamp(row.get(9)?),
        answer: row.get(10)?,
        receipt: row.get(11)?,
    })
}

/// A list kept as JSON; none is empty.
pub(super) fn from_json<T: DeserializeOwned>(
    row: i64,
    column: &'static str,
    text: Option<&str>,
) -> Result<Vec<T>> {
    let Some(text) = text else {
        return Ok(Vec::new());
    };
    serde_json::from_str(text).map_err(|_| ReadError::Meaningless {
        row,
        column,
        value: text.chars().take(100).collect(),
    })
}

/// Only what was a timestamp is ever stored; a damaged one becomes the nearest there is.
pub(super) fn timestamp(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(micros).unwrap_or(if micros < 0 {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    })
}

pub(super) fn optional_timestamp(micros: Option<i64>) -> Option<Timestamp> {
    micros.map(timestamp)
}
