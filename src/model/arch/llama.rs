//! Llama 2 and 3, Mistral, `SmolLM`: the plain pre-norm decoder.

use super::{Biases, EmbedScale, Family};
use crate::backend::{Activation, RopePairs};

pub(super) const FAMILY: Family = Family {
    name: "llama",
    // The converter permutes the rows of q and k so that pairs stand side by side.
    pairs: RopePairs::Interleaved,
    biases: Biases::Optional,
    qk_norm: false,
    post_norms: false,
    activation: Activation::Silu,
    embed_scale: EmbedScale::One,
    local: None,
};
