//! Control requests, as the last commit left them, and the executions that they are about.

use super::rows::{bounded, optional_timestamp, timestamp};
use super::{PAGE_MAX, ReadError, Reader, Result, StoredExecution};
use crate::journal::{ExecutionFilter, KEY_LIFE, RequestAnswer, RequestRow};
use crate::plugin::Role;
use jiff::Timestamp;
use rusqlite::types::FromSql;
use rusqlite::{OptionalExtension, Params, Row, params};
use serde_json::Value;
use uuid::Uuid;
use weir_model::id::{ExecutionSeq, RunKey, SourceId, WorkflowId};
use weir_model::observation::JobRef;
use weir_model::request::{Action, RequestState};
use weir_model::workflow::ExecutionRecord;

const REQUEST: &str = "SELECT id, uuid, action, state, source, workflow, execution, execution_uuid, job_id, job_run, \
     key, digest, after_execution, created_at, updated_at, attempts, asked, asked_at, not_before, reason, new_job_id, \
     new_job_run, new_execution, new_uuid, answer_status, answer_type, answer FROM control_requests";

/// Under which a guest leaves the key of a submission or retry with the job.
const KEY_NAME: &str = "weir_key";
/// Requests shown of one execution.
const REQUESTS_MAX: usize = 50;

/// Where an execution stands in a line of retries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lineage {
    pub retried_from: Option<Uuid>,
    /// The newest, when it was retried more than once.
    pub retried_as: Option<Uuid>,
}

impl Reader {
    pub fn request(&self, uuid: Uuid) -> Result<Option<RequestRow>> {
        let sql = format!("{REQUEST} WHERE uuid = ?1");
        Ok(self.requests(&sql, [uuid.as_bytes().as_slice()])?.pop())
    }

    /// Requests that are not settled, oldest first, after `after`; at most `limit` and 1000.
    pub fn open_requests(&self, after: i64, limit: usize) -> Result<Vec<RequestRow>> {
        let sql = format!("{REQUEST} WHERE state < 2 AND id > ?1 ORDER BY id LIMIT ?2");
        self.requests(&sql, params![after, bounded(limit.min(PAGE_MAX))])
    }

    /// Counted up to 1000.
    pub fn open_request_count(&self) -> Result<usize> {
        let sql =
            "SELECT count(*) FROM (SELECT 1 FROM control_requests WHERE state < 2 LIMIT 1000)";
        let mut statement = self.connection().prepare_cached(sql)?;
        let count: i64 = statement.query_row([], |row| row.get(0))?;
        Ok(usize::try_from(count).unwrap_or(0))
    }

    /// The request that a key stands for at a source. One that failed stands for nothing: nothing happened.
    pub fn request_by_key(
        &self,
        source: SourceId,
        key: &str,
        now: Timestamp,
    ) -> Result<Option<RequestRow>> {
        let since = now.checked_sub(KEY_LIFE).unwrap_or(Timestamp::MIN);
        let sql = format!(
            "{REQUEST} WHERE source = ?1 AND key = ?2 AND created_at > ?3 AND state <> ?4 ORDER BY id DESC LIMIT 1"
        );
        let failed = RequestState::Failed.code();
        let values = params![source.0, key, since.as_microsecond(), failed];
        Ok(self.requests(&sql, values)?.pop())
    }

    /// The open request of this kind about an execution.
    pub fn open_request_of(
        &self,
        execution: ExecutionSeq,
        action: Action,
    ) -> Result<Option<RequestRow>> {
        let sql = format!(
            "{REQUEST} WHERE execution = ?1 AND action = ?2 AND state < 2 ORDER BY id LIMIT 1"
        );
        Ok(self
            .requests(&sql, params![execution.0, action.code()])?
            .pop())
    }

    /// Requests about an execution, and the one that made it, newest first; at most 50. Without the provider's answers.
    pub fn requests_of(&self, execution: ExecutionSeq) -> Result<Vec<RequestRow>> {
        let bare = REQUEST.replace("answer_type, answer", "answer_type, NULL");
        let sql = format!(
            "{bare} WHERE id IN (SELECT id FROM control_requests WHERE execution = ?1
             UNION SELECT id FROM control_requests WHERE new_execution = ?1) ORDER BY id DESC LIMIT {REQUESTS_MAX}"
        );
        self.requests(&sql, [execution.0])
    }

    /// What an execution is a retry of, and what it was retried as.
    pub fn lineage(&self, execution: ExecutionSeq) -> Result<Lineage> {
        let uuid = |sql: &str| -> Result<Option<Uuid>> {
            let mut statement = self.connection().prepare_cached(sql)?;
            let found = statement.query_row(params![execution.0, Action::Retry.code()], |row| {
                row.get::<_, Option<[u8; 16]>>(0)
            });
            Ok(found.optional()?.flatten().map(Uuid::from_bytes))
        };
        Ok(Lineage {
            retried_from: uuid(
                "SELECT execution_uuid FROM control_requests WHERE new_execution = ?1 AND action = ?2 LIMIT 1",
            )?,
            retried_as: uuid(
                "SELECT new_uuid FROM control_requests WHERE execution = ?1 AND action = ?2
                 AND new_uuid IS NOT NULL ORDER BY id DESC LIMIT 1",
            )?,
        })
    }

    /// The execution that a submission or retry made, if weir has seen it: by the name that the provider gave it, or,
    /// where the answer was lost, by the request's UUID, which is the key that the guest was given. A guest makes the job
    /// findable in one of four ways: the key is the job's id; the id is the UUIDv5 of `ACTION:KEY` in the source's own
    /// UUID; or `weir_key` stands among the job's labels or in its
    /// `detail` (there among `labels` too).
    pub fn execution_made_by(&self, request: &RequestRow) -> Result<Option<StoredExecution>> {
        if let Some(job) = &request.new_job {
            return self.made_under(request, &job.id, job.run.as_ref());
        }
        let key = request.uuid.to_string();
        let source = self.source(request.source)?.map(|source| source.name);
        let own =
            crate::plugin::entry_uuid(self.origin(), Role::Source, &source.unwrap_or_default());
        let derived = Uuid::new_v5(&own, format!("{}:{key}", request.action).as_bytes());
        for id in [key.as_str(), &derived.to_string()] {
            if let Some(found) = self.made_under(request, id, None)? {
                return Ok(Some(found));
            }
        }
        let newest = self.executions(&ExecutionFilter {
            source: Some(request.source),
            limit: 100,
            ..ExecutionFilter::default()
        })?;
        Ok(newest
            .into_iter()
            .find(|execution| has_key(&execution.record, &key)))
    }

    /// A run of this id that was not there before the request, or is under way: a provider that knows the key answers
    /// with the job that it made for it before.
    fn made_under(
        &self,
        request: &RequestRow,
        id: &str,
        run: Option<&String>,
    ) -> Result<Option<StoredExecution>> {
        let is_it = |e: &StoredExecution| {
            e.record.seq > request.after_execution || !e.record.status.is_closed()
        };
        let key = RunKey {
            source: request.source,
            external_id: id.to_owned(),
            run: run.cloned().unwrap_or_default(),
        };
        let exact = self.execution_by_key(&key)?.filter(is_it);
        if exact.is_some() || run.is_some() {
            return Ok(exact);
        }
        // The provider told no run when it took the job, and may show one.
        let newest = self.executions(&ExecutionFilter {
            source: Some(request.source),
            external_id: Some(id.to_owned()),
            limit: 1,
            ..ExecutionFilter::default()
        })?;
        Ok(newest.into_iter().find(is_it))
    }

    fn requests(&self, sql: &str, values: impl Params) -> Result<Vec<RequestRow>> {
        let mut statement = self.connection().prepare_cached(sql)?;
        let mut rows = statement.query(values)?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push(request(row)?);
        }
        Ok(found)
    }
}

/// Whether a guest left this key with the job.
fn has_key(record: &ExecutionRecord, key: &str) -> bool {
    if record
        .labels
        .iter()
        .any(|(name, value)| name == KEY_NAME && value == key)
    {
        return true;
    }
    let detail = record.detail.as_deref().unwrap_or_default();
    // Most are large and have none.
    detail.contains(key)
        && serde_json::from_str(detail)
            .is_ok_and(|detail: Value| detail[KEY_NAME] == key || detail["labels"][KEY_NAME] == key)
}

fn request(row: &Row<'_>) -> Result<RequestRow> {
    let id: i64 = row.get(0)?;
    let meaningless = |column: &'static str, code: u8| ReadError::Meaningless {
        row: id,
        column,
        value: code.to_string(),
    };
    let (action, state): (u8, u8) = (row.get(2)?, row.get(3)?);
    let status: Option<u16> = row.get(24)?;
    let answer = match status {
        Some(status) => Some(RequestAnswer {
            status,
            content_type: row.get::<_, Option<String>>(25)?.unwrap_or_default(),
            body: row.get(26)?,
        }),
        None => None,
    };
    Ok(RequestRow {
        id,
        uuid: Uuid::from_bytes(row.get(1)?),
        action: Action::from_code(action).ok_or_else(|| meaningless("action", action))?,
        state: RequestState::from_code(state).ok_or_else(|| meaningless("state", state))?,
        source: SourceId(row.get(4)?),
        workflow: optional(row, 5)?.map(WorkflowId),
        execution: optional(row, 6)?.map(ExecutionSeq),
        execution_uuid: optional(row, 7)?.map(Uuid::from_bytes),
        job: job(row, 8)?,
        key: row.get(10)?,
        digest: row.get(11)?,
        after_execution: ExecutionSeq(row.get(12)?),
        created_at: timestamp(row.get(13)?),
        updated_at: timestamp(row.get(14)?),
        attempts: row.get(15)?,
        asked: row.get(16)?,
        asked_at: optional_timestamp(row.get(17)?),
        not_before: optional_timestamp(row.get(18)?),
        reason: row.get(19)?,
        new_job: job(row, 20)?,
        new_execution: optional(row, 22)?.map(ExecutionSeq),
        new_uuid: optional(row, 23)?.map(Uuid::from_bytes),
        answer,
    })
}

fn optional<T: FromSql>(row: &Row<'_>, column: usize) -> Result<Option<T>> {
    Ok(row.get(column)?)
}

/// Id and run, from two columns.
fn job(row: &Row<'_>, at: usize) -> Result<Option<JobRef>> {
    let (id, run): (Option<String>, Option<String>) = (row.get(at)?, row.get(at + 1)?);
    Ok(id.map(|id| JobRef { id, run }))
}
