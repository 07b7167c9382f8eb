//! The receiver actor: takes messages for one receiver out of the outbox and keeps the ledger of their delivery.

mod courier;

use crate::clock::Clock;
use crate::email::Mailer;
use crate::journal::{JournalHandle, OutboxRow, ReadError};
use crate::plugin::{PluginHandle, PluginState};
use crate::supervise::{Guard, Panic};
use crate::trouble::Troubles;
use actix::{
    Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, Message,
    ResponseActFuture, WrapFuture,
};
use courier::{Answer, Courier, bounded, deliver, raise_parked};
use jiff::{SignedDuration, Timestamp};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use weir_model::alert::delivery::{Attempt, FailureKind};
use weir_model::alert::fact::receiver_subject;
use weir_model::alert::notification::Notification;
use weir_model::config::Rate;

/// Messages taken from the outbox at once.
const BATCH: usize = 16;
/// A parked receiver is tried again this often: somebody may have mended the far side.
const PROBE: Duration = Duration::from_secs(15 * 60);

/// Rung when the outbox has something new; every receiver looks.
#[derive(Clone, Debug)]
pub(crate) struct Bell(Arc<watch::Sender<u64>>);

impl Default for Bell {
    fn default() -> Bell {
        Bell(Arc::new(watch::channel(0).0))
    }
}

impl Bell {
    pub(crate) fn ring(&self) {
        self.0.send_modify(|n| *n = n.wrapping_add(1));
    }
}

/// Where a receiver's messages go.
#[derive(Clone)]
pub(crate) enum Target {
    /// The daemon's own log.
    Log,
    Plugin(PluginHandle),
    Email(Arc<Mailer>),
    /// What was sound when the configuration was taken is not any more: a secret that is gone, say.
    Unusable(String),
}

/// Look into the outbox.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Deliver;

/// Deliver this one now, past the outbox: the journal itself is in trouble.
#[derive(Message)]
#[rtype(result = "()")]
pub struct DeliverUnrecorded(pub Box<Notification>);

/// Deliver this test now, past the outbox and the rate, and say what came back. Refused while another one is under way.
#[derive(Message)]
#[rtype(result = "Option<Tested>")]
pub(crate) struct DeliverTest(pub Box<Notification>);

/// What came of a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tested {
    /// What the far side, or the handler, said.
    pub answer: String,
    /// What the handler will be given with the next message about the same group.
    pub receipt: Option<String>,
    /// None = delivered.
    pub failure: Option<FailureKind>,
    /// When the far side wants to be asked again.
    pub retry_after: Option<Duration>,
}

/// The plugin is ready (again): what waited may go.
#[derive(Message)]
#[rtype(result = "()")]
struct Ready;

/// Stop after the delivery that is going on.
#[derive(Message)]
#[rtype(result = "()")]
pub struct StopReceiver;

pub struct ReceiverActor {
    name: String,
    target: Target,
    /// Takes over what this receiver could not deliver.
    fallback: Option<String>,
    /// At most so many messages in so long; none = no limit but the far side's own.
    rate: Option<Rate>,
    /// When the last messages were sent, as far back as the rate looks.
    sent_at: VecDeque<Timestamp>,
    journal: JournalHandle,
    troubles: Troubles,
    bell: Bell,
    clock: Clock,
    busy: bool,
    again: bool,
    stopping: bool,
    testing: bool,
    /// It was misconfigured when last tried: nothing is sent before this, and then one message, to see.
    parked_until: Option<Timestamp>,
    timer: Option<actix::SpawnHandle>,
    _guard: Guard,
}

/// What one round did: how many attempts it made, and when the next message is due.
struct Round {
    next: Option<Timestamp>,
    carried: usize,
    parked: bool,
}

/// What one look into the outbox found.
struct Found {
    due: Vec<(OutboxRow, Option<String>)>,
    next: Option<Timestamp>,
}

impl ReceiverActor {
    #[expect(
        clippy::too_many_arguments,
        reason = "an actor is born with everything it will ever need"
    )]
    pub(crate) fn new(
        name: String,
        target: Target,
        fallback: Option<String>,
        rate: Option<Rate>,
        journal: JournalHandle,
        troubles: Troubles,
        bell: Bell,
        clock: Clock,
        guard: Guard,
    ) -> ReceiverActor {
        ReceiverActor {
            fallback: fallback.filter(|f| *f != name),
            rate,
            sent_at: VecDeque::new(),
            name,
            target,
            journal,
            troubles,
            bell,
            clock,
            busy: false,
            again: false,
            stopping: false,
            testing: false,
            parked_until: None,
            timer: None,
            _guard: guard,
        }
    }

    /// One round: read what is due, deliver it in order, write the ledger after each.
    fn round(&self, limit: usize) -> impl Future<Output = Result<Round, RoundFailed>> + use<> {
        let (journal, name, now) = (self.journal.clone(), self.name.clone(), self.clock.now());
        let courier = Courier {
            name: self.name.clone(),
            target: self.target.clone(),
            fallback: self.fallback.clone(),
            journal: self.journal.clone(),
            troubles: self.troubles.clone(),
            bell: self.bell.clone(),
            clock: self.clock.clone(),
        };
        async move {
            let looked =
                tokio::task::spawn_blocking(move || look(&journal, &name, now, limit)).await;
            let found = looked.map_err(|_| RoundFailed::CutOff)??;
            let full = found.due.len() == limit;
            let (mut carried, mut next, mut settled) = (0, found.next, false);
            for (row, prior) in found.due {
                let carry = courier.carry(row, prior).await?;
                carried += 1;
                if carry.parked {
                    // The others would fare no better, and the far side need not be told so many times.
                    return Ok(Round {
                        next: carry.next,
                        carried,
                        parked: true,
                    });
                }
                settled |= carry.next.is_none();
                next = [next, carry.next].into_iter().flatten().min();
            }
            // What is settled lets later messages about the same group go.
            let next = if full || settled { Some(now) } else { next };
            Ok(Round {
                next,
                carried,
                parked: false,
            })
        }
    }

    /// How many messages the rate allows now, and when it allows the next one.
    fn allowance(&mut self, now: Timestamp) -> (usize, Option<Timestamp>) {
        let Some(rate) = self.rate else {
            return (BATCH, None);
        };
        let per = SignedDuration::try_from(rate.per).unwrap_or(SignedDuration::MAX);
        while self
            .sent_at
            .front()
            .is_some_and(|at| now.duration_since(*at) >= per)
        {
            self.sent_at.pop_front();
        }
        let count = usize::try_from(rate.count).unwrap_or(usize::MAX);
        let left = count.saturating_sub(self.sent_at.len()).min(BATCH);
        let next = self.sent_at.front().and_then(|at| at.checked_add(per).ok());
        (left, next.filter(|_| left == 0))
    }

    fn begin(&mut self, ctx: &mut Context<Self>) {
        let now = self.clock.now();
        let (limit, later) = match self.parked_until {
            Some(until) if until > now => (0, Some(until)),
            Some(_) => (1, self.allowance(now).1),
            None => self.allowance(now),
        };
        if let Some(later) = later {
            // More than the rate allows waits in the outbox, where nothing is lost; so does everything while parked.
            self.wake_in(
                Duration::try_from(later.duration_since(now)).unwrap_or_default(),
                ctx,
            );
            return;
        }
        self.busy = true;
        self.again = false;
        let round = self.round(limit);
        ctx.spawn(round.into_actor(self).map(|result, actor: &mut Self, ctx: &mut Context<Self>| {
            actor.busy = false;
            if actor.stopping {
                ctx.stop();
                return;
            }
            let wait = match result {
                Ok(Round { next, carried, parked }) => {
                    let now = actor.clock.now();
                    if parked {
                        actor.parked_until = next;
                        actor.again = false;
                    } else if carried > 0 {
                        actor.parked_until = None;
                    }
                    if actor.rate.is_some() {
                        actor.sent_at.extend(std::iter::repeat_n(now, carried));
                    }
                    next.map(|at| Duration::try_from(at.duration_since(now)).unwrap_or_default())
                }
                Err(error) => {
                    tracing::warn!(receiver = %actor.name, %error, "could not look into the outbox");
                    Some(Duration::from_secs(2))
                }
            };
            if actor.again {
                ctx.notify(Deliver);
            } else if let Some(wait) = wait {
                actor.wake_in(wait, ctx);
            }
        }));
    }

    /// A wrong password is to show at the start, as a plugin's does, and not when the first alert cannot be sent. Looks
    /// again while it is wrong, since no message may come that would. `was_wrong`: when last looked.
    fn check(&self, mailer: Arc<Mailer>, was_wrong: bool, ctx: &mut Context<Self>) {
        let clock = self.clock.clone();
        let checked = async move {
            if was_wrong {
                clock.sleep(PROBE).await;
            }
            (mailer.check().await, mailer)
        };
        ctx.spawn(checked.into_actor(self).map(
            move |(checked, mailer), actor: &mut Self, ctx: &mut Context<Self>| match checked {
                _ if actor.stopping => {}
                Err(refused) if refused.kind == FailureKind::Misconfigured => {
                    actor.parked_until = actor.clock.now().checked_add(PROBE).ok();
                    raise_parked(&actor.troubles, &actor.name, &refused.answer);
                    actor.check(mailer, true, ctx);
                }
                Err(_) if was_wrong => actor.check(mailer, true, ctx),
                Ok(()) if was_wrong => actor.works(ctx),
                _ => {}
            },
        ));
    }

    /// Whatever parked it is mended: what waits may go.
    fn works(&self, ctx: &mut Context<Self>) {
        self.troubles.clear(&receiver_subject(&self.name));
        ctx.notify(Ready);
    }

    fn wake_in(&mut self, wait: Duration, ctx: &mut Context<Self>) {
        if let Some(timer) = self.timer.take() {
            ctx.cancel_future(timer);
        }
        let clock = self.clock.clone();
        let slept = async move { clock.sleep(wait).await };
        self.timer = Some(ctx.spawn(slept.into_actor(self).map(
            |(), actor: &mut Self, ctx: &mut Context<Self>| {
                actor.timer = None;
                ctx.notify(Deliver);
            },
        )));
    }
}

#[derive(Debug, thiserror::Error)]
enum RoundFailed {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("the look was cut off")]
    CutOff,
    #[error("the ledger was not written: {0}")]
    Ledger(String),
}

fn look(
    journal: &JournalHandle,
    receiver: &str,
    now: Timestamp,
    limit: usize,
) -> Result<Found, ReadError> {
    let reader = journal.reader()?;
    let mut due = Vec::new();
    for row in reader.outbox_due(receiver, now, limit)? {
        let prior = reader.last_receipt(receiver, &row.key)?;
        due.push((row, prior));
    }
    Ok(Found {
        due,
        next: reader.outbox_next(receiver, now)?,
    })
}

impl Actor for ReceiverActor {
    type Context = Context<ReceiverActor>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let mut bell = self.bell.0.subscribe();
        let this = ctx.address().downgrade();
        ctx.spawn(
            async move {
                while bell.changed().await.is_ok() {
                    let Some(addr) = this.upgrade() else { return };
                    addr.do_send(Deliver);
                }
            }
            .into_actor(self),
        );
        // A plugin that becomes ready has work waiting.
        if let Target::Plugin(plugin) = &self.target {
            let mut status = plugin.subscribe();
            let this = ctx.address().downgrade();
            ctx.spawn(
                async move {
                    while status.changed().await.is_ok() {
                        let ready = matches!(status.borrow_and_update().state, PluginState::Ready);
                        let Some(addr) = this.upgrade() else { return };
                        if ready {
                            addr.do_send(Ready);
                        }
                    }
                }
                .into_actor(self),
            );
        }
        if let Target::Email(mailer) = self.target.clone() {
            self.check(mailer, false, ctx);
        }
        ctx.notify(Deliver);
    }
}

impl Handler<Deliver> for ReceiverActor {
    type Result = ();

    fn handle(&mut self, _: Deliver, ctx: &mut Self::Context) {
        if self.busy {
            self.again = true;
        } else {
            self.begin(ctx);
        }
    }
}

impl Handler<Ready> for ReceiverActor {
    type Result = ();

    fn handle(&mut self, _: Ready, ctx: &mut Self::Context) {
        // Whatever parked it may be mended; one message finds out.
        if self.parked_until.is_some() {
            self.parked_until = Some(self.clock.now());
        }
        ctx.notify(Deliver);
    }
}

impl Handler<DeliverTest> for ReceiverActor {
    type Result = ResponseActFuture<Self, Option<Tested>>;

    fn handle(
        &mut self,
        DeliverTest(notification): DeliverTest,
        _: &mut Self::Context,
    ) -> Self::Result {
        if self.testing || self.stopping {
            return Box::pin(std::future::ready(None).into_actor(self));
        }
        self.testing = true;
        let (target, now) = (self.target.clone(), self.clock.now());
        let tested = async move { deliver(&target, *notification, None, now).await };
        Box::pin(tested.into_actor(self).map(
            |answer: Answer, actor: &mut Self, ctx: &mut Context<Self>| {
                actor.testing = false;
                let (failure, retry_after) = match answer.attempt {
                    Attempt::Delivered => (None, None),
                    Attempt::Failed { kind, retry_after } => (Some(kind), retry_after),
                };
                if failure.is_none() && actor.parked_until.is_some() {
                    actor.works(ctx);
                }
                Some(Tested {
                    answer: bounded(&answer.text),
                    receipt: answer.receipt,
                    failure,
                    retry_after,
                })
            },
        ))
    }
}

impl Handler<DeliverUnrecorded> for ReceiverActor {
    type Result = ();

    fn handle(
        &mut self,
        DeliverUnrecorded(notification): DeliverUnrecorded,
        ctx: &mut Self::Context,
    ) {
        let (target, now) = (self.target.clone(), self.clock.now());
        let sent = async move {
            deliver(&target, *notification, None, now).await;
        };
        ctx.spawn(sent.into_actor(self));
    }
}

impl Handler<StopReceiver> for ReceiverActor {
    type Result = ();

    fn handle(&mut self, _: StopReceiver, ctx: &mut Self::Context) {
        self.stopping = true;
        if !self.busy {
            ctx.stop();
        }
    }
}

impl Handler<Panic> for ReceiverActor {
    type Result = ();

    fn handle(&mut self, _: Panic, _: &mut Self::Context) {
        panic!("asked to panic by a test");
    }
}
