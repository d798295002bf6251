//! A folder as Hugging Face serves models: `config.json`, safetensors, a tokenizer. Read into the same names and keys that a
//! GGUF has, so that one loader knows both.

mod config;
pub(crate) mod files;
mod foreign;
mod generation;
mod mxfp4;
mod names;
mod rope;
mod safetensors;
mod text;

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use super::gguf::{LoadError, Metadata, ModelFile, refuse_overlaps, shown};
use super::{Checkpoint, Input};
use crate::backend::{BlockType, Change, TensorSource};
use crate::config::Quantize;
use config::Config;
pub(crate) use foreign::preview as preview_foreign;
pub use foreign::{Foreign, open as open_foreign};
use mxfp4::Halves;
use names::Place;
use safetensors::{Found, Shard};
pub use text::TextFiles;

/// Reads the header of a file. Errors are clauses about it.
type Open<'a> = &'a dyn Fn(&Path) -> Result<Shard, String>;

/// The head's matrix, which some models do not have of their own.
const HEAD: &str = "output.weight";

/// Reads and checks everything but the weights themselves, whose matrices will become what `quantize` says.
///
/// # Errors
/// One line that names the file and what in it.
pub(super) fn open(path: &Path, quantize: Quantize) -> Result<Checkpoint, LoadError> {
    read(path, quantize).map_err(|reason| LoadError::new(path, reason))
}

fn read(path: &Path, quantize: Quantize) -> Result<Checkpoint, String> {
    let config = Config::read(path, files::CONFIG)?.ok_or(
        "has no config.json: a model folder has one, beside safetensors and tokenizer.json",
    )?;
    let generation = Config::read(path, files::GENERATION)?;
    let mut metadata = config.metadata()?;
    generation::keys(&config, generation.as_ref(), &mut metadata)?;
    let text = text::read(path, &mut metadata)?;
    let shards = files::shards(path)?;
    let mut folder = joined(path, &config, metadata, &shards, quantize, &Shard::open)?;
    folder.text = Some(text);
    Ok(folder)
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
        let shard = |file: &Path| open(file).and_then(|(input, n)| Shard::read(file, input, n));
        joined(path, &config, metadata, shards, quantize, &shard)
    };
    read().map_err(|reason| LoadError::new(path, reason))
}

/// The folder without its text side.
fn joined(
    path: &Path,
    config: &Config,
    metadata: Metadata,
    shards: &files::Shards,
    quantize: Quantize,
    open: Open<'_>,
) -> Result<Checkpoint, String> {
    let mut folder = Checkpoint {
        path: path.to_owned(),
        metadata,
        tensors: BTreeMap::new(),
        unusable: BTreeMap::new(),
        files: described_by(path),
        bytes: 0,
        text: None,
    };
    let mut halves = Halves::default();
    for (name, expected) in shards {
        let file = path.join(name);
        let shard = shard(&file, name, expected, open)?;
        folder.bytes += shard.file_bytes;
        folder.files.push(ModelFile { path: file, header_bytes: shard.header_bytes });
        take(&mut folder, shard, config, quantize, &mut halves)?;
    }
    folder.tensors.extend(halves.join()?);
    let has_head = folder.tensors.contains_key(HEAD) || folder.unusable.contains_key(HEAD);
    if config.is_tied()? == Some(false) && !has_head {
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
    let shard = open(file).map_err(|reason| format!("{} {reason}", shown(name)))?;
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

/// Adds the tensors of a file under the names that a GGUF has for them.
fn take(
    folder: &mut Checkpoint,
    shard: Shard,
    config: &Config,
    quantize: Quantize,
    halves: &mut Halves,
) -> Result<(), String> {
    let (names, is_tied) = (config.names()?, config.is_tied()?);
    for (own_name, found) in shard.tensors {
        let (name, change, half) = match names.place(&own_name) {
            // Some files have the embedding a second time as the head.
            Place::Named(name, _) if is_tied == Some(true) && name == HEAD => continue,
            Place::Named(name, change) => (name, change, None),
            Place::Half(name, change, half) => (name, change, Some(half)),
            Place::LeftAside => continue,
            Place::Unknown => {
                let name = shown(&own_name);
                return Err(format!("tensor {name} has no use in this architecture"));
            }
        };
        if folder.tensors.contains_key(&name)
            || folder.unusable.contains_key(&name)
            || half.is_none() && halves.contains(&name)
        {
            return Err(format!("tensor {} is there twice", shown(&own_name)));
        }
        if !config.has_room_for(&name)? {
            let name = shown(&own_name);
            return Err(format!("tensor {name} is of no layer or expert that config.json has"));
        }
        let unusable = match (found, half) {
            (Ok(Found::Floats(source)), None) => {
                let source = changed(source, change, wanted(&name, quantize));
                folder.tensors.insert(name, source);
                continue;
            }
            (Ok(Found::Bytes(bytes)), Some(half)) => {
                halves.add(name, change, half, bytes)?;
                continue;
            }
            (Ok(Found::Bytes(_)), None) => safetensors::unsupported("U8"),
            (Ok(Found::Floats(_)), Some(_)) => {
                let name = shown(&own_name);
                return Err(format!("tensor {name} is of MXFP4, and is not of type U8"));
            }
            (Err(reason), Some(_)) => return Err(format!("tensor {} {reason}", shown(&own_name))),
            (Err(reason), None) => reason,
        };
        folder.unusable.insert(name, unusable);
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
