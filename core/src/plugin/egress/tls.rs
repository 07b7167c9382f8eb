//! TLS toward far sides: one provider, and the system's root certificates read once for all entries.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustls::ClientConfig;
use rustls_platform_verifier::BuilderVerifierExt;

use super::{Failure, transient};

/// rustls wants one provider a process, and reqwest panics without; one that the embedding program chose stays.
pub(super) fn install_crypto() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        // An error means that one is there.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

/// What verifies a far side. Reading the roots costs time and memory, and fails where there are none: it happens when
/// first needed, and a failure is tried again.
pub(super) fn verifying() -> Result<Arc<ClientConfig>, Failure> {
    static CONFIG: Mutex<Option<Arc<ClientConfig>>> = Mutex::new(None);
    let mut config = CONFIG.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(config) = &*config {
        return Ok(Arc::clone(config));
    }
    let failed = |error: rustls::Error| transient("tls", error.to_string());
    let made = builder()
        .map_err(failed)?
        .with_platform_verifier()
        .map_err(failed)?
        .with_no_client_auth();
    Ok(Arc::clone(config.insert(Arc::new(made))))
}

/// For clients that never speak TLS: no roots are read for them.
pub(super) fn trusting_nobody() -> Result<ClientConfig, Failure> {
    let builder = builder().map_err(|error| transient("tls", error.to_string()))?;
    Ok(builder
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth())
}

fn builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()
}
