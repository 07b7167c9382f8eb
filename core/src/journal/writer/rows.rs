//! Commits other than appends: sources, alerts, the outbox, checkpoints and samples.

use super::append::micros;
use super::{Batch, Verdict};
use crate::journal::{
    AlertCommit, AlertRow, Checkpoint, OutboxRow, OutboxUpdate, ProgressRow, SampleRow,
    SourceCommit, SourceRow,
};
use rusqlite::{OptionalExtension, params};
use serde::Serialize;
use weir_model::alert::notification::{AlertStatus, Severity};
use weir_model::event::Event;
use weir_model::id::DEFAULT_WORKSPACE;

impl Batch<'_> {
    pub(super) fn source(&mut self, commit: SourceCommit) -> Verdict {
        let row = &commit.row;
        let namesake: Option<i64> = self
            .connection
            .prepare_cached("SELECT id FROM sources WHERE workspace_id = ?1 AND name = ?2")?
            .query_row(params![DEFAULT_WORKSPACE, row.name], |row| row.get(0))
            .optional()?;
        if namesake.is_some_and(|id| id != row.id.0) {
            return Ok(Err(format!("a source {:?} is there already", row.name)));
        }
        let id = row.id;
        let events = commit.events.into_iter().map(|e| Event::Source(id, e));
        let verdict = self.facts(events, commit.recorded_at)?;
        if verdict.is_err() {
            return Ok(verdict);
        }
        self.write_source(row)?;
        if let Some(cursor) = &commit.cursor {
            self.connection
                .prepare_cached(
                    "INSERT OR REPLACE INTO source_cursors (source_id, cursor) VALUES (?1, ?2)",
                )?
                .execute(params![id.0, cursor])?;
        }
        Ok(verdict)
    }

    fn write_source(&self, row: &SourceRow) -> rusqlite::Result<()> {
        self.connection
            .prepare_cached(
                "INSERT INTO sources (id, workspace_id, name, plugin, generation, config_hash, created_at,
                 first_contact_at, contact_at, stale_since, stale_error, suspect, configured, forgotten_before,
                 complete_generation, complete_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)
                 ON CONFLICT (id) DO UPDATE SET name = excluded.name, plugin = excluded.plugin,
                 generation = excluded.generation, config_hash = excluded.config_hash,
                 first_contact_at = excluded.first_contact_at, contact_at = excluded.contact_at,
                 stale_since = excluded.stale_since, stale_error = excluded.stale_error,
                 suspect = excluded.suspect, configured = excluded.configured,
                 complete_generation = excluded.complete_generation, complete_at = excluded.complete_at,
                 forgotten_before = max(ifnull(forgotten_before, excluded.forgotten_before), ifnull(excluded.forgotten_before, forgotten_before))",
            )?
            .execute(params![
                row.id.0,
                DEFAULT_WORKSPACE,
                row.name,
                row.plugin,
                row.generation,
                row.config_hash,
                row.created_at.as_microsecond(),
                micros(row.first_contact_at),
                micros(row.contact_at),
                micros(row.stale_since),
                row.stale_error,
                row.suspect,
                row.configured,
                micros(row.forgotten_before),
                row.complete_round.map(|round| round.generation),
                micros(row.complete_round.map(|round| round.begun_at)),
            ])?;
        Ok(())
    }

    pub(super) fn alerts(&mut self, commit: AlertCommit) -> Verdict {
        for row in &commit.outbox {
            let taken = self
                .connection
                .prepare_cached("SELECT 1 FROM outbox WHERE id = ?1")?
                .exists([row.id])?;
            if taken {
                return Ok(Err(format!("message {} is there already", row.id)));
            }
        }
        let events = commit.events.into_iter().map(|(f, e)| Event::Alert(f, e));
        let events = events.chain(commit.system.into_iter().map(Event::System));
        let verdict = self.facts(events, commit.recorded_at)?;
        if verdict.is_err() {
            return Ok(verdict);
        }
        for row in &commit.alerts {
            self.write_alert(row)?;
        }
        for row in &commit.outbox {
            self.write_outbox(row)?;
        }
        for update in &commit.outbox_updates {
            self.write_outbox_update(update)?;
        }
        if let Some(checkpoint) = &commit.checkpoint {
            self.write_checkpoint(checkpoint)?;
        }
        Ok(verdict)
    }

    fn write_alert(&self, row: &AlertRow) -> rusqlite::Result<()> {
        self.connection
            .prepare_cached(
                "INSERT OR REPLACE INTO alerts (id, workspace_id, uuid, fingerprint, rule, severity, status,
                 title, body, labels, annotations, since, ends, updated_at, count, executions,
                 acknowledged_by, acknowledged_at, state)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)",
            )?
            .execute(params![
                row.id,
                DEFAULT_WORKSPACE,
                row.uuid.as_bytes(),
                row.fingerprint,
                row.rule,
                severity_code(row.severity),
                alert_status_code(row.status),
                row.title,
                row.body,
                json(&row.labels),
                json(&row.annotations),
                row.since.as_microsecond(),
                micros(row.ends),
                row.updated_at.as_microsecond(),
                row.count,
                json(&row.executions),
                row.acknowledged_by,
                micros(row.acknowledged_at),
                row.state,
            ])?;
        Ok(())
    }

    fn write_outbox(&self, row: &OutboxRow) -> rusqlite::Result<()> {
        self.connection
            .prepare_cached(
                "INSERT INTO outbox (id, workspace_id, alert, key, receiver, payload, state, attempts,
                 created_at, next_attempt_at, updated_at, answer, receipt)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
            )?
            .execute(params![
                row.id,
                DEFAULT_WORKSPACE,
                row.alert,
                row.key,
                row.receiver,
                row.payload,
                row.state.code(),
                row.attempts,
                row.created_at.as_microsecond(),
                micros(row.next_attempt_at),
                row.updated_at.as_microsecond(),
                row.answer,
                row.receipt,
            ])?;
        Ok(())
    }

    pub(super) fn outbox_update(&mut self, update: &OutboxUpdate) -> Verdict {
        if self.write_outbox_update(update)? == 0 {
            return Ok(Err(format!("there is no message {}", update.id)));
        }
        Ok(Ok(self.nothing()))
    }

    fn write_outbox_update(&self, update: &OutboxUpdate) -> rusqlite::Result<usize> {
        self.connection
            .prepare_cached(
                "UPDATE outbox SET state = ?2, attempts = ?3, next_attempt_at = ?4, updated_at = ?5,
                 answer = ?6, receipt = ifnull(?7, receipt), receiver = ifnull(?8, receiver) WHERE id = ?1",
            )?
            .execute(params![
                update.id,
                update.state.code(),
                update.attempts,
                micros(update.next_attempt_at),
                update.updated_at.as_microsecond(),
                update.answer,
                update.receipt,
                update.receiver,
            ])
    }

    pub(super) fn checkpoint(&mut self, checkpoint: &Checkpoint) -> Verdict {
        self.write_checkpoint(checkpoint)?;
        Ok(Ok(self.nothing()))
    }

    fn write_checkpoint(&self, checkpoint: &Checkpoint) -> rusqlite::Result<()> {
        self.connection
            .prepare_cached(
                "INSERT INTO checkpoints (name, cursor, updated_at, blob) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (name) DO UPDATE SET cursor = excluded.cursor, updated_at = excluded.updated_at,
                 blob = ifnull(excluded.blob, blob)",
            )?
            .execute(params![
                checkpoint.name,
                checkpoint.cursor.0,
                self.now.as_microsecond(),
                checkpoint.blob,
            ])?;
        Ok(())
    }

    pub(super) fn progress(&mut self, rows: Vec<ProgressRow>) -> Verdict {
        for row in rows {
            self.pending.progress(row);
        }
        Ok(Ok(self.nothing()))
    }

    pub(super) fn samples(&mut self, rows: &[SampleRow]) -> Verdict {
        for row in rows {
            let name = params![DEFAULT_WORKSPACE, row.series];
            self.connection
                .prepare_cached(
                    "INSERT OR IGNORE INTO series (workspace_id, name) VALUES (?1, ?2)",
                )?
                .execute(name)?;
            self.connection
                .prepare_cached(
                    "INSERT OR REPLACE INTO samples (series, width, at, min, max, mean, count)
                     SELECT id, ?3, ?4, ?5, ?6, ?7, ?8 FROM series WHERE workspace_id = ?1 AND name = ?2",
                )?
                .execute(params![
                    DEFAULT_WORKSPACE,
                    row.series,
                    row.width_seconds,
                    row.at.as_microsecond(),
                    number(row.min),
                    number(row.max),
                    number(row.mean),
                    row.count,
                ])?;
        }
        Ok(Ok(self.nothing()))
    }
}

/// SQLite stores NaN as NULL, which the columns refuse.
fn number(value: f64) -> f64 {
    if value.is_nan() { 0.0 } else { value }
}

/// Lists of texts and of numbers: they always are JSON.
pub(super) fn json(list: &impl Serialize) -> String {
    serde_json::to_string(list).unwrap_or_else(|_| "[]".to_owned())
}

/// Frozen codes.
pub(in crate::journal) fn severity_code(severity: Severity) -> u8 {
    match severity {
        Severity::Info => 0,
        Severity::Warning => 1,
        Severity::Error => 2,
        Severity::Critical => 3,
    }
}

pub(in crate::journal) fn alert_status_code(status: AlertStatus) -> u8 {
    match status {
        AlertStatus::Firing => 0,
        AlertStatus::Resolved => 1,
    }
}
