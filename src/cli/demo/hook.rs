//! The demo's receiver: a real HTTP server that takes Alertmanager's webhook.

use crate::cli::exit::CliError;
use crate::cli::human::one_line;
use crate::tui::{Arrived, ArrivedList};
use actix_web::dev::ServerHandle;
use actix_web::{App, HttpResponse, HttpServer, web};
use jiff::Timestamp;
use serde_json::Value;
use std::net::TcpListener;
use std::sync::PoisonError;
use tokio::task::JoinHandle;

/// More alerts than this are counted by nobody.
const ARRIVED_MAX: usize = 1000;
const BODY_LEN_MAX: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct Hook {
    url: String,
    list: ArrivedList,
    handle: ServerHandle,
    task: JoinHandle<std::io::Result<()>>,
}

impl Hook {
    pub(super) fn start() -> Result<Hook, CliError> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let url = format!("http://{}/alerts", listener.local_addr()?);
        let list = ArrivedList::default();
        let shared = web::Data::new(list.clone());
        let server = HttpServer::new(move || {
            App::new()
                .app_data(shared.clone())
                .app_data(web::PayloadConfig::new(BODY_LEN_MAX))
                .route("/alerts", web::post().to(take))
        })
        .workers(1)
        .disable_signals()
        .listen(listener)?
        .run();
        Ok(Hook {
            url,
            list,
            handle: server.handle(),
            task: tokio::spawn(server),
        })
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn list(&self) -> ArrivedList {
        self.list.clone()
    }

    pub(super) fn arrived(&self) -> Vec<Arrived> {
        self.list
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) async fn stop(self) {
        self.handle.stop(false).await;
        let _ = self.task.await;
    }
}

async fn take(list: web::Data<ArrivedList>, body: web::Bytes) -> HttpResponse {
    let Ok(payload) = serde_json::from_slice::<Value>(&body) else {
        return HttpResponse::BadRequest().finish();
    };
    let mut list = list.lock().unwrap_or_else(PoisonError::into_inner);
    for alert in payload["alerts"].as_array().into_iter().flatten() {
        if list.len() < ARRIVED_MAX {
            list.push(arrived(alert));
        }
    }
    HttpResponse::Ok().finish()
}

fn arrived(alert: &Value) -> Arrived {
    let text = |value: &Value| one_line(value.as_str().unwrap_or_default());
    Arrived {
        at: Timestamp::now(),
        status: text(&alert["status"]),
        severity: text(&alert["labels"]["severity"]),
        rule: text(&alert["labels"]["rule"]),
        title: text(&alert["annotations"]["summary"]),
        body: text(&alert["annotations"]["description"]),
    }
}
