//! The server's life: start, readiness, signals, and what it says of itself.

use std::process::Command;

use millrace::backend::Coded;
use millrace::model::load::gguf::testing::{tiny_llama, type_number};
use serde_json::json;

use crate::client::Client;
use crate::support::{FAKE, KEY, Server, millrace};

#[test]
fn row_07_it_is_live_while_it_loads_and_ready_afterwards() {
    let server = Server::start_unready(&["fake:load_ms=700"]);
    assert_eq!(server.client_with("").get("/health/live").status, 200);
    assert_eq!(server.client_with("").get("/health/ready").status, 503);
    let refused = server.client().complete(&json!({"model": "fake", "prompt": "a"}));
    assert_eq!(refused.status, 503);
    assert_eq!(refused.error("code"), "model_loading");
    assert!(refused.header("retry-after").is_some());
    server.wait_ready();
    assert_eq!(server.client_with("").get("/health/ready").status, 200);
    let check = ["healthcheck", "--url", &server.url("")];
    assert!(millrace(server.home.path()).args(check).status().unwrap().success());
}

#[test]
fn health_and_metrics_can_have_an_address_of_their_own() {
    let mut server = Server::start(&[FAKE, "--admin-listen", "127.0.0.1:0"]);
    let line = server.wait_log("health and metrics on http://");
    let address = line.split("health and metrics on http://").nth(1).unwrap();
    let address = address.split(',').next().unwrap();
    let admin = |key: &str| Client { addr: address.parse().unwrap(), key: key.to_owned() };
    for path in ["/health", "/health/live", "/health/ready", "/metrics"] {
        assert_eq!(admin("").get(path).status, 200, "{path}");
        // As any path that does not exist.
        assert_eq!(server.client_with("").get(path).status, 401, "{path}");
        assert_eq!(server.client().get(path).status, 404, "{path}");
    }
    for path in ["/", "/docs", "/openapi.json", "/v1/models"] {
        assert_eq!(admin("").get(path).status, 401, "{path}");
        assert_eq!(admin(KEY).get(path).status, 404, "{path}");
        assert_eq!(server.client().get(path).status, 200, "{path}");
    }
    let check = ["healthcheck", "--url", &format!("http://{address}")];
    assert!(millrace(server.home.path()).args(check).status().unwrap().success());
    let mut check = millrace(server.home.path());
    check.arg("healthcheck").env("MILLRACE_ADMIN_LISTEN", address);
    assert!(check.status().unwrap().success());
    // Neither keeps it from ending.
    server.terminate();
    assert_eq!(server.wait(), Some(0));
}

#[test]
fn the_banner_says_what_is_served_and_how_to_use_it() {
    let server = Server::start(&[FAKE, "--kv-cache-memory", "64MiB"]);
    server.wait_log("OpenAI(");
    let log = server.log();
    for part in [&server.url("/v1"), "fake", "tokens", "MILLRACE_API_KEY", "curl ", "OpenAI("] {
        assert!(log.contains(part), "{part} not in\n{log}");
    }
    assert!(!log.contains(KEY));
}

#[test]
fn types_that_become_others_are_told_of_in_one_line() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("model.gguf");
    let mut w = tiny_llama();
    for part in ["attn_q", "attn_output", "ffn_up"] {
        let tensor = w.tensor(&format!("blk.1.{part}.weight"));
        let nibbles = tensor.data.len() / 4 / 2;
        (tensor.kind, tensor.data) = (type_number(Coded::Iq4Nl), vec![0x15; nibbles / 16 * 18]);
    }
    w.write(&path).unwrap();
    let server = Server::start(&[path.to_str().unwrap(), "--kv-cache-memory", "1MiB"]);
    let log = server.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("IQ4_NL")).collect();
    assert!(lines.len() == 1 && lines[0].contains("WARN"), "{log}");
    assert!(lines[0].contains("IQ4_NL (3 tensors) as codes of 4 bits"), "{log}");
    let model = server.client().get("/v1/models").json()["data"][0]["id"].clone();
    let answer = server.client().complete(&json!({"model": model, "prompt": "a", "max_tokens": 3}));
    assert_eq!(answer.status, 200, "{}", answer.json());
}

#[test]
fn its_curl_line_works_when_pasted() {
    let server = Server::start(&[FAKE]);
    server.wait_log("curl ");
    let log = server.log();
    let line = log.lines().find(|l| l.trim().starts_with("curl ")).unwrap();
    let out = Command::new("sh").arg("-c").arg(line).env("MILLRACE_API_KEY", KEY).output().unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(answer["object"], "text_completion", "{answer}");
}

#[test]
fn with_json_logs_every_line_is_json() {
    let server = Server::start(&[FAKE, "--log-format", "json"]);
    assert_eq!(server.client().get("/v1/models").status, 200);
    for line in server.log().lines() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(event["level"].is_string(), "{line}");
    }
}

#[test]
fn a_signal_while_it_loads_or_idles_ends_it_with_0() {
    for signal in ["TERM", "INT"] {
        let mut server = Server::start_unready(&["fake:load_ms=60000"]);
        server.signal(signal);
        assert_eq!(server.wait(), Some(0), "{}", server.log());
        let mut server = Server::start(&[FAKE]);
        server.signal(signal);
        assert_eq!(server.wait(), Some(0), "{}", server.log());
    }
}

#[test]
fn a_signal_while_it_fetches_leaves_nothing_behind() {
    let home = tempfile::tempdir().unwrap();
    let python = home.path().join("python");
    let script = "#!/bin/sh\nwhile [ \"$1\" != --dest ]; do shift; done\n\
                  echo half > \"$2/half.whl\"; echo started > \"$FIFO\"; exec sleep 1000\n";
    std::fs::write(&python, script).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&python, mode).unwrap();
    let fifo = home.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let models = home.path().join("models");
    let args = ["smollm2-135m-instruct", "--model-dir", models.to_str().unwrap()];
    let mut server = Server::spawn_with(&args, |command| {
        command.env("MILLRACE_API_KEY", KEY).env("MILLRACE_PYTHON", &python).env("FIFO", &fifo);
    });
    assert_eq!(std::fs::read_to_string(&fifo).unwrap(), "started\n");
    assert_eq!(server.client_with("").get("/health/ready").status, 503);
    server.signal("TERM");
    assert_eq!(server.wait(), Some(0));
    let left = std::fs::read_dir(&models).unwrap().map(|e| e.unwrap().file_name());
    let left: Vec<_> = left.filter(|n| !n.to_str().unwrap().contains(".lock")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn row_26_no_memory_of_it_would_be_in_a_core_dump() {
    let server = Server::start(&[FAKE]);
    let filter = format!("/proc/{}/coredump_filter", server.pid());
    assert_eq!(std::fs::read_to_string(filter).unwrap().trim(), "00000000");
}

#[test]
fn row_27_keys_of_a_file_that_is_open_to_all_are_refused() {
    use std::os::unix::fs::PermissionsExt;
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("k.toml");
    let add = ["keys", "add", "a", "--file", "k.toml"];
    assert!(millrace(home.path()).args(add).output().unwrap().status.success());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let serve = ["serve", FAKE, "--port", "0", "--api-key-file", "k.toml"];
    let out = millrace(home.path()).args(serve).output().unwrap();
    assert_eq!(out.status.code(), Some(2));
    let err = String::from_utf8(out.stderr).unwrap();
    assert!(err.lines().any(|l| l.starts_with("error: ") && l.contains("k.toml")), "{err}");
}

#[test]
fn a_key_from_keys_add_opens_the_door() {
    let home = tempfile::tempdir().unwrap();
    let add = ["keys", "add", "a", "--file", "k.toml"];
    let out = millrace(home.path()).args(add).output().unwrap();
    let secret = String::from_utf8(out.stdout).unwrap();
    let file = home.path().join("k.toml");
    let server = Server::spawn_with(&[FAKE, "--api-key-file", file.to_str().unwrap()], |_| {});
    server.wait_ready();
    let ask = |key: &str| server.client_with(key).get("/v1/models").status;
    assert_eq!(ask(secret.trim()), 200);
    assert_eq!(ask(KEY), 401);
}
