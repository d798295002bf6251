//! `owner/name`, `owner/name:FILE.gguf`, `owner/name:Q4_K_M` and `owner/name@REVISION:…`: what a user
//! calls a model of a hub, and which names of a hub may become paths here.

use std::fmt;

use crate::telemetry::is_unseen;

/// What stands where no revision is named.
pub(super) const USUAL_REVISION: &str = "main";
/// Longest owner, name or quantisation.
const MAX_PART_BYTES: usize = 96;
const MAX_REVISION_BYTES: usize = 200;
/// What file systems take.
const MAX_COMPONENT_BYTES: usize = 255;
const MAX_FILE_BYTES: usize = 1024;

/// Which file of the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The only one, or the usual quantisation.
    Usual,
    /// A path in the repository.
    File(String),
    /// The one whose name has this part.
    Quantization(String),
}

/// A model of a hub, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HubName {
    pub(super) owner: String,
    pub(super) name: String,
    pub(super) revision: String,
    pub(super) wanted: Wanted,
}

impl HubName {
    /// Reads a name. The error says what a right one looks like.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| {
            format!(
                "{text:?}: {what}; a model of a hub is owner/name, owner/name:FILE.gguf or \
                 owner/name:Q4_K_M, with @REVISION behind the name if need be"
            )
        };
        let (owner, rest) = text.split_once('/').ok_or_else(|| wrong("no owner"))?;
        // The file may have any of the marks that stand before it.
        let (repository, wanted) = match rest.split_once(':') {
            Some((repository, wanted)) => (repository, Some(wanted)),
            None => (rest, None),
        };
        let (name, revision) = match repository.split_once('@') {
            Some((name, revision)) => (name, revision),
            None => (repository, USUAL_REVISION),
        };
        if !is_part(owner) {
            return Err(wrong("the owner is not one"));
        }
        if !is_part(name) {
            return Err(wrong("the name is not one"));
        }
        if !is_revision(revision) {
            return Err(wrong("the revision is not one"));
        }
        let wanted = match wanted {
            None => Wanted::Usual,
            Some(file) if is_gguf(file) && is_plain_path(file) => Wanted::File(file.to_owned()),
            Some(part) if !is_gguf(part) && is_part(part) => Wanted::Quantization(part.to_owned()),
            Some(_) => return Err(wrong("no such file can be named")),
        };
        let [owner, name, revision] = [owner, name, revision].map(str::to_owned);
        Ok(Self { owner, name, revision, wanted })
    }

    /// `owner/name`.
    pub(super) fn repository(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }
}

impl fmt::Display for HubName {
    /// As it would be written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)?;
        if self.revision != USUAL_REVISION {
            write!(f, "@{}", self.revision)?;
        }
        match &self.wanted {
            Wanted::Usual => Ok(()),
            Wanted::File(part) | Wanted::Quantization(part) => write!(f, ":{part}"),
        }
    }
}

/// Of the form that owners, names and quantisations have. `--` parts them in the cache's folder names.
fn is_part(text: &str) -> bool {
    let fine = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    (1..=MAX_PART_BYTES).contains(&text.len())
        && text.bytes().all(fine)
        && !text.starts_with(['.', '-'])
        && !text.contains("..")
        && !text.contains("--")
}

/// A branch, a tag, a commit, or `refs/…`.
fn is_revision(text: &str) -> bool {
    let fine = |b: u8| b.is_ascii_alphanumeric() || b"._-/+".contains(&b);
    text.len() <= MAX_REVISION_BYTES
        && text.bytes().all(fine)
        && text.split('/').all(|c| !c.is_empty() && !c.starts_with('.') && !c.contains(".."))
}

/// A commit as a hub tells it; it becomes the name of a folder.
pub(super) fn is_commit(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// A mark of a content as a hub tells it; it becomes the name of a file.
pub(super) fn is_etag(text: &str) -> bool {
    let fine = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    (1..=128).contains(&text.len()) && text.bytes().all(fine) && !text.starts_with('.')
}

/// By its ending.
pub(super) fn is_gguf(file: &str) -> bool {
    let bytes = file.as_bytes();
    bytes.len() > 5 && bytes[bytes.len() - 5..].eq_ignore_ascii_case(b".gguf")
}

/// A path that stays in the folder it is put into, and prints as it is.
pub(super) fn is_plain_path(file: &str) -> bool {
    let component = |c: &str| (1..=MAX_COMPONENT_BYTES).contains(&c.len()) && c != "." && c != "..";
    file.len() <= MAX_FILE_BYTES
        && !file.contains('\\')
        && !file.chars().any(is_unseen)
        && file.split('/').all(component)
}
