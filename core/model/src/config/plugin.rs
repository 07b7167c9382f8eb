//! Plugin entries: what sources and receivers have in common.

use super::credential::credentials;
use super::decode::{Decoder, Fields, Finding, describe, key_path, listed, shortened};
use super::diagnostic::did_you_mean;
use super::origin::{self, OriginError, OriginPattern};
use super::tree::{Kind, Node};
use super::{CredentialKind, EMAIL, Limits, PluginEntry, PluginRef};

/// Takes a plugin entry out of the fields of a source (`plugin`) or a receiver (`handler`).
pub(super) fn entry(
    d: &mut Decoder<'_>,
    fields: &mut Fields<'_>,
    field: &'static str,
) -> Option<PluginEntry> {
    let known = [EMAIL].into_iter().filter(|_| field == "handler");
    let known: Vec<&str> = d.ctx.known_plugins.iter().copied().chain(known).collect();
    let plugin = fields.required(d, field, |d, node, path| plugin_ref(d, node, path, &known));
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
    // A secret URL brings its own origin.
    let is_url = |credential: &super::Credential| credential.kind == CredentialKind::Url;
    let may_connect = allow.as_ref().is_some_and(|allow| !allow.is_empty())
        || !origin::origins_in(&config).is_empty()
        || credentials.values().any(is_url);
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

/// `known`: the names there are, told where another one is given.
fn plugin_ref(d: &mut Decoder<'_>, node: &Node, path: &str, known: &[&str]) -> Option<PluginRef> {
    let text = d.text(node, path)?;
    if text.contains('/') || text.ends_with(".wasm") {
        return d.path(node, path).map(PluginRef::File);
    }
    if d.ctx.known_plugins.contains(&text.as_str()) {
        return Some(PluginRef::Bundled(text));
    }
    let help = did_you_mean(&text, known.iter().copied()).unwrap_or_else(|| {
        format!(
            "bundled are {}; a file is named by a path such as \"./my.wasm\"",
            listed(known)
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
