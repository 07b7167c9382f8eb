//! Allow rules: which origins the operator granted, and how a URL is read for comparing with them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use url::{Host, Url};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HttpScheme {
    Http,
    Https,
}

impl HttpScheme {
    fn name(self) -> &'static str {
        match self {
            HttpScheme::Http => "http",
            HttpScheme::Https => "https",
        }
    }
}

/// Where a request goes: scheme, host, port. Made by the one parser that the connection uses too.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    scheme: HttpScheme,
    host: Host<String>,
    port: u16,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RuleError {
    #[error("a scheme is missing: write http:// or https://")]
    NoScheme,
    #[error("only http:// and https:// can be allowed (they imply ws:// and wss://)")]
    Scheme,
    #[error("it is no origin: {0}")]
    Url(String),
    #[error("user and password do not belong in it")]
    Userinfo,
    #[error(
        "a path cannot be allowed, only a whole origin: leave out what follows the host and port"
    )]
    Path,
    #[error(
        "`*` may only stand for the first label of a host of three or more: https://*.example.com"
    )]
    Wildcard,
    #[error("the host ends with a dot")]
    TrailingDot,
}

impl Origin {
    /// Reads the origin of an absolute URL. Userinfo and everything but http and https are refused.
    pub fn of(url: &Url) -> Result<Origin, RuleError> {
        let scheme = match url.scheme() {
            "http" => HttpScheme::Http,
            "https" => HttpScheme::Https,
            _ => return Err(RuleError::Scheme),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(RuleError::Userinfo);
        }
        let host = match url.host() {
            // One address, one form: ::ffff:10.0.0.1 is 10.0.0.1.
            Some(Host::Ipv6(address)) => match address.to_canonical() {
                IpAddr::V4(address) => Host::Ipv4(address),
                IpAddr::V6(address) => Host::Ipv6(address),
            },
            Some(Host::Ipv4(address)) => Host::Ipv4(address),
            Some(Host::Domain(name)) if name.ends_with('.') => return Err(RuleError::TrailingDot),
            Some(Host::Domain(name)) => Host::Domain(name.to_owned()),
            None => return Err(RuleError::Url("no host".into())),
        };
        let port = url
            .port_or_known_default()
            .ok_or_else(|| RuleError::Url("no port".into()))?;
        Ok(Origin { scheme, host, port })
    }

    pub fn scheme(&self) -> HttpScheme {
        self.scheme
    }

    pub fn host(&self) -> &Host<String> {
        &self.host
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for Origin {
    /// As it would be written in `allow`: without a port that the scheme implies.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.name(), self.host)?;
        match (self.scheme, self.port) {
            (HttpScheme::Http, 80) | (HttpScheme::Https, 443) => Ok(()),
            (_, port) => write!(f, ":{port}"),
        }
    }
}

/// How far a rule trusts the addresses behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grant {
    /// `*.`: public addresses only, since anybody may get a name there.
    Wildcard,
    /// A host name: loopback and private addresses too.
    Name,
    /// An address that the operator wrote: whatever it is.
    Literal,
}

/// One entry of `allow`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AllowRule {
    origin: Origin,
    wildcard: bool,
}

impl AllowRule {
    /// Parses `http://127.0.0.1:8188` or `https://*.googleapis.com`.
    pub fn parse(text: &str) -> Result<AllowRule, RuleError> {
        let (scheme, rest) = text.split_once("://").ok_or(RuleError::NoScheme)?;
        let (wildcard, rest) = match rest.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        if rest.contains('*') {
            return Err(RuleError::Wildcard);
        }
        let url = Url::parse(&format!("{scheme}://{rest}"))
            .map_err(|error| RuleError::Url(error.to_string()))?;
        let origin = Origin::of(&url)?;
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err(RuleError::Path);
        }
        let few_labels = match &origin.host {
            Host::Domain(name) => !name.contains('.'),
            Host::Ipv4(_) | Host::Ipv6(_) => true,
        };
        if wildcard && few_labels {
            return Err(RuleError::Wildcard);
        }
        Ok(AllowRule { origin, wildcard })
    }

    /// This origin and no other.
    pub(in crate::plugin) fn exactly(origin: Origin) -> AllowRule {
        AllowRule {
            origin,
            wildcard: false,
        }
    }

    /// The origins of every absolute http(s) URL within `config`: what `allow` is when it is left out.
    pub fn from_config(config: &serde_json::Value) -> Vec<AllowRule> {
        let mut rules = Vec::new();
        collect(config, &mut rules);
        rules
    }

    pub fn matches(&self, origin: &Origin) -> bool {
        if !self.wildcard {
            return self.origin == *origin;
        }
        let (Host::Domain(suffix), Host::Domain(name)) = (&self.origin.host, &origin.host) else {
            return false;
        };
        // Exactly one label more, as in a certificate: not the apex, not a.b.
        let labelled = name
            .split_once('.')
            .is_some_and(|(label, rest)| !label.is_empty() && rest == suffix);
        labelled && self.origin.scheme == origin.scheme && self.origin.port == origin.port
    }

    pub fn grant(&self) -> Grant {
        match self.origin.host {
            _ if self.wildcard => Grant::Wildcard,
            Host::Domain(_) => Grant::Name,
            Host::Ipv4(_) | Host::Ipv6(_) => Grant::Literal,
        }
    }
}

impl fmt::Display for AllowRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origin = self.origin.to_string();
        match (self.wildcard, origin.split_once("://")) {
            (true, Some((scheme, rest))) => write!(f, "{scheme}://*.{rest}"),
            _ => f.write_str(&origin),
        }
    }
}

fn collect(value: &serde_json::Value, rules: &mut Vec<AllowRule>) {
    match value {
        serde_json::Value::String(text) => {
            let origin = Url::parse(text).ok().and_then(|url| Origin::of(&url).ok());
            if let Some(origin) = origin {
                let rule = AllowRule {
                    origin,
                    wildcard: false,
                };
                if !rules.contains(&rule) {
                    rules.push(rule);
                }
            }
        }
        serde_json::Value::Array(values) => values.iter().for_each(|value| collect(value, rules)),
        serde_json::Value::Object(fields) => {
            fields.values().for_each(|value| collect(value, rules))
        }
        _ => {}
    }
}

/// What kind of place an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    Public,
    /// Loopback, private networks, carrier NAT (which VPNs use).
    Private,
    /// Link-local, cloud metadata, multicast, unspecified, reserved: nobody means these by accident.
    Special,
}

/// Classifies the address that a packet would go to, translations (v4-mapped, NAT64, 6to4) undone.
pub(super) fn reach(address: IpAddr) -> Reach {
    match address.to_canonical() {
        IpAddr::V4(address) => reach_v4(address),
        IpAddr::V6(address) => {
            let s = address.segments();
            let [.., e, f, g, h] = address.octets();
            let low = Ipv4Addr::new(e, f, g, h);
            let sixtofour = Ipv4Addr::from((u32::from(s[1]) << 16) | u32::from(s[2]));
            match s {
                _ if address.is_loopback() => Reach::Private,
                _ if address.is_unspecified() || address.is_multicast() => Reach::Special,
                [0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254] => Reach::Special,
                [0xfe80..=0xfebf, ..] => Reach::Special,
                [0xfc00..=0xfdff, ..] | [0xfec0..=0xfeff, ..] => Reach::Private,
                [0x64, 0xff9b, 0, 0, 0, 0, ..] | [0, 0, 0, 0, 0, 0, ..] => reach_v4(low),
                [0x64, 0xff9b, 1, ..] => Reach::Special,
                [0x2002, ..] => reach_v4(sixtofour),
                [0x2001, 0, ..] | [0x100, 0, 0, 0, ..] => Reach::Special,
                _ => Reach::Public,
            }
        }
    }
}

fn reach_v4(address: Ipv4Addr) -> Reach {
    match address.octets() {
        // Metadata services that are not link-local: Alibaba, Azure, Oracle.
        [100, 100, 100, 200] | [168, 63, 129, 16] | [192, 0, 0, 192] => Reach::Special,
        [0, ..] | [169, 254, ..] | [224..=255, ..] => Reach::Special,
        [10, ..] | [127, ..] | [192, 168, ..] | [172, 16..=31, ..] => Reach::Private,
        [100, 64..=127, ..] | [198, 18..=19, ..] | [192, 0, 0, _] => Reach::Private,
        _ => Reach::Public,
    }
}

/// Whether a rule of this grant may reach such an address.
pub(super) fn permits(grant: Grant, reach: Reach) -> bool {
    match reach {
        Reach::Public => true,
        Reach::Private => grant >= Grant::Name,
        Reach::Special => grant == Grant::Literal,
    }
}
