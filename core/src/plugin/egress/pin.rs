//! Clients that connect to checked addresses only: their resolver answers what was pinned and asks nobody.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use reqwest::Client;
use reqwest::dns::{Addrs, Name, Resolving};
use url::Host;

use super::rule::{HttpScheme, Origin};
use super::{Failure, transient};

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

/// One client for http and one for https, each made when first needed: reading the system's root certificates costs time
/// and memory, and fails where there are none, which must not stop an http source.
pub(super) struct Clients {
    pin: PinnedResolver,
    connect_timeout: Duration,
    http: OnceLock<Client>,
    https: OnceLock<Client>,
}

impl Clients {
    pub(super) fn new(connect_timeout: Duration) -> Clients {
        Clients {
            pin: PinnedResolver::default(),
            connect_timeout,
            http: OnceLock::new(),
            https: OnceLock::new(),
        }
    }

    /// A client that reaches `origin` at `addresses` and no other place.
    ///
    /// One pin at a time is enough: a guest blocks in its request, so an entry has one under way.
    pub(super) fn pinned(
        &self,
        origin: &Origin,
        addresses: Vec<SocketAddr>,
    ) -> Result<&Client, Failure> {
        if let Host::Domain(name) = origin.host() {
            self.pin.set(name.clone(), addresses);
        }
        let (cell, scheme) = match origin.scheme() {
            HttpScheme::Http => (&self.http, HttpScheme::Http),
            HttpScheme::Https => (&self.https, HttpScheme::Https),
        };
        if let Some(client) = cell.get() {
            return Ok(client);
        }
        let client = self.build(scheme).map_err(|error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            transient("tls", cause.unwrap_or_else(|| error.to_string()))
        })?;
        Ok(cell.get_or_init(|| client))
    }

    fn build(&self, scheme: HttpScheme) -> reqwest::Result<Client> {
        install_crypto();
        let builder = Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .retry(reqwest::retry::never())
            .connect_timeout(self.connect_timeout)
            .pool_max_idle_per_host(2)
            .pool_idle_timeout(Duration::from_secs(60))
            .dns_resolver(self.pin.clone());
        match scheme {
            HttpScheme::Https => builder.https_only(true).build(),
            HttpScheme::Http => {
                let provider = Arc::new(rustls::crypto::ring::default_provider());
                let no_roots = rustls::ClientConfig::builder_with_provider(provider)
                    .with_safe_default_protocol_versions()
                    .map(|config| {
                        config
                            .with_root_certificates(rustls::RootCertStore::empty())
                            .with_no_client_auth()
                    });
                match no_roots {
                    Ok(tls) => builder.tls_backend_preconfigured(tls).build(),
                    Err(_) => builder.build(),
                }
            }
        }
    }
}

/// rustls wants one provider a process, and reqwest panics without; one that the embedding program chose stays.
fn install_crypto() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        // An error means that one is there.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

/// Answers the pinned name with the pinned addresses, and every other name with an error.
#[derive(Clone, Default)]
struct PinnedResolver(Arc<Mutex<Option<Pinned>>>);

/// A host name and where it is.
type Pinned = (String, Vec<SocketAddr>);

impl PinnedResolver {
    fn set(&self, name: String, addresses: Vec<SocketAddr>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((name, addresses));
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
