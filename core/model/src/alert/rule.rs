//! Rules: what is worth an alert, how grave it is, and how often it is told.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::alert::matcher::Matcher;
use crate::alert::notification::Severity;

/// The rule that is built in and always on.
pub const WEIR_TROUBLE: &str = "weir_trouble";
/// How often a state that lasts is told again, where the rule does not say.
pub const REPEAT_INTERVAL: Duration = Duration::from_secs(4 * 3600);
/// When an event-like alert without news is closed, where the rule does not say.
pub const RESOLVE_AFTER: Duration = Duration::from_secs(24 * 3600);
/// The labels that an alert can have; rules may add more.
pub const ALERT_LABELS: [&str; 7] = [
    "rule",
    "severity",
    "source",
    "workflow",
    "workspace",
    "resource",
    "subject",
];

/// One rule as it is configured.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    pub name: String,
    pub when: When,
    /// None = the kind's own ([`When::severity`]), which for some depends on the case.
    pub severity: Option<Severity>,
    /// How long a state must hold before it fires.
    pub pending_for: Duration,
    /// All must match the labels of the alert; none at all match everything.
    pub matchers: Vec<Matcher>,
    /// None = the rhythm of the kind: 5 min, 15 min, hourly for events, [`REPEAT_INTERVAL`] for states.
    pub repeat_interval: Option<Duration>,
    pub resolve_after: Duration,
    pub notify_resolved: bool,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
}

impl Rule {
    /// A rule with every default. States tell when they are over, events do not.
    pub fn new(name: &str, when: When) -> Self {
        Self {
            name: name.to_owned(),
            when,
            severity: None,
            pending_for: Duration::ZERO,
            matchers: Vec::new(),
            repeat_interval: None,
            resolve_after: RESOLVE_AFTER,
            notify_resolved: when.is_state(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
        }
    }
}

/// What a rule watches for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Failed, timed out, or (as a warning) only partly done.
    ExecutionFailed,
    ExecutionLost,
    ExecutionCompleted,
    /// A source has nothing left to do, after at least this many jobs.
    QueueEmpty {
        min_jobs: u32,
    },
    SourceUnreachable {
        after: Duration,
    },
    /// A threshold of the resources is exceeded.
    ResourceOver,
}

impl When {
    pub fn name(&self) -> &'static str {
        match self {
            Self::ExecutionFailed => "ExecutionFailed",
            Self::ExecutionLost => "ExecutionLost",
            Self::ExecutionCompleted => "ExecutionCompleted",
            Self::QueueEmpty { .. } => "QueueEmpty",
            Self::SourceUnreachable { .. } => "SourceUnreachable",
            Self::ResourceOver => "ResourceOver",
        }
    }

    /// A state lasts and ends by itself; an event happened.
    pub fn is_state(&self) -> bool {
        matches!(self, Self::SourceUnreachable { .. } | Self::ResourceOver)
    }

    /// Severity where the rule names none. None: error while the source has unfinished jobs, else warning.
    pub fn severity(&self) -> Option<Severity> {
        match self {
            Self::ExecutionFailed | Self::ExecutionLost => Some(Severity::Error),
            Self::ExecutionCompleted | Self::QueueEmpty { .. } => Some(Severity::Info),
            Self::ResourceOver => Some(Severity::Warning),
            Self::SourceUnreachable { .. } => None,
        }
    }
}
