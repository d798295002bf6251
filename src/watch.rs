//! Files that are read again when they change, and on SIGHUP.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// How often files are looked at. A change counts within a second; this leaves room for a change that
/// falls right behind a look.
const LOOK_INTERVAL: Duration = Duration::from_millis(400);

/// Looks now and then, and when asked to (SIGHUP), for as long as it is polled.
///
/// By `stat`, not by inotify: a file that is bind-mounted alone (Docker), reached by a link into
/// another folder, or on a network file system changes without an event in its folder, and a `stat`
/// now and then costs less than a thread. Kubernetes swaps a link above the file: that shows, too.
pub(crate) async fn changes(look: impl FnMut(bool) + Send + 'static) {
    let mut hangups = Hangups::new();
    let mut looks = tokio::time::interval(LOOK_INTERVAL);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let look = Arc::new(Mutex::new(look));
    loop {
        let asked = tokio::select! {
            _ = looks.tick() => false,
            () = hangups.next() => true,
        };
        let look = Arc::clone(&look);
        // Off the runtime's threads: the file may be on a network file system that hangs. A look that
        // panicked was logged where it did.
        let _ = tokio::task::spawn_blocking(move || {
            (look.lock().unwrap_or_else(PoisonError::into_inner))(asked);
        })
        .await;
    }
}

/// What tells one state of a file from another. `None`: it is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark(Option<(Option<SystemTime>, u64, u64)>);

impl Mark {
    pub(crate) fn of(path: &Path) -> Self {
        Self(std::fs::metadata(path).ok().map(|m| (m.modified().ok(), m.len(), identity(&m))))
    }
}

/// Tells two files apart, and also a file before and after `chmod`.
#[cfg(unix)]
fn identity(metadata: &std::fs::Metadata) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    metadata.ino().rotate_left(32) ^ metadata.ctime() as u64 ^ metadata.ctime_nsec() as u64
}

#[cfg(not(unix))]
fn identity(_metadata: &std::fs::Metadata) -> u64 {
    0
}

/// SIGHUP, where there is such a thing. Without this handler the signal would end the process.
struct Hangups {
    #[cfg(unix)]
    signal: Option<tokio::signal::unix::Signal>,
}

impl Hangups {
    #[cfg(unix)]
    fn new() -> Self {
        use tokio::signal::unix::{SignalKind, signal};
        let signal = signal(SignalKind::hangup())
            .inspect_err(|error| tracing::warn!(%error, "no reload on SIGHUP"))
            .ok();
        Self { signal }
    }

    #[cfg(not(unix))]
    fn new() -> Self {
        Self {}
    }

    async fn next(&mut self) {
        #[cfg(unix)]
        if let Some(signal) = &mut self.signal
            && signal.recv().await.is_some()
        {
            return;
        }
        std::future::pending::<()>().await;
    }
}
