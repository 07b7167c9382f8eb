//! The gate: refuses requests with a foreign Host or Origin (DNS rebinding), and bounds what a request may carry.

use super::ApiState;
use super::errors::Problem;
use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{self, HeaderMap, HeaderValue};
use actix_web::middleware::Next;
use actix_web::{Error, web};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use url::{Host, Url};
use weir_model::config::Config;

/// Bytes of all headers together.
const HEADERS_LEN_MAX: usize = 16 << 10;
/// Headers of a request.
const HEADERS_MAX: usize = 64;
/// Bytes of the address.
const URI_LEN_MAX: usize = 8 << 10;

/// Nothing of another origin is ever loaded; styles are inline, scripts there are none.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A name that requests may carry, and the ports with it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Allowed {
    host: Host,
    port: Ports,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Ports {
    Any,
    Only(u16),
    /// That one, or none said (the scheme's own).
    Default(u16),
}

/// The hosts that weir answers for.
#[derive(Clone, Debug)]
pub struct Hosts {
    config: Arc<Config>,
    allowed: Vec<Allowed>,
    /// Listening on every address: an address is no name that could be rebound, so each is fine with this port.
    any_address_port: Option<u16>,
}

impl Hosts {
    /// `listening` is the real address: it has the port where `http.listen` says 0.
    pub fn new(config: Arc<Config>, listening: SocketAddr) -> Hosts {
        let http = &config.http;
        let only = Ports::Only(listening.port());
        let loopback = [
            Host::Domain("localhost".to_owned()),
            Host::Ipv4(Ipv4Addr::LOCALHOST),
            Host::Ipv6(Ipv6Addr::LOCALHOST),
        ];
        let own = match listening.ip() {
            IpAddr::V4(ip) => Host::Ipv4(ip),
            IpAddr::V6(ip) => Host::Ipv6(ip),
        };
        let mut allowed: Vec<Allowed> = loopback
            .into_iter()
            .chain([own])
            .map(|host| Allowed {
                host,
                port: only.clone(),
            })
            .collect();
        allowed.extend(http.public_url.as_ref().and_then(of_url));
        allowed.extend(http.allowed_hosts.iter().filter_map(|text| of_text(text)));
        let any_address_port = listening.ip().is_unspecified().then_some(listening.port());
        Hosts {
            config,
            allowed,
            any_address_port,
        }
    }

    /// Whether they were made from this configuration.
    pub fn are_of(&self, config: &Arc<Config>) -> bool {
        Arc::ptr_eq(&self.config, config)
    }

    /// Whether `authority` (a Host header) names us. `scheme_port` is meant where it has no port.
    fn contains(&self, authority: &str, scheme_port: u16) -> bool {
        let Some((host, port)) = split(authority) else {
            return false;
        };
        let said = port.unwrap_or(scheme_port);
        let named = self.allowed.iter().any(|allowed| {
            let port_fits = match allowed.port {
                Ports::Any => true,
                Ports::Only(only) => only == said,
                Ports::Default(default) => port.is_none() || said == default,
            };
            port_fits && allowed.host == host
        });
        named || (!matches!(host, Host::Domain(_)) && self.any_address_port == Some(said))
    }

    fn refusal(&self, headers: &HeaderMap, uri_authority: Option<&str>) -> Option<Problem> {
        let mut hosts = headers.get_all(header::HOST);
        let host = match (hosts.next(), hosts.next()) {
            (Some(host), None) => host.to_str().unwrap_or_default(),
            _ => {
                return Some(Problem::bad_request(
                    "a request needs exactly one Host header",
                ));
            }
        };
        if !self.contains(host, 80) {
            return Some(Problem::foreign_host(host));
        }
        // An absolute address (`GET http://other/`) overrides the header: both have to be ours.
        if let Some(authority) = uri_authority
            && !self.contains(authority, 80)
        {
            return Some(Problem::foreign_host(authority));
        }
        let mut origins = headers.get_all(header::ORIGIN);
        let origin = origins.next()?.to_str().unwrap_or_default();
        if origins.next().is_some() {
            return Some(Problem::foreign_origin("several"));
        }
        let rest = origin.strip_prefix("http://").map(|rest| (rest, 80));
        let rest = rest.or_else(|| origin.strip_prefix("https://").map(|rest| (rest, 443)));
        match rest {
            Some((authority, port)) if self.contains(authority, port) => None,
            _ => Some(Problem::foreign_origin(origin)),
        }
    }
}

fn of_url(url: &Url) -> Option<Allowed> {
    let host = url.host()?.to_owned();
    let port = Ports::Default(url.port_or_known_default()?);
    Some(Allowed {
        host: undotted(host),
        port,
    })
}

/// `name` or `name:port`; without a port any is meant.
fn of_text(text: &str) -> Option<Allowed> {
    let (host, port) = split(text)?;
    Some(Allowed {
        host,
        port: port.map_or(Ports::Any, Ports::Only),
    })
}

/// Host and port of an authority; none when it is neither.
fn split(authority: &str) -> Option<(Host, Option<u16>)> {
    let bare = authority.parse::<Ipv6Addr>().ok();
    if let Some(ip) = bare {
        return Some((Host::Ipv6(ip), None));
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port.parse().ok()?)),
        _ => (authority, None),
    };
    Some((undotted(Host::parse(host).ok()?), port))
}

/// `localhost.` is `localhost`.
fn undotted(host: Host) -> Host {
    match host {
        Host::Domain(name) => Host::Domain(name.trim_end_matches('.').to_owned()),
        address => address,
    }
}

fn oversize(request: &ServiceRequest) -> Option<Problem> {
    let headers = request.headers();
    let bytes: usize = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    if bytes > HEADERS_LEN_MAX || headers.len() > HEADERS_MAX {
        return Some(Problem::headers_too_large(HEADERS_LEN_MAX));
    }
    let long = request
        .uri()
        .path_and_query()
        .is_some_and(|uri| uri.as_str().len() > URI_LEN_MAX);
    long.then(|| Problem::uri_too_long(URI_LEN_MAX))
}

/// The middleware around every route.
pub async fn guard<B: MessageBody + 'static>(
    state: web::Data<ApiState>,
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let authority = request
        .uri()
        .authority()
        .map(|authority| authority.as_str());
    let refusal =
        oversize(&request).or_else(|| state.hosts().refusal(request.headers(), authority));
    let mut response = match refusal {
        Some(problem) => request.into_response(problem.response()),
        None => next.call(request).await?.map_into_boxed_body(),
    };
    secure(response.headers_mut());
    Ok(response)
}

fn secure(headers: &mut HeaderMap) {
    let mut set = |name, value: &'static str| {
        headers.insert(name, HeaderValue::from_static(value));
    };
    set(header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY);
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::X_FRAME_OPTIONS, "DENY");
    set(header::REFERRER_POLICY, "no-referrer");
    set(header::CROSS_ORIGIN_RESOURCE_POLICY, "same-origin");
    set(header::CROSS_ORIGIN_OPENER_POLICY, "same-origin");
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::http::header::HeaderName;
    use weir_model::config::Http;

    fn hosts(listen: &str) -> Hosts {
        let http = Http {
            public_url: Some(Url::parse("https://weir.example.net").unwrap()),
            allowed_hosts: vec!["box.lan".into(), "tunnel:9000".into()],
            ..Http::default()
        };
        let config = Config {
            http,
            ..Config::default()
        };
        Hosts::new(Arc::new(config), listen.parse().unwrap())
    }

    fn answer(hosts: &Hosts, host: &str, origin: Option<&str>) -> u16 {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_str(host).unwrap());
        if let Some(origin) = origin {
            headers.insert(
                HeaderName::from_static("origin"),
                HeaderValue::from_str(origin).unwrap(),
            );
        }
        hosts
            .refusal(&headers, None)
            .map_or(200, |problem| problem.status().as_u16())
    }

    #[test]
    fn only_our_own_names_are_answered() {
        let hosts = hosts("127.0.0.1:8000");
        let ours = [
            "localhost:8000",
            "LOCALHOST:8000",
            "127.0.0.1:8000",
            "[::1]:8000",
            "weir.example.net",
        ];
        for host in ours.into_iter().chain([
            "weir.example.net:443",
            "box.lan",
            "box.lan:1",
            "tunnel:9000",
        ]) {
            assert_eq!(answer(&hosts, host, None), 200, "{host}");
        }
        let foreign = [
            "evil.com",
            "localhost",
            "localhost:8001",
            "127.0.0.1",
            "weir.example.net:8000",
            "tunnel",
            "",
        ];
        for host in foreign.into_iter().chain([
            "10.0.0.1:8000",
            "localhost:8000.evil.com",
            "evil.com:8000",
            "a b",
        ]) {
            assert_eq!(answer(&hosts, host, None), 421, "{host}");
        }
    }

    #[test]
    fn a_page_of_another_origin_may_not_ask() {
        let hosts = hosts("127.0.0.1:8000");
        for origin in [
            "http://localhost:8000",
            "https://weir.example.net",
            "http://box.lan",
        ] {
            assert_eq!(
                answer(&hosts, "localhost:8000", Some(origin)),
                200,
                "{origin}"
            );
        }
        for origin in [
            "http://evil.com",
            "null",
            "http://localhost:3000",
            "https://localhost",
            "file://",
            "",
        ] {
            assert_eq!(
                answer(&hosts, "localhost:8000", Some(origin)),
                403,
                "{origin}"
            );
        }
    }

    #[test]
    fn who_listens_everywhere_answers_for_every_address_but_for_no_other_name() {
        let hosts = hosts("0.0.0.0:8000");
        assert_eq!(answer(&hosts, "192.168.1.7:8000", None), 200);
        assert_eq!(answer(&hosts, "[fe80::1]:8000", None), 200);
        assert_eq!(answer(&hosts, "192.168.1.7:80", None), 421);
        assert_eq!(answer(&hosts, "evil.com:8000", None), 421);
    }

    #[test]
    fn a_refusal_names_the_setting() {
        let problem = Problem::foreign_host("evil.com\r\nx");
        assert!(problem.detail().contains("http.allowed_hosts"));
        assert!(!problem.detail().contains('\n'));
    }
}
