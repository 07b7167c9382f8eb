//! Google's credentials against a token server on real sockets, which believes nothing that is not signed.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicUsize;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use weir_model::config;

use super::*;

const KEY: &str = include_str!("../../../../../tests/data/google/key.pem");
const PUBLIC_KEY: &[u8] = include_bytes!("../../../../../tests/data/google/public.pem");
const EMAIL: &str = "robot@demo-project.iam.gserviceaccount.com";
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";

/// A request as a far side sees it.
#[derive(Clone, Debug)]
struct Asked {
    method: String,
    path: String,
    headers: BTreeMap<String, String>,
    body: String,
}

impl Asked {
    fn parse(text: &str) -> Asked {
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let mut lines = head.lines();
        let mut first = lines.next().unwrap().split(' ').map(str::to_owned);
        let headers = lines.map(|line| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_ascii_lowercase(), value.to_owned())
        });
        Asked {
            method: first.next().unwrap(),
            path: first.next().unwrap(),
            headers: headers.collect(),
            body: body.to_owned(),
        }
    }

    fn form(&self) -> BTreeMap<String, String> {
        url::form_urlencoded::parse(self.body.as_bytes())
            .into_owned()
            .collect()
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    fn bearer(&self) -> &str {
        self.headers["authorization"]
            .strip_prefix("Bearer ")
            .unwrap()
    }
}

/// A far side that answers with what `handle` makes of a request: a status, extra headers, a body.
struct FarSide {
    url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl FarSide {
    fn start(
        handle: impl Fn(&Asked) -> (u16, &'static str, String) + Send + Sync + 'static,
    ) -> FarSide {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (seen, handle) = (Arc::clone(&asked), Arc::new(handle));
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let (seen, handle) = (Arc::clone(&seen), Arc::clone(&handle));
                std::thread::spawn(move || {
                    let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
                    while !is_whole(&request) {
                        match stream.read(&mut buffer) {
                            Ok(n) if n > 0 => request.extend_from_slice(&buffer[..n]),
                            _ => return,
                        }
                    }
                    let request = Asked::parse(&String::from_utf8(request).unwrap());
                    seen.lock().unwrap().push(request.clone());
                    let (status, headers, body) = handle(&request);
                    let length = body.len();
                    let answer = format!(
                        "HTTP/1.1 {status} X\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n{body}"
                    );
                    let _ = stream.write_all(answer.as_bytes());
                });
            }
        });
        FarSide { url, asked }
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

/// Claims of a token whose signature, header, issuer and times are right.
fn verified(token: &str, audience: Option<&str>) -> Value {
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let (header, claims) = signed.split_once('.').unwrap();
    let info = SubjectPublicKeyInfoDer::from_pem_slice(PUBLIC_KEY).unwrap();
    // What ring takes is the key within: the last 270 bytes for 2048 bits and the exponent 65537.
    let key = &info[info.len() - 270..];
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key)
        .verify(signed.as_bytes(), &signature)
        .expect("the signature is the service account's");
    let json = |part: &str| -> Value {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    };
    assert_eq!(
        json(header),
        json!({ "typ": "JWT", "alg": "RS256", "kid": "kid-1" })
    );
    let claims = json(claims);
    assert_eq!(claims["iss"], EMAIL);
    assert_eq!(claims["aud"].as_str(), audience);
    let seconds = |name: &str| claims[name].as_i64().unwrap();
    assert_eq!(seconds("exp") - seconds("iat"), 3600);
    let age = jiff::Timestamp::now().as_second() - seconds("iat");
    assert!((0..60).contains(&age), "{claims}");
    claims
}

/// Gives `ya29.0`, `ya29.1`, … to whoever proves to be the service account.
fn token_server(lifetime: u64) -> FarSide {
    let given = AtomicUsize::new(0);
    FarSide::start(move |asked| {
        let form = asked.form();
        assert_eq!(
            form["grant_type"],
            "urn:ietf:params:oauth:grant-type:jwt-bearer"
        );
        let claims = verified(
            &form["assertion"],
            Some("https://oauth2.googleapis.com/token"),
        );
        assert_eq!(
            (&claims["iss"], &claims["scope"]),
            (&json!(EMAIL), &json!(SCOPE))
        );
        let n = given.fetch_add(1, Ordering::Relaxed);
        (200, "", token(&format!("ya29.{n}-token"), lifetime))
    })
}

fn token(text: &str, lifetime: u64) -> String {
    json!({ "access_token": text, "expires_in": lifetime, "token_type": "Bearer" }).to_string()
}

/// Answers 200 to whatever `accept` accepts, else 401.
fn api(accept: impl Fn(&Asked) -> bool + Send + Sync + 'static) -> FarSide {
    FarSide::start(move |asked| match accept(asked) {
        true => (200, "", "fine".into()),
        false => (401, "", format!("not {}", asked.headers["authorization"])),
    })
}

fn service_account(token_uri: &str) -> Value {
    json!({
        "type": "service_account", "project_id": "demo-project", "client_email": EMAIL,
        "private_key": KEY, "private_key_id": "kid-1", "token_uri": token_uri,
    })
}

fn options() -> config::Google {
    config::Google {
        scopes: vec![SCOPE.into()],
        self_signed: false,
        quota_project: None,
        endpoints: config::GoogleEndpoints::default(),
    }
}

fn google(account: &Value, options: config::Google, origin: &str) -> Result<Credential, String> {
    let scheme = Scheme::Google {
        account: (!account.is_null()).then(|| Secret::new(account.to_string())),
        options: Box::new(options),
    };
    let origins = vec![AllowRule::parse(origin).unwrap()];
    Credential::new(scheme, origins).map_err(|error| error.to_string())
}

/// May reach the API and nothing else; the token endpoint is the credential's.
fn egress_for(api: &FarSide, account: &Value, options: config::Google) -> Egress {
    let mut egress = egress(&[&api.url]);
    let mut credential = google(account, options, &api.url).unwrap();
    credential.retry_after(Duration::from_millis(5));
    egress.grant.credentials.insert("gcp".into(), credential);
    egress.grant.redactor = Redactor::of(&egress.grant.credentials);
    egress
}

fn signed(url: &str) -> HttpRequest {
    HttpRequest {
        credential: Some("gcp".into()),
        ..get(url)
    }
}

async fn status(egress: &Egress, api: &FarSide) -> u16 {
    egress.send(signed(&api.url), &mut 0).await.unwrap().status
}

#[tokio::test]
async fn a_service_account_asks_for_a_token_once_and_uses_it() {
    let tokens = token_server(3600);
    let api = api(|asked| asked.bearer() == "ya29.0-token");
    let egress = egress_for(&api, &service_account(&tokens.url), options());
    for _ in 0..3 {
        assert_eq!(status(&egress, &api).await, 200);
    }
    assert_eq!(tokens.asked().len(), 1);
    assert_eq!(egress.requests(), 3);
    // The token endpoint is not the guest's to reach.
    let failure = egress.send(get(&tokens.url), &mut 0).await.unwrap_err();
    assert!(
        failure.message.contains("is not in `allow`"),
        "{}",
        failure.message
    );
    let own = HttpRequest {
        headers: vec![("authorization".into(), "x".into())],
        ..signed(&api.url)
    };
    assert!(egress.send(own, &mut 0).await.is_err());
}

#[tokio::test]
async fn a_service_account_may_sign_its_own_tokens() {
    let api = api(|asked| {
        let claims = verified(asked.bearer(), None);
        (&claims["sub"], &claims["scope"]) == (&json!(EMAIL), &json!(SCOPE))
    });
    let options = config::Google {
        self_signed: true,
        ..options()
    };
    let egress = egress_for(&api, &service_account("https://nowhere.invalid/"), options);
    assert_eq!(status(&egress, &api).await, 200);
    assert_eq!(status(&egress, &api).await, 200);
    let asked = api.asked();
    assert_eq!(asked[0].bearer(), asked[1].bearer());
}

#[tokio::test]
async fn an_authorized_user_is_charged_to_its_project() {
    let tokens = FarSide::start(|asked| {
        let form = asked.form();
        let grant = form["grant_type"] == "refresh_token" && form["refresh_token"] == "1//refresh";
        let client = form["client_id"] == "id" && form["client_secret"] == "GOCSPX-secret";
        assert!(grant && client && asked.method == "POST", "{asked:?}");
        (200, "", token("ya29.user", 3599))
    });
    let api = api(|asked| {
        asked.bearer() == "ya29.user" && asked.headers["x-goog-user-project"] == "paying"
    });
    let account = json!({
        "type": "authorized_user", "client_id": "id", "client_secret": "GOCSPX-secret",
        "refresh_token": "1//refresh", "quota_project_id": "paying",
    });
    let mut options = options();
    options.endpoints.token = Some(tokens.url.parse().unwrap());
    let egress = egress_for(&api, &account, options);
    assert_eq!(status(&egress, &api).await, 200);
    let debug = format!("{:?}", egress.grant.credentials);
    assert!(
        !debug.contains("GOCSPX") && !debug.contains("refresh"),
        "{debug}"
    );
}

/// An STS that takes `subject-1`, and the second hop that takes what it gave.
fn exchanges() -> (FarSide, FarSide) {
    let sts = FarSide::start(|asked| {
        let form = asked.form();
        assert_eq!(
            form["grant_type"],
            "urn:ietf:params:oauth:grant-type:token-exchange"
        );
        assert_eq!(
            form["requested_token_type"],
            "urn:ietf:params:oauth:token-type:access_token"
        );
        assert_eq!(
            (form["subject_token"].as_str(), form["audience"].as_str()),
            ("subject-1", "//iam/pool")
        );
        assert_eq!(
            form["subject_token_type"],
            "urn:ietf:params:oauth:token-type:jwt"
        );
        assert_eq!(form["scope"], SCOPE);
        (200, "", token("federated", 3600))
    });
    let iam = FarSide::start(|asked| {
        assert_eq!(
            asked.path,
            "/v1/projects/-/serviceAccounts/sa@x:generateAccessToken"
        );
        assert!(["federated", "ya29.user"].contains(&asked.bearer()));
        let body = asked.json();
        assert_eq!(
            (&body["scope"], &body["lifetime"]),
            (&json!([SCOPE]), &json!("3600s"))
        );
        let expires = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1);
        (
            200,
            "",
            json!({ "accessToken": "ya29.impersonated", "expireTime": expires.to_string() })
                .to_string(),
        )
    });
    (sts, iam)
}

fn external(source: &Value, hop: bool) -> Value {
    let url = "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/sa@x:generateAccessToken";
    json!({
        "type": "external_account", "audience": "//iam/pool",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": "https://sts.googleapis.com/v1/token", "credential_source": source,
        "service_account_impersonation_url": hop.then_some(url),
    })
}

#[tokio::test]
async fn an_external_account_exchanges_its_token_and_then_impersonates() {
    let (sts, iam) = exchanges();
    let folder = tempfile::tempdir().unwrap();
    let (text, json_file) = (
        folder.path().join("token"),
        folder.path().join("token.json"),
    );
    std::fs::write(&text, "subject-1\n").unwrap();
    std::fs::write(&json_file, r#"{"id_token": "subject-1"}"#).unwrap();
    let issuer = FarSide::start(|asked| {
        assert_eq!(asked.headers["metadata"], "True");
        (200, "", r#"{"access_token": "subject-1"}"#.into())
    });
    let format = |field: &str| json!({ "type": "json", "subject_token_field_name": field });
    let sources = [
        json!({ "file": text }),
        json!({ "file": json_file, "format": format("id_token") }),
        json!({ "url": issuer.url, "headers": {"Metadata": "True"}, "format": format("access_token") }),
    ];
    for source in sources {
        for (hop, expected) in [(false, "federated"), (true, "ya29.impersonated")] {
            let api = api(move |asked| asked.bearer() == expected);
            let mut options = options();
            options.endpoints.sts = Some(sts.url.parse().unwrap());
            options.endpoints.iamcredentials = Some(iam.url.parse().unwrap());
            let egress = egress_for(&api, &external(&source, hop), options);
            assert_eq!(status(&egress, &api).await, 200, "{source} {hop}");
        }
    }
}

#[tokio::test]
async fn an_account_is_impersonated_from_a_users_own() {
    let (_sts, iam) = exchanges();
    let tokens = FarSide::start(|_| (200, "", token("ya29.user", 3599)));
    let api = api(|asked| asked.bearer() == "ya29.impersonated");
    let account = json!({
        "type": "impersonated_service_account",
        "service_account_impersonation_url":
            "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/sa@x:generateAccessToken",
        "source_credentials": {
            "type": "authorized_user", "client_id": "id", "client_secret": "s", "refresh_token": "r",
        },
    });
    let mut options = options();
    options.endpoints.token = Some(tokens.url.parse().unwrap());
    options.endpoints.iamcredentials = Some(iam.url.parse().unwrap());
    let egress = egress_for(&api, &account, options);
    assert_eq!(status(&egress, &api).await, 200);
}

#[tokio::test]
async fn the_metadata_server_gives_tokens_and_an_impostor_does_not() {
    let metadata = |flavor: &'static str| {
        FarSide::start(move |asked| {
            assert_eq!(asked.headers["metadata-flavor"], "Google");
            let path = "/computeMetadata/v1/instance/service-accounts/default/token?scopes=";
            assert!(asked.path.starts_with(path), "{}", asked.path);
            (200, flavor, token("ya29.machine", 3000))
        })
    };
    let api = api(|asked| asked.bearer() == "ya29.machine");
    let at = |server: &FarSide| {
        let mut options = options();
        options.endpoints.metadata = Some(server.url.parse().unwrap());
        egress_for(&api, &Value::Null, options)
    };
    let real = metadata("Metadata-Flavor: Google\r\n");
    assert_eq!(status(&at(&real), &api).await, 200);
    let impostor = metadata("");
    let failure = at(&impostor)
        .send(signed(&api.url), &mut 0)
        .await
        .unwrap_err();
    assert_eq!(failure.kind, Some(FailureKind::Misconfigured));
    assert!(
        failure.message.contains("metadata server"),
        "{}",
        failure.message
    );
    assert_eq!(api.asked().len(), 1);
}

#[tokio::test]
async fn many_who_need_a_token_wait_for_one() {
    let tokens = FarSide::start(|_| {
        std::thread::sleep(Duration::from_millis(200));
        (200, "", token("ya29.shared", 3600))
    });
    let api = api(|asked| asked.bearer() == "ya29.shared");
    let egress = egress_for(&api, &service_account(&tokens.url), options());
    let all = futures::future::join_all((0..20).map(|_| status(&egress, &api))).await;
    assert_eq!(all, [200; 20]);
    assert_eq!(tokens.asked().len(), 1);
}

#[tokio::test]
async fn a_token_is_renewed_before_it_expires() {
    let tokens = token_server(1);
    let api = api(|_| true);
    let egress = egress_for(&api, &service_account(&tokens.url), options());
    assert_eq!(status(&egress, &api).await, 200);
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(status(&egress, &api).await, 200);
    let used: Vec<String> = api
        .asked()
        .iter()
        .map(|asked| asked.bearer().to_owned())
        .collect();
    assert_eq!(used, ["ya29.0-token", "ya29.1-token"]);
}

#[tokio::test]
async fn a_401_is_answered_with_one_new_token_and_one_repeat() {
    let tokens = token_server(3600);
    let account = service_account(&tokens.url);
    let second = api(|asked| asked.bearer() == "ya29.1-token");
    let egress = egress_for(&second, &account, options());
    let posted = HttpRequest {
        method: "POST".into(),
        body: Some(b"once".to_vec()),
        ..signed(&second.url)
    };
    assert_eq!(egress.send(posted, &mut 0).await.unwrap().status, 200);
    let asked = second.asked();
    assert_eq!(asked.len(), 2);
    assert!(asked.iter().all(|asked| asked.body == "once"));
    assert_eq!(status(&egress, &second).await, 200);
    assert_eq!((second.asked().len(), tokens.asked().len()), (3, 2));
    let never = api(|_| false);
    let egress = egress_for(&never, &account, options());
    let response = egress.send(signed(&never.url), &mut 0).await.unwrap();
    assert_eq!(response.status, 401);
    assert_eq!((never.asked().len(), tokens.asked().len()), (2, 4));
    // What the far side repeats of a token is not told on.
    let failure = egress.fetch(signed(&never.url), &mut 0).await.unwrap_err();
    assert_eq!(failure.message, "status 401: not Bearer [secret gcp]");
}

#[tokio::test]
async fn a_token_endpoint_is_asked_again_only_where_that_helps() {
    let answers = |answers: Vec<(u16, String)>| {
        let asked = AtomicUsize::new(0);
        FarSide::start(move |_| {
            let n = asked.fetch_add(1, Ordering::Relaxed).min(answers.len() - 1);
            (answers[n].0, "", answers[n].1.clone())
        })
    };
    let api = api(|_| true);
    let busy = || (503, "busy".to_owned());
    let good = || (200, token("ya29.late", 3600));
    let invalid = || {
        let body =
            json!({ "error": "invalid_grant", "error_description": "Invalid JWT Signature." });
        (400, body.to_string())
    };
    let flaky = answers(vec![busy(), (429, String::new()), good()]);
    let egress = egress_for(&api, &service_account(&flaky.url), options());
    assert_eq!(status(&egress, &api).await, 200);
    for (given, attempts, kind, said) in [
        (vec![busy()], 3, FailureKind::Transient, "answered 503"),
        (
            vec![invalid(), good()],
            1,
            FailureKind::Misconfigured,
            "answered 400 invalid_grant: Invalid JWT Signature.",
        ),
        (
            vec![(200, "<html>".into())],
            1,
            FailureKind::Transient,
            "not as expected",
        ),
    ] {
        let tokens = answers(given);
        let egress = egress_for(&api, &service_account(&tokens.url), options());
        let failure = egress.send(signed(&api.url), &mut 0).await.unwrap_err();
        assert_eq!(failure.kind, Some(kind));
        assert!(failure.message.contains(said), "{}", failure.message);
        assert!(
            failure.message.contains("credential `gcp`"),
            "{}",
            failure.message
        );
        assert_eq!(tokens.asked().len(), attempts, "{said}");
        // Whoever waited for it shares the failure.
        assert_eq!(
            egress.send(signed(&api.url), &mut 0).await.unwrap_err(),
            failure
        );
        assert_eq!(tokens.asked().len(), attempts, "{said}");
    }
    assert_eq!(api.asked().len(), 1);
}

#[test]
fn a_file_that_cannot_work_is_refused_without_repeating_it() {
    let with = |change: &dyn Fn(&mut Value)| {
        let mut file = service_account("https://oauth2.googleapis.com/token");
        change(&mut file);
        google(&file, options(), "https://*.googleapis.com").map(|_| ())
    };
    assert_eq!(with(&|_| {}), Ok(()));
    type Change<'a> = &'a dyn Fn(&mut Value);
    let cases: [(Change<'_>, &str); 9] = [
        (
            &|file| file["type"] = json!("canary"),
            "its `type` is no kind of Google credential",
        ),
        (
            &|file| file["type"] = json!(["canary"]),
            "it is not the JSON of a Google credential (line 1",
        ),
        (
            &|file| *file = json!("canary"),
            "it is not the JSON of a Google credential",
        ),
        (
            &|file| file["private_key"] = json!("canary"),
            "`private_key` is no RSA key in PEM",
        ),
        (
            &|file| file["client_email"] = Value::Null,
            "the field `client_email` is missing",
        ),
        (
            &|file| file["token_uri"] = json!("http://canary.example/"),
            "`token_uri` is not https://",
        ),
        (
            &|file| file["token_uri"] = json!("canary"),
            "`token_uri` is no URL",
        ),
        (
            &|file| *file = external(&json!({ "executable": { "command": "canary" } }), false),
            "weir starts no programs",
        ),
        (
            &|file| *file = external(&json!({ "environment_id": "aws1" }), false),
            "(AWS) is not supported",
        ),
    ];
    for (change, expected) in cases {
        let error = with(change).unwrap_err();
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains("canary"), "{error}");
    }
}
