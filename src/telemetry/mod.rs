//! Logs, metrics and traces: what operators see. None of them holds a prompt, a completion or a key.

mod line;
pub mod logs;
pub mod metrics;
pub mod process;
#[cfg(feature = "otel")]
pub mod traces;

pub(crate) use line::{erased, is_unseen, one_line, open_line};
