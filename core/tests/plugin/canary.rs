//! A secret that the far side echoes: it is in no log line, failure, crash report or status of ours.

use std::io::Write;
use std::sync::{Arc, Mutex};

use weir_core::plugin::{AllowRule, Credential, PluginHandle, Scheme, Secret};

use super::guest::Guest;
use super::{host, reached, server, source};

const CANARY: &str = "canary-7f3a91";

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A source whose poll logs the answer of the far side, and then does `end` with it at the addresses 2064 and 2068.
fn echoing(url: &str, end: &str) -> Guest {
    let mut guest = Guest::fetching(url, Some("key"));
    let (fetch, _) = guest
        .poll
        .split_once("(i32.store (i32.const 1040)")
        .unwrap();
    guest.poll = format!(
        "{fetch}
         (call $log (i32.const 3) (i32.load (i32.const 2064)) (i32.load (i32.const 2068)))
         {end}"
    );
    guest
}

fn open(url: &str, guest: &Guest) -> PluginHandle {
    let mut spec = source(guest);
    spec.allow = vec![AllowRule::parse(url).unwrap()];
    let credential = Credential::new(Scheme::Bearer(Secret::new(CANARY)), spec.allow.clone());
    spec.credentials.insert("key".into(), credential.unwrap());
    host().open(spec)
}

#[tokio::test]
async fn a_secret_that_is_echoed_shows_nowhere() {
    let written = Written::default();
    let writer = written.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    // Guests log on threads of their own; no other test of this process has a subscriber.
    let _ = tracing::subscriber::set_global_default(subscriber);
    let body = format!("you said: Bearer {CANARY}");
    let (port, asked) = server(format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    ));
    let url = format!("http://127.0.0.1:{port}");
    let failing = "(i32.store (i32.const 1024) (i32.const 1))
        (i32.store (i32.const 1028) (i32.load (i32.const 2064)))
        (i32.store (i32.const 1032) (i32.load (i32.const 2068)))
        (i32.store (i32.const 1036) (i32.const 0)) (i32.store (i32.const 1040) (i32.const 0))
        (i32.const 1024)";
    for (end, says) in [(failing, "you said"), ("(unreachable)", "unreachable")] {
        let handle = open(&url, &echoing(&url, end));
        reached(&handle, "ready").await;
        let error = handle.poll(None, vec![]).await.unwrap_err();
        assert!(asked.recv().unwrap().contains(CANARY), "the host signed");
        let shown = format!("{error} {error:?} {:?}", handle.status());
        assert!(shown.contains(says), "{shown}");
        assert!(!shown.contains(CANARY), "{shown}");
    }
    let written = written.0.lock().unwrap().clone();
    let written = String::from_utf8_lossy(&written);
    assert!(
        written.contains("you said: Bearer [secret key]"),
        "{written}"
    );
    assert!(written.contains("plugin crashed"), "{written}");
    assert!(!written.contains(CANARY), "{written}");
}
