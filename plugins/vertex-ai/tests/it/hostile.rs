//! Answers that no server should give: nothing panics, nothing grows without a bound.

use serde_json::{Value, json};
use vertex_ai::client;
use vertex_ai::job;
use vertex_ai::name::Name;
use vertex_ai::wire::{LogEntries, Resource};
use weir_sdk::Response;

use crate::fake::{Fault, job as make, sample};
use crate::far::{End, Host, NOW, Way, config, source};

const SAMPLES: [&str; 8] = [
    "04-running-two-pools-web",
    "06-failed-exit-code",
    "07-failed-timeout",
    "18-tpu-spot-unicode",
    "19-unspecified-empty-pool",
    "20-nanosecond-and-millisecond-timestamps",
    "pipelinejob-running",
    "batchpredictionjob-succeeded",
];

fn odd_values() -> Vec<Value> {
    vec![
        Value::Null,
        json!(true),
        json!(-1),
        json!(u64::MAX),
        json!(1e300),
        json!(""),
        json!("-9223372036854775808"),
        json!("9999-12-31T23:59:59.999999999Z"),
        json!("\u{1b}]0;x\u{7}\u{202e}".repeat(50)),
        json!([]),
        json!([[], {}, null, 7, "x"]),
        json!({}),
        json!({"": {"": ""}}),
    ]
}

/// Every value in `value` replaced in turn.
fn mutate(value: &Value, check: &mut dyn FnMut(Value)) {
    fn paths(value: &Value, at: &str, found: &mut Vec<String>) {
        found.push(at.to_owned());
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    paths(value, &format!("{at}/{}", key.replace('/', "~1")), found);
                }
            }
            Value::Array(items) => {
                for (index, value) in items.iter().enumerate() {
                    paths(value, &format!("{at}/{index}"), found);
                }
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    paths(value, "", &mut found);
    for path in found {
        for odd in odd_values() {
            let mut changed = value.clone();
            *changed.pointer_mut(&path).unwrap() = odd;
            check(changed);
        }
    }
}

#[test]
fn any_value_in_any_place_costs_itself_only() {
    let config = config(r#", "workflow": "{workflow}-{id}", "workflow_label": "env""#);
    let name = Name::parse("projects/1/locations/l1/customJobs/1").unwrap();
    let pipeline = Name::parse("projects/1/locations/l1/pipelineJobs/1").unwrap();
    let mut checked = 0;
    for sample_name in SAMPLES {
        mutate(&sample(sample_name), &mut |value| {
            // A whole document that is no object is no job; everything else is one.
            let resource: Resource = match serde_json::from_value(value.clone()) {
                Ok(resource) => resource,
                Err(_) => {
                    assert!(!value.is_object(), "{value}");
                    return;
                }
            };
            for name in [&name, &pipeline] {
                let job = job::view(&config, name, "demo", &resource);
                assert!(job.detail.len() < 64 * 1024 && job.labels.len() <= 64);
                assert!(
                    serde_json::from_str::<Value>(&job.detail)
                        .unwrap()
                        .is_object()
                );
                let shown = format!("{:?}{:?}", job.name, job.error);
                assert!(
                    !shown.contains("\\u{1b}") && !shown.contains("\\u{202e}"),
                    "{shown}"
                );
                for step in &job.steps {
                    assert!(!step.id.is_empty());
                    assert!(step.done.is_none_or(|done| done.is_finite() && done >= 0.0));
                    assert!(
                        step.total
                            .is_none_or(|total| total.is_finite() && total >= 0.0)
                    );
                }
                checked += 1;
            }
        });
    }
    assert!(checked > 5_000, "{checked}");
}

#[test]
fn a_refusal_of_any_shape_is_a_refusal() {
    for name in ["error-403", "error-429-rate", "error-429-gpu"] {
        mutate(&sample(name), &mut |value| {
            let response = Response {
                status: 200,
                headers: Vec::new(),
                body: value.to_string().into_bytes(),
            };
            let _ = client::parse::<LogEntries>(&response);
            let way = Way::new();
            *way.fake.borrow_mut() = crate::fake::Fake::default();
            let _ = client::parse::<vertex_ai::wire::ErrorBody>(&response);
        });
    }
}

#[test]
fn entries_that_are_no_jobs_make_no_round_complete() {
    let way = Way::new();
    let mut foreign = make("01-queued", "customJobs", "us-central1", "2", NOW);
    // Of another location than the list it stands in.
    foreign["name"] =
        json!("projects/1/locations/us-central1/customJobs/2/locations/us-central1/customJobs/x");
    way.fake.borrow_mut().jobs = vec![
        make("01-queued", "customJobs", "us-central1", "1", NOW),
        foreign,
    ];
    let (mut host, mut instance) = (Host::default(), source(r#", "kinds": ["custom_jobs"]"#));
    assert!(matches!(host.round(&mut instance, &way), End::Partial));
    assert_eq!(host.jobs.len(), 1);
    assert!(way.log.borrow()[0].contains("1 entries"), "{:?}", way.log);
}

#[test]
fn any_cursor_is_survived() {
    let way = Way::new();
    way.fake.borrow_mut().jobs = vec![make("03-running-t4", "customJobs", "us-central1", "1", NOW)];
    for cursor in [
        "",
        "null",
        "{}",
        r#"{"v": 1}"#,
        r#"{"v": 1, "round": {"started": 99999999999999999, "scope": 7}}"#,
        r#"{"v": 1, "round": {"started": 1800000000000, "scope": 7, "failed": []}}"#,
        r#"{"v": 1, "pauses": {"demo/us-central1": {"until": 18446744073709551615}}}"#,
        r#"{"v": 1, "marks": {"demo/us-central1/custom_jobs": 18446744073709551615}}"#,
    ] {
        let mut host = Host {
            cursor: Some(cursor.to_owned()),
            ..Host::default()
        };
        let mut instance = source(r#", "kinds": ["custom_jobs"]"#);
        host.round(&mut instance, &way);
        way.later(1000);
        host.round(&mut instance, &way);
        assert_eq!(host.jobs.len(), 1, "{cursor}");
    }
}

#[test]
fn a_server_that_repeats_its_token_ends_the_list() {
    let way = Way::new();
    way.fake.borrow_mut().jobs = (0..10)
        .map(|n| {
            make(
                "01-queued",
                "customJobs",
                "us-central1",
                &n.to_string(),
                NOW,
            )
        })
        .collect();
    way.fake
        .borrow_mut()
        .fault("customJobs", Fault::Status(200, "list-page-1".into()), 9999);
    let (mut host, mut instance) = (Host::default(), source(r#", "kinds": ["custom_jobs"]"#));
    let failure = host.round(&mut instance, &way).failure();
    assert!(
        failure.message.contains("the page token it was asked with"),
        "{}",
        failure.message
    );
}

#[test]
fn a_cursor_is_small_however_many_places_fail() {
    let way = Way::new();
    let locations: Vec<String> = (0..40).map(|n| format!("\"l{n}\"")).collect();
    let config = format!(r#", "locations": [{}]"#, locations.join(", "));
    // One of 120 lists answers; the others refuse at length.
    let mut refusal = sample("error-403");
    refusal["error"]["message"] = json!("\"\\".repeat(1000));
    way.fake
        .borrow_mut()
        .fault("", Fault::Json(403, refusal), 100_000);
    way.fake
        .borrow_mut()
        .fault("l39/pipelineJobs", Fault::None, 1);
    way.fake.borrow_mut().faults.reverse();
    let (mut host, mut instance) = (Host::default(), source(&config));
    // `poll` asserts the size of every cursor.
    assert!(matches!(host.round(&mut instance, &way), End::Partial));
}
