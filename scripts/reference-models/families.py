"""What is made: one `Model` for each family or variant, in the family's own configuration class.

Sizes are the smallest in which a mistake still shows: widths are multiples of 32 and heads of 16, as quantised blocks and
kernels want them; heads are odd in number where the configuration class lets them; windows and original contexts are
shorter than the longest prompt.
"""
import dataclasses

# Tokens of context that every model is given. The longest prompt and its continuation fit.
CONTEXT = 256
WINDOW = 37


@dataclasses.dataclass
class Model:
    name: str
    config_class: str
    config: dict
    # Which of the two vocabularies, and what llama.cpp calls its pre-tokenizer.
    tokenizer: str
    weights: str = "bf16"
    gguf: str = "f16"
    # Released folders mostly have the keys of transformers 4 (`rope_theta`, `rope_scaling`, `torch_dtype`).
    config_keys: int = 4
    shards: int = 1
    gguf_tensors_per_split: int = 0
    # Changes to the configuration whose effect is measured: would a reader that forgets it be noticed?
    mistakes: dict = dataclasses.field(default_factory=dict)
    # Rounded to MXFP4: the experts, as gpt-oss is released.
    mxfp4: bool = False
    # Other generation defaults than the end tokens.
    generation: dict = dataclasses.field(default_factory=dict)
    # Where llama.cpp deviates, on purpose or by omission: changes to the configuration under which transformers does as it does.
    llama_cpp_reading: dict = dataclasses.field(default_factory=dict)
    note: str = ""
    # Computed by candle-transformers: a folder only, and no second reference.
    fallback: bool = False


def sizes(hidden, layers, heads, kv_heads, mlp, **more):
    return {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
            "num_key_value_heads": kv_heads, "intermediate_size": mlp, "max_position_embeddings": CONTEXT} | more


def rope(theta=10000.0, **more):
    return {"rope_parameters": {"rope_type": "default", "rope_theta": theta} | more}


PLAIN_ROPE = rope()
LLAMA3 = rope(5000.0, rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=64)
LINEAR = rope(rope_type="linear", factor=4.0)
YARN = rope(rope_type="yarn", factor=4.0, original_max_position_embeddings=64)
YARN_MISTAKES = {"no RoPE scaling": PLAIN_ROPE,
                 "no factor of scores": {"rope_parameters": YARN["rope_parameters"] | {"attention_factor": 1.0}}}


def gpt_oss_rope(truncate):
    return rope(1500.0, rope_type="yarn", factor=4.0, beta_fast=32.0, beta_slow=1.0, truncate=truncate,
                original_max_position_embeddings=64)


def longrope(pairs, step=0.6, **more):
    short = [1.0 + 0.05 * i for i in range(pairs)]
    long = [round(1.0 + step * i, 2) for i in range(pairs)]
    factors = {"short_factor": short, "long_factor": long}
    return rope(rope_type="longrope", **factors, **more) | {"original_max_position_embeddings": 64}


GPT_OSS = sizes(32, 2, 3, 1, 32, head_dim=32, num_local_experts=4, num_experts_per_tok=2, sliding_window=WINDOW)

MODELS = [
    Model("llama", "LlamaConfig", sizes(32, 2, 2, 2, 64) | PLAIN_ROPE, "spm", weights="f16"),
    Model("llama3", "LlamaConfig", sizes(96, 2, 3, 1, 32, tie_word_embeddings=True, rms_norm_eps=1e-5) | LLAMA3, "llama-bpe",
          generation={"do_sample": True, "temperature": 0.6, "top_p": 0.9},
          mistakes={"no RoPE scaling": PLAIN_ROPE | {"rope_parameters": {"rope_type": "default", "rope_theta": 5000.0}}}),
    Model("llama-linear", "LlamaConfig", sizes(32, 2, 2, 1, 64) | LINEAR, "spm", config_keys=5, gguf_tensors_per_split=8,
          mistakes={"no RoPE scaling": PLAIN_ROPE}),
    Model("llama-yarn", "LlamaConfig", sizes(32, 2, 2, 1, 64) | YARN, "llama-bpe", mistakes=YARN_MISTAKES),
    Model("mistral", "MistralConfig", sizes(32, 2, 3, 1, 64, head_dim=32, sliding_window=WINDOW) | PLAIN_ROPE, "spm",
          mistakes={"no sliding window": {"sliding_window": None}}, llama_cpp_reading={"sliding_window": None},
          note="llama.cpp's converter writes no window and its llama graph has none"),
    Model("mixtral", "MixtralConfig",
          sizes(32, 2, 3, 1, 32, head_dim=32, num_local_experts=4, num_experts_per_tok=2, sliding_window=None) | PLAIN_ROPE,
          "spm", gguf="bf16"),
    Model("qwen2", "Qwen2Config", sizes(32, 3, 2, 1, 64, tie_word_embeddings=True) | rope(1000000.0), "qwen2", shards=3),
    Model("qwen2-yarn", "Qwen2Config", sizes(32, 2, 2, 1, 64, tie_word_embeddings=True) | YARN, "qwen2", gguf="f32",
          mistakes=YARN_MISTAKES),
    Model("qwen2_moe", "Qwen2MoeConfig",
          sizes(32, 2, 2, 1, 64, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32,
                shared_expert_intermediate_size=64) | PLAIN_ROPE, "qwen2",
          mistakes={"weights of the chosen experts made to sum to one": {"norm_topk_prob": True}}),
    Model("qwen3", "Qwen3Config", sizes(32, 2, 3, 1, 64, head_dim=32, tie_word_embeddings=True) | rope(1000000.0), "qwen2",
          config_keys=5, generation={"do_sample": True, "temperature": 0.6, "top_p": 0.95, "top_k": 20}),
    Model("qwen3_moe", "Qwen3MoeConfig",
          sizes(32, 2, 3, 1, 64, head_dim=32, num_experts=5, num_experts_per_tok=2, moe_intermediate_size=32,
                norm_topk_prob=True) | rope(1000000.0), "qwen2",
          mistakes={"weights of the chosen experts not made to sum to one": {"norm_topk_prob": False}}),
    Model("gemma", "GemmaConfig", sizes(32, 2, 3, 1, 64, head_dim=32, hidden_activation="gelu_pytorch_tanh") | PLAIN_ROPE,
          "gemma"),
    Model("gemma2", "Gemma2Config",
          sizes(32, 3, 2, 1, 64, head_dim=32, query_pre_attn_scalar=32, sliding_window=WINDOW, attn_logit_softcapping=3.0,
                final_logit_softcapping=4.0) | PLAIN_ROPE, "gemma",
          mistakes={"no sliding window": {"sliding_window": CONTEXT}, "no soft cap of scores": {"attn_logit_softcapping": None},
                    "no soft cap of logits": {"final_logit_softcapping": None}}),
    Model("gemma3", "Gemma3TextConfig",
          sizes(32, 7, 2, 1, 32, head_dim=16, query_pre_attn_scalar=16, sliding_window=WINDOW)
          | {"rope_parameters": {"full_attention": {"rope_type": "linear", "rope_theta": 1000000.0, "factor": 8.0},
                                 "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}}}, "gemma",
          generation={"do_sample": True, "top_k": 64, "top_p": 0.95},
          mistakes={"no sliding window": {"sliding_window": CONTEXT},
                    "no RoPE scaling": {"rope_parameters": {
                        "full_attention": {"rope_type": "default", "rope_theta": 1000000.0},
                        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}}}}),
    Model("phi3", "Phi3Config", sizes(32, 2, 2, 1, 64, sliding_window=WINDOW, original_max_position_embeddings=CONTEXT)
          | PLAIN_ROPE, "spm", mistakes={"no sliding window": {"sliding_window": None}}, llama_cpp_reading={"sliding_window": None},
          note="llama.cpp reads the window and turns it off (src/models/phi3.cpp)"),
    Model("phi3-longrope", "Phi3Config", sizes(32, 2, 2, 1, 64, sliding_window=None) | longrope(8), "spm",
          mistakes={"factors for short contexts": longrope(8, 0.05)},
          note="factors by length of the prompt in transformers, by the server's context in llama.cpp"),
    Model("phi4-mini", "Phi3Config", sizes(32, 2, 2, 1, 64, sliding_window=None, tie_word_embeddings=True)
          | longrope(6, partial_rotary_factor=0.75), "gpt-4o",
          mistakes={"factors for short contexts": longrope(6, 0.05, partial_rotary_factor=0.75)},
          note="factors by length of the prompt in transformers, by the server's context in llama.cpp"),
    Model("smollm3", "SmolLM3Config", sizes(32, 5, 2, 1, 32) | rope(50000.0), "llama-bpe",
          mistakes={"RoPE in every layer": {"no_rope_layers": [1] * 5}}),
    Model("olmo2", "Olmo2Config", sizes(32, 2, 2, 1, 64) | rope(500000.0), "llama-bpe"),
    Model("granite", "GraniteConfig",
          sizes(64, 2, 2, 1, 32, tie_word_embeddings=True, embedding_multiplier=3.0, logits_scaling=1.5,
                residual_multiplier=0.7, attention_multiplier=0.125) | PLAIN_ROPE, "starcoder",
          mistakes={"no multiplier of embeddings": {"embedding_multiplier": 1.0}, "no scale of logits": {"logits_scaling": 1.0},
                    "no multiplier of residuals": {"residual_multiplier": 1.0},
                    "no multiplier of scores": {"attention_multiplier": 32 ** -0.5}}),
    Model("starcoder2", "Starcoder2Config", sizes(32, 2, 2, 1, 64, sliding_window=WINDOW) | PLAIN_ROPE, "starcoder",
          mistakes={"no sliding window": {"sliding_window": None}}, llama_cpp_reading={"sliding_window": None},
          note="llama.cpp's converter writes no window and its starcoder2 graph has none"),
    Model("gpt2", "GPT2Config", {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": CONTEXT, "n_ctx": CONTEXT}, "gpt-2",
          weights="f32"),
    Model("gpt_oss", "GptOssConfig", GPT_OSS | gpt_oss_rope(True), "gpt-4o",
          mistakes={"no sliding window": {"sliding_window": CONTEXT}, "no RoPE scaling": rope(1500.0),
                    "no limit of the MLP": {"swiglu_limit": 1e6}, "ramp of YaRN not rounded": gpt_oss_rope(False)}),
    # As released: experts in four bits, and a ramp of YaRN that is not rounded to whole dimensions.
    Model("gpt_oss-mxfp4", "GptOssConfig", GPT_OSS | gpt_oss_rope(False), "gpt-4o", mxfp4=True,
          mistakes={"ramp of YaRN rounded": gpt_oss_rope(True)}, llama_cpp_reading=gpt_oss_rope(True),
          note="ggml rounds YaRN's ramp to whole dimensions (ggml_rope_yarn_corr_dims), and activations to Q8_0 before MXFP4"),
    Model("phi", "PhiConfig", sizes(32, 2, 2, 2, 64) | rope(partial_rotary_factor=0.5), "gpt-2", fallback=True,
          mistakes={"all of a head turned": rope(partial_rotary_factor=1.0)}),
    Model("stablelm", "StableLmConfig", sizes(32, 2, 2, 1, 64, use_qkv_bias=True) | rope(partial_rotary_factor=0.25), "gpt-2",
          fallback=True, mistakes={"all of a head turned": rope(partial_rotary_factor=1.0)}),
    Model("olmo", "OlmoConfig", sizes(32, 2, 2, 2, 64, clip_qkv=1.5) | PLAIN_ROPE, "gpt-2", fallback=True,
          mistakes={"q, k and v not clipped": {"clip_qkv": None}}),
    Model("glm4", "Glm4Config", sizes(32, 2, 2, 1, 64, head_dim=32, attention_bias=True) | rope(partial_rotary_factor=0.5),
          "llama-bpe", fallback=True, mistakes={"all of a head turned": rope(partial_rotary_factor=1.0)}),
    Model("gpt_bigcode", "GPTBigCodeConfig", {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": CONTEXT}, "starcoder",
          fallback=True),
    Model("lfm2", "Lfm2Config", sizes(32, 4, 2, 1, 64, full_attn_idxs=[1, 3], block_multiple_of=32) | rope(1000000.0), "llama-bpe",
          fallback=True),
]
