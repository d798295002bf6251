//! Objects of JSON, as Python writes them and people edit them, with typed access whose errors name file and key.

use std::borrow::Cow;

use serde_json::{Map, Value as Json};

use super::files::{self, Folder};

/// A JSON object of the folder, such as the configuration of the model.
pub(super) struct Config {
    /// For errors.
    file: &'static str,
    /// The key of the object that this one is within, for errors.
    within: Option<&'static str>,
    values: Map<String, Json>,
}

impl Config {
    /// Reads the file, if it is there.
    pub(super) fn read(folder: &dyn Folder, file: &'static str) -> Result<Option<Self>, String> {
        files::text(folder, file)?.map(|text| Self::parse(file, &text)).transpose()
    }

    /// The text of `file`.
    pub(super) fn parse(file: &'static str, text: &str) -> Result<Self, String> {
        Ok(Self { file, within: None, values: files::understood(file, text)? })
    }

    #[cfg(test)]
    pub(super) fn of(values: &Json) -> Self {
        let values = values.as_object().cloned().unwrap_or_default();
        Self { file: "config.json", within: None, values }
    }

    /// What errors call a key.
    pub(super) fn name(&self, key: &str) -> String {
        match self.within {
            None => format!("{}: {key}", self.file),
            Some(within) => format!("{}: {key} of {within}", self.file),
        }
    }

    /// All of it.
    pub(super) fn into_values(self) -> Map<String, Json> {
        self.values
    }

    /// Whether something is said there, be it that there is none.
    pub(super) fn has(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    pub(super) fn get(&self, key: &str) -> Option<&Json> {
        self.values.get(key).filter(|value| !value.is_null())
    }

    fn found<'a, T>(
        &'a self,
        key: &str,
        wanted: &str,
        read: impl FnOnce(&'a Json) -> Option<T>,
    ) -> Result<Option<T>, String> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let read = read(value).map(Some);
        read.ok_or_else(|| format!("{} is not {wanted}", self.name(key)))
    }

    /// An integer, which may be written as a float.
    pub(super) fn integer(&self, key: &str) -> Result<Option<u64>, String> {
        self.found(key, "an integer", integer)
    }

    /// The same where -1 says that there is none.
    pub(super) fn integer_unless_minus_one(&self, key: &str) -> Result<Option<u64>, String> {
        match self.get(key) {
            Some(value) if is_minus_one(value) => Ok(None),
            _ => self.integer(key),
        }
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<f64>, String> {
        self.found(key, "a number", Json::as_f64)
    }

    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, String> {
        self.found(key, "true or false", Json::as_bool)
    }

    pub(super) fn string(&self, key: &str) -> Result<Option<&str>, String> {
        self.found(key, "a string", Json::as_str)
    }

    pub(super) fn array(&self, key: &str) -> Result<Option<&[Json]>, String> {
        self.found(key, "an array", |value| value.as_array().map(Vec::as_slice))
    }

    pub(super) fn floats(&self, key: &str) -> Result<Option<Vec<f32>>, String> {
        let float = |value: &Json| value.as_f64().map(|x| x as f32);
        self.found(key, "an array of numbers", |value| {
            value.as_array()?.iter().map(float).collect::<Option<Vec<f32>>>()
        })
    }

    /// An object within the configuration, to be read in the same way.
    pub(super) fn part(&self, key: &'static str) -> Result<Option<Self>, String> {
        self.found(key, "an object", |value| {
            let values = value.as_object()?.clone();
            Some(Self { file: self.file, within: Some(key), values })
        })
    }
}

/// Where floats hold each integer.
const WHOLE_FLOATS: std::ops::Range<f64> = 0.0..9e15;

pub(super) fn integer(value: &Json) -> Option<u64> {
    let of_float = || {
        value.as_f64().filter(|x| x.fract() == 0.0 && WHOLE_FLOATS.contains(x)).map(|x| x as u64)
    };
    value.as_u64().or_else(of_float)
}

pub(super) fn is_minus_one(value: &Json) -> bool {
    value.as_f64() == Some(-1.0)
}

/// Python writes numbers that JSON does not have as bare words. They become texts here: who wants a number there refuses
/// them by the name of the key, and nobody else minds.
pub(super) fn without_bare_words(text: &str) -> Cow<'_, str> {
    const WORDS: [&str; 3] = ["NaN", "Infinity", "-Infinity"];
    if !text.contains("NaN") && !text.contains("Infinity") {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len() + 64);
    let (mut rest, mut in_string) = (text, false);
    while let Some(c) = rest.chars().next() {
        let word = WORDS.into_iter().find(|word| !in_string && rest.starts_with(word));
        let len = if let Some(word) = word {
            plain.extend(["\"", word, "\""]);
            word.len()
        } else {
            in_string ^= c == '"';
            // With what it escapes.
            let len = if in_string && c == '\\' { 2 } else { c.len_utf8() };
            let len = rest.ceil_char_boundary(len);
            plain.push_str(&rest[..len]);
            len
        };
        rest = &rest[len..];
    }
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_python_writes_can_be_read() {
        for (text, expected) in [
            (
                r#"{"a": NaN, "b": [-Infinity, Infinity]}"#,
                r#"{"a": "NaN", "b": ["-Infinity", "Infinity"]}"#,
            ),
            (r#"{"NaN": "a NaN \\\" Infinity \\"}"#, r#"{"NaN": "a NaN \\\" Infinity \\"}"#),
            (r#"["\\", NaN, "\\é"]"#, r#"["\\", "NaN", "\\é"]"#),
            ("NaN\"\\", "\"NaN\"\"\\"),
        ] {
            assert_eq!(without_bare_words(text), expected);
        }
    }

    #[test]
    fn integers_may_be_floats_and_minus_one_may_be_none() {
        let config = Config::of(
            &serde_json::json!({"a": 32.0, "b": -1, "c": 1.5, "d": -1.0, "e": 1e300, "f": null}),
        );
        assert_eq!(config.integer("a"), Ok(Some(32)));
        for key in ["b", "c", "e"] {
            let refused = format!("config.json: {key} is not an integer");
            assert_eq!(config.integer(key), Err(refused));
        }
        for key in ["b", "d", "f", "absent"] {
            assert_eq!(config.integer_unless_minus_one(key), Ok(None));
        }
        assert_eq!(config.integer_unless_minus_one("a"), Ok(Some(32)));
    }
}
