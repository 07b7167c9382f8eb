//! Credentials: secrets that the host adds to requests toward the origins they are bound to, and keeps out of every text.

mod google;
mod redact;
mod webhook;

use std::fmt;
use std::sync::Arc;
use subtle::ConstantTimeEq as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use ring::hmac;
use sha2::{Digest, Sha256};
use url::Url;
use weir_model::config;

use super::egress::{AllowRule, Origin};

pub use google::default_account;
pub(super) use google::{Google, Token, TokenAnswer, TokenRequest};
pub(crate) use redact::Redactor;
pub(super) use redact::SEGMENT;

/// Parts of a secret URL that give it away by themselves: shorter ones are words such as `services`.
const URL_PART_BYTES_MIN: usize = 16;

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

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl Secret {
    /// Whether somebody showed this secret; takes as long whatever is wrong about it. One that could be guessed is nobody's.
    pub fn is(&self, shown: &str) -> bool {
        let known = self.0.trim();
        known.len() >= TOKEN_LEN_MIN && bool::from(shown.as_bytes().ct_eq(known.as_bytes()))
    }
}

/// Bytes of a token that weir is shown.
const TOKEN_LEN_MIN: usize = 16;

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
    /// A base URL that is the secret itself; a guest extends it: `credential:/suffix`.
    Url(Secret),
    /// `webhook-id`, `webhook-timestamp` and `webhook-signature` over the body; the secret is `whsec_<base64>`.
    StandardWebhooks(Secret),
    /// Put where a guest writes `{{secret:NAME}}`.
    Secret(Secret),
    /// `authorization: Bearer …` with a token that Google gave. `account`: the JSON of a credential file; None = the
    /// metadata server.
    Google {
        account: Option<Secret>,
        options: Box<config::Google>,
    },
}

impl Scheme {
    fn digest(&self) -> [u8; 32] {
        let secret = match self {
            Scheme::Bearer(secret)
            | Scheme::Basic {
                password: secret, ..
            }
            | Scheme::Header { value: secret, .. }
            | Scheme::Url(secret)
            | Scheme::StandardWebhooks(secret)
            | Scheme::Secret(secret) => Some(secret),
            Scheme::Google { account, .. } => account.as_ref(),
        };
        let mut digest = Sha256::new();
        // All but the secret, which no debug output shows.
        digest.update(format!("{self:?} "));
        digest.update(secret.map_or("", Secret::expose));
        digest.finalize().into()
    }
}

/// A secret and the only origins it ever goes to.
#[derive(Clone)]
pub struct Credential {
    kind: Kind,
    origins: Vec<AllowRule>,
    /// Every text that would give the secret away.
    tells: Vec<String>,
    /// Of the scheme with all its options and its secret.
    digest: [u8; 32],
}

/// A scheme that was found to work.
#[derive(Clone)]
enum Kind {
    Header {
        name: HeaderName,
        value: HeaderValue,
    },
    Url(Box<Url>),
    StandardWebhooks(hmac::Key),
    Template(Secret),
    Google(Arc<Google>),
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
    #[error(
        "the secret is no absolute http:// or https:// URL without user, password and fragment"
    )]
    Url,
    #[error("the secret URL goes to {0}, which is not among its origins")]
    UrlOrigin(String),
    #[error("the secret is not whsec_ followed by base64")]
    WebhookSecret,
    #[error("the secret consists of dots, which no path can carry")]
    Dots,
    #[error("{0}")]
    Google(String),
}

impl Credential {
    /// Checks once what every request would otherwise stumble over. Only `Url` may leave out its origins: it has one.
    pub fn new(scheme: Scheme, origins: Vec<AllowRule>) -> Result<Credential, CredentialError> {
        let mut origins = origins;
        let digest = scheme.digest();
        let (kind, tells) = match scheme {
            Scheme::Bearer(token) => {
                let token = some(&token)?;
                let value = header_value(&format!("Bearer {token}"))?;
                (signed(AUTHORIZATION, value), vec![token.to_owned()])
            }
            Scheme::Basic { user, password } => basic(&user, some(&password)?)?,
            Scheme::Header { name, value } => {
                let parsed = HeaderName::from_bytes(name.as_bytes())
                    .ok()
                    .filter(|name| !super::egress::is_forbidden_header(name))
                    .ok_or(CredentialError::HeaderName(name))?;
                let value = some(&value)?;
                (signed(parsed, header_value(value)?), vec![value.to_owned()])
            }
            Scheme::Url(secret) => {
                let url = secret_url(some(&secret)?, &mut origins)?;
                let tells = url_tells(secret.expose(), &url);
                (Kind::Url(Box::new(url)), tells)
            }
            Scheme::StandardWebhooks(secret) => {
                let text = some(&secret)?;
                let key = webhook::key(text).ok_or(CredentialError::WebhookSecret)?;
                let bare = text.strip_prefix("whsec_").unwrap_or(text).to_owned();
                (Kind::StandardWebhooks(key), vec![text.to_owned(), bare])
            }
            Scheme::Secret(secret) => {
                let text = some(&secret)?;
                if text.bytes().all(|byte| byte == b'.') {
                    return Err(CredentialError::Dots);
                }
                let tells = vec![text.to_owned()];
                (Kind::Template(secret), tells)
            }
            Scheme::Google { account, options } => {
                let google = Google::new(account.as_ref(), &options);
                let google = google.map_err(CredentialError::Google)?;
                let tells = google.tells();
                (Kind::Google(Arc::new(google)), tells)
            }
        };
        if origins.is_empty() {
            return Err(CredentialError::NoOrigin);
        }
        Ok(Credential {
            kind,
            origins,
            tells,
            digest,
        })
    }

    /// Whether the secret may be sent to `origin`.
    pub(super) fn covers(&self, origin: &Origin) -> bool {
        self.origins.iter().any(|rule| rule.matches(origin))
    }

    pub(super) fn origins(&self) -> &[AllowRule] {
        &self.origins
    }

    /// The secret base URL, for a guest that wrote `credential:`.
    pub(super) fn base_url(&self) -> Option<&Url> {
        match &self.kind {
            Kind::Url(url) => Some(url),
            _ => None,
        }
    }

    /// What stands for `{{secret:NAME}}`.
    pub(super) fn template(&self) -> Option<&str> {
        match &self.kind {
            Kind::Template(secret) => Some(secret.expose()),
            _ => None,
        }
    }

    /// Where its tokens come from, if it needs any.
    pub(super) fn google(&self) -> Option<&Arc<Google>> {
        match &self.kind {
            Kind::Google(google) => Some(google),
            _ => None,
        }
    }

    #[cfg(test)]
    pub(super) fn retry_after(&mut self, base: std::time::Duration) {
        if let Kind::Google(google) = &mut self.kind {
            let google = Arc::get_mut(google).expect("nobody shares it yet");
            google.retry_after(base);
        }
    }

    /// Whether a guest that uses it has to leave this header to the host.
    pub(super) fn reserves(&self, header: &HeaderName) -> bool {
        match &self.kind {
            // It signs nothing by itself: the guest writes it where it belongs.
            Kind::Template(_) => false,
            Kind::Header { name, .. } => header == name || *header == AUTHORIZATION,
            Kind::Url(_) => *header == AUTHORIZATION,
            Kind::StandardWebhooks(_) => {
                [webhook::TIMESTAMP, webhook::SIGNATURE, AUTHORIZATION].contains(header)
            }
            Kind::Google(google) => google.reserves(header),
        }
    }

    /// Signs a request of which nothing will change any more. `Google` does so with a token, once there is one.
    pub(super) fn sign(&self, headers: &mut HeaderMap, body: &[u8], now: Timestamp) {
        match &self.kind {
            Kind::Header { name, value } => {
                headers.insert(name.clone(), value.clone());
            }
            Kind::StandardWebhooks(key) => webhook::sign(key, headers, body, now),
            Kind::Url(_) | Kind::Template(_) | Kind::Google(_) => {}
        }
    }

    /// Differs where the scheme, one of its options or the secret does.
    pub(super) fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// Every text that would give the secret away.
    pub(super) fn tells(&self) -> &[String] {
        &self.tells
    }

    /// The word in monitor.ron.
    pub(super) fn kind_name(&self) -> &'static str {
        match &self.kind {
            Kind::Header { name, value } if *name == AUTHORIZATION => {
                match value.as_bytes().starts_with(b"Basic ") {
                    true => "Basic",
                    false => "Bearer",
                }
            }
            Kind::Header { .. } => "Header",
            Kind::Url(_) => "Url",
            Kind::StandardWebhooks(_) => "StandardWebhooks",
            Kind::Template(_) => "Secret",
            Kind::Google(_) => "Google",
        }
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origins = self.origins.iter().map(AllowRule::to_string);
        write!(
            f,
            "{}(…, {:?})",
            self.kind_name(),
            origins.collect::<Vec<_>>()
        )
    }
}

fn some(secret: &Secret) -> Result<&str, CredentialError> {
    match secret.expose() {
        "" => Err(CredentialError::Empty),
        text => Ok(text),
    }
}

fn signed(name: HeaderName, value: HeaderValue) -> Kind {
    Kind::Header { name, value }
}

/// A header's value that no debug output shows.
pub(super) fn header_value(text: &str) -> Result<HeaderValue, CredentialError> {
    let mut value = HeaderValue::from_str(text).map_err(|_| CredentialError::HeaderValue)?;
    value.set_sensitive(true);
    Ok(value)
}

fn basic(user: &str, password: &str) -> Result<(Kind, Vec<String>), CredentialError> {
    if user.contains(':') {
        return Err(CredentialError::UserName);
    }
    let both = STANDARD.encode(format!("{user}:{password}"));
    let value = header_value(&format!("Basic {both}"))?;
    let bare = both.trim_end_matches('=').to_owned();
    let tells = vec![password.to_owned(), both, bare];
    Ok((signed(AUTHORIZATION, value), tells))
}

/// The URL, whose own origin is what it is bound to where nothing else was said.
fn secret_url(text: &str, origins: &mut Vec<AllowRule>) -> Result<Url, CredentialError> {
    let url = Url::parse(text.trim()).map_err(|_| CredentialError::Url)?;
    let origin = Origin::of(&url).map_err(|_| CredentialError::Url)?;
    if url.fragment().is_some() {
        return Err(CredentialError::Url);
    }
    if origins.is_empty() {
        origins.push(AllowRule::exactly(origin.clone()));
    }
    if origins.iter().any(|rule| rule.matches(&origin)) {
        Ok(url)
    } else {
        Err(CredentialError::UrlOrigin(origin.to_string()))
    }
}

/// The URL as it was written and as it is sent, what follows its origin, and each long part of that.
fn url_tells(written: &str, url: &Url) -> Vec<String> {
    let mut tells = vec![written.to_owned(), url.as_str().to_owned()];
    let path = url.path().trim_end_matches('/');
    if path.len() >= URL_PART_BYTES_MIN {
        tells.push(path.to_owned());
    }
    tells.extend(url.query().map(str::to_owned));
    let values = url.query_pairs().map(|(_, value)| value.into_owned());
    let parts = path.split('/').map(str::to_owned).chain(values);
    tells.extend(parts.filter(|part| part.len() >= URL_PART_BYTES_MIN));
    tells
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn origins() -> Vec<AllowRule> {
        vec![AllowRule::parse("https://api.example.com").unwrap()]
    }

    #[test]
    fn a_secret_never_shows_in_debug() {
        let secret = || Secret::new("canary\n");
        let schemes = [
            Scheme::Bearer(secret()),
            Scheme::Basic {
                user: "me".into(),
                password: secret(),
            },
            Scheme::Header {
                name: "x-key".into(),
                value: secret(),
            },
            Scheme::Url(Secret::new("https://api.example.com/canary")),
            Scheme::StandardWebhooks(Secret::new("whsec_canary12canary12")),
            Scheme::Secret(secret()),
        ];
        for scheme in schemes {
            assert!(!format!("{scheme:?}").contains("canary"));
            let credential = Credential::new(scheme, origins()).unwrap();
            assert!(!format!("{credential:?}").contains("canary"));
            let mut headers = HeaderMap::new();
            credential.sign(&mut headers, b"", Timestamp::UNIX_EPOCH);
            assert!(!format!("{headers:?}").contains("canary"));
            assert!(!format!("{headers:?}").contains("bWU6"));
        }
        let basic = Scheme::Basic {
            user: "me".into(),
            password: secret(),
        };
        let mut headers = HeaderMap::new();
        let basic = Credential::new(basic, origins()).unwrap();
        basic.sign(&mut headers, b"", Timestamp::UNIX_EPOCH);
        assert_eq!(headers["authorization"], "Basic bWU6Y2FuYXJ5");
    }

    #[test]
    fn secrets_are_replaced_by_their_names_in_every_form() {
        let basic = Scheme::Basic {
            user: "me".into(),
            password: Secret::new("canary"),
        };
        let url = "https://api.example.com/services/T000/sEcReTsEcReTsEcReT?sig=0123456789abcdefg";
        let made = |scheme| Credential::new(scheme, origins()).unwrap();
        let credentials = BTreeMap::from([
            ("a".to_owned(), made(basic)),
            (
                "b".to_owned(),
                made(Scheme::Bearer(Secret::new("canary-long"))),
            ),
            ("u".to_owned(), made(Scheme::Url(Secret::new(url)))),
        ]);
        let redactor = Redactor::of(&credentials);
        for (text, expected) in [
            (
                "x canary y canary-long z bWU6Y2FuYXJ5",
                "x [secret a] y [secret b] z [secret a]",
            ),
            (url, "[secret u]"),
            ("at sEcReTsEcReTsEcReT/x", "at [secret u]/x"),
            ("sig 0123456789abcdefg", "sig [secret u]"),
            ("/services/T000/sEcReTsEcReTsEcReT", "[secret u]"),
            ("services", "services"),
        ] {
            assert_eq!(redactor.redact(text), expected);
        }
    }

    #[test]
    fn a_credential_that_could_never_work_is_refused() {
        let bearer = |token: &str| Scheme::Bearer(Secret::new(token));
        let header = |name: &str| Scheme::Header {
            name: name.into(),
            value: Secret::new("value"),
        };
        let url = |text: &str| Scheme::Url(Secret::new(text));
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
        for text in [
            "hooks.example.com/x",
            "ftp://api.example.com/x",
            "https://me:pw@api.example.com/x",
            "https://api.example.com/x#y",
        ] {
            assert_eq!(error(url(text), vec![]), CredentialError::Url, "{text}");
        }
        assert_eq!(
            error(url("https://evil.example/x"), origins()),
            CredentialError::UrlOrigin("https://evil.example".into())
        );
        assert!(Credential::new(url("https://any.example/x"), vec![]).is_ok());
        let webhooks = Scheme::StandardWebhooks(Secret::new("hunter2!"));
        assert_eq!(error(webhooks, origins()), CredentialError::WebhookSecret);
        let dots = Scheme::Secret(Secret::new(".."));
        assert_eq!(error(dots, origins()), CredentialError::Dots);
    }
}
