//! The state of the live view: what was seen last, what is selected, and what a key changes.

use super::feed::{Look, Snapshot};
use super::{ArrivedList, Options};
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::time::Duration;

/// Older looks are shown as stale.
const STALE: Duration = Duration::from_secs(10);

/// What follows from a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Stay,
    Leave,
}

#[derive(Debug)]
pub struct App {
    pub url: String,
    pub color: bool,
    pub unicode: bool,
    pub zone: TimeZone,
    pub snapshot: Option<Snapshot>,
    /// Why the last look failed.
    pub blind: Option<String>,
    pub now: Timestamp,
    pub selected: usize,
    /// Rows on a page, as drawn last.
    pub page: usize,
    pub active_only: bool,
    pub log: bool,
    pub help: bool,
    pub arrived: Option<ArrivedList>,
    pub footer: Option<String>,
}

impl App {
    pub fn new(url: String, options: &Options) -> App {
        App {
            url,
            color: options.color,
            unicode: unicode_locale(),
            zone: options.zone.clone(),
            snapshot: None,
            blind: None,
            now: Timestamp::now(),
            selected: 0,
            page: 1,
            active_only: false,
            log: false,
            help: false,
            arrived: options.arrived.clone(),
            footer: None,
        }
    }

    pub fn now(&mut self, now: Timestamp) {
        self.now = now;
    }

    /// The selection stays on its execution while the list moves.
    pub fn look(&mut self, look: Look) {
        match look {
            Look::Seen(snapshot) => {
                let selected = self.selected_id().filter(|_| self.selected > 0);
                self.snapshot = Some(*snapshot);
                self.blind = None;
                let place = selected.and_then(|id| self.rows().position(|row| row.id == id));
                self.selected = place.unwrap_or(self.selected);
                self.clamp();
            }
            Look::Blind(reason) => self.blind = Some(reason),
        }
    }

    /// The executions shown, in order.
    pub fn rows(&self) -> impl Iterator<Item = &crate::client::view::Execution> {
        let rows = self
            .snapshot
            .iter()
            .flat_map(|snapshot| &snapshot.executions);
        rows.filter(|execution| !self.active_only || execution.is_active())
    }

    /// How old the picture is, where that is worth saying.
    pub fn stale(&self) -> Option<Duration> {
        let at = self.snapshot.as_ref()?.at;
        let age = Duration::try_from(self.now.duration_since(at)).ok()?;
        (age > STALE || self.blind.is_some()).then_some(age)
    }

    pub fn key(&mut self, key: KeyEvent) -> Step {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if control => return Step::Leave,
            KeyCode::Esc if self.help => self.help = false,
            KeyCode::Char('q') | KeyCode::Esc => return Step::Leave,
            KeyCode::Char('?') => self.help = !self.help,
            KeyCode::Char('l') => self.log = !self.log,
            KeyCode::Char('a') => {
                self.active_only = !self.active_only;
                self.clamp();
            }
            KeyCode::Char('j') | KeyCode::Down => self.select(self.selected.saturating_add(1)),
            KeyCode::Char('k') | KeyCode::Up => self.select(self.selected.saturating_sub(1)),
            KeyCode::PageDown => self.select(self.selected.saturating_add(self.page)),
            KeyCode::PageUp => self.select(self.selected.saturating_sub(self.page)),
            KeyCode::Char('g') | KeyCode::Home => self.select(0),
            KeyCode::Char('G') | KeyCode::End => self.select(usize::MAX),
            _ => {}
        }
        Step::Stay
    }

    /// Whether one execution is watched, with its steps.
    pub fn single(&self) -> Option<&crate::client::view::Execution> {
        let snapshot = self.snapshot.as_ref()?;
        match snapshot.executions.as_slice() {
            [execution] if !execution.step_executions.is_empty() => Some(execution),
            _ => None,
        }
    }

    fn count(&self) -> usize {
        match self.single() {
            Some(execution) => execution.step_executions.len(),
            None => self.rows().count(),
        }
    }

    fn select(&mut self, row: usize) {
        self.selected = row;
        self.clamp();
    }

    fn clamp(&mut self) {
        self.selected = self.selected.min(self.count().saturating_sub(1));
    }

    fn selected_id(&self) -> Option<String> {
        Some(self.rows().nth(self.selected)?.id.clone())
    }
}

/// Whether the terminal was promised to understand UTF-8.
fn unicode_locale() -> bool {
    ["LC_ALL", "LC_CTYPE", "LANG"]
        .iter()
        .filter_map(|name| std::env::var(name).ok())
        .find(|value| !value.is_empty())
        // Nothing set is a container, whose terminal is somebody's modern one.
        .is_none_or(|value| {
            let value = value.to_lowercase();
            value.contains("utf-8") || value.contains("utf8")
        })
}
