//! The keys that count now: read by every request without a lock, replaced as a whole on reload.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};
use time::OffsetDateTime;

use super::file::{self, Entry, Moment};
use super::{Digest, KeyError, LimitStore, Limits};
use crate::engine::message::Tenant;
use crate::watch::Mark;

/// Reloads of the key file, by `result`: `ok` or `error`.
pub const KEY_RELOAD_TOTAL: &str = "millrace_key_reload_total";

/// Keys, by `state`: `valid`, `expiring` (within a week), `expired`.
pub const KEYS: &str = "millrace_keys";

/// Id of the key of `MILLRACE_API_KEY`. No file can have it: `$` is not allowed there.
const ENV_ID: &str = "$MILLRACE_API_KEY";

/// One key that is accepted.
pub struct Key {
    /// What logs call it.
    pub id: Arc<str>,
    /// Whose requests these are, for the engine.
    pub tenant: Tenant,
    pub expires: Option<Moment>,
    pub limits: Arc<Limits>,
    /// Lower is sooner.
    pub priority: i32,
    /// Model names that it may use; all if absent.
    pub models: Option<Vec<String>>,
    digest: Digest,
    /// What was said of its expiry.
    warned: AtomicU8,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key")
            .field("id", &self.id)
            .field("tenant", &self.tenant)
            .field("expires", &self.expires)
            .field("limits", &self.limits)
            .field("priority", &self.priority)
            .field("models", &self.models)
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
    /// A secret keeps its tenant over reloads, and what it has used; a new secret under an old id gets
    /// its own.
    known: Mutex<HashMap<Digest, Known>>,
    /// Where limits are shared with other servers.
    shared: Option<Arc<LimitStore>>,
}

/// What outlives a reload.
struct Known {
    tenant: Tenant,
    limits: Arc<Limits>,
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
        Self::open_shared(file, env_digest, None)
    }

    /// As [`Self::open`], with limits that hold over all servers of `shared`.
    pub fn open_shared(
        file: Option<PathBuf>,
        env_digest: Option<Digest>,
        shared: Option<Arc<LimitStore>>,
    ) -> Result<Arc<Self>, KeyError> {
        let store = Self {
            opened: file.as_deref().map(Mark::of),
            file,
            env: env_digest,
            keys: ArcSwap::default(),
            known: Mutex::default(),
            shared,
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
        let env = self.env.map(|digest| Entry::unlimited(ENV_ID, digest));
        let keys: Vec<Arc<Key>> = entries.into_iter().chain(env).map(|e| self.key(e)).collect();
        self.keys.store(Arc::new(keys));
        self.watch_expiry();
        Ok(())
    }

    fn key(&self, entry: Entry) -> Arc<Key> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        // 0 is the tenant of a keyless server.
        let next = Tenant(u32::try_from(known.len()).map_or(u32::MAX, |n| n.saturating_add(1)));
        let before = known.get(&entry.sha256);
        let tenant = before.map_or(next, |known| known.tenant);
        let limits =
            Arc::new(Limits::of(&entry, before.map(|known| &*known.limits), self.shared.as_ref()));
        known.insert(entry.sha256, Known { tenant, limits: Arc::clone(&limits) });
        Arc::new(Key {
            id: entry.id.into(),
            tenant,
            expires: entry.expires,
            limits,
            priority: entry.priority.unwrap_or(0),
            models: entry.models,
            digest: entry.sha256,
            warned: AtomicU8::new(Expiry::Far as u8),
        })
    }

    /// Says of each key that it has expired or is about to, once for each step towards it.
    pub(super) fn watch_expiry(&self) {
        let now = OffsetDateTime::now_utc();
        let mut counts = [0_u32; 3];
        for key in self.keys.load().iter() {
            let stage = Expiry::of(key.expires, now);
            counts[stage.state()] += 1;
            let before = key.warned.fetch_max(stage as u8, Ordering::Relaxed);
            if before < stage as u8
                && let Some(expires) = key.expires
            {
                stage.warn(&key.id, expires);
            }
        }
        for (state, count) in ["valid", "expiring", "expired"].into_iter().zip(counts) {
            metrics::gauge!(KEYS, "state" => state).set(count);
        }
    }
}

/// How near a key is to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expiry {
    Far,
    WithinWeek,
    WithinDay,
    Over,
}

impl Expiry {
    fn of(expires: Option<Moment>, now: OffsetDateTime) -> Self {
        let Some(Moment(expires)) = expires else { return Self::Far };
        match expires - now {
            left if left <= time::Duration::ZERO => Self::Over,
            left if left <= time::Duration::DAY => Self::WithinDay,
            left if left <= time::Duration::WEEK => Self::WithinWeek,
            _ => Self::Far,
        }
    }

    /// Place among the states that [`KEYS`] counts.
    fn state(self) -> usize {
        match self {
            Self::Far => 0,
            Self::WithinWeek | Self::WithinDay => 1,
            Self::Over => 2,
        }
    }

    fn warn(self, key: &str, expires: Moment) {
        match self {
            Self::Far => {}
            Self::WithinWeek => tracing::warn!(key, %expires, "a key expires within a week"),
            Self::WithinDay => tracing::warn!(key, %expires, "a key expires within a day"),
            Self::Over => tracing::warn!(key, %expires, "a key has expired: it is refused"),
        }
    }
}
