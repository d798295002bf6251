//! What the engine keeps of a request beside its sequences: its client, its promises, its times.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;

use super::admission::{Accepted, Place, Terminal};
use super::message::{Event, RequestId, Summary};
use super::scheduler::{EVENTS_A_STEP, Room};

/// One request and its client.
#[derive(Debug)]
pub(super) struct Request {
    events: Sender<Event>,
    pub(super) terminal: Terminal,
    /// Until the first step.
    place: Option<Place>,
    pub(super) choices_left: usize,
    /// Prompt tokens, the prompt of n samples counted once.
    pub(super) prompt_tokens: u64,
    submitted: Duration,
    first_step: Option<Duration>,
    first_token: Option<Duration>,
    last_token: Duration,
    pub(super) preemptions: u32,
    pub(super) cached_tokens: u32,
    /// Events that its channel can take in this step. Only the engine sends, so it only grows behind
    /// our back.
    room: usize,
    /// Events sent so far.
    sent: u64,
    stall: Option<Stall>,
}

/// Since when a client has taken nothing, and how many events it had taken then.
#[derive(Debug, Clone, Copy)]
struct Stall {
    since: Duration,
    taken: u64,
}

impl Request {
    /// Takes over everything but the choices.
    pub(super) fn new(accepted: Accepted) -> Self {
        let Accepted { submission, submitted, place, terminal } = accepted;
        Self {
            prompt_tokens: place.tokens(),
            events: submission.events,
            terminal,
            place: Some(place),
            choices_left: 0,
            submitted,
            first_step: None,
            first_token: None,
            last_token: submitted,
            preemptions: 0,
            cached_tokens: 0,
            room: 0,
            sent: 0,
            stall: None,
        }
    }

    pub(super) fn client_left(&self) -> bool {
        self.events.is_closed()
    }

    /// Looks how much room the channel has, and returns since when its client has taken nothing while
    /// most of it was full.
    pub(super) fn look(&mut self, now: Duration) -> Option<Duration> {
        self.room = self.events.capacity();
        if self.is_ready() {
            self.stall = None;
            return None;
        }
        // One place is the terminal event's.
        let held = self.events.max_capacity().saturating_sub(1 + self.room) as u64;
        let taken = self.sent.saturating_sub(held);
        let stall = match self.stall {
            Some(stall) if stall.taken == taken => stall,
            _ => Stall { since: now, taken },
        };
        self.stall = Some(stall);
        Some(stall.since)
    }

    /// There is room for half a channel of events.
    fn is_ready(&self) -> bool {
        self.room >= EVENTS_A_STEP.max(self.events.max_capacity() / 2)
    }

    /// Its first step begins: it leaves the queue. True the first time.
    pub(super) fn begin(&mut self, now: Duration) -> bool {
        self.place = None;
        let first = self.first_step.is_none();
        self.first_step.get_or_insert(now);
        first
    }

    pub(super) fn token_at(&mut self, now: Duration) {
        self.first_token.get_or_insert(now);
        self.last_token = now;
    }

    /// Sends without waiting; false if there was no room. A client that left is not an error here:
    /// the next step lets go of its request.
    pub(super) fn send(&mut self, event: Event) -> bool {
        self.sent += 1;
        !matches!(self.events.try_send(event), Err(TrySendError::Full(_)))
    }

    pub(super) fn summary(&self) -> Summary {
        let first_step = self.first_step.unwrap_or(self.submitted);
        let first_token = self.first_token.unwrap_or(first_step);
        Summary {
            queued: first_step.saturating_sub(self.submitted),
            prefill: first_token.saturating_sub(first_step),
            decode: self.last_token.saturating_sub(first_token),
            cached_tokens: self.cached_tokens,
            preemptions: self.preemptions,
        }
    }
}

/// All requests in the engine, in an order that does not depend on hashing.
#[derive(Debug, Default)]
pub(super) struct Requests(pub(super) BTreeMap<RequestId, Request>);

impl Room for Requests {
    fn left(&self, request: RequestId) -> usize {
        self.0.get(&request).map_or(0, |r| r.room)
    }

    fn is_ready(&self, request: RequestId) -> bool {
        self.0.get(&request).is_some_and(Request::is_ready)
    }

    fn take(&mut self, request: RequestId, events: usize) {
        if let Some(request) = self.0.get_mut(&request) {
            request.room = request.room.saturating_sub(events);
        }
    }
}
