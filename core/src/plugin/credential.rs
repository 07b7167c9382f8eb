//! Credentials: secrets that the host adds to requests toward the origins they are bound to, and keeps out of every text.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use super::egress::{AllowRule, Origin};

/// A secret value. Its `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a value that was read from the environment or a file; a trailing line break is not part of it.
    pub fn new(value: impl Into<String>) -> Secret {
        let mut value = value.into();
        value.truncate(value.trim_end_matches(['\r', '\n']).len());
        Secret(value)
    }

    fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// How a secret is shown to the far side.
#[derive(Clone, Debug)]
pub enum Scheme {
    /// `authorization: Bearer TOKEN`.
    Bearer(Secret),
    /// `authorization: Basic …`.
    Basic { user: String, password: Secret },
    /// A header of the service's own.
    Header { name: String, value: Secret },
}

/// A secret and the only origins it ever goes to.
#[derive(Clone, Debug)]
pub struct Credential {
    scheme: Scheme,
    origins: Vec<AllowRule>,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CredentialError {
    #[error("it names no origin that it may be sent to")]
    NoOrigin,
    #[error("the secret is empty")]
    Empty,
    #[error("`{0}` is not a header name that a credential may set")]
    HeaderName(String),
    #[error("the secret holds characters that no header can carry")]
    HeaderValue,
    #[error("the user name holds a colon")]
    UserName,
}

impl Credential {
    /// Checks once what every request would otherwise stumble over.
    pub fn new(scheme: Scheme, origins: Vec<AllowRule>) -> Result<Credential, CredentialError> {
        if origins.is_empty() {
            return Err(CredentialError::NoOrigin);
        }
        let secret = match &scheme {
            Scheme::Bearer(secret) => secret,
            Scheme::Basic { user, password } => {
                if user.contains(':') {
                    return Err(CredentialError::UserName);
                }
                password
            }
            Scheme::Header { name, value } => {
                let parsed = HeaderName::from_bytes(name.as_bytes());
                if !parsed.is_ok_and(|name| !super::egress::is_forbidden_header(&name)) {
                    return Err(CredentialError::HeaderName(name.clone()));
                }
                value
            }
        };
        if secret.expose().is_empty() {
            return Err(CredentialError::Empty);
        }
        let credential = Credential { scheme, origins };
        credential.header()?;
        Ok(credential)
    }

    /// Whether the secret may be sent to `origin`.
    pub(super) fn covers(&self, origin: &Origin) -> bool {
        self.origins.iter().any(|rule| rule.matches(origin))
    }

    pub(super) fn origins(&self) -> &[AllowRule] {
        &self.origins
    }

    pub(super) fn header_name(&self) -> HeaderName {
        match &self.scheme {
            Scheme::Bearer(_) | Scheme::Basic { .. } => reqwest::header::AUTHORIZATION,
            Scheme::Header { name, .. } => {
                HeaderName::from_bytes(name.as_bytes()).unwrap_or(reqwest::header::AUTHORIZATION)
            }
        }
    }

    /// Signs: replaces whatever the guest set under this name.
    pub(super) fn apply(&self, headers: &mut HeaderMap) {
        if let Ok((name, value)) = self.header() {
            headers.insert(name, value);
        }
    }

    fn header(&self) -> Result<(HeaderName, HeaderValue), CredentialError> {
        let text = match &self.scheme {
            Scheme::Bearer(token) => format!("Bearer {}", token.expose()),
            Scheme::Basic { user, password } => {
                format!(
                    "Basic {}",
                    base64(format!("{user}:{}", password.expose()).as_bytes())
                )
            }
            Scheme::Header { value, .. } => value.expose().to_owned(),
        };
        let mut value = HeaderValue::from_str(&text).map_err(|_| CredentialError::HeaderValue)?;
        value.set_sensitive(true);
        Ok((self.header_name(), value))
    }

    /// Every text that would give the secret away.
    pub(super) fn tells(&self) -> Vec<String> {
        match &self.scheme {
            Scheme::Bearer(secret) | Scheme::Header { value: secret, .. } => {
                vec![secret.expose().to_owned()]
            }
            Scheme::Basic { user, password } => vec![
                password.expose().to_owned(),
                base64(format!("{user}:{}", password.expose()).as_bytes()),
            ],
        }
    }
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// Replaces known secrets in a text by their names.
#[derive(Clone, Default)]
pub(super) struct Redactor(Arc<[(String, String)]>);

/// A shorter value would blank out half of every log line; it is no secret worth the name either.
const SECRET_BYTES_MIN: usize = 4;

impl Redactor {
    /// Pairs of (name, secret).
    pub(super) fn new(mut secrets: Vec<(String, String)>) -> Redactor {
        secrets.retain(|(_, secret)| secret.len() >= SECRET_BYTES_MIN);
        // Longest first: one secret may be a part of another.
        secrets.sort_by_key(|(_, secret)| std::cmp::Reverse(secret.len()));
        Redactor(secrets.into())
    }

    pub(super) fn of(credentials: &BTreeMap<String, Credential>) -> Redactor {
        let tells = credentials.iter().flat_map(|(name, credential)| {
            let tells = credential.tells();
            tells.into_iter().map(move |tell| (name.clone(), tell))
        });
        Redactor::new(tells.collect())
    }

    pub(super) fn redact(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (name, secret) in self.0.iter() {
            if text.contains(secret.as_str()) {
                text = text.replace(secret.as_str(), &format!("[secret {name}]"));
            }
        }
        text
    }
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redactor({} secrets)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins() -> Vec<AllowRule> {
        vec![AllowRule::parse("https://api.example.com").unwrap()]
    }

    #[test]
    fn a_secret_never_shows_in_debug() {
        let scheme = Scheme::Basic {
            user: "me".into(),
            password: Secret::new("canary\n"),
        };
        let credential = Credential::new(scheme, origins()).unwrap();
        assert!(!format!("{credential:?}").contains("canary"));
        let mut headers = HeaderMap::new();
        credential.apply(&mut headers);
        assert_eq!(headers["authorization"], "Basic bWU6Y2FuYXJ5");
        assert!(!format!("{headers:?}").contains("bWU6"));
    }

    #[test]
    fn secrets_are_replaced_by_their_names_in_every_form() {
        let basic = Scheme::Basic {
            user: "me".into(),
            password: Secret::new("canary"),
        };
        let credentials = BTreeMap::from([
            ("a".to_owned(), Credential::new(basic, origins()).unwrap()),
            (
                "b".to_owned(),
                Credential::new(Scheme::Bearer(Secret::new("canary-long")), origins()).unwrap(),
            ),
        ]);
        let redactor = Redactor::of(&credentials);
        assert_eq!(
            redactor.redact("x canary y canary-long z bWU6Y2FuYXJ5"),
            "x [secret a] y [secret b] z [secret a]"
        );
    }

    #[test]
    fn a_credential_that_could_never_work_is_refused() {
        let bearer = |token: &str| Scheme::Bearer(Secret::new(token));
        let header = |name: &str| Scheme::Header {
            name: name.into(),
            value: Secret::new("value"),
        };
        let error = |scheme, origins| Credential::new(scheme, origins).unwrap_err();
        assert_eq!(error(bearer("x"), vec![]), CredentialError::NoOrigin);
        assert_eq!(error(bearer(""), origins()), CredentialError::Empty);
        assert_eq!(
            error(bearer("a\r\nb: c"), origins()),
            CredentialError::HeaderValue
        );
        for name in ["host", "Transfer-Encoding", "a b", ""] {
            let expected = CredentialError::HeaderName(name.into());
            assert_eq!(error(header(name), origins()), expected);
        }
    }
}
