//! The rules of the house that no compiler checks: who may use whom, how long a file may be, where
//! `unsafe` may stand. What they are for is in ARCHITECTURE.md.

use std::fs;
use std::path::{Path, PathBuf};

/// A folder uses only those to its right, and those that stand beside.
const CHAIN: [&str; 5] = ["http", "text", "engine", "model", "backend"];
const BESIDE: [&str; 4] = ["keys", "config", "telemetry", "watch"];
/// Plain types that the folders beside the chain may name.
const PLAIN: [&str; 2] = ["crate::engine::message::Tenant", "crate::backend::KvDtype"];
const MAX_LINES: usize = 500;

fn sources(root: &str, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(root)];
    while let Some(folder) = open.pop() {
        // `benches` comes and goes.
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.file_name().is_some_and(|n| n == "node_modules" || n == ".venv") {
                continue;
            }
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| endings.iter().any(|&x| e == x)) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The first component below `src`: `http` for `src/http/auth.rs`, `config` for `src/config.rs`.
fn room(path: &Path) -> String {
    let below = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
    let first = below.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// The code of a file: without line comments, and without what stands behind its `mod tests {`.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    text.lines().map(|l| l.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

fn is_test_file(path: &Path) -> bool {
    let name = path.file_stem().unwrap().to_str().unwrap();
    name == "tests"
        || name == "testing"
        || name.ends_with("_tests")
        || path.components().any(|c| c.as_os_str() == "tests")
}

/// Names `crate::ROOM` or groups of them, as `use` and paths write it.
fn rooms_used(code: &str) -> Vec<(String, String)> {
    let mut used = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        if code[..at].ends_with('$') {
            continue;
        }
        let rest = &code[at..];
        let end = rest.find([';', ',', ')', '>', ' ', '\n', '(', '<', '!']).unwrap_or(rest.len());
        let path = &rest[..end];
        if path.starts_with("crate::{") {
            let group = rest.split(';').next().unwrap_or_default();
            for room in CHAIN.iter().chain(&BESIDE).chain(&["cli"]) {
                if group.contains(&format!("{room}::")) {
                    used.push(((*room).to_owned(), group.replace('\n', " ")));
                }
            }
        } else {
            let room = path["crate::".len()..].split("::").next().unwrap_or_default();
            used.push((room.to_owned(), path.to_owned()));
        }
    }
    used
}

fn allowed(from: &str, to: &str, path: &str) -> bool {
    let place = |room: &str| CHAIN.iter().position(|&c| c == room);
    match (place(from), place(to)) {
        (Some(a), Some(b)) => b >= a,
        (Some(_), None) => BESIDE.contains(&to),
        (None, Some(_)) if BESIDE.contains(&from) => PLAIN.iter().any(|p| path.starts_with(p)),
        (None, None) if BESIDE.contains(&from) => BESIDE.contains(&to),
        // `lib`, `main` and `cli` put everything together.
        _ => true,
    }
}

#[test]
fn a_folder_depends_only_on_those_to_its_right() {
    let mut faults = Vec::new();
    for path in sources("src", &["rs"]) {
        if is_test_file(&path) {
            continue;
        }
        let from = room(&path);
        for (to, used) in rooms_used(&code(&fs::read_to_string(&path).unwrap())) {
            if !allowed(&from, &to, &used) {
                faults.push(format!("{}: {from} must not use {used}", path.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_rule_of_direction_can_fail() {
    let used = |line: &str| rooms_used(&code(line)).remove(0);
    let (to, path) = used("use crate::http::App;");
    assert!(!allowed("engine", &to, &path));
    let (to, path) = used("use crate::{http::App, config::Config};");
    assert!(!allowed("text", &to, &path));
    let (to, path) = used("fn f(x: &crate::backend::Slice<'_>) {}");
    assert!(allowed("http", &to, &path));
    assert!(!allowed("keys", &to, &path));
}

#[test]
fn no_file_is_longer_than_it_can_be_read() {
    let mut faults = Vec::new();
    let all = ["src", "tests", "benches", "scripts"]
        .into_iter()
        .flat_map(|r| sources(r, &["rs", "py", "mjs", "sh", "toml"]));
    for path in all {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        if lines > MAX_LINES {
            faults.push(format!("{}: {lines} lines", path.display()));
        }
    }
    assert!(faults.is_empty(), "more than {MAX_LINES} lines:\n{}", faults.join("\n"));
}

#[test]
fn unsafe_stands_only_in_the_cpu_kernels_and_each_block_says_why() {
    let mut faults = Vec::new();
    for path in sources("src", &["rs"]) {
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for (i, line) in lines.iter().enumerate() {
            let line_code = line.split("//").next().unwrap_or_default();
            if !line_code.contains("unsafe") || line_code.contains("unsafe_") {
                continue;
            }
            let place = format!("{}:{}", path.display(), i + 1);
            if !path.to_str().unwrap().contains("/backend/cpu/") {
                faults.push(format!("{place}: unsafe outside backend/cpu"));
            } else if line_code.contains("unsafe {") || line_code.contains("unsafe impl") {
                let near = &lines[i.saturating_sub(8)..=i];
                if !near.iter().any(|l| l.contains("SAFETY:")) {
                    faults.push(format!("{place}: no SAFETY comment"));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn no_unwrap_outside_tests() {
    let mut faults = Vec::new();
    for path in sources("src", &["rs"]) {
        if is_test_file(&path) {
            continue;
        }
        let mut before = String::new();
        for (i, line) in code(&fs::read_to_string(&path).unwrap()).lines().enumerate() {
            let panics = [".unwrap()", "panic!("].iter().any(|p| line.contains(p));
            if panics && !before.contains("#[expect(clippy::") {
                faults.push(format!("{}:{}: {}", path.display(), i + 1, line.trim()));
            }
            line.clone_into(&mut before);
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn nothing_is_left_unfinished_by_its_own_words() {
    let mut faults = Vec::new();
    for path in sources("src", &["rs"]).into_iter().chain(sources("tests", &["rs", "py", "mjs"])) {
        if path.ends_with("tests/it/house.rs") {
            continue;
        }
        for (i, line) in fs::read_to_string(&path).unwrap().lines().enumerate() {
            let marks = ["TODO", "FIXME", "todo!(", "unimplemented!(", "#[ignore"];
            if marks.iter().any(|m| line.contains(m)) {
                faults.push(format!("{}:{}: {}", path.display(), i + 1, line.trim()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Where the wall clock may be read: what is told to people and clients, and when keys expire.
const WALL_CLOCK: [&str; 7] = [
    "src/http/openai/generation/",
    "src/keys/",
    "src/server/load.rs",
    "src/telemetry/",
    "src/text/template/",
    "src/cli/",
    // As the time of a file's change.
    "src/watch.rs",
];

#[test]
fn row_37_nothing_that_waits_or_measures_reads_the_wall_clock() {
    let mut faults = Vec::new();
    for path in sources("src", &["rs"]) {
        let name = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().to_str().unwrap();
        if is_test_file(&path) || WALL_CLOCK.iter().any(|place| name.starts_with(place)) {
            continue;
        }
        for (i, line) in code(&fs::read_to_string(&path).unwrap()).lines().enumerate() {
            if ["SystemTime", "UNIX_EPOCH", "now_utc"].iter().any(|clock| line.contains(clock)) {
                faults.push(format!("{name}:{}: {}", i + 1, line.trim()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
