use std::path::Path;
use std::time::Instant;

use proptest::prelude::*;

use super::testing::{TINY_HIDDEN, Writer, tiny_llama, type_number};
use super::{Gguf, LoadError, Value, shown};
use crate::backend::{BlockType, Stored};

fn read(bytes: &[u8]) -> Result<Gguf, LoadError> {
    Gguf::read(Path::new("test.gguf"), bytes, bytes.len() as u64)
}

/// The reason for which `w` is refused, and that it is one clean line.
fn refusal(w: &Writer) -> String {
    let text = read(&w.bytes()).unwrap_err().to_string();
    assert!(text.starts_with("test.gguf: "), "{text}");
    assert!(!text.chars().any(char::is_control), "{text:?}");
    assert!(text.len() < 400, "{text}");
    text["test.gguf: ".len()..].to_owned()
}

/// Why the tensor `name` of `w`, a file that is otherwise right, cannot be used.
fn unusable(w: &Writer, name: &str) -> String {
    let gguf = read(&w.bytes()).unwrap();
    let text = gguf.tensor(name).unwrap_err().reason;
    assert!(text.starts_with("tensor "), "{text}");
    text
}

#[test]
fn what_was_written_is_read() {
    let mut w = tiny_llama();
    let values = [
        ("a.u", Value::U64(7)),
        ("a.wide", Value::U64(1 << 40)),
        ("a.i", Value::I64(-7)),
        ("a.f", Value::F64(0.5)),
        ("a.b", Value::Bool(true)),
        ("a.s", Value::String("text \n \u{1F600}".to_owned())),
        ("a.us", Value::U64s(vec![1, 1 << 40])),
        ("a.is", Value::I64s(vec![-1, 2])),
        ("a.fs", Value::F32s(vec![0.25, -1.0])),
        ("a.bs", Value::Bools(vec![true, false])),
        ("a.strings", Value::Strings(vec![String::new(), "x".to_owned()])),
        ("a.nested", Value::Nested),
        ("a.bad", Value::NotUtf8),
    ];
    for (key, value) in &values {
        w.set(key, value);
    }
    for version in [2, 3] {
        w.version = version;
        let gguf = read(&w.bytes()).unwrap();
        for (key, value) in &values {
            assert_eq!(gguf.metadata.get(key), Some(value), "{key}");
        }
        assert_eq!(gguf.tensors.len(), w.tensors.len());
        assert!(gguf.unusable.is_empty());
        let bytes = w.bytes();
        for t in &w.tensors {
            let source = gguf.tensor(&t.name).unwrap();
            let at = source.offset as usize;
            assert_eq!(bytes[at..at + source.byte_len()], t.data[..], "{}", t.name);
            assert_eq!(source.cols as u64, t.dims[0]);
            assert_eq!(source.rows as u64, t.dims.get(1).copied().unwrap_or(1));
        }
    }
}

#[test]
fn getters_name_the_key_and_what_is_there() {
    let mut w = Writer::default();
    w.set("s", &Value::String("x".to_owned()));
    w.set("neg", &Value::I64(-1));
    w.set("wide", &Value::U64(1 << 32));
    w.set("small", &Value::I64(5));
    w.set("types", &Value::U64s(vec![1, 2]));
    w.set("negs", &Value::I64s(vec![-1]));
    w.set("bad", &Value::NotUtf8);
    let m = read(&w.bytes()).unwrap().metadata;
    let text = |e: super::KeyError| e.to_string();
    assert_eq!(text(m.u32("gone").unwrap_err()), "metadata key gone is missing");
    assert_eq!(m.opt_u32("gone").unwrap(), None);
    assert_eq!(text(m.u32("s").unwrap_err()), "metadata key s is a string, not an integer");
    assert_eq!(text(m.opt_u32("s").unwrap_err()), "metadata key s is a string, not an integer");
    assert_eq!(text(m.u64("neg").unwrap_err()), "metadata key neg is -1, not zero or above");
    assert_eq!(text(m.u32("wide").unwrap_err()), "metadata key wide is 4294967296, not below 2^32");
    assert_eq!(m.usize("small").unwrap(), 5);
    assert_eq!(m.i32s("types").unwrap(), [1, 2]);
    assert_eq!(*m.u64s("types").unwrap(), [1, 2]);
    assert_eq!(text(m.u64s("negs").unwrap_err()), "metadata key negs is -1, not zero or above");
    assert_eq!(
        text(m.str("bad").unwrap_err()),
        "metadata key bad is text that is not UTF-8, not a string"
    );
}

#[test]
fn other_containers_are_refused_by_name() {
    let mut w = tiny_llama();
    for (version, reason) in [
        (1, "has GGUF version 1, which is not supported (2 and 3 are)"),
        (4, "has GGUF version 4, which is not supported (2 and 3 are)"),
        (3u32.swap_bytes(), "is a big-endian GGUF file, which is not supported"),
    ] {
        w.version = version;
        assert_eq!(refusal(&w), reason);
    }
    assert!(read(b"GGML").unwrap_err().reason.contains("does not begin with GGUF"));
    for (bytes, name) in [
        (&b"\x80\x02}q\x00."[..], "pickle"),
        (b"PK\x03\x04\x00\x00", "zip archive"),
        (b"\x48\0\0\0\0\0\0\0{\"a\":", "safetensors"),
    ] {
        assert!(read(bytes).unwrap_err().reason.contains(name), "{name}");
    }
    assert!(read(b"").unwrap_err().reason.contains("not a GGUF file"));
}

#[test]
fn huge_counts_are_refused() {
    for count in [1 << 16, 1 << 20, 1 << 32, u64::MAX / 24, u64::MAX] {
        let mut w = tiny_llama();
        w.key_count = Some(count);
        assert!(refusal(&w).contains(&format!("claims {count} metadata keys")), "{count}");
        let mut w = tiny_llama();
        w.tensor_count = Some(count);
        assert!(refusal(&w).contains(&format!("claims {count} tensors")), "{count}");
    }
    // One more than there are: the reader runs on into what follows.
    let mut w = tiny_llama();
    w.key_count = Some(w.keys.len() as u64 + 1);
    refusal(&w);
}

/// An encoded array of `len` elements of `kind`, of which none follows.
fn hollow_array(kind: u32, len: u64) -> Vec<u8> {
    [&9u32.to_le_bytes()[..], &kind.to_le_bytes(), &len.to_le_bytes()].concat()
}

#[test]
fn huge_lengths_are_refused() {
    for len in [1 << 31, 1 << 61, u64::MAX] {
        for kind in [0, 4, 8, 9, 10] {
            let mut w = tiny_llama();
            w.set_raw("x.array", hollow_array(kind, len));
            assert!(refusal(&w).contains("metadata key x.array has"), "{kind} {len}");
        }
        let mut w = tiny_llama();
        w.set_raw("x.string", [&8u32.to_le_bytes()[..], &len.to_le_bytes()].concat());
        assert!(refusal(&w).contains("metadata key x.string needs"), "{len}");
    }
}

#[test]
fn arrays_nested_deep_are_refused() {
    let mut nested = Vec::new();
    for _ in 0..6 {
        nested.extend(&hollow_array(9, 1)[4..]);
    }
    let mut w = tiny_llama();
    w.set_raw("x", [&9u32.to_le_bytes()[..], &nested].concat());
    assert_eq!(refusal(&w), "metadata key x has arrays nested more than 4 deep");
}

#[test]
fn unknown_value_types_are_refused() {
    let mut w = tiny_llama();
    w.set_raw("x", 13u32.to_le_bytes().to_vec());
    assert_eq!(refusal(&w), "metadata key x has the unknown value type 13");
    w.set_raw("x", hollow_array(99, 0));
    assert_eq!(refusal(&w), "metadata key x has the unknown element type 99");
}

#[test]
fn twice_the_same_name_is_refused() {
    let mut w = tiny_llama();
    w.keys.push(w.keys[0].clone());
    assert_eq!(refusal(&w), "metadata key general.architecture is there twice");
    let mut w = tiny_llama();
    w.tensors.push(w.tensors[1].clone());
    assert_eq!(refusal(&w), "tensor output_norm.weight is there twice");
    // Once good and once bad is twice, in either order.
    w.tensors[1].kind = 16;
    assert_eq!(refusal(&w), "tensor output_norm.weight is there twice");
}

#[test]
fn alignment_is_a_power_of_two_within_bounds() {
    for bad in [0, 1, 4, 24, 33, 1 << 17, 1 << 63] {
        let mut w = tiny_llama();
        w.set("general.alignment", &Value::U64(bad));
        assert_eq!(
            refusal(&w),
            format!("general.alignment is {bad}, not a power of two from 8 to 65536")
        );
    }
    let mut w = tiny_llama();
    w.set("general.alignment", &Value::String("32".to_owned()));
    assert!(refusal(&w).contains("general.alignment is a string"));
    for good in [8, 64, 65_536] {
        let mut w = tiny_llama();
        w.alignment = good;
        w.set("general.alignment", &Value::U64(good));
        assert!(read(&w.bytes()).unwrap().unusable.is_empty(), "{good}");
    }
}

#[test]
fn impossible_tensors_are_named_when_needed() {
    const NAME: &str = "blk.0.attn_q.weight";
    let h = TINY_HIDDEN as u64;
    for (dims, expected) in [
        (vec![], "has the dimensions []"),
        (vec![h, h, 1, 2], "has the dimensions [64, 64, 1, 2]"),
        (vec![0, h], "is empty (0 x 64)"),
        (vec![h, 0], "is empty (64 x 0)"),
        (vec![u64::MAX, 2], "overflows"),
        (vec![1 << 33, 1 << 33], "overflows"),
        (vec![1 << 62, 1], "overflows"),
        (vec![h, h * 1000], "ends at byte"),
    ] {
        let mut w = tiny_llama();
        w.tensor(NAME).dims = dims;
        let reason = unusable(&w, NAME);
        assert!(reason.contains(NAME) && reason.contains(expected), "{reason}");
    }
    for (offset, expected) in
        [(1 << 40, "ends at byte"), (u64::MAX - 31, "overflows"), (16, "off its alignment")]
    {
        let mut w = tiny_llama();
        w.tensor(NAME).offset = Some(offset);
        assert!(unusable(&w, NAME).contains(expected), "{offset}");
    }
    let mut w = tiny_llama();
    w.tensor(NAME).dims = vec![1; 9];
    assert_eq!(refusal(&w), format!("tensor {NAME} has 9 dimensions"));
    let mut w = tiny_llama();
    w.tensor(NAME).dims = vec![h, h, 1, 1];
    assert_eq!(read(&w.bytes()).unwrap().tensor(NAME).unwrap().rows, TINY_HIDDEN);
    assert!(unusable(&w, "gone").contains("tensor gone is missing"));
}

#[test]
fn tensors_that_share_bytes_are_named_when_needed() {
    let (long, short) = ("blk.0.attn_q.weight", "blk.0.attn_k.weight");
    let offsets = read(&tiny_llama().bytes()).unwrap().tensors;
    let place_of_long = offsets[long].offset - offsets["token_embd.weight"].offset;
    // With the same beginning the longer one comes second.
    for (behind, second, first) in [(0, long, short), (32, short, long)] {
        let mut w = tiny_llama();
        w.tensor(short).offset = Some(place_of_long + behind);
        assert_eq!(unusable(&w, second), format!("tensor {second} overlaps {first}"));
        assert!(read(&w.bytes()).unwrap().tensor(first).is_ok());
    }
}

#[test]
fn types_are_known_or_named() {
    const NAME: &str = "blk.0.attn_q.weight";
    for stored in Stored::all() {
        let mut w = Writer::default();
        w.f32s("t", &[256, 2], &[]);
        w.tensors[0].kind = type_number(stored);
        w.tensors[0].data = vec![0; 512 / stored.block_len() * stored.block_bytes()];
        let gguf = read(&w.bytes()).unwrap();
        let source = gguf.tensor("t").unwrap();
        assert_eq!((source.stored, source.stored_len()), (stored, w.tensors[0].data.len()));
        assert_eq!(source.kind, stored.kept_as());
    }
    for (number, name) in
        [(9, "Q8_1"), (15, "Q8_K"), (26, "I32"), (28, "F64"), (31, "Q4_0_4_4"), (77, "77")]
    {
        let mut w = tiny_llama();
        w.tensor(NAME).kind = number;
        let reason = unusable(&w, NAME);
        assert!(reason.contains(&format!("has type {name}, which is not supported")), "{reason}");
    }
    let mut w = tiny_llama();
    w.tensor("blk.0.ffn_down.weight").kind = type_number(BlockType::Q4K);
    assert!(unusable(&w, "blk.0.ffn_down.weight").contains("not a multiple of Q4_K's 256"));
}

#[test]
fn names_from_the_file_are_tamed() {
    let mut w = tiny_llama();
    let name = format!("\x1b[2J\n{}", "x".repeat(5000));
    w.tensors[0].name.clone_from(&name);
    w.tensors.push(w.tensors[0].clone());
    let reason = refusal(&w);
    assert!(reason.starts_with("tensor \\u{1b}[2J\\nxxx") && reason.contains('…'), "{reason}");
    w.tensors[0].name = "x".repeat(70_000);
    assert!(refusal(&w).contains("tensor #0 has a name of 70000 bytes"));
    let mut w = tiny_llama();
    w.keys[0].0 = vec![0xff];
    assert_eq!(refusal(&w), "metadata key #0 has a name that is not UTF-8");
    assert_eq!(shown("plain.name"), "plain.name");
}

#[test]
fn cut_files_never_pass_whole() {
    let w = tiny_llama();
    let bytes = w.bytes();
    for len in (0..bytes.len()).step_by(64).chain([bytes.len() - 1]) {
        if let Ok(gguf) = read(&bytes[..len]) {
            assert!(!gguf.unusable.is_empty(), "cut at {len}");
            for source in gguf.tensors.values() {
                assert!(source.offset as usize + source.byte_len() <= len, "cut at {len}");
            }
        }
    }
}

/// A size that the input does not keep is an error, not a hang or a panic.
#[test]
fn an_input_shorter_than_promised_is_refused() {
    let bytes = tiny_llama().bytes();
    let cut = &bytes[..600];
    let error = Gguf::read(Path::new("test.gguf"), cut, bytes.len() as u64).unwrap_err();
    assert!(error.reason.contains("cannot be read"), "{error}");
}

#[test]
fn what_is_not_a_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    assert!(Gguf::open(folder.path()).unwrap_err().reason.contains("is not a file"));
    let gone = folder.path().join("gone.gguf");
    assert!(Gguf::open(&gone).unwrap_err().to_string().contains("gone.gguf: cannot be read"));
    let path = folder.path().join("tiny.gguf");
    tiny_llama().write(&path).unwrap();
    assert!(Gguf::open(&path).unwrap().unusable.is_empty());
}

#[test]
fn a_large_vocabulary_is_read() {
    let mut w = Writer::default();
    let tokens: Vec<String> = (0..262_144).map(|i| format!("token{i}")).collect();
    w.set("tokenizer.ggml.tokens", &Value::Strings(tokens.clone()));
    let bytes = w.bytes();
    let started = Instant::now();
    let gguf = read(&bytes).unwrap();
    println!("262,144 strings in {:?}", started.elapsed());
    assert_eq!(gguf.metadata.strings("tokenizer.ggml.tokens").unwrap(), tokens);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_bytes_make_it_panic(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..9usize), 0..8),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = tiny_llama_header();
        for (at, byte, run) in edits {
            let at = at.index(bytes.len());
            let end = (at + run).min(bytes.len());
            bytes[at..end].fill(byte);
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len() + 1));
        }
        match read(&bytes) {
            Ok(gguf) => for source in gguf.tensors.values() {
                let end = source.offset + source.byte_len() as u64;
                prop_assert!(end <= bytes.len() as u64);
            },
            Err(e) => prop_assert!(!e.to_string().chars().any(char::is_control)),
        }
    }

    #[test]
    fn no_noise_makes_it_panic(noise in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = read(&noise);
        let _ = read(&[b"GGUF\x03\0\0\0", &noise[..]].concat());
        let _ = read(&[&b"GGUF\x03\0\0\0\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0"[..], &noise].concat());
    }
}

/// Without the vocabulary, so that edits often hit what steers the reader.
fn tiny_llama_header() -> Vec<u8> {
    let mut w = tiny_llama();
    for key in ["tokens", "token_type", "merges"] {
        w.remove(&format!("tokenizer.ggml.{key}"));
    }
    w.set("x.nested", &Value::Nested);
    w.tensors.truncate(4);
    for t in &mut w.tensors {
        t.dims = vec![2, 2];
        t.data = vec![0; 16];
    }
    w.bytes()
}
