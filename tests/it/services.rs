//! A local HTTP server that plays a service: it answers what the test says and remembers what it got.

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

/// One request that the service got.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    /// Path and query as they came.
    pub(crate) target: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) text: String,
    /// Null where the body is no JSON.
    pub(crate) body: Value,
}

/// A status, headers and a body.
pub(crate) type Reply = (u16, Vec<(&'static str, String)>, String);

pub(crate) fn reply(status: u16, body: &str) -> Reply {
    (status, Vec::new(), body.to_owned())
}

/// 429, and the seconds that are to pass.
pub(crate) fn busy(seconds: u32, body: &str) -> Reply {
    (
        429,
        vec![("retry-after", seconds.to_string())],
        body.to_owned(),
    )
}

/// 200 with JSON.
pub(crate) fn ok(body: &Value) -> Reply {
    (200, Vec::new(), body.to_string())
}

type Script = dyn Fn(&Asked) -> Reply + Send + Sync;

pub(crate) struct Service {
    port: u16,
    asked: Arc<Mutex<Vec<Asked>>>,
    first: Arc<Mutex<VecDeque<Reply>>>,
    handle: actix_web::dev::ServerHandle,
}

struct Stage {
    asked: Arc<Mutex<Vec<Asked>>>,
    first: Arc<Mutex<VecDeque<Reply>>>,
    script: Box<Script>,
}

async fn play(request: HttpRequest, body: web::Bytes, stage: web::Data<Stage>) -> HttpResponse {
    let header = |(name, value): (
        &actix_web::http::header::HeaderName,
        &actix_web::http::header::HeaderValue,
    )| {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        (name.as_str().to_owned(), value)
    };
    let asked = Asked {
        method: request.method().to_string(),
        target: request.uri().to_string(),
        headers: request.headers().iter().map(header).collect(),
        text: String::from_utf8_lossy(&body).into_owned(),
        body: serde_json::from_slice(&body).unwrap_or_default(),
    };
    stage.asked.lock().unwrap().push(asked.clone());
    let first = stage.first.lock().unwrap().pop_front();
    let (status, headers, body) = first.unwrap_or_else(|| (stage.script)(&asked));
    let status = actix_web::http::StatusCode::from_u16(status).unwrap();
    let mut response = HttpResponse::build(status);
    for header in headers {
        response.insert_header(header);
    }
    response.content_type("application/json").body(body)
}

impl Service {
    pub(crate) fn start(script: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Service {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (asked, first) = (Arc::default(), Arc::default());
        let stage = web::Data::new(Stage {
            asked: Arc::clone(&asked),
            first: Arc::clone(&first),
            script: Box::new(script),
        });
        let server = HttpServer::new(move || {
            App::new()
                .app_data(stage.clone())
                .default_service(web::to(play))
        });
        let server = server
            .workers(1)
            .shutdown_timeout(1)
            .disable_signals()
            .listen(listener)
            .unwrap()
            .run();
        let handle = server.handle();
        actix_web::rt::spawn(server);
        Service {
            port,
            asked,
            first,
            handle,
        }
    }

    /// What the next request is answered, whatever the script says.
    pub(crate) fn next(&self, reply: Reply) {
        self.first.lock().unwrap().push_back(reply);
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// `POST /path`, one for each request.
    pub(crate) fn lines(&self) -> Vec<String> {
        let asked = self.asked();
        asked
            .iter()
            .map(|asked| format!("{} {}", asked.method, asked.target))
            .collect()
    }

    pub(crate) async fn stop(self) {
        self.handle.stop(false).await;
    }
}
