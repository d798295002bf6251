//! Logs and metrics: what operators see. Neither holds a prompt, a completion or a key.

mod line;
pub mod logs;
pub mod metrics;
pub mod process;

pub(crate) use line::{is_unseen, one_line};
