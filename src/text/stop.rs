//! Stop strings, matched on the whole generated text, across tokens.
//!
//! The first stop is the one that ends first; of several that end at the same place the longest one,
//! so that nothing of any of them is left. The text is cut where it begins. That depends on the text
//! alone, not on how it was cut into tokens: the engine (which asks [`StopSet::watch`]) and
//! [`super::TextStream`] come to the same answer, each by itself.

use std::sync::Arc;

use crate::engine::message::{StopWatch, TokenId};
use crate::text::{Detokenizer, Text};

/// Most stop strings of one request.
pub const STOPS_MAX: usize = 16;
/// Longest stop string.
pub const STOP_BYTES_MAX: usize = 4096;

/// Why stop strings were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StopError {
    #[error("more than {STOPS_MAX} stop strings")]
    TooMany,
    #[error("stop string {index} is empty")]
    Empty { index: usize },
    #[error("stop string {index} is longer than {STOP_BYTES_MAX} bytes")]
    TooLong { index: usize },
}

/// One stop string, compiled as Knuth, Morris and Pratt have it.
#[derive(Debug)]
struct Pattern {
    bytes: Box<[u8]>,
    /// For each number of matched bytes: how many are matched still when the next one is wrong.
    fallback: Box<[u16]>,
}

impl Pattern {
    fn new(stop: &str) -> Self {
        let bytes = stop.as_bytes();
        let mut fallback = vec![0; bytes.len() + 1];
        let mut matched = 0;
        for at in 1..bytes.len() {
            while matched > 0 && bytes[matched] != bytes[at] {
                matched = usize::from(fallback[matched]);
            }
            if bytes[matched] == bytes[at] {
                matched += 1;
            }
            fallback[at + 1] = matched as u16;
        }
        Self { bytes: bytes.into(), fallback: fallback.into() }
    }

    /// How many bytes are matched after `byte`, when `matched` were before.
    fn step(&self, mut matched: usize, byte: u8) -> usize {
        if matched == self.bytes.len() {
            matched = usize::from(self.fallback[matched]);
        }
        while self.bytes[matched] != byte {
            if matched == 0 {
                return 0;
            }
            matched = usize::from(self.fallback[matched]);
        }
        matched + 1
    }
}

/// Compiled stop strings. Cheap to clone.
#[derive(Debug, Clone)]
pub struct StopSet {
    patterns: Arc<[Pattern]>,
    is_shown: bool,
}

impl StopSet {
    /// At most [`STOPS_MAX`] strings, none empty, none longer than [`STOP_BYTES_MAX`].
    pub fn new<S: AsRef<str>>(stops: &[S]) -> Result<Self, StopError> {
        if stops.len() > STOPS_MAX {
            return Err(StopError::TooMany);
        }
        for (index, stop) in stops.iter().enumerate() {
            match stop.as_ref().len() {
                0 => return Err(StopError::Empty { index }),
                1..=STOP_BYTES_MAX => {}
                _ => return Err(StopError::TooLong { index }),
            }
        }
        let patterns = stops.iter().map(|stop| Pattern::new(stop.as_ref())).collect();
        Ok(Self { patterns, is_shown: false })
    }

    /// The text is cut where the first stop string ends, not where it begins.
    #[must_use]
    pub fn shown(self, is_shown: bool) -> Self {
        Self { is_shown, ..self }
    }

    /// What the engine asks after each token of one choice. `detokenizer` as in the choice's
    /// [`super::TextStream`], so that both see the same text.
    pub fn watch(&self, text: &Text, detokenizer: Detokenizer) -> Box<dyn StopWatch> {
        Box::new(Watch { text: text.clone(), detokenizer, matcher: Matcher::new(self) })
    }
}

/// Goes through a text and finds where stop strings end.
#[derive(Debug)]
pub(super) struct Matcher {
    patterns: Arc<[Pattern]>,
    /// Bytes of each pattern that the text so far ends with.
    matched: Vec<usize>,
    is_shown: bool,
}

impl Matcher {
    pub(super) fn new(stops: &StopSet) -> Self {
        Self {
            patterns: stops.patterns.clone(),
            matched: vec![0; stops.patterns.len()],
            is_shown: stops.is_shown,
        }
    }

    /// Takes the next byte. The length of the longest stop string that ends with it, or 0.
    pub(super) fn step(&mut self, byte: u8) -> usize {
        let mut longest = 0;
        for (pattern, matched) in self.patterns.iter().zip(&mut self.matched) {
            *matched = pattern.step(*matched, byte);
            if *matched == pattern.bytes.len() {
                longest = longest.max(*matched);
            }
        }
        longest
    }

    /// How much of a text is no answer that ends with a stop string of that length.
    pub(super) fn cut(&self, stop: usize) -> usize {
        if self.is_shown { 0 } else { stop }
    }

    /// Length of the longest end of the text that could be the beginning of a stop string, and is not
    /// all of it; none of it where stop strings are shown.
    pub(super) fn held(&self) -> usize {
        if self.is_shown {
            return 0;
        }
        let held = |(pattern, &matched): (&Pattern, &usize)| {
            if matched == pattern.bytes.len() {
                usize::from(pattern.fallback[matched])
            } else {
                matched
            }
        };
        self.patterns.iter().zip(&self.matched).map(held).max().unwrap_or(0)
    }
}

/// The engine's side of one choice's stop strings.
#[derive(Debug)]
struct Watch {
    text: Text,
    detokenizer: Detokenizer,
    matcher: Matcher,
}

impl StopWatch for Watch {
    fn is_stop(&mut self, token: TokenId) -> bool {
        let piece = self.detokenizer.push(&self.text, token);
        let mut stopped = false;
        // To the end, even after a match: the engine goes on if it may not stop yet.
        for byte in piece.bytes() {
            stopped |= self.matcher.step(byte) > 0;
        }
        stopped
    }
}
