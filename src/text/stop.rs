//! Stop strings, matched on the bytes of the whole generated text, across tokens.

use crate::engine::message::{StopWatch, TokenId};
use crate::text::Text;

/// Most stop strings of one request.
pub const MAX_STOPS: usize = 16;
/// Longest stop string.
pub const MAX_STOP_BYTES: usize = 4096;

/// Why stop strings were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StopError {
    #[error("more than {MAX_STOPS} stop strings")]
    TooMany,
    #[error("stop string {index} is empty")]
    Empty { index: usize },
    #[error("stop string {index} is longer than {MAX_STOP_BYTES} bytes")]
    TooLong { index: usize },
}

/// Compiled stop strings. Cheap to clone.
#[derive(Debug, Clone)]
pub struct StopSet {}

impl StopSet {
    /// At most [`MAX_STOPS`] strings, none empty, none longer than [`MAX_STOP_BYTES`].
    pub fn new<S: AsRef<str>>(_stops: &[S]) -> Result<Self, StopError> {
        Ok(Self {})
    }

    /// What the engine asks after each token of one choice. `skip_special` as in the request's
    /// [`super::TextStream`], so that both see the same text.
    pub fn watch(&self, _text: &Text, _skip_special: bool) -> Box<dyn StopWatch> {
        Box::new(Watch {})
    }
}

#[derive(Debug)]
struct Watch {}

impl StopWatch for Watch {
    fn is_stop(&mut self, _token: TokenId) -> bool {
        false
    }
}
