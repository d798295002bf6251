//! The door: what may enter the engine, and the promises that are made to what did.
//!
//! Both promises are guards, so that they hold on every path, a panic's included: a [`Place`] in the
//! queue is given back when it is dropped, and a [`Terminal`] that is dropped unused says so to the
//! client. That makes "exactly one terminal event" a property of ownership.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{OwnedPermit, Sender};

use super::handle::Rejected;
use super::message::{Event, FailureKind, Submission};

/// Bits of [`Queue::waiting`] that count prompt tokens; those above count requests.
const TOKEN_BITS: u32 = 40;
const TOKEN_MASK: u64 = (1 << TOKEN_BITS) - 1;

/// Counts what was accepted and has not had its first step yet, against the two bounds of the queue.
#[derive(Debug)]
pub(super) struct Queue {
    /// Requests and their prompt tokens in one word, so that both bounds are checked as one.
    waiting: AtomicU64,
    /// Accepted requests that have not ended.
    live: AtomicUsize,
    max_requests: u64,
    max_tokens: u64,
}

impl Queue {
    pub(super) fn new(max_requests: usize, max_tokens: usize) -> Arc<Self> {
        Arc::new(Self {
            waiting: AtomicU64::new(0),
            live: AtomicUsize::new(0),
            max_requests: max_requests.max(1) as u64,
            max_tokens: (max_tokens as u64).min(TOKEN_MASK),
        })
    }

    /// Takes a place and a promise for `submission`, or says why not. An idle engine takes one request
    /// of any number of tokens, so that a prompt above the bound is not refused for ever.
    pub(super) fn enter(
        self: &Arc<Self>,
        submission: Submission,
        submitted: Duration,
    ) -> Result<Accepted, Rejected> {
        let live = Live::join(self);
        let place = Place::take(self, prompt_tokens(&submission), live.was_idle)?;
        // A receiver that is gone already is no reason to refuse: the engine sees it and lets go.
        let permit = match submission.events.clone().try_reserve_owned() {
            Ok(permit) => Some(permit),
            Err(TrySendError::Closed(_)) => None,
            Err(TrySendError::Full(_)) => return Err(Rejected::QueueFull),
        };
        let terminal = Terminal { permit, live: Some(live) };
        Ok(Accepted { submission, submitted, place, terminal })
    }

    /// Requests and prompt tokens that wait.
    pub(super) fn waiting(&self) -> (usize, usize) {
        let packed = self.waiting.load(Ordering::Relaxed);
        ((packed >> TOKEN_BITS) as usize, (packed & TOKEN_MASK) as usize)
    }

    pub(super) fn live(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }
}

/// Prompt tokens of a request, the prompt of n samples counted once.
fn prompt_tokens(submission: &Submission) -> u64 {
    submission.choices.iter().filter(|c| c.sample == 0).map(|c| c.prompt.len() as u64).sum()
}

/// A request that passed the door, with all that it was promised.
#[derive(Debug)]
pub struct Accepted {
    pub(super) submission: Submission,
    pub(super) submitted: Duration,
    pub(super) place: Place,
    pub(super) terminal: Terminal,
}

/// A place in the queue, held from submission to the first step.
#[derive(Debug)]
pub(super) struct Place {
    queue: Arc<Queue>,
    tokens: u64,
}

impl Place {
    /// Prompt tokens that it stands for.
    pub(super) fn tokens(&self) -> u64 {
        self.tokens
    }

    fn take(queue: &Arc<Queue>, tokens: u64, any_size: bool) -> Result<Self, Rejected> {
        let tokens = tokens.min(TOKEN_MASK >> 1);
        let join = |packed: u64| {
            let (requests, held) = (packed >> TOKEN_BITS, packed & TOKEN_MASK);
            let fits = any_size || held + tokens <= queue.max_tokens;
            (requests < queue.max_requests && fits && held + tokens <= TOKEN_MASK)
                .then_some(packed + (1 << TOKEN_BITS) + tokens)
        };
        queue
            .waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, join)
            .map(|_| Self { queue: Arc::clone(queue), tokens })
            .map_err(|_| Rejected::QueueFull)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.queue.waiting.fetch_sub((1 << TOKEN_BITS) + self.tokens, Ordering::Relaxed);
    }
}

/// One request counted as living in the engine.
#[derive(Debug)]
struct Live {
    queue: Arc<Queue>,
    was_idle: bool,
}

impl Live {
    fn join(queue: &Arc<Queue>) -> Self {
        let was_idle = queue.live.fetch_add(1, Ordering::Relaxed) == 0;
        Self { queue: Arc::clone(queue), was_idle }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.queue.live.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The right to send a request's last event, reserved at submission so that no full channel can take
/// it away. Dropped unused, it tells the client that the server is shutting down.
#[derive(Debug)]
pub(super) struct Terminal {
    permit: Option<OwnedPermit<Event>>,
    live: Option<Live>,
}

impl Terminal {
    /// Ends the request with `event`.
    pub(super) fn send(mut self, event: Event) {
        self.deliver(event);
    }

    /// Ends the request without an event: its client left.
    pub(super) fn abandon(mut self) {
        self.permit = None;
    }

    fn deliver(&mut self, event: Event) {
        // Before the event: whoever has read it finds the engine without this request.
        self.live = None;
        if let Some(permit) = self.permit.take() {
            let _sender: Sender<Event> = permit.send(event);
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.deliver(Event::Failed(FailureKind::ShuttingDown));
    }
}
