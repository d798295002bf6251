//! Fields as they are declared: name, kind, bounds, meaning. One declaration decides what is accepted,
//! how a fault is told, and what stands in the description of the API (`/openapi.json`).

use std::fmt;

use super::{Input, Json, whole};
use crate::config::RequestLimits;
use crate::engine::message::TokenId;
use crate::http::openai::error::{ApiError, echo};

/// One field of a request. `null` is accepted for every field that is not required, and is the default.
#[derive(Debug, Clone, Copy)]
#[must_use]
pub struct Field {
    pub name: &'static str,
    pub kind: Kind,
    pub required: bool,
    /// What happens without it, as JSON; empty where no one value says it.
    pub default: &'static str,
    /// For those who read the description.
    pub about: &'static str,
}

/// What a field may hold.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    Boolean,
    /// A string of this many bytes.
    Text {
        min: usize,
        max: usize,
    },
    /// Visible ASCII, at least one character.
    VisibleAscii {
        max: usize,
    },
    /// One of these strings.
    Word(&'static [&'static str]),
    Integer {
        min: i128,
        max: i128,
    },
    /// An integer whose maximum is the operator's to set.
    Limited {
        min: i64,
        limit: Limit,
    },
    Number {
        min: f64,
        max: f64,
    },
    List {
        item: &'static Kind,
        min: usize,
        max: usize,
    },
    /// An object whose keys are token ids.
    ByToken {
        value: &'static Kind,
        max: usize,
    },
    /// An object of strings, each name and value of so many characters.
    Pairs {
        max: usize,
        name_max: usize,
        value_max: usize,
    },
    /// An object with these fields; others in it are ignored.
    Object(&'static [Field]),
    /// The first of these whose JSON type the value has.
    Either(&'static [Kind]),
    /// An [`Input`] in one of these forms.
    Input(&'static [Form]),
    /// What the endpoint checks by itself, with its JSON Schema.
    Schema(&'static str),
    /// The same, where nothing can be said of it.
    Any,
}

/// A setting that bounds a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// `--max-n`
    N,
    /// `--max-logprobs`
    Logprobs,
}

impl Limit {
    pub fn of(self, limits: RequestLimits) -> i64 {
        match self {
            Self::N => limits.n as i64,
            Self::Logprobs => limits.logprobs as i64,
        }
    }

    /// How far operators may go.
    fn most(self) -> i64 {
        match self {
            Self::N => RequestLimits::N_MAX as i64,
            Self::Logprobs => RequestLimits::LOGPROBS_MAX as i64,
        }
    }
}

/// The forms of an [`Input`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Text,
    Texts,
    /// At least `min` of them.
    Ids {
        min: usize,
    },
    IdLists,
}

/// Which fields a route knows, in groups that routes share. All others are skipped unread.
#[derive(Debug, Clone, Copy)]
pub struct Known(pub &'static [&'static [Field]]);

impl Known {
    pub fn fields(self) -> impl Iterator<Item = &'static Field> {
        self.0.iter().copied().flatten()
    }

    pub fn find(self, name: &str) -> Option<&'static Field> {
        self.fields().find(|field| field.name == name)
    }
}

impl Field {
    pub const fn new(name: &'static str, kind: Kind) -> Self {
        Self { name, kind, required: false, default: "", about: "" }
    }

    pub const fn required(self) -> Self {
        Self { required: true, ..self }
    }

    pub const fn default(self, default: &'static str) -> Self {
        Self { default, ..self }
    }

    pub const fn about(self, about: &'static str) -> Self {
        Self { about, ..self }
    }
}

impl Kind {
    pub const TEXT: Self = Self::Text { min: 0, max: usize::MAX };
    pub const TOKEN: Self = Self::Integer { min: 0, max: TokenId::MAX as i128 };

    pub const fn integer(min: i64, max: i64) -> Self {
        Self::Integer { min: min as i128, max: max as i128 }
    }

    /// A number of things that only the context bounds.
    pub const fn count(min: u64) -> Self {
        Self::Integer { min: min as i128, max: u64::MAX as i128 }
    }

    pub const fn number(min: f64, max: f64) -> Self {
        Self::Number { min, max }
    }

    /// What JSON Schema calls its values' type.
    fn type_name(self) -> &'static str {
        match self {
            Self::Boolean => "boolean",
            Self::Text { .. } | Self::VisibleAscii { .. } | Self::Word(_) => "string",
            Self::Integer { .. } | Self::Limited { .. } => "integer",
            Self::Number { .. } => "number",
            Self::List { .. } => "array",
            Self::ByToken { .. } | Self::Pairs { .. } | Self::Object(_) => "object",
            Self::Either(_) | Self::Input(_) | Self::Schema(_) | Self::Any => "",
        }
    }

    fn has_type_of(self, value: &Json) -> bool {
        match value {
            Json::Null => false,
            Json::Bool(_) => matches!(self, Self::Boolean),
            Json::Number(_) => ["integer", "number"].contains(&self.type_name()),
            Json::Text(_) => self.type_name() == "string",
            Json::List(_) => matches!(self, Self::List { .. }),
            Json::Object(_) => self.type_name() == "object",
        }
    }
}

/// Where a value stands, from the request object on.
struct Place<'a>(&'a str);

impl Place<'_> {
    fn fault(&self, message: impl fmt::Display) -> ApiError {
        ApiError::invalid(format!("{message} - '{}'", self.0), self.0.to_owned())
    }

    fn below<T>(&self, path: &str, check: impl FnOnce(&Place<'_>) -> T) -> T {
        check(&Place(&format!("{}{path}", self.0)))
    }
}

impl Field {
    /// The value is within the declaration.
    pub fn check(&self, value: &Json) -> Result<(), ApiError> {
        check(self.kind, value, &Place(self.name))
    }

    pub fn check_input(&self, input: &Input) -> Result<(), ApiError> {
        let Kind::Input(forms) = self.kind else { return Ok(()) };
        let place = Place(self.name);
        let empty = |place: &Place<'_>| Err(place.fault("The list of tokens must not be empty"));
        let Some(form) = forms.iter().find(|form| form.is_of(input)) else {
            let expected: Vec<_> = forms.iter().map(Form::to_string).collect();
            return Err(place.fault(format!("Must be {}", expected.join(", or "))));
        };
        match (form, input) {
            (Form::Ids { min }, Input::Ids(ids)) if ids.len() < *min => empty(&place),
            (Form::IdLists, Input::IdLists(lists)) => {
                let at = lists.iter().position(Vec::is_empty);
                at.map_or(Ok(()), |at| place.below(&format!("[{at}]"), empty))
            }
            _ => Ok(()),
        }
    }
}

impl Form {
    fn is_of(self, input: &Input) -> bool {
        matches!(
            (self, input),
            (Self::Text, Input::Text(_))
                | (Self::Texts, Input::Texts(_))
                | (Self::Ids { .. }, Input::Ids(_))
                | (Self::IdLists, Input::IdLists(_))
        )
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "a string",
            Self::Texts => "a list of strings",
            Self::Ids { .. } => "a list of token ids",
            Self::IdLists => "a list of lists of token ids",
        })
    }
}

fn check(kind: Kind, value: &Json, place: &Place<'_>) -> Result<(), ApiError> {
    match (kind, value) {
        (Kind::Any | Kind::Schema(_) | Kind::Input(_), _) | (Kind::Boolean, Json::Bool(_)) => {
            Ok(())
        }
        (Kind::Text { min, max }, Json::Text(text)) => check_length(text, min, max, place),
        (Kind::VisibleAscii { max }, Json::Text(text)) => {
            let is_sound = (1..=max).contains(&text.len());
            if is_sound && text.bytes().all(|b| b.is_ascii_graphic()) {
                return Ok(());
            }
            Err(place.fault(format!("Not 1 to {max} visible ASCII characters")))
        }
        (Kind::Word(words), Json::Text(text)) => {
            if words.contains(&text.as_str()) {
                return Ok(());
            }
            let words = words.join("', '");
            Err(place.fault(format!("{value} is not one of ['{words}']")))
        }
        // Here only the widest limit is known; the endpoint holds to the one that is set.
        (Kind::Limited { min, limit }, _) => check(Kind::integer(min, limit.most()), value, place),
        (Kind::Integer { min, max }, Json::Number(number)) => {
            let integer = whole(number).ok_or_else(|| wrong_type(value, &[kind], place))?;
            check_range(&integer, (&min, &max), number, place)
        }
        (Kind::Number { min, max }, Json::Number(number)) => match number.as_f64() {
            Some(x) if x.is_finite() => check_range(&x, (&min, &max), number, place),
            _ => Err(wrong_type(value, &[kind], place)),
        },
        (Kind::List { item, min, max }, Json::List(items)) => {
            if items.len() < min {
                return Err(place.fault(format!("{value} is too short")));
            }
            if items.len() > max {
                return Err(place.fault(format!("More than {max} items")));
            }
            let mut indexed = items.iter().enumerate();
            indexed.try_for_each(|(i, value)| {
                place.below(&format!("[{i}]"), |place| check(*item, value, place))
            })
        }
        (Kind::ByToken { value: kind, max }, Json::Object(entries)) => {
            if entries.len() > max {
                return Err(place.fault(format!("More than {max} entries")));
            }
            entries.iter().try_for_each(|(key, value)| {
                if token_key(key).is_none() {
                    return Err(place.fault(format!("{} is not a token id", quoted(key))));
                }
                place.below(&format!(".{key}"), |place| check(*kind, value, place))
            })
        }
        (Kind::Pairs { max, name_max, value_max }, Json::Object(pairs)) => {
            check_pairs(pairs, max, (name_max, value_max), place)
        }
        (Kind::Object(fields), Json::Object(entries)) => check_object(fields, entries, place),
        (Kind::Either(kinds), value) => match kinds.iter().find(|kind| kind.has_type_of(value)) {
            Some(kind) => check(*kind, value, place),
            None => Err(wrong_type(value, kinds, place)),
        },
        _ => Err(wrong_type(value, &[kind], place)),
    }
}

fn check_length(text: &str, min: usize, max: usize, place: &Place<'_>) -> Result<(), ApiError> {
    if text.len() < min {
        return Err(place.fault(format!("{} is too short", quoted(text))));
    }
    if text.len() > max {
        return Err(place.fault(format!("A string of more than {max} bytes")));
    }
    Ok(())
}

fn check_pairs(
    pairs: &[(String, Json)],
    max: usize,
    (name_max, value_max): (usize, usize),
    place: &Place<'_>,
) -> Result<(), ApiError> {
    if pairs.len() > max {
        return Err(place.fault(format!("More than {max} pairs")));
    }
    for (name, value) in pairs {
        if name.chars().count() > name_max {
            return Err(
                place.fault(format!("{} has more than {name_max} characters", quoted(name)))
            );
        }
        let fault = |what: &str| {
            place.below(&format!(".{}", echo(name)), |place| place.fault(format!("{value} {what}")))
        };
        match value {
            Json::Text(text) if text.chars().count() <= value_max => {}
            Json::Text(_) => return Err(fault(&format!("has more than {value_max} characters"))),
            _ => return Err(fault("is not of type 'string'")),
        }
    }
    Ok(())
}

fn check_range<T: PartialOrd + fmt::Display>(
    value: &T,
    (min, max): (&T, &T),
    as_sent: &serde_json::Number,
    place: &Place<'_>,
) -> Result<(), ApiError> {
    if value > max {
        return Err(place.fault(format!("{as_sent} is greater than the maximum of {max}")));
    }
    if value < min {
        return Err(place.fault(format!("{as_sent} is less than the minimum of {min}")));
    }
    Ok(())
}

fn check_object(
    fields: &'static [Field],
    entries: &[(String, Json)],
    place: &Place<'_>,
) -> Result<(), ApiError> {
    let is_there = |name| entries.iter().any(|(key, value)| key == name && *value != Json::Null);
    for field in fields {
        if field.required && !is_there(field.name) {
            return Err(place.below(&format!(".{}", field.name), |place| place.fault("Required")));
        }
    }
    for (key, value) in entries {
        let field = fields.iter().find(|field| field.name == key);
        if let (Some(field), false) = (field, *value == Json::Null) {
            place.below(&format!(".{key}"), |place| check(field.kind, value, place))?;
        }
    }
    Ok(())
}

/// The id that a key stands for, in its one canonical spelling, so that no id can come twice.
pub fn token_key(key: &str) -> Option<TokenId> {
    key.parse::<TokenId>().ok().filter(|id| id.to_string() == key)
}

fn quoted(text: &str) -> Json {
    Json::Text(text.to_owned())
}

/// OpenAI's words for a wrong type: `'x' is not of type 'integer' - 'max_tokens'`.
fn wrong_type(value: &Json, kinds: &[Kind], place: &Place<'_>) -> ApiError {
    let expected: Vec<_> = kinds.iter().map(|kind| kind.type_name()).collect();
    place.fault(format!("{value} is not of type '{}'", expected.join("' or '")))
}
