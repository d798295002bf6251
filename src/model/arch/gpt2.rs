//! GPT-2: learned positions, `LayerNorm`, biases everywhere, an MLP without a gate.

use super::{Biases, Family, PLAIN};
use crate::backend::Activation;

pub(super) const GPT2: Family = Family {
    name: "gpt2",
    biases: Biases::All,
    layer_norms: true,
    activation: Activation::Gelu,
    learned_positions: true,
    no_rope_every: Some(1),
    ..PLAIN
};
