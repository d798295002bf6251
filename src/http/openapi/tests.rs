use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use super::*;
use crate::http::openai;
use crate::http::openai::chat::types as chat;
use crate::http::openai::completions::types as completions;
use crate::http::openai::json::Known;

fn value() -> Value {
    serde_json::to_value(document(RequestLimits::default())).unwrap()
}

/// To write it anew: `MILLRACE_WRITE=1 cargo test --lib openapi`.
#[test]
fn the_file_is_the_description() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
    let made = json(RequestLimits::default());
    if std::env::var_os("MILLRACE_WRITE").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let file = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(file == made, "docs/openapi.json is stale: MILLRACE_WRITE=1 cargo test --lib openapi");
}

#[test]
fn every_route_is_described_and_nothing_else() {
    let pages = ["/", "/docs", "/openapi.json", "/version", "/metrics"];
    let own = ["/health", "/health/live", "/health/ready"].into_iter().chain(pages);
    let api = openai::routes().into_iter().map(|(path, _)| path.replace("{*", "{"));
    let routes: BTreeSet<String> = own.map(str::to_owned).chain(api).collect();
    let described = document(RequestLimits::default()).paths.paths.into_keys().collect();
    assert_eq!(routes, described);
    for (path, item) in document(RequestLimits::default()).paths.paths {
        assert_eq!(item.get.is_some(), item.head.is_some(), "{path}");
        let Some(head) = item.head else { continue };
        let statuses = |of: &utoipa::openapi::path::Operation| {
            of.responses.responses.keys().cloned().collect::<BTreeSet<_>>()
        };
        assert_eq!(item.get.map(|get| statuses(&get)), Some(statuses(&head)), "{path}");
    }
}

#[test]
fn every_known_field_is_described_and_nothing_else() {
    let document = value();
    for (name, known) in [
        ("CompletionRequest", completions::KNOWN),
        ("CompletionRequestByPath", completions::KNOWN_BY_PATH),
        ("ChatRequest", chat::KNOWN),
        ("ChatRequestByPath", chat::KNOWN_BY_PATH),
        ("TokenizeRequest", openai::tokenize::TOKENIZE),
        ("DetokenizeRequest", openai::tokenize::DETOKENIZE),
    ] {
        let schema = &document["components"]["schemas"][name];
        let described = schema["properties"].as_object().unwrap();
        let names = |known: Known| known.fields().map(|field| field.name);
        assert_eq!(
            names(known).collect::<BTreeSet<_>>(),
            described.keys().map(String::as_str).collect()
        );
        assert_eq!(names(known).count(), described.len(), "declared twice in {name}");
        for field in known.fields() {
            let about = described[field.name]["description"].as_str().unwrap_or_default();
            assert!(!about.is_empty(), "{name}.{} says nothing of itself", field.name);
            let required = schema["required"].as_array().into_iter().flatten();
            let is_required = required.clone().any(|name| name == field.name);
            assert_eq!(is_required, field.required, "{}", field.name);
            if !field.default.is_empty() {
                assert_eq!(described[field.name]["default"].to_string(), field.default);
            }
        }
    }
}

/// All objects in `value`, from the outside in.
fn visit(value: &Value, see: &mut impl FnMut(&serde_json::Map<String, Value>)) {
    match value {
        Value::Object(object) => {
            see(object);
            object.values().for_each(|value| visit(value, see));
        }
        Value::Array(items) => items.iter().for_each(|value| visit(value, see)),
        _ => {}
    }
}

#[test]
fn what_is_referred_to_is_there_and_ids_are_unique() {
    let document = value();
    let (mut ids, mut references) = (Vec::new(), BTreeSet::new());
    visit(&document, &mut |object| {
        ids.extend(object.get("operationId").and_then(Value::as_str).map(str::to_owned));
        references.extend(object.get("$ref").and_then(Value::as_str).map(str::to_owned));
    });
    for reference in references {
        assert!(document.pointer(&reference[1..]).is_some(), "{reference}");
    }
    let unique: BTreeSet<_> = ids.iter().collect();
    assert_eq!(unique.len(), ids.len());
}

#[test]
fn every_status_of_a_route_is_named() {
    let document = value();
    let statuses = |path: &str, method: &str| -> Vec<String> {
        let responses = document["paths"][path][method]["responses"].as_object().unwrap();
        responses.keys().cloned().collect()
    };
    let named = statuses("/v1/completions", "post");
    for status in
        ["200", "400", "401", "403", "404", "405", "408", "413", "415", "429", "500", "503"]
    {
        assert!(named.iter().any(|name| name == status), "{status}");
    }
    assert!(statuses("/health", "get").contains(&"503".to_owned()));
    assert!(!statuses("/version", "get").contains(&"401".to_owned()));
    assert_eq!(
        document["paths"]["/v1/models"]["get"]["security"],
        serde_json::json!([{"bearer": []}])
    );
}
