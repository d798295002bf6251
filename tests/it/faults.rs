//! The table of faults in `docs/faults.md`: which tests show what is done about each. It is made from the names of
//! the tests (`row_33_…`, `rows_01_02_…`); a row that has no test and is not said to be open is a failure.
//!
//! `UPDATE_DOCS=1 cargo test --features fake-model --test it faults` writes it anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

const HEADER: &str = "\
# Faults, and the tests that show each survived

What clients, networks, files and the engine itself can do wrong, and where a test shows what becomes of it: the real binary over
real sockets, but for what only shows inside. Made by `tests/it/faults.rs` from the names of the tests; a row without a test
fails unless it stands here as open.

| row | fault | shown by |
|---|---|---|
";

/// The rows in order, from 1.
const ROWS: [&str; 40] = [
    "a client closes its stream",
    "a client closes its connection before a plain answer",
    "a client leaves while it is queued, or its prompt is read",
    "a step panics",
    "the engine hangs",
    "a long step or prompt: HTTP and streams go on",
    "the model is not loaded yet",
    "SIGTERM while requests run",
    "`n`, `best_of` or a list of prompts is huge",
    "`logprobs` out of bounds",
    "`max_tokens` out of bounds; the prompt does not fit",
    "sampling parameters out of bounds; logits that are not finite",
    "`logit_bias` out of bounds",
    "token ids outside the vocabulary",
    "stop strings: too many, too long, empty, across tokens",
    "bodies: no JSON, too deep, doubled keys, too long, packed, wrong type",
    "grammars and schemas that explode",
    "chat templates and their arguments from a request",
    "clients that send slowly, or nothing",
    "clients that read slowly",
    "more requests than the queue holds",
    "more sequences than the KV cache holds",
    "one key floods, others must live: limits and shares",
    "keys that are missing, wrong, doubled, elsewhere",
    "timing of the comparison of keys",
    "keys and prompts in logs, metrics, errors, memory dumps",
    "the key file changes, is half written, open to all, expires",
    "timing of the prefix cache between keys",
    "prefixes whose hashes collide",
    "answers of a crowd are not mixed up",
    "a hostile model file",
    "a download that is cut, wrong or redirected",
    "request smuggling",
    "a browser's page against a keyless server",
    "no file descriptors left",
    "logs that cannot be written",
    "the clock jumps",
    "clients that would add series to the metrics",
    "retries after errors that stay",
    "an error after the stream began",
];

/// What no test shows yet, and why.
const OPEN: [(usize, &str); 0] = [];

/// What is shown in another way than by the numbers that one would expect.
const NOTES: [(usize, &str); 6] = [
    (
        6,
        "as shares of the slow step's own five seconds (95 of 100 answers in a hundredth, 99 in a twentieth), since tests run beside each other",
    ),
    (
        9,
        "the engine makes no step for what is refused, and a refusal takes no longer than an answer",
    ),
    (
        11,
        "`max_tokens: 0` is the least that OpenAI's description allows: an empty answer, or with `echo` the prompt",
    ),
    (
        17,
        "with 10,000 schemas, 8,500 of them once the cache of compiled ones is full; more would show no more, and take minutes",
    ),
    (
        24,
        "by the order of events: what has no key is refused before a byte of its body is asked for",
    ),
    (
        26,
        "beside these, all that each server of the tests prints is searched for the key and for what clients sent",
    ),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("node_modules") {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| ["rs", "py", "mjs"].iter().any(|&x| e == x)) {
            found.push(path);
        }
    }
}

/// The rows that a test's name begins with: `rows_01_02_it_ends` shows 1 and 2.
fn rows(name: &str) -> Vec<usize> {
    // Python's tests are called so.
    let name = name.strip_prefix("test_").unwrap_or(name);
    let Some(rest) = name.strip_prefix("row_").or_else(|| name.strip_prefix("rows_")) else {
        return Vec::new();
    };
    rest.split('_').map_while(|part| part.parse().ok().filter(|_| part.len() == 2)).collect()
}

/// Tests by row: file and name.
fn tests() -> BTreeMap<usize, Vec<(String, String)>> {
    let mut files = Vec::new();
    sources(&root().join("src"), &mut files);
    sources(&root().join("tests"), &mut files);
    files.sort();
    let mut tests: BTreeMap<usize, Vec<(String, String)>> = BTreeMap::new();
    for path in files {
        let file = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        for line in fs::read_to_string(&path).unwrap().lines() {
            let line = line.trim_start();
            let line = line.strip_prefix("async ").unwrap_or(line);
            let name = line.strip_prefix("fn ").or_else(|| line.strip_prefix("def "));
            let name = name.and_then(|rest| rest.split('(').next()).unwrap_or_default();
            for row in rows(name) {
                tests.entry(row).or_default().push((file.clone(), name.to_owned()));
            }
        }
    }
    tests
}

fn table() -> String {
    let tests = tests();
    let mut out = HEADER.to_owned();
    for (row, fault) in (1..).zip(ROWS) {
        let mut shown: Vec<String> = Vec::new();
        for (file, name) in tests.get(&row).into_iter().flatten() {
            shown.push(format!("`{name}` in {file}"));
        }
        let note = NOTES.iter().filter(|(r, _)| *r == row);
        shown.extend(note.map(|(_, note)| format!("note: {note}")));
        let open = OPEN.iter().filter(|(r, _)| *r == row);
        shown.extend(open.map(|(_, why)| format!("**open**: {why}")));
        let _ = writeln!(out, "| {row} | {fault} | {} |", shown.join("<br>"));
    }
    out
}

#[test]
fn every_row_has_a_test_or_is_said_to_be_open() {
    let tests = tests();
    let is_open = |row| OPEN.iter().any(|(r, _)| *r == row);
    let missing: Vec<_> =
        (1..=ROWS.len()).filter(|row| !tests.contains_key(row) && !is_open(*row)).collect();
    assert!(missing.is_empty(), "no test for rows {missing:?}");
    let unknown: Vec<_> = tests.keys().filter(|row| !(1..=ROWS.len()).contains(row)).collect();
    assert!(unknown.is_empty(), "no such rows: {unknown:?}");
}

#[test]
fn the_table_in_the_documentation_is_the_present_one() {
    let path = root().join("docs/faults.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, table()).unwrap();
    }
    let there = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        there == table(),
        "docs/faults.md is out of date: UPDATE_DOCS=1 cargo test --test it faults"
    );
}

#[test]
fn names_tell_their_rows() {
    assert_eq!(rows("row_33_a_bare_lf"), [33]);
    assert_eq!(rows("rows_01_02_a_client"), [1, 2]);
    assert_eq!(rows("row_23_5_requests"), [23]);
    assert_eq!(rows("test_row_40_in_python"), [40]);
    assert_eq!(rows("rows_of_logits_are_bounded"), [0; 0]);
}
