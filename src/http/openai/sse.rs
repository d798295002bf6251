//! Server-sent events, as far as the OpenAI API has them: `data:` lines, comments, `[DONE]`.
//!
//! No `id:`, no `retry:`, no empty `data:`: openai-python's decoder turns each of them into an event
//! that is not JSON. Comments are what every client skips.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::Stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName};
use serde::Serialize;

use super::error::ApiError;

/// Keeps proxies and clients from giving up on a silent stream.
pub(super) const PING: Bytes = Bytes::from_static(b": ping\n\n");

/// The end of a stream that succeeded.
pub(super) const DONE: &[u8] = b"data: [DONE]\n\n";

/// Appends one event to `out`.
pub(super) fn event(out: &mut Vec<u8>, data: &impl Serialize) -> Result<(), ApiError> {
    out.extend_from_slice(b"data: ");
    serde_json::to_writer(&mut *out, data).map_err(|error| {
        tracing::error!(%error, "a chunk does not serialise");
        ApiError::Internal
    })?;
    out.extend_from_slice(b"\n\n");
    Ok(())
}

/// The last event of a stream that failed after its start; `[DONE]` does not follow.
pub(super) fn failure(error: &ApiError) -> Bytes {
    metrics::counter!(STREAM_ERRORS_TOTAL, "reason" => error.reason()).increment(1);
    error.sse_event().into()
}

/// Counter of streams that ended with an error event, by `reason`.
pub(super) const STREAM_ERRORS_TOTAL: &str = "millrace_stream_errors_total";

/// An answer whose body is `events`, already framed. `X-Accel-Buffering` is for nginx, which would
/// otherwise collect the stream.
pub(super) fn response<S>(events: S) -> Response
where
    S: Stream<Item = Result<Bytes, std::convert::Infallible>> + Send + 'static,
{
    let headers = [
        (CONTENT_TYPE, "text/event-stream; charset=utf-8"),
        (CACHE_CONTROL, "no-cache"),
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (headers, Body::from_stream(events)).into_response()
}
