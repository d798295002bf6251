"""Three servers that share the limits of keys in one Redis: together no more than the limit, and no request the worse for it
when the store dies, hangs or is not one."""
import contextlib, json, os, pathlib, re, signal, socket, statistics, subprocess, tempfile, threading, time, unittest

from redis_server import PORT, Redis, add_key
from servers import ROOT, Millrace, doctor, until
from test_replicas import report
from traffic import Crowd, complete

PORTS = [8001, 8002, 8003]
UP, ERRORS = "millrace_rate_limit_store_up", "millrace_rate_limit_store_errors_total"
URL = f"redis://127.0.0.1:{PORT}/0"
REQUESTS, TOKENS = "x-ratelimit-remaining-requests", "x-ratelimit-remaining-tokens"


class Limits(unittest.TestCase):
    """Not a test by itself."""

    model = "fake:step_ms=1"

    def setUp(self):
        stack = contextlib.ExitStack()
        self.addCleanup(stack.close)
        self.stack = stack
        self.folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self.keys = self.folder / "keys.toml"

    def key(self, name, *limits):
        """Headers of a new key."""
        return {"Authorization": f"Bearer {add_key(self.keys, name, *limits)}"}

    def redis(self, *arguments, **options):
        return self.stack.enter_context(Redis(*arguments, **options))

    def replicas(self, ports=PORTS, url=URL, wait=True, model=None, **environment):
        environment = {"MILLRACE_RATE_LIMIT_STORE": url, **environment} if url else environment
        started = [self.stack.enter_context(Millrace(port, "--api-key-file", self.keys, model=model or self.model, **environment))
                   for port in ports]
        if url and wait:
            self.until_up(started)
        return started

    def until_up(self, replicas, up=1):
        for replica in replicas:
            until(f"{UP} of {replica.port} is {up}", lambda: replica.metric(UP) == up)

    def spread(self, key, count, **more):
        """So many requests, in turn; and how many of the limit came back meanwhile at most, in minutes."""
        began = time.monotonic()
        outcomes = [complete(PORTS[n % 3], f"request {n}", max_tokens=1, headers=key, **more) for n in range(count)]
        for outcome in outcomes:
            self.assertIn(outcome.status, (200, 429), outcome)
        return outcomes, (time.monotonic() - began) / 60

    def assert_shared(self, key, limit, replicas=3):
        outcomes, minutes = self.spread(key, 2 * limit)
        passed = sum(o.whole for o in outcomes)
        self.assertGreaterEqual(passed, limit)
        self.assertLessEqual(passed, limit + limit * minutes)
        return passed, outcomes


class Shared(Limits):
    def test_requests(self):
        key = self.key("one", "--rpm", 30)
        redis = self.redis()
        self.replicas()
        passed, outcomes = self.assert_shared(key, 30)
        # What is left is what the store has left, whoever says it.
        left = [int(o.headers[REQUESTS]) for o in outcomes]
        self.assertEqual(left[:10], list(range(29, 19, -1)))
        refused = next(o for o in outcomes if o.status == 429)
        self.assertIn("30 requests per minute", refused.fault)
        self.assertTrue(0 < int(refused.headers["retry-after"]) <= 3, refused.headers)
        report(f"{passed} of 60 requests passed, of 30 a minute")
        size = redis.ask("MEMORY", "USAGE", "millrace:rl:one:requests")
        report(f"a meter takes {size} bytes of the store")
        self.assertLess(size, 300)
        self.assertTrue(0 < redis.ask("PTTL", "millrace:rl:one:requests") <= 61_000)

    def test_the_doctor_asks_the_store(self):
        self.redis()
        ask = lambda url: doctor(MILLRACE_RATE_LIMIT_STORE=url)["limit store"]
        # It waits 50 ms for an answer, as a request would; where others compute that may be too short for once.
        found = until("the store answers in time", lambda: (check := ask(URL))["state"] == "ok" and check)
        self.assertEqual(found["text"], f"{URL} answers")
        # Of 16, which is what it has unless it is told otherwise.
        self.assertEqual(ask(f"redis://127.0.0.1:{PORT}/99")["state"], "warn")

    def test_tokens_and_what_is_given_back(self):
        key = self.key("one", "--tpm", 600)
        redis = self.redis()
        replicas = self.replicas()
        ask = lambda port, new, **more: complete(port, "ten bytes!", max_tokens=new, headers=key, **more)
        left = lambda outcome: int(outcome.headers[TOKENS])
        first = ask(PORTS[0], 90)
        self.assertTrue(first.whole, first)
        began, cost = first.began, json.loads(first.answer)["usage"]["total_tokens"]
        # What comes back with time, ten a second, and one for the fraction that the header leaves out.
        back = lambda: 10 * (time.monotonic() - began) + 1
        self.assertTrue(cost - back() <= 600 - left(first) <= cost, (cost, left(first)))
        two = left(ask(PORTS[1], 90))
        self.assertLessEqual(two, 600 - 2 * cost + back())
        # Paid in advance for 300, and the answer ends at once: another replica has the rest to give.
        one = ask(PORTS[2], 1, temperature=0)
        word, before = json.loads(one.answer)["choices"][0]["text"], left(one)
        stopped = ask(PORTS[2], 300, temperature=0, stop=word)
        self.assertTrue(stopped.whole, stopped)
        after = until("it is given back", lambda: (lambda left: left > before - 100 and left)(left(ask(PORTS[0], 1))))
        self.assertLess(after, before + back())
        began = time.monotonic()
        passed = [o for o in (ask(PORTS[n % 3], 90) for n in range(12)) if o.whole]
        report(f"{cost} tokens a request, {two} left after two; {before} before 300 were reserved, {after} after they were given "
               f"back; {len(passed)} of 12 more passed")
        self.assertTrue(after // cost <= len(passed) <= (after + back()) // cost, (after, cost, back()))
        self.assertEqual({r.metric(ERRORS) for r in replicas}, {0})
        self.assertLessEqual(redis.ask("PTTL", "millrace:rl:one:tokens"), 61_000)

    def test_places(self):
        key = self.key("one", "--concurrency", 4)
        redis = self.redis()
        replicas = self.replicas(model="fake:step_ms=20")
        with contextlib.ExitStack() as running:
            for port in PORTS[:2]:
                running.enter_context(Crowd(port, clients=2, max_tokens=1500, headers=key))
            places = lambda: redis.ask("ZCARD", "millrace:rl:one:places")
            until("four run", lambda: places() == 4)
            refused = complete(PORTS[2], "a fifth", headers=key)
            self.assertEqual(refused.status, 429)
            self.assertIn("4 requests at one time", refused.fault)
            # The store forgets; the servers do not.
            redis.send(signal.SIGKILL)
            redis.wait()
            self.until_up(replicas, 0)
            self.assertEqual(complete(PORTS[2], "alone", max_tokens=1, headers=key).status, 200)
            redis = self.redis()
            self.until_up(replicas)
            until("all four are taken again", lambda: places() == 4)
            self.assertEqual(complete(PORTS[2], "a fifth", headers=key).status, 429)
            # Nobody frees the places of a server that dies: they lapse.
            seconds, _ = redis.ask("TIME")
            scores = redis.ask("ZRANGE", "millrace:rl:one:places", 0, -1, "WITHSCORES")[1::2]
            for score in scores:
                self.assertLessEqual(float(score) / 1000, int(seconds) + 61)
            self.assertTrue(0 < redis.ask("PTTL", "millrace:rl:one:places") <= 60_000)
            for replica in replicas:
                replica.send(signal.SIGKILL)

    def test_hostile_ids(self):
        names = ["a", "a:tokens", "a:requests", ":", "..", "@", "a:places", "x" * 64, "_.:@-" * 12]
        keys = [self.key(name, "--rpm", 3, "--tpm", 100_000) for name in names]
        redis = self.redis()
        self.replicas()
        for name, key in zip(names, keys):
            passed = sum(o.whole for o in self.spread(key, 4)[0])
            self.assertEqual(passed, 3, name)
        wanted = {f"millrace:rl:{name}:{what}" for name in names for what in ("requests", "tokens")} | {"millrace:rl:probe"}
        found = {key.decode() for key in redis.ask("KEYS", "*")}
        self.assertEqual(found - wanted, set())
        self.assertEqual({f"millrace:rl:{name}:requests" for name in names} - found, set())
        for bad in "a\\r\\nFLUSHALL", "a b", "a{b}", "", "x" * 65, "a\\u0000":
            text = re.sub(r'id = "a"', f'id = "{bad}"'.replace("\\", "\\\\"), self.keys.read_text(), count=1)
            file = self.folder / "bad.toml"
            file.write_text(text)
            file.chmod(0o600)
            with self.assertRaisesRegex(AssertionError, "bad.toml"):
                Millrace(8004, "--api-key-file", file, MILLRACE_RATE_LIMIT_STORE=URL)

    def test_the_script_decides_as_governor_does(self):
        """Sequences that the Rust tests wrote down, with the clock in the test's hand."""
        redis = self.redis()
        script = (ROOT / "src/keys/shared/take.lua").read_text()
        clock = "redis.call('TIME')"
        self.assertIn(clock, script)
        script = script.replace(clock, "{ARGV[3], ARGV[4]}")
        steps = 0
        for number, life in enumerate(json.loads(pathlib.Path(__file__).with_name("gcra.json").read_text())):
            now, limit = 1_900_000_000_000_000, life["limit"]
            for step, (pause, n, taken, left) in enumerate(life["steps"]):
                now += pause
                arguments = [limit, n, now // 1_000_000, now % 1_000_000]
                allowed, used = redis.ask("EVAL", script, 1, f"life {number}", *arguments)
                self.assertEqual(bool(allowed), taken, (limit, step))
                # Governor's clock ticks in whole nanoseconds for one unit.
                self.assertAlmostEqual(int(limit - float(used) + 1e-6), left, delta=max(1, limit / 1e6), msg=(limit, step))
                steps += 1
        # A meter that is full again is gone, strange values are full meters, and a clock set back stops nobody.
        self.assertEqual(redis.ask("EVAL", script, 1, "life 0", 1, -5, now // 1_000_000, 0), [1, b"0"])
        self.assertEqual(redis.ask("EXISTS", "life 0"), 0)
        for strange in "", "nan nan", "1", "x y", "-5 7", "1e999 1", "5 1e300":
            redis.ask("SET", "strange", strange)
            self.assertEqual(redis.ask("EVAL", script, 1, "strange", 10, 5, now // 1_000_000, 0)[0], 1, strange)
        report(f"{steps} takes decided as governor decides them")


class Fails(Limits):
    def under_load(self, replicas, what, count=30):
        """Three crowds of a key that nothing limits in effect, while `what` happens; nobody may notice."""
        with contextlib.ExitStack() as running:
            crowds = [running.enter_context(Crowd(r.port, clients=2, max_tokens=4, headers=self.busy)) for r in replicas]

            def more():
                target = [crowd.done() + count for crowd in crowds]
                until("more requests", lambda: all(c.done() >= t for c, t in zip(crowds, target)))
            more()
            what()
            more()
        outcomes = [o for crowd in crowds for o in crowd.outcomes]
        self.assertEqual([o for o in outcomes if not o.whole], [])
        return outcomes

    def test_the_store_dies_and_comes_back(self):
        self.busy = self.key("busy", "--rpm", 1_000_000, "--tpm", 100_000_000, "--concurrency", 1000)
        alone, again = self.key("alone", "--rpm", 20), self.key("again", "--rpm", 20)
        redis = self.redis()
        replicas = self.replicas()

        def die():
            redis.send(signal.SIGKILL)
            redis.wait()
        outcomes = self.under_load(replicas, die)
        self.until_up(replicas, 0)
        report(f"{len(outcomes)} requests while the store died, none failed")
        # Each by itself now: three times the limit, and what a minute brings.
        outcomes, minutes = self.spread(alone, 90)
        passed = sum(o.whole for o in outcomes)
        self.assertTrue(60 <= passed <= 60 + 3 * 20 * minutes, passed)
        self.assertEqual([int(o.headers[REQUESTS]) for o in outcomes[:6]], [19, 19, 19, 18, 18, 18])
        for replica in replicas:
            self.assertGreater(replica.metric(ERRORS), 0)
            # Once a minute at most.
            self.assertLessEqual(replica.said().count("store of shared limits fails"), 2)
        with self.redis():
            self.until_up(replicas)
            passed, _ = self.assert_shared(again, 20)
            report(f"and {passed} of 40 passed when it was back, of 20 a minute")

    def test_the_store_hangs(self):
        self.busy = self.key("busy", "--rpm", 1_000_000, "--tpm", 100_000_000)
        again = self.key("again", "--rpm", 20)
        redis = self.redis()
        replicas = self.replicas()
        before = self.under_load(replicas, lambda: None)
        began = time.monotonic()
        redis.send(signal.SIGSTOP)
        stopped = self.under_load(replicas, lambda: self.until_up(replicas, 0), 100)
        lasted = time.monotonic() - began
        waits = sum(r.metric(ERRORS) for r in replicas)
        # Those that asked in the moment when it stopped, two tries or so a second in the background, and nobody else.
        report(f"{len(stopped)} requests in {lasted:.1f} s of a store that hangs: {waits:.0f} waits for it")
        self.assertLessEqual(waits, 3 * (2 * 2 + 2 * lasted))
        self.assertLess(waits, len(stopped) / 3)
        median = [statistics.median(o.ended - o.began for o in side) for side in (before, stopped)]
        report(f"median of a request: {1e3 * median[0]:.1f} ms before, {1e3 * median[1]:.1f} ms then")
        self.assertLess(median[1] / median[0], 2)
        redis.send(signal.SIGCONT)
        self.until_up(replicas)
        self.assert_shared(again, 20)

    def test_a_start_without_it(self):
        key = self.key("one", "--rpm", 20)
        replicas = self.replicas(wait=False)
        outcomes, _ = self.spread(key, 30)
        self.assertEqual(sum(o.whole for o in outcomes), 30)
        self.assertEqual([r.metric(UP) for r in replicas], [0, 0, 0])
        for replica in replicas:
            self.assertEqual(replica.said().count("store of shared limits fails"), 1, replica.said())
        with self.redis():
            self.until_up(replicas)

    def test_a_store_that_refuses_writes_and_one_of_another_kind(self):
        key, other = self.key("one", "--rpm", 20), self.key("two", "--rpm", 20)
        redis = self.redis()
        replicas = self.replicas()
        # Scripts are forgotten: they are sent again.
        redis.ask("SCRIPT", "FLUSH")
        # Somebody's own value in a meter's place: that key is on its own, the others are not.
        redis.ask("RPUSH", "millrace:rl:one:requests", "mine")
        self.assertEqual(sum(o.whole for o in self.spread(key, 60)[0]), 60)
        self.assert_shared(other, 20)
        self.until_up(replicas)
        errors = [r.metric(ERRORS) for r in replicas]
        self.assertTrue(all(20 <= e <= 25 for e in errors), errors)
        # A replica that follows a master takes no writes.
        redis.ask("REPLICAOF", "127.0.0.1", "1")
        self.until_up(replicas, 0)
        self.assertTrue(complete(PORTS[0], "alone", max_tokens=1, headers=other).status in (200, 429))
        redis.ask("REPLICAOF", "NO", "ONE")
        self.until_up(replicas)


class Secrets(Limits):
    def config(self, *arguments, **environment):
        command = [os.environ["SCALE_TEST_BIN"], "check-config", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, cwd=self.folder)
        return done.returncode, done.stdout + done.stderr

    def test_a_password_is_never_shown(self):
        key = self.key("one", "--rpm", 20)
        word = "hunter2%21@correct"
        url = f"redis://:{word}@127.0.0.1:{PORT}/3"
        redis = self.redis(password="hunter2!@correct")
        environment = {"MILLRACE_LOG_LEVEL": "trace", "MILLRACE_LOG_FORMAT": "json"}
        replicas = self.replicas(url=url, **environment)
        self.assert_shared(key, 20)
        redis.ask("CONFIG", "SET", "requirepass", "another")
        redis.password = "another"
        redis.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        self.until_up(replicas, 0)
        code, shown = self.config(MILLRACE_RATE_LIMIT_STORE=url)
        self.assertEqual(code, 0, shown)
        self.assertIn(f"redis://redacted@127.0.0.1:{PORT}/3", shown)
        code, refused = self.config("--rate-limit-store", url)
        self.assertEqual(code, 2, refused)
        self.assertIn("others can read the command line", refused)
        for text in (shown, refused, *(r.said() for r in replicas)):
            self.assertNotIn("hunter2", text)
        self.assertIn("limits are shared", replicas[0].said())
        self.assertIn("the store of shared limits fails", replicas[0].said())

    def test_a_server_that_repeats_the_password_is_not_quoted(self):
        self.key("one", "--rpm", 20)
        listener = socket.create_server(("127.0.0.1", PORT))

        def echo():
            with contextlib.suppress(OSError), listener:
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        said = connection.recv(4096).decode().replace("\r\n", " ")
                        connection.sendall(f"-ERR unknown command 'AUTH', with args beginning with: {said}\r\n".encode() * 4)
        thread = threading.Thread(target=echo)
        thread.start()
        self.addCleanup(thread.join)
        # Ends the wait for a connection, which closing it would not.
        self.addCleanup(listener.shutdown, socket.SHUT_RDWR)
        replica, = self.replicas(PORTS[:1], f"redis://:hunter2@127.0.0.1:{PORT}", wait=False, MILLRACE_LOG_LEVEL="trace")
        until("it says so", lambda: "the store of shared limits fails" in replica.said())
        self.assertNotIn("hunter2", replica.said())

    def test_tls(self):
        key = self.key("one", "--rpm", 20)
        cert, private = self.folder / "cert.pem", self.folder / "key.pem"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                        "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE",
                        "-keyout", private, "-out", cert], check=True, capture_output=True)
        self.redis("--port", "0", "--tls-port", str(PORT), "--tls-cert-file", str(cert), "--tls-key-file", str(private),
                   "--tls-auth-clients", "no")
        url = f"rediss://localhost:{PORT}/0"
        stranger, = self.replicas([8004], url, wait=False)
        self.replicas(url=url, SSL_CERT_FILE=str(cert))
        self.assert_shared(key, 20)
        self.assertEqual(stranger.metric(UP), 0)
        self.assertIn("certificate", stranger.said())


class Cost(Limits):
    def test_a_request_with_the_store_beside_one_without(self):
        key = self.key("one", "--rpm", 1_000_000, "--tpm", 100_000_000)
        redis = self.redis()
        self.replicas([8001])
        self.replicas([8002], url=None)
        ask = lambda port: (lambda o: o.ended - o.began)(complete(port, "one", max_tokens=1, headers=key))
        for port in 8001, 8002:
            for _ in range(50):
                ask(port)
        calls = redis.scripts_run()
        pairs = [(ask(8001), ask(8002)) for _ in range(1000)]
        calls = redis.scripts_run() - calls
        beside, without = (statistics.median(side) for side in zip(*pairs))
        added = statistics.median(a - b for a, b in pairs)
        report(f"a request: {1e3 * without:.2f} ms, {1e3 * beside:.2f} ms with the store; {1e3 * added:.3f} ms more (median of "
               f"{len(pairs)} pairs), {calls / len(pairs):.2f} scripts each")
        # The requests and the tokens; nothing to give back; a probe now and then.
        self.assertTrue(2 * len(pairs) <= calls <= 2 * len(pairs) + 50, calls)
