//! Tool calls in what a model writes, found while it writes.
//!
//! Three forms are calls: `<tool_call>{"name": …, "arguments": …}</tool_call>`; a fenced block of such
//! JSON, as Qwen2.5-Coder writes it; and an answer that is nothing but such JSON. Of a fenced block or
//! bare JSON the arguments must fit the function's schema, or else it is an example of one; those of a
//! `strict` function must fit in a tag, too. All else is text, and is held back only as long as it could
//! still become a call, with the white space before it. So a call is only told of when it is whole,
//! unless a grammar made it: that one can be trusted from its first character on.

mod block;
mod forced;
pub mod grammar;
mod scan;
pub mod signature;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use self::block::{Block, Opener, Step};
use self::forced::Forced;
use self::signature::Signatures;

/// Most bytes that are looked at again because what could have been a call was none. An answer that
/// keeps its server busier than that has no more calls.
const LOOKED_AGAIN_MAX: usize = 1 << 20;

/// A piece of what a choice says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    Text(String),
    /// A call of this function begins.
    Begin(String),
    /// The next of the last call's arguments: all of them together are a JSON object.
    Arguments(String),
}

/// What counts as a call: the same for all choices of a request.
#[derive(Debug)]
pub struct Rules {
    pub signatures: Signatures,
    pub form: Form,
    /// Several calls in one answer; else the first one counts.
    pub parallel: bool,
}

/// Which texts are calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// None: there are no tools, or they must not be called.
    Never,
    /// Those in one of the three forms. `tags_only`: JSON that is not in a tag is the answer that was
    /// asked for.
    Free { tags_only: bool },
    /// A grammar sees to it that the answer is calls in tags, and nothing else.
    Forced,
}

/// One choice's text on its way to text and calls.
#[derive(Debug)]
pub struct CallParser {
    rules: Arc<Rules>,
    /// Not told yet: white space, and what could be a call.
    held: String,
    /// `held` has one that began in earnest.
    block: Option<Block>,
    forced: Forced,
    /// Nothing but white space was said.
    is_at_start: bool,
    looked_again: usize,
    calls: usize,
}

impl CallParser {
    pub fn new(rules: Arc<Rules>) -> Self {
        let forced = Forced::default();
        Self {
            rules,
            held: String::new(),
            block: None,
            forced,
            is_at_start: true,
            looked_again: 0,
            calls: 0,
        }
    }

    /// Calls that have begun.
    pub fn calls(&self) -> usize {
        self.calls
    }

    /// There are calls, and nothing has cut off the last one.
    pub fn has_called(&self) -> bool {
        self.calls > 0 && !self.forced.is_in_arguments()
    }

    /// The next of the text.
    pub fn push(&mut self, text: &str) -> Vec<Part> {
        let mut parts = Vec::new();
        match self.rules.form {
            Form::Never => say(&mut parts, text),
            Form::Forced => {
                self.forced.push(text, &mut parts);
                let begun = parts.iter().filter(|p| matches!(p, Part::Begin(_))).count();
                self.calls += begun;
            }
            Form::Free { .. } => {
                self.held.push_str(text);
                while self.advance(&mut parts) {}
            }
        }
        parts
    }

    /// There is no more text: what is whole by now is a call, the rest is text.
    pub fn finish(&mut self) -> Vec<Part> {
        let mut parts = Vec::new();
        while let Some(block) = self.block.take() {
            let whole = block.whole_at_end(&self.held).and_then(|_| self.found(&block));
            match whole {
                Some(found) => {
                    self.held.clear();
                    self.call(found, &mut parts);
                }
                None => self.reject(&block, &mut parts),
            }
            // Behind what was none there may be one.
            while self.advance(&mut parts) {}
        }
        let rest = std::mem::take(&mut self.held);
        // White space around calls belongs to them.
        if self.calls == 0 || !rest.trim().is_empty() {
            say(&mut parts, &rest);
        }
        parts
    }

    /// One step through what is held. False: no further without more text.
    fn advance(&mut self, parts: &mut Vec<Part>) -> bool {
        let Some(mut block) = self.block.take() else { return self.look(parts) };
        match block.advance(&self.held, &self.rules.signatures) {
            Step::More => {
                self.block = Some(block);
                false
            }
            Step::Rejected => {
                self.reject(&block, parts);
                true
            }
            Step::Whole(end) => {
                match self.found(&block) {
                    Some(found) => {
                        self.held.drain(..end);
                        self.call(found, parts);
                    }
                    None => self.reject(&block, parts),
                }
                true
            }
        }
    }

    /// Looks for the beginning of a call. False: there is none yet.
    fn look(&mut self, parts: &mut Vec<Part>) -> bool {
        if self.looked_again > LOOKED_AGAIN_MAX {
            say(parts, &std::mem::take(&mut self.held));
            return false;
        }
        let tags_only = matches!(self.rules.form, Form::Free { tags_only: true });
        match block::find(&self.held, self.is_at_start, tags_only) {
            Opener::None => self.tell(self.held.len(), parts),
            Opener::Partial(at) => self.tell(at, parts),
            Opener::Whole(found) => {
                let told = self.held.len();
                self.tell(found.at, parts);
                let shift = told - self.held.len();
                self.block = Some(Block::new(found.shifted(shift)));
                return true;
            }
        }
        false
    }

    /// Tells what is held up to `end`, but for white space at its end: that may belong to a call.
    fn tell(&mut self, end: usize, parts: &mut Vec<Part>) {
        let end = self.held[..end].trim_end().len();
        if end > 0 {
            say(parts, &self.held[..end]);
            self.held.drain(..end);
            self.is_at_start = false;
        }
    }

    /// What could have been a call is text.
    fn reject(&mut self, block: &Block, parts: &mut Vec<Part>) {
        self.tell(block.opened, parts);
        self.looked_again += self.held.len();
    }

    /// The calls that a block makes, if it makes any.
    fn found(&self, block: &Block) -> Option<Vec<signature::Call>> {
        let values = block.values.iter().map(|range| &self.held[range.clone()]);
        self.rules.signatures.calls(values, block.is_tagged())
    }

    fn call(&mut self, found: Vec<signature::Call>, parts: &mut Vec<Part>) {
        self.is_at_start = false;
        for call in found {
            if self.calls > 0 && !self.rules.parallel {
                return;
            }
            self.calls += 1;
            parts.push(Part::Begin(call.name));
            parts.push(Part::Arguments(call.arguments));
        }
    }
}

/// Appends text, to the text before it if there is some.
fn say(parts: &mut Vec<Part>, text: &str) {
    if text.is_empty() {
        return;
    }
    match parts.last_mut() {
        Some(Part::Text(before)) => before.push_str(text),
        _ => parts.push(Part::Text(text.to_owned())),
    }
}
