//! Every sample, as weir shows it.

use serde_json::{Value, json};
use vertex_ai::client;
use vertex_ai::job;
use vertex_ai::kind::{Kind, State};
use vertex_ai::name::Name;
use vertex_ai::wire::{Accelerator, List, Resource};
use weir_sdk::Response;
use weir_sdk::bindings::weir::plugin::types::{Job, JobState, StepState};

use crate::fake::sample;
use crate::far::config;

fn shown(name: &str, more: &str) -> Job {
    shown_value(sample(name), more)
}

fn shown_value(value: Value, more: &str) -> Job {
    let resource: Resource = serde_json::from_value(value).unwrap();
    let name = Name::parse(resource.name.0.as_deref().unwrap()).unwrap();
    job::view(&config(more), &name, "demo", &resource)
}

fn detail(job: &Job) -> Value {
    serde_json::from_str(&job.detail).unwrap()
}

/// Seconds until it ran (or ended without running), seconds it ran, seconds in all.
type Seconds = [Option<f64>; 3];

const TABLE: [(&str, JobState, Seconds); 21] = [
    ("01-queued", JobState::Queued, [None, None, None]),
    ("02-pending", JobState::Initializing, [None, None, None]),
    (
        "03-running-t4",
        JobState::Running,
        [Some(412.25), None, None],
    ),
    (
        "03-running-t4.enum-int",
        JobState::Running,
        [Some(412.25), None, None],
    ),
    (
        "04-running-two-pools-web",
        JobState::Running,
        [Some(95.0), None, None],
    ),
    (
        "05-succeeded",
        JobState::Completed,
        [Some(120.5), Some(1800.25), Some(1920.75)],
    ),
    (
        "06-failed-exit-code",
        JobState::Failed,
        [Some(60.0), Some(15.0), Some(75.0)],
    ),
    (
        "07-failed-timeout",
        JobState::Timeout,
        [Some(300.0), Some(3600.0), Some(3900.0)],
    ),
    (
        "08-failed-quota-never-started",
        JobState::Failed,
        [Some(33.0), None, Some(33.0)],
    ),
    (
        "09-failed-stockout",
        JobState::Failed,
        [Some(1810.0), None, Some(1810.0)],
    ),
    (
        "10-cancelling",
        JobState::Cancelling,
        [Some(30.0), None, None],
    ),
    (
        "11-cancelled",
        JobState::Cancelled,
        [Some(30.0), Some(490.0), Some(520.0)],
    ),
    (
        "12-cancelled-while-pending",
        JobState::Cancelled,
        [Some(20.0), None, Some(20.0)],
    ),
    ("13-paused", JobState::Paused, [Some(10.0), None, None]),
    (
        "14-expired",
        JobState::Timeout,
        [Some(10.0), Some(604_800.0), Some(604_810.0)],
    ),
    ("15-updating", JobState::Running, [Some(10.0), None, None]),
    (
        "16-partially-succeeded",
        JobState::Partial,
        [Some(10.0), Some(990.0), Some(1000.0)],
    ),
    (
        "17-minimal-no-scheduling",
        JobState::Initializing,
        [None, None, None],
    ),
    (
        "18-tpu-spot-unicode",
        JobState::Running,
        [Some(1.0), None, None],
    ),
    (
        "19-unspecified-empty-pool",
        JobState::Pending,
        [None, None, None],
    ),
    (
        "20-nanosecond-and-millisecond-timestamps",
        JobState::Running,
        [Some(1.377), None, None],
    ),
];

#[test]
fn every_sample_has_its_state_and_its_settled_durations() {
    for (name, state, [queue, run, total]) in TABLE {
        let job = shown(name, "");
        assert_eq!(job.state, state, "{name}");
        let detail = detail(&job);
        let seconds = |field: &str| detail.get(field).and_then(Value::as_f64);
        assert_eq!(seconds("queue_seconds"), queue, "{name}");
        assert_eq!(seconds("run_seconds"), run, "{name}");
        assert_eq!(seconds("total_seconds"), total, "{name}");
        let is_over = total.is_some();
        assert_eq!(job.finished.is_some(), is_over, "{name}");
        assert_eq!(job.id, sample(name)["name"].as_str().unwrap());
        assert!(job.created.is_some() && job.run.is_none() && job.steps.is_empty());
    }
    let running = shown("03-running-t4", "");
    assert_eq!(running.created, Some(1_748_527_200_123));
    assert_eq!(running.started, Some(1_748_527_612_373));
}

#[test]
fn numbers_for_enums_tell_the_same_as_names() {
    let by_name = shown("03-running-t4", "");
    let by_number = shown("03-running-t4.enum-int", "");
    assert_eq!(format!("{by_name:?}"), format!("{by_number:?}"));
}

#[test]
fn machines_are_counted_per_pool() {
    let labels = |job: &Job| -> Vec<String> {
        job.labels
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect()
    };
    assert_eq!(
        labels(&shown("04-running-two-pools-web", "")),
        [
            "kind=custom_jobs",
            "project=demo",
            "region=us-central1",
            "machine=a2-highgpu-2g+n1-highmem-16",
            "accelerator=NVIDIA_TESLA_A100",
            "gpus=2",
            "pool0=1 x a2-highgpu-2g, each 2 x NVIDIA_TESLA_A100",
            "pool1=3 x n1-highmem-16",
        ]
    );
    assert_eq!(
        labels(&shown("02-pending", ""))[3..],
        ["machine=n1-standard-4", "gpus=0"]
    );
    assert_eq!(labels(&shown("17-minimal-no-scheduling", "")).len(), 4);
    assert_eq!(
        labels(&shown("19-unspecified-empty-pool", ""))[3..],
        ["machine=n1-standard-4", "gpus=0"],
        "an empty pool is no machine"
    );
    let tpu = detail(&shown("18-tpu-spot-unicode", ""));
    assert_eq!(tpu["pools"][0]["tpu_topology"], "2x2");
    assert_eq!(
        (&tpu["gpus"], &tpu["strategy"]),
        (&json!(0), &json!("SPOT"))
    );
    let mut many = sample("03-running-t4");
    many["jobSpec"]["workerPoolSpecs"][0]["replicaCount"] = json!("4");
    many["jobSpec"]["workerPoolSpecs"][0]["machineSpec"]["acceleratorCount"] = json!(8);
    assert_eq!(detail(&shown_value(many, ""))["gpus"], 32);
}

#[test]
fn errors_have_their_code_and_a_timeout_its_times() {
    let error = |name: &str| shown(name, "").error;
    assert!(error("06-failed-exit-code").unwrap().starts_with(
        "code 3 (INVALID_ARGUMENT): The replica workerpool0-0 exited with a non-zero status of 1."
    ));
    assert!(
        error("07-failed-timeout")
            .unwrap()
            .starts_with("timeout: it ran 3600 s of 3600 s; code 4 (DEADLINE_EXCEEDED): ")
    );
    assert_eq!(error("14-expired").unwrap(), "the job expired");
    assert_eq!(error("11-cancelled"), None);
    assert_eq!(error("05-succeeded"), None);
    let quota = shown("08-failed-quota-never-started", "");
    assert!(
        quota
            .error
            .as_ref()
            .unwrap()
            .contains("custom_model_training_nvidia_t4_gpus")
    );
    assert_eq!(detail(&quota)["cause"], "quota");
    assert_eq!(detail(&quota)["error_status"], "RESOURCE_EXHAUSTED");
    assert_eq!(
        detail(&shown("09-failed-stockout", ""))["cause"],
        "stockout"
    );
    let mut long = sample("06-failed-exit-code");
    long["error"]["message"] = json!("\u{1b}[2J".repeat(100_000));
    let error = shown_value(long, "").error.unwrap();
    assert!(
        error.len() <= 2048 && !error.contains('\u{1b}'),
        "{}",
        error.len()
    );
}

#[test]
fn a_timeout_is_known_by_its_times_alone() {
    let run = |seconds: u64, state: &str, timeout: Value| {
        let mut job = sample("07-failed-timeout");
        job["state"] = json!(state);
        job["endTime"] = json!(crate::fake::stamp(1_748_527_500_123 + seconds * 1000));
        job["jobSpec"]["scheduling"]["timeout"] = timeout;
        job["error"] = json!({"code": 13, "message": "whatever"});
        shown_value(job, "").state
    };
    assert_eq!(
        run(3600, "JOB_STATE_FAILED", json!("3600s")),
        JobState::Timeout
    );
    assert_eq!(
        run(3599, "JOB_STATE_CANCELLED", json!("3600s")),
        JobState::Timeout
    );
    assert_eq!(
        run(3598, "JOB_STATE_FAILED", json!("3600s")),
        JobState::Failed
    );
    assert_eq!(
        run(3600, "JOB_STATE_SUCCEEDED", json!("3600s")),
        JobState::Completed
    );
    assert_eq!(
        run(3600, "JOB_STATE_FAILED", Value::Null),
        JobState::Failed,
        "the default is a week"
    );
    assert_eq!(
        run(604_800, "JOB_STATE_FAILED", Value::Null),
        JobState::Timeout
    );
}

#[test]
fn what_is_unknown_is_tolerated_and_gives_no_verdict() {
    let mut job = sample("05-succeeded");
    job["state"] = json!("JOB_STATE_ARCHIVED");
    job["quantum"] = json!({"bits": [1, 2]});
    job["error"] = json!("none");
    job["labels"] = json!([1]);
    job["jobSpec"]["workerPoolSpecs"][0]["machineSpec"]["acceleratorType"] = json!("NVIDIA_X1000");
    let shown = shown_value(job, "");
    assert_eq!(
        shown.state,
        JobState::Completing,
        "it ended, nobody knows how"
    );
    assert_eq!(detail(&shown)["state"], "ARCHIVED");
    assert!(
        shown
            .labels
            .contains(&("accelerator".into(), "NVIDIA_X1000".into()))
    );
    assert!(shown.finished.is_none());
}

#[test]
fn names_are_one_safe_line_and_secrets_of_a_container_are_not_read() {
    let job = shown("18-tpu-spot-unicode", "");
    assert_eq!(job.name.as_deref(), Some("レンダー 🎬 \"quoted\" <b>&amp;"));
    for name in ["03-running-t4", "06-failed-exit-code"] {
        let job = shown(name, "");
        let all = format!("{job:?}");
        assert!(
            !all.contains("abcd1234") && !all.contains("JOB_ID"),
            "{all}"
        );
    }
    let mut odd = sample("03-running-t4");
    odd["displayName"] = json!("a\u{1b}[31m\n\u{202e}b");
    assert_eq!(shown_value(odd, "").name.as_deref(), Some("a[31m b"));
}

#[test]
fn a_workflow_comes_from_a_label_else_from_a_pattern() {
    let workflow = |name: &str, more: &str| shown(name, more).workflow;
    let pattern = r#", "workflow": "av-video-render-{id}""#;
    assert_eq!(
        workflow("01-queued", pattern).as_deref(),
        Some("av-video-render")
    );
    assert_eq!(workflow("04-running-two-pools-web", pattern), None);
    let label = r#", "workflow": ["{workflow}-{id}"], "workflow_label": "pipeline""#;
    assert_eq!(workflow("01-queued", label).as_deref(), Some("autovideo"));
    assert_eq!(
        workflow("02-pending", label).as_deref(),
        Some("av-video-render")
    );
    assert_eq!(workflow("01-queued", ""), None);
}

#[test]
fn tasks_of_a_pipeline_are_steps() {
    let job = shown("pipelinejob-running", "");
    assert_eq!(job.state, JobState::Running);
    let steps: Vec<(&str, &str, StepState, bool)> = job
        .steps
        .iter()
        .map(|step| {
            (
                step.id.as_str(),
                step.name.as_str(),
                step.state,
                step.finished.is_some(),
            )
        })
        .collect();
    assert_eq!(
        steps,
        [
            ("1", "story", StepState::Completed, true),
            ("2", "images", StepState::Running, false),
            ("3", "render", StepState::Pending, false),
        ]
    );
    let mut more = sample("pipelinejob-running");
    let states = [
        ("SKIPPED", StepState::Skipped),
        ("NOT_TRIGGERED", StepState::Skipped),
        ("CANCEL_PENDING", StepState::Running),
        ("CANCELLED", StepState::Cancelled),
        ("FAILED", StepState::Failed),
        ("REBORN", StepState::Pending),
    ];
    let tasks: Vec<Value> = states
        .iter()
        .enumerate()
        .map(|(index, (state, _))| {
            json!({"taskId": index.to_string(), "parentTaskId": "99", "taskName": "t", "state": state,
                   "error": {"code": 9, "message": "no"}})
        })
        .chain([json!({"taskId": "99", "taskName": "render"}), json!(7), json!({"taskId": "0"})])
        .collect();
    more["jobDetail"]["taskDetails"] = json!(tasks);
    let job = shown_value(more, "");
    let found: Vec<StepState> = job.steps.iter().map(|step| step.state).collect();
    assert_eq!(
        found,
        states.map(|(_, state)| state),
        "the frame is no step, an id counts once"
    );
    assert_eq!(
        job.steps[4].error.as_deref(),
        Some("code 9 (FAILED_PRECONDITION): no")
    );
}

#[test]
fn a_batch_prediction_counts() {
    let step = |change: Value| {
        let mut job = sample("batchpredictionjob-succeeded");
        for (field, value) in change.as_object().unwrap() {
            job[field] = value.clone();
        }
        let mut job = shown_value(job, "");
        assert_eq!(job.steps.len(), 1);
        let step = job.steps.remove(0);
        (step.state, step.done, step.total)
    };
    assert_eq!(
        step(json!({})),
        (StepState::Completed, Some(1000.0), Some(1000.0))
    );
    let stats = |incomplete: &str| json!({"state": "JOB_STATE_RUNNING", "endTime": null, "completionStats": {"successfulCount": "20", "incompleteCount": incomplete}});
    assert_eq!(
        step(stats("80")),
        (StepState::Running, Some(20.0), Some(100.0))
    );
    assert_eq!(
        step(stats("-1")),
        (StepState::Running, Some(20.0), None),
        "how many there are is not known"
    );
}

#[test]
fn every_name_of_the_api_is_known() {
    let discovery: Value =
        serde_json::from_str(include_str!("../../../../tests/data/vertex/discovery.json")).unwrap();
    let names = |schema: &str, field: &str| -> Vec<String> {
        let schema = &discovery["schemas"][format!("GoogleCloudAiplatformV1{schema}")];
        let names = schema["properties"][field]["enum"].as_array().unwrap();
        names
            .iter()
            .map(|name| name.as_str().unwrap().to_owned())
            .collect()
    };
    for name in names("CustomJob", "state") {
        let state = State::of_name(&name);
        assert_eq!(Kind::Custom.state_name(&state), Some(name));
    }
    let accelerators = names("MachineSpec", "acceleratorType");
    let by_number: Vec<String> = (0..accelerators.len())
        .map(|number| {
            serde_json::from_value::<Accelerator>(json!(number))
                .unwrap()
                .0
        })
        .collect();
    for name in accelerators {
        assert!(by_number.contains(&name), "{name}");
    }
}

#[test]
fn the_lists_of_the_samples_are_read() {
    let list: List = serde_json::from_value(sample("list-page-1")).unwrap();
    assert_eq!((list.jobs.good.len(), list.jobs.odd), (3, 0));
    assert_eq!(list.next_page_token, "CgwI5PqzwQYQgN_r3QE");
    let empty: List = serde_json::from_value(sample("list-empty")).unwrap();
    assert!(empty.jobs.good.is_empty() && empty.next_page_token.is_empty());
    for body in [
        "[]",
        "null",
        "7",
        r#"{"customJobs": 7}"#,
        "<html>",
        "",
        " [{}]",
    ] {
        let response = Response {
            status: 200,
            headers: Vec::new(),
            body: body.as_bytes().to_vec(),
        };
        assert!(client::parse::<List>(&response).is_err(), "{body}");
    }
}
