//! A guest's request made ready: everything that can be decided before a name is looked up.

use jiff::Timestamp;
use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use url::Url;

use super::rule::{AllowRule, Grant, Origin};
use super::template::Secrets;
use super::{Egress, Failure, denied, too_large};
use crate::plugin::credential::Credential;
use crate::plugin::text::printable;

const URL_BYTES_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;
const HEADER_BYTES_MAX: usize = 32 * 1024;
/// What a guest writes for the secret base URL of the credential that it names.
const BASE: &str = "credential:";

/// What a guest asked for, of whatever protocol.
pub(super) struct Wanted<'a> {
    pub(super) url: &'a str,
    pub(super) headers: &'a [(String, String)],
    pub(super) credential: Option<&'a str>,
    pub(super) body: Vec<u8>,
    /// Goes out as it is.
    pub(super) body_is_foreign: bool,
}

/// A request that passed the check and is signed. It holds secrets: only `shown` may be logged.
pub(super) struct Ready<'a> {
    pub(super) origin: Origin,
    pub(super) granted: Grant,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: bytes::Bytes,
    /// Its name and itself.
    pub(super) credential: Option<(&'a str, &'a Credential)>,
    /// The path as the guest wrote it, without query.
    pub(super) shown: String,
}

impl Egress {
    /// Checks where it goes, then what it carries, then puts the secrets in.
    pub(super) fn prepare<'a>(&'a self, wanted: Wanted<'_>) -> Result<Ready<'a>, Failure> {
        let credential = wanted.credential.map(|name| self.credential(name));
        let credential = credential.transpose()?;
        let base = credential.and_then(|(_, credential)| credential.base_url());
        let (plain, shown) = match (wanted.url.strip_prefix(BASE), base) {
            (Some(suffix), Some(base)) => {
                let shown = format!("{BASE}{}", suffix.split('?').next().unwrap_or_default());
                (extended(base, suffix)?, shown)
            }
            (None, None) => {
                let url = parse_url(wanted.url)?;
                let shown = url.path().to_owned();
                (url, shown)
            }
            (Some(_), None) => {
                return Err(denied(format!(
                    "`{BASE}` in a url needs a credential of the kind Url"
                )));
            }
            (None, Some(_)) => {
                return Err(denied(format!(
                    "a credential of the kind Url is the url: write `{BASE}/suffix`"
                )));
            }
        };
        let origin = Origin::of(&plain).map_err(|error| denied(error.to_string()))?;
        let granted = match (base, credential) {
            // The operator wrote this one too, if not into `allow`.
            (Some(_), Some((_, credential))) => self.granted_with(&origin, credential.origins())?,
            _ => self.granted_with(&origin, &[])?,
        };
        if let Some((name, credential)) = credential {
            check_binding(name, credential, &origin)?;
        }
        let secrets = Secrets {
            credentials: &self.grant.credentials,
            origin: &origin,
        };
        let url = match base {
            Some(_) => plain,
            None => secrets.fill_url(wanted.url, plain)?,
        };
        let mut headers = self.headers(wanted.headers, credential, &secrets)?;
        let body = match wanted.body_is_foreign {
            true => wanted.body,
            false => secrets.fill_body(wanted.body)?,
        };
        if let Some((_, credential)) = credential {
            credential.sign(&mut headers, &body, Timestamp::now());
        }
        Ok(Ready {
            origin,
            granted,
            url,
            headers,
            body: body.into(),
            credential,
            shown,
        })
    }

    fn credential(&self, name: &str) -> Result<(&str, &Credential), Failure> {
        let found = self.grant.credentials.get_key_value(name);
        let (name, credential) = found.ok_or_else(|| {
            let shown = printable(name, 64);
            let is_url = "Url(env: \"...\")";
            let token = "Bearer(env: \"...\", origins: [\"https://...\"])";
            denied(format!(
                "there is no credential `{shown}`; add to this entry: credentials: {{ \"{shown}\": {token} }}, or {is_url} where the URL itself is the secret"
            ))
        })?;
        Ok((name, credential))
    }

    fn headers(
        &self,
        wanted: &[(String, String)],
        credential: Option<(&str, &Credential)>,
        secrets: &Secrets<'_>,
    ) -> Result<HeaderMap, Failure> {
        let size: usize = wanted.iter().map(|(n, v)| n.len() + v.len()).sum();
        if wanted.len() > HEADERS_MAX || size > HEADER_BYTES_MAX {
            return Err(too_large("the request's headers".into()));
        }
        let mut headers = HeaderMap::new();
        for (name, value) in wanted {
            let shown = printable(name, 64);
            let name = HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| denied(format!("`{shown}` is no header name")))?;
            let reserved = credential.is_some_and(|(_, credential)| credential.reserves(&name));
            if is_forbidden_header(&name) || reserved {
                return Err(denied(format!("a plugin may not set the header `{name}`")));
            }
            let filled = secrets.fill_header(value)?;
            let mut sent = HeaderValue::from_str(filled.as_ref().unwrap_or(value))
                .map_err(|_| denied(format!("the value of header `{name}` cannot be sent")))?;
            sent.set_sensitive(filled.is_some());
            headers.append(name, sent);
        }
        if let Ok(agent) = HeaderValue::from_str(&self.grant.user_agent) {
            headers.entry(USER_AGENT).or_insert(agent);
        }
        Ok(headers)
    }
}

/// A secret goes to its own origins and nowhere else.
pub(super) fn check_binding(
    name: &str,
    credential: &Credential,
    origin: &Origin,
) -> Result<(), Failure> {
    if credential.covers(origin) {
        return Ok(());
    }
    let bound: Vec<String> = credential
        .origins()
        .iter()
        .map(AllowRule::to_string)
        .collect();
    Err(denied(format!(
        "credential `{}` is bound to {}, not to {origin}",
        printable(name, 64),
        bound.join(", ")
    )))
}

/// The secret base URL with what the guest adds: more of a path, more of a query, and no way out of either.
fn extended(base: &Url, suffix: &str) -> Result<Url, Failure> {
    let refused = || denied(format!("write `{BASE}`, `{BASE}/path` or `{BASE}?query`"));
    if suffix.len() > URL_BYTES_MAX {
        return Err(too_large("the url".into()));
    }
    let suffix = suffix.split('#').next().unwrap_or_default();
    let (path, query) = match suffix.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (suffix, None),
    };
    let mut url = base.clone();
    let base_path = base.path().trim_end_matches('/').to_owned();
    if !path.is_empty() {
        if !path.starts_with('/') {
            return Err(refused());
        }
        url.set_path(&format!("{base_path}{path}"));
        let inside = url.path().strip_prefix(&base_path);
        if !inside.is_some_and(|rest| rest.starts_with('/')) {
            return Err(refused());
        }
    }
    if let Some(query) = query {
        let joined = match base.query() {
            Some(secret) => format!("{secret}&{query}"),
            None => query.to_owned(),
        };
        url.set_query(Some(&joined));
    }
    Ok(url)
}

/// Headers that frame or route the request: they are the host's alone.
pub(in crate::plugin) fn is_forbidden_header(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with("proxy-")
        || name.starts_with("sec-websocket-")
        || matches!(
            name,
            "host"
                | "connection"
                | "keep-alive"
                | "te"
                | "trailer"
                | "transfer-encoding"
                | "upgrade"
                | "content-length"
                | "expect"
                | "http2-settings"
        )
}

pub(super) fn parse_url(text: &str) -> Result<Url, Failure> {
    if text.len() > URL_BYTES_MAX {
        return Err(too_large("the url".into()));
    }
    let mut url = Url::parse(text)
        .map_err(|error| denied(format!("`{}` is no url: {error}", printable(text, 200))))?;
    url.set_fragment(None);
    Ok(url)
}

pub(super) fn parse_method(text: &str) -> Result<Method, Failure> {
    match text.to_ascii_uppercase().as_str() {
        "GET" => Ok(Method::GET),
        "HEAD" => Ok(Method::HEAD),
        "POST" => Ok(Method::POST),
        "PUT" => Ok(Method::PUT),
        "PATCH" => Ok(Method::PATCH),
        "DELETE" => Ok(Method::DELETE),
        "OPTIONS" => Ok(Method::OPTIONS),
        _ => Err(denied(format!("method `{}`", printable(text, 32)))),
    }
}
