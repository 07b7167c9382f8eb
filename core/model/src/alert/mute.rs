//! Mutes: for a while, notifications about something are recorded and not sent.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What is muted. Written and stored as `receiver=phone`, `workflow=nightly`, `source=studio`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum MuteScope {
    Receiver(String),
    /// By its key.
    Workflow(String),
    Source(String),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no scope of a mute: write `receiver=NAME`, `workflow=KEY` or `source=NAME`")]
pub struct MuteScopeError(String);

/// One mute. There is at most one per scope: a later one replaces it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mute {
    pub id: String,
    pub scope: MuteScope,
    pub until: Timestamp,
    pub created_by: String,
}

impl Mute {
    pub fn is_active(&self, now: Timestamp) -> bool {
        now < self.until
    }

    /// Whether it keeps a notification about these labels from this receiver.
    pub fn covers(&self, receiver: &str, labels: &[(String, String)]) -> bool {
        let has = |label: &str, value: &str| labels.iter().any(|(k, v)| k == label && v == value);
        match &self.scope {
            MuteScope::Receiver(name) => name == receiver,
            MuteScope::Workflow(key) => has("workflow", key),
            MuteScope::Source(name) => has("source", name),
        }
    }
}

impl fmt::Display for MuteScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Receiver(name) => write!(f, "receiver={name}"),
            Self::Workflow(key) => write!(f, "workflow={key}"),
            Self::Source(name) => write!(f, "source={name}"),
        }
    }
}

impl FromStr for MuteScope {
    type Err = MuteScopeError;

    fn from_str(text: &str) -> Result<Self, MuteScopeError> {
        let error = || MuteScopeError(text.chars().take(80).collect());
        match text.split_once('=').ok_or_else(error)? {
            (_, "") => Err(error()),
            ("receiver", name) => Ok(Self::Receiver(name.to_owned())),
            ("workflow", key) => Ok(Self::Workflow(key.to_owned())),
            ("source", name) => Ok(Self::Source(name.to_owned())),
            _ => Err(error()),
        }
    }
}

impl TryFrom<String> for MuteScope {
    type Error = MuteScopeError;

    fn try_from(text: String) -> Result<Self, MuteScopeError> {
        text.parse()
    }
}

impl From<MuteScope> for String {
    fn from(scope: MuteScope) -> String {
        scope.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_read_as_it_is_written() {
        for scope in ["receiver=phone", "workflow=a=b", "source=studio"] {
            assert_eq!(scope.parse::<MuteScope>().unwrap().to_string(), scope);
        }
        for wrong in ["phone", "receiver=", "rule=failed", ""] {
            assert!(wrong.parse::<MuteScope>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_mute_covers_its_scope_until_it_ends() {
        let labels = vec![("source".to_owned(), "studio".to_owned())];
        let mute = |scope: &str| Mute {
            id: "1".into(),
            scope: scope.parse().unwrap(),
            until: Timestamp::UNIX_EPOCH,
            created_by: "cli".into(),
        };
        assert!(mute("receiver=phone").covers("phone", &labels));
        assert!(!mute("receiver=phone").covers("ops", &labels));
        assert!(mute("source=studio").covers("ops", &labels));
        assert!(!mute("workflow=studio").covers("ops", &labels));
        assert!(!mute("source=studio").is_active(Timestamp::UNIX_EPOCH));
    }
}
