//! `millrace keys`: add, list, revoke. Writes are atomic and exclusive, so that a server that reloads
//! at any moment, or two people who add keys at once, lose nothing.

use std::fs::File;
use std::io::Write as _;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use zeroize::{Zeroize as _, Zeroizing};

use super::file::{self, Entry, KeyFile, Moment};
use super::{KeyError, digest};

const HEADER: &str = "\
# API keys of Millrace. It holds digests, never a key. `millrace keys` rewrites it (comments go);
# a running server takes changes within a second.

";

/// What `keys add` is told.
#[derive(Debug, Clone, Default)]
pub struct NewKey {
    pub id: String,
    pub expires: Option<Moment>,
    pub rpm: Option<NonZeroU32>,
    pub tpm: Option<NonZeroU32>,
    pub concurrency: Option<NonZeroU32>,
    pub priority: Option<i32>,
    pub models: Option<Vec<String>>,
}

/// Makes a key and writes its digest; creates the file (0600) if there is none. Returns the secret:
/// `sk-` and 43 characters, 256 random bits. It exists nowhere else.
pub fn add(path: &Path, new: NewKey) -> Result<Zeroizing<String>, KeyError> {
    file::check_id(&new.id).map_err(|reason| KeyError::new(path, reason))?;
    let secret = generate().map_err(|reason| KeyError::new(path, reason))?;
    let entry = Entry {
        id: new.id,
        sha256: digest(secret.as_bytes()),
        created: Some(Moment::now()),
        expires: new.expires,
        rpm: new.rpm,
        tpm: new.tpm,
        concurrency: new.concurrency,
        priority: new.priority,
        models: new.models,
    };
    change(path, true, |keys| {
        if keys.iter().any(|k| k.id == entry.id) {
            return Err(format!("there is a key '{}' already: revoke it first", entry.id));
        }
        keys.push(entry);
        Ok(())
    })?;
    Ok(secret)
}

/// The keys of a file, in its order.
pub fn list(path: &Path) -> Result<Vec<Entry>, KeyError> {
    file::read(path).map(|f| f.keys)
}

/// Takes a key out of the file. Requests that it already started go on.
pub fn revoke(path: &Path, id: &str) -> Result<(), KeyError> {
    change(path, false, |keys| {
        let before = keys.len();
        keys.retain(|k| k.id != id);
        if keys.len() == before {
            Err(format!("there is no key '{id}': `millrace keys list` shows those that there are"))
        } else {
            Ok(())
        }
    })
}

fn generate() -> Result<Zeroizing<String>, String> {
    let mut random = Zeroizing::new([0u8; 32]);
    getrandom::fill(random.as_mut()).map_err(|e| format!("no random numbers: {e}"))?;
    Ok(secret_from(&random))
}

/// `sk-` and the bytes in base64url without padding (RFC 4648 section 5).
pub(super) fn secret_from(random: &[u8; 32]) -> Zeroizing<String> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    // Reserved at once: a growing string would leave copies of its beginning behind.
    let mut secret = Zeroizing::new(String::with_capacity(46));
    secret.push_str("sk-");
    for group in random.chunks(3) {
        let mut bits = group.iter().fold(0u32, |bits, &b| bits << 8 | u32::from(b));
        bits <<= 8 * (3 - group.len());
        for i in 0..=group.len() {
            let six = bits >> (18 - 6 * i) & 63;
            secret.push(char::from(ALPHABET[six as usize]));
        }
        bits.zeroize();
    }
    secret
}

/// Reads, changes and replaces the file while holding the folder's lock.
fn change(
    path: &Path,
    create: bool,
    edit: impl FnOnce(&mut Vec<Entry>) -> Result<(), String>,
) -> Result<(), KeyError> {
    let path = &target(path).map_err(|reason| KeyError::new(path, reason))?;
    let fail = |reason: String| KeyError::new(path, reason);
    let folder = match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    if create {
        std::fs::create_dir_all(folder).map_err(|e| fail(e.to_string()))?;
    }
    let locked = File::open(folder).map_err(|e| fail(e.to_string()))?;
    locked.lock().map_err(|e| fail(e.to_string()))?;
    let mut content = match file::read(path) {
        Err(_) if create && !path.exists() => KeyFile::default(),
        other => other?,
    };
    edit(&mut content.keys).map_err(fail)?;
    // A file that the server would refuse must not take the place of one that it takes.
    file::check(&content).map_err(fail)?;
    replace(path, folder, &content).map_err(fail)
}

/// A symbolic link stays one: what it points to is replaced. Where it points to nothing, nobody can tell
/// whether that is meant, or is a folder that was not mounted.
fn target(path: &Path) -> Result<PathBuf, String> {
    match std::fs::canonicalize(path) {
        Ok(target) => Ok(target),
        Err(e) if path.is_symlink() => Err(format!("it is a link, and where it leads: {e}")),
        Err(_) => Ok(path.to_owned()),
    }
}

/// What is written for these keys.
fn text_of(content: &KeyFile) -> Result<String, String> {
    toml::to_string(content).map(|body| HEADER.to_owned() + &body).map_err(|e| e.to_string())
}

/// The keys of a file with this text, and the text that an edit would write in its place.
#[cfg(feature = "fake-model")]
pub(crate) fn rewritten(text: &str) -> Result<(Vec<Entry>, Result<String, String>), String> {
    let content = file::parse(text)?;
    let text = text_of(&content);
    Ok((content.keys, text))
}

fn replace(path: &Path, folder: &Path, content: &KeyFile) -> Result<(), String> {
    let body = text_of(content)?;
    let name = path.file_name().ok_or("not a file name")?.to_string_lossy();
    let draft = Draft(folder.join(format!(".{name}.{}.new", std::process::id())));
    let write = || -> std::io::Result<()> {
        let mut out = private(&draft.0)?;
        keep_access(path, &out)?;
        out.write_all(body.as_bytes())?;
        out.sync_all()?;
        std::fs::rename(&draft.0, path)?;
        // The rename itself survives a power cut only once the folder is written.
        File::open(folder)?.sync_all()
    };
    write().map_err(|e| e.to_string())
}

/// A half-written file: gone again unless it was renamed.
struct Draft(PathBuf);

impl Drop for Draft {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn private(path: &Path) -> std::io::Result<File> {
    // One that a process of the same number left behind.
    let _ = std::fs::remove_file(path);
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// A file that a group reads (a service of another user) stays readable to it.
#[cfg(unix)]
fn keep_access(old: &Path, new: &File) -> std::io::Result<()> {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    let Ok(old) = std::fs::metadata(old) else {
        return Ok(());
    };
    if std::os::unix::fs::fchown(new, Some(old.uid()), Some(old.gid())).is_ok() {
        new.set_permissions(std::fs::Permissions::from_mode(old.mode() & 0o660 | 0o600))?;
    }
    Ok(())
}

#[cfg(not(unix))]
fn keep_access(_old: &Path, _new: &File) -> std::io::Result<()> {
    Ok(())
}
