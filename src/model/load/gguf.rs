//! The GGUF container: header, metadata, tensor directory.
//!
//! Every count, length, dimension and offset is held against the real size of the file before
//! anything is made from it. What the structure of the file needs is refused at once; what is wrong
//! with a single tensor is remembered and refused only when a model needs that tensor, so that files
//! with extras still load. Format: ggml's `docs/gguf.md`.

mod directory;
mod metadata;
mod reader;
mod shards;
#[cfg(any(test, feature = "fake-model"))]
pub mod testing;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use crate::backend::TensorSource;
use directory::{Entry, Extent};
pub use metadata::{KeyError, Metadata, Value};
use reader::Reader;

const MAGIC: [u8; 4] = *b"GGUF";
/// Both have the same layout: 2 widened the counts of 1 to 64 bits, 3 allowed big-endian files.
const VERSIONS: [u32; 2] = [2, 3];
/// Far above any real file, and low enough that the directories stay small in memory.
const MAX_KEYS: u64 = 1 << 16;
const MAX_TENSORS: u64 = 1 << 16;
const DEFAULT_ALIGNMENT: u64 = 32;
const ALIGNMENTS: std::ops::RangeInclusive<u64> = 8..=65_536;
/// Bytes read at a time: few calls, and small beside any model.
const BUFFER_BYTES: usize = 1 << 18;

/// Why a model file was refused: one line that names the file and what in it.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct LoadError {
    pub path: PathBuf,
    pub reason: String,
}

impl LoadError {
    pub fn new(path: &Path, reason: impl Into<String>) -> Self {
        Self { path: path.to_owned(), reason: reason.into() }
    }
}

/// A checked GGUF file: every tensor in `tensors` lies inside the file and has the size its type says.
#[derive(Debug, Clone)]
pub struct Gguf {
    /// The first file, where there are several.
    pub path: PathBuf,
    /// Bytes of all files.
    pub file_bytes: u64,
    pub files: Vec<ModelFile>,
    pub metadata: Metadata,
    pub tensors: BTreeMap<String, TensorSource>,
    /// Tensors that cannot be used, and why: an unknown type, an impossible shape, outside the file.
    pub unusable: BTreeMap<String, String>,
}

/// A file of a model.
#[derive(Debug, Clone)]
pub struct ModelFile {
    pub path: PathBuf,
    /// Bytes of header, metadata and tensor directory, without the padding that follows.
    pub header_bytes: u64,
}

impl Gguf {
    /// Reads and checks the header, and those of the other files where a model is several. Allocates in
    /// proportion to what the files really hold.
    ///
    /// # Errors
    /// Anything but a little-endian GGUF of version 2 or 3 whose metadata and tensor directory lie
    /// inside the file; and parts of a model that are missing or do not belong together.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        Self::open_with(path, &Self::open_one)
    }

    /// As [`Gguf::open`], with files that `open` opens.
    pub(crate) fn open_with(
        path: &Path,
        open: &dyn Fn(&Path) -> Result<Self, LoadError>,
    ) -> Result<Self, LoadError> {
        shards::join(open(path)?, open)
    }

    fn open_one(path: &Path) -> Result<Self, LoadError> {
        let unreadable = |e: std::io::Error| LoadError::new(path, format!("cannot be read: {e}"));
        let about = std::fs::metadata(path).map_err(unreadable)?;
        if !about.is_file() {
            return Err(LoadError::new(path, "is not a file"));
        }
        let file = File::open(path).map_err(unreadable)?;
        // Of the open file, not of the path: only this size belongs to the bytes that follow.
        let file_bytes = file.metadata().map_err(unreadable)?.len();
        Self::read(path, BufReader::with_capacity(BUFFER_BYTES, file), file_bytes)
    }

    /// One file, from any input of `file_bytes` bytes.
    pub(crate) fn read(path: &Path, input: impl Read, file_bytes: u64) -> Result<Self, LoadError> {
        parse(path, input, file_bytes).map_err(|reason| LoadError::new(path, reason))
    }

    /// The tensor `name`, or why there is none that could be used.
    pub fn tensor(&self, name: &str) -> Result<&TensorSource, LoadError> {
        self.tensors.get(name).ok_or_else(|| {
            let reason = self.unusable.get(name).map_or("is missing", String::as_str);
            LoadError::new(&self.path, format!("tensor {} {reason}", shown(name)))
        })
    }
}

fn parse(path: &Path, input: impl Read, file_bytes: u64) -> Result<Gguf, String> {
    let mut reader = Reader::new(input, file_bytes);
    let (tensor_count, key_count) = preamble(&mut reader)?;
    let metadata = read_metadata(&mut reader, key_count)?;
    let alignment = alignment(&metadata)?;
    let entries = read_directory(&mut reader, tensor_count)?;
    let header_bytes = reader.at();
    let start = header_bytes.next_multiple_of(alignment);
    let extent = Extent { start, file_bytes, alignment };
    let mut tensors = BTreeMap::new();
    let mut unusable = BTreeMap::new();
    for entry in entries {
        let known = match entry.locate(path, &extent) {
            Ok(source) => tensors.insert(entry.name.clone(), source).is_some(),
            Err(reason) => unusable.insert(entry.name.clone(), reason).is_some(),
        };
        if known || tensors.contains_key(&entry.name) && unusable.contains_key(&entry.name) {
            return Err(format!("tensor {} is there twice", shown(&entry.name)));
        }
    }
    refuse_overlaps(&mut tensors, &mut unusable);
    let files = vec![ModelFile { path: path.to_owned(), header_bytes }];
    Ok(Gguf { path: path.to_owned(), file_bytes, files, metadata, tensors, unusable })
}

/// Makes tensors unusable that share bytes with one before them: many that are the same bytes would take
/// a multiple of the file in memory, and no right file has them.
pub(super) fn refuse_overlaps(
    tensors: &mut BTreeMap<String, TensorSource>,
    unusable: &mut BTreeMap<String, String>,
) {
    let end_of = |source: &TensorSource| source.offset + source.stored_len() as u64;
    let mut by_place: Vec<(&String, &TensorSource)> = tensors.iter().collect();
    by_place.sort_by_key(|(_, source)| (&source.path, source.offset, end_of(source)));
    let mut overlaps = Vec::new();
    let mut furthest: Option<&TensorSource> = None;
    for (name, source) in by_place {
        let here = furthest.filter(|before| before.path == source.path);
        let before = here.filter(|before| source.offset < end_of(before));
        if let Some(before) = before {
            overlaps.push((name.clone(), format!("overlaps {}", shown(&before.name))));
        }
        if here.is_none_or(|before| end_of(source) > end_of(before)) {
            furthest = Some(source);
        }
    }
    for (name, reason) in overlaps {
        tensors.remove(&name);
        unusable.insert(name, reason);
    }
}

/// Magic, version and the two counts: tensors, keys.
fn preamble<R: Read>(reader: &mut Reader<R>) -> Result<(u64, u64), String> {
    let context = |reason: String| format!("not a GGUF file: its header {reason}");
    let magic = reader.array::<4>().map_err(context)?;
    if magic != MAGIC {
        return Err(format!("not a GGUF file: {}", foreign(magic, reader)));
    }
    let version = reader.u32().map_err(context)?;
    if VERSIONS.contains(&version.swap_bytes()) {
        return Err("is a big-endian GGUF file, which is not supported".to_owned());
    }
    if !VERSIONS.contains(&version) {
        return Err(format!("has GGUF version {version}, which is not supported (2 and 3 are)"));
    }
    let tensors = reader.u64().map_err(context)?;
    let keys = reader.u64().map_err(context)?;
    for (what, count, max, each) in [
        ("metadata keys", keys, MAX_KEYS, 8 + 4 + 1),
        ("tensors", tensors, MAX_TENSORS, Entry::MIN_BYTES),
    ] {
        if count > max {
            return Err(format!("claims {count} {what}, above {max}"));
        }
        if !reader.holds(count, each) {
            return Err(format!("claims {count} {what}, more than its size can hold"));
        }
    }
    Ok((tensors, keys))
}

/// What a file is that does not begin as it should: people try the ones that they have.
fn foreign<R: Read>(magic: [u8; 4], reader: &mut Reader<R>) -> &'static str {
    match magic {
        // The protocols from 2 on name themselves.
        [0x80, 2..=5, ..] => "it is a Python pickle, which could run any code and is never read",
        [b'P', b'K', 3, 4] => {
            "it is a zip archive, as PyTorch's are: the pickles in it could run any code"
        }
        // The length of a JSON text, far below 4 GiB, and its beginning.
        _ if reader.array().is_ok_and(|next| next == *b"\0\0\0\0{") => {
            "it is a safetensors file: name the folder that it is in"
        }
        _ => "it does not begin with GGUF",
    }
}

fn read_metadata<R: Read>(reader: &mut Reader<R>, count: u64) -> Result<Metadata, String> {
    let mut metadata = Metadata::default();
    for index in 0..count {
        let key = reader.name().map_err(|reason| format!("metadata key #{index} {reason}"))?;
        let value =
            reader.value().map_err(|reason| format!("metadata key {} {reason}", shown(&key)))?;
        if metadata.values.contains_key(&key) {
            return Err(format!("metadata key {} is there twice", shown(&key)));
        }
        metadata.values.insert(key, value);
    }
    Ok(metadata)
}

fn alignment(metadata: &Metadata) -> Result<u64, String> {
    let found = metadata.opt_u64("general.alignment").map_err(|e| e.to_string())?;
    let alignment = found.unwrap_or(DEFAULT_ALIGNMENT);
    if alignment.is_power_of_two() && ALIGNMENTS.contains(&alignment) {
        return Ok(alignment);
    }
    let (min, max) = (ALIGNMENTS.start(), ALIGNMENTS.end());
    Err(format!("general.alignment is {alignment}, not a power of two from {min} to {max}"))
}

fn read_directory<R: Read>(reader: &mut Reader<R>, count: u64) -> Result<Vec<Entry>, String> {
    let entry = |index: u64| {
        let name = reader.name().map_err(|reason| format!("tensor #{index} {reason}"))?;
        let context = format!("tensor {}", shown(&name));
        Entry::read(name, reader).map_err(|reason| format!("{context} {reason}"))
    };
    (0..count).map(entry).collect()
}

/// Characters of a name from a file that an error shows.
const SHOWN_CHARS: usize = 64;

/// A name from a file as an error may show it: control characters escaped, long ones cut.
pub fn shown(name: &str) -> String {
    let mut text: String = name.chars().take(SHOWN_CHARS).flat_map(char::escape_debug).collect();
    if name.chars().nth(SHOWN_CHARS).is_some() {
        text.push('…');
    }
    text
}
