//! Values for tests.

use super::{Field, Json, Kind, Known, parse};

/// The value that `text` is.
pub fn json(text: &str) -> Json {
    const KNOWN: Known = Known(&[&[Field::new("value", Kind::Any)]]);
    let fields = parse(format!("{{\"value\": {text}}}").as_bytes(), KNOWN).unwrap();
    fields.get("value").cloned().unwrap_or(Json::Null)
}
