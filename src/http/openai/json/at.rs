//! Values deep inside a request, each with its place: errors name `messages[0].content[1].type`.

use std::fmt;

use super::{ApiError, Json, echo};

/// A value and where it stands.
#[derive(Debug, Clone, Copy)]
pub struct At<'a> {
    pub value: &'a Json,
    place: Place<'a>,
}

/// The way to a value from the request object, last step first: written out only for errors.
#[derive(Debug, Clone, Copy)]
enum Place<'a> {
    Field(&'static str),
    Member(&'a Place<'a>, &'static str),
    Item(&'a Place<'a>, usize),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => f.write_str(name),
            Self::Member(of, name) => write!(f, "{of}.{name}"),
            Self::Item(of, index) => write!(f, "{of}[{index}]"),
        }
    }
}

impl<'a> At<'a> {
    /// The value of a field of the request.
    pub fn field(name: &'static str, value: &'a Json) -> Self {
        Self { value, place: Place::Field(name) }
    }

    /// A member of this object, unless it is absent or `null`. An error if this is no object.
    pub fn member(&'a self, name: &'static str) -> Result<Option<At<'a>>, ApiError> {
        let found = self.object()?.iter().find(|(key, _)| key == name);
        let there = found.map(|(_, value)| value).filter(|value| **value != Json::Null);
        Ok(there.map(|value| At { value, place: Place::Member(&self.place, name) }))
    }

    /// A member that must be there.
    pub fn required(&'a self, name: &'static str) -> Result<At<'a>, ApiError> {
        self.member(name)?.ok_or_else(|| self.missing(name))
    }

    /// A member that is a string, if it is there.
    pub fn text_member(&self, name: &'static str) -> Result<Option<&'a str>, ApiError> {
        let found = self.object()?.iter().find(|(key, _)| key == name);
        match found.map(|(_, value)| value) {
            None | Some(Json::Null) => Ok(None),
            Some(Json::Text(text)) => Ok(Some(text)),
            Some(value) => {
                Err(At { value, place: Place::Member(&self.place, name) }.wrong_type("string"))
            }
        }
    }

    /// A member that must be there and be a string.
    pub fn required_text(&self, name: &'static str) -> Result<&'a str, ApiError> {
        self.text_member(name)?.ok_or_else(|| self.missing(name))
    }

    pub fn object(&self) -> Result<&'a [(String, Json)], ApiError> {
        match self.value {
            Json::Object(members) => Ok(members),
            _ => Err(self.wrong_type("object")),
        }
    }

    pub fn text(&self) -> Result<&'a str, ApiError> {
        match self.value {
            Json::Text(text) => Ok(text),
            _ => Err(self.wrong_type("string")),
        }
    }

    /// The elements of this list.
    pub fn items(&'a self) -> Result<impl ExactSizeIterator<Item = At<'a>>, ApiError> {
        let Json::List(items) = self.value else { return Err(self.wrong_type("array")) };
        let at = |(index, value)| At { value, place: Place::Item(&self.place, index) };
        Ok(items.iter().enumerate().map(at))
    }

    /// In the words for wrong types of all fields.
    pub fn wrong_type(&self, expected: &str) -> ApiError {
        self.fault(format!("{} is not of type '{expected}'", self.value))
    }

    /// Something is wrong with this value; the message ends with its place.
    pub fn fault(&self, message: impl fmt::Display) -> ApiError {
        let place = self.to_string();
        ApiError::invalid(format!("{message} - '{place}'"), place)
    }

    /// This value asks for something that is not built.
    pub fn unsupported(&self, message: impl fmt::Display) -> ApiError {
        let place = self.to_string();
        ApiError::Unsupported {
            message: format!("{message} - '{place}'"),
            param: Some(place.into()),
        }
    }

    fn missing(&self, name: &'static str) -> ApiError {
        let place = Place::Member(&self.place, name).to_string();
        ApiError::invalid(format!("'{name}' is required - '{place}'"), place)
    }
}

/// The place of the value.
impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&echo(&self.place.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_place() {
        let text = |t: &str| Json::Text(t.to_owned());
        let part = Json::Object(vec![("type".to_owned(), text("x")), ("n".to_owned(), Json::Null)]);
        let list = Json::List(vec![part, Json::Bool(true)]);
        let root = At::field("a", &list);
        let items: Vec<At<'_>> = root.items().unwrap().collect();
        assert_eq!(items[0].required_text("type").unwrap(), "x");
        assert!(items[0].member("n").unwrap().is_none());
        for (error, param, message) in [
            (items[1].object().unwrap_err(), "a[1]", "true is not of type 'object' - 'a[1]'"),
            (items[0].required("n").unwrap_err(), "a[0].n", "'n' is required - 'a[0].n'"),
            (
                items[0].required("type").unwrap().items().map(|_| ()).unwrap_err(),
                "a[0].type",
                "'x' is not of type 'array' - 'a[0].type'",
            ),
        ] {
            assert_eq!((error.param(), error.message().as_ref()), (Some(param), message));
        }
    }
}
