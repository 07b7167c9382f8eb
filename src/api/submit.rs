//! `/api/sources/{name}/prompt` and `/submit`: new jobs for a provider, with its own answer passed through.

use super::control::source_name;
use super::errors::Problem;
use super::params::Params;
use super::views::outcome;
use super::{ApiState, auth};
use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION};
use actix_web::web::{BytesMut, Data, Path, Payload};
use actix_web::{HttpRequest, HttpResponse};
use futures::StreamExt as _;
use std::time::Duration;
use uuid::Uuid;
use weir_core::control::Begun;
use weir_core::journal::RequestRow;
use weir_core::model::control::Submission;
use weir_core::model::request::RequestState;
use weir_core::monitor::Submit;

/// Submissions at one time: each may hold a body of [`BODY_LEN_MAX`].
pub(super) const SUBMISSIONS_MAX: usize = 8;
/// Bytes of a job: real graphs are megabytes.
const BODY_LEN_MAX: usize = 16 << 20;
/// Time for a body to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the new execution is waited for before the answer goes out without it.
const EXECUTION_PATIENCE: Duration = Duration::from_secs(3);
/// How long a lost answer is looked for.
const LOOK_PATIENCE: Duration = Duration::from_secs(20);
const MEDIA_TYPE_LEN_MAX: usize = 200;

/// Tells a provider's own answer from weir's: where the request is shown.
const REQUEST: HeaderName = HeaderName::from_static("weir-request");
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// As the provider's own address for jobs: status, type and body of the answer are the provider's, unchanged.
pub(super) async fn prompt(
    request: HttpRequest,
    state: Data<ApiState>,
    name: Path<String>,
    payload: Payload,
) -> Result<HttpResponse, Problem> {
    let begun = handed_over(&request, &state, &name, payload).await?;
    match begun.answer {
        Some(answer) => Ok(passed_through(&begun.row, answer)),
        None => concluded(&state, begun).await,
    }
}

/// The same with an answer of weir's around it: the request, the new execution, and what the provider said.
pub(super) async fn submit(
    request: HttpRequest,
    state: Data<ApiState>,
    name: Path<String>,
    payload: Payload,
) -> Result<HttpResponse, Problem> {
    let begun = handed_over(&request, &state, &name, payload).await?;
    concluded(&state, begun).await
}

async fn handed_over(
    request: &HttpRequest,
    state: &Data<ApiState>,
    name: &str,
    payload: Payload,
) -> Result<Begun, Problem> {
    // Nothing is read from who may not act.
    auth::require(request, state)?;
    Params::of(request, &[])?;
    state.monitor.controllable(name)?;
    let key = key_of(request)?;
    let content_type = media_type(request)?;
    let _permit = state
        .submissions
        .clone()
        .try_acquire_owned()
        .map_err(|_| Problem::unavailable("too much is submitted at once"))?;
    let body = body(payload).await?;
    let submit = Submit {
        source: name.to_owned(),
        key,
        content_type,
        body,
    };
    Ok(state.monitor.submit(submit).await?)
}

pub(super) fn key_of(request: &HttpRequest) -> Result<Option<String>, Problem> {
    let mut keys = request.headers().get_all(IDEMPOTENCY_KEY);
    let Some(key) = keys.next() else {
        return Ok(None);
    };
    let unreadable = || Problem::bad_request("one `idempotency-key` of printable ASCII is wanted");
    let text = key.to_str().map_err(|_| unreadable())?;
    if keys.next().is_some() {
        return Err(unreadable());
    }
    Ok(Some(text.to_owned()))
}

fn media_type(request: &HttpRequest) -> Result<String, Problem> {
    let headers = request.headers();
    if headers.contains_key(CONTENT_ENCODING) {
        let detail = "the body is passed on as it is: send it without a content-encoding";
        return Err(Problem::bad_request(detail));
    }
    let given = headers.get(CONTENT_TYPE).map(HeaderValue::to_str);
    match given {
        None => Ok("application/json".to_owned()),
        Some(Ok(text)) if text.len() <= MEDIA_TYPE_LEN_MAX => Ok(text.to_owned()),
        Some(_) => Err(Problem::bad_request(
            "the content-type cannot be understood",
        )),
    }
}

async fn body(mut payload: Payload) -> Result<Vec<u8>, Problem> {
    let mut bytes = BytesMut::new();
    let read = async {
        while let Some(chunk) = payload.next().await {
            let chunk = chunk.map_err(|_| Problem::bad_request("the body could not be read"))?;
            if bytes.len() + chunk.len() > BODY_LEN_MAX {
                return Err(Problem::body_too_large(BODY_LEN_MAX));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(())
    };
    tokio::time::timeout(BODY_TIMEOUT, read)
        .await
        .map_err(|_| Problem::body_too_slow())??;
    Ok(bytes.into())
}

fn passed_through(row: &RequestRow, answer: Submission) -> HttpResponse {
    let status = StatusCode::from_u16(answer.status)
        .ok()
        .filter(|status| !status.is_informational());
    let mut response = HttpResponse::build(status.unwrap_or(StatusCode::BAD_GATEWAY));
    if let Ok(kind) = HeaderValue::from_str(&answer.content_type) {
        response.insert_header((CONTENT_TYPE, kind));
    }
    response.insert_header((REQUEST, row.uuid.to_string()));
    response.body(answer.body)
}

/// The end of a submission or retry, as weir tells it.
pub(super) async fn concluded(
    state: &Data<ApiState>,
    begun: Begun,
) -> Result<HttpResponse, Problem> {
    let Begun { row, answer } = begun;
    let (patience, id): (Duration, Uuid) = match &row.new_job {
        Some(_) => (EXECUTION_PATIENCE, row.uuid),
        None => (LOOK_PATIENCE, row.uuid),
    };
    let row = if row.state.is_settled() {
        row
    } else {
        let settled = |row: &RequestRow| row.state.is_settled();
        state
            .monitor
            .wait_for_request(id, patience, settled)
            .await?
    };
    let source = source_name(state, row.source).await?;
    let told = outcome(&row, &source, answer.as_ref());
    let reason = row.reason.clone().unwrap_or_default();
    let problem = match row.state {
        RequestState::Done => return Ok(made(StatusCode::CREATED, &row, &told)),
        RequestState::Asked if row.new_job.is_some() => {
            return Ok(made(StatusCode::CREATED, &row, &told));
        }
        // Still looked for.
        RequestState::Requested | RequestState::Asked => {
            return Ok(made(StatusCode::ACCEPTED, &row, &told));
        }
        RequestState::Refused => Problem::refused(reason),
        RequestState::Failed => Problem::not_asked(&reason),
        RequestState::Unverifiable => Problem::answer_lost(reason),
    };
    Err(problem.outcome(told))
}

fn made(status: StatusCode, row: &RequestRow, told: &serde_json::Value) -> HttpResponse {
    let mut response = HttpResponse::build(status);
    response.insert_header((REQUEST, row.uuid.to_string()));
    if let Some(execution) = row.new_uuid {
        response.insert_header((LOCATION, format!("/api/executions/{execution}")));
    }
    response.json(told)
}
