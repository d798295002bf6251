//! The `tokenizers` library as a reference for every pattern that is named.

use proptest::prelude::*;
use tokenizers::pre_tokenizers::split::{Split as Reference, SplitPattern};
use tokenizers::{
    OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer as _, SplitDelimiterBehavior,
};

use super::Split;
use super::pre::{ENCODERS, PRES, Pre};
use crate::text::tokenizer::tests::{clock, hard_text};

fn references(pre: &Pre) -> Vec<Reference> {
    let reference = |&pattern: &&str| {
        let pattern = SplitPattern::Regex(pattern.to_owned());
        Reference::new(pattern, SplitDelimiterBehavior::Isolated, false).unwrap()
    };
    pre.patterns.iter().map(reference).collect()
}

fn words<'t>(split: &Split, text: &'t str) -> Vec<&'t str> {
    let mut words = Vec::new();
    split.words(text, |word| words.push(word));
    words
}

fn assert_as_the_library_has_it(split: &Split, references: &[Reference], text: &str) {
    let mut expected = PreTokenizedString::from(text);
    for reference in references {
        reference.pre_tokenize(&mut expected).unwrap();
    }
    let expected = expected.get_splits(OffsetReferential::Original, OffsetType::Byte);
    let expected: Vec<_> = expected.into_iter().map(|(word, ..)| word).collect();
    assert_eq!(words(split, text), expected, "{text:?}");
}

#[test]
fn every_pattern_cuts_as_the_tokenizers_library_does() {
    for pre in &PRES {
        let (split, references) = (Split::new(pre).unwrap(), references(pre));
        for text in [
            "",
            "1234567 1234567a ½1234 ½123 12٣٣½1234 1.234.567",
            "A1 HTTPServer's ǅaǅ McDonald'S don'T 'Re",
            "\n\n \n  \n\r\n a\t\t b   \n",
            "<sentinel:12>IMGIMGABCZ  \t\n    x",
            "日本語 カタカナ 한국어 ไทย ខ្មែរ！？。",
            "a b c hello world (x|y) $+<=>^`|~ [a] {b}",
            &" ".repeat(1100),
            &format!("{}x{}", " ".repeat(1023), "\u{3000}".repeat(600)),
        ] {
            assert_as_the_library_has_it(&split, &references, text);
        }
        let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::with_cases(400)
        });
        let agrees = |text: String| {
            assert_as_the_library_has_it(&split, &references, &text);
            Ok(())
        };
        if let Err(error) = runner.run(&hard_text(), agrees) {
            panic!("{}: {error}", pre.names[0]);
        }
    }
}

#[test]
fn names_are_unique_and_in_order() {
    let mut names: Vec<_> = PRES.iter().flat_map(|pre| pre.names).copied().collect();
    names.extend(ENCODERS);
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
    assert!(PRES.iter().all(|pre| pre.names.is_sorted()));
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/tokenizers.md");
    let docs = std::fs::read_to_string(docs).unwrap();
    let missing: Vec<_> =
        names.iter().filter(|name| !docs.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "not in docs/tokenizers.md: {missing:?}");
}

#[test]
fn no_text_takes_quadratic_time() {
    let parts = [
        "a",
        "aA",
        "A",
        " ",
        "\n",
        "\r\n ",
        "日本",
        "'",
        "1",
        "½",
        "\u{301}",
        ">",
        "\t ",
        "\u{200d}",
        "IMGIMGABCD",
        "<sentinel:1",
        "a b",
        " \u{3000}",
    ];
    for pre in &PRES {
        let split = Split::new(pre).unwrap();
        for part in parts {
            let seconds = |times: usize, bytes: usize| {
                let text = part.repeat(bytes / part.len());
                let start = clock();
                for _ in 0..times {
                    let mut sum = 0;
                    split.words(&text, |word| sum += word.len());
                    assert_eq!(sum, text.len());
                }
                clock() - start
            };
            let (short, long) = (seconds(64, 1 << 11), seconds(1, 1 << 17));
            // As many bytes in both: linear is 1, quadratic 64.
            assert!(long < 20.0 * short.max(0.002), "{} {part:?}: {short} {long}", pre.names[0]);
        }
    }
}
