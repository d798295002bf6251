//! Large tokenisations, of whichever route, and the compilation of grammars: off the async threads, one
//! of a kind at a time, few waiting.

use tokio::sync::Semaphore;

use super::body;
use super::error::ApiError;

/// Inputs of more bytes, or of more tokens, than this are large.
pub(super) const INLINE_MAX: usize = 4_096;

/// Who waits holds a text that the budget of bodies no longer counts: few may.
const WAITING_MAX: usize = 64;

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
        body::blocking(move || {
            // With the work, not with the request: a client that leaves does not end it.
            let _turn = turn;
            work()
        })
        .await
    }
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
