//! One run at a time fetches a thing; the others wait and find it.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::Duration;

use super::{Interrupt, PullError};
use crate::cli::output::{one_line, say};

const TRY_LOCK_EVERY: Duration = Duration::from_millis(200);

/// Holds the lock in the file `path` until dropped. `name` is what the others are said to fetch.
pub(super) fn lock(name: &str, path: &Path, interrupt: &Interrupt) -> Result<File, PullError> {
    let file = File::options().create(true).append(true).open(path);
    let file = file.map_err(|e| PullError::io("cannot write", path, &e))?;
    let mut told = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            // A file system without locks: then there is one user of it at a time, or luck; the
            // rename at the end stays atomic.
            Err(TryLockError::Error(e)) if e.kind() == std::io::ErrorKind::Unsupported => {
                return Ok(file);
            }
            Err(TryLockError::Error(e)) => return Err(PullError::io("cannot lock", path, &e)),
            Err(TryLockError::WouldBlock) => {
                if !told {
                    let name = one_line(name);
                    say(&format!("another run is fetching {name}: waiting for it"));
                    told = true;
                }
                interrupt.check()?;
                std::thread::sleep(TRY_LOCK_EVERY);
            }
        }
    }
}
