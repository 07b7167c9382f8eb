//! Workflows and executions, as the last commit left them.

use super::rows::{optional_timestamp, timestamp};
use super::{ReadError, Reader, Result};
use crate::journal::ProgressRow;
use jiff::Timestamp;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};
use uuid::Uuid;
use weir_model::id::{DEFAULT_WORKSPACE, ExecutionSeq, RunKey, SourceId, WorkflowId};
use weir_model::status::{Status, StepStatus};
use weir_model::workflow::{ExecutionRecord, Step};

/// Executions on one page.
const EXECUTIONS_MAX: usize = 100;
/// Open executions in one answer; a page, not a limit on how many there may be.
const OPEN_MAX: usize = 1000;

/// The columns [`record`] reads, of a table `x`.
pub(super) const COLUMNS: &str = "x.seq, x.source, x.uuid, x.external_id, x.run, x.number, x.name, x.status, \
     x.imported, x.attempt, x.corrected, x.watched, x.started_estimated, x.first_seen_at, x.created_at, \
     x.started_at, x.completed_at, x.error, x.labels, x.detail";
const COLUMNS_LEN: usize = 20;

/// What [`stored`] reads after them, and from where.
const AROUND: &str = "x.progress, x.note, x.position, x.next_deadline, x.workflow, w.key, w.name, w.version, \
     w.last_number, s.name, s.stale_since";
const FROM: &str = "executions x LEFT JOIN workflows w ON w.id = x.workflow LEFT JOIN sources s ON s.id = x.source";

/// An execution with what surrounds it.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredExecution {
    pub record: ExecutionRecord,
    pub progress: ProgressRow,
    pub workflow: WorkflowRow,
    pub source_name: String,
    /// Its source lost contact with the provider; only what is not closed is stale.
    pub stale_since: Option<Timestamp>,
    /// Empty in lists.
    pub steps: Vec<Step>,
}

/// A workflow's row.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkflowRow {
    pub id: WorkflowId,
    pub key: String,
    pub name: String,
    /// Expected by the next append.
    pub version: i64,
    pub last_number: i64,
}

/// Which executions a list shows, newest first.
#[derive(Clone, Debug, Default)]
pub struct ExecutionFilter {
    pub source: Option<SourceId>,
    pub workflow: Option<WorkflowId>,
    /// Empty: all.
    pub statuses: Vec<Status>,
    pub external_id: Option<String>,
    /// Only older ones: the last of the page before.
    pub before: Option<ExecutionSeq>,
    /// At most 100.
    pub limit: usize,
}

impl Reader {
    /// An execution with its steps.
    pub fn execution(&self, seq: ExecutionSeq) -> Result<Option<StoredExecution>> {
        self.one("x.seq = ?1", &[&seq.0])
    }

    pub fn execution_by_uuid(&self, uuid: Uuid) -> Result<Option<StoredExecution>> {
        self.one("x.uuid = ?1", &[&uuid.as_bytes().as_slice()])
    }

    pub fn execution_by_key(&self, key: &RunKey) -> Result<Option<StoredExecution>> {
        self.one(
            "x.source = ?1 AND x.external_id = ?2 AND x.run = ?3",
            &[&key.source.0, &key.external_id, &key.run],
        )
    }

    fn one(
        &self,
        condition: &str,
        values: &[&dyn rusqlite::ToSql],
    ) -> Result<Option<StoredExecution>> {
        let snapshot = self.connection().unchecked_transaction()?;
        let sql = format!("SELECT {COLUMNS}, {AROUND} FROM {FROM} WHERE {condition} LIMIT 1");
        let mut found = query(&snapshot, &sql, values)?.pop();
        if let Some(execution) = &mut found {
            execution.steps = steps(&snapshot, execution.record.seq)?;
        }
        Ok(found)
    }

    /// Executions of a workflow that are not closed, with steps, oldest first, after `after`; at most 1000.
    pub fn open_of_workflow(
        &self,
        workflow: WorkflowId,
        after: ExecutionSeq,
    ) -> Result<Vec<StoredExecution>> {
        self.open("x.workflow", workflow.0, after)
    }

    /// Executions of a source that are not closed, with steps, oldest first, after `after`; at most 1000.
    pub fn open_of_source(
        &self,
        source: SourceId,
        after: ExecutionSeq,
    ) -> Result<Vec<StoredExecution>> {
        self.open("x.source", source.0, after)
    }

    fn open(&self, column: &str, id: i64, after: ExecutionSeq) -> Result<Vec<StoredExecution>> {
        let snapshot = self.connection().unchecked_transaction()?;
        let sql = format!(
            "SELECT {COLUMNS}, {AROUND} FROM {FROM} WHERE {column} = ?1 AND x.status <= 6 AND x.seq > ?2
             ORDER BY x.seq LIMIT {OPEN_MAX}"
        );
        let mut found = query(&snapshot, &sql, &[&id, &after.0])?;
        for execution in &mut found {
            execution.steps = steps(&snapshot, execution.record.seq)?;
        }
        Ok(found)
    }

    /// One page of executions, newest first, without steps.
    pub fn executions(&self, filter: &ExecutionFilter) -> Result<Vec<StoredExecution>> {
        let limit = filter.limit.min(EXECUTIONS_MAX);
        if filter.statuses.is_empty() {
            return self.page(filter, None, limit);
        }
        // One query per status, so that each walks an index in order; then the newest of them all.
        let snapshot = self.connection().unchecked_transaction()?;
        let mut found = Vec::new();
        let mut statuses = filter.statuses.clone();
        statuses.sort_unstable();
        statuses.dedup();
        for status in statuses {
            found.extend(self.page(filter, Some(status), limit)?);
        }
        drop(snapshot);
        found.sort_unstable_by_key(|execution| std::cmp::Reverse(execution.record.seq));
        found.truncate(limit);
        Ok(found)
    }

    fn page(
        &self,
        filter: &ExecutionFilter,
        status: Option<Status>,
        limit: usize,
    ) -> Result<Vec<StoredExecution>> {
        // A plus, or a named index, keeps SQLite from one that finds more rows.
        let mut conditions = vec!["x.seq < ?".to_owned()];
        let before = filter.before.map_or(i64::MAX, |seq| seq.0);
        let mut values = vec![Value::Integer(before)];
        let mut from = FROM.to_owned();
        if let Some(workflow) = filter.workflow {
            conditions.push("x.workflow = ?".to_owned());
            values.push(Value::Integer(workflow.0));
        }
        if let Some(source) = filter.source {
            let plus = filter.workflow.map_or("", |_| "+");
            let plus = filter.external_id.as_ref().map_or(plus, |_| "");
            conditions.push(format!("{plus}x.source = ?"));
            values.push(Value::Integer(source.0));
        }
        if let Some(external_id) = &filter.external_id {
            from = FROM.replacen(" x ", " x INDEXED BY executions_run ", 1);
            if filter.source.is_none() {
                // The index of runs begins with the source; there are few of them.
                conditions.push("x.source IN (SELECT id FROM sources)".to_owned());
            }
            conditions.push("x.external_id = ?".to_owned());
            values.push(Value::Text(external_id.clone()));
        }
        if let Some(status) = status {
            conditions.push(format!("x.status = {}", status.code()));
            if status != Status::Completed {
                // Word for word what the partial index says, or SQLite does not use it.
                conditions.push("x.status <> 7".to_owned());
            }
        }
        let sql = format!(
            "SELECT {COLUMNS}, {AROUND} FROM {from} WHERE {} ORDER BY x.seq DESC LIMIT {limit}",
            conditions.join(" AND ")
        );
        let mut statement = self.connection().prepare_cached(&sql)?;
        let rows = statement.query(params_from_iter(values))?;
        collect(rows)
    }

    pub fn workflow(&self, id: WorkflowId) -> Result<Option<WorkflowRow>> {
        let sql = format!("{WORKFLOW} WHERE id = ?1");
        let mut statement = self.connection().prepare_cached(&sql)?;
        Ok(statement.query_row([id.0], workflow).optional()?)
    }

    pub fn workflow_by_key(&self, key: &str) -> Result<Option<WorkflowRow>> {
        let sql = format!("{WORKFLOW} WHERE workspace_id = ?1 AND key = ?2");
        let mut statement = self.connection().prepare_cached(&sql)?;
        let found = statement.query_row(params![DEFAULT_WORKSPACE, key], workflow);
        Ok(found.optional()?)
    }

    /// Workflows after `after` in the order of their ids; at most 100.
    pub fn workflows(&self, after: WorkflowId, limit: usize) -> Result<Vec<WorkflowRow>> {
        let sql = format!("{WORKFLOW} WHERE id > ?1 ORDER BY id LIMIT ?2");
        let mut statement = self.connection().prepare_cached(&sql)?;
        let limit = i64::try_from(limit.min(EXECUTIONS_MAX)).unwrap_or(0);
        let rows = statement.query_map([after.0, limit], workflow)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// The deadlines that come first, up to `until`: (execution, its workflow, when); at most 1000.
    pub fn deadlines(
        &self,
        until: Timestamp,
    ) -> Result<Vec<(ExecutionSeq, WorkflowId, Timestamp)>> {
        let mut statement = self.connection().prepare_cached(
            "SELECT seq, workflow, next_deadline FROM executions
             WHERE next_deadline IS NOT NULL AND next_deadline <= ?1 ORDER BY next_deadline LIMIT 1000",
        )?;
        let rows = statement.query_map([until.as_microsecond()], |row| {
            Ok((
                ExecutionSeq(row.get(0)?),
                WorkflowId(row.get(1)?),
                timestamp(row.get(2)?),
            ))
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// How many executions are not closed, by status: counted from the index of what is open.
    pub fn open_counts(&self, source: Option<SourceId>) -> Result<Vec<(Status, u64)>> {
        let sql = "SELECT status, count(*) FROM executions WHERE status <= 6 AND (?1 IS NULL OR source = ?1) GROUP BY status";
        let mut statement = self.connection().prepare_cached(sql)?;
        let mut rows = statement.query([source.map(|id| id.0)])?;
        let mut counts = Vec::new();
        while let Some(row) = rows.next()? {
            let code: u8 = row.get(0)?;
            if let Some(status) = Status::from_code(code) {
                let count: i64 = row.get(1)?;
                counts.push((status, u64::try_from(count).unwrap_or(0)));
            }
        }
        Ok(counts)
    }
}

const WORKFLOW: &str = "SELECT id, key, name, version, last_number FROM workflows";

fn workflow(row: &Row<'_>) -> rusqlite::Result<WorkflowRow> {
    Ok(WorkflowRow {
        id: WorkflowId(row.get(0)?),
        key: row.get(1)?,
        name: row.get(2)?,
        version: row.get(3)?,
        last_number: row.get(4)?,
    })
}

fn query(
    connection: &Connection,
    sql: &str,
    values: &[&dyn rusqlite::ToSql],
) -> Result<Vec<StoredExecution>> {
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query(values)?;
    collect(rows)
}

fn collect(mut rows: rusqlite::Rows<'_>) -> Result<Vec<StoredExecution>> {
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(stored(row)?);
    }
    Ok(found)
}

fn stored(row: &Row<'_>) -> Result<StoredExecution> {
    let record = record(row, 0)?;
    let at = |offset: usize| COLUMNS_LEN + offset;
    let stale_since = optional_timestamp(row.get(at(10))?);
    Ok(StoredExecution {
        progress: ProgressRow {
            execution: record.seq,
            progress: row.get(at(0))?,
            note: row.get(at(1))?,
            position: row.get(at(2))?,
            next_deadline: optional_timestamp(row.get(at(3))?),
        },
        workflow: WorkflowRow {
            id: WorkflowId(row.get(at(4))?),
            key: row.get(at(5))?,
            name: row.get(at(6))?,
            version: row.get(at(7))?,
            last_number: row.get(at(8))?,
        },
        source_name: row.get::<_, Option<String>>(at(9))?.unwrap_or_default(),
        stale_since: stale_since.filter(|_| !record.status.is_closed()),
        record,
        steps: Vec::new(),
    })
}

/// Reads [`COLUMNS`] from the column `at` on.
pub(super) fn record(row: &Row<'_>, at: usize) -> Result<ExecutionRecord> {
    let column = |offset: usize| at + offset;
    let seq: i64 = row.get(column(0))?;
    let code: u8 = row.get(column(7))?;
    let labels: Option<String> = row.get(column(18))?;
    Ok(ExecutionRecord {
        seq: ExecutionSeq(seq),
        uuid: Uuid::from_bytes(row.get(column(2))?),
        key: RunKey {
            source: SourceId(row.get(column(1))?),
            external_id: row.get(column(3))?,
            run: row.get(column(4))?,
        },
        number: row.get(column(5))?,
        name: row.get(column(6))?,
        imported: row.get(column(8))?,
        status: Status::from_code(code).ok_or_else(|| ReadError::Meaningless {
            row: seq,
            column: "status",
            value: code.to_string(),
        })?,
        attempt: row.get(column(9))?,
        corrected: row.get(column(10))?,
        watched: row.get(column(11))?,
        started_estimated: row.get(column(12))?,
        first_seen_at: timestamp(row.get(column(13))?),
        created_at: optional_timestamp(row.get(column(14))?),
        started_at: optional_timestamp(row.get(column(15))?),
        completed_at: optional_timestamp(row.get(column(16))?),
        error: row.get(column(17))?,
        labels: super::rows::from_json(seq, "labels", labels.as_deref())?,
        detail: row.get(column(19))?,
    })
}

fn steps(connection: &Connection, execution: ExecutionSeq) -> Result<Vec<Step>> {
    let mut statement = connection.prepare_cached(
        "SELECT external_id, name, status, started_at, completed_at, error FROM steps WHERE execution = ?1 ORDER BY idx",
    )?;
    let mut rows = statement.query([execution.0])?;
    let mut steps = Vec::new();
    while let Some(row) = rows.next()? {
        let code: u8 = row.get(2)?;
        steps.push(Step {
            external_id: row.get::<_, String>(0)?.into(),
            name: row.get::<_, String>(1)?.into(),
            status: StepStatus::from_code(code).ok_or_else(|| ReadError::Meaningless {
                row: execution.0,
                column: "step status",
                value: code.to_string(),
            })?,
            started_at: optional_timestamp(row.get(3)?),
            completed_at: optional_timestamp(row.get(4)?),
            error: row.get::<_, Option<String>>(5)?.map(Into::into),
        });
    }
    Ok(steps)
}
