//! Credentials of a check: of the kinds that the plugin is given elsewhere, with secrets made up, for the built-in far side alone.

use super::far_side::{FarSide, TOKEN_PATH};
use serde_json::json;
use url::Url;
use weir_core::plugin::{AllowRule, Credential, CredentialError, Scheme, Secret};
use weir_model::config::{CredentialKind, Google};

const SECRET: &str = "a-secret-of-the-check";
/// The same in the form that Standard Webhooks want.
const WEBHOOK_KEY: &str = "whsec_YS1zZWNyZXQtb2YtdGhlLWNoZWNrLTMyLWJ5dGVzISE=";

/// A credential of this kind that goes to `origin` and nowhere else. Tokens for it come from `far`, whatever its mood.
pub(super) fn made_up(
    kind: &CredentialKind,
    origin: &str,
    far: &FarSide,
) -> Result<Credential, CredentialError> {
    let secret = || Secret::new(SECRET);
    let scheme = match kind {
        CredentialKind::Bearer => Scheme::Bearer(secret()),
        CredentialKind::Basic { user } => Scheme::Basic {
            user: user.clone(),
            password: secret(),
        },
        CredentialKind::Header { name } => Scheme::Header {
            name: name.clone(),
            value: secret(),
        },
        CredentialKind::Url => Scheme::Url(Secret::new(format!("{origin}/check/{SECRET}"))),
        CredentialKind::StandardWebhooks => Scheme::StandardWebhooks(Secret::new(WEBHOOK_KEY)),
        CredentialKind::Secret => Scheme::Secret(secret()),
        CredentialKind::Google(options) => google(options, far),
    };
    Credential::new(scheme, AllowRule::parse(origin).into_iter().collect())
}

/// Whatever account it is elsewhere, what the plugin sees of it is a token.
fn google(options: &Google, far: &FarSide) -> Scheme {
    let account = json!({
        "type": "authorized_user", "client_id": "check", "client_secret": SECRET, "refresh_token": SECRET,
    });
    let mut options = Box::new(options.clone());
    options.endpoints.token = Url::parse(&format!("{}{TOKEN_PATH}", far.origin())).ok();
    Scheme::Google {
        account: Some(Secret::new(account.to_string())),
        options,
    }
}

/// The word in monitor.ron.
pub(super) fn word(kind: &CredentialKind) -> &'static str {
    match kind {
        CredentialKind::Bearer => "Bearer",
        CredentialKind::Basic { .. } => "Basic",
        CredentialKind::Header { .. } => "Header",
        CredentialKind::Url => "Url",
        CredentialKind::StandardWebhooks => "StandardWebhooks",
        CredentialKind::Secret => "Secret",
        CredentialKind::Google(_) => "Google",
    }
}
