//! gpt-oss: experts behind a router with a bias, sinks, local and global layers in turn.

use super::{Biases, Experts, Family, Local, PLAIN, Unsaid};
use crate::backend::Activation;

pub(super) const GPT_OSS: Family = Family {
    name: "gpt-oss",
    biases: Biases::All,
    mlp_norm: "post_attention_norm",
    sinks: true,
    activation: Activation::ClampedGate,
    // A softmax of the chosen ones' scores is that.
    experts: Some(Experts { optional: false, sums_to_one: true, shared: false }),
    local: Some(Local { pattern: Some(2), rope_base: None, window: Unsaid::Refused }),
    ..PLAIN
};
