//! The companion's reports: who may send them, and that they give another client's job its progress.

use super::client::{Answer, ask};
use crate::recordings::{bundled, settings};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use weir::daemon::{Server, serve};
use weir::replay::{Recording, ReplayOptions, ReplayServer};
use weir_core::journal::ExecutionFilter;
use weir_core::{Config, Monitor};

const TOKEN: &str = "canary-companion-token-0001";
const OTHER: &str = "canary-companion-token-0002";

/// A recording in which a client's job runs, and a daemon that watches it.
struct Stage {
    replay: ReplayServer,
    server: Server,
    frames: Vec<(f64, Value)>,
    _folder: tempfile::TempDir,
}

impl Stage {
    async fn new() -> Stage {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/data/recordings/v0.33.0/progress_own.jsonl");
        let text = std::fs::read_to_string(&path).unwrap();
        let frames = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .filter(|line| line["k"] == "ws.text" && line["conn"] == "submitter")
            .map(|line| {
                let frame = serde_json::from_str(line["text"].as_str().unwrap()).unwrap();
                (line["t"].as_f64().unwrap(), frame)
            })
            .collect();
        let options = ReplayOptions {
            manual: true,
            ..ReplayOptions::default()
        };
        let replay = ReplayServer::start(Recording::load(&path).unwrap(), options)
            .await
            .unwrap();
        let folder = tempfile::TempDir::new().unwrap();
        for (name, token) in [("a", TOKEN), ("b", OTHER)] {
            std::fs::write(folder.path().join(name), format!("{token}\n")).unwrap();
        }
        let token = |name: &str| folder.path().join(name).display().to_string();
        let source = |name: &str, more: &str| {
            format!(
                "(name: \"{name}\", plugin: \"comfyui\", poll_interval: \"100ms\", config: {{ \"url\": \"{}\", \"stream\": false }}, {more}),",
                replay.url()
            )
        };
        let text = format!(
            "(http: (listen: \"127.0.0.1:0\"), resources: (interval: \"1h\"), sources: [{}{}{}])",
            source(
                "studio",
                &format!("companion_token: (file: {:?})", token("a"))
            ),
            source(
                "farm",
                &format!("companion_token: (file: {:?})", token("b"))
            ),
            source("alone", ""),
        );
        let mut config = Config::temporary().unwrap();
        config.settings = settings(&text);
        config.bundled = bundled();
        let http = config.settings.http.clone();
        let monitor = Monitor::start(config).await.unwrap();
        let server = serve(monitor, &http).await.unwrap();
        Stage {
            replay,
            server,
            frames,
            _folder: folder,
        }
    }

    async fn post(&self, source: &str, token: Option<&str>, body: &str) -> Answer {
        let host = format!("host: {}", self.server.address());
        let bearer = token.map(|token| format!("authorization: Bearer {token}"));
        let mut headers = vec![host.as_str(), "content-type: application/json"];
        headers.extend(bearer.as_deref());
        let path = format!("/api/sources/{source}/progress");
        ask(self.server.address(), "POST", &path, &headers, body).await
    }

    async fn source(&self, name: &str) -> Value {
        let host = format!("host: {}", self.server.address());
        let path = format!("/api/sources/{name}");
        let answer = ask(self.server.address(), "GET", &path, &[&host], "").await;
        answer.json()
    }

    /// The highest percentage that any execution of a source shows.
    fn percent(&self, source: &str) -> Option<f64> {
        let monitor = self.server.monitor();
        let view = monitor.sources().into_iter().find(|s| s.name == source)?;
        let reader = monitor.journal().reader().unwrap();
        let filter = ExecutionFilter {
            source: Some(view.id),
            limit: 10,
            ..ExecutionFilter::default()
        };
        let executions = reader.executions(&filter).unwrap();
        let shown = executions
            .iter()
            .filter_map(|e| monitor.board().get(e.record.seq)?.percent);
        shown.fold(None, |highest, percent| {
            Some(percent.max(highest.unwrap_or(0.0)))
        })
    }

    async fn stop(self) {
        self.server.stop().await.unwrap();
        self.replay.stop().await;
    }
}

async fn wait_for(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..1000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}: not within 10 s");
}

fn report(frames: &[Value]) -> String {
    json!({"version": 1, "dropped": 2, "frames": frames}).to_string()
}

#[actix_web::test]
async fn a_report_gives_another_clients_job_its_progress() {
    let stage = Stage::new().await;
    // In the middle of the job: weir sees that it runs and no more.
    let middle = 2.5;
    stage.replay.set_position(Duration::from_secs_f64(middle));
    let running = || {
        let sources = stage.server.monitor().sources();
        sources.iter().all(|source| source.health.open_jobs == 1)
    };
    wait_for("the job is seen", running).await;
    assert_eq!(stage.percent("studio"), None);
    let frames: Vec<Value> = stage
        .frames
        .iter()
        .filter(|(t, _)| *t <= middle)
        .map(|(_, frame)| frame.clone())
        .collect();
    let answer = stage.post("studio", Some(TOKEN), &report(&frames)).await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    // Three nodes, of which one is done and one is half done.
    let is_told = || {
        stage
            .percent("studio")
            .is_some_and(|percent| percent > 45.0)
    };
    wait_for("its progress is told", is_told).await;
    assert!(stage.percent("studio").unwrap() < 70.0);
    assert_eq!(
        stage.percent("farm"),
        None,
        "another source's executions stay as they are"
    );
    let companion = stage.source("studio").await["companion"].clone();
    assert_eq!(
        (&companion["reports"], &companion["dropped"]),
        (&json!(1), &json!(2))
    );
    assert!(companion["last_report_at"].is_string());
    assert_eq!(stage.source("alone").await["companion"], Value::Null);
    assert_eq!(stage.source("farm").await["companion"]["reports"], 0);

    // A prompt that nobody has is no execution of ours.
    let unknown = json!({"type": "progress", "data": {"prompt_id": "nobodys", "node": "1", "value": 1, "max": 2}});
    let answer = stage.post("studio", Some(TOKEN), &report(&[unknown])).await;
    assert_eq!(answer.status, 202);
    stage.server.monitor().settled().await;
    let sources = stage.server.monitor().sources();
    assert!(sources.iter().all(|source| source.health.open_jobs == 1));
    stage.stop().await;
}

#[actix_web::test]
async fn only_the_token_of_that_source_reports_for_it() {
    let stage = Stage::new().await;
    let good = report(&[]);
    // Until the plugin is ready a report is refused, and the companion keeps quiet for a while.
    let begun = std::time::Instant::now();
    while stage.post("studio", Some(TOKEN), &good).await.status == 503 {
        assert!(begun.elapsed() < std::time::Duration::from_secs(30));
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    for (source, token, status) in [
        ("studio", None, 401),
        ("studio", Some(OTHER), 401),
        ("studio", Some(""), 401),
        ("farm", Some(TOKEN), 401),
        ("alone", Some(TOKEN), 401),
        ("nobody", Some(TOKEN), 401),
        ("studio", Some(TOKEN), 202),
    ] {
        let answer = stage.post(source, token, &good).await;
        assert_eq!(answer.status, status, "{source} {token:?} {}", answer.body);
        assert!(!answer.body.contains("canary"), "{}", answer.body);
    }
    let many = report(&vec![json!({}); 257]);
    let large = report(&[json!("x".repeat(600 << 10))]);
    for (body, status) in [
        ("", 400),
        ("{\"version\": 1}", 400),
        ("{\"version\": 2, \"frames\": []}", 400),
        (many.as_str(), 400),
        (large.as_str(), 413),
    ] {
        let answer = stage.post("studio", Some(TOKEN), body).await;
        assert_eq!(answer.status, status, "{}", answer.body);
        assert!(answer.body.contains("\"type\""), "a problem document");
    }
    // What makes no sense is taken and says nothing.
    let odd = report(&[
        json!(7),
        json!({}),
        json!({"type": "progress", "data": null}),
    ]);
    assert_eq!(stage.post("studio", Some(TOKEN), &odd).await.status, 202);
    stage.stop().await;
}
