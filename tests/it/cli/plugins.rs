//! `weir plugin list | inspect | resume` against a daemon whose plugin is a file, and what becomes of it when things change.

use super::daemon::{Daemon, configure};
use super::{Shell, code, err, out};
use crate::guest::{CONTRACT, Guest};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

const CANARY: &str = "canary-51b0c7";

/// The core module that `make plugins` built: the daemon makes a component of it.
fn module() -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("plugins/target/wasm32-unknown-unknown/release/webhook.wasm");
    fs::read(path).unwrap()
}

fn monitor(port: u16, more: &str) -> String {
    format!(
        r#"(
            http: (listen: "127.0.0.1:0"), data_dir: "data",
            alerts: (receivers: [(
                name: "hook", handler: "./hook.wasm", limits: (memory: "32MiB", cpu: "1s", log_lines: 7),
                config: {{ "url": "http://127.0.0.1:{port}/hook" {more} }},
                credentials: {{ "token": Bearer(file: "token", origins: ["http://127.0.0.1:{port}"]) }},
            )]),
        )"#
    )
}

/// Asks until `wanted` is true of the answer.
fn until(shell: &Shell, daemon: &Daemon, wanted: impl Fn(&Value) -> bool) -> Value {
    let began = Instant::now();
    loop {
        let output = shell.weir(&["plugin", "inspect", "hook", "--json", "--url", &daemon.url]);
        assert_eq!(code(&output), 0, "{}", err(&output));
        let plugin: Value = serde_json::from_str(&out(&output)).unwrap();
        assert!(!plugin.to_string().contains(CANARY), "{plugin}");
        if wanted(&plugin) {
            return plugin;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{plugin:#}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_plugin_is_inspected_reloaded_from_its_file_and_its_credential_and_resumed() {
    let shell = Shell::alone();
    let far = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = far.local_addr().unwrap().port();
    fs::write(shell.path().join("hook.wasm"), module()).unwrap();
    fs::write(shell.path().join("token"), CANARY).unwrap();
    configure(&shell, &monitor(port, ""));
    let mut daemon = Daemon::start(&shell, &[]);
    let first = until(&shell, &daemon, |plugin| plugin["state"] == "ready");
    assert_eq!(
        (&first["generation"], &first["strikes"]),
        (&1.into(), &0.into())
    );
    let limit = |name: &str| {
        let limits = first["limits"].as_array().unwrap();
        limits
            .iter()
            .find(|limit| limit["name"] == name)
            .unwrap()
            .clone()
    };
    assert_eq!(limit("memory")["limit"], f64::from(32 << 20));
    assert!(limit("memory")["used"].as_f64().unwrap() > 65_536.0);
    assert_eq!(limit("log_lines")["limit"], 7.0);
    let shown = shell.weir(&["plugin", "inspect", "hook", "--url", &daemon.url]);
    for part in ["hook.wasm", "ready", "memory", "32.0 MiB", "retire_calls"] {
        assert!(out(&shown).contains(part), "{part}: {}", out(&shown));
    }
    let list = shell.weir(&["plugin", "list", "--url", &daemon.url]);
    assert!(out(&list).contains("hook.wasm"), "{}", out(&list));

    // A file that cannot be used: the old one goes on, and both the daemon and the command line say why.
    fs::write(shell.path().join("hook.wasm"), b"half a fi").unwrap();
    daemon.line_with("the old one goes on");
    let broken = until(&shell, &daemon, |plugin| !plugin["reload_error"].is_null());
    assert_eq!(
        (&broken["state"], &broken["generation"]),
        (&"ready".into(), &1.into())
    );
    fs::write(shell.path().join("hook.wasm"), module()).unwrap();
    // The same bytes as those in use: nothing to take over. Resuming says yes all the same.
    let resumed = shell.weir(&["plugin", "resume", "hook", "--url", &daemon.url]);
    assert_eq!(code(&resumed), 0, "{}", err(&resumed));

    // The credential changes, the configuration does not: the signal is enough.
    let other = format!("{CANARY}-next");
    fs::write(shell.path().join("token"), &other).unwrap();
    daemon.signal(Signal::HUP);
    daemon.line_with("read again and taken");
    let renewed = until(&shell, &daemon, |plugin| plugin["state"] == "ready");
    assert_eq!(renewed["reload_error"], Value::Null);

    // A configuration that the plugin refuses: nothing is changed.
    configure(&shell, &monitor(port, r#", "histroy": 3"#));
    daemon.signal(Signal::HUP);
    let line = daemon.line_with("the last good one goes on");
    assert!(
        line.contains("alerts.receivers[0]") && line.contains("histroy"),
        "{line}"
    );
    assert_eq!(until(&shell, &daemon, |_| true)["state"], "ready");

    for (what, name) in [("inspect", "nobody"), ("resume", "nobody")] {
        let output = shell.weir(&["plugin", what, name, "--url", &daemon.url]);
        assert_ne!(code(&output), 0);
        assert!(err(&output).contains("nobody"), "{}", err(&output));
    }
    daemon.signal(Signal::TERM);
    daemon.line_with("everything acknowledged is on disk");
}

/// A plugin for the contract of another weir.
fn of_contract(version: &str) -> Vec<u8> {
    let guest = Guest {
        contract: CONTRACT.replace("weir:plugin@0.1.0", &format!("weir:plugin@{version}")),
        ..Guest::source()
    };
    guest.component()
}

#[test]
fn check_says_before_an_upgrade_which_plugins_will_not_fit() {
    let shell = Shell::alone();
    let write = |name: &str, bytes: &[u8]| fs::write(shell.path().join(name), bytes).unwrap();
    write("newer.wasm", &of_contract("0.2.0"));
    write("older.wasm", &of_contract("0.0.9"));
    write("patched.wasm", &of_contract("0.1.9"));
    write("half.wasm", &of_contract("0.1.0")[..1000]);
    let source = |name: &str, file: &str, more: &str| {
        format!(r#"(name: "{name}", plugin: "./{file}", allow: [], config: {{}} {more}),"#)
    };
    let check = |sources: &str, receivers: &str| {
        let text = format!("(sources: [{sources}], alerts: (receivers: [{receivers}]))");
        configure(&shell, &text);
        let output = shell.weir(&["check"]);
        (code(&output), out(&output))
    };
    let fine = source("patched", "patched.wasm", "");
    let (code, said) = check(&fine, "");
    assert_eq!(code, 0, "{said}");
    let pin = format!(r#", sha256: "{}""#, "0".repeat(64));
    let sources = [
        source("newer", "newer.wasm", ""),
        source("older", "older.wasm", ""),
        source("half", "half.wasm", ""),
        source("pinned", "patched.wasm", &pin),
    ];
    let receiver = r#"(name: "hook", handler: "./patched.wasm", config: {})"#;
    let (code, said) = check(&format!("{fine}{}", sources.concat()), receiver);
    assert_eq!(code, 1, "{said}");
    for line in [
        "sources[1].plugin: ",
        "newer.wasm: built for weir:plugin@0.2.0; this daemon speaks 0.1. Upgrade the daemon or",
        "older.wasm: built for weir:plugin@0.0.9; this daemon speaks 0.1. Rebuild against",
        "half.wasm: it cannot be compiled",
        "patched.wasm: sha256 is ",
        "alerts.receivers[0].handler: ",
        "it exports no `alerts`, which a receiver needs: it is a source, put it under `sources`",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    let errors = said.lines().filter(|line| !line.contains(": warning: "));
    assert_eq!(errors.count(), 5, "{said}");
}

#[test]
fn check_lets_every_plugin_read_its_configuration_and_says_what_it_says_where_it_stands() {
    let shell = Shell::alone();
    let mut trap = Guest::source();
    trap.open = "unreachable".into();
    fs::write(shell.path().join("trap.wasm"), trap.component()).unwrap();
    configure(
        &shell,
        r##"(
    sources: [(name: "trap", plugin: "./x/../trap.wasm", allow: [], config: {})],
    alerts: (receivers: [
        (name: "ops", handler: "slack",
            config: { "chanel": "#ops" }, credentials: { "slack": Bearer(env: "NOT_SET", origins: ["https://slack.com"]) }),
        (name: "chat", handler: "discord", credentials: { "discord": Url(env: "NOT_SET_EITHER") }),
        (name: "wrong", handler: "comfyui", config: { "url": "http://127.0.0.1:8188" }),
    ]),
)"##,
    );
    fs::create_dir(shell.path().join("x")).unwrap();
    let output = shell.weir(&["check"]);
    let said = out(&output);
    assert_eq!(code(&output), 1, "{said}");
    let home = shell.path().canonicalize().unwrap();
    let trap = format!(
        "monitor.ron:2:77: sources[0].config: {}/trap.wasm: ",
        home.display()
    );
    for part in [
        trap.as_str(),
        "monitor.ron:5:21: alerts.receivers[0].config: slack: ",
        "chanel",
        "alerts.receivers[0].credentials.slack: the environment variable NOT_SET is not set: weir run would not start",
        "alerts.receivers[1].credentials.discord: the environment variable NOT_SET_EITHER is not set",
        "monitor.ron:7:34: alerts.receivers[2].handler: comfyui: it exports no `alerts`, which a receiver needs: it is a source",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let errors = said.lines().filter(|line| !line.contains(": warning: "));
    assert_eq!(errors.count(), 5, "{said}");
    let run = shell.weir(&["run"]);
    assert_eq!(code(&run), 2);
    assert!(err(&run).contains("NOT_SET is not set"), "{}", err(&run));

    configure(
        &shell,
        r#"(alerts: (receivers: [(name: "chat", handler: "discord", credentials: { "discord": Url(file: "hook") })]))"#,
    );
    fs::write(
        shell.path().join("hook"),
        "https://discord.com/api/webhooks/1/x",
    )
    .unwrap();
    let output = shell.weir(&["check"]);
    let said = out(&output);
    assert_eq!(code(&output), 0, "{said}");
    assert!(
        said.contains("connects to the secret URL of `discord`"),
        "{said}"
    );
}

#[test]
fn check_says_which_credentials_of_google_cannot_work_and_what_would() {
    let shell = Shell::alone();
    let external = |source: Value| {
        json!({
            "type": "external_account", "audience": "//iam/pool", "credential_source": source,
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": "https://sts.googleapis.com/v1/token",
        })
    };
    let instead = "create-cred-config` with --credential-source-file";
    for (account, code_wanted, words) in [
        (
            external(json!({"file": "/run/token"})),
            0,
            ["ok", "1 source"],
        ),
        (
            external(json!({"executable": {"command": "/bin/cAnArY"}})),
            1,
            ["weir starts no programs", instead],
        ),
        (
            external(json!({"environment_id": "aws1", "region_url": "http://cAnArY"})),
            1,
            ["(AWS) is not supported", instead],
        ),
        (
            json!({"type": "gdch_service_account", "project": "cAnArY"}),
            1,
            [
                "gdch_service_account are not supported",
                "gcloud auth application-default login",
            ],
        ),
    ] {
        fs::write(shell.path().join("account.json"), account.to_string()).unwrap();
        configure(
            &shell,
            r#"(sources: [(name: "vertex", plugin: "vertex-ai", config: { "projects": ["p"], "locations": ["us-central1"] },
                credentials: { "gcp": Google(file: "account.json") })])"#,
        );
        let output = shell.weir(&["check"]);
        let said = out(&output);
        assert_eq!(code(&output), code_wanted, "{said}");
        for words in words {
            assert!(said.contains(words), "{words}: {said}");
        }
        assert!(!said.contains("cAnArY"), "{said}");
    }
}
