//! Blocks of [`Coded`] types: read as ggml's `dequantize_row_*` reads them, and turned into blocks of the types that they are kept as.
//!
//! A block of any of them is small integers, each multiplied by a scale that 16 or more of them share. From that one form rows are
//! dequantised, with the bits of ggml, and other blocks are made.

mod grids;
mod repack;
#[cfg(test)]
mod tests;

use half::f16;

use super::Coded;
use grids::{IQ1, IQ2_LEVELS, IQ2_S, IQ2_XS, IQ2_XXS, IQ3_S, IQ3_XXS, IQ3_XXS_LEVELS};
pub(super) use repack::repack;

/// Numbers in the largest block.
const BLOCK: usize = 256;
/// Integers that have a scale of their own.
const SHARE: usize = 16;

/// Twice the four-bit floats of `MXFP4` and `NVFP4` by their bits.
const TWICE_FP4: Levels = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];
/// What the nibbles of `IQ4_NL` and `IQ4_XS` stand for.
const IQ4_LEVELS: Levels =
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// What the codes of four bits that a type is made of stand for. A level may have two codes.
pub(super) type Levels = [i8; 16];

/// The levels of types that are kept as `Q8_0` although their blocks are made of at most 16, one scale for 32 numbers: such blocks
/// need no more than four bits a number from a backend that looks levels up.
pub(super) fn levels(coded: Coded) -> Option<Levels> {
    match coded {
        Coded::Iq2Xxs => Some(with_signs(IQ2_LEVELS)),
        Coded::Iq3Xxs => Some(with_signs(IQ3_XXS_LEVELS)),
        Coded::Iq4Nl | Coded::Iq4Xs => Some(IQ4_LEVELS),
        Coded::Mxfp4 => Some(TWICE_FP4),
        _ => None,
    }
}

/// Magnitudes, then what they are with a minus; zeros in the rest.
fn with_signs<const N: usize>(magnitudes: [i8; N]) -> Levels {
    let mut levels = [0; 16];
    for (i, magnitude) in magnitudes.into_iter().enumerate() {
        (levels[i], levels[N + i]) = (magnitude, -magnitude);
    }
    levels
}

/// The numbers of a block: `scales[k / 16] * integers[k]`, as far as the block is long.
#[derive(Debug)]
struct Block {
    integers: [i8; BLOCK],
    scales: [f32; BLOCK / SHARE],
    /// What all scales are whole multiples of.
    step: f32,
}

/// Dequantises one row of blocks; `out` has the row's length.
pub(super) fn dequantize_row(coded: Coded, bytes: &[u8], out: &mut [f32]) {
    let mut block = Block::new();
    for (bytes, out) in blocks(coded, bytes).zip(out.chunks_mut(coded.block_len())) {
        block.read(coded, bytes);
        block.values(out);
    }
}

fn blocks(coded: Coded, bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.chunks_exact(coded.block_bytes())
}

impl Block {
    fn new() -> Self {
        Self { integers: [0; BLOCK], scales: [0.0; BLOCK / SHARE], step: 0.0 }
    }

    fn values(&self, out: &mut [f32]) {
        for ((out, integers), scale) in
            out.chunks_mut(SHARE).zip(self.integers.chunks(SHARE)).zip(self.scales)
        {
            for (out, &integer) in out.iter_mut().zip(integers) {
                *out = scale * f32::from(integer);
            }
        }
    }

    /// What the bytes of a block say.
    fn read(&mut self, coded: Coded, bytes: &[u8]) {
        match coded {
            Coded::Iq1S => self.iq1_s(bytes),
            Coded::Iq1M => self.iq1_m(bytes),
            Coded::Iq2Xxs => self.iq2_xxs(bytes),
            Coded::Iq2Xs => self.iq2_xs(bytes),
            Coded::Iq2S => self.iq2_s(bytes),
            Coded::Iq3Xxs => self.iq3_xxs(bytes),
            Coded::Iq3S => self.iq3_s(bytes),
            Coded::Iq4Nl => self.iq4_nl(bytes),
            Coded::Iq4Xs => self.iq4_xs(bytes),
            Coded::Tq1_0 => self.tq1_0(bytes),
            Coded::Tq2_0 => self.tq2_0(bytes),
            Coded::Mxfp4 => self.mxfp4(bytes),
            Coded::Nvfp4 => self.nvfp4(bytes),
            Coded::Q1_0 => self.q1_0(bytes),
            Coded::Q2_0 => self.q2_0(bytes),
        }
    }

    /// One scale for all of them.
    fn set_scale(&mut self, scale: f32) {
        self.scales = [scale; BLOCK / SHARE];
    }

    /// Scale `i` of 8, each for 32.
    fn set_scale_of_32(&mut self, i: usize, scale: f32) {
        self.scales[2 * i..2 * i + 2].fill(scale);
    }

    fn put(&mut self, integers: impl Iterator<Item = i8>) {
        for (place, integer) in self.integers.iter_mut().zip(integers) {
            *place = integer;
        }
    }

    /// `IQ1_S`: d, indices, and for each 32 three further bits of four indices, a scale and the sign of what is added to each.
    fn iq1_s(&mut self, b: &[u8]) {
        let d = half_at(b, 0);
        for i in 0..8 {
            let more = word_at(b, 34 + 2 * i);
            // Eighths, in which what is added is whole.
            self.set_scale_of_32(i, d * odd(more >> 12 & 7) / 8.0);
            for l in 0..4 {
                let index = u16::from(b[2 + 4 * i + l]) | (more >> (3 * l) & 7) << 8;
                self.put_eighths(4 * i + l, index, more & 0x8000 != 0);
            }
        }
    }

    /// `IQ1_M`: as `IQ1_S`, with a scale for each 16 and a sign for each 8; d is in the upper bits of the scales.
    fn iq1_m(&mut self, b: &[u8]) {
        let scales: [u16; 4] = std::array::from_fn(|i| word_at(b, 48 + 2 * i));
        let [w, x, y, z] = scales.map(|s| s & 0xf000);
        let d = f16::from_bits(w >> 12 | x >> 8 | y >> 4 | z).to_f32();
        self.step = d / 8.0;
        for (i, scale) in self.scales.iter_mut().enumerate() {
            *scale = d * odd(scales[i / 4] >> (3 * (i % 4)) & 7) / 8.0;
        }
        for i in 0..32 {
            let more = b[32 + i / 2] >> (4 * (i % 2));
            self.put_eighths(i, u16::from(b[i]) | u16::from(more & 7) << 8, more & 8 != 0);
        }
    }

    /// Eight numbers of the `IQ1` codebook at place `i` of 32, and an eighth added to them or taken off: in eighths.
    fn put_eighths(&mut self, i: usize, index: u16, is_less: bool) {
        let word = IQ1[usize::from(index & 2047)];
        let eighth = if is_less { -1 } else { 1 };
        for (j, place) in self.integers[8 * i..][..8].iter_mut().enumerate() {
            *place = ((word >> (2 * j) & 3) as i8 - 1) * 8 + eighth;
        }
    }

    /// `IQ2_XXS`: d, and for each 32 four indices, then their signs and a scale in a word of 32 bits.
    fn iq2_xxs(&mut self, b: &[u8]) {
        let d = half_at(b, 0);
        for i in 0..8 {
            let part = &b[2 + 8 * i..][..8];
            let more = wide_at(part, 4);
            self.set_scale_of_32(i, d * (0.5 + (more >> 28) as f32) * 0.25);
            for l in 0..4 {
                self.put_iq2(4 * i + l, IQ2_XXS[usize::from(part[l])], even_signs(more >> (7 * l)));
            }
        }
    }

    /// `IQ2_XS`: d, words of an index and signs, and a scale for each 16.
    fn iq2_xs(&mut self, b: &[u8]) {
        self.iq2_scales(half_at(b, 0), &b[66..]);
        for i in 0..32 {
            let word = word_at(b, 2 + 2 * i);
            let signs = even_signs(u32::from(word >> 9));
            self.put_iq2(i, IQ2_XS[usize::from(word & 511)], signs);
        }
    }

    /// `IQ2_S`: d, lower bits of indices, signs, upper bits, and a scale for each 16.
    fn iq2_s(&mut self, b: &[u8]) {
        self.iq2_scales(half_at(b, 0), &b[74..]);
        for i in 0..32 {
            let high = usize::from(b[66 + i / 4] >> (2 * (i % 4)) & 3);
            self.put_iq2(i, IQ2_S[usize::from(b[2 + i]) | high << 8], b[34 + i]);
        }
    }

    fn iq2_scales(&mut self, d: f32, nibbles: &[u8]) {
        for (i, scale) in self.scales.iter_mut().enumerate() {
            *scale = d * (0.5 + nibble(nibbles, i)) * 0.25;
        }
    }

    fn put_iq2(&mut self, i: usize, word: u16, signs: u8) {
        for (j, place) in self.integers[8 * i..][..8].iter_mut().enumerate() {
            *place = signed(IQ2_LEVELS[usize::from(word >> (2 * j) & 3)], signs >> j);
        }
    }

    /// `IQ3_XXS`: d, indices, and for each 32 signs and a scale in a word of 32 bits.
    fn iq3_xxs(&mut self, b: &[u8]) {
        let d = half_at(b, 0);
        for i in 0..8 {
            let more = wide_at(b, 66 + 4 * i);
            self.set_scale_of_32(i, d * (0.5 + (more >> 28) as f32) * 0.5);
            for l in 0..8 {
                let word = IQ3_XXS[usize::from(b[2 + 8 * i + l])];
                let signs = even_signs(more >> (7 * (l / 2))) >> (4 * (l % 2));
                let level = |j: usize| IQ3_XXS_LEVELS[usize::from(word >> (4 * j) & 7)];
                self.put_four(8 * i + l, signs, level);
            }
        }
    }

    /// `IQ3_S`: d, lower bits of indices, ninth bits, signs, and a scale for each 32.
    fn iq3_s(&mut self, b: &[u8]) {
        let d = half_at(b, 0);
        for i in 0..8 {
            self.set_scale_of_32(i, d * (1.0 + 2.0 * nibble(&b[106..], i)));
        }
        for i in 0..64 {
            let ninth = usize::from(b[66 + i / 8] >> (i % 8) & 1);
            let word = IQ3_S[usize::from(b[2 + i]) | ninth << 8];
            let level = |j: usize| 2 * (word >> (4 * j) & 7) as i8 + 1;
            self.put_four(i, b[74 + i / 2] >> (4 * (i % 2)), level);
        }
    }

    fn put_four(&mut self, i: usize, signs: u8, level: impl Fn(usize) -> i8) {
        for (j, place) in self.integers[4 * i..][..4].iter_mut().enumerate() {
            *place = signed(level(j), signs >> j);
        }
    }

    /// `IQ4_NL`: d and nibbles.
    fn iq4_nl(&mut self, b: &[u8]) {
        self.set_scale(half_at(b, 0));
        self.put(halves(&b[2..18], IQ4_LEVELS));
    }

    /// `IQ4_XS`: d, upper and lower bits of a scale for each 32, nibbles.
    fn iq4_xs(&mut self, b: &[u8]) {
        let (d, high) = (half_at(b, 0), word_at(b, 2));
        for i in 0..8 {
            let scale = nibble(&b[4..], i) + 16.0 * f32::from(high >> (2 * i) & 3);
            self.set_scale_of_32(i, d * (scale - 32.0));
        }
        self.put(b[8..136].chunks(16).flat_map(|nibbles| halves(nibbles, IQ4_LEVELS)));
    }

    /// `TQ1_0`: digits to the base of 3, five in a byte, as the fraction of 256 that they are; the last four bytes have four. Then d.
    fn tq1_0(&mut self, b: &[u8]) {
        self.set_scale(half_at(b, 52));
        let parts = [(&b[..32], 5), (&b[32..48], 5), (&b[48..52], 4)];
        self.put(parts.into_iter().flat_map(|(bytes, count)| {
            let powers = [1_u8, 3, 9, 27, 81].into_iter().take(count);
            powers.flat_map(move |power| bytes.iter().map(move |byte| third(*byte, power)))
        }));
    }

    /// `TQ2_0`: pairs of bits, the first 32 in the lowest ones of 32 bytes; d.
    fn tq2_0(&mut self, b: &[u8]) {
        self.set_scale(half_at(b, 64));
        self.put((0..BLOCK).map(|k| two_bits(b[k / 128 * 32 + k % 32], k / 32 % 4)));
    }

    /// `MXFP4`: the exponent of a power of two, nibbles.
    fn mxfp4(&mut self, b: &[u8]) {
        self.set_scale((f32::from(b[0]) - 128.0).exp2());
        self.put(halves(&b[1..17], TWICE_FP4));
    }

    /// `NVFP4`: four floats without a sign, nibbles of 16 each.
    fn nvfp4(&mut self, b: &[u8]) {
        for (scale, &bits) in self.scales.iter_mut().zip(&b[..4]) {
            *scale = half_of_e4m3(bits);
        }
        self.put(b[4..36].chunks(8).flat_map(|nibbles| halves(nibbles, TWICE_FP4)));
    }

    /// `Q1_0`: d, bits.
    fn q1_0(&mut self, b: &[u8]) {
        self.set_scale(half_at(b, 0));
        self.put((0..128).map(|k| 2 * (b[2 + k / 8] >> (k % 8) & 1) as i8 - 1));
    }

    /// `Q2_0`: d, pairs of bits.
    fn q2_0(&mut self, b: &[u8]) {
        self.set_scale(half_at(b, 0));
        self.put((0..64).map(|k| two_bits(b[2 + k / 4], k % 4)));
    }
}

fn half_at(bytes: &[u8], at: usize) -> f32 {
    f16::from_bits(word_at(bytes, at)).to_f32()
}

fn word_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn wide_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(word_at(bytes, at)) | u32::from(word_at(bytes, at + 2)) << 16
}

/// `2 n + 1`.
fn odd(n: u16) -> f32 {
    f32::from(2 * n + 1)
}

/// Nibble `i`, the lower one of a byte first.
fn nibble(bytes: &[u8], i: usize) -> f32 {
    f32::from(bytes[i / 2] >> (4 * (i % 2)) & 15)
}

/// What nibbles stand for: the lower ones, then the upper ones.
fn halves(bytes: &[u8], levels: Levels) -> impl Iterator<Item = i8> {
    let low = bytes.iter().map(move |byte| levels[usize::from(byte & 15)]);
    low.chain(bytes.iter().map(move |byte| levels[usize::from(byte >> 4)]))
}

/// Pair `i` of a byte: -1 to 2.
fn two_bits(byte: u8, i: usize) -> i8 {
    (byte >> (2 * i) & 3) as i8 - 1
}

/// The digit of a fraction to the base of 3 behind the point once it is multiplied by `power`: -1 to 1.
fn third(byte: u8, power: u8) -> i8 {
    ((u16::from(byte.wrapping_mul(power)) * 3) >> 8) as i8 - 1
}

fn signed(level: i8, sign: u8) -> i8 {
    if sign & 1 == 0 { level } else { -level }
}

/// Eight signs of which seven bits are stored: an even number of them is negative.
fn even_signs(bits: u32) -> u8 {
    let seven = (bits & 127) as u8;
    seven | (seven.count_ones() as u8 & 1) << 7
}

/// Half of a float of four exponent and three mantissa bits; what stands for no number is 0, as in ggml.
fn half_of_e4m3(bits: u8) -> f32 {
    let (exponent, mantissa) = (bits >> 3 & 15, f32::from(bits & 7));
    match (bits, exponent) {
        (0x7f, _) => 0.0,
        (_, 0) => mantissa / 1024.0,
        _ => (1.0 + mantissa / 8.0) * (f32::from(exponent) - 8.0).exp2(),
    }
}
