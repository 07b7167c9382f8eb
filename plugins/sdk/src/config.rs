//! A plugin's `config`, from the host's JSON to the plugin's own type.

use serde::de::DeserializeOwned;

use crate::failure::misconfigured;
use crate::{Failure, text};

/// Parses `json`; the error names the field (`config.headers.accept: ...`).
pub fn parse<T: DeserializeOwned>(json: &str) -> Result<T, Failure> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let path = if path == "." {
            String::new()
        } else {
            format!(".{path}")
        };
        misconfigured(format!(
            "config{path}: {}",
            text::line(&reason(error.inner()), 300)
        ))
    })
}

/// serde_json's message without "at line 1 column 17": the operator wrote RON, not this JSON.
fn reason(error: &serde_json::Error) -> String {
    let message = error.to_string();
    match message.rfind(" at line ") {
        Some(at) => message[..at].to_owned(),
        None => message,
    }
}

/// Splits an absolute http(s) URL into its origin (`https://host:port`) and its path (empty or starting with `/`, without the last `/`).
pub fn split_url<'a>(field: &str, url: &'a str) -> Result<(&'a str, &'a str), Failure> {
    let bad = |what: &str| {
        misconfigured(format!(
            "config.{field}: {what}: {:?}",
            text::line(&text::without_userinfo(url), 200)
        ))
    };
    let rest = ["http://", "https://"]
        .iter()
        .find_map(|scheme| {
            url.get(..scheme.len())
                .filter(|head| head.eq_ignore_ascii_case(scheme))
                .map(|_| scheme.len())
        })
        .ok_or_else(|| bad("expected an absolute http:// or https:// URL"))?;
    if url.contains(['?', '#']) {
        return Err(bad("a query or fragment has no place here"));
    }
    if url.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(bad("white space has no place here"));
    }
    let end = url[rest..].find('/').map_or(url.len(), |at| rest + at);
    let authority = &url[rest..end];
    if authority.contains('@') {
        return Err(bad(
            "no user name or password in a URL; name a credential instead",
        ));
    }
    if authority.is_empty() || authority.starts_with(':') {
        return Err(bad("the host is missing"));
    }
    Ok((&url[..end], url[end..].trim_end_matches('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Example {
        #[expect(dead_code, reason = "only parsed")]
        headers: std::collections::BTreeMap<String, String>,
    }

    #[test]
    fn an_error_names_the_field_and_no_line() {
        let error = parse::<Example>(r#"{"headers": {"accept": 7}}"#).unwrap_err();
        assert_eq!(
            error.message,
            "config.headers.accept: invalid type: integer `7`, expected a string"
        );
        let error = parse::<Example>(r#"{"headers": {}, "urll": ""}"#).unwrap_err();
        assert_eq!(
            error.message,
            "config.urll: unknown field `urll`, expected `headers`"
        );
    }

    #[test]
    fn a_url_is_split_or_refused() {
        assert_eq!(
            split_url("url", "http://h:1/a/b/").unwrap(),
            ("http://h:1", "/a/b")
        );
        assert_eq!(split_url("url", "HTTPS://h").unwrap(), ("HTTPS://h", ""));
        for bad in [
            "",
            "h:8188",
            "ftp://h",
            "http://",
            "http://:80/",
            "http://u:pw@h/",
            "http://h/?a=b",
            "http://h/ b",
            "http://é",
        ] {
            let result = split_url("url", bad);
            assert_eq!(result.is_ok(), bad == "http://é", "{bad}");
            if let Err(failure) = result {
                assert!(!failure.message.contains("pw"), "{}", failure.message);
            }
        }
    }
}
