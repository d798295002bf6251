//! A large file over several connections, each of which brings another piece of it.
//!
//! What is not whole yet lies under names of its own: the hub's own tools take a file called `….incomplete` for
//! one that is filled from its beginning.

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::header::{CONTENT_RANGE, ETAG};
use http::{HeaderValue, Response, StatusCode};
use ureq::Body;

use super::api::{Remote, granted};
use super::client::{Client, Fault, Patience, Span, Validator, answered_by};
use super::download::{BUFFER_BYTES, Download, PROGRESS_BYTES, disk_fault, mega, no_link};
use super::name::HubName;
use super::ranges::Ranges;
use crate::cli::progress::Progress;
use crate::cli::pull::{Interrupt, PullError};

/// Smaller files come so fast that more connections would gain nothing.
pub(super) const MIN_BYTES: u64 = 64 << 20;
/// A storage gives one connection some 50 MB/s; four fill most lines, and no hub minds them.
const CONNECTIONS: usize = 4;
/// As much work is lost to a power cut.
const NOTE_EVERY: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Where a file lies until it is whole.
#[derive(Clone)]
pub(super) struct Files {
    pub(super) data: PathBuf,
    /// Which bytes of it have come.
    pub(super) ranges: PathBuf,
}

impl Files {
    pub(super) fn new(blobs: &Path, etag: &str) -> Self {
        Self {
            data: blobs.join(format!("{etag}.pieces")),
            ranges: blobs.join(format!("{etag}.ranges")),
        }
    }

    fn remove(&self) -> Result<(), PullError> {
        for path in [&self.ranges, &self.data] {
            match fs::remove_file(path) {
                Err(e) if e.kind() != ErrorKind::NotFound => {
                    return Err(PullError::io("cannot remove", path, &e));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Why the work ended before the file was whole.
enum End {
    /// Ranges are not heeded.
    Whole,
    /// It is another file than it was at first.
    Changed(String),
    Failed(PullError),
}

/// What all threads of a download know.
struct Work {
    client: Client,
    name: HubName,
    remote: Remote,
    interrupt: Interrupt,
    files: Files,
    state: Mutex<State>,
    change: Condvar,
}

struct State {
    ranges: Ranges,
    /// Pieces that somebody brings.
    taken: Vec<bool>,
    validator: Option<Validator>,
    /// A part came when one was asked for.
    heeds_ranges: bool,
    threads: usize,
    end: Option<End>,
}

/// Brings a file into `files.data`, or says no where the hub sends whole files only. `begun` is what came of it in one stream.
pub(super) fn bring(
    download: &Download<'_>,
    files: &Files,
    begun: &Path,
    progress: &mut Progress,
) -> Result<bool, PullError> {
    let mut patience = Patience::new(download.interrupt);
    loop {
        let ranges = prepare(download, files, begun)?;
        let end = if ranges.is_complete() { None } else { run(download, files, ranges, progress)? };
        match end {
            None => break,
            Some(End::Failed(e)) => return Err(e),
            Some(End::Whole) => {
                files.remove()?;
                return Ok(false);
            }
            Some(End::Changed(reason)) => {
                files.remove()?;
                patience.after(Fault::passing(reason))?;
            }
        }
    }
    let synced = File::options().write(true).open(&files.data).and_then(|file| file.sync_all());
    synced
        .map_err(|e| disk_fault(&files.data, download.remote.bytes, download.remote.bytes, &e))?;
    Ok(true)
}

/// What is there already. The file has its full length from the beginning.
fn prepare(download: &Download<'_>, files: &Files, begun: &Path) -> Result<Ranges, PullError> {
    let bytes = download.remote.bytes;
    no_link(&files.data)?;
    no_link(&files.ranges)?;
    let is_there = fs::metadata(&files.data).is_ok_and(|data| data.len() == bytes);
    if let Some(ranges) = Ranges::read(&files.ranges, bytes).filter(|_| is_there) {
        return Ok(ranges);
    }
    files.remove()?;
    let prefix = fs::metadata(begun).map_or(0, |data| data.len());
    let prefix = if (1..=bytes).contains(&prefix) { prefix } else { 0 };
    let write = |path: &Path, e: &std::io::Error| PullError::io("cannot write", path, e);
    if prefix > 0 {
        fs::rename(begun, &files.data).map_err(|e| write(&files.data, &e))?;
    }
    let ranges = Ranges::new(bytes, prefix);
    // Before the file gets a length that says nothing of what came.
    ranges.write(&files.ranges)?;
    let opened = File::options().create(true).truncate(false).write(true).open(&files.data);
    let sized = opened.and_then(|file| file.set_len(bytes));
    sized.map_err(|e| disk_fault(&files.data, prefix, bytes, &e))?;
    Ok(ranges)
}

/// Lets threads work until the file is whole or there is a reason to end.
fn run(
    download: &Download<'_>,
    files: &Files,
    ranges: Ranges,
    progress: &mut Progress,
) -> Result<Option<End>, PullError> {
    let work = Arc::new(Work {
        client: download.client.clone(),
        name: download.name.clone(),
        remote: download.remote.clone(),
        interrupt: download.interrupt.clone(),
        files: files.clone(),
        state: Mutex::new(State {
            taken: vec![false; ranges.pieces()],
            ranges,
            validator: None,
            heeds_ranges: false,
            threads: 0,
            end: None,
        }),
        change: Condvar::new(),
    });
    let outcome = watch(&work, progress);
    // Whoever looks later is to find that it is over.
    let end = work.state().end.replace(End::Whole);
    if work.state().ranges.is_complete() {
        // It must still be verified, which may be interrupted, too.
        work.note(false)?;
        return Ok(None);
    }
    if outcome.is_err() || matches!(end, Some(End::Failed(_))) {
        // Nobody waits for the disk: what was written is there when this process is gone. And why it failed says more
        // than why it could not be noted.
        let _ = work.note(false);
    }
    outcome.map(|()| end)
}

/// Starts the threads and looks after them, until it is over.
fn watch(work: &Arc<Work>, progress: &mut Progress) -> Result<(), PullError> {
    // One alone at first: whether there are parts to be had, its answer tells.
    work.start()?;
    let mut begun = 1;
    let mut noted = Instant::now();
    loop {
        let (state, _) = work
            .change
            .wait_timeout(work.state(), LOOK_EVERY)
            .unwrap_or_else(PoisonError::into_inner);
        progress.at(state.ranges.total());
        let is_over = state.ranges.is_complete() || state.end.is_some();
        let more = if state.heeds_ranges && !is_over { CONNECTIONS - begun } else { 0 };
        drop(state);
        work.interrupt.check()?;
        if is_over {
            return Ok(());
        }
        for _ in 0..more {
            work.start()?;
            begun += 1;
        }
        if noted.elapsed() >= NOTE_EVERY {
            work.note(true)?;
            noted = Instant::now();
        }
    }
}

impl Work {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what came; first it is made sure, if need be, that it is on the disk.
    fn note(&self, is_synced: bool) -> Result<(), PullError> {
        let ranges = self.state().ranges.clone();
        if is_synced {
            let file = File::options().write(true).open(&self.files.data);
            let synced = file.and_then(|file| file.sync_data());
            synced.map_err(|e| self.disk_fault(&e))?;
        }
        ranges.write(&self.files.ranges)
    }

    fn start(self: &Arc<Self>) -> Result<(), PullError> {
        // Opened here: later there could be another file of this name.
        let file = File::options().write(true).open(&self.files.data);
        let mut file = file.map_err(|e| PullError::io("cannot write", &self.files.data, &e))?;
        let work = Arc::clone(self);
        work.state().threads += 1;
        let thread = Thread(work);
        let run = move || {
            if let Err(end) = thread.0.pieces(&mut file) {
                thread.0.state().end.get_or_insert(end);
            }
        };
        let started = std::thread::Builder::new().name("hub-range".to_owned()).spawn(run);
        started.map(drop).map_err(|e| PullError::new(format!("cannot start a thread: {e}")))
    }

    /// Brings one piece after the other until none is left.
    fn pieces(&self, file: &mut File) -> Result<(), End> {
        let failed = |fault: Fault| End::Failed(fault.into());
        let mut patience = Patience::new(&self.interrupt);
        while let Some(index) = self.take() {
            let (from, _) = self.state().ranges.rest(index);
            let outcome = self.stream(file, index);
            let mut state = self.state();
            state.taken[index] = false;
            let (at, to) = state.ranges.rest(index);
            drop(state);
            if at >= from + PROGRESS_BYTES || at == to {
                patience.renew();
            }
            match outcome {
                Ok(Ok(())) => {}
                Ok(Err(fault)) => patience.after(fault).map_err(failed)?,
                Err(end) => return Err(end),
            }
        }
        Ok(())
    }

    fn take(&self) -> Option<usize> {
        let mut state = self.state();
        if state.end.is_some() || self.interrupt.is_set() {
            return None;
        }
        let is_open = |&index: &usize| {
            let (at, to) = state.ranges.rest(index);
            !state.taken[index] && at < to
        };
        let index = (0..state.taken.len()).find(is_open)?;
        state.taken[index] = true;
        Some(index)
    }

    /// Writes what one request brings of a piece. The outer error ends it for all threads.
    fn stream(&self, file: &mut File, index: usize) -> Result<Result<(), Fault>, End> {
        let (mut at, to) = self.state().ranges.rest(index);
        let validator = self.state().validator.clone();
        let span = Span { from: at, to };
        let response = match self.client.get_part(&self.remote.path, span, validator.as_ref()) {
            Ok(response) => response,
            Err(fault) => return Ok(Err(fault)),
        };
        let host = &self.client.endpoint.origin;
        match response.status() {
            StatusCode::PARTIAL_CONTENT if self.is_part(&response, at) => {}
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {
                let reason = "sends another part of the file than it was asked for";
                return Err(End::Changed(format!("{host} {reason}")));
            }
            StatusCode::OK if validator.is_none() => return Err(End::Whole),
            StatusCode::OK => return Err(End::Changed(format!("{host} {CHANGED}"))),
            _ => match granted(&self.client, &self.name, response) {
                // No other success has a part in it.
                Ok(_) => return Err(End::Whole),
                Err(fault) => return Ok(Err(fault)),
            },
        }
        self.know(&response)?;
        let mut body = response.into_body().into_reader();
        let mut buffer = vec![0; BUFFER_BYTES];
        if let Err(e) = file.seek(SeekFrom::Start(at)) {
            return Err(End::Failed(self.disk_fault(&e)));
        }
        while at < to {
            let cut = |e: String| {
                let (at, all) = (mega(self.state().ranges.total()), mega(self.remote.bytes));
                Ok(Err(Fault::passing(format!("the download was cut at {at} of {all} MB: {e}"))))
            };
            let n = match body.read(&mut buffer) {
                Ok(0) => return cut("its end came early".to_owned()),
                Ok(n) => n.min(usize::try_from(to - at).unwrap_or(n)),
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return cut(e.to_string()),
            };
            if self.interrupt.is_set() || self.state().end.is_some() {
                return Ok(Ok(()));
            }
            if let Err(e) = file.write_all(&buffer[..n]) {
                return Err(End::Failed(self.disk_fault(&e)));
            }
            at += n as u64;
            self.state().ranges.add(index, n as u64);
        }
        Ok(Ok(()))
    }

    /// Whether an answer is the part from `at` on, of a file of the right size.
    fn is_part(&self, response: &Response<Body>, at: u64) -> bool {
        let range = response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
        let rest = range.and_then(|range| range.strip_prefix(&format!("bytes {at}-")));
        let size = rest.and_then(|rest| rest.split_once('/')).map(|(_, size)| size);
        size.is_some_and(|size| size == "*" || size == self.remote.bytes.to_string())
    }

    /// Keeps the mark of what the storage sends, and holds each answer against it.
    fn know(&self, response: &Response<Body>) -> Result<(), End> {
        let is_strong = |etag: &&HeaderValue| etag.as_bytes().starts_with(b"\"");
        let etag = response.headers().get(ETAG).filter(is_strong);
        let found = etag
            .zip(answered_by(response))
            .map(|(etag, origin)| Validator { origin: origin.clone(), etag: etag.clone() });
        let mut state = self.state();
        state.heeds_ranges = true;
        self.change.notify_all();
        match (&state.validator, found) {
            (None, found) => state.validator = found,
            // Another storage may mark the same file in another way.
            (Some(known), Some(found)) if known.origin == found.origin && *known != found => {
                return Err(End::Changed(format!("{} {CHANGED}", found.origin)));
            }
            _ => {}
        }
        Ok(())
    }

    fn disk_fault(&self, e: &std::io::Error) -> PullError {
        let at = self.state().ranges.total();
        disk_fault(&self.files.data, at, self.remote.bytes, e)
    }
}

const CHANGED: &str = "sends another file than before";

/// One of those that work. Its end is noticed even if it panics.
struct Thread(Arc<Work>);

impl Drop for Thread {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.threads -= 1;
        if state.threads == 0 && !state.ranges.is_complete() {
            let reason = format!("fetching {} failed inside", self.0.name);
            state.end.get_or_insert(End::Failed(PullError::new(reason)));
        }
        drop(state);
        self.0.change.notify_all();
    }
}
