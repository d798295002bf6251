//! Hyperparameters of a file, each within bounds that keep every later product far from overflow.

use super::{Family, Refused, Unsaid};
use crate::backend::Shape;
use crate::model::load::gguf::{Metadata, Value};

const MAX_LAYERS: usize = 1 << 10;
const MAX_WIDTH: usize = 1 << 20;
const MAX_HEADS: usize = 1 << 10;
pub(super) const MAX_HEAD_DIM: usize = 1 << 10;
const MAX_VOCAB: usize = 1 << 22;
const MAX_CONTEXT: usize = 1 << 24;
const MAX_EXPERTS: usize = 1 << 10;
/// What a model multiplies or caps its values by. Those of models lie between 0.007 and 64; far beyond them
/// every product becomes infinite, or nothing.
const FACTORS: std::ops::RangeInclusive<f32> = 1e-6..=1e6;
/// What norms add to the mean of squares before they divide by its root. Models have 1e-5 or 1e-6; far above, nothing
/// would be left of what they are given.
const EPS_MAX: f32 = 1e-2;
/// Quantised blocks and activations are 32 wide.
const WIDTH_UNIT: usize = 32;

/// Sizes of a model, and of its experts.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub(super) shape: Shape,
    /// Width of each expert; 0 where there are none.
    pub(super) expert: usize,
    pub(super) shared_expert: Option<usize>,
}

/// Reads `<architecture>.<key>`.
pub(super) struct Hyper<'a> {
    metadata: &'a Metadata,
    prefix: &'static str,
}

impl<'a> Hyper<'a> {
    pub(super) fn new(metadata: &'a Metadata, prefix: &'static str) -> Self {
        Self { metadata, prefix }
    }

    pub(super) fn value(&self, key: &str) -> Option<&'a Value> {
        self.metadata.values.get(&format!("{}.{key}", self.prefix))
    }

    pub(super) fn refused(&self, key: &str, reason: &str) -> Refused {
        Refused(format!("{} {reason}", self.called(key)))
    }

    /// What errors call a key.
    fn called(&self, key: &str) -> String {
        let key = format!("{}.{key}", self.prefix);
        self.metadata.origins.key(&key).to_owned()
    }

    /// An integer in `1..=max`, if the key is there.
    pub(super) fn count_if_any(&self, key: &str, max: usize) -> Result<Option<usize>, Refused> {
        let number = match self.value(key) {
            None => return Ok(None),
            Some(Value::U64(n)) => usize::try_from(*n).ok(),
            Some(Value::I64(n)) => usize::try_from(*n).ok(),
            Some(_) => return Err(self.refused(key, "is not one integer")),
        };
        match number {
            Some(n) if (1..=max).contains(&n) => Ok(Some(n)),
            _ => Err(self.refused(key, &format!("is not in 1..={max}"))),
        }
    }

    fn count(&self, key: &str, max: usize) -> Result<usize, Refused> {
        self.count_if_any(key, max)?.ok_or_else(|| self.refused(key, "is missing"))
    }

    /// A finite number above zero, if the key is there.
    pub(super) fn positive_if_any(&self, key: &str) -> Result<Option<f32>, Refused> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::F64(x)) if (*x as f32).is_finite() && (*x as f32) > 0.0 => {
                Ok(Some(*x as f32))
            }
            Some(_) => Err(self.refused(key, "is not a positive number")),
        }
    }

    /// A factor or cap, if the key is there.
    pub(super) fn factor_if_any(&self, key: &str) -> Result<Option<f32>, Refused> {
        let factor = self.positive_if_any(key)?;
        if factor.is_some_and(|factor| !FACTORS.contains(&factor)) {
            return Err(self.refused(key, "is not between 1e-6 and 1e6"));
        }
        Ok(factor)
    }

    /// Sizes of the model, whose vocabulary is as large as the embedding is high.
    pub(super) fn sizes(&self, family: &Family, vocab: usize) -> Result<Sizes, Refused> {
        let heads = self.count("attention.head_count", MAX_HEADS)?;
        let kv_heads = self.count_if_any("attention.head_count_kv", MAX_HEADS)?.unwrap_or(heads);
        let hidden = self.count("embedding_length", MAX_WIDTH)?;
        let (experts, experts_used) = self.experts(family)?;
        let (mlp, expert, shared_expert) = self.widths(family, experts > 0)?;
        let layers = self.count("block_count", MAX_LAYERS)?;
        if !heads.is_multiple_of(kv_heads) {
            let of = self.called("attention.head_count_kv");
            let reason = format!("({heads}) is not a multiple of {of} ({kv_heads})");
            return Err(self.refused("attention.head_count", &reason));
        }
        self.check_width("embedding_length", hidden)?;
        if vocab == 0 || vocab > MAX_VOCAB {
            let name = self.metadata.origins.tensor("token_embd.weight");
            return Err(Refused(format!("tensor {name} has {vocab} rows")));
        }
        let head_dim = self.head_dim(hidden, heads)?;
        let shape =
            Shape { layers, hidden, heads, kv_heads, head_dim, mlp, vocab, experts, experts_used };
        Ok(Sizes { shape, expert, shared_expert })
    }

    /// How many experts a layer has, and how many compute a row.
    fn experts(&self, family: &Family) -> Result<(usize, usize), Refused> {
        let Some(about) = &family.experts else { return Ok((0, 0)) };
        let (all, few) = ("expert_count", "expert_used_count");
        // Converters write a zero for models without.
        let is_zero = matches!(self.value(all), Some(Value::U64(0)));
        if about.optional && (is_zero || self.value(all).is_none()) {
            return Ok((0, 0));
        }
        let (count, used) = (self.count(all, MAX_EXPERTS)?, self.count(few, MAX_EXPERTS)?);
        if used > count {
            let all = self.called(all);
            return Err(self.refused(few, &format!("({used}) is above {all} ({count})")));
        }
        Ok((count, used))
    }

    /// Widths of the widest MLP, of an expert, and of the shared one.
    fn widths(
        &self,
        family: &Family,
        has_experts: bool,
    ) -> Result<(usize, usize, Option<usize>), Refused> {
        let width = |key: &str, fallback: &str| {
            let key = if self.value(key).is_some() { key } else { fallback };
            let width = self.count(key, MAX_WIDTH)?;
            self.check_width(key, width).map(|()| width)
        };
        let plain = "feed_forward_length";
        if !has_experts {
            return Ok((width(plain, plain)?, 0, None));
        }
        let expert = width("expert_feed_forward_length", plain)?;
        let has_shared = family.experts.as_ref().is_some_and(|experts| experts.shared);
        let shared =
            has_shared.then(|| width("expert_shared_feed_forward_length", plain)).transpose()?;
        Ok((expert.max(shared.unwrap_or(0)), expert, shared))
    }

    fn check_width(&self, key: &str, width: usize) -> Result<(), Refused> {
        if width.is_multiple_of(WIDTH_UNIT) {
            return Ok(());
        }
        Err(self.refused(key, &format!("({width}) is not a multiple of 32")))
    }

    fn head_dim(&self, hidden: usize, heads: usize) -> Result<usize, Refused> {
        let key = "attention.key_length";
        let head_dim = match self.count_if_any(key, MAX_HEAD_DIM)? {
            Some(d) => d,
            None if hidden.is_multiple_of(heads) => hidden / heads,
            None => return Err(self.refused(key, "is missing, and heads do not divide the width")),
        };
        let value_length = self.count_if_any("attention.value_length", MAX_HEAD_DIM)?;
        if value_length.is_some_and(|v| v != head_dim) {
            return Err(self.refused("attention.value_length", "differs from key_length"));
        }
        if head_dim > MAX_HEAD_DIM || !head_dim.is_multiple_of(2) {
            return Err(self.refused(key, &format!("({head_dim}) is not even or above 1024")));
        }
        Ok(head_dim)
    }

    pub(super) fn context(&self) -> Result<usize, Refused> {
        self.count("context_length", MAX_CONTEXT)
    }

    pub(super) fn context_if_any(&self, key: &str) -> Result<Option<usize>, Refused> {
        self.count_if_any(key, MAX_CONTEXT)
    }

    pub(super) fn eps(&self, family: &Family) -> Result<f32, Refused> {
        let key = if family.layer_norms {
            "attention.layer_norm_epsilon"
        } else {
            "attention.layer_norm_rms_epsilon"
        };
        let eps = self.positive_if_any(key)?.ok_or_else(|| self.refused(key, "is missing"))?;
        if eps > EPS_MAX {
            return Err(self.refused(key, "is above 0.01"));
        }
        Ok(eps)
    }

    /// `attention.scale`, else `1 / sqrt(head_dim)`.
    pub(super) fn attention_scale(&self, family: &Family, shape: &Shape) -> Result<f32, Refused> {
        if let Some(scale) = self.factor_if_any("attention.scale")? {
            return Ok(scale);
        }
        let is_odd = family.odd_scale_layers == Some(shape.layers);
        let d = if is_odd { shape.hidden / shape.heads } else { shape.head_dim };
        Ok(1.0 / (d as f32).sqrt())
    }

    /// The window of layer `index`, for families that have local layers.
    pub(super) fn window(&self, family: &Family, index: usize) -> Result<Option<usize>, Refused> {
        let key = "attention.sliding_window_pattern";
        if let Some(Value::Bools(layers)) = self.value(key) {
            let is_local = layers.get(index).copied().unwrap_or(false);
            return if is_local {
                self.count("attention.sliding_window", MAX_CONTEXT).map(Some)
            } else {
                Ok(None)
            };
        }
        let Some(local) = &family.local else { return Ok(None) };
        if let Some(pattern) = local.pattern {
            let pattern = self.count_if_any(key, MAX_LAYERS)?.unwrap_or(pattern);
            if (index + 1).is_multiple_of(pattern) {
                return Ok(None);
            }
        }
        let key = "attention.sliding_window";
        // Where all layers are alike, converters write a zero for models without.
        if local.pattern.is_none() && matches!(self.value(key), Some(Value::U64(0))) {
            return Ok(None);
        }
        match (self.count_if_any(key, MAX_CONTEXT)?, &local.window) {
            (Some(window), _) => Ok(Some(window)),
            (None, Unsaid::Tokens(window)) => Ok(Some(*window)),
            (None, Unsaid::None) => Ok(None),
            (None, Unsaid::OfContext { context, tokens }) => {
                Ok((self.context()? == *context).then_some(*tokens))
            }
            (None, Unsaid::Refused) => Err(self.refused(key, "is missing")),
        }
    }

    /// The cap of that name, for families that know caps and files that have them.
    pub(super) fn cap(&self, family: &Family, key: &str) -> Result<Option<f32>, Refused> {
        if family.soft_caps { self.factor_if_any(key) } else { Ok(None) }
    }

    /// The factor of that name, for families that have factors; 1 otherwise.
    pub(super) fn scale(&self, family: &Family, key: &str) -> Result<f32, Refused> {
        let given = if family.scales { self.factor_if_any(key)? } else { None };
        Ok(given.unwrap_or(1.0))
    }
}
