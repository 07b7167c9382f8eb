//! The host itself: the engine, and the threads that plugins run, compile and are timed on.

use std::io;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{JoinSet, LocalSet};
use wasmtime::{Cache, CacheConfig, Config, Engine};

use super::aside::{Aside, REPORTS_LEN_MAX, Worker};
use super::contract;
use super::credential::Redactor;
use super::egress::{Egress, EgressGrant, Resolve, SystemResolver};
use super::entry::Entry;
use super::gauge::Gauge;
use super::guest_log::GuestLog;
use super::handle::{HandleInner, ORDERS_LEN_MAX, PluginHandle};
use super::instance::{Instance, OpenError, Surroundings};
use super::lifecycle::Lifecycle;
use super::load::LoadQueue;
use super::meter::Ticker;
use super::reload::FileWatch;
use super::status::{Capabilities, Counters, Examined, PluginState, PluginStatus};
use super::tape::Tape;
use super::{PluginSpec, WasmBytes};

const THREADS_MAX: usize = 64;
/// Entries that wait to be taken up by one thread.
const LAUNCH_LEN_MAX: usize = 1024;

#[derive(Clone, Debug)]
pub struct HostOptions {
    /// Where compiled code is kept; made 0700. None = compiled anew at every start.
    pub cache_dir: Option<PathBuf>,
    /// Threads that guests run on.
    pub threads: usize,
    pub user_agent: String,
    /// How often the file of a plugin is looked at: a changed one is taken into use.
    pub file_poll: Duration,
}

impl Default for HostOptions {
    fn default() -> HostOptions {
        HostOptions {
            cache_dir: None,
            threads: thread::available_parallelism().map_or(1, |cores| cores.get().min(4)),
            user_agent: concat!("weir/", env!("CARGO_PKG_VERSION")).into(),
            file_poll: Duration::from_secs(2),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    #[error("the WebAssembly engine: {0}")]
    Engine(String),
    #[error("a plugin thread: {0}")]
    Thread(#[from] io::Error),
}

/// Why an entry could not begin. The text is one line for its operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// The file is not what the entry needs.
    #[error("{0}")]
    File(String),
    /// The guest does not take the configuration, or crashed over it.
    #[error("{0}")]
    Config(String),
}

/// Why there is no place for compiled code.
#[derive(Debug, thiserror::Error)]
#[error("the plugin cache {}: {error}", .path.display())]
struct CacheError {
    path: PathBuf,
    error: io::Error,
}

/// Runs plugins. Clones are the same host; its threads end when it and the last handle are gone.
#[derive(Clone)]
pub struct PluginHost {
    inner: Arc<HostInner>,
}

pub(super) struct HostInner {
    engine: Engine,
    ticker: Arc<Ticker>,
    loader: LoadQueue,
    threads: Vec<mpsc::Sender<Entry>>,
    next_thread: AtomicUsize,
    user_agent: String,
    file_poll: Duration,
    resolver: Arc<dyn Resolve>,
}

impl PluginHost {
    pub fn start(options: HostOptions) -> Result<PluginHost, PluginError> {
        PluginHost::start_with_resolver(options, Arc::new(SystemResolver))
    }

    /// As `start`, with another way to turn host names into addresses.
    pub fn start_with_resolver(
        options: HostOptions,
        resolver: Arc<dyn Resolve>,
    ) -> Result<PluginHost, PluginError> {
        let engine = engine(options.cache_dir.as_deref())?;
        let failed = |error: wasmtime::Error| PluginError::Engine(format!("{error:#}"));
        let linker = contract::linker(&engine).map_err(failed)?;
        let threads = (0..options.threads.clamp(1, THREADS_MAX))
            .map(start_thread)
            .collect::<io::Result<_>>()?;
        let inner = HostInner {
            ticker: Arc::new(Ticker::start(engine.clone())?),
            loader: LoadQueue::start(engine.clone(), linker)?,
            engine,
            threads,
            next_thread: AtomicUsize::new(0),
            user_agent: options.user_agent,
            file_poll: options.file_poll,
            resolver,
        };
        Ok(PluginHost {
            inner: Arc::new(inner),
        })
    }

    /// Returns at once; loading and opening go on by themselves and show in the handle's status.
    pub fn open(&self, spec: PluginSpec) -> PluginHandle {
        self.open_with(spec, None)
    }

    /// As `open`, with a tape on the guest's way out.
    pub fn open_taped(&self, spec: PluginSpec, tape: Arc<Tape>) -> PluginHandle {
        self.open_with(spec, Some(tape))
    }

    /// Reads, compiles and links a file without running anything of it. The error is one line for its author.
    pub async fn examine(&self, wasm: WasmBytes, file_bytes_max: u64) -> Result<Examined, String> {
        let linked = self.inner.loader.load(wasm, file_bytes_max).await;
        let linked = linked.map_err(|error| error.to_string())?;
        let ty = linked.pre.component().component_type();
        Ok(Examined {
            capabilities: linked.capabilities,
            imports: ty
                .imports(&self.inner.engine)
                .map(|(name, _)| name.to_owned())
                .collect(),
            sha256: linked.sha256.to_string(),
            file_bytes: linked.file_bytes,
        })
    }

    /// Whether an entry could begin: its file fits, and the guest describes itself and opens with the configuration. Nothing
    /// is reached meanwhile; an opening that would need to is not judged.
    pub async fn opens(&self, spec: &PluginSpec) -> Result<(), Unfit> {
        let file_bytes_max = spec.limits.file_bytes;
        let loaded = self.inner.loader.load(spec.wasm.clone(), file_bytes_max);
        let linked = loaded.await.map_err(|e| Unfit::File(e.to_string()))?;
        contract::check_role(linked.capabilities, spec.role)
            .map_err(|error| Unfit::File(error.to_string()))?;
        // An empty tape answers every request by itself, and remembers that there was one.
        let tape = Arc::new(Tape::player());
        let surroundings = Arc::new(self.surroundings(spec, Some(Arc::clone(&tape))));
        match Instance::open(&linked, spec, surroundings).await {
            Ok(_) => Ok(()),
            Err((OpenError::Refused(_), _)) if !tape.differences().is_empty() => Ok(()),
            Err((OpenError::Refused(failure), _)) => Err(Unfit::Config(failure.message)),
            Err((OpenError::Crashed(report), _)) => Err(Unfit::Config(report.to_string())),
            Err((OpenError::Incompatible(error), _)) => Err(Unfit::File(error.to_string())),
        }
    }

    fn open_with(&self, spec: PluginSpec, tape: Option<Arc<Tape>>) -> PluginHandle {
        let (orders_tx, orders) = mpsc::channel(ORDERS_LEN_MAX);
        let (asides_tx, asides) = mpsc::channel(ORDERS_LEN_MAX);
        let (closing_tx, closing) = watch::channel(false);
        let (status, status_rx) = watch::channel(first_status(&spec));
        let status = Arc::new(status);
        let resume = Arc::new(Notify::new());
        let surroundings = Arc::new(self.surroundings(&spec, tape));
        let egress = Arc::clone(&surroundings.egress);
        let spec = Arc::new(spec);
        let (linked, linked_rx) = watch::channel(None);
        let (reports, aside_reports) = mpsc::channel(REPORTS_LEN_MAX);
        let aside = Aside {
            orders: asides,
            closing: closing.clone(),
            worker: Worker {
                spec: Arc::clone(&spec),
                surroundings: Arc::clone(&surroundings),
                linked: linked_rx,
                status: Arc::clone(&status),
                reports,
            },
        };
        let gauge = Arc::clone(&surroundings.gauge);
        let entry = Entry {
            file_watch: FileWatch::of(&spec, self.inner.file_poll),
            preparing: JoinSet::new(),
            surroundings,
            loader: self.inner.loader.clone(),
            orders,
            closing,
            resume: Arc::clone(&resume),
            status,
            lifecycle: Lifecycle::new(spec.role, spec.limits.backoff_base),
            linked,
            aside: Some(aside),
            aside_reports,
            instance: None,
            cpu_before: Duration::ZERO,
            round_tainted: false,
            spec,
        };
        self.launch(entry);
        PluginHandle {
            inner: Arc::new(HandleInner {
                orders: orders_tx,
                asides: asides_tx,
                closing: closing_tx,
                resume,
                status: status_rx,
                gauge,
                egress,
                _host: Arc::clone(&self.inner),
            }),
        }
    }

    fn launch(&self, entry: Entry) {
        let n = self.inner.next_thread.fetch_add(1, Ordering::Relaxed);
        let thread = &self.inner.threads[n % self.inner.threads.len()];
        if let Err(refused) = thread.try_send(entry) {
            let mut entry = match refused {
                mpsc::error::TrySendError::Full(entry)
                | mpsc::error::TrySendError::Closed(entry) => entry,
            };
            tracing::error!(
                entry = entry.spec.entry,
                "no plugin thread takes this entry"
            );
            entry.stop();
        }
    }

    fn surroundings(&self, spec: &PluginSpec, tape: Option<Arc<Tape>>) -> Surroundings {
        let redactor = Redactor::of(&spec.credentials);
        let grant = EgressGrant {
            plugin: spec.plugin.clone(),
            entry: spec.entry.clone(),
            allow: spec.allow.clone(),
            credentials: spec.credentials.clone(),
            redactor: redactor.clone(),
            user_agent: self.inner.user_agent.clone(),
        };
        let resolver = Arc::clone(&self.inner.resolver);
        let gauge = Arc::new(Gauge::new(spec.limits.clone()));
        let mut egress = Egress::new(grant, &spec.limits, resolver);
        if let Some(tape) = tape {
            egress = egress.taped(tape, redactor.clone());
        }
        Surroundings {
            engine: self.inner.engine.clone(),
            ticker: Arc::clone(&self.inner.ticker),
            egress: Arc::new(egress),
            log: Arc::new(GuestLog::new(
                &spec.plugin,
                &spec.entry,
                redactor,
                Arc::clone(&gauge),
            )),
            gauge,
        }
    }
}

fn first_status(spec: &PluginSpec) -> PluginStatus {
    PluginStatus {
        entry: spec.entry.clone(),
        plugin: spec.plugin.clone(),
        role: spec.role,
        uuid: spec.uuid,
        state: PluginState::Loading,
        retry_at: None,
        manifest: None,
        capabilities: Capabilities::default(),
        strikes: 0,
        counters: Counters::default(),
        last_crash: None,
        last_check: None,
        generation: 0,
        sha256: None,
        reload: None,
        limits: Vec::new(),
    }
}

/// A thread of its own with a runtime of its own: a guest runs inside `Future::poll`, and there it delays nobody else.
fn start_thread(n: usize) -> io::Result<mpsc::Sender<Entry>> {
    let (tx, mut rx) = mpsc::channel::<Entry>(LAUNCH_LEN_MAX);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    thread::Builder::new()
        .name(format!("weir-plugin-{n}"))
        .spawn(move || {
            let local = LocalSet::new();
            local.block_on(&runtime, async {
                while let Some(entry) = rx.recv().await {
                    tokio::task::spawn_local(run_entry(entry));
                }
            });
            drop(local);
            // A name lookup under way must not hold the thread.
            runtime.shutdown_background();
        })?;
    Ok(tx)
}

/// A panic of our own ends this entry alone, and visibly.
async fn run_entry(entry: Entry) {
    let (status, name) = (entry.status.clone(), entry.spec.entry.clone());
    let running = AssertUnwindSafe(entry.run()).catch_unwind();
    if running.await.is_err() {
        tracing::error!(
            entry = name,
            "the host of this entry panicked; the entry is stopped"
        );
        status.send_modify(|status| status.state = PluginState::Stopped);
    }
}

pub(super) fn engine(cache_dir: Option<&Path>) -> Result<Engine, PluginError> {
    let mut config = Config::new();
    config.epoch_interruption(true);
    match cache_dir.map(cache) {
        Some(Ok(cache)) => {
            config.cache(Some(cache));
        }
        // It only saves time: plugins run without it, compiled at every start.
        Some(Err(error)) => tracing::warn!("compiled plugins are not kept: {error}"),
        None => {}
    }
    Engine::new(&config).map_err(|error| PluginError::Engine(format!("{error:#}")))
}

fn cache(path: &Path) -> Result<Cache, CacheError> {
    let failed = |error: io::Error| CacheError {
        path: path.to_owned(),
        error,
    };
    make_private(path).map_err(failed)?;
    // wasmtime asks for an absolute path.
    let path = path.canonicalize().map_err(failed)?;
    let mut config = CacheConfig::new();
    config.with_directory(&path);
    Cache::new(config).map_err(|error| CacheError {
        path,
        error: io::Error::other(format!("{error:#}")),
    })
}

/// Compiled code is run as it is found: nobody else may write there.
fn make_private(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
    }
    #[cfg(not(unix))]
    std::fs::create_dir_all(path)
}
