//! The configuration: the text of `monitor.ron` in, a believed [`Config`] or every mistake at once out.
//!
//! Pure: nothing is read, looked up or expanded here. [`Config::resolve`] is given the folder and the home.

mod alerts;
mod check;
mod credential;
mod decode;
pub mod diagnostic;
mod email;
mod limits;
pub mod origin;
mod plugin;
mod sections;
mod show;
mod tree;
mod values;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::Time;
use url::Url;

pub use self::diagnostic::{Diagnostic, suggest};
pub use self::email::{EMAIL, Email, EmailTls, Login, Mailbox};
pub use self::limits::Limits;
pub use self::origin::OriginPattern;
use crate::alert::route::{LOG_RECEIVER, Route};
use crate::alert::rule::Rule;

/// Larger files are refused unread.
pub const TEXT_LEN_MAX: usize = 1 << 20;
/// What the caller knows and the text alone does not tell.
#[derive(Clone, Copy, Debug, Default)]
pub struct ParseContext<'a> {
    /// Names of the bundled plugins, sources and handlers alike.
    pub known_plugins: &'a [&'a str],
    /// Names of the time zones there are; empty = `timezone` is not checked.
    pub known_timezones: &'a [&'a str],
}

/// Reads a configuration. Warnings come with a good one; with a bad one, everything found does, in order of place.
pub fn parse(
    text: &str,
    ctx: &ParseContext<'_>,
) -> Result<(Config, Vec<Diagnostic>), Vec<Diagnostic>> {
    sections::parse(text, ctx)
}

/// Line and column, from 1, of a value of a sound text by its path as diagnostics write it (`sources[0].config`); of what is
/// left out, those of what it belongs to.
pub fn locate(text: &str, path: &str) -> (usize, usize) {
    let offset = match tree::read(text) {
        (Some(root), _) => root.descend(path).offset,
        (None, _) => 0,
    };
    tree::Lines::new(text).position(offset)
}

/// A configuration that holds together. The default watches nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// None = the caller's default (XDG).
    pub data_dir: Option<PathBuf>,
    /// IANA name; None = the system's zone.
    pub timezone: Option<String>,
    pub durability: Durability,
    pub http: Http,
    pub sources: Vec<SourceConfig>,
    pub resources: Resources,
    /// Accepted, not acted on by this version.
    pub health: Vec<HealthCheck>,
    /// Accepted, not acted on by this version.
    pub deadlines: Vec<Deadline>,
    pub alerts: Alerts,
    pub retention: Retention,
    pub log: Log,
}

/// What a commit survives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Loss of power.
    #[default]
    Power,
    /// Death of the process only; faster.
    Process,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Http {
    pub listen: SocketAddr,
    /// The base of every link in an alert.
    pub public_url: Option<Url>,
    /// Host names (with a port, where one is meant) that requests may carry beside those of `listen` and `public_url`.
    pub allowed_hosts: Vec<String>,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 8000).into(),
            public_url: None,
            allowed_hosts: Vec::new(),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct SourceConfig {
    /// The source's identity: history belongs to the name.
    pub name: String,
    pub entry: PluginEntry,
    pub poll_interval: Duration,
    /// Whether weir may submit, cancel and retry there.
    pub control: bool,
    /// How long a job must be missing before it is called lost.
    pub lost_after: Duration,
    /// Jobs older than this are ignored.
    pub forgotten_before: Option<Timestamp>,
    /// What the companion beside the provider shows to report progress of this source, and of no other.
    pub companion_token: Option<Secret>,
}

/// What a source and a receiver have in common: a plugin, its configuration, and what it may do.
#[derive(Clone, Debug, PartialEq)]
pub struct PluginEntry {
    pub plugin: PluginRef,
    pub sha256: Option<[u8; 32]>,
    /// Always an object. Handed to the plugin as JSON.
    pub config: serde_json::Value,
    /// None = the origins of the URLs in `config`.
    pub allow: Option<Vec<OriginPattern>>,
    pub credentials: BTreeMap<String, Credential>,
    pub limits: Limits,
}

impl PluginEntry {
    /// Where the plugin may connect to: `allow` if given, else the origins of the absolute URLs in its own `config`.
    pub fn origin_allow_list(&self) -> Vec<OriginPattern> {
        self.allow
            .clone()
            .unwrap_or_else(|| origin::origins_in(&self.config))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PluginRef {
    /// A plugin inside the binary.
    Bundled(String),
    /// A `.wasm` file.
    File(PathBuf),
}

/// A secret under a name, sent only to its origins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    pub kind: CredentialKind,
    /// None only for `Google`: then it is found where Google's own tools look for it.
    pub secret: Option<Secret>,
    /// Empty only for `Url`: then it is the origin of the URL itself.
    pub origins: Vec<OriginPattern>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialKind {
    Bearer,
    Basic {
        user: String,
    },
    /// `name` is a header that a plugin may set, in lower case.
    Header {
        name: String,
    },
    /// A secret base URL that a plugin extends.
    Url,
    /// A key that the host signs bodies with.
    StandardWebhooks,
    /// Put where a plugin writes `{{secret:NAME}}`.
    Secret,
    Google(Box<Google>),
}

/// How access tokens are had from Google. The file says what kind of account it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Google {
    /// Never empty.
    pub scopes: Vec<String>,
    /// Whether a service account signs its own tokens instead of asking for some.
    pub self_signed: bool,
    /// The project that is charged (`x-goog-user-project`), where the file's is not to be.
    pub quota_project: Option<String>,
    pub endpoints: GoogleEndpoints,
}

/// Where tokens come from, in place of Google's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GoogleEndpoints {
    /// In place of `token_uri` and `https://oauth2.googleapis.com/token`.
    pub token: Option<Url>,
    /// In place of `token_url`, `https://sts.googleapis.com/v1/token`.
    pub sts: Option<Url>,
    /// The base, in place of `https://iamcredentials.googleapis.com`.
    pub iamcredentials: Option<Url>,
    /// The base, in place of `http://metadata.google.internal`.
    pub metadata: Option<Url>,
}

/// Where a secret is read from; the secret itself is never here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Secret {
    Env(String),
    File(PathBuf),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Resources {
    pub interval: Duration,
    /// Thresholds of `ResourceOver`, 0 to 100.
    pub memory_percent: f64,
    pub cpu_percent: f64,
    pub disk_percent: f64,
    /// Names of processes to watch beside the host and the daemon itself.
    pub processes: Vec<String>,
}

impl Default for Resources {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(10),
            memory_percent: 85.0,
            cpu_percent: 90.0,
            disk_percent: 95.0,
            processes: Vec::new(),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct HealthCheck {
    pub name: String,
    pub url: Url,
    pub interval: Duration,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Deadline {
    /// A workflow key; `*` stands for any text.
    pub workflow: String,
    pub start_by: Option<Time>,
    pub max_run: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Alerts {
    pub rules: Vec<Rule>,
    /// Beside [`LOG_RECEIVER`], which always exists.
    pub receivers: Vec<ReceiverConfig>,
    /// The root: no matchers, it takes everything.
    pub route: Route,
    /// Told when another receiver cannot be.
    pub fallback: Option<String>,
    pub deadman: Option<Deadman>,
}

impl Default for Alerts {
    fn default() -> Self {
        Self {
            rules: Vec::new(),
            receivers: Vec::new(),
            route: Route::to(LOG_RECEIVER),
            fallback: None,
            deadman: None,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct ReceiverConfig {
    pub name: String,
    pub handler: Handler,
    /// None = no limit but the outbox's own.
    pub rate: Option<Rate>,
}

/// What delivers the messages of a receiver.
#[derive(Clone, Debug, PartialEq)]
pub enum Handler {
    Plugin(Box<PluginEntry>),
    /// In weir itself: plugins speak HTTP alone.
    Email(Box<Email>),
}

impl ReceiverConfig {
    pub fn plugin(&self) -> Option<&PluginEntry> {
        match &self.handler {
            Handler::Plugin(entry) => Some(entry),
            Handler::Email(_) => None,
        }
    }
}

/// At most `count` messages in any `per`. Written `20/m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub count: u32,
    pub per: Duration,
}

/// A far side that raises the alarm when weir falls silent.
#[derive(Clone, Debug, PartialEq)]
pub struct Deadman {
    /// A capability: never shown whole.
    pub url: Url,
    pub interval: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    pub age: Duration,
    pub size_bytes: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            age: Duration::from_secs(30 * 86_400),
            size_bytes: 2 << 30,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Log {
    pub level: LogLevel,
    pub format: LogFormat,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

impl Config {
    /// Makes every path absolute: `~` is `home`, a relative path starts at `base_dir` (the folder of the file).
    pub fn resolve(&mut self, base_dir: &Path, home: &Path) {
        let mut entries: Vec<&mut PluginEntry> = Vec::new();
        let mut secrets: Vec<&mut Secret> = Vec::new();
        for source in &mut self.sources {
            entries.push(&mut source.entry);
            secrets.extend(&mut source.companion_token);
        }
        let mut paths: Vec<&mut PathBuf> = Vec::new();
        for receiver in &mut self.alerts.receivers {
            match &mut receiver.handler {
                Handler::Plugin(entry) => entries.push(entry),
                Handler::Email(email) => {
                    paths.extend(&mut email.ca_file);
                    secrets.extend(email.login.as_mut().map(|login| &mut login.password));
                }
            }
        }
        for entry in entries {
            if let PluginRef::File(path) = &mut entry.plugin {
                paths.push(path);
            }
            let credentials = entry.credentials.values_mut();
            secrets.extend(credentials.filter_map(|credential| credential.secret.as_mut()));
        }
        paths.extend(secrets.into_iter().filter_map(|secret| match secret {
            Secret::File(path) => Some(path),
            Secret::Env(_) => None,
        }));
        paths.extend(&mut self.data_dir);
        for path in paths {
            *path = match path.strip_prefix("~") {
                Ok(rest) => home.join(rest),
                Err(_) => base_dir.join(&*path),
            };
        }
    }

    /// Where the plugin of this entry may connect to (plugins.md 5.1).
    pub fn origin_allow_list(entry: &PluginEntry) -> Vec<OriginPattern> {
        entry.origin_allow_list()
    }

    /// The configuration as it works, defaults included, secrets and capability URLs masked.
    pub fn to_json_redacted(&self) -> serde_json::Value {
        show::json(self)
    }

    /// The same as RON that can be read again (where nothing was masked, to the same configuration).
    pub fn to_ron_redacted(&self) -> String {
        show::ron(self)
    }
}
