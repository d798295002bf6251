//! How a model's makers want it sampled where a request does not say.

use super::gguf::Metadata;

/// Each within what a request may ask for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SamplingDefaults {
    pub temperature: f32,
    pub top_p: f32,
    /// 0: all tokens.
    pub top_k: u32,
    pub min_p: f32,
    pub repetition_penalty: f32,
}

impl SamplingDefaults {
    /// Of `OpenAI`'s own models.
    pub const OPENAI: Self =
        Self { temperature: 1.0, top_p: 1.0, top_k: 0, min_p: 0.0, repetition_penalty: 1.0 };

    /// From the keys that llama.cpp reads (`LLM_KV_GENERAL_SAMPLING_…`). One that no request could ask for is passed over.
    pub fn of(metadata: &Metadata) -> Self {
        let read = |name: &str, bounds: std::ops::RangeInclusive<f32>, default: f32| {
            let key = format!("general.sampling.{name}");
            let given = match metadata.get(&key) {
                Some(_) => metadata.opt_f32(&key).ok().flatten(),
                None => return default,
            };
            given.filter(|x| bounds.contains(x)).unwrap_or_else(|| {
                tracing::warn!(key, "is no number that a request could ask for: passed over");
                default
            })
        };
        let plain = Self::OPENAI;
        let top_p = read("top_p", 0.0..=1.0, plain.top_p);
        let repetition = read("penalty_repeat", 0.0..=2.0, plain.repetition_penalty);
        Self {
            temperature: read("temp", 0.0..=2.0, plain.temperature),
            top_p: if top_p > 0.0 { top_p } else { plain.top_p },
            top_k: metadata.opt_u32("general.sampling.top_k").ok().flatten().unwrap_or(plain.top_k),
            min_p: read("min_p", 0.0..=1.0, plain.min_p),
            repetition_penalty: if repetition > 0.0 {
                repetition
            } else {
                plain.repetition_penalty
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::load::gguf::Value;

    #[test]
    fn what_is_given_counts_where_a_request_could_ask_for_it() {
        let mut metadata = Metadata::default();
        assert_eq!(SamplingDefaults::of(&metadata), SamplingDefaults::OPENAI);
        for (key, value) in [
            ("temp", Value::F64(0.6)),
            ("top_p", Value::F64(-0.5)),
            ("top_k", Value::U64(40)),
            ("min_p", Value::F64(f64::NAN)),
            ("penalty_repeat", Value::Bool(true)),
        ] {
            metadata.values.insert(format!("general.sampling.{key}"), value);
        }
        let expected = SamplingDefaults { temperature: 0.6, top_k: 40, ..SamplingDefaults::OPENAI };
        assert_eq!(SamplingDefaults::of(&metadata), expected);
    }
}
