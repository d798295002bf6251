//! Hyperparameters of a file, each within bounds that keep every later product far from overflow.

use super::{Family, Refused};
use crate::backend::{Rope, Shape};
use crate::model::load::gguf::{Metadata, Value};

const MAX_LAYERS: usize = 1 << 10;
const MAX_WIDTH: usize = 1 << 20;
const MAX_HEADS: usize = 1 << 10;
const MAX_HEAD_DIM: usize = 1 << 10;
const MAX_VOCAB: usize = 1 << 22;
const MAX_CONTEXT: usize = 1 << 24;
/// What a model multiplies or caps its values by. Those of models lie between 0.007 and 64; far beyond them
/// every product becomes infinite, or nothing.
const FACTORS: std::ops::RangeInclusive<f32> = 1e-6..=1e6;
/// Quantised blocks and activations are 32 wide.
const WIDTH_UNIT: usize = 32;

/// Reads `<architecture>.<key>`.
pub(super) struct Hyper<'a> {
    metadata: &'a Metadata,
    prefix: &'static str,
}

impl<'a> Hyper<'a> {
    pub(super) fn new(metadata: &'a Metadata, prefix: &'static str) -> Self {
        Self { metadata, prefix }
    }

    fn value(&self, key: &str) -> Option<&'a Value> {
        self.metadata.values.get(&format!("{}.{key}", self.prefix))
    }

    fn refused(&self, key: &str, reason: &str) -> Refused {
        Refused(format!("{}.{key} {reason}", self.prefix))
    }

    /// An integer in `1..=max`, if the key is there.
    fn count_if_any(&self, key: &str, max: usize) -> Result<Option<usize>, Refused> {
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
    pub(super) fn shape(&self, vocab: usize) -> Result<Shape, Refused> {
        let heads = self.count("attention.head_count", MAX_HEADS)?;
        let kv_heads = self.count_if_any("attention.head_count_kv", MAX_HEADS)?.unwrap_or(heads);
        let hidden = self.count("embedding_length", MAX_WIDTH)?;
        let mlp = self.count("feed_forward_length", MAX_WIDTH)?;
        let layers = self.count("block_count", MAX_LAYERS)?;
        if !heads.is_multiple_of(kv_heads) {
            return Err(self.refused(
                "attention.head_count",
                &format!("({heads}) is not a multiple of head_count_kv ({kv_heads})"),
            ));
        }
        for (key, width) in [("embedding_length", hidden), ("feed_forward_length", mlp)] {
            if !width.is_multiple_of(WIDTH_UNIT) {
                return Err(self.refused(key, &format!("({width}) is not a multiple of 32")));
            }
        }
        if vocab == 0 || vocab > MAX_VOCAB {
            return Err(Refused(format!("tensor token_embd.weight has {vocab} rows")));
        }
        let head_dim = self.head_dim(hidden, heads)?;
        Ok(Shape { layers, hidden, heads, kv_heads, head_dim, mlp, vocab })
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

    pub(super) fn eps(&self) -> Result<f32, Refused> {
        let key = "attention.layer_norm_rms_epsilon";
        self.positive_if_any(key)?.ok_or_else(|| self.refused(key, "is missing"))
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

    /// The window of layer `index`, for families that have local layers and files that say how wide.
    pub(super) fn window(&self, family: &Family, index: usize) -> Result<Option<usize>, Refused> {
        let Some(local) = &family.local else { return Ok(None) };
        let key = "attention.sliding_window_pattern";
        let pattern = self.count_if_any(key, MAX_LAYERS)?.unwrap_or(local.pattern);
        if (index + 1).is_multiple_of(pattern) {
            return Ok(None);
        }
        let key = "attention.sliding_window";
        let window = self.count_if_any(key, MAX_CONTEXT)?.or(local.window);
        window.map(Some).ok_or_else(|| self.refused(key, "is missing"))
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

    /// Rotation of most layers, then that of the local ones, or none for those that know no positions,
    /// where the family has such.
    pub(super) fn ropes(&self, family: &Family, shape: &Shape) -> Result<Vec<Rope>, Refused> {
        let dims =
            self.count_if_any("rope.dimension_count", MAX_HEAD_DIM)?.unwrap_or(shape.head_dim);
        if dims > shape.head_dim || !dims.is_multiple_of(2) {
            return Err(self.refused("rope.dimension_count", &format!("({dims}) does not fit")));
        }
        let base = self.positive_if_any("rope.freq_base")?.unwrap_or(10_000.0);
        let factor = self.rope_scaling()?;
        let rope = |base: f32, factor: f32, dims: usize| Rope {
            pairs: family.pairs,
            dims,
            inv_freq: (0..dims / 2)
                .map(|i| 1.0 / (base.powf((2 * i) as f32 / dims as f32) * factor))
                .collect(),
        };
        let mut ropes = vec![rope(base, factor, dims)];
        if let Some(local) = &family.local {
            // Scaling for long contexts touches the global layers only.
            let own = self.positive_if_any("rope.freq_base_swa")?.or(local.rope_base);
            let (base, factor) = own.map_or((base, factor), |own| (own, 1.0));
            ropes.push(rope(base, factor, dims));
        }
        if family.no_rope_every.is_some() {
            ropes.push(rope(base, factor, 0));
        }
        // Powers and quotients of finite numbers need not be finite.
        if ropes.iter().flat_map(|rope| &rope.inv_freq).any(|f| !f.is_finite()) {
            return Err(self.refused("rope.freq_base", "gives frequencies that are not finite"));
        }
        Ok(ropes)
    }

    /// What positions are divided by: linear scaling or none; others are refused by name.
    fn rope_scaling(&self) -> Result<f32, Refused> {
        let key = "rope.scaling.type";
        match self.value(key) {
            None => Ok(self.positive_if_any("rope.scale_linear")?.unwrap_or(1.0)),
            Some(Value::String(kind)) if kind == "none" => Ok(1.0),
            Some(Value::String(kind)) if kind == "linear" => {
                Ok(self.positive_if_any("rope.scaling.factor")?.unwrap_or(1.0))
            }
            Some(Value::String(kind)) => {
                let shown: String = kind.chars().take(32).collect();
                Err(self.refused(key, &format!("{shown:?} is not supported")))
            }
            Some(_) => Err(self.refused(key, "is not a string")),
        }
    }
}
