//! The wall clock jumps while the server works (row 37 of `docs/faults.md`), by libfaketime in the server alone.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::Value;

use crate::client::{Client, Sse, Stream, read_answer};
use crate::lifecycle::{call, streaming, until_ready_is};
use crate::support::{KEY, Server, millrace};

/// Where distributions put the library.
const PLACES: [&str; 5] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib64/faketime/libfaketime.so.1",
    "/usr/lib/faketime/libfaketime.so.1",
    "/usr/local/lib/faketime/libfaketime.so.1",
];

const DAY_S: i64 = 86_400;

/// What may pass between two looks at the clock on a busy machine; far below a jump.
const TOLERANCE_S: i64 = 3600;

fn libfaketime() -> &'static str {
    let found = PLACES.into_iter().find(|place| Path::new(place).is_file());
    found.expect("libfaketime is missing: run scripts/test-tools.sh")
}

/// The wall clock of a server.
struct Clock(PathBuf);

impl Clock {
    /// Puts it that far from the real one, such as `+1d`.
    fn set(&self, offset: &str) {
        // Renamed, so that nobody reads half of it.
        let draft = self.0.with_extension("new");
        fs::write(&draft, format!("{offset}\n")).unwrap();
        fs::rename(&draft, &self.0).unwrap();
    }
}

/// A server on such a clock, and a client whose key has one request a minute.
fn serve(args: &[&str]) -> (Server, Clock, Client) {
    let mut clock = None;
    let mut secret = String::new();
    let args = [args, &["--api-key-file", "k.toml"]].concat();
    let server = Server::spawn_with(&args, |command| {
        let home = command.get_current_dir().unwrap();
        let add = ["keys", "add", "limited", "--rpm", "1", "--file", "k.toml"];
        let out = millrace(home).args(add).output().unwrap();
        String::from_utf8(out.stdout).unwrap().trim().clone_into(&mut secret);
        let file = Clock(home.join("clock"));
        file.set("+0d");
        command.env("MILLRACE_API_KEY", KEY).env("LD_PRELOAD", libfaketime());
        command.env("FAKETIME_TIMESTAMP_FILE", &file.0).env("FAKETIME_NO_CACHE", "1");
        // A real machine's monotonic clock does not jump.
        command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        clock = Some(file);
    });
    server.wait_ready();
    let limited = server.client_with(&secret);
    (server, clock.unwrap(), limited)
}

/// How far the server's clock, as `created` of an answer tells it, is from the real one.
fn ahead_s(client: &Client) -> i64 {
    let created = client.complete(&call("now", 1)).json()["created"].as_i64().unwrap();
    created - SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() as i64
}

/// Reads some of a stream's chunks, which are all of the same time.
fn read_on(stream: &mut Stream, created: &Value) {
    for _ in 0..40 {
        match stream.next().unwrap() {
            Some(Sse::Data(chunk)) => assert_eq!(&chunk["created"], created, "{chunk}"),
            Some(Sse::Comment) => {}
            other => panic!("the stream ends: {other:?}"),
        }
    }
}

fn assert_still_limited(limited: &Client) {
    let refused = limited.complete(&call("limited", 1));
    assert_eq!(refused.status, 429, "{}", refused.body);
    let wait_s: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait_s), "{wait_s}");
}

#[test]
fn row_37_a_clock_that_jumps_moves_created_and_nothing_else() {
    let args = ["fake:step_ms=5", "--engine-stall-timeout-s", "5", "--client-stall-timeout-s", "5"];
    let (mut server, clock, limited) = serve(&args);
    let client = server.client();
    let mut stream = client.stream(&streaming("goes on", 2000));
    let created = stream.first()["created"].clone();
    // Written to by the server, and read when all jumps are over.
    let mut unread = client.stream(&streaming("is not read yet", 200));
    assert_eq!(limited.complete(&call("limited", 1)).status, 200);
    for (offset, jump_s) in [("+0d", 0), ("+1d", DAY_S), ("-1d", -DAY_S)] {
        let mut half = client.raw(b"GET /health/live HTTP/1.1\r\nHost: local").unwrap();
        assert_still_limited(&limited);
        clock.set(offset);
        let ahead_s = ahead_s(&client);
        assert!((ahead_s - jump_s).abs() < TOLERANCE_S, "{offset}: {ahead_s} s ahead");
        assert_still_limited(&limited);
        read_on(&mut stream, &created);
        half.write_all(b"host\r\nConnection: close\r\n\r\n").unwrap();
        assert_eq!(read_answer(half).unwrap().status, 200, "{offset}: a head's time is over");
        assert_eq!(client.get("/health").status, 200, "{offset}");
    }
    unread.first();
    assert!(unread.finish().1, "a client was taken for one that does not read");
    // The time of a drain is not over by a jump either.
    server.terminate();
    until_ready_is(&client, 503);
    clock.set("+1d");
    let (chunks, is_done) = stream.finish();
    assert!(is_done && chunks.len() > 100, "{} chunks", chunks.len());
    assert_eq!(server.wait(), Some(0));
    assert!(!server.log().contains("HANGS"), "{}", server.log());
}
