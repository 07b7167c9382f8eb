//! The dead man's switch: pings a far side while weir works, so that silence raises the alarm there.

use crate::clock::Clock;
use crate::journal::{JournalHandle, JournalState};
use crate::supervise::Stopping;
use std::time::Duration;
use url::Url;

const TIMEOUT: Duration = Duration::from_secs(15);

/// Pings until `stopping`. A ping is left out while the journal is closed: that is the alarm.
pub(crate) async fn run(
    url: Url,
    interval: Duration,
    journal: JournalHandle,
    clock: Clock,
    stopping: Stopping,
) {
    crate::tls::install_crypto();
    let client = reqwest::Client::builder()
        .timeout(TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("weir/", env!("CARGO_PKG_VERSION")))
        .build();
    let client = match client {
        Ok(client) => client,
        Err(error) => {
            tracing::error!(%error, "the dead man's switch cannot ping");
            return;
        }
    };
    while !stopping.begun() {
        if journal.state() == JournalState::Open {
            let sent = client
                .get(url.clone())
                .send()
                .await
                .and_then(reqwest::Response::error_for_status);
            if let Err(error) = sent {
                // Its URL is a capability: the error is shown without it.
                tracing::warn!(error = %error.without_url(), "the dead man's switch was not reached");
            }
        }
        clock.sleep(interval).await;
    }
}
