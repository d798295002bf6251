//! What keys are limited to, before a byte of a body is read: requests at one time and requests a
//! minute. Tokens are counted where they are known ([`super::openai`]); what is left of all limits
//! stands in the headers of every answer.

use std::fmt::Write as _;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::Method;
use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::Identity;
use super::body::{Ending, Guarded};
use super::openai::error::{ApiError, Limited};
use super::openai::limited;
use crate::keys::{Key, Level, Limits, Place, Short};

/// When to try again while all places are taken: nobody knows when one will be free.
const PLACE_WAIT: Duration = Duration::from_secs(1);

/// The layer: POST is what makes work.
pub(super) async fn admit(identity: Identity, req: Request, next: Next) -> Response {
    let key = identity.key.filter(|_| *req.method() == Method::POST);
    let Some(key) = key else { return next.run(req).await };
    let mut response = match enter(&key.limits).await {
        // Taken until the answer is over, which for a stream is long after this.
        Ok(place) => next.run(req).await.map(|body| Body::new(Guarded::new(body, Taken(place)))),
        Err(refusal) => refusal.into_response(),
    };
    write(&key, response.headers_mut());
    response
}

struct Taken(#[expect(dead_code, reason = "held, not read")] Place);

impl Ending for Taken {}

async fn enter(limits: &Limits) -> Result<Place, ApiError> {
    let most = limits.concurrency.unwrap_or(usize::MAX);
    let place = limits.enter().await;
    let place =
        place.ok_or_else(|| limited(Limited::Concurrency, most as u64, Short::For(PLACE_WAIT)))?;
    if let Some(requests) = &limits.requests {
        let refuse = |short| limited(Limited::Requests, requests.limit().into(), short);
        requests.take_one().await.map_err(refuse)?;
    }
    Ok(place)
}

/// OpenAI's headers, for the limits that the key has.
fn write(key: &Key, headers: &mut HeaderMap) {
    let limits = [("requests", &key.limits.requests), ("tokens", &key.limits.tokens)];
    for (what, meter) in limits {
        let Some(meter) = meter else { continue };
        let Level { limit, remaining, reset } = meter.level();
        let reset = HeaderValue::try_from(go_duration(reset));
        for (part, value) in
            [("limit", Ok(limit.into())), ("remaining", Ok(remaining.into())), ("reset", reset)]
        {
            let name = HeaderName::try_from(format!("x-ratelimit-{part}-{what}"));
            if let (Ok(name), Ok(value)) = (name, value) {
                headers.insert(name, value);
            }
        }
    }
}

/// As Go writes durations, and OpenAI with it: `6m0s`, `1.5s`, `120ms`.
fn go_duration(duration: Duration) -> String {
    let ms = duration.as_nanos().div_ceil(1_000_000);
    if ms < 1000 {
        return format!("{ms}ms");
    }
    let (minutes, ms) = (ms / 60_000, ms % 60_000);
    let mut out = String::new();
    if minutes > 0 {
        let _ = write!(out, "{minutes}m");
    }
    let _ = write!(out, "{}s", ms as f64 / 1000.0);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_go_writes_them() {
        for (ms, expected) in [
            (0, "0ms"),
            (120, "120ms"),
            (1000, "1s"),
            (11_900, "11.9s"),
            (59_999, "59.999s"),
            (60_000, "1m0s"),
            (360_000, "6m0s"),
        ] {
            assert_eq!(go_duration(Duration::from_millis(ms)), expected);
        }
        assert_eq!(go_duration(Duration::from_nanos(1)), "1ms");
    }
}
