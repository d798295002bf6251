"""Traces: what a collector gets by OTLP, decoded with OpenTelemetry's own definitions, and what becomes of requests without one."""
import contextlib, http.client, http.server, json, re, signal, socket, threading, time, unittest

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from servers import KEY, Millrace, doctor, until
from test_replicas import report
from traffic import complete

COLLECTOR = 4318
ENDPOINT = f"http://127.0.0.1:{COLLECTOR}"
CANARY = "a canary that sings of gold"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
# Often enough that nobody waits.
EAGER = {"OTEL_BSP_SCHEDULE_DELAY": "50"}


class Collector:
    """Takes traces, and keeps them as they came."""

    def __init__(self, status=200):
        self.requests, self.answered = [], threading.Event()
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                collector.requests.append((self.path, headers, body))
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(status)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", COLLECTOR), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def decoded(self):
        return [ExportTraceServiceRequest.FromString(body) for _, _, body in list(self.requests)]

    def spans(self):
        return [span for request in self.decoded() for resource in request.resource_spans
                for scope in resource.scope_spans for span in scope.spans]

    def roots(self):
        return [span for span in self.spans() if span.kind == Span.SPAN_KIND_SERVER]

    def tree(self, **attributes):
        """The root with these attributes, and its children by name, once it is there: a root is sent last."""
        def find():
            for root in self.roots():
                if attributes.items() <= values(root).items():
                    return root
        root = until(f"a root with {attributes}", find)
        children = [span for span in self.spans() if span.parent_span_id == root.span_id]
        return root, {child.name: child for child in children}


def plain(value):
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [plain(item) for item in value.array_value.values]
    return getattr(value, kind)


def values(thing):
    return {attribute.key: plain(attribute.value) for attribute in thing.attributes}


def ask(port, path="/v1/completions", traceparent=None, key=KEY, headers=None, **body):
    """Status and body of an answer, streamed or not."""
    said = {"prompt": CANARY} if path == "/v1/completions" else {"messages": [{"role": "user", "content": CANARY}]}
    body = {"model": "text-davinci-003", "max_tokens": 8, "ignore_eos": True, **said, **body}
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json", **(headers or {})}
    if traceparent:
        headers["traceparent"] = traceparent
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with contextlib.closing(connection):
        connection.request("POST", path, json.dumps(body), headers)
        response = connection.getresponse()
        return response.status, response.read().decode()


class Traces(unittest.TestCase):
    def setUp(self):
        self.stack = contextlib.ExitStack()
        self.addCleanup(self.stack.close)

    def collector(self, **how):
        return self.stack.enter_context(Collector(**how))

    def millrace(self, *arguments, model="fake:step_ms=2,vocab=512", **environment):
        arguments = ["--log-format", "json", *arguments]
        return self.stack.enter_context(Millrace(8000, *arguments, model=model, MILLRACE_LOG_LEVEL="info", **environment))

    def assert_nested(self, root, children):
        """Phases follow each other inside the request; making text lies inside it, too."""
        for child in children.values():
            self.assertEqual((child.trace_id, child.kind), (root.trace_id, Span.SPAN_KIND_INTERNAL))
            self.assertLessEqual(root.start_time_unix_nano, child.start_time_unix_nano, child.name)
            self.assertLessEqual(child.start_time_unix_nano, child.end_time_unix_nano, child.name)
            self.assertLessEqual(child.end_time_unix_nano, root.end_time_unix_nano, child.name)
        order = [children[name] for name in ("queue", "prefill", "decode") if name in children]
        for before, after in zip(order, order[1:]):
            self.assertEqual(before.end_time_unix_nano, after.start_time_unix_nano)

    def assert_says_nothing(self, collector):
        for _, _, body in collector.requests:
            for secret in CANARY, KEY, KEY[3:]:
                self.assertNotIn(secret.encode(), body)

    def test_a_request_is_a_tree_of_spans_in_its_callers_trace(self):
        collector = self.collector()
        server = self.millrace("--otlp-endpoint", ENDPOINT, **EAGER, OTEL_EXPORTER_OTLP_HEADERS="x-tenant=blue%20one")
        began = time.time_ns()
        status, text = ask(8000, traceparent=f"00-{TRACE}-{PARENT}-01", temperature=0.7, top_p=0.9, n=2,
                           headers={"tracestate": "vendor=1", "X-Request-Id": "r-1"})
        answer = json.loads(text)
        self.assertEqual(status, 200, text)
        root, children = collector.tree(**{"millrace.request.id": "r-1"})
        self.assertEqual((root.trace_id.hex(), root.parent_span_id.hex(), root.trace_state), (TRACE, PARENT, "vendor=1"))
        self.assertEqual((root.name, root.status.code), ("text_completion text-davinci-003", Status.STATUS_CODE_UNSET))
        self.assertEqual(set(children), {"queue", "prefill", "decode", "detokenise"})
        self.assert_nested(root, children)
        self.assertTrue(began <= root.start_time_unix_nano <= root.end_time_unix_nano <= time.time_ns())
        usage, found = answer["usage"], values(root)
        expected = {
            "gen_ai.operation.name": "text_completion", "gen_ai.provider.name": "millrace",
            "gen_ai.request.model": "text-davinci-003", "gen_ai.response.model": "fake", "gen_ai.response.id": answer["id"],
            "gen_ai.request.max_tokens": 8, "gen_ai.request.temperature": 0.7, "gen_ai.request.top_p": 0.9,
            "gen_ai.request.choice.count": 2, "gen_ai.response.finish_reasons": ["length", "length"],
            "gen_ai.usage.input_tokens": usage["prompt_tokens"], "gen_ai.usage.output_tokens": 16,
            "gen_ai.usage.cache_read.input_tokens": usage["prompt_tokens_details"]["cached_tokens"],
            "http.request.method": "POST", "http.route": "/v1/completions", "http.response.status_code": 200,
            "millrace.request.id": "r-1", "millrace.key.id": "$MILLRACE_API_KEY", "millrace.preemptions": 0,
        }
        self.assertEqual(found, expected)
        self.assertEqual(values(children["detokenise"]), {"millrace.tokens": 16})
        # Seven steps of at least 2 ms follow the first token.
        self.assertGreaterEqual(children["decode"].end_time_unix_nano - children["decode"].start_time_unix_nano, 13e6)
        path, headers, _ = collector.requests[0]
        self.assertEqual((path, headers["content-type"], headers["x-tenant"]),
                         ("/v1/traces", "application/x-protobuf", "blue one"))
        resource = values(collector.decoded()[0].resource_spans[0].resource)
        self.assertEqual(resource["service.name"], "millrace")
        self.assertIn("service.version", resource)

        # A streamed chat without a caller's trace has one of its own, which the log tells.
        status, text = ask(8000, "/v1/chat/completions", stream=True, headers={"X-Request-Id": "r-2"})
        self.assertEqual(status, 200, text)
        root, children = collector.tree(**{"millrace.request.id": "r-2"})
        found = values(root)
        self.assertEqual((root.name, root.parent_span_id), ("chat text-davinci-003", b""))
        self.assertEqual((found["gen_ai.operation.name"], found["gen_ai.request.stream"]), ("chat", True))
        self.assertGreater(found["gen_ai.response.time_to_first_chunk"], 0)
        self.assertEqual(set(children), {"queue", "prefill", "decode", "detokenise"})
        self.assert_nested(root, children)
        line = next(line for line in server.said().splitlines() if '"id":"r-2"' in line)
        self.assertEqual(json.loads(line)["trace_id"], root.trace_id.hex())

        # What was refused has a span, and no phases.
        status, _ = ask(8000, max_tokens=-1, headers={"X-Request-Id": "r-3"})
        root, children = collector.tree(**{"millrace.request.id": "r-3"})
        self.assertEqual((status, root.name, children), (400, "text_completion", {}))
        self.assertEqual((values(root)["error.type"], values(root)["http.response.status_code"]), ("invalid_request", 400))
        self.assertEqual(root.status.code, Status.STATUS_CODE_UNSET)
        self.assert_says_nothing(collector)
        self.assertEqual(server.metric("millrace_otlp_spans_dropped_total"), 0)

    def test_a_client_that_leaves_and_a_step_that_fails(self):
        collector = self.collector()
        self.millrace("--otlp-endpoint", ENDPOINT, model="fake:step_ms=2,vocab=512,fault=panic@60", **EAGER)
        with contextlib.closing(socket.create_connection(("127.0.0.1", 8000))) as client:
            body = json.dumps({"model": "text-davinci-003", "prompt": CANARY, "max_tokens": 3000, "stream": True, "ignore_eos": True})
            client.sendall((f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\nX-Request-Id: leaves\r\n"
                            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}").encode())
            self.assertIn(b"200 OK", client.recv(1000))
        root, children = collector.tree(**{"millrace.request.id": "leaves"})
        self.assertEqual((values(root)["gen_ai.response.finish_reasons"], root.status.code), (["abort"], Status.STATUS_CODE_UNSET))
        self.assertNotIn("error.type", values(root))
        self.assert_nested(root, children)
        status, text = ask(8000, max_tokens=200, headers={"X-Request-Id": "fails"})
        self.assertEqual(status, 500, text)
        root, children = collector.tree(**{"millrace.request.id": "fails"})
        self.assertEqual((values(root)["gen_ai.response.finish_reasons"], values(root)["error.type"]), (["error"], "internal_error"))
        self.assertEqual((root.status.code, root.status.message), (Status.STATUS_CODE_ERROR, "internal_error"))
        self.assert_nested(root, children)

    def test_what_is_not_sampled_is_not_sent_and_what_waits_is_sent_at_the_end(self):
        collector = self.collector()
        # By OpenTelemetry's variables alone, and so seldom that nothing is sent before the end.
        server = self.millrace(OTEL_EXPORTER_OTLP_ENDPOINT=ENDPOINT, OTEL_BSP_SCHEDULE_DELAY="3600000", OTEL_SERVICE_NAME="mill-7")
        for flags, request in ("00", "unsampled"), ("01", "sampled"):
            status, text = ask(8000, traceparent=f"00-{TRACE}-{PARENT}-{flags}", headers={"X-Request-Id": request})
            self.assertEqual(status, 200, text)
        line = next(line for line in server.said().splitlines() if '"id":"unsampled"' in line)
        self.assertEqual(json.loads(line)["trace_id"], TRACE)
        server.send(signal.SIGTERM)
        self.assertEqual(server.wait(), 0)
        self.assertEqual([values(root)["millrace.request.id"] for root in collector.roots()], ["sampled"])
        self.assertEqual(len(collector.spans()), 5)
        self.assertEqual(values(collector.decoded()[0].resource_spans[0].resource)["service.name"], "mill-7")
        self.assert_says_nothing(collector)

    def test_the_doctor_asks_the_collector(self):
        with Collector() as collector:
            check = doctor(OTEL_EXPORTER_OTLP_ENDPOINT=ENDPOINT)["collector"]
            self.assertEqual((check["state"], check["change"]), ("ok", []), check)
            self.assertEqual(([path for path, *_ in collector.requests], collector.spans()), (["/v1/traces"], []))
        with Collector(status=404):
            check = doctor(MILLRACE_OTLP_ENDPOINT=ENDPOINT)["collector"]
            self.assertEqual(check["state"], "warn")
            self.assertIn("404", check["text"])
        self.assertNotIn("collector", doctor())

    def test_a_variable_that_is_no_address_stops_no_server(self):
        wrong = {"OTEL_EXPORTER_OTLP_ENDPOINT": "canary@collector:4317"}
        server = self.millrace("--log-level", "warn", **wrong)
        self.assertEqual(ask(8000)[0], 200)
        self.assertIn("no traces are sent: what OpenTelemetry's variables say is no address", server.said())
        check = doctor(**wrong)["collector"]
        self.assertEqual(check["state"], "warn")
        self.assertNotIn("canary", server.said() + json.dumps(check))

    def test_variables_turn_it_off(self):
        collector = self.collector()
        for off in {"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_EXPORTER": "none"}, {"OTEL_TRACES_SAMPLER": "always_off"}:
            with Millrace(8000, "--otlp-endpoint", ENDPOINT, **off) as server:
                self.assertEqual(ask(8000)[0], 200)
                server.send(signal.SIGTERM)
                self.assertEqual(server.wait(), 0)
        with Millrace(8000) as server:
            self.assertEqual(ask(8000)[0], 200)
            server.send(signal.SIGTERM)
            self.assertEqual(server.wait(), 0)
        self.assertEqual(collector.requests, [])

    def assert_no_harm(self, what):
        """Requests as ever, spans counted as dropped, one warning, an end in time."""
        server = self.millrace("--otlp-endpoint", ENDPOINT, **EAGER)
        slowest = 0
        for number in range(20):
            outcome = complete(8000, CANARY, stream=number % 2 == 0, max_tokens=4)
            self.assertTrue(outcome.whole, outcome.fault)
            slowest = max(slowest, outcome.ended - outcome.began)
        until("spans are given up", lambda: server.metric("millrace_otlp_spans_dropped_total") > 0)
        self.assertTrue(complete(8000, CANARY).whole)
        warnings = re.findall(r'"message":"spans were dropped","why":"([^"]+)"', server.said())
        self.assertEqual(len(warnings), 1, server.said())
        began = time.monotonic()
        server.send(signal.SIGTERM)
        self.assertEqual(server.wait(), 0)
        report(f"{what}: {warnings[0]}; slowest request {1e3 * slowest:.0f} ms, end in {time.monotonic() - began:.1f} s")

    def test_no_collector_harms_no_request(self):
        self.assert_no_harm("no collector")

    def test_a_collector_that_refuses_harms_no_request(self):
        self.collector(status=400)
        self.assert_no_harm("a collector that refuses")

    def test_a_collector_that_never_answers_harms_no_request(self):
        silent = self.stack.enter_context(socket.create_server(("127.0.0.1", COLLECTOR)))
        silent.listen(64)
        self.assert_no_harm("a silent collector")
