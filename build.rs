//! Turns the bundled plugins from core modules into components, so that the binary can carry them.
//!
//! It compiles nothing: guests use another compiler where no rustup target can be had, so `make plugins` builds them.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, process};

/// Name in `monitor.ron`, which is also the name of the module's file, where a `-` is a `_`.
const PLUGINS: &[&str] = &[
    "apprise",
    "comfyui",
    "discord",
    "ntfy",
    "pagerduty",
    "slack",
    "telegram",
    "vertex-ai",
    "webhook",
];

fn main() {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let modules = root.join("plugins/target/wasm32-unknown-unknown/release");
    println!("cargo::rerun-if-changed=build.rs");
    let mut table = String::from("&[\n");
    for name in PLUGINS {
        let module = modules.join(format!("{}.wasm", name.replace('-', "_")));
        println!("cargo::rerun-if-changed={}", module.display());
        let component = encode(&module).unwrap_or_else(|error| stop(&module, &error));
        let file = out.join(format!("{name}.component.wasm"));
        fs::write(&file, component).unwrap_or_else(|error| stop(&file, &error.to_string()));
        writeln!(
            table,
            "    Bundled {{ name: {name:?}, bytes: include_bytes!({file:?}) }},"
        )
        .expect("a string takes everything");
    }
    table.push_str("]\n");
    let file = out.join("bundled.in");
    fs::write(&file, table).unwrap_or_else(|error| stop(&file, &error.to_string()));
}

fn encode(module: &Path) -> Result<Vec<u8>, String> {
    let bytes = fs::read(module).map_err(|error| error.to_string())?;
    wit_component::ComponentEncoder::default()
        .validate(true)
        .module(&bytes)
        .and_then(|encoder| encoder.encode())
        .map_err(|error| format!("{error:#}"))
}

fn stop(path: &Path, error: &str) -> ! {
    println!(
        "cargo::error=bundled plugin {}: {error}: run `make plugins` first, then build again",
        path.display()
    );
    process::exit(1);
}
