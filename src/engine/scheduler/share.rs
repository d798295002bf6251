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
    /// Of a chunk that does not begin its sequence.
    later_tokens: usize,
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
            later_tokens: limits.later_tokens,
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
        if s.computed > 0 {
            most = most.min(self.later_tokens);
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::message::{RequestId, Sampling};
    use crate::engine::sequence::tests::choice;

    const LAYERS: usize = 12;

    fn limits(layers: usize) -> Limits {
        Limits { layers, ..crate::engine::scheduler::tests::limits(8, 256, 64) }
    }

    /// A step takes 4 ms, a row 0.1 ms, 8,192 pairs 1 ms.
    fn cost() -> StepCost {
        StepCost::known([4.0, 1.6, 0.0, 2.0])
    }

    fn sequence(arrival: u64, prompt: usize, computed: usize) -> Sequence {
        let choice = choice(prompt, 9, Sampling::default());
        let mut s = Sequence::new(arrival, RequestId(arrival), 0, choice, 100_000);
        s.computed = computed;
        s
    }

    fn part(s: &Sequence, running: &[&Sequence], layers: usize) -> (Chunk, Option<Stage>) {
        let mut demand = Demand { answering: 1, load: Load::of(100, 1), ..Demand::default() };
        for s in running {
            demand.prompts += s.pending();
            demand.under_way |= s.under_way.is_some();
        }
        let cost = cost();
        Left::new(&limits(layers), &demand, &cost, running.len()).chunk(s).unwrap()
    }

    /// What the stage of `s` takes, in ms.
    fn ms(s: &Sequence, tokens: usize, stage: Stage) -> f64 {
        let load = Load::of_work(s.computed, tokens, Some(stage));
        cost().predict(load) - cost().predict(Load::default())
    }

    /// What prompts may take beside the one that answers.
    fn time(prompts: usize) -> f64 {
        prompts as f64 * cost().predict(Load::of(100, 1))
    }

    /// Layers that the largest part of `s` goes through, if it takes `time` or somewhat more.
    fn layers_for(s: &Sequence, time: f64) -> usize {
        (time / ms(s, PART_TOKENS, Stage { from: 0, to: 1, all: LAYERS })).ceil() as usize
    }

    #[test]
    fn a_part_takes_the_time_there_is_to_the_layer_and_the_token() {
        for start in [4000, 6000, 9000, 12_000, 20_000] {
            let s = sequence(0, 30_000, start);
            let (chunk, stage) = part(&s, &[&s], LAYERS);
            let (stage, time) = (stage.unwrap(), time(1));
            let took = |tokens| ms(&s, tokens, stage);
            assert_eq!((stage.from, stage.all, chunk.logit_rows()), (0, LAYERS, 0));
            assert_eq!(stage.to, layers_for(&s, time), "{start}: the next whole number of layers");
            assert!(
                took(chunk.tokens) <= time * 1.001,
                "{start}: {} of {time}",
                took(chunk.tokens)
            );
            assert!(
                chunk.tokens == PART_TOKENS || took(chunk.tokens + 1) > time,
                "{start}: {} tokens take {} of {time}",
                chunk.tokens,
                took(chunk.tokens)
            );
        }
    }

    #[test]
    fn a_part_leaves_half_of_the_time_to_the_prompts_behind_it() {
        let (s, behind) = (sequence(0, 30_000, 4000), sequence(1, 9000, 0));
        let (chunk, stage) = part(&s, &[&s, &behind], LAYERS);
        let (took, stage) = (ms(&s, chunk.tokens, stage.unwrap()), stage.unwrap());
        assert_eq!(stage.to, layers_for(&s, time(2) / 2.0));
        assert!((0.9..1.001).contains(&(took / (time(2) / 2.0))), "{took} of {}", time(2));
        let mut goes_on = sequence(0, 30_000, 12_000);
        goes_on.under_way = Some(UnderWay { tokens: 64, layer: 3 });
        let alone = part(&goes_on, &[&goes_on], LAYERS).1.unwrap();
        let beside = part(&goes_on, &[&goes_on, &behind], LAYERS).1.unwrap();
        assert_eq!(alone, beside, "half of the time of two");
    }

    #[test]
    fn a_chunk_under_way_keeps_its_tokens_and_goes_on_where_it_stopped_to_the_last_layer() {
        let mut s = sequence(0, 30_000, 2000);
        for layer in 1..LAYERS {
            s.under_way = Some(UnderWay { tokens: 40, layer });
            let (chunk, stage) = part(&s, &[&s], LAYERS);
            let stage = stage.unwrap();
            assert_eq!((chunk.tokens, stage.from), (40, layer));
            let one = ms(&s, 40, Stage { from: 0, to: 1, all: LAYERS });
            // The whole number of layers that comes next to the time.
            let layers = (time(1) / one).round() as usize;
            assert!(layers > 1, "there is something to cut off at the end");
            assert_eq!(stage.to, (layer + layers).min(LAYERS));
        }
        s.under_way = Some(UnderWay { tokens: 64, layer: 5 });
        s.computed = 29_000;
        s.tokens.extend(std::iter::repeat_n(0, 200_000));
        s.computed = 200_000;
        let stage = part(&s, &[&s], LAYERS).1.unwrap();
        assert_eq!((stage.from, stage.to), (5, 6), "one at least, though it takes too long");
    }

    #[test]
    fn nothing_is_cut_between_layers_where_a_chunk_fits_or_cannot_be_cut() {
        let (near, short) = (sequence(0, 30_000, 0), sequence(1, 2, 0));
        let all = [&near, &short, &short, &short];
        let (chunk, stage) = part(&near, &all, LAYERS);
        assert!(chunk.tokens >= PART_TOKENS && stage.is_none(), "so many fit: no need");
        let far = sequence(0, 30_000, 12_000);
        assert!(part(&far, &[&far], LAYERS).1.is_some());
        assert_eq!(part(&far, &[&far], 1).1, None, "there is one layer only");
        let mut other = sequence(1, 30_000, 12_000);
        other.under_way = Some(UnderWay { tokens: 64, layer: 3 });
        assert_eq!(part(&far, &[&far, &other], LAYERS).1, None, "another is under way");
        let end = sequence(0, 12_017, 12_000);
        let (chunk, stage) = part(&end, &[&end], LAYERS);
        assert_eq!((chunk.tokens, stage), (16, None), "its end fits but for what samples");
    }

    #[test]
    fn a_chunk_that_begins_its_sequence_may_be_longer_than_later_ones() {
        let limits = Limits { later_tokens: 16, ..limits(1) };
        for (computed, tokens) in [(0, 256), (256, 16)] {
            let s = sequence(0, 1000, computed);
            let demand = Demand::of(std::slice::from_ref(&s));
            let (chunk, stage) = Left::new(&limits, &demand, &cost(), 1).chunk(&s).unwrap();
            assert_eq!((chunk.tokens, stage), (tokens, None));
        }
    }

    #[test]
    fn the_first_in_line_takes_half_unless_the_others_leave_more() {
        assert_eq!(prompt_share(64, 0), 64);
        assert_eq!(prompt_share(64, 20), 44);
        assert_eq!(prompt_share(64, 1000), 32);
        assert_eq!(prompt_share(1, 1000), 1);
    }
}
