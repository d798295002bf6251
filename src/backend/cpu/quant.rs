//! GGUF's block formats, as published in ggml's `ggml-common.h` and `ggml-quants.c`, read exactly.
//!
//! Every quantised format is a sequence of groups of 32 weights `d * (u - zero) + m` with unsigned integers u; `Q2_K`, `Q3_K`
//! and `Q6_K` have scales per 16. That is the one form from which rows are dequantised (the reference) and tiles are packed.

use half::{bf16, f16};

use crate::backend::BlockType;

/// Weights in a group.
pub(crate) const GROUP: usize = 32;

/// How a format's integers look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Format {
    /// Bits that `u` is packed in: 4, 5, 6 or 8.
    pub(crate) bits: u32,
    /// What stands for zero in formats that are symmetric.
    pub(crate) zero: u8,
    /// Formats with a minimum store `m` per group; in the others it is 0.
    pub(crate) has_min: bool,
    /// Formats whose scales and minima are those of 16 weights.
    pub(crate) by_16: bool,
}

/// 32 weights: `d[k / 16] * (u[k] - zero) + m[k / 16]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Group {
    pub(crate) u: [u8; GROUP],
    pub(crate) d: [f32; 2],
    pub(crate) m: [f32; 2],
}

/// The integers of a quantised format; `None` for the float formats.
pub(crate) fn format(kind: BlockType) -> Option<Format> {
    let of = |bits, zero, has_min| Some(Format { bits, zero, has_min, by_16: false });
    let by_16 = |bits, zero, has_min| Some(Format { bits, zero, has_min, by_16: true });
    match kind {
        BlockType::F32 | BlockType::F16 | BlockType::BF16 => None,
        BlockType::Q4_0 => of(4, 8, false),
        BlockType::Q4_1 | BlockType::Q4K => of(4, 0, true),
        BlockType::Q5_0 => of(5, 16, false),
        BlockType::Q5_1 | BlockType::Q5K => of(5, 0, true),
        BlockType::Q8_0 => of(8, 128, false),
        BlockType::Q2K => by_16(4, 0, true),
        BlockType::Q3K => by_16(4, 4, false),
        BlockType::Q6K => by_16(6, 32, false),
    }
}

fn half_at(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// Nibbles of 16 bytes: low ones are weights 0..16, high ones 16..32.
fn nibbles(bytes: &[u8]) -> [u8; GROUP] {
    std::array::from_fn(|k| if k < 16 { bytes[k] & 15 } else { bytes[k - 16] >> 4 })
}

/// The 6-bit scale and minimum of sub-block `i` of `Q4_K` and `Q5_K`: `get_scale_min_k4` of ggml.
fn scale_and_min(scales: &[u8], i: usize) -> (u8, u8) {
    if i < 4 {
        (scales[i] & 63, scales[i + 4] & 63)
    } else {
        let scale = scales[i + 4] & 15 | scales[i - 4] >> 6 << 4;
        let min = scales[i + 4] >> 4 | scales[i] >> 6 << 4;
        (scale, min)
    }
}

/// Groups of a row of `Q4_0`, `Q4_1`, `Q5_0`, `Q5_1` or `Q8_0` block bytes: one group a block.
fn plain_group(kind: BlockType, block: &[u8]) -> Group {
    let d = half_at(block, 0);
    let with_fifth = |at: usize| {
        let high = u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
        let low = nibbles(&block[at + 4..]);
        std::array::from_fn(|k| low[k] | ((high >> k & 1) as u8) << 4)
    };
    let (u, m) = match kind {
        BlockType::Q4_0 => (nibbles(&block[2..]), 0.0),
        BlockType::Q4_1 => (nibbles(&block[4..]), half_at(block, 2)),
        BlockType::Q5_0 => (with_fifth(2), 0.0),
        BlockType::Q5_1 => (with_fifth(4), half_at(block, 2)),
        // `Q8_0`: signed bytes, moved up to unsigned ones.
        _ => (std::array::from_fn(|k| block[2 + k] ^ 0x80), 0.0),
    };
    Group { u, d: [d; 2], m: [m; 2] }
}

/// Group `i` of 8 of a `Q4_K` or `Q5_K` super-block.
fn k_group(kind: BlockType, block: &[u8], i: usize) -> Group {
    let (scale, min) = scale_and_min(&block[4..16], i);
    let quants = if kind == BlockType::Q5K { &block[48..] } else { &block[16..] };
    let bytes = &quants[i / 2 * 32..][..32];
    let mut u: [u8; GROUP] =
        std::array::from_fn(|k| if i.is_multiple_of(2) { bytes[k] & 15 } else { bytes[k] >> 4 });
    if kind == BlockType::Q5K {
        let high = &block[16..48];
        for (k, u) in u.iter_mut().enumerate() {
            *u |= (high[k] >> i & 1) << 4;
        }
    }
    let d = half_at(block, 0) * f32::from(scale);
    Group { u, d: [d; 2], m: [-(half_at(block, 2) * f32::from(min)); 2] }
}

/// Group `i` of 8 of a `Q6_K` super-block: 128 bytes of low nibbles, 64 of high pairs, 16 scales, d.
fn q6_group(block: &[u8], i: usize) -> Group {
    let (half, quarter) = (i / 4, i % 4);
    let low = &block[half * 64 + quarter % 2 * 32..][..32];
    let high = &block[128 + half * 32..][..32];
    let u = std::array::from_fn(|k| {
        let low = if quarter < 2 { low[k] & 15 } else { low[k] >> 4 };
        low | (high[k] >> (2 * quarter) & 3) << 4
    });
    let d = half_at(block, 208);
    let scale = |j: usize| d * f32::from(block[192 + 2 * i + j].cast_signed());
    Group { u, d: [scale(0), scale(1)], m: [0.0; 2] }
}

/// Weights of two bits, four in a byte: group `i` of 8 of `Q2_K` and `Q3_K`.
fn pairs(bytes: &[u8], i: usize) -> [u8; GROUP] {
    let bytes = &bytes[i / 4 * 32..][..32];
    std::array::from_fn(|k| bytes[k] >> (2 * (i % 4)) & 3)
}

/// Group `i` of 8 of a `Q2_K` super-block: 16 bytes of a scale and a minimum each, 64 of pairs, d, and what minima are multiples of.
fn q2_group(block: &[u8], i: usize) -> Group {
    let (d, min) = (half_at(block, 80), half_at(block, 82));
    let both: [u8; 2] = std::array::from_fn(|j| block[2 * i + j]);
    Group {
        u: pairs(&block[16..], i),
        d: both.map(|both| d * f32::from(both & 15)),
        m: both.map(|both| -(min * f32::from(both >> 4))),
    }
}

/// Scale `j` of 16 of `Q3_K`: four bits, and further on two more.
fn q3_scale(scales: &[u8], j: usize) -> i8 {
    let low = scales[j % 8] >> (j / 8 * 4) & 15;
    let high = scales[8 + j % 4] >> (j / 4 * 2) & 3;
    (low | high << 4).cast_signed() - 32
}

/// Group `i` of 8 of a `Q3_K` super-block: 32 bytes of third bits, 64 of pairs, 12 of scales, d.
fn q3_group(block: &[u8], i: usize) -> Group {
    let pairs = pairs(&block[32..], i);
    let d = half_at(block, 108);
    let scale = |j: usize| d * f32::from(q3_scale(&block[96..], 2 * i + j));
    Group {
        u: std::array::from_fn(|k| pairs[k] | (block[k] >> i & 1) << 2),
        d: [scale(0), scale(1)],
        m: [0.0; 2],
    }
}

/// Calls `each(index, group)` for the groups of one row of a quantised format. `bytes` are whole blocks.
pub(crate) fn for_each_group(kind: BlockType, bytes: &[u8], mut each: impl FnMut(usize, &Group)) {
    let groups = kind.block_len() / GROUP;
    for (b, block) in bytes.chunks_exact(kind.block_bytes()).enumerate() {
        for i in 0..groups {
            let group = match kind {
                BlockType::Q4K | BlockType::Q5K => k_group(kind, block, i),
                BlockType::Q2K => q2_group(block, i),
                BlockType::Q3K => q3_group(block, i),
                BlockType::Q6K => q6_group(block, i),
                _ => plain_group(kind, block),
            };
            each(b * groups + i, &group);
        }
    }
}

/// The 32 weights of a group.
pub(crate) fn values(group: &Group, zero: u8) -> [f32; GROUP] {
    std::array::from_fn(|k| {
        group.d[k / 16] * (f32::from(group.u[k]) - f32::from(zero)) + group.m[k / 16]
    })
}

/// Dequantises one row of block bytes: the reference for everything else. `out` has the row's length.
pub fn dequantize_row(kind: BlockType, bytes: &[u8], out: &mut [f32]) {
    match (kind, format(kind)) {
        (_, Some(format)) => for_each_group(kind, bytes, |i, group| {
            out[i * GROUP..][..GROUP].copy_from_slice(&values(group, format.zero));
        }),
        (BlockType::F32, _) => {
            for (o, b) in out.iter_mut().zip(bytes.chunks_exact(4)) {
                *o = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
            }
        }
        (BlockType::F16, _) => {
            for (o, b) in out.iter_mut().zip(bytes.chunks_exact(2)) {
                *o = f16::from_le_bytes([b[0], b[1]]).to_f32();
            }
        }
        _ => {
            for (o, b) in out.iter_mut().zip(bytes.chunks_exact(2)) {
                *o = bf16::from_le_bytes([b[0], b[1]]).to_f32();
            }
        }
    }
}
