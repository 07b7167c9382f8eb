//! Servers and proxies that answer badly: nothing is concluded, and the message says what came.

use comfyui::config::Config;
use serde_json::{Value, json};
use weir_sdk::bindings::weir::plugin::types::{JobState, StepState};
use weir_sdk::{FailureKind, failure};

use crate::fake::{Fake, item};
use crate::recordings::{Host, source};

const CONFIG: &str = r#"{"url": "http://comfy:8188"}"#;

#[test]
fn a_bad_answer_is_a_transient_failure_that_shows_its_start() {
    let page = format!(
        "<!DOCTYPE html><html>{}\u{1b}[31m/home/me/x</html>",
        "x".repeat(5000)
    );
    for has_jobs in [true, false] {
        for (status, body, expected) in [
            (
                500,
                "500 Internal Server Error\n\nServer got itself in trouble",
                "answered 500: 500 Internal Server Error Server got",
            ),
            (502, page.as_str(), "answered 502: <!DOCTYPE html>"),
            (
                200,
                page.as_str(),
                "is not ComfyUI's JSON (expected value at line 1 column 1): <!DOCTYPE html>",
            ),
            (200, "", "ended in the middle of the JSON: empty body"),
            (
                200,
                r#"{"queue_running": [[1, "a", {"#,
                "ended in the middle of the JSON",
            ),
            (
                200,
                r#"{"jobs": [{"id": "a", "sta"#,
                "ended in the middle of the JSON",
            ),
            (200, "{}", "is not ComfyUI's JSON (missing field"),
            (200, "[]", "is not ComfyUI's JSON"),
            (200, "null", "is not ComfyUI's JSON"),
            (302, "", "a redirect is not followed"),
            (401, "", "a proxy in front of ComfyUI?"),
            (404, "nothing here", "answered 404: nothing here"),
        ] {
            let fake = Fake::new(has_jobs);
            fake.running.borrow_mut().push(item(1, json!({})));
            let (mut host, mut instance) = (Host::default(), source(CONFIG));
            host.round(&mut instance, &fake).unwrap();
            let before = (format!("{:?}", host.jobs), host.cursor.clone());
            *fake.instead.borrow_mut() = Some(Ok((status, body.as_bytes().to_vec())));
            assert!(host.round(&mut instance, &fake).is_none());
            let message = host
                .failures
                .pop()
                .unwrap_or_else(|| panic!("{status} {body} is taken for an answer"));
            assert!(
                message.starts_with("GET /") && message.contains(expected),
                "{message}"
            );
            assert!(
                message.len() < 400 && !message.contains('\u{1b}') && !message.contains("/home"),
                "{message}"
            );
            assert_eq!((format!("{:?}", host.jobs), host.cursor.clone()), before);
            let failure = instance
                .poll(&fake, host.cursor.as_deref(), &host.open())
                .unwrap_err();
            assert_eq!(failure.kind, Some(FailureKind::Transient));
            // And it goes on as if nothing had been.
            *fake.instead.borrow_mut() = None;
            assert!(host.round(&mut instance, &fake).unwrap().is_empty());
        }
    }
}

#[test]
fn a_failure_of_the_host_is_passed_on_with_its_kind() {
    let fake = Fake::new(true);
    *fake.instead.borrow_mut() = Some(Err(failure::misconfigured("denied: http://comfy:8188")));
    let failure = source(CONFIG).poll(&fake, None, &[]).unwrap_err();
    assert_eq!(
        failure.message,
        "GET /system_stats: denied: http://comfy:8188"
    );
    assert_eq!(failure.kind, Some(FailureKind::Misconfigured));
}

#[test]
fn odd_values_of_a_client_cost_only_themselves() {
    for has_jobs in [true, false] {
        let fake = Fake::new(has_jobs);
        let odd: Value = serde_json::from_str(
            r#"[5, "odd", {"1": {"class_type": 7, "inputs": {"a": ["2", 0], "b": {"x": ["2", 0]}, "c": null}, "_meta": []},
                "2": {"inputs": "none"}, "3": "no node", "4": {"class_type": "A\u001b[31mB", "inputs": {"a": ["1", 0], "b": [7, 0]}}},
                {"create_time": 5, "extra_pnginfo": {"workflow": "text"}}, ["4", 9, "missing"], {"api_key_comfy_org": "s3cret"}]"#,
        )
        .unwrap();
        fake.history.borrow_mut().push(odd);
        let (mut host, mut instance) = (Host::default(), source(CONFIG));
        host.round(&mut instance, &fake).unwrap();
        let job = host.jobs.values().next().unwrap();
        let steps: Vec<(&str, &str)> = job
            .steps
            .iter()
            .map(|step| (step.id.as_str(), step.name.as_str()))
            .collect();
        assert_eq!(steps, [("1", "1"), ("2", "2"), ("4", "A[31mB")]);
        assert!(
            job.steps
                .iter()
                .all(|step| step.state == StepState::Completed)
        );
        assert_eq!(job.workflow, None);
    }
}

#[test]
fn an_item_that_cannot_be_read_makes_a_round_incomplete() {
    let fake = Fake::new(false);
    fake.pending.borrow_mut().extend([
        item(1, json!({})),
        json!({"odd": 1}),
        json!([2]),
        json!(null),
    ]);
    let (mut host, mut instance) = (Host::default(), source(CONFIG));
    assert!(host.round(&mut instance, &fake).is_none());
    assert!(host.failures.is_empty());
    assert_eq!(host.jobs.len(), 1);
}

#[test]
fn errors_are_told_without_secrets_and_paths() {
    let fake = Fake::new(false);
    let body = r#"{"x": {"prompt": [1, "x", {"1": {"class_type": "Load", "inputs": {}, "is_changed": [NaN]}}, {"auth_token_comfy_org": "s3cret"}, ["1"]],
        "outputs": {}, "status": {"status_str": "error", "completed": false, "messages": [
        ["execution_start", {"timestamp": 10}],
        ["execution_error", {"timestamp": 20, "node_id": "1", "executed": [], "exception_type": "FileNotFoundError",
         "exception_message": "No such file: '/home/jane doe/models/s\udce9.png'\u0007\n", "traceback": ["/root/x"], "current_inputs": {"p": ["s3cret"]}}]]}}}"#;
    *fake.instead.borrow_mut() = Some(Ok((200, body.as_bytes().to_vec())));
    // One body for every path: the queue fails, so the history is read through the entry alone.
    let entry: comfyui::wire::History =
        comfyui::client::parse("/history/x", body.as_bytes().to_vec()).unwrap();
    let views = comfyui::job::Views {
        workflow: None,
        version: None,
        queue_unreadable: false,
    };
    let job = views.finished(&entry.0[0].1);
    assert_eq!(job.state, JobState::Failed);
    assert_eq!(
        job.error.as_deref(),
        Some("FileNotFoundError: No such file: '<path>'")
    );
    assert_eq!(job.steps[0].error, job.error);
    assert_eq!((job.started, job.finished), (Some(10), Some(20)));
    assert!(!format!("{job:?}").contains("s3cret"));
}

#[test]
fn a_history_without_a_verdict_is_judged_by_what_is_there() {
    let end = |status: &str, outputs: &str| {
        let body = format!(
            r#"{{"x": {{"prompt": [1, "x", {{}}, {{}}, []], "outputs": {outputs}, "status": {status}}}}}"#
        );
        let history: comfyui::wire::History =
            comfyui::client::parse("/history", body.into_bytes()).unwrap();
        let views = comfyui::job::Views {
            workflow: None,
            version: None,
            queue_unreadable: false,
        };
        views.finished(&history.0[0].1).state
    };
    assert_eq!(
        end(r#"{"status_str": "success", "messages": []}"#, "{}"),
        JobState::Completed
    );
    assert_eq!(
        end(r#"{"status_str": "error", "messages": []}"#, "{}"),
        JobState::Failed
    );
    assert_eq!(end("null", r#"{"9": {}}"#), JobState::Completed);
    assert_eq!(end("null", "{}"), JobState::Failed);
    // The previous prompt's word beside this one's error.
    let cycle = r#"{"status_str": "success", "messages": [["execution_error", {"exception_type": "DependencyCycleError"}]]}"#;
    assert_eq!(end(cycle, "{}"), JobState::Failed);
    let blocked = r#"{"status_str": "success", "messages": [["execution_error", {"exception_type": "ExecutionBlocked"}], ["execution_success", {}]]}"#;
    assert_eq!(end(blocked, "{}"), JobState::Completed);
}

#[test]
fn a_wrong_cursor_is_a_first_contact() {
    for cursor in ["", "{", "{}", r#"{"v":99}"#, r#"{"v":1,"seen":"x"}"#] {
        let fake = Fake::new(true);
        fake.history.borrow_mut().push(item(1, json!({})));
        let mut host = Host {
            cursor: Some(cursor.to_owned()),
            ..Host::default()
        };
        host.round(&mut source(CONFIG), &fake).unwrap();
        assert_eq!(host.jobs.len(), 1);
    }
}

#[test]
fn check_says_version_and_what_is_not_there() {
    let said = source(CONFIG).check(&Fake::new(true)).unwrap();
    assert_eq!(
        said,
        "ComfyUI 0.33.0, read through /api/jobs; jobs of the web UI have no live node progress this way"
    );
    assert!(
        source(CONFIG)
            .check(&Fake::new(false))
            .unwrap()
            .contains("ComfyUI 0.3.64, read through /queue and /history")
    );
    let fake = Fake::new(true);
    for (status, kind) in [
        (401, FailureKind::Misconfigured),
        (404, FailureKind::Transient),
        (500, FailureKind::Transient),
    ] {
        *fake.instead.borrow_mut() = Some(Ok((status, b"<html>".to_vec())));
        assert_eq!(
            source(CONFIG).check(&fake).unwrap_err().kind,
            Some(kind),
            "{status}"
        );
    }
}

#[test]
fn a_wrong_configuration_is_refused_by_name() {
    for (json, expected) in [
        ("{}", "config: missing field `url`"),
        (
            r#"{"url": "comfy:8188"}"#,
            "config.url: expected an absolute http:// or https:// URL",
        ),
        (
            r#"{"url": "http://u:p@comfy"}"#,
            "config.url: no user name or password",
        ),
        (
            r#"{"url": "http://comfy", "history": 501}"#,
            "config.history: expected 0 to 500, found 501",
        ),
        (
            r#"{"url": "http://comfy", "history": -1}"#,
            "config.history: invalid value",
        ),
        (
            r#"{"url": "http://comfy", "workflow": " "}"#,
            "config.workflow: expected a name",
        ),
        (
            r#"{"url": "http://comfy", "headers": {"Origin": "x"}}"#,
            "config.headers: `Origin`",
        ),
        (
            r#"{"url": "http://comfy", "urls": []}"#,
            "config.urls: unknown field `urls`",
        ),
    ] {
        let message = Config::parse(json).unwrap_err().message;
        assert!(message.starts_with(expected), "{message}");
    }
}
