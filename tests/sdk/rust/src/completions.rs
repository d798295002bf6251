//! `/v1/completions`.

use async_openai::types::chat::{ChatCompletionStreamOptions, CompletionFinishReason, Prompt};
use async_openai::types::completions::{CreateCompletionRequest, CreateCompletionRequestArgs};
use futures_util::TryStreamExt;

use crate::{assert_refused, client, stranger};

const PROMPT: &str = "The capital of France is";

fn call() -> CreateCompletionRequestArgs {
    let mut call = CreateCompletionRequestArgs::default();
    call.model("davinci-002").prompt(PROMPT).max_tokens(12_u32).temperature(0.0);
    call
}

fn built(call: &CreateCompletionRequestArgs) -> CreateCompletionRequest {
    call.build().unwrap()
}

#[tokio::test]
async fn whole_and_streamed_answers_agree() {
    let whole = client().completions().create(built(&call())).await.unwrap();
    assert!(whole.choices[0].text.starts_with(" Paris"));
    assert_eq!(whole.choices[0].finish_reason, Some(CompletionFinishReason::Length));
    let with_usage =
        ChatCompletionStreamOptions { include_usage: Some(true), include_obfuscation: None };
    let request = built(call().stream_options(with_usage));
    let stream = client().completions().create_stream(request).await.unwrap();
    let chunks: Vec<_> = stream.try_collect().await.unwrap();
    let text: String = chunks.iter().flat_map(|c| &c.choices).map(|c| c.text.as_str()).collect();
    assert_eq!(text, whole.choices[0].text);
    let (last, others) = chunks.split_last().unwrap();
    assert_eq!(last.usage, whole.usage);
    assert!(last.choices.is_empty() && others.iter().all(|c| c.usage.is_none()));
}

#[tokio::test]
async fn log_probabilities_are_whole() {
    let answer = client().completions().create(built(call().logprobs(2).echo(true))).await.unwrap();
    let logprobs = answer.choices[0].logprobs.as_ref().unwrap();
    assert_eq!(logprobs.tokens.concat(), answer.choices[0].text);
    let lengths =
        [logprobs.token_logprobs.len(), logprobs.top_logprobs.len(), logprobs.text_offset.len()];
    assert_eq!(lengths, [logprobs.tokens.len(); 3]);
    assert_eq!(logprobs.token_logprobs[0], None);
}

#[tokio::test]
async fn prompts_of_token_ids_are_prompts() {
    let ids = Prompt::IntegerArray(vec![504, 3575, 282, 4649, 314]);
    let by_ids = client().completions().create(built(call().prompt(ids))).await.unwrap();
    assert_eq!(
        by_ids.choices,
        client().completions().create(built(&call())).await.unwrap().choices
    );
}

#[tokio::test]
async fn errors_are_parsed() {
    let client = client();
    let completions = client.completions();
    let over = completions.create(built(call().temperature(3.0))).await;
    assert_refused(over, 400, None, Some("temperature"));
    let long = completions.create(built(call().max_tokens(1_000_000_u32))).await;
    assert_refused(long, 400, Some("context_length_exceeded"), Some("prompt"));
    let missing = completions.create(built(call().model("gpt-9"))).await;
    assert_refused(missing, 404, Some("model_not_found"), Some("model"));
    // Known before the first token: it is the answer to the request, and no stream begins.
    let streamed = completions.create_stream(built(call().temperature(3.0))).await;
    assert_refused(streamed, 400, None, Some("temperature"));
    let wrong = stranger().completions().create(built(&call())).await;
    assert_refused(wrong, 401, Some("invalid_api_key"), None);
}
