//! What single fields of completions do, over the fake model.

use super::*;

/// The fake model, whose vocabulary can fill in the middle.
fn rig_with_gaps() -> Rig {
    Rig::with_text("", Text::fake_with_gap(VOCAB))
}

fn ids(text: &str) -> Vec<u32> {
    Text::fake(VOCAB).encode(text, true, false)
}

#[tokio::test]
async fn a_gap_is_filled_between_its_two_texts() {
    let rig = rig_with_gaps();
    let body = json!({"prompt": "ab", "suffix": "c", "return_token_ids": true, "max_tokens": 4});
    let answer = rig.complete(body.clone()).await;
    let [prefix, suffix, middle] = [3, 2, 1].map(|back| (VOCAB - back) as u32);
    let wanted = [vec![prefix], ids("ab"), vec![suffix], ids("c"), vec![middle]].concat();
    assert_eq!(answer["choices"][0]["prompt_token_ids"], json!(wanted));
    assert_eq!(answer["usage"]["prompt_tokens"], wanted.len());
    // No instruction, whatever the name; nothing before the gap is a text too.
    let mut instruct = body.clone();
    instruct["model"] = "text-davinci-002".into();
    let (_, by_name) = rig.post("/v1/completions", &instruct).await;
    assert_eq!(by_name["choices"][0]["prompt_token_ids"], json!(wanted));
    let mut bare = body;
    bare["prompt"] = Value::Null;
    let answer = rig.complete(bare).await;
    let wanted = [vec![prefix, suffix], ids("c"), vec![middle]].concat();
    assert_eq!(answer["choices"][0]["prompt_token_ids"], json!(wanted));
}

#[tokio::test]
async fn what_is_filled_in_ends_at_the_tokens_for_it() {
    let rig = rig_with_gaps();
    let middle = VOCAB - 1;
    let body = json!({"prompt": "a", "suffix": "b", "max_tokens": 3, "return_token_ids": true,
        "logit_bias": {middle.to_string(): 100}});
    let answer = rig.complete(body.clone()).await;
    assert_eq!(answer["choices"][0]["token_ids"], json!([middle]));
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    let mut on = body;
    on["ignore_eos"] = true.into();
    let answer = rig.complete(on).await;
    assert_eq!(answer["choices"][0]["token_ids"], json!([middle, middle, middle]));
}

#[tokio::test]
async fn a_model_that_cannot_fill_gaps_says_so() {
    let rig = Rig::new("");
    let body = json!({"model": "fake", "prompt": "a", "suffix": "b"});
    let (status, answer) = rig.post("/v1/completions", &body).await;
    let error = &answer["error"];
    assert_eq!((status.as_u16(), &error["param"]), (400, &"suffix".into()));
    assert_eq!(error["code"], "unsupported_parameter");
    assert!(error["message"].as_str().unwrap().contains("filling in the middle"), "{error}");
    let empty = rig.complete(json!({"prompt": "a", "suffix": "", "max_tokens": 1})).await;
    assert_eq!(empty["usage"]["prompt_tokens"], 1);
}

#[tokio::test]
async fn stop_tokens_end_answers_after_the_least_number() {
    let rig = Rig::new(",end_every=0");
    let a = ids("a")[0];
    let body = json!({"prompt": "x", "max_tokens": 4, "logit_bias": {a.to_string(): 100},
        "stop_token_ids": [a], "return_token_ids": true, "ignore_eos": true});
    let answer = rig.complete(body.clone()).await;
    let choice = &answer["choices"][0];
    assert_eq!((&choice["text"], &choice["finish_reason"]), (&"".into(), &"stop".into()));
    assert_eq!(
        (&choice["token_ids"], &answer["usage"]["completion_tokens"]),
        (&json!([a]), &1.into())
    );
    let mut shown = body.clone();
    shown["include_stop_str_in_output"] = true.into();
    assert_eq!(rig.complete(shown).await["choices"][0]["text"], "a");
    let mut later = body;
    later["min_tokens"] = 3.into();
    let answer = rig.complete(later).await;
    let ids = answer["choices"][0]["token_ids"].as_array().unwrap();
    assert!(ids.len() >= 3 && !ids[..3].contains(&a.into()), "{ids:?}");
}

#[tokio::test]
async fn special_tokens_have_a_text_if_asked_for() {
    let rig = Rig::new(",end_every=0");
    let body = json!({"prompt": "x", "max_tokens": 2, "logit_bias": {"1": 100}});
    assert_eq!(rig.complete(body.clone()).await["choices"][0]["text"], "");
    let mut shown = body;
    shown["skip_special_tokens"] = false.into();
    assert_eq!(rig.complete(shown.clone()).await["choices"][0]["text"], "<|user|><|user|>");
    shown["stop"] = "user".into();
    assert_eq!(rig.complete(shown).await["choices"][0]["text"], "<|");
}

#[tokio::test]
async fn a_prompt_is_cut_at_its_beginning() {
    let rig = Rig::new("");
    let body = |keep: Value, max_tokens| {
        json!({"prompt": [5, 6, 7, 8], "truncate_prompt_tokens": keep, "max_tokens": max_tokens,
            "return_token_ids": true, "echo": true})
    };
    for (keep, max_tokens, wanted) in [
        (json!(2), 1, json!([7, 8])),
        (json!(4), 1, json!([5, 6, 7, 8])),
        (json!(100), 1, json!([5, 6, 7, 8])),
        (Value::Null, 1, json!([5, 6, 7, 8])),
        (json!(-1), 1, json!([5, 6, 7, 8])),
        (json!(-1), 4093, json!([6, 7, 8])),
    ] {
        let answer = rig.complete(body(keep, max_tokens)).await;
        let choice = &answer["choices"][0];
        assert_eq!(choice["prompt_token_ids"], wanted);
        assert_eq!(answer["usage"]["prompt_tokens"], wanted.as_array().unwrap().len());
    }
}

#[tokio::test]
async fn a_prompt_is_scored_with_ranks_of_the_whole_vocabulary() {
    let rig = Rig::new("");
    let prompt = [5, 6, 7, 8];
    let scored = |k: usize| json!({"prompt": prompt, "prompt_logprobs": k, "max_tokens": 0});
    let answer = rig.complete(scored(5)).await;
    let scores = answer["choices"][0]["prompt_logprobs"].as_array().unwrap();
    assert_eq!((answer["choices"][0]["text"].as_str(), scores.len()), (Some(""), 4));
    assert_eq!(scores[0], Value::Null);
    // The whole order, one place at a time, by biases that change no log-probability.
    for (position, score) in scores.iter().enumerate().skip(1) {
        let own = &score[prompt[position].to_string()];
        let next = json!({"prompt": prompt[..position], "max_tokens": 1, "logprobs": 5,
            "logit_bias": {prompt[position].to_string(): 100}, "return_tokens_as_token_ids": true});
        let next = rig.complete(next).await;
        let logprobs = &next["choices"][0]["logprobs"];
        assert_eq!(logprobs["token_logprobs"][0], own["logprob"]);
        for (label, logprob) in logprobs["top_logprobs"][0].as_object().unwrap() {
            let entry = &score[label.strip_prefix("token_id:").unwrap()];
            assert_eq!(entry["logprob"], *logprob);
        }
        let better = own["rank"].as_u64().unwrap() > 5;
        assert_eq!(score.as_object().unwrap().len(), 5 + usize::from(better));
    }
}

#[tokio::test]
async fn tokens_read_as_ids_wherever_their_text_would_stand() {
    let rig = Rig::new("");
    let body = json!({"prompt": [5, 6], "prompt_logprobs": 1, "logprobs": 1, "max_tokens": 2,
        "return_tokens_as_token_ids": true});
    let answer = rig.complete(body).await;
    let choice = &answer["choices"][0];
    for (id, entry) in choice["prompt_logprobs"][1].as_object().unwrap() {
        assert_eq!(entry["decoded_token"], format!("token_id:{id}"));
    }
    for token in choice["logprobs"]["tokens"].as_array().unwrap() {
        assert!(token.as_str().unwrap().starts_with("token_id:"));
    }
    for top in choice["logprobs"]["top_logprobs"].as_array().unwrap() {
        assert!(top.as_object().unwrap().keys().all(|k| k.starts_with("token_id:")));
    }
}

#[tokio::test]
async fn usage_in_every_chunk_needs_usage_at_all() {
    let rig = Rig::new("");
    let body = json!({"model": "fake", "prompt": "x", "max_tokens": 3, "stream": true,
        "stream_options": {"include_usage": false, "continuous_usage_stats": true}});
    let response = rig.send(Method::POST, "/v1/completions", &body.to_string()).await;
    assert!(events_of(response).await.iter().all(|e| e.get("usage").is_none()));
}

#[tokio::test]
async fn an_empty_text_is_a_prompt_of_which_nothing_is_echoed() {
    let rig = Rig::new("");
    let mut bare =
        json!({"prompt": "", "max_tokens": 4, "seed": 3, "ignore_eos": true, "logprobs": 1});
    let answer = rig.complete(bare.clone()).await;
    let said = answer["choices"][0]["text"].as_str().unwrap().to_owned();
    assert_eq!(answer["usage"]["prompt_tokens"], 1);
    bare["echo"] = true.into();
    let echoed = rig.complete(bare.clone()).await;
    assert_eq!(echoed["choices"][0]["text"], said);
    // As with the BOS of other models: a token that was read, and no text.
    let logprobs = &echoed["choices"][0]["logprobs"];
    assert_eq!(logprobs["token_logprobs"].as_array().unwrap().len(), 5);
    assert_eq!(
        (&logprobs["token_logprobs"][0], &logprobs["text_offset"][1]),
        (&Value::Null, &json!(0))
    );
    bare["max_tokens"] = 0.into();
    let scored = rig.complete(bare.clone()).await;
    assert_eq!(scored["choices"][0]["text"], "");
    assert_eq!(scored["choices"][0]["logprobs"]["token_logprobs"], json!([null]));
    // As without a prompt.
    bare["prompt"] = Value::Null;
    bare["max_tokens"] = 4.into();
    bare["echo"] = false.into();
    assert_eq!(rig.complete(bare).await["choices"][0]["text"], said);
}
