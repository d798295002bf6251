//! Model files that lie, break off or are something else (row 31 of `docs/faults.md`): `serve` ends with 1 and says why in
//! one line that names the file, having taken no more memory than the file is large, and a constant.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use millrace::model::load::gguf::Value;
use millrace::model::load::gguf::testing::{TINY_LAYERS, Writer, tiny, tiny_llama};
use serde_json::json;

use crate::params::resident;
use crate::support::{BIN, KEY, Server, clean};

/// What the process may take beside the file.
const CONSTANT_KIB: u64 = 128 << 10;

/// Most lines that a refusal may have, those of the log included.
const LINES: usize = 12;

/// Runs a command, kills it if it does not end, and leaves its peak of memory in a file: only who waits for a process is
/// told that, and Rust's library does not pass it on.
const MEASURE: &str = "\
import os, sys, threading
pid = os.posix_spawn(sys.argv[2], sys.argv[2:], os.environ)
watchdog = threading.Timer(60, os.kill, (pid, 9))
watchdog.daemon = True
watchdog.start()
_, status, usage = os.wait4(pid, 0)
open(sys.argv[1], 'w').write(str(usage.ru_maxrss))
os._exit(os.waitstatus_to_exitcode(status) & 255)
";

/// What `serve` says of `model`, seen from `home`, and that it says it as it should.
pub(crate) fn refusal(home: &Path, model: &str, what: &str) -> String {
    refusal_with(home, model, &[], what)
}

/// The same with more options.
pub(crate) fn refusal_with(home: &Path, model: &str, options: &[&str], what: &str) -> String {
    let mut command = clean("python3", home);
    command.args(["-c", MEASURE, "peak", BIN, "serve", model, "--port", "0"]).args(options);
    let out = command.env("MILLRACE_API_KEY", KEY).stdin(Stdio::null()).output().unwrap();
    let Output { status, stdout, stderr } = out;
    let text = String::from_utf8(stderr).unwrap_or_else(|e| panic!("{what}: {e}"));
    assert_eq!(status.code(), Some(1), "{what}: {text}");
    assert!(stdout.is_empty() && text.lines().count() <= LINES, "{what}: {text}");
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{what}: {text:?}");
    for trace in ["panic", "backtrace", "a fault of this program"] {
        assert!(!text.contains(trace), "{what}: {text}");
    }
    let errors: Vec<&str> = text.lines().filter(|line| line.contains("error")).collect();
    assert!(errors.len() == 1 && errors[0].starts_with("error: "), "{what}: {text}");
    let peak: u64 = fs::read_to_string(home.join("peak")).unwrap().parse().unwrap();
    let file = bytes(&home.join(model)) >> 10;
    assert!(peak < file + CONSTANT_KIB, "{what}: {peak} KiB for a file of {file} KiB");
    errors[0].to_owned()
}

/// Of a file, or of those in a folder.
fn bytes(path: &Path) -> u64 {
    match fs::read_dir(path) {
        Ok(files) => files.map(|file| bytes(&file.unwrap().path())).sum(),
        Err(_) => fs::metadata(path).map_or(0, |about| about.len()),
    }
}

/// `serve` refuses a file of these bytes by its name and for a reason that contains `says`.
fn assert_refused(bytes: &[u8], says: &str, what: &str) {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("hostile.gguf"), bytes).unwrap();
    let line = refusal(home.path(), "hostile.gguf", what);
    assert!(line.contains("hostile.gguf: ") && line.contains(says), "{what}: {line}");
}

/// The tiny model with a change that makes it hostile.
fn assert_change_refused(says: &str, change: impl FnOnce(&mut Writer)) {
    let mut writer = tiny_llama();
    change(&mut writer);
    assert_refused(&writer.bytes(), says, says);
}

fn text(value: &str) -> Value {
    Value::String(value.to_owned())
}

/// An encoded array of `len` elements of `kind`, of which none follows.
fn hollow_array(kind: u32, len: u64) -> Vec<u8> {
    [&9u32.to_le_bytes()[..], &kind.to_le_bytes(), &len.to_le_bytes()].concat()
}

#[test]
fn row_31_counts_and_lengths_that_the_file_does_not_hold() {
    for count in [1 << 16, 1 << 32, u64::MAX] {
        assert_change_refused(&format!("claims {count} metadata keys"), |w| {
            w.key_count = Some(count);
        });
        assert_change_refused(&format!("claims {count} tensors"), |w| w.tensor_count = Some(count));
    }
    for len in [1 << 31, 1 << 61, u64::MAX] {
        for kind in [0, 8, 9, 10] {
            assert_change_refused("metadata key x.array has", |w| {
                w.set_raw("x.array", hollow_array(kind, len));
            });
        }
        assert_change_refused("metadata key x.string needs", |w| {
            w.set_raw("x.string", [&8u32.to_le_bytes()[..], &len.to_le_bytes()].concat());
        });
    }
    let nested = [&9u32.to_le_bytes()[..], &hollow_array(9, 1)[4..].repeat(6)].concat();
    assert_change_refused("x.nested has arrays nested", |w| {
        w.set_raw("x.nested", nested);
    });
    assert_change_refused("x has the unknown value type 13", |w| {
        w.set_raw("x", 13u32.to_le_bytes().to_vec());
    });
    assert_change_refused("has a name of 70000 bytes", |w| w.tensors[0].name = "x".repeat(70_000));
    for alignment in [0, 3, 1 << 31, 1 << 63] {
        assert_change_refused(&format!("general.alignment is {alignment}, not a power"), |w| {
            w.set("general.alignment", &Value::U64(alignment));
        });
    }
}

#[test]
fn row_31_what_is_large_in_memory_is_as_large_in_the_file() {
    // As many strings as a file may have, one letter each; nothing else is wrong with them.
    assert_change_refused("architecture is missing", |w| {
        w.set("x.strings", &Value::Strings(vec!["a".to_owned(); 2_000_000]));
        w.remove("general.architecture");
    });
    assert_change_refused("x.bytes takes the arrays above", |w| {
        let bytes = vec![0; 3_000_000];
        w.set_raw("x.bytes", [hollow_array(0, bytes.len() as u64), bytes].concat());
    });
    // The bytes of one layer, a thousand times: 120 MB of weights in a file of one megabyte.
    let mut w = tiny_llama();
    w.set("llama.block_count", &Value::U64(1000));
    let offsets: Vec<u64> = {
        let ends = w.tensors.iter().scan(0, |end: &mut u64, tensor| {
            let start = *end;
            *end = (start + tensor.data.len() as u64).next_multiple_of(32);
            Some(start)
        });
        ends.collect()
    };
    let of_first = |name: &str| name.starts_with("blk.0.");
    let first: Vec<_> = w.tensors.iter().cloned().zip(offsets).collect();
    for layer in TINY_LAYERS..1000 {
        for (tensor, offset) in first.iter().filter(|(tensor, _)| of_first(&tensor.name)) {
            let mut again = tensor.clone();
            again.name = tensor.name.replacen('0', &layer.to_string(), 1);
            (again.offset, again.data) = (Some(*offset), Vec::new());
            w.tensors.push(again);
        }
    }
    assert_refused(&w.bytes(), " overlaps blk.", "the same bytes a thousand times");
}

#[test]
fn row_31_needed_tensors_that_are_missing_or_of_another_form() {
    let needed: Vec<String> = tiny_llama().tensors.iter().map(|t| t.name.clone()).collect();
    for name in needed.iter().filter(|name| !name.starts_with("blk.0.")) {
        let says = format!("tensor {name} ");
        assert_change_refused(&says, |w| w.tensors.retain(|t| t.name != *name));
        assert_change_refused(&says, |w| w.tensor(name).kind = 16);
        assert_change_refused(&says, |w| w.tensor(name).dims = vec![32]);
    }
    // What an architecture must have besides.
    for (architecture, name) in [
        ("qwen2", "blk.1.attn_q.bias"),
        ("gemma3", "blk.1.attn_q_norm.weight"),
        ("gemma3", "blk.0.post_ffw_norm.weight"),
    ] {
        let mut w = tiny(architecture);
        w.tensors.retain(|t| t.name != name);
        assert_refused(&w.bytes(), &format!("tensor {name} is missing"), name);
    }
    assert_change_refused("tensor blk.1.ffn_gate_inp.weight has no use", |w| {
        w.f32s("blk.1.ffn_gate_inp.weight", &[64], &[0.0; 64]);
    });
}

#[test]
fn row_31_tensors_of_impossible_shapes_places_and_types() {
    const NAME: &str = "blk.1.ffn_up.weight";
    let with = |says: &str, change: &dyn Fn(&mut Writer)| {
        assert_change_refused(&format!("tensor {NAME} {says}"), change);
    };
    for (dims, says) in [
        (vec![], "has the dimensions []"),
        (vec![0, 96], "is empty"),
        (vec![64, 0], "is empty"),
        (vec![64, 96, 1, 2], "has the dimensions [64, 96, 1, 2]"),
        (vec![u64::MAX, 2], "(18446744073709551615 x 2 at offset"),
        (vec![1 << 33, 1 << 33], "(8589934592 x 8589934592 at offset"),
        (vec![64, 1 << 40], "ends at byte"),
        (vec![1; 9], "has 9 dimensions"),
        (vec![96, 64], "is 64 x 96, the hyperparameters say 96 x 64"),
    ] {
        with(says, &|w| w.tensor(NAME).dims.clone_from(&dims));
    }
    for (offset, says) in [
        (1 << 40, "ends at byte"),
        (u64::MAX - 31, "(64 x 96 at offset 18446744073709551584) overflows"),
        (16, "is at offset 16, off its alignment"),
        // In the embedding.
        (32, "overlaps token_embd.weight"),
    ] {
        with(says, &|w| w.tensor(NAME).offset = Some(offset));
    }
    for (kind, says) in [
        (9, "has type Q8_1, which is not supported"),
        (28, "has type F64, which is not supported"),
        (16, "has rows of 64 values, which is not a multiple of IQ2_XXS's 256"),
        (4, "has type Q4_2, which is not supported"),
        (10, "has rows of 64 values, which is not a multiple of Q2_K's 256"),
        (34, "has rows of 64 values, which is not a multiple of TQ1_0's 256"),
        (u32::MAX, "has type 4294967295, which is not supported"),
        (14, "has rows of 64 values, which is not a multiple of Q6_K's 256"),
    ] {
        with(says, &|w| w.tensor(NAME).kind = kind);
    }
    // Blocks of IQ4_NL, whose first has no number as its scale.
    assert_change_refused(&format!("tensor {NAME}: holds a number that is not finite"), |w| {
        let tensor = w.tensor(NAME);
        tensor.kind = 20;
        tensor.data[..2].fill(0xff);
    });
    with("is there twice", &|w| {
        let again = w.tensor(NAME).clone();
        w.tensors.push(again);
    });
}

#[test]
fn row_31_hyperparameters_that_no_model_has() {
    for (key, value, says) in [
        ("general.architecture", text("mamba"), "architecture \"mamba\" is not supported"),
        ("general.architecture", Value::U64(1), "general.architecture is missing or not a string"),
        ("llama.attention.head_count", Value::U64(0), "head_count is not in 1..="),
        (
            "llama.attention.head_count",
            Value::U64(3),
            "is not a multiple of llama.attention.head_count_kv (2)",
        ),
        ("llama.attention.head_count", Value::U64(1 << 31), "head_count is not in 1..="),
        ("llama.attention.head_count_kv", Value::U64(0), "head_count_kv is not in 1..="),
        ("llama.attention.head_count_kv", Value::I64(-1), "head_count_kv is not in 1..="),
        ("llama.attention.key_length", Value::U64(7), "key_length (7) is not even"),
        ("llama.embedding_length", Value::U64(63), "embedding_length (63) is not a multiple"),
        ("llama.embedding_length", Value::U64(u64::MAX), "embedding_length is not in 1..="),
        ("llama.embedding_length", Value::U64(128), "the hyperparameters say"),
        ("llama.feed_forward_length", Value::U64(0), "feed_forward_length is not in 1..="),
        ("llama.block_count", Value::U64(0), "block_count is not in 1..="),
        ("llama.block_count", Value::U64(1 << 31), "block_count is not in 1..="),
        ("llama.block_count", Value::U64(1000), "tensor blk.2.attn_norm.weight is missing"),
        ("llama.block_count", text("2"), "block_count is not one integer"),
        ("llama.context_length", Value::U64(0), "context_length is not in 1..="),
        ("llama.context_length", Value::U64(1 << 40), "context_length is not in 1..="),
        ("llama.rope.dimension_count", Value::U64(1000), "dimension_count (1000) does not fit"),
        ("llama.rope.freq_base", Value::F64(f64::NAN), "freq_base is not a positive number"),
        ("llama.rope.freq_base", Value::F64(-1.0), "freq_base is not a positive number"),
        ("llama.rope.freq_base", Value::F64(1e-45), "frequencies that are not finite"),
        ("llama.rope.scaling.type", text("other"), "\"other\" is not supported"),
        ("llama.attention.scale", Value::F64(f64::INFINITY), "scale is not a positive number"),
        ("llama.attention.scale", Value::F64(1e30), "attention.scale is not between 1e-6 and 1e6"),
    ] {
        assert_change_refused(says, |w| {
            w.set(key, &value);
        });
    }
    for factor in ["embedding_scale", "residual_scale", "logit_scale", "attention.scale"] {
        for bad in [1e-45, 1e30] {
            let mut w = tiny("granite");
            w.set(&format!("granite.{factor}"), &Value::F64(bad));
            assert_refused(&w.bytes(), &format!("{factor} is not between 1e-6 and 1e6"), factor);
        }
    }
    let eps = "llama.attention.layer_norm_rms_epsilon";
    for bad in [f64::NAN, 0.0, -1.0, f64::INFINITY] {
        assert_change_refused(&format!("{eps} is not a positive number"), |w| {
            w.set(eps, &Value::F64(bad));
        });
    }
    assert_change_refused(&format!("{eps} is above 0.01"), |w| {
        w.set(eps, &Value::F64(1e30));
    });
    for key in ["llama.block_count", "llama.context_length", eps] {
        assert_change_refused(&format!("{key} is missing"), |w| {
            w.remove(key);
        });
    }
}

#[test]
fn row_31_tokenizers_that_do_not_fit() {
    let strings = |all: &[&str]| Value::Strings(all.iter().map(|s| (*s).to_owned()).collect());
    for (key, value, says) in [
        ("tokens", Value::U64(1), "tokenizer.ggml.tokens is an integer, not an array of strings"),
        ("tokens", strings(&["a"; 300]), "has 300 entries, tensor token_embd.weight only 259"),
        ("tokens", strings(&[]), "tokenizer.ggml."),
        ("tokens", Value::NotUtf8, "tokenizer.ggml.tokens is text that is not UTF-8"),
        ("token_type", Value::I64s(vec![1; 260]), "token_type has 260 elements for 259 tokens"),
        ("token_type", Value::I64s(vec![1; 9]), "token_type has no known type for token 9"),
        ("token_type", Value::I64s(vec![99; 259]), "token_type has no known type for token 0"),
        ("merges", strings(&["ab"]), "tokenizer.ggml.merges[0] is not two tokens"),
        ("merges", strings(&["a b"]), "tokenizer.ggml.merges[0] makes something that is no token"),
        ("merges", strings(&["a zz"]), "tokenizer.ggml.merges[0] names something that is no token"),
        ("merges", Value::U64s(vec![1]), "tokenizer.ggml.merges is an array of integers"),
        ("model", text("rwkv"), "tokenizer.ggml.model rwkv (RWKV) is not supported"),
        // Without scores.
        ("model", text("llama"), "tokenizer.ggml."),
        ("pre", text("none-such"), "unknown tokenizer.ggml.pre none-such"),
        ("eos_token_id", Value::U64(259), "tokenizer.ggml.eos_token_id is 259"),
        (
            "bos_token_id",
            Value::U64(u64::from(u32::MAX)),
            "tokenizer.ggml.bos_token_id is 42949672",
        ),
        ("bos_token_id", Value::U64(1 << 40), "bos_token_id is 1099511627776, not below 2^32"),
        ("add_bos_token", text("yes"), "tokenizer.ggml.add_bos_token is a string, not a boolean"),
    ] {
        assert_change_refused(says, |w| {
            w.set(&format!("tokenizer.ggml.{key}"), &value);
        });
    }
    assert_change_refused("tokenizer.chat_template is an integer, not a string", |w| {
        w.set("tokenizer.chat_template", &Value::U64(1));
    });
    assert_change_refused("tokenizer.ggml.scores has 9 elements for 259 tokens", |w| {
        w.set("tokenizer.ggml.model", &text("llama")).remove("tokenizer.ggml.pre");
        w.set("tokenizer.ggml.scores", &Value::F32s(vec![0.0; 9]));
    });
    assert_change_refused("metadata key tokenizer.ggml.model is missing", |w| {
        w.remove("tokenizer.ggml.model");
    });
}

#[test]
fn row_31_files_that_are_cut_anywhere() {
    let bytes = tiny_llama().bytes();
    // The header, closely; then every part of the weights, and all but the last byte.
    let places = (0..64).step_by(7).chain((64..bytes.len()).step_by(bytes.len() / 30));
    for len in places.chain([bytes.len() - 1]) {
        assert_refused(&bytes[..len], "", &format!("cut at {len} of {}", bytes.len()));
    }
}

#[test]
fn row_31_what_is_no_model_file_is_refused_by_what_it_is() {
    let pickle = b"\x80\x02}q\x00(X\x06\x00\x00\x00weightq\x01c__builtin__\neval\nq\x02u.";
    let mut old = tiny_llama();
    old.version = 1;
    let mut big_endian = tiny_llama();
    big_endian.version = 3u32.swap_bytes();
    for (bytes, says) in [
        (Vec::new(), "not a GGUF file: its header needs 4 bytes where the file has 0 left"),
        (b"GGUF".to_vec(), "not a GGUF file: its header needs"),
        (pickle.to_vec(), "not a GGUF file: it is a Python pickle"),
        ([b"PK\x03\x04", &pickle[..]].concat(), "not a GGUF file: it is a zip archive"),
        (b"\x20\0\0\0\0\0\0\0{\"a\": 1}".to_vec(), "not a GGUF file: it is a safetensors file"),
        (b"<!DOCTYPE html>\n".to_vec(), "not a GGUF file: it does not begin with GGUF"),
        (old.bytes(), "has GGUF version 1, which is not supported"),
        (big_endian.bytes(), "is a big-endian GGUF file"),
    ] {
        assert_refused(&bytes, says, says);
    }
    let home = tempfile::tempdir().unwrap();
    let fifo = home.path().join("fifo.gguf");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    for (path, says) in [
        ("/dev/zero", "/dev/zero is not a regular file"),
        (fifo.to_str().unwrap(), "fifo.gguf is not a regular file"),
        ("./none.gguf", "./none.gguf: no such file"),
    ] {
        let line = refusal(home.path(), path, says);
        assert!(line.contains(says), "{line}");
    }
}

#[test]
fn row_31_names_from_a_file_do_not_reach_the_terminal_as_they_are() {
    const EVIL: &str = "\u{1b}[2J\u{1b}]0;x\u{7}\r\n\u{202e}evil\u{9b}";
    assert_change_refused("architecture", |w| {
        w.set("general.architecture", &text(EVIL));
    });
    for key in ["tokenizer.ggml.model", "tokenizer.ggml.pre", "llama.rope.scaling.type"] {
        assert_change_refused("evil", |w| {
            w.set(key, &text(EVIL));
        });
    }
    assert_change_refused("is there twice", |w| {
        w.keys.extend([0, 1].map(|_| (EVIL.into(), vec![0; 5])));
    });
    assert_change_refused("is there twice", |w| {
        w.f32s(EVIL, &[1], &[0.0]).f32s(EVIL, &[1], &[0.0]);
    });
    assert_change_refused("metadata key #0 has a name that is not UTF-8", |w| {
        w.keys[0].0 = vec![0xff; 9];
    });
    // Neither does the file's own name, be it refused or served.
    let home = tempfile::tempdir().unwrap();
    let name = "a\u{1b}[2Jb\nc.gguf";
    fs::write(home.path().join(name), b"GGUF").unwrap();
    let line = refusal(home.path(), name, "a file's name");
    assert!(line.contains("a [2Jb c.gguf: not a GGUF file"), "{line}");
    let path = home.path().join(name);
    let mut w = tiny_llama();
    w.set("general.name", &text(EVIL)).set(EVIL, &text(EVIL)).write(&path).unwrap();
    let server = Server::start(&[path.to_str().unwrap()]);
    assert_eq!(server.client().get("/v1/models").status, 200);
    server.wait_log("OpenAI(");
    let log = server.log();
    assert!(!log.chars().any(|c| c.is_control() && c != '\n'), "{log:?}");
    assert!(log.contains("a [2Jb c"), "{log}");
}

#[test]
fn row_31_a_template_of_nested_conditions_harms_nobody() {
    let nested =
        |depth: usize| format!("{}{}", "{% if true %}".repeat(depth), "{% endif %}".repeat(depth));
    let brackets = format!("{{{{ {}1{} }}}}", "(".repeat(100_000), ")".repeat(100_000));
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("nested.gguf");
    for template in [nested(5_500), nested(40_000), brackets] {
        let mut w = tiny_llama();
        w.set("tokenizer.chat_template", &text(&template)).write(&path).unwrap();
        let server = Server::start(&[path.to_str().unwrap(), "--served-model-name", "m"]);
        let client = server.client();
        let body =
            json!({"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2});
        for _ in 0..2 {
            let answer = client.post("/v1/chat/completions", &body);
            assert_eq!((answer.status, answer.error("param")), (400, json!("messages")));
        }
        let plain = client.complete(&json!({"model": "m", "prompt": "a", "max_tokens": 2}));
        assert_eq!(plain.status, 200, "{}", plain.body);
        let file = fs::metadata(&path).unwrap().len() >> 10;
        assert!(resident(&server) < file + CONSTANT_KIB, "{} KiB", resident(&server));
    }
}

/// Of every kind of tensor, and whoever computes: one such number, and no request would be answered.
#[test]
fn row_31_weights_that_are_not_finite() {
    for name in ["output_norm.weight", "blk.1.attn_q.weight", "token_embd.weight"] {
        for kernels in ["auto", "candle"] {
            let mut w = tiny_llama();
            let data = &mut w.tensor(name).data;
            let end = data.len() - 8;
            data[end..end + 4].copy_from_slice(&f32::NAN.to_le_bytes());
            let home = tempfile::tempdir().unwrap();
            fs::write(home.path().join("hostile.gguf"), w.bytes()).unwrap();
            let line =
                refusal_with(home.path(), "hostile.gguf", &["--kernels", kernels], "not finite");
            let says = format!("tensor {name}: holds a number that is not finite");
            assert!(line.contains(&says), "{kernels}: {line}");
        }
    }
}
