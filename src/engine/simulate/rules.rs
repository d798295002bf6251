//! A grammar without grammar: what may come next is thrown from a hash of all that came before.

use std::sync::Arc;

use super::dice::Dice;
use crate::engine::constraint::{Constraint, OutOfBounds, Stage, TokenSet};
use crate::engine::message::TokenId;
use crate::model::ModelSpec;

/// Longest run of tokens that are forced at once.
const FORCED_MAX: usize = 8;

/// Of all choices of a request.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    vocab: usize,
    end_tokens: Arc<[TokenId]>,
    seed: u64,
    /// Some histories go beyond its limits.
    pub(super) fails: bool,
}

impl Rules {
    pub(super) fn draw(dice: &mut Dice, spec: &ModelSpec) -> Self {
        let end_tokens = spec.end_tokens.as_slice().into();
        Self { vocab: spec.vocab, end_tokens, seed: dice.throw(), fails: dice.chance(0.1) }
    }

    pub(super) fn constraint(&self) -> Box<dyn Constraint> {
        Box::new(Follower { rules: self.clone(), states: vec![self.seed] })
    }

    /// The only token that may come in this state.
    fn forced(&self, state: u64) -> Option<TokenId> {
        (state >> 8).is_multiple_of(3).then(|| self.some_token(state))
    }

    /// One that is no end.
    fn some_token(&self, state: u64) -> TokenId {
        let mut dice = Dice::new(state);
        loop {
            let token = dice.up_to(0, self.vocab - 1) as TokenId;
            if !self.end_tokens.contains(&token) {
                return token;
            }
        }
    }
}

fn is_complete(state: u64) -> bool {
    state.is_multiple_of(37)
}

fn after(state: u64, token: TokenId) -> u64 {
    Dice::new(state ^ u64::from(token)).throw()
}

/// A constraint with a memory: a token told twice, or not taken back, changes all that comes.
#[derive(Debug)]
struct Follower {
    rules: Rules,
    /// After each number of tokens.
    states: Vec<u64>,
}

impl Follower {
    fn state(&self) -> u64 {
        self.states[self.states.len() - 1]
    }
}

impl Constraint for Follower {
    fn allowed(&mut self) -> Result<TokenSet, OutOfBounds> {
        let (rules, state) = (&self.rules, self.state());
        let mut words = vec![0_u32; rules.vocab.div_ceil(32)];
        let mut allow = |token: TokenId| words[token as usize / 32] |= 1 << (token % 32);
        if let Some(token) = rules.forced(state) {
            allow(token);
            return Ok(TokenSet::from_words(words));
        }
        if rules.fails && state.is_multiple_of(53) {
            return Err(OutOfBounds);
        }
        let mut dice = Dice::new(state);
        let may_end = dice.chance(0.2);
        for token in 0..rules.vocab as TokenId {
            let may_come = dice.chance(0.3);
            if if rules.end_tokens.contains(&token) { may_end } else { may_come } {
                allow(token);
            }
        }
        allow(rules.some_token(state));
        Ok(TokenSet::from_words(words))
    }

    fn accept(&mut self, token: TokenId) -> Result<Stage, OutOfBounds> {
        let next = after(self.state(), token);
        self.states.push(next);
        Ok(if is_complete(next) { Stage::Complete } else { Stage::Open })
    }

    fn take_back(&mut self, count: usize) -> Result<(), OutOfBounds> {
        self.states.truncate(self.states.len() - count);
        Ok(())
    }

    fn forced(&mut self) -> Result<Vec<TokenId>, OutOfBounds> {
        let mut state = self.state();
        let mut tokens = Vec::new();
        while tokens.len() < FORCED_MAX && !is_complete(state) {
            let Some(token) = self.rules.forced(state) else { break };
            tokens.push(token);
            state = after(state, token);
        }
        Ok(tokens)
    }
}
