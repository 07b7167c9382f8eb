//! The configuration file: found, read and parsed, with every finding tied to its place.

use super::exit::{CliError, Exit};
use super::printer::Printer;
use crate::bundled::{self, BUNDLED};
use crate::paths::Paths;
use jiff::tz::TimeZone;
use std::fs::File;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use url::Url;
use uuid::Uuid;
use weir_core::monitor::{check_credential, plugin_spec};
use weir_core::plugin::{PluginSpec, Role};
use weir_model::config::diagnostic::Severity;
use weir_model::config::{
    self, Config, Diagnostic, Handler, ParseContext, PluginEntry, PluginRef, Secret, TEXT_LEN_MAX,
};

/// A configuration that was read, and what was found while reading it.
#[derive(Debug)]
pub struct Loaded {
    pub path: PathBuf,
    pub text: String,
    pub config: Config,
    pub warnings: Vec<Diagnostic>,
}

/// Something about one place of a configuration.
#[derive(Debug)]
pub struct Remark {
    /// As in diagnostics: `sources[0].config`.
    pub path: String,
    pub message: String,
}

impl Remark {
    /// With where it is in the file.
    pub fn at(self, text: &str, severity: Severity) -> Diagnostic {
        let (line, column) = config::locate(text, &self.path);
        Diagnostic {
            severity,
            line,
            column,
            path: self.path,
            message: self.message,
            found: None,
            help: None,
        }
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("there is no configuration: looked for {}. Write one: weir init --comfyui URL", .looked.join(", "))]
    NotFound { looked: Vec<String> },
    #[error("cannot read {}: {reason}", .path.display())]
    Unreadable { path: PathBuf, reason: String },
    #[error("{} has {} {}", .path.display(), .findings.len(), if .findings.len() == 1 { "finding" } else { "findings" })]
    Invalid {
        path: PathBuf,
        findings: Vec<Diagnostic>,
    },
}

impl LoadError {
    /// Says everything, one line per finding.
    pub fn explain(self, printer: &mut Printer) -> CliError {
        if let LoadError::Invalid { path, findings } = &self {
            for finding in findings {
                printer.error(finding.render(&path.display().to_string()));
            }
        }
        CliError::new(Exit::Usage, self.to_string())
    }
}

/// Why a client does not know which daemon to ask: the file that would say so cannot be read.
pub fn no_address(error: &LoadError) -> CliError {
    let (file, reason) = match error {
        LoadError::Invalid { path, findings } => {
            let first = findings.first().map(ToString::to_string);
            (path.display().to_string(), first.unwrap_or_default())
        }
        LoadError::Unreadable { path, reason } => (path.display().to_string(), reason.clone()),
        LoadError::NotFound { .. } => return CliError::usage(error.to_string()),
    };
    CliError::usage(format!(
        "{file} cannot be read ({}), so it is not known which daemon to ask. Mend it (weir check {file}), or name the daemon: --url / WEIR_URL",
        reason.trim_start()
    ))
}

/// The configuration at `path`, or the first one there is.
pub fn load(path: Option<&Path>, paths: &Paths) -> Result<Loaded, LoadError> {
    let path = match path {
        Some(path) => path.to_owned(),
        None => find(paths)?,
    };
    let text = read(&path)?;
    let (mut config, warnings) = parse(&text).map_err(|findings| LoadError::Invalid {
        path: path.clone(),
        findings,
    })?;
    let base = std::path::absolute(&path).unwrap_or_else(|_| path.clone());
    config.resolve(base.parent().unwrap_or(Path::new("/")), paths.home());
    Ok(Loaded {
        path,
        text,
        config,
        warnings,
    })
}

/// The first configuration there is.
pub fn find(paths: &Paths) -> Result<PathBuf, LoadError> {
    let candidates = paths.config_candidates();
    let found = candidates.iter().find(|path| path.is_file());
    found.cloned().ok_or_else(|| LoadError::NotFound {
        looked: candidates
            .iter()
            .map(|path| path.display().to_string())
            .collect(),
    })
}

/// The text of a file, refused when it is larger than any configuration.
pub fn read(path: &Path) -> Result<String, LoadError> {
    let unreadable = |reason: String| LoadError::Unreadable {
        path: path.to_owned(),
        reason,
    };
    let file = File::open(path).map_err(|error| unreadable(plain(&error)))?;
    let mut bytes = Vec::new();
    file.take(TEXT_LEN_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| unreadable(plain(&error)))?;
    if bytes.len() > TEXT_LEN_MAX {
        return Err(unreadable(format!(
            "larger than {} KiB",
            TEXT_LEN_MAX >> 10
        )));
    }
    String::from_utf8(bytes).map_err(|_| unreadable("not UTF-8 text".to_owned()))
}

/// Parses with what this machine and this binary know: time zones and bundled plugins.
pub fn parse(text: &str) -> Result<(Config, Vec<Diagnostic>), Vec<Diagnostic>> {
    let known_plugins: Vec<&str> = BUNDLED.iter().map(|bundled| bundled.name).collect();
    let zones: Vec<_> = jiff::tz::db().available().collect();
    let known_timezones: Vec<&str> = zones.iter().map(|zone| zone.as_str()).collect();
    config::parse(
        text,
        &ParseContext {
            known_plugins: &known_plugins,
            known_timezones: &known_timezones,
        },
    )
}

/// Secrets that the configuration names and this machine does not have: `weir run` would not start. The secrets themselves
/// are not kept.
pub fn missing_secrets(config: &Config) -> Vec<Remark> {
    let mut missing = Vec::new();
    for Entry { path, entry, .. } in entries(config) {
        for (name, credential) in &entry.credentials {
            // Without one Google's own search is asked, when the daemon starts.
            let reason = credential.secret.as_ref().and_then(is_missing);
            missing.extend(reason.map(|message| Remark {
                path: format!("{path}.credentials.{name}"),
                message,
            }));
        }
    }
    for (i, receiver) in config.alerts.receivers.iter().enumerate() {
        let Handler::Email(email) = &receiver.handler else {
            continue;
        };
        let login = email.login.as_ref();
        let reason = login.and_then(|login| is_missing(&login.password));
        let remark = |field: &str, message| Remark {
            path: format!("alerts.receivers[{i}].{field}"),
            message,
        };
        missing.extend(reason.map(|reason| remark("credentials.smtp", reason)));
        let ca_file = email.ca_file.as_ref();
        let reason = ca_file.and_then(|path| is_missing(&Secret::File(path.clone())));
        missing.extend(reason.map(|reason| remark("config.ca_file", reason)));
    }
    for (i, source) in config.sources.iter().enumerate() {
        let reason = source.companion_token.as_ref().and_then(is_missing);
        missing.extend(reason.map(|message| Remark {
            path: format!("sources[{i}].companion_token"),
            message,
        }));
    }
    missing
}

/// Why a secret cannot be had here.
fn is_missing(secret: &Secret) -> Option<String> {
    match secret {
        Secret::Env(variable) => match std::env::var_os(variable) {
            Some(value) if !value.is_empty() => None,
            _ => Some(format!("the environment variable {variable} is not set")),
        },
        Secret::File(path) => File::open(path)
            .err()
            .map(|error| format!("cannot read {}: {}", path.display(), plain(&error))),
    }
}

/// Plugin files that the configuration names and this machine does not have.
pub fn missing_plugins(config: &Config) -> Vec<Remark> {
    let mut missing = Vec::new();
    for Entry { path, entry, role } in entries(config) {
        if let Err(reason) = has_plugin(entry) {
            missing.push(Remark {
                path: format!("{path}.{}", plugin_field(role)),
                message: reason,
            });
        }
    }
    missing
}

fn has_plugin(entry: &PluginEntry) -> Result<(), String> {
    let PluginRef::File(path) = &entry.plugin else {
        return Ok(());
    };
    let opened = File::open(path).map(drop);
    opened.map_err(|error| format!("cannot read {}: {}", shown(path), plain(&error)))
}

/// A path as people would write it: without `..` on the way.
pub fn shown(path: &Path) -> String {
    let folder = path.parent().and_then(|folder| folder.canonicalize().ok());
    match (folder, path.file_name()) {
        (Some(folder), Some(name)) => folder.join(name).display().to_string(),
        _ => path.display().to_string(),
    }
}

/// Credentials that are there and of no use: the daemon would refuse to start with them.
pub fn useless_credentials(config: &Config) -> Vec<Remark> {
    let mut useless = Vec::new();
    for Entry { path, entry, .. } in entries(config) {
        for (name, credential) in &entry.credentials {
            if credential.secret.as_ref().and_then(is_missing).is_none()
                && let Err(message) = check_credential(credential)
            {
                useless.push(Remark {
                    path: format!("{path}.credentials.{name}"),
                    message,
                });
            }
        }
    }
    useless
}

/// The entries whose plugin is here, as the daemon would open them, but without their credentials: no guest sees those.
pub fn plugin_specs(config: &Config) -> Vec<(Remark, PluginSpec)> {
    let bundled = bundled::for_monitor();
    let mut specs = Vec::new();
    for Entry { path, entry, role } in entries(config) {
        let mut entry = entry.clone();
        entry.credentials.clear();
        if has_plugin(&entry).is_err() {
            continue;
        }
        let found = plugin_spec("", &path, &entry, role, Uuid::nil(), &bundled);
        if let Ok(spec) = found {
            let message = match &entry.plugin {
                PluginRef::Bundled(name) => name.clone(),
                PluginRef::File(file) => shown(file),
            };
            specs.push((Remark { path, message }, spec));
        }
    }
    specs
}

/// The field of an entry that names its plugin.
pub fn plugin_field(role: Role) -> &'static str {
    match role {
        Role::Source => "plugin",
        Role::Handler => "handler",
    }
}

/// A source or a receiver, as far as its plugin goes.
struct Entry<'a> {
    /// As in diagnostics: `sources[0]`.
    path: String,
    role: Role,
    entry: &'a PluginEntry,
}

fn entries(config: &Config) -> impl Iterator<Item = Entry<'_>> {
    let sources = config.sources.iter().enumerate();
    let sources = sources.map(|(i, source)| Entry {
        path: format!("sources[{i}]"),
        role: Role::Source,
        entry: &source.entry,
    });
    let receivers = config.alerts.receivers.iter().enumerate();
    let receivers = receivers.filter_map(|(i, receiver)| {
        Some(Entry {
            path: format!("alerts.receivers[{i}]"),
            role: Role::Handler,
            entry: receiver.plugin()?,
        })
    });
    sources.chain(receivers)
}

/// Where clients on this machine reach a daemon that listens there.
pub fn url_of(listen: SocketAddr) -> Url {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    let listen = SocketAddr::new(ip, listen.port());
    Url::parse(&format!("http://{listen}")).expect("an address and a port make a URL")
}

/// What clients take from a configuration.
#[derive(Debug)]
pub struct Quick {
    /// Where the daemon listens; none = there is no configuration. An error: there is one, which cannot be read.
    pub listen: Result<Option<SocketAddr>, LoadError>,
    pub zone: TimeZone,
}

impl Quick {
    pub fn find(paths: &Paths) -> Quick {
        match load(None, paths) {
            Ok(Loaded { config, .. }) => Quick {
                listen: Ok(Some(config.http.listen)),
                zone: zone_of(&config),
            },
            Err(error) => Quick {
                listen: match error {
                    LoadError::NotFound { .. } => Ok(None),
                    error => Err(error),
                },
                zone: TimeZone::system(),
            },
        }
    }
}

/// The zone for people: the configured one, else the system's.
pub fn zone_of(config: &Config) -> TimeZone {
    let named = config.timezone.as_deref();
    named
        .and_then(|name| TimeZone::get(name).ok())
        .unwrap_or_else(TimeZone::system)
}

/// The error as people know it: without the number.
pub fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    text.to_lowercase()
}
