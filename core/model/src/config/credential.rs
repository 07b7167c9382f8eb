//! Credentials in monitor.ron: what kinds there are, what each needs, and every mistake told without what was written.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::decode::{Decoder, Fields, Finding, key_path, listed};
use super::diagnostic::did_you_mean;
use super::origin::OriginPattern;
use super::plugin::origin_pattern;
use super::tree::{Field, Kind, Node};
use super::{Credential, CredentialKind, Google, GoogleEndpoints, Secret};

const KINDS: [&str; 7] = [
    "Bearer",
    "Basic",
    "Header",
    "Url",
    "StandardWebhooks",
    "Secret",
    "Google",
];
/// Where a Google token goes when nothing else is said.
const GOOGLE_ORIGIN: &str = "https://*.googleapis.com";
const GOOGLE_SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
const SCOPES_MAX: usize = 32;
/// Headers that the host alone sets.
const OWN_HEADERS: [&str; 9] = [
    "host",
    "connection",
    "content-length",
    "transfer-encoding",
    "upgrade",
    "te",
    "trailer",
    "keep-alive",
    "proxy-connection",
];

pub(super) fn credentials(
    d: &mut Decoder<'_>,
    node: &Node,
    path: &str,
) -> Option<BTreeMap<String, Credential>> {
    let entries = d.entries(node, path)?;
    let mut credentials = BTreeMap::new();
    for (offset, name, value) in entries {
        let path = key_path(path, &name);
        if name.is_empty() || name.len() > 64 {
            d.error(
                offset,
                &path,
                Finding::new("expected a name of 1 to 64 characters"),
            );
        }
        let Some(credential) = credential(d, value, &path) else {
            continue;
        };
        if credential.kind == CredentialKind::Secret && !is_template_name(&name) {
            let finding = Finding::new("a plugin cannot write {{secret:...}} with this name");
            let help = "use letters, digits, `-`, `_` and `.`";
            d.error(offset, &path, finding.help(help));
        }
        credentials.insert(name, credential);
    }
    Some(credentials)
}

fn is_template_name(name: &str) -> bool {
    name.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// Nothing that stands in a credential is ever repeated in a message: it may be the secret itself.
fn credential(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<Credential> {
    const EXPECTED: &str =
        "expected a credential such as Bearer(env: \"MY_TOKEN\", origins: [\"https://...\"])";
    let (name, fields): (&str, &[Field]) = match &node.kind {
        Kind::Call { name, fields } => (name, fields),
        // `Google` alone means `Google()`: the fields that are missing are reported by name.
        Kind::Word(name) => (name, &[]),
        _ => {
            let finding = Finding::new(EXPECTED).help("secrets come only by `env:` or `file:`");
            d.error(node.offset, path, finding);
            return None;
        }
    };
    if !KINDS.contains(&name) {
        let help =
            did_you_mean(name, KINDS).unwrap_or_else(|| format!("there are {}", listed(&KINDS)));
        d.error(
            node.offset,
            path,
            Finding::new("no such kind of credential").help(help),
        );
        return None;
    }
    let mut fields = d.open(node.offset, path, fields);
    let kind = kind(d, &mut fields, name);
    let secret = secret(d, &mut fields, name == "Google");
    let origins = match name {
        "Google" => Some(fields.optional(d, "origins", origins).unwrap_or_else(|| {
            let google = OriginPattern::parse(GOOGLE_ORIGIN);
            vec![google.expect("the pattern above is one")]
        })),
        // The URL names its own.
        "Url" => Some(fields.optional(d, "origins", origins).unwrap_or_default()),
        _ => fields.required(d, "origins", origins),
    };
    fields.finish(d);
    Some(Credential {
        kind: kind?,
        secret: secret?,
        origins: origins?,
    })
}

fn kind(d: &mut Decoder<'_>, fields: &mut Fields<'_>, name: &str) -> Option<CredentialKind> {
    Some(match name {
        "Basic" => CredentialKind::Basic {
            user: fields.required(d, "user", secret_text)?,
        },
        "Header" => CredentialKind::Header {
            name: fields.required(d, "name", header_name)?,
        },
        "Url" => CredentialKind::Url,
        "StandardWebhooks" => CredentialKind::StandardWebhooks,
        "Secret" => CredentialKind::Secret,
        "Google" => CredentialKind::Google(Box::new(google(d, fields))),
        _ => CredentialKind::Bearer,
    })
}

fn google(d: &mut Decoder<'_>, fields: &mut Fields<'_>) -> Google {
    let scopes = fields.optional(d, "scopes", |d, node, path| {
        let scopes = d.list(node, path, secret_text)?;
        if scopes.is_empty() || scopes.len() > SCOPES_MAX {
            let finding = Finding::new(format!("expected 1 to {SCOPES_MAX} scopes"));
            d.error(node.offset, path, finding);
            return None;
        }
        Some(scopes)
    });
    let self_signed = fields.optional(d, "self_signed", |d, node, path| d.bool(node, path));
    let quota_project = fields.optional(d, "quota_project", |d, node, path| d.name(node, path));
    let endpoints = fields.optional(d, "endpoints", |d, node, path| {
        let mut fields = d.fields(node, path)?;
        let mut url =
            |d: &mut Decoder<'_>, name| fields.optional(d, name, |d, node, path| d.url(node, path));
        let endpoints = GoogleEndpoints {
            token: url(d, "token"),
            sts: url(d, "sts"),
            iamcredentials: url(d, "iamcredentials"),
            metadata: url(d, "metadata"),
        };
        fields.finish(d);
        Some(endpoints)
    });
    Google {
        scopes: scopes.unwrap_or_else(|| vec![GOOGLE_SCOPE.to_owned()]),
        self_signed: self_signed.unwrap_or(false),
        quota_project,
        endpoints: endpoints.unwrap_or_default(),
    }
}

/// `env` or `file`, one of them; neither only where there is another way to find the secret.
pub(super) fn secret(
    d: &mut Decoder<'_>,
    fields: &mut Fields<'_>,
    is_optional: bool,
) -> Option<Option<Secret>> {
    let env = fields.optional(d, "env", variable).map(Secret::Env);
    let file = fields.optional(d, "file", secret_path).map(Secret::File);
    let (has_env, has_file) = (fields.has("env"), fields.has("file"));
    if is_optional && !has_env && !has_file {
        return Some(None);
    }
    if has_env == has_file {
        let message = match has_env {
            true => "give `env` or `file`, not both",
            false => "give `env` or `file`",
        };
        let finding = Finding::new(message).help("secrets come only from there");
        d.error(fields.offset, &fields.path, finding);
    }
    env.or(file).map(Some)
}

fn origins(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<Vec<OriginPattern>> {
    if matches!(&node.kind, Kind::List(nodes) if nodes.is_empty()) {
        d.error(
            node.offset,
            path,
            Finding::new("expected at least one origin"),
        );
        return None;
    }
    let origins = d.list(node, path, origin_pattern)?;
    for origin in origins
        .iter()
        .filter(|origin| !origin.is_secure() && !origin.is_loopback())
    {
        let finding = Finding::new(format!("this secret goes to {origin} unencrypted"));
        d.warning(node.offset, path, finding);
    }
    Some(origins)
}

/// A secret by itself: `(env: "NAME")` or `(file: "PATH")`. What stands in its place is never repeated in a message.
pub(super) fn alone(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<Secret> {
    let Kind::Struct(given) = &node.kind else {
        let finding = Finding::new("expected `(file: \"PATH\")` or `(env: \"NAME\")`");
        d.error(
            node.offset,
            path,
            finding.help("the secret itself does not belong here"),
        );
        return None;
    };
    let mut fields = d.open(node.offset, path, given);
    let env = fields.optional(d, "env", variable).map(Secret::Env);
    let file = fields.optional(d, "file", secret_path).map(Secret::File);
    if fields.has("env") == fields.has("file") {
        let finding = Finding::new("give `env` or `file`, one of them");
        d.error(node.offset, path, finding);
    }
    fields.finish(d);
    env.or(file)
}

pub(super) fn secret_text(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<String> {
    match &node.kind {
        Kind::Text(text) if !text.is_empty() => Some(text.clone()),
        _ => {
            d.error(
                node.offset,
                path,
                Finding::new("expected a string in quotes"),
            );
            None
        }
    }
}

fn variable(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<String> {
    let text = secret_text(d, node, path)?;
    let is_name = text.len() <= 128
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !is_name {
        let finding =
            Finding::new("expected the name of an environment variable such as \"MY_TOKEN\"");
        d.error(
            node.offset,
            path,
            finding.help("the secret itself does not belong here"),
        );
    }
    is_name.then_some(text)
}

fn secret_path(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<PathBuf> {
    let text = secret_text(d, node, path)?;
    if text.contains("://") {
        let finding = Finding::new("expected the path of a file that holds the secret");
        let help = "the secret itself does not belong here";
        d.error(node.offset, path, finding.help(help));
        return None;
    }
    d.path(node, path)
}

fn header_name(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<String> {
    let name = secret_text(d, node, path)?.to_ascii_lowercase();
    let is_token = name.len() <= 128
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte));
    if !is_token || OWN_HEADERS.contains(&name.as_str()) {
        let expected = if is_token {
            "this header is set by weir alone"
        } else {
            "expected the name of a header such as \"X-Api-Key\""
        };
        d.error(node.offset, path, Finding::new(expected));
        return None;
    }
    Some(name)
}
