//! Matrix products: some rows of activations times packed weights.
//!
//! One source of kernels (`kernel.rs`) over a small set of vector operations (`simd.rs`), compiled once a tier; the table of a tier
//! is chosen at start. Work is split over the pool by panels of outputs, never over k.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod kernel;
mod maddubs;
mod plain;
mod simd;
#[cfg(test)]
mod tests;

use std::fmt;

pub(super) use self::kernel::prefetch;
use self::kernel::{FourBy16, Job, Levels, Single, Six};
use super::act::{self, Acts};
use super::lanes::{self, Floats};
use super::pack::{Layout, PANEL, Packed, Segment};
use super::pool::Pool;

/// A set of processor features that kernels are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// Plain Rust: the specification.
    Scalar,
    Avx2,
    /// AVX2 with VNNI.
    AvxVnni,
    /// AVX-512 with VNNI.
    Avx512,
}

impl Tier {
    /// Every tier, best first.
    pub const ALL: [Self; 4] = [Self::Avx512, Self::AvxVnni, Self::Avx2, Self::Scalar];

    /// The best tier of this processor.
    pub fn detect() -> Self {
        Self::ALL.into_iter().find(|t| t.is_available()).unwrap_or(Self::Scalar)
    }

    /// Whether this processor has it.
    pub fn is_available(self) -> bool {
        match self {
            Self::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni => Self::Avx2.is_available() && is_x86_feature_detected!("avxvnni"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                Self::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vnni")
            }
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }

    /// As `--kernels` spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::AvxVnni => "avxvnni",
            Self::Avx512 => "avx512",
        }
    }
}

type Kernel = unsafe fn(&Job);
type Quantize = unsafe fn(&[f32], act::Row<'_>);
type Residual = unsafe fn(&mut [f32], act::Row<'_>);

/// The kernels of one tier.
struct Table {
    four: Kernel,
    four_min: Kernel,
    four_by_16: Kernel,
    four_by_16_min: Kernel,
    levels: Kernel,
    five: Kernel,
    five_min: Kernel,
    six: Kernel,
    eight: Kernel,
    f32: Kernel,
    f16: Kernel,
    bf16: Kernel,
    quantize: Quantize,
    residual: Residual,
}

/// One tier's kernels, compiled with its features: `$rows` activation rows share a tile's weights in registers.
macro_rules! table {
    ($name:ident, $simd:ty, $lanes:ty, $rows:literal $(, $features:literal)?) => {
        mod $name {
            use super::*;

            table!(@quantized $simd, $rows, ($($features)?),
                four: Single<4, 8, false>, four_min: Single<4, 0, true>, four_by_16: FourBy16<4, false>,
                four_by_16_min: FourBy16<0, true>, levels: Levels, five: Single<5, 16, false>, five_min: Single<5, 0, true>, six: Six,
                eight: Single<8, 128, false>);
            table!(@float $simd, ($($features)?), f32: load as f32, f16: load_f16 as half::f16, bf16: load_bf16 as u16);

            $(#[target_feature(enable = $features)])?
            unsafe fn quantize(x: &[f32], row: act::Row<'_>) {
                act::quantize_row::<$lanes>(x, row);
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn residual(x: &mut [f32], row: act::Row<'_>) {
                act::residual_row(x, row);
            }

            pub(super) static TABLE: Table = Table { four, four_min, four_by_16, four_by_16_min, levels, five, five_min, six, eight, f32, f16, bf16, quantize, residual };
        }
    };
    (@quantized $simd:ty, $rows:literal, $features:tt, $($kernel:ident: $tile:ty),*) => {
        $(table!(@one $features, $kernel, |job| kernel::quantized::<$simd, $tile, $rows>(job));)*
    };
    (@float $simd:ty, $features:tt, $($kernel:ident: $read:ident as $type:ty),*) => {
        $(table!(@one $features, $kernel, |job| kernel::float::<$simd>(job, |p, i| {
            <<$simd as simd::Simd>::F as Floats>::$read(p.cast::<$type>().add(i))
        }));)*
    };
    (@one ($($features:literal)?), $kernel:ident, |$job:ident| $body:expr) => {
        $(#[target_feature(enable = $features)])?
        unsafe fn $kernel($job: &Job) {
            // SAFETY: the caller has the features and a valid job, whose lines hold every element that is read.
            unsafe { $body }
        }
    };
}

table!(scalar_table, plain::Plain<16, 64>, lanes::Portable, 4);
#[cfg(target_arch = "x86_64")]
table!(avx2_table, avx2::Avx2<false>, lanes::Avx2, 4, "avx2,fma,f16c");
#[cfg(target_arch = "x86_64")]
table!(avxvnni_table, avx2::Avx2<true>, lanes::Avx2, 4, "avxvnni,avx2,fma,f16c");
#[cfg(target_arch = "x86_64")]
table!(
    avx512_table,
    avx512::Avx512Vnni,
    lanes::Avx512,
    16,
    "avx512f,avx512bw,avx512vnni,avx2,fma,f16c"
);

// Below the macro that it uses.
#[cfg(test)]
mod twins;

/// The matrix kernels of a tier that this processor has.
#[derive(Clone, Copy)]
pub struct Kernels {
    tier: Tier,
    table: &'static Table,
}

impl fmt::Debug for Kernels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kernels").field("tier", &self.tier).finish_non_exhaustive()
    }
}

/// Rows of activations, as the layouts of a matrix need them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Input<'a> {
    pub(crate) acts: &'a Acts,
    /// Float rows, read by float segments only; `x_stride` apart.
    pub(crate) x: &'a [f32],
    pub(crate) x_stride: usize,
    pub(crate) rows: usize,
    /// Quantised rows that each row is the sum of, `[terms][rows]` in `acts`: 1 or 2.
    pub(crate) terms: usize,
}

/// Where a product goes: rows `stride` apart.
#[derive(Debug)]
pub(crate) struct Output<'a> {
    pub(crate) out: &'a mut [f32],
    pub(crate) stride: usize,
    /// Add the product to what is there instead of replacing it.
    pub(crate) add: bool,
}

impl Kernels {
    /// `None` if this processor does not have the tier.
    pub fn new(tier: Tier) -> Option<Self> {
        let table = match tier {
            _ if !tier.is_available() => return None,
            Tier::Scalar => &scalar_table::TABLE,
            #[cfg(target_arch = "x86_64")]
            Tier::Avx2 => &avx2_table::TABLE,
            #[cfg(target_arch = "x86_64")]
            Tier::AvxVnni => &avxvnni_table::TABLE,
            #[cfg(target_arch = "x86_64")]
            Tier::Avx512 => &avx512_table::TABLE,
            #[cfg(not(target_arch = "x86_64"))]
            _ => return None,
        };
        Some(Self { tier, table })
    }

    pub fn tier(&self) -> Tier {
        self.tier
    }

    /// Quantises `x`, which is as long as the row.
    pub(crate) fn quantize(&self, x: &[f32], row: act::Row<'_>) {
        // SAFETY: a `Kernels` exists only for a tier that the processor has.
        unsafe { (self.table.quantize)(x, row) }
    }

    /// Leaves of `x` what [`Self::quantize`] lost of it.
    pub(crate) fn residual(&self, x: &mut [f32], row: act::Row<'_>) {
        // SAFETY: a `Kernels` exists only for a tier that the processor has.
        unsafe { (self.table.residual)(x, row) }
    }

    /// `out[r][n] = x[r] . w[n]` (or `+=`) for all rows of `input` and all outputs of `w`.
    pub(crate) fn gemm(
        &self,
        pool: &mut Pool,
        w: &Packed,
        input: &Input<'_>,
        output: &mut Output<'_>,
    ) {
        let rows = input.rows;
        if rows == 0 {
            return;
        }
        assert!(
            output.stride >= w.rows() && output.out.len() >= (rows - 1) * output.stride + w.rows()
        );
        if w.reads_quantized() {
            assert_eq!(input.acts.cols(), w.cols());
            let filled = (rows * input.terms).next_multiple_of(input.acts.height());
            assert!(input.terms > 0 && input.acts.meta().len() >= filled * input.acts.groups());
        }
        if w.reads_float() {
            assert!(
                input.x_stride >= w.cols()
                    && input.x.len() >= (rows - 1) * input.x_stride + w.cols()
            );
        }
        let out = Place { start: output.out.as_mut_ptr(), stride: output.stride, add: output.add };
        pool.run(w.segments.iter().map(Segment::panels).sum(), &|unit, _| {
            let mut panel = unit;
            for segment in &w.segments {
                if panel < segment.panels() {
                    let job = job(segment, panel, w, input, &out);
                    // SAFETY: the processor has the tier; the asserts above bound every pointer of the job; panels write disjoint outputs.
                    unsafe { (self.kernel(segment.layout))(&job) }
                    return;
                }
                panel -= segment.panels();
            }
        });
    }

    fn kernel(&self, layout: Layout) -> Kernel {
        match layout {
            Layout::Four { has_min: false } => self.table.four,
            Layout::Four { has_min: true } => self.table.four_min,
            Layout::FourBy16 { has_min: false } => self.table.four_by_16,
            Layout::FourBy16 { has_min: true } => self.table.four_by_16_min,
            Layout::Levels => self.table.levels,
            Layout::Five { has_min: false } => self.table.five,
            Layout::Five { has_min: true } => self.table.five_min,
            Layout::Six => self.table.six,
            Layout::Eight => self.table.eight,
            Layout::F32 => self.table.f32,
            Layout::F16 => self.table.f16,
            Layout::BF16 => self.table.bf16,
        }
    }
}

/// The output's first element, shared by members that write disjoint parts.
struct Place {
    start: *mut f32,
    stride: usize,
    add: bool,
}

// SAFETY: units write disjoint outputs.
unsafe impl Sync for Place {}

fn job(segment: &Segment, panel: usize, w: &Packed, input: &Input<'_>, out: &Place) -> Job {
    let layout = segment.layout;
    let tile = panel * segment.tiles;
    let first = segment.first_row + panel * PANEL;
    Job {
        tiles: segment.tiles,
        lines: segment.lines[tile * layout.lines()..].as_ptr().cast(),
        scales: segment.scales[tile * layout.scale_sets()..].as_ptr().cast(),
        levels: segment.levels,
        cols: w.cols(),
        q: input.acts.q().as_ptr(),
        meta: input.acts.meta().as_ptr(),
        height: input.acts.height(),
        x: input.x.as_ptr(),
        x_stride: input.x_stride,
        rows: input.rows,
        terms: input.terms,
        out: out.start.wrapping_add(first),
        out_stride: out.stride,
        add: out.add,
        bias: w.bias().map_or(std::ptr::null(), |bias| bias[first..].as_ptr()),
        valid: (segment.rows - panel * PANEL).min(PANEL),
    }
}
