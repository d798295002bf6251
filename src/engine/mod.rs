//! The core: a state machine driven by one thread. No HTTP, no JSON, no strings, no tensors' insides.

pub mod handle;
pub mod message;
