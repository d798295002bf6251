use std::time::Duration;

use serde_json::{Value, json};

use super::*;

/// status, type, code, param of an error, after checking the form of its body.
fn mapped(error: &ApiError) -> (u16, &'static str, Option<&'static str>, Option<String>) {
    let body: Value = serde_json::from_str(&error.body()).unwrap();
    assert!(error.body().starts_with(r#"{"error":{"message":""#));
    let object = body["error"].as_object().unwrap();
    assert_eq!(object.len(), 4, "{body}");
    assert!(!object["message"].as_str().unwrap().is_empty());
    assert_eq!(object["type"], error.kind());
    assert_eq!(object["code"], json!(error.code()));
    assert_eq!(object["param"], json!(error.param()));
    assert!(error.sse_event().starts_with(r#"data: {"error":{"#));
    assert!(error.sse_event().ends_with("}}\n\n"));
    (error.status().as_u16(), error.kind(), error.code(), error.param().map(str::to_owned))
}

fn limit(retry_after: Option<Duration>) -> ApiError {
    ApiError::RateLimited(RateLimit { what: Limited::Requests, limit: 5, retry_after })
}

#[test]
fn every_case_has_its_status_type_code_and_param() {
    let invalid = "invalid_request_error";
    let unavailable = "service_unavailable_error";
    let rejected = |r| ApiError::from_rejected(r, 7, 9, "prompt");
    let table = [
        (ApiError::InvalidJson("x".into()), 400, invalid, None, None),
        (ApiError::invalid("bad", "max_tokens"), 400, invalid, None, Some("max_tokens")),
        (ApiError::bad_request("bad"), 400, invalid, None, None),
        (
            ApiError::not_supported("suffix"),
            400,
            invalid,
            Some("unsupported_parameter"),
            Some("suffix"),
        ),
        (
            rejected(Rejected::NeverFits { max_tokens: 8 }),
            400,
            invalid,
            Some("context_length_exceeded"),
            Some("prompt"),
        ),
        (ApiError::Unauthorized, 401, invalid, Some("invalid_api_key"), None),
        (ApiError::HostNotAllowed, 403, invalid, Some("host_not_allowed"), None),
        (
            ApiError::ModelNotFound { model: "m".into(), param: Some("model") },
            404,
            invalid,
            Some("model_not_found"),
            Some("model"),
        ),
        (
            ApiError::UnknownUrl { method: Method::GET, path: "/x".into() },
            404,
            invalid,
            Some("unknown_url"),
            None,
        ),
        (
            ApiError::MethodNotAllowed {
                method: Method::GET,
                path: "/x".into(),
                allow: "POST".into(),
            },
            405,
            invalid,
            Some("method_not_supported"),
            None,
        ),
        (ApiError::BodyTimeout, 408, invalid, Some("request_timeout"), None),
        (ApiError::BodyTooLarge { limit_bytes: 1 }, 413, invalid, Some("request_too_large"), None),
        (
            ApiError::UnsupportedContentType("text/plain".into()),
            415,
            invalid,
            Some("unsupported_content_type"),
            None,
        ),
        (
            ApiError::UnsupportedContentEncoding("gzip".into()),
            415,
            invalid,
            Some("unsupported_content_encoding"),
            None,
        ),
        (rejected(Rejected::QueueFull), 429, "engine_overloaded", Some("engine_overloaded"), None),
        (limit(None), 429, "requests", Some("rate_limit_exceeded"), None),
        (ApiError::ModelLoading, 503, unavailable, Some("model_loading"), None),
        (rejected(Rejected::ShuttingDown), 503, unavailable, Some("shutting_down"), None),
        (ApiError::from(FailureKind::ShuttingDown), 503, unavailable, Some("shutting_down"), None),
        (ApiError::EngineStalled, 503, unavailable, Some("engine_stalled"), None),
        (ApiError::from(FailureKind::Constraint), 400, invalid, Some("grammar_too_complex"), None),
        (ApiError::from(FailureKind::Step), 500, "server_error", Some("internal_error"), None),
        (ApiError::from(FailureKind::ClientStalled), 408, invalid, Some("client_stalled"), None),
    ];
    for (error, status, kind, code, param) in table {
        assert_eq!(mapped(&error), (status, kind, code, param.map(str::to_owned)), "{error:?}");
    }
}

/// `Retry-After`, `retry-after-ms`, `x-should-retry`.
fn retry_headers(error: ApiError) -> (Option<String>, Option<String>, Option<String>) {
    let response = error.into_response();
    let get = |name: &str| response.headers().get(name).map(|v| v.to_str().unwrap().to_owned());
    (get("retry-after"), get("retry-after-ms"), get("x-should-retry"))
}

#[test]
fn retries_are_advised_only_where_they_help() {
    let some = |a: &str, b: &str| (Some(a.to_owned()), Some(b.to_owned()), Some("true".to_owned()));
    let never = (None, None, Some("false".to_owned()));
    assert_eq!(retry_headers(ApiError::Overloaded), some("1", "1000"));
    assert_eq!(retry_headers(ApiError::ModelLoading), some("2", "2000"));
    assert_eq!(retry_headers(ApiError::ShuttingDown), some("5", "5000"));
    assert_eq!(retry_headers(ApiError::EngineStalled), some("10", "10000"));
    assert_eq!(retry_headers(limit(Some(Duration::from_millis(1500)))), some("2", "1500"));
    assert_eq!(retry_headers(limit(Some(Duration::from_mins(15)))), some("60", "60000"));
    assert_eq!(retry_headers(limit(None)), never);
    assert_eq!(retry_headers(ApiError::Internal), never);
    assert_eq!(retry_headers(ApiError::Unauthorized), (None, None, None));
}

#[test]
fn headers_that_a_status_demands_are_there() {
    let header = |error: ApiError, name: &str| {
        let response = error.into_response();
        assert_eq!(response.headers()["content-type"], "application/json");
        response.headers()[name].to_str().unwrap().to_owned()
    };
    assert_eq!(header(ApiError::Unauthorized, "www-authenticate"), "Bearer");
    assert_eq!(header(ApiError::ShuttingDown, "connection"), "close");
    let method = ApiError::MethodNotAllowed {
        method: Method::PUT,
        path: "/v1/models".into(),
        allow: "GET, HEAD".into(),
    };
    assert_eq!(header(method, "allow"), "GET, HEAD");
}

#[test]
fn too_long_a_prompt_is_told_in_four_numbers() {
    let error = ApiError::ContextLength(ContextLength {
        limit: 4097,
        by_cache: false,
        prompt_tokens: 1044,
        completion_tokens: 3072,
        param: "prompt",
    });
    assert_eq!(
        error.message(),
        "This model's maximum context length is 4097 tokens, however you requested 4116 tokens \
        (1044 in your prompt; 3072 for the completion). Please reduce your prompt; or completion \
        length."
    );
}

#[test]
fn client_input_is_repeated_short_and_printable() {
    let model = format!("a\u{1b}[31m\n{}", "é".repeat(500));
    let error = ApiError::ModelNotFound { model, param: None };
    assert!(error.message().chars().count() < 150);
    assert!(!error.message().chars().any(char::is_control));
}
