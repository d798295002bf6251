//! The bytes of answers, whole and streamed, as they stand in `snapshots/`: nothing about them changes
//! unseen.

use super::*;

/// Compares `got` with the file of this name. What differs is left where one can look at it and, if it
/// is right, copy it.
fn assert_snapshot(name: &str, got: &str) {
    let path = format!("{}/src/http/openai/tests/snapshots/{name}", env!("CARGO_MANIFEST_DIR"));
    let wanted = std::fs::read_to_string(&path).unwrap_or_default();
    if wanted != got {
        let place = std::env::temp_dir().join(name);
        std::fs::write(&place, got).unwrap();
        panic!("{path} is not what was sent: look at {}, copy it if it is right", place.display());
    }
}

/// Without what no two answers share: the id, and when it was made.
fn settled(mut text: String) -> String {
    let ids = ["cmpl-", "chatcmpl-", "call_"].map(|kind| format!("\"id\":\"{kind}"));
    let ids = ids.iter().map(|key| (key.as_str(), '"'));
    for (key, end) in ids.chain([("\"created\":", ',')]) {
        let mut from = 0;
        while let Some(at) = text[from..].find(key) {
            let start = from + at + key.len();
            let length = text[start..].find(end).unwrap();
            text.replace_range(start..start + length, "0");
            from = start;
        }
    }
    text
}

/// So few tokens that all but three special ones and three for gaps are printable.
const READABLE: usize = 101;

/// The body of an answer, not read before the engine has said all of it: which events share a chunk
/// depends on nothing but the events then.
async fn body_of(rig: &Rig, body: &Value) -> String {
    let engine = &rig.app.served().unwrap().engine;
    let chat = body.get("messages").is_some();
    let path = if chat { "/v1/chat/completions" } else { "/v1/completions" };
    let body = body.to_string();
    let mut send = Box::pin(rig.send(Method::POST, path, &body));
    let response = loop {
        if let std::task::Poll::Ready(response) = futures_util::poll!(&mut send) {
            break response;
        }
        if engine.live() > 0 {
            until_idle(rig).await;
            break send.await;
        }
        tokio::task::yield_now().await;
    };
    until_idle(rig).await;
    settled(text_of(response).await)
}

/// Streams a request and asks for it whole.
async fn assert_both(name: &str, body: Value) {
    assert_both_in(Text::fake_with_gap(READABLE), name, body).await;
}

async fn assert_both_in(text: Text, name: &str, mut body: Value) {
    // A rig of its own: what an earlier request left in the cache would show in the usage.
    let rig = Rig::with_text(",end_every=9,step_ms=10", text);
    body["model"] = "fake".into();
    body["seed"] = 7.into();
    assert_snapshot(&format!("{name}.json"), &body_of(&rig, &body).await);
    if body.get("best_of").is_none() {
        body["stream"] = true.into();
        assert_snapshot(&format!("{name}.sse"), &body_of(&rig, &body).await);
    }
}

#[tokio::test]
async fn a_plain_answer() {
    assert_both("plain", json!({"prompt": "Say this", "max_tokens": 6})).await;
}

#[tokio::test]
async fn choices_of_several_prompts() {
    assert_both("choices", json!({"prompt": ["a", "b"], "n": 2, "max_tokens": 3})).await;
}

#[tokio::test]
async fn an_echo_with_log_probabilities() {
    let body = json!({"prompt": "a b", "echo": true, "logprobs": 2, "max_tokens": 3});
    assert_both("echo_logprobs", body).await;
}

#[tokio::test]
async fn a_score_of_a_prompt() {
    let body = json!({"prompt": [[5, 6, 7]], "echo": true, "logprobs": 1, "max_tokens": 0});
    assert_both("score", body).await;
}

#[tokio::test]
async fn all_that_can_be_told_of_tokens() {
    let body = json!({"prompt": "ab", "max_tokens": 3, "return_token_ids": true, "logprobs": 1,
        "prompt_logprobs": 1});
    assert_both("tokens", body).await;
}

#[tokio::test]
async fn the_best_of_three() {
    assert_both("best_of", json!({"prompt": "x", "best_of": 3, "max_tokens": 3})).await;
}

#[tokio::test]
async fn a_filled_gap() {
    let body = json!({"prompt": "a", "suffix": "b", "max_tokens": 3, "return_token_ids": true});
    assert_both("suffix", body).await;
}

fn chat() -> Value {
    json!({"messages": [{"role": "user", "content": "hi"}], "max_completion_tokens": 4})
}

#[tokio::test]
async fn a_chat_with_log_probabilities() {
    let mut body = chat();
    body["logprobs"] = true.into();
    body["top_logprobs"] = 1.into();
    body["n"] = 2.into();
    assert_both("chat", body).await;
}

#[tokio::test]
async fn a_chat_that_calls() {
    let mut body = chat();
    let parameters = json!({"type": "object", "properties": {"x": {"enum": [1, 22]}}, "required": ["x"],
        "additionalProperties": false});
    body["tools"] =
        json!([{"type": "function", "function": {"name": "f", "parameters": parameters}}]);
    body["tool_choice"] = "required".into();
    body["parallel_tool_calls"] = false.into();
    body["max_completion_tokens"] = 200.into();
    // A vocabulary of words: what waits to be read is bounded.
    assert_both_in(crate::text::testing::SMOLLM.text().clone(), "chat_call", body).await;
}

#[tokio::test]
async fn a_stream_with_usage_in_every_chunk() {
    let rig = Rig::with_text(",end_every=9,step_ms=10", Text::fake(READABLE));
    let body = json!({"model": "fake", "prompt": "x", "max_tokens": 3, "seed": 7, "stream": true,
        "stream_options": {"include_usage": true, "continuous_usage_stats": true}});
    assert_snapshot("usage.sse", &body_of(&rig, &body).await);
}

#[tokio::test]
async fn characters_in_pieces() {
    let rig = Rig::new(",end_every=0,step_ms=10");
    // The bytes of an emoji, the last of which never comes.
    let text = Text::fake(VOCAB);
    let id = |b: &[u8]| (0..VOCAB as u32).find(|&id| text.token_bytes(id) == b).unwrap();
    let prompt = [id(b"a"), id(b"\xf0\x9f")];
    let body = json!({"model": "fake", "prompt": prompt, "max_tokens": 1, "echo": true, "logprobs": 0,
        "temperature": 0, "logit_bias": {id(b"\x98").to_string(): 100}, "stream": true});
    assert_snapshot("pieces.sse", &body_of(&rig, &body).await);
}
