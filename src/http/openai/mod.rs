//! The OpenAI API: routes, wire types, errors and server-sent events.

pub mod completions;
pub mod error;
pub mod json;
mod observe;
mod running;
mod sse;
