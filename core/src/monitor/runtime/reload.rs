//! Reloading: a new configuration taken while everything runs, all of it or nothing.

use super::{
    Carrier, Fingerprint, Opened, RunningReceiver, Runtime, read, retention, router_config,
};
use crate::alert::Reconfigure;
use crate::email::Mailer;
use crate::journal::Commit;
use crate::monitor::ReloadError;
use crate::monitor::plan::{self, PlanError};
use crate::monitor::views::ReloadView;
use crate::plugin::{PluginHandle, PluginState, Role};
use crate::receiver::StopReceiver;
use crate::resource::SetSampling;
use futures::future::LocalBoxFuture;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use weir_model::alert::delivery::FailureKind;
use weir_model::alert::fact::receiver_subject;
use weir_model::alert::route::LOG_RECEIVER;
use weir_model::config::{self, Handler};
use weir_model::event::SystemEvent;

/// A plugin has to load, open and check; what takes longer than this is not ready.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// Says why something that shall take over cannot.
type GettingReady = LocalBoxFuture<'static, Result<(), PlanError>>;

/// A new configuration whose plugins are ready to take over.
pub(super) struct Prepared {
    settings: config::Config,
    sources: BTreeMap<String, Opened>,
    receivers: BTreeMap<String, Carrier>,
}

impl Runtime {
    /// All or nothing: what could go wrong is tried before anything is changed. A plugin whose configuration or
    /// credential is another one gets ready beside the one at work.
    pub(super) async fn prepare(&self, new: config::Config) -> Result<Prepared, ReloadError> {
        let old = self.shared.settings.load_full();
        if new.http.listen != old.http.listen {
            return Err(ReloadError::NeedsRestart("http.listen"));
        }
        if new.durability != old.durability {
            return Err(ReloadError::NeedsRestart("durability"));
        }
        if new.data_dir != old.data_dir {
            return Err(ReloadError::NeedsRestart("data_dir"));
        }
        self.plan(&new).map_err(ReloadError::Plan)?;
        let mut prepared = Prepared {
            settings: config::Config::default(),
            sources: BTreeMap::new(),
            receivers: BTreeMap::new(),
        };
        let mut getting_ready = Vec::new();
        let running = read(&self.shared.sources);
        for (i, source) in new.sources.iter().enumerate() {
            let had = running.get(&source.name);
            let had = had.and_then(|s| Some((s.plugin.clone()?, s.fingerprint?)));
            let path = format!("sources[{i}]");
            let opened = self.next_plugin(
                &path,
                &source.name,
                &source.entry,
                Role::Source,
                had,
                &mut getting_ready,
            )?;
            prepared
                .sources
                .extend(opened.map(|opened| (source.name.clone(), opened)));
        }
        let running = read(&self.shared.receivers);
        for (i, receiver) in new.alerts.receivers.iter().enumerate() {
            let had = running.get(&receiver.name);
            let path = format!("alerts.receivers[{i}]");
            let carrier = self.next_carrier(&path, receiver, had, &mut getting_ready)?;
            prepared
                .receivers
                .extend(carrier.map(|carrier| (receiver.name.clone(), carrier)));
        }
        let results = futures::future::join_all(getting_ready).await;
        let errors: Vec<PlanError> = results.into_iter().filter_map(Result::err).collect();
        if !errors.is_empty() {
            return Err(ReloadError::NotReady(errors));
        }
        prepared.settings = new;
        Ok(prepared)
    }

    /// What a receiver goes on with. None: nothing is at stake.
    fn next_carrier(
        &self,
        path: &str,
        receiver: &config::ReceiverConfig,
        had: Option<&RunningReceiver>,
        getting_ready: &mut Vec<GettingReady>,
    ) -> Result<Option<Carrier>, ReloadError> {
        let name = &receiver.name;
        let email = match &receiver.handler {
            Handler::Plugin(entry) => {
                let had = had.and_then(|r| Some((r.plugin.clone()?, r.fingerprint?)));
                let role = Role::Handler;
                let opened = self.next_plugin(path, name, entry, role, had, getting_ready)?;
                return Ok(opened.map(Carrier::Plugin));
            }
            Handler::Email(email) => email,
        };
        let Some(at_work) = had.and_then(|had| had.mailer.as_ref()) else {
            return Ok(None);
        };
        let next = plan::mailer(path, name, email, self.shared.journal.origin());
        let next = next.map_err(|error| ReloadError::Plan(vec![error]))?;
        if at_work.is_same(&next) {
            return Ok(Some(Carrier::Email(at_work.clone())));
        }
        let next = Arc::new(next);
        // One that does not work is replaced by whatever comes.
        if !self.shared.troubles.is_active(&receiver_subject(name)) {
            getting_ready.push(Box::pin(signed_in(path.to_owned(), next.clone())));
        }
        Ok(Some(Carrier::Email(next)))
    }

    /// The plugin that an entry goes on with: the one at work where nothing about it changed, else another one, which
    /// has to get ready where the one at work is. None: the entry is new, nothing is at stake.
    fn next_plugin(
        &self,
        path: &str,
        name: &str,
        entry: &config::PluginEntry,
        role: Role,
        had: Option<(PluginHandle, Fingerprint)>,
        getting_ready: &mut Vec<GettingReady>,
    ) -> Result<Option<Opened>, ReloadError> {
        let Some((at_work, fingerprint)) = had else {
            return Ok(None);
        };
        let origin = self.shared.journal.origin();
        let spec = plan::plugin_spec(path, name, entry, role, origin, &self.bundled)
            .map_err(|error| ReloadError::Plan(vec![error]))?;
        let next = spec.fingerprint();
        if next == fingerprint {
            return Ok(Some(Opened {
                plugin: at_work,
                name: spec.plugin,
                fingerprint,
                kept: true,
            }));
        }
        let opened = Opened {
            name: spec.plugin.clone(),
            plugin: self.host.open(spec),
            fingerprint: next,
            kept: false,
        };
        // One that does not work is replaced by whatever comes.
        if at_work.status().state == PluginState::Ready {
            getting_ready.push(Box::pin(ready(path.to_owned(), opened.plugin.clone())));
        }
        Ok(Some(opened))
    }

    /// Takes what was prepared. Nothing here can fail any more.
    pub(super) async fn reload(&self, mut prepared: Prepared) {
        let old = self.shared.settings.load_full();
        let new = std::mem::take(&mut prepared.settings);
        self.shared.settings.store(Arc::new(new.clone()));
        self.reload_receivers(&old, &new, &mut prepared.receivers)
            .await;
        self.shared
            .router
            .signal(Reconfigure(Box::new(router_config(&new))));
        self.reload_sources(&new, &mut prepared.sources).await;
        if let Some(sampler) = &self.sampler {
            sampler.signal(SetSampling(new.resources.clone()));
        }
        self.shared.journal.set_retention(retention(&new));
        if new.alerts.deadman != old.alerts.deadman {
            self.start_deadman(&new);
        }
        *self
            .shared
            .reload
            .write()
            .unwrap_or_else(PoisonError::into_inner) = ReloadView {
            at: Some(self.shared.clock.now()),
            error: None,
        };
        let reloaded = Commit::system(vec![SystemEvent::Reloaded], self.shared.clock.now());
        drop(self.shared.journal.try_commit(reloaded));
        self.bell.ring();
    }

    async fn reload_receivers(
        &self,
        old: &config::Config,
        new: &config::Config,
        carriers: &mut BTreeMap<String, Carrier>,
    ) {
        let same_fallback = old.alerts.fallback == new.alerts.fallback;
        let running = read(&self.shared.receivers);
        for (name, receiver) in &running {
            let wanted = new.alerts.receivers.iter().find(|r| &r.name == name);
            let kept = carriers.get(name).map(|carrier| carrier.is_kept(receiver));
            let same = same_fallback && receiver.config.as_ref() == wanted;
            if same && kept != Some(false) {
                continue;
            }
            receiver.stopping.begin();
            receiver.slot.signal(StopReceiver);
            if let Some(plugin) = receiver.plugin.as_ref().filter(|_| kept != Some(true)) {
                plugin.close().await;
            }
            self.shared
                .receivers
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(name);
            // It is gone, or tried anew with another configuration.
            self.shared.troubles.clear(&receiver_subject(name));
        }
        let running = read(&self.shared.receivers);
        if !running.contains_key(LOG_RECEIVER) {
            self.start_receiver(LOG_RECEIVER, None, new, None);
        }
        for receiver in new
            .alerts
            .receivers
            .iter()
            .filter(|r| !running.contains_key(&r.name))
        {
            let carrier = carriers.remove(&receiver.name);
            self.start_receiver(&receiver.name, Some(receiver), new, carrier);
        }
        crate::alert::reroute_orphans(
            &self.shared.journal,
            &router_config(new),
            self.shared.clock.now(),
        )
        .await;
    }

    async fn reload_sources(&self, new: &config::Config, opened: &mut BTreeMap<String, Opened>) {
        for (name, source) in read(&self.shared.sources) {
            let Some(had) = &source.config else { continue };
            let wanted = new.sources.iter().find(|s| s.name == name);
            let kept = opened.get(&name).map(|opened| opened.kept);
            if wanted == Some(had) && kept != Some(false) {
                continue;
            }
            source.stop().await;
            if let Some(plugin) = source.plugin.as_ref().filter(|_| kept != Some(true)) {
                plugin.close().await;
            }
            self.shared
                .sources
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&name);
            if wanted.is_none() {
                let row = self
                    .shared
                    .journal
                    .reader()
                    .and_then(|r| r.source_by_name(&name));
                self.unwatch(row.ok().flatten().unwrap_or(source.row)).await;
            }
        }
        let running = read(&self.shared.sources);
        for source in new
            .sources
            .iter()
            .filter(|s| !running.contains_key(&s.name))
        {
            if let Err(error) = self.open_source(source, opened.remove(&source.name)).await {
                self.shared
                    .troubles
                    .raise(&format!("source {}", source.name), &error.to_string());
            }
        }
    }
}

impl Carrier {
    /// Whether it is the one that the receiver has.
    fn is_kept(&self, had: &RunningReceiver) -> bool {
        match self {
            Carrier::Plugin(opened) => opened.kept,
            Carrier::Email(next) => had
                .mailer
                .as_ref()
                .is_some_and(|had| Arc::ptr_eq(had, next)),
        }
    }
}

/// A server that is away for the moment says nothing about the configuration.
async fn signed_in(path: String, mailer: Arc<Mailer>) -> Result<(), PlanError> {
    match mailer.check().await {
        Err(refused) if refused.kind == FailureKind::Misconfigured => Err(PlanError {
            path,
            message: refused.answer,
        }),
        _ => Ok(()),
    }
}

/// Waits for a plugin that shall take over.
async fn ready(path: String, plugin: PluginHandle) -> Result<(), PlanError> {
    let message = match tokio::time::timeout(READY_WITHIN, plugin.ready()).await {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("it was not ready within {READY_WITHIN:?}"),
    };
    Err(PlanError { path, message })
}
