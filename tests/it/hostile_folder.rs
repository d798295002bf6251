//! Model folders that lie, break off or are something else (row 31 of `docs/faults.md`), as `hostile_model` has it for files.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::{Value, json};

use crate::hostile_model::refusal_with;

const INDEX: &str = "model.safetensors.index.json";

/// A copy of the small model of a family, in the folder `hostile`.
struct Folder(tempfile::TempDir);

impl Folder {
    fn of(family: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models").join(family);
        fs::create_dir(home.path().join("hostile")).unwrap();
        for file in fs::read_dir(from).unwrap() {
            let path = file.unwrap().path();
            let name = path.file_name().unwrap();
            if path.extension().is_none_or(|e| e != "gguf") && name != "expected.json" {
                fs::copy(&path, home.path().join("hostile").join(name)).unwrap();
            }
        }
        Self(home)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.0.path().join("hostile").join(name), bytes).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.0.path().join("hostile").join(name)).unwrap();
    }

    /// Changes what stands in a JSON file.
    fn change(&self, name: &str, change: impl FnOnce(&mut Value)) {
        let path = self.0.path().join("hostile").join(name);
        let mut value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut value);
        fs::write(path, value.to_string()).unwrap();
    }

    /// Changes the header of the weights.
    fn change_header(&self, change: impl FnOnce(&mut Value)) {
        let path = self.0.path().join("hostile/model.safetensors");
        let bytes = fs::read(&path).unwrap();
        let length = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
        let mut header = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
        change(&mut header);
        self.write("model.safetensors", weights(&header.to_string(), &bytes[8 + length..]));
    }

    /// Changes the second number of a tensor of f16.
    fn change_number(&self, tensor: &str, number: [u8; 2]) {
        let path = self.0.path().join("hostile/model.safetensors");
        let mut bytes = fs::read(&path).unwrap();
        let length = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
        let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
        assert_eq!(header[tensor]["dtype"], "F16");
        let at = header[tensor]["data_offsets"][0].as_u64().unwrap() as usize + 8 + length + 2;
        bytes[at..at + 2].copy_from_slice(&number);
        self.write("model.safetensors", bytes);
    }

    /// `serve` refuses it in one line that says this.
    fn assert_refused(&self, says: &str) {
        self.assert_refused_with(&[], says);
    }

    fn assert_refused_with(&self, options: &[&str], says: &str) {
        let line = refusal_with(self.0.path(), "hostile", options, says);
        assert!(line.contains("hostile: ") && line.contains(says), "{says}: {line}");
    }
}

fn weights(header: &str, numbers: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), numbers].concat()
}

fn assert_config_refused(says: &str, change: impl FnOnce(&mut Value)) {
    let folder = Folder::of("llama");
    folder.change("config.json", change);
    folder.assert_refused(says);
}

fn assert_header_refused(says: &str, change: impl FnOnce(&mut Value)) {
    let folder = Folder::of("llama");
    folder.change_header(change);
    folder.assert_refused(says);
}

fn assert_weights_refused(says: &str, bytes: &[u8]) {
    let folder = Folder::of("llama");
    folder.write("model.safetensors", bytes);
    folder.assert_refused(says);
}

#[test]
fn row_31_a_folder_without_what_it_needs() {
    for (file, says) in [
        ("config.json", "has no config.json"),
        ("tokenizer.json", "has no tokenizer.json"),
        ("model.safetensors", "has neither model.safetensors nor"),
    ] {
        let folder = Folder::of("llama");
        folder.remove(file);
        folder.assert_refused(says);
    }
    let folder = Folder::of("llama");
    folder.remove("model.safetensors");
    folder.write("pytorch_model.bin", b"\x80\x02cos\nsystem\n");
    folder.assert_refused("pickles, which it has, could run any code and are never read");
    let folder = Folder::of("llama");
    folder.remove("config.json");
    symlink("/dev/zero", folder.0.path().join("hostile/config.json")).unwrap();
    folder.assert_refused("config.json is not a file");
    let folder = Folder::of("llama");
    folder.write("config.json", vec![b' '; 3 << 20]);
    folder.assert_refused("config.json is longer than");
}

#[test]
fn row_31_an_index_leads_nowhere_else() {
    for file in
        ["../x.safetensors", "/dev/zero", "a/b.safetensors", "..", "", "x.bin", ".safetensors/.."]
    {
        let folder = Folder::of("qwen2");
        folder.change(INDEX, |index| index["weight_map"]["model.norm.weight"] = json!(file));
        folder.assert_refused("index.json names the file");
    }
    let folder = Folder::of("qwen2");
    folder.change(INDEX, |index| index["weight_map"]["x"] = json!("absent.safetensors"));
    folder.assert_refused("absent.safetensors is missing");
    let folder = Folder::of("qwen2");
    folder.change(INDEX, |index| {
        index["weight_map"]["model.norm.weight"] = json!("model-00001-of-00003.safetensors");
    });
    folder.assert_refused("tensor model.norm.weight is not in model-00001-of-00003.safetensors");
    let folder = Folder::of("qwen2");
    folder.change(INDEX, |index| index["weight_map"] = json!({}));
    folder.assert_refused("index.json names no file");
    let folder = Folder::of("qwen2");
    folder.change(INDEX, |index| {
        let files = (0..2000).map(|i| (format!("t{i}"), json!(format!("{i}.safetensors"))));
        index["weight_map"] = Value::Object(files.collect());
    });
    folder.assert_refused("names more than 1024 files");
}

#[test]
fn row_31_headers_that_the_file_does_not_hold() {
    for length in [u64::MAX, 1 << 62, 1 << 40, 33 << 20] {
        assert_weights_refused(
            &format!("claims a header of {length} bytes"),
            &length.to_le_bytes(),
        );
    }
    assert_weights_refused("more than it has", &1000_u64.to_le_bytes());
    assert_weights_refused("is no safetensors file", b"short");
    assert_weights_refused("cannot be understood", &weights("{\"a\": ", b""));
    assert_weights_refused("cannot be understood", &weights(&"[".repeat(100_000), b""));
    let entry = r#"{"dtype":"F32","shape":[1],"data_offsets":[0,4]}"#;
    let twice = format!(r#"{{"a":{entry},"a":{entry}}}"#);
    assert_weights_refused("tensor a is there twice", &weights(&twice, &[0; 4]));
    let many: Vec<String> = (0..70_000).map(|i| format!(r#""{i}":{entry}"#)).collect();
    let many = format!("{{{}}}", many.join(","));
    assert_weights_refused("there are more than 65536 tensors", &weights(&many, &[0; 4]));
}

#[test]
fn row_31_tensors_that_are_not_where_they_say() {
    const NORM: &str = "model.norm.weight";
    for (entry, says) in [
        (
            json!({"dtype": "F16", "shape": [32], "data_offsets": [0, 1_u64 << 40]}),
            "lies at 0..1099511627776",
        ),
        (json!({"dtype": "F16", "shape": [32], "data_offsets": [64, 0]}), "lies at 64..0"),
        (
            json!({"dtype": "F16", "shape": [1_u64 << 33, 1_u64 << 33], "data_offsets": [0, 64]}),
            "lies at 0..64",
        ),
        (
            json!({"dtype": "F16", "shape": [32], "data_offsets": [1_u64 << 40, (1_u64 << 40) + 64]}),
            "ends at byte",
        ),
        (json!({"dtype": "F16", "shape": [32], "data_offsets": [0, 64]}), "overlaps"),
        (
            json!({"dtype": "F8_E4M3", "shape": [32], "data_offsets": [0, 32]}),
            "has type F8_E4M3, which is not supported",
        ),
        (json!({"dtype": "F16", "shape": [], "data_offsets": [0, 2]}), "has the dimensions []"),
        (json!({"dtype": "F16", "shape": [0], "data_offsets": [0, 0]}), "is empty"),
    ] {
        assert_header_refused(says, |header| header[NORM] = entry);
    }
    assert_header_refused("tensor model.norm.weight is missing", |header| {
        header.as_object_mut().unwrap().remove(NORM);
    });
    assert_header_refused("tensor model.layers.1.self_attn.k_proj.weight is missing", |header| {
        header.as_object_mut().unwrap().remove("model.layers.1.self_attn.k_proj.weight");
    });
    assert_header_refused("tensor model.layers.1.self_attn.k_proj.weight has type I64", |header| {
        header["model.layers.1.self_attn.k_proj.weight"]["dtype"] = json!("I64");
    });
    assert_header_refused("tensor lm_head.weight is missing", |header| {
        header.as_object_mut().unwrap().remove("lm_head.weight");
    });
    for (name, says) in [
        ("model.layers.0.mlp.up_proj.weight_scale", "has no use in this architecture"),
        ("model.layers.0.attention.bias", "has no use in this architecture"),
        ("model.layers.0.mlp.experts.0.up_proj.weight", "is of no layer or expert"),
        ("model.layers.7.mlp.up_proj.weight", "is of no layer or expert"),
    ] {
        assert_header_refused(says, |header| header[name] = header[NORM].clone());
    }
    assert_header_refused("tensor visual.weight of model.safetensors has no use", |header| {
        header["visual.weight"] = header[NORM].clone();
    });
}

#[test]
fn row_31_halves_of_mxfp4_that_do_not_fit() {
    const BLOCKS: &str = "model.layers.0.mlp.experts.down_proj_blocks";
    const SCALES: &str = "model.layers.0.mlp.experts.down_proj_scales";
    let refused = |says: &str, change: &dyn Fn(&mut Value)| {
        let folder = Folder::of("gpt_oss-mxfp4");
        folder.change_header(change);
        folder.assert_refused(says);
    };
    for (name, says) in [(BLOCKS, "has no _blocks"), (SCALES, "has no _scales")] {
        refused(says, &|header| drop(header.as_object_mut().unwrap().remove(name)));
    }
    for (name, shape, says) in [
        (BLOCKS, json!([4, 32, 16]), "not blocks of 16 bytes"),
        (BLOCKS, json!([4, 32, 2, 8]), "not blocks of 16 bytes"),
        (BLOCKS, json!([4, 16, 2, 16]), "which are not those of"),
        (SCALES, json!([4, 16, 2]), "which are not those of"),
        (SCALES, json!([4, 32, 2]), "lies at"),
        (SCALES, json!([1_u64 << 32, 1_u64 << 32, 16]), "lies at"),
    ] {
        refused(says, &|header| header[name]["shape"] = shape.clone());
    }
    // Both halves agree, and are those of another matrix.
    refused("down_proj_blocks is 4 x 16 x 64, the hyperparameters say 4 x 32 x 32", &|header| {
        header[BLOCKS]["shape"] = json!([4, 16, 2, 16]);
        header[SCALES]["shape"] = json!([4, 16, 2]);
    });
    refused("has type U8, which is not supported", &|header| {
        let bytes = header[SCALES].clone();
        header["model.layers.0.mlp.experts.down_proj_bias"] = bytes;
    });
    refused("is of MXFP4, and is not of type U8", &|header| {
        header[SCALES] = header["model.layers.0.mlp.experts.down_proj_bias"].clone();
    });
    refused("is there twice", &|header| {
        let weight = header["model.layers.0.mlp.router.weight"].clone();
        header["model.layers.0.mlp.experts.down_proj"] = weight;
    });
}

#[test]
fn row_31_configurations_that_no_model_has() {
    for (key, value, says) in [
        ("model_type", json!("tf5"), "is not supported (supported: "),
        ("model_type", json!(null), "model_type is missing"),
        ("hidden_size", json!(-1), "hidden_size is not an integer"),
        ("hidden_size", json!(1_u64 << 60), "config.json: hidden_size is not in 1..="),
        (
            "num_hidden_layers",
            json!(1_000_000_000),
            "config.json: num_hidden_layers is not in 1..=",
        ),
        ("num_attention_heads", json!(0), "config.json: num_attention_heads is not in 1..="),
        ("rope_theta", json!(0), "config.json: rope_theta is not a positive number"),
        ("rope_scaling", json!({"rope_type": "spiral"}), "rope_type spiral is not supported"),
        (
            "rope_scaling",
            json!({"rope_type": "llama3"}),
            "factor of rope_scaling is not a positive number",
        ),
        ("rope_scaling", json!([1]), "rope_scaling is not an object"),
        (
            "quantization_config",
            json!({"quant_method": "gptq"}),
            "its weights are quantised (gptq)",
        ),
        ("hidden_act", json!("relu"), "hidden_act relu is not supported"),
        ("vocab_size", json!("many"), "vocab_size is not an integer"),
        ("rms_norm_eps", json!(1e30), "config.json: rms_norm_eps is above 0.01"),
        ("rms_norm_eps", json!(null), "config.json: rms_norm_eps is missing"),
        (
            "num_key_value_heads",
            json!(3),
            "config.json: num_attention_heads (2) is not a multiple of config.json: num_key_value_heads (3)",
        ),
        (
            "intermediate_size",
            json!(96),
            "mlp.gate_proj.weight is 64 x 32, the hyperparameters say 96 x 32",
        ),
        ("vocab_size", json!(321), "vocab_size is 321, the embedding has 320 rows"),
        ("num_hidden_layers", json!(1), "is of no layer or expert that config.json has"),
        ("rope_scaling", json!({"rope_type": "linear"}), "factor of rope_scaling is missing"),
    ] {
        assert_config_refused(says, |config| config[key] = value);
    }
    let folder = Folder::of("llama");
    folder.write("config.json", "[".repeat(100_000));
    folder.assert_refused("config.json cannot be understood");
    let folder = Folder::of("llama");
    folder.write("tokenizer.json", "{\"added_tokens\": 7}");
    folder.assert_refused("tokenizer.json");
}

/// What is not said, and differs between the classes of transformers, is not guessed.
#[test]
fn row_31_configurations_that_say_too_little() {
    for (family, key) in [
        ("granite", "attention_multiplier"),
        ("gemma2", "final_logit_softcapping"),
        ("gemma3", "rope_theta"),
        ("gpt_oss", "layer_types"),
        ("smollm3", "rope_theta"),
    ] {
        let folder = Folder::of(family);
        folder.change("config.json", |config| drop(config.as_object_mut().unwrap().remove(key)));
        folder.assert_refused(&format!("config.json: {key} is missing"));
    }
    let folder = Folder::of("gemma3");
    folder.change("config.json", |config| config["layer_types"] = json!(["full_attention"]));
    folder.assert_refused("layer_types is not one for each layer");
}

#[test]
fn row_31_tokens_that_no_tokenizer_has() {
    let folder = Folder::of("qwen2");
    folder.change("tokenizer.json", |tokenizer| {
        let token = json!({"id": 288, "content": "aaab".repeat(50_000), "special": true,
            "single_word": false, "lstrip": false, "rstrip": false, "normalized": false});
        tokenizer["added_tokens"].as_array_mut().unwrap().push(token);
    });
    folder.assert_refused("special token 288 is longer than 1024 bytes");
    let folder = Folder::of("llama");
    folder.change("generation_config.json", |config| config["eos_token_id"] = json!(1_u64 << 40));
    folder.assert_refused("generation_config.json: eos_token_id 1099511627776 is no token");
}

/// The bound of `refusal`, which is the file's length and a constant, holds for files that are nearly as long as one may
/// be, whatever they are full of.
#[test]
fn row_31_a_tokenizer_takes_no_more_memory_than_it_is_long() {
    const BYTES: usize = 60 << 20;
    let repeated = |text: &str| [text, ","].concat().repeat(BYTES / (text.len() + 1)) + text;
    let numbered = |text: &str| {
        let each: Vec<String> =
            (0..BYTES / (text.len() + 8)).map(|i| text.replace('#', &i.to_string())).collect();
        each.join(",")
    };
    let part = |kind: &str, field: &str, element: &str| {
        format!(r#"{{"type":"{kind}","{field}":[{}]}}"#, repeated(element))
    };
    for (path, text, says) in [
        ("/normalizer", part("NFKC", "x", "0"), "normalizer NFKC is not supported"),
        ("/normalizer", part("Sequence", "normalizers", "{}"), "more than 64 elements"),
        ("/decoder", part("WordPiece", "content", "[]"), "tokenizer.json: "),
        ("/decoder", part("WordPiece", "x", "{}"), "decoder WordPiece is not supported"),
        (
            "/post_processor",
            part("TemplateProcessing", "single", r#"{"Sequence":0}"#),
            "more than 64 elements",
        ),
        (
            "/post_processor",
            part("BertProcessing", "x", "null"),
            "post_processor BertProcessing is not supported",
        ),
        (
            "/added_tokens",
            format!("[{}]", repeated(r#"{"id":0,"content":""}"#)),
            "more than 131072 elements",
        ),
        ("/model/merges", format!("[{}]", repeated(r#"["a","b"]"#)), "more than 1048576 elements"),
        ("/model/merges", format!("[{}]", repeated(r#""a b""#)), "more than 1048576 elements"),
        ("/model/vocab", format!("{{{}}}", numbered(r##""#":0"##)), "more than 1048576 words"),
        ("/model/vocab", format!("[{}]", repeated("[0]")), "model.vocab is no object"),
        ("/model/type", format!("\"{}\"", "x".repeat(BYTES)), "is not supported"),
        ("/model/dropout", format!("\"{}\"", "x".repeat(BYTES)), "invalid type: string"),
    ] {
        let folder = Folder::of("llama");
        let path_of_file = folder.0.path().join("hostile/tokenizer.json");
        let mut value: Value = serde_json::from_slice(&fs::read(path_of_file).unwrap()).unwrap();
        let (parent, field) = path.rsplit_once('/').unwrap();
        value.pointer_mut(parent).unwrap()[field] = json!("HERE");
        folder.write("tokenizer.json", value.to_string().replacen("\"HERE\"", &text, 1));
        folder.assert_refused(says);
    }
}

#[test]
fn row_31_weights_that_are_not_finite() {
    const NAN: [u8; 2] = [0, 0x7e];
    const INFINITY: [u8; 2] = [0, 0x7c];
    for tensor in ["model.norm.weight", "model.layers.1.self_attn.q_proj.weight", "lm_head.weight"]
    {
        for number in [NAN, INFINITY] {
            for options in [&["--quantize", "none"][..], &[], &["--kernels", "candle"]] {
                let folder = Folder::of("llama");
                folder.change_number(tensor, number);
                folder.assert_refused_with(
                    options,
                    &format!("tensor {tensor}: holds a number that is not finite"),
                );
            }
        }
    }
}
