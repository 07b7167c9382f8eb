//! `weir run` and `weir demo` as processes: what they say, what signals do, and how they end.

use super::{Shell, code, err, out};
use crate::mail::server::{MailServer, Manners};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;

/// A daemon in a shell's home, stopped when it is dropped.
pub(super) struct Daemon {
    child: Child,
    stderr: BufReader<ChildStderr>,
    pub(super) url: String,
}

impl Daemon {
    pub(super) fn start(shell: &Shell, args: &[&str]) -> Daemon {
        Daemon::with(shell, args, &[])
    }

    /// With variables of the environment: there are no others.
    pub(super) fn with(shell: &Shell, args: &[&str], variables: &[(&str, &str)]) -> Daemon {
        let mut child = Command::new(env!("CARGO_BIN_EXE_weir"))
            .arg("run")
            .args(args)
            .env_clear()
            .env("HOME", shell.path())
            .envs(variables.iter().copied())
            .current_dir(shell.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let mut daemon = Daemon {
            child,
            stderr,
            url: String::new(),
        };
        let line = daemon.line_with("listening on http://");
        let url = line.split("listening on ").nth(1).unwrap();
        daemon.url = url.split_whitespace().next().unwrap().to_owned();
        daemon
    }

    /// Reads its messages up to the one that holds `text`.
    pub(super) fn line_with(&mut self, text: &str) -> String {
        let mut seen = String::new();
        loop {
            let mut line = String::new();
            let read = self.stderr.read_line(&mut line).unwrap();
            assert!(read > 0, "it ended without `{text}`: {seen}");
            if line.contains(text) {
                return line;
            }
            seen.push_str(&line);
        }
    }

    /// Its messages up to the end.
    fn rest(&mut self) -> String {
        let mut rest = String::new();
        self.stderr.read_to_string(&mut rest).unwrap();
        rest
    }

    pub(super) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A daemon that logs to a file, stopped when it is dropped.
pub(super) struct Loud {
    pub(super) child: Child,
    log: PathBuf,
    pub(super) url: String,
}

impl Loud {
    /// With these variables and no others.
    pub(super) async fn start(shell: &Shell, env: &[(&str, String)]) -> Loud {
        let log = shell.path().join("log");
        let child = Command::new(env!("CARGO_BIN_EXE_weir"))
            .arg("run")
            .env_clear()
            .env("HOME", shell.path())
            .envs(env.iter().cloned())
            .current_dir(shell.path())
            .stdin(Stdio::null())
            .stdout(fs::File::create(shell.path().join("out")).unwrap())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut loud = Loud {
            child,
            log,
            url: String::new(),
        };
        until("it listens", async || {
            let log = loud.text();
            let rest = log.split_once("listening on ")?.1;
            Some(rest.split_once(' ')?.0.to_owned())
        })
        .await
        .clone_into(&mut loud.url);
        loud
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap()).into_owned()
    }

    pub(super) async fn get(&self, path: &str) -> (u16, String) {
        let url = format!("{}{path}", self.url).parse().unwrap();
        let client = weir::client::http_client(&url).unwrap();
        let response = client.get(url).send().await.unwrap();
        let status = response.status().as_u16();
        (status, response.text().await.unwrap())
    }

    pub(super) async fn json(&self, path: &str) -> Value {
        let (status, body) = self.get(path).await;
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }
}

impl Drop for Loud {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks until there is an answer.
pub(super) async fn until<T>(what: &str, ask: impl AsyncFn() -> Option<T>) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let answer = tokio::time::timeout(Duration::from_secs(120), asking).await;
    answer.unwrap_or_else(|_| panic!("never: {what}"))
}

pub(super) fn configure(shell: &Shell, text: &str) {
    fs::write(shell.path().join("monitor.ron"), text).unwrap();
}

const QUIET: &str = r#"(http: (listen: "127.0.0.1:0"), data_dir: "data")"#;

#[test]
fn run_without_a_configuration_names_where_it_looked_and_what_writes_one() {
    let shell = Shell::alone();
    let output = shell.weir(&["run"]);
    assert_eq!(code(&output), 2);
    let text = err(&output);
    for part in [
        "./monitor.ron",
        ".config/weir/monitor.ron",
        "/etc/weir",
        "weir init",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn run_with_a_bad_configuration_tells_everything_that_is_wrong() {
    let shell = Shell::alone();
    configure(&shell, "(\n    sorces: [],\n    http: (listen: 8000),\n)\n");
    let output = shell.weir(&["run"]);
    assert_eq!(code(&output), 2);
    let text = err(&output);
    assert!(
        text.contains("./monitor.ron:2:5: sorces: unknown field; did you mean `sources`?"),
        "{text}"
    );
    assert!(text.contains("./monitor.ron:3:20: http.listen"), "{text}");
}

#[test]
fn a_secret_that_is_not_there_stops_the_start() {
    let shell = Shell::alone();
    configure(
        &shell,
        r#"(sources: [(name: "studio", plugin: "comfyui", config: { "url": "https://render.lan" },
            credentials: { "proxy": Bearer(env: "WEIR_TEST_NOT_SET", origins: ["https://render.lan"]) })])"#,
    );
    let output = shell.weir(&["run"]);
    assert_eq!(code(&output), 2, "{}", err(&output));
    assert!(
        err(&output).contains("WEIR_TEST_NOT_SET"),
        "{}",
        err(&output)
    );
}

#[test]
fn a_daemon_answers_reloads_keeps_the_last_good_file_and_stops_with_0() {
    let shell = Shell::alone();
    configure(&shell, QUIET);
    let mut daemon = Daemon::start(&shell, &[]);
    let mode = fs::metadata(shell.path().join("data"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);
    let status = |daemon: &Daemon| -> Value {
        let output = shell.weir(&["status", "--json", "--url", &daemon.url]);
        assert_eq!(code(&output), 0, "{}", err(&output));
        serde_json::from_str(&out(&output)).unwrap()
    };
    assert_eq!(status(&daemon)["reload"]["ok"], true);
    configure(&shell, "(nonsense: 1)");
    daemon.signal(Signal::HUP);
    daemon.line_with("the last good one goes on");
    let reload = status(&daemon)["reload"].clone();
    assert_eq!(reload["ok"], false);
    assert!(
        reload["error"].as_str().unwrap().contains("nonsense"),
        "{reload}"
    );
    configure(&shell, QUIET);
    daemon.signal(Signal::HUP);
    daemon.line_with("read again and taken");
    assert_eq!(status(&daemon)["reload"]["ok"], true);
    let second = shell.weir(&["run", "--listen", "127.0.0.1:0"]);
    assert_eq!(code(&second), 1, "one daemon per data directory");
    let doctor = shell.weir(&["doctor", "--url", &daemon.url]);
    assert!(
        out(&doctor).contains("uses the data directory"),
        "{}",
        out(&doctor)
    );
    daemon.signal(Signal::TERM);
    daemon.line_with("everything acknowledged is on disk");
    assert_eq!(daemon.child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_port_in_use_is_said_before_anything_is_started() {
    let shell = Shell::alone();
    configure(&shell, QUIET);
    let daemon = Daemon::start(&shell, &[]);
    let address = daemon.url.trim_start_matches("http://");
    let output = shell.weir(&["run", "--listen", address, "--data-dir", "other"]);
    assert_eq!(code(&output), 1);
    assert!(err(&output).contains("in use"), "{}", err(&output));
    assert!(!shell.path().join("other").exists());
}

#[test]
fn the_demo_shows_all_that_the_recordings_hold() {
    let shell = Shell::alone();
    let output = shell.weir(&["demo", "--once", "--json", "--keep"]);
    let summary: Value = serde_json::from_str(&out(&output)).unwrap_or_default();
    assert_eq!(code(&output), 0, "{summary:#}\n{}", err(&output));
    assert_eq!(summary["ok"], true);
    assert_eq!(summary["executions"], summary["expected"]["executions"]);
    assert!(summary["alerts_delivered"].as_u64().unwrap() >= 2);
    fs::remove_dir_all(summary["data_dir"].as_str().unwrap()).unwrap();
}

#[test]
fn a_receiver_is_tried_and_says_what_came_back() {
    let shell = Shell::alone();
    // Nobody listens on the discard port.
    configure(
        &shell,
        r#"(http: (listen: "127.0.0.1:0"), data_dir: "data", alerts: (
            receivers: [(name: "ops", handler: "webhook", config: { "url": "http://127.0.0.1:9/hook" })],
            route: (receiver: "ops"),
        ))"#,
    );
    let daemon = Daemon::start(&shell, &[]);
    let weir = |args: &[&str]| shell.weir(&[&["--url", daemon.url.as_str()], args].concat());
    let log = weir(&["receiver", "test", "log"]);
    assert_eq!(code(&log), 0, "{}", err(&log));
    assert!(
        out(&log).contains("log: written to the log"),
        "{}",
        out(&log)
    );
    let ops = weir(&["receiver", "test", "ops"]);
    assert_eq!(code(&ops), 1, "{}", err(&ops));
    let text = out(&ops);
    assert!(
        text.contains("ops: not delivered, transient: connect"),
        "{text}"
    );
    assert!(text.contains("it may pass"), "{text}");
    let json = weir(&["receiver", "test", "ops", "--json"]);
    let answer: Value = serde_json::from_str(&out(&json)).unwrap();
    assert_eq!(answer["delivered"], false);
    assert_eq!(answer["failure"], "transient");
    let list = out(&weir(&["receiver", "list"]));
    assert!(
        list.contains("ops") && list.contains("webhook") && list.contains("log"),
        "{list}"
    );
    assert_eq!(code(&weir(&["receiver", "test", "nobody"])), 4);
    assert_eq!(code(&weir(&["receiver", "test", "../x"])), 2);
}

/// One receiver of mail, whose password is in the environment.
fn configure_mail(shell: &Shell, port: u16) {
    let config = format!(
        r#"(http: (listen: "127.0.0.1:0"), data_dir: "data", log: (level: trace), alerts: (
            receivers: [(name: "mail", handler: "email",
                config: {{ "server": "127.0.0.1", "port": {port}, "from": "weir@example.net", "to": ["ops@example.net"] }},
                credentials: {{ "smtp": Basic(user: "weir", env: "SMTP_PASSWORD") }})],
            route: (receiver: "mail"),
        ))"#,
    );
    configure(shell, &config);
}

#[test]
fn mail_goes_out_under_the_authorities_of_the_system_and_the_password_is_never_told() {
    let canary = "cAnArY-pa55";
    let login = Some(("weir", canary));
    let server = MailServer::start(Manners {
        login,
        ..Manners::default()
    });
    let shell = Shell::alone();
    fs::write(shell.path().join("roots.pem"), &server.authority).unwrap();
    configure_mail(&shell, server.port);
    let check = shell.weir(&["check"]);
    assert_eq!(code(&check), 1);
    let said = out(&check);
    assert!(
        said.contains("alerts.receivers[0].credentials.smtp: the environment variable SMTP_PASSWORD is not set: weir run would not start"),
        "{said}"
    );
    let check = Command::new(env!("CARGO_BIN_EXE_weir"))
        .arg("check")
        .env_clear()
        .envs([
            ("HOME", shell.path().as_os_str()),
            ("SMTP_PASSWORD", canary.as_ref()),
        ])
        .current_dir(shell.path())
        .output()
        .unwrap();
    let reach = format!("connects to 127.0.0.1:{} (STARTTLS required)", server.port);
    assert!(out(&check).contains(&reach), "{}", out(&check));
    let refused = shell.weir(&["run"]);
    assert_eq!(code(&refused), 2);
    assert!(
        err(&refused).contains("SMTP_PASSWORD is not set"),
        "{}",
        err(&refused)
    );
    let roots = shell.path().join("roots.pem").display().to_string();
    let variables = [("SSL_CERT_FILE", roots.as_str()), ("SMTP_PASSWORD", canary)];
    let mut daemon = Daemon::with(&shell, &[], &variables);
    let url = daemon.url.clone();
    let weir = |args: &[&str]| shell.weir(&[&["--url", url.as_str()], args].concat());
    let test = weir(&["receiver", "test", "mail"]);
    assert_eq!(code(&test), 0, "{}{}", out(&test), err(&test));
    let mut told = out(&test);
    assert!(told.contains("mail: 250 2.0.0 Ok: queued as"), "{told}");
    assert!(
        told.contains("receipt: <weir.") && told.contains("@example.net>"),
        "{told}"
    );
    let list = out(&weir(&["receiver", "list"]));
    let row = list.lines().find(|line| line.starts_with("mail"));
    let row: Vec<&str> = row.unwrap().split_whitespace().collect();
    assert_eq!(row, ["mail", "email", "ok"]);
    for args in [&["config", "show"][..], &["doctor"], &["status", "--json"]] {
        told.push_str(&out(&weir(args)));
    }
    daemon.signal(Signal::TERM);
    told.push_str(&daemon.rest());
    assert!(told.contains("SMTP_PASSWORD") && told.contains("everything acknowledged is on disk"));
    // Neither as it is nor as it goes over the wire.
    for form in [canary, "Y0FuQXJZLXBhNTU", "AHdlaXIAY0FuQXJZLXBhNTU"] {
        assert!(!told.contains(form), "{form}: {told}");
    }
    assert_eq!(server.mails().len(), 1);
}
