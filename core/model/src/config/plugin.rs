//! Plugin entries: what sources and receivers have in common, credentials above all.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::decode::{Decoder, Fields, Finding, describe, key_path, listed, shortened};
use super::diagnostic::did_you_mean;
use super::origin::{self, OriginError, OriginPattern};
use super::tree::{Field, Kind, Node};
use super::{Credential, CredentialKind, Limits, PluginEntry, PluginRef, Secret};

const CREDENTIAL_KINDS: [&str; 3] = ["Bearer", "Basic", "Header"];
/// In the contract, not in this version.
const LATER_CREDENTIAL_KINDS: [&str; 4] = ["Url", "StandardWebhooks", "Secret", "Google"];
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

/// Takes a plugin entry out of the fields of a source (`plugin`) or a receiver (`handler`).
pub(super) fn entry(
    d: &mut Decoder<'_>,
    fields: &mut Fields<'_>,
    field: &'static str,
) -> Option<PluginEntry> {
    let plugin = fields.required(d, field, plugin_ref);
    let sha256 = fields.optional(d, "sha256", sha256);
    let errors_before = d.error_count();
    let config = fields.optional(d, "config", config);
    let config_is_sound = d.error_count() == errors_before;
    let config = config.unwrap_or_else(|| serde_json::Value::Object(serde_json::Map::new()));
    let allow = fields.optional(d, "allow", |d, node, path| {
        d.list(node, path, origin_pattern)
    });
    let credentials = fields
        .optional(d, "credentials", credentials)
        .unwrap_or_default();
    let defaults = plugin.as_ref().map(Limits::default_for).unwrap_or_default();
    let limits = fields
        .optional(d, "limits", |d, node, path| {
            Limits::decode(d, node, path, defaults)
        })
        .unwrap_or(defaults);
    let may_connect = allow.as_ref().is_some_and(|allow| !allow.is_empty())
        || !origin::origins_in(&config).is_empty();
    if config_is_sound && !fields.has("allow") && !may_connect {
        let finding = Finding::new("this plugin may connect nowhere");
        let help = "put its URL, with http:// or https://, into `config`, or what it may reach into `allow`";
        d.warning(fields.offset, &fields.path, finding.help(help));
    }
    Some(PluginEntry {
        plugin: plugin?,
        sha256,
        config,
        allow,
        credentials,
        limits,
    })
}

fn plugin_ref(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<PluginRef> {
    let text = d.text(node, path)?;
    if text.contains('/') || text.ends_with(".wasm") {
        return d.path(node, path).map(PluginRef::File);
    }
    if d.ctx.known_plugins.contains(&text.as_str()) {
        return Some(PluginRef::Bundled(text));
    }
    let help = did_you_mean(&text, d.ctx.known_plugins.iter().copied()).unwrap_or_else(|| {
        format!(
            "bundled are {}; a file is named by a path such as \"./my.wasm\"",
            listed(d.ctx.known_plugins)
        )
    });
    d.error(
        node.offset,
        path,
        Finding::new("no such plugin")
            .found(describe(node))
            .help(help),
    );
    None
}

fn sha256(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<[u8; 32]> {
    let text = d.text(node, path)?;
    let mut digest = [0; 32];
    let digits = text.as_bytes();
    let read = digits.len() == 64
        && digits.chunks_exact(2).zip(&mut digest).all(|(pair, byte)| {
            let pair = std::str::from_utf8(pair).unwrap_or_default();
            // `from_str_radix` alone would read `+f`.
            let hex = pair.bytes().all(|digit| digit.is_ascii_hexdigit());
            u8::from_str_radix(pair, 16)
                .ok()
                .filter(|_| hex)
                .map(|value| *byte = value)
                .is_some()
        });
    if !read {
        let finding =
            Finding::new("expected 64 hexadecimal digits, as `sha256sum FILE` prints them");
        d.error(
            node.offset,
            path,
            finding.found(format!("{} characters", text.chars().count())),
        );
    }
    read.then_some(digest)
}

fn config(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<serde_json::Value> {
    match node.kind {
        Kind::Map(_) => json(d, node, path),
        _ => d.entries(node, path).map(|_| serde_json::Value::Null),
    }
}

/// A value of a `config:` map. A bare word would be lost silently on the way to JSON, so it is refused.
fn json(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<serde_json::Value> {
    let value = match &node.kind {
        Kind::Bool(value) => (*value).into(),
        Kind::Text(text) => return config_text(d, node, path, text),
        Kind::Integer(value) => match (i64::try_from(*value), u64::try_from(*value)) {
            (Ok(value), _) => value.into(),
            (_, Ok(value)) => value.into(),
            _ => {
                d.error(
                    node.offset,
                    path,
                    Finding::new("this number does not fit into 64 bits"),
                );
                return None;
            }
        },
        Kind::Float(value) => serde_json::Number::from_f64(*value)?.into(),
        Kind::List(_) => d.list(node, path, json)?.into(),
        Kind::Map(_) => {
            let entries = d.entries(node, path)?;
            let mut object = serde_json::Map::new();
            for (offset, key, value) in entries {
                let path = key_path(path, &key);
                if matches!(value.kind, Kind::Text(_)) && looks_secret(&key) {
                    let help = "put it into `credentials` by `env:` or `file:`, unless the plugin cannot use it there";
                    d.warning(
                        offset,
                        &path,
                        Finding::new("this looks like a secret").help(help),
                    );
                }
                if let Some(value) = json(d, value, &path) {
                    object.insert(key, value);
                }
            }
            object.into()
        }
        Kind::Word(word) => {
            let finding = Finding::new("expected a string, number, boolean, list or map")
                .found(describe(node));
            d.error(
                node.offset,
                path,
                finding.help(format!("quote it: \"{}\"", shortened(word))),
            );
            return None;
        }
        _ => {
            let finding = Finding::new("expected a string, number, boolean, list or map")
                .found(describe(node));
            let help = match &node.kind {
                Kind::Struct(_) | Kind::Call { .. } | Kind::PositionalCall { .. } => {
                    Some("inside `config` write maps as { \"key\": value }".to_owned())
                }
                _ => None,
            };
            d.error(node.offset, path, finding.maybe_help(help));
            return None;
        }
    };
    Some(value)
}

/// A string that begins like a URL must be one: the allow-list is made of it.
fn config_text(
    d: &mut Decoder<'_>,
    node: &Node,
    path: &str,
    text: &str,
) -> Option<serde_json::Value> {
    let is_url = ["http://", "https://", "ws://", "wss://"]
        .iter()
        .any(|scheme| text.starts_with(scheme));
    match OriginPattern::of_url(text) {
        Err(OriginError::UserInfo) => {
            let finding = Finding::new("a URL may not hold a user or password");
            d.error(
                node.offset,
                path,
                finding.help(
                    "put them into `credentials`: Basic(user: ..., env: ..., origins: [...])",
                ),
            );
            None
        }
        Err(error) if is_url => {
            d.error(
                node.offset,
                path,
                Finding::new(format!("this URL is not valid: {error}")).found(describe(node)),
            );
            None
        }
        _ => Some(text.into()),
    }
}

/// Keys whose value should come from `credentials`.
pub(super) fn looks_secret(key: &str) -> bool {
    let key = key.to_lowercase().replace('-', "_");
    [
        "password",
        "passwd",
        "secret",
        "token",
        "api_key",
        "apikey",
        "private_key",
        "authorization",
    ]
    .iter()
    .any(|word| key == *word || key.ends_with(&format!("_{word}")))
}

pub(super) fn origin_pattern(
    d: &mut Decoder<'_>,
    node: &Node,
    path: &str,
) -> Option<OriginPattern> {
    let text = d.text(node, path)?;
    let error = match OriginPattern::parse(&text) {
        Ok(origin) => return Some(origin),
        Err(error) => error,
    };
    let expected = format!(
        "expected an origin such as \"https://*.example.com\" or \"http://127.0.0.1:8188\": {error}"
    );
    let finding = match error {
        // The value may hold a password.
        OriginError::UserInfo => Finding::new(expected),
        _ => Finding::new(expected).found(describe(node)),
    };
    let help = match error {
        OriginError::NoScheme => Some(format!(
            "write \"https://{0}\" or \"http://{0}\"",
            shortened(&text)
        )),
        OriginError::Path => OriginPattern::of_url(&text)
            .ok()
            .map(|origin| format!("write \"{origin}\"")),
        _ => None,
    };
    d.error(node.offset, path, finding.maybe_help(help));
    None
}

fn credentials(
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
        if let Some(credential) = credential(d, value, &path) {
            credentials.insert(name, credential);
        }
    }
    Some(credentials)
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
    if let Some(finding) = unknown_credential(name) {
        d.error(node.offset, path, finding);
        return None;
    }
    let mut fields = d.open(node.offset, path, fields);
    let kind = match name {
        "Basic" => fields
            .required(d, "user", secret_text)
            .map(|user| CredentialKind::Basic { user }),
        "Header" => fields
            .required(d, "name", header_name)
            .map(|name| CredentialKind::Header { name }),
        _ => Some(CredentialKind::Bearer),
    };
    let env = fields.optional(d, "env", variable).map(Secret::Env);
    let file = fields.optional(d, "file", secret_path).map(Secret::File);
    if fields.has("env") == fields.has("file") {
        let message = if fields.has("env") {
            "give `env` or `file`, not both"
        } else {
            "give `env` or `file`"
        };
        d.error(
            node.offset,
            path,
            Finding::new(message).help("secrets come only from there"),
        );
    }
    let origins = fields.required(d, "origins", origins);
    fields.finish(d);
    Some(Credential {
        kind: kind?,
        secret: env.or(file)?,
        origins: origins?,
    })
}

/// What is wrong with a kind of credential that there is not.
fn unknown_credential(name: &str) -> Option<Finding> {
    let there_are = || format!("there are {}", listed(&CREDENTIAL_KINDS));
    if CREDENTIAL_KINDS.contains(&name) {
        None
    } else if LATER_CREDENTIAL_KINDS.contains(&name) {
        Some(
            Finding::new(format!("{name}(...) is not supported by this version")).help(there_are()),
        )
    } else {
        let help = did_you_mean(name, CREDENTIAL_KINDS).unwrap_or_else(there_are);
        Some(Finding::new("no such kind of credential").help(help))
    }
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

fn secret_text(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<String> {
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
    secret_text(d, node, path)?;
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
