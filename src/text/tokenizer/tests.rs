//! Golden values, the `tokenizers` library as a reference, and vocabularies that mean harm.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::Instant;

use proptest::prelude::*;
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{PreTokenizerWrapper, SplitDelimiterBehavior, Tokenizer};

use unicode_normalization::UnicodeNormalization;

use super::vocabulary_tests::vocabulary;
use crate::model::load::gguf::{Metadata, Value};
use crate::text::testing::{GEMMA, QWEN, Real, SMOLLM};
use crate::text::{ChatMessage, ChatOptions, Text, TextError};

#[derive(serde::Deserialize)]
struct Golden {
    text: String,
    plain: Vec<u32>,
    special: Vec<u32>,
    special_with_bos: Vec<u32>,
}

fn every_golden_line_holds(real: &Real) {
    let text = real.text();
    let lines = real.golden("tokenizer.jsonl");
    assert!(lines.lines().count() > 100);
    for line in lines.lines() {
        let golden: Golden = serde_json::from_str(line).unwrap();
        let of = &golden.text;
        assert_eq!(text.encode(of, false, false), golden.plain, "plain: {of:?}");
        assert_eq!(text.encode(of, true, false), golden.special, "special: {of:?}");
        assert_eq!(text.encode(of, true, true), golden.special_with_bos, "with BOS: {of:?}");
        // NFC is not undone by decoding.
        let normal: String = match real.name {
            name if name.starts_with("qwen") => of.nfc().collect(),
            _ => of.clone(),
        };
        assert_eq!(text.decode(&golden.plain, false), normal, "back from plain");
        assert_eq!(text.decode(&golden.special, false), normal, "back from special");
    }
}

#[test]
fn smollm_matches_its_golden_file() {
    every_golden_line_holds(&SMOLLM);
}

#[test]
fn qwen_matches_its_golden_file() {
    every_golden_line_holds(&QWEN);
}

#[test]
fn gemma_matches_its_golden_file() {
    every_golden_line_holds(&GEMMA);
}

#[test]
fn special_tokens_can_be_left_out() {
    let text = SMOLLM.text();
    let ids = text.encode("<|im_start|>user\nHi<|im_end|>\n", true, false);
    assert_eq!(text.decode(&ids, true), "user\nHi\n");
    assert_eq!(text.end_tokens(), [0, 2]);
    assert_eq!(QWEN.text().end_tokens(), [151_643, 151_645]);
    assert_eq!(GEMMA.text().end_tokens(), [1, 106]);
    assert!(GEMMA.text().adds_bos() && !text.adds_bos());
}

#[test]
fn labels_are_text_or_bytes_and_no_two_are_alike() {
    assert_eq!(GEMMA.text().token_label(238 + 0x41), "bytes:\\x41");
    assert_eq!(GEMMA.text().token_label(236_743), " ");
    for real in [&SMOLLM, &QWEN, &GEMMA] {
        let text = real.text();
        let mut seen = HashMap::new();
        for id in 0..=text.vocab() as u32 {
            if let Some(other) = seen.insert(text.token_label(id), id) {
                panic!("{}: {other} and {id} are both {:?}", real.name, text.token_label(id));
            }
        }
    }
    let text = SMOLLM.text();
    let broken = (0..text.vocab() as u32).find(|&id| text.token_bytes(id) == [0xe2, 0x96]);
    assert_eq!(text.token_label(broken.unwrap()), "bytes:\\xe2\\x96");
}

/// The pattern in Qwen 2's `tokenizer.json`.
const QWEN2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|",
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
);

/// The same tokenizer by the library that `transformers` uses.
fn reference(real: &Real, pre: &str) -> Tokenizer {
    let metadata = real.metadata();
    let tokens = metadata.strings("tokenizer.ggml.tokens").unwrap();
    let vocab = tokens.iter().cloned().zip(0..).collect::<HashMap<_, u32>>();
    let merges = metadata.strings("tokenizer.ggml.merges").unwrap().iter();
    let merges = merges.map(|m| m.split_once(' ').unwrap()).map(|(a, b)| (a.into(), b.into()));
    let bpe = BPE::builder()
        .vocab_and_merges(
            vocab.into_iter().collect::<tokenizers::models::bpe::Vocab>(),
            merges.collect(),
        )
        .build()
        .unwrap();
    let mut tokenizer = Tokenizer::new(bpe);
    let splits: Vec<PreTokenizerWrapper> = if pre == "smollm" {
        vec![Digits::new(true).into(), ByteLevel::new(false, true, true).into()]
    } else {
        let pattern = SplitPattern::Regex(QWEN2.to_owned());
        let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false).unwrap();
        vec![split.into(), ByteLevel::new(false, true, false).into()]
    };
    tokenizer.with_pre_tokenizer(Some(Sequence::new(splits)));
    tokenizer
}

/// Text that is hard on pre-tokenizers: blanks, line ends, contractions, digits and letters of many
/// scripts, marks that normalisation moves, and anything else.
pub(super) fn hard_text() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        4 => "[ \\t\\r\\n\u{a0}\u{3000}\u{85}]{0,4}",
        4 => "['’](s|S|ſ|t|re|RE|Ve|m|ll|lL|d|x)?",
        3 => "[0-9٣½Ⅷ²]{0,3}",
        1 => "[0-9]{0,10}",
        4 => "[a-zA-ZéßЖא中あ한ⅷªǅʰ々ͅa\u{301}\u{1161}\u{1100}]{0,6}",
        2 => "[a-zA-Z]{0,6}",
        1 => "[぀-ヿㄅ-ㆎ一-三豈가-각！-～、-〿฀-๿]{0,4}",
        3 => "[-+*/<>|_.,:;!?(){}\"#\u{200d}\u{301}\u{5b0}\u{0}-\u{1f}]{0,4}",
        1 => "\\PC{0,4}",
        1 => ".{0,3}",
    ];
    prop::collection::vec(part, 0..12).prop_map(|parts| parts.concat())
}

fn agrees_with_the_reference(real: &Real, pre: &str) {
    let (text, reference) = (real.text(), reference(real, pre));
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(1_000)
    });
    runner
        .run(&hard_text(), |of| {
            // The library's own tables for normalisation are of an older Unicode than ours.
            let normal = if pre == "qwen2" { of.nfc().collect() } else { of.clone() };
            let expected = reference.encode(normal.as_str(), false).unwrap();
            prop_assert_eq!(text.encode(&of, false, false), expected.get_ids());
            Ok(())
        })
        .unwrap();
}

#[test]
fn smollm_agrees_with_the_tokenizers_library() {
    agrees_with_the_reference(&SMOLLM, "smollm");
}

#[test]
fn qwen_agrees_with_the_tokenizers_library() {
    agrees_with_the_reference(&QWEN, "qwen2");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn gemma_gives_every_text_back(of in hard_text()) {
        let text = GEMMA.text();
        // U+2581 is how blanks are written inside: it comes back as one.
        prop_assume!(!of.contains('\u{2581}'));
        prop_assert_eq!(text.decode(&text.encode(&of, false, true), true), of);
    }
}

/// Seconds of this thread on a processor, where the system tells: how busy the machine is does not
/// count. Elsewhere, seconds.
pub(super) fn clock() -> f64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let told = told.and_then(|line| line.split(' ').next()?.parse::<f64>().ok());
    told.map_or_else(|| START.elapsed().as_secs_f64(), |ns| ns / 1e9)
}

#[test]
fn one_long_word_takes_no_quadratic_time() {
    let words =
        ["a", "ab", " ", "\n", "\r\n ", "日本", "'", "1", "\u{301}", ">", "<|im_start|", "\t "];
    let real = [&SMOLLM, &QWEN, &GEMMA].map(|real| (real.name, real.text().clone()));
    let more = ["llama-bpe", "gemma-4", "deepseek-llm"].map(|name| (name, vocabulary(name)));
    for (name, text) in real.into_iter().chain(more) {
        for word in words {
            let seconds = |times: usize, bytes: usize| {
                let of = word.repeat(bytes / word.len());
                let start = clock();
                for _ in 0..times {
                    assert!(!text.encode(&of, true, false).is_empty());
                }
                clock() - start
            };
            let (short, long) = (seconds(64, 1 << 11), seconds(1, 1 << 17));
            // As many bytes in both: linear is 1 (a few, as the caches get too small), quadratic 64.
            assert!(long < 20.0 * short.max(0.005), "{name} {word:?}: {short} {long}");
        }
    }
}

/// A small vocabulary that is right: `a`, `b`, `ab`, a blank in GPT-2's alphabet, and `<s>`.
fn small(model: &str) -> Metadata {
    let strings = |texts: &[&str]| Value::Strings(texts.iter().map(|&t| t.to_owned()).collect());
    let mut metadata = Metadata::default();
    let mut set = |key: &str, value| metadata.values.insert(format!("tokenizer.ggml.{key}"), value);
    set("model", Value::String(model.to_owned()));
    set("tokens", strings(&["a", "b", "ab", "Ġ", "<s>"]));
    set("token_type", Value::I64s(vec![1, 1, 1, 1, 3]));
    set("bos_token_id", Value::U64(4));
    set("unknown_token_id", Value::U64(4));
    if model == "llama" {
        set("scores", Value::F32s(vec![-1.0, -2.0, 0.0, f32::NAN, 0.0]));
    } else {
        set("pre", Value::String("smollm".to_owned()));
        set("merges", strings(&["a b"]));
    }
    metadata
}

fn refused(model: &str, key: &str, value: Option<Value>) -> String {
    let mut metadata = small(model);
    let key = format!("tokenizer.ggml.{key}");
    match value {
        Some(value) => metadata.values.insert(key, value),
        None => metadata.values.remove(&key),
    };
    let TextError(reason) = Text::from_gguf(&metadata).unwrap_err();
    reason
}

#[test]
fn small_vocabularies_work() {
    let text = Text::from_gguf(&small("gpt2")).unwrap();
    assert_eq!(text.encode("abba ab<s>", true, true), [2, 1, 0, 3, 2, 4]);
    assert_eq!(text.encode("a<b", false, false), [0, 1], "bytes without a token are left out");
    let text = Text::from_gguf(&small("llama")).unwrap();
    assert!(text.adds_bos(), "SentencePiece adds it unless told otherwise");
    // No piece for a blank: the unknown token.
    assert_eq!(text.encode("abba", true, true), [4, 4, 2, 1, 0]);
}

#[test]
fn the_prefix_of_sentencepiece_is_taken_away_again() {
    let mut metadata = small("llama");
    let tokens = ["a", "b", "ab", "▁", "<s>"].map(str::to_owned).to_vec();
    metadata.values.insert("tokenizer.ggml.tokens".to_owned(), Value::Strings(tokens));
    let text = Text::from_gguf(&metadata).unwrap();
    for of in ["ab", " ab", "a  b", "ab<s>b", "<s>", "<s> a", "<s><s>a<s>", ""] {
        let ids = text.encode(of, true, false);
        assert_eq!(text.decode(&ids, false), of, "{ids:?}");
    }
    assert_eq!(text.encode("ab", true, false), [3, 2]);
    let mut generated = crate::text::Detokenizer::new(true);
    assert_eq!(
        generated.push(&text, 3) + &generated.push(&text, 2),
        " ab",
        "goes on after a prompt"
    );
}

#[test]
fn unknown_names_are_refused_by_name() {
    let name = |name: &str| Some(Value::String(name.to_owned()));
    let unigram = refused("gpt2", "model", name("t5"));
    assert_eq!(unigram, "tokenizer.ggml.model t5 (Unigram) is not supported");
    assert_eq!(refused("gpt2", "model", name("t6")), "unknown tokenizer.ggml.model t6");
    assert_eq!(refused("gpt2", "pre", name("llama-9")), "unknown tokenizer.ggml.pre llama-9");
    let encoder = refused("gpt2", "pre", name("mmbert"));
    assert_eq!(encoder, "tokenizer.ggml.pre mmbert, of encoders, is not supported");
    assert_eq!(refused("llama", "pre", name("smollm")), "unknown tokenizer.ggml.pre smollm");
    assert!(refused("gpt2", "pre", None).contains("tokenizer.ggml.pre is missing"));
}

#[test]
fn vocabularies_that_do_not_fit_are_refused() {
    let strings =
        |texts: &[&str]| Some(Value::Strings(texts.iter().map(|&t| t.to_owned()).collect()));
    for (model, key, value, reason) in [
        ("gpt2", "tokens", None, "tokens is missing"),
        ("gpt2", "tokens", strings(&[]), "has 5 elements for 0 tokens"),
        ("gpt2", "tokens", Some(Value::U64(1)), "not an array of strings"),
        ("gpt2", "token_type", Some(Value::I64s(vec![1])), "no known type for token 1"),
        ("gpt2", "token_type", Some(Value::I64s(vec![1; 6])), "has 6 elements for 5 tokens"),
        ("gpt2", "token_type", Some(Value::I64s(vec![1, 9])), "no known type for token 1"),
        ("gpt2", "token_type", Some(Value::I64s(vec![6; 5])), "tokens[0] is no byte"),
        ("gpt2", "token_type", Some(Value::I64s(vec![4; 5])), "names something that is no token"),
        ("gpt2", "merges", None, "merges is missing"),
        ("gpt2", "merges", strings(&["ab"]), "merges[0] is not two tokens"),
        ("gpt2", "merges", strings(&["", "a b"]), "merges[0] is not two tokens"),
        ("gpt2", "merges", strings(&["a b", "a c"]), "merges[1] names something that is no token"),
        ("gpt2", "merges", strings(&["b a"]), "merges[0] makes something that is no token"),
        ("gpt2", "bos_token_id", Some(Value::U64(5)), "bos_token_id is 5, but there are only 5"),
        ("gpt2", "eos_token_id", Some(Value::I64(-1)), "eos_token_id is -1"),
        ("llama", "scores", None, "scores is missing"),
        ("llama", "scores", Some(Value::F32s(vec![0.0; 4])), "has 4 elements for 5 tokens"),
        ("llama", "unknown_token_id", None, "no token for byte 0x00"),
    ] {
        let found = refused(model, key, value);
        assert!(found.contains(reason), "{key}: {found}");
    }
}

#[test]
fn special_tokens_are_bounded() {
    let long = "x".repeat((1 << 20) + 1);
    let tokens = ["a", "b", "ab", "Ġ", &long].map(str::to_owned).to_vec();
    assert!(refused("gpt2", "tokens", Some(Value::Strings(tokens))).contains("1 MiB of special"));
}

#[test]
fn the_fake_vocabulary_works_at_any_size() {
    for size in [1, 2, 3, 50, 259, 300, 1_000] {
        let text = Text::fake(size);
        assert_eq!(text.vocab(), size);
        let ids = text.encode("Tell me é 😀<|user|>", true, true);
        assert!(ids.iter().all(|&id| (id as usize) < size));
        if size >= 259 {
            assert_eq!(text.decode(&ids, false), "Tell me é 😀<|user|>");
            assert_eq!(text.decode(&ids, true), "Tell me é 😀");
        }
    }
    let chat =
        Text::fake(300).render_chat(&[ChatMessage::new("user", "Hi")], &ChatOptions::default());
    assert_eq!(chat.unwrap(), "<|user|>Hi<|assistant|>");
}

#[test]
fn twins_are_told_apart() {
    let mut metadata = small("gpt2");
    let tokens = ["a", "a", "ab", "b", "a"].map(str::to_owned).to_vec();
    metadata.values.insert("tokenizer.ggml.tokens".to_owned(), Value::Strings(tokens));
    let text = Text::from_gguf(&metadata).unwrap();
    assert_eq!(text.encode("ab", false, false), [2]);
    let labels = (0..6).map(|id| text.token_label(id)).collect::<Vec<_>>();
    assert_eq!(labels, ["a", "token_id:1", "ab", "b", "token_id:4", "token_id:5"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever the vocabulary is: an error or a tokenizer, never a panic.
    #[test]
    fn no_vocabulary_panics(
        model in prop_oneof![Just("gpt2"), Just("llama")],
        tokens in prop::collection::vec("[ab▁Ġ<>x0-9]{0,4}|<0x[0-9A-F]{2}>", 0..20),
        types in prop::collection::vec(-1_i64..8, 0..20),
        scores in prop::collection::vec(any::<f32>(), 0..20),
        merges in prop::collection::vec("[ab▁Ġ]{0,2} ?[ab]{0,2}", 0..10),
        ids in prop::collection::vec(0_u64..30, 3),
        of in "[ab ▁<>x0-9日]{0,20}",
    ) {
        let mut metadata = small(model);
        let keep_types = tokens.len() % 3 == 0;
        let full = |mut v: Vec<i64>| { if keep_types { v.resize(tokens.len(), 1); } v };
        let mut scores = scores;
        if keep_types { scores.resize(tokens.len(), 0.0); }
        for (key, value) in [
            ("token_type", Value::I64s(full(types))),
            ("scores", Value::F32s(scores)),
            ("tokens", Value::Strings(tokens.clone())),
            ("merges", Value::Strings(merges)),
            ("bos_token_id", Value::U64(ids[0])),
            ("eot_token_id", Value::U64(ids[1])),
            ("unknown_token_id", Value::U64(ids[2])),
        ] {
            metadata.values.insert(format!("tokenizer.ggml.{key}"), value);
        }
        if let Ok(text) = Text::from_gguf(&metadata) {
            let ids = text.encode(&of, true, true);
            prop_assert!(ids.iter().all(|&id| (id as usize) < text.vocab()));
            let _ = text.decode(&ids, false);
        }
    }
}
