//! The keys that count now: read by every request without a lock, replaced as a whole on reload.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};
use time::OffsetDateTime;

use super::file::{self, Entry, Moment};
use super::watch::Mark;
use super::{Digest, KeyError};
use crate::engine::message::Tenant;

/// Reloads of the key file, by `result`: `ok` or `error`.
pub const KEY_RELOAD_TOTAL: &str = "millrace_key_reload_total";

/// Id of the key of `MILLRACE_API_KEY`. No file can have it: `$` is not allowed there.
const ENV_ID: &str = "$MILLRACE_API_KEY";

/// One key that is accepted.
pub struct Key {
    /// What logs call it.
    pub id: Arc<str>,
    /// Whose requests these are, for the engine.
    pub tenant: Tenant,
    pub expires: Option<Moment>,
    digest: Digest,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key")
            .field("id", &self.id)
            .field("tenant", &self.tenant)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// All keys that are accepted: those of the file, and the one of the environment.
pub struct KeyStore {
    file: Option<PathBuf>,
    env: Option<Digest>,
    /// The file's state just before it was read for the first time.
    pub(super) opened: Option<Mark>,
    keys: ArcSwap<Vec<Arc<Key>>>,
    /// A secret keeps its tenant over reloads; a new secret under an old id gets one of its own.
    tenants: Mutex<HashMap<Digest, Tenant>>,
}

impl std::fmt::Debug for KeyStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let keys = self.keys.load();
        f.debug_struct("KeyStore")
            .field("file", &self.file)
            .field("keys", &*keys)
            .finish_non_exhaustive()
    }
}

impl KeyStore {
    /// Reads the file, if there is one. `env_digest`: of `MILLRACE_API_KEY`.
    pub fn open(file: Option<PathBuf>, env_digest: Option<Digest>) -> Result<Arc<Self>, KeyError> {
        let store = Self {
            opened: file.as_deref().map(Mark::of),
            file,
            env: env_digest,
            keys: ArcSwap::default(),
            tenants: Mutex::default(),
        };
        store.load()?;
        Ok(Arc::new(store))
    }

    /// The key file's path.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Number of keys, expired ones included.
    pub fn len(&self) -> usize {
        self.keys.load().len()
    }

    /// Nobody can get in.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The key with this digest, unless it expired. Takes the same time whichever key matches, or
    /// none: every key is compared, every byte of it.
    pub fn find(&self, digest: &Digest) -> Option<Arc<Key>> {
        let keys = self.keys.load();
        let now = OffsetDateTime::now_utc();
        let mut found = 0u32;
        for (place, key) in (1u32..).zip(keys.iter()) {
            let alive = key.expires.is_none_or(|expires| now < expires.0);
            let hit = key.digest.ct_eq(digest) & Choice::from(u8::from(alive));
            found.conditional_assign(&place, hit);
        }
        keys.get(found.checked_sub(1)? as usize).cloned()
    }

    /// Reads the file again. On any fault, its absence included, the old keys stay; both outcomes are
    /// logged and counted.
    pub fn reload(&self) {
        let result = match self.load() {
            Ok(()) => {
                tracing::info!(keys = self.len(), "key file reloaded");
                "ok"
            }
            Err(error) => {
                tracing::error!(%error, "key file not reloaded: the old keys stay valid");
                "error"
            }
        };
        metrics::counter!(KEY_RELOAD_TOTAL, "result" => result).increment(1);
    }

    fn load(&self) -> Result<(), KeyError> {
        let entries = match &self.file {
            Some(path) => file::read(path)?.keys,
            None => Vec::new(),
        };
        warn_unenforced(&entries);
        let mut keys: Vec<Arc<Key>> =
            entries.into_iter().map(|e| self.key(e.id.as_str(), e.sha256, e.expires)).collect();
        keys.extend(self.env.map(|digest| self.key(ENV_ID, digest, None)));
        self.keys.store(Arc::new(keys));
        Ok(())
    }

    fn key(&self, id: &str, digest: Digest, expires: Option<Moment>) -> Arc<Key> {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        // 0 is the tenant of a keyless server.
        let next = Tenant(u32::try_from(tenants.len()).map_or(u32::MAX, |n| n.saturating_add(1)));
        let tenant = *tenants.entry(digest).or_insert(next);
        Arc::new(Key { id: id.into(), tenant, expires, digest })
    }
}

/// A limit that is written down but not kept would be worse than none.
fn warn_unenforced(entries: &[Entry]) {
    for entry in entries {
        let fields = entry.unenforced();
        if !fields.is_empty() {
            tracing::warn!(
                key = entry.id,
                fields = fields.join(", "),
                "THE KEY FILE SETS LIMITS THAT THIS VERSION DOES NOT ENFORCE"
            );
        }
    }
}
