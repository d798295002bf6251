//! Qwen: as llama, with halves rotated.

use super::{Biases, Family, PLAIN};

/// 2 and 2.5: biases on q, k and v.
pub(super) const QWEN2: Family = Family { name: "qwen2", biases: Biases::Required, ..PLAIN };

/// Norms on q and k instead of biases.
pub(super) const QWEN3: Family = Family { name: "qwen3", qk_norm: true, ..PLAIN };
