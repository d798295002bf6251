//! `StarCoder2`: rotations, but otherwise as GPT-2. Its window is not in its GGUFs.

use super::{Biases, Family, PLAIN};
use crate::backend::Activation;

pub(super) const STARCODER2: Family = Family {
    name: "starcoder2",
    biases: Biases::All,
    layer_norms: true,
    activation: Activation::Gelu,
    ..PLAIN
};
