//! CPU time of guests: an OS thread that ticks while a guest runs, and a meter that stops it when its budget is spent.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use wasmtime::{Engine, Store, UpdateDeadline};

/// How long a guest runs before it is looked at.
pub(super) const TICK: Duration = Duration::from_millis(10);

/// Advances the engine's epoch, from a thread of its own: a spinning guest can stop an executor's timer, but not this.
pub(super) struct Ticker {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<Running>,
    changed: Condvar,
}

#[derive(Default)]
struct Running {
    guests: u32,
    stop: bool,
}

impl Ticker {
    pub(super) fn start(engine: Engine) -> std::io::Result<Ticker> {
        let shared = Arc::new(Shared::default());
        let ticking = Arc::clone(&shared);
        thread::Builder::new()
            .name("weir-epoch".into())
            .spawn(move || tick(&ticking, &engine))?;
        Ok(Ticker { shared })
    }

    /// Ticks go on while the guard lives.
    fn running(&self) -> RunningGuard<'_> {
        let mut running = self.shared.lock();
        running.guests += 1;
        if running.guests == 1 {
            self.shared.changed.notify_one();
        }
        RunningGuard(&self.shared)
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.changed.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Running> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct RunningGuard<'a>(&'a Shared);

impl Drop for RunningGuard<'_> {
    fn drop(&mut self) {
        self.0.lock().guests -= 1;
    }
}

fn tick(shared: &Shared, engine: &Engine) {
    loop {
        let running = shared
            .changed
            .wait_while(shared.lock(), |running| {
                running.guests == 0 && !running.stop
            })
            .unwrap_or_else(PoisonError::into_inner);
        if running.stop {
            return;
        }
        drop(running);
        thread::sleep(TICK);
        engine.increment_epoch();
    }
}

/// The CPU budget of one Store's current call. Waiting in a host call, or for another guest of the same thread, is not charged.
#[derive(Debug, Default)]
pub(super) struct CpuMeter {
    budget_ns: AtomicU64,
    /// Spent in polls that have ended.
    spent_ns: AtomicU64,
    /// The thread's CPU clock when the running poll began.
    poll_began_ns: AtomicU64,
    exceeded: AtomicBool,
}

impl CpuMeter {
    /// Makes `store` ask this meter at every tick.
    pub(super) fn attach<T: 'static>(self: &Arc<Self>, store: &mut Store<T>) {
        let meter = Arc::clone(self);
        store.epoch_deadline_callback(move |_| {
            if meter.spent_now() > meter.budget() {
                meter.exceeded.store(true, Ordering::Relaxed);
                wasmtime::bail!("ran for more than {:?} of CPU time", meter.budget());
            }
            // tokio's own yield lets the timers and sockets of this thread go first; a bare wake would not.
            Ok(UpdateDeadline::YieldCustom(
                1,
                Box::pin(tokio::task::yield_now()),
            ))
        });
    }

    pub(super) fn begin(&self, budget: Duration) {
        let budget_ns = u64::try_from(budget.as_nanos()).unwrap_or(u64::MAX);
        self.budget_ns.store(budget_ns, Ordering::Relaxed);
        self.spent_ns.store(0, Ordering::Relaxed);
        self.exceeded.store(false, Ordering::Relaxed);
    }

    pub(super) fn exceeded(&self) -> bool {
        self.exceeded.load(Ordering::Relaxed)
    }

    /// CPU time of the call so far, without the running poll.
    pub(super) fn spent(&self) -> Duration {
        Duration::from_nanos(self.spent_ns.load(Ordering::Relaxed))
    }

    /// Runs `future` with every poll charged to this meter and the ticker awake.
    pub(super) async fn charge<F: Future>(&self, ticker: &Ticker, future: F) -> F::Output {
        let mut future = pin!(future);
        poll_fn(|cx| {
            let _running = ticker.running();
            self.poll_began_ns.store(thread_cpu_ns(), Ordering::Relaxed);
            let polled = future.as_mut().poll(cx);
            self.spent_ns.fetch_add(self.in_poll(), Ordering::Relaxed);
            polled
        })
        .await
    }

    fn budget(&self) -> Duration {
        Duration::from_nanos(self.budget_ns.load(Ordering::Relaxed))
    }

    fn spent_now(&self) -> Duration {
        self.spent() + Duration::from_nanos(self.in_poll())
    }

    fn in_poll(&self) -> u64 {
        thread_cpu_ns().saturating_sub(self.poll_began_ns.load(Ordering::Relaxed))
    }
}

/// CPU time, not wall time: on a machine with too much to do, an innocent guest would be stopped otherwise.
fn thread_cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}
