//! The other side of the engine: what `http` holds. Cheap to clone, never blocks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

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
    pub cached_tokens: AtomicU64,
    pub preemptions: AtomicU64,
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
