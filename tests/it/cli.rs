//! The binary as people call it: what it prints where, and the exit code.

mod canary;
mod daemon;
mod google;
mod logs;
mod plugins;
mod streams;

use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// A home without anything in it, and a daemon's URL.
struct Shell {
    home: TempDir,
    url: String,
}

impl Shell {
    /// Nobody answers.
    fn alone() -> Shell {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        Shell {
            home: TempDir::new().unwrap(),
            url,
        }
    }

    /// Something answers every request with what `answer` makes of its method and path.
    fn with(answer: fn(&str) -> (u16, String)) -> Shell {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let head: Vec<String> = reader
                    .by_ref()
                    .lines()
                    .map(Result::unwrap)
                    .take_while(|line| !line.is_empty())
                    .collect();
                // An unread body would reset the connection when it is closed.
                let length = head
                    .iter()
                    .find_map(|line| line.strip_prefix("content-length: "));
                let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
                reader.read_exact(&mut body).unwrap();
                let mut request = head[0].rsplit_once(' ').unwrap().0.to_owned();
                let resume = head.iter().find(|line| line.starts_with("last-event-id"));
                if let Some(resume) = resume {
                    request.push_str(&format!("?{resume}"));
                }
                let (status, body) = answer(&request);
                let kind = match body.starts_with("id: ") {
                    true => "text/event-stream",
                    false => "application/json",
                };
                write!(
                    stream,
                    "HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                )
                .unwrap();
            }
        });
        Shell {
            home: TempDir::new().unwrap(),
            url,
        }
    }

    fn weir(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_weir"))
            .args(args)
            .env_clear()
            .env("HOME", self.home.path())
            .env("TZ", "UTC")
            .env("WEIR_URL", &self.url)
            .env("USER", "ada")
            .current_dir(self.home.path())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn path(&self) -> &Path {
        self.home.path()
    }
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn page(items: &Value) -> (u16, String) {
    (
        200,
        json!({ "items": items, "next_cursor": null }).to_string(),
    )
}

/// A daemon with one of everything, whose provider is hostile.
fn daemon(request: &str) -> (u16, String) {
    let execution = json!({
        "id": "01930000-0000-7000-8000-000000000001", "execution_seq": 41, "workflow_id": 1,
        "workflow_name": "por\u{1b}[2Jtrait", "execution_number": 12, "source": "studio",
        "external_id": "abc", "status": "failed", "duration": 12.4, "queue_wait": 0.5,
        "created_at": "2024-11-22T10:00:00.123Z", "started_at": "2024-11-22T10:00:01.000Z",
        "completed_at": "2024-11-22T10:00:13.400Z", "error_message": "out of\nmemory \u{9b}31m",
        "step_executions": [
            {"step_id": "3", "index": 0, "name": "KSampler", "status": "failed", "duration": 11.0,
             "started_at": "2024-11-22T10:00:02.000Z", "error_message": "out of memory"}
        ],
    });
    let source = json!({
        "name": "studio", "plugin_name": "comfyui", "status": "ok", "open_jobs": 0,
        "control": false, "notice": "jobs of the web UI have no live node progress this way",
        "plugin": {"state": "ready"},
    });
    match request.split('?').next().unwrap() {
        "GET /status" => (
            200,
            json!({
                "version": "0.1.0", "uptime": 7500.2, "now": "2024-11-22T10:00:00Z",
                "data_dir": "/var/lib/weir", "public_url": "http://127.0.0.1:8000",
                "journal": {"state": "open", "head": 2, "size_bytes": 12_900_000},
                "sources": [source], "executions": {"running": 2, "queued": 5},
                "alerts": {"firing": 1, "by_severity": {"error": 1}},
                "mutes": [{"id": 3, "source": "farm", "until": "2024-11-22T18:00:00Z", "comment": "moving"}],
                "reload": {"ok": false, "at": "2024-11-22T09:00:00Z", "error": "monitor.ron:3:1: unknown field"},
                "warnings": [{"subject": "disk", "message": "96 % used"}],
            })
            .to_string(),
        ),
        "GET /api/sources" => page(&json!([source])),
        "GET /api/executions" if request.contains("external_id=none") => page(&json!([])),
        "GET /api/executions" => page(&json!([execution])),
        "GET /api/executions/01930000-0000-7000-8000-000000000001" => (200, execution.to_string()),
        "GET /api/alerts" => page(&json!([{
            "id": "01930000-0000-7000-8000-0000000000aa", "rule": "failed", "severity": "error",
            "status": "firing", "title": "portrait failed", "since": "2024-11-22T10:00:13Z", "count": 2,
            "deliveries": [{"receiver": "phone", "state": "failed"}],
        }])),
        "POST /api/alerts/01930000-0000-7000-8000-0000000000aa/ack" => (204, String::new()),
        "POST /api/mutes" => (
            200,
            json!({"id": 4, "source": "studio", "until": "2024-11-22T18:00:00Z"}).to_string(),
        ),
        "GET /api/events" if request.contains("last-event-id: 0193abcd-2") => (
            200,
            "id: 0193abcd-3\ndata: {\"seq\":3,\"type\":\"execution.found\"}\n\n".to_owned(),
        ),
        "GET /api/events" if request.contains("last-event-id") => (503, "{}".to_owned()),
        "GET /api/events" => (
            200,
            "id: 0193abcd-1\nevent: execution.started\ndata: {\"seq\":1,\"type\":\"execution.started\",\"time\":\"2024-11-22T10:00:01.000Z\",\"workflow\":{\"id\":1,\"name\":\"portrait\"},\"execution\":{\"number\":12,\"source\":\"studio\"},\"step\":null,\"data\":{}}\n\n: head 2\n\nid: 0193abcd-2\nevent: execution.failed\ndata: {\"seq\":2,\"type\":\"execution.failed\",\"time\":\"2024-11-22T10:00:13.400Z\",\"data\":{\"error\":\"out of memory\"}}\n\n".to_owned(),
        ),
        "GET /system_stats" => (
            200,
            json!({"system": {"comfyui_version": "0.33.0"}, "devices": [{}]}).to_string(),
        ),
        _ => (
            404,
            json!({"title": "not found", "status": 404, "detail": "there is no such thing"}).to_string(),
        ),
    }
}

#[test]
fn without_a_daemon_it_says_so_and_how_to_start_one() {
    let shell = Shell::alone();
    for args in [
        &["status"][..],
        &["list"],
        &["watch"],
        &["events"],
        &["alerts"],
        &["sources"],
    ] {
        let output = shell.weir(args);
        assert_eq!(code(&output), 3, "{args:?}");
        assert_eq!(out(&output), "");
        let expected = format!(
            "error: no weir daemon answers at {} (connection refused). Start one: weir run   or point to it: --url / WEIR_URL\n",
            shell.url
        );
        assert_eq!(err(&output), expected, "{args:?}");
    }
}

#[test]
fn with_a_broken_configuration_no_daemon_is_guessed() {
    let shell = Shell::with(daemon);
    let file = "(\n    http: (lisen: \"127.0.0.1:9\"),\n)\n";
    fs::write(shell.path().join("monitor.ron"), file).unwrap();
    let alone = |args: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_weir"))
            .args(args)
            .env_clear()
            .env("HOME", shell.path())
            .current_dir(shell.path())
            .output()
            .unwrap()
    };
    for args in [&["status"][..], &["list"], &["alerts"]] {
        let output = alone(args);
        assert_eq!(code(&output), 2, "{args:?}: {}", out(&output));
        assert_eq!(out(&output), "");
        let said = err(&output);
        assert!(
            said.contains("monitor.ron cannot be read (2:12: ") && said.contains("--url"),
            "{said}"
        );
    }
    let doctor = alone(&["doctor"]);
    assert_eq!(code(&doctor), 1);
    let said = out(&doctor);
    assert!(
        said.contains("not known which daemon") && !said.contains("8000"),
        "{said}"
    );
    let named = shell.weir(&["status"]);
    assert_eq!(code(&named), 0, "who names one gets it: {}", err(&named));
}

#[test]
fn something_else_at_the_url_is_not_taken_for_a_daemon() {
    let shell = Shell::with(|_| (404, "<html>nginx</html>".to_owned()));
    let output = shell.weir(&["status"]);
    assert_eq!(code(&output), 1);
    assert!(
        err(&output).contains("is no weir daemon (HTTP 404)"),
        "{}",
        err(&output)
    );
}

#[test]
fn what_a_daemon_tells_is_shown_safely() {
    let shell = Shell::with(daemon);
    let mut text = String::new();
    for args in [
        &["status"][..],
        &["status", "41"],
        &["list"],
        &["sources"],
        &["alerts"],
        &["events", "--since", "0"],
    ] {
        let output = shell.weir(args);
        assert_eq!(code(&output), 0, "{args:?}: {}", err(&output));
        text.push_str(&format!("$ weir {}\n{}\n", args.join(" "), out(&output)));
    }
    assert!(!text.contains('\u{1b}') && !text.contains('\u{9b}'));
    insta::assert_snapshot!(text.replace(&shell.url, "http://daemon"));
}

#[test]
fn json_is_what_the_daemon_sent_and_carries_no_controls() {
    let shell = Shell::with(daemon);
    let output = shell.weir(&["list", "--json"]);
    let text = out(&output);
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'));
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["items"][0]["workflow_name"], "por\u{1b}[2Jtrait");
    let output = shell.weir(&["events", "--json", "--since", "0"]);
    let lines: Vec<Value> = out(&output)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[1]["type"], "execution.failed");
}

#[test]
fn following_events_goes_on_where_the_connection_broke_off() {
    let shell = Shell::with(daemon);
    let mut child = Command::new(env!("CARGO_BIN_EXE_weir"))
        .args([
            "events", "-f", "--since", "0", "--json", "--url", &shell.url,
        ])
        .env("HOME", shell.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let seqs: Vec<Value> = lines
        .take(3)
        .map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap()["seq"].take())
        .collect();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(seqs, [1, 2, 3]);
}

#[test]
fn what_the_daemon_does_not_know_has_its_own_exit_code() {
    let shell = Shell::with(daemon);
    for args in [
        &["status", "none"][..],
        &["alerts", "ack", "ffff"],
        &["unmute", "7"],
        &["list", "--workflow", "none"],
    ] {
        assert_eq!(code(&shell.weir(args)), 4, "{args:?}");
    }
    let output = shell.weir(&["alerts", "ack", "0193"]);
    assert_eq!(code(&output), 0, "{}", err(&output));
    let output = shell.weir(&["mute", "--source", "studio", "--for", "8h"]);
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert!(
        err(&output).starts_with("muted source studio until"),
        "{}",
        err(&output)
    );
    let output = shell.weir(&["mute", "--source", "studoi", "--for", "8h"]);
    assert_eq!(code(&output), 0, "it may be there later");
    assert!(
        err(&output).contains("no source studoi is known at present"),
        "{}",
        err(&output)
    );
    assert_eq!(
        code(&shell.weir(&["mute", "--for", "8h"])),
        2,
        "nothing is named"
    );
}

#[test]
fn check_tells_good_from_bad_from_unreadable() {
    let shell = Shell::alone();
    let file = |name: &str, text: &str| fs::write(shell.path().join(name), text).unwrap();
    file(
        "good.ron",
        r#"(sources: [(name: "studio", plugin: "comfyui", config: { "url": "http://127.0.0.1:8188" })])"#,
    );
    file(
        "bad.ron",
        "(\n    sources: [(name: \"studio\", plugin: \"comfyui\", pol_interval: \"2s\")],\n    http: (listen: \"nowhere\"),\n)\n",
    );
    let good = shell.weir(&["check", "good.ron"]);
    let bad = shell.weir(&["check", "bad.ron"]);
    let missing = shell.weir(&["check", "missing.ron"]);
    let none = shell.weir(&["check"]);
    assert_eq!([&good, &bad, &missing, &none].map(code), [0, 1, 2, 2]);
    insta::assert_snapshot!(format!(
        "{}---\n{}---\n{}---\n{}",
        out(&good),
        out(&bad),
        err(&missing),
        err(&none).replace(&shell.path().display().to_string(), "HOME")
    ));
}

#[test]
fn init_asks_the_servers_first_and_writes_what_check_accepts() {
    let shell = Shell::with(daemon);
    let output = shell.weir(&["init", "--comfyui", &shell.url, "--ntfy", "secret-topic"]);
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert!(
        err(&output).contains("ComfyUI 0.33.0, 1 device"),
        "{}",
        err(&output)
    );
    let output = shell.weir(&["check"]);
    assert_eq!(code(&output), 0, "{}", out(&output));
    let output = shell.weir(&["init", "--comfyui", &shell.url]);
    assert_eq!(code(&output), 2, "an existing file is kept");
    let output = shell.weir(&["config", "show", "--json"]);
    let config: Value = serde_json::from_str(&out(&output)).unwrap();
    assert_eq!(config["sources"][0]["name"], "comfyui");
}

#[test]
fn init_writes_nothing_while_a_server_is_silent() {
    let shell = Shell::alone();
    let output = shell.weir(&["init", "--comfyui", &shell.url]);
    assert_eq!(code(&output), 1);
    assert!(
        err(&output).contains("connection refused"),
        "{}",
        err(&output)
    );
    assert!(!shell.path().join("monitor.ron").exists());
    let output = shell.weir(&["init", "--comfyui", &shell.url, "--no-probe"]);
    assert_eq!(code(&output), 0, "{}", err(&output));
}

#[test]
fn doctor_names_what_is_wrong_in_order() {
    let shell = Shell::alone();
    let output = shell.weir(&["doctor", "--json"]);
    assert_eq!(code(&output), 1);
    let report: Value = serde_json::from_str(&out(&output)).unwrap();
    let wrong: Vec<&str> = report["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|finding| finding["verdict"] == "wrong")
        .map(|finding| finding["what"].as_str().unwrap())
        .collect();
    assert_eq!(wrong.first(), Some(&"configuration"));
    assert!(wrong.contains(&"daemon"), "{wrong:?}");
}

#[test]
fn doctor_names_parked_receivers_and_says_whose_sources_it_saw() {
    fn with_receivers(request: &str) -> (u16, String) {
        match request.split('?').next().unwrap() {
            "GET /api/receivers" => page(&json!([
                {"name": "phone", "handler": "ntfy", "status": "parked", "parked": "401: who are you?"},
                {"name": "log", "handler": "log", "status": "ok"},
                {"name": "ops", "handler": "webhook", "status": "failing", "given_up": 3,
                 "last_failure_at": "2024-11-22T10:00:00Z", "last_failure": "status 400: no\n\u{1b}[2J"},
            ])),
            _ => daemon(request),
        }
    }
    let shell = Shell::with(with_receivers);
    let output = shell.weir(&["doctor"]);
    assert_eq!(code(&output), 1);
    let said = out(&output);
    for part in [
        "phone is parked: 401: who are you?",
        "log takes messages",
        "ops is failing: 3 given up; last failed",
        "not the daemon of this configuration: its data is in /var/lib/weir",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let list = out(&shell.weir(&["receiver", "list"]));
    assert!(
        list.contains("failing")
            && list.contains("ago: status 400: no")
            && !list.contains('\u{1b}'),
        "{list}"
    );
}

#[test]
fn a_closed_pipe_is_a_quiet_end() {
    let shell = Shell::with(daemon);
    let mut child = Command::new(env!("CARGO_BIN_EXE_weir"))
        .args(["list", "--json", "--url", &shell.url])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((code(&output), err(&output)), (0, String::new()));
}

#[test]
fn help_tells_the_exit_codes() {
    let shell = Shell::alone();
    let output = shell.weir(&["--help"]);
    assert_eq!(code(&output), 0);
    insta::assert_snapshot!(out(&output));
    assert_eq!(code(&shell.weir(&["nonsense"])), 2);
}
