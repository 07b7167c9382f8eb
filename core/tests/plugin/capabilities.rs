//! Streams, control and logs: what they return, which instance they run on, and what keeps a plugin without them apart.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use weir_core::plugin::{AllowRule, CallError, CrashCause, PluginHandle, PluginState};
use weir_model::logs::Direction;
use weir_model::observation::{FailureKind, JobRef, Observation};
use weir_model::stream::{Endpoint, Frame, Protocol, StreamMessage};

use super::guest::{CONTRACT, Guest, SPIN, failure, store, words};
use super::{host, incompatible, reached, source};

fn job(id: &str) -> JobRef {
    JobRef {
        id: id.into(),
        run: None,
    }
}

fn frames() -> Vec<Frame> {
    vec![
        Frame::Connected,
        Frame::Message(StreamMessage::Text("{}".into())),
        Frame::Message(StreamMessage::Binary(vec![1, 2])),
        Frame::Dropped(7),
    ]
}

async fn refusal(handle: &PluginHandle, call: &str) -> CallError {
    let result = match call {
        "cancel" => handle.cancel(job("a")).await.map(drop),
        "retry" => handle.retry("k".into(), job("a")).await.map(drop),
        "submit" => {
            let submitted = handle.submit("k".into(), "text/plain".into(), b"x".to_vec());
            submitted.await.map(drop)
        }
        "logs" => {
            let read = handle.read_logs(job("a"), Direction::Forward, None);
            read.await.map(drop)
        }
        "endpoints" => handle.endpoints().await.map(drop),
        _ => handle.on_frames("main".into(), frames()).await.map(drop),
    };
    result.expect_err(call)
}

#[tokio::test]
async fn every_function_of_the_optional_interfaces_is_called_and_answers() {
    let handle = host().open(source(&Guest::full()));
    let endpoints = handle.endpoints().await.unwrap();
    assert_eq!(
        endpoints,
        [Endpoint {
            id: "main".into(),
            protocol: Protocol::Websocket,
            url: "ws://127.0.0.1:8188/ws".into(),
            headers: vec![],
            credential: None,
            subprotocols: vec![],
            hello: vec![],
            text_only: true,
        }]
    );
    let reaction = handle.on_frames("main".into(), frames()).await.unwrap();
    assert_eq!(reaction.observations, [Observation::Gone(job("main"))]);
    assert!(reaction.refresh);
    assert_eq!(reaction.send, [StreamMessage::Text("main".into())]);
    handle.cancel(job("j1")).await.unwrap();
    let retried = handle.retry("key-1".into(), job("j1")).await.unwrap();
    assert_eq!(
        (retried.job, retried.body),
        (Some(job("j1")), b"key-1".to_vec())
    );
    let body = vec![b'x'; 3 << 20];
    let submitted = handle.submit("key-2".into(), "application/json".into(), body.clone());
    let submitted = submitted.await.unwrap();
    assert_eq!(submitted.job, Some(job("key-2")));
    assert_eq!(
        (submitted.status, submitted.content_type.as_str()),
        (200, "application/json")
    );
    assert!(submitted.body == body);
    let read = handle.read_logs(job("j1"), Direction::Backward, Some("c1".into()));
    let page = read.await.unwrap();
    assert_eq!(
        (page.lines[0].origin.as_str(), page.lines[0].text.as_str()),
        ("j1", "c1")
    );
    assert_eq!((page.cursor.as_deref(), page.more), (Some("c1"), true));
    let status = handle.status();
    assert_eq!(
        status.capabilities.names(),
        ["jobs", "streams", "control", "logs"]
    );
    assert_eq!((status.counters.calls, status.generation), (6, 1));
}

#[tokio::test]
async fn a_plugin_without_an_interface_says_unsupported_and_is_not_struck() {
    let interfaces = [
        ("streams", ["endpoints", "frames"].as_slice()),
        ("control", &["cancel", "retry", "submit"]),
        ("logs", &["logs"]),
    ];
    for (present, _) in interfaces {
        let mut guest = Guest::full();
        guest.contract =
            format!("{CONTRACT}\nworld only {{ include job-source; export {present}; }}");
        guest.world = "only";
        guest
            .optional
            .retain(|name, _| name.split_once('#').unwrap().0 == present);
        let handle = host().open(source(&guest));
        reached(&handle, "ready").await;
        assert_eq!(handle.status().capabilities.names(), ["jobs", present]);
        for (interface, calls) in interfaces {
            for call in calls.iter().filter(|_| interface != present) {
                match refusal(&handle, call).await {
                    CallError::Failed { message, kind, .. } => {
                        assert_eq!(message, format!("the plugin has no `{interface}`"));
                        assert_eq!(kind, Some(FailureKind::Unsupported));
                    }
                    other => panic!("{call}: {other:?}"),
                }
            }
        }
        assert_eq!(handle.status().strikes, 0);
    }
}

#[tokio::test]
async fn a_function_that_is_missing_or_changed_is_named_in_our_own_words() {
    let with = |from: &str, to: &str, dropped: &str| {
        assert!(CONTRACT.contains(from), "{from}");
        let mut guest = Guest::full();
        guest.contract = CONTRACT.replace(from, to);
        guest.optional.remove(dropped);
        source(&guest)
    };
    let missing = incompatible(with(
        "  cancel: func(job: job-ref) -> result<_, failure>;\n",
        "",
        "control#cancel",
    ));
    assert_eq!(
        missing.await,
        "its `control` has no `cancel`, which weir:plugin@0.1 asks for: \
         `cancel: func(job: job-ref) -> result<_, failure>`. Rebuild it against wit/plugin.wit"
    );
    for (from, to, named) in [
        (
            "more: bool }",
            "more: u32 }",
            "its `logs.read` is not that of weir:plugin@0.1",
        ),
        (
            "refresh: bool,",
            "refresh: u64,",
            "its `streams.on-frames` is not that",
        ),
        (
            "enum protocol { websocket, sse }",
            "enum protocol { websocket, sse, grpc }",
            "its `streams.endpoints` is not that",
        ),
        (
            "job: option<job-ref>, status: u16,",
            "job: option<job-ref>, status: u32,",
            "its `control.retry` is not that",
        ),
    ] {
        let reason = incompatible(with(from, to, "")).await;
        assert!(reason.starts_with(named), "{reason}");
        assert!(reason.contains("which says `"), "{reason}");
    }
}

#[tokio::test]
async fn a_poll_that_waits_delays_no_cancel_and_no_log_page() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let mut guest = Guest::fetching(&url, None);
    let full = Guest::full();
    // The texts of the full guest are not there; what its cancel and read need, they are given.
    guest.world = full.world;
    guest.optional = full.optional;
    let mut spec = source(&guest);
    spec.allow = vec![AllowRule::parse(&url).unwrap()];
    spec.limits.wall_call = Duration::from_secs(20);
    let handle = host().open(spec);
    reached(&handle, "ready").await;
    let polling = tokio::spawn({
        let handle = handle.clone();
        async move { handle.poll(None, vec![]).await }
    });
    let accepted = tokio::task::spawn_blocking(move || silent.accept().unwrap());
    let _connection = accepted.await.unwrap();
    let began = Instant::now();
    handle.cancel(job("j1")).await.unwrap();
    let read = handle.read_logs(job("j1"), Direction::Forward, None);
    assert_eq!(read.await.unwrap().lines.len(), 1);
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    assert!(!polling.is_finished());
    polling.abort();
}

#[tokio::test]
async fn a_crash_aside_is_a_strike_and_leaves_the_sources_own_instance_alone() {
    let mut guest = Guest::full();
    guest
        .optional
        .insert("control#cancel", "(unreachable)".into());
    guest.optional.insert("control#retry", SPIN.into());
    let handle = host().open(source(&guest));
    handle.poll(None, vec![]).await.unwrap();
    let calls = [
        ("cancel", CrashCause::Trap),
        ("retry", CrashCause::CpuLimit),
    ];
    for (strikes, (call, cause)) in (1..).zip(calls) {
        match refusal(&handle, call).await {
            CallError::Crashed { report } => {
                assert_eq!((report.call, report.cause), (call, cause), "{report}");
            }
            other => panic!("{other:?}"),
        }
        // The next call of any kind is told on a fresh Store, and the strike is known by then.
        handle.poll(None, vec![]).await.unwrap();
        let status = handle.status();
        assert_eq!(
            (status.strikes, status.state),
            (strikes, PluginState::Ready)
        );
    }
    for _ in 2..5 {
        refusal(&handle, "cancel").await;
    }
    reached(&handle, "quarantined").await;
    assert!(matches!(
        refusal(&handle, "submit").await,
        CallError::Quarantined { .. }
    ));
}

#[tokio::test]
async fn a_failure_of_a_control_call_keeps_its_kind() {
    let mut guest = Guest::full();
    let message = guest.text("no such job");
    guest.optional.insert("control#cancel", failure(3, message));
    let handle = host().open(source(&guest));
    match refusal(&handle, "cancel").await {
        CallError::Failed { message, kind, .. } => {
            assert_eq!(
                (message.as_str(), kind),
                ("no such job", Some(FailureKind::NotFound))
            );
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(handle.status().strikes, 0);
}

#[tokio::test]
async fn results_of_the_optional_interfaces_are_bounded() {
    // 17 endpoints; a hundred thousand messages to send; a status that is none; 5 001 log lines.
    let endpoints = store(&[(0, 0), (4, 100_000), (8, 17)]);
    let frames = format!(
        "{} {}",
        words(3072, &[(0, 0)]),
        store(&[(0, 0), (4, 0), (8, 0), (12, 0), (16, 100_000), (20, 1_000)])
    );
    let submit = store(&[(0, 0), (4, 0), (28, 99), (32, 0), (36, 0), (40, 0), (44, 0)]);
    let read = format!(
        "(drop (memory.grow (i32.const 4))) {}",
        store(&[(0, 0), (4, 131_072), (8, 5_001), (12, 0), (24, 0)])
    );
    let mut guest = Guest::full();
    guest.optional.extend(BTreeMap::from([
        ("streams#endpoints", endpoints),
        ("streams#on-frames", frames),
        ("control#submit", submit),
        ("logs#read", read),
    ]));
    let handle = host().open(source(&guest));
    for (call, says) in [
        ("endpoints", "17 endpoints, 16 are allowed"),
        ("frames", "1000 messages"),
        ("submit", "the HTTP status 99"),
        ("logs", "5001 log lines at once, 5000 are allowed"),
    ] {
        match refusal(&handle, call).await {
            CallError::Failed { message, .. } => assert!(message.contains(says), "{message}"),
            other => panic!("{call}: {other:?}"),
        }
    }
    assert_eq!(handle.status().strikes, 0);
}

#[tokio::test]
async fn a_call_aside_finishes_before_its_plugin_is_closed() {
    let mut guest = Guest::full();
    // Some tens of milliseconds of work.
    let slow = "(local $n i32)
        (loop $again
          (local.set $n (i32.add (local.get $n) (i32.const 1)))
          (br_if $again (i32.lt_u (local.get $n) (i32.const 50000000))))";
    guest
        .optional
        .insert("control#cancel", format!("{slow} {}", store(&[(0, 0)])));
    let mut spec = source(&guest);
    spec.limits.cpu_call = Duration::from_secs(20);
    let handle = host().open(spec);
    reached(&handle, "ready").await;
    let cancelling = tokio::spawn({
        let handle = handle.clone();
        async move { handle.cancel(job("a")).await }
    });
    let mut status = handle.subscribe();
    let started = status.wait_for(|status| status.counters.calls == 1);
    started.await.unwrap();
    handle.close().await;
    cancelling.await.unwrap().unwrap();
    assert!(matches!(
        refusal(&handle, "cancel").await,
        CallError::Closed
    ));
}
