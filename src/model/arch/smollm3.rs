//! `SmolLM3`: as llama, but that every fourth layer knows no positions.

use super::{Family, PLAIN};
use crate::backend::RopePairs;

pub(super) const SMOLLM3: Family = Family {
    name: "smollm3",
    // As for llama.
    pairs: RopePairs::Interleaved,
    no_rope_every: Some(4),
    ..PLAIN
};
