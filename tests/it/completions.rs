//! The fields of completions with real vocabularies: filling in the middle, and the scores that
//! evaluation harnesses sum up.

use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::client::{Answer, Client, streamed_text};
use crate::support::{Server, test_model};

/// One server for this file: a model of code, whose file names its tokens for gaps by text only.
fn client() -> Client {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER
        .get_or_init(|| {
            let model = test_model("qwen2.5-coder-0.5b-instruct-Q4_K_M.gguf");
            Server::start(&[
                model.to_str().unwrap(),
                "--max-num-seqs",
                "16",
                "--max-logprobs",
                "20",
            ])
        })
        .client()
}

fn complete(mut body: Value) -> Answer {
    body["model"] = "davinci-002".into();
    let answer = client().complete(&body);
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer
}

fn choice(answer: &Answer) -> Value {
    answer.json()["choices"][0].clone()
}

#[test]
fn a_gap_in_code_is_filled() {
    let body = json!({
        "prompt": "def add(a, b):\n    return ", "suffix": "\n\nassert add(1, 2) == 3\n",
        "max_tokens": 32, "temperature": 0, "stop": "\n",
    });
    let answer = complete(body.clone());
    assert_eq!(
        (answer.text(0), &choice(&answer)["finish_reason"]),
        ("a + b".into(), &json!("stop"))
    );
    let mut streamed = body;
    streamed["model"] = "davinci-002".into();
    streamed["stream"] = true.into();
    let (chunks, done) = client().stream(&streamed).finish();
    assert!(done);
    assert_eq!(streamed_text(&chunks), answer.text(0));
}

#[test]
fn a_gap_is_made_of_the_models_own_tokens() {
    let tokens = |text: &str| {
        let body = json!({"prompt": text, "add_special_tokens": false});
        client().post("/tokenize", &body).json()["tokens"].clone()
    };
    let body = json!({"prompt": "x = ", "suffix": "\n", "max_tokens": 1, "return_token_ids": true});
    let written = tokens("<|fim_prefix|>x = <|fim_suffix|>\n<|fim_middle|>");
    assert_eq!(choice(&complete(body))["prompt_token_ids"], written);
}

#[test]
fn scores_of_a_prompt_are_the_same_bits_by_either_field() {
    let prompt = "The capital of France is Paris, and żółć 你好 \u{1f600} too.";
    let answer = complete(json!({
        "prompt": prompt, "max_tokens": 1, "temperature": 0, "echo": true, "logprobs": 3,
        "prompt_logprobs": 7, "return_token_ids": true,
    }));
    let choice = choice(&answer);
    let (ids, scores) = (&choice["prompt_token_ids"], &choice["prompt_logprobs"]);
    let ids: Vec<String> = ids.as_array().unwrap().iter().map(Value::to_string).collect();
    let own = &choice["logprobs"]["token_logprobs"];
    assert_eq!((&own[0], &scores[0]), (&Value::Null, &Value::Null));
    for (at, id) in ids.iter().enumerate().skip(1) {
        let score = scores[at].as_object().unwrap();
        assert_eq!(score[id]["logprob"], own[at], "position {at}");
        let rank = score[id]["rank"].as_u64().unwrap();
        assert_eq!(score.len(), if rank > 7 { 8 } else { 7 });
        // The others fill the ranks from one on.
        let mut ranks: Vec<u64> = score.values().map(|e| e["rank"].as_u64().unwrap()).collect();
        ranks.sort_unstable();
        assert_eq!(ranks[..7], [1, 2, 3, 4, 5, 6, 7]);
        let top = choice["logprobs"]["top_logprobs"][at].as_object().unwrap();
        assert_eq!(top.len(), if rank > 3 { 4 } else { 3 });
        for entry in score.values().filter(|e| e["rank"].as_u64() <= Some(3)) {
            let label = entry["decoded_token"].as_str().unwrap();
            assert_eq!(top[label], entry["logprob"], "{label}");
        }
    }
}

/// What lm-evaluation-harness sends for log-likelihoods, and how it reads the answer.
#[test]
fn log_likelihoods_can_be_summed_as_harnesses_do() {
    let tokens = |text: &str| {
        let body = json!({"prompt": text, "add_special_tokens": false});
        let answer = client().post("/tokenize", &body).json();
        answer["tokens"].as_array().unwrap().clone()
    };
    let context = tokens("Question: What is the capital of France?\nAnswer:");
    let continuations = [" Paris", " Berlin", " banana"].map(tokens);
    let prompts: Vec<Vec<Value>> =
        continuations.iter().map(|c| [&context[..], c].concat()).collect();
    let body = json!({"prompt": prompts, "temperature": 0, "max_tokens": 1, "logprobs": 1,
        "seed": 1234, "echo": true});
    let answer = complete(body).json();
    let mut likelihoods = Vec::new();
    for (index, choice) in answer["choices"].as_array().unwrap().iter().enumerate() {
        assert_eq!(choice["index"], index);
        let logprobs = &choice["logprobs"];
        let own = logprobs["token_logprobs"].as_array().unwrap();
        assert_eq!(own.len(), prompts[index].len() + 1, "each token sent, and one generated");
        let range = context.len()..own.len() - 1;
        let sum: f64 = own[range.clone()].iter().map(|l| l.as_f64().unwrap()).sum();
        let is_greedy = range.clone().all(|at| {
            let top = logprobs["top_logprobs"][at].as_object().unwrap();
            let best = top.values().filter_map(Value::as_f64).fold(f64::NEG_INFINITY, f64::max);
            own[at].as_f64() == Some(best)
        });
        likelihoods.push((sum, is_greedy));
        // By the other field, without an echo.
        let direct =
            complete(json!({"prompt": prompts[index], "max_tokens": 0, "prompt_logprobs": 0}));
        let scores = &direct.json()["choices"][0]["prompt_logprobs"];
        let direct: f64 = range
            .map(|at| scores[at][prompts[index][at].to_string()]["logprob"].as_f64().unwrap())
            .sum();
        assert_eq!(sum.to_bits(), direct.to_bits());
    }
    assert!(likelihoods[0].0 > likelihoods[1].0 && likelihoods[1].0 > likelihoods[2].0);
    assert_eq!(likelihoods.iter().map(|l| l.1).collect::<Vec<_>>(), [true, false, false]);
}

#[test]
fn the_best_of_four_is_the_most_probable_of_four() {
    let mut body = json!({"prompt": "Once upon a time", "n": 4, "max_tokens": 12, "seed": 5,
        "logprobs": 0});
    let all = complete(body.clone()).json();
    let mean = |choice: &Value| {
        let own = choice["logprobs"]["token_logprobs"].as_array().unwrap();
        own.iter().map(|l| l.as_f64().unwrap()).sum::<f64>() / own.len() as f64
    };
    let choices = all["choices"].as_array().unwrap();
    let best = choices.iter().max_by(|a, b| mean(a).total_cmp(&mean(b))).unwrap();
    body["n"] = 1.into();
    body["best_of"] = 4.into();
    let one = complete(body).json();
    assert_eq!(one["choices"][0]["text"], best["text"]);
    assert_eq!(one["choices"][0]["logprobs"], best["logprobs"]);
    assert_eq!(one["usage"]["completion_tokens"], all["usage"]["completion_tokens"]);
}

#[test]
fn a_model_of_prose_has_no_gaps_to_fill() {
    let model = test_model("SmolLM2-135M-Instruct.Q4_1.gguf");
    let server = Server::start(&[model.to_str().unwrap()]);
    let body = json!({"model": "davinci-002", "prompt": "a", "suffix": "b"});
    let answer = server.client().complete(&body);
    assert_eq!((answer.status, answer.error("param")), (400, json!("suffix")));
    assert!(answer.body.contains("filling in the middle"), "{}", answer.body);
    // Its bound on alternatives is the default's.
    let body = json!({"model": "davinci-002", "prompt": "a", "logprobs": 6});
    assert_eq!(server.client().complete(&body).error("param"), "logprobs");
}
