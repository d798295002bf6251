//! What a key may use: requests and tokens a minute, requests at one time.
//!
//! The first two are buckets that hold one minute's worth and fill at an even rate (GCRA, by
//! `governor`). What was taken too much is given back, so that an answer may be paid for in full before
//! it is known how long it will be.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{NotKeyed, StateStore};
use governor::{Quota, RateLimiter};

use super::file::Entry;
use super::meter::Meter;
use super::shared::{self, Lease, LimitStore};

/// Why something could not be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Short {
    /// It can be had after this time, if nobody takes it before.
    For(Duration),
    /// It is more than there can ever be at one time.
    ForEver,
}

/// What a bucket holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level {
    pub limit: u32,
    pub remaining: u32,
    /// Until it is full.
    pub reset: Duration,
}

/// Time since the bucket was made.
#[derive(Debug, Clone, Copy)]
struct Age(Instant);

impl Clock for Age {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

/// When the bucket will be full, in nanoseconds of its age: GCRA's theoretical arrival time.
#[derive(Debug, Clone, Default)]
pub(super) struct FullAt(pub(super) Arc<AtomicU64>);

impl StateStore for FullAt {
    type Key = NotKeyed;

    fn measure_and_replace<T, F, E>(&self, _key: &NotKeyed, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut before = self.0.load(Ordering::Acquire);
        loop {
            let (value, after) = decide(Some(before.into()))?;
            let (success, failure) = (Ordering::AcqRel, Ordering::Acquire);
            match self.0.compare_exchange_weak(before, after.into(), success, failure) {
                Ok(_) => return Ok(value),
                Err(now) => before = now,
            }
        }
    }
}

/// So many a minute, and as many at once.
#[derive(Debug)]
pub struct Bucket {
    limit: NonZeroU32,
    quota: Quota,
    limiter: RateLimiter<NotKeyed, FullAt, Age, NoOpMiddleware<Duration>>,
    age: Age,
    full_at: FullAt,
}

impl Bucket {
    pub fn a_minute(limit: NonZeroU32) -> Self {
        let (quota, full_at) = (Quota::per_minute(limit), FullAt::default());
        let age = Age(Instant::now());
        let limiter = RateLimiter::new(quota, full_at.clone(), age);
        Self { limit, quota, limiter, age, full_at }
    }

    pub fn limit(&self) -> u32 {
        self.limit.get()
    }

    /// Takes `n`, or nothing.
    pub fn take(&self, n: u64) -> Result<(), Short> {
        let n = u32::try_from(n).map_err(|_| Short::ForEver)?;
        let Some(n) = NonZeroU32::new(n) else { return Ok(()) };
        match self.limiter.check_n(n) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(not_until)) => Err(Short::For(not_until.wait_time_from(self.age.now()))),
            Err(_) => Err(Short::ForEver),
        }
    }

    /// Gives back what was taken and not used.
    pub fn give_back(&self, n: u64) {
        let nanos = n.saturating_mul(self.interval());
        let earlier = |at: u64| Some(at.saturating_sub(nanos));
        let _ = self.full_at.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, earlier);
    }

    pub fn level(&self) -> Level {
        let full_at = Duration::from_nanos(self.full_at.0.load(Ordering::Acquire));
        let reset = full_at.saturating_sub(self.age.now());
        let missing = (reset.as_nanos() as u64).div_ceil(self.interval());
        let remaining = u64::from(self.limit()).saturating_sub(missing) as u32;
        Level { limit: self.limit(), remaining, reset }
    }

    /// From one to the next, in nanoseconds.
    fn interval(&self) -> u64 {
        (self.quota.replenish_interval().as_nanos() as u64).max(1)
    }
}

/// The limits of one key, and what it has used of them.
#[derive(Debug, Default)]
pub struct Limits {
    pub requests: Option<Arc<Meter>>,
    pub tokens: Option<Arc<Meter>>,
    /// Requests at one time.
    pub concurrency: Option<usize>,
    running: Arc<AtomicUsize>,
    /// Where places are counted over all servers, and as what.
    shared: Option<(Arc<LimitStore>, Arc<str>)>,
}

impl Limits {
    /// Those of `entry`. Where one is as it was `before`, so is what was used of it.
    pub(super) fn of(
        entry: &Entry,
        before: Option<&Self>,
        store: Option<&Arc<LimitStore>>,
    ) -> Self {
        let meter = |limit: Option<NonZeroU32>, what: &str, before: Option<&Arc<Meter>>| {
            let limit = limit?;
            let same = before.filter(|meter| meter.is_of(limit, &entry.id, what));
            let new = || Arc::new(Meter::a_minute(limit, (&entry.id, what), store));
            Some(same.cloned().unwrap_or_else(new))
        };
        let places = || shared::name(&entry.id, "places");
        Self {
            requests: meter(entry.rpm, "requests", before.and_then(|b| b.requests.as_ref())),
            tokens: meter(entry.tpm, "tokens", before.and_then(|b| b.tokens.as_ref())),
            concurrency: entry.concurrency.map(|n| n.get() as usize),
            running: before.map(|b| Arc::clone(&b.running)).unwrap_or_default(),
            shared: store.map(|store| (Arc::clone(store), places())),
        }
    }

    /// A place among the requests that run at one time; none if all are taken.
    pub async fn enter(&self) -> Option<Place> {
        let most = self.concurrency.unwrap_or(usize::MAX);
        let next = |n: usize| (n < most).then_some(n + 1);
        self.running.fetch_update(Ordering::AcqRel, Ordering::Acquire, next).ok()?;
        let mut place = Place { running: Arc::clone(&self.running), everywhere: None };
        if let (Some((store, name)), Some(most)) = (&self.shared, self.concurrency) {
            place.everywhere = Some(Lease::take(store, name, most).await?);
        }
        Some(place)
    }
}

/// Held while a request runs.
#[derive(Debug)]
pub struct Place {
    running: Arc<AtomicUsize>,
    everywhere: Option<Lease>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.running.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn bucket(limit: u32) -> Bucket {
        Bucket::a_minute(NonZeroU32::new(limit).unwrap())
    }

    #[test]
    fn a_minutes_worth_at_once_and_no_more() {
        let five = bucket(5);
        for left in (0..5).rev() {
            assert_eq!(five.take(1), Ok(()));
            assert_eq!(five.level().remaining, left);
        }
        let Err(Short::For(wait)) = five.take(1) else { panic!("a sixth") };
        assert!(wait <= Duration::from_secs(12) && wait > Duration::from_secs(11), "{wait:?}");
        let reset = five.level().reset;
        assert!(reset <= Duration::from_mins(1) && reset > Duration::from_secs(59), "{reset:?}");
        assert_eq!(five.take(6), Err(Short::ForEver));
        assert_eq!(five.take(u64::MAX), Err(Short::ForEver));
        assert_eq!(five.take(0), Ok(()));
    }

    #[test]
    fn what_is_given_back_can_be_had_again_and_no_more_than_that() {
        let bucket = bucket(100);
        bucket.take(90).unwrap();
        bucket.give_back(60);
        assert_eq!(bucket.level().remaining, 70);
        assert!(bucket.take(71).is_err() && bucket.take(70).is_ok());
        // More than was ever taken leaves it full, not overfull.
        bucket.give_back(1_000_000);
        assert_eq!(bucket.level().remaining, 100);
        assert_eq!(bucket.take(101), Err(Short::ForEver));
    }

    #[test]
    fn the_largest_limit_works_too() {
        let bucket = bucket(super::super::file::MAX_LIMIT);
        assert_eq!(bucket.take(u64::from(super::super::file::MAX_LIMIT)), Ok(()));
        assert!(bucket.take(1_000_000).is_err());
    }

    #[test]
    fn places_are_counted_and_given_back() {
        let limits = Limits { concurrency: Some(2), ..Limits::default() };
        // Without a store nothing waits.
        let enter = || limits.enter().now_or_never().unwrap();
        let (first, second) = (enter(), enter());
        assert!(first.is_some() && second.is_some() && enter().is_none());
        drop(first);
        assert!(enter().is_some());
    }

    #[test]
    fn bucket_levels_hold_under_threads() {
        let bucket = bucket(1000);
        let taken = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..300 {
                        if bucket.take(1).is_ok() {
                            taken.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        // A fill of 1 each 60 ms meanwhile.
        let taken = taken.into_inner();
        assert!((1000..1100).contains(&taken), "{taken}");
    }
}
