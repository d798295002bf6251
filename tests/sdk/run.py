#!/usr/bin/env python3
"""Runs the clients that people have against the real binary and the real model.

Starts one server on a free port with a key from `millrace keys add`, makes an environment for each SDK (kept in the cache
folder), and runs each client's tests with OPENAI_BASE_URL and OPENAI_API_KEY set. Exits non-zero if any of them failed.
"""
import argparse, contextlib, hashlib, os, pathlib, re, signal, subprocess, sys, tempfile, threading

HERE = pathlib.Path(__file__).resolve().parent
START_TIMEOUT_S = 60


def environment(cache, requirements):
    """A virtual environment with exactly these requirements; made once, and again when they change."""
    text = requirements.read_text()
    folder = cache / "sdk" / f"{requirements.stem}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", requirements], check=True)
        (folder / "complete").touch()
    return python


def node_modules():
    modules, lock = HERE / "node" / "node_modules", HERE / "node" / "package-lock.json"
    stamp = modules / ".complete"
    if not stamp.exists() or stamp.read_bytes() != lock.read_bytes():
        subprocess.run(["npm", "ci", "--silent", "--no-audit", "--no-fund"], cwd=HERE / "node", check=True)
        stamp.write_bytes(lock.read_bytes())


@contextlib.contextmanager
def server(binary, model):
    """Serves `model` on a free port; yields the base URL and a key. Fails unless the drain ends with exit code 0."""
    with tempfile.TemporaryDirectory() as scratch:
        keys = pathlib.Path(scratch, "keys.toml")
        add = [binary, "keys", "add", "sdk", "--file", keys]
        key = subprocess.run(add, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
        command = [binary, "serve", model, "--port", "0", "--api-key-file", keys, "--max-num-seqs", "16"]
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
            code = process.wait(timeout=60)
        if code != 0 or key in "".join(log):
            sys.exit(f"the server ended with {code}, or its log shows the key:\n" + "".join(log[-40:]))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", required=True, type=pathlib.Path)
    parser.add_argument("--model", required=True, type=pathlib.Path)
    parser.add_argument("--cache", required=True, type=pathlib.Path)
    options = parser.parse_args()
    cache = options.cache.resolve()
    legacy = environment(cache, HERE / "python" / "requirements-legacy.txt")
    current = environment(cache, HERE / "python" / "requirements-current.txt")
    node_modules()
    clients = {
        "curl": (["bash", HERE / "curl.sh"], HERE),
        "openai-python 0.28.1": ([legacy, "-m", "unittest", "-v", "legacy_client"], HERE / "python"),
        "openai-python, newest": ([current, "-m", "unittest", "-v", "current_client"], HERE / "python"),
        "openai-node, newest": (["node", "--test", "--test-reporter=spec"], HERE / "node"),
    }
    failed = []
    with server(options.bin.resolve(), options.model.resolve()) as (url, key):
        env = os.environ | {"OPENAI_BASE_URL": f"{url}/v1", "OPENAI_API_BASE": f"{url}/v1", "OPENAI_API_KEY": key,
                            "MILLRACE_URL": url, "PYTHONDONTWRITEBYTECODE": "1"}
        for proxy in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
            env.pop(proxy, None)
        for name, (command, folder) in clients.items():
            print(f"\n-- {name}", flush=True)
            if subprocess.run(command, cwd=folder, env=env).returncode != 0:
                failed.append(name)
    if failed:
        sys.exit("failed: " + ", ".join(failed))
    print(f"\nall {len(clients)} clients passed")


if __name__ == "__main__":
    main()
