//! The door: what may enter the engine, and the promises that are made to what did.
//!
//! Both promises are guards, so that they hold on every path, a panic's included: a [`Place`] in the
//! queue is given back when it is dropped, and a [`Terminal`] that is dropped unused says so to the
//! client. That makes "exactly one terminal event" a property of ownership.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{OwnedPermit, Sender};

use super::handle::Rejected;
use super::message::{Event, FailureKind, Submission, Tenant};

/// Counts what was accepted and has not had its first step yet, against the two bounds of the queue.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    /// Accepted requests that have not ended.
    live: AtomicUsize,
    max_requests: usize,
    max_tokens: u64,
}

#[derive(Debug, Default)]
struct Waiting {
    requests: usize,
    tokens: u64,
    /// Requests of each tenant that has any.
    tenants: BTreeMap<Tenant, usize>,
}

impl Queue {
    pub(super) fn new(max_requests: usize, max_tokens: usize) -> Arc<Self> {
        Arc::new(Self {
            waiting: Mutex::default(),
            live: AtomicUsize::new(0),
            max_requests: max_requests.max(1),
            max_tokens: max_tokens as u64,
        })
    }

    /// Takes a place and a promise for `submission`, or says why not. An idle engine takes one request
    /// of any number of tokens, so that a prompt above the bound is not refused for ever; and a tenant of
    /// which nothing waits is let in past a queue that others have filled.
    pub(super) fn enter(
        self: &Arc<Self>,
        submission: Submission,
        submitted: Duration,
    ) -> Result<Accepted, Rejected> {
        let live = Live::join(self);
        let tenant = submission.namespace.tenant;
        let place = Place::take(self, tenant, prompt_tokens(&submission), live.was_idle)?;
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
        let waiting = self.count();
        (waiting.requests, waiting.tokens as usize)
    }

    /// Requests of the tenant that wait.
    #[cfg(any(test, feature = "fake-model"))]
    pub(super) fn waiting_of(&self, tenant: Tenant) -> usize {
        self.count().tenants.get(&tenant).copied().unwrap_or(0)
    }

    fn count(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
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
    tenant: Tenant,
    tokens: u64,
}

impl Place {
    /// Prompt tokens that it stands for.
    pub(super) fn tokens(&self) -> u64 {
        self.tokens
    }

    fn take(
        queue: &Arc<Queue>,
        tenant: Tenant,
        tokens: u64,
        any_size: bool,
    ) -> Result<Self, Rejected> {
        let mut waiting = queue.count();
        let has_room = waiting.requests < queue.max_requests;
        let fits = any_size || waiting.tokens.saturating_add(tokens) <= queue.max_tokens;
        let is_alone = || tokens <= queue.max_tokens && !waiting.tenants.contains_key(&tenant);
        if !(has_room && fits || is_alone()) {
            return Err(Rejected::QueueFull);
        }
        waiting.requests += 1;
        waiting.tokens += tokens;
        *waiting.tenants.entry(tenant).or_default() += 1;
        drop(waiting);
        Ok(Self { queue: Arc::clone(queue), tenant, tokens })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut waiting = self.queue.count();
        waiting.requests -= 1;
        waiting.tokens -= self.tokens;
        if let Entry::Occupied(mut requests) = waiting.tenants.entry(self.tenant) {
            *requests.get_mut() -= 1;
            if *requests.get() == 0 {
                requests.remove();
            }
        }
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
