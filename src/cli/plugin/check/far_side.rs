//! The far side of a check: a real HTTP server on a loopback port that answers as well, or as badly, as it is told.

use crate::cli::exit::CliError;
use actix_web::dev::ServerHandle;
use actix_web::{App, HttpResponse, HttpServer, web};
use std::net::TcpListener;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinHandle;

/// Where it gives out access tokens, whatever its mood.
pub(super) const TOKEN_PATH: &str = "/weir-check/token";

/// How it answers every request.
#[derive(Clone, Debug)]
pub(super) struct Mood {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    pub(super) headers: Vec<(&'static str, &'static str)>,
    pub(super) body: String,
    pub(super) delay: Duration,
}

impl Mood {
    pub(super) fn json(status: u16, body: impl Into<String>) -> Mood {
        Mood {
            status,
            content_type: "application/json",
            headers: Vec::new(),
            body: body.into(),
            delay: Duration::ZERO,
        }
    }
}

#[derive(Debug)]
struct State {
    mood: Mood,
    requests: u64,
}

type Shared = Arc<Mutex<State>>;

#[derive(Debug)]
pub(super) struct FarSide {
    origin: String,
    state: Shared,
    handle: ServerHandle,
    task: JoinHandle<std::io::Result<()>>,
}

impl FarSide {
    pub(super) fn start(mood: Mood) -> Result<FarSide, CliError> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let origin = format!("http://{}", listener.local_addr()?);
        let state = Arc::new(Mutex::new(State { mood, requests: 0 }));
        let shared = web::Data::new(Arc::clone(&state));
        let server = HttpServer::new(move || {
            App::new()
                .app_data(shared.clone())
                .app_data(web::PayloadConfig::new(32 << 20))
                .route(TOKEN_PATH, web::post().to(token))
                .default_service(web::to(answer))
        })
        .workers(1)
        .shutdown_timeout(0)
        .disable_signals()
        .listen(listener)?
        .run();
        Ok(FarSide {
            origin,
            state,
            handle: server.handle(),
            task: tokio::spawn(server),
        })
    }

    /// `http://127.0.0.1:PORT`.
    pub(super) fn origin(&self) -> &str {
        &self.origin
    }

    /// Answers so from now on, and counts from 0.
    pub(super) fn set(&self, mood: Mood) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = State { mood, requests: 0 };
    }

    /// Requests since `set`.
    pub(super) fn requests(&self) -> u64 {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.requests
    }

    pub(super) async fn stop(self) {
        self.handle.stop(false).await;
        let _ = self.task.await;
    }
}

/// An origin where nobody listens.
pub(super) fn nobody() -> Result<String, CliError> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    Ok(format!("http://{}", listener.local_addr()?))
}

/// As an OAuth 2.0 token endpoint.
async fn token() -> HttpResponse {
    HttpResponse::Ok().json(serde_json::json!({
        "access_token": "a-token-of-the-check", "token_type": "Bearer", "expires_in": 3600,
    }))
}

async fn answer(state: web::Data<Shared>, _body: web::Bytes) -> HttpResponse {
    let mood = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.requests += 1;
        state.mood.clone()
    };
    tokio::time::sleep(mood.delay).await;
    let status = actix_web::http::StatusCode::from_u16(mood.status)
        .unwrap_or(actix_web::http::StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = HttpResponse::build(status);
    for header in mood.headers {
        response.insert_header(header);
    }
    if mood.body.is_empty() {
        return response.finish();
    }
    response.content_type(mood.content_type).body(mood.body)
}
