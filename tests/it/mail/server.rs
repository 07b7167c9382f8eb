//! A local mail server: mailin's protocol over real sockets and real TLS, with the manners that a test gives it.

use mailin::{Action, AuthMechanism, Handler, Response, SessionBuilder};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// When the server encrypts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Tls {
    #[default]
    Offered,
    FromTheStart,
    Never,
}

/// What the server does in place of what the protocol would have it do.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// These lines.
    Say(String),
    /// What it would say, and these lines right behind it.
    Also(String),
    /// Nothing, with the connection open.
    Hang,
    Close,
}

pub(crate) fn say(text: &str) -> Answer {
    Answer::Say(format!("{text}\r\n"))
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Manners {
    pub(crate) tls: Tls,
    /// Who may send; none = everybody.
    pub(crate) login: Option<(&'static str, &'static str)>,
    /// AUTH LOGIN in place of AUTH PLAIN.
    pub(crate) asks_by_login: bool,
    /// By how a line begins: a command, `greeting`, or `.` for the end of a message.
    pub(crate) answers: Vec<(&'static str, Answer)>,
}

/// A message, whatever the server said to it in the end.
#[derive(Clone, Debug)]
pub(crate) struct Mail {
    pub(crate) from: String,
    pub(crate) to: Vec<String>,
    pub(crate) raw: Vec<u8>,
    pub(crate) user: Option<String>,
}

#[derive(Default)]
struct Stage {
    manners: Mutex<Manners>,
    mails: Mutex<Vec<Mail>>,
    /// Every command, and whether it came encrypted.
    heard: Mutex<Vec<(bool, String)>>,
}

pub(crate) struct MailServer {
    pub(crate) port: u16,
    /// The certificate of the authority that made the server's.
    pub(crate) authority: String,
    stage: Arc<Stage>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl MailServer {
    pub(crate) fn start(manners: Manners) -> MailServer {
        MailServer::named("127.0.0.1", manners)
    }

    /// With a certificate for this name or address.
    pub(crate) fn named(name: &str, manners: Manners) -> MailServer {
        let (authority, config) = certificates(name);
        let stage = Arc::new(Stage {
            manners: Mutex::new(manners),
            ..Stage::default()
        });
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (tell_port, port) = std::sync::mpsc::channel();
        let played = stage.clone();
        // A thread of its own: tests are async or not.
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = { runtime }.enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                tell_port
                    .send(listener.local_addr().unwrap().port())
                    .unwrap();
                let acceptor = TlsAcceptor::from(config);
                let serving = async {
                    while let Ok((stream, _)) = listener.accept().await {
                        let talk = talk(stream, played.clone(), acceptor.clone());
                        // One that goes away, or trusts us not, is no failure of the server's.
                        tokio::spawn(async { drop(talk.await) });
                    }
                };
                tokio::select! { () = serving => {}, _ = stopped => {} }
            });
        });
        MailServer {
            port: port.recv().unwrap(),
            authority,
            stage,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    pub(crate) fn set(&self, manners: Manners) {
        *self.stage.manners.lock().unwrap() = manners;
    }

    pub(crate) fn mails(&self) -> Vec<Mail> {
        self.stage.mails.lock().unwrap().clone()
    }

    /// The commands that came.
    pub(crate) fn heard(&self) -> Vec<(bool, String)> {
        self.stage.heard.lock().unwrap().clone()
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// An authority, and what a server needs that was certified by it.
fn certificates(name: &str) -> (String, Arc<ServerConfig>) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(DnType::CommonName, "Weir test authority");
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params
        .distinguished_name
        .push(DnType::CommonName, "Weir test server");
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    (issuer.pem(), Arc::new(config))
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// One connection, until somebody ends it.
async fn talk(
    stream: tokio::net::TcpStream,
    stage: Arc<Stage>,
    acceptor: TlsAcceptor,
) -> std::io::Result<()> {
    let manners = stage.manners.lock().unwrap().clone();
    let answer_to = |line: &str| {
        let found = manners
            .answers
            .iter()
            .find(|(begin, _)| line.starts_with(begin));
        found.map(|(_, answer)| answer.clone())
    };
    let mut session = session(&manners, stage.clone());
    let mut encrypted = manners.tls == Tls::FromTheStart;
    let mut stream: BufReader<Box<dyn Stream>> = BufReader::new(match manners.tls {
        Tls::FromTheStart => {
            session.tls_active();
            Box::new(acceptor.accept(stream).await?)
        }
        _ => Box::new(stream),
    });
    let greeting = Some(session.greeting());
    let (mut in_data, mut next) = (false, (greeting, answer_to("greeting")));
    loop {
        let (response, answer) = next;
        let told = response.as_ref().map(|it| it.buffer().unwrap());
        let told = told.unwrap_or_default();
        match answer {
            None => stream.write_all(&told).await?,
            Some(Answer::Say(text)) => stream.write_all(text.as_bytes()).await?,
            Some(Answer::Also(text)) => {
                stream
                    .write_all(&[told, text.into_bytes()].concat())
                    .await?;
            }
            Some(Answer::Hang) => std::future::pending().await,
            Some(Answer::Close) => return Ok(()),
        }
        stream.flush().await?;
        match response.map(|it| it.action) {
            Some(Action::Close) => return Ok(()),
            Some(Action::UpgradeTls) => {
                let upgraded = acceptor.accept(stream.into_inner()).await?;
                stream = BufReader::new(Box::new(upgraded));
                session.tls_active();
                encrypted = true;
            }
            _ => {}
        }
        let mut line = Vec::new();
        if stream.read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        let ends = text == ".";
        let answer = (!in_data || ends).then(|| answer_to(&text)).flatten();
        if !in_data {
            stage.heard.lock().unwrap().push((encrypted, text));
        }
        // What the test answers, the protocol never hears of: unless it only adds to it, or a message ends.
        let asks = in_data || matches!(answer, None | Some(Answer::Also(_)));
        let response = asks.then(|| session.process(&line));
        in_data = match &response {
            Some(response) => response.code == 354 || (in_data && !ends),
            None => in_data,
        };
        next = (response, answer);
    }
}

fn session(manners: &Manners, stage: Arc<Stage>) -> mailin::Session<Desk> {
    let mut builder = SessionBuilder::new("mail.example.net");
    if manners.tls == Tls::Offered {
        builder.enable_start_tls();
    }
    if manners.login.is_some() {
        builder.enable_auth(match manners.asks_by_login {
            true => AuthMechanism::Login,
            false => AuthMechanism::Plain,
        });
    }
    let desk = Desk {
        login: manners.login,
        stage,
        user: None,
        from: String::new(),
        to: Vec::new(),
        raw: Vec::new(),
    };
    builder.build(IpAddr::from([127, 0, 0, 1]), desk)
}

/// What takes a session's messages.
struct Desk {
    login: Option<(&'static str, &'static str)>,
    stage: Arc<Stage>,
    user: Option<String>,
    from: String,
    to: Vec<String>,
    raw: Vec<u8>,
}

impl Handler for Desk {
    fn data_start(&mut self, _: &str, from: &str, _: bool, to: &[String]) -> Response {
        self.from = from.to_owned();
        self.to = to.to_vec();
        self.raw.clear();
        mailin::response::START_DATA
    }

    fn data(&mut self, line: &[u8]) -> std::io::Result<()> {
        self.raw.extend_from_slice(line);
        Ok(())
    }

    fn data_end(&mut self) -> Response {
        self.stage.mails.lock().unwrap().push(Mail {
            from: self.from.clone(),
            to: self.to.clone(),
            raw: self.raw.clone(),
            user: self.user.clone(),
        });
        Response::custom(250, "2.0.0 Ok: queued as 4XYZ".to_owned())
    }

    fn auth_plain(&mut self, _: &str, user: &str, password: &str) -> Response {
        self.auth_login(user, password)
    }

    fn auth_login(&mut self, user: &str, password: &str) -> Response {
        if self.login == Some((user, password)) {
            self.user = Some(user.to_owned());
            mailin::response::AUTH_OK
        } else {
            // As no server should.
            Response::custom(535, format!("5.7.8 {user} may not use {password}"))
        }
    }
}
