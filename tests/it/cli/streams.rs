//! Streams over TLS, with credentials: a real daemon, and a far side with a certificate that is made here.

use super::daemon::{Daemon, configure};
use super::{Shell, code, err, out};
use futures::SinkExt as _;
use serde_json::Value;
use std::io::Cursor;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_tungstenite::tungstenite::Message;

const CANARY: &str = "canary-of-a-stream-9b1f";
/// `me:canary-of-a-stream-9b1f`.
const BASIC: &str = "Basic bWU6Y2FuYXJ5LW9mLWEtc3RyZWFtLTliMWY=";

/// A request: its path, and its whole head in lower case names.
#[derive(Clone, Debug)]
struct Asked {
    path: String,
    head: String,
}

impl Asked {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

/// Answers polls, holds streams open and tells a job on each again and again.
struct Far {
    port: u16,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Far {
    async fn start(acceptor: TlsAcceptor, moved_to: u16) -> Far {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let noted = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, noted) = (acceptor.clone(), Arc::clone(&noted));
                tokio::spawn(async move {
                    // Who does not trust the certificate is gone here.
                    let _ = serve(tcp, acceptor, &noted, moved_to).await;
                });
            }
        });
        Far { port, asked }
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

async fn serve(
    tcp: TcpStream,
    acceptor: TlsAcceptor,
    noted: &Mutex<Vec<Asked>>,
    moved_to: u16,
) -> std::io::Result<()> {
    let mut tls = acceptor.accept(tcp).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tls.read_u8().await?);
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let path = text.split(' ').nth(1).unwrap_or_default().to_owned();
    let asked = Asked {
        path: path.clone(),
        head: text,
    };
    noted.lock().unwrap().push(asked);
    let (kind, name) = path[1..].split_once('/').unwrap_or((&path[1..], ""));
    let told = format!("job {name}-live running");
    match kind {
        "ws" => {
            let (reader, writer) = tokio::io::split(tls);
            let rewound = tokio::io::join(Cursor::new(head).chain(reader), writer);
            let socket = tokio_tungstenite::accept_async(rewound).await;
            let mut socket = socket.map_err(std::io::Error::other)?;
            while socket.send(Message::text(told.clone())).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Ok(())
        }
        "events" => {
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
            tls.write_all(head.as_bytes()).await?;
            loop {
                tls.write_all(format!("data: {told}\n\n").as_bytes())
                    .await?;
                tls.flush().await?;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        "moved" => {
            let to = format!("https://localhost:{moved_to}/events/{name}");
            let answer = format!(
                "HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            );
            tls.write_all(answer.as_bytes()).await?;
            tls.shutdown().await
        }
        _ => {
            let answer = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            tls.write_all(answer.as_bytes()).await?;
            tls.shutdown().await
        }
    }
}

/// A certificate for `localhost` that nobody but who is told trusts.
fn certificate() -> (String, TlsAcceptor) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    (made.cert.pem(), TlsAcceptor::from(Arc::new(config)))
}

/// A source of the live fixture whose stream is at `stream`.
fn source(name: &str, port: u16, stream: &str, credential: &str, allow: &str) -> String {
    let sse = stream.starts_with("https");
    format!(
        r#"(name: "{name}", plugin: "./live.wasm", poll_interval: "1s", allow: [{allow}],
            credentials: {{ "key": {credential} }},
            config: {{ "url": "https://localhost:{port}", "stream": "{stream}", "sse": {sse}, "credential": "key" }}),"#
    )
}

/// (name, scheme of the stream, kind of its address, its credential, the header that it becomes)
fn good(origin: &str) -> Vec<(String, &'static str, &'static str, String, &'static str)> {
    let kinds = [
        (
            "bearer",
            format!(r#"Bearer(file: "secret", origins: ["{origin}"])"#),
            "authorization",
        ),
        (
            "basic",
            format!(r#"Basic(user: "me", file: "secret", origins: ["{origin}"])"#),
            "authorization",
        ),
        (
            "header",
            format!(r#"Header(name: "x-key", file: "secret", origins: ["{origin}"])"#),
            "x-key",
        ),
    ];
    let both = [("wss", "ws"), ("https", "events")];
    both.into_iter()
        .flat_map(|(scheme, kind)| {
            kinds.clone().map(|(credential, ron, header)| {
                (format!("{kind}-{credential}"), scheme, kind, ron, header)
            })
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_speak_tls_and_credentials_reach_their_origin_alone() {
    let (pem, acceptor) = certificate();
    let elsewhere = Far::start(acceptor.clone(), 0).await;
    let far = Far::start(acceptor, elsewhere.port).await;
    let (port, other) = (far.port, elsewhere.port);
    let origin = format!("https://localhost:{port}");
    let allow = format!(r#""{origin}", "https://127.0.0.1:{port}", "https://localhost:{other}""#);
    let bearer = |origin: String| format!(r#"Bearer(file: "secret", origins: ["{origin}"])"#);
    let mut sources: Vec<String> = good(&origin)
        .iter()
        .map(|(name, scheme, kind, credential, _)| {
            let stream = format!("{scheme}://localhost:{port}/{kind}/{name}");
            source(name, port, &stream, credential, &allow)
        })
        .collect();
    for (name, stream, bound) in [
        // Bound to this far side, named toward the other one.
        (
            "stray-ws",
            format!("wss://localhost:{other}/ws/stray"),
            origin.clone(),
        ),
        (
            "stray-events",
            format!("https://localhost:{other}/events/stray"),
            origin.clone(),
        ),
        // A redirect leads nowhere.
        ("moved", format!("{origin}/moved/moved"), origin.clone()),
        // The certificate is for another name.
        (
            "misnamed",
            format!("wss://127.0.0.1:{port}/ws/misnamed"),
            format!("https://127.0.0.1:{port}"),
        ),
    ] {
        sources.push(source(name, port, &stream, &bearer(bound), &allow));
    }
    let tested = tokio::task::spawn_blocking(move || watched(&pem, &sources.concat()));
    let shown = tested.await.unwrap();

    check_requests(&far, &elsewhere, &origin);
    let of = |name: &str| {
        let items = shown["items"].as_array().unwrap();
        let found = items.iter().find(|item| item["name"] == name).unwrap();
        found["stream"].clone()
    };
    for (name, state, error) in [
        ("stray-ws", "refused", "is bound to"),
        ("stray-events", "refused", "is bound to"),
        ("moved", "waiting", "302"),
        ("misnamed", "waiting", "tls: "),
    ] {
        let stream = of(name);
        let told = stream["last_error"].as_str().unwrap_or_default();
        assert!(told.contains(error), "{name}: {stream}");
        assert!(
            [state, "connecting"].contains(&stream["state"].as_str().unwrap()),
            "{name}: {stream}"
        );
    }
    assert!(!shown.to_string().contains(CANARY), "{shown}");
}

/// What each far side was asked, and with which secrets.
fn check_requests(far: &Far, elsewhere: &Far, origin: &str) {
    let asked = far.asked();
    for (name, _, kind, _, header) in good(origin) {
        let path = format!("/{kind}/{name}");
        let found = asked.iter().find(|asked| asked.path == path);
        let found = found.unwrap_or_else(|| panic!("{path} was never asked for"));
        let expected = match name.rsplit('-').next() {
            Some("bearer") => format!("Bearer {CANARY}"),
            Some("basic") => BASIC.to_owned(),
            _ => CANARY.to_owned(),
        };
        assert_eq!(found.header(header), Some(expected.as_str()), "{path}");
        assert_eq!(found.header("x-fixture"), Some("yes"));
    }
    // What names no credential carries none.
    let polls = asked.iter().filter(|asked| asked.path == "/jobs");
    assert!(polls.clone().count() >= 10);
    for poll in polls {
        assert!(!poll.head.contains("canary") && poll.header("authorization").is_none());
    }
    assert!(asked.iter().any(|asked| asked.path == "/moved/moved"));
    assert!(!asked.iter().any(|asked| asked.path.contains("misnamed")));
    assert!(elsewhere.asked().is_empty(), "{:?}", elsewhere.asked());
}

/// Runs a daemon that trusts the certificate until every good stream has told its job, and every other one its error.
fn watched(pem: &str, sources: &str) -> Value {
    let shell = Shell::alone();
    let file = |name: &str| shell.path().join(name);
    let module = "plugins/target/wasm32-unknown-unknown/release/fixture_live.wasm";
    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join(module);
    std::fs::copy(module, file("live.wasm")).unwrap();
    std::fs::write(file("roots.pem"), pem).unwrap();
    std::fs::write(file("secret"), CANARY).unwrap();
    configure(
        &shell,
        &format!(r#"(http: (listen: "127.0.0.1:0"), data_dir: "data", sources: [{sources}])"#),
    );
    let roots = file("roots.pem").display().to_string();
    let daemon = Daemon::with(&shell, &[], &[("SSL_CERT_FILE", &roots)]);
    let json = |what: &str| -> Value {
        let output = shell.weir(&["--url", &daemon.url, what, "--json"]);
        assert_eq!(code(&output), 0, "{}", err(&output));
        serde_json::from_str(&out(&output)).unwrap()
    };
    let began = Instant::now();
    loop {
        let (jobs, sources) = (json("list"), json("sources"));
        let told = jobs["items"].as_array().unwrap().len();
        let is_known = |source: &Value| {
            source["rung"] == "poll+stream" || source["stream"]["last_error"].is_string()
        };
        if told == 6 && sources["items"].as_array().unwrap().iter().all(is_known) {
            return sources;
        }
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "{jobs:#}\n{sources:#}"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}
