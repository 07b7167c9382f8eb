//! The plugin host: sources and handlers as WebAssembly components, on threads of their own.
//!
//! The host owns every clock, socket, retry, secret and byte of durable state; a guest only decodes. An instance may be
//! thrown away between any two calls, and is after every trap and every limit. This is the only module that knows wasmtime.

mod aside;
mod contract;
mod convert;
mod credential;
mod egress;
mod entry;
mod gauge;
mod guest_log;
mod handle;
mod host;
mod instance;
mod lifecycle;
mod limits;
mod load;
#[doc(hidden)]
pub mod measure;
mod meter;
mod reload;
mod scrub;
mod status;
mod tape;
mod text;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;
use weir_model::observation::FailureKind;

pub use contract::CONTRACT_VERSION;
pub(crate) use credential::Redactor;
pub use credential::{Credential, CredentialError, Scheme, Secret, default_account};
pub use egress::{
    AllowRule, EventBody, Grant, HttpScheme, Origin, Resolve, RuleError, Socket, StreamConnection,
    StreamRequest, SystemResolver,
};
pub use gauge::{LimitUse, Unit};
pub use handle::{CallError, PluginHandle};
pub use host::{HostOptions, PluginError, PluginHost, Unfit};
pub use limits::Limits;
pub use status::{
    Capabilities, Counters, CrashCause, CrashReport, Examined, Manifest, PluginState, PluginStatus,
    ReloadReport,
};
pub use tape::{Exchange, Tape, TapedAnswer, TapedBody, TapedRequest};

/// What an entry of monitor.ron uses its plugin as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Must export `jobs`.
    Source,
    /// Must export `alerts`.
    Handler,
}

impl Role {
    /// One word for views and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Role::Source => "source",
            Role::Handler => "handler",
        }
    }
}

/// The UUID of an entry: made of the store and its name, so that it is the same after every restart.
pub(crate) fn entry_uuid(origin: Uuid, role: Role, name: &str) -> Uuid {
    let kind = match role {
        Role::Source => "source",
        Role::Handler => "receiver",
    };
    Uuid::new_v5(&origin, format!("{kind}:{name}").as_bytes())
}

/// Where the component's bytes come from.
#[derive(Clone, Debug)]
pub enum WasmBytes {
    /// Part of this binary.
    Bundled(&'static [u8]),
    /// A file, refused when `sha256` (hex) is given and differs.
    File {
        path: PathBuf,
        sha256: Option<String>,
    },
}

/// One source or receiver of monitor.ron, ready to be opened.
#[derive(Clone, Debug)]
pub struct PluginSpec {
    /// The name in monitor.ron.
    pub entry: String,
    /// The plugin's name, for messages.
    pub plugin: String,
    pub role: Role,
    /// Made once for this entry, the same after every restart.
    pub uuid: Uuid,
    pub wasm: WasmBytes,
    pub config: Value,
    /// `AllowRule::from_config(&config)` where the operator left it out.
    pub allow: Vec<AllowRule>,
    pub credentials: BTreeMap<String, Credential>,
    pub limits: Limits,
}

impl PluginSpec {
    /// Tells one configuration of an entry from the next, secrets read from files and the environment included.
    /// It shows nothing of them.
    pub fn fingerprint(&self) -> [u8; 32] {
        let file = match &self.wasm {
            // What is inside the binary changes with the binary alone.
            WasmBytes::Bundled(_) => None,
            WasmBytes::File { path, sha256 } => Some((path, sha256)),
        };
        let mut digest = Sha256::new();
        let entry = (&self.entry, &self.plugin, self.role, self.uuid, file);
        digest.update(format!("{entry:?} {:?} {:?} ", self.allow, self.limits));
        digest.update(self.config.to_string());
        for (name, credential) in &self.credentials {
            digest.update(format!(" {name:?} {credential:?}"));
            digest.update(credential.digest());
        }
        digest.finalize().into()
    }
}

/// `types.failure` of the contract: what a guest, or the host's http, could not do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub message: String,
    /// None = unexpected, treated as transient.
    pub kind: Option<FailureKind>,
    pub retry_after: Option<Duration>,
}

impl Failure {
    fn new(kind: FailureKind, message: String) -> Failure {
        Failure {
            message,
            kind: Some(kind),
            retry_after: None,
        }
    }

    /// Of the host's http: whether it failed before anything of the request can have left. Its causes are those of the
    /// contract.
    fn was_before_sending(&self) -> bool {
        let cause = self.message.split_once(':').map(|(cause, _)| cause);
        matches!(cause, Some("dns" | "connect" | "tls" | "denied"))
    }
}
