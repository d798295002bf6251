//! Names in the objects of an answer: none comes twice in one.
//!
//! A grammar has no memory: where a schema allows names that it does not list, it allows the same one again
//! and again, and what readers of JSON make of that is left to them. So the names that were said are kept here, and a
//! token that would complete one of them once more is not allowed, as long as the grammar has another one.

use std::ops::Range;

use llguidance::toktrie::TokTrie;

use crate::engine::message::TokenId;

/// Tokens with a quotation mark in them: no other one can complete a name.
#[derive(Debug)]
pub(super) struct Quoted {
    /// By their bytes.
    all: Vec<(Vec<u8>, TokenId)>,
    /// Those with two or more: they may begin a name, too.
    several: Vec<(Vec<u8>, TokenId)>,
}

impl Quoted {
    pub(super) fn of(trie: &TokTrie) -> Self {
        let quotes = |bytes: &[u8]| bytes.split(|&byte| byte == b'"').count() - 1;
        let tokens = (0..trie.vocab_size() as TokenId).map(|id| (trie.token(id).to_vec(), id));
        let mut all: Vec<_> = tokens.filter(|(bytes, _)| quotes(bytes) > 0).collect();
        all.sort_unstable();
        let several = all.iter().filter(|(bytes, _)| quotes(bytes) > 1).cloned().collect();
        Self { all, several }
    }

    fn beginning_with<'a>(&'a self, head: &'a [u8]) -> impl Iterator<Item = TokenId> + 'a {
        let from = self.all.partition_point(|(bytes, _)| &bytes[..] < head);
        let found = self.all[from..].iter().take_while(move |(bytes, _)| bytes.starts_with(head));
        found.map(|&(_, id)| id)
    }
}

/// The names of one answer: JSON, with nothing around it that has quotation marks or brackets of its own.
#[derive(Debug, Default)]
pub(super) struct Names {
    text: Vec<u8>,
    /// Objects and lists as they began.
    blocks: Vec<Block>,
    said: Vec<Name>,
    place: Place,
    /// Before each token.
    marks: Vec<Mark>,
}

#[derive(Debug)]
struct Block {
    is_object: bool,
    around: Option<usize>,
}

/// A name as it is written. There is only one spelling of each: escapes are those that JSON cannot do without.
#[derive(Debug)]
struct Name {
    block: usize,
    text: Range<usize>,
}

/// Where the end of the text is.
#[derive(Debug, Default, Clone, Copy)]
struct Place {
    block: Option<usize>,
    /// The next string is a name.
    before_name: bool,
    string: Option<Open>,
}

/// A string that has begun.
#[derive(Debug, Clone, Copy)]
struct Open {
    from: usize,
    is_name: bool,
    is_escaped: bool,
}

#[derive(Debug, Clone, Copy)]
struct Mark {
    text: usize,
    blocks: usize,
    names: usize,
    place: Place,
}

impl Names {
    pub(super) fn accept(&mut self, token: &[u8]) {
        self.marks.push(self.mark());
        for &byte in token {
            self.step(byte);
        }
    }

    pub(super) fn take_back(&mut self, count: usize) {
        let left = self.marks.len().saturating_sub(count);
        if let Some(&mark) = self.marks.get(left) {
            self.return_to(mark);
            self.marks.truncate(left);
        }
    }

    /// Whether a name is there twice once these tokens are.
    pub(super) fn repeats<'t>(&mut self, tokens: impl IntoIterator<Item = &'t [u8]>) -> bool {
        let mark = self.mark();
        let mut bytes = tokens.into_iter().flatten();
        let repeats = bytes.any(|&byte| self.step(byte));
        self.return_to(mark);
        repeats
    }

    /// Takes the tokens out of a mask that would complete a name for the second time, unless none is left then.
    pub(super) fn forbid(&mut self, quoted: &Quoted, mask: &mut Vec<u32>) {
        if self.said.is_empty() {
            return;
        }
        let is_allowed = |id: TokenId| mask[id as usize / 32] >> (id % 32) & 1 == 1;
        let mut forbidden = Vec::new();
        if let Some(Open { from, is_name: true, .. }) = self.place.string {
            let begun = &self.text[from..];
            for name in self.said.iter().filter(|name| Some(name.block) == self.place.block) {
                if let Some(rest) = self.text[name.text.clone()].strip_prefix(begun) {
                    let end = [rest, b"\""].concat();
                    forbidden.extend(quoted.beginning_with(&end).filter(|&id| is_allowed(id)));
                }
            }
        }
        for (bytes, id) in &quoted.several {
            if is_allowed(*id) && self.repeats([&bytes[..]]) {
                forbidden.push(*id);
            }
        }
        if forbidden.is_empty() {
            return;
        }
        let mut rest = mask.clone();
        for id in forbidden {
            rest[id as usize / 32] &= !(1 << (id % 32));
        }
        if rest.iter().any(|&word| word != 0) {
            *mask = rest;
        }
    }

    /// Whether the byte completes a name that was there before.
    fn step(&mut self, byte: u8) -> bool {
        let at = self.text.len();
        self.text.push(byte);
        if let Some(open) = &mut self.place.string {
            if std::mem::take(&mut open.is_escaped) {
                return false;
            }
            open.is_escaped = byte == b'\\';
            if byte != b'"' {
                return false;
            }
            let Open { from, is_name, .. } = *open;
            self.place.string = None;
            return is_name && self.complete(from..at);
        }
        let block = self.place.block;
        match byte {
            b'"' => {
                let is_name = self.place.before_name;
                self.place.string = Some(Open { from: at + 1, is_name, is_escaped: false });
            }
            b'{' | b'[' => {
                let is_object = byte == b'{';
                self.place.block = Some(self.blocks.len());
                self.place.before_name = is_object;
                self.blocks.push(Block { is_object, around: block });
            }
            b'}' | b']' => {
                self.place.block = block.and_then(|block| self.blocks[block].around);
                self.place.before_name = false;
            }
            b',' => self.place.before_name = block.is_some_and(|b| self.blocks[b].is_object),
            b':' => self.place.before_name = false,
            _ => {}
        }
        false
    }

    fn complete(&mut self, text: Range<usize>) -> bool {
        let Some(block) = self.place.block else { return false };
        let is_same = |name: &Name| {
            name.block == block && self.text[name.text.clone()] == self.text[text.clone()]
        };
        let is_there = self.said.iter().any(is_same);
        self.said.push(Name { block, text });
        is_there
    }

    fn mark(&self) -> Mark {
        let (text, blocks, names) = (self.text.len(), self.blocks.len(), self.said.len());
        Mark { text, blocks, names, place: self.place }
    }

    fn return_to(&mut self, mark: Mark) {
        self.text.truncate(mark.text);
        self.blocks.truncate(mark.blocks);
        self.said.truncate(mark.names);
        self.place = mark.place;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the last byte of `text` completes a name for the second time.
    fn repeats(text: &str) -> bool {
        let (last, head) = text.as_bytes().split_last().unwrap();
        let mut names = Names::default();
        head.chunks(3).for_each(|token| names.accept(token));
        names.repeats([&[*last][..]])
    }

    #[test]
    fn a_name_repeats_only_in_its_own_object() {
        for (text, expected) in [
            (r#"{"a": 1, "a""#, true),
            (r#"{"a": 1, "b": 2, "a""#, true),
            (r#"{"a": 1, "A""#, false),
            (r#"{"a": 1, "aa""#, false),
            (r#"{"aa": 1, "a""#, false),
            (r#"{"": 1, """#, true),
            (r#"{"a": {"a""#, false),
            (r#"{"a": {"b": 1}, "b""#, false),
            (r#"{"a": {"b": 1}, "a""#, true),
            (r#"{"a": [{"b": 1}, {"b""#, false),
            (r#"{"a": ["a""#, false),
            (r#"{"a": ["b", "a"], "a""#, true),
            (r#"{"a": "a""#, false),
            (r#"{"a": ",\"a\":{", "b": 1, "a""#, true),
            (r#"{"a\"": 1, "a\"#, false),
            (r#"{"a\"": 1, "a\""#, false),
            (r#"{"a\"": 1, "a\"""#, true),
            (r#"{"a\\": 1, "a\\""#, true),
            (r#""{\"a\":1,\"a\"""#, false),
            ("<tool_call>\n{\"name\": \"f\", \"arguments\": {\"name\"", false),
            ("<tool_call>\n{\"a\": 1}\n</tool_call>\n<tool_call>\n{\"a\"", false),
        ] {
            assert_eq!(repeats(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_taken_back_was_never_there() {
        let text = r#"{"a": {"b": [1, {"c\n": "x"}]}, "a": [], "d": {"a": 1, "a": 2}}"#;
        let tokens: Vec<&[u8]> = text.as_bytes().chunks(2).collect();
        for kept in 0..tokens.len() {
            let mut names = Names::default();
            tokens[..kept].iter().for_each(|token| names.accept(token));
            let before = format!("{names:?}");
            tokens[kept..].iter().for_each(|token| names.accept(token));
            names.take_back(0);
            names.take_back(tokens.len() - kept);
            assert_eq!(format!("{names:?}"), before);
        }
    }
}
