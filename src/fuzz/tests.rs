use std::fs;
use std::panic::catch_unwind;
use std::path::PathBuf;

use super::folder::{BETWEEN, FILES};
use super::models::{self, header, models};
use super::*;

/// Inputs that `name` begins with.
fn seeds(name: &str) -> Vec<Vec<u8>> {
    let folder = folder(name);
    let mut files: Vec<_> =
        fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/seeds").join(name)
}

fn run(name: &str, target: Target, input: &[u8]) {
    let result = catch_unwind(|| target(input));
    assert!(result.is_ok(), "{name} does not bear this input: b\"{}\"", input.escape_ascii());
}

#[test]
fn every_seed_is_borne() {
    for (name, target) in TARGETS {
        let seeds = seeds(name);
        assert!(seeds.len() >= 3, "{name} has {} seeds", seeds.len());
        for seed in seeds {
            run(name, target, &seed);
        }
    }
}

/// To write them anew: `MILLRACE_WRITE=1 cargo test --features fake-model --lib fuzz`.
#[test]
fn the_seeds_of_models_are_what_the_loader_takes() {
    for (name, w) in models() {
        let made = header(&w);
        check_seed("gguf", name, &made);
        check_seed("shards", name, &models::shards(&w));
        let path = Path::new("fuzz.gguf");
        let gguf = Gguf::read(path, &made[..], made.len() as u64 + WEIGHT_BYTES);
        let checkpoint = Checkpoint::from(gguf.unwrap());
        crate::model::examine(&checkpoint, &engine()).unwrap();
        Text::from_gguf(&checkpoint.metadata).unwrap();
    }
}

/// With shards; three kinds of tokenizers; experts, other names, and rotations of each kind.
const FOLDERS: [&str; 9] = [
    "gemma3",
    "gpt2",
    "llama",
    "llama3",
    "mixtral",
    "phi3-longrope",
    "qwen2",
    "qwen2_moe",
    "qwen2-yarn",
];

#[test]
fn the_seeds_of_folders_are_those_of_the_models() {
    for model in FOLDERS {
        check_seed("folder", model, &folder_seed(model));
    }
}

/// A seed: the files of a model of `tests/models`.
fn folder_seed(model: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models").join(model);
    let mut parts = Vec::new();
    for (letter, name) in FILES {
        let Ok(bytes) = std::fs::read(path.join(name)) else { continue };
        let text = if name.ends_with(".safetensors") {
            let length = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
            &bytes[8..8 + length]
        } else {
            &bytes[..]
        };
        parts.push([&[letter], text.trim_ascii_end()].concat());
    }
    parts.join(&BETWEEN)
}

/// Holds a seed to what is made now, or writes it.
fn check_seed(target: &str, name: &str, made: &[u8]) {
    let path = folder(target).join(name);
    if std::env::var_os("MILLRACE_WRITE").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, made).unwrap();
    }
    assert!(fs::read(&path).is_ok_and(|file| file == made), "{} is stale", path.display());
}

/// The same numbers each time.
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % sides.max(1)
    }

    /// A range of at most `most` bytes.
    fn range(&mut self, bytes: &[u8], most: usize) -> std::ops::Range<usize> {
        let start = self.throw(bytes.len() + 1);
        start..(start + self.throw(most) + 1).min(bytes.len())
    }
}

/// What bounds are made of, and what structures a text.
const TELLING: [&[u8]; 16] = [
    b"\0",
    b"\xff",
    b"\x7f",
    b"\"",
    b"\\",
    b"[",
    b"{",
    b"}",
    b"null",
    b"\n",
    b"'",
    b"-1",
    b"1e999",
    b"\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"\0\0\0\0\x01\0\0\0",
    b"\xe2\x96\x81",
];

/// A seed with some changes.
fn changed(seeds: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = seeds[dice.throw(seeds.len())].clone();
    for _ in 0..=dice.throw(4) {
        let range = dice.range(&bytes, 16);
        match dice.throw(6) {
            0 => bytes[range].iter_mut().take(1).for_each(|b| *b ^= 1 << dice.throw(8)),
            1 => drop(bytes.drain(range)),
            2 => drop(bytes.splice(range, [dice.throw(256) as u8])),
            3 => drop(bytes.splice(range.start..range.start, bytes[range.clone()].to_vec())),
            4 => {
                let telling = TELLING[dice.throw(TELLING.len())];
                let end = (range.start + telling.len()).min(bytes.len());
                drop(bytes.splice(range.start..end, telling.iter().copied()));
            }
            _ => {
                let other = &seeds[dice.throw(seeds.len())];
                let part = dice.range(other, 64);
                drop(bytes.splice(range, other[part].iter().copied()));
            }
        }
    }
    bytes
}

/// What coverage would lead to is left to `make fuzz`: these are so many inputs, the same in each run.
fn changed_seeds_are_borne(name: &str, rounds: usize) {
    let (_, target) = TARGETS.into_iter().find(|(known, _)| *known == name).unwrap();
    let (seeds, mut dice) = (seeds(name), Dice(1));
    for _ in 0..rounds {
        run(name, target, &changed(&seeds, &mut dice));
    }
}

#[test]
fn changed_models_are_borne() {
    changed_seeds_are_borne("gguf", 5_000);
}

#[test]
fn changed_shards_are_borne() {
    changed_seeds_are_borne("shards", 5_000);
}

#[test]
fn changed_folders_are_borne() {
    changed_seeds_are_borne("folder", 5_000);
}

#[test]
fn changed_requests_are_borne() {
    changed_seeds_are_borne("request", 20_000);
}

#[test]
fn changed_texts_are_borne() {
    changed_seeds_are_borne("tokenizer", 50_000);
}

#[test]
fn changed_streams_are_borne() {
    changed_seeds_are_borne("stream", 50_000);
}

#[test]
fn changed_grammars_are_borne() {
    changed_seeds_are_borne("grammar", 1_000);
}

#[test]
fn changed_key_files_are_borne() {
    changed_seeds_are_borne("keys", 20_000);
}
