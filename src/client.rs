//! The HTTP client of a running daemon: every text it hands out is safe for a terminal.

pub mod sse;
pub mod view;

use crate::cli::human::{one_line, scrub};
use reqwest::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::sync::Once;
use std::time::Duration;
use url::Url;

/// Larger answers are refused.
const BODY_LEN_MAX: usize = 32 << 20;
/// Pages are this long, the most that the API gives.
const PAGE: usize = 100;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// A refusal is quoted up to this length.
const QUOTE_LEN_MAX: usize = 600;
/// A provider or a receiver may take its time.
const ACT_TIMEOUT: Duration = Duration::from_secs(150);

/// Why the daemon could not be asked, or what it said instead.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error(
        "no weir daemon answers at {url} ({reason}). Start one: weir run   or point to it: --url / WEIR_URL"
    )]
    NoDaemon { url: String, reason: String },
    #[error("what answers at {url} is no weir daemon ({reason}). Point to it: --url / WEIR_URL")]
    Stranger { url: String, reason: String },
    #[error("{}{message}", if *.status == 404 { "" } else { "the daemon refused: " })]
    Refused { status: u16, message: String },
    #[error("the answer of the daemon was cut off: {0}")]
    Broken(String),
    #[error("the answer of the daemon is larger than {} MiB", BODY_LEN_MAX >> 20)]
    TooLarge,
    #[error("the HTTP client could not be set up: {0}")]
    Setup(String),
}

impl ClientError {
    pub fn is_not_found(&self) -> bool {
        matches!(self, ClientError::Refused { status: 404, .. })
    }

    /// No token, a wrong one, or control is off.
    pub fn is_not_allowed(&self) -> bool {
        matches!(
            self,
            ClientError::Refused {
                status: 401 | 403,
                ..
            }
        )
    }
}

/// What lets a client act; never shown.
#[derive(Clone)]
struct Token(String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Something to be done, for which the token is needed.
#[derive(Clone, Debug, Default)]
pub struct Act {
    pub key: Option<String>,
    pub content_type: Option<String>,
    pub body: Vec<u8>,
}

/// One daemon at one URL. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    token: Option<Token>,
}

impl Client {
    pub fn new(mut base: Url) -> Result<Client, ClientError> {
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        base.set_query(None);
        base.set_fragment(None);
        Ok(Client {
            http: http_client(&base)?,
            base,
            token: None,
        })
    }

    /// With the token that [`Client::act`] sends.
    #[must_use]
    pub fn with_token(mut self, token: String) -> Client {
        self.token = Some(Token(token));
        self
    }

    /// Whether the daemon is on this machine, as far as its address tells.
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.base)
    }

    /// As people write it: without the slash at the end.
    pub fn url(&self) -> String {
        self.base.as_str().trim_end_matches('/').to_owned()
    }

    /// The answer as it came, for programs.
    pub async fn raw(&self, path: &str, query: &[(&str, String)]) -> Result<Value, ClientError> {
        self.send(Method::GET, path, query, None).await
    }

    /// The answer as a view, safe for a terminal.
    pub async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, String)],
    ) -> Result<T, ClientError> {
        let value = self.raw(path, query).await?;
        self.view(value)
    }

    /// Up to `limit` items of a list, page by page.
    pub async fn items(
        &self,
        path: &str,
        query: &[(&str, String)],
        limit: usize,
    ) -> Result<Vec<Value>, ClientError> {
        let mut items = Vec::new();
        let mut cursor: Option<String> = None;
        while items.len() < limit {
            let mut query = query.to_vec();
            query.push(("limit", (limit - items.len()).min(PAGE).to_string()));
            query.extend(cursor.take().map(|cursor| ("cursor", cursor)));
            let mut page = self.raw(path, &query).await?;
            let Some(Value::Array(found)) = page.get_mut("items").map(Value::take) else {
                return Err(self.stranger("a list without items"));
            };
            let empty = found.is_empty();
            items.extend(found);
            cursor = page["next_cursor"].as_str().map(str::to_owned);
            if empty || cursor.is_none() {
                break;
            }
        }
        items.truncate(limit);
        Ok(items)
    }

    /// [`Client::items`] as views.
    pub async fn list<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, String)],
        limit: usize,
    ) -> Result<Vec<T>, ClientError> {
        let items = self.items(path, query, limit).await?;
        items.into_iter().map(|item| self.view(item)).collect()
    }

    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, ClientError> {
        self.send(Method::POST, path, &[], Some(body)).await
    }

    pub async fn delete(&self, path: &str) -> Result<Value, ClientError> {
        self.send(Method::DELETE, path, &[], None).await
    }

    /// Asks for something to be done, with the token. What became of it is an answer too, when it was not done.
    pub async fn act(&self, path: &str, act: Act) -> Result<Value, ClientError> {
        let mut request = self.http.post(self.join(path)?).timeout(ACT_TIMEOUT);
        if let Some(Token(token)) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(key) = act.key {
            request = request.header("idempotency-key", key);
        }
        if let Some(content_type) = act.content_type {
            request = request.header("content-type", content_type);
        }
        let response = request.body(act.body).send().await;
        let response = response.map_err(|error| self.lost(&error))?;
        let (status, body) = (response.status(), bounded_body(response).await?);
        let value: Value = serde_json::from_slice(&body)
            .map_err(|_| self.stranger(&format!("HTTP {}", status.as_u16())))?;
        match value.get("outcome") {
            _ if status.is_success() => Ok(value),
            Some(outcome) => Ok(outcome.clone()),
            None => Err(self.refused(status.as_u16(), &value)),
        }
    }

    /// Opens a stream of events after `last` (an SSE id) or after the number `since`; without `follow` it ends at the head.
    pub async fn events(
        &self,
        last: Option<&str>,
        since: Option<u64>,
        follow: bool,
    ) -> Result<sse::EventStream, ClientError> {
        let mut url = self.join("api/events")?;
        if let (None, Some(since)) = (last, since) {
            url.query_pairs_mut()
                .append_pair("since", &since.to_string());
        }
        if !follow {
            url.query_pairs_mut().append_pair("follow", "false");
        }
        let mut request = self
            .http
            .get(url)
            .header("accept", "text/event-stream")
            // The stream has no end; silence is noticed by its reader.
            .timeout(Duration::from_secs(365 * 86_400));
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.send().await.map_err(|error| self.lost(&error))?;
        if response.status() != StatusCode::OK {
            return Err(self.refusal(response).await);
        }
        Ok(sse::EventStream::new(response))
    }

    /// A scrubbed view of a value that came from this daemon.
    pub fn view<T: DeserializeOwned>(&self, mut value: Value) -> Result<T, ClientError> {
        scrub(&mut value);
        serde_json::from_value(value).map_err(|error| self.stranger(&error.to_string()))
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, String)],
        body: Option<&Value>,
    ) -> Result<Value, ClientError> {
        let mut url = self.join(path)?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut request = self.http.request(method, url);
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(|error| self.lost(&error))?;
        if !response.status().is_success() {
            return Err(self.refusal(response).await);
        }
        if response.status() == StatusCode::NO_CONTENT {
            return Ok(Value::Null);
        }
        let body = bounded_body(response).await?;
        if body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&body).map_err(|_| self.stranger("its answer is not JSON"))
    }

    fn join(&self, path: &str) -> Result<Url, ClientError> {
        self.base
            .join(path.trim_start_matches('/'))
            .map_err(|error| ClientError::Setup(error.to_string()))
    }

    fn stranger(&self, reason: &str) -> ClientError {
        ClientError::Stranger {
            url: self.url(),
            reason: one_line(reason),
        }
    }

    fn lost(&self, error: &reqwest::Error) -> ClientError {
        ClientError::NoDaemon {
            url: self.url(),
            reason: reason(error),
        }
    }

    /// What the daemon said instead of doing it; a page of HTML is not a daemon's word.
    async fn refusal(&self, response: reqwest::Response) -> ClientError {
        let status = response.status().as_u16();
        let body = bounded_body(response).await.unwrap_or_default();
        match serde_json::from_slice::<Value>(&body) {
            Ok(problem) if problem.is_object() => self.refused(status, &problem),
            _ => self.stranger(&format!("HTTP {status}")),
        }
    }

    fn refused(&self, status: u16, problem: &Value) -> ClientError {
        let text = |name: &str| problem.get(name).and_then(Value::as_str).map(one_line);
        // That there is no such thing is what the detail says, with its name.
        let named = (problem.get("type").and_then(Value::as_str))
            .is_some_and(|kind| kind.ends_with("not-found"));
        let mut message = match (text("title").filter(|_| !named), text("detail")) {
            (Some(title), Some(detail)) if title != detail => format!("{title}: {detail}"),
            (title, detail) => detail.or(title).unwrap_or_else(|| format!("HTTP {status}")),
        };
        message.truncate(message.floor_char_boundary(QUOTE_LEN_MAX));
        ClientError::Refused { status, message }
    }
}

async fn bounded_body(mut response: reqwest::Response) -> Result<Vec<u8>, ClientError> {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > BODY_LEN_MAX => {
                return Err(ClientError::TooLarge);
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(body),
            Err(error) => return Err(ClientError::Broken(reason(&error))),
        }
    }
}

fn is_loopback(base: &Url) -> bool {
    match base.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// An HTTP client for `base`; one on this machine is never asked through a proxy.
pub fn http_client(base: &Url) -> Result<reqwest::Client, ClientError> {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        // Another part of this process may have been first, with the same provider.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    let mut builder = reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(REQUEST_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("weir/", env!("CARGO_PKG_VERSION")));
    if is_loopback(base) {
        builder = builder.no_proxy();
    }
    builder
        .build()
        .map_err(|error| ClientError::Setup(reason(&error)))
}

/// The innermost cause, which is the one that people recognise.
pub fn reason(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    let text = one_line(&cause.to_string()).to_lowercase();
    match text.split_once(" (os error") {
        Some((text, _)) => text.to_owned(),
        None => text,
    }
}
