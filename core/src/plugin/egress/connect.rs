//! Connections that outlive a call: websockets and event streams that the host owns, through the same check as any request.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{ACCEPT, CACHE_CONTROL, HeaderMap, HeaderValue};
use reqwest::{Method, Response};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use url::{Host, Url};

use super::keepalive::KeepAlive;
use super::request::{Ready, Wanted};
use super::rule::{HttpScheme, Origin};
use super::{Egress, Failure, answer, denied, tls_failure, transient};
use crate::plugin::text::printable;
use crate::tls;

/// Where a guest wants the host to listen (an `endpoint` of the contract).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamRequest {
    /// Of the scheme `ws`, `wss`, `http` or `https`: an `http://` rule covers `ws://` too, `https://` covers `wss://`.
    /// With a credential of the kind Url: `credential:/suffix`.
    pub url: String,
    pub headers: Vec<(String, String)>,
    pub credential: Option<String>,
    /// After this much silence the kernel asks whether the far side is still there, and after as much again the
    /// connection breaks. At least a second.
    pub silence: Duration,
}

/// Bytes to and from a far side, TLS already spoken where it is.
pub trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// An open connection to an address that was checked, ready for a websocket's handshake.
///
/// Not `Debug`: `url` and `headers` may hold secrets. They belong into the handshake and nowhere else.
pub struct StreamConnection {
    /// `ws://` or `wss://`.
    pub url: Url,
    /// The guest's own, the user agent and what the credential adds; none of the handshake's.
    pub headers: HeaderMap,
    pub socket: Box<dyn Socket>,
}

/// The answer to a `GET` for server-sent events. The body has no end and no limit: whoever reads it sets them.
pub struct EventBody {
    response: Response,
}

impl EventBody {
    pub fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    /// A header that is text; `name` in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// The next bytes; None at the end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Failure> {
        let chunk = self.response.chunk().await;
        chunk.map_err(answer::connection_failure)
    }
}

impl Egress {
    /// Checks, resolves, connects to a checked address and speaks TLS where the scheme says so. The websocket's handshake
    /// is the caller's, over `socket`, with `url` and `headers`; a redirect in its answer must not be followed.
    ///
    /// Errors begin with their cause as those of `http.send` do: `denied` = misconfigured; `dns`, `connect`, `tls`,
    /// `timeout` = transient.
    pub(in crate::plugin) async fn connect(
        &self,
        request: StreamRequest,
    ) -> Result<StreamConnection, Failure> {
        let opening = self.connect_within(&request);
        let connected = timeout(self.limits.http_total, opening).await;
        connected
            .unwrap_or_else(|_| Err(transient("timeout", "no connection".into())))
            .map_err(|failure| self.redacted(failure))
    }

    async fn connect_within(&self, request: &StreamRequest) -> Result<StreamConnection, Failure> {
        let mut ready = self.prepare_stream(request)?;
        self.authorize(&mut ready, None).await?;
        let addresses = self.resolve(&ready.origin, ready.granted).await?;
        self.requests.fetch_add(1, Ordering::Relaxed);
        let tcp = self.dial(&addresses, request.silence).await?;
        let (scheme, socket): (_, Box<dyn Socket>) = match ready.origin.scheme() {
            HttpScheme::Http => ("ws", Box::new(tcp)),
            HttpScheme::Https => ("wss", Box::new(speak_tls(tcp, &ready.origin).await?)),
        };
        self.log_stream("websocket", request, &ready);
        let mut url = ready.url;
        // Both are special schemes, between which this always works.
        if url.set_scheme(scheme).is_err() {
            return Err(denied(format!("the url cannot be of the scheme {scheme}")));
        }
        Ok(StreamConnection {
            url,
            headers: ready.headers,
            socket,
        })
    }

    /// Opens an event stream: a `GET` that is answered bit by bit. Its connection is shared with no other request, so it
    /// may be read on any thread. Any status is Ok. Errors as those of `connect`.
    pub(in crate::plugin) async fn open_events(
        &self,
        request: StreamRequest,
    ) -> Result<EventBody, Failure> {
        let opening = self.open_within(&request);
        let opened = timeout(self.limits.http_total, opening).await;
        opened
            .unwrap_or_else(|_| Err(transient("timeout", "no answer".into())))
            .map_err(|failure| self.redacted(failure))
    }

    async fn open_within(&self, request: &StreamRequest) -> Result<EventBody, Failure> {
        let mut ready = self.prepare_stream(request)?;
        self.authorize(&mut ready, None).await?;
        let events = HeaderValue::from_static("text/event-stream");
        ready.headers.entry(ACCEPT).or_insert(events);
        let fresh = HeaderValue::from_static("no-cache");
        ready.headers.entry(CACHE_CONTROL).or_insert(fresh);
        let addresses = self.resolve(&ready.origin, ready.granted).await?;
        let keepalive = KeepAlive::after(request.silence);
        let client = self.clients.unshared(&ready.origin, addresses, keepalive)?;
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.log_stream("event stream", request, &ready);
        let asked = client
            .request(Method::GET, ready.url)
            .headers(ready.headers);
        let response = asked.send().await.map_err(answer::connection_failure)?;
        Ok(EventBody { response })
    }

    fn prepare_stream(&self, request: &StreamRequest) -> Result<Ready<'_>, Failure> {
        let url = as_http(&request.url);
        let wanted = Wanted {
            url: &url,
            headers: &request.headers,
            credential: request.credential.as_deref(),
            body_is_foreign: false,
            body: Vec::new(),
        };
        self.prepare(wanted)
    }

    /// One address after the other; each has the time that a connection may take.
    async fn dial(
        &self,
        addresses: &[SocketAddr],
        silence: Duration,
    ) -> Result<TcpStream, Failure> {
        let mut failure = transient("connect", "no address".into());
        for address in addresses {
            match timeout(self.limits.http_connect, TcpStream::connect(address)).await {
                Ok(Ok(tcp)) => {
                    // A frame is to leave when it is written; without it the connection only is a little slower.
                    let _ = tcp.set_nodelay(true);
                    match KeepAlive::after(silence).set(&tcp) {
                        Ok(()) => return Ok(tcp),
                        Err(error) => failure = transient("connect", error.to_string()),
                    }
                }
                Ok(Err(error)) => failure = transient("connect", error.to_string()),
                Err(_) => failure = transient("connect", format!("{address} does not answer")),
            }
        }
        Err(failure)
    }

    fn log_stream(&self, what: &str, request: &StreamRequest, ready: &Ready<'_>) {
        tracing::debug!(
            plugin = self.grant.plugin, entry = self.grant.entry, origin = %ready.origin,
            path = printable(&ready.shown, 256), credential = request.credential,
            "plugin {what} opened"
        );
    }
}

/// One check serves both: `ws` stands for `http`, `wss` for `https`.
fn as_http(url: &str) -> String {
    let scheme = |name: &str| {
        let given = url.get(..name.len())?;
        given.eq_ignore_ascii_case(name).then(|| &url[name.len()..])
    };
    match (scheme("ws:"), scheme("wss:")) {
        (Some(rest), _) => format!("http:{rest}"),
        (_, Some(rest)) => format!("https:{rest}"),
        _ => url.to_owned(),
    }
}

async fn speak_tls(
    tcp: TcpStream,
    origin: &Origin,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, Failure> {
    tls::install_crypto();
    let name = match origin.host() {
        Host::Domain(name) => ServerName::try_from(name.clone())
            .map_err(|_| transient("tls", format!("no certificate can be for {name}")))?,
        Host::Ipv4(address) => ServerName::from(std::net::IpAddr::V4(*address)),
        Host::Ipv6(address) => ServerName::from(std::net::IpAddr::V6(*address)),
    };
    TlsConnector::from(tls::verifying().map_err(tls_failure)?)
        .connect(name, tcp)
        .await
        .map_err(|error| transient("tls", error.to_string()))
}
