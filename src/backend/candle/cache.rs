//! Keys and values in blocks, and attention over them.

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::ops;
use candle_transformers::utils::{build_additive_causal_mask, repeat_kv};
use half::f16;
use half::vec::HalfBitsVecExt;

use crate::backend::{Attention, BLOCK_TOKENS, BlockId, Shape};

/// Scores held at a time: 64 MiB of f32. Longer products of queries and keys go piece by piece.
const MAX_SCORES: usize = 16 << 20;

/// One sequence's rows in a step.
pub(super) struct Span {
    pub(super) first_row: usize,
    pub(super) rows: usize,
    /// Position of the first row.
    pub(super) start: usize,
    pub(super) blocks: Vec<BlockId>,
}

/// The KV cache: of each layer, keys and values as `[blocks * BLOCK_TOKENS, kv_heads * head_dim]`.
pub(super) struct Cache {
    layers: Vec<(Tensor, Tensor)>,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    device: Device,
    /// Where the step's rows go: their slot, repeated over the width of the cache.
    slots: Option<Tensor>,
}

/// Zeros that take no memory before they are written, where the system can do that: candle writes
/// those of f16 one by one, and a cache is large.
fn zeros(size: (usize, usize), dtype: DType, device: &Device) -> Result<Tensor> {
    if dtype == DType::F16 && device.is_cpu() {
        let zeros: Vec<f16> = vec![0u16; size.0 * size.1].reinterpret_into();
        return Tensor::from_vec(zeros, size, device);
    }
    Tensor::zeros(size, dtype, device)
}

/// Some rows of a span, and the first position that any of them sees.
struct Piece<'a> {
    span: &'a Span,
    /// From the span's first row.
    skip: usize,
    rows: usize,
    from: usize,
}

impl Piece<'_> {
    /// Position of the first query.
    fn start(&self) -> usize {
        self.span.start + self.skip
    }

    /// Keys that the last query may see.
    fn keys(&self) -> usize {
        self.start() + self.rows - self.from
    }
}

impl Cache {
    pub(super) fn new(shape: &Shape, blocks: usize, dtype: DType, device: &Device) -> Result<Self> {
        let size = (blocks * BLOCK_TOKENS, shape.kv_heads * shape.head_dim);
        let layer = || Ok((zeros(size, dtype, device)?, zeros(size, dtype, device)?));
        Ok(Self {
            layers: (0..shape.layers).map(|_| layer()).collect::<Result<_>>()?,
            heads: shape.heads,
            kv_heads: shape.kv_heads,
            head_dim: shape.head_dim,
            device: device.clone(),
            slots: None,
        })
    }

    /// Finds the slots of a step's rows.
    pub(super) fn begin(&mut self, spans: &[Span]) -> Result<()> {
        let width = self.kv_heads * self.head_dim;
        let mut slots = Vec::new();
        for span in spans {
            for position in span.start..span.start + span.rows {
                let block = span.blocks[position / BLOCK_TOKENS] as usize;
                let slot = block * BLOCK_TOKENS + position % BLOCK_TOKENS;
                slots.resize(slots.len() + width, slot as u32);
            }
        }
        let rows = slots.len() / width;
        self.slots = Some(Tensor::from_vec(slots, (rows, width), &self.device)?);
        Ok(())
    }

    /// Writes the step's keys and values, each `[rows, kv_heads, head_dim]`.
    pub(super) fn write(&self, layer: usize, k: &Tensor, v: &Tensor) -> Result<()> {
        let Some(slots) = &self.slots else { candle_core::bail!("a write before its step") };
        let (keys, values) = &self.layers[layer];
        for (cache, new) in [(keys, k), (values, v)] {
            let new = new.flatten_from(1)?.to_dtype(cache.dtype())?.contiguous()?;
            cache.scatter_set(slots, &new, 0)?;
        }
        Ok(())
    }

    /// `softmax(q k) v` of each row over its own sequence: `q` is `[rows, heads, head_dim]`, the
    /// result `[rows, heads * head_dim]`.
    pub(super) fn attend(
        &self,
        q: &Tensor,
        spans: &[Span],
        about: &Attention,
        sinks: Option<&Tensor>,
    ) -> Result<Tensor> {
        let mut out = Vec::new();
        for span in spans {
            let most = (MAX_SCORES / (self.heads * (span.start + span.rows))).max(1);
            for skip in (0..span.rows).step_by(most) {
                let rows = most.min(span.rows - skip);
                let start = span.start + skip;
                let from = about.window.map_or(0, |w| (start + 1).saturating_sub(w));
                let piece = Piece { span, skip, rows, from };
                out.push(self.attend_piece(q, &piece, about, sinks)?);
            }
        }
        Tensor::cat(&out, 0)
    }

    fn attend_piece(
        &self,
        q: &Tensor,
        piece: &Piece<'_>,
        about: &Attention,
        sinks: Option<&Tensor>,
    ) -> Result<Tensor> {
        let (keys, values) = &self.layers[about.layer];
        let (k, v) = (self.gather(keys, piece)?, self.gather(values, piece)?);
        let q = q.narrow(0, piece.span.first_row + piece.skip, piece.rows)?;
        let q = q.transpose(0, 1)?.contiguous()?.unsqueeze(0)?;
        let mut scores = (q.matmul(&k.t()?)? * f64::from(about.scale))?;
        if let Some(cap) = about.softcap.map(f64::from) {
            scores = ((scores / cap)?.tanh()? * cap)?;
        }
        // A lone query sees all that was gathered: it was cut to its window.
        if piece.rows > 1 {
            let offset = piece.start() - piece.from;
            // candle's window counts the distance, ours the keys that are seen.
            let window = about.window.map(|w| w.saturating_sub(1));
            let mask =
                build_additive_causal_mask(piece.rows, offset, window, &self.device, DType::F32)?;
            scores = scores.broadcast_add(&mask)?;
        }
        let weights = match sinks {
            None => ops::softmax_last_dim(&scores)?,
            Some(sinks) => {
                let sinks = sinks.reshape((1, self.heads, 1, 1))?;
                let sinks = sinks.broadcast_as((1, self.heads, piece.rows, 1))?.contiguous()?;
                let all = ops::softmax_last_dim(&Tensor::cat(&[&scores, &sinks], 3)?)?;
                all.narrow(3, 0, piece.keys())?.contiguous()?
            }
        };
        let out = weights.matmul(&v)?;
        out.squeeze(0)?.transpose(0, 1)?.contiguous()?.flatten_from(1)
    }

    /// What the piece sees of one cache: `[1, heads, keys, head_dim]`, f32.
    fn gather(&self, cache: &Tensor, piece: &Piece<'_>) -> Result<Tensor> {
        let first = piece.from / BLOCK_TOKENS;
        let end = (piece.from + piece.keys()).div_ceil(BLOCK_TOKENS);
        let ids = Tensor::new(&piece.span.blocks[first..end], &self.device)?;
        let (slots, width) = cache.dims2()?;
        let blocks = cache.reshape((slots / BLOCK_TOKENS, BLOCK_TOKENS * width))?;
        let seen = blocks
            .index_select(&ids, 0)?
            .reshape(((end - first) * BLOCK_TOKENS, self.kv_heads, self.head_dim))?
            .narrow(0, piece.from - first * BLOCK_TOKENS, piece.keys())?
            .to_dtype(DType::F32)?
            .transpose(0, 1)?
            .contiguous()?;
        repeat_kv(seen.unsqueeze(0)?, self.heads / self.kv_heads)?.contiguous()
    }
}
