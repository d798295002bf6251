//! Weights packed for the kernels: panels of 16 output rows, tiles of 16 rows x 32 k.
//!
//! A panel's bytes lie in the order in which a kernel reads them; scales lie apart, in the same order, as f16:
//!
//! ```text
//! bits  lines of 64 bytes a tile                               scales a tile
//! 4     qs[j][4*row+b], j < 4                                  d[16]          (symmetric)
//!       low nibble: k = 4j+b; high nibble: k = 16+4j+b         d[16], m[16]   (with a minimum)
//!                                                              each of k < 16, then of k >= 16 (Q2_K, Q3_K)
//!       codes of 8 bits, which the segment's table has         d[16]
//! 5     the four lines, and one of fifth bits:                 as above
//!       bit 4*row+b of u64 j: k = 4j+b; of u64 4+j: k = 16+4j+b
//! 6, 8  qs[j][4*row+b], j < 8: k = 4j+b                        d[16] (8 bits); d of k < 16, d of k >= 16 (6 bits)
//! ```
//!
//! so that one 64-byte load holds four consecutive k of 16 rows: what one `vpdpbusd` multiplies. Float matrices are panels too:
//! `[k][16]` in their own type.
//!
//! Scales of K-quants are products of an f16 and a 6- or 8-bit integer, and are rounded to f16 here: a relative error
//! of at most 2^-11 a group (below 2^-14, where halves are subnormal, 2^-25 absolute), a tenth of what quantising the activations
//! costs, for 12 percent fewer bytes a token.

use half::f16;

use super::quant::{self, GROUP, Group};
use crate::backend::read::RowReader;
use crate::backend::{BackendError, BlockType, LinearSource, TensorSource};

/// Output rows in a panel.
pub(crate) const PANEL: usize = 16;

/// A cache line.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Line(pub(crate) [u8; 64]);

/// 16 scales, one per row of a panel.
pub(crate) type Scales = [f16; PANEL];

/// What a segment's bytes mean, and which kernel reads them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    Four {
        has_min: bool,
    },
    /// With a scale, or a scale and a minimum, for each 16 k.
    FourBy16 {
        has_min: bool,
    },
    /// Codes, for which the segment's table has the integers.
    Levels,
    Five {
        has_min: bool,
    },
    Six,
    Eight,
    F32,
    F16,
    BF16,
}

impl Layout {
    fn of(source: &TensorSource) -> Self {
        let kind = source.kind;
        match (kind, quant::format(kind)) {
            _ if source.levels().is_some() => Self::Levels,
            (BlockType::F32, _) => Self::F32,
            (BlockType::F16, _) => Self::F16,
            (_, None) => Self::BF16,
            (_, Some(f)) if f.bits == 4 && f.by_16 => Self::FourBy16 { has_min: f.has_min },
            (_, Some(f)) if f.bits == 4 => Self::Four { has_min: f.has_min },
            (_, Some(f)) if f.bits == 5 => Self::Five { has_min: f.has_min },
            (_, Some(f)) if f.bits == 6 => Self::Six,
            _ => Self::Eight,
        }
    }

    /// Lines a tile of 32 k.
    pub(crate) fn lines(self) -> usize {
        match self {
            Self::Four { .. } | Self::FourBy16 { .. } | Self::Levels => 4,
            Self::Five { .. } => 5,
            Self::Six | Self::Eight => 8,
            Self::F16 | Self::BF16 => 16,
            Self::F32 => 32,
        }
    }

    /// Sets of 16 scales a tile.
    pub(crate) fn scale_sets(self) -> usize {
        match self {
            Self::Four { has_min } | Self::Five { has_min } => 1 + usize::from(has_min),
            Self::FourBy16 { has_min } => 2 + 2 * usize::from(has_min),
            Self::Six => 2,
            Self::Eight | Self::Levels => 1,
            _ => 0,
        }
    }

    /// A scale for each 16 k.
    fn is_by_16(self) -> bool {
        matches!(self, Self::FourBy16 { .. } | Self::Six)
    }

    /// Of a group, what the tile's sets of scales hold, in their order.
    fn scales_of(self, group: &Group) -> [f32; 4] {
        let ([d0, d1], [m0, m1]) = (group.d, group.m);
        if self.is_by_16() { [d0, d1, m0, m1] } else { [d0, m0, 0.0, 0.0] }
    }

    /// The other way round.
    fn scales_from(self, sets: [f32; 4]) -> ([f32; 2], [f32; 2]) {
        let [a, b, c, d] = sets;
        if self.is_by_16() { ([a, b], [c, d]) } else { ([a; 2], [b; 2]) }
    }

    /// Float segments read f32 activations, all others quantised ones.
    pub(crate) fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F16 | Self::BF16)
    }
}

/// Bytes that a tensor takes once it is packed.
pub fn packed_bytes(source: &TensorSource) -> u64 {
    let layout = Layout::of(source);
    let tile = layout.lines() * size_of::<Line>() + layout.scale_sets() * size_of::<Scales>();
    (source.matrices * source.rows.div_ceil(PANEL) * source.cols.div_ceil(GROUP) * tile) as u64
}

/// How a tensor of a type that is kept as another is called once it is packed.
pub fn packed_as(source: &TensorSource) -> &'static str {
    if Layout::of(source) == Layout::Levels { "codes of 4 bits" } else { source.kind.label() }
}

/// Unsigned integers, moved up by 128, by their codes.
pub(crate) type LevelBytes = [u8; 16];

/// Rows of one tensor, packed.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) layout: Layout,
    zero: u8,
    /// What codes stand for, where the layout has codes.
    pub(crate) levels: LevelBytes,
    /// First output row of the whole matrix that this segment makes.
    pub(crate) first_row: usize,
    pub(crate) rows: usize,
    /// Tiles in a panel: `cols / 32`, rounded up in float segments.
    pub(crate) tiles: usize,
    pub(crate) lines: Vec<Line>,
    pub(crate) scales: Vec<Scales>,
}

/// A weight matrix `[rows, cols]`: one segment for each tensor stacked in it.
#[derive(Debug)]
pub struct Packed {
    pub(crate) segments: Vec<Segment>,
    /// Added to each output; empty, or `rows` long.
    bias: Vec<f32>,
    rows: usize,
    cols: usize,
}

impl Packed {
    /// Reads `parts` (the same `cols` in all) from their files, a few panels at a time, and stacks them by rows.
    pub fn load(parts: &[TensorSource]) -> Result<Self, BackendError> {
        let cols = parts.first().map_or(0, |p| p.cols);
        let segments = Vec::with_capacity(parts.len());
        let mut packed = Self { segments, bias: Vec::new(), rows: 0, cols };
        for part in parts {
            if part.cols != cols || cols == 0 || part.rows == 0 {
                return Err(BackendError::Tensor {
                    name: part.name.clone(),
                    reason: format!(
                        "is {} x {}, but its neighbours have {cols} columns",
                        part.rows, part.cols
                    ),
                });
            }
            packed.segments.push(Segment::load(part, packed.rows)?);
            packed.rows += part.rows;
        }
        Ok(packed)
    }

    /// As [`Self::load`], with what is added to each output.
    pub(super) fn load_with_bias(source: &LinearSource) -> Result<Self, BackendError> {
        let mut packed = Self::load(&source.weights)?;
        packed.bias = load_vector(&source.bias)?;
        match source.bias.first() {
            Some(bias) if packed.bias.len() != packed.rows => Err(BackendError::Tensor {
                name: bias.name.clone(),
                reason: format!("is {} long, of {} outputs", packed.bias.len(), packed.rows),
            }),
            _ => Ok(packed),
        }
    }

    /// What is added to each output.
    pub(super) fn bias(&self) -> Option<&[f32]> {
        (!self.bias.is_empty()).then_some(&self.bias[..])
    }

    /// Outputs.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        self.segments.iter().map(|s| size_of_val(&s.lines[..]) + size_of_val(&s.scales[..])).sum()
    }

    /// Some segment reads f32 activations.
    pub fn reads_float(&self) -> bool {
        self.segments.iter().any(|s| s.layout.is_float())
    }

    /// Some segment reads quantised activations.
    pub fn reads_quantized(&self) -> bool {
        self.segments.iter().any(|s| !s.layout.is_float())
    }

    /// Row `row` as f32, `cols` long: what an embedding looks up.
    pub fn dequant_row(&self, row: usize, out: &mut [f32]) {
        if let Some(s) =
            self.segments.iter().find(|s| (s.first_row..s.first_row + s.rows).contains(&row))
        {
            s.dequant_row(row - s.first_row, &mut out[..self.cols]);
        }
    }
}

/// Joins one-row tensors into one vector.
pub(super) fn load_vector(parts: &[TensorSource]) -> Result<Vec<f32>, BackendError> {
    let mut joined = Vec::new();
    for part in parts {
        let packed = Packed::load(std::slice::from_ref(part))?;
        let mut values = vec![0.0; part.cols];
        packed.dequant_row(0, &mut values);
        joined.extend_from_slice(&values);
    }
    Ok(joined)
}

impl Segment {
    fn load(source: &TensorSource, first_row: usize) -> Result<Self, BackendError> {
        let layout = Layout::of(source);
        let (tiles, panels) = (source.cols.div_ceil(GROUP), source.rows.div_ceil(PANEL));
        let mut reader = RowReader::open(source)?;
        let levels = source.levels().map(|levels| levels.map(|l| l.cast_unsigned() ^ 0x80));
        let codes = levels.as_ref().map(codes);
        let mut segment = Self {
            layout,
            zero: quant::format(source.kind).map_or(0, |f| f.zero),
            levels: levels.unwrap_or_default(),
            first_row,
            rows: source.rows,
            tiles,
            lines: vec![Line([0; 64]); panels * tiles * layout.lines()],
            scales: vec![[f16::ZERO; PANEL]; panels * tiles * layout.scale_sets()],
        };
        for row in 0..source.rows {
            segment.pack_row(source.kind, row, reader.next_row()?, codes.as_ref());
        }
        Ok(segment)
    }

    pub(crate) fn panels(&self) -> usize {
        self.rows.div_ceil(PANEL)
    }

    /// `codes` of integers, where the layout has codes.
    fn pack_row(&mut self, kind: BlockType, row: usize, bytes: &[u8], codes: Option<&Codes>) {
        let (layout, r) = (self.layout, row % PANEL);
        let first_tile = row / PANEL * self.tiles;
        if layout.is_float() {
            let width = kind.block_bytes();
            let panel = &mut self.lines[first_tile * layout.lines()..];
            for (k, value) in bytes.chunks_exact(width).enumerate() {
                let at = (k * PANEL + r) * width;
                panel[at / 64].0[at % 64..][..width].copy_from_slice(value);
            }
            return;
        }
        quant::for_each_group(kind, bytes, |t, group| {
            let tile = first_tile + t;
            let lines = &mut self.lines[tile * layout.lines()..][..layout.lines()];
            let u = codes.map_or(group.u, |codes| group.u.map(|u| codes[usize::from(u)]));
            debug_assert!(
                codes.is_none() || u.map(|code| self.levels[usize::from(code)]) == group.u
            );
            pack_group(layout, lines, r, &u);
            let scales = &mut self.scales[tile * layout.scale_sets()..][..layout.scale_sets()];
            for (set, value) in scales.iter_mut().zip(layout.scales_of(group)) {
                set[r] = f16::from_f32(value);
            }
        });
    }

    /// The group of row `r` in its panel, as it was packed.
    fn group(&self, tile: usize, r: usize) -> Group {
        let lines = &self.lines[tile * self.layout.lines()..][..self.layout.lines()];
        let scales = &self.scales[tile * self.layout.scale_sets()..][..self.layout.scale_sets()];
        let u = std::array::from_fn(|k| {
            let (half, j, b) = (k / 16, k % 16 / 4, k % 4);
            match self.layout {
                Layout::Four { .. }
                | Layout::FourBy16 { .. }
                | Layout::Five { .. }
                | Layout::Levels => {
                    let low = lines[j].0[4 * r + b] >> (4 * half) & 15;
                    let fifth = lines
                        .get(4)
                        .map_or(0, |l| l.0[(4 * half + j) * 8 + r / 2] >> (4 * (r % 2) + b) & 1);
                    if self.layout == Layout::Levels {
                        self.levels[usize::from(low)]
                    } else {
                        low | fifth << 4
                    }
                }
                _ => lines[k / 4].0[4 * r + b],
            }
        });
        let set = |i: usize| scales.get(i).map_or(0.0, |set| set[r].to_f32());
        let (d, m) = self.layout.scales_from(std::array::from_fn(set));
        Group { u, d, m }
    }

    fn dequant_row(&self, row: usize, out: &mut [f32]) {
        let (r, first_tile) = (row % PANEL, row / PANEL * self.tiles);
        if !self.layout.is_float() {
            for (t, out) in out.chunks_exact_mut(GROUP).enumerate() {
                out.copy_from_slice(&quant::values(&self.group(first_tile + t, r), self.zero));
            }
            return;
        }
        let (kind, width) = match self.layout {
            Layout::F32 => (BlockType::F32, 4),
            Layout::F16 => (BlockType::F16, 2),
            _ => (BlockType::BF16, 2),
        };
        let panel = &self.lines[first_tile * self.layout.lines()..];
        for (k, out) in out.iter_mut().enumerate() {
            let at = (k * PANEL + r) * width;
            quant::dequantize_row(
                kind,
                &panel[at / 64].0[at % 64..][..width],
                std::slice::from_mut(out),
            );
        }
    }
}

/// Codes by the unsigned integers that they stand for.
type Codes = [u8; 256];

fn codes(levels: &LevelBytes) -> Codes {
    let mut codes = [0; 256];
    for (code, &level) in levels.iter().enumerate() {
        codes[usize::from(level)] = code as u8;
    }
    codes
}

/// Puts the integers of one row's group into its tile, whose bytes for this row are still 0.
fn pack_group(layout: Layout, lines: &mut [Line], r: usize, u: &[u8; GROUP]) {
    let fours = u.as_chunks::<4>().0;
    if matches!(layout, Layout::Six | Layout::Eight) {
        for (line, four) in lines.iter_mut().zip(fours) {
            line.0[4 * r..][..4].copy_from_slice(four);
        }
        return;
    }
    let (low, high) = fours.split_at(4);
    for ((line, low), high) in lines.iter_mut().zip(low).zip(high) {
        for ((byte, low), high) in line.0[4 * r..][..4].iter_mut().zip(low).zip(high) {
            *byte = low & 15 | high << 4;
        }
    }
    if let Some(fifths) = lines.get_mut(4) {
        for (i, &[a, b, c, d]) in fours.iter().enumerate() {
            let bits = a >> 4 | b >> 4 << 1 | c >> 4 << 2 | d >> 4 << 3;
            fifths.0[8 * i + r / 2] |= bits << (4 * (r % 2));
        }
    }
}
