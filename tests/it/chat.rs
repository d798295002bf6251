//! Chats with real models over real sockets: plain ones, tools called, streams.

use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::client::Client;
use crate::support::{Server, test_model};

fn server(cell: &'static OnceLock<Server>, model: &str) -> Client {
    let start =
        || Server::start(&[test_model(model).to_str().unwrap(), "--served-model-name", "m"]);
    cell.get_or_init(start).client()
}

fn smollm() -> Client {
    static SERVER: OnceLock<Server> = OnceLock::new();
    server(&SERVER, "SmolLM2-135M-Instruct.Q4_1.gguf")
}

fn qwen() -> Client {
    static SERVER: OnceLock<Server> = OnceLock::new();
    server(&SERVER, "qwen2.5-coder-0.5b-instruct-Q4_K_M.gguf")
}

const PATH: &str = "/v1/chat/completions";

fn body(text: &str) -> Value {
    json!({"model": "m", "messages": [{"role": "user", "content": text}], "temperature": 0,
        "max_completion_tokens": 120})
}

fn weather() -> Value {
    let city = json!({"type": "string", "description": "Name of a city"});
    let parameters = json!({"type": "object", "properties": {"city": city}, "required": ["city"]});
    json!([{"type": "function", "function": {"name": "get_weather",
        "description": "Current weather in a city", "parameters": parameters}}])
}

fn choice(client: &Client, body: &Value) -> Value {
    let answer = client.post(PATH, body);
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()["choices"][0].clone()
}

/// The chunks of a streamed chat.
fn chunks(client: &Client, body: &Value) -> Vec<Value> {
    let mut body = body.clone();
    body["stream"] = json!(true);
    let answer = client.post(PATH, &body);
    assert_eq!(answer.status, 200, "{}", answer.body);
    let (events, rest) = answer.body.rsplit_once("data: [DONE]\n\n").unwrap();
    assert_eq!(rest, "");
    let events = events.split_terminator("\n\n").filter(|event| !event.starts_with(':'));
    events.map(|e| serde_json::from_str(e.strip_prefix("data: ").unwrap()).unwrap()).collect()
}

/// A stream says what the whole answer says, calls included.
fn assert_streams_the_same(client: &Client, body: &Value, whole: &Value) {
    let chunks = chunks(client, body);
    let deltas = || chunks.iter().map(|chunk| &chunk["choices"][0]["delta"]);
    let text: String = deltas().filter_map(|delta| delta["content"].as_str()).collect();
    assert_eq!(text, whole["message"]["content"].as_str().unwrap_or_default());
    let calls: Vec<&Value> = deltas().filter_map(|delta| delta["tool_calls"].get(0)).collect();
    let expected = whole["message"]["tool_calls"].as_array().cloned().unwrap_or_default();
    for (index, call) in expected.iter().enumerate() {
        let mut mine = calls.iter().filter(|call| call["index"] == index);
        let first = mine.next().unwrap();
        assert_eq!(first["function"]["name"], call["function"]["name"]);
        assert_eq!(first["type"], "function");
        assert!(first["id"].as_str().unwrap().starts_with("call_"));
        let arguments: String =
            mine.map(|call| call["function"]["arguments"].as_str().unwrap()).collect();
        assert_eq!(arguments, call["function"]["arguments"].as_str().unwrap());
    }
    let last = &chunks.last().unwrap()["choices"][0];
    assert_eq!(last["finish_reason"], whole["finish_reason"]);
}

#[test]
fn models_answer_in_their_chat_form() {
    for client in [smollm(), qwen()] {
        let mut body = body("What is the capital of France?");
        let system = json!({"role": "system", "content": "You are a helpful assistant."});
        body["messages"].as_array_mut().unwrap().insert(0, system);
        let whole = choice(&client, &body);
        let text = whole["message"]["content"].as_str().unwrap();
        assert!(text.contains("Paris"), "{text}");
        assert_eq!(whole["finish_reason"], "stop");
        assert_streams_the_same(&client, &body, &whole);
    }
}

#[test]
fn a_conversation_goes_on_from_its_history() {
    let messages = json!([
        {"role": "developer", "content": "Answer with one word."},
        {"role": "user", "content": [{"type": "text", "text": "What is the capital of Italy?"}]},
        {"role": "assistant", "content": "Rome"},
        {"role": "user", "content": "And of France?"},
    ]);
    let answer = choice(
        &qwen(),
        &json!({"model": "m", "messages": messages, "temperature": 0, "max_tokens": 20}),
    );
    assert!(answer["message"]["content"].as_str().unwrap().contains("Paris"), "{answer}");
}

#[test]
fn a_message_can_be_continued() {
    let messages = json!([
        {"role": "user", "content": "Count from one to five in words."},
        {"role": "assistant", "content": "one, two, three,"},
    ]);
    let answer = choice(
        &qwen(),
        &json!({"model": "m", "messages": messages, "temperature": 0, "max_tokens": 12,
        "continue_final_message": true}),
    );
    assert!(
        answer["message"]["content"].as_str().unwrap().trim_start().starts_with("four"),
        "{answer}"
    );
}

/// Qwen2.5-Coder writes its calls as fenced JSON.
#[test]
fn qwen_calls_a_tool_when_it_likes() {
    let client = qwen();
    let mut body = body("What is the weather in Oslo right now? Use the tool.");
    body["tools"] = weather();
    let whole = choice(&client, &body);
    let calls =
        whole["message"]["tool_calls"].as_array().unwrap_or_else(|| panic!("no call: {whole}"));
    assert_eq!(calls[0]["function"]["name"], "get_weather");
    let arguments: Value =
        serde_json::from_str(calls[0]["function"]["arguments"].as_str().unwrap()).unwrap();
    assert_eq!(arguments["city"], "Oslo");
    assert_eq!(whole["finish_reason"], "tool_calls");
    assert_streams_the_same(&client, &body, &whole);
    // What came back from the tool is read.
    body["messages"].as_array_mut().unwrap().extend([
        whole["message"].clone(),
        json!({"role": "tool", "tool_call_id": calls[0]["id"], "content": "{\"temperature_celsius\": -17}"}),
    ]);
    body["tool_choice"] = json!("none");
    let answer = choice(&client, &body);
    assert!(answer["message"]["content"].as_str().unwrap().contains("17"), "{answer}");
}

#[test]
fn a_model_that_knows_no_tools_is_told_of_them() {
    let client = smollm();
    let mut plain = body("Hello");
    let shown =
        |body: &Value| client.post(PATH, body).json()["usage"]["prompt_tokens"].as_u64().unwrap();
    let without = shown(&plain);
    plain["tools"] = weather();
    assert!(shown(&plain) > without + 100);
    let whole = choice(&client, &plain);
    assert_streams_the_same(&client, &plain, &whole);
}

fn two_tools() -> Value {
    let mut tools = weather();
    let schema = json!({"type": "object", "properties": {"unit": {"enum": ["mm", "inch"]}, "days": {"type": "integer",
        "minimum": 1, "maximum": 14}}, "required": ["unit", "days"], "additionalProperties": false});
    let rain = json!({"type": "function", "function": {"name": "get_rain", "parameters": schema}});
    tools.as_array_mut().unwrap().push(rain);
    tools
}

#[test]
fn a_call_that_is_cut_off_is_not_one_to_be_executed() {
    for client in [smollm(), qwen()] {
        let mut body = body("What is the weather in Paris?");
        body["tools"] = weather();
        body["tool_choice"] = json!("required");
        body["stop"] = json!(["city"]);
        let whole = choice(&client, &body);
        assert_eq!(whole["finish_reason"], "stop", "{whole}");
        assert_streams_the_same(&client, &body, &whole);
    }
}

/// Whatever the model would rather say, and however wildly it is sampled.
#[test]
fn a_required_call_comes_from_any_model() {
    for client in [smollm(), qwen()] {
        for (seed, tool_choice) in
            [json!("required"), json!({"type": "function", "function": {"name": "get_rain"}})]
                .into_iter()
                .enumerate()
        {
            let mut body = body("Tell me a joke about cats.");
            body["tools"] = two_tools();
            body["tool_choice"] = tool_choice.clone();
            body["parallel_tool_calls"] = json!(false);
            body["temperature"] = json!(1.5);
            body["seed"] = json!(seed);
            body["max_completion_tokens"] = json!(400);
            let whole = choice(&client, &body);
            // Strings have no bound in one of the schemas, so that the bound on tokens may come first.
            if whole["finish_reason"] == "length" {
                continue;
            }
            assert_eq!(whole["finish_reason"], "tool_calls", "{whole}");
            let calls = whole["message"]["tool_calls"].as_array().unwrap();
            assert_eq!(calls.len(), 1, "{whole}");
            let function = &calls[0]["function"];
            let arguments: Value =
                serde_json::from_str(function["arguments"].as_str().unwrap()).unwrap();
            match function["name"].as_str().unwrap() {
                "get_rain" => {
                    assert!((1..=14).contains(&arguments["days"].as_i64().unwrap()));
                    assert!(["mm", "inch"].contains(&arguments["unit"].as_str().unwrap()));
                }
                name => {
                    assert_eq!((name, tool_choice.as_str()), ("get_weather", Some("required")));
                    assert!(arguments["city"].is_string(), "{whole}");
                }
            }
            assert_streams_the_same(&client, &body, &whole);
        }
    }
}

#[test]
fn a_chat_answers_in_json_of_a_schema() {
    let client = smollm();
    let mut body = body("What is the capital of France?");
    let schema = json!({"type": "object", "properties": {"capital": {"type": "string", "maxLength": 20},
        "sure": {"type": "boolean"}}, "required": ["capital", "sure"], "additionalProperties": false});
    body["response_format"] =
        json!({"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}});
    let whole = choice(&client, &body);
    let said: Value = serde_json::from_str(whole["message"]["content"].as_str().unwrap()).unwrap();
    assert!(said["capital"].is_string() && said["sure"].is_boolean(), "{whole}");
    assert_streams_the_same(&client, &body, &whole);
}
