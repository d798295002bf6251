//! `config.json` as the keys of a GGUF: what llama.cpp's `convert_hf_to_gguf.py` writes, and what it would write if GGUF knew of it.

use std::path::Path;

use serde_json::{Map, Value as Json};

use super::names::Names;
use super::{files, rope};
use crate::model::foreign;
use crate::model::load::gguf::{Metadata, Value, shown};

/// A JSON object of the folder, such as the configuration of the model.
pub(super) struct Config {
    /// For errors.
    file: &'static str,
    values: Map<String, Json>,
}

/// A family as Hugging Face has it, and as GGUF has it.
struct Family {
    /// `model_type`.
    name: &'static str,
    /// `general.architecture`.
    arch: &'static str,
    /// The function that its MLP is built with.
    activation: &'static str,
    names: Names,
    /// `sliding_window` holds in every layer.
    all_local: bool,
    /// The weights of the chosen experts are made to.
    sums_to_one: bool,
    /// Numbers that have other names in a GGUF.
    numbers: &'static [(&'static str, &'static str)],
    /// Keys without which transformers takes a default of the class, but for a rotation's base of 10,000.
    needed: &'static [&'static str],
}

const NAMES: Names =
    Names { post_norms: false, norms_lack_one: false, is_gpt2: false, is_gpt_oss: false };
const PLAIN: Family = Family {
    name: "",
    arch: "",
    activation: "silu",
    names: NAMES,
    all_local: false,
    sums_to_one: false,
    numbers: &[],
    needed: &["rope_theta"],
};
const GEMMA: Family = Family {
    name: "gemma",
    arch: "gemma",
    activation: "gelu_pytorch_tanh",
    names: Names { norms_lack_one: true, ..NAMES },
    ..PLAIN
};
const GEMMA2: Family = Family {
    name: "gemma2",
    arch: "gemma2",
    names: Names { post_norms: true, norms_lack_one: true, ..NAMES },
    needed: &[
        "rope_theta",
        "attn_logit_softcapping",
        "final_logit_softcapping",
        "query_pre_attn_scalar",
        "sliding_window",
    ],
    numbers: &[
        ("attn_logit_softcapping", "attn_logit_softcapping"),
        ("final_logit_softcapping", "final_logit_softcapping"),
        ("rope_local_base_freq", "rope.freq_base_swa"),
    ],
    ..GEMMA
};
const FAMILIES: [Family; 17] = [
    // Llama 2 has no base in its files.
    Family { name: "llama", arch: "llama", needed: &[], ..PLAIN },
    Family { name: "mistral", arch: "llama", all_local: true, ..PLAIN },
    Family { name: "mixtral", arch: "llama", all_local: true, sums_to_one: true, ..PLAIN },
    Family { name: "qwen2", arch: "qwen2", ..PLAIN },
    Family { name: "qwen2_moe", arch: "qwen2moe", ..PLAIN },
    Family { name: "qwen3", arch: "qwen3", ..PLAIN },
    Family { name: "qwen3_moe", arch: "qwen3moe", sums_to_one: true, ..PLAIN },
    Family { name: "phi3", arch: "phi3", all_local: true, ..PLAIN },
    Family { name: "olmo2", arch: "olmo2", names: Names { post_norms: true, ..NAMES }, ..PLAIN },
    Family {
        name: "starcoder2",
        arch: "starcoder2",
        activation: "gelu_pytorch_tanh",
        all_local: true,
        ..PLAIN
    },
    Family {
        name: "gpt2",
        arch: "gpt2",
        activation: "gelu_new",
        needed: &[],
        names: Names { is_gpt2: true, ..NAMES },
        ..PLAIN
    },
    Family {
        name: "gpt_oss",
        arch: "gpt-oss",
        names: Names { post_norms: true, is_gpt_oss: true, ..NAMES },
        sums_to_one: true,
        needed: &["rope_theta", "head_dim", "sliding_window", "layer_types"],
        ..PLAIN
    },
    GEMMA,
    GEMMA2,
    Family { name: "gemma3_text", arch: "gemma3", ..GEMMA2 },
    Family { name: "smollm3", arch: "smollm3", ..PLAIN },
    Family {
        name: "granite",
        arch: "granite",
        needed: &[
            "rope_theta",
            "attention_multiplier",
            "embedding_multiplier",
            "residual_multiplier",
            "logits_scaling",
        ],
        numbers: &[
            ("attention_multiplier", "attention.scale"),
            ("embedding_multiplier", "embedding_scale"),
            ("residual_multiplier", "residual_scale"),
            ("logits_scaling", "logit_scale"),
        ],
        ..PLAIN
    },
];
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
    /// Reads the file, if it is there.
    pub(super) fn read(folder: &Path, file: &'static str) -> Result<Option<Self>, String> {
        files::text(folder, file)?.map(|text| Self::parse(file, &text)).transpose()
    }

    /// The text of `file`.
    pub(super) fn parse(file: &'static str, text: &str) -> Result<Self, String> {
        Ok(Self { file, values: files::understood(file, text)? })
    }

    /// The keys under which the rest of the loader looks.
    pub(super) fn metadata(&self) -> Result<Metadata, String> {
        let family = self.family()?;
        self.refuse_others(family)?;
        let mut keys = Keys { prefix: family.arch, metadata: Metadata::default() };
        keys.metadata
            .values
            .insert("general.architecture".to_owned(), Value::String(family.arch.to_owned()));
        for (name, other, key) in SIZES {
            if let Some(size) = self.size(name, other)? {
                keys.put(key, Value::U64(size));
            }
        }
        if family.names.is_gpt2 && self.integer("n_inner")?.is_none() {
            let hidden = self.integer("n_embd")?.unwrap_or(0);
            keys.put("feed_forward_length", Value::U64(hidden.saturating_mul(4)));
        }
        for name in ["rms_norm_eps", "norm_epsilon", "layer_norm_epsilon"] {
            if let Some(eps) = self.number(name)? {
                let kind = if name == "rms_norm_eps" { "_rms" } else { "" };
                keys.put(&format!("attention.layer_norm{kind}_epsilon"), Value::F64(eps));
            }
        }
        for (name, key) in family.numbers {
            if let Some(number) = self.number(name)? {
                keys.put(key, Value::F64(number));
            }
        }
        if let Some(scalar) = self.number("query_pre_attn_scalar")? {
            keys.put("attention.scale", Value::F64(1.0 / scalar.sqrt()));
        }
        self.windows(family, &mut keys)?;
        rope::keys(self, &mut keys)?;
        Ok(keys.metadata)
    }

    pub(super) fn names(&self) -> Result<&'static Names, String> {
        self.family().map(|family| &family.names)
    }

    /// Whether the embedding is the head, too. What it is where nothing is said differs between the classes of
    /// transformers and their versions: the weights tell then.
    pub(super) fn is_tied(&self) -> Result<Option<bool>, String> {
        self.flag("tie_word_embeddings")
    }

    /// Whether a tensor of a layer or expert, by GGUF's name, is of one that there is.
    pub(super) fn has_room_for(&self, name: &str) -> Result<bool, String> {
        let Some(rest) = name.strip_prefix("blk.") else { return Ok(true) };
        let mut parts = rest.split('.');
        let number = |text: Option<&str>| text.and_then(|text| text.parse::<u64>().ok());
        let layers = self.size("num_hidden_layers", "n_layer")?.unwrap_or(0);
        let experts = self.size("num_experts", "num_local_experts")?.unwrap_or(0);
        let (layer, expert) = (number(parts.next()), number(parts.nth(1)));
        Ok(layer.is_some_and(|layer| layer < layers)
            && expert.is_none_or(|expert| expert < experts))
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
            format!("model_type {:?} is not supported (supported: {known})", shown(name))
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
            let each =
                |(i, flag): (usize, &Json)| flag.as_u64() == Some(u64::from((i + 1) % 4 != 0));
            if !layers.iter().enumerate().all(each) {
                return Err("config.json: no_rope_layers are not every fourth".to_owned());
            }
        }
        Ok(())
    }

    /// Weights that are packed in a way that is not read, but for one.
    pub(super) fn refuse_quantised(&self, known: Option<&str>) -> Result<(), String> {
        let Some(Json::Object(quantization)) = self.values.get("quantization_config") else {
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
            if !self.values.contains_key(key) && !of_rope {
                return Err(format!("config.json: {key} is missing"));
            }
        }
        Ok(())
    }

    /// Whether the base of the rotation stands in an object of the configuration, or in one within it.
    fn names_base(&self, part: &str) -> bool {
        let Some(Json::Object(part)) = self.values.get(part) else { return false };
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
        let window = self.integer("sliding_window")?.filter(|&window| window > 0);
        // Those that have the switch have it off by default.
        let by_default = !family.name.starts_with("qwen") && family.name != "smollm3";
        let used = self.flag("use_sliding_window")?.unwrap_or(by_default);
        let Some(window) = window.filter(|_| used) else {
            // Said, since families have windows where nothing is.
            keys.put("attention.sliding_window_pattern", Value::Bools(Vec::new()));
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
        keys.put("attention.sliding_window", Value::U64(window));
        keys.put("attention.sliding_window_pattern", Value::Bools(local));
        Ok(())
    }

    fn found<T>(
        &self,
        key: &str,
        wanted: &str,
        read: impl FnOnce(&Json) -> Option<T>,
    ) -> Result<Option<T>, String> {
        match self.values.get(key) {
            None | Some(Json::Null) => Ok(None),
            Some(value) => match read(value) {
                Some(value) => Ok(Some(value)),
                None => Err(format!("{}: {key} is not {wanted}", self.file)),
            },
        }
    }

    pub(super) fn integer(&self, key: &str) -> Result<Option<u64>, String> {
        self.found(key, "an integer", Json::as_u64)
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<f64>, String> {
        self.found(key, "a number", Json::as_f64)
    }

    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, String> {
        self.found(key, "true or false", Json::as_bool)
    }

    pub(super) fn string(&self, key: &str) -> Result<Option<&str>, String> {
        match self.values.get(key) {
            None | Some(Json::Null) => Ok(None),
            Some(Json::String(text)) => Ok(Some(text)),
            Some(_) => Err(format!("{}: {key} is not a string", self.file)),
        }
    }

    /// All of it.
    pub(super) fn into_values(self) -> Map<String, Json> {
        self.values
    }

    pub(super) fn get(&self, key: &str) -> Option<&Json> {
        self.values.get(key)
    }

    fn array(&self, key: &str) -> Result<Option<&[Json]>, String> {
        match self.values.get(key) {
            None | Some(Json::Null) => Ok(None),
            Some(Json::Array(values)) => Ok(Some(values)),
            Some(_) => Err(format!("{}: {key} is not an array", self.file)),
        }
    }

    pub(super) fn floats(&self, key: &str) -> Result<Option<Vec<f32>>, String> {
        let Some(values) = self.array(key)? else { return Ok(None) };
        let float = |value: &Json| value.as_f64().map(|x| x as f32);
        let floats: Option<Vec<f32>> = values.iter().map(float).collect();
        floats.map(Some).ok_or_else(|| format!("{}: {key} is not an array of numbers", self.file))
    }

    /// An object within the configuration, to be read in the same way.
    pub(super) fn part(&self, key: &str) -> Result<Option<Self>, String> {
        self.found(key, "an object", |value| {
            Some(Self { file: self.file, values: value.as_object()?.clone() })
        })
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
    pub(super) fn put(&mut self, key: &str, value: Value) {
        self.metadata.values.insert(format!("{}.{key}", self.prefix), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which layers have the window; `None` where nothing has.
    fn windows(model_type: &str, more: &Json) -> Option<Vec<bool>> {
        let mut values = Map::new();
        values.insert("num_hidden_layers".to_owned(), Json::from(4));
        values.extend(more.as_object().unwrap().clone());
        let config = Config { file: "config.json", values };
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
