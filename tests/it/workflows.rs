//! The hosted workflows run what is here: their steps exist, and what they take from elsewhere has a version.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Name and text of each.
fn workflows() -> Vec<(PathBuf, String)> {
    let entries = fs::read_dir(root().join(".github/workflows")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

/// The word behind each `mark`.
fn words<'a>(text: &'a str, mark: &str) -> Vec<&'a str> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let rests = code.flat_map(|line| line.split(mark).skip(1));
    rests.map(|rest| rest.split([' ', '"', '\n']).next().unwrap()).collect()
}

#[test]
fn their_steps_are_make_targets_and_scripts_that_there_are() {
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    let mut found = 0;
    for (path, text) in workflows() {
        for target in words(&text, "run: make ") {
            let known = makefile.lines().any(|l| l.starts_with(&format!("{target}: ")));
            assert!(known, "{}: no make target {target}", path.display());
            found += 1;
        }
        for script in words(&text, "scripts/") {
            let script = root().join("scripts").join(script);
            assert!(script.is_file(), "{}: no {}", path.display(), script.display());
            found += 1;
        }
    }
    assert!(found >= 5, "{found} steps");
}

#[test]
fn what_they_take_from_elsewhere_has_a_full_version_and_few_rights() {
    for (path, text) in workflows() {
        let shown = path.display();
        for action in words(&text, "uses: ") {
            let Some((_, version)) = action.split_once('@') else {
                assert!(action.starts_with("./"), "{shown}: {action} has no version");
                continue;
            };
            let is_hash = version.len() == 40 && version.bytes().all(|b| b.is_ascii_hexdigit());
            let numbers: Vec<_> = version.trim_start_matches('v').split('.').collect();
            let is_full = numbers.len() == 3 && numbers.iter().all(|n| n.parse::<u32>().is_ok());
            assert!(is_hash || is_full, "{shown}: {action}");
        }
        assert!(text.contains("\npermissions: { contents: read }\n"), "{shown}");
        // A name that comes from outside must not become part of a command.
        for line in text.lines().filter(|l| l.trim_start().starts_with("run:")) {
            assert!(!line.contains("${{"), "{shown}: {line}");
        }
    }
}
