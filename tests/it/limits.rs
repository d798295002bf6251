//! What the key file limits keys to, and what they may hold against each other (rows 23 and 27 of `docs/faults.md`).

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{Answer, Client};
use crate::support::{PATIENCE, Server, millrace};

/// A server with these keys (a name, and options of `keys add`), and a client for each.
pub(crate) fn serve(args: &[&str], keys: &[(&str, &[&str])]) -> (Server, Vec<Client>) {
    let mut secrets = Vec::new();
    let args = [args, &["--api-key-file", "k.toml"]].concat();
    let server = Server::spawn_with(&args, |command| {
        for (name, options) in keys {
            let mut add = millrace(command.get_current_dir().unwrap());
            add.args(["keys", "add", name, "--file", "k.toml"]).args(*options);
            let out = add.output().unwrap();
            assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
            secrets.push(String::from_utf8(out.stdout).unwrap().trim().to_owned());
        }
    });
    server.wait_ready();
    let clients = secrets.iter().map(|secret| server.client_with(secret)).collect();
    (server, clients)
}

fn call(max_tokens: u32) -> Value {
    json!({"model": "fake", "prompt": "ten bytes!", "max_tokens": max_tokens, "temperature": 0, "ignore_eos": true})
}

fn stream(client: &Client, max_tokens: u32) -> crate::client::Stream {
    let mut body = call(max_tokens);
    body["stream"] = json!(true);
    client.stream(&body)
}

/// Asks until the answer has this status.
fn until_status(client: &Client, body: &Value, status: u16) -> Answer {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = client.complete(body);
        if answer.status == status {
            return answer;
        }
        assert!(Instant::now() < deadline, "it stays at {}: {}", answer.status, answer.body);
        thread::yield_now();
    }
}

/// The seconds of a duration as Go writes it.
fn seconds(duration: &str) -> f64 {
    if let Some(ms) = duration.strip_suffix("ms") {
        return ms.parse::<f64>().unwrap() / 1e3;
    }
    let (minutes, rest) = duration.split_once('m').unwrap_or(("0", duration));
    60.0 * minutes.parse::<f64>().unwrap() + rest.strip_suffix('s').unwrap().parse::<f64>().unwrap()
}

fn assert_limited(answer: &Answer, name: &str) {
    assert_eq!(answer.status, 429, "{}", answer.body);
    assert_eq!(answer.error("code"), "rate_limit_exceeded");
    let message = answer.error("message").as_str().unwrap().to_owned();
    assert!(message.contains(name), "{message}");
}

#[test]
fn row_23_a_key_with_five_requests_a_minute_gets_exactly_five() {
    let (_server, clients) = serve(&["fake:"], &[("limited", &["--rpm", "5"]), ("free", &[])]);
    let (limited, free) = (&clients[0], &clients[1]);
    for i in 0..5 {
        let mut body = call(2);
        // One request, whatever its fan-out.
        body["n"] = json!(1 + i % 3);
        let answer = limited.complete(&body);
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(answer.header("x-ratelimit-limit-requests"), Some("5"));
        assert_eq!(answer.header("x-ratelimit-remaining-requests"), Some(&*(4 - i).to_string()));
        let reset = seconds(answer.header("x-ratelimit-reset-requests").unwrap());
        assert!(reset > 0.0 && reset <= 12.0 * f64::from(i + 1), "{reset}");
        assert_eq!(answer.header("x-ratelimit-limit-tokens"), None, "it has no such limit");
    }
    let refused = limited.complete(&call(2));
    assert_limited(&refused, "5 requests per minute");
    assert_eq!(refused.error("type"), "requests");
    assert_eq!(refused.header("x-ratelimit-remaining-requests"), Some("0"));
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=12).contains(&wait), "{wait}");
    assert_eq!(refused.header("x-should-retry"), Some("true"));
    assert_eq!(limited.get("/v1/models").status, 200, "what makes no work is not counted");
    let other = free.complete(&call(2));
    assert_eq!((other.status, other.header("x-ratelimit-limit-requests")), (200, None));
}

#[test]
fn row_23_tokens_are_reserved_and_given_back() {
    let (_server, clients) = serve(&["fake:step_ms=2"], &[("limited", &["--tpm", "200"])]);
    let client = &clients[0];
    let remaining = |answer: &Answer| -> u64 {
        answer.header("x-ratelimit-remaining-tokens").unwrap().parse().unwrap()
    };
    // Room for 170 new tokens, but the first ends the answer: what was not made comes back.
    let mut short = call(170);
    short["stop"] = json!(call_text(client));
    let answer = client.complete(&short);
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.header("x-ratelimit-limit-tokens"), Some("200"));
    let used = answer.json()["usage"]["total_tokens"].as_u64().unwrap();
    assert!(used < 40, "{used}");
    let before = remaining(&client.complete(&call(0).echoed()));
    // A client that leaves pays for what was made until then.
    let mut leaving = stream(client, 150);
    assert_eq!(leaving.status, 200);
    leaving.first();
    drop(leaving);
    let after = until_status(client, &call(100), 200);
    assert!(remaining(&after) + 200 > before, "{before} before, {} after", remaining(&after));
    let refused = client.complete(&call(180));
    assert_limited(&refused, "200 tokens per minute");
    assert_eq!(refused.error("type"), "tokens");
    assert!(refused.header("retry-after").is_some());
    // What could never pass is not to be tried again.
    let never = client.complete(&call(200));
    assert_limited(&never, "over the limit of your key: 200 tokens per minute");
    assert_eq!(never.header("x-should-retry"), Some("false"));
    assert_eq!(never.header("retry-after"), None);
}

/// The first character that the fake model answers with.
fn call_text(client: &Client) -> String {
    let text = client.complete(&call(3)).text(0);
    text.chars().next().unwrap().to_string()
}

trait Echoed {
    fn echoed(self) -> Self;
}

impl Echoed for Value {
    fn echoed(mut self) -> Self {
        self["echo"] = json!(true);
        self
    }
}

#[test]
fn row_23_requests_at_one_time_are_limited_until_their_answers_end() {
    let keys: [(&str, &[&str]); 2] = [("two", &["--concurrency", "2"]), ("free", &[])];
    let (_server, clients) = serve(&["fake:step_ms=5"], &keys);
    let (two, free) = (&clients[0], &clients[1]);
    let mut streams = vec![stream(two, 3000), stream(two, 3000)];
    for stream in &mut streams {
        stream.first();
    }
    let refused = two.complete(&call(1));
    assert_limited(&refused, "2 requests at one time");
    assert_eq!(refused.header("x-should-retry"), Some("true"));
    assert_eq!(free.complete(&call(1)).status, 200);
    streams.pop();
    until_status(two, &call(1), 200);
    drop(streams);
}

#[test]
fn row_23_a_key_sees_and_uses_only_its_models() {
    let keys: [(&str, &[&str]); 1] = [("one", &["--models", "davinci-002,other"])];
    let (_server, clients) = serve(&["fake:"], &keys);
    let client = &clients[0];
    let listed = client.get("/v1/models").json();
    let ids: Vec<_> = listed["data"].as_array().unwrap().iter().map(|m| &m["id"]).collect();
    assert_eq!(ids, ["davinci-002"]);
    let mut body = call(1);
    let refused = client.complete(&body);
    assert_eq!((refused.status, refused.error("code")), (404, json!("model_not_found")));
    body["model"] = json!("davinci-002");
    assert_eq!(client.complete(&body).status, 200);
    assert_eq!(client.post("/v1/engines/davinci-002/completions", &body).status, 200);
    assert_eq!(client.post("/v1/engines/fake/completions", &body).status, 404);
    assert_eq!(client.get("/v1/models/fake").status, 404);
    let tokenize = json!({"model": "fake", "prompt": "a"});
    assert_eq!(client.post("/tokenize", &tokenize).status, 404);
}

#[test]
fn row_27_limits_change_while_it_serves_and_a_bad_file_changes_nothing() {
    let (server, clients) = serve(&["fake:"], &[("limited", &["--rpm", "1"])]);
    let (client, file) = (&clients[0], server.home.path().join("k.toml"));
    let text = fs::read_to_string(&file).unwrap();
    assert_eq!(client.complete(&call(1)).status, 200);
    assert_eq!(client.complete(&call(1)).status, 429);
    fs::write(&file, text.replace("rpm = 1", "rpm = 1000")).unwrap();
    let answer = until_status(client, &call(1), 200);
    assert_eq!(answer.header("x-ratelimit-limit-requests"), Some("1000"));
    let errors = "millrace_key_reload_total{result=\"error\"}";
    for bad in ["rpm = 0", "rpm = -1", "rpm = ten", "priority = 99", "nonsense = 1"] {
        let before = client.metric(errors);
        fs::write(&file, text.replace("rpm = 1", bad)).unwrap();
        let deadline = Instant::now() + PATIENCE;
        while client.metric(errors) == before {
            assert!(Instant::now() < deadline, "{bad} is not refused");
            thread::yield_now();
        }
        assert_eq!(client.complete(&call(1)).status, 200, "the old keys stay");
    }
    server.wait_log("key file not reloaded: the old keys stay valid");
}

#[test]
fn row_27_a_revoked_key_starts_nothing_more_and_what_it_started_ends() {
    let (server, clients) = serve(&["fake:step_ms=5"], &[("leaves", &[]), ("stays", &[])]);
    let (leaves, stays, home) = (&clients[0], &clients[1], server.home.path());
    let file = home.join("k.toml");
    let mut running = stream(leaves, 1000);
    running.first();
    let revoke = ["keys", "revoke", "leaves", "--file", "k.toml"];
    assert!(millrace(home).args(revoke).output().unwrap().status.success());
    until_status(leaves, &call(1), 401);
    assert!(running.finish().1, "a running stream was cut");
    // Half of a file, none of it, and no file: the keys that there were go on.
    let (whole, errors) =
        (fs::read_to_string(&file).unwrap(), "millrace_key_reload_total{result=\"error\"}");
    let break_file: [&dyn Fn(); 4] = [
        &|| fs::write(&file, &whole[..whole.len() - 30]).unwrap(),
        &|| fs::write(&file, "").unwrap(),
        &|| fs::write(&file, "\"a\\u001b[2J\\nb\" = 1\n").unwrap(),
        &|| fs::remove_file(&file).unwrap(),
    ];
    for (i, break_file) in break_file.iter().enumerate() {
        let before = stays.metric(errors);
        break_file();
        let deadline = Instant::now() + PATIENCE;
        while stays.metric(errors) == before {
            assert!(Instant::now() < deadline, "fault {i} is not noticed");
            thread::yield_now();
        }
        assert_eq!(stays.complete(&call(1)).status, 200, "fault {i}");
        assert_eq!(leaves.complete(&call(1)).status, 401, "fault {i}");
    }
    let line = server.wait_log("unknown field");
    assert!(
        line.contains("old keys stay valid") && !line.chars().any(char::is_control),
        "{line:?}"
    );
    // The name may be a secret in the wrong place.
    assert!(line.contains("unknown field …, expected `keys`"), "{line}");
}

#[test]
fn row_27_what_expires_is_said_before_and_after() {
    let (server, clients) = serve(
        &["fake:"],
        &[("past", &["--expires", "2020-01-01"]), ("far", &["--expires", "2999-01-01"])],
    );
    let line = server.wait_log("a key has expired");
    assert!(line.contains("past") && line.contains("2020-01-01"), "{line}");
    assert_eq!(clients[0].get("/v1/models").status, 401);
    assert_eq!(clients[1].get("/v1/models").status, 200);
    let file = server.home.path().join("k.toml");
    let text = fs::read_to_string(&file).unwrap();
    let soon = time::OffsetDateTime::now_utc() + Duration::from_hours(5);
    let soon = soon.format(&time::format_description::well_known::Rfc3339).unwrap();
    fs::write(&file, text.replace("2999-01-01T00:00:00Z", &soon)).unwrap();
    let line = server.wait_log("a key expires within a day");
    assert!(line.contains("far"), "{line}");
    let expired = clients[1].metric("millrace_keys{state=\"expired\"}");
    assert_eq!(expired, 1.0);
    assert_eq!(clients[1].metric("millrace_keys{state=\"expiring\"}"), 1.0);
}

#[test]
fn row_23_a_flood_of_one_key_does_not_move_the_quiet_one() {
    let args = ["fake:step_ms=40", "--max-num-seqs", "4", "--max-queue-requests", "16"];
    let (server, clients) = serve(&args, &[("loud", &[]), ("quiet", &[])]);
    let (loud, quiet) = (clients[0].clone(), &clients[1]);
    let first_token = || {
        let mut times: Vec<Duration> = (0..9)
            .map(|_| {
                let began = Instant::now();
                let mut stream = stream(quiet, 2);
                assert_eq!(stream.status, 200, "the quiet key is refused");
                stream.first();
                began.elapsed()
            })
            .collect();
        times.sort_unstable();
        times[times.len() / 2]
    };
    let idle = first_token();
    let stop = AtomicBool::new(false);
    let flooded = thread::scope(|scope| {
        for _ in 0..40 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let _ = loud.try_post("/v1/completions", &call(200).to_string());
                }
            });
        }
        let deadline = Instant::now() + PATIENCE;
        while quiet.metric("millrace_requests_rejected_total{reason=\"engine_overloaded\"}") < 1.0 {
            assert!(Instant::now() < deadline, "the queue does not fill");
            thread::yield_now();
        }
        let flooded = first_token();
        stop.store(true, Ordering::Relaxed);
        // Ends the flood's long answers at once.
        drop(server);
        flooded
    });
    assert!(flooded <= 2 * idle, "{flooded:?} under a flood, {idle:?} without");
}
