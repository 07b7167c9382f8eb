//! A far side that vanishes without a word: packets to it are lost, in a network that only this test has.

use super::{configured, settled, state};
use crate::corridor::until;
use crate::live::far::Far;
use std::process::Command;
use std::time::{Duration, Instant};
use weir_core::Monitor;
use weir_core::stream::StreamState;

const INSIDE: &str = "WEIR_TEST_HAS_ITS_OWN_NETWORK";
const NAME: &str =
    "live::vanished::a_far_side_that_vanished_without_a_word_is_noticed_on_an_event_stream";

/// A command in a network of its own, in which there is only a loopback that is down. Needs no root where people may
/// have their own namespaces.
fn alone(program: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--net", "--", program]);
    command
}

fn loopback(word: &str) -> [&str; 5] {
    ["link", "set", "dev", "lo", word]
}

#[test]
fn a_far_side_that_vanished_without_a_word_is_noticed_on_an_event_stream() {
    if std::env::var_os(INSIDE).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().unwrap();
        return runtime.block_on(it_vanishes());
    }
    let probe = alone("ip").args(loopback("up")).output();
    if !probe.is_ok_and(|output| output.status.success()) {
        eprintln!("no network of its own can be made here (unshare, ip): nothing tested");
        return;
    }
    let output = alone(std::env::current_exe().unwrap().to_str().unwrap())
        .args(["--exact", NAME, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn set_loopback(word: &str) {
    let done = Command::new("ip").args(loopback(word)).status().unwrap();
    assert!(done.success());
}

/// How often the kernel asked in this network whether somebody is still there.
fn probes() -> u64 {
    let counters = std::fs::read_to_string("/proc/self/net/netstat").unwrap();
    let mut lines = counters.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let mut pairs = names.split(' ').zip(values.split(' '));
    let (_, asked) = pairs.find(|(name, _)| *name == "TCPKeepAlive").unwrap();
    asked.parse().unwrap()
}

async fn it_vanishes() {
    set_loopback("up");
    let mut far = Far::start().await;
    far.jobs("a running");
    let url = format!("http://{}/events", far.address);
    let mut config = configured(&far, &url, r#""sse": true"#);
    config.streams.silence = Duration::from_secs(1);
    let monitor = Monitor::start(config).await.unwrap();
    let held = far.events().await;
    settled(&monitor, &far).await;
    // Quiet, and alive: what is silent for long is not dead.
    until(&monitor, "answers to the kernel", |_| probes() >= 4).await;
    assert_eq!(state(&monitor), Some(StreamState::Connected));
    set_loopback("down");
    let vanished = Instant::now();
    until(&monitor, "the end of the stream", |m| {
        state(m) != Some(StreamState::Connected)
    })
    .await;
    let noticed = vanished.elapsed();
    // The kernel's own patience is of minutes.
    assert!(noticed < Duration::from_secs(10), "{noticed:?}");
    set_loopback("up");
    far.events().await;
    drop(held);
    monitor.shutdown().await;
}
