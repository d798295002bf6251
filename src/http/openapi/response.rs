//! What comes back: schemas of answers from their types, and one shared response for each status that
//! stands for an error, with the very bodies that the server sends as its examples.

use std::collections::BTreeMap;
use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::header::{Header, HeaderBuilder};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{Components, Ref, RefOr, ResponseBuilder, Schema};

use crate::http::openai::error::{ApiError, ContextLength, ErrorBody, Limited, RateLimit};

/// Every kind of error, as a client may meet it, and in a word what led to it.
fn samples() -> Vec<(&'static str, ApiError)> {
    let text = str::to_owned;
    let (method, path) = (Method::PUT, text("/v1/completions"));
    let context = ContextLength {
        limit: 2048,
        by_cache: false,
        prompt_tokens: 1044,
        completion_tokens: 1500,
        param: "prompt",
    };
    let wait = Some(Duration::from_millis(1500));
    let limit = RateLimit { what: Limited::Requests, limit: 60, retry_after: wait };
    vec![
        ("Malformed JSON", ApiError::InvalidJson(text("expected `:` at line 2 column 6"))),
        (
            "A wrong type",
            ApiError::invalid("'x' is not of type 'integer' - 'max_tokens'", "max_tokens"),
        ),
        (
            "Out of bounds",
            ApiError::invalid(
                "3.0 is greater than the maximum of 2 - 'temperature'",
                "temperature",
            ),
        ),
        ("Too long", ApiError::ContextLength(context)),
        ("A grammar that is too much work", ApiError::GrammarTooComplex),
        ("Not HTTP", ApiError::NotHttp),
        ("No key, or a wrong one", ApiError::Unauthorized),
        ("A keyless server under another name", ApiError::HostNotAllowed),
        ("No such model", ApiError::ModelNotFound { model: text("gpt-5"), param: Some("model") }),
        (
            "No such address",
            ApiError::UnknownUrl { method: Method::POST, path: text("/v1/completion") },
        ),
        ("Another method", ApiError::MethodNotAllowed { method, path, allow: text("POST") }),
        ("The body stopped coming", ApiError::BodyTimeout),
        ("The body is too long", ApiError::BodyTooLarge { limit_bytes: 8 << 20 }),
        ("The address is too long", ApiError::UriTooLong),
        ("Not JSON", ApiError::UnsupportedContentType(text("text/plain"))),
        ("Packed", ApiError::UnsupportedContentEncoding(text("gzip"))),
        ("The queue is full", ApiError::Overloaded),
        ("A limit of the key", ApiError::RateLimited(limit)),
        ("The head is too long", ApiError::HeadTooLong),
        ("A fault of the server", ApiError::Internal),
        ("The model is loading", ApiError::ModelLoading),
        ("The server is going down", ApiError::ShuttingDown),
        ("The engine hangs", ApiError::EngineStalled),
    ]
}

/// The shared response of a status.
pub(super) fn error(status: StatusCode) -> Ref {
    Ref::from_response_name(name(status))
}

fn name(status: StatusCode) -> String {
    status.canonical_reason().unwrap_or_default().replace([' ', '-'], "")
}

/// All that routes share.
pub(super) fn add_to(components: &mut Components) {
    let body = reference::<ErrorBody<'_>>("Error", components);
    let mut by_status = BTreeMap::<u16, Vec<_>>::new();
    for (summary, error) in samples() {
        by_status.entry(error.status().as_u16()).or_default().push((summary, error));
    }
    for (status, samples) in by_status {
        let Ok(status) = StatusCode::from_u16(status) else { continue };
        components.responses.insert(name(status), shared(&samples, body.clone()).into());
    }
}

fn shared(samples: &[(&'static str, ApiError)], body: RefOr<Schema>) -> ResponseBuilder {
    let summaries: Vec<_> = samples.iter().map(|(summary, _)| *summary).collect();
    let examples = samples.iter().map(|(summary, error)| {
        let body: Value = serde_json::from_str(&error.body()).unwrap_or_default();
        let name = error.reason();
        let example = ExampleBuilder::new().summary(*summary).value(Some(body)).build();
        (name, example)
    });
    let content = ContentBuilder::new().schema(Some(body)).examples_from_iter(examples).build();
    let mut response = with_id(ResponseBuilder::new())
        .description(format!("{}.", summaries.join("; ")))
        .content("application/json", content);
    for (name, kind, about) in ERROR_HEADERS {
        if samples.iter().any(|(_, error)| error.headers().contains_key(name)) {
            response = response.header(name, header(kind, about));
        }
    }
    response
}

const ERROR_HEADERS: [(&str, Type, &str); 6] = [
    ("retry-after", Type::Integer, "Seconds to wait, at most 60."),
    ("retry-after-ms", Type::Integer, "The same in milliseconds."),
    ("x-should-retry", Type::String, "`false`: the same request would fail again."),
    ("www-authenticate", Type::String, "`Bearer`."),
    ("allow", Type::String, "The methods of this address."),
    ("connection", Type::String, "`close`: the connection is not used again."),
];

/// On every answer.
pub(super) fn with_id(response: ResponseBuilder) -> ResponseBuilder {
    let about = "Names the request in the server's log: the client's own, or one of ours.";
    response.header("x-request-id", header(Type::String, about))
}

pub(super) fn header(kind: Type, about: &str) -> Header {
    let schema = ObjectBuilder::new().schema_type(kind);
    HeaderBuilder::new().schema(Some(schema)).description(Some(about)).build()
}

/// What SDKs read, on every answer of the API.
pub(super) fn with_api(response: ResponseBuilder) -> ResponseBuilder {
    let limits = ["limit", "remaining", "reset"]
        .map(|part| ["requests", "tokens"].map(|what| format!("x-ratelimit-{part}-{what}")));
    let about = "Where the key has such a limit.";
    let response = limits
        .into_iter()
        .flatten()
        .fold(response, |response, name| response.header(name, header(Type::String, about)));
    response
        .header("openai-version", header(Type::String, "Always 2020-10-01."))
        .header("openai-organization", header(Type::String, "Always millrace."))
        .header("openai-processing-ms", header(Type::Integer, "Until the head of the answer."))
}

/// Puts a type under this name among the components, and all that it is made of.
pub(super) fn reference<T: ToSchema>(name: &str, components: &mut Components) -> RefOr<Schema> {
    let mut parts = vec![(name.to_owned(), T::schema())];
    T::schemas(&mut parts);
    components.schemas.extend(parts);
    Ref::from_schema_name(name).into()
}
