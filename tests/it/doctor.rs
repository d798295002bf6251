//! `millrace doctor`: what it sees, what it says to change, and whether it would serve.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::{TempDir, tempdir};

use crate::support::{BIN, FAKE, clean, millrace};

/// Exit code, and the report.
fn examined(command: &mut Command) -> (i32, Value) {
    let Output { status, stdout, stderr } = command.arg("--json").output().unwrap();
    let report = serde_json::from_slice(&stdout);
    let report = report.unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&stderr)));
    (status.code().unwrap(), report)
}

/// Without the speed test, on a port that is free, with a key.
fn doctor(home: &TempDir, args: &[&str]) -> (i32, Value) {
    let mut command = millrace(home.path());
    command.env("MILLRACE_API_KEY", "sk-canary");
    examined(command.args(["doctor", "--port", "0", "--no-speed-test"]).args(args))
}

fn check<'a>(report: &'a Value, name: &str) -> &'a Value {
    let checks = report["checks"].as_array().unwrap();
    checks.iter().find(|c| c["name"] == name).unwrap_or_else(|| panic!("no {name} in {report:#}"))
}

/// The state of a check, and that what it says to change is in the list of all and has these parts.
fn assert_says(report: &Value, name: &str, state: &str, parts: &[&str]) {
    let check = check(report, name);
    assert_eq!(check["state"], state, "{check:#}");
    let own = check["change"].as_array().unwrap();
    let all = report["change"].as_array().unwrap();
    assert!(own.iter().all(|change| all.contains(change)), "{report:#}");
    let said = own.iter().map(|c| c.as_str().unwrap()).collect::<Vec<_>>().join(" ");
    for part in parts {
        assert!(said.contains(part), "{part} not in {said}");
    }
}

fn tiny() -> String {
    let file = "tests/models/llama/model.gguf";
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file).to_str().unwrap().to_owned()
}

#[test]
fn what_would_serve_is_0_and_measured() {
    let home = tempdir().unwrap();
    let mut command = millrace(home.path());
    command.env("MILLRACE_API_KEY", "sk-canary").args(["doctor", FAKE, "--port", "0"]);
    let (code, report) = examined(&mut command);
    assert_eq!(code, 0, "{report:#}");
    assert_eq!(report["would_serve"], true);
    for name in ["processor", "kernels", "memory", "clock", "address", "keys", "model", "speed"] {
        assert_ne!(check(&report, name)["state"], "fail", "{report:#}");
    }
    let speed = &report["speed"];
    for rate in [
        &speed["prompt_tokens_per_s"],
        &speed["decode_tokens_per_s"]["1"],
        &speed["decode_tokens_per_s"]["8"],
    ] {
        assert!(rate.as_f64().unwrap() > 0.0, "{speed}");
    }
    assert!(!report.to_string().contains("canary"));
}

#[test]
fn the_text_ends_with_what_to_change() {
    let home = tempdir().unwrap();
    let text = |key: Option<&str>| {
        let mut command = millrace(home.path());
        command.args(["doctor", FAKE, "--port", "0", "--no-speed-test"]);
        if let Some(key) = key {
            command.env("MILLRACE_API_KEY", key);
        }
        let Output { status, stdout, stderr } = command.output().unwrap();
        assert_eq!(String::from_utf8(stderr).unwrap(), "");
        (status.code().unwrap(), String::from_utf8(stdout).unwrap())
    };
    let (code, out) = text(Some("sk-x"));
    assert!(code == 0 && out.contains("\nIt would serve") && out.contains("  keys "), "{out}");
    let (code, out) = text(None);
    assert_eq!(code, 2);
    assert!(
        out.contains("\nX keys ") && out.contains("What to change:\n  1. Make a key:"),
        "{out}"
    );
}

#[test]
fn a_configuration_that_is_wrong_is_told_with_every_fault() {
    let home = tempdir().unwrap();
    let (code, report) = doctor(&home, &[FAKE, "--kernels", "avx9", "--max-n", "0"]);
    assert_eq!(code, 2);
    let faults = report["checks"].as_array().unwrap().iter().filter(|c| c["name"] == "setting");
    assert_eq!(faults.count(), 2, "{report:#}");
    assert_says(&report, "setting", "fail", &["--max-n"]);
    assert!(report["change"].to_string().contains("the nearest is avx2"), "{report:#}");
}

#[test]
fn a_port_that_is_taken_is_told_with_the_way_out() {
    let home = tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let mut command = millrace(home.path());
    command.env("MILLRACE_API_KEY", "sk-x").args([
        "doctor",
        FAKE,
        "--no-speed-test",
        "--port",
        &port,
    ]);
    let (code, report) = examined(&mut command);
    assert_eq!(code, 2);
    assert_says(&report, "address", "fail", &[&port, "ss -ltnp", "--port"]);
    let admin = format!("127.0.0.1:{port}");
    let (code, report) = doctor(&home, &[FAKE, "--admin-listen", &admin]);
    assert_eq!(code, 2);
    assert_says(&report, "address", "fail", &["--admin-listen"]);
    let (_, report) = doctor(&home, &[FAKE, "--host", "192.0.2.1"]);
    assert_says(&report, "address", "fail", &["192.0.2.1", "--host"]);
}

#[test]
fn key_files_are_read_and_their_rights_looked_at() {
    let home = tempdir().unwrap();
    let file = home.path().join("k.toml");
    let path = file.to_str().unwrap();
    let alone = |home: &TempDir| {
        let mut command = millrace(home.path());
        let args = ["doctor", FAKE, "--port", "0", "--no-speed-test", "--api-key-file", path];
        examined(command.args(args))
    };
    let (code, report) = alone(&home);
    assert_eq!(code, 2);
    assert_says(&report, "keys", "fail", &["millrace keys add NAME --file"]);
    for args in [&["a"][..], &["b", "--expires", "2020-01-01"]] {
        let mut add = millrace(home.path());
        assert!(
            add.args(["keys", "add", "--file", path]).args(args).output().unwrap().status.success()
        );
    }
    let (code, report) = alone(&home);
    assert_eq!((code, &report["would_serve"]), (0, &Value::Bool(true)));
    assert_eq!(check(&report, "keys")["facts"], serde_json::json!({"usable": 1, "expired": 1}));
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666)).unwrap();
    let (code, report) = alone(&home);
    assert_eq!(code, 2);
    assert_says(&report, "keys", "fail", &["chmod 600", path]);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o660)).unwrap();
    assert_says(&alone(&home).1, "keys", "warn", &["chmod 600", path]);
    assert!(
        millrace(home.path())
            .args(["keys", "revoke", "a", "--file", path])
            .output()
            .unwrap()
            .status
            .success()
    );
    assert_says(&alone(&home).1, "keys", "warn", &["No key is left"]);
    std::fs::write(&file, "nonsense").unwrap();
    assert_eq!(alone(&home).0, 2);
}

#[test]
fn certificates_are_read_and_their_end_is_seen() {
    let home = tempdir().unwrap();
    let (cert, key) = (home.path().join("c.pem"), home.path().join("k.pem"));
    let write = |last: (i32, u8, u8), key_of: Option<&rcgen::KeyPair>| {
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(last.0, last.1, last.2);
        let own = rcgen::KeyPair::generate().unwrap();
        std::fs::write(&cert, params.self_signed(&own).unwrap().pem()).unwrap();
        std::fs::write(&key, key_of.unwrap_or(&own).serialize_pem()).unwrap();
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    let look = || {
        let files = [cert.to_str().unwrap(), key.to_str().unwrap()];
        doctor(&home, &[FAKE, "--ssl-certfile", files[0], "--ssl-keyfile", files[1]])
    };
    write((2099, 1, 1), None);
    let (code, report) = look();
    assert_eq!(code, 0, "{report:#}");
    assert_says(&report, "TLS", "ok", &[]);
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert_says(&look().1, "TLS", "warn", &["chmod 600"]);
    write((2021, 1, 1), None);
    let (code, report) = look();
    assert_eq!(code, 0);
    assert_says(&report, "TLS", "warn", &["has expired"]);
    write((2099, 1, 1), Some(&rcgen::KeyPair::generate().unwrap()));
    let (code, report) = look();
    assert_eq!(code, 2);
    assert_says(&report, "TLS", "fail", &["--ssl-certfile"]);
}

#[test]
fn models_are_found_or_it_is_told_how_to_get_them() {
    let home = tempdir().unwrap();
    let (code, report) = doctor(&home, &["smollm2-135m-instruct"]);
    assert_eq!(code, 0);
    assert_says(&report, "model", "warn", &["millrace pull smollm2-135m-instruct"]);
    let (code, report) = doctor(&home, &["smollm2-135m-instruct", "--offline"]);
    assert_eq!(code, 2);
    assert_says(&report, "model", "fail", &["millrace pull smollm2-135m-instruct", "--offline"]);
    let (code, report) = doctor(&home, &["./none.gguf"]);
    assert_eq!(code, 2);
    assert_says(&report, "model", "fail", &["./none.gguf", "--model-dir"]);
    std::fs::File::create(home.path().join("bad.gguf")).unwrap().write_all(b"GGUF").unwrap();
    let (code, report) = doctor(&home, &["bad.gguf"]);
    assert_eq!(code, 2);
    assert_says(&report, "model", "fail", &["bad.gguf"]);
}

#[test]
fn the_memory_plan_is_held_against_the_machine() {
    let home = tempdir().unwrap();
    let model = tiny();
    let (code, report) = doctor(&home, &[&model]);
    assert_eq!(code, 0, "{report:#}");
    let plan = &check(&report, "plan")["facts"];
    assert!(
        plan["weights_bytes"].as_u64().unwrap() > 0 && plan["kv_cache_bytes"].as_u64().unwrap() > 0
    );
    let (code, report) = doctor(&home, &[&model, "--kv-cache-memory", "900TiB"]);
    assert_eq!(code, 2);
    assert_says(&report, "plan", "fail", &["--kv-cache-memory"]);
    let (code, report) = doctor(&home, &[&model, "--kv-cache-memory", "1"]);
    assert_eq!(code, 2);
    assert_says(&report, "model", "fail", &["option"]);
    let (code, report) = doctor(&home, &[&model, "--max-model-len", "100000000"]);
    assert_eq!(code, 2);
    assert_says(&report, "model", "fail", &["option"]);
}

#[test]
fn limits_of_the_process_are_held_against_the_settings() {
    let home = tempdir().unwrap();
    let mut shell = clean("sh", home.path());
    shell.env("MILLRACE_API_KEY", "sk-x").args(["-c", "ulimit -n 200; exec \"$0\" \"$@\"", BIN]);
    let args = ["doctor", FAKE, "--port", "0", "--no-speed-test", "--threads", "900"];
    let (code, report) = examined(shell.args(args));
    assert_eq!(code, 0, "{report:#}");
    assert_says(&report, "open files", "warn", &["200", "--max-connections 136"]);
    assert_says(&report, "processor", "warn", &["--threads"]);
    let (_, report) = doctor(&home, &[FAKE, "--kernels", "scalar"]);
    // Where nothing is better, nothing is to be changed to it.
    if check(&report, "kernels")["facts"]["best"] != "scalar" {
        assert_says(&report, "kernels", "warn", &["--kernels auto"]);
    }
    let (code, report) = doctor(&home, &[FAKE, "--kernels", "neon"]);
    assert_eq!(code, 2);
    assert_says(&report, "kernels", "fail", &["--kernels auto"]);
}

#[test]
fn what_runs_through_candle_transformers_would_be_served_too() {
    let home = tempdir().unwrap();
    let phi = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/phi");
    let (code, report) = doctor(&home, &[phi.to_str().unwrap()]);
    assert_eq!(
        (code, &check(&report, "model")["facts"]["arch"]),
        (0, &Value::from("phi")),
        "{report:#}"
    );
}

#[test]
fn two_addresses_that_are_one_are_seen() {
    let home = tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = millrace(home.path());
    let admin = format!("127.0.0.1:{port}");
    command.env("MILLRACE_API_KEY", "sk-canary").args(["doctor", FAKE, "--no-speed-test"]);
    let (code, report) =
        examined(command.args(["--port", &port.to_string(), "--admin-listen", &admin]));
    assert_eq!(code, 2, "{report:#}");
    assert_says(&report, "address", "fail", &["--admin-listen"]);
}

/// What the server can do without is told, and no reason not to serve.
#[test]
fn a_store_and_a_collector_that_are_away_are_told() {
    let home = tempdir().unwrap();
    // Nothing listens there.
    let nobody = "127.0.0.1:9";
    let (store, collector) = (format!("redis://:canary@{nobody}/0"), format!("http://{nobody}"));
    let mut command = millrace(home.path());
    command.env("MILLRACE_API_KEY", "sk-canary").env("MILLRACE_RATE_LIMIT_STORE", store);
    let args = ["doctor", FAKE, "--port", "0", "--no-speed-test", "--otlp-endpoint", &collector];
    let (code, report) = examined(command.args(args));
    assert_eq!(code, 0, "{report:#}");
    assert_says(&report, "limit store", "warn", &["--rate-limit-store", "by itself"]);
    assert_says(&report, "collector", "warn", &["--otlp-endpoint", "dropped"]);
    for name in ["limit store", "collector"] {
        let text = check(&report, name)["text"].as_str().unwrap();
        assert!(text.contains(nobody) && text.contains("refused"), "{text}");
    }
    assert!(!report.to_string().contains("canary"), "{report:#}");
}
