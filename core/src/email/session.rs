//! One conversation with a mail server, and what each of its refusals means.
//!
//! Invariant: nothing but the words up to STARTTLS is said before the connection is as encrypted as it is configured to be,
//! and nothing that was heard before that is believed afterwards.

use super::wire::Wire;
use super::{FailureKind, Refused};
use crate::tls;
use lettre::Address;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::AsyncSmtpConnection;
use lettre::transport::smtp::commands::{Data, Ehlo, Mail, Rcpt, Starttls};
use lettre::transport::smtp::extension::{ClientId, Extension, ServerInfo};
use lettre::transport::smtp::response::Response;
use rustls::pki_types::{CertificateDer, ServerName};
use std::cell::Cell;
use std::error::Error as _;
use std::io;
use std::net::IpAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use weir_model::config::{Email, EmailTls};

/// For one address of the server.
const CONNECT: Duration = Duration::from_secs(10);
/// Leaving is a courtesy.
const QUIT: Duration = Duration::from_secs(2);
/// Of one answer before TLS; no server says so much.
const OPEN_ANSWER_BYTES_MAX: usize = 8 * 1024;

const HUNG_UP: &str = "the server hung up";

/// What the server is asked for at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Connect,
    Greeting,
    StartTls,
    Tls,
    /// After STARTTLS the server is greeted anew.
    Hello,
    SignIn,
    Sender,
    Recipient,
    Message,
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Step::Connect => "connecting",
            Step::Greeting => "the greeting",
            Step::StartTls => "STARTTLS",
            Step::Tls => "TLS",
            Step::Hello => "EHLO",
            Step::SignIn => "signing in",
            Step::Sender => "the sender",
            Step::Recipient => "the recipients",
            Step::Message => "the message",
        }
    }

    /// What a lasting refusal here is about: this one message, or how weir is configured.
    fn refusal(self) -> FailureKind {
        match self {
            Step::Recipient | Step::Message => FailureKind::Permanent,
            _ => FailureKind::Misconfigured,
        }
    }
}

/// What the server said about one recipient.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) to: Address,
    pub(super) answer: String,
}

/// The message was taken for one at least.
#[derive(Debug)]
pub(super) struct Sent {
    /// The server's last word.
    pub(super) answer: String,
    pub(super) accepted: Vec<Address>,
    pub(super) refused: Vec<Said>,
    pub(super) put_off: Vec<Said>,
}

/// A connection that messages can be sent over.
pub(super) struct Session {
    connection: AsyncSmtpConnection,
    server: String,
}

impl Session {
    pub(super) async fn open(
        settings: &Email,
        credentials: Option<Credentials>,
        authorities: &[CertificateDer<'static>],
        step: &Cell<Step>,
    ) -> Result<Session, Refused> {
        let server = settings.address();
        let mut tcp = connect(settings).await?;
        let hello = hello(&tcp);
        let wire = match settings.tls {
            EmailTls::None => Wire::plain(tcp),
            EmailTls::Tls => {
                step.set(Step::Tls);
                Wire::encrypted(encrypt(tcp, settings, authorities).await?)
            }
            EmailTls::StartTls => {
                start_tls(&mut tcp, &server, &hello, step).await?;
                step.set(Step::Tls);
                Wire::upgraded(encrypt(tcp, settings, authorities).await?)
            }
        };
        let next = match settings.tls {
            EmailTls::StartTls => Step::Hello,
            EmailTls::Tls | EmailTls::None => Step::Greeting,
        };
        step.set(next);
        let connection = AsyncSmtpConnection::connect_with_transport(Box::new(wire), &hello).await;
        let connection = connection.map_err(|error| refused(&server, next, &error))?;
        let mut session = Session { connection, server };
        if let Some(credentials) = credentials {
            step.set(Step::SignIn);
            session.sign_in(&credentials).await?;
        }
        Ok(session)
    }

    async fn sign_in(&mut self, credentials: &Credentials) -> Result<(), Refused> {
        let known = self.connection.server_info();
        if known.get_auth_mechanism(DEFAULT_MECHANISMS).is_none() {
            return Err(Refused::new(
                FailureKind::Misconfigured,
                format!(
                    "{}: the server offers no AUTH PLAIN or LOGIN here; leave `credentials` out where no password is asked",
                    self.server
                ),
            ));
        }
        let signed_in = self.connection.auth(DEFAULT_MECHANISMS, credentials).await;
        match signed_in {
            Ok(_) => Ok(()),
            Err(error) => Err(refused(&self.server, Step::SignIn, &error)),
        }
    }

    /// One message to all of them that the server takes it for; an error where it takes it for nobody.
    pub(super) async fn send(
        &mut self,
        from: &Address,
        to: &[Address],
        message: &[u8],
        step: &Cell<Step>,
    ) -> Result<Sent, Refused> {
        debug_assert!(message.is_ascii(), "bodies are encoded, and so are headers");
        let server = self.server.clone();
        step.set(Step::Sender);
        let sender = Mail::new(Some(from.clone()), Vec::new());
        let sender = self.connection.command(sender).await;
        sender.map_err(|error| refused(&server, Step::Sender, &error))?;
        step.set(Step::Recipient);
        let (mut accepted, mut turned_away, mut put_off) = (Vec::new(), Vec::new(), Vec::new());
        for to in to {
            let recipient = Rcpt::new(to.clone(), Vec::new());
            let Err(error) = self.connection.command(recipient).await else {
                accepted.push(to.clone());
                continue;
            };
            let said = Said {
                to: to.clone(),
                answer: answer(&error),
            };
            match error.status().map(u16::from) {
                // It says goodbye, or wants to be signed in to: that is not about this recipient.
                None | Some(421 | 530) => return Err(refused(&server, Step::Recipient, &error)),
                Some(400..500) => put_off.push(said),
                Some(_) => turned_away.push(said),
            }
        }
        if accepted.is_empty() {
            let kind = match put_off.is_empty() {
                true => FailureKind::Permanent,
                false => FailureKind::Transient,
            };
            turned_away.append(&mut put_off);
            let answer = format!(
                "{server}: taken for nobody: {}",
                super::listed(&turned_away)
            );
            return Err(Refused::new(kind, answer));
        }
        step.set(Step::Message);
        let failed = |error| refused(&server, Step::Message, &error);
        let go = self.connection.command(Data).await.map_err(failed)?;
        if !go.has_code(354) {
            let answer = format!("{server}: the message: {}", words(&go));
            return Err(Refused::new(FailureKind::Transient, answer));
        }
        let taken = self.connection.message(message).await.map_err(failed)?;
        Ok(Sent {
            answer: words(&taken),
            accepted,
            refused: turned_away,
            put_off,
        })
    }

    /// What was sent is sent, whatever the server answers to this.
    pub(super) async fn quit(mut self) {
        let _ = timeout(QUIT, self.connection.quit()).await;
    }
}

/// Nothing came within the time for a whole message.
pub(super) fn late(settings: &Email, step: Step) -> Refused {
    let (server, limit) = (settings.address(), settings.timeout);
    let hint = match (step, settings.tls) {
        (Step::Greeting | Step::StartTls, EmailTls::StartTls | EmailTls::None) => {
            " (does this port expect TLS from the first byte? then: `tls: \"tls\"`)"
        }
        _ => "",
    };
    let text = format!(
        "{server}: no end within {limit:?}, at {}{hint}",
        step.name()
    );
    Refused::new(FailureKind::Transient, text)
}

/// One address after the other.
async fn connect(settings: &Email) -> Result<TcpStream, Refused> {
    let server = settings.address();
    let failed = |why: String| Refused::new(FailureKind::Transient, format!("{server}: {why}"));
    let found = tokio::net::lookup_host((settings.server.as_str(), settings.port)).await;
    let found = found.map_err(|error| failed(error.to_string()))?;
    let mut failure = failed("the name has no address".to_owned());
    for address in found {
        match timeout(CONNECT, TcpStream::connect(address)).await {
            Ok(Ok(tcp)) => {
                // Every command waits for its answer.
                let _ = tcp.set_nodelay(true);
                return Ok(tcp);
            }
            Ok(Err(error)) => failure = failed(format!("connecting: {error}")),
            Err(_) => failure = failed(format!("{address} does not answer")),
        }
    }
    Err(failure)
}

/// The address that this machine has toward the server: it needs no name that anybody else knows.
fn hello(tcp: &TcpStream) -> ClientId {
    match tcp.local_addr().map(|address| address.ip().to_canonical()) {
        Ok(IpAddr::V4(address)) => ClientId::Ipv4(address),
        Ok(IpAddr::V6(address)) => ClientId::Ipv6(address),
        Err(_) => ClientId::default(),
    }
}

/// Says what has to be said in the open. A server that offers no STARTTLS, or from which somebody on the way took it, gets
/// nothing more.
async fn start_tls(
    tcp: &mut TcpStream,
    server: &str,
    hello: &ClientId,
    step: &Cell<Step>,
) -> Result<(), Refused> {
    step.set(Step::Greeting);
    open_answer(tcp, server, Step::Greeting).await?;
    let known = ask(tcp, server, Step::Greeting, Ehlo::new(hello.clone())).await?;
    let known = ServerInfo::from_response(&known);
    let known = known.map_err(|error| refused(server, Step::Greeting, &error))?;
    if !known.supports_feature(Extension::StartTls) {
        return Err(Refused::new(
            FailureKind::Misconfigured,
            format!("{server}: the server offers no STARTTLS, and nothing is sent without"),
        ));
    }
    step.set(Step::StartTls);
    ask(tcp, server, Step::StartTls, Starttls).await.map(drop)
}

async fn ask(
    tcp: &mut TcpStream,
    server: &str,
    step: Step,
    command: impl std::fmt::Display,
) -> Result<Response, Refused> {
    let sent = tcp.write_all(command.to_string().as_bytes()).await;
    sent.map_err(|error| broken(server, step, &error))?;
    open_answer(tcp, server, step).await
}

/// Read byte by byte, so that nothing that came before TLS waits in a buffer for after it.
async fn open_answer(tcp: &mut TcpStream, server: &str, step: Step) -> Result<Response, Refused> {
    let mut text = Vec::new();
    let mut line = 0;
    loop {
        let byte = tcp.read_u8().await;
        text.push(byte.map_err(|error| broken(server, step, &error))?);
        if text.len() > OPEN_ANSWER_BYTES_MAX {
            return Err(broken(
                server,
                step,
                &io::Error::other("a very long answer"),
            ));
        }
        if !text.ends_with(b"\n") {
            continue;
        }
        let code = text.get(line..line + 3);
        if !code.is_some_and(|code| code.iter().all(u8::is_ascii_digit)) {
            break;
        }
        // `250-` goes on, `250 ` was the last line.
        if text.get(line + 3) != Some(&b'-') {
            break;
        }
        line = text.len();
    }
    let response: Result<Response, _> = String::from_utf8_lossy(&text).parse();
    let response = response.map_err(|_| {
        let said = String::from_utf8_lossy(&text);
        broken(
            server,
            step,
            &io::Error::other(format!("this is no SMTP: {said}")),
        )
    })?;
    match response.is_positive() {
        true => Ok(response),
        false => Err(by_code(
            server,
            step,
            response.code().into(),
            &words(&response),
        )),
    }
}

async fn encrypt(
    tcp: TcpStream,
    settings: &Email,
    authorities: &[CertificateDer<'static>],
) -> Result<TlsStream<TcpStream>, Refused> {
    let server = settings.address();
    let failed = |kind, why: &str| Refused::new(kind, format!("{server}: TLS: {why}"));
    let authorities = authorities.to_vec();
    // The system's certificates are files; reading them is not for the actors' thread.
    let made = tokio::task::spawn_blocking(move || match authorities.is_empty() {
        true => tls::verifying(),
        false => tls::verifying_also(authorities),
    });
    let config = match made.await {
        Ok(Ok(config)) => config,
        Ok(Err(error)) => return Err(failed(FailureKind::Transient, &error.to_string())),
        Err(error) => return Err(failed(FailureKind::Transient, &error.to_string())),
    };
    let name = ServerName::try_from(settings.server.clone())
        .map_err(|_| failed(FailureKind::Misconfigured, "no certificate can be for it"))?;
    match TlsConnector::from(config).connect(name, tcp).await {
        Ok(stream) => Ok(stream),
        Err(error) => {
            let told = error.get_ref().and_then(|it| it.downcast_ref());
            match told {
                // It does not pass by itself: a wrong certificate, or no TLS at all.
                Some(error @ rustls::Error::InvalidMessage(_)) => Err(failed(
                    FailureKind::Misconfigured,
                    &format!("{error} (does this port speak TLS only after STARTTLS?)"),
                )),
                Some(error) => Err(failed(FailureKind::Misconfigured, &error.to_string())),
                None => Err(failed(FailureKind::Transient, &error.to_string())),
            }
        }
    }
}

fn refused(server: &str, step: Step, error: &lettre::transport::smtp::Error) -> Refused {
    match error.status() {
        Some(code) => by_code(server, step, code.into(), &answer(error)),
        // The connection broke, or what came is no SMTP.
        None => {
            let text = format!("{server}: {}: {}", step.name(), answer(error));
            Refused::new(FailureKind::Transient, text)
        }
    }
}

fn by_code(server: &str, step: Step, code: u16, said: &str) -> Refused {
    let kind = match code {
        500.. if code == 530 => FailureKind::Misconfigured,
        500.. => step.refusal(),
        _ => FailureKind::Transient,
    };
    Refused::new(kind, format!("{server}: {}: {said}", step.name()))
}

fn broken(server: &str, step: Step, error: &io::Error) -> Refused {
    let text = format!("{server}: {}: {}", step.name(), cause(error));
    Refused::new(FailureKind::Transient, text)
}

/// `550 5.1.1 no such user`, or why there is no answer.
fn answer(error: &lettre::transport::smtp::Error) -> String {
    let source = error.source();
    let said = source.map(ToString::to_string).unwrap_or_default();
    match (error.status(), source.and_then(|it| it.downcast_ref())) {
        (Some(code), _) => format!("{code} {said}"),
        (None, Some(error)) => cause(error),
        (None, None) if said == "incomplete response" => HUNG_UP.to_owned(),
        (None, None) => said,
    }
}

fn cause(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => HUNG_UP.to_owned(),
        _ => error.to_string(),
    }
}

fn words(response: &Response) -> String {
    let text: Vec<&str> = response.message().collect();
    format!("{} {}", response.code(), text.join(" "))
}
