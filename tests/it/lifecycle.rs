//! Requests that come, go, wait and are cut off, on the fake model: its text depends on the prompt and the seed only.

use std::thread;

use serde_json::{Value, json};

use crate::client::{Client, Sse};
use crate::support::Server;

pub(crate) fn call(prompt: &str, max_tokens: u32) -> Value {
    json!({"model": "davinci-002", "prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "ignore_eos": true})
}

pub(crate) fn streaming(prompt: &str, max_tokens: u32) -> Value {
    let mut body = call(prompt, max_tokens);
    body["stream"] = json!(true);
    body
}

/// Waits until the server has nothing to do, by asking it. What a test waits for is a state, never a time.
pub(crate) fn until_idle(client: &Client) {
    until(client, "vllm:num_requests_running", |v| v == 0.0);
    until(client, "vllm:num_requests_waiting", |v| v == 0.0);
    until(client, "vllm:kv_cache_usage_perc", |v| v == 0.0);
}

pub(crate) fn until(client: &Client, metric: &str, is: impl Fn(f64) -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_mins(1);
    while !is(client.metric(metric)) {
        assert!(
            std::time::Instant::now() < deadline,
            "{metric} stays at {}",
            client.metric(metric)
        );
        thread::yield_now();
    }
}

#[test]
fn row_30_two_hundred_at_once_on_four_places_all_get_their_own_answer() {
    let server = Server::start(&["fake:", "--max-num-seqs", "4"]);
    let client = server.client();
    let prompt = |i: usize| format!("canary {i} of two hundred");
    let alone: Vec<String> =
        (0..200).step_by(20).map(|i| client.complete(&call(&prompt(i), 12)).text(0)).collect();
    let together: Vec<String> = thread::scope(|scope| {
        let client = &client;
        let threads: Vec<_> = (0..200)
            .map(|i| scope.spawn(move || client.complete(&call(&prompt(i), 12)).text(0)))
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    let every_twentieth: Vec<&String> = together.iter().step_by(20).collect();
    assert_eq!(every_twentieth, alone.iter().collect::<Vec<_>>());
    until_idle(&client);
}

#[test]
fn rows_01_02_a_client_that_leaves_frees_its_place_at_once() {
    let server = Server::start(&["fake:step_ms=1", "--max-num-seqs", "8"]);
    let client = server.client();
    for i in 0..200u32 {
        let body = if i % 2 == 0 { streaming("leaving", 2000) } else { call("leaving", 2000) };
        let text = body.to_string();
        let head = format!(
            "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{text}",
            client.key,
            text.len()
        );
        let socket = client.raw(head.as_bytes()).unwrap();
        if i % 4 == 0 {
            let mut byte = [0];
            std::io::Read::read_exact(&mut &socket, &mut byte).unwrap(); // running, and streaming
        }
        drop(socket);
    }
    until_idle(&client);
    assert_eq!(client.complete(&call("after", 4)).status, 200);
    // Others may have left before they were read.
    assert!(client.aborted() >= 50.0, "those that ran count as aborted");
    assert!(!server.log().contains("panic"), "{}", server.log());
}

#[test]
fn row_21_the_queue_is_bounded_and_says_so_at_once() {
    let server =
        Server::start(&["fake:step_ms=20", "--max-num-seqs", "1", "--max-queue-requests", "2"]);
    let client = server.client();
    let mut streams: Vec<_> = vec![client.stream(&streaming("one", 2000))];
    streams[0].first();
    thread::scope(|scope| {
        let waiting: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| client.try_post("/v1/completions", &call("two", 1).to_string()))
            })
            .collect();
        until(&client, "vllm:num_requests_waiting", |v| v == 2.0);
        let refused = client.complete(&call("three", 1));
        assert_eq!(refused.status, 429, "{}", refused.body);
        assert_eq!(refused.error("code"), "engine_overloaded");
        for header in ["retry-after", "retry-after-ms", "x-should-retry"] {
            assert!(refused.header(header).is_some(), "no {header}");
        }
        streams.clear();
        for thread in waiting {
            assert_eq!(thread.join().unwrap().unwrap().status, 200);
        }
    });
    until_idle(&client);
}

#[test]
fn row_22_a_full_cache_preempts_and_nobody_sees_it() {
    let alone = Server::start(&["fake:"]);
    let tight = Server::start(&["fake:kv_blocks=12", "--max-num-seqs", "8"]);
    let prompt = |i: u32| format!("long answer {i}");
    let expected: Vec<String> =
        (0..8).map(|i| alone.client().complete(&call(&prompt(i), 150)).text(0)).collect();
    let client = tight.client();
    let answers: Vec<String> = thread::scope(|scope| {
        let client = &client;
        let threads: Vec<_> = (0..8)
            .map(|i| scope.spawn(move || client.complete(&call(&prompt(i), 150)).text(0)))
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(answers, expected);
    assert!(client.metric("vllm:num_preemptions_total") >= 1.0);
    until_idle(&client);
}

#[test]
fn rows_04_12_40_a_panicking_or_nan_step_fails_its_requests_and_nothing_else() {
    let server = Server::start(&["fake:fault=panic@5,fault=nan@40", "--max-num-seqs", "4"]);
    let client = server.client();
    let failed = client.complete(&call("panics", 20));
    assert_eq!(failed.status, 500, "{}", failed.body);
    assert_eq!(failed.error("type"), "server_error");
    assert_eq!(client.complete(&call("fine", 8)).status, 200);
    let mut stream = client.stream(&streaming("meets the NaN", 200));
    assert_eq!(stream.status, 200);
    let mut last = None;
    while let Some(event) = stream.next().unwrap() {
        assert_ne!(event, Sse::Done, "[DONE] after an error");
        last = Some(event);
    }
    let Some(Sse::Data(error)) = last else { panic!("no error event: {last:?}") };
    assert_eq!(error["error"]["type"], "server_error");
    assert_eq!(client.complete(&call("fine again", 8)).status, 200);
    assert_eq!(client.metric("millrace_step_failures_total"), 2.0);
    until_idle(&client);
}

#[test]
fn row_04_three_panics_in_a_row_end_the_process() {
    let mut server = Server::start(&["fake:fault=panic@1,fault=panic@2,fault=panic@3"]);
    let client = server.client();
    for _ in 0..3 {
        if let Ok(answer) = client.try_post("/v1/completions", &call("panics", 8).to_string()) {
            assert!(answer.status >= 500, "{}", answer.body);
        }
    }
    assert_eq!(server.wait(), Some(1));
}

#[test]
fn row_05_a_hung_engine_is_not_healthy_and_still_ends_on_sigterm() {
    let mut server = Server::start(&[
        "fake:fault=hang@3",
        "--engine-stall-timeout-s",
        "1",
        "--shutdown-timeout-s",
        "1",
    ]);
    let client = server.client();
    assert_eq!(client.get("/health").status, 200);
    thread::scope(|scope| {
        scope.spawn(|| client.try_post("/v1/completions", &call("hangs", 20).to_string()));
        let deadline = std::time::Instant::now() + std::time::Duration::from_mins(1);
        while client.get("/health/live").status != 503 {
            assert!(std::time::Instant::now() < deadline, "a hung engine stays alive");
            thread::yield_now();
        }
        assert_eq!(client.get("/health").status, 503);
        let refused = client.complete(&call("too late", 1));
        assert_eq!((refused.status, refused.error("code")), (503, json!("engine_stalled")));
        let line = server.wait_log("THE ENGINE HANGS");
        assert!(line.contains("ERROR") && line.contains("running=1"), "{line}");
        assert_eq!(client.metric("millrace_engine_stalled"), 1.0);
        assert_eq!(client.metric("millrace_engine_stalls_total"), 1.0);
        server.terminate();
        assert!(server.wait().is_some());
    });
}

#[test]
fn row_05_an_engine_that_goes_on_is_healthy_again() {
    let server = Server::start(&["fake:fault=slow@3", "--engine-stall-timeout-s", "1"]);
    let client = server.client();
    assert_eq!(client.complete(&call("slow", 20)).status, 200, "slow is not lost");
    server.wait_log("THE ENGINE HANGS");
    server.wait_log("the engine goes on");
    assert_eq!(client.get("/health").status, 200);
    assert_eq!(client.metric("millrace_engine_stalled"), 0.0);
    assert_eq!(client.metric("millrace_engine_stalls_total"), 1.0);
}

#[test]
fn row_03_who_leaves_while_queued_or_read_is_never_computed() {
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
    until_idle(&client);
    // Leaves while its prompt is read: the chunks that were to come are not computed.
    let read = client.send(&call(&"x".repeat(4000), 1));
    drop(read);
    until_idle(&client);
    assert_eq!(client.complete(&call("after", 2)).status, 200);
}

#[test]
fn row_06_a_step_that_takes_long_does_not_hold_up_http() {
    let server = Server::start(&["fake:fault=slow@2"]);
    let client = server.client();
    thread::scope(|scope| {
        let slow = scope.spawn(|| client.complete(&call("takes seconds", 4)));
        until(&client, "vllm:num_requests_running", |v| v == 1.0);
        for path in ["/health", "/metrics", "/v1/models"].repeat(20) {
            assert_eq!(client.get(path).status, 200, "{path}");
        }
        assert!(!slow.is_finished(), "sixty answers take longer than a step of seconds");
        assert_eq!(slow.join().unwrap().status, 200);
    });
}

#[test]
fn row_06_streams_go_on_while_the_longest_prompt_is_read() {
    let args = ["fake:step_ms=2,max_rows=64", "--max-num-batched-tokens", "64"];
    let server = Server::start(&args);
    let client = server.client();
    let mut stream = client.stream(&streaming("goes on", 4000));
    stream.first();
    thread::scope(|scope| {
        let long = scope.spawn(|| client.complete(&call(&"x".repeat(4000), 1)));
        let mut events = 0;
        while !long.is_finished() {
            stream.next().unwrap();
            events += 1;
        }
        assert_eq!(long.join().unwrap().status, 200);
        // One for each of the steps that it takes to read 4,000 tokens, 64 at a time.
        assert!(events >= 30, "{events} events");
    });
}

#[test]
fn row_39_what_fails_for_good_is_not_to_be_tried_again() {
    let server = Server::start(&["fake:fault=panic@1"]);
    let failed = server.client().complete(&call("panics", 4));
    assert_eq!((failed.status, failed.header("x-should-retry")), (500, Some("false")));
    let bad = server.client().complete(&json!({"model": "fake", "prompt": "a", "max_tokens": -1}));
    assert_eq!(bad.status, 400, "{}", bad.body);
    assert_eq!(bad.header("retry-after"), None);
}

#[test]
fn row_08_a_drain_finishes_what_runs_and_refuses_what_comes() {
    let mut server = Server::start(&["fake:step_ms=10", "--max-num-seqs", "8"]);
    let client = server.client();
    let mut streams: Vec<_> =
        (0..4).map(|i| client.stream(&streaming(&format!("drain {i}"), 100))).collect();
    for stream in &mut streams {
        stream.first();
    }
    thread::scope(|scope| {
        let plain = scope.spawn(|| client.complete(&call("plain", 100)));
        until(&client, "vllm:num_requests_running", |v| v == 5.0);
        server.terminate();
        until_ready_is(&client, 503);
        assert_eq!(client.get("/health/live").status, 200);
        let refused = client.complete(&call("too late", 1));
        assert_eq!((refused.status, refused.error("code")), (503, json!("shutting_down")));
        assert_eq!(refused.header("connection"), Some("close"));
        assert!(refused.header("retry-after").is_some());
        for stream in streams {
            let (chunks, done) = stream.finish();
            assert!(done, "a stream was cut");
            assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], "length");
        }
        assert_eq!(plain.join().unwrap().status, 200);
    });
    assert_eq!(server.wait(), Some(0));
}

pub(crate) fn until_ready_is(client: &Client, status: u16) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_mins(1);
    while client.get("/health/ready").status != status {
        assert!(std::time::Instant::now() < deadline, "ready does not become {status}");
        thread::yield_now();
    }
}

#[test]
fn row_08_the_end_of_the_drain_time_fails_what_is_left() {
    let mut server = Server::start(&["fake:step_ms=10", "--shutdown-timeout-s", "1"]);
    let client = server.client();
    let mut stream = client.stream(&streaming("endless", 4000));
    stream.first();
    thread::scope(|scope| {
        let plain = scope.spawn(|| client.complete(&call("endless", 4000)));
        until(&client, "vllm:num_requests_running", |v| v == 2.0);
        server.terminate();
        let mut last = None;
        while let Some(event) = stream.next().unwrap() {
            assert_ne!(event, Sse::Done);
            last = Some(event);
        }
        let Some(Sse::Data(error)) = last else { panic!("no error event: {last:?}") };
        assert_eq!(error["error"]["code"], "shutting_down");
        assert_eq!(plain.join().unwrap().status, 503);
    });
    assert_eq!(server.wait(), Some(0));
}

#[test]
fn row_08_a_second_signal_ends_at_once() {
    let mut server = Server::start(&["fake:step_ms=10", "--shutdown-timeout-s", "600"]);
    let client = server.client();
    let mut stream = client.stream(&streaming("endless", 4000));
    stream.first();
    server.terminate();
    until_ready_is(&client, 503);
    server.terminate();
    assert!(server.wait().is_some());
}

#[test]
fn row_07_the_port_is_open_while_the_model_loads() {
    let server = Server::start_unready(&["fake:load_ms=1500"]);
    let client = server.client();
    assert_eq!(client.get("/health/live").status, 200);
    let ready = client.get("/health/ready");
    let refused = client.complete(&call("early", 1));
    // Both or neither: the model may have been loaded between the two.
    if ready.status == 503 && refused.status != 200 {
        assert_eq!((refused.status, refused.error("code")), (503, json!("model_loading")));
        assert!(refused.header("retry-after").is_some());
    }
    until_ready_is(&client, 200);
    assert_eq!(client.complete(&call("now", 1)).status, 200);
}
