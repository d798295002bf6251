//! Millrace: an OpenAI-compatible completions server over one local Transformer.
//!
//! # Layout
//!
//! Requests travel right through these modules, and a module depends only on those to its right
//! (`tests/it/house.rs` enforces it): `http -> text -> engine -> model -> backend`.
//!
//! * [`http`]: the only place that knows HTTP: router, layers, OpenAI's bodies and errors.
//! * [`text`]: strings to tokens and back: tokenizer, detokenizer, stop strings, chat template.
//! * [`engine`]: the core: scheduler, block manager, sampler, one thread. No HTTP, JSON or text.
//! * [`model`]: the Transformer, written once over [`backend::Backend`]; loading of weights.
//! * [`backend`]: the makers of numbers: our CPU kernels, and candle for everything else.
//!
//! Beside them stand [`config`], [`keys`], [`telemetry`], [`cli`] and `watch`, for files that change; [`run`] puts all together.

pub mod backend;
pub mod cli;
pub mod config;
pub mod engine;
#[cfg(feature = "fake-model")]
pub mod fuzz;
pub mod http;
pub mod keys;
pub mod model;
mod server;
pub mod telemetry;
pub mod text;
mod watch;

pub use server::run;
