"""Servers of different models behind one HAProxy, which sends a request where its model is: docs/several-models.md."""
import contextlib, http.client, json, unittest

from servers import KEY, Millrace, haproxy, until


def ask(path, body=None):
    """Status and JSON of one request through the proxy."""
    connection = http.client.HTTPConnection("127.0.0.1", 8000, timeout=30)
    with contextlib.closing(connection):
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        connection.request("POST" if body else "GET", path, json.dumps(body) if body else None, headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())


class ByModel(unittest.TestCase):
    def setUp(self):
        stack = contextlib.ExitStack()
        self.addCleanup(stack.close)
        names = "smollm2-135m-instruct,text-davinci-002"
        stack.enter_context(Millrace(8001, "--served-model-name", names))
        stack.enter_context(Millrace(8002, "--served-model-name", "qwen2.5-coder-0.5b-instruct"))
        stack.enter_context(haproxy("haproxy-models.cfg"))
        body = {"model": "qwen2.5-coder-0.5b-instruct", "prompt": "up?", "max_tokens": 1}
        until("both have been seen", lambda: ask("/v1/completions", body)[0] == 200)

    def test_the_body_the_path_and_neither_say_where_it_goes(self):
        small, coder = "smollm2-135m-instruct", "qwen2.5-coder-0.5b-instruct"
        prompt = {"prompt": "Where am I?", "max_tokens": 3}
        chat = {"messages": [{"role": "user", "content": "Where am I? " * 200}], "max_tokens": 3}
        for model, answers in (small, small), ("text-davinci-002", "text-davinci-002"), (coder, coder):
            for path, body in ("/v1/completions", prompt), ("/v1/chat/completions", chat):
                status, answer = ask(path, {"model": model, **body})
                self.assertEqual((status, answer.get("model")), (200, answers), answer)
            # The model behind a long prompt.
            status, answer = ask("/v1/completions", {"prompt": "long " * 500, "max_tokens": 1, "model": model})
            self.assertEqual((status, answer.get("model")), (200, answers), answer)
            status, answer = ask(f"/v1/engines/{model}/completions", prompt)
            self.assertEqual(status, 200, answer)
            self.assertEqual(ask(f"/openai/deployments/{model}/completions", prompt)[0], 200)
            status, answer = ask(f"/v1/models/{model}")
            self.assertEqual((status, answer.get("id")), (200, model), answer)
        status, answer = ask("/v1/completions", {"model": "gpt-9", **prompt})
        self.assertEqual((status, answer["error"]["code"]), (404, "model_not_found"))
        self.assertEqual(ask("/v1/models")[1]["data"][0]["id"], small)
