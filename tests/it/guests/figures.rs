//! The table of the guide for authors: what a guest costs, by language. `make guest-figures` prints it.

use super::server::Server;
use super::{guest, ready, spec};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use weir_core::plugin::{HostOptions, PluginHost, Role, WasmBytes};

/// Jobs in the list that is polled, and polls that are measured.
const JOBS: usize = 67;
const POLLS: u32 = 20;

/// A language, its source, that one's config toward an origin, and what is listed there.
type List = (&'static str, &'static str, fn(&str) -> Value, String);

fn lists() -> [List; 4] {
    let flower: Vec<Value> = (0..JOBS)
        .map(|n| json!({ "uuid": format!("job-{n}"), "state": "SUCCESS", "name": "render", "received": 1_767_225_600, "started": 1_767_225_601, "succeeded": 1_767_225_661 }))
        .collect();
    let runs: Vec<Value> = (0..JOBS)
        .map(|n| json!({ "id": n, "name": "CI", "status": "completed", "conclusion": "success", "run_attempt": 1, "created_at": "2026-01-22T19:33:08Z", "run_started_at": "2026-01-22T19:33:10Z", "updated_at": "2026-01-22T19:35:00Z" }))
        .collect();
    let slurm: Vec<Value> = (0..JOBS)
        .map(|n| json!({ "job_id": n, "job_state": ["COMPLETED"], "name": "train", "submit_time": 1_767_225_600, "start_time": 1_767_225_601, "end_time": 1_767_225_661 }))
        .collect();
    let csv: String = (0..JOBS)
        .map(|n| {
            format!(
                "job-{n},completed,render,1767225600,2026-01-01T00:00:01Z,2026-01-01T00:01:01Z\n"
            )
        })
        .collect();
    [
        (
            "Rust",
            "rust-slurm",
            |url| json!({ "url": url }),
            json!({ "jobs": slurm }).to_string(),
        ),
        (
            "Python",
            "python-json-jobs",
            |url| json!({ "url": url }),
            json!(flower).to_string(),
        ),
        (
            "JavaScript (QuickJS)",
            "js-github-actions",
            |url| json!({ "url": url, "repository": "o/r" }),
            json!({ "total_count": JOBS, "workflow_runs": runs }).to_string(),
        ),
        (
            "C",
            "c-csv",
            |url| json!({ "url": url }),
            format!("id,state,name,created,started,finished\n{csv}"),
        ),
    ]
}

fn host(cache: &TempDir) -> PluginHost {
    PluginHost::start(HostOptions {
        cache_dir: Some(cache.path().to_owned()),
        threads: 1,
        ..HostOptions::default()
    })
    .unwrap()
}

/// How long it takes to have it compiled, anew or from the cache.
async fn loading(cache: &TempDir, wasm: &WasmBytes) -> Duration {
    let host = host(cache);
    let began = Instant::now();
    host.examine(wasm.clone(), 64 << 20).await.unwrap();
    began.elapsed()
}

#[tokio::test]
async fn figures_of_the_four_languages() {
    println!(
        "| language | .wasm | compile | from the cache | instantiate, open, check | poll of {JOBS} jobs | CPU of it | memory |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for (language, name, config, list) in lists() {
        let Some(file) = guest(name) else {
            continue;
        };
        let size = std::fs::metadata(&file).unwrap().len();
        let cache = TempDir::new().unwrap();
        let server = Server::start(move |_| (200, list.clone()));
        let spec = spec(file, Role::Source, config(&server.origin));
        let compile = loading(&cache, &spec.wasm).await;
        let cached = loading(&cache, &spec.wasm).await;
        let host = host(&cache);
        host.examine(spec.wasm.clone(), 64 << 20).await.unwrap();
        let began = Instant::now();
        let handle = host.open(spec);
        ready(&handle).await;
        let opened = began.elapsed();
        let before = handle.status().counters.cpu;
        let began = Instant::now();
        for _ in 0..POLLS {
            let page = handle.poll(None, vec![]).await.unwrap();
            assert_eq!(page.observations.len(), JOBS, "{name}");
        }
        let poll = began.elapsed() / POLLS;
        let counters = handle.status().counters;
        println!(
            "| {language} | {:.0} KiB | {compile:.2?} | {cached:.1?} | {opened:.1?} | {poll:.1?} | {:.1?} | {:.1} MiB |",
            size as f64 / 1024.0,
            (counters.cpu - before) / POLLS,
            counters.memory_high_water as f64 / 1048576.0
        );
    }
}
