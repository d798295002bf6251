//! Places in a schema.

use serde_json::Value;

use super::Path;

/// The place that `$ref` names. Only those within the schema: nothing is ever fetched.
pub(super) fn parse(reference: &str) -> Result<Path, String> {
    let shown = || super::keywords::quoted(reference);
    if reference == "#" {
        return Ok(Path::new());
    }
    let Some(pointer) = reference.strip_prefix("#/") else {
        return Err(format!("'$ref' {} is not within the schema ('#/...')", shown()));
    };
    // llguidance reads the parts of a pointer as they are written.
    if pointer.contains(['~', '%']) {
        return Err(format!("'$ref' {} has escapes, which are not supported", shown()));
    }
    Ok(pointer.split('/').map(str::to_owned).collect())
}

pub(super) fn find_mut<'a>(root: &'a mut Value, path: &Path) -> Option<&'a mut Value> {
    path.iter().try_fold(root, |value, part| match value {
        Value::Object(map) => map.get_mut(part),
        Value::Array(items) => items.get_mut(part.parse::<usize>().ok()?),
        _ => None,
    })
}

/// Calls `visit` with every key of every object in `value`, and the path to that object.
pub(super) fn each_key(value: &Value, path: &mut Path, visit: &mut impl FnMut(&Path, &str)) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                visit(path, key);
                path.push(key.clone());
                each_key(value, path, visit);
                path.pop();
            }
        }
        Value::Array(items) => {
            for (at, value) in items.iter().enumerate() {
                path.push(at.to_string());
                each_key(value, path, visit);
                path.pop();
            }
        }
        _ => {}
    }
}

/// As a JSON pointer, short enough for a message.
pub(super) fn shown(path: &Path) -> String {
    let parts: Vec<_> = std::iter::once("#").chain(path.iter().map(String::as_str)).collect();
    super::keywords::quoted(&parts.join("/"))
}
