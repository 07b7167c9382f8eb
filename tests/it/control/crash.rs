//! kill -9 in the middle of a call: a cancel is asked again, a submission is looked for and never asked twice.

use super::provider::{Daemon, Mood, Provider, path};
use crate::corridor::job;
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use weir_core::Config;
use weir_core::model::observation::JobState;

const DIR: &str = "WEIR_CONTROL_CRASH_DIR";
const ACTION: &str = "WEIR_CONTROL_CRASH_ACTION";

fn config(dir: &Path) -> Config {
    let mut config = Config::temporary().unwrap();
    config.data_dir = dir.to_owned();
    config
}

fn tell(line: &str) {
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(format!("TOLD {line}\n").as_bytes())
        .unwrap();
    stdout.flush().unwrap();
}

/// The process that is killed: its provider takes a call and never answers.
#[tokio::test(flavor = "multi_thread")]
async fn the_process_that_is_killed() {
    let (Ok(dir), Ok(action)) = (std::env::var(DIR), std::env::var(ACTION)) else {
        return;
    };
    let provider = Arc::new(Provider {
        jobs: Mutex::new(vec![job("a", JobState::Running)]),
        mood: Mutex::new(Mood::Hanging),
        on_call: Some(tell),
        ..Provider::default()
    });
    let daemon = Daemon::on(config(Path::new(&dir)), provider).await;
    if action == "cancel" {
        let execution = daemon.execution("a", |_| true).await;
        daemon
            .post(&path(&execution, "cancel"), &[], "")
            .await
            .is(202);
        // Until it is killed.
        std::future::pending::<()>().await;
    }
    let key = [("idempotency-key", "k")];
    daemon.post("/api/sources/studio/submit", &key, "{}").await;
}

fn start(dir: &Path, action: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([
            "control::crash::the_process_that_is_killed",
            "--exact",
            "--nocapture",
        ])
        .env(DIR, dir)
        .env(ACTION, action)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Kills it once its provider was called.
fn killed(dir: &Path, action: &str) {
    let mut child = start(dir, action);
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let called = stdout
        .lines()
        .map_while(Result::ok)
        .any(|line| line.contains(&format!("TOLD {action}")));
    assert!(called, "it ended without a call");
    child.kill().unwrap();
    child.wait().unwrap();
}

async fn killed_while(action: &'static str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    tokio::task::spawn_blocking(move || killed(&path, action))
        .await
        .unwrap();
    dir
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_is_asked_again_after_a_kill() {
    let dir = killed_while("cancel").await;
    let provider = Provider::with(Mood::Willing);
    provider.set("a", JobState::Running);
    let daemon = Daemon::on(config(dir.path()), provider).await;
    let execution = daemon.execution("a", |e| e["status"] == "cancelled").await;
    let request = daemon
        .request(&execution["control"][0]["id"], &["done"], 0)
        .await;
    assert_eq!(request["action"], "cancel");
    assert_eq!(daemon.provider.calls(), ["cancel a"]);
    daemon.stop().await;
}

/// What became of the submission that was cut off, told by asking with its key once more.
async fn after_the_kill(daemon: &Daemon) -> (u16, Value) {
    let key = [("idempotency-key", "k")];
    let answer = daemon.post("/api/sources/studio/submit", &key, "{}").await;
    let told = answer.json();
    let request = told.get("outcome").unwrap_or(&told)["request"].clone();
    (answer.status, request)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_submission_that_was_cut_off_is_looked_for_and_ends_unverifiable() {
    let dir = killed_while("submit").await;
    let daemon = Daemon::on(config(dir.path()), Provider::with(Mood::Willing)).await;
    let (status, request) = after_the_kill(&daemon).await;
    assert_eq!(
        (status, &request["state"]),
        (504, &json!("unverifiable")),
        "{request}"
    );
    assert!(
        daemon.provider.calls().is_empty(),
        "never a second submission"
    );
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_submission_that_was_cut_off_is_found_by_its_key() {
    let dir = killed_while("submit").await;
    let reader = rusqlite::Connection::open(dir.path().join("weir.db")).unwrap();
    let uuid: [u8; 16] = reader
        .query_row("SELECT uuid FROM control_requests", [], |row| row.get(0))
        .unwrap();
    drop(reader);
    let provider = Provider::with(Mood::Willing);
    // The provider had taken it.
    let mut made = job("its own id", JobState::Running);
    made.detail = json!({ "weir_key": uuid::Uuid::from_bytes(uuid) }).to_string();
    provider.jobs.lock().unwrap().push(made);
    let daemon = Daemon::on(config(dir.path()), provider).await;
    let (status, request) = after_the_kill(&daemon).await;
    assert_eq!(
        (status, &request["state"]),
        (201, &json!("done")),
        "{request}"
    );
    assert!(
        daemon.provider.calls().is_empty(),
        "never a second submission"
    );
    daemon.stop().await;
}
