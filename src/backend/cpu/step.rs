//! The operations of a step, each a phase or two of the pool over rows, units or tiles.

use super::gemm::{Input, Output};
use super::input::Precision;
use super::kv::Element;
use super::ops::{Heads, KvOps, Ops};
use super::pack::Packed;
use super::plan::Plan;
use super::registers::{Shared, qkv_width};
use super::{CpuBackend, Crew, Machine, attention};
use crate::backend::{
    Activation, Attention, KvDtype, LogitMap, Mlp, MlpWeights, Post, Pre, QkNorm, Rope,
};

/// Elements of work that are worth waking another thread for.
const WORTH_SHARING: usize = 1 << 13;

pub(super) type VectorPre<'a> = Pre<'a, Vec<f32>>;

impl Crew<'_> {
    /// Calls `one(row, worker)` for all rows, on the pool if there is work for more than one thread.
    /// `width` is about how many elements a row's work touches.
    pub(super) fn rows(&mut self, rows: usize, width: usize, one: impl Fn(usize, usize) + Sync) {
        if rows * width < WORTH_SHARING || rows == 1 {
            for row in 0..rows {
                one(row, 0);
            }
            return;
        }
        self.pool.run(rows, &one);
    }

    /// `out = input w`, or `out += input w`; rows of `out` are `stride` apart.
    pub(super) fn multiply(&mut self, w: &Packed, input: &Input<'_>, mut output: Output<'_>) {
        self.kernels.gemm(self.pool, w, input, &mut output);
    }
}

/// What a product reads of a row of the stream.
///
/// # Safety
/// The processor has the tier; `out` and the weights are as long as `x`.
pub(super) unsafe fn prepare(tier: &Ops, pre: VectorPre<'_>, x: &[f32], out: &mut [f32]) {
    // SAFETY: the caller's promise.
    unsafe {
        match pre {
            Pre::Nothing => out.copy_from_slice(x),
            Pre::Rms(norm) => (tier.rms_norm)(x, norm.weight, norm.eps, out),
            Pre::Layer(norm, bias) => (tier.layer_norm)(x, norm.weight, bias, norm.eps, out),
        }
    }
}

impl Machine {
    /// `x = table[token] * scale (+ positions[position])`
    pub(super) fn embed(
        &mut self,
        mut crew: Crew<'_>,
        table: &Packed,
        scale: f32,
        positions: Option<&Packed>,
    ) {
        let hidden = self.registers.shape.hidden;
        let scratch = self.registers.scratch();
        let x = Shared::new(&mut self.registers.x);
        let plan = &self.plan;
        crew.rows(plan.rows(), hidden, |row, worker| {
            // SAFETY: scratch by worker, one call a row.
            let (x, place) = unsafe { (x.row(row, hidden), &mut scratch.of(worker)[..hidden]) };
            table.dequant_row(plan.tokens[row] as usize, x);
            for x in &mut *x {
                *x *= scale;
            }
            if let Some(positions) = positions {
                positions.dequant_row(plan.position(row), place);
                x.iter_mut().zip(place).for_each(|(x, place)| *x += *place);
            }
        });
    }

    pub(super) fn norm_qkv(&mut self, mut crew: Crew<'_>, pre: VectorPre<'_>, w: &Packed) {
        let width = qkv_width(&self.registers.shape);
        let rows = self.plan.rows();
        self.prepare_input(&mut crew, pre, (w, Precision::TwoTerms));
        let r = &mut self.registers;
        crew.multiply(
            w,
            &r.input.rows(rows),
            Output { out: &mut r.qkv, stride: width, add: false },
        );
    }

    /// Norms and quantises every row of the stream as the next product's input.
    fn prepare_input(
        &mut self,
        crew: &mut Crew<'_>,
        pre: VectorPre<'_>,
        (w, precision): (&Packed, Precision),
    ) {
        let rows = self.plan.rows();
        let r = &mut self.registers;
        let hidden = r.shape.hidden;
        let scratch = r.scratch();
        let x = &r.x;
        let input = r.input.begin(crew.kernels, w, rows, precision);
        let tier = crew.ops;
        crew.rows(rows, hidden, |row, worker| {
            // SAFETY: scratch by worker, one call a row, lengths as reserved, a tier that exists.
            unsafe {
                let normed = &mut scratch.of(worker)[..hidden];
                prepare(tier, pre, &x[row * hidden..][..hidden], normed);
                input.fill(row, normed);
            }
        });
    }

    pub(super) fn rope_write_kv(
        &mut self,
        crew: Crew<'_>,
        layer: usize,
        qk_norm: Option<QkNorm<'_, Vec<f32>>>,
        rope: &Rope,
    ) {
        let ops = crew.ops;
        match self.kv.dtype() {
            KvDtype::F16 => self.rope_write_as(crew, &ops.f16, layer, qk_norm, rope),
            KvDtype::F32 => self.rope_write_as(crew, &ops.f32, layer, qk_norm, rope),
        }
    }

    fn rope_write_as<E: Element + Send + Sync>(
        &mut self,
        mut crew: Crew<'_>,
        ops: &KvOps<E>,
        layer: usize,
        qk_norm: Option<QkNorm<'_, Vec<f32>>>,
        rope: &Rope,
    ) {
        let s = self.registers.shape;
        let width = qkv_width(&s);
        // SAFETY: the caller chose `E` by the cache's type.
        let view = unsafe { self.kv.layer::<E>(layer) };
        let rotation = self.angles.of(rope);
        let qkv = Shared::new(&mut self.registers.qkv);
        let plan = &self.plan;
        let norm = qk_norm.map(|(q, k)| (q.weight.as_slice(), k.weight.as_slice(), q.eps));
        crew.rows(plan.rows(), width, |row, _| {
            // SAFETY: one call a row: its own angles, its own row of q, k and v, its own slot.
            unsafe {
                let (cos, sin) = rotation.row(row, plan.position(row));
                let heads =
                    Heads { query: s.heads, key: s.kv_heads, pairs: rope.pairs, cos, sin, norm };
                (ops.rope_write)(&heads, view, plan.slot(row), qkv.row(row, width));
            }
        });
    }

    pub(super) fn attention(
        &mut self,
        mut crew: Crew<'_>,
        attention: Attention,
        sinks: Option<&[f32]>,
    ) {
        let ops = crew.ops;
        let sinks = sinks.unwrap_or_default();
        match self.kv.dtype() {
            KvDtype::F16 => self.attention_as(&mut crew, &ops.f16, attention, sinks),
            KvDtype::F32 => self.attention_as(&mut crew, &ops.f32, attention, sinks),
        }
    }

    fn attention_as<E: Element + Send + Sync>(
        &mut self,
        crew: &mut Crew<'_>,
        ops: &KvOps<E>,
        attention: Attention,
        sinks: &[f32],
    ) {
        let s = self.registers.shape;
        // SAFETY: the caller chose `E` by the cache's type.
        let view = unsafe { self.kv.layer::<E>(attention.layer) };
        let scratch = self.registers.scratch();
        let plan = &self.plan;
        let place = Places::new(&mut self.registers);
        if plan.cuts.is_empty() {
            crew.pool.run(plan.groups.len() * s.kv_heads, &|unit, worker| {
                let (group, kv_head) = (unit / s.kv_heads, unit % s.kv_heads);
                // SAFETY: the plan's blocks hold what its rows see; scratch by worker; units write
                // rows and heads of their own.
                unsafe {
                    let rows = place.rows(plan, group, kv_head);
                    let unit = plan.unit(group, kv_head, sinks);
                    (ops.whole)(view, attention, unit, rows, scratch.of(worker));
                }
            });
            return;
        }
        let partials = Shared::new(&mut self.registers.partials);
        crew.pool.run(plan.cuts.len(), &|cut, worker| {
            let cut = plan.cuts[cut];
            let unit = plan.unit(cut.group, cut.kv_head, sinks);
            let size = attention::partial_floats(unit.rows * unit.group, s.head_dim);
            // SAFETY: as above; every cut has a partial result of its own.
            unsafe {
                let rows = place.rows(plan, cut.group, cut.kv_head);
                let out = partials.slice(cut.at, size);
                let sight = (view, attention, unit);
                (ops.one_span)(sight, rows, cut.span, scratch.of(worker), out);
            }
        });
        crew.pool.run(plan.cut_units(), &|unit, worker| {
            let (group, kv_head, range) = plan.partials_of(unit);
            // SAFETY: all cuts are done, and units have results and partial results of their own.
            unsafe {
                let rows = place.rows(plan, group, kv_head);
                let partials = partials.slice(range.start, range.len());
                let unit = plan.unit(group, kv_head, sinks);
                (ops.join)(unit, s.head_dim, partials, rows, scratch.of(worker));
            }
        });
    }

    pub(super) fn project_add(&mut self, mut crew: Crew<'_>, w: &Packed, post: Post<'_, Vec<f32>>) {
        let rows = self.plan.rows();
        let r = &mut self.registers;
        let width = r.shape.heads * r.shape.head_dim;
        let input = r.input.begin(crew.kernels, w, rows, Precision::OneTerm);
        let from = Shared::new(&mut r.attention);
        crew.rows(rows, width, |row, _| {
            // SAFETY: one call a row.
            unsafe { input.fill(row, from.row(row, width)) };
        });
        self.product_add(crew, w, post);
    }

    /// `x += post(input W)`
    fn product_add(&mut self, mut crew: Crew<'_>, w: &Packed, post: Post<'_, Vec<f32>>) {
        let rows = self.plan.rows();
        let r = &mut self.registers;
        let hidden = r.shape.hidden;
        if post.norm.is_none() && post.scale == 1.0 {
            crew.multiply(
                w,
                &r.input.rows(rows),
                Output { out: &mut r.x, stride: hidden, add: true },
            );
            return;
        }
        crew.multiply(
            w,
            &r.input.rows(rows),
            Output { out: &mut r.delta, stride: hidden, add: false },
        );
        self.delta_add(crew, post);
    }

    /// `x += post(delta)`
    pub(super) fn delta_add(&mut self, mut crew: Crew<'_>, post: Post<'_, Vec<f32>>) {
        let rows = self.plan.rows();
        let r = &mut self.registers;
        let hidden = r.shape.hidden;
        let (x, delta) = (Shared::new(&mut r.x), &r.delta);
        let tier = crew.ops;
        crew.rows(rows, hidden, |row, _| {
            // SAFETY: one call a row, lengths as reserved, a tier that exists.
            unsafe {
                let (x, delta) = (x.row(row, hidden), &delta[row * hidden..][..hidden]);
                match post.norm {
                    Some(norm) => (tier.add_rms_norm)(x, delta, norm.weight, norm.eps, post.scale),
                    None => (tier.add_scaled)(x, delta, post.scale),
                }
            }
        });
    }

    pub(super) fn mlp_add(&mut self, mut crew: Crew<'_>, mlp: &Mlp<'_, CpuBackend>) {
        let rows = self.plan.rows();
        self.prepare_input(&mut crew, mlp.pre, (&mlp.weights.up, Precision::OneTerm));
        self.activate(&mut crew, mlp.weights, mlp.activation, rows);
        self.product_add(crew, &mlp.weights.down, mlp.post);
    }

    /// From the input of an MLP's first product to that of its second one, for `rows` rows.
    pub(super) fn activate(
        &mut self,
        crew: &mut Crew<'_>,
        weights: &MlpWeights<Packed>,
        activation: Activation,
        rows: usize,
    ) {
        let r = &mut self.registers;
        let width = weights.down.cols();
        let wide = activation.inputs() * width;
        crew.multiply(
            &weights.up,
            &r.input.rows(rows),
            Output { out: &mut r.gate_up, stride: wide, add: false },
        );
        let scratch = r.scratch();
        let gate_up = &r.gate_up;
        let input = r.input.begin(crew.kernels, &weights.down, rows, Precision::OneTerm);
        let tier = crew.ops;
        crew.rows(rows, 4 * width, |row, worker| {
            // SAFETY: scratch by worker, one call a row, a tier that exists.
            unsafe {
                let active = &mut scratch.of(worker)[..width];
                (tier.activate)(&gate_up[row * wide..][..wide], activation, active);
                input.fill(row, active);
            }
        });
    }

    pub(super) fn logits(
        &mut self,
        mut crew: Crew<'_>,
        pre: VectorPre<'_>,
        head: &Packed,
        map: LogitMap,
    ) -> &[f32] {
        let r = &mut self.registers;
        let (hidden, vocab) = (r.shape.hidden, r.shape.vocab);
        let wanted = &self.plan.logit_rows;
        let scratch = r.scratch();
        let x = &r.x;
        let input = r.input.begin(crew.kernels, head, wanted.len(), Precision::TwoTerms);
        let tier = crew.ops;
        crew.rows(wanted.len(), hidden, |i, worker| {
            // SAFETY: scratch by worker, one call a row, a tier that exists.
            unsafe {
                let normed = &mut scratch.of(worker)[..hidden];
                let x = &x[wanted[i] * hidden..][..hidden];
                prepare(tier, pre, x, normed);
                input.fill(i, normed);
            }
        });
        if !wanted.is_empty() {
            crew.multiply(
                head,
                &r.input.rows(wanted.len()),
                Output { out: &mut r.logits, stride: vocab, add: false },
            );
        }
        if map.scale != 1.0 || map.softcap.is_some() {
            let logits = Shared::new(&mut r.logits);
            crew.rows(wanted.len(), vocab, |i, _| {
                // SAFETY: one call a row, a tier that exists.
                unsafe { (tier.map_logits)(logits.row(i, vocab), map) };
            });
        }
        crew.pool.rest();
        &r.logits[..wanted.len() * vocab]
    }
}

/// Where units find their queries and put their results.
struct Places {
    qkv: Shared<f32>,
    out: Shared<f32>,
    qkv_width: usize,
    out_width: usize,
    /// Width of the query heads that share a kv head.
    group_width: usize,
}

impl Places {
    fn new(r: &mut super::Registers) -> Self {
        let s = r.shape;
        Self {
            qkv: Shared::new(&mut r.qkv),
            out: Shared::new(&mut r.attention),
            qkv_width: qkv_width(&s),
            out_width: s.heads * s.head_dim,
            group_width: s.heads / s.kv_heads * s.head_dim,
        }
    }

    /// Pointers for one unit, whose rows lie inside the registers.
    fn rows(&self, plan: &Plan, group: usize, kv_head: usize) -> attention::Rows {
        let (first, rows) = (plan.groups[group].row, plan.unit(group, kv_head, &[]).rows);
        let column = kv_head * self.group_width;
        let spread = |width: usize| (rows - 1) * width + self.group_width;
        let (q, out) = (first * self.qkv_width + column, first * self.out_width + column);
        attention::Rows {
            queries: self.qkv.pointer(q, spread(self.qkv_width)),
            query_stride: self.qkv_width,
            out: self.out.pointer(out, spread(self.out_width)),
            out_stride: self.out_width,
        }
    }
}
