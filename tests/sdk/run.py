#!/usr/bin/env python3
"""Runs the clients that people have against the real binary and the real models.

Installs each client at its pinned version (kept in the cache folder), serves the models on free ports with a key from
`millrace keys add`, and runs each client's tests with nothing changed but base URL and key. Ends with a table of what was
run; exits non-zero if anything failed.
"""
import argparse, concurrent.futures, contextlib, dataclasses, os, pathlib, re, signal, subprocess, sys, tempfile, threading, time

import install

HERE = pathlib.Path(__file__).resolve().parent
START_TIMEOUT_S = 120
# No client may wait for ever for a server that lost its request.
CLIENT_TIMEOUT_S = 300
# What all of them may take in CI.
BUDGET_S = 8 * 60
SMALL, TOOLS = "SmolLM2-135M-Instruct.Q4_1.gguf", "qwen2.5-coder-0.5b-instruct-Q4_K_M.gguf"


@dataclasses.dataclass
class Client:
    name: str
    version: str
    what: str
    command: list
    folder: pathlib.Path
    # A server of its own that takes one request, lets one wait, and refuses the next: MILLRACE_NARROW_URL.
    narrow: bool = False


def clients(interpreters):
    def python(environment, package, modules, what, **more):
        # All modules of a client in one process: some take longer to import than to test.
        command = [interpreters[environment], "-W", "ignore", "-m", "unittest", "-v", *modules.split()]
        return Client(package, install.python_version(environment, package), what, command, HERE / "python", **more)

    def node(name, package, files, what):
        command = ["node", "--test", "--test-reporter=spec", *files.split()]
        return Client(name, install.node_version(package), what, command, HERE / "node")

    curl = subprocess.run(["curl", "--version"], check=True, stdout=subprocess.PIPE, text=True).stdout.split()[1]
    return [
        Client("curl", curl, "routes, statuses, stream", ["bash", HERE / "curl.sh"], HERE),
        python("legacy", "openai", "legacy_client legacy_chat", "completions by engine, chats, functions, overload", narrow=True),
        python("current", "openai", "current_client current_chat faulty_client", "completions, chats, parse, tools, retries, overload, faults",
               narrow=True),
        python("current", "langchain-openai", "langchain_client langchain_chat", "OpenAI; ChatOpenAI: tools, structured output"),
        python("llama-index", "llama-index-llms-openai-like", "llama_index_client llama_index_chat",
               "OpenAILike: completions, chats, tools, structured output"),
        python("current", "litellm", "litellm_client litellm_chat", "text_completion; completion: tools, JSON schema"),
        python("instructor", "instructor", "instructor_client", "models by calls and JSON schema, retries, partial ones"),
        python("current", "llm", "llm_command", "the command: stream, log, errors"),
        python("lm-eval", "lm-eval", "lm_eval_harness", "local-completions: choices, rolling, generation"),
        node("openai-node", "openai", "completions.test.mjs chat.test.mjs", "completions, chats, parse with zod, runTools"),
        node("@ai-sdk/openai-compatible", "@ai-sdk/openai-compatible", "ai-sdk.test.mjs", "ai: text, objects, tools, completions"),
        Client("async-openai", install.rust_version("async-openai"), "Rust: completions, chats, tools, strict types",
               ["cargo", "test", "--locked", "--offline", "--quiet"], install.RUST),
        python("current", "openai", "examples", "the examples: Python of both generations, Node, curl"),
        Client("playground", "", "in headless Chromium; its modules in Node", ["bash", HERE.parent / "webui" / "run.sh"], HERE.parent),
    ]


ENVIRONMENTS = ["legacy", "current", "llama-index", "instructor", "lm-eval"]


@contextlib.contextmanager
def server(binary, model, *arguments):
    """Serves `model` on a free port; yields the base URL and a key. Fails unless the drain ends with exit code 0."""
    with tempfile.TemporaryDirectory() as scratch:
        keys = pathlib.Path(scratch, "keys.toml")
        add = [binary, "keys", "add", "sdk", "--file", keys]
        key = subprocess.run(add, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout.strip()
        command = [binary, "serve", model, "--port", "0", "--api-key-file", keys, *arguments]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        found, log = threading.Event(), []
        url = []

        def read():
            for line in process.stderr:
                log.append(line)
                if not url and (match := re.search(r"http://127\.0\.0\.1:[1-9]\d*", line)):
                    url.append(match[0])
                if "ready to serve" in line:
                    found.set()
            found.set()

        threading.Thread(target=read, daemon=True).start()
        if not found.wait(START_TIMEOUT_S) or not url:
            process.kill()
            sys.exit("the server did not start:\n" + "".join(log))
        try:
            yield url[0], key
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                code = process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                code = "nothing: it had to be killed"
        if code != 0 or key in "".join(log):
            sys.exit(f"the server ended with {code}, or its log shows the key:\n" + "".join(log[-40:]))


def environment(cache, binary, interpreters, small, tools):
    """What the clients' tests find in their environment: the servers, and nothing that sends a client elsewhere."""
    url, key = small
    env = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    return env | {
        "OPENAI_BASE_URL": f"{url}/v1", "OPENAI_API_BASE": f"{url}/v1", "OPENAI_API_KEY": key, "MILLRACE_URL": url,
        "MILLRACE_TOOLS_URL": tools[0], "MILLRACE_TOOLS_KEY": tools[1], "MILLRACE_BIN": str(binary),
        "MILLRACE_PYTHON": str(interpreters["current"]), "MILLRACE_PYTHON_LEGACY": str(interpreters["legacy"]),
        "PYTHONPYCACHEPREFIX": str(cache / "pycache"), "CARGO_TARGET_DIR": str(install.rust_target(cache)),
        # What these would fetch while they start is not what we test.
        "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "DO_NOT_TRACK": "1", "TQDM_DISABLE": "1",
    }


def run(client, env, binary, models):
    """Runs one client's tests; returns its name, whether they passed, what they wrote, and the seconds they took."""
    start = time.monotonic()
    with contextlib.ExitStack() as stack:
        if client.narrow:
            url, key = stack.enter_context(server(binary, models / SMALL, "--max-num-seqs", "1", "--max-queue-requests", "1"))
            env = env | {"MILLRACE_NARROW_URL": url, "MILLRACE_NARROW_KEY": key}
        try:
            done = subprocess.run(client.command, cwd=client.folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  text=True, timeout=CLIENT_TIMEOUT_S)
            passed, output = done.returncode == 0, done.stdout
        except subprocess.TimeoutExpired as late:
            passed, output = False, f"{(late.stdout or b'').decode(errors='replace')}\nnot done after {CLIENT_TIMEOUT_S} s"
    return passed, output, time.monotonic() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", required=True, type=pathlib.Path)
    parser.add_argument("--models", required=True, type=pathlib.Path)
    parser.add_argument("--cache", required=True, type=pathlib.Path)
    parser.add_argument("--only", default="", help="run the clients whose name contains this")
    options = parser.parse_args()
    binary, models, cache = options.bin.resolve(), options.models.resolve(), options.cache.resolve() / "sdk"
    start = time.monotonic()
    interpreters = install.everything(cache, ENVIRONMENTS)
    every = clients(interpreters)
    listed = (HERE.parent.parent / "docs" / "api.md").read_text()
    if missing := [f"{c.name} {c.version}" for c in every if c.name != "curl" and c.version not in listed]:
        sys.exit("docs/api.md lists other versions of " + ", ".join(missing))
    chosen = [c for c in every if options.only in c.name]
    rows = [("installation", "", "", time.monotonic() - start, True)]
    with server(binary, models / SMALL, "--max-num-seqs", "16") as small, server(binary, models / TOOLS) as tools:
        env = environment(cache, binary, interpreters, small, tools)
        # Two at once: clients spend much of their time on their own imports.
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            for client, (passed, output, seconds) in zip(chosen, pool.map(lambda c: run(c, env, binary, models), chosen)):
                print(f"\n-- {client.name} {client.version}\n{output}", flush=True)
                rows.append((client.name, client.version, client.what, seconds, passed))
    print()
    for name, version, what, seconds, passed in rows:
        print(f"{name:<28} {version:<12} {what:<64} {seconds:5.1f} s  {'' if passed else 'FAILED'}".rstrip())
    total = time.monotonic() - start
    late = "" if total <= BUDGET_S else ": MORE THAN THEIR SHARE OF CI"
    print(f"{total:.0f} s of {BUDGET_S}, with installation{late}")
    if not all(passed for *_, passed in rows):
        sys.exit("failed: " + ", ".join(f"{name} {version}" for name, version, *_, passed in rows if not passed))
    print(f"all {len(chosen)} clients passed")


if __name__ == "__main__":
    main()
