//! What a mail server can refuse, and what weir refuses to do.

use super::server::{Answer, MailServer, Manners, Tls, say};
use super::{Desk, signed_in, tested};
use weir_core::model::alert::delivery::FailureKind;

#[actix_web::test]
async fn every_refusal_is_called_what_it_is() {
    use FailureKind::{Misconfigured, Permanent, Transient};
    let at = |line, answer| vec![(line, answer)];
    for (answers, kind, words) in [
        (
            at("greeting", say("554 5.7.1 go away")),
            Misconfigured,
            "the greeting: 554 5.7.1 go away",
        ),
        (
            at("greeting", say("421 4.3.2 not now")),
            Transient,
            "421 4.3.2 not now",
        ),
        (
            at("greeting", say("SSH-2.0-OpenSSH_9.2")),
            Transient,
            "no SMTP",
        ),
        (at("greeting", Answer::Close), Transient, "hung up"),
        (
            at("EHLO", say("250 mail.example.net")),
            Misconfigured,
            "no STARTTLS",
        ),
        (
            at("STARTTLS", say("454 4.7.0 no TLS just now")),
            Transient,
            "454",
        ),
        (
            at("STARTTLS", say("554 5.7.3 no TLS")),
            Misconfigured,
            "STARTTLS: 554",
        ),
        (at("STARTTLS", Answer::Close), Transient, "hung up"),
        (
            at("AUTH", say("454 4.7.0 come back")),
            Transient,
            "signing in: 454",
        ),
        (
            at("AUTH", say("534 5.7.9 too weak")),
            Misconfigured,
            "signing in: 534",
        ),
        (at("AUTH", Answer::Close), Transient, "signing in"),
        (
            at("MAIL", say("451 4.3.0 greylisted")),
            Transient,
            "the sender: 451",
        ),
        (at("MAIL", say("530 5.7.0 sign in")), Misconfigured, "530"),
        (
            at("MAIL", say("553 5.7.1 not your address")),
            Misconfigured,
            "the sender: 553",
        ),
        (
            at("RCPT", say("550 5.1.1 nobody here")),
            Permanent,
            "ops@example.net (550 5.1.1 nobody here)",
        ),
        (
            at("RCPT", say("450 4.2.1 mailbox busy")),
            Transient,
            "ops@example.net (450",
        ),
        (at("RCPT", say("530 5.7.0 sign in")), Misconfigured, "530"),
        (at("RCPT", say("421 4.7.0 too many")), Transient, "421"),
        (
            at("DATA", say("554 5.5.1 no")),
            Permanent,
            "the message: 554",
        ),
        (at("DATA", say("250 fine")), Transient, "250 fine"),
        (at("DATA", Answer::Close), Transient, "hung up"),
        (
            at(".", say("552 5.3.4 too big")),
            Permanent,
            "552 5.3.4 too big",
        ),
        (at(".", say("451 4.3.0 disk full")), Transient, "451"),
        (at(".", Answer::Close), Transient, "the message"),
    ] {
        let manners = Manners {
            answers,
            ..signed_in()
        };
        let shown = format!("{:?}", manners.answers);
        let (tested, server) = tested(manners, |desk, server| desk.receiver(server, "")).await;
        assert_eq!(tested.failure, Some(kind), "{shown}: {tested:?}");
        assert!(tested.answer.contains(words), "{shown}: {tested:?}");
        assert!(
            tested
                .answer
                .starts_with(&format!("127.0.0.1:{}: ", server.port)),
            "{tested:?}"
        );
        let open = server
            .heard()
            .into_iter()
            .filter(|(encrypted, _)| !encrypted);
        assert!(
            open.into_iter()
                .all(|(_, line)| line.starts_with("EHLO") || line == "STARTTLS"),
            "{shown}"
        );
    }
}

#[actix_web::test]
async fn whoever_cannot_be_trusted_gets_nothing() {
    let said = |server: &MailServer| {
        let heard = server.heard();
        heard
            .into_iter()
            .any(|(_, line)| line.starts_with("AUTH") || line.starts_with("MAIL"))
    };
    // Certified by somebody else.
    let stranger = |desk: &Desk, server: &MailServer| {
        std::fs::write(
            desk.file("ca.pem"),
            &MailServer::start(Manners::default()).authority,
        )
        .unwrap();
        desk.receiver(server, "")
    };
    // By nobody that the system knows.
    let system = |desk: &Desk, server: &MailServer| {
        let config = desk.receiver(server, "");
        let ca_file = format!("\"ca_file\": \"{}\",", desk.file("ca.pem").display());
        assert!(config.contains(&ca_file));
        config.replace(&ca_file, "")
    };
    // Certified under another name.
    let renamed =
        |desk: &Desk, server: &MailServer| desk.receiver(server, r#""server": "localhost""#);
    type Configure<'a> = &'a dyn Fn(&Desk, &MailServer) -> String;
    for configure in [&stranger as Configure<'_>, &system, &renamed] {
        let (tested, server) = tested(signed_in(), configure).await;
        assert_eq!(
            tested.failure,
            Some(FailureKind::Misconfigured),
            "{tested:?}"
        );
        assert!(
            tested.answer.contains("TLS: invalid peer certificate"),
            "{tested:?}"
        );
        assert!(!said(&server));
    }
    // Replies that somebody slipped in before the encryption are not taken for the server's.
    let slipped = "250-mail.example.net\r\n250 AUTH PLAIN\r\n235 2.0.0\r\n250 2.0.0\r\n250 2.0.0\r\n354 go\r\n250 2.0.0\r\n";
    let answers = vec![("STARTTLS", Answer::Also(slipped.to_owned()))];
    let (answer, server) = tested(
        Manners {
            answers,
            ..signed_in()
        },
        |desk, server| desk.receiver(server, ""),
    )
    .await;
    assert_eq!(
        answer.failure,
        Some(FailureKind::Misconfigured),
        "{answer:?}"
    );
    assert!(!said(&server) && server.mails().is_empty());
    // A port that speaks TLS from the first byte, or not at all.
    let plain = Manners {
        tls: Tls::Never,
        ..Manners::default()
    };
    let (answer, _) = tested(plain, |desk, server| {
        desk.receiver(server, r#""tls": "tls""#)
    })
    .await;
    assert_eq!(
        answer.failure,
        Some(FailureKind::Misconfigured),
        "{answer:?}"
    );
    assert!(answer.answer.contains("only after STARTTLS"), "{answer:?}");
    let wrapped = Manners {
        tls: Tls::FromTheStart,
        ..signed_in()
    };
    let (answer, _) = tested(wrapped, |desk, server| {
        desk.receiver(server, r#""timeout": "1s""#)
    })
    .await;
    assert_eq!(answer.failure, Some(FailureKind::Transient), "{answer:?}");
    assert!(answer.answer.contains("`tls: \"tls\"`"), "{answer:?}");
}

#[actix_web::test]
async fn no_server_keeps_weir_waiting_or_fills_its_memory() {
    let endless = Answer::Say("250-".to_owned() + &"x".repeat(2_000_000));
    for (line, answer) in [
        ("greeting", Answer::Hang),
        ("STARTTLS", Answer::Hang),
        ("AUTH", Answer::Hang),
        ("RCPT", Answer::Hang),
        (".", Answer::Hang),
        ("greeting", endless.clone()),
        ("MAIL", endless),
    ] {
        let manners = Manners {
            answers: vec![(line, answer)],
            ..signed_in()
        };
        let (tested, _server) = tested(manners, |desk, server| {
            desk.receiver(server, r#""timeout": "1s""#)
        })
        .await;
        assert_eq!(
            tested.failure,
            Some(FailureKind::Transient),
            "{line}: {tested:?}"
        );
    }
    // Nobody is there.
    let gone = |desk: &Desk, server: &MailServer| {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        desk.receiver(server, &format!(r#""port": {port}"#))
    };
    let (tested, _server) = tested(signed_in(), gone).await;
    assert_eq!(tested.failure, Some(FailureKind::Transient), "{tested:?}");
    assert!(tested.answer.contains("onnection refused"), "{tested:?}");
}
