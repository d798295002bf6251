//! `/v1/chat/completions`.

use std::collections::BTreeMap;

use async_openai::types::chat::{
    ChatCompletionMessageToolCall, ChatCompletionMessageToolCalls as Call,
    ChatCompletionRequestAssistantMessageArgs, ChatCompletionRequestMessage,
    ChatCompletionRequestSystemMessage, ChatCompletionRequestToolMessageArgs,
    ChatCompletionRequestUserMessage, ChatCompletionTool,
    ChatCompletionToolChoiceOption as ToolChoice, ChatCompletionTools, CreateChatCompletionRequest,
    CreateChatCompletionRequestArgs, FinishReason, FunctionObjectArgs, ResponseFormat,
    ResponseFormatJsonSchema, ToolChoiceOptions,
};
use futures_util::TryStreamExt;
use serde_json::{Value, json};

use crate::{assert_refused, client, stranger, tools_client};

const SMALL: &str = "smollm2-135m-instruct";
const QWEN: &str = "qwen2.5-coder-0.5b-instruct-Q4_K_M";
/// A result that no model would make up.
const RESULT: &str = r#"{"temperature_celsius": -17}"#;

fn user(text: &str) -> ChatCompletionRequestMessage {
    ChatCompletionRequestUserMessage::from(text).into()
}

fn call() -> CreateChatCompletionRequestArgs {
    let system = ChatCompletionRequestSystemMessage::from("You are a helpful assistant.").into();
    let messages: Vec<ChatCompletionRequestMessage> =
        vec![system, user("What is the capital of France?")];
    let mut call = CreateChatCompletionRequestArgs::default();
    call.model(SMALL).messages(messages).max_completion_tokens(16_u32).temperature(0.0);
    call
}

fn built(call: &CreateChatCompletionRequestArgs) -> CreateChatCompletionRequest {
    call.build().unwrap()
}

#[tokio::test]
async fn whole_and_streamed_answers_agree() {
    let whole = client().chat().create(built(&call())).await.unwrap();
    let stream = client().chat().create_stream(built(&call())).await.unwrap();
    let chunks: Vec<_> = stream.try_collect().await.unwrap();
    let deltas = chunks.iter().flat_map(|c| &c.choices);
    let text: String = deltas.filter_map(|c| c.delta.content.as_deref()).collect();
    assert_eq!(Some(text), whole.choices[0].message.content);
    assert_eq!(chunks.last().unwrap().choices[0].finish_reason, whole.choices[0].finish_reason);
}

#[tokio::test]
async fn log_probabilities_and_choices_are_whole() {
    // Cut short: otherwise the token that ended it would be among them, without being part of the text.
    let request = built(call().n(2).logprobs(true).top_logprobs(2).max_completion_tokens(4_u32));
    let answer = client().chat().create(request).await.unwrap();
    assert_eq!(answer.choices.iter().map(|c| c.index).collect::<Vec<_>>(), [0, 1]);
    for choice in answer.choices {
        let tokens = choice.logprobs.unwrap().content.unwrap();
        let text: String = tokens.iter().map(|t| t.token.as_str()).collect();
        assert_eq!(Some(text), choice.message.content);
        assert!(tokens.iter().all(|t| t.top_logprobs.len() == 2));
    }
}

#[tokio::test]
async fn answers_keep_to_a_schema() {
    let schema = json!({"type": "object", "properties": {"rivers": {"type": "integer", "minimum": 0, "maximum": 9}},
        "required": ["rivers"], "additionalProperties": false});
    let json_schema = ResponseFormatJsonSchema {
        description: None,
        name: "city".into(),
        schema,
        strict: Some(true),
    };
    let request =
        built(call().response_format(ResponseFormat::JsonSchema { json_schema }).temperature(1.0));
    let answer = client().chat().create(request).await.unwrap();
    let said: Value =
        serde_json::from_str(answer.choices[0].message.content.as_deref().unwrap()).unwrap();
    assert!((0..10).contains(&said["rivers"].as_i64().unwrap()));
}

fn weather() -> Vec<ChatCompletionTools> {
    let parameters = json!({"type": "object", "properties": {"city": {"type": "string", "description": "Name of a city"}},
        "required": ["city"]});
    let mut function = FunctionObjectArgs::default();
    function.name("get_weather").description("Current weather in a city").parameters(parameters);
    vec![ChatCompletionTools::Function(ChatCompletionTool { function: function.build().unwrap() })]
}

fn tool_call() -> CreateChatCompletionRequestArgs {
    let mut call = CreateChatCompletionRequestArgs::default();
    let ask = user("What is the weather in Oslo right now? Use the tool.");
    call.model(QWEN)
        .messages(vec![ask])
        .tools(weather())
        .max_completion_tokens(80_u32)
        .temperature(0.0);
    call
}

fn function(calls: &Option<Vec<Call>>) -> &ChatCompletionMessageToolCall {
    match calls.as_deref() {
        Some([Call::Function(call)]) => call,
        other => panic!("not one call: {other:?}"),
    }
}

#[tokio::test]
async fn a_call_its_result_and_the_answer() {
    let mut request = built(&tool_call());
    let whole = tools_client().chat().create(request.clone()).await.unwrap().choices.remove(0);
    assert_eq!(whole.finish_reason, Some(FinishReason::ToolCalls));
    let call = function(&whole.message.tool_calls).clone();
    assert_eq!(call.function.name, "get_weather");
    assert_eq!(
        serde_json::from_str::<Value>(&call.function.arguments).unwrap(),
        json!({"city": "Oslo"})
    );
    let called = ChatCompletionRequestAssistantMessageArgs::default()
        .tool_calls(whole.message.tool_calls.unwrap())
        .build();
    let result = ChatCompletionRequestToolMessageArgs::default()
        .tool_call_id(call.id)
        .content(RESULT)
        .build();
    request.messages.extend([called.unwrap().into(), result.unwrap().into()]);
    request.tool_choice = Some(ToolChoice::Mode(ToolChoiceOptions::None));
    let answer = tools_client().chat().create(request).await.unwrap();
    assert!(answer.choices[0].message.content.as_deref().unwrap().contains("17"));
}

#[tokio::test]
async fn streamed_calls_make_the_whole() {
    let choices = [
        ToolChoice::Mode(ToolChoiceOptions::Auto),
        ToolChoice::Mode(ToolChoiceOptions::Required),
        ToolChoice::Function("get_weather".into()),
    ];
    for choice in choices {
        let request = built(tool_call().tool_choice(choice).parallel_tool_calls(false));
        let whole = tools_client().chat().create(request.clone()).await.unwrap().choices.remove(0);
        let mut stream = tools_client().chat().create_stream(request).await.unwrap();
        let (mut calls, mut reasons) = (BTreeMap::<u32, (String, String)>::new(), Vec::new());
        while let Some(chunk) = stream.try_next().await.unwrap() {
            reasons.extend(chunk.choices[0].finish_reason);
            for delta in chunk.choices[0].delta.tool_calls.iter().flatten() {
                let function = delta.function.as_ref().unwrap();
                let (name, arguments) = calls.entry(delta.index).or_default();
                name.push_str(function.name.as_deref().unwrap_or_default());
                arguments.push_str(function.arguments.as_deref().unwrap_or_default());
            }
        }
        let expected = &function(&whole.message.tool_calls).function;
        assert_eq!(
            calls.into_values().collect::<Vec<_>>(),
            [(expected.name.clone(), expected.arguments.clone())]
        );
        assert_eq!(reasons, [whole.finish_reason.unwrap()]);
    }
}

#[tokio::test]
async fn errors_are_parsed() {
    let client = client();
    let chat = client.chat();
    assert_refused(
        chat.create(built(call().temperature(3.0))).await,
        400,
        None,
        Some("temperature"),
    );
    assert_refused(chat.create(built(call().messages(vec![]))).await, 400, None, Some("messages"));
    let long = chat.create(built(call().max_completion_tokens(1_000_000_u32))).await;
    assert_refused(long, 400, Some("context_length_exceeded"), Some("messages"));
    let missing = chat.create_stream(built(call().model("gpt-9"))).await;
    assert_refused(missing, 404, Some("model_not_found"), Some("model"));
    let wrong = stranger().chat().create(built(&call())).await;
    assert_refused(wrong, 401, Some("invalid_api_key"), None);
}
