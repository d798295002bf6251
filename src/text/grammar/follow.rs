//! One answer on its way through a grammar.

use std::sync::Arc;

use llguidance::Matcher;
use llguidance::toktrie::{TokEnv, TokTrie};

use super::names::{Names, Quoted};
use crate::engine::constraint::{Constraint, OutOfBounds, Stage, TokenSet};
use crate::engine::message::TokenId;

/// The state of one answer. It shares nothing with others of the same grammar, so that what one needs
/// of the limits is no other's trouble.
pub(super) struct Follower {
    matcher: Matcher,
    usable: Arc<Usable>,
    /// Of JSON.
    names: Option<Names>,
}

/// Tokens that a grammar may allow at all.
pub(super) struct Usable {
    env: TokEnv,
    /// Those that stand for text, 32 a word.
    text: Vec<u32>,
    quoted: Quoted,
    ends: Vec<TokenId>,
}

impl Usable {
    pub(super) fn new(env: TokEnv, ends: Vec<TokenId>) -> Self {
        let trie = env.tok_trie();
        let mut text = vec![0; trie.vocab_size().div_ceil(32)];
        for id in (0..trie.vocab_size() as TokenId).filter(|&id| trie.token_len(id) > 0) {
            text[id as usize / 32] |= 1 << (id % 32);
        }
        let quoted = Quoted::of(trie);
        Self { env, text, quoted, ends }
    }

    fn trie(&self) -> &TokTrie {
        self.env.tok_trie()
    }
}

impl Follower {
    pub(super) fn new(matcher: Matcher, usable: Arc<Usable>, is_json: bool) -> Self {
        Self { matcher, usable, names: is_json.then(Names::default) }
    }

    fn checked<T>(&self, result: anyhow::Result<T>) -> Result<T, OutOfBounds> {
        result.map_err(|error| {
            let reason = self.matcher.stop_reason();
            tracing::debug!(%error, %reason, "an answer cannot go on within its grammar");
            OutOfBounds
        })
    }
}

impl Constraint for Follower {
    fn allowed(&mut self) -> Result<TokenSet, OutOfBounds> {
        let mask = self.matcher.compute_mask();
        let mask = self.checked(mask)?;
        let may_end = self.matcher.is_accepting();
        let may_end = self.checked(may_end)?;
        let words = mask.as_slice().iter().zip(&self.usable.text);
        let mut words: Vec<u32> = words.map(|(mask, usable)| mask & usable).collect();
        if may_end {
            for &end in &self.usable.ends {
                words[end as usize / 32] |= 1 << (end % 32);
            }
        }
        // What the grammar wants has no token: a special one, or a byte that the vocabulary lacks.
        if words.iter().all(|&word| word == 0) {
            return Err(OutOfBounds);
        }
        if let Some(names) = &mut self.names {
            names.forbid(&self.usable.quoted, &mut words);
        }
        Ok(TokenSet::from_words(words))
    }

    fn accept(&mut self, token: TokenId) -> Result<Stage, OutOfBounds> {
        let consumed = self.matcher.consume_token(token);
        self.checked(consumed)?;
        if let Some(names) = &mut self.names {
            names.accept(self.usable.trie().token(token));
        }
        match self.matcher.is_stopped() {
            false => Ok(Stage::Open),
            true if self.matcher.stop_reason().is_ok() => Ok(Stage::Complete),
            true => Err(OutOfBounds),
        }
    }

    fn take_back(&mut self, count: usize) -> Result<(), OutOfBounds> {
        let taken = self.matcher.rollback(count);
        self.checked(taken)?;
        if let Some(names) = &mut self.names {
            names.take_back(count);
        }
        Ok(())
    }

    fn forced(&mut self) -> Result<Vec<TokenId>, OutOfBounds> {
        let mut tokens = self.matcher.compute_ff_tokens();
        if self.matcher.is_error() {
            return Err(OutOfBounds);
        }
        if let Some(names) = &mut self.names {
            // What would repeat a name is the mask's to forbid.
            let trie = self.usable.trie();
            let sound = |most: &usize| {
                !names.repeats(tokens[..*most].iter().map(|&token| trie.token(token)))
            };
            let most = (0..=tokens.len()).rev().find(sound).unwrap_or(0);
            tokens.truncate(most);
        }
        Ok(tokens)
    }
}

impl std::fmt::Debug for Follower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follower").finish_non_exhaustive()
    }
}
