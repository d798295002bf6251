//! The other side of the engine: what `http` holds. Cheap to clone, never blocks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use tokio::sync::watch;

use super::admission::Queue;
use super::clock::Clock;
use super::message::{Command, RequestId, Submission};
use super::scheduler::blocks_needed;
use super::sequence::tokens_at_most;
use crate::backend::BLOCK_TOKENS;
use crate::model::ModelSpec;

/// Gauges and counters that the engine writes and `/metrics` and `/health` read. All relaxed: each is
/// right by itself, no two are read as one.
#[derive(Debug, Default)]
pub struct Stats {
    /// Choices that hold KV blocks.
    pub running: AtomicUsize,
    /// Choices that wait for their first step, or to be resumed.
    pub waiting: AtomicUsize,
    pub kv_blocks_total: AtomicUsize,
    /// Held by sequences; cached blocks that nobody holds count as free.
    pub kv_blocks_held: AtomicUsize,
    pub prompt_tokens: AtomicU64,
    pub generated_tokens: AtomicU64,
    /// Prompt tokens that were looked for in the prefix cache, and those that were found.
    pub cache_queries: AtomicU64,
    pub cached_tokens: AtomicU64,
    /// Cached blocks that were given up for want of free ones.
    pub cache_evictions: AtomicU64,
    /// Choices that waited for what another was computing, and found it.
    pub cache_awaited: AtomicU64,
    pub preemptions: AtomicU64,
    /// Drafts, their tokens, and how many of those were what was said.
    pub drafts: AtomicU64,
    pub draft_tokens: AtomicU64,
    pub accepted_tokens: AtomicU64,
    pub steps: AtomicU64,
    /// Steps that panicked or yielded NaN.
    pub step_failures: AtomicU64,
    /// Choices finished, by [`super::message::FinishReason`], and aborted requests.
    pub finished_stop: AtomicU64,
    pub finished_length: AtomicU64,
    pub finished_abort: AtomicU64,
    pub finished_error: AtomicU64,
    /// Milliseconds since the engine started, at the end of its last step or idle wake-up.
    pub heartbeat_ms: AtomicU64,
    /// The engine has work (so that a silent heartbeat means a stall).
    pub busy: AtomicUsize,
}

impl Stats {
    /// Share of KV blocks that sequences hold, 0 to 1.
    pub fn kv_usage(&self) -> f64 {
        let total = self.kv_blocks_total.load(Ordering::Relaxed);
        if total == 0 {
            return 0.0;
        }
        self.kv_blocks_held.load(Ordering::Relaxed) as f64 / total as f64
    }
}

/// Why a submission was not accepted. Nothing of it remains in the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejected {
    /// The queue is full, in requests or in prompt tokens.
    QueueFull,
    /// Draining or stopped.
    ShuttingDown,
    /// A choice needs more KV blocks than there are. `max_tokens` is what the cache holds.
    NeverFits { max_tokens: usize },
}

/// Shared by all handles: see [`Stats`].
pub type SharedStats = Arc<Stats>;

/// How an engine ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// It was told to, and nothing is left in it.
    Drained,
    /// It could not go on; the process should end with a non-zero code and be restarted.
    Fatal(String),
}

/// What the engine's thread and all handles share.
pub(super) struct Shared {
    pub(super) queue: Arc<Queue>,
    pub(super) stats: SharedStats,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) spec: ModelSpec,
    pub(super) device: String,
    pub(super) kv_block_bytes: usize,
    /// No new work is taken any more.
    pub(super) closing: AtomicBool,
    pub(super) next_id: AtomicU64,
}

/// The engine as everybody but its own thread sees it.
#[derive(Clone)]
pub struct EngineHandle {
    pub(super) shared: Arc<Shared>,
    /// Unbounded, so that an abort can always be left, even while a step hangs. What is in it is
    /// bounded by the queue: submissions by its places, the rest by the number of submissions.
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) ended: watch::Receiver<Option<Ended>>,
}

impl EngineHandle {
    /// Hands a request over, or says at once why not. Never waits. From here on the request ends in
    /// exactly one terminal event, unless its client leaves first. The event channel must be fresh
    /// and hold at least [`super::MIN_EVENT_CAPACITY`] events.
    pub fn submit(&self, submission: Submission) -> Result<(), Rejected> {
        let shared = &self.shared;
        if shared.closing.load(Ordering::Acquire) {
            return Err(Rejected::ShuttingDown);
        }
        let spec = &shared.spec;
        let fits = |tokens| blocks_needed(tokens) <= spec.kv_blocks;
        if !submission.choices.iter().all(|c| fits(tokens_at_most(c, spec.max_context))) {
            return Err(Rejected::NeverFits { max_tokens: spec.kv_blocks * BLOCK_TOKENS });
        }
        let accepted = shared.queue.enter(submission, shared.clock.now())?;
        self.commands.send(Command::Submit(accepted)).map_err(|mpsc::SendError(command)| {
            if let Command::Submit(accepted) = command {
                accepted.terminal.abandon();
            }
            Rejected::ShuttingDown
        })
    }

    /// Frees everything that the request holds before the next step. Harmless when it ended already.
    pub fn abort(&self, id: RequestId) {
        // An engine that ended holds nothing of any request.
        let _ = self.commands.send(Command::Abort(id));
    }

    /// Takes no new work, finishes what is there, then ends.
    pub fn drain(&self) {
        self.shared.closing.store(true, Ordering::Release);
        let _ = self.commands.send(Command::Drain);
    }

    /// Takes no new work, fails what is there after the current step, then ends.
    pub fn stop(&self) {
        self.shared.closing.store(true, Ordering::Release);
        let _ = self.commands.send(Command::Stop);
    }

    /// A request id that no other call returned.
    pub fn next_id(&self) -> RequestId {
        RequestId(self.shared.next_id.fetch_add(1, Ordering::Relaxed))
    }

    pub fn stats(&self) -> &Stats {
        &self.shared.stats
    }

    pub fn spec(&self) -> &ModelSpec {
        &self.shared.spec
    }

    /// Such as `cpu/avx2`.
    pub fn device(&self) -> &str {
        &self.shared.device
    }

    /// Bytes of one KV block over all layers.
    pub fn kv_block_bytes(&self) -> usize {
        self.shared.kv_block_bytes
    }

    /// Requests, and their prompt tokens, that were accepted and have not had a step yet.
    pub fn queued(&self) -> (usize, usize) {
        self.shared.queue.waiting()
    }

    /// Accepted requests that have not ended.
    pub fn live(&self) -> usize {
        self.shared.queue.live()
    }

    /// The engine has work and made no progress for longer than `timeout`. Never true when idle.
    pub fn stalled(&self, timeout: Duration) -> bool {
        let stats = &self.shared.stats;
        if stats.busy.load(Ordering::Acquire) == 0 {
            return false;
        }
        let heartbeat = Duration::from_millis(stats.heartbeat_ms.load(Ordering::Relaxed));
        self.shared.clock.now().saturating_sub(heartbeat) > timeout
    }

    /// Waits for the end of the engine.
    pub async fn finished(&self) -> Ended {
        let mut ended = self.ended.clone();
        let vanished = || Ended::Fatal("the engine thread vanished".to_owned());
        match ended.wait_for(Option::is_some).await {
            Ok(value) => value.clone().unwrap_or_else(vanished),
            Err(_) => vanished(),
        }
    }
}

impl std::fmt::Debug for EngineHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EngineHandle")
            .field("device", &self.shared.device)
            .field("spec", &self.shared.spec)
            .finish_non_exhaustive()
    }
}
