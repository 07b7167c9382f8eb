//! Event-like alerts: something happened, perhaps again.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use jiff::Timestamp;
use uuid::Uuid;

use super::state::Live;
use super::{
    AlertRow, AlertState, Decision, EXECUTIONS_MAX, NoticeReason, OPEN_MAX, Router, words,
};
use crate::alert::fact::{Change, ExecutionFact, is_failure};
use crate::alert::matcher::all_match;
use crate::alert::notification::Severity;
use crate::alert::rule::{Rule, When};
use crate::alert::text;
use crate::event::AlertEvent;
use crate::status::Status;

/// One thing that a rule alerts about.
pub(super) struct Occurrence<'a> {
    /// The labels beside rule and workspace that make the alert's identity.
    pub(super) identity: &'a [(&'a str, &'a str)],
    pub(super) severity: Severity,
    pub(super) title: String,
    pub(super) body: String,
    pub(super) url: Option<String>,
    pub(super) annotations: Vec<(String, String)>,
    pub(super) execution: Option<Uuid>,
    pub(super) passing: bool,
    /// Its key, and since when it holds.
    pub(super) condition: Option<(String, Timestamp)>,
}

impl Router {
    /// Takes what happened to an execution. What was imported is history: nobody is told.
    pub(super) fn execution(
        &mut self,
        now: Timestamp,
        fact: &ExecutionFact,
        out: &mut Vec<Decision>,
    ) {
        if fact.imported {
            return;
        }
        self.count(now, fact, out);
        match fact.change {
            Change::Finished(status) => self.verdict(now, fact, status, out),
            Change::Lost => self.tell(now, fact, Kind::Lost, out),
            Change::Found(status) => {
                self.retract(now, fact, Kind::Lost, "the provider shows it again", out);
                if status.is_final() {
                    self.verdict(now, fact, status, out);
                }
            }
            Change::Corrected { from, to } => {
                if is_failure(from) && !is_failure(to) {
                    self.retract(
                        now,
                        fact,
                        Kind::Failed(from),
                        "the provider corrected its verdict",
                        out,
                    );
                }
                if !(is_failure(from) && is_failure(to)) {
                    self.verdict(now, fact, to, out);
                }
            }
            Change::Created | Change::Unwatched | Change::Watched => {}
        }
    }

    fn verdict(
        &mut self,
        now: Timestamp,
        fact: &ExecutionFact,
        status: Status,
        out: &mut Vec<Decision>,
    ) {
        if is_failure(status) {
            self.tell(now, fact, Kind::Failed(status), out);
        } else if status == Status::Completed {
            self.close_by_success(now, fact, out);
            self.tell(now, fact, Kind::Completed, out);
        }
    }

    fn tell(&mut self, now: Timestamp, fact: &ExecutionFact, kind: Kind, out: &mut Vec<Decision>) {
        for rule in self.rules_for(kind) {
            let severity = rule.severity.or(kind.severity()).unwrap_or(Severity::Error);
            let url = self
                .config
                .public_url
                .as_deref()
                .map(|base| text::execution_url(base, &fact.uuid));
            let (title, body) = words::execution(fact, kind, url.as_deref());
            let annotations = [("error", &fact.error), ("step", &fact.step)];
            let annotations = annotations.into_iter().filter_map(|(label, value)| {
                value
                    .as_ref()
                    .map(|value| (label.to_owned(), text::error(value)))
            });
            let occurrence = Occurrence {
                identity: &[("workflow", &fact.workflow), ("source", &fact.source)],
                severity,
                title,
                body,
                url,
                annotations: annotations.collect(),
                execution: Some(fact.uuid),
                passing: kind == Kind::Completed,
                condition: None,
            };
            self.happened(&rule, occurrence, now, out);
        }
    }

    /// The next success of a workflow closes what is open about it, where the key names a workflow at all.
    fn close_by_success(&mut self, now: Timestamp, fact: &ExecutionFact, out: &mut Vec<Decision>) {
        if fact.workflow == fact.source || self.state.alerts.is_empty() {
            return;
        }
        for kind in [Kind::Failed(Status::Failed), Kind::Lost] {
            for rule in self.rules_for(kind) {
                let fingerprint = self.execution_fingerprint(&rule, fact);
                self.resolve(
                    &fingerprint,
                    "a later run completed",
                    rule.notify_resolved,
                    now,
                    out,
                );
            }
        }
    }

    /// An execution turned out not to belong to an alert; without any left, the alert ends.
    fn retract(
        &mut self,
        now: Timestamp,
        fact: &ExecutionFact,
        kind: Kind,
        reason: &str,
        out: &mut Vec<Decision>,
    ) {
        for rule in self.rules_for(kind) {
            let fingerprint = self.execution_fingerprint(&rule, fact);
            let Some(live) = self.state.alerts.get_mut(&fingerprint) else {
                continue;
            };
            let Some(position) = live
                .row
                .executions
                .iter()
                .position(|uuid| *uuid == fact.uuid)
            else {
                continue;
            };
            live.row.executions.remove(position);
            live.retracted = live.retracted.saturating_add(1);
            if live.retracted >= live.row.count {
                self.resolve(&fingerprint, reason, rule.notify_resolved, now, out);
            } else {
                out.push(Decision::Alert(Box::new(live.row.clone())));
            }
        }
    }

    /// weir itself saw nothing for a while: told once.
    pub(super) fn blind(
        &mut self,
        now: Timestamp,
        (from, to): (Timestamp, Timestamp),
        reason: &str,
        out: &mut Vec<Decision>,
    ) {
        let (title, body) = words::blind(from, to, reason);
        let occurrence = Occurrence {
            identity: &[("subject", "blind")],
            severity: Severity::Critical,
            title,
            body,
            url: None,
            annotations: Vec::new(),
            execution: None,
            passing: true,
            condition: None,
        };
        self.happened(&super::conditions::trouble_rule(), occurrence, now, out);
    }

    /// Fires an alert, or adds to the one that is open.
    pub(super) fn happened(
        &mut self,
        rule: &Rule,
        it: Occurrence<'_>,
        now: Timestamp,
        out: &mut Vec<Decision>,
    ) {
        let identity = self.identity(rule, it.identity);
        let fingerprint = fingerprint(&identity);
        let mut labels: BTreeMap<String, String> = rule.labels.clone();
        labels.extend(
            identity
                .into_iter()
                .map(|(label, value)| (label.to_owned(), value.to_owned())),
        );
        let open = self.state.alerts.get(&fingerprint);
        let severity = open.map_or(it.severity, |live| live.row.severity.max(it.severity));
        labels.insert("severity".to_owned(), words::severity(severity).to_owned());
        if !all_match(&rule.matchers, &labels) {
            return;
        }
        let is_new = open.is_none();
        if is_new {
            self.make_room(now, out);
        }
        if is_new {
            // The time, so that it is new after a restart from an older state too.
            self.state.newest_life = now.as_millisecond().max(self.state.newest_life + 1);
        }
        let life = self.state.newest_life;
        let fresh = || Live::fired(rule, &fingerprint, life, now, &it);
        let live = self
            .state
            .alerts
            .entry(fingerprint.clone())
            .or_insert_with(fresh);
        live.add(rule, it, severity, labels, now);
        self.changed = true;
        if is_new || (live.condition.is_none() && live.next_notice_at(rule) <= now) {
            let reason = if is_new {
                NoticeReason::First
            } else {
                NoticeReason::More
            };
            self.notify(&fingerprint, reason, now, out);
        } else {
            out.push(Decision::Alert(Box::new(live.row.clone())));
        }
    }

    /// Keeps the number of open alerts bounded, at the cost of the event-like one that was quiet for longest.
    fn make_room(&mut self, now: Timestamp, out: &mut Vec<Decision>) {
        if self.state.alerts.len() < OPEN_MAX {
            return;
        }
        let events = self
            .state
            .alerts
            .values()
            .filter(|live| live.condition.is_none());
        if let Some(fingerprint) = events
            .min_by_key(|live| live.row.last_at)
            .map(|live| live.row.fingerprint.clone())
        {
            self.resolve(&fingerprint, "too many alerts are open", false, now, out);
        }
    }

    fn rules_for(&self, kind: Kind) -> Vec<Rule> {
        let matching = self
            .config
            .rules
            .iter()
            .filter(|rule| kind.is_watched_by(rule.when));
        matching.cloned().collect()
    }

    fn identity<'a>(
        &'a self,
        rule: &'a Rule,
        identity: &[(&'a str, &'a str)],
    ) -> Vec<(&'a str, &'a str)> {
        let mut labels = vec![
            ("rule", rule.name.as_str()),
            ("workspace", self.config.workspace.as_str()),
        ];
        labels.extend_from_slice(identity);
        labels
    }

    fn execution_fingerprint(&self, rule: &Rule, fact: &ExecutionFact) -> String {
        fingerprint(&self.identity(
            rule,
            &[("workflow", &fact.workflow), ("source", &fact.source)],
        ))
    }
}

/// What a fact about an execution can mean to a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Failed(Status),
    Lost,
    Completed,
}

impl Kind {
    fn is_watched_by(self, when: When) -> bool {
        match self {
            Self::Failed(_) => when == When::ExecutionFailed,
            Self::Lost => when == When::ExecutionLost,
            Self::Completed => when == When::ExecutionCompleted,
        }
    }

    /// Where the rule says nothing. Partly done is less than failed.
    fn severity(self) -> Option<Severity> {
        match self {
            Self::Failed(Status::Partial) => Some(Severity::Warning),
            Self::Failed(_) => When::ExecutionFailed.severity(),
            Self::Lost => When::ExecutionLost.severity(),
            Self::Completed => When::ExecutionCompleted.severity(),
        }
    }
}

impl Live {
    fn fired(
        rule: &Rule,
        fingerprint: &str,
        life: i64,
        now: Timestamp,
        it: &Occurrence<'_>,
    ) -> Self {
        let (condition, since) = it.condition.clone().unzip();
        let row = AlertRow {
            fingerprint: fingerprint.to_owned(),
            rule: rule.name.clone(),
            severity: Severity::Info,
            state: AlertState::Firing,
            labels: Vec::new(),
            annotations: Vec::new(),
            title: String::new(),
            body: String::new(),
            url: None,
            started_at: since.unwrap_or(now),
            last_at: now,
            ends_at: None,
            reason: None,
            acknowledged_by: None,
            acknowledged_at: None,
            count: 0,
            executions: Vec::new(),
            group_key: format!("{fingerprint}-{life:x}"),
        };
        Self {
            row,
            condition,
            passing: it.passing,
            announced: Default::default(),
            withheld: Default::default(),
            notices: 0,
            last_notice_at: now,
            unsent: 0,
            retracted: 0,
        }
    }

    fn add(
        &mut self,
        rule: &Rule,
        it: Occurrence<'_>,
        severity: Severity,
        labels: BTreeMap<String, String>,
        now: Timestamp,
    ) {
        let row = &mut self.row;
        row.severity = severity;
        row.labels = labels.into_iter().collect();
        let annotations: BTreeMap<String, String> = rule
            .annotations
            .clone()
            .into_iter()
            .chain(it.annotations)
            .collect();
        row.annotations = annotations.into_iter().collect();
        (row.title, row.body, row.url, row.last_at) = (it.title, it.body, it.url, now);
        row.count = row.count.saturating_add(1);
        if let Some(uuid) = it.execution {
            row.executions.insert(0, uuid);
            row.executions.truncate(EXECUTIONS_MAX);
        }
        self.unsent = self.unsent.saturating_add(1);
    }
}

/// Identity of a set of labels, whatever their order: FNV-1a as Prometheus computes it, in 16 hexadecimal digits.
pub(crate) fn fingerprint(labels: &[(&str, &str)]) -> String {
    let mut sorted = labels.to_vec();
    sorted.sort_unstable();
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |byte: u8| hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    for (label, value) in sorted {
        for text in [label, value] {
            text.bytes().for_each(&mut add);
            // No text holds this byte, so that ("ab", "c") is not ("a", "bc").
            add(0xff);
        }
    }
    let mut hex = String::with_capacity(16);
    write!(hex, "{hash:016x}").expect("a string takes any text");
    hex
}

/// Makes an alert's own update event.
pub(super) fn updated(row: &AlertRow) -> AlertEvent {
    AlertEvent::Updated {
        count: row.count,
        title: row.title.clone(),
    }
}
