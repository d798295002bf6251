//! The playground at `/`: one page for people, embedded in the binary, that talks to the API like any
//! other client.
//!
//! Its sources in `webui/` are plain HTML, CSS and JavaScript modules, which Node can test one by one.
//! They become a single document when the server starts, so that one public path is enough, and the
//! Content-Security-Policy can name the hash of the very script and style that may run.

use std::sync::Arc;

use axum::Router;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderName, HeaderValue,
    IF_NONE_MATCH, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderMap, StatusCode};
use sha2::{Digest as _, Sha256};

use super::App;
use super::auth::Access;

const DOCUMENT: &str = include_str!("webui/index.html");

/// In the order of the cascade.
const STYLES: [&str; 3] = [
    include_str!("webui/base.css"),
    include_str!("webui/controls.css"),
    include_str!("webui/output.css"),
];

/// Each after those that it imports from.
const MODULES: [&str; 11] = [
    include_str!("webui/dom.mjs"),
    include_str!("webui/sse.mjs"),
    include_str!("webui/api.mjs"),
    include_str!("webui/answer.mjs"),
    include_str!("webui/settings.mjs"),
    include_str!("webui/snippets.mjs"),
    include_str!("webui/tokens.mjs"),
    include_str!("webui/run.mjs"),
    include_str!("webui/complete.mjs"),
    include_str!("webui/chat.mjs"),
    include_str!("webui/main.mjs"),
];

/// Alternatives that the page asks for at each token, where the server gives as many.
const ALTERNATIVES: usize = 5;

/// The route of the page. It asks for a key if the server does.
pub(super) fn routes(app: &App) -> Router<Arc<App>> {
    let keyed = app.access == Access::Keys;
    let page = Arc::new(Page::new(keyed, app.config.limits.logprobs.min(ALTERNATIVES)));
    Router::new().route("/", get(async move |headers: HeaderMap| page.answer(&headers)))
}

/// The document, and what is sent with it.
#[derive(Debug)]
struct Page {
    html: String,
    headers: HeaderMap,
}

impl Page {
    fn new(keyed: bool, alternatives: usize) -> Self {
        let style = STYLES.concat();
        let script = script();
        let html = DOCUMENT
            .replace("{{keyed}}", if keyed { "true" } else { "false" })
            .replace("{{alternatives}}", &alternatives.to_string())
            .replace("{{version}}", env!("CARGO_PKG_VERSION"))
            .replace("{{style}}", &style)
            .replace("{{script}}", &script);
        // Everything else is denied. Trusted types: not even the script can turn text into markup.
        let policy = format!(
            "default-src 'none'; script-src '{}'; style-src '{}'; img-src data:; connect-src 'self'; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
             require-trusted-types-for 'script'; trusted-types 'none'",
            source(&script),
            source(&style)
        );
        let headers = headers(&policy, &html);
        Self { html, headers }
    }

    /// The page, or 304 to a browser that has this very one.
    fn answer(&self, request: &HeaderMap) -> Response {
        let known = request.get_all(IF_NONE_MATCH).iter();
        let mut tags = known.filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
        let etag = self.headers.get(ETAG).and_then(|v| v.to_str().ok()).unwrap_or_default();
        // Weak comparison, as RFC 9110 section 13.1.2 has it: a proxy that packs the page makes the tag weak.
        if tags.any(|t| matches!(t.trim(), "*") || t.trim().trim_start_matches("W/") == etag) {
            return (StatusCode::NOT_MODIFIED, self.headers.clone()).into_response();
        }
        (self.headers.clone(), self.html.clone()).into_response()
    }
}

/// All modules as one: in one scope nothing is imported or exported.
fn script() -> String {
    let lines = MODULES.iter().flat_map(|module| module.lines());
    let lines = lines.filter(|line| !line.starts_with("import "));
    lines.flat_map(|line| [line.strip_prefix("export ").unwrap_or(line), "\n"]).collect()
}

/// The source expression that lets an inline element of this text run.
pub(super) fn source(text: &str) -> String {
    format!("sha256-{}", STANDARD.encode(Sha256::digest(text)))
}

/// What goes with a page of ours that is shown in a browser.
pub(super) fn headers(policy: &str, html: &str) -> HeaderMap {
    let etag = format!("\"{}\"", STANDARD.encode(&Sha256::digest(html)[..18]));
    let fixed = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        // Asked for again each time, and sent again only when it changed.
        (CACHE_CONTROL, "no-cache"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        // What `frame-ancestors` says, for browsers that do not know it.
        (X_FRAME_OPTIONS, "DENY"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (
            HeaderName::from_static("permissions-policy"),
            "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
        ),
    ];
    let made = [(CONTENT_SECURITY_POLICY, policy), (ETAG, &etag)];
    let fixed = fixed.into_iter().map(|(name, value)| (name, HeaderValue::from_static(value)));
    // Both are ASCII: a value that is not would leave the header out, and a test would say so.
    let made = made.into_iter().filter_map(|(n, v)| Some((n, HeaderValue::from_str(v).ok()?)));
    fixed.chain(made).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Text of the only element of this name.
    fn element<'a>(html: &'a str, open: &str, close: &str) -> &'a str {
        let (_, rest) = html.split_once(open).unwrap();
        let (text, rest) = rest.split_once(close).unwrap();
        assert!(!rest.contains(close), "more than one {close}");
        text
    }

    #[test]
    fn the_policy_names_the_script_and_the_style_that_the_page_has() {
        let page = Page::new(true, 5);
        let policy = page.headers[CONTENT_SECURITY_POLICY].to_str().unwrap();
        let script = element(&page.html, "<script type=\"module\">", "</script>");
        let style = element(&page.html, "<style>", "</style>");
        assert!(policy.contains(&format!("script-src '{}';", source(script))));
        assert!(policy.contains(&format!("style-src '{}';", source(style))));
        assert!(!["-inline", "-eval", "-hashes"].iter().any(|word| policy.contains(word)));
        assert!(policy.starts_with("default-src 'none';"));
    }

    #[test]
    fn nothing_in_the_page_needs_what_the_policy_denies() {
        let html = Page::new(true, 5).html;
        let denied = ["style", "onclick", "oninput", "onload", "onerror", "src"];
        for attribute in denied.map(|name| format!(" {name}=\"")) {
            assert!(!html.contains(&attribute), "{attribute}");
        }
        for denied in ["javascript:", "{{"] {
            assert!(!html.contains(denied), "{denied}");
        }
        let style = element(&html, "<style>", "</style>");
        for denied in ["@import", "url("] {
            assert!(!style.contains(denied), "{denied}");
        }
        for line in script().lines() {
            let begins = |word: &str| line.trim_start().starts_with(word);
            assert!(!begins("import ") && !begins("export "), "{line}");
        }
    }

    #[test]
    fn the_page_says_whether_it_needs_a_key_and_the_tag_tells_the_two_apart() {
        let (keyed, keyless) = (Page::new(true, 5), Page::new(false, 5));
        assert!(keyed.html.contains("data-keyed=\"true\""));
        assert!(keyless.html.contains("data-keyed=\"false\""));
        assert_ne!(keyed.headers[ETAG], keyless.headers[ETAG]);
    }
}
