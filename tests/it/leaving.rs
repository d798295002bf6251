//! Clients that leave before their answers end (rows 1 to 3 of `docs/faults.md`).

use std::thread;
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::lifecycle::{call, streaming, until, until_idle};
use crate::support::Server;

const THREADS: usize = 8;

/// Nothing is left of those that went, and nobody else has felt it.
fn assert_as_before(server: &Server, client: &Client) {
    until_idle(client);
    assert_eq!(client.complete(&call("after", 4)).status, 200);
    assert!(!server.log().contains("panic"), "{}", server.log());
}

#[test]
fn row_01_a_thousand_streams_that_are_reset_free_their_places_at_once() {
    let server = Server::start(&["fake:step_ms=1", "--max-num-seqs", "16"]);
    let client = server.client();
    for i in 0..20 {
        client.complete(&call("ends by itself", 1 + i % 3));
    }
    assert_eq!(client.aborted(), 0.0, "an answer that ends is no abort");
    thread::scope(|scope| {
        for first in 0..THREADS {
            let client = &client;
            scope.spawn(move || {
                for i in (first..1_000).step_by(THREADS) {
                    let mut stream = client.stream(&streaming("leaving", 4_000));
                    (0..=i % 4).for_each(|_| drop(stream.first()));
                    stream.reset();
                }
            });
        }
    });
    assert_as_before(&server, &client);
    assert_eq!(client.aborted(), 1_000.0);
}

#[test]
fn row_02_plain_answers_whose_clients_are_gone_are_not_computed_on() {
    let server = Server::start(&["fake:step_ms=1,kv_blocks=40000", "--max-num-seqs", "200"]);
    let client = server.client();
    let asked: Vec<_> = (0..200).map(|i| client.send(&call("leaving", 3_500 + i))).collect();
    until(&client, "vllm:num_requests_running", |running| running == 200.0);
    drop(asked);
    assert_as_before(&server, &client);
    assert_eq!(client.aborted(), 200.0);
    let made = client.metric("vllm:generation_tokens_total");
    assert!(made < 200.0 * 3_500.0 / 2.0, "{made} tokens were made for nobody");
}

#[test]
fn row_03_who_leaves_while_queued_is_never_computed() {
    let server = Server::start(&["fake:step_ms=5", "--max-num-seqs", "2"]);
    let client = server.client();
    let mut running: Vec<_> = (0..2).map(|_| client.stream(&streaming("runs", 3000))).collect();
    for stream in &mut running {
        stream.first();
    }
    let before = client.metric("vllm:prompt_tokens_total");
    let queued: Vec<_> =
        (0..50).map(|i| client.send(&call(&"waits ".repeat(100), 100 + i))).collect();
    until(&client, "vllm:num_requests_waiting", |v| v == 50.0);
    drop(queued);
    until(&client, "vllm:num_requests_waiting", |v| v == 0.0);
    assert_eq!(client.metric("vllm:prompt_tokens_total"), before, "none had a step");
    assert_eq!(client.metric("vllm:num_requests_running"), 2.0);
    drop(running);
    assert_as_before(&server, &client);
}

#[test]
fn row_03_the_chunks_of_a_prompt_whose_client_left_are_not_computed() {
    // Sixty-two steps.
    let server = Server::start(&["fake:step_ms=20", "--max-num-batched-tokens", "64"]);
    let client = server.client();
    let timed = |act: &dyn Fn()| -> Duration {
        let began = Instant::now();
        act();
        began.elapsed()
    };
    let whole = timed(&|| assert_eq!(client.complete(&call(&"x".repeat(4000), 1)).status, 200));
    let left = timed(&|| {
        let read = client.send(&call(&"y".repeat(4000), 1));
        until(&client, "vllm:num_requests_running", |running| running == 1.0);
        drop(read);
        until_idle(&client);
    });
    assert!(left < whole / 2, "{left:?} until it is idle, {whole:?} for all of the prompt");
    assert_as_before(&server, &client);
}
