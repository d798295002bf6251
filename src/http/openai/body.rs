//! Reading a request's body: its type, its size, its JSON.

use axum::extract::Request;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Body as _;

use super::error::ApiError;
use super::json::{Fields, Known, parse};

/// Longer bodies are parsed off the async threads.
const INLINE_BYTES_MAX: usize = 64 << 10;

/// The fields of a request that must be JSON of at most `limit_bytes`.
pub(super) async fn fields(
    request: Request,
    known: Known,
    limit_bytes: usize,
) -> Result<Fields, ApiError> {
    check_type(&request)?;
    let body = read(request, limit_bytes).await?;
    if body.len() <= INLINE_BYTES_MAX {
        return parse(&body, known);
    }
    blocking(move || parse(&body, known)).await?
}

/// Runs what would keep an async thread, which serves everybody, for too long.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        tracing::error!(%error, "blocking work failed");
        ApiError::Internal
    })
}

/// `application/json`, whatever its parameters: OpenAI's refusal of `; charset=utf-8` was a bug.
fn check_type(request: &Request) -> Result<(), ApiError> {
    let given = request.headers().get(CONTENT_TYPE);
    let given = given.map_or("", |value| value.to_str().unwrap_or("unreadable"));
    let essence = given.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(ApiError::UnsupportedContentType(given.to_owned()))
}

async fn read(request: Request, limit_bytes: usize) -> Result<Bytes, ApiError> {
    let body = request.into_body();
    // A length that was announced need not be read to be refused.
    if body.size_hint().lower() > limit_bytes as u64 {
        return Err(ApiError::BodyTooLarge { limit_bytes });
    }
    let body = Limited::new(body, limit_bytes);
    match body.collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if find::<LengthLimitError>(&*error) => {
            Err(ApiError::BodyTooLarge { limit_bytes })
        }
        Err(error) if find::<tokio::time::error::Elapsed>(&*error) => Err(ApiError::BodyTimeout),
        Err(_) => Err(ApiError::InvalidJson("the body ended early".to_owned())),
    }
}

/// Whether `error`, or what caused it, is an `E`.
fn find<E: std::error::Error + 'static>(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(<dyn std::error::Error>::is::<E>)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: Known = Known { fields: &["a"], inputs: &[] };

    async fn status(content_type: Option<&str>, body: &str) -> u16 {
        let mut request = Request::new(axum::body::Body::from(body.to_owned()));
        if let Some(value) = content_type {
            request.headers_mut().insert(CONTENT_TYPE, value.parse().unwrap());
        }
        match fields(request, KNOWN, 20).await {
            Ok(_) => 200,
            Err(error) => error.status().as_u16(),
        }
    }

    #[tokio::test]
    async fn type_and_size_are_checked_before_the_json() {
        let body = r#"{"a": 1}"#;
        assert_eq!(status(Some("application/json"), body).await, 200);
        assert_eq!(status(Some("Application/JSON; charset=utf-8"), body).await, 200);
        assert_eq!(status(Some("application/x-www-form-urlencoded"), body).await, 415);
        assert_eq!(status(Some("application/jsonx"), body).await, 415);
        assert_eq!(status(None, body).await, 415);
        assert_eq!(status(Some("application/json"), &" ".repeat(21)).await, 413);
        assert_eq!(status(Some("application/json"), "{").await, 400);
    }
}
