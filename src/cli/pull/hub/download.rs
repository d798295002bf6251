//! A content into the cache: begun where an earlier run was cut, and verified.

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use http::StatusCode;
use http::header::CONTENT_RANGE;
use ring::digest;

use super::api::{Check, Remote, granted};
use super::client::{Client, Fault, Patience};
use super::name::HubName;
use super::parallel;
use crate::cli::output::say;
use crate::cli::progress::Progress;
use crate::cli::pull::fetch::{hash_of, read_all};
use crate::cli::pull::{Interrupt, PullError};
use crate::model::load::hex;

pub(super) const BUFFER_BYTES: usize = 256 << 10;
/// Less than this between two cuts is no progress, so that a hub which cuts at once is given up.
pub(super) const PROGRESS_BYTES: u64 = 1 << 20;

/// One file that is to come.
#[derive(Clone, Copy)]
pub(super) struct Download<'a> {
    pub(super) client: &'a Client,
    pub(super) name: &'a HubName,
    pub(super) remote: &'a Remote,
    pub(super) interrupt: &'a Interrupt,
}

impl Download<'_> {
    /// Brings the content into the folder `blobs`, unless it is there. Only for who holds its lock.
    pub(super) fn bring(&self, blobs: &Path, progress: &mut Progress) -> Result<(), PullError> {
        let path = blobs.join(&self.remote.etag);
        if fs::metadata(&path).is_ok_and(|data| data.is_file() && data.len() == self.remote.bytes) {
            return Ok(());
        }
        let begun = blobs.join(format!("{}.incomplete", self.remote.etag));
        no_link(&begun)?;
        let parts = parallel::Files::new(blobs, &self.remote.etag);
        let is_large = self.remote.bytes > parallel::MIN_BYTES;
        let part = if is_large && parallel::bring(self, &parts, &begun, progress)? {
            &parts.data
        } else {
            self.single(&begun, progress)?;
            &begun
        };
        self.verify(part, &parts)?;
        fs::rename(part, &path).map_err(|e| PullError::io("cannot write", &path, &e))?;
        // What is of no use any more. Left behind, it takes space and nothing else.
        for rest in [&parts.data, &parts.ranges, &begun] {
            let _ = fs::remove_file(rest);
        }
        Ok(())
    }

    /// In one stream.
    fn single(&self, part: &Path, progress: &mut Progress) -> Result<(), PullError> {
        let opened = File::options().create(true).truncate(false).write(true).open(part);
        let mut file = opened.map_err(|e| PullError::io("cannot write", part, &e))?;
        self.complete(&mut file, part, progress)?;
        file.sync_all().map_err(|e| self.disk_fault(part, self.remote.bytes, &e))
    }

    fn complete(
        &self,
        file: &mut File,
        part: &Path,
        progress: &mut Progress,
    ) -> Result<(), PullError> {
        let fault = |e: std::io::Error| PullError::io("cannot write", part, &e);
        let mut at = file.metadata().map_err(fault)?.len();
        if at > self.remote.bytes {
            file.set_len(0).map_err(fault)?;
            at = 0;
        }
        let mut patience = Patience::new(self.interrupt);
        // A hub that begins anew each time makes none.
        let mut furthest = at;
        while at < self.remote.bytes {
            file.seek(SeekFrom::Start(at)).map_err(fault)?;
            if let Err(e) = self.stream(file, part, &mut at, progress) {
                if at >= furthest + PROGRESS_BYTES {
                    patience.renew();
                }
                furthest = furthest.max(at);
                patience.after(e)?;
            }
        }
        Ok(())
    }

    /// Writes what one request brings to `file`, which stands at byte `at`.
    fn stream(
        &self,
        file: &mut File,
        part: &Path,
        at: &mut u64,
        progress: &mut Progress,
    ) -> Result<(), Fault> {
        let response = self.client.get(&self.remote.path, *at)?;
        let range = response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
        let goes_on = response.status() == StatusCode::PARTIAL_CONTENT
            && range.is_some_and(|range| range.starts_with(&format!("bytes {at}-")));
        let begins_again = response.status() == StatusCode::RANGE_NOT_SATISFIABLE;
        if !goes_on && *at > 0 && (response.status().is_success() || begins_again) {
            file.set_len(0)
                .and_then(|()| file.rewind())
                .map_err(|e| self.disk_fault(part, *at, &e))?;
            *at = 0;
        }
        let host = &self.client.endpoint.origin;
        if begins_again || response.status() == StatusCode::PARTIAL_CONTENT && !goes_on {
            let reason = "sends another part of the file than it was asked for";
            return Err(Fault::passing(format!("{host} {reason}")));
        }
        let mut body = granted(self.client, self.name, response)?.into_body().into_reader();
        let mut buffer = vec![0; BUFFER_BYTES];
        while *at < self.remote.bytes {
            self.interrupt.check()?;
            let cut = |e: String| {
                let (at, all) = (mega(*at), mega(self.remote.bytes));
                Fault::passing(format!("the download was cut at {at} of {all} MB: {e}"))
            };
            let n = match body.read(&mut buffer) {
                Ok(0) => return Err(cut("its end came early".to_owned())),
                Ok(n) => n,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(cut(e.to_string())),
            };
            // What is too much is left in the connection; the hash tells whether the rest is right.
            let n = n.min(usize::try_from(self.remote.bytes - *at).unwrap_or(n));
            file.write_all(&buffer[..n]).map_err(|e| self.disk_fault(part, *at, &e))?;
            *at += n as u64;
            progress.at(*at);
        }
        Ok(())
    }

    /// Removes a file that is not what the hub says it is.
    fn verify(&self, part: &Path, parts: &parallel::Files) -> Result<(), PullError> {
        let (kind, expected, found) = match &self.remote.check {
            Check::Sha256(expected) => ("sha256", expected, hash_of(part, self.interrupt)?),
            Check::Git(expected) => ("hash in git", expected, self.git_hash_of(part)?),
            Check::Size => {
                let name = self.name;
                say(&format!("{name}: the hub tells no sha256, only the size was compared"));
                return Ok(());
            }
        };
        if found == *expected {
            return Ok(());
        }
        fs::remove_file(part).map_err(|e| PullError::io("cannot remove", part, &e))?;
        // It is of a file that is gone.
        let _ = fs::remove_file(&parts.ranges);
        Err(PullError::new(format!(
            "what came for {} is not the file, and was removed: its {kind} is {found}, not {expected}",
            self.name
        )))
    }

    /// As git makes the names of contents.
    fn git_hash_of(&self, part: &Path) -> Result<String, PullError> {
        let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
        hash.update(format!("blob {}\0", self.remote.bytes).as_bytes());
        read_all(part, self.interrupt, |bytes| hash.update(bytes))?;
        Ok(hex(hash.finish().as_ref()))
    }

    fn disk_fault(&self, part: &Path, at: u64, e: &std::io::Error) -> PullError {
        disk_fault(part, at, self.remote.bytes, e)
    }
}

/// Why `part` cannot be written, of which `at` bytes are there.
pub(super) fn disk_fault(part: &Path, at: u64, all: u64, e: &std::io::Error) -> PullError {
    full(part, at, all, e).unwrap_or_else(|| PullError::io("cannot write", part, e))
}

/// What an earlier run left is a file. In a cache that several share, somebody else's link could lead the download
/// anywhere.
pub(super) fn no_link(path: &Path) -> Result<(), PullError> {
    if fs::symlink_metadata(path).is_ok_and(|data| !data.is_file()) {
        fs::remove_file(path).map_err(|e| PullError::io("cannot remove", path, &e))?;
    }
    Ok(())
}

/// What to say if the disk is full.
pub(super) fn full(part: &Path, at: u64, all: u64, e: &std::io::Error) -> Option<PullError> {
    matches!(e.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded).then(|| {
        let (at, all) = (mega(at), mega(all));
        let (kept, path) = ("what came is kept for the next run", part.display());
        PullError::new(format!("no space left on the disk at {at} of {all} MB; {kept} in {path}"))
    })
}

pub(super) fn mega(bytes: u64) -> u64 {
    bytes.div_ceil(1_000_000)
}
