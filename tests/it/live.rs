//! Streams of a source: a real guest, a real websocket server, the real monitor.

mod far;
mod vanished;

use crate::corridor::{all, until};
use crate::recordings::settings;
use far::Far;
use futures::{SinkExt, StreamExt};
use serde_json::Value;
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::tungstenite::Message;
use weir::client::Client;
use weir::daemon::{Server, serve};
use weir_core::model::config::OriginPattern;
use weir_core::model::status::Status;
use weir_core::monitor::{BundledPlugin, SourceView};
use weir_core::stream::StreamState;
use weir_core::{Config, Monitor, MonitorHandle};

/// The fixture of `plugins/fixtures/live`, built by `make plugins`.
fn fixture() -> BundledPlugin {
    let path = "plugins/target/wasm32-unknown-unknown/release/fixture_live.wasm";
    let module = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(path))
        .expect("`make plugins` builds the fixture");
    let mut encoder = wit_component::ComponentEncoder::default();
    encoder.module(&module).unwrap();
    BundledPlugin {
        name: "comfyui",
        bytes: encoder.encode().unwrap().leak(),
    }
}

/// A source that is polled once an hour, unless its stream asks for more.
fn configured(far: &Far, stream: &str, more: &str) -> Config {
    let mut config = Config::temporary().unwrap();
    let address = far.address;
    config.settings = settings(&format!(
        r#"(sources: [(name: "studio", plugin: "comfyui", poll_interval: "1h",
            config: {{ "url": "http://{address}", "stream": "{stream}", {more} }})],
            http: (listen: "127.0.0.1:0"))"#
    ));
    config.bundled = vec![fixture()];
    config.streams.backoff_base = Duration::from_millis(50);
    config
}

fn websocket(far: &Far, more: &str) -> Config {
    configured(far, &format!("ws://{}/ws", far.address), more)
}

fn view(monitor: &MonitorHandle) -> SourceView {
    monitor.sources().remove(0)
}

fn state(monitor: &MonitorHandle) -> Option<StreamState> {
    view(monitor).stream.map(|stream| stream.state)
}

fn error(monitor: &MonitorHandle) -> String {
    let stream = view(monitor).stream;
    stream
        .and_then(|stream| stream.last_error)
        .unwrap_or_default()
}

/// Connected, and the poll that follows from it is over.
async fn settled(monitor: &MonitorHandle, far: &Far) {
    until(monitor, "a first round and a stream", |m| {
        view(m).health.last_ok_at.is_some() && state(m) == Some(StreamState::Connected)
    })
    .await;
    let mut polls = 0;
    while polls < far.polls() {
        polls = far.polls();
        tokio::time::sleep(Duration::from_millis(600)).await;
    }
}

fn status_of(monitor: &MonitorHandle, id: &str) -> Option<Status> {
    let executions = all(monitor);
    let found = executions.iter().find(|e| e.record.key.external_id == id);
    found.map(|execution| execution.record.status)
}

fn percent_of(monitor: &MonitorHandle, id: &str) -> Option<f64> {
    let executions = all(monitor);
    let found = executions.iter().find(|e| e.record.key.external_id == id)?;
    monitor.board().get(found.record.seq)?.percent
}

async fn daemon(config: Config) -> (Server, Client) {
    let http = config.settings.http.clone();
    let monitor = Monitor::start(config).await.unwrap();
    let server = serve(monitor, &http).await.unwrap();
    let url = format!("http://{}", server.address()).parse().unwrap();
    (server, Client::new(url).unwrap())
}

async fn first(client: &Client, path: &str) -> Value {
    client.raw(path, &[]).await.unwrap()["items"][0].take()
}

#[tokio::test]
async fn frames_become_progress_and_jobs_before_any_poll_sees_them() {
    let mut far = Far::start().await;
    far.jobs("a running s1 s2");
    let (server, client) = daemon(websocket(&far, r#""hello": ["one", "two"]"#)).await;
    let monitor = server.monitor().clone();
    let mut held = far.held().await;
    assert_eq!([held.hear().await, held.hear().await], ["one", "two"]);
    assert!(held.headers.contains(&("x-fixture".into(), "yes".into())));
    settled(&monitor, &far).await;
    let untold = first(&client, "api/executions").await;
    assert_eq!(
        (&untold["progress"], &untold["estimated"]),
        (&Value::Null, &true.into())
    );
    let polls = far.polls();
    // The stream knows no runs: it is the one that runs.
    held.say("progress a s1 5 10\nprogress a s1 4 10\nprogress nobody - 1 2\nprogress a s2 1 2")
        .await;
    until(&monitor, "progress", |m| percent_of(m, "a") == Some(45.0)).await;
    let told = first(&client, "api/executions").await;
    assert_eq!(
        (&told["progress"], &told["estimated"]),
        (&45.0.into(), &false.into())
    );
    held.say("job b queued\njob a completed").await;
    until(&monitor, "jobs", |m| {
        status_of(m, "b") == Some(Status::Queued)
    })
    .await;
    until(&monitor, "its end", |m| {
        status_of(m, "a") == Some(Status::Completed)
    })
    .await;
    assert_eq!(all(&monitor).len(), 2);
    assert_eq!(far.polls(), polls);
    let source = first(&client, "api/sources").await;
    assert_eq!(source["rung"], "poll+stream");
    let stream = &source["stream"];
    assert_eq!(
        (&stream["state"], &stream["frames"]),
        (&"connected".into(), &2.into())
    );
    assert_eq!(
        (&stream["dropped"], &stream["reconnects"]),
        (&0.into(), &0.into())
    );
    assert!(stream["since"].is_string());
    let metrics = monitor.exposition();
    for line in [
        "weir_stream_connected{source=\"studio\"} 1",
        "weir_stream_frames_total{source=\"studio\"} 2",
    ] {
        assert!(metrics.contains(line), "{line}");
    }
    server.stop().await.unwrap();
}

#[tokio::test]
async fn progress_on_a_stream_reaches_who_follows_events_without_an_id() {
    let mut far = Far::start().await;
    far.jobs("a running s1");
    let (server, client) = daemon(websocket(&far, "")).await;
    let mut held = far.held().await;
    settled(server.monitor(), &far).await;
    let mut events = client.events(None, None, true).await.unwrap();
    held.say("progress a s1 3 4").await;
    loop {
        let message = events.next().await.unwrap().unwrap();
        if message.kind == "progress" {
            assert_eq!(
                (&message.id, &message.data["progress"]),
                (&None, &75.0.into())
            );
            break;
        }
    }
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_refresh_polls_soon_and_a_thousand_of_them_not_more_often_than_four_times_a_second() {
    let mut far = Far::start().await;
    let monitor = Monitor::start(websocket(&far, "")).await.unwrap();
    let mut held = far.held().await;
    settled(&monitor, &far).await;
    let (before, begun) = (far.polls(), Instant::now());
    far.jobs("a running");
    held.say("refresh").await;
    until(&monitor, "what changed", |m| status_of(m, "a").is_some()).await;
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    for _ in 0..1000 {
        held.say("refresh").await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let allowed = begun.elapsed().as_millis() as u64 / 250 + 1;
    let polled = far.polls() - before;
    assert!(
        (2..=allowed).contains(&polled),
        "{polled} polls, {allowed} allowed"
    );
    monitor.shutdown().await;
}

#[tokio::test]
async fn a_job_that_a_stream_calls_gone_is_lost_with_the_next_round() {
    let mut far = Far::start().await;
    far.jobs("a running\nb running");
    let monitor = Monitor::start(websocket(&far, "")).await.unwrap();
    let mut held = far.held().await;
    settled(&monitor, &far).await;
    far.jobs("b running");
    held.say("gone a").await;
    until(&monitor, "lost", |m| {
        status_of(m, "a") == Some(Status::Lost)
    })
    .await;
    assert_eq!(status_of(&monitor, "b"), Some(Status::Running));
    monitor.shutdown().await;
}

#[tokio::test]
async fn the_socket_is_read_while_the_guest_sleeps_and_what_is_too_much_is_dropped_and_polled_for()
{
    let mut far = Far::start().await;
    let monitor = Monitor::start(websocket(&far, r#""report": true"#))
        .await
        .unwrap();
    let mut held = far.held().await;
    held.reports(|sum| sum[0] == 1).await;
    settled(&monitor, &far).await;
    let polls = far.polls();
    held.say("sleep").await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    // 64 MB in 4000 frames: neither the buffers of the kernel nor the queue hold them.
    let frame = Message::Binary(vec![7; 16_000].into());
    for _ in 0..4000 {
        held.socket.send(frame.clone()).await.unwrap();
    }
    let sum = held.reports(|sum| sum[1] + sum[3] >= 4001).await;
    assert_eq!(sum[1] + sum[3], 4001);
    let stream = view(&monitor).stream.unwrap();
    assert_eq!((stream.frames, stream.dropped), (4001, sum[3]));
    assert!(sum[3] == 0 || far.polls() > polls);
    assert_eq!(state(&monitor), Some(StreamState::Connected));
    monitor.shutdown().await;
}

#[tokio::test]
async fn the_socket_is_read_while_no_guest_takes_anything_at_all() {
    let mut far = Far::start().await;
    let mut config = websocket(&far, "");
    config.streams.pause = Duration::from_secs(3600);
    let monitor = Monitor::start(config).await.unwrap();
    let mut held = far.held().await;
    settled(&monitor, &far).await;
    held.say("trap").await;
    until(&monitor, "paused", |m| {
        state(m) == Some(StreamState::Paused)
    })
    .await;
    let polls = far.polls();
    // 64 MB: a reader that stalls would stop this here.
    let frame = Message::Binary(vec![7; 16_000].into());
    for _ in 0..4000 {
        held.socket.send(frame.clone()).await.unwrap();
    }
    until(&monitor, "all read", |m| {
        view(m).stream.unwrap().frames == 4001
    })
    .await;
    assert_eq!(view(&monitor).stream.unwrap().dropped, 4001 - 1023);
    until(&monitor, "a poll for what was dropped", |_| {
        far.polls() > polls
    })
    .await;
    assert_eq!(view(&monitor).health.stale_since, None);
    monitor.shutdown().await;
}

#[tokio::test]
async fn binary_frames_are_not_told_where_only_text_is_wanted() {
    let mut far = Far::start().await;
    let more = r#""report": true, "text_only": true"#;
    let monitor = Monitor::start(websocket(&far, more)).await.unwrap();
    let mut held = far.held().await;
    for _ in 0..50 {
        held.socket
            .send(Message::Binary(vec![1; 100_000].into()))
            .await
            .unwrap();
    }
    held.say("hello").await;
    let sum = held.reports(|sum| sum[1] > 0).await;
    assert_eq!(sum, [1, 1, 5, 0]);
    let stream = view(&monitor).stream.unwrap();
    assert_eq!((stream.frames, stream.dropped), (51, 0));
    monitor.shutdown().await;
}

/// The most memory that this process ever had, in bytes.
fn memory_peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM"))
        .unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

#[tokio::test]
async fn a_frame_of_100_mb_ends_the_connection_with_its_reason_and_is_never_held() {
    let mut far = Far::start().await;
    let monitor = Monitor::start(websocket(&far, "")).await.unwrap();
    let mut held = far.held().await;
    settled(&monitor, &far).await;
    let before = memory_peak();
    let stream = held.socket.get_mut();
    let mut head = vec![0x82, 127];
    head.extend(100_000_000_u64.to_be_bytes());
    stream.write_all(&head).await.unwrap();
    let chunk = vec![0; 64 << 10];
    let mut written = 0;
    while written < 100_000_000 && stream.write_all(&chunk).await.is_ok() {
        written += chunk.len();
    }
    drop(far.held().await);
    let told = error(&monitor);
    assert!(
        told.contains("a frame of 100000000 bytes came, 8 MiB are allowed"),
        "{told}"
    );
    // One of many pieces that together are too large.
    let mut held = far.held().await;
    let stream = held.socket.get_mut();
    let mut piece = vec![0x01, 127];
    piece.extend((1_u64 << 20).to_be_bytes());
    piece.resize(piece.len() + (1 << 20), b'x');
    for _ in 0..100 {
        if stream.write_all(&piece).await.is_err() {
            break;
        }
        piece[0] = 0;
    }
    far.held().await;
    assert!(
        error(&monitor).contains("8 MiB are allowed"),
        "{}",
        error(&monitor)
    );
    let grown = memory_peak().saturating_sub(before) >> 20;
    assert!(grown < 48, "{grown} MiB");
    assert_eq!(view(&monitor).health.stale_since, None);
    monitor.shutdown().await;
}

#[tokio::test]
async fn a_half_open_connection_is_given_up_and_a_quiet_one_is_not() {
    let mut far = Far::start().await;
    let mut config = websocket(&far, "");
    config.streams.silence = Duration::from_millis(300);
    let monitor = Monitor::start(config).await.unwrap();
    // Taken and never read: no ping is answered.
    let dead = far.held().await;
    let mut quiet = far.held().await;
    let polls = far.polls();
    assert!(
        error(&monitor).contains("not even an answer to a ping"),
        "{}",
        error(&monitor)
    );
    until(&monitor, "a poll after the reconnect", |_| {
        far.polls() > polls
    })
    .await;
    // Reading answers pings; the connection outlives three silences.
    let connects = far.connects();
    let reading = async { while quiet.socket.next().await.is_some() {} };
    let _ = tokio::time::timeout(Duration::from_secs(2), reading).await;
    assert_eq!(far.connects(), connects);
    assert_eq!(view(&monitor).stream.unwrap().reconnects, connects - 1);
    drop(dead);
    monitor.shutdown().await;
}

#[tokio::test]
async fn pings_of_the_far_side_are_answered() {
    let mut far = Far::start().await;
    let monitor = Monitor::start(websocket(&far, "")).await.unwrap();
    let mut held = far.held().await;
    held.socket
        .send(Message::Ping("here?".into()))
        .await
        .unwrap();
    assert_eq!(
        held.socket.next().await.unwrap().unwrap(),
        Message::Pong("here?".into())
    );
    monitor.shutdown().await;
}

#[tokio::test]
async fn a_far_side_that_hangs_up_at_once_is_not_stormed_and_its_source_stays_well() {
    let mut far = Far::start().await;
    let mut config = websocket(&far, "");
    config.streams.backoff_base = Duration::from_millis(100);
    config.streams.backoff_max = Duration::from_secs(2);
    let monitor = Monitor::start(config).await.unwrap();
    let begun = Instant::now();
    let mut hung_up = 0;
    while begun.elapsed() < Duration::from_secs(5) {
        if let Ok(held) = tokio::time::timeout(Duration::from_millis(100), far.held()).await {
            drop(held);
            hung_up += 1;
        }
    }
    // 0.1 + 0.2 + … up to 2 s, half of it on average; without backoff there would be hundreds.
    assert!((3..=25).contains(&hung_up), "{hung_up}");
    assert!(far.polls() <= hung_up + 2, "{} polls", far.polls());
    let health = view(&monitor).health;
    assert_eq!((health.stale_since, health.consecutive_failures), (None, 0));
    monitor.shutdown().await;
}

#[tokio::test]
async fn a_refused_stream_is_shown_and_polling_goes_on() {
    let far = Far::start().await;
    far.refuse(503);
    far.jobs("a running");
    let (server, client) = daemon(websocket(&far, "")).await;
    until(server.monitor(), "waiting", |m| {
        state(m) == Some(StreamState::Waiting)
    })
    .await;
    until(server.monitor(), "polled", |m| {
        view(m).health.last_ok_at.is_some()
    })
    .await;
    let source = first(&client, "api/sources").await;
    assert_eq!(
        (&source["status"], &source["rung"]),
        (&"ok".into(), &"poll".into())
    );
    let told = source["stream"]["last_error"].as_str().unwrap();
    assert!(
        told.contains("answered 503 Service Unavailable instead of a websocket"),
        "{told}"
    );
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_stream_to_a_host_that_is_not_allowed_is_never_connected() {
    let far = Far::start().await;
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    other.set_nonblocking(true).unwrap();
    let url = format!("ws://{}/ws", other.local_addr().unwrap());
    let mut config = configured(&far, &url, "");
    // `config` would allow it by itself: the operator wrote that URL.
    config.settings.sources[0].entry.allow = Some(vec![
        OriginPattern::parse(&format!("http://{}", far.address)).unwrap(),
    ]);
    let monitor = Monitor::start(config).await.unwrap();
    until(&monitor, "refused", |m| {
        state(m) == Some(StreamState::Refused)
    })
    .await;
    assert!(
        error(&monitor).starts_with("denied: "),
        "{}",
        error(&monitor)
    );
    assert!(other.accept().is_err(), "it was connected to");
    until(&monitor, "polled", |m| view(m).health.last_ok_at.is_some()).await;
    monitor.shutdown().await;
}

#[tokio::test]
async fn a_guest_that_crashes_over_frames_is_left_alone_and_its_polls_go_on() {
    let mut far = Far::start().await;
    let mut config = websocket(&far, "");
    config.streams.pause = Duration::from_secs(3);
    let monitor = Monitor::start(config).await.unwrap();
    let mut held = far.held().await;
    settled(&monitor, &far).await;
    held.say("trap").await;
    until(&monitor, "paused", |m| {
        state(m) == Some(StreamState::Paused)
    })
    .await;
    assert!(error(&monitor).contains("crashed"), "{}", error(&monitor));
    for _ in 0..20 {
        held.say("trap").await;
    }
    until(&monitor, "connected", |m| {
        state(m) == Some(StreamState::Connected)
    })
    .await;
    let plugin = view(&monitor).plugin.unwrap();
    assert_eq!((plugin.strikes, plugin.counters.crashes), (1, 1));
    assert_eq!(view(&monitor).stream.unwrap().dropped, 21);
    far.jobs("a running");
    held.say("refresh").await;
    until(&monitor, "a poll", |m| status_of(m, "a").is_some()).await;
    monitor.shutdown().await;
}

#[tokio::test]
async fn a_reaction_sends_no_more_than_sixteen_messages_of_64_kib() {
    let mut far = Far::start().await;
    let monitor = Monitor::start(websocket(&far, "")).await.unwrap();
    let mut held = far.held().await;
    held.say("flood 40 10").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    held.say("flood 2 70000").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    held.say("send end").await;
    let mut heard = 0;
    while held.hear().await != "end" {
        heard += 1;
    }
    assert_eq!(heard, 16);
    monitor.shutdown().await;
}

#[tokio::test]
async fn server_sent_events_are_frames_too_and_go_on_where_they_ended() {
    let mut far = Far::start().await;
    far.jobs("a running s1");
    let url = format!("http://{}/events", far.address);
    let monitor = Monitor::start(configured(&far, &url, r#""sse": true"#))
        .await
        .unwrap();
    let mut events = far.events().await;
    assert!(
        events.asked.contains("accept: text/event-stream"),
        "{}",
        events.asked
    );
    settled(&monitor, &far).await;
    let text = ": hello\n\nevent: step\nid: 7\ndata: progress a s1 1 2\n\n";
    events.stream.write_all(text.as_bytes()).await.unwrap();
    until(&monitor, "progress", |m| percent_of(m, "a") == Some(50.0)).await;
    drop(events);
    let mut events = far.events().await;
    assert!(
        events.asked.contains("last-event-id: 7"),
        "{}",
        events.asked
    );
    settled(&monitor, &far).await;
    let before = memory_peak();
    let endless = vec![b'x'; 1 << 20];
    events.stream.write_all(b"data: ").await.unwrap();
    for _ in 0..100 {
        if events.stream.write_all(&endless).await.is_err() {
            break;
        }
    }
    far.events().await;
    assert!(
        error(&monitor).contains("an event of more than 8 MiB came"),
        "{}",
        error(&monitor)
    );
    let grown = memory_peak().saturating_sub(before) >> 20;
    assert!(grown < 64, "{grown} MiB");
    monitor.shutdown().await;
}

#[tokio::test]
async fn an_answer_that_is_no_event_stream_is_said() {
    let far = Far::start().await;
    let url = format!("http://{}/jobs", far.address);
    let monitor = Monitor::start(configured(&far, &url, r#""sse": true"#))
        .await
        .unwrap();
    until(&monitor, "waiting", |m| {
        state(m) == Some(StreamState::Waiting)
    })
    .await;
    assert!(
        error(&monitor).contains("instead of an event stream"),
        "{}",
        error(&monitor)
    );
    monitor.shutdown().await;
}

#[tokio::test]
async fn the_log_of_an_execution_is_read_page_by_page_in_both_directions() {
    let far = Far::start().await;
    far.jobs("a running");
    let (server, client) = daemon(websocket(&far, r#""log_lines": 25"#)).await;
    until(server.monitor(), "a job", |m| status_of(m, "a").is_some()).await;
    let execution = first(&client, "api/executions").await;
    let path = format!("api/executions/{}/logs", execution["id"].as_str().unwrap());
    let read = async |direction: &str, limit: u32| {
        let (mut lines, mut cursor) = (Vec::new(), None);
        loop {
            let mut query = vec![
                ("direction", direction.to_owned()),
                ("limit", limit.to_string()),
            ];
            query.extend(cursor.take().map(|cursor| ("cursor", cursor)));
            let page = client.raw(&path, &query).await.unwrap();
            let items = page["items"].as_array().unwrap();
            assert!(items.len() <= limit as usize);
            lines.push(
                items
                    .iter()
                    .map(|i| i["text"].as_str().unwrap().to_owned())
                    .collect::<Vec<_>>(),
            );
            cursor = page["next_cursor"].as_str().map(str::to_owned);
            if page["more"] != true {
                return lines;
            }
        }
    };
    let whole: Vec<String> = (0..25).map(|n| format!("a line {n} \u{1b}[31m")).collect();
    for limit in [1, 7, 1000] {
        assert_eq!(read("forward", limit).await.concat(), whole);
        let mut backward = read("backward", limit).await;
        backward.reverse();
        assert_eq!(backward.concat(), whole);
    }
    for (query, status) in [("cursor", "x"), ("limit", "0"), ("direction", "up")].map(|q| (q, 400))
    {
        let refused = client
            .raw(&path, &[(query.0, query.1.to_owned())])
            .await
            .unwrap_err();
        assert!(
            matches!(refused, weir::client::ClientError::Refused { status: s, .. } if s == status)
        );
    }
    server.stop().await.unwrap();
}
