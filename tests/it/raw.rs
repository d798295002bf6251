//! Bytes that no well-behaved client sends (rows 8, 16, 19, 33 of `docs/faults.md`).

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use crate::client::{Client, read_answer};
use crate::params::resident;
use crate::support::{FAKE, KEY, PATIENCE, Server};

/// Everything that comes until the server closes.
fn all(mut socket: TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset ends it as well as a close does.
    let _ = socket.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

fn answers(text: &str) -> usize {
    text.matches("HTTP/1.1 ").count()
}

/// What the server says to these bytes, if it closes by itself.
fn say(client: &Client, bytes: &str) -> String {
    all(client.raw(bytes.as_bytes()).unwrap())
}

const GET: &str = "GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[test]
fn row_33_a_bare_lf_gets_one_answer_and_the_connection_closes() {
    let server = Server::start(&[FAKE]);
    let client = server.client();
    for request in [
        "GET /health/live HTTP/1.1\nHost: localhost\n\n",
        "GET /health/live HTTP/1.1\r\nHost: localhost\n\r\n",
        "GET /health/live HTTP/1.1\r\nHost: localhost\r\nX-A: b\nX-B: c\r\n\r\n",
        "GET /health/live HTTP/1.1\r\nHost: localhost\r\n\n",
        "\nGET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ] {
        let answer = say(&client, request);
        assert!(answers(&answer) <= 1, "{request:?}: {answer}");
        assert!(answer.to_ascii_lowercase().contains("connection: close"), "{request:?}: {answer}");
        // The same with a second request behind it, at once and in two pieces.
        let answer = say(&client, &format!("{request}{GET}"));
        assert!(answers(&answer) <= 1, "{request:?}: {answer}");
        let (first, second) = request.split_at(request.len() / 2);
        let mut socket = client.raw(first.as_bytes()).unwrap();
        socket.write_all(second.as_bytes()).unwrap();
        let answer = all(socket);
        assert_eq!(answers(&answer), 1, "{request:?}: {answer}");
    }
}

#[test]
fn row_33_lines_as_they_should_be_keep_the_connection() {
    let server = Server::start(&[FAKE]);
    let client = server.client();
    // A body may hold what it wants, and two requests may come at once.
    let body = "{\"model\": \"fake\",\n\"prompt\": \"a\",\n\n\"max_tokens\": 1}\n";
    let post = format!(
        "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut socket = client.raw(post.as_bytes()).unwrap();
    for _ in 0..2 {
        let answer = read_answer(socket.try_clone().unwrap()).unwrap();
        assert_eq!((answer.status, answer.header("connection")), (200, None), "{}", answer.body);
        socket.write_all(post.as_bytes()).unwrap();
    }
    drop(socket);
    let last = GET.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    let three = say(&client, &format!("{GET}{GET}{last}"));
    assert_eq!((answers(&three), three.matches(" 200 OK").count()), (3, 3), "{three}");
    // Nobody has looked at the lines of a head behind a body: it is the last.
    let two = say(&client, &format!("{post}{GET}{GET}"));
    assert_eq!((answers(&two), two.matches(" 200 OK").count()), (2, 2), "{two}");
}

const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";
/// Header lines, and a body: what its length is, two readers may see differently, or it is none.
pub(crate) const LENGTHS_THAT_DISAGREE: [(&str, &str); 20] = [
    // Both lengths, either way round.
    ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
    ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n"),
    ("Content-Length: 3\r\nContent-Length: 5\r\n", "12345"),
    ("Content-Length: 3, 5\r\n", "12345"),
    ("Content-Length: +3\r\n", "123"),
    ("Content-Length: -1\r\n", ""),
    ("Content-Length: 0x3\r\n", "123"),
    ("Content-Length: 99999999999999999999\r\n", ""),
    // Chunks that are none.
    (CHUNKED, "10000000000000000\r\nx\r\n0\r\n\r\n"),
    (CHUNKED, "fffffffffffffffff\r\nx\r\n0\r\n\r\n"),
    (CHUNKED, "-1\r\nx\r\n0\r\n\r\n"),
    (CHUNKED, "1\nx\n0\n\n"),
    (CHUNKED, "zz\r\n\r\n"),
    (CHUNKED, "1\r\nxyz\r\n0\r\n\r\n"),
    // Encodings that another may read otherwise.
    ("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"),
    ("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n"),
    ("Transfer-Encoding : chunked\r\n", "0\r\n\r\n"),
    // A line that goes on in the next (obs-fold), and a name with a space in it.
    ("X-A: b\r\n c\r\n", ""),
    ("Bad Name: b\r\n", ""),
    ("X-A: \0\r\n", ""),
];

#[test]
fn row_33_lengths_that_disagree_get_one_answer_at_most() {
    let server = Server::start(&[FAKE]);
    let client = server.client();
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n\
         Content-Type: application/json\r\n"
    );
    for (fields, body) in LENGTHS_THAT_DISAGREE {
        let answer = say(&client, &format!("{head}{fields}\r\n{body}{GET}"));
        assert!(answers(&answer) <= 1, "{fields:?} {body:?}: {answer}");
        assert!(!answer.contains(" 200 OK"), "{fields:?} {body:?}: {answer}");
        assert_eq!(client.get("/health/live").status, 200);
    }
}

#[test]
fn row_33_huge_heads_are_refused() {
    let server = Server::start(&[FAKE]);
    let client = server.client();
    let long = "x".repeat(200 << 10);
    let many = "X-A: b\r\n".repeat(5000);
    for request in [
        format!("GET /{long} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: localhost\r\nX-A: {long}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: localhost\r\n{many}\r\n"),
    ] {
        let mut socket = client.raw(b"").unwrap();
        // It may be refused before all of it is sent.
        let _ = socket.write_all(request.as_bytes());
        let answer = all(socket);
        let status = answer.split(' ').nth(1).unwrap_or("none");
        assert!(["400", "414", "431"].contains(&status), "{}", &answer[..answer.len().min(300)]);
    }
}

#[test]
fn row_08_a_body_that_is_still_coming_does_not_hold_a_drain() {
    let mut server = Server::start(&[FAKE, "--shutdown-timeout-s", "600"]);
    let client = server.client();
    let half = format!(
        "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n\
         Content-Type: application/json\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n"
    );
    let mut socket = client.raw(half.as_bytes()).unwrap();
    // It has passed the door: the server asks for the body.
    let mut asked = [0; 25];
    socket.read_exact(&mut asked).unwrap();
    assert!(asked.starts_with(b"HTTP/1.1 100"), "{}", String::from_utf8_lossy(&asked));
    socket.write_all(b"{\"model\"").unwrap();
    let began = Instant::now();
    server.terminate();
    let refused = read_answer(socket).unwrap();
    assert_eq!((refused.status, refused.error("code")), (503, "shutting_down".into()));
    assert_eq!(refused.header("connection"), Some("close"));
    assert!(refused.header("retry-after").is_some());
    assert_eq!(server.wait(), Some(0));
    assert!(began.elapsed() < PATIENCE / 2, "the body's own limit ended it");
}

/// By turns nothing so far, half a head, and the beginning of a body.
fn dribbling(client: &Client, i: usize) -> TcpStream {
    let half = match i % 3 {
        0 => String::new(),
        1 => "GET /health HTTP/1.1\r\nHost: loc".to_owned(),
        _ => format!(
            "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n\
             Content-Type: application/json\r\nContent-Length: 100000\r\n\r\n{{"
        ),
    };
    client.raw(half.as_bytes()).unwrap()
}

/// Whether the other side has closed.
fn is_cut(socket: &mut TcpStream) -> bool {
    socket.set_nonblocking(true).unwrap();
    match socket.read(&mut [0; 64]) {
        Ok(read) => read == 0,
        Err(e) => e.kind() != ErrorKind::WouldBlock,
    }
}

#[test]
fn row_19_past_the_cap_a_connection_waits_its_turn() {
    let server = Server::start(&[FAKE, "--max-connections", "2"]);
    let client = server.client();
    // Held for as long as they send nothing: no limit ends them before the test does.
    let mut held: Vec<TcpStream> = (0..2).map(|_| client.raw(GET.as_bytes()).unwrap()).collect();
    for socket in &held {
        assert_eq!(read_answer(socket.try_clone().unwrap()).unwrap().status, 200);
    }
    let last = GET.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    let mut waits = client.raw(last.as_bytes()).unwrap();
    // Who has a place is served meanwhile, and who waits is not.
    for _ in 0..100 {
        held[0].write_all(GET.as_bytes()).unwrap();
        assert_eq!(read_answer(held[0].try_clone().unwrap()).unwrap().status, 200);
    }
    assert!(!has_answer(&mut waits), "more than the cap are served");
    held.pop();
    assert_eq!(read_answer(waits).unwrap().status, 200);
    assert_eq!(client.get("/health").status, 200);
}

/// Whether anything has come, without taking it.
fn has_answer(socket: &mut TcpStream) -> bool {
    socket.set_nonblocking(true).unwrap();
    let has_answer = socket.peek(&mut [0]).is_ok();
    socket.set_nonblocking(false).unwrap();
    has_answer
}

/// How long the head of a request may take to come.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

#[test]
fn row_19_two_thousand_that_dribble_leave_the_server_usable() {
    // Twice as many for the server, which has this process's limit.
    assert!(rlimit::increase_nofile_limit(8192).unwrap() >= 4096, "ulimit -n is too low");
    let server = Server::start(&[FAKE]);
    let client = server.client();
    let usable = || {
        assert_eq!(client.get("/health").status, 200);
        let body = r#"{"model": "fake", "prompt": "a", "max_tokens": 1}"#;
        assert_eq!(client.post_text("/v1/completions", body).status, 200);
    };
    usable();
    let before = resident(&server);
    let began = Instant::now();
    // From several threads: the kernel lets some of a crowd try again after a second.
    let open = |part: usize| (0..250).map(|i| dribbling(&client, 250 * part + i)).collect();
    let open = &open;
    let mut slow: Vec<TcpStream> = thread::scope(|scope| {
        let parts: Vec<_> =
            (0..8).map(|part| scope.spawn(move || -> Vec<TcpStream> { open(part) })).collect();
        parts.into_iter().flat_map(|part| part.join().unwrap()).collect()
    });
    usable();
    // It has all of them at once, and served others beside them. Where it took long to open them, heads have had their
    // time meanwhile, and bodies are a third.
    let held = || std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap().count();
    let mut descriptors = held();
    while descriptors < 2_000 && began.elapsed() < HEADER_TIMEOUT {
        thread::park_timeout(Duration::from_millis(10));
        descriptors = held();
    }
    let least = if began.elapsed() < HEADER_TIMEOUT { 2_000 } else { 2_000 / 3 };
    assert!(descriptors >= least, "no more than {descriptors} at once");
    let deadline = Instant::now() + PATIENCE;
    // Until the last of those whose heads do not end is cut, however steadily they go on.
    loop {
        for socket in &mut slow {
            let _ = socket.write_all(b"x");
        }
        usable();
        let heads = slow.iter_mut().skip(1).step_by(3);
        if heads.map(is_cut).filter(|&is_cut| !is_cut).count() == 0 {
            break;
        }
        assert!(Instant::now() < deadline, "heads that never end are not cut");
        thread::park_timeout(Duration::from_millis(200));
    }
    let grown = resident(&server).saturating_sub(before);
    assert!(grown < 2_000 * 64, "{grown} KiB for 2,000 that dribble");
    drop(slow);
    usable();
}
