//! On whose account a request runs: how it is told apart in the engine, and what it costs its key.

use super::error::{ApiError, Limited, RateLimit};
use crate::engine::message::{Namespace, Priority};
use crate::http::Identity;
use crate::keys::{Reserved, Short};

/// One request's part of its key's limits.
#[derive(Debug)]
pub struct Account {
    pub namespace: Namespace,
    pub priority: Priority,
    /// Paid in advance; what is left at the end is given back.
    reserved: Option<Reserved>,
    prompt_tokens: u64,
}

impl Account {
    /// Pays for the prompts and for all tokens that may be generated, or says what is short.
    pub async fn open(
        identity: &Identity,
        (namespace, priority): (Namespace, i32),
        (prompt_tokens, new_tokens): (u64, u64),
    ) -> Result<Self, ApiError> {
        let meter = identity.key.as_ref().and_then(|key| key.limits.tokens.as_ref());
        let reserved = match meter {
            Some(meter) => {
                let refuse = |short| limited(Limited::Tokens, meter.limit().into(), short);
                let reserved = Reserved::take(meter, prompt_tokens + new_tokens).await;
                Some(reserved.map_err(refuse)?)
            }
            None => None,
        };
        Ok(Self {
            namespace,
            priority: Priority {
                request: priority,
                tenant: identity.key.as_ref().map_or(0, |key| key.priority),
            },
            reserved,
            prompt_tokens,
        })
    }

    /// The engine has taken the request: its prompts count from here on, whatever becomes of it.
    pub fn begin(&mut self) {
        self.spend(self.prompt_tokens);
    }

    /// A token was made.
    pub fn token(&mut self) {
        self.spend(1);
    }

    fn spend(&mut self, tokens: u64) {
        if let Some(reserved) = &mut self.reserved {
            reserved.spend(tokens);
        }
    }
}

/// The answer to who took more than a limit of his key allows.
pub(in crate::http) fn limited(what: Limited, limit: u64, short: Short) -> ApiError {
    let retry_after = match short {
        Short::For(wait) => Some(wait),
        Short::ForEver => None,
    };
    ApiError::RateLimited(RateLimit { what, limit, retry_after })
}
