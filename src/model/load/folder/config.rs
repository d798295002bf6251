//! `config.json` as the keys of a GGUF: what llama.cpp's `convert_hf_to_gguf.py` writes, and what it would write if GGUF knew of it.

use serde_json::Value as Json;

use super::families::{FAMILIES, Family};
use super::names::Names;
use super::rope;
use super::values::{Config, integer};
use crate::model::foreign;
use crate::model::load::gguf::{Metadata, Value, shown};

/// Sizes: what Hugging Face calls them (GPT-2's name second), and what GGUF does.
const SIZES: [(&str, &str, &str); 11] = [
    ("num_attention_heads", "n_head", "attention.head_count"),
    ("num_key_value_heads", "", "attention.head_count_kv"),
    ("hidden_size", "n_embd", "embedding_length"),
    ("intermediate_size", "n_inner", "feed_forward_length"),
    ("num_hidden_layers", "n_layer", "block_count"),
    ("head_dim", "", "attention.key_length"),
    ("max_position_embeddings", "n_positions", "context_length"),
    ("num_experts", "num_local_experts", "expert_count"),
    ("num_experts_per_tok", "experts_per_token", "expert_used_count"),
    ("moe_intermediate_size", "", "expert_feed_forward_length"),
    ("shared_expert_intermediate_size", "", "expert_shared_feed_forward_length"),
];

impl Config {
    /// The keys under which the rest of the loader looks.
    pub(super) fn metadata(&self) -> Result<Metadata, String> {
        let family = self.family()?;
        self.refuse_others(family)?;
        let mut keys = Keys { prefix: family.arch, metadata: Metadata::default() };
        keys.metadata
            .values
            .insert("general.architecture".to_owned(), Value::String(family.arch.to_owned()));
        for (name, other, key) in SIZES {
            let name = if self.get(name).is_none() && self.get(other).is_some()
                || family.names.is_gpt2 && !other.is_empty()
            {
                other
            } else {
                name
            };
            keys.put(self.name(name), key, self.integer(name)?.map(Value::U64));
        }
        if family.names.is_gpt2 && self.integer("n_inner")?.is_none() {
            let hidden = self.integer("n_embd")?.unwrap_or(0);
            let width = Value::U64(hidden.saturating_mul(4));
            keys.put(self.name("n_inner"), "feed_forward_length", Some(width));
        }
        let eps = family.names.epsilon;
        let kind = if eps == "rms_norm_eps" { "_rms" } else { "" };
        let key = format!("attention.layer_norm{kind}_epsilon");
        keys.put(self.name(eps), &key, self.number(eps)?.map(Value::F64));
        for &(name, key) in family.numbers {
            keys.put(self.name(name), key, self.number(name)?.map(Value::F64));
        }
        if let Some(scalar) = self.number("query_pre_attn_scalar")? {
            let scale = Value::F64(1.0 / scalar.sqrt());
            keys.put(self.name("query_pre_attn_scalar"), "attention.scale", Some(scale));
        }
        self.windows(family, &mut keys)?;
        rope::keys(self, &mut keys)?;
        Ok(keys.metadata)
    }

    pub(super) fn names(&self) -> Result<&'static Names, String> {
        self.family().map(|family| &family.names)
    }

    pub(super) fn room(&self) -> Result<Room, String> {
        let size = |name, other| Ok::<_, String>(self.size(name, other)?.unwrap_or(0));
        Ok(Room {
            is_tied: self.flag("tie_word_embeddings")?,
            layers: size("num_hidden_layers", "n_layer")?,
            experts: size("num_experts", "num_local_experts")?,
        })
    }

    /// An integer under one of two names.
    fn size(&self, name: &str, other: &str) -> Result<Option<u64>, String> {
        let found = self.integer(name)?;
        if found.is_none() { self.integer(other) } else { Ok(found) }
    }

    fn family(&self) -> Result<&'static Family, String> {
        const KNOWN: &[Family] = &FAMILIES;
        let name = self.string("model_type")?.ok_or("config.json: model_type is missing")?;
        KNOWN.iter().find(|family| family.name == name).ok_or_else(|| {
            let known: Vec<&str> = KNOWN.iter().map(|family| family.name).collect();
            let known = [&known[..], &foreign::NAMES].concat().join(", ");
            let name = shown(name);
            format!("config.json: model_type {name:?} is not supported (supported: {known})")
        })
    }

    /// What would be computed otherwise than here.
    fn refuse_others(&self, family: &Family) -> Result<(), String> {
        self.refuse_quantised(family.names.is_gpt_oss.then_some("mxfp4"))?;
        for key in ["hidden_activation", "hidden_act", "activation_function"] {
            // Gemma's first files say one thing there and mean another, which the other key corrects.
            if let Some(name) = self.string(key)? {
                if name != family.activation && family.name != "gemma" {
                    let name = shown(name);
                    return Err(format!("config.json: {key} {name} is not supported here"));
                }
                break;
            }
        }
        if self.flag("use_bidirectional_attention")? == Some(true) {
            return Err("config.json: use_bidirectional_attention is not supported".to_owned());
        }
        self.refuse_defaults(family)?;
        self.refuse_other_experts(family)?;
        for key in ["scale_attn_by_inverse_layer_idx", "add_cross_attention"] {
            if self.flag(key)? == Some(true) {
                return Err(format!("config.json: {key} is not supported"));
            }
        }
        if self.flag("scale_attn_weights")? == Some(false) {
            return Err("config.json: scale_attn_weights false is not supported".to_owned());
        }
        for (key, usual) in [("swiglu_alpha", 1.702), ("swiglu_limit", 7.0)] {
            if self.number(key)?.is_some_and(|number| (number - usual).abs() > 1e-6) {
                return Err(format!("config.json: {key} is not {usual}, which is not supported"));
            }
        }
        if family.name == "smollm3" {
            let layers = self.array("no_rope_layers")?.unwrap_or_default();
            let rotates = |flag: &Json| flag.as_bool().or_else(|| Some(integer(flag)? != 0));
            let each = |(i, flag): (usize, &Json)| rotates(flag) == Some((i + 1) % 4 != 0);
            if !layers.iter().enumerate().all(each) {
                return Err("config.json: no_rope_layers are not every fourth".to_owned());
            }
        }
        Ok(())
    }

    /// Weights that are packed in a way that is not read, but for one.
    pub(super) fn refuse_quantised(&self, known: Option<&str>) -> Result<(), String> {
        let Some(Json::Object(quantization)) = self.get("quantization_config") else {
            return Ok(());
        };
        let method = quantization.get("quant_method").and_then(Json::as_str).unwrap_or("some");
        if Some(method) == known {
            return Ok(());
        }
        let method = shown(method);
        Err(format!("its weights are quantised ({method}), which is not supported"))
    }

    /// What transformers knows of a class, and its folder does not say.
    fn refuse_defaults(&self, family: &Family) -> Result<(), String> {
        for &key in family.needed {
            let of_rope = key == "rope_theta"
                && ["rope_parameters", "rope_scaling"].iter().any(|part| self.names_base(part));
            if !self.has(key) && !of_rope {
                return Err(format!("config.json: {key} is missing"));
            }
        }
        Ok(())
    }

    /// Whether the base of the rotation stands in an object of the configuration, or in one within it.
    fn names_base(&self, part: &str) -> bool {
        let Some(Json::Object(part)) = self.get(part) else { return false };
        part.contains_key("rope_theta")
            || part.values().any(|inner| inner.get("rope_theta").is_some())
    }

    fn refuse_other_experts(&self, family: &Family) -> Result<(), String> {
        if self.flag("norm_topk_prob")?.is_some_and(|sums| sums != family.sums_to_one) {
            return Err("config.json: norm_topk_prob is not that of the released models".to_owned());
        }
        let is_sparse = self.integer("decoder_sparse_step")?.unwrap_or(1) == 1
            && self.array("mlp_only_layers")?.is_none_or(<[Json]>::is_empty);
        if is_sparse {
            Ok(())
        } else {
            Err("config.json: layers without experts are not supported".to_owned())
        }
    }

    /// The window, and which layers have it.
    fn windows(&self, family: &Family, keys: &mut Keys) -> Result<(), String> {
        let layers = self.integer("num_hidden_layers")?.unwrap_or(0).min(MAX_LAYERS) as usize;
        let window = self.integer_unless_minus_one("sliding_window")?.filter(|&window| window > 0);
        // Those that have the switch have it off by default.
        let by_default = !family.name.starts_with("qwen") && family.name != "smollm3";
        let used = self.flag("use_sliding_window")?.unwrap_or(by_default);
        let Some(window) = window.filter(|_| used) else {
            // Said, since families have windows where nothing is.
            let none = Value::Bools(Vec::new());
            keys.put(self.name("sliding_window"), "attention.sliding_window_pattern", Some(none));
            return Ok(());
        };
        let local: Vec<bool> = if let Some(types) = self.array("layer_types")? {
            if types.len() != layers {
                return Err("config.json: layer_types is not one for each layer".to_owned());
            }
            let kinds = types.iter().map(|kind| match kind.as_str() {
                Some("sliding_attention") => Ok(true),
                Some("full_attention") => Ok(false),
                _ => Err("config.json: layer_types has one that is not supported".to_owned()),
            });
            kinds.collect::<Result<_, _>>()?
        } else if let Some(first) = self.integer("max_window_layers")? {
            (0..layers).map(|i| i as u64 >= first).collect()
        } else if family.names.post_norms {
            // Gemma 2 and 3.
            let default = if family.arch == "gemma2" { 2 } else { 6 };
            let pattern = self.integer("sliding_window_pattern")?.unwrap_or(default).max(1);
            (1..=layers).map(|i| !(i as u64).is_multiple_of(pattern)).collect()
        } else {
            vec![family.all_local; layers]
        };
        let (window, local) = (Value::U64(window), Value::Bools(local));
        keys.put(self.name("sliding_window"), "attention.sliding_window", Some(window));
        keys.put(self.name("layer_types"), "attention.sliding_window_pattern", Some(local));
        Ok(())
    }
}

/// Which tensors there can be.
pub(super) struct Room {
    /// Whether the embedding is the head, too. What it is where nothing is said differs between the classes of
    /// transformers and their versions: the weights tell then.
    pub(super) is_tied: Option<bool>,
    layers: u64,
    experts: u64,
}

impl Room {
    /// Whether a tensor of a layer or expert, by GGUF's name, is of one that there is.
    pub(super) fn has(&self, name: &str) -> bool {
        let Some(rest) = name.strip_prefix("blk.") else { return true };
        let mut parts = rest.split('.');
        let number = |text: Option<&str>| text.and_then(|text| text.parse::<u64>().ok());
        let (layer, expert) = (number(parts.next()), number(parts.nth(1)));
        layer.is_some_and(|layer| layer < self.layers)
            && expert.is_none_or(|expert| expert < self.experts)
    }
}

/// Above what any model has; the hyperparameters themselves are checked later, as a GGUF's are.
const MAX_LAYERS: u64 = 1 << 10;

/// Keys of one architecture.
pub(super) struct Keys {
    prefix: &'static str,
    metadata: Metadata,
}

impl Keys {
    /// Adds what `origin` says, if it says something.
    pub(super) fn put(&mut self, origin: String, key: &str, value: Option<Value>) {
        let key = format!("{}.{key}", self.prefix);
        if let Some(value) = value {
            self.metadata.values.insert(key.clone(), value);
        }
        self.metadata.origins.keys.insert(key, origin);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which layers have the window; `None` where nothing has.
    fn windows(model_type: &str, more: &Json) -> Option<Vec<bool>> {
        let mut values = more.clone();
        values["num_hidden_layers"] = Json::from(4);
        let config = Config::of(&values);
        let family = FAMILIES.iter().find(|family| family.name == model_type).unwrap();
        let mut keys = Keys { prefix: "x", metadata: Metadata::default() };
        config.windows(family, &mut keys).unwrap();
        match &keys.metadata.values["x.attention.sliding_window_pattern"] {
            Value::Bools(layers) => Some(layers.clone()).filter(|layers| !layers.is_empty()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn windows_are_where_the_class_has_them() {
        use serde_json::json;
        let window = json!({"sliding_window": 8});
        assert_eq!(windows("mistral", &window), Some(vec![true; 4]));
        assert_eq!(windows("mistral", &json!({"sliding_window": null})), None);
        assert_eq!(windows("llama", &window), Some(vec![false; 4]));
        // Off unless it is said to be on.
        assert_eq!(windows("qwen2", &json!({"sliding_window": 8, "max_window_layers": 0})), None);
        let on = json!({"sliding_window": 8, "max_window_layers": 2, "use_sliding_window": true});
        assert_eq!(windows("qwen2", &on), Some(vec![false, false, true, true]));
        assert_eq!(windows("gemma2", &window), Some(vec![true, false, true, false]));
        assert_eq!(windows("gemma3_text", &window), Some(vec![true; 4]));
        let each = json!({"sliding_window": 8, "layer_types":
            ["full_attention", "sliding_attention", "full_attention", "full_attention"]});
        assert_eq!(windows("gemma3_text", &each), Some(vec![false, true, false, false]));
    }
}
