//! `millrace bench` against real servers and against some that misbehave. Times are compared with each other and with
//! what the fake model takes, never with a clock of the machine.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::{TempDir, tempdir};

use crate::support::{KEY, PATIENCE, Server, millrace, signal, wait};

/// A step takes 10 ms, and no answer ends by itself.
const SLOW: &str = "fake:vocab=512,step_ms=10";

/// The command, with the key of [`Server`].
fn bench(home: &Path) -> Command {
    let mut command = millrace(home);
    command.arg("bench").env("OPENAI_API_KEY", KEY).stdin(Stdio::null());
    command
}

/// Exit code, stdout and stderr.
fn outcome(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

/// Runs against `server` with these words, and `--json`; the table, and what was saved.
fn measured(server: &Server, home: &TempDir, words: &str) -> (String, Value) {
    let json = home.path().join("run.json");
    let mut command = bench(home.path());
    command
        .args(["--url", &server.url("")])
        .args(words.split_whitespace())
        .arg("--json")
        .arg(&json);
    let (code, out, err) = outcome(&mut command);
    assert_eq!(code, 0, "{out}{err}");
    (out, read(&json))
}

fn read(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn figure(run: &Value, name: &str) -> f64 {
    run["figures"][name].as_f64().unwrap_or_else(|| panic!("no {name} in {run:#}"))
}

#[test]
fn a_closed_loop_measures_what_the_server_does() {
    let (server, home) = (Server::start(&[SLOW]), tempdir().unwrap());
    let words = "--max-concurrency 4 --num-prompts 24 --input-len 100 --output-len 12 --ignore-eos --seed 7";
    let (table, run) = measured(&server, &home, words);
    let load = &run["load"];
    assert_eq!(
        (load["arrivals"].as_str(), load["max_concurrency"].as_u64()),
        (Some("closed"), Some(4))
    );
    assert_eq!((load["seed"].as_u64(), run["millrace_bench"].as_u64()), (Some(7), Some(1)));
    assert_eq!(
        (run["requests"]["completed"].as_u64(), run["requests"]["failed"].as_u64()),
        (Some(24), Some(0))
    );
    let number = |name: &str| run["tokens"][name].as_u64().unwrap();
    assert_eq!((number("output"), number("output_max")), (24 * 12, 12));
    // The fake model's tokens are not words, and the words are found by asking: about as many as were wanted.
    assert!(90 <= number("input_min") && number("input_max") <= 110, "{run:#}");
    // A token takes a step at least, and so does a prompt.
    for name in ["ttft_ms_p50", "itl_ms_p50", "tpot_ms_p50"] {
        assert!(figure(&run, name) >= 9.5, "{name}: {}", figure(&run, name));
    }
    for name in ["ttft", "itl", "tpot", "e2e"] {
        let of = |what: &str| figure(&run, &format!("{name}_ms_{what}"));
        assert!(of("p50") <= of("p90") && of("p90") <= of("p99") && of("p99") <= of("max"));
        assert!(of("mean") <= of("max"));
        assert!(run["standard_errors"][format!("{name}_ms_p50")].is_number(), "{run:#}");
        assert!(run["over_time"][format!("{name}_ms_p50")].as_array().unwrap().len() == 20);
    }
    let wall_s = run["wall_s"].as_f64().unwrap();
    let rate = figure(&run, "output_tokens_per_s");
    assert!((rate * wall_s - 288.0).abs() < 0.01, "{rate}");
    // Never more than the clients at once: together they cannot wait longer than the run was.
    assert!(figure(&run, "e2e_ms_mean") * 24.0 <= wall_s * 1e3 * 4.0 * 1.001);
    for part in ["24 completed, 0 failed", "12 each", "TTFT", "ITL", "TPOT", "E2E", "output tok/s"]
    {
        assert!(table.contains(part), "{part} is not in\n{table}");
    }
    assert!(table.contains('█'), "no sparkline in\n{table}");
    assert!(run.get("samples").is_none(), "samples are saved where they were asked for");
    // What the server counted: warm-up and three probes besides.
    let asked = server.client().metric("vllm:request_success_total");
    assert!(asked >= 24.0, "{asked}");
}

#[test]
fn what_the_client_sees_encloses_what_the_server_did() {
    let (server, home) = (Server::start(&[SLOW]), tempdir().unwrap());
    std::fs::write(home.path().join("p.txt"), "one\ntwo\nthree\nfour\n").unwrap();
    // No warm-up and no probes: both count the same requests.
    let words = "--prompts p.txt --num-warmups 0 --output-len 9 --ignore-eos --max-concurrency 2";
    let (_, run) = measured(&server, &home, words);
    let metric = |name: &str| server.client().metric(&format!("vllm:{name}"));
    assert_eq!(metric("time_to_first_token_seconds_count"), 4.0);
    assert_eq!(metric("inter_token_latency_seconds_count"), 4.0 * 8.0);
    let ttft_ms = metric("time_to_first_token_seconds_sum") / 4.0 * 1e3;
    let seen_ms = figure(&run, "ttft_ms_mean");
    assert!(seen_ms >= ttft_ms && ttft_ms > 0.0, "{seen_ms} ms here, {ttft_ms} ms there");
}

#[test]
fn arrivals_do_not_wait_for_answers() {
    let (server, home) = (Server::start(&[SLOW]), tempdir().unwrap());
    let words = "--request-rate 200 --num-prompts 40 --output-len 30 --ignore-eos --input-len 20 --save-detailed \
                 --goodput ttft=600000,itl=600000";
    let (table, run) = measured(&server, &home, words);
    let samples = run["samples"].as_array().unwrap();
    assert_eq!((samples.len(), run["load"]["arrivals"].as_str()), (40, Some("open")));
    let number = |sample: &Value, name: &str| sample[name].as_f64().unwrap();
    // 40 requests arrive in about 200 ms; an answer takes 300 at least. The last is sent before the first has ended,
    // unless sending itself takes long, which the server cannot cause.
    let first_end = samples.iter().map(|s| number(s, "sent_s") + number(s, "e2e_ms") / 1e3);
    let first_end = first_end.fold(f64::MAX, f64::min);
    let overlapping = samples.iter().filter(|s| number(s, "sent_s") < first_end).count();
    assert!(overlapping > 8, "{overlapping} at once");
    assert!(samples.iter().all(|s| s["itl_ms"].as_array().unwrap().len() >= 10));
    assert_eq!((&run["goodput"]["requests"], &run["goodput"]["share"]), (&40.into(), &1.0.into()));
    assert!(table.contains("goodput") && table.contains("(100.0 %)"), "{table}");
    // No request keeps to what no step can.
    let words =
        "--request-rate 200 --num-prompts 10 --output-len 4 --max-concurrency 2 --goodput ttft=0.5";
    let (table, run) = measured(&server, &home, words);
    assert_eq!(
        (&run["goodput"]["requests"], &run["goodput"]["requests_per_s"]),
        (&0.into(), &0.0.into())
    );
    assert!(run["requests"]["waited_ms_max"].as_f64().unwrap() > 0.0);
    assert!(table.contains("--max-concurrency"), "{table}");
    // The end of the time is the end of arrivals, and all answers are waited for.
    let (_, run) = measured(&server, &home, "--request-rate 100 --duration-s 0.5 --output-len 2");
    let completed = run["requests"]["completed"].as_u64().unwrap();
    assert!((15..150).contains(&completed) && run["load"]["num_prompts"].is_null(), "{completed}");
    assert_eq!(
        (&run["requests"]["failed"], &run["requests"]["unfinished"]),
        (&0.into(), &0.into())
    );
}

#[test]
fn prompts_come_from_a_file() {
    let (server, home) = (Server::start(&["fake:vocab=512"]), tempdir().unwrap());
    let write = |name: &str, text: &str| {
        std::fs::write(home.path().join(name), text).unwrap();
    };
    write("a.txt", "one\ntwo words\nthree words here\n");
    let (table, run) = measured(&server, &home, "--prompts a.txt --output-len 3");
    assert_eq!(run["requests"]["completed"].as_u64(), Some(3));
    assert!(table.contains("prompts of a.txt"), "{table}");
    write(
        "b.jsonl",
        "{\"prompt\": \"one\", \"max_tokens\": 5}\n{\"messages\": [{\"role\": \"user\", \"content\": \"two\"}]}\n",
    );
    let words = "--prompts b.jsonl --chat --output-len 3 --ignore-eos --num-prompts 4";
    let (_, run) = measured(&server, &home, words);
    let tokens = &run["tokens"];
    assert_eq!((tokens["output_min"].as_u64(), tokens["output_max"].as_u64()), (Some(3), Some(5)));
    assert_eq!(run["load"]["endpoint"], "chat");
    for (words, part) in [
        (&["--prompts", "b.jsonl"][..], "add --chat"),
        (&["--prompts", "none.txt"], "cannot read none.txt"),
        (&["--num-prompts", "0"], "--num-prompts"),
        (&["--json", "no/folder.json"], "no/folder.json"),
    ] {
        let (code, _, err) =
            outcome(bench(home.path()).args(["--url", &server.url("")]).args(words));
        assert!(code != 0 && err.contains(part), "{words:?}: {err}");
    }
}

#[test]
fn shared_prefixes_are_found_in_the_cache() {
    let (server, home) = (Server::start(&["fake:vocab=512"]), tempdir().unwrap());
    let words = "--prefix-len 400 --num-prefixes 2 --input-len 20 --output-len 2 --num-prompts 20 --max-concurrency 1";
    let (table, run) = measured(&server, &home, words);
    let tokens = &run["tokens"];
    let share = tokens["input_cached"].as_f64().unwrap() / tokens["input"].as_f64().unwrap();
    // 18 of 20 find 384 of 420 tokens.
    assert!((0.7..0.95).contains(&share), "{share}");
    assert!(table.contains("% cached") && table.contains("2 prefixes"), "{table}");
    let (_, run) = measured(&server, &home, "--input-len 420 --output-len 2 --num-prompts 10");
    let tokens = &run["tokens"];
    assert!(
        tokens["input_cached"].as_f64().unwrap_or(0.0) < 0.2 * tokens["input"].as_f64().unwrap()
    );
}

#[test]
fn two_runs_are_compared() {
    let home = tempdir().unwrap();
    let path = |name: &str| home.path().join(name);
    for (name, model) in
        [("a.json", "fake:vocab=512,step_ms=2"), ("b.json", "fake:vocab=512,step_ms=20")]
    {
        let server = Server::start(&[model]);
        measured(
            &server,
            &home,
            "--num-prompts 40 --max-concurrency 2 --input-len 20 --output-len 6 --ignore-eos",
        );
        std::fs::rename(path("run.json"), path(name)).unwrap();
    }
    let compare = |a: &str, b: &str| outcome(bench(home.path()).args(["--compare", a, b]));
    let (code, out, err) = compare("a.json", "b.json");
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let line = |name: &str| out.lines().find(|l| l.starts_with(name)).unwrap().to_owned();
    assert!(line("output_tokens_per_s").ends_with("worse"), "{out}");
    assert!(line("itl_ms_p50").ends_with("worse"), "{out}");
    assert!(!out.contains("not the same load"), "{out}");
    let (_, out, _) = compare("b.json", "a.json");
    assert!(out.lines().any(|l| l.starts_with("itl_ms_p50") && l.ends_with("better")), "{out}");
    let (_, out, _) = compare("a.json", "a.json");
    assert!(!out.contains("worse") && !out.contains("better"), "{out}");
    std::fs::write(path("c.json"), "{\"a\": 1}").unwrap();
    let (code, _, err) = compare("a.json", "c.json");
    assert!(code == 2 && err.contains("c.json"), "{err}");
    let (code, _, err) = compare("a.json", "none.json");
    assert!(code == 1 && err.contains("none.json"), "{err}");
}

#[test]
fn a_model_is_served_for_the_run_and_gone_with_it() {
    let home = tempdir().unwrap();
    let words = "--num-prompts 6 --output-len 4 --input-len 20 -- --max-num-seqs 2";
    let mut command = bench(home.path());
    // A key of the user's own is not the one of that server.
    command.arg("fake:vocab=512").args(words.split(' '));
    let (code, out, err) = outcome(&mut command);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("6 completed, 0 failed"), "{out}");
    let address =
        err.split("listening on http://").nth(1).unwrap().split([',', ' ']).next().unwrap();
    assert!(TcpStream::connect(address).is_err(), "the server still runs");
    let (code, _, err) = outcome(bench(home.path()).arg("fake:nonsense=1"));
    assert!(code == 1 && err.contains("nonsense"), "{err}");
    let (code, _, err) = outcome(&mut bench(home.path()));
    assert!(code == 2 && err.contains("--url URL"), "{err}");
}

#[test]
fn what_is_wrong_is_said_with_what_to_do() {
    let (server, home) = (Server::start(&["fake:vocab=512"]), tempdir().unwrap());
    let mut wrong = bench(home.path());
    wrong.env("OPENAI_API_KEY", "sk-wrong").args(["--url", &server.url("/v1")]);
    let (code, out, err) = outcome(&mut wrong);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("401") && err.contains("set OPENAI_API_KEY"), "{err}");
    assert!(!err.contains("sk-wrong"), "{err}");
    let mut other = bench(home.path());
    other.env("OPENAI_API_KEY", "sk-wrong").env("MILLRACE_API_KEY", KEY);
    other.args([
        "--api-key-env",
        "MILLRACE_API_KEY",
        "--num-prompts",
        "1",
        "--url",
        &server.url("/v1/"),
    ]);
    assert_eq!(outcome(&mut other).0, 0);
    let (code, _, err) =
        outcome(bench(home.path()).args(["--url", &server.url(""), "--model", "nobody"]));
    assert!(code == 1 && err.contains("nobody") && err.contains("--model"), "{err}");
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (code, _, err) = outcome(bench(home.path()).args(["--url", &format!("http://{free}")]));
    assert!(code == 1 && err.contains(&format!("cannot connect to http://{free}/v1")), "{err}");
    assert_eq!(err.lines().count(), 1, "{err}");
    let (code, _, err) = outcome(bench(home.path()).args(["--url", "localhost:8000"]));
    assert!(code == 2 && err.contains("http://127.0.0.1:8000"), "{err}");
}

/// Until the server has given so many answers, warm-up and all.
fn wait_for_answers(server: &Server, answers: f64) {
    let deadline = Instant::now() + PATIENCE;
    while server.client().metric("vllm:request_success_total") < answers {
        assert!(Instant::now() < deadline, "no load came");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// Answers of twenty tokens.
fn twenty_tokens(server: &Server, home: &Path) -> Command {
    let mut command = bench(home);
    command.args(["--url", &server.url(""), "--input-len", "20", "--output-len", "20"]);
    command.arg("--ignore-eos");
    command
}

#[test]
fn a_server_that_dies_is_counted_and_the_rest_is_told() {
    let (server, home) = (Server::start(&[SLOW]), tempdir().unwrap());
    let json = home.path().join("run.json");
    let mut command = twenty_tokens(&server, home.path());
    command.args(["--num-prompts", "60", "--max-concurrency", "3", "--json"]).arg(&json);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for_answers(&server, 12.0);
    server.signal("KILL");
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    let (out, err) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
    assert_eq!(status.code(), Some(0), "some were answered: {out}{err}");
    let run = read(&json);
    let count = |name: &str| run["requests"][name].as_u64().unwrap();
    assert!(count("completed") > 0 && count("failed") > 0, "{run:#}");
    assert_eq!(count("completed") + count("failed"), 60);
    let kinds: Vec<_> =
        run["errors"].as_array().unwrap().iter().map(|e| e["kind"].as_str().unwrap()).collect();
    assert!(kinds.contains(&"connect"), "{kinds:?}");
    assert!(out.contains(" x connect: cannot connect to"), "{out}");
}

#[test]
fn an_interrupt_shows_the_figures_so_far() {
    let (server, home) = (Server::start(&[SLOW]), tempdir().unwrap());
    let mut command = twenty_tokens(&server, home.path());
    command.args(["--duration-s", "3600", "--max-concurrency", "2"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for_answers(&server, 10.0);
    signal(&child, "INT");
    assert_eq!(wait(&mut child).code(), Some(1));
    let mut out = String::new();
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    assert!(out.contains("interrupted") && out.contains("TTFT"), "{out}");
    let mut err = String::new();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    assert!(err.contains("error: interrupted: the figures are those of"), "{err}");
}

/// A server that answers every request with these bytes; its address.
fn saying(answer: impl Fn(&str) -> String + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            let _ = serve_one(socket, &answer);
        }
    });
    format!("http://{address}")
}

fn serve_one(mut socket: TcpStream, answer: &impl Fn(&str) -> String) -> std::io::Result<()> {
    let mut reader = BufReader::new(socket.try_clone()?);
    let (mut first, mut length) = (String::new(), 0);
    reader.read_line(&mut first)?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
    }
    reader.read_exact(&mut vec![0; length])?;
    socket.write_all(answer(&first).as_bytes())
}

fn http(status: &str, kind: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nConnection: close\r\n\r\n{body}")
}

const MODELS: &str = r#"{"data": [{"id": "odd"}]}"#;

#[test]
fn servers_of_other_habits_are_understood() {
    let stream = "\u{feff}: hello\r\n\r\nevent: x\r\ndata:{\"choices\":[{\"text\":\"\",\"index\":0}]}\r\n\r\n: ping\r\n\r\n\
                  data: {\"choices\":[{\"text\":\"a\"}],\"usage\":null}\r\n\r\n\
                  data: {\"choices\":[{\"text\":\"b\",\"finish_reason\":\"length\"}]}\r\n\r\n";
    let url = saying(move |line| {
        if line.starts_with("GET") {
            return http("200 OK", "application/json", MODELS);
        }
        http("200 OK", "text/event-stream", stream)
    });
    let home = tempdir().unwrap();
    let (code, out, err) = outcome(bench(home.path()).args(["--url", &url, "--num-prompts", "3"]));
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("model odd") && out.contains("tokens out  6 (2 each, asked 64)"), "{out}");
    assert!(out.contains("note: the server told no usage"), "{out}");
}

#[test]
fn failures_are_counted_by_kind_and_never_hidden() {
    let event = |data: &str| http("200 OK", "text/event-stream", &format!("data: {data}\n\n"));
    for (answer, kind, part) in [
        (
            http(
                "503 Service Unavailable",
                "application/json",
                r#"{"error": {"message": "too\nbusy"}}"#,
            ),
            "http_503",
            "too busy",
        ),
        (event(r#"{"error": {"message": "it broke"}}"#), "error_event", "it broke"),
        (event(r#"{"choices": [{"text": "a"}]}"#), "cut", "neither a finish_reason nor [DONE]"),
        (event("<html>"), "bad_stream", "<html>"),
        (String::new(), "cut", "broke off"),
    ] {
        let url = saying(move |line| {
            if line.starts_with("GET") {
                return http("200 OK", "application/json", MODELS);
            }
            answer.clone()
        });
        let home = tempdir().unwrap();
        let prompts = home.path().join("p.txt");
        std::fs::write(&prompts, "a\nb\nc\n").unwrap();
        let mut command = bench(home.path());
        command.args(["--url", &url, "--num-warmups", "0", "--prompts", "p.txt"]);
        let (code, out, err) = outcome(&mut command);
        assert_eq!(code, 1, "{kind}: {out}{err}");
        assert!(
            out.contains("0 completed, 3 failed") && out.contains(&format!("3 x {kind}: ")),
            "{out}"
        );
        assert!(out.contains(part) && err.contains(part), "{kind}: {out}{err}");
    }
}

#[test]
fn a_server_behind_tls_is_asked_if_its_certificate_is_known() {
    let folder = tempdir().unwrap();
    let cert: PathBuf = folder.path().join("cert.pem");
    let names = ["localhost", "127.0.0.1"].map(str::to_owned).to_vec();
    let pair = rcgen::generate_simple_self_signed(names).unwrap();
    std::fs::write(folder.path().join("key.pem"), pair.signing_key.serialize_pem()).unwrap();
    std::fs::write(&cert, pair.cert.pem()).unwrap();
    let server = Server::spawn_with(&["fake:vocab=512"], |command| {
        command.env("MILLRACE_API_KEY", KEY).env("MILLRACE_SSL_CERTFILE", &cert);
        command.env("MILLRACE_SSL_KEYFILE", folder.path().join("key.pem"));
    });
    server.wait_ready();
    let url = server.url("").replace("http://", "https://");
    let mut command = bench(folder.path());
    command.args(["--url", &url, "--num-prompts", "5", "--output-len", "3"]);
    let (code, _, err) = outcome(&mut command);
    assert!(code == 1 && err.contains("certificate"), "{err}");
    let (code, out, err) = outcome(command.env("SSL_CERT_FILE", &cert));
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("5 completed, 0 failed"), "{out}");
}
