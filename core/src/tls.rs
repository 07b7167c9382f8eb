//! TLS toward far sides: one provider, and the system's root certificates read once for all.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, ConfigBuilder, Error, WantsVerifier};
use rustls_platform_verifier::{BuilderVerifierExt, Verifier};

/// rustls wants one provider a process, and reqwest panics without; one that the embedding program chose stays.
pub(crate) fn install_crypto() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        // An error means that one is there.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

/// What verifies a far side. Reading the roots costs time and memory, and fails where there are none: it happens when
/// first needed, and a failure is tried again.
pub(crate) fn verifying() -> Result<Arc<ClientConfig>, Error> {
    static CONFIG: Mutex<Option<Arc<ClientConfig>>> = Mutex::new(None);
    let mut config = CONFIG.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(config) = &*config {
        return Ok(Arc::clone(config));
    }
    let made = builder()?.with_platform_verifier()?.with_no_client_auth();
    Ok(Arc::clone(config.insert(Arc::new(made))))
}

/// The same for one far side whose certificate may also come from these authorities.
pub(crate) fn verifying_also(
    authorities: Vec<CertificateDer<'static>>,
) -> Result<Arc<ClientConfig>, Error> {
    let builder = builder()?;
    let provider = Arc::clone(builder.crypto_provider());
    let verifier = Verifier::new_with_extra_roots(authorities, provider)?;
    let builder = builder.dangerous();
    let builder = builder.with_custom_certificate_verifier(Arc::new(verifier));
    Ok(Arc::new(builder.with_no_client_auth()))
}

/// For clients that never speak TLS: no roots are read for them.
pub(crate) fn trusting_nobody() -> Result<ClientConfig, Error> {
    Ok(builder()?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth())
}

fn builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()
}
