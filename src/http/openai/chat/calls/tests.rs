use proptest::prelude::*;

use super::*;
use crate::http::openai::chat::tools::Function;
use crate::http::openai::json::Json;
use crate::http::openai::json::testing::json;

fn function(name: &str, parameters: Option<&str>) -> Function {
    Function {
        name: name.to_owned(),
        parameters: parameters.map(json),
        strict: false,
        definition: Json::Null,
        place: "tools[0].function.parameters".to_owned(),
    }
}

const CITY: &str =
    r#"{"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}"#;

fn rules(form: Form, parallel: bool) -> Arc<Rules> {
    let functions = [function("weather", Some(CITY)), function("now", None)];
    let signatures = Signatures::compile(&functions).unwrap();
    Arc::new(Rules { signatures, form, parallel })
}

const FREE: Form = Form::Free { tags_only: false };

/// All parts, neighbours of a kind joined.
fn parsed<'t>(rules: &Arc<Rules>, pieces: impl IntoIterator<Item = &'t str>) -> Vec<Part> {
    let mut parser = CallParser::new(rules.clone());
    let mut parts: Vec<Part> = Vec::new();
    let mut all: Vec<Part> = pieces.into_iter().flat_map(|piece| parser.push(piece)).collect();
    all.extend(parser.finish());
    for part in all {
        match (parts.last_mut(), part) {
            (Some(Part::Text(before)), Part::Text(text))
            | (Some(Part::Arguments(before)), Part::Arguments(text)) => before.push_str(&text),
            (_, part) => parts.push(part),
        }
    }
    parts
}

fn text(text: &str) -> Part {
    Part::Text(text.to_owned())
}

fn call(name: &str, arguments: &str) -> [Part; 2] {
    [Part::Begin(name.to_owned()), Part::Arguments(arguments.to_owned())]
}

const OSLO: &str = r#"{"name": "weather", "arguments": {"city": "Oslo"}}"#;

#[test]
fn three_forms_are_calls() {
    let oslo = || call("weather", r#"{"city": "Oslo"}"#).to_vec();
    let twice = || [oslo(), oslo()].concat();
    for (given, expected) in [
        (format!("<tool_call>\n{OSLO}\n</tool_call>"), oslo()),
        (format!("<tool_call>{OSLO}</tool_call>"), oslo()),
        // The answer ended before the tag did.
        (format!("<tool_call>\n{OSLO}\n"), oslo()),
        (
            format!("<tool_call>\n{OSLO}\n</tool_call>\n<tool_call>\n{OSLO}\n</tool_call>\n"),
            twice(),
        ),
        (format!("<tool_call>\n{OSLO}\n{OSLO}\n</tool_call>"), twice()),
        (format!("```json\n{OSLO}\n```"), oslo()),
        (format!("```\n{OSLO}\n```"), oslo()),
        (format!("```JSON{OSLO}```"), oslo()),
        (format!("```json\n{OSLO}"), oslo()),
        (format!("```json\n[{OSLO}, {OSLO}]\n```\n"), twice()),
        (OSLO.to_owned(), oslo()),
        (format!("\n {OSLO}\n{OSLO}\n"), twice()),
        (
            format!("Let me see.\n\n<tool_call>\n{OSLO}\n</tool_call>\n"),
            [vec![text("Let me see.")], oslo()].concat(),
        ),
        (
            format!("So:\n```json\n{OSLO}\n```\nThat was it."),
            [vec![text("So:")], oslo(), vec![text("\nThat was it.")]].concat(),
        ),
        (r#"<tool_call>{"name": "now"}</tool_call>"#.to_owned(), call("now", "{}").to_vec()),
        (
            r#"<tool_call>{"name": "weather", "parameters": {"city": "}\"{"}}</tool_call>"#
                .to_owned(),
            call("weather", r#"{"city": "}\"{"}"#).to_vec(),
        ),
        (r#"{"arguments": {"city": "Oslo"}, "name": "weather"}"#.to_owned(), oslo()),
        (r#"{"name": "weather", "arguments": "{\"city\": \"Oslo\"}"}"#.to_owned(), oslo()),
        // In a tag, a call is meant even where its arguments do not fit.
        (
            r#"<tool_call>{"name": "weather", "arguments": {"town": 1}}</tool_call>"#.to_owned(),
            call("weather", r#"{"town": 1}"#).to_vec(),
        ),
    ] {
        assert_eq!(parsed(&rules(FREE, true), [given.as_str()]), expected, "{given}");
    }
}

#[test]
fn all_else_is_text() {
    for given in [
        "",
        " \n",
        "Hello.",
        "Hello. \n\n",
        "a < b, `c` and ``d``",
        "<tool_call>",
        "<tool_call>\nweather\n</tool_call>",
        "<tool_call></tool_call>",
        "<tool_call>{\"name\": \"weather\", \"arguments\": {\"city\": \"Os",
        "<tool_call>{\"name\": \"other\", \"arguments\": {}}</tool_call>",
        "<tool_call>{\"name\": \"weather\", \"arguments\": []}</tool_call>",
        "<tool_call>{\"name\": \"weather\", \"arguments\": {x}}</tool_call>",
        "```python\nprint(1)\n```",
        "```json\n{\"a\": 1}\n```\n",
        "```json\n[]\n```",
        "```json\n{\"name\": \"other\", \"arguments\": {}}\n```",
        // Not what the schema wants.
        "```json\n{\"name\": \"weather\", \"arguments\": {\"town\": 1}}\n```",
        "{\"name\": \"weather\", \"arguments\": {\"town\": 1}}",
        // The definition, not a call.
        "```json\n{\"name\": \"now\", \"description\": \"x\", \"parameters\": {}}\n```",
        "```json\n{\"name\": \"now\", \"arguments\": {}} // like this\n```",
        "Say {\"name\": \"now\", \"arguments\": {}}",
        "{\"name\": \"now\", \"arguments\": {}} is what I would say.",
        "Inline ```json\n{\"name\": \"now\", \"arguments\": {}}\n```",
    ] {
        let parts = parsed(&rules(FREE, true), [given]);
        let expected = if given.is_empty() { vec![] } else { vec![text(given)] };
        assert_eq!(parts, expected, "{given}");
    }
    let tagged = format!("<tool_call>{OSLO}</tool_call>");
    assert_eq!(parsed(&rules(Form::Never, true), [tagged.as_str()]), [text(&tagged)]);
    let tags = rules(Form::Free { tags_only: true }, true);
    assert_eq!(parsed(&tags, [OSLO]), [text(OSLO)]);
    assert_eq!(parsed(&tags, [tagged.as_str()]), call("weather", r#"{"city": "Oslo"}"#));
}

#[test]
fn a_strict_function_is_called_by_its_schema_or_not_at_all() {
    let strict = |name, parameters| Function { strict: true, ..function(name, parameters) };
    let dated =
        r#"{"properties": {"on": {"type": "string", "format": "date"}}, "required": ["on"]}"#;
    let functions =
        [strict("weather", Some(CITY)), strict("now", None), strict("dated", Some(dated))];
    let signatures = Signatures::compile(&functions).unwrap();
    let rules = Arc::new(Rules { signatures, form: FREE, parallel: true });
    let tagged = |name: &str, arguments: &str| {
        format!("<tool_call>\n{{\"name\": \"{name}\", \"arguments\": {arguments}}}\n</tool_call>")
    };
    for (name, arguments, is_call) in [
        ("weather", r#"{"city": "Oslo"}"#, true),
        ("weather", r#"{"town": 1}"#, false),
        ("weather", r#"{"city": 1}"#, false),
        ("now", "{}", true),
        // Without parameters there are no arguments, as where a grammar makes the call.
        ("now", r#"{"a": 1}"#, false),
        ("dated", r#"{"on": "2024-02-29"}"#, true),
        ("dated", r#"{"on": "2023-02-29"}"#, false),
    ] {
        let given = tagged(name, arguments);
        let expected = if is_call { call(name, arguments).to_vec() } else { vec![text(&given)] };
        assert_eq!(parsed(&rules, [given.as_str()]), expected, "{given}");
    }
    // One that does not fit takes the whole tag with it, and nothing of what follows.
    let given = format!("{}\n{}", tagged("weather", "{}"), tagged("now", "{}"));
    let expected = [vec![text(&tagged("weather", "{}"))], call("now", "{}").to_vec()].concat();
    assert_eq!(parsed(&rules, [given.as_str()]), expected);
}

#[test]
fn text_is_held_back_only_while_it_could_be_a_call() {
    let rules = rules(FREE, true);
    for (given, told) in [
        ("Hello", "Hello"),
        ("Hello \n", "Hello"),
        ("Hello <to", "Hello"),
        ("Hello <ta", "Hello <ta"),
        ("Hello\n```js", "Hello"),
        ("Hello\n```jso", "Hello"),
        ("Hello\n```jsx", "Hello\n```jsx"),
        ("```python", "```python"),
        ("```json\n{\"na", ""),
        ("```json\n{\"nb", "```json\n{\"nb"),
        ("{\"name\": \"wea", ""),
        ("{\"name\": \"web", "{\"name\": \"web"),
        ("{\"city\"", "{\"city\""),
        ("<tool_call>\n{\"name\": \"now\", \"arguments\": {\"a\": \"b", ""),
        ("<tool_call>\n{\"name\": \"non", "<tool_call>\n{\"name\": \"non"),
    ] {
        let mut parser = CallParser::new(rules.clone());
        let parts = parser.push(given);
        let expected = if told.is_empty() { vec![] } else { vec![text(told)] };
        assert_eq!(parts, expected, "{given}");
    }
}

#[test]
fn one_call_is_one_call() {
    let given =
        format!("<tool_call>{OSLO}</tool_call>\n<tool_call>{{\"name\": \"now\"}}</tool_call>");
    let parts = parsed(&rules(FREE, false), [given.as_str()]);
    assert_eq!(parts, call("weather", r#"{"city": "Oslo"}"#));
}

#[test]
fn forced_calls_are_told_as_they_come() {
    let rules = rules(Form::Forced, true);
    let mut parser = CallParser::new(rules.clone());
    assert_eq!(parser.push("<tool_call>\n{\"name\": \"weather\", \"argu"), []);
    assert_eq!(parser.push("ments\": {\"ci"), call("weather", "{\"ci"));
    assert_eq!(parser.push("ty\": \"Os"), [Part::Arguments("ty\": \"Os".to_owned())]);
    assert_eq!(parser.calls(), 1);
    // Cut off by its bound.
    assert_eq!(parser.finish(), []);
    let given = format!("<tool_call>\n{OSLO}\n</tool_call>\n<tool_call>\n{OSLO}\n</tool_call>");
    let oslo = call("weather", r#"{"city": "Oslo"}"#);
    assert_eq!(parsed(&rules, [given.as_str()]), [oslo.clone(), oslo].concat());
}

#[test]
fn what_is_no_schema_is_refused_by_place() {
    for schema in [
        r#"{"type": "objekt"}"#,
        r#"{"properties": []}"#,
        r#"{"$ref": "https://example.com/schema.json"}"#,
        r##"{"$ref": "#/nowhere"}"##,
        r#"{"pattern": "("}"#,
    ] {
        let error = Signatures::compile(&[function("f", Some(schema))]).unwrap_err();
        assert_eq!(error.status(), 400);
        assert_eq!(error.param(), Some("tools[0].function.parameters"), "{schema}");
    }
}

#[test]
fn a_strict_schema_that_no_grammar_keeps_to_is_refused_by_its_keyword() {
    for (schema, says) in [
        (r#"{"properties": {"y": {"not": {}}}}"#, "'not' is not supported - at '#/properties/y'"),
        (r#"{"properties": {"y": {"format": "regex"}}}"#, "the format 'regex' is not supported"),
        (r#"{"dependentRequired": {"a": ["b"]}}"#, "'dependentRequired' is not supported"),
        (r#"{"type": "array"}"#, "are of type 'object'"),
    ] {
        let loose = function("f", Some(schema));
        let strict = Function { strict: true, ..loose.clone() };
        let error = Signatures::compile(&[strict]).unwrap_err();
        assert_eq!((error.status().as_u16(), error.param()), (400, Some(&*loose.place)));
        assert!(error.message().contains(says), "{}", error.message());
        assert!(Signatures::compile(&[loose]).is_ok(), "{schema}");
    }
}

#[test]
fn hostile_schemas_end() {
    let deep = "[".repeat(60) + &"]".repeat(60);
    let nested = format!("{}{}{}", r#"{"items": "#.repeat(100), "{}", "}".repeat(100));
    for schema in [
        r##"{"$ref": "#"}"##,
        r##"{"allOf": [{"$ref": "#"}, {"$ref": "#"}]}"##,
        r##"{"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}"##,
        r##"{"properties": {"a": {"$ref": "#"}}, "items": {"$ref": "#"}}"##,
        r##"{"$dynamicRef": "#x", "$dynamicAnchor": "x"}"##,
        r#"{"properties": {"a": {"pattern": "^(a+)+$"}}}"#,
        r#"{"properties": {"a": {"pattern": "(?=(a+)+b)(a{1,100}){1,100}$"}}}"#,
        &nested,
    ] {
        let Ok(signatures) = Signatures::compile(&[function("f", Some(schema))]) else { continue };
        let rules = Arc::new(Rules { signatures, form: FREE, parallel: true });
        let long = format!("{}!", "a".repeat(5_000));
        for value in [deep.clone(), format!("\"{long}\"")] {
            parsed(&rules, [format!(r#"{{"name": "f", "arguments": {{"a": {value}}}}}"#).as_str()]);
        }
    }
}

#[test]
fn what_looks_like_calls_without_end_is_text_in_good_time() {
    let given = "<tool_call>{\"name\": \"now\", \"arguments\": {\"a\": \"".repeat(20_000);
    assert_eq!(parsed(&rules(FREE, true), [given.as_str()]), [text(&given)]);
}

/// Texts made of what calls are made of.
fn pieces() -> impl Strategy<Value = Vec<String>> {
    let piece = prop_oneof![
        Just("<tool_call>"),
        Just("</tool_call>"),
        Just("```json"),
        Just("```"),
        Just("`"),
        Just("\n"),
        Just(" "),
        Just("<"),
        Just("{"),
        Just("}"),
        Just("["),
        Just("]"),
        Just("é"),
        Just("{\"name\": "),
        Just("\"now\""),
        Just("\"weather\""),
        Just(", \"arguments\": "),
        Just("{\"city\": \"a\"}"),
        Just("{\"name\": \"now\", \"arguments\": {}}"),
        Just("{\"name\": \"weather\", \"arguments\": {\"city\": \"é}\"}}"),
        Just("word"),
        Just("\\\""),
    ];
    proptest::collection::vec(piece.prop_map(str::to_owned), 0..14)
}

fn forms() -> impl Strategy<Value = Form> {
    prop_oneof![
        3 => Just(FREE),
        1 => Just(Form::Free { tags_only: true }),
        1 => Just(Form::Never),
        1 => Just(Form::Forced),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn however_it_comes_in_pieces_the_parts_are_the_same(
        given in pieces(), form in forms(), parallel: bool, cuts in proptest::collection::vec(1..6_usize, 0..60),
    ) {
        let whole: String = given.concat();
        let rules = rules(form, parallel);
        let expected = parsed(&rules, [whole.as_str()]);
        let mut chunks: Vec<String> = Vec::new();
        let mut chars = whole.chars().peekable();
        let mut cuts = cuts.into_iter();
        while chars.peek().is_some() {
            chunks.push(chars.by_ref().take(cuts.next().unwrap_or(1)).collect());
        }
        prop_assert_eq!(&parsed(&rules, chunks.iter().map(String::as_str)), &expected, "{:?}", whole);
        prop_assert_eq!(&parsed(&rules, given.iter().map(String::as_str)), &expected, "{:?}", whole);
        if form == Form::Forced {
            return Ok(());
        }
        let texts: String =
            expected.iter().filter_map(|p| if let Part::Text(t) = p { Some(t.as_str()) } else { None }).collect();
        if expected.iter().all(|part| matches!(part, Part::Text(_))) {
            // Nothing is lost.
            prop_assert_eq!(texts, whole);
        }
        for pair in expected.windows(2) {
            if let [Part::Begin(_), next] = pair {
                let Part::Arguments(arguments) = next else { panic!("{pair:?}") };
                let value: serde_json::Value = serde_json::from_str(arguments).unwrap();
                prop_assert!(value.is_object());
            }
        }
    }
}
