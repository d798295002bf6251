//! Logs and metrics: what operators see. Neither holds a prompt, a completion or a key.

pub mod logs;
pub mod metrics;
pub mod process;
