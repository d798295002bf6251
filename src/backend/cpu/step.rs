//! The operations of a step, each a phase or two of the pool over rows, units or tiles.

use super::gemm::{Input, Output};
use super::input::Precision;
use super::kv::Element;
use super::ops::{Heads, KvOps};
use super::pack::Packed;
use super::plan::Plan;
use super::registers::{Shared, qkv_width};
use super::{CpuBackend, Crew, Machine, attention};
use crate::backend::{Attention, GatedMlp, KvDtype, LogitMap, Norm, Post, Rope};

/// Elements of work that are worth waking another thread for.
const WORTH_SHARING: usize = 1 << 13;

type VectorNorm<'a> = Norm<'a, Vec<f32>>;

impl Crew<'_> {
    /// Calls `one(row, worker)` for all rows, on the pool if there is work for more than one thread.
    /// `width` is about how many elements a row's work touches.
    fn rows(&mut self, rows: usize, width: usize, one: impl Fn(usize, usize) + Sync) {
        if rows * width < WORTH_SHARING || rows == 1 {
            for row in 0..rows {
                one(row, 0);
            }
            return;
        }
        self.pool.run(rows, &one);
    }

    /// `out = input w`, or `out += input w`; rows of `out` are `stride` apart.
    fn multiply(&mut self, w: &Packed, input: &Input<'_>, mut output: Output<'_>) {
        self.kernels.gemm(self.pool, w, input, &mut output);
    }
}

impl Machine {
    /// `x = table[token] * scale`
    pub(super) fn embed(&mut self, mut crew: Crew<'_>, table: &Packed, scale: f32) {
        let hidden = self.registers.shape.hidden;
        let x = Shared::new(&mut self.registers.x);
        let tokens = &self.plan.tokens;
        crew.rows(tokens.len(), hidden, |row, _| {
            // SAFETY: one call a row.
            let x = unsafe { x.row(row, hidden) };
            table.dequant_row(tokens[row] as usize, x);
            for x in x {
                *x *= scale;
            }
        });
    }

    pub(super) fn norm_qkv(
        &mut self,
        mut crew: Crew<'_>,
        norm: VectorNorm<'_>,
        w: &Packed,
        bias: Option<&[f32]>,
    ) {
        let width = qkv_width(&self.registers.shape);
        let rows = self.plan.rows();
        self.norm_input(&mut crew, norm, (w, Precision::TwoTerms), bias);
        let r = &mut self.registers;
        crew.multiply(
            w,
            &r.input.rows(rows),
            Output { out: &mut r.qkv, stride: width, add: bias.is_some() },
        );
    }

    /// Norms and quantises every row of the stream as the next product's input; where there is a
    /// bias, lays it out for the product to be added to.
    fn norm_input(
        &mut self,
        crew: &mut Crew<'_>,
        norm: VectorNorm<'_>,
        (w, precision): (&Packed, Precision),
        bias: Option<&[f32]>,
    ) {
        let rows = self.plan.rows();
        let r = &mut self.registers;
        let hidden = r.shape.hidden;
        let scratch = r.scratch();
        let (x, qkv) = (&r.x, Shared::new(&mut r.qkv));
        let input = r.input.begin(crew.kernels, w, rows, precision);
        let tier = crew.ops;
        crew.rows(rows, hidden, |row, worker| {
            // SAFETY: scratch by worker, one call a row, lengths as reserved, a tier that exists.
            unsafe {
                let normed = &mut scratch.of(worker)[..hidden];
                (tier.rms_norm)(&x[row * hidden..][..hidden], norm.weight, norm.eps, normed);
                input.fill(row, normed);
                if let Some(bias) = bias {
                    qkv.row(row, bias.len()).copy_from_slice(bias);
                }
            }
        });
    }

    pub(super) fn rope_write_kv(
        &mut self,
        crew: Crew<'_>,
        layer: usize,
        qk_norm: Option<(VectorNorm<'_>, VectorNorm<'_>)>,
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
        qk_norm: Option<(VectorNorm<'_>, VectorNorm<'_>)>,
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

    pub(super) fn attention(&mut self, mut crew: Crew<'_>, attention: Attention) {
        let ops = crew.ops;
        match self.kv.dtype() {
            KvDtype::F16 => self.attention_as(&mut crew, &ops.f16, attention),
            KvDtype::F32 => self.attention_as(&mut crew, &ops.f32, attention),
        }
    }

    fn attention_as<E: Element + Send + Sync>(
        &mut self,
        crew: &mut Crew<'_>,
        ops: &KvOps<E>,
        attention: Attention,
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
                    let unit = plan.unit(group, kv_head);
                    (ops.whole)(view, attention, unit, rows, scratch.of(worker));
                }
            });
            return;
        }
        let partials = Shared::new(&mut self.registers.partials);
        crew.pool.run(plan.cuts.len(), &|cut, worker| {
            let cut = plan.cuts[cut];
            let unit = plan.unit(cut.group, cut.kv_head);
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
                let unit = plan.unit(group, kv_head);
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

    pub(super) fn gated_mlp_add(&mut self, mut crew: Crew<'_>, mlp: &GatedMlp<'_, CpuBackend>) {
        let rows = self.plan.rows();
        self.norm_input(&mut crew, mlp.norm, (mlp.gate_up, Precision::OneTerm), None);
        let r = &mut self.registers;
        let width = r.shape.mlp;
        crew.multiply(
            mlp.gate_up,
            &r.input.rows(rows),
            Output { out: &mut r.gate_up, stride: 2 * width, add: false },
        );
        let scratch = r.scratch();
        let gate_up = &r.gate_up;
        let input = r.input.begin(crew.kernels, mlp.down, rows, Precision::OneTerm);
        let tier = crew.ops;
        crew.rows(rows, 4 * width, |row, worker| {
            // SAFETY: scratch by worker, one call a row, a tier that exists.
            unsafe {
                let gated = &mut scratch.of(worker)[..width];
                (tier.gate)(&gate_up[row * 2 * width..][..2 * width], mlp.activation, gated);
                input.fill(row, gated);
            }
        });
        self.product_add(crew, mlp.down, mlp.post);
    }

    pub(super) fn logits(
        &mut self,
        mut crew: Crew<'_>,
        norm: VectorNorm<'_>,
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
                (tier.rms_norm)(x, norm.weight, norm.eps, normed);
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
        let (first, rows) = (plan.groups[group].row, plan.unit(group, kv_head).rows);
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
