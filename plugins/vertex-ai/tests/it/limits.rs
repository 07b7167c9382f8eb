//! Refusals: both quotas, tokens, permissions, broken answers, and places that fail beside places that work.

use vertex_ai::control;
use weir_sdk::FailureKind;
use weir_sdk::bindings::weir::plugin::types::{JobRef, JobState};

use crate::fake::{Fault, job};
use crate::far::{End, Host, NOW, Way, config, kind, source};

const CUSTOM: &str = r#", "kinds": ["custom_jobs"]"#;
const TWO: &str = r#", "kinds": ["custom_jobs"], "locations": ["us-central1", "europe-west4"]"#;
const SECOND: u64 = 1000;

#[test]
fn a_request_rate_is_waited_for_to_the_millisecond() {
    for (header, wait) in [(None, 7_500), (Some(20), 20_000)] {
        let way = Way::new();
        let (mut host, mut instance) = (Host::default(), source(CUSTOM));
        host.round(&mut instance, &way).missing();
        way.fake
            .borrow_mut()
            .fault("customJobs", Fault::Rate(header), 1);
        let failure = host.round(&mut instance, &way).failure();
        assert_eq!(
            (kind(&failure), failure.retry_after_ms),
            (FailureKind::Transient, Some(wait))
        );
        assert!(
            failure.message.contains("RESOURCE_EXHAUSTED"),
            "{}",
            failure.message
        );
        way.asked();
        for _ in 0..10 {
            // A host that is in a hurry is told again, and the provider hears nothing.
            way.later(u64::from(wait) / 20);
            let failure = host.round(&mut instance, &way).failure();
            assert!(failure.retry_after_ms.unwrap() < wait);
        }
        assert_eq!(way.asked(), Vec::<String>::new());
        way.later(u64::from(wait));
        host.round(&mut instance, &way).missing();
        way.assert_nothing_wrong();
    }
}

#[test]
fn a_place_that_rests_hides_nothing_of_the_others() {
    let way = Way::new();
    way.fake.borrow_mut().jobs = vec![
        job("03-running-t4", "customJobs", "us-central1", "1", NOW),
        job("03-running-t4", "customJobs", "europe-west4", "2", NOW),
    ];
    let (mut host, mut instance) = (Host::default(), source(TWO));
    host.round(&mut instance, &way).missing();
    way.fake
        .borrow_mut()
        .fault("us-central1/customJobs", Fault::Rate(None), 1);
    way.fake.borrow_mut().set("2", "JOB_STATE_FAILED", NOW);
    way.later(SECOND);
    assert!(matches!(host.round(&mut instance, &way), End::Partial));
    assert_eq!(host.job("2").state, JobState::Failed);
    // The rest survives the instance, in the cursor.
    for _ in 0..6 {
        way.later(SECOND);
        assert!(matches!(host.round(&mut source(TWO), &way), End::Partial));
    }
    assert!(
        !way.asked()
            .iter()
            .skip(4)
            .any(|line| line.contains("us-central1"))
    );
    way.later(2 * SECOND);
    assert!(host.round(&mut instance, &way).missing().is_empty());
    way.assert_nothing_wrong();
    let log = way.log.borrow().join("\n");
    assert!(
        log.contains("demo, us-central1") && log.contains("429"),
        "{log}"
    );
}

#[test]
fn every_broken_answer_is_passing_and_changes_nothing() {
    let way = Way::new();
    way.fake.borrow_mut().jobs = vec![job("03-running-t4", "customJobs", "us-central1", "1", NOW)];
    let (mut host, mut instance) = (Host::default(), source(CUSTOM));
    host.round(&mut instance, &way).missing();
    for (fault, expected) in [
        (
            Fault::Html(502),
            "answered 502: an HTML page, \"Error 502 (Server Error)!!1\"",
        ),
        (
            Fault::Html(200),
            "answered 200, but the answer is no JSON of Google's",
        ),
        (
            Fault::Status(500, "error-500".into()),
            "answered 500 INTERNAL: Internal error encountered.",
        ),
        (
            Fault::Status(503, "error-503".into()),
            "answered 503 UNAVAILABLE",
        ),
        (
            Fault::Status(200, "error-500".into()),
            "with an error instead of a list",
        ),
        (Fault::Half, "ended in the middle of the JSON"),
        (Fault::Silent, "timeout: no answer"),
    ] {
        way.fake.borrow_mut().fault("customJobs", fault.clone(), 1);
        way.later(15 * SECOND);
        let failure = host.round(&mut instance, &way).failure();
        assert_eq!(kind(&failure), FailureKind::Transient, "{fault:?}");
        assert!(failure.message.contains(expected), "{}", failure.message);
        assert!(
            failure
                .message
                .starts_with("custom_jobs in project demo, us-central1: "),
            "{}",
            failure.message
        );
        way.later(15 * SECOND);
        assert!(
            host.round(&mut instance, &way).missing().is_empty(),
            "{fault:?}"
        );
    }
}

#[test]
fn a_refusal_says_what_an_operator_has_to_do() {
    for (status, name, expected) in [
        (401, "error-401", "credential `gcp` was not accepted"),
        (
            403,
            "error-403",
            "missing permission: aiplatform.customJobs.list",
        ),
        (404, "error-404", "is us-central1 a location of Vertex AI"),
        (400, "error-400-filter", "a filter of the configuration?"),
    ] {
        let way = Way::new();
        way.fake
            .borrow_mut()
            .fault("", Fault::Status(status, name.into()), 99);
        let mut instance = source(CUSTOM);
        let failure = Host::default().round(&mut instance, &way).failure();
        assert!(failure.message.contains(expected), "{}", failure.message);
        assert_eq!(kind(&failure), FailureKind::Misconfigured);
        let failure = instance.check(&way).unwrap_err();
        assert!(failure.message.contains(expected), "{}", failure.message);
        assert_eq!(kind(&failure), FailureKind::Misconfigured);
    }
    let way = Way::new();
    way.fake.borrow_mut().tokens.push("good".into());
    let failure = source(CUSTOM).check(&way).unwrap_err();
    assert!(failure.message.contains("401"), "{}", failure.message);
}

#[test]
fn a_check_is_content_with_one_place_and_parks_for_none_that_is_down() {
    let way = Way::new();
    assert_eq!(
        source(TWO).check(&way).unwrap(),
        "Vertex AI, 2 of 2 lists answered"
    );
    way.fake
        .borrow_mut()
        .fault("us-central1", Fault::Status(403, "error-403".into()), 99);
    let text = source(TWO).check(&way).unwrap();
    assert!(text.starts_with("Vertex AI, 1 of 2 lists answered; custom_jobs in project demo, us-central1: answered 403"), "{text}");
    way.fake
        .borrow_mut()
        .fault("europe-west4", Fault::Html(502), 99);
    assert_eq!(
        kind(&source(TWO).check(&way).unwrap_err()),
        FailureKind::Transient
    );
}

#[test]
fn a_location_without_permission_is_asked_ever_more_rarely_and_named() {
    let way = Way::new();
    way.fake.borrow_mut().jobs = vec![
        job("03-running-t4", "customJobs", "europe-west4", "2", NOW),
        job(
            "06-failed-exit-code",
            "customJobs",
            "us-central1",
            "old",
            NOW - 24 * 3600 * SECOND,
        ),
    ];
    way.fake
        .borrow_mut()
        .fault("us-central1", Fault::Status(403, "error-403".into()), 9999);
    let (mut host, mut instance) = (Host::default(), source(TWO));
    for _ in 0..80 {
        assert!(matches!(host.round(&mut instance, &way), End::Partial));
        way.later(15 * SECOND);
    }
    let refused = way
        .asked()
        .iter()
        .filter(|line| line.contains("us-central1"))
        .count();
    assert!((3..=8).contains(&refused), "{refused} times in 20 minutes");
    let log = way.log.borrow().clone();
    assert!((1..=4).contains(&log.len()), "{log:?}");
    assert!(
        log[0].contains(
            "not listed, its jobs stay as they were: custom_jobs in project demo, us-central1"
        ),
        "{log:?}"
    );
    // The permission is given: what ended before weir ever saw the place is no news.
    way.fake.borrow_mut().faults.clear();
    way.later(20 * 60 * SECOND);
    host.round(&mut instance, &way).missing();
    assert_eq!(host.jobs.len(), 1);
    assert!(way.log.borrow().last().unwrap().contains("is listed again"));
}

#[test]
fn open_jobs_of_a_place_that_fails_stay_as_they_were() {
    let way = Way::new();
    way.fake.borrow_mut().jobs = vec![
        job("03-running-t4", "customJobs", "us-central1", "1", NOW),
        job("03-running-t4", "customJobs", "europe-west4", "2", NOW),
    ];
    let (mut host, mut instance) = (Host::default(), source(TWO));
    host.round(&mut instance, &way).missing();
    way.fake
        .borrow_mut()
        .fault("us-central1", Fault::Html(502), 9);
    way.asked();
    for _ in 0..3 {
        way.later(15 * SECOND);
        assert!(matches!(host.round(&mut instance, &way), End::Partial));
    }
    assert_eq!(
        way.asked().len(),
        6,
        "one that cannot be listed is not asked for its jobs"
    );
    assert_eq!(host.open().len(), 2);
}

#[test]
fn a_quota_of_gpus_is_an_answer_and_not_a_reason_to_knock() {
    let way = Way::new();
    way.fake
        .borrow_mut()
        .fault("POST", Fault::Status(429, "error-429-gpu".into()), 9);
    let body = br#"{"kind": "custom_jobs", "job": {"displayName": "x", "jobSpec": {}}}"#;
    let answer = control::submit(&way, &config(CUSTOM), "key-1", body).unwrap();
    assert_eq!((answer.job.is_none(), answer.status), (true, 429));
    assert!(
        String::from_utf8(answer.body)
            .unwrap()
            .contains("custom_model_training_nvidia_t4_gpus")
    );
    assert_eq!(way.asked().len(), 2, "a look and one attempt");
    assert!(
        way.log.borrow()[0].contains("a quota of machines"),
        "{:?}",
        way.log
    );
    // A request rate on the same request is another thing.
    way.fake.borrow_mut().faults.clear();
    way.fake.borrow_mut().fault("POST", Fault::Rate(None), 1);
    let failure = control::submit(&way, &config(CUSTOM), "key-1", body).unwrap_err();
    assert_eq!(
        (kind(&failure), failure.retry_after_ms),
        (FailureKind::Transient, Some(7_500))
    );
    let job = JobRef {
        id: format!(
            "projects/{}/locations/us-central1/customJobs/1",
            crate::fake::NUMBER
        ),
        run: None,
    };
    way.later(8 * SECOND);
    way.fake
        .borrow_mut()
        .fault(":cancel", Fault::Rate(Some(3)), 1);
    let failure = control::cancel(&way, &config(CUSTOM), &job).unwrap_err();
    assert_eq!(
        (kind(&failure), failure.retry_after_ms),
        (FailureKind::Transient, Some(3_000))
    );
    way.assert_nothing_wrong();
}
