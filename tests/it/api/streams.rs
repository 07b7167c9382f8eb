//! The event stream: resuming, gaps, filters, progress, and its end.

use super::client::Stream;
use super::stage::{Stage, job, progress};
use serde_json::json;
use std::time::Duration;
use weir_model::observation::JobState;

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_on_where_its_client_was() {
    let stage = Stage::new().await;
    stage.show(vec![job("a", JobState::Running)]).await;
    let mut stream = Stream::open(stage.address(), "/api/events?since=0", &[]).await;
    let mut all = Vec::new();
    loop {
        let message = stream.event().await;
        let kind = message.data["type"].as_str().unwrap().to_owned();
        all.push(message);
        if kind == "execution.started" {
            break;
        }
    }
    let seqs: Vec<i64> = all
        .iter()
        .map(|message| message.data["seq"].as_i64().unwrap())
        .collect();
    assert!(seqs.is_sorted() && seqs[0] == 1, "{seqs:?}");
    let created = all
        .iter()
        .find(|message| message.data["type"] == "execution.created")
        .unwrap();
    assert_eq!(created.data["execution"]["external_id"], "a");
    assert_eq!(created.data["execution"]["source"], "studio");
    assert_eq!(created.data["workflow"]["name"], "render");
    assert_eq!(created.id.as_deref(), created.data["id"].as_str());

    let resumed = format!("last-event-id: {}", created.id.as_ref().unwrap());
    let mut second = Stream::open(stage.address(), "/api/events?since=0", &[&resumed]).await;
    assert_eq!(
        second.event().await.data["type"],
        "execution.started",
        "the header is newer than the address"
    );

    stage.show(vec![job("a", JobState::Failed)]).await;
    for stream in [&mut stream, &mut second] {
        assert_eq!(
            stream.event().await.data["type"],
            "execution.failed",
            "what is committed later arrives"
        );
    }
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_cannot_go_on_says_so() {
    let stage = Stage::new().await;
    stage.show(vec![job("a", JobState::Running)]).await;
    let head = stage.monitor().journal().head().0;
    for (since, reason) in [
        ("ffffffff-1".to_owned(), "other_origin"),
        ((head + 100).to_string(), "beyond_head"),
    ] {
        let mut stream =
            Stream::open(stage.address(), &format!("/api/events?since={since}"), &[]).await;
        let gap = stream.named("gap").await;
        assert_eq!(gap.data["reason"], reason);
        assert_eq!(gap.data["to"], head);
        assert!(
            gap.id.unwrap().ends_with(&format!("-{head}")),
            "it can be resumed from"
        );
    }
    for bad in [
        "since=x",
        "since=-1",
        "sinse=1",
        "execution=1",
        "workflow_id=x",
    ] {
        assert!(
            [400, 404].contains(&stage.get(&format!("/api/events?{bad}")).await.status),
            "{bad}"
        );
    }
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_was_away_for_longer_than_events_are_kept_is_told() {
    let stage = Stage::new().await;
    stage.show(vec![job("old", JobState::Completed)]).await;
    stage.show(Vec::new()).await;
    stage
        .monitor()
        .clock()
        .advance(Duration::from_secs(40 * 86_400));
    let deleted = async {
        // What a consumer has not stored yet is kept: they store every second.
        while stage.monitor().journal().retain_now().await == 0 {
            stage.show(Vec::new()).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), deleted)
        .await
        .unwrap();
    let kept = stage.monitor().journal().retained_from().0;
    assert!(kept > 1);
    let mut stream = Stream::open(stage.address(), "/api/events?since=0&follow=false", &[]).await;
    let gap = stream.named("gap").await;
    assert_eq!(gap.data["reason"], "not_retained");
    assert_eq!(
        (&gap.data["from"], &gap.data["to"]),
        (&json!(1), &json!(kept - 1))
    );
    while let Some(message) = stream.next().await {
        if message.id.is_some() {
            assert!(message.data["seq"].as_i64().unwrap() >= kept, "{message:?}");
        }
    }
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_filtered_and_can_end_at_the_head() {
    let stage = Stage::new().await;
    let mut other = job("b", JobState::Completed);
    other.workflow = Some("upscale".to_owned());
    stage.show(vec![job("a", JobState::Completed), other]).await;
    let executions = stage.json("/api/executions?external_id=b").await;
    let (id, workflow) = (
        &executions["items"][0]["id"],
        &executions["items"][0]["workflow_id"],
    );
    for filter in [
        format!("execution={}", id.as_str().unwrap()),
        format!("workflow_id={workflow}"),
    ] {
        let path = format!("/api/events?since=0&follow=false&{filter}");
        let mut stream = Stream::open(stage.address(), &path, &[]).await;
        let mut kinds = Vec::new();
        while let Some(message) = stream.next().await {
            if message.id.is_some() {
                assert_eq!(message.data["execution"]["external_id"], "b");
                kinds.push(message.data["type"].as_str().unwrap().to_owned());
            }
        }
        assert_eq!(
            kinds,
            ["execution.created", "execution.completed"],
            "{filter}"
        );
    }
    let mut stream = Stream::open(
        stage.address(),
        "/api/events?since=0&follow=false&source=nowhere",
        &[],
    )
    .await;
    let mut comment = None;
    while let Some(message) = stream.next().await {
        assert!(message.id.is_none(), "{message:?}");
        comment = message.comment.or(comment);
    }
    assert!(
        comment.unwrap().starts_with("head "),
        "a heartbeat tells where the journal stands"
    );
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn live_progress_is_streamed_without_an_id() {
    let stage = Stage::new().await;
    let running = job("a", JobState::Running);
    stage.show(vec![running.clone()]).await;
    let mut stream = Stream::open(stage.address(), "/api/events", &[]).await;
    let observed = weir_model::observation::Observation::Job(Box::new(running));
    stage.observe(vec![observed, progress("a", 40.0)]).await;
    let frame = stream.named("progress").await;
    assert_eq!(frame.id, None);
    assert_eq!(frame.data["progress"], 40.0);
    assert_eq!(frame.data["note"], "sampling");
    assert_eq!(frame.data["source"], "studio");
    let executions = stage.json("/api/executions").await;
    assert_eq!(frame.data["execution"]["id"], executions["items"][0]["id"]);
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_bounded_in_number() {
    let stage = Stage::new().await;
    let mut streams = Vec::new();
    for _ in 0..64 {
        streams.push(Stream::open(stage.address(), "/api/events", &[]).await);
    }
    let refused = stage.get("/api/events").await;
    assert_eq!(refused.status, 503);
    assert!(refused.header("retry-after").is_some());
    assert_eq!(
        stage.get("/livez").await.status,
        200,
        "everything else goes on"
    );
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_ends_the_streams_and_frees_the_port() {
    let stage = Stage::new().await;
    let address = stage.address();
    let mut stream = Stream::open(address, "/api/events", &[]).await;
    let stopping = tokio::time::timeout(Duration::from_secs(20), stage.stop());
    let (stopped, ended) = tokio::join!(stopping, async { while stream.next().await.is_some() {} });
    stopped.unwrap();
    let () = ended;
    std::net::TcpListener::bind(address).unwrap();
}
