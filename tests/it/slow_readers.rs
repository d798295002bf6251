//! Clients that read slowly, or not at all (row 20 of `docs/faults.md`).

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use socket2::{Domain, Socket, Type};

use crate::client::Client;
use crate::lifecycle::{call, until_idle};
use crate::support::{PATIENCE, Server};

/// A stream of some 80 MB of events, far more than all buffers between the engine and its client hold, for which the
/// client's kernel takes in little.
fn long_stream(client: &Client) -> TcpStream {
    let socket = Socket::new(Domain::for_address(client.addr), Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(64 << 10).unwrap();
    socket.connect(&client.addr.into()).unwrap();
    let mut socket: TcpStream = socket.into();
    let mut body = call("reads slowly", 4000);
    body["n"] = json!(20);
    body["logprobs"] = json!(5);
    body["stream"] = json!(true);
    let body = body.to_string();
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        client.key,
        body.len()
    );
    socket.write_all((head + &body).as_bytes()).unwrap();
    socket
}

#[test]
fn row_20_a_slow_but_steady_reader_is_not_cut() {
    let server = Server::start(&["fake:", "--client-stall-timeout-s", "1"]);
    let client = server.client();
    let mut socket = long_stream(&client);
    let mut piece = vec![0; 32 << 10];
    // Several times as long as a client may read nothing. The pace is the client's: nothing is waited for.
    let until = Instant::now() + Duration::from_secs(6);
    while Instant::now() < until {
        let read = socket.read(&mut piece).unwrap();
        let text = String::from_utf8_lossy(&piece[..read]);
        assert!(read > 0 && !text.contains("client_stalled"), "it was cut: {text}");
        thread::park_timeout(Duration::from_millis(100));
    }
    assert!(
        client.metric("vllm:num_requests_running") + client.metric("vllm:num_requests_waiting")
            > 0.0
    );
    drop(socket);
    until_idle(&client);
}

#[test]
fn row_20_readers_that_stop_are_cut_and_harm_nobody() {
    let server = Server::start(&["fake:", "--client-stall-timeout-s", "1"]);
    let client = server.client();
    let resident = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
        let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap().to_owned();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    client.complete(&call("warm", 4));
    let before = resident();
    let stopped: Vec<_> = (0..200).map(|_| long_stream(&client)).collect();
    assert_eq!(client.complete(&call("others are served", 4)).status, 200);
    let deadline = Instant::now() + PATIENCE;
    while client.aborted() < 200.0 {
        assert!(Instant::now() < deadline, "{} of 200 are cut", client.aborted());
        thread::yield_now();
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 200 * 256, "{grown} KiB for 200 that do not read");
    until_idle(&client);
    drop(stopped);
    assert_eq!(client.complete(&call("after", 4)).status, 200);
}
