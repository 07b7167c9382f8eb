//! The only path from a guest to a socket: checks, resolves, pins, connects and signs.
//!
//! Invariant: no other code of weir opens a connection on a guest's behalf. `Egress::send`, `connect` and `open_events`
//! all go through `prepare` (the check) and `resolve` (the pin). The guest names a destination; everything else is
//! decided here.

mod answer;
mod connect;
mod keepalive;
mod pin;
mod request;
mod rule;
mod template;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::{Method, Response, StatusCode};
use tokio::time::timeout;
use url::Host;
use weir_model::observation::FailureKind;

pub use connect::{EventBody, Socket, StreamConnection, StreamRequest};
pub use pin::{Resolve, SystemResolver};
pub(super) use request::is_forbidden_header;
pub use rule::{AllowRule, Grant, HttpScheme, Origin, RuleError};
pub(super) use template::defused;

use super::Failure;
use super::credential::{Credential, Redactor, Token, TokenAnswer, TokenRequest, header_value};
use super::limits::Limits;
use super::tape::{Tape, TapedRequest};
use super::text::printable;
use pin::Clients;
use request::{Ready, Wanted, parse_method};
use rule::{permits, reach};

/// An answer with a token has a few KiB.
const TOKEN_ANSWER_BYTES_MAX: u64 = 256 * 1024;
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
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
    /// The body is, or holds, what somebody else submitted: it asks for no secret.
    pub body_is_foreign: bool,
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
    /// Knows the credentials; shared with the entry's log.
    pub redactor: Redactor,
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
    /// Between the guest and everything here, for the author's tools.
    tape: Option<(Arc<Tape>, Redactor)>,
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
            tape: None,
        }
    }

    /// What the guest asks is recorded on the tape, or answered from it.
    pub(super) fn taped(mut self, tape: Arc<Tape>, redactor: Redactor) -> Egress {
        self.tape = Some((tape, redactor));
        self
    }

    /// The time that a taped guest is told.
    pub(super) fn tape_now_ms(&self) -> Option<u64> {
        self.tape.as_ref().and_then(|(tape, _)| tape.now_ms())
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
            return Ok(response);
        }
        let redact = |text: &str| self.grant.redactor.redact(text);
        Err(answer::status_failure(
            &response,
            jiff::Timestamp::now(),
            redact,
        ))
    }

    /// `http.send`. `call_requests` counts the requests of the guest's running call.
    pub(super) async fn send(
        &self,
        request: HttpRequest,
        call_requests: &mut u32,
    ) -> Result<HttpResponse, Failure> {
        let Some((tape, redactor)) = &self.tape else {
            return self.send_live(request, call_requests).await;
        };
        if let Some(answer) = tape.play(&request) {
            *call_requests += 1;
            return answer;
        }
        let redact = |text: &str| redactor.redact(text);
        let taped = TapedRequest::of(&request, &redact);
        let result = self.send_live(request, call_requests).await;
        tape.record(taped, &result, &redact);
        result
    }

    async fn send_live(
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
            .map_err(|failure| self.redacted(failure))
    }

    async fn send_within(&self, request: HttpRequest) -> Result<HttpResponse, Failure> {
        let method = parse_method(&request.method)?;
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
        let mut ready = self.prepare(Wanted {
            url: &request.url,
            headers: &request.headers,
            credential: request.credential.as_deref(),
            body,
            body_is_foreign: request.body_is_foreign,
        })?;
        let wait = self.rate().reserve(Instant::now());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        let token = self.authorize(&mut ready, None).await?;
        let mut response = self.exchange(&method, &ready).await?;
        if response.status() == StatusCode::UNAUTHORIZED
            && let Some(refused) = token
        {
            // Once, with a new token: what was refused was not done.
            self.authorize(&mut ready, Some(&refused)).await?;
            response = self.exchange(&method, &ready).await?;
        }
        let mut answer = answer::read(response, self.limits.http_response_bytes).await?;
        let redactor = &self.grant.redactor;
        redactor.clean_answer(&mut answer.body);
        for (_, value) in &mut answer.headers {
            redactor.clean_header(value);
        }
        Ok(answer)
    }

    /// Adds an access token where the credential needs one; `refused`: the one that was answered with 401.
    async fn authorize(
        &self,
        ready: &mut Ready<'_>,
        refused: Option<&Token>,
    ) -> Result<Option<Arc<Token>>, Failure> {
        let named = ready.credential;
        let google = named.and_then(|(name, credential)| Some((name, credential.google()?)));
        let Some((name, google)) = google else {
            return Ok(None);
        };
        let redactor = &self.grant.redactor;
        let token = google.token(name, self, redactor, refused).await?;
        google.apply(&token, &mut ready.headers);
        Ok(Some(token))
    }

    /// A request to a token endpoint: the operator's, through the same resolving and pinning, not in the guest's count.
    pub(super) async fn fetch_token(&self, request: &TokenRequest) -> Result<TokenAnswer, Failure> {
        let asking = self.fetch_token_within(request);
        let answer = timeout(request.timeout, asking).await;
        answer.unwrap_or_else(|_| {
            let shown = request.url.origin().ascii_serialization();
            Err(transient("timeout", format!("{shown} does not answer")))
        })
    }

    async fn fetch_token_within(&self, request: &TokenRequest) -> Result<TokenAnswer, Failure> {
        let origin = Origin::of(&request.url).map_err(|error| denied(error.to_string()))?;
        let granted = match request.is_metadata {
            true => Grant::Literal,
            false => AllowRule::exactly(origin.clone()).grant(),
        };
        let addresses = self.resolve(&origin, granted).await?;
        let client = self.clients.pinned(&origin, addresses)?;
        let mut builder = client.request(request.method.clone(), request.url.clone());
        for (name, value) in &request.headers {
            let value = header_value(value).map_err(|error| denied(error.to_string()))?;
            builder = builder.header(*name, value);
        }
        let sent = builder.body(request.body.clone()).send().await;
        let response = sent.map_err(answer::connection_failure)?;
        let (plugin, entry) = (&self.grant.plugin, &self.grant.entry);
        let status = response.status().as_u16();
        tracing::debug!(%plugin, %entry, %origin, status, "token request");
        let flavor = response.headers().get("metadata-flavor");
        let flavor = flavor.and_then(|flavor| Some(flavor.to_str().ok()?.to_owned()));
        let answer = answer::read(response, TOKEN_ANSWER_BYTES_MAX).await?;
        Ok(TokenAnswer {
            status,
            flavor,
            body: answer.body,
        })
    }

    /// Resolves, pins and sends what passed the check.
    async fn exchange(&self, method: &Method, ready: &Ready<'_>) -> Result<Response, Failure> {
        let addresses = self.resolve(&ready.origin, ready.granted).await?;
        let client = self.clients.pinned(&ready.origin, addresses)?;
        let mut builder = client
            .request(method.clone(), ready.url.clone())
            .headers(ready.headers.clone());
        if !ready.body.is_empty() {
            builder = builder.body(ready.body.clone());
        }
        self.requests.fetch_add(1, Ordering::Relaxed);
        let sent = builder.send().await;
        let failed = |error| answer::at(&ready.origin, answer::connection_failure(error));
        let response = sent.map_err(failed)?;
        tracing::debug!(
            plugin = self.grant.plugin, entry = self.grant.entry, %method, origin = %ready.origin,
            path = printable(&ready.shown, 256), status = response.status().as_u16(),
            credential = ready.credential.map(|(name, _)| name), "plugin http request"
        );
        Ok(response)
    }

    /// Redacted where it is made: it goes to the guest, and from there anywhere.
    fn redacted(&self, mut failure: Failure) -> Failure {
        self.grant.redactor.clean(&mut failure.message);
        failure
    }

    /// The widest grant that covers `origin`, or the refusal with the line to paste. `also`: what a credential grants.
    fn granted_with(&self, origin: &Origin, also: &[AllowRule]) -> Result<Grant, Failure> {
        let rules = self.grant.allow.iter().chain(also);
        let rules = rules.filter(|rule| rule.matches(origin));
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

pub(super) fn transient(cause: &str, detail: String) -> Failure {
    Failure::new(FailureKind::Transient, format!("{cause}: {detail}"))
}

fn tls_failure(error: rustls::Error) -> Failure {
    transient("tls", error.to_string())
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
