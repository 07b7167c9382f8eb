//! Every recorded session, watched by the real monitor with the real plugin over real HTTP, against the oracle.
//!
//! Recorded time is moved by hand: each recording goes on to its next change only after the source has looked, so
//! what is seen does not depend on how fast this machine is.

use crate::oracle::{self, Ended, Expected};
use std::path::Path;
use std::time::Duration;
use weir::replay::{Recording, ReplayOptions, ReplayServer};
use weir_core::journal::{ExecutionFilter, StoredExecution};
use weir_core::model::id::SourceId;
use weir_core::model::status::{Status, StepStatus};
use weir_core::monitor::BundledPlugin;
use weir_core::{Config, Monitor, MonitorHandle};
use weir_model::config::{self, ParseContext};

pub(crate) fn bundled() -> Vec<BundledPlugin> {
    let plugin = |b: &weir::bundled::Bundled| BundledPlugin {
        name: b.name,
        bytes: b.bytes,
    };
    weir::bundled::BUNDLED.iter().map(plugin).collect()
}

pub(crate) fn settings(text: &str) -> config::Config {
    let known: Vec<&str> = weir::bundled::BUNDLED.iter().map(|b| b.name).collect();
    let context = ParseContext {
        known_plugins: &known,
        ..ParseContext::default()
    };
    match config::parse(text, &context) {
        Ok((config, _)) => config,
        Err(diagnostics) => panic!(
            "{}",
            diagnostics
                .iter()
                .map(|d| d.render("test.ron"))
                .collect::<String>()
        ),
    }
}

/// Waits until the source has answered polls begun from now on.
async fn looked(monitor: &MonitorHandle, source: &str, polls: u64) {
    let count = || {
        let views = monitor.sources();
        views
            .iter()
            .find(|s| s.name == source)
            .map_or(0, |s| s.health.polls)
    };
    let wanted = count() + polls;
    while count() < wanted {
        // Polls are waited for, not slept for; the clock only moves a source that backs off.
        tokio::time::sleep(Duration::from_millis(5)).await;
        if monitor
            .sources()
            .iter()
            .any(|s| s.name == source && s.health.consecutive_failures > 0)
        {
            monitor.clock().advance(Duration::from_millis(200));
        }
    }
}

fn name_of(path: &Path) -> String {
    let version = path
        .parent()
        .and_then(Path::file_name)
        .unwrap()
        .to_string_lossy()
        .replace('.', "-");
    format!("{version}-{}", path.file_stem().unwrap().to_string_lossy())
}

fn executions(monitor: &MonitorHandle, source: SourceId) -> Vec<StoredExecution> {
    let reader = monitor.journal().reader().unwrap();
    let filter = ExecutionFilter {
        source: Some(source),
        limit: 100,
        ..ExecutionFilter::default()
    };
    let page = reader.executions(&filter).unwrap();
    page.into_iter()
        .map(|e| reader.execution(e.record.seq).unwrap().unwrap())
        .collect()
}

fn wanted_status(ended: Ended) -> Vec<Status> {
    match ended {
        Ended::Completed => vec![Status::Completed],
        Ended::Failed => vec![Status::Failed],
        Ended::Cancelled => vec![Status::Cancelled],
        Ended::LostPending | Ended::LostRunning => vec![Status::Lost],
        Ended::StillPending => vec![Status::Pending, Status::Queued],
        Ended::StillRunning => vec![Status::Running],
    }
}

/// What differs, in words.
fn compare(name: &str, wanted: &Expected, found: &StoredExecution) -> Vec<String> {
    let record = &found.record;
    let mut wrong = Vec::new();
    let id = format!("{name} {}#{}", wanted.external_id, wanted.run);
    if !wanted_status(wanted.ended).contains(&record.status) {
        wrong.push(format!(
            "{id}: {:?} is told as {}",
            wanted.ended, record.status
        ));
    }
    let times = [
        ("created", wanted.created_ms, record.created_at),
        ("started", wanted.started_ms, record.started_at),
        ("completed", wanted.completed_ms, record.completed_at),
    ];
    let timed = !name.ends_with("stalled_reader");
    for (what, wanted, told) in times {
        let told = told.map(|t| t.as_millisecond());
        if let Some(wanted) = wanted.filter(|_| timed)
            && told != Some(wanted)
        {
            wrong.push(format!("{id}: {what} at {wanted} is told as {told:?}"));
        }
    }
    if let Some(node) = &wanted.failed_node {
        let failed = found.steps.iter().find(|s| s.status == StepStatus::Failed);
        if failed.is_none_or(|s| &*s.external_id != node) {
            wrong.push(format!(
                "{id}: node {node} failed, told is {:?}",
                failed.map(|s| &s.external_id)
            ));
        }
    }
    if let Some(message) = &wanted.error_message {
        let error = record.error.clone().unwrap_or_default();
        let plain =
            |word: &&str| !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric());
        for word in message.split_whitespace().filter(plain).take(8) {
            // Errors are cut at 2 KiB: the start of a word that is longer must be there.
            if !error.contains(&word[..word.len().min(1000)]) {
                wrong.push(format!("{id}: the error {message:?} is told as {error:?}"));
                break;
            }
        }
    }
    wrong
}

async fn play(monitor: MonitorHandle, server: ReplayServer, name: String) -> ReplayServer {
    looked(&monitor, &name, 1).await;
    for mark in server.recording().marks() {
        server.set_position(mark);
        looked(&monitor, &name, 2).await;
    }
    server.set_position(server.recording().duration());
    looked(&monitor, &name, 2).await;
    server
}

#[actix_web::test]
async fn every_recording_is_told_as_it_was() {
    let mut text = String::from("(resources: (interval: \"1h\"), sources: [");
    let mut servers = Vec::new();
    for path in oracle::recordings() {
        let recording = Recording::load(&path).unwrap();
        let options = ReplayOptions {
            manual: true,
            ..ReplayOptions::default()
        };
        let server = ReplayServer::start(recording, options).await.unwrap();
        let (name, url) = (name_of(&path), server.url());
        text.push_str(&format!(
            "(name: \"{name}\", plugin: \"comfyui\", poll_interval: \"100ms\", lost_after: \"12h\", config: {{ \"url\": \"{url}\" }}),"
        ));
        servers.push((path, name, server));
    }
    text.push_str("])");
    let mut config = Config::temporary().unwrap();
    config.settings = settings(&text);
    config.bundled = bundled();
    let monitor = Monitor::start(config).await.unwrap();
    let mut playing = Vec::new();
    let mut paths = Vec::new();
    for (path, name, server) in servers {
        playing.push(actix_web::rt::spawn(play(
            monitor.clone(),
            server,
            name.clone(),
        )));
        paths.push((path, name));
    }
    let mut played = Vec::new();
    for handle in playing {
        played.push(handle.await.unwrap());
    }
    // What is missing now stays missing: the grace, and the doubt about mass disappearances, pass.
    for _ in 0..2 {
        monitor.clock().advance(Duration::from_secs(13 * 3600));
        for (_, name) in &paths {
            looked(&monitor, name, 2).await;
        }
    }
    monitor.settled().await;
    let mut wrong = Vec::new();
    let mut total = 0;
    for (path, name) in &paths {
        let view = monitor
            .sources()
            .into_iter()
            .find(|s| &s.name == name)
            .unwrap();
        let found = executions(&monitor, view.id);
        let wanted = oracle::expected(&std::fs::read_to_string(path).unwrap());
        let wanted: Vec<&Expected> = wanted.iter().filter(|w| w.seen).collect();
        total += wanted.len();
        if found.len() != wanted.len() {
            wrong.push(format!(
                "{name}: {} executions are told as {}",
                wanted.len(),
                found.len()
            ));
        }
        for expected in wanted {
            let number = |run: &str| run.split(':').next().and_then(|n| n.parse::<f64>().ok());
            let one = found.iter().find(|f| {
                f.record.key.external_id == expected.external_id
                    && number(&f.record.key.run).is_none_or(|n| n == expected.number)
            });
            match one {
                Some(found) => wrong.extend(compare(name, expected, found)),
                None => wrong.push(format!(
                    "{name}: {} ({:?}) is not told",
                    expected.external_id, expected.ended
                )),
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "of {total} executions:\n{}",
        wrong.join("\n")
    );
    assert!(total > 100, "only {total} executions were compared");
    monitor.shutdown().await;
    for server in played {
        server.stop().await;
    }
}
