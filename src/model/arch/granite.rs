//! Granite (dense): as llama, with factors on the embedding, the blocks, the scores and the logits.

use super::{Biases, EmbedScale, Family, PLAIN};
use crate::backend::RopePairs;

pub(super) const GRANITE: Family = Family {
    name: "granite",
    // As for llama.
    pairs: RopePairs::Interleaved,
    biases: Biases::Optional,
    embed_scale: EmbedScale::Given,
    scales: true,
    ..PLAIN
};
