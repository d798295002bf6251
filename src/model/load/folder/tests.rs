//! Folders as people have them: what differs in the writing only makes no difference, what cannot be read is named.

use std::fs;
use std::path::Path;

use serde_json::{Value as Json, json};

use crate::config::Quantize;
use crate::model::arch::describe;
use crate::model::load::gguf::Value;
use crate::model::load::{Checkpoint, SamplingDefaults};

/// The small model of a family after a change to its folder.
fn changed(family: &str, change: impl FnOnce(&Path)) -> Result<Checkpoint, String> {
    let folder = tempfile::tempdir().unwrap();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models").join(family);
    for file in fs::read_dir(from).unwrap() {
        let path = file.unwrap().path();
        fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    change(folder.path());
    let checkpoint = Checkpoint::open(folder.path(), Quantize::None).map_err(|e| e.to_string())?;
    let described = describe(&checkpoint.metadata, &checkpoint.tensors, &checkpoint.unusable);
    described.map(|_| checkpoint).map_err(|e| e.to_string())
}

/// The same after a change to a file of JSON.
fn edited(family: &str, file: &str, change: impl FnOnce(&mut Json)) -> Result<Checkpoint, String> {
    changed(family, |folder| {
        let path = folder.join(file);
        let mut json = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut json);
        fs::write(path, json.to_string()).unwrap();
    })
}

fn assert_same(family: &str, found: Result<Checkpoint, String>) {
    let plain = changed(family, |_| {}).unwrap();
    let found = found.unwrap_or_else(|reason| panic!("{family}: {reason}"));
    assert_eq!(found.metadata.values, plain.metadata.values, "{family}");
    assert!(found.tensors.keys().eq(plain.tensors.keys()), "{family}");
}

#[test]
fn what_is_only_written_otherwise_makes_no_difference() {
    const CONFIG: &str = "config.json";
    assert_same(
        "llama",
        edited("llama", CONFIG, |config| {
            config["hidden_size"] = json!(32.0);
            config["num_hidden_layers"] = json!(2.0);
            config["sliding_window"] = json!(-1);
            config["pad_token_id"] = json!(-1);
            config["initializer_range"] = json!("NaN");
        }),
    );
    assert_same(
        "phi3-longrope",
        edited("phi3-longrope", CONFIG, |config| {
            let scaling = config["rope_scaling"].as_object_mut().unwrap();
            scaling.retain(|key, _| !["type", "rope_type"].contains(&key.as_str()));
            scaling.insert("type".to_owned(), json!("su"));
        }),
    );
    assert_same(
        "smollm3",
        edited("smollm3", CONFIG, |config| {
            let layers = config["num_hidden_layers"].as_u64().unwrap();
            config["no_rope_layers"] = (1..=layers).map(|i| i % 4 != 0).collect();
        }),
    );
    assert_same(
        "llama3",
        edited("llama3", "generation_config.json", |config| {
            config["top_k"] = json!(-1);
            config["pad_token_id"] = json!(-1);
        }),
    );
    assert_same(
        "qwen2",
        changed("qwen2", |folder| {
            for file in fs::read_dir(folder).unwrap() {
                let path = file.unwrap().path();
                if path.extension().is_some_and(|e| e == "json") {
                    let text = fs::read(&path).unwrap();
                    fs::write(path, [b"\xef\xbb\xbf", &text[..]].concat()).unwrap();
                }
            }
        }),
    );
}

/// What Python writes where JSON has no number.
#[test]
fn numbers_that_json_has_not_are_refused_where_they_are_used() {
    let with = |key: &str, word: &str| {
        changed("llama", |folder| {
            let path = folder.join("config.json");
            let mut config: Json = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            config[key] = json!("HERE");
            fs::write(path, config.to_string().replace("\"HERE\"", word)).unwrap();
        })
    };
    for word in ["NaN", "Infinity", "-Infinity"] {
        assert_same("llama", with("initializer_range", word));
        for key in ["rope_theta", "rms_norm_eps"] {
            let reason = with(key, word).unwrap_err();
            assert!(reason.ends_with(&format!("config.json: {key} is not a number")), "{reason}");
        }
        let reason = with("hidden_size", word).unwrap_err();
        assert!(reason.ends_with("config.json: hidden_size is not an integer"), "{reason}");
    }
}

#[test]
fn errors_about_ends_name_their_file() {
    for file in ["config.json", "generation_config.json"] {
        for wrong in [json!("</s>"), json!([2, "x"]), json!(1.5), json!(-2)] {
            let found = edited("llama", file, |config| config["eos_token_id"] = wrong.clone());
            // The other file's is not asked for.
            if file == "config.json" {
                found.unwrap();
                let found = changed("llama", |folder| {
                    fs::remove_file(folder.join("generation_config.json")).unwrap();
                    let path = folder.join(file);
                    let mut config: Json =
                        serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
                    config["eos_token_id"] = wrong.clone();
                    fs::write(path, config.to_string()).unwrap();
                });
                let reason = found.unwrap_err();
                assert!(
                    reason.ends_with("config.json: eos_token_id is neither a token nor several"),
                    "{reason}"
                );
                continue;
            }
            let reason = found.unwrap_err();
            assert!(
                reason.ends_with(
                    "generation_config.json: eos_token_id is neither a token nor several"
                ),
                "{reason}"
            );
        }
    }
    // -1 is none, so that the other file is asked.
    let found =
        edited("llama", "generation_config.json", |config| config["eos_token_id"] = json!(-1));
    assert_same("llama", found);
}

#[test]
fn what_is_not_sampled_is_the_likeliest() {
    let temperature = |change: &dyn Fn(&mut Json)| {
        let found = edited("llama3", "generation_config.json", change).unwrap();
        SamplingDefaults::of(&found.metadata).temperature
    };
    assert!((temperature(&|_| {}) - 0.6).abs() < 1e-6);
    assert!((temperature(&|config| config["do_sample"] = json!(true)) - 0.6).abs() < 1e-6);
    assert!(temperature(&|config| config["do_sample"] = json!(false)) == 0.0);
    let found = edited("llama3", "generation_config.json", |config| config["top_k"] = json!(50.0));
    let top_k = found.unwrap().metadata.values["general.sampling.top_k"].clone();
    assert_eq!(top_k, Value::U64(50));
}

#[test]
fn errors_use_the_words_of_the_folder() {
    let reason = |family: &str, change: &dyn Fn(&mut Json)| {
        edited(family, "config.json", change).unwrap_err()
    };
    for (family, key, value, says) in [
        ("gpt2", "n_head", json!(0), "config.json: n_head is not in 1..="),
        ("gpt2", "layer_norm_epsilon", json!(null), "config.json: layer_norm_epsilon is missing"),
        ("starcoder2", "norm_epsilon", json!(1), "config.json: norm_epsilon is above 0.01"),
        (
            "granite",
            "logits_scaling",
            json!(0),
            "config.json: logits_scaling is not a positive number",
        ),
        (
            "gemma2",
            "query_pre_attn_scalar",
            json!(0),
            "config.json: query_pre_attn_scalar is not a positive",
        ),
        (
            "qwen2-yarn",
            "rope_scaling",
            json!({"type": "yarn", "factor": 0}),
            "config.json: factor of rope_scaling is not a positive number",
        ),
        (
            "mixtral",
            "num_experts_per_tok",
            json!(100),
            "config.json: num_experts_per_tok (100) is above config.json: num_local_experts",
        ),
        (
            "mistral",
            "max_position_embeddings",
            json!(null),
            "config.json: max_position_embeddings is missing",
        ),
    ] {
        let found = reason(family, &|config| config[key] = value.clone());
        assert!(found.contains(says), "{family}: {found}");
    }
}
