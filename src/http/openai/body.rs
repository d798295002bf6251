//! Reading a request's body: its type and its JSON.

use axum::extract::Request;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName};
use http_body_util::BodyExt;

use super::error::ApiError;
use super::json::{Fields, Known, parse};
use super::large;
use crate::http::limits::Share;

/// Longer bodies are parsed off the async threads.
const INLINE_BYTES_MAX: usize = 64 << 10;

/// The fields of a request that must be JSON, and its share of the memory for bodies, to be held for as long
/// as they are. Its length and the time it took were bounded by the layers around the routes.
pub(super) async fn fields(
    mut request: Request,
    known: Known,
) -> Result<(Fields, Option<Share>), ApiError> {
    check_type(request.headers())?;
    check_encoding(request.headers())?;
    let share = request.extensions_mut().remove();
    let body = request.into_body().collect().await;
    let body = body.map_err(|_| ApiError::bad_request("The request body broke off."))?.to_bytes();
    let length = body.len();
    let work = move || parse(&body, known);
    let fields =
        if length <= INLINE_BYTES_MAX { work() } else { large::parse(length, work).await? };
    Ok((fields?, share))
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
fn check_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let given = all(headers, &CONTENT_TYPE);
    let essence = |value: &str| value.split(';').next().unwrap_or_default().trim().to_owned();
    match given[..] {
        // Two of them, and a proxy in front may have gone by the other.
        [one] if essence(one).eq_ignore_ascii_case("application/json") => Ok(()),
        _ => Err(ApiError::UnsupportedContentType(given.join(", "))),
    }
}

/// Nothing is unpacked: a small body could become an endless one.
fn check_encoding(headers: &HeaderMap) -> Result<(), ApiError> {
    let given = all(headers, &CONTENT_ENCODING);
    if given.iter().all(|encoding| encoding.eq_ignore_ascii_case("identity")) {
        return Ok(());
    }
    Err(ApiError::UnsupportedContentEncoding(given.join(", ")))
}

/// The values of all header lines of that name.
fn all<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<&'a str> {
    headers.get_all(name).iter().map(|value| value.to_str().unwrap_or("unreadable")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::openai::json::{Field, Kind};

    const KNOWN: Known = Known(&[&[Field::new("a", Kind::TOKEN)]]);

    async fn status(content_type: Option<&str>, body: &str) -> u16 {
        let given: Vec<_> = content_type.map(|value| (CONTENT_TYPE, value)).into_iter().collect();
        status_with(&given, body).await
    }

    async fn status_with(headers: &[(HeaderName, &str)], body: &str) -> u16 {
        let mut request = Request::new(axum::body::Body::from(body.to_owned()));
        for (name, value) in headers {
            request.headers_mut().append(name, value.parse().unwrap());
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

    #[tokio::test]
    async fn two_types_are_none() {
        let json = (CONTENT_TYPE, "application/json; charset=utf-8");
        let other = (CONTENT_TYPE, "text/plain");
        for two in [[json.clone(), json.clone()], [json.clone(), other.clone()], [other, json]] {
            assert_eq!(status_with(&two, "{}").await, 415, "{two:?}");
        }
    }

    #[tokio::test]
    async fn packed_bodies_are_refused() {
        for (encoding, expected) in
            [("identity", 200), ("gzip", 415), ("br", 415), ("identity, gzip", 415)]
        {
            let headers = [(CONTENT_TYPE, "application/json"), (CONTENT_ENCODING, encoding)];
            assert_eq!(status_with(&headers, "{}").await, expected, "{encoding}");
        }
    }
}
