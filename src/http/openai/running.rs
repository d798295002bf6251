//! One request inside the engine, as its HTTP side holds it: events out, and an abort when dropped.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;

use super::error::ApiError;
use crate::engine::handle::{EngineHandle, Rejected};
use crate::engine::message::{Choice, Event, Namespace, RequestId, Submission};

/// Events that may wait for a slow client before the engine pauses its request; requests of many
/// choices get a few for each.
const EVENTS_MIN: usize = 64;
const EVENTS_MAX: usize = 1_024;

/// What came next.
#[derive(Debug)]
pub(super) enum Next {
    Event(Event),
    /// Nothing for as long as a client should not wait without a sign of life.
    Quiet,
}

/// Dropping it before the end tells the engine that the client left: that is how a closed connection
/// frees its KV blocks, streamed or not, queued or running.
#[derive(Debug)]
pub(super) struct Running {
    feed: Feed,
    peeked: Option<Event>,
    patience: Patience,
    ended: bool,
}

/// How long to wait for what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Between two signs of life.
    pub ping: Duration,
    /// Without progress for this long, the engine counts as hung.
    pub stall: Duration,
}

/// Where events come from.
#[derive(Debug)]
struct Feed {
    /// Absent in tests, whose events are scripted.
    engine: Option<(EngineHandle, RequestId)>,
    events: mpsc::Receiver<Event>,
}

impl Running {
    /// Hands `choices` to the engine.
    pub(super) fn submit(
        engine: &EngineHandle,
        (namespace, priority): (Namespace, i32),
        choices: Vec<Choice>,
        patience: Patience,
    ) -> Result<Self, Rejected> {
        let id = engine.next_id();
        let room = choices.len().saturating_mul(4).clamp(EVENTS_MIN, EVENTS_MAX);
        let (sender, events) = mpsc::channel(room);
        engine.submit(Submission { id, namespace, priority, choices, events: sender })?;
        let engine = Some((engine.clone(), id));
        Ok(Self { feed: Feed { engine, events }, peeked: None, patience, ended: false })
    }

    /// Events from a script instead of an engine.
    #[cfg(test)]
    #[cfg(feature = "fake-model")]
    pub(super) fn scripted(events: mpsc::Receiver<Event>, patience: Patience) -> Self {
        Self { feed: Feed { engine: None, events }, peeked: None, patience, ended: false }
    }

    #[cfg(test)]
    #[cfg(feature = "fake-model")]
    pub(super) fn set_patience(&mut self, patience: Patience) {
        self.patience = patience;
    }

    /// The next event but [`Event::Failed`], which is the error; so is an engine that hangs or is gone.
    pub(super) async fn next(&mut self) -> Result<Next, ApiError> {
        let mut event = self.peeked.take();
        if event.is_none() {
            event = match timeout(self.patience.ping, self.feed.events.recv()).await {
                Ok(event) => event,
                Err(_) if self.stalled() => return Err(ApiError::EngineStalled),
                Err(_) => return Ok(Next::Quiet),
            };
        }
        match event {
            Some(Event::Failed(kind)) => {
                self.ended = true;
                Err(kind.into())
            }
            Some(event) => {
                self.ended = matches!(event, Event::Finished(_));
                Ok(Next::Event(event))
            }
            // The engine thread is gone and its last word with it.
            None => Err(ApiError::Internal),
        }
    }

    /// The event after the last one, if it is there already and `wanted`.
    pub(super) fn next_if(&mut self, wanted: impl FnOnce(&Event) -> bool) -> Option<Event> {
        if self.peeked.is_none() {
            self.peeked = self.feed.events.try_recv().ok();
        }
        if self.peeked.as_ref().is_some_and(wanted) { self.peeked.take() } else { None }
    }

    fn stalled(&self) -> bool {
        self.feed.engine.as_ref().is_some_and(|(engine, _)| engine.stalled(self.patience.stall))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        if let Some((engine, id)) = &self.feed.engine {
            engine.abort(*id);
        }
    }
}
