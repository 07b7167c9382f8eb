//! Calls beside the entry's own instance: control and logs, each on a short-lived one, so that no poll delays them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use super::contract::Linked;
use super::handle::{AsideOrder, CallError, Reply};
use super::instance::{CallResult, Instance, OpenError, Surroundings};
use super::status::{CrashReport, PluginState, PluginStatus};
use super::{Failure, PluginSpec};

/// Instances aside at one time; the next order waits in the queue.
const RUNNING_MAX: usize = 4;
/// Reports that wait for the entry while it is in a call; one more is left out, its crash was counted all the same.
pub(super) const REPORTS_LEN_MAX: usize = 64;

/// What the entry has to know of a call that ran beside it.
pub(super) struct AsideReport {
    pub(super) cpu: Duration,
    pub(super) crash: Option<Arc<CrashReport>>,
}

/// Lives as long as its entry, on the same thread.
pub(super) struct Aside {
    pub(super) orders: mpsc::Receiver<AsideOrder>,
    pub(super) closing: watch::Receiver<bool>,
    pub(super) worker: Worker,
}

/// What one call needs.
#[derive(Clone)]
pub(super) struct Worker {
    pub(super) spec: Arc<PluginSpec>,
    pub(super) surroundings: Arc<Surroundings>,
    /// The generation in use.
    pub(super) linked: watch::Receiver<Option<Linked>>,
    pub(super) status: Arc<watch::Sender<PluginStatus>>,
    pub(super) reports: mpsc::Sender<AsideReport>,
}

impl Aside {
    /// Ends when the entry closes, once every running call has its result.
    pub(super) async fn run(mut self) {
        let permits = Arc::new(Semaphore::new(RUNNING_MAX));
        let mut running = JoinSet::new();
        loop {
            let next = async {
                // Invariant: the semaphore is never closed.
                let permit = Arc::clone(&permits).acquire_owned().await.ok()?;
                Some((self.orders.recv().await?, permit))
            };
            let (order, permit) = tokio::select! {
                biased;
                _ = self.closing.wait_for(|closing| *closing) => break,
                next = next => match next {
                    Some(next) => next,
                    None => break,
                },
            };
            let worker = self.worker.clone();
            running.spawn_local(async move {
                worker.serve(order).await;
                drop(permit);
            });
            while running.try_join_next().is_some() {}
        }
        self.orders.close();
        while let Ok(order) = self.orders.try_recv() {
            order.refuse(CallError::Closed);
        }
        while running.join_next().await.is_some() {}
    }
}

impl Worker {
    async fn serve(mut self, order: AsideOrder) {
        let linked = match self.usable().await {
            Ok(linked) => linked,
            Err(error) => return order.refuse(error),
        };
        let capabilities = linked.capabilities;
        let there = match order.interface() {
            "logs" => capabilities.logs,
            _ => capabilities.control,
        };
        if !there {
            let error = CallError::unsupported(order.interface());
            return order.refuse(error);
        }
        if order.is_abandoned() {
            return;
        }
        self.status.send_modify(|status| status.counters.calls += 1);
        let surroundings = Arc::clone(&self.surroundings);
        match Instance::open_aside(&linked, &self.spec, surroundings).await {
            Ok(instance) => self.call(instance, order).await,
            Err(OpenError::Refused(failure)) => {
                order.refuse(self.failed(failure, false));
            }
            Err(OpenError::Crashed(report)) => order.refuse(self.crashed(*report, Duration::ZERO)),
            Err(OpenError::Incompatible(error)) => order.refuse(CallError::Incompatible {
                reason: error.to_string(),
            }),
        }
    }

    /// The generation to call, once the file was loaded; or why there is none to call.
    async fn usable(&mut self) -> Result<Linked, CallError> {
        let mut status = self.status.subscribe();
        loop {
            {
                let status = status.borrow_and_update();
                match &status.state {
                    PluginState::Loading => {}
                    // A crash of the entry's own instance says nothing about a fresh one.
                    PluginState::Linked
                    | PluginState::Opening
                    | PluginState::Ready
                    | PluginState::Backoff { .. } => {
                        if let Some(linked) = self.linked.borrow().clone() {
                            return Ok(linked);
                        }
                    }
                    state => return Err(CallError::of_state(state, status.retry_at)),
                }
            }
            if status.changed().await.is_err() {
                return Err(CallError::Closed);
            }
        }
    }

    async fn call(&self, mut instance: Instance, order: AsideOrder) {
        match order {
            AsideOrder::Cancel { job, reply } => {
                let result = instance.cancel(&job).await;
                self.answer(&instance, result, reply);
            }
            AsideOrder::Retry { key, job, reply } => {
                let result = instance.retry(&key, &job).await;
                self.answer(&instance, result, reply);
            }
            AsideOrder::Submit {
                key,
                content_type,
                body,
                reply,
            } => {
                let result = instance.submit(&key, &content_type, &body).await;
                self.answer(&instance, result, reply);
            }
            AsideOrder::ReadLogs {
                job,
                direction,
                cursor,
                reply,
            } => {
                let result = instance.read_logs(&job, direction, cursor.as_deref()).await;
                self.answer(&instance, result, reply);
            }
        }
    }

    fn answer<T>(&self, instance: &Instance, result: CallResult<T>, reply: Reply<T>) {
        let memory = instance.memory();
        self.status.send_modify(|status| {
            let high_water = &mut status.counters.memory_high_water;
            *high_water = (*high_water).max(memory);
        });
        let result = match result {
            Ok(result) => {
                self.report(instance.cpu(), None);
                result.map_err(|failure| self.failed(failure, instance.acted()))
            }
            Err(report) => Err(self.crashed(*report, instance.cpu())),
        };
        // A caller that went away needs no answer.
        drop(reply.send(result));
    }

    fn failed(&self, failure: Failure, acted: bool) -> CallError {
        self.status
            .send_modify(|status| status.counters.failures += 1);
        CallError::Failed {
            message: failure.message,
            kind: failure.kind,
            retry_after: failure.retry_after,
            acted,
        }
    }

    fn crashed(&self, report: CrashReport, cpu: Duration) -> CallError {
        let report = Arc::new(report);
        self.status.send_modify(|status| {
            status.counters.crashes += 1;
            status.last_crash = Some(Arc::clone(&report));
        });
        let (plugin, entry) = (&self.spec.plugin, &self.spec.entry);
        tracing::warn!(
            %plugin, %entry, call = report.call, cause = %report.cause, stderr = report.stderr,
            "plugin crashed: {}", report.message
        );
        self.report(cpu, Some(Arc::clone(&report)));
        CallError::Crashed { report }
    }

    fn report(&self, cpu: Duration, crash: Option<Arc<CrashReport>>) {
        // The entry may be gone, or too busy to be told.
        let _ = self.reports.try_send(AsideReport { cpu, crash });
    }
}
