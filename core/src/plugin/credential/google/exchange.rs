//! Exchanges with token endpoints: one function per kind of account, bounded attempts, answers believed with care.

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use url::{Url, form_urlencoded};
use weir_model::observation::FailureKind;

use super::super::super::Failure;
use super::super::super::egress::Egress;
use super::super::super::text::printable;
use super::account::{Account, External, Impersonation, Subject};
use super::{Fetched, jwt, rejected};

const CLOUD_PLATFORM: &str = "https://www.googleapis.com/auth/cloud-platform";
const ACCESS_TOKEN_TYPE: &str = "urn:ietf:params:oauth:token-type:access_token";
const ATTEMPTS_MAX: u32 = 3;
const TIMEOUT: Duration = Duration::from_secs(10);
const METADATA_TIMEOUT: Duration = Duration::from_secs(3);
/// What a token endpoint may say about how long a token lasts.
const LIFETIME_MAX: Duration = Duration::from_secs(24 * 60 * 60);
const SUBJECT_BYTES_MAX: u64 = 64 * 1024;

/// A request to an endpoint that belongs to the credential, not to the guest's allow-list.
pub(in crate::plugin) struct TokenRequest {
    pub(in crate::plugin) method: Method,
    pub(in crate::plugin) url: Url,
    pub(in crate::plugin) headers: Vec<(&'static str, String)>,
    pub(in crate::plugin) body: Vec<u8>,
    pub(in crate::plugin) timeout: Duration,
    /// The metadata server is the one link-local address that is meant.
    pub(in crate::plugin) is_metadata: bool,
}

pub(in crate::plugin) struct TokenAnswer {
    pub(in crate::plugin) status: u16,
    /// `metadata-flavor` of the answer.
    pub(in crate::plugin) flavor: Option<String>,
    pub(in crate::plugin) body: Vec<u8>,
}

/// Everything that one renewal needs beside the account.
pub(super) struct Exchange<'a> {
    pub(super) egress: &'a Egress,
    pub(super) scopes: &'a [String],
    pub(super) retry_base: Duration,
    pub(super) now: Timestamp,
    /// Told every token before anything else happens to it.
    pub(super) learn: &'a (dyn Fn(&str) + Sync),
}

#[derive(Deserialize)]
struct TokenBody {
    access_token: String,
    /// Seconds; some write it in quotes.
    #[serde(default)]
    expires_in: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ImpersonatedBody {
    access_token: String,
    expire_time: Timestamp,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ErrorBody {
    error: Value,
    error_description: Option<String>,
}

impl Exchange<'_> {
    pub(super) async fn run(&self, account: &Account) -> Result<Fetched, Failure> {
        match account {
            Account::Impersonated { source, hop } => {
                let first = self.plain(source, &[CLOUD_PLATFORM.to_owned()]).await?;
                self.impersonate(hop, &first).await
            }
            Account::External(external) => match &external.hop {
                Some(hop) => {
                    let first = self.plain(account, &[CLOUD_PLATFORM.to_owned()]).await?;
                    self.impersonate(hop, &first).await
                }
                None => self.plain(account, self.scopes).await,
            },
            _ => self.plain(account, self.scopes).await,
        }
    }

    /// One exchange without impersonation after it.
    async fn plain(&self, account: &Account, scopes: &[String]) -> Result<Fetched, Failure> {
        match account {
            Account::Service {
                signer, token_url, ..
            } => match token_url {
                None => {
                    let text = signer.access_token(scopes, self.now).map_err(rejected)?;
                    (self.learn)(&text);
                    let lifetime = u64::try_from(jwt::LIFETIME_SECONDS).unwrap_or_default();
                    Ok(Fetched {
                        text,
                        lifetime: Duration::from_secs(lifetime),
                    })
                }
                Some(url) => {
                    let assertion = signer.assertion(scopes, self.now).map_err(rejected)?;
                    (self.learn)(&assertion);
                    let grant = "urn:ietf:params:oauth:grant-type:jwt-bearer";
                    let fields = [("grant_type", grant), ("assertion", &assertion)];
                    self.post_form(url, &fields, vec![]).await
                }
            },
            Account::User {
                client_id,
                client_secret,
                refresh_token,
                token_url,
            } => {
                let fields = [
                    ("grant_type", "refresh_token"),
                    ("client_id", client_id),
                    ("client_secret", client_secret),
                    ("refresh_token", refresh_token),
                ];
                self.post_form(token_url, &fields, vec![]).await
            }
            Account::External(external) => self.external(external, scopes).await,
            Account::Impersonated { .. } => {
                // Such a file was refused when it was read.
                Err(rejected(
                    "an impersonated account cannot be the source of another".into(),
                ))
            }
            Account::Metadata { base } => self.metadata(base, scopes).await,
        }
    }

    async fn external(&self, external: &External, scopes: &[String]) -> Result<Fetched, Failure> {
        let subject = self.subject(&external.subject).await?;
        (self.learn)(&subject);
        let scope = scopes.join(" ");
        let mut fields = vec![
            (
                "grant_type",
                "urn:ietf:params:oauth:grant-type:token-exchange",
            ),
            ("audience", external.audience.as_str()),
            ("scope", &scope),
            ("requested_token_type", ACCESS_TOKEN_TYPE),
            ("subject_token", &subject),
            ("subject_token_type", &external.subject_token_type),
        ];
        let options = external.user_project.as_ref();
        let options = options.map(|project| json!({ "userProject": project }).to_string());
        if let (Some(options), None) = (&options, &external.client) {
            fields.push(("options", options));
        }
        let client = external.client.as_ref().map(|(id, secret)| {
            let both = STANDARD.encode(format!("{id}:{secret}"));
            (self.learn)(&both);
            ("authorization", format!("Basic {both}"))
        });
        let headers = client.into_iter().collect();
        self.post_form(&external.token_url, &fields, headers).await
    }

    /// The token of the other issuer.
    async fn subject(&self, subject: &Subject) -> Result<String, Failure> {
        let (text, field) = match subject {
            Subject::File { path, field } => (read_subject(path).await?, field),
            Subject::Url {
                url,
                headers,
                field,
            } => {
                // Names come from the file; those known to be asked for have a place here.
                let headers = headers.iter().filter_map(|(name, value)| {
                    let known = ["authorization", "metadata", "x-aws-ec2-metadata-token"];
                    let name = known.into_iter().find(|it| name.eq_ignore_ascii_case(it))?;
                    Some((name, value.clone()))
                });
                let request = TokenRequest {
                    method: Method::GET,
                    url: url.clone(),
                    headers: headers.collect(),
                    body: vec![],
                    timeout: TIMEOUT,
                    // Azure's identity endpoint is at the link-local address too.
                    is_metadata: true,
                };
                let answer = self.ask(request).await?;
                let text = String::from_utf8(answer.body);
                let text = text.map_err(|_| rejected("the subject token is no text".into()))?;
                (text, field)
            }
        };
        let Some(field) = field else {
            return Ok(text.trim().to_owned());
        };
        let json: Option<Value> = serde_json::from_str(&text).ok();
        let token = json.as_ref().and_then(|json| json.get(field)?.as_str());
        let shown = printable(field, 64);
        token.map(str::to_owned).ok_or_else(|| {
            rejected(format!(
                "the subject token's JSON has no text field `{shown}`"
            ))
        })
    }

    async fn impersonate(&self, hop: &Impersonation, first: &Fetched) -> Result<Fetched, Failure> {
        let mut body = json!({
            "scope": self.scopes,
            "lifetime": format!("{}s", hop.lifetime_seconds),
        });
        if !hop.delegates.is_empty() {
            body["delegates"] = hop.delegates.clone().into();
        }
        let request = TokenRequest {
            method: Method::POST,
            url: hop.url.clone(),
            headers: vec![
                ("authorization", format!("Bearer {}", first.text)),
                ("content-type", "application/json".into()),
            ],
            body: body.to_string().into_bytes(),
            timeout: TIMEOUT,
            is_metadata: false,
        };
        let answer = self.ask(request).await?;
        let answer: ImpersonatedBody = parse(&answer.body)?;
        (self.learn)(&answer.access_token);
        let lifetime = answer.expire_time.duration_since(Timestamp::now());
        Ok(Fetched {
            text: answer.access_token,
            lifetime: Duration::try_from(lifetime)
                .unwrap_or_default()
                .min(LIFETIME_MAX),
        })
    }

    async fn metadata(&self, base: &Url, scopes: &[String]) -> Result<Fetched, Failure> {
        let mut url = base.clone();
        url.set_path("/computeMetadata/v1/instance/service-accounts/default/token");
        url.query_pairs_mut()
            .append_pair("scopes", &scopes.join(","));
        let request = TokenRequest {
            method: Method::GET,
            url,
            headers: vec![("metadata-flavor", "Google".into())],
            body: vec![],
            timeout: METADATA_TIMEOUT,
            is_metadata: true,
        };
        let answer = self.ask(request).await?;
        if answer.flavor.as_deref() != Some("Google") {
            return Err(rejected(
                "what answered is not Google's metadata server".into(),
            ));
        }
        self.token(&answer.body)
    }

    async fn post_form(
        &self,
        url: &Url,
        fields: &[(&str, &str)],
        mut headers: Vec<(&'static str, String)>,
    ) -> Result<Fetched, Failure> {
        headers.push(("content-type", "application/x-www-form-urlencoded".into()));
        let request = TokenRequest {
            method: Method::POST,
            url: url.clone(),
            headers,
            body: form(fields),
            timeout: TIMEOUT,
            is_metadata: false,
        };
        let answer = self.ask(request).await?;
        self.token(&answer.body)
    }

    fn token(&self, body: &[u8]) -> Result<Fetched, Failure> {
        let body: TokenBody = parse(body)?;
        (self.learn)(&body.access_token);
        let seconds = match &body.expires_in {
            Value::Number(number) => number.as_u64(),
            Value::String(text) => text.parse().ok(),
            _ => None,
        };
        Ok(Fetched {
            text: body.access_token,
            // RFC 6749 lets it be left out; Google's tokens last an hour.
            lifetime: Duration::from_secs(seconds.unwrap_or(3600)).min(LIFETIME_MAX),
        })
    }

    /// Asks up to three times where an answer says that it may help.
    async fn ask(&self, request: TokenRequest) -> Result<TokenAnswer, Failure> {
        let mut attempt = 1;
        loop {
            let failure = match self.egress.fetch_token(&request).await {
                Ok(answer) if answer.status < 300 => return Ok(answer),
                Ok(answer) => refusal(&request.url, &answer),
                Err(failure) => failure,
            };
            let passing = failure.kind == Some(FailureKind::Transient);
            if !passing || attempt >= ATTEMPTS_MAX {
                return Err(failure);
            }
            let jitter = 0.9 + 0.2 * rand::random::<f64>();
            let wait = self.retry_base * 2_u32.pow(attempt - 1);
            tokio::time::sleep(wait.mul_f64(jitter)).await;
            attempt += 1;
        }
    }
}

fn form(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.extend_pairs(fields);
    form.finish().into_bytes()
}

async fn read_subject(path: &Path) -> Result<String, Failure> {
    let unreadable = |error: std::io::Error| {
        rejected(format!(
            "cannot read the subject token {}: {error}",
            path.display()
        ))
    };
    let length = tokio::fs::metadata(path).await.map_err(unreadable)?.len();
    if length > SUBJECT_BYTES_MAX {
        let shown = path.display();
        return Err(rejected(format!("the subject token {shown} is too large")));
    }
    tokio::fs::read_to_string(path).await.map_err(unreadable)
}

fn parse<T: for<'de> Deserialize<'de>>(body: &[u8]) -> Result<T, Failure> {
    // The body is no part of the message: it may hold a token.
    serde_json::from_slice(body).map_err(|_| {
        let message = "protocol: the token endpoint's answer is not as expected".to_owned();
        Failure::new(FailureKind::Transient, message)
    })
}

/// What a token endpoint said no with: its own short words, never its whole answer.
fn refusal(url: &Url, answer: &TokenAnswer) -> Failure {
    let body: ErrorBody = serde_json::from_slice(&answer.body).unwrap_or_default();
    // `"error": "invalid_grant"`, or Google's own `"error": {"status": …, "message": …}`.
    let part = |name: &str| body.error.get(name).and_then(Value::as_str);
    let words = [
        body.error.as_str().or_else(|| part("status")),
        body.error_description
            .as_deref()
            .or_else(|| part("message")),
    ];
    let words: Vec<String> = words
        .into_iter()
        .flatten()
        .map(|word| printable(word, 200))
        .collect();
    let said = format!(
        "{} answered {} {}",
        url.origin().ascii_serialization(),
        answer.status,
        words.join(": ")
    );
    match answer.status {
        408 | 429 | 500.. => Failure::new(
            FailureKind::Transient,
            format!("protocol: {}", said.trim_end()),
        ),
        _ => rejected(said.trim_end().to_owned()),
    }
}
