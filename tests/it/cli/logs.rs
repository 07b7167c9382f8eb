//! `weir logs` against a daemon whose source has logs: once, its end, as it grows, and when there are none.

use super::daemon::{Daemon, configure};
use super::{Shell, code, err, out};
use crate::guests::server::Server;
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What the provider shows: its one job, and the log of it.
#[derive(Default)]
struct Provider {
    state: &'static str,
    log: Vec<String>,
    /// Its log cannot be read.
    broken: bool,
}

struct Stage {
    shell: Shell,
    daemon: Daemon,
    provider: Arc<Mutex<Provider>>,
}

impl Stage {
    /// A daemon that knows of a running job.
    fn new(more: &str) -> Stage {
        let provider = Arc::new(Mutex::new(Provider {
            state: "running",
            ..Provider::default()
        }));
        let shown = Arc::clone(&provider);
        let far = Server::start(move |request| {
            let provider = shown.lock().unwrap();
            match request.path.as_str() {
                "/jobs" => (200, format!("render-1 {}", provider.state)),
                "/log" if provider.broken => (503, "the log store is \u{1b}[2J away".to_owned()),
                "/log" => (200, provider.log.join("\n")),
                _ => (404, String::new()),
            }
        });
        let shell = Shell::alone();
        let module = "plugins/target/wasm32-unknown-unknown/release/fixture_live.wasm";
        let module = Path::new(env!("CARGO_MANIFEST_DIR")).join(module);
        std::fs::copy(module, shell.path().join("live.wasm")).unwrap();
        let url = &far.origin;
        configure(
            &shell,
            &format!(
                r#"(http: (listen: "127.0.0.1:0"), data_dir: "data", sources: [
                    (name: "studio", plugin: "./live.wasm", poll_interval: "1s", config: {{ "url": "{url}" {more} }}),
                ])"#
            ),
        );
        let daemon = Daemon::start(&shell, &[]);
        let stage = Stage {
            shell,
            daemon,
            provider,
        };
        stage.until_status("running");
        stage
    }

    fn with(&self, change: impl FnOnce(&mut Provider)) {
        change(&mut self.provider.lock().unwrap());
    }

    fn says(&self, lines: &[&str]) {
        let lines = lines.iter().map(|line| (*line).to_owned());
        self.with(|provider| provider.log.extend(lines));
    }

    fn weir(&self, args: &[&str]) -> std::process::Output {
        self.shell
            .weir(&[&["--url", self.daemon.url.as_str()], args].concat())
    }

    fn until_status(&self, wanted: &str) {
        let began = Instant::now();
        loop {
            let output = self.weir(&["list", "--json"]);
            let list: Value = serde_json::from_str(&out(&output)).unwrap_or_default();
            if list["items"][0]["status"] == wanted {
                return;
            }
            assert!(began.elapsed() < Duration::from_secs(30), "{list}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// `weir logs --follow` under way.
    fn follow(&self) -> Follower {
        let mut child = Command::new(env!("CARGO_BIN_EXE_weir"))
            .args(["--url", &self.daemon.url, "logs", "--follow", "render-1"])
            .env("HOME", self.shell.path())
            .env("TZ", "UTC")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Follower { child, stdout }
    }
}

struct Follower {
    child: Child,
    stdout: BufReader<std::process::ChildStdout>,
}

impl Follower {
    /// What it prints up to a line that ends so.
    fn until(&mut self, end: &str) -> Vec<String> {
        let mut seen = Vec::new();
        loop {
            let mut line = String::new();
            let read = self.stdout.read_line(&mut line).unwrap();
            assert!(read > 0, "it ended without `{end}`: {seen:?}");
            seen.push(text_of(&line));
            if line.trim_end().ends_with(end) {
                return seen;
            }
        }
    }

    /// The rest of what it prints, its exit code and its messages.
    fn end(mut self) -> (String, Option<i32>, String) {
        let (mut rest, mut messages) = (String::new(), String::new());
        self.stdout.read_to_string(&mut rest).unwrap();
        let mut stderr = self.child.stderr.take().unwrap();
        stderr.read_to_string(&mut messages).unwrap();
        (rest, self.child.wait().unwrap().code(), messages)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A line without its time and origin.
fn text_of(line: &str) -> String {
    let mut parts = line.trim_end().splitn(3, "  ");
    parts.nth(2).unwrap_or(line).to_owned()
}

fn texts(output: &str) -> Vec<String> {
    output.lines().map(text_of).collect()
}

#[test]
fn a_log_is_printed_whole_or_its_end_whatever_the_providers_pages() {
    let stage = Stage::new(r#", "log": true"#);
    let lines: Vec<String> = (1..=35).map(|n| format!("step {n}")).collect();
    stage.with(|provider| provider.log.clone_from(&lines));
    let whole = stage.weir(&["logs", "render-1"]);
    assert_eq!(code(&whole), 0, "{}", err(&whole));
    assert_eq!(texts(&out(&whole)), lines);
    // A time and who said it come first.
    let first = out(&whole).lines().next().unwrap().to_owned();
    assert!(first.contains("  worker  step 1"), "{first}");
    // The provider has ten to a page.
    for tail in [1, 10, 25, 1000] {
        let output = stage.weir(&["logs", "render-1", "--tail", &tail.to_string()]);
        assert_eq!(code(&output), 0, "{}", err(&output));
        assert_eq!(texts(&out(&output)), lines[35 - tail.min(35)..], "{tail}");
    }
    let json = stage.weir(&["logs", "render-1", "--tail", "2", "--json"]);
    let documents: Vec<Value> = out(&json)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(documents.len(), 2);
    assert_eq!(
        (&documents[1]["text"], &documents[1]["origin"]),
        (&"step 35".into(), &"worker".into())
    );
    assert!(documents[1]["time"].is_string());
    for wrong in [
        &["--tail", "0"][..],
        &["--tail", "1001"],
        &["-f", "--tail", "1"],
    ] {
        let output = stage.weir(&[&["logs", "render-1"], wrong].concat());
        assert_eq!(code(&output), 2, "{wrong:?}");
    }
    assert_eq!(code(&stage.weir(&["logs", "nobody"])), 4);
}

#[test]
fn hostile_lines_stay_one_line_and_move_no_cursor() {
    let stage = Stage::new(r#", "log": true"#);
    stage.says(&[
        "\u{1b}[2J\u{1b}]0;owned\u{7}red \u{9b}31m\rover\u{202e}drawn\u{2028}next",
        "plain",
    ]);
    for args in [&[][..], &["--tail", "9"], &["--json"]] {
        let output = stage.weir(&[&["logs", "render-1"], args].concat());
        let text = out(&output);
        let bad = |c: char| c != '\n' && (c.is_control() || matches!(c, '\u{202e}' | '\u{2028}'));
        let is_json = args == ["--json"];
        // As JSON nothing is lost; what could act on a terminal is written escaped.
        assert!(
            !text.contains(|c: char| if is_json {
                c.is_control() && c != '\n'
            } else {
                bad(c)
            }),
            "{args:?}: {text:?}"
        );
        assert_eq!(text.lines().count(), 2, "{args:?}: {text:?}");
        assert!(text.contains("red") && text.contains("drawn"), "{text:?}");
    }
}

#[test]
fn following_shows_late_lines_and_ends_when_the_execution_is_over() {
    let stage = Stage::new(r#", "log": true"#);
    stage.says(&["one", "two"]);
    let mut follower = stage.follow();
    assert_eq!(follower.until("two"), ["one", "two"]);
    stage.says(&["three"]);
    assert_eq!(follower.until("three"), ["three"]);
    // The provider is away for a moment: it is said once, and no line is lost or told twice.
    stage.with(|provider| provider.broken = true);
    stage.says(&["four"]);
    let mut line = String::new();
    let mut stderr = BufReader::new(follower.child.stderr.take().unwrap());
    stderr.read_line(&mut line).unwrap();
    assert!(
        line.contains("warning:") && line.contains("503") && line.contains("trying again"),
        "{line}"
    );
    assert!(!line.contains('\u{1b}'), "{line:?}");
    follower.child.stderr = Some(stderr.into_inner());
    stage.with(|provider| provider.broken = false);
    assert_eq!(follower.until("four"), ["four"]);
    // Its last words and its end.
    stage.says(&["five"]);
    stage.with(|provider| provider.state = "completed");
    let (rest, code, messages) = follower.end();
    assert_eq!(texts(&rest), ["five"]);
    assert_eq!(code, Some(0), "{messages}");
    // What is over is shown whole, and not waited for.
    stage.until_status("completed");
    let (all, code, messages) = stage.follow().end();
    assert_eq!((texts(&all).len(), code), (5, Some(0)), "{messages}");
}

#[test]
fn a_provider_that_fails_is_said_and_exits_with_1() {
    let stage = Stage::new(r#", "log": true"#);
    stage.with(|provider| provider.broken = true);
    for args in [&[][..], &["--tail", "3"], &["--json"]] {
        let output = stage.weir(&[&["logs", "render-1"], args].concat());
        assert_eq!((code(&output), out(&output).as_str()), (1, ""), "{args:?}");
        let said = err(&output);
        assert!(said.contains("studio") && said.contains("503"), "{said}");
        assert!(!said.contains('\u{1b}'), "{said:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_without_logs_says_so_and_fails() {
    let server = crate::faults::serve("progress_own", 2.0).await;
    let url = server.url();
    let tested = tokio::task::spawn_blocking(move || {
        let shell = Shell::alone();
        configure(
            &shell,
            &format!(
                r#"(http: (listen: "127.0.0.1:0"), data_dir: "data", sources: [
                    (name: "studio", plugin: "comfyui", poll_interval: "1s", config: {{ "url": "{url}" }})])"#
            ),
        );
        let daemon = Daemon::start(&shell, &[]);
        let weir = |args: &[&str]| shell.weir(&[&["--url", daemon.url.as_str()], args].concat());
        let began = Instant::now();
        while !out(&weir(&["list", "--json"])).contains("execution_seq") {
            assert!(began.elapsed() < Duration::from_secs(30));
            std::thread::sleep(Duration::from_millis(50));
        }
        for args in [&["logs", "1"][..], &["logs", "1", "-f"]] {
            let output = weir(args);
            let said = err(&output);
            assert_eq!((code(&output), out(&output).as_str()), (1, ""), "{said}");
            assert!(said.contains("This source has no logs"), "{said}");
        }
    });
    tested.await.unwrap();
}
