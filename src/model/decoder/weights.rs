//! The weights of a decoder, and how they are loaded: by several threads, if the backend likes that.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::backend::{Backend, BackendError, TensorSource};
use crate::model::arch::{Description, LayerDescription};

/// What a step multiplies with.
pub(super) struct Weights<B: Backend> {
    pub(super) embedding: B::Linear,
    /// `None`: the embedding is the head.
    pub(super) head: Option<B::Linear>,
    pub(super) final_norm: B::Vector,
    pub(super) layers: Vec<Layer<B>>,
}

pub(super) struct Layer<B: Backend> {
    pub(super) rope: usize,
    pub(super) window: Option<usize>,
    pub(super) attention_norm: B::Vector,
    pub(super) qkv: B::Linear,
    pub(super) qkv_bias: Option<B::Vector>,
    pub(super) qk_norm: Option<[B::Vector; 2]>,
    pub(super) output: B::Linear,
    pub(super) post_attention_norm: Option<B::Vector>,
    pub(super) mlp_norm: B::Vector,
    pub(super) gate_up: B::Linear,
    pub(super) down: B::Linear,
    pub(super) post_mlp_norm: Option<B::Vector>,
}

/// Loads all of them. One thread begins with the embedding, often the largest by far, while the others
/// take layers as they come.
pub(super) fn load<B: Backend>(
    backend: &B,
    description: &Description,
) -> Result<Weights<B>, BackendError> {
    let d = description;
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
        let others: Vec<_> =
            (1..backend.loading_threads()).map(|_| scope.spawn(some_layers)).collect();
        let embedding = load_one(backend, &d.embedding)?;
        let head = d.head.as_ref().map(|h| load_one(backend, h)).transpose()?;
        let final_norm = load_vector(backend, &d.final_norm)?;
        let mut layers = some_layers()?;
        for other in others {
            layers.append(&mut other.join().unwrap_or_else(|panic| resume_unwind(panic))?);
        }
        layers.sort_by_key(|(index, _)| *index);
        let layers = layers.into_iter().map(|(_, layer)| layer).collect();
        Ok(Weights { embedding, head, final_norm, layers })
    })
}

fn load_one<B: Backend>(backend: &B, source: &TensorSource) -> Result<B::Linear, BackendError> {
    backend.load_linear(std::slice::from_ref(source))
}

fn load_vector<B: Backend>(backend: &B, source: &TensorSource) -> Result<B::Vector, BackendError> {
    backend.load_vector(std::slice::from_ref(source))
}

fn load_layer<B: Backend>(backend: &B, layer: &LayerDescription) -> Result<Layer<B>, BackendError> {
    let optional = |source: &Option<TensorSource>| {
        source.as_ref().map(|s| load_vector(backend, s)).transpose()
    };
    Ok(Layer {
        rope: layer.rope,
        window: layer.window,
        attention_norm: load_vector(backend, &layer.attention_norm)?,
        qkv: backend.load_linear(&layer.qkv)?,
        qkv_bias: layer.qkv_bias.as_ref().map(|b| backend.load_vector(b)).transpose()?,
        qk_norm: match &layer.qk_norm {
            Some([q, k]) => Some([load_vector(backend, q)?, load_vector(backend, k)?]),
            None => None,
        },
        output: load_one(backend, &layer.output)?,
        post_attention_norm: optional(&layer.post_attention_norm)?,
        mlp_norm: load_vector(backend, &layer.mlp_norm)?,
        gate_up: backend.load_linear(&layer.gate_up)?,
        down: load_one(backend, &layer.down)?,
        post_mlp_norm: optional(&layer.post_mlp_norm)?,
    })
}
