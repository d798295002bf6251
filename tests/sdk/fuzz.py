#!/usr/bin/env python3
"""Sends the real binary, with the fake model, what schemathesis makes of the description at /openapi.json.

All checks of schemathesis, and two of our own (fuzz/hooks.py). The requests are the same in each run.
"""
import argparse, hashlib, os, pathlib, subprocess, sys

from run import server

HERE = pathlib.Path(__file__).resolve().parent / "fuzz"
# Tokens at once, and few enough of them that a request is over soon.
MODEL = "fake:vocab=300"


def schemathesis(cache):
    """Installed once, and again when the version changes."""
    requirements = HERE / "requirements.txt"
    folder = cache / "sdk" / f"fuzz-{hashlib.sha256(requirements.read_bytes()).hexdigest()[:12]}"
    if not (folder / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "-r", requirements], check=True)
        (folder / "complete").touch()
    return folder / "bin" / "schemathesis"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", required=True, type=pathlib.Path)
    parser.add_argument("--cache", required=True, type=pathlib.Path)
    parser.add_argument("--examples", default=25, type=int, help="random requests for each route")
    parser.add_argument("rest", nargs="*", help="more arguments for schemathesis, behind --")
    options = parser.parse_args()
    command = schemathesis(options.cache.resolve())
    with server(options.bin.resolve(), MODEL) as (url, key):
        env = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
        env |= {"MILLRACE_KEY": key, "PYTHONDONTWRITEBYTECODE": "1"}
        arguments = ["--config-file", "schemathesis.toml", "run", f"{url}/openapi.json", "--url", url]
        # One worker: it parses Python now and then, which is not safe in several threads before 3.12 (CPython's gh-106905).
        arguments += ["--max-examples", str(options.examples), "--workers", "1", *options.rest]
        done = subprocess.run([command, *arguments], cwd=HERE, env=env)
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
