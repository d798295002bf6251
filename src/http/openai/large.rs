//! Large bodies and tokenisations, of whichever route, and the compilation of grammars: each kind on a
//! thread of its own that gives way to the engine's, one at a time.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};

use tokio::sync::{Semaphore, oneshot};

use super::error::ApiError;

/// Inputs of more bytes, or of more tokens, than this are large.
pub(super) const INLINE_MAX: usize = 4_096;

/// Who comes behind as many would wait for long.
const WAITING_MAX: usize = 64;

/// Bodies of more bytes than this do not go before shorter ones: each takes some milliseconds to read.
const LONG_BODY_BYTES: usize = 1 << 20;

/// The lowest priority: what a busy engine leaves between its phases is enough (docs/performance.md).
#[cfg(target_os = "linux")]
const NICENESS: i32 = 19;

static LINE: Line = Line::new(WAITING_MAX);
static COMPILING: Line = Line::new(WAITING_MAX);
/// Those who wait here are bounded by the bytes of all bodies.
static PARSING: [Line; 2] = [const { Line::new(Semaphore::MAX_PERMITS) }; 2];

/// Runs large work when its turn comes; refuses it as a full queue does if too many wait.
pub(super) async fn run<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    LINE.run(work).await
}

/// Compiles a grammar when its turn comes; refuses as [`run`] does.
pub(super) async fn compile<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    COMPILING.run(work).await
}

/// Parses a body of `length` bytes when its turn comes. One body of a kind at a time is in memory twice.
pub(super) async fn parse<T: Send + 'static>(
    length: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    PARSING[usize::from(length > LONG_BODY_BYTES)].run(work).await
}

type Job = Box<dyn FnOnce() + Send>;

struct Line {
    waiting: Semaphore,
    /// One: more at a time would take the cores from the engine.
    turn: Semaphore,
    /// To the thread that does the work, once there was some. It stays: the allocator keeps what each of
    /// several threads once needed.
    worker: OnceLock<Option<Sender<Job>>>,
}

impl Line {
    const fn new(waiting: usize) -> Self {
        let (waiting, turn) = (Semaphore::const_new(waiting), Semaphore::const_new(1));
        Self { waiting, turn, worker: OnceLock::new() }
    }

    async fn run<T: Send + 'static>(
        &'static self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let place = self.waiting.try_acquire().map_err(|_| ApiError::Overloaded)?;
        let turn = self.turn.acquire().await.map_err(|_| ApiError::Internal)?;
        drop(place);
        let (done, result) = oneshot::channel();
        let job = move || {
            // With the work, not with the request: a client that leaves does not end it.
            let _turn = turn;
            // An error is a client that left.
            let _ = done.send(work());
        };
        let worker = self.worker.get_or_init(worker).as_ref().ok_or(ApiError::Internal)?;
        worker.send(Box::new(job)).map_err(|_| ApiError::Internal)?;
        // The channel closes without a result if the work panics, which the log has.
        result.await.map_err(|_| ApiError::Internal)
    }
}

fn worker() -> Option<Sender<Job>> {
    let (jobs, next) = channel::<Job>();
    let work = move || {
        give_way();
        while let Ok(job) = next.recv() {
            // Nothing that it shares outlives a job.
            let _ = catch_unwind(AssertUnwindSafe(job));
        }
    };
    let spawned = std::thread::Builder::new().name("large".to_owned()).spawn(work);
    spawned.inspect_err(|error| tracing::error!(%error, "cannot start a thread")).ok().map(|_| jobs)
}

/// Lowers the calling thread's priority, and that of threads that it starts: a step of the engine waits
/// for the slowest of its threads, and everybody's streams wait for the step. A thread cannot take it
/// back, so it does nothing else.
fn give_way() {
    // Elsewhere a niceness is the whole process's. A thread that may not be nice works as others do.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::nice(NICENESS);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn past_a_full_line_is_a_refusal_and_who_leaves_makes_room() {
        static LINE: Line = Line::new(2);
        let busy = LINE.turn.acquire().await.unwrap();
        let mut first = Box::pin(LINE.run(|| 1));
        let mut second = Box::pin(LINE.run(|| 2));
        assert!(futures_util::poll!(&mut first).is_pending());
        assert!(futures_util::poll!(&mut second).is_pending());
        assert_eq!(LINE.run(|| 3).await, Err(ApiError::Overloaded));
        drop(second);
        let mut third = Box::pin(LINE.run(|| 3));
        assert!(futures_util::poll!(&mut third).is_pending());
        drop(busy);
        assert_eq!((first.await, third.await), (Ok(1), Ok(3)));
        assert_eq!(LINE.run(|| 4).await, Ok(4));
        // A panic is one request's.
        assert_eq!(LINE.run(|| panic!("as it should")).await, Err::<(), _>(ApiError::Internal));
        assert_eq!(LINE.run(|| 5).await, Ok(5));
        assert_eq!(parse(9, || 6).await, Ok(6));
    }
}
