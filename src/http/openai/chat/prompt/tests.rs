use super::*;
use crate::http::openai::chat::messages;
use crate::http::openai::chat::types::KNOWN_BY_PATH;
use crate::http::openai::json::parse;

/// The body's conversation, by a template of that source.
fn rendered(source: &str, body: &str, end: End) -> Result<String, ApiError> {
    let fields = parse(body.as_bytes(), KNOWN_BY_PATH)?;
    let messages = messages::check(fields.get("messages").unwrap())?;
    let rendering = Rendering { end, variables: Vec::new(), add_bos: false };
    render(&Text::fake_with_template(source), &messages, &Tools::check(&fields)?, &rendering)
}

const ROLES: &str = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}\
                     {% if add_generation_prompt %}<assistant>{% endif %}";

#[test]
fn developers_are_the_system_where_no_template_knows_them() {
    let body = r#"{"messages": [{"role": "developer", "content": "a"}, {"role": "user", "content": "b"}]}"#;
    assert_eq!(rendered(ROLES, body, End::Answer).unwrap(), "<system>a<user>b<assistant>");
    let knows = format!("{{# developer #}}{ROLES}");
    assert_eq!(rendered(&knows, body, End::Answer).unwrap(), "<developer>a<user>b<assistant>");
}

#[test]
fn the_last_message_can_be_continued() {
    let body = r#"{"messages": [{"role": "user", "content": "b"}, {"role": "assistant", "content": "one, "}]}"#;
    let closes = "{% for m in messages %}<{{ m.role }}>{{ m.content }}<end>{% endfor %}";
    assert_eq!(rendered(closes, body, End::OpenMessage).unwrap(), "<user>b<end><assistant>one, ");
    assert_eq!(rendered(closes, body, End::Message).unwrap(), "<user>b<end><assistant>one, <end>");
    let error = rendered("nothing", body, End::OpenMessage).unwrap_err();
    assert_eq!(error.param(), Some("continue_final_message"));
}

const TOOLS: &str = r#""tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]"#;

#[test]
fn tools_are_put_in_words_where_the_template_has_none() {
    let body = format!(
        r#"{{{TOOLS}, "messages": [{{"role": "system", "content": "S"}}, {{"role": "user", "content": "U"}},
            {{"role": "assistant", "content": null, "tool_calls": [
                {{"id": "1", "type": "function", "function": {{"name": "f", "arguments": "{{\"a\": 1}}"}}}},
                {{"id": "2", "type": "function", "function": {{"name": "f", "arguments": "{{}}"}}}}]}},
            {{"role": "tool", "tool_call_id": "1", "content": "x"}},
            {{"role": "tool", "tool_call_id": "2", "content": "y"}}]}}"#
    );
    let definition =
        r#"{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}"#;
    let expected = format!(
        "<system>S\n\n{TOOLS_HEAD}\n{definition}{TOOLS_TAIL}<user>U<assistant>\
         <tool_call>\n{{\"name\": \"f\", \"arguments\": {{\"a\": 1}}}}\n</tool_call>\n\
         <tool_call>\n{{\"name\": \"f\", \"arguments\": {{}}}}\n</tool_call>\
         <user><tool_response>\nx\n</tool_response>\n<tool_response>\ny\n</tool_response><assistant>"
    );
    assert_eq!(rendered(ROLES, &body, End::Answer).unwrap(), expected);
    let alone = format!(r#"{{{TOOLS}, "messages": [{{"role": "user", "content": "U"}}]}}"#);
    let expected = format!("<system>{TOOLS_HEAD}\n{definition}{TOOLS_TAIL}<user>U<assistant>");
    assert_eq!(rendered(ROLES, &alone, End::Answer).unwrap(), expected);
}

#[test]
fn tools_that_must_not_be_called_are_not_shown() {
    let body = format!(
        r#"{{{TOOLS}, "tool_choice": "none", "messages": [{{"role": "user", "content": "U"}}]}}"#
    );
    assert_eq!(rendered(ROLES, &body, End::Answer).unwrap(), "<user>U<assistant>");
    let shows = "{{ tools is none }}";
    assert_eq!(rendered(shows, &body, End::Answer).unwrap(), "True");
}

#[test]
fn a_template_with_tools_gets_them_as_they_are() {
    let body = format!(
        r#"{{{TOOLS}, "messages": [{{"role": "assistant", "tool_calls": [
            {{"id": "1", "type": "function", "function": {{"name": "f", "arguments": "{{\"a\": [1.0, null]}}"}}}}]}},
            {{"role": "function", "name": "f", "content": "x"}}]}}"#
    );
    let source = "{{ tools | tojson }}{% for m in messages %}{{ m | tojson }}{% endfor %}";
    assert_eq!(
        rendered(source, &body, End::Answer).unwrap(),
        "[{\"type\": \"function\", \"function\": {\"name\": \"f\", \"parameters\": {\"type\": \"object\"}}}]\
         {\"role\": \"assistant\", \"content\": \"\", \"tool_calls\": [{\"id\": \"1\", \"type\": \"function\", \
         \"function\": {\"name\": \"f\", \"arguments\": {\"a\": [1.0, null]}}}]}\
         {\"role\": \"tool\", \"content\": \"x\", \"name\": \"f\"}"
    );
}

#[test]
fn what_a_template_refuses_is_the_clients_to_know() {
    let body = r#"{"messages": [{"role": "user", "content": "b"}]}"#;
    let error =
        rendered("{{ raise_exception('roles must alternate') }}", body, End::Answer).unwrap_err();
    assert_eq!((error.status().as_u16(), error.param()), (400, Some("messages")));
    assert!(error.message().contains("roles must alternate"), "{}", error.message());
    let error = rendered("{{ 1 | nothing }}", body, End::Answer).unwrap_err();
    assert_eq!((error.status().as_u16(), error.param()), (400, Some("messages")));
}
