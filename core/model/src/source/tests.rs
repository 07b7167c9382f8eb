//! What is missing, lost, found again and suspect, round by round.

use super::*;
use crate::observation::JobState;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_795_000_000 + second).expect("in range")
}

fn reference(id: &str) -> JobRef {
    JobRef {
        id: id.into(),
        run: None,
    }
}

fn job(id: &str, state: JobState) -> Observation {
    Observation::Job(Box::new(Job {
        id: id.into(),
        run: None,
        workflow: None,
        state,
        name: None,
        position: None,
        created: None,
        started: None,
        finished: None,
        steps: Vec::new(),
        error: None,
        labels: Vec::new(),
        detail: "{}".into(),
    }))
}

fn round(rounds: &mut Rounds, second: i64, jobs: Vec<Observation>) -> RoundEnd {
    let page = Page {
        observations: jobs,
        cursor: None,
        coverage: Coverage::Complete,
    };
    rounds.succeeded(at(second));
    rounds.acknowledge(&page, at(second));
    let end = rounds.end_round(Coverage::Complete, at(second));
    for lost in &end.lost {
        rounds.forget(&lost.job);
    }
    end
}

fn rounds() -> Rounds {
    Rounds::new(SignedDuration::from_secs(60), true, [])
}

#[test]
fn a_poll_is_asked_about_the_oldest_first() {
    let stored = [("z", Status::Queued), ("m", Status::Running)];
    let stored = stored.map(|(id, status)| (reference(id), status));
    let mut r = Rounds::new(SignedDuration::from_secs(60), true, stored);
    let states = ["c", "b", "m", "z"].map(|id| job(id, JobState::Running));
    round(&mut r, 0, states.to_vec());
    let ids = |limit| -> Vec<String> { r.open(limit).into_iter().map(|job| job.id).collect() };
    assert_eq!(ids(9), ["z", "m", "c", "b"]);
    assert_eq!(ids(2), ["z", "m"]);
}

#[test]
fn an_unchanged_view_says_nothing_new() {
    let mut r = rounds();
    let page = Page {
        observations: vec![job("a", JobState::Running)],
        cursor: None,
        coverage: Coverage::Complete,
    };
    assert_eq!(r.changed(&page.observations).len(), 1);
    r.acknowledge(&page, at(0));
    assert!(r.changed(&page.observations).is_empty());
}

#[test]
fn what_a_stream_says_counts_like_a_page_and_the_newer_word_wins() {
    let mut r = rounds();
    round(&mut r, 0, vec![job("a", JobState::Running)]);
    let gone = Observation::Gone(reference("a"));
    r.acknowledge_aside(std::slice::from_ref(&gone), at(5));
    r.acknowledge_aside(&[job("a", JobState::Running)], at(6));
    assert!(round(&mut r, 10, vec![]).lost.is_empty());
    r.acknowledge_aside(&[gone], at(15));
    assert_eq!(round(&mut r, 20, vec![]).lost[0].job, reference("a"));
}

#[test]
fn progress_without_a_run_is_of_the_run_that_was_begun() {
    let mut r = rounds();
    let run = |run: &str, state| match job("a", state) {
        Observation::Job(mut job) => {
            job.run = Some(run.into());
            Observation::Job(job)
        }
        other => other,
    };
    let jobs = vec![
        run("1", JobState::Running),
        run("2", JobState::Queued),
        job("ab", JobState::Running),
    ];
    round(&mut r, 0, jobs);
    let meant = |id, run| r.meant(id, run).and_then(|job| job.run);
    assert_eq!(meant("a", None).as_deref(), Some("1"));
    assert_eq!(meant("a", Some("2")).as_deref(), Some("2"));
    assert_eq!(r.meant("a", Some("3")), None);
    assert_eq!(r.meant("ab", None), Some(reference("ab")));
    assert_eq!(r.meant("b", None), None);
}

#[test]
fn a_job_is_lost_after_two_rounds_and_a_minute_not_earlier() {
    let mut r = rounds();
    round(&mut r, 0, vec![job("a", JobState::Queued)]);
    assert!(round(&mut r, 10, vec![]).lost.is_empty());
    assert!(round(&mut r, 20, vec![]).lost.is_empty());
    let end = round(&mut r, 71, vec![]);
    assert_eq!(end.lost[0].job, reference("a"));
    assert!(
        end.lost[0].reason.starts_with("vanished while waiting"),
        "{}",
        end.lost[0].reason
    );
}

#[test]
fn a_job_seen_again_is_not_missing_any_more() {
    let mut r = rounds();
    round(&mut r, 0, vec![job("a", JobState::Running)]);
    round(&mut r, 10, vec![]);
    round(&mut r, 20, vec![job("a", JobState::Running)]);
    assert!(round(&mut r, 75, vec![]).lost.is_empty());
    assert!(round(&mut r, 80, vec![]).lost.is_empty());
}

#[test]
fn a_mass_disappearance_is_held_for_five_minutes() {
    let mut r = rounds();
    let all = ["a", "b", "c", "d"]
        .map(|id| job(id, JobState::Running))
        .to_vec();
    round(&mut r, 0, all);
    assert_eq!(round(&mut r, 10, vec![]).suspect, Some((4, 4)));
    assert!(round(&mut r, 200, vec![]).lost.is_empty());
    let end = round(&mut r, 311, vec![]);
    assert!(end.suspicion_cleared);
    assert_eq!(end.lost.len(), 4);
}

#[test]
fn jobs_gone_after_an_outage_are_lost_in_a_restart() {
    let mut r = rounds();
    let all = ["a", "b", "c"].map(|id| job(id, JobState::Queued)).to_vec();
    round(&mut r, 0, all);
    r.failed(at(5));
    assert_eq!(round(&mut r, 30, vec![]).suspect, None);
    let end = round(&mut r, 91, vec![]);
    assert_eq!(end.lost.len(), 3);
    assert!(
        end.lost[0].reason.starts_with("lost in a restart"),
        "{}",
        end.lost[0].reason
    );
}

#[test]
fn jobs_that_leave_after_a_cancel_are_cancelled_and_arouse_no_suspicion() {
    let mut r = rounds();
    let ids = ["a", "b", "c", "d"];
    round(&mut r, 0, ids.map(|id| job(id, JobState::Queued)).to_vec());
    ids.iter()
        .for_each(|id| r.expect_to_leave(&reference(id), true));
    // One cannot say of a job that ran whether the cancel ended it.
    round(
        &mut r,
        1,
        ids.map(|id| {
            job(
                id,
                if id == "d" {
                    JobState::Running
                } else {
                    JobState::Queued
                },
            )
        })
        .to_vec(),
    );
    assert_eq!(round(&mut r, 2, vec![]).suspect, None);
    let end = round(&mut r, 3, vec![]);
    assert_eq!(end.lost.len(), 3);
    assert!(end.lost.iter().all(|lost| lost.cancelled));
    let end = round(&mut r, 70, vec![]);
    assert_eq!((end.lost.len(), end.lost[0].cancelled), (1, false));
}

#[test]
fn a_cancel_that_was_not_kept_leaves_the_rules_as_they_are() {
    let mut r = rounds();
    round(&mut r, 0, vec![job("a", JobState::Queued)]);
    r.expect_to_leave(&reference("a"), true);
    r.expect_to_leave(&reference("a"), false);
    round(&mut r, 1, vec![]);
    assert!(round(&mut r, 2, vec![]).lost.is_empty());
    assert!(!round(&mut r, 70, vec![]).lost[0].cancelled);
}

#[test]
fn a_partial_round_says_nothing_about_the_others() {
    let mut r = rounds();
    round(&mut r, 0, vec![job("a", JobState::Running)]);
    for second in [60, 120, 180] {
        r.acknowledge(
            &Page {
                observations: vec![],
                cursor: None,
                coverage: Coverage::Partial,
            },
            at(second),
        );
        assert!(r.end_round(Coverage::Partial, at(second)).lost.is_empty());
    }
}

#[test]
fn after_a_changed_configuration_absence_is_no_evidence_until_a_job_was_seen() {
    let open = [(reference("a"), Status::Running)];
    let mut r = Rounds::new(SignedDuration::from_secs(60), false, open.clone());
    for second in [0, 60, 120] {
        assert!(round(&mut r, second, vec![]).lost.is_empty());
    }
    let mut r = Rounds::new(SignedDuration::from_secs(60), true, open);
    round(&mut r, 0, vec![]);
    assert_eq!(round(&mut r, 60, vec![]).lost.len(), 1);
}

fn ended(id: &str, second: i64) -> Job {
    match job(id, JobState::Failed) {
        Observation::Job(mut job) => {
            job.finished = Some(at(second));
            *job
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn after_a_changed_configuration_what_ended_before_the_last_complete_round_is_history() {
    let mut r = rounds().after_change(Some(at(100)));
    assert!(r.is_history(&ended("old", 99)));
    // Nobody looked since then, whatever the configuration.
    assert!(!r.is_history(&ended("missed", 100)));
    assert!(!r.is_history(&ended("new", 500)));
    // Nobody knows when: it is told rather than not.
    let Observation::Job(timeless) = job("timeless", JobState::Failed) else {
        unreachable!()
    };
    assert!(!r.is_history(&timeless));
    // A round that did not see everything, and one that failed, change nothing about it.
    r.begin_poll(at(600));
    assert_eq!(r.end_round(Coverage::Partial, at(601)).complete, None);
    r.failed(at(610));
    assert!(r.is_history(&ended("behind a fault", 99)));
    r.begin_poll(at(620));
    assert_eq!(
        r.end_round(Coverage::Complete, at(630)).complete,
        Some(at(620))
    );
    assert!(!r.is_history(&ended("found later", 99)));
}

#[test]
fn without_a_change_nothing_is_history() {
    assert!(!rounds().is_history(&ended("a", 1)));
}

#[test]
fn a_round_of_many_pages_began_with_its_first_one() {
    let mut r = rounds();
    let page = |coverage| Page {
        observations: vec![],
        cursor: None,
        coverage,
    };
    r.begin_poll(at(0));
    assert!(r.acknowledge(&page(Coverage::More), at(5)));
    r.begin_poll(at(6));
    assert!(!r.acknowledge(&page(Coverage::Complete), at(9)));
    assert_eq!(r.end_round(Coverage::Complete, at(9)).complete, Some(at(0)));
    // A round that broke off begins anew.
    r.begin_poll(at(20));
    r.acknowledge(&page(Coverage::More), at(21));
    r.failed(at(22));
    r.begin_poll(at(30));
    assert_eq!(
        r.end_round(Coverage::Complete, at(31)).complete,
        Some(at(30))
    );
}

#[test]
fn the_providers_word_that_a_job_is_gone_needs_no_grace() {
    let mut r = rounds();
    round(&mut r, 0, vec![job("a", JobState::Running)]);
    assert_eq!(
        round(&mut r, 1, vec![Observation::Gone(reference("a"))])
            .lost
            .len(),
        1
    );
}
