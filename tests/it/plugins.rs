//! Plugins that crash, change and are replaced, in the running monitor.

use crate::corridor::until;
use crate::faults::{alerts, configured, view};
use crate::guest::{Guest, page};
use crate::recordings::settings;
use std::path::Path;
use std::time::Duration;
use weir_core::Monitor;
use weir_core::monitor::{MonitorHandle, ReloadError};

fn watching(path: &Path, config: &str) -> String {
    format!(
        r#"(sources: [(name: "own", plugin: "{}", poll_interval: "100ms", allow: [], config: {{ {config} }})])"#,
        path.display()
    )
}

fn state(monitor: &MonitorHandle) -> &'static str {
    view(monitor, "own").plugin.unwrap().state.name()
}

#[actix_web::test]
async fn a_plugin_that_always_crashes_is_quarantined_told_and_cured_by_another_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("own.wasm");
    let crashing = Guest {
        poll: "(unreachable)".into(),
        ..Guest::source()
    };
    std::fs::write(&path, crashing.component()).unwrap();
    let monitor = Monitor::start(configured(&watching(&path, "")))
        .await
        .unwrap();
    until(&monitor, "quarantined", |m| state(m) == "quarantined").await;
    until(&monitor, "told", |m| alerts(m, "weir_trouble").len() == 1).await;
    let trouble = monitor.status().troubles;
    assert_eq!(trouble[0].0, "source own");
    assert!(
        trouble[0].1.contains("quarantined: trap in poll"),
        "{trouble:?}"
    );
    let plugin = view(&monitor, "own").plugin.unwrap();
    assert_eq!((plugin.strikes, plugin.counters.crashes), (5, 5));
    let metrics = monitor.exposition();
    let labels = r#"{entry="own",plugin="own.wasm",role="source"}"#;
    assert!(
        metrics.contains(&format!("weir_plugin_quarantined{labels} 1")),
        "{metrics}"
    );
    assert!(
        metrics.contains(r#"role="source",limit="memory",unit="bytes"} 67108864"#),
        "{metrics}"
    );

    assert!(!monitor.resume_plugin("nobody"));
    let good = Guest {
        poll: page("(i32.const 2)"),
        ..Guest::source()
    };
    std::fs::write(&path, good.component()).unwrap();
    until(&monitor, "cured", |m| state(m) == "ready").await;
    until(&monitor, "over", |m| m.status().troubles.is_empty()).await;
    assert_eq!(view(&monitor, "own").plugin.unwrap().strikes, 0);
    monitor.shutdown().await;
}

/// A source that refuses every configuration with the word `bad` in it; its cursor is its configuration.
fn choosy() -> Guest {
    let mut guest = Guest::source();
    let (message, len) = guest.text("bad configuration");
    // `config` is the third text of the context: its address and length are the last two parameters.
    guest.open = format!(
        "(local $at i32)
         (local.set $at (local.get 4))
         (block $done (loop $next
           (br_if $done (i32.ge_u (i32.add (local.get $at) (i32.const 3))
             (i32.add (local.get 4) (local.get 5))))
           (if (i32.and (i32.eq (i32.load8_u (local.get $at)) (i32.const 98))
             (i32.and (i32.eq (i32.load8_u offset=1 (local.get $at)) (i32.const 97))
               (i32.eq (i32.load8_u offset=2 (local.get $at)) (i32.const 100))))
             (then (return {})))
           (local.set $at (i32.add (local.get $at) (i32.const 1)))
           (br $next)))
         {}",
        crate::guest::failure(2, (message, len)),
        crate::guest::store(&[(0, 0)])
    );
    guest
}

#[actix_web::test]
async fn a_configuration_that_its_plugin_refuses_changes_nothing_and_a_good_one_takes_over_ready() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("own.wasm");
    std::fs::write(&path, choosy().component()).unwrap();
    let first = watching(&path, r#""n": 1"#);
    let monitor = Monitor::start(configured(&first)).await.unwrap();
    until(&monitor, "ready", |m| state(m) == "ready").await;
    let polls = |m: &MonitorHandle| view(m, "own").health.polls;

    let error = monitor
        .reload(settings(&watching(&path, r#""n": "bad""#)))
        .await
        .unwrap_err();
    assert!(matches!(error, ReloadError::NotReady(_)), "{error:?}");
    let said = error.to_string();
    assert!(
        said.starts_with("sources[0]: ") && said.contains("bad configuration"),
        "{said}"
    );
    let before = polls(&monitor);
    until(&monitor, "the old one goes on", |m| polls(m) > before + 2).await;
    assert_eq!(state(&monitor), "ready");
    assert!(
        monitor
            .status()
            .reload
            .error
            .unwrap()
            .contains("nothing was changed")
    );

    // What is no business of the plugin's leaves it at work: no instance is opened for it.
    let calls = |m: &MonitorHandle| view(m, "own").plugin.unwrap().counters.calls;
    let slower = first.replace("100ms", "200ms");
    let before = calls(&monitor);
    assert!(before > 0);
    monitor.reload(settings(&slower)).await.unwrap();
    assert!(calls(&monitor) >= before);
    until(&monitor, "polled", |m| polls(m) > 0).await;

    monitor
        .reload(settings(&watching(&path, r#""n": 2"#)))
        .await
        .unwrap();
    // Ready at once: it got so before it took over.
    assert_eq!(state(&monitor), "ready");
    assert!(calls(&monitor) <= 2, "a new one");
    until(&monitor, "polled", |m| polls(m) > 1).await;
    assert!(monitor.status().troubles.is_empty());
    monitor.shutdown().await;
}

#[actix_web::test]
async fn stopping_does_not_wait_for_a_plugin_that_is_getting_ready() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("own.wasm");
    std::fs::write(&path, Guest::source().component()).unwrap();
    let monitor = Monitor::start(configured(&watching(&path, "")))
        .await
        .unwrap();
    until(&monitor, "ready", |m| state(m) == "ready").await;
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    // The next one's check waits for an answer that never comes.
    let text =
        format!(r#"(sources: [(name: "own", plugin: "comfyui", config: {{ "url": "{url}" }})])"#);
    let reloading = monitor.reload(settings(&text));
    let stopping = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let began = std::time::Instant::now();
        monitor.shutdown().await;
        began.elapsed()
    };
    let (reloaded, took) = futures::future::join(reloading, stopping).await;
    assert_eq!(reloaded.unwrap_err(), ReloadError::Stopping);
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[actix_web::test]
async fn every_limit_of_monitor_ron_is_that_of_the_plugin() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("own.wasm");
    std::fs::write(&path, Guest::source().component()).unwrap();
    // (name, as it is written, as it is shown), none of them the default.
    let limits = [
        ("memory", r#""32MiB""#, 33_554_432.0),
        ("tables", "50000", 50_000.0),
        ("cpu_open", r#""3s""#, 3.0),
        ("cpu", r#""600ms""#, 0.6),
        ("wall_open", r#""11s""#, 11.0),
        ("wall_check", r#""16s""#, 16.0),
        ("wall_frames", r#""3s""#, 3.0),
        ("wall", r#""31s""#, 31.0),
        ("http_connect", r#""6s""#, 6.0),
        ("http_total", r#""16s""#, 16.0),
        ("request", r#""2MiB""#, 2_097_152.0),
        ("submit", r#""17MiB""#, 17_825_792.0),
        ("response", r#""9MiB""#, 9_437_184.0),
        ("requests", "33", 33.0),
        ("requests_per_second", "21", 21.0),
        ("observations", "4000", 4_000.0),
        ("string", r#""32KiB""#, 32_768.0),
        ("detail", r#""128KiB""#, 131_072.0),
        ("cursor", r#""16KiB""#, 16_384.0),
        ("receipt", r#""2KiB""#, 2_048.0),
        ("log_lines", "100", 100.0),
        ("log_line", r#""2KiB""#, 2_048.0),
        ("file", r#""32MiB""#, 33_554_432.0),
        ("retire_calls", "5000", 5_000.0),
        ("retire_age", r#""12h""#, 43_200.0),
        ("retire_memory", "80", 80.0),
    ];
    let written: Vec<String> = limits
        .iter()
        .map(|(name, text, _)| format!("{name}: {text}"))
        .collect();
    let text = watching(&path, "").replace(
        "config:",
        &format!("limits: ({}), config:", written.join(", ")),
    );
    let monitor = Monitor::start(configured(&text)).await.unwrap();
    let shown = view(&monitor, "own").plugin.unwrap().limits;
    for (name, _, value) in limits {
        let limit = shown.iter().find(|limit| limit.name == name);
        assert_eq!(limit.map(|limit| limit.limit), Some(value), "{name}");
    }
    assert_eq!(
        shown.len(),
        limits.len(),
        "a limit that this test does not know"
    );
    monitor.shutdown().await;
}
