//! `{{secret:NAME}}`: where a guest may write it, and what the host puts there.

use std::collections::BTreeMap;

use percent_encoding::utf8_percent_encode;
use serde::de::IgnoredAny;
use url::Url;

use super::request::parse_url;
use super::rule::Origin;
use super::{Failure, denied};
use crate::plugin::credential::{Credential, SEGMENT};

const OPEN: &str = "{{secret:";
const CLOSE: &str = "}}";
const NAME_BYTES_MAX: usize = 64;

/// The secrets of one entry that a request toward one origin may be given. The egress check came first.
pub(super) struct Secrets<'a> {
    pub(super) credentials: &'a BTreeMap<String, Credential>,
    pub(super) origin: &'a Origin,
}

impl Secrets<'_> {
    /// A URL with its templates filled. They may only stand in the path: `plain` is the URL as it was checked.
    pub(super) fn fill_url(&self, text: &str, plain: Url) -> Result<Url, Failure> {
        if !text.contains(OPEN) {
            return Ok(plain);
        }
        // Braces would be escaped by the parser, and a guest may have escaped some itself: what is to be replaced
        // carries a mark that nobody can know. The parser decides where it stands.
        let mark = uuid::Uuid::new_v4().simple().to_string();
        let mut secrets = Vec::new();
        let marked = fill(text, |name| {
            let secret = self.of(name)?;
            secrets.push(utf8_percent_encode(secret, SEGMENT).to_string());
            Ok(format!("{mark}-{}-", secrets.len() - 1))
        })?;
        let mut url = parse_url(&marked)?;
        let mut path = url.path().to_owned();
        for (n, secret) in secrets.iter().enumerate() {
            let mark = format!("{mark}-{n}-");
            if path.matches(&mark).count() != 1 {
                return Err(misplaced());
            }
            path = path.replace(&mark, secret);
        }
        url.set_path(&path);
        let moved = Origin::of(&url).as_ref() != Ok(self.origin) || url.path() != path;
        if moved || url.as_str().contains(&mark) {
            return Err(misplaced());
        }
        Ok(url)
    }

    /// A header's value as it is: what no header can carry was refused, or is when it is sent.
    pub(super) fn fill_header(&self, text: &str) -> Result<Option<String>, Failure> {
        if !text.contains(OPEN) {
            return Ok(None);
        }
        let filled = fill(text, |name| self.of(name).map(str::to_owned))?;
        Ok((filled != text).then_some(filled))
    }

    /// A JSON body. Entries without a credential of the kind `Secret` send their bodies as they are, whatever they hold.
    pub(super) fn fill_body(&self, body: Vec<u8>) -> Result<Vec<u8>, Failure> {
        let mut credentials = self.credentials.values();
        if !credentials.any(|credential| credential.template().is_some()) {
            return Ok(body);
        }
        let Some(text) = std::str::from_utf8(&body)
            .ok()
            .filter(|text| text.contains(OPEN))
        else {
            return Ok(body);
        };
        let filled = fill(text, |name| {
            let json = serde_json::Value::from(self.of(name)?).to_string();
            // Without its quotes: the template stands between some.
            Ok(json[1..json.len() - 1].to_owned())
        })?;
        // In valid JSON two braces and a word can stand nowhere but in a string.
        if filled != text && serde_json::from_str::<IgnoredAny>(text).is_err() {
            return Err(misplaced());
        }
        Ok(filled.into_bytes())
    }

    fn of(&self, name: &str) -> Result<&str, Failure> {
        let credential = self
            .credentials
            .get(name)
            .ok_or_else(|| {
                denied(format!(
                    "there is no credential `{name}`; add to this entry: credentials: {{ \"{name}\": Secret(env: \"...\", origins: [\"{}\"]) }}",
                    self.origin
                ))
            })?;
        let secret = credential.template().ok_or_else(|| {
            let kind = credential.kind_name();
            denied(format!(
                "credential `{name}` is {kind}(...); only a Secret(...) can be written as {OPEN}{name}{CLOSE}"
            ))
        })?;
        super::request::check_binding(name, credential, self.origin)?;
        Ok(secret)
    }
}

/// Replaces each template. What only begins like one is text.
fn fill(
    text: &str,
    mut with: impl FnMut(&str) -> Result<String, Failure>,
) -> Result<String, Failure> {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(OPEN) {
        let after = &rest[at + OPEN.len()..];
        let name = after
            .find(CLOSE)
            .map(|end| &after[..end])
            .filter(|name| is_name(name));
        filled.push_str(&rest[..at]);
        match name {
            Some(name) => {
                filled.push_str(&with(name)?);
                rest = &after[name.len() + CLOSE.len()..];
            }
            None => {
                filled.push_str(OPEN);
                rest = after;
            }
        }
    }
    filled.push_str(rest);
    Ok(filled)
}

fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.bytes().all(plain)
}

fn misplaced() -> Failure {
    denied(format!(
        "{OPEN}...{CLOSE} may only stand in a segment of the path, in a header's value or in a string of a JSON body"
    ))
}

/// Takes the meaning out of a template in a text that came from elsewhere, so that a job's name cannot ask for a secret.
///
/// Neither can one that a guest makes a template of: by dropping what nobody sees in it, or by writing it in small letters.
pub(in crate::plugin) fn defused(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    let mut before = None;
    for (at, c) in text.char_indices() {
        safe.push(c);
        if c == '{' && before == Some('{') && begins_a_name(&text[at + 1..]) {
            safe.push(' ');
        }
        if may_stay(&c) {
            before = Some(c);
        }
    }
    safe
}

fn begins_a_name(rest: &str) -> bool {
    let mut seen = rest.chars().filter(may_stay);
    let word = OPEN.trim_start_matches('{').chars();
    let mut pairs = word.map(|wanted| seen.next().map(|c| c.eq_ignore_ascii_case(&wanted)));
    pairs.all(|same| same == Some(true))
}

/// Everything else some guest drops: control characters, direction marks, joiners, accents, line ends.
fn may_stay(c: &char) -> bool {
    *c == ' ' || c.is_ascii_graphic()
}
