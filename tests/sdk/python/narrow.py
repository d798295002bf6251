"""The server that takes one request, lets one wait, and refuses the next: filled, watched and left by plain sockets, so that
nothing of the client under test is in the way."""
import contextlib, http.client, json, os, re, time, urllib.parse, urllib.request

URL, KEY = os.environ["MILLRACE_NARROW_URL"], os.environ["MILLRACE_NARROW_KEY"]
LONG = {"model": "davinci-002", "prompt": "Count on:", "max_tokens": 7000, "ignore_eos": True}
# How long a test waits for what must come. Only a fault reaches it.
PATIENCE_S = 60


def metric(name):
    """The sum of a metric over its labels."""
    with urllib.request.urlopen(f"{URL}/metrics") as answer:
        text = answer.read().decode()
    return sum(float(value) for value in re.findall(rf"^{re.escape(name)}(?:{{.*}})? (\S+)$", text, re.M))


def until(condition):
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "what must come did not come"
        time.sleep(0.01)


def until_idle():
    until(lambda: metric("vllm:num_requests_running") + metric("vllm:num_requests_waiting") == 0)


def rejected():
    return metric("millrace_requests_rejected_total")


def _send():
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(URL).netloc)
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    connection.request("POST", "/v1/completions", json.dumps(LONG | {"stream": True}), headers)
    return connection


@contextlib.contextmanager
def full():
    """Within it one request runs and one waits. `release()` of what it yields ends both."""
    until_idle()
    with contextlib.ExitStack() as stack:
        stack.callback(_send().close)
        until(lambda: metric("vllm:num_requests_running") == 1)
        stack.callback(_send().close)
        until(lambda: metric("vllm:num_requests_waiting") == 1)
        yield stack.close
    until_idle()
