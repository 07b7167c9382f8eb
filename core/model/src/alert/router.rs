//! The router: facts of the journal in, alerts and notifications out.
//!
//! It holds what is open and what is pending, and nothing that it could not be restored from: its decisions, its
//! [`RouterState`] and the cursor belong into one transaction. All times are those of the facts and of `tick`, so a
//! restored router continues exactly as an uninterrupted one.

mod batch;
mod conditions;
mod events;
mod outbox;
pub mod state;
mod words;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use self::state::{Live, RouterState};
use crate::alert::fact::{Fact, FactKind};
use crate::alert::mute::{Mute, MuteScope};
use crate::alert::notification::{Notification, Severity};
use crate::alert::route::Route;
use crate::alert::rule::Rule;
use crate::event::{AlertEvent, SystemEvent};
use crate::id::Seq;

/// Executions that an alert names, newest first.
pub const EXECUTIONS_MAX: usize = 20;
/// Open alerts; beyond, the event-like one that was quiet for longest is closed silently.
pub const OPEN_MAX: usize = 1000;
/// Mutes at the same time; beyond, the one that ends first is dropped.
pub const MUTES_MAX: usize = 200;

/// What the router is told of the configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct RouterConfig {
    pub workspace: String,
    pub rules: Vec<Rule>,
    pub route: Route,
    /// Every receiver there is, `log` included.
    pub receivers: Vec<String>,
    /// Told of weir's own troubles too, as every receiver is.
    pub fallback: Option<String>,
    /// The base of every link.
    pub public_url: Option<String>,
}

/// One thing to commit. Their order is the order of what happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Decision {
    /// Insert or replace by fingerprint.
    Alert(Box<AlertRow>),
    Event {
        fingerprint: String,
        event: AlertEvent,
    },
    System(SystemEvent),
    Notify(Box<OutboxEntry>),
}

/// One alert as the store keeps it: the last state of its fingerprint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AlertRow {
    pub fingerprint: String,
    pub rule: String,
    pub severity: Severity,
    pub state: AlertState,
    pub labels: Vec<(String, String)>,
    pub annotations: Vec<(String, String)>,
    pub title: String,
    pub body: String,
    pub url: Option<String>,
    pub started_at: Timestamp,
    pub last_at: Timestamp,
    pub ends_at: Option<Timestamp>,
    /// Why it ended.
    pub reason: Option<String>,
    pub acknowledged_by: Option<String>,
    pub acknowledged_at: Option<Timestamp>,
    pub count: u32,
    /// Newest first, at most [`EXECUTIONS_MAX`].
    pub executions: Vec<Uuid>,
    /// Its life from firing to its end; a notification's `key`.
    pub group_key: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertState {
    Firing,
    Resolved,
    /// Somebody knows. An event-like one has ended by that; a state lasts, and is not repeated.
    Acknowledged,
}

impl AlertState {
    pub const ALL: [AlertState; 3] = [Self::Firing, Self::Resolved, Self::Acknowledged];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Firing => "firing",
            Self::Resolved => "resolved",
            Self::Acknowledged => "acknowledged",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// One notification for the outbox.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OutboxEntry {
    pub receiver: String,
    pub fingerprint: String,
    pub reason: NoticeReason,
    /// Muted: to be recorded, not sent. Says by what.
    pub suppressed: Option<String>,
    /// The matchers of the routes that led there; empty = the root, or where the firing notice went.
    pub because: Vec<String>,
    pub notification: Notification,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoticeReason {
    First,
    /// It happened again.
    More,
    /// It lasts.
    Repeat,
    Resolved,
}

/// Where an alert with some labels would go now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    pub receiver: String,
    pub because: Vec<String>,
    /// By what it is muted.
    pub suppressed: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("open alert with the fingerprint {0}")]
pub struct UnknownAlert(pub String);

/// See the module.
#[derive(Clone, Debug)]
pub struct Router {
    config: RouterConfig,
    state: RouterState,
    /// When something is due; recomputed only after something changed, for most facts change nothing.
    wakeup: Option<Timestamp>,
    changed: bool,
}

impl Router {
    pub fn new(config: RouterConfig) -> Self {
        Self::restore(RouterState::default(), config)
    }

    pub fn restore(state: RouterState, config: RouterConfig) -> Self {
        Self {
            config,
            state,
            wakeup: None,
            changed: true,
        }
    }

    /// The state to be committed together with the decisions.
    pub fn state(&self) -> &RouterState {
        &self.state
    }

    /// The last event of the journal that was taken or skipped; 0 before the first.
    pub fn cursor(&self) -> Seq {
        self.state.cursor.unwrap_or(Seq(0))
    }

    /// Moves the cursor over events that are no facts for the router. Never back.
    pub fn skip_to(&mut self, seq: Seq) {
        self.state.cursor = self.state.cursor.max(Some(seq));
    }

    /// Alerts that have not ended, in the order of their fingerprints.
    pub fn open(&self) -> impl Iterator<Item = &AlertRow> {
        self.state.alerts.values().map(|live| &live.row)
    }

    pub fn mutes(&self) -> &[Mute] {
        &self.state.mutes
    }

    /// Takes the next fact. One that was taken before changes nothing.
    ///
    /// What was due before the fact happens before it, however late the fact is handed in.
    pub fn handle(&mut self, fact: &Fact) -> Vec<Decision> {
        if Some(fact.seq) <= self.state.cursor {
            return Vec::new();
        }
        let mut out = self.tick(fact.at);
        self.state.cursor = Some(fact.seq);
        let now = self.state.now;
        match &fact.kind {
            FactKind::Execution(fact) => self.execution(now, fact, &mut out),
            FactKind::Blind { from, to, reason } => self.blind(now, (*from, *to), reason, &mut out),
            kind => self.condition(now, kind, &mut out),
        }
        out
    }

    /// Lets time pass. Call it at [`Router::next_wakeup`], and only after the facts recorded before `now`.
    pub fn tick(&mut self, now: Timestamp) -> Vec<Decision> {
        let now = self.state.advance(now, &mut self.changed);
        let mut out = Vec::new();
        if self.next_wakeup().is_some_and(|wakeup| wakeup <= now) {
            self.changed = true;
            self.state.mutes.retain(|mute| mute.is_active(now));
            self.tick_alerts(now, &mut out);
            self.tell_withheld(now, &mut out);
            self.tick_conditions(now, &mut out);
            self.tick_batches(now, &mut out);
        }
        out
    }

    /// When `tick` has something to do; may be in the past.
    pub fn next_wakeup(&mut self) -> Option<Timestamp> {
        if self.changed {
            let alerts = self
                .state
                .alerts
                .values()
                .filter_map(|live| live.due(self.rule(&live.row.rule).as_ref()));
            let mutes = self.state.mutes.iter().map(|mute| mute.until);
            let others = [self.conditions_due(), self.batches_due()]
                .into_iter()
                .flatten();
            self.wakeup = alerts.chain(mutes).chain(others).min();
            self.changed = false;
        }
        self.wakeup
    }

    /// Somebody has seen it. Ends an event-like alert, quiets a state.
    pub fn acknowledge(
        &mut self,
        fingerprint: &str,
        by: &str,
        now: Timestamp,
    ) -> Result<Vec<Decision>, UnknownAlert> {
        let mut out = self.tick(now);
        let now = self.state.now;
        let unknown = || UnknownAlert(fingerprint.chars().take(64).collect());
        let live = self.state.alerts.get_mut(fingerprint).ok_or_else(unknown)?;
        let by = crate::alert::text::name(by);
        live.row.state = AlertState::Acknowledged;
        live.row.acknowledged_by = Some(by.clone());
        live.row.acknowledged_at = Some(now);
        let ends = live.condition.is_none();
        let (rule, good_news) = (live.row.rule.clone(), live.is_good_news());
        if ends {
            live.row.ends_at = Some(now);
            live.row.reason = Some("acknowledged".to_owned());
        }
        out.push(Decision::Alert(Box::new(live.row.clone())));
        out.push(Decision::Event {
            fingerprint: fingerprint.to_owned(),
            event: AlertEvent::Acknowledged { by },
        });
        if ends {
            let notify = self.rule(&rule).is_some_and(|rule| rule.notify_resolved);
            if notify && !good_news {
                self.notify(fingerprint, NoticeReason::Resolved, now, &mut out);
            }
            self.state.alerts.remove(fingerprint);
        }
        self.changed = true;
        Ok(out)
    }

    /// Adds a mute, or replaces the one of the same scope. One that has ended already only removes it. What is no
    /// longer muted by that is told.
    pub fn mute(&mut self, mute: Mute, now: Timestamp) -> Vec<Decision> {
        let mut out = self.tick(now);
        let mutes = &mut self.state.mutes;
        mutes.retain(|other| other.scope != mute.scope);
        out.push(Decision::System(SystemEvent::Muted {
            what: mute.scope.to_string(),
            until: mute.until,
        }));
        if mute.is_active(self.state.now) {
            mutes.push(mute);
            mutes.sort_by_key(|mute| mute.until);
            let surplus = mutes.len().saturating_sub(MUTES_MAX);
            mutes.drain(..surplus);
        }
        self.tell_withheld(self.state.now, &mut out);
        self.changed = true;
        out
    }

    /// Ends a mute before its time, and tells what it kept back and is still open; none = there was no such mute.
    pub fn unmute(&mut self, scope: &MuteScope, now: Timestamp) -> Option<Vec<Decision>> {
        let position = self
            .state
            .mutes
            .iter()
            .position(|mute| mute.scope == *scope)?;
        self.state.mutes.remove(position);
        self.changed = true;
        let mut out = self.tick(now);
        out.push(Decision::System(SystemEvent::Unmuted {
            what: scope.to_string(),
        }));
        self.tell_withheld(self.state.now, &mut out);
        Some(out)
    }

    /// Takes a new configuration. Alerts of rules that are gone end silently at the next tick.
    pub fn reconfigure(&mut self, config: RouterConfig) {
        self.config = config;
        self.state.forget_decisions();
        self.changed = true;
    }

    /// Where an alert with these labels would go now, and why.
    pub fn explain(&self, labels: &[(String, String)]) -> Vec<Explained> {
        let targets = self.config.route.targets(labels).into_iter();
        let explained = targets.map(|target| Explained {
            suppressed: self.muted_by(&target.receiver, labels, self.state.now),
            receiver: target.receiver,
            because: target.because,
        });
        explained.collect()
    }

    /// The rule of this name; the built-in one is a rule like any other.
    fn rule(&self, name: &str) -> Option<std::borrow::Cow<'_, Rule>> {
        conditions::find_rule(&self.config.rules, name)
    }

    /// Repeats, flushes and closes what is due.
    fn tick_alerts(&mut self, now: Timestamp, out: &mut Vec<Decision>) {
        let is_due = |live: &&Live| {
            live.due(self.rule(&live.row.rule).as_ref())
                .is_some_and(|due| due <= now)
        };
        let due: Vec<String> = self
            .state
            .alerts
            .values()
            .filter(is_due)
            .map(|live| live.row.fingerprint.clone())
            .collect();
        for fingerprint in due {
            let Some(live) = self.state.alerts.get(&fingerprint) else {
                continue;
            };
            let Some(rule) = self.rule(&live.row.rule).map(std::borrow::Cow::into_owned) else {
                self.resolve(&fingerprint, "its rule was removed", false, now, out);
                continue;
            };
            match live.next(&rule) {
                Some((_, state::Next::More)) => {
                    self.notify(&fingerprint, NoticeReason::More, now, out)
                }
                Some((_, state::Next::Repeat)) => {
                    self.notify(&fingerprint, NoticeReason::Repeat, now, out)
                }
                Some((_, state::Next::Close)) => {
                    let notify = rule.notify_resolved && !live.is_good_news();
                    self.resolve(&fingerprint, "nothing new happened", notify, now, out);
                }
                None => {}
            }
        }
    }

    /// Ends an alert. A resolved notice goes only where the firing one went.
    fn resolve(
        &mut self,
        fingerprint: &str,
        reason: &str,
        notify: bool,
        now: Timestamp,
        out: &mut Vec<Decision>,
    ) {
        let Some(live) = self.state.alerts.get_mut(fingerprint) else {
            return;
        };
        live.row.state = AlertState::Resolved;
        live.row.ends_at = Some(now);
        live.row.reason = Some(reason.to_owned());
        self.changed = true;
        out.push(Decision::Alert(Box::new(live.row.clone())));
        let event = AlertEvent::Resolved {
            reason: reason.to_owned(),
        };
        out.push(Decision::Event {
            fingerprint: fingerprint.to_owned(),
            event,
        });
        if notify {
            self.notify(fingerprint, NoticeReason::Resolved, now, out);
        }
        self.state.alerts.remove(fingerprint);
    }
}

#[cfg(test)]
mod tests;
