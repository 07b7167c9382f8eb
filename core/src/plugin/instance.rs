//! One instance of a plugin: its Store, its limits, and how a call into it is guarded.

mod calls;
mod host;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use jiff::Timestamp;
use wasmtime::component::ResourceTable;
use wasmtime::{Engine, Store};
use wasmtime_wasi::WasiCtx;

use super::contract::bindings::exports::weir::plugin::{
    alerts, control, jobs, lifecycle, logs, streams,
};
use super::contract::bindings::weir::plugin::types;
use super::contract::{ContractError, Linked};
use super::convert;
use super::egress::Egress;
use super::gauge::{Gauge, Mark};
use super::guest_log::{GuestLog, Tail};
use super::limits::{Limits, StoreLimiter};
use super::meter::{CpuMeter, Ticker};
use super::status::{CrashCause, CrashReport, Manifest};
use super::text::printable;
use super::{Failure, PluginSpec};

const CRASH_MESSAGE_MAX: usize = 1024;
/// What is left of a call's wall time when its last request is over, an eighth of it at most: a slow far side is a failure of
/// the call, and no strike against the plugin.
const RETURN_MAX: Duration = Duration::from_secs(1);

/// What every instance of one entry shares.
pub(super) struct Surroundings {
    pub(super) engine: Engine,
    pub(super) ticker: Arc<Ticker>,
    pub(super) egress: Arc<Egress>,
    pub(super) log: Arc<GuestLog>,
    pub(super) gauge: Arc<Gauge>,
}

/// What the host's functions find in the Store.
pub(super) struct GuestState {
    wasi: WasiCtx,
    table: ResourceTable,
    limiter: StoreLimiter,
    egress: Arc<Egress>,
    log: Arc<GuestLog>,
    gauge: Arc<Gauge>,
    /// An error that it logged is kept for the crash report: without WASI a guest has no stderr, and panics into its log.
    stderr: Tail,
    call: Running,
}

/// The call that is going on.
struct Running {
    /// Its requests so far.
    requests: u32,
    /// They may carry a whole graph, and a body that is not the guest's own.
    submits: bool,
    /// A request that may change something at the far side may have arrived there.
    acted: bool,
    /// When its last request has to be over, for the guest to return within the wall limit.
    requests_until: Instant,
}

impl GuestState {
    pub(super) fn new(
        surroundings: &Surroundings,
        limits: &Limits,
        table: ResourceTable,
    ) -> GuestState {
        let stderr = Tail::default();
        let wasi = WasiCtx::builder()
            .stdout(stderr.clone())
            .stderr(stderr.clone())
            .build();
        GuestState {
            wasi,
            table,
            limiter: StoreLimiter::new(limits),
            egress: Arc::clone(&surroundings.egress),
            log: Arc::clone(&surroundings.log),
            gauge: Arc::clone(&surroundings.gauge),
            stderr,
            call: Running {
                requests: 0,
                submits: false,
                acted: false,
                requests_until: Instant::now(),
            },
        }
    }
}

/// An instance that was opened. After a crash it must be dropped: nothing in it can be called again.
pub(super) struct Instance {
    store: Store<GuestState>,
    exports: Exports,
    meter: Arc<CpuMeter>,
    surroundings: Arc<Surroundings>,
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
    streams: Option<streams::Guest>,
    control: Option<control::Guest>,
    logs: Option<logs::Guest>,
}

/// One call: its name in the contract, and what it may cost.
struct Call {
    name: &'static str,
    /// Its limits, and the marks of what it used of them.
    cpu: (Mark, Duration),
    wall: (Mark, Duration),
    /// Its requests may carry a whole graph.
    submits: bool,
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

/// A result of the guest, or the crash that kept it from one.
pub(super) type CallResult<T> = Result<Result<T, Failure>, Box<CrashReport>>;

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
        match instance.configure(spec).await {
            Ok(()) => Ok((instance, manifest)),
            Err(error) => Err((error, Some(manifest))),
        }
    }

    /// As `open`, for a few calls beside the entry's own instance: who it is was asked there.
    pub(super) async fn open_aside(
        linked: &Linked,
        spec: &PluginSpec,
        surroundings: Arc<Surroundings>,
    ) -> Result<Instance, OpenError> {
        let mut instance = Instance::empty(spec, surroundings);
        instance.instantiate(linked).await?;
        instance.configure(spec).await?;
        Ok(instance)
    }

    async fn configure(&mut self, spec: &PluginSpec) -> Result<(), OpenError> {
        let context = lifecycle::Context {
            name: spec.entry.clone(),
            uuid: spec.uuid.to_string(),
            config: spec.config.to_string(),
        };
        self.open_guest(&context).await?.map_err(OpenError::Refused)
    }

    fn empty(spec: &PluginSpec, surroundings: Arc<Surroundings>) -> Instance {
        let state = GuestState::new(&surroundings, &spec.limits, ResourceTable::new());
        let stderr = state.stderr.clone();
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
            stderr,
            born: Instant::now(),
            calls: 0,
            cpu: Duration::ZERO,
        }
    }

    async fn instantiate(&mut self, linked: &Linked) -> Result<(), OpenError> {
        let call = Call::opening("instantiate", self.limits());
        let instance = self
            .guarded(call, async |store, _| {
                linked.pre.instantiate_async(store).await
            })
            .await?;
        self.exports = Exports::find(linked, &mut self.store, &instance).map_err(|error| {
            OpenError::Incompatible(ContractError::Shape {
                detail: format!("{error:#}"),
            })
        })?;
        Ok(())
    }

    /// Whether it has lived long enough: its calls, its age or its memory.
    pub(super) fn is_spent(&self) -> bool {
        let limits = self.limits();
        self.calls >= limits.instance_calls
            || self.born.elapsed() >= limits.instance_age
            || self.memory_percent() > u64::from(limits.instance_memory_percent)
    }

    fn limits(&self) -> &Limits {
        self.surroundings.gauge.limits()
    }

    fn memory_percent(&self) -> u64 {
        self.memory().saturating_mul(100) / self.limits().memory_bytes.max(1)
    }

    pub(super) fn memory(&self) -> u64 {
        self.store.data().limiter.memory()
    }

    pub(super) fn cpu(&self) -> Duration {
        self.cpu
    }

    /// Whether the last call may have changed something at the far side: a request that was not a mere question may
    /// have arrived.
    pub(super) fn acted(&self) -> bool {
        self.store.data().call.acted
    }

    /// Runs one call under its CPU and wall limits; whatever goes wrong comes back as a report.
    async fn guarded<T>(
        &mut self,
        call: Call,
        run: impl AsyncFnOnce(&mut Store<GuestState>, &Exports) -> wasmtime::Result<T>,
    ) -> Result<T, Box<CrashReport>> {
        self.calls += 1;
        let (name, wall) = (call.name, call.wall.1);
        self.meter.begin(call.cpu.1);
        self.store.set_epoch_deadline(1);
        let began = Instant::now();
        self.store.data_mut().call = Running {
            requests: 0,
            submits: call.submits,
            acted: false,
            requests_until: began + wall.saturating_sub(RETURN_MAX.min(wall / 8)),
        };
        let running = AssertUnwindSafe(run(&mut self.store, &self.exports)).catch_unwind();
        let charged = self.meter.charge(&self.surroundings.ticker, running);
        let outcome = tokio::time::timeout(wall, charged).await;
        self.cpu += self.meter.spent();
        self.note_use(&call, began.elapsed());
        match outcome {
            Ok(Ok(Ok(value))) => Ok(value),
            Ok(Ok(Err(error))) => Err(self.report(name, self.cause(), &describe_trap(&error))),
            Ok(Err(_panic)) => Err(self.report(
                name,
                CrashCause::HostPanic,
                "the host panicked in this call; see the log",
            )),
            Err(_elapsed) => Err(self.report(
                name,
                CrashCause::WallLimit,
                &format!("no result within {wall:?}"),
            )),
        }
    }

    fn note_use(&self, call: &Call, wall: Duration) {
        let (gauge, state) = (&self.surroundings.gauge, self.store.data());
        gauge.note_time(call.cpu.0, self.meter.spent());
        gauge.note_time(call.wall.0, wall);
        gauge.note(Mark::Memory, state.limiter.memory());
        gauge.note(Mark::Tables, state.limiter.table());
        gauge.set(Mark::RetireCalls, self.calls);
        gauge.set_time(Mark::RetireAge, self.born.elapsed());
        gauge.set(Mark::RetireMemory, self.memory_percent());
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
    fn failure(&self, mut failure: types::Failure) -> Failure {
        failure.message = self.redacted(&failure.message);
        convert::failure(failure)
    }

    fn redacted(&self, text: &str) -> String {
        self.surroundings.log.redactor().redact(text)
    }
}

impl Exports {
    fn find(
        linked: &Linked,
        store: &mut Store<GuestState>,
        instance: &wasmtime::component::Instance,
    ) -> wasmtime::Result<Exports> {
        macro_rules! load {
            ($interface:ident) => {
                match &linked.$interface {
                    Some(indices) => Some(indices.load(&mut *store, instance)?),
                    None => None,
                }
            };
        }
        Ok(Exports {
            lifecycle: Some(linked.lifecycle.load(&mut *store, instance)?),
            jobs: load!(jobs),
            alerts: load!(alerts),
            streams: load!(streams),
            control: load!(control),
            logs: load!(logs),
        })
    }

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
