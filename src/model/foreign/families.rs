//! Which families of candle-transformers are taken, and how each is built and fed.
//!
//! One is taken if its numbers are those of transformers (`tests/models`). These are not: `falcon` has GELU by tanh for the
//! exact one, and none of what came after its first models.

use candle_core::{Device, Result, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::{bigcode, glm4_new, lfm2, olmo, phi, stable_lm};

use super::settings::{Settings, SizeNames, Sizes};
use super::weights::Weights;

pub(super) struct Family {
    /// `model_type`
    pub(super) name: &'static str,
    sizes: SizeNames,
    /// Keys that must have this value (as JSON) or none: candle-transformers knows no other.
    only: &'static [(&'static str, &'static str)],
    /// How names of tensors end that may be there without a use.
    pub(super) aside: &'static [&'static str],
    /// A chunk of several tokens may follow others. Otherwise its mask, or its state, is that of a beginning.
    pub(super) chunks: bool,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Phi,
    StableLm,
    Olmo,
    Glm4,
    BigCode,
    Lfm2,
}

const SIZES: SizeNames = SizeNames {
    hidden: "hidden_size",
    heads: "num_attention_heads",
    kv_heads: "num_key_value_heads",
    layers: "num_hidden_layers",
    context: "max_position_embeddings",
};
/// Buffers of training, which some files have.
const ROTATION: &str = ".rotary_emb.inv_freq";
/// Positions of `GPTBigCode`, which builds a mask of all pairs of them.
const BIG_CODE_CONTEXT: usize = 1 << 14;

pub(super) const FAMILIES: [Family; 6] = [
    Family {
        name: "phi",
        sizes: SIZES,
        only: &[
            ("hidden_act", "\"gelu_new\""),
            ("qk_layernorm", "false"),
            ("tie_word_embeddings", "false"),
        ],
        aside: &[ROTATION],
        chunks: false,
        kind: Kind::Phi,
    },
    Family {
        name: "stablelm",
        sizes: SIZES,
        only: &[
            ("hidden_act", "\"silu\""),
            ("qk_layernorm", "false"),
            ("tie_word_embeddings", "false"),
            ("use_parallel_residual", "false"),
        ],
        aside: &[ROTATION],
        chunks: true,
        kind: Kind::StableLm,
    },
    Family {
        name: "olmo",
        sizes: SIZES,
        only: &[("hidden_act", "\"silu\"")],
        aside: &[ROTATION],
        chunks: true,
        kind: Kind::Olmo,
    },
    Family {
        name: "glm4",
        sizes: SIZES,
        only: &[("hidden_act", "\"silu\"")],
        aside: &[ROTATION],
        chunks: true,
        kind: Kind::Glm4,
    },
    Family {
        name: "gpt_bigcode",
        sizes: SizeNames {
            hidden: "n_embd",
            heads: "n_head",
            kv_heads: "",
            layers: "n_layer",
            context: "n_positions",
        },
        only: &[
            ("activation_function", "\"gelu_pytorch_tanh\""),
            ("multi_query", "true"),
            ("scale_attn_weights", "true"),
            ("add_cross_attention", "false"),
            ("tie_word_embeddings", "true"),
        ],
        // The head is the embedding.
        aside: &[".attn.bias", ".attn.masked_bias", "lm_head.weight"],
        chunks: true,
        kind: Kind::BigCode,
    },
    Family {
        name: "lfm2",
        sizes: SIZES,
        only: &[("conv_bias", "false")],
        aside: &[ROTATION],
        chunks: false,
        kind: Kind::Lfm2,
    },
];

impl Family {
    /// # Errors
    /// What the configuration says is not what is computed, or is impossible.
    pub(super) fn sizes(&self, settings: &Settings) -> std::result::Result<Sizes, String> {
        for (key, only) in self.only {
            settings.require(key, only)?;
        }
        let sizes = settings.sizes(&self.sizes)?;
        match self.kind {
            Kind::BigCode if sizes.context > BIG_CODE_CONTEXT => {
                Err(format!("config.json: n_positions is above {BIG_CODE_CONTEXT}"))
            }
            Kind::BigCode => Ok(Sizes { kv_heads: 1, ..sizes }),
            Kind::Lfm2 => {
                let types = lfm2_layers(settings, sizes.layers)?;
                let attends = |kind: &&lfm2::LayerType| **kind == lfm2::LayerType::FullAttention;
                Ok(Sizes { layers: types.iter().filter(attends).count(), ..sizes })
            }
            _ => Ok(sizes),
        }
    }

    /// The network as a function of where its weights come from, for sequences of up to `context` tokens.
    pub(super) fn builder(
        &self,
        mut settings: Settings,
        weights: &Weights,
        context: usize,
    ) -> std::result::Result<Builder, String> {
        if !matches!(self.kind, Kind::BigCode) {
            // Tables of rotations are as long as this.
            settings.set(self.sizes.context, context);
        }
        Ok(match self.kind {
            Kind::Phi => Builder::Phi(settings.parse()?),
            Kind::StableLm => {
                settings.set("use_cache", true);
                settings.set("use_flash_attn", false);
                Builder::StableLm(settings.parse()?)
            }
            Kind::Olmo => Builder::Olmo(settings.parse()?),
            Kind::Glm4 => Builder::Glm4(settings.parse()?),
            Kind::BigCode => Builder::BigCode(big_code(&settings)?),
            Kind::Lfm2 => {
                Builder::Lfm2(lfm2_config(&settings, weights, settings.layers(&self.sizes)?)?)
            }
        })
    }
}

/// Its keys are GPT-2's.
fn big_code(settings: &Settings) -> std::result::Result<BigCode, String> {
    #[derive(serde::Deserialize)]
    struct Own {
        vocab_size: usize,
        n_positions: usize,
        n_layer: usize,
        n_embd: usize,
        layer_norm_epsilon: f64,
        n_inner: Option<usize>,
        n_head: usize,
    }
    let own: Own = settings.parse()?;
    Ok(Box::new(move || bigcode::Config {
        vocab_size: own.vocab_size,
        max_position_embeddings: own.n_positions,
        num_hidden_layers: own.n_layer,
        hidden_size: own.n_embd,
        layer_norm_epsilon: own.layer_norm_epsilon,
        n_inner: own.n_inner,
        num_attention_heads: own.n_head,
        multi_query: true,
        use_cache: true,
    }))
}

/// Which layers attend: `layer_types`, or the older list of those that do.
fn lfm2_layers(
    settings: &Settings,
    layers: usize,
) -> std::result::Result<Vec<lfm2::LayerType>, String> {
    if let Some(types) = settings.get("layer_types") {
        let types: Vec<lfm2::LayerType> = serde_json::from_value(types.clone())
            .map_err(|_| "config.json: layer_types has one that is not supported".to_owned())?;
        if types.len() != layers {
            return Err("config.json: layer_types is not one for each layer".to_owned());
        }
        return Ok(types);
    }
    let attending = settings.get("full_attn_idxs").and_then(serde_json::Value::as_array);
    let attending = attending.ok_or("config.json: layer_types is missing")?;
    let attends = |layer: usize| attending.iter().any(|index| index.as_u64() == Some(layer as u64));
    Ok((0..layers)
        .map(|i| if attends(i) { lfm2::LayerType::FullAttention } else { lfm2::LayerType::Conv })
        .collect())
}

/// The width of the MLP is what the weights have: candle-transformers would compute another one than transformers for some.
fn lfm2_config(
    settings: &Settings,
    weights: &Weights,
    layers: usize,
) -> std::result::Result<lfm2::Config, String> {
    #[derive(serde::Deserialize)]
    struct Own {
        vocab_size: usize,
        hidden_size: usize,
        num_hidden_layers: usize,
        num_attention_heads: usize,
        num_key_value_heads: usize,
        norm_eps: f64,
        rope_theta: f32,
        max_position_embeddings: usize,
        #[serde(rename = "conv_L_cache")]
        conv_l_cache: usize,
    }
    let own: Own = settings.parse()?;
    let width = "model.layers.0.feed_forward.w1.weight";
    let said = settings.flag("tie_word_embeddings").or(settings.flag("tie_embedding"));
    Ok(lfm2::Config {
        intermediate_size: weights.rows(width).ok_or(format!("tensor {width} is missing"))?,
        layer_types: lfm2_layers(settings, layers)?,
        tie_embedding: said.unwrap_or(weights.rows("lm_head.weight").is_none()),
        vocab_size: own.vocab_size,
        hidden_size: own.hidden_size,
        num_hidden_layers: own.num_hidden_layers,
        num_attention_heads: own.num_attention_heads,
        num_key_value_heads: own.num_key_value_heads,
        norm_eps: own.norm_eps,
        rope_theta: own.rope_theta,
        max_position_embeddings: own.max_position_embeddings,
        conv_l_cache: own.conv_l_cache,
        conv_bias: false,
        bos_token_id: None,
        eos_token_id: None,
        use_flash_attn: false,
    })
}

/// Its configuration cannot be cloned.
type BigCode = Box<dyn Fn() -> bigcode::Config + Send>;

/// A configuration that a network can be built of, again and again.
pub(super) enum Builder {
    Phi(phi::Config),
    StableLm(stable_lm::Config),
    Olmo(olmo::Config),
    Glm4(glm4_new::Config),
    BigCode(BigCode),
    Lfm2(lfm2::Config),
}

/// A network of candle-transformers, with the keys and values of one sequence.
pub(super) enum Network {
    Phi(Box<phi::Model>),
    StableLm(Box<stable_lm::Model>),
    Olmo(Box<olmo::Model>),
    Glm4(Box<glm4_new::ModelForCausalLM>),
    BigCode(Box<bigcode::GPTBigCode>),
    /// With its state, and that of the beginning.
    Lfm2(Box<(lfm2::Model, lfm2::Cache, lfm2::Cache)>),
}

impl Builder {
    pub(super) fn build(&self, weights: VarBuilder<'static>, device: &Device) -> Result<Network> {
        Ok(match self {
            Self::Phi(config) => Network::Phi(phi::Model::new(config, weights)?.into()),
            Self::StableLm(config) => {
                Network::StableLm(stable_lm::Model::new(config, weights)?.into())
            }
            Self::Olmo(config) => Network::Olmo(olmo::Model::new(config, weights)?.into()),
            Self::Glm4(config) => {
                Network::Glm4(glm4_new::ModelForCausalLM::new(config, weights)?.into())
            }
            Self::BigCode(config) => {
                Network::BigCode(bigcode::GPTBigCode::load(weights, config())?.into())
            }
            Self::Lfm2(config) => {
                let cache = lfm2::Cache::new(true, weights.dtype(), config, device)?;
                let model = lfm2::Model::new(config, weights)?;
                Network::Lfm2(Box::new((model, cache.clone(), cache)))
            }
        })
    }
}

impl Network {
    /// Logits after the last of `tokens`, `[1, count]`, which stand at `start` and later.
    pub(super) fn forward(&mut self, tokens: &Tensor, start: usize) -> Result<Tensor> {
        match self {
            Self::Phi(model) => model.forward(tokens),
            Self::StableLm(model) => model.forward(tokens, start),
            Self::Olmo(model) => model.forward(tokens, start),
            Self::Glm4(model) => model.forward(tokens, start),
            Self::BigCode(model) => model.forward(tokens, start),
            Self::Lfm2(all) => {
                let (model, cache, _) = all.as_mut();
                model.forward(tokens, start, cache)
            }
        }
    }

    /// Forgets the sequence; `None`: it cannot, and must be built anew.
    pub(super) fn cleared(mut self) -> Option<Self> {
        match &mut self {
            Self::StableLm(_) | Self::BigCode(_) => return None,
            Self::Phi(model) => model.clear_kv_cache(),
            Self::Olmo(model) => model.clear_kv_cache(),
            Self::Glm4(model) => model.clear_kv_cache(),
            // With the masks of all lengths there were, which its own way to forget keeps.
            Self::Lfm2(all) => all.1 = all.2.clone(),
        }
        Some(self)
    }
}
