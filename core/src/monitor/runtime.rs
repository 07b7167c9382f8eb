//! The running monitor: everything is built here, in order, downstream first, and torn down the other way.

mod reload;

use super::plan::{self, BundledPlugin, PlanError};
use super::samples;
use super::views::{ActorView, MonitorStatus, ReceiverView, ReloadView, SourceView};
use super::watch;
use super::{Config, ReloadError, StartError};
use crate::alert::AlertRouter;
use crate::clock::Clock;
use crate::control::{ControlActor, Controlled, Find};
use crate::email::Mailer;
use crate::exposition;
use crate::feed::Feed;
use crate::journal::{
    Commit, Durability, Fault, Journal, JournalHandle, JournalOptions, ReadError, Reader,
    Retention, SourceCommit, SourceRow,
};
use crate::live::Board;
use crate::metrics::{MetricsAggregator, MetricsView};
use crate::plugin::{HostOptions, PluginHandle, PluginHost, PluginStatus, Role};
use crate::receiver::{Bell, ReceiverActor, StopReceiver, Target};
use crate::registry::{Corridor, CountWorkflows, PanicWorkflow, Registry, Route, Routed};
use crate::resource::{ResourceSampler, SamplerSettings};
use crate::sampler::ResourceSample;
use crate::source::{SharedHealth, SourceActor, SourceOptions, SourceState, StopSource};
use crate::stream::{Companion, SharedStreams, StreamHost, Watching};
use crate::supervise::{Counters, Panic, Slot, Stopping, keep};
use crate::trouble::Troubles;
use crate::workflow::Seen;
use arc_swap::{ArcSwap, ArcSwapOption};
use futures::stream::BoxStream;
use jiff::Timestamp;
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::watch as watching;
use tokio::sync::{broadcast, mpsc, oneshot};
use weir_model::alert::fact::receiver_subject;
use weir_model::alert::mute::Mute;
use weir_model::alert::notification::Notification;
use weir_model::alert::route::LOG_RECEIVER;
use weir_model::alert::router::RouterConfig;
use weir_model::config::{self, Handler};
use weir_model::event::{SourceEvent, SystemEvent};
use weir_model::id::{ExecutionSeq, RunKey, Seq, SourceId};
use weir_model::observation::JobRef;
use weir_model::status::Status;
use weir_model::stream::Reaction;

/// For a source to store what it has to when it stops.
const STOP_PATIENCE: Duration = Duration::from_secs(2);
/// Notifications a listener may fall behind before it loses the oldest.
const NOTIFICATIONS: usize = 1024;

/// What the handle asks of the running monitor.
pub(super) enum Order {
    Reload(
        Box<config::Config>,
        oneshot::Sender<Result<(), ReloadError>>,
    ),
    Panic(String, oneshot::Sender<bool>),
    CountWorkflows(oneshot::Sender<usize>),
    Shutdown(Option<oneshot::Sender<()>>),
}

/// What the handle reads: committed rows through the journal, and the few live values beside it.
pub(super) struct Shared {
    pub journal: JournalHandle,
    pub board: Board,
    pub clock: Clock,
    pub data_dir: PathBuf,
    pub settings: ArcSwap<config::Config>,
    pub resources: Arc<ArcSwapOption<ResourceSample>>,
    pub metrics: Arc<ArcSwap<MetricsView>>,
    pub mutes: Arc<ArcSwap<Vec<Mute>>>,
    pub notifications: broadcast::Sender<Arc<Notification>>,
    pub router: Slot<AlertRouter>,
    pub control: Slot<ControlActor>,
    pub troubles: Troubles,
    started_at: Timestamp,
    pub sources: RwLock<BTreeMap<String, RunningSource>>,
    pub receivers: RwLock<BTreeMap<String, RunningReceiver>>,
    actors: RwLock<Vec<Arc<Counters>>>,
    reload: RwLock<ReloadView>,
    /// How far each consumer has read.
    consumers: Vec<(&'static str, watching::Receiver<Seq>)>,
}

#[derive(Clone)]
pub(super) struct RunningSource {
    pub(super) row: SourceRow,
    pub(super) control: bool,
    feed: Feed,
    /// What it was configured with; none for a source inside the program.
    config: Option<config::SourceConfig>,
    pub(super) slot: Slot<SourceActor>,
    stopping: Stopping,
    health: SharedHealth,
    streams: SharedStreams,
    /// Keeps its streams connected; none where it has none.
    watching: Option<Arc<Watching>>,
    /// Takes what a companion beside the provider reports; none where no companion may.
    pub(super) companion: Option<Arc<Companion>>,
    plugin: Option<PluginHandle>,
    /// Of the plugin's configuration, as far as there is one.
    fingerprint: Option<Fingerprint>,
}

impl RunningSource {
    /// Nothing more is asked or listened to, and what its actor had to store is on disk, or will not be.
    async fn stop(&self) {
        self.stopping.begin();
        if let Some(watching) = &self.watching {
            watching.stop();
        }
        let stopped = self.slot.ask(StopSource);
        let _ = tokio::time::timeout(STOP_PATIENCE, stopped).await;
    }
}

#[derive(Clone)]
pub(super) struct RunningReceiver {
    handler: String,
    config: Option<config::ReceiverConfig>,
    pub(super) slot: Slot<ReceiverActor>,
    stopping: Stopping,
    plugin: Option<PluginHandle>,
    fingerprint: Option<Fingerprint>,
    /// Of a receiver `email`.
    mailer: Option<Arc<Mailer>>,
}

type Fingerprint = [u8; 32];

/// A plugin that was opened for an entry.
#[derive(Clone)]
struct Opened {
    plugin: PluginHandle,
    /// The plugin's own name.
    name: String,
    fingerprint: Fingerprint,
    /// It was at work already: only its actor is new.
    kept: bool,
}

/// What a receiver sends through.
#[derive(Clone)]
enum Carrier {
    Plugin(Opened),
    Email(Arc<Mailer>),
}

impl Carrier {
    fn target(&self) -> Target {
        match self {
            Carrier::Plugin(opened) => Target::Plugin(opened.plugin.clone()),
            Carrier::Email(mailer) => Target::Email(mailer.clone()),
        }
    }
}

impl RunningSource {
    fn controlled(&self) -> Controlled {
        Controlled {
            name: self.row.name.clone(),
            allowed: self.control,
            feed: self.feed.clone(),
            slot: self.slot.clone(),
            health: self.health.clone(),
        }
    }
}

pub(super) fn read<T: Clone>(lock: &RwLock<T>) -> T {
    lock.read().unwrap_or_else(PoisonError::into_inner).clone()
}

impl Shared {
    fn new(
        config: &Config,
        journal: JournalHandle,
        clock: Clock,
        consumers: Vec<(&'static str, watching::Receiver<Seq>)>,
    ) -> Shared {
        Shared {
            board: Board::default(),
            data_dir: config.data_dir.clone(),
            settings: ArcSwap::from_pointee(config.settings.clone()),
            resources: Arc::default(),
            metrics: Arc::default(),
            mutes: Arc::default(),
            notifications: broadcast::channel(NOTIFICATIONS).0,
            router: Slot::empty("alerts"),
            control: Slot::empty("control"),
            troubles: Troubles::new(journal.clone(), clock.clone()),
            started_at: clock.now(),
            sources: RwLock::default(),
            receivers: RwLock::default(),
            actors: RwLock::default(),
            reload: RwLock::default(),
            consumers,
            journal,
            clock,
        }
    }

    pub(super) fn source_views(&self) -> Vec<SourceView> {
        let view = |(name, source): (String, RunningSource)| SourceView {
            id: source.row.id,
            name,
            plugin_name: source.row.plugin,
            control: source.control,
            health: read(&source.health),
            stream: source.streams.health(),
            companion: source
                .companion
                .as_ref()
                .map(|companion| companion.health()),
            plugin: source.plugin.as_ref().map(PluginHandle::status),
        };
        read(&self.sources).into_iter().map(view).collect()
    }

    pub(super) fn receiver_views(&self) -> Vec<ReceiverView> {
        let troubles = self.troubles.active();
        let trouble = |name: &str| {
            let subject = receiver_subject(name);
            let found = troubles.iter().find(|(about, _)| *about == subject);
            found.map(|(_, message)| message.clone())
        };
        let view = |(name, receiver): (String, RunningReceiver)| {
            let plugin = receiver.plugin.as_ref().map(PluginHandle::status);
            let counters = plugin.as_ref().map(|plugin| &plugin.counters);
            let failures = counters.map_or(0, |counters| counters.failures + counters.crashes);
            let mailer = receiver.mailer.as_ref();
            ReceiverView {
                trouble: trouble(&name),
                name,
                handler: receiver.handler,
                failures: failures + mailer.map_or(0, |mailer| mailer.failures()),
                plugin,
            }
        };
        read(&self.receivers).into_iter().map(view).collect()
    }

    pub(super) fn status(&self) -> MonitorStatus {
        let view = |c: &Arc<Counters>| ActorView {
            name: c.name.clone(),
            starts: c.starts.load(Ordering::Relaxed),
            panics: c.panics.load(Ordering::Relaxed),
            refused: c.refused.load(Ordering::Relaxed),
        };
        let now = self.clock.now();
        MonitorStatus {
            version: env!("CARGO_PKG_VERSION"),
            origin: self.journal.origin(),
            started_at: self.started_at,
            now,
            journal: self.journal.state(),
            head: self.journal.head(),
            consumers: self
                .consumers
                .iter()
                .map(|(name, at)| (*name, *at.borrow()))
                .collect(),
            reload: read(&self.reload),
            actors: read(&self.actors).iter().map(view).collect(),
            troubles: self.troubles.active(),
            mutes: self
                .mutes
                .load()
                .iter()
                .filter(|m| m.is_active(now))
                .cloned()
                .collect(),
        }
    }

    pub(super) fn reload_failed(&self, message: String) {
        tracing::error!(%message, "the configuration was not reloaded, the last good one goes on");
        let view = ReloadView {
            at: Some(self.clock.now()),
            error: Some(message.clone()),
        };
        *self.reload.write().unwrap_or_else(PoisonError::into_inner) = view;
        let commit = Commit::system(
            vec![SystemEvent::ReloadFailed { message }],
            self.clock.now(),
        );
        drop(self.journal.try_commit(commit));
    }

    pub(super) async fn settled(&self) {
        loop {
            let head = self.journal.head();
            for (_, cursor) in &self.consumers {
                let mut cursor = cursor.clone();
                if cursor.wait_for(|at| *at >= head).await.is_err() {
                    return;
                }
            }
            if self.journal.head() == head {
                return;
            }
        }
    }

    /// The text of `/metrics`. Blocks for one short read of the outbox.
    pub(super) fn exposition(&self) -> String {
        let view = self.metrics.load_full();
        let workflow_key = |id| view.workflow_keys.get(&id).cloned().unwrap_or_default();
        let source_name = |id| view.source_names.get(&id).cloned().unwrap_or_default();
        let head = self.journal.head().0;
        let behind = |at: Seq| u64::try_from(head - at.0).unwrap_or(0);
        let reload = read(&self.reload);
        let resources = self.resources.load_full();
        let status = self.status();
        exposition::render(&exposition::Snapshot {
            version: status.version,
            started_at: self.started_at,
            metrics: &view.metrics,
            workflow_key: &workflow_key,
            source_name: &source_name,
            sources: self.source_views().iter().map(samples::source).collect(),
            journal: samples::journal(&self.journal),
            consumers: status
                .consumers
                .iter()
                .map(|(name, at)| ((*name).to_owned(), behind(*at)))
                .collect(),
            receivers: samples::receivers(&self.journal, &self.receiver_views()),
            alerts: samples::alerts(&self.journal),
            plugins: self.plugins().iter().map(samples::plugin).collect(),
            actors: status.actors.iter().map(samples::actor).collect(),
            reload: exposition::ReloadSample {
                succeeded: reload.error.is_none(),
                succeeded_at: if reload.error.is_none() {
                    reload.at.or(Some(self.started_at))
                } else {
                    None
                },
            },
            resources: resources.as_deref(),
        })
    }

    /// Where reports about a source go that is configured now.
    pub(super) fn companion_of(&self, source: &str) -> Option<Arc<Companion>> {
        let sources = self.sources.read().unwrap_or_else(PoisonError::into_inner);
        sources.get(source)?.companion.clone()
    }

    /// The plugin of a source that is configured now.
    pub(super) fn plugin_of(&self, source: &str) -> Option<PluginHandle> {
        let sources = self.sources.read().unwrap_or_else(PoisonError::into_inner);
        sources.get(source)?.plugin.clone()
    }

    /// Every plugin entry: sources, then receivers.
    pub(super) fn plugins(&self) -> Vec<PluginStatus> {
        let sources = self.source_views().into_iter().filter_map(|s| s.plugin);
        let receivers = self.receiver_views().into_iter().filter_map(|r| r.plugin);
        sources.chain(receivers).collect()
    }

    /// Of a source and a receiver with one name the source is meant.
    pub(super) fn resume_plugin(&self, entry: &str) -> bool {
        let source = read(&self.sources).remove(entry).and_then(|s| s.plugin);
        let plugin = source.or_else(|| read(&self.receivers).remove(entry).and_then(|r| r.plugin));
        plugin.as_ref().map(PluginHandle::resume).is_some()
    }

    fn register(&self, counters: Arc<Counters>) {
        let mut actors = self.actors.write().unwrap_or_else(PoisonError::into_inner);
        actors.retain(|known| known.name != counters.name);
        actors.push(counters);
    }
}

/// Owns what must be stopped.
struct Runtime {
    shared: Arc<Shared>,
    bundled: Vec<BundledPlugin>,
    host: PluginHost,
    registry: Slot<Registry>,
    aggregator: Slot<MetricsAggregator>,
    sampler: Option<Slot<ResourceSampler>>,
    streams: StreamHost,
    bell: Bell,
    stopping: Stopping,
    deadman: std::cell::RefCell<Stopping>,
    journal: Journal,
}

type Ready = oneshot::Sender<Result<(Arc<Shared>, mpsc::UnboundedSender<Order>), StartError>>;

/// One thread for the actors, and threads for what blocks, which end soon after a burst of work: what they had
/// allocated goes back to the machine with them.
fn tokio_runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_keep_alive(Duration::from_secs(1))
        .build()
        .expect("a runtime needs an epoll instance, without which nothing here can run")
}

/// The monitor's own thread, with an actix system of its own.
pub(super) fn run(config: Config, ready: Ready) {
    let system = actix::System::with_tokio_rt(tokio_runtime);
    system.block_on(async move {
        match Runtime::build(config).await {
            Err(error) => drop(ready.send(Err(error))),
            Ok(runtime) => {
                let (orders, mut inbox) = mpsc::unbounded_channel();
                if ready.send(Ok((runtime.shared.clone(), orders))).is_ok() {
                    let answer = runtime.serve(&mut inbox).await;
                    runtime.stop().await;
                    if let Some(answer) = answer {
                        let _ = answer.send(());
                    }
                }
            }
        }
    });
}

fn prepare_dir(path: &Path) -> Result<(), StartError> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    let problem = |error| StartError::DataDir {
        path: path.to_owned(),
        error,
    };
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(problem)?;
    let mode = std::fs::metadata(path)
        .map_err(problem)?
        .permissions()
        .mode();
    if mode & 0o077 != 0 {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).map_err(problem)?;
    }
    Ok(())
}

impl Runtime {
    async fn build(config: Config) -> Result<Runtime, StartError> {
        prepare_dir(&config.data_dir)?;
        let clock = Clock::default();
        let journal = Journal::open(journal_options(&config, &clock))?;
        let handle = journal.handle();
        let host = PluginHost::start(HostOptions {
            cache_dir: config.cache_dir.clone(),
            ..HostOptions::default()
        })?;
        let (metrics_at, metrics_cursor) = watching::channel(Seq(0));
        let (router_at, router_cursor) = watching::channel(Seq(0));
        let consumers = vec![("metrics", metrics_cursor), ("alerts", router_cursor)];
        let mut runtime = Runtime {
            shared: Arc::new(Shared::new(&config, handle, clock, consumers)),
            bundled: config.bundled.clone(),
            host,
            registry: Slot::empty("registry"),
            aggregator: Slot::empty("metrics"),
            sampler: None,
            streams: StreamHost::start(config.streams.clone()).map_err(StartError::Thread)?,
            bell: Bell::default(),
            stopping: Stopping::default(),
            deadman: std::cell::RefCell::default(),
            journal,
        };
        runtime.plan(&config.settings).map_err(StartError::Plan)?;
        runtime.start_receivers(&config.settings);
        // A receiver may have been removed while weir was stopped.
        let now = runtime.shared.clock.now();
        crate::alert::reroute_orphans(
            &runtime.shared.journal,
            &router_config(&config.settings),
            now,
        )
        .await;
        runtime.bell.ring();
        runtime.start_consumers(metrics_at, router_at);
        runtime.start_registry(config.passivate_after);
        if config.sample_resources {
            runtime.start_sampler(&config.settings);
        }
        runtime.start_sources(&config).await?;
        runtime.start_control();
        runtime.start_watchers(&config.settings);
        runtime.tell_downtime(config.settings.sources.is_empty());
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let started = Commit::system(
            vec![SystemEvent::Started { version }],
            runtime.shared.clock.now(),
        );
        drop(runtime.shared.journal.try_commit(started));
        Ok(runtime)
    }

    /// weir itself was not there: what happened meanwhile was seen late or not at all.
    fn tell_downtime(&self, nothing_watched: bool) {
        let journal = &self.shared.journal;
        let newest = Seq(journal.head().0 - 1);
        let last = journal
            .reader()
            .and_then(|reader| reader.events_after(newest, 1));
        let last = last
            .ok()
            .and_then(|events| events.first().map(|event| event.row.at));
        let (Some(from), false) = (last, nothing_watched) else {
            return;
        };
        let reason = "weir was not running";
        watch::tell_blind(&self.shared, from, self.shared.started_at, reason);
    }

    /// Every plugin entry made ready, or everything that is wrong.
    fn plan(&self, settings: &config::Config) -> Result<(), Vec<PlanError>> {
        let origin = self.shared.journal.origin();
        let sources = settings.sources.iter().enumerate().map(|(i, s)| {
            let path = format!("sources[{i}]");
            plan::plugin_spec(
                &path,
                &s.name,
                &s.entry,
                Role::Source,
                origin,
                &self.bundled,
            )
            .map(drop)
        });
        let receivers = settings.alerts.receivers.iter().enumerate().map(|(i, r)| {
            let path = format!("alerts.receivers[{i}]");
            plan::receiver(&path, r, origin, &self.bundled)
        });
        let errors: Vec<PlanError> = sources.chain(receivers).filter_map(Result::err).collect();
        if errors.is_empty() {
            Ok(())
        } else {
            Err(errors)
        }
    }

    fn start_receivers(&self, settings: &config::Config) {
        self.start_receiver(LOG_RECEIVER, None, settings, None);
        for receiver in &settings.alerts.receivers {
            self.start_receiver(&receiver.name, Some(receiver), settings, None);
        }
    }

    fn start_receiver(
        &self,
        name: &str,
        config: Option<&config::ReceiverConfig>,
        settings: &config::Config,
        carrier: Option<Carrier>,
    ) {
        let (target, carrier) = self.target(name, config, carrier);
        let (opened, mailer) = match carrier {
            Some(Carrier::Plugin(opened)) => (Some(opened), None),
            Some(Carrier::Email(mailer)) => (None, Some(mailer)),
            None => (None, None),
        };
        let plugin = opened.as_ref().map(|opened| opened.plugin.clone());
        let slot = Slot::empty(format!("receiver:{name}"));
        let stopping = Stopping::default();
        let (journal, troubles) = (self.shared.journal.clone(), self.shared.troubles.clone());
        let (clock, bell) = (self.shared.clock.clone(), self.bell.clone());
        let fallback = settings
            .alerts
            .fallback
            .clone()
            .or_else(|| Some(LOG_RECEIVER.to_owned()));
        let rate = config.and_then(|c| c.rate);
        let owned = name.to_owned();
        keep(&slot, &stopping, move |guard| {
            ReceiverActor::new(
                owned.clone(),
                target.clone(),
                fallback.clone(),
                rate,
                journal.clone(),
                troubles.clone(),
                bell.clone(),
                clock.clone(),
                guard,
            )
        });
        if let Some(Opened {
            plugin,
            kept: false,
            ..
        }) = &opened
        {
            let (subject, what) = (receiver_subject(name), format!("receiver {name}"));
            actix::spawn(watch::plugin(
                subject,
                what,
                plugin.clone(),
                self.shared.troubles.clone(),
            ));
        }
        self.shared.register(slot.counters());
        let handler = config.map_or_else(|| "log".to_owned(), |c| plan::handler_name(&c.handler));
        let running = RunningReceiver {
            handler,
            config: config.cloned(),
            slot,
            stopping,
            plugin,
            fingerprint: opened.map(|opened| opened.fingerprint),
            mailer,
        };
        self.shared
            .receivers
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name.to_owned(), running);
    }

    /// Where a receiver's messages go. What the plan found sound may have changed since: then nothing is delivered, and
    /// that is said.
    fn target(
        &self,
        name: &str,
        config: Option<&config::ReceiverConfig>,
        carrier: Option<Carrier>,
    ) -> (Target, Option<Carrier>) {
        let Some(config) = config else {
            return (Target::Log, None);
        };
        let carrier = match (carrier, &config.handler) {
            (Some(carrier), _) => Ok(carrier),
            (None, Handler::Plugin(entry)) => {
                let opened = self.open_plugin("", name, entry, Role::Handler);
                opened.map(Carrier::Plugin)
            }
            (None, Handler::Email(email)) => {
                let mailer = plan::mailer("", name, email, self.shared.journal.origin());
                mailer.map(|mailer| Carrier::Email(Arc::new(mailer)))
            }
        };
        match carrier {
            Ok(carrier) => (carrier.target(), Some(carrier)),
            Err(error) => (Target::Unusable(error.to_string()), None),
        }
    }

    fn start_consumers(&self, metrics_at: watching::Sender<Seq>, router_at: watching::Sender<Seq>) {
        let shared = &self.shared;
        let (journal, view) = (shared.journal.clone(), shared.metrics.clone());
        let metrics_at = Arc::new(metrics_at);
        keep(&self.aggregator, &self.stopping, move |guard| {
            MetricsAggregator::new(journal.clone(), view.clone(), metrics_at.clone(), guard)
        });
        shared.register(self.aggregator.counters());
        let weak = Arc::downgrade(shared);
        let router_at = Arc::new(router_at);
        let bell = self.bell.clone();
        let (journal, clock, mutes) = (
            shared.journal.clone(),
            shared.clock.clone(),
            shared.mutes.clone(),
        );
        let notifications = shared.notifications.clone();
        keep(&shared.router, &self.stopping, move |guard| {
            let config = weak
                .upgrade()
                .map(|s| router_config(&s.settings.load()))
                .unwrap_or_else(|| router_config(&config::Config::default()));
            AlertRouter::new(
                config,
                journal.clone(),
                clock.clone(),
                bell.clone(),
                notifications.clone(),
                mutes.clone(),
                router_at.clone(),
                guard,
            )
        });
        shared.register(shared.router.counters());
    }

    fn start_registry(&self, passivate_after: Duration) {
        let corridor = Corridor {
            journal: self.shared.journal.clone(),
            board: self.shared.board.clone(),
            clock: self.shared.clock.clone(),
            passivate_after,
        };
        let this = self.registry.clone();
        keep(&self.registry, &self.stopping, move |guard| {
            Registry::new(corridor.clone(), this.clone(), guard)
        });
        self.shared.register(self.registry.counters());
    }

    /// After the sources, which it asks: what was open at the end of the last process goes on.
    fn start_control(&self) {
        let weak = Arc::downgrade(&self.shared);
        let find: Find = Arc::new(move |id| {
            let shared = weak.upgrade()?;
            let sources = shared.sources.read();
            let sources = sources.unwrap_or_else(PoisonError::into_inner);
            let found = sources.values().find(|source| source.row.id == id);
            found.map(RunningSource::controlled)
        });
        let (journal, clock) = (self.shared.journal.clone(), self.shared.clock.clone());
        keep(&self.shared.control, &self.stopping, move |guard| {
            ControlActor::new(journal.clone(), clock.clone(), find.clone(), guard)
        });
        self.shared.register(self.shared.control.counters());
    }

    fn start_sampler(&mut self, settings: &config::Config) {
        let slot = Slot::empty("sampler");
        let (journal, clock) = (self.shared.journal.clone(), self.shared.clock.clone());
        let (newest, troubles) = (self.shared.resources.clone(), self.shared.troubles.clone());
        let data_dir = self.shared.data_dir.clone();
        let weak = Arc::downgrade(&self.shared);
        let first = settings.resources.clone();
        keep(&slot, &self.stopping, move |guard| {
            let resources = weak
                .upgrade()
                .map_or_else(|| first.clone(), |s| s.settings.load().resources.clone());
            ResourceSampler::new(
                SamplerSettings {
                    resources,
                    data_dir: data_dir.clone(),
                },
                journal.clone(),
                clock.clone(),
                newest.clone(),
                troubles.clone(),
                guard,
            )
        });
        self.shared.register(slot.counters());
        self.sampler = Some(slot);
    }

    async fn start_sources(&self, config: &Config) -> Result<(), StartError> {
        let known = self.shared.journal.reader()?.sources()?;
        let named = |name: &str| {
            config.settings.sources.iter().any(|s| s.name == name)
                || config.in_process.iter().any(|s| s.options.name == name)
        };
        for row in known
            .into_iter()
            .filter(|row| row.configured && !named(&row.name))
        {
            self.unwatch(row).await;
        }
        for source in &config.in_process {
            let feed = Feed::InProcess(source.source.clone());
            self.start_source(&source.options, "in-process", None, None, feed, None)
                .await?;
        }
        for source in &config.settings.sources {
            self.open_source(source, None).await?;
        }
        Ok(())
    }

    /// Opens the plugin of an entry; it gets ready by itself. `path`: the way to the entry, for errors.
    fn open_plugin(
        &self,
        path: &str,
        name: &str,
        entry: &config::PluginEntry,
        role: Role,
    ) -> Result<Opened, PlanError> {
        let origin = self.shared.journal.origin();
        let spec = plan::plugin_spec(path, name, entry, role, origin, &self.bundled)?;
        Ok(Opened {
            name: spec.plugin.clone(),
            fingerprint: spec.fingerprint(),
            plugin: self.host.open(spec),
            kept: false,
        })
    }

    async fn open_source(
        &self,
        source: &config::SourceConfig,
        opened: Option<Opened>,
    ) -> Result<(), StartError> {
        let opened = match opened {
            Some(opened) => opened,
            None => self
                .open_plugin("sources", &source.name, &source.entry, Role::Source)
                .map_err(|e| StartError::Plan(vec![e]))?,
        };
        let hash = plan::config_hash(&source.entry);
        let feed = Feed::Plugin(opened.plugin.clone());
        let (options, name) = (plan::source_options(source), opened.name.clone());
        self.start_source(
            &options,
            &name,
            Some(hash),
            Some(source),
            feed,
            Some(opened),
        )
        .await
    }

    async fn start_source(
        &self,
        options: &SourceOptions,
        plugin_name: &str,
        hash: Option<String>,
        config: Option<&config::SourceConfig>,
        feed: Feed,
        opened: Option<Opened>,
    ) -> Result<(), StartError> {
        let live = feed.live();
        let (row, fresh) = self.source_row(&options.name, plugin_name, hash).await?;
        let slot = Slot::empty(format!("source:{}", options.name));
        let stopping = Stopping::default();
        let health = SharedHealth::default();
        let state = load_source(&self.shared.journal.reader()?, &row, !fresh)?;
        let (journal, registry, clock) = (
            self.shared.journal.clone(),
            self.registry.clone(),
            self.shared.clock.clone(),
        );
        let (options, shared_health) = (options.clone(), health.clone());
        let (name, control) = (options.name.clone(), options.control);
        let asked = feed.clone();
        keep(&slot, &stopping, move |guard| {
            // After a panic it goes on from what is stored, like after a restart.
            let reread = journal.reader().and_then(|reader| {
                let stored = reader
                    .source_by_name(&options.name)?
                    .unwrap_or_else(|| state.row.clone());
                load_source(&reader, &stored, state.unseen_counts)
            });
            SourceActor::new(
                options.clone(),
                reread.unwrap_or_else(|_| state.clone()),
                feed.clone(),
                journal.clone(),
                registry.clone(),
                clock.clone(),
                shared_health.clone(),
                guard,
            )
        });
        self.shared.register(slot.counters());
        if let Some(opened) = opened.as_ref().filter(|opened| !opened.kept) {
            let (subject, troubles) = (format!("source {name}"), self.shared.troubles.clone());
            let plugin = opened.plugin.clone();
            actix::spawn(watch::plugin(subject.clone(), subject, plugin, troubles));
        }
        let plugin = opened.as_ref().map(|opened| &opened.plugin);
        let (streams, watching) = self.watch_streams(&name, plugin, live, &slot);
        let reports = config.is_some_and(|config| config.companion_token.is_some());
        let companion = plugin.filter(|_| reports).and_then(|plugin| {
            let clock = self.shared.clock.clone();
            self.streams
                .reported(&name, plugin.clone(), slot.clone(), clock)
        });
        let running = RunningSource {
            companion: companion.map(Arc::new),
            row,
            control,
            feed: asked,
            config: config.cloned(),
            slot,
            stopping,
            health,
            streams,
            watching: watching.map(Arc::new),
            fingerprint: opened.as_ref().map(|opened| opened.fingerprint),
            plugin: opened.map(|opened| opened.plugin),
        };
        self.shared
            .sources
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name, running);
        Ok(())
    }

    /// Connects the streams of a source, of whichever kind it is.
    fn watch_streams(
        &self,
        name: &str,
        plugin: Option<&PluginHandle>,
        live: Option<BoxStream<'static, Reaction>>,
        slot: &Slot<SourceActor>,
    ) -> (SharedStreams, Option<Watching>) {
        let found = SharedStreams::default();
        let (seen, clock, slot) = (found.clone(), self.shared.clock.clone(), slot.clone());
        let watching = match (plugin, live) {
            (Some(plugin), _) => self.streams.watch(name, plugin.clone(), slot, seen, clock),
            (None, Some(live)) => self.streams.listen(live, slot, seen, clock),
            (None, None) => None,
        };
        (found, watching)
    }

    /// The source's row, made or brought up to date. True: its configuration is new, absence is no evidence yet.
    async fn source_row(
        &self,
        name: &str,
        plugin_name: &str,
        hash: Option<String>,
    ) -> Result<(SourceRow, bool), StartError> {
        let now = self.shared.clock.now();
        let known = self.shared.journal.reader()?.source_by_name(name)?;
        let was_removed = known.as_ref().is_some_and(|row| !row.configured);
        let changed = known.as_ref().is_some_and(|row| row.config_hash != hash);
        let unchanged = known.is_some() && !was_removed && !changed;
        let mut row = known.unwrap_or_else(|| SourceRow {
            id: self.shared.journal.next_source_id(),
            name: name.to_owned(),
            plugin: plugin_name.to_owned(),
            generation: 1,
            config_hash: hash.clone(),
            created_at: now,
            first_contact_at: None,
            contact_at: None,
            stale_since: None,
            stale_error: None,
            suspect: false,
            configured: true,
            forgotten_before: None,
            complete_round: None,
        });
        if unchanged {
            return Ok((row, false));
        }
        row.generation += i64::from(changed);
        row.configured = true;
        row.config_hash = hash;
        row.plugin = plugin_name.to_owned();
        let events = if was_removed {
            vec![SourceEvent::Returned]
        } else {
            Vec::new()
        };
        // A changed configuration begins with an empty cursor.
        let cursor = changed.then(String::new);
        let commit = SourceCommit {
            row: row.clone(),
            cursor,
            events,
            recorded_at: now,
        };
        let committed = self.shared.journal.try_commit(Commit::Source(commit));
        if let Ok(committed) = committed {
            let _ = committed.await;
        }
        if was_removed {
            self.watch_open(&row, true).await;
        }
        Ok((row, changed || was_removed))
    }

    /// A source that is not configured any more: its unfinished executions are unwatched, never lost.
    async fn unwatch(&self, mut row: SourceRow) {
        self.watch_open(&row, false).await;
        row.configured = false;
        row.stale_since = None;
        let commit = SourceCommit {
            row,
            cursor: None,
            events: vec![SourceEvent::Removed],
            recorded_at: self.shared.clock.now(),
        };
        if let Ok(committed) = self.shared.journal.try_commit(Commit::Source(commit)) {
            let _ = committed.await;
        }
    }

    async fn watch_open(&self, row: &SourceRow, watched: bool) {
        let open = self
            .shared
            .journal
            .reader()
            .and_then(|r| open_runs(&r, row.id));
        let Ok(open) = open else { return };
        let routed = open.into_iter().map(|(key, _)| Routed {
            key,
            workflow: row.name.clone(),
            seen: Seen::Watch(watched),
        });
        // The registry may only just be starting.
        for _ in 0..50 {
            if let Some(Ok(acks)) = self.registry.ask(Route(routed.clone().collect())).await {
                futures::future::join_all(acks).await;
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn start_watchers(&self, settings: &config::Config) {
        self.start_deadman(settings);
        actix::spawn(watch::journal(self.shared.clone(), self.stopping.clone()));
        actix::spawn(watch::blindness(self.shared.clone(), self.stopping.clone()));
    }

    fn start_deadman(&self, settings: &config::Config) {
        self.deadman.replace(Stopping::default()).begin();
        if let Some(deadman) = &settings.alerts.deadman {
            actix::spawn(crate::deadman::run(
                deadman.url.clone(),
                deadman.interval,
                self.shared.journal.clone(),
                self.shared.clock.clone(),
                self.deadman.borrow().clone(),
            ));
        }
    }

    async fn serve(
        &self,
        inbox: &mut mpsc::UnboundedReceiver<Order>,
    ) -> Option<oneshot::Sender<()>> {
        let mut waiting = VecDeque::new();
        loop {
            let order = match waiting.pop_front() {
                Some(order) => order,
                None => inbox.recv().await?,
            };
            match order {
                Order::Shutdown(answer) => return answer,
                Order::CountWorkflows(answer) => {
                    let _ = answer.send(self.registry.ask(CountWorkflows).await.unwrap_or(0));
                }
                Order::Panic(name, answer) => {
                    let _ = answer.send(self.panic(&name).await);
                }
                Order::Reload(settings, answer) => {
                    let preparing = self.prepare(*settings);
                    let prepared = match unless_stopped(preparing, inbox, &mut waiting).await {
                        Ok(prepared) => prepared,
                        Err(stop) => {
                            let _ = answer.send(Err(ReloadError::Stopping));
                            return stop;
                        }
                    };
                    let result = match prepared {
                        Ok(prepared) => {
                            self.reload(prepared).await;
                            Ok(())
                        }
                        Err(error) => {
                            self.shared.reload_failed(error.to_string());
                            Err(error)
                        }
                    };
                    let _ = answer.send(result);
                }
            }
        }
    }

    async fn panic(&self, name: &str) -> bool {
        match name.split_once(':') {
            None if name == "journal" => {
                self.shared.journal.inject(Fault::Panic);
                true
            }
            None if name == "registry" => self.registry.try_send(Panic).is_ok(),
            None if name == "metrics" => self.aggregator.try_send(Panic).is_ok(),
            None if name == "alerts" => self.shared.router.try_send(Panic).is_ok(),
            None if name == "control" => self.shared.control.try_send(Panic).is_ok(),
            None if name == "sampler" => self
                .sampler
                .as_ref()
                .is_some_and(|s| s.try_send(Panic).is_ok()),
            Some(("source", name)) => read(&self.shared.sources)
                .get(name)
                .is_some_and(|s| s.slot.try_send(Panic).is_ok()),
            Some(("receiver", name)) => read(&self.shared.receivers)
                .get(name)
                .is_some_and(|r| r.slot.try_send(Panic).is_ok()),
            Some(("workflow", key)) => self
                .registry
                .ask(PanicWorkflow(key.to_owned()))
                .await
                .unwrap_or(false),
            _ => false,
        }
    }

    /// Upstream first: nothing new comes in, what is under way is finished, then the journal closes.
    async fn stop(self) {
        let sources = read(&self.shared.sources);
        futures::future::join_all(sources.values().map(RunningSource::stop)).await;
        self.stopping.begin();
        self.deadman.borrow().begin();
        for receiver in read(&self.shared.receivers).values() {
            receiver.stopping.begin();
            receiver.slot.signal(StopReceiver);
        }
        let stopped = Commit::system(vec![SystemEvent::Stopped], self.shared.clock.now());
        if let Ok(stopped) = self.shared.journal.try_commit(stopped) {
            let _ = stopped.await;
        }
        self.journal.shutdown().await;
        let closing: Vec<PluginHandle> = read(&self.shared.sources)
            .into_values()
            .filter_map(|s| s.plugin)
            .chain(
                read(&self.shared.receivers)
                    .into_values()
                    .filter_map(|r| r.plugin),
            )
            .collect();
        let closed = futures::future::join_all(closing.iter().map(PluginHandle::close));
        // A guest that hangs in a call is cut off by its wall limit; nobody waits that long for an exit.
        let _ = tokio::time::timeout(Duration::from_secs(3), closed).await;
    }
}

/// Plugins may take their time to get ready; an order to stop does not wait for them, every other one does.
async fn unless_stopped<T>(
    preparing: impl Future<Output = T>,
    inbox: &mut mpsc::UnboundedReceiver<Order>,
    waiting: &mut VecDeque<Order>,
) -> Result<T, Option<oneshot::Sender<()>>> {
    let mut preparing = std::pin::pin!(preparing);
    loop {
        tokio::select! {
            prepared = &mut preparing => return Ok(prepared),
            order = inbox.recv() => match order {
                None => return Err(None),
                Some(Order::Shutdown(answer)) => return Err(answer),
                Some(order) => waiting.push_back(order),
            },
        }
    }
}

fn journal_options(config: &Config, clock: &Clock) -> JournalOptions {
    let clock = clock.clone();
    let mut options = JournalOptions::new(config.data_dir.clone(), Arc::new(move || clock.now()));
    options.durability = match config.settings.durability {
        config::Durability::Power => Durability::Power,
        config::Durability::Process => Durability::Process,
    };
    options.retention = retention(&config.settings);
    options
}

fn retention(settings: &config::Config) -> Retention {
    Retention {
        age: Some(settings.retention.age),
        size: Some(settings.retention.size_bytes),
    }
}

/// The beginning of every link in a message.
pub(super) fn public_url(settings: &config::Config) -> String {
    match &settings.http.public_url {
        Some(url) => url.to_string(),
        None => format!("http://{}", settings.http.listen),
    }
}

fn router_config(settings: &config::Config) -> RouterConfig {
    let mut receivers: Vec<String> = settings
        .alerts
        .receivers
        .iter()
        .map(|r| r.name.clone())
        .collect();
    receivers.push(LOG_RECEIVER.to_owned());
    RouterConfig {
        workspace: "default".to_owned(),
        rules: settings.alerts.rules.clone(),
        route: settings.alerts.route.clone(),
        receivers,
        fallback: settings.alerts.fallback.clone(),
        public_url: Some(public_url(settings)),
    }
}

fn load_source(
    reader: &Reader,
    row: &SourceRow,
    unseen_counts: bool,
) -> Result<SourceState, ReadError> {
    let open = open_runs(reader, row.id)?;
    let job = |(key, status): (RunKey, Status)| {
        (
            JobRef {
                id: key.external_id,
                run: (!key.run.is_empty()).then_some(key.run),
            },
            status,
        )
    };
    Ok(SourceState {
        cursor: reader
            .source_cursor(row.id)?
            .filter(|cursor| !cursor.is_empty()),
        row: row.clone(),
        unseen_counts,
        open: open.into_iter().map(job).collect(),
    })
}

/// The unfinished executions of a source.
fn open_runs(reader: &Reader, source: SourceId) -> Result<Vec<(RunKey, Status)>, ReadError> {
    let mut runs = Vec::new();
    let mut after = ExecutionSeq(0);
    loop {
        let page = reader.open_of_source(source, after)?;
        let Some(last) = page.last() else {
            return Ok(runs);
        };
        after = last.record.seq;
        runs.extend(page.into_iter().map(|e| (e.record.key, e.record.status)));
    }
}
