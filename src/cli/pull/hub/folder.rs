//! Which files of a repository without GGUF are fetched: those that the loader of folders reads.

use std::path::Path;

use crate::model::load::folder_files::{
    CONFIG, INDEX, OPTIONAL, Shards, TOKENIZER, indexed, single,
};

/// The files of a folder.
#[derive(Debug)]
pub(super) struct Parts {
    /// Without weights, the configuration first. An index is one of them.
    pub(super) small: Vec<String>,
    pub(super) shards: Shards,
}

/// Whether a file, by its path in the repository, could be read of a folder.
pub(super) fn is_of_folder(path: &str) -> bool {
    is_small(path) || Path::new(path).extension().is_some_and(|e| e == "safetensors")
}

/// Whether it is one of those without weights.
pub(super) fn is_small(path: &str) -> bool {
    [CONFIG, TOKENIZER, INDEX].contains(&path) || OPTIONAL.contains(&path)
}

/// Those of `files`, by the text of the index if there is one. The error goes on after the repository's name.
pub(super) fn parts(files: &[String], index: Option<&str>) -> Result<Parts, String> {
    let has = |name: &str| files.iter().any(|file| file == name);
    let shards = index.map_or_else(|| Ok(single()), indexed);
    let shards = shards.map_err(|reason| format!("cannot be served: {reason}"))?;
    let needed = [CONFIG, TOKENIZER].into_iter().chain(shards.keys().map(String::as_str));
    if let Some(missing) = needed.into_iter().find(|name| !has(name)) {
        let by = if shards.contains_key(missing) && index.is_some() {
            format!("that its {INDEX} names")
        } else {
            "without which it cannot be served".to_owned()
        };
        return Err(format!("has no {missing}, {by}"));
    }
    let small = [CONFIG, TOKENIZER, INDEX].into_iter().chain(OPTIONAL);
    let small = small.filter(|name| has(name)).map(str::to_owned).collect();
    Ok(Parts { small, shards })
}
