//! The pages for people: what goes with them, and who gets them.

use super::support::*;
use crate::config::HttpConfig;
use crate::keys::KeyStore;

#[tokio::test]
async fn the_playground_comes_without_a_key_and_lets_nothing_else_in() {
    let server = start(config()).await;
    let answer = get_public(server.addr, "/").await;
    assert_eq!(status(&answer), 200);
    let policy = header(&answer, "content-security-policy").unwrap();
    for rule in [
        "default-src 'none'",
        "script-src 'sha256-",
        "style-src 'sha256-",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    ] {
        assert!(policy.contains(rule), "{rule} in {policy}");
    }
    for (name, value) in [
        ("content-type", "text/html; charset=utf-8"),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("x-frame-options", "DENY"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        ("cache-control", "no-cache"),
    ] {
        assert_eq!(header(&answer, name), Some(value), "{name}");
    }
    assert!(header(&answer, "permissions-policy").is_some());
    assert_eq!(header(&answer, "openai-version"), None, "it is no answer of the API");
    assert!(answer.contains("data-keyed=\"true\"") && answer.ends_with("</html>\n"));
}

#[tokio::test]
async fn a_browser_that_has_the_page_is_told_so() {
    let server = start(config()).await;
    let tag = header(&get_public(server.addr, "/").await, "etag").unwrap().to_owned();
    let ask_with = async |method: &str, tag: &str| {
        let line = format!("{method} / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
        ask(server.addr, &format!("{line}If-None-Match: {tag}\r\n\r\n")).await
    };
    for known in [tag.clone(), format!("W/{tag}"), format!("\"other\", {tag}"), "*".to_owned()] {
        let answer = ask_with("GET", &known).await;
        assert_eq!(
            (status(&answer), header(&answer, "etag")),
            (304, Some(tag.as_str())),
            "{known}"
        );
        assert!(answer.ends_with("\r\n\r\n"), "no body");
        assert!(header(&answer, "content-security-policy").is_some());
    }
    assert_eq!(status(&ask_with("GET", "\"other\"").await), 200);
    let head = ask_with("HEAD", "\"other\"").await;
    assert!(status(&head) == 200 && head.ends_with("\r\n\r\n"));
}

#[tokio::test]
async fn without_the_pages_their_path_is_one_like_any_other() {
    let off = || HttpConfig { webui: false, ..config() };
    let server = start(off()).await;
    assert_eq!(status(&get_public(server.addr, "/").await), 401);
    for path in ["/", "/docs"] {
        let answer = ask(server.addr, &with_key(&format!("GET {path}"), "", "")).await;
        assert_eq!((status(&answer), code(&answer).as_str()), (404, "unknown_url"));
    }
    let server = start_with(off(), &keyless(false), KeyStore::open(None, None).unwrap()).await;
    let answer = get_public(server.addr, "/").await;
    assert_eq!((status(&answer), code(&answer).as_str()), (404, "unknown_url"));
}

#[tokio::test]
async fn a_keyless_server_shows_the_page_to_local_names_alone() {
    let keys = KeyStore::open(None, None).unwrap();
    let server = start_with(config(), &keyless(false), keys).await;
    let answer = get_public(server.addr, "/").await;
    assert!(status(&answer) == 200 && answer.contains("data-keyed=\"false\""));
    let rebound = "GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    assert_eq!(status(&ask(server.addr, rebound).await), 403);
}
