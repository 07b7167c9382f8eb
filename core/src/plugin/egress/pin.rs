//! Clients that connect to checked addresses only: their resolver answers what was pinned and asks nobody.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolving};
use reqwest::{Client, ClientBuilder};
use url::Host;

use super::keepalive::KeepAlive;
use super::rule::{HttpScheme, Origin};
use super::{Failure, tls_failure, transient};
use crate::tls;

/// Origins whose clients, and so their idle connections, are kept; the one unused for longest makes room.
const CLIENTS_MAX: usize = 16;

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Turns a host name into addresses. Tests bring their own.
pub trait Resolve: Send + Sync {
    fn resolve<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>>;
}

/// The system's own resolver.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            let found = tokio::net::lookup_host((host, 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }
}

/// One client per origin, since requests of one entry run side by side (a poll, a cancel, a token): were a client shared,
/// the addresses that a wide rule found at one port could serve a narrow rule at another.
pub(super) struct Clients {
    connect_timeout: Duration,
    kept: Mutex<Vec<Kept>>,
}

struct Kept {
    origin: Origin,
    client: Client,
    pin: PinnedResolver,
}

impl Clients {
    pub(super) fn new(connect_timeout: Duration) -> Clients {
        Clients {
            connect_timeout,
            kept: Mutex::default(),
        }
    }

    /// A client that reaches `origin` at `addresses` and no other place.
    pub(super) fn pinned(
        &self,
        origin: &Origin,
        addresses: Vec<SocketAddr>,
    ) -> Result<Client, Failure> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let found = kept.iter().position(|kept| kept.origin == *origin);
        let found = match found {
            Some(at) => kept.remove(at),
            None => {
                let pin = PinnedResolver::default();
                Kept {
                    client: built(self.builder(origin, &pin)?)?,
                    origin: origin.clone(),
                    pin,
                }
            }
        };
        found.pin.set(origin, addresses);
        let client = found.client.clone();
        if kept.len() >= CLIENTS_MAX {
            kept.remove(0);
        }
        kept.push(found);
        Ok(client)
    }

    /// As `pinned`, with connections that nobody shares: for an answer that lasts, read on another thread.
    pub(super) fn unshared(
        &self,
        origin: &Origin,
        addresses: Vec<SocketAddr>,
        keepalive: KeepAlive,
    ) -> Result<Client, Failure> {
        let pin = PinnedResolver::default();
        pin.set(origin, addresses);
        built(keepalive.build(self.builder(origin, &pin)?))
    }

    fn builder(&self, origin: &Origin, pin: &PinnedResolver) -> Result<ClientBuilder, Failure> {
        tls::install_crypto();
        let (config, https_only) = match origin.scheme() {
            HttpScheme::Https => {
                let config = tls::verifying().map_err(tls_failure)?;
                (config.as_ref().clone(), true)
            }
            HttpScheme::Http => {
                let config = tls::trusting_nobody().map_err(tls_failure)?;
                (config, false)
            }
        };
        Ok(Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .retry(reqwest::retry::never())
            .connect_timeout(self.connect_timeout)
            .pool_max_idle_per_host(2)
            .pool_idle_timeout(Duration::from_secs(60))
            .tls_backend_preconfigured(config)
            .https_only(https_only)
            .dns_resolver(pin.clone()))
    }
}

fn built(builder: ClientBuilder) -> Result<Client, Failure> {
    builder.build().map_err(|error| {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        transient("tls", cause.unwrap_or_else(|| error.to_string()))
    })
}

/// Answers the pinned name with the pinned addresses, and every other name with an error.
#[derive(Clone, Default)]
struct PinnedResolver(Arc<Mutex<Option<Pinned>>>);

/// A host name and where it is.
type Pinned = (String, Vec<SocketAddr>);

impl PinnedResolver {
    /// The client asks for names only; an address in the URL is connected to as it stands.
    fn set(&self, origin: &Origin, addresses: Vec<SocketAddr>) {
        if let Host::Domain(name) = origin.host() {
            let pinned = Some((name.clone(), addresses));
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = pinned;
        }
    }
}

impl reqwest::dns::Resolve for PinnedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let pinned = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        Box::pin(async move {
            match pinned {
                Some((host, addresses)) if host == name.as_str() => {
                    Ok(Box::new(addresses.into_iter()) as Addrs)
                }
                _ => Err("a host name that was never checked".into()),
            }
        })
    }
}
