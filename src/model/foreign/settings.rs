//! `config.json` as candle-transformers reads it: keys of transformers 4, and nothing that it would leave out.

use std::ops::RangeInclusive;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value as Json};

use crate::model::load::gguf::shown;

const MAX_WIDTH: usize = 1 << 20;
const MAX_HEADS: usize = 1 << 10;
const MAX_LAYERS: usize = 1 << 10;
const MAX_VOCAB: usize = 1 << 22;
const MAX_CONTEXT: usize = 1 << 24;

/// Values by key.
pub(super) struct Settings(Map<String, Json>);

/// What the room for keys and values depends on, each within bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sizes {
    /// Those that attend.
    pub(super) layers: usize,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
    pub(super) vocab: usize,
    /// Tokens that the model was trained for.
    pub(super) context: usize,
}

/// What a family calls its sizes.
pub(super) struct SizeNames {
    pub(super) hidden: &'static str,
    pub(super) heads: &'static str,
    pub(super) kv_heads: &'static str,
    pub(super) layers: &'static str,
    pub(super) context: &'static str,
}

/// Of norms. Released models have 1e-5 and the like; a norm of what is larger is none.
const EPSILONS: RangeInclusive<f64> = 1e-20..=0.1;
/// Of rotations. Below 1 positions would turn the faster the slower they should.
const BASES: RangeInclusive<f64> = 1.0..=1e12;

impl Settings {
    /// # Errors
    /// Rotations that are scaled: candle-transformers would not scale them.
    pub(super) fn of(config: &Map<String, Json>) -> Result<Self, String> {
        let mut values = config.clone();
        values.retain(|key, value| !(key.ends_with("_token_id") && value.as_f64() == Some(-1.0)));
        values.values_mut().for_each(make_whole);
        for key in ["rope_parameters", "rope_scaling"] {
            let part = match values.remove(key) {
                None | Some(Json::Null) => continue,
                Some(Json::Object(part)) => part,
                Some(_) => return Err(format!("config.json: {key} is not an object")),
            };
            let kind = part.get("rope_type").or_else(|| part.get("type")).and_then(Json::as_str);
            if let Some(kind) = kind.filter(|&kind| kind != "default") {
                let kind = shown(kind);
                return Err(format!("config.json: rope_type {kind} is not supported here"));
            }
            for name in ["rope_theta", "partial_rotary_factor"] {
                if let Some(value) = part.get(name) {
                    values.entry(name).or_insert_with(|| value.clone());
                }
            }
        }
        for (key, value) in &values {
            let is_epsilon = key.ends_with("eps") || key.ends_with("epsilon");
            let is_base = matches!(key.as_str(), "rope_theta" | "rotary_emb_base");
            let bounds = if is_epsilon { EPSILONS } else { BASES };
            if (is_epsilon || is_base)
                && !value.is_null()
                && !value.as_f64().is_some_and(|number| bounds.contains(&number))
            {
                let value = shown(&value.to_string());
                return Err(format!("config.json: {key} {value} is none that a model has"));
            }
        }
        Ok(Self(values))
    }

    /// Refuses what a key says, unless it is this (as JSON) or nothing.
    pub(super) fn require(&self, key: &str, only: &str) -> Result<(), String> {
        match self.get(key) {
            None => Ok(()),
            Some(value) if serde_json::from_str::<Json>(only).is_ok_and(|only| *value == only) => {
                Ok(())
            }
            Some(value) => {
                let value = shown(&value.to_string());
                Err(format!("config.json: {key} {value} is not supported here, only {only}"))
            }
        }
    }

    pub(super) fn flag(&self, key: &str) -> Option<bool> {
        self.0.get(key).and_then(Json::as_bool)
    }

    pub(super) fn get(&self, key: &str) -> Option<&Json> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    pub(super) fn set(&mut self, key: &str, value: impl Into<Json>) {
        self.0.insert(key.to_owned(), value.into());
    }

    fn count_if_any(&self, key: &str, max: usize) -> Result<Option<usize>, String> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let count = value.as_u64().and_then(|n| usize::try_from(n).ok());
        match count.filter(|n| (1..=max).contains(n)) {
            Some(count) => Ok(Some(count)),
            None => Err(format!("config.json: {key} is not in 1..={max}")),
        }
    }

    fn count(&self, key: &str, max: usize) -> Result<usize, String> {
        self.count_if_any(key, max)?.ok_or_else(|| format!("config.json: {key} is missing"))
    }

    pub(super) fn layers(&self, names: &SizeNames) -> Result<usize, String> {
        self.count(names.layers, MAX_LAYERS)
    }

    pub(super) fn sizes(&self, names: &SizeNames) -> Result<Sizes, String> {
        let hidden = self.count(names.hidden, MAX_WIDTH)?;
        let heads = self.count(names.heads, MAX_HEADS)?;
        let kv_heads = self.count_if_any(names.kv_heads, MAX_HEADS)?.unwrap_or(heads);
        let own = self.count_if_any("head_dim", MAX_HEADS)?;
        if !heads.is_multiple_of(kv_heads) || own.is_none() && !hidden.is_multiple_of(heads) {
            return Err(format!(
                "config.json: {heads} heads do not fit {kv_heads} of keys and a width of {hidden}"
            ));
        }
        let head_dim = own.unwrap_or(hidden / heads);
        self.check_rotation(head_dim)?;
        Ok(Sizes {
            layers: self.layers(names)?,
            kv_heads,
            head_dim,
            vocab: self.count("vocab_size", MAX_VOCAB)?,
            context: self.count(names.context, MAX_CONTEXT)?,
        })
    }

    /// What is turned of a head are whole pairs.
    fn check_rotation(&self, head_dim: usize) -> Result<(), String> {
        let part = self.get("partial_rotary_factor").map_or(Some(1.0), Json::as_f64);
        let part = part.filter(|part| *part > 0.0 && *part <= 1.0);
        let part = part.ok_or("config.json: partial_rotary_factor is not in 0 to 1")?;
        // Transformers cuts off what is no whole number.
        let dims = (head_dim as f64 * part) as usize;
        if dims > 0 && dims.is_multiple_of(2) {
            return Ok(());
        }
        Err(format!(
            "config.json: {dims} turned elements of {head_dim} in a head are no whole pairs"
        ))
    }

    /// All of it, as a configuration of candle-transformers.
    pub(super) fn parse<T: DeserializeOwned>(&self) -> Result<T, String> {
        let parsed = serde_json::from_value(Json::Object(self.0.clone()));
        parsed.map_err(|e| format!("config.json: {}", shown(&e.to_string())))
    }
}

/// Where floats hold each integer.
const WHOLE_FLOATS: std::ops::Range<f64> = 0.0..9e15;

/// Integers may be written as floats, which candle-transformers does not take for them. It takes integers for floats.
fn make_whole(value: &mut Json) {
    match value {
        Json::Number(number) => {
            let float = number.as_f64().filter(|_| number.is_f64());
            if let Some(x) = float.filter(|x| x.fract() == 0.0 && WHOLE_FLOATS.contains(x)) {
                *number = (x as u64).into();
            }
        }
        Json::Object(part) => part.values_mut().for_each(make_whole),
        Json::Array(values) => values.iter_mut().for_each(make_whole),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NAMES: SizeNames = SizeNames {
        hidden: "hidden_size",
        heads: "num_attention_heads",
        kv_heads: "num_key_value_heads",
        layers: "num_hidden_layers",
        context: "max_position_embeddings",
    };

    fn settings(value: &Json) -> Result<Settings, String> {
        Settings::of(value.as_object().unwrap())
    }

    #[test]
    fn keys_of_either_transformers_are_the_same() {
        for wrong in [r#"{"layer_norm_eps": -1}"#, r#"{"norm_eps": 0.5}"#, r#"{"rope_theta": 0}"#] {
            let error = settings(&serde_json::from_str(wrong).unwrap()).err().unwrap();
            assert!(error.ends_with("is none that a model has"), "{error}");
        }
        let old = json!({"rope_theta": 7.0, "rope_scaling": null});
        let new = json!({"rope_parameters": {"rope_type": "default", "rope_theta": 7.0}});
        for value in [old, new] {
            assert_eq!(settings(&value).unwrap().get("rope_theta"), Some(&json!(7)));
        }
        for scaled in [
            json!({"rope_scaling": {"type": "linear", "factor": 2.0}}),
            json!({"rope_parameters": {"rope_type": "yarn"}}),
        ] {
            assert!(settings(&scaled).err().unwrap().contains("is not supported here"));
        }
        assert!(settings(&json!({"rope_scaling": 3})).is_err());
    }

    #[test]
    fn numbers_may_be_written_otherwise() {
        let value = json!({"hidden_size": 32.0, "rope_parameters": {"rope_theta": 1e4}, "eps": 1e-5,
            "clip": -1.0, "pad_token_id": -1, "layers": [2.0, 0.5]});
        let found = settings(&value).unwrap().0;
        let plain = json!({"hidden_size": 32, "rope_theta": 10_000, "eps": 1e-5, "clip": -1.0,
            "layers": [2, 0.5]});
        assert_eq!(Json::Object(found), plain);
    }

    #[test]
    fn sizes_are_bounded_and_fit_each_other() {
        let fair = json!({"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2,
            "num_hidden_layers": 3, "max_position_embeddings": 64, "vocab_size": 10});
        let sizes = settings(&fair).unwrap().sizes(&NAMES).unwrap();
        let expected = Sizes { layers: 3, kv_heads: 2, head_dim: 8, vocab: 10, context: 64 };
        assert_eq!(sizes, expected);
        for (key, value, says) in [
            ("hidden_size", json!(0), "hidden_size is not in 1..="),
            ("hidden_size", json!(33), "do not fit"),
            ("hidden_size", json!(12), "3 turned elements of 3 in a head are no whole pairs"),
            ("partial_rotary_factor", json!(0.4), "3 turned elements of 8"),
            ("partial_rotary_factor", json!(1.5), "partial_rotary_factor is not in 0 to 1"),
            ("num_attention_heads", json!(-1), "num_attention_heads is not in 1..="),
            ("num_key_value_heads", json!(3), "do not fit"),
            ("num_hidden_layers", json!(1_000_000_000), "num_hidden_layers is not in 1..="),
            ("max_position_embeddings", json!(1_u64 << 40), "is not in 1..="),
            ("vocab_size", json!("many"), "vocab_size is not in 1..="),
            ("vocab_size", json!(null), "vocab_size is missing"),
        ] {
            let mut wrong = fair.clone();
            wrong[key] = value;
            let refusal = settings(&wrong).unwrap().sizes(&NAMES).unwrap_err();
            assert!(refusal.contains(says), "{key}: {refusal}");
        }
    }
}
