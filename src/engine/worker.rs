//! The one thread: receive, then let the state machine take a step.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, channel};
use std::time::Duration;

use tokio::sync::watch;

use super::Settings;
use super::admission::Queue;
use super::clock::{Clock, SystemClock};
use super::handle::{Ended, EngineHandle, Shared, Stats};
use super::machine::{Engine, Progress};
use super::message::{Command, FailureKind};
use crate::model::Model;

/// How often the thread looks whether clients that took nothing have taken something.
const BLOCKED_POLL: Duration = Duration::from_millis(5);

/// Constraints recurse as deep as a client's grammar is nested.
const STACK_BYTES: usize = 16 << 20;

/// The engine and the receiving end of its commands.
pub(super) struct Worker {
    pub(super) engine: Engine,
    commands: Receiver<Command>,
    ended: watch::Sender<Option<Ended>>,
    shared: Arc<Shared>,
}

/// Starts the thread.
pub(super) fn spawn(model: Box<dyn Model>, settings: &Settings) -> std::io::Result<EngineHandle> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret)?;
    let (handle, worker) = pair(model, settings, Arc::new(SystemClock::start()), secret);
    let thread = std::thread::Builder::new().name("engine".to_owned()).stack_size(STACK_BYTES);
    // The thread is never joined: it may hang in a step, and the process must still be able to end.
    thread.spawn(move || worker.run()).map(|_| handle)
}

/// Both sides, not connected to any thread yet. `secret` keys the hashes of the prefix cache.
pub(super) fn pair(
    model: Box<dyn Model>,
    settings: &Settings,
    clock: Arc<dyn Clock>,
    secret: [u8; 32],
) -> (EngineHandle, Worker) {
    let (sender, commands) = channel();
    let (ended_sender, ended) = watch::channel(None);
    let shared = Arc::new(Shared {
        queue: Queue::new(settings.max_queue_requests, settings.max_queue_tokens),
        stats: Arc::new(Stats::default()),
        clock,
        spec: model.spec().clone(),
        device: model.device(),
        kv_block_bytes: model.kv_block_bytes(),
        closing: AtomicBool::new(false),
        next_id: AtomicU64::new(1),
    });
    let engine = Engine::new(model, settings, Arc::clone(&shared), secret);
    let handle = EngineHandle { shared: Arc::clone(&shared), commands: sender, ended };
    (handle, Worker { engine, commands, ended: ended_sender, shared })
}

impl Worker {
    fn run(mut self) {
        let ended = catch_unwind(AssertUnwindSafe(|| self.work())).unwrap_or_else(|_| {
            self.engine.fail_all(FailureKind::Step);
            Ended::Fatal("the engine itself panicked".to_owned())
        });
        self.end(ended);
    }

    fn work(&mut self) -> Ended {
        loop {
            match self.turn() {
                Progress::Stepped => {}
                Progress::Blocked => match self.commands.recv_timeout(BLOCKED_POLL) {
                    Ok(command) => self.engine.handle(command),
                    Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
                },
                Progress::Idle => {
                    self.engine.handle(self.commands.recv().unwrap_or(Command::Stop));
                }
                Progress::Ended(ended) => return ended,
            }
        }
    }

    /// Takes in all that has arrived, without waiting, and lets the engine step once.
    pub(super) fn turn(&mut self) -> Progress {
        loop {
            match self.commands.try_recv() {
                Ok(command) => self.engine.handle(command),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    // Nobody is left who could want anything.
                    self.engine.handle(Command::Stop);
                    break;
                }
            }
        }
        self.engine.step()
    }

    /// Closes the door. Submissions that are still on their way end with their guards.
    pub(super) fn end(self, ended: Ended) {
        self.shared.closing.store(true, Ordering::Release);
        drop(self.commands);
        self.ended.send_replace(Some(ended));
    }
}

#[cfg(test)]
mod tests;
