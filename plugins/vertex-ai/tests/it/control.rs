//! Cancel, retry, submit: what the provider got, and that nothing is made twice.

use serde_json::{Value, json};
use vertex_ai::control;
use weir_sdk::FailureKind;
use weir_sdk::bindings::weir::plugin::types::JobRef;

use crate::fake::{Fault, NUMBER, job};
use crate::far::{NOW, Way, config, kind};

fn reference(collection: &str, id: &str) -> JobRef {
    JobRef {
        id: format!("projects/{NUMBER}/locations/us-central1/{collection}/{id}"),
        run: None,
    }
}

const BODY: &[u8] = br#"{"kind": "customJobs", "location": "us-central1", "project": "demo",
    "job": {"displayName": "new", "labels": {"env": "prod"}, "jobSpec": {"workerPoolSpecs": []}}}"#;

#[test]
fn cancel_asks_and_the_provider_says_when_it_is_done() {
    let way = Way::new();
    way.fake.borrow_mut().jobs = vec![job("03-running-t4", "customJobs", "us-central1", "1", NOW)];
    let cancel = |id: &str| control::cancel(&way, &config(""), &reference("customJobs", id));
    cancel("1").unwrap();
    cancel("1").unwrap();
    assert_eq!(
        way.fake.borrow_mut().find("1")["state"],
        "JOB_STATE_CANCELLING"
    );
    assert_eq!(kind(&cancel("2").unwrap_err()), FailureKind::NotFound);
    way.fake
        .borrow_mut()
        .fault(":cancel", Fault::Status(403, "error-403".into()), 1);
    assert_eq!(kind(&cancel("1").unwrap_err()), FailureKind::Misconfigured);
    way.fake.borrow_mut().fault(":cancel", Fault::Html(502), 1);
    assert_eq!(kind(&cancel("1").unwrap_err()), FailureKind::Transient);
    let strange = JobRef {
        id: "../../etc".into(),
        run: None,
    };
    let failure = control::cancel(&way, &config(""), &strange).unwrap_err();
    assert_eq!(kind(&failure), FailureKind::NotFound);
    way.assert_nothing_wrong();
}

#[test]
fn retry_is_a_new_job_of_the_old_specification() {
    let way = Way::new();
    way.fake.borrow_mut().jobs = vec![
        job("06-failed-exit-code", "customJobs", "us-central1", "1", NOW),
        job(
            "batchpredictionjob-succeeded",
            "batchPredictionJobs",
            "us-central1",
            "2",
            NOW,
        ),
        job("03-running-t4", "customJobs", "us-central1", "3", NOW),
    ];
    let retry = |key: &str, job: JobRef| control::retry(&way, &config(""), key, &job);
    let answer = retry("0193-key", reference("customJobs", "1")).unwrap();
    let id = answer.job.unwrap().id;
    assert!(!id.ends_with("/1"));
    let made: Value = serde_json::from_slice(&answer.body).unwrap();
    let old = way.fake.borrow_mut().find("1").clone();
    assert_eq!(made["jobSpec"], old["jobSpec"]);
    assert_eq!(made["displayName"], old["displayName"]);
    assert_eq!(
        made["labels"],
        json!({"pipeline": "autovideo", "region": "us_central1", "retried_from": "1", "weir_key": "0193-key"})
    );
    // The same key is the same job; a retry of the retry is another one.
    assert_eq!(
        retry("0193-key", reference("customJobs", "1"))
            .unwrap()
            .job
            .unwrap()
            .id,
        id
    );
    assert_eq!(way.fake.borrow().jobs.len(), 4);
    retry("b", reference("batchPredictionJobs", "2")).unwrap();
    assert_eq!(way.fake.borrow().jobs[0]["model"], old_model());
    assert!(way.fake.borrow().jobs[0].get("completionStats").is_none());
    let failure = retry("c", reference("customJobs", "3")).unwrap_err();
    assert_eq!(kind(&failure), FailureKind::Permanent);
    assert!(failure.message.contains("RUNNING"), "{}", failure.message);
    way.assert_nothing_wrong();
}

fn old_model() -> Value {
    crate::fake::sample("batchpredictionjob-succeeded")["model"].clone()
}

#[test]
fn submit_passes_the_job_and_the_answer_through() {
    let way = Way::new();
    let answer = control::submit(&way, &config(""), "A key with spaces", BODY).unwrap();
    assert_eq!(answer.status, 200);
    let made: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(made["displayName"], "new");
    assert_eq!(made["labels"]["env"], "prod");
    let key = made["labels"]["weir_key"].as_str().unwrap();
    assert!(key.starts_with("sha256-") && key.len() == 63, "{key}");
    // Refused by the provider: its own words.
    way.fake
        .borrow_mut()
        .fault("POST", Fault::Status(400, "error-400-filter".into()), 1);
    let answer = control::submit(&way, &config(""), "k2", BODY).unwrap();
    assert_eq!((answer.status, answer.job.is_none()), (400, true));
    assert!(answer.content_type.starts_with("application/json"));
    for (body, expected) in [
        (r#"[]"#, "expected an object"),
        (r#"{"job"#, "no JSON"),
        (r#"{"kind": "custom_jobs"}"#, "job: expected an object"),
        (r#"{"kind": "models", "job": {}}"#, "kind: expected one of"),
        (
            r#"{"location": "mars", "job": {}}"#,
            "location: \"mars\" is none of this source's: us-central1",
        ),
        (
            r#"{"project": "other", "job": {}}"#,
            "project: \"other\" is none",
        ),
        (r#"{"project": 7, "job": {}}"#, "project: expected a string"),
        (r#"{"job": {"labels": []}}"#, "labels: expected an object"),
    ] {
        let failure = control::submit(&way, &config(""), "k", body.as_bytes()).unwrap_err();
        assert_eq!(kind(&failure), FailureKind::Permanent);
        assert!(failure.message.contains(expected), "{}", failure.message);
    }
    way.assert_nothing_wrong();
}

#[test]
fn a_create_whose_answer_is_lost_is_never_repeated_blindly() {
    // It was made: the look after it finds it.
    for lost in [Fault::Lost(503), Fault::Lost(504), Fault::Half] {
        let way = Way::new();
        way.fake.borrow_mut().fault("POST", lost.clone(), 1);
        let answer = control::submit(&way, &config(""), "key", BODY).unwrap();
        assert!(answer.job.is_some(), "{lost:?}");
        assert_eq!(way.fake.borrow().jobs.len(), 1);
    }
    // It was made, and nobody can look: the next attempt with the key looks first.
    let way = Way::new();
    way.fake.borrow_mut().fault("POST", Fault::Lost(503), 1);
    let submit = || control::submit(&way, &config(""), "key", BODY);
    way.fake
        .borrow_mut()
        .faults
        .push(("GET".into(), Fault::Html(502), 0));
    let first = {
        // The look before passes, the look after does not.
        let failure = {
            way.fake.borrow_mut().fault("nothing", Fault::Silent, 0);
            submit_with_blind_second_look(&way)
        };
        assert_eq!(kind(&failure), FailureKind::Transient);
        assert!(failure.message.contains("not known"), "{}", failure.message);
        // A time to come back would say that nothing was made.
        assert_eq!(failure.retry_after_ms, None);
        way.fake.borrow().jobs.len()
    };
    assert_eq!(first, 1);
    way.fake.borrow_mut().faults.clear();
    assert!(submit().unwrap().job.is_some());
    assert_eq!(way.fake.borrow().jobs.len(), 1, "never twice");
    // Nobody can look: nothing is made.
    way.fake.borrow_mut().fault("GET", Fault::Html(502), 9);
    assert_eq!(
        kind(&control::submit(&way, &config(""), "other", BODY).unwrap_err()),
        FailureKind::Transient
    );
    assert_eq!(way.fake.borrow().jobs.len(), 1);
    way.assert_nothing_wrong();
}

/// A submit whose first look is answered and whose second is not.
fn submit_with_blind_second_look(way: &Way) -> weir_sdk::Failure {
    struct Blind<'a>(&'a Way, std::cell::Cell<u32>);
    impl weir_sdk::Far for Blind<'_> {
        fn now(&self) -> u64 {
            self.0.now()
        }
        fn log(&self, level: weir_sdk::Level, message: &str) {
            self.0.log(level, message);
        }
        fn send(
            &self,
            request: weir_sdk::Request,
        ) -> Result<weir_sdk::Response, weir_sdk::Failure> {
            self.1.set(self.1.get() + 1);
            if self.1.get() == 3 {
                return Err(weir_sdk::failure::transient("timeout: no answer"));
            }
            self.0.send(request)
        }
        fn fetch(
            &self,
            request: weir_sdk::Request,
        ) -> Result<weir_sdk::Response, weir_sdk::Failure> {
            self.0.fetch(request)
        }
    }
    control::submit(
        &Blind(way, std::cell::Cell::new(0)),
        &config(""),
        "key",
        BODY,
    )
    .unwrap_err()
}
