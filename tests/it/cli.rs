//! The commands that do not serve, and what `serve` refuses to start with.

use std::path::Path;
use std::process::{Command, Output};

use tempfile::{TempDir, tempdir};

use crate::support::{BIN, FAKE, clean, millrace};

/// Exit code, stdout and stderr.
fn outcome(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

fn run(home: &TempDir, args: &[&str]) -> (i32, String, String) {
    outcome(millrace(home.path()).args(args))
}

#[test]
fn wrong_usage_is_2_and_help_is_0() {
    let home = tempdir().unwrap();
    for args in
        [&[][..], &["serv"], &["serve", "--prot", "1"], &["keys", "add"], &["serve", "a", "b"]]
    {
        let (code, out, err) = run(&home, args);
        assert_eq!((code, out.as_str()), (2, ""), "{args:?}");
        assert!(!err.is_empty() && !err.contains("panicked"), "{err}");
    }
    let (_, _, err) = run(&home, &["serve", "--prot", "1"]);
    assert!(err.contains("--port"), "{err}");
    for args in [&["--help"][..], &["--version"], &["serve", "--help"], &["pull", "--list"]] {
        let (code, out, err) = run(&home, args);
        assert_eq!((code, err.as_str()), (0, ""), "{args:?}");
        assert!(!out.is_empty());
    }
    let (_, help, _) = run(&home, &["serve", "--help"]);
    assert!(help.contains("MILLRACE_MAX_NUM_SEQS") && !help.contains("--api-key "), "{help}");
}

#[test]
fn check_config_shows_every_value_and_where_it_came_from() {
    let home = tempdir().unwrap();
    std::fs::create_dir(home.path().join("config")).unwrap();
    std::fs::write(home.path().join("config/millrace.toml"), "\nthreads = 3\nport = 1\n").unwrap();
    let mut command = millrace(home.path());
    command.env("MILLRACE_PORT", "2").env("MILLRACE_API_KEY", "sk-canary").arg("check-config");
    let (code, out, err) = outcome(command.args(["x.gguf", "--max-num-seqs", "5"]));
    assert_eq!((code, err.as_str()), (0, ""));
    let has = |line: &str| {
        let squeezed = |l: &str| l.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(out.lines().any(|l| squeezed(l) == line), "{line} not in\n{out}");
    };
    has("threads = 3 # config/millrace.toml:2");
    has("port = 2 # MILLRACE_PORT");
    has("max_num_seqs = 5 # --max-num-seqs");
    has("model = \"x.gguf\" # MODEL");
    has("host = \"127.0.0.1\" # default");
    has("# and one key from MILLRACE_API_KEY (redacted)");
    assert!(!out.contains("canary"));
}

#[test]
fn check_config_and_serve_list_every_fault() {
    let home = tempdir().unwrap();
    std::fs::write(home.path().join("c.toml"), "max_num_seq = 1\nport = \"x\"\n").unwrap();
    for command in ["check-config", "serve"] {
        let mut command = {
            let mut c = millrace(home.path());
            c.args([command, "--config", "c.toml", "--device", "cdua"]);
            c
        };
        let (code, out, err) = outcome(command.env("MILLRACE_MAX_BODY", "1"));
        assert_eq!((code, out.as_str()), (2, ""));
        for part in [
            "4 faults",
            "MILLRACE_MAX_BODY: unknown variable; the nearest is MILLRACE_MAX_BODY_BYTES",
            "c.toml:1: unknown key \"max_num_seq\"; the nearest is max_num_seqs",
            "c.toml:2: port: \"x\" is not a port number",
            "--device: \"cdua\" is not one of",
        ] {
            assert!(err.contains(part), "{part} not in\n{err}");
        }
    }
}

#[test]
fn row_34_serve_without_keys_names_the_three_ways() {
    let home = tempdir().unwrap();
    let (code, _, err) = run(&home, &["serve", FAKE]);
    assert_eq!(code, 2);
    for way in ["--api-key-file", "MILLRACE_API_KEY", "--allow-unauthenticated"] {
        assert!(err.contains(way), "{err}");
    }
    let (code, _, err) =
        run(&home, &["serve", FAKE, "--allow-unauthenticated", "--host", "0.0.0.0"]);
    assert_eq!(code, 2);
    assert!(err.contains("i-know-this-is-open"), "{err}");
}

#[test]
fn row_31_serve_says_what_is_wrong_with_its_model_in_one_line() {
    let home = tempdir().unwrap();
    std::fs::write(home.path().join("bad.gguf"), b"GGUF\x03\0\0\0 not a model at all").unwrap();
    std::fs::create_dir(home.path().join("folder")).unwrap();
    for (model, code, part) in [
        ("smollm2-135m-instrukt", 2, "the nearest is smollm2-135m-instruct"),
        ("HuggingFaceTB/SmolLM2", 1, "--offline forbids to ask the hub"),
        ("a/b/c", 2, "owner/name:FILE.gguf"),
        ("models/none.gguf", 1, "no such file"),
        ("folder", 1, "folder: has no config.json"),
        ("./none.gguf", 1, "no such file"),
        ("smollm2-135m-instruct", 1, "--offline"),
        ("bad.gguf", 1, "bad.gguf"),
        ("fake:zzz=1", 2, "zzz is not one of vocab"),
    ] {
        let args = ["serve", model, "--port", "0", "--offline"];
        let mut command = millrace(home.path());
        let (found, _, err) = outcome(command.args(args).env("MILLRACE_API_KEY", "sk-x"));
        assert_eq!(found, code, "{model}: {err}");
        let errors: Vec<_> = err.lines().filter(|l| l.contains("error")).collect();
        assert!(errors.len() == 1 && errors[0].contains(part), "{model}: {err}");
        assert!(err.lines().count() <= 12 && !err.contains("panicked"), "{err}");
    }
}

#[test]
fn serve_says_which_address_it_cannot_have() {
    let home = tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let mut command = millrace(home.path());
    let args = ["serve", FAKE, "--port", port.as_str()];
    let (code, _, err) = outcome(command.args(args).env("MILLRACE_API_KEY", "sk-x"));
    assert_eq!(code, 1);
    assert!(err.contains(&format!("127.0.0.1:{port}")), "{err}");
}

#[test]
fn keys_are_added_listed_and_revoked() {
    let home = tempdir().unwrap();
    let (code, secret, err) = run(&home, &["keys", "add", "alice", "--file", "k/keys.toml"]);
    assert_eq!(code, 0, "{err}");
    let secret = secret.strip_suffix('\n').unwrap();
    assert!(secret.starts_with("sk-") && secret.len() == 46, "{secret}");
    assert!(err.contains("--api-key-file k/keys.toml") && !err.contains(secret), "{err}");
    let stored = std::fs::read_to_string(home.path().join("k/keys.toml")).unwrap();
    assert!(!stored.contains(&secret[3..]));

    let add = ["keys", "add", "bob", "--expires", "2020-01-01", "--file", "k/keys.toml"];
    assert_eq!(run(&home, &add).0, 0);
    assert_eq!(run(&home, &add).0, 1, "twice the same name");
    let (code, out, _) = run(&home, &["keys", "list", "--file", "k/keys.toml"]);
    assert_eq!(code, 0);
    assert!(out.contains("alice") && out.contains("bob") && out.contains("(expired)"), "{out}");
    assert!(!out.contains(&secret[3..]));

    assert_eq!(run(&home, &["keys", "revoke", "bob", "--file", "k/keys.toml"]).0, 0);
    assert_eq!(run(&home, &["keys", "revoke", "bob", "--file", "k/keys.toml"]).0, 1);
    assert!(!run(&home, &["keys", "list", "--file", "k/keys.toml"]).1.contains("bob"));
    let (code, _, err) = run(&home, &["keys", "add", "x", "--expires", "soon"]);
    assert_eq!(code, 2, "{err}");
    let (code, _, err) = run(&home, &["keys", "add", "a b", "--file", "k/keys.toml"]);
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("an id has 1 to"), "{err}");
}

#[test]
fn check_config_looks_into_the_key_file_and_prints_a_template() {
    let home = tempdir().unwrap();
    let (code, _, err) = run(&home, &["check-config", "--api-key-file", "none.toml"]);
    assert_eq!((code, err.lines().count()), (2, 1), "{err}");
    assert!(err.contains("none.toml"), "{err}");
    let (code, out, _) = run(&home, &["check-config", "--template"]);
    assert_eq!(code, 0);
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/config/millrace.toml");
    assert_eq!(out, std::fs::read_to_string(shipped).unwrap());
}

#[test]
fn what_a_bad_key_file_holds_is_quoted_on_one_clean_line() {
    use std::os::unix::fs::PermissionsExt;
    let home = tempdir().unwrap();
    let path = home.path().join("k.toml");
    std::fs::write(&path, "\"a\\u001b[2J\\u202e\\nerror: b\" = 1\n").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    for args in [
        &["keys", "list", "--file", "k.toml"][..],
        &["keys", "add", "a", "--file", "k.toml"],
        &["check-config", "--api-key-file", "k.toml"],
        &["serve", FAKE, "--port", "0", "--api-key-file", "k.toml"],
    ] {
        let (_, out, err) = run(&home, args);
        assert!(out.is_empty() && err.ends_with('\n'), "{args:?}: {err}");
        let errors: Vec<_> = err.lines().filter(|line| line.starts_with("error: ")).collect();
        assert!(errors.len() == 1 && errors[0].contains("k.toml: line 1: unknown"), "{err}");
        let clean = |c: char| !c.is_control() && c != '\u{202e}';
        assert!(err.trim_end().lines().all(|line| line.chars().all(clean)), "{err:?}");
    }
    let add = ["keys", "add", "a", "--models", "b\u{1b}[2J", "--file", "new.toml"];
    let (code, _, err) = run(&home, &add);
    assert!(code != 0 && err.contains("control characters"), "{err}");
    assert!(!home.path().join("new.toml").exists(), "a file that nobody could read again");
}

#[test]
fn keys_take_the_file_that_the_server_would() {
    let home = tempdir().unwrap();
    let mut command = millrace(home.path());
    command.env("MILLRACE_API_KEY_FILE", home.path().join("mine.toml")).args(["keys", "add", "a"]);
    assert_eq!(outcome(&mut command).0, 0);
    assert!(home.path().join("mine.toml").is_file());
    assert_eq!(run(&home, &["keys", "add", "a"]).0, 0);
    assert!(home.path().join("millrace/keys.toml").is_file());
}

#[test]
fn a_key_that_cannot_be_shown_is_not_kept() {
    let home = tempdir().unwrap();
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = millrace(home.path());
    let status =
        command.args(["keys", "add", "a", "--file", "k.toml"]).stdout(full).status().unwrap();
    assert_eq!(status.code(), Some(1));
    assert!(!run(&home, &["keys", "list", "--file", "k.toml"]).1.contains("\na "));
}

#[test]
fn a_key_that_nobody_would_see_is_not_made() {
    let home = tempdir().unwrap();
    for nowhere in [">&-", ">/dev/null", "1<>/dev/null"] {
        // Only a shell can leave a descriptor closed for what it becomes.
        let mut shell = clean("sh", home.path());
        shell.args(["-c", &format!("exec \"$0\" \"$@\" {nowhere}"), BIN]);
        let (code, _, err) = outcome(shell.args(["keys", "add", "a", "--file", "k.toml"]));
        assert!(code == 1 && err.contains("nobody would see the key"), "{nowhere}: {err}");
        assert!(!home.path().join("k.toml").exists(), "{nowhere}");
    }
}

#[test]
fn keys_add_takes_no_empty_names_and_replaces_no_link() {
    let home = tempdir().unwrap();
    for models in ["", ",", "a,,b", "a,"] {
        let add = ["keys", "add", "a", "--models", models, "--file", "k.toml"];
        let (code, out, err) = run(&home, &add);
        assert_eq!((code, out.as_str()), (2, ""), "{models:?}: {err}");
        assert!(err.contains("--models") && err.contains("empty"), "{err}");
    }
    let link = home.path().join("k.toml");
    std::os::unix::fs::symlink("not/mounted/k.toml", &link).unwrap();
    let (code, out, err) = run(&home, &["keys", "add", "a", "--file", "k.toml"]);
    assert_eq!((code, out.as_str()), (1, ""), "{err}");
    assert!(err.contains("k.toml: it is a link, and where it leads: No such file"), "{err}");
    assert!(link.is_symlink());
    // A path may be called anything.
    let (code, _, err) = run(&home, &["keys", "add", "a", "--file", "k\u{1b}[2J\u{202e}.toml"]);
    assert!(code == 0 && err.contains("added a to k [2J .toml;"), "{err:?}");
    let (code, _, err) = run(&home, &["keys", "revoke", "a", "--file", "k\u{1b}[2J\u{202e}.toml"]);
    assert!(code == 0 && err == "revoked a in k [2J .toml\n", "{err:?}");
}

#[test]
fn healthcheck_says_no_where_nobody_listens() {
    let home = tempdir().unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (code, out, err) = run(&home, &["healthcheck", "--url", &format!("http://{free}")]);
    assert_eq!((code, out.as_str(), err.lines().count()), (1, "", 1), "{err}");
    assert_eq!(run(&home, &["healthcheck", "--url", "nonsense"]).0, 2);
}

#[test]
fn a_terminal_that_is_gone_stops_no_command() {
    let home = tempdir().unwrap();
    let full = || std::fs::File::options().write(true).open(Path::new("/dev/full")).unwrap();
    let mut command = millrace(home.path());
    let status =
        command.args(["check-config", "--port", "x"]).stdout(full()).stderr(full()).status();
    assert_eq!(status.unwrap().code(), Some(2));
}
