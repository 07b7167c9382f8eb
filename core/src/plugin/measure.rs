//! The host's own cost per call, for `make bench`: only this room can time wasmtime's bare call beside it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmtime::component::{Component, ResourceTable};
use wasmtime::{Engine, Store};

use super::contract::{self, Linked};
use super::credential::Redactor;
use super::egress::{Egress, EgressGrant, SystemResolver};
use super::gauge::Gauge;
use super::guest_log::GuestLog;
use super::instance::{GuestState, Instance, Surroundings};
use super::limits::Limits;
use super::meter::Ticker;
use super::{PluginSpec, Role, WasmBytes};

/// What one call of an empty export takes.
#[derive(Clone, Copy, Debug)]
pub struct CallCost {
    /// Under every limit of the host, its result checked.
    pub guarded: Duration,
    /// wasmtime's typed call alone, on the same engine.
    pub bare: Duration,
}

/// Times `calls` calls of the export `check` of a source's component, both ways in turns. Errors are texts for a bench.
pub async fn call_cost(component: &[u8], calls: u32) -> Result<CallCost, String> {
    let failed = |error: wasmtime::Error| format!("{error:#}");
    let engine = super::host::engine(None).map_err(|error| error.to_string())?;
    let linker = contract::linker(&engine).map_err(failed)?;
    let component = Component::from_binary(&engine, component).map_err(failed)?;
    let file = (Arc::from("measured"), 0);
    let linked = contract::link(&engine, &linker, &component, file).map_err(|e| e.to_string())?;
    let spec = spec();
    let surroundings = Arc::new(surroundings(&engine, &spec)?);
    let opened = Instance::open(&linked, &spec, Arc::clone(&surroundings)).await;
    let (mut instance, _) = opened.map_err(|(error, _)| format!("{error:?}"))?;
    let mut bare = Bare::new(&engine, &linked, &surroundings, &spec).await?;
    const TURNS: u32 = 20;
    let each = (calls / TURNS).max(1);
    let (mut guarded_took, mut bare_took) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        let began = Instant::now();
        for _ in 0..each {
            let checked = instance
                .check()
                .await
                .map_err(|report| report.to_string())?;
            checked.map_err(|failure| failure.message)?;
        }
        guarded_took.push(began.elapsed() / each);
        let began = Instant::now();
        for _ in 0..each {
            bare.check().await?;
        }
        bare_took.push(began.elapsed() / each);
    }
    Ok(CallCost {
        guarded: median(guarded_took),
        bare: median(bare_took),
    })
}

/// An instance without any limit.
struct Bare {
    store: Store<GuestState>,
    lifecycle: contract::bindings::exports::weir::plugin::lifecycle::Guest,
}

impl Bare {
    async fn new(
        engine: &Engine,
        linked: &Linked,
        surroundings: &Surroundings,
        spec: &PluginSpec,
    ) -> Result<Bare, String> {
        let failed = |error: wasmtime::Error| format!("{error:#}");
        let state = GuestState::new(surroundings, &spec.limits, ResourceTable::new());
        let mut store = Store::new(engine, state);
        store.set_epoch_deadline(u64::MAX / 2);
        let instance = linked
            .pre
            .instantiate_async(&mut store)
            .await
            .map_err(failed)?;
        let lifecycle = linked
            .lifecycle
            .load(&mut store, &instance)
            .map_err(failed)?;
        Ok(Bare { store, lifecycle })
    }

    async fn check(&mut self) -> Result<(), String> {
        let checked = self.lifecycle.call_check(&mut self.store).await;
        checked
            .map_err(|error| format!("{error:#}"))?
            .map(drop)
            .map_err(|failure| failure.message)
    }
}

fn spec() -> PluginSpec {
    PluginSpec {
        entry: "measured".into(),
        plugin: "measured".into(),
        role: Role::Source,
        uuid: uuid::Uuid::nil(),
        wasm: WasmBytes::Bundled(&[]),
        config: serde_json::json!({}),
        allow: Vec::new(),
        credentials: BTreeMap::new(),
        limits: Limits::default(),
    }
}

fn surroundings(engine: &Engine, spec: &PluginSpec) -> Result<Surroundings, String> {
    let gauge = Arc::new(Gauge::new(spec.limits.clone()));
    let grant = EgressGrant {
        plugin: spec.plugin.clone(),
        entry: spec.entry.clone(),
        allow: Vec::new(),
        credentials: BTreeMap::new(),
        redactor: Redactor::default(),
        user_agent: "weir".into(),
    };
    Ok(Surroundings {
        engine: engine.clone(),
        ticker: Arc::new(Ticker::start(engine.clone()).map_err(|error| error.to_string())?),
        egress: Arc::new(Egress::new(grant, &spec.limits, Arc::new(SystemResolver))),
        log: Arc::new(GuestLog::new(
            &spec.plugin,
            &spec.entry,
            Redactor::default(),
            Arc::clone(&gauge),
        )),
        gauge,
    })
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
