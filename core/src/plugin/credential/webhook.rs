//! Standard Webhooks: the signature that lets a receiver know who sent a body, and when.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use ring::hmac;

pub(super) const ID: HeaderName = HeaderName::from_static("webhook-id");
pub(super) const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
pub(super) const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// The key of `whsec_<base64>`; the prefix may be left out.
pub(super) fn key(secret: &str) -> Option<hmac::Key> {
    let encoded = secret.strip_prefix("whsec_").unwrap_or(secret);
    let bytes = STANDARD.decode(encoded).ok()?;
    (!bytes.is_empty()).then(|| hmac::Key::new(hmac::HMAC_SHA256, &bytes))
}

/// Signs `id.timestamp.body`. The id is the guest's own `webhook-id`, which stays the same for the retries of a message.
pub(super) fn sign(key: &hmac::Key, headers: &mut HeaderMap, body: &[u8], now: Timestamp) {
    let fresh = || format!("msg_{}", uuid::Uuid::new_v4().simple());
    let id = match headers.get(&ID).and_then(|id| id.to_str().ok()) {
        Some(id) if !id.is_empty() => id.to_owned(),
        _ => fresh(),
    };
    let timestamp = now.as_second().to_string();
    let mut signing = hmac::Context::with_key(key);
    for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
        signing.update(part);
    }
    let signature = format!("v1,{}", STANDARD.encode(signing.sign()));
    for (name, value) in [(ID, id), (TIMESTAMP, timestamp), (SIGNATURE, signature)] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's reference libraries.
    #[test]
    fn a_body_is_signed_as_the_specification_says() {
        let key = key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let mut headers = HeaderMap::new();
        let id = "msg_p5jXN8AQM9LWM0D4loKWxJek";
        headers.insert(ID, HeaderValue::from_static(id));
        let now = Timestamp::from_second(1_614_265_330).unwrap();
        sign(&key, &mut headers, br#"{"test": 2432232314}"#, now);
        assert_eq!(headers["webhook-id"], id);
        assert_eq!(headers["webhook-timestamp"], "1614265330");
        assert_eq!(
            headers["webhook-signature"],
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn a_message_without_an_id_gets_a_fresh_one() {
        let key = key("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let mut ids = Vec::new();
        for _ in 0..2 {
            let mut headers = HeaderMap::new();
            sign(&key, &mut headers, b"", Timestamp::UNIX_EPOCH);
            ids.push(headers["webhook-id"].to_str().unwrap().to_owned());
        }
        assert!(ids[0].starts_with("msg_") && ids[0] != ids[1]);
    }

    #[test]
    fn what_is_no_base64_is_no_key() {
        for secret in ["", "whsec_", "whsec_not base64!"] {
            assert!(key(secret).is_none(), "{secret}");
        }
    }
}
