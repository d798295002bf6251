//! Limits over several servers: what each of them takes is counted in one Redis.
//!
//! The store is asked by every request and never relied upon. What it does not answer in time is decided
//! by the limits of this server alone, at once ([`super::meter`]).

#[cfg(not(feature = "redis"))]
mod absent;
#[cfg(feature = "redis")]
mod link;

use std::sync::Arc;

#[cfg(not(feature = "redis"))]
pub use absent::LimitStore;
#[cfg(feature = "redis")]
pub use link::LimitStore;

/// 1 while the store answers, 0 while each server's own limits hold.
pub const STORE_UP: &str = "millrace_rate_limit_store_up";

/// Times that the store failed or answered too late.
pub const STORE_ERRORS_TOTAL: &str = "millrace_rate_limit_store_errors_total";

/// The store's word on a meter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Word {
    pub(super) taken: bool,
    /// In units of the limit, after that; from 0 to the limit.
    pub(super) used: f64,
}

/// What the store calls something of a key. Ids hold no secret; what follows the last colon says what it
/// is, so no id can be taken for another's meter.
pub(super) fn name(key: &str, what: &str) -> Arc<str> {
    format!("millrace:rl:{key}:{what}").into()
}

/// A place among the requests of a key that run at one time, on all servers. Dropping it frees it.
#[derive(Debug)]
pub(super) struct Lease {
    store: Arc<LimitStore>,
    /// The set of the key's places.
    name: Arc<str>,
    member: String,
    refused: bool,
}

impl Lease {
    /// One of `most`; none if all are taken. Where the store does not answer it is one all the same, and
    /// the store is told when it is back.
    pub(super) async fn take(
        store: &Arc<LimitStore>,
        name: &Arc<str>,
        most: usize,
    ) -> Option<Self> {
        let member = store.new_member();
        // From here on it is freed, also if nobody waits for the answer any more.
        let (store, name) = (Arc::clone(store), Arc::clone(name));
        let mut lease = Self { store, name, member, refused: false };
        lease.refused = lease.store.hold(&lease.name, most, &lease.member).await == Some(false);
        if lease.refused {
            return None;
        }
        lease.store.keep(&lease.member, &lease.name);
        Some(lease)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.refused {
            self.store.free(&self.member, &self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_id_reaches_anothers_meter() {
        let ids = ["a", "a:tokens", "a:requests", "a:tokens:requests", ":", "a:", ".."];
        let whats = ["requests", "tokens", "places"];
        let names: std::collections::BTreeSet<_> =
            ids.iter().flat_map(|id| whats.map(|what| name(id, what))).collect();
        assert_eq!(names.len(), ids.len() * whats.len());
    }
}
