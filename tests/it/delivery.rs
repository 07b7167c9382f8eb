//! From an alert to a receiver's server: the bundled handlers, every answer a server can give, and kill -9.

use crate::corridor::{Bench, all, job, until};
use crate::faults::{alerts, configured};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use weir_core::journal::{Fault, JournalState, OutboxRow, OutboxState};
use weir_core::model::alert::mute::MuteScope;
use weir_core::model::observation::JobState;
use weir_core::model::status::Status;
use weir_core::monitor::MuteRequest;
use weir_core::{Config, Monitor, MonitorHandle};

const POLL: Duration = Duration::from_millis(20);

/// One request that a server got.
#[derive(Clone, Debug)]
pub(crate) struct Got {
    pub(crate) id: Option<String>,
    pub(crate) body: Value,
    pub(crate) answered: u16,
}

/// What a path answers next, in order; then 200.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer {
    Status(u16),
    RetryAfter(u32),
    /// Keeps the connection open and says nothing.
    Never,
}

#[derive(Default)]
struct Book {
    got: Mutex<BTreeMap<String, Vec<Got>>>,
    script: Mutex<BTreeMap<String, VecDeque<Answer>>>,
}

/// A server that takes notifications and answers as it is told.
pub(crate) struct Far {
    book: Arc<Book>,
    port: u16,
    handle: actix_web::dev::ServerHandle,
}

async fn answer(request: HttpRequest, body: web::Bytes, book: web::Data<Book>) -> HttpResponse {
    let path = request.path().to_owned();
    let scripted = book
        .script
        .lock()
        .unwrap()
        .get_mut(&path)
        .and_then(VecDeque::pop_front);
    let scripted = scripted.unwrap_or(Answer::Status(200));
    let status = match scripted {
        Answer::Status(status) => status,
        Answer::RetryAfter(_) => 429,
        Answer::Never => 0,
    };
    let header = |name: &str| Some(request.headers().get(name)?.to_str().unwrap().to_owned());
    let body = serde_json::from_slice(&body).unwrap_or_default();
    let got = Got {
        id: header("webhook-id"),
        body,
        answered: status,
    };
    book.got
        .lock()
        .unwrap()
        .entry(path.clone())
        .or_default()
        .push(got);
    match scripted {
        Answer::Never => std::future::pending().await,
        Answer::RetryAfter(seconds) => HttpResponse::TooManyRequests()
            .insert_header(("retry-after", seconds.to_string()))
            .finish(),
        Answer::Status(200) => HttpResponse::Ok()
            .content_type("application/json")
            .body(r#"{"healthy":true}"#),
        Answer::Status(status) => {
            let status = actix_web::http::StatusCode::from_u16(status).unwrap();
            HttpResponse::build(status).body("not today")
        }
    }
}

impl Far {
    pub(crate) fn start() -> Far {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let book = Arc::new(Book::default());
        let data = web::Data::from(book.clone());
        let server = HttpServer::new(move || {
            App::new()
                .app_data(data.clone())
                .default_service(web::to(answer))
        });
        let server = server
            .workers(1)
            .shutdown_timeout(1)
            .disable_signals()
            .listen(listener)
            .unwrap()
            .run();
        let handle = server.handle();
        actix_web::rt::spawn(server);
        Far { book, port, handle }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub(crate) fn script(&self, path: &str, answers: &[Answer]) {
        self.book
            .script
            .lock()
            .unwrap()
            .insert(path.to_owned(), answers.iter().copied().collect());
    }

    pub(crate) fn got(&self, path: &str) -> Vec<Got> {
        self.book
            .got
            .lock()
            .unwrap()
            .get(path)
            .cloned()
            .unwrap_or_default()
    }

    pub(crate) async fn stop(self) {
        self.handle.stop(false).await;
    }
}

/// A monitor's configuration with one in-process source and these `alerts`.
pub(crate) fn with_bench(alerts: &str, bench: &Arc<Bench>) -> Config {
    configured(&format!("(alerts: ({alerts}))")).source("bench", POLL, bench.clone())
}

pub(crate) fn put(bench: &Bench, id: &str, workflow: &str, state: JobState) {
    put_saying(bench, id, workflow, state, "CUDA out of memory");
}

fn put_saying(bench: &Bench, id: &str, workflow: &str, state: JobState, error: &str) {
    let mut job = job(id, state);
    job.workflow = Some(workflow.to_owned());
    if state == JobState::Failed {
        job.error = Some(error.to_owned());
    }
    bench.put(job);
}

/// A job runs, is seen, and then ends so.
pub(crate) async fn ends(
    monitor: &MonitorHandle,
    bench: &Bench,
    id: &str,
    workflow: &str,
    state: JobState,
) {
    ends_saying(monitor, bench, id, workflow, state, "CUDA out of memory").await;
}

/// The same, and a failure says `error`.
pub(crate) async fn ends_saying(
    monitor: &MonitorHandle,
    bench: &Bench,
    id: &str,
    workflow: &str,
    state: JobState,
    error: &str,
) {
    put(bench, id, workflow, JobState::Running);
    let is = |m: &MonitorHandle, status| {
        all(m)
            .iter()
            .any(|e| e.record.key.external_id == id && e.record.status == status)
    };
    until(monitor, "running", |m| is(m, Status::Running)).await;
    put_saying(bench, id, workflow, state, error);
    until(monitor, "ended", |m| is(m, Status::from(state))).await;
    monitor.settled().await;
}

pub(crate) fn ledger(monitor: &MonitorHandle, receiver: &str) -> Vec<OutboxRow> {
    let rows = monitor
        .journal()
        .reader()
        .unwrap()
        .outbox_page(None, 100)
        .unwrap();
    let mut rows: Vec<OutboxRow> = rows
        .into_iter()
        .filter(|row| row.receiver == receiver)
        .collect();
    rows.reverse();
    rows
}

fn states(monitor: &MonitorHandle, receiver: &str) -> Vec<OutboxState> {
    ledger(monitor, receiver)
        .iter()
        .map(|row| row.state)
        .collect()
}

/// Waits while moving the clock to whenever the receiver tries again.
pub(crate) async fn tried(
    monitor: &MonitorHandle,
    receiver: &str,
    what: &str,
    met: impl Fn(&MonitorHandle) -> bool,
) {
    until(monitor, what, |monitor| {
        if met(monitor) {
            return true;
        }
        let waiting = ledger(monitor, receiver)
            .into_iter()
            .filter(|row| row.state == OutboxState::Failed);
        if let Some(at) = waiting.filter_map(|row| row.next_attempt_at).min()
            && let Ok(wait) = Duration::try_from(at - monitor.clock().now())
        {
            monitor.clock().advance(wait);
        }
        false
    })
    .await;
}

fn hook(far: &Far) -> String {
    format!(
        r#"(name: "hook", handler: "webhook", config: {{ "url": "{}" }})"#,
        far.url("/hook")
    )
}

fn phone(far: &Far) -> String {
    format!(
        r#"(name: "phone", handler: "ntfy", config: {{ "url": "{}" }})"#,
        far.url("/renders")
    )
}

const FAILED: &str = r#"rules: [(name: "failed", when: ExecutionFailed)]"#;

#[actix_web::test]
async fn a_failure_reaches_a_webhook_as_alertmanager_says_it_and_ntfy_as_a_message() {
    let (far, bench) = (Far::start(), Arc::new(Bench::default()));
    let alerts = format!(
        r#"{FAILED}, receivers: [{}, {}],
           route: (receiver: "phone", routes: [(receiver: "hook", continue: true), (receiver: "phone")])"#,
        hook(&far),
        phone(&far)
    );
    let monitor = Monitor::start(with_bench(&alerts, &bench)).await.unwrap();
    ends(&monitor, &bench, "a", "portrait", JobState::Failed).await;
    until(&monitor, "hook", |_| far.got("/hook").len() == 1).await;
    until(&monitor, "phone", |_| far.got("/").len() == 1).await;
    let got = far.got("/hook").remove(0);
    let text = |pointer: &str| {
        got.body
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or("nothing")
    };
    assert_eq!(text("/version"), "4");
    assert_eq!(
        (text("/status"), text("/alerts/0/status")),
        ("firing", "firing")
    );
    assert_eq!(text("/receiver"), "hook");
    assert_eq!(text("/commonLabels/rule"), "failed");
    assert_eq!(text("/alerts/0/labels/workflow"), "portrait");
    assert_eq!(text("/alerts/0/labels/source"), "bench");
    assert_eq!(text("/alerts/0/labels/severity"), "error");
    assert!(
        text("/alerts/0/annotations/summary").contains("portrait"),
        "{}",
        got.body
    );
    assert!(
        got.body.to_string().contains("CUDA out of memory"),
        "{}",
        got.body
    );
    assert_eq!(text("/alerts/0/endsAt"), "0001-01-01T00:00:00Z");
    assert!(
        text("/alerts/0/startsAt")
            .parse::<jiff::Timestamp>()
            .is_ok()
    );
    assert_eq!(got.body["truncatedAlerts"], 0);
    let row = crate::faults::alerts(&monitor, "failed").remove(0);
    assert_eq!(text("/alerts/0/fingerprint"), row.fingerprint);
    for field in [
        "groupKey",
        "groupLabels",
        "commonAnnotations",
        "externalURL",
    ] {
        assert!(
            got.body.get(field).is_some(),
            "{field} is missing: {}",
            got.body
        );
    }
    assert!(got.id.is_some());
    let message = far.got("/").remove(0).body;
    assert_eq!(
        (message["topic"].as_str(), message["priority"].as_u64()),
        (Some("renders"), Some(4))
    );
    assert!(
        message["title"].as_str().unwrap().contains("portrait"),
        "{message}"
    );
    monitor.shutdown().await;
    far.stop().await;
}

#[actix_web::test]
async fn what_fails_is_tried_again_under_the_same_id() {
    let (far, bench) = (Far::start(), Arc::new(Bench::default()));
    let alerts = format!(
        r#"{FAILED}, receivers: [{}], route: (receiver: "hook")"#,
        hook(&far)
    );
    let monitor = Monitor::start(with_bench(&alerts, &bench)).await.unwrap();
    far.script("/hook", &[Answer::Status(500), Answer::Status(500)]);
    ends(&monitor, &bench, "a", "portrait", JobState::Failed).await;
    tried(&monitor, "hook", "sent", |m| {
        states(m, "hook") == [OutboxState::Sent]
    })
    .await;
    let got = far.got("/hook");
    assert_eq!(
        got.iter().map(|g| g.answered).collect::<Vec<_>>(),
        [500, 500, 200]
    );
    assert!(
        got[0].id.is_some() && got.iter().all(|g| g.id == got[0].id),
        "{got:?}"
    );
    assert_eq!(ledger(&monitor, "hook")[0].attempts, 3);
    monitor.shutdown().await;
    far.stop().await;
}

#[actix_web::test]
async fn a_server_that_names_a_time_is_left_alone_until_then() {
    let (far, bench) = (Far::start(), Arc::new(Bench::default()));
    let alerts = format!(
        r#"{FAILED}, receivers: [{}], route: (receiver: "hook")"#,
        hook(&far)
    );
    let monitor = Monitor::start(with_bench(&alerts, &bench)).await.unwrap();
    far.script("/hook", &[Answer::RetryAfter(120)]);
    ends(&monitor, &bench, "a", "portrait", JobState::Failed).await;
    until(&monitor, "refused", |m| {
        states(m, "hook") == [OutboxState::Failed]
    })
    .await;
    let row = ledger(&monitor, "hook").remove(0);
    let wait = row.next_attempt_at.unwrap() - row.updated_at;
    assert!(
        wait.compare(jiff::Span::new().seconds(120))
            .unwrap()
            .is_ge(),
        "{wait}"
    );
    monitor.clock().advance(Duration::from_secs(110));
    // Another message goes through meanwhile: the receiver did look.
    ends(&monitor, &bench, "b", "landscape", JobState::Failed).await;
    until(&monitor, "the other", |m| {
        states(m, "hook") == [OutboxState::Failed, OutboxState::Sent]
    })
    .await;
    assert_eq!(ledger(&monitor, "hook")[0].attempts, 1);
    tried(&monitor, "hook", "sent", |m| {
        states(m, "hook") == [OutboxState::Sent, OutboxState::Sent]
    })
    .await;
    assert_eq!(ledger(&monitor, "hook")[0].attempts, 2);
    monitor.shutdown().await;
    far.stop().await;
}

#[actix_web::test]
async fn what_a_server_will_never_take_goes_to_the_fallback_with_the_reason() {
    let (far, bench) = (Far::start(), Arc::new(Bench::default()));
    let alerts = format!(
        r#"{FAILED}, receivers: [{}, {}], route: (receiver: "hook"), fallback: "phone""#,
        hook(&far),
        phone(&far)
    );
    let monitor = Monitor::start(with_bench(&alerts, &bench)).await.unwrap();
    far.script("/hook", &[Answer::Status(400)]);
    ends(&monitor, &bench, "a", "portrait", JobState::Failed).await;
    until(&monitor, "fallback", |m| {
        states(m, "phone") == [OutboxState::Sent]
    })
    .await;
    assert_eq!(states(&monitor, "hook"), [OutboxState::Dead]);
    assert!(
        ledger(&monitor, "hook")[0]
            .answer
            .as_deref()
            .unwrap()
            .contains("400")
    );
    let reader = monitor.journal().reader().unwrap();
    let failures = reader.outbox_failures().unwrap();
    let [hook] = &failures[..] else {
        panic!("{failures:?}")
    };
    assert_eq!((hook.receiver.as_str(), hook.given_up), ("hook", 1));
    assert!(hook.answer.as_deref().unwrap().contains("400"), "{hook:?}");
    assert_eq!(hook.sent_at, None);
    drop(reader);
    let got = far.got("/").remove(0).body;
    let message = got["message"].as_str().unwrap();
    assert!(
        message.contains("hook could not deliver this") && message.contains("400"),
        "{message}"
    );
    assert!(got["title"].as_str().unwrap().contains("portrait"), "{got}");
    assert_eq!(far.got("/hook").len(), 1);
    monitor.shutdown().await;
    far.stop().await;
}

#[actix_web::test]
async fn a_server_that_does_not_know_us_parks_its_receiver_and_the_others_say_so() {
    let (far, bench) = (Far::start(), Arc::new(Bench::default()));
    let alerts = format!(
        r#"{FAILED}, receivers: [{}, {}], route: (receiver: "hook")"#,
        hook(&far),
        phone(&far)
    );
    let monitor = Monitor::start(with_bench(&alerts, &bench)).await.unwrap();
    far.script("/hook", &[Answer::Status(401)]);
    ends(&monitor, &bench, "a", "portrait", JobState::Failed).await;
    until(&monitor, "told", |_| far.got("/").len() == 1).await;
    let message = far.got("/").remove(0).body;
    assert!(message.to_string().contains("hook is parked"), "{message}");
    assert_eq!(monitor.status().troubles.len(), 1);
    assert!(
        ledger(&monitor, "hook")
            .iter()
            .all(|row| !row.payload.contains("weir_trouble"))
    );
    // Somebody mended the far side; the message was kept, and the trouble is over.
    tried(&monitor, "hook", "sent", |m| {
        states(m, "hook") == [OutboxState::Sent]
    })
    .await;
    until(&monitor, "over", |_| far.got("/").len() == 2).await;
    assert!(monitor.status().troubles.is_empty());
    assert_eq!(far.got("/hook").last().unwrap().answered, 200);
    monitor.shutdown().await;
    far.stop().await;
}

#[actix_web::test]
async fn nobody_is_told_of_an_end_before_its_beginning() {
    let (far, bench) = (Far::start(), Arc::new(Bench::default()));
    let alerts = format!(
        r#"rules: [(name: "failed", when: ExecutionFailed, notify_resolved: true)],
           receivers: [{}], route: (receiver: "hook")"#,
        hook(&far)
    );
    let monitor = Monitor::start(with_bench(&alerts, &bench)).await.unwrap();
    far.script("/hook", &[Answer::Status(503)]);
    ends(&monitor, &bench, "a", "portrait", JobState::Failed).await;
    until(&monitor, "refused", |m| {
        states(m, "hook") == [OutboxState::Failed]
    })
    .await;
    ends(&monitor, &bench, "b", "portrait", JobState::Completed).await;
    until(&monitor, "resolved", |m| states(m, "hook").len() == 2).await;
    tried(&monitor, "hook", "sent", |m| {
        states(m, "hook") == [OutboxState::Sent; 2]
    })
    .await;
    let told: Vec<(u16, String)> = far
        .got("/hook")
        .iter()
        .map(|g| (g.answered, g.body["status"].as_str().unwrap().to_owned()))
        .collect();
    let wanted = [(503, "firing"), (200, "firing"), (200, "resolved")];
    assert_eq!(told, wanted.map(|(status, word)| (status, word.to_owned())));
    let ended = far.got("/hook").remove(2).body;
    assert_ne!(ended["alerts"][0]["endsAt"], "0001-01-01T00:00:00Z");
    monitor.shutdown().await;
    far.stop().await;
}

#[actix_web::test]
async fn what_is_muted_is_recorded_and_not_sent() {
    let (far, bench) = (Far::start(), Arc::new(Bench::default()));
    let alerts = format!(
        r#"{FAILED}, receivers: [{}], route: (receiver: "hook")"#,
        hook(&far)
    );
    let monitor = Monitor::start(with_bench(&alerts, &bench)).await.unwrap();
    let request = MuteRequest {
        scope: MuteScope::Workflow("portrait".into()),
        duration: Duration::from_secs(3600),
        by: "kai".into(),
    };
    monitor.mute(request).await.unwrap();
    ends(&monitor, &bench, "a", "portrait", JobState::Failed).await;
    ends(&monitor, &bench, "b", "landscape", JobState::Failed).await;
    until(&monitor, "sent", |m| {
        states(m, "hook") == [OutboxState::Suppressed, OutboxState::Sent]
    })
    .await;
    let got = far.got("/hook");
    assert_eq!(got.len(), 1);
    assert_eq!(got[0].body["commonLabels"]["workflow"], "landscape");
    // A mute ends by itself, and what it kept back and is still open is told then.
    monitor.clock().advance(Duration::from_secs(3601));
    ends(&monitor, &bench, "c", "panorama", JobState::Failed).await;
    until(&monitor, "sent", |m| {
        states(m, "hook")[1..] == [OutboxState::Sent; 3]
    })
    .await;
    let mut told: Vec<String> = far
        .got("/hook")
        .iter()
        .map(|got| got.body["commonLabels"]["workflow"].to_string())
        .collect();
    told.sort();
    assert_eq!(told, [r#""landscape""#, r#""panorama""#, r#""portrait""#]);
    monitor.shutdown().await;
    far.stop().await;
}

#[actix_web::test]
async fn the_dead_mans_switch_is_silent_while_nothing_can_be_recorded() {
    let (far, bench) = (Far::start(), Arc::new(Bench::default()));
    let alerts = format!(
        r#"{FAILED}, receivers: [{}], route: (receiver: "hook"), deadman: (url: "{}", interval: "30s")"#,
        hook(&far),
        far.url("/alive")
    );
    let monitor = Monitor::start(with_bench(&alerts, &bench)).await.unwrap();
    let pings = || far.got("/alive").len();
    until(&monitor, "a ping", |_| pings() >= 1).await;
    until(&monitor, "the next ping", |m| {
        m.clock().advance(Duration::from_secs(31));
        pings() >= 2
    })
    .await;
    // The store is out of reach, so it stays closed once it is.
    let store = monitor.journal().path().to_owned();
    let away = store.with_extension("away");
    std::fs::rename(&store, &away).unwrap();
    std::fs::create_dir(&store).unwrap();
    monitor.journal().inject(Fault::Fail);
    put(&bench, "a", "portrait", JobState::Running);
    until(&monitor, "closed", |m| {
        matches!(m.journal().state(), JournalState::Closed { .. })
    })
    .await;
    // It is told past the outbox, which is in the journal.
    until(&monitor, "told", |_| far.got("/hook").len() == 1).await;
    assert!(
        far.got("/hook")[0].body.to_string().contains("journal"),
        "{:?}",
        far.got("/hook")
    );
    // One may have been on its way.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let before = pings();
    for _ in 0..5 {
        monitor.clock().advance(Duration::from_secs(31));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(pings(), before);
    std::fs::remove_dir(&store).unwrap();
    std::fs::rename(&away, &store).unwrap();
    monitor.journal().reopen().await.unwrap();
    until(&monitor, "pings again", |m| {
        m.clock().advance(Duration::from_secs(31));
        pings() > before
    })
    .await;
    until(&monitor, "recorded after all", |m| all(m).len() == 1).await;
    monitor.shutdown().await;
    far.stop().await;
}

const KILLED_DIR: &str = "WEIR_KILLED_DIR";
const KILLED_URL: &str = "WEIR_KILLED_URL";

fn killed_config(dir: &Path, url: &str, bench: &Arc<Bench>) -> Config {
    let alerts = format!(
        r#"{FAILED}, receivers: [(name: "hook", handler: "webhook", config: {{ "url": "{url}" }})],
           route: (receiver: "hook")"#
    );
    let mut config = with_bench(&alerts, bench);
    config.data_dir = dir.to_owned();
    config
}

/// The process that the test below kills; nothing happens when nobody asks for it.
#[actix_web::test]
async fn daemon_that_is_killed() {
    let (Ok(dir), Ok(url)) = (std::env::var(KILLED_DIR), std::env::var(KILLED_URL)) else {
        return;
    };
    let bench = Arc::new(Bench::default());
    let monitor = Monitor::start(killed_config(Path::new(&dir), &url, &bench))
        .await
        .unwrap();
    ends(&monitor, &bench, "a", "portrait", JobState::Failed).await;
    until(&monitor, "sent", |m| {
        states(m, "hook") == [OutboxState::Sent]
    })
    .await;
    ends(&monitor, &bench, "b", "landscape", JobState::Failed).await;
    std::future::pending::<()>().await;
}

#[actix_web::test]
async fn an_alert_survives_kill_9_and_is_delivered_once() {
    let far = Far::start();
    let dir = tempfile::tempdir().unwrap();
    far.script("/hook", &[Answer::Status(200), Answer::Never]);
    let url = far.url("/hook");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "delivery::daemon_that_is_killed"])
        .envs([
            (KILLED_DIR, dir.path().as_os_str()),
            (KILLED_URL, url.as_ref()),
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let both = async {
        while far.got("/hook").len() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(60), both).await;
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(in_time.is_ok(), "{:?}", far.got("/hook"));

    let bench = Arc::new(Bench::default());
    put(&bench, "a", "portrait", JobState::Failed);
    put(&bench, "b", "landscape", JobState::Failed);
    let monitor = Monitor::start(killed_config(dir.path(), &url, &bench))
        .await
        .unwrap();
    until(&monitor, "sent", |m| {
        states(m, "hook") == [OutboxState::Sent; 2]
    })
    .await;
    let polls = monitor.sources()[0].health.polls;
    until(&monitor, "polls", |m| {
        m.sources()[0].health.polls > polls + 2
    })
    .await;
    monitor.settled().await;
    let got = far.got("/hook");
    let told: Vec<(u16, &str)> = got
        .iter()
        .map(|g| {
            (
                g.answered,
                g.body["commonLabels"]["workflow"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [(200, "portrait"), (0, "landscape"), (200, "landscape")]
    );
    assert_eq!(got[1].id, got[2].id);
    assert_eq!(alerts(&monitor, "failed").len(), 2);
    monitor.shutdown().await;
    far.stop().await;
}
