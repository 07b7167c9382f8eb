//! Old ComfyUI servers, whose queue repeats every prompt with its whole UI graph.

use crate::corridor::until;
use crate::faults::{alerts, configured, polled, view};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::TcpListener;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use weir_core::journal::{ExecutionFilter, StoredExecution};
use weir_core::model::status::Status;
use weir_core::{Monitor, MonitorHandle};

const GRAPH_LEN: usize = 150_000;

/// A server of 0.3.64: no job list. Prompts before `queue` are done, its first one runs.
struct Fake {
    queue: Mutex<Range<usize>>,
    asked: Mutex<BTreeMap<String, u64>>,
    port: u16,
}

fn prompt(out: &mut String, number: usize) {
    let graph = "x".repeat(GRAPH_LEN);
    write!(
        out,
        r#"[{number},"id-{number}",{{"1":{{"class_type":"EmptyImage","inputs":{{}}}},"2":{{"class_type":"SaveImage","inputs":{{"images":["1",0]}}}}}},{{"create_time":{number},"extra_pnginfo":{{"workflow":{{"id":"wf-big","nodes":"{graph}"}}}}}},["2"]]"#
    )
    .unwrap();
}

fn entry(number: usize) -> String {
    let mut out = format!(r#""id-{number}":{{"prompt":"#);
    prompt(&mut out, number);
    out.push_str(
        r#","outputs":{},"status":{"status_str":"success","completed":true,"messages":[
        ["execution_start",{"timestamp":1}],["execution_success",{"timestamp":2}]]}}"#,
    );
    out
}

fn list(out: &mut String, numbers: Range<usize>) {
    out.push('[');
    for number in numbers.clone() {
        if number > numbers.start {
            out.push(',');
        }
        prompt(out, number);
    }
    out.push(']');
}

async fn answer(request: HttpRequest, fake: web::Data<Fake>) -> HttpResponse {
    let path = request.path().to_owned();
    *fake.asked.lock().unwrap().entry(path.clone()).or_default() += 1;
    let queue = fake.queue.lock().unwrap().clone();
    let done = |number: &usize| *number < queue.start;
    let body = match path.as_str() {
        "/system_stats" => r#"{"system":{"comfyui_version":"0.3.64"}}"#.to_owned(),
        "/prompt" => format!(r#"{{"exec_info":{{"queue_remaining":{}}}}}"#, queue.len()),
        "/queue" => {
            let mut out = String::with_capacity((queue.len() + 1) * (GRAPH_LEN + 1000));
            out.push_str(r#"{"queue_running":"#);
            list(&mut out, queue.start..queue.start + 1);
            out.push_str(r#","queue_pending":"#);
            list(&mut out, queue.start + 1..queue.end);
            out.push('}');
            out
        }
        "/history" => {
            let items = request
                .query_string()
                .strip_prefix("max_items=")
                .and_then(|n| n.parse().ok());
            let first = queue
                .start
                .saturating_sub(items.unwrap_or(usize::MAX))
                .max(1);
            let entries: Vec<String> = (first..queue.start).map(entry).collect();
            format!("{{{}}}", entries.join(","))
        }
        _ => {
            let number = path
                .strip_prefix("/history/id-")
                .and_then(|n| n.parse::<usize>().ok());
            match number {
                Some(number) => format!(
                    "{{{}}}",
                    Some(number).filter(done).map(entry).unwrap_or_default()
                ),
                None => return HttpResponse::NotFound().body("404: Not Found"),
            }
        }
    };
    HttpResponse::Ok()
        .content_type("application/json")
        .body(body)
}

impl Fake {
    fn start(length: usize) -> web::Data<Fake> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let fake = Fake {
            queue: Mutex::new(1..length + 1),
            asked: Mutex::default(),
            port,
        };
        let fake = web::Data::from(Arc::new(fake));
        let data = fake.clone();
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
            .unwrap();
        actix_web::rt::spawn(server.run());
        fake
    }

    fn asked(&self, path: &str) -> u64 {
        self.asked.lock().unwrap().get(path).copied().unwrap_or(0)
    }

    fn set(&self, queue: Range<usize>) {
        *self.queue.lock().unwrap() = queue;
    }
}

async fn watch(fake: &Fake) -> MonitorHandle {
    let port = fake.port;
    // The limits of time are for a machine that does nothing else.
    let text = format!(
        r#"(sources: [(name: "old", plugin: "comfyui", poll_interval: "2s", lost_after: "1m",
            limits: (cpu: "20s", wall: "5m"), config: {{ "url": "http://127.0.0.1:{port}" }})],
            alerts: (rules: [(name: "lost", when: ExecutionLost)]))"#
    );
    Monitor::start(configured(&text)).await.unwrap()
}

fn count(monitor: &MonitorHandle, status: Option<Status>) -> u64 {
    let counts = monitor
        .journal()
        .reader()
        .unwrap()
        .open_counts(None)
        .unwrap();
    counts
        .iter()
        .filter(|(s, _)| status.is_none_or(|status| *s == status))
        .map(|(_, count)| count)
        .sum()
}

fn completed(monitor: &MonitorHandle) -> Vec<StoredExecution> {
    let filter = ExecutionFilter {
        limit: 100,
        ..ExecutionFilter::default()
    };
    let page = monitor
        .journal()
        .reader()
        .unwrap()
        .executions(&filter)
        .unwrap();
    let all = monitor.journal().reader().unwrap();
    // The oldest are not among the newest hundred of a long queue, so they are looked up.
    let first = (1..=24).filter_map(|seq| {
        all.execution(weir_core::model::id::ExecutionSeq(seq))
            .unwrap()
    });
    let mut found: Vec<StoredExecution> = first
        .filter(|e| e.record.status == Status::Completed)
        .collect();
    for one in page
        .into_iter()
        .filter(|e| e.record.status == Status::Completed)
    {
        if !found.iter().any(|known| known.record.seq == one.record.seq) {
            found.push(one);
        }
    }
    found
}

fn check_plugin(monitor: &MonitorHandle) {
    let plugin = view(monitor, "old").plugin.unwrap();
    let memory = plugin.counters.memory_high_water;
    assert!(memory < 192 << 20, "{} MiB", memory >> 20);
    assert_eq!(plugin.counters.crashes, 0, "{:?}", plugin.last_crash);
    assert_eq!(plugin.state.name(), "ready");
}

#[actix_web::test]
async fn a_queue_of_300_prompts_of_150_kb_is_seen_whole_within_the_memory_limit() {
    let fake = Fake::start(300);
    let monitor = watch(&fake).await;
    until(&monitor, "all of them", |m| count(m, None) == 300).await;
    assert_eq!(count(&monitor, Some(Status::Running)), 1);
    check_plugin(&monitor);
    // As long as nothing changes, nothing of that size is read again.
    let before = fake.asked("/prompt");
    polled(&monitor, "old", 2).await;
    assert!(fake.asked("/prompt") > before);
    fake.set(2..301);
    until(&monitor, "the first is done", |m| {
        m.clock().advance(Duration::from_secs(2));
        completed(m).len() == 1
    })
    .await;
    assert_eq!(count(&monitor, None), 299);
    check_plugin(&monitor);
    assert!(alerts(&monitor, "lost").is_empty());
    monitor.shutdown().await;
}

#[actix_web::test]
async fn a_queue_beyond_the_limit_is_counted_and_known_jobs_are_followed() {
    let fake = Fake::start(20);
    let monitor = watch(&fake).await;
    until(&monitor, "a short queue", |m| count(m, None) == 20).await;
    polled(&monitor, "old", 1).await;
    // 700 prompts are 105 MB: beyond the 64 MiB that an answer may have.
    fake.set(1..701);
    let counted = fake.asked("/prompt");
    until(&monitor, "counting", |m| {
        m.clock().advance(Duration::from_secs(2));
        fake.asked("/prompt") > counted + 3
    })
    .await;
    let queues = fake.asked("/queue");
    monitor.clock().advance(Duration::from_secs(24 * 3600));
    polled(&monitor, "old", 3).await;
    assert!(
        fake.asked("/queue") <= queues + 1,
        "it is not read again and again"
    );
    assert_eq!(count(&monitor, None), 20, "absence means nothing now");
    // What is known is followed to its end, and what is new in the history is told.
    fake.set(25..701);
    until(&monitor, "24 are done", |m| {
        m.clock().advance(Duration::from_secs(2));
        completed(m).len() == 24
    })
    .await;
    let told = completed(&monitor)
        .iter()
        .filter_map(|e| e.record.detail.clone())
        .collect::<String>();
    assert!(told.contains("queue_unreadable"), "{told}");
    assert!(view(&monitor, "old").health.stale_since.is_none());
    check_plugin(&monitor);
    // Short again: everything is seen.
    fake.set(600..701);
    until(&monitor, "the rest", |m| {
        m.clock().advance(Duration::from_secs(2));
        count(m, None) == 101
    })
    .await;
    monitor.settled().await;
    assert!(alerts(&monitor, "lost").is_empty());
    monitor.shutdown().await;
}
