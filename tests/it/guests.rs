//! Guests in Rust, Python, JavaScript and C, built from source, in the real host and against real sockets.
//!
//! `make test-guests` builds them and runs these tests, and each has to be run. Without it (`make test` on a machine without
//! those compilers) a test whose guest is not there passes, and `make test` says so in its last line.

mod example;
mod figures;
pub(crate) mod server;
mod tools;
mod unruly;

use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use uuid::Uuid;
use weir_core::plugin::{
    AllowRule, HostOptions, Limits, PluginHandle, PluginHost, PluginSpec, Role, WasmBytes,
};

const LANGUAGES: [&str; 4] = ["rust", "python", "js", "c"];

/// The file of a guest; none where it was not built and nobody insists.
fn guest(name: &str) -> Option<PathBuf> {
    there(built().join(format!("{name}.wasm")))
}

/// What `make test-guests` makes; none where it was not run.
fn there(path: PathBuf) -> Option<PathBuf> {
    if path.exists() {
        return Some(path);
    }
    assert!(
        std::env::var_os("WEIR_GUESTS").is_none(),
        "{} is not there: run `make test-guests`",
        path.display()
    );
    eprintln!("skipped: {} is not there", path.display());
    None
}

/// Where `scripts/build-guests.sh` builds to.
fn built() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/plugins/target")
}

/// Compiled guests are kept between tests: each test is a process of its own.
fn cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("guests-cache")
}

fn host() -> PluginHost {
    PluginHost::start(HostOptions {
        cache_dir: Some(cache()),
        threads: 1,
        ..HostOptions::default()
    })
    .unwrap()
}

fn spec(file: PathBuf, role: Role, config: Value) -> PluginSpec {
    PluginSpec {
        entry: "e1".into(),
        plugin: "guest".into(),
        role,
        uuid: Uuid::nil(),
        wasm: WasmBytes::File {
            path: file,
            sha256: None,
        },
        allow: AllowRule::from_config(&config),
        config,
        credentials: BTreeMap::new(),
        limits: Limits {
            backoff_base: Duration::from_millis(1),
            ..Limits::default()
        },
    }
}

/// Waits until it is ready; compiling a guest of 19 MB takes its time on a busy machine.
async fn ready(handle: &PluginHandle) {
    let mut status = handle.subscribe();
    let waiting = status.wait_for(|status| status.state.name() == "ready");
    let found = tokio::time::timeout(Duration::from_secs(300), waiting).await;
    if found.is_err() {
        panic!("not ready but {:?}", handle.status());
    }
}
