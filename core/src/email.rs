//! The receiver `email`: notifications as mail through one server, in weir itself, since plugins speak HTTP alone.
//!
//! Whoever the server takes the message for gets it at once. Whoever it refuses is named in the ledger and the log; whoever
//! it puts off is tried alone for a while, so that nobody waits for anybody else's mailbox.

mod message;
mod session;
mod wire;

use crate::plugin::{Redactor, Secret};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use lettre::Address;
use lettre::transport::smtp::authentication::Credentials;
use rustls::pki_types::CertificateDer;
use session::{Said, Sent, Session, Step};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::time::timeout;
use uuid::Uuid;
use weir_model::alert::delivery::FailureKind;
use weir_model::alert::notification::Notification;
use weir_model::alert::text;
use weir_model::config::{Email, Login, Mailbox};

/// How long those who were put off are tried after others got the message.
const STRAGGLERS: SignedDuration = SignedDuration::from_mins(15);
/// Messages remembered that some have and others wait for; the oldest is forgotten, and may then be sent to all again.
const PARTLY_SENT_MAX: usize = 256;
/// Characters of what a server said that are kept.
const ANSWER_LEN_MAX: usize = 300;

/// What a receiver `email` sends through. Its `Debug` shows no secret.
#[derive(Debug)]
pub(crate) struct Mailer {
    name: String,
    settings: Email,
    /// As it was read; present where `settings.login` is.
    password: Option<Secret>,
    /// Trusted beside the system's.
    authorities: Vec<CertificateDer<'static>>,
    /// Of this receiver in this store: what tells its messages from everybody else's.
    entry: Uuid,
    to: Vec<Address>,
    from: Address,
    redactor: Redactor,
    partly_sent: Mutex<BTreeMap<String, PartlySent>>,
    failures: AtomicU64,
}

/// A message that some got while others were put off.
#[derive(Debug)]
struct PartlySent {
    since: Timestamp,
    /// Who got it, or never will.
    settled: BTreeSet<Address>,
    answer: String,
}

/// The server took the message.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) answer: String,
    /// The Message-ID of the first message about the group.
    pub(crate) receipt: String,
}

/// It did not.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) kind: FailureKind,
    pub(crate) answer: String,
}

impl Refused {
    fn new(kind: FailureKind, answer: impl Into<String>) -> Refused {
        Refused {
            kind,
            answer: answer.into(),
        }
    }
}

impl Mailer {
    /// `entry` tells this receiver from every other one, also in other stores. The error says what is wrong.
    pub(crate) fn new(
        name: &str,
        settings: Email,
        password: Option<Secret>,
        authorities: Vec<CertificateDer<'static>>,
        entry: Uuid,
    ) -> Result<Mailer, String> {
        let address = |mailbox: &Mailbox| {
            let address = Address::new(&mailbox.local_part, &mailbox.domain);
            address.map_err(|error| format!("{}: {error}", mailbox.address()))
        };
        let mut secrets = Vec::new();
        if let (Some(login), Some(password)) = (&settings.login, &password) {
            secrets = tells(login, password)?;
        }
        Ok(Mailer {
            name: name.to_owned(),
            from: address(&settings.from)?,
            to: settings.to.iter().map(address).collect::<Result<_, _>>()?,
            settings,
            password,
            authorities,
            entry,
            redactor: Redactor::new(secrets),
            partly_sent: Mutex::default(),
            failures: AtomicU64::new(0),
        })
    }

    /// Whether the other one would do the same.
    pub(crate) fn is_same(&self, other: &Mailer) -> bool {
        self.settings == other.settings
            && self.password == other.password
            && self.authorities == other.authorities
            && self.entry == other.entry
    }

    /// Connects, signs in and leaves again: nothing is sent.
    pub(crate) async fn check(&self) -> Result<(), Refused> {
        let session = self.within(async |step| self.open(step).await).await?;
        session.quit().await;
        Ok(())
    }

    /// Sends to everybody who has not got this very message yet. `prior`: the receipt of the group's first message.
    pub(crate) async fn deliver(
        &self,
        notification: &Notification,
        prior: Option<&str>,
        now: Timestamp,
    ) -> Result<Accepted, Refused> {
        let written = message::write(&self.settings, self.entry, notification, prior, now)
            .map_err(|error| Refused::new(FailureKind::Permanent, error))?;
        let waiting = self.waiting(&notification.id);
        let sent = self
            .within(async |step| {
                let mut session = self.open(step).await?;
                let sent = session
                    .send(&self.from, &waiting, &written.bytes, step)
                    .await;
                Ok((session, sent?))
            })
            .await;
        let settled = match sent {
            Ok((session, sent)) => {
                session.quit().await;
                self.settle(&notification.id, sent, now)
            }
            Err(refused) => self.settle_late(&notification.id, refused, now),
        };
        match settled {
            Ok(answer) => Ok(Accepted {
                answer: self.shown(&answer),
                receipt: written.thread,
            }),
            Err(refused) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                Err(self.redacted(refused))
            }
        }
    }

    /// Attempts to deliver that failed.
    pub(crate) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Some got the message now.
    fn settle(&self, id: &str, sent: Sent, now: Timestamp) -> Result<String, Refused> {
        let Sent {
            answer,
            accepted,
            refused,
            put_off,
        } = sent;
        let answer = match refused.is_empty() {
            true => answer,
            false => {
                let refused = listed(&refused);
                tracing::warn!(receiver = %self.name, refused = %self.shown(&refused), "mail is refused for some");
                format!("{answer}; refused for {refused}")
            }
        };
        let mut partly_sent = self.partly_sent();
        let had = partly_sent.remove(id);
        if put_off.is_empty() {
            return Ok(answer);
        }
        let since = had.as_ref().map_or(now, |had| had.since);
        let answer = format!("{answer}; put off for {}", listed(&put_off));
        if now.duration_since(since) >= STRAGGLERS {
            return Ok(answer);
        }
        let mut settled = had.map(|had| had.settled).unwrap_or_default();
        settled.extend(accepted);
        settled.extend(refused.into_iter().map(|said| said.to));
        let known = PartlySent {
            since,
            settled,
            answer: answer.clone(),
        };
        partly_sent.insert(id.to_owned(), known);
        if partly_sent.len() > PARTLY_SENT_MAX {
            let oldest = partly_sent.iter().min_by_key(|(_, known)| known.since);
            if let Some(oldest) = oldest.map(|(id, _)| id.clone()) {
                partly_sent.remove(&oldest);
            }
        }
        Err(Refused::new(FailureKind::Transient, answer))
    }

    /// Nobody got it now. Where others did before, it is delivered as far as it can be.
    fn settle_late(&self, id: &str, refused: Refused, now: Timestamp) -> Result<String, Refused> {
        let mut partly_sent = self.partly_sent();
        let Some(known) = partly_sent.get(id) else {
            return Err(refused);
        };
        let is_over = now.duration_since(known.since) >= STRAGGLERS;
        if refused.kind != FailureKind::Permanent && !is_over {
            return Err(refused);
        }
        let answer = format!("{}; then {}", known.answer, refused.answer);
        tracing::warn!(receiver = %self.name, answer = %self.shown(&answer), "some did not get the mail");
        partly_sent.remove(id);
        Ok(answer)
    }

    /// Who is still to get this message.
    fn waiting(&self, id: &str) -> Vec<Address> {
        let partly_sent = self.partly_sent();
        let settled = partly_sent.get(id).map(|known| &known.settled);
        let waits = |to: &&Address| settled.is_none_or(|settled| !settled.contains(to));
        self.to.iter().filter(waits).cloned().collect()
    }

    fn partly_sent(&self) -> MutexGuard<'_, BTreeMap<String, PartlySent>> {
        self.partly_sent
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// No server keeps us longer than the configured time, and the failure says what it kept us at.
    async fn within<T>(
        &self,
        work: impl AsyncFnOnce(&Cell<Step>) -> Result<T, Refused>,
    ) -> Result<T, Refused> {
        let (step, limit) = (Cell::new(Step::Connect), self.settings.timeout);
        let done = timeout(limit, work(&step)).await;
        done.unwrap_or_else(|_| Err(session::late(&self.settings, step.get())))
            .map_err(|refused| self.redacted(refused))
    }

    async fn open(&self, step: &Cell<Step>) -> Result<Session, Refused> {
        let login = self.settings.login.as_ref().zip(self.password.as_ref());
        let credentials = login.map(|(Login { user, .. }, password)| {
            Credentials::new(user.clone(), password.expose().to_owned())
        });
        Session::open(&self.settings, credentials, &self.authorities, step).await
    }

    /// One line that holds no secret, as a ledger and a log can keep it.
    fn shown(&self, answer: &str) -> String {
        let mut answer = answer.to_owned();
        self.redactor.clean(&mut answer);
        text::line(&answer, ANSWER_LEN_MAX)
    }

    fn redacted(&self, refused: Refused) -> Refused {
        Refused::new(refused.kind, self.shown(&refused.answer))
    }
}

/// Every form in which a server could repeat what it was shown.
fn tells(login: &Login, password: &Secret) -> Result<Vec<(String, String)>, String> {
    let (user, password) = (&login.user, password.expose());
    if password.is_empty() {
        return Err("the password is empty".to_owned());
    }
    // What signing in separates its parts with; a line break is a mistake in the file.
    if [user, password]
        .iter()
        .any(|text| text.contains(['\0', '\r', '\n']))
    {
        return Err("the user or the password holds a character that it cannot".to_owned());
    }
    let plain = STANDARD.encode(format!("\0{user}\0{password}"));
    let tells = [password.to_owned(), STANDARD.encode(password), plain];
    Ok(tells.map(|tell| ("smtp".to_owned(), tell)).into())
}

/// `a@example.net (550 no such user), b@example.net (...)`
fn listed(said: &[Said]) -> String {
    let said = said
        .iter()
        .map(|Said { to, answer }| format!("{to} ({answer})"));
    said.collect::<Vec<_>>().join(", ")
}
