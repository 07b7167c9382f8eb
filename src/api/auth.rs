//! Who may act: requests that reach a provider or a receiver, or change a plugin, carry weir's token, on this machine too.

use super::ApiState;
use super::errors::Problem;
use crate::token;
use actix_web::HttpRequest;
use actix_web::http::header::{AUTHORIZATION, HeaderMap};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use subtle::ConstantTimeEq as _;

/// Refuses who does not send the token. Before anything else of the request is looked at.
///
/// The file is read each time: a token that was replaced or deleted counts from then on.
pub(super) fn require(request: &HttpRequest, state: &ApiState) -> Result<(), Problem> {
    let path = token::path(state.monitor.data_dir());
    let known = token::read(&path).map_err(|error| {
        tracing::error!(path = %path.display(), %error, "the token cannot be read, so nobody may act");
        Problem::unavailable("weir's own token cannot be read; its log tells more")
    })?;
    match sent(request.headers()) {
        None => Err(Problem::unauthorized(false)),
        Some(sent) if bool::from(sent.as_bytes().ct_eq(known.as_bytes())) => Ok(()),
        Some(_) => Err(Problem::unauthorized(true)),
    }
}

/// `Bearer TOKEN`; or `Basic`, with the token as the password of any user: what HTTP libraries make of
/// `http://weir:TOKEN@host/`, for programs in which only the address can be set.
fn sent(headers: &HeaderMap) -> Option<String> {
    let mut all = headers.get_all(AUTHORIZATION);
    let (only, None) = (all.next()?, all.next()) else {
        return Some(String::new());
    };
    let Some((scheme, value)) = only.to_str().ok().and_then(|text| text.split_once(' ')) else {
        return Some(String::new());
    };
    let value = value.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(value.to_owned());
    }
    if scheme.eq_ignore_ascii_case("basic") {
        let decoded = STANDARD.decode(value).ok();
        let decoded = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
        let password = decoded.and_then(|text| Some(text.split_once(':')?.1.to_owned()));
        return Some(password.unwrap_or_default());
    }
    Some(String::new())
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::http::header::HeaderValue;

    fn of(values: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        sent(&headers)
    }

    #[test]
    fn the_token_is_a_bearers_or_the_password_of_anybody() {
        assert_eq!(of(&[]), None);
        assert_eq!(of(&["Bearer abc"]).as_deref(), Some("abc"));
        assert_eq!(of(&["bearer  abc "]).as_deref(), Some("abc"));
        let basic = format!("Basic {}", STANDARD.encode("weir:abc"));
        assert_eq!(of(&[&basic]).as_deref(), Some("abc"));
        for wrong in ["abc", "Digest abc", "Basic !!", "Basic YWJj"] {
            assert_eq!(of(&[wrong]).as_deref(), Some(""), "{wrong}");
        }
        assert_eq!(of(&["Bearer abc", "Bearer abc"]).as_deref(), Some(""));
    }
}
