//! `make bench-http`: what HTTP and scheduling cost. Streams from the real server, with a fake model
//! that takes no time or with a real one, to a client that reads and counts and does nothing else.
//!
//! The client takes its share of the same cores, on one thread. Processor time is the kernel's account
//! of each thread, so that what belongs to the model's thread and what to HTTP's can be told apart.
// A program for people at a terminal.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod load;
mod server;

use std::time::{Duration, Instant};

use load::{Load, Outcome};
use server::{CpuTimes, Server};

/// A model whose steps take no time of their own, and whose answers never end by themselves.
const FAKE: &str = "fake:end_every=0";
const ROUNDS: usize = 5;

/// `[MODEL [STREAMS [TOKENS]]]`; cargo itself adds `--bench`.
fn arguments() -> (String, usize, usize) {
    let mut args = std::env::args().skip(1).filter(|a| !a.starts_with("--"));
    let model = args.next().unwrap_or_else(|| FAKE.to_owned());
    let mut number = |or: usize| args.next().map_or(or, |a| a.parse().expect("a number"));
    (model, number(64), number(500))
}

/// One round's figures.
struct Round {
    tokens_per_s: f64,
    events_per_token: f64,
    reads_per_token: f64,
    /// Microseconds a token.
    engine_us: f64,
    http_us: f64,
    client_us: f64,
}

fn round(server: &Server, load: &Load) -> Round {
    let before = (CpuTimes::of(server.pid()), CpuTimes::of(std::process::id()));
    let began = Instant::now();
    let Outcome { events, reads } = load.run();
    let wall = began.elapsed();
    let after = (CpuTimes::of(server.pid()), CpuTimes::of(std::process::id()));
    let tokens = load.tokens() as f64;
    let us = |time: Duration| time.as_secs_f64() * 1e6 / tokens;
    let http = after.0.of_threads("http").saturating_sub(before.0.of_threads("http"));
    Round {
        tokens_per_s: tokens / wall.as_secs_f64(),
        events_per_token: events as f64 / tokens,
        reads_per_token: reads as f64 / tokens,
        http_us: us(http),
        // The pool's threads work for the engine's.
        engine_us: us(after.0.total().saturating_sub(before.0.total() + http)),
        client_us: us(after.1.total().saturating_sub(before.1.total())),
    }
}

fn median(rounds: &[Round], of: impl Fn(&Round) -> f64) -> f64 {
    let mut values: Vec<f64> = rounds.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let (model, streams, tokens) = arguments();
    let server = Server::start(&model, streams);
    let load = Load::new(server.address(), streams, tokens);
    load.run();
    let rounds: Vec<Round> = (0..ROUNDS).map(|_| round(&server, &load)).collect();
    let of = |of: fn(&Round) -> f64| median(&rounds, of);
    let fastest = rounds.iter().map(|r| r.tokens_per_s).fold(0.0, f64::max);
    let slowest = rounds.iter().map(|r| r.tokens_per_s).fold(f64::INFINITY, f64::min);
    println!("{model}: {streams} streams of {tokens} tokens, median of {ROUNDS} rounds");
    println!("  {:.0} tokens/s ({slowest:.0}-{fastest:.0})", of(|r| r.tokens_per_s));
    println!(
        "  processor time a token, µs: engine {:.1}, HTTP {:.1}, client {:.1}",
        of(|r| r.engine_us),
        of(|r| r.http_us),
        of(|r| r.client_us)
    );
    println!(
        "  a token: {:.2} events, {:.2} reads by the client",
        of(|r| r.events_per_token),
        of(|r| r.reads_per_token)
    );
    let http = of(|r| r.http_us / (r.http_us + r.engine_us));
    println!("  HTTP's share of the server's processor time: {:.1} %", http * 100.0);
}
