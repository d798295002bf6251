"""Makes tests/models: small random models of every family, and what transformers and llama.cpp make of them.

    python scripts/reference-models [--only NAME]... [--llama-server PATH] [--llama-source PATH]

Run by `make test-models`, which sets up the environment. Nothing here is needed to run the tests: the results are checked in.
"""
import argparse, logging, pathlib, runpy, sys, types

import torch
import transformers

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE)]

import folder as folders
import llama_cpp
import reference
import report
from families import CONTEXT, MODELS

# By path: a neighbour of it is called as a module of Python's own.
servers = types.SimpleNamespace(**runpy.run_path(str(HERE.parent / "bench" / "servers.py")))

# Of as many, the one whose routers decide most clearly.
SEEDS = 24


def best_seed(spec):
    """The seed of a model without experts does not matter."""
    margins = []
    for seed in range(1, SEEDS + 1):
        vocabulary = folders.Vocabulary(spec.tokenizer)
        model, _ = folders.random_model(spec, vocabulary, seed)
        margin = reference.router_margin(model, vocabulary)
        if margin is None:
            return seed
        margins.append((margin, seed))
    return max(margins)[1]


def second_reference(spec, vocabulary, rows, folder, run):
    """llama.cpp's rows, how far they are from those of transformers, and the latter as llama.cpp reads the file."""
    exact = run.scratch / f"{spec.name}.f32.gguf"
    llama_cpp.convert(spec, folder, exact, "f32", run.source)
    vocab = next(iter(rows.values())).shape[1]
    theirs, probes = llama_cpp.answers(run, exact, vocabulary, vocab, rows)
    read, as_gguf = rows, None
    if spec.llama_cpp_reading:
        _, read = reference.answers(folders.load(folder, spec.llama_cpp_reading), vocabulary)
        as_gguf = [reference.answer(name, reference.prompts(name, vocabulary), read[name], others=False) for name in read]
    found = {"difference": reference.worst(theirs, read), "typical_difference": reference.typical(theirs, read)}
    if as_gguf:
        found["difference_to_folder"] = reference.worst(theirs, rows)
    found["tokenizer_agrees"] = probes == [probe["ids"] for probe in vocabulary.probes()]
    if spec.note:
        found["note"] = spec.note
    return theirs, found, as_gguf


def original_context(spec, model, vocabulary, run):
    """LongRoPE within the context that the model was first trained for: the other factors."""
    context = model.config.rope_parameters["original_max_position_embeddings"]
    ids = reference.prompts("short", vocabulary)
    rows = reference.rows_of(model, ids)
    # Its smallest context is 256, so the original one is said to be as long.
    key = f"phi3.rope.scaling.original_context_length=int:{CONTEXT}"
    theirs, _ = llama_cpp.answers(run, run.scratch / f"{spec.name}.f32.gguf", vocabulary, rows.shape[1], ["short"],
                                  ["--override-kv", key])
    return {"context": context, "llama_cpp_difference": reference.worst(theirs, {"short": rows}),
            "prompts": [reference.answer("short", ids, rows)]}


def make(spec, run):
    seed = best_seed(spec)
    folder = run.out / spec.name
    vocabulary = folders.write(spec, seed, folder)
    model = folders.load(folder)
    prompts, rows = reference.answers(model, vocabulary)
    made, _ = folders.random_model(spec, vocabulary, seed)
    apart = reference.worst(rows, reference.answers(made, vocabulary)[1])
    assert apart == 0, f"{spec.name} changes by {apart} when it is written and read"
    compared, as_gguf = {}, None
    if not spec.fallback:
        theirs, compared, as_gguf = second_reference(spec, vocabulary, rows, folder, run)
        for prompt in prompts:
            mine = reference.next_logprobs(theirs[prompt["name"]], prompt["ids"])
            prompt["llama_cpp_next_logprobs"] = [round(x, 5) for x in mine]
    expected = {"model": spec.name, "architecture": model.config.architectures[0], "seed": seed, "context": CONTEXT,
                "vocab_size": model.config.vocab_size, "reference": f"transformers {transformers.__version__}, float32",
                "tokenizer": vocabulary.probes(), "prompts": prompts,
                "trust": reference.trust(folder, model, vocabulary, spec)}
    if compared:
        expected["llama_cpp"] = compared
    if as_gguf:
        expected["as_gguf"] = {"config": spec.llama_cpp_reading, "prompts": as_gguf}
    if reference.is_longrope(model):
        expected["original_context"] = original_context(spec, model, vocabulary, run)
    if not spec.fallback:
        llama_cpp.convert(spec, folder, folder / "model.gguf", spec.gguf, run.source, spec.gguf_tensors_per_split)
    if spec.mxfp4:
        llama_cpp.check_mxfp4(model, folder / "model.gguf")
    (folder / "expected.json").write_text(report.as_json(expected))
    print(report.line(expected), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    root = HERE.parent.parent
    parser.add_argument("--out", type=pathlib.Path, default=root / "tests" / "models")
    parser.add_argument("--cache", type=pathlib.Path, default=root / ".cache", help="where llama.cpp and working files are kept")
    parser.add_argument("--only", action="append", choices=[spec.name for spec in MODELS], help="this one; may be given again")
    parser.add_argument("--llama-server", type=pathlib.Path, help="default: built from PyPI, in the cache")
    parser.add_argument("--llama-source", type=pathlib.Path, help="default: the package's source archive, in the cache")
    parser.add_argument("--table", action="store_true", help="only renew the README's table")
    parser.add_argument("--port", type=int, default=18437, help="of llama-server on loopback")
    args = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    # The converter tells of every tensor.
    logging.basicConfig(level=logging.WARNING)
    if not args.table:
        wanted = [spec for spec in MODELS if not args.only or spec.name in args.only]
        source = binary = None
        if not all(spec.fallback for spec in wanted):
            source = args.llama_source or llama_cpp.source(args.cache, servers.PEER_PACKAGE)
            binary = args.llama_server or servers.peer_binary(args.cache)
        scratch = args.cache / "reference-models-work"
        scratch.mkdir(parents=True, exist_ok=True)
        run = llama_cpp.Run(args.out, scratch, source, binary, args.port)
        for spec in wanted:
            make(spec, run)
    report.write_table(args.out, [spec.name for spec in MODELS])


if __name__ == "__main__":
    main()
