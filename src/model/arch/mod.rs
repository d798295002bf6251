//! What each architecture is: a [`Family`] says in a few lines how it departs from the plain decoder;
//! [`describe`] joins that with the hyperparameters and tensors of one file, all of them checked.

mod gemma;
mod gpt2;
mod gpt_oss;
mod granite;
mod hyper;
mod layer;
mod llama;
mod olmo2;
mod phi3;
mod qwen;
mod rope;
mod smollm3;
mod starcoder2;
mod tensors;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::backend::{
    Activation, LinearSource, LogitMap, Rope, RopePairs, Routing, Shape, TensorSource,
};
use crate::model::load::gguf::{Metadata, Value};
use hyper::Hyper;
use tensors::Tensors;

/// All architectures that [`describe`] knows.
const FAMILIES: [&Family; 15] = [
    &llama::LLAMA,
    &qwen::QWEN2,
    &qwen::QWEN2_MOE,
    &qwen::QWEN3,
    &qwen::QWEN3_MOE,
    &gemma::GEMMA,
    &gemma::GEMMA2,
    &gemma::GEMMA3,
    &phi3::PHI3,
    &smollm3::SMOLLM3,
    &olmo2::OLMO2,
    &granite::GRANITE,
    &starcoder2::STARCODER2,
    &gpt2::GPT2,
    &gpt_oss::GPT_OSS,
];

/// How an architecture departs from the plain pre-norm decoder with grouped queries and a gated MLP.
#[expect(clippy::struct_excessive_bools, reason = "a family either has a thing or has it not")]
struct Family {
    /// Value of `general.architecture`, and the prefix of its keys.
    name: &'static str,
    pairs: RopePairs,
    biases: Biases,
    /// Norms of the stream are `LayerNorm`, with biases, instead of RMS norms.
    layer_norms: bool,
    /// Norms of what attention and MLP read of the stream.
    pre_norms: bool,
    /// Norms of what attention and MLP add to the residual stream.
    post_norms: bool,
    /// What the norm is called that the MLP's input goes through.
    mlp_norm: &'static str,
    /// Norms of q and k, before the rotation.
    qk_norm: QkNorm,
    /// One score more in each head's softmax.
    sinks: bool,
    activation: Activation,
    /// Gate and up are one tensor.
    fused_gate: bool,
    experts: Option<Experts>,
    embed_scale: EmbedScale,
    /// A vector is added for each position.
    learned_positions: bool,
    /// Caps of scores and logits, where the file says how high.
    soft_caps: bool,
    /// Number of layers of a model whose attention is scaled by hidden size over heads instead of the
    /// head's own size: the largest of a family, which nothing else in its file tells.
    odd_scale_layers: Option<usize>,
    local: Option<Local>,
    /// Every so-manieth layer is not told of positions by a rotation.
    no_rope_every: Option<usize>,
    /// What blocks add and logits are multiplied by numbers of the file.
    scales: bool,
}

/// Departs from nothing.
const PLAIN: Family = Family {
    name: "",
    pairs: RopePairs::Halves,
    biases: Biases::None,
    layer_norms: false,
    pre_norms: true,
    post_norms: false,
    mlp_norm: "ffn_norm",
    qk_norm: QkNorm::None,
    sinks: false,
    activation: Activation::SiluGate,
    fused_gate: false,
    experts: None,
    embed_scale: EmbedScale::One,
    learned_positions: false,
    soft_caps: false,
    odd_scale_layers: None,
    local: None,
    no_rope_every: None,
    scales: false,
};

/// Which products have biases.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Biases {
    None,
    /// Those for which the file has them.
    Optional,
    /// That of q, k and v.
    Qkv,
    /// All but the head.
    All,
}

/// What q and k are normed over.
#[derive(Clone, Copy, PartialEq, Eq)]
enum QkNorm {
    None,
    EachHead,
    AllHeads,
}

/// MLPs of which each row goes through a few.
struct Experts {
    /// The same architecture has models with one MLP a layer.
    optional: bool,
    /// The weights of the chosen ones sum to one.
    sums_to_one: bool,
    /// One more that all rows go through.
    shared: bool,
}

/// What the embedding is multiplied by.
enum EmbedScale {
    One,
    /// The square root of the hidden size.
    RootHidden,
    /// `embedding_scale`, if the file has it.
    Given,
}

/// Layers with a sliding window, perhaps among global ones.
struct Local {
    /// Every `pattern`-th layer is global, unless the file says otherwise; `None`: no layer is.
    pattern: Option<usize>,
    /// Base of the rotation of the local layers, unless the file says otherwise; none: that of the
    /// others.
    rope_base: Option<f32>,
    window: Unsaid,
}

/// The window, where a file does not say how wide it is.
enum Unsaid {
    Refused,
    /// There is none.
    None,
    Tokens(usize),
    /// So many tokens in models of such a context; none in others.
    OfContext {
        context: usize,
        tokens: usize,
    },
}

/// Why a model was refused: one line naming the key or tensor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

/// One model, ready for the decoder: sizes and tensors agree with each other.
#[derive(Debug, Clone)]
pub struct Description {
    /// Value of `general.architecture`.
    pub architecture: &'static str,
    pub shape: Shape,
    /// Longest sequence, in tokens, that the model was trained for.
    pub context: usize,
    /// Epsilon of every norm.
    pub eps: f32,
    pub embed_scale: f32,
    /// Multiplies q·k.
    pub attention_scale: f32,
    pub attention_cap: Option<f32>,
    /// Multiplies what attention and MLP add to the residual stream.
    pub residual_scale: f32,
    pub logit_map: LogitMap,
    pub activation: Activation,
    /// Rotations that layers refer to by index.
    pub ropes: Vec<Rope>,
    /// Divisors of the frequencies of `ropes[0]`, for files that carry them.
    pub rope_factors: Option<RopeFactors>,
    /// How experts are chosen, where layers have them.
    pub routing: Option<Routing>,
    /// `vocab x hidden`.
    pub embedding: TensorSource,
    /// `context x hidden`: added to the embedding, where a model learned its positions.
    pub positions: Option<TensorSource>,
    /// `vocab x hidden`; absent where the embedding serves as the head too.
    pub head: Option<TensorSource>,
    pub final_norm: NormSource,
    pub layers: Vec<LayerDescription>,
}

/// `dims / 2` divisors of frequencies.
#[derive(Debug, Clone)]
pub enum RopeFactors {
    /// Llama 3.
    Always(Factors),
    /// `LongRoPE`: the long ones serve contexts that are longer than the `original` one.
    ByContext { original: usize, short: Factors, long: Factors },
}

impl RopeFactors {
    /// Those of a server whose sequences have up to `context` tokens.
    pub fn of(&self, context: usize) -> &Factors {
        match self {
            Self::Always(all) => all,
            Self::ByContext { original, long, .. } if context > *original => long,
            Self::ByContext { short, .. } => short,
        }
    }
}

/// Where they stand.
#[derive(Debug, Clone)]
pub enum Factors {
    File(TensorSource),
    Given(Vec<f32>),
}

/// An RMS norm, or with a bias a `LayerNorm`.
#[derive(Debug, Clone)]
pub struct NormSource {
    pub weight: TensorSource,
    pub bias: Option<TensorSource>,
}

/// Tensors and particulars of one layer.
#[derive(Debug, Clone)]
pub struct LayerDescription {
    /// Index into [`Description::ropes`].
    pub rope: usize,
    pub window: Option<usize>,
    pub attention_norm: Option<NormSource>,
    pub qkv: LinearSource,
    pub qk_norm: Option<[TensorSource; 2]>,
    pub sinks: Option<TensorSource>,
    pub output: LinearSource,
    pub post_attention_norm: Option<TensorSource>,
    pub mlp_norm: Option<NormSource>,
    pub mlp: MlpDescription,
    pub post_mlp_norm: Option<TensorSource>,
}

/// The MLP of a layer, or several.
#[derive(Debug, Clone)]
pub enum MlpDescription {
    One(MlpSource),
    Experts {
        router: LinearSource,
        experts: Vec<MlpSource>,
        /// The gate of one that all rows go through, and that one.
        shared: Option<(LinearSource, MlpSource)>,
    },
}

#[derive(Debug, Clone)]
pub struct MlpSource {
    /// Gate and up, stacked, where there is a gate.
    pub up: LinearSource,
    pub down: LinearSource,
}

/// Describes the model that `metadata` and `tensors` hold. `unusable` are further tensors of the file,
/// with the reason why: needing one of them is an error.
///
/// # Errors
/// An architecture that is not built, a missing or impossible hyperparameter, a tensor that is
/// missing, has another shape than the hyperparameters say, or has no use here although it means
/// something elsewhere: a weight that the decoder would ignore means that its numbers would be wrong.
pub fn describe(
    metadata: &Metadata,
    tensors: &BTreeMap<String, TensorSource>,
    unusable: &BTreeMap<String, String>,
) -> Result<Description, Refused> {
    let family = family(metadata)?;
    let hyper = Hyper::new(metadata, family.name);
    let mut tensors = Tensors::new(tensors, unusable, &metadata.origins);
    let embedding = tensors.matrix_of_any_height("token_embd.weight")?;
    let sizes = hyper.sizes(family, embedding.rows)?;
    let shape = sizes.shape;
    if embedding.cols != shape.hidden {
        return Err(tensors::mis_shaped(&embedding, (1, embedding.rows, shape.hidden)));
    }
    let ropes = hyper.ropes(family, &shape)?;
    let rope_factors = rope::factors(&hyper, &mut tensors, ropes[0].inv_freq.len())?;
    let context = hyper.context()?;
    let mut reader =
        layer::Reader { family, hyper: &hyper, sizes, ropes: ropes.len(), tensors: &mut tensors };
    let layers = (0..shape.layers).map(|i| reader.layer(i)).collect::<Result<Vec<_>, _>>()?;
    let final_norm = reader.norm("output_norm")?;
    let description = Description {
        architecture: family.name,
        context,
        eps: hyper.eps(family)?,
        embed_scale: match family.embed_scale {
            EmbedScale::One => 1.0,
            EmbedScale::RootHidden => (shape.hidden as f32).sqrt(),
            EmbedScale::Given => hyper.factor_if_any("embedding_scale")?.unwrap_or(1.0),
        },
        attention_scale: hyper.attention_scale(family, &shape)?,
        attention_cap: hyper.cap(family, "attn_logit_softcapping")?,
        residual_scale: hyper.scale(family, "residual_scale")?,
        logit_map: LogitMap {
            scale: 1.0 / hyper.scale(family, "logit_scale")?,
            softcap: hyper.cap(family, "final_logit_softcapping")?,
        },
        activation: family.activation,
        ropes,
        rope_factors,
        routing: family
            .experts
            .as_ref()
            .filter(|_| shape.experts > 0)
            .map(|experts| Routing { used: shape.experts_used, sums_to_one: experts.sums_to_one }),
        positions: family
            .learned_positions
            .then(|| tensors.matrix("position_embd.weight", context, shape.hidden))
            .transpose()?,
        head: tensors.optional_matrix("output.weight", shape.vocab, shape.hidden)?,
        final_norm,
        embedding,
        layers,
        shape,
    };
    tensors.nothing_meaningful_left(shape.layers)?;
    Ok(description)
}

fn family(metadata: &Metadata) -> Result<&'static Family, Refused> {
    let Some(Value::String(name)) = metadata.values.get("general.architecture") else {
        return Err(Refused("general.architecture is missing or not a string".to_owned()));
    };
    FAMILIES.into_iter().find(|f| f.name == name).ok_or_else(|| {
        let known: Vec<&str> = FAMILIES.iter().map(|f| f.name).collect();
        let shown: String = name.chars().take(64).collect();
        Refused(format!(
            "architecture {shown:?} is not supported (supported: {})",
            known.join(", ")
        ))
    })
}
