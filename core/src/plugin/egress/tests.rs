//! One test per way around the allow-list.

mod google;
mod secrets;
mod streams;

use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::pin::Pin;
use std::sync::mpsc;

use super::rule::Reach;
use url::Url;

use super::answer::status_failure;
use super::*;
use crate::plugin::credential::{Scheme, Secret};

/// Answers each question with the next set of addresses; the last one stays.
struct Scripted(Mutex<VecDeque<Vec<IpAddr>>>);

impl Scripted {
    fn new(answers: &[&[&str]]) -> Arc<Scripted> {
        let parse = |answer: &&[&str]| answer.iter().map(|ip| ip.parse().unwrap()).collect();
        Arc::new(Scripted(Mutex::new(answers.iter().map(parse).collect())))
    }
}

impl Resolve for Scripted {
    fn resolve<'a>(
        &'a self,
        _host: &'a str,
    ) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'a>> {
        let mut answers = self.0.lock().unwrap();
        let answer = if answers.len() > 1 {
            answers.pop_front().unwrap()
        } else {
            answers[0].clone()
        };
        Box::pin(async move { Ok(answer) })
    }
}

fn egress_with(allow: &[&str], resolver: Arc<dyn Resolve>, limits: &Limits) -> Egress {
    let grant = EgressGrant {
        plugin: "p".into(),
        entry: "e".into(),
        allow: allow
            .iter()
            .map(|rule| AllowRule::parse(rule).unwrap())
            .collect(),
        credentials: BTreeMap::new(),
        redactor: Redactor::default(),
        user_agent: "weir/test".into(),
    };
    Egress::new(grant, limits, resolver)
}

fn egress(allow: &[&str]) -> Egress {
    egress_with(allow, Scripted::new(&[&["127.0.0.1"]]), &Limits::default())
}

fn get(url: &str) -> HttpRequest {
    HttpRequest {
        method: "GET".into(),
        url: url.into(),
        ..HttpRequest::default()
    }
}

/// Answers every connection with `answer` and tells what it was asked.
fn server(answer: &str) -> (u16, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tx, rx) = mpsc::channel();
    let answer = answer.to_owned();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut request = Vec::new();
            let mut buffer = [0; 4096];
            while !is_whole(&request) {
                match stream.read(&mut buffer) {
                    Ok(n) if n > 0 => request.extend_from_slice(&buffer[..n]),
                    _ => break,
                }
            }
            let _ = stream.write_all(answer.as_bytes());
            if tx
                .send(String::from_utf8_lossy(&request).into_owned())
                .is_err()
            {
                return;
            }
        }
    });
    (port, rx)
}

/// Head and announced body have arrived.
fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, _)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let announced = head.lines().find_map(|line| {
        let line = line.to_ascii_lowercase();
        line.strip_prefix("content-length: ")?.parse::<usize>().ok()
    });
    request.len() >= head.len() + 4 + announced.unwrap_or(0)
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";

fn granted(allow: &[&str], url: &str) -> bool {
    let origin = Url::parse(url).map(|url| Origin::of(&url));
    matches!(origin, Ok(Ok(origin)) if egress(allow).granted_with(&origin, &[]).is_ok())
}

#[test]
fn a_rule_grants_its_origin_and_nothing_near_it() {
    let table = [
        (
            "http://127.0.0.1:8188",
            "http://127.0.0.1:8188/queue?x#y",
            true,
        ),
        ("http://127.0.0.1:8188", "http://127.0.0.1:8189/", false),
        ("http://127.0.0.1:8188", "http://127.0.0.1/", false),
        ("http://127.0.0.1:8188", "https://127.0.0.1:8188/", false),
        (
            "https://api.example.com",
            "https://api.example.com:443/a",
            true,
        ),
        ("https://api.example.com", "https://API.Example.COM/", true),
        ("https://api.example.com", "http://api.example.com/", false),
        (
            "https://api.example.com",
            "https://api.example.com:8443/",
            false,
        ),
        (
            "https://api.example.com",
            "https://api.example.com./",
            false,
        ),
        (
            "https://api.example.com",
            "https://api.example.com.evil.net/",
            false,
        ),
        (
            "https://api.example.com",
            "https://evil-api.example.com/",
            false,
        ),
        (
            "https://api.example.com",
            "https://api.example.com@evil.net/",
            false,
        ),
        (
            "https://api.example.com",
            "https://user:pw@api.example.com/",
            false,
        ),
        (
            "https://api.example.com",
            "https://user@api.example.com/",
            false,
        ),
        ("https://api.example.com", "https:api.example.com/", true),
        (
            "https://api.example.com",
            "https:\\\\api.example.com\\x",
            true,
        ),
        (
            "https://api.example.com",
            "https://evil.net\\@api.example.com/",
            false,
        ),
        ("https://api.example.com", "ws://api.example.com/", false),
        ("https://api.example.com", "ftp://api.example.com/", false),
        ("https://api.example.com", "file:///etc/passwd", false),
        ("https://api.example.com", "data:text/plain,x", false),
    ];
    check_granted(&table);
}

#[test]
fn a_wildcard_stands_for_exactly_one_label() {
    let table = [
        ("https://*.example.com", "https://a.example.com/", true),
        ("https://*.example.com", "https://example.com/", false),
        ("https://*.example.com", "https://a.b.example.com/", false),
        ("https://*.example.com", "https://.example.com/", false),
        ("https://*.example.com", "https://aexample.com/", false),
        (
            "https://*.example.com",
            "https://a.example.com.evil.net/",
            false,
        ),
        ("https://*.example.com", "http://a.example.com/", false),
    ];
    check_granted(&table);
}

#[test]
fn a_host_is_compared_in_the_one_form_that_it_is_connected_by() {
    let table = [
        // IDNA: one form for both, and a look-alike is another host.
        (
            "https://bücher.example",
            "https://xn--bcher-kva.example/",
            true,
        ),
        (
            "https://xn--bcher-kva.example",
            "https://BÜCHER.example/",
            true,
        ),
        ("https://example.com", "https://ex\u{0430}mple.com/", false),
        ("https://example.com", "https://ｅxample.com/", true),
        ("https://example.com", "https://example\u{3002}com/", true),
        // Addresses in disguise are the address.
        ("http://127.0.0.1", "http://2130706433/", true),
        ("http://127.0.0.1", "http://0x7f.1/", true),
        ("http://127.0.0.1", "http://0177.0.0.1/", true),
        ("http://127.0.0.1", "http://[::ffff:127.0.0.1]/", true),
        ("http://127.0.0.1", "http://[::1]/", false),
        ("http://10.0.0.1", "http://167772162/", false),
        ("http://localhost", "http://127.0.0.1/", false),
    ];
    check_granted(&table);
}

/// (rule, URL, whether it is granted)
fn check_granted(table: &[(&str, &str, bool)]) {
    for (rule, url, expected) in table {
        assert_eq!(granted(&[rule], url), *expected, "{rule} and {url}");
    }
}

#[test]
fn a_rule_that_says_too_much_is_refused() {
    let table = [
        ("127.0.0.1:8188", RuleError::NoScheme),
        ("ws://example.com", RuleError::Scheme),
        ("https://example.com/path", RuleError::Path),
        ("https://example.com?x", RuleError::Path),
        ("https://u:p@example.com", RuleError::Userinfo),
        ("https://example.com.", RuleError::TrailingDot),
        ("https://*", RuleError::Wildcard),
        ("https://*.com", RuleError::Wildcard),
        ("https://a.*.com", RuleError::Wildcard),
        ("https://**.example.com", RuleError::Wildcard),
        ("https://*.10.0.0.1", RuleError::Wildcard),
        ("https://*.0x7f.1", RuleError::Wildcard),
    ];
    for (text, expected) in table {
        assert_eq!(AllowRule::parse(text), Err(expected), "{text}");
    }
    for text in [
        "http://127.0.0.1:8188",
        "https://*.googleapis.com",
        "https://[::1]:8443",
    ] {
        assert_eq!(AllowRule::parse(text).unwrap().to_string(), text);
    }
}

#[test]
fn the_urls_of_the_configuration_are_what_is_allowed_when_nothing_is_said() {
    let config = serde_json::json!({
        "url": "http://gpu2.local:8188/sub?x", "n": 3, "text": "see http://not.this",
        "more": [{"u": "https://b.example"}, "ftp://c.example", "http://gpu2.local:8188"],
    });
    let rules: Vec<String> = AllowRule::from_config(&config)
        .iter()
        .map(AllowRule::to_string)
        .collect();
    assert_eq!(rules.len(), 2);
    assert!(rules.contains(&"http://gpu2.local:8188".to_owned()));
    assert!(rules.contains(&"https://b.example".to_owned()));
}

#[test]
fn addresses_are_classified_by_where_a_packet_would_go() {
    let table = [
        ("8.8.8.8", Reach::Public),
        ("2606:4700::1111", Reach::Public),
        ("127.0.0.1", Reach::Private),
        ("127.255.0.9", Reach::Private),
        ("::1", Reach::Private),
        ("10.1.2.3", Reach::Private),
        ("172.16.0.1", Reach::Private),
        ("172.32.0.1", Reach::Public),
        ("192.168.1.1", Reach::Private),
        ("100.64.0.1", Reach::Private),
        ("fd12::1", Reach::Private),
        ("::ffff:10.0.0.1", Reach::Private),
        ("::10.0.0.1", Reach::Private),
        ("64:ff9b::a00:1", Reach::Private),
        ("2002:a00:1::", Reach::Private),
        ("169.254.169.254", Reach::Special),
        ("::ffff:169.254.169.254", Reach::Special),
        ("64:ff9b::a9fe:a9fe", Reach::Special),
        ("2002:a9fe:a9fe::1", Reach::Special),
        ("fe80::1", Reach::Special),
        ("fd00:ec2::254", Reach::Special),
        ("100.100.100.200", Reach::Special),
        ("168.63.129.16", Reach::Special),
        ("0.0.0.0", Reach::Special),
        ("0.1.2.3", Reach::Special),
        ("::", Reach::Special),
        ("224.0.0.1", Reach::Special),
        ("ff02::1", Reach::Special),
        ("255.255.255.255", Reach::Special),
        ("240.0.0.1", Reach::Special),
    ];
    for (address, expected) in table {
        assert_eq!(reach(address.parse().unwrap()), expected, "{address}");
    }
}

#[tokio::test]
async fn forbidden_addresses_are_dropped_and_the_rest_is_pinned() {
    // (rule, what the name resolves to, what may be connected to)
    let table: [(&str, &[&str], &[&str]); 9] = [
        (
            "https://*.example.com",
            &["8.8.8.8", "10.0.0.1"],
            &["8.8.8.8"],
        ),
        (
            "https://*.example.com",
            &["10.0.0.1", "::1", "::ffff:127.0.0.1"],
            &[],
        ),
        ("https://*.example.com", &["169.254.169.254"], &[]),
        (
            "https://*.example.com",
            &["64:ff9b::7f00:1", "2606:4700::1"],
            &["2606:4700::1"],
        ),
        (
            "https://a.example.com",
            &["8.8.8.8", "10.0.0.1"],
            &["8.8.8.8", "10.0.0.1"],
        ),
        (
            "https://a.example.com",
            &["169.254.169.254", "10.0.0.1"],
            &["10.0.0.1"],
        ),
        (
            "https://a.example.com",
            &["0.0.0.0", "ff02::1", "fe80::1"],
            &[],
        ),
        ("https://a.example.com", &["::ffff:8.8.8.8"], &["8.8.8.8"]),
        ("https://a.example.com", &[], &[]),
    ];
    let origin = Origin::of(&Url::parse("https://a.example.com/").unwrap()).unwrap();
    for (rule, found, expected) in table {
        let egress = egress_with(&[rule], Scripted::new(&[found]), &Limits::default());
        let granted = egress.granted_with(&origin, &[]).unwrap();
        let open: Vec<String> = match egress.resolve(&origin, granted).await {
            Ok(open) => open
                .iter()
                .map(|address| address.ip().to_string())
                .collect(),
            Err(_) => vec![],
        };
        assert_eq!(open, expected, "{rule} and {found:?}");
    }
}

#[tokio::test]
async fn special_addresses_are_reached_only_as_the_literal_that_the_operator_wrote() {
    let metadata = "http://169.254.169.254";
    let origin = Origin::of(&Url::parse(metadata).unwrap()).unwrap();
    let literal = egress(&[metadata]);
    let granted = literal.granted_with(&origin, &[]).unwrap();
    assert!(literal.resolve(&origin, granted).await.is_ok());
    for url in ["http://metadata.google.internal/", "http://a.example.com/"] {
        let rule = url.trim_end_matches('/');
        let resolver = Scripted::new(&[&["169.254.169.254"]]);
        let named = egress_with(&[rule], resolver, &Limits::default());
        let failure = named.send(get(url), &mut 0).await.unwrap_err();
        assert_eq!(failure.kind, Some(FailureKind::Misconfigured));
        assert!(
            failure.message.starts_with("denied: "),
            "{}",
            failure.message
        );
    }
}

#[tokio::test]
async fn an_answer_that_changes_between_check_and_connect_changes_nothing() {
    let (port, asked) = server(OK);
    // The resolver is asked once a request: the first answer is ours, the second would be somebody else's.
    let resolver = Scripted::new(&[&["127.0.0.1"], &["169.254.169.254"]]);
    let url = format!("http://rebind.example:{port}");
    let egress = egress_with(&[&url], resolver, &Limits::default());
    assert_eq!(egress.send(get(&url), &mut 0).await.unwrap().body, b"ok");
    assert!(
        asked
            .recv()
            .unwrap()
            .contains(&format!("host: rebind.example:{port}\r\n"))
    );
    let failure = egress.send(get(&url), &mut 0).await.unwrap_err();
    assert!(
        failure.message.contains("169.254.169.254"),
        "{}",
        failure.message
    );
    assert_eq!(egress.requests(), 1);
}

#[tokio::test]
async fn a_redirect_comes_back_and_is_not_followed() {
    let (denied_port, denied) = server(OK);
    for target in [
        format!("http://127.0.0.1:{denied_port}/"),
        "http://169.254.169.254/computeMetadata/v1/".to_owned(),
        "//metadata.google.internal/".to_owned(),
        "/elsewhere".to_owned(),
    ] {
        for status in [301, 302, 303, 307, 308] {
            let answer = format!(
                "HTTP/1.1 {status} X\r\nlocation: {target}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            );
            let (port, asked) = server(&answer);
            let url = format!("http://127.0.0.1:{port}");
            let egress = egress(&[&url]);
            let response = egress.send(get(&url), &mut 0).await.unwrap();
            assert_eq!(response.status, status);
            let location = response.headers.iter().find(|(name, _)| name == "location");
            assert_eq!(location.unwrap().1, target);
            assert_eq!(egress.requests(), 1);
            assert!(asked.recv().is_ok() && asked.try_recv().is_err());
            let failure = egress.fetch(get(&url), &mut 0).await.unwrap_err();
            assert_eq!(failure.kind, Some(FailureKind::Permanent));
        }
    }
    assert!(denied.try_recv().is_err());
}

/// The variables must be there before the process starts, so the test runs itself once more.
#[test]
fn proxy_variables_are_ignored() {
    const CHILD: &str = "WEIR_TEST_PROXY_CHILD";
    if std::env::var_os(CHILD).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (port, _asked) = server(OK);
            let url = format!("http://comfy.example:{port}");
            let response = egress(&[&url]).send(get(&url), &mut 0).await.unwrap();
            assert_eq!(response.body, b"ok");
        });
        return;
    }
    let (proxy_port, proxied) = server(OK);
    let proxy = format!("http://127.0.0.1:{proxy_port}");
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    for variable in [
        "http_proxy",
        "HTTP_PROXY",
        "https_proxy",
        "ALL_PROXY",
        "all_proxy",
    ] {
        child.env(variable, &proxy);
    }
    let name = "plugin::egress::tests::proxy_variables_are_ignored";
    let output = child
        .env(CHILD, "1")
        .args(["--exact", name])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}"
    );
    assert!(proxied.try_recv().is_err());
}

#[tokio::test]
async fn a_credential_goes_only_to_its_own_origins_and_never_beside_the_guests_own() {
    let (port, asked) = server(OK);
    let (mine, other) = (
        format!("http://127.0.0.1:{port}"),
        "http://127.0.0.1:9".to_owned(),
    );
    let mut egress = egress(&[&mine, &other]);
    let bound = vec![AllowRule::parse(&mine).unwrap()];
    let header = Scheme::Header {
        name: "X-Key".into(),
        value: Secret::new("canary"),
    };
    for (name, scheme) in [("b", Scheme::Bearer(Secret::new("canary"))), ("h", header)] {
        let credential = Credential::new(scheme, bound.clone()).unwrap();
        egress.grant.credentials.insert(name.into(), credential);
    }
    let signed = |url: &str, name: &str, headers: &[(&str, &str)]| HttpRequest {
        credential: Some(name.into()),
        headers: headers
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
            .collect(),
        ..get(url)
    };
    let refused = [
        signed(&other, "b", &[]),
        signed(&other, "h", &[]),
        signed(&mine, "nobody", &[]),
        signed(&mine, "b", &[("Authorization", "Bearer x")]),
        signed(&mine, "h", &[("authorization", "Bearer x")]),
        signed(&mine, "h", &[("x-key", "x")]),
    ];
    for request in refused {
        let failure = egress.send(request, &mut 0).await.unwrap_err();
        assert_eq!(failure.kind, Some(FailureKind::Misconfigured));
        assert!(!failure.message.contains("canary"));
    }
    assert_eq!(egress.requests(), 0);
    egress.send(signed(&mine, "b", &[]), &mut 0).await.unwrap();
    assert!(
        asked
            .recv()
            .unwrap()
            .contains("authorization: Bearer canary\r\n")
    );
    egress
        .send(signed(&mine, "h", &[("accept", "x/y")]), &mut 0)
        .await
        .unwrap();
    let request = asked.recv().unwrap();
    assert!(request.contains("x-key: canary\r\n") && request.contains("accept: x/y\r\n"));
}

#[tokio::test]
async fn headers_that_frame_or_route_are_the_hosts_alone() {
    let egress = egress(&["http://127.0.0.1:9"]);
    for (name, value) in [
        ("Host", "evil.example"),
        ("Transfer-Encoding", "chunked"),
        ("Content-Length", "0"),
        ("Connection", "upgrade"),
        ("Upgrade", "websocket"),
        ("Proxy-Authorization", "x"),
        ("TE", "trailers"),
        ("Expect", "100-continue"),
        ("x\r\nevil", "y"),
        ("x-ok", "a\r\nevil: b"),
        ("x-ok", "a\nb"),
        ("x ok", "a"),
        ("", "a"),
    ] {
        let request = HttpRequest {
            headers: vec![(name.into(), value.into())],
            ..get("http://127.0.0.1:9/")
        };
        let failure = egress.send(request, &mut 0).await.unwrap_err();
        assert!(
            failure.message.starts_with("denied: "),
            "{name}: {}",
            failure.message
        );
    }
    for method in ["CONNECT", "TRACE", "GET / HTTP/1.1\r\nx: y", ""] {
        let request = HttpRequest {
            method: method.into(),
            ..get("http://127.0.0.1:9/")
        };
        let failure = egress.send(request, &mut 0).await.unwrap_err();
        assert!(
            failure.message.starts_with("denied: method"),
            "{}",
            failure.message
        );
    }
    assert_eq!(egress.requests(), 0);
}

#[tokio::test]
async fn an_answer_over_the_limit_is_too_large_and_never_cut() {
    let limits = Limits {
        http_response_bytes: 10,
        http_request_bytes: 10,
        ..Limits::default()
    };
    let announced = "HTTP/1.1 200 OK\r\ncontent-length: 11\r\nconnection: close\r\n\r\n01234567890";
    let unannounced = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n01234567890";
    for answer in [announced, unannounced] {
        let (port, _asked) = server(answer);
        let url = format!("http://127.0.0.1:{port}");
        let egress = egress_with(&[&url], Scripted::new(&[&[]]), &limits);
        let failure = egress.send(get(&url), &mut 0).await.unwrap_err();
        assert_eq!(failure.kind, Some(FailureKind::Permanent));
        assert!(
            failure.message.starts_with("too-large: "),
            "{}",
            failure.message
        );
        let request = HttpRequest {
            body: Some(vec![0; 11]),
            ..get(&url)
        };
        let failure = egress.send(request, &mut 0).await.unwrap_err();
        assert!(
            failure.message.starts_with("too-large: the request"),
            "{}",
            failure.message
        );
    }
}

#[tokio::test]
async fn failures_begin_with_their_cause() {
    let check = async |egress: &Egress, request: HttpRequest, cause: &str| {
        let failure = egress.send(request, &mut 0).await.unwrap_err();
        assert_eq!(failure.kind, Some(FailureKind::Transient));
        assert!(failure.message.starts_with(cause), "{}", failure.message);
    };
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let closed = format!("http://{closed}");
    let path = get(&format!("{closed}/a/path?a=query"));
    let refused = format!("connect: {closed}: Connection refused");
    check(&egress(&[&closed]), path, &refused).await;
    let (port, _asked) = server("no http at all\r\n\r\n");
    let url = format!("http://127.0.0.1:{port}");
    check(&egress(&[&url]), get(&url), "protocol: ").await;
    let (port, _asked) =
        server("HTTP/1.1 200 OK\r\ncontent-length: 9\r\nconnection: close\r\n\r\nhalf");
    let url = format!("http://127.0.0.1:{port}");
    check(&egress(&[&url]), get(&url), "protocol: ").await;
    let plain = TcpListener::bind("127.0.0.1:0").unwrap();
    let tls = format!("https://{}", plain.local_addr().unwrap());
    std::thread::spawn(move || plain.accept().unwrap().0.write_all(b"no tls at all\r\n"));
    check(&egress(&[&tls]), get(&tls), "tls: ").await;
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let request = HttpRequest {
        timeout: Some(Duration::from_millis(50)),
        ..get(&url)
    };
    check(&egress(&[&url]), request, "timeout: ").await;
    let nowhere = egress_with(
        &["http://a.example"],
        Scripted::new(&[&[]]),
        &Limits::default(),
    );
    check(&nowhere, get("http://a.example/"), "dns: ").await;
}

#[tokio::test]
async fn a_call_has_a_number_of_requests() {
    let (port, _asked) = server(OK);
    let url = format!("http://127.0.0.1:{port}");
    let limits = Limits {
        http_requests_per_call: 3,
        ..Limits::default()
    };
    let egress = egress_with(&[&url], Scripted::new(&[&[]]), &limits);
    let mut call_requests = 0;
    for _ in 0..3 {
        egress.send(get(&url), &mut call_requests).await.unwrap();
    }
    let failure = egress
        .send(get(&url), &mut call_requests)
        .await
        .unwrap_err();
    assert_eq!(
        failure.message,
        "protocol: more than 3 requests in one call"
    );
    assert!(egress.send(get(&url), &mut 0).await.is_ok());
}

#[test]
fn twenty_requests_a_second_go_and_the_next_ones_wait_their_turn() {
    let now = Instant::now();
    let mut rate = Rate::new(20, now);
    for _ in 0..20 {
        assert_eq!(rate.reserve(now), Duration::ZERO);
    }
    assert_eq!(rate.reserve(now), Duration::from_millis(50));
    assert_eq!(rate.reserve(now), Duration::from_millis(100));
    let later = now + Duration::from_secs(10);
    assert_eq!(rate.reserve(later), Duration::ZERO);
}

#[test]
fn a_status_says_what_to_do_about_it() {
    let now: jiff::Timestamp = "1994-11-06T08:49:00Z".parse().unwrap();
    let failed = |status: u16, retry_after: Option<&str>| {
        let header = |value: &str| ("retry-after".to_owned(), value.to_owned());
        let response = HttpResponse {
            status,
            headers: retry_after.map(header).into_iter().collect(),
            body: "<h1>no\u{1b}</h1>".into(),
        };
        status_failure(&response, now, str::to_owned)
    };
    for (statuses, kind) in [
        (&[408, 425, 429, 500, 503][..], FailureKind::Transient),
        (&[401, 403], FailureKind::Misconfigured),
        (&[404, 410], FailureKind::NotFound),
        (&[300, 302, 400, 409, 422], FailureKind::Permanent),
    ] {
        for status in statuses {
            assert_eq!(failed(*status, None).kind, Some(kind), "{status}");
        }
    }
    assert_eq!(failed(500, None).message, "status 500: <h1>no\\u{1b}</h1>");
    let seconds = |n| Some(Duration::from_secs(n));
    assert_eq!(failed(429, Some("7")).retry_after, seconds(7));
    assert_eq!(
        failed(503, Some("Sun, 06 Nov 1994 08:49:37 GMT")).retry_after,
        seconds(37)
    );
    assert_eq!(
        failed(503, Some("Sun, 06 Nov 1994 08:00:00 GMT")).retry_after,
        seconds(0)
    );
    assert_eq!(failed(503, Some("4000000000")).retry_after, seconds(86_400));
    assert_eq!(failed(503, Some("soon")).retry_after, None);
    assert_eq!(failed(404, Some("7")).retry_after, None);
}

#[tokio::test]
async fn a_denial_is_logged_with_the_line_to_paste() {
    let lines = capture::lines(async {
        let egress = egress(&["https://*.example.com"]);
        for _ in 0..3 {
            let _ = egress
                .send(get("http://10.0.0.5:8188/queue?token=x"), &mut 0)
                .await;
        }
        let _ = egress.send(get("https://a.example.com/"), &mut 0).await;
    })
    .await;
    let pasted =
        "plugin e wanted http://10.0.0.5:8188; to allow: allow: [\"http://10.0.0.5:8188\"]";
    assert_eq!(lines.matches(pasted).count(), 1, "{lines}");
    let private = "plugin e wanted https://a.example.com at 127.0.0.1; to allow: allow: [\"https://a.example.com\"]";
    assert!(lines.contains(private), "{lines}");
    assert!(!lines.contains("token"), "{lines}");
}

mod capture {
    use std::io;
    use std::sync::{Arc, Mutex};

    use tracing::instrument::WithSubscriber;

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

    /// What `future` logs, of every level.
    pub(super) async fn lines(future: impl Future<Output = ()>) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .with_max_level(tracing::Level::TRACE)
            .finish();
        future.with_subscriber(subscriber).await;
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }
}
