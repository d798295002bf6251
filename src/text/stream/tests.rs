use std::time::Instant;

use proptest::prelude::*;

use super::TextStream;
use crate::engine::message::TokenId;
use crate::text::Detokenizer;
use crate::text::stop::{STOP_BYTES_MAX, STOPS_MAX, StopError, StopSet};
use crate::text::testing::FAKE;

/// Where the first stop string begins, looked for in the simplest way: the least end, then the least
/// beginning.
fn first_stop(text: &str, stops: &[String], not_before: usize) -> Option<(usize, usize)> {
    (not_before + 1..=text.len()).find_map(|end| {
        let ends = |stop: &String| text.as_bytes()[..end].ends_with(stop.as_bytes());
        let longest = stops.iter().filter(|stop| ends(stop)).map(String::len).max()?;
        Some((end - longest, end))
    })
}

/// The longest end of `text` that begins some stop string without being all of it.
fn must_hold(text: &str, stops: &[String]) -> usize {
    let begins = |n: usize| {
        stops
            .iter()
            .any(|s| n < s.len() && s.as_bytes().starts_with(&text.as_bytes()[text.len() - n..]))
    };
    (0..=text.len()).rev().find(|&n| begins(n)).unwrap_or(0)
}

/// Tokens that make a text of few different characters, so that stops and near misses are common.
fn tokens() -> impl Strategy<Value = Vec<TokenId>> {
    let pieces = ["a", "b", "é", "😀", " the", "END", "\n\n", "E", "N"];
    let ids = pieces.iter().flat_map(|p| FAKE.encode(p, true, false)).collect::<Vec<_>>();
    // And single bytes of the characters, which make and break them.
    let bytes = "é😀"
        .bytes()
        .map(|b| (0..FAKE.vocab() as TokenId).find(|&id| FAKE.token_bytes(id) == [b]).unwrap());
    let ids = ids.into_iter().chain(bytes).chain([0, 1]).collect::<Vec<_>>();
    prop::collection::vec(prop::sample::select(ids), 0..30)
}

fn stops() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec("[abé]{1,4}|END|EN|😀a?|aab|a the|\n\nE|\u{fffd}a?", 1..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_stream_is_the_text_up_to_the_first_stop(
        tokens in tokens(), stops in stops(), skip: bool, shown: bool,
    ) {
        let set = StopSet::new(&stops).unwrap().shown(shown);
        let mut stream = TextStream::new(&FAKE, Some(&set), Detokenizer::new(skip));
        let mut watch = set.watch(&FAKE, Detokenizer::new(skip));
        let mut whole = Detokenizer::new(skip);
        let (mut sent, mut known) = (String::new(), String::new());
        let mut stopped = false;
        for &token in &tokens {
            let piece = stream.push(token, true);
            known.push_str(&whole.push(&FAKE, token));
            sent.push_str(&piece.text);
            prop_assert_eq!(piece.offset, whole.offset());
            prop_assert_eq!(watch.is_stop(token), piece.stopped, "engine and stream agree");
            if let Some((begin, end)) = first_stop(&known, &stops, 0) {
                prop_assert!(piece.stopped);
                prop_assert_eq!(&sent, &known[..if shown { end } else { begin }]);
                stopped = true;
                break;
            }
            // Nothing leaks, and nothing is held that need not be.
            let held = if shown { 0 } else { must_hold(&known, &stops) };
            prop_assert_eq!(sent.len(), known.len() - held);
        }
        prop_assert!(shown || stops.iter().all(|stop| !sent.contains(stop.as_str())));
        sent.push_str(&stream.finish());
        if !stopped {
            // What the end adds is not the model's text: no stop is looked for in it.
            known.push_str(whole.finish());
            prop_assert_eq!(&sent, &known);
        }
    }

    #[test]
    fn protected_tokens_keep_their_stops(tokens in tokens(), stops in stops(), min in 0_usize..20) {
        let set = StopSet::new(&stops).unwrap();
        let mut stream = TextStream::new(&FAKE, Some(&set), Detokenizer::new(true));
        let mut watch = set.watch(&FAKE, Detokenizer::new(true));
        let (mut sent, mut known, mut protected) = (String::new(), String::new(), 0);
        let mut whole = Detokenizer::new(true);
        let mut end = None;
        for (index, &token) in tokens.iter().enumerate() {
            let may_stop = index >= min;
            if !may_stop || index == min { protected = known.len(); }
            let piece = stream.push(token, may_stop);
            known.push_str(&whole.push(&FAKE, token));
            if !may_stop { protected = known.len(); }
            sent.push_str(&piece.text);
            let told = watch.is_stop(token);
            prop_assert_eq!(told && may_stop, piece.stopped);
            if piece.stopped {
                end = Some(first_stop(&known, &stops, protected.min(known.len())).unwrap().0);
                break;
            }
        }
        sent.push_str(&stream.finish());
        match end {
            // What was sent before it was known to be a stop's beginning cannot be taken back, and
            // never needs to be: it was held.
            Some(begin) => prop_assert_eq!(&sent, &known[..begin]),
            None => prop_assert!(sent.starts_with(&known[..known.len() - must_hold(&known, &stops)])),
        }
    }

    #[test]
    fn how_text_is_cut_into_tokens_does_not_matter(text in "[abEND é😀]{0,30}", stops in stops()) {
        let set = StopSet::new(&stops).unwrap();
        let by_bytes = text.bytes().map(|b| {
            (0..FAKE.vocab() as TokenId).find(|&id| FAKE.token_bytes(id) == [b]).unwrap()
        });
        let run = |tokens: &mut dyn Iterator<Item = TokenId>| {
            let mut stream = TextStream::new(&FAKE, Some(&set), Detokenizer::new(true));
            let mut sent = String::new();
            for token in tokens {
                let piece = stream.push(token, true);
                sent.push_str(&piece.text);
                if piece.stopped {
                    return sent;
                }
            }
            sent + &stream.finish()
        };
        let whole = FAKE.encode(&text, false, false);
        prop_assert_eq!(run(&mut whole.into_iter()), run(&mut by_bytes.into_iter()));
    }
}

#[test]
fn bounds_on_stop_strings() {
    assert_eq!(StopSet::new(&["a", ""]).unwrap_err(), StopError::Empty { index: 1 });
    assert_eq!(StopSet::new(&vec!["a"; STOPS_MAX + 1]).unwrap_err(), StopError::TooMany);
    let long = "x".repeat(STOP_BYTES_MAX + 1);
    assert_eq!(StopSet::new(&[long.as_str()]).unwrap_err(), StopError::TooLong { index: 0 });
    assert!(StopSet::new(&[&long[1..]]).is_ok());
    assert!(StopSet::new::<&str>(&[]).is_ok());
}

#[test]
fn many_long_stops_take_no_quadratic_time() {
    let a = FAKE.encode("a", false, false)[0];
    let seconds = |stop_bytes: usize| {
        let stops = (0..STOPS_MAX).map(|i| format!("{}{i}", "a".repeat(stop_bytes)));
        let set = StopSet::new(&stops.collect::<Vec<_>>()).unwrap();
        let once = || {
            let start = Instant::now();
            let mut stream = TextStream::new(&FAKE, Some(&set), Detokenizer::new(true));
            for _ in 0..20_000 {
                stream.push(a, true);
            }
            start.elapsed().as_secs_f64()
        };
        (0..3).map(|_| once()).fold(f64::INFINITY, f64::min)
    };
    // 64 times the length of the stops.
    assert!(seconds(4_000) < 16.0 * seconds(62));
}

#[test]
fn the_end_tokens_offset_is_the_length_so_far() {
    let mut stream = TextStream::new(&FAKE, None, Detokenizer::new(true));
    for id in FAKE.encode("é😀", false, false) {
        stream.push(id, true);
    }
    assert_eq!(stream.offset(), 2);
}
