//! Whether each function that a component exports or imports is the contract's own, told before the linker could say it worse.

use wasmtime::Engine;
use wasmtime::component::Component;
use wasmtime::component::types::{self as found, ComponentItem};

use super::bindings::exports::weir::plugin::{alerts, control, jobs, lifecycle, logs, streams};
use super::bindings::weir::plugin::{host, http, types};
use super::{ContractError, OFFERED, ours};

/// The contract itself: what it says is quoted to whoever missed it.
const CONTRACT: &str = include_str!("../../../../wit/plugin.wit");

/// The functions of every interface that a guest exports.
const EXPORTS: [(&str, &[&str]); 6] = [
    ("lifecycle", &["describe", "open", "check"]),
    ("jobs", &["poll"]),
    ("alerts", &["deliver"]),
    ("streams", &["endpoints", "on-frames"]),
    ("control", &["cancel", "retry", "submit"]),
    ("logs", &["read"]),
];

/// Checks every function of ours: there, and of the types that `wit/plugin.wit` gives it.
pub(super) fn check(engine: &Engine, component: &Component) -> Result<(), ContractError> {
    let ty = component.component_type();
    for (name, item) in ty.exports(engine) {
        let Some((interface, _)) = ours(name) else {
            continue;
        };
        let known = EXPORTS.iter().find(|(known, _)| *known == interface);
        let ComponentItem::ComponentInstance(instance) = item.ty else {
            continue;
        };
        for &function in known.map_or(&[] as &[&str], |(_, functions)| *functions) {
            match instance.get_export(engine, function).map(|item| item.ty) {
                Some(ComponentItem::ComponentFunc(of)) => {
                    check_type(&ty, interface, function, &of)?;
                }
                _ => {
                    return Err(ContractError::Function {
                        interface: interface.to_owned(),
                        function,
                        signature: signature(interface, function).unwrap_or_default(),
                    });
                }
            }
        }
    }
    check_imports(engine, &ty)
}

fn check_imports(engine: &Engine, ty: &found::Component) -> Result<(), ContractError> {
    for (name, item) in ty.imports(engine) {
        let Some((interface, _)) = ours(name) else {
            continue;
        };
        let ComponentItem::ComponentInstance(instance) = item.ty else {
            continue;
        };
        if !OFFERED.contains(&interface) {
            continue;
        }
        for (function, item) in instance.exports(engine) {
            if let ComponentItem::ComponentFunc(of) = item.ty {
                if signature(interface, function).is_none() {
                    return Err(ContractError::Import(format!("{interface}.{function}")));
                }
                check_type(ty, interface, function, &of)?;
            }
        }
    }
    Ok(())
}

fn check_type(
    component: &found::Component,
    interface: &str,
    function: &str,
    found: &found::ComponentFunc,
) -> Result<(), ContractError> {
    typecheck(component, interface, function, found).map_err(|error| ContractError::Type {
        interface: interface.to_owned(),
        function: function.to_owned(),
        signature: signature(interface, function).unwrap_or_default(),
        detail: format!("{error:#}"),
    })
}

type Failable<T> = (Result<T, types::Failure>,);

/// wasmtime's own check, which it makes for each function when an instance is loaded; here nothing runs yet.
fn typecheck(
    component: &found::Component,
    interface: &str,
    function: &str,
    found: &found::ComponentFunc,
) -> wasmtime::Result<()> {
    let cx = component.instance_type();
    let cx = &cx;
    match (interface, function) {
        ("lifecycle", "describe") => found.typecheck::<(), (lifecycle::Manifest,)>(cx),
        ("lifecycle", "open") => found.typecheck::<(lifecycle::Context,), Failable<()>>(cx),
        ("lifecycle", "check") => found.typecheck::<(), Failable<String>>(cx),
        ("jobs", "poll") => {
            found.typecheck::<(Option<String>, Vec<types::JobRef>), Failable<jobs::Page>>(cx)
        }
        ("alerts", "deliver") => {
            found.typecheck::<(alerts::Notification, Option<String>), Failable<Option<String>>>(cx)
        }
        ("streams", "endpoints") => found.typecheck::<(), Failable<Vec<streams::Endpoint>>>(cx),
        ("streams", "on-frames") => {
            found.typecheck::<(String, Vec<streams::Frame>), Failable<streams::Reaction>>(cx)
        }
        ("control", "cancel") => found.typecheck::<(types::JobRef,), Failable<()>>(cx),
        ("control", "retry") => {
            found.typecheck::<(String, types::JobRef), Failable<control::Submission>>(cx)
        }
        ("control", "submit") => {
            found.typecheck::<(String, String, Vec<u8>), Failable<control::Submission>>(cx)
        }
        ("logs", "read") => found
            .typecheck::<(types::JobRef, logs::Direction, Option<String>), Failable<logs::LogPage>>(
                cx,
            ),
        ("host", "log") => found.typecheck::<(host::Level, String), ()>(cx),
        ("host", "now") => found.typecheck::<(), (u64,)>(cx),
        ("http", "send" | "fetch") => {
            found.typecheck::<(http::Request,), Failable<http::Response>>(cx)
        }
        // A function that the contract does not know is nobody's business unless it is imported.
        _ => Ok(()),
    }
}

/// What the contract says of a function: `poll: func(…) -> result<page, failure>`.
fn signature(interface: &str, function: &str) -> Option<&'static str> {
    let opening = format!("interface {interface} {{");
    let body = CONTRACT.split_once(&opening)?.1;
    let body = body.split_once("\n}").map_or(body, |(body, _)| body);
    let start = format!("{function}: func(");
    let line = body
        .lines()
        .map(str::trim)
        .find(|line| line.starts_with(&start))?;
    Some(line.trim_end_matches(';'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_of_the_contract_is_quoted() {
        for (interface, functions) in EXPORTS {
            for function in functions {
                let quoted = signature(interface, function);
                assert!(quoted.is_some(), "{interface}.{function}");
            }
        }
        assert_eq!(
            signature("jobs", "poll"),
            Some(
                "poll: func(cursor: option<string>, open: list<job-ref>) -> result<page, failure>"
            )
        );
        assert_eq!(signature("jobs", "deliver"), None);
    }
}
