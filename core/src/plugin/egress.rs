//! The only path from a guest to a socket: checks, resolves, pins, connects and signs.
//!
//! Invariant: no other code of weir opens a connection on a guest's behalf, and `Egress::send` is this module's only
//! function that does. The guest names a destination; everything else is decided here.

mod pin;
mod rule;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::error::Error as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Response};
use tokio::time::timeout;
use url::{Host, Url};
use weir_model::observation::FailureKind;

pub use pin::{Resolve, SystemResolver};
pub use rule::{AllowRule, Grant, HttpScheme, Origin, RuleError};

use super::Failure;
use super::credential::Credential;
use super::limits::Limits;
use super::text::printable;
use pin::Clients;
use rule::{permits, reach};

const URL_BYTES_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;
const HEADER_BYTES_MAX: usize = 32 * 1024;
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
/// How much of an answer's body `fetch` quotes in a failure.
const QUOTE_BYTES_MAX: usize = 512;
/// The line to paste is logged again for one origin only after this long.
const DENIED_LOG_EVERY: Duration = Duration::from_secs(10 * 60);
const DENIED_ORIGINS_MAX: usize = 64;

/// `http.request` of the contract.
#[derive(Clone, Debug, Default)]
pub(super) struct HttpRequest {
    pub method: String,
    pub url: String,
    pub headers: Vec<(String, String)>,
    pub body: Option<Vec<u8>>,
    pub credential: Option<String>,
    pub timeout: Option<Duration>,
    /// Of the body, where the running call may send more or less than the entry's other calls.
    pub body_bytes_max: Option<u64>,
}

/// `http.response` of the contract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HttpResponse {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// Who asks, and what its operator granted.
pub(super) struct EgressGrant {
    pub plugin: String,
    pub entry: String,
    pub allow: Vec<AllowRule>,
    pub credentials: BTreeMap<String, Credential>,
    pub user_agent: String,
}

/// The way out of one plugin entry. It outlives the entry's instances and keeps its connections.
pub(super) struct Egress {
    grant: EgressGrant,
    limits: Limits,
    resolver: Arc<dyn Resolve>,
    clients: Clients,
    rate: Mutex<Rate>,
    denied: Mutex<HashMap<String, Instant>>,
    requests: AtomicU64,
}

impl Egress {
    pub(super) fn new(grant: EgressGrant, limits: &Limits, resolver: Arc<dyn Resolve>) -> Egress {
        Egress {
            clients: Clients::new(limits.http_connect),
            rate: Mutex::new(Rate::new(limits.http_requests_per_second, Instant::now())),
            limits: limits.clone(),
            grant,
            resolver,
            denied: Mutex::new(HashMap::new()),
            requests: AtomicU64::new(0),
        }
    }

    /// Requests that were sent, whatever came back.
    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// `http.fetch`: as `send`, and a status of 300 or more is a failure.
    pub(super) async fn fetch(
        &self,
        request: HttpRequest,
        call_requests: &mut u32,
    ) -> Result<HttpResponse, Failure> {
        let response = self.send(request, call_requests).await?;
        if response.status < 300 {
            Ok(response)
        } else {
            Err(status_failure(&response, jiff::Timestamp::now()))
        }
    }

    /// `http.send`. `call_requests` counts the requests of the guest's running call.
    pub(super) async fn send(
        &self,
        request: HttpRequest,
        call_requests: &mut u32,
    ) -> Result<HttpResponse, Failure> {
        if *call_requests >= self.limits.http_requests_per_call {
            return Err(protocol(format!(
                "more than {} requests in one call",
                self.limits.http_requests_per_call
            )));
        }
        *call_requests += 1;
        let total = request
            .timeout
            .unwrap_or(self.limits.http_total)
            .min(self.limits.http_total);
        timeout(total, self.send_within(request))
            .await
            .unwrap_or_else(|_| Err(transient("timeout", format!("no answer within {total:?}"))))
    }

    async fn send_within(&self, request: HttpRequest) -> Result<HttpResponse, Failure> {
        let url = parse_url(&request.url)?;
        let origin = Origin::of(&url).map_err(|error| denied(error.to_string()))?;
        let granted = self.granted(&origin)?;
        let method = parse_method(&request.method)?;
        let headers = self.headers(&request, &origin)?;
        let body = request.body.unwrap_or_default();
        let body_bytes_max = request
            .body_bytes_max
            .unwrap_or(self.limits.http_request_bytes);
        if body.len() as u64 > body_bytes_max {
            return Err(too_large(format!(
                "the request has {} bytes, {body_bytes_max} are allowed",
                body.len()
            )));
        }
        let wait = self.rate().reserve(Instant::now());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        let addresses = self.resolve(&origin, granted).await?;
        let path = url.path().to_owned();
        let client = self.clients.pinned(&origin, addresses)?;
        let mut builder = client.request(method.clone(), url).headers(headers);
        if !body.is_empty() {
            builder = builder.body(body);
        }
        self.requests.fetch_add(1, Ordering::Relaxed);
        let response = builder.send().await.map_err(connection_failure)?;
        tracing::debug!(
            plugin = self.grant.plugin, entry = self.grant.entry, %method, %origin,
            path = printable(&path, 256), status = response.status().as_u16(),
            credential = request.credential, "plugin http request"
        );
        self.read(response).await
    }

    /// The widest grant that covers `origin`, or the refusal with the line to paste.
    fn granted(&self, origin: &Origin) -> Result<Grant, Failure> {
        let rules = self.grant.allow.iter().filter(|rule| rule.matches(origin));
        match rules.map(AllowRule::grant).max() {
            Some(granted) => Ok(granted),
            None => {
                self.log_denied(&origin.to_string(), &origin.to_string());
                Err(denied(format!("{origin} is not in `allow`")))
            }
        }
    }

    /// The addresses that may be connected to, and nothing may be added to them afterwards.
    async fn resolve(&self, origin: &Origin, granted: Grant) -> Result<Vec<SocketAddr>, Failure> {
        let found = match origin.host() {
            Host::Ipv4(address) => vec![IpAddr::V4(*address)],
            Host::Ipv6(address) => vec![IpAddr::V6(*address)],
            Host::Domain(name) => timeout(RESOLVE_TIMEOUT, self.resolver.resolve(name))
                .await
                .map_err(|_| transient("dns", format!("{name}: no answer")))?
                .map_err(|error| transient("dns", format!("{name}: {error}")))?,
        };
        let canonical = found.into_iter().map(|address| address.to_canonical());
        let (mut open, mut closed) = (Vec::new(), Vec::new());
        for address in canonical {
            if permits(granted, reach(address)) {
                open.push(SocketAddr::new(address, origin.port()));
            } else {
                closed.push(address);
            }
        }
        match (open.is_empty(), closed.first()) {
            (false, _) => Ok(open),
            (true, None) => Err(transient(
                "dns",
                format!("{} has no address", origin.host()),
            )),
            (true, Some(address)) => {
                let what = format!("{origin} at {address}");
                // A private address is reached through its exact name, anything stranger only by itself.
                let private = permits(Grant::Name, reach(*address));
                let literal = SocketAddr::new(*address, origin.port());
                let scheme = if origin.scheme() == HttpScheme::Http {
                    "http"
                } else {
                    "https"
                };
                let rule = if private {
                    origin.to_string()
                } else {
                    format!("{scheme}://{literal}")
                };
                self.log_denied(&what, &rule);
                Err(denied(format!("{what}, which this entry may not reach")))
            }
        }
    }

    fn headers(&self, request: &HttpRequest, origin: &Origin) -> Result<HeaderMap, Failure> {
        let credential = match &request.credential {
            None => None,
            Some(name) => Some(self.credential(name, origin)?),
        };
        let size: usize = request.headers.iter().map(|(n, v)| n.len() + v.len()).sum();
        if request.headers.len() > HEADERS_MAX || size > HEADER_BYTES_MAX {
            return Err(too_large("the request's headers".into()));
        }
        let mut headers = HeaderMap::new();
        for (name, value) in &request.headers {
            let shown = printable(name, 64);
            let name = HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| denied(format!("`{shown}` is no header name")))?;
            let reserved = credential.is_some_and(|credential| {
                name == reqwest::header::AUTHORIZATION || name == credential.header_name()
            });
            if is_forbidden_header(&name) || reserved {
                return Err(denied(format!("a plugin may not set the header `{name}`")));
            }
            let value = HeaderValue::from_str(value)
                .map_err(|_| denied(format!("the value of header `{name}` cannot be sent")))?;
            headers.append(name, value);
        }
        if let Ok(agent) = HeaderValue::from_str(&self.grant.user_agent) {
            headers.entry(reqwest::header::USER_AGENT).or_insert(agent);
        }
        if let Some(credential) = credential {
            credential.apply(&mut headers);
        }
        Ok(headers)
    }

    fn credential(&self, name: &str, origin: &Origin) -> Result<&Credential, Failure> {
        let shown = printable(name, 64);
        let credential = self
            .grant
            .credentials
            .get(name)
            .ok_or_else(|| denied(format!("there is no credential `{shown}`")))?;
        if credential.covers(origin) {
            return Ok(credential);
        }
        let bound: Vec<String> = credential
            .origins()
            .iter()
            .map(AllowRule::to_string)
            .collect();
        Err(denied(format!(
            "credential `{shown}` is bound to {}, not to {origin}",
            bound.join(", ")
        )))
    }

    async fn read(&self, mut response: Response) -> Result<HttpResponse, Failure> {
        let max = self.limits.http_response_bytes;
        let over = || too_large(format!("the answer has more than {max} bytes"));
        if response.content_length().is_some_and(|length| length > max) {
            return Err(over());
        }
        let status = response.status().as_u16();
        let headers = response
            .headers()
            .iter()
            .filter_map(|(name, value)| {
                Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
            })
            .collect();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(connection_failure)? {
            if (body.len() + chunk.len()) as u64 > max {
                return Err(over());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(HttpResponse {
            status,
            headers,
            body,
        })
    }

    fn rate(&self) -> std::sync::MutexGuard<'_, Rate> {
        self.rate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log_denied(&self, wanted: &str, rule: &str) {
        let now = Instant::now();
        let mut denied = self.denied.lock().unwrap_or_else(PoisonError::into_inner);
        denied.retain(|_, at| now.saturating_duration_since(*at) < DENIED_LOG_EVERY);
        if denied.contains_key(wanted) || denied.len() >= DENIED_ORIGINS_MAX {
            return;
        }
        denied.insert(wanted.to_owned(), now);
        let (plugin, entry) = (&self.grant.plugin, &self.grant.entry);
        tracing::warn!(
            %plugin, %entry,
            "plugin {entry} wanted {wanted}; to allow: allow: [\"{rule}\"]"
        );
    }
}

/// Headers that frame or route the request: they are the host's alone.
pub(super) fn is_forbidden_header(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with("proxy-")
        || matches!(
            name,
            "host"
                | "connection"
                | "keep-alive"
                | "te"
                | "trailer"
                | "transfer-encoding"
                | "upgrade"
                | "content-length"
                | "expect"
                | "http2-settings"
        )
}

fn parse_url(text: &str) -> Result<Url, Failure> {
    if text.len() > URL_BYTES_MAX {
        return Err(too_large("the url".into()));
    }
    let mut url = Url::parse(text)
        .map_err(|error| denied(format!("`{}` is no url: {error}", printable(text, 200))))?;
    url.set_fragment(None);
    Ok(url)
}

fn parse_method(text: &str) -> Result<Method, Failure> {
    match text.to_ascii_uppercase().as_str() {
        "GET" => Ok(Method::GET),
        "HEAD" => Ok(Method::HEAD),
        "POST" => Ok(Method::POST),
        "PUT" => Ok(Method::PUT),
        "PATCH" => Ok(Method::PATCH),
        "DELETE" => Ok(Method::DELETE),
        "OPTIONS" => Ok(Method::OPTIONS),
        _ => Err(denied(format!("method `{}`", printable(text, 32)))),
    }
}

/// 20 a second, with a second's worth at once: more wait their turn instead of failing.
struct Rate {
    interval: Duration,
    burst: Duration,
    /// When the bucket would be full again.
    full_at: Instant,
}

impl Rate {
    fn new(per_second: u32, now: Instant) -> Rate {
        let interval = Duration::from_secs(1) / per_second.max(1);
        Rate {
            interval,
            burst: Duration::from_secs(1),
            full_at: now,
        }
    }

    /// How long to wait before the next request may go.
    fn reserve(&mut self, now: Instant) -> Duration {
        self.full_at = self.full_at.max(now) + self.interval;
        (self.full_at - now).saturating_sub(self.burst)
    }
}

fn status_failure(response: &HttpResponse, now: jiff::Timestamp) -> Failure {
    let kind = match response.status {
        408 | 425 | 429 | 500.. => FailureKind::Transient,
        401 | 403 => FailureKind::Misconfigured,
        404 | 410 => FailureKind::NotFound,
        _ => FailureKind::Permanent,
    };
    let start = &response.body[..response.body.len().min(QUOTE_BYTES_MAX)];
    let quote = printable(&String::from_utf8_lossy(start), QUOTE_BYTES_MAX);
    let retry_after = response
        .headers
        .iter()
        .find(|(name, _)| name == "retry-after")
        .and_then(|(_, value)| retry_after(value, now))
        .filter(|_| kind == FailureKind::Transient);
    Failure {
        message: format!("status {}: {quote}", response.status),
        kind: Some(kind),
        retry_after,
    }
}

/// Seconds or an HTTP date; at most a day, whatever the far side says.
fn retry_after(value: &str, now: jiff::Timestamp) -> Option<Duration> {
    let wait = match value.trim().parse::<u32>() {
        Ok(seconds) => Duration::from_secs(seconds.into()),
        Err(_) => {
            let at = jiff::fmt::rfc2822::parse(value.trim()).ok()?.timestamp();
            Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO)
        }
    };
    Some(wait.min(Duration::from_secs(24 * 60 * 60)))
}

fn connection_failure(error: reqwest::Error) -> Failure {
    let error = error.without_url();
    let mut causes = Vec::new();
    let mut source = error.source();
    let mut tls = false;
    while let Some(cause) = source {
        tls |= is_tls(cause);
        causes.push(cause.to_string());
        source = cause.source();
    }
    let word = match () {
        () if error.is_timeout() => "timeout",
        () if tls => "tls",
        () if error.is_connect() => "connect",
        () => "protocol",
    };
    causes.dedup();
    let detail = causes.last().cloned().unwrap_or_else(|| error.to_string());
    transient(word, printable(&detail, QUOTE_BYTES_MAX))
}

/// An io::Error does not name what it carries as its source, and may carry another one.
fn is_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    error.is::<rustls::Error>()
        || io
            .and_then(|io| io.get_ref())
            .is_some_and(|inner| is_tls(inner))
}

fn transient(cause: &str, detail: String) -> Failure {
    Failure::new(FailureKind::Transient, format!("{cause}: {detail}"))
}

fn protocol(detail: String) -> Failure {
    transient("protocol", detail)
}

fn denied(detail: String) -> Failure {
    Failure::new(FailureKind::Misconfigured, format!("denied: {detail}"))
}

fn too_large(detail: String) -> Failure {
    Failure::new(FailureKind::Permanent, format!("too-large: {detail}"))
}
