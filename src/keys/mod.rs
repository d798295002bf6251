//! API keys: a file of SHA-256 digests, edited by `millrace keys`, read and reloaded by the server.
//!
//! No secret is ever stored. A key has 256 random bits, so one fast hash is enough: there is nothing
//! to guess, and a slow hash on each request would be a denial of service against ourselves.

mod edit;
mod file;
mod limits;
mod meter;
mod shared;
mod store;
mod watch;

use std::path::PathBuf;

use sha2::{Digest as _, Sha256};

#[cfg(feature = "fake-model")]
pub(crate) use edit::rewritten;
pub use edit::{NewKey, add, list, revoke};
pub use file::{Entry, MAX_LIMIT, MAX_PRIORITY, Moment, check_id};
pub use limits::{Bucket, Level, Limits, Place, Short};
pub use meter::{Meter, Reserved};
pub use shared::{LimitStore, STORE_ERRORS_TOTAL, STORE_UP};
pub use store::{KEY_RELOAD_TOTAL, KEYS, Key, KeyStore};
pub use watch::watch;

/// SHA-256 of a secret.
pub type Digest = [u8; 32];

/// What is stored of a secret, and what is compared.
pub fn digest(secret: &[u8]) -> Digest {
    Sha256::digest(secret).into()
}

/// Why a key file cannot be read, used or written. One line; names the file, never what a secret
/// could be part of.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct KeyError {
    pub path: PathBuf,
    pub reason: String,
}

impl KeyError {
    fn new(path: impl Into<PathBuf>, reason: impl Into<String>) -> Self {
        Self { path: path.into(), reason: reason.into() }
    }
}

#[cfg(test)]
mod gcra_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod timing_tests;
