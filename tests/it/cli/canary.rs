//! Secrets of every kind in a running daemon, and far sides that tell them on: none is in anything that weir writes, keeps
//! or shows.

use super::daemon::{Loud, configure, until};
use super::{Shell, code, err, out};
use crate::guest::{Guest, store};
use crate::services::{Asked, Reply, Service, reply};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// Every secret holds this.
const CANARY: &str = "cAnArY";
const KEY: &str = include_str!("../../data/google/key.pem");
/// Forms of the secrets that do not hold it: `me:cAnArY` in base64, the head of what a service account signs, its key.
const FORMS: [&str; 3] = ["bWU6Y0FuQXJZ", "eyJ0eXAi", "BEGIN PRIVATE"];

/// Nothing of a secret is in `text`.
fn clean(what: &str, text: &[u8]) {
    let text = String::from_utf8_lossy(text);
    let lines = KEY.lines().filter(|line| !line.starts_with('-'));
    let forms = FORMS.into_iter().chain([CANARY]).chain(lines);
    for form in forms {
        if let Some(at) = text.find(form) {
            let start = text.floor_char_boundary(at.saturating_sub(300));
            let end = text.ceil_char_boundary((at + 300).min(text.len()));
            panic!("`{form}` is in {what}: …{}…", &text[start..end]);
        }
    }
}

/// Answers with all of the request; receivers are treated each in another way.
fn mirror(asked: &Asked) -> Reply {
    let echo = format!(
        "you said {} {:?} {}",
        asked.target, asked.headers, asked.text
    );
    let path = asked.target.as_str();
    if path == "/token" {
        let token = json!({"access_token": "ya29.cAnArY-token", "expires_in": 3600, "token_type": "Bearer"});
        return reply(200, &token.to_string());
    }
    let behind = |prefix: &str| path.starts_with(prefix);
    match asked.method.as_str() {
        _ if behind("/slack") => reply(200, "ok"),
        _ if behind("/telegram") => reply(500, &echo),
        _ if behind("/pagerduty") => reply(400, &echo),
        "POST" if behind("/ntfy") => reply(403, &echo),
        _ if behind("/ntfy") => reply(200, r#"{"healthy":true}"#),
        _ => reply(200, &echo),
    }
}

/// (name of the source, its credential, what its guest asks for)
fn kinds(origin: &str) -> Vec<(&'static str, String, String)> {
    let plain = format!("{origin}/x");
    let bound =
        |kind: &str, more: &str| format!(r#"{kind}({more} file: "secret", origins: ["{origin}"])"#);
    let google = format!(
        r#"Google(file: "account", origins: ["{origin}"], endpoints: (token: "{origin}/token"))"#
    );
    vec![
        ("bearer", bound("Bearer", ""), plain.clone()),
        ("basic", bound("Basic", r#"user: "me","#), plain.clone()),
        (
            "header",
            bound("Header", r#"name: "x-key","#),
            plain.clone(),
        ),
        (
            "url",
            r#"Url(file: "address")"#.to_owned(),
            "credential:/x".to_owned(),
        ),
        (
            "webhooks",
            bound("StandardWebhooks", "").replace("secret", "whsec"),
            plain.clone(),
        ),
        (
            "secret",
            bound("Secret", ""),
            format!("{origin}/{{{{secret:key}}}}"),
        ),
        ("google", google, plain),
        // Two that are refused before anything is sent.
        (
            "wrong",
            bound("Bearer", ""),
            "http://127.0.0.1:9/x".to_owned(),
        ),
        (
            "denied",
            bound("Secret", ""),
            "http://10.0.0.5/{{secret:key}}".to_owned(),
        ),
    ]
}

/// A guest whose check says that the operator has to mend what `url` answered.
fn accusing(url: &str) -> Guest {
    let mut guest = Guest::telltale(url, "key");
    let fetch = guest.poll.split("(call $log").next().unwrap();
    guest.check = format!(
        "{fetch}
         (i32.store (i32.const 1028) (i32.load (i32.const 2064)))
         (i32.store (i32.const 1032) (i32.load (i32.const 2068)))
         {}",
        store(&[(0, 1), (12, 1 | (2 << 8)), (16, 0)])
    );
    guest
}

fn source(name: &str, credential: &str, allow: &str) -> String {
    format!(
        r#"(name: "{name}", plugin: "./{name}.wasm", poll_interval: "100ms", allow: [{allow}],
            config: {{}}, credentials: {{ "key": {credential} }}),"#
    )
}

fn receivers(origin: &str) -> String {
    let bound =
        |kind: &str, file: &str| format!(r#"{kind}(file: "{file}", origins: ["{origin}"])"#);
    let (secret, whsec) = (
        bound("Secret", "secret"),
        bound("StandardWebhooks", "whsec"),
    );
    let basic = bound("Basic", "secret").replace("(file", r#"(user: "me", file"#);
    format!(
        r#"(name: "to-slack", handler: "slack", config: {{}}, credentials: {{ "slack": Url(file: "hook") }}),
           (name: "to-telegram", handler: "telegram", config: {{ "chat_id": 1, "api_url": "{origin}/telegram" }},
            credentials: {{ "telegram": {secret} }}),
           (name: "to-pagerduty", handler: "pagerduty", config: {{ "url": "{origin}/pagerduty" }},
            credentials: {{ "pagerduty": {secret} }}),
           (name: "to-ntfy", handler: "ntfy", config: {{ "url": "{origin}/ntfy/topic", "credential": "key" }},
            credentials: {{ "key": {basic} }}),
           (name: "to-webhook", handler: "webhook", config: {{ "url": "{origin}/webhook", "credential": "key" }},
            credentials: {{ "key": {whsec} }}),"#
    )
}

const RECEIVERS: [&str; 5] = [
    "to-slack",
    "to-telegram",
    "to-pagerduty",
    "to-ntfy",
    "to-webhook",
];

/// Writes secrets, guests and the configuration.
fn furnish(shell: &Shell, origin: &str) {
    let write = |name: &str, bytes: &[u8]| fs::write(shell.path().join(name), bytes).unwrap();
    write("secret", b"cAnArY-0123456789/+");
    write("whsec", b"whsec_cAnArYcAnArYcAnArYcAnArY");
    write(
        "address",
        format!("{origin}/x/cAnArY-0123456789").as_bytes(),
    );
    write(
        "hook",
        format!("{origin}/slack/cAnArY-0123456789").as_bytes(),
    );
    let account = json!({
        "type": "service_account", "client_email": "robot@x", "private_key": KEY, "private_key_id": "kid-1",
    });
    write("account", account.to_string().as_bytes());
    let mut sources = String::new();
    for (name, credential, url) in kinds(origin) {
        let wasm = format!("{name}.wasm");
        write(&wasm, &Guest::telltale(&url, "key").component());
        let other = if name == "wrong" {
            r#", "http://127.0.0.1:9""#
        } else {
            ""
        };
        sources.push_str(&source(name, &credential, &format!(r#""{origin}"{other}"#)));
    }
    let (_, bearer, url) = kinds(origin).remove(0);
    write("accusing.wasm", &accusing(&url).component());
    sources.push_str(&source("accusing", &bearer, &format!(r#""{origin}""#)));
    let routes: String = RECEIVERS
        .iter()
        .map(|name| format!(r#"(receiver: "{name}", continue: true),"#))
        .collect();
    configure(
        shell,
        &format!(
            r#"(http: (listen: "127.0.0.1:0"), data_dir: "data", log: (level: trace), sources: [{sources}],
                alerts: (receivers: [{}], route: (receiver: "log", routes: [{routes}])))"#,
            receivers(origin)
        ),
    );
}

/// What stands for the parameter of an address: everything that a list names.
async fn values(loud: &Loud, path: &str) -> Vec<String> {
    let of = async |list: &str, field: &str| -> Vec<String> {
        let list = loud.json(list).await;
        let items = list["items"]
            .as_array()
            .or(list.as_array())
            .unwrap()
            .clone();
        items
            .iter()
            .map(|item| match &item[field] {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            })
            .collect()
    };
    match path.split_once('{').unwrap().0 {
        "/executions/" | "/api/executions/" => of("/api/executions", "id").await,
        "/alerts/" | "/api/alerts/" => of("/api/alerts", "id").await,
        "/api/workflows/" => of("/api/workflows", "id").await,
        "/api/sources/" => of("/api/sources", "name").await,
        "/api/plugins/" => of("/api/plugins", "name").await,
        // Nothing was asked of a provider here.
        "/api/control/" => vec!["0193".to_owned()],
        other => panic!("say what stands for the parameter of {other}"),
    }
}

/// Walks the table of addresses; returns how many answers were 200.
async fn walk(loud: &Loud) -> usize {
    let mut good = 0;
    for path in weir::api::readable() {
        let paths = match path.split_once('{') {
            None if path == "/api/events" => vec!["/api/events?since=0&follow=false".to_owned()],
            None => vec![path.to_owned()],
            Some((before, after)) => {
                let after = after.split_once('}').unwrap().1;
                let values = values(loud, path).await;
                assert!(!values.is_empty(), "nothing for {path}");
                let all = values.iter().map(|value| format!("{before}{value}{after}"));
                all.collect()
            }
        };
        for path in paths {
            let (status, body) = loud.get(&path).await;
            clean(&path, body.as_bytes());
            assert!(
                [200, 404, 409, 501, 503].contains(&status),
                "{path}: {status} {body}"
            );
            good += usize::from(status == 200);
        }
    }
    good
}

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let all = entries.flat_map(|path| match path.is_dir() {
        true => files(&path),
        false => vec![path],
    });
    all.collect()
}

#[actix_web::test]
async fn no_secret_of_any_kind_is_in_anything_that_the_daemon_writes_keeps_or_shows() {
    let shell = Shell::alone();
    let far = Service::start(mirror);
    let origin = far.url();
    furnish(&shell, &origin);
    let mut loud = Loud::start(&shell, &[]).await;
    let names: Vec<&str> = kinds(&origin).iter().map(|(name, _, _)| *name).collect();
    for name in &names {
        let path = format!("/api/plugins/{name}");
        let refused = ["wrong", "denied"].contains(name);
        until(name, async || {
            let plugin = loud.json(&path).await;
            let done = match refused {
                true => plugin["counters"]["failures"].as_u64() > Some(0),
                false => !plugin["last_crash"].is_null(),
            };
            done.then_some(())
        })
        .await;
    }
    // The source that says what is to be mended is told of to everybody.
    for path in ["/slack", "/telegram", "/pagerduty", "/ntfy", "/webhook"] {
        until(path, async || {
            let asked = far.asked();
            let posts = asked.iter().filter(|asked| asked.method == "POST");
            let mut told = posts.filter(|asked| asked.text.contains("accusing"));
            told.any(|asked| asked.target.starts_with(path))
                .then_some(())
        })
        .await;
    }
    for form in [
        "Bearer cAnArY",
        "Basic bWU6Y0FuQXJZ",
        "x-key\": \"cAnArY",
        "/x/cAnArY",
        "v1,",
        "ya29.cAnArY",
    ] {
        let shown = |asked: &Asked| format!("{} {:?}", asked.target, asked.headers).contains(form);
        assert!(
            far.asked().iter().any(shown),
            "the far side never saw {form}"
        );
    }

    assert!(walk(&loud).await > 40);
    let told = loud.json("/api/executions").await.to_string();
    assert!(
        told.contains("[secret key]"),
        "what was repeated is in the jobs: {told}"
    );
    commands(&shell, &loud, &names);
    // The guests of this far side are recorded with the configuration's own credentials.
    for name in ["bearer", "url", "secret"] {
        let (file, cassette) = (format!("{name}.wasm"), format!("{name}.json"));
        let args = [
            "plugin", "test", &file, &cassette, "--record", "--entry", name,
        ];
        let output = shell.weir(&args);
        let said = format!("{}{}", out(&output), err(&output));
        clean(&args.join(" "), said.as_bytes());
        let cassette = fs::read(shell.path().join(&cassette)).unwrap_or_else(|_| panic!("{said}"));
        clean("a cassette", &cassette);
        assert!(String::from_utf8_lossy(&cassette).contains("[secret key]"));
    }

    let kept = files(&shell.path().join("data"));
    assert!(
        kept.iter()
            .any(|path| path.extension().is_some_and(|end| end == "db")),
        "{kept:?}"
    );
    for path in kept.iter().chain(&files(&shell.path().join(".cache"))) {
        clean(&path.display().to_string(), &fs::read(path).unwrap());
    }
    kill_process(Pid::from_child(&loud.child), Signal::TERM).unwrap();
    assert!(loud.child.wait().unwrap().success());
    for path in files(&shell.path().join("data")) {
        clean(&path.display().to_string(), &fs::read(&path).unwrap());
    }
    let log = loud.text();
    for line in [
        "TRACE",
        "plugin http request",
        "plugin crashed",
        "wanted http://10.0.0.5",
        "token request",
    ] {
        assert!(log.contains(line), "the log does not say `{line}`");
    }
    clean("the log", log.as_bytes());
    clean("stdout", &fs::read(shell.path().join("out")).unwrap());
    far.stop().await;
}

/// Everything that a person would type.
fn commands(shell: &Shell, loud: &Loud, sources: &[&str]) {
    let url = ["--url", loud.url.as_str()];
    let mut said = String::new();
    let mut say = |args: &[&str], codes: &[i32]| {
        let output = shell.weir(args);
        let text = format!("{}{}", out(&output), err(&output));
        assert!(codes.contains(&code(&output)), "{args:?}: {text}");
        clean(&args.join(" "), text.as_bytes());
        said.push_str(&text);
    };
    say(&["check"], &[0]);
    say(&["config", "show"], &[0]);
    say(&["doctor", url[0], url[1]], &[0, 1]);
    for what in [
        &["status"][..],
        &["sources"],
        &["list"],
        &["alerts"],
        &["receiver", "list"],
        &["plugin", "list"],
    ] {
        for json in [&[][..], &["--json"]] {
            say(&[what, json, &url].concat(), &[0]);
        }
    }
    say(&["events", "--since", "0", url[0], url[1]], &[0]);
    for name in sources.iter().chain(&RECEIVERS) {
        say(&["plugin", "inspect", name, url[0], url[1]], &[0]);
        say(&["plugin", "inspect", name, "--json", url[0], url[1]], &[0]);
    }
    for name in RECEIVERS {
        say(&["receiver", "test", name, url[0], url[1]], &[0, 1]);
    }
    assert!(said.contains("[secret "), "{said}");
}
