//! Rounds: pages, windows, what left a list, running pipelines, and what a quiet round costs.

use serde_json::json;
use weir_sdk::bindings::weir::plugin::types::{JobState, StepState};

use crate::fake::{Fault, job};
use crate::far::{End, Host, NOW, Way, source};

const CUSTOM: &str = r#", "kinds": ["custom_jobs"]"#;
const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;
const DAY: u64 = 24 * 60 * MINUTE;

fn custom(sample: &str, id: &str, created: u64) -> serde_json::Value {
    job(sample, "customJobs", "us-central1", id, created)
}

#[test]
fn a_list_is_read_to_its_end_and_only_the_token_ends_it() {
    let way = Way::new();
    for number in 0..250 {
        let id = format!("{number}");
        way.fake
            .borrow_mut()
            .jobs
            .push(custom("01-queued", &id, NOW - number));
    }
    let (mut host, mut instance) = (Host::default(), source(CUSTOM));
    assert!(host.round(&mut instance, &way).missing().is_empty());
    assert_eq!(host.jobs.len(), 250);
    assert_eq!(way.asked().len(), 3);
    // Once more with an empty page in the middle that has a token.
    way.fake
        .borrow_mut()
        .jobs
        .retain(|job| !job["name"].as_str().unwrap().ends_with("/7"));
    let missing = host.round(&mut instance, &way).missing();
    assert_eq!(missing.len(), 1);
    way.assert_nothing_wrong();
}

#[test]
fn one_list_per_kind_project_and_location_and_no_get() {
    let way = Way::new();
    way.fake.borrow_mut().jobs = vec![
        custom("03-running-t4", "1", NOW),
        job(
            "batchpredictionjob-succeeded",
            "batchPredictionJobs",
            "europe-west4",
            "2",
            NOW,
        ),
    ];
    let (mut host, mut instance) = (
        Host::default(),
        source(r#", "locations": ["us-central1", "europe-west4"]"#),
    );
    host.round(&mut instance, &way).missing();
    for _ in 0..5 {
        way.asked();
        way.later(15 * SECOND);
        host.round(&mut instance, &way).missing();
        let asked = way.asked();
        assert_eq!(asked.len(), 6, "{asked:?}");
        assert!(asked.iter().all(|line| line.ends_with("Jobs")), "{asked:?}");
    }
    assert_eq!(host.job("1").state, JobState::Running);
    assert_eq!(host.job("2").state, JobState::Completed);
    way.assert_nothing_wrong();
}

#[test]
fn ten_thousand_jobs_are_imported_once_and_then_not_listed_again() {
    let way = Way::new();
    {
        let mut fake = way.fake.borrow_mut();
        fake.jobs = (0..10_000)
            .map(|number| {
                custom(
                    "05-succeeded",
                    &format!("{number}"),
                    NOW - DAY - number * 60,
                )
            })
            .collect();
        fake.jobs
            .push(custom("05-succeeded", "ancient", NOW - 31 * DAY));
        fake.jobs
            .push(custom("03-running-t4", "old-but-runs", NOW - 40 * DAY));
    }
    let (mut host, mut instance) = (Host::default(), source(CUSTOM));
    host.round(&mut instance, &way).missing();
    assert_eq!(host.jobs.len(), 10_001);
    assert!(!host.jobs.keys().any(|id| id.ends_with("ancient")));
    assert_eq!(way.asked().len(), 101);
    for _ in 0..3 {
        way.later(15 * SECOND);
        host.round(&mut instance, &way).missing();
        assert_eq!((way.asked().len(), host.told), (1, 1));
    }
    way.assert_nothing_wrong();
}

#[test]
fn a_job_that_came_and_went_between_two_rounds_is_told_once() {
    let way = Way::new();
    let (mut host, mut instance) = (Host::default(), source(CUSTOM));
    host.round(&mut instance, &way).missing();
    way.later(3 * DAY);
    // weir was away for three days.
    way.fake
        .borrow_mut()
        .jobs
        .push(custom("06-failed-exit-code", "1", NOW + DAY));
    host.round(&mut instance, &way).missing();
    assert_eq!(host.job("1").state, JobState::Failed);
    for _ in 0..4 {
        way.later(15 * SECOND);
        host.round(&mut instance, &way).missing();
    }
    assert_eq!(host.told, 0, "its end is on disk");
    // A page that could not be stored is told again.
    way.fake
        .borrow_mut()
        .jobs
        .push(custom("06-failed-exit-code", "2", way.now.get()));
    let page = host.poll(&mut instance, &way).unwrap();
    assert_eq!(page.observations.len(), 1);
    host.round(&mut instance, &way).missing();
    assert_eq!(host.told, 1);
}

#[test]
fn a_job_that_ended_long_after_it_was_made_is_looked_up_once() {
    let way = Way::new();
    way.fake.borrow_mut().jobs = vec![
        custom("03-running-t4", "1", NOW - DAY),
        custom("03-running-t4", "2", NOW - DAY),
    ];
    let (mut host, mut instance) = (Host::default(), source(CUSTOM));
    host.round(&mut instance, &way).missing();
    way.asked();
    way.later(DAY);
    way.fake
        .borrow_mut()
        .set("1", "JOB_STATE_SUCCEEDED", NOW + DAY);
    host.round(&mut instance, &way).missing();
    assert_eq!(host.job("1").state, JobState::Completed);
    assert_eq!(way.asked().len(), 2, "the list, and one get");
    way.later(15 * SECOND);
    host.round(&mut instance, &way).missing();
    assert_eq!(way.asked().len(), 1);
}

#[test]
fn a_deleted_job_is_missing_and_a_broken_lookup_is_no_evidence() {
    let way = Way::new();
    way.fake.borrow_mut().jobs = vec![custom("03-running-t4", "1", NOW - DAY)];
    let (mut host, mut instance) = (Host::default(), source(CUSTOM));
    host.round(&mut instance, &way).missing();
    way.fake.borrow_mut().jobs.clear();
    for fault in [
        Fault::Html(502),
        Fault::Html(404),
        Fault::Status(500, "error-500".into()),
        Fault::Status(403, "error-403".into()),
        Fault::Half,
        Fault::Silent,
    ] {
        way.fake
            .borrow_mut()
            .fault("customJobs/1", fault.clone(), 1);
        way.later(15 * SECOND);
        assert!(
            matches!(host.round(&mut instance, &way), End::Partial),
            "{fault:?}"
        );
    }
    for round in 0..3 {
        way.asked();
        way.later(15 * SECOND);
        assert_eq!(host.round(&mut instance, &way).missing().len(), 1);
        assert_eq!(
            way.asked().len(),
            if round == 0 { 2 } else { 1 },
            "404 is believed for a while"
        );
    }
    way.assert_nothing_wrong();
}

#[test]
fn many_lookups_are_spread_and_nobody_is_missing_meanwhile() {
    let way = Way::new();
    way.fake.borrow_mut().jobs = (0..300)
        .map(|number| custom("03-running-t4", &format!("{number}"), NOW - DAY))
        .collect();
    let (mut host, mut instance) = (Host::default(), source(CUSTOM));
    host.round(&mut instance, &way).missing();
    for number in 0..300 {
        way.fake
            .borrow_mut()
            .set(&number.to_string(), "JOB_STATE_FAILED", NOW);
    }
    let mut ends = Vec::new();
    for _ in 0..3 {
        way.asked();
        way.later(15 * SECOND);
        let end = host.round(&mut instance, &way);
        assert!(way.asked().len() <= 121);
        ends.push(matches!(end, End::Complete(_)));
    }
    assert_eq!(ends, [false, false, true]);
    assert!(host.open().is_empty());
    way.assert_nothing_wrong();
}

#[test]
fn a_filter_by_state_hides_nobody_who_is_known() {
    let way = Way::new();
    way.fake.borrow_mut().jobs = vec![
        custom("03-running-t4", "1", NOW),
        custom("01-queued", "2", NOW),
    ];
    let config = r#", "kinds": ["custom_jobs"], "states": ["RUNNING"]"#;
    let (mut host, mut instance) = (Host::default(), source(config));
    host.round(&mut instance, &way).missing();
    assert_eq!(host.jobs.len(), 1);
    way.fake.borrow_mut().set("1", "JOB_STATE_PAUSED", NOW);
    for _ in 0..4 {
        way.later(15 * SECOND);
        assert!(
            host.round(&mut instance, &way).missing().is_empty(),
            "it is hidden, not missing"
        );
    }
    assert_eq!(host.job("1").state, JobState::Paused);
    assert!(
        way.asked()
            .iter()
            .filter(|line| line.ends_with("/1"))
            .count()
            <= 2
    );
    way.fake.borrow_mut().set("1", "JOB_STATE_FAILED", NOW);
    way.later(2 * MINUTE);
    host.round(&mut instance, &way).missing();
    assert_eq!(host.job("1").state, JobState::Failed);
}

#[test]
fn a_filter_by_final_states_sees_jobs_that_ran_for_days() {
    let way = Way::new();
    way.fake.borrow_mut().jobs = vec![custom("04-running-two-pools-web", "1", NOW)];
    let config = r#", "kinds": ["custom_jobs"], "states": ["FAILED"]"#;
    let (mut host, mut instance) = (Host::default(), source(config));
    host.round(&mut instance, &way).missing();
    assert!(host.jobs.is_empty());
    way.later(2 * DAY);
    way.fake
        .borrow_mut()
        .set("1", "JOB_STATE_FAILED", NOW + 2 * DAY);
    host.round(&mut instance, &way).missing();
    assert_eq!(host.job("1").state, JobState::Failed);
}

#[test]
fn names_labels_and_times_are_pushed_down() {
    let way = Way::new();
    {
        let mut fake = way.fake.borrow_mut();
        fake.jobs.push(custom("01-queued", "1", NOW));
        fake.jobs.push(custom("02-pending", "no-label", NOW));
        fake.jobs
            .push(custom("04-running-two-pools-web", "other-name", NOW));
        fake.jobs.push(custom("01-queued", "too-old", NOW - DAY));
    }
    let config = format!(
        r#", "kinds": ["custom_jobs"], "display_names": ["av-video-*"], "labels": {{"pipeline": "autovideo", "region": "*"}}, "created_after": "{}""#,
        crate::fake::stamp(NOW - MINUTE)
    );
    let (mut host, mut instance) = (Host::default(), source(&config));
    host.round(&mut instance, &way).missing();
    assert_eq!(host.jobs.len(), 1);
    host.job("1");
    way.assert_nothing_wrong();
}

#[test]
fn running_pipelines_have_their_turn_five_in_a_round() {
    let way = Way::new();
    way.fake.borrow_mut().jobs = (0..12)
        .map(|number| {
            let id = format!("p{number:02}");
            job(
                "pipelinejob-running",
                "pipelineJobs",
                "us-central1",
                &id,
                NOW,
            )
        })
        .collect();
    let config = r#", "kinds": ["pipeline_jobs"]"#;
    let (mut host, mut instance) = (Host::default(), source(config));
    let mut asked = Vec::new();
    for round in 0..3 {
        host.round(&mut instance, &way).missing();
        let gets: Vec<String> = way
            .asked()
            .into_iter()
            .filter(|line| !line.ends_with("Jobs"))
            .collect();
        assert_eq!(gets.len(), 5);
        asked.extend(gets);
        if round == 1 {
            // The turn survives the instance.
            instance = source(config);
        }
        way.later(15 * SECOND);
    }
    asked.sort();
    asked.dedup();
    assert_eq!(asked.len(), 12);
    assert_eq!(host.job("p03").steps.len(), 3);
    // What is asked for rarely keeps its steps meanwhile.
    host.round(&mut instance, &way).missing();
    assert!(
        host.jobs
            .values()
            .filter(|job| job.steps.len() == 3)
            .count()
            >= 10
    );
    way.assert_nothing_wrong();
}

#[test]
fn a_pipeline_that_ends_is_told_with_its_last_tasks() {
    for fault in [None, Some(Fault::Status(403, "error-403".into()))] {
        let way = Way::new();
        way.fake.borrow_mut().jobs = vec![job(
            "pipelinejob-running",
            "pipelineJobs",
            "us-central1",
            "p1",
            NOW,
        )];
        let (mut host, mut instance) = (Host::default(), source(r#", "kinds": ["pipeline_jobs"]"#));
        host.round(&mut instance, &way).missing();
        {
            let mut fake = way.fake.borrow_mut();
            fake.set("p1", "PIPELINE_STATE_FAILED", NOW);
            for task in 0..3 {
                fake.find("p1")["jobDetail"]["taskDetails"][task]["state"] =
                    json!(["SUCCEEDED", "FAILED", "NOT_TRIGGERED"][task]);
            }
            if let Some(fault) = &fault {
                fake.fault("/p1", fault.clone(), 9);
            }
        }
        way.later(15 * SECOND);
        host.round(&mut instance, &way).missing();
        let job = host.job("p1");
        assert_eq!(
            job.state,
            JobState::Failed,
            "how it ended matters more than its tasks"
        );
        let states: Vec<StepState> = job.steps.iter().map(|step| step.state).collect();
        if fault.is_none() {
            assert_eq!(
                states,
                [StepState::Completed, StepState::Failed, StepState::Skipped]
            );
        }
    }
}

#[test]
fn an_interrupted_round_goes_on_and_nobody_is_missing_for_it() {
    let way = Way::new();
    way.fake.borrow_mut().jobs = (0..6000)
        .map(|number| custom("01-queued", &format!("{number}"), NOW - number))
        .collect();
    let (mut host, mut instance) = (Host::default(), source(CUSTOM));
    host.round(&mut instance, &way).missing();
    assert!(host.pages >= 4);
    // The instance is lost in the middle of the next round.
    way.later(15 * SECOND);
    let page = host.poll(&mut instance, &way).unwrap();
    host.take(page, &mut Vec::new());
    way.asked();
    assert!(matches!(
        host.round(&mut source(CUSTOM), &way),
        End::Partial
    ));
    assert!(
        way.asked().len() < 60,
        "it goes on where it was, without a lookup"
    );
    assert!(host.round(&mut instance, &way).missing().is_empty());
    way.assert_nothing_wrong();
}

#[test]
fn a_slow_provider_gets_fewer_requests_in_a_call() {
    let way = Way::new();
    way.fake.borrow_mut().jobs = (0..1000)
        .map(|number| custom("01-queued", &format!("{number}"), NOW - number))
        .collect();
    way.delay.set(4 * SECOND);
    let (mut host, mut instance) = (Host::default(), source(CUSTOM));
    host.round(&mut instance, &way).missing();
    assert_eq!(host.jobs.len(), 1000);
    assert!(host.pages >= 3, "a call ends long before the host ends it");
}

#[test]
fn an_answer_that_is_too_large_is_asked_for_in_halves() {
    let way = Way::new();
    way.fake.borrow_mut().jobs = (0..100)
        .map(|number| custom("01-queued", &format!("{number}"), NOW - number))
        .collect();
    way.fake
        .borrow_mut()
        .fault("customJobs", Fault::TooLarge, 2);
    let (mut host, mut instance) = (Host::default(), source(CUSTOM));
    host.round(&mut instance, &way).missing();
    assert_eq!(host.jobs.len(), 100);
    let sizes: Vec<String> = way
        .fake
        .borrow_mut()
        .take_asked()
        .iter()
        .map(|a| a.query["pageSize"].clone())
        .collect();
    assert_eq!(sizes, ["100", "50", "25", "25", "25", "25"]);
}
