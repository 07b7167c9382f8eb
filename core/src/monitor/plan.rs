//! What a configuration means for the rooms: plugin entries made ready, secrets read, changes told from a reload.

use crate::email::Mailer;
use crate::plugin::{
    AllowRule, Credential, Limits, PluginSpec, Role, Scheme, Secret, WasmBytes, default_account,
};
use crate::source::SourceOptions;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;
use uuid::Uuid;
use weir_model::config::{
    self, CredentialKind, Email, Handler, PluginEntry, PluginRef, ReceiverConfig, SourceConfig,
};

/// A plugin inside the program that embeds this crate.
#[derive(Clone, Copy, Debug)]
pub struct BundledPlugin {
    pub name: &'static str,
    /// A component.
    pub bytes: &'static [u8],
}

/// Why an entry cannot be used, with the way to it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct PlanError {
    pub path: String,
    pub message: String,
}

/// Largest secret read from a file.
const SECRET_LEN_MAX: u64 = 64 * 1024;
/// Largest file of certificates.
const AUTHORITIES_LEN_MAX: u64 = 1024 * 1024;

/// Reads what `env:` or `file:` names.
pub fn read_secret(secret: &config::Secret) -> Result<Secret, String> {
    match secret {
        config::Secret::Env(name) => match std::env::var(name) {
            Ok(value) if !value.trim().is_empty() => Ok(Secret::new(value)),
            Ok(_) => Err(format!("the environment variable {name} is empty")),
            Err(_) => Err(format!("the environment variable {name} is not set")),
        },
        config::Secret::File(path) => {
            let problem = |e: std::io::Error| format!("cannot read {}: {e}", path.display());
            let length = std::fs::metadata(path).map_err(problem)?.len();
            if length > SECRET_LEN_MAX {
                return Err(format!(
                    "{} is too large for a secret ({length} bytes)",
                    path.display()
                ));
            }
            std::fs::read_to_string(path)
                .map(Secret::new)
                .map_err(problem)
        }
    }
}

pub(crate) fn source_options(source: &SourceConfig) -> SourceOptions {
    SourceOptions {
        name: source.name.clone(),
        poll_interval: source.poll_interval,
        lost_after: source.lost_after,
        forgotten_before: source.forgotten_before,
        control: source.control,
    }
}

/// Tells one configuration of a source from the next: a change means a new generation and a cursor from the start.
pub(crate) fn config_hash(entry: &PluginEntry) -> String {
    let plugin = match &entry.plugin {
        PluginRef::Bundled(name) => name.clone(),
        PluginRef::File(path) => path.display().to_string(),
    };
    let digest = Sha256::digest(format!("{plugin}\n{}", entry.config));
    digest
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

pub(crate) fn handler_name(handler: &Handler) -> String {
    match handler {
        Handler::Plugin(entry) => plugin_name(&entry.plugin),
        Handler::Email(_) => config::EMAIL.to_owned(),
    }
}

pub(crate) fn plugin_name(plugin: &PluginRef) -> String {
    match plugin {
        PluginRef::Bundled(name) => name.clone(),
        PluginRef::File(path) => path.file_name().map_or_else(
            || path.display().to_string(),
            |n| n.to_string_lossy().into_owned(),
        ),
    }
}

fn wasm_file(file: &Path, entry: &PluginEntry) -> WasmBytes {
    let hex = |hash: [u8; 32]| hash.iter().map(|b| format!("{b:02x}")).collect();
    WasmBytes::File {
        path: file.to_owned(),
        sha256: entry.sha256.map(hex),
    }
}

/// Makes an entry ready to be opened. `path`: the way to it, for errors.
pub fn plugin_spec(
    path: &str,
    name: &str,
    entry: &PluginEntry,
    role: Role,
    origin: Uuid,
    bundled: &[BundledPlugin],
) -> Result<PluginSpec, PlanError> {
    let error = |field: &str, message: String| PlanError {
        path: format!("{path}{field}"),
        message,
    };
    let wasm = match &entry.plugin {
        PluginRef::Bundled(plugin) => {
            let found = bundled.iter().find(|b| b.name == plugin);
            let found = found.ok_or_else(|| {
                let names: Vec<&str> = bundled.iter().map(|b| b.name).collect();
                error(
                    ".plugin",
                    format!(
                        "no plugin {plugin} is built in; there are: {}",
                        names.join(", ")
                    ),
                )
            })?;
            WasmBytes::Bundled(found.bytes)
        }
        PluginRef::File(file) => wasm_file(file, entry),
    };
    let mut credentials = BTreeMap::new();
    for (key, credential) in &entry.credentials {
        let made =
            make_credential(credential).map_err(|m| error(&format!(".credentials.{key}"), m))?;
        credentials.insert(key.clone(), made);
    }
    Ok(PluginSpec {
        entry: name.to_owned(),
        plugin: plugin_name(&entry.plugin),
        role,
        uuid: crate::plugin::entry_uuid(origin, role, name),
        wasm,
        config: entry.config.clone(),
        allow: allow_rules(&entry.origin_allow_list()).map_err(|m| error(".allow", m))?,
        credentials,
        limits: limits(&entry.limits),
    })
}

/// Whether a credential can be used: its secret is read, understood and forgotten. The error repeats nothing of it.
pub fn check_credential(credential: &config::Credential) -> Result<(), String> {
    make_credential(credential).map(drop)
}

/// Whether a receiver could be started as it is configured.
pub(crate) fn receiver(
    path: &str,
    receiver: &ReceiverConfig,
    origin: Uuid,
    bundled: &[BundledPlugin],
) -> Result<(), PlanError> {
    let name = &receiver.name;
    match &receiver.handler {
        Handler::Plugin(entry) => {
            plugin_spec(path, name, entry, Role::Handler, origin, bundled).map(drop)
        }
        Handler::Email(email) => mailer(path, name, email, origin).map(drop),
    }
}

/// Makes a receiver `email` ready to send. `path`: the way to it, for errors.
pub(crate) fn mailer(
    path: &str,
    name: &str,
    email: &Email,
    origin: Uuid,
) -> Result<Mailer, PlanError> {
    let error = |field: &str, message: String| PlanError {
        path: format!("{path}{field}"),
        message,
    };
    let login = email.login.as_ref();
    let password = login.map(|login| read_secret(&login.password)).transpose();
    let password = password.map_err(|m| error(".credentials.smtp", m))?;
    let authorities = match &email.ca_file {
        Some(file) => authorities(file).map_err(|m| error(".config.ca_file", m))?,
        None => Vec::new(),
    };
    let entry = crate::plugin::entry_uuid(origin, Role::Handler, name);
    Mailer::new(name, email.clone(), password, authorities, entry).map_err(|m| error("", m))
}

/// The certificates in a file, of which there has to be one.
fn authorities(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let problem = |why: String| format!("cannot read {}: {why}", file.display());
    let length = std::fs::metadata(file).map_err(|e| problem(e.to_string()))?;
    if length.len() > AUTHORITIES_LEN_MAX {
        return Err(problem(format!("it is too large ({} bytes)", length.len())));
    }
    let text = std::fs::read(file).map_err(|e| problem(e.to_string()))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(found) if found.is_empty() => Err(format!("{} holds no certificate", file.display())),
        Ok(found) => Ok(found),
        Err(error) => Err(problem(error.to_string())),
    }
}

fn make_credential(credential: &config::Credential) -> Result<Credential, String> {
    let secret = || match &credential.secret {
        Some(secret) => read_secret(secret),
        None => Err("it names no `env` or `file`".into()),
    };
    let scheme = match &credential.kind {
        CredentialKind::Bearer => Scheme::Bearer(secret()?),
        CredentialKind::Basic { user } => Scheme::Basic {
            user: user.clone(),
            password: secret()?,
        },
        CredentialKind::Header { name } => Scheme::Header {
            name: name.clone(),
            value: secret()?,
        },
        CredentialKind::Url => Scheme::Url(secret()?),
        CredentialKind::StandardWebhooks => Scheme::StandardWebhooks(secret()?),
        CredentialKind::Secret => Scheme::Secret(secret()?),
        CredentialKind::Google(options) => Scheme::Google {
            account: match &credential.secret {
                Some(secret) => Some(read_secret(secret)?),
                None => default_account()?,
            },
            options: options.clone(),
        },
    };
    Credential::new(scheme, allow_rules(&credential.origins)?).map_err(|e| e.to_string())
}

fn allow_rules(origins: &[config::OriginPattern]) -> Result<Vec<AllowRule>, String> {
    let parse = |origin: &config::OriginPattern| AllowRule::parse(&origin.to_string());
    origins
        .iter()
        .map(parse)
        .collect::<Result<_, _>>()
        .map_err(|e| e.to_string())
}

/// Sizes of what a guest returns fit into memory, or nothing would.
fn limits(limits: &config::Limits) -> Limits {
    let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    Limits {
        memory_bytes: limits.memory_bytes,
        table_elements: u64::from(limits.tables),
        cpu_open: limits.cpu_open,
        cpu_call: limits.cpu,
        wall_open: limits.wall_open,
        wall_check: limits.wall_check,
        wall_frames: limits.wall_frames,
        wall_call: limits.wall,
        http_connect: limits.http_connect,
        http_total: limits.http_total,
        http_request_bytes: limits.request_bytes,
        http_submit_bytes: limits.submit_bytes,
        http_response_bytes: limits.response_bytes,
        http_requests_per_call: limits.requests,
        http_requests_per_second: limits.requests_per_second,
        observations: size(u64::from(limits.observations)),
        string_bytes: size(limits.string_bytes),
        detail_bytes: size(limits.detail_bytes),
        cursor_bytes: size(limits.cursor_bytes),
        receipt_bytes: size(limits.receipt_bytes),
        log_lines_per_minute: limits.log_lines,
        log_line_bytes: size(limits.log_line_bytes),
        file_bytes: limits.file_bytes,
        instance_calls: u64::from(limits.retire_calls),
        instance_age: limits.retire_age,
        instance_memory_percent: u8::try_from(limits.retire_memory).unwrap_or(100),
        backoff_base: Limits::default().backoff_base,
    }
}
