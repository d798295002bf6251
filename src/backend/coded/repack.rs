//! From integers and their scales to blocks of the types that they are kept as.

use half::f16;

use super::{BLOCK, Block, SHARE, blocks};
use crate::backend::{BlockType, Coded};

/// Numbers that share a scale in what is made, but for `Q6_K`.
const GROUP: usize = 32;

/// Appends a row of blocks as [`Coded::kept_as`], its numbers multiplied by `factor`.
///
/// # Errors
/// What is wrong with a number of it: a clause without its subject.
pub(in crate::backend) fn repack(
    coded: Coded,
    factor: f32,
    bytes: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), String> {
    let mut block = Block::new();
    for bytes in blocks(coded, bytes) {
        block.read(coded, bytes);
        block.step *= factor;
        block.scales.iter_mut().for_each(|scale| *scale *= factor);
        if coded.kept_as() == BlockType::Q6K {
            block.q6_k(out)?;
            continue;
        }
        let groups = block.integers.as_chunks().0.iter().zip(block.scales.as_chunks().0);
        for (integers, &scales) in groups.take(coded.block_len() / GROUP) {
            match coded.kept_as() {
                BlockType::Q4_1 => q4_1(integers, scales[0], out)?,
                BlockType::Q8_0 => q8_0(integers, scales, out)?,
                kept => q4_or_5(kept, integers, scales[0], out)?,
            }
        }
    }
    Ok(())
}

/// `Q4_0`: a scale, nibbles from -8. `Q5_0`: with fifth bits before the nibbles, from -16.
fn q4_or_5(
    kept: BlockType,
    integers: &[i8; GROUP],
    scale: f32,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    let zero = if kept == BlockType::Q4_0 { 8 } else { 16 };
    let u = integers.map(|n| n.wrapping_add(zero).cast_unsigned());
    out.extend(half(scale)?);
    if kept == BlockType::Q5_0 {
        let fifths = u.iter().rev().fold(0, |bits: u32, u| bits << 1 | u32::from(u >> 4));
        out.extend(fifths.to_le_bytes());
    }
    out.extend(nibbles(&u));
    Ok(())
}

/// `Q4_1`, of integers that are 8 apart: scale, minimum, nibbles.
fn q4_1(integers: &[i8; GROUP], scale: f32, out: &mut Vec<u8>) -> Result<(), String> {
    let least = integers.iter().copied().fold(i8::MAX, i8::min);
    let u = integers.map(|n| (n.wrapping_sub(least) / 8).cast_unsigned());
    out.extend(half(8.0 * scale)?);
    out.extend(half(scale * f32::from(least))?);
    out.extend(nibbles(&u));
    Ok(())
}

/// `Q8_0`: a scale and the integers as they are, or new ones where two scales share them.
fn q8_0(integers: &[i8; GROUP], scales: [f32; 2], out: &mut Vec<u8>) -> Result<(), String> {
    if scales[0] == scales[1] {
        out.extend(half(scales[0])?);
        out.extend(integers.map(i8::cast_unsigned));
        return Ok(());
    }
    let value = |k: usize| scales[k / SHARE] * f32::from(integers[k]);
    let largest = (0..GROUP).map(|k| value(k).abs()).fold(0.0, f32::max);
    // A NaN is no maximum.
    let is_number = scales.iter().all(|scale| scale.is_finite());
    let d = half(if is_number { largest / 127.0 } else { f32::NAN })?;
    let per_unit = match f16::from_le_bytes(d).to_f32() {
        0.0 => 0.0,
        unit => 1.0 / unit,
    };
    out.extend(d);
    out.extend((0..GROUP).map(|k| ((value(k) * per_unit).round() as i8).cast_unsigned()));
    Ok(())
}

impl Block {
    /// `Q6_K`: low nibbles, the pairs of bits above them, scales that are multiples of one step, that step.
    fn q6_k(&self, out: &mut Vec<u8>) -> Result<(), String> {
        let step = half(self.step)?;
        let six = |k: usize| self.integers[k].wrapping_add(32).cast_unsigned() & 63;
        for at in [0, BLOCK / 2] {
            out.extend((at..at + 64).map(|k| six(k) & 15 | six(k + 64) << 4));
        }
        for at in [0, BLOCK / 2] {
            let high = |k: usize, place: usize| six(k + 32 * place) >> 4 << (2 * place);
            out.extend((at..at + 32).map(|k| high(k, 0) | high(k, 1) | high(k, 2) | high(k, 3)));
        }
        let times = |scale: f32| if self.step == 0.0 { 0.0 } else { (scale / self.step).round() };
        out.extend(self.scales.map(|scale| (times(scale) as i8).cast_unsigned()));
        out.extend(step);
        Ok(())
    }
}

/// Low nibbles are the first 16 integers, high ones the others.
fn nibbles(u: &[u8; GROUP]) -> [u8; SHARE] {
    std::array::from_fn(|k| u[k] & 15 | u[k + SHARE] << 4)
}

/// A scale as blocks have it.
fn half(scale: f32) -> Result<[u8; 2], String> {
    let half = f16::from_f32(scale);
    if half.is_finite() {
        return Ok(half.to_le_bytes());
    }
    Err(if scale.is_finite() {
        format!("holds numbers in units of {scale:e}, more than a half can be ({:e})", f16::MAX)
    } else {
        "holds a number that is not finite".to_owned()
    })
}
