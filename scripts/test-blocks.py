#!/usr/bin/env python3
"""Makes tests/golden/block-types.json: blocks of every GGUF type but plain floats, and the numbers that `gguf` says they are.

    python -m venv .cache/blocks && .cache/blocks/bin/pip install gguf==0.19.0 numpy==2.4.6
    .cache/blocks/bin/python scripts/test-blocks.py

`gguf` is llama.cpp's own Python package. Blocks are random bytes from a fixed seed, their scales finite ones. Types that ggml has but
`gguf` cannot read yet (Q1_0, Q2_0) are read here as ggml's `dequantize_row_*` does.
"""
import base64, json, pathlib

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as Type
from gguf.quants import dequantize

TARGET = pathlib.Path(__file__).resolve().parent.parent / "tests/golden/block-types.json"
VALUES = 512
# Where a block has scales that are halves.
HALVES = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2],
          "Q5_K": [0, 2], "Q6_K": [208], "IQ1_S": [0], "IQ1_M": [], "IQ2_XXS": [0], "IQ2_XS": [0], "IQ2_S": [0], "IQ3_XXS": [0],
          "IQ3_S": [0], "IQ4_NL": [0], "IQ4_XS": [0], "TQ1_0": [52], "TQ2_0": [64], "MXFP4": [], "NVFP4": [], "Q1_0": [0], "Q2_0": [0]}
SIZES = {name: GGML_QUANT_SIZES[Type[name]] for name in HALVES if name not in ("Q1_0", "Q2_0")} | {"Q1_0": (128, 18), "Q2_0": (64, 18)}


def half(rng):
    """Its bits: a scale of either sign as real ones are large."""
    return np.float16(rng.choice([-1, 1]) * 2.0 ** rng.uniform(-10, -5)).view(np.uint16)


def blocks(name, rng):
    length, size = SIZES[name]
    made = rng.integers(0, 256, (VALUES // length, size), dtype=np.uint8)
    for block in made:
        for at in HALVES[name]:
            block[at:at + 2] = np.frombuffer(half(rng).tobytes(), np.uint8)
        if name == "IQ1_M":
            # A nibble of it in each of four words.
            bits = int(half(rng))
            for i in range(4):
                block[49 + 2 * i] = block[49 + 2 * i] & 15 | (bits >> (4 * i) & 15) << 4
        if name == "MXFP4":
            block[0] = rng.integers(115, 130)
    return made


def numbers(name, data):
    if name == "Q1_0":
        bits = np.unpackbits(data[:, 2:], axis=1, bitorder="little").astype(np.float32)
        return data[:, :2].copy().view(np.float16).astype(np.float32) * (2 * bits - 1)
    if name == "Q2_0":
        pairs = data[:, 2:, None] >> np.array([0, 2, 4, 6], np.uint8) & 3
        return data[:, :2].copy().view(np.float16).astype(np.float32) * (pairs.reshape(len(data), -1).astype(np.float32) - 1)
    return dequantize(data, Type[name])


def main():
    rng = np.random.default_rng(1)
    text = lambda array: base64.b64encode(array.tobytes()).decode()
    made = {}
    for name in HALVES:
        data = blocks(name, rng)
        values = numbers(name, data).astype(np.float32, copy=False)
        assert np.isfinite(values).all() and values.size == VALUES, name
        made[name] = {"blocks": text(data), "values": text(values.reshape(-1))}
    TARGET.write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
