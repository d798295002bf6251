//! The prefix cache over the real model: whose prefixes are found, and that nobody can tell by the bits.

use std::thread;

use serde_json::{Value, json};

use crate::client::Client;
use crate::lifecycle::{call, until};
use crate::support::{KEY, Server, millrace, smollm2};

/// Some 150 tokens, then `end`.
fn prompt(end: &str) -> String {
    let line = "The mill grinds slowly when the river is low, and the miller waits for rain. ";
    format!("{}{end}", line.repeat(9))
}

fn body(end: &str, temperature: f64) -> Value {
    json!({
        "model": "davinci-002", "prompt": prompt(end), "max_tokens": 24, "temperature": temperature, "seed": 5,
        "logprobs": 3,
    })
}

fn cached(answer: &Value) -> u64 {
    answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap()
}

fn ask(client: &Client, body: &Value) -> Value {
    let answer = client.complete(body);
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()
}

#[test]
fn row_28_what_was_computed_is_found_by_its_own_key_and_changes_no_bit() {
    let model = smollm2();
    let plain = Server::start(&[&model, "--no-prefix-caching"]);
    let caching = Server::spawn_with(&[&model, "--api-key-file", "k.toml"], |command| {
        let home = command.get_current_dir().unwrap();
        let add = ["keys", "add", "a", "--file", "k.toml"];
        let out = millrace(home).args(add).output().unwrap();
        std::fs::write(home.join("key"), out.stdout).unwrap();
        command.env("MILLRACE_API_KEY", KEY);
    });
    caching.wait_ready();
    let (mine, without) = (caching.client(), plain.client());
    assert_eq!(cached(&ask(&mine, &body("Then", 0.0))), 0);
    for (end, temperature) in [("Then", 0.0), ("The next day", 0.0), ("His daughter", 0.9)] {
        let body = body(end, temperature);
        let (with, expected) = (ask(&mine, &body), ask(&without, &body));
        assert!(cached(&with) >= 96, "{}", with["usage"]);
        assert_eq!(cached(&expected), 0);
        assert_eq!(with["choices"], expected["choices"]);
    }
    // What is scored is computed, not read.
    let mut scored = body("Then", 0.0);
    scored["echo"] = json!(true);
    let (with, expected) = (ask(&mine, &scored), ask(&without, &scored));
    assert_eq!(cached(&with), 0);
    assert_eq!(with["choices"], expected["choices"]);

    let other = std::fs::read_to_string(caching.home.path().join("key")).unwrap();
    let other = caching.client_with(other.trim());
    assert_eq!(cached(&ask(&other, &body("Then", 0.0))), 0, "another key's prefix");
    assert!(cached(&ask(&other, &body("Then", 0.0))) > 0);
    let mut salted = body("Then", 0.0);
    salted["cache_salt"] = json!("apart");
    assert_eq!(cached(&ask(&mine, &salted)), 0);
    assert!(cached(&ask(&mine, &salted)) > 0);
    let (hits, queries) = ("vllm:prefix_cache_hits_total", "vllm:prefix_cache_queries_total");
    assert!(mine.metric(hits) > 0.0 && mine.metric(queries) > mine.metric(hits));
    assert_eq!(without.metric(queries), 0.0);
}

#[test]
fn what_arrives_together_is_computed_once_with_the_same_bits() {
    let model = smollm2();
    let (plain, caching) =
        (Server::start(&[&model, "--no-prefix-caching"]), Server::start(&[&model]));
    let bodies: Vec<Value> = (0..6).map(|i| body(&format!("Number {i}"), 0.0)).collect();
    let crowd = |client: &Client| -> Vec<Value> {
        thread::scope(|scope| {
            let ask = |body| scope.spawn(move || ask(client, body));
            let threads: Vec<_> = bodies.iter().map(ask).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        })
    };
    let (with, expected) = (crowd(&caching.client()), crowd(&plain.client()));
    for (with, expected) in with.iter().zip(&expected) {
        assert_eq!(with["choices"], expected["choices"]);
    }
    let found = with.iter().filter(|answer| cached(answer) >= 96).count();
    assert_eq!(found, 5, "all but the first");
}

#[test]
fn who_is_prior_does_not_wait_behind_those_that_it_comes_before() {
    let server = Server::start(&["fake:step_ms=3", "--max-num-batched-tokens", "64"]);
    let client = server.client();
    // Shorter prompts than that of the one that computes the prefix: they are read before it.
    let others = (0..4).map(|i| call(&format!("{i}{}", "x".repeat(2000)), 1));
    let _others: Vec<_> = others.map(|body| client.send(&body)).collect();
    let _low = client.send(&call(&"y".repeat(2500), 1));
    until(&client, "vllm:num_requests_running", |running| running == 5.0);
    let mut prior = call(&format!("{} and its end", "y".repeat(2400)), 1);
    prior["priority"] = json!(-100);
    assert!(cached(&ask(&client, &prior)) > 2000, "it found what the other computed");
    let running = client.metric("vllm:num_requests_running");
    assert!(running >= 2.0, "{running} still run: it waited for them");
}
