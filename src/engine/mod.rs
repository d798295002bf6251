//! The core: a state machine driven by one thread. No HTTP, no JSON, no strings, no tensors' insides.
//!
//! [`handle`] is how the rest of the process talks to it; [`message`] is what is said.

pub mod admission;
mod block_manager;
pub mod clock;
pub mod constraint;
pub mod handle;
mod machine;
mod masks;
pub mod message;
mod outcome;
mod prefix_cache;
mod random;
mod request;
mod sampler;
mod scheduler;
mod sequence;
#[cfg(any(test, feature = "fake-model"))]
pub mod simulate;
mod speculation;
mod worker;

use std::time::Duration;

pub use handle::EngineHandle;

use crate::config::EngineConfig;
use crate::model::Model;

/// Places that a request's event channel must have: one is kept for its terminal event, and the
/// last step of a prompt can yield three events at once.
pub const MIN_EVENT_CAPACITY: usize = 4;

/// Above this many sequences the processor has enough to do for the weights it reads.
const SPECULATING_SEQS: usize = 4;

/// What the engine keeps to, beside the limits of its model.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Sequences that hold KV blocks at one time.
    pub max_num_seqs: usize,
    /// Tokens a step may hold; `None`: what the model can, and less while somebody waits for it.
    pub max_num_batched_tokens: Option<usize>,
    /// Drafts are computed while at most so many sequences answer; 0: never.
    pub max_speculating_seqs: usize,
    /// Requests, whatever their fan-out, that may wait for their first step.
    pub max_queue_requests: usize,
    /// Prompt tokens that may wait for their first step.
    pub max_queue_tokens: usize,
    /// How long a client may take no event from a full channel.
    pub client_stall_timeout: Duration,
    /// Keep the KV blocks of prefixes for requests that begin the same.
    pub prefix_caching: bool,
}

impl From<&EngineConfig> for Settings {
    fn from(config: &EngineConfig) -> Self {
        Self {
            max_num_seqs: config.max_num_seqs,
            max_num_batched_tokens: config.max_num_batched_tokens,
            max_speculating_seqs: SPECULATING_SEQS,
            max_queue_requests: config.max_queue_requests,
            max_queue_tokens: config.max_queue_tokens,
            client_stall_timeout: config.client_stall_timeout,
            prefix_caching: config.prefix_caching,
        }
    }
}

/// Starts the engine's thread. It ends by [`EngineHandle::drain`] or [`EngineHandle::stop`], or when
/// the last handle is dropped.
pub fn spawn(model: Box<dyn Model>, settings: Settings) -> std::io::Result<EngineHandle> {
    worker::spawn(model, &settings)
}
