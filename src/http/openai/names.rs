//! Model names: which there are, and how they stand in a path.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::error::ApiError;
use crate::http::Identity;

/// The name that a segment of a raw path stands for, if `served` knows it. openai-python 0.28 writes
/// names with `quote_plus`, so that `+` is a space; others mean a plus by it.
pub(super) fn find_in_path<'a>(
    served: &'a [String],
    identity: &Identity,
    segment: &str,
    param: Option<&'static str>,
) -> Result<&'a str, ApiError> {
    let decode = |s: &str| percent_decode_str(s).decode_utf8_lossy().into_owned();
    let spaced: Cow<'_, str> =
        if segment.contains('+') { segment.replace('+', " ").into() } else { segment.into() };
    let asked = decode(&spaced);
    // The error names what the client most probably meant, so the first one is kept.
    find(served, identity, &asked, param)
        .or_else(|error| find(served, identity, &decode(segment), param).or(Err(error)))
}

/// The served name that reads `asked`, if the client's key may use it: else it is as good as not there.
pub(super) fn find<'a>(
    served: &'a [String],
    identity: &Identity,
    asked: &str,
    param: Option<&'static str>,
) -> Result<&'a str, ApiError> {
    served
        .iter()
        .find(|name| *name == asked && identity.may_use(name))
        .map(String::as_str)
        .ok_or_else(|| ApiError::ModelNotFound { model: asked.to_owned(), param })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_decoded_as_the_clients_write_them() {
        let served = ["org/a model".to_owned(), "c++".to_owned(), "plain".to_owned()];
        let anybody = Identity::default();
        let found = |segment| find_in_path(&served, &anybody, segment, None).ok();
        assert_eq!(found("plain"), Some("plain"));
        assert_eq!(found("org%2Fa+model"), Some("org/a model"));
        assert_eq!(found("org%2fa%20model"), Some("org/a model"));
        assert_eq!(found("org/a%20model"), Some("org/a model"));
        assert_eq!(found("c%2B%2B"), Some("c++"));
        assert_eq!(found("c++"), Some("c++"));
        assert_eq!(found("Plain"), None);
        assert_eq!(found("%ff"), None);
        let error = find_in_path(&served, &anybody, "no%2Fsuch+model", None).unwrap_err();
        assert_eq!(error.message(), "The model 'no/such model' does not exist.");
        let error = find(&served, &anybody, "x", Some("model")).unwrap_err();
        assert_eq!(error.status(), 404);
        assert_eq!(error.message(), "The model 'x' does not exist.");
    }
}
