//! The world of the demo: a few ComfyUI servers, replayed from real recordings, whose jobs happen now.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::recording::{Recording, ReplayError};
use super::server::{ReplayOptions, ReplayServer};

/// One server of the demo.
struct Scene {
    name: &'static str,
    recording: &'static str,
    /// How long the server is idle before its recording begins; long enough to be seen idle first.
    delay: Duration,
    /// The recorded time that is left out: nobody wants to watch a server being down for 23 seconds.
    cut: Option<(Duration, Duration)>,
    /// What a watcher that polls at least twice a second finds at the end: completed, failed, cancelled, lost.
    expected: [u64; 4],
}

const STATUSES: [&str; 4] = ["completed", "failed", "cancelled", "lost"];

static SCENES: [Scene; 4] = [
    Scene {
        name: "studio",
        recording: include_str!("../../tests/data/recordings/v0.33.0/queue_several.jsonl"),
        delay: Duration::from_secs(3),
        cut: None,
        expected: [5, 0, 0, 2],
    },
    Scene {
        name: "farm",
        recording: include_str!("../../tests/data/recordings/v0.33.0/restart_sigkill.jsonl"),
        delay: Duration::from_secs(7),
        cut: Some((Duration::from_secs(8), Duration::from_millis(26_500))),
        expected: [2, 0, 0, 3],
    },
    Scene {
        name: "laptop",
        recording: include_str!("../../tests/data/recordings/v0.33.0/foreign_no_client_id.jsonl"),
        delay: Duration::from_secs(13),
        cut: None,
        expected: [1, 1, 1, 0],
    },
    Scene {
        name: "old-box",
        recording: include_str!("../../tests/data/recordings/v0.3.64/two_clients.jsonl"),
        delay: Duration::from_secs(17),
        cut: None,
        expected: [3, 0, 0, 0],
    },
];

/// The running servers.
#[derive(Debug)]
pub struct DemoWorld {
    /// Name and base URL of each server.
    pub servers: Vec<(String, String)>,
    /// How many executions end in which status.
    pub expected: BTreeMap<String, u64>,
    running: Vec<ReplayServer>,
    duration: Duration,
}

impl DemoWorld {
    /// Starts all servers; each stays idle for a while, then plays `speed` recorded seconds per second.
    pub async fn start(speed: f64) -> Result<DemoWorld, ReplayError> {
        let mut world = DemoWorld {
            servers: Vec::new(),
            expected: STATUSES
                .iter()
                .map(|status| ((*status).to_owned(), 0))
                .collect(),
            running: Vec::new(),
            duration: Duration::ZERO,
        };
        for scene in &SCENES {
            let recording = scene.recording()?;
            // Recorded times become times of this demo; at another speed than 1 they run apart from the clock.
            let delay = if speed > 0.0 {
                scene.delay.div_f64(speed)
            } else {
                scene.delay
            };
            let rebase = Some(now_ms() + ms(delay) - recording.wall_t0_ms());
            let recorded = if speed > 0.0 {
                recording.duration().div_f64(speed)
            } else {
                Duration::ZERO
            };
            world.duration = world.duration.max(delay + recorded);
            let options = ReplayOptions {
                speed,
                rebase,
                delay,
                ..ReplayOptions::default()
            };
            let server = ReplayServer::start(recording, options).await?;
            world.servers.push((scene.name.to_owned(), server.url()));
            world.running.push(server);
            for (status, count) in STATUSES.iter().zip(scene.expected) {
                *world.expected.entry((*status).to_owned()).or_default() += count;
            }
        }
        Ok(world)
    }

    /// From the start until the last recording is over.
    pub fn duration(&self) -> Duration {
        self.duration
    }

    /// All recordings are played; a watcher still needs one poll to see the end.
    pub fn finished(&self) -> bool {
        self.running.iter().all(ReplayServer::finished)
    }

    pub async fn stop(self) {
        for server in self.running {
            server.stop().await;
        }
    }
}

impl Scene {
    fn recording(&self) -> Result<Recording, ReplayError> {
        let recording = Recording::parse(self.recording)?;
        Ok(match self.cut {
            Some((from, until)) => recording.cut(from, until),
            None => recording,
        })
    }
}

fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// The demo has to pretend that its jobs happen now; nothing else in the replay knows what time it is.
fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, ms)
}
