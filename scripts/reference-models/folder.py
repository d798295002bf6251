"""Writes a model as the folder that Hugging Face serves: weights, configuration, tokenizer."""
import json, pathlib, shutil

import torch
import transformers
from safetensors.torch import load_file, save_file

import weights
from vocabulary import Vocabulary

DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
# One product after another, as the modeling files spell it out.
PLAINLY = {"attn_implementation": "eager", "experts_implementation": "eager"}
# Keys that transformers 5 writes, and those of releases.
RENAMED = {"qwen3_moe": {"num_local_experts": "num_experts"}, "gemma3_text": {"_sliding_window_pattern": "sliding_window_pattern"}}
TYPE_KEY = dict.fromkeys(["qwen2-yarn", "phi3-longrope", "phi4-mini"], "type")
# Written by every release of transformers for itself, or false of a random model.
NOT_KEPT = ("transformers_version", "_name_or_path", "initializer_range", "use_cache", "pretraining_tp")


def random_model(spec, vocabulary, seed):
    """The family's own class with random weights, in float32."""
    rows = vocabulary.size + 32 * (spec.name == "qwen2")  # released Qwens have more rows than tokens
    tokens = {"bos_token_id": vocabulary.bos, "eos_token_id": vocabulary.eos, "pad_token_id": vocabulary.pad}
    config = getattr(transformers, spec.config_class)(vocab_size=rows, **tokens, **json.loads(json.dumps(spec.config)))
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32, **PLAINLY).eval()
    weights.fill(model, seed)
    packed = {}
    if spec.mxfp4:
        for name, parameter in model.named_parameters():
            if name.endswith(("experts.gate_up_proj", "experts.down_proj")):
                blocks, scales, values = weights.to_mxfp4(parameter.data)
                parameter.data.copy_(values)
                packed[name] = {f"{name}_blocks": blocks, f"{name}_scales": scales}
    return model, packed


def write(spec, seed, folder):
    """Everything but `expected.json` and the GGUF. Returns the vocabulary."""
    vocabulary = Vocabulary(spec.tokenizer)
    model, packed = random_model(spec, vocabulary, seed)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    model.generation_config = transformers.GenerationConfig(
        bos_token_id=vocabulary.bos, eos_token_id=vocabulary.ends(), pad_token_id=vocabulary.pad, **spec.generation)
    model.to(DTYPES[spec.weights]).save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    for name, parts in packed.items():
        del tensors[name]
        tensors |= parts
    write_shards(tensors, folder, spec.shards)
    rewrite(folder / "config.json", lambda config: with_keys_of(spec, config))
    rewrite(folder / "generation_config.json", lambda config: config)
    for name, data in vocabulary.files.items():
        (folder / name).write_bytes(data)
    return vocabulary


def write_shards(tensors, folder, shards):
    """As `save_pretrained` does it, but for models far below its smallest shard."""
    (folder / "model.safetensors").unlink()
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names = sorted(tensors)
    share = -(-len(names) // shards)
    weight_map = {}
    for i in range(shards):
        file = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        part = names[i * share:(i + 1) * share]
        save_file({name: tensors[name] for name in part}, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    size = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")


def rewrite(path, change):
    config = change(json.loads(path.read_text()))
    kept = {key: value for key, value in config.items() if key not in NOT_KEPT}
    path.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")


def with_keys_of(spec, config):
    """Keys of transformers 5 as they are, or turned into those that released models have."""
    if spec.mxfp4:
        config["quantization_config"] = {
            "quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router",
                                                                 "model.embed_tokens", "lm_head"]}
    if spec.config_keys == 5:
        return config
    kind = config["model_type"]
    config["torch_dtype"] = config.pop("dtype")
    for new, old in RENAMED.get(kind, {}).items():
        config[old] = config.pop(new)
    if kind not in ("gpt_oss", "smollm3"):
        config.pop("layer_types", None)
    if kind == "llama" and config["head_dim"] * config["num_attention_heads"] == config["hidden_size"]:
        del config["head_dim"]
    rope = config.pop("rope_parameters", None)
    if not rope:
        return config
    if "full_attention" in rope:
        # Gemma 3: one base for either kind of layer, scaling for the global ones.
        config["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        rope = rope["full_attention"]
    config["rope_theta"] = rope.pop("rope_theta")
    if (part := rope.pop("partial_rotary_factor", None)) is not None and part != 1.0:
        config["partial_rotary_factor"] = part
    if kind == "phi3":
        rope.pop("original_max_position_embeddings", None)
    scaling = rope.pop("rope_type")
    config["rope_scaling"] = None if scaling == "default" else {TYPE_KEY.get(spec.name, "rope_type"): scaling} | rope
    return config


def load(folder, changes=None, dtype=torch.float32):
    """The model as a reader finds it, with changes to its configuration."""
    folder = pathlib.Path(folder)
    config = transformers.AutoConfig.from_pretrained(folder)
    options = {}
    if getattr(config, "quantization_config", None):
        options["quantization_config"] = transformers.Mxfp4Config(dequantize=True)
    for key, value in (changes or {}).items():
        setattr(config, key, json.loads(json.dumps(value)))
    if changes and getattr(config, "layer_types", None) and config.to_dict().get("sliding_window", 0) is None:
        config.layer_types = ["full_attention"] * len(config.layer_types)
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, config=config, dtype=dtype, **PLAINLY, **options).eval()
