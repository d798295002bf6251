//! `/v1/chat/completions` and its legacy forms.

use serde_json::value::RawValue;

use super::*;
use crate::text::testing::{QWEN, Real, SMOLLM};

const PATH: &str = "/v1/chat/completions";

fn hello() -> Value {
    json!({"model": "fake", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 5, "seed": 3})
}

/// A body with further fields.
fn with(rest: &Value) -> Value {
    let mut body = hello();
    for (name, value) in rest.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

async fn said(rig: &Rig, body: &Value) -> Value {
    let (status, answer) = rig.post(PATH, body).await;
    assert_eq!(status, 200, "{answer}");
    answer
}

/// With its JSON as it stands: the order of members is part of it.
#[derive(serde::Deserialize)]
struct Golden {
    messages: Box<RawValue>,
    tools: Option<Box<RawValue>>,
    prompt: String,
}

async fn every_golden_chat_is_rendered(real: &Real) {
    let rig = Rig::with_text("", real.text().clone());
    let chats: Vec<Golden> = serde_json::from_str(&real.golden("chat.json")).unwrap();
    for Golden { messages, tools, prompt } in chats {
        let tools = tools.as_ref().map_or("null", |tools| tools.get());
        let body = format!(
            r#"{{"model": "fake", "messages": {messages}, "tools": {tools}, "max_tokens": 1, "return_token_ids": true}}"#
        );
        let (status, answer) = whole(rig.send(Method::POST, PATH, &body).await).await;
        assert_eq!(status, 200, "{answer}");
        let ids: Vec<u32> =
            serde_json::from_value(answer["choices"][0]["prompt_token_ids"].clone()).unwrap();
        assert_eq!(real.text().decode(&ids, false), prompt);
        assert_eq!(answer["usage"]["prompt_tokens"], ids.len());
    }
}

/// Every bit of a conversation that changes what the model is given, through both routes.
#[tokio::test]
async fn a_tokenized_chat_is_what_the_model_would_be_given() {
    let rig = Rig::with_text("", QWEN.text().clone());
    for rest in [
        json!({}),
        json!({"tools": tools()}),
        json!({"add_special_tokens": true}),
        json!({"add_generation_prompt": false}),
        json!({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
            "continue_final_message": true}),
        json!({"messages": [{"role": "user", "content": "x".repeat(20_000)}]}),
    ] {
        let mut body = with(&rest);
        body["return_token_ids"] = true.into();
        let chat = said(&rig, &body).await;
        let mut body = with(&rest);
        let members = body.as_object_mut().unwrap();
        members.retain(|name, _| !["max_tokens", "seed"].contains(&name.as_str()));
        let (status, tokens) = rig.post("/tokenize", &body).await;
        assert_eq!(status, 200, "{tokens}");
        assert_eq!(tokens["tokens"], chat["choices"][0]["prompt_token_ids"]);
        assert_eq!(tokens["count"], chat["usage"]["prompt_tokens"]);
    }
    for (rest, param) in [
        (json!({"prompt": "a"}), "messages"),
        (json!({"content": "a"}), "messages"),
        (json!({"messages": []}), "messages"),
        (json!({"chat_template": "x"}), "chat_template"),
        (json!({"chat_template_kwargs": {"x": 1}}), "chat_template_kwargs"),
        (json!({"tools": [{"type": "function"}]}), "tools[0].function"),
    ] {
        let (status, answer) = rig.post("/tokenize", &with(&rest)).await;
        assert_eq!((status.as_u16(), &answer["error"]["param"]), (400, &param.into()), "{answer}");
    }
}

#[tokio::test]
async fn golden_chats_of_smollm_come_through_the_route() {
    every_golden_chat_is_rendered(&SMOLLM).await;
}

#[tokio::test]
async fn golden_chats_of_qwen_come_through_the_route() {
    every_golden_chat_is_rendered(&QWEN).await;
}

#[tokio::test]
async fn a_chat_is_what_the_rendered_text_completes_to() {
    let rig = Rig::new("");
    let chat = said(&rig, &with(&json!({"logprobs": true, "top_logprobs": 2}))).await;
    let text = rig
        .complete(json!({"prompt": "<|user|>hello<|assistant|>", "max_tokens": 5, "seed": 3, "logprobs": 2}))
        .await;
    assert_eq!(chat["object"], "chat.completion");
    assert!(chat["id"].as_str().unwrap().starts_with("chatcmpl-"));
    assert_eq!(chat["choices"][0]["message"]["content"], text["choices"][0]["text"]);
    assert_eq!(chat["choices"][0]["message"]["role"], "assistant");
    assert_eq!(chat["choices"][0]["finish_reason"], text["choices"][0]["finish_reason"]);
    assert_eq!(chat["usage"]["total_tokens"], text["usage"]["total_tokens"]);
    let content = chat["choices"][0]["logprobs"]["content"].as_array().unwrap();
    let logprobs = &text["choices"][0]["logprobs"];
    for (at, token) in content.iter().enumerate() {
        assert_eq!(token["token"], logprobs["tokens"][at]);
        assert_eq!(token["logprob"], logprobs["token_logprobs"][at]);
        assert_eq!(token["top_logprobs"].as_array().unwrap().len(), 2);
    }
    assert_eq!(content.len(), logprobs["tokens"].as_array().unwrap().len());
}

#[tokio::test]
async fn log_probabilities_have_as_many_alternatives_as_asked_for() {
    let rig = Rig::new("");
    for (rest, count) in [
        (json!({"logprobs": true}), 0),
        (json!({"logprobs": true, "top_logprobs": 0}), 0),
        (json!({"logprobs": true, "top_logprobs": 20}), 20),
    ] {
        let chat = said(&rig, &with(&rest)).await;
        for token in chat["choices"][0]["logprobs"]["content"].as_array().unwrap() {
            assert_eq!(token["top_logprobs"].as_array().unwrap().len(), count, "{rest}");
        }
    }
    assert_eq!(said(&rig, &hello()).await["choices"][0]["logprobs"], Value::Null);
}

#[tokio::test]
async fn streams_say_what_whole_chats_say() {
    let rig = Rig::new("");
    for rest in [
        json!({}),
        json!({"n": 3, "max_tokens": 12, "stop": ["q", "zz"]}),
        json!({"n": 2, "logprobs": true, "top_logprobs": 1}),
        json!({"tools": [{"type": "function", "function": {"name": "f"}}], "max_tokens": 20}),
    ] {
        let body = with(&rest);
        let whole = said(&rig, &body).await;
        let mut streamed = body;
        streamed["stream"] = true.into();
        streamed["stream_options"] = json!({"include_usage": true});
        let events = events_of(rig.send(Method::POST, PATH, &streamed.to_string()).await).await;
        let (usage, events) = events.split_last().unwrap();
        assert_eq!(usage["choices"], json!([]));
        assert_eq!(usage["usage"]["total_tokens"], whole["usage"]["total_tokens"]);
        for choice in whole["choices"].as_array().unwrap() {
            let mine = events.iter().flat_map(|e| e["choices"].as_array().unwrap());
            let mine: Vec<&Value> = mine.filter(|c| c["index"] == choice["index"]).collect();
            let text: String = mine.iter().filter_map(|c| c["delta"]["content"].as_str()).collect();
            assert_eq!(text, choice["message"]["content"].as_str().unwrap(), "{rest}");
            assert_eq!(mine[0]["delta"]["role"], "assistant");
            assert_eq!(mine.last().unwrap()["finish_reason"], choice["finish_reason"]);
            let scores: Vec<&Value> =
                mine.iter().filter_map(|c| c["logprobs"]["content"].as_array()).flatten().collect();
            if !choice["logprobs"].is_null() {
                assert_eq!(json!(scores), choice["logprobs"]["content"]);
            }
        }
        for event in events {
            assert_eq!(event["object"], "chat.completion.chunk");
            assert_eq!((&event["id"], &event["usage"]), (&events[0]["id"], &Value::Null));
        }
    }
}

#[tokio::test]
async fn legacy_routes_take_the_model_from_the_path() {
    let rig = Rig::new("");
    let mut body = hello();
    body.as_object_mut().unwrap().remove("model");
    for path in [
        "/v1/engines/fake/chat/completions",
        "/v1/engines/org%2Fa+model/chat/completions",
        "/openai/deployments/fake/chat/completions",
    ] {
        let (status, answer) = rig.post(path, &body).await;
        assert_eq!(status, 200, "{answer}");
    }
    let (status, answer) = rig.post(PATH, &body).await;
    assert_eq!((status.as_u16(), &answer["error"]["param"]), (400, &"model".into()));
    let (status, answer) = rig.post("/v1/engines/x/chat/completions", &body).await;
    assert_eq!((status.as_u16(), &answer["error"]["code"]), (404, &"model_not_found".into()));
}

#[tokio::test]
async fn what_is_wrong_with_a_chat_is_said_by_name() {
    let rig = Rig::new(",max_len=64");
    let image = json!([{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "data:"}}]);
    let long = "x".repeat(65);
    for (rest, param, code) in [
        (json!({"messages": null}), "messages", Value::Null),
        (json!({"messages": []}), "messages", Value::Null),
        (
            json!({"messages": [{"role": "user", "content": image}]}),
            "messages[0].content[1]",
            "unsupported_parameter".into(),
        ),
        (
            json!({"messages": [{"role": "user", "content": long}]}),
            "messages",
            "context_length_exceeded".into(),
        ),
        (
            json!({"max_completion_tokens": 64, "max_tokens": null}),
            "messages",
            "context_length_exceeded".into(),
        ),
        (json!({"tools": [{"type": "function"}]}), "tools[0].function", Value::Null),
    ] {
        let (status, answer) = rig.post(PATH, &with(&rest)).await;
        assert_eq!(status, 400, "{answer}");
        assert_eq!(
            (&answer["error"]["param"], &answer["error"]["code"]),
            (&param.into(), &code),
            "{answer}"
        );
    }
    // Without a bound of its own, an answer gets what room there is.
    let answer = said(&rig, &with(&json!({"max_tokens": null, "ignore_eos": true}))).await;
    assert_eq!(answer["usage"]["total_tokens"], 64);
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
}

#[tokio::test]
async fn a_server_can_bound_all_chats() {
    let config = HttpConfig { default_max_tokens: 7, ..config() };
    let rig = Rig::with_config(config, "", Text::fake(VOCAB));
    let answer = said(&rig, &with(&json!({"max_tokens": null, "ignore_eos": true}))).await;
    assert_eq!(answer["usage"]["completion_tokens"], 7);
}

#[tokio::test]
async fn a_model_without_a_template_says_what_to_do() {
    let rig = Rig::with_text("", crate::text::testing::GEMMA.text().clone());
    let (status, answer) = rig.post(PATH, &hello()).await;
    assert_eq!((status.as_u16(), &answer["error"]["param"]), (400, &"messages".into()));
    assert!(answer["error"]["message"].as_str().unwrap().contains("/v1/completions"), "{answer}");
}

#[tokio::test]
async fn a_long_chat_is_rendered_beside_the_others() {
    let rig = Rig::new("");
    let turn = |i: usize| json!({"role": if i.is_multiple_of(2) { "user" } else { "assistant" }, "content": "x"});
    let messages: Vec<Value> = (0..500).map(turn).collect();
    let answer = said(&rig, &with(&json!({"messages": messages}))).await;
    assert!(answer["usage"]["prompt_tokens"].as_u64().unwrap() > 1_000, "{answer}");
}

fn tools() -> Value {
    let function = |name: &str, parameters: Value| json!({"type": "function", "function": {"name": name, "parameters": parameters}});
    let one = json!({"type": "object", "properties": {"x": {"enum": [1, 22, 333]}}, "required": ["x"],
        "additionalProperties": false});
    let other = json!({"properties": {"y": {"type": "boolean"}}, "required": ["y"], "additionalProperties": false});
    json!([function("one", one), function("other", other)])
}

#[tokio::test]
async fn required_calls_are_calls_in_every_choice() {
    let rig = Rig::new("");
    for seed in 0..8 {
        for choice in
            [json!("required"), json!({"type": "function", "function": {"name": "other"}})]
        {
            let named = choice.is_object();
            let body = with(
                &json!({"tools": tools(), "tool_choice": choice, "parallel_tool_calls": false, "n": 3,
                "seed": seed, "temperature": 2.0, "max_tokens": 400}),
            );
            let answer = said(&rig, &body).await;
            for choice in answer["choices"].as_array().unwrap() {
                assert_eq!(choice["finish_reason"], "tool_calls", "{choice}");
                assert_eq!(choice["message"]["content"], Value::Null);
                let calls = choice["message"]["tool_calls"].as_array().unwrap();
                assert_eq!(calls.len(), 1, "{choice}");
                let function = &calls[0]["function"];
                let arguments: Value =
                    serde_json::from_str(function["arguments"].as_str().unwrap()).unwrap();
                if function["name"] == "one" {
                    assert!(!named && [1, 22, 333].contains(&arguments["x"].as_i64().unwrap()));
                } else {
                    assert!(arguments["y"].is_boolean(), "{choice}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_schema_that_calls_cannot_keep_to_is_named() {
    let rig = Rig::new("");
    let mut tools = tools();
    for (schema, says) in [
        (json!({"not": {}}), "'not' is not supported - at '#/properties/y'"),
        (json!({"type": "string", "pattern": "(?=a)"}), "look-around"),
        (json!({"oneOf": [{"type": "string"}, {"maxLength": 3}]}), "'#/properties/y/oneOf'"),
    ] {
        tools[1]["function"]["parameters"]["properties"]["y"] = schema;
        let mut body = with(&json!({"tools": tools, "tool_choice": "required"}));
        let (status, answer) = rig.post(PATH, &body).await;
        let place = json!("tools[1].function.parameters");
        assert_eq!((status.as_u16(), &answer["error"]["param"]), (400, &place));
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains(says), "{message}");
        assert!(message.ends_with(" - 'tools[1].function.parameters'"), "{message}");
        // Calls of its own accord are judged when they are there.
        body["tool_choice"] = "auto".into();
        assert_eq!(rig.post(PATH, &body).await.0, 200);
    }
}

#[tokio::test]
async fn a_strict_schema_is_kept_to_or_refused_where_the_model_may_call() {
    let rig = Rig::new("");
    let mut tools = tools();
    tools[1]["function"]["strict"] = true.into();
    let body = |tools: &Value| with(&json!({"tools": tools, "tool_choice": "auto"}));
    assert_eq!(rig.post(PATH, &body(&tools)).await.0, 200);
    tools[1]["function"]["parameters"]["properties"]["y"] = json!({"not": {}});
    let (status, answer) = rig.post(PATH, &body(&tools)).await;
    let place = json!("tools[1].function.parameters");
    assert_eq!((status.as_u16(), &answer["error"]["param"]), (400, &place), "{answer}");
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.contains("'not' is not supported - at '#/properties/y'"), "{message}");
}

#[tokio::test]
async fn with_tools_an_answer_is_calls_or_the_json_that_was_asked_for() {
    let rig = Rig::new("");
    let schema = json!({"type": "object", "properties": {"z": {"type": "null"}}, "required": ["z"], "additionalProperties": false});
    let format = json!({"type": "json_schema", "json_schema": {"name": "z", "schema": schema}});
    let mut seen = [false; 2];
    for seed in 0..20 {
        let body = with(
            &json!({"tools": tools(), "response_format": format, "parallel_tool_calls": false, "seed": seed,
            "messages": [{"role": "user", "content": format!("{seed}")}], "temperature": 2.0, "max_tokens": 400}),
        );
        let answer = said(&rig, &body).await;
        let message = &answer["choices"][0]["message"];
        let is_call = message["tool_calls"].is_array();
        seen[usize::from(is_call)] = true;
        if !is_call {
            let said: Value = serde_json::from_str(message["content"].as_str().unwrap()).unwrap();
            assert_eq!(said, json!({"z": null}));
        }
    }
    assert_eq!(seen, [true; 2]);
    let body = with(&json!({"tools": tools(), "structured_outputs": {"regex": "a+"}}));
    let (status, answer) = rig.post(PATH, &body).await;
    assert_eq!((status.as_u16(), &answer["error"]["param"]), (400, &json!("structured_outputs")));
}
