//! What hyper answers by itself, before there is a request to route: to bytes that are not HTTP, and to
//! a head that is too long. Its answers have no body. Here they get the error form of all others.

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use crate::http::openai::error::ApiError;
use crate::http::request_id;

const HEAD_END: &[u8] = b"\r\n\r\n";

/// What to write instead of `written`, if that ends with an answer of hyper's own. Those are the only
/// ones without an `x-request-id`, and nothing follows them on a connection.
pub(super) fn in_our_form(written: &[u8]) -> Option<Bytes> {
    let start = begin_of_last_head(written)?;
    let head = std::str::from_utf8(&written[start..]).ok()?;
    let is_ours = head.lines().any(|line| {
        let name = line.split(':').next().unwrap_or_default();
        name.eq_ignore_ascii_case(request_id::X_REQUEST_ID.as_str())
    });
    let error = match (is_ours, head.get("HTTP/1.1 ".len()..)?.split(' ').next()?) {
        (false, "400") => ApiError::NotHttp,
        (false, "414") => ApiError::UriTooLong,
        (false, "431") => ApiError::HeadTooLong,
        _ => return None,
    };
    let date = head.lines().find(|line| line.to_ascii_lowercase().starts_with("date:"));
    let answer = answer(&error.counted(), date);
    Some([&written[..start], answer.as_bytes()].concat().into())
}

fn begin_of_last_head(written: &[u8]) -> Option<usize> {
    let head = written.strip_suffix(HEAD_END)?;
    let start = head.windows(5).rposition(|five| five == b"HTTP/")?;
    let is_one_head = !head[start..].windows(4).any(|four| four == HEAD_END);
    is_one_head.then_some(start)
}

fn answer(error: &ApiError, date: Option<&str>) -> String {
    let (status, body) = (error.status(), error.body());
    let mut head = format!("HTTP/1.1 {status}\r\n", status = line(status));
    let mut add = |name: &str, value: &str| head.extend([name, ": ", value, "\r\n"]);
    for (name, value) in &headers(error) {
        add(name.as_str(), value.to_str().unwrap_or_default());
    }
    add("content-length", &body.len().to_string());
    add("connection", "close");
    if let Some((name, value)) = date.and_then(|date| date.split_once(": ")) {
        add(name, value);
    }
    head + "\r\n" + &body
}

fn headers(error: &ApiError) -> HeaderMap {
    let mut headers = error.headers();
    request_id::write(&mut headers, &request_id::generate());
    headers
}

fn line(status: StatusCode) -> String {
    format!("{} {}", status.as_str(), status.canonical_reason().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYPERS: &str = "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\
        date: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n";
    const OURS: &str = "HTTP/1.1 400 Bad Request\r\nx-request-id: 1\r\ncontent-length: 0\r\n\r\n";

    #[test]
    fn only_hypers_own_answers_are_written_anew() {
        let anew = |bytes: &str| {
            in_our_form(bytes.as_bytes()).map(|b| String::from_utf8(b.to_vec()).unwrap())
        };
        let alone = anew(HYPERS).unwrap();
        assert!(
            alone.starts_with("HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n")
        );
        assert!(alone.contains("\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\n"));
        assert!(alone.contains("\r\nx-request-id: req_"));
        let (head, body) = alone.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())));
        let behind = anew(&format!("{OURS}{HYPERS}")).unwrap();
        assert!(behind.starts_with(&format!("{OURS}HTTP/1.1 400")));
        for other in ["", "\r\n\r\n", "0\r\n\r\n", OURS, &HYPERS[..HYPERS.len() - 1]] {
            assert_eq!(anew(other), None, "{other}");
        }
        assert_eq!(anew(&HYPERS.replace("400", "500")), None);
        assert_eq!(anew(&format!("{HYPERS}body\r\n\r\n")), None);
    }
}
