//! Which files of a folder are read, each within a bound.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

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
pub(super) const TOKENIZER: &str = "tokenizer.json";
const INDEX: &str = "model.safetensors.index.json";
const SINGLE: &str = "model.safetensors";
/// What `PyTorch` writes: reading one can run any code.
const PICKLES: [&str; 5] = ["bin", "pt", "pth", "pkl", "ckpt"];

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
    let max_bytes = match name {
        TOKENIZER => MAX_TOKENIZER_BYTES,
        INDEX => MAX_INDEX_BYTES,
        _ => MAX_BYTES,
    };
    File::open(&path)
        .and_then(|file| file.take(max_bytes + 1).read_to_end(&mut bytes))
        .map_err(|e| format!("{name} cannot be read: {e}"))?;
    if bytes.len() as u64 > max_bytes {
        return Err(format!("{name} is longer than {max_bytes} bytes"));
    }
    String::from_utf8(bytes).map(Some).map_err(|_| format!("{name} is not UTF-8"))
}

/// The same, understood.
pub(super) fn json<T: DeserializeOwned>(folder: &Path, name: &str) -> Result<Option<T>, String> {
    let Some(text) = text(folder, name)? else { return Ok(None) };
    serde_json::from_str(&text).map(Some).map_err(|e| format!("{name} {}", told(&e)))
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// The files that hold weights, each with the tensors that the index expects there: none without an index.
pub(super) fn shards(folder: &Path) -> Result<BTreeMap<PathBuf, Vec<String>>, String> {
    let Some(index) = json::<Index>(folder, INDEX)? else {
        let single = folder.join(SINGLE);
        if single.exists() {
            return Ok([(single, Vec::new())].into());
        }
        return Err(absent(folder));
    };
    let mut shards: BTreeMap<PathBuf, Vec<String>> = BTreeMap::new();
    for (tensor, file) in index.weight_map {
        // A plain name: whatever else it is, it does not lead out of the folder.
        if Path::new(&file).file_name().is_none_or(|name| name != file.as_str())
            || Path::new(&file).extension().is_none_or(|e| e != "safetensors")
        {
            return Err(format!("{INDEX} names the file {}", shown(&file)));
        }
        shards.entry(folder.join(file)).or_default().push(tensor);
        if shards.len() > MAX_SHARDS {
            return Err(format!("{INDEX} names more than {MAX_SHARDS} files"));
        }
    }
    if shards.is_empty() { Err(format!("{INDEX} names no file")) } else { Ok(shards) }
}

/// Why there are no weights.
fn absent(folder: &Path) -> String {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let has_pickles = entries
        .map(|e| e.path())
        .any(|path| path.extension().is_some_and(|e| PICKLES.iter().any(|pickle| e == *pickle)));
    let pickles = if has_pickles {
        "; PyTorch's pickles, which it has, could run any code and are never read"
    } else {
        ""
    };
    format!("has neither {SINGLE} nor {INDEX}{pickles}")
}
