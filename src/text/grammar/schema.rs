//! JSON schemas: what llguidance follows to the letter, and a refusal by name of everything else.
//!
//! llguidance ignores keywords that it does not know, and some that it knows in places where they do
//! not apply. Output that breaks a schema without a word is what a schema is there to prevent, so the
//! schema is read here first: each keyword at each place is one that is followed, or says nothing
//! about validity, or is refused with its path.

mod formats;
mod keywords;
mod names;
mod numbers;
mod references;

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::{GrammarError, pattern};
use keywords::{Keyword, Place};

/// Between two tokens of JSON: a blank, or a new line with its indentation. Any white space would let
/// a model that has nothing to say fill its answer with it.
const WHITE_SPACE: &str = " |\\n[ \\t]{0,20}";
/// Without `\u`: a name in another spelling would pass as an additional property.
const ESCAPES: &str = "nrbtf\\\"";

/// Most items, characters or properties that a schema may ask for at least.
const LEAST_MAX: u64 = 10_000;
/// Most schemas of one `oneOf`, each of which is compared with all others.
const ONE_OF_MAX: usize = 256;
/// Most names of one `patternProperties`, compared likewise, and of all together.
const PATTERNS_MAX: usize = 32;
const ALL_PATTERNS_MAX: usize = 128;

/// The schema as the compiler takes it, or why not.
pub(super) fn prepare(schema: &Value) -> Result<Value, GrammarError> {
    let mut schema = match schema {
        Value::Bool(true) => json!({}),
        Value::Object(_) => schema.clone(),
        _ => return Err(GrammarError::Refused("a schema is an object - at '#'".to_owned())),
    };
    let mut reader = Reader { draft: draft(&schema)?, open: vec![Vec::new()], ..Reader::default() };
    while let Some(place) = reader.open.pop() {
        if reader.seen.contains(&place) {
            continue;
        }
        let Some(found) = references::find_mut(&mut schema, &place) else { continue };
        reader.read(found, &place).map_err(GrammarError::Refused)?;
        reader.seen.insert(place);
    }
    // From the inside out: schemas move with what is in them.
    let mut places: Vec<Path> = reader.seen.into_iter().collect();
    places.sort_unstable_by_key(|place| std::cmp::Reverse(place.len()));
    for place in &places {
        if let Some(Value::Object(map)) = references::find_mut(&mut schema, place) {
            names::list(map);
        }
    }
    if let Value::Object(root) = &mut schema {
        let options = json!({ "whitespace_pattern": WHITE_SPACE, "json_allowed_escapes": ESCAPES });
        root.insert("x-guidance".to_owned(), options);
    }
    Ok(schema)
}

/// Where `oneOf` stands, for the one fault of it that only the compiler finds.
pub(super) fn overlapping_one_of(schema: &Value) -> String {
    let mut places = Vec::new();
    references::each_key(schema, &mut Vec::new(), &mut |path, key| {
        if key == "oneOf" && places.len() < 3 {
            let place = path.iter().cloned().chain([key.to_owned()]).collect();
            places.push(references::shown(&place));
        }
    });
    let places = places.join(", ");
    format!(
        "'oneOf' is only supported where no value can match two of its schemas; use 'anyOf' - at {places}"
    )
}

/// The year of the schema's draft, or its number; the newest where it does not say.
fn draft(schema: &Value) -> Result<u16, GrammarError> {
    let Some(given) = schema.get("$schema") else { return Ok(keywords::NEWEST) };
    given.as_str().and_then(keywords::draft).ok_or_else(|| {
        GrammarError::Refused(format!("'$schema' {given} is not supported - at '#'"))
    })
}

type Path = Vec<String>;

#[derive(Default)]
struct Reader {
    draft: u16,
    /// Places of schemas that were not read yet.
    open: Vec<Path>,
    seen: HashSet<Path>,
    /// Names of `patternProperties` so far.
    patterns: usize,
}

impl Reader {
    fn read(&mut self, schema: &mut Value, path: &Path) -> Result<(), String> {
        let at = |what: &str| format!("{what} - at {}", references::shown(path));
        let map = match schema {
            Value::Bool(_) => return Ok(()),
            Value::Object(map) => map,
            _ => return Err(at("a schema is an object or a boolean")),
        };
        map.retain(|key, value| !keywords::says_nothing(key, value));
        self.rewrite_names(map).map_err(|what| at(&what))?;
        for (key, value) in map.iter() {
            let Some(keyword) = keywords::find(key) else {
                return Err(at(&keywords::unknown(key)));
            };
            let is_root = path.is_empty();
            keyword.check(key, value, self.draft, is_root).map_err(|what| at(&what))?;
            self.enter(keyword, key, value, path).map_err(|what| at(&what))?;
        }
        check_together(map).map_err(|what| at(&what))?;
        rewrite(map).map_err(|what| at(&what))
    }

    /// Puts the names of `patternProperties` into the compiler's dialect.
    fn rewrite_names(&mut self, map: &mut Map<String, Value>) -> Result<(), String> {
        let Some(Value::Object(patterns)) = map.get_mut("patternProperties") else { return Ok(()) };
        self.patterns += patterns.len();
        if patterns.len() > PATTERNS_MAX || self.patterns > ALL_PATTERNS_MAX {
            return Err("'patternProperties' has too many patterns".to_owned());
        }
        let rewritten = std::mem::take(patterns).into_iter().map(|(name, schema)| {
            let name = pattern::from_ecma(&name);
            Ok((name.map_err(|what| format!("'patternProperties': {what}"))?, schema))
        });
        *patterns = rewritten.collect::<Result<_, String>>()?;
        Ok(())
    }

    /// Notes the schemas under a keyword.
    fn enter(
        &mut self,
        keyword: Keyword,
        key: &str,
        value: &Value,
        path: &Path,
    ) -> Result<(), String> {
        let below = |names: &[&str]| {
            let names = names.iter().map(|name| (*name).to_owned());
            path.iter().cloned().chain(names).collect::<Path>()
        };
        match (keyword.place, value) {
            (Place::Schema, Value::Object(_) | Value::Bool(_)) => self.open.push(below(&[key])),
            (Place::SchemaOrList | Place::List, Value::Array(items)) => {
                let places = (0..items.len()).map(|at| below(&[key, &at.to_string()]));
                self.open.extend(places);
            }
            (Place::SchemaOrList, Value::Object(_) | Value::Bool(_)) => {
                self.open.push(below(&[key]));
            }
            (Place::Map, Value::Object(map)) => {
                self.open.extend(map.keys().map(|name| below(&[key, name])));
            }
            (Place::Reference, Value::String(reference)) => {
                self.open.push(references::parse(reference)?);
            }
            (Place::Nothing, _) => {}
            _ => return Err(format!("'{key}' has a value of the wrong type")),
        }
        Ok(())
    }
}

/// Keywords that llguidance follows alone, but not with certain others.
fn check_together(map: &Map<String, Value>) -> Result<(), String> {
    if map.contains_key("prefixItems") && map.contains_key("additionalItems") {
        return Err("'additionalItems' beside 'prefixItems' is not supported".to_owned());
    }
    if map.get("oneOf").and_then(Value::as_array).is_some_and(|list| list.len() > ONE_OF_MAX) {
        return Err(format!("'oneOf' has more than {ONE_OF_MAX} schemas"));
    }
    // Names that a schema does not list may come twice in an answer, and then count once.
    let least = map.get("minProperties").and_then(Value::as_u64).unwrap_or(0);
    let required = map.get("required").and_then(Value::as_array).map_or(0, Vec::len) as u64;
    if least > required + 1 {
        let most = required + 1;
        return Err(format!("'minProperties' above {most} is not supported here"));
    }
    for key in ["minLength", "minItems", "minProperties"] {
        if map.get(key).and_then(Value::as_u64).is_some_and(|least| least > LEAST_MAX) {
            return Err(format!("'{key}' is above {LEAST_MAX}"));
        }
    }
    if let Some(format) = map.get("format") {
        formats::check(format, map.get("type"))?;
    }
    Ok(())
}

/// Says the same in words that llguidance reads as they are meant.
fn rewrite(map: &mut Map<String, Value>) -> Result<(), String> {
    numbers::bound_by_format(map);
    if let Some(Value::String(regex)) = map.get_mut("pattern") {
        *regex = pattern::from_ecma(regex).map_err(|what| format!("'pattern': {what}"))?;
    }
    formats::as_pattern(map);
    Ok(())
}
