"""What the clients need, installed below the cache folder and kept there: an environment for each set of Python
requirements, node_modules, the Rust tests. All of it side by side, because most of it waits for the network.

`python/requirements/*.in` name what we test, `*.txt` pin everything that comes with it. `python3 tests/sdk/install.py` makes
the second from the first.
"""
import concurrent.futures, functools, hashlib, json, os, pathlib, re, subprocess, sys

HERE = pathlib.Path(__file__).resolve().parent
REQUIREMENTS = HERE / "python" / "requirements"
RUST = HERE / "rust"
# It installs hundreds of packages in seconds, where pip takes minutes.
UV = "uv==0.13.9"


def quietly(command, **options):
    """Runs a command; shows what it wrote only if it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stdout}")


def once(folder, content, make):
    """Calls `make` unless `folder` was completed with the same content before."""
    stamp = folder / ".complete"
    digest = hashlib.sha256(content).hexdigest()
    if not stamp.exists() or stamp.read_text() != digest:
        stamp.unlink(missing_ok=True)
        make()
        stamp.write_text(digest)


@functools.cache
def uv(cache):
    folder = cache / "uv"

    def make():
        quietly([sys.executable, "-m", "venv", "--clear", folder])
        quietly([folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", UV])

    once(folder, UV.encode(), make)
    return folder / "bin" / "uv"


def python(cache, name):
    """The interpreter of an environment with exactly the requirements of that name."""
    lock, folder = REQUIREMENTS / f"{name}.txt", cache / name
    env = os.environ | {"UV_CACHE_DIR": str(cache / "uv-cache")}

    def make():
        quietly([uv(cache), "venv", "--quiet", "--clear", "--python", sys.executable, folder], env=env)
        quietly([uv(cache), "pip", "install", "--quiet", "--no-deps", "--python", folder / "bin" / "python", "-r", lock], env=env)

    once(folder, sys.version.encode() + lock.read_bytes(), make)
    return folder / "bin" / "python"


def node(_cache):
    folder = HERE / "node"

    def make():
        # The newest SDKs ask for Node 22; they run on 20 too.
        quietly(["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"], cwd=folder)

    modules = folder / "node_modules"
    modules.mkdir(exist_ok=True)
    once(modules, (folder / "package-lock.json").read_bytes(), make)


def rust_target(cache):
    return cache / "rust"


def rust(cache):
    # Cargo knows by itself what it has built.
    quietly(["cargo", "test", "--no-run", "--locked", "--quiet"], cwd=RUST, env=os.environ | {"CARGO_TARGET_DIR": str(rust_target(cache))})


def everything(cache, environments):
    """Installs these Python environments, the Node packages and the Rust tests; returns the interpreters by name."""
    cache.mkdir(parents=True, exist_ok=True)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        others = [pool.submit(rust, cache), pool.submit(node, cache)]
        uv(cache)
        interpreters = dict(zip(environments, pool.map(lambda name: python(cache, name), environments)))
        for other in others:
            other.result()
    return interpreters


def python_version(environment, package):
    return re.search(rf"^{re.escape(package)}==(\S+)", (REQUIREMENTS / f"{environment}.txt").read_text(), re.M)[1]


def node_version(package):
    return json.loads((HERE / "node" / "package-lock.json").read_text())["packages"][f"node_modules/{package}"]["version"]


def rust_version(package):
    return re.search(rf'^name = "{re.escape(package)}"\nversion = "(\S+)"', (RUST / "Cargo.lock").read_text(), re.M)[1]


def lock(cache):
    for path in sorted(REQUIREMENTS.glob("*.in")):
        command = [uv(cache), "pip", "compile", "--quiet", "--universal", "--python-version", "3.11", "--no-header", "--no-annotate"]
        subprocess.run([*command, path.name, "--output-file", f"{path.stem}.txt"], cwd=REQUIREMENTS, check=True)


if __name__ == "__main__":
    lock(HERE.parent.parent / ".cache" / "sdk")
