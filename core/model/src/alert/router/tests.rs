//! The router as its users see it: facts in, a short script of what was decided out.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::alert::delivery;
use crate::alert::fact::{Change, ExecutionFact, receiver_subject};
use crate::alert::matcher::Matcher;
use crate::alert::rule::{WEIR_TROUBLE, When};
use crate::status::Status;

const MINUTE: i64 = 60;
const HOUR: i64 = 3600;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).unwrap()
}

fn config(rules: Vec<Rule>) -> RouterConfig {
    RouterConfig {
        workspace: "default".into(),
        rules,
        route: Route::to("phone"),
        receivers: vec!["log".into(), "ops".into(), "phone".into()],
        fallback: Some("ops".into()),
        public_url: Some("https://weir.example.net/".into()),
    }
}

fn all_rules() -> Vec<Rule> {
    let mut pressure = Rule::new("pressure", When::ResourceOver);
    pressure.pending_for = Duration::from_secs(300);
    vec![
        Rule::new("failed", When::ExecutionFailed),
        Rule::new("lost", When::ExecutionLost),
        Rule::new(
            "unreachable",
            When::SourceUnreachable {
                after: Duration::from_secs(120),
            },
        ),
        pressure,
    ]
}

fn execution(n: u128, change: Change) -> ExecutionFact {
    ExecutionFact {
        uuid: Uuid::from_u128(n),
        workflow: "nightly".into(),
        workflow_name: None,
        source: "studio".into(),
        imported: false,
        late: false,
        change,
        error: matches!(change, Change::Finished(Status::Failed))
            .then(|| "CUDA out of memory".into()),
        step: matches!(change, Change::Finished(Status::Failed)).then(|| "KSampler".into()),
        duration: Some(Duration::from_secs(190)),
    }
}

/// A router and a clock: says in short lines what was decided.
struct Desk {
    router: Router,
    seq: i64,
}

impl Desk {
    fn new(rules: Vec<Rule>) -> Self {
        Self {
            router: Router::new(config(rules)),
            seq: 0,
        }
    }

    fn decide(&mut self, seconds: i64, kind: FactKind) -> Vec<Decision> {
        self.seq += 1;
        self.router.handle(&Fact {
            seq: Seq(self.seq),
            at: at(seconds),
            kind,
        })
    }

    fn fact(&mut self, seconds: i64, kind: FactKind) -> Vec<String> {
        told(&self.decide(seconds, kind))
    }

    fn happens(&mut self, seconds: i64, n: u128, change: Change) -> Vec<String> {
        self.fact(seconds, FactKind::Execution(Box::new(execution(n, change))))
    }

    fn fails(&mut self, seconds: i64, n: u128) -> Vec<String> {
        self.happens(seconds, n, Change::Finished(Status::Failed))
    }

    fn tick(&mut self, seconds: i64) -> Vec<String> {
        told(&self.router.tick(at(seconds)))
    }

    fn stale(&mut self, seconds: i64) -> Vec<String> {
        self.fact(
            seconds,
            FactKind::SourceStale {
                source: "studio".into(),
                error: "connection refused".into(),
            },
        )
    }

    fn recovered(&mut self, seconds: i64) -> Vec<String> {
        self.fact(
            seconds,
            FactKind::SourceRecovered {
                source: "studio".into(),
            },
        )
    }

    /// When something is due, in seconds.
    fn wakeup(&mut self) -> Option<i64> {
        self.router
            .next_wakeup()
            .map(|wakeup| wakeup.duration_since(at(0)).as_secs())
    }

    fn open(&self) -> Vec<(String, u32)> {
        self.router
            .open()
            .map(|row| (row.rule.clone(), row.count))
            .collect()
    }
}

/// One line for every notification: receiver, severity, title, and whether it was kept back.
fn told(decisions: &[Decision]) -> Vec<String> {
    let lines = decisions.iter().filter_map(|decision| match decision {
        Decision::Notify(entry) => {
            let severity = words::severity(entry.notification.severity);
            let muted = if entry.suppressed.is_some() {
                " [muted]"
            } else {
                ""
            };
            Some(format!(
                "{} {severity}: {}{muted}",
                entry.receiver, entry.notification.title
            ))
        }
        _ => None,
    });
    lines.collect()
}

const NOTHING: [&str; 0] = [];

#[test]
fn the_first_failure_is_told_at_once_and_in_full() {
    let mut desk = Desk::new(all_rules());
    let failure = FactKind::Execution(Box::new(execution(7, Change::Finished(Status::Failed))));
    let decisions = desk.decide(0, failure);
    let [
        Decision::Alert(row),
        Decision::Event {
            event: AlertEvent::Fired { .. },
            ..
        },
        Decision::Notify(entry),
    ] = decisions.as_slice()
    else {
        panic!("{decisions:#?}")
    };
    assert_eq!(entry.notification.title, "nightly on studio failed");
    assert_eq!(
        entry.notification.text,
        "Error: CUDA out of memory\nStep: KSampler\nRan for 3 min 10 s.\n\
         https://weir.example.net/executions/00000000-0000-0000-0000-000000000007"
    );
    assert_eq!(row.state, AlertState::Firing);
    let labels: Vec<String> = row
        .labels
        .iter()
        .map(|(label, value)| format!("{label}={value}"))
        .collect();
    assert_eq!(
        labels,
        [
            "rule=failed",
            "severity=error",
            "source=studio",
            "workflow=nightly",
            "workspace=default"
        ]
    );
    assert_eq!(entry.notification.key, row.group_key);
    assert_eq!(entry.notification.id, format!("{}-1-phone", row.group_key));
    assert_eq!(
        entry.notification.alerts[0].executions,
        [Uuid::from_u128(7).to_string()]
    );
    assert_eq!(row.fingerprint.len(), 16);
}

#[test]
fn more_failures_are_told_after_5_and_15_minutes_and_then_hourly() {
    let mut desk = Desk::new(all_rules());
    assert_eq!(desk.fails(0, 1), ["phone error: nightly on studio failed"]);
    for n in 2..=4 {
        assert_eq!(desk.fails(10, n), NOTHING);
    }
    assert_eq!(desk.wakeup(), Some(5 * MINUTE));
    assert_eq!(desk.tick(5 * MINUTE - 1), NOTHING);
    assert_eq!(
        desk.tick(5 * MINUTE),
        ["phone error: nightly on studio failed (+2 more)"]
    );
    assert_eq!(desk.fails(6 * MINUTE, 5), NOTHING);
    assert_eq!(
        desk.tick(20 * MINUTE),
        ["phone error: nightly on studio failed"]
    );
    assert_eq!(desk.fails(21 * MINUTE, 6), NOTHING);
    assert_eq!(desk.wakeup(), Some(80 * MINUTE));
    assert_eq!(
        desk.fails(81 * MINUTE, 7),
        ["phone error: nightly on studio failed"],
        "due before the fact"
    );
    assert_eq!(
        desk.fails(200 * MINUTE, 8),
        ["phone error: nightly on studio failed"]
    );
    assert_eq!(desk.open(), [("failed".into(), 8)]);
    assert_eq!(
        desk.router.open().next().unwrap().executions[0],
        Uuid::from_u128(8)
    );
}

#[test]
fn the_next_success_closes_it_silently() {
    let mut desk = Desk::new(all_rules());
    desk.fails(0, 1);
    assert_eq!(
        desk.happens(60, 2, Change::Finished(Status::Completed)),
        NOTHING
    );
    assert_eq!(desk.open(), []);
    assert_eq!(
        desk.fails(120, 3),
        ["phone error: nightly on studio failed"],
        "a new life begins"
    );
}

#[test]
fn a_closed_failure_is_told_where_the_rule_says_so() {
    let mut rules = all_rules();
    rules[0].notify_resolved = true;
    let mut desk = Desk::new(rules);
    desk.fails(0, 1);
    let resolved = ["phone error: Resolved: nightly on studio failed"];
    assert_eq!(
        desk.happens(60, 2, Change::Finished(Status::Completed)),
        resolved
    );
    desk.fails(100, 3);
    assert_eq!(desk.tick(100 + 24 * HOUR), resolved);
}

#[test]
fn a_success_closes_nothing_where_jobs_have_no_workflow_of_their_own() {
    let mut desk = Desk::new(all_rules());
    let fact = |n, status| {
        let workflow = "studio".to_owned();
        FactKind::Execution(Box::new(ExecutionFact {
            workflow,
            ..execution(n, Change::Finished(status))
        }))
    };
    assert_eq!(
        desk.fact(0, fact(1, Status::Failed)),
        ["phone error: a job on studio failed"]
    );
    desk.fact(60, fact(2, Status::Completed));
    assert_eq!(desk.open().len(), 1);
    assert_eq!(desk.wakeup(), Some(24 * HOUR));
    desk.tick(24 * HOUR);
    assert_eq!(desk.open(), []);
}

#[test]
fn imported_is_history_and_late_is_said() {
    let mut desk = Desk::new(all_rules());
    let imported = ExecutionFact {
        imported: true,
        ..execution(1, Change::Finished(Status::Failed))
    };
    assert_eq!(
        desk.fact(0, FactKind::Execution(Box::new(imported))),
        NOTHING
    );
    let late = ExecutionFact {
        late: true,
        ..execution(2, Change::Finished(Status::Failed))
    };
    assert_eq!(
        desk.fact(0, FactKind::Execution(Box::new(late))),
        ["phone error: nightly on studio failed (late)"]
    );
}

#[test]
fn partly_done_is_a_warning_until_it_gets_worse() {
    let mut desk = Desk::new(all_rules());
    assert_eq!(
        desk.happens(0, 1, Change::Finished(Status::Partial)),
        ["phone warning: nightly on studio was only partly done"]
    );
    assert_eq!(
        desk.happens(600, 2, Change::Finished(Status::Timeout)),
        ["phone error: nightly on studio timed out"]
    );
}

#[test]
fn a_lost_job_that_is_found_takes_its_alert_back() {
    let mut desk = Desk::new(all_rules());
    assert_eq!(
        desk.happens(0, 1, Change::Lost),
        ["phone error: nightly on studio was lost"]
    );
    desk.happens(1, 2, Change::Lost);
    desk.happens(2, 1, Change::Found(Status::Running));
    assert_eq!(desk.open(), [("lost".into(), 2)]);
    assert_eq!(
        desk.happens(3, 2, Change::Found(Status::Failed)),
        ["phone error: nightly on studio failed"]
    );
    assert_eq!(desk.open(), [("failed".into(), 1)]);
}

#[test]
fn a_corrected_verdict_moves_the_alert() {
    let mut desk = Desk::new(all_rules());
    desk.fails(0, 1);
    desk.happens(
        1,
        1,
        Change::Corrected {
            from: Status::Failed,
            to: Status::Cancelled,
        },
    );
    assert_eq!(desk.open(), []);
    let failed = Change::Corrected {
        from: Status::Completed,
        to: Status::Failed,
    };
    assert_eq!(
        desk.happens(2, 1, failed),
        ["phone error: nightly on studio failed"]
    );
}

#[test]
fn an_empty_queue_is_one_summary() {
    let mut desk = Desk::new(vec![Rule::new("done", When::QueueEmpty { min_jobs: 2 })]);
    for n in 1..=3 {
        desk.happens(0, n, Change::Created);
    }
    desk.happens(600, 1, Change::Finished(Status::Completed));
    desk.happens(1200, 2, Change::Finished(Status::Failed));
    assert_eq!(
        desk.happens(11_400, 3, Change::Finished(Status::Completed)),
        ["phone info: studio: queue empty: 2 ok, 1 failed, 3 h 10 min"]
    );
    desk.happens(20_000, 4, Change::Created);
    assert_eq!(
        desk.happens(20_001, 4, Change::Finished(Status::Completed)),
        NOTHING,
        "one job is too few"
    );
    assert_eq!(desk.wakeup(), Some(20_061));
    desk.happens(20_050, 5, Change::Created);
    assert_eq!(
        desk.happens(20_051, 5, Change::Finished(Status::Completed)),
        ["phone info: studio: queue empty: 2 ok, 51 s"],
        "jobs that come one by one are one batch"
    );
    desk.tick(30_000);
    assert_eq!((desk.open(), desk.wakeup()), (vec![], None));
}

#[test]
fn an_unreachable_source_is_told_after_its_time_and_again_when_it_is_back() {
    let mut desk = Desk::new(all_rules());
    assert_eq!(desk.stale(0), NOTHING);
    assert_eq!(desk.recovered(60), NOTHING);
    desk.happens(90, 1, Change::Created);
    desk.stale(100);
    assert_eq!(desk.wakeup(), Some(220));
    let decisions = desk.router.tick(at(220));
    assert_eq!(told(&decisions), ["phone error: studio is unreachable"]);
    let Some(Decision::Notify(entry)) = decisions.last() else {
        panic!("{decisions:#?}")
    };
    assert_eq!(
        entry.notification.text,
        "Error: connection refused\nIts unfinished job keeps its last known status.\nFor 2 min now."
    );
    assert_eq!(
        desk.tick(220 + 4 * HOUR),
        ["phone error: Still: studio is unreachable"]
    );
    assert_eq!(
        desk.recovered(220 + 5 * HOUR),
        ["phone error: Resolved: studio is unreachable"]
    );
    assert_eq!(desk.open(), []);
}

#[test]
fn an_unreachable_source_without_jobs_is_a_warning() {
    let mut desk = Desk::new(all_rules());
    desk.stale(0);
    assert_eq!(desk.tick(120), ["phone warning: studio is unreachable"]);
    let removed = desk.fact(
        130,
        FactKind::SourceRemoved {
            source: "studio".into(),
        },
    );
    assert_eq!((removed, desk.open()), (vec![], vec![]));
}

#[test]
fn an_outage_that_was_over_before_the_router_heard_of_it_is_told_like_any_other() {
    let mut desk = Desk::new(all_rules());
    desk.stale(0);
    assert_eq!(
        desk.recovered(600),
        [
            "phone warning: studio is unreachable",
            "phone warning: Resolved: studio is unreachable"
        ]
    );
}

#[test]
fn a_mass_disappearance_is_told_at_once() {
    let mut desk = Desk::new(all_rules());
    for n in 0..3 {
        desk.happens(0, n, Change::Created);
    }
    let suspect = FactKind::SourceSuspect {
        source: "studio".into(),
        missing: 40,
        of: 50,
    };
    assert_eq!(
        desk.fact(1, suspect),
        ["phone error: studio: 40 of 50 jobs vanished at once"]
    );
    let cleared = FactKind::SourceSuspicionCleared {
        source: "studio".into(),
    };
    assert_eq!(
        desk.fact(9, cleared),
        ["phone error: Resolved: studio: 40 of 50 jobs vanished at once"]
    );
}

#[test]
fn a_resource_must_be_over_for_its_time() {
    let mut desk = Desk::new(all_rules());
    let over = |value| FactKind::ResourceOver {
        resource: "memory".into(),
        value,
        limit: 85.0,
    };
    let recovered = || FactKind::ResourceRecovered {
        resource: "memory".into(),
        value: 70.0,
        limit: 85.0,
    };
    desk.fact(0, over(88.0));
    assert_eq!(desk.fact(299, recovered()), NOTHING);
    desk.fact(400, over(91.25));
    assert_eq!(desk.tick(700), ["phone warning: memory at 91.3 %"]);
    assert_eq!(
        desk.fact(800, recovered()),
        ["phone warning: Resolved: memory at 91.3 %"]
    );
}

#[test]
fn what_fires_ends_and_fires_again_in_one_moment_has_numbers_of_its_own() {
    let mut desk = Desk::new(Vec::new());
    let subject = receiver_subject("phone");
    let trouble = || FactKind::Trouble {
        subject: subject.clone(),
        message: "401 Unauthorized".into(),
    };
    let over = FactKind::TroubleCleared {
        subject: subject.clone(),
    };
    let decisions = [trouble(), over, trouble()].map(|fact| desk.decide(0, fact));
    let mut ids: Vec<String> = decisions
        .into_iter()
        .flatten()
        .filter_map(|decision| match decision {
            Decision::Notify(entry) => Some(entry.notification.id),
            _ => None,
        })
        .collect();
    assert_eq!(ids.len(), 6, "{ids:?}");
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 6, "{ids:?}");
}

#[test]
fn trouble_goes_to_every_receiver_that_works() {
    let mut desk = Desk::new(Vec::new());
    let subject = receiver_subject("phone");
    let trouble = FactKind::Trouble {
        subject: subject.clone(),
        message: "401 Unauthorized".into(),
    };
    assert_eq!(
        desk.fact(0, trouble),
        [
            "log critical: weir is in trouble: receiver phone",
            "ops critical: weir is in trouble: receiver phone"
        ]
    );
    let resolved = desk.fact(60, FactKind::TroubleCleared { subject });
    assert_eq!(resolved.len(), 2, "{resolved:?}");
    let blind = FactKind::Blind {
        from: at(100),
        to: at(7300),
        reason: "the host slept".into(),
    };
    assert_eq!(desk.fact(7300, blind).len(), 3);
    assert_eq!(desk.router.open().next().unwrap().rule, WEIR_TROUBLE);
    assert_eq!(desk.tick(7300 + HOUR), NOTHING);
    assert_eq!(desk.open(), []);
}

#[test]
fn acknowledging_ends_an_event_and_quiets_a_state() {
    let mut desk = Desk::new(all_rules());
    desk.fails(0, 1);
    let fingerprint = desk.router.open().next().unwrap().fingerprint.clone();
    let decisions = desk
        .router
        .acknowledge(&fingerprint, "jan", at(10))
        .unwrap();
    let [
        Decision::Alert(row),
        Decision::Event {
            event: AlertEvent::Acknowledged { .. },
            ..
        },
    ] = &decisions[..]
    else {
        panic!("{decisions:#?}")
    };
    assert_eq!(
        (row.state, row.ends_at),
        (AlertState::Acknowledged, Some(at(10)))
    );
    assert!(
        desk.router
            .acknowledge(&fingerprint, "jan", at(11))
            .is_err()
    );
    assert_eq!(
        desk.fails(20, 2).len(),
        1,
        "the next failure is a new alert"
    );

    desk.stale(1000);
    desk.tick(1120);
    let fingerprint = desk
        .router
        .open()
        .find(|row| row.rule == "unreachable")
        .unwrap()
        .fingerprint
        .clone();
    desk.router
        .acknowledge(&fingerprint, "jan", at(1130))
        .unwrap();
    assert_eq!(desk.tick(1120 + 8 * HOUR), NOTHING);
    assert_eq!(
        desk.recovered(1120 + 9 * HOUR),
        ["phone warning: Resolved: studio is unreachable"]
    );
}

#[test]
fn muted_is_recorded_and_not_sent_and_so_is_its_end() {
    let mut desk = Desk::new(all_rules());
    desk.router.mute(mute_until("source=studio", 500), at(0));
    assert_eq!(
        desk.fails(1, 1),
        ["phone error: nightly on studio failed [muted]"]
    );
    desk.stale(2);
    assert_eq!(
        desk.tick(122),
        ["phone warning: studio is unreachable [muted]"]
    );
    assert_eq!(desk.recovered(400), NOTHING, "nobody knows that it fired");
    desk.happens(410, 2, Change::Finished(Status::Completed));
    assert_eq!(
        desk.fails(601, 3),
        ["phone error: nightly on studio failed"],
        "the mute has ended"
    );
    assert_eq!(desk.router.mutes(), []);
    desk.router
        .mute(mute_until("receiver=phone", 9000), at(700));
    assert_eq!(
        desk.router.explain(&[])[0]
            .suppressed
            .as_deref()
            .map(|text| &text[..20]),
        Some("muted: receiver=phon")
    );
    assert!(
        desk.router
            .unmute(&"receiver=phone".parse().unwrap(), at(701))
            .is_some()
    );
    assert!(
        desk.router
            .unmute(&"receiver=phone".parse().unwrap(), at(702))
            .is_none()
    );
}

fn mute_until(scope: &str, until: i64) -> Mute {
    Mute {
        id: "1".into(),
        scope: scope.parse().unwrap(),
        until: at(until),
        created_by: "cli".into(),
    }
}

#[test]
fn what_a_mute_kept_back_and_is_still_open_is_told_once_when_it_ends() {
    let mut desk = Desk::new(all_rules());
    desk.router.mute(mute_until("source=studio", 500), at(0));
    desk.fails(1, 1);
    desk.fails(100, 2);
    assert_eq!(
        desk.tick(301),
        ["phone error: nightly on studio failed [muted]"]
    );
    assert_eq!(desk.wakeup(), Some(500));
    let decisions = desk.router.tick(at(500));
    assert_eq!(told(&decisions), ["phone error: nightly on studio failed"]);
    let Some(Decision::Notify(entry)) = decisions.last() else {
        panic!("{decisions:#?}")
    };
    assert_eq!(entry.reason, NoticeReason::First);
    assert_eq!(desk.tick(501), NOTHING);

    // Told before, and more of it kept back: what is new is told, as soon as the mute is lifted.
    desk.router
        .mute(mute_until("receiver=phone", 90_000), at(600));
    desk.fails(2000, 3);
    desk.fails(2001, 4);
    desk.tick(2000 + HOUR);
    let lifted = |desk: &mut Desk, seconds| {
        let lifted = desk
            .router
            .unmute(&"receiver=phone".parse().unwrap(), at(seconds));
        told(&lifted.unwrap())
    };
    assert_eq!(
        lifted(&mut desk, 9000),
        ["phone error: nightly on studio failed (+1 more)"]
    );

    // What has ended meanwhile, or that somebody knows of, is not told.
    desk.router
        .mute(mute_until("receiver=phone", 90_000), at(9001));
    desk.happens(9002, 5, Change::Finished(Status::Completed));
    desk.fails(9003, 6);
    desk.happens(9004, 7, Change::Finished(Status::Completed));
    desk.stale(9005);
    desk.tick(9200);
    let stale = desk.router.open().next().unwrap().fingerprint.clone();
    desk.router.acknowledge(&stale, "jan", at(9201)).unwrap();
    assert_eq!(lifted(&mut desk, 9300), NOTHING);
}

#[test]
fn a_mute_that_is_replaced_by_one_that_has_ended_keeps_nothing_back() {
    let mut desk = Desk::new(all_rules());
    desk.router.mute(mute_until("source=studio", 5000), at(0));
    desk.fails(1, 1);
    let shorter = desk.router.mute(mute_until("source=studio", 10), at(20));
    assert_eq!(told(&shorter), ["phone error: nightly on studio failed"]);
}

#[test]
fn an_acknowledged_failure_is_told_where_the_rule_says_so() {
    let mut rules = all_rules();
    rules[0].notify_resolved = true;
    let mut desk = Desk::new(rules);
    desk.fails(0, 1);
    let fingerprint = desk.router.open().next().unwrap().fingerprint.clone();
    let decisions = desk
        .router
        .acknowledge(&fingerprint, "jan", at(60))
        .unwrap();
    assert_eq!(
        told(&decisions),
        ["phone error: Resolved: nightly on studio failed"]
    );
    let Some(Decision::Notify(entry)) = decisions.last() else {
        panic!("{decisions:#?}")
    };
    let notification = &entry.notification;
    assert_eq!(notification.text, "After 1 min: acknowledged by jan.");
    assert_eq!(
        notification.status,
        crate::alert::notification::AlertStatus::Resolved
    );
}

#[test]
fn matchers_labels_and_routes_of_the_configuration_apply() {
    let mut rule = Rule::new("failed", When::ExecutionFailed);
    rule.matchers = vec![
        Matcher::parse("source=studio").unwrap(),
        Matcher::parse("team=render").unwrap(),
    ];
    rule.labels.insert("team".into(), "render".into());
    rule.annotations
        .insert("runbook".into(), "https://example.net/runbook".into());
    let mut config = config(vec![rule]);
    config.route.routes = vec![Route {
        matchers: vec![Matcher::parse("team=render").unwrap()],
        continues: true,
        ..Route::to("ops")
    }];
    let mut desk = Desk {
        router: Router::new(config),
        seq: 0,
    };
    let other = ExecutionFact {
        source: "attic".into(),
        ..execution(1, Change::Finished(Status::Failed))
    };
    assert_eq!(desk.fact(0, FactKind::Execution(Box::new(other))), NOTHING);
    assert_eq!(desk.fails(0, 1), ["ops error: nightly on studio failed"]);
    assert!(
        desk.router
            .open()
            .next()
            .unwrap()
            .annotations
            .iter()
            .any(|(label, _)| label == "runbook")
    );
}

#[test]
fn good_news_is_told_at_most_once_a_minute_and_does_not_stay_open() {
    let mut desk = Desk::new(vec![Rule::new("each", When::ExecutionCompleted)]);
    let completed = Change::Finished(Status::Completed);
    assert_eq!(
        desk.happens(0, 1, completed),
        ["phone info: nightly on studio completed in 3 min 10 s"]
    );
    for n in 2..50 {
        assert_eq!(desk.happens(5, n, completed), NOTHING);
    }
    assert_eq!(
        desk.tick(60),
        ["phone info: nightly on studio completed in 3 min 10 s (+47 more)"]
    );
    assert_eq!(desk.tick(65), NOTHING);
    assert_eq!(desk.open(), []);
}

#[test]
fn alerts_of_a_rule_that_is_gone_end_silently() {
    let mut desk = Desk::new(all_rules());
    desk.fails(0, 1);
    desk.router.reconfigure(config(Vec::new()));
    assert_eq!(desk.tick(1), NOTHING);
    assert_eq!(desk.open(), []);
}

#[test]
fn a_rule_that_is_new_sees_what_holds_already() {
    let mut desk = Desk::new(Vec::new());
    desk.stale(0);
    desk.router.reconfigure(config(all_rules()));
    assert_eq!(desk.tick(200), ["phone warning: studio is unreachable"]);
}

#[test]
fn a_clock_that_went_back_does_not_silence_anything() {
    let mut desk = Desk::new(all_rules());
    desk.fails(365 * 24 * HOUR, 1);
    assert_eq!(desk.fails(0, 2), NOTHING);
    assert_eq!(
        desk.tick(6 * MINUTE),
        ["phone error: nightly on studio failed"]
    );
}

#[test]
fn open_alerts_are_bounded() {
    let mut desk = Desk::new(all_rules());
    for n in 0..1100_u128 {
        let workflow = format!("w{n}");
        let fact = ExecutionFact {
            workflow,
            ..execution(n, Change::Finished(Status::Failed))
        };
        desk.fact(
            i64::try_from(n).unwrap(),
            FactKind::Execution(Box::new(fact)),
        );
    }
    assert_eq!(desk.open().len(), OPEN_MAX);
}

#[test]
fn a_fact_that_was_taken_before_changes_nothing() {
    let mut desk = Desk::new(all_rules());
    desk.fails(0, 1);
    desk.seq = 0;
    assert_eq!(
        desk.decide(
            9999,
            FactKind::SourceRecovered {
                source: "studio".into()
            }
        ),
        []
    );
    assert_eq!(desk.open(), [("failed".into(), 1)]);
}

fn any_fact() -> impl Strategy<Value = FactKind> {
    let status = || {
        prop::sample::select(vec![
            Status::Completed,
            Status::Failed,
            Status::Partial,
            Status::Cancelled,
        ])
    };
    let change = prop_oneof![
        3 => Just(Change::Created),
        5 => status().prop_map(Change::Finished),
        2 => Just(Change::Lost),
        1 => Just(Change::Found(Status::Running)),
        1 => status().prop_map(Change::Found),
        1 => (status(), status()).prop_map(|(from, to)| Change::Corrected { from, to }),
        1 => Just(Change::Unwatched),
        1 => Just(Change::Watched),
    ];
    let name = || prop::sample::select(vec!["studio".to_owned(), "attic".to_owned()]);
    let execution = (0..6u128, change, name(), name(), any::<bool>()).prop_map(
        |(n, change, source, workflow, imported)| {
            FactKind::Execution(Box::new(ExecutionFact {
                source,
                workflow,
                imported,
                ..execution(n, change)
            }))
        },
    );
    prop_oneof![
        8 => execution,
        1 => name().prop_map(|source| FactKind::SourceStale { source, error: "refused".into() }),
        1 => name().prop_map(|source| FactKind::SourceRecovered { source }),
        1 => name().prop_map(|source| FactKind::SourceSuspect { source, missing: 9, of: 10 }),
        1 => name().prop_map(|source| FactKind::SourceSuspicionCleared { source }),
        1 => name().prop_map(|source| FactKind::SourceRemoved { source }),
        1 => name().prop_map(|resource| FactKind::ResourceOver { resource, value: 90.0, limit: 85.0 }),
        1 => name().prop_map(|resource| FactKind::ResourceRecovered { resource, value: 70.0, limit: 85.0 }),
        1 => name().prop_map(|subject| FactKind::Trouble { subject, message: "parked".into() }),
        1 => name().prop_map(|subject| FactKind::TroubleCleared { subject }),
    ]
}

/// Facts with the seconds since the one before; a third of them is followed by a tick.
fn any_history() -> impl Strategy<Value = Vec<(i64, FactKind, bool)>> {
    let gap = prop_oneof![Just(0i64), 1i64..100, 100i64..10_000, Just(-1000i64)];
    prop::collection::vec((gap, any_fact(), prop::bool::weighted(0.3)), 1..60)
}

fn notify_all() -> Vec<Rule> {
    let mut rules = all_rules();
    rules.push(Rule::new("each", When::ExecutionCompleted));
    rules.push(Rule::new("done", When::QueueEmpty { min_jobs: 2 }));
    rules
        .iter_mut()
        .for_each(|rule| rule.notify_resolved = true);
    rules
}

proptest! {
    #[test]
    fn a_router_restored_at_any_moment_continues_as_if_nothing_had_happened(
        history in any_history(),
        restarts in prop::collection::vec(any::<bool>(), 60),
    ) {
        let (mut steady, mut restarted) = (Desk::new(notify_all()), Desk::new(notify_all()));
        let mut now = 0;
        for ((gap, kind, ticks), restart) in history.into_iter().zip(restarts) {
            now += gap;
            prop_assert_eq!(steady.decide(now, kind.clone()), restarted.decide(now, kind));
            if restart {
                let text = serde_json::to_string(restarted.router.state()).unwrap();
                let state = serde_json::from_str(&text).unwrap();
                restarted.router = Router::restore(state, config(notify_all()));
            }
            if ticks {
                prop_assert_eq!(steady.router.tick(at(now + 50)), restarted.router.tick(at(now + 50)));
            }
            prop_assert_eq!(steady.router.next_wakeup(), restarted.router.next_wakeup());
        }
    }

    #[test]
    fn a_resolved_notice_goes_only_where_a_firing_one_went(history in any_history()) {
        let mut desk = Desk::new(notify_all());
        let (mut now, mut fired) = (0, std::collections::BTreeSet::new());
        let mute = Mute { id: "1".into(), scope: "source=attic".parse().unwrap(), until: at(500), created_by: "x".into() };
        desk.router.mute(mute, at(0));
        let mut ids = std::collections::BTreeSet::new();
        for (gap, kind, _) in history {
            now += gap;
            for decision in desk.decide(now, kind) {
                let Decision::Notify(entry) = decision else { continue };
                prop_assert!(ids.insert(entry.notification.id.clone()), "{} twice", entry.notification.id);
                let key = (entry.receiver.clone(), entry.notification.key.clone());
                if entry.reason == NoticeReason::Resolved {
                    prop_assert!(fired.contains(&key), "{key:?} was never told");
                } else if entry.suppressed.is_none() {
                    fired.insert(key);
                }
            }
        }
    }

    #[test]
    fn whoever_a_mute_kept_in_the_dark_knows_all_that_is_open_once_it_ends(history in any_history()) {
        let mut desk = Desk::new(notify_all());
        let (mut now, mut ids) = (0, std::collections::BTreeSet::new());
        let mut told = std::collections::BTreeSet::new();
        let mut take = |decisions: Vec<Decision>| {
            for decision in decisions {
                let Decision::Notify(entry) = decision else { continue };
                assert!(ids.insert(entry.notification.id.clone()), "{} twice", entry.notification.id);
                if entry.suppressed.is_none() {
                    told.insert(entry.notification.key);
                }
            }
        };
        take(desk.router.mute(mute_until("source=attic", 1_000_000), at(0)));
        for (gap, kind, _) in history {
            now += gap;
            take(desk.decide(now, kind));
        }
        let scope: MuteScope = "source=attic".parse().unwrap();
        let end = desk.router.state().now;
        take(desk.router.unmute(&scope, end).unwrap());
        for row in desk.router.open() {
            prop_assert!(told.contains(&row.group_key), "{} was never told", row.title);
        }
        prop_assert_eq!(super::tests::told(&desk.router.tick(end)), Vec::<String>::new());
    }

    #[test]
    fn after_a_tick_nothing_is_due_any_more(history in any_history()) {
        let mut desk = Desk::new(notify_all());
        let mut now = 0;
        for (gap, kind, _) in history {
            now += gap;
            desk.decide(now, kind);
            let tick = desk.router.state().now;
            desk.router.tick(tick);
            prop_assert!(desk.router.next_wakeup().is_none_or(|wakeup| wakeup > tick));
        }
    }

    #[test]
    fn imported_executions_never_alert(history in any_history()) {
        let mut desk = Desk::new(notify_all());
        for (_, kind, _) in history {
            let FactKind::Execution(fact) = kind else { continue };
            let fact = ExecutionFact { imported: true, ..*fact };
            prop_assert_eq!(desk.decide(0, FactKind::Execution(Box::new(fact))), vec![]);
        }
        prop_assert_eq!(desk.wakeup(), None);
    }

    #[test]
    fn a_fingerprint_does_not_know_the_order_of_labels(
        labels in prop::collection::btree_map("[a-z]{1,5}", ".{0,10}", 0..6),
        seed in any::<u64>(),
    ) {
        let labels: Vec<(&str, &str)> = labels.iter().map(|(label, value)| (label.as_str(), value.as_str())).collect();
        let mut shuffled = labels.clone();
        shuffled.sort_by_key(|(label, _)| label.bytes().fold(seed, |hash, byte| hash.rotate_left(7) ^ u64::from(byte)));
        prop_assert_eq!(events::fingerprint(&labels), events::fingerprint(&shuffled));
    }
}

#[test]
fn fingerprints_are_those_of_prometheus() {
    // prometheus/common model: an empty set is the offset basis.
    assert_eq!(events::fingerprint(&[]), "cbf29ce484222325");
    assert_ne!(
        events::fingerprint(&[("ab", "c")]),
        events::fingerprint(&[("a", "bc")])
    );
}

#[test]
fn an_entry_of_the_outbox_begins_queued() {
    let delivery = delivery::Delivery::queued(at(0));
    assert_eq!(delivery.next_attempt_at, Some(at(0)));
}
