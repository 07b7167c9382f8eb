//! `weir plugin new`, `check`, `test` and `run`, as an author calls them, on guests of all four languages.

use super::server::Server;
use super::{LANGUAGES, built, guest, there};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

const CANARY: &str = "canary-secret-9f2c";

/// Compiled guests are kept where the other tests of guests keep them.
fn weir(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("guests-home");
    command
        .env_clear()
        .env("HOME", home)
        .env("XDG_CACHE_HOME", cache)
        .env("PATH", std::env::var_os("PATH").unwrap())
        .current_dir(home)
        .stdin(Stdio::null());
    command
}

fn text(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!(
        "{}{}",
        String::from_utf8_lossy(out),
        String::from_utf8_lossy(err)
    )
}

fn run(command: &mut Command) -> (i32, String) {
    let output = command.output().unwrap();
    (output.status.code().unwrap(), text(&output))
}

#[test]
fn every_example_passes_the_check() {
    let home = TempDir::new().unwrap();
    for (name, config, answer) in [
        ("python-gotify", None, None),
        ("python-json-jobs", None, None),
        ("js-teams", None, None),
        (
            "js-github-actions",
            Some(r#"{"url": "https://api.github.com", "repository": "o/r", "credential": "x"}"#),
            Some(r#"{"total_count": 0, "workflow_runs": []}"#),
        ),
        ("c-ntfy", None, None),
        ("c-csv", None, Some("id,state\n1,running\n")),
        ("rust-matrix", None, None),
        ("rust-slurm", None, Some(r#"{"jobs": []}"#)),
    ] {
        let Some(file) = guest(name) else {
            continue;
        };
        let mut command = weir(home.path());
        command.args(["plugin", "check"]).arg(&file);
        if let Some(config) = config {
            command.args(["--config", config]);
        }
        if let Some(answer) = answer {
            command.args(["--answer", answer]);
        }
        let (code, said) = run(&mut command);
        assert_eq!(code, 0, "{name}: {said}");
        assert!(said.contains(", 500") && said.contains(", slow"), "{said}");
    }
}

#[test]
fn a_plugin_that_crashes_or_is_none_fails_the_check() {
    let home = TempDir::new().unwrap();
    for language in LANGUAGES {
        let Some(file) = guest(&format!("{language}-unruly")) else {
            continue;
        };
        let mut command = weir(home.path());
        command.args(["plugin", "check"]).arg(&file);
        command.args(["--config", r#"{"do": "trap", "url": "http://h"}"#]);
        let (code, said) = run(&mut command);
        assert_eq!(code, 1, "{language}: {said}");
        assert!(
            said.contains("FAIL") && said.contains("trap in poll"),
            "{said}"
        );
        // It says complete without having looked.
        let mut command = weir(home.path());
        command.args(["plugin", "check"]).arg(&file);
        command.args(["--config", r#"{"do": "fine", "url": "http://h"}"#]);
        let (code, said) = run(&mut command);
        assert_eq!(code, 1, "{language}: {said}");
        assert!(said.contains("every job would be called missing"), "{said}");
    }
    let no_plugin = home.path().join("x.wasm");
    std::fs::write(&no_plugin, b"\0asm\x01\0\0\0").unwrap();
    let (code, said) = run(weir(home.path()).args(["plugin", "check", "x.wasm"]));
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("FAIL  contract"), "{said}");
}

/// A plugin of the binary, as `make plugins` built it.
fn bundled(name: &str) -> PathBuf {
    let folder = "plugins/target/wasm32-unknown-unknown/release";
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("{folder}/{name}.wasm"))
}

/// Their entries as the README has them, with every kind of credential. No secret is there, and none is asked for.
const ENTRIES: &str = r##"(
    sources: [
        (name: "proxied", plugin: "comfyui", config: { "url": "https://render.example", "credential": "proxy" },
            credentials: { "proxy": Basic(user: "me", env: "NONE", origins: ["https://render.example"]) }),
        (name: "vertex", plugin: "vertex-ai", allow: ["https://*.googleapis.com"], credentials: { "gcp": Google() },
            config: { "projects": ["demo"], "locations": ["us-central1"], "base_url": "https://aiplatform.example" }),
    ],
    alerts: (receivers: [
        (name: "bot", handler: "slack", config: { "channel": "#ops" }, allow: ["https://slack.com"],
            credentials: { "slack": Bearer(env: "NONE", origins: ["https://slack.com"]) }),
        (name: "incoming", handler: "slack", credentials: { "slack": Url(env: "NONE") }),
        (name: "discord", handler: "discord", credentials: { "discord": Url(env: "NONE") }),
        (name: "telegram", handler: "telegram", config: { "chat_id": -1001234567890 },
            allow: ["https://api.telegram.org"],
            credentials: { "telegram": Secret(env: "NONE", origins: ["https://api.telegram.org"]) }),
        (name: "pagerduty", handler: "pagerduty", allow: ["https://events.pagerduty.com"],
            credentials: { "pagerduty": Secret(env: "NONE", origins: ["https://events.pagerduty.com"]) }),
        (name: "apprise", handler: "apprise", config: { "url": "http://127.0.0.1:8001", "key": "weir" }),
        (name: "ntfy", handler: "ntfy", config: { "url": "https://ntfy.sh/my-topic", "credential": "token" },
            credentials: { "token": Header(name: "x-token", env: "NONE", origins: ["https://ntfy.sh"]) }),
        (name: "hook", handler: "webhook", config: { "url": "http://127.0.0.1:9100/hook", "credential": "key" },
            credentials: { "key": StandardWebhooks(env: "NONE", origins: ["http://127.0.0.1:9100"]) }),
    ]),
)"##;

#[test]
fn the_bundled_plugins_pass_the_check_with_the_credentials_of_their_entries() {
    let home = TempDir::new().unwrap();
    std::fs::write(home.path().join("monitor.ron"), ENTRIES).unwrap();
    for (file, entry, kind) in [
        ("slack", "bot", "slack: Bearer"),
        ("slack", "incoming", "slack: Url"),
        ("discord", "discord", "discord: Url"),
        ("telegram", "telegram", "telegram: Secret"),
        ("pagerduty", "pagerduty", "pagerduty: Secret"),
        ("apprise", "apprise", "deliver, 300 alerts"),
        ("ntfy", "ntfy", "token: Header"),
        ("webhook", "hook", "key: StandardWebhooks"),
        ("comfyui", "proxied", "proxy: Basic"),
        (
            "vertex_ai",
            "vertex",
            "gcp: Google, with a token of this far side",
        ),
    ] {
        let mut command = weir(home.path());
        command.args(["plugin", "check"]).arg(bundled(file));
        command.args(["--entry", entry, "--from", "monitor.ron"]);
        let (code, said) = run(&mut command);
        assert_eq!(code, 0, "{entry}: {said}");
        for part in [kind, ", 500", ", slow", "ok    limits"] {
            assert!(said.contains(part), "{entry}, {part}: {said}");
        }
        assert!(!said.contains("a-secret-of-the-check"), "{entry}: {said}");
    }
    for (args, wanted) in [
        (&["--entry", "nobody"][..], "has no receiver `nobody`"),
        (&["--entry", "bot", "--config", "{}"], "cannot be used with"),
    ] {
        let mut command = weir(home.path());
        command.args(["plugin", "check"]).arg(bundled("slack"));
        let (code, said) = run(command.args(args).args(["--from", "monitor.ron"]));
        assert_eq!(code, 2, "{said}");
        assert!(said.contains(wanted), "{said}");
    }
}

/// Needs no compiler: a few lines of WebAssembly text.
#[test]
fn a_handler_that_calls_a_500_delivered_fails_the_check() {
    let home = TempDir::new().unwrap();
    let liar = crate::guest::Guest::handler().component();
    std::fs::write(home.path().join("liar.wasm"), liar).unwrap();
    let (code, said) = run(weir(home.path()).args(["plugin", "check", "liar.wasm"]));
    assert_eq!(code, 1, "{said}");
    for line in [
        "FAIL  deliver, firing",
        "FAIL  deliver, 500",
        "FAIL  deliver, 401",
        "FAIL  deliver, refused",
        "FAIL  deliver, slow",
        "says delivered, and it was not",
        "says delivered, and nothing was sent",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    let crashing = crate::guest::Guest {
        describe: "(unreachable)".into(),
        ..crate::guest::Guest::handler()
    };
    std::fs::write(home.path().join("liar.wasm"), crashing.component()).unwrap();
    let (code, said) = run(weir(home.path()).args(["plugin", "check", "liar.wasm"]));
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("FAIL  describe") && said.contains("trap in describe"),
        "{said}"
    );
}

/// Handlers of four languages: recorded with a secret against a far side that echoes it, played without any network.
#[test]
fn a_cassette_is_recorded_without_the_secret_and_played_without_a_network() {
    for (name, url_key, more) in [
        ("python-gotify", "url", json!({})),
        ("js-teams", "url", json!({})),
        ("c-ntfy", "server", json!({ "topic": "t" })),
        ("rust-matrix", "homeserver", json!({ "room": "!r:h" })),
    ] {
        let Some(file) = guest(name) else {
            continue;
        };
        let home = TempDir::new().unwrap();
        let server = Server::start(|request| {
            let echo = request.header("authorization").unwrap_or("none");
            let answer = json!({ "echo": echo, "health": "green", "healthy": true, "id": 7, "event_id": "$e", "user_id": "u" });
            (200, answer.to_string())
        });
        let mut config = more;
        config[url_key] = json!(server.origin);
        config["credential"] = json!("token");
        std::fs::write(home.path().join("secret"), CANARY).unwrap();
        let monitor = format!(
            "(alerts: (receivers: [(name: \"r\", handler: {:?}, config: {config}, credentials: {{ \"token\": Bearer(file: \"secret\", origins: [{:?}]) }})], route: (receiver: \"r\")))",
            file.display().to_string(),
            server.origin
        );
        std::fs::write(home.path().join("monitor.ron"), monitor).unwrap();
        let mut command = weir(home.path());
        command.args(["plugin", "test"]).arg(&file);
        command.args(["cassette.json", "--record", "--entry", "r"]);
        let (code, said) = run(&mut command);
        assert_eq!(code, 0, "{name}: {said}");
        let signed = format!("Bearer {CANARY}");
        let asked = server.requests();
        assert!(
            asked
                .iter()
                .any(|r| r.header("authorization") == Some(&signed)),
            "{name}: {asked:?}"
        );
        let cassette = home.path().join("cassette.json");
        let recorded = std::fs::read_to_string(&cassette).unwrap();
        assert!(
            !recorded.contains(CANARY) && !said.contains(CANARY),
            "{name}: {recorded}"
        );
        assert!(recorded.contains("[secret token]"), "{name}: {recorded}");

        let mut play = weir(home.path());
        play.args(["plugin", "test"])
            .arg(&file)
            .arg("cassette.json");
        let (code, said) = run(&mut play);
        assert_eq!(code, 0, "{name}: {said}");
        assert!(said.contains("0 failed"), "{said}");
        assert_eq!(server.requests().len(), 0, "{name} used the network");

        // A cassette of something else is noticed.
        let mut other: Value = serde_json::from_str(&recorded).unwrap();
        let first = &mut other["calls"][1]["during"]["exchanges"][0]["request"];
        first["url"] = json!("http://elsewhere");
        std::fs::write(&cassette, other.to_string()).unwrap();
        let (code, said) = run(&mut play);
        assert_eq!(code, 1, "{name}: {said}");
        assert!(said.contains("url was http://elsewhere"), "{said}");
    }
}

#[test]
fn a_source_is_recorded_and_played_too() {
    let Some(file) = guest("c-csv") else {
        return;
    };
    let home = TempDir::new().unwrap();
    let server = Server::start(|_| (200, "id,state\n1,running\n".into()));
    let config = json!({ "url": server.origin }).to_string();
    let mut record = weir(home.path());
    record.args(["plugin", "test"]).arg(&file);
    record.args(["cassette.json", "--record", "--config", &config]);
    let (code, said) = run(&mut record);
    assert_eq!(code, 0, "{said}");
    let mut play = weir(home.path());
    play.args(["plugin", "test"])
        .arg(&file)
        .arg("cassette.json");
    assert_eq!(run(&mut play).0, 0);
    // Another plugin does not do the same.
    if let Some(other) = guest("rust-slurm") {
        let mut play = weir(home.path());
        play.args(["plugin", "test"])
            .arg(&other)
            .arg("cassette.json");
        assert_eq!(run(&mut play).0, 1);
    }
}

#[test]
fn run_calls_the_real_far_side_and_again_when_the_file_changes() {
    let (Some(gotify), Some(ntfy)) = (guest("rust-matrix"), guest("c-ntfy")) else {
        return;
    };
    let home = TempDir::new().unwrap();
    let server = Server::start(|_| {
        (
            200,
            "{\"event_id\":\"$e\",\"healthy\":true,\"user_id\":\"u\"}".into(),
        )
    });
    let file = home.path().join("plugin.wasm");
    std::fs::copy(&ntfy, &file).unwrap();
    let config = json!({ "server": server.origin, "topic": "t" }).to_string();
    let (code, said) =
        run(weir(home.path()).args(["plugin", "run", "plugin.wasm", "--config", &config]));
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("\"delivered\": true"), "{said}");
    assert!(
        server
            .requests()
            .iter()
            .any(|request| request.method == "POST")
    );

    let mut watching = weir(home.path())
        .args([
            "plugin",
            "run",
            "plugin.wasm",
            "--watch",
            "--config",
            &config,
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap);
    assert!(lines.any(|line| line.contains("\"delivered\": true")));
    // The other handler does not take this configuration: the old one stays, and nothing crashes. Then the old file again,
    // with a byte more, is a new generation.
    std::fs::copy(&gotify, home.path().join("next")).unwrap();
    std::fs::rename(home.path().join("next"), &file).unwrap();
    std::thread::sleep(std::time::Duration::from_secs(3));
    let mut changed = std::fs::read(&ntfy).unwrap();
    // An empty custom section named "x".
    changed.extend([0, 2, 1, b'x']);
    std::fs::write(home.path().join("next"), changed).unwrap();
    std::fs::rename(home.path().join("next"), &file).unwrap();
    assert!(lines.any(|line| line.contains("\"delivered\": true")));
    watching.kill().unwrap();
    watching.wait().unwrap();
}

/// Builds what `weir plugin new` made, with the tools that `make test-guests` set up.
fn build(dir: &Path, language: &str) -> Option<(i32, String)> {
    let tools = match language {
        "python" => Some("tools/python"),
        "js" => Some("tools/js"),
        _ => None,
    };
    if let Some(tools) = tools {
        let tools = there(built().join(tools))?;
        std::os::unix::fs::symlink(tools, dir.join(".tools")).unwrap();
    }
    let mut command = Command::new("sh");
    command.arg(dir.join("build.sh"));
    // The same dependencies are built once.
    command.env("CARGO_TARGET_DIR", built().join("new"));
    Some(run(&mut command))
}

fn new_plugins(language: &str) {
    // Asks for the compilers too.
    if guest(&format!("{language}-unruly")).is_none() {
        return;
    }
    for kind in ["handler", "source"] {
        let home = TempDir::new().unwrap();
        let mut command = weir(home.path());
        command.args([
            "plugin", "new", "my-first", "--lang", language, "--kind", kind,
        ]);
        let (code, said) = run(&mut command);
        assert_eq!(code, 0, "{said}");
        let dir = home.path().join("my-first");
        if language == "rust" && !has_rust_target() {
            eprintln!("skipped: rustc has no wasm32-unknown-unknown here");
            return;
        }
        let Some((code, said)) = build(&dir, language) else {
            return;
        };
        assert_eq!(code, 0, "{language} {kind}: {said}");
        let file: PathBuf = dir.join("my-first.wasm");
        let (code, said) = run(weir(home.path()).args(["plugin", "check"]).arg(&file));
        assert_eq!(code, 0, "{language} {kind}: {said}");
        // Twice into one folder is refused.
        assert_eq!(run(&mut command).0, 2);
    }
}

fn has_rust_target() -> bool {
    let print = [
        "--print",
        "target-libdir",
        "--target",
        "wasm32-unknown-unknown",
    ];
    let output = Command::new("rustc").args(print).output();
    output.is_ok_and(|output| Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_dir())
}

#[test]
fn a_new_plugin_in_rust_builds_and_passes() {
    new_plugins("rust");
}

#[test]
fn a_new_plugin_in_python_builds_and_passes() {
    new_plugins("python");
}

#[test]
fn a_new_plugin_in_javascript_builds_and_passes() {
    new_plugins("js");
}

#[test]
fn a_new_plugin_in_c_builds_and_passes() {
    new_plugins("c");
}
