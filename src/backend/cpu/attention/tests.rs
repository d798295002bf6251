use half::f16;
use proptest::prelude::*;

use super::super::gemm::Tier;
use super::super::kv::{Element, KvCache};
use super::super::ops::{self, Heads, KvOps, Ops};
use super::*;
use crate::backend::{BLOCK_TOKENS, KvDtype, Reserve, RopePairs, Shape};

/// Pseudo-random floats in -1..1.
fn noise(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / 8_388_608.0 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

#[derive(Debug, Clone, Copy)]
struct Case {
    kv_heads: usize,
    group: usize,
    d: usize,
    tokens: usize,
    window: Option<usize>,
    softcap: Option<f32>,
    dtype: KvDtype,
    /// Whether heads have sinks.
    sinks: bool,
}

/// A filled cache, the queries of all tokens, and the blocks in a shuffled order.
struct World {
    case: Case,
    cache: KvCache,
    blocks: Vec<BlockId>,
    /// `[tokens][(heads + 2 kv_heads) d]`
    qkv: Vec<f32>,
}

impl World {
    fn new(case: Case, seed: u64, ops: &Ops) -> Self {
        let shape = Shape {
            layers: 2,
            hidden: 32,
            heads: case.kv_heads * case.group,
            kv_heads: case.kv_heads,
            head_dim: case.d,
            mlp: 32,
            vocab: 1,
            experts: 0,
            experts_used: 0,
        };
        let n = case.tokens.div_ceil(BLOCK_TOKENS);
        let plan = Reserve {
            shape,
            max_rows: 1,
            max_logit_rows: 1,
            blocks: n + 3,
            kv_dtype: case.dtype,
            max_context: case.tokens,
        };
        let cache = KvCache::reserve(&plan).unwrap();
        let turn = seed as usize;
        let blocks = (0..n).map(|i| ((i * 7 + turn) % (n + 3)) as BlockId).collect::<Vec<_>>();
        let blocks = if n.is_multiple_of(7) || (n + 3).is_multiple_of(7) {
            (0..n).map(|i| (n + 2 - i) as BlockId).collect()
        } else {
            blocks
        };
        let width = (shape.heads + 2 * case.kv_heads) * case.d;
        let mut world = Self { case, cache, blocks, qkv: noise(99, case.tokens * width) };
        world.write_all(ops);
        world
    }

    /// Writes keys and values of all tokens to the cache.
    fn write_all(&mut self, ops: &Ops) {
        match self.case.dtype {
            KvDtype::F16 => self.write::<f16>(&ops.f16),
            KvDtype::F32 => self.write::<f32>(&ops.f32),
        }
    }

    /// One a head, as strong as its scores.
    fn sinks(&self) -> Vec<f32> {
        let heads = if self.case.sinks { self.case.kv_heads * self.case.group } else { 0 };
        noise(5, heads).iter().map(|x| 4.0 * x).collect()
    }

    fn width(&self) -> usize {
        (self.case.group + 2) * self.case.kv_heads * self.case.d
    }

    fn write<E: Element>(&mut self, ops: &KvOps<E>) {
        let width = self.width();
        // A rotation by nothing.
        let (cos, sin) = (vec![1.0; self.case.d / 2], vec![0.0; self.case.d / 2]);
        let heads = Heads {
            query: self.case.kv_heads * self.case.group,
            key: self.case.kv_heads,
            pairs: RopePairs::Halves,
            cos: &cos,
            sin: &sin,
            norm: None,
        };
        for (t, row) in self.qkv.chunks_exact_mut(width).enumerate() {
            let place = (self.blocks[t / BLOCK_TOKENS], t % BLOCK_TOKENS);
            // SAFETY: the tests only use tiers that the machine has; the type is the cache's.
            unsafe { (ops.rope_write)(&heads, self.cache.layer::<E>(1), place, row) };
        }
    }

    /// Rows `from..to` in units of `size` rows, whole or cut into spans.
    fn attend(&self, ops: &Ops, (from, to): (usize, usize), size: usize, cut: bool) -> Vec<u32> {
        match self.case.dtype {
            KvDtype::F16 => self.attend_as::<f16>(&ops.f16, (from, to), size, cut),
            KvDtype::F32 => self.attend_as::<f32>(&ops.f32, (from, to), size, cut),
        }
    }

    fn attend_as<E: Element>(
        &self,
        ops: &KvOps<E>,
        (from, to): (usize, usize),
        size: usize,
        cut: bool,
    ) -> Vec<u32> {
        let Case { kv_heads, group, d, .. } = self.case;
        let heads = kv_heads * group;
        let mut out = vec![0.0_f32; (to - from) * heads * d];
        // More than a unit needs, and full of what must not matter.
        let mut scratch = vec![f32::NAN; 2 * size.max(30) * group * (3 * d + SPAN + 4) + 16 * 256];
        let attention = Attention {
            layer: 1,
            scale: 1.0 / (d as f32).sqrt(),
            window: self.case.window,
            softcap: self.case.softcap,
        };
        // SAFETY: the type is the cache's.
        let view = unsafe { self.cache.layer::<E>(1) };
        let all_sinks = self.sinks();
        for first in (from..to).step_by(size) {
            for kv_head in 0..kv_heads {
                let rows = size.min(to - first);
                let sinks = all_sinks.chunks(group).nth(kv_head).unwrap_or_default();
                let blocks = &self.blocks;
                let unit = Unit { position: first, rows, blocks, kv_head, group, sinks };
                let place = Rows {
                    queries: &raw const self.qkv[first * self.width() + kv_head * group * d],
                    query_stride: self.width(),
                    out: &raw mut out[(first - from) * heads * d + kv_head * group * d],
                    out_stride: heads * d,
                };
                // SAFETY: blocks hold all tokens; queries and results are as large as said.
                unsafe {
                    if cut {
                        let n = partial_floats(rows * group, d);
                        let spans = spans(&unit, None);
                        let mut partials = vec![f32::NAN; n * spans.len()];
                        for (span, out) in spans.zip(partials.chunks_exact_mut(n)) {
                            let sight = (view, attention, unit);
                            (ops.one_span)(sight, place, span, &mut scratch, out);
                        }
                        (ops.join)(unit, d, &mut partials, place, &mut scratch);
                    } else {
                        (ops.whole)(view, attention, unit, place, &mut scratch);
                    }
                }
            }
        }
        out.iter().map(|x| x.to_bits()).collect()
    }

    /// The textbook's attention, in f64, of what the cache's element type kept.
    fn expected(&self, row: usize) -> Vec<f64> {
        let Case { kv_heads, group, d, window, softcap, dtype, .. } = self.case;
        let kept = |x: f32| match dtype {
            KvDtype::F16 => f64::from(f16::from_f32(x).to_f32()),
            KvDtype::F32 => f64::from(x),
        };
        let at = |t: usize, head: usize| &self.qkv[t * self.width() + head * d..][..d];
        let mut out = Vec::new();
        for head in 0..kv_heads * group {
            let (k, v) = (kv_heads * group + head / group, kv_heads * (group + 1) + head / group);
            let seen: Vec<usize> =
                (0..=row).filter(|t| window.is_none_or(|w| t + w > row)).collect();
            let weights: Vec<f64> = seen
                .iter()
                .map(|&t| {
                    let dot: f64 = at(row, head)
                        .iter()
                        .zip(at(t, k))
                        .map(|(a, b)| f64::from(*a) * kept(*b))
                        .sum();
                    let s = dot / (d as f64).sqrt();
                    softcap.map_or(s, |c| f64::from(c) * (s / f64::from(c)).tanh()).exp()
                })
                .collect();
            let sink = self.sinks().get(head).map_or(0.0, |&s| f64::from(s).exp());
            let sum = weights.iter().sum::<f64>() + sink;
            for i in 0..d {
                let x: f64 = seen.iter().zip(&weights).map(|(&t, w)| w * kept(at(t, v)[i])).sum();
                out.push(x / sum);
            }
        }
        out
    }
}

fn tiers() -> Vec<&'static Ops> {
    let there = Tier::ALL.into_iter().rev().filter(|t| t.is_available());
    there.map(ops::of).collect()
}

fn cases() -> impl Strategy<Value = Case> {
    (
        1_usize..3,
        prop::sample::select(vec![1, 3, 4, 7, 9]),
        prop::sample::select(vec![16, 64, 80]),
        prop::sample::select(vec![1, 15, 33, 255, 256, 257, 300, 530]),
        prop::option::of(prop::sample::select(vec![1, 16, 40, 256, 300])),
        prop::option::of(Just(3.0_f32)),
        prop::sample::select(vec![KvDtype::F16, KvDtype::F32]),
        any::<bool>(),
    )
        .prop_map(|(kv_heads, group, d, tokens, window, softcap, dtype, sinks)| Case {
            kv_heads,
            group,
            d,
            tokens,
            window,
            softcap,
            dtype,
            sinks,
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_row_has_the_textbooks_values_and_the_same_bits_however_it_is_computed(
        case in cases(), seed in 0_u64..100, size in 1_usize..12,
    ) {
        let rows = (case.tokens.saturating_sub(20), case.tokens);
        let first = World::new(case, seed, tiers()[0]);
        let expected: Vec<f64> = (rows.0..rows.1).flat_map(|r| first.expected(r)).collect();
        let bits = first.attend(tiers()[0], rows, 1, false);
        for (got, want) in bits.iter().zip(&expected) {
            let got = f64::from(f32::from_bits(*got));
            prop_assert!((got - want).abs() < 2e-5, "{got} for {want}");
        }
        let other = World::new(case, seed + 1, tiers()[tiers().len() - 1]);
        for ops in tiers() {
            for (size, cut) in [(1, false), (size, false), (1, true), (size, true)] {
                prop_assert_eq!(&first.attend(ops, rows, size, cut), &bits, "{} {}", size, cut);
            }
            prop_assert_eq!(&other.attend(ops, rows, size, false), &bits, "other blocks");
        }
    }
}

#[test]
fn a_window_sees_nothing_before_it_even_if_that_is_not_a_number() {
    let case = Case {
        kv_heads: 1,
        group: 2,
        d: 16,
        tokens: 600,
        window: Some(40),
        softcap: None,
        dtype: KvDtype::F32,
        sinks: true,
    };
    for ops in tiers() {
        let mut world = World::new(case, 0, ops);
        let before = world.attend(ops, (590, 600), 5, false);
        for x in &mut world.qkv[..540 * 4 * 16] {
            *x = f32::NAN;
        }
        world.write_all(ops);
        assert_eq!(before, world.attend(ops, (590, 600), 5, false));
    }
}

#[test]
fn a_value_that_is_not_a_number_reaches_whoever_sees_it() {
    const TOKEN: usize = 37;
    let (kv_heads, group, d) = (2, 3, 16);
    for dtype in [KvDtype::F16, KvDtype::F32] {
        let case = Case {
            kv_heads,
            group,
            d,
            tokens: 50,
            window: None,
            softcap: None,
            dtype,
            sinks: false,
        };
        for ops in tiers() {
            let mut world = World::new(case, 0, ops);
            let first = TOKEN * world.width() + kv_heads * (group + 1) * d;
            world.qkv[first + 5] = f32::NAN;
            world.write_all(ops);
            let at = |row| -> Vec<bool> {
                let bits = world.attend(ops, (row, row + 1), 1, false);
                bits.into_iter().map(|b| f32::from_bits(b).is_nan()).collect()
            };
            // The first block's rows do not see its tile; the token's own row and those after it do.
            assert!(!at(31).contains(&true), "{dtype:?}");
            for row in [TOKEN, TOKEN + 1, 49] {
                let expected: Vec<bool> =
                    (0..kv_heads * group * d).map(|i| i < group * d && i % d == 5).collect();
                assert_eq!(at(row), expected, "{dtype:?} row {row}");
            }
        }
    }
}

/// Which numbers of rows `from..to` are NaN, computed `size` rows at a time, whole and cut: the same.
fn nans(world: &World, ops: &Ops, rows: (usize, usize), size: usize) -> Vec<bool> {
    let [whole, cut] = [false, true].map(|cut| -> Vec<bool> {
        let bits = world.attend(ops, rows, size, cut);
        bits.into_iter().map(|b| f32::from_bits(b).is_nan()).collect()
    });
    assert_eq!(whole, cut);
    whole
}

#[test]
fn a_key_that_is_not_a_number_shows_in_all_that_see_it_and_in_nothing_else() {
    let (kv_heads, group, d) = (2, 3, 16);
    // The first, one inside a tile, the first and the last of a span.
    for token in [0, 37, 256, 511] {
        for (dtype, window) in [(KvDtype::F16, None), (KvDtype::F32, Some(30))] {
            let case =
                Case { kv_heads, group, d, tokens: 520, window, softcap: None, dtype, sinks: true };
            for ops in tiers() {
                let mut world = World::new(case, 0, ops);
                let key = token * world.width() + kv_heads * group * d;
                world.qkv[key + 5] = f32::NAN;
                world.write_all(ops);
                let rows = (token.saturating_sub(9), (token + 40).min(520));
                let heads = kv_heads * group;
                let sees = |row: usize| row >= token && window.is_none_or(|w| row < token + w);
                let expected: Vec<bool> = (rows.0..rows.1)
                    .flat_map(|row| (0..heads * d).map(move |i| sees(row) && i < group * d))
                    .collect();
                assert!(nans(&world, ops, rows, 1) == expected, "{token} {dtype:?} {window:?}");
                // A row before the token that shares its unit sees weight zero times a finite value.
                assert!(nans(&world, ops, rows, 7) == expected, "{token} {dtype:?} {window:?}");
            }
        }
    }
}

#[test]
fn a_query_that_is_not_a_number_spoils_its_own_head_and_row() {
    const ROW: usize = 300;
    let (kv_heads, group, d) = (2, 3, 16);
    for (dtype, softcap) in [(KvDtype::F16, None), (KvDtype::F32, Some(3.0))] {
        let case =
            Case { kv_heads, group, d, tokens: 310, window: None, softcap, dtype, sinks: true };
        for ops in tiers() {
            let mut world = World::new(case, 0, ops);
            let (before, width) = (world.attend(ops, (296, 306), 5, false), world.width());
            world.qkv[ROW * width + d + 3] = f32::NAN;
            let head = (ROW - 296) * kv_heads * group * d + d;
            let spoilt = nans(&world, ops, (296, 306), 5);
            assert!((0..spoilt.len()).all(|i| spoilt[i] == (head..head + d).contains(&i)));
            let after = world.attend(ops, (296, 306), 5, false);
            let differs = (0..after.len()).filter(|&i| !spoilt[i] && after[i] != before[i]);
            assert_eq!(differs.count(), 0, "the bits of others");
        }
    }
}

/// Blocks go from one sequence to the next as they are. What the last one left in them must not matter,
/// be it not a number, up to the last token that the new one wrote.
#[test]
fn what_is_not_a_number_in_a_block_does_not_reach_the_sequence_that_has_it_next() {
    for (dtype, tokens) in [(KvDtype::F16, 37), (KvDtype::F32, 300), (KvDtype::F16, 16)] {
        let case = Case {
            kv_heads: 2,
            group: 3,
            d: 16,
            tokens,
            window: None,
            softcap: None,
            dtype,
            sinks: false,
        };
        for ops in tiers() {
            let clean = World::new(case, 0, ops);
            let whole = Case { tokens: tokens.next_multiple_of(BLOCK_TOKENS), ..case };
            let mut reused = World::new(whole, 0, ops);
            reused.qkv.fill(f32::NAN);
            reused.write_all(ops);
            reused.qkv.clone_from(&clean.qkv);
            reused.write_all(ops);
            let rows = (tokens.saturating_sub(20), tokens);
            for (size, cut) in [(1, false), (6, false), (6, true)] {
                let bits = clean.attend(ops, rows, size, cut);
                assert!(bits == reused.attend(ops, rows, size, cut), "{dtype:?} {tokens} {size}");
            }
        }
    }
}
