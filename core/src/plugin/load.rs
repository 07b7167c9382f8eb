//! Loading: one thread that reads, verifies and compiles components, so that no guest and no caller waits behind it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::{fs, io, thread};

use sha2::{Digest, Sha256};
use tokio::sync::oneshot;
use wasmtime::Engine;
use wasmtime::component::{Component, Linker};

use super::WasmBytes;
use super::contract::{self, ContractError, Linked};
use super::instance::GuestState;
use super::text::printable;

/// Entries that wait for the compiler at one time.
const QUEUE_LEN_MAX: usize = 256;
/// Components kept for the next entry that uses the same bytes.
const KEPT_MAX: usize = 32;

#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum LoadError {
    #[error("{}: {error}", .path.display())]
    File {
        path: PathBuf,
        error: Arc<io::Error>,
    },
    #[error("{}: larger than the {max} bytes allowed", .path.display())]
    TooLarge { path: PathBuf, max: u64 },
    #[error("{}: sha256 is {found}, monitor.ron says {wanted}", .path.display())]
    Sha256 {
        path: PathBuf,
        found: String,
        wanted: String,
    },
    #[error("it is not WebAssembly")]
    NotWasm,
    #[error(
        "it is a core module that does not say which world it was built for; \
         build it with wit-bindgen or an SDK against wit/plugin.wit"
    )]
    NoWorld,
    #[error(
        "it was built for WASI preview 1, which needs an adapter; \
         build it for wasm32-unknown-unknown or wasm32-wasip2"
    )]
    PreviewOne,
    #[error("no component can be made of this core module: {0}")]
    CoreModule(String),
    #[error("it cannot be compiled: {0}")]
    Compile(String),
    #[error(transparent)]
    Contract(#[from] ContractError),
    #[error("the compiler is gone")]
    Gone,
}

struct Job {
    wasm: WasmBytes,
    file_bytes_max: u64,
    reply: oneshot::Sender<Result<Linked, LoadError>>,
}

/// Hands components to the compiling thread, which ends with the last queue to it.
#[derive(Clone)]
pub(super) struct LoadQueue(SyncSender<Job>);

impl LoadQueue {
    pub(super) fn start(engine: Engine, linker: Linker<GuestState>) -> io::Result<LoadQueue> {
        let (tx, rx) = sync_channel(QUEUE_LEN_MAX);
        thread::Builder::new()
            .name("weir-compile".into())
            .spawn(move || run(&engine, &linker, &rx))?;
        Ok(LoadQueue(tx))
    }

    pub(super) async fn load(
        &self,
        wasm: WasmBytes,
        file_bytes_max: u64,
    ) -> Result<Linked, LoadError> {
        let (reply, answer) = oneshot::channel();
        let job = Job {
            wasm,
            file_bytes_max,
            reply,
        };
        self.0.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => LoadError::Compile("too many plugins are loading".into()),
            TrySendError::Disconnected(_) => LoadError::Gone,
        })?;
        answer.await.unwrap_or(Err(LoadError::Gone))
    }
}

fn run(engine: &Engine, linker: &Linker<GuestState>, jobs: &Receiver<Job>) {
    let mut kept = HashMap::new();
    while let Ok(job) = jobs.recv() {
        let result = load(engine, linker, &mut kept, &job);
        // Whoever asked may have been closed meanwhile.
        let _ = job.reply.send(result);
    }
}

fn load(
    engine: &Engine,
    linker: &Linker<GuestState>,
    kept: &mut HashMap<String, Linked>,
    job: &Job,
) -> Result<Linked, LoadError> {
    let read;
    let bytes: &[u8] = match &job.wasm {
        WasmBytes::Bundled(bytes) => bytes,
        WasmBytes::File { path, .. } => {
            read = read_file(path, job.file_bytes_max)?;
            &read
        }
    };
    let digest = hex(&Sha256::digest(bytes));
    if let WasmBytes::File {
        path,
        sha256: Some(wanted),
    } = &job.wasm
        && !wanted.eq_ignore_ascii_case(&digest)
    {
        return Err(LoadError::Sha256 {
            path: path.clone(),
            found: digest,
            wanted: wanted.clone(),
        });
    }
    if let Some(linked) = kept.get(&digest) {
        return Ok(linked.clone());
    }
    let component = Component::from_binary(engine, &componentize(bytes)?)
        .map_err(|error| LoadError::Compile(format!("{error:#}")))?;
    let file = (digest.as_str().into(), bytes.len() as u64);
    let linked = contract::link(engine, linker, &component, file)?;
    if kept.len() >= KEPT_MAX {
        kept.clear();
    }
    kept.insert(digest, linked.clone());
    Ok(linked)
}

fn read_file(path: &Path, max: u64) -> Result<Vec<u8>, LoadError> {
    let failed = |error: io::Error| LoadError::File {
        path: path.to_owned(),
        error: Arc::new(error),
    };
    let mut bytes = Vec::new();
    fs::File::open(path)
        .map_err(failed)?
        .take(max.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > max {
        return Err(LoadError::TooLarge {
            path: path.to_owned(),
            max,
        });
    }
    Ok(bytes)
}

/// What `cargo build --target wasm32-unknown-unknown` gives is a core module with the contract's types in a custom
/// section: the component is made here, so that authors need no tool for it.
fn componentize(bytes: &[u8]) -> Result<Cow<'_, [u8]>, LoadError> {
    match bytes {
        [0, b'a', b's', b'm', _, 0, 1, 0, ..] => return Ok(Cow::Borrowed(bytes)),
        [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => {}
        _ => return Err(LoadError::NotWasm),
    }
    let refused = |error: String| {
        if error.contains("wasi_snapshot_preview1") {
            LoadError::PreviewOne
        } else {
            LoadError::CoreModule(printable(&error, 1024))
        }
    };
    let (stripped, _) =
        wit_component::metadata::decode(bytes).map_err(|error| refused(format!("{error:#}")))?;
    if stripped.is_none() {
        return Err(LoadError::NoWorld);
    }
    let mut encoder = wit_component::ComponentEncoder::default();
    encoder
        .validate(true)
        .module(bytes)
        .and_then(|encoder| encoder.encode())
        .map(Cow::Owned)
        .map_err(|error| refused(format!("{error:#}")))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
