//! A content into the cache: begun where an earlier run was cut, and verified.

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use http::StatusCode;
use http::header::CONTENT_RANGE;

use super::api::{Remote, granted};
use super::client::{Client, Fault, Patience};
use super::name::HubName;
use crate::cli::output::say;
use crate::cli::pull::fetch::hash_of;
use crate::cli::pull::progress::Progress;
use crate::cli::pull::{Interrupt, PullError};

const BUFFER_BYTES: usize = 256 << 10;
/// Less than this between two cuts is no progress, so that a hub which cuts at once is given up.
const PROGRESS_BYTES: u64 = 1 << 20;

/// One file that is to come.
pub(super) struct Download<'a> {
    pub(super) client: &'a Client,
    pub(super) name: &'a HubName,
    pub(super) remote: &'a Remote,
    pub(super) interrupt: &'a Interrupt,
}

impl Download<'_> {
    /// Brings the content into the folder `blobs`, unless it is there. Only for who holds its lock.
    pub(super) fn bring(&self, blobs: &Path) -> Result<PathBuf, PullError> {
        let path = blobs.join(&self.remote.etag);
        if fs::metadata(&path).is_ok_and(|data| data.is_file() && data.len() == self.remote.bytes) {
            return Ok(path);
        }
        let part = blobs.join(format!("{}.incomplete", self.remote.etag));
        // What an earlier run left is a file. In a cache that several share, somebody else's link could
        // lead the download anywhere.
        if fs::symlink_metadata(&part).is_ok_and(|data| !data.is_file()) {
            fs::remove_file(&part).map_err(|e| PullError::io("cannot remove", &part, &e))?;
        }
        let opened = File::options().create(true).truncate(false).write(true).open(&part);
        let mut file = opened.map_err(|e| PullError::io("cannot write", &part, &e))?;
        self.complete(&mut file, &part)?;
        file.sync_all().map_err(|e| self.disk_fault(&part, self.remote.bytes, &e))?;
        self.verify(&part)?;
        fs::rename(&part, &path).map_err(|e| PullError::io("cannot write", &path, &e))?;
        Ok(path)
    }

    fn complete(&self, file: &mut File, part: &Path) -> Result<(), PullError> {
        let fault = |e: std::io::Error| PullError::io("cannot write", part, &e);
        let mut at = file.metadata().map_err(fault)?.len();
        if at > self.remote.bytes {
            file.set_len(0).map_err(fault)?;
            at = 0;
        }
        let mut progress = Progress::new("downloading", self.remote.bytes);
        let mut patience = Patience::new(self.interrupt);
        // A hub that begins anew each time makes none.
        let mut furthest = at;
        while at < self.remote.bytes {
            file.seek(SeekFrom::Start(at)).map_err(fault)?;
            if let Err(e) = self.stream(file, part, &mut at, &mut progress) {
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
    fn verify(&self, part: &Path) -> Result<(), PullError> {
        let Some(expected) = &self.remote.sha256 else {
            say(&format!("{}: the hub tells no sha256, only the size was compared", self.name));
            return Ok(());
        };
        let found = hash_of(part, self.interrupt)?;
        if found == *expected {
            return Ok(());
        }
        fs::remove_file(part).map_err(|e| PullError::io("cannot remove", part, &e))?;
        Err(PullError::new(format!(
            "what came for {} is not the file, and was removed: its sha256 is {found}, not {expected}",
            self.name
        )))
    }

    fn disk_fault(&self, part: &Path, at: u64, e: &std::io::Error) -> PullError {
        full(part, at, self.remote.bytes, e)
            .unwrap_or_else(|| PullError::io("cannot write", part, e))
    }
}

/// What to say if the disk is full.
pub(super) fn full(part: &Path, at: u64, all: u64, e: &std::io::Error) -> Option<PullError> {
    matches!(e.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded).then(|| {
        let (at, all) = (mega(at), mega(all));
        let (kept, path) = ("what came is kept for the next run", part.display());
        PullError::new(format!("no space left on the disk at {at} of {all} MB; {kept} in {path}"))
    })
}

fn mega(bytes: u64) -> u64 {
    bytes.div_ceil(1_000_000)
}
