//! Streams: the connections that weir holds for its sources, on a thread of their own.
//!
//! A connection is always read, whatever the plugin does: a reader that stalls freezes ComfyUI for all its users. What
//! a slow plugin cannot take is dropped and counted, and a poll makes up for it. A stream only makes things quicker:
//! its failure is shown and never makes its source stale.

mod companion;
mod connection;
mod health;
mod link;
mod pump;
mod queue;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use weir_model::stream::{Endpoint, Reaction};

pub(crate) use companion::Companion;
pub use companion::CompanionHealth;
pub use health::{SharedStreams, StreamHealth, StreamState};

use crate::clock::Clock;
use crate::plugin::{PluginHandle, PluginState, PluginStatus};
use crate::source::{Refresh, SourceActor};
use crate::supervise::Slot;
use connection::Resume;
use link::{Link, Outbox};
use pump::Pump;
use queue::FrameQueue;

/// Bytes of an error or an id that are shown.
const SHOWN_BYTES_MAX: usize = 300;
/// The plugin is asked again what to connect after this long without an answer, and doubling.
const ASK_AGAIN: Duration = Duration::from_secs(2);
const ASK_AGAIN_MAX: Duration = Duration::from_secs(300);

/// How connections are kept. `Default` is what every source gets.
#[derive(Clone, Debug)]
pub struct StreamOptions {
    /// After this much silence a ping is sent; after as much again the connection is given up. Server-sent events have
    /// no ping: there the kernel asks, by TCP keepalive. A far side that lives and says nothing stays connected.
    pub silence: Duration,
    pub backoff_base: Duration,
    pub backoff_max: Duration,
    /// A connection that held this long begins anew with the shortest wait.
    pub healthy_after: Duration,
    /// A plugin that crashed over frames is told none for this long, so that a bad frame cannot quarantine its polls.
    pub pause: Duration,
}

impl Default for StreamOptions {
    fn default() -> StreamOptions {
        StreamOptions {
            silence: Duration::from_secs(30),
            backoff_base: Duration::from_secs(1),
            backoff_max: Duration::from_secs(60),
            healthy_after: Duration::from_secs(30),
            pause: Duration::from_secs(180),
        }
    }
}

/// The thread that reads all connections.
pub(crate) struct StreamHost {
    runtime: Option<tokio::runtime::Runtime>,
    options: StreamOptions,
}

/// The streams of one source; they end when it is dropped.
#[derive(Debug)]
pub(crate) struct Watching(AbortHandle);

impl Watching {
    /// Closes the connections; nothing more is told to the plugin.
    pub(crate) fn stop(&self) {
        self.0.abort();
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What all connections of one source share.
struct Context {
    source_name: String,
    plugin: PluginHandle,
    status: watch::Receiver<PluginStatus>,
    source: Slot<SourceActor>,
    health: SharedStreams,
    clock: Clock,
    options: StreamOptions,
}

impl Context {
    /// A plugin that is not ready cannot be polled: it would only count as a failure of the source.
    fn refresh(&self, connected: bool) {
        if self.status.borrow().state == PluginState::Ready {
            self.source.signal(Refresh { connected });
        }
    }

    fn note(&self, endpoint: &str, change: impl FnOnce(&mut StreamHealth)) {
        self.health.change(endpoint, self.clock.now(), change);
    }
}

impl StreamHost {
    pub(crate) fn start(options: StreamOptions) -> io::Result<StreamHost> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("weir-streams")
            .enable_all()
            .build()?;
        Ok(StreamHost {
            runtime: Some(runtime),
            options,
        })
    }

    /// Connects what the plugin names, as long as it is there and exports `streams`.
    pub(crate) fn watch(
        &self,
        source_name: &str,
        plugin: PluginHandle,
        source: Slot<SourceActor>,
        health: SharedStreams,
        clock: Clock,
    ) -> Option<Watching> {
        let ctx = Arc::new(Context {
            source_name: source_name.to_owned(),
            status: plugin.subscribe(),
            plugin,
            source,
            health,
            clock,
            options: self.options.clone(),
        });
        let runtime = self.runtime.as_ref()?;
        let task = runtime.spawn(follow(ctx));
        Some(Watching(task.abort_handle()))
    }
}

impl StreamHost {
    /// Takes what a source inside the program tells between polls.
    pub(crate) fn listen(
        &self,
        mut live: BoxStream<'static, Reaction>,
        source: Slot<SourceActor>,
        health: SharedStreams,
        clock: Clock,
    ) -> Option<Watching> {
        let task = self.runtime.as_ref()?.spawn(async move {
            let note =
                |change: &dyn Fn(&mut StreamHealth)| health.change("live", clock.now(), change);
            note(&|health| health.state = StreamState::Connected);
            while let Some(reaction) = live.next().await {
                note(&|health| health.frames += 1);
                pump::tell(&source, reaction.observations, reaction.refresh).await;
            }
            note(&|health| {
                health.state = StreamState::Waiting;
                health.last_error = Some("it ended".to_owned());
            });
        });
        Some(Watching(task.abort_handle()))
    }
}

impl Drop for StreamHost {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // It may be dropped within another runtime, where nothing may block.
            runtime.shutdown_background();
        }
    }
}

/// An endpoint that is kept connected by two tasks, which end when this is dropped.
struct Running {
    endpoint: Endpoint,
    _tasks: tokio::task::JoinSet<()>,
}

/// Asks every generation of the plugin what to connect.
async fn follow(ctx: Arc<Context>) {
    let mut running: BTreeMap<String, Running> = BTreeMap::new();
    let mut status = ctx.plugin.subscribe();
    let mut asked = None;
    let mut wait = ASK_AGAIN;
    loop {
        let fresh = |s: &PluginStatus| s.state == PluginState::Ready && asked != Some(s.generation);
        let (generation, streams) = match status.wait_for(fresh).await {
            Ok(ready) => (ready.generation, ready.capabilities.streams),
            // The plugin is gone; whoever closed it drops us.
            Err(_) => return,
        };
        if !streams {
            stop_all(&ctx, &mut running);
            asked = Some(generation);
            continue;
        }
        match ctx.plugin.endpoints().await {
            Ok(endpoints) => {
                asked = Some(generation);
                wait = ASK_AGAIN;
                ctx.health.unknown(None, ctx.clock.now());
                settle(&ctx, &mut running, endpoints);
            }
            Err(error) => {
                let error = shown(&error.to_string());
                tracing::warn!(source = %ctx.source_name, %error, "the plugin does not say what to connect");
                ctx.health.unknown(Some(error), ctx.clock.now());
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(ASK_AGAIN_MAX);
            }
        }
    }
}

/// Connects what is new, and ends what is not wanted any more.
fn settle(ctx: &Arc<Context>, running: &mut BTreeMap<String, Running>, endpoints: Vec<Endpoint>) {
    let wanted: BTreeMap<String, Endpoint> =
        endpoints.into_iter().map(|e| (e.id.clone(), e)).collect();
    running.retain(|id, running| {
        let same = wanted.get(id) == Some(&running.endpoint);
        if !same {
            ctx.health.remove(id);
        }
        same
    });
    for (id, endpoint) in wanted {
        running.entry(id).or_insert_with(|| connect(ctx, endpoint));
    }
}

/// Another file was taken into use, and it has no streams.
fn stop_all(ctx: &Context, running: &mut BTreeMap<String, Running>) {
    ctx.health.unknown(None, ctx.clock.now());
    for id in std::mem::take(running).keys() {
        ctx.health.remove(id);
    }
}

fn connect(ctx: &Arc<Context>, endpoint: Endpoint) -> Running {
    let queue = Arc::new(FrameQueue::default());
    let outbox = Outbox::default();
    let pump = Pump {
        ctx: Arc::clone(ctx),
        endpoint: endpoint.id.clone(),
        queue: Arc::clone(&queue),
        outbox: outbox.clone(),
    };
    let link = Link {
        ctx: Arc::clone(ctx),
        endpoint: endpoint.clone(),
        queue,
        outbox,
        resume: Arc::new(Resume::default()),
    };
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(link.run());
    tasks.spawn(pump.run());
    Running {
        endpoint,
        _tasks: tasks,
    }
}

/// One line, bounded, without control characters: it comes from the far side or from a plugin.
fn shown(text: &str) -> String {
    let mut end = text.len().min(SHOWN_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    text[..end].chars().map(clean).collect()
}
