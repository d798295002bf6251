use serde_json::json;

use super::*;
use crate::engine::constraint::Stage;
use crate::engine::message::TokenId;
use crate::text::testing::{FAKE, SMOLLM};

fn compile(source: &Source) -> Result<Arc<Grammar>, String> {
    Grammars::new(&FAKE).compile(source).map_err(|error| error.to_string())
}

fn schema(schema: Value) -> Source {
    Source::JsonSchema(schema)
}

/// Numbers without order, the same for the same seed.
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % sides
    }
}

/// An answer that takes any allowed token; `None` if it does not end within `most` tokens.
pub(super) fn wander(text: &Text, grammar: &Grammar, seed: u64, most: usize) -> Option<String> {
    let mut constraint = grammar.constraint();
    let mut dice = Dice(seed);
    let mut ids = Vec::new();
    let rest = loop {
        let forced = constraint.forced().unwrap();
        let allowed = constraint.allowed().unwrap();
        let allowed: Vec<_> = allowed.iter().collect();
        if let Some(&token) = forced.first() {
            assert!(allowed.contains(&token), "{token} is forced and not allowed");
        }
        // Ends are rare among thousands of tokens.
        let end = allowed.iter().find(|id| text.end_tokens().contains(id));
        let token = match end {
            Some(&end) if ids.len() * 4 > most || dice.throw(4) == 0 => end,
            _ => allowed[dice.throw(allowed.len())],
        };
        if text.end_tokens().contains(&token) {
            break Some(());
        }
        assert!(!text.is_special(token));
        ids.push(token);
        match constraint.accept(token).unwrap() {
            Stage::Complete => break Some(()),
            Stage::Open if ids.len() == most => break None,
            Stage::Open => {}
        }
    };
    rest.map(|()| text.decode(&ids, false))
}

#[test]
fn choices_are_said_to_the_letter() {
    let choices = ["yes", "no/never", "a.b*c\n", "yes, é日😀 \\d", "yes"].map(str::to_owned);
    let grammar = compile(&Source::Choice(choices.to_vec())).unwrap();
    let mut said = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let answer = wander(&FAKE, &grammar, seed, 100).unwrap();
        assert!(choices.contains(&answer), "{answer:?}");
        said.insert(answer);
    }
    assert_eq!(said.len(), 4);
}

#[test]
fn a_complete_answer_ends_by_itself() {
    let grammar = compile(&schema(json!({"type": "object", "properties": {"a": {"const": 1}},
        "required": ["a"], "additionalProperties": false})))
    .unwrap();
    for seed in 0..50 {
        let answer = wander(&FAKE, &grammar, seed, 200).unwrap();
        let value: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(value, json!({"a": 1}), "{answer:?}");
        assert_eq!(answer.trim(), answer);
    }
}

#[test]
fn tokens_can_be_taken_back() {
    let text = SMOLLM.text();
    let grammars = Grammars::new(text);
    let object = schema(json!({"type": "object", "properties": {"name": {"type": "string"},
        "age": {"type": "integer"}}, "required": ["name", "age"], "additionalProperties": false}));
    let grammar = grammars.compile(&object).unwrap();
    for seed in 0..20 {
        let mut constraint = grammar.constraint();
        let mut dice = Dice(seed);
        let mut history = Vec::new();
        for _ in 0..60 {
            let before = constraint.allowed().unwrap();
            let mut accepted = 0;
            let mut trial = Dice(dice.throw(1000) as u64);
            let mut stage = Stage::Open;
            while stage == Stage::Open && accepted < 5 {
                let forced = constraint.forced().unwrap();
                let allowed = constraint.allowed().unwrap();
                let ends = text.end_tokens();
                let allowed: Vec<_> = allowed.iter().filter(|id| !ends.contains(id)).collect();
                let Some(&any) = allowed.get(trial.throw(allowed.len().max(1))) else { break };
                stage = constraint.accept(forced.first().copied().unwrap_or(any)).unwrap();
                accepted += 1;
            }
            constraint.take_back(accepted).unwrap();
            let after = constraint.allowed().unwrap();
            assert_eq!(before, after, "after {history:?}");
            let allowed: Vec<_> = after.iter().collect();
            let token = allowed[dice.throw(allowed.len())];
            history.push(token);
            if text.end_tokens().contains(&token)
                || constraint.accept(token).unwrap() == Stage::Complete
            {
                break;
            }
        }
    }
}

#[test]
fn what_says_nothing_is_no_hindrance() {
    for fine in [
        json!({"type": "object", "propertyNames": {"type": "string"}}),
        json!({"type": "string", "format": "password", "maxLength": 3}),
        json!({"type": "array", "uniqueItems": false, "maxItems": 1}),
    ] {
        assert!(compile(&schema(fine.clone())).is_ok(), "{fine}");
    }
    let names = json!({"type": "object", "propertyNames": {"maxLength": 3}});
    assert!(compile(&schema(names)).unwrap_err().contains("'propertyNames'"));
}

#[test]
fn what_is_not_followed_is_refused_by_name() {
    for (bad, says) in [
        (json!({"type": "array", "uniqueItems": true}), "'uniqueItems' is not supported - at '#'"),
        (json!({"properties": {"a": {"not": {}}}}), "'not' is not supported - at '#/properties/a'"),
        (json!({"anyOf": [{"foo": 1}]}), "'foo' is not supported - at '#/anyOf/0'"),
        (json!({"x-guidance": {"lenient": true}}), "'x-guidance'"),
        (json!({"$ref": "http://example.com/schema"}), "is not within the schema"),
        (json!({"$ref": "#/$defs/a"}), "'$defs' not found"),
        (json!({"$ref": "#/elsewhere", "x-y": {}, "$defs": {"a": {"if": {}}}}), "'if'"),
        (json!({"const": 9_007_199_254_740_993_i64}), "9007199254740993"),
        (json!({"type": "string", "format": "regex"}), "'regex' is not supported"),
        (json!({"type": "string", "pattern": "a(?=b)"}), "look-around"),
        (json!({"type": "string", "pattern": "a**"}), "repeats a repetition"),
        (json!({"oneOf": [{"type": "string"}, {"maxLength": 3}]}), "'#/oneOf'"),
        (json!({"type": "object", "minProperties": 2}), "'minProperties'"),
        (json!({"prefixItems": [{}], "additionalItems": false}), "'additionalItems'"),
        (json!({"$schema": "http://json-schema.org/draft-07/schema#", "prefixItems": []}), "draft"),
        (json!(false), "object"),
        (json!({"type": "strange"}), "strange"),
    ] {
        let error = compile(&schema(bad.clone())).map(|_| ()).unwrap_err();
        assert!(error.contains(says), "{bad}: {error}");
    }
}

#[test]
fn refusals_are_a_line_whatever_they_repeat() {
    let long = "x".repeat(5_000);
    for source in [
        Source::Lark("\u{7f}tart: t\nt[stop=\"x\"]: /a/\n".to_owned()),
        Source::Regex("(\n\u{1b}[2J".to_owned()),
        Source::Regex(format!("({long}")),
        schema(json!({"properties": {"a\r\n\u{1b}": {"foo": 1}}})),
        schema(json!({"properties": {long: {"foo": 1}}})),
    ] {
        let reason = compile(&source).map(|_| ()).unwrap_err();
        assert!(!reason.chars().any(char::is_control), "{reason:?}");
        assert!(reason.chars().count() < 500, "{reason}");
    }
}

#[test]
fn parts_come_in_order_and_as_often_as_they_may() {
    let call = |name: &str| {
        json!({"type": "object", "properties": {"name": {"const": name},
            "arguments": {"type": "object", "properties": {"n": {"enum": [1, 2]}},
                "required": ["n"], "additionalProperties": false}},
            "required": ["name", "arguments"], "additionalProperties": false})
    };
    let either = json!({"anyOf": [call("f"), call("g")]});
    let literal = |text: &str| Part::Literal(text.to_owned());
    let one = vec![
        literal("<tool_call>\n"),
        Part::Json { schema: either, of: None },
        literal("\n</tool_call>\n"),
    ];
    let grammar = compile(&Source::Parts(vec![literal("é\"\\\\\""), Part::Many(one)])).unwrap();
    let mut most = 0;
    for seed in 0..30 {
        let Some(answer) = wander(&FAKE, &grammar, seed, 2000) else { continue };
        let calls = answer.strip_prefix("é\"\\\\\"<tool_call>\n").unwrap();
        let calls: Vec<_> = calls.split("<tool_call>\n").collect();
        for call in &calls {
            let call = call.strip_suffix("\n</tool_call>\n").unwrap();
            let call: Value = serde_json::from_str(call).unwrap();
            assert!(["f", "g"].contains(&call["name"].as_str().unwrap()), "{call}");
            assert!([1, 2].contains(&call["arguments"]["n"].as_i64().unwrap()), "{call}");
        }
        most = most.max(calls.len());
    }
    assert!(most > 1);
}

/// Where in `answer` a grammar does not let it go on, byte by byte.
fn refused_at(source: &Source, answer: &str) -> Option<usize> {
    let mut constraint = compile(source).unwrap().constraint();
    answer.bytes().position(|byte| {
        let byte_of = |id: &TokenId| FAKE.token_bytes(*id) == [byte];
        let token = constraint.allowed().unwrap().iter().find(byte_of);
        token.is_none_or(|token| {
            constraint.accept(token).unwrap();
            false
        })
    })
}

#[test]
fn no_name_comes_twice_in_an_object() {
    let open = || schema(json!({"type": "object", "additionalProperties": {"type": "integer"}}));
    let of = |pattern: &str| {
        schema(json!({"type": "object", "patternProperties": {pattern: {"type": "integer"}},
            "additionalProperties": false}))
    };
    let call = Source::Parts(vec![
        Part::Literal("<tool_call>\n{\"name\": \"f\", \"arguments\": ".to_owned()),
        Part::Json { schema: json!({"type": "object"}), of: None },
    ]);
    for (source, answer, expected) in [
        (open(), r#"{"a":1,"b":1,"a":1}"#, Some(r#"{"a":1,"b":1,"a"#)),
        (open(), r#"{"a":1,"b":1,"ab":1}"#, None),
        (Source::JsonObject, r#"{"a":{"a":{}},"b":[{"a":1},{"a":1}]}"#, None),
        (Source::JsonObject, r#"{"x":{"é\"":1,"é\"":1}}"#, Some(r#"{"x":{"é\"":1,"é\""#)),
        (of("^x"), r#"{"x1":1,"x1":1}"#, Some(r#"{"x1":1,"x1"#)),
        (of("^x"), r#"{"x1":1,"x12":1}"#, None),
        // The few that there are, once each.
        (of("^[ab]$"), r#"{"a":1,"a":1}"#, Some(r#"{"a":1,""#)),
        (of("^[ab]$"), r#"{"a":1,"b":1,"#, Some(r#"{"a":1,"b":1"#)),
        (of("^(on|off?)$|^$"), r#"{"on":1,"o":1}"#, Some(r#"{"on":1,"o"#)),
        (of("^(on|off?)$|^$"), r#"{"on":1,"of":1,"off":1}"#, None),
        (
            call,
            "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"name\":1,\"name\":1}",
            Some("<tool_call>\n{\"name\": \"f\", \"arguments\": {\"name\":1,\"name"),
        ),
    ] {
        let at = refused_at(&source, answer);
        assert_eq!(at.map(|at| &answer[..at]), expected, "{answer} of {source:?}");
    }
}

#[test]
fn what_a_grammar_forces_repeats_no_name_while_there_is_another() {
    let source =
        schema(json!({"type": "object", "patternProperties": {"^(foo|bar[0-9]+)$": {"const": 1}},
        "additionalProperties": false}));
    let grammar = compile(&source).unwrap();
    for seed in 0..40 {
        if let Some(answer) = wander(&FAKE, &grammar, seed, 400) {
            let value: Value = serde_json::from_str(&answer).unwrap();
            assert!(value.as_object().unwrap().values().all(|value| *value == 1), "{answer}");
        }
    }
    // Where there is none: the grammar is the stronger one, and the answer goes on.
    let none = refused_at(&source, r#"{"foo":1,"foo":1}"#);
    assert_eq!(none, None);
}

#[test]
fn dates_and_times_are_those_that_there_are() {
    let of = |format: &str, more: Value| {
        let mut schema = json!({"type": "string", "format": format});
        schema.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Source::JsonSchema(schema)
    };
    for (format, text, is_one) in [
        ("date", "2024-02-29", true),
        ("date", "2000-02-29", true),
        ("date", "2023-02-28", true),
        ("date", "2023-12-31", true),
        ("date", "2023-02-29", false),
        ("date", "1900-02-29", false),
        ("date", "2024-02-30", false),
        ("date", "2023-04-31", false),
        ("date", "2023-00-01", false),
        ("time", "23:59:59Z", true),
        ("time", "00:00:00.123+05:30", true),
        ("time", "23:59:60Z", false),
        ("time", "12:00:60Z", false),
        ("time", "24:00:00Z", false),
        ("time", "12:00:00", false),
        ("date-time", "2024-02-29T12:00:00Z", true),
        ("date-time", "2023-02-29T12:00:00Z", false),
        ("date-time", "2024-02-29T12:00:60Z", false),
        ("date-time", "2024-02-29", false),
    ] {
        for more in [json!({"const": text}), json!({"enum": [text, 1]})] {
            let compiled = compile(&of(format, more.clone()));
            assert_eq!(compiled.is_ok(), is_one, "{format}: {more}");
        }
    }
    // Beside a pattern, both hold.
    let may = of("date", json!({"pattern": "-05-", "allOf": [{"pattern": "^2"}]}));
    let grammar = compile(&may).unwrap();
    for seed in 0..20 {
        let Some(answer) = wander(&FAKE, &grammar, seed, 40) else { continue };
        assert!(answer.starts_with("\"2") && &answer[5..9] == "-05-", "{answer}");
    }
    assert!(compile(&of("date", json!({"pattern": "-13-"}))).is_err());
}

#[test]
fn formats_of_all_types_are_kept_by_a_validator_that_knows_them() {
    for format in ["date", "time", "date-time", "duration", "ipv4", "uuid"] {
        for types in [json!("string"), json!(["string", "null"])] {
            let schema = json!({"type": types, "format": format});
            let grammar = compile(&Source::JsonSchema(schema.clone())).unwrap();
            let validator = jsonschema::options().should_validate_formats(true).build(&schema);
            let validator = validator.unwrap();
            for seed in 0..50 {
                let Some(answer) = wander(&FAKE, &grammar, seed, 120) else { continue };
                let value: Value = serde_json::from_str(&answer).unwrap();
                assert!(validator.is_valid(&value), "{format}: {answer}");
            }
        }
    }
}

#[test]
fn patterns_of_few_texts_are_told_from_those_of_many() {
    for (pattern, expected) in [
        ("^$", Some(&[""][..])),
        ("^[ab]$", Some(&["a", "b"])),
        ("^(?:a|bc?)$", Some(&["a", "b", "bc"])),
        ("^a$|^a$|^b{2}$", Some(&["a", "bb"])),
        ("^x[0-9]{2}$", None),
        ("^a", None),
        ("a$", None),
        ("^a+$", None),
        ("^(a$|b)$", Some(&["a", "b"])),
        ("^(a$|b)", None),
        ("^a$b$", None),
        ("^.$", None),
    ] {
        let texts = pattern::texts(pattern);
        let texts: Option<Vec<&str>> =
            texts.as_ref().map(|texts| texts.iter().map(String::as_str).collect());
        assert_eq!(texts.as_deref(), expected, "{pattern}");
    }
}
