//! One instance of a plugin: its Store, its limits, and the calls into it.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use jiff::Timestamp;
use wasmtime::component::ResourceTable;
use wasmtime::{Engine, Store};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use weir_model::alert::notification::Notification;
use weir_model::observation::JobRef;

use super::contract::bindings::exports::weir::plugin::{alerts, jobs, lifecycle};
use super::contract::bindings::weir::plugin as contract;
use super::contract::{ContractError, Linked};
use super::convert;
use super::egress::{Egress, HttpRequest};
use super::guest_log::{GuestLog, Level, Tail};
use super::limits::{Limits, StoreLimiter};
use super::meter::{CpuMeter, Ticker};
use super::status::{CrashCause, CrashReport, Manifest};
use super::text::printable;
use super::{Failure, PluginSpec};

const CRASH_MESSAGE_MAX: usize = 1024;

/// What every instance of one entry shares.
pub(super) struct Surroundings {
    pub(super) engine: Engine,
    pub(super) ticker: Arc<Ticker>,
    pub(super) egress: Arc<Egress>,
    pub(super) log: Arc<GuestLog>,
}

/// What the host's functions find in the Store.
pub(super) struct GuestState {
    wasi: WasiCtx,
    table: ResourceTable,
    limiter: StoreLimiter,
    egress: Arc<Egress>,
    log: Arc<GuestLog>,
    /// An error that it logged is kept for the crash report: without WASI a guest has no stderr, and panics into its log.
    stderr: Tail,
    /// Requests of the running call.
    call_requests: u32,
}

/// An instance that was opened. After a crash it must be dropped: nothing in it can be called again.
pub(super) struct Instance {
    store: Store<GuestState>,
    exports: Exports,
    meter: Arc<CpuMeter>,
    surroundings: Arc<Surroundings>,
    limits: Limits,
    stderr: Tail,
    born: Instant,
    calls: u64,
    /// CPU time of all its calls.
    cpu: Duration,
}

#[derive(Default)]
struct Exports {
    lifecycle: Option<lifecycle::Guest>,
    jobs: Option<jobs::Guest>,
    alerts: Option<alerts::Guest>,
}

/// How an opening ended that did not end in an instance.
#[derive(Debug)]
pub(super) enum OpenError {
    /// The guest's `open` said no.
    Refused(Failure),
    Crashed(Box<CrashReport>),
    Incompatible(ContractError),
}

impl From<Box<CrashReport>> for OpenError {
    fn from(report: Box<CrashReport>) -> OpenError {
        OpenError::Crashed(report)
    }
}

type CallResult<T> = Result<Result<T, Failure>, Box<CrashReport>>;

impl Instance {
    /// Instantiates, asks who it is and opens it with the entry's configuration.
    pub(super) async fn open(
        linked: &Linked,
        spec: &PluginSpec,
        surroundings: Arc<Surroundings>,
    ) -> Result<(Instance, Manifest), (OpenError, Option<Manifest>)> {
        let mut instance = Instance::empty(spec, surroundings);
        if let Err(error) = instance.instantiate(linked).await {
            return Err((error, None));
        }
        let manifest = match instance.describe().await {
            Ok(manifest) => manifest,
            Err(report) => return Err((report.into(), None)),
        };
        let context = lifecycle::Context {
            name: spec.entry.clone(),
            uuid: spec.uuid.to_string(),
            config: spec.config.to_string(),
        };
        match instance.open_guest(&context).await {
            Ok(Ok(())) => Ok((instance, manifest)),
            Ok(Err(failure)) => Err((OpenError::Refused(failure), Some(manifest))),
            Err(report) => Err((report.into(), Some(manifest))),
        }
    }

    fn empty(spec: &PluginSpec, surroundings: Arc<Surroundings>) -> Instance {
        let stderr = Tail::default();
        let wasi = WasiCtx::builder()
            .stdout(stderr.clone())
            .stderr(stderr.clone())
            .build();
        let state = GuestState {
            wasi,
            table: ResourceTable::new(),
            limiter: StoreLimiter::new(&spec.limits),
            egress: Arc::clone(&surroundings.egress),
            log: Arc::clone(&surroundings.log),
            stderr: stderr.clone(),
            call_requests: 0,
        };
        let mut store = Store::new(&surroundings.engine, state);
        store.limiter(|state| &mut state.limiter);
        // What one call may hand to the host is bounded by what it may have: lists that repeat one string are a bomb.
        store.set_hostcall_fuel(usize::try_from(spec.limits.memory_bytes).unwrap_or(usize::MAX));
        let meter = Arc::new(CpuMeter::default());
        meter.attach(&mut store);
        Instance {
            store,
            exports: Exports::default(),
            meter,
            surroundings,
            limits: spec.limits.clone(),
            stderr,
            born: Instant::now(),
            calls: 0,
            cpu: Duration::ZERO,
        }
    }

    async fn instantiate(&mut self, linked: &Linked) -> Result<(), OpenError> {
        let (cpu, wall) = (self.limits.cpu_open, self.limits.wall_open);
        let instance = self
            .guarded("instantiate", cpu, wall, async |store, _| {
                linked.pre.instantiate_async(store).await
            })
            .await?;
        let store = &mut self.store;
        let shape = |error: wasmtime::Error| {
            OpenError::Incompatible(ContractError::Shape {
                detail: format!("{error:#}"),
            })
        };
        let jobs = linked
            .jobs
            .as_ref()
            .map(|jobs| jobs.load(&mut *store, &instance));
        let alerts = linked
            .alerts
            .as_ref()
            .map(|alerts| alerts.load(&mut *store, &instance));
        self.exports = Exports {
            jobs: jobs.transpose().map_err(shape)?,
            alerts: alerts.transpose().map_err(shape)?,
            lifecycle: Some(
                linked
                    .lifecycle
                    .load(&mut *store, &instance)
                    .map_err(shape)?,
            ),
        };
        Ok(())
    }

    async fn describe(&mut self) -> Result<Manifest, Box<CrashReport>> {
        let (cpu, wall) = (self.limits.cpu_open, self.limits.wall_open);
        let manifest = self
            .guarded("describe", cpu, wall, async |store, exports| {
                exports.lifecycle()?.call_describe(store).await
            })
            .await?;
        Ok(convert::manifest(manifest))
    }

    async fn open_guest(&mut self, context: &lifecycle::Context) -> CallResult<()> {
        let (cpu, wall) = (self.limits.cpu_open, self.limits.wall_open);
        let result = self
            .guarded("open", cpu, wall, async |store, exports| {
                exports.lifecycle()?.call_open(store, context).await
            })
            .await?;
        Ok(result.map_err(|failure| self.failure(failure)))
    }

    pub(super) async fn check(&mut self) -> CallResult<String> {
        let (cpu, wall) = (self.limits.cpu_call, self.limits.wall_check);
        let result = self
            .guarded("check", cpu, wall, async |store, exports| {
                exports.lifecycle()?.call_check(store).await
            })
            .await?;
        Ok(result
            .map(|answer| printable(&self.redacted(&answer), convert::MESSAGE_BYTES_MAX))
            .map_err(|failure| self.failure(failure)))
    }

    pub(super) async fn poll(
        &mut self,
        cursor: Option<&str>,
        open: &[JobRef],
    ) -> CallResult<convert::CheckedPage> {
        let open: Vec<_> = open
            .iter()
            .take(convert::OBSERVATIONS_MAX)
            .map(convert::job_ref_to_guest)
            .collect();
        let (cpu, wall) = (self.limits.cpu_call, self.limits.wall_call);
        let result = self
            .guarded("poll", cpu, wall, async |store, exports| {
                let jobs = exports.jobs.as_ref().ok_or_else(missing)?;
                jobs.call_poll(store, cursor, &open).await
            })
            .await?;
        Ok(match result {
            Ok(page) => convert::page(page),
            Err(failure) => Err(self.failure(failure)),
        })
    }

    pub(super) async fn deliver(
        &mut self,
        notification: &Notification,
        prior: Option<&str>,
    ) -> CallResult<Option<String>> {
        let notification = convert::notification_to_guest(notification);
        let (cpu, wall) = (self.limits.cpu_call, self.limits.wall_call);
        let result = self
            .guarded("deliver", cpu, wall, async |store, exports| {
                let alerts = exports.alerts.as_ref().ok_or_else(missing)?;
                alerts.call_deliver(store, &notification, prior).await
            })
            .await?;
        Ok(result.map_err(|failure| self.failure(failure)))
    }

    /// Whether it has lived long enough: its calls, its age or its memory.
    pub(super) fn is_spent(&self) -> bool {
        self.calls >= self.limits.instance_calls
            || self.born.elapsed() >= self.limits.instance_age
            || self.memory() > self.limits.memory_bytes / 4 * 3
    }

    pub(super) fn memory(&self) -> u64 {
        self.store.data().limiter.memory()
    }

    pub(super) fn cpu(&self) -> Duration {
        self.cpu
    }

    /// Runs one call under its CPU and wall limits; whatever goes wrong comes back as a report.
    async fn guarded<T>(
        &mut self,
        call: &'static str,
        cpu: Duration,
        wall: Duration,
        run: impl AsyncFnOnce(&mut Store<GuestState>, &Exports) -> wasmtime::Result<T>,
    ) -> Result<T, Box<CrashReport>> {
        self.calls += 1;
        self.meter.begin(cpu);
        self.store.set_epoch_deadline(1);
        self.store.data_mut().call_requests = 0;
        let running = AssertUnwindSafe(run(&mut self.store, &self.exports)).catch_unwind();
        let charged = self.meter.charge(&self.surroundings.ticker, running);
        let outcome = tokio::time::timeout(wall, charged).await;
        self.cpu += self.meter.spent();
        match outcome {
            Ok(Ok(Ok(value))) => Ok(value),
            Ok(Ok(Err(error))) => Err(self.report(call, self.cause(), &describe_trap(&error))),
            Ok(Err(_panic)) => Err(self.report(
                call,
                CrashCause::HostPanic,
                "the host panicked in this call; see the log",
            )),
            Err(_elapsed) => Err(self.report(
                call,
                CrashCause::WallLimit,
                &format!("no result within {wall:?}"),
            )),
        }
    }

    fn cause(&self) -> CrashCause {
        match () {
            () if self.meter.exceeded() => CrashCause::CpuLimit,
            () if self.store.data().limiter.tripped() => CrashCause::MemoryLimit,
            () => CrashCause::Trap,
        }
    }

    fn report(&self, call: &'static str, cause: CrashCause, message: &str) -> Box<CrashReport> {
        Box::new(CrashReport {
            at: Timestamp::now(),
            call,
            cause,
            message: printable(&self.redacted(message), CRASH_MESSAGE_MAX),
            stderr: self.stderr.text(self.surroundings.log.redactor()),
        })
    }

    /// Redacted before it is cut, or half a secret might stay.
    fn failure(&self, mut failure: contract::types::Failure) -> Failure {
        failure.message = self.redacted(&failure.message);
        convert::failure(failure)
    }

    fn redacted(&self, text: &str) -> String {
        self.surroundings.log.redactor().redact(text)
    }
}

impl Exports {
    fn lifecycle(&self) -> wasmtime::Result<&lifecycle::Guest> {
        self.lifecycle.as_ref().ok_or_else(missing)
    }
}

fn missing() -> wasmtime::Error {
    wasmtime::format_err!("an interface that the component does not export")
}

/// The root cause first, then where: wasmtime's outer words only say that a function was called.
fn describe_trap(error: &wasmtime::Error) -> String {
    let root = error.root_cause().to_string();
    match error.downcast_ref::<wasmtime::WasmBacktrace>() {
        None => root,
        Some(trace) => {
            let named = trace
                .frames()
                .iter()
                .filter_map(wasmtime::FrameInfo::func_name);
            let names: Vec<&str> = named.take(6).collect();
            if names.is_empty() {
                root
            } else {
                format!("{root} (in {})", names.join(" < "))
            }
        }
    }
}

impl WasiView for GuestState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

impl contract::types::Host for GuestState {}

impl contract::host::Host for GuestState {
    async fn log(&mut self, level: contract::host::Level, message: String) -> wasmtime::Result<()> {
        let level = match level {
            contract::host::Level::Debug => Level::Debug,
            contract::host::Level::Info => Level::Info,
            contract::host::Level::Warn => Level::Warn,
            contract::host::Level::Error => {
                self.stderr.line(&message);
                Level::Error
            }
        };
        self.log.log(level, &message);
        Ok(())
    }

    async fn now(&mut self) -> wasmtime::Result<u64> {
        Ok(u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0))
    }
}

impl contract::http::Host for GuestState {
    async fn send(
        &mut self,
        request: contract::http::Request,
    ) -> wasmtime::Result<Result<contract::http::Response, contract::types::Failure>> {
        let egress = Arc::clone(&self.egress);
        let result = egress
            .send(http_request(request), &mut self.call_requests)
            .await;
        Ok(result.map(http_response).map_err(convert::failure_to_guest))
    }

    async fn fetch(
        &mut self,
        request: contract::http::Request,
    ) -> wasmtime::Result<Result<contract::http::Response, contract::types::Failure>> {
        let egress = Arc::clone(&self.egress);
        let result = egress
            .fetch(http_request(request), &mut self.call_requests)
            .await;
        Ok(result.map(http_response).map_err(convert::failure_to_guest))
    }
}

fn http_request(request: contract::http::Request) -> HttpRequest {
    HttpRequest {
        method: request.method,
        url: request.url,
        headers: request.headers,
        body: request.body,
        credential: request.credential,
        timeout: request
            .timeout_ms
            .map(|ms| Duration::from_millis(ms.into())),
    }
}

fn http_response(response: super::egress::HttpResponse) -> contract::http::Response {
    contract::http::Response {
        status: response.status,
        headers: response.headers,
        body: response.body,
    }
}
