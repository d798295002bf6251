//! Gemma 3 (text): norms around every block and on q and k, five local layers to each global one.

use super::{Biases, EmbedScale, Family, Local};
use crate::backend::{Activation, RopePairs};

pub(super) const FAMILY: Family = Family {
    name: "gemma3",
    pairs: RopePairs::Halves,
    biases: Biases::None,
    qk_norm: true,
    post_norms: true,
    activation: Activation::GeluTanh,
    embed_scale: EmbedScale::RootHidden,
    local: Some(Local { pattern: 6, rope_base: 10_000.0 }),
};
