"""Random weights under which every part of a model matters, exact in float32, bfloat16 and float16."""
import math

import numpy
import torch

# Every weight is a multiple of this and below 1 (vectors: 2), so 8 bits hold its significand.
STEP = 1 / 128
# Values that MXFP4's four bits stand for (E2M1).
MXFP4_VALUES = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]


def on_grid(values, largest):
    rounded = numpy.clip(numpy.round(values / STEP) * STEP, STEP - largest, largest - STEP)
    return torch.from_numpy(rounded.astype(numpy.float32))


def fill(model, seed):
    """Overwrites all parameters. Tied ones are one parameter and are written once."""
    rng = numpy.random.default_rng(seed)
    one_is_added = model.config.model_type.startswith("gemma")
    embedding = model.get_input_embeddings().weight
    head = model.get_output_embeddings().weight
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            shape = tuple(parameter.shape)
            part = name.split(".")[-2] if "." in name else name
            if "norm" in part or part.startswith("ln_"):
                # Above and below what leaves the scale as it is.
                values = rng.uniform(-0.5, 0.5, shape)
                is_scale = name.endswith("weight")
                parameter.copy_(on_grid(values + (is_scale and not one_is_added), 2))
            elif name.endswith("sinks"):
                parameter.copy_(on_grid(rng.normal(1.0, 0.5, shape), 2))
            elif "bias" in name.split(".")[-1]:
                parameter.copy_(on_grid(rng.normal(0, 0.25, shape), 1))
            else:
                parameter.copy_(on_grid(rng.normal(0, deviation(name, parameter, embedding, head, model.config), shape), 1))


def deviation(name, parameter, embedding, head, config):
    """Of a matrix: products keep the scale of a normalised input; queries and keys a larger one, so that scores differ."""
    if parameter is embedding or parameter is head:
        return 2.0 / math.sqrt(config.hidden_size)
    if "wpe" in name:
        return 0.3
    # As stored: experts of gpt-oss and gpt2's matrices are [in, out], all others [out, in].
    transposed = config.model_type == "gpt2" or (config.model_type == "gpt_oss" and "experts" in name)
    inputs = parameter.shape[-2 if transposed else -1]
    gain = 1.2
    if any(part in name for part in ("q_proj", "k_proj", "qkv_proj", "c_attn")):
        gain = 1.6
    elif config.model_type == "gpt_oss" and "experts" in name:
        # Far enough for its limit of 7 to matter.
        gain = 3.5 if "gate_up" in name else 0.3
    elif "router" in name or name.endswith("mlp.gate.weight") or "shared_expert_gate" in name:
        gain = 4.0
    return gain / math.sqrt(inputs)


def to_mxfp4(tensor):
    """Blocks and scales of the nearest MXFP4 values, as gpt-oss is stored, and those values. `tensor`: [experts, in, out]."""
    rows = tensor.transpose(1, 2).contiguous()
    experts, outs, ins = rows.shape
    blocks = rows.reshape(experts, outs, ins // 32, 32)
    exponent = torch.floor(torch.log2(blocks.abs().amax(-1, keepdim=True).clamp(min=2.0 ** -10))) - 2
    scaled = blocks / torch.exp2(exponent)
    steps = torch.tensor(MXFP4_VALUES)
    code = (scaled.abs().unsqueeze(-1) - steps).abs().argmin(-1)
    sign = (scaled < 0) & (code > 0)
    values = torch.where(sign, -steps[code], steps[code]) * torch.exp2(exponent)
    nibbles = (code + 8 * sign).to(torch.uint8)
    packed = nibbles[..., 0::2] | (nibbles[..., 1::2] << 4)
    scales = (exponent.squeeze(-1) + 127).to(torch.uint8)
    return packed, scales, values.reshape(experts, outs, ins).transpose(1, 2).contiguous()
