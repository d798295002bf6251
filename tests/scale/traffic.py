"""Requests as clients make them, plain and streamed, and what became of each."""
import dataclasses, http.client, json, threading, time

from servers import KEY


@dataclasses.dataclass
class Outcome:
    began: float
    ended: float = 0.0
    status: int = 0
    # Who answered, as the proxy has it.
    by: str = ""
    # Times at which parts of a stream came.
    parts: list = dataclasses.field(default_factory=list)
    fault: str = ""
    # Of plain requests.
    answer: bytes = b""
    headers: dict = dataclasses.field(default_factory=dict)

    @property
    def whole(self):
        return self.status == 200 and not self.fault


def complete(port, prompt, stream=False, max_tokens=40, headers=None, **more):
    """One completion, to its end."""
    body = {"model": "text-davinci-003", "prompt": prompt, "max_tokens": max_tokens, "stream": stream, "ignore_eos": True, **more}
    outcome = Outcome(time.monotonic())
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", "/v1/completions", json.dumps(body),
                           {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json", **(headers or {})})
        response = connection.getresponse()
        outcome.status, outcome.by = response.status, response.headers.get("x-served-by", "")
        outcome.headers = {name.lower(): value for name, value in response.headers.items()}
        if stream and response.status == 200:
            last = b""
            for line in response:
                if line.startswith(b"data: "):
                    last = line.strip()
                    outcome.parts.append(time.monotonic())
            if last != b"data: [DONE]":
                outcome.fault = f"cut after {len(outcome.parts)} parts: {last[:80]!r}"
        else:
            outcome.answer = response.read()
            if response.status != 200:
                outcome.fault = outcome.answer[:200].decode(errors="replace")
    except (OSError, http.client.HTTPException) as e:
        outcome.fault = repr(e)
    finally:
        connection.close()
    outcome.ended = time.monotonic()
    return outcome


class Crowd:
    """Clients that ask without a pause until they are told to stop."""

    def __init__(self, port, clients=6, **request):
        self.outcomes, self._lock, self._stop = [], threading.Lock(), threading.Event()
        self._threads = [threading.Thread(target=self._go_on, args=(port, c, request)) for c in range(clients)]

    def _go_on(self, port, client, request):
        number = 0
        while not self._stop.is_set():
            number += 1
            outcome = complete(port, f"client {client}, request {number}", stream=number % 2 == 0, **request)
            with self._lock:
                self.outcomes.append(outcome)

    def done(self):
        """How many requests ended by now."""
        with self._lock:
            return len(self.outcomes)

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()
