//! Formats. Most of strings are llguidance's own; dates and times are patterns of ours, since its let through a
//! 29th of February of any year, and a second 60 of any minute.

use serde_json::{Map, Value, json};

use super::keywords::quoted;

const DATE: &str = concat!(
    "(?:[0-9]{4}-(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])",
    "|[0-9]{4}-(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)",
    "|[0-9]{4}-02-(?:0[1-9]|1[0-9]|2[0-8])",
    // Years that are divisible by 4; of whole centuries, those by 400.
    "|(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)-02-29)",
);

/// Without leap seconds: which ones there were stands in a list that grows, and most readers of times take none.
const TIME: &str = concat!(
    "(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]+)?",
    "(?:[zZ]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])",
);

/// Formats of strings that are followed, and of numbers that are ranges or nothing.
pub(super) fn check(format: &Value, types: Option<&Value>) -> Result<(), String> {
    const STRINGS: [&str; 10] = [
        "date-time",
        "time",
        "date",
        "duration",
        "email",
        "hostname",
        "ipv4",
        "ipv6",
        "uuid",
        "uri",
    ];
    const NUMBERS: [&str; 4] = ["int32", "int64", "float", "double"];
    let format = format.as_str().unwrap_or_default();
    let is_number = matches!(types.and_then(Value::as_str), Some("integer" | "number"));
    if STRINGS.contains(&format) || (is_number && NUMBERS.contains(&format)) {
        return Ok(());
    }
    Err(format!("the format {} is not supported", quoted(format)))
}

/// Puts patterns in the place of dates and times, beside the one that is there.
pub(super) fn as_pattern(map: &mut Map<String, Value>) {
    let pattern = match map.get("format").and_then(Value::as_str) {
        Some("date") => format!("^{DATE}$"),
        Some("time") => format!("^{TIME}$"),
        Some("date-time") => format!("^{DATE}[tT]{TIME}$"),
        _ => return,
    };
    map.shift_remove("format");
    if !map.contains_key("pattern") {
        map.insert("pattern".to_owned(), pattern.into());
        return;
    }
    let both = json!({ "pattern": pattern });
    match map.get_mut("allOf") {
        Some(Value::Array(all)) => all.push(both),
        _ => {
            map.insert("allOf".to_owned(), json!([both]));
        }
    }
}
