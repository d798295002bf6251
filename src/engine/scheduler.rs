//! Who gets how many tokens of the next step.

use crate::backend::BLOCK_TOKENS;

/// KV blocks that hold `tokens` tokens.
pub(super) fn blocks_needed(tokens: usize) -> usize {
    tokens.div_ceil(BLOCK_TOKENS)
}
