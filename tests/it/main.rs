//! Tests from outside: the real binary over real sockets, and the rules of the house.
// The lints know tests by their attribute; here everything is a test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod access_log;
mod bench;
mod chat;
mod cli;
mod client;
#[cfg(target_os = "linux")]
mod clock;
mod completions;
#[cfg(target_os = "linux")]
mod doctor;
mod door;
mod explosives;
mod fake_hub;
mod faults;
#[cfg(target_os = "linux")]
mod folders;
#[cfg(target_os = "linux")]
mod foreign;
mod hostile_folder;
mod hostile_model;
mod house;
mod hub;
mod hub_faults;
mod hub_local;
mod hub_models;
mod hub_pieces;
mod leaving;
mod lifecycle;
mod limits;
#[cfg(target_os = "linux")]
mod manners;
mod params;
mod prefix_cache;
#[cfg(target_os = "linux")]
mod proxied;
mod pull;
mod raw;
mod real_model;
mod serve;
mod shell;
mod slow_readers;
mod structured;
mod support;
mod timing;
mod tls;
mod workflows;
