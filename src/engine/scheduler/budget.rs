//! How much of the prompts fits into a step that those who answer wait for.
//!
//! A step is taken to cost `base + row * rows + key * keys + pair * pairs`: keys are the positions that
//! a chunk must read, once for all of its rows, and a pair is a row and a position that it attends to.
//! So a chunk far into a long prompt costs more than the same chunk at its beginning, and a short one
//! hardly less than a long one. The four costs are followed by a Kalman filter whose state walks at random, so that what steps
//! of one kind tell is not forgotten while only steps of another kind come. It sees nothing but the
//! engine's clock.

use crate::engine::sequence::Stage;

/// What a step may take beside those who answer, for each prompt that waits: this many times what
/// it takes for those who answer alone. With one prompt, streams slow down to half their pace.
const TIMES_A_PROMPT: f64 = 1.0;

/// Tokens of prompts that a step takes at least, however long it may take: fewer would read all that
/// is before them almost for nothing.
const LEAST_TOKENS: usize = 16;

/// Rows, keys and pairs as the filter counts them: so that all costs are of one order.
const ROWS_UNIT: f64 = 16.0;
const KEYS_UNIT: f64 = 1024.0;
const PAIRS_UNIT: f64 = 16.0 * 1024.0;

/// Deviation of a measured time, and of a cost from one step to the next, against the step's time.
const NOISE: f64 = 0.2;
const WALK: f64 = 0.02;

/// What a step, or a part of one, holds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Load {
    rows: f64,
    keys: f64,
    pairs: f64,
    /// Readings of all weights beside the first.
    passes: f64,
}

/// What a load is made of, in the order of [`StepCost::costs`]: a step, its rows, keys and pairs.
const TERMS: usize = 4;
type Terms = [f64; TERMS];

impl Load {
    /// `tokens` rows from position `start` on.
    pub(super) fn of(start: usize, tokens: usize) -> Self {
        let (start, rows) = (start as f64, tokens as f64);
        Self { rows, keys: start, pairs: rows * (start + f64::midpoint(rows, 1.0)), passes: 0.0 }
    }

    /// The same, or one stage of it.
    pub(super) fn of_work(start: usize, tokens: usize, stage: Option<Stage>) -> Self {
        let Self { rows, keys, pairs, .. } = Self::of(start, tokens);
        let share = stage.map_or(1.0, Stage::share);
        let passes = if stage.is_some() { share } else { 0.0 };
        Self { rows: share * rows, keys: share * keys, pairs: share * pairs, passes }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.rows += other.rows;
        self.keys += other.keys;
        self.pairs += other.pairs;
        self.passes += other.passes;
    }

    fn terms(self) -> Terms {
        [1.0 + self.passes, self.rows / ROWS_UNIT, self.keys / KEYS_UNIT, self.pairs / PAIRS_UNIT]
    }
}

/// The costs of a step, in milliseconds, and how sure they are.
#[derive(Debug, Clone)]
pub(super) struct StepCost {
    costs: Terms,
    /// Covariance of `costs`; symmetric. Nothing is known before the first step.
    spread: Option<[Terms; TERMS]>,
}

impl StepCost {
    pub(super) fn new() -> Self {
        Self { costs: [0.0; TERMS], spread: None }
    }

    /// Costs that are known: of a step, of 16 rows, of 1,024 keys and of 16 Ki pairs.
    #[cfg(test)]
    pub(super) fn known(costs: [f64; 4]) -> Self {
        Self { costs, spread: Some([[0.0; TERMS]; TERMS]) }
    }

    /// Takes in that a step of `load` took `ms`.
    pub(super) fn learn(&mut self, load: Load, ms: f64) {
        // A clock that stood still tells nothing.
        if ms <= 0.0 {
            return;
        }
        let x = load.terms();
        // A step that took far too long says little of how costs change.
        let usual = self.predict(load).clamp(ms / 10.0, ms);
        let mut spread = self.spread.unwrap_or_default();
        for (i, row) in spread.iter_mut().enumerate() {
            row[i] += if self.spread.is_none() { ms } else { WALK * usual }.powi(2);
        }
        let px = spread.map(|row| dot(row, x));
        let total = dot(x, px) + (NOISE * ms).powi(2);
        let error = ms - dot(x, self.costs);
        for i in 0..TERMS {
            self.costs[i] += px[i] / total * error;
            for j in 0..TERMS {
                spread[i][j] -= px[i] * px[j] / total;
            }
        }
        self.spread = Some(spread);
        self.stay_positive(&spread);
    }

    /// Moves what fell below zero to it, and the others along as they are correlated: cut off alone,
    /// it would leave them to run away from what was measured (estimate projection, Simon 2010).
    fn stay_positive(&mut self, spread: &[Terms; TERMS]) {
        for _ in 0..TERMS {
            let lowest = (0..TERMS).min_by(|&i, &j| self.costs[i].total_cmp(&self.costs[j]));
            let Some(i) = lowest.filter(|&i| self.costs[i] < 0.0) else { return };
            let excess = self.costs[i] / spread[i][i];
            for (cost, row) in self.costs.iter_mut().zip(spread) {
                *cost -= row[i] * excess;
            }
        }
        self.costs = self.costs.map(|cost| cost.max(0.0));
    }

    /// What a step of `load` will take.
    pub(super) fn predict(&self, load: Load) -> f64 {
        dot(load.terms(), self.costs)
    }

    /// What `load` adds to a step.
    fn extra(&self, load: Load) -> f64 {
        self.predict(load) - self.costs[0]
    }

    /// What the prompts of a step may take while `answering` waits for it and `prompts` of them want a
    /// part; nothing bounds it while nobody waits, or before anything is known.
    pub(super) fn allowance(&self, answering: Load, prompts: usize) -> Allowance<'_> {
        let bounded = answering.rows > 0.0 && self.spread.is_some();
        let ms = TIMES_A_PROMPT * prompts as f64 * self.predict(answering);
        Allowance { cost: self, left_ms: bounded.then_some(ms), given: 0 }
    }
}

/// What is left for prompts in the step that is being planned.
#[derive(Debug)]
pub(super) struct Allowance<'a> {
    cost: &'a StepCost,
    left_ms: Option<f64>,
    given: usize,
}

impl Allowance<'_> {
    /// Tokens from position `start` on that still fit into what is left.
    pub(super) fn tokens(&self, start: usize) -> usize {
        let Some(left) = self.left_ms else { return usize::MAX };
        self.fit(start, left).max(LEAST_TOKENS.saturating_sub(self.given))
    }

    /// The same if they may take `times` as long, and read all weights once more.
    pub(super) fn part_tokens(&self, start: usize, times: f64) -> usize {
        let Some(left) = self.left_ms else { return usize::MAX };
        self.fit(start, times * left - self.cost.costs[0]).max(LEAST_TOKENS)
    }

    /// How many `layers`th parts of a chunk that passes them by itself fit into what is left.
    pub(super) fn parts(&self, start: usize, tokens: usize, layers: usize) -> f64 {
        let stage = Stage { from: 0, to: 1, all: layers };
        let ms = self.cost.extra(Load::of_work(start, tokens, Some(stage)));
        self.left_ms.map_or(f64::INFINITY, |left| left / ms)
    }

    /// Tokens from `start` on that take `left` ms.
    fn fit(&self, start: usize, left: f64) -> usize {
        let [_, row, key, pair] = self.cost.costs;
        let (row, pair) = (row / ROWS_UNIT, pair / PAIRS_UNIT);
        let left = (left - key / KEYS_UNIT * start as f64).max(0.0);
        // pair/2 n^2 + (row + pair (start + 1/2)) n = left
        let (a, b) = (pair / 2.0, row + pair * (start as f64 + 0.5));
        let root = (b * b + 4.0 * a * left).sqrt();
        if b + root > 0.0 { (2.0 * left / (b + root)) as usize } else { usize::MAX }
    }

    /// Takes the cost of `tokens` tokens from position `start` on away, or of one stage of it.
    pub(super) fn take(&mut self, start: usize, tokens: usize, stage: Option<Stage>) {
        let cost = self.cost.extra(Load::of_work(start, tokens, stage));
        self.left_ms = self.left_ms.map(|left| (left - cost).max(0.0));
        self.given += tokens;
    }
}

fn dot(a: Terms, b: Terms) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine that takes 4 ms a step, 0.1 ms a row, 1 ms for 2,048 keys and for 65,536 pairs.
    fn machine(load: Load) -> f64 {
        4.0 + 0.1 * load.rows + load.keys / 2048.0 + load.pairs / 65_536.0
    }

    fn decode() -> Load {
        Load::of(100, 1)
    }

    /// Answers alone for a while, then beside prompts as the allowance has it.
    fn learned() -> StepCost {
        let mut cost = StepCost::new();
        for _ in 0..100 {
            cost.learn(decode(), machine(decode()));
        }
        let mut start = 0;
        while start < 8000 {
            let mut step = decode();
            let tokens = cost.allowance(decode(), 1).tokens(start).min(256);
            step.add(Load::of(start, tokens));
            cost.learn(step, machine(step));
            start += tokens;
        }
        cost
    }

    #[test]
    fn a_step_keeps_to_its_time_wherever_the_chunk_lies() {
        let cost = learned();
        let alone = machine(decode());
        for start in [0, 500, 1000, 4000] {
            let mut step = decode();
            step.add(Load::of(start, cost.allowance(decode(), 1).tokens(start)));
            let times = machine(step) / alone;
            assert!((1.7..2.3).contains(&times), "{times} at {start}");
        }
        let far = cost.allowance(decode(), 1).tokens(4000);
        assert!(far < cost.allowance(decode(), 1).tokens(0) / 2, "pairs count");
    }

    #[test]
    fn what_answers_alone_cost_is_not_forgotten_among_prompts() {
        let predicted = learned().predict(decode());
        assert!((predicted / machine(decode()) - 1.0).abs() < 0.2, "{predicted}");
    }

    #[test]
    fn answers_that_get_faster_are_believed() {
        let mut cost = StepCost::new();
        cost.learn(Load::of(0, 32), 22.0);
        let ms = |n: usize| 3.1 + 2.5 / (1.0 + n as f64 / 4.0);
        for n in 0..400 {
            let load = Load::of(32 + n, 1);
            cost.learn(load, ms(n));
            let predicted = cost.predict(load);
            assert!((0.5..2.0).contains(&(predicted / ms(n))), "{predicted} after {n}");
        }
    }

    #[test]
    fn one_step_that_took_long_changes_little() {
        let mut cost = learned();
        let before = cost.predict(decode());
        cost.learn(decode(), 100.0 * before);
        assert!(cost.predict(decode()) < 2.0 * before);
    }

    #[test]
    fn more_that_wait_get_more_and_nobody_gets_nothing() {
        let cost = learned();
        let tokens = |prompts| cost.allowance(decode(), prompts).tokens(0);
        assert!(tokens(8) > 5 * tokens(1));
        let mut allowance = cost.allowance(decode(), 1);
        assert_eq!(allowance.tokens(1 << 20), LEAST_TOKENS);
        allowance.take(1 << 20, LEAST_TOKENS, None);
        assert_eq!(allowance.tokens(0), 0);
    }

    #[test]
    fn nothing_bounds_prompts_that_nobody_waits_for() {
        assert_eq!(learned().allowance(Load::default(), 1).tokens(0), usize::MAX);
        let mut unknown = StepCost::new();
        unknown.learn(decode(), 0.0);
        assert_eq!(unknown.allowance(decode(), 1).tokens(0), usize::MAX);
    }
}
