//! What the view shows: looks at the daemon, taken at an interval and at once when an event says so.

use crate::cli::human::one_line;
use crate::client::view::{ACTIVE, Alert, Execution, Source, Status};
use crate::client::{Client, ClientError};
use jiff::Timestamp;
use std::time::Duration;
use tokio::sync::{Notify, mpsc};

/// Executions not over yet that a look takes in.
const OPEN_MAX: usize = 300;
/// Executions that are over, shown below the active ones.
const RECENT: usize = 100;
const SOURCES_MAX: usize = 100;
const ALERTS_MAX: usize = 50;
/// Events come in bursts; looks do not follow faster than this.
const LOOK_GAP: Duration = Duration::from_millis(250);
const RECONNECT: Duration = Duration::from_secs(2);

/// The daemon as it was at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub at: Timestamp,
    pub status: Status,
    /// Active ones first, then what was over last.
    pub executions: Vec<Execution>,
    pub sources: Vec<Source>,
    pub alerts: Vec<Alert>,
}

/// What the feed brings.
#[derive(Debug)]
pub enum Look {
    Seen(Box<Snapshot>),
    /// No contact, and why.
    Blind(String),
}

#[derive(Clone, Debug)]
pub struct Feed {
    client: Client,
    interval: Duration,
    /// The one execution of interest.
    only: Option<String>,
}

impl Feed {
    pub fn new(client: Client, interval: Duration, only: Option<String>) -> Feed {
        Feed {
            client,
            interval,
            only,
        }
    }

    pub fn url(&self) -> String {
        self.client.url()
    }

    pub fn interval(&self) -> Duration {
        self.interval
    }

    pub fn only(&self) -> Option<&str> {
        self.only.as_deref()
    }

    /// One look.
    pub async fn fetch(&self) -> Result<Snapshot, ClientError> {
        if let Some(id) = &self.only {
            let execution: Execution = self
                .client
                .get(&format!("api/executions/{id}"), &[])
                .await?;
            return Ok(Snapshot {
                at: Timestamp::now(),
                executions: vec![execution],
                ..Snapshot::default()
            });
        }
        let status: Status = self.client.get("status", &[]).await?;
        let executions = self.executions().await?;
        let sources = self.client.list("api/sources", &[], SOURCES_MAX).await?;
        let firing = [("status", "firing".to_owned())];
        let alerts = self.client.list("api/alerts", &firing, ALERTS_MAX).await?;
        Ok(Snapshot {
            at: Timestamp::now(),
            status,
            executions,
            sources,
            alerts,
        })
    }

    /// What is open, running first; then what was over last.
    async fn executions(&self) -> Result<Vec<Execution>, ClientError> {
        let open = [("status", "open".to_owned())];
        let mut all: Vec<Execution> = self.client.list("api/executions", &open, OPEN_MAX).await?;
        let rank = |execution: &Execution| ACTIVE.iter().position(|name| *name == execution.status);
        all.sort_by_key(rank);
        let newest: Vec<Execution> = self.client.list("api/executions", &[], RECENT).await?;
        // Between the two looks one may have ended: it is shown once.
        for execution in newest
            .into_iter()
            .filter(|execution| !execution.is_active())
        {
            match all.iter_mut().find(|known| known.id == execution.id) {
                Some(known) => *known = execution,
                None => all.push(execution),
            }
        }
        Ok(all)
    }

    /// Sends looks until the receiver is gone.
    pub async fn pump(self, looks: mpsc::Sender<Look>) {
        let wake = Notify::new();
        let pump = async {
            loop {
                let look = match self.fetch().await {
                    Ok(snapshot) => Look::Seen(Box::new(snapshot)),
                    Err(error) => Look::Blind(error.to_string()),
                };
                if looks.send(look).await.is_err() {
                    return;
                }
                tokio::time::sleep(LOOK_GAP.min(self.interval)).await;
                let rest = self.interval.saturating_sub(LOOK_GAP);
                let _ = tokio::time::timeout(rest, wake.notified()).await;
            }
        };
        tokio::select! {
            () = pump => {}
            () = self.listen(&wake) => {}
        }
    }

    /// Wakes the pump on every event and writes it into the log pane.
    async fn listen(&self, wake: &Notify) {
        let mut last: Option<String> = None;
        loop {
            if let Ok(mut stream) = self.client.events(last.as_deref(), None, true).await {
                while let Ok(Some(message)) = stream.next().await {
                    if message.kind == "progress" {
                        wake.notify_one();
                    } else if let (Some(id), false) = (&message.id, message.is_heartbeat()) {
                        last = Some(id.clone());
                        wake.notify_one();
                        let name = &message.data["workflow"]["name"];
                        tracing::info!(
                            target: "events",
                            "{} {} {}",
                            one_line(id),
                            one_line(message.data["type"].as_str().unwrap_or(&message.kind)),
                            one_line(name.as_str().unwrap_or_default())
                        );
                    }
                }
            }
            tokio::time::sleep(RECONNECT).await;
        }
    }
}
