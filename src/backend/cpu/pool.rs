//! The compute pool: the caller is member 0, and `threads - 1` workers help it.
//!
//! Each member has a contiguous part of the units, the same in every job of that size, so that it finds in its own cache what
//! it wrote in the job before; who is done takes from the end of another's part. A job ends when all units are taken and
//! everybody who *entered* has left: a worker that the kernel has not scheduled yet never stalls the caller. Between jobs
//! workers spin briefly, since the next operation of the same step is microseconds away, then park: an idle server uses no
//! processor time.

use std::any::Any;
use std::cell::UnsafeCell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a worker spins for the next job before it parks. About the time that a parked one takes to wake.
const SPIN: Duration = Duration::from_micros(50);

/// The gate's lowest bit: workers may enter. Above it 31 bits count those inside, then 32 bits number the job.
const OPEN: u64 = 1;
const ONE_INSIDE: u64 = 2;
const INSIDE: u64 = 0xffff_fffe;
const JOB_SHIFT: u32 = 32;

/// A unit of work: its number, and the member that does it.
type Work<'a> = dyn Fn(usize, usize) + Sync + 'a;

struct Shared {
    gate: AtomicU64,
    /// One a member.
    parts: Box<[Part]>,
    /// Written only while the gate is closed and nobody is inside.
    job: UnsafeCell<Option<*const Work<'static>>>,
    panicked: Mutex<Option<Box<dyn Any + Send>>>,
    /// Nothing will come for a while: no use in spinning.
    resting: AtomicBool,
    sleepers: AtomicUsize,
    sleep: Mutex<()>,
    wake: Condvar,
    stop: AtomicBool,
}

/// Units that are left of a member's part: the first above 32 bits, the end below. On lines of its own.
#[repr(align(128))]
struct Part(AtomicU64);

const FIRST_SHIFT: u32 = 32;

impl Part {
    fn set(&self, units: Range<usize>) {
        self.0.store((units.start as u64) << FIRST_SHIFT | units.end as u64, Ordering::Relaxed);
    }

    /// Takes the first unit, or the last.
    fn take(&self, from_end: bool) -> Option<usize> {
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |part| {
            let (first, end) = (part >> FIRST_SHIFT, u64::from(part as u32));
            let less =
                if from_end { part.wrapping_sub(1) } else { part.wrapping_add(1 << FIRST_SHIFT) };
            (first < end).then_some(less)
        });
        taken.ok().map(|part| {
            if from_end { part as u32 as usize - 1 } else { (part >> FIRST_SHIFT) as usize }
        })
    }
}

// SAFETY: `job` is written only by the caller of `run` (which has `&mut Pool`) while the gate is closed and nobody is
// inside, and read only by those who entered through the open gate; the gate's atomics order the two.
unsafe impl Sync for Shared {}
// SAFETY: the pointer in `job` is to a `Sync` closure, and is dereferenced only during `run`.
unsafe impl Send for Shared {}

/// Threads that compute together. See the module's documentation.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("threads", &self.threads()).finish_non_exhaustive()
    }
}

impl Pool {
    /// A pool of `threads` members, the caller included.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            gate: AtomicU64::new(0),
            parts: (0..threads.max(1)).map(|_| Part(AtomicU64::new(0))).collect(),
            job: UnsafeCell::new(None),
            panicked: Mutex::new(None),
            resting: AtomicBool::new(false),
            sleepers: AtomicUsize::new(0),
            sleep: Mutex::new(()),
            wake: Condvar::new(),
            stop: AtomicBool::new(false),
        });
        let mut pool = Self { shared, workers: Vec::new() };
        for member in 1..threads {
            let shared = Arc::clone(&pool.shared);
            let name = format!("compute-{member}");
            pool.workers
                .push(std::thread::Builder::new().name(name).spawn(move || shared.work(member))?);
        }
        Ok(pool)
    }

    /// Members, the caller included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `work(unit, member)` once for every unit below `units`, on all members, and returns when all are done. No order is
    /// promised. A panic in a unit is passed on to the caller after everybody has left; the pool stays usable.
    pub fn run(&mut self, units: usize, work: &Work<'_>) {
        if self.workers.is_empty() || units <= 1 || u32::try_from(units).is_err() {
            (0..units).for_each(|unit| work(unit, 0));
            return;
        }
        let shared = &*self.shared;
        shared.open(units, work);
        let result = catch_unwind(AssertUnwindSafe(|| shared.take_units(work, 0)));
        shared.close();
        let payload = shared.panicked.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(payload) = result.err().or(payload) {
            resume_unwind(payload);
        }
    }
}

impl Pool {
    /// Lets the workers park at once, until the next job: what the caller does now is better done on a core that is free.
    pub fn rest(&self) {
        self.shared.resting.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn open(&self, units: usize, work: &Work<'_>) {
        // SAFETY: only the lifetime changes; `run` does not return before everybody who can see the pointer has left.
        #[expect(clippy::transmute_ptr_to_ptr, reason = "a cast cannot lengthen a lifetime")]
        let work: *const Work<'static> = unsafe { std::mem::transmute(std::ptr::from_ref(work)) };
        // SAFETY: the gate is closed and nobody is inside, so nobody reads it.
        unsafe { *self.job.get() = Some(work) };
        self.resting.store(false, Ordering::Relaxed);
        let members = self.parts.len();
        for (member, part) in self.parts.iter().enumerate() {
            part.set(units * member / members..units * (member + 1) / members);
        }
        let job = (self.gate.load(Ordering::Relaxed) >> JOB_SHIFT) as u32;
        self.gate.store(u64::from(job.wrapping_add(1)) << JOB_SHIFT | OPEN, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            let _guard = self.sleep.lock().unwrap_or_else(PoisonError::into_inner);
            self.wake.notify_all();
        }
    }

    /// Lets nobody in any more, and waits for those inside.
    fn close(&self) {
        self.drop_units();
        self.gate.fetch_and(!OPEN, Ordering::AcqRel);
        let mut turns = 0_u32;
        while self.gate.load(Ordering::Acquire) & INSIDE != 0 {
            turns += 1;
            // A member that lost its core inside a unit needs this one to finish.
            if turns.is_multiple_of(256) {
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
    }

    /// Does the member's own units from the first on, then others' from the last on.
    fn take_units(&self, work: &Work<'_>, member: usize) {
        let (before, own) = self.parts.split_at(member);
        for (i, part) in own.iter().chain(before).enumerate() {
            while let Some(unit) = part.take(i > 0) {
                work(unit, member);
            }
        }
    }

    /// After a panic nobody begins another unit.
    fn drop_units(&self) {
        self.parts.iter().for_each(|part| part.set(0..0));
    }

    /// A worker's life.
    fn work(&self, member: usize) {
        let mut last = 0_u32;
        while let Some(gate) = self.next_job(last) {
            last = (gate >> JOB_SHIFT) as u32;
            if !self.enter(gate) {
                continue;
            }
            // SAFETY: inside an open gate the job is set and nobody writes it.
            if let Some(work) = unsafe { *self.job.get() } {
                // SAFETY: `run` keeps the closure alive until everybody has left.
                let work = unsafe { &*work };
                if let Err(payload) =
                    catch_unwind(AssertUnwindSafe(|| self.take_units(work, member)))
                {
                    self.drop_units();
                    *self.panicked.lock().unwrap_or_else(PoisonError::into_inner) = Some(payload);
                }
            }
            self.gate.fetch_sub(ONE_INSIDE, Ordering::Release);
        }
    }

    /// Goes in if the job of `gate` is still open.
    fn enter(&self, gate: u64) -> bool {
        let mut now = gate;
        while now & OPEN != 0 && now >> JOB_SHIFT == gate >> JOB_SHIFT {
            let inside = now + ONE_INSIDE;
            match self.gate.compare_exchange_weak(now, inside, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => return true,
                Err(changed) => now = changed,
            }
        }
        false
    }

    /// Waits for an open job other than `last`; `None` when the pool ends.
    fn next_job(&self, last: u32) -> Option<u64> {
        let is_new = |gate: u64| gate & OPEN != 0 && (gate >> JOB_SHIFT) as u32 != last;
        let begin = Instant::now();
        loop {
            for _ in 0..64 {
                let gate = self.gate.load(Ordering::Acquire);
                if is_new(gate) {
                    return Some(gate);
                }
                std::hint::spin_loop();
            }
            if self.stop.load(Ordering::Acquire) {
                return None;
            }
            if self.resting.load(Ordering::Relaxed) || begin.elapsed() > SPIN {
                break;
            }
        }
        let mut guard = self.sleep.lock().unwrap_or_else(PoisonError::into_inner);
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        let found = loop {
            let gate = self.gate.load(Ordering::SeqCst);
            if is_new(gate) {
                break Some(gate);
            }
            if self.stop.load(Ordering::Acquire) {
                break None;
            }
            guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
        };
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
        found
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        {
            let _guard = self.shared.sleep.lock().unwrap_or_else(PoisonError::into_inner);
            self.shared.wake.notify_all();
        }
        for worker in self.workers.drain(..) {
            // A worker catches what its units throw; there is nothing to learn from its end.
            drop(worker.join());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_done_once_by_any_number_of_members() {
        for threads in 1..5 {
            let mut pool = Pool::new(threads).unwrap();
            for units in [0, 1, 2, 7, 1000] {
                let done: Vec<AtomicUsize> = (0..units).map(|_| AtomicUsize::new(0)).collect();
                for round in 1..=20 {
                    pool.run(units, &|unit, member| {
                        assert!(member < threads);
                        done[unit].fetch_add(1, Ordering::Relaxed);
                    });
                    assert!(done.iter().all(|d| d.load(Ordering::Relaxed) == round));
                }
            }
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let mut pool = Pool::new(3).unwrap();
        for culprit in [0, 57, 99] {
            let caught = catch_unwind(AssertUnwindSafe(|| {
                pool.run(100, &|unit, _| assert_ne!(unit, culprit, "on purpose"));
            }));
            assert!(caught.is_err());
            let sum = AtomicUsize::new(0);
            pool.run(100, &|unit, _| {
                sum.fetch_add(unit, Ordering::Relaxed);
            });
            assert_eq!(sum.into_inner(), 4950);
        }
    }

    #[test]
    fn parked_workers_wake_and_end() {
        let mut pool = Pool::new(4).unwrap();
        for _ in 0..50 {
            while pool.shared.sleepers.load(Ordering::SeqCst) < 3 {
                std::thread::yield_now();
            }
            let members: Vec<AtomicUsize> = (0..4).map(|_| AtomicUsize::new(0)).collect();
            pool.run(64, &|_, member| {
                members[member].fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(members.iter().map(|m| m.load(Ordering::Relaxed)).sum::<usize>(), 64);
        }
    }
}
