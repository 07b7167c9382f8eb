//! A guest of each language that misbehaves: what its author reads, and that the next call finds a fresh instance.

use super::server::Server;
use super::{guest, host, ready, spec};
use serde_json::json;
use std::net::TcpListener;
use std::time::{Duration, Instant};
use weir_core::plugin::{
    CallError, CrashCause, CrashReport, PluginHandle, PluginSpec, Role, WasmBytes,
};

/// Opened to do `what`; none where the guest is not built.
fn unruly(language: &str, what: &str, url: &str) -> Option<PluginSpec> {
    let file = guest(&format!("{language}-unruly"))?;
    let mut spec = spec(file, Role::Source, json!({ "do": what, "url": url }));
    spec.limits.wall_call = Duration::from_secs(20);
    Some(spec)
}

async fn crash(handle: &PluginHandle) -> CrashReport {
    ready(handle).await;
    match handle.poll(None, vec![]).await {
        Err(CallError::Crashed { report }) => (*report).clone(),
        other => panic!("no crash but {other:?}"),
    }
}

/// The next call is answered by the same entry: out of a fresh Store it does the same again.
async fn crashes_again(handle: &PluginHandle, cause: CrashCause) {
    let again = crash(handle).await;
    assert_eq!(again.cause, cause, "{again:?}");
    assert_eq!(handle.status().counters.crashes, 2);
}

async fn survives(language: &str) {
    let nowhere = "http://127.0.0.1:9";
    let host = host();

    let Some(spec) = unruly(language, "fine", nowhere) else {
        return;
    };
    let handle = host.open(spec);
    ready(&handle).await;
    assert!(handle.poll(None, vec![]).await.is_ok());

    let trap = host.open(unruly(language, "trap", nowhere).unwrap());
    let report = crash(&trap).await;
    assert_eq!((report.cause, report.call), (CrashCause::Trap, "poll"));
    assert!(
        report.stderr.contains("the cause in the crash report"),
        "{language}: the author learns nothing of {report:?}"
    );
    crashes_again(&trap, CrashCause::Trap).await;

    let raise = host.open(unruly(language, "raise", nowhere).unwrap());
    ready(&raise).await;
    match raise.poll(None, vec![]).await {
        Err(CallError::Failed { message, .. }) => {
            assert!(message.contains("the cause in the failure"), "{message}");
        }
        other => panic!("{language}: no failure but {other:?}"),
    }
    assert_eq!(raise.status().strikes, 0);

    let spin = host.open(unruly(language, "spin", nowhere).unwrap());
    ready(&spin).await;
    let began = Instant::now();
    crashes_again_after(&spin, CrashCause::CpuLimit).await;
    assert!(began.elapsed() < Duration::from_secs(30), "{language}");

    let bomb = host.open(unruly(language, "bomb", nowhere).unwrap());
    let report = crash(&bomb).await;
    assert!(
        matches!(report.cause, CrashCause::MemoryLimit | CrashCause::CpuLimit),
        "{language}: {report:?}"
    );
    let used = bomb.status().counters.memory_high_water;
    assert!(used <= 64 << 20, "{language}: {used} bytes");

    // Nobody answers there, and the connection stands.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let mut slow = unruly(language, "slow", &url).unwrap();
    slow.limits.wall_call = Duration::from_millis(700);
    slow.limits.cpu_call = Duration::from_millis(400);
    let slow = host.open(slow);
    ready(&slow).await;
    match slow.poll(None, vec![]).await {
        Err(CallError::Failed { message, .. }) => assert!(message.contains("timeout"), "{message}"),
        // Python and JavaScript without their helper make a trap of a failure.
        Err(CallError::Crashed { report }) if matches!(language, "python" | "js") => {
            assert_eq!(report.cause, CrashCause::Trap, "{report:?}");
        }
        other => panic!("{language}: {other:?}"),
    }

    // And one who answers with nonsense: the guest fetched, the host made a failure of it.
    let server = Server::start(|_| (503, "later".into()));
    let failing = host.open(unruly(language, "slow", &server.origin).unwrap());
    ready(&failing).await;
    match failing.poll(None, vec![]).await {
        Err(CallError::Failed { message, .. }) => assert!(message.contains("503"), "{message}"),
        // Python and JavaScript without their helper make a trap of it.
        Err(CallError::Crashed { .. }) if matches!(language, "python" | "js") => {}
        other => panic!("{language}: {other:?}"),
    }
}

/// What a guest can do wrong without being stopped: it costs an observation, a page or its words.
async fn goes_too_far(language: &str) {
    let nowhere = "http://127.0.0.1:9";
    let host = host();
    let Some(spec) = unruly(language, "huge", nowhere) else {
        return;
    };
    let huge = host.open(spec);
    ready(&huge).await;
    match huge.poll(None, vec![]).await {
        Err(CallError::Failed { message, .. }) => {
            assert!(message.contains("5001 observations"), "{message}");
        }
        other => panic!("{language}: no failure but {other:?}"),
    }

    let detail = host.open(unruly(language, "detail", nowhere).unwrap());
    ready(&detail).await;
    let page = detail.poll(None, vec![]).await.unwrap();
    assert_eq!(page.observations.len(), 1, "{language}");
    assert_eq!(detail.status().counters.observations_dropped, 1);

    let mut spec = unruly(language, "talk", nowhere).unwrap();
    // A million calls into the host, on a machine that does much else.
    spec.limits.cpu_call = Duration::from_secs(600);
    spec.limits.wall_call = Duration::from_secs(1200);
    let talk = host.open(spec);
    ready(&talk).await;
    talk.poll(None, vec![]).await.unwrap();
    // A slow machine gets into the next minute.
    let dropped = talk.status().counters.log_lines_dropped;
    assert!(
        (990_000..=999_800).contains(&dropped),
        "{language}: {dropped}"
    );
    assert_eq!(talk.status().strikes, 0);

    let mut spec = unruly(language, "hang", nowhere).unwrap();
    spec.limits.cpu_open = Duration::from_millis(300);
    let report = gives_up(&host.open(spec)).await;
    assert_eq!(
        (report.call, report.cause),
        ("open", CrashCause::CpuLimit),
        "{report}"
    );

    let mut spec = unruly(language, "fine", nowhere).unwrap();
    let mute = guest(&format!("{language}-mute")).unwrap();
    spec.wasm = WasmBytes::File {
        path: mute,
        sha256: None,
    };
    let report = gives_up(&host.open(spec)).await;
    assert_eq!(
        (report.call, report.cause),
        ("describe", CrashCause::Trap),
        "{report}"
    );
    assert!(
        report.stderr.contains("the cause in the crash report"),
        "{report}"
    );
}

/// It never gets ready, and is left alone after five strikes.
async fn gives_up(handle: &PluginHandle) -> CrashReport {
    let mut status = handle.subscribe();
    let waiting = status.wait_for(|status| status.state.name() == "quarantined");
    let found = tokio::time::timeout(Duration::from_secs(300), waiting).await;
    assert!(found.is_ok(), "not quarantined but {:?}", handle.status());
    assert_eq!(handle.status().strikes, 5);
    (*handle.status().last_crash.unwrap()).clone()
}

async fn crashes_again_after(handle: &PluginHandle, cause: CrashCause) {
    let report = crash(handle).await;
    assert_eq!(report.cause, cause, "{report:?}");
    crashes_again(handle, cause).await;
}

#[tokio::test]
async fn a_guest_in_rust_misbehaves_and_nothing_else_does() {
    survives("rust").await;
}

#[tokio::test]
async fn a_guest_in_python_misbehaves_and_nothing_else_does() {
    survives("python").await;
}

#[tokio::test]
async fn a_guest_in_javascript_misbehaves_and_nothing_else_does() {
    survives("js").await;
}

#[tokio::test]
async fn a_guest_in_c_misbehaves_and_nothing_else_does() {
    survives("c").await;
}

#[tokio::test]
async fn a_guest_in_python_goes_too_far_and_is_cut_short() {
    goes_too_far("python").await;
}

#[tokio::test]
async fn a_guest_in_javascript_goes_too_far_and_is_cut_short() {
    goes_too_far("js").await;
}
