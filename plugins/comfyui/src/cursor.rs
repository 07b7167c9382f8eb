//! What must survive between two polls, as JSON of at most 64 KiB.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::job::Key;

/// 16 digits and a comma each: 1000 of them are 17 KiB.
const SEEN_MAX: usize = 1000;
/// A server runs one prompt at a time.
const WATCHED_MAX: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// `/api/jobs`.
    Jobs,
    /// `/queue` and `/history`.
    Queue,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cursor {
    /// Of this form; another one starts anew.
    v: u32,
    pub mode: Option<Mode>,
    pub version: Option<String>,
    /// When mode and version were last looked at.
    pub probed: u64,
    /// The history that was there at first contact is imported.
    pub ready: bool,
    /// The newest creation time that any round saw.
    pub mark: u64,
    /// Finished jobs created before it were there before first contact.
    pub floor: u64,
    /// Digest of the last queue answer.
    pub queue: u64,
    /// How many prompts waited when the queue was too large to be read.
    pub unreadable: Option<u64>,
    /// Digests of finished runs that were reported, oldest first.
    seen: VecDeque<u64>,
    /// What should move, by digest, and since when it is as it is.
    watched: Vec<(u64, u64)>,
}

const VERSION: u32 = 1;

impl Cursor {
    /// A cursor of another form or none at all is a first contact.
    pub fn parse(json: Option<&str>) -> Cursor {
        json.and_then(|json| serde_json::from_str(json).ok())
            .filter(|cursor: &Cursor| cursor.v == VERSION)
            .unwrap_or_else(|| Cursor {
                v: VERSION,
                ..Cursor::default()
            })
    }

    pub fn to_json(&self) -> Option<String> {
        serde_json::to_string(self).ok()
    }

    /// The server speaks another way than last time: what was read by the other one is no measure.
    pub fn enter(&mut self, mode: Mode) {
        if self.mode != Some(mode) {
            self.mode = Some(mode);
            self.ready = false;
            self.unreadable = None;
        }
    }

    /// Keeps the time of what is still there, and begins anew with what is not.
    pub fn watch(&mut self, digests: &[u64], now: u64) {
        let known = std::mem::take(&mut self.watched);
        let since = |digest: &u64| {
            let known = known.iter().find(|(known, _)| known == digest);
            // A clock that was set back is no long time.
            known.map_or(now, |(_, since)| (*since).min(now))
        };
        self.watched = digests
            .iter()
            .take(WATCHED_MAX)
            .map(|digest| (*digest, since(digest)))
            .collect();
    }

    pub fn since(&self, digest: u64) -> Option<u64> {
        let known = self.watched.iter().find(|(known, _)| *known == digest);
        known.map(|(_, since)| *since)
    }

    pub fn has_seen(&self, key: &Key) -> bool {
        self.seen.contains(&key.digest())
    }

    pub fn see(&mut self, key: &Key) {
        let digest = key.digest();
        if self.seen.contains(&digest) {
            return;
        }
        if self.seen.len() >= SEEN_MAX {
            self.seen.pop_front();
        }
        self.seen.push_back(digest);
    }
}
