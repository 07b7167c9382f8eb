//! Credential files of Google: which kinds there are, and what of them is needed.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use url::{Host, Url};
use weir_model::config;

use super::jwt::Signer;

const TOKEN_URL: &str = "https://oauth2.googleapis.com/token";
const METADATA_URL: &str = "http://metadata.google.internal";

/// What works where a file asks for what weir does not do.
const INSTEAD: &str = "What works: a program of yours that keeps a fresh token in a file (or serves it at a URL), and \
    `gcloud iam workload-identity-pools create-cred-config` with --credential-source-file (or -url); \
    or the key of a service account";

/// Who asks for tokens, and where.
pub(super) enum Account {
    Service {
        signer: Box<Signer>,
        /// None = it signs its access tokens itself.
        token_url: Option<Url>,
        private_key: String,
    },
    User {
        client_id: String,
        client_secret: String,
        refresh_token: String,
        token_url: Url,
    },
    External(Box<External>),
    Impersonated {
        source: Box<Account>,
        hop: Impersonation,
    },
    Metadata {
        base: Url,
    },
}

/// A workload elsewhere, known by a token of another issuer.
pub(super) struct External {
    pub(super) audience: String,
    pub(super) subject_token_type: String,
    pub(super) subject: Subject,
    pub(super) token_url: Url,
    /// Its own client at the token endpoint, which few have: (id, secret).
    pub(super) client: Option<(String, String)>,
    pub(super) user_project: Option<String>,
    pub(super) hop: Option<Impersonation>,
}

/// Where the other issuer's token is; read anew for every exchange.
pub(super) enum Subject {
    File {
        path: PathBuf,
        field: Option<String>,
    },
    Url {
        url: Url,
        headers: BTreeMap<String, String>,
        field: Option<String>,
    },
}

/// A second exchange: from one's own token to a service account's.
pub(super) struct Impersonation {
    pub(super) url: Url,
    pub(super) delegates: Vec<String>,
    pub(super) lifetime_seconds: u32,
}

/// Every field of every kind that is looked at; unknown ones are tolerated.
#[derive(Default, Deserialize)]
#[serde(default)]
struct File {
    r#type: String,
    client_email: Option<String>,
    private_key: Option<String>,
    private_key_id: Option<String>,
    token_uri: Option<String>,
    client_id: Option<String>,
    client_secret: Option<String>,
    refresh_token: Option<String>,
    quota_project_id: Option<String>,
    audience: Option<String>,
    subject_token_type: Option<String>,
    token_url: Option<String>,
    credential_source: Option<CredentialSource>,
    service_account_impersonation_url: Option<String>,
    service_account_impersonation: Option<ImpersonationOptions>,
    workforce_pool_user_project: Option<String>,
    source_credentials: Option<Box<File>>,
    delegates: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct CredentialSource {
    file: Option<PathBuf>,
    url: Option<String>,
    headers: BTreeMap<String, String>,
    format: Option<Format>,
    executable: Option<serde_json::Value>,
    environment_id: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Format {
    r#type: String,
    subject_token_field_name: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ImpersonationOptions {
    token_lifetime_seconds: Option<u32>,
}

impl Account {
    /// The account of a file, and the project that it wants to be charged. Errors repeat nothing of the file's values.
    pub(super) fn parse(
        json: &str,
        options: &config::Google,
    ) -> Result<(Account, Option<String>), String> {
        let file: File = serde_json::from_str(json).map_err(|error| {
            // The error's own words may quote the file.
            format!(
                "it is not the JSON of a Google credential (line {}, column {})",
                error.line(),
                error.column()
            )
        })?;
        let project = file.quota_project_id.clone();
        Ok((Account::of(file, options)?, project))
    }

    pub(super) fn metadata(options: &config::Google) -> Result<Account, String> {
        let base = match &options.endpoints.metadata {
            Some(base) => base.clone(),
            None => match std::env::var("GCE_METADATA_HOST") {
                Ok(host) if !host.is_empty() => Url::parse(&format!("http://{host}"))
                    .map_err(|_| "GCE_METADATA_HOST is no host".to_owned())?,
                _ => Url::parse(METADATA_URL).map_err(|error| error.to_string())?,
            },
        };
        Ok(Account::Metadata { base })
    }

    fn of(file: File, options: &config::Google) -> Result<Account, String> {
        match file.r#type.as_str() {
            "service_account" => service(file, options),
            "authorized_user" => user(file, options),
            "external_account" => external(file, options),
            "impersonated_service_account" => {
                let hop = impersonation(&file, options)?;
                let hop = hop.ok_or_else(|| missing("service_account_impersonation_url"))?;
                let source = file.source_credentials;
                let source = source.ok_or_else(|| missing("source_credentials"))?;
                if source.service_account_impersonation_url.is_some() {
                    return Err("`source_credentials` may not impersonate themselves".into());
                }
                Ok(Account::Impersonated {
                    source: Box::new(Account::of(*source, options)?),
                    hop,
                })
            }
            "external_account_authorized_user" | "gdch_service_account" => Err(format!(
                "credentials of the type {} are not supported; those of a service account, of a user \
                 (`gcloud auth application-default login`) and of a workload identity pool are",
                file.r#type
            )),
            "" => Err("the field `type` is missing".into()),
            _ => Err("its `type` is no kind of Google credential".into()),
        }
    }

    /// Every secret that the file itself holds.
    pub(super) fn tells(&self) -> Vec<String> {
        match self {
            Account::Service { private_key, .. } => {
                let mut tells = vec![private_key.clone()];
                // Its lines too: a text that quotes the key rarely quotes the whole.
                tells.extend(
                    private_key
                        .lines()
                        .filter(|line| is_key(line))
                        .map(str::to_owned),
                );
                tells
            }
            Account::User {
                client_secret,
                refresh_token,
                ..
            } => vec![client_secret.clone(), refresh_token.clone()],
            Account::External(external) => {
                external.client.iter().map(|(_, it)| it.clone()).collect()
            }
            Account::Impersonated { source, .. } => source.tells(),
            Account::Metadata { .. } => vec![],
        }
    }
}

fn is_key(line: &str) -> bool {
    line.len() >= 16 && !line.starts_with('-')
}

fn service(file: File, options: &config::Google) -> Result<Account, String> {
    let email = file.client_email.ok_or_else(|| missing("client_email"))?;
    let private_key = file.private_key.ok_or_else(|| missing("private_key"))?;
    let signer = Signer::new(&private_key, file.private_key_id, email)?;
    let written = file.token_uri.as_deref().unwrap_or(TOKEN_URL);
    let token_url = match options.self_signed {
        true => None,
        false => Some(endpoint("token_uri", written, &options.endpoints.token)?),
    };
    Ok(Account::Service {
        signer: Box::new(signer),
        token_url,
        private_key,
    })
}

fn user(file: File, options: &config::Google) -> Result<Account, String> {
    let written = file.token_uri.as_deref().unwrap_or(TOKEN_URL);
    Ok(Account::User {
        client_id: file.client_id.ok_or_else(|| missing("client_id"))?,
        client_secret: file.client_secret.ok_or_else(|| missing("client_secret"))?,
        refresh_token: file.refresh_token.ok_or_else(|| missing("refresh_token"))?,
        token_url: endpoint("token_uri", written, &options.endpoints.token)?,
    })
}

fn external(file: File, options: &config::Google) -> Result<Account, String> {
    let hop = impersonation(&file, options)?;
    let written = file.token_url.as_deref();
    let written = written.ok_or_else(|| missing("token_url"))?;
    let source = file.credential_source;
    let source = source.ok_or_else(|| missing("credential_source"))?;
    Ok(Account::External(Box::new(External {
        token_url: endpoint("token_url", written, &options.endpoints.sts)?,
        audience: file.audience.ok_or_else(|| missing("audience"))?,
        subject_token_type: file
            .subject_token_type
            .ok_or_else(|| missing("subject_token_type"))?,
        subject: subject(source)?,
        client: file.client_id.zip(file.client_secret),
        user_project: file.workforce_pool_user_project,
        hop,
    })))
}

fn subject(source: CredentialSource) -> Result<Subject, String> {
    let field = match source.format {
        Some(format) if format.r#type == "json" => {
            let field = format.subject_token_field_name;
            Some(
                field
                    .ok_or_else(|| missing("credential_source.format.subject_token_field_name"))?,
            )
        }
        _ => None,
    };
    if source.executable.is_some() {
        return Err(format!(
            "`credential_source.executable` is not supported: weir starts no programs. {INSTEAD}"
        ));
    }
    if source.environment_id.is_some() {
        return Err(format!(
            "`credential_source.environment_id` (AWS) is not supported: weir signs no requests to AWS. {INSTEAD}"
        ));
    }
    match (source.file, source.url) {
        (Some(path), _) => Ok(Subject::File { path, field }),
        (None, Some(url)) => {
            let url = Url::parse(&url).map_err(|_| no_url("credential_source.url"))?;
            Ok(Subject::Url {
                url,
                headers: source.headers,
                field,
            })
        }
        (None, None) => Err(missing("credential_source.file")),
    }
}

fn impersonation(file: &File, options: &config::Google) -> Result<Option<Impersonation>, String> {
    const FIELD: &str = "service_account_impersonation_url";
    let Some(written) = &file.service_account_impersonation_url else {
        return Ok(None);
    };
    let mut url = Url::parse(written).map_err(|_| no_url(FIELD))?;
    match &options.endpoints.iamcredentials {
        Some(base) => {
            let path = format!("{}{}", base.path().trim_end_matches('/'), url.path());
            url = base.clone();
            url.set_path(&path);
        }
        None => check_encrypted(FIELD, &url)?,
    }
    let lifetime = file.service_account_impersonation.as_ref();
    let lifetime = lifetime.and_then(|options| options.token_lifetime_seconds);
    Ok(Some(Impersonation {
        url,
        delegates: file.delegates.clone(),
        lifetime_seconds: lifetime.unwrap_or(3600),
    }))
}

/// The operator's own endpoint, else the file's, which must not carry secrets in the clear.
fn endpoint(field: &str, written: &str, instead: &Option<Url>) -> Result<Url, String> {
    if let Some(url) = instead {
        return Ok(url.clone());
    }
    let url = Url::parse(written).map_err(|_| no_url(field))?;
    check_encrypted(field, &url)?;
    Ok(url)
}

fn check_encrypted(field: &str, url: &Url) -> Result<(), String> {
    let is_here = match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    };
    if url.scheme() == "https" || (url.scheme() == "http" && is_here) {
        Ok(())
    } else {
        Err(format!("`{field}` is not https://"))
    }
}

fn missing(field: &str) -> String {
    format!("the field `{field}` is missing")
}

fn no_url(field: &str) -> String {
    format!("`{field}` is no URL")
}
