//! What a folder calls that which the rest of the loader knows by the names and keys of a GGUF: for errors, which people look up
//! in their files.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::folder::Names;
use super::gguf::shown;

/// Filled by the translation itself; empty for a GGUF, whose names are its own.
#[derive(Debug, Clone, Default)]
pub struct Origins {
    /// With their file.
    pub(super) keys: BTreeMap<String, String>,
    /// Of what the files have.
    pub(super) tensors: BTreeMap<String, String>,
    /// Of what they lack.
    pub(super) names: Option<&'static Names>,
}

impl Origins {
    /// What errors call a key of the metadata.
    pub fn key<'a>(&'a self, key: &'a str) -> &'a str {
        self.keys.get(key).map_or(key, String::as_str)
    }

    /// What they call a tensor, fit to be shown.
    pub fn tensor(&self, name: &str) -> String {
        let own = self.tensors.get(name).map(|own| Cow::Borrowed(&**own));
        let own = own.or_else(|| self.names?.own(name).map(Cow::Owned));
        shown(own.as_deref().unwrap_or(name))
    }
}
