//! Google's credentials: an access token when one is needed, had once for all who wait, and renewed before it expires.
//!
//! The accounts and their exchanges are ours because no crate leaves the connection to us: see the commit that added them.

mod account;
mod exchange;
mod jwt;
mod search;

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use tokio::sync::Mutex;
use weir_model::config;
use weir_model::observation::FailureKind;

use super::super::Failure;
use super::super::egress::Egress;
use super::{Redactor, Secret, header_value};
use account::Account;
use exchange::Exchange;

pub(in crate::plugin) use exchange::{TokenAnswer, TokenRequest};
pub use search::default_account;

const USER_PROJECT: HeaderName = HeaderName::from_static("x-goog-user-project");
/// As Google's own library: early enough that a token lasts for a slow request.
const REFRESH_BEFORE: Duration = Duration::from_secs(225);
/// A renewal that failed may still use a token that lasts this long.
const USABLE_MIN: Duration = Duration::from_secs(10);
/// So long the failure of one renewal is the answer to everybody: those who waited for it would only ask again.
const FAILURE_SHARED: Duration = Duration::from_secs(5);

/// One account, and the token that was last had for it.
pub(in crate::plugin) struct Google {
    account: Account,
    scopes: Vec<String>,
    quota_project: Option<HeaderValue>,
    /// The wait before the second attempt at a token endpoint; it doubles.
    retry_base: Duration,
    /// Held while a token is fetched: whoever else needs one waits for that one.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    token: Option<Arc<Token>>,
    failed: Option<(Instant, Failure)>,
}

/// An access token.
pub(in crate::plugin) struct Token {
    header: HeaderValue,
    expires: Instant,
    refresh: Instant,
}

impl Token {
    fn new(fetched: &Fetched, now: Instant) -> Result<Token, Failure> {
        let header = header_value(&format!("Bearer {}", fetched.text))
            .map_err(|error| rejected(format!("the token endpoint's token: {error}")))?;
        // A token that never lasts so long is renewed half-way, not for every request.
        let early = match fetched.lifetime > REFRESH_BEFORE {
            true => REFRESH_BEFORE,
            false => fetched.lifetime / 2,
        };
        let expires = now.checked_add(fetched.lifetime).unwrap_or(now);
        Ok(Token {
            header,
            expires,
            refresh: expires.checked_sub(early).unwrap_or(now),
        })
    }
}

/// What an exchange came to.
pub(super) struct Fetched {
    pub(super) text: String,
    pub(super) lifetime: Duration,
}

impl Google {
    /// `account`: the JSON of a credential file; None = the metadata server.
    pub(super) fn new(
        account: Option<&Secret>,
        options: &config::Google,
    ) -> Result<Google, String> {
        let (account, project) = match account {
            Some(secret) => Account::parse(secret.expose(), options)?,
            None => (Account::metadata(options)?, None),
        };
        let project = options.quota_project.clone().or(project);
        let quota_project = project
            .map(|project| HeaderValue::from_str(&project))
            .transpose()
            .map_err(|_| "the quota project cannot be sent".to_owned())?;
        Ok(Google {
            account,
            scopes: options.scopes.clone(),
            quota_project,
            retry_base: Duration::from_secs(1),
            state: Mutex::default(),
        })
    }

    /// Secrets of the file itself.
    pub(super) fn tells(&self) -> Vec<String> {
        self.account.tells()
    }

    pub(super) fn reserves(&self, header: &HeaderName) -> bool {
        *header == AUTHORIZATION || (*header == USER_PROJECT && self.quota_project.is_some())
    }

    #[cfg(test)]
    pub(super) fn retry_after(&mut self, base: Duration) {
        self.retry_base = base;
    }

    pub(in crate::plugin) fn apply(&self, token: &Token, headers: &mut HeaderMap) {
        headers.insert(AUTHORIZATION, token.header.clone());
        if let Some(project) = &self.quota_project {
            headers.insert(USER_PROJECT, project.clone());
        }
    }

    /// A token that lasts; `refused`: one that the far side answered with 401.
    pub(in crate::plugin) async fn token(
        &self,
        name: &str,
        egress: &Egress,
        redactor: &Redactor,
        refused: Option<&Token>,
    ) -> Result<Arc<Token>, Failure> {
        let mut state = self.state.lock().await;
        let now = Instant::now();
        let is_refused = |token: &Token| refused.is_some_and(|it| it.header == token.header);
        let held = state.token.clone().filter(|token| !is_refused(token));
        if let Some(token) = held.as_ref().filter(|token| now < token.refresh) {
            return Ok(Arc::clone(token));
        }
        if let Some((at, failure)) = &state.failed
            && now.saturating_duration_since(*at) < FAILURE_SHARED
        {
            return held
                .filter(|token| usable(token, now))
                .ok_or_else(|| failure.clone());
        }
        let exchange = Exchange {
            egress,
            scopes: &self.scopes,
            retry_base: self.retry_base,
            now: Timestamp::now(),
            learn: &|secret| redactor.learn(name, secret),
        };
        let fetched = exchange.run(&self.account).await;
        let made = fetched.and_then(|fetched| Token::new(&fetched, now));
        match made {
            Ok(token) => {
                let token = Arc::new(token);
                state.token = Some(Arc::clone(&token));
                state.failed = None;
                Ok(token)
            }
            Err(mut failure) => {
                redactor.clean(&mut failure.message);
                failure.message = format!("{} (a token for credential `{name}`)", failure.message);
                state.failed = Some((Instant::now(), failure.clone()));
                if held.is_none() {
                    state.token = None;
                }
                let Some(token) = held.filter(|token| usable(token, now)) else {
                    return Err(failure);
                };
                tracing::warn!(credential = name, "token not renewed: {}", failure.message);
                Ok(token)
            }
        }
    }
}

fn usable(token: &Token, now: Instant) -> bool {
    token.expires.saturating_duration_since(now) >= USABLE_MIN
}

/// Nothing but another credential or another clock helps.
fn rejected(detail: String) -> Failure {
    Failure::new(FailureKind::Misconfigured, format!("denied: {detail}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_renewed_225_seconds_before_its_end_and_a_short_one_half_way() {
        let now = Instant::now();
        for (lifetime, refresh) in [(3600, 3375), (226, 1), (225, 112), (60, 30), (0, 0)] {
            let fetched = Fetched {
                text: "ya29.x".into(),
                lifetime: Duration::from_secs(lifetime),
            };
            let token = Token::new(&fetched, now).unwrap();
            assert_eq!((token.refresh - now).as_secs(), refresh, "{lifetime}");
        }
        let unusable = Fetched {
            text: "a\nb".into(),
            lifetime: Duration::ZERO,
        };
        assert!(Token::new(&unusable, now).is_err());
    }
}
