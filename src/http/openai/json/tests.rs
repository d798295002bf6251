use super::*;

const KNOWN: Known = Known { fields: &["a", "b", "map"], inputs: &["prompt"] };

fn ok(body: &str) -> Fields {
    parse(body.as_bytes(), KNOWN).unwrap()
}

fn message(body: &[u8]) -> (String, Option<String>) {
    let error = parse(body, KNOWN).unwrap_err();
    assert_eq!(error.status(), 400);
    (error.message().into_owned(), error.param().map(str::to_owned))
}

#[test]
fn null_is_absent_and_unknown_fields_are_kept_by_name_only() {
    let fields = ok(r#"{"a": null, "b": 1, "prompt": null, "other": {"x": [1, {}]}}"#);
    assert_eq!(fields.get("a"), None);
    assert_eq!(fields.integer("b", 0..=5).unwrap(), Some(1));
    assert_eq!(fields.unknown, ["other"]);
}

#[test]
fn inputs_come_in_four_forms() {
    let input = |json: &str| ok(&format!(r#"{{"prompt": {json}}}"#)).take_input("prompt");
    assert_eq!(input(r#""hi""#), Some(Input::Text("hi".into())));
    assert_eq!(input(r#"["a", "b"]"#), Some(Input::Texts(vec!["a".into(), "b".into()])));
    assert_eq!(input("[1, 2]"), Some(Input::Ids(vec![1, 2])));
    assert_eq!(input("[[1], [], [2, 3]]"), Some(Input::IdLists(vec![vec![1], vec![], vec![2, 3]])));
    assert_eq!(input("[]"), Some(Input::Ids(vec![])));
}

#[test]
fn errors_name_the_path_and_the_line() {
    for (body, param, part) in [
        (&b"{\"a\": 1,\n \"b\": }"[..], None, "line 2"),
        (b"", None, "line 1"),
        (b"{\"a\": 1,}", None, "trailing comma at line 1 column 9."),
        (b"{\"a\": 1} x", None, "trailing"),
        (b"[1]", None, "expected a JSON object"),
        (b"{\"a\": \"\xff\"}", None, "UTF-8"),
        (br#"{"a": "\ud800"}"#, None, "hex escape"),
        (br#"{"a": 1e400}"#, Some("a"), "out of range"),
        (br#"{"a": NaN}"#, None, "line 1"),
        (br#"{"a": 1, "a": 2}"#, Some("a"), "duplicate key"),
        (br#"{"x": 1, "x": 2}"#, Some("x"), "duplicate key"),
        (br#"{"map": {"k": 1, "k": 1}}"#, Some("map"), "map.k"),
        (br#"{"prompt": [1, "a"]}"#, Some("prompt"), "expected a string"),
        (br#"{"prompt": [1, -1]}"#, Some("prompt"), "-1 is not a token"),
        (br#"{"prompt": [9007199254740993]}"#, Some("prompt"), "9007199254740993"),
        (br#"{"prompt": [[1], [2.5]]}"#, Some("prompt"), "prompt[1][0]"),
        (br#"{"prompt": true}"#, Some("prompt"), "a string, a list of strings"),
        (br#"{"prompt": {"a": 1}}"#, Some("prompt"), "a string, a list of strings"),
    ] {
        let (message, got) = message(body);
        assert_eq!(got.as_deref(), param, "{message}");
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn depth_and_breadth_are_bounded() {
    let deep = format!(r#"{{"a": {}"#, "[".repeat(100_000));
    assert!(message(deep.as_bytes()).0.contains("recursion limit"));
    let skipped = format!(r#"{{"x": {}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(ok(&skipped).unknown, ["x"]);
    let wide = format!(r#"{{"map": [{}1]}}"#, "1,".repeat(NODES_MAX));
    assert_eq!(message(wide.as_bytes()).1.as_deref(), Some("map"));
    let keys =
        |n| format!("{{{}}}", (0..n).map(|i| format!(r#""{i}": 0"#)).collect::<Vec<_>>().join(","));
    ok(&keys(KEYS_MAX));
    let (many, param) = message(keys(KEYS_MAX + 1).as_bytes());
    assert!(many.starts_with("more than 1024 fields") && param.is_none(), "{many}");
    let prompts = format!(r#"{{"prompt": [{}"a"]}}"#, r#""a","#.repeat(PROMPTS_MAX));
    assert_eq!(message(prompts.as_bytes()).1.as_deref(), Some("prompt"));
}

#[test]
fn a_wrong_type_or_range_is_told_in_the_words_of_the_api() {
    let told = |body: &str| {
        let fields = ok(body);
        let error = fields.integer("a", 0..=5).err().or(fields.number("b", -2.0..=2.0).err());
        error.unwrap().message().into_owned()
    };
    assert_eq!(told(r#"{"a": "x"}"#), "'x' is not of type 'integer' - 'a'");
    assert_eq!(told(r#"{"a": false}"#), "false is not of type 'integer' - 'a'");
    assert_eq!(told(r#"{"a": 1.5}"#), "1.5 is not of type 'integer' - 'a'");
    assert_eq!(told(r#"{"a": 9}"#), "9 is greater than the maximum of 5 - 'a'");
    assert_eq!(told(r#"{"a": -1}"#), "-1 is less than the minimum of 0 - 'a'");
    assert_eq!(
        told(r#"{"a": 18446744073709551615}"#),
        "18446744073709551615 is greater than the maximum of 5 - 'a'"
    );
    assert_eq!(told(r#"{"b": 3.0}"#), "3.0 is greater than the maximum of 2 - 'b'");
    assert_eq!(told(r#"{"b": []}"#), "[] is not of type 'number' - 'b'");
}
