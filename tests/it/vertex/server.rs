//! The fake behind a real socket.

use super::fake::{Fake, Fault};
use actix_web::body::SizedStream;
use actix_web::http::StatusCode;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use futures::stream;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

pub(crate) struct Server {
    fake: Arc<Mutex<Fake>>,
    port: u16,
    handle: actix_web::dev::ServerHandle,
}

async fn answer(
    request: HttpRequest,
    body: web::Bytes,
    fake: web::Data<Mutex<Fake>>,
) -> HttpResponse {
    if let Some(answer) = issued(&request, &body, &mut fake.lock().unwrap()) {
        return answer;
    }
    let authorization = request.headers().get("authorization");
    let authorization = authorization.map(|value| value.to_str().unwrap());
    let url = request.uri().to_string();
    let answer = fake.lock().unwrap().answer(
        request.method().as_str(),
        &url,
        authorization,
        &body,
        super::now(),
    );
    if answer.fault == Some(Fault::Silent) {
        // The plugin asks for an answer within 14 s; a test has no time for that.
        let broken = stream::iter([Err(std::io::Error::other("gone"))]);
        return HttpResponse::Ok().body(SizedStream::new(10, broken));
    }
    let mut response = HttpResponse::build(StatusCode::from_u16(answer.status).unwrap());
    for (name, value) in answer.headers {
        response.insert_header((name, value));
    }
    if answer.fault == Some(Fault::Half) {
        let whole = answer.body.len() as u64 * 2;
        let half = stream::iter([
            Ok(web::Bytes::from(answer.body)),
            Err(std::io::Error::other("the connection broke")),
        ]);
        return response.body(SizedStream::new(whole, half));
    }
    response.body(answer.body)
}

/// What Google's other servers answer: of tokens, those that are issued here are the only good ones.
fn issued(request: &HttpRequest, body: &[u8], fake: &mut Fake) -> Option<HttpResponse> {
    let header = |name: &str| Some(request.headers().get(name)?.to_str().unwrap().to_owned());
    let json = |text: String| {
        HttpResponse::Ok()
            .content_type("application/json")
            .body(text)
    };
    let path = request.path();
    if path == "/token" {
        return Some(token(body, fake));
    }
    // The machine's own.
    if path == "/computeMetadata/v1/instance/service-accounts/default/token" {
        if header("metadata-flavor").as_deref() != Some("Google") {
            return Some(HttpResponse::Forbidden().finish());
        }
        let mut answer = json(bearer(&issue(fake)));
        let google = actix_web::http::header::HeaderValue::from_static("Google");
        let flavor = actix_web::http::header::HeaderName::from_static("metadata-flavor");
        answer.headers_mut().insert(flavor, google);
        return Some(answer);
    }
    // Another issuer's token for one that is good for nothing but the next hop.
    if path == "/sts" {
        let form = String::from_utf8_lossy(body);
        return Some(match form.contains("subject_token=subject-1") {
            true => json(bearer("federated")),
            false => HttpResponse::BadRequest().body(r#"{"error": "invalid_grant"}"#),
        });
    }
    if path.ends_with("/sa@x:generateAccessToken") {
        if header("authorization").as_deref() != Some("Bearer federated") {
            return Some(HttpResponse::Unauthorized().finish());
        }
        let expires = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1);
        let token = issue(fake);
        return Some(json(format!(
            r#"{{"accessToken": "{token}", "expireTime": "{expires}"}}"#
        )));
    }
    None
}

fn issue(fake: &mut Fake) -> String {
    let token = format!("ya29.issued-{}", fake.tokens.len());
    fake.tokens.push(token.clone());
    token
}

fn bearer(token: &str) -> String {
    format!(r#"{{"access_token": "{token}", "expires_in": 3599, "token_type": "Bearer"}}"#)
}

/// Google's token endpoint: a signed assertion for a token, each one another.
fn token(body: &[u8], fake: &mut Fake) -> HttpResponse {
    let form = String::from_utf8_lossy(body);
    let assertion = form
        .split('&')
        .find_map(|field| field.strip_prefix("assertion="));
    let is_jwt = assertion.is_some_and(|jwt| jwt.split('.').count() == 3);
    if !is_jwt || !form.contains("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer")
    {
        fake.wrongs
            .push(format!("a token request of another kind: {form}"));
        return HttpResponse::BadRequest().body(r#"{"error": "invalid_grant"}"#);
    }
    let token = issue(fake);
    HttpResponse::Ok()
        .content_type("application/json")
        .body(bearer(&token))
}

impl Server {
    pub(crate) fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let fake = Arc::new(Mutex::new(Fake::default()));
        let data = web::Data::from(fake.clone());
        let server = HttpServer::new(move || {
            App::new()
                .app_data(data.clone())
                .default_service(web::to(answer))
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
        Server { fake, port, handle }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn with<T>(&self, change: impl FnOnce(&mut Fake) -> T) -> T {
        change(&mut self.fake.lock().unwrap())
    }

    pub(crate) fn assert_nothing_wrong(&self) {
        self.with(|fake| assert_eq!(fake.wrongs, Vec::<String>::new()));
    }

    pub(crate) async fn stop(self) {
        self.handle.stop(false).await;
    }
}
