//! Structured output over the real engine and the fake model, whose own words are noise.

use super::*;

fn person() -> Value {
    json!({"type": "object", "properties": {"name": {"type": "string", "maxLength": 5},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 2}},
        "required": ["name", "age", "tags"], "additionalProperties": false})
}

fn format_of(schema: &Value) -> Value {
    json!({"type": "json_schema", "json_schema": {"name": "s", "schema": schema, "strict": true}})
}

fn assert_person(text: &str) {
    let value: Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text:?}"));
    assert!(value["name"].as_str().unwrap().chars().count() <= 5, "{text}");
    assert!((0..=120).contains(&value["age"].as_i64().unwrap()), "{text}");
    assert!(value["tags"].as_array().unwrap().len() <= 2, "{text}");
}

#[tokio::test]
async fn answers_fit_and_end_by_themselves() {
    let rig = Rig::new("");
    for (wanted, fits) in [
        (json!({"response_format": format_of(&person())}), assert_person as fn(&str)),
        (json!({"structured_outputs": {"json": person(), "regex": null}}), assert_person),
        (json!({"structured_outputs": {"json": person().to_string()}}), assert_person),
        (json!({"structured_outputs": {"choice": ["yes", "no"]}}), |text| {
            assert!(["yes", "no"].contains(&text), "{text}");
        }),
        (json!({"structured_outputs": {"regex": "[a-c]{2}-\\d+x"}}), |text| {
            assert!(text.ends_with('x') && "abc".contains(&text[..1]), "{text}");
        }),
        (json!({"structured_outputs": {"grammar": "start: \"a\" b+ \"c\"\nb: \"b\""}}), |text| {
            assert_eq!(text.trim_matches('b'), text);
            assert!(text.starts_with("ab") && text.ends_with("bc"), "{text}");
        }),
    ] {
        let mut body = json!({"prompt": "x", "max_tokens": 400, "temperature": 2, "n": 3, "seed": 3,
            "logprobs": 1});
        body.as_object_mut().unwrap().extend(wanted.as_object().unwrap().clone());
        let answer = rig.complete(body).await;
        for choice in answer["choices"].as_array().unwrap() {
            assert_eq!(choice["finish_reason"], "stop", "{choice}");
            fits(choice["text"].as_str().unwrap());
        }
    }
}

#[tokio::test]
async fn streams_and_crowds_change_nothing() {
    let rig = Rig::new(",repeats=8");
    let body = json!({"model": "fake", "prompt": "x", "max_tokens": 300, "temperature": 1.5, "n": 2,
        "seed": 11, "response_format": format_of(&person())});
    let alone = rig.complete(body.clone()).await;
    let mut streamed = body.clone();
    streamed["stream"] = true.into();
    let stream = async {
        let response = rig.send(Method::POST, "/v1/completions", &streamed.to_string()).await;
        events_of(response).await
    };
    let (events, again, other, _) = tokio::join!(
        stream,
        rig.complete(body.clone()),
        rig.complete(json!({"prompt": "y", "max_tokens": 200, "ignore_eos": true})),
        rig.complete(json!({"prompt": "z", "max_tokens": 100,
            "structured_outputs": {"regex": "(ab|cd)*"}, "min_tokens": 50})),
    );
    assert_eq!(again["choices"], alone["choices"]);
    assert_eq!(other["usage"]["completion_tokens"], 200);
    for (index, choice) in alone["choices"].as_array().unwrap().iter().enumerate() {
        let parts = events.iter().map(|e| &e["choices"][0]).filter(|c| c["index"] == index);
        let parts: Vec<_> = parts.collect();
        let text: String = parts.iter().map(|c| c["text"].as_str().unwrap()).collect();
        assert_eq!(choice["text"], text);
        assert_eq!(parts.last().unwrap()["finish_reason"], choice["finish_reason"]);
    }
}

#[tokio::test]
async fn whatever_else_is_asked_it_fits() {
    // Few blocks, and steps so long that all are at work at once.
    let rig = Rig::new(",kv_blocks=16,max_len=256,step_ms=2");
    let bodies = [
        json!({"best_of": 4, "n": 2}),
        json!({"prompt_logprobs": 2, "n": 2}),
        json!({"echo": true, "logprobs": 2, "n": 3}),
        json!({"frequency_penalty": 2, "logit_bias": {"70": 5}, "top_k": 3}),
        json!({"prompt": ["a", "b"], "n": 2, "return_token_ids": true, "min_tokens": 20}),
    ]
    .map(|rest| {
        let mut body = json!({"prompt": "x", "max_tokens": 200, "temperature": 2, "seed": 5,
            "response_format": format_of(&person())});
        body.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        body
    });
    let mut alone = Vec::new();
    for body in &bodies {
        let answer = rig.complete(body.clone()).await;
        for choice in answer["choices"].as_array().unwrap() {
            let text = choice["text"].as_str().unwrap();
            let echoed = usize::from(body.get("echo").is_some());
            assert_eq!(choice["finish_reason"], "stop", "{body}: {choice}");
            assert_person(&text[echoed..]);
        }
        alone.push(answer["choices"].clone());
    }
    // As many as may wait at once.
    let crowd = bodies.iter().take(4).map(|body| rig.complete(body.clone()));
    let crowd = futures_util::future::join_all(crowd).await;
    for (answer, alone) in crowd.iter().zip(alone) {
        assert_eq!(answer["choices"], alone);
    }
}

#[tokio::test]
async fn other_ends_come_before_the_grammars() {
    let rig = Rig::new("");
    let ask = async |extra: Value| {
        let mut body = json!({"prompt": "x", "max_tokens": 40, "seed": 1,
            "structured_outputs": {"regex": "(abc)+"}});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        rig.complete(body).await["choices"][0].clone()
    };
    let cut = ask(json!({"max_tokens": 7, "ignore_eos": true})).await;
    assert_eq!((&cut["text"], &cut["finish_reason"]), (&"abcabca".into(), &"length".into()));
    let stopped = ask(json!({"stop": "ca", "ignore_eos": true})).await;
    assert_eq!((&stopped["text"], &stopped["finish_reason"]), (&"ab".into(), &"stop".into()));
    let long = ask(json!({"min_tokens": 30})).await;
    assert!(long["text"].as_str().unwrap().len() >= 30, "{long}");
    // Where nothing else may follow, the end comes whatever was asked.
    let wanted = json!({"structured_outputs": {"choice": ["ab"]}, "min_tokens": 30,
        "ignore_eos": true, "logit_bias": {"0": -100}});
    let done = ask(wanted).await;
    assert_eq!((&done["text"], &done["finish_reason"]), (&"ab".into(), &"stop".into()));
}

#[tokio::test]
async fn what_cannot_be_kept_is_refused_by_name() {
    let rig = Rig::new("");
    let format = |value: Value| json!({"response_format": value});
    let outputs = |value: Value| json!({"structured_outputs": value});
    let schema = |schema: Value| json!({"response_format": format_of(&schema)});
    for (body, param, says) in [
        (format(json!("text")), "response_format", "is not of type 'object'"),
        (format(json!({})), "response_format.type", "'type' is required"),
        (format(json!({"type": "xml"})), "response_format.type", "'xml' is not one of"),
        (
            format(json!({"type": "json_schema"})),
            "response_format.json_schema",
            "'json_schema' is required",
        ),
        (
            format(json!({"type": "json_schema", "json_schema": {"schema": {}}})),
            "response_format.json_schema.name",
            "'name' is required",
        ),
        (
            format(json!({"type": "json_schema", "json_schema": {"name": "a b", "schema": {}}})),
            "response_format.json_schema.name",
            "'name' must be",
        ),
        (
            format(json!({"type": "json_schema", "json_schema": {"name": "a"}})),
            "response_format.json_schema.schema",
            "'schema' is required",
        ),
        (
            format(
                json!({"type": "json_schema", "json_schema": {"name": "a", "schema": {}, "strict": 1}}),
            ),
            "response_format.json_schema.strict",
            "is not of type 'boolean'",
        ),
        (
            format(json!({"type": "json_object", "schema": {}})),
            "response_format.schema",
            "belongs to type 'json_schema'",
        ),
        (schema(json!({"properties": {"a": {"not": {}}}})), "response_format", "'#/properties/a'"),
        (outputs(json!({})), "structured_outputs", "asks for nothing"),
        (outputs(json!({"json": {}, "regex": "a"})), "structured_outputs", "More than one kind"),
        (outputs(json!({"json": "{"})), "structured_outputs.json", "no JSON"),
        (outputs(json!({"json": [1]})), "structured_outputs.json", "'object' or 'string'"),
        (outputs(json!({"regex": 1})), "structured_outputs.regex", "'string'"),
        (outputs(json!({"xml": 1})), "structured_outputs", "'xml' is not one of"),
        (outputs(json!({"choice": []})), "structured_outputs", "0 choices"),
        (outputs(json!({"choice": ["a", 1]})), "structured_outputs.choice[1]", "'string'"),
        (outputs(json!({"regex": "(a"})), "structured_outputs", "unclosed group"),
        (outputs(json!({"grammar": "root ::= \"a\""})), "structured_outputs", "Lark"),
        (outputs(json!({"grammar": "start: <|end|>"})), "structured_outputs", "only text is"),
        (outputs(json!({"grammar": "start: <[2]>"})), "structured_outputs", "only text is"),
        (
            json!({"response_format": {"type": "json_object"}, "structured_outputs": {"regex": "a"}}),
            "structured_outputs",
            "together with 'response_format'",
        ),
    ] {
        let mut request = json!({"model": "fake", "prompt": "x"});
        request.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        let (status, answer) = rig.post("/v1/completions", &request).await;
        let error = &answer["error"];
        assert_eq!((status.as_u16(), &error["param"]), (400, &param.into()), "{body}: {answer}");
        assert!(error["message"].as_str().unwrap().contains(says), "{body}: {error}");
    }
}

#[tokio::test]
async fn text_is_no_format() {
    let rig = Rig::new("");
    let plain = json!({"prompt": "x", "max_tokens": 20, "seed": 2});
    let mut format = plain.clone();
    format["response_format"] = json!({"type": "text"});
    let (plain, format) = (rig.complete(plain).await, rig.complete(format).await);
    assert_eq!(plain["choices"], format["choices"]);
}
