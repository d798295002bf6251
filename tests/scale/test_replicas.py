"""Three servers behind HAProxy and behind nginx: restarts, deaths, stops, pace and affinity."""
import contextlib, os, pathlib, random, signal, statistics, subprocess, sys, time, unittest

from servers import KEY, Millrace, haproxy, haproxy_state, nginx, until
from traffic import Crowd, complete

PORTS = [8001, 8002, 8003]
# What the files in config/ tell to start servers with.
DELAY = ["--shutdown-delay-s", "3"]


def report(line):
    print(f"    {line}", flush=True)


class Replicas(unittest.TestCase):
    """Three replicas behind one proxy; not a test by itself."""

    arguments = DELAY
    model = "fake:step_ms=5"

    def setUp(self):
        stack = contextlib.ExitStack()
        self.addCleanup(stack.close)
        self.stack = stack
        self.replicas = [stack.enter_context(Millrace(port, *self.arguments, model=self.model)) for port in PORTS]

    def behind_haproxy(self):
        self.stack.enter_context(haproxy())
        for n in 1, 2, 3:
            until(f"HAProxy has seen replica-{n}", lambda: haproxy_state(f"replica-{n}") == "UP")
        return 8000

    def behind_nginx(self):
        self.stack.enter_context(nginx())
        return 8080

    def more(self, crowd, count=20):
        """Waits until so many more requests have ended."""
        target = crowd.done() + count
        until(f"{target} requests", lambda: crowd.done() >= target)


class RollingRestart(Replicas):
    def restart_each(self, port, is_back):
        with Crowd(port) as crowd:
            self.more(crowd)
            for n, replica in enumerate(self.replicas):
                replica.send(signal.SIGTERM)
                self.assertEqual(replica.wait(), 0, replica.said())
                self.replicas[n] = self.stack.enter_context(Millrace(PORTS[n], *DELAY, model=self.model))
                is_back(n)
                self.more(crowd)
        lost = [o for o in crowd.outcomes if not o.whole]
        report(f"{len(crowd.outcomes)} requests, {len(lost)} lost")
        self.assertEqual(lost, [])

    def test_haproxy(self):
        port = self.behind_haproxy()
        self.restart_each(port, lambda n: until("it is seen again", lambda: haproxy_state(f"replica-{n + 1}") == "UP"))

    def test_nginx(self):
        self.restart_each(self.behind_nginx(), lambda n: None)


class Kill(Replicas):
    def kill_one(self, port):
        """What was lost when a replica was killed under load, and what began after that."""
        with Crowd(port, max_tokens=100) as crowd:
            self.more(crowd)
            victim = max(self.replicas, key=lambda r: r.metric("vllm:num_requests_running"))
            until("it works on something", lambda: victim.metric("vllm:num_requests_running") > 0)
            began_by_then = crowd.done()
            victim.send(signal.SIGKILL)
            victim.wait()
            dead = time.monotonic()
            self.more(crowd, 60)
        lost = [o for o in crowd.outcomes if not o.whole]
        report(f"{len(crowd.outcomes)} requests, {len(lost)} lost, {began_by_then} had ended before")
        # Six clients have one request each in flight, and may have begun another while it died.
        self.assertLessEqual(len(lost), 12)
        for outcome in lost:
            self.assertLessEqual(outcome.began, dead, f"it began after the death: {outcome}")

    def test_haproxy(self):
        self.kill_one(self.behind_haproxy())

    def test_nginx(self):
        self.kill_one(self.behind_nginx())

    def test_retries_of_an_sdk_make_plain_requests_whole(self):
        port = self.behind_haproxy()
        script = pathlib.Path(__file__).with_name("plain_requests.py")
        environment = {**os.environ, "OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1"}
        client = subprocess.Popen([sys.executable, script], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        with client:
            self.assertEqual(client.stdout.readline(), "running\n")
            victim = max(self.replicas, key=lambda r: r.metric("vllm:num_requests_running"))
            until("it works on something", lambda: victim.metric("vllm:num_requests_running") > 0)
            victim.send(signal.SIGKILL)
            victim.wait()
            said, _ = client.communicate("enough\n", timeout=120)
        report(said.strip())
        self.assertEqual(client.returncode, 0, said)


class Stop(Replicas):
    def test_haproxy_ejects_it_and_takes_it_back(self):
        port = self.behind_haproxy()
        with Crowd(port, clients=3) as crowd:
            self.more(crowd)
            self.replicas[1].send(signal.SIGSTOP)
            until("it is ejected", lambda: haproxy_state("replica-2").startswith("DOWN"))
            # From here on nobody is sent to it: everything that begins ends.
            for number in range(20):
                outcome = complete(port, f"another {number}")
                self.assertTrue(outcome.whole, outcome)
                self.assertNotEqual(outcome.by, "replica-2")
            self.replicas[1].send(signal.SIGCONT)
            until("it is taken back", lambda: haproxy_state("replica-2") == "UP")
        lost = [o for o in crowd.outcomes if not o.whole]
        report(f"{len(crowd.outcomes)} requests, {len(lost)} lost; what waited for it went on with it")
        self.assertEqual(lost, [])


class Pace(Replicas):
    model = "fake:step_ms=10"

    def gap_ms(self, port):
        """The median time between two parts of a stream."""
        parts = complete(port, "pace", stream=True, max_tokens=50, headers={"x-affinity": "one"}).parts
        return 1e3 * statistics.median(b - a for a, b in zip(parts, parts[1:]))

    def compare(self, port):
        pairs = [(self.gap_ms(PORTS[0]), self.gap_ms(port)) for _ in range(7)]
        direct, through = (statistics.median(side) for side in zip(*pairs))
        noise = max(d for d, _ in pairs) / min(d for d, _ in pairs)
        report(f"between tokens: {direct:.2f} ms direct, {through:.2f} ms through it, ratio {through / direct:.3f}; "
               f"direct runs differ by {noise:.3f}")
        bound = max(1.1, noise)
        # Tokens that come in bunches have no time between them.
        self.assertTrue(1 / bound < through / direct < bound)

    def test_haproxy(self):
        self.compare(self.behind_haproxy())

    def test_nginx(self):
        self.compare(self.behind_nginx())


class Affinity(Replicas):
    # Room for the beginnings that belong to one replica, not for those of all.
    model = "fake:step_ms=1,kv_blocks=130"
    groups, rounds = 18, 6

    def hits(self, send):
        """The share of prompt tokens that the prefix caches gave, over `rounds` of each group's prompts."""
        def counters():
            names = "vllm:prefix_cache_hits_total", "vllm:prefix_cache_queries_total"
            return [sum(r.metric(name) for r in self.replicas) for name in names]
        before = counters()
        order = [(group, turn) for group in range(self.groups) for turn in range(self.rounds)]
        random.Random(7).shuffle(order)
        for number, (group, turn) in enumerate(order):
            outcome = send(number, group, f"Group {group:02} begins like this. " * 16 + f"Turn {turn}.")
            self.assertTrue(outcome.whole, outcome)
        hits, queries = (after - first for after, first in zip(counters(), before))
        return hits / queries

    def compare(self, send, label):
        # In turn, as a balancer does that knows nothing; of prompts that are the other run's in no part.
        in_turn = self.hits(lambda i, _, prompt: complete(PORTS[i % 3], "In turn. " + prompt, max_tokens=1))
        by_key = self.hits(send)
        report(f"{label}: {100 * by_key:.0f} % of prompt tokens from the prefix cache, {100 * in_turn:.0f} % in turn, "
               f"ratio {by_key / max(in_turn, 1e-9):.2f}")
        self.assertGreater(by_key, 1.2 * in_turn)

    def test_haproxy_by_the_beginning_of_the_prompt(self):
        port = self.behind_haproxy()
        self.compare(lambda i, group, prompt: complete(port, prompt, max_tokens=1), "HAProxy, beginning of the prompt")

    def test_haproxy_by_prompt_cache_key(self):
        port = self.behind_haproxy()
        self.compare(lambda i, group, prompt: complete(port, prompt, max_tokens=1, prompt_cache_key=f"group {group}"),
                     "HAProxy, prompt_cache_key")

    def test_nginx_by_header(self):
        port = self.behind_nginx()
        self.compare(lambda i, group, prompt: complete(port, prompt, max_tokens=1, headers={"x-affinity": f"group {group}"}),
                     "nginx, x-affinity")
