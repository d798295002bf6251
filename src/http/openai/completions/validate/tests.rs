use proptest::prelude::*;

use super::*;
use crate::config::RequestLimits;
use crate::engine::message::Sampling;
use crate::http::openai::completions::types::KNOWN_BY_PATH;
use crate::http::openai::generation::fields::{
    CACHE_SALT_MAX, LOGIT_BIAS_MAX, STOP_TOKENS_MAX, StreamOptions, Truncate,
};
use crate::http::openai::json::{Field, parse};
use crate::model::load::SamplingDefaults;
use crate::text::{STOP_BYTES_MAX, STOPS_MAX};

const LIMITS: RequestLimits = RequestLimits { n: 20, fan_out: 1_024, logprobs: 5 };
const BOUNDS: Bounds = Bounds { vocab: 100, limits: LIMITS, defaults: SamplingDefaults::OPENAI };

fn check(body: &str) -> Result<Checked, ApiError> {
    validate(parse(body.as_bytes(), KNOWN_BY_PATH)?, BOUNDS)
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
    let shared = &checked.shared;
    assert_eq!((shared.n, checked.max_tokens, shared.stream), (1, Some(150), None));
    assert!((shared.sampling.temperature - 0.5).abs() < f32::EPSILON);
    assert!(shared.stop.is_empty() && shared.seed.is_none());
}

#[test]
fn null_is_accepted_for_every_field_and_is_the_default() {
    let nulls: Vec<String> =
        KNOWN_BY_PATH.fields().map(|f| format!("\"{}\": null", f.name)).collect();
    let checked = ok(&format!("{{{}}}", nulls.join(", ")));
    assert_eq!(checked, ok("{}"));
    assert_eq!(checked.prompts, Prompts::Absent);
    assert_eq!(checked.shared.sampling, Sampling::default());
}

/// A row of the request table: a field, values that are taken, and values that are refused by name.
struct Row(&'static str, &'static [&'static str], &'static [&'static str]);

/// Every field that is built. `prompt` and `model` have tests of their own besides.
const ROWS: &[Row] = &[
    Row(
        "prompt",
        &["\"\"", "\"a\"", "[\"a\"]", "[\"a\", \"b\"]", "[0, 99]", "[[1], [2, 3]]"],
        &[
            "[]",
            "[[1], []]",
            "[100]",
            "[[1, 100]]",
            "[-1]",
            "[9007199254740993]",
            "[\"a\", 1]",
            "[1, [2]]",
            "[1.5]",
            "5",
            "true",
            "{}",
        ],
    ),
    Row("best_of", &["1", "20"], &["0", "21", "1000000000", "\"1\"", "1.5", "[]"]),
    Row("echo", &["true", "false"], &["1", "\"true\"", "[]"]),
    Row("frequency_penalty", &["-2", "0", "2", "0.5"], &["-2.1", "2.1", "1e9", "\"1\"", "true"]),
    Row("presence_penalty", &["-2", "0", "2", "0.5"], &["-2.1", "2.1", "1e9", "\"1\"", "true"]),
    Row("repetition_penalty", &["0.01", "1", "10"], &["0", "-1", "10.1", "1e9", "1e-300", "\"1\""]),
    Row(
        "logit_bias",
        &["{}", "{\"5\": 1}", "{\"5\": -100, \"99\": 100}", "{\"0\": 0.5}"],
        &[
            "[1]",
            "1",
            "{\"100\": 1}",
            "{\"-1\": 1}",
            "{\"x\": 1}",
            "{\"05\": 1}",
            "{\"5\": 101}",
            "{\"5\": -100.5}",
            "{\"5\": \"1\"}",
            "{\"5\": null}",
            "{\"5\": 1, \"5\": 2}",
        ],
    ),
    Row("logprobs", &["0", "5"], &["-1", "6", "2147483648", "true", "\"1\"", "1.5"]),
    Row("prompt_logprobs", &["0", "5"], &["-1", "6", "true", "\"1\"", "1.5"]),
    Row(
        "max_tokens",
        &["0", "16", "18446744073709551615"],
        &["-1", "\"x\"", "1.5", "18446744073709551616", "true", "[]"],
    ),
    Row("n", &["1", "20"], &["0", "-1", "21", "1000000000", "\"1\"", "1.5", "true"]),
    Row(
        "seed",
        &["0", "-9223372036854775808", "9223372036854775807"],
        &["9223372036854775808", "0.5", "\"1\"", "true"],
    ),
    Row(
        "stop",
        &["\"a\"", "[]", "[\"a\", \"b\"]"],
        &["\"\"", "[\"a\", \"\"]", "[1]", "1", "[null]", "{}"],
    ),
    Row("stream", &["true", "false"], &["\"yes\"", "1"]),
    Row("stream_options", &[], &["{\"include_usage\": true}", "{}", "true", "[]"]),
    Row("suffix", &["\"\"", "\"x\""], &["1", "[\"x\"]", "true"]),
    Row("temperature", &["0", "1", "2", "1e-9"], &["-1", "2.01", "\"NaN\"", "true", "1e400"]),
    Row("top_p", &["0", "0.5", "1"], &["-0.1", "1.1", "\"1\"", "true"]),
    Row("user", &["\"u\"", "\"\""], &["5", "{}"]),
    Row("prompt_cache_key", &["\"k\"", "\"\""], &["5", "{}"]),
    Row("top_k", &["-1", "0", "1", "2147483647"], &["-2", "0.5", "2147483648", "\"1\""]),
    Row("min_p", &["0", "1"], &["-0.1", "1.1", "\"1\""]),
    Row("min_tokens", &["0", "16"], &["17", "-1", "1.5", "\"1\""]),
    Row("ignore_eos", &["true", "false"], &["0", "\"\""]),
    Row(
        "stop_token_ids",
        &["[]", "[0, 99, 99]"],
        &["[100]", "[-1]", "[1.5]", "[\"1\"]", "[null]", "1", "\"a\"", "{}"],
    ),
    Row("include_stop_str_in_output", &["true", "false"], &["1", "\"a\""]),
    Row("skip_special_tokens", &["true", "false"], &["1", "\"a\""]),
    Row("return_token_ids", &["true", "false"], &["1", "\"a\""]),
    Row("return_tokens_as_token_ids", &["true", "false"], &["1", "\"\""]),
    Row("add_special_tokens", &["true", "false"], &["1", "\"\""]),
    Row(
        "truncate_prompt_tokens",
        &["-1", "1", "9223372036854775807"],
        &["0", "-2", "1.5", "\"1\""],
    ),
    Row("priority", &["-1000", "0", "1000"], &["-1001", "1001", "0.5", "\"high\""]),
    Row("cache_salt", &["\"s\""], &["\"\"", "\"two words\"", "1", "[]"]),
    Row("top_logprobs", &["0"], &["-1", "6", "true"]),
    Row(
        "response_format",
        &["{\"type\": \"text\"}", "{\"type\": \"json_object\"}"],
        &["\"text\"", "{}", "{\"type\": \"xml\"}", "{\"type\": 1}", "[]"],
    ),
    Row(
        "structured_outputs",
        &["{\"regex\": \"a\"}", "{\"choice\": [\"a\"], \"json\": null}"],
        &["{}", "{\"regex\": 1}", "{\"regex\": \"a\", \"choice\": []}", "{\"x\": 1}", "1"],
    ),
];

#[test]
fn every_row_of_the_request_table_holds() {
    for Row(field, taken, refusals) in ROWS {
        ok(&format!("{{\"{field}\": null}}"));
        for value in *taken {
            ok(&format!("{{\"{field}\": {value}}}"));
        }
        for value in *refusals {
            let (status, code, param, message) = refused(&format!("{{\"{field}\": {value}}}"));
            assert_eq!((status, code), (400, None), "{message}");
            let param = param.unwrap_or_default();
            assert_eq!(param.split(['.', '[']).next(), Some(*field), "{message}");
            assert!(message.ends_with(&format!(" - '{param}'")), "{message}");
            assert!(message.len() < 300, "{field}: {message}");
        }
    }
}

#[test]
fn faults_name_the_path() {
    let long = "x".repeat(STOP_BYTES_MAX + 1);
    for (body, path) in [
        (r#"{"prompt": ["a", 1]}"#, "prompt[1]"),
        (r#"{"prompt": [1, 100]}"#, "prompt[1]"),
        (r#"{"prompt": [[1], []]}"#, "prompt[1]"),
        (r#"{"prompt": [[1], [2, 100]]}"#, "prompt[1][1]"),
        (r#"{"prompt": [[1], [-1]]}"#, "prompt[1][0]"),
        (r#"{"stop": ["a", 1]}"#, "stop[1]"),
        (&format!(r#"{{"stop": ["a", "{long}"]}}"#), "stop[1]"),
        (r#"{"stop_token_ids": [1, 2, 100]}"#, "stop_token_ids[2]"),
        (r#"{"stop_token_ids": [1, "a"]}"#, "stop_token_ids[1]"),
        (r#"{"logit_bias": {"5": 101}}"#, "logit_bias.5"),
        (r#"{"logit_bias": {"100": 1}}"#, "logit_bias.100"),
        (r#"{"logit_bias": {"5": 1, "5": 2}}"#, "logit_bias.5"),
        (
            r#"{"stream": true, "stream_options": {"include_usage": 1}}"#,
            "stream_options.include_usage",
        ),
        (r#"{"response_format": {"type": 1}}"#, "response_format.type"),
        (
            r#"{"response_format": {"type": "json_schema", "json_schema": {"name": 1, "schema": {}}}}"#,
            "response_format.json_schema.name",
        ),
        (
            r#"{"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": 1}}}"#,
            "response_format.json_schema.schema",
        ),
        (r#"{"structured_outputs": {"choice": [1]}}"#, "structured_outputs.choice[0]"),
        (r#"{"structured_outputs": {"regex": "a", "regex": "b"}}"#, "structured_outputs.regex"),
    ] {
        let (status, _, param, message) = refused(body);
        assert_eq!((status, param.as_deref()), (400, Some(path)), "{message}");
        assert!(message.ends_with(&format!(" - '{path}'")), "{message}");
    }
}

#[test]
fn every_field_has_its_row() {
    let rows: Vec<&str> = ROWS.iter().map(|row| row.0).collect();
    let later: Vec<&str> = LATER.iter().chain(later::SHARED).map(|later| later.0).collect();
    for Field { name, .. } in KNOWN_BY_PATH.fields() {
        assert!(rows.contains(name) != later.contains(name), "{name}");
    }
    assert_eq!(rows.len() + later.len(), KNOWN_BY_PATH.fields().count());
}

#[test]
fn lists_and_strings_are_bounded_in_length() {
    let strings = |n| vec!["\"a\""; n].join(",");
    let bias = |n| (0..n).map(|i| format!("\"{i}\": 1")).collect::<Vec<_>>().join(",");
    for (field, value) in [
        ("stop", format!("[{}]", strings(STOPS_MAX + 1))),
        ("stop", format!("\"{}\"", "x".repeat(STOP_BYTES_MAX + 1))),
        ("logit_bias", format!("{{{}}}", bias(LOGIT_BIAS_MAX + 1))),
        ("stop_token_ids", format!("[{}1]", "1,".repeat(STOP_TOKENS_MAX))),
        ("prompt", format!("[{}]", strings(LIMITS.fan_out + 1))),
    ] {
        let (status, _, param, message) = refused(&format!("{{\"{field}\": {value}}}"));
        assert_eq!((status, param.as_deref()), (400, Some(field)), "{message}");
        assert!(message.len() < 300, "{field}: {message}");
    }
    ok(&format!("{{\"stop\": [{}]}}", strings(STOPS_MAX)));
    ok(&format!("{{\"stop_token_ids\": [{}1]}}", "1,".repeat(STOP_TOKENS_MAX - 1)));
}

#[test]
fn a_field_that_is_not_built_yet_is_refused_unless_it_changes_nothing() {
    let table =
        [("chat_template", "\"{{ 1 }}\""), ("bad_words", "[\"x\"]"), ("length_penalty", "2")];
    for (field, value) in table {
        let (status, code, param, message) = refused(&format!("{{\"{field}\": {value}}}"));
        assert_eq!(status, 400);
        assert_eq!((code, param.as_deref()), (Some("unsupported_parameter"), Some(field)));
        assert!(message.contains("does not support") && message.contains(field), "{message}");
    }
    ok(r#"{"bad_words": [], "response_format": {"type": "text"}, "length_penalty": 1.0,
        "unheard_of": {"a": 1}}"#);
}

#[test]
fn fields_that_do_not_go_together_are_told_apart() {
    for (body, param, part) in [
        (r#"{"n": 3, "best_of": 2}"#, "best_of", "less than n = 3"),
        (r#"{"best_of": 2, "stream": true}"#, "best_of", "'stream' is true"),
        (r#"{"suffix": "x", "prompt": "a", "echo": true}"#, "suffix", "'echo'"),
        (r#"{"suffix": "x", "prompt": [1]}"#, "suffix", "token ids"),
        (r#"{"suffix": "x", "truncate_prompt_tokens": 1}"#, "suffix", "truncate_prompt_tokens"),
        (r#"{"max_tokens": 3, "min_tokens": 4}"#, "min_tokens", "max_tokens = 3"),
        (r#"{"stream": false, "stream_options": {}}"#, "stream_options", "'stream' is true"),
    ] {
        let (status, code, named, message) = refused(body);
        assert_eq!((status, code, named.as_deref()), (400, None, Some(param)), "{message}");
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(ok(r#"{"n": 2, "best_of": 2, "stream": true}"#).best_of, 2);
    assert_eq!(ok(r#"{"n": 2}"#).best_of, 2);
    assert_eq!(ok(r#"{"n": 2, "best_of": 3}"#).best_of, 3);
    assert_eq!(ok(r#"{"suffix": "", "prompt": [1]}"#).suffix, None);
    assert_eq!(ok(r#"{"suffix": "x"}"#).suffix.as_deref(), Some("x"));
}

#[test]
fn the_operator_may_allow_more() {
    let limits = RequestLimits { n: 128, fan_out: 2_000, logprobs: 20 };
    let with = |limits, body: &str| {
        validate(parse(body.as_bytes(), KNOWN_BY_PATH).unwrap(), Bounds { limits, ..BOUNDS })
    };
    for body in [
        r#"{"n": 128}"#,
        r#"{"best_of": 128}"#,
        r#"{"logprobs": 20}"#,
        r#"{"prompt_logprobs": 20}"#,
    ] {
        assert!(with(limits, body).is_ok(), "{body}");
        assert!(with(LIMITS, body).is_err(), "{body}");
    }
    let narrow = RequestLimits { n: 2, fan_out: 3, logprobs: 0 };
    for body in [r#"{"n": 3}"#, r#"{"logprobs": 1}"#, r#"{"n": 2, "prompt": ["a", "b"]}"#] {
        assert!(with(narrow, body).is_err(), "{body}");
    }
    assert!(with(narrow, r#"{"logprobs": 0, "n": 2, "prompt": "a"}"#).is_ok());
}

#[test]
fn extras_come_out_as_they_went_in() {
    let checked = ok(r#"{"stop_token_ids": [7, 3], "include_stop_str_in_output": true,
        "skip_special_tokens": false, "return_token_ids": true, "prompt_logprobs": 2,
        "truncate_prompt_tokens": 4}"#);
    let shared = &checked.shared;
    assert_eq!(shared.sampling.stop_tokens, [7, 3]);
    assert!(shared.shows_stop && !shared.skip_special && shared.return_token_ids);
    assert_eq!((shared.prompt_logprobs, shared.truncate_prompt), (Some(2), Some(Truncate::To(4))));
    let to_fit = ok(r#"{"truncate_prompt_tokens": -1}"#);
    assert_eq!(to_fit.shared.truncate_prompt, Some(Truncate::ToFit));
    let plain = ok("{}").shared;
    assert!(!plain.shows_stop && plain.skip_special && !plain.return_token_ids);
}

#[test]
fn a_cache_salt_is_short_visible_ascii_and_told_apart() {
    let body = |salt: &str| serde_json::json!({ "cache_salt": salt }).to_string();
    let salt = |salt: &str| ok(&body(salt)).shared.cache_salt;
    assert_eq!(ok("{}").shared.cache_salt, None);
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
    assert_eq!(ok(&prompts(LIMITS.fan_out, 1)).prompts.count(), LIMITS.fan_out);
    assert_eq!(refused(&prompts(LIMITS.fan_out / 2 + 1, 2)).2.as_deref(), Some("prompt"));
    assert_eq!(refused(&prompts(LIMITS.fan_out + 1, 1)).2.as_deref(), Some("prompt"));
}

#[test]
fn zero_tokens_only_score_the_prompt() {
    let checked = ok(r#"{"prompt": [1, 2], "max_tokens": 0, "echo": true, "logprobs": 1}"#);
    assert_eq!((checked.max_tokens, checked.shared.sampling.logprobs), (Some(0), Some(1)));
    assert_eq!(ok(r#"{"logprobs": 0}"#).shared.sampling.logprobs, Some(0));
    assert_eq!(ok(r#"{"max_tokens": 18446744073709551615}"#).max_tokens, Some(usize::MAX));
}

#[test]
fn stream_options_belong_to_streams() {
    let on = ok(r#"{"stream": true, "stream_options": {"include_usage": true}}"#);
    assert_eq!(
        on.shared.stream,
        Some(StreamOptions { include_usage: true, continuous_usage: false })
    );
    let all = ok(r#"{"stream": true, "stream_options":
        {"include_usage": true, "continuous_usage_stats": true}}"#);
    let options = StreamOptions { include_usage: true, continuous_usage: true };
    assert_eq!(all.shared.stream, Some(options));
    for name in ["include_usage", "include_obfuscation", "continuous_usage_stats"] {
        let body = format!("{{\"stream\": true, \"stream_options\": {{\"{name}\": 1}}}}");
        assert_eq!(refused(&body).2, Some(format!("stream_options.{name}")));
    }
    let off = ok(r#"{"stream": true, "stream_options":
        {"include_usage": null, "include_obfuscation": true, "x": 1}}"#);
    assert_eq!(off.shared.stream, Some(StreamOptions::default()));
}

#[test]
fn top_k_is_off_where_it_keeps_everything() {
    for (value, top_k) in [("-1", 0), ("0", 0), ("1", 1), ("99", 99), ("100", 0), ("5000", 0)] {
        assert_eq!(ok(&format!("{{\"top_k\": {value}}}")).shared.sampling.top_k, top_k);
    }
}

#[test]
fn a_negative_seed_is_a_seed() {
    assert_eq!(ok(r#"{"seed": -1}"#).shared.seed, Some(u64::MAX));
    assert_eq!(ok(r#"{"seed": 7}"#).shared.seed, Some(7));
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
    let names: Vec<&str> = KNOWN.fields().map(|field| field.name).chain(["other"]).collect();
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
    let s = &checked.shared.sampling;
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
    assert!(s.logprobs.is_none_or(|k| k as usize <= LIMITS.logprobs));
    assert!(checked.shared.prompt_logprobs.is_none_or(|k| k as usize <= LIMITS.logprobs));
    assert!(s.stop_tokens.iter().all(|&id| (id as usize) < BOUNDS.vocab));
    assert!(s.min_tokens as usize <= checked.max_tokens.unwrap_or(DEFAULT_MAX_TOKENS));
    assert!((1..=LIMITS.n as u32).contains(&checked.shared.n));
    assert!((checked.shared.n..=LIMITS.n as u32).contains(&checked.best_of));
    assert!(checked.prompts.count() * checked.best_of as usize <= LIMITS.fan_out);
    assert!(checked.shared.stop.len() <= STOPS_MAX);
    assert!(checked.shared.stop.iter().all(|s| !s.is_empty() && s.len() <= STOP_BYTES_MAX));
    if let Prompts::Ids(lists) = &checked.prompts {
        assert!(lists.iter().flatten().all(|&id| (id as usize) < BOUNDS.vocab));
        assert!(lists.iter().all(|ids| !ids.is_empty()));
    }
}

#[test]
fn what_is_declared_is_what_is_accepted() {
    use crate::http::openai::json::Kind;
    for field in KNOWN_BY_PATH.fields() {
        let (min, max) = match field.kind {
            Kind::Integer { min, max } => (min.to_string(), max.to_string()),
            Kind::Number { min, max } => (min.to_string(), max.to_string()),
            _ => continue,
        };
        for bound in [min, max] {
            let Err(error) = check(&format!("{{\"{}\": {bound}}}", field.name)) else { continue };
            // What another field, or the model, has to say about it is not declared.
            let of_range = ["maximum of", "minimum of", "not of type"];
            assert!(!of_range.iter().any(|part| error.message().contains(part)), "{error}");
        }
    }
    let defaults = KNOWN_BY_PATH.fields().filter(|field| !field.default.is_empty());
    let defaults: Vec<_> = defaults.map(|f| format!("\"{}\": {}", f.name, f.default)).collect();
    let mut told = ok(&format!("{{{}}}", defaults.join(", ")));
    told.max_tokens = None;
    assert_eq!(told, ok("{}"));
}
