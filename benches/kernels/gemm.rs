//! Products: every tier and block type, from one row, which is limited by memory, to many, which are limited by arithmetic.

use std::io::Write;

use millrace::backend::cpu::Packed;
use millrace::backend::cpu::bench::Product;
use millrace::backend::cpu::gemm::{Kernels, Tier};
use millrace::backend::{BlockType, Change, TensorSource};
use serde_json::{Value, json};

use crate::limits::STREAM;
use crate::timing::Timing;
use crate::{Bench, Result};

const ROWS: [usize; 5] = [1, 4, 16, 64, 256];
const COLS: usize = 2048;
/// Outputs of the matrix for many rows, as wide layers of small models have them.
const OUTPUTS: usize = 4096;

/// The same weights in two sizes.
struct Matrices {
    kind: BlockType,
    /// [`STREAM`] bytes of the file, for few rows.
    long: Packed,
    wide: Packed,
    /// For the specification, which is slow.
    small: Packed,
}

impl Matrices {
    /// Random blocks with small scales. The long one repeats the wide one's.
    fn new(kind: BlockType) -> Result<Self> {
        let mut file = tempfile::NamedTempFile::new()?;
        file.write_all(&blocks(kind, OUTPUTS * COLS / kind.block_len()))?;
        let part = TensorSource {
            name: kind.label().to_owned(),
            path: file.path().to_owned(),
            offset: 0,
            stored: kind.into(),
            kind,
            matrices: 1,
            rows: OUTPUTS,
            cols: COLS,
            change: Change::None,
            exponents: None,
        };
        let parts = vec![part.clone(); STREAM.div_ceil(part.byte_len())];
        let small = TensorSource { rows: OUTPUTS / 16, ..part.clone() };
        Ok(Self {
            kind,
            long: Packed::load(&parts)?,
            wide: Packed::load(&[part])?,
            small: Packed::load(&[small])?,
        })
    }

    fn of(&self, tier: Tier, rows: usize) -> &Packed {
        match tier {
            Tier::Scalar => &self.small,
            _ if rows <= 4 => &self.long,
            _ => &self.wide,
        }
    }
}

/// Bytes of `count` blocks: integers at random, scales small and finite.
fn blocks(kind: BlockType, count: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    let mut bytes: Vec<u8> = (0..count * kind.block_bytes()).map(|_| next()).collect();
    // A half of 0.00098; as the upper bytes of wider floats it is as harmless.
    let scale = 0x1400_u16.to_le_bytes();
    let places: &[usize] = match kind {
        BlockType::F32 => &[2],
        BlockType::Q4_1 | BlockType::Q5_1 | BlockType::Q4K | BlockType::Q5K => &[0, 2],
        BlockType::Q2K => &[80, 82],
        BlockType::Q3K => &[108],
        BlockType::Q6K => &[208],
        _ => &[0],
    };
    for block in bytes.chunks_exact_mut(kind.block_bytes()) {
        for &at in places {
            block[at..at + 2].copy_from_slice(&scale);
        }
    }
    bytes
}

/// Bits of a weight, by which a tier's arithmetic differs; `None` for floats.
fn bits(kind: BlockType) -> Option<u32> {
    match kind {
        BlockType::F32 | BlockType::F16 | BlockType::BF16 => None,
        BlockType::Q4_0 | BlockType::Q4_1 | BlockType::Q2K | BlockType::Q3K | BlockType::Q4K => {
            Some(4)
        }
        BlockType::Q5_0 | BlockType::Q5_1 | BlockType::Q5K => Some(5),
        BlockType::Q6K => Some(6),
        BlockType::Q8_0 => Some(8),
    }
}

/// Prints a line for each tier and type; returns the figures.
pub(crate) fn measure(bench: &mut Bench) -> Result<Value> {
    println!(
        "\nproducts: at 1 row GB/s of weights (share of a read of {} MiB), then GMAC/s (share of the peak)",
        STREAM >> 20
    );
    print!("{:8}{:6}", "", "");
    println!("{}", ROWS.map(|rows| format!("{:>16}", format!("{rows} rows"))).concat());
    let mut figures = Vec::new();
    for kind in BlockType::ALL {
        let matrices = Matrices::new(kind)?;
        for kernels in bench.tiers.clone() {
            print!("{:8}{:6}", kernels.tier().name(), kind.label());
            for rows in ROWS {
                let (cell, figure) = one(bench, &matrices, kernels, rows)?;
                print!("{cell:>16}");
                std::io::stdout().flush()?;
                figures.push(figure);
            }
            println!();
        }
    }
    Ok(figures.into())
}

fn one(
    bench: &mut Bench,
    matrices: &Matrices,
    kernels: Kernels,
    rows: usize,
) -> Result<(String, Value)> {
    let (tier, kind) = (kernels.tier(), matrices.kind);
    let w = matrices.of(tier, rows);
    let mut product = Product::new(kernels, w, rows);
    let timing = Timing::of(bench.options.short, || product.run(&mut bench.pool));
    if !product.is_sane() {
        return Err(format!(
            "{} {} at {rows} rows: outputs are not numbers",
            tier.name(),
            kind.label()
        )
        .into());
    }
    let (gmacs, gbytes) = (timing.giga(product.macs()), timing.giga(w.bytes()));
    let of_peak = bench.limits.peak(tier, bits(kind)).map(|peak| gmacs / peak);
    let of_read = of_peak.map(|_| gbytes / bench.limits.stream);
    let (value, share) = if rows == 1 { (gbytes, of_read) } else { (gmacs, of_peak) };
    let cell =
        format!("{value:.1}{}", share.map_or_else(String::new, |s| format!(" {:3.0}%", 100.0 * s)));
    let figure = json!({
        "tier": tier.name(), "type": kind.label(), "rows": rows, "bytes": w.bytes(),
        "gmac_per_s": timing.json(product.macs()), "gb_per_s": timing.json(w.bytes()),
        "share_of_peak": of_peak, "share_of_read": of_read,
    });
    Ok((cell, figure))
}
