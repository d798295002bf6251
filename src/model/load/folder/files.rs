//! Which files of a folder are read, each within a bound.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;

pub(super) use super::safetensors::told;
use super::values::without_bare_words;
use crate::model::load::gguf::shown;

/// Of `tokenizer.json`, whose largest have 35 MB (Gemma's 262,144 tokens).
const MAX_TOKENIZER_BYTES: u64 = 64 << 20;
/// Of an index: a tensor takes some 100 bytes there, and there are tens of thousands at most.
const MAX_INDEX_BYTES: u64 = 16 << 20;
/// Of all others: what is in them takes up to 32 times as much memory as on the disk.
const MAX_BYTES: u64 = 2 << 20;
const MAX_SHARDS: usize = 1024;
pub(crate) const CONFIG: &str = "config.json";
pub(crate) const TOKENIZER: &str = "tokenizer.json";
pub(super) const GENERATION: &str = "generation_config.json";
pub(super) const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
pub(super) const SPECIAL_TOKENS: &str = "special_tokens_map.json";
pub(super) const TEMPLATE: &str = "chat_template.jinja";
/// What is read if it is there.
pub(crate) const OPTIONAL: [&str; 4] = [GENERATION, TOKENIZER_CONFIG, SPECIAL_TOKENS, TEMPLATE];
pub(crate) const INDEX: &str = "model.safetensors.index.json";
pub(crate) const SINGLE: &str = "model.safetensors";
/// What `PyTorch` writes: reading one can run any code.
const PICKLES: [&str; 5] = ["bin", "pt", "pth", "pkl", "ckpt"];

/// The most that is read of a file that is no weights.
pub(crate) fn max_bytes(name: &str) -> u64 {
    match name {
        TOKENIZER => MAX_TOKENIZER_BYTES,
        INDEX => MAX_INDEX_BYTES,
        _ => MAX_BYTES,
    }
}

/// By its ending.
pub(crate) fn is_pickle(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|e| PICKLES.iter().any(|pickle| e == *pickle))
}

/// A file's length, and what is in it.
pub type Opened<'a> = (u64, Box<dyn Read + 'a>);

/// What a model's files are read from.
pub trait Folder {
    /// For errors, and for who reads the weights.
    fn path(&self) -> &Path;
    /// A file, if there is one of that name. Errors are clauses about it.
    fn open(&self, name: &str) -> Result<Option<Opened<'_>>, String>;
    /// The names of all files.
    fn names(&self) -> Vec<String>;
}

impl Folder for &Path {
    fn path(&self) -> &Path {
        self
    }

    fn open(&self, name: &str) -> Result<Option<Opened<'_>>, String> {
        let unreadable = |e: std::io::Error| format!("cannot be read: {e}");
        let path = self.join(name);
        match fs::metadata(&path) {
            Ok(about) if about.is_file() => {}
            Ok(_) => return Err("is not a file".to_owned()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(unreadable(e)),
        }
        let file = File::open(&path).map_err(unreadable)?;
        // Of the open file, not of the path: only this length belongs to the bytes that follow.
        let length = file.metadata().map_err(unreadable)?.len();
        Ok(Some((length, Box::new(file))))
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }
}

/// What some editors begin a text with.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// The text of a file in the folder, if there is one. Errors name the file.
pub(super) fn text(folder: &dyn Folder, name: &str) -> Result<Option<String>, String> {
    let opened = folder.open(name).map_err(|reason| format!("{name} {reason}"))?;
    let Some((length, file)) = opened else { return Ok(None) };
    let max_bytes = max_bytes(name);
    let mut bytes = Vec::with_capacity(length.min(max_bytes) as usize + 1);
    file.take(max_bytes + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| format!("{name} cannot be read: {e}"))?;
    if bytes.len() as u64 > max_bytes {
        return Err(format!("{name} is longer than {max_bytes} bytes"));
    }
    let mut text = String::from_utf8(bytes).map_err(|_| format!("{name} is not UTF-8"))?;
    if text.starts_with(BYTE_ORDER_MARK) {
        text.drain(..BYTE_ORDER_MARK.len_utf8());
    }
    Ok(Some(text))
}

/// What such a text says, as Python writes it and people edit it.
pub(super) fn understood<T: DeserializeOwned>(name: &str, text: &str) -> Result<T, String> {
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    serde_json::from_str(&without_bare_words(text)).map_err(|e| format!("{name} {}", told(&e)))
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// The files that hold weights, by name, each with the tensors that the index expects there.
pub(crate) type Shards = BTreeMap<String, Vec<String>>;

/// Those of the folder: no tensors are expected without an index.
pub(super) fn shards(folder: &dyn Folder) -> Result<Shards, String> {
    match text(folder, INDEX)? {
        Some(index) => indexed(&index),
        None if folder.open(SINGLE).ok().flatten().is_some() => Ok(single()),
        None => Err(absent(folder)),
    }
}

/// Those of a folder without an index.
pub(crate) fn single() -> Shards {
    [(SINGLE.to_owned(), Vec::new())].into()
}

/// Those that the text of an index names.
pub(crate) fn indexed(index: &str) -> Result<Shards, String> {
    let index: Index = understood(INDEX, index)?;
    let mut shards = Shards::new();
    for (tensor, file) in index.weight_map {
        // A plain name: whatever else it is, it does not lead out of the folder.
        if Path::new(&file).file_name().is_none_or(|name| name != file.as_str())
            || Path::new(&file).extension().is_none_or(|e| e != "safetensors")
        {
            return Err(format!("{INDEX} names the file {}", shown(&file)));
        }
        shards.entry(file).or_default().push(tensor);
        if shards.len() > MAX_SHARDS {
            return Err(format!("{INDEX} names more than {MAX_SHARDS} files"));
        }
    }
    if shards.is_empty() { Err(format!("{INDEX} names no file")) } else { Ok(shards) }
}

/// Why there are no weights.
fn absent(folder: &dyn Folder) -> String {
    let has_pickles = folder.names().iter().any(|name| is_pickle(name));
    let pickles = if has_pickles {
        "; PyTorch's pickles, which it has, could run any code and are never read"
    } else {
        ""
    };
    format!("has neither {SINGLE} nor {INDEX}{pickles}")
}
