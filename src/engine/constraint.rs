//! What keeps an answer within a grammar: a trait, so that the engine knows of no grammar.

use super::message::TokenId;

/// Says which tokens may come next. Implemented in `text`; the engine tells it every token of the
/// answer, in order. Deterministic: what it says depends on nothing but those tokens.
pub trait Constraint: Send + std::fmt::Debug {
    /// Which tokens may come next: at least one, and end tokens only where the answer may end.
    fn allowed(&mut self) -> Result<TokenSet, OutOfBounds>;

    /// The answer goes on with `token`, an allowed one and no end token.
    fn accept(&mut self, token: TokenId) -> Result<Stage, OutOfBounds>;

    /// Takes the last `count` accepted tokens back.
    fn take_back(&mut self, count: usize) -> Result<(), OutOfBounds>;

    /// The tokens that come next whatever the model says. Empty where there is a choice.
    fn forced(&mut self) -> Result<Vec<TokenId>, OutOfBounds>;
}

/// Where an answer stands within its grammar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// More may follow, or must.
    Open,
    /// Nothing may follow.
    Complete,
}

/// A grammar needs more than its limits allow, or no token of the vocabulary fits it. The request
/// cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutOfBounds;

/// A set of tokens, one bit each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSet {
    words: Vec<u32>,
}

impl TokenSet {
    /// From the bits of 32 tokens a word, the lowest first.
    pub fn from_words(words: Vec<u32>) -> Self {
        Self { words }
    }

    pub fn contains(&self, token: TokenId) -> bool {
        let word = self.words.get(token as usize / 32).copied().unwrap_or(0);
        word >> (token % 32) & 1 == 1
    }

    /// Ascending.
    pub fn iter(&self) -> impl Iterator<Item = TokenId> + '_ {
        self.words.iter().enumerate().flat_map(|(at, &word)| {
            let mut left = word;
            std::iter::from_fn(move || {
                let bit = left.trailing_zeros();
                // Clears the lowest bit that is set.
                left &= left.wrapping_sub(1);
                (bit < 32).then_some(at as TokenId * 32 + bit)
            })
        })
    }

    /// Puts minus infinity in the place of all logits whose tokens are not in it.
    pub(super) fn mask(&self, logits: &mut [f32]) {
        let words = self.words.iter().copied().chain(std::iter::repeat(0));
        for (logits, word) in logits.chunks_mut(32).zip(words) {
            match word {
                u32::MAX => {}
                0 => logits.fill(f32::NEG_INFINITY),
                _ => {
                    for (bit, logit) in logits.iter_mut().enumerate() {
                        if word >> bit & 1 == 0 {
                            *logit = f32::NEG_INFINITY;
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
impl FromIterator<TokenId> for TokenSet {
    fn from_iter<I: IntoIterator<Item = TokenId>>(tokens: I) -> Self {
        let mut words = Vec::new();
        for token in tokens {
            let at = token as usize / 32;
            words.resize(words.len().max(at + 1), 0);
            words[at] |= 1 << (token % 32);
        }
        Self { words }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_masks_all_but_its_tokens() {
        let set: TokenSet = [0, 5, 31, 32, 70].into_iter().collect();
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 5, 31, 32, 70]);
        let mut logits = vec![1.0; 100];
        set.mask(&mut logits);
        for (token, &logit) in (0..).zip(&logits) {
            assert_eq!(logit == 1.0, set.contains(token), "{token}");
        }
        assert!(!set.contains(1000));
        let full = TokenSet::from_words(vec![u32::MAX; 3]);
        assert_eq!(full.iter().count(), 96);
    }
}
