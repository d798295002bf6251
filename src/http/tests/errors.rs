//! What a client is told of each thing that can go wrong, as it comes over the wire: status, `type`,
//! `code`, `param`, words, and advice on trying again.

use serde_json::Value;

use super::support::*;
use crate::config::HttpConfig;

const JSON: &str = "Content-Type: application/json\r\n";
const INVALID: &str = "invalid_request_error";

/// What is expected of an answer.
struct Told {
    status: u16,
    kind: &'static str,
    code: Option<&'static str>,
    param: Option<&'static str>,
    /// A part of the message.
    part: &'static str,
    /// `Retry-After`, `retry-after-ms`, `x-should-retry`.
    retry: [Option<&'static str>; 3],
}

const NO_ADVICE: [Option<&str>; 3] = [None; 3];

const fn told(
    status: u16,
    code: Option<&'static str>,
    param: Option<&'static str>,
    part: &'static str,
) -> Told {
    Told { status, kind: INVALID, code, param, part, retry: NO_ADVICE }
}

fn assert_told(answer: &str, expected: &Told) {
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    assert_eq!(status(answer), expected.status, "{answer}");
    assert_eq!(header(answer, "content-type"), Some("application/json"), "{answer}");
    assert!(body.starts_with(r#"{"error":{"message":""#), "{answer}");
    let body: Value = serde_json::from_str(body).unwrap();
    let error = body["error"].as_object().unwrap();
    assert_eq!(error.len(), 4, "{answer}");
    assert_eq!(error["type"], expected.kind, "{answer}");
    assert_eq!(error["code"].as_str(), expected.code, "{answer}");
    assert_eq!(error["param"].as_str(), expected.param, "{answer}");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains(expected.part), "{message}");
    let advice = ["retry-after", "retry-after-ms", "x-should-retry"];
    assert_eq!(advice.map(|name| header(answer, name)), expected.retry, "{answer}");
    let id = header(answer, "x-request-id");
    assert!(id.is_some() && id == header(answer, "request-id"), "{answer}");
}

fn complete(body: &str) -> String {
    with_key("POST /v1/completions", JSON, body)
}

#[tokio::test]
async fn without_the_right_key() {
    let server = start(config()).await;
    let refused = told(401, Some("invalid_api_key"), None, "Incorrect API key provided, or none.");
    for auth in ["", "Authorization: Bearer sk-wrong\r\n"] {
        let request = format!("GET /v1/models HTTP/1.1\r\n{auth}Connection: close\r\n\r\n");
        let answer = ask(server.addr, &request).await;
        assert_told(&answer, &refused);
        assert_eq!(header(&answer, "www-authenticate"), Some("Bearer"));
        for (name, value) in [("openai-version", "2020-10-01"), ("openai-organization", "millrace")]
        {
            assert_eq!(header(&answer, name), Some(value));
        }
    }
}

#[tokio::test]
async fn the_wrong_address_or_method() {
    let server = start(config()).await;
    let unknown = told(404, Some("unknown_url"), None, "Unknown request URL: POST /v1/nothing.");
    assert_told(&ask(server.addr, &with_key("POST /v1/nothing", JSON, "{}")).await, &unknown);
    let part = "Not allowed to PUT on /v1/completions. Allowed: POST.";
    let answer = ask(server.addr, &with_key("PUT /v1/completions", JSON, "{}")).await;
    assert_told(&answer, &told(405, Some("method_not_supported"), None, part));
    assert_eq!(header(&answer, "allow"), Some("POST"));
}

#[tokio::test]
async fn while_there_is_no_model_or_no_longer() {
    let server = start(config()).await;
    let unavailable = |code, part, retry| Told {
        kind: "service_unavailable_error",
        retry,
        ..told(503, Some(code), None, part)
    };
    let retry = [Some("2"), Some("2000"), Some("true")];
    let loading = unavailable("model_loading", "still loading", retry);
    assert_told(&ask(server.addr, &complete("{}")).await, &loading);
    // A held request keeps the server from ending while it drains.
    server.app.draining.cancel();
    let answer = ask(server.addr, &complete("{}")).await;
    let retry = [Some("5"), Some("5000"), Some("true")];
    assert_told(&answer, &unavailable("shutting_down", "shutting down", retry));
    assert_eq!(header(&answer, "connection"), Some("close"));
}

#[cfg(feature = "fake-model")]
mod with_model {
    use super::*;

    #[tokio::test]
    async fn a_request_that_cannot_be_read() {
        let server = start_ready(config()).await;
        let long = format!(r#"{{"prompt": "{}"}}"#, "x".repeat(2000));
        let twice = format!("{JSON}{JSON}");
        let type_code = Some("unsupported_content_type");
        for (headers, body, expected) in [
            (
                JSON,
                "{\"a\": 1,\n \"b\" 2}",
                told(
                    400,
                    None,
                    None,
                    "could not parse the JSON body of your request: expected `:` at line 2 column 6",
                ),
            ),
            (JSON, "", told(400, None, None, "EOF while parsing a value at line 1 column 0")),
            (JSON, "[1]", told(400, None, None, "expected a JSON object at line 1 column 0")),
            (
                JSON,
                r#"{"n": 1, "n": 2}"#,
                told(400, None, Some("n"), "duplicate key at line 1 column 16 - 'n'"),
            ),
            (
                JSON,
                r#"{"logit_bias": {"1": 1, "1": 2}}"#,
                told(400, None, Some("logit_bias.1"), "'logit_bias.1'"),
            ),
            (
                JSON,
                r#"{"prompt": [[1], [2, "x"]]}"#,
                told(400, None, Some("prompt[1][1]"), "'prompt[1][1]'"),
            ),
            (
                JSON,
                &long,
                told(413, Some("request_too_large"), None, "over the limit of 1000 bytes"),
            ),
            ("", "{}", told(415, type_code, None, "only accepts 'application/json'")),
            (
                &twice,
                "{}",
                told(
                    415,
                    type_code,
                    None,
                    "Unsupported content type: 'application/json, application/json'",
                ),
            ),
            (
                "Content-Type: application/x-www-form-urlencoded\r\n",
                "{}",
                told(415, type_code, None, "'application/x-www-form-urlencoded'"),
            ),
            (
                "Content-Type: application/json\r\nContent-Encoding: gzip\r\n",
                "{}",
                told(415, Some("unsupported_content_encoding"), None, "'gzip'"),
            ),
        ] {
            let request = with_key("POST /v1/completions", headers, body);
            assert_told(&ask(server.addr, &request).await, &expected);
        }
        let request = complete("{\"prompt\": \"?\"}").into_bytes();
        let request: Vec<u8> =
            request.into_iter().map(|b| if b == b'?' { 0xff } else { b }).collect();
        let mut client = Client::connect(server.addr).await;
        client.send(request).await;
        let answer = client.read_to_end().await;
        assert_told(&answer, &told(400, None, None, "not valid UTF-8 at line 1, byte 12"));
    }

    #[tokio::test]
    async fn a_field_that_is_missing_wrong_or_out_of_its_bounds() {
        let server = start_ready(config()).await;
        let context = "This model's maximum context length is 1024 tokens, however you requested \
            1026 tokens (1 in your prompt; 1025 for the completion). Please reduce your prompt; or \
            completion length.";
        for (fields, expected) in [
            (
                r#""prompt": "x""#,
                told(400, None, Some("model"), "you must provide a model parameter"),
            ),
            (
                r#""model": "x""#,
                told(404, Some("model_not_found"), Some("model"), "The model 'x' does not exist"),
            ),
            (
                r#""model": "fake", "max_tokens": "x""#,
                told(400, None, Some("max_tokens"), "'x' is not of type 'integer' - 'max_tokens'"),
            ),
            (
                r#""model": "fake", "max_tokens": false"#,
                told(
                    400,
                    None,
                    Some("max_tokens"),
                    "false is not of type 'integer' - 'max_tokens'",
                ),
            ),
            (
                r#""model": "fake", "temperature": 3.0"#,
                told(
                    400,
                    None,
                    Some("temperature"),
                    "3.0 is greater than the maximum of 2 - 'temperature'",
                ),
            ),
            (
                r#""model": "fake", "top_p": -1"#,
                told(400, None, Some("top_p"), "-1 is less than the minimum of 0 - 'top_p'"),
            ),
            (
                r#""model": "fake", "stream_options": {"include_usage": true}"#,
                told(400, None, Some("stream_options"), "Only allowed when 'stream' is true"),
            ),
            (
                r#""model": "fake", "prompt": [5], "max_tokens": 1025"#,
                told(400, Some("context_length_exceeded"), Some("prompt"), context),
            ),
        ] {
            let answer = ask(server.addr, &complete(&format!("{{{fields}}}"))).await;
            assert_told(&answer, &expected);
        }
        // What is not known is not an error.
        let unknown =
            r#"{"model": "fake", "prompt": "x", "max_tokens": 1, "unheard_of": {"a": 1}}"#;
        assert_eq!(status(&ask(server.addr, &complete(unknown)).await), 200);
    }

    #[tokio::test]
    async fn the_servers_own_faults() {
        let server =
            start_with_model(config(), "fake:end_every=0,fault=panic@1,fault=panic@4").await;
        let fault = Told {
            kind: "server_error",
            retry: [None, None, Some("false")],
            ..told(500, Some("internal_error"), None, "The server had an error")
        };
        let body = |rest: &str| complete(&format!(r#"{{"model": "fake", "prompt": "x", {rest}}}"#));
        assert_told(&ask(server.addr, &body(r#""max_tokens": 1"#)).await, &fault);
        // Mid-stream: the status is sent, so the error is the last event.
        let answer = ask(server.addr, &body(r#""max_tokens": 40, "stream": true"#)).await;
        assert_eq!(status(&answer), 200);
        assert_eq!(answer.matches(r#"data: {"error":{"message":""#).count(), 1, "{answer}");
        assert!(answer.contains(r#""type":"server_error","param":null,"code":"internal_error""#));
        assert!(!answer.contains("[DONE]"), "{answer}");
    }

    #[tokio::test]
    async fn an_engine_that_hangs() {
        let patience = std::time::Duration::from_millis(100);
        let impatient =
            HttpConfig { engine_stall_timeout: patience, sse_ping_interval: patience, ..config() };
        let server = start_with_model(impatient, "fake:fault=hang@1").await;
        let stalled = Told {
            kind: "service_unavailable_error",
            retry: [Some("10"), Some("10000"), Some("true")],
            ..told(503, Some("engine_stalled"), None, "The engine makes no progress")
        };
        let body = complete(r#"{"model": "fake", "prompt": "x", "max_tokens": 1}"#);
        // The first one waits for the step that hangs, those after it are refused at the door.
        for _ in 0..2 {
            assert_told(&ask(server.addr, &body).await, &stalled);
        }
        server.shutdown.now.cancel();
    }
}
