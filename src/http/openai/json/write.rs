//! A request's JSON, written out again.

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::Json;

impl Json {
    /// As one line of JSON, in its own order.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// For those who take serde's values. In the order of the request.
    pub fn to_value(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    /// About how long it is as JSON.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Null | Self::Bool(_) | Self::Number(_) => 8,
            Self::Text(text) => text.len() + 2,
            Self::List(items) => items.iter().map(|item| item.bytes() + 2).sum::<usize>() + 2,
            Self::Object(members) => {
                members.iter().map(|(name, value)| name.len() + value.bytes() + 6).sum::<usize>()
                    + 2
            }
        }
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(b) => serializer.serialize_bool(*b),
            Self::Number(number) => number.serialize(serializer),
            Self::Text(text) => serializer.serialize_str(text),
            Self::List(items) => serializer.collect_seq(items),
            Self::Object(members) => {
                let mut map = serializer.serialize_map(Some(members.len()))?;
                for (name, value) in members {
                    map.serialize_entry(name, value)?;
                }
                map.end()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::http::openai::json::testing::json;

    #[test]
    fn what_was_read_is_written() {
        let text = r#"{"z":[1,-2,0.5,true,null,{}],"a":"\"é\n"}"#;
        assert_eq!(json(text).to_json(), text);
        assert_eq!(json(text).to_value(), serde_json::from_str::<serde_json::Value>(text).unwrap());
        assert!(json(text).bytes() >= text.len());
    }
}
