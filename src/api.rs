//! The HTTP API: every route in one table, and what all of them share.

mod alerts;
mod auth;
mod companion;
mod control;
pub mod errors;
mod events;
mod executions;
pub mod guard;
mod health;
mod logs;
mod page;
mod params;
mod plugins;
mod resources;
mod sources;
mod status;
mod store;
mod submit;
pub mod views;
mod workflows;

use self::errors::Problem;
use self::guard::Hosts;
use actix_web::http::Method;
use actix_web::web::{self, ServiceConfig};
use actix_web::{Resource, Route};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use tokio::sync::{Semaphore, watch};
use weir_core::monitor::MonitorHandle;

/// Clients that follow events at one time.
pub const STREAMS_MAX: usize = 64;

/// Logs that are read at one time: each is a plugin's instance and a request to a provider. Fewer than a plugin has beside
/// its own, so that a cancel finds room.
const LOG_READERS_MAX: usize = 2;

/// What a handler that answers JSON returns.
type View<T> = Result<web::Json<T>, Problem>;

/// What the handlers share.
pub struct ApiState {
    monitor: MonitorHandle,
    hosts: arc_swap::ArcSwap<Hosts>,
    listening: SocketAddr,
    streams: Arc<Semaphore>,
    submissions: Arc<Semaphore>,
    log_readers: Semaphore,
    /// True once the daemon stops: streams end.
    stopping: watch::Receiver<bool>,
}

impl ApiState {
    /// `listening` is the real address: it has the port where `http.listen` says 0.
    pub fn new(
        monitor: MonitorHandle,
        listening: SocketAddr,
        stopping: watch::Receiver<bool>,
    ) -> ApiState {
        let hosts = Hosts::new(monitor.config(), listening);
        ApiState {
            hosts: arc_swap::ArcSwap::from_pointee(hosts),
            monitor,
            listening,
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            submissions: Arc::new(Semaphore::new(submit::SUBMISSIONS_MAX)),
            log_readers: Semaphore::new(LOG_READERS_MAX),
            stopping,
        }
    }

    /// The hosts of the configuration in force.
    fn hosts(&self) -> Arc<Hosts> {
        let config = self.monitor.config();
        let hosts = self.hosts.load_full();
        if hosts.are_of(&config) {
            return hosts;
        }
        let fresh = Arc::new(Hosts::new(config, self.listening));
        self.hosts.store(fresh.clone());
        fresh
    }

    /// The beginning of every link: `public_url`, else where we listen.
    fn base_url(&self) -> String {
        match &self.monitor.config().http.public_url {
            Some(url) => url.as_str().trim_end_matches('/').to_owned(),
            None => {
                let mut address = self.listening;
                if address.ip().is_unspecified() {
                    address.set_ip(Ipv4Addr::LOCALHOST.into());
                }
                format!("http://{address}")
            }
        }
    }
}

/// One address: what it offers, and how that is told to who asks for something else.
struct Address {
    path: &'static str,
    allow: &'static str,
    routes: fn() -> Vec<Route>,
}

/// `address!("/path", GET => handler, POST => handler)`. What is read by GET is read by HEAD.
macro_rules! address {
    ($path:literal, GET => $handler:expr) => {
        Address {
            path: $path,
            allow: "GET, HEAD",
            routes: || vec![get($handler), head($handler)],
        }
    };
    ($path:literal, GET => $get:expr, POST => $post:expr) => {
        Address {
            path: $path,
            allow: "GET, HEAD, POST",
            routes: || vec![get($get), head($get), web::post().to($post)],
        }
    };
    ($path:literal, STREAM => $handler:expr) => {
        Address {
            path: $path,
            // An endless answer has no head of its own.
            allow: "GET",
            routes: || vec![get($handler)],
        }
    };
    ($path:literal, POST => $handler:expr) => {
        Address {
            path: $path,
            allow: "POST",
            routes: || vec![web::post().to($handler)],
        }
    };
    ($path:literal, DELETE => $handler:expr) => {
        Address {
            path: $path,
            allow: "DELETE",
            routes: || vec![web::delete().to($handler)],
        }
    };
}

const ADDRESSES: &[Address] = &[
    // For people.
    address!("/", GET => page::overview),
    address!("/executions/{id}", GET => page::execution),
    address!("/alerts/{id}", GET => page::alert),
    // For whoever keeps weir running.
    address!("/livez", GET => health::livez),
    address!("/readyz", GET => health::readyz),
    address!("/metrics", GET => health::metrics),
    address!("/status", GET => status::status),
    // For programs.
    address!("/api/sources", GET => sources::list),
    address!("/api/sources/{name}", GET => sources::one),
    address!("/api/sources/{name}/progress", POST => companion::progress),
    address!("/api/sources/{name}/prompt", POST => submit::prompt),
    address!("/api/sources/{name}/submit", POST => submit::submit),
    address!("/api/plugins", GET => plugins::list),
    address!("/api/plugins/{name}", GET => plugins::one),
    address!("/api/plugins/{name}/resume", POST => plugins::resume),
    address!("/api/receivers", GET => sources::receivers),
    address!("/api/receivers/{name}/test", POST => sources::test_receiver),
    address!("/api/workflows", GET => workflows::list),
    address!("/api/workflows/{id}", GET => workflows::one),
    address!("/api/executions", GET => executions::list),
    address!("/api/executions/{id}", GET => executions::one),
    address!("/api/executions/{id}/events", GET => events::of_execution),
    address!("/api/executions/{id}/control", GET => control::of_execution),
    address!("/api/executions/{id}/cancel", POST => control::cancel),
    address!("/api/executions/{id}/retry", POST => control::retry),
    address!("/api/control/{id}", GET => control::one),
    address!("/api/executions/{id}/logs", GET => logs::of_execution),
    address!("/api/alerts", GET => alerts::list),
    address!("/api/alerts/{id}", GET => alerts::one),
    address!("/api/alerts/{id}/ack", POST => alerts::acknowledge),
    address!("/api/mutes", GET => alerts::mutes, POST => alerts::mute),
    address!("/api/mutes/{id}", DELETE => alerts::unmute),
    address!("/api/resources", GET => resources::latest),
    address!("/api/events", STREAM => events::follow),
];

fn get<F, Args>(handler: F) -> Route
where
    F: actix_web::Handler<Args>,
    Args: actix_web::FromRequest + 'static,
    F::Output: actix_web::Responder + 'static,
{
    web::get().to(handler)
}

fn head<F, Args>(handler: F) -> Route
where
    F: actix_web::Handler<Args>,
    Args: actix_web::FromRequest + 'static,
    F::Output: actix_web::Responder + 'static,
{
    web::method(Method::HEAD).to(handler)
}

/// Puts every address into an app.
pub fn configure(config: &mut ServiceConfig) {
    for address in ADDRESSES {
        let allow = address.allow;
        let refuse = move || async move { Problem::method_not_allowed(allow).response() };
        let routes = (address.routes)();
        let resource = routes
            .into_iter()
            .fold(Resource::new(address.path), Resource::route);
        config.service(resource.default_service(web::to(refuse)));
    }
    config.app_data(
        web::PathConfig::default().error_handler(|_, _| Problem::unreadable_address().into()),
    );
    config.default_service(web::to(errors::unknown_address));
}

/// Every address there is.
fn paths() -> impl Iterator<Item = &'static str> {
    ADDRESSES.iter().map(|address| address.path)
}

/// Every address that is read, with its parameters in braces.
pub fn readable() -> impl Iterator<Item = &'static str> {
    let addresses = ADDRESSES.iter();
    let readable = addresses.filter(|address| address.allow.starts_with("GET"));
    readable.map(|address| address.path)
}
