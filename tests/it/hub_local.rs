//! Models of a hub: what lies in the cache, and what the environment says (row 32 of `docs/faults.md`).

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::{TempDir, tempdir};

use crate::fake_hub::{Answer, COMMIT, Host, NAME, cached, content, hub, outcome, pull};
use crate::hub_faults::refusal;
use crate::support::millrace;

const FILE: &str = "tiny-Q4_K_M.gguf";

/// A hub and a storage that have this file.
fn hosts(whole: &[u8]) -> (Host, Host) {
    let stored = whole.to_vec();
    let storage = Host::start(move |asked| Answer::part(&stored, asked));
    let host = Host::start(hub(vec![(FILE, whole.to_vec())], storage.url()));
    (host, storage)
}

fn pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

fn link(target: impl AsRef<Path>, path: &Path) {
    let _ = fs::remove_file(path);
    std::os::unix::fs::symlink(target, path).unwrap();
}

#[test]
fn row_32_small_files_without_an_end_are_not_read_to_it() {
    let (home, whole) = (tempdir().unwrap(), content(1000, 11));
    let (host, _storage) = hosts(&whole);
    let (refs, token) = (cached(&home).join("refs"), home.path().join("huggingface/token"));
    fs::create_dir_all(&refs).unwrap();
    pipe(&home.path().join("pipe"));
    fs::write(home.path().join("long"), COMMIT.repeat(1_000)).unwrap();
    for target in ["pipe", "/dev/zero", "long"] {
        let target = home.path().join(target);
        link(&target, &refs.join("main"));
        let (code, _, err) = outcome(&mut pull(&home, &host.url(), NAME));
        assert_eq!(code, 0, "{err}");
        assert_eq!(fs::read_to_string(refs.join("main")).unwrap(), COMMIT, "it is noted anew");
        link(&target, &token);
        let e = refusal(&mut pull(&home, &host.url(), "maker/tiny:Q8_0"));
        let reasons = ["it is not a file", "it has more than 4096 bytes"];
        let is_said = e.contains("huggingface/token: ") && reasons.iter().any(|r| e.contains(r));
        assert!(is_said, "{e}");
        fs::remove_file(&token).unwrap();
    }
    // Where it is kept elsewhere.
    fs::write(home.path().join("mine"), "hf_canary\n").unwrap();
    link(home.path().join("mine"), &token);
    assert_eq!(outcome(&mut pull(&home, &host.url(), "maker/tiny@v1")).0, 1);
    let asked = host.asked();
    assert_eq!(asked[asked.len() - 1].header("authorization"), Some("Bearer hf_canary"));
}

/// A snapshot as it is copied into an image: without the folders that only tools need.
fn snapshot(home: &TempDir, commit: &str, file: &str) -> String {
    let folder = cached(home).join("snapshots").join(commit);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(file), "a model").unwrap();
    folder.join(file).to_str().unwrap().to_owned()
}

#[test]
fn row_32_what_no_branch_is_noted_of_is_found_without_the_hub() {
    let home = tempdir().unwrap();
    let path = snapshot(&home, COMMIT, FILE);
    let away = Host::start(|_| Answer::status(403));
    let offline = |name: &str| outcome(pull(&home, &away.url(), name).arg("--offline"));
    let (code, out, err) = offline(NAME);
    assert_eq!((code, out.trim_end()), (0, path.as_str()), "{err}");
    assert!(err.contains(&format!("taking {COMMIT}, the only commit in the cache")), "{err}");
    let (code, _, err) = offline("maker/tiny@v1");
    assert!(code == 1 && err.contains("is not there"), "another revision: {err}");
    snapshot(&home, "abc", FILE);
    let (code, _, err) = offline(NAME);
    assert!(code == 1 && err.contains("is not there"), "either may be it: {err}");
    assert_eq!(away.connections(), 0);
}

#[test]
fn row_32_what_a_hub_or_cache_calls_its_files_does_not_reach_the_terminal_as_it_is() {
    let home = tempdir().unwrap();
    let hidden = "\u{202e}\u{200f}\u{2066}\u{ad}\u{feff}\u{2028}\u{e0041}";
    for (i, c) in hidden.chars().enumerate() {
        snapshot(&home, COMMIT, &format!("{i}{c}fugg.gguf"));
    }
    for name in ["a-Q2_K.gguf", "b-Q3_K.gguf"] {
        snapshot(&home, COMMIT, name);
    }
    let e = refusal(pull(&home, "http://127.0.0.1:9", NAME).arg("--offline"));
    assert!(e.ends_with("name one as owner/name:FILE.gguf: a-Q2_K.gguf, b-Q3_K.gguf"), "{e}");
    let strange = home.path().join("a\u{202e}b");
    fs::create_dir(&strange).unwrap();
    let mut command = pull(&home, "http://127.0.0.1:9", NAME);
    let e = refusal(command.arg("--offline").env("HF_HOME", strange));
    assert!(e.contains("/a b/hub/") && !e.contains('\u{202e}'), "{e}");
}

#[test]
fn row_32_the_folders_of_the_environment_are_those_of_the_hubs_own_tools() {
    let (home, whole) = (tempdir().unwrap(), content(1000, 12));
    let (host, _storage) = hosts(&whole);
    for (name, value, folder) in [
        ("HF_HOME", "~/a", "a/hub"),
        ("HF_HOME", "$HOME/b", "b/hub"),
        ("HF_HUB_CACHE", "${HOME}/c$NO_SUCH", "c$NO_SUCH"),
        ("HF_HUB_CACHE", "~", ""),
    ] {
        let (code, out, err) = outcome(pull(&home, &host.url(), NAME).env(name, value));
        assert_eq!(code, 0, "{err}");
        let there = home.path().join(folder).join("models--maker--tiny/snapshots");
        assert!(Path::new(out.trim_end()).starts_with(there), "{name}={value}: {out}");
    }
    let (code, _, err) = outcome(pull(&home, &host.url(), NAME).env("HF_HOME", "~root/x"));
    assert!(code == 2 && err.contains("HF_HOME") && err.contains("another user"), "{err}");
    for port in ["0", "65536", "99999"] {
        let (code, _, err) = outcome(&mut pull(&home, &format!("http://127.0.0.1:{port}"), NAME));
        assert!(code == 2 && err.contains("HF_ENDPOINT"), "{err}");
    }
}

#[test]
fn row_32_offline_holds_for_the_built_in_names_too() {
    use std::os::unix::fs::PermissionsExt as _;
    let home = tempdir().unwrap();
    let python = home.path().join("python");
    fs::write(&python, "#!/bin/sh\ntouch called\n").unwrap();
    fs::set_permissions(&python, fs::Permissions::from_mode(0o755)).unwrap();
    for args in [&["pull"][..], &["pull", "smollm2-135m-instruct"], &["serve", "--port", "0"]] {
        let mut command = millrace(home.path());
        command.args(args).env("MILLRACE_PYTHON", &python).env("MILLRACE_API_KEY", "sk-x");
        let e = refusal(command.env("HF_HUB_OFFLINE", "1"));
        assert!(e.contains("and HF_HUB_OFFLINE forbids to fetch it"), "{e}");
    }
    assert!(!home.path().join("called").exists());
}
