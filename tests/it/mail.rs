//! The receiver `email` against a real mail server: threads, refusals of every kind, and secrets that stay where they are.

mod refusals;
pub(crate) mod server;

use crate::corridor::{Bench, until};
use crate::delivery::{ends, ledger, put, tried, with_bench};
use crate::recordings::settings;
use mail_parser::{Message, MessageParser};
use server::{Mail, MailServer, Manners, Tls, say};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use weir_core::journal::OutboxState;
use weir_core::model::alert::delivery::FailureKind;
use weir_core::model::observation::JobState;
use weir_core::monitor::ReloadError;
use weir_core::receiver::Tested;
use weir_core::{Monitor, MonitorHandle};

const CANARY: &str = "cAnArY-pa55";
const LOGIN: Option<(&str, &str)> = Some(("weir@example.net", CANARY));

fn signed_in() -> Manners {
    Manners {
        login: LOGIN,
        ..Manners::default()
    }
}

/// What an operator has beside monitor.ron.
struct Desk {
    folder: TempDir,
}

impl Desk {
    fn new(server: &MailServer) -> Desk {
        let desk = Desk {
            folder: tempfile::tempdir().unwrap(),
        };
        std::fs::write(desk.file("ca.pem"), &server.authority).unwrap();
        std::fs::write(desk.file("password"), CANARY).unwrap();
        desk
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The receiver `ops`, signing in. `config`: more of it.
    fn receiver(&self, server: &MailServer, config: &str) -> String {
        let password = self.file("password");
        let credentials = format!(
            r#"credentials: {{ "smtp": Basic(user: "weir@example.net", file: "{}") }}"#,
            password.display()
        );
        receiver(server, &self.file("ca.pem"), config, &credentials)
    }

    /// The same without a password.
    fn open_receiver(&self, server: &MailServer, config: &str) -> String {
        receiver(server, &self.file("ca.pem"), config, "")
    }
}

fn receiver(server: &MailServer, ca_file: &Path, config: &str, more: &str) -> String {
    let (port, ca_file) = (server.port, ca_file.display());
    // The last one wins where a test has another one.
    let defaults = [
        ("server", r#""127.0.0.1""#.to_owned()),
        ("port", port.to_string()),
        ("ca_file", format!("\"{ca_file}\"")),
        ("from", r#""weir <weir@example.net>""#.to_owned()),
        ("to", r#"["ops@example.net"]"#.to_owned()),
        ("timeout", r#""20s""#.to_owned()),
    ];
    let defaults = defaults.iter();
    let defaults = defaults.filter(|(name, _)| !config.contains(&format!("\"{name}\":")));
    let defaults: String = defaults
        .map(|(name, value)| format!("\"{name}\": {value}, "))
        .collect();
    format!(r#"(name: "ops", handler: "email", config: {{ {defaults} {config} }}, {more})"#)
}

fn alerts(receiver: &str) -> String {
    format!(
        r#"rules: [(name: "failed", when: ExecutionFailed, notify_resolved: true)],
           receivers: [{receiver}], route: (receiver: "ops")"#
    )
}

async fn start(receiver: &str, bench: &Arc<Bench>) -> MonitorHandle {
    Monitor::start(with_bench(&alerts(receiver), bench))
        .await
        .unwrap()
}

/// A workflow fails, fails again a while later, and works: three messages about one group.
async fn life(receiver: &str) -> MonitorHandle {
    let bench = Arc::new(Bench::default());
    let monitor = start(receiver, &bench).await;
    let stages = [
        ("a", JobState::Failed),
        ("b", JobState::Failed),
        ("c", JobState::Completed),
    ];
    for (stage, (id, state)) in stages.into_iter().enumerate() {
        ends(&monitor, &bench, id, "portrait", state).await;
        let sent = vec![OutboxState::Sent; stage + 1];
        until(&monitor, "sent", |m| states(m) == sent).await;
        // The second failure is told when the first one has been known for five minutes.
        monitor.clock().advance(Duration::from_secs(301));
    }
    monitor
}

fn states(monitor: &MonitorHandle) -> Vec<OutboxState> {
    let rows = ledger(monitor, "ops");
    rows.iter().map(|row| row.state).collect()
}

fn trouble(monitor: &MonitorHandle) -> Option<String> {
    let receivers = monitor.receivers();
    let ops = receivers
        .into_iter()
        .find(|receiver| receiver.name == "ops");
    ops.unwrap().trouble
}

fn read(mail: &Mail) -> Message<'_> {
    MessageParser::default().parse(&mail.raw).unwrap()
}

fn header<'m>(message: &'m Message<'_>, name: &'m str) -> Option<&'m str> {
    message.header_raw(name).map(str::trim)
}

/// A test arrives, as soon as the receiver of a new configuration is there.
async fn works(monitor: &MonitorHandle) {
    let trying = async {
        loop {
            match monitor.test_receiver("ops").await {
                Ok(tested) => return assert_eq!(tested.failure, None, "{tested:?}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(30), trying).await;
    in_time.unwrap();
}

/// One test message to a server with these manners, from a receiver that `configure` describes.
async fn tested(
    manners: Manners,
    configure: impl Fn(&Desk, &MailServer) -> String,
) -> (Tested, MailServer) {
    let server = MailServer::start(manners);
    let desk = Desk::new(&server);
    let monitor = start(&configure(&desk, &server), &Arc::default()).await;
    let tested = monitor.test_receiver("ops").await.unwrap();
    monitor.shutdown().await;
    (tested, server)
}

#[actix_web::test]
async fn a_failure_its_repeat_and_its_end_are_one_thread() {
    let server = MailServer::start(signed_in());
    let desk = Desk::new(&server);
    let monitor = life(&desk.receiver(
        &server,
        r#""to": ["ops@example.net", "Nights <nights@bücher.example>"]"#,
    ))
    .await;
    let mails = server.mails();
    assert_eq!(mails.len(), 3);
    let messages: Vec<Message<'_>> = mails.iter().map(read).collect();
    let id = |at: usize| format!("<{}>", messages[at].message_id().unwrap());
    for (at, mail) in mails.iter().enumerate() {
        assert_eq!(mail.from, "weir@example.net");
        assert_eq!(mail.to, ["ops@example.net", "nights@xn--bcher-kva.example"]);
        assert_eq!(mail.user.as_deref(), Some("weir@example.net"));
        let message = &messages[at];
        assert_eq!(header(message, "Auto-Submitted"), Some("auto-generated"));
        assert_eq!(header(message, "X-Auto-Response-Suppress"), Some("All"));
        assert_eq!(
            header(message, "Importance"),
            None,
            "only for what is critical"
        );
        assert_eq!(message.to().unwrap().iter().count(), 2);
        let date = message.date().unwrap().to_timestamp();
        let ahead = date - monitor.clock().now().as_second();
        assert!((-3600..=0).contains(&ahead), "{ahead}");
        for name in ["In-Reply-To", "References"] {
            let expected = (at > 0).then(|| id(0));
            assert_eq!(header(message, name), expected.as_deref(), "{name} of {at}");
        }
    }
    assert!(id(0) != id(1) && id(1) != id(2));
    let rows = ledger(&monitor, "ops");
    for row in &rows {
        assert_eq!(
            row.receipt,
            Some(id(0)),
            "the thread is the first message's"
        );
        assert_eq!(row.answer.as_deref(), Some("250 2.0.0 Ok: queued as 4XYZ"));
    }
    let (text, html) = (
        messages[0].body_text(0).unwrap(),
        messages[0].body_html(0).unwrap(),
    );
    for body in [&text, &html] {
        assert!(
            body.contains("CUDA out of memory") && body.contains("portrait"),
            "{body}"
        );
    }
    let page = "http://127.0.0.1:8000/executions/";
    assert_eq!(text.matches(page).count(), 1, "{text}");
    assert!(html.contains(&format!("<a href=\"{page}")), "{html}");
    assert!(
        messages[0]
            .subject()
            .unwrap()
            .starts_with("❌ portrait on bench failed")
    );
    assert!(
        messages[2].subject().unwrap().starts_with('✅'),
        "{:?}",
        messages[2].subject()
    );
    // In the open was said what has to be, and the password stays out of everything that is kept.
    let open = server
        .heard()
        .into_iter()
        .filter(|(encrypted, _)| !encrypted);
    assert!(
        open.into_iter()
            .all(|(_, line)| line.starts_with("EHLO [127.0.0.1]") || line == "STARTTLS")
    );
    let kept = format!(
        "{rows:?} {:?} {:?} {}",
        monitor.status(),
        monitor.receivers(),
        monitor.exposition()
    );
    assert!(!kept.contains(CANARY));
    assert!(
        mails
            .iter()
            .all(|mail| !String::from_utf8_lossy(&mail.raw).contains(CANARY))
    );
    monitor.shutdown().await;
}

#[actix_web::test]
async fn each_way_to_encrypt_and_to_sign_in_works() {
    let from_the_start = || Manners {
        tls: Tls::FromTheStart,
        ..signed_in()
    };
    let by_login = Manners {
        asks_by_login: true,
        ..signed_in()
    };
    for (manners, config) in [
        (signed_in(), ""),
        (by_login, ""),
        (from_the_start(), r#""tls": "tls""#),
    ] {
        let (tested, server) = tested(manners, |desk, server| desk.receiver(server, config)).await;
        assert_eq!(tested.failure, None, "{tested:?}");
        assert_eq!(tested.answer, "250 2.0.0 Ok: queued as 4XYZ");
        let mails = server.mails();
        let message = read(&mails[0]);
        assert_eq!(
            tested.receipt,
            Some(format!("<{}>", message.message_id().unwrap()))
        );
        assert_eq!(message.subject(), Some("ℹ️ Test from weir to ops"));
        let text = message.body_text(0).unwrap();
        assert!(text.contains("Nothing is wrong"), "{text}");
        assert!(
            text.contains("Open in weir: http://127.0.0.1:8000"),
            "{text}"
        );
        let sent = server
            .heard()
            .into_iter()
            .find(|(_, line)| line.starts_with("MAIL"));
        assert!(sent.unwrap().0, "encrypted");
    }
    let plain = Manners {
        tls: Tls::Never,
        ..Manners::default()
    };
    let without = |_: &Desk, server: &MailServer| {
        let port = server.port;
        format!(
            r#"(name: "ops", handler: "email", config: {{ "server": "127.0.0.1", "port": {port}, "tls": "none",
                "from": "weir@example.net", "to": ["ops@example.net"] }})"#
        )
    };
    let (tested, server) = tested(plain, without).await;
    assert_eq!(
        (tested.failure, server.mails().len()),
        (None, 1),
        "{tested:?}"
    );
}

#[actix_web::test]
async fn a_password_shows_nowhere_also_where_the_server_repeats_it() {
    let manners = Manners {
        login: Some(("weir@example.net", "another")),
        ..Manners::default()
    };
    let (server, bench) = (MailServer::start(manners), Arc::new(Bench::default()));
    let desk = Desk::new(&server);
    let monitor = start(&desk.receiver(&server, ""), &bench).await;
    // A wrong one shows at the start, before any alert.
    until(&monitor, "parked", |m| trouble(m).is_some()).await;
    let told = trouble(&monitor).unwrap();
    assert!(told.contains("receiver ops is parked"), "{told}");
    assert!(
        told.contains("535 5.7.8 weir@example.net may not use [secret smtp]"),
        "{told}"
    );
    let tested = monitor.test_receiver("ops").await.unwrap();
    assert_eq!(tested.failure, Some(FailureKind::Misconfigured));
    ends(&monitor, &bench, "a", "portrait", JobState::Failed).await;
    until(&monitor, "queued", |m| !states(m).is_empty()).await;
    let base64 = "Y0FuQXJZLXBhNTU";
    let kept = format!(
        "{tested:?} {:?} {:?} {:?} {} {}",
        ledger(&monitor, "ops"),
        monitor.status(),
        monitor.receivers(),
        monitor.exposition(),
        settings(&format!(
            "(alerts: ({}))",
            alerts(&desk.receiver(&server, ""))
        ))
        .to_ron_redacted(),
    );
    assert!(kept.contains("[secret smtp]"));
    assert!(!kept.contains(CANARY) && !kept.contains(base64), "{kept}");
    // The server is mended: what waited goes, and nobody is troubled any more.
    server.set(signed_in());
    monitor.clock().advance(Duration::from_secs(15 * 60 + 1));
    until(&monitor, "sent", |m| states(m) == [OutboxState::Sent]).await;
    until(&monitor, "over", |m| trouble(m).is_none()).await;
    monitor.shutdown().await;
}

#[actix_web::test]
async fn a_changed_password_or_server_is_taken_by_a_reload_if_it_works() {
    let (server, bench) = (MailServer::start(signed_in()), Arc::new(Bench::default()));
    let desk = Desk::new(&server);
    let monitor = start(&desk.receiver(&server, ""), &bench).await;
    works(&monitor).await;
    let same = || {
        settings(&format!(
            "(alerts: ({}))",
            alerts(&desk.receiver(&server, ""))
        ))
    };
    // A password that does not work changes nothing.
    std::fs::write(desk.file("password"), "wrong").unwrap();
    let refused = monitor.reload(same()).await.unwrap_err();
    assert!(matches!(refused, ReloadError::NotReady(_)), "{refused}");
    assert!(refused.to_string().contains("signing in: 535"), "{refused}");
    works(&monitor).await;
    // Nor does a file that is gone.
    std::fs::remove_file(desk.file("password")).unwrap();
    assert!(matches!(
        monitor.reload(same()).await.unwrap_err(),
        ReloadError::Plan(_)
    ));
    works(&monitor).await;
    // The server's changed too: the same file with another content is taken.
    server.set(Manners {
        login: Some(("weir@example.net", "another")),
        ..Manners::default()
    });
    std::fs::write(desk.file("password"), "another\n").unwrap();
    monitor.reload(same()).await.unwrap();
    works(&monitor).await;
    // Another server, with another authority.
    let other = MailServer::start(Manners::default());
    std::fs::write(desk.file("ca.pem"), &other.authority).unwrap();
    let moved = alerts(&desk.open_receiver(&other, ""));
    monitor
        .reload(settings(&format!("(alerts: ({moved}))")))
        .await
        .unwrap();
    works(&monitor).await;
    let mails = other.mails();
    let is_test = |mail: &Mail| read(mail).subject() == Some("ℹ️ Test from weir to ops");
    assert_eq!(mails.iter().filter(|mail| is_test(mail)).count(), 1);
    monitor.shutdown().await;
}

#[actix_web::test]
async fn a_file_that_is_no_certificate_stops_the_start() {
    let server = MailServer::start(Manners::default());
    let desk = Desk::new(&server);
    std::fs::write(desk.file("ca.pem"), "nothing").unwrap();
    let config = with_bench(&alerts(&desk.open_receiver(&server, "")), &Arc::default());
    let error = Monitor::start(config).await.err().unwrap().to_string();
    assert!(
        error.contains("alerts.receivers[0].config.ca_file") && error.contains("no certificate"),
        "{error}"
    );
}

#[actix_web::test]
async fn a_message_that_is_tried_again_is_the_same_message() {
    let answers = vec![(".", say("451 4.3.0 not now"))];
    let (server, bench) = (
        MailServer::start(Manners {
            answers,
            ..signed_in()
        }),
        Arc::new(Bench::default()),
    );
    let desk = Desk::new(&server);
    let monitor = start(&desk.receiver(&server, ""), &bench).await;
    ends(&monitor, &bench, "a", "portrait", JobState::Failed).await;
    until(&monitor, "failed", |m| states(m) == [OutboxState::Failed]).await;
    server.set(signed_in());
    tried(&monitor, "ops", "sent", |m| {
        states(m) == [OutboxState::Sent]
    })
    .await;
    let mails = server.mails();
    let ids: Vec<_> = mails
        .iter()
        .map(|mail| read(mail).message_id().unwrap().to_owned())
        .collect();
    assert!(
        ids.len() >= 2 && ids.iter().all(|id| *id == ids[0]),
        "{ids:?}"
    );
    assert_eq!(
        header(&read(&mails[1]), "References"),
        None,
        "it is the first of its thread"
    );
    monitor.shutdown().await;
}

#[actix_web::test]
async fn nobody_waits_for_another_ones_mailbox() {
    let refuses = |line: &'static str| Manners {
        answers: vec![
            ("RCPT TO:<gone@example.net>", say("550 5.1.1 no such user")),
            (line, say("450 4.2.2 mailbox full")),
        ],
        ..signed_in()
    };
    let full = "RCPT TO:<full@example.net>";
    let (server, bench) = (MailServer::start(refuses(full)), Arc::new(Bench::default()));
    let desk = Desk::new(&server);
    let to = r#""to": ["ops@example.net", "gone@example.net", "full@example.net"]"#;
    let monitor = start(&desk.receiver(&server, to), &bench).await;
    ends(&monitor, &bench, "a", "portrait", JobState::Failed).await;
    until(&monitor, "put off", |m| states(m) == [OutboxState::Failed]).await;
    let row = ledger(&monitor, "ops").remove(0);
    let told = row.answer.unwrap();
    assert!(
        told.contains("refused for gone@example.net (550 5.1.1 no such user)"),
        "{told}"
    );
    assert!(
        told.contains("put off for full@example.net (450 4.2.2 mailbox full)"),
        "{told}"
    );
    assert_eq!(server.mails()[0].to, ["ops@example.net"]);
    // There is room again: only who waited gets it.
    server.set(refuses("RCPT TO:<nobody@example.net>"));
    tried(&monitor, "ops", "sent", |m| {
        states(m) == [OutboxState::Sent]
    })
    .await;
    let to: Vec<_> = server.mails().into_iter().map(|mail| mail.to).collect();
    assert_eq!(to, [["ops@example.net"], ["full@example.net"]]);
    // A mailbox that stays full delays nothing for long.
    server.set(refuses(full));
    ends(&monitor, &bench, "b", "landscape", JobState::Failed).await;
    let settled = |m: &MonitorHandle| states(m) == [OutboxState::Sent; 2];
    tried(&monitor, "ops", "settled", settled).await;
    let row = ledger(&monitor, "ops").remove(1);
    let waited = row.updated_at.duration_since(row.created_at).as_secs();
    assert!((15 * 60..3 * 3600).contains(&waited), "{waited}");
    let told = row.answer.unwrap();
    assert!(told.contains("full@example.net (450"), "{told}");
    assert_eq!(server.mails().len(), 3, "who has it gets it once");
    monitor.shutdown().await;
}

#[actix_web::test]
async fn hostile_words_arrive_readable_and_do_nothing() {
    let (server, bench) = (MailServer::start(signed_in()), Arc::new(Bench::default()));
    let desk = Desk::new(&server);
    let monitor = start(&desk.receiver(&server, ""), &bench).await;
    let workflow = "x\r\nBcc: all@example.net\r\n\r\n<b>🎬 עברית\u{202e}gpj.exe";
    put(&bench, "a", workflow, JobState::Running);
    until(&monitor, "running", |m| !crate::corridor::all(m).is_empty()).await;
    let mut job = crate::corridor::job("a", JobState::Failed);
    job.workflow = Some(workflow.to_owned());
    job.error = Some(format!(
        "<script>alert(1)</script>\n.\r\n.\r\nMAIL FROM:<evil@example.net>\r\n\"quoted\" & <img src=x onerror=y>\n\
         עברית العربية 🎬🔥\n\0\x1b[31m{}",
        "very long ".repeat(2000)
    ));
    bench.put(job);
    until(&monitor, "sent", |m| states(m) == [OutboxState::Sent]).await;
    let mails = server.mails();
    assert_eq!(mails.len(), 1);
    assert_eq!(mails[0].to, ["ops@example.net"]);
    let raw = String::from_utf8(mails[0].raw.clone()).unwrap();
    assert!(raw.is_ascii() && raw.lines().all(|line| line.len() <= 998));
    let message = read(&mails[0]);
    assert!(
        message.bcc().is_none() && message.headers().len() < 20,
        "{raw}"
    );
    let subject = message.subject().unwrap();
    assert!(subject.contains("x Bcc: all@example.net"), "{subject}");
    assert!(
        subject.contains("🎬 עברית") && !subject.contains('\u{202e}'),
        "{subject}"
    );
    assert!(
        subject.chars().count() <= 200 && !subject.contains(['\r', '\n']),
        "{subject}"
    );
    let (text, html) = (message.body_text(0).unwrap(), message.body_html(0).unwrap());
    assert_eq!(message.attachment_count(), 0);
    for word in [
        "<script>alert(1)</script>",
        "MAIL FROM:<evil@example.net>",
        "עברית العربية 🎬🔥",
        "\n.\n",
        "…",
    ] {
        assert!(
            text.replace("\r\n", "\n").contains(word),
            "{word} in {text}"
        );
    }
    assert!(!text.contains(['\0', '\x1b']) && text.len() < 10_000);
    for word in [
        "&lt;script&gt;alert(1)&lt;/script&gt;",
        "&lt;img src=x onerror=y&gt;",
        "עברית العربية 🎬🔥",
    ] {
        assert!(html.contains(word), "{word} in {html}");
    }
    for tag in ["<script", "<img", "<b>"] {
        assert!(!html.contains(tag), "{tag} in {html}");
    }
    monitor.shutdown().await;
}
