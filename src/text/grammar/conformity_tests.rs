//! Random schemas: what a grammar lets through is judged by a validator that knows nothing of grammars.

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;

use super::tests::wander;
use super::*;
use crate::text::testing::FAKE;

const NAMES: [&str; 3] = ["a", "b\"", "é"];

fn text() -> impl Strategy<Value = Value> {
    let pattern = select(&["^[a-c]{2}", "x|y$", "^\\d+$", ".", "^(ab)*$"]);
    (0..3_u64, 3..6_u64, proptest::option::weighted(0.3, pattern)).prop_map(
        |(min, max, pattern)| {
            let mut schema = json!({"type": "string", "minLength": min, "maxLength": max});
            if let Some(pattern) = pattern {
                schema["pattern"] = pattern.into();
            }
            schema
        },
    )
}

fn number() -> impl Strategy<Value = Value> {
    let kind = select(&["integer", "number"]);
    let least = select(&["minimum", "exclusiveMinimum"]);
    let most = select(&["maximum", "exclusiveMaximum"]);
    let step = proptest::option::weighted(0.2, 1..8_u64);
    (kind, least, -50..50_i64, most, 3..2_000_i64, step).prop_map(
        |(kind, least, from, most, width, step)| {
            let mut schema = json!({"type": kind, least: from, most: from + width});
            if let Some(step) = step {
                schema["multipleOf"] = step.into();
            }
            schema
        },
    )
}

fn leaf() -> impl Strategy<Value = Value> {
    prop_oneof![
        3 => text(),
        3 => number(),
        1 => select(vec![json!({"type": "boolean"}), json!({"type": ["null", "integer"], "minimum": 0, "maximum": 9})]),
        1 => select(vec![json!({"enum": ["x", 1, null, {"k": [1.5]}]}), json!({"const": [true, "\u{1f916}"]})]),
        1 => Just(json!({"$ref": "#/$defs/d"})),
    ]
}

fn object(inner: impl Strategy<Value = Value> + Clone + 'static) -> impl Strategy<Value = Value> {
    let additional = prop_oneof![3 => Just(json!(false)), 1 => leaf()];
    let patterns = proptest::option::weighted(0.2, leaf());
    let properties = proptest::collection::vec(inner, NAMES.len());
    let required = subsequence(NAMES.to_vec(), 0..=NAMES.len());
    (subsequence(NAMES.to_vec(), 0..=NAMES.len()), properties, required, additional, patterns).prop_map(
        |(names, properties, required, additional, patterns)| {
            let properties: serde_json::Map<_, _> =
                names.into_iter().map(str::to_owned).zip(properties).collect();
            let mut schema = json!({"type": "object", "properties": properties, "required": required,
                "additionalProperties": additional});
            if let Some(pattern) = patterns {
                schema["patternProperties"] = json!({"^[pq]$": pattern.clone(), "^r": pattern});
            }
            schema
        },
    )
}

fn list(inner: impl Strategy<Value = Value> + Clone + 'static) -> impl Strategy<Value = Value> {
    let prefix = proptest::collection::vec(inner.clone(), 0..3);
    let items = prop_oneof![inner.boxed(), Just(json!(false)).boxed()];
    (prefix, items, 0..3_u64, 0..3_u64).prop_map(|(prefix, items, min, more)| {
        let mut schema =
            json!({"type": "array", "items": items, "minItems": min, "maxItems": min + more});
        if !prefix.is_empty() {
            schema["prefixItems"] = prefix.into();
        }
        schema
    })
}

fn any_schema() -> impl Strategy<Value = Value> {
    let schema = leaf().prop_recursive(3, 12, 3, |inner| {
        let several = |name: &'static str, inner: BoxedStrategy<Value>| {
            proptest::collection::vec(inner, 1..3).prop_map(move |of| json!({ name: of }))
        };
        prop_oneof![
            4 => object(inner.clone()),
            3 => list(inner.clone()),
            2 => several("anyOf", inner.clone().boxed()),
            1 => several("allOf", inner.clone().boxed()),
            1 => several("oneOf", inner.boxed()),
        ]
    });
    let defined = prop_oneof![
        leaf_without_reference(),
        Just(json!({"type": "array", "items": {"$ref": "#/$defs/d"}, "maxItems": 2})),
    ];
    (schema, defined).prop_map(|(mut schema, defined)| {
        schema["$defs"] = json!({ "d": defined });
        schema
    })
}

fn leaf_without_reference() -> impl Strategy<Value = Value> {
    leaf().prop_filter("no circle", |schema| schema.get("$ref").is_none())
}

/// JSON whose objects have no name twice.
struct Unique;

impl<'de> serde::Deserialize<'de> for Unique {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> serde::de::Visitor<'de> for Unique {
    type Value = Self;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("names that come once")
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(Self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(Self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(Self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(Self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(Self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(Self)
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut items: A) -> Result<Self, A::Error> {
        while items.next_element::<Self>()?.is_some() {}
        Ok(Self)
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut members: A) -> Result<Self, A::Error> {
        let mut names = std::collections::HashSet::new();
        while let Some((name, _)) = members.next_entry::<String, Self>()? {
            if !names.insert(name.clone()) {
                return Err(serde::de::Error::custom(format!("{name} twice")));
            }
        }
        Ok(Self)
    }
}

#[test]
fn what_fits_a_grammar_fits_its_schema() {
    let grammars = Grammars::new(&FAKE);
    let config = Config { cases: 600, failure_persistence: None, ..Config::default() };
    let (mut compiled, mut finished) = (0, 0);
    let counts = std::cell::RefCell::new((&mut compiled, &mut finished));
    let result = TestRunner::new(config).run(&any_schema(), |schema| {
        let Ok(grammar) = grammars.compile(&Source::JsonSchema(schema.clone())) else {
            return Ok(());
        };
        let validator = jsonschema::validator_for(&schema).unwrap();
        let mut counts = counts.borrow_mut();
        *counts.0 += 1;
        for seed in 0..8 {
            let Some(answer) = wander(&FAKE, &grammar, seed, 400) else { continue };
            *counts.1 += 1;
            let value: Value = serde_json::from_str(&answer)
                .map_err(|e| TestCaseError::fail(format!("{e}: {answer} of {schema}")))?;
            prop_assert!(validator.is_valid(&value), "{} does not fit {}", answer, schema);
            let unique: Result<Unique, _> = serde_json::from_str(&answer);
            prop_assert!(unique.is_ok(), "{} of {}", answer, schema);
        }
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
    // What is always refused, or never ends, is not checked.
    assert!(compiled > 200 && finished > 1_000, "{compiled} compiled, {finished} ended");
}
