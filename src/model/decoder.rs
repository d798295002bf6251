//! One decoder for all architectures and backends: a [`Description`] says what to load, the
//! [`Backend`] computes. A step is `begin`, `embed`, the layers, `logits`.

#[cfg(test)]
mod tests;
mod weights;

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;

use self::weights::{Layer, LayerMlp, NormWeights, Weights};
use super::arch::{Description, Factors};
use super::{Logits, Model, ModelSpec, Part, StepError};
use crate::backend::{
    Activation, Attention, BLOCK_TOKENS, Backend, BackendError, Batch, BlockType, Experts, KvDtype,
    LogitMap, Mlp, Norm, Post, Pre, Reserve, Rope, Routing, Shape, TensorSource,
};

/// What the engine asked for, within which a [`Decoder`] will stay.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Most tokens a step may hold.
    pub max_rows: usize,
    /// Most rows of logits a step may ask for.
    pub max_logit_rows: usize,
    /// KV blocks to reserve.
    pub blocks: usize,
    pub kv_dtype: KvDtype,
    /// Longest sequence in tokens.
    pub max_context: usize,
    /// Tokens that end an answer.
    pub end_tokens: Vec<u32>,
}

/// A Transformer on a backend.
pub struct Decoder<B: Backend> {
    backend: B,
    spec: ModelSpec,
    shape: Shape,
    kv_block_bytes: usize,
    eps: f32,
    embed_scale: f32,
    attention_scale: f32,
    attention_cap: Option<f32>,
    residual_scale: f32,
    logit_map: LogitMap,
    activation: Activation,
    routing: Option<Routing>,
    ropes: Vec<Rope>,
    embedding: B::Linear,
    positions: Option<B::Linear>,
    /// `None`: the embedding is the head.
    head: Option<B::Linear>,
    final_norm: NormWeights<B>,
    layers: Vec<Layer<B>>,
    /// Start, tokens and next layer of the chunk that is under way.
    under_way: Option<(usize, usize, usize)>,
}

/// Bytes of one KV block over all layers of a model of this shape.
pub fn kv_block_bytes(shape: &Shape, dtype: KvDtype) -> usize {
    let element = match dtype {
        KvDtype::F16 => 2,
        KvDtype::F32 => 4,
    };
    shape.layers * 2 * shape.kv_heads * shape.head_dim * BLOCK_TOKENS * element
}

/// Is told, by several threads, of each further piece of the weights that is loaded: its bytes in the file.
pub type Loaded<'a> = &'a (dyn Fn(u64) + Sync);

impl<B: Backend> Decoder<B> {
    /// Loads all weights and reserves room for steps within `limits`.
    ///
    /// # Errors
    /// A tensor that the backend cannot use, or too little memory.
    pub fn load(
        backend: B,
        description: &Description,
        limits: Limits,
    ) -> Result<Self, BackendError> {
        Self::load_telling(backend, description, limits, &|_| {})
    }

    /// As [`Self::load`], telling `loaded` of it.
    ///
    /// # Errors
    /// The same.
    pub fn load_telling(
        mut backend: B,
        description: &Description,
        limits: Limits,
        loaded: Loaded<'_>,
    ) -> Result<Self, BackendError> {
        let d = description;
        let mut ropes = d.ropes.clone();
        if let Some(factors) = &d.rope_factors {
            match factors.of(limits.max_context) {
                Factors::File(source) => divide(&mut ropes[0].inv_freq, source)?,
                Factors::Given(all) => {
                    ropes[0].inv_freq.iter_mut().zip(all).for_each(|(freq, by)| *freq /= by);
                }
            }
        }
        let Weights { embedding, positions, head, final_norm, layers } =
            weights::load(&backend, d, loaded)?;
        backend.reserve(&Reserve {
            shape: d.shape,
            max_rows: limits.max_rows,
            max_logit_rows: limits.max_logit_rows,
            blocks: limits.blocks,
            kv_dtype: limits.kv_dtype,
            max_context: limits.max_context,
        })?;
        Ok(Self {
            backend,
            spec: ModelSpec {
                vocab: d.shape.vocab,
                layers: d.shape.layers,
                max_context: limits.max_context,
                kv_blocks: limits.blocks,
                max_rows: limits.max_rows,
                max_logit_rows: limits.max_logit_rows,
                max_later_rows: limits.max_rows,
                one_at_a_time: false,
                end_tokens: limits.end_tokens,
            },
            shape: d.shape,
            kv_block_bytes: kv_block_bytes(&d.shape, limits.kv_dtype),
            eps: d.eps,
            embed_scale: d.embed_scale,
            attention_scale: d.attention_scale,
            attention_cap: d.attention_cap,
            residual_scale: d.residual_scale,
            logit_map: d.logit_map,
            activation: d.activation,
            routing: d.routing,
            ropes,
            embedding,
            positions,
            head,
            final_norm,
            layers,
            under_way: None,
        })
    }

    /// Refuses a batch that the reserved room cannot hold: indexing must not be what finds out.
    fn check(&self, batch: &Batch<'_>) -> Result<(), StepError> {
        let refuse = |reason: String| Err(StepError(reason));
        let (rows, logit_rows) = (batch.rows(), batch.logit_rows());
        if rows > self.spec.max_rows || logit_rows > self.spec.max_logit_rows {
            return refuse(format!("step of {rows} rows, {logit_rows} of them with logits"));
        }
        for s in batch.slices {
            let end = s.start.saturating_add(s.tokens.len());
            if end > self.spec.max_context || end.div_ceil(BLOCK_TOKENS) > s.blocks.len() {
                return refuse(format!("slice ends at {end} with {} blocks", s.blocks.len()));
            }
            let used = &s.blocks[..end.div_ceil(BLOCK_TOKENS)];
            if let Some(block) = used.iter().find(|&&b| b as usize >= self.spec.kv_blocks) {
                return refuse(format!("block {block} of {}", self.spec.kv_blocks));
            }
            if let Some(token) = s.tokens.iter().find(|&&t| t as usize >= self.shape.vocab) {
                return refuse(format!("token {token} of {}", self.shape.vocab));
            }
        }
        Ok(())
    }

    fn step(&mut self, batch: &Batch<'_>) -> Result<&[f32], BackendError> {
        self.backend.begin(batch)?;
        self.embed()?;
        self.pass(0..self.layers.len())?;
        let head = self.head.as_ref().unwrap_or(&self.embedding);
        self.backend.logits(self.final_norm.pre(self.eps), head, self.logit_map)
    }

    fn embed(&mut self) -> Result<(), BackendError> {
        self.backend.embed(&self.embedding, self.embed_scale, self.positions.as_ref())
    }

    /// The rows of the step go through these layers.
    fn pass(&mut self, range: Range<usize>) -> Result<(), BackendError> {
        let Self { backend, eps, ropes, layers, residual_scale, .. } = self;
        let (eps, scale) = (*eps, *residual_scale);
        for (index, layer) in layers.iter().enumerate().take(range.end).skip(range.start) {
            backend.norm_qkv(pre(layer.attention_norm.as_ref(), eps), &layer.qkv)?;
            let qk_norm = layer.qk_norm.as_ref().map(|[q, k]| (norm(q, eps), norm(k, eps)));
            backend.rope_write_kv(index, qk_norm, &ropes[layer.rope])?;
            let attention = Attention {
                layer: index,
                scale: self.attention_scale,
                window: layer.window,
                softcap: self.attention_cap,
            };
            backend.attention(attention, layer.sinks.as_ref())?;
            backend
                .project_add(&layer.output, post(layer.post_attention_norm.as_ref(), eps, scale))?;
            let pre = pre(layer.mlp_norm.as_ref(), eps);
            let post = post(layer.post_mlp_norm.as_ref(), eps, scale);
            let activation = self.activation;
            match (&layer.mlp, self.routing) {
                (LayerMlp::One(weights), _) => {
                    backend.mlp_add(Mlp { pre, weights, activation, post })?;
                }
                (LayerMlp::Experts(weights), Some(routing)) => {
                    backend.experts_add(Experts { pre, weights, routing, activation, post })?;
                }
                (LayerMlp::Experts(_), None) => {
                    return Err(BackendError::Device("experts that nothing chooses".to_owned()));
                }
            }
        }
        Ok(())
    }

    fn step_part(&mut self, part: &Part<'_>) -> Result<(), BackendError> {
        self.backend.begin(&Batch { slices: &[part.slice] })?;
        if part.layers.start == 0 {
            self.embed()?;
        } else {
            self.backend.resume()?;
        }
        self.pass(part.layers.clone())?;
        if part.layers.end < self.layers.len() { self.backend.keep() } else { Ok(()) }
    }
}

impl<B: Backend> Model for Decoder<B> {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn forward(&mut self, batch: &Batch<'_>) -> Result<Logits<'_>, StepError> {
        self.check(batch)?;
        let vocab = self.shape.vocab;
        if batch.rows() == 0 {
            return Ok(Logits { data: &[], vocab });
        }
        let data = self.step(batch).map_err(|e| StepError(e.to_string()))?;
        Ok(Logits { data, vocab })
    }

    fn advance(&mut self, part: &Part<'_>) -> Result<(), StepError> {
        let Part { slice, layers } = part;
        self.check(&Batch { slices: &[*slice] })?;
        let (start, tokens) = (slice.start, slice.tokens.len());
        let before = self.under_way.take();
        let goes_on = layers.start == 0 || before == Some((start, tokens, layers.start));
        if !goes_on || tokens == 0 || layers.is_empty() || layers.end > self.layers.len() {
            return Err(StepError(format!(
                "layers {layers:?} of {tokens} tokens after {before:?}"
            )));
        }
        self.step_part(part).map_err(|e| StepError(e.to_string()))?;
        self.under_way = (layers.end < self.layers.len()).then_some((start, tokens, layers.end));
        Ok(())
    }

    fn recover(&mut self) {
        self.backend.recover();
    }

    fn device(&self) -> String {
        self.backend.name()
    }

    fn kv_block_bytes(&self) -> usize {
        self.kv_block_bytes
    }
}

fn norm<V>(weight: &V, eps: f32) -> Norm<'_, V> {
    Norm { weight, eps }
}

fn pre<B: Backend>(norm: Option<&NormWeights<B>>, eps: f32) -> Pre<'_, B::Vector> {
    norm.map_or(Pre::Nothing, |norm| norm.pre(eps))
}

fn post<V>(weight: Option<&V>, eps: f32, scale: f32) -> Post<'_, V> {
    Post { norm: weight.map(|w| norm(w, eps)), scale }
}

/// Divides frequencies by the factors that a file carries: long wavelengths are stretched.
fn divide(inv_freq: &mut [f32], source: &TensorSource) -> Result<(), BackendError> {
    let refuse = |reason: String| BackendError::Tensor { name: source.name.clone(), reason };
    if source.kind != BlockType::F32 {
        return Err(refuse(format!("is {:?}, not F32", source.kind)));
    }
    let mut bytes = vec![0; inv_freq.len() * 4];
    let mut file = File::open(&source.path).map_err(|e| refuse(e.to_string()))?;
    file.seek(SeekFrom::Start(source.offset))
        .and_then(|_| file.read_exact(&mut bytes))
        .map_err(|e| refuse(e.to_string()))?;
    for (f, b) in inv_freq.iter_mut().zip(bytes.as_chunks::<4>().0) {
        let factor = f32::from_le_bytes(*b);
        if !(factor.is_finite() && factor > 0.0) {
            return Err(refuse(format!("holds {factor}")));
        }
        *f /= factor;
    }
    Ok(())
}
