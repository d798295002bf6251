use proptest::prelude::*;

use super::*;
use crate::http::openai::json::parse;

const BOUNDS: Bounds = Bounds { vocab: 100 };

fn check(body: &str) -> Result<Checked, ApiError> {
    validate(parse(body.as_bytes(), KNOWN)?, BOUNDS)
}

fn ok(body: &str) -> Checked {
    check(body).unwrap_or_else(|e| panic!("{body}: {e}"))
}

/// Status, code, param and message.
fn refused(body: &str) -> (u16, Option<&'static str>, Option<String>, String) {
    let Err(error) = check(body) else { panic!("accepted: {body}") };
    (
        error.status().as_u16(),
        error.code(),
        error.param().map(str::to_owned),
        error.message().into_owned(),
    )
}

#[test]
fn the_tutorials_call_is_accepted_as_it_was_captured() {
    let checked = ok(r#"{"prompt": "Tell me a story about a robot.", "max_tokens": 150, "n": 1,
        "stop": null, "temperature": 0.5}"#);
    assert_eq!(checked.prompts, Prompts::Texts(vec!["Tell me a story about a robot.".into()]));
    assert_eq!((checked.n, checked.max_tokens, checked.stream), (1, Some(150), false));
    assert!((checked.sampling.temperature - 0.5).abs() < f32::EPSILON);
    assert!(checked.stop.is_empty() && checked.seed.is_none());
}

#[test]
fn null_is_accepted_for_every_field_and_is_the_default() {
    let nulls: Vec<String> =
        KNOWN.fields.iter().chain(KNOWN.inputs).map(|f| format!("\"{f}\": null")).collect();
    let checked = ok(&format!("{{{}}}", nulls.join(", ")));
    assert_eq!(checked, ok("{}"));
    assert_eq!(checked.prompts, Prompts::Absent);
    assert_eq!(checked.sampling, Sampling::default());
}

#[test]
fn every_field_is_bounded() {
    let long_stop = "x".repeat(STOP_BYTES_MAX + 1);
    let stops = vec!["\"a\""; STOPS_MAX + 1].join(",");
    let bias: Vec<String> = (0..=LOGIT_BIAS_MAX).map(|i| format!("\"{i}\": 1")).collect();
    let table = [
        ("n", "0".to_owned()),
        ("n", "21".to_owned()),
        ("n", "1000000000".to_owned()),
        ("n", "\"1\"".to_owned()),
        ("best_of", "0".to_owned()),
        ("best_of", "1000000000".to_owned()),
        ("max_tokens", "0".to_owned()),
        ("max_tokens", "-1".to_owned()),
        ("max_tokens", "\"x\"".to_owned()),
        ("max_tokens", "1.5".to_owned()),
        ("max_tokens", "18446744073709551616".to_owned()),
        ("temperature", "-1".to_owned()),
        ("temperature", "2.01".to_owned()),
        ("temperature", "\"NaN\"".to_owned()),
        ("top_p", "-0.1".to_owned()),
        ("top_p", "1.1".to_owned()),
        ("top_k", "-2".to_owned()),
        ("top_k", "0.5".to_owned()),
        ("min_p", "-0.1".to_owned()),
        ("min_p", "1.1".to_owned()),
        ("frequency_penalty", "1e9".to_owned()),
        ("presence_penalty", "-2.1".to_owned()),
        ("repetition_penalty", "0".to_owned()),
        ("repetition_penalty", "1e9".to_owned()),
        ("repetition_penalty", "1e-300".to_owned()),
        ("seed", "9223372036854775808".to_owned()),
        ("seed", "0.5".to_owned()),
        ("logprobs", "-1".to_owned()),
        ("logprobs", "6".to_owned()),
        ("logprobs", "2147483648".to_owned()),
        ("logprobs", "true".to_owned()),
        ("echo", "1".to_owned()),
        ("stream", "\"yes\"".to_owned()),
        ("stream_options", "{\"include_usage\": true}".to_owned()),
        ("stream_options", "true".to_owned()),
        ("stop", "\"\"".to_owned()),
        ("stop", "[\"a\", \"\"]".to_owned()),
        ("stop", "[1]".to_owned()),
        ("stop", "1".to_owned()),
        ("stop", format!("[{stops}]")),
        ("stop", format!("\"{long_stop}\"")),
        ("logit_bias", "[1]".to_owned()),
        ("logit_bias", "{\"100\": 1}".to_owned()),
        ("logit_bias", "{\"-1\": 1}".to_owned()),
        ("logit_bias", "{\"x\": 1}".to_owned()),
        ("logit_bias", "{\"05\": 1}".to_owned()),
        ("logit_bias", "{\"5\": 101}".to_owned()),
        ("logit_bias", "{\"5\": \"1\"}".to_owned()),
        ("logit_bias", "{\"5\": 1, \"5\": 2}".to_owned()),
        ("logit_bias", format!("{{{}}}", bias.join(","))),
        ("min_tokens", "17".to_owned()),
        ("min_tokens", "-1".to_owned()),
        ("ignore_eos", "0".to_owned()),
        ("return_tokens_as_token_ids", "\"\"".to_owned()),
        ("user", "5".to_owned()),
        ("prompt", "[]".to_owned()),
        ("prompt", "[[1], []]".to_owned()),
        ("prompt", "[100]".to_owned()),
        ("prompt", "[-1]".to_owned()),
        ("prompt", "[9007199254740993]".to_owned()),
        ("prompt", "[\"a\", 1]".to_owned()),
        ("prompt", "5".to_owned()),
    ];
    for (field, value) in table {
        let (status, code, param, message) = refused(&format!("{{\"{field}\": {value}}}"));
        assert_eq!((status, code, param.as_deref()), (400, None, Some(field)), "{message}");
        assert!(message.len() < 300, "{field}: {message}");
    }
}

#[test]
fn a_field_that_is_not_built_yet_is_refused_unless_it_changes_nothing() {
    let table = [
        ("best_of", "2"),
        ("suffix", "\"x\""),
        ("stop_token_ids", "[1]"),
        ("include_stop_str_in_output", "true"),
        ("skip_special_tokens", "false"),
        ("prompt_logprobs", "1"),
        ("return_token_ids", "true"),
        ("response_format", "{\"type\": \"json_object\"}"),
        ("structured_outputs", "{\"regex\": \"a\"}"),
        ("truncate_prompt_tokens", "5"),
        ("chat_template", "\"{{ 1 }}\""),
    ];
    for (field, value) in table {
        let (status, code, param, message) = refused(&format!("{{\"{field}\": {value}}}"));
        assert_eq!(status, 400);
        assert_eq!((code, param.as_deref()), (Some("unsupported_parameter"), Some(field)));
        assert!(message.contains("does not support") && message.contains(field), "{message}");
    }
    ok(r#"{"best_of": 2, "n": 2, "suffix": "", "stop_token_ids": [], "skip_special_tokens": true,
        "include_stop_str_in_output": false, "return_token_ids": false,
        "response_format": {"type": "text"}, "unheard_of": {"a": 1}}"#);
    let (status, _, param, message) =
        refused(r#"{"stream": true, "stream_options": {"continuous_usage_stats": true}}"#);
    assert_eq!((status, param.as_deref()), (400, Some("stream_options")));
    assert!(message.contains("continuous_usage_stats"));
}

#[test]
fn a_priority_is_bounded() {
    assert_eq!(ok("{}").priority, 0);
    assert_eq!(ok("{\"priority\": -1000}").priority, -1000);
    assert_eq!(ok("{\"priority\": 1000}").priority, 1000);
    for wrong in ["-1001", "1001", "0.5", "\"high\""] {
        let refused = refused(&format!("{{\"priority\": {wrong}}}"));
        assert_eq!(refused.2.as_deref(), Some("priority"), "{wrong}");
    }
}

#[test]
fn a_cache_salt_is_short_visible_ascii_and_told_apart() {
    let body = |salt: &str| serde_json::json!({ "cache_salt": salt }).to_string();
    let salt = |salt: &str| ok(&body(salt)).cache_salt;
    assert_eq!(ok("{}").cache_salt, None);
    let longest = "~".repeat(CACHE_SALT_MAX);
    assert!(salt(&longest).is_some());
    assert_eq!(salt("!a"), salt("!a"));
    assert_ne!(salt("!a"), salt("!b"));
    assert_ne!(salt("!a"), None);
    for wrong in ["", "two words", "tab\t", "caf\u{e9}", "\u{7f}", &format!("{longest}~")] {
        assert_eq!(refused(&body(wrong)).2.as_deref(), Some("cache_salt"), "{wrong}");
    }
    assert_eq!(refused("{\"cache_salt\": 1}").2.as_deref(), Some("cache_salt"));
}

#[test]
fn chats_top_logprobs_are_refused_where_they_would_be_missed() {
    ok("{\"top_logprobs\": 0}");
    ok("{\"top_logprobs\": null}");
    let (status, code, param, message) = refused("{\"top_logprobs\": 3}");
    assert_eq!(
        (status, code, param.as_deref()),
        (400, Some("unsupported_parameter"), Some("top_logprobs"))
    );
    assert!(message.contains("'logprobs': 3"), "{message}");
    for wrong in ["-1", "6", "2147483648", "true"] {
        let (status, code, param, _) = refused(&format!("{{\"top_logprobs\": {wrong}}}"));
        assert_eq!((status, code, param.as_deref()), (400, None, Some("top_logprobs")), "{wrong}");
    }
}

#[test]
fn prompts_times_n_has_one_bound() {
    let prompts = |count: usize, n: u32| {
        format!("{{\"prompt\": [{}\"a\"], \"n\": {n}}}", "\"a\",".repeat(count - 1))
    };
    assert_eq!(ok(&prompts(FAN_OUT_MAX, 1)).prompts.count(), FAN_OUT_MAX);
    assert_eq!(refused(&prompts(FAN_OUT_MAX / 2 + 1, 2)).2.as_deref(), Some("prompt"));
    assert_eq!(refused(&prompts(FAN_OUT_MAX + 1, 1)).2.as_deref(), Some("prompt"));
}

#[test]
fn zero_tokens_only_score_an_echoed_prompt() {
    let checked = ok(r#"{"prompt": [1, 2], "max_tokens": 0, "echo": true, "logprobs": 1}"#);
    assert_eq!(checked.max_tokens, Some(0));
    assert_eq!(checked.sampling.prompt_logprobs, Some(1));
    assert_eq!(ok(r#"{"logprobs": 0}"#).sampling.prompt_logprobs, None);
    assert_eq!(ok(r#"{"logprobs": 0}"#).sampling.logprobs, Some(0));
    assert_eq!(ok(r#"{"max_tokens": 18446744073709551615}"#).max_tokens, Some(usize::MAX));
}

#[test]
fn stream_options_belong_to_streams() {
    assert!(ok(r#"{"stream": true, "stream_options": {"include_usage": true}}"#).include_usage);
    let off = ok(r#"{"stream": true, "stream_options":
        {"include_usage": null, "include_obfuscation": true, "x": 1}}"#);
    assert!(off.stream && !off.include_usage);
}

#[test]
fn top_k_is_off_where_it_keeps_everything() {
    for (value, top_k) in [("-1", 0), ("0", 0), ("1", 1), ("99", 99), ("100", 0), ("5000", 0)] {
        assert_eq!(ok(&format!("{{\"top_k\": {value}}}")).sampling.top_k, top_k);
    }
}

#[test]
fn a_negative_seed_is_a_seed() {
    assert_eq!(ok(r#"{"seed": -1}"#).seed, Some(u64::MAX));
    assert_eq!(ok(r#"{"seed": 7}"#).seed, Some(7));
}

#[test]
fn misspelt_fields_find_their_nearest() {
    assert_eq!(nearest("max_token"), Some("max_tokens"));
    assert_eq!(nearest("temprature"), Some("temperature"));
    assert_eq!(nearest("stopp"), Some("stop"));
    assert_eq!(nearest("top_P"), Some("top_p"));
    assert_eq!(nearest("metadata"), None);
    assert_eq!(nearest("n_1"), None);
}

/// Any JSON, with numbers at their edges.
fn any_json() -> impl Strategy<Value = serde_json::Value> {
    use serde_json::{Value, json};
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (-3i64..200).prop_map(Value::from),
        (-3.0..3.0f64).prop_map(Value::from),
        ".{0,6}".prop_map(Value::from),
        Just(json!({"include_usage": true})),
        Just(json!({"5": 1.5, "99": -100})),
    ];
    leaf.prop_recursive(3, 24, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::hash_map("[a-z0-9_]{1,4}", inner, 0..4)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

fn any_request() -> impl Strategy<Value = String> {
    let names: Vec<&str> =
        KNOWN.fields.iter().chain(KNOWN.inputs).copied().chain(["other"]).collect();
    let fields = prop::collection::hash_map(prop::sample::select(names), any_json(), 0..5);
    fields.prop_map(|m| serde_json::to_string(&m).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn bytes_never_panic(body in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = parse(&body, KNOWN).and_then(|fields| validate(fields, BOUNDS));
    }

    #[test]
    fn what_is_accepted_is_within_the_engines_bounds(body in any_request()) {
        match check(&body) {
            Err(error) => prop_assert_eq!(error.status().as_u16(), 400),
            Ok(checked) => assert_bounded(&checked),
        }
    }
}

fn assert_bounded(checked: &Checked) {
    let s = &checked.sampling;
    assert!((0.0..=2.0).contains(&s.temperature));
    assert!((0.0..=1.0).contains(&s.top_p) && (0.0..=1.0).contains(&s.min_p));
    assert!((s.top_k as usize) < BOUNDS.vocab);
    assert!((-2.0..=2.0).contains(&s.frequency_penalty));
    assert!((-2.0..=2.0).contains(&s.presence_penalty));
    assert!(s.repetition_penalty > 0.0 && s.repetition_penalty <= 10.0);
    assert!(s.logit_bias.len() <= LOGIT_BIAS_MAX);
    assert!(
        s.logit_bias.iter().all(|&(id, bias)| {
            (id as usize) < BOUNDS.vocab && (-100.0..=100.0).contains(&bias)
        })
    );
    assert!(s.logprobs.is_none_or(|k| i64::from(k) <= LOGPROBS_MAX));
    assert!(s.min_tokens as usize <= checked.max_tokens.unwrap_or(DEFAULT_MAX_TOKENS));
    assert!(checked.max_tokens != Some(0) || checked.echo);
    assert!((1..=N_MAX as u32).contains(&checked.n));
    assert!(checked.prompts.count() * checked.n as usize <= FAN_OUT_MAX);
    assert!(checked.stop.len() <= STOPS_MAX);
    assert!(checked.stop.iter().all(|s| !s.is_empty() && s.len() <= STOP_BYTES_MAX));
    if let Prompts::Ids(lists) = &checked.prompts {
        assert!(lists.iter().flatten().all(|&id| (id as usize) < BOUNDS.vocab));
        assert!(lists.iter().all(|ids| !ids.is_empty()));
    }
}
