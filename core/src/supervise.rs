//! Respawn by factory with backoff.
//!
//! actix's own supervisor does not survive a panic: the address stays dead. Here a guard inside the actor tells when it
//! is gone, and a task makes the next one from the factory. Senders hold a [`Slot`], which always points at the living one.

use actix::{Actor, Addr, Context, Handler, Message};
use arc_swap::ArcSwapOption;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;

const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// An actor that lived this long starts over with the first backoff.
const HEALTHY: Duration = Duration::from_secs(60);

/// Where an actor is found, across its deaths.
pub struct Slot<A: Actor> {
    addr: Arc<ArcSwapOption<Addr<A>>>,
    counters: Arc<Counters>,
}

impl<A: Actor> Clone for Slot<A> {
    fn clone(&self) -> Slot<A> {
        Slot {
            addr: self.addr.clone(),
            counters: self.counters.clone(),
        }
    }
}

/// What happened to one supervised actor.
#[derive(Debug)]
pub struct Counters {
    pub name: String,
    pub starts: AtomicU64,
    pub panics: AtomicU64,
    /// Messages refused because its mailbox was full or it was down.
    pub refused: AtomicU64,
}

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendFailed {
    #[error("its mailbox is full")]
    Full,
    #[error("it is down")]
    Down,
}

impl<A: Actor<Context = Context<A>>> Slot<A> {
    /// A slot nobody lives in yet, so that actors that know each other can be born in any order.
    pub fn empty(name: impl Into<String>) -> Slot<A> {
        let counters = Counters {
            name: name.into(),
            starts: AtomicU64::new(0),
            panics: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        };
        Slot {
            addr: Arc::default(),
            counters: Arc::new(counters),
        }
    }

    /// For data: respects the mailbox's bound. Policy when full: refused, counted, the sender decides.
    pub fn try_send<M>(&self, message: M) -> Result<(), SendFailed>
    where
        M: Message + Send + 'static,
        M::Result: Send,
        A: Handler<M>,
    {
        let failed = match &*self.addr.load() {
            None => SendFailed::Down,
            Some(addr) => match addr.try_send(message) {
                Ok(()) => return Ok(()),
                Err(actix::prelude::SendError::Full(_)) => SendFailed::Full,
                Err(actix::prelude::SendError::Closed(_)) => SendFailed::Down,
            },
        };
        self.counters.refused.fetch_add(1, Ordering::Relaxed);
        Err(failed)
    }

    /// For signals: never refused while the actor lives.
    pub fn signal<M>(&self, message: M)
    where
        M: Message + Send + 'static,
        M::Result: Send,
        A: Handler<M>,
    {
        if let Some(addr) = &*self.addr.load() {
            addr.do_send(message);
        }
    }

    /// Waits for room in the mailbox and for the answer; none when the actor died meanwhile.
    pub async fn ask<M>(&self, message: M) -> Option<M::Result>
    where
        M: Message + Send + 'static,
        M::Result: Send,
        A: Handler<M>,
    {
        let addr = self.addr.load_full()?;
        addr.send(message).await.ok()
    }

    /// Waits until somebody lives here, at most `patience`: at the start, and between two lives.
    pub async fn filled(&self, patience: Duration) -> bool {
        let waiting = async {
            while self.addr.load().is_none() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(patience, waiting).await.is_ok()
    }

    pub fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }
}

/// Lives inside a supervised actor; its drop is how the actor's end is noticed.
#[derive(Debug)]
pub struct Guard {
    down: mpsc::UnboundedSender<Down>,
}

#[derive(Debug)]
struct Down {
    panicked: bool,
}

impl Drop for Guard {
    fn drop(&mut self) {
        // The supervisor may have stopped already.
        let _ = self.down.send(Down {
            panicked: std::thread::panicking(),
        });
    }
}

/// Told once that everything stops: from then on nothing is respawned.
#[derive(Clone, Debug, Default)]
pub struct Stopping(Arc<AtomicBool>);

impl Stopping {
    pub fn begin(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    pub fn begun(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// Fills `slot` with an actor from `factory`, on this thread's arbiter, and keeps it filled until `stopping`.
pub fn keep<A, F>(slot: &Slot<A>, stopping: &Stopping, factory: F)
where
    A: Actor<Context = Context<A>>,
    F: Fn(Guard) -> A + 'static,
{
    let slot = slot.clone();
    let stopping = stopping.clone();
    actix::spawn(async move {
        let mut backoff = BACKOFF_FIRST;
        while !stopping.begun() {
            let (down, mut ended) = mpsc::unbounded_channel();
            let born = tokio::time::Instant::now();
            slot.counters.starts.fetch_add(1, Ordering::Relaxed);
            let addr = factory(Guard { down }).start();
            slot.addr.store(Some(Arc::new(addr)));
            let end = ended.recv().await.unwrap_or(Down { panicked: false });
            slot.addr.store(None);
            if end.panicked {
                slot.counters.panics.fetch_add(1, Ordering::Relaxed);
                tracing::error!(actor = %slot.counters.name, "actor panicked, starting it again");
            }
            if stopping.begun() {
                return;
            }
            if born.elapsed() > HEALTHY {
                backoff = BACKOFF_FIRST;
            }
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    });
}

/// Makes the actor that takes it panic; tests send it to show that nothing else is harmed.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Panic;
