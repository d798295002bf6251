//! The header of a safetensors file: which tensors there are, and where.
//!
//! A JSON text behind its length, then the numbers. Format: <https://huggingface.co/docs/safetensors>.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::backend::{BlockType, Change, TensorSource};
use crate::model::load::bounded;
use crate::model::load::gguf::shown;

/// Far above any real header (a mixture of 128 experts in one file has 3 MB), low enough to be held several times over.
const MAX_HEADER_BYTES: u64 = 32 << 20;
const MAX_TENSORS: usize = 1 << 16;
const MAX_DIMS: usize = 8;
const LENGTH_BYTES: u64 = 8;

/// The tensors of one file, under the names they have there.
pub(super) struct Shard {
    pub(super) file_bytes: u64,
    /// Length and JSON text together.
    pub(super) header_bytes: u64,
    /// Each with its place, or why it cannot be used: a clause without its subject.
    pub(super) tensors: Vec<(String, Result<Found, String>)>,
}

/// A tensor, within the bounds of its file.
pub(super) enum Found {
    Floats(TensorSource),
    Bytes(Bytes),
}

/// What some form of packed numbers consists of.
pub(super) struct Bytes {
    pub(super) name: String,
    pub(super) path: PathBuf,
    pub(super) offset: u64,
    pub(super) shape: Vec<usize>,
}

impl Shard {
    /// Reads and checks the header of a file of so many bytes. Errors are clauses about it.
    pub(super) fn read(path: &Path, input: &mut dyn Read, file_bytes: u64) -> Result<Self, String> {
        let unreadable = |e: std::io::Error| format!("cannot be read: {e}");
        let mut length = [0; LENGTH_BYTES as usize];
        input.read_exact(&mut length).map_err(|e| format!("is no safetensors file: {e}"))?;
        let length = u64::from_le_bytes(length);
        if length > MAX_HEADER_BYTES {
            return Err(format!("claims a header of {length} bytes, above {MAX_HEADER_BYTES}"));
        }
        if length > file_bytes.saturating_sub(LENGTH_BYTES) {
            return Err(format!("claims a header of {length} bytes, more than it has"));
        }
        let mut json = vec![0; length as usize];
        input.read_exact(&mut json).map_err(unreadable)?;
        let header: Header =
            serde_json::from_slice(&json).map_err(|e| format!("has a header that {}", told(&e)))?;
        let header_bytes = LENGTH_BYTES + length;
        let tensors = header
            .0
            .into_iter()
            .map(|(name, entry)| {
                let place = entry.locate(&name, path, header_bytes, file_bytes);
                (name, place)
            })
            .collect();
        Ok(Self { file_bytes, header_bytes, tensors })
    }
}

/// What a reader of JSON says, as a clause.
pub(super) fn told(error: &serde_json::Error) -> String {
    format!("cannot be understood: {}", bounded::told(error))
}

/// Names and entries in the order of the file; a name may not come twice.
struct Header(Vec<(String, Entry)>);

#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut entries = Vec::new();
                let mut names = std::collections::HashSet::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    }
                    if entries.len() == MAX_TENSORS {
                        let error = format_args!("there are more than {MAX_TENSORS} tensors");
                        return Err(serde::de::Error::custom(error));
                    }
                    if !names.insert(name.clone()) {
                        let error = format_args!("tensor {} is there twice", shown(&name));
                        return Err(serde::de::Error::custom(error));
                    }
                    let entry = map.next_value()?;
                    entries.push((name, entry));
                }
                Ok(Header(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

impl Entry {
    fn locate(
        &self,
        name: &str,
        path: &Path,
        start: u64,
        file_bytes: u64,
    ) -> Result<Found, String> {
        let kind = match self.dtype.as_str() {
            "F32" => Some(BlockType::F32),
            "F16" => Some(BlockType::F16),
            "BF16" => Some(BlockType::BF16),
            "U8" => None,
            other => return Err(unsupported(other)),
        };
        if self.shape.len() > MAX_DIMS {
            return Err(format!("has {} dimensions", self.shape.len()));
        }
        if self.shape.contains(&0) {
            return Err(format!("is empty ({:?})", self.shape));
        }
        let width = kind.map_or(1, BlockType::block_bytes) as u64;
        let bytes = self.shape.iter().try_fold(width, |n, &dim| n.checked_mul(dim));
        let [from, to] = self.data_offsets;
        if bytes.is_none() || to.checked_sub(from) != bytes {
            return Err(format!("({} of {:?}) lies at {from}..{to}", self.dtype, self.shape));
        }
        if to > file_bytes - start {
            let held = file_bytes - start;
            return Err(format!("ends at byte {to} of {held} bytes of numbers"));
        }
        let too_large = |_| format!("({:?}) is too large for this machine", self.shape);
        let shape = self.shape.iter().map(|&dim| usize::try_from(dim)).collect::<Result<_, _>>();
        let shape: Vec<usize> = shape.map_err(too_large)?;
        let (name, path, offset) = (name.to_owned(), path.to_owned(), start + from);
        let Some(kind) = kind else {
            return Ok(Found::Bytes(Bytes { name, path, offset, shape }));
        };
        let (matrices, rows, cols) = match shape[..] {
            [cols] => (1, 1, cols),
            [rows, cols] => (1, rows, cols),
            [matrices, rows, cols] => (matrices, rows, cols),
            _ => return Err(format!("has the dimensions {shape:?}")),
        };
        let change = Change::None;
        let (stored, exponents) = (kind, None);
        Ok(Found::Floats(TensorSource {
            name,
            path,
            offset,
            stored: stored.into(),
            kind,
            matrices,
            rows,
            cols,
            change,
            exponents,
        }))
    }
}

/// Of a type of numbers.
pub(super) fn unsupported(kind: &str) -> String {
    format!("has type {}, which is not supported (F32, F16, BF16 are)", shown(kind))
}
