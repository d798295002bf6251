//! From a checked chat to what the engine takes: rendered, tokenised, its schemas compiled.

use std::sync::Arc;

use super::calls::signature::Signatures;
use super::calls::{self, Form};
use super::tools::{Choice, Tools};
use super::validate::Checked;
use crate::http::openai::error::ApiError;
use crate::http::openai::generation::prepare::{Plan, Prepared, Tokens};
use crate::http::openai::{body, large};
use crate::text::Text;
use crate::text::grammar::Grammar;

/// What conversion needs to know of the server.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    pub text: Text,
    /// What the answer must be.
    pub grammar: Option<Arc<Grammar>>,
    /// JSON outside of tags is the answer that was asked for.
    pub calls_only_in_tags: bool,
    pub max_model_len: usize,
    pub default_max_tokens: usize,
}

/// Renders, tokenises, checks against the context, and deals out seeds and samples: away from the async
/// threads, which serve everybody.
pub(super) async fn prepare(
    checked: Checked,
    setting: Setting,
    seed: u64,
) -> Result<(Prepared, calls::Rules), ApiError> {
    let is_large = checked.conversation.bytes() > large::INLINE_MAX;
    let work = move || prepare_here(&checked, &setting, seed);
    if is_large { large::run(work).await? } else { body::blocking(work).await? }
}

/// [`prepare`] on this thread.
pub(super) fn prepare_here(
    checked: &Checked,
    setting: &Setting,
    seed: u64,
) -> Result<(Prepared, calls::Rules), ApiError> {
    let Checked { shared, conversation, max_tokens } = checked;
    let calls = call_rules(&conversation.tools, setting.calls_only_in_tags)?;
    let (ids, added_bos) = conversation.encode(&setting.text)?;
    let plan = Plan {
        shared,
        text: &setting.text,
        max_model_len: setting.max_model_len,
        max_tokens: (*max_tokens, setting.default_max_tokens),
        candidates: shared.n,
        echo: false,
        grammar: setting.grammar.as_deref(),
        seed,
        param: "messages",
    };
    Ok((plan.prepare(vec![Tokens { ids: ids.into(), added_bos }])?, calls))
}

/// What of the answer is a call.
fn call_rules(tools: &Tools, tags_only: bool) -> Result<calls::Rules, ApiError> {
    let callable = tools.callable().iter().map(|&at| &tools.functions[at]);
    let form = match tools.choice {
        Choice::Never => Form::Never,
        Choice::Auto(_) => Form::Free { tags_only },
        Choice::Required(_) | Choice::Named(_) => Form::Forced,
    };
    Ok(calls::Rules { signatures: Signatures::compile(callable)?, form, parallel: tools.parallel })
}
