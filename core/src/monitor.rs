//! The monitor: builds, starts, reloads and stops everything, and the handle that people hold.

mod control;
mod plan;
mod rehearsal;
mod runtime;
mod samples;
mod views;
mod watch;

pub use control::{RequestError, Submit};
pub use plan::{BundledPlugin, PlanError, check_credential, plugin_spec, read_secret};
pub use views::{ActorView, MonitorStatus, ReceiverView, ReloadView, SourceView};

use crate::alert::{Acknowledge, LiftMute, SetMute};
use crate::clock::Clock;
use crate::feed::JobSource;
use crate::journal::{CommitError, JournalError, JournalHandle, OpenError, ReadError};
use crate::live::Board;
use crate::metrics::MetricsView;
use crate::plugin::{CallError, PluginError, PluginStatus};
use crate::receiver::{DeliverTest, Tested};
use crate::sampler::ResourceSample;
use crate::source::SourceOptions;
use crate::stream::StreamOptions;
use jiff::SignedDuration;
use runtime::{Order, Shared};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::{broadcast, mpsc, oneshot};
use weir_model::alert::mute::{Mute, MuteScope};
use weir_model::alert::notification::Notification;
use weir_model::config;
use weir_model::logs::{Direction, LogPage};
use weir_model::observation::JobRef;

/// What a monitor is started with: the settings, and what no file can name.
#[derive(Clone)]
pub struct Config {
    pub settings: config::Config,
    /// Exists already or is made, 0700.
    pub data_dir: PathBuf,
    /// Where compiled plugins are kept; none = compiled at every start.
    pub cache_dir: Option<PathBuf>,
    pub bundled: Vec<BundledPlugin>,
    pub in_process: Vec<InProcessSource>,
    /// An idle workflow's actor is let go after this long.
    pub passivate_after: Duration,
    /// Measure the host's resources.
    pub sample_resources: bool,
    /// How the streams of sources are kept connected.
    pub streams: StreamOptions,
    temporary: Option<Arc<tempfile::TempDir>>,
}

/// A source inside the embedding program.
#[derive(Clone)]
pub struct InProcessSource {
    pub options: SourceOptions,
    pub source: Arc<dyn JobSource>,
}

impl Config {
    pub fn new(settings: config::Config, data_dir: PathBuf) -> Config {
        Config {
            settings,
            data_dir,
            cache_dir: None,
            bundled: Vec::new(),
            in_process: Vec::new(),
            passivate_after: Duration::from_secs(300),
            sample_resources: true,
            streams: StreamOptions::default(),
            temporary: None,
        }
    }

    /// Default settings in a directory that goes away with the last handle. Does not measure the host.
    pub fn temporary() -> std::io::Result<Config> {
        let dir = tempfile::Builder::new().prefix("weir-").tempdir()?;
        let mut config = Config::new(config::Config::default(), dir.path().to_owned());
        config.sample_resources = false;
        config.temporary = Some(Arc::new(dir));
        Ok(config)
    }

    /// Adds a source that is polled every `poll_interval`; its jobs are lost after a minute's absence.
    #[must_use]
    pub fn source(
        mut self,
        name: &str,
        poll_interval: Duration,
        source: Arc<dyn JobSource>,
    ) -> Config {
        let options = SourceOptions {
            name: name.to_owned(),
            poll_interval,
            lost_after: Duration::from_secs(60),
            forgotten_before: None,
            control: false,
        };
        self.in_process.push(InProcessSource { options, source });
        self
    }

    /// Lets weir submit, cancel and retry at a source that was added, as `control: true` does in a file.
    #[must_use]
    pub fn control(mut self, name: &str) -> Config {
        for source in &mut self.in_process {
            source.options.control |= source.options.name == name;
        }
        self
    }
}

/// Why a monitor did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the data directory {}: {error}", .path.display())]
    DataDir {
        path: PathBuf,
        error: std::io::Error,
    },
    #[error(transparent)]
    Journal(#[from] OpenError),
    #[error(transparent)]
    Plugins(#[from] PluginError),
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Plan(Vec<PlanError>),
    #[error("reading the store: {0}")]
    Read(#[from] ReadError),
    #[error("its thread: {0}")]
    Thread(std::io::Error),
    #[error("it stopped while it was starting")]
    Stopped,
}

/// Why a request was not carried out.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ActError {
    #[error("there is no {0}")]
    NotFound(String),
    #[error("{0}")]
    Invalid(String),
    #[error("not recorded: {0}")]
    NotRecorded(String),
}

impl From<JournalError> for ActError {
    fn from(error: JournalError) -> ActError {
        ActError::NotRecorded(error.to_string())
    }
}

impl From<CommitError> for ActError {
    fn from(error: CommitError) -> ActError {
        ActError::NotRecorded(error.to_string())
    }
}

impl From<ReadError> for ActError {
    fn from(error: ReadError) -> ActError {
        ActError::NotRecorded(error.to_string())
    }
}

/// Why there are no log lines.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LogsError {
    #[error("it is not configured now, or is no plugin")]
    NotWatched,
    #[error("its plugin offers no logs")]
    NoLogs,
    #[error(transparent)]
    Call(#[from] CallError),
}

/// Why a new configuration was not taken; the old one goes on.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ReloadError {
    #[error("{0} cannot change while weir runs: it needs a restart")]
    NeedsRestart(&'static str),
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Plan(Vec<PlanError>),
    /// A plugin with the new configuration did not get ready.
    #[error("{}; nothing was changed", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    NotReady(Vec<PlanError>),
    #[error("weir is stopping")]
    Stopping,
}

/// What to keep quiet about, and for how long.
#[derive(Clone, Debug)]
pub struct MuteRequest {
    pub scope: MuteScope,
    pub duration: Duration,
    pub by: String,
}

/// Starts monitors.
pub struct Monitor;

impl Monitor {
    /// Starts everything on a thread of its own. Works under any executor, or none that is actix's.
    pub async fn start(config: Config) -> Result<MonitorHandle, StartError> {
        let (ready, started) = oneshot::channel();
        let keep = config.temporary.clone();
        let thread = std::thread::Builder::new().name("weir-monitor".into());
        let thread = thread
            .spawn(move || runtime::run(config, ready))
            .map_err(StartError::Thread)?;
        let (shared, orders) = started.await.map_err(|_| StartError::Stopped)??;
        let inner = Inner {
            shared,
            orders,
            thread: std::sync::Mutex::new(Some(thread)),
            _keep: keep,
        };
        Ok(MonitorHandle {
            inner: Arc::new(inner),
        })
    }
}

struct Inner {
    shared: Arc<Shared>,
    orders: mpsc::UnboundedSender<Order>,
    thread: std::sync::Mutex<Option<std::thread::JoinHandle<()>>>,
    _keep: Option<Arc<tempfile::TempDir>>,
}

impl Drop for Inner {
    /// Dropping the last handle stops the monitor and waits until everything acknowledged is on disk.
    fn drop(&mut self) {
        let _ = self.orders.send(Order::Shutdown(None));
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

/// Holds a running monitor. Clones are the same monitor; the last one stops it.
#[derive(Clone)]
pub struct MonitorHandle {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for MonitorHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MonitorHandle")
            .field("journal", self.journal())
            .finish_non_exhaustive()
    }
}

impl MonitorHandle {
    pub fn journal(&self) -> &JournalHandle {
        &self.inner.shared.journal
    }

    /// Live progress of what runs.
    pub fn board(&self) -> &Board {
        &self.inner.shared.board
    }

    pub fn clock(&self) -> &Clock {
        &self.inner.shared.clock
    }

    /// The settings in force.
    pub fn config(&self) -> Arc<config::Config> {
        self.inner.shared.settings.load_full()
    }

    pub fn data_dir(&self) -> &std::path::Path {
        &self.inner.shared.data_dir
    }

    /// The newest measurement; none before the first, or when measuring is off.
    pub fn resources(&self) -> Option<Arc<ResourceSample>> {
        self.inner.shared.resources.load_full()
    }

    pub fn metrics(&self) -> Arc<MetricsView> {
        self.inner.shared.metrics.load_full()
    }

    pub fn sources(&self) -> Vec<SourceView> {
        self.inner.shared.source_views()
    }

    pub fn receivers(&self) -> Vec<ReceiverView> {
        self.inner.shared.receiver_views()
    }

    /// Every plugin entry: sources, then receivers.
    pub fn plugins(&self) -> Vec<PluginStatus> {
        self.inner.shared.plugins()
    }

    /// Forgives a plugin its crashes, reads its file again and tries it now. False: no such entry uses a plugin.
    pub fn resume_plugin(&self, entry: &str) -> bool {
        self.inner.shared.resume_plugin(entry)
    }

    pub fn status(&self) -> MonitorStatus {
        self.inner.shared.status()
    }

    /// The text of `/metrics`. Blocks for a short read.
    pub fn exposition(&self) -> String {
        self.inner.shared.exposition()
    }

    /// Messages to the in-process receiver, which is told about every alert.
    pub fn notifications(&self) -> broadcast::Receiver<Arc<Notification>> {
        self.inner.shared.notifications.subscribe()
    }

    /// Sends a marked test alert to one receiver, past the outbox and the rate, and says what came back.
    pub async fn test_receiver(&self, name: &str) -> Result<Tested, ActError> {
        let shared = &self.inner.shared;
        let mut receivers = runtime::read(&shared.receivers);
        let receiver = receivers.remove(name).ok_or_else(|| {
            let names: Vec<String> = receivers.into_keys().collect();
            ActError::NotFound(format!("receiver {name}; there are: {}", names.join(", ")))
        })?;
        let settings = shared.settings.load();
        let url = runtime::public_url(&settings);
        let test = DeliverTest(Box::new(rehearsal::notification(
            name,
            &url,
            shared.clock.now(),
        )));
        let tested = receiver.slot.ask(test).await;
        let tested = tested.ok_or_else(|| {
            ActError::NotRecorded(format!(
                "receiver {name} is starting or stopping; try again"
            ))
        })?;
        tested.ok_or_else(|| ActError::Invalid(format!("a test of receiver {name} is under way")))
    }

    /// Acknowledges an alert by its UUID or fingerprint.
    pub async fn acknowledge(&self, alert: &str, by: &str) -> Result<(), ActError> {
        let found = {
            let (journal, wanted) = (self.journal().clone(), alert.to_owned());
            self.read(move || journal.reader()?.find_alert(&wanted))
                .await?
        };
        let row = found.ok_or_else(|| ActError::NotFound(format!("alert {alert}")))?;
        let ask = Acknowledge {
            fingerprint: row.fingerprint,
            by: by.to_owned(),
        };
        self.inner
            .shared
            .router
            .ask(ask)
            .await
            .unwrap_or_else(|| Err(router_down()))
    }

    /// Keeps notifications about something quiet for a while. Stored, expiring, shown in the status.
    pub async fn mute(&self, request: MuteRequest) -> Result<Mute, ActError> {
        let now = self.clock().now();
        let until = SignedDuration::try_from(request.duration)
            .ok()
            .and_then(|d| now.checked_add(d).ok());
        let until = until.filter(|until| *until > now);
        let until =
            until.ok_or_else(|| ActError::Invalid("the duration is out of range".into()))?;
        let mute = Mute {
            id: uuid::Uuid::now_v7().to_string(),
            scope: request.scope,
            until,
            created_by: request.by,
        };
        let ask = SetMute(mute.clone());
        self.inner
            .shared
            .router
            .ask(ask)
            .await
            .unwrap_or_else(|| Err(router_down()))?;
        Ok(mute)
    }

    /// Ends a mute before its time.
    pub async fn unmute(&self, id: &str) -> Result<(), ActError> {
        let mute = self
            .inner
            .shared
            .mutes
            .load()
            .iter()
            .find(|m| m.id == id)
            .cloned();
        let mute = mute.ok_or_else(|| ActError::NotFound(format!("mute {id}")))?;
        self.inner
            .shared
            .router
            .ask(LiftMute(mute.scope))
            .await
            .unwrap_or_else(|| Err(router_down()))
    }

    async fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce() -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, ActError> {
        let looked = tokio::task::spawn_blocking(look).await;
        Ok(looked.map_err(|_| ActError::NotRecorded("the look was cut off".into()))??)
    }

    /// Takes what a companion beside a source's provider reports: frames as its streams have them, and how many more it
    /// could not send. False: no plugin of that name is there to read them.
    pub fn take_report(&self, source: &str, frames: Vec<String>, dropped: u64) -> bool {
        let plugin = self.inner.shared.plugin_of(source);
        let reads = plugin.is_some_and(|plugin| plugin.status().capabilities.streams);
        match self.inner.shared.companion_of(source) {
            Some(companion) if reads => {
                companion.take(frames, dropped);
                true
            }
            _ => false,
        }
    }

    /// A page of the provider's own log lines of one job. They pass through and are not kept.
    pub async fn read_logs(
        &self,
        source: &str,
        job: JobRef,
        direction: Direction,
        cursor: Option<String>,
    ) -> Result<LogPage, LogsError> {
        let plugin = self.inner.shared.plugin_of(source);
        let plugin = plugin.ok_or(LogsError::NotWatched)?;
        if !plugin.status().capabilities.logs {
            return Err(LogsError::NoLogs);
        }
        Ok(plugin.read_logs(job, direction, cursor).await?)
    }

    /// Takes a new configuration, all of it or nothing.
    pub async fn reload(&self, settings: config::Config) -> Result<(), ReloadError> {
        let (answer, answered) = oneshot::channel();
        let order = Order::Reload(Box::new(settings), answer);
        self.inner
            .orders
            .send(order)
            .map_err(|_| ReloadError::Stopping)?;
        answered.await.map_err(|_| ReloadError::Stopping)?
    }

    /// A configuration could not even be read: the last good one goes on, and this is said.
    pub fn reload_failed(&self, message: String) {
        self.inner.shared.reload_failed(message);
    }

    /// Returns once every consumer has taken in what was committed when this was called.
    pub async fn settled(&self) {
        self.inner.shared.settled().await;
    }

    /// Stops everything; what was acknowledged is on disk.
    pub async fn shutdown(&self) {
        let (answer, answered) = oneshot::channel();
        if self
            .inner
            .orders
            .send(Order::Shutdown(Some(answer)))
            .is_ok()
        {
            let _ = answered.await;
        }
    }

    /// How many workflow actors live now; idle ones are let go.
    pub async fn live_workflows(&self) -> usize {
        let (answer, answered) = oneshot::channel();
        let sent = self
            .inner
            .orders
            .send(Order::CountWorkflows(answer))
            .is_ok();
        if sent { answered.await.unwrap_or(0) } else { 0 }
    }

    /// Makes the named actor panic, to show in tests that nothing else is harmed. False: there is no such actor.
    #[doc(hidden)]
    pub async fn panic_actor(&self, name: &str) -> bool {
        let (answer, answered) = oneshot::channel();
        let order = Order::Panic(name.to_owned(), answer);
        self.inner.orders.send(order).is_ok() && answered.await.unwrap_or(false)
    }
}

fn router_down() -> ActError {
    ActError::NotRecorded("the alert router is down; try again".into())
}
