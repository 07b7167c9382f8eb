//! The daemon itself, the real binary with one ComfyUI source: how fast it starts, and what it takes while idle.

use crate::child::Watched;
use crate::table::Figure;
use crate::{Scale, store};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use weir::replay::{Recording, ReplayOptions, ReplayServer};

const RECORDING: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/data/recordings/v0.33.0/idle_and_endpoints.jsonl"
);
/// A daemon that is not ready by then never will be.
const PATIENCE: Duration = Duration::from_secs(120);
const MIB: f64 = 1024.0 * 1024.0;
/// Starts of which the middle one counts.
const STARTS: usize = 5;

pub(crate) fn figures(scale: Scale) -> Vec<Figure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let recording = Recording::load(RECORDING).unwrap();
    // At its beginning, for ever: nothing runs.
    let options = ReplayOptions {
        manual: true,
        ..ReplayOptions::default()
    };
    let comfyui = runtime
        .block_on(ReplayServer::start(recording, options))
        .unwrap();
    let place = Place::new(&comfyui.url());
    let data = store::temporary();
    // The first start compiles the plugins, and asks ComfyUI once they are there: the others find them in the cache.
    let first = place.start(&data.path().join("first"));
    while comfyui.requests_by_path().is_empty() {
        assert!(first.begun.elapsed() < PATIENCE, "ComfyUI was never asked");
        std::thread::sleep(Duration::from_millis(20));
    }
    let compiled = first.begun.elapsed();
    first.process.terminate();
    let mut figures = vec![
        start_empty(&place, data.path(), compiled),
        start_large(&place, scale),
    ];
    figures.extend(idle(&place, &data.path().join("idle"), scale));
    runtime.block_on(comfyui.stop());
    figures
}

fn start_empty(place: &Place, data: &Path, compiled: Duration) -> Figure {
    let empty = |n: usize| data.join(format!("empty {n}"));
    let (ready, worst) = place.middle_start(empty, |_| {});
    let note = format!(
        "worst of {STARTS}: {worst:.2} s; {:.2} s to the first poll where plugins are compiled first",
        compiled.as_secs_f64()
    );
    Figure::at_most("start, an empty store", ready, "s", 0.5).note(note)
}

fn start_large(place: &Place, scale: Scale) -> Figure {
    let executions = scale.of(100_000, 1_000);
    let large = store::large(executions);
    // The first one counts what the bench stored past the metrics, as the daemon would have done meanwhile.
    let caught_up = place.start(&large);
    std::thread::sleep(Duration::from_secs(if scale.is_full() { 30 } else { 1 }));
    caught_up.process.terminate();
    let (ready, worst) = place.middle_start(|_| large.clone(), store::forget_cached);
    let size = std::fs::metadata(large.join("weir.db")).unwrap().len() as f64 / MIB;
    let name = format!("start, {executions} executions, {} events", executions * 10);
    let note =
        format!("worst of {STARTS}: {worst:.2} s; {size:.0} MiB, not in memory at the start");
    Figure::at_most(name, ready, "s", 2.0).note(note)
}

fn idle(place: &Place, data: &Path, scale: Scale) -> Vec<Figure> {
    let daemon = place.start(data);
    std::thread::sleep(Duration::from_secs(if scale.is_full() { 6 } else { 1 }));
    let watched = Duration::from_secs(scale.of(30, 2) as u64);
    let (before, begun) = (daemon.process.usage(), Instant::now());
    std::thread::sleep(watched);
    let (after, took) = (daemon.process.usage(), begun.elapsed());
    let percent = 100.0 * (after.cpu - before.cpu).as_secs_f64() / took.as_secs_f64();
    daemon.process.terminate();
    let program = (after.resident - after.anonymous) / MIB;
    let took = took.as_secs_f64();
    vec![
        Figure::at_most("idle daemon, resident", after.resident / MIB, "MiB", 60.0)
            .note(format!("{program:.1} MiB of it pages of the program")),
        Figure::at_most(
            "idle daemon, polling every 2 s",
            percent,
            "% of a core",
            1.0,
        )
        .note(format!(
            "over {took:.0} s, with its resources measured every 10 s"
        )),
    ]
}

/// Where daemons run: a configuration, a cache and a port of their own.
struct Place {
    dir: tempfile::TempDir,
    address: SocketAddr,
}

struct Daemon {
    process: Watched,
    begun: Instant,
    /// From its start to the first `/readyz` that said so.
    ready: Duration,
}

impl Place {
    fn new(comfyui: &str) -> Place {
        let dir = store::temporary();
        // Free a moment ago; nobody else is told this number.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .unwrap()
            .local_addr()
            .unwrap();
        let text = format!(
            r#"(
    http: (listen: "{address}"),
    sources: [(name: "studio", plugin: "comfyui", poll_interval: "2s", config: {{ "url": "{comfyui}" }})],
)
"#
        );
        std::fs::write(dir.path().join("monitor.ron"), text).unwrap();
        Place { dir, address }
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    fn start(&self, data: &Path) -> Daemon {
        let home = self.dir.path();
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
        command
            .arg("run")
            .arg("--config")
            .arg(home.join("monitor.ron"))
            .arg("--data-dir")
            .arg(data);
        command
            .env("HOME", home)
            .env("XDG_CACHE_HOME", home.join("cache"));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(self.log()).unwrap());
        let begun = Instant::now();
        let mut process = Watched(command.spawn().unwrap());
        while !self.is_ready() {
            let ended = process.0.try_wait().unwrap();
            if ended.is_some() || begun.elapsed() > PATIENCE {
                let log = std::fs::read_to_string(self.log()).unwrap_or_default();
                panic!("the daemon is not ready ({ended:?}):\n{log}");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Daemon {
            process,
            ready: begun.elapsed(),
            begun,
        }
    }

    fn is_ready(&self) -> bool {
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(self.address)?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            write!(
                stream,
                "GET /readyz HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
                self.address
            )?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
    }

    /// Starts and stops a few times; returns the middle time and the longest, in seconds.
    fn middle_start(&self, data: impl Fn(usize) -> PathBuf, before: impl Fn(&Path)) -> (f64, f64) {
        let mut times = Vec::new();
        for n in 0..STARTS {
            let data = data(n);
            if data.exists() {
                before(&data);
            }
            let daemon = self.start(&data);
            times.push(daemon.ready.as_secs_f64());
            daemon.process.terminate();
        }
        times.sort_by(f64::total_cmp);
        (times[STARTS / 2], times[STARTS - 1])
    }
}
