//! What a tensor of a Hugging Face model is called in a GGUF, which is what the rest of the loader knows
//! (llama.cpp's `gguf-py/gguf/tensor_mapping.py`).

use crate::backend::Change;

/// How a family departs from the names that most have.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "a family either has a thing or has it not")]
pub(in crate::model::load) struct Names {
    /// `post_attention_layernorm` follows the attention; otherwise it is the norm before the MLP.
    pub(super) post_norms: bool,
    /// Norms lack 1.
    pub(super) norms_lack_one: bool,
    /// GPT-2's own names, and its matrices lie as columns.
    pub(super) is_gpt2: bool,
    /// gpt-oss's own names of sinks and experts, which are one tensor.
    pub(super) is_gpt_oss: bool,
    /// The key of what norms add.
    pub(super) epsilon: &'static str,
    /// Parts by GGUF's names that it calls otherwise than [`OUTER`], [`PARTS`] and [`EXPERTS`] do first.
    pub(super) own: &'static [(&'static str, &'static str)],
}

/// What becomes of a tensor.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Its name, and what is done to it.
    Named(String, Change),
    /// A half of a tensor in MXFP4.
    Half(String, Change, Half),
    /// Computed from the configuration anyway, or a buffer of training.
    LeftAside,
    Unknown,
}

/// What tensors in MXFP4 are kept as, side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Half {
    Numbers,
    Exponents,
}

/// Buffers that some files have.
const ASIDE: &str = ".rotary_emb.inv_freq";
/// The same in GPT-2's.
const GPT2_ASIDE: [&str; 2] = [".attn.bias", ".attn.masked_bias"];
/// What the parts of a layer and the outer ones consist of. Whatever else they have, such as the scales of
/// quantised weights, would have to be computed with.
const KINDS: [&str; 2] = ["weight", "bias"];

impl Names {
    pub(super) fn place(&self, name: &str) -> Place {
        let plain = ["model.", "transformer."].iter().find_map(|p| name.strip_prefix(p));
        let plain = plain.unwrap_or(name);
        let of_gpt2 = self.is_gpt2 && GPT2_ASIDE.iter().any(|end| plain.ends_with(end));
        if of_gpt2 || plain.ends_with(ASIDE) {
            return Place::LeftAside;
        }
        if self.is_gpt_oss
            && let Some(place) = fused(plain)
        {
            return place;
        }
        if !plain.rsplit_once('.').is_some_and(|(_, kind)| KINDS.contains(&kind)) {
            return Place::Unknown;
        }
        let layer = plain.strip_prefix("layers.").or_else(|| plain.strip_prefix("h."));
        let Some((module, kind)) = plain.rsplit_once('.') else { return Place::Unknown };
        let (name, part) = match layer.and_then(|rest| rest.split_once('.')) {
            Some((index, part)) if index.parse::<u32>().is_ok() => {
                let module = part.strip_suffix(kind).and_then(|part| part.strip_suffix('.'));
                let Some(module) = module else { return Place::Unknown };
                let expert = expert(module);
                let module = expert.map(|(_, module)| module).or_else(|| self.module(module));
                let Some(module) = module else { return Place::Unknown };
                let number = expert.map_or(String::new(), |(number, _)| format!(".{number}"));
                (format!("blk.{index}.{module}{number}.{kind}"), module)
            }
            _ => {
                let Some((_, part)) = OUTER.iter().find(|(own, _)| *own == module) else {
                    return Place::Unknown;
                };
                (format!("{part}.{kind}"), *part)
            }
        };
        let is_norm = part.ends_with("_norm");
        let is_matrix = name.ends_with(".weight") && !is_norm && name.starts_with("blk.");
        let change = match self {
            Self { norms_lack_one: true, .. } if is_norm => Change::PlusOne,
            Self { is_gpt2: true, .. } if is_matrix => Change::Transposed,
            _ => Change::None,
        };
        Place::Named(name, change)
    }

    /// A part of a layer.
    fn module(&self, name: &str) -> Option<&'static str> {
        if name == POST_ATTENTION && self.post_norms {
            return Some("post_attention_norm");
        }
        PARTS.iter().find(|(own, _)| *own == name).map(|&(_, part)| part)
    }

    /// What the family calls the tensor that is `name` in a GGUF.
    pub(in crate::model::load) fn own(&self, name: &str) -> Option<String> {
        let (part, kind) = name.rsplit_once('.')?;
        let Some((layer, part)) = part.strip_prefix("blk.").and_then(|rest| rest.split_once('.'))
        else {
            let own = self.own_part(part, &OUTER)?;
            let prefix = match own {
                "lm_head" => "",
                _ if self.is_gpt2 => "transformer.",
                _ => "model.",
            };
            return Some(format!("{prefix}{own}.{kind}"));
        };
        let layers = if self.is_gpt2 { "transformer.h" } else { "model.layers" };
        let alone = FUSED.iter().find(|(known, ..)| self.is_gpt_oss && *known == part);
        if let Some((_, weight, bias)) = alone {
            let own = if kind == "bias" { bias } else { weight };
            return Some(format!("{layers}.{layer}.{own}"));
        }
        let own = match part.split_once('.') {
            Some((part, expert)) => {
                self.own_part(&format!("{part}.#"), &EXPERTS)?.replace('#', expert)
            }
            None if part == "post_attention_norm" => POST_ATTENTION.to_owned(),
            None if part == "ffn_norm" && self.post_norms => PRE_FEEDFORWARD.to_owned(),
            None => self.own_part(part, &PARTS)?.to_owned(),
        };
        Some(format!("{layers}.{layer}.{own}.{kind}"))
    }

    fn own_part(&self, part: &str, all: &[(&'static str, &'static str)]) -> Option<&'static str> {
        let own = self.own.iter().find(|(name, _)| *name == part).map(|&(_, own)| own);
        own.or_else(|| all.iter().find(|(_, name)| *name == part).map(|&(own, _)| own))
    }
}

/// The norm that follows the attention, or the one before the MLP: see [`Names::post_norms`].
const POST_ATTENTION: &str = "post_attention_layernorm";
const PRE_FEEDFORWARD: &str = "pre_feedforward_layernorm";
/// What stands outside of the layers, here and in a GGUF.
const OUTER: [(&str, &str); 6] = [
    ("embed_tokens", "token_embd"),
    ("wte", "token_embd"),
    ("wpe", "position_embd"),
    ("norm", "output_norm"),
    ("ln_f", "output_norm"),
    ("lm_head", "output"),
];
/// Parts of a layer. Where gate and up are one matrix, that is called up in a GGUF.
const PARTS: [(&str, &str); 28] = [
    ("input_layernorm", "attn_norm"),
    ("ln_1", "attn_norm"),
    (POST_ATTENTION, "ffn_norm"),
    (PRE_FEEDFORWARD, "ffn_norm"),
    ("ln_2", "ffn_norm"),
    ("post_feedforward_layernorm", "post_ffw_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("attn.c_proj", "attn_output"),
    ("self_attn.qkv_proj", "attn_qkv"),
    ("attn.c_attn", "attn_qkv"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.gate", "ffn_gate_inp"),
    ("mlp.router", "ffn_gate_inp"),
    ("block_sparse_moe.gate", "ffn_gate_inp"),
    ("mlp.shared_expert_gate", "ffn_gate_inp_shexp"),
    ("mlp.shared_expert.gate_proj", "ffn_gate_shexp"),
    ("mlp.shared_expert.up_proj", "ffn_up_shexp"),
    ("mlp.shared_expert.down_proj", "ffn_down_shexp"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.gate_up_proj", "ffn_up"),
    ("mlp.c_fc", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
    ("mlp.c_proj", "ffn_down"),
];
/// Parts of an expert, whose number stands in the place of the `#`.
const EXPERTS: [(&str, &str); 6] = [
    ("mlp.experts.#.gate_proj", "ffn_gate.#"),
    ("mlp.experts.#.up_proj", "ffn_up.#"),
    ("mlp.experts.#.down_proj", "ffn_down.#"),
    ("block_sparse_moe.experts.#.w1", "ffn_gate.#"),
    ("block_sparse_moe.experts.#.w3", "ffn_up.#"),
    ("block_sparse_moe.experts.#.w2", "ffn_down.#"),
];

/// What gpt-oss has as one tensor without a kind of its own: what it is in a GGUF, weight and bias.
const FUSED: [(&str, &str, &str); 3] = [
    ("attn_sinks", "self_attn.sinks", ""),
    ("ffn_gate_up_exps", "mlp.experts.gate_up_proj", "mlp.experts.gate_up_proj_bias"),
    ("ffn_down_exps", "mlp.experts.down_proj", "mlp.experts.down_proj_bias"),
];

/// What gpt-oss calls its own way: sinks, and the experts of a layer, which are one tensor. Their matrices are `[in, out]`,
/// but `[out, in]` in MXFP4; outputs of gate and up are in turn.
fn fused(name: &str) -> Option<Place> {
    use Change::{None as Same, Separated, Transposed, TransposedSeparated};
    let (index, part) = name.strip_prefix("layers.")?.split_once('.')?;
    let index: u32 = index.parse().ok()?;
    if part == "self_attn.sinks" {
        return Some(Place::Named(format!("blk.{index}.attn_sinks.weight"), Same));
    }
    let (module, kind) = part.strip_prefix("mlp.experts.")?.split_once("_proj")?;
    let (module, turned, straight) = match module {
        "gate_up" => ("ffn_gate_up_exps", TransposedSeparated, Separated),
        "down" => ("ffn_down_exps", Transposed, Same),
        _ => return None,
    };
    let weight = format!("blk.{index}.{module}.weight");
    Some(match kind {
        "" => Place::Named(weight, turned),
        "_bias" => Place::Named(format!("blk.{index}.{module}.bias"), straight),
        "_blocks" => Place::Half(weight, straight, Half::Numbers),
        "_scales" => Place::Half(weight, straight, Half::Exponents),
        _ => return None,
    })
}

/// One of several experts of a layer: its number, and which part of it.
fn expert(name: &str) -> Option<(u32, &'static str)> {
    EXPERTS.iter().find_map(|(own, part)| {
        let (before, behind) = own.split_once('#')?;
        let number = name.strip_prefix(before)?.strip_suffix(behind)?;
        Some((number.parse().ok()?, part.strip_suffix(".#")?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::load::folder::families::{FAMILIES, Family};

    fn named(names: &Names, name: &str) -> (String, Change) {
        match names.place(name) {
            Place::Named(name, change) => (name, change),
            other => panic!("{name}: {other:?}"),
        }
    }

    fn names(family: &str) -> &'static Names {
        static ALL: [Family; 17] = FAMILIES;
        &ALL.iter().find(|known| known.name == family).unwrap().names
    }

    /// Errors about what is missing name what a file would have.
    #[test]
    fn every_name_is_found_from_that_of_a_gguf() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models");
        let mut seen = 0;
        for family in &FAMILIES {
            let name = family.name.trim_end_matches("_text");
            let bytes = std::fs::read(folder.join(name).join("model.safetensors"));
            // One has several files.
            let Ok(bytes) = bytes else { continue };
            let length = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
            let header: serde_json::Map<String, serde_json::Value> =
                serde_json::from_slice(&bytes[8..8 + length]).unwrap();
            for tensor in header.keys().filter(|name| *name != "__metadata__") {
                let (gguf, _) = named(&family.names, tensor);
                assert_eq!(family.names.own(&gguf).as_ref(), Some(tensor), "{name}: {gguf}");
                seen += 1;
            }
        }
        assert!(seen > 200, "{seen}");
    }

    #[test]
    fn each_family_calls_its_parts_otherwise() {
        let [plain, gemma, gpt2] = ["llama", "gemma3_text", "gpt2"].map(names);
        let gpt_oss = names("gpt_oss");
        for (names, name, expected, change) in [
            (plain, "model.embed_tokens.weight", "token_embd.weight", Change::None),
            (plain, "lm_head.weight", "output.weight", Change::None),
            (plain, "model.layers.10.self_attn.k_proj.bias", "blk.10.attn_k.bias", Change::None),
            (
                plain,
                "model.layers.0.post_attention_layernorm.weight",
                "blk.0.ffn_norm.weight",
                Change::None,
            ),
            (
                gemma,
                "model.layers.0.post_attention_layernorm.weight",
                "blk.0.post_attention_norm.weight",
                Change::PlusOne,
            ),
            (
                gemma,
                "model.layers.0.self_attn.q_norm.weight",
                "blk.0.attn_q_norm.weight",
                Change::PlusOne,
            ),
            (gemma, "model.norm.weight", "output_norm.weight", Change::PlusOne),
            (gemma, "model.layers.3.mlp.up_proj.weight", "blk.3.ffn_up.weight", Change::None),
            (
                plain,
                "model.layers.2.mlp.experts.13.up_proj.weight",
                "blk.2.ffn_up.13.weight",
                Change::None,
            ),
            (
                plain,
                "model.layers.2.block_sparse_moe.experts.0.w2.weight",
                "blk.2.ffn_down.0.weight",
                Change::None,
            ),
            (plain, "model.layers.2.mlp.gate.weight", "blk.2.ffn_gate_inp.weight", Change::None),
            (gpt2, "h.1.attn.c_attn.weight", "blk.1.attn_qkv.weight", Change::Transposed),
            (gpt2, "transformer.h.1.attn.c_attn.bias", "blk.1.attn_qkv.bias", Change::None),
            (gpt2, "wpe.weight", "position_embd.weight", Change::None),
            (gpt2, "ln_f.bias", "output_norm.bias", Change::None),
            (
                gpt_oss,
                "model.layers.2.mlp.experts.gate_up_proj",
                "blk.2.ffn_gate_up_exps.weight",
                Change::TransposedSeparated,
            ),
            (
                gpt_oss,
                "model.layers.2.mlp.experts.gate_up_proj_bias",
                "blk.2.ffn_gate_up_exps.bias",
                Change::Separated,
            ),
            (
                gpt_oss,
                "model.layers.2.mlp.experts.down_proj",
                "blk.2.ffn_down_exps.weight",
                Change::Transposed,
            ),
            (gpt_oss, "model.layers.2.self_attn.sinks", "blk.2.attn_sinks.weight", Change::None),
        ] {
            assert_eq!(named(names, name), (expected.to_owned(), change), "{name}");
        }
        for name in ["model.layers.1.self_attn.rotary_emb.inv_freq", "h.3.attn.bias"] {
            assert_eq!(gpt2.place(name), Place::LeftAside, "{name}");
        }
        assert_eq!(
            gpt_oss.place("model.layers.0.mlp.experts.gate_up_proj_scales"),
            Place::Half(
                "blk.0.ffn_gate_up_exps.weight".to_owned(),
                Change::Separated,
                Half::Exponents
            )
        );
        for name in [
            "visual.patch.weight",
            "model.layers.x.mlp.up_proj.weight",
            "weight",
            "",
            "model.layers.0.mlp.up_proj.weight_scale",
            "model.layers.0.attn.bias",
            // Elsewhere they would mean something else.
            "model.layers.0.mlp.experts.gate_up_proj",
            "model.layers.0.mlp.experts.gate_up_proj_scales",
            "model.layers.0.self_attn.sinks",
        ] {
            assert_eq!(plain.place(name), Place::Unknown, "{name}");
        }
        for name in ["up_proj", "down_proj_scale", "0.up_proj_blocks"] {
            let name = format!("model.layers.0.mlp.experts.{name}");
            assert_eq!(gpt_oss.place(&name), Place::Unknown, "{name}");
        }
    }
}
