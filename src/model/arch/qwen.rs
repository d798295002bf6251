//! Qwen: as llama, with halves rotated.

use super::{Biases, Experts, Family, PLAIN, QkNorm};

/// 2 and 2.5: biases on q, k and v.
pub(super) const QWEN2: Family = Family { name: "qwen2", biases: Biases::Qkv, ..PLAIN };

pub(super) const QWEN2_MOE: Family = Family {
    name: "qwen2moe",
    experts: Some(Experts { optional: false, sums_to_one: false, shared: true }),
    ..QWEN2
};

/// Norms on q and k instead of biases.
pub(super) const QWEN3: Family = Family { name: "qwen3", qk_norm: QkNorm::EachHead, ..PLAIN };

pub(super) const QWEN3_MOE: Family = Family {
    name: "qwen3moe",
    experts: Some(Experts { optional: false, sums_to_one: true, shared: false }),
    ..QWEN3
};
