//! A folder of a family that has no description here: under its own names and keys, for who knows those.

use std::path::Path;

use serde_json::{Map, Value as Json};

use super::safetensors::{Found, unsupported};
use super::values::Config;
use super::{Folder, Open, ahead, files, generation, opened, shard, text, without_shards};
use crate::model::load::gguf::{LoadError, Metadata, ModelFile, Value, refuse_overlaps, shown};
use crate::model::load::{Checkpoint, Input};

/// Everything but the weights themselves, checked.
#[derive(Debug, Clone)]
pub struct Foreign {
    /// `model_type`
    pub family: String,
    /// `config.json`
    pub config: Map<String, Json>,
    /// Its metadata are those of ends and of sampling, its tensors have the folder's own names; no text side of one that is
    /// not here yet.
    pub checkpoint: Checkpoint,
}

/// Reads a folder if its family is one of those named.
///
/// # Errors
/// One line that names the file and what in it.
pub fn open(path: &Path, names: &[&str]) -> Result<Option<Foreign>, LoadError> {
    if !path.is_dir() {
        return Ok(None);
    }
    read(&path, names).map_err(|reason| LoadError::new(path, reason))
}

fn read(from: &dyn Folder, names: &[&str]) -> Result<Option<Foreign>, String> {
    let Some(config) = Config::read(from, files::CONFIG)? else { return Ok(None) };
    let Some(family) = family(&config, names)? else { return Ok(None) };
    let generation = Config::read(from, files::GENERATION)?;
    let mut metadata = metadata(&family);
    generation::keys(&config, generation.as_ref(), &mut metadata)?;
    let text = text::read(from, &mut metadata)?;
    let shards = files::shards(from)?;
    let open = |name: &str| opened(from, name);
    let mut folder = joined(from.path(), family, config, metadata, &shards, &open)?;
    folder.checkpoint.text = Some(text);
    Ok(Some(folder))
}

/// What is known of one before it is here, as `super::preview` has it.
///
/// # Errors
/// As of [`open`]; also what `open` says.
pub(crate) fn preview(
    path: &Path,
    config: &str,
    shards: &files::Shards,
    names: &[&str],
    open: Input<'_>,
) -> Result<Option<Foreign>, LoadError> {
    let read = || {
        let config = Config::parse(files::CONFIG, config)?;
        let Some(family) = family(&config, names)? else { return Ok(None) };
        let metadata = metadata(&family);
        let open = |name: &str| ahead(path, name, open);
        joined(path, family, config, metadata, shards, &open).map(Some)
    };
    read().map_err(|reason| LoadError::new(path, reason))
}

/// The family, if it is one of those named and its weights are numbers.
fn family(config: &Config, names: &[&str]) -> Result<Option<String>, String> {
    let family = config.string("model_type")?.filter(|family| names.contains(family));
    let Some(family) = family.map(str::to_owned) else { return Ok(None) };
    config.refuse_quantised(None)?;
    Ok(Some(family))
}

fn metadata(family: &str) -> Metadata {
    let mut metadata = Metadata::default();
    let arch = Value::String(family.to_owned());
    metadata.values.insert("general.architecture".to_owned(), arch);
    metadata
}

/// The folder without its text side.
fn joined(
    path: &Path,
    family: String,
    config: Config,
    metadata: Metadata,
    shards: &files::Shards,
    open: Open<'_>,
) -> Result<Foreign, String> {
    let mut checkpoint = without_shards(path, metadata);
    let Checkpoint { tensors, unusable, bytes, files, .. } = &mut checkpoint;
    for (name, expected) in shards {
        let file = path.join(name);
        let shard = shard(&file, name, expected, open)?;
        *bytes += shard.file_bytes;
        files.push(ModelFile { path: file, header_bytes: shard.header_bytes });
        for (tensor, found) in shard.tensors {
            if tensors.contains_key(&tensor) || unusable.contains_key(&tensor) {
                return Err(format!("tensor {} of {} is there twice", shown(&tensor), shown(name)));
            }
            match found {
                Ok(Found::Floats(source)) => drop(tensors.insert(tensor, source)),
                Ok(Found::Bytes(_)) => drop(unusable.insert(tensor, unsupported("U8"))),
                Err(reason) => drop(unusable.insert(tensor, reason)),
            }
        }
    }
    refuse_overlaps(tensors, unusable);
    Ok(Foreign { family, config: config.into_values(), checkpoint })
}
