//! Numbers, which llguidance keeps as f64.

use serde_json::{Map, Value};

/// Integers up to here are f64's without loss.
const EXACT_MAX: u64 = 1 << 53;

/// Whether f64 holds the number without loss.
pub(super) fn is_exact(number: &serde_json::Number) -> bool {
    match (number.as_i64(), number.as_u64()) {
        (Some(i), _) => i.unsigned_abs() <= EXACT_MAX,
        (None, Some(_)) => false,
        // A fraction is what f64 makes of it, everywhere.
        (None, None) => {
            number.as_f64().is_some_and(|x| x.abs() < 1e15 && (x == 0.0 || x.abs() > 1e-6))
        }
    }
}

/// No number in `value`, however deep, that would come out as another one.
pub(super) fn check(value: &Value) -> Result<(), String> {
    match value {
        Value::Number(number) if !is_exact(number) => {
            Err(format!("the number {number} is too large or too small to be kept to exactly"))
        }
        Value::Array(items) => items.iter().try_for_each(check),
        Value::Object(map) => map.values().try_for_each(check),
        _ => Ok(()),
    }
}

/// `OpenAPI`'s formats of integers are ranges.
pub(super) fn bound_by_format(map: &mut Map<String, Value>) {
    let is_number = matches!(map.get("type").and_then(Value::as_str), Some("integer" | "number"));
    if !is_number {
        return;
    }
    let range = match map.get("format").and_then(Value::as_str) {
        Some("int32") => Some((i64::from(i32::MIN), i64::from(i32::MAX))),
        // Narrower than it says, so that the bounds are exact.
        Some("int64") => Some((-(EXACT_MAX as i64), EXACT_MAX as i64)),
        _ => None,
    };
    map.shift_remove("format");
    let Some((least, most)) = range else { return };
    if !map.contains_key("minimum") && !map.contains_key("exclusiveMinimum") {
        map.insert("minimum".to_owned(), least.into());
    }
    if !map.contains_key("maximum") && !map.contains_key("exclusiveMaximum") {
        map.insert("maximum".to_owned(), most.into());
    }
}
