//! A folder as Hugging Face serves models: `config.json`, safetensors, a tokenizer. Read into the same names and keys that a
//! GGUF has, so that one loader knows both.

mod config;
mod families;
pub(crate) mod files;
mod foreign;
mod generation;
mod mxfp4;
mod names;
mod rope;
mod safetensors;
mod text;
mod values;

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use super::gguf::{LoadError, Metadata, ModelFile, refuse_overlaps, shown};
use super::{Checkpoint, Input};
use crate::backend::{BlockType, Change, TensorSource};
use crate::config::Quantize;
use config::Room;
pub use files::{Folder, Opened};
pub(crate) use foreign::preview as preview_foreign;
pub use foreign::{Foreign, open as open_foreign};
use mxfp4::Halves;
pub(super) use names::Names;
use names::{Half, Place};
use safetensors::{Found, Shard};
pub use text::TextFiles;
pub(crate) use text::read_alone as read_text;
use values::Config;

/// Opens a file of weights by its name. Errors are clauses about it.
type Open<'a> = &'a dyn Fn(&str) -> Result<Opened<'a>, String>;

/// The head's matrix, which some models do not have of their own.
const HEAD: &str = "output.weight";

/// Reads and checks everything but the weights themselves, whose matrices will become what `quantize` says.
///
/// # Errors
/// One line that names the file and what in it.
pub(super) fn open(from: &dyn Folder, quantize: Quantize) -> Result<Checkpoint, LoadError> {
    read(from, quantize).map_err(|reason| LoadError::new(from.path(), reason))
}

fn read(from: &dyn Folder, quantize: Quantize) -> Result<Checkpoint, String> {
    let config = Config::read(from, files::CONFIG)?.ok_or(
        "has no config.json: a model folder has one, beside safetensors and tokenizer.json",
    )?;
    let generation = Config::read(from, files::GENERATION)?;
    let mut metadata = config.metadata()?;
    generation::keys(&config, generation.as_ref(), &mut metadata)?;
    let text = text::read(from, &mut metadata)?;
    let shards = files::shards(from)?;
    let open = |name: &str| opened(from, name);
    let mut folder = joined(from.path(), &config, metadata, &shards, quantize, &open)?;
    folder.text = Some(text);
    Ok(folder)
}

/// A file that must be there.
fn opened<'a>(from: &'a dyn Folder, name: &str) -> Result<Opened<'a>, String> {
    from.open(name)?.ok_or_else(|| "is missing".to_owned())
}

/// What is known of a folder before it is here: all but the text side, and nothing of it on the disk. `open`
/// tells the input and the size of one of its `shards`.
///
/// # Errors
/// As of [`open`]; also what `open` says.
pub(crate) fn preview(
    path: &Path,
    config: &str,
    shards: &files::Shards,
    quantize: Quantize,
    open: Input<'_>,
) -> Result<Checkpoint, LoadError> {
    let read = || {
        let config = Config::parse(files::CONFIG, config)?;
        // Before anything of the weights is asked for.
        let metadata = config.metadata()?;
        let open = |name: &str| ahead(path, name, open);
        joined(path, &config, metadata, shards, quantize, &open)
    };
    read().map_err(|reason| LoadError::new(path, reason))
}

/// A file that is elsewhere.
fn ahead<'a>(path: &Path, name: &str, open: Input<'a>) -> Result<Opened<'a>, String> {
    open(&path.join(name)).map(|(input, bytes)| (bytes, input))
}

fn without_shards(path: &Path, metadata: Metadata) -> Checkpoint {
    Checkpoint {
        path: path.to_owned(),
        metadata,
        tensors: BTreeMap::new(),
        unusable: BTreeMap::new(),
        files: described_by(path),
        bytes: 0,
        text: None,
    }
}

/// The folder without its text side.
fn joined(
    path: &Path,
    config: &Config,
    mut metadata: Metadata,
    shards: &files::Shards,
    quantize: Quantize,
    open: Open<'_>,
) -> Result<Checkpoint, String> {
    let (names, room) = (config.names()?, config.room()?);
    metadata.origins.names = Some(names);
    let mut folder = without_shards(path, metadata);
    let mut halves = Halves::default();
    for (name, expected) in shards {
        let file = path.join(name);
        let shard = shard(&file, name, expected, open)?;
        folder.bytes += shard.file_bytes;
        folder.files.push(ModelFile { path: file, header_bytes: shard.header_bytes });
        take(&mut folder, shard, (names, &room), quantize, &mut halves).map_err(
            |(tensor, reason)| format!("tensor {} of {} {reason}", shown(&tensor), shown(name)),
        )?;
    }
    folder.tensors.extend(halves.join()?);
    let has_head = folder.tensors.contains_key(HEAD) || folder.unusable.contains_key(HEAD);
    if room.is_tied == Some(false) && !has_head {
        return Err("tensor lm_head.weight is missing".to_owned());
    }
    let rows = folder.tensors.get("token_embd.weight").map(|embedding| embedding.rows as u64);
    if let Some((size, rows)) = config.integer("vocab_size")?.zip(rows)
        && size != rows
    {
        return Err(format!("config.json: vocab_size is {size}, the embedding has {rows} rows"));
    }
    refuse_overlaps(&mut folder.tensors, &mut folder.unusable);
    Ok(folder)
}

/// The header of a file that has these tensors, and perhaps others.
fn shard(file: &Path, name: &str, expected: &[String], open: Open<'_>) -> Result<Shard, String> {
    let read = || {
        let (bytes, mut input) = open(name)?;
        Shard::read(file, &mut *input, bytes)
    };
    let shard = read().map_err(|reason| format!("{} {reason}", shown(name)))?;
    let there: HashSet<&String> = shard.tensors.iter().map(|(name, _)| name).collect();
    if let Some(missing) = expected.iter().find(|tensor| !there.contains(tensor)) {
        return Err(format!("tensor {} is not in {}", shown(missing), shown(name)));
    }
    Ok(shard)
}

/// Files that make a folder what it is, beside its weights.
fn described_by(path: &Path) -> Vec<ModelFile> {
    let whole = |name: &str| ModelFile { path: path.join(name), header_bytes: u64::MAX };
    [files::CONFIG, files::TOKENIZER].map(whole).to_vec()
}

/// Adds the tensors of a file under the names that a GGUF has for them. An error is a tensor, and a clause about it.
fn take(
    folder: &mut Checkpoint,
    shard: Shard,
    (names, room): (&Names, &Room),
    quantize: Quantize,
    halves: &mut Halves,
) -> Result<(), (String, String)> {
    for (own_name, found) in shard.tensors {
        let refused = |reason: &str| Err((own_name.clone(), reason.to_owned()));
        let (name, change, half) = match names.place(&own_name) {
            // Some files have the embedding a second time as the head.
            Place::Named(name, _) if room.is_tied == Some(true) && name == HEAD => continue,
            Place::Named(name, change) => (name, change, None),
            Place::Half(name, change, half) => (name, change, Some(half)),
            Place::LeftAside => continue,
            Place::Unknown => return refused("has no use in this architecture"),
        };
        if folder.tensors.contains_key(&name)
            || folder.unusable.contains_key(&name)
            || halves.contains(&name, half)
        {
            return refused("is there twice");
        }
        if !room.has(&name) {
            return refused("is of no layer or expert that config.json has");
        }
        match (found, half) {
            (Ok(Found::Floats(source)), None) => {
                let source = changed(source, change, wanted(&name, quantize));
                folder.tensors.insert(name.clone(), source);
            }
            (Ok(Found::Bytes(bytes)), Some(half)) => halves.add(name.clone(), change, half, bytes),
            (Ok(Found::Bytes(_)), None) => {
                folder.unusable.insert(name.clone(), safetensors::unsupported("U8"));
            }
            (Err(reason), None) => drop(folder.unusable.insert(name.clone(), reason)),
            (Ok(Found::Floats(_)), Some(_)) => {
                return refused("is of MXFP4, and is not of type U8");
            }
            (Err(reason), Some(_)) => return refused(&reason),
        }
        // Of two halves the one that the whole is called by.
        if half != Some(Half::Exponents) {
            folder.metadata.origins.tensors.insert(name, own_name);
        }
    }
    Ok(())
}

/// What a tensor becomes, the first that fits its rows; nothing: it stays as it is.
fn wanted(name: &str, quantize: Quantize) -> &'static [BlockType] {
    let is_outer = matches!(name, "token_embd.weight" | HEAD);
    let is_matrix = is_outer
        || name.starts_with("blk.")
            && name.ends_with(".weight")
            && !name.ends_with("_norm.weight")
            // Routers are small, and decide.
            && !name.ends_with("_inp.weight")
            && !name.ends_with("_inp_shexp.weight");
    match quantize {
        _ if !is_matrix => &[],
        Quantize::None => &[],
        Quantize::Q8_0 => &[BlockType::Q8_0],
        Quantize::Q4K if is_outer => &[BlockType::Q6K, BlockType::Q8_0],
        Quantize::Q4K => &[BlockType::Q4K, BlockType::Q8_0],
    }
}

fn changed(source: TensorSource, change: Change, wanted: &[BlockType]) -> TensorSource {
    let mut source = TensorSource { change, ..source };
    if source.change.transposes() {
        std::mem::swap(&mut source.rows, &mut source.cols);
    }
    if source.change == Change::PlusOne {
        // Halves have no room for both.
        source.kind = BlockType::F32;
    }
    let fits = |kind: &&BlockType| source.cols.is_multiple_of(kind.block_len());
    if let Some(&kind) = wanted.iter().find(fits) {
        source.kind = kind;
    }
    source
}

#[cfg(test)]
mod tests;
