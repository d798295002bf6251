//! Who gets in, and what is said of it (rows 24, 26, 29, 34 to 38 of `docs/faults.md`).

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::thread;

use serde_json::json;

use crate::client::{Client, read_answer};
use crate::lifecycle::{call, streaming, until_idle};
use crate::support::{BIN, FAKE, KEY, Server};

/// An answer to these header lines, as bytes but for what differs from one to the next: id, date, time.
fn answer(client: &Client, line: &str, headers: &str) -> (u16, String, Vec<(String, String)>) {
    let request =
        format!("{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n");
    let answer = read_answer(client.raw(request.as_bytes()).unwrap()).unwrap();
    let varies = ["x-request-id", "request-id", "date", "openai-processing-ms"];
    let headers = answer.headers.into_iter().filter(|(n, _)| !varies.contains(&n.as_str()));
    (answer.status, answer.body, headers.collect())
}

#[test]
fn row_24_every_wrong_key_gets_the_same_answer() {
    let server = Server::start(&[FAKE]);
    let client = server.client();
    let expected = answer(&client, "GET /v1/models", "");
    assert_eq!(expected.0, 401);
    assert!(expected.1.contains("\"invalid_api_key\""), "{}", expected.1);
    assert!(expected.2.contains(&("www-authenticate".to_owned(), "Bearer".to_owned())));
    let (short, long) = (&KEY[..KEY.len() - 1], format!("{KEY}x"));
    for header in [
        format!("Authorization: Bearer {}\r\n", KEY.to_ascii_lowercase()),
        format!("Authorization: Bearer {short}\r\n"),
        format!("Authorization: Bearer {long}\r\n"),
        format!("Authorization: Bearer  {KEY}\r\n"),
        format!("Authorization: Bearer\t{KEY}\r\n"),
        format!("Authorization: {KEY}\r\n"),
        format!("Authorization: Basic {KEY}\r\n"),
        "Authorization: Bearer \r\n".to_owned(),
        "Authorization:\r\n".to_owned(),
        format!("Authorization: Bearer {KEY}\r\nAuthorization: Bearer {KEY}\r\n"),
        format!("api-key: {KEY}\r\n"),
        format!("X-Api-Key: {KEY}\r\n"),
        format!("Cookie: Authorization=Bearer {KEY}\r\n"),
    ] {
        assert_eq!(answer(&client, "GET /v1/models", &header), expected, "{header}");
    }
    for line in [
        format!("GET /v1/models?api_key={KEY}"),
        "POST /v1/completions".to_owned(),
        "GET /no/such/path".to_owned(),
        "GET /v1/../health/live/../../v1/models".to_owned(),
        "GET //v1/models".to_owned(),
        "GET /v1/models/".to_owned(),
        "GET /%76%31/models".to_owned(),
        "GET /health/".to_owned(),
        "GET //health".to_owned(),
        "GET /HEALTH".to_owned(),
        "POST /health".to_owned(),
        "DELETE /metrics".to_owned(),
        "OPTIONS /v1/models".to_owned(),
        "TRACE /".to_owned(),
        "BREW /v1/models".to_owned(),
    ] {
        let (status, body, _) = answer(&client, &line, "");
        assert_eq!((status, &body), (401, &expected.1), "{line}");
    }
    assert_eq!(answer(&client, "HEAD /v1/models", "").0, 401);
    let good = format!("Authorization: bearer {KEY}\r\n");
    assert_eq!(answer(&client, "GET /v1/models", &good).0, 200, "the scheme has no case");
}

/// Nobody's time tells how near a key was (row 25 measures that inside), because nothing is done for any of
/// them: each is refused before the server asks for a byte of the body.
#[test]
fn row_24_a_wrong_key_is_refused_before_anything_is_read() {
    let server = Server::start(&[FAKE]);
    let client = server.client();
    let first_line = |headers: &str| {
        let head = format!(
            "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Content-Length: 1000\r\nExpect: 100-continue\r\n{headers}\r\n"
        );
        let mut line = String::new();
        BufReader::new(client.raw(head.as_bytes()).unwrap()).read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    };
    assert_eq!(first_line(&format!("Authorization: Bearer {KEY}\r\n")), "HTTP/1.1 100 Continue");
    let near = &KEY[..KEY.len() - 1];
    for header in [
        String::new(),
        "Authorization: Bearer x\r\n".to_owned(),
        format!("Authorization: Bearer {near}\r\n"),
        format!("Authorization: Bearer {near}x\r\n"),
        format!("Authorization: Bearer {KEY}x\r\n"),
        format!("Authorization: Bearer {}\r\n", KEY.to_ascii_uppercase()),
        format!("Authorization: Bearer {KEY}\r\nAuthorization: Bearer {KEY}\r\n"),
    ] {
        assert_eq!(first_line(&header), "HTTP/1.1 401 Unauthorized", "{header}");
    }
}

/// What is for everybody, and what a browser must get to show anything.
const PUBLIC: [&str; 8] = [
    "/",
    "/docs",
    "/health",
    "/health/live",
    "/health/ready",
    "/metrics",
    "/version",
    "/openapi.json",
];

#[test]
fn row_24_every_described_route_wants_a_key_but_those_for_everybody() {
    let server = Server::start(&[FAKE]);
    let client = server.client();
    let expected = answer(&client, "GET /v1/models", "");
    let described = client.get("/openapi.json").json();
    let (mut guarded, mut public) = (0, 0);
    for (path, methods) in described["paths"].as_object().unwrap() {
        let is_public = PUBLIC.contains(&path.as_str());
        let path = path.replace(['{', '}'], "");
        for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"] {
            let (status, body, headers) = answer(&client, &format!("{method} {path}"), "");
            if is_public && methods.get(method.to_lowercase()).is_some() {
                public += 1;
                assert_eq!(status, 200, "{method} {path}: {body}");
            } else if method != "HEAD" {
                guarded += 1;
                assert_eq!((status, body, headers), expected, "{method} {path}");
            } else {
                assert_eq!(status, 401, "{method} {path}");
            }
        }
    }
    // Each answers GET and HEAD.
    assert_eq!(public, 2 * PUBLIC.len());
    assert!(guarded > 100, "{guarded}");
}

#[test]
fn row_26_neither_keys_nor_prompts_are_written_anywhere() {
    let server = Server::start(&["fake:fault=panic@9", "--log-level", "trace"]);
    let client = server.client();
    let (prompt, wrong) = ("canary-of-a-prompt", "sk-canary-of-a-wrong-key");
    let mut body = call(prompt, 4);
    body["user"] = json!("canary-of-a-user");
    assert_eq!(client.complete(&body).status, 200);
    client.stream(&streaming(prompt, 4)).finish();
    body["stop"] = json!("canary-of-a-stop");
    let failed = client.complete(&{
        body["max_tokens"] = json!(100);
        body
    });
    assert_eq!(failed.status, 500);
    let refused = client.complete(&json!({"model": "fake", "prompt": prompt, "max_tokens": -7}));
    assert!(!refused.body.contains("canary"), "{}", refused.body);
    let unauthorized = server.client_with(wrong).get("/v1/models?canary-of-a-query=1");
    assert!(!unauthorized.body.contains("canary"));
    until_idle(&client);
    let metrics = client.get("/metrics").body;
    let process = |what: &str| {
        let bytes = std::fs::read(format!("/proc/{}/{what}", server.pid())).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    for (place, text) in
        [("log", server.log()), ("metrics", metrics), ("command line", process("cmdline"))]
    {
        for secret in ["canary", KEY, &KEY[3..20]] {
            assert!(!text.contains(secret), "{secret} in the {place}: {text}");
        }
    }
    assert!(server.log().contains("$MILLRACE_API_KEY"), "the log names keys by their ids");
}

#[test]
fn row_29_prefixes_whose_hashes_collide_are_not_mixed_up() {
    let plain = Server::start(&["fake:", "--no-prefix-caching"]);
    // One bit: every second prefix has the hash of another.
    let colliding = Server::start(&["fake:hash_bits=1"]);
    let prompt =
        |i: usize| format!("{}{i}{}", "prefix ".repeat(5 + i % 3), " and its end".repeat(6));
    for i in 0..30 {
        let body = call(&prompt(i % 10), 20);
        let expected = plain.client().complete(&body).text(0);
        assert_eq!(colliding.client().complete(&body).text(0), expected, "prompt {i}");
    }
    thread::scope(|scope| {
        for i in 0..20 {
            let (colliding, plain) = (colliding.client(), plain.client());
            scope.spawn(move || {
                let body = call(&prompt(i % 10), 20);
                assert_eq!(colliding.complete(&body).text(0), plain.complete(&body).text(0));
            });
        }
    });
    until_idle(&colliding.client());
}

#[test]
fn row_34_a_keyless_server_answers_to_its_own_hosts_only() {
    let server = Server::spawn_with(&[FAKE, "--allow-unauthenticated"], |_| {});
    server.wait_ready();
    let client = server.client_with("");
    let ask = |line: &str, host: &str| {
        let request = format!("{line} HTTP/1.1\r\n{host}Connection: close\r\n\r\n");
        read_answer(client.raw(request.as_bytes()).unwrap()).unwrap()
    };
    for path in ["/v1/models", "/health", "/metrics", "/version", "/no/such"] {
        let line = format!("GET {path}");
        for host in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "localhost@evil.example",
            "0.0.0.0",
            "",
        ] {
            let answer = ask(&line, &format!("Host: {host}\r\n"));
            assert_eq!(answer.status, 403, "{path} of {host}: {}", answer.body);
        }
        let two = ask(&line, "Host: localhost\r\nHost: evil.example\r\n");
        assert!(matches!(two.status, 400 | 403), "{}", two.body);
    }
    for host in ["localhost", "localhost:8000", "127.0.0.1:1", "[::1]:9", "LOCALHOST"] {
        assert_eq!(ask("GET /v1/models", &format!("Host: {host}\r\n")).status, 200, "{host}");
    }
    // A page of another origin may not read the answer.
    let foreign = ask("GET /v1/models", "Host: localhost\r\nOrigin: https://evil.example\r\n");
    assert_eq!(foreign.header("access-control-allow-origin"), None);
}

#[test]
fn row_35_a_server_out_of_file_descriptors_recovers() {
    let server = Server::spawn_with(&[FAKE], |command| {
        // Only a shell can set a limit for what it becomes.
        let serve = command.get_args().map(|a| a.to_str().unwrap().to_owned());
        let serve: Vec<String> = serve.collect();
        let program = command.get_program().to_owned();
        let mut limited = std::process::Command::new("sh");
        limited.args(["-c", "ulimit -n 64; exec \"$0\" \"$@\""]).arg(program).args(serve);
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => limited.env(name, value),
                None => limited.env_remove(name),
            };
        }
        limited.current_dir(command.get_current_dir().unwrap()).env("MILLRACE_API_KEY", KEY);
        limited.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        *command = limited;
    });
    server.wait_ready();
    let client = server.client();
    let held: Vec<_> = (0..200).map_while(|_| client.raw(b"GET /health").ok()).collect();
    server.wait_log("cannot accept connections");
    drop(held);
    assert_eq!(client.get("/health").status, 200);
    assert_eq!(client.complete(&call("after", 2)).status, 200);
    let complaints = server.log().matches("cannot accept connections").count();
    assert!(complaints < 50, "{complaints} lines: a busy loop");
}

#[test]
fn row_36_a_log_that_cannot_be_written_stops_nothing() {
    // The address is read from the log, so it goes to a full disk only once that is known.
    let server = Server::start(&[FAKE]);
    let (address, home) = (server.url(""), tempfile::tempdir().unwrap());
    drop(server);
    let port = address.rsplit(':').next().unwrap().to_owned();
    let (reader, broken) = std::io::pipe().unwrap();
    drop(reader);
    let full = File::create("/dev/full").unwrap();
    let logs =
        [("", Stdio::from(full)), ("", Stdio::from(broken)), ("2>&- >&- <&-", Stdio::null())];
    for (closed, log) in logs {
        // Only a shell can leave a descriptor closed for what it becomes.
        let mut child = crate::support::clean("sh", home.path())
            .args(["-c", &format!("exec \"$0\" \"$@\" {closed}"), BIN])
            .args(["serve", FAKE, "--port", &port])
            .env("MILLRACE_API_KEY", KEY)
            .stdin(Stdio::null())
            .stdout(File::create("/dev/full").unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let addr = address.trim_start_matches("http://").parse().unwrap();
        let client = Client { addr, key: KEY.to_owned() };
        let deadline = std::time::Instant::now() + crate::support::PATIENCE;
        while client.try_post("/v1/completions", &call("a", 2).to_string()).map_or(0, |a| a.status)
            != 200
        {
            assert!(std::time::Instant::now() < deadline && child.try_wait().unwrap().is_none());
            thread::yield_now();
        }
        crate::support::signal(&child, "TERM");
        assert_eq!(crate::support::wait(&mut child).code(), Some(0));
    }
}

#[test]
fn row_38_what_clients_send_adds_no_series() {
    let server = Server::start(&[FAKE]);
    let client = server.client();
    let series = || {
        let page = client.get("/metrics").body;
        page.lines().filter(|l| !l.starts_with('#')).count()
    };
    let ask = |i: usize| {
        client.get(&format!("/v1/no/such/{i}"));
        client.get(&format!("/v1/models/{i}?x={i}"));
        let body =
            json!({"model": format!("model-{i}"), "prompt": "a", "user": format!("user-{i}")});
        client.complete(&body);
        let request = format!(
            "M{i} /v1/models HTTP/1.1\r\nHost: h{i}\r\nConnection: close\r\nAuthorization: Bearer {KEY}\r\n\r\n"
        );
        let _ = read_answer(client.raw(request.as_bytes()).unwrap());
    };
    ask(0);
    client.complete(&call("a", 1));
    // A scrape counts itself, too.
    series();
    let before = series();
    (1..200).for_each(ask);
    // Ten thousand more, a hundred at a time on one connection.
    for hundred in 0..100 {
        let paths = (0..100).map(|i| {
            let end = if i == 99 { "Connection: close\r\n" } else { "" };
            format!(
                "GET /v1/{i}/no/{hundred} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n{end}\r\n"
            )
        });
        let mut socket = client.raw(paths.collect::<String>().as_bytes()).unwrap();
        let mut answers = String::new();
        std::io::Read::read_to_string(&mut socket, &mut answers).unwrap();
        assert_eq!(answers.matches("HTTP/1.1 404").count(), 100);
    }
    assert_eq!(series(), before);
}
