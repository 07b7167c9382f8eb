//! State-like alerts: something holds for a while, and ends by itself.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

use super::events::Occurrence;
use super::state::{Condition, ConditionKind, after};
use super::{Decision, Router, words};
use crate::alert::fact::FactKind;
use crate::alert::notification::Severity;
use crate::alert::rule::{Rule, WEIR_TROUBLE, When};
use crate::alert::text;

/// Conditions at the same time; more are not noted (there are as many as sources, resources and parts of weir).
const CONDITIONS_MAX: usize = 1000;

/// The rule of this name. `weir_trouble` is built in.
pub(super) fn find_rule<'a>(rules: &'a [Rule], name: &str) -> Option<Cow<'a, Rule>> {
    if name == WEIR_TROUBLE {
        return Some(Cow::Owned(trouble_rule()));
    }
    rules
        .iter()
        .find(|rule| rule.name == name)
        .map(Cow::Borrowed)
}

/// `when` says nothing here: troubles never look for their rule by it.
pub(super) fn trouble_rule() -> Rule {
    let mut rule = Rule::new(
        WEIR_TROUBLE,
        When::SourceUnreachable {
            after: Duration::ZERO,
        },
    );
    rule.severity = Some(Severity::Critical);
    rule
}

impl Router {
    /// Takes a fact about something that lasts.
    pub(super) fn condition(&mut self, now: Timestamp, kind: &FactKind, out: &mut Vec<Decision>) {
        let kind = match kind.clone() {
            FactKind::SourceStale { source, error } => ConditionKind::Stale {
                source: text::name(&source),
                error: text::error(&error),
            },
            FactKind::SourceSuspect {
                source,
                missing,
                of,
            } => ConditionKind::Suspect {
                source: text::name(&source),
                missing,
                of,
            },
            FactKind::ResourceOver {
                resource,
                value,
                limit,
            } => ConditionKind::Over {
                resource: text::name(&resource),
                value,
                limit,
            },
            FactKind::Trouble { subject, message } => ConditionKind::Trouble {
                subject: text::name(&subject),
                message: text::error(&message),
            },
            FactKind::SourceRecovered { source } => {
                return self.ended(&key("stale", &source), "in contact again", now, out);
            }
            FactKind::SourceSuspicionCleared { source } => {
                return self.ended(
                    &key("suspect", &source),
                    "its jobs are accounted for",
                    now,
                    out,
                );
            }
            FactKind::ResourceRecovered {
                resource,
                value,
                limit,
            } => {
                let reason = format!("{} %, limit {} %", text::number(value), text::number(limit));
                return self.ended(&key("over", &resource), &reason, now, out);
            }
            FactKind::TroubleCleared { subject } => {
                return self.ended(&key("trouble", &subject), "cleared", now, out);
            }
            FactKind::SourceRemoved { source } => return self.source_removed(&source, now, out),
            FactKind::Execution(_) | FactKind::Blind { .. } => return,
        };
        self.holds(now, kind, out);
    }

    /// Notes that something holds, or what it is like now.
    fn holds(&mut self, now: Timestamp, kind: ConditionKind, out: &mut Vec<Decision>) {
        let key = kind.key();
        if self.state.conditions.len() >= CONDITIONS_MAX
            && !self.state.conditions.contains_key(&key)
        {
            return;
        }
        let fresh = || Condition {
            since: now,
            kind: kind.clone(),
            decided: BTreeSet::new(),
        };
        let condition = self
            .state
            .conditions
            .entry(key.clone())
            .or_insert_with(fresh);
        condition.kind = kind;
        self.changed = true;
        self.refresh(&key, now, out);
        self.tick_conditions(now, out);
    }

    /// Brings the texts of the alerts about a condition up to date, without telling anybody.
    fn refresh(&mut self, key: &str, now: Timestamp, out: &mut Vec<Decision>) {
        let Some(condition) = self.state.conditions.get(key) else {
            return;
        };
        let (title, body) = words::condition(&condition.kind, self.waiting(&condition.kind));
        for live in self
            .state
            .alerts
            .values_mut()
            .filter(|live| live.condition.as_deref() == Some(key))
        {
            live.row.count = live.row.count.saturating_add(1);
            (live.row.title, live.row.body, live.row.last_at) = (title.clone(), body.clone(), now);
            out.push(Decision::Alert(Box::new(live.row.clone())));
        }
    }

    /// Fires what has held for long enough.
    pub(super) fn tick_conditions(&mut self, now: Timestamp, out: &mut Vec<Decision>) {
        let mut due: Vec<(String, Rule)> = Vec::new();
        for (key, condition) in &self.state.conditions {
            for (rule, at) in self.pending(condition) {
                if at <= now {
                    due.push((key.clone(), rule.into_owned()));
                }
            }
        }
        for (key, rule) in due {
            let Some(condition) = self.state.conditions.get_mut(&key) else {
                continue;
            };
            condition.decided.insert(rule.name.clone());
            let condition = condition.clone();
            self.changed = true;
            self.fire_condition(key, &condition, &rule, now, out);
        }
    }

    fn fire_condition(
        &mut self,
        key: String,
        condition: &Condition,
        rule: &Rule,
        now: Timestamp,
        out: &mut Vec<Decision>,
    ) {
        let identity = match &condition.kind {
            ConditionKind::Stale { source, .. } => vec![("source", source.as_str())],
            ConditionKind::Suspect { source, .. } => {
                vec![("source", source.as_str()), ("subject", "suspect")]
            }
            ConditionKind::Over { resource, .. } => vec![("resource", resource.as_str())],
            ConditionKind::Trouble { subject, .. } => vec![("subject", subject.as_str())],
        };
        let waiting = self.waiting(&condition.kind);
        let own = if waiting > 0 {
            Severity::Error
        } else {
            Severity::Warning
        };
        let severity = rule.severity.or(rule.when.severity()).unwrap_or(own);
        let (title, body) = words::condition(&condition.kind, waiting);
        let occurrence = Occurrence {
            identity: &identity,
            severity,
            title,
            body,
            url: None,
            annotations: Vec::new(),
            execution: None,
            passing: false,
            condition: Some((key, condition.since)),
        };
        self.happened(rule, occurrence, now, out);
    }

    /// Jobs that nothing is known of while this holds.
    fn waiting(&self, kind: &ConditionKind) -> u32 {
        match kind {
            ConditionKind::Stale { source, .. } | ConditionKind::Suspect { source, .. } => {
                self.state.unfinished(source)
            }
            ConditionKind::Over { .. } | ConditionKind::Trouble { .. } => 0,
        }
    }

    /// The rules that still have to look at a condition, and when they will.
    fn pending<'a>(
        &'a self,
        condition: &'a Condition,
    ) -> impl Iterator<Item = (Cow<'a, Rule>, Timestamp)> {
        let is_trouble = matches!(condition.kind, ConditionKind::Trouble { .. });
        let built_in = is_trouble.then(|| (Cow::Owned(trouble_rule()), condition.since));
        let configured = self.config.rules.iter().filter_map(|rule| {
            condition
                .delay(rule)
                .map(|delay| (Cow::Borrowed(rule), after(condition.since, delay)))
        });
        built_in
            .into_iter()
            .chain(configured)
            .filter(|(rule, _)| !condition.decided.contains(&rule.name))
    }

    pub(super) fn conditions_due(&self) -> Option<Timestamp> {
        let conditions = self.state.conditions.values();
        conditions
            .flat_map(|condition| self.pending(condition).map(|(_, at)| at))
            .min()
    }

    /// A condition holds no more.
    fn ended(&mut self, key: &str, reason: &str, now: Timestamp, out: &mut Vec<Decision>) {
        if self.state.conditions.remove(key).is_none() {
            return;
        }
        self.changed = true;
        for fingerprint in self.alerts_of(|live_key| live_key == key) {
            let rule = self
                .state
                .alerts
                .get(&fingerprint)
                .and_then(|live| self.rule(&live.row.rule));
            let notify = rule.is_some_and(|rule| rule.notify_resolved);
            self.resolve(&fingerprint, reason, notify, now, out);
        }
    }

    /// Nobody is told that a source is fine which nobody looks at.
    fn source_removed(&mut self, source: &str, now: Timestamp, out: &mut Vec<Decision>) {
        let keys = [key("stale", source), key("suspect", source)];
        for fingerprint in self.alerts_of(|key| keys.iter().any(|other| other == key)) {
            self.resolve(&fingerprint, "its source was removed", false, now, out);
        }
        for key in keys {
            self.state.conditions.remove(&key);
        }
        self.state.unfinished.remove(source);
        self.state.batches.values_mut().for_each(|batches| {
            batches.remove(source);
        });
        self.changed = true;
    }

    fn alerts_of(&self, is_key: impl Fn(&str) -> bool) -> Vec<String> {
        let alerts: &BTreeMap<_, _> = &self.state.alerts;
        let matching = alerts
            .iter()
            .filter(|(_, live)| live.condition.as_deref().is_some_and(&is_key));
        matching
            .map(|(fingerprint, _)| fingerprint.clone())
            .collect()
    }
}

impl ConditionKind {
    /// What makes two facts be about the same condition.
    fn key(&self) -> String {
        match self {
            Self::Stale { source, .. } => key("stale", source),
            Self::Suspect { source, .. } => key("suspect", source),
            Self::Over { resource, .. } => key("over", resource),
            Self::Trouble { subject, .. } => key("trouble", subject),
        }
    }
}

fn key(kind: &str, name: &str) -> String {
    format!("{kind}/{}", text::name(name))
}
