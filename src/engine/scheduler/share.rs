//! What one step has, as it is handed out: tokens, rows of logits, and the time that prompts may take.

use super::Limits;
use super::budget::{Allowance, Load, StepCost};
use crate::engine::sequence::{Chunk, Sequence, Stage, UnderWay};

/// A chunk that is worth what it reads. Where no such chunk fits into a step, the first prompt in line
/// takes one through some of the layers in each of several steps.
const PART_TOKENS: usize = 64;

/// What those that run ask of a step.
#[derive(Debug, Default)]
pub(super) struct Demand {
    /// Sequences with one token to go.
    pub(super) answering: usize,
    load: Load,
    /// Tokens of prompts.
    pub(super) prompts: usize,
    /// A chunk is between two layers.
    under_way: bool,
}

impl Demand {
    pub(super) fn of(running: &[Sequence]) -> Self {
        let mut demand = Self::default();
        for s in running {
            match s.pending() {
                1 => {
                    demand.answering += 1;
                    demand.load.add(Load::of(s.computed, 1));
                }
                pending => demand.prompts += pending,
            }
            demand.under_way |= s.under_way.is_some();
        }
        demand
    }
}

/// What is left of a step.
#[derive(Debug)]
pub(super) struct Left<'a> {
    pub(super) tokens: usize,
    pub(super) rows: usize,
    allowance: Allowance<'a>,
    /// Tokens of the prompts that have not had their turn.
    prompts: usize,
    /// The next prompt is the first in line.
    is_first: bool,
    /// A chunk may be begun that takes several steps.
    begins_part: bool,
    /// Those that answer may take all tokens.
    scarce: bool,
    layers: usize,
}

impl<'a> Left<'a> {
    /// A whole step within `limits`, while `wait` prompts want a part in it.
    pub(super) fn new(limits: &Limits, demand: &Demand, cost: &'a StepCost, wait: usize) -> Self {
        let load = if limits.by_time { demand.load } else { Load::default() };
        let scarce = demand.answering >= limits.tokens;
        Self {
            tokens: limits.tokens,
            rows: limits.logit_rows,
            allowance: cost.allowance(load, wait),
            prompts: demand.prompts,
            is_first: true,
            begins_part: limits.layers > 1 && !scarce && !demand.under_way,
            scarce,
            layers: limits.layers,
        }
    }

    /// The part in the step of the sequence whose turn it is, if any is left for it.
    pub(super) fn chunk(&mut self, s: &Sequence) -> Option<(Chunk, Option<Stage>)> {
        let mut most = self.tokens;
        if s.pending() > 1 {
            self.prompts -= s.pending();
            let in_time = if self.scarce { 1 } else { self.allowance.tokens(s.computed) };
            most = most.min(in_time);
            if std::mem::take(&mut self.is_first) || s.under_way.is_some() {
                most = prompt_share(most, self.prompts);
                if let Some((chunk, stage)) = self.stage(s, prompt_share(in_time, self.prompts)) {
                    return Some((chunk, Some(stage)));
                }
            }
        }
        s.next_chunk(most, self.rows).map(|chunk| (chunk, None))
    }

    /// The next stage of a chunk that takes several steps: of the one that is under way, or of a new
    /// one if a whole step has time for only `in_time` tokens.
    fn stage(&self, s: &Sequence, in_time: usize) -> Option<(Chunk, Stage)> {
        // Those behind it get as much.
        let share = if self.prompts > 0 { 0.5 } else { 1.0 };
        let begin = || {
            // All but the last token, which samples.
            let most = PART_TOKENS.min(self.tokens).min(s.pending() - 1);
            let begins = self.begins_part && in_time < most && !s.is_scoring();
            // So many that a whole number of layers takes just the time there is.
            let layers = (share * self.allowance.parts(s.computed, most, self.layers)).ceil();
            let times = share * self.layers as f64 / layers.max(1.0);
            let tokens = self.allowance.part_tokens(s.computed, times);
            begins.then_some(UnderWay { tokens: tokens.min(most), layer: 0 })
        };
        let UnderWay { tokens, layer: from } = s.under_way.or_else(begin)?;
        let layers = share * self.allowance.parts(s.computed, tokens, self.layers);
        let to = from + (layers.round() as usize).clamp(1, self.layers - from);
        Some((Chunk::silent(tokens), Stage { from, to, all: self.layers }))
    }

    /// `s` got `chunk`, or a stage of it.
    pub(super) fn take(&mut self, s: &Sequence, chunk: Chunk, stage: Option<Stage>) {
        if stage.is_none() {
            self.tokens -= chunk.tokens;
        }
        self.rows -= chunk.logit_rows();
        if s.pending() > 1 {
            self.allowance.take(s.computed, chunk.tokens, stage);
        }
    }
}

/// What the first prompt in line may take of the `tokens` left in a step, while the prompts behind it
/// want `others`: not more than half, unless they leave more.
fn prompt_share(tokens: usize, others: usize) -> usize {
    tokens.saturating_sub(others).max(tokens.div_ceil(2))
}
