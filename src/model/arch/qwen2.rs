//! Qwen 2 and 2.5: as llama, with biases on q, k and v, and halves rotated.

use super::{Biases, EmbedScale, Family};
use crate::backend::{Activation, RopePairs};

pub(super) const FAMILY: Family = Family {
    name: "qwen2",
    pairs: RopePairs::Halves,
    biases: Biases::Required,
    qk_norm: false,
    post_norms: false,
    activation: Activation::Silu,
    embed_scale: EmbedScale::One,
    local: None,
};
