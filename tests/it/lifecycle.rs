//! Requests that come, go, wait and are cut off, on the fake model: its text depends on the prompt and the seed only.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{Client, Sse, read_answer, streamed_text};
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
fn row_30_five_hundred_at_once_on_four_places_all_get_their_own_answer() {
    let server = Server::start(&["fake:", "--max-num-seqs", "4"]);
    let client = server.client();
    // Every other one draws, every third is streamed.
    let body = |i: usize| {
        let mut body = streaming(&format!("canary {i} of five hundred"), 12);
        body["stream"] = json!(i.is_multiple_of(3));
        body["temperature"] = json!(i % 2);
        body["seed"] = json!(i);
        body
    };
    let ask = |i: usize| match i % 3 {
        0 => streamed_text(&client.stream(&body(i)).finish().0),
        _ => client.complete(&body(i)).text(0),
    };
    let alone: Vec<String> = (0..500).map(ask).collect();
    let distinct: std::collections::BTreeSet<&String> = alone.iter().collect();
    assert_eq!(distinct.len(), 500, "answers that are alike could not be told apart");
    let ask = &ask;
    let together: Vec<String> = thread::scope(|scope| {
        let threads: Vec<_> = (0..500).map(|i| scope.spawn(move || ask(i))).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    for (i, (together, alone)) in together.iter().zip(&alone).enumerate() {
        assert_eq!(together, alone, "canary {i}");
    }
    until_idle(&client);
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
fn row_21_the_tokens_that_wait_are_bounded_too() {
    let args = ["fake:step_ms=20", "--max-num-seqs", "1", "--max-queue-tokens", "1000"];
    let server = Server::start(&args);
    let client = server.client();
    let mut stream = client.stream(&streaming("one", 2000));
    stream.first();
    let waiting = client.send(&call(&"x".repeat(700), 1));
    until(&client, "vllm:num_requests_waiting", |v| v == 1.0);
    let refused = client.complete(&call(&"y".repeat(700), 1));
    assert_eq!((refused.status, refused.error("code")), (429, json!("engine_overloaded")));
    let also = client.send(&call(&"z".repeat(200), 1));
    until(&client, "vllm:num_requests_waiting", |v| v == 2.0);
    drop(stream);
    for socket in [waiting, also] {
        assert_eq!(read_answer(socket).unwrap().status, 200);
    }
    until_idle(&client);
}

#[test]
fn row_21_who_is_let_in_waits_no_longer_than_the_queue_is_long() {
    const SEQS: u32 = 2;
    const QUEUE: u32 = 4;
    let server =
        Server::start(&["fake:step_ms=5", "--max-num-seqs", "2", "--max-queue-requests", "4"]);
    let client = server.client();
    let ask = || {
        let began = Instant::now();
        (client.complete(&call("an answer", 40)).status, began.elapsed())
    };
    let alone = ask().1;
    // Three times as many as it can answer, whether or not it does.
    let all: Vec<(u16, Duration)> = thread::scope(|scope| {
        let ask = &ask;
        let threads: Vec<_> = (0..60)
            .map(|_| {
                thread::park_timeout(alone / (3 * SEQS));
                scope.spawn(ask)
            })
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    let times = |status: u16| {
        let mut times: Vec<_> = all.iter().filter(|a| a.0 == status).map(|a| a.1).collect();
        times.sort_unstable();
        times
    };
    let (answered, refused) = (times(200), times(429));
    assert!(answered.len() + refused.len() == 60 && refused.len() > 10, "{all:?}");
    // Twice what it takes for those before it and itself.
    let longest = 2 * (QUEUE / SEQS + 2) * alone;
    assert!(answered[answered.len() - 1] < longest, "{answered:?}, alone {alone:?}");
    assert!(refused[refused.len() / 2] < alone / 2, "{refused:?}, alone {alone:?}");
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
    // More than the whole cache holds could only wait for ever.
    let never = client.complete(&call(&"x".repeat(300), 200));
    assert_eq!(never.status, 400, "{}", never.body);
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
fn row_04_who_was_not_in_the_step_that_panicked_is_served() {
    let server = Server::start(&["fake:step_ms=20,fault=panic@30", "--max-num-seqs", "2"]);
    let client = server.client();
    let mut running: Vec<_> = (0..2).map(|_| client.stream(&streaming("runs", 100))).collect();
    for stream in &mut running {
        stream.first();
    }
    thread::scope(|scope| {
        let waits = scope.spawn(|| client.complete(&call("waits", 8)));
        until(&client, "vllm:num_requests_waiting", |v| v == 1.0);
        for stream in running {
            let (events, is_done) = stream.finish();
            let last = events.last().unwrap();
            assert_eq!((&last["error"]["type"], is_done), (&json!("server_error"), false));
        }
        assert_eq!(waits.join().unwrap().status, 200);
    });
    assert_eq!(client.metric("millrace_step_failures_total"), 1.0);
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
    // To have nothing to do is not to hang.
    let until = Instant::now() + Duration::from_millis(2500);
    while Instant::now() < until {
        assert_eq!(client.get("/health").status, 200);
    }
}

#[test]
fn row_06_a_step_that_takes_long_does_not_hold_up_http() {
    let server = Server::start(&["fake:fault=slow@2"]);
    let client = server.client();
    thread::scope(|scope| {
        let slow = scope.spawn(|| client.complete(&call("takes seconds", 4)));
        until(&client, "vllm:num_requests_running", |v| v == 1.0);
        let began = Instant::now();
        let mut times = Vec::new();
        for path in ["/health", "/metrics", "/v1/models"].repeat(100) {
            let asked = Instant::now();
            assert_eq!(client.get(path).status, 200, "{path}");
            times.push(asked.elapsed());
        }
        assert!(!slow.is_finished(), "three hundred answers take longer than a step of seconds");
        assert_eq!(slow.join().unwrap().status, 200);
        // Of five seconds. Tests run beside each other, so some answers come late for reasons of their own.
        let step = began.elapsed();
        times.sort_unstable();
        let (p95, p99) = (times[times.len() * 95 / 100], times[times.len() * 99 / 100]);
        assert!(p95 < step / 100 && p99 < step / 20, "{p95:?}, {p99:?} of a step of {step:?}");
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
fn row_08_with_a_delay_it_serves_while_balancers_see_it_leave() {
    let mut server = Server::start(&["fake:step_ms=1", "--shutdown-delay-s", "600"]);
    let client = server.client();
    server.terminate();
    until_ready_is(&client, 503);
    assert_eq!(client.get("/health/live").status, 200);
    assert_eq!(client.complete(&call("still taken", 4)).status, 200);
    // A second signal waits for no balancer.
    server.terminate();
    assert!(server.wait().is_some());

    let mut server = Server::start(&["fake:step_ms=1", "--shutdown-delay-s", "0.2"]);
    server.terminate();
    assert_eq!(server.wait(), Some(0));
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
