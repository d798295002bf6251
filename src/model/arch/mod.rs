//! What each architecture is: a [`Family`] says in a few lines how it departs from the plain decoder;
//! [`describe`] joins that with the hyperparameters and tensors of one file, all of them checked.

mod gemma;
mod granite;
mod hyper;
mod llama;
mod qwen;
mod smollm3;
mod tensors;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::backend::{Activation, LogitMap, Rope, RopePairs, Shape, TensorSource};
use crate::model::load::gguf::{Metadata, Value};
use hyper::Hyper;
use tensors::Tensors;

/// All architectures that [`describe`] knows.
const FAMILIES: [&Family; 8] = [
    &llama::LLAMA,
    &qwen::QWEN2,
    &qwen::QWEN3,
    &gemma::GEMMA,
    &gemma::GEMMA2,
    &gemma::GEMMA3,
    &smollm3::SMOLLM3,
    &granite::GRANITE,
];

/// How an architecture departs from the plain pre-norm decoder with grouped queries and a gated MLP.
#[expect(clippy::struct_excessive_bools, reason = "a family either has a thing or has it not")]
struct Family {
    /// Value of `general.architecture`, and the prefix of its keys.
    name: &'static str,
    pairs: RopePairs,
    biases: Biases,
    /// Norms of q and k by head, before the rotation.
    qk_norm: bool,
    /// Norms of what attention and MLP add to the residual stream.
    post_norms: bool,
    activation: Activation,
    embed_scale: EmbedScale,
    /// Caps of scores and logits, where the file says how high.
    soft_caps: bool,
    /// Number of layers of a model whose attention is scaled by hidden size over heads instead of the
    /// head's own size: the largest of a family, which nothing else in its file tells.
    odd_scale_layers: Option<usize>,
    local: Option<Local>,
    /// Every so-manieth layer knows no positions.
    no_rope_every: Option<usize>,
    /// What blocks add and logits are multiplied by numbers of the file.
    scales: bool,
}

/// Departs from nothing.
const PLAIN: Family = Family {
    name: "",
    pairs: RopePairs::Halves,
    biases: Biases::None,
    qk_norm: false,
    post_norms: false,
    activation: Activation::Silu,
    embed_scale: EmbedScale::One,
    soft_caps: false,
    odd_scale_layers: None,
    local: None,
    no_rope_every: None,
    scales: false,
};

/// Whether q, k and v have biases.
#[derive(PartialEq, Eq)]
enum Biases {
    None,
    Optional,
    Required,
}

/// What the embedding is multiplied by.
enum EmbedScale {
    One,
    /// The square root of the hidden size.
    RootHidden,
    /// `embedding_scale`, if the file has it.
    Given,
}

/// Layers with a sliding window among global ones.
struct Local {
    /// Every `pattern`-th layer is global, unless the file says otherwise.
    pattern: usize,
    /// Base of the rotation of the local layers, unless the file says otherwise; none: that of the
    /// others.
    rope_base: Option<f32>,
    /// The window, where a file need not say.
    window: Option<usize>,
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
    /// Epsilon of every RMS norm.
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
    /// `dims / 2` divisors of the frequencies of `ropes[0]`, for files that carry them (Llama 3).
    pub rope_factors: Option<TensorSource>,
    /// `vocab x hidden`.
    pub embedding: TensorSource,
    /// `vocab x hidden`; absent where the embedding serves as the head too.
    pub head: Option<TensorSource>,
    pub final_norm: TensorSource,
    pub layers: Vec<LayerDescription>,
}

/// Tensors and particulars of one layer.
#[derive(Debug, Clone)]
pub struct LayerDescription {
    /// Index into [`Description::ropes`].
    pub rope: usize,
    pub window: Option<usize>,
    pub attention_norm: TensorSource,
    pub qkv: [TensorSource; 3],
    pub qkv_bias: Option<[TensorSource; 3]>,
    pub qk_norm: Option<[TensorSource; 2]>,
    pub output: TensorSource,
    pub post_attention_norm: Option<TensorSource>,
    pub mlp_norm: TensorSource,
    pub gate_up: [TensorSource; 2],
    pub down: TensorSource,
    pub post_mlp_norm: Option<TensorSource>,
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
    let mut tensors = Tensors::new(tensors, unusable);
    let embedding = tensors.matrix_of_any_height("token_embd.weight")?;
    let shape = hyper.shape(embedding.rows)?;
    if embedding.cols != shape.hidden {
        return Err(tensors::mis_shaped(&embedding, embedding.rows, shape.hidden));
    }
    let ropes = hyper.ropes(family, &shape)?;
    let rope_factors = tensors.optional_vector("rope_freqs.weight", ropes[0].inv_freq.len())?;
    let layers = (0..shape.layers)
        .map(|i| layer(family, &hyper, &shape, &mut tensors, i))
        .collect::<Result<Vec<_>, _>>()?;
    let description = Description {
        architecture: family.name,
        context: hyper.context()?,
        eps: hyper.eps()?,
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
        head: tensors.optional_matrix("output.weight", shape.vocab, shape.hidden)?,
        final_norm: tensors.vector("output_norm.weight", shape.hidden)?,
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

fn layer(
    family: &Family,
    hyper: &Hyper<'_>,
    shape: &Shape,
    tensors: &mut Tensors<'_>,
    index: usize,
) -> Result<LayerDescription, Refused> {
    let window = hyper.window(family, index)?;
    let (h, mlp) = (shape.hidden, shape.mlp);
    let (q, kv) = (shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim);
    let name = |part: &str| format!("blk.{index}.{part}");
    let post = |tensors: &mut Tensors<'_>, part: &str| {
        family.post_norms.then(|| tensors.vector(&name(part), h)).transpose()
    };
    let knows_no_positions = family.no_rope_every.is_some_and(|n| (index + 1).is_multiple_of(n));
    Ok(LayerDescription {
        rope: usize::from(window.is_some() || knows_no_positions),
        window,
        attention_norm: tensors.vector(&name("attn_norm.weight"), h)?,
        qkv: [
            tensors.matrix(&name("attn_q.weight"), q, h)?,
            tensors.matrix(&name("attn_k.weight"), kv, h)?,
            tensors.matrix(&name("attn_v.weight"), kv, h)?,
        ],
        qkv_bias: qkv_bias(&family.biases, tensors, &name, q, kv)?,
        qk_norm: if family.qk_norm {
            Some([
                tensors.vector(&name("attn_q_norm.weight"), shape.head_dim)?,
                tensors.vector(&name("attn_k_norm.weight"), shape.head_dim)?,
            ])
        } else {
            None
        },
        output: tensors.matrix(&name("attn_output.weight"), h, q)?,
        post_attention_norm: post(tensors, "post_attention_norm.weight")?,
        mlp_norm: tensors.vector(&name("ffn_norm.weight"), h)?,
        gate_up: [
            tensors.matrix(&name("ffn_gate.weight"), mlp, h)?,
            tensors.matrix(&name("ffn_up.weight"), mlp, h)?,
        ],
        down: tensors.matrix(&name("ffn_down.weight"), h, mlp)?,
        post_mlp_norm: post(tensors, "post_ffw_norm.weight")?,
    })
}

fn qkv_bias(
    biases: &Biases,
    tensors: &mut Tensors<'_>,
    name: &dyn Fn(&str) -> String,
    q: usize,
    kv: usize,
) -> Result<Option<[TensorSource; 3]>, Refused> {
    let wanted = match biases {
        Biases::None => false,
        Biases::Optional => tensors.has(&name("attn_q.bias")),
        Biases::Required => true,
    };
    if !wanted {
        return Ok(None);
    }
    Ok(Some([
        tensors.vector(&name("attn_q.bias"), q)?,
        tensors.vector(&name("attn_k.bias"), kv)?,
        tensors.vector(&name("attn_v.bias"), kv)?,
    ]))
}
