//! The OpenAI API: routes, wire types, errors and server-sent events.

pub mod error;
