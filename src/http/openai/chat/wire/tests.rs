use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::engine::message::Logprobs;
use crate::http::openai::chat::calls::Form;
use crate::http::openai::chat::calls::signature::Signatures;
use crate::http::openai::chat::tools::Function;
use crate::http::openai::json::Json;
use crate::text::Text;

fn chat(form: Form, legacy: bool) -> Chat {
    let function = Function {
        name: "f".to_owned(),
        parameters: None,
        strict: false,
        definition: Json::Null,
        place: String::new(),
    };
    let signatures = Signatures::compile(&[function]).unwrap();
    let calls = calls::Rules { signatures, form, parallel: !legacy };
    let rules = Rules { logprobs: Some(2), ..Rules::plain(Text::fake(270)) };
    Chat::new(Arc::new(rules), Arc::new(calls), legacy, (1, 0xabc))
}

const FREE: Form = Form::Free { tags_only: false };

fn delta(text: &str) -> Delta {
    Delta { text: text.to_owned(), ..Delta::default() }
}

fn end(text: &str, finish: FinishReason) -> Delta {
    Delta { finish: Some(finish), ..delta(text) }
}

fn json_of(choices: impl IntoIterator<Item = ChoiceBody>) -> Value {
    choices.into_iter().map(|choice| serde_json::to_value(choice).unwrap()).collect()
}

const CALL: &str = "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n</tool_call>";

#[test]
fn a_text_is_a_message() {
    let whole = chat(Form::Never, false).choice(0, end("Hi", FinishReason::Length));
    assert_eq!(
        json_of([whole])[0],
        json!({"index": 0, "message": {"role": "assistant", "content": "Hi", "refusal": null},
            "logprobs": {"content": [], "refusal": null}, "finish_reason": "length"})
    );
    let mut stream = chat(Form::Never, false);
    let chunk = |delta: Value, finish: Value| json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish});
    assert_eq!(
        json_of(stream.chunks(0, delta("Hi"))),
        json!([
            chunk(json!({"role": "assistant", "content": "", "refusal": null}), Value::Null),
            chunk(json!({"content": "Hi"}), Value::Null)
        ])
    );
    assert_eq!(json_of(stream.chunks(0, delta(""))), json!([]));
    assert_eq!(
        json_of(stream.chunks(0, end("", FinishReason::Stop))),
        json!([chunk(json!({}), json!("stop"))])
    );
}

#[test]
fn a_call_is_a_call() {
    let whole = json_of([chat(FREE, false).choice(0, end(CALL, FinishReason::Stop))]);
    let function = json!({"name": "f", "arguments": "{\"a\": 1}"});
    let id = "call_0000000000000abc00000000";
    assert_eq!(
        whole[0]["message"],
        json!({"role": "assistant", "content": null, "refusal": null,
            "tool_calls": [{"id": id, "type": "function", "function": function}]})
    );
    assert_eq!(whole[0]["finish_reason"], "tool_calls");
    let deltas: Vec<Value> = json_of(chat(FREE, false).chunks(0, end(CALL, FinishReason::Stop)))
        .as_array()
        .unwrap()
        .iter()
        .map(|chunk| chunk["delta"].clone())
        .collect();
    assert_eq!(
        json!(deltas),
        json!([
            {"role": "assistant", "content": null, "refusal": null},
            {"tool_calls": [{"index": 0, "id": id, "type": "function",
                "function": {"name": "f", "arguments": ""}}]},
            {"tool_calls": [{"index": 0, "function": {"arguments": "{\"a\": 1}"}}]},
            {}
        ])
    );
    // Who was cut off is told so, whatever was called before.
    let cut = json_of([chat(FREE, false).choice(0, end(CALL, FinishReason::Length))]);
    assert_eq!(cut[0]["finish_reason"], "length");
}

#[test]
fn older_clients_get_a_function_call() {
    let whole = json_of([chat(FREE, true).choice(0, end(CALL, FinishReason::Stop))]);
    assert_eq!(
        whole[0]["message"],
        json!({"role": "assistant", "content": null, "refusal": null,
            "function_call": {"name": "f", "arguments": "{\"a\": 1}"}})
    );
    assert_eq!(whole[0]["finish_reason"], "function_call");
    let chunks = json_of(chat(FREE, true).chunks(0, end(CALL, FinishReason::Stop)));
    assert_eq!(chunks[1]["delta"], json!({"function_call": {"name": "f", "arguments": ""}}));
    assert_eq!(chunks[2]["delta"], json!({"function_call": {"arguments": "{\"a\": 1}"}}));
}

#[test]
fn log_probabilities_are_told_token_by_token() {
    let mut chat = chat(FREE, false);
    let token = |text: &str| chat.rules.text.encode(text, false, false)[0];
    let (a, b, c) = (token("a"), token("b"), token("c"));
    let logprobs = Logprobs { own: -2.5, rank: 3, top: vec![(b, -0.5), (c, f32::NEG_INFINITY)] };
    let scored = vec![Scored { token: a, offset: 0, logprobs: Some(logprobs) }];
    let expected = json!({"refusal": null, "content": [{"token": "a", "logprob": -2.5, "bytes": [97],
        "top_logprobs": [{"token": "b", "logprob": -0.5, "bytes": [98]},
            {"token": "c", "logprob": -9999.0, "bytes": [99]}]}]});
    let whole = json_of([chat.choice(0, Delta { scored: scored.clone(), ..delta("a") })]);
    assert_eq!(whole[0]["logprobs"], expected);
    let chunks = json_of(chat.chunks(0, Delta { scored: scored.clone(), ..delta("a") }));
    assert_eq!((&chunks[0]["logprobs"], &chunks[1]["logprobs"]), (&Value::Null, &expected));
    // Held back, but scored.
    let chunks = json_of(chat.chunks(0, Delta { scored: scored.clone(), ..delta("\n<tool") }));
    assert_eq!((&chunks[0]["delta"], &chunks[0]["logprobs"]), (&json!({"content": ""}), &expected));
    let chunks = json_of(chat.chunks(0, Delta { scored, ..end("", FinishReason::Stop) }));
    assert_eq!(
        (&chunks[0]["delta"], &chunks[0]["logprobs"]),
        (&json!({"content": "\n<tool"}), &expected)
    );
    assert_eq!(chunks[1]["finish_reason"], "stop");
}

/// Puts the chunks of one choice together, as clients do.
fn joined(chunks: &[Value]) -> Value {
    let mut content: Option<String> = None;
    let mut calls: Vec<Value> = Vec::new();
    let mut function: Option<Value> = None;
    let (mut scores, mut finish) = (Vec::new(), Value::Null);
    for (at, chunk) in chunks.iter().enumerate() {
        assert_eq!(finish, Value::Null, "nothing comes after the end");
        let delta = &chunk["delta"];
        assert_eq!(delta["role"] == "assistant", at == 0);
        if let Some(text) = delta["content"].as_str() {
            content.get_or_insert_default().push_str(text);
        }
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            let index = call["index"].as_u64().unwrap() as usize;
            if index == calls.len() {
                calls.push(
                    json!({"id": call["id"], "type": call["type"], "function": call["function"]}),
                );
            } else {
                assert_eq!(index + 1, calls.len());
                add(&mut calls[index]["function"], &call["function"]);
            }
        }
        match (&mut function, delta.get("function_call")) {
            (_, None) => {}
            (Some(function), Some(more)) => add(function, more),
            (none, Some(begun)) => *none = Some(begun.clone()),
        }
        scores.extend(chunk["logprobs"]["content"].as_array().into_iter().flatten().cloned());
        finish = chunk["finish_reason"].clone();
    }
    let only_calls =
        content.as_ref().is_none_or(String::is_empty) && (function.is_some() || !calls.is_empty());
    let content = if only_calls { None } else { Some(content.unwrap_or_default()) };
    let mut message = json!({"role": "assistant", "content": content, "refusal": null});
    if !calls.is_empty() {
        message["tool_calls"] = calls.into();
    }
    if let Some(function) = function {
        message["function_call"] = function;
    }
    json!({"index": 0, "message": message, "logprobs": {"content": scores, "refusal": null}, "finish_reason": finish})
}

fn add(function: &mut Value, more: &Value) {
    let all = format!(
        "{}{}",
        function["arguments"].as_str().unwrap(),
        more["arguments"].as_str().unwrap()
    );
    function["arguments"] = all.into();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn streamed_chunks_make_the_whole_message(
        texts in proptest::collection::vec(prop_oneof![
            Just("Hi "), Just(CALL), Just("<tool_call>"), Just("\n"), Just("```json\n"), Just("```"),
            Just("{\"name\": \"f\""), Just(", \"arguments\": {}}"), Just(""), Just("é"),
        ], 0..8),
        finish in prop_oneof![Just(FinishReason::Stop), Just(FinishReason::Length)],
        legacy: bool, free: bool,
    ) {
        let form = if free { FREE } else { Form::Never };
        let scored = |at: usize| Scored {
            token: at as u32 + 20,
            offset: at,
            logprobs: Some(Logprobs { own: -(at as f32), rank: 1, top: Vec::new() }),
        };
        let mut deltas: Vec<Delta> = texts
            .iter()
            .enumerate()
            .map(|(at, text)| Delta { scored: vec![scored(at)], ..delta(text) })
            .collect();
        deltas.push(end("", finish));
        let mut all = Delta::default();
        deltas.iter().cloned().for_each(|delta| all.append(delta));
        let whole = json_of([chat(form, legacy).choice(0, all)]);
        let mut stream = chat(form, legacy);
        let chunks: Vec<ChoiceBody> = deltas.into_iter().flat_map(|d| stream.chunks(0, d)).collect();
        prop_assert_eq!(joined(json_of(chunks).as_array().unwrap()), whole[0].clone());
    }
}
