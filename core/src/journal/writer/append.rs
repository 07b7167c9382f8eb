//! An append of a workflow actor: refused before anything of it is written, or written whole.

use super::{Batch, Verdict};
use crate::journal::codec::{self, Encoded, PAYLOAD_VERSION};
use crate::journal::{Append, Committed, EventRow};
use jiff::Timestamp;
use rusqlite::{OptionalExtension, params};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use weir_model::event::{DeclaredStep, Event, ExecutionEvent};
use weir_model::id::{DEFAULT_WORKSPACE, ExecutionSeq, RunKey, Seq, WorkflowId};
use weir_model::status::Status;
use weir_model::workflow::{ExecutionRecord, Step};

/// Why an append is refused, or the error that ends the batch.
type Refused = rusqlite::Result<Option<String>>;

impl Batch<'_> {
    pub(super) fn append(&mut self, append: Append) -> Verdict {
        if let Some(reason) = self.refuse_version(&append)? {
            return Ok(Err(reason));
        }
        if let Some(reason) = self.refuse_executions(&append)? {
            return Ok(Err(reason));
        }
        let encoded = match encode(&append) {
            Ok(encoded) => encoded,
            Err(reason) => return Ok(Err(reason)),
        };
        self.write_workflow(&append)?;
        let created: HashSet<ExecutionSeq> = created(&append).map(|(seq, ..)| seq).collect();
        for record in &append.executions {
            if created.contains(&record.seq) {
                self.insert_execution(append.workflow, record)?;
            } else {
                self.update_execution(record)?;
            }
        }
        for (execution, index, step) in &append.steps {
            self.write_step(*execution, *index, step)?;
        }
        for row in &append.progress {
            self.write_progress(row)?;
        }
        let events = append
            .events
            .into_iter()
            .map(|(seq, event)| Event::Execution(seq, event));
        let committed = self.write_events(
            events.zip(encoded),
            append.recorded_at,
            Some(append.workflow),
        )?;
        if self.followed {
            let workflow = append.workflow;
            let records = append.executions.into_iter();
            self.executions
                .extend(records.map(|record| (workflow, Arc::new(record))));
        }
        Ok(Ok(committed))
    }

    /// The events were made from the state the store holds, or they mean nothing.
    fn refuse_version(&mut self, append: &Append) -> Refused {
        let (id, expected) = (append.workflow, append.expected_version);
        let known = match self.versions.get(&id) {
            Some(version) => Some(*version),
            None => self
                .connection
                .prepare_cached("SELECT version FROM workflows WHERE id = ?1")?
                .query_row([id.0], |row| row.get(0))
                .optional()?,
        };
        if let Some(version) = known {
            self.versions.insert(id, version);
        }
        let version = known.unwrap_or(0);
        if version != expected {
            return Ok(Some(format!(
                "workflow {id} is at version {version}, not {expected}"
            )));
        }
        if expected == 0 {
            let taken = self
                .connection
                .prepare_cached("SELECT 1 FROM workflows WHERE workspace_id = ?1 AND key = ?2")?
                .exists(params![DEFAULT_WORKSPACE, append.key])?;
            if taken {
                return Ok(Some(format!(
                    "a workflow {:?} is there already",
                    append.key
                )));
            }
        }
        Ok(None)
    }

    /// Every execution it is about is created by it, once, or belongs to its workflow already.
    fn refuse_executions(&self, append: &Append) -> Refused {
        let mut known: HashSet<ExecutionSeq> = HashSet::new();
        let mut keys: HashSet<&RunKey> = HashSet::new();
        for (seq, event) in &append.events {
            if let ExecutionEvent::Created { key, uuid, .. } = event {
                let row = append.executions.iter().find(|record| record.seq == *seq);
                if row.is_none_or(|record| record.key != *key || record.uuid != *uuid) {
                    return Ok(Some(format!("execution {seq} is created without its row")));
                }
                if !known.insert(*seq) || !keys.insert(key) || self.is_stored(*seq, key)? {
                    return Ok(Some(format!(
                        "run {:?} {:?} of source {} is there already",
                        key.external_id, key.run, key.source
                    )));
                }
            } else if let Some(reason) = self.refuse_unknown(append.workflow, *seq, &mut known)? {
                return Ok(Some(reason));
            }
        }
        let rows = append.executions.iter().map(|record| record.seq);
        let steps = append.steps.iter().map(|(seq, ..)| *seq);
        let progress = append.progress.iter().map(|row| row.execution);
        for seq in rows.chain(steps).chain(progress) {
            if let Some(reason) = self.refuse_unknown(append.workflow, seq, &mut known)? {
                return Ok(Some(reason));
            }
        }
        Ok(None)
    }

    fn is_stored(&self, seq: ExecutionSeq, key: &RunKey) -> rusqlite::Result<bool> {
        let by_seq = self
            .connection
            .prepare_cached("SELECT 1 FROM executions WHERE seq = ?1")?
            .exists([seq.0])?;
        if by_seq {
            return Ok(true);
        }
        self.connection
            .prepare_cached(
                "SELECT 1 FROM executions WHERE source = ?1 AND external_id = ?2 AND run = ?3",
            )?
            .exists(params![key.source.0, key.external_id, key.run])
    }

    fn refuse_unknown(
        &self,
        workflow: WorkflowId,
        seq: ExecutionSeq,
        known: &mut HashSet<ExecutionSeq>,
    ) -> Refused {
        if known.contains(&seq) {
            return Ok(None);
        }
        let owner: Option<i64> = self
            .connection
            .prepare_cached("SELECT workflow FROM executions WHERE seq = ?1")?
            .query_row([seq.0], |row| row.get(0))
            .optional()?;
        if owner != Some(workflow.0) {
            return Ok(Some(format!("workflow {workflow} has no execution {seq}")));
        }
        known.insert(seq);
        Ok(None)
    }

    fn write_workflow(&mut self, append: &Append) -> rusqlite::Result<()> {
        let version = append.expected_version + 1;
        self.connection
            .prepare_cached(
                "INSERT INTO workflows (id, workspace_id, key, name, version, last_number, created_at, updated_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7)
                 ON CONFLICT (id) DO UPDATE SET name = excluded.name, version = excluded.version,
                 last_number = max(last_number, excluded.last_number), updated_at = excluded.updated_at",
            )?
            .execute(params![
                append.workflow.0,
                DEFAULT_WORKSPACE,
                append.key,
                append.name,
                version,
                append.last_number,
                append.recorded_at.as_microsecond(),
            ])?;
        self.versions.insert(append.workflow, version);
        Ok(())
    }

    fn insert_execution(
        &self,
        workflow: WorkflowId,
        record: &ExecutionRecord,
    ) -> rusqlite::Result<()> {
        let progress = (record.status == Status::Completed).then_some(100.0);
        self.connection
            .prepare_cached(
                "INSERT INTO executions (seq, workspace_id, workflow, source, uuid, external_id, run, number,
                 name, status, imported, attempt, corrected, watched, started_estimated, first_seen_at,
                 created_at, started_at, completed_at, error, labels, detail, progress)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18,
                 ?19, ?20, ?21, ?22, ?23)",
            )?
            .execute(params![
                record.seq.0,
                DEFAULT_WORKSPACE,
                workflow.0,
                record.key.source.0,
                record.uuid.as_bytes(),
                record.key.external_id,
                record.key.run,
                record.number,
                record.name,
                record.status.code(),
                record.imported,
                record.attempt,
                record.corrected,
                record.watched,
                record.started_estimated,
                record.first_seen_at.as_microsecond(),
                micros(record.created_at),
                micros(record.started_at),
                micros(record.completed_at),
                record.error,
                labels(record),
                record.detail,
                progress,
            ])?;
        Ok(())
    }

    /// What is known from the creation never changes: the event of it has no payload but these columns.
    fn update_execution(&self, record: &ExecutionRecord) -> rusqlite::Result<()> {
        self.connection
            .prepare_cached(
                "UPDATE executions SET status = ?2, attempt = ?3, corrected = ?4, watched = ?5,
                 started_estimated = ?6, started_at = ?7, completed_at = ?8, error = ?9,
                 progress = CASE ?2 WHEN 7 THEN 100.0 ELSE progress END,
                 position = CASE WHEN ?2 >= 7 THEN NULL ELSE position END,
                 next_deadline = CASE WHEN ?2 >= 7 THEN NULL ELSE next_deadline END
                 WHERE seq = ?1",
            )?
            .execute(params![
                record.seq.0,
                record.status.code(),
                record.attempt,
                record.corrected,
                record.watched,
                record.started_estimated,
                micros(record.started_at),
                micros(record.completed_at),
                record.error,
            ])?;
        Ok(())
    }

    fn write_step(&self, execution: ExecutionSeq, index: u32, step: &Step) -> rusqlite::Result<()> {
        self.connection
            .prepare_cached(
                "INSERT INTO steps (execution, idx, external_id, name, status, started_at, completed_at, error)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
                 ON CONFLICT (execution, idx) DO UPDATE SET status = excluded.status,
                 started_at = excluded.started_at, completed_at = excluded.completed_at, error = excluded.error",
            )?
            .execute(params![
                execution.0,
                index,
                step.external_id,
                step.name,
                step.status.code(),
                micros(step.started_at),
                micros(step.completed_at),
                step.error,
            ])?;
        Ok(())
    }

    /// Numbers the events and writes them.
    pub(super) fn write_events(
        &mut self,
        events: impl Iterator<Item = (Event, Encoded)>,
        at: Timestamp,
        workflow: Option<WorkflowId>,
    ) -> rusqlite::Result<Committed> {
        let first = self.head + 1;
        let mut insert = self.connection.prepare_cached(
            "INSERT INTO events (seq, workspace_id, at, kind, v, workflow, execution, step, payload)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?;
        for (event, encoded) in events {
            self.head += 1;
            insert.execute(params![
                self.head,
                DEFAULT_WORKSPACE,
                at.as_microsecond(),
                encoded.code,
                PAYLOAD_VERSION,
                workflow.map(|id| id.0),
                encoded.execution.map(|seq| seq.0),
                encoded.step,
                encoded.payload,
            ])?;
            if self.followed {
                self.events.push(EventRow {
                    seq: Seq(self.head),
                    at,
                    kind: event.kind(),
                    workflow,
                    execution: encoded.execution,
                    step: encoded.step,
                    event,
                });
            }
        }
        Ok(Committed {
            first_seq: Seq(first),
            last_seq: Seq(self.head),
        })
    }

    /// Events that belong to no workflow.
    pub(super) fn facts(&mut self, events: impl Iterator<Item = Event>, at: Timestamp) -> Verdict {
        let encoded: Result<Vec<_>, _> = events
            .map(|event| codec::encode(&event).map(|encoded| (event, encoded)))
            .collect();
        match encoded {
            Ok(events) => self.write_events(events.into_iter(), at, None).map(Ok),
            Err(error) => Ok(Err(error.to_string())),
        }
    }
}

fn created(append: &Append) -> impl Iterator<Item = (ExecutionSeq, &RunKey)> {
    append.events.iter().filter_map(|(seq, event)| match event {
        ExecutionEvent::Created { key, .. } => Some((*seq, key)),
        _ => None,
    })
}

fn encode(append: &Append) -> Result<Vec<Encoded>, String> {
    let mut declared: Option<Declared<'_>> = None;
    let mut encoded = Vec::with_capacity(append.events.len());
    for (seq, event) in &append.events {
        let first = match event {
            ExecutionEvent::Declared { steps } => declared
                .get_or_insert_with(|| Declared::of(append))
                .first(*seq, steps)
                .ok_or_else(|| format!("execution {seq} declares steps without their rows"))?,
            _ => 0,
        };
        encoded.push(codec::encode_execution(*seq, event, first).map_err(|e| e.to_string())?);
    }
    Ok(encoded)
}

/// The rows of an append's steps, by index and by the provider's id.
struct Declared<'a> {
    rows: HashMap<(ExecutionSeq, u32), &'a Step>,
    indexes: HashMap<(ExecutionSeq, &'a str), u32>,
}

impl<'a> Declared<'a> {
    fn of(append: &'a Append) -> Declared<'a> {
        let steps = append.steps.iter();
        Declared {
            rows: steps.clone().map(|(s, i, step)| ((*s, *i), step)).collect(),
            indexes: steps
                .map(|(s, i, step)| ((*s, &*step.external_id), *i))
                .collect(),
        }
    }

    /// Where the declared steps begin, if their rows are here: the event's payload is those rows.
    fn first(&self, seq: ExecutionSeq, steps: &[DeclaredStep]) -> Option<u32> {
        let Some(one) = steps.first() else {
            return Some(0);
        };
        let first = *self.indexes.get(&(seq, one.external_id.as_str()))?;
        let all_there = (first..).zip(steps).all(|(index, declared)| {
            self.rows.get(&(seq, index)).is_some_and(|row| {
                *row.external_id == declared.external_id && *row.name == declared.name
            })
        });
        all_there.then_some(first)
    }
}

pub(super) fn micros(at: Option<Timestamp>) -> Option<i64> {
    at.map(Timestamp::as_microsecond)
}

fn labels(record: &ExecutionRecord) -> Option<String> {
    if record.labels.is_empty() {
        return None;
    }
    Some(super::rows::json(&record.labels))
}
