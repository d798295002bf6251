//! The cache that the hub's own tools use: each content once in `blobs`, by its mark; in `snapshots`
//! the files of a commit as links to them; in `refs` the commits that branches and tags last were.

use std::fs;
use std::path::{Path, PathBuf};

use super::folder::is_of_folder;
use super::name::{HubName, is_commit, is_gguf, is_plain_path};
use super::small::read_small;
use crate::cli::pull::PullError;

/// Of folders in a repository.
const MAX_DEPTH: usize = 8;
/// Of a commit, and the end of a line.
const MAX_REF_BYTES: usize = 128;

/// The part of the cache that one repository has.
#[derive(Debug)]
pub(super) struct Cache {
    root: PathBuf,
    locks: PathBuf,
}

impl Cache {
    pub(super) fn new(cache: &Path, name: &HubName) -> Self {
        let folder = format!("models--{}--{}", name.owner, name.name);
        Self { locks: cache.join(".locks").join(&folder), root: cache.join(folder) }
    }

    /// The folder that is searched, for messages.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The commit that `revision` is, as far as is known here.
    pub(super) fn commit(&self, revision: &str) -> Option<String> {
        let known =
            self.noted(revision).map(|commit| commit.trim().to_owned()).filter(|c| is_commit(c));
        // A commit may also be named by itself.
        let itself = || is_commit(revision) && self.root.join("snapshots").join(revision).is_dir();
        known.or_else(|| itself().then(|| revision.to_owned()))
    }

    /// The commit that is here, if it is one alone.
    pub(super) fn only_commit(&self) -> Option<String> {
        let entries = fs::read_dir(self.root.join("snapshots")).ok()?.flatten();
        let folders = entries.filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir()));
        let mut commits = folders.filter_map(|entry| entry.file_name().into_string().ok());
        let only = commits.next().filter(|commit| is_commit(commit))?;
        commits.next().is_none().then_some(only)
    }

    fn noted(&self, revision: &str) -> Option<String> {
        read_small(&self.root.join("refs").join(revision), MAX_REF_BYTES).ok()
    }

    /// `file` of this commit, if it is there in full.
    pub(super) fn find(&self, commit: &str, file: &str) -> Option<PathBuf> {
        let path = self.snapshot(commit).join(file);
        // Follows the link: one whose content is gone is no file.
        let data = fs::metadata(&path).ok()?;
        (data.is_file() && data.len() > 0).then_some(path)
    }

    /// The files of this commit.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.root.join("snapshots").join(commit)
    }

    /// All files of this commit that could be of a model and are there in full, in order.
    pub(super) fn files(&self, commit: &str) -> Vec<String> {
        let mut found = Vec::new();
        walk(&self.snapshot(commit), "", MAX_DEPTH, &mut found);
        found.retain(|file| self.find(commit, file).is_some());
        found.sort();
        found
    }

    /// The folder of the contents, made if need be.
    pub(super) fn blobs(&self) -> Result<PathBuf, PullError> {
        let folder = self.root.join("blobs");
        make(&folder)?;
        Ok(folder)
    }

    /// The lock of the content `etag`, the same that the hub's own tools take.
    pub(super) fn lock(&self, etag: &str) -> Result<PathBuf, PullError> {
        make(&self.locks)?;
        Ok(self.locks.join(format!("{etag}.lock")))
    }

    /// Lets `file` of this commit be the content `etag`. Returns its path.
    pub(super) fn link(&self, commit: &str, file: &str, etag: &str) -> Result<PathBuf, PullError> {
        let path = self.snapshot(commit).join(file);
        let up = "../".repeat(file.matches('/').count() + 2);
        let target = PathBuf::from(format!("{up}blobs/{etag}"));
        if fs::read_link(&path).is_ok_and(|there| there == target) {
            return Ok(path);
        }
        replace(&path, |new| link(&target, new))?;
        Ok(path)
    }

    /// Notes that `revision` is this commit.
    pub(super) fn note(&self, revision: &str, commit: &str) -> Result<(), PullError> {
        let path = self.root.join("refs").join(revision);
        if revision == commit || self.noted(revision).is_some_and(|there| there == commit) {
            return Ok(());
        }
        replace(&path, |new| fs::write(new, commit))
    }
}

/// Adds the names of files of models below `folder`, each behind `prefix`. Links to folders are not followed.
fn walk(folder: &Path, prefix: &str, depth: usize, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let path = format!("{prefix}{name}");
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            if depth > 0 {
                walk(&entry.path(), &format!("{path}/"), depth - 1, found);
            }
        } else if (is_gguf(name) || is_of_folder(&path)) && is_plain_path(&path) {
            found.push(path);
        }
    }
}

/// Makes `path` anew, so that whoever looks sees the old one or the new one.
pub(super) fn replace(
    path: &Path,
    write: impl FnOnce(&Path) -> std::io::Result<()>,
) -> Result<(), PullError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    make(folder)?;
    let new = folder.join(format!(".new-{}", std::process::id()));
    // Of a process that was killed and had this number. If it cannot be removed, the next step says so.
    let _ = fs::remove_file(&new);
    let written = write(&new).and_then(|()| fs::rename(&new, path));
    written.map_err(|e| {
        let _ = fs::remove_file(&new);
        PullError::io("cannot write", path, &e)
    })
}

fn make(folder: &Path) -> Result<(), PullError> {
    fs::create_dir_all(folder).map_err(|e| PullError::io("cannot make", folder, &e))
}

#[cfg(unix)]
fn link(target: &Path, path: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, path)
}

/// Where making links takes a right that few have: the content has a second name.
#[cfg(not(unix))]
fn link(target: &Path, path: &Path) -> std::io::Result<()> {
    fs::hard_link(path.parent().unwrap_or(Path::new(".")).join(target), path)
}
