//! What may be a call: from its opening to its end, scanned once however it comes in pieces.

use std::ops::Range;

use super::scan::Scan;
use super::signature::{Signatures, Verdict};

const TAG: &str = "<tool_call>";
const TAG_END: &str = "</tool_call>";
const FENCE: &str = "```";
/// What may stand behind a fence's opening marks.
const LANGUAGE: &str = "json";

/// What begins a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tag,
    Fence,
    /// JSON without anything around it.
    Bare,
}

/// An opening that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    kind: Kind,
    /// Where it begins.
    pub(super) at: usize,
    /// Where what it opens begins.
    inside: usize,
}

impl Found {
    /// The same after so many bytes before it are gone.
    pub(super) fn shifted(self, bytes: usize) -> Self {
        Self { kind: self.kind, at: self.at - bytes, inside: self.inside - bytes }
    }
}

/// Whether a text has an opening.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opener {
    None,
    /// From here to its end, the text could be the beginning of one.
    Partial(usize),
    Whole(Found),
}

/// The first opening in `text`. `is_at_start`: only white space was before it.
pub(super) fn find(text: &str, is_at_start: bool, tags_only: bool) -> Opener {
    let mut blank_from = 0;
    for (at, char) in text.char_indices() {
        let rest = &text[at..];
        let blank = &text[blank_from..at];
        let is_first = is_at_start && blank_from == 0;
        let opens_line = is_first || blank.contains('\n');
        let found = match char {
            '<' => (Kind::Tag, tag(rest)),
            '`' if !tags_only && opens_line => (Kind::Fence, fence(rest)),
            '{' | '[' if !tags_only && is_first => (Kind::Bare, Start::Whole(0)),
            _ => (Kind::Bare, Start::None),
        };
        match found {
            (kind, Start::Whole(length)) => {
                return Opener::Whole(Found { kind, at, inside: at + length });
            }
            (_, Start::Partial) => return Opener::Partial(at),
            (_, Start::None) => {}
        }
        if !char.is_whitespace() {
            blank_from = at + char.len_utf8();
        }
    }
    Opener::None
}

/// What a text starts with.
enum Start {
    None,
    /// It ends before an opener is whole.
    Partial,
    /// An opener of this length.
    Whole(usize),
}

impl Start {
    fn partial_if(is_partial: bool) -> Self {
        if is_partial { Self::Partial } else { Self::None }
    }
}

/// The tag at the start of `rest`.
fn tag(rest: &str) -> Start {
    if rest.starts_with(TAG) {
        Start::Whole(TAG.len())
    } else {
        Start::partial_if(TAG.starts_with(rest))
    }
}

/// The same for a fence of JSON, or of nothing that is named.
fn fence(rest: &str) -> Start {
    let Some(behind) = rest.strip_prefix(FENCE) else {
        return Start::partial_if(FENCE.starts_with(rest));
    };
    let named = behind.get(..LANGUAGE.len()).is_some_and(|w| w.eq_ignore_ascii_case(LANGUAGE));
    let length = if named { FENCE.len() + LANGUAGE.len() } else { FENCE.len() };
    match rest[length..].chars().next() {
        Some(char) if char.is_whitespace() || char == '{' || char == '[' => Start::Whole(length),
        // The name may not be whole yet.
        _ => Start::partial_if(LANGUAGE.starts_with(&behind.to_ascii_lowercase())),
    }
}

/// How far a block has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// It may go on.
    More,
    /// It is no call.
    Rejected,
    /// It ends here.
    Whole(usize),
}

/// A block of JSON values that may be calls.
#[derive(Debug)]
pub(super) struct Block {
    kind: Kind,
    /// Up to here it is text for certain if it is no call.
    pub(super) opened: usize,
    /// Scanned up to here.
    seen: usize,
    /// The value that is being scanned: where it began.
    value: Option<(usize, Scan)>,
    /// That value begins as a call does.
    is_likely: bool,
    /// The values before it.
    pub(super) values: Vec<Range<usize>>,
}

impl Block {
    pub(super) fn new(found: Found) -> Self {
        Self {
            kind: found.kind,
            opened: found.inside.max(found.at + 1),
            seen: found.inside,
            value: None,
            is_likely: false,
            values: Vec::new(),
        }
    }

    /// A tag says that a call is meant.
    pub(super) fn is_tagged(&self) -> bool {
        self.kind == Kind::Tag
    }

    /// Scans what is new in `text`.
    pub(super) fn advance(&mut self, text: &str, signatures: &Signatures) -> Step {
        while let Some(&byte) = text.as_bytes().get(self.seen) {
            if let Some((start, scan)) = &mut self.value {
                self.seen += 1;
                if scan.step(byte) {
                    let value = *start..self.seen;
                    self.value = None;
                    if !self.is_likely && signatures.begins(&text[value.clone()]) != Verdict::Yes {
                        return Step::Rejected;
                    }
                    self.values.push(value);
                }
                continue;
            }
            match byte {
                b'{' | b'[' => {
                    self.value = Some((self.seen, Scan::default()));
                    self.is_likely = false;
                }
                _ if byte.is_ascii_whitespace() => self.seen += 1,
                _ => return self.close(&text[self.seen..]),
            }
        }
        if let Some((start, _)) = self.value
            && !self.is_likely
        {
            match signatures.begins(&text[start..]) {
                Verdict::No => return Step::Rejected,
                Verdict::Yes => self.is_likely = true,
                Verdict::Open => {}
            }
        }
        Step::More
    }

    /// Neither a value nor white space: `rest` is the end of the block, or this is none.
    fn close(&self, rest: &str) -> Step {
        let end = match self.kind {
            Kind::Tag => TAG_END,
            Kind::Fence => FENCE,
            Kind::Bare => return Step::Rejected,
        };
        if self.values.is_empty() {
            Step::Rejected
        } else if rest.starts_with(end) {
            Step::Whole(self.seen + end.len())
        } else if end.starts_with(rest) {
            Step::More
        } else {
            Step::Rejected
        }
    }

    /// At the end of `text`: whether nothing is missing but what closes the block.
    pub(super) fn whole_at_end(&self, text: &str) -> Option<usize> {
        (self.value.is_none() && !self.values.is_empty()).then_some(text.len())
    }
}
