//! Gemma (text): a scaled embedding that is the head, too, and a GELU gate. What the weights of its
//! norms lack of 1, the converter has added.

use super::{EmbedScale, Family, Local, PLAIN, QkNorm, Unsaid};
use crate::backend::Activation;

pub(super) const GEMMA: Family = Family {
    name: "gemma",
    activation: Activation::GeluGate,
    embed_scale: EmbedScale::RootHidden,
    ..PLAIN
};

/// Norms around every block, soft caps, local and global layers in turn.
pub(super) const GEMMA2: Family = Family {
    name: "gemma2",
    post_norms: true,
    soft_caps: true,
    // 27B.
    odd_scale_layers: Some(46),
    local: Some(Local { pattern: Some(2), rope_base: None, window: Unsaid::Tokens(4_096) }),
    ..GEMMA
};

/// Norms of q and k instead of caps, five local layers to each global one.
pub(super) const GEMMA3: Family = Family {
    name: "gemma3",
    qk_norm: QkNorm::EachHead,
    post_norms: true,
    // 27B.
    odd_scale_layers: Some(62),
    local: Some(Local { pattern: Some(6), rope_base: Some(10_000.0), window: Unsaid::Refused }),
    ..GEMMA
};
