//! Bounds on request bodies: their length, the time between two pieces of one, the time for all of
//! it, and the bytes of all bodies together, until they are tokens.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body_util::BodyExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use super::App;
use super::openai::error::ApiError;

/// A body may take this many times the time that may pass between two of its pieces, so that a
/// client that sends a byte now and then does not hold its connection for ever.
const WHOLE_BODY_TIMEOUTS: u32 = 10;

/// Bodies in memory at one time, together: this much, or four of the longest ones.
const ALL_BODIES_BYTES: usize = 256 << 20;

/// Nothing is allocated on the word of `Content-Length` alone beyond this.
const FIRST_ALLOCATION_BYTES: usize = 64 << 10;

/// What all bodies share: permits are KiB.
#[derive(Debug)]
pub(super) struct BodyBudget(Arc<Semaphore>);

impl BodyBudget {
    pub(super) fn new(max_body_bytes: usize) -> Self {
        let bytes = ALL_BODIES_BYTES.max(max_body_bytes.saturating_mul(4));
        Self(Arc::new(Semaphore::new(kib(bytes).min(Semaphore::MAX_PERMITS))))
    }
}

fn kib(bytes: usize) -> usize {
    bytes.div_ceil(1024)
}

/// The layer: handlers get bodies that are there already, so that none of them waits for a client or
/// has to bound one.
pub(super) async fn buffer(State(app): State<Arc<App>>, req: Request, next: Next) -> Response {
    let (mut parts, body) = req.into_parts();
    let limits = Limits {
        max_bytes: app.config.max_body_bytes,
        piece: app.config.body_timeout,
        budget: &app.bodies,
    };
    let bytes = tokio::select! {
        biased;
        bytes = read(body, &parts.headers, &limits) => bytes,
        // The engine takes nothing new: there is no use in waiting for the rest.
        () = app.draining.cancelled() => Err(ApiError::ShuttingDown),
    };
    match bytes {
        Ok((bytes, share)) => {
            parts.extensions.insert(share);
            next.run(Request::from_parts(parts, Body::from(bytes))).await
        }
        Err(error) => error.into_response(),
    }
}

struct Limits<'a> {
    max_bytes: usize,
    piece: Duration,
    budget: &'a BodyBudget,
}

/// A body's share of the budget. It goes with the request, as an extension: what is read from a body is
/// about as long as that, and is held until its turn to be made into tokens comes.
#[derive(Debug, Clone)]
pub(super) struct Share(
    #[expect(dead_code, reason = "it is there to be dropped")] Arc<OwnedSemaphorePermit>,
);

async fn read(
    mut body: Body,
    headers: &HeaderMap,
    limits: &Limits<'_>,
) -> Result<(Bytes, Share), ApiError> {
    let too_large = ApiError::BodyTooLarge { limit_bytes: limits.max_bytes };
    let claimed = claimed_bytes(headers).unwrap_or(0);
    if claimed > limits.max_bytes {
        return Err(too_large);
    }
    let deadline = Instant::now() + limits.piece * WHOLE_BODY_TIMEOUTS;
    // No more than what was claimed, which may be nothing.
    let most = if claimed > 0 { claimed } else { limits.max_bytes };
    let mut share = take(limits.budget, kib(claimed.min(FIRST_ALLOCATION_BYTES)).max(1))?;
    let mut bytes = Vec::with_capacity(claimed.min(FIRST_ALLOCATION_BYTES));
    loop {
        let piece = timeout_at(deadline, timeout(limits.piece, body.frame()));
        let frame = match piece.await {
            Err(_) | Ok(Err(_)) => return Err(ApiError::BodyTimeout),
            Ok(Ok(None)) => break,
            Ok(Ok(Some(frame))) => frame,
        };
        // A bad chunk, or a client that left: hyper closes the connection either way.
        let frame = frame.map_err(|_| ApiError::bad_request("The request body broke off."))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if data.len() > limits.max_bytes - bytes.len() {
            return Err(too_large);
        }
        let needed = bytes.len() + data.len();
        if needed > bytes.capacity() {
            // Twice what there was, as a vector by itself, but never past the end that is known.
            let capacity = bytes.capacity().saturating_mul(2).min(most).max(needed);
            let missing = kib(capacity).saturating_sub(share.num_permits());
            share.merge(take(limits.budget, missing)?);
            bytes.reserve_exact(capacity - bytes.len());
        }
        bytes.extend_from_slice(&data);
    }
    Ok((Bytes::from(bytes), Share(Arc::new(share))))
}

fn claimed_bytes(headers: &HeaderMap) -> Option<usize> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Never waits: a server whose memory is full of bodies says so.
fn take(budget: &BodyBudget, kib: usize) -> Result<OwnedSemaphorePermit, ApiError> {
    let permits = u32::try_from(kib).unwrap_or(u32::MAX);
    Arc::clone(&budget.0).try_acquire_many_owned(permits).map_err(|_| ApiError::Overloaded)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::{StreamExt as _, stream};

    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    async fn read_with(body: Body, max_bytes: usize, piece: Duration) -> Result<Bytes, ApiError> {
        let budget = BodyBudget::new(max_bytes);
        let limits = Limits { max_bytes, piece, budget: &budget };
        read(body, &HeaderMap::new(), &limits).await.map(|(bytes, _)| bytes)
    }

    #[tokio::test]
    async fn a_body_may_be_as_long_as_the_limit_and_no_longer() {
        let body = || Body::from(vec![b'x'; 4096]);
        assert_eq!(read_with(body(), 4096, MINUTE).await.unwrap().len(), 4096);
        let refused = read_with(body(), 4095, MINUTE).await.unwrap_err();
        assert_eq!(refused, ApiError::BodyTooLarge { limit_bytes: 4095 });
    }

    #[tokio::test]
    async fn a_claimed_length_over_the_limit_is_refused_before_a_byte_is_read() {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_LENGTH, "18446744073709551615".parse().unwrap());
        let budget = BodyBudget::new(10);
        let limits = Limits { max_bytes: 10, piece: MINUTE, budget: &budget };
        let never = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
        assert!(matches!(read(never, &headers, &limits).await, Err(ApiError::BodyTooLarge { .. })));
    }

    #[tokio::test]
    async fn a_body_that_stops_coming_times_out() {
        let first = stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"{"))]);
        let body = Body::from_stream(first.chain(stream::pending()));
        let result = read_with(body, 100, Duration::from_millis(10)).await;
        assert_eq!(result.unwrap_err(), ApiError::BodyTimeout);
    }

    #[tokio::test]
    async fn a_body_that_dribbles_for_ever_times_out_too() {
        let piece = Duration::from_millis(20);
        let dribble = stream::unfold((), move |()| async move {
            tokio::time::sleep(piece / 4).await;
            Some((Ok::<_, Infallible>(Bytes::from_static(b" ")), ()))
        });
        let result = read_with(Body::from_stream(dribble), usize::MAX, piece).await;
        assert_eq!(result.unwrap_err(), ApiError::BodyTimeout);
    }

    #[tokio::test]
    async fn all_bodies_together_are_bounded_and_give_back_what_they_took() {
        let budget = BodyBudget(Arc::new(Semaphore::new(8)));
        let limits = Limits { max_bytes: 1 << 20, piece: MINUTE, budget: &budget };
        let headers = HeaderMap::new();
        let six_kib = || Body::from(vec![b'x'; 6 << 10]);
        let (bytes, share) = read(six_kib(), &headers, &limits).await.unwrap();
        assert_eq!(read(six_kib(), &headers, &limits).await.unwrap_err(), ApiError::Overloaded);
        // What was read from the bytes is held on.
        drop(bytes);
        assert_eq!(read(six_kib(), &headers, &limits).await.unwrap_err(), ApiError::Overloaded);
        drop(share);
        assert!(read(six_kib(), &headers, &limits).await.is_ok());
        assert_eq!(budget.0.available_permits(), 8);
    }

    #[tokio::test]
    async fn a_body_takes_the_memory_that_it_claims_and_pays_for_it() {
        let budget = BodyBudget(Arc::new(Semaphore::new(1_000)));
        let limits = Limits { max_bytes: 1 << 20, piece: MINUTE, budget: &budget };
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_LENGTH, "200000".parse().unwrap());
        let pieces =
            stream::iter((0..200).map(|_| Ok::<_, Infallible>(Bytes::from(vec![b'x'; 1_000]))));
        let (bytes, _share) = read(Body::from_stream(pieces), &headers, &limits).await.unwrap();
        assert_eq!(1_000 - budget.0.available_permits(), kib(200_000));
        assert_eq!(Vec::from(bytes).capacity(), 200_000);
    }
}
