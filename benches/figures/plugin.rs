//! What the plugin host costs: per call, per instance, per start, and what a bad guest costs everybody else.

use crate::Scale;
use crate::child::{self, Usage};
use crate::table::Figure;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};
use weir::bundled;
use weir_core::plugin::{
    AllowRule, HostOptions, Limits, PluginHandle, PluginHost, PluginSpec, Role, WasmBytes, measure,
};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};

/// Create and drop cycles, as the child is told.
const CYCLES: &str = "WEIR_BENCH_CYCLES";
const JOBS: usize = 67;
const CONTRACT: &str = include_str!("../../wit/plugin.wit");

pub(crate) fn figures(scale: Scale) -> Vec<Figure> {
    let mut figures = call(scale);
    figures.extend(decode(scale));
    figures.extend(neighbours(scale));
    figures.push(leak(scale));
    figures.push(start(scale));
    figures
}

fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(future)
}

fn call(scale: Scale) -> Vec<Figure> {
    let calls = u32::try_from(scale.of(200_000, 200)).unwrap();
    let cost = block_on(measure::call_cost(&guest(""), calls)).unwrap();
    let (guarded, bare) = (cost.guarded.as_secs_f64(), cost.bare.as_secs_f64());
    vec![
        Figure::at_most(
            "host call of an empty export, of wasmtime's bare call",
            guarded / bare,
            "times",
            3.0,
        )
        .note(format!(
            "{:.2} µs against {:.2} µs",
            guarded * 1e6,
            bare * 1e6
        )),
    ]
}

fn decode(scale: Scale) -> Vec<Figure> {
    let port = comfyui();
    let host = host(None);
    let handle = host.open(bundled(
        "comfyui",
        &json!({ "url": format!("http://127.0.0.1:{port}") }),
    ));
    let polls = scale.of(500, 5);
    let (cpu, wall) = block_on(async {
        let mut cursor = None;
        // The first ones look up more, and warm everything up.
        for _ in 0..3 {
            let page = handle.poll(cursor, vec![]).await.unwrap();
            assert_eq!(page.observations.len(), JOBS);
            cursor = page.cursor;
        }
        let (cpu, began) = (handle.status().counters.cpu, Instant::now());
        for _ in 0..polls {
            let page = handle.poll(cursor, vec![]).await.unwrap();
            assert_eq!(page.observations.len(), JOBS);
            cursor = page.cursor;
        }
        let cpu = handle.status().counters.cpu.checked_sub(cpu).unwrap();
        (cpu.as_secs_f64(), began.elapsed().as_secs_f64())
    });
    let each = |seconds: f64| seconds * 1e3 / polls as f64;
    vec![
        Figure::at_most(
            format!("decoding a ComfyUI poll of {JOBS} jobs"),
            each(cpu),
            "ms",
            1.0,
        )
        .note("CPU time of the call, its requests included"),
        Figure::beside(
            "the whole poll, with a server on this machine",
            each(wall),
            "ms",
        ),
    ]
}

/// How late a timer of another thread is at most while a guest spins, or sleeps in http.
fn neighbours(scale: Scale) -> Vec<Figure> {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let time = Duration::from_millis(scale.of(3_000, 100) as u64);
    let spinning = spec("spinning", guest("(loop $spin (br $spin))"), &json!({}));
    let sleeper = bundled(
        "comfyui",
        &json!({ "url": format!("http://127.0.0.1:{port}") }),
    );
    let mut figures = Vec::new();
    let idle = lateness(time);
    for (what, mut spec) in [("spins", spinning), ("sleeps in http", sleeper)] {
        spec.limits.cpu_call = time * 4;
        spec.limits.wall_call = time * 4;
        spec.limits.wall_check = time * 4;
        let host = host(None);
        let _handle = host.open(spec);
        // It spins in `check`, which is part of getting ready.
        std::thread::sleep(Duration::from_millis(300));
        let late = lateness(time);
        figures.push(
            Figure::at_most(
                format!("a timer's delay while a plugin {what}"),
                late,
                "ms",
                20.0,
            )
            .note(format!("at most, of {idle:.1} ms without it")),
        );
    }
    figures
}

/// In milliseconds.
fn lateness(time: Duration) -> f64 {
    const EVERY: Duration = Duration::from_millis(2);
    block_on(async {
        let (began, mut most) = (Instant::now(), Duration::ZERO);
        while began.elapsed() < time {
            let asked = Instant::now();
            tokio::time::sleep(EVERY).await;
            most = most.max(asked.elapsed().saturating_sub(EVERY));
        }
        most.as_secs_f64() * 1e3
    })
}

fn leak(scale: Scale) -> Figure {
    let cycles = scale.of(10_000, 20);
    let output = child::command("instances")
        .env(CYCLES, cycles.to_string())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{told}");
    let mut measured = text.split_whitespace().map(|n| n.parse::<f64>().unwrap());
    let (early, late) = (measured.next().unwrap(), measured.next().unwrap());
    let name = format!(
        "resident after {cycles} create and drop cycles, of that after {}",
        cycles / 10
    );
    let mib = |bytes: f64| bytes / f64::from(1 << 20);
    Figure::at_most(name, late / early, "times", 1.1).note(format!(
        "{:.1} MiB, then {:.1} MiB",
        mib(early),
        mib(late)
    ))
}

/// Opens, polls and drops one plugin after the other.
pub(crate) fn child() {
    let cycles: usize = std::env::var(CYCLES).unwrap().parse().unwrap();
    let host = host(None);
    let spec = spec("cycled", guest(""), &json!({}));
    let mut early = 0.0;
    block_on(async {
        for n in 1..=cycles {
            let handle = host.open(spec.clone());
            handle.poll(None, vec![]).await.unwrap();
            handle.close().await;
            if n == cycles / 10 {
                early = Usage::of_self().resident;
            }
        }
    });
    println!("{early} {}", Usage::of_self().resident);
}

fn start(scale: Scale) -> Figure {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let run = || {
        let began = Instant::now();
        let host = host(Some(folder.path()));
        let handles: Vec<PluginHandle> = bundled::BUNDLED
            .iter()
            .map(|plugin| {
                let config = json!({ "url": format!("http://{nowhere}/topic") });
                host.open(bundled(plugin.name, &config))
            })
            .collect();
        block_on(async {
            for handle in &handles {
                // One that wants another configuration is parked; it was loaded and opened for that.
                let _ = handle.ready().await;
            }
        });
        began.elapsed().as_secs_f64()
    };
    let cold = run();
    let runs = scale.of(10, 2);
    let mut times: Vec<f64> = (0..runs).map(|_| run()).collect();
    times.sort_by(f64::total_cmp);
    let name = format!(
        "start with all {} bundled plugins from cache",
        bundled::BUNDLED.len()
    );
    Figure::at_most(name, times[times.len() / 2], "s", 0.3)
        .note(format!("{cold:.1} s without a cache"))
}

fn host(cache: Option<&Path>) -> PluginHost {
    PluginHost::start(HostOptions {
        cache_dir: cache.map(Path::to_owned),
        ..HostOptions::default()
    })
    .unwrap()
}

fn bundled(name: &str, config: &Value) -> PluginSpec {
    let bytes = bundled::find(name).unwrap().bytes;
    let mut spec = spec(name, Vec::new(), config);
    spec.wasm = WasmBytes::Bundled(bytes);
    if !matches!(name, "comfyui" | "vertex-ai") {
        spec.role = Role::Handler;
    }
    spec
}

fn spec(name: &str, component: Vec<u8>, config: &Value) -> PluginSpec {
    PluginSpec {
        entry: name.into(),
        plugin: name.into(),
        role: Role::Source,
        uuid: uuid::Uuid::nil(),
        wasm: WasmBytes::Bundled(component.leak()),
        config: config.clone(),
        allow: AllowRule::from_config(config),
        credentials: BTreeMap::new(),
        limits: Limits::default(),
    }
}

/// A source of nothing, whose `check` does `check` first.
fn guest(check: &str) -> Vec<u8> {
    let version = CONTRACT.split_once("package weir:plugin@").unwrap().1;
    let version = version.split_once(';').unwrap().0;
    // Results are written at 1024: a list of no observations, an empty text, Ok of nothing.
    let module = format!(
        "(module
          (memory (export \"memory\") 2)
          (func (export \"cabi_realloc\") (param i32 i32 i32 i32) (result i32) (i32.const 65536))
          (func (export \"weir:plugin/lifecycle@{version}#describe\") (result i32) (i32.const 1024))
          (func (export \"weir:plugin/lifecycle@{version}#open\") (param i32 i32 i32 i32 i32 i32) (result i32)
            (i32.const 1024))
          (func (export \"weir:plugin/lifecycle@{version}#check\") (result i32) {check} (i32.const 1024))
          (func (export \"weir:plugin/jobs@{version}#poll\") (param i32 i32 i32 i32 i32) (result i32)
            (i32.const 1024)))"
    );
    let mut module = wat::parse_str(module).unwrap();
    let mut resolve = wit_parser::Resolve::default();
    let package = resolve.push_str("plugin.wit", CONTRACT).unwrap();
    let world = resolve
        .select_world(&[package], Some("job-source"))
        .unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8, false).unwrap();
    let mut encoder = ComponentEncoder::default();
    encoder.module(&module).unwrap();
    encoder.encode().unwrap()
}

/// A ComfyUI with one running and 66 waiting jobs, on a port of its own.
fn comfyui() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let job = |n: usize| {
        let status = if n == 0 { "in_progress" } else { "pending" };
        json!({ "id": format!("job-{n}"), "status": status, "priority": n, "create_time": 1_760_000_000_000_u64 + n as u64 })
    };
    let prompt = |n: usize| {
        let nodes: serde_json::Map<String, Value> = (0..12)
            .map(|node| (node.to_string(), json!({ "class_type": "KSampler", "inputs": { "seed": node, "text": "a house by a river" } })))
            .collect();
        let created = json!({ "create_time": 1_760_000_000_000_u64 + n as u64 });
        json!([n, format!("job-{n}"), nodes, created, ["11"]])
    };
    let jobs = json!({
        "jobs": (0..JOBS).map(job).collect::<Vec<_>>(),
        "pagination": { "offset": 0, "limit": 200, "total": JOBS, "has_more": false },
    });
    let queue = json!({
        "queue_running": [prompt(0)],
        "queue_pending": (1..JOBS).map(prompt).collect::<Vec<_>>(),
    });
    let answers = [
        ("/api/jobs", jobs.to_string()),
        ("/queue", queue.to_string()),
        (
            "/system_stats",
            json!({ "system": { "comfyui_version": "0.33.0" } }).to_string(),
        ),
        (
            "/prompt",
            json!({ "exec_info": { "queue_remaining": JOBS } }).to_string(),
        ),
        ("/history", "{}".to_owned()),
    ];
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let answers = answers.clone();
            std::thread::spawn(move || serve(stream.unwrap(), &answers));
        }
    });
    port
}

fn serve(stream: TcpStream, answers: &[(&str, String)]) {
    let mut out = stream.try_clone().unwrap();
    let mut lines = BufReader::new(stream).lines();
    while let Some(Ok(first)) = lines.next() {
        while lines
            .next()
            .is_some_and(|line| line.is_ok_and(|line| !line.is_empty()))
        {}
        let path = first.split(' ').nth(1).unwrap_or_default();
        let found = answers.iter().find(|(known, _)| path.starts_with(known));
        let (status, body) = match found {
            Some((_, body)) => ("200 OK", body.as_str()),
            None => ("404 Not Found", ""),
        };
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        if out.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}
