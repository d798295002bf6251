//! How long, how many, how much: what the options, the model and the memory leave of each other.

use crate::backend::{BLOCK_TOKENS, BlockId};
use crate::config::EngineConfig;
use crate::model::arch::Description;
use crate::model::decoder::{Limits, kv_block_bytes};

/// Tokens of a step unless an option says otherwise: one long prompt must not stall the streams.
const DEFAULT_STEP_TOKENS: usize = 256;
/// What the logits of a step may take, where the vocabulary is large.
const LOGITS_BYTES: usize = 64 << 20;

/// Joins options and model. `end_tokens` are passed on.
///
/// # Errors
/// One line that names the option which asks for more than there is.
pub(super) fn limits(
    description: &Description,
    engine: &EngineConfig,
    end_tokens: Vec<u32>,
) -> Result<Limits, String> {
    let block_bytes = kv_block_bytes(&description.shape, engine.kv_cache_dtype);
    let blocks = cache_blocks(block_bytes, engine)?;
    let max_context = max_context(description.context, engine.max_model_len, blocks)?;
    let max_rows = engine
        .max_num_batched_tokens
        .unwrap_or_else(|| DEFAULT_STEP_TOKENS.max(engine.max_num_seqs))
        .max(1);
    let affordable = LOGITS_BYTES / (description.shape.vocab * size_of::<f32>());
    let max_logit_rows = affordable.max(engine.max_num_seqs).clamp(1, max_rows);
    Ok(Limits {
        max_rows,
        max_logit_rows,
        blocks,
        kv_dtype: engine.kv_cache_dtype,
        max_context,
        end_tokens,
    })
}

/// Blocks that the KV cache has.
pub(super) fn cache_blocks(block_bytes: usize, engine: &EngineConfig) -> Result<usize, String> {
    let blocks = engine.kv_cache_bytes / block_bytes as u64;
    if blocks == 0 {
        let bytes = engine.kv_cache_bytes;
        return Err(format!(
            "--kv-cache-memory of {bytes} bytes holds no block of {BLOCK_TOKENS} tokens, which \
             takes {block_bytes}: give it more, such as 512MiB"
        ));
    }
    Ok(blocks.min(BlockId::MAX.into()) as usize)
}

/// Longest sequence. Asked for, it stands even where the cache holds less: the engine refuses what
/// can never fit. Not asked for, it is what model and cache both bear.
pub(super) fn max_context(
    trained: usize,
    asked: Option<usize>,
    blocks: usize,
) -> Result<usize, String> {
    let held = blocks.saturating_mul(BLOCK_TOKENS);
    match asked {
        Some(0) => Err("--max-model-len is 0".to_owned()),
        Some(asked) if asked > trained => Err(format!(
            "--max-model-len {asked} is above the {trained} tokens that the model was trained for: take that or \
             less"
        )),
        Some(asked) => {
            if asked > held {
                tracing::warn!(
                    max_model_len = asked,
                    kv_cache_tokens = held,
                    "the KV cache is smaller than one full context"
                );
            }
            Ok(asked)
        }
        None if held < trained => {
            tracing::warn!(
                trained_tokens = trained,
                kv_cache_tokens = held,
                "contexts are cut to what the KV cache holds"
            );
            Ok(held)
        }
        None => Ok(trained),
    }
}
