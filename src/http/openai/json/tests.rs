use super::*;

const ANY_INPUT: Kind =
    Kind::Input(&[Form::Text, Form::Texts, Form::Ids { min: 0 }, Form::IdLists]);

const KNOWN: Known = Known(&[
    &[Field::new("a", Kind::integer(0, 5)), Field::new("b", Kind::number(-2.0, 2.0))],
    &[Field::new("map", Kind::Any), Field::new("prompt", ANY_INPUT)],
]);

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
    assert_eq!(fields.number("b").unwrap(), Some(1.0));
    assert_eq!(fields.unknown, ["other"]);
}

#[test]
fn inputs_come_in_four_forms() {
    let input = |json: &str| ok(&format!(r#"{{"prompt": {json}}}"#)).take_input("prompt");
    assert_eq!(input(r#""hi""#), Some(Input::Text("hi".into())));
    assert_eq!(input(r#"["a", "b"]"#), Some(Input::Texts(vec!["a".into(), "b".into()])));
    assert_eq!(input("[1, 2]"), Some(Input::Ids(vec![1, 2])));
    assert_eq!(input("[[1], [2, 3]]"), Some(Input::IdLists(vec![vec![1], vec![2, 3]])));
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
        (br#"{"map": {"k": 1, "k": 1}}"#, Some("map.k"), "map.k"),
        (br#"{"map": [0, {"k": {"a": 1, "a": 1}}]}"#, Some("map[1].k.a"), "duplicate key"),
        (br#"{"map": [0, 1e400]}"#, Some("map[1]"), "out of range"),
        (br#"{"prompt": [1, "a"]}"#, Some("prompt[1]"), "expected a string"),
        (br#"{"prompt": ["a", "b", [1]]}"#, Some("prompt[2]"), "expected a string"),
        (br#"{"prompt": [1, -1]}"#, Some("prompt[1]"), "-1 is not a token"),
        (br#"{"prompt": [9007199254740993]}"#, Some("prompt[0]"), "9007199254740993"),
        (br#"{"prompt": [[1], [2.5]]}"#, Some("prompt[1][0]"), "prompt[1][0]"),
        (br#"{"prompt": [[1], [[2]]]}"#, Some("prompt[1][0]"), "expected a token id"),
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
    assert_eq!(message(wide.as_bytes()).1, Some(format!("map[{}]", NODES_MAX - 1)));
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
    let told = |body: &str| message(body.as_bytes()).0;
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

#[test]
fn every_kind_is_checked_to_its_last_value() {
    const TEXT: Kind = Kind::Text { min: 1, max: 3 };
    const INNER: &[Field] =
        &[Field::new("word", Kind::Word(&["x", "y"])).required(), Field::new("on", Kind::Boolean)];
    const ALL: Known = Known(&[&[
        Field::new("text", TEXT),
        Field::new("ascii", Kind::VisibleAscii { max: 2 }),
        Field::new("count", Kind::count(1)),
        Field::new("list", Kind::List { item: &TEXT, min: 1, max: 2 }),
        Field::new("either", Kind::Either(&[TEXT, Kind::List { item: &TEXT, min: 0, max: 1 }])),
        Field::new("bias", Kind::ByToken { value: &Kind::number(-1.0, 1.0), max: 2 }),
        Field::new("object", Kind::Object(INNER)),
        Field::new("lists", Kind::Input(&[Form::IdLists])),
    ]]);
    let read = |body: &str| parse(body.as_bytes(), ALL);
    let sound = read(
        r#"{"text": "abc", "ascii": "~!", "count": 18446744073709551615, "list": ["a", "b"],
        "either": ["x"], "bias": {"0": -1, "7": 0.5}, "object": {"word": "y", "on": null, "z": 1}}"#,
    );
    let sound = sound.unwrap();
    assert_eq!(sound.text("text").unwrap(), Some("abc"));
    // JSON knows no difference.
    assert_eq!(read(r#"{"count": 4.0}"#).unwrap().integer("count").unwrap(), Some(4));
    assert_eq!(read(r#"{"count": 1e0}"#).unwrap().integer("count").unwrap(), Some(1));
    let ids = read(r#"{"lists": [[4.0, 1e1]]}"#).unwrap().take_input("lists");
    assert_eq!(ids, Some(Input::IdLists(vec![vec![4, 10]])));
    for (body, expected) in [
        (r#"{"count": 4.5}"#, "4.5 is not of type 'integer' - 'count'"),
        (
            r#"{"count": 1e300}"#,
            "1e+300 is greater than the maximum of 18446744073709551615 - 'count'",
        ),
        (r#"{"text": ""}"#, "'' is too short - 'text'"),
        (r#"{"text": "abcd"}"#, "A string of more than 3 bytes - 'text'"),
        (r#"{"ascii": "a b"}"#, "Not 1 to 2 visible ASCII characters - 'ascii'"),
        (r#"{"ascii": ""}"#, "Not 1 to 2 visible ASCII characters - 'ascii'"),
        (r#"{"count": 0}"#, "0 is less than the minimum of 1 - 'count'"),
        (r#"{"list": []}"#, "[] is too short - 'list'"),
        (r#"{"list": ["a", "b", "c"]}"#, "More than 2 items - 'list'"),
        (r#"{"list": ["a", 1]}"#, "1 is not of type 'string' - 'list[1]'"),
        (r#"{"list": ["a", null]}"#, "null is not of type 'string' - 'list[1]'"),
        (r#"{"either": 1}"#, "1 is not of type 'string' or 'array' - 'either'"),
        (r#"{"either": [""]}"#, "'' is too short - 'either[0]'"),
        (r#"{"bias": {"01": 0}}"#, "'01' is not a token id - 'bias'"),
        (r#"{"bias": {"1": 2}}"#, "2 is greater than the maximum of 1 - 'bias.1'"),
        (r#"{"bias": {"1": 0, "2": 0, "3": 0}}"#, "More than 2 entries - 'bias'"),
        (r#"{"object": {}}"#, "Required - 'object.word'"),
        (r#"{"object": {"word": null}}"#, "Required - 'object.word'"),
        (r#"{"object": {"word": "z"}}"#, "'z' is not one of ['x', 'y'] - 'object.word'"),
        (r#"{"object": {"word": "x", "on": 1}}"#, "1 is not of type 'boolean' - 'object.on'"),
        (r#"{"object": []}"#, "[] is not of type 'object' - 'object'"),
        (r#"{"lists": [[1], []]}"#, "The list of tokens must not be empty - 'lists[1]'"),
        (r#"{"lists": "x"}"#, "Must be a list of lists of token ids - 'lists'"),
    ] {
        let error = read(body).unwrap_err();
        assert_eq!((error.status().as_u16(), error.message().as_ref()), (400, expected));
        let path = expected.rsplit_once("- '").unwrap().1;
        assert_eq!(error.param(), path.strip_suffix('\''));
    }
}

/// As floats they would be the bounds themselves.
#[test]
fn integers_just_outside_of_64_bits_are_outside() {
    const SEED: Known = Known(&[&[Field::new("seed", Kind::integer(i64::MIN, i64::MAX))]]);
    let read = |written: &str| {
        let fields = parse(format!(r#"{{"seed": {written}}}"#).as_bytes(), SEED)?;
        fields.integer("seed")
    };
    for (written, is_within) in [
        ("-9223372036854775808", true),
        ("9223372036854775807", true),
        ("-9223372036854775809", false),
        ("9223372036854775808", false),
        ("-1e19", false),
        ("1e19", false),
    ] {
        assert_eq!(read(written).is_ok(), is_within, "{written}");
    }
    assert_eq!(read("-9223372036854775808").unwrap(), Some(i64::MIN));
}
