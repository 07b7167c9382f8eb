//! Notifications of the router: who gets one, what it says, and whether it is muted.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::state::Live;
use super::{AlertState, Decision, NoticeReason, OutboxEntry, Router, events, words};
use crate::alert::fact::receiver_subject;
use crate::alert::notification::{AlertStatus, Notification, NotifiedAlert};
use crate::alert::route::{LOG_RECEIVER, Target};
use crate::alert::rule::WEIR_TROUBLE;
use crate::alert::text;
use crate::event::AlertEvent;

impl Router {
    /// Tells of an alert: its row, its event, and a notification for each receiver.
    pub(super) fn notify(
        &mut self,
        fingerprint: &str,
        reason: NoticeReason,
        now: Timestamp,
        out: &mut Vec<Decision>,
    ) {
        let Some(live) = self.state.alerts.get(fingerprint) else {
            return;
        };
        let targets = self.targets(live, reason);
        let muted: Vec<Option<String>> = targets
            .iter()
            .map(|target| self.muted_by(&target.receiver, &live.row.labels, now))
            .collect();
        let live = self
            .state
            .alerts
            .get_mut(fingerprint)
            .expect("it was there a moment ago");
        if reason != NoticeReason::Resolved {
            live.notices = live.notices.saturating_add(1);
            live.last_notice_at = now;
            out.push(Decision::Alert(Box::new(live.row.clone())));
            let event = match reason {
                NoticeReason::First => Some(AlertEvent::Fired {
                    severity: live.row.severity,
                    title: live.row.title.clone(),
                }),
                NoticeReason::More => Some(events::updated(&live.row)),
                NoticeReason::Repeat | NoticeReason::Resolved => None,
            };
            out.extend(event.map(|event| Decision::Event {
                fingerprint: fingerprint.to_owned(),
                event,
            }));
        }
        for (target, suppressed) in targets.into_iter().zip(muted) {
            let number = match reason {
                // The last notice has no number of its own: it ends the life that the numbers count.
                NoticeReason::Resolved => "end".to_owned(),
                _ => live.notices.to_string(),
            };
            let url = self.config.public_url.as_deref();
            let told = (reason, live.unsent);
            let notification = live.notification(&target.receiver, told, &number, url, now);
            live.note(&target.receiver, reason, suppressed.is_some());
            out.push(Decision::Notify(Box::new(OutboxEntry {
                receiver: target.receiver,
                fingerprint: fingerprint.to_owned(),
                reason,
                suppressed,
                because: target.because,
                notification,
            })));
        }
        live.unsent = 0;
        self.changed = true;
    }

    /// Tells of open alerts those from whom only a mute kept them, once it has ended.
    pub(super) fn tell_withheld(&mut self, now: Timestamp, out: &mut Vec<Decision>) {
        let waits = |live: &&Live| !live.withheld.is_empty();
        let waiting: Vec<String> = (self.state.alerts.values().filter(waits))
            .map(|live| live.row.fingerprint.clone())
            .collect();
        for fingerprint in waiting {
            let live = &self.state.alerts[&fingerprint];
            let firing = live.row.state == AlertState::Firing;
            let mut targets = self.targets(live, NoticeReason::First);
            targets.retain(|target| {
                let receiver = &target.receiver;
                live.withheld.contains_key(receiver)
                    && (self.muted_by(receiver, &live.row.labels, now)).is_none()
            });
            let live = (self.state.alerts.get_mut(&fingerprint)).expect("it was listed just now");
            for target in targets {
                let receiver = target.receiver;
                let missed = live.withheld.remove(&receiver).unwrap_or_default();
                if !firing {
                    continue;
                }
                let reason = match live.announced.insert(receiver.clone()) {
                    true => NoticeReason::First,
                    false => NoticeReason::More,
                };
                // The notice that was kept back has the number itself.
                let number = format!("{}-unmuted", live.notices);
                let url = self.config.public_url.as_deref();
                out.push(Decision::Notify(Box::new(OutboxEntry {
                    notification: live.notification(&receiver, (reason, missed), &number, url, now),
                    receiver,
                    fingerprint: fingerprint.clone(),
                    reason,
                    suppressed: None,
                    because: target.because,
                })));
                self.changed = true;
            }
        }
    }

    /// By which mute a notification is kept back, if by any.
    pub(super) fn muted_by(
        &self,
        receiver: &str,
        labels: &[(String, String)],
        now: Timestamp,
    ) -> Option<String> {
        let covers =
            |mute: &&crate::alert::mute::Mute| mute.is_active(now) && mute.covers(receiver, labels);
        let mute = self.state.mutes.iter().find(covers)?;
        Some(format!(
            "muted: {} until {} by {}",
            mute.scope, mute.until, mute.created_by
        ))
    }

    fn targets(&self, live: &Live, reason: NoticeReason) -> Vec<Target> {
        let plain = |receiver: &String| Target {
            receiver: receiver.clone(),
            path: Vec::new(),
            because: Vec::new(),
        };
        if reason == NoticeReason::Resolved {
            let there = |receiver: &&String| self.config.receivers.contains(receiver);
            return live.announced.iter().filter(there).map(plain).collect();
        }
        if live.row.rule != WEIR_TROUBLE {
            return self.config.route.targets(&live.row.labels);
        }
        let all: BTreeSet<&String> = self
            .config
            .receivers
            .iter()
            .chain(&self.config.fallback)
            .collect();
        let works = |receiver: &&String| {
            let key = format!("trouble/{}", text::name(&receiver_subject(receiver)));
            !self.state.conditions.contains_key(&key)
        };
        let working: Vec<Target> = all.into_iter().filter(works).map(plain).collect();
        if working.is_empty() {
            vec![plain(&LOG_RECEIVER.to_owned())]
        } else {
            working
        }
    }
}

impl Live {
    /// Remembers whom a notice reached, and from whom a mute kept it. That it lasts is no news to one who knows.
    fn note(&mut self, receiver: &str, reason: NoticeReason, muted: bool) {
        if !muted {
            self.announced.insert(receiver.to_owned());
            self.withheld.remove(receiver);
        } else if reason == NoticeReason::More || !self.announced.contains(receiver) {
            let missed = self.withheld.entry(receiver.to_owned()).or_default();
            *missed = missed.saturating_add(self.unsent);
        }
    }

    /// `unsent`: how much happened since the notice before this one.
    fn notification(
        &self,
        receiver: &str,
        (reason, unsent): (NoticeReason, u32),
        number: &str,
        external_url: Option<&str>,
        now: Timestamp,
    ) -> Notification {
        let row = &self.row;
        let (title, text) = words::notice(row, reason, unsent, now);
        let status = match reason {
            NoticeReason::Resolved => AlertStatus::Resolved,
            NoticeReason::First | NoticeReason::More | NoticeReason::Repeat => AlertStatus::Firing,
        };
        let alert = NotifiedAlert {
            fingerprint: row.fingerprint.clone(),
            status,
            severity: row.severity,
            title: row.title.clone(),
            body: row.body.clone(),
            labels: row.labels.clone(),
            annotations: row.annotations.clone(),
            since: row.started_at,
            ends: row.ends_at,
            count: row.count,
            executions: row.executions.iter().map(ToString::to_string).collect(),
            url: row.url.clone(),
        };
        Notification {
            id: format!("{}-{number}-{receiver}", row.group_key),
            key: row.group_key.clone(),
            severity: row.severity,
            title,
            text,
            test: false,
            receiver: receiver.to_owned(),
            status,
            group_labels: row
                .labels
                .iter()
                .filter(|(label, _)| label != "severity")
                .cloned()
                .collect(),
            common_labels: row.labels.clone(),
            common_annotations: row.annotations.clone(),
            alerts: vec![alert],
            truncated: 0,
            external_url: external_url.map(ToOwned::to_owned),
        }
    }
}
