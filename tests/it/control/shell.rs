//! `weir cancel`, `retry` and `submit` as processes, against a real daemon.

use super::provider::{Daemon, Mood};
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use weir_model::observation::JobState;

/// A home of its own, so that nothing of this machine's user is found.
struct Shell {
    home: tempfile::TempDir,
    url: String,
}

impl Shell {
    fn new(daemon: &Daemon) -> Shell {
        Shell {
            home: tempfile::tempdir().unwrap(),
            url: daemon.server.url(),
        }
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.home.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Exit code, stdout and stderr.
    async fn weir(&self, args: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
        command
            .args(args)
            .env_clear()
            .env("HOME", self.home.path())
            .env("TZ", "UTC")
            .env("WEIR_URL", &self.url)
            .current_dir(self.home.path())
            .stdin(Stdio::null());
        let output: Output = tokio::task::spawn_blocking(move || command.output())
            .await
            .unwrap()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (
            output.status.code().unwrap(),
            text(&output.stdout),
            text(&output.stderr),
        )
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_finds_the_token_by_itself_and_says_what_became_of_it() {
    let daemon = Daemon::new(Mood::Willing).await;
    let shell = Shell::new(&daemon);
    let execution = daemon.shown("a", JobState::Running).await;
    let number = execution["execution_seq"].to_string();
    let (code, out, err) = shell.weir(&["cancel", &number, "--wait"]).await;
    assert_eq!(code, 0, "{out}{err}");
    assert!(
        out.contains("render #1  done: the provider shows it as cancelled"),
        "{out}"
    );
    let (code, _, err) = shell.weir(&["cancel", &number]).await;
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("cancelled already"), "{err}");
    let (code, out, err) = shell.weir(&["retry", "a", "--json"]).await;
    assert_eq!(code, 0, "{err}");
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(told["execution"]["retried_from"], execution["id"]);
    let (code, out, _) = shell.weir(&["status", "a"]).await;
    assert_eq!(code, 0);
    assert!(out.contains("retried as"), "{out}");
    assert_eq!(shell.weir(&["cancel", "nothing"]).await.0, 4);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_submission_is_followed_to_its_end() {
    let daemon = Daemon::new(Mood::Willing).await;
    let shell = Shell::new(&daemon);
    let file = shell.file("job.json", "{\"a\":1}");
    let file = file.to_str().unwrap();
    let (code, out, err) = shell.weir(&["submit", "studio", file, "--key", "k"]).await;
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("render #1"), "{out}");
    daemon.provider.set("made-1", JobState::Completed);
    let (code, out, err) = shell
        .weir(&["submit", "studio", file, "--key", "k", "--wait"])
        .await;
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("completed"), "{out}");
    assert_eq!(
        daemon.provider.calls(),
        ["submit application/json {\"a\":1}"]
    );
    daemon.provider.set("made-1", JobState::Failed);
    daemon
        .execution("made-1", |e| e["status"] == "failed")
        .await;
    let args = ["submit", "studio", file, "--key", "k", "--wait", "--json"];
    let (code, out, _) = shell.weir(&args).await;
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &told["execution"]["status"]), (1, &"failed".into()));
    daemon.provider.be(Mood::Strict);
    let (code, _, err) = shell.weir(&["submit", "studio", file]).await;
    assert_eq!(code, 1);
    assert!(
        err.contains("refused") && err.contains("no_prompt"),
        "{err}"
    );
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_act_is_told_how_and_exits_with_5() {
    let daemon = Daemon::new(Mood::Willing).await;
    let shell = Shell::new(&daemon);
    let job = shell.file("job.json", "{}");
    let job = job.to_str().unwrap();
    let (code, _, err) = shell.weir(&["submit", "shop", job]).await;
    assert_eq!(code, 5, "{err}");
    assert!(err.contains("control: true"), "{err}");
    let wrong = shell.file("wrong.token", "0123456789abcdef0123456789abcdef\n");
    let wrong = wrong.to_str().unwrap();
    let (code, _, err) = shell
        .weir(&["--token-file", wrong, "submit", "studio", job])
        .await;
    assert_eq!(code, 5, "{err}");
    assert!(err.contains("cli.token"), "{err}");
    let (code, _, err) = shell
        .weir(&["--token-file", "none", "submit", "studio", job])
        .await;
    assert_eq!(code, 5, "{err}");
    let far = ["--url", "http://weir.example:8000", "submit", "studio", job];
    let (code, _, err) = shell.weir(&far).await;
    assert_eq!(code, 2);
    assert!(err.contains("--token-file"), "{err}");
    assert_eq!(shell.weir(&["submit", "studio", "missing.json"]).await.0, 2);
    assert!(daemon.provider.calls().is_empty());
    daemon.stop().await;
}
