//! One plugin entry at work: loads, opens, serves its calls one after the other, and comes back after a crash.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use weir_model::observation::{Coverage, FailureKind, Page};
use weir_model::stream::{Endpoint, Frame, Reaction};

use super::aside::{Aside, AsideReport};
use super::contract::{self, Linked};
use super::handle::{CallError, Order};
use super::instance::{Instance, OpenError, Surroundings};
use super::lifecycle::Lifecycle;
use super::load::LoadQueue;
use super::reload::{FileWatch, NotPrepared, Prepared};
use super::status::{CrashReport, PluginState, PluginStatus};
use super::{Failure, PluginSpec, convert};

/// Lives on one plugin thread. Its Store never leaves that thread while a call runs.
pub(super) struct Entry {
    pub(super) spec: Arc<PluginSpec>,
    pub(super) surroundings: Arc<Surroundings>,
    pub(super) loader: LoadQueue,
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) closing: watch::Receiver<bool>,
    pub(super) resume: Arc<Notify>,
    pub(super) status: Arc<watch::Sender<PluginStatus>>,
    pub(super) lifecycle: Lifecycle,
    /// The generation in use, as the calls aside see it too.
    pub(super) linked: watch::Sender<Option<Linked>>,
    /// Taken when the entry begins to run.
    pub(super) aside: Option<Aside>,
    pub(super) aside_reports: mpsc::Receiver<AsideReport>,
    /// Taken when the entry begins to run.
    pub(super) file_watch: Option<FileWatch>,
    /// The generation that is being made ready, one at a time.
    pub(super) preparing: JoinSet<Result<Prepared, NotPrepared>>,
    pub(super) instance: Option<Instance>,
    /// CPU time of the instances that are gone.
    pub(super) cpu_before: Duration,
    /// An observation of the running round was left out, so the round cannot count as complete.
    pub(super) round_tainted: bool,
}

enum Event {
    Order(Order),
    Aside(AsideReport),
    FileChanged,
    /// Boxed, as it holds a whole instance.
    Prepared(Box<Result<Prepared, NotPrepared>>),
    RetryDue,
    Resume,
    Close,
}

impl Entry {
    pub(super) async fn run(mut self) {
        let aside = self
            .aside
            .take()
            .map(|aside| tokio::task::spawn_local(aside.run()));
        let changed = Arc::new(Notify::new());
        // Ends with this function.
        let mut watching = JoinSet::new();
        if let Some(watch) = self.file_watch.take() {
            watching.spawn_local(watch.run(Arc::clone(&changed)));
        }
        loop {
            self.publish();
            if is_closing(&self.closing) {
                break;
            }
            match self.lifecycle.state() {
                PluginState::Loading => self.load().await,
                PluginState::Linked | PluginState::Opening => self.open().await,
                PluginState::Draining | PluginState::Stopped => break,
                _ => match self.next_event(&changed).await {
                    Event::Order(order) => self.take(order).await,
                    Event::Aside(report) => self.note_aside(report),
                    Event::FileChanged => self.file_changed(),
                    Event::Prepared(prepared) => self.prepared(*prepared),
                    Event::RetryDue => self.lifecycle.retry_due(),
                    Event::Resume => self.lifecycle.resumed(),
                    Event::Close => break,
                },
            }
        }
        self.drain(aside).await;
        self.stop();
    }

    /// No instance of its own is left, and calls aside finish: their wall limit bounds it.
    async fn drain(&mut self, aside: Option<tokio::task::JoinHandle<()>>) {
        self.publish();
        let Some(aside) = aside else { return };
        // Closed by word or because nobody is left who could call: either ends it.
        if aside.await.is_err() {
            tracing::error!(entry = self.spec.entry, "the calls aside ended in a panic");
        }
        while let Ok(report) = self.aside_reports.try_recv() {
            self.cpu_before += report.cpu;
        }
    }

    async fn next_event(&mut self, changed: &Notify) -> Event {
        let retry_at = self.lifecycle.retry_at();
        let retry_due = async {
            match retry_at {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            _ = self.closing.wait_for(|closing| *closing) => Event::Close,
            () = self.resume.notified() => Event::Resume,
            () = retry_due => Event::RetryDue,
            Some(report) = self.aside_reports.recv() => Event::Aside(report),
            Some(prepared) = self.preparing.join_next() => match prepared {
                Ok(prepared) => Event::Prepared(Box::new(prepared)),
                Err(_) => Event::Prepared(Box::new(Err(NotPrepared::Refused(
                    "the host panicked while it was made ready; see the log".into(),
                )))),
            },
            // One at a time: a file that changes again meanwhile is looked at afterwards.
            () = changed.notified(), if self.preparing.is_empty() => Event::FileChanged,
            order = self.orders.recv() => order.map_or(Event::Close, Event::Order),
        }
    }

    async fn load(&mut self) {
        let loading = self
            .loader
            .load(self.spec.wasm.clone(), self.spec.limits.file_bytes);
        let loaded = tokio::select! {
            biased;
            _ = self.closing.wait_for(|closing| *closing) => return,
            loaded = loading => loaded,
        };
        let fitting = loaded
            .map_err(|error| error.to_string())
            .and_then(|linked| {
                contract::check_role(linked.capabilities, self.spec.role)
                    .map(|()| linked)
                    .map_err(|error| error.to_string())
            });
        match fitting {
            Ok(linked) => {
                self.take_over(linked);
                self.lifecycle.linked();
            }
            Err(reason) => self.incompatible(reason),
        }
    }

    /// Instantiates, opens and checks. A far side out of reach does not keep the entry from being ready.
    async fn open(&mut self) {
        self.lifecycle.opening();
        self.publish();
        let linked = self.linked.borrow().clone();
        let Some(linked) = linked else {
            return self.incompatible("it was never loaded".into());
        };
        let surroundings = Arc::clone(&self.surroundings);
        match Instance::open(&linked, &self.spec, surroundings).await {
            Ok((instance, manifest)) => {
                self.status
                    .send_modify(|status| status.manifest = Some(manifest));
                self.instance = Some(instance);
                self.check_opened().await;
            }
            Err((error, manifest)) => {
                if manifest.is_some() {
                    self.status.send_modify(|status| status.manifest = manifest);
                }
                match error {
                    OpenError::Incompatible(error) => self.incompatible(error.to_string()),
                    OpenError::Crashed(report) => drop(self.crashed(*report)),
                    OpenError::Refused(failure) => self.refused(failure),
                }
            }
        }
    }

    async fn check_opened(&mut self) {
        let Some(instance) = &mut self.instance else {
            return;
        };
        let checked = match instance.check().await {
            Err(report) => return drop(self.crashed(*report)),
            Ok(checked) => checked,
        };
        self.note_check(&checked);
        let now = Instant::now();
        match checked {
            Err(failure) if failure.kind == Some(FailureKind::Misconfigured) => {
                self.drop_instance();
                self.log_not_ready("parked", &failure.message);
                self.lifecycle.parked(now, failure.message);
            }
            _ => self.lifecycle.opened(now),
        }
    }

    fn refused(&mut self, failure: Failure) {
        let now = Instant::now();
        self.status
            .send_modify(|status| status.counters.failures += 1);
        if failure.kind == Some(FailureKind::Misconfigured) {
            self.log_not_ready("parked", &failure.message);
            self.lifecycle.parked(now, failure.message);
        } else {
            self.log_not_ready("will be opened again", &failure.message);
            self.lifecycle.refused(now, jitter(), failure.message);
        }
    }

    async fn take(&mut self, order: Order) {
        if order.is_abandoned() {
            return;
        }
        if *self.lifecycle.state() != PluginState::Ready || self.instance.is_none() {
            let state = self.lifecycle.state();
            return order.refuse(CallError::of_state(state, self.lifecycle.retry_at()));
        }
        self.status.send_modify(|status| status.counters.calls += 1);
        match order {
            Order::Poll {
                cursor,
                open,
                reply,
            } => {
                let result = self.poll(cursor.as_deref(), &open).await;
                self.after_call();
                drop(reply.send(result));
            }
            Order::Deliver {
                notification,
                prior,
                reply,
            } => {
                let result = self.deliver(&notification, prior.as_deref()).await;
                self.after_call();
                drop(reply.send(result));
            }
            Order::Check { reply } => {
                let result = self.check().await;
                self.after_call();
                drop(reply.send(result));
            }
            Order::Endpoints { reply } => {
                let result = self.endpoints().await;
                self.after_call();
                drop(reply.send(result));
            }
            Order::Frames {
                endpoint,
                frames,
                reply,
            } => {
                let result = self.on_frames(&endpoint, frames).await;
                self.after_call();
                drop(reply.send(result));
            }
        }
    }

    async fn poll(
        &mut self,
        cursor: Option<&str>,
        open: &[weir_model::observation::JobRef],
    ) -> Result<Page, CallError> {
        let result = match &mut self.instance {
            Some(instance) => instance.poll(cursor, open).await,
            None => return Err(CallError::Closed),
        };
        let checked = self.settled(result)?;
        if !checked.dropped.is_empty() {
            self.note_dropped(&checked.dropped);
        }
        let mut page = checked.page;
        self.round_tainted |= !checked.dropped.is_empty();
        if page.coverage == Coverage::Complete && self.round_tainted {
            page.coverage = Coverage::Partial;
        }
        if page.coverage != Coverage::More {
            self.round_tainted = false;
        }
        Ok(page)
    }

    async fn deliver(
        &mut self,
        notification: &weir_model::alert::notification::Notification,
        prior: Option<&str>,
    ) -> Result<Option<String>, CallError> {
        let result = match &mut self.instance {
            Some(instance) => instance.deliver(notification, prior).await,
            None => return Err(CallError::Closed),
        };
        let (receipt, too_long) = convert::receipt(self.settled(result)?, &self.surroundings.gauge);
        if too_long {
            let (plugin, entry) = (&self.spec.plugin, &self.spec.entry);
            let max = self.spec.limits.receipt_bytes;
            tracing::warn!(%plugin, %entry, "receipt of more than {max} bytes left out");
        }
        Ok(receipt)
    }

    async fn check(&mut self) -> Result<String, CallError> {
        let result = match &mut self.instance {
            Some(instance) => instance.check().await,
            None => return Err(CallError::Closed),
        };
        if let Ok(checked) = &result {
            self.note_check(checked);
        }
        self.settled(result)
    }

    async fn endpoints(&mut self) -> Result<Vec<Endpoint>, CallError> {
        self.needs_streams()?;
        let result = match &mut self.instance {
            Some(instance) => instance.endpoints().await,
            None => return Err(CallError::Closed),
        };
        self.settled(result)
    }

    async fn on_frames(
        &mut self,
        endpoint: &str,
        frames: Vec<Frame>,
    ) -> Result<Reaction, CallError> {
        self.needs_streams()?;
        let result = match &mut self.instance {
            Some(instance) => instance.on_frames(endpoint, frames).await,
            None => return Err(CallError::Closed),
        };
        let checked = self.settled(result)?;
        if !checked.dropped.is_empty() {
            self.note_dropped(&checked.dropped);
        }
        let mut reaction = checked.reaction;
        // What a frame could not tell, a poll can.
        reaction.refresh |= !checked.dropped.is_empty();
        Ok(reaction)
    }

    fn needs_streams(&self) -> Result<(), CallError> {
        let there = self
            .linked
            .borrow()
            .as_ref()
            .is_some_and(|linked| linked.capabilities.streams);
        if there {
            Ok(())
        } else {
            Err(CallError::unsupported("streams"))
        }
    }

    /// A crash aside is a strike as any other, but takes nothing away from the entry's own instance.
    fn note_aside(&mut self, report: AsideReport) {
        self.cpu_before += report.cpu;
        let Some(crash) = report.crash else { return };
        let now = Instant::now();
        self.lifecycle.crashed_aside(now, crash.to_string());
        if matches!(self.lifecycle.state(), PluginState::Quarantined { .. }) {
            self.drop_instance();
        }
    }

    /// Counts what a call came to, and ends the instance after a crash.
    fn settled<T>(
        &mut self,
        result: Result<Result<T, Failure>, Box<CrashReport>>,
    ) -> Result<T, CallError> {
        match result {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(failure)) => {
                self.status
                    .send_modify(|status| status.counters.failures += 1);
                Err(failure.into())
            }
            Err(report) => Err(CallError::Crashed {
                report: self.crashed(*report),
            }),
        }
    }

    fn crashed(&mut self, report: CrashReport) -> Arc<CrashReport> {
        self.drop_instance();
        self.round_tainted = false;
        let report = Arc::new(report);
        self.lifecycle
            .crashed(Instant::now(), jitter(), report.to_string());
        self.status.send_modify(|status| {
            status.counters.crashes += 1;
            status.last_crash = Some(Arc::clone(&report));
        });
        let (plugin, entry) = (&self.spec.plugin, &self.spec.entry);
        tracing::warn!(
            %plugin, %entry, call = report.call, cause = %report.cause, stderr = report.stderr,
            strikes = self.lifecycle.strikes(), state = %self.lifecycle.state(),
            "plugin crashed: {}", report.message
        );
        report
    }

    fn incompatible(&mut self, reason: String) {
        self.drop_instance();
        self.log_not_ready("incompatible", &reason);
        self.lifecycle.incompatible(reason);
    }

    /// The status is right before the caller has its answer.
    fn after_call(&mut self) {
        self.retire_if_spent();
        self.publish();
    }

    /// A long-lived instance makes room for a fresh one between two calls.
    fn retire_if_spent(&mut self) {
        self.lifecycle.settle(Instant::now());
        if self.instance.as_ref().is_some_and(Instance::is_spent) {
            self.drop_instance();
            self.lifecycle.opening();
        }
    }

    pub(super) fn drop_instance(&mut self) {
        self.note_instance();
        if let Some(instance) = self.instance.take() {
            self.cpu_before += instance.cpu();
        }
    }

    fn note_instance(&self) {
        let Some(instance) = &self.instance else {
            return;
        };
        let (memory, cpu) = (instance.memory(), self.cpu_before + instance.cpu());
        self.status.send_modify(|status| {
            status.counters.memory_high_water = status.counters.memory_high_water.max(memory);
            status.counters.cpu = cpu;
        });
    }

    pub(super) fn note_check(&self, checked: &Result<String, Failure>) {
        let said = match checked {
            Ok(answer) => Ok(answer.clone()),
            Err(failure) => Err(failure.message.clone()),
        };
        self.status
            .send_modify(|status| status.last_check = Some(said));
    }

    fn note_dropped(&self, dropped: &[(String, convert::Invalid)]) {
        let (plugin, entry) = (&self.spec.plugin, &self.spec.entry);
        if let Some((id, rule)) = dropped.first() {
            tracing::warn!(
                %plugin, %entry, dropped = dropped.len(), job = %id,
                "observations left out, the first one because {rule}"
            );
        }
        let count = dropped.len() as u64;
        self.status
            .send_modify(|status| status.counters.observations_dropped += count);
    }

    fn log_not_ready(&self, what: &str, reason: &str) {
        let (plugin, entry) = (&self.spec.plugin, &self.spec.entry);
        tracing::warn!(%plugin, %entry, "plugin {what}: {reason}");
    }

    fn publish(&self) {
        self.note_instance();
        let closing = is_closing(&self.closing);
        let stopped = *self.lifecycle.state() == PluginState::Stopped;
        let http_requests = self.surroundings.egress.requests();
        let log_lines_dropped = self.surroundings.log.dropped();
        self.status.send_modify(|status| {
            status.state = if closing && !stopped {
                PluginState::Draining
            } else {
                self.lifecycle.state().clone()
            };
            status.retry_at = self.lifecycle.retry_at();
            status.strikes = self.lifecycle.strikes();
            status.counters.http_requests = http_requests;
            status.counters.log_lines_dropped = log_lines_dropped;
        });
    }

    pub(super) fn stop(&mut self) {
        self.drop_instance();
        self.orders.close();
        while let Ok(order) = self.orders.try_recv() {
            order.refuse(CallError::Closed);
        }
        self.lifecycle.stopped();
        self.publish();
    }
}

/// Closed by word, or because nobody is left who could call.
fn is_closing(closing: &watch::Receiver<bool>) -> bool {
    *closing.borrow() || closing.has_changed().is_err()
}

fn jitter() -> f64 {
    rand::random()
}
