"""Prometheus with the files of config/: what it reads, the alerts, every query of the dashboard."""
import contextlib, json, pathlib, re, statistics, subprocess, tempfile, threading, time, unittest, urllib.parse

from servers import CONFIG, Millrace, Process, get, until
from test_replicas import report
from traffic import Crowd, complete

HERE = pathlib.Path(__file__).resolve().parent
# promtool wants no colons in names; they are vLLM's.
COLON = re.compile(r"^\S+ metric names should not contain ':'$")


def queries(dashboard):
    """The expressions of a dashboard's panels, with Grafana's variables filled in."""
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            expression = target["expr"].replace("$__rate_interval", "30s")
            yield panel["title"], re.sub(r"\$(model|instance)", ".*", expression)


def ask(path, **parameters):
    status, text = get(9090, f"/api/v1/{path}?{urllib.parse.urlencode(parameters)}")
    if status != 200:
        raise ConnectionError(text)
    return json.loads(text)["data"]


class Monitoring(unittest.TestCase):
    def setUp(self):
        stack = contextlib.ExitStack()
        self.addCleanup(stack.close)
        self.stack = stack

    def test_alert_rules(self):
        done = subprocess.run(["promtool", "test", "rules", HERE / "alerts.test.yml"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_every_alert_is_explained_and_tested(self):
        alerts = set(re.findall(r"alert: (\w+)", (CONFIG / "alerts.yml").read_text()))
        for where in CONFIG.parent / "docs" / "operations.md", HERE / "alerts.test.yml":
            self.assertEqual(alerts - set(re.findall(r"\bMillrace[A-Z]\w+", where.read_text())), set(), where)

    def test_names_are_sound(self):
        server = self.stack.enter_context(Millrace(8000))
        complete(8000, "one")
        text = get(8000, "/metrics")[1]
        done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True)
        remarks = [line for line in (done.stdout + done.stderr).splitlines() if not COLON.match(line)]
        self.assertEqual(remarks, [])
        self.assertGreater(server.metric("process_max_fds"), 0)

    def test_no_query_of_the_dashboard_is_empty(self):
        # Repeats itself, so that drafts are made; one key; a cache that is too small for all.
        self.stack.enter_context(Millrace(8000, model="fake:step_ms=2,vocab=300,hash_bits=1"))
        data = self.stack.enter_context(tempfile.TemporaryDirectory())
        self.stack.enter_context(Process(["prometheus", f"--config.file={CONFIG / 'prometheus.yml'}", f"--storage.tsdb.path={data}",
                                          "--web.listen-address=127.0.0.1:9090"]))
        until("prometheus has scraped", lambda: ask("query", query='up{job="millrace"} == 1')["result"])
        wanted = list(queries(json.loads((CONFIG / "grafana/dashboards/millrace.json").read_text())))
        self.assertGreater(len(wanted), 30)
        with Crowd(8000, clients=3, max_tokens=20):
            empty = dict.fromkeys(wanted)

            def all_found():
                # A share of nothing is NaN, which is not empty; no series is.
                for title, expression in list(empty):
                    if ask("query", query=expression)["result"]:
                        del empty[title, expression]
                return not empty
            try:
                until("every query gives something", all_found)
            except AssertionError:
                self.fail(f"empty: {list(empty)}")
        health = lambda: {rule["name"]: rule["health"] for group in ask("rules")["groups"] for rule in group["rules"]}
        # Each group has its own moment in the interval, and before the first one a rule is `unknown`.
        rules = until("every rule was evaluated", lambda: (found := health()) and "unknown" not in found.values() and found)
        self.assertEqual(set(rules.values()), {"ok"})
        report(f"{len(wanted)} queries of the dashboard, none empty; {len(rules)} alert rules, all healthy")

    def test_scrapes_every_50_ms_cost_nothing(self):
        """Streams beside somebody who scrapes like an endpoint picker, and without, in turn."""
        self.stack.enter_context(Millrace(8000, model="fake:step_ms=5"))

        def gap_ms(scrape):
            done, took = False, []

            def scraper():
                while not done:
                    began = time.monotonic()
                    get(8000, "/metrics")
                    took.append(time.monotonic() - began)
                    time.sleep(max(0, 0.05 - took[-1]))  # the pace that is measured
            thread = threading.Thread(target=scraper)
            if scrape:
                thread.start()
            with Crowd(8000, clients=3, max_tokens=30):
                parts = complete(8000, "pace", stream=True, max_tokens=150).parts
            done = True
            if scrape:
                thread.join()
                scrapes.extend(took)
            return 1e3 * statistics.median(b - a for a, b in zip(parts, parts[1:]))

        scrapes = []
        pairs = [(gap_ms(False), gap_ms(True)) for _ in range(5)]
        without, beside = (statistics.median(side) for side in zip(*pairs))
        report(f"between tokens: {without:.2f} ms, {beside:.2f} ms beside a scrape every 50 ms; "
               f"a scrape takes {1e3 * statistics.median(scrapes):.1f} ms (median of {len(scrapes)})")
        self.assertLess(beside / without, max(1.15, max(w for w, _ in pairs) / min(w for w, _ in pairs)))
