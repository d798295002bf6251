//! The small models of `tests/models`: what the `tokenizers` library makes of their texts, and what is refused.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde_json::{Value, json};
use tokenizers::Tokenizer as Reference;

use super::Beside;
use crate::text::Text;

fn models() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models");
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut models: Vec<_> = entries.filter(|path| path.join("tokenizer.json").exists()).collect();
    models.sort();
    assert!(models.len() > 20);
    models
}

fn load(folder: &Path) -> Text {
    let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
    let config = read("tokenizer_config.json");
    let beside = Beside { tokenizer_config: Some(&config), ..Beside::default() };
    Text::from_hf(&read("tokenizer.json"), beside)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
}

#[derive(serde::Deserialize)]
struct Expected {
    tokenizer: Vec<Example>,
}

#[derive(serde::Deserialize)]
struct Example {
    text: String,
    ids: Vec<u32>,
}

#[test]
fn every_model_has_the_expected_tokens() {
    for folder in models() {
        let text = load(&folder);
        let expected = std::fs::read(folder.join("expected.json")).unwrap();
        let expected: Expected = serde_json::from_slice(&expected).unwrap();
        assert!(!expected.tokenizer.is_empty());
        for Example { text: of, ids } in expected.tokenizer {
            let found = text.encode(&of, true, true);
            assert_eq!(found, ids, "{}: {of:?}", folder.display());
            assert_eq!(text.decode(&found, true), of, "{}", folder.display());
        }
    }
}

fn agrees(reference: &Reference, text: &Text, of: &str) {
    let expected = reference.encode(of, false).unwrap();
    assert_eq!(text.encode(of, true, false), expected.get_ids(), "{of:?}");
}

fn runner(cases: u32) -> proptest::test_runner::TestRunner {
    proptest::test_runner::TestRunner::new(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(cases)
    })
}

#[test]
fn every_model_agrees_with_the_tokenizers_library() {
    for folder in models() {
        let reference = Reference::from_file(folder.join("tokenizer.json")).unwrap();
        let text = load(&folder);
        let texts =
            "[ a-eThewlturns.,!0-9\n\tïÜ水車]{0,20}(<s>|</s>|<bos>|<\\|endoftext\\|>)?[ a-z]{0,9}";
        runner(100)
            .run(&texts, |of| {
                // U+2581 is no blank to the library where it stands in a text, but is one here.
                agrees(&reference, &text, &of);
                Ok(())
            })
            .unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    }
}

/// A small file that is right.
fn small(byte_level: bool) -> Value {
    let normalizer = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    let mut vocab: serde_json::Map<String, Value> = (0..256)
        .map(|byte| {
            (if byte_level { format!("!{byte}") } else { format!("<0x{byte:02X}>") }, byte.into())
        })
        .collect();
    for word in ["a", "b", "ab", "Ġ", "▁", "▁a", "x", "<unk>"] {
        vocab.insert(word.to_owned(), vocab.len().into());
    }
    // Both forms that files have.
    let merges = if byte_level { json!(["a b"]) } else { json!([["a", "b"], ["▁", "a"]]) };
    let token = |id: u32, content: &str, special: bool| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": special})
    };
    json!({
        "added_tokens": [token(264, "<s>", true), token(265, "<tool>", false)],
        "normalizer": if byte_level { Value::Null } else { normalizer },
        "pre_tokenizer": if byte_level { bytes } else { Value::Null },
        "post_processor": null,
        "decoder": null,
        "model": {"type": "BPE", "vocab": vocab, "merges": merges, "unk_token": null,
                  "byte_fallback": !byte_level, "fuse_unk": false},
    })
}

fn from(file: &Value) -> Result<Text, String> {
    Text::from_hf(file.to_string().as_bytes(), Beside::default()).map_err(|e| e.to_string())
}

/// The same file for both; the library's ids are the measure.
fn both(file: &Value, texts: &[&str]) {
    let reference = Reference::from_bytes(file.to_string()).unwrap();
    let text = from(file).unwrap();
    for of in texts {
        agrees(&reference, &text, of);
    }
}

const TEXTS: [&str; 9] =
    ["", "ab", " ab", "  ab a", "ab<s> ab", "<s>ab", "<s> ab<s>  a", "a<tool>  <s>b", "日<tool>"];

#[test]
fn blanks_in_front_are_where_the_library_has_them() {
    both(&small(false), &TEXTS);
    let mut file = small(false);
    let replace = file["normalizer"].take();
    file["normalizer"] =
        json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, replace]});
    both(&file, &TEXTS);
    for scheme in ["always", "first", "never"] {
        for split in [true, false] {
            file["normalizer"] = Value::Null;
            file["pre_tokenizer"] = json!({"type": "Metaspace", "replacement": "▁",
                                           "prepend_scheme": scheme, "split": split});
            both(&file, &TEXTS);
        }
    }
}

#[test]
fn added_tokens_take_blanks_along() {
    for (left, right) in [(true, false), (false, true), (true, true)] {
        for byte_level in [true, false] {
            let mut file = small(byte_level);
            file["added_tokens"][0]["lstrip"] = left.into();
            file["added_tokens"][0]["rstrip"] = right.into();
            both(&file, &TEXTS);
        }
    }
}

/// They are found in what is left between the others, and in its normal form.
#[test]
fn normalized_added_tokens_are_found_as_the_library_does() {
    const TEXTS: [&str; 10] = [
        "a<tool>b",
        "a<tool>\u{338}b<tool>",
        "\u{212a}x K",
        "abcd",
        "ab<tool><s>abc",
        "e\u{301}x \u{e9}x",
        "<s>\u{338}ab",
        "  ab<tool> ",
        "<tool<tool>",
        "bcbc<s>Kx",
    ];
    for nfc in [false, true] {
        for byte_level in [true, false] {
            let mut file = small(byte_level);
            if nfc && byte_level {
                file["normalizer"] = json!({"type": "NFC"});
            }
            let token = |id: u32, content: &str, normalized: bool| {
                json!({"id": id, "content": content, "single_word": false, "lstrip": false,
                       "rstrip": normalized, "normalized": normalized, "special": false})
            };
            let all = file["added_tokens"].as_array_mut().unwrap();
            all[1]["normalized"] = true.into();
            all.extend([
                token(266, "Kx", true),
                token(267, "\u{e9}x", true),
                // The longer one begins later, and comes first all the same.
                token(268, "abc", true),
                token(269, "bcd", false),
            ]);
            both(&file, &TEXTS);
        }
    }
    let mut file = small(true);
    file["normalizer"] = json!({"type": "NFC"});
    file["added_tokens"][1]["normalized"] = true.into();
    file["added_tokens"][1]["content"] = "e\u{301}".into();
    assert!(from(&file).unwrap_err().contains("normalized, with this normalizer,"));
    let mut file = small(false);
    file["added_tokens"][1]["content"] = "\u{2581}new".into();
    assert!(from(&file).unwrap_err().contains("U+2581, without being a word of the model,"));
    file["added_tokens"][1] = file["added_tokens"][0].take();
    file["added_tokens"][0] =
        json!({"id": 261, "content": "\u{2581}a", "special": false, "normalized": true});
    assert!(from(&file).unwrap_err().contains("normalized, with this normalizer,"));
}

#[test]
fn what_is_done_otherwise_is_refused_by_name() {
    let refused = |byte_level: bool, path: &str, value: Value| {
        let mut file = small(byte_level);
        *file.pointer_mut(path).unwrap() = value;
        from(&file).unwrap_err()
    };
    for (path, value, reason) in [
        ("/model/type", json!("Unigram"), "model.type \"Unigram\" is not supported"),
        ("/model/type", json!("WordPiece"), "model.type \"WordPiece\" is not supported"),
        ("/model/byte_fallback", json!(true), "model.byte_fallback true"),
        (
            "/model/merges",
            json!(["a b", "a c"]),
            "model.merges[1] names something that is no token",
        ),
        ("/model/merges", json!(["ab"]), "model.merges[0] is not two tokens"),
        ("/model/vocab", json!([]), "model.vocab is no object"),
        ("/model/vocab", json!({"a": 1 << 22}), "model.vocab has ids that are none below"),
        ("/model/vocab", json!({"a": 1, "b": 1}), "two tokens have the id 1"),
        ("/normalizer", json!({"type": "NFKC"}), "normalizer NFKC is not supported"),
        ("/pre_tokenizer", json!({"type": "BertPreTokenizer"}), "pre_tokenizer BertPreTokenizer"),
        ("/pre_tokenizer", json!({"type": "ByteLevel"}), "ByteLevel: add_prefix_space"),
        (
            "/pre_tokenizer",
            json!({"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": false}),
            "Split: unknown pattern \"(a+)+$\"",
        ),
        ("/pre_tokenizer", Value::Null, "neither byte-level nor writes blanks"),
        ("/post_processor", json!({"type": "BertProcessing"}), "post_processor BertProcessing"),
        ("/decoder", json!({"type": "WordPiece"}), "decoder WordPiece is not supported"),
        ("/added_tokens/0/single_word", json!(true), "added token \"<s>\": single_word"),
        ("/added_tokens/0/id", json!(u32::MAX), "ids have to be below"),
        ("/added_tokens/0/id", json!(3), "two tokens have the id 3"),
        (
            "/added_tokens/0/content",
            json!("ab"),
            "added token \"ab\" has the id 264, but the words before it make it 258",
        ),
        (
            "/added_tokens/1/id",
            json!(300),
            "added token \"<tool>\" has the id 300, but the words before it make it 265",
        ),
    ] {
        let found = refused(true, path, value);
        assert!(found.contains(reason) && found.starts_with("tokenizer.json: "), "{path}: {found}");
    }
    // As such a file is, whose words are a list.
    let mut unigram = small(true);
    unigram["model"] =
        json!({"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["a", -1.5]]});
    assert!(from(&unigram).unwrap_err().contains("model.type \"Unigram\" is not supported"));
    let mut incomplete = small(false);
    incomplete["model"]["vocab"] = json!({"a": 0, "b": 1, "ab": 2});
    incomplete["model"]["merges"] = json!(["a b"]);
    incomplete["added_tokens"] = json!([]);
    assert!(from(&incomplete).unwrap_err().contains("not every byte from <0x00> to <0xFF>"));
    // An unknown token does not help: it would stand for all of a character.
    let mut one_missing = small(false);
    one_missing["model"]["unk_token"] = json!("<unk>");
    let words = one_missing["model"]["vocab"].as_object_mut().unwrap();
    let id = words.remove("<0x41>").unwrap();
    words.insert("<0x4x>".to_owned(), id);
    assert!(from(&one_missing).unwrap_err().contains("not every byte from <0x00> to <0xFF>"));
}

/// The text side with these files beside the small one.
fn beside(config: &Value, special_tokens: Option<&Value>) -> Result<Text, String> {
    let [config, map] = [Some(config), special_tokens].map(|file| file.map(Value::to_string));
    let beside = Beside {
        tokenizer_config: config.as_deref().map(str::as_bytes),
        special_tokens: map.as_deref().map(str::as_bytes),
        ..Beside::default()
    };
    Text::from_hf(small(true).to_string().as_bytes(), beside).map_err(|e| e.to_string())
}

#[test]
fn tokens_have_names_in_either_file_and_the_configuration_comes_first() {
    let id = |text: &Text| text.end_tokens().to_vec();
    let content = json!({"content": "<s>", "lstrip": false});
    assert_eq!(id(&beside(&json!({"eos_token": content}), None).unwrap()), [264]);
    let map = json!({"eos_token": "<tool>", "additional_special_tokens": ["x"]});
    assert_eq!(id(&beside(&json!({}), Some(&map)).unwrap()), [265]);
    assert_eq!(id(&beside(&json!({"eos_token": null}), Some(&map)).unwrap()), [265]);
    assert_eq!(id(&beside(&json!({"eos_token": "<s>"}), Some(&map)).unwrap()), [264]);
    for wrong in [json!(7), json!({"text": "x"}), json!(["<s>"])] {
        let file = json!({"eos_token": wrong});
        let reason = beside(&file, None).err().unwrap();
        assert!(
            reason.starts_with("tokenizer_config.json: ") && !reason.contains("enum"),
            "{reason}"
        );
        let reason = beside(&json!({}), Some(&file)).err().unwrap();
        assert!(reason.starts_with("special_tokens_map.json: "), "{reason}");
    }
    let reason = beside(&json!({"eos_token": 7}), None).err().unwrap();
    assert!(
        reason.contains("expected the text of a token, or an object with that as its `content`"),
        "{reason}"
    );
}

#[test]
fn of_several_templates_the_default_or_the_only_one_serves() {
    let template = |name: &str| json!({"name": name, "template": name});
    let has_one = |given: Value| {
        beside(&json!({"chat_template": given}), None).map(|text| text.chat_template().is_some())
    };
    assert_eq!(has_one(json!("x")), Ok(true));
    assert_eq!(has_one(Value::Null), Ok(false));
    assert_eq!(has_one(json!([template("tool_use"), template("default")])), Ok(true));
    assert_eq!(has_one(json!([template("tool_use")])), Ok(true));
    // Nothing says which one is meant.
    assert_eq!(has_one(json!([template("tool_use"), template("rag")])), Ok(false));
    assert_eq!(has_one(json!([])), Ok(false));
    for wrong in [json!(7), json!({}), json!(["x"]), json!([{"name": "default"}])] {
        let reason = has_one(wrong).unwrap_err();
        assert!(reason.starts_with("tokenizer_config.json: chat_template "), "{reason}");
    }
}

#[test]
fn no_added_tokens_may_be_null() {
    let mut file = small(true);
    file["added_tokens"] = Value::Null;
    assert_eq!(from(&file).unwrap().vocab(), 264);
}

proptest! {
    /// Whatever the file is: an error or a tokenizer, never a panic.
    #[test]
    fn no_file_panics(at in 0_usize..3_000, byte in any::<u8>(), byte_level: bool) {
        let mut bytes = small(byte_level).to_string().into_bytes();
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Ok(text) = Text::from_hf(&bytes, Beside::default()) {
            let ids = text.encode("ab <s> a日", true, true);
            prop_assert!(ids.iter().all(|&id| (id as usize) < text.vocab()));
            let _ = text.decode(&ids, false);
        }
    }
}
