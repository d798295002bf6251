//! One limit a minute of one key: counted here in any case, and over all servers where they share a store.
//!
//! The bucket here has the whole limit, and every request takes from it too. So it can decide whenever the
//! store does not, and whom it refuses need not ask: what was taken here was taken from the store as well.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::limits::{Bucket, Level, Short};
use super::shared::{LimitStore, Word, name};

/// So many a minute, and as many at once.
#[derive(Debug)]
pub struct Meter {
    bucket: Bucket,
    shared: Option<Shared>,
}

/// The same limit in the store.
#[derive(Debug)]
struct Shared {
    store: Arc<LimitStore>,
    name: Arc<str>,
    /// The last word of the store; none while the bucket decides.
    seen: Mutex<Option<Seen>>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    used: f64,
    at: Instant,
}

impl Meter {
    /// `what` it counts of the key that is called `key`.
    pub(super) fn a_minute(
        limit: NonZeroU32,
        (key, what): (&str, &str),
        store: Option<&Arc<LimitStore>>,
    ) -> Self {
        let shared = store.map(|store| Shared {
            store: Arc::clone(store),
            name: name(key, what),
            seen: Mutex::default(),
        });
        Self { bucket: Bucket::a_minute(limit), shared }
    }

    pub fn limit(&self) -> u32 {
        self.bucket.limit()
    }

    /// Whether it counts what one of `limit` for this key would count.
    pub(super) fn is_of(&self, limit: NonZeroU32, key: &str, what: &str) -> bool {
        let same_name = self.shared.as_ref().is_none_or(|shared| *shared.name == *name(key, what));
        self.limit() == limit.get() && same_name
    }

    /// Takes one, for good.
    pub async fn take_one(self: &Arc<Self>) -> Result<(), Short> {
        Reserved::take(self, 1).await.map(|mut one| one.spend(1))
    }

    /// What is left, as whoever decides has it.
    pub fn level(&self) -> Level {
        let seen = self.shared.as_ref().and_then(|shared| *shared.seen());
        seen.map_or_else(|| self.bucket.level(), |seen| level(self.limit(), seen, Instant::now()))
    }

    /// The store's decision, if there is one.
    async fn ask(&self, n: u64) -> Option<Result<(), Short>> {
        let shared = self.shared.as_ref().filter(|_| n > 0)?;
        let word = shared.store.take(&shared.name, self.limit(), n).await;
        *shared.seen() = word.map(|word| Seen { used: word.used, at: Instant::now() });
        let word = word?;
        Some(if word.taken { Ok(()) } else { Err(Short::For(wait(self.limit(), word, n))) })
    }
}

impl Shared {
    fn seen(&self) -> std::sync::MutexGuard<'_, Option<Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_back(&self, limit: u32, n: u64) {
        if let Some(seen) = &mut *self.seen() {
            seen.used = (seen.used - n as f64).max(0.0);
        }
        self.store.give_back(&self.name, limit, n);
    }
}

/// What `used` has become by `now`.
fn level(limit: u32, seen: Seen, now: Instant) -> Level {
    let unit_s = 60.0 / f64::from(limit);
    let age_s = now.saturating_duration_since(seen.at).as_secs_f64();
    let used = (seen.used - age_s / unit_s).clamp(0.0, limit.into());
    // As the script has it: the last unit is not lost to rounding.
    let remaining = (f64::from(limit) - used + 1e-6).floor() as u32;
    Level { limit, remaining: remaining.min(limit), reset: seconds(used * unit_s) }
}

/// Until `n` are left.
fn wait(limit: u32, word: Word, n: u64) -> Duration {
    seconds((word.used + n as f64 - f64::from(limit)) * 60.0 / f64::from(limit))
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds.clamp(0.0, 60.0)).unwrap_or_default()
}

/// Tokens that were taken for an answer. What was not used by the time it is dropped is given back.
#[derive(Debug)]
pub struct Reserved {
    meter: Arc<Meter>,
    left: u64,
    in_store: bool,
}

impl Reserved {
    /// Takes `n`, or nothing.
    pub async fn take(meter: &Arc<Meter>, n: u64) -> Result<Self, Short> {
        meter.bucket.take(n)?;
        // From here on they are given back, also if nobody waits for the store's answer any more.
        let mut reserved = Self { meter: Arc::clone(meter), left: n, in_store: false };
        match meter.ask(n).await {
            Some(Err(short)) => return Err(short),
            Some(Ok(())) => reserved.in_store = true,
            None => {}
        }
        Ok(reserved)
    }

    /// So many were used.
    pub fn spend(&mut self, n: u64) {
        self.left = self.left.saturating_sub(n);
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let Self { meter, left, in_store } = self;
        if *left == 0 {
            return;
        }
        meter.bucket.give_back(*left);
        // What the store did not give it does not get.
        if let Some(shared) = meter.shared.as_ref().filter(|_| *in_store) {
            shared.give_back(meter.limit(), *left);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn meter(limit: u32) -> Arc<Meter> {
        Arc::new(Meter::a_minute(NonZeroU32::new(limit).unwrap(), ("a", "tokens"), None))
    }

    /// Without a store nothing waits.
    fn reserve(meter: &Arc<Meter>, n: u64) -> Result<Reserved, Short> {
        Reserved::take(meter, n).now_or_never().unwrap()
    }

    #[test]
    fn what_is_given_back_can_be_had_again_and_no_more_than_that() {
        let meter = meter(100);
        let mut reserved = reserve(&meter, 90).unwrap();
        assert!(reserve(&meter, 20).is_err());
        reserved.spend(30);
        drop(reserved);
        assert_eq!(meter.level().remaining, 70);
        assert!(reserve(&meter, 71).is_err());
        assert_eq!(reserve(&meter, 101).err(), Some(Short::ForEver));
    }

    #[test]
    fn the_stores_word_reads_as_the_bucket_does() {
        let at = Instant::now();
        let level = |used, after_s| level(30, Seen { used, at }, at + Duration::from_secs(after_s));
        let level_of = |remaining, reset_s| Level {
            limit: 30,
            remaining,
            reset: Duration::from_secs(reset_s),
        };
        assert_eq!(level(0.0, 0), level_of(30, 0));
        assert_eq!(level(1.0, 0), level_of(29, 2));
        assert_eq!(level(29.999_999_9, 0).remaining, 0);
        assert_eq!(level(30.0, 2), level_of(1, 58));
        assert_eq!(level(30.0, 3600), level_of(30, 0));
        let wait = |used, n| wait(30, Word { taken: false, used }, n);
        assert_eq!(wait(30.0, 1), Duration::from_secs(2));
        assert_eq!(wait(25.0, 10), Duration::from_secs(10));
    }

    #[test]
    fn no_answer_of_a_store_is_too_strange_to_read() {
        let at = Instant::now();
        for used in [-1.0, 1e300, f64::INFINITY, f64::NAN] {
            let level = level(5, Seen { used, at }, at);
            assert!(level.remaining <= 5 && level.reset <= Duration::from_mins(1), "{used}");
            let wait = wait(5, Word { taken: false, used }, u64::MAX);
            assert!(wait <= Duration::from_mins(1), "{used}");
        }
    }
}
