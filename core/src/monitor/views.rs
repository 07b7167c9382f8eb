//! What the monitor shows of itself: plain values for the API, the terminal and embedding programs.

use crate::journal::JournalState;
use crate::plugin::PluginStatus;
use crate::source::SourceHealth;
use crate::stream::{CompanionHealth, StreamHealth};
use jiff::Timestamp;
use uuid::Uuid;
use weir_model::alert::mute::Mute;
use weir_model::id::{Seq, SourceId};

/// One source as it is now.
#[derive(Clone, Debug)]
pub struct SourceView {
    pub id: SourceId,
    pub name: String,
    /// The plugin's name, or `in-process`.
    pub plugin_name: String,
    pub control: bool,
    pub health: SourceHealth,
    /// None: it has no streams.
    pub stream: Option<StreamHealth>,
    /// None: nobody may report about it.
    pub companion: Option<CompanionHealth>,
    /// None for a source inside the program.
    pub plugin: Option<PluginStatus>,
}

/// One receiver as it is now.
#[derive(Clone, Debug)]
pub struct ReceiverView {
    pub name: String,
    /// The handler's name, or `log`.
    pub handler: String,
    /// Why nothing is delivered there at present.
    pub trouble: Option<String>,
    /// Attempts to deliver that failed, tests among them.
    pub failures: u64,
    pub plugin: Option<PluginStatus>,
}

/// One supervised actor.
#[derive(Clone, Debug)]
pub struct ActorView {
    pub name: String,
    pub starts: u64,
    pub panics: u64,
    /// Messages it refused: mailbox full, or down.
    pub refused: u64,
}

/// How the last reload went.
#[derive(Clone, Debug, Default)]
pub struct ReloadView {
    /// None: nothing was reloaded since the start.
    pub at: Option<Timestamp>,
    /// None: it was taken.
    pub error: Option<String>,
}

/// The monitor as a whole.
#[derive(Clone, Debug)]
pub struct MonitorStatus {
    pub version: &'static str,
    pub origin: Uuid,
    pub started_at: Timestamp,
    pub now: Timestamp,
    pub journal: JournalState,
    pub head: Seq,
    /// Name of each consumer and the last event it has taken in.
    pub consumers: Vec<(&'static str, Seq)>,
    pub reload: ReloadView,
    pub actors: Vec<ActorView>,
    /// What needs an operator: (subject, message).
    pub troubles: Vec<(String, String)>,
    pub mutes: Vec<Mute>,
}

impl MonitorStatus {
    /// The journal takes commits and every consumer is less than 10 000 events behind.
    pub fn ready(&self) -> Result<(), String> {
        if let JournalState::Closed { reason, .. } = &self.journal {
            return Err(format!("the journal is closed: {reason}"));
        }
        for (name, cursor) in &self.consumers {
            let behind = self.head.0 - cursor.0;
            if behind > 10_000 {
                return Err(format!("{name} is {behind} events behind"));
            }
        }
        Ok(())
    }
}
