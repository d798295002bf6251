//! A pattern as a lazily built automaton: linear time, whatever the text.

use regex_automata::hybrid::LazyStateID;
use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::util::pool::Pool;
use regex_automata::util::start;
use regex_automata::{Anchored, Input, nfa::thompson};

/// Bytes for the states that texts have led to, a thread; then it starts anew.
const CACHE_BYTES: usize = 4 << 20;
/// Most bytes of a compiled pattern.
const NFA_BYTES: usize = 4 << 20;

/// The number of the pattern that stands for runs of blanks.
const BLANKS: usize = 1;

/// What becomes of a run of blanks that nothing else has matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blanks {
    /// The pattern has no word for them.
    None,
    /// `\s+(?!\S)|\s+`: one word, without the last one if something follows, unless there is only that one.
    Run,
    /// As [`Self::Run`], in words of 512, 256, 128, 64, 32, 16, 8, 4, 2 and 1.
    Powers,
}

const RUN: &str = r"|\s+(?!\S)|\s+";
const POWERS: &str = concat!(
    r"|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|",
    r"\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}"
);

pub(super) struct Pattern {
    dfa: DFA,
    blanks: Blanks,
    /// Whether a match can begin with this byte.
    begins: [bool; 256],
    caches: Pool<Cache, Box<dyn Fn() -> Cache + Send + Sync>>,
}

impl std::fmt::Debug for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pattern").field("blanks", &self.blanks).finish_non_exhaustive()
    }
}

impl Pattern {
    /// No automaton looks ahead, so what a run of blanks becomes is not left to it.
    pub(super) fn new(pattern: &str) -> Result<Self, String> {
        let (head, blanks) = match (pattern.strip_suffix(RUN), pattern.strip_suffix(POWERS)) {
            (Some(head), _) => (head, Blanks::Run),
            (_, Some(head)) => (head, Blanks::Powers),
            _ => (pattern, Blanks::None),
        };
        let patterns = [head, r"\s+"];
        let dfa = DFA::builder()
            .configure(DFA::config().cache_capacity(CACHE_BYTES))
            .thompson(thompson::Config::new().nfa_size_limit(Some(NFA_BYTES)))
            .build_many(if blanks == Blanks::None { &patterns[..1] } else { &patterns })
            .map_err(|e| e.to_string())?;
        let begins = begins(&dfa).ok_or("the automaton does not begin")?;
        let cached = dfa.clone();
        let caches = Pool::new(Box::new(move || cached.create_cache()) as Box<_>);
        Ok(Self { dfa, blanks, begins, caches })
    }

    /// Calls `word` with each word of `text`, in order: the matches, and what lies between.
    pub(super) fn cut<'t>(&self, text: &'t str, word: &mut dyn FnMut(&'t str)) {
        let mut cache = self.caches.get();
        let bytes = text.as_bytes();
        // Where what lies between two matches starts.
        let (mut start, mut at) = (0, 0);
        while at < bytes.len() {
            let found = if self.begins[usize::from(bytes[at])] {
                self.first(&text[at..], &mut cache)
            } else {
                None
            };
            let Some((len, blanks)) = found else {
                // To the next character.
                at += 1;
                while bytes.get(at).is_some_and(|byte| byte & 0xc0 == 0x80) {
                    at += 1;
                }
                continue;
            };
            if start < at {
                word(&text[start..at]);
            }
            start = at + len;
            if blanks && self.blanks == Blanks::Powers {
                powers(&text[at..start], word);
            } else {
                word(&text[at..start]);
            }
            at = start;
        }
        if start < bytes.len() {
            word(&text[start..]);
        }
    }

    /// How long the match is that `text` begins with, and whether it is nothing but a run of blanks.
    fn first(&self, text: &str, cache: &mut Cache) -> Option<(usize, bool)> {
        let input = Input::new(text).anchored(Anchored::Yes);
        // Nothing here makes it give up: no word boundaries, no least number of states.
        let end = self.dfa.try_search_fwd(cache, &input).ok().flatten()?;
        let (len, blanks) = (end.offset(), end.pattern().as_usize() == BLANKS);
        if !blanks || len == text.len() {
            return (len > 0).then_some((len, blanks));
        }
        // Something follows: it may take the last blank along.
        let last = text[..len].char_indices().next_back().map_or(0, |(last, _)| last);
        Some((if last > 0 { last } else { len }, true))
    }
}

/// The bytes that a match can begin with.
fn begins(dfa: &DFA) -> Option<[bool; 256]> {
    let mut cache = dfa.create_cache();
    let config = start::Config::new().anchored(Anchored::Yes);
    let state: LazyStateID = dfa.start_state(&mut cache, &config).ok()?;
    let mut begins = [false; 256];
    for (byte, begins) in (0..=u8::MAX).zip(&mut begins) {
        *begins = !dfa.next_state(&mut cache, state, byte).ok()?.is_dead();
    }
    Some(begins)
}

/// Words of a run of blanks, each as long as it can be.
fn powers<'t>(blanks: &'t str, word: &mut dyn FnMut(&'t str)) {
    let mut rest = blanks;
    for size in (0..10).rev().map(|bit| 1 << bit) {
        while let Some((last, c)) = rest.char_indices().nth(size - 1) {
            let (head, tail) = rest.split_at(last + c.len_utf8());
            word(head);
            rest = tail;
        }
    }
}
