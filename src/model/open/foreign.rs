//! A folder of a family that candle-transformers computes.

use super::plan::Plan;
use super::{LoadError, Opened, Survey, digest, end_tokens, limits};
use crate::backend::BLOCK_TOKENS;
use crate::backend::candle::Place;
use crate::config::{BackendConfig, EngineConfig, Quantize};
use crate::model::foreign::{self, Foreign};
use crate::model::load;

/// Loads it, and says what there is not.
pub(super) fn open(
    folder: load::Foreign,
    place: Place,
    backend: &BackendConfig,
    engine: &EngineConfig,
) -> Result<Opened, LoadError> {
    let path = folder.checkpoint.path.clone();
    load(folder, place, backend, engine).map_err(|reason| LoadError::new(&path, reason))
}

/// What it may take up.
pub(super) struct Room {
    max_context: usize,
    pub(super) memory: Plan,
}

/// Joins options and model: nothing is kept but the one sequence.
///
/// # Errors
/// One line that names the option which asks for more than there is.
pub(super) fn room(model: &foreign::Plan, engine: &EngineConfig) -> Result<Room, String> {
    let block_bytes = model.kv_block_bytes();
    let held = limits::cache_blocks(block_bytes, engine)?;
    let max_context = limits::max_context(model.context(), engine.max_model_len, held)?;
    let blocks = max_context.div_ceil(BLOCK_TOKENS);
    if blocks > held {
        return Err(format!(
            "--max-model-len {max_context} needs more than --kv-cache-memory, which holds {}",
            held * BLOCK_TOKENS
        ));
    }
    let memory = Plan::of_bytes(model.weight_bytes(), block_bytes, blocks);
    Ok(Room { max_context, memory })
}

/// # Errors
/// One line that names the option.
pub(super) fn check_quantize(
    folder: &load::Foreign,
    backend: &BackendConfig,
) -> Result<(), String> {
    if backend.quantize.is_some_and(|quantize| quantize != Quantize::None) {
        let family = &folder.family;
        return Err(format!(
            "--quantize: {family} runs through candle-transformers, which computes it in F32 only"
        ));
    }
    Ok(())
}

/// What is known of it before it is loaded.
///
/// # Errors
/// One line that names the option or the key.
pub(super) fn survey(
    folder: &load::Foreign,
    backend: &BackendConfig,
    engine: &EngineConfig,
    is_on_device: bool,
) -> Result<Survey, String> {
    check_quantize(folder, backend)?;
    let plan = foreign::Plan::of(folder)?;
    let Room { max_context, memory } = room(&plan, engine)?;
    Ok(Survey {
        arch: folder.family.clone(),
        quantization: "F32".to_owned(),
        file_bytes: folder.checkpoint.bytes,
        weights_bytes: memory.weights,
        kv_cache_bytes: memory.kv_cache,
        kv_block_bytes: plan.kv_block_bytes() as u64,
        kv_tokens: max_context.next_multiple_of(BLOCK_TOKENS),
        trained_context: plan.context(),
        max_context,
        is_on_device,
    })
}

fn load(
    folder: load::Foreign,
    place: Place,
    backend: &BackendConfig,
    engine: &EngineConfig,
) -> Result<Opened, String> {
    let family = folder.family.clone();
    check_quantize(&folder, backend)?;
    let plan = foreign::Plan::of(&folder)?;
    let ends = end_tokens(&folder.checkpoint.metadata).map_err(|e| e.to_string())?;
    let Room { max_context, memory } = room(&plan, engine)?;
    if place == Place::Cpu {
        memory.check(backend.memory_bytes)?;
    }
    tracing::warn!(
        "{family} has no description in Millrace: it runs through candle-transformers in F32, one sequence at a time \
         (others wait), without prefix cache or speculation"
    );
    let file_digest =
        digest(&folder.checkpoint.files).map_err(|e| format!("cannot be read: {e}"))?;
    let device = place.device().map_err(|e| e.to_string())?;
    let limits =
        foreign::Limits { max_context, max_rows: engine.max_num_batched_tokens, end_tokens: ends };
    let name =
        folder.checkpoint.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let model = Foreign::load(plan, device, super::device_name(place), limits);
    Ok(Opened {
        model: Box::new(model.map_err(|e| e.to_string())?),
        name,
        arch: family,
        file_digest,
        quantization: "F32".to_owned(),
        load_bytes: folder.checkpoint.bytes,
        metadata: folder.checkpoint.metadata,
        text: folder.checkpoint.text,
    })
}
