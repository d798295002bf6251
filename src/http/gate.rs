//! The door to the API: shut while there is no engine to serve it, and the count of those inside.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use hyper::body::{Frame, SizeHint};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::App;
use super::openai::error::ApiError;

/// The layer. Whatever passes it is finished, or failed with an error, before the server ends.
pub(super) async fn pass(State(app): State<Arc<App>>, req: Request, next: Next) -> Response {
    // Taken before the look at the state: either the drain waits for this request, or it is refused.
    let inside = app.requests.token();
    if let Some(refusal) = app.state().refusal() {
        return refusal.into_response();
    }
    let response = tokio::select! {
        response = next.run(req) => response,
        () = app.abandoned.cancelled() => return ApiError::ShuttingDown.into_response(),
    };
    let is_stream = response
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|t| t.as_bytes().starts_with(b"text/event-stream"));
    if !is_stream {
        // Complete already: all that is left is to write it out.
        return response.map(|body| Body::new(super::body::Guarded::new(body, Inside(inside))));
    }
    let abandoned = Box::pin(app.abandoned.clone().cancelled_owned());
    response.map(|body| Body::new(Stream { body, abandoned, inside: Some(inside) }))
}

struct Inside(#[expect(dead_code, reason = "held, not read")] TaskTrackerToken);

impl super::body::Ending for Inside {}

/// A stream of events that ends with an error event when the server can wait no longer.
struct Stream {
    body: Body,
    abandoned: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Absent: the stream is over.
    inside: Option<TaskTrackerToken>,
}

impl hyper::body::Body for Stream {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.inside.is_none() {
            return Poll::Ready(None);
        }
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(None) => {
                self.inside = None;
                Poll::Ready(None)
            }
            Poll::Pending if self.abandoned.as_mut().poll(cx).is_ready() => {
                self.inside = None;
                let event = ApiError::ShuttingDown.sse_event();
                Poll::Ready(Some(Ok(Frame::data(Bytes::from(event)))))
            }
            other => other,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inside.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
