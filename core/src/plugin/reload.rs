//! A changed file: noticed, and made ready beside the instance that is in use.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::Notify;
use weir_model::observation::FailureKind;

use super::contract::{self, Linked};
use super::entry::Entry;
use super::gauge::Mark;
use super::instance::{Instance, OpenError, Surroundings};
use super::load::LoadQueue;
use super::status::{CrashReport, Manifest, PluginState, ReloadReport};
use super::{Failure, PluginSpec, WasmBytes};

/// What tells one content of a file from the next without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    len: u64,
}

/// Looks at the file of one entry.
pub(super) struct FileWatch {
    path: PathBuf,
    every: Duration,
}

impl FileWatch {
    /// None for what cannot change: a plugin inside the binary.
    pub(super) fn of(spec: &PluginSpec, every: Duration) -> Option<FileWatch> {
        match &spec.wasm {
            WasmBytes::Bundled(_) => None,
            WasmBytes::File { path, .. } => Some(FileWatch {
                path: path.clone(),
                every,
            }),
        }
    }

    /// Notifies whenever the file has changed and come to rest, which one that is being written has not.
    pub(super) async fn run(self, changed: Arc<Notify>) {
        let mut judged = stamp(&self.path).await;
        let mut before = judged;
        loop {
            tokio::time::sleep(self.every).await;
            let now = stamp(&self.path).await;
            // A file that is gone is about to come back, or it is no reason to stop what runs.
            if now.is_some() && now == before && now != judged {
                judged = now;
                changed.notify_one();
            }
            before = now;
        }
    }
}

async fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = tokio::fs::metadata(path).await.ok()?;
    Some(Stamp {
        modified: metadata.modified().ok(),
        len: metadata.len(),
    })
}

/// A generation that could take over at once.
pub(super) struct Prepared {
    pub(super) linked: Linked,
    pub(super) instance: Instance,
    pub(super) manifest: Manifest,
    pub(super) checked: Result<String, Failure>,
}

/// Why there is none.
pub(super) enum NotPrepared {
    /// The bytes are those in use: there is nothing to take over.
    Same,
    Refused(String),
    Crashed(Box<CrashReport>),
}

/// Loads the file of `spec` and brings an instance of it as far as ready, in the same steps as at the start.
pub(super) async fn prepare(
    spec: Arc<PluginSpec>,
    surroundings: Arc<Surroundings>,
    loader: LoadQueue,
    in_use: Option<Arc<str>>,
) -> Result<Prepared, NotPrepared> {
    let refused = |error: String| NotPrepared::Refused(error);
    let linked = loader
        .load(spec.wasm.clone(), spec.limits.file_bytes)
        .await
        .map_err(|error| refused(error.to_string()))?;
    if in_use.is_some_and(|sha256| sha256 == linked.sha256) {
        return Err(NotPrepared::Same);
    }
    contract::check_role(linked.capabilities, spec.role)
        .map_err(|error| refused(error.to_string()))?;
    let opened = Instance::open(&linked, &spec, surroundings).await;
    let (mut instance, manifest) = opened.map_err(|(error, _)| match error {
        OpenError::Refused(failure) => refused(failure.message),
        OpenError::Crashed(report) => NotPrepared::Crashed(report),
        OpenError::Incompatible(error) => refused(error.to_string()),
    })?;
    let checked = instance.check().await.map_err(NotPrepared::Crashed)?;
    match checked {
        Err(failure) if failure.kind == Some(FailureKind::Misconfigured) => {
            Err(refused(failure.message))
        }
        checked => Ok(Prepared {
            linked,
            instance,
            manifest,
            checked,
        }),
    }
}

impl Entry {
    /// From here on this is the generation in use.
    pub(super) fn take_over(&mut self, linked: Linked) {
        self.surroundings.gauge.note(Mark::File, linked.file_bytes);
        self.status.send_modify(|status| {
            // The same file, read again, is the same generation.
            if status.sha256.as_ref() != Some(&linked.sha256) {
                status.generation += 1;
            }
            status.capabilities = linked.capabilities;
            status.sha256 = Some(Arc::clone(&linked.sha256));
        });
        self.linked.send_replace(Some(linked));
    }

    /// What runs goes on until the new file is ready; what waits has nothing to lose.
    pub(super) fn file_changed(&mut self) {
        let (plugin, entry) = (&self.spec.plugin, &self.spec.entry);
        let works = matches!(
            self.lifecycle.state(),
            PluginState::Ready | PluginState::Backoff { .. }
        );
        if !works {
            tracing::info!(%plugin, %entry, "the plugin's file has changed; it is loaded again");
            return self.lifecycle.resumed();
        }
        tracing::info!(%plugin, %entry, "the plugin's file has changed; the new one is made ready");
        let in_use = self
            .linked
            .borrow()
            .as_ref()
            .map(|linked| Arc::clone(&linked.sha256));
        self.preparing.spawn_local(prepare(
            Arc::clone(&self.spec),
            Arc::clone(&self.surroundings),
            self.loader.clone(),
            in_use,
        ));
    }

    pub(super) fn prepared(&mut self, prepared: Result<Prepared, NotPrepared>) {
        let error = match prepared {
            Err(NotPrepared::Same) => return,
            Ok(prepared) => {
                self.swap(prepared);
                None
            }
            Err(NotPrepared::Refused(reason)) => Some(reason),
            Err(NotPrepared::Crashed(report)) => {
                // No strike: what is in use did nothing wrong.
                let report = Arc::new(*report);
                let reason = report.to_string();
                self.status
                    .send_modify(|status| status.last_crash = Some(report));
                Some(reason)
            }
        };
        let (plugin, entry) = (&self.spec.plugin, &self.spec.entry);
        match &error {
            None => tracing::info!(%plugin, %entry, "the plugin's new file is in use"),
            Some(reason) => tracing::warn!(
                %plugin, %entry, "the plugin's new file is not taken into use, the old one goes on: {reason}"
            ),
        }
        let report = ReloadReport {
            at: jiff::Timestamp::now(),
            error,
        };
        self.status
            .send_modify(|status| status.reload = Some(report));
    }

    /// Between two calls: the last one ended on the old instance, the next one begins on the new.
    fn swap(&mut self, prepared: Prepared) {
        self.drop_instance();
        self.take_over(prepared.linked);
        self.note_check(&prepared.checked);
        self.status
            .send_modify(|status| status.manifest = Some(prepared.manifest));
        self.instance = Some(prepared.instance);
        self.round_tainted = false;
        self.lifecycle.renewed(Instant::now());
    }
}
