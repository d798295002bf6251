//! Schemas of request bodies, from the declarations that the bodies are checked against.

use serde_json::Value;
use utoipa::Number;
use utoipa::openapi::schema::{
    AnyOfBuilder, ArrayBuilder, Object, ObjectBuilder, Schema, SchemaType, Type,
};

use crate::config::RequestLimits;
use crate::http::openai::json::{Field, Form, Kind, Known, PROMPTS_MAX};

/// One canonical spelling for each token id.
const TOKEN_KEY: &str = "^(0|[1-9][0-9]{0,9})$";

/// The body of a route.
pub(super) fn body(known: Known, limits: RequestLimits) -> Schema {
    object(known.fields(), &Note { limits, ..Note::default() })
}

/// What stands beside a schema's bounds.
#[derive(Default)]
struct Note {
    about: Option<&'static str>,
    default: Option<Value>,
    nullable: bool,
    limits: RequestLimits,
}

impl Note {
    fn of(field: &Field, limits: RequestLimits) -> Self {
        Self {
            about: Some(field.about).filter(|about| !about.is_empty()),
            default: serde_json::from_str(field.default).ok(),
            nullable: !field.required,
            limits,
        }
    }

    fn types(&self, of_value: Type) -> SchemaType {
        if self.nullable {
            SchemaType::Array(vec![of_value, Type::Null])
        } else {
            SchemaType::Type(of_value)
        }
    }

    fn begin(&self, of_value: Type) -> ObjectBuilder {
        ObjectBuilder::new()
            .schema_type(self.types(of_value))
            .description(self.about)
            .default(self.default.clone())
    }

    fn any_of(&self, schemas: impl IntoIterator<Item = Schema>) -> Schema {
        let begun = AnyOfBuilder::new().description(self.about).default(self.default.clone());
        let null = self.nullable.then(|| Object::with_type(Type::Null).into());
        schemas.into_iter().chain(null).fold(begun, AnyOfBuilder::item).into()
    }

    fn list(&self, item: Schema, min: usize, max: usize) -> Schema {
        ArrayBuilder::new()
            .schema_type(self.types(Type::Array))
            .description(self.about)
            .default(self.default.clone())
            .items(utoipa::openapi::RefOr::T(item))
            .min_items(Some(min).filter(|&min| min > 0))
            .max_items(Some(max).filter(|&max| max < usize::MAX))
            .build()
            .into()
    }
}

fn object(fields: impl Iterator<Item = &'static Field>, note: &Note) -> Schema {
    let mut object = note.begin(Type::Object);
    for field in fields {
        object = object.property(field.name, schema(field.kind, &Note::of(field, note.limits)));
        if field.required {
            object = object.required(field.name);
        }
    }
    object.into()
}

fn schema(kind: Kind, note: &Note) -> Schema {
    let bare = |kind| schema(kind, &Note::default());
    match kind {
        Kind::Boolean => note.begin(Type::Boolean).into(),
        Kind::Text { min, max } => note
            .begin(Type::String)
            .min_length(Some(min).filter(|&min| min > 0))
            .max_length(Some(max).filter(|&max| max < usize::MAX))
            .into(),
        Kind::VisibleAscii { max } => {
            note.begin(Type::String).max_length(Some(max)).pattern(Some("^[!-~]+$")).into()
        }
        Kind::Word(words) => {
            let null = note.nullable.then_some(Value::Null);
            let words = words.iter().map(|&word| Value::from(word)).chain(null);
            note.begin(Type::String).enum_values(Some(words)).into()
        }
        Kind::Integer { min, max } => {
            note.begin(Type::Integer).minimum(Some(bound(min))).maximum(Some(bound(max))).into()
        }
        Kind::Limited { min, limit } => schema(Kind::integer(min, limit.of(note.limits)), note),
        Kind::Number { min, max } => {
            note.begin(Type::Number).minimum(Some(min)).maximum(Some(max)).into()
        }
        Kind::List { item, min, max } => note.list(bare(*item), min, max),
        Kind::ByToken { value, max } => note
            .begin(Type::Object)
            .property_names(Some(
                ObjectBuilder::new().schema_type(Type::String).pattern(Some(TOKEN_KEY)),
            ))
            .additional_properties(Some(bare(*value)))
            .max_properties(Some(max))
            .into(),
        Kind::Pairs { max, name_max, value_max } => {
            let text = |max| ObjectBuilder::new().schema_type(Type::String).max_length(Some(max));
            note.begin(Type::Object)
                .property_names(Some(text(name_max)))
                .additional_properties(Some(Schema::from(text(value_max))))
                .max_properties(Some(max))
                .into()
        }
        Kind::Object(fields) => object(fields.iter(), note),
        Kind::Either(kinds) => note.any_of(kinds.iter().map(|&kind| bare(kind))),
        Kind::Input([Form::Text]) => schema(Kind::TEXT, note),
        Kind::Input([form]) => form_schema(*form, note),
        Kind::Input(forms) => {
            note.any_of(forms.iter().map(|&form| form_schema(form, &Note::default())))
        }
        Kind::Any => {
            let any = ObjectBuilder::new().schema_type(SchemaType::AnyValue);
            any.description(note.about).default(note.default.clone()).into()
        }
        Kind::Schema(text) => {
            let schema = serde_json::from_str::<Schema>(text).unwrap_or_default();
            note.any_of([schema])
        }
    }
}

fn form_schema(form: Form, note: &Note) -> Schema {
    let ids = |min, note: &Note| note.list(schema(Kind::TOKEN, &Note::default()), min, usize::MAX);
    match form {
        Form::Text => schema(Kind::TEXT, note),
        Form::Texts => note.list(schema(Kind::TEXT, &Note::default()), 1, PROMPTS_MAX),
        Form::Ids { min } => ids(min, note),
        Form::IdLists => note.list(ids(1, &Note::default()), 1, PROMPTS_MAX),
    }
}

fn bound(bound: i128) -> Number {
    isize::try_from(bound).map_or_else(|_| Number::UInt(bound as usize), Number::Int)
}
