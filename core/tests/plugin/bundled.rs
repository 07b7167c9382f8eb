//! The bundled plugins in the real host, against a far side of a few lines. (`make plugins` builds them.)

use std::path::Path;

use serde_json::{Value, json};
use weir_core::plugin::{AllowRule, CallError, PluginSpec, Role};
use weir_model::observation::{Coverage, FailureKind};

use super::{host, notification, reached, server, spec};

/// The core module that `make plugins` built.
pub(crate) fn module(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../plugins/target/wasm32-unknown-unknown/release")
        .join(format!("{name}.wasm"));
    std::fs::read(&path)
        .unwrap_or_else(|error| panic!("{}: {error}: run `make plugins` first", path.display()))
}

fn bundled(name: &str, role: Role, config: Value) -> PluginSpec {
    let module = module(name);
    let mut encoder = wit_component::ComponentEncoder::default();
    encoder.module(&module).unwrap();
    let mut spec = spec(role, encoder.encode().unwrap());
    spec.plugin = name.into();
    spec.allow = AllowRule::from_config(&config);
    spec.config = config;
    spec
}

fn answer(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn webhook_delivers_alertmanagers_payload() {
    let (port, asked) = server(answer("200 OK", "{}"));
    let config = json!({ "url": format!("http://127.0.0.1:{port}/hook") });
    let handle = host().open(bundled("webhook", Role::Handler, config));
    reached(&handle, "ready").await;
    while asked.try_recv().is_ok() {}
    assert_eq!(handle.deliver(notification(), None).await.unwrap(), None);
    let request = asked.recv().unwrap();
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /hook HTTP/1.1"), "{head}");
    let body: Value = serde_json::from_str(body).unwrap();
    assert_eq!(
        (&body["version"], &body["status"]),
        (&json!("4"), &json!("firing"))
    );
}

#[tokio::test]
async fn a_receiver_that_answers_500_is_a_failure_of_the_call_and_no_strike() {
    let (port, _asked) = server(answer("503 Service Unavailable", "later"));
    for (name, config) in [
        (
            "webhook",
            json!({ "url": format!("http://127.0.0.1:{port}/hook") }),
        ),
        (
            "ntfy",
            json!({ "url": format!("http://127.0.0.1:{port}/topic") }),
        ),
    ] {
        let handle = host().open(bundled(name, Role::Handler, config));
        match handle.deliver(notification(), None).await {
            Err(CallError::Failed { message, kind, .. }) => {
                assert_eq!(kind, Some(FailureKind::Transient), "{name}: {message}");
                assert!(message.contains("status 503"), "{name}: {message}");
            }
            other => panic!("{name}: {other:?}"),
        }
        assert_eq!(handle.status().strikes, 0);
    }
}

#[tokio::test]
async fn ntfy_publishes_on_its_topic() {
    let (port, asked) = server(answer("200 OK", "{\"healthy\":true,\"id\":\"x\"}"));
    let config = json!({ "url": format!("http://127.0.0.1:{port}/alarms") });
    let handle = host().open(bundled("ntfy", Role::Handler, config));
    assert!(handle.check().await.unwrap().contains("topic alarms"));
    while asked.try_recv().is_ok() {}
    handle.deliver(notification(), None).await.unwrap();
    let request = asked.recv().unwrap();
    assert!(request.starts_with("POST / HTTP/1.1"), "{request}");
    assert!(request.contains("\"topic\":\"alarms\""), "{request}");
}

#[tokio::test]
async fn a_handler_without_its_configuration_is_parked() {
    let handle = host().open(bundled("ntfy", Role::Handler, json!({})));
    reached(&handle, "parked").await;
    let reason = handle.status().state.reason().unwrap().to_owned();
    assert!(reason.contains("url"), "{reason}");
}

#[tokio::test]
async fn comfyui_reads_an_empty_server_and_takes_garbage_for_a_failure() {
    let empty = answer(
        "200 OK",
        r#"{"jobs":[],"pagination":{"offset":0,"limit":1000,"total":0,"has_more":false}}"#,
    );
    for (answer, fine) in [
        (empty, true),
        (answer("200 OK", "<html>proxy</html>"), false),
        (answer("500 Internal Server Error", "oops"), false),
    ] {
        let (port, _asked) = server(answer);
        let config = json!({ "url": format!("http://127.0.0.1:{port}") });
        let handle = host().open(bundled("comfyui", Role::Source, config));
        let polled = handle.poll(None, vec![]).await;
        match polled {
            Ok(page) if fine => {
                assert!(page.observations.is_empty());
                assert_ne!(page.coverage, Coverage::More);
            }
            Err(CallError::Failed { kind, .. }) if !fine => {
                assert_ne!(kind, Some(FailureKind::Misconfigured));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(handle.status().counters.crashes, 0);
    }
}
