//! Unknown fields are ignored; one that looks like a misspelt known one is told to the operator.

use std::collections::HashSet;
use std::sync::Mutex;

use crate::http::openai::json::{Fields, Known};

/// Logs an unknown field that looks like a misspelt known one, each spelling once.
pub fn report(fields: &Fields, known: Known) {
    /// Spellings that were logged; beyond this many, nothing more is.
    const LOGGED_MAX: usize = 256;
    static LOGGED: Mutex<Option<HashSet<String>>> = Mutex::new(None);
    for name in &fields.unknown {
        let Some(nearest) = nearest(name, known) else { continue };
        let mut logged = LOGGED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let logged = logged.get_or_insert_default();
        if logged.len() < LOGGED_MAX && logged.insert(name.clone()) {
            tracing::warn!(field = name, nearest, "ignored an unknown field of a request");
        }
    }
}

/// The known field within two edits of `name`, if there is one. A narrower view than the command
/// line's, which answers an error anyway: here most unknown fields are right ones of other servers.
fn nearest(name: &str, known: Known) -> Option<&'static str> {
    /// Shorter names are within two edits of anything.
    const NAME_CHARS_MIN: usize = 4;
    if name.len() > 40 || name.chars().count() < NAME_CHARS_MIN {
        return None;
    }
    // A capital is no edit: `top_P` is nearer to `top_p` than to `top_k`.
    let name = name.to_lowercase();
    let all = known.fields().map(|field| field.name);
    let near = all.map(|known| (strsim::levenshtein(&name, known), known)).min()?;
    (near.0 <= 2).then_some(near.1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::openai::completions::types::KNOWN;

    #[test]
    fn misspelt_fields_find_their_nearest() {
        for (name, expected) in [
            ("max_token", Some("max_tokens")),
            ("temprature", Some("temperature")),
            ("stopp", Some("stop")),
            ("top_P", Some("top_p")),
            ("metadata", None),
            ("n_1", None),
        ] {
            assert_eq!(nearest(name, KNOWN), expected);
        }
    }
}
