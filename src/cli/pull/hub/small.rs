//! Small files in places where others may write, too.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// The text of a file of at most `max_bytes`. Links are followed, but to files alone: a pipe would be
/// waited for, and a device may have no end.
pub(super) fn read_small(path: &Path, max_bytes: usize) -> io::Result<String> {
    let file = open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file"));
    }
    // Reserved at once: a growing string would leave copies of a token behind.
    let mut text = String::with_capacity(max_bytes + 1);
    file.take(max_bytes as u64 + 1).read_to_string(&mut text)?;
    if text.len() > max_bytes {
        let reason = format!("it has more than {max_bytes} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    }
    Ok(text)
}

#[cfg(unix)]
fn open(path: &Path) -> io::Result<File> {
    // Returns at once, also for a pipe that nobody writes to.
    let mut options = File::options();
    std::os::unix::fs::OpenOptionsExt::custom_flags(
        &mut options,
        libc::O_NONBLOCK | libc::O_NOCTTY,
    );
    options.read(true).open(path)
}

#[cfg(not(unix))]
fn open(path: &Path) -> io::Result<File> {
    File::open(path)
}
