//! The default model over real sockets: what it says, alone and in a crowd.

use std::sync::OnceLock;
use std::thread;

use serde_json::{Value, json};

use crate::client::{Client, streamed_text};
use crate::support::{Server, test_model};

/// The reference leads by this much where a quantised forward pass must agree on the top token (nats).
const CLEAR_LEAD: f64 = 0.5;

/// One server for this file: loading takes longer than most of its tests.
fn client() -> Client {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER
        .get_or_init(|| {
            let model = test_model("SmolLM2-135M-Instruct.Q4_1.gguf");
            Server::start(&[model.to_str().unwrap(), "--max-num-seqs", "16"])
        })
        .client()
}

fn golden() -> Value {
    let text = include_str!("../golden/smollm2-135m-instruct.logprobs.json");
    serde_json::from_str(text).unwrap()
}

#[test]
fn greedy_answers_follow_the_float32_reference() {
    let client = client();
    let mut compared = 0;
    for case in golden()["prompts"].as_array().unwrap() {
        let greedy = case["greedy"].as_array().unwrap();
        let answer = client.complete(&json!({
            "model": "davinci-002", "prompt": case["prompt"], "max_tokens": greedy.len(), "temperature": 0,
            "logprobs": 0, "return_tokens_as_token_ids": true,
        }));
        assert_eq!(answer.status, 200, "{}", answer.body);
        let tokens = answer.json()["choices"][0]["logprobs"]["tokens"].clone();
        for (step, token) in greedy.iter().zip(tokens.as_array().unwrap()) {
            let top = step["top"].as_array().unwrap();
            let lead = top[0][1].as_f64().unwrap() - top[1][1].as_f64().unwrap();
            if lead < CLEAR_LEAD && *token != json!(format!("token_id:{}", step["id"])) {
                break; // a near tie went the other way: from here on it is another text
            }
            assert_eq!(*token, json!(format!("token_id:{}", step["id"])), "{}", case["prompt"]);
            compared += 1;
        }
    }
    assert!(compared > 100, "only {compared} tokens could be compared");
}

#[test]
fn the_tutorials_call_gets_its_story() {
    let body = json!({"prompt": "Tell me a story about a robot.", "max_tokens": 150, "n": 1, "stop": null, "temperature": 0.5});
    let answer = client().post("/v1/engines/text-davinci-002/completions", &body);
    assert!(answer.text(0).trim().len() > 100, "{}", answer.body);
    assert!(answer.header("openai-processing-ms").is_some());
}

/// Sixteen different requests, some greedy, some sampled with a seed, some with log-probabilities.
fn crowd() -> Vec<Value> {
    (0..16u32)
        .map(|i| {
            json!({
                "model": "davinci-002", "prompt": format!("{}Number {i} is", "Count on. ".repeat(i as usize * 3)),
                "max_tokens": 24, "seed": i, "temperature": f64::from(i % 3) / 2.0, "top_p": 0.9,
                "logprobs": i % 4, "echo": i % 5 == 0,
            })
        })
        .collect()
}

#[test]
fn sixteen_at_once_have_the_same_bits_as_each_alone() {
    let client = client();
    let choices = |body: &Value| client.complete(body).json()["choices"].clone();
    let alone: Vec<Value> = crowd().iter().map(choices).collect();
    let together: Vec<Value> = thread::scope(|scope| {
        let threads: Vec<_> =
            crowd().into_iter().map(|b| scope.spawn(move || choices(&b))).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert!(alone.iter().all(|a| a[0]["text"].as_str().is_some_and(|t| !t.is_empty())));
    assert_eq!(alone, together);
}

#[test]
fn a_stop_string_across_tokens_never_shows() {
    let client = client();
    let base = json!({"model": "davinci-002", "prompt": "The capital of France is", "max_tokens": 24, "temperature": 0});
    let whole = client.complete(&base).text(0);
    // Every place where five characters of the answer could be a stop string, token borders or not.
    let starts: Vec<usize> =
        whole.char_indices().map(|(i, _)| i).skip(3).step_by(5).take(8).collect();
    for start in starts {
        let stop: String = whole[start..].chars().take(5).collect();
        let cut = whole.find(&stop).unwrap();
        let mut body = base.clone();
        body["stop"] = json!([stop]);
        let answer = client.complete(&body);
        assert_eq!(answer.text(0), whole[..cut], "stop {stop:?}");
        assert_eq!(answer.json()["choices"][0]["finish_reason"], "stop");
        body["stream"] = json!(true);
        let (chunks, done) = client.stream(&body).finish();
        assert!(done);
        assert_eq!(streamed_text(&chunks), whole[..cut], "streamed, stop {stop:?}");
    }
}

#[test]
fn streamed_log_probabilities_are_those_of_the_whole_answer() {
    let client = client();
    let mut body = json!({
        "model": "davinci-002", "prompt": "Unicode: żółć 你好 😀 means", "max_tokens": 32, "temperature": 0.8, "seed": 3,
        "logprobs": 2, "echo": true,
    });
    let whole = client.complete(&body).json()["choices"][0].clone();
    body["stream"] = json!(true);
    let stream = client.stream(&body);
    assert_eq!(stream.header("content-type"), Some("text/event-stream; charset=utf-8"));
    // Else a proxy in front would hold the stream back.
    assert_eq!(stream.header("x-accel-buffering"), Some("no"));
    assert_eq!(stream.header("cache-control"), Some("no-cache"));
    let (chunks, _) = stream.finish();
    assert_eq!(streamed_text(&chunks), whole["text"].as_str().unwrap());
    for field in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
        let joined: Vec<Value> = chunks
            .iter()
            .filter_map(|c| c["choices"][0]["logprobs"][field].as_array().cloned())
            .flatten()
            .collect();
        assert_eq!(json!(joined), whole["logprobs"][field], "{field}");
    }
}

#[test]
fn choice_zero_of_four_is_the_answer_of_one() {
    let client = client();
    let mut body =
        json!({"model": "davinci-002", "prompt": "Once upon a time", "max_tokens": 12, "seed": 11});
    let one = client.complete(&body).text(0);
    body["n"] = json!(4);
    let four = client.complete(&body);
    let texts: Vec<String> = (0..4).map(|i| four.text(i)).collect();
    assert_eq!(texts[0], one);
    assert!(texts[1..].iter().any(|t| *t != one), "all four are the same: {texts:?}");
    assert_eq!(four.json()["usage"]["prompt_tokens"], 4);
}

#[test]
#[cfg(target_os = "linux")]
fn memory_is_the_file_the_cache_and_little_more() {
    const MIB: u64 = 1 << 20;
    let peak_bytes = |pid: u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    };
    let model = test_model("SmolLM2-135M-Instruct.Q4_1.gguf");
    let file = std::fs::metadata(&model).unwrap().len();
    let server = Server::start(&[
        model.to_str().unwrap(),
        "--max-num-seqs",
        "16",
        "--kv-cache-memory",
        "64MiB",
    ]);
    let client = server.client();
    thread::scope(|scope| {
        for body in crowd() {
            let client = &client;
            scope.spawn(move || client.complete(&body).text(0));
        }
    });
    let peak = peak_bytes(server.pid());
    assert!(peak > file, "{} MiB are less than the file", peak / MIB);
    assert!(peak < file + (64 + 100) * MIB, "{} MiB", peak / MIB);
}
