//! What a crowd asks: prompts that begin alike or not, and how they are to be answered.

use std::sync::Arc;

use super::Stage;
use super::dice::Dice;
use super::rules::Rules;
use crate::backend::BLOCK_TOKENS;
use crate::engine::message::{CacheSalt, Choice, Namespace, Sampling, StopWatch, Tenant, TokenId};
use crate::model::ModelSpec;

/// One choice as it is asked for.
#[derive(Debug, Clone)]
pub(super) struct ChoicePlan {
    pub(super) index: u32,
    pub(super) prompt: Arc<[TokenId]>,
    pub(super) max_new: u32,
    pub(super) sampling: Arc<Sampling>,
    pub(super) seed: u64,
    pub(super) sample: u32,
    /// Stops where the hash of all tokens so far is a multiple of this.
    stops_every: Option<u64>,
    pub(super) rules: Option<Rules>,
}

/// A stop watch with a memory: a token told twice, or not at all, changes where it stops.
#[derive(Debug)]
struct HashWatch {
    every: u64,
    hash: u64,
}

impl StopWatch for HashWatch {
    fn is_stop(&mut self, token: TokenId) -> bool {
        self.hash = Dice::new(self.hash ^ u64::from(token)).throw();
        self.hash.is_multiple_of(self.every)
    }
}

impl ChoicePlan {
    pub(super) fn watch(&self) -> Option<Box<dyn StopWatch>> {
        self.stops_every.map(|every| Box::new(HashWatch { every, hash: 0 }) as Box<dyn StopWatch>)
    }

    pub(super) fn choice(&self) -> Choice {
        Choice {
            prompt: Arc::clone(&self.prompt),
            max_new_tokens: self.max_new,
            sampling: Arc::clone(&self.sampling),
            seed: self.seed,
            sample: self.sample,
            stop: self.watch(),
            constraint: self.rules.as_ref().map(Rules::constraint),
        }
    }
}

/// What prompts of a life begin with, so that some share a prefix.
#[derive(Debug)]
pub(super) struct Themes {
    /// Of full length; prompts take a part.
    shared: Vec<Vec<TokenId>>,
    /// How often a prompt takes one.
    chance: f64,
    tenants: u32,
}

impl Themes {
    pub(super) fn draw(dice: &mut Dice, spec: &ModelSpec) -> Self {
        let count = dice.up_to(1, 3);
        Self {
            shared: (0..count).map(|_| theme(dice, spec)).collect(),
            chance: dice.one_of(&[0.0, 0.5, 0.9]),
            tenants: dice.up_to(1, 3) as u32,
        }
    }

    pub(super) fn namespace(&self, dice: &mut Dice) -> Namespace {
        let salt = dice.chance(0.1).then_some(CacheSalt([1; 32]));
        Namespace { tenant: Tenant(dice.up_to(1, self.tenants as usize) as u32), salt }
    }

    /// At least one token, and room for one more in the context.
    fn prompt(&self, dice: &mut Dice, stage: &Stage<'_>) -> Arc<[TokenId]> {
        let most = stage.spec.max_context;
        let longest = if dice.chance(0.2) { most } else { most.min(stage.scale.prompt) };
        let length = dice.up_to(1, longest - 1);
        if !dice.chance(self.chance) {
            return tokens(length, dice, stage.spec).into();
        }
        let theme = &self.shared[dice.up_to(0, self.shared.len() - 1)];
        let own = if dice.chance(0.3) { 0 } else { dice.up_to(0, 8) };
        let length = dice.up_to(length, most - 1);
        let shared = &theme[..length.saturating_sub(own)];
        let own = tokens(length - shared.len(), dice, stage.spec);
        [shared, &own].concat().into()
    }
}

/// Some repeat themselves, so that blocks of the same tokens follow different prefixes.
fn theme(dice: &mut Dice, spec: &ModelSpec) -> Vec<TokenId> {
    let period = if dice.chance(0.5) { BLOCK_TOKENS } else { spec.max_context };
    let part = tokens(period, dice, spec);
    part.iter().copied().cycle().take(spec.max_context).collect()
}

fn tokens(count: usize, dice: &mut Dice, spec: &ModelSpec) -> Vec<TokenId> {
    (0..count).map(|_| dice.up_to(0, spec.vocab - 1) as TokenId).collect()
}

/// The choices of one request. `before` is what somebody asked earlier.
pub(super) fn draw_choices(
    themes: &Themes,
    before: Option<&ChoicePlan>,
    dice: &mut Dice,
    stage: &mut Stage<'_>,
) -> Result<Vec<ChoicePlan>, String> {
    let prompts = dice.one_of(&[1, 1, 1, 2, 3]);
    let samples = dice.one_of(&[1, 1, 1, 2, 5]);
    let seed = dice.throw();
    let stops_every = dice.chance(0.3).then(|| dice.up_to(5, 60) as u64);
    let sampling = Arc::new(draw_sampling(dice, stage.spec));
    let rules = dice.chance(0.25).then(|| Rules::draw(dice, stage.spec));
    let mut choices = Vec::new();
    for _ in 0..prompts {
        let prompt = match before {
            Some(before) if dice.chance(0.5) => next_turn(before, dice, stage)?,
            _ => themes.prompt(dice, stage),
        };
        let max_new = if dice.chance(0.05) { 0 } else { dice.up_to(1, stage.scale.new_tokens) };
        for sample in 0..samples {
            choices.push(ChoicePlan {
                index: choices.len() as u32,
                prompt: Arc::clone(&prompt),
                max_new: max_new as u32,
                sampling: Arc::clone(&sampling),
                seed,
                sample,
                stops_every,
                rules: rules.clone(),
            });
        }
    }
    Ok(choices)
}

/// As a chat goes on: all of `before` and its answer, and some more, as far as the context goes.
fn next_turn(
    before: &ChoicePlan,
    dice: &mut Dice,
    stage: &mut Stage<'_>,
) -> Result<Arc<[TokenId]>, String> {
    let max_context = stage.spec.max_context;
    let answer = stage.oracle.answer(before, max_context, usize::MAX)?;
    let mut prompt = before.prompt.to_vec();
    prompt.extend(answer.tokens.iter().map(|t| t.token));
    prompt.extend(tokens(dice.up_to(0, 20), dice, stage.spec));
    prompt.truncate(max_context - 1);
    Ok(prompt.into())
}

fn draw_sampling(dice: &mut Dice, spec: &ModelSpec) -> Sampling {
    let bias = |dice: &mut Dice| (dice.up_to(0, spec.vocab - 1) as u32, dice.within(-5.0..=5.0));
    Sampling {
        temperature: if dice.chance(0.3) { 0.0 } else { dice.within(0.1..=2.0) },
        top_p: if dice.chance(0.5) { 1.0 } else { dice.within(0.0..=1.0) },
        top_k: dice.one_of(&[0, 0, 1, 5, 20]),
        min_p: dice.one_of(&[0.0, 0.0, 0.1]),
        frequency_penalty: dice.one_of(&[0.0, 0.0, 0.5, -0.5]),
        presence_penalty: dice.one_of(&[0.0, 0.0, 1.0]),
        repetition_penalty: dice.one_of(&[1.0, 1.0, 1.3]),
        logit_bias: (0..dice.one_of(&[0, 0, 3])).map(|_| bias(dice)).collect(),
        min_tokens: dice.one_of(&[0, 0, 0, 7]),
        ignore_end: dice.chance(0.3),
        stop_tokens: tokens(dice.one_of(&[0, 0, 0, 2]), dice, spec),
        logprobs: dice.one_of(&[None, None, Some(0), Some(3)]),
        prompt_logprobs: dice.one_of(&[None, None, None, Some(0), Some(2)]),
    }
}
