//! Values that no request should have (rows 9 to 16 of `docs/faults.md`): each is refused by name, at once, and the server is as it was.

use std::fmt::Write as _;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{Answer, Client, read_answer};
use crate::support::Server;

/// One server for all of them: none may harm it.
static SERVER: LazyLock<Server> = LazyLock::new(|| Server::start(&["fake:"]));

fn body(field: &str, value: &Value) -> Value {
    let mut body = json!({"model": "fake", "prompt": "a", "max_tokens": 4});
    body[field] = value.clone();
    body
}

/// The text of a request whose `field` stands there as `value` does, which need not be JSON that a parser would write.
fn text(field: &str, value: &str) -> String {
    format!(r#"{{"model": "fake", "prompt": "a", "{field}": {value}}}"#)
}

fn assert_refused(answer: &Answer, param: &str, what: &str) {
    assert_eq!(answer.status, 400, "{what}: {}", answer.body);
    assert_eq!(answer.error("type"), "invalid_request_error", "{what}");
    let got = answer.error("param");
    assert!(got.as_str().is_some_and(|p| p.starts_with(param)), "{what}: param is {got}");
}

/// Resident memory in KiB.
pub(crate) fn resident(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn refuse_all(client: &Client, cases: &[(&str, &[&str])]) {
    for (field, values) in cases {
        for value in *values {
            let answer = client.post_text("/v1/completions", &text(field, value));
            assert_refused(&answer, field, &format!("{field}: {value}"));
        }
    }
    assert_eq!(client.complete(&body("n", &json!(1))).status, 200);
}

#[test]
fn rows_09_10_11_12_13_numbers_out_of_their_bounds_are_refused_by_name() {
    let client = SERVER.client();
    let huge = ["1000000000", "9223372036854775807", "18446744073709551616", "1e300", "-1"];
    refuse_all(
        &client,
        &[
            ("n", &[&huge[..], &["0", "21", "1.5", "\"1\"", "true", "[]", "{}"]].concat()),
            ("best_of", &[&huge[..], &["0", "21", "\"2\""]].concat()),
            ("logprobs", &["-1", "6", "2147483648", "1.5", "\"5\"", "true"]),
            ("prompt_logprobs", &["-1", "6", "512", "2147483648", "true"]),
            ("max_tokens", &["-1", "1.5", "\"4\"", "true", "[1]", "18446744073709551616", "1e300"]),
            ("temperature", &["-1", "2.1", "1e400", "-1e400", "\"1\"", "NaN", "true"][..5]),
            ("top_p", &["-0.1", "1.1", "1e400", "\"1\""]),
            ("frequency_penalty", &["1e9", "-2.1", "2.1", "1e400", "\"0\""]),
            ("presence_penalty", &["1e9", "-2.1", "2.1"]),
            ("repetition_penalty", &["0", "-1", "1e9", "1e400"]),
            ("seed", &["1e300", "9223372036854775808", "1.5", "\"7\""]),
            (
                "logit_bias",
                &[
                    r#"{"512": 1}"#,
                    r#"{"-1": 1}"#,
                    r#"{"a": 1}"#,
                    r#"{"1.5": 1}"#,
                    r#"{"": 1}"#,
                    r#"{"1": 101}"#,
                    r#"{"1": -101}"#,
                    r#"{"1": 1e400}"#,
                    r#"{"1": "1"}"#,
                    "[1]",
                    "7",
                ],
            ),
            ("stream", &["1", "\"true\"", "[]"]),
            ("priority", &["1001", "-1001", "1.5"]),
        ],
    );
    // What is no JSON at all names no field.
    let answer = client.post_text("/v1/completions", &text("temperature", "NaN"));
    assert_eq!((answer.status, answer.error("param")), (400, Value::Null));
}

#[test]
fn row_09_what_fans_out_is_bounded_as_a_whole_and_costs_no_memory() {
    let client = SERVER.client();
    let before = resident(&SERVER);
    let prompts = |n: usize| format!("[{}\"a\"]", "\"a\",".repeat(n - 1));
    for (n, prompt) in [(20, prompts(100)), (1, prompts(100_000))] {
        let body = format!(r#"{{"model": "fake", "prompt": {prompt}, "n": {n}, "max_tokens": 1}}"#);
        let answer = client.post_text("/v1/completions", &body);
        assert_eq!(answer.status, 400, "{}", answer.body);
        assert!(answer.error("param").is_string(), "{}", answer.body);
    }
    for _ in 0..50 {
        client.complete(&body("n", &json!(1_000_000_000)));
    }
    let grown = resident(&SERVER).saturating_sub(before);
    assert!(grown < 64 << 10, "{grown} KiB more");
}

#[test]
fn row_09_what_is_refused_costs_the_engine_nothing_and_takes_no_longer_than_an_answer() {
    let server = Server::start(&["fake:"]);
    let client = server.client();
    let median = |n: &Value, status: u16| {
        let times = (0..101).map(|_| {
            let began = Instant::now();
            assert_eq!(client.complete(&body("n", n)).status, status);
            began.elapsed()
        });
        let mut times: Vec<Duration> = times.collect();
        times.sort_unstable();
        times[times.len() / 2]
    };
    let answered = median(&json!(1), 200);
    crate::lifecycle::until_idle(&client);
    let steps = client.metric("millrace_steps_total");
    for huge in [json!(1_000_000_000), json!(u64::MAX)] {
        let refused = median(&huge, 400);
        assert!(refused < answered * 2, "{refused:?}, an answer {answered:?}");
    }
    let prompts = vec!["a"; 100_000];
    assert_eq!(client.complete(&body("prompt", &json!(prompts))).status, 400);
    assert_eq!(client.metric("millrace_steps_total"), steps);
}

#[test]
fn row_10_alternatives_that_a_chat_asks_for_are_bounded() {
    let client = SERVER.client();
    let ask = |fields: &str| {
        let body = format!(
            r#"{{"model": "fake", "messages": [{{"role": "user", "content": "a"}}], "max_tokens": 1, {fields}}}"#
        );
        client.post_text("/v1/chat/completions", &body)
    };
    for value in ["-1", "21", "512", "2147483648", "9223372036854775808", "1.5", "\"5\"", "true"] {
        let answer = ask(&format!(r#""logprobs": true, "top_logprobs": {value}"#));
        assert_refused(&answer, "top_logprobs", value);
    }
    assert_refused(&ask(r#""top_logprobs": 5"#), "top_logprobs", "without logprobs");
    for value in ["-1", "6", "2147483648"] {
        let answer = ask(&format!(r#""prompt_logprobs": {value}"#));
        assert_refused(&answer, "prompt_logprobs", value);
    }
    assert_eq!(ask(r#""logprobs": true, "top_logprobs": 20"#).status, 200);
}

#[test]
fn row_11_a_prompt_that_does_not_fit_is_told_both_numbers() {
    let client = SERVER.client();
    // The fake model's context is 4,096 tokens, and a byte is a token.
    for (prompt, max_tokens) in [("x".repeat(5000), 1), ("x".repeat(4090), 100)] {
        let mut body = body("prompt", &json!(prompt));
        body["max_tokens"] = json!(max_tokens);
        let answer = client.complete(&body);
        assert_refused(&answer, "prompt", "too long");
        assert_eq!(answer.error("code"), "context_length_exceeded");
        let message = answer.error("message").to_string();
        let numbers = ["4096", &prompt.len().to_string(), &max_tokens.to_string()];
        assert!(numbers.iter().all(|n| message.contains(*n)), "{message}");
    }
    for huge in [1_u64 << 32, 1 << 63, u64::MAX] {
        let answer = client.complete(&body("max_tokens", &json!(huge)));
        assert_refused(&answer, "prompt", "more than any context");
        assert_eq!(answer.error("code"), "context_length_exceeded");
    }
    let mut nothing = body("max_tokens", &json!(0));
    nothing["echo"] = json!(true);
    assert_eq!(client.complete(&nothing).text(0), "a", "0 with echo scores the prompt");
    // And is an answer without: OpenAI's own description has 0 as the least.
    let answer = client.complete(&body("max_tokens", &json!(0)));
    assert_eq!(
        (answer.text(0).as_str(), answer.json()["usage"]["completion_tokens"].as_u64()),
        ("", Some(0))
    );
    let mut absent = body("ignore_eos", &json!(true));
    absent["max_tokens"] = Value::Null;
    assert_eq!(client.complete(&absent).json()["usage"]["completion_tokens"], 16);
}

#[test]
fn row_13_a_bias_for_too_many_tokens_is_refused() {
    let server = Server::start(&["fake:vocab=100000"]);
    let client = server.client();
    let entries = |n: usize| {
        let mut out = String::from("{");
        for i in 0..n {
            let _ = write!(out, "{}\"{i}\": 1", if i > 0 { ", " } else { "" });
        }
        out + "}"
    };
    for (count, status) in [(100_000, 400), (1_025, 400), (1_024, 200)] {
        let answer = client.post_text("/v1/completions", &text("logit_bias", &entries(count)));
        assert_eq!(answer.status, status, "{count}: {}", answer.body);
        if status == 400 {
            assert_refused(&answer, "logit_bias", "too many");
        }
    }
}

#[test]
fn row_14_token_ids_outside_the_vocabulary_are_refused() {
    let client = SERVER.client();
    for ids in [
        "[512]",
        "[-1]",
        "[9007199254740993]",
        "[4294967296]",
        "[1.5]",
        "[[1], [512]]",
        "[\"a\", 1]",
    ] {
        let answer = client
            .post_text("/v1/completions", &text("prompt", ids).replace("\"prompt\": \"a\", ", ""));
        assert_refused(&answer, "prompt", ids);
    }
    for ids in [json!([511]), json!([[0], [511]])] {
        assert_eq!(client.complete(&body("prompt", &ids)).status, 200, "{ids}");
    }
}

#[test]
fn row_15_stop_strings_are_bounded() {
    let client = SERVER.client();
    for stop in [
        json!(vec!["a"; 17]),
        json!(vec!["a"; 10_000]),
        json!(""),
        json!(["a", ""]),
        json!("x".repeat(4097)),
        json!("x".repeat(1 << 20)),
        json!([1]),
        json!({}),
    ] {
        let answer = client.complete(&body("stop", &stop));
        let what = stop.to_string();
        assert_refused(&answer, "stop", &what[..what.len().min(40)]);
    }
    for stop in [json!(vec!["ab"; 16]), json!("x".repeat(4096)), json!([]), Value::Null] {
        let answer = client.complete(&body("stop", &stop));
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
}

#[test]
fn row_15_a_stop_string_never_shows_wherever_it_is_cut() {
    let client = SERVER.client();
    let ask = |stop: &Value, stream: bool| {
        let mut body = json!({"model": "fake", "prompt": "stops", "max_tokens": 60, "temperature": 0, "ignore_eos": true});
        body["stop"] = stop.clone();
        body["stream"] = json!(stream);
        body
    };
    let whole = client.complete(&ask(&Value::Null, false)).text(0);
    let letters: Vec<char> = whole.chars().collect();
    for (from, to) in [(3, 4), (5, 9), (10, 25), (20, 22)] {
        let stop: String = letters[from..to].iter().collect();
        let text = client.complete(&ask(&json!(stop), false)).text(0);
        let (chunks, done) = client.stream(&ask(&json!(stop), true)).finish();
        assert!(done && !text.contains(&stop), "{stop:?} in {text:?}");
        assert_eq!(crate::client::streamed_text(&chunks), text, "{stop:?}");
        assert_eq!(whole.split(&stop).next(), Some(&*text));
    }
}

#[test]
fn row_16_bodies_that_are_no_json_are_refused_in_bounded_memory() {
    let client = SERVER.client();
    let before = resident(&SERVER);
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let wrap = |value: &str| text("prompt", value).replace("\"prompt\": \"a\", ", "");
    for body in [
        String::new(),
        "{".to_owned(),
        "[]".to_owned(),
        "null".to_owned(),
        "\"a\"".to_owned(),
        "{} {}".to_owned(),
        wrap(&deep),
        wrap("\"\\ud800\""),
        wrap("\"\\x\""),
        wrap("\"a\u{0}\""),
        r#"{"model": "fake", "prompt": "a", "prompt": "b"}"#.to_owned(),
        r#"{"model": "fake", "model": "fake", "prompt": "b"}"#.to_owned(),
    ] {
        let answer = client.post_text("/v1/completions", &body);
        let shown = &body[..body.len().min(80)];
        assert_eq!(answer.status, 400, "{shown:?}: {}", answer.body);
        let message = answer.error("message").as_str().unwrap().to_owned();
        assert!(message.len() < 500 && message.contains("line"), "{shown:?}: {message}");
    }
    let grown = resident(&SERVER).saturating_sub(before);
    assert!(grown < 64 << 10, "{grown} KiB more");
}

/// The most memory that the server ever had, in KiB.
fn peak(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// 256 MiB of bodies may be in memory at one time, and one of a kind twice while it is parsed.
#[test]
fn row_16_a_crowd_of_long_bodies_takes_little_more_than_the_memory_for_bodies() {
    let server = Server::start(&["fake:"]);
    let client = server.client();
    let before = peak(&server);
    let ignored = text("strange", &format!("\"{}\"", "x".repeat(8_000_000)));
    let ids = text("prompt", &format!("[1{}]", ",1".repeat(4_000_000)));
    let ids = ids.replacen("\"prompt\": \"a\", ", "", 1);
    std::thread::scope(|scope| {
        for i in 0..96 {
            let (client, body) = (&client, if i % 2 == 0 { &ignored } else { &ids });
            scope.spawn(move || {
                let length = body.len();
                let head = format!(
                    "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\
                     Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n",
                    client.key
                );
                let mut socket = client.raw(head.as_bytes()).unwrap();
                // Who is refused at once may be cut before all of it is sent, and then get no answer.
                let _ = std::io::Write::write_all(&mut socket, body.as_bytes());
                let status = read_answer(socket).map_or(429, |answer| answer.status);
                assert!([200, 400, 429].contains(&status), "{status}");
            });
        }
    });
    let grown = peak(&server) - before;
    assert!(grown < 600 << 10, "{grown} KiB more");
    assert_eq!(client.complete(&body("n", &json!(1))).status, 200);
}

/// A POST with these header lines and bytes.
fn post(client: &Client, headers: &str, body: &[u8]) -> Answer {
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n{headers}Content-Length: {}\r\n\r\n",
        client.key,
        body.len()
    );
    let mut socket = client.raw(head.as_bytes()).unwrap();
    // It may be refused before all of it is sent.
    let _ = std::io::Write::write_all(&mut socket, body);
    read_answer(socket).unwrap()
}

#[test]
fn row_16_bytes_types_and_lengths_that_are_refused() {
    let client = SERVER.client();
    let json = "Content-Type: application/json\r\n";
    let good = br#"{"model": "fake", "prompt": "a", "max_tokens": 1}"#;
    assert_eq!(post(&client, json, good).status, 200);
    let bad = [&br#"{"model": "fake", "prompt": "a"#[..], b"\xff\xfe", br#"", "max_tokens": 1}"#]
        .concat();
    assert_eq!(post(&client, json, &bad).status, 400, "not UTF-8");
    for kind in ["", "Content-Type: text/plain\r\n", "Content-Type: multipart/form-data\r\n"] {
        assert_eq!(post(&client, kind, good).status, 415, "{kind}");
    }
    for coding in ["gzip", "br", "deflate", "zstd", "gzip, identity"] {
        let headers = format!("{json}Content-Encoding: {coding}\r\n");
        assert_eq!(post(&client, &headers, good).status, 415, "{coding}");
    }
    let before = resident(&SERVER);
    let answer = post(&client, json, &vec![b' '; 100 << 20]);
    assert_eq!((answer.status, answer.error("code")), (413, "request_too_large".into()));
    let grown = resident(&SERVER).saturating_sub(before);
    assert!(grown < 64 << 10, "{grown} KiB more");
}
