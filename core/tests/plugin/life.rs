//! The life of a plugin whose file, cache or instance changes under it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use weir_core::plugin::{
    AllowRule, CallError, HostOptions, PluginHandle, PluginHost, PluginSpec, PluginState, Role,
    WasmBytes,
};

use super::guest::{Guest, failure, page, store};
use super::{crash, host, reached, source, spec};

/// A host that looks at files all the time.
fn watchful() -> PluginHost {
    PluginHost::start(HostOptions {
        threads: 1,
        file_poll: Duration::from_millis(10),
        ..HostOptions::default()
    })
    .unwrap()
}

fn of_file(path: &Path) -> PluginSpec {
    let mut spec = source(&Guest::source());
    spec.wasm = WasmBytes::File {
        path: path.to_owned(),
        sha256: None,
    };
    spec
}

/// A source whose cursor is always `name`.
fn naming(name: &str) -> Guest {
    let mut guest = Guest::source();
    let (at, len) = guest.text(name);
    guest.poll = store(&[
        (0, 0),
        (4, 0),
        (8, 0),
        (12, 1),
        (16, at),
        (20, len),
        (24, 1),
    ]);
    guest
}

async fn cursor(handle: &PluginHandle) -> String {
    handle.poll(None, vec![]).await.unwrap().cursor.unwrap()
}

async fn judged(handle: &PluginHandle) -> Option<String> {
    let mut status = handle.subscribe();
    let found = tokio::time::timeout(
        Duration::from_secs(60),
        status.wait_for(|status| status.reload.is_some()),
    );
    let report = found.await.unwrap().unwrap().reload.clone();
    report.unwrap().error
}

async fn generation(handle: &PluginHandle, wanted: u64) {
    let mut status = handle.subscribe();
    let found = status.wait_for(|status| status.generation == wanted);
    let found = tokio::time::timeout(Duration::from_secs(60), found).await;
    assert!(found.is_ok(), "{:?}", handle.status());
}

#[tokio::test]
async fn a_changed_file_is_ready_before_it_takes_over_and_the_call_in_flight_ends_on_the_old_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.wasm");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::fs::write(&path, Guest::fetching(&url, None).component()).unwrap();
    let mut spec = of_file(&path);
    spec.allow = vec![AllowRule::parse(&url).unwrap()];
    let handle = watchful().open(spec);
    reached(&handle, "ready").await;
    let first = handle.status();
    assert_eq!(first.generation, 1);
    let running = tokio::spawn({
        let handle = handle.clone();
        async move { handle.poll(None, vec![]).await }
    });
    let accepted = tokio::task::spawn_blocking(move || listener.accept().unwrap());
    let (mut stream, _) = accepted.await.unwrap();
    std::fs::write(&path, naming("second").component()).unwrap();
    // Long enough for the new file to be found and made ready; the old one is still in its call.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(handle.status().generation, 1);
    answer(&mut stream, "first");
    let page = running.await.unwrap().unwrap();
    assert_eq!(page.cursor.as_deref(), Some("first"));
    generation(&handle, 2).await;
    assert_eq!(cursor(&handle).await, "second");
    let second = handle.status();
    assert_eq!(second.reload.unwrap().error, None);
    assert_ne!(first.sha256, second.sha256);
    assert_eq!((second.strikes, second.counters.crashes), (0, 0));
}

fn answer(stream: &mut TcpStream, body: &str) {
    let mut request = [0; 4096];
    let _ = stream.read(&mut request).unwrap();
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body.as_bytes()).unwrap();
}

#[tokio::test]
async fn a_file_that_cannot_be_used_leaves_the_old_one_at_work_and_says_why() {
    let mut trapping = Guest::source();
    trapping.describe = "(unreachable)".into();
    let mut misconfigured = Guest::source();
    let message = misconfigured.text("no key");
    misconfigured.check = failure(2, message);
    let broken = [
        (b"<html>".to_vec(), "it is not WebAssembly"),
        (
            naming("x").component()[..2000].to_vec(),
            "it cannot be compiled",
        ),
        (Guest::handler().component(), "it exports no `jobs`"),
        (trapping.component(), "trap in describe"),
        (misconfigured.component(), "no key"),
    ];
    for (bytes, why) in broken {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.wasm");
        std::fs::write(&path, naming("old").component()).unwrap();
        let handle = watchful().open(of_file(&path));
        assert_eq!(cursor(&handle).await, "old");
        std::fs::write(&path, bytes).unwrap();
        let error = judged(&handle).await.unwrap();
        assert!(error.contains(why), "{error}");
        assert_eq!(cursor(&handle).await, "old");
        let status = handle.status();
        assert_eq!((status.state, status.strikes), (PluginState::Ready, 0));
        assert_eq!(status.generation, 1);
        std::fs::write(&path, naming("good").component()).unwrap();
        generation(&handle, 2).await;
        assert_eq!(cursor(&handle).await, "good");
        assert_eq!(handle.status().reload.unwrap().error, None);
    }
}

#[tokio::test]
async fn a_pinned_file_that_changes_is_not_taken_into_use() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.wasm");
    std::fs::write(&path, naming("old").component()).unwrap();
    let unpinned = watchful().open(of_file(&path));
    reached(&unpinned, "ready").await;
    let mut pinned = of_file(&path);
    pinned.wasm = WasmBytes::File {
        path: path.clone(),
        sha256: unpinned.status().sha256.map(|sha256| sha256.to_string()),
    };
    let handle = watchful().open(pinned);
    reached(&handle, "ready").await;
    std::fs::write(&path, naming("new").component()).unwrap();
    let error = judged(&handle).await.unwrap();
    assert!(error.contains("monitor.ron says"), "{error}");
    assert_eq!(cursor(&handle).await, "old");
    generation(&unpinned, 2).await;
}

#[tokio::test]
async fn what_waits_is_tried_again_as_soon_as_its_file_changes() {
    let mut parked = Guest::source();
    let message = parked.text("no key");
    parked.open = failure(2, message);
    let quarantined = Guest {
        check: "(unreachable)".into(),
        ..Guest::source()
    };
    for (bytes, state) in [
        (b"broken".to_vec(), "incompatible"),
        (parked.component(), "parked"),
        (quarantined.component(), "quarantined"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.wasm");
        std::fs::write(&path, bytes).unwrap();
        let handle = watchful().open(of_file(&path));
        reached(&handle, state).await;
        std::fs::write(&path, naming("cured").component()).unwrap();
        reached(&handle, "ready").await;
        assert_eq!(cursor(&handle).await, "cured");
        assert_eq!(handle.status().strikes, 0);
    }
}

#[tokio::test]
async fn a_file_that_is_written_anew_with_the_same_bytes_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.wasm");
    let bytes = naming("same").component();
    std::fs::write(&path, &bytes).unwrap();
    let handle = watchful().open(of_file(&path));
    assert_eq!(cursor(&handle).await, "same");
    std::fs::write(&path, &bytes).unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let status = handle.status();
    assert_eq!((status.generation, status.reload), (1, None));
}

#[tokio::test]
async fn an_instance_retires_by_its_calls_its_age_and_its_memory() {
    // The second poll of one instance traps, so three good ones are three instances.
    let by_age = |spec: &mut PluginSpec| spec.limits.instance_age = Duration::ZERO;
    // Instantiate, describe, open and check are calls too.
    let by_calls = |spec: &mut PluginSpec| spec.limits.instance_calls = 5;
    for retire in [by_age as fn(&mut PluginSpec), by_calls] {
        let mut spec = source(&Guest::second_poll("(unreachable)"));
        retire(&mut spec);
        let handle = host().open(spec);
        for _ in 0..3 {
            handle.poll(None, vec![]).await.unwrap();
        }
        assert_eq!(handle.status().counters.crashes, 0);
    }
    // Each poll takes 16 pages of 64 KiB: of 4 MiB three quarters are gone after the third.
    let guest = Guest {
        poll: format!(
            "(drop (memory.grow (i32.const 16))) {}",
            page("(i32.const 1)")
        ),
        ..Guest::source()
    };
    let mut spec = source(&guest);
    spec.limits.memory_bytes = 4 << 20;
    let handle = host().open(spec);
    for _ in 0..20 {
        handle.poll(None, vec![]).await.unwrap();
    }
    let status = handle.status();
    assert_eq!(status.counters.crashes, 0, "{:?}", status.last_crash);
    assert!(status.counters.memory_high_water > 3 << 20);
}

#[tokio::test]
async fn every_limit_is_shown_with_what_was_used_of_it() {
    let handle = host().open(source(&naming("cursor")));
    handle.poll(None, vec![]).await.unwrap();
    let limits = handle.status().limits;
    let of = |name: &str| *limits.iter().find(|of| of.name == name).unwrap();
    assert_eq!(of("memory").limit, f64::from(64 << 20));
    assert_eq!(of("memory").used, Some(f64::from(2 * 65_536)));
    assert_eq!(of("cursor").used, Some(6.0));
    assert_eq!(of("retire_calls").used, Some(5.0));
    for timed in ["wall_open", "wall", "wall_check", "cpu_open", "cpu"] {
        let of = of(timed);
        let used = of.used.unwrap();
        assert!(used > 0.0 && used <= of.limit, "{of:?}");
    }
    assert!(of("file").used.unwrap() > 500.0);
}

fn with_cache(cache_dir: &Path) -> PluginHost {
    PluginHost::start(HostOptions {
        cache_dir: Some(cache_dir.to_owned()),
        threads: 1,
        ..HostOptions::default()
    })
    .unwrap()
}

/// Every file below a folder.
fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found
}

#[tokio::test]
async fn a_cache_that_is_corrupt_truncated_or_empty_is_compiled_around() {
    let folder = tempfile::tempdir().unwrap();
    let guest = naming("cached");
    let works = async || {
        let handle = with_cache(folder.path()).open(source(&guest));
        assert_eq!(cursor(&handle).await, "cached");
    };
    works().await;
    let spoil: [fn(&mut Vec<u8>); 3] = [
        |bytes| bytes.iter_mut().for_each(|byte| *byte ^= 0x5a),
        |bytes| bytes.truncate(bytes.len() / 2),
        Vec::clear,
    ];
    for spoil in spoil {
        let cached = files(folder.path());
        assert!(!cached.is_empty());
        for path in cached {
            let mut bytes = std::fs::read(&path).unwrap();
            spoil(&mut bytes);
            std::fs::write(&path, bytes).unwrap();
        }
        works().await;
    }
}

#[tokio::test]
async fn a_cache_that_cannot_be_written_is_done_without() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    // A file where the directory should be: no directory can be made there, by root either.
    std::fs::write(&cache, b"in the way").unwrap();
    let handle = with_cache(&cache).open(source(&naming("uncached")));
    assert_eq!(cursor(&handle).await, "uncached");
    // A directory that is ours and read-only: root writes there all the same, anybody else compiles each time.
    let sealed = folder.path().join("sealed");
    let host = with_cache(&sealed);
    std::fs::set_permissions(&sealed, std::fs::Permissions::from_mode(0o500)).unwrap();
    let handle = host.open(source(&naming("sealed")));
    assert_eq!(cursor(&handle).await, "sealed");
    std::fs::set_permissions(&sealed, std::fs::Permissions::from_mode(0o700)).unwrap();
}

#[tokio::test]
async fn two_daemons_share_one_cache() {
    let folder = tempfile::tempdir().unwrap();
    let guests: Vec<Guest> = (0..4).map(|n| naming(&format!("guest {n}"))).collect();
    let hosts = [with_cache(folder.path()), with_cache(folder.path())];
    let handles: Vec<(usize, PluginHandle)> = hosts
        .iter()
        .flat_map(|host| {
            let open = |(n, guest): (usize, &Guest)| (n, host.open(source(guest)));
            guests.iter().enumerate().map(open)
        })
        .collect();
    for (n, handle) in handles {
        assert_eq!(cursor(&handle).await, format!("guest {n}"));
    }
}

#[tokio::test]
async fn an_observation_whose_detail_is_no_json_is_left_out_alone() {
    let mut guest = Guest::source();
    let (id, id_len) = guest.text("job-1");
    let (broken, broken_len) = guest.text("{\"a\": ");
    let (good, good_len) = guest.text("{}");
    // Two jobs of 152 bytes, running, that differ in their `detail` alone.
    let job = |at: u32, (detail, len): (u32, u32)| {
        super::guest::words(
            at,
            &[(8, id), (12, id_len), (40, 3), (140, detail), (144, len)],
        )
    };
    guest.poll = format!(
        "{} {} {}",
        job(100_000, (broken, broken_len)),
        job(100_152, (good, good_len)),
        store(&[(0, 0), (4, 100_000), (8, 2), (12, 0), (24, 2)])
    );
    let handle = host().open(source(&guest));
    let page = handle.poll(None, vec![]).await.unwrap();
    assert_eq!(page.observations.len(), 1);
    assert_eq!(handle.status().counters.observations_dropped, 1);
}

#[tokio::test]
async fn ready_says_why_a_plugin_is_not() {
    let handle = host().open(source(&Guest::source()));
    handle.ready().await.unwrap();
    let handle = host().open(spec(Role::Source, b"broken".to_vec()));
    assert!(matches!(
        handle.ready().await,
        Err(CallError::Incompatible { .. })
    ));
    let handle = host().open(source(&Guest::second_poll("(unreachable)")));
    handle.poll(None, vec![]).await.unwrap();
    crash(&handle).await;
    handle.close().await;
    assert!(matches!(handle.ready().await, Err(CallError::Closed)));
}
