//! The families whose folders can be read, and how each departs from what most have.

use super::names::Names;

/// A family as Hugging Face has it, and as GGUF has it.
pub(super) struct Family {
    /// `model_type`.
    pub(super) name: &'static str,
    /// `general.architecture`.
    pub(super) arch: &'static str,
    /// The function that its MLP is built with.
    pub(super) activation: &'static str,
    pub(super) names: Names,
    /// `sliding_window` holds in every layer.
    pub(super) all_local: bool,
    /// The weights of the chosen experts are made to.
    pub(super) sums_to_one: bool,
    /// Numbers that have other names in a GGUF.
    pub(super) numbers: &'static [(&'static str, &'static str)],
    /// Keys without which transformers takes a default of the class, but for a rotation's base of 10,000.
    pub(super) needed: &'static [&'static str],
}

const NAMES: Names = Names {
    post_norms: false,
    norms_lack_one: false,
    is_gpt2: false,
    is_gpt_oss: false,
    epsilon: "rms_norm_eps",
    own: &[],
};
const PLAIN: Family = Family {
    name: "",
    arch: "",
    activation: "silu",
    names: NAMES,
    all_local: false,
    sums_to_one: false,
    numbers: &[],
    needed: &["rope_theta"],
};
const GEMMA: Family = Family {
    name: "gemma",
    arch: "gemma",
    activation: "gelu_pytorch_tanh",
    names: Names { norms_lack_one: true, ..NAMES },
    ..PLAIN
};
const GEMMA2: Family = Family {
    name: "gemma2",
    arch: "gemma2",
    names: Names { post_norms: true, norms_lack_one: true, ..NAMES },
    needed: &[
        "rope_theta",
        "attn_logit_softcapping",
        "final_logit_softcapping",
        "query_pre_attn_scalar",
        "sliding_window",
    ],
    numbers: &[
        ("attn_logit_softcapping", "attn_logit_softcapping"),
        ("final_logit_softcapping", "final_logit_softcapping"),
        ("rope_local_base_freq", "rope.freq_base_swa"),
    ],
    ..GEMMA
};
pub(super) const FAMILIES: [Family; 17] = [
    // Llama 2 has no base in its files.
    Family { name: "llama", arch: "llama", needed: &[], ..PLAIN },
    Family { name: "mistral", arch: "llama", all_local: true, ..PLAIN },
    Family {
        name: "mixtral",
        arch: "llama",
        all_local: true,
        sums_to_one: true,
        names: Names {
            own: &[
                ("ffn_gate_inp", "block_sparse_moe.gate"),
                ("ffn_gate.#", "block_sparse_moe.experts.#.w1"),
                ("ffn_up.#", "block_sparse_moe.experts.#.w3"),
                ("ffn_down.#", "block_sparse_moe.experts.#.w2"),
            ],
            ..NAMES
        },
        ..PLAIN
    },
    Family { name: "qwen2", arch: "qwen2", ..PLAIN },
    Family { name: "qwen2_moe", arch: "qwen2moe", ..PLAIN },
    Family { name: "qwen3", arch: "qwen3", ..PLAIN },
    Family { name: "qwen3_moe", arch: "qwen3moe", sums_to_one: true, ..PLAIN },
    Family {
        name: "phi3",
        arch: "phi3",
        all_local: true,
        names: Names {
            own: &[("attn_q", "self_attn.qkv_proj"), ("ffn_up", "mlp.gate_up_proj")],
            ..NAMES
        },
        ..PLAIN
    },
    Family { name: "olmo2", arch: "olmo2", names: Names { post_norms: true, ..NAMES }, ..PLAIN },
    Family {
        name: "starcoder2",
        arch: "starcoder2",
        activation: "gelu_pytorch_tanh",
        all_local: true,
        names: Names {
            epsilon: "norm_epsilon",
            own: &[("ffn_up", "mlp.c_fc"), ("ffn_down", "mlp.c_proj")],
            ..NAMES
        },
        ..PLAIN
    },
    Family {
        name: "gpt2",
        arch: "gpt2",
        activation: "gelu_new",
        needed: &[],
        names: Names {
            is_gpt2: true,
            epsilon: "layer_norm_epsilon",
            own: &[
                ("token_embd", "wte"),
                ("output_norm", "ln_f"),
                ("attn_norm", "ln_1"),
                ("ffn_norm", "ln_2"),
                ("attn_q", "attn.c_attn"),
                ("attn_qkv", "attn.c_attn"),
                ("attn_output", "attn.c_proj"),
                ("ffn_up", "mlp.c_fc"),
                ("ffn_down", "mlp.c_proj"),
            ],
            ..NAMES
        },
        ..PLAIN
    },
    Family {
        name: "gpt_oss",
        arch: "gpt-oss",
        names: Names {
            post_norms: true,
            is_gpt_oss: true,
            own: &[("ffn_gate_inp", "mlp.router")],
            ..NAMES
        },
        sums_to_one: true,
        needed: &["rope_theta", "head_dim", "sliding_window", "layer_types"],
        ..PLAIN
    },
    GEMMA,
    GEMMA2,
    Family { name: "gemma3_text", arch: "gemma3", ..GEMMA2 },
    Family { name: "smollm3", arch: "smollm3", ..PLAIN },
    Family {
        name: "granite",
        arch: "granite",
        needed: &[
            "rope_theta",
            "attention_multiplier",
            "embedding_multiplier",
            "residual_multiplier",
            "logits_scaling",
        ],
        numbers: &[
            ("attention_multiplier", "attention.scale"),
            ("embedding_multiplier", "embedding_scale"),
            ("residual_multiplier", "residual_scale"),
            ("logits_scaling", "logit_scale"),
        ],
        ..PLAIN
    },
];
