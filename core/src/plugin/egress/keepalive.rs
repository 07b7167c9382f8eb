//! Keepalive of connections that may be silent for long: the kernel finds out that a far side is gone without a word.

use std::io;
use std::time::Duration;

use reqwest::ClientBuilder;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// The kernel counts whole seconds, and takes no more than this.
const IDLE_MAX: Duration = Duration::from_secs(32_767);
const PROBES: u32 = 3;

/// After `idle` of silence the kernel asks every `interval`; without an answer the connection breaks at `dead_after`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeepAlive {
    idle: Duration,
    interval: Duration,
    /// Also for what was sent and is not acknowledged. On Linux it counts instead of the number of probes.
    dead_after: Duration,
}

impl KeepAlive {
    /// After this much silence it is asked, after as much again given up: as a websocket's pings do.
    pub(super) fn after(silence: Duration) -> KeepAlive {
        let second = Duration::from_secs(1);
        let idle = silence.clamp(second, IDLE_MAX);
        KeepAlive {
            idle,
            interval: (idle / PROBES).max(second),
            dead_after: idle * 2,
        }
    }

    pub(super) fn set(self, tcp: &TcpStream) -> io::Result<()> {
        let socket = SockRef::from(tcp);
        let keepalive = TcpKeepalive::new()
            .with_time(self.idle)
            .with_interval(self.interval)
            .with_retries(PROBES);
        socket.set_tcp_keepalive(&keepalive)?;
        socket.set_tcp_user_timeout(Some(self.dead_after))
    }

    pub(super) fn build(self, builder: ClientBuilder) -> ClientBuilder {
        builder
            .tcp_keepalive(self.idle)
            .tcp_keepalive_interval(self.interval)
            .tcp_keepalive_retries(PROBES)
            .tcp_user_timeout(self.dead_after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_counts_whole_seconds_and_not_too_many() {
        let seconds = |silence| {
            let keepalive = KeepAlive::after(silence);
            [keepalive.idle, keepalive.interval, keepalive.dead_after].map(|time| time.as_secs())
        };
        assert_eq!(seconds(Duration::from_secs(30)), [30, 10, 60]);
        assert_eq!(seconds(Duration::from_millis(200)), [1, 1, 2]);
        assert_eq!(seconds(Duration::MAX), [32_767, 10_922, 65_534]);
    }
}
