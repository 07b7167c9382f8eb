//! What can be seen of a plugin entry from outside: its state, its counters, its last crash.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use uuid::Uuid;

use super::Role;
use super::gauge::LimitUse;

/// Where an entry stands; `lifecycle.rs` says what leads where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PluginState {
    /// The file is read, checked and compiled.
    Loading,
    /// Compiled and of our contract, not yet opened.
    Linked,
    /// `open` and `check` are running.
    Opening,
    Ready,
    /// Waits before it is opened again.
    Backoff {
        reason: String,
    },
    /// Configuration or credentials must change first.
    Parked {
        reason: String,
    },
    /// Crashed too often; tried again rarely.
    Quarantined {
        reason: String,
    },
    /// Finishes its running call, then stops.
    Draining,
    Stopped,
    /// The file is no plugin that this daemon can run.
    Incompatible {
        reason: String,
    },
}

impl PluginState {
    /// One word for tables and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            PluginState::Loading => "loading",
            PluginState::Linked => "linked",
            PluginState::Opening => "opening",
            PluginState::Ready => "ready",
            PluginState::Backoff { .. } => "backoff",
            PluginState::Parked { .. } => "parked",
            PluginState::Quarantined { .. } => "quarantined",
            PluginState::Draining => "draining",
            PluginState::Stopped => "stopped",
            PluginState::Incompatible { .. } => "incompatible",
        }
    }

    /// Why it is not ready, where somebody said so.
    pub fn reason(&self) -> Option<&str> {
        match self {
            PluginState::Backoff { reason }
            | PluginState::Parked { reason }
            | PluginState::Quarantined { reason }
            | PluginState::Incompatible { reason } => Some(reason),
            _ => None,
        }
    }
}

impl fmt::Display for PluginState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a component exports beyond `lifecycle`, read from the component itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    pub jobs: bool,
    pub alerts: bool,
    pub streams: bool,
    pub control: bool,
    pub logs: bool,
}

impl Capabilities {
    /// Names of what is there, in the order of the contract.
    pub fn names(self) -> Vec<&'static str> {
        let all = [
            (self.jobs, "jobs"),
            (self.alerts, "alerts"),
            (self.streams, "streams"),
            (self.control, "control"),
            (self.logs, "logs"),
        ];
        all.into_iter()
            .filter_map(|(there, name)| there.then_some(name))
            .collect()
    }
}

/// What a file is, found without running anything of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Examined {
    pub capabilities: Capabilities,
    /// Names of the imported interfaces.
    pub imports: Vec<String>,
    /// In hex.
    pub sha256: String,
    pub file_bytes: u64,
}

/// Totals since the entry was opened in this daemon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub calls: u64,
    /// Calls that the guest answered with a failure.
    pub failures: u64,
    /// Traps and limits.
    pub crashes: u64,
    /// CPU time spent in the guest.
    pub cpu: Duration,
    /// Bytes, the most that one instance ever had.
    pub memory_high_water: u64,
    pub http_requests: u64,
    /// Observations that broke a rule of the contract.
    pub observations_dropped: u64,
    /// Log lines over the rate limit.
    pub log_lines_dropped: u64,
}

/// What ended an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashCause {
    Trap,
    CpuLimit,
    WallLimit,
    MemoryLimit,
    /// A bug on the host's side of the call.
    HostPanic,
}

impl fmt::Display for CrashCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CrashCause::Trap => "trap",
            CrashCause::CpuLimit => "cpu limit",
            CrashCause::WallLimit => "wall limit",
            CrashCause::MemoryLimit => "memory limit",
            CrashCause::HostPanic => "host panic",
        })
    }
}

/// What an author needs after a crash; secrets are already filtered out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrashReport {
    pub at: Timestamp,
    /// The function of the contract that was running.
    pub call: &'static str,
    pub cause: CrashCause,
    pub message: String,
    /// The last 8 KiB that the guest wrote to stderr.
    pub stderr: String,
}

impl fmt::Display for CrashReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}: {}", self.cause, self.call, self.message)
    }
}

/// An attempt to take a changed file into use while the old one went on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReloadReport {
    pub at: Timestamp,
    /// Why the old one stays; none = the new one is in use.
    pub error: Option<String>,
}

/// One look at one entry.
#[derive(Clone, Debug)]
pub struct PluginStatus {
    /// The name in monitor.ron.
    pub entry: String,
    pub plugin: String,
    pub role: Role,
    pub uuid: Uuid,
    pub state: PluginState,
    /// When it is tried again by itself.
    pub retry_at: Option<Instant>,
    /// The guest's own name and version, once it was asked.
    pub manifest: Option<Manifest>,
    pub capabilities: Capabilities,
    pub strikes: u32,
    pub counters: Counters,
    pub last_crash: Option<Arc<CrashReport>>,
    /// What the last `check` said, or why it failed.
    pub last_check: Option<Result<String, String>>,
    /// Grows by one with every file that was taken into use; 0 = none yet.
    pub generation: u64,
    /// Of the file in use, in hex.
    pub sha256: Option<Arc<str>>,
    /// How the last attempt to take a changed file into use went; none = there was no such attempt.
    pub reload: Option<ReloadReport>,
    /// Every limit and what was used of it; empty where it comes from `PluginHandle::subscribe`.
    pub limits: Vec<LimitUse>,
}

/// What a guest says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    pub name: String,
    pub version: String,
    /// A JSON schema of `config`.
    pub config_schema: Option<String>,
}
