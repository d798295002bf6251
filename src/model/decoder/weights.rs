//! The weights of a decoder, and how they are loaded: by several threads, if the backend likes that.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::Loaded;
use crate::backend::{
    Backend, BackendError, ExpertWeights, LinearSource, MlpWeights, Norm, Pre, SharedExpert,
    TensorSource,
};
use crate::model::arch::{Description, LayerDescription, MlpDescription, MlpSource, NormSource};

/// What a step multiplies with.
pub(super) struct Weights<B: Backend> {
    pub(super) embedding: B::Linear,
    pub(super) positions: Option<B::Linear>,
    /// `None`: the embedding is the head.
    pub(super) head: Option<B::Linear>,
    pub(super) final_norm: NormWeights<B>,
    pub(super) layers: Vec<Layer<B>>,
}

/// An RMS norm, or with a bias a `LayerNorm`.
pub(super) struct NormWeights<B: Backend> {
    weight: B::Vector,
    bias: Option<B::Vector>,
}

impl<B: Backend> NormWeights<B> {
    pub(super) fn pre(&self, eps: f32) -> Pre<'_, B::Vector> {
        let norm = Norm { weight: &self.weight, eps };
        self.bias.as_ref().map_or(Pre::Rms(norm), |bias| Pre::Layer(norm, bias))
    }
}

pub(super) struct Layer<B: Backend> {
    pub(super) rope: usize,
    pub(super) window: Option<usize>,
    pub(super) attention_norm: Option<NormWeights<B>>,
    pub(super) qkv: B::Linear,
    pub(super) qk_norm: Option<[B::Vector; 2]>,
    pub(super) sinks: Option<B::Vector>,
    pub(super) output: B::Linear,
    pub(super) post_attention_norm: Option<B::Vector>,
    pub(super) mlp_norm: Option<NormWeights<B>>,
    pub(super) mlp: LayerMlp<B>,
    pub(super) post_mlp_norm: Option<B::Vector>,
}

pub(super) enum LayerMlp<B: Backend> {
    One(MlpWeights<B::Linear>),
    Experts(ExpertWeights<B::Linear>),
}

/// Reads one thing after another and tells how much it has read.
struct Loader<'a, B> {
    backend: &'a B,
    loaded: Loaded<'a>,
}

impl<B: Backend> Loader<'_, B> {
    fn load_linear(&self, source: &LinearSource) -> Result<B::Linear, BackendError> {
        let linear = self.backend.load_linear(source)?;
        let parts = source.weights.iter().chain(&source.bias);
        (self.loaded)(parts.map(|part| part.byte_len() as u64).sum());
        Ok(linear)
    }

    fn load_vector(&self, parts: &[TensorSource]) -> Result<B::Vector, BackendError> {
        let vector = self.backend.load_vector(parts)?;
        (self.loaded)(parts.iter().map(|part| part.byte_len() as u64).sum());
        Ok(vector)
    }
}

/// Loads all of them. One thread begins with the embedding, often the largest by far, while the others
/// take layers as they come.
pub(super) fn load<B: Backend>(
    backend: &B,
    description: &Description,
    loaded: Loaded<'_>,
) -> Result<Weights<B>, BackendError> {
    let d = description;
    let threads = backend.loading_threads();
    let backend = &Loader { backend, loaded };
    let next = AtomicUsize::new(0);
    let some_layers = || {
        let mut loaded = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(layer) = d.layers.get(index) else { return Ok(loaded) };
            loaded.push((index, load_layer(backend, layer)?));
        }
    };
    thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(some_layers)).collect();
        let embedding = load_one(backend, &d.embedding)?;
        let positions = d.positions.as_ref().map(|p| load_one(backend, p)).transpose()?;
        let head = d.head.as_ref().map(|h| load_one(backend, h)).transpose()?;
        let final_norm = load_norm(backend, &d.final_norm)?;
        let mut layers = some_layers()?;
        for other in others {
            layers.append(&mut other.join().unwrap_or_else(|panic| resume_unwind(panic))?);
        }
        layers.sort_by_key(|(index, _)| *index);
        let layers = layers.into_iter().map(|(_, layer)| layer).collect();
        Ok(Weights { embedding, positions, head, final_norm, layers })
    })
}

fn load_one<B: Backend>(
    backend: &Loader<'_, B>,
    source: &TensorSource,
) -> Result<B::Linear, BackendError> {
    backend.load_linear(&source.clone().into())
}

fn load_vector<B: Backend>(
    backend: &Loader<'_, B>,
    source: &TensorSource,
) -> Result<B::Vector, BackendError> {
    backend.load_vector(std::slice::from_ref(source))
}

fn load_norm<B: Backend>(
    backend: &Loader<'_, B>,
    source: &NormSource,
) -> Result<NormWeights<B>, BackendError> {
    Ok(NormWeights {
        weight: load_vector(backend, &source.weight)?,
        bias: source.bias.as_ref().map(|bias| load_vector(backend, bias)).transpose()?,
    })
}

fn load_layer<B: Backend>(
    backend: &Loader<'_, B>,
    layer: &LayerDescription,
) -> Result<Layer<B>, BackendError> {
    let vector = |source: &Option<TensorSource>| {
        source.as_ref().map(|s| load_vector(backend, s)).transpose()
    };
    let norm =
        |source: &Option<NormSource>| source.as_ref().map(|s| load_norm(backend, s)).transpose();
    Ok(Layer {
        rope: layer.rope,
        window: layer.window,
        attention_norm: norm(&layer.attention_norm)?,
        qkv: backend.load_linear(&layer.qkv)?,
        qk_norm: match &layer.qk_norm {
            Some([q, k]) => Some([load_vector(backend, q)?, load_vector(backend, k)?]),
            None => None,
        },
        sinks: vector(&layer.sinks)?,
        output: backend.load_linear(&layer.output)?,
        post_attention_norm: vector(&layer.post_attention_norm)?,
        mlp_norm: norm(&layer.mlp_norm)?,
        mlp: load_mlps(backend, &layer.mlp)?,
        post_mlp_norm: vector(&layer.post_mlp_norm)?,
    })
}

fn load_mlps<B: Backend>(
    backend: &Loader<'_, B>,
    source: &MlpDescription,
) -> Result<LayerMlp<B>, BackendError> {
    let one = |source: &MlpSource| {
        Ok(MlpWeights {
            up: backend.load_linear(&source.up)?,
            down: backend.load_linear(&source.down)?,
        })
    };
    Ok(match source {
        MlpDescription::One(source) => LayerMlp::One(one(source)?),
        MlpDescription::Experts { router, experts, shared } => LayerMlp::Experts(ExpertWeights {
            router: backend.load_linear(router)?,
            experts: experts.iter().map(one).collect::<Result<_, _>>()?,
            shared: match shared {
                Some((gate, mlp)) => {
                    Some(SharedExpert { gate: backend.load_linear(gate)?, mlp: one(mlp)? })
                }
                None => None,
            },
        }),
    })
}
