//! The ladder on one ComfyUI: poll, stream, submission, companion and control together, through the daemon's own HTTP.

mod fake;

use crate::control::provider::{Answer, Daemon, path};
use crate::recordings::{bundled, settings};
use fake::Fake;
use serde_json::{Value, json};
use weir::daemon::serve;
use weir_core::{Config, Monitor};

/// One of each generation: jobs cancel, targeted interrupt, global interrupt.
const GENERATIONS: [&str; 3] = ["v0.33.0", "v0.3.64", "v0.3.40"];
const COMPANION: &str = "canary-companion-token-0003";
const STRANGER: &str = "0f8fad5b-d9cb-469f-a165-70867728950e";

struct Stage {
    fake: Fake,
    daemon: Daemon,
    _folder: tempfile::TempDir,
}

impl Stage {
    async fn new(folder: &str) -> Stage {
        let fake = Fake::start(folder);
        let secrets = tempfile::TempDir::new().unwrap();
        let token = secrets.path().join("token");
        std::fs::write(&token, COMPANION).unwrap();
        let mut config = Config::temporary().unwrap();
        config.settings = settings(&format!(
            "(http: (listen: \"127.0.0.1:0\"), resources: (interval: \"1h\"), sources: [(name: \"studio\", plugin: \"comfyui\",
                poll_interval: \"100ms\", control: true, companion_token: (file: {token:?}), config: {{ \"url\": \"{}\" }})])",
            fake.url()
        ));
        config.bundled = bundled();
        let http = config.settings.http.clone();
        let monitor = Monitor::start(config).await.unwrap();
        let daemon = Daemon::around(serve(monitor, &http).await.unwrap());
        let stage = Stage {
            fake,
            daemon,
            _folder: secrets,
        };
        stage
            .source(|source| source["rung"] == "poll+stream+submit" && source["status"] == "ok")
            .await;
        stage
    }

    async fn source(&self, met: impl Fn(&Value) -> bool) -> Value {
        self.daemon.seen("/api/sources/studio", met).await
    }

    async fn prompt(&self, body: &Value) -> Answer {
        let (json, body) = ([("content-type", "application/json")], body.to_string());
        let path = "/api/sources/studio/prompt";
        self.daemon.post(path, &json, &body).await
    }

    /// What the companion beside the server would report of these frames.
    async fn report(&self, frames: &[Value]) -> Answer {
        let bearer = format!("Bearer {COMPANION}");
        let headers = [
            ("authorization", bearer.as_str()),
            ("content-type", "application/json"),
        ];
        let body = json!({"version": 1, "dropped": 0, "frames": frames}).to_string();
        let answer = self
            .daemon
            .send("POST", "/api/sources/studio/progress", &headers, &body);
        answer.await
    }

    async fn execution(&self, id: &str, met: impl Fn(&Value) -> bool) -> Value {
        self.daemon.execution(id, met).await
    }

    /// Asks for the end of a prompt and waits for what became of the request.
    async fn cancel(&self, id: &str) -> Value {
        let execution = self.execution(id, |_| true).await;
        let asked = self.daemon.post(&path(&execution, "cancel"), &[], "").await;
        let request = asked.is(202);
        let ends = ["done", "refused", "failed", "unverifiable"];
        self.daemon.request(&request["id"], &ends, 0).await
    }

    async fn stop(self) {
        self.daemon.stop().await;
        self.fake.stop().await;
    }
}

/// Shown to a tenth.
fn is_told(execution: &Value, percent: f64) -> bool {
    let told = execution["progress"].as_f64();
    execution["estimated"] == false && told.is_some_and(|told| (told - percent).abs() < 0.06)
}

#[actix_web::test]
async fn a_prompt_that_is_submitted_through_weir_has_its_exact_progress_from_the_socket() {
    for folder in GENERATIONS {
        let stage = Stage::new(folder).await;
        let clients = stage.fake.clients();
        assert_eq!(clients.len(), 1, "{folder}: one socket");
        let answer = stage.prompt(&json!({"prompt": stage.fake.graph()})).await;
        let answer = answer.is(200);
        assert_eq!(
            (&answer["number"], &answer["node_errors"]),
            (&json!(0), &json!({}))
        );
        let id = answer["prompt_id"].as_str().unwrap();
        assert_eq!(
            stage.fake.item(id)[3]["client_id"],
            clients[0],
            "{folder}: weir's own id, that of its socket"
        );
        // The first node is done, of the second 7 of 12 steps, the third is to come.
        stage.fake.run_until(7);
        let percent = 100.0 * (1.0 + 7.0 / 12.0) / 3.0;
        // Percentage and note are live, the steps are on disk a moment later.
        let stands = |execution: &Value| {
            let steps = execution["step_executions"].as_array().unwrap().iter();
            let states: Vec<&str> = steps.map(|step| step["status"].as_str().unwrap()).collect();
            let note = execution["note"].as_str().unwrap_or_default();
            states == ["completed", "running", "pending"]
                && is_told(execution, percent)
                && note == "1 of 3 nodes; RecSleepProgress 7/12"
        };
        stage.execution(id, stands).await;
        stage.fake.finish();
        stage
            .execution(id, |execution| execution["status"] == "completed")
            .await;
        stage.stop().await;
    }
}

#[actix_web::test]
async fn a_prompt_of_another_client_has_its_progress_from_the_companion_alone() {
    for folder in GENERATIONS {
        let stage = Stage::new(folder).await;
        // Through weir or past it: a body with a client id keeps it.
        let body = json!({"prompt": stage.fake.graph(), "client_id": STRANGER});
        let id = stage.prompt(&body).await.is(200)["prompt_id"]
            .as_str()
            .unwrap()
            .to_owned();
        assert_eq!(stage.fake.item(&id)[3]["client_id"], STRANGER);
        stage.fake.run_until(6);
        let begun = stage
            .execution(&id, |execution| execution["status"] == "running")
            .await;
        assert_eq!(
            (&begun["progress"], &begun["estimated"]),
            (&Value::Null, &json!(true)),
            "{folder}"
        );
        assert!(
            !stage.fake.clients().contains(&STRANGER.to_owned()),
            "nobody connects with its id"
        );
        let frames = stage.fake.frames_of(STRANGER);
        let weirs = stage.fake.frames_of(&stage.fake.clients()[0]);
        assert!(
            weirs.iter().all(|frame| frame["type"] == "status"),
            "{folder}: the socket tells nothing of it"
        );
        let answer = stage.report(&frames).await;
        assert_eq!(answer.status, 202, "{}", answer.text);
        stage
            .execution(&id, |execution| is_told(execution, 50.0))
            .await;
        let source = stage
            .source(|source| source["companion"]["reports"] == 1)
            .await;
        assert_eq!(source["companion"]["frames"], frames.len());
        assert_eq!(source["rung"], "poll+stream+submit+companion");
        // One progress, whoever tells it: weir's own prompt after it comes from the socket.
        let own = stage
            .prompt(&json!({"prompt": stage.fake.graph()}))
            .await
            .is(200);
        let own = own["prompt_id"].as_str().unwrap();
        stage.fake.finish();
        stage
            .execution(&id, |execution| execution["status"] == "completed")
            .await;
        stage.fake.run_until(9);
        stage
            .execution(own, |execution| {
                is_told(execution, 100.0 * (1.0 + 0.75) / 3.0)
            })
            .await;
        stage.stop().await;
    }
}

#[actix_web::test]
async fn a_cancel_reaches_the_prompt_that_is_meant_and_no_other_in_every_generation() {
    for folder in GENERATIONS {
        let stage = Stage::new(folder).await;
        let [first, second, third] = [(); 3].map(|()| stage.fake.post(Some(STRANGER)));
        stage.execution(&third, |_| true).await;
        stage.fake.run_until(2);
        // One that waits.
        let request = stage.cancel(&second).await;
        assert_eq!(request["state"], "done", "{folder}: {request}");
        stage
            .execution(&second, |execution| execution["status"] == "cancelled")
            .await;
        assert_eq!(stage.fake.running(), Some(first.clone()));
        // The one that runs.
        let request = stage.cancel(&first).await;
        assert_eq!(request["state"], "done", "{folder}: {request}");
        let ended = stage
            .execution(&first, |execution| execution["status"] == "cancelled")
            .await;
        assert!(ended["completed_at"].is_string());
        let expected = match folder {
            "v0.33.0" => vec![
                format!("/api/jobs/{second}/cancel {{}}"),
                format!("/api/jobs/{first}/cancel {{}}"),
            ],
            "v0.3.64" => vec![
                format!("/queue {{\"delete\":[\"{second}\"]}}"),
                format!("/interrupt {{\"prompt_id\":\"{first}\"}}"),
            ],
            _ => vec![
                format!("/queue {{\"delete\":[\"{second}\"]}}"),
                "/interrupt {}".to_owned(),
            ],
        };
        assert_eq!(stage.fake.changes(), expected, "{folder}");
        assert_eq!(stage.fake.running(), Some(third), "{folder}: it goes on");
        stage.stop().await;
    }
}

#[actix_web::test]
async fn what_has_ended_before_weir_saw_it_is_not_cancelled_by_ending_another() {
    for folder in GENERATIONS {
        let stage = Stage::new(folder).await;
        let first = stage.fake.post(Some(STRANGER));
        let execution = stage
            .execution(&first, |execution| execution["status"] == "running")
            .await;
        // It ends and another one runs before weir looks again.
        let other = stage.fake.post(None);
        stage.fake.finish();
        let answer = stage
            .daemon
            .post(&path(&execution, "cancel"), &[], "")
            .await;
        // Either weir saw the end already, or the server says that it has no such prompt.
        assert!([202, 409].contains(&answer.status), "{}", answer.text);
        stage
            .execution(&first, |execution| execution["status"] == "completed")
            .await;
        assert_eq!(
            stage.fake.running(),
            Some(other),
            "{folder}: nobody ended it"
        );
        assert!(
            !stage
                .fake
                .changes()
                .iter()
                .any(|change| change.starts_with("/interrupt")),
            "{folder}"
        );
        stage.stop().await;
    }
}

#[actix_web::test]
async fn a_retry_is_the_same_prompt_with_a_new_id_and_its_lineage_in_every_generation() {
    for folder in GENERATIONS {
        let stage = Stage::new(folder).await;
        let first = stage.fake.post(Some(STRANGER));
        stage
            .execution(&first, |execution| execution["status"] == "running")
            .await;
        assert_eq!(stage.cancel(&first).await["state"], "done", "{folder}");
        let ended = stage
            .execution(&first, |execution| execution["status"] == "cancelled")
            .await;
        let answer = stage
            .daemon
            .post(
                &path(&ended, "retry"),
                &[("idempotency-key", "again-1")],
                "",
            )
            .await;
        let told = answer.is(201);
        let new = told["request"]["new_execution"].as_str().unwrap();
        let new = format!("/api/executions/{new}");
        let new = stage.daemon.seen(&new, |_| true).await;
        assert_eq!(new["retried_from"], ended["id"], "{folder}: {new}");
        let id = new["external_id"].as_str().unwrap();
        assert_ne!(id, first);
        let (old, new) = (stage.fake.item(&first), stage.fake.item(id));
        assert_eq!(
            (&new[2], &new[4]),
            (&old[2], &old[4]),
            "{folder}: the same graph"
        );
        assert_eq!(
            new[3]["client_id"],
            stage.fake.clients()[0],
            "{folder}: the progress is weir's"
        );
        stage.fake.run_until(12);
        stage
            .execution(id, |execution| is_told(execution, 200.0 / 3.0))
            .await;
        // The same key is the same prompt.
        stage.fake.changes();
        let again = stage
            .daemon
            .post(
                &path(&ended, "retry"),
                &[("idempotency-key", "again-1")],
                "",
            )
            .await;
        let again = again.is(201);
        assert_eq!(again["request"]["id"], told["request"]["id"], "{folder}");
        assert_eq!(stage.fake.changes(), Vec::<String>::new());
        stage.fake.finish();
        stage
            .execution(id, |execution| execution["status"] == "completed")
            .await;
        stage.stop().await;
    }
}

#[actix_web::test]
async fn the_memory_of_its_devices_is_shown_and_forgotten_when_contact_is_lost() {
    let stage = Stage::new("v0.33.0").await;
    let source = stage
        .source(|source| {
            source["gauges"]
                .as_array()
                .is_some_and(|gauges| gauges.len() == 2)
        })
        .await;
    let used = &source["gauges"][1];
    assert_eq!(
        (&used["name"], &used["labels"], &used["value"]),
        (
            &json!("gpu_memory_used_bytes"),
            &json!({"device": "cpu"}),
            &json!(2_634_563_584.0)
        )
    );
    let metrics = stage.daemon.send("GET", "/metrics", &[], "").await.text;
    let line = "weir_provider_gpu_memory_used_bytes{source=\"studio\",device=\"cpu\"} 2634563584";
    assert!(metrics.lines().any(|found| found == line), "{metrics}");
    let page = stage.daemon.send("GET", "/", &[], "").await.text;
    assert!(
        page.contains("gpu memory used (cpu): 2.5 GiB of 23.5 GiB"),
        "{page}"
    );
    let Stage {
        fake,
        daemon,
        _folder,
    } = stage;
    fake.stop().await;
    daemon
        .seen("/api/sources/studio", |source| {
            source["status"] == "stale" && source["gauges"] == json!([])
        })
        .await;
    let metrics = daemon.send("GET", "/metrics", &[], "").await.text;
    assert!(!metrics.contains("weir_provider_"), "{metrics}");
    daemon.stop().await;
}

#[test]
fn the_companion_is_installed_for_the_only_comfyui_of_the_configuration_that_weir_runs_with() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::create_dir_all(path("ComfyUI/custom_nodes")).unwrap();
    let config = r#"(sources: [(name: "studio", plugin: "comfyui", config: { "url": "http://127.0.0.1:8188" })])"#;
    std::fs::write(path("elsewhere.ron"), config).unwrap();
    let install = || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_weir"));
        command.args(["companion", "install", "ComfyUI", "--token-file", "token"]);
        command
            .env_clear()
            .env("HOME", folder.path())
            .current_dir(folder.path());
        command
    };
    let without = install().output().unwrap();
    assert_eq!(
        without.status.code(),
        Some(2),
        "there is no configuration to look in"
    );
    for with in ["WEIR_CONFIG", "--config"] {
        let mut command = install();
        match with {
            "--config" => command.args(["--config", "elsewhere.ron"]),
            name => command.env(name, path("elsewhere.ron")),
        };
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{with}: {said}");
        let told = path("ComfyUI/custom_nodes/weir_companion/companion.json");
        let told: Value = serde_json::from_slice(&std::fs::read(&told).unwrap()).unwrap();
        assert_eq!(
            told["url"],
            "http://127.0.0.1:8000/api/sources/studio/progress"
        );
        std::fs::remove_dir_all(path("ComfyUI/custom_nodes/weir_companion")).unwrap();
    }
}
