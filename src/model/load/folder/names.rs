//! What a tensor of a Hugging Face model is called in a GGUF, which is what the rest of the loader knows
//! (llama.cpp's `gguf-py/gguf/tensor_mapping.py`).

use crate::backend::Change;

/// How a family departs from the names that most have.
#[expect(clippy::struct_excessive_bools, reason = "a family either has a thing or has it not")]
pub(super) struct Names {
    /// `post_attention_layernorm` follows the attention; otherwise it is the norm before the MLP.
    pub(super) post_norms: bool,
    /// Norms lack 1.
    pub(super) norms_lack_one: bool,
    /// GPT-2's own names, and its matrices lie as columns.
    pub(super) is_gpt2: bool,
    /// gpt-oss's own names of sinks and experts, which are one tensor.
    pub(super) is_gpt_oss: bool,
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
        let (name, part) = match layer.and_then(|rest| rest.split_once('.')) {
            Some((index, part)) if index.parse::<u32>().is_ok() => {
                let Some((module, kind)) = part.rsplit_once('.') else { return Place::Unknown };
                let expert = expert(module);
                let module = expert.map(|(_, module)| module).or_else(|| self.module(module));
                let Some(module) = module else { return Place::Unknown };
                let number = expert.map_or(String::new(), |(number, _)| format!(".{number}"));
                (format!("blk.{index}.{module}{number}.{kind}"), module)
            }
            _ => {
                let Some((module, kind)) = plain.rsplit_once('.') else { return Place::Unknown };
                let module = match module {
                    "embed_tokens" | "wte" => "token_embd",
                    "wpe" => "position_embd",
                    "norm" | "ln_f" => "output_norm",
                    "lm_head" => "output",
                    _ => return Place::Unknown,
                };
                (format!("{module}.{kind}"), module)
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
        Some(match name {
            "input_layernorm" | "ln_1" => "attn_norm",
            "post_attention_layernorm" if self.post_norms => "post_attention_norm",
            "post_attention_layernorm" | "pre_feedforward_layernorm" | "ln_2" => "ffn_norm",
            "post_feedforward_layernorm" => "post_ffw_norm",
            "self_attn.q_proj" => "attn_q",
            "self_attn.k_proj" => "attn_k",
            "self_attn.v_proj" => "attn_v",
            "self_attn.o_proj" | "attn.c_proj" => "attn_output",
            "self_attn.qkv_proj" | "attn.c_attn" => "attn_qkv",
            "self_attn.q_norm" => "attn_q_norm",
            "self_attn.k_norm" => "attn_k_norm",
            "mlp.gate_proj" => "ffn_gate",
            "mlp.gate" | "mlp.router" | "block_sparse_moe.gate" => "ffn_gate_inp",
            "mlp.shared_expert_gate" => "ffn_gate_inp_shexp",
            "mlp.shared_expert.gate_proj" => "ffn_gate_shexp",
            "mlp.shared_expert.up_proj" => "ffn_up_shexp",
            "mlp.shared_expert.down_proj" => "ffn_down_shexp",
            // Gate and up are one matrix there, and are called up.
            "mlp.up_proj" | "mlp.gate_up_proj" | "mlp.c_fc" => "ffn_up",
            "mlp.down_proj" | "mlp.c_proj" => "ffn_down",
            _ => return None,
        })
    }
}

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
    let rest = name.strip_prefix("mlp.experts.");
    let rest = rest.or_else(|| name.strip_prefix("block_sparse_moe.experts."))?;
    let (number, part) = rest.split_once('.')?;
    let part = match part {
        "gate_proj" | "w1" => "ffn_gate",
        "up_proj" | "w3" => "ffn_up",
        "down_proj" | "w2" => "ffn_down",
        _ => return None,
    };
    Some((number.parse().ok()?, part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(names: &Names, name: &str) -> (String, Change) {
        match names.place(name) {
            Place::Named(name, change) => (name, change),
            other => panic!("{name}: {other:?}"),
        }
    }

    #[test]
    fn each_family_calls_its_parts_otherwise() {
        let plain =
            Names { post_norms: false, norms_lack_one: false, is_gpt2: false, is_gpt_oss: false };
        let gpt_oss = Names { is_gpt_oss: true, ..plain };
        let gemma = Names { post_norms: true, norms_lack_one: true, ..plain };
        let gpt2 = Names { is_gpt2: true, ..plain };
        for (names, name, expected, change) in [
            (&plain, "model.embed_tokens.weight", "token_embd.weight", Change::None),
            (&plain, "lm_head.weight", "output.weight", Change::None),
            (&plain, "model.layers.10.self_attn.k_proj.bias", "blk.10.attn_k.bias", Change::None),
            (
                &plain,
                "model.layers.0.post_attention_layernorm.weight",
                "blk.0.ffn_norm.weight",
                Change::None,
            ),
            (
                &gemma,
                "model.layers.0.post_attention_layernorm.weight",
                "blk.0.post_attention_norm.weight",
                Change::PlusOne,
            ),
            (
                &gemma,
                "model.layers.0.self_attn.q_norm.weight",
                "blk.0.attn_q_norm.weight",
                Change::PlusOne,
            ),
            (&gemma, "model.norm.weight", "output_norm.weight", Change::PlusOne),
            (&gemma, "model.layers.3.mlp.up_proj.weight", "blk.3.ffn_up.weight", Change::None),
            (
                &plain,
                "model.layers.2.mlp.experts.13.up_proj.weight",
                "blk.2.ffn_up.13.weight",
                Change::None,
            ),
            (
                &plain,
                "model.layers.2.block_sparse_moe.experts.0.w2.weight",
                "blk.2.ffn_down.0.weight",
                Change::None,
            ),
            (
                &gpt_oss,
                "model.layers.2.mlp.experts.gate_up_proj",
                "blk.2.ffn_gate_up_exps.weight",
                Change::TransposedSeparated,
            ),
            (
                &gpt_oss,
                "model.layers.2.mlp.experts.gate_up_proj_bias",
                "blk.2.ffn_gate_up_exps.bias",
                Change::Separated,
            ),
            (
                &gpt_oss,
                "model.layers.2.mlp.experts.down_proj",
                "blk.2.ffn_down_exps.weight",
                Change::Transposed,
            ),
            (&gpt_oss, "model.layers.2.self_attn.sinks", "blk.2.attn_sinks.weight", Change::None),
            (&plain, "model.layers.2.mlp.gate.weight", "blk.2.ffn_gate_inp.weight", Change::None),
            (&gpt2, "h.1.attn.c_attn.weight", "blk.1.attn_qkv.weight", Change::Transposed),
            (&gpt2, "transformer.h.1.attn.c_attn.bias", "blk.1.attn_qkv.bias", Change::None),
            (&gpt2, "wpe.weight", "position_embd.weight", Change::None),
            (&gpt2, "ln_f.bias", "output_norm.bias", Change::None),
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
