//! The API over TLS, asked by curl.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Instant;

use serde_json::Value;

use crate::support::{FAKE, KEY, PATIENCE, Server, millrace};

/// A new certificate for this machine's names, and its key.
fn certify(folder: &Path) {
    let names = ["localhost", "127.0.0.1"].map(str::to_owned).to_vec();
    let pair = rcgen::generate_simple_self_signed(names).unwrap();
    fs::write(folder.join("key.pem"), pair.signing_key.serialize_pem()).unwrap();
    fs::write(folder.join("cert.pem"), pair.cert.pem()).unwrap();
}

fn start(folder: &Path) -> Server {
    certify(folder);
    let server = Server::spawn_with(&[FAKE], |command| {
        command.env("MILLRACE_API_KEY", KEY);
        command.env("MILLRACE_SSL_CERTFILE", folder.join("cert.pem"));
        command.env("MILLRACE_SSL_KEYFILE", folder.join("key.pem"));
    });
    server.wait_ready();
    server
}

fn url(server: &Server, path: &str) -> String {
    server.url(path).replace("http://", "https://")
}

/// Trusts the certificate that is in the folder now.
fn curl(folder: &Path, args: &[&str]) -> Output {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--noproxy", "*", "--cacert"])
        .arg(folder.join("cert.pem"));
    curl.args([
        "-H",
        "Content-Type: application/json",
        "-H",
        &format!("Authorization: Bearer {KEY}"),
    ]);
    curl.args(args).output().unwrap()
}

fn said(output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {error}", output.status);
    String::from_utf8(output.stdout.clone()).unwrap()
}

const BODY: &str =
    r#"{"model": "fake", "prompt": "a", "max_tokens": 40, "ignore_eos": true, "seed": 1}"#;

#[test]
fn both_versions_of_http_say_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = start(folder.path());
    let completions = url(&server, "/v1/completions");
    let stream = BODY.replace('{', r#"{"stream": true, "#);
    let mut texts = Vec::new();
    for (version, number) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let shown = ["-w", "\n%{http_version}"];
        let whole = said(&curl(
            folder.path(),
            &[&[version, "-d", BODY, &completions], &shown[..]].concat(),
        ));
        let (body, shown) = whole.rsplit_once('\n').unwrap();
        assert_eq!(shown, number);
        let body: Value = serde_json::from_str(body).unwrap();
        texts.push(body["choices"][0]["text"].as_str().unwrap().to_owned());
        let events = said(&curl(folder.path(), &[version, "-d", &stream, &completions]));
        assert!(events.ends_with("data: [DONE]\n\n"), "{events}");
        let parts = events.split("\n\n").filter_map(|e| e.strip_prefix("data: {"));
        let parts = parts.map(|e| serde_json::from_str::<Value>(&format!("{{{e}")).unwrap());
        texts.push(parts.map(|e| e["choices"][0]["text"].as_str().unwrap().to_owned()).collect());
        let refused = said(&curl(folder.path(), &[version, "-d", "{", &completions]));
        assert!(refused.contains("invalid_request_error"), "{refused}");
    }
    assert!(texts.iter().all(|text| *text == texts[0] && !text.is_empty()), "{texts:?}");
    server.terminate();
    assert_eq!(server.wait(), Some(0));
}

#[test]
fn one_connection_carries_many_requests_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path());
    let completions = url(&server, "/v1/completions");
    let urls = [completions.as_str(); 30];
    let options = [
        "--http2",
        "--parallel",
        "--parallel-max",
        "30",
        "-w",
        "%{num_connects}\n",
        "-o",
        "/dev/null",
    ];
    // An output for each address.
    let outputs: Vec<&str> = (1..30).flat_map(|_| ["-o", "/dev/null"]).collect();
    let connects =
        said(&curl(folder.path(), &[&options[..], &outputs, &["-d", BODY], &urls].concat()));
    assert_eq!(connects.lines().count(), 30);
    assert!(connects.lines().filter(|line| *line != "0").count() < 10, "{connects}");
    let metrics = said(&curl(folder.path(), &[&url(&server, "/metrics")]));
    let done = "finished_reason=\"length\"} 30";
    assert!(metrics.contains(done), "{metrics}");
}

#[test]
fn a_new_certificate_is_shown_without_a_restart_and_a_bad_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path());
    let health = url(&server, "/health");
    let is_trusted = || curl(folder.path(), &[&health]).status.success();
    assert!(is_trusted());
    certify(folder.path());
    let until = Instant::now() + PATIENCE;
    while !is_trusted() {
        assert!(Instant::now() < until, "{}", server.log());
    }
    fs::write(folder.path().join("key.pem"), "no key").unwrap();
    server.wait_log("certificate not reloaded");
    assert!(is_trusted(), "the old one is gone");
}

#[test]
fn who_speaks_no_tls_is_dropped_and_harms_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path());
    let plain =
        Command::new("curl").args(["--silent", "--noproxy", "*", &server.url("/health")]).output();
    assert!(!plain.unwrap().status.success());
    let untrusting = Command::new("curl")
        .args(["--silent", "--noproxy", "*", &url(&server, "/health")])
        .output();
    assert!(!untrusting.unwrap().status.success());
    assert!(curl(folder.path(), &[&url(&server, "/health")]).status.success());
}

#[test]
fn healthcheck_asks_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path());
    let check = ["healthcheck", "--url", &url(&server, "")];
    assert!(millrace(server.home.path()).args(check).status().unwrap().success());
    let port = server.url("").rsplit(':').next().unwrap().to_owned();
    let mut check = millrace(server.home.path());
    check.arg("healthcheck").env("MILLRACE_PORT", port);
    check.env("MILLRACE_SSL_CERTFILE", folder.path().join("cert.pem"));
    check.env("MILLRACE_SSL_KEYFILE", folder.path().join("key.pem"));
    assert!(check.status().unwrap().success());
}

#[test]
fn what_is_no_pair_is_said_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    certify(folder.path());
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    fs::copy(path("key.pem"), path("other.pem")).unwrap();
    certify(folder.path());
    fs::write(path("empty.pem"), "").unwrap();
    fs::write(path("long.pem"), vec![b'x'; (1 << 20) + 1]).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(path("pipe.pem")).status().unwrap().success());
    let (cert, key) =
        ["cert.pem", "key.pem"].map(|name| fs::read_to_string(path(name)).unwrap()).into();
    fs::write(path("cut.pem"), &cert[..cert.len() / 2]).unwrap();
    fs::write(path("spoilt.pem"), cert.replacen("\nMII", "\nM!!", 1)).unwrap();
    // Base64 still, but of nothing.
    fs::write(path("void.pem"), cert.replacen("\nMII", "\nAAA", 1)).unwrap();
    fs::write(path("two.pem"), format!("{cert}{}", cert.replacen("\nMII", "\nAAA", 1))).unwrap();
    fs::write(path("cut-key.pem"), &key[..key.len() / 2]).unwrap();
    fs::write(path("void-key.pem"), key.replacen("\nMI", "\nAA", 1)).unwrap();
    for (form, name) in [("pkcs8", "locked.pem"), ("ec", "old-locked.pem")] {
        let mut openssl = Command::new("openssl");
        match form {
            "pkcs8" => openssl.args(["pkcs8", "-topk8", "-passout", "pass:secret"]),
            _ => openssl.args(["ec", "-aes128", "-passout", "pass:secret"]),
        };
        openssl.args(["-in", &path("key.pem"), "-out", &path(name)]);
        assert!(openssl.output().unwrap().status.success());
    }
    for (cert, key, says) in [
        ("cut.pem", "key.pem", "cut.pem: a certificate has no end: it was cut"),
        ("spoilt.pem", "key.pem", "spoilt.pem: a certificate is broken"),
        ("void.pem", "key.pem", "void.pem: certificate 1 of 1 is broken"),
        ("two.pem", "key.pem", "two.pem: certificate 2 of 2 is broken"),
        ("key.pem", "key.pem", "key.pem: no certificate in PEM form"),
        ("cert.pem", "cert.pem", "cert.pem: no private key in PEM form"),
        ("cert.pem", "cut-key.pem", "cut-key.pem: a private key has no end: it was cut"),
        ("cert.pem", "void-key.pem", "void-key.pem: it is no key that can be used"),
        ("cert.pem", "locked.pem", "locked.pem: the key is encrypted"),
        ("cert.pem", "old-locked.pem", "old-locked.pem: the key is encrypted"),
        ("cert.pem", "none.pem", "none.pem"),
        ("empty.pem", "key.pem", "no certificate"),
        ("cert.pem", "empty.pem", "empty.pem: no private key in PEM form"),
        ("cert.pem", "other.pem", "do not go together"),
        ("pipe.pem", "key.pem", "pipe.pem: it is not a file"),
        ("cert.pem", "pipe.pem", "pipe.pem: it is not a file"),
        ("long.pem", "key.pem", "long.pem: it has more than"),
        ("cert.pem", "", "ssl-keyfile is missing"),
    ] {
        let mut serve = millrace(folder.path());
        serve.env("MILLRACE_API_KEY", KEY).args(["serve", FAKE, "--port", "0"]);
        serve.args(["--ssl-certfile", &path(cert)]);
        if !key.is_empty() {
            serve.args(["--ssl-keyfile", &path(key)]);
        }
        let out = serve.output().unwrap();
        let error = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(2), "{cert} {key}: {error}");
        assert!(error.contains(says), "{cert} {key}: {error}");
    }
}
