//! Reading a request's body: its type and its JSON.

use axum::extract::Request;
use http::header::CONTENT_TYPE;
use http_body_util::BodyExt;

use super::error::ApiError;
use super::json::{Fields, Known, parse};

/// Longer bodies are parsed off the async threads.
const INLINE_BYTES_MAX: usize = 64 << 10;

/// The fields of a request that must be JSON. Its length and the time it took were bounded by the
/// layers around the routes.
pub(super) async fn fields(request: Request, known: Known) -> Result<Fields, ApiError> {
    check_type(&request)?;
    let body = request.into_body().collect().await;
    let body = body.map_err(|_| ApiError::bad_request("The request body broke off."))?.to_bytes();
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

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: Known = Known { fields: &["a"], inputs: &[] };

    async fn status(content_type: Option<&str>, body: &str) -> u16 {
        let mut request = Request::new(axum::body::Body::from(body.to_owned()));
        if let Some(value) = content_type {
            request.headers_mut().insert(CONTENT_TYPE, value.parse().unwrap());
        }
        match fields(request, KNOWN).await {
            Ok(_) => 200,
            Err(error) => error.status().as_u16(),
        }
    }

    #[tokio::test]
    async fn the_type_is_checked_before_the_json() {
        let body = r#"{"a": 1}"#;
        assert_eq!(status(Some("application/json"), body).await, 200);
        assert_eq!(status(Some("Application/JSON; charset=utf-8"), body).await, 200);
        assert_eq!(status(Some("application/x-www-form-urlencoded"), body).await, 415);
        assert_eq!(status(Some("application/jsonx"), body).await, 415);
        assert_eq!(status(None, body).await, 415);
        let long = format!("{{{}}}", " ".repeat(INLINE_BYTES_MAX));
        assert_eq!(status(Some("application/json"), &long).await, 200);
        assert_eq!(status(Some("application/json"), "{").await, 400);
    }
}
