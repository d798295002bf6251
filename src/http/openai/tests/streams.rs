//! Whatever a request asks for: the parts of a stream make the whole answer, and the answer agrees
//! with itself.

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::Map;
use tokio::runtime::Runtime;

use super::*;

/// Keys of the four arrays of log-probabilities.
const ARRAYS: [&str; 4] = ["tokens", "token_logprobs", "top_logprobs", "text_offset"];

fn rig(options: &str) -> (Runtime, Rig) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let rig = runtime.block_on(async { Rig::new(options) });
    (runtime, rig)
}

fn prompts() -> impl Strategy<Value = (Value, usize)> {
    let id = 3..VOCAB as u32;
    let ids = prop::collection::vec(id, 1..6);
    let text = "[ab é😀]{1,6}";
    prop_oneof![
        text.prop_map(|t| (t.into(), 1)),
        ids.clone().prop_map(|ids| (ids.into(), 1)),
        prop::collection::vec(text, 1..4).prop_map(|texts| (texts.clone().into(), texts.len())),
        prop::collection::vec(ids, 1..4).prop_map(|lists| (lists.clone().into(), lists.len())),
    ]
}

/// Each of some fields, or not.
fn extras() -> impl Strategy<Value = Map<String, Value>> {
    let values: Vec<(&str, Vec<Value>)> = vec![
        ("max_tokens", vec![json!(0), json!(1), json!(7), json!(12)]),
        ("stop", vec![json!("a"), json!(["b", "é", "the"]), json!(["\u{1f600}", "END", "e", " "])]),
        ("echo", vec![json!(true)]),
        ("logprobs", vec![json!(0), json!(2), json!(5)]),
        ("prompt_logprobs", vec![json!(0), json!(3)]),
        ("include_stop_str_in_output", vec![json!(true)]),
        ("skip_special_tokens", vec![json!(false)]),
        ("return_token_ids", vec![json!(true)]),
        ("return_tokens_as_token_ids", vec![json!(true)]),
        ("stop_token_ids", vec![json!((40..90).collect::<Vec<u32>>())]),
        ("min_tokens", vec![json!(1), json!(5)]),
        ("ignore_eos", vec![json!(true)]),
        ("temperature", vec![json!(0), json!(0.7)]),
        ("top_p", vec![json!(0), json!(0.5)]),
        ("repetition_penalty", vec![json!(1.5)]),
        ("truncate_prompt_tokens", vec![json!(1), json!(2), json!(-1)]),
        (
            "structured_outputs",
            vec![
                json!({"regex": "(ab|c)*[de]{2}"}),
                json!({"choice": ["a", "be\u{e9}", "bed"]}),
                json!({"json": {"type": "object", "properties": {"a": {"type": "integer"}},
                    "required": ["a"], "additionalProperties": false}}),
            ],
        ),
    ];
    let chance = |(name, values): (&'static str, Vec<Value>)| {
        prop::option::of(prop::sample::select(values)).prop_map(move |v| v.map(|v| (name, v)))
    };
    values.into_iter().map(chance).collect::<Vec<_>>().prop_map(|fields| {
        fields.into_iter().flatten().map(|(name, value)| (name.to_owned(), value)).collect()
    })
}

/// A request, and how many choices its answer has.
fn requests() -> impl Strategy<Value = (Value, usize)> {
    (prompts(), extras(), 1usize..4, any::<u32>()).prop_map(
        |((prompt, prompts), mut fields, n, seed)| {
            let most = fields.get("max_tokens").and_then(Value::as_u64).unwrap_or(16);
            if fields.get("min_tokens").and_then(Value::as_u64).is_some_and(|min| min > most) {
                fields.remove("min_tokens");
            }
            let mut body = Value::Object(fields);
            body["model"] = "fake".into();
            body["prompt"] = prompt;
            body["n"] = n.into();
            body["seed"] = seed.into();
            (body, prompts * n)
        },
    )
}

/// What the chunks of a stream come to, choice by choice, and its usage.
fn joined(events: &[Value], choices: usize, continuous: bool) -> (Vec<Value>, Value) {
    let mut whole: Vec<Value> =
        (0..choices).map(|index| json!({"text": "", "index": index})).collect();
    let (last, chunks) = events.split_last().unwrap();
    assert_eq!(last["choices"], json!([]));
    let mut completion_tokens = 0;
    for chunk in chunks {
        assert_eq!((&chunk["id"], &chunk["object"]), (&last["id"], &"text_completion".into()));
        if continuous {
            let usage = &chunk["usage"];
            assert_eq!(usage["prompt_tokens"], last["usage"]["prompt_tokens"]);
            let so_far = usage["completion_tokens"].as_u64().unwrap();
            assert!(so_far >= completion_tokens, "{chunk}");
            completion_tokens = so_far;
        } else {
            assert_eq!(chunk["usage"], Value::Null);
        }
        let [part] = &chunk["choices"].as_array().unwrap()[..] else { panic!("{chunk}") };
        add(&mut whole[part["index"].as_u64().unwrap() as usize], part);
    }
    if continuous {
        assert_eq!(last["usage"]["completion_tokens"], completion_tokens);
    }
    (whole, last["usage"].clone())
}

/// Adds one chunk's choice to what came before it.
fn add(whole: &mut Value, part: &Value) {
    assert!(whole["finish_reason"].is_null(), "nothing comes after the end of a choice");
    let says_something = part["text"] != ""
        || !part["finish_reason"].is_null()
        || ["logprobs", "token_ids", "prompt_logprobs", "prompt_token_ids"]
            .iter()
            .any(|field| part.get(field).is_some_and(|v| !v.is_null()));
    assert!(says_something, "an empty chunk: {part}");
    let text = whole["text"].as_str().unwrap().to_owned() + part["text"].as_str().unwrap();
    whole["text"] = text.into();
    whole["finish_reason"] = part["finish_reason"].clone();
    extend(whole, part, "token_ids");
    extend(whole, part, "prompt_logprobs");
    if let Some(ids) = part.get("prompt_token_ids") {
        assert!(whole.get("prompt_token_ids").is_none(), "told twice");
        whole["prompt_token_ids"] = ids.clone();
    }
    if !part["logprobs"].is_null() {
        let mut arrays = whole["logprobs"].take();
        for name in ARRAYS {
            extend(&mut arrays, &part["logprobs"], name);
        }
        whole["logprobs"] = arrays;
    }
}

fn extend(whole: &mut Value, part: &Value, field: &str) {
    let Some(more) = part.get(field).and_then(Value::as_array) else { return };
    let mut all = whole[field].as_array().cloned().unwrap_or_default();
    all.extend(more.iter().cloned());
    whole[field] = all.into();
}

/// What a choice says of itself in several ways agrees. Returns the tokens that it generated, where it
/// tells.
fn agrees_with_itself(choice: &Value, request: &Value) -> Option<usize> {
    let len = |v: &Value| v.as_array().unwrap().len();
    let ids = choice.get("token_ids");
    let prompt = choice.get("prompt_token_ids");
    let scores = choice.get("prompt_logprobs");
    if let (Some(prompt), Some(scores)) = (prompt, scores) {
        assert_eq!(len(prompt), len(scores));
        for (id, score) in prompt.as_array().unwrap().iter().zip(scores.as_array().unwrap()).skip(1)
        {
            let entries = score.as_object().unwrap();
            let own = &entries[&id.to_string()];
            let rank = own["rank"].as_u64().unwrap();
            let k = request["prompt_logprobs"].as_u64().unwrap();
            assert_eq!(entries.len() as u64, k + u64::from(rank > k), "{score}");
            let best = |e: &&Value| e["rank"].as_u64().unwrap() < rank;
            assert!(
                entries
                    .values()
                    .filter(best)
                    .all(|e| e["logprob"].as_f64() >= own["logprob"].as_f64())
            );
        }
    }
    let arrays = &choice["logprobs"];
    let echoed = request.get("echo").is_some();
    if !arrays.is_null() {
        let tokens = len(&arrays["tokens"]);
        assert!(ARRAYS.iter().all(|name| len(&arrays[name]) == tokens), "{arrays}");
        let from_prompt = if echoed { prompt.map(len) } else { Some(0) };
        if let (Some(ids), Some(from_prompt)) = (ids, from_prompt) {
            assert_eq!(tokens, from_prompt + len(ids));
        }
        for at in 0..tokens {
            let label = arrays["tokens"][at].as_str().unwrap();
            let own = &arrays["token_logprobs"][at];
            assert_eq!(arrays["top_logprobs"][at].get(label).unwrap_or(&Value::Null), own);
        }
        assert!(arrays["text_offset"].as_array().unwrap().is_sorted_by_key(Value::as_u64));
        if let (Some(scores), true) = (scores, echoed) {
            for (at, score) in scores.as_array().unwrap().iter().enumerate().skip(1) {
                let own = &arrays["token_logprobs"][at];
                assert!(score.as_object().unwrap().values().any(|e| e["logprob"] == *own));
            }
        }
    }
    ids.map(len)
}

async fn parts_make_the_whole(rig: &Rig, body: &Value, choices: usize) {
    let answer = rig.complete(body.clone()).await;
    assert_eq!(answer["choices"].as_array().unwrap().len(), choices);
    let generated: Option<usize> =
        answer["choices"].as_array().unwrap().iter().map(|c| agrees_with_itself(c, body)).sum();
    if let Some(generated) = generated {
        assert_eq!(answer["usage"]["completion_tokens"], generated);
    }
    for continuous in [false, true] {
        let mut streamed = body.clone();
        streamed["stream"] = true.into();
        streamed["stream_options"] =
            json!({"include_usage": true, "continuous_usage_stats": continuous});
        let response = rig.send(Method::POST, "/v1/completions", &streamed.to_string()).await;
        let (mut whole, mut usage) = joined(&events_of(response).await, choices, continuous);
        for (choice, expected) in whole.iter_mut().zip(answer["choices"].as_array().unwrap()) {
            // Arrays that nothing came for are empty in the whole answer, and absent from a stream.
            for (name, empty) in [
                (
                    "logprobs",
                    json!(ARRAYS.map(|a| (a, Vec::<u8>::new())).into_iter().collect::<Map2>()),
                ),
                ("token_ids", json!([])),
            ] {
                if choice.get(name).is_none_or(Value::is_null) && expected.get(name).is_some() {
                    let wanted = expected[name].clone();
                    assert!(wanted.is_null() || wanted == empty, "{name}: {wanted}");
                    choice[name] = wanted;
                }
            }
            assert_eq!(&*choice, expected);
        }
        // What was computed for the first answer is in the cache for the second.
        usage["prompt_tokens_details"] = answer["usage"]["prompt_tokens_details"].clone();
        assert_eq!(usage, answer["usage"]);
    }
}

type Map2 = std::collections::BTreeMap<&'static str, Vec<u8>>;

#[test]
fn the_parts_of_a_stream_make_the_whole_answer() {
    // Answers end by themselves now and then.
    let (runtime, rig) = rig(",end_every=9");
    let mut runner = TestRunner::new(ProptestConfig::with_cases(150));
    let property = |(body, choices)| {
        runtime.block_on(parts_make_the_whole(&rig, &body, choices));
        Ok(())
    };
    runner.run(&requests(), property).unwrap();
}

/// Means of log-probabilities, by choice.
fn means(answer: &Value) -> Vec<f64> {
    let mean = |choice: &Value| {
        let values = choice["logprobs"]["token_logprobs"].as_array().unwrap();
        let sum: f64 = values.iter().map(|v| v.as_f64().unwrap()).sum();
        sum / values.len().max(1) as f64
    };
    answer["choices"].as_array().unwrap().iter().map(mean).collect()
}

#[test]
fn the_best_of_some_are_the_most_probable_of_all() {
    let (runtime, rig) = rig(",end_every=9");
    let strategy = (prompts(), 1usize..4, 0usize..4, any::<u32>(), any::<bool>());
    let mut runner = TestRunner::new(ProptestConfig::with_cases(60));
    let property =
        |((prompt, prompts), n, more, seed, tells): ((Value, usize), usize, usize, u32, bool)| {
            let best_of = n + more;
            let mut body = json!({"prompt": prompt, "seed": seed, "n": best_of, "logprobs": 0});
            let all = runtime.block_on(rig.complete(body.clone()));
            body["n"] = n.into();
            body["best_of"] = best_of.into();
            if !tells {
                body["logprobs"] = Value::Null;
            }
            let best = runtime.block_on(rig.complete(body));
            let means = means(&all);
            let mut wanted = Vec::new();
            for prompt in 0..prompts {
                let mut order: Vec<usize> = (prompt * best_of..(prompt + 1) * best_of).collect();
                if more > 0 {
                    order
                        .sort_by(|&a, &b| means[b].partial_cmp(&means[a]).unwrap().then(a.cmp(&b)));
                }
                wanted.extend(order.into_iter().take(n));
            }
            let choices = best["choices"].as_array().unwrap();
            prop_assert_eq!(choices.len(), wanted.len());
            for ((index, choice), wanted) in choices.iter().enumerate().zip(wanted) {
                let mut expected = all["choices"][wanted].clone();
                expected["index"] = index.into();
                if !tells {
                    expected["logprobs"] = Value::Null;
                }
                prop_assert_eq!(choice, &expected);
            }
            let tokens = |answer: &Value| answer["usage"]["completion_tokens"].clone();
            prop_assert_eq!(tokens(&best), tokens(&all), "all candidates count");
            Ok(())
        };
    runner.run(&strategy, property).unwrap();
}
