//! Writes small GGUF files, right ones and wrong ones, for tests of everything that reads them.

use std::io;
use std::path::Path;

use super::Value;
use super::directory::NUMBERS;
use crate::backend::Stored;

/// One tensor to write.
#[derive(Debug, Clone)]
pub struct TensorData {
    pub name: String,
    /// Innermost first: columns, rows.
    pub dims: Vec<u64>,
    /// ggml's number of the type.
    pub kind: u32,
    /// Instead of where the writer puts the data.
    pub offset: Option<u64>,
    pub data: Vec<u8>,
}

/// A file to be written. All of it is public, so that a test can make any of it wrong.
#[derive(Debug, Clone)]
pub struct Writer {
    pub version: u32,
    /// Keys with their encoded values, type number included.
    pub keys: Vec<(Vec<u8>, Vec<u8>)>,
    pub tensors: Vec<TensorData>,
    pub alignment: u64,
    /// Instead of the true counts.
    pub key_count: Option<u64>,
    pub tensor_count: Option<u64>,
}

impl Default for Writer {
    fn default() -> Self {
        Self {
            version: 3,
            keys: Vec::new(),
            tensors: Vec::new(),
            alignment: 32,
            key_count: None,
            tensor_count: None,
        }
    }
}

impl Writer {
    /// Sets a key, replacing an earlier value. Integers are written with 32 bits where they fit.
    pub fn set(&mut self, key: &str, value: &Value) -> &mut Self {
        self.set_raw(key, encode(value))
    }

    /// Sets a key to an encoded value: a type number of four bytes and what follows.
    pub fn set_raw(&mut self, key: &str, encoded: Vec<u8>) -> &mut Self {
        self.remove(key);
        self.keys.push((key.as_bytes().to_vec(), encoded));
        self
    }

    /// Removes a key, if it is there.
    pub fn remove(&mut self, key: &str) -> &mut Self {
        self.keys.retain(|(k, _)| k != key.as_bytes());
        self
    }

    /// Adds a tensor of F32: `dims` innermost first.
    pub fn f32s(&mut self, name: &str, dims: &[u64], values: &[f32]) -> &mut Self {
        self.tensors.push(TensorData {
            name: name.to_owned(),
            dims: dims.to_vec(),
            kind: 0,
            offset: None,
            data: values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        });
        self
    }

    /// The tensor `name`, to be changed; panics if there is none.
    #[expect(clippy::panic, reason = "a test that names a wrong tensor is a wrong test")]
    pub fn tensor(&mut self, name: &str) -> &mut TensorData {
        match self.tensors.iter_mut().find(|t| t.name == name) {
            Some(tensor) => tensor,
            None => panic!("no tensor {name}"),
        }
    }

    /// The file's bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend(self.tensor_count.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        out.extend(self.key_count.unwrap_or(self.keys.len() as u64).to_le_bytes());
        for (key, value) in &self.keys {
            put_string(&mut out, key);
            out.extend(value);
        }
        let mut at = 0;
        for t in &self.tensors {
            put_string(&mut out, t.name.as_bytes());
            out.extend((t.dims.len() as u32).to_le_bytes());
            out.extend(t.dims.iter().flat_map(|d| d.to_le_bytes()));
            out.extend(t.kind.to_le_bytes());
            out.extend(t.offset.unwrap_or(at).to_le_bytes());
            at = (at + t.data.len() as u64).next_multiple_of(self.alignment);
        }
        for t in &self.tensors {
            out.resize((out.len() as u64).next_multiple_of(self.alignment) as usize, 0);
            out.extend(&t.data);
        }
        out
    }

    pub fn write(&self, path: &Path) -> io::Result<()> {
        std::fs::write(path, self.bytes())
    }
}

fn put_string(out: &mut Vec<u8>, text: &[u8]) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text);
}

fn put_array(kind: u32, len: usize, elements: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut out = 9u32.to_le_bytes().to_vec();
    out.extend(kind.to_le_bytes());
    out.extend((len as u64).to_le_bytes());
    out.extend(elements.flatten());
    out
}

fn typed(kind: u32, bytes: &[u8]) -> Vec<u8> {
    [&kind.to_le_bytes(), bytes].concat()
}

fn encode(value: &Value) -> Vec<u8> {
    match value {
        Value::U64(n) => match u32::try_from(*n) {
            Ok(n) => typed(4, &n.to_le_bytes()),
            Err(_) => typed(10, &n.to_le_bytes()),
        },
        Value::I64(n) => match i32::try_from(*n) {
            Ok(n) => typed(5, &n.to_le_bytes()),
            Err(_) => typed(11, &n.to_le_bytes()),
        },
        Value::F64(x) => typed(6, &(*x as f32).to_le_bytes()),
        Value::Bool(b) => typed(7, &[u8::from(*b)]),
        Value::String(s) => {
            let mut out = 8u32.to_le_bytes().to_vec();
            put_string(&mut out, s.as_bytes());
            out
        }
        Value::Strings(all) => put_array(
            8,
            all.len(),
            all.iter().map(|s| [&(s.len() as u64).to_le_bytes(), s.as_bytes()].concat()),
        ),
        Value::U64s(all) => put_array(10, all.len(), all.iter().map(|n| n.to_le_bytes().to_vec())),
        Value::I64s(all) => {
            put_array(5, all.len(), all.iter().map(|n| (*n as i32).to_le_bytes().to_vec()))
        }
        Value::F32s(all) => put_array(6, all.len(), all.iter().map(|x| x.to_le_bytes().to_vec())),
        Value::Bools(all) => put_array(7, all.len(), all.iter().map(|b| vec![u8::from(*b)])),
        Value::NotUtf8 => {
            let mut out = 8u32.to_le_bytes().to_vec();
            put_string(&mut out, b"\xff\xfe");
            out
        }
        Value::Nested => {
            put_array(9, 1, std::iter::once([&[0; 4][..], &1u64.to_le_bytes(), &[7]].concat()))
        }
    }
}

/// ggml's number of a block type.
#[expect(clippy::panic, reason = "the table has every type, which a test goes through")]
pub fn type_number(stored: impl Into<Stored>) -> u32 {
    let stored = stored.into();
    match NUMBERS.iter().find(|(_, known)| *known == stored) {
        Some((number, _)) => *number,
        None => panic!("no number for {stored:?}"),
    }
}

/// Sizes of [`tiny`].
pub const TINY_LAYERS: usize = 2;
pub const TINY_HIDDEN: usize = 64;
pub const TINY_MLP: usize = 96;
pub const TINY_VOCAB: usize = 259;
const TINY_HEADS: usize = 4;
const TINY_KV_HEADS: usize = 2;
const TINY_HEAD_DIM: usize = 16;

/// [`tiny`] of the plainest architecture.
pub fn tiny_llama() -> Writer {
    tiny("llama")
}

/// A whole model of 100,000 weights in F32: two layers, four heads over two, a context of 256, a
/// byte-level vocabulary (259 tokens: `<|endoftext|>`, `<|im_start|>`, `<|im_end|>`, then the 256
/// bytes) without merges. The weights are noise, the same each time. `architecture` is `llama`,
/// `qwen2`, or `gemma3`: that one with a window of 10 tokens in its first layer.
pub fn tiny(architecture: &str) -> Writer {
    let mut w = Writer::default();
    let text = |s: &str| Value::String(s.to_owned());
    w.set("general.architecture", &text(architecture));
    w.set("general.name", &text("Tiny"));
    w.set("general.file_type", &Value::U64(0));
    for (key, n) in [
        ("block_count", TINY_LAYERS),
        ("context_length", 256),
        ("embedding_length", TINY_HIDDEN),
        ("feed_forward_length", TINY_MLP),
        ("attention.head_count", TINY_HEADS),
        ("attention.head_count_kv", TINY_KV_HEADS),
        ("attention.sliding_window", 10),
        ("attention.sliding_window_pattern", 2),
        ("rope.dimension_count", TINY_HEAD_DIM),
        ("vocab_size", TINY_VOCAB),
    ] {
        w.set(&format!("{architecture}.{key}"), &Value::U64(n as u64));
    }
    w.set(&format!("{architecture}.rope.freq_base"), &Value::F64(10_000.0));
    w.set(&format!("{architecture}.attention.layer_norm_rms_epsilon"), &Value::F64(1e-5));
    tiny_vocabulary(&mut w);
    tiny_weights(&mut w, architecture);
    w
}

fn tiny_weights(w: &mut Writer, architecture: &str) {
    let mut noise = Noise(1);
    let (h, mlp, d) = (TINY_HIDDEN as u64, TINY_MLP as u64, TINY_HEAD_DIM as u64);
    let (q, kv) = (TINY_HEADS as u64 * d, TINY_KV_HEADS as u64 * d);
    let mut parts = vec![
        ("attn_norm.weight", vec![h]),
        ("attn_q.weight", vec![h, q]),
        ("attn_k.weight", vec![h, kv]),
        ("attn_v.weight", vec![h, kv]),
        ("attn_output.weight", vec![q, h]),
        ("ffn_norm.weight", vec![h]),
        ("ffn_gate.weight", vec![h, mlp]),
        ("ffn_up.weight", vec![h, mlp]),
        ("ffn_down.weight", vec![mlp, h]),
    ];
    if architecture == "qwen2" {
        parts.extend([("attn_q.bias", vec![q]), ("attn_k.bias", vec![kv])]);
        parts.push(("attn_v.bias", vec![kv]));
    }
    if architecture == "gemma3" {
        parts.extend([("attn_q_norm.weight", vec![d]), ("attn_k_norm.weight", vec![d])]);
        parts.push(("post_attention_norm.weight", vec![h]));
        parts.push(("post_ffw_norm.weight", vec![h]));
    }
    noise.tensor(w, "token_embd.weight", &[h, TINY_VOCAB as u64]);
    noise.tensor(w, "output_norm.weight", &[h]);
    for layer in 0..TINY_LAYERS {
        for (part, dims) in &parts {
            noise.tensor(w, &format!("blk.{layer}.{part}"), dims);
        }
    }
}

fn tiny_vocabulary(w: &mut Writer) {
    let mut tokens: Vec<String> =
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>"].map(str::to_owned).to_vec();
    let control = tokens.len();
    tokens.extend(byte_characters().map(String::from));
    let types = (0..tokens.len()).map(|i| if i < control { 3 } else { 1 }).collect();
    w.set("tokenizer.ggml.model", &Value::String("gpt2".to_owned()));
    w.set("tokenizer.ggml.pre", &Value::String("smollm".to_owned()));
    w.set("tokenizer.ggml.tokens", &Value::Strings(tokens));
    w.set("tokenizer.ggml.token_type", &Value::I64s(types));
    w.set("tokenizer.ggml.merges", &Value::Strings(Vec::new()));
    w.set("tokenizer.ggml.bos_token_id", &Value::U64(1));
    w.set("tokenizer.ggml.eos_token_id", &Value::U64(2));
    w.set("tokenizer.ggml.add_bos_token", &Value::Bool(false));
}

/// GPT-2's printable stand-ins for the bytes 0 to 255.
fn byte_characters() -> impl Iterator<Item = char> {
    let printable = |b: u32| matches!(b, 33..=126 | 161..=172 | 174..=255);
    let mut spare = 256;
    (0..256u32).filter_map(move |byte| {
        let code = if printable(byte) {
            byte
        } else {
            spare += 1;
            spare - 1
        };
        char::from_u32(code)
    })
}

/// A linear congruential generator: enough for weights that only have to differ.
struct Noise(u64);

impl Noise {
    /// In -0.5..0.5.
    fn next(&mut self) -> f32 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1 << 24) as f32 - 0.5
    }

    fn tensor(&mut self, w: &mut Writer, name: &str, dims: &[u64]) {
        let count = dims.iter().product::<u64>();
        let norm = name.contains("norm");
        let values: Vec<f32> =
            (0..count).map(|_| if norm { 1.0 + self.next() / 4.0 } else { self.next() }).collect();
        w.f32s(name, dims, &values);
    }
}
