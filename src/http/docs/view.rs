//! The description of the API as rows and words, ready to be laid out.

use serde::Serialize;
use serde_json::Value;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::schema::{ArrayItems, Object, Schema, SchemaType, Type};
use utoipa::openapi::{Components, OpenApi, RefOr, Response};

#[derive(Debug, Serialize)]
pub(super) struct View {
    version: String,
    about: Vec<String>,
    groups: Vec<Group>,
    /// What answers are made of.
    shapes: Vec<Shape>,
    /// Statuses that stand for errors.
    errors: Vec<Failure>,
}

#[derive(Debug, Serialize)]
struct Group {
    name: String,
    about: Option<String>,
    calls: Vec<Call>,
}

#[derive(Debug, Serialize)]
struct Call {
    id: String,
    method: &'static str,
    path: String,
    summary: String,
    about: Option<String>,
    needs_key: bool,
    fields: Vec<Row>,
    curl: String,
    answers: Vec<Answer>,
    errors: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Answer {
    status: String,
    about: String,
    /// Content type, and the shape of it.
    forms: Vec<(String, String)>,
    example: Option<String>,
}

#[derive(Debug, Serialize)]
struct Shape {
    name: String,
    about: Option<String>,
    fields: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Failure {
    status: String,
    name: String,
    about: String,
    examples: Vec<String>,
}

/// A field of a body, or a part of the path.
#[derive(Debug, Default, Serialize)]
struct Row {
    name: String,
    kind: String,
    bounds: String,
    default: Option<String>,
    required: bool,
    about: Option<String>,
}

impl View {
    pub(super) fn of(document: &OpenApi) -> Self {
        let empty = Components::new();
        let components = document.components.as_ref().unwrap_or(&empty);
        let calls =
            || document.paths.paths.iter().filter_map(|(path, item)| call(path, item, components));
        let tags = document.tags.iter().flatten();
        let groups = tags.map(|tag| Group {
            name: tag.name.clone(),
            about: tag.description.clone(),
            calls: calls().filter(|(of, _)| *of == tag.name).map(|(_, call)| call).collect(),
        });
        let about = document.info.description.as_deref().unwrap_or_default();
        Self {
            version: document.info.version.clone(),
            about: about.split("\n\n").map(str::to_owned).collect(),
            groups: groups.collect(),
            shapes: shapes(components),
            errors: errors(document, components),
        }
    }
}

/// The one operation of a path, and its group.
fn call(path: &str, item: &PathItem, components: &Components) -> Option<(String, Call)> {
    let (method, operation) = match (&item.get, &item.post) {
        (Some(get), _) => ("GET", get),
        (None, Some(post)) => ("POST", post),
        (None, None) => return None,
    };
    let needs_key = operation.security.as_ref().is_some_and(|all| !all.is_empty());
    let mut fields = parameters(operation);
    let mut example = None;
    if let Some((schema, body)) = request(operation, components) {
        add_rows(schema, "", &mut fields);
        example = body;
    }
    let (answers, errors) = answers(operation);
    let call = Call {
        id: operation.operation_id.clone().unwrap_or_default(),
        method,
        path: path.to_owned(),
        summary: operation.summary.clone().unwrap_or_default(),
        about: operation.description.clone(),
        needs_key,
        curl: curl(path, needs_key, example.as_ref()),
        fields,
        answers,
        errors,
    };
    Some((operation.tags.iter().flatten().next()?.clone(), call))
}

fn parameters(operation: &Operation) -> Vec<Row> {
    let parameters =
        operation.parameters.iter().flatten().filter_map(|parameter| match parameter {
            RefOr::T(parameter) => Some(parameter),
            RefOr::Ref(_) => None,
        });
    let row = |name: &str, about: &Option<String>| Row {
        name: format!("{{{name}}}"),
        kind: "string".to_owned(),
        required: true,
        about: about.clone(),
        ..Row::default()
    };
    parameters.map(|parameter| row(&parameter.name, &parameter.description)).collect()
}

fn request<'a>(
    operation: &Operation,
    components: &'a Components,
) -> Option<(&'a Schema, Option<Value>)> {
    let RefOr::T(body) = operation.request_body.as_ref()? else { return None };
    let RefOr::T(content) = body.content.get("application/json")? else { return None };
    let RefOr::Ref(reference) = content.schema.as_ref()? else { return None };
    let RefOr::T(schema) = components.schemas.get(last(&reference.ref_location))? else {
        return None;
    };
    Some((schema, content.example.clone()))
}

fn last(reference: &str) -> &str {
    reference.rsplit('/').next().unwrap_or_default()
}

fn curl(path: &str, needs_key: bool, body: Option<&Value>) -> String {
    let path = path.split(['{', '}']).enumerate().map(|(i, part)| {
        // A name in braces.
        if i % 2 == 1 { "gpt-3.5-turbo-instruct" } else { part }
    });
    let mut lines = vec![format!("curl $URL{}", path.collect::<String>())];
    if needs_key {
        lines.push("-H \"Authorization: Bearer $KEY\"".to_owned());
    }
    if let Some(body) = body {
        lines.push("-H 'Content-Type: application/json'".to_owned());
        lines.push(format!("-d '{body}'"));
    }
    lines.join(" \\\n  ")
}

/// Good answers, and the statuses of errors.
fn answers(operation: &Operation) -> (Vec<Answer>, Vec<String>) {
    let (mut good, mut errors) = (Vec::new(), Vec::new());
    for (status, response) in &operation.responses.responses {
        match response {
            RefOr::T(response) => good.push(answer(status, response)),
            RefOr::Ref(_) => errors.push(status.clone()),
        }
    }
    (good, errors)
}

fn answer(status: &str, response: &Response) -> Answer {
    let contents = response.content.iter().filter_map(|(content_type, content)| match content {
        RefOr::T(content) => Some((content_type, content)),
        RefOr::Ref(_) => None,
    });
    let form = |(content_type, schema): (&String, Option<&RefOr<Schema>>)| {
        (content_type.clone(), schema.map(kind).unwrap_or_default())
    };
    Answer {
        status: status.to_owned(),
        about: response.description.clone(),
        forms: contents
            .clone()
            .map(|(name, content)| form((name, content.schema.as_ref())))
            .collect(),
        example: contents.clone().find_map(|(_, content)| pretty(content.example.as_ref()?)),
    }
}

fn pretty(value: &Value) -> Option<String> {
    serde_json::to_string_pretty(value).ok()
}

fn shapes(components: &Components) -> Vec<Shape> {
    let schemas = components.schemas.iter().filter(|(name, _)| !name.contains("Request"));
    let shape = |(name, schema): (&String, &RefOr<Schema>)| {
        let RefOr::T(schema) = schema else { return None };
        let mut fields = Vec::new();
        add_rows(schema, "", &mut fields);
        let about = note(schema).0;
        Some(Shape { name: name.clone(), about, fields })
    };
    schemas.filter_map(shape).collect()
}

fn errors(document: &OpenApi, components: &Components) -> Vec<Failure> {
    let statuses = document.paths.paths.values().flat_map(|item| [&item.get, &item.post]);
    let responses = statuses.flatten().flat_map(|operation| &operation.responses.responses);
    let mut found: Vec<_> = responses
        .filter_map(|(status, response)| match response {
            RefOr::Ref(reference) => Some((status.clone(), last(&reference.ref_location))),
            RefOr::T(_) => None,
        })
        .collect();
    found.sort();
    found.dedup();
    let failure = |(status, name): (String, &str)| {
        let RefOr::T(response) = components.responses.get(name)? else { return None };
        let contents = response.content.values();
        let examples = contents.filter_map(|content| match content {
            RefOr::T(content) => Some(content.examples.values()),
            RefOr::Ref(_) => None,
        });
        let examples = examples.flatten().filter_map(|example| match example {
            RefOr::T(example) => pretty(example.value.as_ref()?),
            RefOr::Ref(_) => None,
        });
        let about = response.description.clone();
        Some(Failure { status, name: name.to_owned(), about, examples: examples.collect() })
    };
    found.into_iter().filter_map(failure).collect()
}

/// A row for each field of an object, and for those of objects in it.
fn add_rows(schema: &Schema, prefix: &str, rows: &mut Vec<Row>) {
    let Schema::Object(object) = schema else { return };
    for (name, field) in &object.properties {
        let (about, default) = match field {
            RefOr::T(schema) => note(schema),
            RefOr::Ref(reference) => {
                (Some(reference.description.clone()).filter(|d| !d.is_empty()), None)
            }
        };
        let name = format!("{prefix}{name}");
        rows.push(Row {
            kind: kind(field),
            bounds: bounds(field),
            default: default.map(|default| default.to_string()),
            required: object.required.iter().any(|required| name.ends_with(required.as_str())),
            about,
            name: name.clone(),
        });
        if let RefOr::T(schema) = field {
            add_rows(schema, &format!("{name}."), rows);
        }
    }
}

/// What is said of a schema, and its default.
fn note(schema: &Schema) -> (Option<String>, Option<Value>) {
    match schema {
        Schema::Object(s) => (s.description.clone(), s.default.clone()),
        Schema::Array(s) => (s.description.clone(), s.default.clone()),
        Schema::AnyOf(s) => (s.description.clone(), s.default.clone()),
        Schema::OneOf(s) => (s.description.clone(), s.default.clone()),
        _ => (None, None),
    }
}

/// What a value may be, in words; null is not told.
fn kind(schema: &RefOr<Schema>) -> String {
    match schema {
        RefOr::Ref(reference) => last(&reference.ref_location).to_owned(),
        RefOr::T(Schema::Array(array)) => match &array.items {
            ArrayItems::RefOrSchema(item) => format!("list of {}", kind(item)),
            ArrayItems::False => "list".to_owned(),
        },
        RefOr::T(Schema::AnyOf(any)) => either(&any.items),
        RefOr::T(Schema::OneOf(one)) => either(&one.items),
        RefOr::T(Schema::Object(object)) => match &object.enum_values {
            Some(values) => {
                let values = values.iter().filter(|value| !value.is_null());
                values.map(ToString::to_string).collect::<Vec<_>>().join(" or ")
            }
            None => types(&object.schema_type),
        },
        RefOr::T(_) => String::new(),
    }
}

fn either(schemas: &[RefOr<Schema>]) -> String {
    let kinds = schemas.iter().map(kind).filter(|kind| !kind.is_empty());
    kinds.collect::<Vec<_>>().join(" or ")
}

fn types(types: &SchemaType) -> String {
    let types = match types {
        SchemaType::Type(one) => std::slice::from_ref(one),
        SchemaType::Array(all) => all,
        SchemaType::AnyValue => return "any".to_owned(),
    };
    let names = types.iter().filter_map(|of_value| match of_value {
        Type::Null => None,
        Type::Object => Some("object"),
        Type::String => Some("string"),
        Type::Integer => Some("integer"),
        Type::Number => Some("number"),
        Type::Boolean => Some("boolean"),
        Type::Array => Some("list"),
    });
    names.collect::<Vec<_>>().join(" or ")
}

fn bounds(schema: &RefOr<Schema>) -> String {
    match schema {
        RefOr::T(Schema::Object(object)) => bounds_of(object),
        RefOr::T(Schema::Array(array)) => between(array.min_items, array.max_items, " items"),
        _ => String::new(),
    }
}

fn bounds_of(object: &Object) -> String {
    let number = |n: &Option<utoipa::Number>| {
        n.as_ref().and_then(|n| serde_json::to_value(n).ok()).map(|n| n.to_string())
    };
    let range = between(number(&object.minimum), number(&object.maximum), "");
    let length = between(object.min_length, object.max_length, " characters");
    let count = between(None::<usize>, object.max_properties, " entries");
    [range, length, count].concat()
}

fn between(
    min: Option<impl std::fmt::Display>,
    max: Option<impl std::fmt::Display>,
    what: &str,
) -> String {
    match (min, max) {
        (Some(min), Some(max)) => format!("{min} to {max}{what}"),
        (Some(min), None) => format!("at least {min}{what}"),
        (None, Some(max)) => format!("at most {max}{what}"),
        (None, None) => String::new(),
    }
}
