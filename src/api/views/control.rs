//! Control requests as clients see them.

use super::Time;
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;
use weir_core::journal::{Lineage, RequestRow};
use weir_core::model::control::Submission;
use weir_core::model::observation::JobRef;
use weir_core::model::request::{Action, RequestState};

#[derive(Debug, Serialize)]
pub struct RequestView {
    pub id: Uuid,
    pub action: &'static str,
    /// requested, asked, done, refused, failed, unverifiable.
    pub state: &'static str,
    /// Nothing more becomes of it.
    pub settled: bool,
    pub source: String,
    /// What is cancelled or retried.
    pub execution: Option<Uuid>,
    pub job: Option<JobView>,
    /// What a retry or submission made, once it is seen.
    pub new_execution: Option<Uuid>,
    pub new_job: Option<JobView>,
    pub key: Option<String>,
    pub reason: Option<String>,
    pub attempts: u32,
    pub asked: u32,
    pub created_at: Time,
    pub asked_at: Option<Time>,
    pub next_attempt_at: Option<Time>,
    pub updated_at: Time,
    /// HTTP status of the provider's answer.
    pub answer_status: Option<u16>,
}

#[derive(Debug, Serialize)]
pub struct JobView {
    pub id: String,
    pub run: Option<String>,
}

impl JobView {
    fn new(job: &JobRef) -> JobView {
        JobView {
            id: job.id.clone(),
            run: job.run.clone(),
        }
    }
}

impl RequestView {
    pub fn new(row: &RequestRow, source: &str) -> RequestView {
        RequestView {
            id: row.uuid,
            action: row.action.as_str(),
            state: row.state.as_str(),
            settled: row.state.is_settled(),
            source: source.to_owned(),
            execution: row.execution_uuid,
            job: row.job.as_ref().map(JobView::new),
            new_execution: row.new_uuid,
            new_job: row.new_job.as_ref().map(JobView::new),
            key: row.key.clone(),
            reason: row.reason.clone(),
            attempts: row.attempts,
            asked: row.asked,
            created_at: row.created_at.into(),
            asked_at: row.asked_at.map(Time),
            next_attempt_at: row.not_before.map(Time),
            updated_at: row.updated_at.into(),
            answer_status: row.answer.as_ref().map(|answer| answer.status),
        }
    }
}

/// What control adds to an execution: a status is never among it.
#[derive(Debug, Serialize)]
pub struct ControlView {
    pub retried_from: Option<Uuid>,
    pub retried_as: Option<Uuid>,
    /// Somebody asked for it to be cancelled, and that was neither refused nor given up.
    pub cancel_requested_at: Option<Time>,
    /// Newest first.
    pub control: Vec<RequestView>,
}

impl ControlView {
    pub fn new(lineage: Lineage, requests: &[RequestRow], source: &str) -> ControlView {
        let stands = |row: &&RequestRow| {
            let vain = matches!(row.state, RequestState::Refused | RequestState::Failed);
            row.action == Action::Cancel && !vain
        };
        ControlView {
            retried_from: lineage.retried_from,
            retried_as: lineage.retried_as,
            cancel_requested_at: requests
                .iter()
                .find(stands)
                .map(|row| row.created_at.into()),
            control: requests
                .iter()
                .map(|row| RequestView::new(row, source))
                .collect(),
        }
    }
}

/// A request with the provider's answer: JSON as it is, other text as text, the rest left out.
pub fn outcome(row: &RequestRow, source: &str, answer: Option<&Submission>) -> Value {
    let answer = answer.map(|answer| {
        let text = std::str::from_utf8(&answer.body).ok();
        let body = text.map(|text| {
            serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
        });
        json!({ "status": answer.status, "content_type": answer.content_type, "body": body })
    });
    json!({ "request": RequestView::new(row, source), "answer": answer })
}
