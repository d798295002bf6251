//! What the answers of all generating endpoints have in common on the wire.

/// An answer, or one chunk of it: OpenAI gives both the same shape.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct AnswerBody<'a, C> {
    pub id: &'a str,
    pub object: &'static str,
    /// Wall clock, seconds since 1970.
    pub created: u64,
    pub model: &'a str,
    pub choices: &'a [C],
    pub system_fingerprint: &'a str,
    #[serde(skip_serializing_if = "UsageField::is_absent")]
    #[schema(value_type = Option<Usage>)]
    pub usage: UsageField,
}

/// `usage`, which a stream has only if it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(untagged)]
pub enum UsageField {
    Absent,
    /// Not yet: a chunk before the last.
    Null,
    Tokens(Usage),
}

impl UsageField {
    fn is_absent(&self) -> bool {
        *self == Self::Absent
    }
}

/// Tokens of a whole request: every prompt once, every choice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct Usage {
    pub prompt_tokens: usize,
    pub completion_tokens: usize,
    pub total_tokens: usize,
    /// Not known while the answer is on its way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_tokens_details: Option<PromptTokensDetails>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct PromptTokensDetails {
    /// Taken from the prefix cache.
    pub cached_tokens: usize,
}
