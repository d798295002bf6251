//! The line that each request leaves in the log: what it says of whom, and what it never says (row 26 of
//! `docs/faults.md`).

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::client::{Answer, Client, read_answer};
use crate::lifecycle::until;
use crate::support::{KEY, Server};

const CANARY: &str = "a canary that sings of gold";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const COMPLETIONS: &str = "/v1/completions";
const CHAT: &str = "/v1/chat/completions";

/// In every line of a request whose key was good.
const ALWAYS: [&str; 11] = [
    "timestamp",
    "level",
    "target",
    "message",
    "id",
    "method",
    "route",
    "status",
    "header_ms",
    "ms",
    "complete",
];
/// Besides, of those that the engine took, and of those that it finished.
const TAKEN: [&str; 6] =
    ["completion_id", "model", "stream", "prompt_tokens", "completion_tokens", "finish_reason"];
const FINISHED: [&str; 5] = ["cached_tokens", "queue_ms", "prefill_ms", "ttft_ms", "decode_ms"];

fn server(model: &str, more: &[&str]) -> Server {
    let args = [&[model, "--log-format", "json", "--log-level", "trace"], more].concat();
    Server::start(&args)
}

fn head(client: &Client, path: &str, headers: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {}\r\n{headers}\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        client.key,
        body.len()
    )
}

fn post(client: &Client, path: &str, headers: &str, body: &Value) -> Answer {
    let request = head(client, path, headers, &body.to_string());
    read_answer(client.raw(request.as_bytes()).unwrap()).unwrap()
}

/// The line of the request with this id.
fn line(server: &Server, id: &str) -> Value {
    let line = server.wait_log(&format!(r#""id":"{id}""#));
    serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"))
}

fn fields(line: &Value) -> BTreeSet<&str> {
    line.as_object().unwrap().keys().map(String::as_str).collect()
}

fn of(groups: &[&[&'static str]]) -> BTreeSet<&'static str> {
    groups.iter().copied().flatten().copied().collect()
}

fn prompt(max_tokens: u64) -> Value {
    json!({"model": "text-davinci-003", "prompt": CANARY, "max_tokens": max_tokens, "ignore_eos": true,
        "stop": ["never, never"], "user": "a user who is called so"})
}

fn chat(max_tokens: u64) -> Value {
    json!({"model": "text-davinci-003", "messages": [{"role": "user", "content": CANARY}],
        "max_tokens": max_tokens, "ignore_eos": true})
}

/// Nobody who reads the log learns a prompt, an answer or a key.
fn assert_says_nothing(server: &Server) {
    let log = server.log();
    for secret in [CANARY, "never, never", "a user who", &KEY[3..], "a key that nobody has"] {
        assert!(!log.contains(secret), "{secret:?} is in the log:\n{log}");
    }
}

#[test]
fn row_26_a_request_has_one_line_with_what_it_cost_and_nothing_of_what_it_says() {
    let server = server("fake:step_ms=2,vocab=512", &[]);
    let client = server.client();
    for (id, path, mut body, is_stream) in [
        ("plain", COMPLETIONS, prompt(7), false),
        ("streamed", COMPLETIONS, prompt(7), true),
        ("chat", CHAT, chat(7), false),
        ("chat-streamed", CHAT, chat(7), true),
    ] {
        body["stream"] = json!(is_stream);
        let headers =
            format!("X-Request-Id: {id}\r\ntraceparent: 00-{TRACE}-b7ad6b7169203331-00\r\n");
        let answer = post(&client, path, &headers, &body);
        assert_eq!(answer.status, 200, "{}", answer.body);
        let line = line(&server, id);
        assert_eq!(fields(&line), of(&[&ALWAYS, &["key", "trace_id"], &TAKEN, &FINISHED]), "{id}");
        assert_eq!(line["message"], "request");
        assert_eq!(line["key"], "$MILLRACE_API_KEY");
        assert_eq!(
            (&line["route"], &line["status"], &line["method"]),
            (&json!(path), &json!(200), &json!("POST"))
        );
        assert_eq!(line["model"], "text-davinci-003");
        assert_eq!((&line["stream"], &line["complete"]), (&json!(is_stream), &json!(true)));
        assert_eq!(
            (&line["completion_tokens"], &line["finish_reason"]),
            (&json!(7), &json!("length"))
        );
        assert_eq!(line["trace_id"], TRACE);
        let answer_id = line["completion_id"].as_str().unwrap();
        assert!(
            answer.body.contains(&format!(r#""id":"{answer_id}""#)),
            "{answer_id}: {}",
            answer.body
        );
        assert!(answer_id.starts_with(if path == CHAT { "chatcmpl-" } else { "cmpl-" }));
        let ms = |field: &str| line[field].as_u64().unwrap();
        // Six steps follow the first token. Each is rounded down.
        assert!(ms("decode_ms") >= 11 && ms("prefill_ms") >= 1, "{line}");
        assert!(ms("ttft_ms") + ms("decode_ms") <= ms("ms") + 1, "{line}");
        assert!(ms("queue_ms") + ms("prefill_ms") <= ms("ttft_ms") + 1, "{line}");
        if !is_stream {
            let usage = &answer.json()["usage"];
            assert_eq!(line["prompt_tokens"], usage["prompt_tokens"]);
            assert_eq!(line["cached_tokens"], usage["prompt_tokens_details"]["cached_tokens"]);
        }
        let lines = server.log().lines().filter(|l| l.contains(&format!(r#""{id}""#))).count();
        assert_eq!(lines, 1, "{id}");
    }
    assert_says_nothing(&server);
}

#[test]
fn row_26_who_leaves_or_is_refused_has_a_line_too() {
    let server = server("fake:step_ms=2,vocab=512", &["--max-num-seqs", "1"]);
    let client = server.client();
    let mut body = prompt(3000);
    body["stream"] = json!(true);
    let asked = head(&client, COMPLETIONS, "X-Request-Id: leaves\r\n", &body.to_string());
    let socket = client.raw(asked.as_bytes()).unwrap();
    until(&client, "vllm:generation_tokens_total", |tokens| tokens > 5.0);
    let asked = head(&client, COMPLETIONS, "X-Request-Id: waits\r\n", &prompt(9).to_string());
    let waiting = client.raw(asked.as_bytes()).unwrap();
    until(&client, "vllm:num_requests_waiting", |waiting| waiting == 1.0);
    drop(waiting);
    let left = line(&server, "waits");
    assert_eq!(fields(&left), of(&[&ALWAYS, &["key"], &TAKEN]));
    assert_eq!((&left["status"], &left["complete"]), (&json!(499), &json!(false)));
    assert_eq!((&left["completion_tokens"], &left["finish_reason"]), (&json!(0), &json!("abort")));
    drop(socket);
    let left = line(&server, "leaves");
    assert_eq!(fields(&left), of(&[&ALWAYS, &["key"], &TAKEN, &["ttft_ms", "decode_ms"]]));
    assert_eq!((&left["complete"], &left["finish_reason"]), (&json!(false), &json!("abort")));
    assert!(left["completion_tokens"].as_u64().unwrap() > 0, "{left}");

    let wrong = json!({"model": "text-davinci-003", "prompt": CANARY, "max_tokens": -1});
    assert_eq!(post(&client, COMPLETIONS, "X-Request-Id: wrong\r\n", &wrong).status, 400);
    let refused = line(&server, "wrong");
    assert_eq!(fields(&refused), of(&[&ALWAYS, &["key", "error"]]));
    assert_eq!((&refused["status"], &refused["error"]), (&json!(400), &json!("invalid_request")));
    let stranger = server.client_with("sk-a key that nobody has");
    assert_eq!(post(&stranger, COMPLETIONS, "X-Request-Id: who\r\n", &prompt(1)).status, 401);
    let refused = line(&server, "who");
    assert_eq!(fields(&refused), of(&[&ALWAYS, &["error"]]));
    assert_eq!(
        (&refused["error"], &refused["route"]),
        (&json!("invalid_api_key"), &json!("unmatched"))
    );
    assert_says_nothing(&server);
}

#[test]
fn a_line_tells_why_each_choice_ended_and_that_a_step_failed() {
    let server = server("fake:vocab=512,fault=panic@4", &[]);
    let client = server.client();
    let id = |id: &str| format!("X-Request-Id: {id}\r\n");
    let mut body = prompt(2);
    body["stream"] = json!(true);
    body["max_tokens"] = json!(100);
    let answer = post(&client, COMPLETIONS, &id("fails"), &body);
    assert!(answer.body.contains("internal_error"), "{}", answer.body);
    let failed = line(&server, "fails");
    assert_eq!(
        (&failed["finish_reason"], &failed["error"]),
        (&json!("error"), &json!("internal_error"))
    );
    // By tokens that end the answer, and by their number: two choices of one request.
    let mut body = prompt(4);
    body["n"] = json!(2);
    assert_eq!(post(&client, COMPLETIONS, &id("two"), &body).status, 200);
    let two = line(&server, "two");
    assert_eq!((&two["finish_reason"], &two["completion_tokens"]), (&json!("length"), &json!(8)));
    // A call that the client is to execute.
    let nothing = json!({"type": "object", "properties": {}, "additionalProperties": false});
    let tool = json!({"type": "function", "function": {"name": "f", "parameters": nothing}});
    let mut body = chat(1000);
    body["ignore_eos"] = json!(false);
    (body["tools"], body["tool_choice"]) = (json!([tool]), json!("required"));
    body["parallel_tool_calls"] = json!(false);
    let answer = post(&client, CHAT, &id("calls"), &body);
    assert_eq!(answer.status, 200, "{}", answer.body);
    let told = answer.json()["choices"][0]["finish_reason"].clone();
    assert_eq!(
        (line(&server, "calls")["finish_reason"].clone(), told),
        (json!("tool_calls"), json!("tool_calls"))
    );
    assert_says_nothing(&server);
}

#[test]
fn a_bad_traceparent_is_none() {
    let server = server("fake:vocab=512", &[]);
    let client = server.client();
    for (i, bad) in
        ["00-0-0-00", &format!("ff-{TRACE}-b7ad6b7169203331-01"), "x"].iter().enumerate()
    {
        let headers = format!("X-Request-Id: bad-{i}\r\ntraceparent: {bad}\r\n");
        assert_eq!(post(&client, COMPLETIONS, &headers, &prompt(1)).status, 200);
        assert!(line(&server, &format!("bad-{i}"))["trace_id"].is_null());
    }
}

#[test]
fn the_page_for_operators_has_every_field_and_every_metric() {
    let page = include_str!("../../docs/observability.md");
    let named = |name: &str| page.contains(&format!("`{name}`"));
    let own = ["timestamp", "level", "target", "message"];
    let known = [&ALWAYS[..], &["key", "error", "trace_id"], &TAKEN, &FINISHED].concat();
    let missing: Vec<_> = known.iter().filter(|f| !own.contains(f) && !named(f)).collect();
    assert!(missing.is_empty(), "fields: {missing:?}");
    let server = server("fake:vocab=512", &[]);
    let client = server.client();
    assert_eq!(client.complete(&prompt(3)).status, 200);
    let scraped = client.get("/metrics").body;
    let metrics: Vec<_> = scraped
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .collect();
    assert!(metrics.len() > 30, "{scraped}");
    let missing: Vec<_> = metrics.iter().filter(|metric| !named(metric)).collect();
    assert!(missing.is_empty(), "metrics: {missing:?}");
}
