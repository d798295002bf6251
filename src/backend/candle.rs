//! The backend on candle's tensors: CUDA, Metal, and any CPU. On the CPU it is the reference that our
//! own kernels are measured against: it shares nothing with them but the model file.
//!
//! Simple before fast: a step runs operation by operation, and attention gathers the blocks of each
//! sequence. Matrix products choose their order by shape, so the bits of an answer may depend on what
//! else is in the batch (architecture invariant 7 does not hold here, as [`Backend`] says).
//!
//! candle brings its own threads: their number is `RAYON_NUM_THREADS`, not an option of ours.

mod cache;
mod mlp;
mod rotary;
mod weights;

use candle_core::{DType, Device, Tensor};
use candle_nn::ops;

use super::{
    Attention, Backend, BackendError, Batch, Experts, KvDtype, LinearSource, LogitMap, LogitRows,
    Mlp, Norm, Post, Pre, QkNorm, Reserve, Rope, TensorSource,
};
use cache::{Cache, Span};
use rotary::Rotary;
use weights::Linear;

/// Where candle computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Cpu,
    /// The first CUDA device.
    Cuda,
    /// The first Metal device.
    Metal,
}

impl Place {
    /// Whether this build can reach it.
    pub fn built_in(self) -> bool {
        match self {
            Self::Cpu => true,
            Self::Cuda => cfg!(feature = "cuda"),
            Self::Metal => cfg!(feature = "metal"),
        }
    }

    /// # Errors
    /// A device that this build cannot reach, or that is not there.
    pub fn device(self) -> Result<Device> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda => Device::new_cuda(0).map_err(failed),
            Self::Metal => Device::new_metal(0).map_err(failed),
        }
    }
}

/// See the module.
pub struct CandleBackend {
    device: Device,
    /// Weights are kept as f32 instead of in their blocks.
    exact: bool,
    name: &'static str,
    reserved: Option<Reserved>,
    step: Step,
    /// A stream that was put aside between two layers.
    kept: Option<Tensor>,
    /// What [`Backend::logits`] lends out.
    logits: Vec<f32>,
}

struct Reserved {
    plan: Reserve,
    cache: Cache,
}

/// The registers of a step, and where its rows belong.
#[derive(Default)]
struct Step {
    tokens: Vec<u32>,
    positions: Vec<u32>,
    spans: Vec<Span>,
    logit_rows: Vec<u32>,
    rotary: Rotary,
    x: Option<Tensor>,
    qkv: Option<Tensor>,
    q: Option<Tensor>,
    attn: Option<Tensor>,
}

type Result<T> = std::result::Result<T, BackendError>;

fn failed(e: impl std::fmt::Display) -> BackendError {
    BackendError::Device(e.to_string())
}

/// A register that an earlier operation of the step must have filled.
fn filled<'a, T>(register: Option<&'a T>, name: &str) -> Result<&'a T> {
    register.ok_or_else(|| BackendError::Device(format!("{name} is read before written")))
}

impl CandleBackend {
    /// # Errors
    /// A device that this build cannot reach, or that is not there.
    pub fn new(place: Place) -> Result<Self> {
        let device = place.device()?;
        let name = match place {
            Place::Cpu => "candle/cpu",
            Place::Cuda => "candle/cuda:0",
            Place::Metal => "candle/metal:0",
        };
        let (step, logits) = (Step::default(), Vec::new());
        Ok(Self { device, exact: false, name, reserved: None, step, kept: None, logits })
    }

    /// As [`Self::new`], with weights as f32. candle multiplies blocks by activations that it rounds to
    /// eight bits; this rounds nothing, at four to seven times the memory. It is what tests compare with.
    ///
    /// # Errors
    /// As for [`Self::new`].
    pub fn exact(place: Place) -> Result<Self> {
        Ok(Self { exact: true, ..Self::new(place)? })
    }

    fn reserved(&self) -> Result<&Reserved> {
        filled(self.reserved.as_ref(), "the KV cache")
    }

    fn norm(x: &Tensor, norm: Norm<'_, Tensor>) -> candle_core::Result<Tensor> {
        ops::rms_norm(&x.contiguous()?, norm.weight, norm.eps)
    }

    fn prepare(x: &Tensor, pre: Pre<'_, Tensor>) -> candle_core::Result<Tensor> {
        match pre {
            Pre::Nothing => x.contiguous(),
            Pre::Rms(norm) => Self::norm(x, norm),
            Pre::Layer(norm, bias) => {
                ops::layer_norm(&x.contiguous()?, norm.weight, bias, norm.eps)
            }
        }
    }

    /// `x += post(y)`
    fn add(&mut self, y: &Tensor, post: Post<'_, Tensor>) -> Result<()> {
        let x = filled(self.step.x.as_ref(), "x")?;
        let sum = || {
            let y = post.norm.map_or(Ok(y.clone()), |norm| Self::norm(y, norm))?;
            x + if post.scale == 1.0 { y } else { y.affine(post.scale.into(), 0.0)? }
        };
        self.step.x = Some(sum().map_err(failed)?);
        Ok(())
    }
}

impl Backend for CandleBackend {
    type Linear = Linear;
    type Vector = Tensor;

    fn load_linear(&self, source: &LinearSource) -> Result<Linear> {
        Linear::load(source, &self.device, self.exact)
    }

    fn load_vector(&self, parts: &[TensorSource]) -> Result<Tensor> {
        weights::load_vector(parts, &self.device)
    }

    fn reserve(&mut self, plan: &Reserve) -> Result<()> {
        let dtype = match plan.kv_dtype {
            KvDtype::F16 => DType::F16,
            KvDtype::F32 => DType::F32,
        };
        let cache = Cache::new(&plan.shape, plan.blocks, dtype, &self.device).map_err(failed)?;
        self.reserved = Some(Reserved { plan: *plan, cache });
        Ok(())
    }

    fn begin(&mut self, batch: &Batch<'_>) -> Result<()> {
        let mut step = Step::default();
        let mut positions = Vec::with_capacity(batch.rows());
        for slice in batch.slices {
            let first_row = step.tokens.len();
            let rows = slice.tokens.len();
            step.tokens.extend_from_slice(slice.tokens);
            positions.extend(slice.start..slice.start + rows);
            let (from, to) = (first_row as u32, (first_row + rows) as u32);
            match slice.logits {
                LogitRows::None => {}
                LogitRows::Last => step.logit_rows.extend((from..to).last()),
                LogitRows::All => step.logit_rows.extend(from..to),
            }
            if rows > 0 {
                let blocks = slice.blocks.to_vec();
                step.spans.push(Span { first_row, rows, start: slice.start, blocks });
            }
        }
        if step.tokens.is_empty() {
            return Err(failed("a step without tokens"));
        }
        let reserved = self.reserved.as_mut();
        let reserved = reserved.ok_or_else(|| failed("a step before the KV cache"))?;
        reserved.cache.begin(&step.spans).map_err(failed)?;
        step.positions = positions.iter().map(|&position| position as u32).collect();
        step.rotary = Rotary::new(positions);
        self.step = step;
        Ok(())
    }

    fn embed(&mut self, table: &Linear, scale: f32, positions: Option<&Linear>) -> Result<()> {
        let embed = || {
            let ids = Tensor::new(&self.step.tokens[..], &self.device)?;
            let x = table.rows(&ids)?.affine(scale.into(), 0.0)?;
            let Some(positions) = positions else { return Ok(x) };
            x + positions.rows(&Tensor::new(&self.step.positions[..], &self.device)?)?
        };
        self.step.x = Some(embed().map_err(failed)?);
        Ok(())
    }

    fn norm_qkv(&mut self, pre: Pre<'_, Tensor>, w: &Linear) -> Result<()> {
        let x = filled(self.step.x.as_ref(), "x")?;
        let qkv = Self::prepare(x, pre).and_then(|x| w.forward(&x)).map_err(failed)?;
        self.step.qkv = Some(qkv);
        Ok(())
    }

    fn rope_write_kv(
        &mut self,
        layer: usize,
        qk_norm: Option<QkNorm<'_, Tensor>>,
        rope: &Rope,
    ) -> Result<()> {
        let shape = self.reserved()?.plan.shape;
        let qkv = filled(self.step.qkv.as_ref(), "qkv")?;
        let (cos, sin) = self.step.rotary.tables(rope, &self.device).map_err(failed)?;
        let rows = self.step.tokens.len();
        let d = shape.head_dim;
        let (q_width, kv_width) = (shape.heads * d, shape.kv_heads * d);
        let part = |from, width: usize| {
            qkv.narrow(1, from, width)?.contiguous()?.reshape((rows, width / d, d))
        };
        let turned = |x: Tensor, norm: Option<Norm<'_, Tensor>>| {
            let shape = x.dims3()?;
            let x = match norm {
                None => x,
                Some(norm) => {
                    let parts = (rows, (), norm.weight.elem_count());
                    Self::norm(&x.reshape(parts)?, norm)?.reshape(shape)?
                }
            };
            rotary::apply(&x, rope, &cos, &sin)
        };
        let (q_norm, k_norm) = qk_norm.unzip();
        let split = || {
            let q = turned(part(0, q_width)?, q_norm)?;
            let k = turned(part(q_width, kv_width)?, k_norm)?;
            candle_core::Result::Ok((q, k, part(q_width + kv_width, kv_width)?))
        };
        let (q, k, v) = split().map_err(failed)?;
        self.reserved()?.cache.write(layer, &k, &v).map_err(failed)?;
        self.step.q = Some(q);
        Ok(())
    }

    fn attention(&mut self, attention: Attention, sinks: Option<&Tensor>) -> Result<()> {
        let q = filled(self.step.q.as_ref(), "q")?;
        let cache = &self.reserved()?.cache;
        let attn = cache.attend(q, &self.step.spans, &attention, sinks).map_err(failed)?;
        self.step.attn = Some(attn);
        Ok(())
    }

    fn project_add(&mut self, w: &Linear, post: Post<'_, Tensor>) -> Result<()> {
        let y = w.forward(filled(self.step.attn.as_ref(), "attn")?).map_err(failed)?;
        self.add(&y, post)
    }

    fn mlp_add(&mut self, mlp: Mlp<'_, Self>) -> Result<()> {
        let x = filled(self.step.x.as_ref(), "x")?;
        let compute = || mlp::mlp(&Self::prepare(x, mlp.pre)?, mlp.weights, mlp.activation);
        let y = compute().map_err(failed)?;
        self.add(&y, mlp.post)
    }

    fn experts_add(&mut self, experts: Experts<'_, Self>) -> Result<()> {
        let x = filled(self.step.x.as_ref(), "x")?;
        let compute = || mlp::experts(&Self::prepare(x, experts.pre)?, &experts);
        let y = compute().map_err(failed)?;
        self.add(&y, experts.post)
    }

    fn keep(&mut self) -> Result<()> {
        self.kept = self.step.x.take();
        Ok(())
    }

    fn resume(&mut self) -> Result<()> {
        let rows = self.step.tokens.len();
        let kept = self.kept.take().filter(|x| x.dims().first() == Some(&rows));
        self.step.x = Some(kept.ok_or_else(|| failed("these rows were not kept"))?);
        Ok(())
    }

    fn logits(&mut self, pre: Pre<'_, Tensor>, head: &Linear, map: LogitMap) -> Result<&[f32]> {
        self.logits.clear();
        if !self.step.logit_rows.is_empty() {
            let x = filled(self.step.x.as_ref(), "x")?;
            let compute = || {
                let rows = Tensor::new(&self.step.logit_rows[..], &self.device)?;
                let x = Self::prepare(&x.index_select(&rows, 0)?, pre)?;
                let mut logits = head.forward(&x)?;
                if map.scale != 1.0 {
                    logits = logits.affine(map.scale.into(), 0.0)?;
                }
                if let Some(cap) = map.softcap.map(f64::from) {
                    logits = ((logits / cap)?.tanh()? * cap)?;
                }
                logits.flatten_all()?.to_vec1::<f32>()
            };
            self.logits = compute().map_err(failed)?;
        }
        Ok(&self.logits)
    }

    fn recover(&mut self) {
        self.step = Step::default();
    }

    fn name(&self) -> String {
        self.name.to_owned()
    }
}
