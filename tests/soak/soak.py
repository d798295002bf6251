#!/usr/bin/env python3
"""Mixed traffic against the real binary and the default model for a while, then a look at what is left of it.

Streams and whole answers, long and short, chats, JSON of a schema, clients that leave at any moment, slow readers, bad
input, a flood from a limited key, keys that change. While it runs, each answer that is checked must be right. Afterwards
every gauge must be back at its base, memory flat, and each accepted request must have had exactly one end.
"""
import argparse, asyncio, collections, contextlib, json, pathlib, random, re, signal, statistics, subprocess, sys, tempfile, time

START_TIMEOUT_S = 60
# After the last client is gone. Only a fault reaches it.
SETTLE_TIMEOUT_S = 30
# Of one exchange. Only a request that was lost reaches it.
EXCHANGE_TIMEOUT_S = 120
# What memory may grow by between the second quarter and the last: allocators' noise, not a leak a request.
GROWTH_MAX_MIB = 24
# Small, so that all of it was used before memory is compared.
KV_CACHE = "64MiB"
FLOOD_RPM = 120

SCHEMA = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 10}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
          "required": ["name", "age"], "additionalProperties": False}

BAD = [  # A body, and the answer's status.
    (b"{", 400), (b"[1]", 400), (b"", 400), (b'{"model": "m", "prompt": "\xff"}', 400),
    ({"model": "m", "prompt": "a", "max_tokens": -1}, 400), ({"model": "m", "prompt": "a", "temperature": 9}, 400),
    ({"model": "none", "prompt": "a"}, 404), ({"prompt": "a"}, 400), ({"model": "m", "prompt": [10**9]}, 400),
    ({"model": "m", "prompt": "a", "n": 10**9}, 400), ({"model": "m", "prompt": "word " * 20_000}, 400),
    ({"model": "m", "prompt": "a", "structured_outputs": {"regex": "(a"}}, 400),
    ({"model": "m", "prompt": "a", "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {"not": {}}}}}, 400),
]


class Wrong(Exception):
    """An answer that must not be."""


def dechunk(body):
    out = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size, 16)
        out, body = out + rest[:length], rest[length + 2:]
        if length == 0:
            return out
    raise Wrong("a body that ends before its end")


def parsed(data):
    head, _, body = data.partition(b"\r\n\r\n")
    if not head:
        raise Wrong("a connection closed without an answer")
    chunked = b"transfer-encoding: chunked" in head.lower()
    return int(head.split(b" ", 2)[1]), dechunk(body) if chunked else body


def events(body):
    """The data of a stream that ended as it should."""
    found = [line[6:] for line in body.decode().split("\n") if line.startswith("data: ")]
    if not found or found[-1] != "[DONE]":
        raise Wrong(f"a stream that ends with {found[-1:]}")
    return [json.loads(data) for data in found[:-1]]


class Soak:
    def __init__(self, binary, model, folder, seconds):
        self.binary, self.model, self.folder, self.seconds = binary, model, folder, seconds
        self.keys_file = folder / "keys.toml"
        self.ends = collections.Counter()
        self.memory_mib = []
        self.over = asyncio.Event()

    # The server.

    def add_key(self, name, *options):
        command = [self.binary, "keys", "add", name, "--file", self.keys_file, *options]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout.strip()

    async def start(self):
        self.key, self.limited = self.add_key("soak"), self.add_key("flood", "--rpm", str(FLOOD_RPM))
        command = [self.binary, "serve", self.model, "--port", "0", "--api-key-file", self.keys_file, "--served-model-name", "m",
                   "--kv-cache-memory", KV_CACHE, "--max-num-seqs", "16", "--log-level", "warn"]
        self.log = open(self.folder / "log", "w+")
        self.process = subprocess.Popen(command, stderr=self.log)
        until = time.monotonic() + START_TIMEOUT_S
        while "ready to serve" not in (text := (self.folder / "log").read_text()):
            if self.process.poll() is not None or time.monotonic() > until:
                raise SystemExit("the server did not start:\n" + text)
            await asyncio.sleep(0.05)
        self.port = int(re.search(r"listening on http://127\.0\.0\.1:(\d+)", text)[1])

    async def metrics(self):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        _, body = parsed(await reader.read())
        writer.close()
        found = collections.Counter()
        for line in body.decode().splitlines():
            if line and not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                found[name.partition("{")[0]] += float(value)
                if reason := re.search('finished_reason="(.*?)"', name):
                    found["ended " + reason[1]] += float(value)
        return found

    def proc(self):
        """What the process holds."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        number = lambda name: int(re.search(rf"^{name}:\s+(\d+)", status, re.M)[1])
        files = len(list(pathlib.Path(f"/proc/{self.process.pid}/fd").iterdir()))
        return {"memory_mib": number("VmRSS") / 1024, "files": files}

    # One exchange.

    @contextlib.asynccontextmanager
    async def sent(self, body, key=None, path="/v1/completions"):
        payload = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = (f"POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"
                f"Authorization: Bearer {key or self.key}\r\nContent-Length: {len(payload)}\r\n\r\n")
        async with asyncio.timeout(EXCHANGE_TIMEOUT_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            try:
                writer.write(head.encode() + payload)
                yield reader, writer
            finally:
                writer.close()

    async def ask(self, body, key=None, path="/v1/completions"):
        async with self.sent(body, key, path) as (reader, _):
            status, answer = parsed(await reader.read())
        self.ends["done" if status == 200 else "refused"] += 1
        return status, answer

    async def ask_well(self, body, path="/v1/completions"):
        status, answer = await self.ask(body, path=path)
        if status != 200:
            raise Wrong(f"{status} for {str(body)[:200]}: {answer[:300]}")
        return events(answer) if body.get("stream") else json.loads(answer)

    # The crowd. Each goes on until it is over.

    async def prepare(self):
        self.right = []
        for subject in ("a robot", "the sea", "two friends", "a city at night", "an old clock"):
            body = {"model": "m", "prompt": f"Once upon a time, {subject}", "temperature": 0, "max_tokens": 40}
            answer = await self.ask_well(body)
            self.right.append((body, answer["choices"][0]["text"]))

    async def checks(self, dice):
        body, text = dice.choice(self.right)
        if dice.random() < 0.5:
            parts = await self.ask_well(body | {"stream": True})
            said = "".join(part["choices"][0]["text"] for part in parts)
        else:
            said = (await self.ask_well(body))["choices"][0]["text"]
        if said != text:
            raise Wrong(f"{body['prompt']!r} was answered {said!r}, alone {text!r}")

    async def asks_for_json(self, dice):
        wanted = {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}}
        body = {"model": "m", "prompt": "A person: ", "temperature": 1.5, "seed": dice.randrange(10**6), "max_tokens": 200, "response_format": wanted}
        choice = (await self.ask_well(body))["choices"][0]
        if choice["finish_reason"] == "stop":
            person = json.loads(choice["text"])
            if set(person) != {"name", "age"} or not 0 <= person["age"] <= 99 or len(person["name"]) > 10:
                raise Wrong(f"not of the schema: {choice['text']!r}")

    async def chats(self, dice):
        messages = [{"role": "user", "content": f"Say {dice.randrange(1000)}."}]
        body = {"model": "m", "messages": messages, "max_completion_tokens": dice.randrange(1, 60), "stream": True, "stream_options": {"include_usage": True}}
        parts = await self.ask_well(body, "/v1/chat/completions")
        if parts[-1]["usage"]["completion_tokens"] > body["max_completion_tokens"]:
            raise Wrong(f"more tokens than were asked for: {parts[-1]}")

    async def asks_much(self, dice):
        prompt = [dice.randrange(1000, 20_000) for _ in range(dice.randrange(100, 1200))]
        body = {"model": "m", "prompt": prompt, "max_tokens": 64, "ignore_eos": True}
        usage = (await self.ask_well(body))["usage"]
        if (usage["prompt_tokens"], usage["completion_tokens"]) != (len(prompt), 64):
            raise Wrong(f"{usage} for {len(prompt)} and 64 tokens")

    async def leaves(self, dice):
        body = {"model": "m", "prompt": f"Go on {dice.random()}", "max_tokens": 300, "ignore_eos": True, "stream": dice.random() < 0.7}
        async with self.sent(body) as (reader, writer):
            for _ in range(dice.randrange(0, 40) if body["stream"] else 0):
                await reader.readline()
            await asyncio.sleep(dice.random() * 0.3)
            writer.transport.abort()
        self.ends["left"] += 1

    async def reads_slowly(self, dice):
        body = {"model": "m", "prompt": "Slowly", "max_tokens": 100, "ignore_eos": True, "stream": True, "seed": dice.randrange(99)}
        data = b""
        async with self.sent(body) as (reader, _):
            while piece := await reader.read(2048):
                data += piece
                await asyncio.sleep(0.05)
        status, answer = parsed(data)
        if status != 200 or len(events(answer)) < 2:
            raise Wrong(f"{status} for a slow reader")
        self.ends["done"] += 1

    async def asks_badly(self, dice):
        body, expected = dice.choice(BAD)
        status, answer = await self.ask(body)
        if status != expected or "error" not in json.loads(answer):
            raise Wrong(f"{status}, not {expected}, for {str(body)[:200]}: {answer[:300]}")
        await asyncio.sleep(0.05)

    async def floods(self, _dice):
        status, answer = await self.ask({"model": "m", "prompt": "a", "max_tokens": 1}, self.limited)
        if status not in (200, 429, 401):
            raise Wrong(f"{status} for a flood: {answer[:300]}")
        self.ends[f"flood {status}"] += 1
        await asyncio.sleep(0.01)

    async def changes_keys(self, dice):
        old = self.limited
        run = lambda *command: asyncio.to_thread(subprocess.run, [self.binary, "keys", *command, "--file", self.keys_file], check=True, capture_output=True)
        await run("revoke", "flood")
        self.limited = await asyncio.to_thread(self.add_key, "flood", "--rpm", str(FLOOD_RPM))
        body = {"model": "m", "prompt": "a", "max_tokens": 1}
        until = time.monotonic() + SETTLE_TIMEOUT_S
        while (await self.ask(body, old))[0] != 401 or (await self.ask(body, self.limited))[0] == 401:
            if time.monotonic() > until:
                raise Wrong("a changed key file is not read")
            await asyncio.sleep(0.1)
        await asyncio.sleep(dice.uniform(2, 6))

    async def act(self, what, number):
        dice = random.Random(f"{what.__name__} {number}")
        while not self.over.is_set():
            await what(dice)

    async def watch(self):
        while not self.over.is_set():
            self.memory_mib.append(self.proc()["memory_mib"])
            await asyncio.sleep(self.seconds / 120)

    async def run(self):
        await self.start()
        try:
            await self.prepare()
            await self.metrics()
            base = self.proc()
            await self.traffic()
            await self.judge(base)
            self.process.send_signal(signal.SIGTERM)
            if (code := await asyncio.to_thread(self.process.wait, SETTLE_TIMEOUT_S)) != 0:
                raise Wrong(f"the server ended with {code}")
        except BaseException:
            print((self.folder / "log").read_text()[-4000:])
            raise
        finally:
            self.process.kill()

    async def traffic(self):
        crowd = {self.checks: 4, self.asks_for_json: 1, self.chats: 2, self.asks_much: 1, self.leaves: 3, self.reads_slowly: 2, self.asks_badly: 1, self.floods: 1,
                 self.changes_keys: 1}
        asyncio.get_running_loop().call_later(self.seconds, self.over.set)
        async with asyncio.TaskGroup() as group:
            group.create_task(self.watch())
            for what, count in crowd.items():
                for number in range(count):
                    group.create_task(self.act(what, number))

    # What is left.

    async def judge(self, base):
        gauges = ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc")
        until = time.monotonic() + SETTLE_TIMEOUT_S
        while left := {name: found[name] for found in [await self.metrics()] for name in gauges if found[name]} | self.files_above(base):
            if time.monotonic() > until:
                raise Wrong(f"not back at its base: {left}")
            await asyncio.sleep(0.1)
        found = await self.metrics()
        ended = {reason: int(found[f"ended {reason}"]) for reason in ("stop", "length", "abort", "error")}
        whole, done, gone = ended["stop"] + ended["length"], self.ends["done"], self.ends["left"]
        print(f"requests: {dict(self.ends)}; ends that the server counted: {ended}")
        # Who leaves may do so before the request is accepted, or after its end.
        if ended["error"] or not done <= whole <= done + gone or sum(ended.values()) > done + gone:
            raise Wrong("a request without an end, or with two")
        quarter = len(self.memory_mib) // 4
        before, after = statistics.median(self.memory_mib[quarter:2 * quarter]), statistics.median(self.memory_mib[-quarter:])
        minutes = self.seconds / 60
        slope = statistics.linear_regression(range(len(self.memory_mib) - quarter), self.memory_mib[quarter:]).slope * len(self.memory_mib) / minutes
        print(f"memory: {base['memory_mib']:.0f} MiB at first, {before:.1f} in the second quarter, {after:.1f} in the last; {slope:+.2f} MiB a minute")
        if after - before > GROWTH_MAX_MIB:
            raise Wrong("memory grows")

    def files_above(self, base):
        files = self.proc()["files"]
        return {"files": files} if files > base["files"] else {}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", required=True, type=pathlib.Path)
    parser.add_argument("--model", required=True, type=pathlib.Path)
    parser.add_argument("--minutes", default=30, type=float)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        soak = Soak(options.bin.resolve(), options.model.resolve(), pathlib.Path(folder), options.minutes * 60)
        try:
            asyncio.run(soak.run())
        except* Wrong as wrong:
            sys.exit(f"failed: {wrong.exceptions[0]}")


if __name__ == "__main__":
    main()
