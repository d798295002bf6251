//! Models that are several files: `NAME-00001-of-00003.gguf` and so on. Each is a whole GGUF with tensors of
//! its own, read and checked like any other; the first one has the metadata.

use std::path::{Path, PathBuf};

use super::{Gguf, LoadError, MAX_TENSORS, Metadata, shown};

/// Above any model that was released; the names have room for 99,999.
const MAX_SHARDS: u64 = 1_000;

/// Opens a file by its path.
type Open<'a> = &'a dyn Fn(&Path) -> Result<Gguf, LoadError>;

/// Reads what else belongs to the model whose first file is `first`.
///
/// # Errors
/// Another file than the first one, one that is missing, or one that belongs elsewhere.
pub(super) fn join(mut first: Gguf, open: Open<'_>) -> Result<Gguf, LoadError> {
    let refuse = |reason: String| LoadError::new(&first.path, reason);
    let count = first.metadata.opt_u64("split.count").map_err(|e| refuse(e.to_string()))?;
    let count = match count {
        None | Some(0 | 1) => return Ok(first),
        Some(count) if count > MAX_SHARDS => {
            return Err(refuse(format!("split.count is {count}, above {MAX_SHARDS}")));
        }
        Some(count) => count,
    };
    let number = first.metadata.u64("split.no").map_err(|e| refuse(e.to_string()))?;
    if number != 0 {
        return Err(refuse(format!(
            "is {}: the first one is to be given, which knows of the others",
            part(number, count)
        )));
    }
    let wanted =
        first.metadata.opt_u64("split.tensors.count").map_err(|e| refuse(e.to_string()))?;
    for number in 1..count {
        let path = sibling(&first.path, number, count)?;
        first.take(shard(&path, number, count, open)?)?;
    }
    let found = first.tensors.len() + first.unusable.len();
    match wanted {
        Some(wanted) if wanted != found as u64 => Err(LoadError::new(
            &first.path,
            format!("and its other parts have {found} tensors, split.tensors.count is {wanted}"),
        )),
        _ => Ok(first),
    }
}

/// As people count.
fn part(number: u64, count: u64) -> String {
    format!("part {} of {count}", number.saturating_add(1))
}

/// The file beside `first` that is part `number`, counted from 0.
fn sibling(first: &Path, number: u64, count: u64) -> Result<PathBuf, LoadError> {
    let ending = |number: u64| format!("-{number:05}-of-{count:05}.gguf");
    let name = first.file_name().and_then(|name| name.to_str());
    let stem = name.and_then(|name| name.strip_suffix(&ending(1))).ok_or_else(|| {
        let reason = format!(
            "is {}, but its name does not end in {}, so that the others cannot be found",
            part(0, count),
            ending(1)
        );
        LoadError::new(first, reason)
    })?;
    Ok(first.with_file_name(format!("{stem}{}", ending(number + 1))))
}

fn shard(path: &Path, number: u64, count: u64, open: Open<'_>) -> Result<Gguf, LoadError> {
    let shard = open(path)?;
    let place = |metadata: &Metadata| Ok((metadata.u64("split.no")?, metadata.u64("split.count")?));
    let (own_number, own_count) =
        place(&shard.metadata).map_err(|e: super::KeyError| LoadError::new(path, e.to_string()))?;
    if (own_number, own_count) == (number, count) {
        return Ok(shard);
    }
    let reason =
        format!("says that it is {}, not {}", part(own_number, own_count), part(number, count));
    Err(LoadError::new(path, reason))
}

impl Gguf {
    /// Takes over the tensors of a further file.
    fn take(&mut self, other: Self) -> Result<(), LoadError> {
        let refuse = |reason: String| Err(LoadError::new(&other.path, reason));
        let names = other.tensors.keys().chain(other.unusable.keys());
        for name in names {
            if self.tensors.contains_key(name) || self.unusable.contains_key(name) {
                return refuse(format!("tensor {} is in an earlier part, too", shown(name)));
            }
        }
        self.tensors.extend(other.tensors);
        self.unusable.extend(other.unusable);
        self.files.extend(other.files);
        self.file_bytes = self.file_bytes.saturating_add(other.file_bytes);
        if (self.tensors.len() + self.unusable.len()) as u64 > MAX_TENSORS {
            return refuse(format!("and the parts before it have more than {MAX_TENSORS} tensors"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::Value;
    use super::super::testing::{TensorData, Writer, tiny_llama};
    use super::*;

    /// The tiny model in three files of a folder, each of which a test may make wrong before it is written.
    struct Parts {
        folder: tempfile::TempDir,
        writers: Vec<Writer>,
    }

    impl Parts {
        fn new() -> Self {
            let whole = tiny_llama();
            let mut writers = vec![Writer { tensors: Vec::new(), ..whole.clone() }];
            writers.resize(3, Writer::default());
            for (i, tensor) in whole.tensors.iter().enumerate() {
                writers[i % 3].tensors.push(tensor.clone());
            }
            for (number, w) in writers.iter_mut().enumerate() {
                w.set("split.no", &Value::U64(number as u64));
                w.set("split.count", &Value::U64(3));
                w.set("split.tensors.count", &Value::U64(whole.tensors.len() as u64));
            }
            Self { folder: tempfile::tempdir().unwrap(), writers }
        }

        fn path(&self, number: usize) -> PathBuf {
            self.folder.path().join(format!("tiny-{number:05}-of-00003.gguf"))
        }

        fn write(&self) -> PathBuf {
            for (i, w) in self.writers.iter().enumerate() {
                w.write(&self.path(i + 1)).unwrap();
            }
            self.path(1)
        }

        /// Name of the file that is refused, and why.
        fn refusal(&self) -> String {
            self.write();
            refusal(&self.path(1))
        }
    }

    fn refusal(path: &Path) -> String {
        let error = Gguf::open(path).unwrap_err();
        let text = error.to_string();
        assert!(!text.chars().any(char::is_control), "{text:?}");
        format!("{}: {}", error.path.file_name().unwrap().display(), error.reason)
    }

    #[test]
    fn parts_are_one_model() {
        let parts = Parts::new();
        let gguf = Gguf::open(&parts.write()).unwrap();
        let whole = tiny_llama();
        assert_eq!((gguf.tensors.len(), gguf.files.len()), (whole.tensors.len(), 3));
        for TensorData { name, data, .. } in &whole.tensors {
            let source = gguf.tensor(name).unwrap();
            let bytes = fs::read(&source.path).unwrap();
            assert!(bytes[source.offset as usize..].starts_with(data), "{name}");
        }
        let bytes: u64 = (1..=3).map(|i| fs::metadata(parts.path(i)).unwrap().len()).sum();
        assert_eq!(gguf.file_bytes, bytes);
        assert_eq!(gguf.metadata.str("general.name").unwrap(), "Tiny");
    }

    #[test]
    fn a_part_that_is_missing_or_belongs_elsewhere_is_named() {
        let parts = Parts::new();
        parts.write();
        fs::remove_file(parts.path(2)).unwrap();
        let missing = "tiny-00002-of-00003.gguf: cannot be read: No such file";
        assert!(refusal(&parts.path(1)).starts_with(missing));
        fs::create_dir(parts.path(2)).unwrap();
        assert_eq!(refusal(&parts.path(1)), "tiny-00002-of-00003.gguf: is not a file");
        fs::remove_dir(parts.path(2)).unwrap();
        // As a link that goes round.
        std::os::unix::fs::symlink(parts.path(1), parts.path(2)).unwrap();
        assert_eq!(
            refusal(&parts.path(1)),
            "tiny-00002-of-00003.gguf: says that it is part 1 of 3, not part 2 of 3"
        );
        assert!(refusal(&parts.path(3)).contains("is part 3 of 3: the first one is to be given"));
        let renamed = parts.folder.path().join("other.gguf");
        fs::rename(parts.path(1), &renamed).unwrap();
        assert!(refusal(&renamed).contains("does not end in -00001-of-00003.gguf"));
    }

    #[test]
    fn numbers_that_lie_are_refused() {
        for (key, value, reason) in [
            ("split.count", 1_001, "00001-of-00003.gguf: split.count is 1001, above 1000"),
            ("split.count", u64::MAX, "above 1000"),
            ("split.count", 4, "does not end in -00001-of-00004.gguf"),
            ("split.no", u64::MAX, "is part 18446744073709551615 of 3"),
            ("split.tensors.count", 99, "have 20 tensors, split.tensors.count is 99"),
        ] {
            let mut parts = Parts::new();
            parts.writers[0].set(key, &Value::U64(value));
            let said = parts.refusal();
            assert!(said.contains(reason), "{said}");
        }
        let mut parts = Parts::new();
        parts.writers[2].set("split.count", &Value::U64(4));
        assert!(parts.refusal().ends_with("says that it is part 3 of 4, not part 3 of 3"));
        parts.writers[2].remove("split.no");
        assert!(parts.refusal().contains("split.no is missing"));
        parts.writers[0].set("split.count", &Value::String("3".to_owned()));
        assert!(parts.refusal().contains("split.count is a string"));
    }

    #[test]
    fn parts_are_held_to_what_single_files_are() {
        let mut parts = Parts::new();
        let twice = parts.writers[1].tensors[0].clone();
        let name = twice.name.clone();
        parts.writers[2].tensors.push(twice);
        let said = parts.refusal();
        assert_eq!(
            said,
            format!("tiny-00003-of-00003.gguf: tensor {name} is in an earlier part, too")
        );
        let mut parts = Parts::new();
        parts.writers[1].set("general.alignment", &Value::U64(0));
        assert!(parts.refusal().starts_with("tiny-00002-of-00003.gguf: general.alignment is 0"));
        let mut parts = Parts::new();
        parts.writers[1].tensor_count = Some(1 << 60);
        assert!(parts.refusal().starts_with("tiny-00002-of-00003.gguf: claims"));
        // Bytes of another part are not bytes of this one.
        let mut parts = Parts::new();
        parts.writers[1].tensors[0].offset = Some(1 << 20);
        let gguf = Gguf::open(&parts.write()).unwrap();
        assert!(gguf.tensor(&name).unwrap_err().reason.contains("ends at byte"));
        // Cut anywhere, a part is refused, or what lay behind the cut is.
        let parts = Parts::new();
        let first = parts.write();
        let bytes = fs::read(parts.path(2)).unwrap();
        for len in (0..bytes.len()).step_by(97) {
            fs::write(parts.path(2), &bytes[..len]).unwrap();
            assert!(Gguf::open(&first).map_or(true, |gguf| !gguf.unusable.is_empty()), "{len}");
        }
    }
}
