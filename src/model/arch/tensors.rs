//! Finds tensors by name, checks their shapes, and keeps count of those that found a use.

use std::collections::{BTreeMap, BTreeSet};

use super::Refused;
use crate::backend::{BlockType, Change, Stored, TensorSource};
use crate::model::load::Origins;
use crate::model::load::gguf::shown;

/// Parts of a layer that some architecture computes with (`LLM_TENSOR_NAMES` of llama.cpp). A file
/// that has one of them for which its own architecture has no use would be computed wrongly.
const LAYER_PARTS: [&str; 43] = [
    "attn_norm_2.weight",
    "attn_q.bias",
    "attn_k.bias",
    "attn_v.bias",
    "attn_output.bias",
    "attn_q_norm.weight",
    "attn_k_norm.weight",
    "attn_qkv.weight",
    "attn_qkv.bias",
    "attn_gate.weight",
    "attn_sinks.weight",
    "attn_sub_norm.weight",
    "attn_output_norm.weight",
    "attn_norm.bias",
    "post_attention_norm.weight",
    "post_ffw_norm.weight",
    "pre_ffw_norm_2.weight",
    "layer_output_norm.weight",
    "layer_output_scale.weight",
    "ffn_norm.bias",
    "ffn_sub_norm.weight",
    "ffn_gate.bias",
    "ffn_up.bias",
    "ffn_down.bias",
    "ffn_gate_inp.weight",
    "ffn_gate_inp.bias",
    "ffn_gate_inp_shexp.weight",
    "ffn_gate_exps.weight",
    "ffn_up_exps.weight",
    "ffn_down_exps.weight",
    "ffn_gate_up_exps.weight",
    "ffn_gate_exps.bias",
    "ffn_up_exps.bias",
    "ffn_down_exps.bias",
    "ffn_gate_up_exps.bias",
    "ffn_gate_shexp.weight",
    "ffn_up_shexp.weight",
    "ffn_down_shexp.weight",
    "exp_probs_b.bias",
    "ssm_in.weight",
    "ssm_out.weight",
    "inp_gate.weight",
    "proj.weight",
];
/// The same outside of the layers.
const GLOBAL_PARTS: [&str; 7] = [
    "output.bias",
    "output_norm.bias",
    "token_embd_norm.weight",
    "position_embd.weight",
    "per_layer_token_embd.weight",
    "rope_factors_long.weight",
    "rope_factors_short.weight",
];

/// The tensors of a file, and which of them were asked for.
pub(super) struct Tensors<'a> {
    all: &'a BTreeMap<String, TensorSource>,
    /// Those that the file has but nobody can use, and why: a clause without its subject.
    unusable: &'a BTreeMap<String, String>,
    /// What errors call them.
    origins: &'a Origins,
    used: BTreeSet<&'a str>,
}

/// Matrices, rows and columns.
type Dims = (usize, usize, usize);

/// A tensor with another shape than the hyperparameters say.
pub(super) fn mis_shaped(source: &TensorSource, wanted: Dims) -> Refused {
    let text = |(matrices, rows, cols): Dims| match matrices {
        1 => format!("{rows} x {cols}"),
        _ => format!("{matrices} x {rows} x {cols}"),
    };
    Refused(format!(
        "tensor {} is {}, the hyperparameters say {}",
        shown(&source.name),
        text(dims(source)),
        text(wanted)
    ))
}

fn dims(source: &TensorSource) -> Dims {
    (source.matrices, source.rows, source.cols)
}

impl<'a> Tensors<'a> {
    pub(super) fn new(
        all: &'a BTreeMap<String, TensorSource>,
        unusable: &'a BTreeMap<String, String>,
        origins: &'a Origins,
    ) -> Self {
        Self { all, unusable, origins, used: BTreeSet::new() }
    }

    /// Whether the file has it, of use or not: what it has must not be taken for absent.
    pub(super) fn has(&self, name: &str) -> bool {
        self.all.contains_key(name) || self.unusable.contains_key(name)
    }

    /// Whatever its shape is.
    fn any(&mut self, name: &str) -> Result<TensorSource, Refused> {
        let (name, source) = self.all.get_key_value(name).ok_or_else(|| {
            let reason = self.unusable.get(name).map_or("is missing", String::as_str);
            Refused(format!("tensor {} {reason}", self.origins.tensor(name)))
        })?;
        self.used.insert(name);
        self.scaled(source)
    }

    /// With the scale that some files have beside a weight (`NVFP4` has one for all of a matrix); llama.cpp multiplies what the
    /// product gives by it.
    fn scaled(&mut self, source: &TensorSource) -> Result<TensorSource, Refused> {
        let stem = source.name.strip_suffix(".weight");
        let Some(name) = stem.map(|stem| format!("{stem}.scale")).filter(|name| self.has(name))
        else {
            return Ok(source.clone());
        };
        let (name, scale) = self.all.get_key_value(&name).ok_or_else(|| {
            let reason = self.unusable.get(&name).map_or("is missing", String::as_str);
            Refused(format!("tensor {name} {reason}"))
        })?;
        self.used.insert(name);
        let wanted = (1, 1, source.matrices);
        if dims(scale) != wanted {
            return Err(mis_shaped(scale, wanted));
        }
        let is_float = scale.stored == Stored::Block(BlockType::F32);
        if !is_float || matches!(source.stored, Stored::Block(kind) if kind.block_len() > 1) {
            let (of, label) = if is_float {
                (source, "is scaled by another tensor")
            } else {
                (scale, "is a scale")
            };
            return Err(Refused(format!(
                "tensor {} has type {} and {label}, which is not supported",
                of.name,
                of.stored.label()
            )));
        }
        let change = Change::Scaled { path: scale.path.clone(), offset: scale.offset };
        Ok(TensorSource { change, ..source.clone() })
    }

    /// The embedding: its height is what tells the vocabulary's size.
    pub(super) fn matrix_of_any_height(&mut self, name: &str) -> Result<TensorSource, Refused> {
        let source = self.any(name)?;
        if source.matrices == 1 {
            Ok(source)
        } else {
            Err(mis_shaped(&source, (1, source.rows, source.cols)))
        }
    }

    /// Several matrices of one shape.
    pub(super) fn stack(&mut self, name: &str, wanted: Dims) -> Result<TensorSource, Refused> {
        let source = self.any(name)?;
        if dims(&source) == wanted { Ok(source) } else { Err(mis_shaped(&source, wanted)) }
    }

    /// A matrix of `rows` outputs and `cols` inputs.
    pub(super) fn matrix(
        &mut self,
        name: &str,
        rows: usize,
        cols: usize,
    ) -> Result<TensorSource, Refused> {
        self.stack(name, (1, rows, cols))
    }

    pub(super) fn optional_matrix(
        &mut self,
        name: &str,
        rows: usize,
        cols: usize,
    ) -> Result<Option<TensorSource>, Refused> {
        self.has(name).then(|| self.matrix(name, rows, cols)).transpose()
    }

    pub(super) fn vector(&mut self, name: &str, len: usize) -> Result<TensorSource, Refused> {
        self.matrix(name, 1, len)
    }

    pub(super) fn optional_vector(
        &mut self,
        name: &str,
        len: usize,
    ) -> Result<Option<TensorSource>, Refused> {
        self.optional_matrix(name, 1, len)
    }

    /// Refuses a file with tensors that nothing asked for although they mean something in the first
    /// `layers` layers. Whatever else is left over may lie there.
    pub(super) fn nothing_meaningful_left(&self, layers: usize) -> Result<(), Refused> {
        let names = self.all.keys().chain(self.unusable.keys());
        for name in names.filter(|n| !self.used.contains(n.as_str())) {
            if meaningful(name, layers) {
                let name = self.origins.tensor(name);
                return Err(Refused(format!("tensor {name} has no use in this architecture")));
            }
            tracing::debug!(tensor = shown(name), "left aside");
        }
        Ok(())
    }
}

fn meaningful(name: &str, layers: usize) -> bool {
    let Some((layer, part)) = name.strip_prefix("blk.").and_then(|n| n.split_once('.')) else {
        return GLOBAL_PARTS.contains(&name);
    };
    layer.parse::<usize>().is_ok_and(|l| l < layers) && LAYER_PARTS.contains(&part)
}
