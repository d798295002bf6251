//! What vLLM tells beside OpenAI's fields, in the choices of every endpoint: where it was asked for.

use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::assemble::{Delta, PromptLogprobs, Rules};
use crate::engine::message::{LOGPROB_MIN, Logprobs, TokenId};

#[derive(Debug, Clone, Default, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Extras {
    /// One entry a prompt token, null first; in a stream the next few.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_logprobs: Option<Vec<Option<ScoreBody>>>,
    /// What was generated; in a stream since the last chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<u32>>)]
    pub token_ids: Option<Vec<TokenId>>,
    /// In a stream with the first chunk of a choice.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "ids")]
    #[schema(value_type = Option<Vec<u32>>)]
    pub prompt_token_ids: Option<Arc<[TokenId]>>,
}

/// A prompt token and the most probable ones at its place: an object by id, the token itself first.
#[derive(Debug, Clone, PartialEq, utoipa::ToSchema)]
#[schema(as = Scores, value_type = std::collections::BTreeMap<String, ScoreEntry>)]
pub struct ScoreBody(pub Vec<(TokenId, ScoreEntry)>);

#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
#[schema(as = Score)]
pub struct ScoreEntry {
    pub logprob: f32,
    /// Place in the order of the whole vocabulary, from 1 on.
    pub rank: u32,
    pub decoded_token: String,
}

impl Extras {
    /// Takes them out of what was generated.
    pub fn take(rules: &Rules, delta: &mut Delta) -> Self {
        let prompt = std::mem::take(&mut delta.prompt_logprobs);
        let token_ids = std::mem::take(&mut delta.token_ids);
        Self {
            prompt_logprobs: rules.prompt_logprobs.map(|_| scores(rules, prompt)),
            token_ids: rules.return_token_ids.then_some(token_ids),
            prompt_token_ids: delta.prompt_token_ids.take(),
        }
    }
}

impl Serialize for ScoreBody {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(id, entry)| (id, entry)))
    }
}

#[expect(clippy::ref_option, reason = "the signature that serde calls")]
fn ids<S: Serializer>(ids: &Option<Arc<[TokenId]>>, serializer: S) -> Result<S::Ok, S::Error> {
    ids.as_deref().serialize(serializer)
}

fn scores(rules: &Rules, prompt: PromptLogprobs) -> Vec<Option<ScoreBody>> {
    let entry = |id, logprob: f32, rank| {
        (id, ScoreEntry { logprob: logprob.max(LOGPROB_MIN), rank, decoded_token: rules.label(id) })
    };
    let score = |(token, logprobs): (TokenId, Option<Logprobs>)| {
        let Logprobs { own, rank, top } = logprobs?;
        let others = top.into_iter().zip(1..).filter(|((id, _), _)| *id != token);
        let others = others.map(|((id, logprob), rank)| entry(id, logprob, rank));
        Some(ScoreBody(std::iter::once(entry(token, own, rank)).chain(others).collect()))
    };
    prompt.into_iter().map(score).collect()
}
