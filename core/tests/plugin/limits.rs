//! Limits that no other test runs into, one by one: what the guest is told, or what stops it.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use weir_core::plugin::{
    AllowRule, CallError, CrashCause, CrashReport, PluginHandle, PluginSpec, WasmBytes,
};
use weir_model::observation::FailureKind;
use weir_model::stream::Frame;

use super::guest::{Guest, SPIN, page};
use super::{crash, host, incompatible, reached, server, source};

/// Accepts connections and says nothing.
fn silent() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (listener, url)
}

fn allowed(guest: &Guest, url: &str) -> PluginSpec {
    let mut spec = source(guest);
    spec.allow = vec![AllowRule::parse(url).unwrap()];
    spec
}

/// The failure that the guest was told, handed on.
async fn told(handle: &PluginHandle) -> (String, Option<FailureKind>) {
    match handle.poll(None, vec![]).await {
        Err(CallError::Failed { message, kind, .. }) => (message, kind),
        other => panic!("no failure but {other:?}"),
    }
}

async fn gives_up(spec: PluginSpec) -> CrashReport {
    let handle = host().open(spec);
    reached(&handle, "quarantined").await;
    (*handle.status().last_crash.unwrap()).clone()
}

/// What asks `url`, as part of a body that has no answer of its own.
fn asking(url: &str) -> (Guest, String) {
    let guest = Guest::fetching(url, None);
    let at = guest.poll.find("(i32.store (i32.const 10").unwrap();
    let fetch = guest.poll[..at].to_owned();
    (guest, fetch)
}

#[tokio::test]
async fn a_table_that_grows_past_its_limit_is_a_crash() {
    let grow = |elements: u32| Guest {
        imports: "(table $t 1 funcref)",
        poll: format!(
            "(drop (table.grow $t (ref.null func) (i32.const {elements}))) {}",
            page("(i32.const 2)")
        ),
        ..Guest::source()
    };
    let within = host().open(source(&grow(99_000)));
    within.poll(None, vec![]).await.unwrap();
    let report = crash(&host().open(source(&grow(100_000)))).await;
    assert_eq!(report.cause, CrashCause::MemoryLimit, "{report}");
    assert!(report.message.contains("table"), "{report}");
    let mut spec = source(&grow(99_000));
    spec.limits.table_elements = 1_000;
    let report = crash(&host().open(spec)).await;
    assert!(report.message.contains("1000"), "{report}");
}

#[tokio::test]
async fn open_check_and_frames_have_wall_limits_of_their_own() {
    let short = Duration::from_millis(200);
    // Nothing but the wall stops it.
    let patient = |guest: &Guest| {
        let mut spec = source(guest);
        spec.limits.cpu_open = Duration::from_secs(60);
        spec.limits.cpu_call = Duration::from_secs(60);
        spec
    };
    for call in ["open", "check"] {
        let mut guest = Guest::source();
        match call {
            "open" => guest.open = SPIN.into(),
            _ => guest.check = SPIN.into(),
        }
        let mut spec = patient(&guest);
        match call {
            "open" => spec.limits.wall_open = short,
            _ => spec.limits.wall_check = short,
        }
        let report = gives_up(spec).await;
        assert_eq!((report.call, report.cause), (call, CrashCause::WallLimit));
    }
    let mut guest = Guest::full();
    guest.optional.insert("streams#on-frames", SPIN.into());
    let mut spec = patient(&guest);
    spec.limits.wall_frames = short;
    let handle = host().open(spec);
    reached(&handle, "ready").await;
    match handle
        .on_frames("main".into(), vec![Frame::Connected])
        .await
    {
        Err(CallError::Crashed { report }) => {
            assert_eq!(
                (report.call, report.cause),
                ("on-frames", CrashCause::WallLimit)
            );
        }
        other => panic!("{other:?}"),
    }
}

/// Connections until the far side's queue is full: whoever comes next is not even refused.
fn crowd(address: SocketAddr) -> Vec<TcpStream> {
    let wait = Duration::from_millis(200);
    let connect = || TcpStream::connect_timeout(&address, wait).ok();
    let crowd: Vec<TcpStream> = std::iter::from_fn(connect).take(10_000).collect();
    assert!(crowd.len() < 10_000, "its queue has no end");
    crowd
}

#[tokio::test]
async fn a_connection_and_an_exchange_have_their_time() {
    let (listener, url) = silent();
    let mut spec = allowed(&Guest::fetching(&url, None), &url);
    spec.limits.http_total = Duration::from_millis(200);
    let (message, kind) = told(&host().open(spec)).await;
    assert_eq!(message, "timeout: no answer within 200ms");
    assert_eq!(kind, Some(FailureKind::Transient));

    let _crowd = crowd(listener.local_addr().unwrap());
    let mut spec = allowed(&Guest::fetching(&url, None), &url);
    spec.limits.http_connect = Duration::from_millis(200);
    let handle = host().open(spec);
    reached(&handle, "ready").await;
    let began = Instant::now();
    let (message, kind) = told(&handle).await;
    assert!(message.starts_with("connect: "), "{message}");
    assert_eq!(kind, Some(FailureKind::Transient));
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "the 15 s of an exchange"
    );
}

#[tokio::test]
async fn a_submission_may_send_more_than_a_poll_and_has_its_end_too() {
    let (port, asked) =
        server("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok".into());
    let url = format!("http://127.0.0.1:{port}");
    let (mut guest, fetch) = asking(&url);
    let full = Guest::full();
    (guest.world, guest.optional) = (full.world, full.optional);
    // As the poll, but with what was submitted as its body.
    let body = "(i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)";
    assert!(fetch.contains(body));
    let sending = fetch.replace(
        body,
        "(i32.const 0) (i32.const 0) (i32.const 1) (local.get $body) (local.get $body_len)",
    );
    let submit = guest.optional.get_mut("control#submit").unwrap();
    *submit = format!("{sending} {submit}");
    let mut spec = allowed(&guest, &url);
    spec.limits.http_request_bytes = 10;
    spec.limits.http_submit_bytes = 1_000;
    let handle = host().open(spec);
    let submit = async |bytes: usize| {
        let submitted = handle.submit("k".into(), "text/plain".into(), vec![b'x'; bytes]);
        submitted.await.map(drop)
    };
    submit(1_000).await.unwrap();
    assert!(asked.recv().unwrap().ends_with(&"x".repeat(1_000)));
    match submit(1_001).await {
        Err(CallError::Failed { message, .. }) => {
            assert_eq!(
                message,
                "too-large: the request has 1001 bytes, 1000 are allowed"
            );
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_file_has_its_size() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.wasm");
    let bytes = Guest::source().component();
    std::fs::write(&path, &bytes).unwrap();
    let mut spec = source(&Guest::source());
    spec.wasm = WasmBytes::File { path, sha256: None };
    spec.limits.file_bytes = bytes.len() as u64 - 1;
    let reason = incompatible(spec.clone()).await;
    assert!(reason.contains("larger than the"), "{reason}");
    spec.limits.file_bytes += 1;
    host().open(spec).ready().await.unwrap();
}
