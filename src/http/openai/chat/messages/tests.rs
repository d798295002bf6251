use super::*;
use crate::http::openai::json::testing::json;

fn checked(messages: &str) -> Result<Vec<Message>, ApiError> {
    check(&json(messages))
}

fn one(message: &str) -> Message {
    let mut all = checked(&format!("[{message}]")).unwrap();
    assert_eq!(all.len(), 1);
    all.remove(0)
}

#[test]
fn content_is_a_string_or_text_parts() {
    for (message, expected) in [
        (r#"{"role": "user", "content": "a"}"#, "a"),
        (r#"{"role": "user", "content": ""}"#, ""),
        (r#"{"role": "user", "content": []}"#, ""),
        (
            r#"{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}"#,
            "a\nb",
        ),
        (r#"{"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}"#, "no"),
        (r#"{"role": "assistant", "content": null}"#, ""),
        (r#"{"role": "assistant"}"#, ""),
        (r#"{"role": "assistant", "content": null, "refusal": "no"}"#, "no"),
    ] {
        assert_eq!(one(message).content, expected, "{message}");
    }
}

#[test]
fn roles_are_those_of_the_api() {
    for (role, expected) in [
        ("system", Role::System),
        ("developer", Role::Developer),
        ("user", Role::User),
        ("assistant", Role::Assistant),
        ("tool", Role::Tool),
        ("function", Role::Tool),
    ] {
        let message = format!(r#"{{"role": "{role}", "content": "x", "name": null}}"#);
        assert_eq!(one(&message).role, expected);
    }
}

#[test]
fn calls_and_results_are_kept() {
    let asked = one(r#"{"role": "assistant", "content": "Let me look.", "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}},
            {"function": {"name": "g", "arguments": "no json"}}], "reasoning_content": "hm"}"#);
    let call = |id: Option<&str>, name: &str, arguments: &str| PastCall {
        id: id.map(str::to_owned),
        name: name.to_owned(),
        arguments: arguments.to_owned(),
    };
    assert_eq!(asked.calls, [call(Some("call_1"), "f", "{}"), call(None, "g", "no json")]);
    assert_eq!(asked.reasoning.as_deref(), Some("hm"));
    let result = one(r#"{"role": "tool", "tool_call_id": "call_1", "name": "f", "content": "7"}"#);
    assert_eq!((result.call_id.as_deref(), result.name.as_deref()), (Some("call_1"), Some("f")));
    let legacy = one(
        r#"{"role": "assistant", "content": null, "function_call": {"name": "f", "arguments": "{}"}}"#,
    );
    assert_eq!(legacy.calls, [call(None, "f", "{}")]);
}

#[test]
fn faults_are_named_by_their_place() {
    for (messages, param, part) in [
        ("7", "messages", "'array'"),
        ("[]", "messages", "too short"),
        ("[1]", "messages[0]", "'object'"),
        ("[{}]", "messages[0].role", "required"),
        (r#"[{"role": 1}]"#, "messages[0].role", "'string'"),
        (r#"[{"role": "x", "content": ""}]"#, "messages[0].role", "'x' is not one of"),
        (r#"[{"role": "user"}]"#, "messages[0].content", "required"),
        (r#"[{"role": "user", "content": null}]"#, "messages[0].content", "required"),
        (r#"[{"role": "tool"}]"#, "messages[0].content", "required"),
        (r#"[{"role": "user", "content": 7}]"#, "messages[0].content", "'string' or 'array'"),
        (r#"[{"role": "user", "content": [7]}]"#, "messages[0].content[0]", "'object'"),
        (r#"[{"role": "user", "content": [{}]}]"#, "messages[0].content[0].type", "required"),
        (
            r#"[{"role": "user", "content": [{"type": "text"}]}]"#,
            "messages[0].content[0].text",
            "required",
        ),
        (r#"[{"role": "user", "content": [{"type": "x"}]}]"#, "messages[0].content[0].type", "'x'"),
        (
            r#"[{"role": "user", "content": [{"type": "refusal", "refusal": ""}]}]"#,
            "messages[0].content[0].type",
            "'refusal'",
        ),
        (r#"[{"role": "user", "content": "", "name": 1}]"#, "messages[0].name", "'string'"),
        (
            r#"[{"role": "user", "content": ""}, {"role": "assistant", "tool_calls": 1}]"#,
            "messages[1].tool_calls",
            "'array'",
        ),
        (
            r#"[{"role": "assistant", "tool_calls": [{}]}]"#,
            "messages[0].tool_calls[0].function",
            "required",
        ),
        (
            r#"[{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}]"#,
            "messages[0].tool_calls[0].function.arguments",
            "'string'",
        ),
        (
            r#"[{"role": "assistant", "function_call": {"name": "f"}}]"#,
            "messages[0].function_call.arguments",
            "required",
        ),
    ] {
        let error = checked(messages).unwrap_err();
        assert_eq!((error.status().as_u16(), error.param()), (400, Some(param)), "{messages}");
        assert!(error.message().contains(part), "{messages}: {}", error.message());
    }
}

#[test]
fn what_the_model_cannot_read_is_refused_by_part() {
    for (kind, what) in [
        ("image_url", "images"),
        ("input_audio", "audio"),
        ("file", "files"),
        ("video_url", "videos"),
    ] {
        let messages = format!(
            r#"[{{"role": "user", "content": [{{"type": "text", "text": "a"}}, {{"type": "{kind}", "{kind}": {{}}}}]}}]"#
        );
        let error = checked(&messages).unwrap_err();
        assert_eq!(error.status(), 400);
        assert_eq!(error.param(), Some("messages[0].content[1]"));
        assert_eq!(error.code(), Some("unsupported_parameter"));
        assert!(error.message().contains(what), "{}", error.message());
    }
}
