//! Cross-origin requests.

use super::support::*;
use crate::config::HttpConfig;

const PREFLIGHT: &str = "OPTIONS /v1/completions HTTP/1.1\r\nHost: localhost\r\n\
    Access-Control-Request-Method: POST\r\n\
    Access-Control-Request-Headers: authorization, content-type\r\nConnection: close\r\n";

fn listed() -> HttpConfig {
    HttpConfig { cors_origins: vec!["https://app.example".to_owned()], ..config() }
}

#[tokio::test]
async fn a_preflight_of_a_listed_origin_passes_without_a_key() {
    let server = start(listed()).await;
    let answer = ask(server.addr, &format!("{PREFLIGHT}Origin: https://app.example\r\n\r\n")).await;
    assert_eq!(status(&answer), 204);
    assert_eq!(header(&answer, "access-control-allow-origin"), Some("https://app.example"));
    let allowed = header(&answer, "access-control-allow-headers");
    assert_eq!(allowed, Some("authorization, content-type"));
    assert!(header(&answer, "access-control-allow-methods").unwrap().contains("POST"));
    assert_eq!(header(&answer, "access-control-allow-credentials"), None);
}

#[tokio::test]
async fn any_other_options_request_is_guarded_like_all() {
    for cors in [listed(), config()] {
        let server = start(cors).await;
        for origin in ["Origin: https://evil.example\r\n", "Origin: null\r\n", ""] {
            let answer = ask(server.addr, &format!("{PREFLIGHT}{origin}\r\n")).await;
            assert_eq!(status(&answer), 401, "{origin}");
            assert_eq!(header(&answer, "access-control-allow-origin"), None);
        }
        let plain = "OPTIONS /v1/completions HTTP/1.1\r\nHost: localhost\r\n\
            Origin: https://app.example\r\nConnection: close\r\n\r\n";
        assert_eq!(status(&ask(server.addr, plain).await), 401);
    }
}

#[tokio::test]
async fn a_listed_origin_can_read_answers_and_errors() {
    let server = start(listed()).await;
    let origin = "Origin: https://app.example\r\n";
    for request in [
        with_key("GET /v1/models", origin, ""),
        format!("GET /v1/models HTTP/1.1\r\nHost: localhost\r\n{origin}Connection: close\r\n\r\n"),
    ] {
        let answer = ask(server.addr, &request).await;
        assert_eq!(header(&answer, "access-control-allow-origin"), Some("https://app.example"));
        assert!(header(&answer, "access-control-expose-headers").unwrap().contains("X-Request-ID"));
        assert_eq!(header(&answer, "vary"), Some("Origin"));
    }
}
