use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;
use crate::backend::cpu::packed_bytes;
use crate::backend::{BlockType, Change};
use crate::model::load::gguf::Gguf;

type Tensors = BTreeMap<String, TensorSource>;

const HIDDEN: usize = 64;
const MLP: usize = 96;
const VOCAB: usize = 50;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const HEAD_DIM: usize = 32;

fn tensor(tensors: &mut Tensors, name: &str, rows: usize, cols: usize) {
    let source = TensorSource {
        name: name.to_owned(),
        path: PathBuf::from("none"),
        offset: 0,
        stored: BlockType::F32.into(),
        kind: BlockType::F32,
        matrices: 1,
        rows,
        cols,
        change: Change::None,
        exponents: None,
    };
    tensors.insert(name.to_owned(), source);
}

/// A consistent small model of 12 layers.
fn model(arch: &str) -> (Metadata, Tensors) {
    let mut meta = Metadata::default();
    meta.values.insert("general.architecture".to_owned(), Value::String(arch.to_owned()));
    for (key, value) in [
        ("block_count", 12),
        ("context_length", 2048),
        ("embedding_length", HIDDEN),
        ("feed_forward_length", MLP),
        ("attention.head_count", HEADS),
        ("attention.head_count_kv", KV_HEADS),
        ("attention.key_length", HEAD_DIM),
        ("attention.sliding_window", 512),
    ] {
        meta.values.insert(format!("{arch}.{key}"), Value::U64(value as u64));
    }
    for (key, value) in
        [("attention.layer_norm_rms_epsilon", 1e-5), ("rope.freq_base", 1_000_000.0)]
    {
        meta.values.insert(format!("{arch}.{key}"), Value::F64(value));
    }
    let mut t = Tensors::new();
    let (q, kv) = (HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM);
    tensor(&mut t, "token_embd.weight", VOCAB, HIDDEN);
    tensor(&mut t, "output_norm.weight", 1, HIDDEN);
    for i in 0..12 {
        let mut add =
            |part: &str, rows, cols| tensor(&mut t, &format!("blk.{i}.{part}"), rows, cols);
        add("attn_norm.weight", 1, HIDDEN);
        add("attn_q.weight", q, HIDDEN);
        add("attn_k.weight", kv, HIDDEN);
        add("attn_v.weight", kv, HIDDEN);
        add("attn_output.weight", HIDDEN, q);
        add("ffn_norm.weight", 1, HIDDEN);
        add("ffn_gate.weight", MLP, HIDDEN);
        add("ffn_up.weight", MLP, HIDDEN);
        add("ffn_down.weight", HIDDEN, MLP);
        if arch == "qwen2" {
            add("attn_q.bias", 1, q);
            add("attn_k.bias", 1, kv);
            add("attn_v.bias", 1, kv);
        }
        if matches!(arch, "qwen3" | "gemma3") {
            add("attn_q_norm.weight", 1, HEAD_DIM);
            add("attn_k_norm.weight", 1, HEAD_DIM);
        }
        if matches!(arch, "gemma2" | "gemma3") {
            add("post_attention_norm.weight", 1, HIDDEN);
            add("post_ffw_norm.weight", 1, HIDDEN);
        }
    }
    (meta, t)
}

fn refusal(meta: &Metadata, tensors: &Tensors) -> String {
    describe(meta, tensors, &BTreeMap::new()).unwrap_err().to_string()
}

#[test]
fn each_family_is_what_its_papers_say() {
    let (meta, t) = model("llama");
    let llama = describe(&meta, &t, &BTreeMap::new()).unwrap();
    assert_eq!(llama.ropes[0].pairs, RopePairs::Interleaved);
    assert_eq!(llama.ropes[0].inv_freq.len(), HEAD_DIM / 2);
    assert!(llama.head.is_none());
    assert!((llama.attention_scale - 1.0 / (HEAD_DIM as f32).sqrt()).abs() < 1e-9);
    let (meta, t) = model("qwen2");
    let qwen = describe(&meta, &t, &BTreeMap::new()).unwrap();
    assert_eq!(qwen.ropes[0].pairs, RopePairs::Halves);
    assert!(qwen.layers.iter().all(|l| l.qkv.bias.len() == 3));
    let (meta, t) = model("gemma3");
    let gemma = describe(&meta, &t, &BTreeMap::new()).unwrap();
    assert!((gemma.embed_scale - 8.0).abs() < 1e-9);
    let global: Vec<usize> = (0..12).filter(|&i| gemma.layers[i].window.is_none()).collect();
    assert_eq!(global, [5, 11]);
    assert_eq!((gemma.layers[5].rope, gemma.layers[0].rope), (0, 1));
    assert_eq!(gemma.layers[0].window, Some(512));
    assert!(gemma.ropes[0].inv_freq[1] < gemma.ropes[1].inv_freq[1], "global turns slower");
}

fn described(meta: &Metadata, t: &Tensors) -> Description {
    describe(meta, t, &BTreeMap::new()).unwrap()
}

#[test]
fn what_later_families_add_is_in_their_descriptions() {
    let (meta, t) = model("qwen3");
    assert!(described(&meta, &t).layers.iter().all(|l| l.qk_norm.is_some()));
    let (mut meta, t) = model("gemma2");
    let gemma = described(&meta, &t);
    assert_eq!((gemma.attention_cap, gemma.logit_map.softcap), (None, None));
    assert_eq!(gemma.layers.iter().filter(|l| l.window == Some(512)).count(), 6);
    assert!(gemma.ropes.len() == 1 && gemma.layers.iter().all(|l| l.rope == 0), "all turn alike");
    for (key, value) in [("attn_logit_softcapping", 50.0), ("final_logit_softcapping", 30.0)] {
        meta.values.insert(format!("gemma2.{key}"), Value::F64(value));
    }
    meta.values.remove("gemma2.attention.sliding_window");
    let gemma = described(&meta, &t);
    assert_eq!((gemma.attention_cap, gemma.logit_map.softcap), (Some(50.0), Some(30.0)));
    assert_eq!(gemma.layers[0].window, Some(4_096));
    let (meta, t) = model("smollm3");
    let smollm = described(&meta, &t);
    let blind: Vec<usize> =
        (0..12).filter(|&i| smollm.ropes[smollm.layers[i].rope].dims == 0).collect();
    assert_eq!(blind, [3, 7, 11]);
}

#[test]
fn factors_of_the_file_are_taken_by_who_has_them() {
    let factors = [
        ("embedding_scale", 12.0),
        ("residual_scale", 0.25),
        ("logit_scale", 8.0),
        ("attention.scale", 0.5),
    ];
    let (mut meta, t) = model("granite");
    for (key, value) in factors {
        meta.values.insert(format!("granite.{key}"), Value::F64(value));
    }
    let granite = described(&meta, &t);
    let got = [granite.embed_scale, granite.residual_scale, granite.logit_map.scale];
    assert_eq!((got, granite.attention_scale), ([12.0, 0.25, 0.125], 0.5));
    meta.values.insert("granite.logit_scale".to_owned(), Value::F64(0.0));
    assert_eq!(refusal(&meta, &t), "granite.logit_scale is not a positive number");
    for (key, value) in factors {
        for bad in [1e-45, 1e-30, 1e30] {
            meta.values.insert(format!("granite.{key}"), Value::F64(bad));
            let says = format!("granite.{key} is not between 1e-6 and 1e6");
            assert_eq!(refusal(&meta, &t), says, "{bad}");
        }
        meta.values.insert(format!("granite.{key}"), Value::F64(value));
    }
}

#[test]
fn what_a_file_may_add_is_taken() {
    let (mut meta, mut t) = model("llama");
    tensor(&mut t, "output.weight", VOCAB, HIDDEN);
    tensor(&mut t, "rope_freqs.weight", 1, HEAD_DIM / 2);
    let text = |s: &str| Value::String(s.to_owned());
    meta.values.insert("llama.rope.scaling.type".to_owned(), text("linear"));
    meta.values.insert("llama.rope.scaling.factor".to_owned(), Value::F64(4.0));
    let d = describe(&meta, &t, &BTreeMap::new()).unwrap();
    assert!(d.head.is_some() && d.rope_factors.is_some());
    assert!((d.ropes[0].inv_freq[0] - 0.25).abs() < 1e-9);
    meta.values.insert("llama.rope.scaling.type".to_owned(), text("other"));
    assert_eq!(refusal(&meta, &t), "llama.rope.scaling.type \"other\" is not supported");
    meta.values.insert("llama.rope.scaling.type".to_owned(), text("yarn"));
    assert!(described(&meta, &t).ropes[0].magnitude > 1.1);
    meta.values.insert("llama.rope.scaling.yarn_log_multiplier".to_owned(), Value::F64(0.1));
    let said = refusal(&meta, &t);
    assert_eq!(said, "llama.rope.scaling.yarn_log_multiplier is not supported");
    meta.values.insert("llama.rope.scaling.type".to_owned(), text("longrope"));
    assert_eq!(refusal(&meta, &t), "tensor rope_factors_short.weight is missing");
}

#[test]
fn refusals_name_what_is_wrong() {
    let (mut meta, mut t) = model("llama");
    meta.values.insert("general.architecture".to_owned(), Value::String("mamba".to_owned()));
    let said = refusal(&meta, &t);
    assert!(said.contains("\"mamba\"") && said.contains("llama, qwen2, qwen2moe, qwen3"), "{said}");
    assert!(refusal(&Metadata::default(), &t).starts_with("general.architecture"));

    let (mut meta, _) = model("llama");
    tensor(&mut t, "blk.3.ffn_gate_inp.weight", 8, HIDDEN);
    assert!(refusal(&meta, &t).contains("blk.3.ffn_gate_inp.weight"));
    t.remove("blk.3.ffn_gate_inp.weight");
    tensor(&mut t, "blk.7.ffn_down.weight", HIDDEN, MLP + 1);
    assert_eq!(
        refusal(&meta, &t),
        "tensor blk.7.ffn_down.weight is 64 x 97, the hyperparameters say 64 x 96"
    );
    t.remove("blk.7.ffn_down.weight");
    assert_eq!(refusal(&meta, &t), "tensor blk.7.ffn_down.weight is missing");
    for (key, n) in [("expert_count", 4), ("expert_used_count", 5)] {
        meta.values.insert(format!("llama.{key}"), Value::U64(n));
    }
    assert_eq!(refusal(&meta, &t), "llama.expert_used_count (5) is above llama.expert_count (4)");
    meta.values.insert("llama.expert_used_count".to_owned(), Value::U64(2));
    assert_eq!(refusal(&meta, &t), "tensor blk.0.ffn_gate_inp.weight is missing");
    let (meta, mut t) = model("qwen2");
    t.remove("blk.0.attn_k.bias");
    assert_eq!(refusal(&meta, &t), "tensor blk.0.attn_k.bias is missing");
}

#[test]
fn what_has_no_meaning_may_lie_there() {
    let (meta, mut t) = model("llama");
    tensor(&mut t, "extra.weight", 3, 5);
    tensor(&mut t, "blk.0.attn_rot_embd", 1, 16);
    tensor(&mut t, "blk.12.ffn_gate_inp.weight", 8, HIDDEN);
    let mut unusable = BTreeMap::from([("other".to_owned(), "has type I8".to_owned())]);
    describe(&meta, &t, &unusable).unwrap();
    // What cannot be used is not absent: a head of its own must not give way to the embedding.
    unusable.insert("output.weight".to_owned(), "has type IQ2_XXS".to_owned());
    let refused = describe(&meta, &t, &unusable).unwrap_err();
    assert_eq!(refused.to_string(), "tensor output.weight has type IQ2_XXS");
    let unusable = BTreeMap::from([("blk.1.attn_q_norm.weight".to_owned(), "is empty".to_owned())]);
    let refused = describe(&meta, &t, &unusable).unwrap_err();
    assert!(refused.to_string().contains("blk.1.attn_q_norm.weight has no use"));
}

#[test]
fn windows_are_where_the_file_or_the_family_says() {
    let windows = |meta: &Metadata, t: &Tensors| -> Vec<Option<usize>> {
        described(meta, t).layers.iter().map(|layer| layer.window).collect()
    };
    // Mistral's, if a converter kept it.
    let (mut meta, t) = model("llama");
    assert_eq!(windows(&meta, &t), [Some(512); 12]);
    meta.values.remove("llama.attention.sliding_window");
    assert_eq!(windows(&meta, &t), [None; 12]);
    let Gguf { mut metadata, tensors, .. } = header("phi3");
    assert_eq!(windows(&metadata, &tensors), [Some(37); 2]);
    metadata.values.insert("phi3.attention.sliding_window".to_owned(), Value::U64(0));
    assert_eq!(windows(&metadata, &tensors), [None; 2]);
    metadata.values.remove("phi3.attention.sliding_window");
    assert_eq!(windows(&metadata, &tensors), [None; 2]);
    metadata.values.insert("phi3.context_length".to_owned(), Value::U64(4_096));
    assert_eq!(windows(&metadata, &tensors), [Some(2_047); 2]);
}

#[test]
fn experts_are_views_of_one_tensor() {
    let Gguf { metadata, mut tensors, .. } = header("gpt_oss");
    let described = described(&metadata, &tensors);
    let MlpDescription::Experts { experts, .. } = &described.layers[1].mlp else { panic!() };
    let all = &tensors["blk.1.ffn_up_exps.weight"];
    let (third, fourth) = (&experts[2].up.weights[1], &experts[3].up.weights[1]);
    assert_eq!((third.rows, third.cols, third.matrices), (32, 32, 1));
    assert_eq!(third.offset, all.offset + 2 * 32 * 32 * 2);
    assert_eq!(fourth.offset + fourth.byte_len() as u64, all.offset + all.byte_len() as u64);
    // All of them count where memory is planned.
    assert_eq!(packed_bytes(all), 4 * packed_bytes(third));
    let biases = &tensors["blk.1.ffn_up_exps.bias"];
    assert_eq!(experts[3].up.bias[1].offset, biases.offset + 3 * 32 * 4);
    let short = TensorSource { matrices: 3, ..all.clone() };
    tensors.insert(short.name.clone(), short);
    assert_eq!(
        refusal(&metadata, &tensors),
        "tensor blk.1.ffn_up_exps.weight is 3 x 32 x 32, the hyperparameters say 4 x 32 x 32"
    );
}

/// The header of a small model in `tests/models`.
fn header(name: &str) -> Gguf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models").join(name);
    let file = if name == "llama-linear" { "model-00001-of-00003.gguf" } else { "model.gguf" };
    Gguf::open(&folder.join(file)).unwrap()
}

/// One of each family, and of each way to scale a rotation.
const HEADERS: [&str; 18] = [
    "gemma2",
    "gemma3",
    "gpt2",
    "gpt_oss",
    "granite",
    "llama-linear",
    "llama-yarn",
    "llama3",
    "mixtral",
    "olmo2",
    "phi3",
    "phi4-mini",
    "qwen2",
    "qwen2_moe",
    "qwen3",
    "qwen3_moe",
    "smollm3",
    "starcoder2",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn hostile_hyperparameters_never_panic(
        name in prop::sample::select(HEADERS.to_vec()),
        which in any::<prop::sample::Index>(),
        value in prop_oneof![
            prop::sample::select(vec![0, 1, 2, 3, 31, 33, u64::MAX, u64::MAX / 2, 1 << 32, 1 << 20])
                .prop_map(Value::U64),
            any::<i64>().prop_map(Value::I64),
            prop::sample::select(vec![f64::NAN, f64::INFINITY, -1.0, 0.0, 1e300, 1e-300])
                .prop_map(Value::F64),
            Just(Value::Bool(true)),
            Just(Value::U64s(vec![1, 2])),
            Just(Value::String("x".repeat(1000))),
        ],
        extra in prop::sample::select(vec![
            "rope.scaling.original_context_length", "rope.scaling.yarn_beta_fast",
            "rope.scaling.yarn_beta_slow", "rope.scaling.yarn_ext_factor", "rope.scaling.attn_factor",
            "expert_count", "expert_used_count", "expert_feed_forward_length",
            "expert_shared_feed_forward_length", "attention.sliding_window",
            "rope.dimension_count", "rope.scaling.type", "rope.scaling.factor", "attention.scale",
            "attention.sliding_window_pattern", "attention.value_length", "rope.freq_base_swa",
            "attn_logit_softcapping", "final_logit_softcapping", "embedding_scale", "residual_scale",
            "logit_scale", "none",
        ]),
    ) {
        let Gguf { metadata: mut meta, tensors: t, .. } = header(name);
        let arch = meta.str("general.architecture").unwrap().to_owned();
        let own = format!("{arch}.");
        let keys: Vec<String> = meta.values.keys().filter(|k| k.starts_with(&own)).cloned().collect();
        if extra == "none" {
            meta.values.insert(which.get(&keys).clone(), value);
        } else {
            meta.values.insert(format!("{arch}.{extra}"), value);
        }
        if let Err(refused) = describe(&meta, &t, &BTreeMap::new()) {
            prop_assert!(!refused.0.is_empty() && refused.0.len() < 300 && !refused.0.contains('\n'));
        }
    }
}
