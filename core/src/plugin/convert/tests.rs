//! What a guest may return, and what is left out or refused.

use super::super::contract::bindings::exports::weir::plugin::jobs;
use super::super::limits::Limits;
use super::*;
use weir_model::observation::GaugeError;

fn gauge() -> Gauge {
    Gauge::new(Limits::default())
}

fn valid() -> types::Job {
    types::Job {
        id: "1".into(),
        run: None,
        workflow: None,
        state: types::JobState::Running,
        name: None,
        position: None,
        created: Some(1_700_000_000_000),
        started: None,
        finished: None,
        steps: vec![valid_step()],
        error: None,
        labels: vec![("gpu".into(), "a100".into())],
        detail: "{}".into(),
    }
}

fn valid_step() -> types::Step {
    types::Step {
        id: "3".into(),
        name: "KSampler".into(),
        state: types::StepState::Running,
        started: None,
        finished: None,
        done: Some(3.0),
        total: Some(20.0),
        error: None,
    }
}

fn progress(done: f64) -> types::Observation {
    types::Observation::Progress(types::Progress {
        id: "1".into(),
        run: None,
        step: None,
        done,
        total: None,
        note: None,
    })
}

fn check(observation: types::Observation, expected: Result<(), Invalid>) {
    assert_eq!(
        Rules(&gauge()).observation(observation).map(|_| ()),
        expected
    );
}

#[test]
fn every_broken_rule_drops_the_observation() {
    let with = |change: fn(&mut types::Job)| {
        let mut job = valid();
        change(&mut job);
        types::Observation::Job(job)
    };
    check(with(|_| {}), Ok(()));
    check(with(|job| job.detail = " {\"a\": [1]} ".into()), Ok(()));
    check(with(|job| job.id.clear()), Err(Invalid::EmptyId));
    check(
        with(|job| job.name = Some("x".repeat(65_537))),
        Err(Invalid::LongString(65_536)),
    );
    check(with(|job| job.error = Some("x".repeat(65_536))), Ok(()));
    check(with(|job| job.started = Some(u64::MAX)), Err(Invalid::Time));
    check(with(|job| job.finished = Some(1 << 60)), Err(Invalid::Time));
    check(
        with(|job| job.steps = vec![valid_step(); 5_001]),
        Err(Invalid::Steps),
    );
    check(
        with(|job| job.steps[0].done = Some(-1.0)),
        Err(Invalid::Number),
    );
    check(
        with(|job| job.steps[0].total = Some(f64::NAN)),
        Err(Invalid::Number),
    );
    check(
        with(|job| job.labels = vec![job.labels[0].clone(); 65]),
        Err(Invalid::Labels),
    );
    for detail in ["", "[]", "null", "{", "{} {}", "\"x\""] {
        let mut job = valid();
        job.detail = detail.into();
        check(types::Observation::Job(job), Err(Invalid::Detail));
    }
    let mut job = valid();
    job.detail = format!("{}1{}", "{\"a\":".repeat(100_000 / 5), "}".repeat(20_000));
    check(types::Observation::Job(job), Err(Invalid::Detail));
    check(
        with(|job| job.detail = format!("{{\"a\":\"{}\"}}", "x".repeat(262_144))),
        Err(Invalid::LongDetail(262_144)),
    );
    check(progress(0.5), Ok(()));
    for number in [f64::INFINITY, f64::NEG_INFINITY, f64::NAN, -0.001] {
        check(progress(number), Err(Invalid::Number));
    }
}

#[test]
fn an_invalid_observation_is_left_out_alone_and_the_round_no_longer_counts_as_complete() {
    let found = jobs::Page {
        observations: vec![
            progress(1.0),
            progress(-1.0),
            types::Observation::Job(valid()),
        ],
        cursor: Some("c".into()),
        coverage: jobs::Coverage::Complete,
    };
    let checked = page(found, &gauge()).unwrap();
    assert_eq!(checked.page.observations.len(), 2);
    assert_eq!(checked.page.coverage, Coverage::Partial);
    assert_eq!(checked.dropped, [("1".to_owned(), Invalid::Number)]);
}

#[test]
fn an_invalid_gauge_is_left_out_alone_and_says_nothing_about_jobs() {
    let told = |name: &str, value: f64| {
        types::Observation::Gauge(types::Gauge {
            name: name.into(),
            labels: vec![("device".into(), "cuda:0".into())],
            value,
        })
    };
    let found = jobs::Page {
        observations: vec![
            told("a_bytes", 1.0),
            told("a_total", 1.0),
            told("a_bytes", f64::NAN),
            types::Observation::Job(valid()),
        ],
        cursor: None,
        coverage: jobs::Coverage::Complete,
    };
    let checked = page(found, &gauge()).unwrap();
    assert_eq!(checked.page.observations.len(), 2);
    assert_eq!(checked.page.coverage, Coverage::Complete);
    let dropped = [
        ("a_total".to_owned(), Invalid::Gauge(GaugeError::Suffix)),
        ("a_bytes".to_owned(), Invalid::Gauge(GaugeError::Value)),
    ];
    assert_eq!(checked.dropped, dropped);
}

#[test]
fn a_page_over_the_bounds_is_a_failure_of_the_call() {
    let too_many = jobs::Page {
        observations: vec![progress(1.0); 5_001],
        cursor: None,
        coverage: jobs::Coverage::Partial,
    };
    assert!(
        page(too_many, &gauge())
            .unwrap_err()
            .message
            .contains("5001 observations")
    );
    let long_cursor = jobs::Page {
        observations: vec![],
        cursor: Some("x".repeat(65_537)),
        coverage: jobs::Coverage::Partial,
    };
    assert!(
        page(long_cursor, &gauge())
            .unwrap_err()
            .message
            .contains("cursor")
    );
}

#[test]
fn a_receipt_too_long_to_keep_is_left_out() {
    assert_eq!(receipt(Some("x".repeat(4_097)), &gauge()), (None, true));
    assert_eq!(
        receipt(Some("x".into()), &gauge()),
        (Some("x".into()), false)
    );
    assert_eq!(receipt(None, &gauge()), (None, false));
}
