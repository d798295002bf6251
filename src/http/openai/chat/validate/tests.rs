use super::*;
use crate::config::RequestLimits;
use crate::http::openai::chat::types::KNOWN_BY_PATH;
use crate::http::openai::json::{Json, parse};
use crate::model::load::SamplingDefaults;

const MESSAGES: &str = r#""messages": [{"role": "user", "content": "a"}]"#;

fn checked(rest: &str) -> Result<Checked, ApiError> {
    let comma = if rest.is_empty() { "" } else { ", " };
    let body = format!("{{{MESSAGES}{comma}{rest}}}");
    let bounds =
        Bounds { vocab: 300, limits: RequestLimits::default(), defaults: SamplingDefaults::OPENAI };
    validate(&parse(body.as_bytes(), KNOWN_BY_PATH)?, bounds, 1_024)
}

#[test]
fn every_optional_field_may_be_null() {
    let plain = checked("").unwrap();
    for name in KNOWN_BY_PATH.fields().map(|field| field.name).filter(|name| *name != "messages") {
        assert_eq!(checked(&format!(r#""{name}": null"#)).unwrap(), plain, "{name}");
    }
}

#[test]
fn hints_for_another_service_change_nothing() {
    let plain = checked("").unwrap();
    for rest in [
        r#""metadata": {"a": "b"}"#,
        &metadata(16, 64, 512),
        r#""best_of": 1"#,
        r#""suffix": """#,
        r#""store": true"#,
        r#""service_tier": "auto""#,
        r#""verbosity": "low""#,
        r#""prediction": {"type": "content", "content": "x"}"#,
        r#""modalities": ["text"]"#,
        r#""prompt_cache_key": "k""#,
        r#""safety_identifier": "u""#,
        r#""user": "u""#,
        r#""tools": []"#,
        r#""parallel_tool_calls": false"#,
        r#""response_format": {"type": "text"}"#,
        r#""add_generation_prompt": true"#,
        r#""continue_final_message": false"#,
        r#""chat_template_kwargs": {}"#,
        r#""logprobs": false"#,
        r#""unknown": [1]"#,
    ] {
        assert_eq!(checked(rest).unwrap(), plain, "{rest}");
    }
}

#[test]
fn bounds_of_the_answer_have_two_names() {
    for (rest, expected) in [
        ("", None),
        (r#""max_tokens": 5"#, Some(5)),
        (r#""max_completion_tokens": 5"#, Some(5)),
        (r#""max_completion_tokens": 5, "max_tokens": 5"#, Some(5)),
        (r#""max_completion_tokens": 18446744073709551615"#, Some(usize::MAX)),
    ] {
        assert_eq!(checked(rest).unwrap().max_tokens, expected, "{rest}");
    }
}

#[test]
fn log_probabilities_are_counted_by_a_field_of_their_own() {
    for (rest, expected) in [
        (r#""logprobs": true"#, Some(0)),
        (r#""logprobs": true, "top_logprobs": 0"#, Some(0)),
        (r#""logprobs": true, "top_logprobs": 20"#, Some(20)),
        (r#""logprobs": false"#, None),
    ] {
        assert_eq!(checked(rest).unwrap().shared.sampling.logprobs, expected, "{rest}");
    }
}

#[test]
fn template_variables_come_from_a_list() {
    let text = |t: &str| Json::Text(t.to_owned());
    let variables = |rest| checked(rest).unwrap().conversation.rendering.variables;
    assert_eq!(
        variables(r#""reasoning_effort": "low""#),
        [("reasoning_effort".to_owned(), text("low"))]
    );
    assert_eq!(
        variables(
            r#""reasoning_effort": "low", "chat_template_kwargs": {"reasoning_effort": "high", "enable_thinking": false}"#
        ),
        [
            ("reasoning_effort".to_owned(), text("high")),
            ("enable_thinking".to_owned(), Json::Bool(false))
        ]
    );
}

/// So many pairs, with names and values of so many characters.
fn metadata(pairs: usize, name: usize, value: usize) -> String {
    let pair = |i| format!(r#""{i:0>name$}": "{}""#, "é".repeat(value));
    format!(r#""metadata": {{{}}}"#, (0..pairs).map(pair).collect::<Vec<_>>().join(","))
}

#[test]
fn faults_name_the_field() {
    let long = format!(r#""chat_template_kwargs": {{"thinking": "{}"}}"#, "x".repeat(1_100));
    for (rest, param) in [
        (r#""max_tokens": 0"#, "max_tokens"),
        (r#""max_completion_tokens": -1"#, "max_completion_tokens"),
        (r#""max_completion_tokens": "1""#, "max_completion_tokens"),
        (r#""max_completion_tokens": 1, "max_tokens": 2"#, "max_tokens"),
        (r#""logprobs": 1"#, "logprobs"),
        (r#""top_logprobs": 1"#, "top_logprobs"),
        (r#""logprobs": false, "top_logprobs": 1"#, "top_logprobs"),
        (r#""logprobs": true, "top_logprobs": 21"#, "top_logprobs"),
        (r#""logprobs": true, "top_logprobs": -1"#, "top_logprobs"),
        (r#""n": 0"#, "n"),
        (r#""n": 21"#, "n"),
        (r#""temperature": 3"#, "temperature"),
        (r#""stream_options": {}"#, "stream_options"),
        (r#""store": 1"#, "store"),
        (r#""metadata": 1"#, "metadata"),
        (r#""verbosity": 1"#, "verbosity"),
        (r#""service_tier": 1"#, "service_tier"),
        (r#""reasoning_effort": 1"#, "reasoning_effort"),
        (r#""modalities": "text""#, "modalities"),
        (r#""modalities": ["text", "audio"]"#, "modalities[1]"),
        (r#""audio": {}"#, "audio"),
        (r#""web_search_options": {}"#, "web_search_options"),
        (r#""chat_template": "x""#, "chat_template"),
        (r#""chat_template_kwargs": {"messages": 1}"#, "chat_template_kwargs"),
        (r#""chat_template_kwargs": 1"#, "chat_template_kwargs"),
        (&long, "chat_template_kwargs"),
        (r#""metadata": {"a": 1}"#, "metadata.a"),
        (r#""metadata": {"a": "b", "c": null}"#, "metadata.c"),
        (&metadata(17, 1, 1), "metadata"),
        (&metadata(1, 65, 1), "metadata"),
        (&metadata(1, 64, 513), &format!("metadata.{}", "0".repeat(64))),
        (r#""reasoning_effort": "hihg""#, "reasoning_effort"),
        (r#""reasoning_effort": """#, "reasoning_effort"),
        (r#""echo": true"#, "echo"),
        (r#""best_of": 2"#, "best_of"),
        (r#""best_of": 0"#, "best_of"),
        (r#""suffix": "x""#, "suffix"),
        (r#""suffix": 1"#, "suffix"),
        (r#""continue_final_message": true"#, "continue_final_message"),
        (
            r#""continue_final_message": true, "add_generation_prompt": true"#,
            "continue_final_message",
        ),
        (r#""min_tokens": 2000"#, "min_tokens"),
    ] {
        let error = checked(rest).unwrap_err();
        assert_eq!((error.status().as_u16(), error.param()), (400, Some(param)), "{rest}");
    }
    let bounds =
        Bounds { vocab: 300, limits: RequestLimits::default(), defaults: SamplingDefaults::OPENAI };
    let error = parse(b"{}", KNOWN_BY_PATH).and_then(|fields| validate(&fields, bounds, 9));
    assert_eq!(error.unwrap_err().param(), Some("messages"));
}
