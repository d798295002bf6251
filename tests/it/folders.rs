//! Models in folders, from outside: the small ones of `tests/models`, which says what transformers makes of each.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::Server;

/// One with shards, one whose tokenizer is `SentencePiece`'s, one that rotates nothing, two with experts.
const FAMILIES: [&str; 7] = ["qwen2", "llama", "llama3", "gemma3", "gpt2", "mixtral", "gpt_oss"];
/// Our KV cache is f16 here; weights are floats (`--quantize none`). The order of the prompt costs 2 nats or more.
const TOLERANCE_NATS: f64 = 0.02;
/// Eight bits of weights and activations, of models whose weights are random: the usual difference, not the worst.
const QUANTIZED_NATS: f64 = 0.2;

pub(crate) fn folder(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models").join(family)
}

pub(crate) fn expected(family: &str) -> Value {
    serde_json::from_slice(&fs::read(folder(family).join("expected.json")).unwrap()).unwrap()
}

pub(crate) fn serve(family: &str, options: &[&str]) -> Server {
    let path = folder(family);
    let args = [&[path.to_str().unwrap(), "--kv-cache-memory", "64MiB"][..], options].concat();
    Server::start(&args)
}

/// How far each token's log-probability is from that of transformers, ascending.
pub(crate) fn differences(server: &Server, expected: &Value) -> Vec<f64> {
    let mut all = Vec::new();
    for prompt in expected["prompts"].as_array().unwrap() {
        let body = json!({"model": expected["model"], "prompt": prompt["ids"], "max_tokens": 0,
            "echo": true, "logprobs": 0});
        let answer = server.client().complete(&body);
        assert_eq!(answer.status, 200, "{}", answer.json());
        let got = answer.json()["choices"][0]["logprobs"]["token_logprobs"].clone();
        let got = &got.as_array().unwrap()[1..];
        let wanted = prompt["next_logprobs"].as_array().unwrap();
        assert_eq!(got.len(), wanted.len());
        let number = |value: &Value| value.as_f64().unwrap();
        all.extend(got.iter().zip(wanted).map(|(a, b)| (number(a) - number(b)).abs()));
    }
    all.sort_by(f64::total_cmp);
    all
}

#[test]
fn a_folder_answers_as_transformers_does() {
    for family in FAMILIES {
        let expected = expected(family);
        let server = serve(family, &["--quantize", "none"]);
        let client = server.client();
        for case in expected["tokenizer"].as_array().unwrap() {
            let answer =
                client.post("/tokenize", &json!({"model": family, "prompt": case["text"]}));
            assert_eq!(answer.json()["tokens"], case["ids"], "{family}: {}", case["text"]);
        }
        let worst = *differences(&server, &expected).last().unwrap();
        assert!(worst < TOLERANCE_NATS, "{family}: {worst}");
        assert_eq!(client.get("/v1/models").json()["data"][0]["id"], family);
    }
}

#[test]
fn a_folder_is_quantised_to_eight_bits_unless_told_otherwise() {
    let server = serve("llama3", &[]);
    let differences = differences(&server, &expected("llama3"));
    let median = differences[differences.len() / 2];
    assert!((1e-4..QUANTIZED_NATS).contains(&median), "{median}");
    assert!(server.log().contains("Q8_0"), "{}", server.log());
}

#[test]
fn what_the_folder_says_of_ends_and_of_sampling_holds() {
    let server = serve("llama3", &["--quantize", "none"]);
    let client = server.client();
    let answer = |more: Value| {
        let prompt = [284, 51, 256];
        let mut body = json!({"model": "llama3", "prompt": prompt, "max_tokens": 40, "seed": 7});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        client.complete(&body).json()["choices"][0].clone()
    };
    // `generation_config.json`: a temperature of 0.6, the likeliest 0.9, and two tokens that end.
    let plain = answer(json!({}));
    assert_eq!(plain, answer(json!({"temperature": 0.6, "top_p": 0.9})));
    assert_ne!(plain, answer(json!({"temperature": 1.0, "top_p": 1.0})));
    for end in ["285", "286"] {
        let choice = answer(json!({"logit_bias": {end: 100}}));
        assert_eq!(choice["finish_reason"], "stop", "{end}");
    }
    assert_eq!(answer(json!({"logit_bias": {"60": 100}}))["finish_reason"], "length");
}
