//! JSON web tokens, signed RS256 with a service account's key.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde::Serialize;

/// What Google calls its own token endpoint in a claim, wherever the request goes.
const TOKEN_AUDIENCE: &str = "https://oauth2.googleapis.com/token";
/// The longest that Google accepts.
pub(super) const LIFETIME_SECONDS: i64 = 3600;

#[derive(Serialize)]
struct Header<'a> {
    typ: &'static str,
    alg: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<&'a str>,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
    scope: &'a str,
    iat: i64,
    exp: i64,
}

/// A service account's private key.
pub(super) struct Signer {
    key: RsaKeyPair,
    key_id: Option<String>,
    email: String,
}

impl Signer {
    /// `pem`: PKCS#8 or PKCS#1. The error repeats nothing of it.
    pub(super) fn new(pem: &str, key_id: Option<String>, email: String) -> Result<Signer, String> {
        let unusable = || "`private_key` is no RSA key in PEM".to_owned();
        let der = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| unusable())?;
        let key = match &der {
            PrivateKeyDer::Pkcs8(der) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()),
            PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()),
            _ => return Err(unusable()),
        };
        Ok(Signer {
            key: key.map_err(|_| unusable())?,
            key_id,
            email,
        })
    }

    /// What a token endpoint turns into an access token.
    pub(super) fn assertion(&self, scopes: &[String], now: Timestamp) -> Result<String, String> {
        self.sign(&Claims {
            aud: Some(TOKEN_AUDIENCE),
            sub: None,
            ..self.claims(&scopes.join(" "), now)
        })
    }

    /// What Google's services accept in place of an access token (AIP-4111).
    pub(super) fn access_token(&self, scopes: &[String], now: Timestamp) -> Result<String, String> {
        self.sign(&Claims {
            aud: None,
            sub: Some(&self.email),
            ..self.claims(&scopes.join(" "), now)
        })
    }

    fn claims<'a>(&'a self, scope: &'a str, now: Timestamp) -> Claims<'a> {
        Claims {
            iss: &self.email,
            sub: None,
            aud: None,
            scope,
            iat: now.as_second(),
            exp: now.as_second() + LIFETIME_SECONDS,
        }
    }

    fn sign(&self, claims: &Claims<'_>) -> Result<String, String> {
        let header = Header {
            typ: "JWT",
            alg: "RS256",
            kid: self.key_id.as_deref(),
        };
        let signed = format!("{}.{}", part(&header)?, part(claims)?);
        let mut signature = vec![0; self.key.public().modulus_len()];
        let random = SystemRandom::new();
        self.key
            .sign(
                &RSA_PKCS1_SHA256,
                &random,
                signed.as_bytes(),
                &mut signature,
            )
            .map_err(|_| "a token cannot be signed with `private_key`".to_owned())?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

fn part(value: &impl Serialize) -> Result<String, String> {
    let json = serde_json::to_vec(value).map_err(|error| error.to_string())?;
    Ok(URL_SAFE_NO_PAD.encode(json))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = include_str!("../../../../../tests/data/google/key.pem");

    /// Signed by OpenSSL: `openssl dgst -sha256 -sign tests/data/google/key.pem`.
    #[test]
    fn a_token_is_what_another_program_makes_of_the_same_claims() {
        let signer = Signer::new(KEY, Some("kid-1".into()), "robot@x".into()).unwrap();
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        let scopes = ["a".to_owned(), "b".to_owned()];
        let parts = |token: &str| {
            let parts: Vec<&str> = token.split('.').collect();
            assert_eq!(parts.len(), 3);
            let text =
                |part: &str| String::from_utf8(URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
            (text(parts[0]), text(parts[1]), parts[2].to_owned())
        };
        let header = r#"{"typ":"JWT","alg":"RS256","kid":"kid-1"}"#;
        let asked = r#"{"iss":"robot@x","aud":"https://oauth2.googleapis.com/token","scope":"a b","iat":1700000000,"exp":1700003600}"#;
        let own =
            r#"{"iss":"robot@x","sub":"robot@x","scope":"a b","iat":1700000000,"exp":1700003600}"#;
        assert_eq!(
            parts(&signer.assertion(&scopes, now).unwrap()),
            (header.into(), asked.into(), ASSERTION_SIGNATURE.into())
        );
        assert_eq!(
            parts(&signer.access_token(&scopes, now).unwrap()),
            (header.into(), own.into(), ACCESS_TOKEN_SIGNATURE.into())
        );
    }

    #[test]
    fn what_is_no_rsa_key_is_refused_without_repeating_it() {
        for pem in [
            "",
            "canary",
            &KEY.replace('M', "N"),
            "-----BEGIN PRIVATE KEY-----\ncanary\n-----END PRIVATE KEY-----",
        ] {
            let error = Signer::new(pem, None, "x".into()).map(|_| ()).unwrap_err();
            assert_eq!(error, "`private_key` is no RSA key in PEM");
        }
    }

    const ASSERTION_SIGNATURE: &str = "YFts4R9Y-2z7BuyzQKEhYFFgA1feLXu4-b4mmNKIcZ3XD00LSJj0_6fC7awMXAOdUw57IF6QbsMxBXTEP_C-q0KJ0eXPiRg95xKovL7_943AZr1F-CHuKX626-X8EuB9RMicSa0aF3af1PVT-kaj6tEcYEFhPn-U_z9_uwnfhORehcxdMbhAXf-cirF0qbIzkZq-s6z0MeyCBngv6U1blMEQ81R2JdVKkS2KfLcooi75-1zLz7JyCJhuKirR7TmAWb1SJRQvNnEfXhWWXZi9Tfb252bKF0xAi0V8R3Hn676dDLJwLs9YT2xY3oyLSd1jUzhmCAV4TE8Uh-UAEcWG4A";
    const ACCESS_TOKEN_SIGNATURE: &str = "hc4rY_Y_1vunApQLa4RTpaybdZtc0YAGHK5y6CoO95tAzV-SaAgFRHlBWhokQ90cgpynq9xtWIpej-feQphgPbJQJQuGrHlY9jSMWGUG5ibtaFS65IoizOGMdXj3n5NASHwVo2MY8eY1G-uEbPqlEYcHuthLKCFrAl8x4IgN_mNj2X_2mDz2Ii2UMPAcwoVi5Mghs_GyqKah3a4Cxc_hyb9nGzY3_lUvFEzrs6kKzfWBXvkR_K3p40lSyEGcf0-aBYQNcw78DeL5-DQXCV_ch9CB76r6AGu4nhUwrpBEMFHBDkYYJyzOoqWDZiGTOT_aPR3ci1twXRlDc7Ry9qNtZg";
}
