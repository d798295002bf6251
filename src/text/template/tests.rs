use time::macros::datetime;

use super::python::strftime;
use super::{ChatMessage, ChatOptions, Json, SOURCE_BYTES, Template, TemplateError};
use crate::text::testing::{GEMMA, QWEN, Real, SMOLLM};

#[derive(serde::Deserialize)]
struct Golden {
    messages: Vec<ChatMessage>,
    tools: Option<Vec<Json>>,
    prompt: String,
}

fn every_golden_chat_holds(real: &Real) {
    let chats: Vec<Golden> = serde_json::from_str(&real.golden("chat.json")).unwrap();
    assert!(chats.len() > 2);
    for chat in chats {
        let options = ChatOptions { tools: chat.tools, ..ChatOptions::default() };
        let rendered = real.text().render_chat(&chat.messages, &options).unwrap();
        assert_eq!(rendered, chat.prompt, "{:?}", chat.messages);
    }
}

#[test]
fn smollm_renders_its_golden_chats() {
    every_golden_chat_holds(&SMOLLM);
}

#[test]
fn qwen_renders_its_golden_chats() {
    every_golden_chat_holds(&QWEN);
}

#[test]
fn a_base_model_has_no_template() {
    let rendered = GEMMA.text().render_chat(&[], &ChatOptions::default());
    assert!(matches!(rendered, Err(TemplateError::Missing)));
    assert_eq!(GEMMA.text().chat_template(), None);
}

fn render(source: &str) -> Result<String, TemplateError> {
    let template = Template::new(source.to_owned(), vec![("bos_token", "<s>".to_owned())]);
    template.render(&[ChatMessage::new("user", "Hi")], &ChatOptions::default())
}

#[test]
fn templates_get_what_transformers_gives_them() {
    for (source, expected) in [
        ("{{ bos_token }}{{ messages[0].content }}", "<s>Hi"),
        ("{{ tools is none }} {{ documents }} {{ add_generation_prompt }}", "True None True"),
        (
            "{% for m in messages %}\n    {% if true %}\n{{ m.role }}\n    {% endif %}\n{% endfor %}",
            "user\n",
        ),
        ("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "01"),
        ("{{ messages[0].get('name', 'none') }} {{ messages[0]['role'].upper() }}", "none USER"),
        (
            "{{ {'a': [1, 2.0, true, none], 'b': 'é<\"\\n'} | tojson }}",
            "{\"a\": [1, 2.0, true, null], \"b\": \"é<\\\"\\n\"}",
        ),
        ("{{ [1, {'a': []}] | tojson(indent=2) }}", "[\n  1,\n  {\n    \"a\": []\n  }\n]"),
        (
            "{{ [1e16, 1e-5, 0.0001, 123456789.0, -0.0] | tojson }}",
            "[1e+16, 1e-05, 0.0001, 123456789.0, -0.0]",
        ),
        ("{{ nothing }}|{{ messages[0].nothing }}", "|"),
        ("{%- set ns = namespace(x=1) %}{% set ns.x = 2 %}{{ ns.x }}", "2"),
    ] {
        assert_eq!(render(source).unwrap(), expected, "{source}");
    }
    assert_eq!(render("{{ strftime_now('%Y') | length }}").unwrap(), "4");
}

#[test]
fn a_template_can_refuse() {
    let refused = render("{{ raise_exception('roles must alternate') }}").unwrap_err();
    assert!(matches!(&refused, TemplateError::Refused(_)), "{refused:?}");
    assert_eq!(refused.to_string(), "roles must alternate");
}

#[test]
fn row_18_templates_cannot_use_up_the_server() {
    let nested = format!("{}{}", "{% if true %}".repeat(5_500), "{% endif %}".repeat(5_500));
    let deep = |levels: u32, of: &str, then: &str| {
        format!(
            "{{% set ns = namespace(x=[]) %}}{{% for i in range({levels}) %}}{{% set ns.x = {of} %}}\
             {{% endfor %}}{then}"
        )
    };
    // As deep as fuel allows, and then whatever walks through it all.
    for then in
        ["", "{{ ns.x }}", "{{ ns.x == ns.x }}", "{{ ns.x | string }}", "{{ [ns.x] | sort }}"]
    {
        for of in ["[ns.x]", "{'a': ns.x}", "(ns.x,)"] {
            let _ = render(&deep(100_000, of, then));
        }
    }
    for (what, source) in [
        ("syntax", "{% for %}"),
        ("no filter of that name", "{{ 1 | nothing }}"),
        ("nested blocks", nested.as_str()),
        ("nested brackets", &format!("{{{{ {}1{} }}}}", "(".repeat(5_500), ")".repeat(5_500))),
        ("loops", "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"),
        ("output", "{% for a in range(99999) %}{{ 'x' * 1000 }}{% endfor %}"),
        (
            "memory",
            "{% set ns = namespace(x='x') %}{% for a in range(99) %}\
                    {% set ns.x = ns.x + ns.x %}{% endfor %}",
        ),
        ("one string", "{{ 'x' * 10000000000 }}"),
        ("recursion", "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}"),
        ("deep values", &deep(1_000, "[ns.x]", "{{ ns.x | tojson }}")),
        ("deeper ones", &deep(200_000, "[ns.x]", "")),
        ("a long source", &"x".repeat(SOURCE_BYTES + 1)),
        ("other files", "{% include '/etc/passwd' %}"),
    ] {
        let failed = render(source);
        assert!(matches!(failed, Err(TemplateError::Failed(_))), "{what}: {failed:?}");
    }
}

#[test]
fn row_18_chains_as_long_as_a_source_may_be_overflow_no_stack() {
    for link in ["-", "not ", "1+", "1**", "'a'~", "1 and ", "1<"] {
        let links = (SOURCE_BYTES - 16) / link.len();
        // Whether it renders is the engine's to say; that this returns is the test.
        let _ = render(&format!("{{{{ {}1 }}}}", link.repeat(links)));
    }
    for link in [".b", "[0]", "()", "|abs", " is odd", " if a else 1"] {
        let links = (SOURCE_BYTES - 16) / link.len();
        let _ = render(&format!("{{{{ 1{} }}}}", link.repeat(links)));
    }
}

#[test]
fn what_a_template_says_is_a_line() {
    let said = render("{{ raise_exception('no\\n\u{1b}[31m' ~ 'z' * 9999) }}").unwrap_err();
    assert!(matches!(said, TemplateError::Refused(_)), "{said}");
    let said = said.to_string();
    assert!(said.starts_with("no") && said.len() < 500, "{said}");
    assert!(!said.chars().any(char::is_control), "{said:?}");
}

#[test]
fn long_conversations_are_rendered() {
    let message = ChatMessage::new("user", &"word ".repeat(2_000));
    let messages = vec![message; 200];
    for real in [&SMOLLM, &QWEN] {
        let rendered = real.text().render_chat(&messages, &ChatOptions::default()).unwrap();
        assert!(rendered.len() > 2_000_000);
    }
}

#[test]
fn the_last_of_two_members_counts() {
    let message: ChatMessage =
        serde_json::from_str(r#"{"role": "a", "x": 1, "role": "b"}"#).unwrap();
    let template = Template::new("{{ messages[0] | tojson }}".to_owned(), Vec::new());
    let rendered = template.render(&[message], &ChatOptions::default()).unwrap();
    assert_eq!(rendered, r#"{"role": "b", "x": 1}"#);
}

#[test]
fn dates_are_written_as_python_writes_them() {
    let at = datetime!(2026-11-05 15:04:09 UTC);
    assert_eq!(
        strftime(at, "%d %B %Y, %a %b %e %H:%M:%S"),
        "05 November 2026, Thu Nov  5 15:04:09"
    );
    assert_eq!(strftime(at, "%-d %I %p %y %j %F %% %Q %"), "5 03 PM 26 309 2026-11-05 % %Q %");
}
