//! What inner layers tell of a request on its way, for its line in the log and for its spans.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::MatchedPath;

use crate::engine::message::Summary;

/// What is known of a request. In the extensions of every request.
#[derive(Debug, Clone, Default)]
pub struct Trace(Arc<Facts>);

#[derive(Debug, Default)]
struct Facts {
    route: OnceLock<MatchedPath>,
    key: OnceLock<Arc<str>>,
    /// Never locked for longer than it takes to write a field.
    generation: Mutex<Option<Generation>>,
}

impl Trace {
    /// The id of the key, once it was found good.
    pub(super) fn set_key(&self, id: &Arc<str>) {
        let _ = self.0.key.set(Arc::clone(id));
    }

    pub(super) fn key(&self) -> Option<&str> {
        self.0.key.get().map(AsRef::as_ref)
    }

    pub(super) fn set_route(&self, route: &MatchedPath) {
        let _ = self.0.route.set(route.clone());
    }

    /// The pattern of the route, such as `/v1/models/{id}`: a closed set, unlike paths.
    pub(super) fn route(&self) -> &str {
        self.0.route.get().map_or("unmatched", MatchedPath::as_str)
    }

    /// The engine took the request.
    pub(super) fn begin(&self, asked: Asked) {
        *self.lock() = Some(Generation::new(asked));
    }

    /// Writes down what is new.
    pub(super) fn note(&self, what: impl FnOnce(&mut Generation)) {
        if let Some(generation) = &mut *self.lock() {
            what(generation);
        }
    }

    /// What the engine did for the request, if it came so far.
    pub(super) fn take_generation(&self) -> Option<Generation> {
        self.lock().take()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Generation>> {
        self.0.generation.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the engine was asked for. Nothing of the prompt but its length.
#[derive(Debug, Clone)]
#[cfg_attr(
    not(feature = "otel"),
    expect(dead_code, reason = "spans say more than lines of the log")
)]
pub(super) struct Asked {
    /// Of the answer.
    pub(super) id: String,
    /// As the client named it; one of the server's names.
    pub(super) model: String,
    /// The first of the server's names.
    pub(super) served: String,
    pub(super) stream: bool,
    /// Over all prompts.
    pub(super) prompt_tokens: usize,
    /// Of the choice that may have most.
    pub(super) max_tokens: u32,
    pub(super) temperature: f32,
    pub(super) top_p: f32,
    /// Choices of the answer.
    pub(super) choices: usize,
}

/// A request since the engine took it.
#[derive(Debug)]
pub(super) struct Generation {
    pub(super) asked: Asked,
    pub(super) began: Instant,
    /// Tokens so far, over all choices.
    pub(super) tokens: u64,
    /// When the first of them came, and the last.
    pub(super) first: Option<Instant>,
    pub(super) last: Option<Instant>,
    /// Time in which tokens were made text.
    pub(super) detokenising: Duration,
    /// What clients are told of why choices ended, by index.
    pub(super) reasons: Vec<(u32, &'static str)>,
    /// At the end of a request that succeeded.
    pub(super) summary: Option<Summary>,
    /// At the end of one that failed: which error its client was told.
    pub(super) error: Option<&'static str>,
}

impl Generation {
    fn new(asked: Asked) -> Self {
        Self {
            asked,
            began: Instant::now(),
            tokens: 0,
            first: None,
            last: None,
            detokenising: Duration::ZERO,
            reasons: Vec::new(),
            summary: None,
            error: None,
        }
    }

    /// A token came.
    pub(super) fn token(&mut self, now: Instant) {
        self.tokens += 1;
        self.first.get_or_insert(now);
        self.last = Some(now);
    }

    /// From the submission to the first token.
    pub(super) fn first_token(&self) -> Option<Duration> {
        self.first.map(|first| first - self.began)
    }

    /// From the first token to the last; as it was seen here, where the engine did not come to its end.
    pub(super) fn decode(&self) -> Option<Duration> {
        let seen = || Some(self.last? - self.first?);
        self.summary.map(|summary| summary.decode).or_else(seen)
    }

    /// Why choices ended, in their order. Of an answer that the engine did not bring to its end there is one reason:
    /// an error, of which the client `is_told`, or that it left.
    pub(super) fn finish_reasons(&self, is_told: bool) -> Vec<&'static str> {
        if self.summary.is_none() {
            return vec![if is_told || self.error.is_some() { "error" } else { "abort" }];
        }
        let mut reasons = self.reasons.clone();
        reasons.sort_unstable_by_key(|(index, _)| *index);
        reasons.into_iter().map(|(_, reason)| reason).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generation() -> Generation {
        Generation::new(Asked {
            id: "cmpl-1".into(),
            model: "m".into(),
            served: "m".into(),
            stream: true,
            prompt_tokens: 3,
            max_tokens: 4,
            temperature: 1.0,
            top_p: 1.0,
            choices: 2,
        })
    }

    #[test]
    fn an_answer_that_was_cut_has_one_reason_and_the_times_that_were_seen() {
        let mut g = generation();
        g.reasons.push((1, "stop"));
        assert_eq!((g.first_token(), g.decode()), (None, None));
        let at = |ms| g.began + Duration::from_millis(ms);
        let times = [at(5), at(7), at(9)];
        for time in times {
            g.token(time);
        }
        assert_eq!(g.finish_reasons(false), ["abort"]);
        assert_eq!(g.finish_reasons(true), ["error"]);
        assert_eq!(g.first_token(), Some(Duration::from_millis(5)));
        assert_eq!((g.decode(), g.tokens), (Some(Duration::from_millis(4)), 3));
    }

    #[test]
    fn reasons_stand_in_the_order_of_the_choices() {
        let mut g = generation();
        g.reasons = vec![(1, "stop"), (0, "length")];
        g.summary = Some(Summary { decode: Duration::from_millis(2), ..Summary::default() });
        assert_eq!(g.finish_reasons(false), ["length", "stop"]);
        assert_eq!(g.decode(), Some(Duration::from_millis(2)));
    }
}
