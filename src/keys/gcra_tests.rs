//! What governor decides, written to `tests/scale/gcra.json`. tests/scale gives the same to the script that
//! the store runs.

use std::num::NonZeroU32;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use governor::clock::{Clock as _, FakeRelativeClock};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::{Quota, RateLimiter};
use serde_json::{Value, json};

use super::limits::FullAt;

const LIMITS: [u32; 6] = [1, 7, 30, 60, 6_000, super::MAX_LIMIT];
const TAKES: usize = 60;

/// The next of `SplitMix64`, below `n`.
fn random(state: &mut u64, n: u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) % n
}

/// One bucket's life: `[µs since the last, how many (less than 0: given back), taken, left]` each.
fn life(limit: u32) -> Value {
    let quota = Quota::per_minute(NonZeroU32::new(limit).unwrap());
    let (clock, full_at) = (FakeRelativeClock::default(), FullAt::default());
    let limiter =
        RateLimiter::<_, _, _, NoOpMiddleware<Nanos>>::new(quota, full_at.clone(), clock.clone());
    let interval = quota.replenish_interval().as_nanos() as u64;
    let (mut state, mut owed) = (u64::from(limit), 0);
    let steps = (0..TAKES).map(|_| {
        // As long as some of the units take to come back, to the next microsecond or the last second (how
        // parts of a microsecond are rounded is no decision); often no time.
        let units = random(&mut state, u64::from(limit) / 4 + 2);
        let mut pause_us = random(&mut state, 2) * (units * interval).div_ceil(1000);
        if random(&mut state, 2) == 0 {
            pause_us -= pause_us % 1_000_000;
        }
        clock.advance(Duration::from_micros(pause_us));
        let n = 1 + random(&mut state, u64::from(limit) / 3 + 1);
        let is_given_back = owed > 0 && random(&mut state, 4) == 0;
        let taken = if is_given_back {
            let earlier = |at: u64| Some(at.saturating_sub(owed * interval));
            full_at.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, earlier).unwrap();
            true
        } else {
            let n = NonZeroU32::new(n as u32).unwrap();
            limiter.check_n(n).is_ok_and(|decision| decision.is_ok())
        };
        let n = if is_given_back { -(owed as i64) } else { n as i64 };
        owed = if taken && n > 0 { random(&mut state, n as u64 + 1) } else { 0 };
        let now = Duration::from(clock.now()).as_nanos() as u64;
        let missing = full_at.0.load(Ordering::Acquire).saturating_sub(now).div_ceil(interval);
        json!([pause_us, n, taken, u64::from(limit).saturating_sub(missing)])
    });
    json!({"limit": limit, "steps": steps.collect::<Vec<_>>()})
}

#[test]
fn what_governor_decides_is_written_down() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scale/gcra.json");
    let lives: Vec<String> = LIMITS.map(life).iter().map(Value::to_string).collect();
    let text = format!("[{}]\n", lives.join(",\n"));
    if std::env::var_os("MILLRACE_WRITE").is_some() {
        std::fs::write(&file, &text).unwrap();
    }
    let is = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(is == text, "{} is not what governor does: MILLRACE_WRITE=1 writes it", file.display());
    for decision in ["true", "false"] {
        assert!(text.matches(decision).count() > LIMITS.len() * 5, "too few are {decision}");
    }
}
