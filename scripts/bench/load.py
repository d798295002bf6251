"""The scenarios, and clients that stream completions of random token ids and note when each piece came."""
import asyncio, dataclasses, json, random, re, resource, statistics, time

from servers import KEY


@dataclasses.dataclass(frozen=True)
class Scenario:
    """`clients` requests at once, or one after another; the first figure is the one that counts most."""
    title: str
    clients: int
    prompt: int
    new: int
    figures: tuple
    shared: int = 0
    in_turn: int = 1


OUTPUT, PROMPT = "output tok/s", "prompt tok/s"
TTFT_P50, TTFT_P99, GAP_P50, GAP_P99 = "TTFT p50 ms", "TTFT p99 ms", "inter-token p50 ms", "inter-token p99 ms"

SCENARIOS = {
    "decode-1": Scenario("decode, 1 client", 1, 32, 128, (OUTPUT,)),
    "decode-4": Scenario("decode, 4 clients", 4, 32, 128, (OUTPUT,)),
    "decode-16": Scenario("decode, 16 clients", 16, 32, 128, (OUTPUT,)),
    "decode-64": Scenario("decode, 64 clients", 64, 32, 128, (OUTPUT,)),
    "prompt-1000": Scenario("prompt of 1,000 tokens", 1, 1000, 1, (PROMPT,), in_turn=3),
    "mixed-16": Scenario("16 x (512 in, 64 out)", 16, 512, 64, (OUTPUT, GAP_P99)),
    "shared-8": Scenario("8 x (1,000 shared + 32 in, 32 out)", 8, 32, 32, (OUTPUT, TTFT_P99), shared=1000),
    # For the smoke test: everything that the others do, in a second or two.
    "smoke-4": Scenario("4 x (48 in, 16 out)", 4, 48, 16, (OUTPUT, GAP_P99)),
    "smoke-shared": Scenario("3 x (96 shared + 8 in, 8 out)", 3, 8, 8, (OUTPUT, TTFT_P99), shared=96),
}

# Every id exists in every vocabulary that is measured, and none of them is special.
IDS = (1000, 20000)

# The same distribution for both: the whole vocabulary as the model has it, or its best token.
SAMPLING = {
    "random": {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0},
    "greedy": {"temperature": 0.0},
}


class Stream(asyncio.Protocol):
    """One request; keeps what arrives with its time, and looks at it only afterwards."""

    def __init__(self, request):
        self.request, self.pieces, self.begin = request, [], 0.0
        self.ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.begin = time.perf_counter()
        transport.write(self.request)

    def data_received(self, data):
        self.pieces.append((time.perf_counter(), data))

    def connection_lost(self, _error):
        self.ended.set_result(None)


@dataclasses.dataclass
class Answer:
    """What one stream brought: seconds from its request to each piece of text, and tokens as the server counts them."""
    times: list
    prompt_tokens: int
    new_tokens: int


def answer_of(stream):
    """Reads a finished stream. Raises `ValueError` if it is no complete answer."""
    raw = b"".join(data for _, data in stream.pieces)
    if not re.match(rb"HTTP/1\.1 200 ", raw):
        raise ValueError(f"the server answered {raw[:400]!r}")
    if b"data: [DONE]" not in raw:
        raise ValueError(f"the stream broke off after {raw[-200:]!r}")
    times, usage, end, pieces = [], None, 0, iter(stream.pieces)
    at, received = 0.0, 0
    for match in re.finditer(rb"data: (\{.*\})", raw):
        event = json.loads(match[1])
        while received < match.end():
            at, data = next(pieces)
            received += len(data)
        if any(choice.get("text") for choice in event.get("choices", [])):
            times.append(at - stream.begin)
        end = at - stream.begin
        usage = event.get("usage") or usage
    if not usage:
        raise ValueError("the stream told no usage")
    # One token that completes no character brings no text: then the end is when it came.
    return Answer(times or [end], usage["prompt_tokens"], usage["completion_tokens"])


def request(prompt, new, sampling, seed):
    body = {"model": "davinci-002", "prompt": prompt, "max_tokens": new, "ignore_eos": True, "stream": True,
            "stream_options": {"include_usage": True}, "seed": seed, **SAMPLING[sampling]}
    body = json.dumps(body)
    return (f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {KEY}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}").encode()


async def stream(port, message):
    loop = asyncio.get_running_loop()
    _, protocol = await loop.create_connection(lambda: Stream(message), "127.0.0.1", port)
    await protocol.ended
    return protocol


async def _all(port, messages, in_turn):
    if in_turn:
        return [await stream(port, m) for m in messages]
    return await asyncio.gather(*(stream(port, m) for m in messages))


def warm(port):
    """A prompt and some tokens, so that memory is touched and threads run."""
    message = request([random.Random("warm").randrange(*IDS) for _ in range(200)], 8, "greedy", 1)
    answer_of(asyncio.run(stream(port, message)))


def quantile(values, q):
    return sorted(values)[min(len(values) - 1, int(len(values) * q))]


def run(port, name, round_, sampling):
    """Runs the scenario `name` once; returns its figures. The same round asks every server the same."""
    scenario = SCENARIOS[name]
    rng = random.Random(f"{name} {round_}")
    ids = lambda n: [rng.randrange(*IDS) for _ in range(n)]
    shared = ids(scenario.shared)
    messages = [request(shared + ids(scenario.prompt), scenario.new, sampling, rng.randrange(1 << 31))
                for _ in range(scenario.clients * scenario.in_turn)]
    begin, busy = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    streams = asyncio.run(_all(port, messages, scenario.in_turn > 1))
    seconds = time.perf_counter() - begin
    after = resource.getrusage(resource.RUSAGE_SELF)
    answers = [answer_of(s) for s in streams]
    gaps = [1e3 * (b - a) for x in answers for a, b in zip(x.times, x.times[1:])]
    first = [1e3 * x.times[0] for x in answers]
    tokens = sum(x.new_tokens for x in answers)
    if tokens == 0:
        raise ValueError("no token came")
    figures = {
        OUTPUT: tokens / seconds,
        PROMPT: sum(x.prompt_tokens for x in answers) / seconds,
        TTFT_P50: statistics.median(first), TTFT_P99: quantile(first, 0.99),
        "tokens": tokens, "asked": scenario.new * len(messages), "seconds": seconds,
        "client cpu s": after.ru_utime + after.ru_stime - busy.ru_utime - busy.ru_stime,
    }
    if gaps:
        figures |= {GAP_P50: statistics.median(gaps), GAP_P99: quantile(gaps, 0.99)}
    return figures
