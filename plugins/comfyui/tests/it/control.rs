//! What is asked of a server, by version, and what is never asked.

use comfyui::bindings::exports::weir::plugin::control::Submission;
use serde_json::{Value, json};
use weir_sdk::bindings::weir::plugin::types::JobRef;
use weir_sdk::{Failure, FailureKind};

use crate::fake::{Fake, item};
use crate::recordings::source;

const CONFIG: &str = r#"{"url": "http://comfy:8188"}"#;
const OURS: &str = "0191e000-0000-7000-8000-000000000001";

fn fake(version: &str, has_jobs: bool) -> Fake {
    let fake = Fake::new(has_jobs);
    fake.is_controlled.set(true);
    *fake.version.borrow_mut() = version.to_owned();
    fake.running.borrow_mut().push(item(300, json!({})));
    fake.pending.borrow_mut().push(item(301, json!({})));
    fake
}

fn job(id: &str) -> JobRef {
    JobRef {
        id: id.to_owned(),
        run: None,
    }
}

fn cancel(fake: &Fake, id: &str) -> Result<(), Failure> {
    source(CONFIG).cancel(fake, &job(id))
}

fn posts(fake: &Fake) -> Vec<(String, Value)> {
    let posts = fake.posts.take();
    let posts = posts.into_iter();
    posts
        .map(|(path, body)| (path, serde_json::from_slice(&body).unwrap()))
        .collect()
}

#[test]
fn a_new_server_is_asked_to_cancel_the_job_itself() {
    for version in ["0.26.0", "0.33.0", "0.38.1", "1.0", ""] {
        let fake = fake(version, true);
        for id in ["id-300", "id-301"] {
            cancel(&fake, id).unwrap();
            let path = format!("/api/jobs/{id}/cancel");
            assert_eq!(posts(&fake), [(path, json!({}))], "{version}");
        }
        let failure = cancel(&fake, "id-9").unwrap_err();
        assert_eq!(failure.kind, Some(FailureKind::NotFound));
        cancel(&fake, "a/b?c").unwrap_err();
        assert_eq!(posts(&fake)[1].0, "/api/jobs/a%2Fb%3Fc/cancel");
    }
}

#[test]
fn a_cancel_meets_no_other_run_of_the_same_id() {
    for (version, has_jobs) in [("0.33.0", true), ("0.3.64", false), ("0.3.40", false)] {
        let fake = fake(version, has_jobs);
        let meant = |run: &str| JobRef {
            id: "id-300".to_owned(),
            run: Some(run.to_owned()),
        };
        source(CONFIG).cancel(&fake, &meant("300:300")).unwrap();
        assert!(!posts(&fake).is_empty(), "{version}");
        // It ended, and its client posted the same id again.
        fake.running.borrow_mut()[0][0] = json!(310);
        let failure = source(CONFIG).cancel(&fake, &meant("300:300")).unwrap_err();
        assert_eq!(failure.kind, Some(FailureKind::Unsupported));
        assert!(
            failure.message.starts_with("refused: "),
            "{}",
            failure.message
        );
        assert_eq!(posts(&fake), [], "{version}");
    }
}

#[test]
fn a_server_with_targeted_interrupts_is_told_which_prompt() {
    // The last one says that it is newer than it is.
    for version in ["0.3.57", "0.3.64", "0.3.75+git", "0.25.9", "0.30.0"] {
        let fake = fake(version, false);
        cancel(&fake, "id-300").unwrap();
        let mut asked = posts(&fake);
        asked.retain(|(path, _)| !path.starts_with("/api/jobs"));
        assert_eq!(
            asked,
            [("/interrupt".to_owned(), json!({"prompt_id": "id-300"}))],
            "{version}"
        );
        cancel(&fake, "id-301").unwrap();
        let asked = posts(&fake);
        assert_eq!(
            asked.last().unwrap(),
            &("/queue".to_owned(), json!({"delete": ["id-301"]}))
        );
    }
}

#[test]
fn a_server_that_can_only_interrupt_whatever_runs_is_asked_only_while_ours_runs() {
    for version in ["0.3.56", "0.3.40", "0.2", ""] {
        let fake = fake(version, false);
        cancel(&fake, "id-300").unwrap();
        let asked = posts(&fake);
        assert_eq!(
            asked.last().unwrap(),
            &("/interrupt".to_owned(), json!({})),
            "{version}"
        );
        // Another one runs by now.
        fake.running.borrow_mut()[0] = item(302, json!({}));
        let failure = cancel(&fake, "id-300").unwrap_err();
        assert_eq!(failure.kind, Some(FailureKind::NotFound));
        assert!(
            posts(&fake).iter().all(|(path, _)| path != "/interrupt"),
            "{version}"
        );
        // Something runs beside it that cannot be read.
        fake.running.borrow_mut()[0] = item(300, json!({}));
        fake.running.borrow_mut().push(json!([1]));
        let failure = cancel(&fake, "id-300").unwrap_err();
        assert_eq!(failure.kind, Some(FailureKind::Unsupported));
        assert!(
            failure.message.starts_with("refused: "),
            "{}",
            failure.message
        );
        assert!(
            posts(&fake).iter().all(|(path, _)| path != "/interrupt"),
            "{version}"
        );
    }
}

#[test]
fn an_id_that_stands_in_the_queue_twice_is_not_guessed() {
    let fake = fake("0.3.64", false);
    fake.pending.borrow_mut().push(item(300, json!({})));
    let failure = cancel(&fake, "id-300").unwrap_err();
    assert_eq!(failure.kind, Some(FailureKind::Unsupported));
    assert!(posts(&fake).is_empty());
}

#[test]
fn a_submitted_body_goes_as_it_is_but_for_the_names_it_lacks() {
    let id = "2f8c";
    for (body, expected) in [
        (
            r#" {"prompt": {"1": {"x": 1.50, "x": 2}}}"#,
            r#" {"client_id":"OURS","prompt_id":"ID","prompt": {"1": {"x": 1.50, "x": 2}}}"#,
        ),
        (
            r#"{"client_id": "mine", "prompt": {}}"#,
            r#"{"prompt_id":"ID","client_id": "mine", "prompt": {}}"#,
        ),
        (
            r#"{"client_id": null, "prompt_id": "p", "prompt": {}}"#,
            r#"{"client_id": null, "prompt_id": "p", "prompt": {}}"#,
        ),
        (
            r#"{"extra_data": {"client_id": "mine"}, "prompt": {"1": NaN}}"#,
            r#"{"prompt_id":"ID","extra_data": {"client_id": "mine"}, "prompt": {"1": NaN}}"#,
        ),
        ("{ }", r#"{"client_id":"OURS","prompt_id":"ID" }"#),
        ("[1]", "[1]"),
        ("no json", "no json"),
        ("{\"prompt\": ", "{\"prompt\": "),
        ("", ""),
    ] {
        for has_jobs in [true, false] {
            let fake = fake("0.3.64", has_jobs);
            let submission = source(CONFIG)
                .submit(&fake, "key-1", "application/json", body.as_bytes().to_vec())
                .unwrap();
            let posts = fake.posts.take();
            assert_eq!(posts.len(), 1);
            let sent = String::from_utf8(posts[0].1.clone()).unwrap();
            let sent_id = serde_json::from_str::<Value>(&sent)
                .ok()
                .and_then(|sent| Some(sent["prompt_id"].as_str()?.to_owned()))
                .unwrap_or_else(|| id.to_owned());
            let nan_id = sent
                .split("\"prompt_id\":\"")
                .nth(1)
                .map(|rest| rest[..36].to_owned());
            let used = if expected.contains("\"ID\"") {
                nan_id.unwrap()
            } else {
                sent_id
            };
            assert_eq!(
                sent,
                expected
                    .replace("OURS", OURS)
                    .replace("ID\"", &format!("{used}\""))
            );
            assert_eq!(submission.content_type, "application/json; charset=utf-8");
        }
    }
}

#[test]
fn an_answer_passes_through_and_names_the_run() {
    for (has_jobs, body, status, run) in [
        (
            true,
            r#"{"prompt": {"1": {}}}"#,
            200,
            Some("77:1800000000000"),
        ),
        (
            false,
            r#"{"prompt": {"1": {}}}"#,
            200,
            Some("77:1800000000000"),
        ),
        (true, r#"{"prompt": 1}"#, 400, None),
    ] {
        let fake = fake("0.33.0", has_jobs);
        let submission = source(CONFIG)
            .submit(&fake, "", "text/plain", body.as_bytes().to_vec())
            .unwrap();
        assert_eq!(submission.status, status);
        let answer: Value = serde_json::from_slice(&submission.body).unwrap();
        assert_eq!(
            submission.job.as_ref().map(|job| job.id.as_str()),
            answer["prompt_id"].as_str()
        );
        assert_eq!(submission.job.and_then(|job| job.run).as_deref(), run);
    }
}

#[test]
fn the_same_key_never_posts_twice() {
    for has_jobs in [true, false] {
        let fake = fake("0.33.0", has_jobs);
        let body = br#"{"prompt": {"1": {}}}"#.to_vec();
        let submit = |key| source(CONFIG).submit(&fake, key, "", body.clone()).unwrap();
        let (first, again, other) = (submit("a"), submit("a"), submit("b"));
        let value = |body: &[u8]| serde_json::from_slice::<Value>(body).unwrap();
        let (said, repeated) = (value(&first.body), value(&again.body));
        assert_eq!(
            (&said["prompt_id"], 77.0),
            (&repeated["prompt_id"], repeated["number"].as_f64().unwrap())
        );
        let id = |submission: &Submission| submission.job.as_ref().map(|job| job.id.clone());
        assert_eq!(id(&first), id(&again));
        assert_ne!(id(&first), id(&other));
        assert_eq!(fake.posts.take().len(), 2);
    }
}

#[test]
fn a_retry_is_the_same_graph_under_weirs_name_and_without_keys() {
    let secrets = json!({
        "auth_token_comfy_org": "t0psecret", "api_key_comfy_org": "t0psecret", "My_Token": "t0psecret",
        "extra_pnginfo": {"workflow": {"id": "w", "x": 1.50}}, "preview_method": "auto",
    });
    for (has_jobs, run) in [
        (true, None),
        (false, Some("8:8".to_owned())),
        (true, Some("8:8".to_owned())),
    ] {
        let fake = fake("0.33.0", has_jobs);
        fake.history.borrow_mut().push(item(8, secrets.clone()));
        let job = JobRef {
            id: "id-8".to_owned(),
            run,
        };
        let submission = source(CONFIG).retry(&fake, "k", &job).unwrap();
        assert_eq!(submission.status, 200);
        let (path, body) = fake.posts.take().remove(0);
        assert_eq!(path, "/prompt");
        let text = String::from_utf8(body).unwrap();
        assert!(
            !text.contains("t0psecret") && !text.contains("secret-client"),
            "{text}"
        );
        let sent: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(sent["prompt"], item(8, json!({}))[2]);
        assert_eq!(sent["client_id"], OURS);
        assert_eq!(sent["partial_execution_targets"], json!(["2"]));
        assert_eq!(
            sent["extra_data"],
            json!({"extra_pnginfo": {"workflow": {"id": "w", "x": 1.50}}, "preview_method": "auto"})
        );
        assert_eq!(
            submission.job.unwrap().id,
            sent["prompt_id"].as_str().unwrap()
        );
        // A repeated call finds it.
        source(CONFIG).retry(&fake, "k", &job).unwrap();
        assert!(fake.posts.take().is_empty());
        assert!(!fake.log.borrow().iter().any(|line| line.contains("secret")));
    }
}

#[test]
fn what_the_server_forgot_or_another_run_of_the_id_is_not_retried() {
    let fake = fake("0.33.0", true);
    fake.history.borrow_mut().push(item(8, json!({})));
    for job in [
        job("id-9"),
        JobRef {
            id: "id-8".to_owned(),
            run: Some("7:7".to_owned()),
        },
    ] {
        let failure = source(CONFIG).retry(&fake, "k", &job).unwrap_err();
        assert_eq!(failure.kind, Some(FailureKind::NotFound));
        assert!(fake.posts.take().is_empty());
    }
    // It still waits: that is the prompt.
    assert_eq!(
        source(CONFIG)
            .retry(&fake, "k", &job("id-301"))
            .unwrap()
            .status,
        200
    );
}

#[test]
fn logs_are_off_unless_they_are_asked_for() {
    use comfyui::bindings::exports::weir::plugin::logs::Direction;
    let fake = Fake::new(true);
    let failure = source(CONFIG)
        .read_logs(&fake, Direction::Forward, None)
        .unwrap_err();
    assert_eq!(failure.kind, Some(FailureKind::Unsupported));
    assert!(fake.asked().is_empty());
    let config = r#"{"url": "http://comfy:8188", "logs": true}"#;
    source(config)
        .read_logs(&fake, Direction::Forward, None)
        .unwrap_err();
    assert_eq!(fake.asked(), ["/internal/logs/raw"]);
}
