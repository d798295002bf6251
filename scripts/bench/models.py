#!/usr/bin/env python3
"""Makes the other files that the benchmark is run on: models.py OUT_DIR SMOLLM2.gguf LLAMA_SERVER

SmolLM2 requantised to Q4_0 and Q8_0 by llama.cpp, and a model with the shapes of Llama 3.2 1B and random weights: for speed
alone, where 135 million parameters say too little. The text it makes is noise, and finite.
"""
import os, pathlib, random, struct, subprocess, sys

LAYERS, WIDE, MLP, HEADS, KV_HEADS, HEAD, CONTEXT = 16, 2048, 8192, 32, 8, 64, 8192
ALIGNMENT = 32
F32, Q4_K, Q6_K = 0, 12, 14
# Bytes of the types of GGUF's metadata, by number; 8 is a string, 9 an array.
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}


def string(text):
    return struct.pack("<Q", len(text.encode())) + text.encode()


class Metadata:
    """The key-value pairs of a GGUF file, as the bytes that they are."""

    def __init__(self, path):
        self.data = memoryview(path.read_bytes())
        magic, _version, _tensors, count = struct.unpack_from("<4sIQQ", self.data)
        assert magic == b"GGUF", path
        self.at, self.pairs, self.tokens = 24, {}, 0
        for _ in range(count):
            begin = self.at
            key = bytes(self._string()).decode()
            length = self._value(self._number("<I"))
            self.pairs[key] = bytes(self.data[begin:self.at])
            if key == "tokenizer.ggml.tokens":
                self.tokens = length

    def _number(self, form):
        (value,) = struct.unpack_from(form, self.data, self.at)
        self.at += struct.calcsize(form)
        return value

    def _string(self):
        length = self._number("<Q")
        self.at += length
        return self.data[self.at - length:self.at]

    def _value(self, kind):
        """Goes past a value; returns how many there are in it."""
        if kind == 9:
            inner, count = self._number("<I"), self._number("<Q")
            for _ in range(count):
                self._value(inner)
            return count
        if kind == 8:
            self._string()
        else:
            self.at += SIZES[kind]
        return 1


def half(rng, scale):
    return struct.pack("<e", scale * (0.5 + rng.random()))


def block(rng, kind, deviation):
    """256 random weights whose standard deviation is about `deviation`."""
    if kind == Q4_K:
        return half(rng, deviation / 150) + half(rng, deviation / 20) + bytes(b & 0x3F for b in rng.randbytes(12)) + rng.randbytes(128)
    return rng.randbytes(192) + bytes(rng.randrange(40, 88) for _ in range(16)) + half(rng, deviation / 1200)


class Rows:
    """Rows of random blocks: a few hundred different ones in a random order, because making all of them takes minutes."""

    def __init__(self, rng):
        self.rng, self.pools = rng, {}

    def tensor(self, rows, cols, kind):
        if (cols, kind) not in self.pools:
            self.pools[cols, kind] = [b"".join(block(self.rng, kind, cols ** -0.5) for _ in range(cols // 256)) for _ in range(256)]
        return b"".join(self.rng.choices(self.pools[cols, kind], k=rows))


def shapes(vocabulary):
    """Name, rows, columns and type of every tensor; finer types where Q4_K_M has them."""
    yield "token_embd.weight", vocabulary, WIDE, Q6_K
    yield "output_norm.weight", 1, WIDE, F32
    for i in range(LAYERS):
        eighth = LAYERS // 8
        better = Q6_K if i < eighth or i >= 7 * eighth or (i - eighth) % 3 == 2 else Q4_K
        for name, rows, cols, kind in [
            ("attn_norm", 1, WIDE, F32), ("ffn_norm", 1, WIDE, F32),
            ("attn_q", HEADS * HEAD, WIDE, Q4_K), ("attn_k", KV_HEADS * HEAD, WIDE, Q4_K), ("attn_v", KV_HEADS * HEAD, WIDE, better),
            ("attn_output", WIDE, HEADS * HEAD, Q4_K), ("ffn_gate", MLP, WIDE, Q4_K), ("ffn_up", MLP, WIDE, Q4_K),
            ("ffn_down", WIDE, MLP, better),
        ]:
            yield f"blk.{i}.{name}.weight", rows, cols, kind


def random_1b(vocabulary_of, out):
    """Writes the 1 B shapes with the vocabulary of another file."""
    source = Metadata(vocabulary_of)
    number = lambda key, value: string(f"llama.{key}") + struct.pack("<II", 4, value)
    real = lambda key, value: string(f"llama.{key}") + struct.pack("<If", 6, value)
    pairs = [string("general.architecture") + struct.pack("<I", 8) + string("llama"),
             string("general.name") + struct.pack("<I", 8) + string("random-1b"),
             number("block_count", LAYERS), number("context_length", CONTEXT), number("embedding_length", WIDE),
             number("feed_forward_length", MLP), number("attention.head_count", HEADS), number("attention.head_count_kv", KV_HEADS),
             number("rope.dimension_count", HEAD), number("vocab_size", source.tokens),
             real("attention.layer_norm_rms_epsilon", 1e-5), real("rope.freq_base", 500000.0)]
    pairs += [raw for key, raw in source.pairs.items() if key.startswith("tokenizer.")]
    tensors, offset = list(shapes(source.tokens)), 0
    size = lambda rows, cols, kind: rows * cols * 4 if kind == F32 else rows * cols // 256 * (144 if kind == Q4_K else 210)
    padded = lambda n: -n % ALIGNMENT + n
    infos = []
    for name, rows, cols, kind in tensors:
        dims = (cols,) if kind == F32 else (cols, rows)
        infos.append(string(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset))
        offset += padded(size(rows, cols, kind))
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(pairs)) + b"".join(pairs + infos)
    rows_of = Rows(random.Random(1))
    with open(out, "wb") as file:
        file.write(head.ljust(padded(len(head)), b"\0"))
        for _name, rows, cols, kind in tensors:
            data = struct.pack("<f", 1.0) * cols if kind == F32 else rows_of.tensor(rows, cols, kind)
            file.write(data.ljust(padded(len(data)), b"\0"))


def requantised(quantize, source, out, kind):
    env = os.environ | {"LD_LIBRARY_PATH": str(quantize.parent)}
    subprocess.run([quantize, "--allow-requantize", source, out, kind], check=True, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__.splitlines()[0])
    folder, smollm2, server = map(pathlib.Path, sys.argv[1:])
    folder.mkdir(parents=True, exist_ok=True)
    for out, make in [
        (folder / "SmolLM2-135M-Instruct.Q4_0.gguf", lambda path: requantised(server.with_name("llama-quantize"), smollm2, path, "Q4_0")),
        (folder / "SmolLM2-135M-Instruct.Q8_0.gguf", lambda path: requantised(server.with_name("llama-quantize"), smollm2, path, "Q8_0")),
        (folder / "random-1b.Q4_K_M.gguf", lambda path: random_1b(smollm2, path)),
    ]:
        if not out.exists():
            draft = out.with_suffix(".part")
            make(draft)
            draft.replace(out)
        print(out)


if __name__ == "__main__":
    main()
