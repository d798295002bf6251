//! Tests from outside: the real binary over real sockets, and the rules of the house.
// The lints know tests by their attribute; here everything is a test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod cli;
mod client;
mod house;
mod lifecycle;
mod prefix_cache;
mod pull;
mod real_model;
mod serve;
mod support;
