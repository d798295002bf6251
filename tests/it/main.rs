//! Tests from outside: the real binary over real sockets, and the rules of the house.
// The lints know tests by their attribute; here everything is a test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod cli;
mod house;
mod pull;
mod serve;
mod support;
