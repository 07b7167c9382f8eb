//! What a client is told when something is wrong: RFC 9457 problem documents, and the only place that picks HTTP statuses.

use actix_web::body::BoxBody;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, ResponseError};
use serde::Serialize;
use serde_json::Value;
use std::borrow::Cow;
use std::fmt;
use std::time::Duration;
use weir_core::journal::ReadError;
use weir_core::monitor::{ActError, LogsError, RequestError};
use weir_core::plugin::CallError;
use weir_model::observation::FailureKind;

/// Longest text of a client that is repeated to it.
const ECHO_LEN_MAX: usize = 80;

/// One problem, ready to be answered.
#[derive(Clone, Debug)]
pub struct Problem {
    status: StatusCode,
    /// The last part of `type`: what a program may match on.
    kind: &'static str,
    title: &'static str,
    detail: Cow<'static, str>,
    field: Option<Box<str>>,
    retry_after: Option<Duration>,
    allow: Option<&'static str>,
    challenge: bool,
    /// What became of a control request, and the provider's answer to it.
    outcome: Option<Box<Value>>,
}

#[derive(Serialize)]
struct Document<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    field: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'a Value>,
}

impl Problem {
    fn new(
        status: StatusCode,
        kind: &'static str,
        title: &'static str,
        detail: impl Into<Cow<'static, str>>,
    ) -> Problem {
        Problem {
            status,
            kind,
            title,
            detail: detail.into(),
            field: None,
            retry_after: None,
            allow: None,
            challenge: false,
            outcome: None,
        }
    }

    /// The parameter or field of the body it is about.
    pub fn field(mut self, field: impl Into<String>) -> Problem {
        self.field = Some(field.into().into_boxed_str());
        self
    }

    pub fn bad_request(detail: impl Into<Cow<'static, str>>) -> Problem {
        Problem::new(
            StatusCode::BAD_REQUEST,
            "bad-request",
            "The request cannot be understood",
            detail,
        )
    }

    pub fn bad_parameter(name: &str, detail: impl fmt::Display) -> Problem {
        let detail = format!("parameter `{}`: {detail}", echo(name));
        Problem::new(
            StatusCode::BAD_REQUEST,
            "bad-parameter",
            "A parameter is wrong",
            detail,
        )
        .field(echo(name))
    }

    pub fn bad_field(name: &'static str, detail: impl fmt::Display) -> Problem {
        let detail = format!("field `{name}`: {detail}");
        Problem::new(
            StatusCode::BAD_REQUEST,
            "bad-field",
            "A field of the body is wrong",
            detail,
        )
        .field(name)
    }

    pub fn not_found(detail: impl Into<Cow<'static, str>>) -> Problem {
        Problem::new(
            StatusCode::NOT_FOUND,
            "not-found",
            "There is no such thing",
            detail,
        )
    }

    pub fn unreadable_address() -> Problem {
        Problem::not_found("there is nothing there: the address is not UTF-8")
    }

    pub fn method_not_allowed(allow: &'static str) -> Problem {
        let detail = format!("this address takes {allow}");
        let mut problem = Problem::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method-not-allowed",
            "This method is not offered here",
            detail,
        );
        problem.allow = Some(allow);
        problem
    }

    pub fn unsupported_media_type() -> Problem {
        let detail = "send the body as `content-type: application/json`";
        Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported-media-type",
            "The body is not JSON",
            detail,
        )
    }

    pub fn body_too_large(limit: usize) -> Problem {
        let detail = format!("a body may have {limit} bytes");
        Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body-too-large",
            "The body is too large",
            detail,
        )
    }

    pub fn body_too_slow() -> Problem {
        let detail = "the body did not arrive in time";
        Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "body-too-slow",
            "The request took too long",
            detail,
        )
    }

    pub fn headers_too_large(limit: usize) -> Problem {
        let detail = format!("the headers may have {limit} bytes together");
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        Problem::new(
            status,
            "headers-too-large",
            "The headers are too large",
            detail,
        )
    }

    pub fn uri_too_long(limit: usize) -> Problem {
        let detail = format!("an address may have {limit} bytes");
        Problem::new(
            StatusCode::URI_TOO_LONG,
            "uri-too-long",
            "The address is too long",
            detail,
        )
    }

    /// 421: the request was meant for somebody else.
    pub fn foreign_host(host: &str) -> Problem {
        let detail = format!(
            "weir does not answer for the host `{host}` (it may be a DNS rebinding attack); \
             if you meant this, add it to `http.allowed_hosts` or set `http.public_url` in monitor.ron",
            host = echo(host)
        );
        Problem::new(
            StatusCode::MISDIRECTED_REQUEST,
            "foreign-host",
            "This host is not served here",
            detail,
        )
        .field("http.allowed_hosts")
    }

    /// 403: a page of somebody else asks.
    pub fn foreign_origin(origin: &str) -> Problem {
        let detail = format!(
            "weir does not answer pages of `{origin}`; \
             if you meant this, add its host to `http.allowed_hosts` or set `http.public_url` in monitor.ron",
            origin = echo(origin)
        );
        Problem::new(
            StatusCode::FORBIDDEN,
            "foreign-origin",
            "This origin may not ask",
            detail,
        )
        .field("http.allowed_hosts")
    }

    /// 401: who reports shows the token of that source. Which sources there are is told to nobody else.
    pub fn no_companion() -> Problem {
        let detail = "a report needs the token of its source: what `companion_token` of the source names, sent as \
                      `authorization: Bearer TOKEN`";
        Problem::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "A token is needed",
            detail,
        )
    }

    pub fn unavailable(detail: impl Into<Cow<'static, str>>) -> Problem {
        let mut problem = Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable",
            "weir cannot answer this now",
            detail,
        );
        problem.retry_after = Some(Duration::from_secs(2));
        problem
    }

    pub fn too_many_streams(limit: usize) -> Problem {
        let detail = format!("{limit} clients follow events already");
        let mut problem = Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "too-many-streams",
            "Too many clients follow events",
            detail,
        );
        problem.retry_after = Some(Duration::from_secs(10));
        problem
    }

    /// 502: what is behind weir did not do it.
    pub fn bad_gateway(detail: impl Into<Cow<'static, str>>) -> Problem {
        Problem::new(
            StatusCode::BAD_GATEWAY,
            "provider-failed",
            "The provider or its plugin did not answer as it should",
            detail,
        )
    }

    /// Why the logs of a job of `source` cannot be shown.
    pub fn logs(source: &str, error: &LogsError) -> Problem {
        let detail = format!("source {}: {}", echo(source), error);
        match error {
            LogsError::NoLogs | LogsError::NotWatched => Problem::new(
                StatusCode::NOT_FOUND,
                "no-logs",
                "This source has no logs",
                detail,
            ),
            LogsError::Call(CallError::Failed { kind, .. }) => match kind {
                Some(FailureKind::NotFound) => Problem::not_found(detail),
                Some(FailureKind::Unsupported) => Problem::new(
                    StatusCode::NOT_FOUND,
                    "no-logs",
                    "This source has no logs",
                    detail,
                ),
                _ => Problem::bad_gateway(detail),
            },
            LogsError::Call(CallError::Crashed { .. }) => Problem::bad_gateway(detail),
            LogsError::Call(_) => Problem::unavailable(detail),
        }
    }

    pub fn internal() -> Problem {
        let detail = "weir's log tells more";
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "Something went wrong inside weir",
            detail,
        )
    }

    /// 401: who asks is not known. `wrong`: a token was sent, and it is not ours.
    pub fn unauthorized(wrong: bool) -> Problem {
        let found = if wrong {
            "the token that was sent is not weir's"
        } else {
            "what reaches a provider or a receiver, or changes a plugin, needs weir's token, and none was sent"
        };
        let detail = format!(
            "{found}; send `authorization: Bearer TOKEN` with what is in the file `cli.token` of weir's data directory \
             (`weir status` names it). The command line reads it there by itself; elsewhere give it a copy: \
             --token-file FILE or WEIR_TOKEN_FILE"
        );
        let status = StatusCode::UNAUTHORIZED;
        let mut problem = Problem::new(status, "unauthorized", "A token is needed", detail);
        problem.challenge = true;
        problem
    }

    /// 403: the operator has not allowed it.
    pub fn control_off(source: &str) -> Problem {
        let detail = format!(
            "weir may only watch `{source}`; to let it submit, cancel and retry there, set `control: true` for this \
             source in monitor.ron and reload",
            source = echo(source)
        );
        let status = StatusCode::FORBIDDEN;
        Problem::new(
            status,
            "control-off",
            "Control is off for this source",
            detail,
        )
        .field("control")
    }

    pub fn conflict(detail: impl Into<Cow<'static, str>>) -> Problem {
        let title = "This cannot be asked now";
        Problem::new(StatusCode::CONFLICT, "conflict", title, detail)
    }

    /// 422: a key stands for one thing only.
    pub fn key_reused() -> Problem {
        let detail = "this key was used for something else in the last 24 hours; use a new one";
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        Problem::new(status, "key-reused", "The idempotency key is taken", detail)
            .field("idempotency-key")
    }

    /// 422: the plugin or the provider said no.
    pub fn refused(detail: impl Into<Cow<'static, str>>) -> Problem {
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        Problem::new(status, "refused", "The provider refused", detail)
    }

    /// 502: nothing has happened at the provider.
    pub fn not_asked(reason: &str) -> Problem {
        let detail = format!("nothing was submitted: {reason}");
        let status = StatusCode::BAD_GATEWAY;
        Problem::new(
            status,
            "not-asked",
            "The provider could not be asked",
            detail,
        )
    }

    /// 504: it may have happened.
    pub fn answer_lost(detail: impl Into<Cow<'static, str>>) -> Problem {
        let status = StatusCode::GATEWAY_TIMEOUT;
        Problem::new(
            status,
            "answer-lost",
            "The provider's answer was lost",
            detail,
        )
    }

    /// What became of a control request, beside the problem.
    pub fn outcome(mut self, outcome: Value) -> Problem {
        self.outcome = Some(Box::new(outcome));
        self
    }

    pub fn status(&self) -> StatusCode {
        self.status
    }

    pub fn title(&self) -> &str {
        self.title
    }

    pub fn detail(&self) -> &str {
        &self.detail
    }

    pub fn response(&self) -> HttpResponse {
        let mut builder = HttpResponse::build(self.status);
        builder.insert_header((
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        ));
        if let Some(wait) = self.retry_after {
            builder.insert_header((header::RETRY_AFTER, wait.as_secs()));
        }
        if self.challenge {
            let scheme = HeaderValue::from_static("Bearer realm=\"weir\"");
            builder.insert_header((header::WWW_AUTHENTICATE, scheme));
        }
        if let Some(allow) = self.allow {
            builder.insert_header((header::ALLOW, HeaderValue::from_static(allow)));
        }
        let document = Document {
            r#type: format!("urn:weir:{}", self.kind),
            title: self.title,
            status: self.status.as_u16(),
            detail: &self.detail,
            field: self.field.as_deref(),
            outcome: self.outcome.as_deref(),
        };
        builder.body(serde_json::to_string(&document).unwrap_or_default())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for Problem {}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse<BoxBody> {
        self.response()
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Problem {
        tracing::error!(%error, "the journal cannot be read");
        Problem::unavailable("the journal cannot be read now")
    }
}

impl From<ActError> for Problem {
    fn from(error: ActError) -> Problem {
        match &error {
            ActError::NotFound(_) => Problem::not_found(error.to_string()),
            ActError::Invalid(_) => Problem::bad_request(error.to_string()),
            ActError::NotRecorded(_) => Problem::unavailable(error.to_string()),
        }
    }
}

impl From<RequestError> for Problem {
    fn from(error: RequestError) -> Problem {
        match &error {
            RequestError::NotFound(_) => Problem::not_found(error.to_string()),
            RequestError::Off(source) => Problem::control_off(source),
            RequestError::Invalid(_) => {
                Problem::bad_request(error.to_string()).field("idempotency-key")
            }
            RequestError::Conflict(_) => Problem::conflict(error.to_string()),
            RequestError::KeyReused => Problem::key_reused(),
            RequestError::Busy | RequestError::NotRecorded(_) => {
                Problem::unavailable(error.to_string())
            }
        }
    }
}

/// Text of a client that is safe to repeat: short, one line, printable.
pub(super) fn echo(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .take(ECHO_LEN_MAX)
        .collect();
    if shown.len() < text.len() && text.chars().nth(ECHO_LEN_MAX).is_some() {
        shown.push('…');
    }
    shown
}

/// What every address answers that is in no route.
pub async fn unknown_address(request: HttpRequest) -> HttpResponse {
    let path = echo(request.path());
    let near = super::paths()
        .filter(|known| !known.contains('{'))
        .map(|known| (strsim::jaro_winkler(&path, known), known))
        .filter(|(score, _)| *score > 0.85)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    let detail = match near {
        Some((_, known)) => format!("there is nothing at `{path}`; did you mean `{known}`?"),
        None => format!("there is nothing at `{path}`"),
    };
    Problem::not_found(detail).response()
}
