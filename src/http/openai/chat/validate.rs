//! Bounds on everything a chat request can say. What comes out is all that the engine ever sees.

use super::conversation::Conversation;
use super::types::{KNOWN, LATER};
use crate::http::openai::error::ApiError;
use crate::http::openai::generation::fields::{Bounds, Shared};
use crate::http::openai::generation::{later, misspelt};
use crate::http::openai::json::{At, Fields};

/// Most alternatives reported for a token.
pub const TOP_LOGPROBS_MAX: i64 = 20;
/// A request within all bounds but the context's, which needs its messages as tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct Checked {
    pub shared: Shared,
    pub conversation: Conversation,
    /// `None`: the server's default.
    pub max_tokens: Option<usize>,
}

/// Checks every field but `model`. `default_max_tokens`: what holds where the request has no bound.
pub fn validate(
    fields: &Fields,
    bounds: Bounds,
    default_max_tokens: usize,
) -> Result<Checked, ApiError> {
    later::refuse(fields, LATER)?;
    misspelt::report(fields, KNOWN);
    let max_tokens = max_tokens(fields)?;
    let mut shared = Shared::check(fields, bounds, max_tokens.unwrap_or(default_max_tokens))?;
    shared.sampling.logprobs = logprobs(fields)?;
    let conversation = Conversation::check(fields)?;
    check_modalities(fields)?;
    Ok(Checked { shared, conversation, max_tokens })
}

/// `max_completion_tokens`, or the name that it had before.
fn max_tokens(fields: &Fields) -> Result<Option<usize>, ApiError> {
    // Any upper bound: the context's comes with the sentence that names its four numbers.
    match (fields.count("max_completion_tokens")?, fields.count("max_tokens")?) {
        (Some(new), Some(old)) if new != old => {
            let message =
                "Only one of 'max_completion_tokens' and 'max_tokens' is allowed - 'max_tokens'";
            Err(ApiError::invalid(message, "max_tokens"))
        }
        (new, old) => Ok(new.or(old)),
    }
}

/// Alternatives to report for each token; `Some(0)`: the token's own log-probability only.
fn logprobs(fields: &Fields) -> Result<Option<u32>, ApiError> {
    const NAME: &str = "top_logprobs";
    let on = fields.boolean("logprobs")?.unwrap_or(false);
    match fields.integer(NAME)? {
        Some(_) if !on => {
            let message = "Only allowed when 'logprobs' is true - 'top_logprobs'";
            Err(ApiError::invalid(message, NAME))
        }
        top => Ok(on.then(|| top.unwrap_or(0) as u32)),
    }
}

fn check_modalities(fields: &Fields) -> Result<(), ApiError> {
    if let Some(given) = fields.get("modalities") {
        for modality in At::field("modalities", given).items()? {
            if modality.text()? != "text" {
                return Err(modality.unsupported("This model answers with text only"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
