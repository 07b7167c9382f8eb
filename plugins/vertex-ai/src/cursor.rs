//! What must survive between two calls, as JSON of at most 64 KiB.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A page token is opaque; one that is longer cannot be kept.
pub const TOKEN_MAX: usize = 16 * 1024;
/// The host takes 64 KiB.
const CURSOR_MAX: usize = 60 * 1024;
const SHORT: usize = 40;
/// Projects that are learnt; a far side may name any number of them.
pub const NUMBERS_MAX: usize = 40;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cursor {
    /// Of this form; another one starts anew.
    v: u32,
    /// The first round is over: what was final then is imported.
    pub contacted: bool,
    /// By scope: everything that was created before this time was listed once.
    pub marks: BTreeMap<String, u64>,
    /// By project and location: nobody asks before this time, since the far side said so.
    pub pauses: BTreeMap<String, Pause>,
    /// Projects by their numbers, as answers taught them.
    pub numbers: BTreeMap<String, String>,
    /// The running pipeline that was asked for last.
    pub turn: Option<String>,
    /// Counts pages that told something for the first time, so that the host's receipt of one can be recognised.
    pub told: u64,
    /// The round that is under way.
    pub round: Option<Round>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pause {
    pub until: u64,
    /// Refusals in a row.
    pub count: u32,
    /// What was refused, and whether somebody must act upon it.
    pub why: String,
    pub lasting: bool,
}

/// A round over all scopes, from page to page.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Round {
    pub started: u64,
    /// Where every window without a mark of its own begins.
    pub since: u64,
    /// The scope whose list is being read, and where.
    pub scope: usize,
    pub token: Option<String>,
    /// Entries of one answer, halved when an answer was too large; 0 = as configured.
    pub size: u32,
    pub failed: Vec<Failed>,
    pub tasks_done: bool,
    /// Jobs that were looked up.
    pub lookups: u32,
    pub pages: u32,
    /// Something was not read: absence is no evidence.
    pub unsure: bool,
    /// What earlier pages mentioned is forgotten.
    pub blind: bool,
}

/// A scope that could not be listed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Failed {
    pub scope: usize,
    pub message: String,
    /// Calling again cannot help until somebody acts.
    pub lasting: bool,
    /// It was asked in this round, and not left alone because of an earlier refusal.
    pub asked: bool,
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

    /// Messages are cut short where all of them together would be too much for the host.
    pub fn to_json(&self) -> Option<String> {
        let json = serde_json::to_string(self).ok()?;
        if json.len() <= CURSOR_MAX {
            return Some(json);
        }
        let mut short = self.clone();
        let failed = short.round.iter_mut().flat_map(|round| &mut round.failed);
        let messages = failed.map(|failed| &mut failed.message);
        let whys = short.pauses.values_mut().map(|pause| &mut pause.why);
        for text in messages.chain(whys) {
            *text = weir_sdk::text::cut(std::mem::take(text), SHORT);
        }
        serde_json::to_string(&short).ok()
    }
}
