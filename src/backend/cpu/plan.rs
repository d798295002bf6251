//! Where each row of the current step belongs. Filled when a step begins, into room reserved at
//! start: no step allocates.

use super::attention::{SPAN, Unit, partial_floats, rows_in_unit, spans};
use crate::backend::{BLOCK_TOKENS, Batch, BlockId, LogitRows, Reserve};

/// Units are cut into spans where the longest is more than a thread's work divided by this, so that no thread waits for it.
const SHARES: usize = 4;

/// Floats that partial results of cut units may take; beyond it units stay whole.
pub(super) const PARTIAL_FLOATS: usize = 4 << 20;

/// One sequence's rows.
#[derive(Clone, Copy)]
struct Part {
    first_row: usize,
    rows: usize,
    start: usize,
    first_block: usize,
}

/// Some rows of a part, all heads.
#[derive(Clone, Copy)]
pub(super) struct Group {
    part: usize,
    /// In the step.
    pub(super) row: usize,
    rows: usize,
}

/// A unit's share that covers one span.
#[derive(Clone, Copy)]
pub(super) struct Cut {
    pub(super) group: usize,
    pub(super) kv_head: usize,
    pub(super) span: usize,
    /// Where its partial result goes.
    pub(super) at: usize,
}

pub(super) struct Plan {
    parts: Vec<Part>,
    blocks: Vec<BlockId>,
    pub(super) tokens: Vec<u32>,
    /// Rows that logits are wanted for.
    pub(super) logit_rows: Vec<usize>,
    /// Position of each row in its sequence, and its part.
    places: Vec<(usize, usize)>,
    pub(super) groups: Vec<Group>,
    /// Empty: units stay whole.
    pub(super) cuts: Vec<Cut>,
    max_cuts: usize,
    heads_in_group: usize,
    kv_heads: usize,
    head_dim: usize,
    threads: usize,
}

impl Plan {
    pub(super) fn reserve(plan: &Reserve, threads: usize) -> Self {
        let s = &plan.shape;
        let heads_in_group = s.heads / s.kv_heads;
        let a_cut = partial_floats(heads_in_group, s.head_dim);
        let max_cuts = PARTIAL_FLOATS / a_cut;
        let rows = plan.max_rows;
        Self {
            parts: Vec::with_capacity(rows),
            blocks: Vec::with_capacity(rows * plan.max_context.div_ceil(BLOCK_TOKENS)),
            tokens: Vec::with_capacity(rows),
            logit_rows: Vec::with_capacity(plan.max_logit_rows),
            places: Vec::with_capacity(rows),
            groups: Vec::with_capacity(rows),
            cuts: Vec::with_capacity(max_cuts),
            max_cuts,
            heads_in_group,
            kv_heads: s.kv_heads,
            head_dim: s.head_dim,
            threads,
        }
    }

    pub(super) fn rows(&self) -> usize {
        self.tokens.len()
    }

    /// Forgets the step.
    pub(super) fn clear(&mut self) {
        self.parts.clear();
        self.blocks.clear();
        self.tokens.clear();
        self.logit_rows.clear();
        self.places.clear();
        self.groups.clear();
        self.cuts.clear();
    }

    /// Lays out a step whose sizes the decoder has checked.
    pub(super) fn fill(&mut self, batch: &Batch<'_>) {
        self.clear();
        for slice in batch.slices.iter().filter(|s| !s.tokens.is_empty()) {
            let (part, first_row, rows) = (self.parts.len(), self.rows(), slice.tokens.len());
            let held = (slice.start + rows).div_ceil(BLOCK_TOKENS);
            self.parts.push(Part {
                first_row,
                rows,
                start: slice.start,
                first_block: self.blocks.len(),
            });
            self.blocks.extend_from_slice(&slice.blocks[..held]);
            self.tokens.extend_from_slice(slice.tokens);
            self.places.extend((0..rows).map(|i| (slice.start + i, part)));
            match slice.logits {
                LogitRows::None => {}
                LogitRows::Last => self.logit_rows.push(first_row + rows - 1),
                LogitRows::All => self.logit_rows.extend(first_row..first_row + rows),
            }
            let size = rows_in_unit(self.heads_in_group);
            for row in (0..rows).step_by(size) {
                let rows = size.min(rows - row);
                self.groups.push(Group { part, row: first_row + row, rows });
            }
        }
        self.cut();
    }

    /// Cuts units into spans where some are too long for the threads to share the work evenly.
    fn cut(&mut self) {
        let units = self.groups.len() * self.kv_heads;
        let (mut longest, mut total) = (0, 0);
        for group in 0..self.groups.len() {
            let unit = self.unit(group, 0, &[]);
            let work = unit.rows * spans(&unit, None).len();
            (longest, total) = (longest.max(work), total + work * self.kv_heads);
        }
        if longest * SHARES * self.threads <= total || self.threads == 1 {
            return;
        }
        let mut at = 0;
        for group in 0..self.groups.len() {
            for kv_head in 0..self.kv_heads {
                let unit = self.unit(group, kv_head, &[]);
                let size = partial_floats(unit.rows * unit.group, self.head_dim);
                let spans = spans(&unit, None);
                let fits = at + size * spans.len() <= PARTIAL_FLOATS
                    && self.cuts.len() + spans.len() <= self.max_cuts;
                if !fits {
                    self.cuts.clear();
                    return;
                }
                for span in spans {
                    self.cuts.push(Cut { group, kv_head, span, at });
                    at += size;
                }
            }
        }
        // Nothing is gained where every unit has one span.
        if self.cuts.len() == units {
            self.cuts.clear();
        }
    }

    /// The unit of this group and kv head; `sinks` are those of all heads, or none.
    pub(super) fn unit<'a>(&'a self, group: usize, kv_head: usize, sinks: &'a [f32]) -> Unit<'a> {
        let g = &self.groups[group];
        let heads = self.heads_in_group;
        let part = &self.parts[g.part];
        Unit {
            position: part.start + g.row - part.first_row,
            rows: g.rows,
            blocks: self.blocks_of(g.part),
            kv_head,
            group: heads,
            sinks: if sinks.is_empty() { sinks } else { &sinks[kv_head * heads..][..heads] },
        }
    }

    fn blocks_of(&self, part: usize) -> &[BlockId] {
        let p = &self.parts[part];
        let held = (p.start + p.rows).div_ceil(BLOCK_TOKENS);
        &self.blocks[p.first_block..p.first_block + held]
    }

    /// Position of a row in its sequence.
    pub(super) fn position(&self, row: usize) -> usize {
        self.places[row].0
    }

    /// Block and slot that a row's key and value go to.
    pub(super) fn slot(&self, row: usize) -> (BlockId, usize) {
        let (position, part) = self.places[row];
        (self.blocks_of(part)[position / BLOCK_TOKENS], position % BLOCK_TOKENS)
    }

    /// First partial result of each unit and how many spans it has, in the order of [`Self::cuts`].
    pub(super) fn cut_units(&self) -> usize {
        self.groups.len() * self.kv_heads
    }

    /// Where the partial results of unit number `unit` lie.
    pub(super) fn partials_of(&self, unit: usize) -> (usize, usize, std::ops::Range<usize>) {
        let (group, kv_head) = (unit / self.kv_heads, unit % self.kv_heads);
        let of = |c: &Cut| (c.group, c.kv_head);
        let first = self.cuts.partition_point(|c| of(c) < (group, kv_head));
        let last = self.cuts.partition_point(|c| of(c) <= (group, kv_head));
        let u = self.unit(group, kv_head, &[]);
        let size = partial_floats(u.rows * u.group, self.head_dim);
        let at = self.cuts.get(first).map_or(0, |c| c.at);
        (group, kv_head, at..at + size * (last - first))
    }
}

/// Tokens that a step's longest unit takes in one go; only here so that its reason is near.
const _: () = assert!(SPAN.is_multiple_of(BLOCK_TOKENS), "a span is whole blocks");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{KvDtype, Shape, Slice};

    /// Cuts of a step of `(rows, tokens before them)` on two threads with three kv heads.
    fn cuts(slices: &[(usize, usize)]) -> Vec<(usize, usize, usize)> {
        let shape = Shape {
            layers: 1,
            hidden: 64,
            heads: 9,
            kv_heads: 3,
            head_dim: 16,
            mlp: 64,
            vocab: 1,
            experts: 0,
            experts_used: 0,
        };
        let reserve = Reserve {
            shape,
            max_rows: 64,
            max_logit_rows: 1,
            blocks: 256,
            kv_dtype: KvDtype::F16,
            max_context: 8192,
        };
        let mut plan = Plan::reserve(&reserve, 2);
        let (tokens, blocks) = ([0; 64], [0; 256]);
        let slices: Vec<Slice<'_>> = slices
            .iter()
            .map(|&(rows, start)| {
                let logits = LogitRows::None;
                Slice { tokens: &tokens[..rows], start, blocks: &blocks, logits }
            })
            .collect();
        plan.fill(&Batch { slices: &slices });
        plan.cuts.iter().map(|c| (c.group, c.kv_head, c.span)).collect()
    }

    #[test]
    fn units_are_cut_where_one_would_keep_the_threads_waiting() {
        let every = |units: &mut Vec<_>, group: usize, spans: usize| {
            for head in 0..3 {
                units.extend((0..spans).map(|span| (group, head, span)));
            }
        };
        let mut expected = Vec::new();
        every(&mut expected, 0, 4);
        assert_eq!(cuts(&[(1, 1000)]), expected);
        // A part of a long prompt beside many short sequences.
        let mut slices = vec![(1, 100); 16];
        assert_eq!(cuts(&slices), []);
        slices.push((16, 8000));
        let mut expected = Vec::new();
        for group in 0..16 {
            every(&mut expected, group, 1);
        }
        every(&mut expected, 16, 32);
        assert_eq!(cuts(&slices), expected);
        // Nothing to cut, and nothing to gain.
        assert_eq!(cuts(&[(1, 100)]), []);
        assert_eq!(cuts(&[(1, 1000); 8]), []);
    }
}
