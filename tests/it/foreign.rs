//! Folders of families that candle-transformers computes, from outside: right, one after the other, and nobody is forgotten.

use std::thread;

use serde_json::{Value, json};

use crate::client::{Client, streamed_text};
use crate::folders::{differences, expected, folder, serve};
use crate::hostile_model::refusal;
use crate::lifecycle::{until, until_idle};

const FAMILIES: [&str; 6] = ["phi", "stablelm", "olmo", "glm4", "gpt_bigcode", "lfm2"];
/// Float32 throughout, of another order of sums than transformers; the least mistake costs whole nats.
const TOLERANCE_NATS: f64 = 1e-3;

fn request(family: &str, prompt: &Value, more: &Value) -> Value {
    let mut body = json!({"model": family, "prompt": prompt, "max_tokens": 40, "temperature": 0,
        "ignore_eos": true});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

#[test]
fn each_answers_as_transformers_does_and_says_how_it_runs() {
    for family in FAMILIES {
        let expected = expected(family);
        let server = serve(family, &[]);
        let client = server.client();
        for case in expected["tokenizer"].as_array().unwrap() {
            let body = json!({"model": family, "prompt": case["text"]});
            let answer = client.post("/tokenize", &body);
            assert_eq!(answer.json()["tokens"], case["ids"], "{family}: {}", case["text"]);
        }
        let worst = *differences(&server, &expected).last().unwrap();
        assert!(worst < TOLERANCE_NATS, "{family}: {worst}");
        // What follows the second prompt, token by token.
        let pages = &expected["prompts"][1];
        let greedy = pages["greedy"].as_array().unwrap();
        let more = json!({"max_tokens": greedy.len(), "return_token_ids": true, "logprobs": 1});
        let answer = client.complete(&request(family, &pages["ids"], &more)).json();
        let choice = &answer["choices"][0];
        for (i, step) in greedy.iter().enumerate() {
            assert_eq!(choice["token_ids"][i], step["id"], "{family}: token {i}");
            let got = choice["logprobs"]["token_logprobs"][i].as_f64().unwrap();
            assert!((got - step["logprob"].as_f64().unwrap()).abs() < TOLERANCE_NATS, "{family}");
        }
        let log = server.log();
        let says =
            format!("{family} has no description in Millrace: it runs through candle-transformers");
        assert!(log.contains(&says) && log.contains("candle-transformers/cpu"), "{log}");
        assert!(log.contains("sequences   one at a time"), "{log}");
    }
}

/// What each prompt is answered with when it is alone.
fn alone(client: &Client, family: &str, prompts: &[Value]) -> Vec<String> {
    let text = |prompt| client.complete(&request(family, prompt, &json!({}))).text(0);
    prompts.iter().map(text).collect()
}

fn prompts(family: &str) -> Vec<Value> {
    let prompts = expected(family)["prompts"].as_array().unwrap().clone();
    prompts.into_iter().map(|prompt| prompt["ids"].clone()).collect()
}

#[test]
fn those_who_come_at_once_are_all_answered_as_if_they_were_alone() {
    for family in ["phi", "stablelm", "lfm2"] {
        let server = serve(family, &["--max-num-seqs", "8"]);
        let client = server.client();
        let prompts = prompts(family);
        let wanted = alone(&client, family, &prompts);
        thread::scope(|scope| {
            for (i, (prompt, wanted)) in prompts.iter().zip(&wanted).cycle().take(12).enumerate() {
                let client = &client;
                scope.spawn(move || {
                    if i % 2 == 0 {
                        let answer = client.complete(&request(family, prompt, &json!({})));
                        assert_eq!(&answer.text(0), wanted, "{family} {i}");
                    } else {
                        let body = request(family, prompt, &json!({"stream": true}));
                        let (chunks, done) = client.stream(&body).finish();
                        assert!(done && streamed_text(&chunks) == *wanted, "{family} {i}");
                    }
                });
            }
        });
        // Several of one request, one after the other.
        let answer = client.complete(&request(family, &prompts[0], &json!({"n": 3})));
        assert!((0..3).all(|i| answer.text(i) == wanted[0]), "{family}");
        until_idle(&client);
    }
}

#[test]
fn who_leaves_midway_leaves_nothing_behind() {
    let server = serve("phi", &[]);
    let client = server.client();
    let prompts = prompts("phi");
    let wanted = alone(&client, "phi", &prompts);
    for round in 0..3 {
        let long = json!({"stream": true, "max_tokens": 100});
        let mut stream = client.stream(&request("phi", &prompts[2], &long));
        (0..=round).for_each(|_| drop(stream.first()));
        // It waits for the first one, and has its turn when that one is gone.
        let waits = client.send(&request("phi", &prompts[1], &json!({})));
        stream.reset();
        let answer = crate::client::read_answer(waits).unwrap();
        assert_eq!(answer.text(0), wanted[1], "{round}");
        assert_eq!(client.complete(&request("phi", &prompts[0], &json!({}))).text(0), wanted[0]);
        until_idle(&client);
    }
    until(&client, "vllm:kv_cache_usage_perc", |used| used == 0.0);
    assert!(!server.log().contains("panic"), "{}", server.log());
}

#[test]
fn grammars_and_limits_hold() {
    let server = serve("stablelm", &["--max-model-len", "64"]);
    let client = server.client();
    let choice = json!({"structured_outputs": {"choice": ["the wheel turns", "the race"]},
        "ignore_eos": false});
    let answer = client.complete(&request("stablelm", &json!([1, 2, 3]), &choice)).text(0);
    assert!(["the wheel turns", "the race"].contains(&&answer[..]), "{answer}");
    let too_long: Vec<u32> = (0..65).collect();
    assert_eq!(client.complete(&request("stablelm", &json!(too_long), &json!({}))).status, 400);
    let fills: Vec<u32> = (0..60).collect();
    let answer = client.complete(&request("stablelm", &json!(fills), &json!({"max_tokens": 4})));
    assert_eq!(answer.json()["usage"]["completion_tokens"], 4, "{}", answer.body);
}

#[test]
fn options_that_cannot_be_met_are_refused_by_name() {
    let path = folder("phi");
    let home = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(&path, home.path().join("phi")).unwrap();
    let refuse = |args: &[&str], says: &str| {
        let output = crate::support::millrace(home.path())
            .args(["serve", "phi", "--port", "0"])
            .args(args)
            .env("MILLRACE_API_KEY", crate::support::KEY)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(says), "{said}");
    };
    refuse(&["--quantize", "q8_0"], "--quantize: phi runs through candle-transformers");
    refuse(&["--max-model-len", "1000"], "--max-model-len 1000 is above the 256 tokens");
    refuse(&["--kv-cache-memory", "1KiB"], "--kv-cache-memory of 1024 bytes holds no block");
    refuse(
        &["--kv-cache-memory", "64KiB", "--max-model-len", "200"],
        "--max-model-len 200 needs more than --kv-cache-memory",
    );
}

/// Copies of a family's folder with one change to its configuration.
#[test]
fn row_31_configurations_of_foreign_families_that_would_be_computed_wrongly() {
    for (family, key, value, says) in [
        ("phi", "qk_layernorm", json!(true), "qk_layernorm true is not supported here, only false"),
        ("phi", "num_hidden_layers", json!(1_000_000_000), "num_hidden_layers is not in 1..="),
        ("phi", "num_hidden_layers", json!(3), "tensor model.layers.2."),
        ("phi", "num_hidden_layers", json!(1), "has no use in this architecture"),
        ("phi", "intermediate_size", json!(1_u64 << 60), "the configuration says"),
        ("phi", "num_attention_heads", json!(0), "num_attention_heads is not in 1..="),
        ("phi", "rope_theta", json!(null), "config.json: "),
        (
            "olmo",
            "rope_scaling",
            json!({"rope_type": "yarn"}),
            "rope_type yarn is not supported here",
        ),
        ("glm4", "partial_rotary_factor", json!(0.1), "3 turned elements of 32"),
        ("lfm2", "layer_types", json!(["conv"]), "layer_types is not one for each layer"),
        ("lfm2", "conv_L_cache", json!(5), "the configuration says"),
        ("gpt_bigcode", "n_positions", json!(1 << 20), "n_positions is above 16384"),
        ("gpt_bigcode", "model_type", json!("falcon"), "\"falcon\" is not supported (supported: "),
        ("stablelm", "quantization_config", json!({"quant_method": "awq"}), "quantised (awq)"),
    ] {
        let home = tempfile::tempdir().unwrap();
        let copy = home.path().join("hostile");
        std::fs::create_dir(&copy).unwrap();
        for file in std::fs::read_dir(folder(family)).unwrap() {
            let file = file.unwrap().path();
            std::fs::copy(&file, copy.join(file.file_name().unwrap())).unwrap();
        }
        let config = copy.join("config.json");
        let mut values: Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
        values[key] = value;
        std::fs::write(config, values.to_string()).unwrap();
        let line = refusal(home.path(), "hostile", says);
        assert!(line.contains(says), "{family} {key}: {line}");
    }
}
