//! Temperature, truncation and the draw.
//!
//! The vocabulary is never sorted as a whole: `top_k` keeps a short list while it passes over the
//! row, `top_p` sorts from the top until it has enough, and a plain draw looks for its token in sums
//! of 64.

use crate::backend::cpu::vocab::{SPAN, exp, exp_sums};
use crate::engine::message::{Sampling, TokenId};

/// Shortest list that `top_k` prunes, and the first part of a list that `top_p` sorts.
const SHORT: usize = 64;

/// A token and its logit in one word: ascending order is descending logit, then ascending id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate(u64);

impl Candidate {
    fn new(id: usize, logit: f32) -> Self {
        // -0 and +0 are one value, so that they tie.
        let bits = (logit + 0.0).to_bits();
        // Rising with the logit; see IEEE 754's total order.
        let rising = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
        Self(u64::from(!rising) << 32 | id as u64)
    }

    fn id(self) -> TokenId {
        self.0 as u32
    }

    fn logit(self) -> f32 {
        let rising = !((self.0 >> 32) as u32);
        f32::from_bits(if rising >> 31 == 1 { rising & !(1 << 31) } else { !rising })
    }
}

/// Buffers of the draw; they hold nothing between two calls.
#[derive(Debug)]
pub(super) struct Picker {
    candidates: Vec<Candidate>,
    span_sums: Vec<f64>,
}

/// A tempered softmax before its division: `e^((logit - max) / temperature)`.
#[derive(Debug, Clone, Copy)]
struct Tempered {
    max: f32,
    scale: f32,
}

impl Tempered {
    fn weight(self, logit: f32) -> f64 {
        f64::from(exp((logit - self.max) * self.scale))
    }

    /// The logit whose weight is `weight`, at most the highest.
    fn logit_of(self, weight: f64) -> f32 {
        (f64::from(self.max) + weight.ln().min(0.0) / f64::from(self.scale)) as f32
    }
}

impl Picker {
    pub(super) fn new(vocab: usize) -> Self {
        Self {
            candidates: Vec::with_capacity(vocab),
            span_sums: Vec::with_capacity(vocab.div_ceil(SPAN)),
        }
    }

    /// Draws by `uniform` in [0, 1). `max` is the row's highest logit, and finite.
    pub(super) fn pick(&mut self, row: &[f32], max: f32, s: &Sampling, uniform: f64) -> usize {
        let tempered = Tempered { max, scale: s.temperature.recip() };
        let top_k = s.top_k > 0 && (s.top_k as usize) < row.len();
        let (min_p, top_p) = (s.min_p > 0.0, s.top_p < 1.0);
        if !top_k && !min_p && !top_p {
            return self.draw_from_row(row, tempered, uniform);
        }
        // Masked tokens are below the lowest finite value.
        let mut lowest = f32::MIN;
        if min_p {
            lowest = lowest.max(tempered.logit_of(f64::from(s.min_p)));
        }
        let mut row_total = None;
        if top_k {
            self.keep_best(row, s.top_k as usize, lowest);
        } else {
            if top_p && !min_p {
                let total = self.sum_row(row, tempered);
                row_total = Some(total);
                lowest = lowest.max(tempered.logit_of(tail_weight(s.top_p, total, row.len())));
            }
            self.keep_above(row, lowest);
        }
        let weights = || self.candidates.iter().map(|c| tempered.weight(c.logit()));
        let mut total = row_total.unwrap_or_else(|| weights().sum());
        if top_p {
            total = self.keep_nucleus(f64::from(s.top_p) * total, tempered);
        }
        self.draw_from_candidates(uniform * total, tempered)
    }

    /// The `count` highest logits, highest first, ties by lowest id.
    pub(super) fn best(
        &mut self,
        row: &[f32],
        count: usize,
    ) -> impl Iterator<Item = (TokenId, f32)> + '_ {
        self.keep_best(row, count, f32::NEG_INFINITY);
        self.candidates.sort_unstable();
        self.candidates.iter().map(|c| (c.id(), c.logit()))
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.candidates.capacity() + self.span_sums.capacity()
    }

    /// A buffer for the sums of a row.
    pub(super) fn sums(&mut self) -> &mut Vec<f64> {
        &mut self.span_sums
    }

    fn keep_above(&mut self, row: &[f32], lowest: f32) {
        self.candidates.clear();
        let kept = row.iter().enumerate().filter(|&(_, &x)| x >= lowest);
        self.candidates.extend(kept.map(|(id, &x)| Candidate::new(id, x)));
    }

    /// Keeps the `count` best of those at or above `lowest`, in no particular order.
    fn keep_best(&mut self, row: &[f32], count: usize, mut lowest: f32) {
        self.candidates.clear();
        if count == 0 {
            return;
        }
        let full = (2 * count).max(SHORT);
        for (id, &logit) in row.iter().enumerate() {
            if logit >= lowest {
                self.candidates.push(Candidate::new(id, logit));
                if self.candidates.len() >= full {
                    // Whoever comes later has a higher id and must beat the last of these.
                    lowest = self.prune(count).next_up();
                }
            }
        }
        if self.candidates.len() > count {
            self.prune(count);
        }
    }

    /// Keeps the `count` best and returns the lowest logit among them.
    fn prune(&mut self, count: usize) -> f32 {
        let (_, last, _) = self.candidates.select_nth_unstable(count - 1);
        let lowest = last.logit();
        self.candidates.truncate(count);
        lowest
    }

    /// Keeps the fewest of the most probable candidates whose weights reach `wanted`, at least one,
    /// and returns their sum. They end up sorted.
    fn keep_nucleus(&mut self, wanted: f64, tempered: Tempered) -> f64 {
        let (mut sum, mut kept, mut sorted) = (0.0, 0, 0);
        while kept < self.candidates.len() && (kept == 0 || sum < wanted) {
            if kept == sorted {
                sorted = self.sort_on(sorted);
            }
            sum += tempered.weight(self.candidates[kept].logit());
            kept += 1;
        }
        self.candidates.truncate(kept);
        sum
    }

    /// The first `sorted` candidates are sorted and the best: goes on with the next, three times as
    /// many, and returns how many are sorted then.
    fn sort_on(&mut self, sorted: usize) -> usize {
        let rest = &mut self.candidates[sorted..];
        let more = (3 * sorted).max(SHORT).min(rest.len());
        if more < rest.len() {
            rest.select_nth_unstable(more);
        }
        rest[..more].sort_unstable();
        sorted + more
    }

    fn draw_from_candidates(&self, mut target: f64, tempered: Tempered) -> usize {
        let mut chosen = 0;
        for candidate in &self.candidates {
            let weight = tempered.weight(candidate.logit());
            if weight > 0.0 {
                chosen = candidate.id() as usize;
                if target < weight {
                    break;
                }
                target -= weight;
            }
        }
        chosen
    }

    /// Fills [`Self::span_sums`] and returns their sum.
    fn sum_row(&mut self, row: &[f32], tempered: Tempered) -> f64 {
        exp_sums(row, tempered.max, tempered.scale, &mut self.span_sums);
        self.span_sums.iter().sum()
    }

    fn draw_from_row(&mut self, row: &[f32], tempered: Tempered, uniform: f64) -> usize {
        let mut target = uniform * self.sum_row(row, tempered);
        let mut chosen = 0;
        for (at, &sum) in self.span_sums.iter().enumerate() {
            if sum > 0.0 {
                chosen = at;
                if target < sum {
                    break;
                }
                target -= sum;
            }
        }
        let first = chosen * SPAN;
        let span = &row[first..row.len().min(first + SPAN)];
        let mut token = 0;
        for (at, &logit) in span.iter().enumerate() {
            let weight = tempered.weight(logit);
            if weight > 0.0 {
                token = at;
                if target < weight {
                    break;
                }
                target -= weight;
            }
        }
        first + token
    }
}

/// A weight that no token of the nucleus is below: all tokens under it together have less than
/// `1 - top_p` of the total. Halved, so that rounding cannot cut into the nucleus.
fn tail_weight(top_p: f32, total: f64, vocab: usize) -> f64 {
    (1.0 - f64::from(top_p)) * total / vocab as f64 / 2.0
}
