//! The replay server against the recordings: it answers what the recorded server answered.

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use weir::replay::{DemoWorld, Fault, Recording, ReplayOptions, ReplayServer};

const EMPTY_QUEUE: &str = r#"{"queue_running": [], "queue_pending": []}"#;

fn recordings() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/recordings")
}

fn load(name: &str) -> Recording {
    Recording::load(recordings().join(format!("{name}.jsonl"))).unwrap()
}

async fn manual(name: &str) -> ReplayServer {
    let options = ReplayOptions {
        manual: true,
        ..ReplayOptions::default()
    };
    ReplayServer::start(load(name), options).await.unwrap()
}

/// Status and body, or the error of a connection that was closed too early.
async fn try_get(server: &ReplayServer, path: &str) -> std::io::Result<(u16, String)> {
    let url = server.url();
    let host = url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(host).await?;
    stream
        .write_all(
            format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes(),
        )
        .await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let cut_short = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(cut_short)?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .ok_or_else(cut_short)?;
    let len = head
        .to_lowercase()
        .lines()
        .find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    if len.is_some_and(|len| len > body.len()) {
        return Err(cut_short());
    }
    Ok((status, body.to_owned()))
}

async fn get(server: &ReplayServer, path: &str) -> (u16, String) {
    try_get(server, path).await.unwrap()
}

async fn get_json(server: &ReplayServer, path: &str) -> Value {
    let (status, body) = get(server, path).await;
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).unwrap()
}

#[tokio::test]
async fn every_recording_answers_its_own_polls() {
    for version in ["v0.33.0", "v0.3.64", "v0.3.40"] {
        for entry in std::fs::read_dir(recordings().join(version)).unwrap() {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            let recording = Recording::parse(&text).unwrap();
            let options = ReplayOptions {
                manual: true,
                ..ReplayOptions::default()
            };
            let server = ReplayServer::start(recording, options).await.unwrap();
            check_polls(&server, &text, &path).await;
            server.stop().await;
        }
    }
}

/// The bodies of the polls, looked up in the file without the help of the code under test.
async fn check_polls(server: &ReplayServer, text: &str, path: &Path) {
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let polls: Vec<&Value> = lines.iter().filter(|line| line["who"] == "poll").collect();
    let polls_history = polls.iter().any(|line| line["path"] == "/history");
    for (index, poll) in polls.iter().enumerate().filter(|_| polls_history) {
        let round_ends = polls
            .get(index + 1)
            .is_none_or(|next| next["path"] == "/queue");
        // Answers repeat for seconds; where something changes is what is worth asking about.
        if !round_ends || poll["same_as"].is_u64() && index % 30 != 0 {
            continue;
        }
        let first = polls[..=index]
            .iter()
            .rposition(|line| line["path"] == "/queue")
            .unwrap();
        server.set_position(Duration::from_secs_f64(poll["t"].as_f64().unwrap()));
        for line in &polls[first..=index] {
            let asked = line["path"].as_str().unwrap();
            let down = polls[first..=index]
                .iter()
                .any(|line| line["error"].is_string());
            if down {
                assert!(
                    try_get(server, asked).await.is_err(),
                    "{path:?} {line} is down"
                );
                continue;
            }
            let body = match line["same_as"].as_u64() {
                Some(seq) => &lines[usize::try_from(seq).unwrap() - 1]["body"],
                None => &line["body"],
            };
            let (status, answer) = get(server, asked).await;
            assert_eq!(
                status,
                line["status"].as_u64().unwrap() as u16,
                "{path:?} {asked}"
            );
            if asked != "/api/jobs" || status == 200 {
                assert_eq!(answer, body.as_str().unwrap(), "{path:?} at {}", line["t"]);
            }
        }
    }
}

#[tokio::test]
async fn before_the_first_poll_the_server_is_empty() {
    let server = manual("v0.33.0/simple_success").await;
    assert_eq!(get(&server, "/queue").await.1, EMPTY_QUEUE);
    assert_eq!(get(&server, "/history").await.1, "{}");
    assert_eq!(
        get_json(&server, "/api/jobs").await["jobs"],
        Value::Array(vec![])
    );
    assert!(!server.finished());
    server.set_position(server.recording().duration());
    assert!(server.finished());
    server.stop().await;
}

#[tokio::test]
async fn job_lists_are_filtered_sorted_and_paged_like_the_recorded_ones() {
    let text = std::fs::read_to_string(recordings().join("v0.33.0/jobs_api.jsonl")).unwrap();
    let server = manual("v0.33.0/jobs_api").await;
    let mut asked = 0;
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let path = line["path"].as_str().unwrap_or_default();
        if line["who"] != "client" || line["method"] != "GET" || !path.starts_with("/api/jobs") {
            continue;
        }
        // Half a second later the next poll has replaced what the client was told, and nothing has changed.
        for later in [
            0.0,
            if line["t"].as_f64().unwrap() > 3.0 {
                0.5
            } else {
                0.1
            },
        ] {
            server.set_position(Duration::from_secs_f64(line["t"].as_f64().unwrap() + later));
            let (status, body) = get(&server, path).await;
            assert_eq!(
                u64::from(status),
                line["status"].as_u64().unwrap(),
                "{path}"
            );
            assert_eq!(
                body,
                line["body"].as_str().unwrap(),
                "{path} {later} s later"
            );
            asked += 1;
        }
    }
    assert_eq!(asked, 38);
    server.stop().await;
}

#[tokio::test]
async fn bad_queries_get_the_recorded_refusals() {
    for version in ["v0.33.0", "v0.3.64", "v0.3.40"] {
        let text =
            std::fs::read_to_string(recordings().join(version).join("idle_and_endpoints.jsonl"))
                .unwrap();
        let server = manual(&format!("{version}/idle_and_endpoints")).await;
        for line in text.lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            let path = line["path"].as_str().unwrap_or_default();
            // The free memory differs from answer to answer.
            let varies = path.ends_with("system_stats") || line["body_omitted"] == true;
            if line["method"] != "GET" || varies {
                continue;
            }
            let (status, body) = get(&server, path).await;
            assert_eq!(
                u64::from(status),
                line["status"].as_u64().unwrap(),
                "{version} {path}"
            );
            if let (Some(recorded), 200 | 400) = (line["body"].as_str(), status) {
                assert_eq!(body, recorded, "{version} {path}");
            }
        }
        server.stop().await;
    }
}

#[tokio::test]
async fn history_is_paged_from_the_newest_and_from_an_offset() {
    let server = manual("v0.33.0/cached_rerun").await;
    server.set_position(Duration::from_secs(60));
    let ids = |history: &Value| {
        history
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect::<Vec<_>>()
    };
    let newest = "7f216493";
    let one = get_json(&server, "/history?max_items=1").await;
    assert_eq!(ids(&one).len(), 1);
    assert!(ids(&one)[0].starts_with(newest), "{one}");
    assert_eq!(
        ids(&get_json(&server, "/history?max_items=99").await).len(),
        5
    );
    assert_eq!(
        ids(&get_json(&server, "/history?max_items=0").await).len(),
        0
    );
    let oldest = get_json(&server, "/history?max_items=1&offset=0").await;
    assert!(ids(&oldest)[0].starts_with("4ec465ba"), "{oldest}");
    let id = ids(&one)[0].clone();
    assert_eq!(get_json(&server, &format!("/history/{id}")).await, one);
    assert_eq!(get(&server, "/history/unknown").await.1, "{}");
    assert_eq!(get_json(&server, "/api/history?max_items=1").await, one);
    server.stop().await;
}

#[tokio::test]
async fn a_killed_server_closes_connections_and_comes_back_empty() {
    let server = manual("v0.33.0/restart_sigkill").await;
    server.set_position(Duration::from_millis(1500));
    assert_eq!(
        get_json(&server, "/prompt").await["exec_info"]["queue_remaining"],
        3
    );
    server.set_position(Duration::from_secs(10));
    for path in ["/queue", "/system_stats", "/api/jobs"] {
        assert!(try_get(&server, path).await.is_err(), "{path}");
    }
    server.set_position(Duration::from_millis(27_000));
    assert_eq!(get(&server, "/queue").await.1, EMPTY_QUEUE);
    server.stop().await;
}

#[tokio::test]
async fn versions_without_the_jobs_api_answer_404() {
    let server = manual("v0.3.64/simple_success").await;
    server.set_position(Duration::from_secs(60));
    assert_eq!(get(&server, "/api/jobs").await.0, 404);
    assert_eq!(get(&server, "/api/jobs/x").await.0, 404);
    assert_eq!(get(&server, "/nonexistent").await.0, 404);
    assert_eq!(get(&server, "/queue/").await.0, 404);
    assert_eq!(
        get_json(&server, "/system_stats").await["system"]["comfyui_version"],
        "0.3.64"
    );
    server.stop().await;
    let server = manual("v0.3.40/simple_success").await;
    assert_eq!(get(&server, "/features").await.0, 404);
    server.stop().await;
}

#[tokio::test]
async fn faults_are_switched_on_and_off_and_requests_are_counted() {
    let server = manual("v0.33.0/simple_success").await;
    server.set_position(Duration::from_millis(600));
    let good = get(&server, "/queue").await;
    assert_eq!(good.0, 200);
    server.fault(Fault::Refuse);
    assert!(try_get(&server, "/queue").await.is_err());
    server.fault(Fault::HalfBody);
    assert!(try_get(&server, "/queue").await.is_err());
    server.fault(Fault::Html);
    assert!(
        get(&server, "/queue")
            .await
            .1
            .starts_with("<!DOCTYPE html>")
    );
    server.fault(Fault::Status(503));
    assert_eq!(get(&server, "/queue").await.0, 503);
    server.fault(Fault::Garbage);
    assert!(serde_json::from_str::<Value>(&get(&server, "/queue").await.1).is_err());
    server.fault(Fault::EmptyQueue);
    assert_eq!(get(&server, "/queue").await.1, EMPTY_QUEUE);
    server.fault(Fault::Slow(Duration::from_millis(20)));
    assert_eq!(get(&server, "/api/queue").await, good);
    server.fault(Fault::None);
    assert_eq!(get(&server, "/queue").await, good);
    assert_eq!(server.requests("/queue"), 9);
    assert_eq!(server.requests("/history"), 0);
    server.stop().await;
}

#[tokio::test]
async fn recordings_without_polls_are_put_together_from_frames() {
    let server = manual("v0.33.0/huge_workflows").await;
    server.set_position(Duration::from_millis(1130));
    let (_, queue) = get(&server, "/queue").await;
    assert!((600_000..630_000).contains(&queue.len()), "{}", queue.len());
    let (_, history) = get(&server, "/history").await;
    assert!(
        (750_000..790_000).contains(&history.len()),
        "{}",
        history.len()
    );
    let jobs = get_json(&server, "/api/jobs").await;
    let statuses: Vec<&str> = jobs["jobs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|job| job["status"].as_str().unwrap())
        .collect();
    assert_eq!(
        statuses[..4],
        ["pending", "pending", "pending", "in_progress"]
    );
    assert_eq!(jobs["jobs"][0]["workflow_id"], "wf-big");
    server.set_position(server.recording().duration());
    let done = get_json(&server, "/api/jobs?status=completed").await;
    assert_eq!(done["pagination"]["total"], 9);
    assert_eq!(
        done["jobs"][0]["execution_start_time"],
        1_795_337_313_103_u64
    );
    assert_eq!(done["jobs"][0]["execution_end_time"], 1_795_337_314_140_u64);
    server.stop().await;

    for (name, total) in [
        ("v0.33.0/logs_subscription", 3),
        ("v0.33.0/stalled_reader", 1),
    ] {
        let server = manual(name).await;
        server.set_position(server.recording().duration());
        assert_eq!(
            get_json(&server, "/api/jobs?status=completed").await["pagination"]["total"],
            total,
            "{name}"
        );
        assert_eq!(
            get_json(&server, "/history")
                .await
                .as_object()
                .unwrap()
                .len(),
            total,
            "{name}"
        );
        server.stop().await;
    }
}

#[tokio::test]
async fn rebased_times_are_moved_in_every_answer() {
    let options = ReplayOptions {
        manual: true,
        rebase: Some(1000),
        ..ReplayOptions::default()
    };
    let server = ReplayServer::start(load("v0.33.0/simple_success"), options)
        .await
        .unwrap();
    server.set_position(Duration::from_secs(60));
    let jobs = get_json(&server, "/api/jobs").await;
    assert_eq!(
        jobs["jobs"][0]["execution_start_time"],
        1_795_337_167_883_u64
    );
    assert_eq!(jobs["jobs"][0]["execution_end_time"], 1_795_337_168_119_u64);
    assert_eq!(jobs["jobs"][0]["create_time"], 1_795_337_167_881_u64);
    server.stop().await;
}

#[tokio::test]
async fn recorded_time_runs_by_itself_unless_it_is_moved_by_hand() {
    let options = ReplayOptions {
        speed: 1e6,
        ..ReplayOptions::default()
    };
    let server = ReplayServer::start(load("v0.33.0/simple_success"), options)
        .await
        .unwrap();
    while !server.finished() {
        tokio::task::yield_now().await;
    }
    assert_eq!(
        get_json(&server, "/history")
            .await
            .as_object()
            .unwrap()
            .len(),
        1
    );
    server.stop().await;
}

#[test]
fn a_file_that_is_no_recording_is_refused() {
    assert!(Recording::parse("").is_err());
    assert!(Recording::parse("{\"k\": \"end\", \"t\": 1}").is_err());
    assert!(Recording::parse("nonsense").is_err());
    assert!(Recording::load("/nonexistent").is_err());
}

#[tokio::test]
async fn the_demo_ends_as_it_says() {
    let world = DemoWorld::start(1e4).await.unwrap();
    assert!(DemoWorld::start(1.0).await.unwrap().duration() <= Duration::from_secs(45));
    assert_eq!(world.servers.len(), 4);
    while !world.finished() {
        tokio::task::yield_now().await;
    }
    let mut ended = [0; 3];
    for (name, url) in &world.servers {
        let history = history_of(url).await;
        for (_, entry) in history.as_object().unwrap() {
            let messages = entry["status"]["messages"].as_array().unwrap();
            let last = messages.last().unwrap()[0].as_str().unwrap();
            let index = [
                "execution_success",
                "execution_error",
                "execution_interrupted",
            ]
            .iter()
            .position(|end| *end == last);
            ended[index.unwrap_or_else(|| panic!("{name} ends with {last}"))] += 1;
        }
    }
    // One completed job of the restarted server is forgotten by the time the demo ends.
    assert_eq!(
        ended,
        [
            world.expected["completed"] - 1,
            world.expected["failed"],
            world.expected["cancelled"]
        ]
    );
    world.stop().await;
}

async fn history_of(url: &str) -> Value {
    let host = url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(host).await.unwrap();
    let request = format!("GET /history HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

type Socket = tokio_tungstenite::WebSocketStream<TcpStream>;

async fn connect(server: &ReplayServer, path: &str) -> Option<Socket> {
    let host = server.url().strip_prefix("http://").unwrap().to_owned();
    let stream = TcpStream::connect(&host).await.unwrap();
    let opened = tokio_tungstenite::client_async(format!("ws://{host}{path}"), stream).await;
    opened.ok().map(|(socket, _)| socket)
}

/// The next frame; none when the connection ended without a goodbye.
async fn frame(socket: &mut Socket) -> Option<Message> {
    let next = tokio::time::timeout(Duration::from_secs(20), socket.next());
    next.await.expect("a frame in time")?.ok()
}

async fn text(socket: &mut Socket) -> Value {
    match frame(socket).await {
        Some(Message::Text(text)) => serde_json::from_str(&text).unwrap(),
        other => panic!("no text frame but {other:?}"),
    }
}

#[tokio::test]
async fn a_stranger_on_the_socket_hears_what_the_recorded_monitor_heard() {
    let server = manual("v0.33.0/foreign_no_client_id").await;
    for path in ["/ws?clientId=mine", "/api/ws?clientId=mine"] {
        server.set_position(Duration::ZERO);
        let mut socket = connect(&server, path).await.unwrap();
        let first = text(&mut socket).await;
        assert_eq!(first["type"], "status");
        assert_eq!(first["data"]["sid"], "mine");
        assert_eq!(first["data"]["status"]["exec_info"]["queue_remaining"], 0);
        server.set_position(Duration::from_millis(420));
        let mut kinds = Vec::new();
        for _ in 0..5 {
            kinds.push(text(&mut socket).await["type"].as_str().unwrap().to_owned());
        }
        assert_eq!(kinds[..2], ["status", "status"]);
        assert!(kinds[2..].iter().all(|kind| kind == "progress_state"));
        // Up to the first preview: 24 of its bytes are recorded, its length is too.
        server.set_position(Duration::from_millis(790));
        let frames = [frame(&mut socket).await, frame(&mut socket).await];
        assert!(frames.iter().all(|frame| frame.as_ref().unwrap().is_text()));
        let preview = frame(&mut socket).await.unwrap();
        assert!(preview.is_binary() && preview.len() > 500, "{preview:?}");
        socket.send(Message::Ping("x".into())).await.unwrap();
        assert_eq!(frame(&mut socket).await, Some(Message::Pong("x".into())));
    }
    assert_eq!(server.requests("/ws"), 2);
    server.stop().await;
}

#[tokio::test]
async fn the_submitters_own_id_hears_its_own_jobs_and_a_stranger_does_not() {
    let recording = load("v0.33.0/progress_own");
    let submitter = recording.client_id("submitter").unwrap().to_owned();
    let server = manual("v0.33.0/progress_own").await;
    let mut own = connect(&server, &format!("/ws?clientId={submitter}"))
        .await
        .unwrap();
    let mut stranger = connect(&server, "/ws?clientId=other").await.unwrap();
    server.set_position(server.recording().duration());
    let mut progress = 0;
    loop {
        let frame = text(&mut own).await;
        progress += usize::from(frame["type"] == "progress");
        if frame["type"] == "executing" && frame["data"]["node"].is_null() {
            break;
        }
    }
    assert!(progress >= 10, "{progress}");
    server.fault(Fault::Refuse);
    while let Some(frame) = frame(&mut stranger).await {
        let frame: Value = serde_json::from_str(frame.to_text().unwrap()).unwrap();
        assert_eq!(frame["type"], "status");
    }
    assert!(connect(&server, "/ws").await.is_none());
    server.stop().await;
}

#[tokio::test]
async fn a_killed_server_breaks_the_socket_off_and_takes_no_new_one_until_it_is_back() {
    let server = manual("v0.33.0/restart_sigkill").await;
    let mut socket = connect(&server, "/ws?clientId=mine").await.unwrap();
    server.set_position(Duration::from_millis(2400));
    while frame(&mut socket).await.is_some() {}
    server.set_position(Duration::from_secs(4));
    assert!(connect(&server, "/ws?clientId=mine").await.is_none());
    server.set_position(server.recording().duration());
    let mut socket = connect(&server, "/ws?clientId=mine").await.unwrap();
    assert_eq!(text(&mut socket).await["data"]["sid"], "mine");
    server.stop().await;
}
