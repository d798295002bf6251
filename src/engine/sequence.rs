//! One choice of one request on its way through the engine.

use super::message::Choice;

/// Tokens of this choice that can ever stand in the KV cache. The last token that is generated is
/// never fed back, so it takes no place.
pub(super) fn tokens_at_most(choice: &Choice, max_context: usize) -> usize {
    let prompt = choice.prompt.len();
    let new = (choice.max_new_tokens as usize).min(max_context.saturating_sub(prompt));
    prompt + new.saturating_sub(1)
}
