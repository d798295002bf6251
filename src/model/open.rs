//! From a model file and the configuration to a model that the engine can drive.

#[cfg(test)]
mod coded_tests;
mod foreign;
mod kept;
mod limits;
mod plan;
mod preview;
#[cfg(test)]
mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use super::arch::{Description, describe};
use super::decoder::{Decoder, Limits, Loaded, kv_block_bytes};
use super::load::gguf::{LoadError, Metadata};
use super::load::{Checkpoint, TextFiles, digest, end_tokens, open_foreign};
use super::{Model, foreign::NAMES, panic_text};
use crate::backend::candle::{CandleBackend, Place};
use crate::backend::cpu::{self, CpuBackend};
use crate::backend::{BLOCK_TOKENS, Backend, BackendError, Stored, TensorSource};
use crate::config::{BackendConfig, Device, EngineConfig, Kernels, Quantize};
#[cfg(test)]
pub(crate) use plan::BLOCK_BOOKKEEPING_BYTES;
use plan::Plan;
pub(crate) use preview::{NoPreview, Preview, Remote, preview};

/// A model that is ready to compute, and what the rest of the server must know of its file.
pub struct Opened {
    pub model: Box<dyn Model>,
    /// All of it: the tokenizer and the chat template of a GGUF are made from this.
    pub metadata: Metadata,
    /// What they are made from if the model is a folder.
    pub text: Option<TextFiles>,
    /// `general.name`, else the name of the file without its ending, or of the folder.
    pub name: String,
    /// `general.architecture`, such as `llama`.
    pub arch: String,
    /// Hexadecimal; equal files give equal digests. For fingerprints, not a check of integrity.
    pub file_digest: String,
    /// Such as `Q4_K_M`.
    pub quantization: String,
    /// Size of the file.
    pub load_bytes: u64,
}

/// Opens a GGUF file or a folder with safetensors on the backend that the configuration asks for.
///
/// # Errors
/// One line that names the file and the tensor or key in it, or the option that cannot be met.
pub fn open(
    path: &Path,
    backend: &BackendConfig,
    engine: &EngineConfig,
) -> Result<Opened, LoadError> {
    open_telling(path, backend, engine, &|_, _| {})
}

/// Is told, by several threads, how many bytes of how many are loaded.
pub type Progress<'a> = &'a (dyn Fn(u64, u64) + Sync);

/// As [`open`], telling `progress` of it.
///
/// # Errors
/// The same.
pub fn open_telling(
    path: &Path,
    backend: &BackendConfig,
    engine: &EngineConfig,
    progress: Progress<'_>,
) -> Result<Opened, LoadError> {
    unpanicked(path, || open_checked(path, backend, engine, progress))
}

fn open_checked(
    path: &Path,
    backend: &BackendConfig,
    engine: &EngineConfig,
    progress: Progress<'_>,
) -> Result<Opened, LoadError> {
    let refuse = |reason: String| LoadError::new(path, reason);
    let maker = Maker::choose(backend).map_err(refuse)?;
    if let Some(folder) = open_foreign(path, &NAMES)? {
        return foreign::open(folder, maker.place(), backend, engine);
    }
    let quantize = backend.quantize.unwrap_or(maker.quantize());
    let checkpoint = Checkpoint::open(path, quantize)?;
    let (description, limits) = examine(&checkpoint, engine)?;
    if maker.is_on_cpu() {
        let plan = Plan::of(&checkpoint, &description, engine, limits.blocks, maker);
        plan.check(backend.memory_bytes).map_err(refuse)?;
    }
    if let Some(line) = kept::kept_as_others(&checkpoint.tensors, maker) {
        tracing::warn!("{line}");
    }
    let file_digest =
        digest(&checkpoint.files).map_err(|e| refuse(format!("cannot be read: {e}")))?;
    let (done, total) =
        (AtomicU64::new(0), checkpoint.tensors.values().map(|t| t.byte_len() as u64).sum());
    let loaded = |bytes| progress(done.fetch_add(bytes, Ordering::Relaxed) + bytes, total);
    let model = maker.load(&description, limits, &loaded).map_err(|e| refuse(e.to_string()))?;
    Ok(Opened {
        model,
        name: name(&checkpoint),
        arch: description.architecture.to_owned(),
        file_digest,
        quantization: quantization(&checkpoint),
        load_bytes: checkpoint.bytes,
        metadata: checkpoint.metadata,
        text: checkpoint.text,
    })
}

/// What a model is and would take up, told by its header alone.
pub(crate) struct Survey {
    pub(crate) arch: String,
    pub(crate) quantization: String,
    pub(crate) file_bytes: u64,
    pub(crate) weights_bytes: u64,
    pub(crate) kv_cache_bytes: u64,
    pub(crate) kv_block_bytes: u64,
    /// That the cache holds.
    pub(crate) kv_tokens: usize,
    /// That the model was trained for.
    pub(crate) trained_context: usize,
    /// Of one sequence, as the options, model and memory leave it.
    pub(crate) max_context: usize,
    /// Its memory is not the machine's.
    pub(crate) is_on_device: bool,
}

/// Looks at a model without loading it.
///
/// # Errors
/// Those of [`open`] that need no weights, except for too little memory.
pub(crate) fn survey(
    path: &Path,
    backend: &BackendConfig,
    engine: &EngineConfig,
) -> Result<Survey, LoadError> {
    let look = || {
        let maker = Maker::choose(backend).map_err(|reason| LoadError::new(path, reason))?;
        if let Some(folder) = open_foreign(path, &NAMES)? {
            let survey = foreign::survey(&folder, backend, engine, !maker.is_on_cpu());
            return survey.map_err(|reason| LoadError::new(path, reason));
        }
        let quantize = backend.quantize.unwrap_or(maker.quantize());
        let checkpoint = Checkpoint::open(path, quantize)?;
        let (description, limits) = examine(&checkpoint, engine)?;
        let plan = Plan::of(&checkpoint, &description, engine, limits.blocks, maker);
        Ok(Survey {
            arch: description.architecture.to_owned(),
            quantization: quantization(&checkpoint),
            file_bytes: checkpoint.bytes,
            weights_bytes: plan.weights,
            kv_cache_bytes: plan.kv_cache,
            kv_block_bytes: kv_block_bytes(&description.shape, limits.kv_dtype) as u64,
            kv_tokens: limits.blocks.saturating_mul(BLOCK_TOKENS),
            trained_context: description.context,
            max_context: limits.max_context,
            is_on_device: !maker.is_on_cpu(),
        })
    };
    unpanicked(path, look)
}

/// Everything that comes from the file is checked before it is used. Should a check be missing here or in a library, it
/// still ends in one line.
fn unpanicked<T>(path: &Path, work: impl FnOnce() -> Result<T, LoadError>) -> Result<T, LoadError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        Err(LoadError::new(path, format!("loading failed: {}", panic_text(panic.as_ref()))))
    })
}

/// What the header alone tells: what the model is, and what it may take up. No weight was read.
pub(crate) fn examine(
    checkpoint: &Checkpoint,
    engine: &EngineConfig,
) -> Result<(Description, Limits), LoadError> {
    let refuse = |reason: String| LoadError::new(&checkpoint.path, reason);
    let (description, ends) = understand(checkpoint).map_err(refuse)?;
    let limits = limits::limits(&description, engine, ends).map_err(refuse)?;
    Ok((description, limits))
}

/// What the model is whatever the options say, and the tokens that end its answers.
fn understand(checkpoint: &Checkpoint) -> Result<(Description, Vec<u32>), String> {
    let description = describe(&checkpoint.metadata, &checkpoint.tensors, &checkpoint.unusable)
        .map_err(|e| e.to_string())?;
    let ends = end_tokens(&checkpoint.metadata).map_err(|e| e.to_string())?;
    check_vocabulary(&checkpoint.metadata, &description)?;
    Ok((description, ends))
}

/// Every token that the tokenizer can make must have a row in the embedding.
fn check_vocabulary(metadata: &Metadata, description: &Description) -> Result<(), String> {
    let tokens = metadata.opt_strings("tokenizer.ggml.tokens").map_err(|e| e.to_string())?;
    let (tokens, rows) = (tokens.map_or(0, <[_]>::len), description.shape.vocab);
    if tokens > rows {
        return Err(format!(
            "tokenizer.ggml.tokens has {tokens} entries, tensor token_embd.weight only {rows} rows"
        ));
    }
    Ok(())
}

/// `general.name` where it is a name, else that of the file.
fn name(checkpoint: &Checkpoint) -> String {
    let named = checkpoint.metadata.opt_str("general.name").ok().flatten().map(str::trim);
    match named.filter(|n| !n.is_empty() && !n.chars().any(char::is_control)) {
        Some(name) => name.to_owned(),
        None => checkpoint.path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
    }
}

/// Which backend makes the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Maker {
    /// Our own kernels, of this tier, on so many threads.
    Cpu(Kernels, Option<usize>),
    Candle(Place),
}

impl Maker {
    /// Holds the options against each other and against this build.
    fn choose(config: &BackendConfig) -> Result<Self, String> {
        let kernels = config.kernels;
        let place = match config.device {
            Device::Cpu => Place::Cpu,
            Device::Cuda => Place::Cuda,
            Device::Metal => Place::Metal,
            Device::Auto if !matches!(kernels, Kernels::Auto | Kernels::Candle) => Place::Cpu,
            Device::Auto => first_device(),
        };
        if !place.built_in() {
            let name = device_name(place);
            return Err(format!(
                "--device {name}: this build has no {name} support; take --device cpu, or build with --features {name}"
            ));
        }
        match (place, kernels) {
            (_, Kernels::Candle) => Ok(Self::Candle(place)),
            (Place::Cpu, _) => match cpu::check_kernels(kernels) {
                Ok(()) => Ok(Self::Cpu(kernels, config.threads)),
                Err(e) => {
                    Err(format!("--kernels {}: {e}; take --kernels auto", kernels_name(kernels)))
                }
            },
            (_, Kernels::Auto) => Ok(Self::Candle(place)),
            (_, _) => Err(format!(
                "--kernels {} are for the CPU, not for --device {}: leave one of them at auto",
                kernels_name(kernels),
                device_name(place)
            )),
        }
    }

    fn place(self) -> Place {
        match self {
            Self::Cpu(..) => Place::Cpu,
            Self::Candle(place) => place,
        }
    }

    fn is_on_cpu(self) -> bool {
        self.place() == Place::Cpu
    }

    /// Bytes of memory that a tensor takes.
    fn bytes_of(self, tensor: &TensorSource) -> u64 {
        match self {
            Self::Cpu(..) => cpu::packed_bytes(tensor),
            Self::Candle(_) => tensor.byte_len() as u64,
        }
    }

    /// How the type is called that a tensor is kept in.
    fn kept_as(self, tensor: &TensorSource) -> &'static str {
        match self {
            Self::Cpu(..) => cpu::packed_as(tensor),
            Self::Candle(_) => tensor.kind.label(),
        }
    }

    /// What becomes of float matrices unless an option says otherwise: a device has the bandwidth for them as they are.
    fn quantize(self) -> Quantize {
        if self.is_on_cpu() { Quantize::Q8_0 } else { Quantize::None }
    }

    fn load(
        self,
        description: &Description,
        limits: Limits,
        loaded: Loaded<'_>,
    ) -> Result<Box<dyn Model>, BackendError> {
        match self {
            Self::Cpu(kernels, threads) => {
                boxed(CpuBackend::new(threads, kernels)?, description, limits, loaded)
            }
            Self::Candle(place) => boxed(CandleBackend::new(place)?, description, limits, loaded),
        }
    }
}

fn boxed<B: Backend>(
    backend: B,
    description: &Description,
    limits: Limits,
    loaded: Loaded<'_>,
) -> Result<Box<dyn Model>, BackendError>
where
    B::Linear: 'static,
    B::Vector: 'static,
{
    Ok(Box::new(Decoder::load_telling(backend, description, limits, loaded)?))
}

/// Says whether the options ask for something that this build and machine can do, before any file is
/// opened.
///
/// # Errors
/// One line that names the option.
pub fn check_backend(config: &BackendConfig) -> Result<(), String> {
    Maker::choose(config).map(|_| ())
}

/// The first accelerator that is built in and there, else the CPU.
fn first_device() -> Place {
    let there = |place: &Place| place.built_in() && CandleBackend::new(*place).is_ok();
    [Place::Cuda, Place::Metal].into_iter().find(there).unwrap_or(Place::Cpu)
}

fn device_name(place: Place) -> &'static str {
    match place {
        Place::Cpu => "cpu",
        Place::Cuda => "cuda",
        Place::Metal => "metal",
    }
}

fn kernels_name(kernels: Kernels) -> &'static str {
    match kernels {
        Kernels::Auto => "auto",
        Kernels::Avx512 => "avx512",
        Kernels::AvxVnni => "avxvnni",
        Kernels::Avx2 => "avx2",
        Kernels::Neon => "neon",
        Kernels::Scalar => "scalar",
        Kernels::Candle => "candle",
    }
}

/// The name of `general.file_type` (`enum llama_ftype`), else of the type that most bytes have.
fn quantization(checkpoint: &Checkpoint) -> String {
    let Checkpoint { metadata, tensors, .. } = checkpoint;
    let named = match metadata.opt_u32("general.file_type").ok().flatten() {
        Some(0) => "F32",
        Some(1) => "F16",
        Some(2) => "Q4_0",
        Some(3) => "Q4_1",
        Some(7) => "Q8_0",
        Some(8) => "Q5_0",
        Some(9) => "Q5_1",
        Some(10) => "Q2_K",
        Some(11) => "Q3_K_S",
        Some(12) => "Q3_K_M",
        Some(13) => "Q3_K_L",
        Some(14) => "Q4_K_S",
        Some(15) => "Q4_K_M",
        Some(16) => "Q5_K_S",
        Some(17) => "Q5_K_M",
        Some(18) => "Q6_K",
        Some(19) => "IQ2_XXS",
        Some(20) => "IQ2_XS",
        Some(21) => "Q2_K_S",
        Some(22) => "IQ3_XS",
        Some(23) => "IQ3_XXS",
        Some(24) => "IQ1_S",
        Some(25) => "IQ4_NL",
        Some(26) => "IQ3_S",
        Some(27) => "IQ3_M",
        Some(28) => "IQ2_S",
        Some(29) => "IQ2_M",
        Some(30) => "IQ4_XS",
        Some(31) => "IQ1_M",
        Some(32) => "BF16",
        Some(36) => "TQ1_0",
        Some(37) => "TQ2_0",
        Some(38) => "MXFP4",
        Some(39) => "NVFP4",
        Some(40) => "Q1_0",
        Some(41) => "Q2_0",
        _ => "",
    };
    if !named.is_empty() {
        return named.to_owned();
    }
    // A folder's matrices are named by what was made of them, a file's codes by their own names.
    let of = |tensor: &TensorSource| match tensor.stored {
        Stored::Block(_) => tensor.kind.into(),
        coded @ Stored::Coded(_) => coded,
    };
    let bytes_of = |stored| {
        tensors.values().filter(|t| of(t) == stored).map(|t| t.byte_len() as u64).sum::<u64>()
    };
    let most = Stored::all().max_by_key(|&stored| bytes_of(stored));
    most.map_or("unknown", Stored::label).to_owned()
}
