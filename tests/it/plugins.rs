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
