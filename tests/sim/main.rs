//! Thousands of random lives of the engine; see `millrace::engine::simulate` for what they check. Here
//! with the fake model; [`real`] has a few with real ones.
//!
//! `MILLRACE_SIM_LIVES` sets how many, `MILLRACE_SIM_SEED` runs one life alone.

mod real;

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use millrace::engine::simulate::{Tally, live};

const LIVES: u64 = 10_000;

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable} must be a number, not {value}")))
}

fn live_or_tell(seed: u64) -> Tally {
    live(seed).unwrap_or_else(|fault| {
        panic!(
            "{fault}\n\nlife {seed} did not hold; to see it again:\n    MILLRACE_SIM_SEED={seed} \
             cargo test --release --features fake-model --test sim\n"
        )
    })
}

#[test]
fn lives() {
    if let Some(seed) = number("MILLRACE_SIM_SEED") {
        println!("{:?}", live_or_tell(seed));
        return;
    }
    let lives = number("MILLRACE_SIM_LIVES").unwrap_or(LIVES);
    let next = AtomicU64::new(0);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        let mut tally = Tally::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= lives {
                return tally;
            }
            tally.add(&live_or_tell(seed));
        }
    };
    let mut total = Tally::default();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            match worker.join() {
                Ok(tally) => total.add(&tally),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    println!("{total:?}");
    // What never happens is not checked.
    let happened = [
        total.finished,
        total.aborted,
        total.failed_step,
        total.failed_constraint,
        total.failed_stalled,
        total.failed_shutdown,
        total.rejected,
        total.preemptions,
        total.cache_hits,
        total.evictions,
        total.awaited,
        total.parts,
        total.blocked_turns,
        total.fatal_ends,
        total.ruled_tokens,
        total.accepted_tokens,
        total.draft_tokens - total.accepted_tokens,
    ];
    let few = lives / 100;
    assert!(happened.iter().all(|&n| n >= few), "something hardly ever happened: {total:?}");
}

#[test]
fn a_life_can_be_lived_again() {
    for seed in [1, 12, 123] {
        assert_eq!(live(seed), live(seed));
    }
}
