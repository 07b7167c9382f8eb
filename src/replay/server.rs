//! The HTTP server that answers from a recording, in recorded time, with faults on demand.

use std::any::Any;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use actix_web::body::SizedStream;
use actix_web::dev::{Extensions, ServerHandle};
use actix_web::http::{Method, StatusCode};
use actix_web::web::{self, Bytes};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer};
use futures::stream;
use tokio::task::JoinHandle;

use super::moment::{self, Moment, Reply};
use super::rebase::rebase;
use super::recording::{Recording, ReplayError};
use super::socket;

/// A client that makes paths up must not make the counters grow without end.
const COUNTED_PATHS_MAX: usize = 10_000;
const OTHER_PATHS: &str = "(other)";

/// How a recording is served.
#[derive(Debug, Clone)]
pub struct ReplayOptions {
    /// Recorded seconds per second.
    pub speed: f64,
    pub listen: SocketAddr,
    /// Recorded time stands still until `set_position` moves it.
    pub manual: bool,
    /// Added to every epoch-ms field of the answers.
    pub rebase: Option<i64>,
    /// Recorded time stands still at the beginning for this long.
    pub delay: Duration,
}

impl Default for ReplayOptions {
    fn default() -> ReplayOptions {
        ReplayOptions {
            speed: 1.0,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            manual: false,
            rebase: None,
            delay: Duration::ZERO,
        }
    }
}

/// What goes wrong with every answer from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fault {
    #[default]
    None,
    /// The connection is closed without an answer.
    Refuse,
    /// A proxy's login page, with status 200.
    Html,
    Status(u16),
    /// The right answer, but the connection breaks in the middle of its body.
    HalfBody,
    /// Status 200 and a body that is no JSON.
    Garbage,
    /// The right answer, this much later.
    Slow(Duration),
    /// A server without any jobs, as after a restart.
    EmptyQueue,
}

/// A running server; it stops when it is dropped, `stop` waits for the end.
#[derive(Debug)]
pub struct ReplayServer {
    shared: Arc<Shared>,
    address: SocketAddr,
    handle: ServerHandle,
    task: Option<JoinHandle<std::io::Result<()>>>,
}

#[derive(Debug)]
pub(super) struct Shared {
    recording: Recording,
    speed: f64,
    manual: bool,
    rebase: Option<i64>,
    /// Recorded time `.1` was or will be reached at `.0`.
    anchor: Mutex<(Instant, Duration)>,
    fault: Mutex<Fault>,
    requests: Mutex<BTreeMap<String, u64>>,
}

impl ReplayServer {
    pub async fn start(
        recording: Recording,
        options: ReplayOptions,
    ) -> Result<ReplayServer, ReplayError> {
        let listen_failed = |source| ReplayError::Listen {
            listen: options.listen,
            source,
        };
        let listener = TcpListener::bind(options.listen).map_err(listen_failed)?;
        let address = listener.local_addr().map_err(listen_failed)?;
        let shared = Arc::new(Shared {
            recording,
            speed: if options.speed.is_finite() {
                options.speed.max(0.0)
            } else {
                1.0
            },
            manual: options.manual,
            rebase: options.rebase,
            anchor: Mutex::new((now() + options.delay, Duration::ZERO)),
            fault: Mutex::default(),
            requests: Mutex::default(),
        });
        let data = web::Data::from(Arc::clone(&shared));
        let server = HttpServer::new(move || {
            App::new()
                .app_data(data.clone())
                .default_service(web::to(serve))
        })
        .on_connect(remember_socket)
        .workers(1)
        .shutdown_timeout(1)
        .disable_signals()
        .listen(listener)
        .map_err(listen_failed)?
        .run();
        let handle = server.handle();
        let task = Some(tokio::spawn(server));
        Ok(ReplayServer {
            shared,
            address,
            handle,
            task,
        })
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn recording(&self) -> &Recording {
        &self.shared.recording
    }

    /// The recorded time that is being served; it stops at the end of the recording.
    pub fn position(&self) -> Duration {
        self.shared.position()
    }

    pub fn set_position(&self, position: Duration) {
        *lock(&self.shared.anchor) = (now(), position);
    }

    pub fn finished(&self) -> bool {
        self.position() >= self.shared.recording.duration()
    }

    pub fn fault(&self, fault: Fault) {
        *lock(&self.shared.fault) = fault;
    }

    /// How often a path was asked for, without its query and without the `/api` alias.
    pub fn requests(&self, path: &str) -> u64 {
        lock(&self.shared.requests).get(path).copied().unwrap_or(0)
    }

    pub fn requests_by_path(&self) -> BTreeMap<String, u64> {
        lock(&self.shared.requests).clone()
    }

    pub async fn stop(mut self) {
        self.handle.stop(false).await;
        if let Some(task) = self.task.take() {
            // A server that panicked is stopped as well.
            drop(task.await);
        }
    }
}

impl Drop for ReplayServer {
    fn drop(&mut self) {
        if self.task.is_some() {
            // `stop` sends the order when it is called; waiting is for those who want to.
            drop(self.handle.stop(false));
        }
    }
}

impl Shared {
    pub(super) fn recording(&self) -> &Recording {
        &self.recording
    }

    pub(super) fn rebase(&self) -> Option<i64> {
        self.rebase
    }

    pub(super) fn current_fault(&self) -> Fault {
        *lock(&self.fault)
    }

    pub(super) fn position(&self) -> Duration {
        let (instant, position) = *lock(&self.anchor);
        let position = if self.manual {
            position
        } else {
            position + now().saturating_duration_since(instant).mul_f64(self.speed)
        };
        position.min(self.recording.duration())
    }

    fn count(&self, path: &str) {
        let path = moment::canonical(path);
        let mut requests = lock(&self.requests);
        let path = if requests.len() < COUNTED_PATHS_MAX || requests.contains_key(path) {
            path
        } else {
            OTHER_PATHS
        };
        *requests.entry(path.to_owned()).or_default() += 1;
    }

    fn reply(&self, request: &HttpRequest, fault: Fault) -> Option<Reply> {
        if fault == Fault::Refuse {
            return None;
        }
        let position = self.position();
        let moment = match fault {
            Fault::EmptyQueue => Moment::empty(&self.recording, position),
            _ => Moment::new(&self.recording, position),
        };
        let mut reply = moment.answer(request.path(), request.query_string())?;
        if let Some(shift_ms) = self.rebase {
            reply.body = rebase(&reply.body, shift_ms);
        }
        Some(reply)
    }
}

/// A second handle of the connection, to close it without an answer.
pub(super) struct Socket(TcpStream);

impl Socket {
    /// The socket of this request, if there is one to hold.
    pub(super) fn of(request: &HttpRequest) -> Option<Socket> {
        let Socket(socket) = request.conn_data::<Socket>()?;
        socket.try_clone().ok().map(Socket)
    }

    /// Ends the connection as a crash would: without a goodbye.
    pub(super) fn break_off(&self) {
        // Already closed by the client: that is what is wanted.
        drop(self.0.shutdown(Shutdown::Both));
    }
}

fn remember_socket(connection: &dyn Any, extensions: &mut Extensions) {
    let Some(stream) = connection.downcast_ref::<actix_web::rt::net::TcpStream>() else {
        return;
    };
    if let Ok(socket) = stream.as_fd().try_clone_to_owned() {
        extensions.insert(Socket(TcpStream::from(socket)));
    }
}

async fn serve(
    request: HttpRequest,
    payload: web::Payload,
    shared: web::Data<Shared>,
) -> HttpResponse {
    shared.count(request.path());
    let fault = shared.current_fault();
    if let Fault::Slow(delay) = fault {
        tokio::time::sleep(delay).await;
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return HttpResponse::MethodNotAllowed().finish();
    }
    let Some(reply) = shared.reply(&request, fault) else {
        if let Some(socket) = Socket::of(&request) {
            socket.break_off();
        }
        return HttpResponse::ServiceUnavailable().finish();
    };
    let answers = matches!(fault, Fault::None | Fault::Slow(_) | Fault::EmptyQueue);
    if answers && moment::canonical(request.path()) == "/ws" {
        return socket::open(&request, payload, shared.into_inner());
    }
    match fault {
        Fault::Html => HttpResponse::Ok()
            .content_type("text/html; charset=utf-8")
            .body("<!DOCTYPE html><html><head><title>Sign in</title></head><body><form>password</form></body></html>"),
        Fault::Status(status) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            HttpResponse::build(status).content_type("text/plain").body("the server is in trouble")
        }
        Fault::Garbage => HttpResponse::Ok().content_type(JSON).body("{\"queue_running\": [[\u{0}\u{fffd}, ]} nonsense"),
        Fault::HalfBody => half(reply.body),
        _ => HttpResponse::build(StatusCode::from_u16(reply.status).unwrap_or(StatusCode::OK))
            .content_type(JSON)
            .body(reply.body),
    }
}

const JSON: &str = "application/json; charset=utf-8";

/// Promises the whole body, sends half of it and breaks the connection.
fn half(body: String) -> HttpResponse {
    let len = body.len() as u64;
    let mut bytes = Bytes::from(body);
    bytes.truncate(bytes.len() / 2);
    let broken = std::io::Error::from(std::io::ErrorKind::ConnectionAborted);
    let body = SizedStream::new(len, stream::iter([Ok(bytes), Err(broken)]));
    HttpResponse::Ok()
        .content_type(JSON)
        .no_chunking(len)
        .body(body)
}

/// The replay plays in real time; everything that has to be exact in a test uses the manual mode.
fn now() -> Instant {
    Instant::now()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
