//! Models of a hub that are several files: split GGUF, folders. And what is told of them before they come.

use std::fs;
use std::path::{Path, PathBuf};

use millrace::model::load::gguf::Value;
use millrace::model::load::gguf::testing::tiny_llama;
use serde_json::{Value as Json, json};
use tempfile::{TempDir, tempdir};

use crate::fake_hub::{
    Answer, COMMIT, Host, NAME, cached, content, family, hub, outcome, pull, sha256, storage,
};
use crate::hub_faults::refusal;
use crate::support::{KEY, Server};

type Files = Vec<(&'static str, Vec<u8>)>;

/// A hub and a storage that have these files.
fn hosts(files: &Files) -> (Host, Host) {
    let storage = Host::start(storage(files.clone()));
    (Host::start(hub(files.clone(), storage.url())), storage)
}

fn is_gguf(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|e| e == "gguf")
}

fn is_of_folder(name: &str) -> bool {
    !is_gguf(name) && name != "expected.json"
}

fn split() -> Files {
    family("llama-linear", is_gguf)
}

/// What is read of a folder, and a file that is not.
fn folder() -> Files {
    let mut files = family("qwen2", is_of_folder);
    files.push(("README.md", b"A model.".to_vec()));
    files.push(("special_tokens_map.json", b"{}".to_vec()));
    files
}

fn changed(files: &mut Files, name: &str, change: impl FnOnce(&mut Json)) {
    let (_, content) = files.iter_mut().find(|(n, _)| *n == name).unwrap();
    let mut value = serde_json::from_slice(content).unwrap();
    change(&mut value);
    *content = value.to_string().into_bytes();
}

fn snapshot(home: &TempDir) -> PathBuf {
    cached(home).join("snapshots").join(COMMIT)
}

/// Names in the snapshot.
fn there(home: &TempDir) -> Vec<String> {
    let entries = fs::read_dir(snapshot(home)).into_iter().flatten();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Serves `model` offline, from what is in the cache, under the name `served`.
fn assert_served(home: &TempDir, model: &str, served: &str) {
    let args = [model, "--kv-cache-memory", "16MiB", "--offline"];
    let server = Server::spawn_with(&args, |command| {
        command.env("MILLRACE_API_KEY", KEY).env("HF_HOME", home.path().join("huggingface"));
        command.env("HF_ENDPOINT", "http://127.0.0.1:9");
    });
    server.wait_ready();
    let body = json!({"model": served, "prompt": "Once", "max_tokens": 2});
    let answer = server.client().post("/v1/completions", &body);
    assert_eq!(answer.status, 200, "{}", answer.json());
}

#[test]
fn row_32_all_parts_of_a_split_model_come_and_are_served_without_the_hub() {
    let (home, files) = (tempdir().unwrap(), split());
    let (host, storage) = hosts(&files);
    // By any of its parts.
    let (code, out, err) =
        outcome(&mut pull(&home, &host.url(), "maker/tiny:model-00002-of-00003.gguf"));
    assert_eq!(code, 0, "{err}");
    let first = snapshot(&home).join("model-00001-of-00003.gguf");
    assert_eq!(out.lines().last(), first.to_str());
    assert!(err.contains("model-00001-of-00003.gguf and 2 more files (1 MB, licence"), "{err}");
    assert!(err.contains("serving it takes about") && err.contains("GiB of memory"), "{err}");
    for (name, content) in &files {
        assert!(fs::read(snapshot(&home).join(name)).unwrap() == *content);
    }
    assert_eq!(storage.streams(), [0, 0, 0]);
    assert_served(&home, NAME, "model");
    // With a part that is gone it is not there.
    fs::remove_file(snapshot(&home).join("model-00003-of-00003.gguf")).unwrap();
    let e = refusal(pull(&home, &host.url(), NAME).arg("--offline"));
    assert!(e.contains("but not its part model-00003-of-00003.gguf"), "{e}");
    let (code, _, err) = outcome(&mut pull(&home, &host.url(), NAME));
    assert!(code == 0 && err.contains("2 of them here already"), "{err}");
    assert_eq!(storage.streams().len(), 3, "its content is still there");
}

#[test]
fn row_32_each_part_is_verified_and_kept_by_itself() {
    let (home, files) = (tempdir().unwrap(), split());
    let wrong = files.clone();
    let storage = Host::start(move |asked| {
        let (name, mut content) = wrong.iter().find(|f| asked.target[1..] == *f.0).unwrap().clone();
        if name.contains("00002-of") {
            content[10_000] ^= 1;
        }
        Answer::part(&content, asked)
    });
    let host = Host::start(hub(files.clone(), storage.url()));
    let e = refusal(&mut pull(&home, &host.url(), NAME));
    let right = sha256(&files.iter().find(|(name, _)| name.contains("00002-of")).unwrap().1);
    assert!(e.contains("is not the file, and was removed") && e.contains(&right), "{e}");
    assert_eq!(there(&home), ["model-00001-of-00003.gguf"]);
    let (host, storage) = hosts(&files);
    let (code, _, err) = outcome(&mut pull(&home, &host.url(), NAME));
    assert_eq!(code, 0, "{err}");
    assert_eq!(storage.streams().len(), 2, "the first one is there");
}

#[test]
fn row_32_a_folder_comes_as_it_is_read_and_is_served_without_the_hub() {
    let (home, files) = (tempdir().unwrap(), folder());
    let (host, storage) = hosts(&files);
    let (code, out, err) = outcome(&mut pull(&home, &host.url(), NAME));
    assert_eq!(code, 0, "{err}");
    assert_eq!(out.trim_end(), snapshot(&home).to_str().unwrap());
    let mut names: Vec<_> =
        files.iter().map(|(name, _)| *name).filter(|n| *n != "README.md").collect();
    names.sort_unstable();
    assert_eq!(there(&home), names);
    for name in names {
        let content = &files.iter().find(|(n, _)| *n == name).unwrap().1;
        assert!(fs::read(snapshot(&home).join(name)).unwrap() == *content, "{name}");
    }
    let told = err.find("serving it takes about").unwrap();
    assert!(told < err.find("downloading").unwrap(), "{err}");
    assert!(
        err.contains("model-00001-of-00003.safetensors and 9 more files (1 MB, licence"),
        "{err}"
    );
    assert_served(&home, NAME, "tiny");
    // A second time only the list is asked for: which of its files are best the hub alone knows.
    let (asked, stored) = (host.asked().len(), storage.connections());
    let (code, again, err) = outcome(&mut pull(&home, &host.url(), NAME));
    assert_eq!((code, again), (0, out), "{err}");
    assert_eq!((host.asked().len(), storage.connections()), (asked + 1, stored));
    fs::remove_file(snapshot(&home).join("model-00002-of-00003.safetensors")).unwrap();
    let e = refusal(pull(&home, &host.url(), NAME).arg("--offline"));
    assert!(e.contains("has no model-00002-of-00003.safetensors, that its"), "{e}");
}

#[test]
fn row_32_serve_fetches_a_folder_and_calls_it_by_its_repository() {
    let (home, mut files) = (tempdir().unwrap(), family("llama3", is_of_folder));
    // As people leave it.
    files.push(("chat_template.jinja", Vec::new()));
    let (host, _storage) = hosts(&files);
    let server = Server::spawn_with(&[NAME, "--kv-cache-memory", "16MiB"], |command| {
        command.env("MILLRACE_API_KEY", KEY).env("HF_HOME", home.path().join("huggingface"));
        command.env("HF_ENDPOINT", host.url());
    });
    server.wait_ready();
    assert_eq!(server.client().get("/v1/models").json()["data"][0]["id"], "tiny");
}

#[test]
fn row_32_a_file_comes_before_a_folder() {
    let (home, mut files) = (tempdir().unwrap(), folder());
    files.extend(family("qwen2", |name| name == "model.gguf"));
    let (host, _storage) = hosts(&files);
    let (code, out, err) = outcome(&mut pull(&home, &host.url(), NAME));
    assert!(code == 0 && out.trim_end().ends_with("model.gguf"), "{err}");
    assert_eq!(there(&home), ["model.gguf"]);
}

#[test]
fn row_32_an_index_leads_nowhere_else() {
    for (file, said) in [
        ("../../etc/passwd", "names the file ../../etc/passwd"),
        ("sub/model.safetensors", "names the file sub/model.safetensors"),
        ("none.safetensors", "has no none.safetensors, that its"),
    ] {
        let (home, mut files) = (tempdir().unwrap(), folder());
        changed(&mut files, "model.safetensors.index.json", |index| {
            index["weight_map"]["model.norm.weight"] = json!(file);
        });
        let (host, storage) = hosts(&files);
        let e = refusal(&mut pull(&home, &host.url(), NAME));
        assert!(e.contains(said), "{e}");
        assert_eq!(storage.connections(), 0, "no weights are asked for");
    }
    let (home, mut files) = (tempdir().unwrap(), folder());
    let (_, index) = files.iter_mut().find(|(n, _)| n.ends_with("index.json")).unwrap();
    index.resize((16 << 20) + 1, b' ');
    let (host, _storage) = hosts(&files);
    let e = refusal(&mut pull(&home, &host.url(), NAME));
    assert!(e.contains("has a model.safetensors.index.json of 16777217 bytes, above"), "{e}");
    assert!(host.sent() < 1 << 20);
}

#[test]
fn row_32_small_files_are_held_against_the_hash_that_git_has() {
    let (home, files) = (tempdir().unwrap(), folder());
    let (right, storage) = (hub(files, String::new()), Host::start(|_| Answer::status(404)));
    let host = Host::start(move |asked| {
        let mut answer = right(asked);
        if asked.method == "GET" && asked.target.ends_with("/model.safetensors.index.json") {
            answer.body[0] = b' ';
        }
        answer
    });
    let e = refusal(&mut pull(&home, &host.url(), NAME));
    assert!(e.contains("is not the file, and was removed: its hash in git is"), "{e}");
    assert_eq!((there(&home).len(), storage.connections()), (0, 0));
}

/// A GGUF of some megabytes, where `key` has this value.
fn large(key: &str, value: &str) -> Vec<u8> {
    let mut writer = tiny_llama();
    writer.set(key, &Value::String(value.to_owned()));
    let folder = tempdir().unwrap();
    let path = folder.path().join("large.gguf");
    writer.write(&path).unwrap();
    let mut bytes = fs::read(path).unwrap();
    bytes.resize(bytes.len() + (8 << 20), 0);
    bytes
}

#[test]
fn row_32_what_cannot_be_served_is_refused_before_it_comes() {
    let home = tempdir().unwrap();
    for key in ["general.architecture", "tokenizer.ggml.pre"] {
        let file = large(key, "teleport");
        let (host, storage) = hosts(&vec![("m.gguf", file.clone())]);
        let e = refusal(&mut pull(&home, &host.url(), NAME));
        assert!(e.contains("maker/tiny: m.gguf: ") && e.contains("teleport"), "{e}");
        // In the words of who loads it.
        fs::write(home.path().join("m.gguf"), file).unwrap();
        let mut serve = crate::support::millrace(home.path());
        serve.args(["serve", "m.gguf", "--port", "0", "--kv-cache-memory", "16MiB"]);
        let served = refusal(serve.env("MILLRACE_API_KEY", KEY));
        let reason = |e: &str| e.rsplit("m.gguf: ").next().unwrap().to_owned();
        assert_eq!(reason(&e), reason(&served));
        assert!(storage.sent() <= 1 << 20 && there(&home).is_empty(), "{}", storage.sent());
    }
    let mut files = folder();
    changed(&mut files, "config.json", |config| config["model_type"] = json!("teleport"));
    let (host, storage) = hosts(&files);
    let e = refusal(&mut pull(&home, &host.url(), NAME));
    assert!(e.contains("maker/tiny: ") && e.contains("teleport"), "{e}");
    assert_eq!(storage.connections(), 0);
}

#[test]
fn row_32_a_tokenizer_of_no_use_is_refused_before_the_weights_come() {
    let home = tempdir().unwrap();
    let mut files = folder();
    changed(&mut files, "tokenizer.json", |tokenizer| {
        tokenizer["model"]["type"] = json!("Teleport");
    });
    let (host, storage) = hosts(&files);
    let e = refusal(&mut pull(&home, &host.url(), NAME));
    assert!(
        e.contains("maker/tiny: ") && e.contains("tokenizer.json") && e.contains("Teleport"),
        "{e}"
    );
    assert!(storage.streams().is_empty());
    assert!(!there(&home).iter().any(|name| name.ends_with(".safetensors")));
}

#[test]
fn what_serving_takes_is_told_before_it_comes() {
    let home = tempdir().unwrap();
    let (host, _storage) = hosts(&vec![("m.gguf", large("general.name", "Large"))]);
    let with = |cache: &str| {
        let mut command = pull(&home, &host.url(), NAME);
        let (code, _, err) = outcome(command.env("MILLRACE_KV_CACHE_MEMORY", cache));
        assert_eq!(code, 0, "{err}");
        fs::remove_dir_all(cached(&home)).unwrap();
        err
    };
    let err = with("1GiB");
    // Blocks so small take a sixteenth more for what is kept of each.
    let line = "maker/tiny: serving it takes about 1.19 GiB of memory (weights 0.00 GiB, KV cache 1.06 GiB)";
    assert!(err.find(line).unwrap() < err.find("downloading").unwrap(), "{err}");
    assert!(!err.contains("will not fit"), "{err}");
    let err = with("900000GiB");
    assert!(err.contains("it will not fit into this machine: its weights take 0.00 GiB"), "{err}");
    // Who would serve it here does not fetch it.
    let mut serve = crate::support::millrace(home.path());
    serve.args(["serve", NAME, "--port", "0", "--kv-cache-memory", "900000GiB"]);
    let e = refusal(serve.env("MILLRACE_API_KEY", KEY).env("HF_ENDPOINT", host.url()));
    assert!(e.contains("more than the") && there(&home).is_empty(), "{e}");
    // With settings that are none it comes all the same.
    assert!(with("many").contains("memory: not known before it is here"));
}

/// Of experts that are one tensor, and of families that candle-transformers computes.
#[test]
fn what_serving_takes_is_told_of_every_kind_of_folder() {
    for name in ["gpt_oss", "gpt_oss-mxfp4", "phi", "lfm2"] {
        let (home, mut files) = (tempdir().unwrap(), family(name, is_of_folder));
        // As some editors and Python leave it.
        let (_, config) = files.iter_mut().find(|(name, _)| *name == "config.json").unwrap();
        let text = String::from_utf8(std::mem::take(config)).unwrap();
        *config = text.replacen('{', "\u{feff}{\"initializer_range\": NaN, ", 1).into_bytes();
        let (host, _storage) = hosts(&files);
        let mut command = pull(&home, &host.url(), NAME);
        let (code, _, err) = outcome(command.env("MILLRACE_KV_CACHE_MEMORY", "1MiB"));
        assert_eq!(code, 0, "{name}: {err}");
        let line = "maker/tiny: serving it takes about 0.1";
        assert!(err.find(line).unwrap() < err.find("downloading").unwrap(), "{name}: {err}");
        assert_served(&home, NAME, "tiny");
    }
    let (home, mut files) = (tempdir().unwrap(), family("phi", is_of_folder));
    changed(&mut files, "config.json", |config| config["qk_layernorm"] = json!(true));
    let (host, _storage) = hosts(&files);
    let e = refusal(&mut pull(&home, &host.url(), NAME));
    let reason = "maker/tiny: config.json: qk_layernorm true is not supported here, only false";
    assert!(e.contains(reason) && there(&home) == ["config.json"], "{e}");
}

#[test]
fn what_cannot_be_told_before_is_no_reason_not_to_come() {
    let whole = large("general.name", "Large");
    let stored = whole.clone();
    let storage = Host::start(move |_| Answer::whole(&stored));
    let host = Host::start(hub(vec![("m.gguf", whole)], storage.url()));
    let strange = content(100_000, 1);
    let (other, _others) = hosts(&vec![("m.gguf", strange)]);
    for url in [host.url(), other.url()] {
        let home = tempdir().unwrap();
        let (code, out, err) = outcome(&mut pull(&home, &url, NAME));
        assert!(code == 0 && Path::new(out.trim_end()).is_file(), "{err}");
        assert!(err.contains("maker/tiny: memory: not known before it is here"), "{err}");
    }
}
