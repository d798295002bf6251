//! Which files of a folder are read, each within a bound.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;

pub(super) use super::safetensors::told;
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
pub(super) const TEMPLATE: &str = "chat_template.jinja";
/// What is read if it is there.
pub(crate) const OPTIONAL: [&str; 3] = [GENERATION, TOKENIZER_CONFIG, TEMPLATE];
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

/// The text of a file in the folder, if there is one. Errors name the file.
pub(super) fn text(folder: &Path, name: &str) -> Result<Option<String>, String> {
    let path = folder.join(name);
    let about = match fs::metadata(&path) {
        Ok(about) => about,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(format!("{name} cannot be read: {e}")),
    };
    if !about.is_file() {
        return Err(format!("{name} is not a file"));
    }
    let mut bytes = Vec::new();
    let max_bytes = max_bytes(name);
    File::open(&path)
        .and_then(|file| file.take(max_bytes + 1).read_to_end(&mut bytes))
        .map_err(|e| format!("{name} cannot be read: {e}"))?;
    if bytes.len() as u64 > max_bytes {
        return Err(format!("{name} is longer than {max_bytes} bytes"));
    }
    String::from_utf8(bytes).map(Some).map_err(|_| format!("{name} is not UTF-8"))
}

/// What such a text says.
pub(super) fn understood<T: DeserializeOwned>(name: &str, text: &str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|e| format!("{name} {}", told(&e)))
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// The files that hold weights, by name, each with the tensors that the index expects there.
pub(crate) type Shards = BTreeMap<String, Vec<String>>;

/// Those of the folder: no tensors are expected without an index.
pub(super) fn shards(folder: &Path) -> Result<Shards, String> {
    match text(folder, INDEX)? {
        Some(index) => indexed(&index),
        None if folder.join(SINGLE).exists() => Ok(single()),
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
fn absent(folder: &Path) -> String {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let has_pickles = entries.map(|e| e.file_name()).any(|name| is_pickle(&name.to_string_lossy()));
    let pickles = if has_pickles {
        "; PyTorch's pickles, which it has, could run any code and are never read"
    } else {
        ""
    };
    format!("has neither {SINGLE} nor {INDEX}{pickles}")
}
