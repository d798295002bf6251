//! Llama 2 and 3, Mistral, `SmolLM`: the plain pre-norm decoder.

use super::{Biases, Family, PLAIN};
use crate::backend::RopePairs;

pub(super) const LLAMA: Family = Family {
    name: "llama",
    // The converter permutes the rows of q and k so that pairs stand side by side.
    pairs: RopePairs::Interleaved,
    biases: Biases::Optional,
    ..PLAIN
};
