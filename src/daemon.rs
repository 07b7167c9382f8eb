//! The daemon around a monitor: its listening socket, its HTTP server, signals, systemd, and the graceful stop.

mod port;
mod systemd;

use crate::api::{self, ApiState};
use actix_web::middleware::from_fn;
use actix_web::{App, HttpServer, web};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use weir_core::monitor::MonitorHandle;
use weir_model::config::Http;

pub use self::port::holder_of;

/// Threads that answer. Each has its own blocking pool for reading the journal.
const WORKERS: usize = 2;
const BLOCKING_THREADS: usize = 8;
/// Connections of one worker; more wait in the backlog.
const CONNECTIONS_MAX: usize = 256;
const BACKLOG: u32 = 256;
/// Time for the head of a request to arrive.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for a client to go away after it was told.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// Time for requests in flight to finish when the daemon stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("{address} is in use{by}; stop that, or set another address with `http.listen` in monitor.ron", by = by(.holder))]
    PortInUse {
        address: SocketAddr,
        holder: Option<String>,
    },
    #[error(
        "not allowed to listen on {address} (ports below 1024 need a privilege); set `http.listen` in monitor.ron"
    )]
    NotPermitted { address: SocketAddr },
    #[error("{address} is no address of this machine; set `http.listen` in monitor.ron")]
    NoSuchAddress { address: SocketAddr },
    #[error("cannot listen on {address} (`http.listen` in monitor.ron): {source}")]
    Listen {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("the HTTP server: {0}")]
    Http(#[from] io::Error),
}

fn by(holder: &Option<String>) -> String {
    holder
        .as_ref()
        .map(|who| format!(" by {who}"))
        .unwrap_or_default()
}

/// Takes the address, so that a port in use is known before anything is started.
pub fn bind(http: &Http) -> Result<TcpListener, ServeError> {
    let address = http.listen;
    TcpListener::bind(address).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => ServeError::PortInUse {
            address,
            holder: holder_of(address),
        },
        io::ErrorKind::PermissionDenied => ServeError::NotPermitted { address },
        io::ErrorKind::AddrNotAvailable => ServeError::NoSuchAddress { address },
        _ => ServeError::Listen { address, source },
    })
}

/// Takes the address of `http` and answers there. Port 0 takes a free one: [`Server::address`].
pub async fn serve(monitor: MonitorHandle, http: &Http) -> Result<Server, ServeError> {
    serve_on(bind(http)?, monitor)
}

/// Answers on a socket that is bound already. Needs a tokio or actix runtime.
pub fn serve_on(listener: TcpListener, monitor: MonitorHandle) -> Result<Server, ServeError> {
    let address = listener.local_addr()?;
    if let Err(error) = crate::token::ensure(monitor.data_dir()) {
        // Watching goes on; who would act is told.
        tracing::error!(%error, "the token of the command line cannot be made");
    }
    let (stopping, stop) = watch::channel(false);
    let state = web::Data::new(ApiState::new(monitor.clone(), address, stop));
    let server = HttpServer::new(move || {
        App::new()
            .app_data(state.clone())
            .wrap(from_fn(api::guard::guard))
            .configure(api::configure)
    })
    .workers(WORKERS)
    .worker_max_blocking_threads(BLOCKING_THREADS)
    .max_connections(CONNECTIONS_MAX)
    .backlog(BACKLOG)
    .client_request_timeout(HEAD_TIMEOUT)
    .client_disconnect_timeout(DISCONNECT_TIMEOUT)
    .keep_alive(KEEP_ALIVE)
    .shutdown_timeout(STOP_TIMEOUT.as_secs())
    .disable_signals()
    .listen(listener)?
    .run();
    let handle = server.handle();
    let task = tokio::spawn(server);
    tracing::info!(%address, "listening");
    Ok(Server {
        address,
        handle,
        task,
        stopping,
        monitor,
    })
}

/// A daemon that answers.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    handle: actix_web::dev::ServerHandle,
    task: JoinHandle<io::Result<()>>,
    stopping: watch::Sender<bool>,
    monitor: MonitorHandle,
}

impl Server {
    /// Where it listens; the port is the real one.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where a client on this machine reaches it.
    pub fn url(&self) -> String {
        let mut address = self.address;
        if address.ip().is_unspecified() {
            address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
        }
        format!("http://{address}")
    }

    pub fn monitor(&self) -> &MonitorHandle {
        &self.monitor
    }

    /// Runs until SIGTERM or SIGINT, then stops gracefully. SIGHUP calls `reload`.
    pub async fn run<F>(mut self, mut reload: impl FnMut() -> F) -> Result<(), ServeError>
    where
        F: Future<Output = ()>,
    {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let mut beat = systemd::Heart::new();
        beat.ready(&self.monitor);
        loop {
            tokio::select! {
                _ = terminate.recv() => break tracing::info!("SIGTERM: stopping"),
                _ = interrupt.recv() => break tracing::info!("SIGINT: stopping"),
                _ = hangup.recv() => {
                    systemd::reloading();
                    let mut reloading = pin!(reload());
                    loop {
                        tokio::select! {
                            () = &mut reloading => break,
                            // Compiling a plugin may take longer than the watchdog waits.
                            () = beat.tick() => beat.alive(&self.monitor),
                        }
                    }
                    beat.ready(&self.monitor);
                }
                () = beat.tick() => beat.alive(&self.monitor),
                ended = &mut self.task => {
                    tracing::error!("the HTTP server ended by itself");
                    self.monitor.shutdown().await;
                    return match ended {
                        Ok(result) => Ok(result?),
                        Err(error) => Err(ServeError::Http(io::Error::other(error))),
                    };
                }
            }
        }
        systemd::stopping();
        self.stop().await
    }

    /// Requests in flight finish and streams end; then the monitor stops. What was acknowledged is on disk.
    pub async fn stop(self) -> Result<(), ServeError> {
        self.stopping.send_replace(true);
        self.handle.stop(true).await;
        let served = match self.task.await {
            Ok(result) => result,
            Err(error) => Err(io::Error::other(error)),
        };
        self.monitor.shutdown().await;
        Ok(served?)
    }
}
