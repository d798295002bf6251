use proptest::prelude::*;

use super::{Detokenizer, Utf8};
use crate::text::testing::{FAKE, GEMMA, SMOLLM};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn pieces_are_the_whole(tokens in prop::collection::vec(0_u32..300, 0..40), skip: bool) {
        let mut detokenizer = Detokenizer::new(skip);
        let (mut text, mut bytes) = (String::new(), Vec::new());
        for &token in &tokens {
            let piece = detokenizer.push(&FAKE, token);
            text.push_str(&piece);
            if !(skip && FAKE.is_special(token)) {
                bytes.extend_from_slice(FAKE.token_bytes(token));
            }
            // At every moment: all that is certain, and nothing that is not.
            let so_far = String::from_utf8_lossy(&bytes);
            prop_assert!(so_far.starts_with(&text));
            prop_assert!(so_far.chars().count() <= text.chars().count() + 1);
        }
        text.push_str(detokenizer.finish());
        prop_assert_eq!(&text, &String::from_utf8_lossy(&bytes));
        prop_assert_eq!(detokenizer.chars(), text.chars().count());
        prop_assert_eq!(&FAKE.decode(&tokens, skip), &text);
    }

    #[test]
    fn no_replacement_while_bytes_may_come(text in "\\PC{0,20}", cuts in prop::collection::vec(1..4_usize, 80)) {
        let (mut utf8, mut out, mut rest) = (Utf8::default(), String::new(), text.as_bytes());
        for cut in cuts {
            let (head, tail) = rest.split_at(cut.min(rest.len()));
            utf8.push(head, &mut out);
            prop_assert!(text.starts_with(&out));
            rest = tail;
        }
        prop_assert_eq!(utf8.finish(), "");
        prop_assert_eq!(out, text);
    }

    #[test]
    fn offsets_say_where_a_tokens_text_begins(tokens in prop::collection::vec(0_u32..300, 0..40)) {
        let (mut text, offsets, mut end) = FAKE.decode_with_offsets(&tokens, true);
        text.push_str(end.finish());
        let (mut bytes, mut starts) = (Vec::new(), Vec::new());
        for &token in &tokens {
            starts.push(bytes.len());
            if !FAKE.is_special(token) {
                bytes.extend_from_slice(FAKE.token_bytes(token));
            }
        }
        // Which byte each character begins at, as the lossy conversion cuts them.
        let mut begins = Vec::new();
        let mut at = 0;
        for chunk in bytes.utf8_chunks() {
            begins.extend(chunk.valid().char_indices().map(|(i, _)| at + i));
            at += chunk.valid().len();
            if !chunk.invalid().is_empty() {
                begins.push(at);
                at += chunk.invalid().len();
            }
        }
        prop_assert_eq!(begins.len(), text.chars().count());
        for (index, &token) in tokens.iter().enumerate() {
            let has_text = !FAKE.is_special(token) && !FAKE.token_bytes(token).is_empty();
            if has_text {
                // The character that holds the token's first byte.
                let expected = begins.partition_point(|&b| b <= starts[index]) - 1;
                prop_assert_eq!(offsets[index], expected, "token {}", index);
            }
        }
    }
}

#[test]
fn a_character_in_four_tokens_comes_whole() {
    let text = SMOLLM.text();
    for real in ["😀", "日本語", "🇫🇷"] {
        let ids = real.bytes().map(|byte| {
            (0..text.vocab() as u32).find(|&id| text.token_bytes(id) == [byte]).unwrap()
        });
        let mut detokenizer = Detokenizer::new(true);
        let pieces = ids.map(|id| detokenizer.push(text, id)).collect::<Vec<_>>();
        assert_eq!(pieces.concat(), real);
        assert!(pieces.iter().all(|piece| !piece.contains('\u{fffd}')), "{pieces:?}");
        assert_eq!(detokenizer.finish(), "");
    }
}

#[test]
fn bytes_of_gemma_make_characters() {
    let text = GEMMA.text();
    // <0xE2>, <0x96>: the beginning of a character that never ends.
    let (decoded, offsets, end) =
        text.decode_with_offsets(&[238 + 0xe2, 238 + 0x96, 236_744], false);
    assert_eq!((decoded.as_str(), end.chars()), ("\u{fffd}e", 2));
    assert_eq!(offsets, [0, 0, 1]);
}
