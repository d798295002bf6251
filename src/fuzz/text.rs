//! Texts to tokens and back, and the streams of an answer.

use std::sync::LazyLock;

use unicode_normalization::UnicodeNormalization as _;

use super::{FAKE, models};
use crate::engine::message::TokenId;
use crate::text::{Beside, Detokenizer, StopSet, Text, TextStream, cut};

/// A vocabulary of each kind; the last one is the fake model's.
static TEXTS: LazyLock<Vec<Text>> = LazyLock::new(|| {
    let of = |header: Vec<u8>| Text::from_gguf(&models::metadata(&header)?).ok();
    let real = models::models().into_iter().filter_map(|(_, w)| of(models::header(&w)));
    real.chain([FAKE.clone()]).collect()
});

/// First which vocabulary; then `t` and a text, or else ids, two bytes each. Or which pre-tokenizer, then
/// `w` and a text. Or anything, then `j` and a `tokenizer.json`.
pub fn tokenizer(data: &[u8]) {
    assert_eq!(TEXTS.len(), 4);
    let [which, form, rest @ ..] = data else { return };
    if *form == b'w' {
        let (text, mut at) = (String::from_utf8_lossy(rest), 0);
        cut(usize::from(*which), &text, |word| {
            assert!(!word.is_empty() && text[at..].starts_with(word), "{at}: {word:?}");
            at += word.len();
        });
        assert_eq!(at, text.len(), "{text:?}");
        return;
    }
    let text = &TEXTS[usize::from(*which) % TEXTS.len()];
    if *form == b't' {
        assert_comes_back(text, &String::from_utf8_lossy(rest));
        return;
    }
    if *form == b'j' {
        let beside = Beside { rows: usize::from(*which), ..Beside::default() };
        if let Ok(text) = Text::from_hf(rest, beside) {
            let ids = text.encode("It's 12 <s>\u{2581}a 日本\n\n <unk>", true, true);
            assert!(ids.iter().all(|&id| (id as usize) < text.vocab()), "{ids:?}");
            assert_eq!(text.decode_with_offsets(&ids, false).1.len(), ids.len());
        }
        return;
    }
    let number = |&pair: &[u8; 2]| TokenId::from(u16::from_le_bytes(pair));
    // Also ids that are none.
    let ids: Vec<_> =
        rest.as_chunks().0.iter().map(|pair| number(pair) % (text.vocab() as u32 + 9)).collect();
    let (mut whole, offsets, mut end) = text.decode_with_offsets(&ids, false);
    whole.push_str(end.finish());
    assert_eq!(whole, text.decode(&ids, false));
    assert_eq!(end.chars(), whole.chars().count());
    assert!(offsets.len() == ids.len() && offsets.is_sorted());
    assert!(offsets.last().is_none_or(|&last| last <= end.chars()));
    assert_comes_back(text, &whole);
}

/// Decoding undoes encoding: but for the normalisation of some vocabularies, and for the character that
/// others write blanks with.
fn assert_comes_back(text: &Text, of: &str) {
    let normal = |of: &str| of.replace('\u{2581}', " ").nfc().collect::<String>();
    for special in [false, true] {
        let ids = text.encode(of, special, false);
        assert!(ids.iter().all(|&id| (id as usize) < text.vocab()), "{ids:?}");
        assert_eq!(normal(&text.decode(&ids, false)), normal(of), "special: {special}, {ids:?}");
        let with_bos = text.encode(of, special, true);
        let bos = text.bos().filter(|_| text.adds_bos());
        assert!(with_bos.iter().copied().eq(bos.into_iter().chain(ids)));
    }
    let ids = text.encode(of, false, true);
    assert_eq!(normal(&text.decode(&ids, true)), normal(of), "without BOS: {ids:?}");
}

/// Stop strings, and how the tokens of an answer are taken.
struct Stream {
    stops: Vec<String>,
    /// So many tokens come before a stop counts.
    min: usize,
    skip: bool,
    shown: bool,
}

/// The token of each byte.
static BYTES: LazyLock<[TokenId; 256]> = LazyLock::new(|| {
    let of = |byte: u8| (0..FAKE.vocab() as TokenId).find(|&id| FAKE.token_bytes(id) == [byte]);
    std::array::from_fn(|byte| of(byte as u8).unwrap_or_default())
});

/// A byte of flags and one of numbers; the stop strings, each behind its length; then tokens.
pub fn stream(data: &[u8]) {
    let [flags, numbers, rest @ ..] = data else { return };
    let mut rest = rest;
    let mut stops = Vec::new();
    for _ in 0..numbers % 4 {
        let [len, tail @ ..] = rest else { break };
        let (stop, tail) = tail.split_at(usize::from(len % 16).min(tail.len()));
        stops.push(String::from_utf8_lossy(stop).into_owned());
        rest = tail;
    }
    stops.retain(|stop| !stop.is_empty());
    let min = if flags & 4 == 0 { 0 } else { usize::from(numbers >> 4) };
    let stream = Stream { stops, min, skip: flags & 1 != 0, shown: flags & 2 != 0 };
    let tokens = tokens(rest);
    let answer = stream.answer(&tokens);
    if min == 0 {
        let bytes = stream.bytes(&tokens);
        let singly: Vec<_> = bytes.iter().map(|&byte| BYTES[usize::from(byte)]).collect();
        assert_eq!(stream.answer(&singly), answer, "how it was cut into tokens does not matter");
    }
}

/// A byte is its own token, but 1 and 2 say that the next one is a number: of any token, or of a
/// special one.
fn tokens(data: &[u8]) -> Vec<TokenId> {
    let mut tokens = Vec::new();
    let mut bytes = data.iter().copied();
    while let Some(byte) = bytes.next() {
        tokens.push(match byte {
            1 => 44 + TokenId::from(bytes.next().unwrap_or(0)),
            2 => TokenId::from(bytes.next().unwrap_or(0)) % 3,
            byte => BYTES[usize::from(byte)],
        });
    }
    tokens
}

impl Stream {
    /// What `tokens` stand for.
    fn bytes(&self, tokens: &[TokenId]) -> Vec<u8> {
        let shown = |id: &&TokenId| !(self.skip && FAKE.is_special(**id));
        tokens.iter().filter(shown).flat_map(|&id| FAKE.token_bytes(id)).copied().collect()
    }

    /// What a client gets of `tokens`; that it is what it should be, at each of them.
    fn answer(&self, tokens: &[TokenId]) -> String {
        let Ok(set) = StopSet::new(&self.stops) else { unreachable!("too long or too many") };
        let set = set.shown(self.shown);
        let mut stream = TextStream::new(&FAKE, Some(&set), Detokenizer::new(self.skip));
        let mut watch = set.watch(&FAKE, Detokenizer::new(self.skip));
        let mut whole = Detokenizer::new(self.skip);
        let (mut sent, mut known, mut protected) = (String::new(), String::new(), 0);
        for (index, &token) in tokens.iter().enumerate() {
            let may_stop = index >= self.min;
            let before = known.len();
            let piece = stream.push(token, may_stop);
            known.push_str(&whole.push(&FAKE, token));
            sent.push_str(&piece.text);
            assert_eq!(piece.offset, whole.offset());
            let told = watch.is_stop(token);
            assert_eq!(told && may_stop, piece.stopped, "engine and stream agree");
            if piece.stopped {
                let Some((begin, end)) = self.first_stop(&known, protected) else {
                    unreachable!("stopped without a stop: {known:?}")
                };
                assert!(end > before, "too late: {known:?}");
                assert_eq!(sent, known[..if self.shown { end } else { begin }]);
                assert_eq!(stream.finish(), "");
                return sent;
            }
            if !may_stop {
                protected = known.len();
            }
            assert!(known.starts_with(&sent));
            assert_eq!(known.len() - sent.len(), self.held(&known), "held of {known:?}");
        }
        assert_eq!(self.first_stop(&known, protected), None, "missed: {known:?}");
        sent.push_str(&stream.finish());
        known.push_str(whole.finish());
        assert_eq!(sent, known);
        assert_eq!(known, String::from_utf8_lossy(&self.bytes(tokens)));
        sent
    }

    /// Where the first stop string begins and ends, looked for in the simplest way: the least end, then
    /// the least beginning.
    fn first_stop(&self, text: &str, not_before: usize) -> Option<(usize, usize)> {
        (not_before + 1..=text.len()).find_map(|end| {
            let ends = |stop: &&String| text.as_bytes()[..end].ends_with(stop.as_bytes());
            let longest = self.stops.iter().filter(ends).map(String::len).max()?;
            Some((end - longest, end))
        })
    }

    /// Bytes at the end of `text` that could be the beginning of a stop string.
    fn held(&self, text: &str) -> usize {
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0);
        let begins = |n: &usize| {
            let end = &text.as_bytes()[text.len() - n..];
            self.stops.iter().any(|stop| *n < stop.len() && stop.as_bytes().starts_with(end))
        };
        if self.shown { 0 } else { (0..=longest.min(text.len())).rev().find(begins).unwrap_or(0) }
    }
}
