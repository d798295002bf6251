//! One layer of a file: its tensors by name, each of the shape that the hyperparameters say.

use super::hyper::{Hyper, Sizes};
use super::tensors::Tensors;
use super::{
    Biases, Family, LayerDescription, MlpDescription, MlpSource, NormSource, QkNorm, Refused,
};
use crate::backend::{LinearSource, TensorSource};

/// Finds tensors of layers.
pub(super) struct Reader<'a, 't> {
    pub(super) family: &'a Family,
    pub(super) hyper: &'a Hyper<'a>,
    pub(super) sizes: Sizes,
    /// How many rotations there are: the second one is for layers that depart from the first.
    pub(super) ropes: usize,
    pub(super) tensors: &'a mut Tensors<'t>,
}

/// A product of the file: names of its tensors with their outputs, and its inputs.
struct Product<'n> {
    parts: &'n [(&'n str, usize)],
    inputs: usize,
}

impl Reader<'_, '_> {
    pub(super) fn layer(&mut self, index: usize) -> Result<LayerDescription, Refused> {
        let (family, shape) = (self.family, self.sizes.shape);
        let name = |part: &str| format!("blk.{index}.{part}");
        let window = self.hyper.window(family, index)?;
        let is_blind = family.no_rope_every.is_some_and(|n| (index + 1).is_multiple_of(n));
        let departs = self.ropes > 1 && (window.is_some() || is_blind);
        let width = shape.heads * shape.head_dim;
        Ok(LayerDescription {
            rope: usize::from(departs),
            window,
            attention_norm: self.pre_norm(&name("attn_norm"))?,
            qkv: self.qkv(&name)?,
            qk_norm: self.qk_norm(&name)?,
            sinks: self.vector_if(family.sinks, &name("attn_sinks.weight"), shape.heads)?,
            output: self.linear(&Product {
                parts: &[(&name("attn_output"), shape.hidden)],
                inputs: width,
            })?,
            post_attention_norm: self.post_norm(&name("post_attention_norm.weight"))?,
            mlp_norm: self.pre_norm(&name(family.mlp_norm))?,
            mlp: if shape.experts == 0 {
                MlpDescription::One(self.mlp(&name)?)
            } else {
                self.experts(&name)?
            },
            post_mlp_norm: self.post_norm(&name("post_ffw_norm.weight"))?,
        })
    }

    /// A norm of the stream.
    pub(super) fn norm(&mut self, name: &str) -> Result<NormSource, Refused> {
        let hidden = self.sizes.shape.hidden;
        let weight = self.tensors.vector(&format!("{name}.weight"), hidden)?;
        let bias = self.vector_if(self.family.layer_norms, &format!("{name}.bias"), hidden)?;
        Ok(NormSource { weight, bias })
    }

    fn pre_norm(&mut self, name: &str) -> Result<Option<NormSource>, Refused> {
        self.family.pre_norms.then(|| self.norm(name)).transpose()
    }

    fn post_norm(&mut self, name: &str) -> Result<Option<TensorSource>, Refused> {
        self.vector_if(self.family.post_norms, name, self.sizes.shape.hidden)
    }

    fn vector_if(
        &mut self,
        wanted: bool,
        name: &str,
        len: usize,
    ) -> Result<Option<TensorSource>, Refused> {
        wanted.then(|| self.tensors.vector(name, len)).transpose()
    }

    /// Three tensors, or one that is those three.
    fn qkv(&mut self, name: &dyn Fn(&str) -> String) -> Result<LinearSource, Refused> {
        let s = self.sizes.shape;
        let (q, kv) = (s.heads * s.head_dim, s.kv_heads * s.head_dim);
        let all = name("attn_qkv");
        let parts = if self.tensors.has(&format!("{all}.weight")) {
            &[(&all[..], q + 2 * kv)][..]
        } else {
            &[(&name("attn_q")[..], q), (&name("attn_k"), kv), (&name("attn_v"), kv)]
        };
        self.linear_with(&Product { parts, inputs: s.hidden }, self.family.biases != Biases::None)
    }

    fn qk_norm(
        &mut self,
        name: &dyn Fn(&str) -> String,
    ) -> Result<Option<[TensorSource; 2]>, Refused> {
        let s = self.sizes.shape;
        let (q, k) = match self.family.qk_norm {
            QkNorm::None => return Ok(None),
            QkNorm::EachHead => (1, 1),
            QkNorm::AllHeads => (s.heads, s.kv_heads),
        };
        Ok(Some([
            self.tensors.vector(&name("attn_q_norm.weight"), q * s.head_dim)?,
            self.tensors.vector(&name("attn_k_norm.weight"), k * s.head_dim)?,
        ]))
    }

    fn linear(&mut self, product: &Product<'_>) -> Result<LinearSource, Refused> {
        let has_biases = matches!(self.family.biases, Biases::All | Biases::Optional);
        self.linear_with(product, has_biases)
    }

    /// A product, with biases if the family has them there.
    fn linear_with(
        &mut self,
        product: &Product<'_>,
        has_biases: bool,
    ) -> Result<LinearSource, Refused> {
        let weights = product.parts.iter().map(|(name, outputs)| {
            self.tensors.matrix(&format!("{name}.weight"), *outputs, product.inputs)
        });
        let weights = weights.collect::<Result<_, _>>()?;
        let first = product.parts.first().map_or("", |(name, _)| *name);
        let is_there = self.tensors.has(&format!("{first}.bias"));
        let is_wanted = has_biases && (self.family.biases != Biases::Optional || is_there);
        let parts = if is_wanted { product.parts } else { &[] };
        let biases = parts
            .iter()
            .map(|(name, outputs)| self.tensors.vector(&format!("{name}.bias"), *outputs));
        Ok(LinearSource { weights, bias: biases.collect::<Result<_, _>>()? })
    }

    fn mlp(&mut self, name: &dyn Fn(&str) -> String) -> Result<MlpSource, Refused> {
        let s = self.sizes.shape;
        let up = if self.family.activation.inputs() == 1 {
            vec![(name("ffn_up"), s.mlp)]
        } else if self.family.fused_gate {
            vec![(name("ffn_up"), 2 * s.mlp)]
        } else {
            vec![(name("ffn_gate"), s.mlp), (name("ffn_up"), s.mlp)]
        };
        let up: Vec<_> = up.iter().map(|(name, outputs)| (&name[..], *outputs)).collect();
        Ok(MlpSource {
            up: self.linear(&Product { parts: &up, inputs: s.hidden })?,
            down: self
                .linear(&Product { parts: &[(&name("ffn_down"), s.hidden)], inputs: s.mlp })?,
        })
    }

    fn experts(&mut self, name: &dyn Fn(&str) -> String) -> Result<MlpDescription, Refused> {
        let s = self.sizes.shape;
        let width = self.sizes.expert;
        let router = self
            .linear(&Product { parts: &[(&name("ffn_gate_inp"), s.experts)], inputs: s.hidden })?;
        let up = self.expert_gates(name, width)?;
        let down = self.stack(&name("ffn_down_exps"), (s.hidden, width))?;
        Ok(MlpDescription::Experts {
            router,
            experts: up.into_iter().zip(down).map(|(up, down)| MlpSource { up, down }).collect(),
            shared: self.shared_expert(name)?,
        })
    }

    /// Gate and up of all experts, which are one tensor or two.
    fn expert_gates(
        &mut self,
        name: &dyn Fn(&str) -> String,
        width: usize,
    ) -> Result<Vec<LinearSource>, Refused> {
        let hidden = self.sizes.shape.hidden;
        let both = name("ffn_gate_up_exps");
        if self.tensors.has(&format!("{both}.weight")) {
            return self.stack(&both, (2 * width, hidden));
        }
        let gate = self.stack(&name("ffn_gate_exps"), (width, hidden))?;
        let up = self.stack(&name("ffn_up_exps"), (width, hidden))?;
        let stacked = gate.into_iter().zip(up).map(|(mut gate, up)| {
            gate.weights.extend(up.weights);
            gate.bias.extend(up.bias);
            gate
        });
        Ok(stacked.collect())
    }

    /// The products of all experts, which are one tensor.
    fn stack(
        &mut self,
        name: &str,
        (outputs, inputs): (usize, usize),
    ) -> Result<Vec<LinearSource>, Refused> {
        let count = self.sizes.shape.experts;
        if !self.tensors.has(&format!("{name}.weight")) {
            return self.apart(name, (outputs, inputs));
        }
        let weights = self.tensors.stack(&format!("{name}.weight"), (count, outputs, inputs))?;
        let bias = if self.family.biases == Biases::All {
            let all = self.tensors.matrix(&format!("{name}.bias"), count, outputs)?;
            // A vector for each.
            Some(TensorSource { matrices: count, rows: 1, ..all })
        } else {
            None
        };
        let one = |index| LinearSource {
            weights: vec![weights.matrix(index)],
            bias: bias.iter().map(|all| all.matrix(index)).collect(),
        };
        Ok((0..count).map(one).collect())
    }

    /// The same as tensors of their own: in folders, and in the first files of Mixtral.
    fn apart(
        &mut self,
        name: &str,
        (outputs, inputs): (usize, usize),
    ) -> Result<Vec<LinearSource>, Refused> {
        let stem = name.strip_suffix("_exps").unwrap_or(name);
        let one = |index| {
            let weight = self.tensors.matrix(&format!("{stem}.{index}.weight"), outputs, inputs);
            weight.map(LinearSource::from)
        };
        (0..self.sizes.shape.experts).map(one).collect()
    }

    fn shared_expert(
        &mut self,
        name: &dyn Fn(&str) -> String,
    ) -> Result<Option<(LinearSource, MlpSource)>, Refused> {
        let Some(width) = self.sizes.shared_expert else { return Ok(None) };
        let hidden = self.sizes.shape.hidden;
        let gate = self.tensors.vector(&name("ffn_gate_inp_shexp.weight"), hidden)?;
        let (gates, ups) = (name("ffn_gate_shexp"), name("ffn_up_shexp"));
        let up = Product { parts: &[(&gates, width), (&ups, width)], inputs: hidden };
        let mlp = MlpSource {
            up: self.linear(&up)?,
            down: self
                .linear(&Product { parts: &[(&name("ffn_down_shexp"), hidden)], inputs: width })?,
        };
        Ok(Some((gate.into(), mlp)))
    }
}
