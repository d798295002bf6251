//! Large tokenisations, of whichever route, and the compilation of grammars: on a thread of their own
//! that gives way to the engine's, one of a kind at a time, few waiting.

use tokio::sync::{Semaphore, oneshot};

use super::error::ApiError;

/// Inputs of more bytes, or of more tokens, than this are large.
pub(super) const INLINE_MAX: usize = 4_096;

/// Who waits holds a text that the budget of bodies no longer counts: few may.
const WAITING_MAX: usize = 64;

/// The lowest priority: what a busy engine leaves between its phases is enough (docs/performance.md).
#[cfg(target_os = "linux")]
const NICENESS: i32 = 19;

static LINE: Line = Line::new(WAITING_MAX);
static COMPILING: Line = Line::new(WAITING_MAX);

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

struct Line {
    waiting: Semaphore,
    /// One: more at a time would take the cores from the engine.
    turn: Semaphore,
}

impl Line {
    const fn new(waiting: usize) -> Self {
        Self { waiting: Semaphore::const_new(waiting), turn: Semaphore::const_new(1) }
    }

    async fn run<T: Send + 'static>(
        &'static self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let place = self.waiting.try_acquire().map_err(|_| ApiError::Overloaded)?;
        let turn = self.turn.acquire().await.map_err(|_| ApiError::Internal)?;
        drop(place);
        aside(move || {
            // With the work, not with the request: a client that leaves does not end it.
            let _turn = turn;
            work()
        })
        .await
    }
}

/// Runs what takes long on a thread of its own, which gives way to the engine's.
pub(super) async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    let (done, result) = oneshot::channel();
    let thread = move || {
        give_way();
        // An error is a client that left.
        let _ = done.send(work());
    };
    let spawned = std::thread::Builder::new().name("large".to_owned()).spawn(thread);
    spawned.map_err(|error| {
        tracing::error!(%error, "cannot start a thread");
        ApiError::Internal
    })?;
    // The channel closes without a result if the work panics, which the log has.
    result.await.map_err(|_| ApiError::Internal)
}

/// Lowers the calling thread's priority, and that of threads that it starts: a step of the engine waits
/// for the slowest of its threads, and everybody's streams wait for the step. A thread cannot take it
/// back, so none is used again.
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
    }
}
