use super::*;
use crate::http::openai::chat::types::CONVERSATION;
use crate::http::openai::json::{Known, parse};

fn checked(body: &str) -> Result<Tools, ApiError> {
    Tools::check(&parse(body.as_bytes(), Known(&[CONVERSATION]))?)
}

const TWO: &str = r#""tools": [
    {"type": "function", "function": {"name": "f", "description": "d", "strict": true,
        "parameters": {"type": "object", "properties": {}}}},
    {"type": "function", "function": {"name": "g-2_B"}}]"#;

fn with(rest: &str) -> Result<Tools, ApiError> {
    checked(&format!("{{{TWO}, {rest}}}"))
}

#[test]
fn no_tools_are_none() {
    for body in [
        "{}",
        r#"{"tools": null, "tool_choice": null, "parallel_tool_calls": null}"#,
        r#"{"tools": []}"#,
        r#"{"tools": [], "tool_choice": "auto", "parallel_tool_calls": true}"#,
        r#"{"tool_choice": "none"}"#,
        r#"{"functions": [], "function_call": "none"}"#,
    ] {
        assert_eq!(checked(body).unwrap(), Tools::none(), "{body}");
    }
}

#[test]
fn choices_are_those_of_the_api() {
    for (rest, expected) in [
        (r#""n": 1"#, Choice::Auto(vec![0, 1])),
        (r#""tool_choice": "auto""#, Choice::Auto(vec![0, 1])),
        (r#""tool_choice": "none""#, Choice::Never),
        (r#""tool_choice": "required""#, Choice::Required(vec![0, 1])),
        (r#""tool_choice": {"type": "function", "function": {"name": "g-2_B"}}"#, Choice::Named(1)),
        (
            r#""tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "required",
                "tools": [{"type": "function", "function": {"name": "g-2_B"}}]}}"#,
            Choice::Required(vec![1]),
        ),
    ] {
        let tools = with(rest).unwrap();
        assert_eq!(tools.choice, expected, "{rest}");
        assert!(tools.parallel && !tools.legacy);
    }
    assert!(!with(r#""parallel_tool_calls": false"#).unwrap().parallel);
    let tools = with(r#""n": 1"#).unwrap();
    assert_eq!(tools.functions[0].place, "tools[0].function.parameters");
    assert_eq!(tools.functions[1].parameters, None);
    assert_eq!(tools.functions.iter().map(|f| f.strict).collect::<Vec<_>>(), [true, false]);
}

#[test]
fn functions_are_the_tools_of_old() {
    let tools = checked(
        r#"{"functions": [{"name": "f", "parameters": {}}], "function_call": {"name": "f"}}"#,
    )
    .unwrap();
    assert!(tools.legacy && !tools.parallel);
    assert_eq!(tools.choice, Choice::Named(0));
    let today = checked(
        r#"{"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]}"#,
    );
    assert_eq!(tools.functions[0].definition, today.unwrap().functions[0].definition);
}

#[test]
fn faults_are_named_by_their_place() {
    let long = "x".repeat(65);
    let many = format!(
        r#"{{"tools": [{}]}}"#,
        (0..129)
            .map(|i| format!(r#"{{"type": "function", "function": {{"name": "f{i}"}}}}"#))
            .collect::<Vec<_>>()
            .join(",")
    );
    for (body, param) in [
        (r#"{"tools": {}}"#.to_owned(), "tools"),
        (many, "tools"),
        (r#"{"tools": [1]}"#.to_owned(), "tools[0]"),
        (r#"{"tools": [{}]}"#.to_owned(), "tools[0].type"),
        (r#"{"tools": [{"type": "custom", "custom": {"name": "x"}}]}"#.to_owned(), "tools[0].type"),
        (r#"{"tools": [{"type": "function"}]}"#.to_owned(), "tools[0].function"),
        (
            r#"{"tools": [{"type": "function", "function": {}}]}"#.to_owned(),
            "tools[0].function.name",
        ),
        (
            format!(r#"{{"tools": [{{"type": "function", "function": {{"name": "{long}"}}}}]}}"#),
            "tools[0].function.name",
        ),
        (
            r#"{"tools": [{"type": "function", "function": {"name": "a b"}}]}"#.to_owned(),
            "tools[0].function.name",
        ),
        (
            r#"{"tools": [{"type": "function", "function": {"name": "a", "parameters": 1}}]}"#
                .to_owned(),
            "tools[0].function.parameters",
        ),
        (
            r#"{"tools": [{"type": "function", "function": {"name": "a", "strict": 1}}]}"#
                .to_owned(),
            "tools[0].function.strict",
        ),
        (
            r#"{"tools": [{"type": "function", "function": {"name": "a"}},
                {"type": "function", "function": {"name": "a"}}]}"#
                .to_owned(),
            "tools[1].function.name",
        ),
        (r#"{"tool_choice": "required"}"#.to_owned(), "tool_choice"),
        (format!(r#"{{{TWO}, "tool_choice": "any"}}"#), "tool_choice"),
        (format!(r#"{{{TWO}, "tool_choice": 1}}"#), "tool_choice"),
        (format!(r#"{{{TWO}, "tool_choice": {{"type": "custom"}}}}"#), "tool_choice.type"),
        (
            format!(
                r#"{{{TWO}, "tool_choice": {{"type": "function", "function": {{"name": "h"}}}}}}"#
            ),
            "tool_choice.function.name",
        ),
        (format!(r#"{{{TWO}, "functions": []}}"#), "functions"),
        (format!(r#"{{{TWO}, "parallel_tool_calls": 1}}"#), "parallel_tool_calls"),
        (format!(r#"{{{TWO}, "function_call": "required"}}"#), "function_call"),
        (format!(r#"{{{TWO}, "tool_choice": "auto", "function_call": "auto"}}"#), "function_call"),
    ] {
        let error = checked(&body).unwrap_err();
        assert_eq!((error.status().as_u16(), error.param()), (400, Some(param)), "{body}");
    }
}
