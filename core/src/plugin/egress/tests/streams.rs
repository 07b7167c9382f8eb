//! Websockets and event streams take the same way as requests.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

fn stream(url: &str) -> StreamRequest {
    StreamRequest {
        url: url.into(),
        ..StreamRequest::default()
    }
}

/// When the kernel asks next whether the far side at `port` is still there, of every connection to it that does so.
fn asked_in(port: u16) -> Vec<Duration> {
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let hundredth = |hex: &str| Duration::from_millis(u64::from_str_radix(hex, 16).unwrap() * 10);
    let rows = table.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_ours = fields[2].ends_with(&format!(":{port:04X}")) && fields[3] == "01";
        let (timer, when) = fields[5].split_once(':')?;
        // 02 is keepalive, where nothing was just sent.
        (is_ours && timer == "02").then(|| hundredth(when))
    });
    rows.collect()
}

/// Waits until nothing is under way on the connection, so that its one timer is the one for keepalive.
async fn next_asked_in(port: u16) -> Duration {
    for _ in 0..1000 {
        if let [when] = asked_in(port)[..]
            && when > Duration::from_secs(1)
        {
            return when;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("no connection to {port} is kept alive");
}

#[tokio::test]
async fn the_kernel_asks_a_silent_far_side_whether_it_is_still_there() {
    // It accepts, and says no more than a head.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let held = std::thread::spawn(move || {
        let mut held: Vec<_> = (0..2).map(|_| listener.accept().unwrap().0).collect();
        let mut request = Vec::new();
        while !is_whole(&request) {
            let mut byte = [0];
            held[1].read_exact(&mut byte).unwrap();
            request.extend(byte);
        }
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
        held[1].write_all(head.as_bytes()).unwrap();
        held
    });
    let url = format!("http://127.0.0.1:{port}");
    let egress = egress(&[&url]);
    let near = |found: Duration, silence: u64| {
        let silence = Duration::from_secs(silence);
        assert!(found <= silence && found + Duration::from_secs(10) > silence);
    };
    let silent_for = |seconds| StreamRequest {
        silence: Duration::from_secs(seconds),
        ..stream(&url)
    };
    let socket = egress.connect(silent_for(70)).await.unwrap();
    near(next_asked_in(port).await, 70);
    drop(socket);
    let events = egress.open_events(silent_for(90)).await.unwrap();
    near(next_asked_in(port).await, 90);
    drop((events, held.join().unwrap()));
}

async fn refused(egress: &Egress, request: StreamRequest) -> Failure {
    let shown = format!("{request:?}");
    let socket = egress.connect(request.clone()).await;
    let socket = socket.map(|_| ()).expect_err(&shown);
    let events = egress.open_events(request).await;
    let events = events.map(|_| ()).expect_err(&shown);
    assert_eq!(socket, events);
    socket
}

#[tokio::test]
async fn a_connection_goes_to_the_checked_address_with_the_credential() {
    let (port, asked) = server(OK);
    let rule = format!("http://comfy.example:{port}");
    let mut egress = egress(&[&rule]);
    let bound = vec![AllowRule::parse(&rule).unwrap()];
    let bearer = Credential::new(Scheme::Bearer(Secret::new("canary")), bound).unwrap();
    egress.grant.credentials.insert("key".into(), bearer);
    for url in [
        format!("ws://comfy.example:{port}/ws?clientId=1"),
        format!("WS://comfy.example:{port}/ws?clientId=1"),
        format!("http://comfy.example:{port}/ws?clientId=1"),
    ] {
        let request = StreamRequest {
            headers: vec![("x-a".into(), "b".into())],
            credential: Some("key".into()),
            ..stream(&url)
        };
        let mut open = egress.connect(request).await.unwrap();
        assert_eq!(
            open.url.as_str(),
            format!("ws://comfy.example:{port}/ws?clientId=1")
        );
        assert_eq!(open.headers["authorization"], "Bearer canary");
        assert_eq!(open.headers["x-a"], "b");
        assert_eq!(open.headers["user-agent"], "weir/test");
        open.socket
            .write_all(b"GET / HTTP/1.1\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        open.socket.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, OK);
        assert!(asked.recv().unwrap().starts_with("GET / "));
    }
    assert_eq!(egress.requests(), 3);
}

#[tokio::test]
async fn an_event_stream_is_a_get_that_is_read_bit_by_bit() {
    let answer = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\ndata: 1\n\n";
    let (port, asked) = server(answer);
    let url = format!("http://127.0.0.1:{port}");
    let mut body = egress(&[&url]).open_events(stream(&url)).await.unwrap();
    assert_eq!(
        (body.status(), body.header("content-type")),
        (200, Some("text/event-stream"))
    );
    assert_eq!(body.chunk().await.unwrap().unwrap(), "data: 1\n\n");
    assert!(body.chunk().await.unwrap().is_none());
    assert!(
        asked
            .recv()
            .unwrap()
            .contains("accept: text/event-stream\r\n")
    );
    let (elsewhere, secret) = server(OK);
    let moved = format!(
        "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:{elsewhere}/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    let (port, _asked) = server(&moved);
    let url = format!("http://127.0.0.1:{port}");
    let body = egress(&[&url]).open_events(stream(&url)).await.unwrap();
    assert_eq!(body.status(), 302);
    assert!(secret.try_recv().is_err());
}

#[tokio::test]
async fn what_is_denied_to_a_request_is_denied_to_a_stream() {
    let egress = egress(&[
        "http://127.0.0.1:9",
        "https://api.example.com",
        "http://*.example.com",
        "http://metadata.example.net",
    ]);
    for url in [
        "ws://127.0.0.1:10/ws",
        "wss://127.0.0.1:9/ws",
        "ws://api.example.com/ws",
        "ws://evil.example.net/ws",
        "ws://user:pw@127.0.0.1:9/ws",
        "ws:evil.example.net",
        "ftp://127.0.0.1:9/",
        "/ws",
        // A wildcard never leads to a private address, here the resolver's 127.0.0.1.
        "ws://a.example.com/ws",
        "credential:/ws",
    ] {
        let failure = refused(&egress, stream(url)).await;
        assert_eq!(failure.kind, Some(FailureKind::Misconfigured), "{url}");
        assert!(
            failure.message.starts_with("denied: "),
            "{url}: {}",
            failure.message
        );
    }
    for header in [
        "host",
        "sec-websocket-key",
        "Sec-WebSocket-Protocol",
        "upgrade",
        "connection",
    ] {
        let request = StreamRequest {
            headers: vec![(header.into(), "x".into())],
            ..stream("ws://127.0.0.1:9/ws")
        };
        let failure = refused(&egress, request).await;
        assert!(
            failure.message.starts_with("denied: "),
            "{}",
            failure.message
        );
    }
    assert_eq!(egress.requests(), 0);
}

#[tokio::test]
async fn metadata_is_no_stream_either_and_a_rebinding_name_is_not_asked_twice() {
    let (port, _asked) = server(OK);
    let rule = format!("http://rebind.example:{port}");
    let resolver = Scripted::new(&[&["127.0.0.1"], &["169.254.169.254"]]);
    let egress = egress_with(&[&rule], resolver, &Limits::default());
    let url = format!("ws://rebind.example:{port}/");
    assert!(egress.connect(stream(&url)).await.is_ok());
    let failure = refused(&egress, stream(&url)).await;
    assert!(
        failure.message.contains("169.254.169.254"),
        "{}",
        failure.message
    );
}

#[tokio::test]
async fn a_credential_toward_a_wrong_origin_is_denied_to_a_stream() {
    let mut egress = egress(&["http://127.0.0.1:9", "http://127.0.0.1:10"]);
    let bound = || vec![AllowRule::parse("http://127.0.0.1:9").unwrap()];
    let bearer = Scheme::Bearer(Secret::new("canary"));
    let bearer = Credential::new(bearer, bound()).unwrap();
    egress.grant.credentials.insert("key".into(), bearer);
    let secret = Credential::new(Scheme::Secret(Secret::new("canary")), bound()).unwrap();
    egress.grant.credentials.insert("token".into(), secret);
    let named = StreamRequest {
        credential: Some("key".into()),
        ..stream("ws://127.0.0.1:10/")
    };
    for request in [named, stream("ws://127.0.0.1:10/{{secret:token}}")] {
        let failure = refused(&egress, request).await;
        assert!(
            failure.message.contains("is bound to"),
            "{}",
            failure.message
        );
        assert!(!failure.message.contains("canary"), "{}", failure.message);
    }
}

#[tokio::test]
async fn a_secret_url_serves_a_stream_and_its_failures_begin_with_their_cause() {
    let (port, _asked) = server(OK);
    let mut egress = egress(&["https://127.0.0.1:9"]);
    let url = Scheme::Url(Secret::new(format!("http://127.0.0.1:{port}/secret")));
    let url = Credential::new(url, vec![]).unwrap();
    egress.grant.credentials.insert("base".into(), url);
    let request = StreamRequest {
        credential: Some("base".into()),
        ..stream("credential:/ws")
    };
    let open = egress.connect(request).await.unwrap();
    assert_eq!(
        open.url.as_str(),
        format!("ws://127.0.0.1:{port}/secret/ws")
    );
    let failure = egress.connect(stream("wss://127.0.0.1:9/")).await;
    let failure = failure.map(|_| ()).unwrap_err();
    assert!(
        failure.message.starts_with("connect: "),
        "{}",
        failure.message
    );
    let plain = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = plain.local_addr().unwrap();
    std::thread::spawn(move || plain.accept().unwrap().0.write_all(b"no tls at all\r\n"));
    let egress = super::egress(&[&format!("https://{address}")]);
    let failure = egress.connect(stream(&format!("wss://{address}/"))).await;
    let failure = failure.map(|_| ()).unwrap_err();
    assert!(failure.message.starts_with("tls: "), "{}", failure.message);
}
