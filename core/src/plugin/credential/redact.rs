//! What keeps secrets out of texts: every form in which one would show is replaced by the credential's name.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use aho_corasick::{AhoCorasick, MatchKind};
use arc_swap::ArcSwapOption;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::Credential;

/// What RFC 3986 leaves alone; everything else is escaped in a segment of a path.
pub(in crate::plugin) const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
/// As browsers write a path: little is escaped.
const LOOSE: &AsciiSet = &percent_encoding::CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'`')
    .add(b'{')
    .add(b'}');

/// A shorter value would blank out half of every log line; it is no secret worth the name either.
const SECRET_BYTES_MIN: usize = 4;
/// From this length on a secret is also taken out of answers before a guest sees them. A shorter one, such as a password
/// that is a word, stands in answers by chance too, and its absence would break them.
const ANSWER_BYTES_MIN: usize = 16;
/// Tokens of one credential that are still looked for: the far side may repeat one that was replaced meanwhile.
const LEARNED_MAX: usize = 8;

/// Replaces known secrets in a text by their names. Clones are the same one.
#[derive(Clone, Default)]
pub(crate) struct Redactor(Arc<Inner>);

#[derive(Default)]
struct Inner {
    known: Mutex<Known>,
    matcher: ArcSwapOption<Matcher>,
    answers: ArcSwapOption<Matcher>,
}

/// Pairs of (name, secret).
#[derive(Default)]
struct Known {
    fixed: Vec<(String, String)>,
    learned: Vec<(String, String)>,
}

struct Matcher {
    search: AhoCorasick,
    /// What stands there instead, by pattern.
    instead: Vec<String>,
}

impl Redactor {
    /// Pairs of (name, secret).
    pub(crate) fn new(secrets: Vec<(String, String)>) -> Redactor {
        let redactor = Redactor::default();
        redactor.change(|known| known.fixed = secrets);
        redactor
    }

    pub(in crate::plugin) fn of(credentials: &BTreeMap<String, Credential>) -> Redactor {
        let tells = credentials.iter().flat_map(|(name, credential)| {
            let tells = credential.tells().iter();
            tells.map(move |tell| (name.clone(), tell.clone()))
        });
        Redactor::new(tells.collect())
    }

    /// A secret that came to be while weir runs: an access token.
    pub(in crate::plugin) fn learn(&self, name: &str, secret: &str) {
        self.change(|known| {
            let pair = (name.to_owned(), secret.to_owned());
            if known.learned.contains(&pair) {
                return;
            }
            known.learned.push(pair);
            let of_name = |(other, _): &&(String, String)| other == name;
            if known.learned.iter().filter(of_name).count() > LEARNED_MAX
                && let Some(oldest) = known.learned.iter().position(|(other, _)| other == name)
            {
                known.learned.remove(oldest);
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut Known)) {
        let mut known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut known);
        for (matcher, min) in [
            (&self.0.matcher, SECRET_BYTES_MIN),
            (&self.0.answers, ANSWER_BYTES_MIN),
        ] {
            let made = Matcher::new(known.fixed.iter().chain(&known.learned), min);
            matcher.store(made.map(Arc::new));
        }
    }

    pub(in crate::plugin) fn redact(&self, text: &str) -> String {
        match &*self.0.matcher.load() {
            Some(matcher) if matcher.search.is_match(text) => {
                matcher.search.replace_all(text, &matcher.instead)
            }
            _ => text.to_owned(),
        }
    }

    /// Nothing is copied where there is nothing to hide, which is nearly always.
    pub(crate) fn clean(&self, text: &mut String) {
        if let Some(matcher) = &*self.0.matcher.load()
            && matcher.search.is_match(text.as_str())
        {
            *text = matcher.search.replace_all(text, &matcher.instead);
        }
    }

    /// Takes long secrets out of an answer on its way to a guest: what it never had it cannot cut in half and tell.
    pub(in crate::plugin) fn clean_answer(&self, body: &mut Vec<u8>) {
        if let Some(matcher) = &*self.0.answers.load()
            && matcher.search.is_match(body.as_slice())
        {
            *body = matcher.search.replace_all_bytes(body, &matcher.instead);
        }
    }

    /// As `clean_answer`, for the value of a header.
    pub(in crate::plugin) fn clean_header(&self, value: &mut String) {
        if let Some(matcher) = &*self.0.answers.load()
            && matcher.search.is_match(value.as_str())
        {
            *value = matcher.search.replace_all(value, &matcher.instead);
        }
    }

    /// Whether there is nothing to look for.
    pub(in crate::plugin) fn is_idle(&self) -> bool {
        self.0.matcher.load().is_none()
    }
}

impl Matcher {
    fn new<'a>(
        secrets: impl Iterator<Item = &'a (String, String)>,
        bytes_min: usize,
    ) -> Option<Matcher> {
        let mut patterns: Vec<(String, String)> = secrets
            .filter(|(_, secret)| secret.len() >= bytes_min)
            .flat_map(|(name, secret)| {
                // What is put into a JSON text must leave it one.
                let name = name.replace(|c: char| c.is_control() || "\"\\".contains(c), "_");
                let forms = forms(secret).into_iter();
                forms.map(move |form| (form, format!("[secret {name}]")))
            })
            .collect();
        patterns.sort();
        patterns.dedup_by(|a, b| a.0 == b.0);
        if patterns.is_empty() {
            return None;
        }
        let (forms, instead): (Vec<_>, Vec<_>) = patterns.into_iter().unzip();
        // Case is ignored: escapes are written in both, and some far sides lower a header's value.
        // The longest form wins: one secret may be a part of another.
        let search = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .match_kind(MatchKind::LeftmostLongest)
            .build(&forms);
        match search {
            Ok(search) => Some(Matcher { search, instead }),
            Err(error) => {
                // Some billions of bytes of secrets: they come from files of at most 64 KiB.
                tracing::error!(%error, "secrets cannot be looked for");
                None
            }
        }
    }
}

/// A secret as it is, percent-encoded, as a form field and within a JSON string.
fn forms(secret: &str) -> Vec<String> {
    let escaped = utf8_percent_encode(secret, SEGMENT).to_string();
    let mut forms = vec![
        secret.to_owned(),
        escaped.replace("%20", "+"),
        escaped,
        utf8_percent_encode(secret, LOOSE).to_string(),
    ];
    if let Ok(json) = serde_json::to_string(secret) {
        forms.push(json[1..json.len() - 1].to_owned());
    }
    forms.push(secret.escape_default().to_string());
    forms
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let idle = if self.is_idle() { ", idle" } else { "" };
        write!(f, "Redactor(…{idle})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_found_in_every_form_it_is_written_in() {
        let secret = "p@ss/w\"rd\n+ä";
        let redactor = Redactor::new(vec![("k".into(), secret.into())]);
        for form in [
            secret,
            "p%40ss%2Fw%22rd%0A%2B%C3%A4",
            "p%40ss%2fw%22rd%0a%2b%c3%a4",
            "p@ss/w\\\"rd\\n+ä",
            "p@ss/w%22rd%0A+%C3%A4",
            "P@SS/W\"RD\n+ä",
        ] {
            assert_eq!(redactor.redact(&format!("<{form}>")), "<[secret k]>");
        }
        assert_eq!(redactor.redact("p@ss"), "p@ss");
    }

    #[test]
    fn the_longest_of_two_secrets_wins_and_a_tiny_one_is_none() {
        let pair = |name: &str, secret: &str| (name.to_owned(), secret.to_owned());
        let redactor = Redactor::new(vec![
            pair("a", "canary"),
            pair("b", "canary-long"),
            pair("c", "abc"),
        ]);
        assert_eq!(
            redactor.redact("canary canary-long abc"),
            "[secret a] [secret b] abc"
        );
        let mut untouched = "abc".to_owned();
        redactor.clean(&mut untouched);
        assert_eq!(untouched, "abc");
        assert!(Redactor::new(vec![pair("c", "abc")]).is_idle());
    }

    #[test]
    fn only_long_secrets_are_taken_out_of_answers() {
        let pair = |name: &str, secret: &str| (name.to_owned(), secret.to_owned());
        let redactor = Redactor::new(vec![pair("a", "comfy"), pair("b", "0123456789abcdef")]);
        let mut body = b"\xffcomfy 0123456789ABCDEF".to_vec();
        redactor.clean_answer(&mut body);
        assert_eq!(body, b"\xffcomfy [secret b]");
        let mut header = "/comfy/0123456789abcdef".to_owned();
        redactor.clean_header(&mut header);
        assert_eq!(header, "/comfy/[secret b]");
    }

    #[test]
    fn tokens_are_learned_and_the_oldest_of_many_is_forgotten() {
        let redactor = Redactor::new(vec![("k".into(), "fixed-secret".into())]);
        for n in 0..=LEARNED_MAX {
            redactor.learn("k", &format!("token-{n}-end"));
            redactor.learn("k", &format!("token-{n}-end"));
        }
        redactor.learn("other", "other-token");
        assert_eq!(
            redactor.redact("token-0-end token-1-end token-8-end fixed-secret other-token"),
            "token-0-end [secret k] [secret k] [secret k] [secret other]"
        );
    }
}
