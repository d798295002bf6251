//! The makers of numbers: one trait of about ten fused operations, and its two implementations.
//!
//! A backend is a small machine with registers, not a tensor library. The registers are the rows of
//! the current step: the residual stream `x` `[rows, hidden]` and scratch for q, k, v, the attention's
//! output and the MLP, which only the backend sees. That is what lets the CPU backend run a step in
//! one arena without an allocation, and what keeps the decoder free of shapes.

pub mod candle;
mod change;
mod coded;
mod convert;
pub mod cpu;
mod finite;
mod mlp;
mod read;
mod source;
mod stored;

pub use change::{Change, Exponents};
pub use mlp::{Activation, Choice, ExpertWeights, Experts, Mlp, MlpWeights, Routing, SharedExpert};
#[cfg(test)]
pub(crate) use read::read_all;
pub use read::read_floats;
pub use source::{LinearSource, TensorSource};
pub use stored::{Coded, Stored};

/// One physical KV block of [`BLOCK_TOKENS`] tokens; the id is shared by all layers and backends.
pub type BlockId = u32;

/// Tokens in a KV block. candle's paged flash attention wants a multiple of 32 too.
pub const BLOCK_TOKENS: usize = 32;

/// What went wrong in a backend, at load or in a step. Never shown to a client.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// A tensor of the model file cannot be used; names the tensor.
    #[error("tensor {name}: {reason}")]
    Tensor { name: String, reason: String },
    /// The machine ran out of something, or a device failed.
    #[error("{0}")]
    Device(String),
}

/// GGUF block types that Millrace computes with. What else a file may have is in [`Stored`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BlockType {
    F32,
    F16,
    BF16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
}

impl BlockType {
    /// All of them, in the order of GGUF's type numbers.
    pub const ALL: [Self; 13] = [
        Self::F32,
        Self::F16,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q2K,
        Self::Q3K,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
        Self::BF16,
    ];

    /// The name that ggml gives it, such as `Q4_K`.
    pub fn label(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q8_0 => "Q8_0",
            Self::Q2K => "Q2_K",
            Self::Q3K => "Q3_K",
            Self::Q4K => "Q4_K",
            Self::Q5K => "Q5_K",
            Self::Q6K => "Q6_K",
        }
    }

    /// Values in a block. Rows are whole blocks.
    pub fn block_len(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => 32,
            Self::Q2K | Self::Q3K | Self::Q4K | Self::Q5K | Self::Q6K => 256,
        }
    }

    /// Bytes of a block in the file (ggml-common.h).
    pub fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q2K => 84,
            Self::Q3K => 110,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        }
    }
}

/// How rotary embedding pairs up the elements of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopePairs {
    /// `(2i, 2i + 1)`: llama as GGUF stores it.
    Interleaved,
    /// `(i, i + dims / 2)`: GPT-NeoX, Qwen, Gemma.
    Halves,
}

/// Rotary position embedding of one layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    pub pairs: RopePairs,
    /// Rotated elements a head; the rest pass through. 0: a layer that knows no positions.
    pub dims: usize,
    /// `1 / base^(2i / dims)` for pair i, already scaled as the model wants: `dims / 2` long.
    pub inv_freq: Vec<f32>,
    /// What rotated elements grow by: 1, but for some models of long contexts.
    pub magnitude: f32,
}

/// Shape of the model, as far as a backend must know it to lay out its registers and KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    pub layers: usize,
    pub hidden: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    /// Of the widest MLP.
    pub mlp: usize,
    pub vocab: usize,
    /// Experts of a layer; 0: none.
    pub experts: usize,
    /// Experts that compute a row.
    pub experts_used: usize,
}

/// Element type of the KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KvDtype {
    #[default]
    F16,
    F32,
}

/// Which rows of a slice the head is computed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogitRows {
    /// None: a chunk of a prompt that is not at its end yet.
    None,
    /// The last row only: a sequence that samples.
    Last,
    /// Every row: a prompt that is scored.
    All,
}

/// One sequence's share of a step: `tokens` at positions `start..start + tokens.len()`.
#[derive(Debug, Clone, Copy)]
pub struct Slice<'a> {
    pub tokens: &'a [u32],
    pub start: usize,
    /// Physical blocks of positions `0..`, long enough for the last token of this slice.
    pub blocks: &'a [BlockId],
    pub logits: LogitRows,
}

/// What one step computes. Rows are the tokens of all slices, in order.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    pub slices: &'a [Slice<'a>],
}

impl Batch<'_> {
    /// Tokens in this step.
    pub fn rows(&self) -> usize {
        self.slices.iter().map(|s| s.tokens.len()).sum()
    }

    /// Rows of logits that this step yields.
    pub fn logit_rows(&self) -> usize {
        self.slices
            .iter()
            .map(|s| match s.logits {
                LogitRows::None => 0,
                LogitRows::Last => 1,
                LogitRows::All => s.tokens.len(),
            })
            .sum()
    }
}

/// `RMSNorm` with `weight` (as the file has it: GGUF's Gemma weights already contain the `+ 1`).
#[derive(Debug)]
pub struct Norm<'a, V> {
    pub weight: &'a V,
    pub eps: f32,
}

// By hand: derived, they would ask the same of the weight that is only borrowed.
impl<V> Clone for Norm<'_, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<V> Copy for Norm<'_, V> {}

/// What becomes of the stream before a product reads it.
#[derive(Debug)]
pub enum Pre<'a, V> {
    Nothing,
    Rms(Norm<'a, V>),
    /// `(x - mean(x)) / sqrt(variance(x) + eps) * weight + bias`
    Layer(Norm<'a, V>, &'a V),
}

// By hand, as for [`Norm`].
impl<V> Clone for Pre<'_, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<V> Copy for Pre<'_, V> {}

/// What becomes of a block's result before the stream takes it up.
#[derive(Debug)]
pub struct Post<'a, V> {
    /// For families that have one.
    pub norm: Option<Norm<'a, V>>,
    /// Multiplies it; 1 for most.
    pub scale: f32,
}

// By hand, as for [`Norm`].
impl<V> Clone for Post<'_, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<V> Copy for Post<'_, V> {}

/// What becomes of logits as the head gives them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogitMap {
    /// Multiplies them; 1 for most.
    pub scale: f32,
    /// Then `cap * tanh(logit / cap)`, for families that soft-cap.
    pub softcap: Option<f32>,
}

/// The norms of q and of k, for families that have them: of each head, or of as many as the weight is long.
pub type QkNorm<'a, V> = (Norm<'a, V>, Norm<'a, V>);

/// Everything attention needs beside q, k and v.
#[derive(Debug, Clone, Copy)]
pub struct Attention {
    pub layer: usize,
    /// Multiplies q·k: usually `1 / sqrt(head_dim)`.
    pub scale: f32,
    /// Sliding window: a query at position p sees keys at positions above `p - window`.
    pub window: Option<usize>,
    /// `cap * tanh(score / cap)`, for families that soft-cap.
    pub softcap: Option<f32>,
}

/// The operations a decoder is made of. Order of calls in a step: `begin`, `embed`, then per layer
/// `norm_qkv`, `rope_write_kv`, `attention`, `project_add`, `mlp_add` or `experts_add`, and at the end `logits`.
/// Rows may also stop between two layers (`keep`) and go on later (`begin` with the same, `resume`).
///
/// For a given row the result of every operation has the same bits whatever the other rows are, how
/// many there are, and however many threads compute it (architecture invariant 7). The candle backend
/// is exempt: its matrix products choose their order by shape.
pub trait Backend: Send + Sync + 'static {
    /// A weight matrix, packed; possibly several tensors with the same input, stacked by rows. With a bias,
    /// where there is one: a product with it adds that.
    type Linear: Send;
    /// A vector of f32: a norm's weight, a bias.
    type Vector: Send;

    /// Threads that may load weights at once.
    fn loading_threads(&self) -> usize {
        1
    }
    /// Stacks weights by rows and packs them.
    fn load_linear(&self, source: &LinearSource) -> Result<Self::Linear, BackendError>;
    /// Joins one-row tensors into one vector.
    fn load_vector(&self, parts: &[TensorSource]) -> Result<Self::Vector, BackendError>;
    /// Reserves registers for `max_rows` rows and `blocks` KV blocks. Called once, after loading.
    fn reserve(&mut self, plan: &Reserve) -> Result<(), BackendError>;

    /// Starts a step: remembers where each row belongs.
    fn begin(&mut self, batch: &Batch<'_>) -> Result<(), BackendError>;
    /// `x = table[token] * scale (+ positions[position])` for every row.
    fn embed(
        &mut self,
        table: &Self::Linear,
        scale: f32,
        positions: Option<&Self::Linear>,
    ) -> Result<(), BackendError>;
    /// `qkv = pre(x) W`; W holds q, k and v stacked.
    fn norm_qkv(
        &mut self,
        pre: Pre<'_, Self::Vector>,
        w: &Self::Linear,
    ) -> Result<(), BackendError>;
    /// Norms q and k where the family does, rotates them, writes k and v into the blocks.
    fn rope_write_kv(
        &mut self,
        layer: usize,
        qk_norm: Option<QkNorm<'_, Self::Vector>>,
        rope: &Rope,
    ) -> Result<(), BackendError>;
    /// `attn = softmax(q k) v` over each row's own sequence, causal. A head's sink is one more score in its
    /// softmax, of nothing.
    fn attention(
        &mut self,
        attention: Attention,
        sinks: Option<&Self::Vector>,
    ) -> Result<(), BackendError>;
    /// `x += post(attn W)`
    fn project_add(
        &mut self,
        w: &Self::Linear,
        post: Post<'_, Self::Vector>,
    ) -> Result<(), BackendError>;
    /// `x += post(down(act(up(pre(x)))))`
    fn mlp_add(&mut self, mlp: Mlp<'_, Self>) -> Result<(), BackendError>
    where
        Self: Sized;
    /// `x += post(y)`, where y is the weighted sum of what the experts that the router chose make of `pre(x)`.
    fn experts_add(&mut self, experts: Experts<'_, Self>) -> Result<(), BackendError>
    where
        Self: Sized;
    /// Puts `x` aside, in place of what was kept before, so that other steps can come between.
    fn keep(&mut self) -> Result<(), BackendError>;
    /// `x` as it was kept, instead of [`Self::embed`]: for the rows that it was kept of.
    fn resume(&mut self) -> Result<(), BackendError>;
    /// `map(pre(x) W)` for the rows that asked for it, in order: `logit_rows x vocab`, row-major.
    fn logits(
        &mut self,
        pre: Pre<'_, Self::Vector>,
        head: &Self::Linear,
        map: LogitMap,
    ) -> Result<&[f32], BackendError>;

    /// Makes the backend usable again after a panic inside a step (a poisoned pool, half-written
    /// registers). KV blocks keep their contents.
    fn recover(&mut self);
    /// A short name for banners and fingerprints, such as `cpu/avx2` or `candle/cuda:0`.
    fn name(&self) -> String;
}

/// What [`Backend::reserve`] makes room for.
#[derive(Debug, Clone, Copy)]
pub struct Reserve {
    pub shape: Shape,
    pub max_rows: usize,
    pub max_logit_rows: usize,
    pub blocks: usize,
    pub kv_dtype: KvDtype,
    /// Longest sequence in tokens.
    pub max_context: usize,
}
