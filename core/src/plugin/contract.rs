//! The contract `weir:plugin` on the host's side: bindings, versions, and what a component exports.

mod shape;

use std::sync::Arc;

use wasmtime::Engine;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, HasSelf, InstancePre, Linker};

use super::Role;
use super::instance::GuestState;
use super::status::Capabilities;

pub(super) mod bindings {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "everything",
        imports: { default: async | trappable },
        exports: { default: async },
    });
}

use bindings::exports::weir::plugin::{alerts, control, jobs, lifecycle, logs, streams};

/// The version of `wit/plugin.wit` that this daemon speaks.
pub const CONTRACT_VERSION: &str = "0.1.0";

const PACKAGE: &str = "weir:plugin/";
/// What a guest may import: ours, and WASI with nothing behind it.
const OFFERED: [&str; 3] = ["types", "host", "http"];

/// Why a component cannot run here. The message is the whole story for the operator.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum ContractError {
    #[error(
        "built for weir:plugin@{found}; this daemon speaks {}. \
         Rebuild against wit/plugin.wit {} or upgrade the daemon",
        minor(CONTRACT_VERSION),
        minor(CONTRACT_VERSION)
    )]
    Older { found: String },
    #[error(
        "built for weir:plugin@{found}; this daemon speaks {}. \
         Upgrade the daemon or rebuild against wit/plugin.wit {}",
        minor(CONTRACT_VERSION),
        minor(CONTRACT_VERSION)
    )]
    Newer { found: String },
    #[error("it is no weir plugin: it exports no weir:plugin/lifecycle")]
    NoPlugin,
    #[error("it imports `{0}`, which weir does not offer")]
    Import(String),
    #[error("it exports no `{missing}`, which {role} needs{is}")]
    Capability {
        missing: &'static str,
        role: &'static str,
        /// What it is instead, and where it belongs.
        is: &'static str,
    },
    #[error(
        "its `{interface}` has no `{function}`, which weir:plugin@{} asks for: `{signature}`. \
         Rebuild it against wit/plugin.wit",
        minor(CONTRACT_VERSION)
    )]
    Function {
        interface: String,
        function: &'static str,
        signature: &'static str,
    },
    #[error(
        "its `{interface}.{function}` is not that of weir:plugin@{}, which says `{signature}`: {detail}. \
         Rebuild it against wit/plugin.wit",
        minor(CONTRACT_VERSION)
    )]
    Type {
        interface: String,
        function: String,
        signature: &'static str,
        detail: String,
    },
    #[error(
        "it does not fit weir:plugin@{}, though it says so: {detail}. Rebuild it against wit/plugin.wit",
        minor(CONTRACT_VERSION)
    )]
    Shape { detail: String },
}

/// A component that fits, with the places of its exports found beforehand.
#[derive(Clone)]
pub(super) struct Linked {
    /// Of the file that it was made from, in hex.
    pub(super) sha256: Arc<str>,
    /// Size of that file.
    pub(super) file_bytes: u64,
    pub(super) pre: InstancePre<GuestState>,
    pub(super) lifecycle: lifecycle::GuestIndices,
    pub(super) jobs: Option<jobs::GuestIndices>,
    pub(super) alerts: Option<alerts::GuestIndices>,
    pub(super) streams: Option<streams::GuestIndices>,
    pub(super) control: Option<control::GuestIndices>,
    pub(super) logs: Option<logs::GuestIndices>,
    pub(super) capabilities: Capabilities,
}

/// Everything a guest may import. WASI's context is empty: no file, socket, variable or argument is behind it.
pub(super) fn linker(engine: &Engine) -> wasmtime::Result<Linker<GuestState>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    bindings::Everything::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state)?;
    Ok(linker)
}

/// Checks versions before linking, since the linker's own words mislead, and probes what is exported.
pub(super) fn link(
    engine: &Engine,
    linker: &Linker<GuestState>,
    component: &Component,
    (sha256, file_bytes): (Arc<str>, u64),
) -> Result<Linked, ContractError> {
    check_names(engine, component)?;
    shape::check(engine, component)?;
    let shape = |error: wasmtime::Error| ContractError::Shape {
        detail: format!("{error:#}"),
    };
    let pre = linker.instantiate_pre(component).map_err(shape)?;
    macro_rules! probe {
        ($interface:ident) => {{
            let name = format!("{PACKAGE}{}@{CONTRACT_VERSION}", stringify!($interface));
            match component.get_export_index(None, &name) {
                Some(_) => Some($interface::GuestIndices::new(&pre).map_err(shape)?),
                None => None,
            }
        }};
    }
    let (jobs, alerts) = (probe!(jobs), probe!(alerts));
    let (streams, control, logs) = (probe!(streams), probe!(control), probe!(logs));
    Ok(Linked {
        sha256,
        file_bytes,
        lifecycle: lifecycle::GuestIndices::new(&pre).map_err(shape)?,
        capabilities: Capabilities {
            jobs: jobs.is_some(),
            alerts: alerts.is_some(),
            streams: streams.is_some(),
            control: control.is_some(),
            logs: logs.is_some(),
        },
        jobs,
        alerts,
        streams,
        control,
        logs,
        pre,
    })
}

/// A role is a capability that must be there.
pub(super) fn check_role(capabilities: Capabilities, role: Role) -> Result<(), ContractError> {
    match role {
        Role::Source if !capabilities.jobs => Err(ContractError::Capability {
            missing: "jobs",
            role: "a source",
            is: match capabilities.alerts {
                true => ": it is an alert handler, put it under `alerts: (receivers: [...])`",
                false => "",
            },
        }),
        Role::Handler if !capabilities.alerts => Err(ContractError::Capability {
            missing: "alerts",
            role: "a receiver",
            is: match capabilities.jobs {
                true => ": it is a source, put it under `sources`",
                false => "",
            },
        }),
        _ => Ok(()),
    }
}

fn check_names(engine: &Engine, component: &Component) -> Result<(), ContractError> {
    let ty = component.component_type();
    let mut lifecycle = false;
    for (name, _) in ty.exports(engine) {
        if let Some((interface, version)) = ours(name) {
            check_version(version)?;
            lifecycle |= interface == "lifecycle";
        }
    }
    for (name, item) in ty.imports(engine) {
        match ours(name) {
            Some((interface, version)) => {
                check_version(version)?;
                // An interface of types alone asks for nothing.
                if !OFFERED.contains(&interface) && has_functions(&item.ty, engine) {
                    return Err(ContractError::Import(name.to_owned()));
                }
            }
            None if name.starts_with("wasi:") => {}
            None => return Err(ContractError::Import(name.to_owned())),
        }
    }
    if lifecycle {
        Ok(())
    } else {
        Err(ContractError::NoPlugin)
    }
}

fn has_functions(item: &ComponentItem, engine: &Engine) -> bool {
    match item {
        ComponentItem::ComponentInstance(instance) => instance
            .exports(engine)
            .any(|(_, item)| matches!(item.ty, ComponentItem::ComponentFunc(_))),
        _ => true,
    }
}

/// `weir:plugin/NAME@VERSION` → (NAME, VERSION).
fn ours(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix(PACKAGE)?.split_once('@')
}

/// Before 1.0 every minor may break; a patch may not.
fn check_version(found: &str) -> Result<(), ContractError> {
    let parts = |version: &str| {
        let mut numbers = version.split(['.', '-', '+']).map(|n| n.parse::<u32>());
        match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor))) => Some((major, minor)),
            _ => None,
        }
    };
    let found_version = parts(found);
    match found_version.cmp(&parts(CONTRACT_VERSION)) {
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Less => Err(ContractError::Older {
            found: found.to_owned(),
        }),
        std::cmp::Ordering::Greater => Err(ContractError::Newer {
            found: found.to_owned(),
        }),
    }
}

fn minor(version: &str) -> &str {
    version.rsplit_once('.').map_or(version, |(minor, _)| minor)
}
