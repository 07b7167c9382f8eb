//! What is refused, and how that is said.

use super::client::{Answer, ask};
use super::stage::Stage;
use weir::daemon::{ServeError, serve};
use weir_core::{Config, Monitor};

const JSON: &str = "content-type: application/json";

/// Method, path; status and a part of the detail.
const REFUSED: [(&str, &str, u16, &str); 10] = [
    (
        "GET",
        "/api/excutions",
        404,
        "did you mean `/api/executions`?",
    ),
    ("GET", "/api/executions/17", 404, "a UUID"),
    (
        "GET",
        "/api/executions/0190e0f0-0000-7000-8000-000000000000",
        404,
        "there is no execution",
    ),
    (
        "GET",
        "/api/executions?sorce=x",
        400,
        "did you mean `source`?",
    ),
    ("GET", "/api/executions?limit=101", 400, "from 1 to 100"),
    ("GET", "/api/executions?status=faild", 400, "failed"),
    ("GET", "/api/executions?cursor=x", 400, "next_cursor"),
    ("GET", "/api/alerts?status=loud", 400, "firing"),
    ("PUT", "/api/mutes", 405, "GET, HEAD, POST"),
    ("POST", "/api/mutes", 415, "application/json"),
];

/// The answer is a problem document of this status that says this.
fn check(answer: &Answer, status: u16, detail: &str) {
    assert_eq!(answer.status, status, "{}", answer.body);
    assert_eq!(
        answer.header("content-type"),
        Some("application/problem+json")
    );
    let problem = answer.json();
    assert_eq!(problem["status"], status);
    assert!(problem["type"].as_str().unwrap().starts_with("urn:weir:"));
    assert!(
        problem["detail"].as_str().unwrap().contains(detail),
        "{problem}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_answered_is_a_problem_document() {
    let stage = Stage::new().await;
    for (method, path, status, detail) in REFUSED {
        check(&stage.ask(method, path, &[], "").await, status, detail);
    }
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_refused_with_the_limit() {
    let stage = Stage::new().await;
    let path = format!("/api/sources?cursor={}", "x".repeat(9000));
    check(&stage.get(&path).await, 414, "8192");
    let body = format!("{{\"by\":\"{}\"}}", "x".repeat(70_000));
    check(
        &stage.ask("POST", "/api/alerts/x/ack", &[JSON], &body).await,
        413,
        "65536",
    );
    let header = format!("x-much: {}", "x".repeat(20_000));
    check(
        &stage.ask("GET", "/status", &[&header], "").await,
        431,
        "16384",
    );
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_tests_a_receiver_or_resumes_a_plugin_without_the_token() {
    let read = r#"(alerts: (receivers: [
        (name: "hook", handler: "webhook", config: { "url": "http://127.0.0.1:9/hook" }),
    ]))"#;
    let read = crate::faults::configured(read);
    let stage = Stage::with(|config| {
        config.settings.alerts = read.settings.alerts;
        config.bundled = read.bundled;
    })
    .await;
    let token = weir::token::path(stage.monitor().data_dir());
    let bearer = format!(
        "authorization: Bearer {}",
        weir::token::read(&token).unwrap()
    );
    for path in ["/api/receivers/log/test", "/api/plugins/hook/resume"] {
        let none = stage.ask("POST", path, &[], "").await;
        check(&none, 401, "cli.token");
        assert!(none.header("www-authenticate").is_some());
        let wrong = "authorization: Bearer 0123456789abcdef0123456789abcdef";
        check(
            &stage.ask("POST", path, &[wrong], "").await,
            401,
            "not weir's",
        );
        let good = stage.ask("POST", path, &[&bearer], "").await;
        assert_eq!(good.status, 200, "{path}: {}", good.body);
    }
    // Who may not act does not learn what there is.
    let unknown = "/api/plugins/nobody/resume";
    check(&stage.ask("POST", unknown, &[], "").await, 401, "token");
    check(
        &stage.ask("POST", unknown, &[&bearer], "").await,
        404,
        "nobody",
    );
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_methods_and_addresses_are_answered_in_the_same_way() {
    let stage = Stage::new().await;
    let unreadable = stage.get("/api/executions/%FF").await;
    assert_eq!(unreadable.status, 404);
    assert_eq!(
        unreadable.header("content-type"),
        Some("application/problem+json")
    );
    let endless = stage.ask("HEAD", "/api/events", &[], "").await;
    assert_eq!(
        (endless.status, endless.header("allow")),
        (405, Some("GET"))
    );
    let head = stage.ask("HEAD", "/api/executions", &[], "").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_host_or_origin_is_refused_with_the_setting_to_change() {
    let stage =
        Stage::with(|config| config.settings.http.allowed_hosts = vec!["box.lan".to_owned()]).await;
    let port = stage.address().port();
    let cases = [
        (format!("host: evil.com:{port}"), None, 421),
        (
            format!("host: evil.com:{port}"),
            Some("origin: http://evil.com"),
            421,
        ),
        (format!("host: localhost:{port}"), None, 200),
        (format!("host: [::1]:{port}"), None, 200),
        ("host: box.lan".to_owned(), None, 200),
        (
            format!("host: localhost:{port}"),
            Some("origin: http://evil.com"),
            403,
        ),
        (format!("host: localhost:{port}"), Some("origin: null"), 403),
        (
            format!("host: localhost:{port}"),
            Some("origin: http://box.lan"),
            200,
        ),
    ];
    for path in [
        "/status",
        "/",
        "/api/events?follow=false",
        "/metrics",
        "/nowhere",
    ] {
        for (host, origin, status) in &cases {
            let mut headers = vec![host.as_str()];
            headers.extend(*origin);
            let answer = ask(stage.address(), "GET", path, &headers, "").await;
            let expected = if path == "/nowhere" && *status == 200 {
                404
            } else {
                *status
            };
            assert_eq!(
                answer.status, expected,
                "{path} {headers:?}: {}",
                answer.body
            );
            if *status != 200 {
                let problem = answer.json();
                assert!(
                    problem["detail"]
                        .as_str()
                        .unwrap()
                        .contains("http.allowed_hosts"),
                    "{problem}"
                );
            }
        }
    }
    assert_eq!(
        ask(stage.address(), "GET", "/status", &[], "").await.status,
        400,
        "no host at all"
    );
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_told_with_its_holder_and_the_setting() {
    let stage = Stage::new().await;
    let monitor = Monitor::start(Config::temporary().unwrap()).await.unwrap();
    let mut http = stage.http().clone();
    http.listen = stage.address();
    let refused = serve(monitor.clone(), &http).await.unwrap_err();
    assert!(matches!(refused, ServeError::PortInUse { .. }));
    let message = refused.to_string();
    assert!(message.contains("`http.listen`"), "{message}");
    assert!(
        message.contains(&format!("(pid {})", std::process::id())),
        "{message}"
    );
    monitor.shutdown().await;
    stage.stop().await;
}
