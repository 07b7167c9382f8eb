//! Where secrets go, and where they never do.

use serde_json::{Value, json};

use super::*;

/// The secret that must not be seen.
const CANARY: &str = "cAnArY/é\"+ 0123456789";

fn egress_of(allow: &[&str], credentials: &[(&str, Scheme, &[&str])]) -> Egress {
    let mut egress = egress(allow);
    for (name, scheme, origins) in credentials {
        let origins = origins.iter().map(|rule| AllowRule::parse(rule).unwrap());
        let credential = Credential::new(scheme.clone(), origins.collect()).unwrap();
        egress.grant.credentials.insert((*name).into(), credential);
    }
    egress.grant.redactor = Redactor::of(&egress.grant.credentials);
    egress
}

fn secret(text: &str) -> Scheme {
    Scheme::Secret(Secret::new(text))
}

fn post(url: &str, body: &str) -> HttpRequest {
    HttpRequest {
        method: "POST".into(),
        body: Some(body.into()),
        ..get(url)
    }
}

async fn refused(egress: &Egress, request: HttpRequest) -> String {
    let shown = format!("{request:?}");
    let failure = egress.send(request, &mut 0).await.expect_err(&shown);
    assert_eq!(failure.kind, Some(FailureKind::Misconfigured), "{shown}");
    assert!(
        failure.message.starts_with("denied: "),
        "{}",
        failure.message
    );
    assert!(!failure.message.contains("cAnArY"), "{}", failure.message);
    failure.message
}

#[tokio::test]
async fn a_secret_url_is_extended_by_the_guest_and_never_left() {
    let (port, asked) = server(OK);
    let origin = format!("http://127.0.0.1:{port}");
    let base = format!("{origin}/services/cAnArY0123456789/");
    let with_query = format!("{origin}/hook?sig=cAnArY0123456789");
    let egress = egress_of(
        &[],
        &[
            ("path", Scheme::Url(Secret::new(base)), &[]),
            ("query", Scheme::Url(Secret::new(with_query)), &[]),
        ],
    );
    let named = |name: &str, url: &str| HttpRequest {
        credential: Some(name.into()),
        ..get(url)
    };
    for (name, url, expected) in [
        ("path", "credential:", "/services/cAnArY0123456789/"),
        ("path", "credential:/", "/services/cAnArY0123456789/"),
        (
            "path",
            "credential:/messages/1?wait=true#x",
            "/services/cAnArY0123456789/messages/1?wait=true",
        ),
        (
            "path",
            "credential:?wait=true",
            "/services/cAnArY0123456789/?wait=true",
        ),
        (
            "path",
            "credential://evil.example/x",
            "/services/cAnArY0123456789//evil.example/x",
        ),
        (
            "query",
            "credential:/more",
            "/hook/more?sig=cAnArY0123456789",
        ),
        ("query", "credential:?a=b", "/hook?sig=cAnArY0123456789&a=b"),
    ] {
        egress.send(named(name, url), &mut 0).await.unwrap();
        let request = asked.recv().unwrap();
        assert!(
            request.starts_with(&format!("GET {expected} HTTP/1.1\r\n")),
            "{url}: {request}"
        );
    }
    let sent = egress.requests();
    for (name, url) in [
        ("path", "credential:/../other"),
        ("path", "credential:/%2e%2e/other"),
        ("path", "credential:/x/../../other"),
        ("path", "credential:\\..\\other"),
        ("path", "credential:@evil.example/"),
        ("path", "credential:.evil.example/"),
        ("path", "credential:messages"),
        ("path", origin.as_str()),
        ("nobody", "credential:/x"),
    ] {
        refused(&egress, named(name, url)).await;
    }
    refused(&egress, get("credential:/x")).await;
    // Without the credential its origin is as closed as any other.
    refused(&egress, get(&origin)).await;
    let own = HttpRequest {
        headers: vec![("authorization".into(), "x".into())],
        ..named("path", "credential:/x")
    };
    refused(&egress, own).await;
    assert_eq!(egress.requests(), sent);
}

#[tokio::test]
async fn a_secret_is_put_where_the_guest_wrote_its_name_and_escaped_for_that_place() {
    let (port, asked) = server(OK);
    let origin = format!("http://127.0.0.1:{port}");
    let egress = egress_of(
        &[&origin],
        &[
            ("tok.en-1", secret(CANARY), &[&origin]),
            ("plain", secret("plain-cAnArY"), &[&origin]),
        ],
    );
    let body = r#"{"n": 1.50, "k{{secret:x": ["a {{secret:tok.en-1}} b", "\u007b{secret:plain}}"], "p":"{{secret:plain}}"}"#;
    let request = HttpRequest {
        headers: vec![("authorization".into(), "GenieKey {{secret:plain}}".into())],
        ..post(
            &format!(
                "{origin}/bot{{{{secret:tok.en-1}}}}/{{{{secret:plain}}}}/%7B%7Bsecret:plain%7D%7D?a=b"
            ),
            body,
        )
    };
    egress.send(request, &mut 0).await.unwrap();
    let request = asked.recv().unwrap();
    let (head, sent) = request.split_once("\r\n\r\n").unwrap();
    let line = "POST /botcAnArY%2F%C3%A9%22%2B%200123456789/plain-cAnArY/%7B%7Bsecret:plain%7D%7D?a=b HTTP/1.1";
    assert!(head.starts_with(line), "{head}");
    assert!(
        head.contains("authorization: GenieKey plain-cAnArY"),
        "{head}"
    );
    assert!(
        head.contains(&format!("content-length: {}", sent.len())),
        "{head}"
    );
    let json: Value = serde_json::from_str(sent).unwrap();
    let expected = json!({
        "n": 1.5, "k{{secret:x": [format!("a {CANARY} b"), "{{secret:plain}}"], "p": "plain-cAnArY",
    });
    assert_eq!(json, expected);
    // What is no template stays byte for byte.
    assert!(
        sent.starts_with(r#"{"n": 1.50, "k{{secret:x": ["#),
        "{sent}"
    );
}

#[tokio::test]
async fn a_secret_is_put_nowhere_else() {
    let (port, asked) = server(OK);
    let origin = format!("http://127.0.0.1:{port}");
    let other = "http://127.0.0.1:9";
    let egress = egress_of(
        &[&origin, other, "http://*.example.com"],
        &[
            ("key", secret("cAnArY"), &[&origin]),
            ("bearer", Scheme::Bearer(Secret::new("cAnArY")), &[&origin]),
        ],
    );
    let headed = |name: &str, value: &str| HttpRequest {
        headers: vec![(name.into(), value.into())],
        ..get(&origin)
    };
    for request in [
        get(&format!("{origin}/x?key={{{{secret:key}}}}")),
        get(&format!(
            "{origin}/{{{{secret:key}}}}?key={{{{secret:key}}}}"
        )),
        get("http://{{secret:key}}.example.com/"),
        get("http://{{secret:key}}/"),
        get(&format!("http://127.0.0.1:{port}{{{{secret:key}}}}/")),
        get(&format!("http://{{{{secret:key}}}}@127.0.0.1:{port}/")),
        get("{{secret:key}}://127.0.0.1/"),
        get(&format!("{other}/{{{{secret:key}}}}")),
        get(&format!("{origin}/{{{{secret:nobody}}}}")),
        get(&format!("{origin}/{{{{secret:bearer}}}}")),
        get(&format!("{origin}/{{{{secret:key}}}}/../x")),
        headed("{{secret:key}}", "x"),
        headed("x", "{{secret:bearer}}"),
        post(&origin, "key={{secret:key}}"),
        post(&origin, r#"{"a": {{secret:key}}}"#),
        post(other, r#"{"a": "{{secret:key}}"}"#),
        post(&origin, r#"{"a": "{{secret:nobody}}"}"#),
    ] {
        refused(&egress, request).await;
    }
    assert_eq!(egress.requests(), 0);
    assert!(asked.try_recv().is_err());
}

#[tokio::test]
async fn an_entry_without_such_a_secret_sends_bodies_as_they_are() {
    let (port, asked) = server(OK);
    let origin = format!("http://127.0.0.1:{port}");
    let bearer = Scheme::Bearer(Secret::new("cAnArY"));
    let egress = egress_of(&[&origin], &[("key", bearer, &[&origin])]);
    let body = r#"{"prompt": "{{secret:key}} {{secret:nobody}}"}"#;
    egress.send(post(&origin, body), &mut 0).await.unwrap();
    assert!(asked.recv().unwrap().ends_with(body));
}

#[tokio::test]
async fn the_host_signs_webhooks_and_keeps_the_id_of_the_message() {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let (port, asked) = server(OK);
    let origin = format!("http://127.0.0.1:{port}");
    let key = b"a key of twenty-four byt";
    let whsec = format!("whsec_{}", STANDARD.encode(key));
    let scheme = Scheme::StandardWebhooks(Secret::new(whsec));
    let egress = egress_of(&[&origin], &[("hook", scheme, &[&origin])]);
    let signed = |headers: &[(&str, &str)]| HttpRequest {
        credential: Some("hook".into()),
        headers: headers
            .iter()
            .map(|(n, v)| ((*n).into(), (*v).into()))
            .collect(),
        ..post(&origin, r#"{"a":"ä"}"#)
    };
    egress
        .send(signed(&[("Webhook-Id", "msg_1")]), &mut 0)
        .await
        .unwrap();
    let request = asked.recv().unwrap();
    let header = |name: &str| {
        let line = request
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{name}: ")));
        line.unwrap_or_else(|| panic!("no {name} in {request}"))
            .to_owned()
    };
    assert_eq!(header("webhook-id"), "msg_1");
    let timestamp = header("webhook-timestamp");
    let age = jiff::Timestamp::now().as_second() - timestamp.parse::<i64>().unwrap();
    assert!((0..60).contains(&age));
    let message = format!("msg_1.{timestamp}.{}", r#"{"a":"ä"}"#);
    let signature = header("webhook-signature");
    let signature = STANDARD
        .decode(signature.strip_prefix("v1,").unwrap())
        .unwrap();
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key);
    ring::hmac::verify(&key, message.as_bytes(), &signature).unwrap();
    for name in ["webhook-signature", "webhook-timestamp", "authorization"] {
        refused(&egress, signed(&[(name, "x")])).await;
    }
}

#[tokio::test]
async fn what_a_far_side_repeats_is_taken_out_of_failures_and_nothing_of_it_is_logged() {
    let echo = "HTTP/1.1 400 Bad\r\ncontent-length: 71\r\nconnection: close\r\n\r\n\
                no cAnArY0123456789 and /v1/hook/cAnArY-url-0123456789 and Y0FuQXJZMDE0";
    let (port, _asked) = server(echo);
    let origin = format!("http://127.0.0.1:{port}");
    let url = format!("{origin}/v1/hook/cAnArY-url-0123456789");
    let lines = capture::lines(async {
        let egress = egress_of(
            &[&origin],
            &[
                ("key", secret("cAnArY0123456789"), &[&origin]),
                ("url", Scheme::Url(Secret::new(url)), &[]),
                (
                    "auth",
                    Scheme::Bearer(Secret::new("Y0FuQXJZMDE0")),
                    &[&origin],
                ),
            ],
        );
        let requests = [
            get(&format!("{origin}/{{{{secret:key}}}}/x")),
            HttpRequest {
                credential: Some("url".into()),
                ..get("credential:/x?y=z")
            },
            HttpRequest {
                credential: Some("auth".into()),
                ..get(&origin)
            },
        ];
        for request in requests {
            let failure = egress.fetch(request, &mut 0).await.unwrap_err();
            let expected = "status 400: no [secret key] and [secret url] and [secret auth]";
            assert_eq!(failure.message, expected);
        }
    })
    .await;
    let ours: Vec<&str> = lines
        .lines()
        .filter(|line| line.contains("plugin http request"))
        .collect();
    assert_eq!(ours.len(), 3, "{lines}");
    assert!(
        lines.contains("credential:/x") && !lines.contains("y=z"),
        "{lines}"
    );
    assert!(
        !ours.concat().contains("cAnArY") && !ours.concat().contains("Y0FuQXJZMDE0"),
        "{lines}"
    );
}

#[tokio::test]
async fn a_name_at_two_ports_has_two_pins() {
    let (one, _asked_one) = server(OK);
    let elsewhere = TcpListener::bind("127.0.0.2:0").unwrap();
    let two = elsewhere.local_addr().unwrap().port();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = elsewhere.accept() {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(OK.replace("ok", "no").as_bytes());
        }
    });
    let urls = [
        format!("http://a.example:{one}"),
        format!("http://a.example:{two}"),
    ];
    let resolver = Scripted::new(&[&["127.0.0.1"], &["127.0.0.2"]]);
    let egress = egress_with(&[&urls[0], &urls[1]], resolver, &Limits::default());
    let (mut first, mut second) = (0, 0);
    let (a, b) = tokio::join!(
        egress.send(get(&urls[0]), &mut first),
        egress.send(get(&urls[1]), &mut second)
    );
    assert_eq!(
        (a.unwrap().body, b.unwrap().body),
        (b"ok".to_vec(), b"no".to_vec())
    );
}

#[test]
fn a_job_named_like_a_template_asks_for_nothing() {
    assert_eq!(defused("x {{secret:key}} y"), "x {{ secret:key}} y");
    assert_eq!(defused("{{{secret:key}}"), "{{{ secret:key}}");
    assert_eq!(defused("{{ secret:key}}"), "{{ secret:key}}");
    assert_eq!(defused("{{name}} {secret:key}"), "{{name}} {secret:key}");
    // Guests drop what is not seen: each of these was a template once they did.
    for hidden in [
        "\u{200b}",
        "\u{ad}",
        "\0",
        "\u{1b}",
        "\n",
        "\u{feff}\u{2066}",
        "\u{301}",
    ] {
        let shown = |text: &str| text.replace(hidden, "");
        for text in [
            "{h{secret:key}}",
            "{{hsecret:key}}",
            "{{secrhet:key}}",
            "{{secreth:key}}",
        ] {
            let text = text.replacen('h', hidden, 1);
            assert_eq!(shown(&defused(&text)), "{{ secret:key}}", "{text:?}");
        }
    }
    assert_eq!(defused("{{SECRET:key}}").to_lowercase(), "{{ secret:key}}");
}
