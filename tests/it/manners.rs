//! How the commands behave towards people and scripts: bars on terminals, lines elsewhere, silence where it is asked for.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Instant;

use tempfile::{TempDir, tempdir};

use crate::support::{BIN, FAKE, PATIENCE, Server, clean, millrace, signal};

fn tiny() -> String {
    let file = "tests/models/llama/model.gguf";
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file).to_str().unwrap().to_owned()
}

/// What a command shows on a terminal.
fn on_terminal(home: &TempDir, line: &str, env: &[(&str, &str)]) -> String {
    let mut script = clean("script", home.path());
    script.args(["-q", "-e", "-c", line, "/dev/null"]).stdin(Stdio::null());
    script.env("TERM", "xterm").env("MILLRACE_API_KEY", "sk-x").env_remove("NO_COLOR");
    script.envs(env.iter().copied());
    let Output { stdout, .. } = script.output().unwrap();
    String::from_utf8_lossy(&stdout).into_owned()
}

/// Serves on a free port until it is ready, then ends it: exit code and stderr.
fn served(home: &TempDir, args: &[&str], env: &[(&str, &str)]) -> (Option<i32>, String) {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = millrace(home.path());
    command.env("MILLRACE_API_KEY", "sk-x").envs(env.iter().copied()).args(["serve", "--port"]);
    command.arg(free.to_string()).args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child: Child = command.spawn().unwrap();
    let begin = Instant::now();
    let ready = || {
        let url = format!("http://127.0.0.1:{free}");
        let mut ask = millrace(home.path());
        ask.args(["healthcheck", "--url", &url]).output().unwrap().status.success()
    };
    while !ready() && begin.elapsed() < PATIENCE {
        std::thread::yield_now();
    }
    signal(&child, "TERM");
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    assert!(stdout.is_empty());
    (status.code(), String::from_utf8(stderr).unwrap())
}

#[test]
fn quiet_leaves_nothing_but_errors() {
    let home = tempdir().unwrap();
    assert_eq!(served(&home, &[FAKE, "--quiet"], &[]), (Some(0), String::new()));
    assert_eq!(served(&home, &[&tiny(), "-q"], &[]), (Some(0), String::new()));
    assert_eq!(served(&home, &[FAKE], &[("MILLRACE_QUIET", "1")]), (Some(0), String::new()));
    // A flag wins over the environment, and a level that is asked for over what quiet means.
    let (code, err) = served(&home, &[FAKE, "--quiet=false"], &[("MILLRACE_QUIET", "1")]);
    assert!(code == Some(0) && err.contains("ready to serve"), "{err}");
    let (code, err) = served(&home, &[FAKE, "--quiet", "--log-level", "info"], &[]);
    assert!(code == Some(0) && err.contains("stopping") && !err.contains("curl"), "{err}");
    let out = |args: &[&str]| millrace(home.path()).args(args).output().unwrap();
    let none = out(&["serve", "./none.gguf", "--quiet"]);
    assert_eq!(none.status.code(), Some(2), "no key");
    assert!(String::from_utf8_lossy(&none.stderr).starts_with("error: no keys"));
}

#[test]
fn quiet_is_an_option_of_every_command() {
    let home = tempdir().unwrap();
    let out = |args: &[&str]| {
        let Output { status, stdout, stderr } = millrace(home.path()).args(args).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (status.code().unwrap(), text(stdout), text(stderr))
    };
    let (code, key, err) = out(&["--quiet", "keys", "add", "a", "--file", "k.toml"]);
    assert!(code == 0 && key.starts_with("sk-") && err.is_empty(), "{err}");
    let (code, _, err) = out(&["keys", "revoke", "a", "--file", "k.toml", "-q"]);
    assert_eq!((code, err.as_str()), (0, ""));
    let (code, _, err) = out(&["keys", "revoke", "a", "--file", "k.toml", "-q"]);
    assert!(code == 1 && err.contains("there is no key"), "{err}");
    let (_, config, err) = out(&["check-config", "--quiet"]);
    let line = config.lines().find(|l| l.starts_with("quiet = ")).unwrap();
    assert!(line.contains("true") && line.ends_with("# --quiet") && err.is_empty(), "{line} {err}");
    let (code, _, err) = out(&["check-config", "--quiet=perhaps"]);
    assert!(code == 2 && err.contains("perhaps"), "{err}");
    std::fs::write(home.path().join("c.toml"), "quiet = true\n").unwrap();
    let (_, config, err) = out(&["check-config", "--config", "c.toml"]);
    assert!(config.contains("# c.toml:1") && err.is_empty(), "{err}");
}

#[test]
fn loading_is_a_bar_on_a_terminal_and_lines_elsewhere() {
    let home = tempdir().unwrap();
    let doctor = format!("'{BIN}' doctor '{}' --port 0 --kv-cache-memory 1MiB", tiny());
    let (bar, dumb, quiet, piped) = std::thread::scope(|scope| {
        let bar = scope.spawn(|| on_terminal(&home, &doctor, &[]));
        let dumb = scope.spawn(|| on_terminal(&home, &doctor, &[("TERM", "dumb")]));
        let quiet = scope.spawn(|| on_terminal(&home, &format!("{doctor} --quiet"), &[]));
        let piped =
            scope.spawn(|| on_terminal(&home, &format!("{doctor} 2>err >out; cat err"), &[]));
        (bar.join().unwrap(), dumb.join().unwrap(), quiet.join().unwrap(), piped.join().unwrap())
    });
    assert!(bar.contains("loading [") && bar.contains('%'), "{bar:?}");
    // It is gone when the next line comes.
    assert!(!bar.trim_end().lines().last().unwrap().contains("loading ["), "{bar:?}");
    for plain in [&dumb, &piped] {
        assert!(plain.contains("loading: 1 MB") && !plain.contains("loading ["), "{plain:?}");
        assert!(!plain.contains('\u{1b}'), "{plain:?}");
    }
    assert!(!quiet.contains("loading") && quiet.contains("It would"), "{quiet:?}");
}

#[test]
fn colours_are_for_terminals_whose_user_wants_them() {
    let home = tempdir().unwrap();
    let help = format!("'{BIN}' --help");
    assert!(on_terminal(&home, &help, &[]).contains("\u{1b}["));
    assert!(!on_terminal(&home, &help, &[("NO_COLOR", "1")]).contains('\u{1b}'));
    let mut piped = Command::new(BIN);
    let Output { stdout, .. } = piped.arg("--help").env_remove("CLICOLOR_FORCE").output().unwrap();
    assert!(!String::from_utf8(stdout).unwrap().contains('\u{1b}'));
}

#[test]
fn the_banner_has_what_one_needs_to_begin() {
    let model = tiny();
    let server = Server::start(&[&model, "--kernels", "scalar", "--threads", "1"]);
    server.wait_log("OpenAI(");
    let log = server.log();
    let line = |name: &str| {
        let begins = |l: &&str| l.trim_start().starts_with(name);
        log.lines().find(begins).unwrap_or_else(|| panic!("no {name} in\n{log}")).to_owned()
    };
    assert!(line("url").ends_with(&server.url("/v1")));
    assert!(line("model").contains("model (llama, "));
    assert!(line("device").ends_with("cpu, scalar kernels, threads: 1"));
    assert!(line("kv cache").contains(" tokens ("));
    assert!(line("curl ").contains("/v1/completions"));
    assert!(line("python3 -c").contains("from openai import OpenAI"));
}

#[test]
fn with_json_logs_what_is_said_while_loading_is_json_too() {
    let server = Server::start(&[&tiny(), "--log-format", "json"]);
    let said = server.wait_log("loading: ");
    for line in server.log().lines() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(event["level"].is_string(), "{line}");
    }
    assert!(said.starts_with('{'), "{said}");
}
