use super::*;
use crate::config::RequestLimits;
use crate::engine::message::Choice;
use crate::http::openai::completions::types::KNOWN_BY_PATH;
use crate::http::openai::completions::validate::validate;
use crate::http::openai::generation::fields::Bounds;
use crate::http::openai::json::parse;
use crate::model::load::SamplingDefaults;
use crate::text::testing::{GEMMA, QWEN, SMOLLM};

const VOCAB: usize = 270;

fn checked(body: &str) -> Checked {
    validate(
        parse(body.as_bytes(), KNOWN_BY_PATH).unwrap(),
        Bounds {
            vocab: VOCAB,
            limits: RequestLimits::default(),
            defaults: SamplingDefaults::OPENAI,
        },
    )
    .unwrap()
}

fn setting(max_model_len: usize) -> Setting {
    Setting { text: Text::fake(VOCAB), grammar: None, max_model_len, instruct: false }
}

async fn prepared(body: &str, max_model_len: usize) -> Result<Prepared, ApiError> {
    prepare(checked(body), setting(max_model_len), 42).await
}

#[tokio::test]
async fn choices_are_ordered_by_prompt_then_sample() {
    let body = r#"{"prompt": ["a", "bc"], "n": 2, "max_tokens": 3, "stop": "x"}"#;
    let prepared = prepared(body, 100).await.unwrap();
    let of = |c: &Choice| (c.prompt.len(), c.sample, c.seed, c.max_new_tokens, c.stop.is_some());
    let choices: Vec<_> = prepared.choices.iter().map(of).collect();
    assert_eq!(
        choices,
        [(1, 0, 42, 3, true), (1, 1, 42, 3, true), (2, 0, 42, 3, true), (2, 1, 42, 3, true)]
    );
    assert_eq!((prepared.prompt_tokens, prepared.longest), (3, (2, 3)));
    assert_eq!(prepared.states.len(), 4);
}

#[tokio::test]
async fn a_stop_string_may_begin_in_an_echoed_prompts_last_character() {
    let text = Text::fake(VOCAB);
    let id =
        |bytes: &[u8]| (0..VOCAB as TokenId).find(|&id| text.token_bytes(id) == bytes).unwrap();
    let (begin, end) = (id(b"\xf0\x9f"), [id(b"\x98"), id(b"\x80")]);
    for echo in [true, false] {
        let body = format!(r#"{{"prompt": [{begin}], "echo": {echo}, "stop": "😀"}}"#);
        let mut prepared = prepared(&body, 100).await.unwrap();
        let stop = prepared.choices[0].stop.as_mut().unwrap();
        assert_eq!(end.map(|token| stop.is_stop(token)), [false, echo]);
    }
}

#[tokio::test]
async fn the_context_bounds_prompt_and_completion_together() {
    let numbers = |error| match error {
        ApiError::ContextLength(c) => (c.limit, c.prompt_tokens, c.completion_tokens),
        other => panic!("{other}"),
    };
    let max = |prepared: Prepared| prepared.choices[0].max_new_tokens;
    let long = r#"{"prompt": "aaaaaaaaaa", "max_tokens": 91}"#;
    assert_eq!(numbers(prepared(long, 100).await.unwrap_err()), (100, 10, 91));
    assert_eq!(max(prepared(long, 101).await.unwrap()), 91);
    let huge = r#"{"prompt": "a", "max_tokens": 18446744073709551615}"#;
    assert_eq!(numbers(prepared(huge, 100).await.unwrap_err()), (100, 1, usize::MAX));
    // Without a limit, what is left of the context, if the default does not fit.
    let free = r#"{"prompt": "aaaaaaaaaa"}"#;
    assert_eq!(max(prepared(free, 100).await.unwrap()), 16);
    assert_eq!(max(prepared(free, 12).await.unwrap()), 2);
    assert_eq!(numbers(prepared(free, 10).await.unwrap_err()), (10, 10, 16));
    // Scoring needs no room beyond the prompt.
    let scored = r#"{"prompt": "aaaaaaaaaa", "max_tokens": 0, "echo": true, "logprobs": 0}"#;
    assert_eq!(max(prepared(scored, 10).await.unwrap()), 0);
    assert_eq!(numbers(prepared(scored, 9).await.unwrap_err()), (9, 10, 0));
}

#[tokio::test]
async fn a_large_prompt_is_refused_and_taken_like_a_small_one() {
    let length = 5 * large::INLINE_MAX;
    let body = format!(r#"{{"prompt": "{}", "max_tokens": 1}}"#, "a".repeat(length));
    assert_eq!(prepared(&body, 1 << 20).await.unwrap().prompt_tokens, length);
    let error = prepared(&body, 1000).await.unwrap_err();
    assert_eq!(error.code(), Some("context_length_exceeded"));
}

#[test]
fn only_one_short_prompt_that_needs_no_rendering_is_converted_here() {
    let at = |body: &str, instruct| place(&checked(body), &Setting { instruct, ..setting(100) });
    let long = format!(r#"{{"prompt": "{}"}}"#, "a".repeat(large::INLINE_MAX + 1));
    for (body, raw, instruct) in [
        ("{}", Place::Here, Place::Here),
        (r#"{"prompt": "hi"}"#, Place::Here, Place::Aside),
        (r#"{"prompt": "hi", "echo": true}"#, Place::Here, Place::Here),
        (r#"{"prompt": [5, 6]}"#, Place::Here, Place::Here),
        (r#"{"prompt": [[5], [6]]}"#, Place::Aside, Place::Aside),
        (r#"{"prompt": ["a", "b"]}"#, Place::Aside, Place::InLine),
        (&long, Place::InLine, Place::InLine),
    ] {
        assert_eq!((at(body, false), at(body, true)), (raw, instruct), "{body:.40}");
    }
}

#[tokio::test]
async fn instruct_names_get_a_turn_of_the_template_for_texts_only() {
    let ids = |body: &'static str, instruct| async move {
        let setting = Setting { instruct, ..setting(100) };
        prepare(checked(body), setting, 0).await.unwrap().choices[0].prompt.to_vec()
    };
    let text = Text::fake(VOCAB);
    let turn = text.render_chat(&[ChatMessage::new("user", "hi")], &ChatOptions::default());
    let turn = text.encode(&turn.unwrap(), true, false);
    let raw = text.encode("hi", true, true);
    assert_eq!(ids(r#"{"prompt": "hi"}"#, true).await, turn);
    assert_eq!(ids(r#"{"prompt": ["hi"]}"#, true).await, turn);
    assert_eq!(ids(r#"{"prompt": "hi"}"#, false).await, raw);
    assert_eq!(ids(r#"{"prompt": "hi", "echo": true}"#, true).await, raw);
    assert_eq!(ids(r#"{"prompt": [5, 6]}"#, true).await, [5, 6]);
}

#[tokio::test]
async fn no_prompt_begins_a_document_and_so_does_an_empty_one() {
    let begin = [beginning(&Text::fake(VOCAB)).unwrap()];
    let absent = prepared("{}", 100).await.unwrap();
    assert_eq!(*absent.choices[0].prompt, begin);
    for body in [r#"{"prompt": ""}"#, r#"{"prompt": "", "add_special_tokens": false}"#] {
        assert_eq!(*prepared(body, 100).await.unwrap().choices[0].prompt, begin, "{body}");
    }
    let among = prepared(r#"{"prompt": ["a", ""], "n": 2}"#, 100).await.unwrap();
    assert_eq!(*among.choices[2].prompt, begin);
    assert_eq!(among.prompt_tokens, 2);
}

/// BOS where a model has one for its texts, as with any other text.
#[test]
fn an_empty_prompt_begins_as_the_models_texts_do() {
    for (real, begin) in [(&SMOLLM, "<|endoftext|>"), (&QWEN, "<|endoftext|>"), (&GEMMA, "<bos>")] {
        let text = real.text().clone();
        let checked = validate(
            parse(br#"{"prompt": ""}"#, KNOWN_BY_PATH).unwrap(),
            Bounds {
                vocab: text.vocab(),
                limits: RequestLimits::default(),
                defaults: SamplingDefaults::OPENAI,
            },
        );
        let setting = Setting { text: text.clone(), ..setting(100) };
        let prepared = prepare_here(checked.unwrap(), &setting, 0).unwrap();
        assert_eq!(text.decode(&prepared.choices[0].prompt, false), begin);
    }
}

#[tokio::test]
async fn what_a_template_refuses_is_the_prompts_fault() {
    for (template, part) in [
        ("{{ raise_exception('no \"x\" here') }}", "refuses it: no \"x\" here"),
        (
            "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
            "cannot",
        ),
        ("{% for %}", "cannot"),
    ] {
        let text = Text::fake_with_template(template);
        let setting = Setting { text, instruct: true, ..setting(100) };
        let error = prepare(checked(r#"{"prompt": "hi"}"#), setting, 0).await.unwrap_err();
        assert_eq!((error.status().as_u16(), error.param()), (400, Some("prompt")));
        assert!(error.message().contains(part), "{}", error.message());
    }
}
