//! Patterns of names that are a few names in truth: these become properties, which come once at most.

use serde_json::{Map, Value, json};

use crate::text::grammar::pattern;

/// Lists the names of each of `patternProperties` that matches but a few, where no other keyword is about
/// those names or counts them.
pub(super) fn list(map: &mut Map<String, Value>) {
    if map.contains_key("minProperties") || map.contains_key("maxProperties") {
        return;
    }
    let Some(Value::Object(patterns)) = map.get("patternProperties") else { return };
    let listed = map.get("properties").and_then(Value::as_object);
    let is_listed = |name: &String| listed.is_some_and(|listed| listed.contains_key(name));
    let few: Vec<(String, Vec<String>)> = patterns
        .keys()
        .filter_map(|pattern| Some((pattern.clone(), pattern::texts(pattern)?)))
        .filter(|(_, names)| !names.iter().any(is_listed))
        .collect();
    for (pattern, names) in few {
        let Some(Value::Object(patterns)) = map.get_mut("patternProperties") else { return };
        let Some(schema) = patterns.shift_remove(&pattern) else { continue };
        let properties = map.entry("properties").or_insert_with(|| json!({}));
        let Some(properties) = properties.as_object_mut() else { return };
        properties.extend(names.into_iter().map(|name| (name, schema.clone())));
    }
}
