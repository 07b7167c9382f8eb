//! Origin patterns: where a plugin may connect to, as the operator wrote it.

use std::fmt;

use url::{Host, Url};

/// Scheme, host and exact port. Written `https://*.googleapis.com`; the wildcard stands for exactly one
/// left-most label, as in a certificate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OriginPattern {
    secure: bool,
    /// As the `url` crate writes it: lower case, IDNA, IPv6 in brackets. Without the `*.`.
    host: String,
    wildcard: bool,
    port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    #[error("the scheme is missing")]
    NoScheme,
    #[error("only http and https are possible")]
    WrongScheme,
    #[error("not a valid origin")]
    Invalid,
    #[error("an origin has no path, query or fragment")]
    Path,
    #[error("an origin has no user or password")]
    UserInfo,
    #[error("`*.` may only stand for the left-most label of a domain of three or more")]
    Wildcard,
}

impl OriginPattern {
    /// Parses an entry of `allow` or `origins`.
    pub fn parse(text: &str) -> Result<Self, OriginError> {
        let url = checked(text)?;
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err(OriginError::Path);
        }
        Self::build(&url, true)
    }

    /// The exact origin of an absolute http(s) or ws(s) URL.
    pub fn of_url(text: &str) -> Result<Self, OriginError> {
        Self::build(&checked(text)?, false)
    }

    fn build(url: &Url, wildcard_allowed: bool) -> Result<Self, OriginError> {
        let secure = matches!(url.scheme(), "https" | "wss");
        let port = url.port_or_known_default().ok_or(OriginError::Invalid)?;
        let host = url
            .host_str()
            .filter(|host| !host.is_empty())
            .ok_or(OriginError::Invalid)?;
        if host.ends_with('.') {
            return Err(OriginError::Invalid);
        }
        let (host, wildcard) = match host.strip_prefix("*.") {
            Some(rest) => (rest, true),
            None => (host, false),
        };
        if wildcard && (!wildcard_allowed || !host.contains('.') || !is_domain(host))
            || host.contains('*')
        {
            return Err(OriginError::Wildcard);
        }
        Ok(Self {
            secure,
            host: host.to_owned(),
            wildcard,
            port,
        })
    }

    /// Whether a request to this URL is covered. `http` covers `ws`, `https` covers `wss`.
    pub fn covers(&self, url: &Url) -> bool {
        let secure = match url.scheme() {
            "https" | "wss" => true,
            "http" | "ws" => false,
            _ => return false,
        };
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
            return false;
        };
        secure == self.secure && port == self.port && self.covers_host(host)
    }

    fn covers_host(&self, host: &str) -> bool {
        if !self.wildcard {
            return host == self.host;
        }
        host.strip_suffix(self.host.as_str())
            .and_then(|label| label.strip_suffix('.'))
            .is_some_and(|label| !label.is_empty() && !label.contains('.'))
    }

    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// Whether the entry names one host. Loopback and private addresses are reached only through such an entry.
    pub fn is_exact(&self) -> bool {
        !self.wildcard
    }

    /// The host (IPv6 in brackets), without the wildcard.
    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether the entry names this machine itself.
    pub fn is_loopback(&self) -> bool {
        !self.wildcard && is_loopback(&self.host)
    }
}

impl fmt::Display for OriginPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, default_port) = if self.secure {
            ("https", 443)
        } else {
            ("http", 80)
        };
        let wildcard = if self.wildcard { "*." } else { "" };
        write!(f, "{scheme}://{wildcard}{}", self.host)?;
        if self.port != default_port {
            write!(f, ":{}", self.port)?;
        }
        Ok(())
    }
}

/// Every origin that an absolute http(s) or ws(s) URL in the strings of `value` names, sorted, each once.
pub fn origins_in(value: &serde_json::Value) -> Vec<OriginPattern> {
    let mut origins = Vec::new();
    collect(value, &mut origins);
    origins.sort();
    origins.dedup();
    origins
}

fn collect(value: &serde_json::Value, origins: &mut Vec<OriginPattern>) {
    match value {
        serde_json::Value::String(text) => origins.extend(OriginPattern::of_url(text)),
        serde_json::Value::Array(items) => items.iter().for_each(|item| collect(item, origins)),
        serde_json::Value::Object(map) => map.values().for_each(|item| collect(item, origins)),
        _ => {}
    }
}

fn checked(text: &str) -> Result<Url, OriginError> {
    if !text.contains("://") {
        return Err(OriginError::NoScheme);
    }
    let url = Url::parse(text).map_err(|_| OriginError::Invalid)?;
    if !matches!(url.scheme(), "http" | "https" | "ws" | "wss") {
        return Err(OriginError::WrongScheme);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(OriginError::UserInfo);
    }
    Ok(url)
}

fn is_domain(host: &str) -> bool {
    matches!(Host::parse(host), Ok(Host::Domain(_)))
}

fn is_loopback(host: &str) -> bool {
    match Host::parse(host) {
        Ok(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Ok(Host::Ipv4(address)) => address.is_loopback(),
        Ok(Host::Ipv6(address)) => address.is_loopback(),
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> OriginPattern {
        OriginPattern::parse(text).unwrap()
    }

    fn covers(allow: &str, url: &str) -> bool {
        pattern(allow).covers(&Url::parse(url).unwrap())
    }

    #[test]
    fn an_exact_entry_covers_its_scheme_host_and_port_only() {
        assert!(covers(
            "http://127.0.0.1:8188",
            "http://127.0.0.1:8188/api/jobs?x=1"
        ));
        assert!(covers("http://127.0.0.1:8188", "ws://127.0.0.1:8188/ws"));
        assert!(!covers("http://127.0.0.1:8188", "https://127.0.0.1:8188/"));
        assert!(!covers("http://127.0.0.1:8188", "http://127.0.0.1:8189/"));
        assert!(!covers("http://127.0.0.1:8188", "http://127.0.0.2:8188/"));
        assert!(covers("https://Example.com", "https://example.com:443/"));
        assert!(!covers("https://example.com", "https://sub.example.com/"));
        assert!(!covers("https://example.com", "https://example.com./"));
        assert!(covers("http://[::1]:8188", "http://[0:0::1]:8188/"));
        assert!(
            covers("http://127.0.0.1", "http://2130706433/"),
            "both sides go through one parser"
        );
    }

    #[test]
    fn a_wildcard_covers_one_label_below_the_apex_and_not_the_apex() {
        assert!(covers(
            "https://*.googleapis.com",
            "https://storage.googleapis.com/"
        ));
        assert!(!covers(
            "https://*.googleapis.com",
            "https://a.b.googleapis.com/"
        ));
        assert!(!covers(
            "https://*.googleapis.com",
            "https://googleapis.com/"
        ));
        assert!(!covers(
            "https://*.googleapis.com",
            "https://evilgoogleapis.com/"
        ));
        assert!(!covers(
            "https://*.googleapis.com",
            "https://x.googleapis.com.evil.org/"
        ));
    }

    #[test]
    fn what_is_no_origin_is_refused_with_the_reason() {
        for (text, error) in [
            ("example.com", OriginError::NoScheme),
            ("ftp://example.com", OriginError::WrongScheme),
            ("https://example.com/path", OriginError::Path),
            ("https://example.com?x", OriginError::Path),
            ("https://me:pw@example.com", OriginError::UserInfo),
            ("https://*.com", OriginError::Wildcard),
            ("https://*", OriginError::Wildcard),
            ("https://a.*.com", OriginError::Wildcard),
            ("https://*.*.example.com", OriginError::Wildcard),
            ("https://", OriginError::Invalid),
            ("https://example.com.", OriginError::Invalid),
        ] {
            assert_eq!(OriginPattern::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn an_origin_is_written_as_it_is_read() {
        for text in [
            "http://127.0.0.1:8188",
            "https://*.googleapis.com",
            "https://ntfy.sh",
            "http://[::1]:8081",
        ] {
            assert_eq!(pattern(text).to_string(), text);
        }
        assert_eq!(
            pattern("HTTPS://Ntfy.SH:443/").to_string(),
            "https://ntfy.sh"
        );
        assert_eq!(
            pattern("ws://gpu2.local:8188").to_string(),
            "http://gpu2.local:8188"
        );
    }
}
