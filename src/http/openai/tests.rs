//! The routes over the real engine and the fake model, through the router with all its layers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::config::{AuthConfig, HttpConfig, RequestLimits};
use crate::engine::{self, Settings};
use crate::http::{App, Served, Side, router};
use crate::keys::KeyStore;
use crate::model::Model as _;
use crate::model::fake;
use crate::text::Text;
use crate::text::grammar::Grammars;

mod chat;
mod fields;
mod snapshots;
mod streams;
mod structured;

const VOCAB: usize = 300;

struct Rig {
    app: Arc<App>,
}

impl Rig {
    /// `options`: of the fake model, after `vocab`.
    fn new(options: &str) -> Self {
        Self::with_text(options, Text::fake(VOCAB))
    }

    fn with_text(options: &str, text: Text) -> Self {
        Self::with_config(config(), options, text)
    }

    fn with_config(config: HttpConfig, options: &str, text: Text) -> Self {
        let rig = Self::without_model(config);
        let model = fake::open(&format!("fake:vocab={}{options}", text.vocab())).unwrap();
        let max_model_len = model.spec().max_context;
        let settings = Settings {
            max_num_seqs: 8,
            max_num_batched_tokens: Some(64),
            max_speculating_seqs: 4,
            max_queue_requests: 4,
            max_queue_tokens: 10_000,
            client_stall_timeout: Duration::from_mins(1),
            prefix_caching: true,
        };
        rig.app.set_served(Served {
            engine: engine::spawn(Box::new(model), settings).unwrap(),
            grammars: Grammars::new(&text),
            text,
            names: ["fake", "text-davinci-002", "org/a model"].map(str::to_owned).to_vec(),
            instruct: ["text-davinci-002".to_owned()].into(),
            max_model_len,
            fingerprint: "fp_1".to_owned(),
            created_s: 7,
            server_seed: None,
            defaults: crate::model::load::SamplingDefaults::OPENAI,
        });
        rig
    }

    fn loading() -> Self {
        Self::without_model(config())
    }

    fn without_model(config: HttpConfig) -> Self {
        let auth = AuthConfig {
            allow_unauthenticated: true,
            i_know_this_is_open: true,
            ..AuthConfig::default()
        };
        Self { app: App::new(config, &auth, KeyStore::open(None, None).unwrap()) }
    }

    async fn send(&self, method: Method, path: &str, body: &str) -> Response {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", "application/json")
            .body(Body::from(body.to_owned()))
            .unwrap();
        router(&self.app, super::routes(), Side::Whole).oneshot(request).await.unwrap()
    }

    async fn post(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        whole(self.send(Method::POST, path, &body.to_string()).await).await
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        whole(self.send(Method::GET, path, "").await).await
    }

    async fn complete(&self, mut body: Value) -> Value {
        body["model"] = "fake".into();
        let (status, answer) = self.post("/v1/completions", &body).await;
        assert_eq!(status, 200, "{answer}");
        answer
    }
}

fn config() -> HttpConfig {
    let minute = Duration::from_mins(1);
    HttpConfig {
        host: [127, 0, 0, 1].into(),
        port: 0,
        admin: None,
        tls: None,
        max_connections: 8,
        max_body_bytes: 1 << 20,
        default_max_tokens: 1024,
        shutdown_delay: Duration::ZERO,
        shutdown_timeout: minute,
        engine_stall_timeout: minute,
        client_stall_timeout: minute,
        sse_ping_interval: minute,
        header_timeout: minute,
        body_timeout: minute,
        idle_timeout: minute,
        cors_origins: Vec::new(),
        metrics_require_key: false,
        webui: true,
        limits: RequestLimits::default(),
    }
}

async fn text_of(response: Response) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

async fn whole(response: Response) -> (StatusCode, Value) {
    let status = response.status();
    assert_eq!(response.headers()["content-type"], "application/json");
    (status, serde_json::from_str(&text_of(response).await).unwrap())
}

/// The JSON of all events of a stream but `[DONE]`.
async fn events_of(response: Response) -> Vec<Value> {
    assert_eq!(response.status(), 200);
    let stream = text_of(response).await;
    let (events, rest) = stream.rsplit_once("data: [DONE]\n\n").unwrap();
    assert_eq!(rest, "");
    let events = events.split_terminator("\n\n").filter(|e| !e.starts_with(':'));
    events.map(|e| serde_json::from_str(e.strip_prefix("data: ").unwrap()).unwrap()).collect()
}

#[tokio::test]
async fn seeds_are_drawn_told_and_obeyed() {
    let rig = Rig::new("");
    let body = r#"{"model": "fake", "prompt": "x", "max_tokens": 8}"#;
    let response = rig.send(Method::POST, "/v1/completions", body).await;
    let seed: i64 = response.headers()["x-millrace-seed"].to_str().unwrap().parse().unwrap();
    let (_, answer) = whole(response).await;
    let again = rig.complete(json!({"prompt": "x", "max_tokens": 8, "seed": seed})).await;
    assert_eq!(again["choices"], answer["choices"]);
    assert_eq!(again["system_fingerprint"], "fp_1");
    // Choice 0 of n = 3 is the answer of n = 1.
    let three = rig.complete(json!({"prompt": "x", "max_tokens": 8, "seed": seed, "n": 3})).await;
    assert_eq!(three["choices"][0], answer["choices"][0]);
    assert_eq!(three["choices"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn scoring_gives_every_prompt_token_and_no_other() {
    let rig = Rig::new("");
    let body = json!({"prompt": [[5, 6, 7], [8, 9]], "max_tokens": 0, "echo": true, "logprobs": 1});
    let answer = rig.complete(body).await;
    let first = &answer["choices"][0];
    assert_eq!(first["text"], Text::fake(VOCAB).decode(&[5, 6, 7], false));
    assert_eq!(first["finish_reason"], "length");
    let logprobs = &first["logprobs"];
    assert_eq!(logprobs["tokens"].as_array().unwrap().len(), 3);
    assert_eq!(
        (&logprobs["token_logprobs"][0], &logprobs["top_logprobs"][0]),
        (&Value::Null, &Value::Null)
    );
    for position in 1..3 {
        let label = logprobs["tokens"][position].as_str().unwrap();
        let own = &logprobs["top_logprobs"][position][label];
        assert_eq!(own, &logprobs["token_logprobs"][position]);
    }
    assert_eq!(answer["usage"]["completion_tokens"], 0);
    assert_eq!(answer["usage"]["prompt_tokens"], 5);
}

#[tokio::test]
async fn harnesses_find_one_generated_token_after_the_prompt() {
    let rig = Rig::new("");
    let body = json!({"prompt": [[5, 6, 7]], "max_tokens": 1, "temperature": 0, "logprobs": 1,
        "seed": 1234, "echo": true});
    let answer = rig.complete(body).await;
    assert_eq!(answer["choices"][0]["logprobs"]["tokens"].as_array().unwrap().len(), 4);
    assert_eq!(answer["usage"]["completion_tokens"], 1);
}

#[tokio::test]
async fn legacy_routes_take_the_model_from_the_path() {
    let rig = Rig::new("");
    let body = json!({"prompt": "x", "max_tokens": 1, "n": 1, "stop": null, "model": "ignored"});
    for path in [
        "/v1/engines/text-davinci-002/completions",
        "/v1/engines/org%2Fa+model/completions",
        "/openai/deployments/org%2Fa%20model/completions?api-version=2023-05-15",
    ] {
        let (status, answer) = rig.post(path, &body).await;
        assert_eq!(status, 200, "{path}: {answer}");
        assert_ne!(answer["model"], "ignored");
    }
    let (status, answer) = rig.post("/v1/engines/nothing/completions", &body).await;
    assert_eq!((status.as_u16(), &answer["error"]["code"]), (404, &"model_not_found".into()));
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_said_before_the_engine_sees_it() {
    let rig = Rig::new("");
    for (body, status, code, param) in [
        (json!({"prompt": "x"}), 400, Value::Null, json!("model")),
        (json!({"model": "y", "prompt": "x"}), 404, json!("model_not_found"), json!("model")),
        (json!({"model": "fake", "n": 0}), 400, Value::Null, json!("n")),
        (
            json!({"model": "fake", "prompt": "x", "max_tokens": 5000}),
            400,
            json!("context_length_exceeded"),
            json!("prompt"),
        ),
        (json!({"model": "fake", "prompt": [VOCAB]}), 400, Value::Null, json!("prompt[0]")),
    ] {
        let (got, answer) = rig.post("/v1/completions", &body).await;
        assert_eq!(got, status, "{answer}");
        let error = &answer["error"];
        assert_eq!((&error["code"], &error["param"]), (&code, &param), "{answer}");
    }
    let engine = &rig.app.served().unwrap().engine;
    assert_eq!(engine.stats().steps.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_cache_that_is_too_small_says_so() {
    let rig = Rig::new(",kv_blocks=4");
    let body = json!({"model": "fake", "prompt": "x", "max_tokens": 200});
    let (status, answer) = rig.post("/v1/completions", &body).await;
    assert_eq!(
        (status.as_u16(), &answer["error"]["code"]),
        (400, &"context_length_exceeded".into())
    );
    assert!(answer["error"]["message"].as_str().unwrap().contains("KV cache holds 128 tokens"));
}

#[tokio::test]
async fn a_step_that_fails_is_a_500_and_the_next_request_is_served() {
    let rig = Rig::new(",fault=panic@1,fault=nan@2");
    let body = json!({"model": "fake", "prompt": "x", "max_tokens": 2, "stream": true});
    for _ in 0..2 {
        let (status, answer) = rig.post("/v1/completions", &body).await;
        assert_eq!((status.as_u16(), &answer["error"]["type"]), (500, &"server_error".into()));
    }
    assert_eq!(
        rig.complete(json!({"prompt": "x", "max_tokens": 2})).await["object"],
        "text_completion"
    );
}

#[tokio::test]
async fn a_step_that_fails_mid_stream_is_an_error_event() {
    let rig = Rig::new(",end_every=0,fault=panic@3");
    let body = r#"{"model": "fake", "prompt": "x", "max_tokens": 50, "stream": true}"#;
    let response = rig.send(Method::POST, "/v1/completions", body).await;
    assert_eq!(response.status(), 200);
    let stream = text_of(response).await;
    let last = stream.split_terminator("\n\n").last().unwrap();
    assert!(last.starts_with(r#"data: {"error":{"#), "{stream}");
    assert!(!stream.contains("[DONE]"));
}

/// Waits until nothing is left of any request.
async fn until_idle(rig: &Rig) {
    let engine = &rig.app.served().unwrap().engine;
    let idle = async {
        while engine.live() > 0 || engine.stats().kv_blocks_held.load(Ordering::Relaxed) > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), idle).await.expect("the request was aborted");
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_request_along() {
    let rig = Rig::new(",end_every=0,step_ms=1");
    let body = |stream| {
        json!({"model": "fake", "prompt": "x", "max_tokens": 4000, "stream": stream}).to_string()
    };
    // Streamed: the body is dropped after its first chunk.
    let mut response = rig.send(Method::POST, "/v1/completions", &body(true)).await;
    assert!(response.body_mut().frame().await.unwrap().is_ok());
    drop(response);
    until_idle(&rig).await;
    // Not streamed: the handler is dropped while it waits.
    let waiting = body(false);
    let mut waiting = Box::pin(rig.send(Method::POST, "/v1/completions", &waiting));
    let engine = &rig.app.served().unwrap().engine;
    while engine.live() == 0 {
        assert!(futures_util::poll!(&mut waiting).is_pending());
        tokio::task::yield_now().await;
    }
    drop(waiting);
    until_idle(&rig).await;
    assert_eq!(engine.stats().finished_abort.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_full_queue_is_a_429_with_advice() {
    // A step that never returns: what comes after the first step's requests stays in the queue.
    let rig = Rig::new(",fault=hang@1");
    let body = r#"{"model": "fake", "prompt": "x", "max_tokens": 2}"#;
    let mut waiting = Vec::new();
    let refused = loop {
        let mut send = Box::pin(rig.send(Method::POST, "/v1/completions", body));
        // Submission needs no waiting: the first poll is enough.
        match futures_util::poll!(&mut send) {
            std::task::Poll::Ready(response) => break response,
            std::task::Poll::Pending => waiting.push(send),
        }
        assert!(waiting.len() < 100, "the queue has no end");
    };
    assert_eq!(refused.status(), 429);
    for (header, value) in
        [("retry-after", "1"), ("retry-after-ms", "1000"), ("x-should-retry", "true")]
    {
        assert_eq!(refused.headers()[header], value);
    }
    assert_eq!(whole(refused).await.1["error"]["code"], "engine_overloaded");
}

#[tokio::test]
async fn models_and_engines_are_listed_by_every_name() {
    let rig = Rig::new("");
    let (_, list) = rig.get("/v1/models").await;
    assert_eq!((&list["object"], list["data"].as_array().unwrap().len()), (&"list".into(), 3));
    let model = &list["data"][0];
    assert_eq!(
        (&model["id"], &model["object"], &model["created"]),
        (&"fake".into(), &"model".into(), &7.into())
    );
    assert_eq!((&model["max_model_len"], &model["prompt_format"]), (&4096.into(), &"raw".into()));
    let (_, model) = rig.get("/v1/models/text-davinci-002").await;
    assert_eq!((&model["prompt_format"], &model["root"]), (&"instruct".into(), &"fake".into()));
    for path in
        ["/v1/models/org%2Fa%20model", "/v1/models/org/a%20model", "/v1/engines/org%2Fa+model"]
    {
        let (status, model) = rig.get(path).await;
        assert_eq!((status.as_u16(), &model["id"]), (200, &"org/a model".into()), "{path}");
    }
    let (_, engines) = rig.get("/v1/engines").await;
    assert_eq!(
        (&engines["data"][0]["object"], &engines["data"][0]["ready"]),
        (&"engine".into(), &true.into())
    );
    let (status, error) = rig.get("/v1/models/x").await;
    assert_eq!((status.as_u16(), &error["error"]["code"]), (404, &"model_not_found".into()));
}

#[tokio::test]
async fn texts_become_tokens_and_come_back() {
    let rig = Rig::new("");
    for prefix in ["", "/v1"] {
        let body =
            json!({"prompt": "hi é", "add_special_tokens": false, "return_token_strs": true});
        let (_, tokens) = rig.post(&format!("{prefix}/tokenize"), &body).await;
        let ids = Text::fake(VOCAB).encode("hi é", true, false);
        assert_eq!((&tokens["tokens"], &tokens["count"]), (&json!(ids), &ids.len().into()));
        assert_eq!(tokens["max_model_len"], 4096);
        assert_eq!(tokens["token_strs"].as_array().unwrap().len(), ids.len());
        let (_, text) = rig.post(&format!("{prefix}/detokenize"), &json!({"tokens": ids})).await;
        assert_eq!(text, json!({"prompt": "hi é"}));
        let (_, info) = rig.get(&format!("{prefix}/tokenizer_info")).await;
        assert!(info["eos_token"].is_string());
    }
    let (_, tokens) = rig.post("/tokenize", &json!({"content": "a", "model": "fake"})).await;
    assert_eq!((&tokens["count"], &tokens["token_strs"]), (&1.into(), &Value::Null));
    let pieces = json!({"content": "a\u{fc}", "with_pieces": true});
    let (_, tokens) = rig.post("/tokenize", &pieces).await;
    let ids = Text::fake(VOCAB).encode("a\u{fc}", true, false);
    assert_eq!(tokens["tokens"][0], json!({"id": ids[0], "piece": "a"}));
    // Of two bytes, each a token that is no text by itself.
    assert_eq!(tokens["tokens"][1], json!({"id": ids[1], "piece": [0xc3]}));
    for (path, body, param) in [
        ("/tokenize", json!({}), "prompt"),
        ("/tokenize", json!({"prompt": 5}), "prompt"),
        ("/tokenize", json!({"messages": []}), "messages"),
        ("/tokenize", json!({"prompt": "a", "tool_choice": []}), "tool_choice"),
        ("/tokenize", json!({"prompt": "a", "tools": [{}]}), "tools[0].type"),
        ("/tokenize", json!({"prompt": "a", "model": "y"}), "model"),
        ("/detokenize", json!({"tokens": [VOCAB]}), "tokens[0]"),
        ("/detokenize", json!({"tokens": "a"}), "tokens"),
    ] {
        let (status, answer) = rig.post(path, &body).await;
        assert!(status == 400 || status == 404, "{answer}");
        assert_eq!(answer["error"]["param"], param, "{answer}");
    }
}

#[tokio::test]
async fn what_is_not_there_is_said_in_the_error_form() {
    let rig = Rig::new("");
    let (status, answer) = rig.get("/v1/completions").await;
    assert_eq!((status.as_u16(), &answer["error"]["code"]), (405, &"method_not_supported".into()));
    let loading = Rig::loading();
    let (status, answer) = loading.post("/v1/completions", &json!({})).await;
    assert_eq!((status.as_u16(), &answer["error"]["code"]), (503, &"model_loading".into()));
    let (status, answer) = loading.get("/v1/models").await;
    assert_eq!((status.as_u16(), &answer["error"]["code"]), (503, &"model_loading".into()));
}
