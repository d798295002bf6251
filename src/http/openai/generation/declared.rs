//! The fields that requests to all generating endpoints have, as they are declared.

use super::fields::{
    CACHE_SALT_MAX, LOGIT_BIAS_MAX, PRIORITY_MAX, REPETITION_MAX, REPETITION_MIN, STOP_TOKENS_MAX,
};
use crate::http::openai::json::{Field, Kind, Limit};
use crate::http::openai::structured;
use crate::text::{STOP_BYTES_MAX, STOPS_MAX};

/// Where it does not stand in the path.
pub const MODEL: Field =
    Field::new("model", Kind::TEXT).required().about("One of the names in `/v1/models`.");

pub const SHARED: &[Field] = &[
    Field::new("temperature", Kind::number(0.0, 2.0))
        .default("1")
        .about("Above 1 more surprising, below 1 less; 0 always takes the most probable token."),
    Field::new("top_p", Kind::number(0.0, 1.0))
        .default("1")
        .about("Keeps the most probable tokens that together have this probability."),
    Field::new("top_k", Kind::integer(-1, i32::MAX as i64))
        .default("0")
        .about("Keeps this many of the most probable tokens; -1 and 0 keep all."),
    Field::new("min_p", Kind::number(0.0, 1.0)).default("0").about(
        "Keeps the tokens whose probability is at least this share of the most probable one's.",
    ),
    Field::new("n", Kind::Limited { min: 1, limit: Limit::N })
        .default("1")
        .about("Choices for each prompt. The i-th is drawn from `seed` and i."),
    Field::new("stop", Kind::Either(&[STOP, Kind::List { item: &STOP, min: 0, max: STOPS_MAX }]))
        .about("Strings that end the answer and are not part of it."),
    Field::new("stream", Kind::Boolean)
        .default("false")
        .about("Send the answer as server-sent events, token by token."),
    Field::new("stream_options", Kind::Object(STREAM_OPTIONS)).about("Only with `stream`."),
    Field::new("seed", Kind::integer(i64::MIN, i64::MAX)).about(
        "The same request, seed and `system_fingerprint` give the same answer. Without a seed one is drawn, and the \
        header `x-millrace-seed` tells it.",
    ),
    Field::new(
        "logit_bias",
        Kind::ByToken { value: &Kind::number(-100.0, 100.0), max: LOGIT_BIAS_MAX },
    )
    .about("By token id, what is added to its logit."),
    Field::new("frequency_penalty", Kind::number(-2.0, 2.0))
        .default("0")
        .about("Taken from a token's logit for each time that it was generated."),
    Field::new("presence_penalty", Kind::number(-2.0, 2.0))
        .default("0")
        .about("Taken from the logit of each token that was generated."),
    Field::new("repetition_penalty", Kind::number(REPETITION_MIN, REPETITION_MAX))
        .default("1")
        .about("Above 1, makes tokens of the prompt and the answer less probable."),
    Field::new("ignore_eos", Kind::Boolean)
        .default("false")
        .about("Go on after the model's end of text."),
    Field::new("min_tokens", Kind::integer(0, u32::MAX as i64))
        .default("0")
        .about("No end before this many tokens. At most the bound on tokens."),
    Field::new("add_special_tokens", Kind::Boolean)
        .about("Put the model's BOS in front, if it has one; true for texts, false for chats."),
    Field::new("return_tokens_as_token_ids", Kind::Boolean)
        .default("false")
        .about("Where a token's text would stand in log-probabilities, write `token_id:N`."),
    Field::new("user", Kind::TEXT).about("Accepted, and not used."),
    Field::new("prompt_cache_key", Kind::TEXT)
        .about("For balancers: requests with the same key go to the same server. Not used by the server: see `cache_salt`."),
    Field::new("stop_token_ids", Kind::List { item: &Kind::TOKEN, min: 0, max: STOP_TOKENS_MAX })
        .about("Tokens that end the answer."),
    Field::new("include_stop_str_in_output", Kind::Boolean)
        .default("false")
        .about("Let the stop string be part of the answer."),
    Field::new("skip_special_tokens", Kind::Boolean)
        .default("true")
        .about("Special tokens have no text in the answer."),
    Field::new("spaces_between_special_tokens", Kind::Boolean)
        .default("true")
        .about("Accepted; false is not supported."),
    Field::new("prompt_logprobs", Kind::Limited { min: 0, limit: Limit::Logprobs })
        .about("Log-probabilities of the prompt's tokens, with this many alternatives to each."),
    Field::new("return_token_ids", Kind::Boolean)
        .default("false")
        .about("Also send the ids of prompt and answer."),
    Field::new("response_format", Kind::Schema(structured::RESPONSE_FORMAT))
        .about("What the answer must be: JSON, or JSON of a schema."),
    Field::new("structured_outputs", Kind::Schema(structured::STRUCTURED_OUTPUTS))
        .about("What the answer must be: one of `json`, `regex`, `choice` and `grammar`."),
    Field::new("guided_json", Kind::Any).about("Not supported: see `structured_outputs`."),
    Field::new("guided_regex", Kind::Any).about("Not supported: see `structured_outputs`."),
    Field::new("guided_choice", Kind::Any).about("Not supported: see `structured_outputs`."),
    Field::new("guided_grammar", Kind::Any).about("Not supported: see `structured_outputs`."),
    Field::new("truncate_prompt_tokens", Kind::integer(-1, i64::MAX))
        .about("Keep only so many tokens of the prompt, the last ones; -1: as many as fit."),
    Field::new("priority", Kind::integer(-PRIORITY_MAX, PRIORITY_MAX))
        .default("0")
        .about("Orders the requests of one key among each other; lower is sooner."),
    Field::new("cache_salt", Kind::VisibleAscii { max: CACHE_SALT_MAX })
        .about("Only requests with the same salt share computed prompts."),
    Field::new("allowed_token_ids", Kind::Any).about("Not supported."),
    Field::new("bad_words", Kind::Any).about("Not supported."),
    Field::new("logits_processors", Kind::Any).about("Not supported."),
    Field::new("use_beam_search", Kind::Boolean).default("false").about("True is not supported."),
    Field::new("length_penalty", Kind::Any).about("Of beam search: not supported."),
];

const STOP: Kind = Kind::Text { min: 1, max: STOP_BYTES_MAX };

const STREAM_OPTIONS: &[Field] = &[
    Field::new("include_usage", Kind::Boolean)
        .default("false")
        .about("A last chunk with the usage of the whole request."),
    Field::new("continuous_usage_stats", Kind::Boolean)
        .default("false")
        .about("Usage so far in every chunk."),
    Field::new("include_obfuscation", Kind::Boolean).about("Accepted, and not used."),
];
