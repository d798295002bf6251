"""A Redis for the limits that replicas share, and what is asked of it: a few lines of RESP, so that no package is needed."""
import os, socket, subprocess

from servers import Process, until

PORT = 6379


class RedisError(Exception):
    pass


class Redis(Process):
    """One that keeps nothing on the disk."""

    def __init__(self, *arguments, password=None, port=PORT):
        self.password = password
        # Its protected mode is for addresses that others reach.
        options = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", "/tmp"]
        options += ["--requirepass", password] if password else []
        options += arguments or ["--port", port]
        super().__init__(["redis-server", *options])
        # One that speaks TLS alone says so itself.
        ready = (lambda: "Ready to accept connections" in self.said()) if arguments else (lambda: self.ask("PING"))
        until("redis answers", lambda: self.process.poll() is not None or ready())
        if self.process.poll() is not None:
            raise AssertionError(f"redis ended: {self.said()}")

    def ask(self, *command):
        """One command on a connection of its own."""
        with socket.create_connection(("127.0.0.1", PORT), timeout=10) as connection, connection.makefile("rwb") as stream:
            if self.password:
                call(stream, "AUTH", self.password)
            return call(stream, *command)

    def scripts_run(self):
        """How often a script was called. Scrapes and pings of ours call none."""
        stats = self.ask("INFO", "commandstats").decode()
        rows = dict(line.split(":", 1) for line in stats.splitlines() if ":" in line)
        return int(rows.get("cmdstat_evalsha", "calls=0").split("calls=")[1].split(",")[0])


def call(stream, *command):
    parts = [str(part).encode() for part in command]
    stream.write(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts))
    stream.flush()
    return answer(stream)


def answer(stream):
    line = stream.readline().rstrip(b"\r\n")
    kind, rest = line[:1], line[1:]
    if kind == b"-":
        raise RedisError(rest.decode())
    if kind == b"+":
        return rest.decode()
    if kind == b":":
        return int(rest)
    if kind == b"$":
        text = stream.read(int(rest) + 2)[:-2] if int(rest) >= 0 else None
        return text
    if kind == b"*":
        return [answer(stream) for _ in range(int(rest))]
    raise RedisError(f"not an answer: {line!r}")


def add_key(file, name, *limits):
    """A key in a file; its secret."""
    command = [os.environ["SCALE_TEST_BIN"], "keys", "add", name, "--file", file, *map(str, limits)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise AssertionError(done.stderr)
    return done.stdout.strip()
