//! One request inside the engine, as its HTTP side holds it: events out, and an abort when dropped.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;

use super::account::Account;
use super::error::ApiError;
use crate::engine::handle::{EngineHandle, Rejected};
use crate::engine::message::{Choice, Event, RequestId, Submission};

/// Events that may wait for a slow client before the engine pauses its request; requests of many
/// choices get a few for each.
const EVENTS_MIN: usize = 64;
const EVENTS_MAX: usize = 1_024;

/// What came next.
#[derive(Debug)]
pub enum Next {
    Event(Event),
    /// Nothing for as long as a client should not wait without a sign of life.
    Quiet,
}

/// Dropping it before the end tells the engine that the client left: that is how a closed connection
/// frees its KV blocks, streamed or not, queued or running.
#[derive(Debug)]
pub struct Running {
    feed: Feed,
    peeked: Option<Event>,
    patience: Patience,
    ended: bool,
}

/// How long to wait for what.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
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
    /// Whose request it is. Absent in tests as well.
    account: Option<Account>,
    events: mpsc::Receiver<Event>,
}

impl Feed {
    async fn recv(&mut self) -> Option<Event> {
        let event = self.events.recv().await;
        self.count(event)
    }

    fn try_recv(&mut self) -> Option<Event> {
        let event = self.events.try_recv().ok();
        self.count(event)
    }

    fn count(&mut self, event: Option<Event>) -> Option<Event> {
        if let (Some(account), Some(Event::Token(_))) = (&mut self.account, &event) {
            account.token();
        }
        event
    }
}

impl Running {
    /// Hands `choices` to the engine.
    pub fn submit(
        engine: &EngineHandle,
        mut account: Account,
        choices: Vec<Choice>,
        patience: Patience,
    ) -> Result<Self, Rejected> {
        let id = engine.next_id();
        let room = choices.len().saturating_mul(4).clamp(EVENTS_MIN, EVENTS_MAX);
        let (sender, events) = mpsc::channel(room);
        let Account { namespace, priority, .. } = account;
        engine.submit(Submission { id, namespace, priority, choices, events: sender })?;
        account.begin();
        let feed = Feed { engine: Some((engine.clone(), id)), account: Some(account), events };
        Ok(Self { feed, peeked: None, patience, ended: false })
    }

    /// Events from a script instead of an engine.
    #[cfg(test)]
    #[cfg(feature = "fake-model")]
    pub fn scripted(events: mpsc::Receiver<Event>, patience: Patience) -> Self {
        let feed = Feed { engine: None, account: None, events };
        Self { feed, peeked: None, patience, ended: false }
    }

    #[cfg(test)]
    #[cfg(feature = "fake-model")]
    pub fn set_patience(&mut self, patience: Patience) {
        self.patience = patience;
    }

    /// The next event but [`Event::Failed`], which is the error; so is an engine that hangs or is gone.
    pub async fn next(&mut self) -> Result<Next, ApiError> {
        let mut event = self.peeked.take();
        if event.is_none() {
            event = match timeout(self.patience.ping, self.feed.recv()).await {
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

    /// How long a client may wait for a sign of life.
    pub fn ping(&self) -> Duration {
        self.patience.ping
    }

    /// The event after the last one, if it is there already and `wanted`.
    pub fn next_if(&mut self, wanted: impl FnOnce(&Event) -> bool) -> Option<Event> {
        if self.peeked.is_none() {
            self.peeked = self.feed.try_recv();
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
