use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{Content, Form, Prompt, Prompts, Scale, Words, parse, probe};
use crate::cli::bench::words::{BEGINNINGS, WORDS};

fn words(prompt: &Prompt) -> Vec<&str> {
    let Content::Text(text) = &prompt.content else { panic!("no text") };
    text.split(' ').collect()
}

fn random(input_tokens: usize, prefix_tokens: usize, prefixes: usize) -> Prompts {
    let scale = Scale::default();
    Prompts::Words(Words { input_tokens, prefix_tokens, prefixes, seed: 5, scale })
}

#[test]
fn all_words_are_of_one_length_and_different() {
    assert!(WORDS.iter().all(|w| w.len() == 4 && w.bytes().all(|b| b.is_ascii_lowercase())));
    assert_eq!(WORDS.iter().collect::<BTreeSet<_>>().len(), WORDS.len());
    assert!(BEGINNINGS >= 200 && WORDS.len() >= BEGINNINGS);
}

#[test]
fn prompts_depend_on_their_number_only_and_share_prefixes_in_turn() {
    let prompts = random(10, 30, 3);
    assert_eq!(prompts.nth(4), prompts.nth(4));
    let [a, b, c, d] = [0, 1, 2, 3].map(|i| prompts.nth(i));
    let [a, b, c, d] = [&a, &b, &c, &d].map(words);
    assert_eq!((a.len(), a[..30] == d[..30], a[30..] == d[30..]), (40, true, false));
    assert!(a[..30] != b[..30] && b[..30] != c[..30] && c[..30] != a[..30]);
    let warm = prompts.warmup(0, 5);
    assert_eq!(words(&warm).len(), 40);
    assert!((0..4).all(|i| words(&warm)[..8] != words(&prompts.nth(i))[..8]));
}

#[test]
fn words_become_as_many_tokens_as_wanted() {
    // Five tokens a word (bytes), and 12 of a template.
    let scale = Scale::through((8, 52), (40, 212));
    assert_eq!(scale, Scale { tokens_per_word: 5.0, overhead: 12.0 });
    assert_eq!((scale.words(112), scale.words(3)), (20, 1));
    // A server that counts nothing.
    assert_eq!(Scale::through((8, 0), (40, 0)), Scale::default());
    assert_eq!(words(&probe(1, 8)).len(), 8);
}

#[test]
fn files_have_two_forms() {
    let plain = parse("\u{feff}one\r\n\n  two words \n").unwrap();
    assert_eq!((plain.len(), words(&plain[0])), (2, vec!["one"]));
    assert_eq!(plain[1].content, Content::Text("  two words ".to_owned()));
    let lines = parse(
        "{\"prompt\": \"a\", \"id\": 7}\n\n{\"messages\": [{\"role\": \"user\", \"content\": \"b\"}], \"output_tokens\": 9}",
    );
    let lines = lines.unwrap();
    assert_eq!((lines.len(), lines[1].max_tokens), (2, Some(9)));
    assert!(matches!(lines[1].content, Content::Messages(_)));
    for (text, place) in [
        ("", "1:"),
        ("{\"prompt\": \"a\"}\n{", "2:"),
        ("{\"prompt\": \"a\", \"messages\": []}", "1:"),
        ("{\"a\": 1}", "1:"),
    ] {
        let fault = parse(text).unwrap_err();
        assert!(fault.starts_with(place), "{fault}");
    }
}

fn body(form: &Form, prompt: Prompt) -> Value {
    serde_json::from_slice(&form.body(prompt)).unwrap()
}

#[test]
fn bodies_are_what_the_options_say() {
    let mut form = Form {
        model: "m".to_owned(),
        chat: false,
        output_tokens: 4,
        ignore_eos: false,
        temperature: None,
        extra_body: Map::new(),
    };
    let text = || Prompt { content: Content::Text("a".to_owned()), max_tokens: None };
    let usage = json!({"include_usage": true});
    let plain = json!({"model": "m", "prompt": "a", "max_tokens": 4, "stream": true, "stream_options": usage});
    assert_eq!((body(&form, text()), form.route()), (plain, "/completions"));
    form.chat = true;
    form.ignore_eos = true;
    form.temperature = Some(0.0);
    let extra = json!({"max_tokens": null, "max_completion_tokens": 5});
    form.extra_body = extra.as_object().unwrap().clone();
    let chat = json!({
        "model": "m", "messages": [{"role": "user", "content": "a"}], "max_completion_tokens": 5,
        "stream": true, "stream_options": usage, "ignore_eos": true, "temperature": 0.0,
    });
    assert_eq!((body(&form, text()), form.route()), (chat, "/chat/completions"));
}
