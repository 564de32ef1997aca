//! What a server on the network asks of its clients, and they of it: a token, and a certificate.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper::header::HeaderValue;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::client::{WebPkiServerVerifier, verify_server_name};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{
    self, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};

/// Where systems keep the certificates of the authorities that they trust.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// A file that access takes cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccessError {
    /// It cannot be read.
    #[error("cannot read {what} from {}: {source}", path.display())]
    Read {
        /// What was looked for.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// There is nothing of the kind in it.
    #[error("there is no {what} in {}", path.display())]
    Nothing {
        /// What was looked for.
        what: &'static str,
        /// Which file.
        path: PathBuf,
    },
    /// It holds something else.
    #[error("cannot use the certificates (PEM) in {}: {why}", path.display())]
    Certificates {
        /// Which file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// Nothing says which authorities are trusted.
    #[error(
        "this system has no certificates of authorities where they usually are: name the server's \
         with --ca-cert"
    )]
    NoAuthorities,
    /// The library that speaks TLS cannot be used.
    #[error("TLS cannot be used: {0}")]
    Tls(#[from] rustls::Error),
}

/// What is shown to a server, and what it is known by.
#[derive(Clone, Default)]
pub struct Access {
    pub(super) token: Option<HeaderValue>,
    authorities: Option<PathBuf>,
    /// The certificate that is shown, and its key.
    certificate: Option<(PathBuf, PathBuf)>,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The token belongs into no log.
        f.debug_struct("Access").field("authorities", &self.authorities).finish_non_exhaustive()
    }
}

impl Access {
    /// Reads the first token of a file, which is what the server's file looks like, too.
    pub fn with_token_file(mut self, path: &Path) -> Result<Self, AccessError> {
        let what = "a token";
        let read = |source| AccessError::Read { what, path: path.to_owned(), source };
        let mut text = String::new();
        let file = File::open(path).map_err(read)?;
        file.take(16 * 1024).read_to_string(&mut text).map_err(read)?;
        let lines = text.lines().map(str::trim);
        let token = lines.into_iter().find(|line| !line.is_empty() && !line.starts_with('#'));
        let token = token.and_then(|token| HeaderValue::try_from(format!("Bearer {token}")).ok());
        let mut token = token.ok_or(AccessError::Nothing { what, path: path.to_owned() })?;
        token.set_sensitive(true);
        self.token = Some(token);
        Ok(self)
    }

    /// Trusts the certificates of this file (PEM), rather than the authorities of the system.
    pub fn with_authorities(mut self, path: &Path) -> Self {
        self.authorities = Some(path.to_owned());
        self
    }

    /// Shows this certificate, with its chain, to a server that asks for one (both PEM).
    #[cfg(feature = "containers")]
    pub(crate) fn with_certificate(mut self, certificate: &Path, key: &Path) -> Self {
        self.certificate = Some((certificate.to_owned(), key.to_owned()));
        self
    }

    pub(crate) fn tls(&self) -> Result<Arc<ClientConfig>, AccessError> {
        let path = match &self.authorities {
            Some(path) => path.clone(),
            None => {
                let found = BUNDLES.iter().map(Path::new).find(|path| path.exists());
                found.ok_or(AccessError::NoAuthorities)?.to_owned()
            }
        };
        let (roots, certificates) = roots(&path, self.authorities.is_some())?;
        let provider = Arc::new(ring::default_provider());
        let chains = WebPkiServerVerifier::builder_with_provider(roots.into(), provider.clone());
        let chains = chains.build().map_err(|error| AccessError::Certificates {
            path: path.clone(),
            why: error.to_string(),
        })?;
        // Of an authority of the system's, nobody wants to be the server.
        let known = if self.authorities.is_some() { certificates } else { Vec::new() };
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Verifier { chains, known }));
        Ok(Arc::new(match &self.certificate {
            None => config.with_no_client_auth(),
            Some((certificate, key)) => {
                config.with_client_auth_cert(chain(certificate)?, private_key(key)?)?
            }
        }))
    }
}

/// The certificates in a file.
fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, AccessError> {
    let pem = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = pem.map_err(|error| unusable("certificate", path, error))?;
    match chain.is_empty() {
        true => Err(AccessError::Nothing { what: "certificate", path: path.to_owned() }),
        false => Ok(chain),
    }
}

/// The key in a file; nodes have it in that of the certificate.
fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, AccessError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| unusable("key", path, error))
}

fn unusable(what: &'static str, path: &Path, error: pem::Error) -> AccessError {
    let path = path.to_owned();
    match error {
        pem::Error::Io(source) => AccessError::Read { what, path, source },
        pem::Error::NoItemsFound => AccessError::Nothing { what, path },
        other => AccessError::Certificates { path, why: other.to_string() },
    }
}

/// Chains of certificates as everybody checks them; and besides, the very certificate that the user
/// named. The usual way to make one (openssl req -x509) makes it an authority, which a server's is not to
/// be: without this, it could not be trusted by naming it.
#[derive(Debug)]
struct Verifier {
    chains: Arc<WebPkiServerVerifier>,
    known: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chain = self.chains.verify_server_cert(certificate, intermediates, name, ocsp, now);
        let Err(error) = chain else { return chain };
        // The name counts all the same. Its time does not: it is known by more than that.
        if self.known.iter().any(|known| known == certificate) {
            verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
            return Ok(ServerCertVerified::assertion());
        }
        Err(error)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chains.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chains.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}

type Roots = (RootCertStore, Vec<CertificateDer<'static>>);

fn roots(path: &Path, is_named: bool) -> Result<Roots, AccessError> {
    let wrong = |why: String| AccessError::Certificates { path: path.to_owned(), why };
    let what = "certificate";
    let pem = CertificateDer::pem_file_iter(path).map_err(|error| match error {
        pem::Error::Io(source) => AccessError::Read { what, path: path.to_owned(), source },
        other => wrong(other.to_string()),
    })?;
    let (mut roots, mut certificates) = (RootCertStore::empty(), Vec::new());
    for certificate in pem {
        let added = certificate.map_err(|error| error.to_string()).and_then(|certificate| {
            certificates.push(certificate.clone());
            roots.add(certificate).map_err(|error| error.to_string())
        });
        match added {
            Ok(()) => {}
            Err(why) if is_named => return Err(wrong(why)),
            // Systems' collections have some that nothing understands.
            Err(_) => {}
        }
    }
    match roots.is_empty() {
        true => Err(AccessError::Nothing { what, path: path.to_owned() }),
        false => Ok((roots, certificates)),
    }
}
