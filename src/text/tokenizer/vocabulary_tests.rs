//! llama.cpp's own vocabularies, with the tokens that transformers makes of the texts beside them.

use std::path::{Path, PathBuf};

use unicode_normalization::UnicodeNormalization as _;

use crate::model::load::gguf::Gguf;
use crate::text::Text;

/// `make models` fetches them.
pub(super) fn vocabulary(name: &str) -> Text {
    let path = folder().join(format!("ggml-vocab-{name}.gguf"));
    let gguf = Gguf::open(&path).unwrap_or_else(|e| panic!("{e}: run `make models`"));
    Text::from_gguf(&gguf.metadata).unwrap()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/vocabularies")
}

/// The texts and what they become, in order.
fn examples(name: &str) -> Vec<(String, Vec<u32>)> {
    let read = |ending: &str| {
        let path = folder().join(format!("ggml-vocab-{name}.gguf.{ending}"));
        std::fs::read_to_string(&path)
            .unwrap_or_else(|e| panic!("{}: {e}: run `make models`", path.display()))
    };
    let (texts, tokens) = (read("inp"), read("out"));
    let mut texts: Vec<_> = texts.split("\n__ggml_vocab_test__\n").map(str::to_owned).collect();
    // In most files the separator ends the last one, too.
    texts.pop_if(|last| last.is_empty());
    let tokens = tokens
        .lines()
        .map(|line| line.split_whitespace().map(|id| id.parse().unwrap()).collect::<Vec<u32>>());
    let examples: Vec<_> = texts.into_iter().zip(tokens.clone()).collect();
    assert_eq!(examples.len(), tokens.count());
    assert!(examples.len() > 40);
    examples
}

fn agrees(name: &str) {
    let text = vocabulary(name);
    let mut not_normal = 0;
    for (of, expected) in examples(name) {
        let ids = text.encode(&of, false, false);
        let normal: String = of.nfc().collect();
        if normal == of {
            assert_eq!(ids, expected, "{name}: {of:?}");
        } else {
            // These are llama.cpp's own, which has no normalisation; transformers' Qwen 3.5 has.
            not_normal += 1;
            assert_eq!(ids, text.encode(&normal, false, false), "{name}: {of:?}");
        }
        assert_eq!(text.decode(&ids, false), normal, "{name}: back again");
    }
    assert_eq!(not_normal, if name == "qwen35" { 3 } else { 0 });
}

macro_rules! vocabularies {
    ($($test:ident: $name:literal)*) => {$(
        #[test]
        fn $test() {
            agrees($name);
        }
    )*};
}

vocabularies! {
    command_r: "command-r"
    deepseek_coder: "deepseek-coder"
    deepseek_llm: "deepseek-llm"
    falcon: "falcon"
    gemma_4: "gemma-4"
    gpt_2: "gpt-2"
    llama_bpe: "llama-bpe"
    llama_spm: "llama-spm"
    mpt: "mpt"
    phi_3: "phi-3"
    qwen2: "qwen2"
    qwen35: "qwen35"
    refact: "refact"
    starcoder: "starcoder"
}

#[test]
fn what_goes_with_a_name() {
    assert!(vocabulary("llama-bpe").adds_bos() && vocabulary("gemma-4").adds_bos());
    assert!(!vocabulary("gpt-2").adds_bos() && !vocabulary("falcon").adds_bos());
    // Phi-3's markers take the blanks behind them along.
    let text = vocabulary("phi-3");
    let ids = |of: &str| text.encode(of, true, false);
    assert_eq!(ids("<|user|>\n Hi<|end|>\n<|assistant|>"), ids("<|user|>Hi<|end|><|assistant|>"));
    assert_ne!(ids("<s>\nHi"), ids("<s>Hi"));
    assert_ne!(text.encode("<|end|>\n", false, false), text.encode("<|end|>", false, false));
}
