//! Rows that a batch will write once, at its end, however often its commits change them.

use super::append::micros;
use super::rows::json;
use crate::journal::codec::{Encoded, PAYLOAD_VERSION};
use crate::journal::{Append, ProgressRow};
use jiff::Timestamp;
use rusqlite::{Connection, Statement, params};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use weir_model::id::{DEFAULT_WORKSPACE, ExecutionSeq, RunKey, WorkflowId};
use weir_model::status::Status;
use weir_model::workflow::{ExecutionRecord, Step};

/// The last word of a batch on every row, in the order of the keys: neighbours share pages.
#[derive(Default)]
pub(super) struct Pending {
    workflows: BTreeMap<WorkflowId, WorkflowRow>,
    executions: BTreeMap<ExecutionSeq, Execution>,
    steps: BTreeMap<(ExecutionSeq, u32), Step>,
    progress: BTreeMap<ExecutionSeq, ProgressRow>,
    events: Vec<(Timestamp, Option<WorkflowId>, Encoded)>,
    /// Keys of workflows and runs that are not stored yet.
    new_workflows: HashSet<String>,
    new_runs: HashSet<RunKey>,
}

struct WorkflowRow {
    key: String,
    name: String,
    version: i64,
    last_number: i64,
    at: i64,
}

struct Execution {
    workflow: WorkflowId,
    record: Arc<ExecutionRecord>,
    created: bool,
}

impl Pending {
    /// With room for as many events.
    pub(super) fn with_capacity(events: usize) -> Pending {
        Pending {
            events: Vec::with_capacity(events),
            ..Pending::default()
        }
    }

    pub(super) fn has_workflow(&self, key: &str) -> bool {
        self.new_workflows.contains(key)
    }

    pub(super) fn has_run(&self, key: &RunKey) -> bool {
        self.new_runs.contains(key)
    }

    pub(super) fn workflow(&mut self, append: &Append) {
        if append.expected_version == 0 {
            self.new_workflows.insert(append.key.clone());
        }
        let (version, at) = (
            append.expected_version + 1,
            append.recorded_at.as_microsecond(),
        );
        if let Some(known) = self.workflows.get_mut(&append.workflow) {
            known.version = version;
            known.last_number = known.last_number.max(append.last_number);
            known.at = at;
            if known.name != append.name {
                known.name.clone_from(&append.name);
            }
            return;
        }
        let row = WorkflowRow {
            key: append.key.clone(),
            name: append.name.clone(),
            version,
            last_number: append.last_number,
            at,
        };
        self.workflows.insert(append.workflow, row);
    }

    pub(super) fn execution(
        &mut self,
        workflow: WorkflowId,
        record: ExecutionRecord,
        created: bool,
    ) {
        if created {
            self.new_runs.insert(record.key.clone());
        }
        let created = created
            || self
                .executions
                .get(&record.seq)
                .is_some_and(|known| known.created);
        let execution = Execution {
            workflow,
            record: Arc::new(record),
            created,
        };
        self.executions.insert(execution.record.seq, execution);
    }

    pub(super) fn step(&mut self, execution: ExecutionSeq, index: u32, step: Step) {
        self.steps.insert((execution, index), step);
    }

    pub(super) fn progress(&mut self, row: ProgressRow) {
        self.progress.insert(row.execution, row);
    }

    pub(super) fn event(&mut self, at: Timestamp, workflow: Option<WorkflowId>, encoded: Encoded) {
        self.events.push((at, workflow, encoded));
    }

    /// Executions as the batch leaves them.
    pub(super) fn executions(&self) -> Vec<(WorkflowId, Arc<ExecutionRecord>)> {
        self.executions
            .values()
            .map(|execution| (execution.workflow, execution.record.clone()))
            .collect()
    }

    /// Writes everything; events are numbered from `first` on.
    pub(super) fn write(&self, connection: &Connection, first: i64) -> rusqlite::Result<()> {
        self.write_workflows(connection)?;
        self.write_executions(connection)?;
        self.write_steps(connection)?;
        self.write_progress(connection)?;
        self.write_events(connection, first)
    }

    fn write_workflows(&self, connection: &Connection) -> rusqlite::Result<()> {
        let mut upsert = connection.prepare_cached(
            "INSERT INTO workflows (id, workspace_id, key, name, version, last_number, created_at, updated_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7)
             ON CONFLICT (id) DO UPDATE SET name = excluded.name, version = excluded.version,
             last_number = max(last_number, excluded.last_number), updated_at = excluded.updated_at",
        )?;
        for (id, row) in &self.workflows {
            upsert.execute(params![
                id.0,
                DEFAULT_WORKSPACE,
                row.key,
                row.name,
                row.version,
                row.last_number,
                row.at,
            ])?;
        }
        Ok(())
    }

    fn write_executions(&self, connection: &Connection) -> rusqlite::Result<()> {
        let mut insert = connection.prepare_cached(
            "INSERT INTO executions (seq, workspace_id, workflow, source, uuid, external_id, run, number,
             name, status, imported, attempt, corrected, watched, started_estimated, first_seen_at,
             created_at, started_at, completed_at, error, labels, detail, progress)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18,
             ?19, ?20, ?21, ?22, ?23)",
        )?;
        // What is known from the creation never changes: the event of it has no payload but these columns.
        let mut update = connection.prepare_cached(
            "UPDATE executions SET status = ?2, attempt = ?3, corrected = ?4, watched = ?5,
             started_estimated = ?6, started_at = ?7, completed_at = ?8, error = ?9,
             progress = CASE ?2 WHEN 7 THEN 100.0 ELSE progress END,
             position = CASE WHEN ?2 >= 7 THEN NULL ELSE position END,
             next_deadline = CASE WHEN ?2 >= 7 THEN NULL ELSE next_deadline END
             WHERE seq = ?1",
        )?;
        for execution in self.executions.values() {
            if execution.created {
                insert_execution(&mut insert, execution)?;
            } else {
                update_execution(&mut update, &execution.record)?;
            }
        }
        Ok(())
    }

    fn write_steps(&self, connection: &Connection) -> rusqlite::Result<()> {
        let mut upsert = connection.prepare_cached(
            "INSERT INTO steps (execution, idx, external_id, name, status, started_at, completed_at, error)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
             ON CONFLICT (execution, idx) DO UPDATE SET status = excluded.status,
             started_at = excluded.started_at, completed_at = excluded.completed_at, error = excluded.error",
        )?;
        for ((execution, index), step) in &self.steps {
            upsert.execute(params![
                execution.0,
                index,
                step.external_id,
                step.name,
                step.status.code(),
                micros(step.started_at),
                micros(step.completed_at),
                step.error,
            ])?;
        }
        Ok(())
    }

    /// A row that is gone or closed meanwhile is no error: progress is ephemeral.
    fn write_progress(&self, connection: &Connection) -> rusqlite::Result<()> {
        let mut update = connection.prepare_cached(
            "UPDATE executions SET progress = CASE WHEN status = 7 THEN 100.0 ELSE ?2 END, note = ?3,
             position = CASE WHEN status >= 7 THEN NULL ELSE ?4 END,
             next_deadline = CASE WHEN status >= 7 THEN NULL ELSE ?5 END WHERE seq = ?1",
        )?;
        for row in self.progress.values() {
            update.execute(params![
                row.execution.0,
                row.progress,
                row.note,
                row.position,
                micros(row.next_deadline),
            ])?;
        }
        Ok(())
    }

    fn write_events(&self, connection: &Connection, first: i64) -> rusqlite::Result<()> {
        let mut insert = connection.prepare_cached(
            "INSERT INTO events (seq, workspace_id, at, kind, v, workflow, execution, step, payload)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?;
        for (seq, (at, workflow, encoded)) in (first..).zip(&self.events) {
            insert.execute(params![
                seq,
                DEFAULT_WORKSPACE,
                at.as_microsecond(),
                encoded.code,
                PAYLOAD_VERSION,
                workflow.map(|id| id.0),
                encoded.execution.map(|seq| seq.0),
                encoded.step,
                encoded.payload,
            ])?;
        }
        Ok(())
    }
}

fn insert_execution(insert: &mut Statement<'_>, execution: &Execution) -> rusqlite::Result<()> {
    let record = &*execution.record;
    let labels = (!record.labels.is_empty()).then(|| json(&record.labels));
    insert.execute(params![
        record.seq.0,
        DEFAULT_WORKSPACE,
        execution.workflow.0,
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
        labels,
        record.detail,
        (record.status == Status::Completed).then_some(100.0),
    ])?;
    Ok(())
}

fn update_execution(update: &mut Statement<'_>, record: &ExecutionRecord) -> rusqlite::Result<()> {
    update.execute(params![
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
