//! The only maker of error bodies: one enum, one mapping to OpenAI's form, status and headers.
//!
//! Every error answer reads `{"error": {"message", "type", "param", "code"}}`, all four keys present
//! and `code` a string or null, because strict SDKs fail on anything else. Status 409 is never used
//! (openai-python 0.28 retries it for ever) and `Retry-After` stays at most [`MAX_RETRY_AFTER_S`]
//! (beyond a minute the Node SDK ignores it, beyond two the Python one stops retrying).

mod numbers;

use std::borrow::Cow;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, StatusCode};
use serde::Serialize;

pub use self::numbers::{ContextLength, Limited, RateLimit};
use crate::engine::handle::Rejected;
use crate::engine::message::FailureKind;

/// Longest `Retry-After` that the SDKs honour, in seconds.
pub const MAX_RETRY_AFTER_S: u64 = 60;

/// Counter of refused requests, by `reason` (a closed set: [`ApiError::reason`]).
pub const REJECTED_TOTAL: &str = "millrace_requests_rejected_total";

/// Longest request head, in bytes.
pub const HEAD_BYTES_MAX: usize = 64 << 10;

/// Longest piece of client input that an error message repeats, in characters.
const ECHO_CHARS_MAX: usize = 100;

/// Everything that a client can be told went wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// 400: the body is not the JSON it should be. The message says where.
    #[error("invalid json: {0}")]
    InvalidJson(String),
    /// 400: a field is missing, has the wrong type, or is out of its bounds.
    #[error("invalid request: {message}")]
    Invalid { message: String, param: Option<Cow<'static, str>> },
    /// 400: a field of the API that this server does not have (yet).
    #[error("unsupported: {message}")]
    Unsupported { message: String, param: Option<Cow<'static, str>> },
    /// 400: prompt and completion do not fit into the context or the KV cache.
    #[error("context length exceeded: {0:?}")]
    ContextLength(ContextLength),
    /// 400: the bytes are not HTTP.
    #[error("not http")]
    NotHttp,
    /// 414: the request line is too long.
    #[error("uri too long")]
    UriTooLong,
    /// 431: request line and headers are too long.
    #[error("request head too long")]
    HeadTooLong,
    /// 400, or mid-stream: following the request's grammar takes more than its limits allow.
    #[error("grammar too complex")]
    GrammarTooComplex,
    /// 401: one answer for a missing, wrong, malformed, doubled or expired key.
    #[error("unauthorized")]
    Unauthorized,
    /// 403: a keyless server was addressed by a name that is not the local machine's.
    #[error("host not allowed")]
    HostNotAllowed,
    /// 404: no such model.
    #[error("model not found: {model}")]
    ModelNotFound { model: String, param: Option<&'static str> },
    /// 404: no such route.
    #[error("unknown url: {method} {path}")]
    UnknownUrl { method: Method, path: String },
    /// 405, with the methods the route has.
    #[error("method not allowed: {method} {path}")]
    MethodNotAllowed {
        method: Method,
        path: String,
        /// The value of `Allow`, such as `GET, HEAD`.
        allow: String,
    },
    /// 408: the body stopped coming.
    #[error("request body timed out")]
    BodyTimeout,
    /// 413: the body is longer than `--max-body-bytes`.
    #[error("request body over {limit_bytes} bytes")]
    BodyTooLarge { limit_bytes: usize },
    /// 415: not `application/json`.
    #[error("unsupported content type {0:?}")]
    UnsupportedContentType(String),
    /// 415: a packed body.
    #[error("unsupported content encoding {0:?}")]
    UnsupportedContentEncoding(String),
    /// 429: the queue is full.
    #[error("engine overloaded")]
    Overloaded,
    /// 429: a limit of the client's own key.
    #[error("rate limit reached: {0:?}")]
    RateLimited(RateLimit),
    /// 503: the model is still loading.
    #[error("model loading")]
    ModelLoading,
    /// 503: draining, or stopped.
    #[error("shutting down")]
    ShuttingDown,
    /// 503: the engine makes no progress although it has work.
    #[error("engine stalled")]
    EngineStalled,
    /// 500: our fault. The reason is in the log, never in the answer.
    #[error("internal error")]
    Internal,
    /// Mid-stream: the client took no event for too long.
    #[error("client stalled")]
    ClientStalled,
}

/// What went wrong.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct ErrorObject<'a> {
    /// In words.
    message: &'a str,
    /// The kind of error, for programs.
    r#type: &'static str,
    /// The field of the request that is to blame.
    #[schema(required)]
    param: Option<&'a str>,
    /// The very error, for programs.
    #[schema(required)]
    code: Option<&'static str>,
}

/// The body of every error.
// `error` is its only key, hence the first: go-openai matches `data: {"error":`.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Error)]
pub(in crate::http) struct ErrorBody<'a> {
    error: ErrorObject<'a>,
}

impl ApiError {
    /// A bad value of `param`.
    pub fn invalid(message: impl Into<String>, param: impl Into<Cow<'static, str>>) -> Self {
        Self::Invalid { message: message.into(), param: Some(param.into()) }
    }

    /// A bad request with no single parameter to blame.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::Invalid { message: message.into(), param: None }
    }

    /// A known parameter, or a value of it, that is not built yet.
    pub fn not_supported(param: impl Into<Cow<'static, str>>) -> Self {
        let param = param.into();
        Self::Unsupported {
            message: format!("This server does not support '{param}' yet."),
            param: Some(param),
        }
    }

    /// The engine refused a submission whose longest choice has these numbers of tokens.
    pub fn from_rejected(
        rejected: Rejected,
        prompt_tokens: usize,
        completion_tokens: usize,
        param: &'static str,
    ) -> Self {
        match rejected {
            Rejected::QueueFull => Self::Overloaded,
            Rejected::ShuttingDown => Self::ShuttingDown,
            Rejected::NeverFits { max_tokens } => Self::ContextLength(ContextLength {
                limit: max_tokens,
                by_cache: true,
                prompt_tokens,
                completion_tokens,
                param,
            }),
        }
    }

    /// The status that this error is answered with, if nothing was sent yet.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::InvalidJson(_)
            | Self::Invalid { .. }
            | Self::Unsupported { .. }
            | Self::ContextLength(_)
            | Self::NotHttp
            | Self::GrammarTooComplex => StatusCode::BAD_REQUEST,
            Self::UriTooLong => StatusCode::URI_TOO_LONG,
            Self::HeadTooLong => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::HostNotAllowed => StatusCode::FORBIDDEN,
            Self::ModelNotFound { .. } | Self::UnknownUrl { .. } => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTimeout | Self::ClientStalled => StatusCode::REQUEST_TIMEOUT,
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedContentType(_) | Self::UnsupportedContentEncoding(_) => {
                StatusCode::UNSUPPORTED_MEDIA_TYPE
            }
            Self::Overloaded | Self::RateLimited(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::ModelLoading | Self::ShuttingDown | Self::EngineStalled => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// `type` of the error object.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Overloaded => "engine_overloaded",
            Self::RateLimited(RateLimit { what: Limited::Tokens, .. }) => "tokens",
            Self::RateLimited(_) => "requests",
            Self::ModelLoading | Self::ShuttingDown | Self::EngineStalled => {
                "service_unavailable_error"
            }
            Self::Internal => "server_error",
            _ => "invalid_request_error",
        }
    }

    /// `code` of the error object.
    pub fn code(&self) -> Option<&'static str> {
        Some(match self {
            Self::InvalidJson(_) | Self::Invalid { .. } => return None,
            Self::Unsupported { .. } => "unsupported_parameter",
            Self::ContextLength(_) => "context_length_exceeded",
            Self::NotHttp => "malformed_request",
            Self::UriTooLong => "uri_too_long",
            Self::HeadTooLong => "headers_too_large",
            Self::GrammarTooComplex => "grammar_too_complex",
            Self::Unauthorized => "invalid_api_key",
            Self::HostNotAllowed => "host_not_allowed",
            Self::ModelNotFound { .. } => "model_not_found",
            Self::UnknownUrl { .. } => "unknown_url",
            Self::MethodNotAllowed { .. } => "method_not_supported",
            Self::BodyTimeout => "request_timeout",
            Self::BodyTooLarge { .. } => "request_too_large",
            Self::UnsupportedContentType(_) => "unsupported_content_type",
            Self::UnsupportedContentEncoding(_) => "unsupported_content_encoding",
            Self::Overloaded => "engine_overloaded",
            Self::RateLimited(_) => "rate_limit_exceeded",
            Self::ModelLoading => "model_loading",
            Self::ShuttingDown => "shutting_down",
            Self::EngineStalled => "engine_stalled",
            Self::Internal => "internal_error",
            Self::ClientStalled => "client_stalled",
        })
    }

    /// `param` of the error object.
    pub fn param(&self) -> Option<&str> {
        match self {
            Self::Invalid { param, .. } | Self::Unsupported { param, .. } => param.as_deref(),
            Self::ContextLength(c) => Some(c.param),
            Self::ModelNotFound { param, .. } => *param,
            _ => None,
        }
    }

    /// Label of the counter of refused requests: a closed set.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::InvalidJson(_) => "invalid_json",
            Self::Invalid { .. } => "invalid_request",
            _ => self.code().unwrap_or("invalid_request"),
        }
    }

    /// `message` of the error object.
    pub fn message(&self) -> Cow<'_, str> {
        match self {
            Self::InvalidJson(at) => {
                format!("We could not parse the JSON body of your request: {at}.").into()
            }
            Self::Invalid { message, .. } | Self::Unsupported { message, .. } => message.into(),
            Self::ContextLength(c) => c.message().into(),
            Self::NotHttp => "Your request is not valid HTTP/1.1.".into(),
            Self::UriTooLong => "The address of your request is too long.".into(),
            Self::HeadTooLong => {
                format!("The headers of your request are over the limit of {HEAD_BYTES_MAX} bytes.")
                    .into()
            }
            Self::GrammarTooComplex => "The answer could not be continued within the grammar or \
                schema of your request: following it takes too much work, or no token of the model fits. \
                Try a simpler one."
                .into(),
            Self::Unauthorized => "Incorrect API key provided, or none. Send your key in an \
                Authorization header: 'Authorization: Bearer YOUR_KEY'."
                .into(),
            Self::HostNotAllowed => "This server runs without keys and answers only to the hosts \
                localhost, 127.0.0.1 and [::1]."
                .into(),
            Self::ModelNotFound { model, .. } => {
                format!("The model '{}' does not exist.", echo(model)).into()
            }
            Self::UnknownUrl { method, path } => format!(
                "Unknown request URL: {} {}. Please check the URL for typos.",
                echo(method.as_str()),
                echo(path)
            )
            .into(),
            Self::MethodNotAllowed { method, path, allow } => format!(
                "Not allowed to {} on {}. Allowed: {allow}.",
                echo(method.as_str()),
                echo(path)
            )
            .into(),
            Self::BodyTimeout => "The body of your request stopped coming.".into(),
            Self::BodyTooLarge { limit_bytes } => {
                format!("The body of your request is over the limit of {limit_bytes} bytes.").into()
            }
            Self::UnsupportedContentType(got) => format!(
                "Unsupported content type: '{}'. This API method only accepts \
                'application/json' requests.",
                echo(got)
            )
            .into(),
            Self::UnsupportedContentEncoding(got) => {
                format!("Unsupported content encoding: '{}'. Send the body unpacked.", echo(got))
                    .into()
            }
            Self::Overloaded => {
                "The engine is currently overloaded, please try again later.".into()
            }
            Self::RateLimited(limit) => limit.message().into(),
            Self::ModelLoading => "The model is still loading, please try again shortly.".into(),
            Self::ShuttingDown => "The server is shutting down.".into(),
            Self::EngineStalled => "The engine makes no progress, please try again later.".into(),
            Self::Internal => "The server had an error while processing your request.".into(),
            Self::ClientStalled => "The answer was not read for too long.".into(),
        }
    }

    /// When to come back, and whether at all: `None` says nothing (what never helps on its own).
    fn retry(&self) -> Option<Retry> {
        let after = |seconds| Some(Retry::After(Duration::from_secs(seconds)));
        match self {
            Self::Overloaded => after(1),
            Self::ModelLoading => after(2),
            Self::ShuttingDown => after(5),
            Self::EngineStalled => after(10),
            Self::RateLimited(limit) => match limit.retry_after {
                Some(wait) => Some(Retry::After(wait)),
                None => Some(Retry::Never),
            },
            // A request that panics a step would do so again, and take its batch with it each time.
            Self::Internal => Some(Retry::Never),
            _ => None,
        }
    }

    /// What stands in the answer's head beside its length.
    pub(in crate::http) fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        match self {
            Self::Unauthorized => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Self::MethodNotAllowed { allow, .. } => {
                if let Ok(allow) = HeaderValue::from_str(allow) {
                    headers.insert(header::ALLOW, allow);
                }
            }
            Self::ShuttingDown | Self::BodyTimeout => {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
        if let Some(retry) = self.retry() {
            retry.write(&mut headers);
        }
        headers
    }

    /// Notes that a request was refused for this.
    pub(in crate::http) fn counted(self) -> Self {
        metrics::counter!(REJECTED_TOTAL, "reason" => self.reason()).increment(1);
        self
    }

    /// The error object in its wrapper, as JSON.
    pub fn body(&self) -> String {
        let message = self.message();
        let body = ErrorBody {
            error: ErrorObject {
                message: &message,
                r#type: self.kind(),
                param: self.param(),
                code: self.code(),
            },
        };
        // Strings and options of them always serialise; an empty object would still be JSON.
        serde_json::to_string(&body).unwrap_or_else(|_| "{}".to_owned())
    }

    /// The last event of a stream that fails after its start: no `[DONE]` follows.
    pub fn sse_event(&self) -> String {
        format!("data: {}\n\n", self.body())
    }
}

/// Why a request was refused, for the access log. In the extensions of every such answer.
#[derive(Debug, Clone, Copy)]
pub(in crate::http) struct Refusal(pub(in crate::http) &'static str);

/// Advice on trying again.
#[derive(Debug, Clone, Copy)]
enum Retry {
    After(Duration),
    Never,
}

impl Retry {
    fn write(self, headers: &mut HeaderMap) {
        let should = HeaderName::from_static("x-should-retry");
        match self {
            Self::Never => {
                headers.insert(should, HeaderValue::from_static("false"));
            }
            Self::After(wait) => {
                let ms = (wait.as_millis() as u64).clamp(1, MAX_RETRY_AFTER_S * 1000);
                headers.insert(header::RETRY_AFTER, HeaderValue::from(ms.div_ceil(1000)));
                headers.insert(HeaderName::from_static("retry-after-ms"), HeaderValue::from(ms));
                headers.insert(should, HeaderValue::from_static("true"));
            }
        }
    }
}

impl From<FailureKind> for ApiError {
    fn from(kind: FailureKind) -> Self {
        match kind {
            FailureKind::Step => Self::Internal,
            FailureKind::Constraint => Self::GrammarTooComplex,
            FailureKind::ShuttingDown => Self::ShuttingDown,
            FailureKind::ClientStalled => Self::ClientStalled,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let error = self.counted();
        let mut response = (error.status(), error.headers(), error.body()).into_response();
        response.extensions_mut().insert(Refusal(error.reason()));
        response
    }
}

/// Client input as an error message may repeat it: short, and without control characters.
pub fn echo(input: &str) -> String {
    let mut out: String = input
        .chars()
        .take(ECHO_CHARS_MAX)
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect();
    if input.chars().nth(ECHO_CHARS_MAX).is_some() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests;
