"""Servers and proxies of these tests: started, awaited, ended."""
import contextlib, http.client, json, os, pathlib, re, signal, subprocess, tempfile, time

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIG = ROOT / "config"
# No state takes so long, on the slowest of machines.
PATIENCE_S = 120
KEY = "sk-scale-test-" + "0" * 32


def until(what, condition):
    """Asks until `condition` gives something, and gives that."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if found := condition():
                return found
        time.sleep(0.01)  # between two looks
    raise AssertionError(f"waited in vain: {what}")


def get(port, path, host="127.0.0.1"):
    """Status and text."""
    connection = http.client.HTTPConnection(host, port, timeout=10)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {KEY}"})
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


class Process:
    """A program with its output in a file, ended at the end whatever happened."""

    # nginx's workers outlive a master that is killed.
    ending = signal.SIGTERM

    def __init__(self, command, **more):
        self.output = tempfile.NamedTemporaryFile("w+")
        self.process = subprocess.Popen([str(c) for c in command], stdout=self.output, stderr=subprocess.STDOUT, **more)

    def said(self):
        return pathlib.Path(self.output.name).read_text(errors="replace")

    def send(self, number):
        self.process.send_signal(number)

    def wait(self):
        return self.process.wait(PATIENCE_S)

    def stop(self):
        if self.process.poll() is None:
            self.send(signal.SIGCONT)
            self.send(self.ending)
            self.wait()
        self.output.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


class Millrace(Process):
    """A server of a made-up model, ready."""

    ending = signal.SIGKILL

    def __init__(self, port, *arguments, model="fake:step_ms=5", **environment):
        self.port = port
        environment = {**os.environ, "MILLRACE_API_KEY": KEY, "MILLRACE_LOG_LEVEL": "warn", **environment}
        command = [os.environ["SCALE_TEST_BIN"], "serve", model, "--port", port, *arguments]
        super().__init__(command, env=environment, cwd=tempfile.gettempdir())
        self.until_ready()

    def until_ready(self):
        until(f"port {self.port} is ready", lambda: self.process.poll() is not None or get(self.port, "/health/ready")[0] == 200)
        if self.process.poll() is not None:
            raise AssertionError(f"the server ended: {self.said()}")

    def metric(self, name):
        """The sum over a metric's series."""
        return metric(get(self.port, "/metrics")[1], name)


def doctor(**environment):
    """What `millrace doctor` finds: its checks, by name."""
    command = [os.environ["SCALE_TEST_BIN"], "doctor", "fake:", "--port", "0", "--no-speed-test", "--json"]
    done = subprocess.run(command, env={**os.environ, "MILLRACE_API_KEY": KEY, **environment}, capture_output=True)
    return {check["name"]: check for check in json.loads(done.stdout)["checks"]}


def metric(text, name):
    values = re.findall(rf"^{re.escape(name)}(?:{{[^}}]*}})? (\S+)$", text, re.M)
    return sum(map(float, values))


def haproxy(file="haproxy.cfg", port=8000):
    """HAProxy with a file of config/, once it listens."""
    proxy = Process(["haproxy", "-db", "-f", file], cwd=CONFIG)
    until("haproxy listens", lambda: proxy.process.poll() is not None or get(port, "/version"))
    return proxy


def nginx(port=8080):
    proxy = Process(["nginx", "-c", CONFIG / "nginx.conf", "-g", "daemon off;"])
    until("nginx listens", lambda: proxy.process.poll() is not None or get(port, "/version"))
    return proxy


def haproxy_state(server):
    """What HAProxy takes a server of the backend `replicas` for: UP, DOWN, and on the way `UP 1/2`."""
    rows = get(8404, "/;csv")[1].splitlines()
    columns = rows[0].lstrip("# ").split(",")
    for row in rows[1:]:
        row = dict(zip(columns, row.split(",")))
        if row["pxname"] == "replicas" and row["svname"] == server:
            return row["status"]
    raise AssertionError(f"HAProxy has no server {server}")
