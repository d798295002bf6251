//! Our own kernels for CPUs: packed weights, activations quantised by 32, paged attention, all in
//! registers reserved once. [`CpuBackend`] puts them together; no step allocates.
// Intrinsics are what this module is for. Their generic wrappers must vanish into functions compiled with the features that
// they need, and unaligned loads take pointers of any type.
#![allow(unsafe_code, clippy::inline_always, clippy::cast_ptr_alignment)]
// Views of memory are passed by value, like the borrows that they stand for.
#![allow(clippy::needless_pass_by_value)]

pub(crate) mod act;
mod attention;
#[doc(hidden)]
pub mod bench;
mod experts;
pub mod gemm;
mod input;
mod kv;
mod lanes;
mod ops;
pub(crate) mod pack;
mod plan;
pub mod pool;
pub mod quant;
mod registers;
mod rope;
mod rows;
mod step;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod vocab;

use experts::Routed;
use kv::KvCache;
use ops::Ops;
use plan::Plan;
use registers::Registers;
use rope::Angles;

use self::gemm::{Kernels, Tier};
pub use self::pack::{Packed, packed_as, packed_bytes};
use self::pool::Pool;
use crate::backend::{
    Attention, Backend, BackendError, Batch, Experts, LinearSource, LogitMap, Mlp, Post, Pre,
    QkNorm, Reserve, Rope, TensorSource,
};
use crate::config;

/// The CPU backend: a pool of threads, a tier of kernels, and the registers of a step.
pub struct CpuBackend {
    pool: Pool,
    kernels: Kernels,
    ops: &'static Ops,
    machine: Option<Machine>,
}

/// Who computes a phase, and with what.
struct Crew<'a> {
    pool: &'a mut Pool,
    kernels: Kernels,
    ops: &'static Ops,
}

/// What [`Backend::reserve`] makes room for.
struct Machine {
    plan: Plan,
    kv: KvCache,
    registers: Registers,
    routed: Routed,
    angles: Angles,
}

impl CpuBackend {
    /// A backend of `threads` threads (`None`: one a core) with the best tier that the machine has,
    /// or the one that `kernels` names.
    ///
    /// # Errors
    /// The machine lacks the tier that was named, or threads cannot be started.
    pub fn new(threads: Option<usize>, kernels: config::Kernels) -> Result<Self, BackendError> {
        let tier = choose(kernels)?;
        let threads = match threads {
            Some(n) => n.max(1),
            None => std::thread::available_parallelism().map_or(1, usize::from),
        };
        let pool = Pool::new(threads)
            .map_err(|e| BackendError::Device(format!("cannot start {threads} threads: {e}")))?;
        Ok(Self { pool, kernels: tier, ops: ops::of(tier.tier()), machine: None })
    }

    fn machine(&mut self) -> Result<(Crew<'_>, &mut Machine), BackendError> {
        let crew = Crew { pool: &mut self.pool, kernels: self.kernels, ops: self.ops };
        match &mut self.machine {
            Some(machine) => Ok((crew, machine)),
            None => Err(BackendError::Device("no room was reserved before the step".to_owned())),
        }
    }
}

/// Whether this processor has the tier that `kernels` names.
///
/// # Errors
/// Says what it lacks.
pub fn check_kernels(kernels: config::Kernels) -> Result<(), BackendError> {
    choose(kernels).map(|_| ())
}

fn choose(kernels: config::Kernels) -> Result<Kernels, BackendError> {
    let tier = match kernels {
        config::Kernels::Auto => Tier::detect(),
        config::Kernels::Scalar => Tier::Scalar,
        config::Kernels::Avx2 => Tier::Avx2,
        config::Kernels::AvxVnni => Tier::AvxVnni,
        config::Kernels::Avx512 => Tier::Avx512,
        other => {
            let reason = format!("{other:?} kernels are not built yet");
            return Err(BackendError::Device(reason.to_lowercase()));
        }
    };
    Kernels::new(tier).ok_or_else(|| {
        BackendError::Device(format!("this processor lacks what {} kernels need", tier.name()))
    })
}

impl Backend for CpuBackend {
    type Linear = Packed;
    type Vector = Vec<f32>;

    fn loading_threads(&self) -> usize {
        self.pool.threads()
    }

    fn load_linear(&self, source: &LinearSource) -> Result<Packed, BackendError> {
        Packed::load_with_bias(source)
    }

    fn load_vector(&self, parts: &[TensorSource]) -> Result<Vec<f32>, BackendError> {
        pack::load_vector(parts)
    }

    fn reserve(&mut self, plan: &Reserve) -> Result<(), BackendError> {
        if !plan.shape.head_dim.is_multiple_of(lanes::LANES) {
            return Err(BackendError::Device(format!(
                "heads of {} elements need the candle kernels: these take multiples of 16",
                plan.shape.head_dim
            )));
        }
        let threads = self.pool.threads();
        self.machine = Some(Machine {
            plan: Plan::reserve(plan, threads),
            kv: KvCache::reserve(plan)?,
            registers: Registers::reserve(plan, threads)?,
            routed: Routed::reserve(plan)?,
            angles: Angles::reserve(plan),
        });
        Ok(())
    }

    fn begin(&mut self, batch: &Batch<'_>) -> Result<(), BackendError> {
        let (_, machine) = self.machine()?;
        machine.plan.fill(batch);
        machine.angles.forget();
        Ok(())
    }

    fn embed(
        &mut self,
        table: &Packed,
        scale: f32,
        positions: Option<&Packed>,
    ) -> Result<(), BackendError> {
        let (crew, machine) = self.machine()?;
        machine.embed(crew, table, scale, positions);
        Ok(())
    }

    fn norm_qkv(&mut self, pre: Pre<'_, Vec<f32>>, w: &Packed) -> Result<(), BackendError> {
        let (crew, machine) = self.machine()?;
        machine.norm_qkv(crew, pre, w);
        Ok(())
    }

    fn rope_write_kv(
        &mut self,
        layer: usize,
        qk_norm: Option<QkNorm<'_, Vec<f32>>>,
        rope: &Rope,
    ) -> Result<(), BackendError> {
        let (crew, machine) = self.machine()?;
        machine.rope_write_kv(crew, layer, qk_norm, rope);
        Ok(())
    }

    fn attention(
        &mut self,
        attention: Attention,
        sinks: Option<&Vec<f32>>,
    ) -> Result<(), BackendError> {
        let (crew, machine) = self.machine()?;
        machine.attention(crew, attention, sinks.map(Vec::as_slice));
        Ok(())
    }

    fn project_add(&mut self, w: &Packed, post: Post<'_, Vec<f32>>) -> Result<(), BackendError> {
        let (crew, machine) = self.machine()?;
        machine.project_add(crew, w, post);
        Ok(())
    }

    fn mlp_add(&mut self, mlp: Mlp<'_, Self>) -> Result<(), BackendError> {
        let (crew, machine) = self.machine()?;
        machine.mlp_add(crew, &mlp);
        Ok(())
    }

    fn experts_add(&mut self, experts: Experts<'_, Self>) -> Result<(), BackendError> {
        let (crew, machine) = self.machine()?;
        machine.experts_add(crew, &experts);
        Ok(())
    }

    fn keep(&mut self) -> Result<(), BackendError> {
        let (_, machine) = self.machine()?;
        machine.registers.keep(machine.plan.rows());
        Ok(())
    }

    fn resume(&mut self) -> Result<(), BackendError> {
        let (_, machine) = self.machine()?;
        let is_kept = machine.registers.resume(machine.plan.rows());
        is_kept.then_some(()).ok_or_else(|| BackendError::Device("these rows were not kept".into()))
    }

    fn logits(
        &mut self,
        pre: Pre<'_, Vec<f32>>,
        head: &Packed,
        map: LogitMap,
    ) -> Result<&[f32], BackendError> {
        let (crew, machine) = self.machine()?;
        Ok(machine.logits(crew, pre, head, map))
    }

    fn recover(&mut self) {
        // Every step fills plan and registers anew, and the pool carries a panic over to the caller
        // only when all its threads are idle again. Blocks keep what complete steps wrote.
        if let Some(machine) = &mut self.machine {
            machine.plan.clear();
            machine.angles.forget();
        }
    }

    fn name(&self) -> String {
        format!("cpu/{}", self.kernels.tier().name())
    }
}
