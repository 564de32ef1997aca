//! TLS for the TCP listener: certificate and key, which can be exchanged while the server runs.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use tokio_rustls::rustls::{self, ServerConfig};

/// Certificate and key cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read, or holds nothing of the kind.
    #[error("cannot read {what} (PEM) from {}: {source}", path.display())]
    Read {
        /// What was looked for.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: pem::Error,
    },
    /// There is no certificate in the file.
    #[error("there is no certificate (PEM) in {}", path.display())]
    NoCertificate {
        /// Which file.
        path: PathBuf,
    },
    /// They do not fit together.
    #[error("{} and {} cannot be used: {source}", cert.display(), key.display())]
    Unusable {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why not.
        source: rustls::Error,
    },
}

/// What is needed to speak TLS.
#[derive(Debug)]
pub struct Tls {
    config: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    /// Reads the chain of certificates and the key.
    pub fn read(cert: &Path, key: &Path) -> Result<Self, TlsError> {
        Ok(Tls { config: RwLock::new(read(cert, key)?) })
    }

    /// Reads others in their place, for connections from now on; if that fails, the old ones stay.
    pub fn reload(&self, cert: &Path, key: &Path) -> Result<(), TlsError> {
        let config = read(cert, key)?;
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        let config = self.config.read().unwrap_or_else(PoisonError::into_inner);
        TlsAcceptor::from(Arc::clone(&config))
    }
}

fn read(cert: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let failed = |what, path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::Read { what, path, source }
    };
    let chain: Vec<_> = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect)
        .map_err(failed("a certificate", cert))?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate { path: cert.to_owned() });
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(failed("a private key", key))?;
    warn_if_open(key);
    let unusable = |source| TlsError::Unusable { cert: cert.into(), key: key.into(), source };
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private));
    let mut config = config.map_err(unusable)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// A group that may read keys is usual; everybody is a slip.
fn warn_if_open(key: &Path) {
    use std::os::unix::fs::MetadataExt;
    let open = std::fs::metadata(key).is_ok_and(|file| file.mode() & 0o007 != 0);
    if open {
        tracing::warn!("{}: everybody on this host can read the private key", key.display());
    }
}
