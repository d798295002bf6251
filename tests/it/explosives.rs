//! Small requests that ask for much work (rows 17 and 18 of `docs/faults.md`): grammars, schemas, chat templates.

use std::io;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{Answer, Client, Sse};
use crate::support::{Server, smollm2};

/// With a vocabulary of a usual size, since that is what masks cost.
const MODEL: &str = "fake:vocab=49152,max_len=100000,step_ms=4";

fn ask(client: &Client, outputs: &Value) -> Answer {
    client.complete(
        &json!({"model": "fake", "prompt": "a", "max_tokens": 2, "structured_outputs": outputs}),
    )
}

fn nested(depth: usize, open: &str, close: &str) -> String {
    format!("{}1{}", open.repeat(depth), close.repeat(depth))
}

/// `allOf` of `width` schemas, each `anyOf` of as many: a compiler that multiplies them out never ends.
fn product(width: usize) -> Value {
    let any = |i: usize| {
        let one = |j: usize| json!({"properties": {format!("p{j}"): {"const": i}}});
        json!({"anyOf": (0..width).map(one).collect::<Vec<_>>()})
    };
    json!({"type": "object", "allOf": (0..width).map(any).collect::<Vec<_>>()})
}

/// What explodes, and whether it is refused, or followed at little cost.
fn hostile(unreachable: &str) -> Vec<(&'static str, Value, bool)> {
    let wide: serde_json::Map<String, Value> = (0..4_000)
        .map(|i| (format!("p{i}"), json!({"type": "string", "pattern": "^(a|b){1,99}$"})))
        .collect();
    vec![
        ("repetitions of repetitions", json!({"regex": "foo**"}), true),
        ("a product of repetitions", json!({"regex": "(a{1,1000}){1,1000}"}), false),
        ("a product of optional repetitions", json!({"regex": "((a?){1,1000}){1,1000}b"}), false),
        ("a look ahead", json!({"regex": "(?=a)b"}), true),
        ("brackets", json!({"regex": nested(5_000, "(", ")")}), true),
        ("many states", json!({"regex": "(.*a.{200}|.*b.{300})x"}), false),
        ("a remote reference", json!({"json": {"$ref": unreachable}}), true),
        ("a file", json!({"json": {"$ref": "file:///etc/passwd"}}), true),
        ("a reference to itself", json!({"json": {"$ref": "#"}}), true),
        (
            "references in a circle",
            json!({"json": {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}}),
            true,
        ),
        (
            "a schema that nests itself",
            json!({"json": {"type": "object", "properties": {"next": {"$ref": "#"}}, "additionalProperties": false}}),
            false,
        ),
        ("all of any of", json!({"json": product(40)}), true),
        ("many properties", json!({"json": {"type": "object", "properties": wide}}), true),
        (
            "a huge least length",
            json!({"json": {"type": "string", "minLength": 1_000_000_000}}),
            true,
        ),
        (
            "a huge most length",
            json!({"json": {"type": "string", "maxLength": 1_000_000_000}}),
            false,
        ),
        (
            "Lark that repeats",
            json!({"grammar": "start: ((\"a\"{1,1000}){1,1000}){1,1000}"}),
            false,
        ),
        ("Lark in a circle", json!({"grammar": "start: a\na: b\nb: a"}), true),
        (
            "a Lark of brackets",
            json!({"grammar": format!("start: {}", nested(5_000, "(", ")"))}),
            true,
        ),
        ("nothing fits", json!({"json": {"type": "string", "minLength": 2, "maxLength": 1}}), true),
    ]
}

#[test]
fn row_17_what_explodes_is_refused_by_name_and_never_fetched() {
    let server = Server::start(&[MODEL]);
    let client = server.client();
    let trap = TcpListener::bind("127.0.0.1:0").unwrap();
    trap.set_nonblocking(true).unwrap();
    let remote = format!("http://{}/schema.json", trap.local_addr().unwrap());
    for (what, outputs, is_refused) in hostile(&remote) {
        let answer = ask(&client, &outputs);
        assert_eq!(answer.status, if is_refused { 400 } else { 200 }, "{what}: {}", answer.body);
        if is_refused {
            // What shows only while it is followed, too.
            let named = answer.error("param") == "structured_outputs";
            assert!(
                named || answer.error("code") == "grammar_too_complex",
                "{what}: {}",
                answer.body
            );
            assert!(
                answer.error("message").as_str().unwrap().len() < 500,
                "{what}: {}",
                answer.body
            );
        }
    }
    assert_eq!(trap.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    assert_eq!(ask(&client, &json!({"choice": ["a"]})).status, 200);
}

/// The gaps between the tokens of a stream.
#[derive(Debug, Clone, Copy)]
struct Pace {
    middle: Duration,
    /// All but a hundredth of the gaps are shorter.
    late: Duration,
}

impl Pace {
    /// Of a stream that is read until `until` says so.
    fn of(client: &Client, until: impl Fn(usize) -> bool) -> Self {
        let body = json!({"model": "fake", "prompt": "b", "max_tokens": 90_000, "ignore_eos": true, "stream": true});
        let mut stream = client.stream(&body);
        let mut gaps = Vec::new();
        let mut last = Instant::now();
        while !until(gaps.len()) {
            assert!(matches!(stream.next().unwrap(), Some(Sse::Data(_) | Sse::Comment)));
            gaps.push(last.elapsed());
            last = Instant::now();
        }
        // Until the first token, others may be in the queue.
        let mut gaps = gaps.split_off(1);
        gaps.sort_unstable();
        Self { middle: gaps[gaps.len() / 2], late: gaps[gaps.len() * 99 / 100] }
    }

    fn worst(self, other: Self) -> Self {
        Self { middle: self.middle.max(other.middle), late: self.late.max(other.late) }
    }
}

/// The pace of a stream without others, and while `attack` is under way.
fn paces(client: &Client, attack: impl FnOnce()) -> (Pace, Pace) {
    const GAPS: usize = 400;
    ask(client, &json!({"choice": ["a"]}));
    let before = Pace::of(client, |gaps| gaps == GAPS);
    let is_over = AtomicBool::new(false);
    let attacked = std::thread::scope(|scope| {
        let stream = scope
            .spawn(|| Pace::of(client, |gaps| gaps >= GAPS && is_over.load(Ordering::Acquire)));
        attack();
        is_over.store(true, Ordering::Release);
        stream.join().unwrap()
    });
    // The machine has other things to do, and more of them at times.
    (before.worst(Pace::of(client, |gaps| gaps == GAPS)), attacked)
}

#[test]
fn row_17_streams_keep_their_pace_while_grammars_explode() {
    let server = Server::start(&[MODEL]);
    let client = server.client();
    let (alone, attacked) = paces(&client, || {
        for _ in 0..2 {
            for (_, outputs, _) in hostile("http://192.0.2.1/") {
                ask(&client, &outputs);
            }
        }
    });
    assert!(attacked.middle < alone.middle * 3, "{attacked:?}, {alone:?} without");
}

/// Work that is long and sound: conversations of some hundred kilobytes, which are rendered and tokenised before
/// they turn out to be too long, and schemas that nobody has sent before. What a stream had to wait for one of
/// them would be some tens of its gaps.
#[test]
fn row_17_streams_keep_their_pace_while_chats_are_rendered_and_schemas_compiled() {
    const ROUNDS: usize = 12;
    let server = Server::start(&[MODEL]);
    let client = server.client();
    let turn = |i: usize| json!({"role": if i.is_multiple_of(2) { "user" } else { "assistant" }, "content": "x ".repeat(30)});
    let messages: Vec<Value> = (0..8_000).map(turn).collect();
    let chat = json!({"model": "fake", "messages": messages, "max_tokens": 2});
    let schema = |round: usize| {
        let one = |i: usize| {
            (
                format!("p{round}_{i}"),
                json!({"type": "string", "pattern": "^[a-z]{1,9}(-[a-z0-9]{1,9})*$"}),
            )
        };
        let properties: serde_json::Map<String, Value> = (0..120).map(one).collect();
        json!({"json": {"type": "object", "properties": properties, "additionalProperties": false}})
    };
    let mut work = Vec::new();
    let (alone, attacked) = paces(&client, || {
        for round in 0..ROUNDS {
            let begun = Instant::now();
            let answer = client.post("/v1/chat/completions", &chat);
            assert_eq!(answer.error("code"), "context_length_exceeded", "{}", answer.body);
            work.push(begun.elapsed());
            let begun = Instant::now();
            let answer = ask(&client, &schema(round));
            assert_eq!(answer.status, 200, "{}", answer.body);
            work.push(begun.elapsed());
        }
    });
    work.sort_unstable();
    println!("{alone:?} alone, {attacked:?} beside work of {:?} each", work[work.len() / 2]);
    assert!(attacked.middle < alone.middle * 3, "{attacked:?}, {alone:?} without");
    // One gap in a hundred is at the mercy of whatever else this machine does.
    let late = alone.late.max(alone.middle * 2);
    assert!(attacked.late < late * 4, "{attacked:?}, {alone:?} without");
}

#[test]
fn row_17_ever_new_schemas_take_no_more_memory() {
    let server = Server::start(&["fake:vocab=49152"]);
    let client = server.client();
    let send = |i: usize| {
        let schema = json!({"type": "object", "properties": {format!("p{i}"): {"type": "integer"}},
            "required": [format!("p{i}")], "additionalProperties": false});
        assert_eq!(ask(&client, &json!({ "json": schema })).status, 200);
    };
    // From several at once, as each spends most of its time waiting for its turn.
    let send_all = |all: std::ops::Range<usize>| {
        let (send, next) = (&send, &AtomicUsize::new(all.start));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(move || {
                    let next = || Some(next.fetch_add(1, Ordering::Relaxed));
                    std::iter::from_fn(next).take_while(|&i| i < all.end).for_each(send);
                });
            }
        });
    };
    // Enough to fill the cache of compiled ones.
    send_all(0..1_500);
    let filled = crate::params::resident(&server);
    send_all(1_500..10_000);
    let grown = crate::params::resident(&server).saturating_sub(filled);
    assert!(grown < 32 << 10, "{grown} KiB more than the {filled} of a full cache");
}

fn chat(client: &Client, field: &str, value: &Value) -> Answer {
    let mut body =
        json!({"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2});
    body[field] = value.clone();
    client.post("/v1/chat/completions", &body)
}

#[test]
fn row_18_a_client_brings_no_template_and_few_variables() {
    let server = Server::start(&["fake:", "--served-model-name", "m"]);
    let client = server.client();
    let long = "x".repeat(1_025);
    for (field, value) in [
        ("chat_template", json!("{{ 7 * 7 }}")),
        ("chat_template", json!("")),
        ("chat_template", json!({"default": "x"})),
        ("chat_template_kwargs", json!({"chat_template": "{{ 7 * 7 }}"})),
        ("chat_template_kwargs", json!({"tokenize": false})),
        ("chat_template_kwargs", json!({"messages": []})),
        ("chat_template_kwargs", json!({"enable_thinking": true, "__class__": 1})),
        ("chat_template_kwargs", json!({"enable_thinking": long})),
        ("chat_template_kwargs", json!({"thinking": vec![0; 600]})),
        ("chat_template_kwargs", json!("enable_thinking")),
        ("documents", json!([{"text": "a"}])),
    ] {
        let answer = chat(&client, field, &value);
        assert_eq!(answer.status, 400, "{field} {value}: {}", answer.body);
        assert_eq!(answer.error("param"), field, "{}", answer.body);
    }
    for allowed in
        [json!({"enable_thinking": false, "date_string": "1 May"}), json!({}), Value::Null]
    {
        let answer = chat(&client, "chat_template_kwargs", &allowed);
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
}

/// The default model with another template of the same length.
fn model_with_template(source: &str) -> Vec<u8> {
    const NAME: &[u8] = b"tokenizer.chat_template";
    let mut file = std::fs::read(smollm2()).unwrap();
    let name = file.windows(NAME.len()).position(|w| w == NAME).unwrap();
    // Behind it: the type of the value, and its length.
    let length = name + NAME.len() + 4;
    let start = length + 8;
    let end = start + u64::from_le_bytes(file[length..start].try_into().unwrap()) as usize;
    file[start..end].fill(b' ');
    file[start..start + source.len()].copy_from_slice(source.as_bytes());
    file
}

#[test]
fn row_18_a_models_own_template_cannot_take_the_server() {
    let folder = tempfile::tempdir().unwrap();
    for (name, template) in [
        ("loops", "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"),
        ("output", "{% for a in range(99999) %}{{ 'x' * 1000 }}{% endfor %}"),
        ("recursion", "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}"),
        ("syntax", "{% for %}"),
    ] {
        let path = folder.path().join("model.gguf");
        std::fs::write(&path, model_with_template(template)).unwrap();
        let server = Server::start(&[path.to_str().unwrap(), "--served-model-name", "m"]);
        let client = server.client();
        for _ in 0..3 {
            let answer = chat(&client, "n", &json!(1));
            assert_eq!(answer.status, 400, "{name}: {}", answer.body);
            assert_eq!(answer.error("param"), "messages", "{name}");
        }
        let answer = client.complete(&json!({"model": "m", "prompt": "a", "max_tokens": 1}));
        assert_eq!(answer.status, 200, "{name}: {}", answer.body);
    }
}
