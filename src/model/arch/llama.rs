//! Llama 2 and 3, Mistral, Mixtral, `SmolLM`: the plain pre-norm decoder.

use super::{Biases, Experts, Family, Local, PLAIN, Unsaid};
use crate::backend::RopePairs;

pub(super) const LLAMA: Family = Family {
    name: "llama",
    // The converter permutes the rows of q and k so that pairs stand side by side.
    pairs: RopePairs::Interleaved,
    biases: Biases::Optional,
    experts: Some(Experts { optional: true, sums_to_one: true, shared: false }),
    // Mistral's. Most converters leave it out.
    local: Some(Local { pattern: None, rope_base: None, window: Unsaid::None }),
    ..PLAIN
};
