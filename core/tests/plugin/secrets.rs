//! A secret of every kind, and a guest that tells all it can: nothing of it shows anywhere.

use std::io;
use std::sync::{Arc, Mutex};

use weir_model::config;

use super::guest::Guest;
use super::*;

/// Every secret holds this.
const CANARY: &str = "cAnArY";
const KEY: &str = include_str!("../../../tests/data/google/key.pem");

/// Everything that is logged in this process, of every level and crate.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The log, and whether it is captured: another test of this process may have been first.
fn capture() -> (Lines, bool) {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let first = tracing::subscriber::set_global_default(subscriber).is_ok();
    (lines, first)
}

impl Lines {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

/// A far side that answers with the request as it got it, head and all.
fn mirror() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
            while !is_whole(&request) {
                match stream.read(&mut buffer) {
                    Ok(n) if n > 0 => request.extend_from_slice(&buffer[..n]),
                    _ => break,
                }
            }
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                request.len()
            );
            let _ = stream.write_all(head.as_bytes());
            let _ = stream.write_all(&request);
        }
    });
    port
}

/// (name of the kind, the scheme, what the guest asks for, what the far side must have been shown)
fn schemes(origin: &str) -> Vec<(&'static str, Scheme, String, String)> {
    let secret = || Secret::new("cAnArY-0123456789/+");
    let account = json!({
        "type": "service_account", "client_email": "cAnArY@x", "private_key": KEY, "private_key_id": "kid-1",
    });
    let options = config::Google {
        scopes: vec!["scope".into()],
        self_signed: true,
        quota_project: None,
        endpoints: config::GoogleEndpoints::default(),
    };
    let plain = format!("{origin}/x");
    let shown = "cAnArY-0123456789".to_owned();
    vec![
        (
            "Bearer",
            Scheme::Bearer(secret()),
            plain.clone(),
            shown.clone(),
        ),
        (
            "Basic",
            Scheme::Basic {
                user: "me".into(),
                password: secret(),
            },
            plain.clone(),
            "bWU6Y0FuQXJZ".into(),
        ),
        (
            "Header",
            Scheme::Header {
                name: "x-key".into(),
                value: secret(),
            },
            plain.clone(),
            shown.clone(),
        ),
        (
            "Url",
            Scheme::Url(Secret::new(format!("{origin}/hook/cAnArY-0123456789"))),
            "credential:/x".into(),
            shown.clone(),
        ),
        (
            "Secret",
            Scheme::Secret(secret()),
            format!("{origin}/{{{{secret:key}}}}"),
            shown,
        ),
        (
            "Google",
            Scheme::Google {
                account: Some(Secret::new(account.to_string())),
                options: Box::new(options),
            },
            plain,
            "Bearer eyJ".into(),
        ),
    ]
}

fn entry(guest: &Guest, scheme: Scheme, origin: &str) -> PluginSpec {
    let mut spec = source(guest);
    spec.allow = vec![AllowRule::parse(origin).unwrap()];
    let credential = Credential::new(scheme, spec.allow.clone()).unwrap();
    spec.credentials.insert("key".into(), credential);
    spec
}

#[tokio::test]
async fn a_secret_that_the_far_side_repeats_shows_in_no_text_of_weir() {
    let (lines, captured) = capture();
    let origin = format!("http://127.0.0.1:{}", mirror());
    for (kind, scheme, url, shown) in schemes(&origin) {
        let spec = entry(&Guest::telltale(&url, "key"), scheme, &origin);
        let mut told = format!("{spec:?}");
        let handle = host().open(spec);
        let failure = handle.poll(None, vec![]).await.unwrap_err();
        let CallError::Failed { message, .. } = &failure else {
            panic!("{kind}: {failure:?}");
        };
        assert!(message.contains("[secret key]"), "{kind}: {message}");
        told.push_str(message);
        let page = handle.poll(None, vec![]).await.unwrap();
        told.push_str(&format!("{page:?}"));
        let cursor = page.cursor.unwrap();
        assert!(cursor.contains("[secret key]"), "{kind}: {cursor}");
        let Observation::Job(job) = &page.observations[0] else {
            panic!("{kind}: {:?}", page.observations);
        };
        assert_eq!(job.error.as_deref(), Some(cursor.as_str()), "{kind}");
        let report = crash(&handle).await;
        assert!(
            report.stderr.contains("[secret key]"),
            "{kind}: {}",
            report.stderr
        );
        told.push_str(&format!("{report:?} {report} {:?}", handle.status()));
        told.push_str(&lines.text());
        // What the far side was shown is the secret, or a form of it; a Google token is none that we know before.
        let token = shown.starts_with("Bearer ey");
        assert!(!told.contains(&shown) || token, "{kind}: {told}");
        assert!(!told.contains(CANARY) || token, "{kind}: {told}");
        assert!(!told.contains("Bearer eyJ"), "{kind}: {told}");
        handle.close().await;
    }
    let log = lines.text();
    assert!(log.contains("plugin http request") || !captured, "{log}");
    assert!(!log.contains("BEGIN PRIVATE"), "{log}");
}

/// Whether `text` stands anywhere in its own memory; the text is brought along disguised, or it would find itself.
fn searching(url: &str, text: &str) -> Guest {
    let mut guest = Guest::fetching(url, Some("key"));
    let disguised: String = text.bytes().map(|byte| char::from(byte ^ 1)).collect();
    let (mask, len) = guest.text(&disguised);
    let (found, _) = guest.text("found");
    let (ok, rest) = guest
        .poll
        .split_at(guest.poll.find("(i32.store (i32.const 10").unwrap());
    let failure = failure(1, (found, 5));
    guest.poll = format!(
        "(local $i i32) (local $j i32)
         {ok}
         (block $done
           (loop $next
             (br_if $done (i32.ge_u (i32.add (local.get $i) (i32.const {len})) (i32.mul (memory.size) (i32.const 65536))))
             (local.set $j (i32.const 0))
             (block $differs
               (loop $same
                 (br_if $differs (i32.ne
                   (i32.load8_u (i32.add (local.get $i) (local.get $j)))
                   (i32.xor (i32.const 1) (i32.load8_u (i32.add (i32.const {mask}) (local.get $j))))))
                 (local.set $j (i32.add (local.get $j) (i32.const 1)))
                 (br_if $same (i32.lt_u (local.get $j) (i32.const {len}))))
               (return (block (result i32) {failure})))
             (local.set $i (i32.add (local.get $i) (i32.const 1)))
             (br $next)))
         {rest}"
    );
    guest
}

#[tokio::test]
async fn a_secret_is_nowhere_in_the_guests_memory() {
    let (port, _asked) =
        server("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok".into());
    let silent = format!("http://127.0.0.1:{port}");
    for (kind, scheme, url, shown) in schemes(&silent) {
        for text in [CANARY, &shown] {
            let mut spec = entry(&searching(&url, text), scheme.clone(), &silent);
            spec.limits.cpu_call = Duration::from_secs(5);
            let page = host().open(spec).poll(None, vec![]).await;
            assert_eq!(page.unwrap().cursor.as_deref(), Some("ok"), "{kind}");
        }
    }
    // What the far side repeats is taken out on its way in.
    let origin = format!("http://127.0.0.1:{}", mirror());
    for (kind, scheme, url, shown) in schemes(&origin) {
        let mut spec = entry(&searching(&url, &shown), scheme, &origin);
        spec.limits.cpu_call = Duration::from_secs(5);
        let page = host().open(spec).poll(None, vec![]).await;
        let cursor = page.unwrap().cursor.unwrap();
        assert!(cursor.contains("[secret key]"), "{kind}: {cursor}");
    }
    // But for a secret that is a short word; and so the search is known to find what is there.
    let short = Scheme::Bearer(Secret::new(CANARY));
    let guest = searching(&format!("{origin}/x"), CANARY);
    let mut spec = entry(&guest, short, &origin);
    spec.limits.cpu_call = Duration::from_secs(5);
    match host().open(spec).poll(None, vec![]).await {
        Err(CallError::Failed { message, .. }) => assert_eq!(message, "found"),
        other => panic!("{other:?}"),
    }
}
