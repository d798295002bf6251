//! The routes, one entry each, in reading order.

use http::StatusCode;
use serde_json::{Value, json};

use super::route::{Access, Route};
use crate::http::health;
use crate::http::openai::chat::types as chat;
use crate::http::openai::completions::types as completions;
use crate::http::openai::generation::types::AnswerBody;
use crate::http::openai::{models, tokenize};

/// Groups of routes.
pub(super) const TAGS: [(&str, &str); 5] = [
    (TEXT, "Go on with a text."),
    (CHAT, "Answer in a conversation."),
    (MODELS, "What the model is called here, and what it can take."),
    (TOKENS, "The model's tokenizer."),
    (SERVER, "For operators and readers."),
];

const TEXT: &str = "Completions";
const CHAT: &str = "Chat";
const MODELS: &str = "Models";
const TOKENS: &str = "Tokens";
const SERVER: &str = "Server";

const LEGACY: &str =
    "As old clients ask: the model stands in the path, and what the body says of it is ignored.";

pub(super) fn all() -> Vec<Route> {
    [completions(), chat(), models(), tokens(), server()].into_iter().flatten().collect()
}

fn completions() -> Vec<Route> {
    type Answer = AnswerBody<'static, completions::ChoiceBody>;
    let about = "With `stream`, each event is a chunk of the same form as a whole answer, and the last one is \
        `[DONE]`; an error after the first chunk is an event `{\"error\": …}` and the end.";
    let route = |path, id, about| {
        Route::post(path, id, TEXT)
            .about("Complete a text", about)
            .named()
            .gives::<Answer>("Completion", "One choice or more for each prompt.", completion())
            .with::<completions::ChoiceBody>("Choice")
            .streams("Completion")
    };
    let by_path = |path, id, access| {
        let example = json!({"prompt": "Once upon a time", "max_tokens": 16});
        let takes = ("CompletionRequestByPath", completions::KNOWN_BY_PATH);
        route(path, id, LEGACY).access(access).takes(takes, example)
    };
    let example =
        json!({"model": "gpt-3.5-turbo-instruct", "prompt": "Say hello.", "max_tokens": 16});
    vec![
        route("/v1/completions", "createCompletion", about)
            .access(Access::Key)
            .takes(("CompletionRequest", completions::KNOWN), example),
        by_path("/v1/engines/{engine}/completions", "createEngineCompletion", Access::Key),
        by_path(
            "/openai/deployments/{id}/completions",
            "createDeploymentCompletion",
            Access::AzureKey,
        ),
    ]
}

fn chat() -> Vec<Route> {
    type Answer = AnswerBody<'static, chat::WholeBody>;
    type Chunk = AnswerBody<'static, chat::ChunkBody>;
    let about = "With `stream`, each event is a chunk with what is added to the messages, and the last one is `[DONE]`; \
        an error after the first chunk is an event `{\"error\": …}` and the end.";
    let route = |path, id, about| {
        Route::post(path, id, CHAT)
            .about("Answer in a conversation", about)
            .named()
            .gives::<Answer>("ChatCompletion", "One message or more.", chat_completion())
            .with::<chat::WholeBody>("ChatChoice")
            .with::<Chunk>("ChatCompletionChunk")
            .with::<chat::ChunkBody>("ChatChunkChoice")
            .streams("ChatCompletionChunk")
    };
    let messages = json!([{"role": "user", "content": "Say hello."}]);
    let by_path = |path, id, access| {
        let example = json!({"messages": messages, "max_tokens": 16});
        let takes = ("ChatRequestByPath", chat::KNOWN_BY_PATH);
        route(path, id, LEGACY).access(access).takes(takes, example)
    };
    let example = json!({"model": "gpt-3.5-turbo-instruct", "messages": messages, "max_completion_tokens": 16});
    vec![
        route("/v1/chat/completions", "createChatCompletion", about)
            .access(Access::Key)
            .takes(("ChatRequest", chat::KNOWN), example),
        by_path("/v1/engines/{engine}/chat/completions", "createEngineChatCompletion", Access::Key),
        by_path(
            "/openai/deployments/{id}/chat/completions",
            "createDeploymentChatCompletion",
            Access::AzureKey,
        ),
    ]
}

fn chat_completion() -> Value {
    json!({
        "id": "chatcmpl-0123456789abcdef0123456789abcdef", "object": "chat.completion", "created": 1_790_000_000,
        "model": "gpt-3.5-turbo-instruct", "system_fingerprint": "fp_0123456789ab",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello!", "refusal": null},
            "logprobs": null, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15,
            "prompt_tokens_details": {"cached_tokens": 0}},
    })
}

fn completion() -> Value {
    json!({
        "id": "cmpl-0123456789abcdef0123456789abcdef", "object": "text_completion", "created": 1_790_000_000,
        "model": "gpt-3.5-turbo-instruct", "system_fingerprint": "fp_0123456789ab",
        "choices": [{"text": "Hello!", "index": 0, "logprobs": null, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15,
            "prompt_tokens_details": {"cached_tokens": 0}},
    })
}

fn models() -> Vec<Route> {
    let model = json!({
        "id": "gpt-3.5-turbo-instruct", "object": "model", "created": 1_790_000_000, "owned_by": "millrace",
        "root": "SmolLM2-135M-Instruct", "max_model_len": 2048, "prompt_format": "instruct",
    });
    let engine = json!({
        "id": "davinci-002", "object": "engine", "created": 1_790_000_000, "owner": "millrace",
        "ready": true, "max_model_len": 2048, "prompt_format": "raw",
    });
    let list = |item: &Value| json!({"object": "list", "data": [item]});
    let (models_list, engines_list) = (list(&model), list(&engine));
    let get = |path, id, summary, about| {
        Route::get(path, id, MODELS).about(summary, about).access(Access::Key)
    };
    let names = "One entry for each name that the model answers to; the first is its own.";
    vec![
        get("/v1/models", "listModels", "List the names of the model", names)
            .gives::<models::List<models::Model<'static>>>("ModelList", "All names.", models_list),
        get("/v1/models/{id}", "getModel", "Look up a name", "The name may hold slashes.")
            .named()
            .gives::<models::Model<'static>>("Model", "The model under this name.", model),
        get("/v1/engines", "listEngines", "List the names as engines", "The API before models.")
            .gives::<models::List<models::Engine<'static>>>(
                "EngineList",
                "All names.",
                engines_list,
            ),
        get("/v1/engines/{engine}", "getEngine", "Look up an engine", "The API before models.")
            .named()
            .gives::<models::Engine<'static>>("Engine", "The model under this name.", engine),
    ]
}

fn tokens() -> Vec<Route> {
    let post = |path, id, summary| {
        Route::post(path, id, TOKENS).about(summary, "").access(Access::Key).named()
    };
    let encode = |path, id| {
        let tokens = json!({"tokens": [72, 105], "count": 2, "max_model_len": 2048, "token_strs": ["H", "i"]});
        post(path, id, "Turn a text into tokens")
            .takes(
                ("TokenizeRequest", tokenize::TOKENIZE),
                json!({"prompt": "Hi", "return_token_strs": true}),
            )
            .gives::<tokenize::Tokens>("Tokens", "The tokens.", tokens)
    };
    let decode = |path, id| {
        post(path, id, "Turn tokens into their text")
            .takes(("DetokenizeRequest", tokenize::DETOKENIZE), json!({"tokens": [72, 105]}))
            .gives::<tokenize::Prompt>("Text", "The text.", json!({"prompt": "Hi"}))
    };
    let info = |path, id| {
        let info = json!({
            "tokenizer_class": "millrace", "bos_token": null, "eos_token": "<|im_end|>", "add_bos_token": false,
            "vocab_size": 49_152, "model_max_length": 2048, "chat_template": null,
        });
        Route::get(path, id, TOKENS)
            .about(
                "Describe the tokenizer",
                "What evaluation harnesses ask for before they tokenise.",
            )
            .access(Access::Key)
            .gives::<tokenize::Info<'static>>("TokenizerInfo", "Special tokens and bounds.", info)
    };
    vec![
        encode("/tokenize", "tokenize"),
        decode("/detokenize", "detokenize"),
        info("/tokenizer_info", "getTokenizerInfo"),
        encode("/v1/tokenize", "tokenizeV1"),
        decode("/v1/detokenize", "detokenizeV1"),
        info("/v1/tokenizer_info", "getTokenizerInfoV1"),
    ]
}

fn server() -> Vec<Route> {
    let get = |path, id, summary, about| Route::get(path, id, SERVER).about(summary, about);
    let health = |path, id, summary, about| {
        let unavailable = StatusCode::SERVICE_UNAVAILABLE;
        let loading = json!({"status": "unavailable", "reason": "model_loading"});
        get(path, id, summary, about)
            .gives::<health::Health>("Health", "Yes.", json!({"status": "ok"}))
            .or_gives::<health::Health>(unavailable, "Health", "No, and why.", loading)
    };
    let page = |path, id, summary| {
        get(path, id, summary, "Not with `--no-webui`.")
            .access(Access::Page)
            .gives_text("text/html", "One document that needs no other.")
    };
    let ready = "503 while the model loads, while the server drains, and when the engine hangs.";
    let live = "503 only for what a restart repairs: an engine that hangs or has ended.";
    vec![
        health("/health", "getHealth", "Are requests welcome?", ready),
        health("/health/ready", "getReadiness", "Are requests welcome?", ready),
        health("/health/live", "getLiveness", "Is the process sound?", live),
        get(
            "/metrics",
            "getMetrics",
            "Metrics for Prometheus",
            "A key is needed with `--metrics-require-key`.",
        )
        .access(Access::Metrics)
        .gives_text("text/plain", "Prometheus' text format."),
        get("/version", "getVersion", "The version of the server", "").gives::<health::Version>(
            "Version",
            "The version.",
            json!({"version": env!("CARGO_PKG_VERSION")}),
        ),
        get("/openapi.json", "getDescription", "This description", "").gives_object("OpenAPI 3.1."),
        page("/", "getPlayground", "The playground").revalidates(),
        page("/docs", "getReference", "This description, laid out for reading"),
    ]
}
