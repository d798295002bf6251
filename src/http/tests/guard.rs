//! Deny by default: what answers without a key, and what does not.

use std::collections::BTreeSet;

use super::support::*;
use crate::config::HttpConfig;
use crate::keys::{self, KeyStore};

const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"];

const PUBLIC: [&str; 8] = [
    "/",
    "/docs",
    "/openapi.json",
    "/health",
    "/health/live",
    "/health/ready",
    "/metrics",
    "/version",
];

const GUARDED: [&str; 17] = [
    "/v1/completions",
    "/v1/engines/davinci/completions",
    "/openai/deployments/x/completions",
    "/v1/chat/completions",
    "/v1/engines/davinci/chat/completions",
    "/openai/deployments/x/chat/completions",
    "/v1/models",
    "/v1/models/x",
    "/v1/engines",
    "/v1/engines/x",
    "/tokenize",
    "/detokenize",
    "/tokenizer_info",
    "/v1/tokenize",
    "/v1/detokenize",
    "/v1/tokenizer_info",
    "/v1/echo",
];

/// Nothing is at these, but they look as if something were.
const CROOKED: [&str; 13] = [
    "/v1",
    "/v1/",
    "/v1/models/",
    "//v1/models",
    "/v1//models",
    "/V1/models",
    "/v1/../health",
    "/health/../v1/models",
    "/health/",
    "/%68ealth",
    "/health/live/x",
    "/metrics/",
    "/no/such/route",
];

/// All that a client can tell of an answer, but for what differs each time.
fn essence(answer: &str) -> String {
    let differs = ["x-request-id", "request-id", "date", "openai-processing-ms"];
    let lines = answer.lines().filter(|line| {
        let name = line.split(": ").next().unwrap_or_default().to_lowercase();
        !differs.contains(&name.as_str())
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn request(method: &str, path: &str, auth: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{auth}Connection: close\r\n\r\n")
}

#[tokio::test]
async fn without_a_key_nothing_shows_but_the_public_routes() {
    let server = start(config()).await;
    let mut seen = BTreeSet::new();
    for path in PUBLIC.iter().chain(&GUARDED).chain(&CROOKED) {
        for method in METHODS {
            let answer = ask(server.addr, &request(method, path, "")).await;
            if PUBLIC.contains(path) && ["GET", "HEAD"].contains(&method) {
                assert!([200, 503].contains(&status(&answer)), "{method} {path}: {answer}");
                continue;
            }
            assert_eq!(status(&answer), 401, "{method} {path}: {answer}");
            if method != "HEAD" {
                seen.insert(essence(&answer));
            }
        }
    }
    assert_eq!(seen.len(), 1, "401 has one form: {seen:#?}");
}

#[tokio::test]
async fn a_bad_key_is_answered_like_no_key_however_it_is_bad() {
    let server = start(config()).await;
    let upper = KEY.to_uppercase();
    let prefix = &KEY[..KEY.len() - 1];
    let bad = [
        String::new(),
        "Authorization: Bearer sk-wrong\r\n".to_owned(),
        format!("Authorization: Bearer {upper}\r\n"),
        format!("Authorization: Bearer {prefix}\r\n"),
        format!("Authorization: Bearer {KEY}x\r\n"),
        format!("Authorization: Bearer  {KEY}\r\n"),
        format!("Authorization: Bearer\t{KEY}\r\n"),
        format!("Authorization: Bearer {KEY} {KEY}\r\n"),
        format!("Authorization: Bearer {KEY}, Bearer {KEY}\r\n"),
        format!("Authorization: {KEY}\r\n"),
        format!("Authorization: Basic {KEY}\r\n"),
        format!("Authorization: Bearer{KEY}\r\n"),
        "Authorization: Bearer \r\n".to_owned(),
        "Authorization: Bearer\r\n".to_owned(),
        "Authorization:\r\n".to_owned(),
        format!("Authorization: Bearer {KEY}\r\nAuthorization: Bearer {KEY}\r\n"),
        format!("Authorization: Bearer {KEY}\r\nAuthorization: Bearer sk-wrong\r\n"),
        format!("api-key: {KEY}\r\n"),
        format!("x-api-key: {KEY}\r\n"),
        format!("Proxy-Authorization: Bearer {KEY}\r\n"),
        format!("Cookie: key={KEY}\r\n"),
        "Authorization: Bearer caf\u{e9}\r\n".to_owned(),
    ];
    let mut seen = BTreeSet::new();
    for auth in &bad {
        let answer = ask(server.addr, &request("GET", "/v1/models", auth)).await;
        assert_eq!(status(&answer), 401, "{auth:?}");
        seen.insert(essence(&answer));
    }
    for path in [format!("/v1/models?key={KEY}"), format!("/v1/models?api-key={KEY}")] {
        seen.insert(essence(&ask(server.addr, &request("GET", &path, "")).await));
    }
    assert_eq!(seen.len(), 1, "401 has one form: {seen:#?}");
    let answer = seen.pop_first().unwrap();
    assert!(answer.contains("www-authenticate: Bearer") && answer.contains("invalid_api_key"));
}

#[tokio::test]
async fn a_refusal_before_the_body_ends_the_connection_and_says_so() {
    let server = start(config()).await;
    let post = |path: &str, auth: &str, body: &str| {
        let length = body.len();
        format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\n{auth}Content-Length: {length}\r\n\r\n{body}"
        )
    };
    let auth = format!("Authorization: Bearer {KEY}\r\n");
    let long = "x".repeat(2000);
    let early =
        [("/v1/completions", "", 401), ("/nowhere", &auth, 404), ("/v1/models", &auth, 405)];
    for (path, auth, expected) in early {
        for body in ["{}", &long] {
            let answer = ask(server.addr, &post(path, auth, body)).await;
            assert_eq!((status(&answer), header(&answer, "connection")), (expected, Some("close")));
        }
    }
    let mut client = Client::connect(server.addr).await;
    for _ in 0..2 {
        client.send(post("/nowhere", &auth, "")).await;
        let answer = client.read_until("unknown_url").await;
        assert_eq!(header(&answer, "connection"), None, "nothing is left unread");
    }
}

#[tokio::test]
async fn with_a_key_routes_paths_and_methods_answer_for_themselves() {
    let server = start(config()).await;
    for scheme in ["Bearer", "bearer", "BEARER"] {
        let auth = format!("Authorization: {scheme} {KEY}\r\n");
        let answer = ask(server.addr, &request("GET", "/v1/models", &auth)).await;
        assert_eq!(code(&answer), "model_loading", "{scheme}");
    }
    let auth = format!("Authorization: Bearer {KEY}\r\n");
    let answer = ask(server.addr, &request("POST", "/health", &auth)).await;
    assert_eq!((status(&answer), header(&answer, "allow")), (405, Some("GET, HEAD")));
    for path in CROOKED {
        let answer = ask(server.addr, &request("GET", path, &auth)).await;
        assert_eq!((status(&answer), code(&answer).as_str()), (404, "unknown_url"), "{path}");
    }
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_ones_before_there_is_a_model() {
    let server = start(config()).await;
    let auth = format!("Authorization: Bearer {KEY}\r\n");
    for path in GUARDED {
        let answer = ask(server.addr, &request("DELETE", path, &auth)).await;
        assert_eq!((status(&answer), code(&answer).as_str()), (405, "method_not_supported"));
        let allow = header(&answer, "allow").unwrap();
        assert!(["GET, HEAD", "POST"].contains(&allow), "{path}: {allow}");
        assert!(answer.contains(&format!("Allowed: {allow}.")));
    }
}

#[tokio::test]
async fn the_azure_header_counts_on_azure_routes_alone() {
    let server = start(config()).await;
    let azure = "/openai/deployments/x/completions";
    let key = format!("api-key: {KEY}\r\n");
    let both = format!("api-key: {KEY}\r\nAuthorization: Bearer {KEY}\r\n");
    let twice = format!("api-key: {KEY}\r\napi-key: {KEY}\r\n");
    let expected = [(azure, &key, 503), (azure, &both, 401), (azure, &twice, 401)];
    for (path, auth, expected) in expected {
        let answer = ask(server.addr, &request("POST", path, auth)).await;
        assert_eq!(status(&answer), expected, "{auth:?}");
    }
    let answer = ask(server.addr, &request("POST", "/v1/completions", &key)).await;
    assert_eq!(status(&answer), 401);
}

#[tokio::test]
async fn metrics_can_be_guarded_too() {
    let server = start(HttpConfig { metrics_require_key: true, ..config() }).await;
    assert_eq!(status(&get_public(server.addr, "/metrics").await), 401);
    assert_eq!(status(&ask(server.addr, &with_key("GET /metrics", "", "")).await), 200);
}

#[tokio::test]
async fn a_keyless_server_answers_to_local_names_alone() {
    let keys = KeyStore::open(None, None).unwrap();
    let server = start_with(config(), &keyless(false), keys).await;
    let get = |path: &str, hosts: &str| {
        format!("GET {path} HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n")
    };
    for host in ["localhost", "LocalHost:1", "127.0.0.1:8000", "[::1]", "[::1]:80"] {
        let answer = ask(server.addr, &get("/v1/models", &format!("Host: {host}\r\n"))).await;
        assert_eq!(code(&answer), "model_loading", "{host}");
    }
    let bad = [
        "",
        "Host:\r\n",
        "Host: evil.example\r\n",
        "Host: localhost.evil.example\r\n",
        "Host: localhost@evil.example\r\n",
        "Host: evil.example:80@localhost\r\n",
        "Host: 127.0.0.2\r\n",
        "Host: localhost\r\nHost: localhost\r\n",
        "Host: localhost, evil.example\r\n",
    ];
    for hosts in bad {
        for path in ["/v1/models", "/metrics", "/health", "/", "/no/such"] {
            let answer = ask(server.addr, &get(path, hosts)).await;
            assert_eq!((status(&answer), code(&answer).as_str()), (403, "host_not_allowed"));
        }
    }
    let absolute = get("http://evil.example/metrics", "Host: localhost\r\n");
    assert_eq!(status(&ask(server.addr, &absolute).await), 403);
}

#[tokio::test]
async fn a_server_that_is_open_on_purpose_answers_to_any_name() {
    let keys = KeyStore::open(None, None).unwrap();
    let server = start_with(config(), &keyless(true), keys).await;
    let request = "GET /v1/models HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    assert_eq!(code(&ask(server.addr, request).await), "model_loading");
}

#[tokio::test]
async fn without_any_key_nobody_gets_in() {
    let server = start_with(
        config(),
        &crate::config::AuthConfig::default(),
        KeyStore::open(None, None).unwrap(),
    )
    .await;
    let empty = keys::digest(b"");
    assert!(server.app.keys.find(&empty).is_none());
    assert_eq!(status(&ask(server.addr, &with_key("GET /v1/models", "", "")).await), 401);
}
