//! Rotations, and how files stretch them over contexts that are longer than those of the training.

use super::hyper::{Hyper, MAX_HEAD_DIM};
use super::tensors::Tensors;
use super::{Factors, Family, Refused, RopeFactors};
use crate::backend::{Rope, RopePairs, Shape};
use crate::model::load::gguf::Value;

/// How frequencies are scaled.
enum Scaling {
    /// Positions are divided by the factor.
    Linear(f32),
    Yarn(Yarn),
    /// By factors that the file carries.
    LongRope,
}

/// `YaRN` (Peng et al. 2023): fast pairs turn as they did, slow ones are divided by the factor, those on the
/// ramp between them are mixed.
struct Yarn {
    factor: f32,
    /// Of the slow side, for pairs on the ramp.
    strength: f32,
    /// Turns within the original context at which the ramp begins and ends.
    turns: [f32; 2],
    /// The ramp begins and ends at whole pairs.
    rounds: bool,
    original: usize,
}

impl Scaling {
    /// Divides positions by nothing.
    const NONE: Self = Self::Linear(1.0);

    /// The frequencies of `dims / 2` pairs.
    fn frequencies(&self, base: f32, dims: usize) -> Vec<f32> {
        let power = |i: usize| base.powf((2 * i) as f32 / dims as f32);
        match self {
            Self::Linear(factor) => (0..dims / 2).map(|i| 1.0 / (power(i) * factor)).collect(),
            Self::LongRope => (0..dims / 2).map(|i| 1.0 / power(i)).collect(),
            Self::Yarn(yarn) => {
                let [low, high] = yarn.ramp(base, dims);
                let mixed = |i: usize| {
                    let (fast, slow) = (1.0 / power(i), 1.0 / (power(i) * yarn.factor));
                    let at = ((i as f32 - low) / (high - low).max(0.001)).clamp(0.0, 1.0);
                    let share = (1.0 - at) * yarn.strength;
                    slow * (1.0 - share) + fast * share
                };
                (0..dims / 2).map(mixed).collect()
            }
        }
    }

    /// What rotated elements grow by.
    fn magnitude(&self) -> f32 {
        match self {
            Self::Yarn(yarn) if yarn.factor > 1.0 => 0.1 * yarn.factor.ln() + 1.0,
            _ => 1.0,
        }
    }
}

impl Yarn {
    /// The pairs at which the ramp begins and ends; rounded outwards, as ggml does always, unless a folder says that
    /// its model was not trained so.
    fn ramp(&self, base: f32, dims: usize) -> [f32; 2] {
        let pair = |turns: f32| {
            let wavelengths = self.original as f32 / (turns * 2.0 * std::f32::consts::PI);
            dims as f32 * wavelengths.ln() / (2.0 * base.ln())
        };
        let [fast, slow] = self.turns.map(pair);
        let (fast, slow) = if self.rounds { (fast.floor(), slow.ceil()) } else { (fast, slow) };
        [fast.max(0.0), slow.min((dims - 1) as f32)]
    }
}

impl Hyper<'_> {
    /// Rotation of most layers, then that of the local ones, or none for those that know no positions,
    /// where the family has such.
    pub(super) fn ropes(&self, family: &Family, shape: &Shape) -> Result<Vec<Rope>, Refused> {
        let key = "rope.dimension_count";
        let dims = self.count_if_any(key, MAX_HEAD_DIM)?.unwrap_or(shape.head_dim);
        if dims > shape.head_dim || !dims.is_multiple_of(2) {
            return Err(self.refused(key, &format!("({dims}) does not fit")));
        }
        let base = self.positive_if_any("rope.freq_base")?.unwrap_or(10_000.0);
        let scaling = self.scaling()?;
        // Converters to GGUF turn the rows of some families; a folder has them as they were.
        let is_halves = matches!(self.value("rope.pairs"), Some(Value::String(p)) if p == "halves");
        let pairs = if is_halves { RopePairs::Halves } else { family.pairs };
        let rope = |base: f32, scaling: &Scaling, dims: usize, magnitude: f32| Rope {
            pairs,
            dims,
            inv_freq: scaling.frequencies(base, dims),
            magnitude: scaling.magnitude() * magnitude,
        };
        let given = self.positive_if_any("rope.scaling.attn_factor")?.unwrap_or(1.0);
        let mut ropes = vec![rope(base, &scaling, dims, given)];
        if let Some(local) = &family.local {
            // Scaling for long contexts does not touch layers whose base is their own.
            let own = self.positive_if_any("rope.freq_base_swa")?.or(local.rope_base);
            ropes.extend(own.map(|own| rope(own, &Scaling::NONE, dims, 1.0)));
        }
        if family.no_rope_every.is_some() {
            ropes.push(rope(base, &Scaling::NONE, 0, 1.0));
        }
        // Powers and quotients of finite numbers need not be finite.
        let numbers = |rope: &Rope| rope.inv_freq.iter().all(|f| f.is_finite());
        if !ropes.iter().all(|rope| numbers(rope) && rope.magnitude.is_finite()) {
            return Err(self.refused("rope.freq_base", "gives frequencies that are not finite"));
        }
        Ok(ropes)
    }

    /// Scaling of a kind that is known; others are refused by name.
    fn scaling(&self) -> Result<Scaling, Refused> {
        let key = "rope.scaling.type";
        let kind = match self.value(key) {
            None => "linear",
            Some(Value::String(kind)) => kind,
            Some(_) => return Err(self.refused(key, "is not a string")),
        };
        let factor = match self.positive_if_any("rope.scaling.factor")? {
            Some(factor) => factor,
            // The older name.
            None => self.positive_if_any("rope.scale_linear")?.unwrap_or(1.0),
        };
        match kind {
            "none" => Ok(Scaling::NONE),
            "linear" => Ok(Scaling::Linear(factor)),
            "longrope" => Ok(Scaling::LongRope),
            "yarn" => self.yarn(factor).map(Scaling::Yarn),
            _ => {
                let shown: String = kind.chars().take(32).collect();
                Err(self.refused(key, &format!("{shown:?} is not supported")))
            }
        }
    }

    fn yarn(&self, factor: f32) -> Result<Yarn, Refused> {
        for key in ["rope.scaling.yarn_attn_factor", "rope.scaling.yarn_log_multiplier"] {
            if self.value(key).is_some() {
                return Err(self.refused(key, "is not supported"));
            }
        }
        let turns = |key: &str, usual: f32| Ok(self.positive_if_any(key)?.unwrap_or(usual));
        Ok(Yarn {
            factor,
            strength: turns("rope.scaling.yarn_ext_factor", 1.0)?,
            turns: [
                turns("rope.scaling.yarn_beta_fast", 32.0)?,
                turns("rope.scaling.yarn_beta_slow", 1.0)?,
            ],
            rounds: !matches!(self.value("rope.scaling.yarn_truncate"), Some(Value::Bool(false))),
            original: self.original_context()?,
        })
    }

    /// The context that a model was made for before it was stretched.
    fn original_context(&self) -> Result<usize, Refused> {
        match self.context_if_any("rope.scaling.original_context_length")? {
            Some(original) => Ok(original),
            None => self.context(),
        }
    }

    fn wants_factors(&self) -> bool {
        matches!(self.value("rope.scaling.type"), Some(Value::String(kind)) if kind == "longrope")
    }
}

/// The divisors of `pairs` frequencies that a file carries.
pub(super) fn factors(
    hyper: &Hyper<'_>,
    tensors: &mut Tensors<'_>,
    pairs: usize,
) -> Result<Option<RopeFactors>, Refused> {
    let given = |key: &str| match hyper.value(key) {
        Some(Value::F32s(all))
            if all.len() == pairs && all.iter().all(|f| f.is_normal() && *f > 0.0) =>
        {
            Ok(Some(Factors::Given(all.clone())))
        }
        Some(_) => Err(hyper.refused(key, "are not one positive number for each pair")),
        None => Ok(None),
    };
    if let Some(all) = given("rope.scaling.factors")? {
        return Ok(Some(RopeFactors::Always(all)));
    }
    if let Some((long, short)) =
        given("rope.scaling.factors_long")?.zip(given("rope.scaling.factors_short")?)
    {
        return Ok(Some(RopeFactors::ByContext {
            original: hyper.original_context()?,
            short,
            long,
        }));
    }
    let (long, short) = ("rope_factors_long.weight", "rope_factors_short.weight");
    if hyper.wants_factors() || tensors.has(long) || tensors.has(short) {
        return Ok(Some(RopeFactors::ByContext {
            original: hyper.original_context()?,
            short: Factors::File(tensors.vector(short, pairs)?),
            long: Factors::File(tensors.vector(long, pairs)?),
        }));
    }
    let always = tensors.optional_vector("rope_freqs.weight", pairs)?;
    Ok(always.map(|all| RopeFactors::Always(Factors::File(all))))
}
