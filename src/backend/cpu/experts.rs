//! Layers of many MLPs, of which each row goes through a few.
//!
//! Expert by expert: the rows that chose it are gathered, multiplied as in any other MLP, and added to their
//! sums. A row meets its experts in the order of their numbers, so that its bits do not depend on the rows
//! beside it.

use super::gemm::Output;
use super::input::Precision;
use super::pack::Packed;
use super::registers::{Shared, floats};
use super::step::prepare;
use super::{CpuBackend, Crew, Machine};
use crate::backend::{BackendError, Choice, Experts, MlpWeights, Reserve};

/// Which rows go where.
pub(super) struct Routed {
    /// What all experts read: `[rows][hidden]`.
    normed: Vec<f32>,
    /// The router's scores, `[rows][experts]`; or the one of a shared expert's gate.
    scores: Vec<f32>,
    /// `[rows][experts used]`
    chosen: Vec<Choice>,
    /// Rows of the expert at hand, and the weight of each.
    rows: Vec<(usize, f32)>,
    /// What it makes of them: `[rows][hidden]`.
    out: Vec<f32>,
}

impl Routed {
    /// Nothing for a model without experts.
    pub(super) fn reserve(plan: &Reserve) -> Result<Self, BackendError> {
        let s = plan.shape;
        let rows = if s.experts == 0 { 0 } else { plan.max_rows };
        Ok(Self {
            normed: floats(rows, s.hidden)?,
            scores: floats(rows, s.experts)?,
            chosen: vec![Choice::default(); rows * s.experts_used],
            rows: Vec::with_capacity(rows),
            out: floats(rows, s.hidden)?,
        })
    }
}

type Layer<'a> = Experts<'a, CpuBackend>;

impl Machine {
    pub(super) fn experts_add(&mut self, mut crew: Crew<'_>, layer: &Layer<'_>) {
        self.norm_rows(&mut crew, layer);
        self.route(&mut crew, layer);
        let rows = self.plan.rows();
        self.registers.delta[..rows * self.registers.shape.hidden].fill(0.0);
        let weights = layer.weights;
        if let Some(shared) = &weights.shared {
            self.score(&mut crew, &shared.gate);
            let gate = &self.routed.scores[..rows];
            let share = |(row, x): (usize, &f32)| (row, 1.0 / (1.0 + (-x).exp()));
            self.routed.rows.clear();
            self.routed.rows.extend(gate.iter().enumerate().map(share));
            self.expert(&mut crew, layer, &shared.mlp);
        }
        let used = layer.routing.used;
        for (index, expert) in weights.experts.iter().enumerate() {
            let chosen = self.routed.chosen[..rows * used].iter().enumerate();
            let of_this = chosen.filter(|(_, choice)| choice.expert == index);
            self.routed.rows.clear();
            self.routed.rows.extend(of_this.map(|(i, choice)| (i / used, choice.weight)));
            if !self.routed.rows.is_empty() {
                self.expert(&mut crew, layer, expert);
            }
        }
        self.delta_add(crew, layer.post);
    }

    fn norm_rows(&mut self, crew: &mut Crew<'_>, layer: &Layer<'_>) {
        let hidden = self.registers.shape.hidden;
        let (x, normed) = (&self.registers.x, Shared::new(&mut self.routed.normed));
        let tier = crew.ops;
        crew.rows(self.plan.rows(), hidden, |row, _| {
            // SAFETY: one call a row, lengths as reserved, a tier that exists.
            unsafe {
                let normed = normed.row(row, hidden);
                prepare(tier, layer.pre, &x[row * hidden..][..hidden], normed);
            }
        });
    }

    /// `scores = normed w`
    fn score(&mut self, crew: &mut Crew<'_>, w: &Packed) {
        let rows = self.plan.rows();
        let r = &mut self.registers;
        let hidden = r.shape.hidden;
        let scratch = r.scratch();
        let input = r.input.begin(crew.kernels, w, rows, Precision::TwoTerms);
        let normed = &self.routed.normed;
        crew.rows(rows, hidden, |row, worker| {
            // SAFETY: scratch by worker, one call a row.
            unsafe {
                let x = &mut scratch.of(worker)[..hidden];
                x.copy_from_slice(&normed[row * hidden..][..hidden]);
                input.fill(row, x);
            }
        });
        let out = &mut self.routed.scores;
        crew.multiply(w, &r.input.rows(rows), Output { out, stride: w.rows(), add: false });
    }

    fn route(&mut self, crew: &mut Crew<'_>, layer: &Layer<'_>) {
        self.score(crew, &layer.weights.router);
        let experts = layer.weights.router.rows();
        let used = layer.routing.used;
        let scores = &self.routed.scores;
        let chosen = Shared::new(&mut self.routed.chosen);
        crew.rows(self.plan.rows(), experts * used, |row, _| {
            // SAFETY: one call a row.
            let chosen = unsafe { chosen.row(row, used) };
            layer.routing.choose(&scores[row * experts..][..experts], chosen);
        });
    }

    /// Adds to the sums of the rows at hand what `expert` makes of them.
    fn expert(&mut self, crew: &mut Crew<'_>, layer: &Layer<'_>, expert: &MlpWeights<Packed>) {
        let r = &mut self.registers;
        let hidden = r.shape.hidden;
        let rows = self.routed.rows.len();
        let scratch = r.scratch();
        let input = r.input.begin(crew.kernels, &expert.up, rows, Precision::OneTerm);
        let (normed, chosen) = (&self.routed.normed, &self.routed.rows);
        crew.rows(rows, hidden, |i, worker| {
            // SAFETY: scratch by worker, one call a row.
            unsafe {
                let x = &mut scratch.of(worker)[..hidden];
                x.copy_from_slice(&normed[chosen[i].0 * hidden..][..hidden]);
                input.fill(i, x);
            }
        });
        self.activate(crew, expert, layer.activation, rows);
        let r = &mut self.registers;
        let out = &mut self.routed.out;
        crew.multiply(
            &expert.down,
            &r.input.rows(rows),
            Output { out, stride: hidden, add: false },
        );
        let (delta, out, chosen) = (Shared::new(&mut r.delta), &self.routed.out, &self.routed.rows);
        let tier = crew.ops;
        crew.rows(rows, hidden, |i, _| {
            let (row, weight) = chosen[i];
            // SAFETY: no row is there twice, lengths as reserved, a tier that exists.
            unsafe {
                let delta = delta.row(row, hidden);
                (tier.add_scaled)(delta, &out[i * hidden..][..hidden], weight);
            }
        });
    }
}
