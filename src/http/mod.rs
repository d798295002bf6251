//! HTTP: the router, the order of its layers, and what all handlers share.

pub mod openai;
