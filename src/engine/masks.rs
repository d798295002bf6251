//! Masks of allowed tokens, computed beside the forward pass.
//!
//! Which tokens a constraint allows after the tokens of a step is known before the model has computed
//! that step: it depends on the tokens alone. So the constraints of all sequences that will sample go
//! to a few threads when the step begins, and come back with their masks when it has been computed;
//! what the threads have not begun by then, the engine's thread does itself. Nothing is sampled
//! without its mask, and no result depends on who computed it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::constraint::{Constraint, OutOfBounds, Stage, TokenSet};
use super::message::TokenId;

/// One thread for so many cores: a mask takes a fraction of a step.
const CORES_A_THREAD: usize = 4;
const THREADS_MAX: usize = 8;
/// Derivatives of regular expressions recurse as deep as these are nested.
const STACK_BYTES: usize = 16 << 20;

/// A constraint at work.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) constraint: Box<dyn Constraint>,
    /// What is computed behind the last token in the same step.
    pub(super) drafts: Vec<TokenId>,
    /// The first so many of them are what the constraint forces: nothing is chosen there.
    pub(super) forced: usize,
}

/// A constraint that is done.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) constraint: Box<dyn Constraint>,
    pub(super) masks: Result<Masks, OutOfBounds>,
}

/// What may be chosen in the rows of one sequence.
#[derive(Debug, Default)]
pub(super) struct Masks {
    /// Of the first row behind the forced tokens, and of those after it as long as drafts are allowed.
    /// None if the forced tokens complete the answer.
    pub(super) sets: Vec<TokenSet>,
}

impl Job {
    fn run(mut self) -> Option<Done> {
        let run = || {
            let masks = self.masks();
            Done { constraint: self.constraint, masks }
        };
        // A constraint that panicked is not asked again: it is gone, and with it its request.
        catch_unwind(AssertUnwindSafe(run)).ok()
    }

    fn masks(&mut self) -> Result<Masks, OutOfBounds> {
        let (forced, guesses) = self.drafts.split_at(self.forced.min(self.drafts.len()));
        let mut accepted = 0;
        let mut stage = Stage::Open;
        for &token in forced {
            stage = self.constraint.accept(token)?;
            accepted += 1;
        }
        if stage == Stage::Complete {
            self.constraint.take_back(accepted)?;
            return Ok(Masks::default());
        }
        let mut sets = vec![self.constraint.allowed()?];
        for &token in guesses {
            // The next row counts only if the last one yields the draft.
            if !sets.last().is_some_and(|set| set.contains(token)) {
                break;
            }
            match self.constraint.accept(token) {
                Ok(Stage::Open) => accepted += 1,
                Ok(Stage::Complete) => {
                    accepted += 1;
                    break;
                }
                // If it comes to that, the next step meets it again.
                Err(OutOfBounds) => break,
            }
            let Ok(set) = self.constraint.allowed() else { break };
            sets.push(set);
        }
        self.constraint.take_back(accepted)?;
        Ok(Masks { sets })
    }
}

/// The jobs of one step, by their index.
#[derive(Debug)]
struct Batch {
    state: Mutex<State>,
    finished: Condvar,
}

#[derive(Debug)]
struct State {
    /// Those that nobody has begun.
    open: Vec<(usize, Job)>,
    /// Begun and not done.
    running: usize,
    done: Vec<Option<Done>>,
}

impl Batch {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in a critical section can panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does the jobs that are open, until there are none.
    fn work(&self) {
        loop {
            let mut state = self.state();
            let Some((at, job)) = state.open.pop() else { return };
            state.running += 1;
            drop(state);
            let done = job.run();
            let mut state = self.state();
            state.done[at] = done;
            state.running -= 1;
            if state.running == 0 {
                self.finished.notify_all();
            }
        }
    }

    /// Does what is left, and waits for what others have begun.
    fn finish(&self) -> Vec<Option<Done>> {
        self.work();
        let mut state = self.state();
        while state.running > 0 {
            state = self.finished.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::take(&mut state.done)
    }
}

/// Jobs under way.
#[derive(Debug)]
pub(super) struct UnderWay(Option<Arc<Batch>>);

impl UnderWay {
    /// The jobs by their index, when all are done. `None`: the constraint panicked.
    pub(super) fn finish(self) -> Vec<Option<Done>> {
        self.0.map(|batch| batch.finish()).unwrap_or_default()
    }
}

/// The threads. They start with the first constraint there is.
#[derive(Debug, Default)]
pub(super) struct Masker {
    sender: Option<Sender<Arc<Batch>>>,
    threads: usize,
}

impl Masker {
    /// Begins with `jobs`.
    pub(super) fn start(&mut self, jobs: Vec<Job>) -> UnderWay {
        if jobs.is_empty() {
            return UnderWay(None);
        }
        if self.sender.is_none() {
            self.start_threads();
        }
        let done = jobs.iter().map(|_| None).collect();
        // Taken from the end: the first one goes first.
        let open: Vec<_> = jobs.into_iter().enumerate().rev().collect();
        let helpers = self.threads.min(open.len());
        let state = Mutex::new(State { open, running: 0, done });
        let batch = Arc::new(Batch { state, finished: Condvar::new() });
        if let Some(sender) = &self.sender {
            for _ in 0..helpers {
                // Without threads the engine does it all by itself.
                let _ = sender.send(Arc::clone(&batch));
            }
        }
        UnderWay(Some(batch))
    }

    fn start_threads(&mut self) {
        let (sender, receiver) = channel();
        let receiver = Arc::new(Mutex::new(receiver));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..(cores / CORES_A_THREAD).clamp(1, THREADS_MAX) {
            let receiver = Arc::clone(&receiver);
            let thread = std::thread::Builder::new().name("grammar".to_owned());
            match thread.stack_size(STACK_BYTES).spawn(move || help(&receiver)) {
                Ok(_) => self.threads += 1,
                Err(error) => tracing::warn!(%error, "no thread for grammars"),
            }
        }
        self.sender = Some(sender);
    }
}

/// Works for whoever sends, until nobody can any more.
fn help(receiver: &Mutex<Receiver<Arc<Batch>>>) {
    loop {
        let next = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(batch) = next else { return };
        batch.work();
    }
}

#[cfg(test)]
mod tests;
