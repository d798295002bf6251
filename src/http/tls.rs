//! TLS for the listener of the API: a certificate and its key from two files, read again when they
//! change. rustls does the rest.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::InconsistentKeys;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert, ServerConfig};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

use crate::config::TlsConfig;
use crate::watch::{self, Mark};

/// Reloads of the certificate, by `result`: `ok` or `error`.
pub const TLS_RELOAD_TOTAL: &str = "millrace_tls_reload_total";

/// Over one connection clients may speak HTTP/2, several requests at once, or HTTP/1.1.
pub(super) const H2: &[u8] = b"h2";
const HTTP_1_1: &[u8] = b"http/1.1";

/// Of a certificate with all that vouch for it, or of a key: far more than any has.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why there is no certificate to show.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{}: {reason}", file.display())]
    File { file: PathBuf, reason: String },
    #[error(
        "the certificate and the key do not go together ({0}): name the key of this certificate with --ssl-keyfile"
    )]
    Pair(rustls::Error),
    #[error("TLS cannot be set up: {0}")]
    Setup(rustls::Error),
}

/// What the listener shows to clients.
#[derive(Debug, Clone)]
pub struct Tls {
    files: TlsConfig,
    /// The files' state just before they were read for the first time.
    opened: [Mark; 2],
    shown: Arc<Shown>,
    config: Arc<ServerConfig>,
}

impl Tls {
    /// Reads both files.
    pub fn open(files: TlsConfig) -> Result<Self, TlsError> {
        let opened = marks(&files);
        let provider = Arc::new(ring::default_provider());
        let shown = Arc::new(Shown(ArcSwap::from_pointee(read(&files, &provider)?)));
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Setup)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&shown) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![H2.to_vec(), HTTP_1_1.to_vec()];
        Ok(Self { files, opened, shown, config: Arc::new(config) })
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.config))
    }

    /// Shows what stands in the files whenever they change, for as long as it is polled. A pair that
    /// does not go together changes nothing: the old one stays.
    pub(super) async fn watch(self) {
        let mut seen = self.opened;
        watch::changes(move |asked| {
            // Before they are read: a write that falls between the two shows at the next look.
            let now = marks(&self.files);
            if asked || now != seen {
                self.reload();
            }
            seen = now;
        })
        .await;
    }

    fn reload(&self) {
        let result = match read(&self.files, self.config.crypto_provider()) {
            Ok(pair) => {
                self.shown.0.store(Arc::new(pair));
                tracing::info!("certificate reloaded");
                "ok"
            }
            Err(error) => {
                tracing::error!(%error, "certificate not reloaded: the old one stays");
                "error"
            }
        };
        metrics::counter!(TLS_RELOAD_TOTAL, "result" => result).increment(1);
    }
}

fn marks(files: &TlsConfig) -> [Mark; 2] {
    [Mark::of(&files.cert), Mark::of(&files.key)]
}

fn read(files: &TlsConfig, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let fault = |file: &PathBuf, reason: String| TlsError::File { file: file.clone(), reason };
    let chain = chain(&files.cert).map_err(|reason| fault(&files.cert, reason))?;
    let key = key(&files.key).map_err(|reason| fault(&files.key, reason))?;
    let key = provider.key_provider.load_private_key(key);
    let key = key.map_err(|e| fault(&files.key, format!("it is no key that can be used: {e}")))?;
    let pair = CertifiedKey::new(chain, key);
    match pair.keys_match() {
        // A key that does not tell its public half.
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(pair),
        Err(e) => Err(TlsError::Pair(e)),
    }
}

/// The certificate, and those that vouch for it.
fn chain(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = content(file)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let chain = chain.map_err(|e| broken(&e, "certificate"))?;
    if chain.is_empty() {
        return Err("no certificate in PEM form".to_owned());
    }
    for (i, certificate) in chain.iter().enumerate() {
        ParsedCertificate::try_from(certificate)
            .map_err(|e| format!("certificate {} of {} is broken: {e}", i + 1, chain.len()))?;
    }
    Ok(chain)
}

fn key(file: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let text = content(file)?;
    let says = |mark: &[u8]| text.windows(mark.len()).any(|part| part == mark);
    // In PKCS #8, and in the form that was usual before it.
    if says(b"-----BEGIN ENCRYPTED PRIVATE KEY-----") || says(b"\nProc-Type: 4,ENCRYPTED") {
        let advice = "take one without a passphrase, as `openssl pkey -in FILE -out FILE` makes it";
        return Err(format!("the key is encrypted: {advice}"));
    }
    PrivateKeyDer::from_pem_slice(&text).map_err(|e| broken(&e, "private key"))
}

/// What is wrong with a text in PEM form. The library would show what stands there, as numbers.
fn broken(e: &pem::Error, what: &str) -> String {
    match e {
        pem::Error::NoItemsFound => format!("no {what} in PEM form"),
        pem::Error::MissingSectionEnd { .. } => format!("a {what} has no end: it was cut"),
        pem::Error::IllegalSectionStart { .. } => "a line of BEGIN is broken".to_owned(),
        pem::Error::Base64Decode(_) => {
            format!("a {what} is broken: what is between its lines of BEGIN and END is no base64")
        }
        e => e.to_string(),
    }
}

/// A file's content. What is no file, such as a pipe, would be waited for, or have no end.
fn content(file: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let data = fs::metadata(file).map_err(|e| e.to_string())?;
    if !data.is_file() {
        return Err("it is not a file".to_owned());
    }
    if data.len() > FILE_BYTES_MAX {
        return Err(format!("it has more than {FILE_BYTES_MAX} bytes"));
    }
    fs::read(file).map(Zeroizing::new).map_err(|e| e.to_string())
}

/// The pair of now, for connections that come from now on.
#[derive(Debug)]
struct Shown(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}
