//! Compiled grammars by what they were compiled from, bounded in bytes, the least recently used first
//! to go.

use std::collections::HashMap;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::{Grammar, Source};

/// What compiled grammars may take together.
const BYTES_MAX: usize = 64 << 20;
/// Of a grammar of no size, and for each byte of its source: estimates on the safe side.
const BASE_BYTES: usize = 64 << 10;
const BYTES_A_SOURCE_BYTE: usize = 64;

pub(super) type Key = [u8; 32];

/// Told apart by content; the same schema with its keys in another order is another grammar, since
/// answers keep to that order.
pub(super) fn key(source: &Source) -> Key {
    let mut hash = Sha256::new();
    let (kind, text) = match source {
        Source::JsonObject => (0, String::new()),
        Source::JsonSchema(schema) => (1, schema.to_string()),
        Source::Regex(regex) => (2, regex.clone()),
        Source::Choice(choices) => (3, serde_json::Value::from(choices.clone()).to_string()),
        Source::Lark(lark) => (4, lark.clone()),
        Source::Parts(parts) => (5, format!("{parts:?}")),
    };
    hash.update([kind]);
    hash.update(text);
    hash.finalize().into()
}

/// What a compiled grammar takes, roughly.
pub(super) fn estimate(source: &Source) -> usize {
    let source = match source {
        Source::JsonObject => 0,
        Source::JsonSchema(schema) => schema.to_string().len(),
        Source::Regex(text) | Source::Lark(text) => text.len(),
        Source::Choice(choices) => choices.iter().map(String::len).sum(),
        Source::Parts(parts) => format!("{parts:?}").len(),
    };
    BASE_BYTES + BYTES_A_SOURCE_BYTE * source
}

#[derive(Debug, Default)]
pub(super) struct Cache {
    entries: HashMap<Key, Entry>,
    bytes: usize,
    /// Counts uses.
    now: u64,
}

#[derive(Debug)]
struct Entry {
    grammar: Arc<Grammar>,
    used: u64,
}

impl Cache {
    pub(super) fn find(&mut self, key: &Key) -> Option<Arc<Grammar>> {
        self.now += 1;
        let entry = self.entries.get_mut(key)?;
        entry.used = self.now;
        Some(Arc::clone(&entry.grammar))
    }

    pub(super) fn insert(&mut self, key: Key, grammar: &Arc<Grammar>) {
        self.now += 1;
        let entry = Entry { grammar: Arc::clone(grammar), used: self.now };
        self.bytes += grammar.bytes;
        if let Some(before) = self.entries.insert(key, entry) {
            self.bytes -= before.grammar.bytes;
        }
        while self.bytes > BYTES_MAX {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.used);
            let Some(oldest) = oldest.map(|(key, _)| *key) else { return };
            if let Some(gone) = self.entries.remove(&oldest) {
                self.bytes -= gone.grammar.bytes;
            }
        }
    }
}
