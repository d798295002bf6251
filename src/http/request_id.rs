//! `x-request-id`: the client's own if it is fit to be logged and echoed, else one of ours. Answers say
//! it as `request-id` too, where openai-python 0.28 looks for it.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");

/// Longest id that is taken over from a client.
const MAX_CHARS: usize = 128;

/// The id of a request. In the extensions of every request.
#[derive(Debug, Clone)]
pub struct RequestId(pub String);

/// Outermost layer, so that every answer has one, whoever made it.
pub(super) async fn assign(mut req: Request, next: Next) -> Response {
    let id = given(req.headers()).unwrap_or_else(generate);
    req.extensions_mut().insert(RequestId(id.clone()));
    let mut response = next.run(req).await;
    write(response.headers_mut(), &id);
    response
}

/// Into an answer's head.
pub(super) fn write(headers: &mut HeaderMap, id: &str) {
    if let Ok(value) = HeaderValue::from_str(id) {
        headers.insert(X_REQUEST_ID, value.clone());
        headers.insert(REQUEST_ID, value);
    }
}

/// One header with visible ASCII: nothing that could break a log line or pretend to be two.
fn given(headers: &HeaderMap) -> Option<String> {
    let mut values = headers.get_all(X_REQUEST_ID).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return None;
    };
    let bytes = value.as_bytes();
    let fit = (1..=MAX_CHARS).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic);
    fit.then(|| bytes.iter().map(|&b| char::from(b)).collect())
}

pub(super) fn generate() -> String {
    let mut random = [0u8; 16];
    // Without random numbers ids repeat; requests need not fail for that.
    let _ = getrandom::fill(&mut random);
    format!("req_{:032x}", u128::from_be_bytes(random))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&[u8]]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(X_REQUEST_ID, HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    #[test]
    fn only_an_id_that_is_fit_to_be_logged_is_taken_over() {
        assert_eq!(given(&headers(&[b"abc-1/2"])).as_deref(), Some("abc-1/2"));
        assert_eq!(given(&headers(&[&[b'x'; 128]])).map(|id| id.len()), Some(128));
        let refused: [&[&[u8]]; 6] =
            [&[], &[b""], &[b"a b"], &[&[b'x'; 129]], &[b"a", b"b"], &[b"caf\xe9"]];
        for values in refused {
            assert_eq!(given(&headers(values)), None, "{values:?}");
        }
    }

    #[test]
    fn generated_ids_differ() {
        assert_ne!(generate(), generate());
        assert_eq!(generate().len(), 36);
    }
}
