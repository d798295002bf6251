//! Structured output by the default model, far above the temperature at which it makes sense: what it
//! says must fit all the same.

use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::client::{Client, streamed_text};
use crate::support::{Server, smollm2};

fn client() -> Client {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| Server::start(&[&smollm2()])).client()
}

fn with(wanted: &Value) -> Value {
    let mut body = json!({"model": "davinci-002", "prompt": "A person:\n", "max_tokens": 300,
        "temperature": 1.5, "n": 3, "seed": 17});
    body.as_object_mut().unwrap().extend(wanted.as_object().unwrap().clone());
    body
}

fn person(text: &str) -> Result<(), String> {
    let value: Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let object = value.as_object().ok_or("no object")?;
    let keys: Vec<_> = object.keys().map(String::as_str).collect();
    let age = value["age"].as_i64().ok_or("no age")?;
    let name = value["name"].as_str().ok_or("no name")?;
    let fits = keys == ["name", "age", "pets"]
        && (0..=120).contains(&age)
        && (1..=12).contains(&name.chars().count())
        && value["pets"].as_array().is_some_and(|pets| pets.len() <= 3);
    if fits { Ok(()) } else { Err("it does not fit".to_owned()) }
}

type Fits = fn(&str) -> Result<(), String>;

fn kinds() -> [(Value, Fits); 4] {
    let schema = json!({"type": "object", "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "pets": {"type": "array", "maxItems": 3, "items": {"enum": ["cat", "dog", "newt"]}}},
        "required": ["name", "age", "pets"], "additionalProperties": false});
    [
        (
            json!({"response_format": {"type": "json_schema",
                "json_schema": {"name": "person", "strict": true, "schema": schema}}}),
            person,
        ),
        (json!({"structured_outputs": {"choice": ["positive", "negative"]}}), |text| {
            let known = ["positive", "negative"].contains(&text);
            if known { Ok(()) } else { Err("no choice".to_owned()) }
        }),
        (json!({"structured_outputs": {"regex": "\\d{3}-\\d{4}"}}), |text| {
            let digits = text.len() == 8 && text.split('-').all(|p| p.parse::<u32>().is_ok());
            if digits { Ok(()) } else { Err("no number".to_owned()) }
        }),
        (
            json!({"structured_outputs": {"grammar": "start: item (\", \" item){1,3}\nitem: /[a-z]{1,8}/"}}),
            |text| {
                let items: Vec<_> = text.split(", ").collect();
                let fits = |item: &&str| {
                    (1..=8).contains(&item.len()) && item.bytes().all(|b| b.is_ascii_lowercase())
                };
                if (2..=4).contains(&items.len()) && items.iter().all(fits) {
                    Ok(())
                } else {
                    Err("no list".to_owned())
                }
            },
        ),
    ]
}

#[test]
fn what_is_said_fits_streamed_or_whole() {
    let client = client();
    for (wanted, fits) in kinds() {
        let mut body = with(&wanted);
        let answer = client.complete(&body);
        assert_eq!(answer.status, 200, "{}", answer.body);
        for choice in answer.json()["choices"].as_array().unwrap() {
            assert_eq!(choice["finish_reason"], "stop", "{choice}");
            fits(choice["text"].as_str().unwrap()).unwrap_or_else(|e| panic!("{e}: {choice}"));
        }
        body["stream"] = true.into();
        body["n"] = 1.into();
        let (chunks, done) = client.stream(&body).finish();
        assert!(done);
        assert_eq!(streamed_text(&chunks), answer.text(0));
    }
}

#[test]
fn any_object_is_json() {
    let wanted = json!({"response_format": {"type": "json_object"}, "n": 4, "max_tokens": 400});
    let answer = client().complete(&with(&wanted));
    let mut ended = 0;
    for choice in answer.json()["choices"].as_array().unwrap() {
        // One that goes on for too long is cut, like any other answer.
        if choice["finish_reason"] == "stop" {
            let text = choice["text"].as_str().unwrap();
            let value: Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"));
            assert!(value.is_object(), "{text}");
            ended += 1;
        }
    }
    assert!(ended > 0, "{}", answer.body);
}
