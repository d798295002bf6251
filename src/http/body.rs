//! A body that keeps something until it ends: that is when an answer is over, not when its handler
//! returned.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

/// Is told when a body ended well, just before it is dropped. Only dropped: the body was cut.
pub(super) trait Ending: Send + Unpin + 'static {
    fn complete(&mut self) {}
}

/// `body`, and `guard` for as long as it lasts.
pub(super) struct Guarded<B, G: Ending> {
    body: B,
    guard: Option<G>,
}

impl<B: Body, G: Ending> Guarded<B, G> {
    pub(super) fn new(body: B, guard: G) -> Self {
        let mut guarded = Self { body, guard: Some(guard) };
        // hyper never polls a body that is empty from the start.
        guarded.settle();
        guarded
    }

    fn settle(&mut self) {
        if self.body.is_end_stream() {
            self.end();
        }
    }

    fn end(&mut self) {
        if let Some(mut guard) = self.guard.take() {
            guard.complete();
        }
    }
}

impl<B, G> Body for Guarded<B, G>
where
    B: Body<Data = Bytes> + Unpin,
    G: Ending,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            None => self.end(),
            // A body of known length is not polled again after its last frame.
            Some(Ok(_)) => self.settle(),
            Some(Err(_)) => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
